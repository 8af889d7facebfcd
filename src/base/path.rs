//! Workspace-relative paths that are right by construction. Does no I/O.

use std::fmt;
use std::sync::Arc;

use crate::base::compact::{Compact, Reader, Writer};

/// A normalized UTF-8 path relative to the workspace root (or, where said, to a package or an output tree).
///
/// No leading or trailing slash, no empty, `.` or `..` component, no NUL, no backslash games: what parses can be joined to a
/// root and stays below it as long as no symlink is followed. The root itself is the empty path.
/// Ordering is by bytes of the text. A copy shares the text: a run names each file in many places.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(
    /// `None` for the root, and never empty: so the derived comparisons are those of the texts.
    Option<Arc<str>>,
);

/// Why a text is not a [`RelPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It starts with `/`.
    #[error("the path is absolute")]
    Absolute,
    /// It leaves the directory it is relative to.
    #[error("the path leaves its directory through `..`")]
    Escapes,
    /// It has an empty component, or a NUL byte.
    #[error("the path has an empty component or a NUL byte")]
    Malformed,
    /// It is not UTF-8.
    #[error("the path is not UTF-8")]
    NotUtf8,
}

impl RelPath {
    /// The root: the empty path.
    pub const fn root() -> Self {
        Self(None)
    }

    fn of(text: &str) -> Self {
        Self((!text.is_empty()).then(|| text.into()))
    }

    /// Parses and normalizes: `./a`, `a/`, `a/./b` and `a/x/../b` are accepted, what leaves is not.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        if text.contains('\0') {
            return Err(PathError::Malformed);
        }
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        if trimmed.split('/').all(|part| !matches!(part, "" | "." | "..")) {
            return Ok(Self::of(trimmed));
        }
        let mut parts: Vec<&str> = Vec::new();
        if trimmed.is_empty() {
            return Ok(Self::root());
        }
        for part in trimmed.split('/') {
            match part {
                "" => return Err(PathError::Malformed),
                "." => {}
                ".." => {
                    if parts.pop().is_none() {
                        return Err(PathError::Escapes);
                    }
                }
                part => parts.push(part),
            }
        }
        Ok(Self::of(&parts.join("/")))
    }

    /// Parses the bytes of a file name or path from the disk.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| PathError::NotUtf8)?)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_none()
    }

    /// This path followed by another.
    pub fn join(&self, other: &RelPath) -> RelPath {
        match (self.is_root(), other.is_root()) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            _ => Self::of(&format!("{self}/{other}")),
        }
    }

    /// This path followed by one component.
    ///
    /// # Panics
    /// If `name` is not a plain file name: that is a bug in the caller, which has the name from a directory listing.
    pub fn child(&self, name: &str) -> RelPath {
        assert!(
            !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']),
            "BUG: {name:?} is not a file name"
        );
        if self.is_root() { Self::of(name) } else { Self::of(&format!("{self}/{name}")) }
    }

    /// The directory it is in; `None` for the root.
    pub fn parent(&self) -> Option<RelPath> {
        let text = self.0.as_deref()?;
        Some(text.rfind('/').map_or(Self::root(), |slash| Self::of(&text[..slash])))
    }

    /// The last component; empty for the root.
    pub fn file_name(&self) -> &str {
        self.as_str().rsplit('/').next().unwrap_or("")
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('/').filter(|part| !part.is_empty())
    }

    /// Whether this is `dir` or lies beneath it, by whole components.
    pub fn starts_with(&self, dir: &RelPath) -> bool {
        let rest = self.as_str().strip_prefix(dir.as_str());
        dir.is_root() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What is left below `dir`; `None` if it is not beneath it.
    pub fn strip_prefix(&self, dir: &RelPath) -> Option<RelPath> {
        if !self.starts_with(dir) {
            return None;
        }
        let rest = &self.as_str()[dir.as_str().len()..];
        Some(Self::of(rest.strip_prefix('/').unwrap_or(rest)))
    }
}

/// Copies share their text, those that are read again as well.
impl Compact for RelPath {
    fn put(&self, writer: &mut Writer) {
        let text = self.as_str();
        writer.shared::<Self>(text.as_ptr().addr(), |writer| writer.text(text));
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        reader.shared(|reader| Self::parse(reader.text()?).ok())
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("."))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_parses_stays_below_its_root() {
        let check = |text: &str, expect: Result<&str, PathError>| {
            assert_eq!(RelPath::parse(text).as_ref().map(RelPath::as_str), expect.as_ref().map(|t| *t), "{text:?}");
        };
        check("", Ok(""));
        check(".", Ok(""));
        check("a/b", Ok("a/b"));
        check("./a/./b/", Ok("a/b"));
        check("a/x/../b", Ok("a/b"));
        check("..", Err(PathError::Escapes));
        check("a/../../b", Err(PathError::Escapes));
        check("/etc", Err(PathError::Absolute));
        check("a//b", Err(PathError::Malformed));
        check("a\0b", Err(PathError::Malformed));
    }

    #[test]
    fn prefixes_are_whole_components() {
        let path = |text| RelPath::parse(text).expect("a good path");
        assert!(path("libs/ui/a").starts_with(&path("libs/ui")));
        assert!(!path("libs/uikit").starts_with(&path("libs/ui")));
        assert_eq!(path("libs/ui/a").strip_prefix(&path("libs/ui")), Some(path("a")));
        assert_eq!(path("libs").strip_prefix(&RelPath::root()), Some(path("libs")));
        assert_eq!(path("a").parent(), Some(RelPath::root()));
        assert_eq!(RelPath::root().parent(), None);
    }
}
