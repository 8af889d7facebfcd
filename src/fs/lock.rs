//! Advisory file locks between processes (`flock`, which a stray `close` elsewhere in the process does not drop).

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::fs::ops::{self, AtPath, FsError};

/// How a lock is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// With other shared holders.
    Shared,
    /// With nobody.
    Exclusive,
}

/// A held lock; dropped with the value. The lock file stays: removing it would race with another opener,
/// unless every opener uses [`wait_named`] or [`attempt_named`].
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Whether `path` still names the locked file: another holder may have removed it while this one waited.
    pub fn is_named(&self, path: &Path) -> bool {
        match (self.file.metadata(), ops::symlink_metadata(path)) {
            (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }

    /// The locked file, for what its holder tells others through it.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Unlocked and not only closed: a child between fork and exec holds a copy of the descriptor, and with it the lock.
        rustix::fs::flock(&self.file, FlockOperation::Unlock).ok();
    }
}

/// Takes the lock, waiting for as long as another process holds it.
pub fn wait(path: &Path, sharing: Sharing) -> Result<Lock, FsError> {
    let operation = match sharing {
        Sharing::Shared => FlockOperation::LockShared,
        Sharing::Exclusive => FlockOperation::LockExclusive,
    };
    let file = ops::open_read_write(path)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation)).map_err(std::io::Error::from).at("lock", path)?;
    Ok(Lock { file })
}

/// Takes the lock if nobody is in the way; `None` otherwise.
pub fn attempt(path: &Path, sharing: Sharing) -> Result<Option<Lock>, FsError> {
    let operation = match sharing {
        Sharing::Shared => FlockOperation::NonBlockingLockShared,
        Sharing::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    let file = ops::open_read_write(path)?;
    match rustix::fs::flock(&file, operation) {
        Ok(()) => Ok(Some(Lock { file })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(FsError::new("lock", path, error.into())),
    }
}

/// Takes the lock of a directory, which must be there, for its owner alone; `None` if it is taken.
pub fn attempt_dir(path: &Path) -> Result<Option<Lock>, FsError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(std::io::Error::from).at("open", path)?;
    let file = File::from(opened);
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock { file })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(FsError::new("lock", path, error.into())),
    }
}

/// Takes the lock on the file that `path` names once the lock is held, waiting as long as it takes.
///
/// For lock files that a holder removes: whoever waited on a removed file starts over on the new one.
pub fn wait_named(path: &Path, sharing: Sharing) -> Result<Lock, FsError> {
    loop {
        let lock = wait(path, sharing)?;
        if lock.is_named(path) {
            return Ok(lock);
        }
    }
}

/// As [`wait_named`], but `None` if another process is in the way.
pub fn attempt_named(path: &Path, sharing: Sharing) -> Result<Option<Lock>, FsError> {
    loop {
        match attempt(path, sharing)? {
            Some(lock) if !lock.is_named(path) => continue,
            taken => return Ok(taken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_lock_file_is_not_mistaken_for_the_new_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("lock");
        let old = wait_named(&path, Sharing::Exclusive).expect("nobody holds it");
        assert!(old.is_named(&path));
        assert!(attempt_named(&path, Sharing::Exclusive).expect("it can be opened").is_none());
        ops::remove_file(&path).expect("it is there");
        let new = attempt_named(&path, Sharing::Exclusive).expect("it can be opened").expect("a new file, a new lock");
        assert!(new.is_named(&path));
        assert!(!old.is_named(&path));
    }
}
