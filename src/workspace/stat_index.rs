//! Remembers the digests of files by their stat signatures, so that an unchanged file is not read again.
//!
//! An entry is believed if the signature is the same and neither the modification nor the change time is so near to the
//! moment of digesting that a later change could have left both as they were: the kernel stamps files with a clock that
//! ticks every few milliseconds, and some file systems keep whole seconds. Such racy entries are digested again. On a
//! network file system the stamps are the server's, so the two clocks must agree within the margin.
//!
//! One file, read in one go; a damaged file, or one of another version, is an empty index. Layout: magic (8 bytes), the number of
//! entries, their digests, then the length of the rest and the rest under zstd: per entry in byte order of the paths its name, its
//! signature and when it was seen, each as what tells it from the one before ([`nearby`]); last BLAKE3 over everything before. In
//! memory an entry is a record of fixed size, looked up where it lies. Knows nothing of tasks and of the store.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use rayon::prelude::*;
use zstd::bulk::Decompressor;

use crate::base::compact::{Pool, Reader, Writer};
use crate::base::digest::{DIGEST_LEN, Digest};
use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::fs::atomic::{self, Durability};
use crate::fs::digest::{Threads, digest_file_with};
use crate::fs::ops::{self, FsError};
use crate::fs::stat::StatKey;
use crate::fs::witness::{self, now_ns};
use crate::workspace::nearby::{self, Names, Stats};

const MAGIC: [u8; 8] = *b"dryst\0i2";
const RECORD_LEN: usize = 4 + 4 + 5 * 8 + 4 + 8 + DIGEST_LEN;

/// Names and times repeat themselves so much that more effort finds little more.
const ZSTD_LEVEL: i32 = 1;

/// Two changes nearer than this may leave the same time stamp: twice the longest kernel tick, in nanoseconds.
const TICK_NS: i64 = 20_000_000;

/// The same for file systems that keep whole seconds, or every other one, in nanoseconds.
const COARSE_NS: i64 = 2_000_000_000 + TICK_NS;

/// Entries digested longer ago than this are dropped when the index is saved, so that names which are gone do not pile
/// up, in nanoseconds. A file that is still there is digested again once in that time.
const KEPT_NS: i64 = 90 * 24 * 3600 * 1_000_000_000;

/// Paths looked up under one lock.
const CHUNK: usize = 128;

/// What lies at a path, and the signature it had before it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Content.
    pub entry: Entry,
    /// Signature.
    pub stat: StatKey,
}

impl Leaf {
    /// Whether the path still has the signature; of a directory only that it still is one.
    pub fn is_still(&self, path: &Path) -> bool {
        StatKey::at(path).is_ok_and(|now| match self.entry {
            Entry::Dir => now.is_dir(),
            _ => now == self.stat,
        })
    }
}

/// Why a path has no digest.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// A file operation failed; most often the path is gone.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The target of a symbolic link is not UTF-8.
    #[error("the target of the link `{path}` is not UTF-8")]
    LinkNotUtf8 {
        /// The link.
        path: RelPath,
    },
    /// A device, socket or pipe.
    #[error("`{path}` is neither a file nor a link nor a directory")]
    Special {
        /// What.
        path: RelPath,
    },
}

/// What is known of one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Record {
    stat: StatKey,
    digest: Digest,
    /// Wall clock just before it was digested, in nanoseconds since 1970.
    seen_ns: i64,
}

impl Record {
    fn holds_for(&self, stat: &StatKey) -> bool {
        self.stat == *stat && is_settled(stat, self.seen_ns)
    }
}

/// Whether a change after `seen_ns`, in nanoseconds since 1970, cannot leave the signature as it was seen then.
pub fn is_settled(stat: &StatKey, seen_ns: i64) -> bool {
    let whole_seconds = stat.mtime_ns % 1_000_000_000 == 0 && stat.ctime_ns % 1_000_000_000 == 0;
    let margin = if whole_seconds { COARSE_NS } else { TICK_NS };
    stat.mtime_ns.max(stat.ctime_ns) < seen_ns.saturating_sub(margin)
}

/// Whether those who listen ([`witness`]) hear what an index looks at.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Looks {
    /// They do.
    #[default]
    Heard,
    /// They do not: who uses the index keeps account of it.
    Unheard,
}

/// The index. Shared between threads; one per workspace.
#[derive(Debug, Default)]
pub struct StatIndex {
    looks: Looks,
    saved: Saved,
    /// What is known since; `None` for forgotten paths.
    changes: RwLock<HashMap<RelPath, Option<Record>>>,
}

impl StatIndex {
    /// Reads an index; whatever is wrong with the file makes an empty one.
    pub fn load(file: &Path, looks: Looks) -> Self {
        let saved = witness::unheard(|| ops::read(file)).ok().and_then(Saved::check).unwrap_or_default();
        Self { looks, saved, changes: RwLock::default() }
    }

    /// An index that knows these files as they are, whose signatures no change since can have left so. Unheard, and not to be saved.
    pub fn of_known(known: impl IntoIterator<Item = (RelPath, StatKey, Digest)>) -> Self {
        let record = |stat, digest| Some(Record { stat, digest, seen_ns: i64::MAX });
        let changes = known.into_iter().map(|(path, stat, digest)| (path, record(stat, digest))).collect();
        Self { looks: Looks::Unheard, saved: Saved::default(), changes: RwLock::new(changes) }
    }

    /// Adds files of which the same is known.
    pub fn add_known(&self, known: impl IntoIterator<Item = (RelPath, StatKey, Digest)>) {
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        for (path, stat, digest) in known {
            changes.entry(path).or_insert(Some(Record { stat, digest, seen_ns: i64::MAX }));
        }
    }

    /// Writes the index if it changed; readers see the old one or the new one.
    ///
    /// Cost: one pass over all entries.
    pub fn save(&self, file: &Path) -> Result<(), FsError> {
        let changes = self.changes.read().unwrap_or_else(PoisonError::into_inner);
        if changes.is_empty() {
            return Ok(());
        }
        let oldest_ns = now_ns().saturating_sub(KEPT_NS);
        let saved = (0..self.saved.count).map(|index| (self.saved.path(index), Place::Saved(index)));
        let changed = changes.iter().map(|(path, record)| (path.as_str(), Place::Changed(record.as_ref())));
        let mut all: Vec<(&str, Place<'_>)> = saved.chain(changed).collect();
        // Stable: of two on one path the later is what changed.
        all.sort_by_key(|(path, _)| *path);
        all.dedup_by(|later, earlier| {
            let is_same = later.0 == earlier.0;
            if is_same {
                *earlier = *later;
            }
            is_same
        });
        let record = |place: &Place<'_>| match place {
            Place::Saved(index) => Some(self.saved.at(*index)),
            Place::Changed(record) => record.copied(),
        };
        all.retain(|(_, place)| record(place).is_some_and(|record| record.seen_ns >= oldest_ns));
        let entries = all.iter().filter_map(|(path, place)| Some((*path, record(place)?)));
        // Not synced: after a power cut the checksum tells, and the files are digested again.
        atomic::write(file, &encode(all.len(), entries), Durability::Relaxed)
    }

    /// Digests each path below `root`, in the order given, on the current rayon pool; what is known is only `stat`ed.
    ///
    /// Links are not followed: their content is their target. Directories are [`Entry::Dir`].
    pub fn digest(&self, root: &Path, paths: &[RelPath]) -> Vec<Result<Leaf, LeafError>> {
        let chunks: Vec<Vec<Looked>> = paths
            .par_chunks(CHUNK)
            .map(|chunk| {
                // The lock is never held while files are read: a rayon thread that waits may take up another batch.
                let known: Vec<Option<Record>> = {
                    let changes = self.changes.read().unwrap_or_else(PoisonError::into_inner);
                    let mut from = 0;
                    chunk.iter().map(|path| self.record_after(&changes, path, &mut from)).collect()
                };
                chunk.iter().zip(known).map(|(path, known)| leaf(root, path, known, self.looks)).collect()
            })
            .collect();
        let is_gone = |leaf: &Result<Leaf, LeafError>| matches!(leaf, Err(LeafError::Fs(error)) if error.is_missing());
        let looked: Vec<Looked> = chunks.into_iter().flatten().collect();
        // Most often there is no news, and many batches come at once.
        if looked.iter().any(|(leaf, record)| record.is_some() || is_gone(leaf)) {
            let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
            // Else all that is there moves each time the table is full.
            changes.reserve(looked.iter().filter(|(_, record)| record.is_some()).count());
            for (path, (leaf, record)) in paths.iter().zip(&looked) {
                if let Some(record) = record {
                    changes.insert(path.clone(), Some(*record));
                } else if is_gone(leaf) && self.record(&changes, path).is_some() {
                    changes.insert(path.clone(), None);
                }
            }
        }
        looked.into_iter().map(|(leaf, _)| leaf).collect()
    }

    /// Records the digest of a file that was written just now and then `stat`ed.
    ///
    /// Being that new it is racy: the next run reads it once more, and believes it from then on.
    pub fn set(&self, path: RelPath, stat: StatKey, digest: Digest) {
        let record = Record { stat, digest, seen_ns: now_ns() };
        self.changes.write().unwrap_or_else(PoisonError::into_inner).insert(path, Some(record));
    }

    /// Whether the digest of a path is known and a change since cannot have left this signature.
    pub fn is_settled(&self, path: &RelPath, stat: &StatKey) -> bool {
        let changes = self.changes.read().unwrap_or_else(PoisonError::into_inner);
        self.record(&changes, path).is_some_and(|record| record.holds_for(stat))
    }

    /// Records the digest of a file whose signature no later change leaves as it is, however soon that comes: it is not racy.
    ///
    /// The caller answers for that; see `fs::grain`.
    pub fn set_exact(&self, path: RelPath, stat: StatKey, digest: Digest) {
        let after_ns = stat.mtime_ns.max(stat.ctime_ns).saturating_add(COARSE_NS + 1);
        let record = Record { stat, digest, seen_ns: now_ns().max(after_ns) };
        self.changes.write().unwrap_or_else(PoisonError::into_inner).insert(path, Some(record));
    }

    /// Drops what is known of a path.
    pub fn forget(&self, path: &RelPath) {
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        if self.record(&changes, path).is_some() {
            changes.insert(path.clone(), None);
        }
    }

    fn record(&self, changes: &HashMap<RelPath, Option<Record>>, path: &RelPath) -> Option<Record> {
        self.record_after(changes, path, &mut 0)
    }

    /// The same for paths of which most come in byte order: `from` is where the last was saved.
    fn record_after(
        &self,
        changes: &HashMap<RelPath, Option<Record>>,
        path: &RelPath,
        from: &mut usize,
    ) -> Option<Record> {
        match changes.get(path) {
            Some(changed) => *changed,
            None => self.saved.get_after(path.as_str(), from),
        }
    }
}

impl Looks {
    fn hear<T>(self, look: impl FnOnce() -> T) -> T {
        match self {
            Looks::Heard => look(),
            Looks::Unheard => witness::unheard(look),
        }
    }
}

/// A leaf, or why there is none, and a record if the file had to be digested.
type Looked = (Result<Leaf, LeafError>, Option<Record>);

/// What lies at a path.
fn leaf(root: &Path, path: &RelPath, known: Option<Record>, looks: Looks) -> Looked {
    let on_disk = root.join(path.as_str());
    let looked = || -> Result<(Leaf, Option<Record>), LeafError> {
        let seen_ns = now_ns();
        let stat = looks.hear(|| StatKey::at(&on_disk))?;
        if stat.is_link() {
            let target = looks.hear(|| ops::read_link(&on_disk))?;
            let target = target.to_str().ok_or_else(|| LeafError::LinkNotUtf8 { path: path.clone() })?.to_owned();
            return Ok((Leaf { entry: Entry::Link { target }, stat }, None));
        }
        if stat.is_dir() {
            return Ok((Leaf { entry: Entry::Dir, stat }, None));
        }
        if !stat.is_file() {
            return Err(LeafError::Special { path: path.clone() });
        }
        let executable = stat.is_executable();
        if let Some(record) = known.filter(|record| record.holds_for(&stat)) {
            let entry = Entry::File { digest: record.digest, size: stat.size, executable };
            return Ok((Leaf { entry, stat }, None));
        }
        let (digest, size) = digest_file_with(&on_disk, Threads::Pool)?;
        let leaf = Leaf { entry: Entry::File { digest, size, executable }, stat };
        Ok((leaf, Some(Record { stat, digest, seen_ns })))
    };
    match looked() {
        Ok((leaf, record)) => (Ok(leaf), record),
        Err(error) => (Err(error), None),
    }
}

/// Where an entry is. All of them are in order before they are written; in full they would take as much memory again.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// Among those that were read, at a position.
    Saved(usize),
    /// Known since; nothing for a forgotten path.
    Changed(Option<&'a Record>),
}

/// What a checked index file holds.
#[derive(Debug, Default)]
struct Saved {
    /// Records of fixed size, in byte order of the paths.
    records: Vec<u8>,
    /// The paths, one behind the other.
    names: Vec<u8>,
    count: usize,
}

impl Saved {
    /// The bytes as an index, if they are one from beginning to end.
    fn check(bytes: Vec<u8>) -> Option<Self> {
        let body_len = bytes.len().checked_sub(DIGEST_LEN)?;
        let (body, checksum) = bytes.split_at(body_len);
        let packed = body.strip_prefix(&MAGIC)?;
        if Digest::of(body).as_bytes() != checksum {
            return None;
        }
        let mut reader = Reader::new(packed, Pool::none());
        let count = reader.length()?;
        let digests = reader.raw(count.checked_mul(DIGEST_LEN)?)?;
        let rest_len = usize::try_from(reader.number()?).ok()?;
        let packed_len = reader.length()?;
        let packed = reader.raw(packed_len)?;
        let mut rest = Vec::new();
        // The length is a claim: one that there is no memory for makes an empty index, not the end of the program.
        rest.try_reserve_exact(rest_len).ok()?;
        Decompressor::new().ok()?.decompress_to_buffer(packed, &mut rest).ok()?;
        if !reader.is_at_end() {
            return None;
        }
        let mut reader = Reader::new(&rest, Pool::none());
        let mut saved = Self { records: Vec::with_capacity(count * RECORD_LEN), names: Vec::new(), count };
        let (mut names, mut stats, mut seen_ns) = (Names::default(), Stats::default(), 0);
        for digest in digests.chunks_exact(DIGEST_LEN) {
            let name = names.take(&mut reader)?;
            let stat = stats.take(&mut reader)?;
            seen_ns = nearby::sum(seen_ns, reader.number()?);
            saved.add(name, &stat, seen_ns, digest)?;
        }
        reader.is_at_end().then_some(saved)
    }

    fn add(&mut self, name: &[u8], stat: &StatKey, seen_ns: u64, digest: &[u8]) -> Option<()> {
        let (start, length) = (u32::try_from(self.names.len()).ok()?, u32::try_from(name.len()).ok()?);
        self.names.extend_from_slice(name);
        self.records.extend_from_slice(&start.to_le_bytes());
        self.records.extend_from_slice(&length.to_le_bytes());
        self.records.extend_from_slice(&stat.size.to_le_bytes());
        self.records.extend_from_slice(&stat.mtime_ns.to_le_bytes());
        self.records.extend_from_slice(&stat.ctime_ns.to_le_bytes());
        self.records.extend_from_slice(&stat.inode.to_le_bytes());
        self.records.extend_from_slice(&stat.device.to_le_bytes());
        self.records.extend_from_slice(&stat.mode.to_le_bytes());
        self.records.extend_from_slice(&seen_ns.to_le_bytes());
        self.records.extend_from_slice(digest);
        Some(())
    }

    fn raw(&self, index: usize) -> &[u8] {
        &self.records[index * RECORD_LEN..][..RECORD_LEN]
    }

    /// The path of an entry; empty if the file, though intact, was written wrong.
    fn path(&self, index: usize) -> &str {
        std::str::from_utf8(self.name(index)).unwrap_or_default()
    }

    fn name(&self, index: usize) -> &[u8] {
        let raw = self.raw(index);
        let (start, length) = (half(raw, 0), half(raw, 4));
        self.names.get(start..start.saturating_add(length)).unwrap_or_default()
    }

    fn at(&self, index: usize) -> Record {
        let raw = self.raw(index);
        let stat = StatKey {
            size: word(raw, 8),
            mtime_ns: word(raw, 16).cast_signed(),
            ctime_ns: word(raw, 24).cast_signed(),
            inode: word(raw, 32),
            device: word(raw, 40),
            mode: u32::from_le_bytes(raw[48..52].try_into().expect("four bytes")),
        };
        let digest = Digest::from_slice(&raw[60..]).expect("a record ends with a digest");
        Record { stat, digest, seen_ns: word(raw, 52).cast_signed() }
    }

    /// Looks at `from` first, then everywhere; `from` is left behind what was found.
    fn get_after(&self, path: &str, from: &mut usize) -> Option<Record> {
        let found =
            if *from < self.count && self.name(*from) == path.as_bytes() { Some(*from) } else { self.find(path) };
        let index = found?;
        *from = index + 1;
        Some(self.at(index))
    }

    fn find(&self, path: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle).cmp(path.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn half(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

/// The bytes of an index file with so many entries, which come in order.
fn encode<'a>(count: usize, all: impl Iterator<Item = (&'a str, Record)> + Clone) -> Vec<u8> {
    let mut writer = Writer::new();
    let (mut names, mut stats, mut last_ns) = (Names::default(), Stats::default(), 0);
    for (path, Record { stat, digest: _, seen_ns }) in all.clone() {
        let seen_ns = seen_ns.cast_unsigned();
        names.put(&mut writer, path.as_bytes());
        stats.put(&mut writer, &stat);
        writer.number(nearby::difference(seen_ns, last_ns));
        last_ns = seen_ns;
    }
    let rest = writer.drain();
    // Only where memory is short; the index is then none when it is read.
    let packed = zstd::bulk::compress(&rest, ZSTD_LEVEL).unwrap_or_default();
    let mut writer = Writer::new();
    writer.raw(&MAGIC);
    writer.length(count);
    all.for_each(|(_, record)| writer.raw(record.digest.as_bytes()));
    writer.length(rest.len());
    writer.length(packed.len());
    writer.raw(&packed);
    let mut bytes = writer.drain();
    let checksum = Digest::of(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::path;

    const SECOND_NS: i64 = 1_000_000_000;

    fn stat(mtime_ns: i64, ctime_ns: i64) -> StatKey {
        StatKey { size: 1, mtime_ns, ctime_ns, inode: 7, device: 1, mode: 0o100_644 }
    }

    /// An index that believes `digest` of the file as it lies there, as if it had been digested `later_ns` after its times.
    fn believing(root: &Path, name: &str, digest: Digest, later_ns: i64) -> StatIndex {
        let index = StatIndex::default();
        let stat = StatKey::at(&root.join(name)).expect("there");
        let seen_ns = stat.mtime_ns.max(stat.ctime_ns) + later_ns;
        index.changes.write().expect("unpoisoned").insert(path(name), Some(Record { stat, digest, seen_ns }));
        index
    }

    fn digest_of(index: &StatIndex, root: &Path, name: &str) -> Digest {
        match index.digest(root, &[path(name)]).remove(0).expect("there").entry {
            Entry::File { digest, .. } => digest,
            other => panic!("a file, not {other:?}"),
        }
    }

    #[test]
    fn a_signature_too_near_to_the_moment_of_digesting_is_not_believed() {
        let check = |stat: StatKey, seen_ns: i64, expect: bool| {
            let record = Record { stat, digest: Digest::of(b""), seen_ns };
            assert_eq!(record.holds_for(&stat), expect, "{stat:?} {seen_ns}");
        };
        let base = 1_000 * SECOND_NS + 1;
        check(stat(base, base), base + TICK_NS + 1, true);
        check(stat(base, base), base + TICK_NS, false);
        check(stat(base, base), base, false);
        check(stat(base - SECOND_NS, base), base + 1, false);
        check(stat(base, base - SECOND_NS), base + 1, false);
        check(stat(base + 5 * SECOND_NS, base), base + SECOND_NS, false);
        let coarse = 1_000 * SECOND_NS;
        check(stat(coarse, coarse), coarse + SECOND_NS, false);
        check(stat(coarse, coarse), coarse + COARSE_NS + 1, true);
        let other = Record { stat: stat(base, base), digest: Digest::of(b""), seen_ns: i64::MAX };
        assert!(!other.holds_for(&stat(base, base + 1)));
    }

    #[test]
    fn a_known_file_is_not_read_and_a_racy_one_is() {
        let dir = tempfile::tempdir().expect("a directory");
        ops::write(&dir.path().join("a"), b"content").expect("a file");
        let claimed = Digest::of(b"what the index claims");
        let known = believing(dir.path(), "a", claimed, SECOND_NS);
        assert_eq!(digest_of(&known, dir.path(), "a"), claimed);
        let racy = believing(dir.path(), "a", claimed, TICK_NS / 2);
        assert_eq!(digest_of(&racy, dir.path(), "a"), Digest::of(b"content"));
    }

    #[test]
    fn a_file_changed_within_one_tick_of_its_digest_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a");
        let index = StatIndex::default();
        for round in 0_u32..200 {
            // Same length every time, so only the times could tell.
            let text = format!("{round:08}");
            ops::write(&file, text.as_bytes()).expect("a file");
            assert_eq!(digest_of(&index, dir.path(), "a"), Digest::of(text.as_bytes()));
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_damage_makes_it_empty() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("index");
        let seen_ns = now_ns();
        let index = StatIndex::default();
        let record =
            |number: u64| Record { stat: StatKey { inode: number, ..stat(5, 6) }, digest: Digest::of(b"x"), seen_ns };
        for (number, name) in ["b", "a/c", "a-b", "\u{e9}"].iter().enumerate() {
            index.changes.write().expect("unpoisoned").insert(path(name), Some(record(number as u64)));
        }
        index.save(&file).expect("saved");
        let loaded = StatIndex::load(&file, Looks::Heard);
        assert_eq!(loaded.saved.count, 4);
        assert_eq!(loaded.saved.get_after("a/c", &mut 0), Some(record(1)));
        assert_eq!(loaded.saved.get_after("a", &mut 0), None);
        let mut from = 0;
        for path in ["a/c", "a", "a/c", "zz", "a/c"] {
            assert_eq!(loaded.saved.get_after(path, &mut from), loaded.saved.get_after(path, &mut 0), "{path}");
        }
        loaded.forget(&path("b"));
        loaded.save(&file).expect("saved");
        assert_eq!(StatIndex::load(&file, Looks::Heard).saved.count, 3);

        let good = ops::read(&file).expect("there");
        for (at, _) in good.iter().enumerate() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Saved::check(bad).is_none(), "byte {at}");
            assert!(Saved::check(good[..at].to_vec()).is_none(), "cut at {at}");
        }
        ops::write(&file, b"something else").expect("a file");
        assert_eq!(StatIndex::load(&file, Looks::Heard).saved.count, 0);
        assert_eq!(StatIndex::load(&dir.path().join("none"), Looks::Heard).saved.count, 0);
    }

    #[test]
    fn what_changed_is_saved_in_the_place_of_what_was_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let seen_ns = now_ns();
        let record =
            |seen_ns: i64, text: &str| Some(Record { stat: stat(5, 6), digest: Digest::of(text.as_bytes()), seen_ns });
        let save = |file: &str, index: &StatIndex, entries: &[(&str, Option<Record>)]| {
            let changes = entries.iter().map(|(name, record)| (path(name), *record));
            index.changes.write().expect("unpoisoned").extend(changes);
            index.save(&dir.path().join(file)).expect("saved");
            ops::read(&dir.path().join(file)).expect("there")
        };
        let old = record(seen_ns - KEPT_NS - SECOND_NS, "old");
        let before = [
            ("a", record(seen_ns, "a")),
            ("b/c", record(seen_ns, "b/c")),
            ("b-c", record(seen_ns, "b-c")),
            ("z", record(seen_ns, "z")),
        ];
        save("index", &StatIndex::default(), &before);
        let loaded = StatIndex::load(&dir.path().join("index"), Looks::Heard);
        let changes =
            [("z", record(seen_ns, "new")), ("a", None), ("b", record(seen_ns, "b")), ("0", old), ("none", None)];
        let mended = save("index", &loaded, &changes);
        let after =
            [("b", record(seen_ns, "b")), ("b-c", before[2].1), ("b/c", before[1].1), ("z", record(seen_ns, "new"))];
        assert_eq!(mended, save("fresh", &StatIndex::default(), &after));
    }

    #[test]
    fn a_length_that_no_memory_holds_makes_an_empty_index() {
        let packed = zstd::bulk::compress(b"", ZSTD_LEVEL).expect("memory");
        let index = |rest_len: u64| {
            let mut writer = Writer::new();
            writer.raw(&MAGIC);
            writer.length(0);
            writer.number(rest_len);
            writer.length(packed.len());
            writer.raw(&packed);
            let bytes = writer.drain();
            [bytes.as_slice(), Digest::of(&bytes).as_bytes()].concat()
        };
        assert!(Saved::check(index(0)).is_some(), "the same with a length that is true");
        for rest_len in [1 << 62, i64::MAX as u64, u64::MAX] {
            assert!(Saved::check(index(rest_len)).is_none(), "{rest_len}");
        }
    }

    #[test]
    fn an_unchanged_index_is_not_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("index");
        StatIndex::load(&file, Looks::Heard).save(&file).expect("nothing to do");
        assert!(!ops::exists(&file));
    }

    #[test]
    fn links_directories_and_absences_are_told() {
        let dir = tempfile::tempdir().expect("a directory");
        ops::symlink("some/where", &dir.path().join("link")).expect("a link");
        ops::create_dir(&dir.path().join("dir")).expect("a directory");
        let index = StatIndex::default();
        let mut leaves = index.digest(dir.path(), &[path("link"), path("dir"), path("gone")]);
        assert!(matches!(leaves.remove(2), Err(LeafError::Fs(error)) if error.is_missing()));
        let entries: Vec<Entry> = leaves.into_iter().map(|leaf| leaf.expect("there").entry).collect();
        assert_eq!(entries, [Entry::Link { target: "some/where".into() }, Entry::Dir]);
    }

    #[test]
    fn a_leaf_knows_whether_it_is_still_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a");
        ops::write(&file, b"1").expect("a file");
        let leaf = StatIndex::default().digest(dir.path(), &[path("a")]).remove(0).expect("there");
        assert!(leaf.is_still(&file));
        ops::write(&file, b"22").expect("a file");
        assert!(!leaf.is_still(&file));
        ops::remove_file(&file).expect("removable");
        assert!(!leaf.is_still(&file));
    }
}
