//! What lies on disk where a task owns paths, and whether it is still that. Writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::materialize::MaterializeError;
use crate::engine::owned::Owned;
use crate::fs::ops::{self, Kind};
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
    pub fn find(root: &Path, owned: &Owned<'_>) -> Result<Self, MaterializeError> {
        let mut names = Self::default();
        for unit in &owned.units {
            refuse_links_above(root, &owned.package.join(unit))?;
            let start = root.join(owned.package.join(unit).as_str());
            let Some(meta) = ops::if_there(ops::symlink_metadata(&start)).or_else(nothing_below_a_file)? else {
                continue;
            };
            if !meta.is_dir() {
                names.files.insert(unit.clone());
                continue;
            }
            names.dirs.insert(unit.clone());
            for found in walk::walk_all(&start)? {
                names.add(unit.join(&found.path), found.kind);
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
        root: &Path,
        owned: &Owned<'_>,
        base: &RelPath,
        literal: bool,
    ) -> Result<(), MaterializeError> {
        let full = owned.package.join(base);
        refuse_links_above(root, &full)?;
        let start = root.join(full.as_str());
        let Some(meta) = ops::if_there(ops::symlink_metadata(&start)).or_else(nothing_below_a_file)? else {
            return Ok(());
        };
        if meta.is_symlink() && !literal {
            return Err(MaterializeError::ThroughLink(full));
        }
        if !meta.is_dir() {
            if owned.matches_loosely(base) {
                self.files.insert(base.clone());
            }
            return Ok(());
        }
        // What cannot be looked at is not ours: nothing we wrote is unreadable or has a name that is no text.
        let survey = walk::survey_all(&start, &|dir| {
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

/// A file where a directory should be: nothing can lie beneath it.
fn nothing_below_a_file<T>(error: ops::FsError) -> Result<Option<T>, ops::FsError> {
    if error.cause.kind() == std::io::ErrorKind::NotADirectory { Ok(None) } else { Err(error) }
}

/// Refuses a path with a link among its parents, before anything behind it is looked at or touched.
pub fn refuse_links_above(root: &Path, path: &RelPath) -> Result<(), MaterializeError> {
    let mut here = RelPath::root();
    let Some(parent) = path.parent() else { return Ok(()) };
    for part in parent.components() {
        here = here.child(part);
        match ops::if_there(ops::symlink_metadata(&root.join(here.as_str()))).or_else(nothing_below_a_file)? {
            None => return Ok(()),
            Some(meta) if meta.is_symlink() => return Err(MaterializeError::ThroughLink(here)),
            Some(_) => {}
        }
    }
    Ok(())
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
    pub fn is_still(&self, root: &Path, owned: &Owned<'_>, names: &Names) -> bool {
        let unchanged = |(path, stat): (&RelPath, &Option<StatKey>)| {
            let now = StatKey::at(&root.join(owned.package.join(path).as_str()));
            stat.is_none_or(|stat| now.is_ok_and(|now| now == stat))
        };
        *names == self.names && self.stats.iter().all(unchanged)
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
