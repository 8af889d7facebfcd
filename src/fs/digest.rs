//! Digests of files. Knows no cache; see `workspace::stat_index` for that.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::base::digest::{Digest, Digester};
use crate::base::limits::PARALLEL_DIGEST_BYTES_MIN;
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

/// The same with a choice of threads.
///
/// Never from a memory map, though that would save a copy: someone who shortens the file meanwhile, or a disk that cannot
/// read a page of it, would end this process with SIGBUS.
pub fn digest_file_with(path: &Path, threads: Threads) -> Result<(Digest, u64), FsError> {
    let mut file = ops::open_no_follow(path)?;
    let size = file.metadata().at("look at", path)?.len();
    if threads == Threads::Pool && size >= PARALLEL_DIGEST_BYTES_MIN {
        return digest_on_pool(&mut file, path);
    }
    digest_open(&file, path)
}

/// Digests what is left of an open file; `path` is for the error.
pub fn digest_open(file: &File, path: &Path) -> Result<(Digest, u64), FsError> {
    let mut digester = Digester::default();
    let mut buffer = [0; 64 * 1024];
    let mut total = 0;
    loop {
        let count = ops::read_some(file, &mut buffer).at("read", path)?;
        if count == 0 {
            return Ok((digester.finish(), total));
        }
        digester.update(&buffer[..count]);
        total += count as u64;
    }
}

/// Bytes read at once for all threads.
const POOL_CHUNK_BYTES: u64 = 8 * 1024 * 1024;

fn digest_on_pool(file: &mut File, path: &Path) -> Result<(Digest, u64), FsError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        // Whole chunks: what comes in pieces is digested by one thread.
        file.by_ref().take(POOL_CHUNK_BYTES).read_to_end(&mut buffer).at("read", path)?;
        if buffer.is_empty() {
            return Ok((Digest::from_bytes(*hasher.finalize().as_bytes()), hasher.count()));
        }
        hasher.update_rayon(&buffer);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn both_ways_give_the_digest_of_the_bytes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        let limit = usize::try_from(PARALLEL_DIGEST_BYTES_MIN).expect("small");
        let chunk = usize::try_from(POOL_CHUNK_BYTES).expect("small");
        for length in [0, 1, limit - 1, limit, chunk, chunk + 1, 2 * chunk + 77] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            ops::write(&path, &bytes).expect("a temporary file");
            for threads in [Threads::One, Threads::Pool] {
                let digested = digest_file_with(&path, threads).expect("it can be read");
                assert_eq!(digested, (Digest::of(&bytes), length as u64), "{length} {threads:?}");
            }
        }
    }

    #[test]
    fn a_file_that_is_cut_short_while_it_is_digested_ends_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        let file = ops::open_read_write(&path).expect("a temporary file");
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::SeqCst) {
                    file.set_len(32 * PARALLEL_DIGEST_BYTES_MIN).expect("a sparse file");
                    file.set_len(0).expect("an empty file");
                }
            });
            for _ in 0..50 {
                digest_file_with(&path, Threads::Pool).expect("some length of it was there");
            }
            is_done.store(true, Ordering::SeqCst);
        });
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        assert!(digest_file(&path).expect_err("it is no file").to_string().ends_with("not a regular file"));
        assert!(digest_file(dir.path()).is_err());
    }
}
