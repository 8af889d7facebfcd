//! What traced tasks touched, by their static keys. Knows bytes; what they say is the fingerprint's matter.

use rusqlite::{Connection, OptionalExtension, params};

use crate::base::digest::Digest;
use crate::base::limits::PATH_SETS_PER_TASK;
use crate::store::content::{digest_column, int, uint};
use crate::store::error::StoreError;
use crate::store::history::{pack, unpack};
use crate::store::open::Store;
use crate::store::writer::Job;

/// One observation, encoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathSet {
    /// Digest of the paths with what was there.
    pub observed: Digest,
    /// Digest of the paths alone.
    pub paths: Digest,
    /// The encoding behind `observed`.
    pub bytes: Vec<u8>,
}

/// A row to write.
#[derive(Debug)]
pub(super) struct Noted {
    key: Digest,
    observed: Digest,
    paths: Digest,
    packed: Vec<u8>,
    at_ms: i64,
}

impl Store {
    /// The observations under a static key, newest first, at most [`PATH_SETS_PER_TASK`].
    ///
    /// Sees what is committed: nobody asks for what the same invocation has just noted.
    pub fn path_sets(&self, key: &Digest) -> Result<Vec<PathSet>, StoreError> {
        let rows = self.database.read("read path sets", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT observed, paths, bytes FROM path_set WHERE static = ?1 ORDER BY at_ms DESC, observed",
            )?;
            let rows = statement.query_map([key.as_bytes()], |row| {
                Ok((digest_column(row, 0)?, digest_column(row, 1)?, row.get::<_, Vec<u8>>(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let unpacked = |(observed, paths, packed): (Digest, Digest, Vec<u8>)| {
            unpack(&packed).map(|bytes| PathSet { observed, paths, bytes })
        };
        Ok(rows.into_iter().filter_map(unpacked).take(PATH_SETS_PER_TASK).collect())
    }

    /// The encoding of an observation, if it is among those kept.
    pub fn observed(&self, observed: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let packed: Option<Vec<u8>> = self.database.read("read a path set", |connection| {
            connection
                .prepare_cached("SELECT bytes FROM path_set WHERE observed = ?1")?
                .query_row([observed.as_bytes()], |row| row.get(0))
                .optional()
        })?;
        Ok(packed.and_then(|packed| unpack(&packed)))
    }

    /// Keeps an observation as the newest of its static key. Losing it costs a miss.
    pub fn note_path_set(&self, key: &Digest, set: &PathSet) {
        let noted = Noted {
            key: *key,
            observed: set.observed,
            paths: set.paths,
            packed: pack(&set.bytes),
            at_ms: self.now_ms(),
        };
        if let Some(session) = self.writable()
            && let Err(error) = session.queue.push(Job::PathSet(Box::new(noted)), None)
        {
            tracing::debug!(%error, "a path set was not noted");
        }
    }
}

/// Writes a row and drops the oldest beyond the limit. Returns by how many bytes the store grew.
pub(super) fn insert(connection: &Connection, noted: &Noted) -> rusqlite::Result<i64> {
    let Noted { key, observed, paths, packed, at_ms } = noted;
    let before = bytes_of(connection, key)?;
    connection
        .prepare_cached(
            "INSERT INTO path_set (static, observed, paths, bytes, at_ms) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO UPDATE SET at_ms = max(at_ms + 1, excluded.at_ms), bytes = excluded.bytes",
        )?
        .execute(params![key.as_bytes(), observed.as_bytes(), paths.as_bytes(), packed, at_ms])?;
    connection
        .prepare_cached(
            "DELETE FROM path_set WHERE static = ?1 AND observed IN (SELECT observed FROM path_set WHERE static = ?1 \
             ORDER BY at_ms DESC, observed LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![key.as_bytes(), int(PATH_SETS_PER_TASK as u64)])?;
    Ok(bytes_of(connection, key)? - before)
}

fn bytes_of(connection: &Connection, key: &Digest) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(sum(length(bytes)), 0) FROM path_set WHERE static = ?1")?
        .query_row([key.as_bytes()], |row| row.get(0))
}

/// Bytes of all of them, packed.
pub(super) fn all_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT coalesce(sum(length(bytes)), 0) FROM path_set", [], |row| row.get(0)).map(uint)
}

/// Drops those that no run has used since.
pub(super) fn forget(connection: &Connection, before_ms: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM path_set WHERE at_ms < ?1", [before_ms]).map(drop)
}
