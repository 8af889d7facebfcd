//! What lies on disk where a task owns paths, and whether it is still that. Writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::materialize::MaterializeError;
use crate::engine::owned::Owned;
use crate::fs::dir::{Beneath, Dir};
use crate::fs::ops::{self, FsError, Kind};
use crate::fs::stat::StatKey;
use crate::fs::walk;
use crate::workspace::stat_index::Leaf;

/// Gives what lies at workspace paths, by stat signature where that is known; `None` for what cannot be told.
pub type Observe<'a> = dyn Fn(&[RelPath]) -> Vec<Option<Leaf>> + 'a;

/// Names on disk, relative to the package.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// Everything that is no directory.
    pub files: BTreeSet<RelPath>,
    /// Directories.
    pub dirs: BTreeSet<RelPath>,
}

impl Names {
    /// Lists everything in the units of a task, and what its wildcards match elsewhere.
    ///
    /// # Errors
    /// [`MaterializeError::ThroughLink`] if a directory above any of it is a link: what lies behind is not looked at.
    pub fn find(root: &Dir, owned: &Owned<'_>) -> Result<Self, MaterializeError> {
        let mut names = Self::default();
        for unit in &owned.units {
            match Lying::at(root, &owned.package.join(unit))? {
                Lying::Nothing => {}
                Lying::Link | Lying::Other => drop(names.files.insert(unit.clone())),
                Lying::Dir(dir) => {
                    names.dirs.insert(unit.clone());
                    for found in walk::walk_beneath(&dir)? {
                        names.add(unit.join(&found.path), found.kind);
                    }
                }
            }
        }
        for pattern in owned.loose() {
            let base = &pattern.prefix;
            if owned.unit_of(base).is_none() {
                names.find_loose(root, owned, base, pattern.literal)?;
            }
        }
        Ok(names)
    }

    fn find_loose(
        &mut self,
        root: &Dir,
        owned: &Owned<'_>,
        base: &RelPath,
        literal: bool,
    ) -> Result<(), MaterializeError> {
        let full = owned.package.join(base);
        let dir = match Lying::at(root, &full)? {
            Lying::Dir(dir) => dir,
            Lying::Nothing => return Ok(()),
            Lying::Link if !literal => return Err(MaterializeError::ThroughLink(full)),
            Lying::Link | Lying::Other => {
                if owned.matches_loosely(base) {
                    self.files.insert(base.clone());
                }
                return Ok(());
            }
        };
        // What cannot be looked at is not ours: nothing we wrote is unreadable or has a name that is no text.
        let survey = walk::survey_beneath(&dir, &|dir| {
            let dir = base.join(dir);
            !owned.may_enter(&dir) || owned.unit_of(&dir).is_some()
        })?;
        for found in survey.found {
            let path = base.join(&found.path);
            if owned.unit_of(&path).is_none() && owned.matches_loosely(&path) && !owned.is_committed(&path) {
                self.add(path, found.kind);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: RelPath, kind: Kind) {
        if kind == Kind::Dir {
            self.dirs.insert(path)
        } else {
            self.files.insert(path)
        };
    }

    /// Keeps what lies in units, and of the rest what `keep` says.
    pub fn retain(&mut self, owned: &Owned<'_>, keep: &dyn Fn(&RelPath) -> bool) {
        let stays = |path: &RelPath| owned.unit_of(path).is_some() || keep(path);
        self.files.retain(stays);
        self.dirs.retain(stays);
    }
}

/// What lies at a path.
enum Lying {
    Nothing,
    Dir(Dir),
    Link,
    Other,
}

impl Lying {
    fn at(root: &Dir, path: &RelPath) -> Result<Self, MaterializeError> {
        let Some(parent) = path.parent() else { return Ok(Self::Dir(root.open_beneath(path)?)) };
        let Some(dir) = if_reached(root, &parent, root.open_beneath(&parent))? else { return Ok(Self::Nothing) };
        let name = path.file_name();
        match ops::if_there(dir.stat(name))? {
            None => Ok(Self::Nothing),
            Some(stat) if stat.is_link() => Ok(Self::Link),
            Some(stat) if !stat.is_dir() => Ok(Self::Other),
            Some(_) => match ops::if_there(dir.open_dir(name)) {
                Ok(opened) => Ok(opened.map_or(Self::Nothing, Self::Dir)),
                Err(error) if error.is_no_directory() => Err(MaterializeError::Restless(path.clone())),
                Err(error) => Err(error.into()),
            },
        }
    }
}

/// Why no output goes beneath a directory that could not be opened: a link or a file on the way is a refusal.
pub fn refusal(root: &Dir, path: &RelPath, error: FsError) -> MaterializeError {
    if !error.is_no_directory() {
        return error.into();
    }
    let mut here = RelPath::root();
    for part in path.components() {
        let stat = root.open_beneath(&here).and_then(|dir| dir.stat(part));
        here = here.child(part);
        match stat {
            Ok(stat) if stat.is_link() => return MaterializeError::ThroughLink(here),
            Ok(stat) if stat.is_dir() => {}
            Ok(_) => return MaterializeError::NotADirectory(here),
            Err(_) => break,
        }
    }
    // It was in the way a moment ago.
    MaterializeError::Restless(path.clone())
}

/// A directory of the tree that was to be opened; `None` if it is not there, or a file is on the way.
pub fn if_reached<T>(root: &Dir, path: &RelPath, opened: Result<T, FsError>) -> Result<Option<T>, MaterializeError> {
    match ops::if_there(opened).map_err(|error| refusal(root, path, error)) {
        Err(MaterializeError::NotADirectory(_)) => Ok(None),
        reached => reached,
    }
}

/// Whether something lies at a path of the tree and not behind a link. Trouble counts as no.
pub fn lies_at(root: &Dir, path: &RelPath) -> bool {
    let dir = path.parent().and_then(|parent| root.open_beneath(&parent).ok());
    dir.is_some_and(|dir| dir.has(path.file_name()))
}

/// What lies there, with the signatures it had.
#[derive(Debug, Default)]
pub struct Present {
    /// Own entries; directories only where empty.
    pub listing: Listing,
    /// Files of units of which nothing can be told but that they are there: unreadable ones, pipes, links that are no text.
    pub untold: BTreeSet<RelPath>,
    names: Names,
    stats: BTreeMap<RelPath, Option<StatKey>>,
}

impl Present {
    /// Looks at names. Cost: one `stat` per file, and one read of each whose signature is new.
    pub fn look(owned: &Owned<'_>, names: Names, observe: &Observe<'_>) -> Self {
        let inside: Vec<RelPath> = names.files.iter().map(|path| owned.package.join(path)).collect();
        let leaves = observe(&inside);
        let mut present = Self::default();
        for (path, leaf) in names.files.iter().zip(leaves) {
            present.stats.insert(path.clone(), leaf.as_ref().map(|leaf| leaf.stat));
            if owned.is_committed(path) {
                continue;
            }
            match leaf {
                Some(leaf) => drop(present.listing.insert(path.clone(), leaf.entry)),
                None => drop(present.untold.insert(path.clone())),
            }
        }
        let parents: BTreeSet<RelPath> = names.files.iter().chain(&names.dirs).filter_map(RelPath::parent).collect();
        let empty = names.dirs.iter().filter(|dir| !parents.contains(*dir) && !owned.is_committed(dir));
        present.listing.extend(empty.map(|dir| (dir.clone(), Entry::Dir)));
        present.names = names;
        present
    }

    /// Whether it is exactly what is wanted.
    pub fn is(&self, wanted: &Listing) -> bool {
        self.untold.is_empty() && self.listing == *wanted
    }

    /// Whether the names are still these and each file has the signature it had when it was read.
    pub fn is_still(&self, root: &Dir, owned: &Owned<'_>, names: &Names) -> bool {
        let mut dirs = Beneath::new(root);
        let mut now = |path: &RelPath| {
            let full = owned.package.join(path);
            dirs.open(&full.parent()?).and_then(|dir| dir.stat(full.file_name())).ok()
        };
        let mut known = self.stats.iter().filter_map(|(path, stat)| stat.map(|stat| (path, stat)));
        *names == self.names && known.all(|(path, stat)| now(path) == Some(stat))
    }

    /// Own files in a unit, told or not.
    pub fn files_below<'a>(&'a self, unit: &'a RelPath) -> impl Iterator<Item = &'a RelPath> {
        let told = self.listing.iter().filter(|(_, entry)| **entry != Entry::Dir).map(|(path, _)| path);
        told.chain(&self.untold).filter(|path| path.starts_with(unit))
    }

    /// Own entries in a unit.
    pub fn below(&self, unit: &RelPath) -> Listing {
        below(&self.listing, unit)
    }
}

/// The part of a listing at and beneath a path.
pub fn below(listing: &Listing, unit: &RelPath) -> Listing {
    let part = listing.iter().filter(|(path, _)| path.starts_with(unit));
    part.map(|(path, entry)| (path.clone(), entry.clone())).collect()
}
