//! Where outputs are being put in place, on the disk meanwhile: what a killed run left in the tree goes when the next one begins there.
//!
//! One file per process in `placing/` in the state directory of the workspace, locked by who made it for as long as it works: announcements,
//! each after its length (`u64`) and sealed with BLAKE3 over all of it: magic (8 bytes), process id, number of its first temporary,
//! directories that get temporaries, and a place with the temporary that has what lay there, or with itself once something new does. They are appended, each before what
//! it announces is begun, and none is taken back before all of the work is over: a directory is announced once, however often something is
//! put there, and to look there for what is not there does no harm. What follows a damaged one announces nothing: what it was to say was
//! not begun.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::path::RelPath;
use crate::engine::session::held;
use crate::fs::atomic::{self, Series};
use crate::fs::dir::Dir;
use crate::fs::lock::{self, Lock, Sharing};
use crate::fs::ops::{self, FsError};

const MAGIC: [u8; 8] = *b"dryst\0m2";

/// What is announced of one piece of work.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Announced {
    series: Series,
    /// Relative to the workspace.
    dirs: BTreeSet<RelPath>,
    /// A place, and where what lay there is until something new does.
    aside: Option<(RelPath, RelPath)>,
}

impl Announced {
    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.bytes(&MAGIC).u64(u64::from(self.series.process)).u64(self.series.first);
        encoder.u64(self.dirs.len() as u64);
        for dir in &self.dirs {
            encoder.bytes(dir.as_str().as_bytes());
        }
        encoder.u64(u64::from(self.aside.is_some()));
        if let Some((place, aside)) = &self.aside {
            encoder.bytes(place.as_str().as_bytes()).bytes(aside.as_str().as_bytes());
        }
        encoder.into_sealed()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::sealed(bytes)?;
        if decoder.bytes()? != MAGIC {
            return Err(DecodeError::Invalid { what: "header" });
        }
        let path = |decoder: &mut Decoder<'_>| {
            RelPath::parse(decoder.text("path")?).map_err(|_| DecodeError::Invalid { what: "path" })
        };
        let process = u32::try_from(decoder.u64()?).map_err(|_| DecodeError::Invalid { what: "process" })?;
        let series = Series { process, first: decoder.u64()? };
        let dirs = (0..decoder.u64()?).map(|_| path(&mut decoder)).collect::<Result<_, _>>()?;
        let aside = match decoder.u64()? {
            0 => None,
            _ => Some((path(&mut decoder)?, path(&mut decoder)?)),
        };
        decoder.finish()?;
        Ok(Self { series, dirs, aside })
    }

    /// Those of a file, as far as it is whole.
    fn decode_all(bytes: &[u8]) -> Vec<Self> {
        let mut decoder = Decoder::new(bytes);
        let next = || decoder.bytes().and_then(Self::decode).ok();
        std::iter::from_fn(next).collect()
    }
}

/// What this process has announced; taken back when dropped.
#[derive(Debug)]
pub struct Placing {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Directories that are announced.
    dirs: HashSet<RelPath>,
    /// Directories that were asked about.
    visited: HashSet<RelPath>,
    /// What takes the next announcement.
    open: Option<File>,
    /// Those in which one could be written in part only. What they told before holds.
    broken: Vec<File>,
}

/// A file of announcements.
#[derive(Debug)]
struct File {
    path: PathBuf,
    lock: Lock,
}

impl Placing {
    /// Nothing yet.
    pub fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("placing"), state: Mutex::default() }
    }

    /// Whether it is asked about a directory for the first time.
    pub fn is_first_in(&self, dir: &RelPath) -> bool {
        let mut state = held(&self.state);
        !state.visited.contains(dir) && state.visited.insert(dir.clone())
    }

    /// Announces temporaries in directories of the workspace. Cost: one small write, if any of them is new.
    pub fn will_write(&self, dirs: impl Iterator<Item = RelPath>) -> Result<(), FsError> {
        let mut state = held(&self.state);
        let new: BTreeSet<RelPath> = dirs.filter(|dir| !state.dirs.contains(dir)).collect();
        if !new.is_empty() {
            self.announce(&mut state, new.clone(), None)?;
            state.dirs.extend(new.iter().cloned());
        }
        Ok(())
    }

    /// Announces that what lies at a place goes aside, until something new lies there.
    pub fn will_move(&self, place: RelPath, aside: RelPath) -> Result<(), FsError> {
        self.announce(&mut held(&self.state), BTreeSet::new(), Some((place, aside)))
    }

    /// Announces that something new lies at a place: what went aside from there does not come back.
    pub fn has_moved(&self, place: RelPath) -> Result<(), FsError> {
        self.will_move(place.clone(), place)
    }

    fn announce(
        &self,
        state: &mut State,
        dirs: BTreeSet<RelPath>,
        aside: Option<(RelPath, RelPath)>,
    ) -> Result<(), FsError> {
        let file = match state.open.take() {
            Some(file) => file,
            None => self.begin()?,
        };
        let mut encoder = Encoder::new();
        encoder.bytes(&Announced { series: atomic::own_series(), dirs, aside }.encode());
        let written = ops::write_all(file.lock.file(), &file.path, encoder.as_slice());
        match written {
            Ok(()) => state.open = Some(file),
            // What comes after half an announcement would not be read.
            Err(_) => state.broken.push(file),
        }
        written
    }

    fn begin(&self) -> Result<File, FsError> {
        ops::create_dir_all(&self.dir)?;
        let path = atomic::temporary_beside(&self.dir.join("at"));
        // Whoever sweeps may come between the making and the locking, and take it away.
        let lock = lock::wait_named(&path, Sharing::Exclusive)?;
        Ok(File { path, lock })
    }
}

impl Drop for Placing {
    fn drop(&mut self) {
        let state = std::mem::take(&mut *held(&self.state));
        for File { path, lock } in state.broken.into_iter().chain(state.open) {
            // What stays is swept by the next run, which finds nothing to do.
            drop(ops::remove_file(&path));
            drop(lock);
        }
    }
}

/// Finishes what killed runs of this workspace began: their temporaries go, and an output that had gone aside comes back. What cannot be
/// swept now is left to a later run. Cost: one listing.
pub fn sweep(state_dir: &Path, root: &Dir) {
    if let Err(error) = attempt_sweep(&state_dir.join("placing"), root) {
        tracing::debug!(%error, "what a killed run left is not swept");
    }
}

fn attempt_sweep(dir: &Path, root: &Dir) -> Result<(), FsError> {
    let mut abandoned = Vec::new();
    for entry in ops::if_there(ops::read_dir(dir))?.unwrap_or_default() {
        let path = dir.join(&entry.name);
        if let Some(lock) = lock::attempt_named(&path, Sharing::Exclusive)? {
            let announced = Announced::decode_all(&ops::read(&path)?);
            abandoned.push((path, lock, announced));
        }
    }
    let announced = || abandoned.iter().flat_map(|(_, _, announced)| announced);
    // Through a link nothing was written, and nothing is looked for.
    let open = |dir: &RelPath| match root.open_beneath(dir) {
        Err(error) if error.is_missing() || error.is_no_directory() => Ok(None),
        opened => opened.map(Some),
    };
    // Of one place the last announcement of a process counts.
    let mut moved: BTreeMap<(u32, u64, &RelPath), &RelPath> = BTreeMap::new();
    for Announced { series, aside, .. } in announced() {
        moved.extend(aside.iter().map(|(place, aside)| ((series.process, series.first, place), aside)));
    }
    // Before anything goes: what is aside has the name of a temporary.
    for ((_, _, place), aside) in moved.into_iter().filter(|((_, _, place), aside)| place != aside) {
        let Some(parent) = place.parent().filter(|parent| aside.parent().as_ref() == Some(parent)) else { continue };
        if let Some(dir) = open(&parent)?.filter(|dir| !dir.has(place.file_name())) {
            ops::if_there(dir.rename(aside.file_name(), place.file_name()))?;
        }
    }
    for announced in announced() {
        let of_aside = announced.aside.as_ref().and_then(|(place, _)| place.parent());
        for dir in announced.dirs.iter().cloned().chain(of_aside) {
            if let Some(dir) = open(&dir)? {
                atomic::remove_series(&dir, announced.series)?;
            }
        }
    }
    abandoned.iter().try_for_each(|(path, _, _)| ops::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    #[test]
    fn what_a_killed_process_announced_is_swept_and_what_a_living_one_did_is_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (state, root) = (dir.path().join("state"), dir.path().join("root"));
        ops::create_dir_all(&root.join("a/b")).expect("a temporary directory");
        let opened = Dir::open(&root).expect("a directory");
        let placing = Placing::new(&state);
        placing.will_write([rel("a"), rel("gone")].into_iter()).expect("it is announced");
        let ours = atomic::temporary_beside(&root.join("a/dist"));
        let other = root.join("a/.dist.drystone-1-1");
        let aside = atomic::temporary_beside(&root.join("out"));
        let name = aside.file_name().and_then(|name| name.to_str()).expect("text");
        placing.will_move(rel("out"), rel(name)).expect("it is announced");
        placing.will_write([RelPath::root()].into_iter()).expect("it is announced");
        for path in [&ours, &other, &aside] {
            ops::create_dir_all(&path.join("x")).expect("a temporary directory");
        }
        let all = || [&ours, &other, &aside, &root.join("out")].map(|path| ops::exists(path));
        sweep(&state, &opened);
        assert_eq!(all(), [true, true, true, false], "it lives");
        // As a kill does: the locks are free, the files stay.
        drop(std::mem::take(&mut *held(&placing.state)));
        sweep(&state, &opened);
        assert_eq!(all(), [false, true, false, true]);
        assert!(ops::read_dir(&state.join("placing")).expect("a directory").is_empty());
        sweep(&state, &opened);
        assert_eq!(all(), [false, true, false, true]);
    }

    #[test]
    fn nothing_is_swept_through_a_link_or_on_the_word_of_a_damaged_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (state, root) = (dir.path().join("state"), dir.path().join("root"));
        ops::create_dir_all(&root).expect("a temporary directory");
        let opened = Dir::open(&root).expect("a directory");
        let placing = Placing::new(&state);
        placing.will_write([rel("a")].into_iter()).expect("it is announced");
        drop(std::mem::take(&mut *held(&placing.state)));
        let outside = atomic::temporary_beside(&dir.path().join("outside/dist"));
        ops::create_dir_all(&outside).expect("a temporary directory");
        ops::symlink("../outside", &root.join("a")).expect("a temporary link");
        sweep(&state, &opened);
        assert!(ops::exists(&outside));
        let series = atomic::own_series();
        let aside = Some((rel("x"), rel(".x.drystone-1-1")));
        for announced in [None, aside].map(|aside| Announced { series, dirs: [rel("a")].into(), aside }) {
            let bytes = announced.encode();
            assert_eq!(Announced::decode(&bytes), Ok(announced));
            for end in 0..bytes.len() {
                assert!(Announced::decode(&bytes[..end]).is_err(), "cut at {end}");
            }
        }
    }
}
