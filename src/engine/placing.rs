//! Where outputs are being put in place, on the disk meanwhile: what a killed run left in the tree goes when the next one begins there.
//!
//! One file per announcement in `placing/` in the state directory of the workspace, locked by who made it for as long as it holds: magic
//! (8 bytes), process id, number of its first temporary, directories that get temporaries, and pairs of a place and the
//! temporary that has what lay there; then BLAKE3 over everything before. A damaged one announces nothing: what it was to say was not
//! begun.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::path::RelPath;
use crate::fs::atomic::{self, Series};
use crate::fs::dir::Dir;
use crate::fs::lock::{self, Lock, Sharing};
use crate::fs::ops::{self, FsError};

const MAGIC: [u8; 8] = *b"dryst\0m1";

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
}

/// What one materialization has announced; taken back when dropped.
#[derive(Debug)]
pub struct Placing {
    dir: PathBuf,
    dirs: RefCell<BTreeSet<RelPath>>,
    files: RefCell<Vec<(PathBuf, Lock)>>,
}

impl Placing {
    /// Nothing yet.
    pub fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("placing"), dirs: RefCell::default(), files: RefCell::default() }
    }

    /// Announces temporaries in directories of the workspace. Cost: one small file, if any of them is new.
    pub fn will_write(&self, dirs: impl Iterator<Item = RelPath>) -> Result<(), FsError> {
        let dirs: BTreeSet<RelPath> = {
            let mut known = self.dirs.borrow_mut();
            dirs.filter(|dir| known.insert(dir.clone())).collect()
        };
        if dirs.is_empty() { Ok(()) } else { self.announce(dirs, None) }
    }

    /// Announces that what lies at a place goes aside, until something new lies there.
    pub fn will_move(&self, place: RelPath, aside: RelPath) -> Result<(), FsError> {
        self.announce(BTreeSet::new(), Some((place, aside)))
    }

    fn announce(&self, dirs: BTreeSet<RelPath>, aside: Option<(RelPath, RelPath)>) -> Result<(), FsError> {
        ops::create_dir_all(&self.dir)?;
        let path = atomic::temporary_beside(&self.dir.join("at"));
        // Whoever sweeps may come between the making and the locking, and take it away.
        let lock = lock::wait_named(&path, Sharing::Exclusive)?;
        ops::write(&path, &Announced { series: atomic::own_series(), dirs, aside }.encode())?;
        self.files.borrow_mut().push((path, lock));
        Ok(())
    }
}

impl Drop for Placing {
    fn drop(&mut self) {
        for (path, _lock) in self.files.get_mut().drain(..) {
            // What stays is swept by the next run, which finds nothing to do.
            drop(ops::remove_file(&path));
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
            let announced = Announced::decode(&ops::read(&path)?).ok();
            abandoned.push((path, lock, announced));
        }
    }
    let announced = || abandoned.iter().filter_map(|(_, _, announced)| announced.as_ref());
    // Through a link nothing was written, and nothing is looked for.
    let open = |dir: &RelPath| match root.open_beneath(dir) {
        Err(error) if error.is_missing() || error.is_no_directory() => Ok(None),
        opened => opened.map(Some),
    };
    // Before anything goes: what is aside has the name of a temporary.
    for (place, aside) in announced().filter_map(|announced| announced.aside.as_ref()) {
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
        placing.files.borrow_mut().clear();
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
        placing.files.borrow_mut().clear();
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
