//! Stat signatures: what must be equal for a file to be taken as unread-and-unchanged.

use std::fs::Metadata;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp};

use crate::fs::ops::{self, FsError};

/// Everything `stat` tells that changes when content does. Times are nanoseconds since 1970.
///
/// The change time cannot be set by a program, so content that changed with size and modification time kept is seen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct StatKey {
    /// Length in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime_ns: i64,
    /// Change time.
    pub ctime_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// Device number.
    pub device: u64,
    /// Type and permission bits.
    pub mode: u32,
}

impl StatKey {
    /// Takes it from metadata.
    pub fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.len(),
            mtime_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
            ctime_ns: meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec()),
            inode: meta.ino(),
            device: meta.dev(),
            mode: meta.mode(),
        }
    }

    /// The same from `statx`.
    pub(super) fn of_statx(stat: &Statx) -> Self {
        let ns = |time: &StatxTimestamp| time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into());
        Self {
            size: stat.stx_size,
            mtime_ns: ns(&stat.stx_mtime),
            ctime_ns: ns(&stat.stx_ctime),
            inode: stat.stx_ino,
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            mode: stat.stx_mode.into(),
        }
    }

    /// That of an open file or directory; `None` if it cannot be had.
    pub(super) fn of_opened(opened: impl AsFd) -> Option<Self> {
        let stat = rustix::fs::statx(opened, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
        stat.ok().map(|stat| Self::of_statx(&stat))
    }

    /// Takes it from the path itself; links are not followed.
    pub fn at(path: &Path) -> Result<Self, FsError> {
        Ok(Self::of(&ops::symlink_metadata(path)?))
    }

    /// Whether the owner may execute it.
    pub fn is_executable(&self) -> bool {
        self.mode & 0o100 != 0
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFLNK
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}
