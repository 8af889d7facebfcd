//! What materializations wrote, per worktree and task: only that may be removed again. Decides nothing.
//!
//! One file per task in the state directory of the workspace: magic (8 bytes), label, `u64` count of directories, the
//! directories, `u64` count of paths, per path its text and the digest of what was put there, then BLAKE3 over everything
//! before. Texts are length-prefixed, integers little-endian, paths relative to the workspace. A damaged file is an empty
//! record: then files are left where they are, never removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::fs::atomic::{self, Durability};
use crate::fs::lock::{self, Lock, Sharing};
use crate::fs::ops::{self, FsError};

const MAGIC: [u8; 8] = *b"dryst\0w1";

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

    fn decode(bytes: &[u8], label: Option<&str>) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::sealed(bytes)?;
        let magic = decoder.bytes()?;
        let found = decoder.text("label")?;
        if magic != MAGIC || label.is_some_and(|label| label != found) {
            return Err(DecodeError::Invalid { what: "header" });
        }
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
        Ok(record)
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

/// The records of a worktree.
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// Those in the state directory of a workspace.
    pub fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("written") }
    }

    /// Where the record of a task lies.
    pub fn file(&self, label: &str) -> PathBuf {
        self.dir.join(Digest::of(label.as_bytes()).short())
    }

    /// Whether anything is recorded of a task. Cost: one `stat`.
    pub fn has(&self, label: &str) -> bool {
        ops::exists(&self.file(label))
    }

    /// What a task wrote; nothing if its record cannot be read.
    pub fn load(&self, label: &str) -> Record {
        let bytes = ops::read(&self.file(label)).ok();
        bytes.and_then(|bytes| Record::decode(&bytes, Some(label)).ok()).unwrap_or_default()
    }

    /// Whether any task ever made a directory exact that the path lies in: tasks are renamed. Cost: reads every record.
    pub fn any_has_dir_of(&self, path: &RelPath) -> bool {
        let files = ops::read_dir(&self.dir).unwrap_or_default();
        let records = files.iter().filter_map(|file| {
            let bytes = ops::read(&self.dir.join(&file.name)).ok()?;
            Record::decode(&bytes, None).ok()
        });
        records.into_iter().any(|record| record.has_dir_of(path))
    }

    /// Replaces the record of a task.
    pub fn save(&self, label: &str, record: &Record) -> Result<(), FsError> {
        ops::create_dir_all(&self.dir)?;
        // Not synced: after a power cut the checksum tells, and nothing is removed.
        atomic::write(&self.file(label), &record.encode(label), Durability::Relaxed)
    }

    /// Waits until no other thread or process places outputs of the task in this worktree.
    ///
    /// Whoever holds it works alone: it must not wait for the CPU pool, whose threads wait here, too.
    pub fn lock(&self, label: &str) -> Result<Lock, FsError> {
        lock::wait(&self.lock_file(label)?, Sharing::Exclusive)
    }

    /// The same without waiting; `None` if somebody is in the way.
    pub fn try_lock(&self, label: &str) -> Result<Option<Lock>, FsError> {
        lock::attempt(&self.lock_file(label)?, Sharing::Exclusive)
    }

    fn lock_file(&self, label: &str) -> Result<PathBuf, FsError> {
        ops::create_dir_all(&self.dir)?;
        let slot = Digest::of(label.as_bytes()).as_bytes()[0] % LOCKS;
        Ok(self.dir.join(format!("lock-{slot}")))
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
            assert!(Record::decode(&whole[..cut], None).is_err(), "{cut}");
            let mut flipped = whole.clone();
            flipped[cut] ^= 1;
            assert!(Record::decode(&flipped, None).is_err(), "{cut}");
        }
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
