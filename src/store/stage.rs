//! Private scratch directories on the store's disk, removed on drop. Knows nothing of what is put there.

use std::path::{Path, PathBuf};

use crate::fs::ops;
use crate::store::error::StoreError;
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
}
