//! What is in the inputs of a task, digested as it is read: from the tree, or for outputs of others from the store. Knows no view.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use crate::base::digest::Digest;
use crate::base::limits::VIEW_FILE_BYTES_MAX;
use crate::base::path::RelPath;
use crate::engine::materialize::MaterializeError;
use crate::engine::restore::RestoreError;
use crate::fs::dir::Dir;
use crate::fs::link;
use crate::fs::ops;
use crate::sandbox::spec::MTIME_NS;
use crate::store::Store;

/// Where the contents of one task's inputs come from.
pub struct Contents<'a> {
    /// Root of the workspace on disk.
    pub root: &'a Path,
    /// Has the outputs of dependencies.
    pub store: &'a Store,
    /// What dependencies made, relative to the workspace.
    pub made: &'a BTreeSet<RelPath>,
}

impl Contents<'_> {
    /// The bytes of an input; `None` if they are no longer what was digested. Cost: one read.
    pub fn bytes(&self, path: &RelPath, digest: &Digest, size: u64) -> Result<Option<Vec<u8>>, RestoreError> {
        let bytes = read_up_to(&self.root.join(path.as_str()), size.saturating_add(1));
        if let Some(bytes) = bytes.filter(|bytes| bytes.len() as u64 == size && Digest::of(bytes) == *digest) {
            return Ok(Some(bytes));
        }
        if !self.made.contains(path) {
            return Ok(None);
        }
        let stored = self.store.read(digest)?;
        stored.map(Some).ok_or_else(|| MaterializeError::Vanished(path.clone()).into())
    }

    /// Copies an input to a path where nothing is; `false`, and nothing there, if it is no longer what was digested.
    pub fn copy(&self, path: &RelPath, digest: &Digest, size: u64, to: &Path) -> Result<bool, RestoreError> {
        if size <= VIEW_FILE_BYTES_MAX {
            let bytes = self.bytes(path, digest, size)?;
            return bytes.map_or(Ok(false), |bytes| Ok(link::write_file(to, &bytes, 0o600, MTIME_NS).map(|()| true)?));
        }
        // Anything that keeps the tree from being read is told by whoever shows it as it is.
        match link::copy_digesting(&self.root.join(path.as_str()), to, 0o600) {
            Ok((copied, length)) if copied == *digest && length == size => return Ok(true),
            Ok(_) => ops::remove_file(to)?,
            Err(error) if error.path == to => return Err(error.into()),
            Err(_) => {}
        }
        if !self.made.contains(path) {
            return Ok(false);
        }
        let (dir, name) = Dir::above(to)?;
        if self.store.write_to(digest, size, (&dir, name), false)? {
            return Ok(true);
        }
        Err(MaterializeError::Vanished(path.clone()).into())
    }
}

fn read_up_to(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(limit).ok()?);
    ops::open_no_follow(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
