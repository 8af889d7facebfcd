//! Rows of the `content` table: blobs and encoded trees, inside the database or as files. Knows no queue and no lock.

use std::cell::RefCell;

use rusqlite::{Connection, OptionalExtension, params};

use crate::base::digest::Digest;
use crate::base::limits::INLINE_BLOB_BYTES_MAX;
use crate::base::tree::tree_digest;

/// What the bytes are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Kind {
    /// Bytes as they are.
    Blob,
    /// A canonical directory listing.
    Tree,
}

impl Kind {
    /// Both, in the order in which they are written.
    pub const ALL: [Kind; 2] = [Kind::Blob, Kind::Tree];

    /// The directory of large ones.
    pub const fn dir(self) -> &'static str {
        match self {
            Kind::Blob => "blobs",
            Kind::Tree => "trees",
        }
    }

    /// Digests bytes of this kind.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        match self {
            Kind::Blob => Digest::of(bytes),
            Kind::Tree => tree_digest(bytes),
        }
    }

    const fn code(self) -> i64 {
        match self {
            Kind::Blob => 0,
            Kind::Tree => 1,
        }
    }
}

/// Names one content. A blob and a tree never share a digest, but the kind says where to look.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Key {
    /// What it is.
    pub kind: Kind,
    /// Digest of its bytes, by kind.
    pub digest: Digest,
}

impl Key {
    /// A blob.
    pub const fn blob(digest: Digest) -> Self {
        Self { kind: Kind::Blob, digest }
    }

    /// A tree.
    pub const fn tree(digest: Digest) -> Self {
        Self { kind: Kind::Tree, digest }
    }
}

/// How the bytes are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Body {
    /// As a file of its own.
    File,
    /// In the database as they are.
    Plain(Vec<u8>),
    /// In the database, compressed.
    Zstd(Vec<u8>),
}

impl Body {
    /// How bytes of at most [`INLINE_BLOB_BYTES_MAX`] go into the database: compressed where that is smaller.
    pub fn inline(bytes: &[u8]) -> Self {
        match zstd::bulk::compress(bytes, ZSTD_LEVEL) {
            Ok(packed) if packed.len() < bytes.len() => Body::Zstd(packed),
            _ => Body::Plain(bytes.to_vec()),
        }
    }

    /// The bytes themselves; `None` for files and for damaged ones. Not yet verified.
    pub fn unpack(&self, size: u64) -> Option<Vec<u8>> {
        let size = usize::try_from(size).ok().filter(|&size| size <= INLINE_BLOB_BYTES_MAX)?;
        match self {
            Body::File => None,
            Body::Plain(bytes) => Some(bytes.clone()),
            Body::Zstd(packed) => unpacked(packed, size),
        }
    }

    fn code(&self) -> i64 {
        match self {
            Body::File => FORM_FILE,
            Body::Plain(_) => 1,
            Body::Zstd(_) => 2,
        }
    }

    fn stored(&self, size: u64) -> u64 {
        match self {
            Body::File => size,
            Body::Plain(bytes) | Body::Zstd(bytes) => bytes.len() as u64,
        }
    }
}

thread_local! {
    /// Its tables take more time to set up than most contents to unpack.
    static UNPACKER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Bytes as they were before they were compressed; `None` if that cannot be told, or they are more than `size`.
fn unpacked(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    UNPACKER.with_borrow_mut(|unpacker| {
        let known = match unpacker.take() {
            Some(known) => known,
            None => zstd::bulk::Decompressor::new().ok()?,
        };
        unpacker.insert(known).decompress(packed, size).ok()
    })
}

const FORM_FILE: i64 = 0;
const ZSTD_LEVEL: i32 = 3;

/// A row of `content`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Row {
    /// Its id, which `content_bytes` shares.
    pub id: i64,
    /// Bytes of the content.
    pub size: u64,
    /// Bytes it takes.
    pub stored: u64,
    /// Whether it is a file.
    pub is_file: bool,
    /// When it was last put or touched.
    pub last_used_ms: i64,
}

/// SQLite's integers are signed; sizes and durations beyond 2^63 do not occur and are cut there.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads back what [`int`] wrote.
pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A digest column; anything but 32 bytes is damage.
pub(super) fn digest_column(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<Digest> {
    row.get::<_, [u8; 32]>(index).map(Digest::from_bytes)
}

/// Finds a row.
pub(super) fn find(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Row>> {
    connection
        .prepare_cached("SELECT id, size, stored, form, last_used_ms FROM content WHERE kind = ?1 AND digest = ?2")?
        .query_row(params![key.kind.code(), key.digest.as_bytes()], |row| {
            Ok(Row {
                id: row.get(0)?,
                size: uint(row.get(1)?),
                stored: uint(row.get(2)?),
                is_file: row.get::<_, i64>(3)? == FORM_FILE,
                last_used_ms: row.get(4)?,
            })
        })
        .optional()
}

/// Every row of a kind, in order of the digests.
pub(super) fn all(connection: &Connection, kind: Kind) -> rusqlite::Result<Vec<(Key, Row)>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, size, stored, form, last_used_ms, digest FROM content WHERE kind = ?1 ORDER BY digest",
    )?;
    let rows = statement.query_map(params![kind.code()], |row| {
        let key = Key { kind, digest: digest_column(row, 5)? };
        let row = Row {
            id: row.get(0)?,
            size: uint(row.get(1)?),
            stored: uint(row.get(2)?),
            is_file: row.get::<_, i64>(3)? == FORM_FILE,
            last_used_ms: row.get(4)?,
        };
        Ok((key, row))
    })?;
    rows.collect()
}

/// The bytes of a row inside the database, unpacked and not yet verified; `None` if they are missing or broken.
pub(super) fn inline_bytes(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Vec<u8>>> {
    let found = connection
        .prepare_cached(
            "SELECT content.size, content.form, content_bytes.bytes FROM content JOIN content_bytes USING (id) \
             WHERE content.kind = ?1 AND content.digest = ?2",
        )?
        .query_row(params![key.kind.code(), key.digest.as_bytes()], |row| {
            Ok((uint(row.get(0)?), row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
        })
        .optional()?;
    Ok(found.and_then(|(size, form, bytes)| match form {
        1 => Body::Plain(bytes).unpack(size),
        2 => Body::Zstd(bytes).unpack(size),
        _ => None,
    }))
}

/// Adds a row, or renews the one that is there. Returns by how many bytes the store grew.
pub(super) fn insert(connection: &Connection, key: &Key, size: u64, body: &Body, at_ms: i64) -> rusqlite::Result<i64> {
    let before = find(connection, key)?;
    let stored = body.stored(size);
    let id: i64 = connection
        .prepare_cached(
            "INSERT INTO content (kind, digest, size, stored, form, last_used_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (kind, digest) DO UPDATE SET size = excluded.size, stored = excluded.stored, \
             form = excluded.form, last_used_ms = max(last_used_ms, excluded.last_used_ms) RETURNING id",
        )?
        .query_row(
            params![key.kind.code(), key.digest.as_bytes(), int(size), int(stored), body.code(), at_ms],
            |row| row.get(0),
        )?;
    match body {
        Body::File => {
            if before.is_some_and(|row| !row.is_file) {
                connection.prepare_cached("DELETE FROM content_bytes WHERE id = ?1")?.execute([id])?;
            }
        }
        Body::Plain(bytes) | Body::Zstd(bytes) => {
            connection
                .prepare_cached("INSERT OR REPLACE INTO content_bytes (id, bytes) VALUES (?1, ?2)")?
                .execute(params![id, bytes])?;
        }
    }
    Ok(int(stored) - before.map_or(0, |row| int(row.stored)))
}

/// Marks a row as used, if it is there.
pub(super) fn touch(connection: &Connection, key: &Key, at_ms: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE content SET last_used_ms = max(last_used_ms, ?3) WHERE kind = ?1 AND digest = ?2")?
        .execute(params![key.kind.code(), key.digest.as_bytes(), at_ms])?;
    Ok(())
}

/// Removes a row, if it is there. Returns by how many bytes the store grew: zero or less.
pub(super) fn remove(connection: &Connection, key: &Key) -> rusqlite::Result<i64> {
    let Some(row) = find(connection, key)? else { return Ok(0) };
    connection.prepare_cached("DELETE FROM content WHERE id = ?1")?.execute([row.id])?;
    connection.prepare_cached("DELETE FROM content_bytes WHERE id = ?1")?.execute([row.id])?;
    Ok(-int(row.stored))
}

/// Adds to the running total of bytes.
pub(super) fn add_usage(connection: &Connection, bytes: i64) -> rusqlite::Result<()> {
    if bytes != 0 {
        connection.prepare_cached("UPDATE usage SET bytes = max(0, bytes + ?1) WHERE id = 0")?.execute([bytes])?;
    }
    Ok(())
}
