//! Output trees of tasks on the disk of the store, each once for everyone who uses it. Decides nothing about what they are for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::engine::materialize::MaterializeError;
use crate::engine::session::Session;
use crate::engine::toolchain::OutputTree;
use crate::engine::waiting;
use crate::fs::{link, ops};
use crate::sandbox::spec::{MTIME_NS, input_mode};
use crate::store::{Store, TreeDir};

/// The directory that holds exactly this tree; made if it is not there. `None` if the run is cancelled meanwhile.
///
/// Cost: the first time in the store, one copy of every file; the first time in an invocation, one `lstat` of every file.
pub fn tree_dir(session: &Session<'_>, tree: &OutputTree) -> Result<Option<Arc<TreeDir>>, MaterializeError> {
    if let Some(known) = session.known_tree_dir(&tree.digest) {
        return Ok(Some(known));
    }
    let laying = Laying::new(session, tree);
    // Another process may be making it, and a large one takes a while.
    let made = waiting::unless_cancelled(&session.cancel, move || laying.dir()).transpose()?;
    Ok(made.map(|dir| session.keep_tree_dir(tree.digest, dir)))
}

/// A tree being laid out.
pub struct Laying {
    store: Arc<Store>,
    tree: OutputTree,
    /// Where the task's outputs lie in the workspace: a second source of content.
    placed: PathBuf,
}

impl Laying {
    /// Nothing yet.
    pub fn new(session: &Session<'_>, tree: &OutputTree) -> Self {
        Self {
            store: Arc::clone(&session.store),
            placed: session.workspace.root.join(session.package(tree.task).join(&tree.from).as_str()),
            tree: tree.clone(),
        }
    }

    fn dir(&self) -> Result<TreeDir, MaterializeError> {
        self.store.tree_dir(&self.tree.digest, &|dir| self.fill(dir))
    }

    /// Lays it out in an empty directory.
    pub fn fill(&self, dir: &Path) -> Result<(), MaterializeError> {
        let entries: Vec<(RelPath, &Entry)> = self.tree.entries().collect();
        let dirs = entries.iter().filter_map(|(path, entry)| match entry {
            Entry::Dir => Some(path.clone()),
            Entry::File { .. } | Entry::Link { .. } => path.parent(),
        });
        let dirs: BTreeSet<RelPath> = dirs.collect();
        dirs.iter().try_for_each(|path| ops::create_dir_all(&dir.join(path.as_str())))?;
        entries.into_par_iter().try_for_each(|(path, entry)| self.place(&dir.join(path.as_str()), &path, entry))?;
        // Of a tool, too, a command sees content, kind and executable bit: not when it was laid out here, nor under which umask.
        dirs.iter().chain([&RelPath::root()]).try_for_each(|path| {
            let place = dir.join(path.as_str());
            ops::set_mode(&place, 0o755)?;
            Ok(ops::set_times(&place, MTIME_NS)?)
        })
    }

    fn place(&self, at: &Path, path: &RelPath, entry: &Entry) -> Result<(), MaterializeError> {
        match entry {
            Entry::Dir => {}
            Entry::Link { target } => {
                ops::symlink(target, at)?;
                ops::set_times(at, MTIME_NS)?;
            }
            Entry::File { digest, size, executable } => {
                if !self.store.write_to(digest, *size, at, *executable)? {
                    let placed = self.placed.join(path.as_str());
                    let copied = link::copy_digesting(&placed, at, link::file_mode(*executable));
                    if copied.map_or(true, |copied| copied != (*digest, *size)) {
                        return Err(MaterializeError::Vanished(path.clone()));
                    }
                }
                ops::set_mode(at, input_mode(*executable))?;
                ops::set_times(at, MTIME_NS)?;
            }
        }
        Ok(())
    }
}
