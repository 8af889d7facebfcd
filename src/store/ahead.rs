//! Reading contents ahead, many in one look at the database: for whoever writes a whole result back. Knows no files.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::store::content::{self, Key};
use crate::store::error::StoreError;
use crate::store::open::Store;
use crate::store::packs::{self, Opened, Pack};
use crate::store::pending::QueuedContent;

/// Bytes of contents read at once: so much of a result is in memory.
const WINDOW_BYTES: u64 = 4 << 20;

/// Contents read at once.
const WINDOW_LEN: usize = 512;

/// Contents that will be asked for, about in this order.
pub struct Ahead<'s> {
    store: &'s Store,
    wanted: Vec<(Digest, u64)>,
    /// Where the next window begins.
    next: usize,
    loaded: HashMap<Digest, Vec<u8>>,
}

impl<'s> Ahead<'s> {
    /// Of blobs with their sizes. Reads nothing yet.
    pub fn new(store: &'s Store, wanted: Vec<(Digest, u64)>) -> Self {
        Self { store, wanted, next: 0, loaded: HashMap::new() }
    }

    /// The bytes of a blob, digested as they were read. `None` tells nothing but that it is not among those in the database: it may be a
    /// file, queued alone, damaged or gone, and [`Store::write_to`] knows.
    ///
    /// Cost: one transaction for all of a window.
    pub fn get(&mut self, digest: &Digest) -> Result<Option<&[u8]>, StoreError> {
        if !self.loaded.contains_key(digest)
            && let Some(distance) = self.wanted[self.next..].iter().position(|(wanted, _)| wanted == digest)
        {
            self.load_from(self.next + distance)?;
        }
        Ok(self.loaded.get(digest).map(Vec::as_slice))
    }

    fn load_from(&mut self, begin: usize) -> Result<(), StoreError> {
        let mut bytes = 0_u64;
        let ahead = self.wanted[begin..].iter().take(WINDOW_LEN);
        let fitting = ahead.take_while(|(_, size)| {
            bytes = bytes.saturating_add(*size);
            bytes <= WINDOW_BYTES
        });
        // One that is larger than a window is no small content, and is found not to be among them.
        let end = begin + fitting.count().max(1);
        self.loaded = self.store.inline_blobs(&self.wanted[begin..end])?;
        self.next = end;
        Ok(())
    }
}

impl Store {
    /// Reads blobs that lie in the database in one transaction: a lock, and a look whether another process wrote, for all of them.
    /// Those that are queued are taken from the queue.
    fn inline_blobs(&self, wanted: &[(Digest, u64)]) -> Result<HashMap<Digest, Vec<u8>>, StoreError> {
        let mut found = self.queued_blobs(wanted);
        let rest: Vec<&Digest> = wanted.iter().map(|(digest, _)| digest).filter(|at| !found.contains_key(at)).collect();
        if !rest.is_empty() {
            let read = self.database.read("read content", |connection| {
                let transaction = connection.unchecked_transaction()?;
                let mut opened = Opened::default();
                let mut read =
                    |digest: &&Digest| content::inline_bytes_with(&transaction, &Key::blob(**digest), &mut opened);
                let all = rest.iter().map(&mut read).collect::<rusqlite::Result<Vec<_>>>()?;
                transaction.commit().map(|()| all)
            })?;
            found.extend(rest.into_iter().copied().zip(read).filter_map(|(digest, bytes)| Some((digest, bytes?))));
        }
        let sizes: HashMap<&Digest, u64> = wanted.iter().map(|(digest, size)| (digest, *size)).collect();
        found.retain(|digest, bytes| sizes.get(digest) == Some(&(bytes.len() as u64)) && Digest::of(bytes) == *digest);
        Ok(found)
    }

    /// Those that are in packs not written yet, each pack unpacked once if its contents come one after the other.
    fn queued_blobs(&self, wanted: &[(Digest, u64)]) -> HashMap<Digest, Vec<u8>> {
        let Some(session) = self.writable() else { return HashMap::new() };
        let mut opened: Option<(Arc<Pack>, Option<Vec<u8>>)> = None;
        let mut found = HashMap::new();
        for (digest, _) in wanted {
            let Some(QueuedContent::Packed { size, start, pack }) = session.queue.pending.content(&Key::blob(*digest))
            else {
                continue;
            };
            if opened.as_ref().is_none_or(|(known, _)| !Arc::ptr_eq(known, &pack)) {
                opened = Some((Arc::clone(&pack), packs::open(&pack.bytes)));
            }
            let all = opened.as_ref().and_then(|(_, all)| all.as_deref());
            if let Some(bytes) = all.and_then(|all| packs::part(all, start, size)) {
                found.insert(*digest, bytes.to_vec());
            }
        }
        found
    }
}
