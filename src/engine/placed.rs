//! What this run put in place, with the signatures it has there. Decides nothing, and looks at nothing again.
//!
//! Content that was just written is known without being read. Its signature may be believed from then on only if no later change can
//! leave it as it is, however soon that comes: where the file system gives each change a time of its own (`fs::grain`). Elsewhere the
//! signature of a file this new tells nothing, and the next run reads it once.

use std::sync::Mutex;

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::engine::session::held;
use crate::fs::grain::Grain;
use crate::fs::stat::StatKey;
use crate::workspace::stat_index::StatIndex;

/// A file that was put in place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacedFile {
    /// Where, relative to the workspace.
    pub path: RelPath,
    /// Its signature there, taken when it had this content, and left by every change since.
    pub stat: StatKey,
    /// Its content.
    pub digest: Digest,
}

/// All of them, in the order in which they were placed.
#[derive(Debug, Default)]
pub struct Placed {
    files: Mutex<Vec<PlacedFile>>,
    /// What is known of file systems.
    pub(super) grain: Grain,
}

impl Placed {
    /// Adds files that are in their places now.
    pub fn add(&self, files: Vec<PlacedFile>) {
        held(&self.files).extend(files);
    }

    /// What was placed so far and has a signature that may be believed.
    pub fn files(&self) -> Vec<PlacedFile> {
        held(&self.files).clone()
    }

    /// Tells an index of the worktree.
    pub fn tell(&self, index: &StatIndex) {
        for PlacedFile { path, stat, digest } in held(&self.files).iter() {
            index.set_exact(path.clone(), *stat, *digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tree::Entry;
    use crate::fs::dir::Dir;
    use crate::fs::ops;

    #[test]
    fn a_file_changed_right_after_it_was_placed_is_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (opened, name) = (Dir::open(dir.path()).expect("a directory"), RelPath::parse("a").expect("a good path"));
        let placed = Placed::default();
        for round in 0_u32..500 {
            // Of one length, so that only the times can tell.
            let text = |what: &str| format!("{what}{round:08}");
            ops::write(&dir.path().join("a"), text("old").as_bytes()).expect("written");
            let (file, stat) = opened.open_file("a").expect("there");
            if placed.grain.known(stat.device).unwrap_or_else(|| placed.grain.try_out(&file, dir.path(), &stat)) {
                placed.add(vec![PlacedFile { path: name.clone(), stat, digest: Digest::of(text("old").as_bytes()) }]);
            }
            ops::write(&dir.path().join("a"), text("new").as_bytes()).expect("written");
            let index = StatIndex::default();
            placed.tell(&index);
            let leaf = index.digest(dir.path(), std::slice::from_ref(&name)).remove(0).expect("there");
            let is_new = |entry: &Entry| matches!(entry, Entry::File { digest, .. } if *digest == Digest::of(text("new").as_bytes()));
            assert!(is_new(&leaf.entry), "round {round}");
        }
    }

    #[test]
    fn a_file_that_was_placed_is_not_read_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        ops::write(&dir.path().join("a"), b"content").expect("written");
        let (path, stat) =
            (RelPath::parse("a").expect("a good path"), StatKey::at(&dir.path().join("a")).expect("there"));
        let claimed = Digest::of(b"what was placed");
        let placed = Placed::default();
        placed.add(vec![PlacedFile { path: path.clone(), stat, digest: claimed }]);
        assert_eq!(placed.files().len(), 1);
        let index = StatIndex::default();
        placed.tell(&index);
        let leaf = index.digest(dir.path(), &[path]).remove(0).expect("there");
        assert!(matches!(leaf.entry, Entry::File { digest, .. } if digest == claimed));
    }
}
