//! Putting the contents of one action, so that the small ones share a frame. Knows what is there already; no results.

use std::path::Path;
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::limits::INLINE_BLOB_BYTES_MAX;
use crate::fs::ops;
use crate::store::blobs::read_small;
use crate::store::content::{Body, Key};
use crate::store::error::StoreError;
use crate::store::locks::Pass;
use crate::store::open::{Session, Store};
use crate::store::packs::Packing;
use crate::store::writer::Job;

/// Contents on their way into the store. What was put is there for others when [`Batch::finish`] returns.
pub struct Batch<'s> {
    store: &'s Store,
    packing: Packing,
}

impl Store {
    /// Begins to put contents that will be wanted together.
    pub fn batch(&self) -> Batch<'_> {
        Batch { store: self, packing: Packing::default() }
    }
}

impl Batch<'_> {
    /// As [`Store::put_file`].
    ///
    /// # Errors
    /// Those of [`Store::put_file`], also for what was put before.
    pub fn put_file(&mut self, path: &Path) -> Result<(Digest, u64), StoreError> {
        let session = self.store.session()?;
        let size = ops::symlink_metadata(path)?.len();
        let small = if size <= INLINE_BLOB_BYTES_MAX as u64 { read_small(path, size)? } else { None };
        let Some(bytes) = small else { return self.store.put_file_apart(path) };
        let key = Key::blob(Digest::of(&bytes));
        self.put(session, key, &bytes, &session.gate.enter()?)?;
        Ok((key.digest, bytes.len() as u64))
    }

    /// Adds bytes under the key they have, unless they are there. The caller has passed the gate.
    pub(super) fn put(&mut self, session: &Session, key: Key, bytes: &[u8], pass: &Pass) -> Result<(), StoreError> {
        if bytes.len() > INLINE_BLOB_BYTES_MAX {
            return self.store.put(session, key, bytes, pass);
        }
        if self.packing.has(&key) || self.store.is_in_use(session, &key, bytes.len() as u64, pass)? {
            return Ok(());
        }
        if self.packing.is_full_for(bytes.len()) {
            self.hand_over(session, pass)?;
        }
        self.packing.add(key, bytes);
        Ok(())
    }

    /// Hands over what is left.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], and those of a full queue's writer.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let session = self.store.session()?;
        let pass = session.gate.enter()?;
        self.hand_over(session, &pass)
    }

    fn hand_over(&mut self, session: &Session, pass: &Pass) -> Result<(), StoreError> {
        let packing = std::mem::take(&mut self.packing);
        let at_ms = self.store.use_time(session);
        if let Some(pack) = packing.pack() {
            return session.queue.push(Job::PutPack { pack: Arc::new(pack), at_ms }, Some(pass.clone()));
        }
        packing.all().try_for_each(|(key, bytes)| {
            let body = Body::inline(bytes).into();
            session.queue.push(Job::Put { key, size: bytes.len() as u64, body, at_ms }, Some(pass.clone()))
        })
    }
}
