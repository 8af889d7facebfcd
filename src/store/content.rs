//! Rows of the `content` table: blobs and encoded trees, inside the database or as files. Knows no queue and no lock.
//! What several of them share is `packs`' to know.

use std::cell::RefCell;

use rusqlite::{Connection, OptionalExtension, params};
use zstd::bulk::{Compressor, Decompressor};

use crate::base::digest::Digest;
use crate::base::limits::INLINE_BLOB_BYTES_MAX;
use crate::base::tree::tree_digest;
use crate::store::packs;

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

    pub(super) const fn code(self) -> i64 {
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
        match pack(bytes) {
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
            Body::Zstd(packed) => unpack(packed, size).ok(),
        }
    }

    fn code(&self) -> i64 {
        match self {
            Body::File => FORM_FILE,
            Body::Plain(_) => FORM_PLAIN,
            Body::Zstd(_) => FORM_ZSTD,
        }
    }

    fn stored(&self, size: u64) -> u64 {
        match self {
            Body::File => size,
            Body::Plain(bytes) | Body::Zstd(bytes) => bytes.len() as u64,
        }
    }
}

const FORM_FILE: i64 = 0;
const FORM_PLAIN: i64 = 1;
const FORM_ZSTD: i64 = 2;
pub(super) const FORM_PACK: i64 = 3;
const ZSTD_LEVEL: i32 = 3;

/// Compresses with a context that each thread makes once: clearing a new one costs more than packing what goes into the database.
pub(super) fn pack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static PACKER: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    }
    PACKER.with_borrow_mut(|packer| match packer {
        Some(packer) => packer.compress(bytes),
        none => none.insert(Compressor::new(ZSTD_LEVEL)?).compress(bytes),
    })
}

/// Unpacks what [`pack`] made of at most `size` bytes; likewise.
pub(super) fn unpack(packed: &[u8], size: usize) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let mut bytes = Vec::new();
    // What claims more than there is memory for is an error, not the end of the program.
    bytes.try_reserve_exact(size)?;
    UNPACKER.with_borrow_mut(|unpacker| match unpacker {
        Some(unpacker) => unpacker.decompress_to_buffer(packed, &mut bytes),
        none => none.insert(Decompressor::new()?).decompress_to_buffer(packed, &mut bytes),
    })?;
    Ok(bytes)
}

/// Where a content lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In a file of its own.
    File,
    /// In this row of `content_bytes`, alone.
    Alone(i64),
    /// In this row of `content_bytes`, from this byte of what is packed there on.
    Packed(i64, u64),
}

/// A row of `content`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Row {
    /// Bytes of the content.
    pub size: u64,
    /// Bytes it takes.
    pub stored: u64,
    /// Where it lies.
    pub place: Place,
    /// When it was last put or touched.
    pub last_used_ms: i64,
}

impl Row {
    /// Whether it is a file.
    pub fn is_file(&self) -> bool {
        self.place == Place::File
    }

    /// The pack it is in.
    pub fn pack(&self) -> Option<i64> {
        match self.place {
            Place::Packed(body, _) => Some(body),
            Place::File | Place::Alone(_) => None,
        }
    }
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

const COLUMNS: &str = "size, stored, form, body, start, last_used_ms";

fn content_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let (form, body) = (row.get::<_, i64>(2)?, row.get::<_, Option<i64>>(3)?);
    let place = match body {
        Some(body) if form == FORM_PACK => Place::Packed(body, uint(row.get(4)?)),
        Some(body) => Place::Alone(body),
        None => Place::File,
    };
    Ok(Row { size: uint(row.get(0)?), stored: uint(row.get(1)?), place, last_used_ms: row.get(5)? })
}

/// Finds a row.
pub(super) fn find(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Row>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM content WHERE kind = ?1 AND digest = ?2"))?
        .query_row(params![key.kind.code(), key.digest.as_bytes()], content_row)
        .optional()
}

/// Every row of a kind, in order of the digests.
pub(super) fn all(connection: &Connection, kind: Kind) -> rusqlite::Result<Vec<(Key, Row)>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS}, digest FROM content WHERE kind = ?1 ORDER BY digest"))?;
    let rows = statement
        .query_map(params![kind.code()], |row| Ok((Key { kind, digest: digest_column(row, 6)? }, content_row(row)?)))?;
    rows.collect()
}

/// The bytes of a row inside the database, unpacked and not yet verified; `None` if they are missing or broken.
pub(super) fn inline_bytes(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Vec<u8>>> {
    inline_bytes_with(connection, key, &mut packs::Opened::default())
}

/// The same. What `opened` has is not unpacked again: for who reads several of one pack, within one transaction.
pub(super) fn inline_bytes_with(
    connection: &Connection,
    key: &Key,
    opened: &mut packs::Opened,
) -> rusqlite::Result<Option<Vec<u8>>> {
    let found = connection
        .prepare_cached("SELECT size, form, body, start FROM content WHERE kind = ?1 AND digest = ?2")?
        .query_row(params![key.kind.code(), key.digest.as_bytes()], |row| {
            Ok((uint(row.get(0)?), row.get::<_, i64>(1)?, row.get::<_, Option<i64>>(2)?, uint(row.get(3)?)))
        })
        .optional()?;
    Ok(match found {
        Some((size, FORM_PLAIN, Some(body), _)) => {
            body_bytes(connection, body)?.and_then(|bytes| Body::Plain(bytes).unpack(size))
        }
        Some((size, FORM_ZSTD, Some(body), _)) => {
            body_bytes(connection, body)?.and_then(|bytes| Body::Zstd(bytes).unpack(size))
        }
        Some((size, FORM_PACK, Some(body), start)) => {
            opened.get(connection, body)?.and_then(|all| packs::part(all, start, size)).map(<[u8]>::to_vec)
        }
        _ => None,
    })
}

/// The bytes of a row of `content_bytes`, as they are there.
pub(super) fn body_bytes(connection: &Connection, body: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT bytes FROM content_bytes WHERE id = ?1")?
        .query_row([body], |row| row.get(0))
        .optional()
}

/// Adds a row of `content_bytes`; gives its id.
pub(super) fn insert_body(connection: &Connection, bytes: &[u8]) -> rusqlite::Result<i64> {
    connection.prepare_cached("INSERT INTO content_bytes (bytes) VALUES (?1)")?.insert([bytes])
}

/// Removes a row of `content_bytes`, if it is there.
pub(super) fn remove_body(connection: &Connection, body: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM content_bytes WHERE id = ?1")?.execute([body]).map(drop)
}

/// Adds a row. One that is there stays if it is of this size and in the database, else it gives way. Returns by how many bytes the
/// store grew.
pub(super) fn insert(connection: &Connection, key: &Key, size: u64, body: &Body, at_ms: i64) -> rusqlite::Result<i64> {
    let Some((used_ms, freed)) = make_way(connection, key, size, *body == Body::File, at_ms)? else { return Ok(0) };
    let place = match body {
        Body::File => Place::File,
        Body::Plain(bytes) | Body::Zstd(bytes) => Place::Alone(insert_body(connection, bytes)?),
    };
    let row = Row { size, stored: body.stored(size), place, last_used_ms: used_ms };
    insert_row(connection, key, &row, body.code())?;
    Ok(int(row.stored) + freed)
}

/// Removes the row that is there, for one that is about to be added. Gives when that was used last and by how many bytes the store
/// grew. `None` if the row is as good as the new one, and was marked as used.
pub(super) fn make_way(
    connection: &Connection,
    key: &Key,
    size: u64,
    is_file: bool,
    at_ms: i64,
) -> rusqlite::Result<Option<(i64, i64)>> {
    let Some(before) = find(connection, key)? else { return Ok(Some((at_ms, 0))) };
    if before.size == size && !before.is_file() && !is_file {
        touch(connection, key, at_ms)?;
        return Ok(None);
    }
    Ok(Some((at_ms.max(before.last_used_ms), remove(connection, key)?)))
}

/// Adds a row whose bytes are in place.
pub(super) fn insert_row(connection: &Connection, key: &Key, row: &Row, form: i64) -> rusqlite::Result<()> {
    let (body, start) = match row.place {
        Place::File => (None, 0),
        Place::Alone(body) => (Some(body), 0),
        Place::Packed(body, start) => (Some(body), start),
    };
    connection
        .prepare_cached(
            "INSERT INTO content (kind, digest, size, stored, form, body, start, last_used_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            key.kind.code(),
            key.digest.as_bytes(),
            int(row.size),
            int(row.stored),
            form,
            body,
            int(start),
            row.last_used_ms
        ])?;
    Ok(())
}

/// Marks a row as used, if it is there.
pub(super) fn touch(connection: &Connection, key: &Key, at_ms: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE content SET last_used_ms = max(last_used_ms, ?3) WHERE kind = ?1 AND digest = ?2")?
        .execute(params![key.kind.code(), key.digest.as_bytes(), at_ms])?;
    Ok(())
}

/// Removes a row, if it is there, with its bytes. Returns by how many bytes the store grew: most often zero or less.
pub(super) fn remove(connection: &Connection, key: &Key) -> rusqlite::Result<i64> {
    let Some(row) = find(connection, key)? else { return Ok(0) };
    remove_row(connection, key, &row)?;
    let repacked = row.pack().map_or(Ok(0), |body| packs::release(connection, &[body]))?;
    Ok(repacked - int(row.stored))
}

/// Removes a row that was found there, with its bytes unless it shares them: those are to be released.
pub(super) fn remove_row(connection: &Connection, key: &Key, row: &Row) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM content WHERE kind = ?1 AND digest = ?2")?
        .execute(params![key.kind.code(), key.digest.as_bytes()])?;
    match row.place {
        Place::Alone(body) => remove_body(connection, body),
        Place::File | Place::Packed(..) => Ok(()),
    }
}

/// Adds to the running total of bytes.
pub(super) fn add_usage(connection: &Connection, bytes: i64) -> rusqlite::Result<()> {
    if bytes != 0 {
        connection.prepare_cached("UPDATE usage SET bytes = max(0, bytes + ?1) WHERE id = 0")?.execute([bytes])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_no_memory_holds_is_an_error() {
        let packed = pack(b"content").expect("memory");
        assert_eq!(unpack(&packed, 7).expect("the size is true"), b"content");
        assert_eq!(unpack(&packed, 100).expect("at most"), b"content");
        for size in [6, 1 << 62, usize::MAX] {
            assert!(unpack(&packed, size).is_err(), "{size}");
        }
    }
}
