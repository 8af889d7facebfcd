//! Places in source texts. Renders nothing.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A source text known to [`Sources`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SourceId(pub u32);

/// A byte range in one source text.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// Which text.
    pub source: SourceId,
    /// Byte offsets in it.
    pub range: Range<usize>,
}

impl Place {
    /// A place from its parts.
    pub fn new(source: SourceId, range: Range<usize>) -> Self {
        Self { source, range }
    }
}

/// A value and where it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub place: Place,
}

impl<T> Placed<T> {
    /// A value at a place.
    pub fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

/// One source text.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path as people should read it: relative to the workspace root where it lies below it.
    pub path: PathBuf,
    /// The whole text.
    pub text: Arc<str>,
}

/// All source texts that a diagnostic may point into.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    all: Vec<Source>,
}

impl Sources {
    /// Adds a text.
    pub fn add(&mut self, path: impl AsRef<Path>, text: impl Into<Arc<str>>) -> SourceId {
        self.all.push(Source { path: path.as_ref().to_owned(), text: text.into() });
        SourceId(u32::try_from(self.all.len() - 1).expect("fewer than 2^32 manifests"))
    }

    /// The text with this id.
    pub fn get(&self, id: SourceId) -> &Source {
        &self.all[id.0 as usize]
    }

    /// The text with this id, if it is one of these.
    pub fn find(&self, id: SourceId) -> Option<&Source> {
        self.all.get(id.0 as usize)
    }

    /// `path:line:column` of the start of a place, both counted from 1, the column in characters.
    pub fn locate(&self, place: &Place) -> String {
        let source = self.get(place.source);
        let before = source.text.get(..place.range.start).unwrap_or(&source.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{}:{line}:{column}", source.path.display())
    }
}
