//! What materializations wrote, per worktree and task: only that may be removed again. Decides nothing.
//!
//! One file in the state directory of the workspace, to which records are appended; of one task the last one counts. Each after its
//! length (`u64`): magic (8 bytes), label, `u64` count of directories, the directories, `u64` count of paths, per path its text and the
//! digest of what was put there, then BLAKE3 over everything before. Texts are length-prefixed, integers little-endian, paths relative
//! to the workspace. With a damaged record nothing is known of any task: then files are left where they are, never removed. Half a record
//! at the end is as if it had not been begun. Who appends holds the lock of the file, and makes it anew once half of it is stale.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::base::digest::Digest;
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::engine::session::held;
use crate::fs::atomic::{self, Durability};
use crate::fs::lock::{self, Lock, Sharing};
use crate::fs::ops::{self, AtPath, FsError};
use crate::fs::stat::StatKey;

const MAGIC: [u8; 8] = *b"dryst\0w2";

/// What the length before a record takes, in bytes.
const FRAME_BYTES: u64 = 8;

/// Bytes of replaced records that stay, however small the rest is.
const STALE_BYTES_MAX: u64 = 64 * 1024;

/// Lock files per worktree. Tasks share them: nobody holds two, and who holds one waits for nothing.
const LOCKS: u8 = 64;

/// What one task wrote.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// Directories made exact, relative to the workspace.
    pub dirs: BTreeSet<RelPath>,
    /// Files, links and empty directories beside them, with what was put there.
    pub paths: BTreeMap<RelPath, Digest>,
}

impl Record {
    /// Whether the path lies in a directory that was made exact.
    pub fn has_dir_of(&self, path: &RelPath) -> bool {
        self.dirs.iter().any(|dir| path.starts_with(dir))
    }

    /// Whether this very content was put at the path.
    pub fn is_as_written(&self, path: &RelPath, entry: &Entry) -> bool {
        self.paths.get(path) == Some(&mark(entry))
    }

    /// Notes what is put at a path.
    pub fn note(&mut self, path: RelPath, entry: &Entry) {
        self.paths.insert(path, mark(entry));
    }

    fn encode(&self, label: &str) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.bytes(&MAGIC).bytes(label.as_bytes()).u64(self.dirs.len() as u64);
        for dir in &self.dirs {
            encoder.bytes(dir.as_str().as_bytes());
        }
        encoder.u64(self.paths.len() as u64);
        for (path, mark) in &self.paths {
            encoder.bytes(path.as_str().as_bytes()).digest(mark);
        }
        encoder.into_sealed()
    }

    fn framed(&self, label: &str) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.bytes(&self.encode(label));
        encoder.into_vec()
    }

    fn decode(bytes: &[u8]) -> Result<(String, Self), DecodeError> {
        let mut decoder = Decoder::sealed(bytes)?;
        if decoder.bytes()? != MAGIC {
            return Err(DecodeError::Invalid { what: "header" });
        }
        let label = decoder.text("label")?.to_owned();
        let path = |decoder: &mut Decoder<'_>| {
            RelPath::parse(decoder.text("path")?).map_err(|_| DecodeError::Invalid { what: "path" })
        };
        let mut record = Self::default();
        for _ in 0..decoder.u64()? {
            record.dirs.insert(path(&mut decoder)?);
        }
        for _ in 0..decoder.u64()? {
            let path = path(&mut decoder)?;
            record.paths.insert(path, decoder.digest()?);
        }
        decoder.finish()?;
        Ok((label, record))
    }
}

/// Content and kind of an entry in one digest.
fn mark(entry: &Entry) -> Digest {
    let mut encoder = Encoder::new();
    match entry {
        Entry::File { digest, executable, .. } => encoder.u8(u8::from(*executable)).digest(digest),
        Entry::Link { target } => encoder.u8(2).bytes(target.as_bytes()),
        Entry::Dir => encoder.u8(3),
    };
    Digest::of(encoder.as_slice())
}

/// The records of a worktree. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Records {
    dir: PathBuf,
    known: Arc<Mutex<Known>>,
}

/// What was read of the file so far.
#[derive(Debug, Default)]
struct Known {
    records: HashMap<String, Record>,
    /// Of which file: device and inode.
    file: Option<(u64, u64)>,
    /// How much of it, in bytes.
    length: u64,
    /// Bytes of records that later ones replaced.
    stale: u64,
    /// Bytes of each record in the file.
    sizes: HashMap<String, u64>,
}

impl Known {
    /// Reads on to where whole records end. What is damaged makes all of it empty: nobody knows what the rest replaced.
    fn read_on(&mut self, path: &Path) {
        let stat = StatKey::at(path).ok();
        let identity = stat.map(|stat| (stat.device, stat.inode));
        let size = stat.map_or(0, |stat| stat.size);
        if identity != self.file || size < self.length {
            *self = Self { file: identity, ..Self::default() };
        }
        if size == self.length {
            return;
        }
        let Ok(bytes) = ops::open_no_follow(path).and_then(|file| {
            let length = usize::try_from(size - self.length).unwrap_or(usize::MAX);
            ops::read_at(&file, self.length, length).at("read", path)
        }) else {
            return;
        };
        let mut decoder = Decoder::new(&bytes);
        // Half a record at the end is one that a killed process began, and announced nothing.
        while let Ok(framed) = decoder.bytes() {
            let Ok((label, record)) = Record::decode(framed) else {
                *self = Self { file: identity, ..Self::default() };
                return;
            };
            self.add(label, record, framed.len() as u64 + FRAME_BYTES);
        }
    }

    fn add(&mut self, label: String, record: Record, size: u64) {
        self.length += size;
        self.stale += self.sizes.insert(label.clone(), size).unwrap_or(0);
        self.records.insert(label, record);
    }
}

impl Records {
    /// Those in the state directory of a workspace.
    pub fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("written"), known: Arc::default() }
    }

    fn file(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn now(&self) -> MutexGuard<'_, Known> {
        let mut known = held(&self.known);
        known.read_on(&self.file());
        known
    }

    /// Whether anything is recorded of a task. Cost: one `stat`, and what others wrote since is read.
    pub fn has(&self, label: &str) -> bool {
        self.now().records.contains_key(label)
    }

    /// What a task wrote; nothing if that cannot be told. Cost: as of [`Records::has`].
    pub fn load(&self, label: &str) -> Record {
        self.now().records.get(label).cloned().unwrap_or_default()
    }

    /// Tells what is recorded of a task from what was recorded at another time. Cost: as of [`Records::has`].
    pub fn mark(&self, label: &str) -> Digest {
        Digest::of(&self.load(label).encode(label))
    }

    /// Whether any task ever made a directory exact that the path lies in: tasks are renamed. Cost: a look at every record.
    pub fn any_has_dir_of(&self, path: &RelPath) -> bool {
        self.now().records.values().any(|record| record.has_dir_of(path))
    }

    /// Replaces the record of a task. Cost: one small write; now and then one of all records.
    pub fn save(&self, label: &str, record: &Record) -> Result<(), FsError> {
        ops::create_dir_all(&self.dir)?;
        let path = self.file();
        // Whoever waited for a file that was replaced meanwhile starts over on the new one.
        let lock = lock::wait_named(&path, Sharing::Exclusive)?;
        let mut known = self.now();
        let entry = record.framed(label);
        let is_whole = StatKey::at(&path).is_ok_and(|stat| stat.size == known.length);
        if is_whole && known.stale <= STALE_BYTES_MAX.max(known.length / 2) {
            let mut file = lock.file();
            file.seek(SeekFrom::Start(known.length)).at("write", &path)?;
            ops::write_all(file, &path, &entry)?;
            known.add(label.to_owned(), record.clone(), entry.len() as u64);
            return Ok(());
        }
        let others = known.records.iter().filter(|(other, _)| *other != label);
        let mut all: Vec<u8> = others.flat_map(|(label, record)| record.framed(label)).collect();
        all.extend_from_slice(&entry);
        // Not synced: after a power cut the checksums tell, and nothing is removed.
        atomic::write(&path, &all, Durability::Relaxed)
    }

    /// Waits until no other thread or process places outputs of the task in this worktree.
    ///
    /// Whoever holds it works alone: it must not wait for the CPU pool, whose threads wait here, too.
    pub fn lock(&self, label: &str) -> Result<Lock, FsError> {
        self.with_lock_file(label, |path| lock::wait(path, Sharing::Exclusive))
    }

    /// The same without waiting; `None` if somebody is in the way.
    pub fn try_lock(&self, label: &str) -> Result<Option<Lock>, FsError> {
        self.with_lock_file(label, |path| lock::attempt(path, Sharing::Exclusive))
    }

    fn with_lock_file<T>(&self, label: &str, lock: impl Fn(&Path) -> Result<T, FsError>) -> Result<T, FsError> {
        let slot = Digest::of(label.as_bytes()).as_bytes()[0] % LOCKS;
        let path = self.dir.join(format!("lock-{slot}"));
        match lock(&path) {
            Err(error) if error.is_missing() => {
                ops::create_dir_all(&self.dir)?;
                lock(&path)
            }
            locked => locked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    fn file(text: &str) -> Entry {
        Entry::File { digest: Digest::of(text.as_bytes()), size: text.len() as u64, executable: false }
    }

    #[test]
    fn a_record_is_read_back_and_a_damaged_one_is_empty() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let records = Records::new(dir.path());
        let mut record = Record { dirs: BTreeSet::from([path("dist")]), ..Record::default() };
        record.note(path("src/a.js"), &file("a"));
        assert!(!records.has("//:a"));
        records.save("//:a", &record).expect("written");
        assert_eq!((records.load("//:a"), records.load("//:b")), (record.clone(), Record::default()));
        assert!(records.any_has_dir_of(&path("dist/x")) && !records.any_has_dir_of(&path("distant")));
        let whole = record.encode("//:a");
        for cut in 0..whole.len() {
            assert!(Record::decode(&whole[..cut]).is_err(), "{cut}");
            let mut flipped = whole.clone();
            flipped[cut] ^= 1;
            assert!(Record::decode(&flipped).is_err(), "{cut}");
        }
    }

    fn of(name: &str) -> Record {
        Record { dirs: BTreeSet::from([path(name)]), ..Record::default() }
    }

    #[test]
    fn what_another_process_records_is_seen_at_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (one, other) = (Records::new(dir.path()), Records::new(dir.path()));
        for round in 0..3 {
            let name = format!("dist{round}");
            one.save("//:a", &of(&name)).expect("written");
            assert_eq!((other.load("//:a"), other.has("//:b")), (of(&name), round > 0));
            other.save("//:b", &of(&name)).expect("written");
            assert_eq!(one.load("//:b"), of(&name));
        }
        ops::remove_file(&one.file()).expect("there");
        assert!(!one.has("//:a") && !other.has("//:b"));
    }

    #[test]
    fn half_a_record_is_none_and_what_is_damaged_makes_all_of_it_empty() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let records = || Records::new(dir.path());
        records().save("//:a", &of("a")).expect("written");
        let first = ops::read(&records().file()).expect("there").len();
        records().save("//:b", &of("b")).expect("written");
        let whole = ops::read(&records().file()).expect("there");
        for cut in 0..whole.len() {
            ops::write(&records().file(), &whole[..cut]).expect("written");
            assert_eq!((records().has("//:a"), records().has("//:b")), (cut >= first, false), "{cut}");
        }
        // Whoever comes next writes no record behind half of one.
        records().save("//:c", &of("c")).expect("written");
        assert_eq!(["//:a", "//:b", "//:c"].map(|label| records().has(label)), [true, false, true]);
        for at in (0..whole.len()).filter(|at| (*at % first) >= 8) {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            ops::write(&records().file(), &bad).expect("written");
            assert!(!records().has("//:a") && !records().has("//:b"), "{at}");
        }
        records().save("//:c", &of("c")).expect("written");
        assert_eq!(["//:a", "//:b", "//:c"].map(|label| records().has(label)), [false, false, true]);
    }

    #[test]
    fn replaced_records_do_not_pile_up() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let records = Records::new(dir.path());
        let long = |number: usize| of(&format!("{}{number}", "d".repeat(5000)));
        records.save("//:other", &of("o")).expect("written");
        for number in 0..100 {
            records.save("//:a", &long(number)).expect("written");
        }
        assert!(StatKey::at(&records.file()).expect("there").size < 100_000);
        assert_eq!((records.load("//:a"), records.load("//:other")), (long(99), of("o")));
        assert_eq!(Records::new(dir.path()).load("//:a"), long(99));
    }

    #[test]
    fn only_the_content_that_was_written_is_recognized() {
        let mut record = Record::default();
        record.note(path("a"), &file("a"));
        assert!(record.is_as_written(&path("a"), &file("a")));
        assert!(!record.is_as_written(&path("a"), &file("b")) && !record.is_as_written(&path("b"), &file("a")));
        let executable = Entry::File { digest: Digest::of(b"a"), size: 1, executable: true };
        assert!(!record.is_as_written(&path("a"), &executable));
    }

    #[test]
    fn a_task_is_held_by_one_thread_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let records = Records::new(dir.path());
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = records.lock("//:a").expect("it can be locked");
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0, "two holders at once");
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
