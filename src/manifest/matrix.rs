//! `matrix`: every combination of its values, or what is wrong with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::label::{Label, Matrix, is_name};
use crate::base::limits::MATRIX_TASKS_MAX;
use crate::base::span::Place;
use crate::manifest::layers::Layers;
use crate::manifest::origin::Origin;
use crate::manifest::problems::Problems;
use crate::manifest::value::At;

/// The combinations in byte order of the axes, values in the order written; one empty combination without a matrix.
/// `None` after reporting what is wrong.
pub(crate) fn combinations(layers: &Layers<'_>, problems: &mut Problems<'_>) -> Option<Vec<Arc<Matrix>>> {
    let axes = layers.merged(|table| table.matrix.as_ref().map(|matrix| &matrix.value));
    let Some((matrix, origin)) = layers.first(|table| table.matrix.as_ref()) else {
        return Some(vec![Label::no_matrix()]);
    };
    let good: Vec<bool> =
        axes.iter().map(|(axis, values, origin)| check_axis(axis, values, origin, problems)).collect();
    if !good.into_iter().all(|good| good) {
        return None;
    }
    let sizes = axes.iter().map(|(_, values, _)| values.value.len());
    let count = sizes.fold(1usize, usize::saturating_mul);
    if count > MATRIX_TASKS_MAX {
        problems.push(too_many(count, &origin.of(matrix)));
        return None;
    }
    let mut all = vec![Matrix::new()];
    for (axis, values, _) in axes {
        let mut wider = Vec::with_capacity(all.len() * values.value.len());
        for combination in &all {
            for value in &values.value {
                let mut next: Matrix = combination.clone();
                next.insert(axis.value.clone(), value.value.clone());
                wider.push(next);
            }
        }
        all = wider;
    }
    Some(all.into_iter().map(Arc::new).collect())
}

fn too_many(count: usize, place: &Place) -> Diagnostic {
    Diagnostic::error(format!("the matrix makes {count} tasks, more than {MATRIX_TASKS_MAX}"))
        .at(place, "")
        .help("take values out, or split it over several tasks")
}

fn check_axis(axis: &At<String>, values: &At<Vec<At<String>>>, origin: &Origin, problems: &mut Problems<'_>) -> bool {
    let name = &axis.value;
    if !is_name(name) {
        problems.push(
            Diagnostic::error(format!("`{name}` cannot name a matrix axis"))
                .at(&origin.of(axis), "")
                .help("a name is letters, digits, `.`, `_` and `-`, and starts with a letter, a digit or `_`"),
        );
        return false;
    }
    if values.value.is_empty() {
        problems.push(
            Diagnostic::error(format!("matrix axis `{name}` has no values, so there would be no task"))
                .at(&origin.of(values), "")
                .help("give it at least one value"),
        );
        return false;
    }
    let mut seen = BTreeSet::new();
    let mut good = true;
    for value in &values.value {
        let text = value.value.as_str();
        // Values stand in labels, `//apps/web:build[node=20,os=linux]`, and must be found again there.
        let problem = if text.trim() != text || text.is_empty() || text.contains(['[', ']', ',', '=', '#', '\0', '\n'])
        {
            Diagnostic::error(format!("`{}` cannot be a matrix value", text.escape_debug()))
                .at(&origin.of(value), "")
                .help("it stands in the task's label: no `[`, `]`, `,`, `=`, `#`, line break or outer space, and not empty")
        } else if !seen.insert(text) {
            Diagnostic::error(format!("matrix axis `{name}` has the value `{text}` twice"))
                .at(&origin.of(value), "again here")
                .help("take it out")
        } else {
            continue;
        };
        problems.push(problem);
        good = false;
    }
    good
}
