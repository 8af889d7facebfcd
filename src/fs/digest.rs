//! Digests of files. Knows no cache; see `workspace::stat_index` for that.

use std::io::Read;
use std::path::Path;

use crate::base::digest::{Digest, Digester};
use crate::base::limits::MMAP_DIGEST_BYTES_MIN;
use crate::fs::ops::{self, AtPath, FsError};

/// Digests a regular file, refusing a link in its place; also gives the number of bytes read.
///
/// Large files are mapped and digested on all cores of the calling rayon pool; small ones are read, since a mapping
/// costs more than it saves there.
pub fn digest_file(path: &Path) -> Result<(Digest, u64), FsError> {
    let mut file = ops::open_no_follow(path)?;
    let size = file.metadata().at("look at", path)?.len();
    if size >= MMAP_DIGEST_BYTES_MIN {
        let mut hasher = blake3::Hasher::new();
        hasher.update_mmap_rayon(path).at("read", path)?;
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
