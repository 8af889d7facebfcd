//! Task labels: `//apps/web:build[node=20]`. Pure text and structure; knows no graph.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::base::path::RelPath;

/// Matrix values by axis.
pub type Matrix = BTreeMap<String, String>;

/// The name of a task in the workspace: its package, its name and its matrix values. Labels of one package, name or matrix share it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Label {
    /// Directory of the package; the root package is the root path.
    pub package: RelPath,
    /// Name in the manifest.
    pub name: Arc<str>,
    /// Matrix values by axis; empty for most tasks.
    pub matrix: Arc<Matrix>,
}

impl Label {
    /// A label without matrix values.
    pub fn new(package: RelPath, name: impl Into<Arc<str>>) -> Self {
        Self { package, name: name.into(), matrix: Self::no_matrix() }
    }

    /// What a label without matrix values has, always the same.
    pub fn no_matrix() -> Arc<Matrix> {
        static NONE: LazyLock<Arc<Matrix>> = LazyLock::new(Arc::default);
        Arc::clone(&NONE)
    }
}

crate::base::compact::compact_struct!(Label { package, name, matrix });

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Part by part: labels of whole workspaces are written.
        for part in ["//", self.package.as_str(), ":", &self.name] {
            f.write_str(part)?;
        }
        for (number, (axis, value)) in self.matrix.iter().enumerate() {
            for part in [if number == 0 { "[" } else { "," }, axis, "=", value] {
                f.write_str(part)?;
            }
        }
        if self.matrix.is_empty() { Ok(()) } else { f.write_str("]") }
    }
}

/// Whether `name` may name a task, a template, a pool or a matrix axis: a letter or digit, then letters, digits, `.`, `_`, `-`.
pub fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphanumeric() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-'))
        && name.len() <= crate::base::limits::NAME_BYTES_MAX
}
