//! What can go wrong with the store, each with its place and its way out. Knows no policy.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::fs::ops::FsError;

/// A store operation that failed. Damage is not among these: damaged content is absent content.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space, or no quota, is left.
    #[error("the disk is full at {}: free some space, or run `drystone store gc`", path.display())]
    Full {
        /// What could not be written.
        path: PathBuf,
    },
    /// This process may not write there.
    #[error("the store {} is read-only here: set `DRYSTONE_STORE` to a directory that may be written", path.display())]
    ReadOnly {
        /// The store.
        path: PathBuf,
    },
    /// A newer program has been here.
    #[error(
        "the store {} has format {found} and this drystone knows formats up to {known}: upgrade drystone, or set `DRYSTONE_STORE` to another directory",
        path.display()
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format known here.
        known: i64,
    },
    /// The directory belongs to something else.
    #[error("{} holds other files and no store: set `DRYSTONE_STORE` to a directory of its own", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Another process kept the database for very long.
    #[error(
        "another process kept {} for longer than {waited_s} s: stop it, or set `DRYSTONE_STORE` to another directory",
        path.display()
    )]
    Busy {
        /// The database.
        path: PathBuf,
        /// How long this one waited.
        waited_s: u64,
    },
    /// The database refused, for a reason that is neither damage nor another process.
    #[error("cannot {doing} in {}: {cause}; `drystone store verify --repair` mends a store", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What SQLite said.
        cause: rusqlite::Error,
    },
    /// Earlier results could not be written in the background.
    #[error("{count} entries could not be written to the store {}: {cause}", path.display())]
    Unwritten {
        /// The store.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first reason.
        cause: String,
    },
    /// A caller's bytes do not have the digest they are named by.
    #[error("the bytes offered as `{named}` have another digest: fetch or build them again")]
    WrongDigest {
        /// The digest they were named by, in hexadecimal.
        named: String,
    },
    /// An archive that cannot be imported.
    #[error("cannot import {}: {problem}; nothing was imported", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Any other file operation.
    #[error(transparent)]
    Fs(FsError),
}

impl From<FsError> for StoreError {
    fn from(error: FsError) -> Self {
        match error.cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path: error.path },
            _ => StoreError::Fs(error),
        }
    }
}

impl StoreError {
    /// Wraps what SQLite said about the database at `path`.
    pub(super) fn database(path: &Path, doing: &'static str, cause: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match trouble(&cause) {
            Trouble::Full => StoreError::Full { path },
            Trouble::Busy => StoreError::Busy { path, waited_s: BUSY_WAIT_S },
            Trouble::Damaged | Trouble::ReadOnly | Trouble::Other => StoreError::Database { path, doing, cause },
        }
    }

    /// Whether the disk has no space left.
    pub fn is_full(&self) -> bool {
        matches!(self, StoreError::Full { .. })
    }
}

/// How long one statement waits for other processes, in seconds.
pub(super) const BUSY_WAIT_S: u64 = 10;

/// What to do about an error of SQLite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// Set the database aside.
    Damaged,
    /// Try again.
    Busy,
    /// Tell.
    Full,
    /// The file may not be written.
    ReadOnly,
    /// Tell.
    Other,
}

/// Sorts an error of SQLite.
///
/// A missing table or column, a value of the wrong type and a sum beyond all bounds count as damage: the schema version was checked, so only
/// a broken file can lack them.
pub(super) fn trouble(error: &rusqlite::Error) -> Trouble {
    use rusqlite::Error as E;
    match error {
        E::SqliteFailure(failure, text) => match failure.code {
            // Every statement of ours keeps every constraint: one that is broken was broken on the disk.
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation => Trouble::Damaged,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => Trouble::Busy,
            ErrorCode::DiskFull => Trouble::Full,
            ErrorCode::ReadOnly => Trouble::ReadOnly,
            _ if failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ => Trouble::Damaged,
            _ if text.as_deref().is_some_and(is_schema_damage) => Trouble::Damaged,
            _ => Trouble::Other,
        },
        E::SqlInputError { msg, .. } if is_schema_damage(msg) => Trouble::Damaged,
        E::InvalidColumnType(..)
        | E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::Utf8Error(..) => Trouble::Damaged,
        _ => Trouble::Other,
    }
}

fn is_schema_damage(text: &str) -> bool {
    [
        "no such table",
        "no such column",
        "has no column named",
        "no such index",
        "malformed",
        "unsupported file format",
        // Of sizes that no disk holds.
        "integer overflow",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}
