//! Diagnostics as plain data: what is wrong, where, and the way out. `report::render` prints them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::base::span::Place;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Worth knowing; changes nothing.
    Note,
    /// Probably a mistake; the run goes on.
    Warning,
    /// The run cannot go on.
    Error,
}

/// A place with a text beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Where.
    pub place: Place,
    /// What is there; may be empty.
    pub text: String,
}

/// One message to a person.
///
/// `message` names the thing; marks name the place (the first is the main one); `help` is the way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// One sentence fragment, lower case, no full stop, names in backticks.
    pub message: String,
    /// Places, main one first.
    pub marks: Vec<Mark>,
    /// Ways out, each a sentence fragment.
    pub help: Vec<String>,
}

crate::base::compact::compact_words!(Severity { Note = 0, Warning = 1, Error = 2 });
crate::base::compact::compact_struct!(Mark { place, text });
crate::base::compact::compact_struct!(Diagnostic { severity, message, marks, help });

impl Diagnostic {
    /// An error without a place yet.
    pub fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), marks: Vec::new(), help: Vec::new() }
    }

    /// A warning without a place yet.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// A note without a place yet.
    pub fn note(message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(message) }
    }

    /// Adds a place.
    pub fn at(mut self, place: &Place, text: impl Into<String>) -> Self {
        self.marks.push(Mark { place: place.clone(), text: text.into() });
        self
    }

    /// Adds a way out.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// Whether it stops the run.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Alike ones told once: a template that is wrong is wrong in every package.
///
/// Alike are diagnostics that differ only in the task they name, or not at all; the first stays and names some of the others.
/// Order is kept. Cost: one pass.
pub fn merge_alike(diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut merged: Vec<(Diagnostic, Vec<String>)> = Vec::new();
    let mut positions: HashMap<String, usize> = HashMap::new();
    for diagnostic in diagnostics {
        let (shape, task) = shape(&diagnostic);
        match positions.entry(shape) {
            Entry::Vacant(entry) => {
                entry.insert(merged.len());
                merged.push((diagnostic, task.into_iter().collect()));
            }
            Entry::Occupied(entry) => {
                let (_, tasks) = &mut merged[*entry.get()];
                tasks.extend(task.filter(|task| !tasks.contains(task)));
            }
        }
    }
    merged.into_iter().map(|(diagnostic, tasks)| and_others(diagnostic, tasks.get(1..).unwrap_or_default())).collect()
}

/// Tasks named beside the first.
const OTHERS_NAMED_MAX: usize = 3;

fn and_others(diagnostic: Diagnostic, others: &[String]) -> Diagnostic {
    if others.is_empty() {
        return diagnostic;
    }
    let named: Vec<String> = others.iter().take(OTHERS_NAMED_MAX).map(|task| format!("`{task}`")).collect();
    let rest = others.len() - named.len();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    diagnostic.help(format!("the same holds for {}{more}", named.join(", ")))
}

/// What a diagnostic says of any task, and the first task it names.
fn shape(diagnostic: &Diagnostic) -> (String, Option<String>) {
    let mut task = None;
    let mut parts: Vec<&str> = diagnostic.message.split('`').collect();
    for (index, part) in parts.iter_mut().enumerate() {
        if index % 2 == 1 && part.starts_with("//") && part.contains(':') {
            task.get_or_insert_with(|| (*part).to_owned());
            *part = "//";
        }
    }
    let Diagnostic { severity, marks, help, .. } = diagnostic;
    (format!("{severity:?} {} {marks:?} {help:?}", parts.join("`")), task)
}

/// The name among `known` nearest to `word`, if one is near enough to be meant.
///
/// Near is an optimal-string-alignment distance of at most a third of the longer word; ties go to the first in byte order.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= word.len().max(candidate.len()))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::span::SourceId;

    #[test]
    fn what_differs_only_in_its_task_is_told_once() {
        let place = |at: usize| Place::new(SourceId(0), at..at + 1);
        let about = |task: &str, at: usize| {
            Diagnostic::error(format!("unknown pool `db`, and `{task}` asks for it")).at(&place(at), "").help("add it")
        };
        let tasks = ["//a:test", "//b:test", "//b:test", "//c:test", "//d:test", "//e:test"];
        let mut all: Vec<Diagnostic> = tasks.iter().map(|task| about(task, 1)).collect();
        all.push(about("//z:test", 2));
        all.push(Diagnostic::error("unknown pool `web`").at(&place(1), ""));
        let merged = merge_alike(all);
        let texts: Vec<(&str, Option<&str>)> =
            merged.iter().map(|one| (one.message.as_str(), one.help.get(1).map(String::as_str))).collect();
        assert_eq!(
            texts,
            [
                (
                    "unknown pool `db`, and `//a:test` asks for it",
                    Some("the same holds for `//b:test`, `//c:test`, `//d:test` and 1 more")
                ),
                ("unknown pool `db`, and `//z:test` asks for it", None),
                ("unknown pool `web`", None),
            ]
        );
    }

    #[test]
    fn the_nearest_word_is_offered_only_when_it_is_near() {
        let known = ["inputs", "outputs", "needs", "interface"];
        assert_eq!(nearest("input", known), Some("inputs"));
        assert_eq!(nearest("ouptuts", known), Some("outputs"));
        assert_eq!(nearest("colour", known), None);
    }
}
