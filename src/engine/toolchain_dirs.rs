//! Output trees of tasks on the disk of the store, each once for everyone who uses it. Decides nothing about what they are for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::materialize::MaterializeError;
use crate::engine::session::Session;
use crate::engine::toolchain::OutputTree;
use crate::engine::waiting;
use crate::fs::dir::Dir;
use crate::fs::{link, ops};
use crate::sandbox::spec::{MTIME_NS, input_mode};
use crate::store::{Keep, Store, Wanted};

/// The directory that holds exactly this tree; made if it is not there. `None` if the run is cancelled meanwhile.
///
/// Of a tool, too, a command sees content, kind and executable bit: not when it was laid out, nor under which umask.
/// Cost: the first time in the store, one copy of every file; the first time in an invocation, one `lstat` of every file.
pub fn tree_dir(session: &Session<'_>, tree: &OutputTree) -> Result<Option<PathBuf>, MaterializeError> {
    if let Some(known) = session.known_tree_dir(&tree.digest) {
        return Ok(Some(known));
    }
    let laying = Laying::new(session, tree);
    // Another process may be making it, and a large one takes a while.
    let Some(made) = waiting::unless_cancelled(&session.cancel, move || laying.dir()).transpose()? else {
        return Ok(None);
    };
    session.note_tree_dir(tree.digest, made.clone());
    Ok(Some(made))
}

/// A tree to be laid out.
pub struct Laying {
    store: Arc<Store>,
    listing: Listing,
    /// Where the task's outputs lie in the workspace: a second source of content.
    placed: PathBuf,
}

impl Laying {
    /// That of a task.
    pub fn new(session: &Session<'_>, tree: &OutputTree) -> Self {
        Self {
            store: Arc::clone(&session.store),
            placed: session.workspace.root.join(session.package(tree.task).join(&tree.from).as_str()),
            listing: tree.entries().map(|(path, entry)| (path, entry.clone())).collect(),
        }
    }

    /// Lays it out in an empty directory of the caller's own, with whatever modes and times.
    pub fn fill(&self, dir: &Path) -> Result<(), MaterializeError> {
        for (path, entry) in &self.listing {
            let at = dir.join(path.as_str());
            if let Some(above) = at.parent() {
                ops::create_dir_all(above)?;
            }
            match entry {
                Entry::Dir => ops::create_dir_all(&at)?,
                Entry::Link { target } => ops::symlink(target, &at)?,
                Entry::File { digest, size, .. } => self.content((digest, *size), path, &at)?,
            }
        }
        Ok(())
    }

    fn dir(&self) -> Result<PathBuf, MaterializeError> {
        let keep =
            Keep { listing: &self.listing, modes: [input_mode(false), input_mode(true)], mtime_ns: &|_| MTIME_NS };
        // This thread is none of a pool, so it may wait for one with a lock in its hand.
        let place = |file: &Wanted<'_>| self.content((&file.digest, file.size), file.path, &file.to);
        let mut fill = |wanted: &[Wanted<'_>]| wanted.par_iter().try_for_each(place).map(|()| true);
        self.store.keep(&keep, &mut fill)?.ok_or_else(|| MaterializeError::Vanished(RelPath::root()))
    }

    fn content(&self, (digest, size): (&Digest, u64), path: &RelPath, to: &Path) -> Result<(), MaterializeError> {
        let (dir, name) = Dir::above(to)?;
        if self.store.write_to(digest, size, (&dir, name), false)? {
            return Ok(());
        }
        let placed = self.placed.join(path.as_str());
        let copied = link::copy_digesting(&placed, to, 0o600);
        if copied.map_or(true, |copied| copied != (*digest, size)) {
            return Err(MaterializeError::Vanished(path.clone()));
        }
        Ok(())
    }
}
