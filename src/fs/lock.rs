//! Advisory file locks between processes (`flock`, which a stray `close` elsewhere in the process does not drop).

use std::fs::File;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::fs::ops::{self, AtPath, FsError};

/// How a lock is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// With other shared holders.
    Shared,
    /// With nobody.
    Exclusive,
}

/// A held lock; dropped with the value. The lock file stays: removing it would race with another opener.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock, waiting for as long as another process holds it.
pub fn wait(path: &Path, sharing: Sharing) -> Result<Lock, FsError> {
    let operation = match sharing {
        Sharing::Shared => FlockOperation::LockShared,
        Sharing::Exclusive => FlockOperation::LockExclusive,
    };
    let file = ops::open_read_write(path)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation)).map_err(std::io::Error::from).at("lock", path)?;
    Ok(Lock { _file: file })
}

/// Takes the lock if nobody is in the way; `None` otherwise.
pub fn attempt(path: &Path, sharing: Sharing) -> Result<Option<Lock>, FsError> {
    let operation = match sharing {
        Sharing::Shared => FlockOperation::NonBlockingLockShared,
        Sharing::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    let file = ops::open_read_write(path)?;
    match rustix::fs::flock(&file, operation) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(FsError::new("lock", path, error.into())),
    }
}
