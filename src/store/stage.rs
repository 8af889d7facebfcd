//! Private scratch directories on the store's disk or in memory, removed on drop. Knows nothing of what is put there.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::base::limits::STAGE_MEMORY_FREE_MIN;
use crate::fs::memory::MemoryDir;
use crate::fs::ops;
use crate::store::error::StoreError;
use crate::store::locks::hold;
use crate::store::open::Store;

/// A directory of the caller's own, removed with everything in it on drop, or by a later session after a crash.
#[derive(Debug)]
pub struct Stage {
    path: PathBuf,
}

impl Stage {
    /// The directory; absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = ops::remove_all(&self.path) {
            // A later session sweeps it.
            tracing::debug!(%error, "a scratch directory stays for now");
        }
    }
}

/// The scratch that all of a session share.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    memory: OnceLock<Option<MemoryDir>>,
    /// Memory had no room for what a command left there.
    is_full: AtomicBool,
    mount_point: Mutex<Option<Stage>>,
}

impl Store {
    /// Makes an empty scratch directory on the file system of the store, so that files can be renamed from there.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] for a store that may not be written.
    pub fn stage(&self) -> Result<Stage, StoreError> {
        let session = self.session()?;
        let path = self.layout.scratch("stage").join(session.lease.scratch_name());
        ops::create_dir(&path)?;
        Ok(Stage { path })
    }

    /// Makes an empty scratch directory in memory; `None` where the machine has no place for it, or it is full.
    pub fn stage_in_memory(&self) -> Option<Stage> {
        let session = self.writable()?;
        let scratch = &session.scratch;
        let memory = scratch.memory.get_or_init(|| MemoryDir::make(STAGE_MEMORY_FREE_MIN)).as_ref()?;
        if scratch.is_full.load(Ordering::Relaxed) || memory.bytes_free() < STAGE_MEMORY_FREE_MIN {
            return None;
        }
        let path = memory.path().join(session.lease.scratch_name());
        ops::create_dir(&path).ok().map(|()| Stage { path })
    }

    /// Whether a command that was staged in memory may have found no room. If so, none is staged there any more.
    pub fn ran_out_of_memory(&self) -> bool {
        let Some(session) = self.writable() else { return false };
        let memory = session.scratch.memory.get().and_then(Option::as_ref);
        let is_full = memory.is_some_and(|memory| memory.bytes_free() < STAGE_MEMORY_FREE_MIN / 2);
        session.scratch.is_full.fetch_or(is_full, Ordering::Relaxed) || is_full
    }

    /// A directory that is empty and stays so, the same for all who ask, for mounting something over it where nobody else sees it.
    ///
    /// # Errors
    /// As of [`Store::stage`].
    pub fn mount_point(&self) -> Result<PathBuf, StoreError> {
        let session = self.session()?;
        let mut held = hold(&session.scratch.mount_point);
        match &*held {
            // Whoever cleans up by hand while a run goes on costs nothing but another directory.
            Some(stage) if ops::exists(&stage.path) => Ok(stage.path.clone()),
            _ => Ok(held.insert(self.stage()?).path.clone()),
        }
    }
}
