//! Output trees of tasks on the disk of the store, each once for everyone who uses it. Decides nothing about what they are for.

use std::path::PathBuf;
use std::sync::Arc;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::base::path::RelPath;
use crate::base::tree::Listing;
use crate::engine::materialize::MaterializeError;
use crate::engine::session::Session;
use crate::engine::toolchain::OutputTree;
use crate::engine::waiting;
use crate::fs::dir::Dir;
use crate::fs::link;
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
    let laying = Laying {
        store: Arc::clone(&session.store),
        placed: session.workspace.root.join(session.package(tree.task).join(&tree.from).as_str()),
        listing: tree.entries().map(|(path, entry)| (path, entry.clone())).collect(),
    };
    // Another process may be making it, and a large one takes a while.
    let Some(made) = waiting::unless_cancelled(&session.cancel, move || laying.dir()).transpose()? else {
        return Ok(None);
    };
    session.note_tree_dir(tree.digest, made.clone());
    Ok(Some(made))
}

struct Laying {
    store: Arc<Store>,
    listing: Listing,
    /// Where the task's outputs lie in the workspace: a second source of content.
    placed: PathBuf,
}

impl Laying {
    fn dir(&self) -> Result<PathBuf, MaterializeError> {
        let keep =
            Keep { listing: &self.listing, modes: [input_mode(false), input_mode(true)], mtime_ns: &|_| MTIME_NS };
        // This thread is none of a pool, so it may wait for one with a lock in its hand.
        let mut fill = |wanted: &[Wanted<'_>]| wanted.par_iter().try_for_each(|file| self.place(file)).map(|()| true);
        self.store.keep(&keep, &mut fill)?.ok_or_else(|| MaterializeError::Vanished(RelPath::root()))
    }

    fn place(&self, file: &Wanted<'_>) -> Result<(), MaterializeError> {
        let (dir, name) = Dir::above(&file.to)?;
        if self.store.write_to(&file.digest, file.size, (&dir, name), false)? {
            return Ok(());
        }
        let placed = self.placed.join(file.path.as_str());
        let copied = link::copy_digesting(&placed, &file.to, 0o600);
        if copied.map_or(true, |copied| copied != (file.digest, file.size)) {
            return Err(MaterializeError::Vanished(file.path.clone()));
        }
        Ok(())
    }
}
