//! What a store holds, in numbers. Changes nothing.

use rusqlite::Connection;

use crate::fs::ops;
use crate::store::caches::{self, Measure};
use crate::store::content::uint;
use crate::store::error::StoreError;
use crate::store::open::Store;

/// What a store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreStat {
    /// Results.
    pub results: u64,
    /// Blobs.
    pub blobs: u64,
    /// Trees.
    pub trees: u64,
    /// Bytes of blobs and trees that are files.
    pub file_bytes: u64,
    /// Bytes of blobs and trees inside the database, as stored.
    pub inline_bytes: u64,
    /// Bytes of all blobs, as content.
    pub blob_bytes: u64,
    /// Fingerprints.
    pub fingerprints: u64,
    /// Caches of tasks.
    pub caches: u64,
    /// Bytes of those, and of the files that outputs may be links to.
    pub cache_bytes: u64,
    /// Bytes of the database and its log.
    pub database_bytes: u64,
    /// The cap in bytes.
    pub bytes_max: u64,
    /// When the least recently used result was used, in milliseconds since 1970.
    pub oldest_use_ms: Option<i64>,
    /// When the most recently used result was used.
    pub newest_use_ms: Option<i64>,
    /// Damaged databases that were set aside and are still kept, journals included.
    pub damaged_files: u64,
}

impl Store {
    /// Counts what is there. Cost: one read of the narrow tables and one walk of the caches and links.
    pub fn stat(&self) -> Result<StoreStat, StoreError> {
        self.settle()?;
        let counted = self.database.read("count", count)?;
        let sizes = ["", "-wal"].map(|suffix| {
            let path = self.layout.dir().join(format!("store.db{suffix}"));
            ops::symlink_metadata(&path).map_or(0, |meta| meta.len())
        });
        let caches = self.caches(Measure::Every)?;
        Ok(StoreStat {
            caches: caches.len() as u64,
            cache_bytes: caches::total(&caches).saturating_add(self.plan_links(u64::MAX, i64::MIN)?.bytes_kept),
            database_bytes: sizes.iter().sum(),
            bytes_max: self.bytes_max,
            damaged_files: self.layout.damaged()?.len() as u64,
            ..counted
        })
    }
}

fn count(connection: &Connection) -> rusqlite::Result<StoreStat> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get(0)).map(uint);
    let (oldest_use_ms, newest_use_ms) =
        connection.query_row("SELECT min(last_used_ms), max(last_used_ms) FROM result", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Ok(StoreStat {
        results: number("SELECT count(*) FROM result")?,
        blobs: number("SELECT count(*) FROM content WHERE kind = 0")?,
        trees: number("SELECT count(*) FROM content WHERE kind = 1")?,
        file_bytes: number("SELECT coalesce(sum(stored), 0) FROM content WHERE form = 0")?,
        inline_bytes: number("SELECT coalesce(sum(stored), 0) FROM content WHERE form <> 0")?,
        blob_bytes: number("SELECT coalesce(sum(size), 0) FROM content WHERE kind = 0")?,
        fingerprints: number("SELECT count(*) FROM fingerprint")?,
        oldest_use_ms,
        newest_use_ms,
        ..StoreStat::default()
    })
}
