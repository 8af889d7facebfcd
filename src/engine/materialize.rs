//! Makes owned paths on disk equal to a listing. Knows nothing of actions and runs, and decides nothing about ownership.
//!
//! A unit (`dist/**`) is built beside its place, or in the nursery (`fs::nursery`), and exchanged with what is there; single files are renamed into place, and so
//! are those of a unit that also holds committed files. A kill at any point leaves the old output or the new one, and at worst
//! a hidden `.name.drystone-*` beside it or at the root, which no walk lists and the next run in the workspace removes. All of it happens in directories
//! opened beneath the root (`fs::dir`): whoever puts a link in place of one meanwhile leads nothing out of the workspace.
//!
//! Where the file system cannot exchange two names, the old one goes aside before the new one comes, and the next run brings it back if
//! a kill came between. Where a directory cannot be renamed at all, as one of a lower layer of an overlay (a container whose image
//! has outputs), it is made exact file by file: only there a kill may leave some old files and some new ones, for the next run to finish.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::owned::Owned;
use crate::engine::placed::PlacedFile;
use crate::engine::placing::Placing;
use crate::engine::present::{self, Present};
use crate::engine::staging::Staging;
use crate::fs::atomic;
use crate::fs::dir::{Beneath, Dir};
use crate::fs::grain::Grain;
use crate::fs::nursery::{Cot, Nursery};
use crate::fs::ops::{self, FsError};
use crate::fs::stat::StatKey;
use crate::fs::walk::WalkError;
use crate::manifest::model::Materialize;
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
    /// Root of the workspace.
    pub root: &'a Dir,
    /// What the task owns.
    pub owned: &'a Owned<'a>,
    /// Has the contents.
    pub store: &'a Arc<Store>,
    /// Whether files are copies or links.
    pub materialize: Materialize,
    /// Learns first what is done.
    pub placing: &'a Placing,
    /// Where new directories are better made.
    pub nursery: &'a Nursery,
    /// Whether signatures of new files may be believed.
    pub grain: &'a Grain,
    /// Learns what was placed.
    pub placed: RefCell<Vec<PlacedFile>>,
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
    /// Where a path lies in the workspace: its directory, relative to the root, and with its name.
    fn full(&self, path: &RelPath) -> (RelPath, RelPath) {
        let full = self.owned.package.join(path);
        (full.parent().unwrap_or_default(), full)
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
        let mut dirs = Beneath::new(self.root);
        for path in doomed {
            self.remove_own(&mut dirs, path)?;
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
        self.placing.will_write(entries.iter().map(|(path, _)| self.full(path).0))?;
        let mut staging = self.staging(entries.iter().map(|(_, entry)| *entry));
        let mut dirs = Beneath::new(self.root);
        for (path, entry) in entries {
            let (parent, full) = self.full(path);
            let dir = dirs.make(&parent).map_err(|error| present::refusal(self.root, &parent, error))?;
            if self.placing.is_first_in(&parent) {
                atomic::remove_abandoned(dir)?;
            }
            self.place((dir, full.file_name()), path, entry, &mut staging)?;
        }
        Ok(())
    }

    /// Removes one file or link, or a directory if it is empty.
    fn remove_own(&self, dirs: &mut Beneath<'_>, path: &RelPath) -> Result<(), MaterializeError> {
        let (parent, full) = self.full(path);
        let Some(dir) = present::if_reached(self.root, &parent, dirs.open(&parent))? else { return Ok(()) };
        match ops::if_there(dir.stat(full.file_name()))? {
            Some(stat) if stat.is_dir() => remove_if_empty(dir, full.file_name()),
            Some(_) => Ok(dir.remove_file(full.file_name())?),
            None => Ok(()),
        }
    }

    /// Builds the unit beside its place and exchanges the two in one step.
    fn swap(&self, unit: &RelPath, present: &Present, want: &Listing) -> Result<(), MaterializeError> {
        let (parent, full) = self.full(unit);
        let dir = self.make_dir(&parent).map_err(|error| present::refusal(self.root, &parent, error))?;
        let place = (&dir, full.file_name());
        // Once in a run: nobody's temporaries are left there but those of who is killed meanwhile, and the next run sweeps them.
        if self.placing.is_first_in(&parent) {
            atomic::remove_abandoned(&dir)?;
        }
        let staged = atomic::temporary_name(full.file_name());
        if !want.is_empty() && self.swap_from_nursery(unit, &staged, place, (present, want))? == Swapped::Done {
            return Ok(());
        }
        self.placing.will_write(std::iter::once(parent))?;
        if want.is_empty() {
            // Renamed first: a kill must not leave half of it.
            match ops::if_there(dir.rename(full.file_name(), &staged)) {
                Err(error) if error.is_across_file_systems() => return self.put_one_by_one(unit, present, want),
                moved => moved?,
            };
            return Ok(dir.remove_all(&staged)?);
        }
        let built = self.build_and_replace(None, &staged, place, unit, (present, want));
        if !matches!(built, Ok(Swapped::Done)) {
            // The first error is the one worth telling; what is left carries our name and is removed next time.
            drop(dir.remove_all(&staged));
        }
        match built? {
            Swapped::Done => Ok(()),
            Swapped::Fixed => self.put_one_by_one(unit, present, want),
        }
    }

    /// Opens a directory, made if it is not there, as [`Dir::make_beneath`] does; made where that is faster.
    fn make_dir(&self, path: &RelPath) -> Result<Dir, FsError> {
        let opened = self.root.open_beneath(path);
        let Some(parent) = path.parent().filter(|_| opened.as_ref().is_err_and(FsError::is_missing)) else {
            return opened;
        };
        let parent = self.make_dir(&parent)?;
        let name = path.file_name();
        if let Some(cot) = self.cot(&parent, 1) {
            let made = atomic::temporary_name("new");
            if cot.create_dir(&made).and_then(|()| cot.rename_to_new(&made, &parent, name)).is_ok() {
                return parent.open_dir(name);
            }
            drop(cot.remove_all(&made));
        }
        // Somebody else has made it meanwhile, or it has to be made there.
        match parent.create_dir(name) {
            Err(error) if error.cause.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => parent.open_dir(name),
        }
    }

    /// Where to make something that comes to lie in a directory, if that is not the directory itself.
    fn cot(&self, place: &Dir, count: usize) -> Option<Cot<'_>> {
        let announce = || self.placing.will_write(std::iter::once(RelPath::root()));
        self.nursery.take(self.root, place, count, announce)
    }

    /// Builds the unit where files are made faster, and exchanges as [`Destination::swap`] does. [`Swapped::Fixed`] if it cannot come to its place from there: nothing has changed then.
    fn swap_from_nursery(
        &self,
        unit: &RelPath,
        staged: &str,
        place: (&Dir, &str),
        (present, want): (&Present, &Listing),
    ) -> Result<Swapped, MaterializeError> {
        let Some(cot) = self.cot(place.0, want.len()) else { return Ok(Swapped::Fixed) };
        let swapped = self.build_and_replace(Some(&cot), staged, place, unit, (present, want));
        if !matches!(swapped, Ok(Swapped::Done)) {
            drop(cot.remove_all(staged));
        }
        drop(cot);
        if matches!(swapped, Ok(Swapped::Fixed)) {
            self.nursery.close();
        }
        swapped
    }

    /// Builds in the nursery, or else beside the place.
    fn build_and_replace(
        &self,
        cot: Option<&Dir>,
        staged: &str,
        place: (&Dir, &str),
        unit: &RelPath,
        (present, want): (&Present, &Listing),
    ) -> Result<Swapped, MaterializeError> {
        let cradle = cot.unwrap_or(place.0);
        let replace = || match cot {
            Some(cot) => replace_from((cot, staged), place),
            None => self.replace(unit, staged, place),
        };
        if let Some(entry @ (Entry::File { .. } | Entry::Link { .. })) = want.get(unit) {
            let mut staging = self.staging(std::iter::once(entry));
            let stat = staging.make((cradle, staged), unit, entry)?;
            let swapped = replace()?;
            if swapped == Swapped::Done {
                self.note(unit, entry, stat.and_then(|_| staging.signature(place, entry)));
            }
            return Ok(swapped);
        }
        let signed = self.build((cradle, staged), place, unit, &present.below(unit), want)?;
        let swapped = replace()?;
        if swapped == Swapped::Done {
            signed.into_iter().for_each(|(path, entry, stat)| self.note(path, entry, Some(stat)));
        }
        Ok(swapped)
    }

    /// Puts what was built in its place.
    fn replace(&self, unit: &RelPath, staged: &str, (dir, name): (&Dir, &str)) -> Result<Swapped, MaterializeError> {
        if !dir.has(name) {
            dir.rename(staged, name)?;
            return Ok(Swapped::Done);
        }
        match dir.exchange(staged, name) {
            Ok(()) => dir.remove_all(staged)?,
            Err(error) if error.is_unsupported() => return self.replace_in_two_steps(unit, staged, (dir, name)),
            Err(error) if error.is_across_file_systems() => return Ok(Swapped::Fixed),
            Err(error) => return Err(error.into()),
        }
        Ok(Swapped::Done)
    }

    fn replace_in_two_steps(
        &self,
        unit: &RelPath,
        staged: &str,
        (dir, name): (&Dir, &str),
    ) -> Result<Swapped, MaterializeError> {
        let aside = atomic::temporary_name(name);
        let (parent, full) = self.full(unit);
        self.placing.will_move(full, parent.child(&aside))?;
        match dir.rename(name, &aside) {
            Err(error) if error.is_across_file_systems() => return Ok(Swapped::Fixed),
            moved => moved?,
        }
        if let Err(error) = dir.rename(staged, name) {
            dir.rename(&aside, name)?;
            return Err(error.into());
        }
        self.placing.has_moved(self.owned.package.join(unit))?;
        dir.remove_all(&aside)?;
        Ok(Swapped::Done)
    }

    /// Builds a directory. Gives the files that are new, with their signatures: that of one that was linked
    /// over changes once more when its old name goes.
    fn build<'w>(
        &self,
        (cradle, staged): (&Dir, &str),
        (dir, name): (&Dir, &str),
        unit: &RelPath,
        have: &Listing,
        want: &'w Listing,
    ) -> Result<Vec<(&'w RelPath, &'w Entry, StatKey)>, MaterializeError> {
        cradle.create_dir(staged)?;
        let (new, old) = (cradle.open_dir(staged)?, dir.open_dir(name).ok());
        let (mut new_dirs, mut old_dirs) = (Beneath::new(&new), old.as_ref().map(Beneath::new));
        // Files that are already right are linked over: the old directory goes, so no file has two names afterwards.
        let kept: BTreeMap<(&Digest, bool), &RelPath> = have
            .iter()
            .filter_map(|(path, entry)| match entry {
                Entry::File { digest, executable, .. } => Some(((digest, *executable), path)),
                _ => None,
            })
            .collect();
        let mut used = BTreeSet::new();
        let mut staging = self.staging(want.values());
        let mut signed = Vec::new();
        for (path, entry) in want {
            let below = path.strip_prefix(unit).unwrap_or_default();
            let (Entry::File { .. } | Entry::Link { .. }, Some(parent)) = (entry, below.parent()) else {
                new_dirs.make(&below)?;
                continue;
            };
            let into = new_dirs.make(&parent)?;
            let old = match entry {
                Entry::File { digest, executable, .. } => kept.get(&(digest, *executable)),
                _ => None,
            };
            let mut link_over = |old: &RelPath| {
                let old = old.strip_prefix(unit)?;
                let from = old_dirs.as_mut()?.open(&old.parent()?).ok()?;
                from.hard_link(old.file_name(), into, below.file_name()).ok()
            };
            if old.filter(|old| used.insert((**old).clone())).and_then(|old| link_over(old)).is_none() {
                let stat = staging.make((into, below.file_name()), path, entry)?;
                signed.extend(stat.map(|stat| (path, entry, stat)));
            }
        }
        Ok(signed)
    }

    /// Makes entries as they are to be here.
    fn staging<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> Staging<'_> {
        Staging::new(self.store, self.grain, self.materialize, entries)
    }

    /// Notes files that are in their places, with signatures that may be believed.
    fn note(&self, path: &RelPath, entry: &Entry, stat: Option<StatKey>) {
        if let (Entry::File { digest, .. }, Some(stat)) = (entry, stat) {
            let path = self.owned.package.join(path);
            self.placed.borrow_mut().push(PlacedFile { path, stat, digest: *digest });
        }
    }

    /// A unit with committed files in it: everything else in it becomes exact, file by file, and they are not touched.
    fn put_one_by_one(&self, unit: &RelPath, present: &Present, want: &Listing) -> Result<(), MaterializeError> {
        let mut dirs = Beneath::new(self.root);
        let mut emptied = BTreeSet::new();
        let extra_dirs =
            present.below(unit).into_iter().filter(|(_, entry)| *entry == Entry::Dir).map(|(path, _)| path);
        let extra: Vec<RelPath> = present.files_below(unit).cloned().chain(extra_dirs).collect();
        for path in extra.iter().filter(|path| !want.contains_key(*path)) {
            self.remove_own(&mut dirs, path)?;
            let mut above = path.parent();
            while let Some(dir) = above.filter(|dir| dir.starts_with(unit)) {
                above = dir.parent();
                emptied.insert(dir);
            }
        }
        // Deepest first.
        for path in emptied.iter().rev().filter(|dir| !want.contains_key(*dir)) {
            let (parent, full) = self.full(path);
            if let Some(dir) = present::if_reached(self.root, &parent, dirs.open(&parent))? {
                remove_if_empty(dir, full.file_name())?;
            }
        }
        self.place_all(want.iter().filter(|(path, entry)| present.listing.get(*path) != Some(*entry)))
    }

    fn place(
        &self,
        (dir, name): (&Dir, &str),
        path: &RelPath,
        entry: &Entry,
        staging: &mut Staging<'_>,
    ) -> Result<(), MaterializeError> {
        let is_dir = dir.stat(name).is_ok_and(|stat| stat.is_dir());
        if *entry == Entry::Dir {
            if !is_dir {
                dir.remove_file(name)?;
                dir.create_dir(name)?;
            }
            return Ok(());
        }
        if is_dir {
            remove_if_empty(dir, name)?;
            if dir.has(name) {
                return Err(MaterializeError::InTheWay(self.owned.package.join(path)));
            }
        }
        let staged = atomic::temporary_name(name);
        let made = staging.make((dir, &staged), path, entry);
        let placed = made.and_then(|stat| Ok(dir.rename(&staged, name).map(|()| stat)?));
        match placed {
            Ok(stat) => self.note(path, entry, stat.and_then(|_| staging.signature((dir, name), entry))),
            Err(error) => {
                drop(dir.remove_file(&staged));
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Puts what was built in another directory in its place.
fn replace_from((cot, staged): (&Dir, &str), (dir, name): (&Dir, &str)) -> Result<Swapped, MaterializeError> {
    let is_there = dir.has(name);
    let moved = if is_there { cot.exchange_with(staged, dir, name) } else { cot.rename_to(staged, dir, name) };
    match moved {
        Err(error) if error.is_unsupported() || error.is_across_file_systems() => return Ok(Swapped::Fixed),
        moved => moved?,
    }
    if is_there {
        cot.remove_all(staged)?;
    }
    Ok(Swapped::Done)
}

fn remove_if_empty(dir: &Dir, name: &str) -> Result<(), MaterializeError> {
    let entries = ops::if_there(dir.open_dir(name).and_then(|dir| dir.list()))?;
    if entries.is_some_and(|entries| entries.is_empty()) { Ok(dir.remove_dir(name)?) } else { Ok(()) }
}
