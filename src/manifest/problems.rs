//! Where lowering reports to. A template used by a hundred packages, or a matrix of a hundred tasks, says a thing once.

use crate::base::diagnostic::Diagnostic;

/// How many of the latest diagnostics a new one is compared with. Repetitions come close together; looking further back would
/// make a manifest with many errors cost their square.
const WINDOW: usize = 256;

/// The diagnostics so far.
pub(crate) struct Problems<'a> {
    all: &'a mut Vec<Diagnostic>,
    told: usize,
}

impl<'a> Problems<'a> {
    /// Reports into a list.
    pub(crate) fn new(all: &'a mut Vec<Diagnostic>) -> Self {
        Self { all, told: 0 }
    }

    /// Adds a diagnostic unless it was said already.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.told += 1;
        let window = &self.all[self.all.len().saturating_sub(WINDOW)..];
        if !window.contains(&diagnostic) {
            self.all.push(diagnostic);
        }
    }

    /// How often something was to be said, repetitions included.
    pub(crate) fn told(&self) -> usize {
        self.told
    }
}

/// Puts what was found into the order of the text: people read from the top.
pub(crate) fn sort(found: &mut [Diagnostic]) {
    found.sort_by_key(|diagnostic| diagnostic.marks.first().map(|mark| (mark.place.source, mark.place.range.start)));
}
