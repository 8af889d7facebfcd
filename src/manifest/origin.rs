//! Where a table was written: the text behind the byte ranges, so that an error can point at one word inside a string.

use std::ops::Range;
use std::sync::Arc;

use crate::base::span::{Place, Placed, SourceId};
use crate::manifest::value::At;

/// One manifest text.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    source: SourceId,
    text: Arc<str>,
}

impl Origin {
    /// The text known to the caller's `Sources` as `source`.
    pub(crate) fn new(source: SourceId, text: &str) -> Self {
        Self { source, text: text.into() }
    }

    /// A place in it; cut to the text, should a range ever lie outside.
    pub(crate) fn place(&self, range: &Range<usize>) -> Place {
        let start = range.start.min(self.text.len());
        Place::new(self.source, start..range.end.clamp(start, self.text.len()))
    }

    /// The place of a value.
    pub(crate) fn of<T>(&self, value: &At<T>) -> Place {
        self.place(&value.range)
    }

    /// The value with its place.
    pub(crate) fn placed(&self, value: &At<String>) -> Placed<String> {
        Placed::new(value.value.clone(), self.of(value))
    }

    /// The place of `needle` inside the string written at `range`; the whole string where escapes hide it or it occurs twice.
    pub(crate) fn within(&self, range: &Range<usize>, needle: &str) -> Place {
        let whole = self.place(range);
        let written = self.text.get(whole.range.clone()).unwrap_or("");
        let mut found = written.match_indices(needle).map(|(at, _)| at);
        match (found.next(), found.next()) {
            (Some(at), None) if !needle.is_empty() => {
                let start = whole.range.start + at;
                Place::new(self.source, start..start + needle.len())
            }
            _ => whole,
        }
    }
}

/// A string of a manifest with the text it stands in.
#[derive(Clone, Copy)]
pub(crate) struct Written<'a> {
    /// The string.
    pub(crate) text: &'a str,
    range: &'a Range<usize>,
    origin: &'a Origin,
}

impl<'a> Written<'a> {
    /// A string from its parts.
    pub(crate) fn new(value: &'a At<String>, origin: &'a Origin) -> Self {
        Self { text: &value.value, range: &value.range, origin }
    }

    /// A string that is written in a place of its own, such as a shell command.
    pub(crate) fn at(text: &'a str, range: &'a Range<usize>, origin: &'a Origin) -> Self {
        Self { text, range, origin }
    }

    /// Where it is.
    pub(crate) fn place(&self) -> Place {
        self.origin.place(self.range)
    }

    /// Where a part of it is.
    pub(crate) fn within(&self, needle: &str) -> Place {
        self.origin.within(self.range, needle)
    }
}
