//! Copying files with their mode, by reflink where the file system can. Knows no store.

use std::path::Path;

use crate::fs::ops::{self, AtPath, FsError};

/// Mode of a materialized file.
pub fn file_mode(executable: bool) -> u32 {
    if executable { 0o755 } else { 0o644 }
}

/// Copies a regular file to a path that must not exist, with mode 0644 or 0755.
///
/// `std::fs::copy` already reflinks on btrfs and xfs and uses `copy_file_range` elsewhere. Cost: constant with
/// reflinks, else one read and one write.
pub fn copy_file(from: &Path, to: &Path, executable: bool) -> Result<(), FsError> {
    let mut source = ops::open_no_follow(from)?;
    let mut target = ops::create_new(to, file_mode(executable))?;
    std::io::copy(&mut source, &mut target).at("write", to)?;
    Ok(())
}

/// Hard-links `from` at `to`; the two names are one file afterwards.
pub fn hard_link(from: &Path, to: &Path) -> Result<(), FsError> {
    std::fs::hard_link(from, to).at("link", to)
}
