//! Digests of files. Knows no cache; see `workspace::stat_index` for that.

use std::io::Read;
use std::path::Path;

use crate::base::digest::{Digest, Digester};
use crate::base::limits::MMAP_DIGEST_BYTES_MIN;
use crate::fs::ops::{self, AtPath, FsError};

/// Who digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threads {
    /// The calling thread alone. A thread that holds a lock must not wait in rayon: it would take up other work meanwhile.
    One,
    /// All threads of the calling rayon pool, for large files.
    Pool,
}

/// Digests a regular file on the calling thread, refusing a link in its place; also gives the number of bytes read.
pub fn digest_file(path: &Path) -> Result<(Digest, u64), FsError> {
    digest_file_with(path, Threads::One)
}

/// The same with a choice of threads. Large files are mapped; small ones are read, since a mapping costs more than it saves.
pub fn digest_file_with(path: &Path, threads: Threads) -> Result<(Digest, u64), FsError> {
    let mut file = ops::open_no_follow(path)?;
    let size = file.metadata().at("look at", path)?.len();
    if size >= MMAP_DIGEST_BYTES_MIN {
        let mut hasher = blake3::Hasher::new();
        match threads {
            Threads::One => hasher.update_mmap(path).at("read", path)?,
            Threads::Pool => hasher.update_mmap_rayon(path).at("read", path)?,
        };
        return Ok((Digest::from_bytes(*hasher.finalize().as_bytes()), hasher.count()));
    }
    let mut digester = Digester::default();
    let mut buffer = [0; 64 * 1024];
    let mut total = 0;
    loop {
        let count = file.read(&mut buffer).at("read", path)?;
        if count == 0 {
            return Ok((digester.finish(), total));
        }
        digester.update(&buffer[..count]);
        total += count as u64;
    }
}
