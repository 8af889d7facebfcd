//! Copying files with their mode, by reflink where the file system can. Knows no store.

use std::fs::File;
use std::io::Seek;
use std::path::Path;

use crate::base::digest::{Digest, Digester};
use crate::fs::ops::{self, AtPath, FsError};
use crate::fs::stat::StatKey;

/// Mode of a materialized file.
pub fn file_mode(executable: bool) -> u32 {
    if executable { 0o755 } else { 0o644 }
}

/// Writes a file that must not exist, with these permission bits (before the umask) and this modification time.
pub fn write_file(to: &Path, bytes: &[u8], mode: u32, mtime_ns: i64) -> Result<(), FsError> {
    let target = ops::create_new(to, mode)?;
    ops::write_all(&target, to, bytes)?;
    ops::set_times_of(&target, mtime_ns, to)
}

/// Copies a regular file to a path that must not exist, with these permission bits (before the umask) and the modification time of
/// the original. Cost: constant where `copy_file_range` reflinks, else one read and one write.
pub fn copy_file_as_old(from: &Path, to: &Path, mode: u32) -> Result<(), FsError> {
    let mut source = ops::open_no_follow(from)?;
    let mtime_ns = StatKey::of(&source.metadata().at("look at", from)?).mtime_ns;
    let mut target = ops::create_new(to, mode)?;
    ops::change("write", to, || std::io::copy(&mut source, &mut target))?;
    ops::set_times_of(&target, mtime_ns, to)
}

/// Copies a regular file to a path that must not exist, with these permission bits, and digests the bytes that arrived.
///
/// Reflinks where the file system can, and digests the clone: what is digested is what stays, even while another program
/// writes to `from`. Also gives the length in bytes. On an error nothing stays at `to`.
/// Cost: one read, and one write where there are no reflinks.
pub fn copy_digesting(from: &Path, to: &Path, mode: u32) -> Result<(Digest, u64), FsError> {
    let mut target = ops::create_new(to, mode)?;
    let copied = copy_into(from, &mut target, to);
    if copied.is_err() {
        // The first error is the one worth telling.
        drop(ops::remove_file(to));
    }
    copied
}

/// The same into a new file that is open; `to` is for errors. After one, what was copied so far is there.
pub fn copy_into(from: &Path, target: &mut File, to: &Path) -> Result<(Digest, u64), FsError> {
    let source = ops::open_no_follow(from)?;
    let cloned = rustix::fs::ioctl_ficlone(&*target, &source).is_ok();
    if cloned {
        target.rewind().at("read", to)?;
    }
    let mut digester = Digester::default();
    // Not more than the file takes, and never nothing.
    let expected = source.metadata().map_or(u64::MAX, |meta| meta.len().saturating_add(1));
    let mut buffer = vec![0; usize::try_from(expected).unwrap_or(usize::MAX).min(COPY_BUFFER_BYTES)];
    let mut total = 0;
    loop {
        let count = if cloned {
            ops::read_some(&*target, &mut buffer).at("read", to)?
        } else {
            ops::read_some(&source, &mut buffer).at("read", from)?
        };
        if count == 0 {
            return Ok((digester.finish(), total));
        }
        digester.update(&buffer[..count]);
        if !cloned {
            ops::write_all(target, to, &buffer[..count])?;
        }
        total += count as u64;
    }
}

const COPY_BUFFER_BYTES: usize = 256 * 1024;
