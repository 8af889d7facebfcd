//! Putting and reading content by digest. Knows what is queued, what is in the database and what is a file; no results.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::base::digest::Digest;
use crate::base::limits::INLINE_BLOB_BYTES_MAX;
use crate::fs::digest::digest_file;
use crate::fs::dir::Dir;
use crate::fs::link::{copy_digesting, copy_into, file_mode};
use crate::fs::ops::{self, AtPath, FsError};
use crate::store::content::{self, Body, Key};
use crate::store::error::StoreError;
use crate::store::locks::Pass;
use crate::store::losses;
use crate::store::open::{Session, Store};
use crate::store::pending::QueuedContent;
use crate::store::writer::Job;

/// Mode of files in `blobs/` and `trees/`: a hard link or a stray editor must not change them.
const CONTENT_MODE: u32 = 0o444;

/// What becomes of content that is not what its name says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OnDamage {
    /// It goes, so that it can be put anew.
    Drop,
    /// It stays, for those who only look.
    Leave,
}

/// Content that is there as far as can be seen without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Present {
    /// Bytes of the content.
    pub size: u64,
    /// Whether it is a file.
    pub is_file: bool,
    /// When it was last used; `None` while it is queued.
    pub last_used_ms: Option<i64>,
}

impl Store {
    /// Stores bytes and returns their digest. Cost: nothing but digesting if they are there already.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::ReadOnly`].
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let session = self.session()?;
        let key = Key::blob(Digest::of(bytes));
        let pass = session.gate.enter()?;
        self.put(session, key, bytes, &pass)?;
        Ok(key.digest)
    }

    /// Stores a copy of a regular file (a reflink where the disk can); returns digest and length of what was copied.
    ///
    /// The file may change meanwhile: what is stored is what was digested. A symbolic link is refused.
    pub fn put_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        self.session()?;
        let size = ops::symlink_metadata(path)?.len();
        if size <= INLINE_BLOB_BYTES_MAX as u64
            && let Some(bytes) = read_small(path, size)?
        {
            return Ok((self.put_bytes(&bytes)?, bytes.len() as u64));
        }
        self.put_file_apart(path)
    }

    /// The same, but as a file of its own however small: [`Store::discard`] leaves nothing of it.
    pub fn put_file_apart(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        let session = self.session()?;
        let pass = session.gate.enter()?;
        // Digested before it is copied: a task that ran again mostly made what is there already.
        let (digest, size) = digest_file(path)?;
        if self.is_in_use(session, &Key::blob(digest), size, &pass)? {
            return Ok((digest, size));
        }
        let temporary = self.temporary(session);
        let (digest, size) = copy_digesting(path, &temporary, CONTENT_MODE)?;
        self.adopt(session, Key::blob(digest), size, &temporary, &pass)?;
        Ok((digest, size))
    }

    /// The same for a finished file of a stage that nobody else has open: it becomes the content, without a copy, and is gone afterwards.
    pub fn take_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        let session = self.session()?;
        if ops::symlink_metadata(path)?.len() <= INLINE_BLOB_BYTES_MAX as u64 {
            let put = self.put_file(path)?;
            ops::remove_file(path)?;
            return Ok(put);
        }
        let pass = session.gate.enter()?;
        let (digest, size) = digest_file(path)?;
        ops::set_mode(path, CONTENT_MODE)?;
        self.adopt(session, Key::blob(digest), size, path, &pass)?;
        Ok((digest, size))
    }

    /// Removes a blob, whoever uses it: a result that names it is a miss from then on.
    pub fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        let session = self.session()?;
        let key = Key::blob(*digest);
        losses::note(&self.layout)?;
        ops::remove_file(&self.layout.content(&key))?;
        self.drop_links(digest)?;
        session.queue.push(Job::Drop { key }, None)
    }

    /// Reads a blob; `None` if it is not there or was damaged (and is then dropped).
    pub fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.load(&Key::blob(*digest))
    }

    /// Whether a blob is there, by row and file size; protects it from collection for this session if so.
    pub fn contains(&self, digest: &Digest) -> Result<bool, StoreError> {
        let key = Key::blob(*digest);
        match self.writable() {
            None => Ok(self.present(&key)?.is_some()),
            Some(session) => {
                let pass = session.gate.enter()?;
                let Some(found) = self.present(&key)? else { return Ok(false) };
                self.is_in_use(session, &key, found.size, &pass)
            }
        }
    }

    /// Writes a blob as a new file of this name with mode 0644 or 0755, digesting it on the way.
    ///
    /// `false`, and nothing there, if the blob is not there, is damaged (and then dropped) or has another size.
    ///
    /// # Errors
    /// If something has the name, or it cannot be written.
    pub fn write_to(
        &self,
        digest: &Digest,
        size: u64,
        (dir, name): (&Dir, &OsStr),
        executable: bool,
    ) -> Result<bool, StoreError> {
        self.write_with_mode(digest, size, (dir, name), file_mode(executable))
    }

    /// The same with these permission bits (before the umask).
    pub(super) fn write_with_mode(
        &self,
        digest: &Digest,
        size: u64,
        (dir, name): (&Dir, &OsStr),
        mode: u32,
    ) -> Result<bool, StoreError> {
        let key = Key::blob(*digest);
        let Some(found) = self.present(&key)?.filter(|found| found.size == size) else { return Ok(false) };
        if !found.is_file {
            let Some(bytes) = self.load_found(&key, found, OnDamage::Drop)? else { return Ok(false) };
            let file = dir.create_new(name, mode)?;
            let written = ops::write_all(&file, &dir.at(name), &bytes);
            if written.is_err() {
                // The first error is the one worth telling.
                drop(dir.remove_file(name));
            }
            return Ok(written.map(|()| true)?);
        }
        let from = self.layout.content(&key);
        let mut file = dir.create_new(name, mode)?;
        let copied = copy_into(&from, &mut file, &dir.at(name));
        if copied.as_ref().is_ok_and(|copied| *copied == (*digest, size)) {
            return Ok(true);
        }
        let removed = dir.remove_file(name);
        match copied {
            Ok(_) => removed?,
            // What cannot be read is as good as gone. A clone is read at its new place.
            Err(error) if (error.path == from || error.verb == "read") && !error.is_shortage() => {}
            Err(error) => return Err(error.into()),
        }
        self.drop_damaged(&key)?;
        Ok(false)
    }

    /// Stores bytes under the key they have. The caller has passed the gate.
    pub(super) fn put(&self, session: &Session, key: Key, bytes: &[u8], pass: &Pass) -> Result<(), StoreError> {
        let size = bytes.len() as u64;
        if self.is_in_use(session, &key, size, pass)? {
            return Ok(());
        }
        if bytes.len() <= INLINE_BLOB_BYTES_MAX {
            let body = Body::inline(bytes).into();
            return session.queue.push(Job::Put { key, size, body, at_ms: self.use_time(session) }, Some(pass.clone()));
        }
        let temporary = self.temporary(session);
        write_new(&temporary, bytes, CONTENT_MODE)?;
        self.adopt(session, key, size, &temporary, pass)
    }

    /// Makes a finished file in `tmp` or a stage the content of `key`; the file is gone afterwards either way.
    pub(super) fn adopt(
        &self,
        session: &Session,
        key: Key,
        size: u64,
        file: &Path,
        pass: &Pass,
    ) -> Result<(), StoreError> {
        if self.is_in_use(session, &key, size, pass)? {
            return Ok(ops::remove_file(file)?);
        }
        let place = self.layout.content(&key);
        // Renamed over whatever lies there: a file without a row may be the torn end of an earlier session.
        let moved = match ops::rename(file, &place) {
            Err(error) if error.is_missing() => {
                let shard = place.parent().expect("every content file lies in a shard");
                ops::create_dir_all(shard).and_then(|()| ops::rename(file, &place))
            }
            moved => moved,
        };
        if let Err(error) = moved {
            drop(ops::remove_file(file));
            return Err(error.into());
        }
        let at_ms = self.use_time(session);
        session.queue.push(Job::Put { key, size, body: Body::File.into(), at_ms }, Some(pass.clone()))
    }

    /// Whether content of this size is there; if so it is marked as used by this session.
    pub(super) fn is_in_use(&self, session: &Session, key: &Key, size: u64, pass: &Pass) -> Result<bool, StoreError> {
        let Some(found) = self.present(key)?.filter(|found| found.size == size) else { return Ok(false) };
        if found.last_used_ms.is_some_and(|at_ms| at_ms <= session.lease.started_ms()) {
            let at_ms = self.use_time(session);
            session.queue.push(Job::Touch { key: *key, at_ms }, Some(pass.clone()))?;
        }
        Ok(true)
    }

    /// Now, but never before this session began: a clock set back must not make what is in use look old.
    pub(super) fn use_time(&self, session: &Session) -> i64 {
        self.now_ms().max(session.lease.started_ms())
    }

    /// A name for a file being written.
    pub(super) fn temporary(&self, session: &Session) -> PathBuf {
        self.layout.scratch("tmp").join(session.lease.scratch_name())
    }

    /// Looks for content without reading it.
    pub(super) fn present(&self, key: &Key) -> Result<Option<Present>, StoreError> {
        self.database.read("look for content", |connection| self.present_in(connection, key))
    }

    /// Looks for content without reading it: queued, or a row and, for files, a file of the right size.
    pub(super) fn present_in(&self, connection: &Connection, key: &Key) -> rusqlite::Result<Option<Present>> {
        // The queue first: what leaves it is committed, so that what is in neither was in neither.
        let queued = self.writable().and_then(|session| session.queue.pending.content(key));
        let found = match queued {
            Some(QueuedContent::Drop) => None,
            Some(QueuedContent::Put { size, body }) => {
                Some(Present { size, is_file: *body == Body::File, last_used_ms: None })
            }
            Some(QueuedContent::Packed { size, .. }) => Some(Present { size, is_file: false, last_used_ms: None }),
            None => content::find(connection, key)?.map(|row| Present {
                size: row.size,
                is_file: row.is_file(),
                last_used_ms: Some(row.last_used_ms),
            }),
        };
        Ok(found.filter(|found| !found.is_file || self.file_size(key) == Some(found.size)))
    }

    fn file_size(&self, key: &Key) -> Option<u64> {
        let meta = ops::symlink_metadata(&self.layout.content(key)).ok()?;
        meta.is_file().then_some(meta.len())
    }

    /// Reads content and checks its digest; what does not match is dropped and absent.
    pub(super) fn load(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        self.load_or(key, OnDamage::Drop)
    }

    /// Reads content and checks its digest; what does not match is absent.
    pub(super) fn load_or(&self, key: &Key, on_damage: OnDamage) -> Result<Option<Vec<u8>>, StoreError> {
        // Most often it lies in the database and is sound: then one look is enough. What is queued is newer than what lies there.
        if self.writable().is_none_or(|session| session.queue.pending.content(key).is_none()) {
            let found = self.database.read("read content", |connection| content::inline_bytes(connection, key))?;
            if let Some(bytes) = found.filter(|bytes| key.kind.digest(bytes) == key.digest) {
                return Ok(Some(bytes));
            }
        }
        match self.present(key)? {
            Some(found) => self.load_found(key, found, on_damage),
            None => Ok(None),
        }
    }

    fn load_found(&self, key: &Key, found: Present, on_damage: OnDamage) -> Result<Option<Vec<u8>>, StoreError> {
        let bytes =
            if found.is_file { readable(ops::read(&self.layout.content(key)))? } else { self.load_inline(key)? };
        match bytes {
            Some(bytes) if key.kind.digest(&bytes) == key.digest => Ok(Some(bytes)),
            _ => {
                if on_damage == OnDamage::Drop {
                    self.drop_damaged(key)?;
                }
                Ok(None)
            }
        }
    }

    fn load_inline(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let queued = self.writable().and_then(|session| session.queue.pending.content(key));
        match queued {
            Some(QueuedContent::Put { size, body }) => Ok(body.unpack(size)),
            Some(QueuedContent::Packed { size, start, pack }) => Ok(pack.read(start, size)),
            Some(QueuedContent::Drop) => Ok(None),
            None => self.database.read("read content", |connection| content::inline_bytes(connection, key)),
        }
    }

    /// Removes content that is not what its name says. A store that may not be written leaves it and stays with "absent".
    pub(super) fn drop_damaged(&self, key: &Key) -> Result<(), StoreError> {
        let Some(session) = self.writable() else { return Ok(()) };
        tracing::warn!(digest = %key.digest, kind = ?key.kind, "damaged content was dropped");
        losses::note(&self.layout)?;
        if let Err(error) = ops::remove_file(&self.layout.content(key)) {
            // Without its row it is absent all the same, and whoever puts it anew replaces it.
            tracing::warn!(%error, "a damaged file stays until the store is collected");
        }
        session.queue.push(Job::Drop { key: *key }, None)
    }
}

/// Content that cannot be read is as good as gone, whatever the disk says of it; a shortage in this process is an error.
pub(super) fn readable<T>(read: Result<T, FsError>) -> Result<Option<T>, FsError> {
    match read {
        Err(error) if error.is_shortage() => Err(error),
        Err(error) => {
            if !error.is_missing() {
                tracing::warn!(%error, "content counts as damaged");
            }
            Ok(None)
        }
        Ok(value) => Ok(Some(value)),
    }
}

/// Reads a file if it is small enough to lie in the database; `None` if it grew beyond that meanwhile.
pub(super) fn read_small(path: &Path, size: u64) -> Result<Option<Vec<u8>>, FsError> {
    use std::io::Read;
    // One byte more than is expected, so that the end is found by the first read.
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(INLINE_BLOB_BYTES_MAX).saturating_add(1));
    let limit = INLINE_BLOB_BYTES_MAX as u64 + 1;
    ops::open_no_follow(path)?.take(limit).read_to_end(&mut bytes).at("read", path)?;
    Ok((bytes.len() <= INLINE_BLOB_BYTES_MAX).then_some(bytes))
}

/// Writes a file that must not exist; on an error nothing stays.
pub(super) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let file = ops::create_new(path, mode)?;
    let written = ops::write_all(&file, path, bytes);
    if written.is_err() {
        drop(ops::remove_file(path));
    }
    written
}
