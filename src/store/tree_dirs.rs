//! Trees laid out as directories once, for everyone who reads them. Knows how they are kept, not how they are made.
//!
//! `caches/<name>/tree` is the directory and `caches/<name>/seal` the digest of the signatures of all that lies in it, under the lock
//! file and the share of the cap of a cache: collection evicts it like one. Users share the lock; whoever makes it has it alone. The
//! seal is what makes a directory one: without it, or when something in it was touched since, it is made anew.

use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::fs::atomic::{self, Durability};
use crate::fs::lock::{self, Lock, Sharing};
use crate::fs::ops::{self, FsError, Kind};
use crate::fs::stat::StatKey;
use crate::fs::walk;
use crate::store::caches::{directory_name, note_use};
use crate::store::error::StoreError;
use crate::store::open::Store;

/// Context of seals; they never leave the machine.
const SEAL_CONTEXT: &str = "drystone 2026-11 tree directory seal v1";

/// How often a directory is made that someone else spoils or evicts at once.
const ATTEMPTS_MAX: usize = 4;

/// A tree as a directory. It stays as it is until this is dropped; nobody writes to it.
#[derive(Debug)]
pub struct TreeDir {
    path: PathBuf,
    _lock: Lock,
}

impl TreeDir {
    /// The directory; absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// The directory of a tree; `fill` makes its content in an empty directory if it is not there yet.
    ///
    /// Waits while another thread or process makes it. Cost where it is there: one `lstat` per file in it.
    pub fn tree_dir<E: From<StoreError>>(
        &self,
        tree: &Digest,
        fill: &dyn Fn(&Path) -> Result<(), E>,
    ) -> Result<TreeDir, E> {
        let name = directory_name(&format!("tree {tree}"));
        let lock_path = self.layout.cache_lock(&name);
        let dir = self.layout.cache(&name);
        for _ in 0..ATTEMPTS_MAX {
            self.session()?;
            let lock = lock::wait_named(&lock_path, Sharing::Shared).map_err(StoreError::from)?;
            if is_sealed(&dir) {
                note_use(&lock, &lock_path, self.now_ms()).map_err(StoreError::from)?;
                return Ok(TreeDir { path: dir.join("tree"), _lock: lock });
            }
            drop(lock);
            let lock = lock::wait_named(&lock_path, Sharing::Exclusive).map_err(StoreError::from)?;
            if !is_sealed(&dir) {
                self.make_tree_dir(&dir, fill)?;
            }
            drop(lock);
        }
        let cause = std::io::Error::other("it is changed or removed again and again");
        Err(StoreError::from(FsError::new("keep", &dir, cause)).into())
    }

    fn make_tree_dir<E: From<StoreError>>(&self, dir: &Path, fill: &dyn Fn(&Path) -> Result<(), E>) -> Result<(), E> {
        let stage = self.stage()?;
        let made = stage.path().join("made");
        let tree = made.join("tree");
        let fs = |error: FsError| E::from(StoreError::from(error));
        ops::create_dir_all(&tree).map_err(fs)?;
        fill(&tree)?;
        let seal = seal(&tree)
            .ok_or_else(|| fs(FsError::new("seal", &tree, std::io::Error::other("it changed while it was made"))))?;
        // Before the seal: after a power loss a sealed directory must hold what it held.
        ops::sync_fs(&tree).map_err(fs)?;
        atomic::write(&made.join("seal"), seal.to_hex().as_bytes(), Durability::Synced).map_err(fs)?;
        // What was there goes with the stage.
        ops::if_there(ops::rename(dir, &stage.path().join("spoiled"))).map_err(fs)?;
        ops::rename(&made, dir).map_err(fs)
    }
}

fn is_sealed(dir: &Path) -> bool {
    let Ok(Some(written)) = ops::if_there(ops::read_text(&dir.join("seal"))) else { return false };
    seal(&dir.join("tree")).is_some_and(|found| found.to_hex() == written)
}

/// Digests the paths and signatures of everything in a directory; `None` if it cannot be listed, or holds what no tree does.
///
/// The change time is among them, which no program can set: whatever was written to since shows. Not those of directories, which
/// change with their own names; what lies in them is listed.
fn seal(dir: &Path) -> Option<Digest> {
    let mut encoder = Encoder::new();
    for found in walk::walk_all(dir).ok()? {
        encoder.bytes(found.path.as_str().as_bytes());
        match found.kind {
            Kind::Special => return None,
            Kind::Dir => drop(encoder.u8(3)),
            Kind::File | Kind::Link => {
                let stat = StatKey::at(&dir.join(found.path.as_str())).ok()?;
                encoder.u8(u8::from(found.kind == Kind::Link)).u64(stat.size).u64(stat.inode).u64(u64::from(stat.mode));
                encoder.u64(stat.mtime_ns.cast_unsigned()).u64(stat.ctime_ns.cast_unsigned());
            }
        }
    }
    Some(Digest::derived(SEAL_CONTEXT, encoder.as_slice()))
}
