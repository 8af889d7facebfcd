//! Small contents of one action in one frame: they share text, so they compress better together, and fill the pages of the database.
//!
//! A pack is a row of `content_bytes` that several rows of `content` name, each with where it begins in the unpacked bytes. It holds what
//! they name and nothing else: when one of them goes it is packed anew, and with the last of them it goes. One that cannot be
//! unpacked is the absence of all of them. Knows no queue and no lock.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};

use crate::base::limits::PACK_BYTES_MAX;
use crate::store::content::{self, FORM_PACK, Key, Kind, Place, Row, digest_column, int, uint};

/// Unpacked packs in the hands of one reader: outputs of a task of which some came from an earlier action lie in two or three.
const OPENED_MAX: usize = 4;

/// One content in a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Member {
    /// Its name.
    pub key: Key,
    /// Where it begins, in unpacked bytes.
    pub start: u64,
    /// Its bytes.
    pub size: u64,
}

/// Contents and the frame they are in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pack {
    /// What is in it, in the order in which it lies there.
    pub members: Vec<Member>,
    /// The frame.
    pub bytes: Vec<u8>,
}

impl Pack {
    /// The bytes of a member, not yet verified.
    pub fn read(&self, start: u64, size: u64) -> Option<Vec<u8>> {
        part(&open(&self.bytes)?, start, size).map(<[u8]>::to_vec)
    }
}

/// Unpacks a frame; `None` for a damaged one.
pub(super) fn open(bytes: &[u8]) -> Option<Vec<u8>> {
    content::unpack(bytes, PACK_BYTES_MAX).ok()
}

/// A part of unpacked bytes.
pub(super) fn part(all: &[u8], start: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    all.get(start..start.checked_add(usize::try_from(size).ok()?)?)
}

/// Packs that were unpacked lately. For who reads several contents within one transaction: an id may stand for another pack later.
#[derive(Debug, Default)]
pub(super) struct Opened {
    latest: Vec<(i64, Option<Vec<u8>>)>,
}

impl Opened {
    /// The unpacked bytes of a pack; `None` if it is not there or damaged.
    pub fn get(&mut self, connection: &Connection, body: i64) -> rusqlite::Result<Option<&[u8]>> {
        let at = match self.latest.iter().position(|(known, _)| *known == body) {
            Some(at) => at,
            None => {
                let all = content::body_bytes(connection, body)?.and_then(|bytes| open(&bytes));
                if self.latest.len() == OPENED_MAX {
                    self.latest.remove(0);
                }
                self.latest.push((body, all));
                self.latest.len() - 1
            }
        };
        Ok(self.latest[at].1.as_deref())
    }
}

/// Contents being put together to a pack.
#[derive(Debug, Default)]
pub(super) struct Packing {
    all: Vec<u8>,
    members: Vec<Member>,
}

impl Packing {
    /// Whether a content is in it.
    pub fn has(&self, key: &Key) -> bool {
        self.members.iter().any(|member| member.key == *key)
    }

    /// Whether so many bytes more are too many.
    pub fn is_full_for(&self, size: usize) -> bool {
        !self.all.is_empty() && self.all.len() + size > PACK_BYTES_MAX
    }

    /// Adds a content, verified or not.
    pub fn add(&mut self, key: Key, bytes: &[u8]) {
        self.members.push(Member { key, start: self.all.len() as u64, size: bytes.len() as u64 });
        self.all.extend_from_slice(bytes);
    }

    /// What was added, one by one.
    pub fn all(&self) -> impl Iterator<Item = (Key, &[u8])> {
        let bytes = |member: &Member| part(&self.all, member.start, member.size).unwrap_or_default();
        self.members.iter().map(move |member| (member.key, bytes(member)))
    }

    /// Compresses what was added; `None` if it is not enough for a pack, or there is no memory for it.
    pub fn pack(&self) -> Option<Pack> {
        let bytes = if self.members.len() < 2 { None } else { content::pack(&self.all).ok() }?;
        Some(Pack { members: self.members.clone(), bytes })
    }
}

/// Adds a pack, without what is there already. Returns by how many bytes the store grew.
pub(super) fn insert(connection: &Connection, pack: &Pack, at_ms: i64) -> rusqlite::Result<i64> {
    let (mut grown, mut added) = (0, Vec::with_capacity(pack.members.len()));
    for member in &pack.members {
        if let Some((used_ms, freed)) = content::make_way(connection, &member.key, member.size, false, at_ms)? {
            grown += freed;
            added.push((*member, used_ms));
        }
    }
    if added.len() == pack.members.len() {
        return Ok(grown + write(connection, &pack.bytes, &added)?);
    }
    // Somebody else put some of them meanwhile.
    Ok(grown + repack(connection, &pack.bytes, &added)?)
}

/// Brings packs to what rows still name of them. Returns by how many bytes the store grew, without the rows that are gone.
///
/// Cost: one pass over `content`, and one frame for each pack of which something is left.
pub(super) fn release(connection: &Connection, bodies: &[i64]) -> rusqlite::Result<i64> {
    let mut grown = 0;
    for (body, left) in members_of(connection, bodies)? {
        for (member, row) in &left {
            content::remove_row(connection, &member.key, row)?;
            grown -= int(row.stored);
        }
        let bytes = if left.is_empty() { None } else { content::body_bytes(connection, body)? };
        content::remove_body(connection, body)?;
        let left: Vec<_> = left.into_iter().map(|(member, row)| (member, row.last_used_ms)).collect();
        grown += bytes.map_or(Ok(0), |bytes| repack(connection, &bytes, &left))?;
    }
    Ok(grown)
}

type Found = Vec<(Member, Row)>;

/// What rows name of each pack, in the order in which it lies there.
fn members_of(connection: &Connection, bodies: &[i64]) -> rusqlite::Result<BTreeMap<i64, Found>> {
    let wanted: BTreeSet<i64> = bodies.iter().copied().collect();
    let mut found: BTreeMap<i64, Found> = wanted.iter().map(|body| (*body, Found::new())).collect();
    for kind in Kind::ALL {
        let mut statement = connection.prepare_cached(
            "SELECT digest, body, start, size, stored, last_used_ms FROM content WHERE kind = ?1 AND form = ?2",
        )?;
        let mut rows = statement.query(params![kind.code(), FORM_PACK])?;
        while let Some(row) = rows.next()? {
            let body = row.get(1)?;
            let Some(members) = found.get_mut(&body) else { continue };
            let key = Key { kind, digest: digest_column(row, 0)? };
            let (start, size) = (uint(row.get(2)?), uint(row.get(3)?));
            let place = Place::Packed(body, start);
            let row = Row { size, stored: uint(row.get(4)?), place, last_used_ms: row.get(5)? };
            members.push((Member { key, start, size }, row));
        }
    }
    found.values_mut().for_each(|members| members.sort_by_key(|(member, _)| member.start));
    Ok(found)
}

/// Adds a pack of some of what is in a frame, with when each was last used; what cannot be read from it is left out.
fn repack(connection: &Connection, bytes: &[u8], members: &[(Member, i64)]) -> rusqlite::Result<i64> {
    let Some(all) = open(bytes) else { return Ok(0) };
    let (mut packing, mut used) = (Packing::default(), Vec::new());
    for (member, used_ms) in members {
        if let Some(bytes) = part(&all, member.start, member.size) {
            packing.add(member.key, bytes);
            used.push(*used_ms);
        }
    }
    let Ok(frame) = content::pack(&packing.all) else { return Ok(0) };
    let members: Vec<_> = packing.members.into_iter().zip(used).collect();
    write(connection, &frame, &members)
}

/// Adds a frame and a row for each of its members. Returns by how many bytes the store grew.
fn write(connection: &Connection, bytes: &[u8], members: &[(Member, i64)]) -> rusqlite::Result<i64> {
    if members.is_empty() {
        return Ok(0);
    }
    let body = content::insert_body(connection, bytes)?;
    let total: u64 = members.iter().map(|(member, _)| member.size).sum();
    let (mut before, mut shared) = (0, 0);
    for (member, used_ms) in members {
        before += member.size;
        // Shares of the frame by size, whose sum is the frame.
        let until = (bytes.len() as u64 * before).checked_div(total).unwrap_or(bytes.len() as u64);
        let place = Place::Packed(body, member.start);
        let row = Row { size: member.size, stored: until - shared, place, last_used_ms: *used_ms };
        content::insert_row(connection, &member.key, &row, FORM_PACK)?;
        shared = until;
    }
    Ok(int(shared))
}
