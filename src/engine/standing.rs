//! Which tasks stood when a run of this worktree ended: their results were in the store and their outputs in place, found there or
//! made by that run. What of it still
//! holds is `recall`'s to find out; here is the file.
//!
//! One file in the state directory of the workspace: magic (8 bytes), version of the program, mark of the store, `u64` count, the tasks in
//! byte order of their labels, then BLAKE3 over everything before. Texts are length-prefixed, integers little-endian. A damaged file,
//! that of another version and one from before something was taken out of the store are empty: then tasks are looked up in the store.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::base::digest::Digest;
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::session::held;
use crate::fs::atomic::{self, Durability};
use crate::fs::ops::{self, FsError};
use crate::store::History;

const MAGIC: [u8; 8] = *b"dryst\0s2";

/// The program that wrote a file: another one may resolve tasks otherwise.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Logs that are kept here, in bytes; larger ones are read from the store.
const LOG_BYTES_MAX: usize = 4096;

/// How long a result counts as just used, in milliseconds: more often a task that stands is not marked as used in the store.
pub const USE_INTERVAL_MS: i64 = 15 * 60 * 1000;

/// A log, or where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeptLog {
    /// As `log` encodes it.
    Here(Vec<u8>),
    /// A blob of the store.
    Stored(Digest),
}

impl KeptLog {
    /// Keeps a small one.
    pub fn of(encoded: Vec<u8>, blob: Digest) -> Self {
        if encoded.len() <= LOG_BYTES_MAX { Self::Here(encoded) } else { Self::Stored(blob) }
    }
}

/// A task that stood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stood {
    /// Digest of all its key was made of.
    pub memo: Digest,
    /// Its key.
    pub key: Digest,
    /// Tree of its outputs.
    pub outputs: Digest,
    /// The outputs, relative to its package.
    pub listing: Arc<Listing>,
    /// What it printed.
    pub log: KeptLog,
    /// Level its result was made at, as a word.
    pub isolation: String,
    /// Time its result took, in milliseconds.
    pub duration_ms: u64,
    /// What was known of its earlier runs, if it ran at no time since.
    pub history: Option<History>,
    /// When its result was last marked as used, in milliseconds since 1970.
    pub used_ms: i64,
}

/// All that is known of this worktree, and what this run learns.
#[derive(Debug, Default)]
pub struct Standing {
    file: PathBuf,
    /// Mark of the store when this run began; without it nothing is known and nothing kept.
    mark: Option<Digest>,
    is_unsaved: bool,
    saved: BTreeMap<String, Arc<Stood>>,
    changes: Mutex<BTreeMap<String, Option<Arc<Stood>>>>,
    used: Mutex<BTreeSet<Digest>>,
}

impl Standing {
    /// Reads the file in the state directory of a workspace. `mark` is that of the store.
    pub fn load(state_dir: &Path, mark: Option<Digest>) -> Self {
        let file = state_dir.join("standing");
        let bytes = mark.and_then(|_| ops::read(&file).ok());
        let saved = mark.zip(bytes).and_then(|(mark, bytes)| decode(&bytes, &mark).ok()).unwrap_or_default();
        Self { file, mark, saved, ..Self::default() }
    }

    /// Nothing yet, for what this run learns; not to be saved. `mark` is that of the store.
    pub fn unsaved(mark: Option<Digest>) -> Self {
        Self { mark, is_unsaved: true, ..Self::default() }
    }

    /// Whether anything can be kept.
    pub fn is_open(&self) -> bool {
        self.mark.is_some()
    }

    /// The task with this label, if it stood.
    pub fn get(&self, label: &str) -> Option<Arc<Stood>> {
        match held(&self.changes).get(label) {
            Some(changed) => changed.clone(),
            None => self.saved.get(label).cloned(),
        }
    }

    /// What was known of a task's earlier runs when the last run ended.
    pub fn history(&self, label: &str) -> Option<History> {
        self.saved.get(label).and_then(|stood| stood.history)
    }

    /// A task stands that was looked up.
    pub fn note(&self, label: String, stood: Stood) {
        if self.is_open() {
            held(&self.changes).insert(label, Some(Arc::new(stood)));
        }
    }

    /// A task stands by what is known here: marks its result as used, where that was not done lately.
    pub fn note_use(&self, label: &str, stood: &Arc<Stood>, now_ms: i64) {
        let since_ms = now_ms.saturating_sub(stood.used_ms);
        if !(0..USE_INTERVAL_MS).contains(&since_ms) {
            held(&self.used).insert(stood.key);
            let stood = Stood { used_ms: now_ms, ..Stood::clone(stood) };
            held(&self.changes).insert(label.to_owned(), Some(Arc::new(stood)));
        }
    }

    /// A task runs: nothing of what was known stands.
    pub fn forget(&self, label: &str) {
        if self.saved.contains_key(label) || held(&self.changes).contains_key(label) {
            held(&self.changes).insert(label.to_owned(), None);
        }
    }

    /// Keys of results that are to be marked as used, once.
    pub fn take_used(&self) -> Vec<Digest> {
        std::mem::take(&mut *held(&self.used)).into_iter().collect()
    }

    /// Writes what changed, and keeps only these tasks, which are all there are. Cost: nothing if nothing changed.
    pub fn save(&self, tasks: impl FnOnce() -> HashSet<String>) -> Result<(), FsError> {
        let changes = held(&self.changes);
        let (Some(mark), false) = (&self.mark, changes.is_empty() || self.is_unsaved) else { return Ok(()) };
        let tasks = tasks();
        let saved = self.saved.iter().filter(|(label, _)| !changes.contains_key(*label));
        let changed = changes.iter().filter_map(|(label, stood)| Some((label, stood.as_ref()?)));
        let all: BTreeMap<&String, &Arc<Stood>> =
            saved.chain(changed).filter(|(label, _)| tasks.contains(*label)).collect();
        // Not synced: after a power cut the checksum tells.
        atomic::write(&self.file, &encode(&all, mark), Durability::Relaxed)
    }
}

fn encode(all: &BTreeMap<&String, &Arc<Stood>>, mark: &Digest) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.bytes(&MAGIC).bytes(VERSION.as_bytes()).digest(mark).u64(all.len() as u64);
    for (label, stood) in all {
        let Stood { memo, key, outputs, listing, log, isolation, duration_ms, history, used_ms } = &***stood;
        encoder.bytes(label.as_bytes()).digest(memo).digest(key).digest(outputs);
        encode_listing(&mut encoder, listing);
        match log {
            KeptLog::Here(bytes) => encoder.u8(0).bytes(bytes),
            KeptLog::Stored(blob) => encoder.u8(1).digest(blob),
        };
        encoder.bytes(isolation.as_bytes()).u64(*duration_ms).u64(used_ms.cast_unsigned());
        encoder.u8(u8::from(history.is_some()));
        let History { duration_ms, last_failed, flaky, max_rss_kib } = history.unwrap_or_default();
        encoder.u8(u8::from(duration_ms.is_some())).u64(duration_ms.unwrap_or(0));
        encoder.u8(u8::from(last_failed)).u8(u8::from(flaky)).u64(max_rss_kib);
    }
    encoder.into_sealed()
}

/// Appends a listing, so that no two listings have the same bytes.
pub fn encode_listing(encoder: &mut Encoder, listing: &Listing) {
    encoder.u64(listing.len() as u64);
    for (path, entry) in listing {
        encoder.bytes(path.as_str().as_bytes());
        match entry {
            Entry::File { digest, size, executable } => encoder.u8(u8::from(*executable)).digest(digest).u64(*size),
            Entry::Link { target } => encoder.u8(2).bytes(target.as_bytes()),
            Entry::Dir => encoder.u8(3),
        };
    }
}

fn decode(bytes: &[u8], mark: &Digest) -> Result<BTreeMap<String, Arc<Stood>>, DecodeError> {
    let mut decoder = Decoder::sealed(bytes)?;
    if decoder.bytes()? != MAGIC || decoder.text("version")? != VERSION || decoder.digest()? != *mark {
        return Err(DecodeError::Invalid { what: "header" });
    }
    let mut all = BTreeMap::new();
    for _ in 0..decoder.u64()? {
        let label = decoder.text("label")?.to_owned();
        all.insert(label, Arc::new(decode_one(&mut decoder)?));
    }
    decoder.finish()?;
    Ok(all)
}

fn decode_one(decoder: &mut Decoder<'_>) -> Result<Stood, DecodeError> {
    let (memo, key, outputs) = (decoder.digest()?, decoder.digest()?, decoder.digest()?);
    let listing = Arc::new(decode_listing(decoder)?);
    let log = match decoder.u8()? {
        0 => KeptLog::Here(decoder.bytes()?.to_vec()),
        1 => KeptLog::Stored(decoder.digest()?),
        _ => return Err(DecodeError::Invalid { what: "log" }),
    };
    let isolation = decoder.text("isolation level")?.to_owned();
    let (duration_ms, used_ms) = (decoder.u64()?, decoder.u64()?.cast_signed());
    let is_remembered = decoder.u8()? == 1;
    let (is_known, mean_ms) = (decoder.u8()? == 1, decoder.u64()?);
    let history = History {
        duration_ms: is_known.then_some(mean_ms),
        last_failed: decoder.u8()? == 1,
        flaky: decoder.u8()? == 1,
        max_rss_kib: decoder.u64()?,
    };
    let history = is_remembered.then_some(history);
    Ok(Stood { memo, key, outputs, listing, log, isolation, duration_ms, history, used_ms })
}

/// Reads what [`encode_listing`] wrote.
pub fn decode_listing(decoder: &mut Decoder<'_>) -> Result<Listing, DecodeError> {
    let mut listing = Listing::new();
    for _ in 0..decoder.u64()? {
        let path = RelPath::parse(decoder.text("path")?).map_err(|_| DecodeError::Invalid { what: "path" })?;
        let entry = match decoder.u8()? {
            kind @ (0 | 1) => Entry::File { digest: decoder.digest()?, size: decoder.u64()?, executable: kind == 1 },
            2 => Entry::Link { target: decoder.text("target")?.to_owned() },
            3 => Entry::Dir,
            _ => return Err(DecodeError::Invalid { what: "kind of entry" }),
        };
        listing.insert(path, entry);
    }
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stood(text: &str) -> Stood {
        let path = |text: &str| RelPath::parse(text).expect("a good path");
        let digest = Digest::of(text.as_bytes());
        let listing = Listing::from([
            (path("dist/a"), Entry::File { digest, size: 1, executable: false }),
            (path("dist/b"), Entry::File { digest, size: 2, executable: true }),
            (path("dist/c"), Entry::Link { target: "a".into() }),
            (path("dist/d"), Entry::Dir),
        ]);
        let history = History { duration_ms: Some(7), last_failed: false, flaky: true, max_rss_kib: 9 };
        Stood {
            memo: digest,
            key: digest,
            outputs: digest,
            listing: Arc::new(listing),
            log: KeptLog::of(vec![1; 3], digest),
            isolation: "namespaces".into(),
            duration_ms: 5,
            history: (text != "large").then_some(history),
            used_ms: 1_000,
        }
    }

    #[test]
    fn what_is_saved_is_loaded_for_the_same_mark_and_damage_makes_it_empty() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mark = Digest::of(b"mark");
        let standing = Standing::load(dir.path(), Some(mark));
        let large = Stood { log: KeptLog::of(vec![0; LOG_BYTES_MAX + 1], mark), ..stood("large") };
        assert_eq!(large.log, KeptLog::Stored(mark));
        for (label, stood) in [("//:a", stood("a")), ("//:gone", stood("gone")), ("//:large", large.clone())] {
            standing.note(label.into(), stood);
        }
        standing.save(|| HashSet::from(["//:a".into(), "//:large".into()])).expect("written");
        let loaded = Standing::load(dir.path(), Some(mark));
        let of = |label: &str| loaded.get(label).map(|stood| Stood::clone(&stood));
        assert_eq!((of("//:a"), of("//:gone"), of("//:large")), (Some(stood("a")), None, Some(large)));
        for other in [None, Some(Digest::of(b"another"))] {
            assert!(Standing::load(dir.path(), other).get("//:a").is_none());
        }
        let file = dir.path().join("standing");
        let good = ops::read(&file).expect("there");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad, &mark).is_err() && decode(&good[..at], &mark).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_file_is_written_only_for_what_changed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let standing = Standing::load(dir.path(), Some(Digest::of(b"mark")));
        standing.forget("//:never");
        standing.save(HashSet::new).expect("nothing to do");
        assert!(!ops::exists(&dir.path().join("standing")));
        let closed = Standing::load(dir.path(), None);
        closed.note("//:a".into(), stood("a"));
        closed.save(HashSet::new).expect("nothing to do");
        assert!(!ops::exists(&dir.path().join("standing")));
    }

    #[test]
    fn a_use_is_noted_now_and_then() {
        let standing = Standing::load(Path::new("/nowhere"), Some(Digest::of(b"mark")));
        let check = |now_ms: i64, expect: usize| {
            standing.note_use("//:a", &Arc::new(stood("a")), now_ms);
            assert_eq!(standing.take_used().len(), expect, "{now_ms}");
        };
        check(1_000, 0);
        check(999 + USE_INTERVAL_MS, 0);
        check(1_000 + USE_INTERVAL_MS, 1);
        // The clock was set back.
        check(999, 1);
    }
}
