//! What differs between a commit and the files on disk: which files, and what there was before. Asks nobody.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::base::path::RelPath;

/// A file that differs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Change {
    /// Its path relative to the workspace.
    pub path: RelPath,
    /// How it differs.
    pub kind: ChangeKind,
}

/// How a file differs from what a commit has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ChangeKind {
    /// It was not there.
    Came,
    /// It is no longer there.
    Went,
    /// It was something else, such as a link.
    Turned,
    /// It has other content or another mode.
    Altered,
}

impl Change {
    /// Whether a list of names, with what they are, shows it.
    pub fn is_in_names(&self) -> bool {
        self.kind != ChangeKind::Altered
    }
}

/// The files of a commit, or those of them that changed since.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Before {
    /// By path: what it is.
    files: BTreeMap<RelPath, FileKind>,
}

/// What lies at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// Anything else, such as a directory or another repository.
    Other,
}

impl Before {
    /// Those files.
    pub fn new(files: BTreeMap<RelPath, FileKind>) -> Self {
        Self { files }
    }

    /// How what lies at a path now differs.
    pub fn change(&self, path: RelPath, now: Option<FileKind>) -> Change {
        let kind = match (self.files.get(&path), now) {
            (None, _) => ChangeKind::Came,
            (Some(FileKind::File | FileKind::Link), None | Some(FileKind::Other)) => ChangeKind::Went,
            (Some(FileKind::Other), Some(FileKind::File | FileKind::Link)) => ChangeKind::Came,
            (Some(FileKind::Other), None) => ChangeKind::Went,
            (Some(was), Some(is)) if *was != is => ChangeKind::Turned,
            (Some(_), Some(_)) => ChangeKind::Altered,
        };
        Change { path, kind }
    }

    /// Whether there was a file in the directory or deeper; to be asked only of all files of a commit.
    pub fn has_dir(&self, dir: &RelPath) -> bool {
        if dir.is_root() {
            return true;
        }
        let mut beneath = self.files.range((Bound::Excluded(dir), Bound::Unbounded));
        // `a-b` sorts between `a` and `a/c`.
        let near = beneath.by_ref().take_while(|(path, _)| path.as_str().starts_with(dir.as_str()));
        near.into_iter().any(|(path, _)| path.starts_with(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    #[test]
    fn what_was_there_tells_how_a_file_changed() {
        let files = [("a-b", FileKind::File), ("a/c", FileKind::Link), ("ab/d", FileKind::File)];
        let before = Before::new(files.into_iter().map(|(file, kind)| (path(file), kind)).collect());
        let check = |file: &str, now: Option<FileKind>, expect: ChangeKind| {
            assert_eq!(before.change(path(file), now).kind, expect, "{file} {now:?}");
        };
        check("a-b", Some(FileKind::File), ChangeKind::Altered);
        check("a-b", None, ChangeKind::Went);
        check("a/c", Some(FileKind::File), ChangeKind::Turned);
        check("a/d", Some(FileKind::File), ChangeKind::Came);
        check("a/d", None, ChangeKind::Came);
        check("a-b", Some(FileKind::Other), ChangeKind::Went);
        for (dir, expect) in [("", true), ("a", true), ("ab", true), ("a-b", false), ("b", false), ("a/c", false)] {
            let dir = if dir.is_empty() { RelPath::root() } else { path(dir) };
            assert_eq!(before.has_dir(&dir), expect, "{dir}");
        }
    }
}
