//! Diagnostics as plain data: what is wrong, where, and the way out. `report::render` prints them.

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

    #[test]
    fn the_nearest_word_is_offered_only_when_it_is_near() {
        let known = ["inputs", "outputs", "needs", "interface"];
        assert_eq!(nearest("input", known), Some("inputs"));
        assert_eq!(nearest("ouptuts", known), Some("outputs"));
        assert_eq!(nearest("colour", known), None);
    }
}
