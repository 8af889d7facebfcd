//! What has arrived of a file, kept between attempts and between runs until all of it is there. Asks no server.
//!
//! It lies in a cache of the store that is named by the expected digest: one process has it at a time, it counts against the room
//! of caches, and goes as they do. `part` holds the bytes, `from` the address they came from and its validator, a line each.
//! Nothing here is believed: the whole is digested before it is used.

use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::fs::ops::{self, FsError, GrowingFile};
use crate::manifest::model::Expected;
use crate::store::{CacheDir, StoreError};

/// The name of the cache in which a file with this digest arrives.
pub fn cache_name(expect: &Expected) -> String {
    // The caches of tasks have the digest of a workspace for a first word.
    match expect {
        Expected::Blake3(digest) => format!("fetch blake3 {digest}"),
        Expected::Sha256(bytes) => format!("fetch sha256 {}", Digest::from_bytes(*bytes)),
    }
}

/// A file that is arriving.
pub struct Part {
    dir: CacheDir,
    file: GrowingFile,
}

impl Part {
    /// Takes up what is there.
    pub fn open(dir: CacheDir) -> Result<Self, FsError> {
        let file = GrowingFile::open(&dir.path().join("part"))?;
        Ok(Self { dir, file })
    }

    /// Bytes that are there.
    pub fn have(&self) -> u64 {
        self.file.length()
    }

    /// Where they lie.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// What to name under `If-Range` to this address; `None` if it gave nothing, or what is there came from another one.
    pub fn validator(&self, url: &str) -> Option<String> {
        let text = ops::read_text(&self.from()).ok()?;
        let (from, validator) = text.split_once('\n')?;
        let validator = validator.strip_suffix('\n').filter(|validator| !validator.is_empty());
        // A file that was torn must not keep the request from being one.
        let is_header = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        validator.filter(|validator| from == url && is_header(validator)).map(str::to_owned)
    }

    /// Throws away what is there; what comes next is from this address.
    pub fn begin(&mut self, url: &str, validator: Option<&str>) -> Result<(), FsError> {
        ops::remove_file(self.path())?;
        ops::write(&self.from(), format!("{url}\n{}\n", validator.unwrap_or_default()).as_bytes())?;
        self.file = GrowingFile::open(self.path())?;
        Ok(())
    }

    /// Adds bytes that arrived.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        self.file.append(bytes)
    }

    /// Hands the whole over, on the same file system, and leaves nothing.
    pub fn finish(self, to: &Path) -> Result<(), StoreError> {
        ops::rename(self.path(), to)?;
        self.dir.remove()
    }

    /// Leaves nothing.
    pub fn forget(self) -> Result<(), StoreError> {
        self.dir.remove()
    }

    fn from(&self) -> PathBuf {
        self.dir.path().join("from")
    }
}
