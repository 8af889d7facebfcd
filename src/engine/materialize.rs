//! Makes owned paths on disk equal to a listing. Knows nothing of actions and runs, and decides nothing about ownership.
//!
//! A unit (`dist/**`) is built beside its place and exchanged with what is there; single files are renamed into place, and so
//! are those of a unit that also holds committed files. A kill at any point leaves the old output or the new one, and at worst
//! a hidden `.name.drystone-*` beside it, which no walk lists and the next run in the workspace removes.
//!
//! Where the file system cannot exchange two names, the old one goes aside before the new one comes, and the next run brings it back if
//! a kill came between. Where a directory cannot be renamed at all, as one of a lower layer of an overlay (a container whose image
//! has outputs), it is made exact file by file: only there a kill may leave some old files and some new ones, for the next run to finish.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::owned::Owned;
use crate::engine::placing::Placing;
use crate::engine::present::{self, Present};
use crate::fs::ops::{self, FsError};
use crate::fs::walk::WalkError;
use crate::fs::{atomic, link};
use crate::store::{Store, StoreError};

/// Why outputs could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum MaterializeError {
    /// A directory above an output is a link: writing through it could leave the workspace.
    #[error("`{0}` is a symbolic link; outputs are never written through links")]
    ThroughLink(RelPath),
    /// Something that is no directory is in the way.
    #[error("`{0}` is not a directory, so no output can be placed beneath it")]
    NotADirectory(RelPath),
    /// A directory with files of someone else is in the way.
    #[error("`{0}` is a directory that holds other files, so no output can be placed there")]
    InTheWay(RelPath),
    /// Someone else writes there all the time.
    #[error("outputs in `{0}` keep changing while they are put in place")]
    Restless(RelPath),
    /// The store no longer has a blob of the result; it must be made again.
    #[error("the content of `{0}` is no longer in the store")]
    Vanished(RelPath),
    /// What is there could not be listed.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MaterializeError {
    /// Whether a person has to change the tree before it can go on.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::ThroughLink(_) | Self::NotADirectory(_) | Self::InTheWay(_) | Self::Restless(_) => true,
            Self::Walk(error) => matches!(error, WalkError::NotUtf8 { .. }),
            Self::Vanished(_) | Self::Fs(_) | Self::Store(_) => false,
        }
    }
}

/// Where outputs go, and from where.
pub struct Destination<'a> {
    /// Root of the workspace on disk.
    pub root: &'a Path,
    /// What the task owns.
    pub owned: &'a Owned<'a>,
    /// Has the contents.
    pub store: &'a Store,
    /// Learns first what is done.
    pub placing: &'a Placing,
}

/// What became of a directory that was built beside its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Swapped {
    /// It is in its place, and what lay there is gone.
    Done,
    /// What lies there cannot be renamed, and is as it was.
    Fixed,
}

impl Destination<'_> {
    fn disk(&self, path: &RelPath) -> PathBuf {
        self.root.join(self.owned.package.join(path).as_str())
    }

    /// Makes units equal to `wanted`; beside them adds and replaces what differs, and removes `doomed` alone.
    ///
    /// Cost: the files that differ, plus one link per file of a unit in which anything differs.
    pub fn put(&self, present: &Present, wanted: &Listing, doomed: &BTreeSet<RelPath>) -> Result<(), MaterializeError> {
        for unit in &self.owned.units {
            let (have, want) = (present.below(unit), present::below(wanted, unit));
            if have == want && !present.untold.iter().any(|path| path.starts_with(unit)) {
                continue;
            }
            if self.owned.holds_committed(unit) {
                self.put_one_by_one(unit, present, &want)?;
            } else {
                self.swap(unit, present, &want)?;
            }
        }
        for path in doomed {
            self.remove_own(path)?;
        }
        let single = |path: &RelPath| self.owned.unit_of(path).is_none();
        let differing =
            wanted.iter().filter(|(path, entry)| single(path) && present.listing.get(*path) != Some(*entry));
        self.place_all(differing)
    }

    /// Adds or replaces single files; nothing is removed.
    pub fn place_all<'e>(
        &self,
        entries: impl Iterator<Item = (&'e RelPath, &'e Entry)>,
    ) -> Result<(), MaterializeError> {
        let entries: Vec<(&RelPath, &Entry)> = entries.collect();
        self.placing.will_write(entries.iter().filter_map(|(path, _)| self.owned.package.join(path).parent()))?;
        let mut swept = BTreeSet::new();
        for (path, entry) in entries {
            self.make_parents(path)?;
            let at = self.disk(path);
            if let Some(dir) = at.parent().filter(|dir| swept.insert(dir.to_path_buf())) {
                atomic::remove_abandoned(dir)?;
            }
            self.place(&at, path, entry)?;
        }
        Ok(())
    }

    /// Removes one file or link, or a directory if it is empty.
    fn remove_own(&self, path: &RelPath) -> Result<(), MaterializeError> {
        present::refuse_links_above(self.root, &self.owned.package.join(path))?;
        let at = self.disk(path);
        match ops::if_there(ops::symlink_metadata(&at))? {
            Some(meta) if meta.is_dir() => remove_if_empty(&at),
            Some(_) => Ok(ops::remove_file(&at)?),
            None => Ok(()),
        }
    }

    /// Creates the directories above an output, refusing links on the way.
    fn make_parents(&self, path: &RelPath) -> Result<(), MaterializeError> {
        let full = self.owned.package.join(path);
        let mut here = RelPath::root();
        let Some(parent) = full.parent() else { return Ok(()) };
        for part in parent.components() {
            here = here.child(part);
            let disk = self.root.join(here.as_str());
            match ops::if_there(ops::symlink_metadata(&disk))? {
                None => ops::create_dir(&disk).or_else(|error| if ops::exists(&disk) { Ok(()) } else { Err(error) })?,
                Some(meta) if meta.is_symlink() => return Err(MaterializeError::ThroughLink(here)),
                Some(meta) if !meta.is_dir() => return Err(MaterializeError::NotADirectory(here)),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Builds the unit beside its place and exchanges the two in one step.
    fn swap(&self, unit: &RelPath, present: &Present, want: &Listing) -> Result<(), MaterializeError> {
        self.make_parents(unit)?;
        let place = self.disk(unit);
        self.placing.will_write(self.owned.package.join(unit).parent().into_iter())?;
        if let Some(dir) = place.parent() {
            atomic::remove_abandoned(dir)?;
        }
        let staged = atomic::temporary_beside(&place);
        if want.is_empty() {
            // Renamed first: a kill must not leave half of it.
            match ops::if_there(ops::rename(&place, &staged)) {
                Err(error) if error.is_across_file_systems() => return self.put_one_by_one(unit, present, want),
                moved => moved?,
            };
            return Ok(ops::remove_all(&staged)?);
        }
        let built = (|| {
            match want.get(unit) {
                Some(entry @ (Entry::File { .. } | Entry::Link { .. })) => self.stage(&staged, unit, entry)?,
                _ => self.build(&staged, unit, &present.below(unit), want)?,
            }
            self.replace(unit, &staged, &place)
        })();
        if !matches!(built, Ok(Swapped::Done)) {
            // The first error is the one worth telling; what is left carries our name and is removed next time.
            drop(ops::remove_all(&staged));
        }
        match built? {
            Swapped::Done => Ok(()),
            Swapped::Fixed => self.put_one_by_one(unit, present, want),
        }
    }

    /// Puts what was built in its place.
    fn replace(&self, unit: &RelPath, staged: &Path, place: &Path) -> Result<Swapped, MaterializeError> {
        if !ops::exists(place) {
            ops::rename(staged, place)?;
            return Ok(Swapped::Done);
        }
        match ops::exchange(staged, place) {
            Ok(()) => ops::remove_all(staged)?,
            Err(error) if error.is_unsupported() => return self.replace_in_two_steps(unit, staged, place),
            Err(error) if error.is_across_file_systems() => return Ok(Swapped::Fixed),
            Err(error) => return Err(error.into()),
        }
        Ok(Swapped::Done)
    }

    fn replace_in_two_steps(&self, unit: &RelPath, staged: &Path, place: &Path) -> Result<Swapped, MaterializeError> {
        let aside = atomic::temporary_beside(place);
        let full = self.owned.package.join(unit);
        let name = aside.file_name().and_then(|name| name.to_str()).expect("the name of an output is UTF-8");
        self.placing.will_move(full.clone(), full.parent().unwrap_or_default().child(name))?;
        match ops::rename(place, &aside) {
            Err(error) if error.is_across_file_systems() => return Ok(Swapped::Fixed),
            moved => moved?,
        }
        if let Err(error) = ops::rename(staged, place) {
            ops::rename(&aside, place)?;
            return Err(error.into());
        }
        ops::remove_all(&aside)?;
        Ok(Swapped::Done)
    }

    fn build(&self, staged: &Path, unit: &RelPath, have: &Listing, want: &Listing) -> Result<(), MaterializeError> {
        ops::create_dir(staged)?;
        let mut made: BTreeSet<PathBuf> = BTreeSet::new();
        // Files that are already right are linked over: the old directory goes, so no file has two names afterwards.
        let kept: BTreeMap<(&Digest, bool), &RelPath> = have
            .iter()
            .filter_map(|(path, entry)| match entry {
                Entry::File { digest, executable, .. } => Some(((digest, *executable), path)),
                _ => None,
            })
            .collect();
        let mut used = BTreeSet::new();
        for (path, entry) in want {
            let below = path.strip_prefix(unit).unwrap_or_default();
            let at = staged.join(below.as_str());
            if let Some(parent) = at.parent()
                && made.insert(parent.to_owned())
            {
                ops::create_dir_all(parent)?;
            }
            let old = match entry {
                Entry::File { digest, executable, .. } => kept.get(&(digest, *executable)),
                _ => None,
            };
            let old = old.filter(|old| used.insert((**old).clone()));
            if old.is_none_or(|old| link::hard_link(&self.disk(old), &at).is_err()) {
                self.stage(&at, path, entry)?;
            }
        }
        Ok(())
    }

    /// Makes one entry where nothing is yet.
    fn stage(&self, at: &Path, path: &RelPath, entry: &Entry) -> Result<(), MaterializeError> {
        match entry {
            Entry::Dir => ops::create_dir_all(at)?,
            Entry::Link { target } => ops::symlink(target, at)?,
            Entry::File { digest, size, executable } => {
                if !self.store.write_to(digest, *size, at, *executable)? {
                    return Err(MaterializeError::Vanished(path.clone()));
                }
            }
        }
        Ok(())
    }

    /// A unit with committed files in it: everything else in it becomes exact, file by file, and they are not touched.
    fn put_one_by_one(&self, unit: &RelPath, present: &Present, want: &Listing) -> Result<(), MaterializeError> {
        present::refuse_links_above(self.root, &self.owned.package.join(unit))?;
        let mut emptied = BTreeSet::new();
        let extra_dirs =
            present.below(unit).into_iter().filter(|(_, entry)| *entry == Entry::Dir).map(|(path, _)| path);
        let extra: Vec<RelPath> = present.files_below(unit).cloned().chain(extra_dirs).collect();
        for path in extra.iter().filter(|path| !want.contains_key(*path)) {
            self.remove_own(path)?;
            let mut above = path.parent();
            while let Some(dir) = above.filter(|dir| dir.starts_with(unit)) {
                above = dir.parent();
                emptied.insert(dir);
            }
        }
        // Deepest first.
        for dir in emptied.iter().rev().filter(|dir| !want.contains_key(*dir)) {
            remove_if_empty(&self.disk(dir))?;
        }
        self.place_all(want.iter().filter(|(path, entry)| present.listing.get(*path) != Some(*entry)))
    }

    fn place(&self, at: &Path, path: &RelPath, entry: &Entry) -> Result<(), MaterializeError> {
        let is_dir = ops::symlink_metadata(at).is_ok_and(|meta| meta.is_dir());
        if *entry == Entry::Dir {
            if !is_dir {
                ops::remove_file(at)?;
                ops::create_dir(at)?;
            }
            return Ok(());
        }
        if is_dir {
            remove_if_empty(at)?;
            if ops::exists(at) {
                return Err(MaterializeError::InTheWay(self.owned.package.join(path)));
            }
        }
        let staged = atomic::temporary_beside(at);
        let placed = self.stage(&staged, path, entry).and_then(|()| Ok(ops::rename(&staged, at)?));
        if placed.is_err() {
            drop(ops::remove_file(&staged));
        }
        placed
    }
}

fn remove_if_empty(dir: &Path) -> Result<(), MaterializeError> {
    let is_empty = ops::if_there(ops::read_dir(dir))?.is_some_and(|entries| entries.is_empty());
    if is_empty { Ok(ops::remove_dir(dir)?) } else { Ok(()) }
}
