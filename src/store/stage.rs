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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::trial::Trial;

    #[test]
    fn a_mount_point_is_one_for_all_and_made_again_if_it_vanishes() {
        let trial = Trial::new();
        let store = trial.open();
        let first = store.mount_point().expect("there is room");
        assert_eq!(store.mount_point().expect("it is there"), first);
        assert_eq!(ops::read_dir(&first).expect("a directory").len(), 0);
        ops::remove_dir(&first).expect("it is empty");
        let second = store.mount_point().expect("there is room");
        assert!(ops::exists(&second));
        drop(store);
        assert!(!ops::exists(&second), "it goes with the session");
    }

    #[test]
    fn what_is_staged_in_memory_is_apart_and_goes() {
        let trial = Trial::new();
        let store = trial.open();
        let Some(one) = store.stage_in_memory() else {
            eprintln!("!!! NOT TESTED: staging in memory: this machine has no safe place for it");
            return;
        };
        let other = store.stage_in_memory().expect("there was room just now");
        assert_ne!(one.path(), other.path());
        assert!(!one.path().starts_with(store.dir()));
        let (gone, above) = (one.path().to_owned(), other.path().parent().expect("it has one").to_owned());
        ops::write(&gone.join("file"), b"x").expect("it is ours");
        drop(one);
        assert!(!ops::exists(&gone) && ops::exists(other.path()));
        assert!(!store.ran_out_of_memory());
        drop((other, store));
        assert!(!ops::exists(&above), "all of it goes with the session");
    }
}
