//! Looking at many paths of one directory after another: signatures by single names in directories that are opened once. Nothing is
//! allocated for a path. Compares nothing.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};

use crate::fs::beneath;
use crate::fs::ops::{AtPath, FsError};
use crate::fs::stat::StatKey;

/// Whether links are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Links {
    /// They are.
    Followed,
    /// They are not: not the last name when it is looked at, none on the way when a directory is opened.
    Refused,
}

/// An opened directory.
#[derive(Debug)]
pub struct Lookout(OwnedFd);

impl Lookout {
    /// Opens a directory by an absolute path; links on the way are followed.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        fd.map(Self).map_err(io::Error::from).at("open", path)
    }

    /// Opens a directory beneath; the empty path is the directory itself. `None` if it is not there or no directory.
    ///
    /// # Errors
    /// What the system said otherwise, as where a link is on the way that is not to be followed.
    pub fn open_beneath(&self, path: &CStr, links: Links) -> io::Result<Option<Self>> {
        let path = if path.is_empty() { c"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = match links {
            Links::Followed => rustix::fs::openat(&self.0, path, flags, Mode::empty()),
            Links::Refused => beneath::open_dir(&self.0, path, flags),
        };
        match opened {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The signature of what has the name; of the directory itself for the empty one. `None` for whatever has none.
    pub fn stat(&self, name: &CStr, links: Links) -> Option<StatKey> {
        let flags = match links {
            _ if name.is_empty() => AtFlags::EMPTY_PATH,
            Links::Followed => AtFlags::empty(),
            Links::Refused => AtFlags::SYMLINK_NOFOLLOW,
        };
        let stat = rustix::fs::statx(&self.0, name, flags, StatxFlags::BASIC_STATS).ok()?;
        Some(StatKey::of_statx(&stat))
    }

    /// Whether something is mounted right at the name; a link is not followed.
    pub fn is_mount(&self, name: &CStr) -> bool {
        let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
        let stat = rustix::fs::statx(&self.0, name, flags, StatxFlags::empty());
        stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }
}

/// The signature of a path, links followed or not; `None` for whatever has none. Nobody who listens hears of it.
pub fn stat(path: &Path, links: Links) -> Option<StatKey> {
    let flags = if links == Links::Followed { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    let stat = rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS).ok()?;
    Some(StatKey::of_statx(&stat))
}
