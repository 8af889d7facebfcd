//! Places in source texts. Renders nothing.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::base::compact::{Compact, Reader, Writer};

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

impl Compact for Place {
    fn put(&self, writer: &mut Writer) {
        let Self { source, range } = self;
        source.0.put(writer);
        range.start.put(writer);
        range.end.wrapping_sub(range.start).put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        let source = SourceId(u32::take(reader)?);
        let start = usize::take(reader)?;
        Some(Self::new(source, start..start.checked_add(usize::take(reader)?)?))
    }
}

impl<T: Compact> Compact for Placed<T> {
    fn put(&self, writer: &mut Writer) {
        let Self { value, place } = self;
        value.put(writer);
        place.put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { value: T::take(reader)?, place: Place::take(reader)? })
    }
}

/// One source text.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path as people should read it: relative to the workspace root where it lies below it.
    pub path: PathBuf,
    text: OnceLock<Arc<str>>,
}

/// Reads a text that is wanted after all; `None` if it is no longer the one that places point into.
pub type ReadAgain = dyn Fn(SourceId, &Path) -> Option<String> + Send + Sync;

/// All source texts that a diagnostic may point into.
#[derive(Clone, Default)]
pub struct Sources {
    all: Vec<Source>,
    read_again: Option<Arc<ReadAgain>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.all).finish()
    }
}

impl Sources {
    /// Adds a text.
    pub fn add(&mut self, path: impl AsRef<Path>, text: impl Into<Arc<str>>) -> SourceId {
        self.all.push(Source { path: path.as_ref().to_owned(), text: OnceLock::from(text.into()) });
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

    /// Sources of which only the paths are known; texts are read when a diagnostic is told.
    pub fn unread(paths: impl IntoIterator<Item = PathBuf>, read_again: Arc<ReadAgain>) -> Self {
        let all = paths.into_iter().map(|path| Source { path, text: OnceLock::new() }).collect();
        Self { all, read_again: Some(read_again) }
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (SourceId, &Source)> {
        (0..).map(SourceId).zip(&self.all)
    }

    /// The whole text with this id; empty if it cannot be had any more.
    pub fn text(&self, id: SourceId) -> &str {
        let Some(source) = self.find(id) else { return "" };
        source.text.get_or_init(|| {
            let read = self.read_again.as_ref().and_then(|read| read(id, &source.path));
            read.unwrap_or_default().into()
        })
    }

    /// `path:line:column` of the start of a place, both counted from 1, the column in characters.
    pub fn locate(&self, place: &Place) -> String {
        let source = self.get(place.source);
        let text = self.text(place.source);
        let before = text.get(..place.range.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{}:{line}:{column}", source.path.display())
    }
}
