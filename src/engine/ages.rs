//! Modification times of the inputs of tasks that keep caches: a file is as old as its content. Knows no view.
//!
//! A tool that keeps a directory between its runs may believe that what is older than its own files is what it saw. So a
//! file that is as it was at the last use keeps its time, and anything else gets one that is later, in whole seconds, than all
//! that any earlier use could have written. What the host shows plays no part.
//!
//! One file per task in the state directory of the workspace: magic (8 bytes), label, boot, whether the last use has ended, the latest
//! time that is taken, the output trees that were tools or the root, names of the caches that only ever saw these times, and per path its
//! content and time; then BLAKE3 over everything before. It is on the disk before a command sees new times. Without it, and for a cache
//! that it does not name, the cache is emptied: nobody knows what it saw. It is emptied with other trees as well: they are laid out once
//! for all tasks, so what lies in them always has the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};

use crate::base::digest::Digest;
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::fs::atomic::{self, Durability};
use crate::fs::lock::{self, Lock, Sharing};
use crate::fs::ops::{self, FsError};
use crate::fs::stat::StatKey;
use crate::fs::walk;
use crate::sandbox::spec::MTIME_NS;

const MAGIC: [u8; 8] = *b"dryst\0a2";
const SECOND_NS: i64 = 1_000_000_000;

/// Whether nothing more is written under the times of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    /// A command may run, or was killed with us.
    Open,
    /// The last command has ended, and the latest time counts what it wrote.
    Ended,
}

/// What is remembered of one task.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Record {
    boot: String,
    last_use: Use,
    /// Nothing was written later than this, nanoseconds since 1970.
    latest_ns: i64,
    /// The output trees that the command sees beside the workspace.
    trees: Digest,
    /// Caches that never saw other times than these.
    caches: BTreeSet<RelPath>,
    /// Content and time; of directories, the names in them count as content.
    paths: BTreeMap<RelPath, (Digest, i64)>,
}

impl Record {
    fn encode(&self, label: &str) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.bytes(&MAGIC).bytes(label.as_bytes()).bytes(self.boot.as_bytes());
        encoder.u8(u8::from(self.last_use == Use::Ended)).u64(self.latest_ns.cast_unsigned());
        encoder.digest(&self.trees);
        encoder.u64(self.caches.len() as u64);
        for cache in &self.caches {
            encoder.bytes(cache.as_str().as_bytes());
        }
        encoder.u64(self.paths.len() as u64);
        for (path, (content, mtime_ns)) in &self.paths {
            encoder.bytes(path.as_str().as_bytes()).digest(content).u64(mtime_ns.cast_unsigned());
        }
        encoder.into_sealed()
    }

    fn decode(bytes: &[u8], label: &str) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::sealed(bytes)?;
        if decoder.bytes()? != MAGIC || decoder.text("label")? != label {
            return Err(DecodeError::Invalid { what: "header" });
        }
        let path = |decoder: &mut Decoder<'_>| {
            RelPath::parse(decoder.text("path")?).map_err(|_| DecodeError::Invalid { what: "path" })
        };
        let boot = decoder.text("boot")?.to_owned();
        let last_use = if decoder.u8()? == 1 { Use::Ended } else { Use::Open };
        let latest_ns = decoder.u64()?.cast_signed();
        let trees = decoder.digest()?;
        let caches = (0..decoder.u64()?).map(|_| path(&mut decoder)).collect::<Result<_, _>>()?;
        let paths = (0..decoder.u64()?)
            .map(|_| Ok((path(&mut decoder)?, (decoder.digest()?, decoder.u64()?.cast_signed()))))
            .collect::<Result<_, _>>()?;
        decoder.finish()?;
        Ok(Self { boot, last_use, latest_ns, trees, caches, paths })
    }

    /// The record of the use that begins: what is new or changed gets a time that is later than everything.
    fn next(&self, contents: BTreeMap<RelPath, Digest>, now_ns: i64) -> Self {
        let new_ns = later(now_ns, self.latest_ns);
        let mut latest_ns = self.latest_ns;
        let paths = contents.into_iter().map(|(path, content)| {
            let mtime_ns = match self.paths.get(&path) {
                Some((known, mtime_ns)) if *known == content => *mtime_ns,
                _ => {
                    latest_ns = new_ns;
                    new_ns
                }
            };
            (path, (content, mtime_ns))
        });
        let paths = paths.collect();
        Self { paths, latest_ns, ..self.clone() }
    }
}

/// Now, or the beginning of the second after `latest_ns` if the clock is not there yet: some tools compare whole seconds, and some
/// clocks are set back.
fn later(now_ns: i64, latest_ns: i64) -> i64 {
    let next_second = latest_ns.div_euclid(SECOND_NS).saturating_add(1).saturating_mul(SECOND_NS);
    now_ns.max(next_second)
}

/// The times of one task, held while its command runs; nobody else has them meanwhile.
pub struct Ages {
    file: PathBuf,
    label: String,
    record: Record,
    _lock: Lock,
}

/// A cache that the command gets.
pub struct Cache<'a> {
    /// Its path in the package.
    pub name: &'a RelPath,
    /// Where it lies.
    pub dir: &'a Path,
    /// Empties it.
    pub clear: &'a dyn Fn() -> Result<(), crate::store::StoreError>,
}

/// The lock of the times of a task; waits for another use of them to end.
pub fn wait(state_dir: &Path, label: &str) -> Result<Lock, FsError> {
    ops::create_dir_all(&state_dir.join("ages"))?;
    lock::wait(&file_of(state_dir, label).with_extension("lock"), Sharing::Exclusive)
}

/// The same, but `None` while another use goes on.
pub fn attempt(state_dir: &Path, label: &str) -> Result<Option<Lock>, FsError> {
    ops::create_dir_all(&state_dir.join("ages"))?;
    lock::attempt(&file_of(state_dir, label).with_extension("lock"), Sharing::Exclusive)
}

fn file_of(state_dir: &Path, label: &str) -> PathBuf {
    state_dir.join("ages").join(Digest::of(label.as_bytes()).short())
}

impl Ages {
    /// Begins a use: gives every input its time, and empties the caches that may know others. `trees` stands for the output trees that
    /// are tools or the root.
    ///
    /// Cost: one read and one write of the record, synced if a time is new; one walk of the caches after a kill or a reboot.
    pub fn begin(
        state_dir: &Path,
        label: String,
        (listing, trees): (&Listing, Digest),
        caches: &[Cache<'_>],
        lock: Lock,
    ) -> Result<Self, crate::store::StoreError> {
        let file = file_of(state_dir, &label);
        let boot = ops::boot_id().unwrap_or_default();
        let known = ops::read(&file).ok().and_then(|bytes| Record::decode(&bytes, &label).ok());
        let contents = contents(listing);
        let mut next = match &known {
            Some(known) => {
                let mut known = known.clone();
                if known.last_use == Use::Open || known.boot != boot || boot.is_empty() {
                    let written = caches.iter().filter_map(|cache| latest_below(cache.dir)).max();
                    known.latest_ns = known.latest_ns.max(written.unwrap_or(i64::MIN));
                    // Nobody looked at the others.
                    known.caches.retain(|known| caches.iter().any(|cache| cache.name == known));
                }
                known.next(contents, now_ns(ClockId::RealtimeCoarse))
            }
            None => Record {
                boot: String::new(),
                last_use: Use::Open,
                latest_ns: MTIME_NS,
                trees,
                caches: BTreeSet::new(),
                // As old as those of every task: the first run is the same for everybody.
                paths: contents.into_iter().map(|(path, content)| (path, (content, MTIME_NS))).collect(),
            },
        };
        if next.trees != trees {
            next.trees = trees;
            next.caches.clear();
        }
        for cache in caches {
            if !next.caches.contains(cache.name) {
                (cache.clear)()?;
                next.caches.insert(cache.name.clone());
            }
        }
        let is_news =
            |known: &Record| (&known.paths, &known.caches, known.trees) != (&next.paths, &next.caches, next.trees);
        let has_news = known.as_ref().is_none_or(is_news);
        next.boot = boot;
        next.last_use = Use::Open;
        let durability = if has_news { Durability::Synced } else { Durability::Relaxed };
        atomic::write(&file, &next.encode(&label), durability)?;
        if has_news {
            // Or an older record could come back after a power failure, beside a cache that saw newer files.
            ops::sync_dir(&state_dir.join("ages"))?;
        }
        Ok(Self { file, label, record: next, _lock: lock })
    }

    /// The time of an input or of a directory above one.
    pub fn of(&self, path: &RelPath) -> i64 {
        self.record.paths.get(path).map_or(MTIME_NS, |(_, mtime_ns)| *mtime_ns)
    }

    /// All of them that are not the time of everything else.
    pub fn unusual(&self) -> BTreeMap<RelPath, i64> {
        let unusual = self.record.paths.iter().filter(|(_, (_, mtime_ns))| *mtime_ns != MTIME_NS);
        unusual.map(|(path, (_, mtime_ns))| (path.clone(), *mtime_ns)).collect()
    }
}

impl Drop for Ages {
    fn drop(&mut self) {
        self.record.last_use = Use::Ended;
        self.record.latest_ns = self.record.latest_ns.max(now_ns(ClockId::Realtime));
        if let Err(error) = atomic::write(&self.file, &self.record.encode(&self.label), Durability::Relaxed) {
            // As after a kill: the next use looks at what this one wrote.
            tracing::debug!(%error, "the end of a use was not noted");
        }
    }
}

/// What stands at each path, directories included.
fn contents(listing: &Listing) -> BTreeMap<RelPath, Digest> {
    let mut names: BTreeMap<RelPath, BTreeSet<RelPath>> = BTreeMap::from([(RelPath::root(), BTreeSet::new())]);
    let mut contents = BTreeMap::new();
    for (path, entry) in listing {
        let mut encoder = Encoder::new();
        match entry {
            Entry::File { digest, executable, .. } => encoder.u8(u8::from(*executable)).digest(digest),
            Entry::Link { target } => encoder.u8(2).bytes(target.as_bytes()),
            Entry::Dir => {
                names.entry(path.clone()).or_default();
                encoder.u8(3)
            }
        };
        contents.insert(path.clone(), Digest::of(encoder.as_slice()));
        let mut below = path.clone();
        while let Some(dir) = below.parent() {
            if !names.entry(dir.clone()).or_default().insert(below) {
                break;
            }
            below = dir;
        }
    }
    for (dir, names) in names {
        let mut encoder = Encoder::new();
        encoder.u8(3).u64(names.len() as u64);
        for name in &names {
            encoder.bytes(name.file_name().as_bytes());
        }
        contents.insert(dir, Digest::of(encoder.as_slice()));
    }
    contents
}

/// The latest time of anything below a directory: what a use that never ended may have written.
fn latest_below(dir: &Path) -> Option<i64> {
    let found = walk::survey_all(dir, &|_| false).map(|survey| survey.found).unwrap_or_default();
    let times = found.iter().filter_map(|found| StatKey::at(&dir.join(found.path.as_str())).ok());
    times.map(|stat| stat.mtime_ns.max(stat.ctime_ns)).max()
}

fn now_ns(clock: ClockId) -> i64 {
    let now = clock_gettime(clock);
    now.tv_sec.saturating_mul(SECOND_NS).saturating_add(now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    fn listing(files: &[(&str, &str)]) -> Listing {
        let entry = |text: &str| Entry::File { digest: Digest::of(text.as_bytes()), size: 0, executable: false };
        files.iter().map(|(path, text)| (rel(path), entry(text))).collect()
    }

    #[test]
    fn a_new_time_is_in_a_later_second_than_all_before_whatever_the_clock_says() {
        let check = |now_ms: i64, latest_ms: i64, expect_ms: i64| {
            assert_eq!(later(now_ms * 1_000_000, latest_ms * 1_000_000), expect_ms * 1_000_000, "{now_ms} {latest_ms}");
        };
        check(5_500, 3_900, 5_500);
        check(5_500, 4_999, 5_500);
        check(5_500, 5_000, 6_000);
        check(5_500, 5_400, 6_000);
        check(5_000, 4_000, 5_000);
        // The clock was set back, or was never set.
        check(5_500, 86_400_000, 86_401_000);
        check(0, 5_000, 6_000);
        check(-5_000, -9_500, -5_000);
        assert_eq!(later(0, i64::MAX), i64::MAX);
    }

    #[test]
    fn what_changed_is_younger_and_what_did_not_keeps_its_age() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let begin = |files: &[(&str, &str)]| {
            let lock = attempt(dir.path(), "//:t").expect("it can be locked").expect("nobody has it");
            let cache = Cache { name: &rel("c"), dir: dir.path(), clear: &|| Ok(()) };
            Ages::begin(dir.path(), "//:t".into(), (&listing(files), Digest::of(b"")), &[cache], lock)
                .expect("it begins")
        };
        let first = begin(&[("a/x", "1"), ("a/y", "1"), ("b/z", "1")]);
        assert_eq!(first.unusual(), BTreeMap::new(), "the first time is the same for everybody");
        assert!(attempt(dir.path(), "//:t").expect("it can be tried").is_none(), "one use at a time");
        drop(first);
        let ended = now_ns(ClockId::Realtime);
        let second = begin(&[("a/x", "2"), ("a/y", "1"), ("b/z", "1")]);
        let changed: Vec<_> = second.unusual().into_keys().collect();
        assert_eq!(changed, [rel("a/x")]);
        let of_x = second.of(&rel("a/x"));
        assert!(of_x > ended - SECOND_NS && of_x % SECOND_NS == 0 || of_x > ended);
        drop(second);
        // One name less makes the directory younger as well.
        let third = begin(&[("a/x", "2"), ("b/z", "1")]);
        assert_eq!(third.of(&rel("a/x")), of_x);
        assert_eq!(third.unusual().into_keys().collect::<Vec<_>>(), [rel("a"), rel("a/x")]);
        assert!(third.of(&rel("a")) > of_x);
        let of_a = third.of(&rel("a"));
        drop(third);
        // What comes back is younger than what took its place.
        let fourth = begin(&[("a/x", "1"), ("a/y", "1"), ("b/z", "1")]);
        assert!(fourth.of(&rel("a/x")) > of_a && fourth.of(&rel("a/y")) > of_a && fourth.of(&rel("a")) > of_a);
        assert_eq!((fourth.of(&rel("b/z")), fourth.of(&RelPath::root())), (MTIME_NS, MTIME_NS));
    }

    #[test]
    fn a_record_reads_back_and_a_damaged_one_does_not() {
        let record = Record {
            boot: "b".into(),
            last_use: Use::Ended,
            latest_ns: -7,
            trees: Digest::of(b"t"),
            caches: BTreeSet::from([rel("c")]),
            paths: BTreeMap::from([(RelPath::root(), (Digest::of(b"x"), 5))]),
        };
        let bytes = record.encode("//:t");
        assert_eq!(Record::decode(&bytes, "//:t"), Ok(record));
        assert!(Record::decode(&bytes, "//:u").is_err());
        for end in 0..bytes.len() {
            assert!(Record::decode(&bytes[..end], "//:t").is_err(), "cut at {end}");
        }
    }
}
