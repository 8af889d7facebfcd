//! Makes declared outputs on disk equal to a listing, each swapped in whole. Knows nothing of actions and runs.
//!
//! A directory output (`dist/**`) is built beside its place and exchanged with what is there; single files are renamed into
//! place. A kill at any point leaves the old output or the new one, and at worst a hidden `.name.drystone-*` beside it, which
//! the next materialization of the same output removes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::fs::ops::{self, FsError, Kind};
use crate::fs::walk::{self, WalkError};
use crate::fs::{atomic, link};
use crate::manifest::glob::Pattern;
use crate::store::{Store, StoreError};

/// Where outputs go.
pub struct Destination<'a> {
    /// Root of the workspace on disk.
    pub root: &'a Path,
    /// Directory of the package, relative to it.
    pub package: &'a RelPath,
    /// Patterns that own what lies there, relative to the package.
    pub patterns: &'a [&'a Pattern],
}

/// Why outputs could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum MaterializeError {
    /// A directory above an output is a link: writing through it could leave the workspace.
    #[error("`{0}` is a symbolic link; outputs are never written through links")]
    ThroughLink(RelPath),
    /// Something that is no directory is in the way.
    #[error("`{0}` is not a directory, so no output can be placed beneath it")]
    NotADirectory(RelPath),
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

/// Gives the entry on disk at a workspace path, by stat signature where it is known.
pub type Observe<'a> = dyn Fn(&[RelPath]) -> Vec<Option<Entry>> + 'a;

/// What lies at the declared outputs now, by path relative to the package; directories only where empty.
pub fn present(destination: &Destination<'_>, observe: &Observe<'_>) -> Result<Listing, MaterializeError> {
    let mut paths = Vec::new();
    let mut listing = Listing::new();
    for pattern in destination.patterns {
        find(destination, pattern, &mut paths, &mut listing)?;
    }
    paths.sort();
    paths.dedup();
    let inside: Vec<RelPath> = paths.iter().map(|path| destination.package.join(path)).collect();
    for (path, entry) in paths.into_iter().zip(observe(&inside)) {
        if let Some(entry) = entry {
            listing.insert(path, entry);
        }
    }
    let parents: std::collections::BTreeSet<RelPath> = listing.keys().filter_map(RelPath::parent).collect();
    listing.retain(|path, entry| *entry != Entry::Dir || !parents.contains(path));
    Ok(listing)
}

/// Lists files and links that the pattern matches, and directories it owns.
fn find(
    destination: &Destination<'_>,
    pattern: &Pattern,
    paths: &mut Vec<RelPath>,
    dirs: &mut Listing,
) -> Result<(), MaterializeError> {
    let package = destination.root.join(destination.package.as_str());
    let base = pattern.prefix.clone();
    let start = package.join(base.as_str());
    let Some(meta) = ops::if_there(ops::symlink_metadata(&start))? else { return Ok(()) };
    if !meta.is_dir() {
        if pattern.matches(&base) {
            paths.push(base);
        }
        return Ok(());
    }
    if pattern.literal || pattern.whole_dir().is_some() {
        dirs.insert(base.clone(), Entry::Dir);
    }
    for found in walk::walk_all(&start)? {
        let path = base.join(&found.path);
        if !pattern.matches(&path) {
            continue;
        }
        match found.kind {
            Kind::Dir => drop(dirs.insert(path, Entry::Dir)),
            _ => paths.push(path),
        }
    }
    dirs.remove(&RelPath::root());
    Ok(())
}

/// Makes the outputs on disk equal to `wanted`; `present` is what [`present`] found there.
///
/// Returns the paths written, relative to the package. Cost: the files that differ, plus one link per file of a directory in
/// which anything differs.
pub fn materialize(
    destination: &Destination<'_>,
    present: &Listing,
    wanted: &Listing,
    store: &Store,
) -> Result<Vec<RelPath>, MaterializeError> {
    if present == wanted {
        return Ok(Vec::new());
    }
    let package = destination.root.join(destination.package.as_str());
    let mut written = Vec::new();
    let mut units: Vec<RelPath> = Vec::new();
    for pattern in destination.patterns {
        let dir = match pattern.whole_dir() {
            Some(dir) => dir.clone(),
            // `outputs = ["dist"]` names a file or a directory; the listing tells which.
            None if pattern.literal
                && !matches!(wanted.get(&pattern.prefix), Some(Entry::File { .. } | Entry::Link { .. })) =>
            {
                pattern.prefix.clone()
            }
            None => continue,
        };
        if !dir.is_root() && !units.iter().any(|unit| dir.starts_with(unit)) {
            units.retain(|unit| !unit.starts_with(&dir));
            units.push(dir);
        }
    }
    for unit in &units {
        let below = |listing: &Listing| -> Listing {
            listing.iter().filter(|(path, _)| path.starts_with(unit)).map(|(p, e)| (p.clone(), e.clone())).collect()
        };
        let (have, want) = (below(present), below(wanted));
        if have != want {
            swap_directory(destination, &package, unit, &have, &want, store)?;
            written.extend(want.into_keys());
        }
    }
    let single = |path: &RelPath| !units.iter().any(|unit| path.starts_with(unit));
    for path in present.keys().filter(|path| single(path) && !wanted.contains_key(*path)) {
        ops::remove_all(&package.join(path.as_str()))?;
    }
    for (path, entry) in wanted.iter().filter(|(path, _)| single(path)) {
        if present.get(path) != Some(entry) {
            make_parents(destination, path)?;
            place_single(&package.join(path.as_str()), path, entry, store)?;
            written.push(path.clone());
        }
    }
    Ok(written)
}

/// Creates the directories above an output, refusing links on the way.
fn make_parents(destination: &Destination<'_>, path: &RelPath) -> Result<(), MaterializeError> {
    let full = destination.package.join(path);
    let mut here = RelPath::root();
    let Some(parent) = full.parent() else { return Ok(()) };
    for part in parent.components() {
        here = here.child(part);
        let disk = destination.root.join(here.as_str());
        match ops::if_there(ops::symlink_metadata(&disk))? {
            None => ops::create_dir(&disk).or_else(|error| if ops::exists(&disk) { Ok(()) } else { Err(error) })?,
            Some(meta) if meta.is_symlink() => return Err(MaterializeError::ThroughLink(here)),
            Some(meta) if !meta.is_dir() => return Err(MaterializeError::NotADirectory(here)),
            Some(_) => {}
        }
    }
    Ok(())
}

fn swap_directory(
    destination: &Destination<'_>,
    package: &Path,
    unit: &RelPath,
    have: &Listing,
    want: &Listing,
    store: &Store,
) -> Result<(), MaterializeError> {
    make_parents(destination, unit)?;
    let place = package.join(unit.as_str());
    remove_stale_temporaries(&place)?;
    if want.is_empty() {
        return Ok(ops::remove_all(&place)?);
    }
    let staged = atomic::temporary_beside(&place);
    let built = build_directory(&staged, package, unit, have, want, store).and_then(|()| {
        if ops::exists(&place) {
            ops::exchange(&staged, &place)?;
            ops::remove_all(&staged)?;
        } else {
            ops::rename(&staged, &place)?;
        }
        Ok(())
    });
    if built.is_err() {
        // The first error is the one worth telling; what is left carries our name and is removed next time.
        drop(ops::remove_all(&staged));
    }
    built
}

/// Temporaries of killed runs carry a process id; those of living processes are left alone.
fn remove_stale_temporaries(place: &Path) -> Result<(), MaterializeError> {
    let (Some(dir), Some(name)) = (place.parent(), place.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let prefix = format!(".{name}.drystone-");
    for entry in ops::read_dir(dir)? {
        let Some(rest) = entry.name.to_str().and_then(|name| name.strip_prefix(&prefix)) else { continue };
        let process = rest.split('-').next().unwrap_or_default();
        if process.parse::<u32>().is_ok() && !ops::exists(&Path::new("/proc").join(process)) {
            ops::remove_all(&dir.join(&entry.name))?;
        }
    }
    Ok(())
}

fn build_directory(
    staged: &Path,
    package: &Path,
    unit: &RelPath,
    have: &Listing,
    want: &Listing,
    store: &Store,
) -> Result<(), MaterializeError> {
    ops::create_dir(staged)?;
    let mut made: BTreeMap<PathBuf, ()> = BTreeMap::new();
    // Files that are already right are linked over: the old directory goes, so no file has two names afterwards.
    let kept: BTreeMap<(&Digest, bool), &RelPath> = have
        .iter()
        .filter_map(|(path, entry)| match entry {
            Entry::File { digest, executable, .. } => Some(((digest, *executable), path)),
            _ => None,
        })
        .collect();
    let mut used = std::collections::BTreeSet::new();
    for (path, entry) in want {
        let below = path.strip_prefix(unit).unwrap_or_default();
        let at = staged.join(below.as_str());
        if let Some(parent) = at.parent()
            && made.insert(parent.to_owned(), ()).is_none()
        {
            ops::create_dir_all(parent)?;
        }
        match entry {
            Entry::Dir => ops::create_dir_all(&at)?,
            Entry::Link { target } => ops::symlink(target, &at)?,
            Entry::File { digest, size, executable } => {
                let old = kept.get(&(digest, *executable)).filter(|old| used.insert((**old).clone()));
                let linked = old.is_some_and(|old| link::hard_link(&package.join(old.as_str()), &at).is_ok());
                if !linked && !store.write_to(digest, *size, &at, *executable)? {
                    return Err(MaterializeError::Vanished(path.clone()));
                }
            }
        }
    }
    Ok(())
}

fn place_single(at: &Path, path: &RelPath, entry: &Entry, store: &Store) -> Result<(), MaterializeError> {
    let staged = atomic::temporary_beside(at);
    let placed = (|| {
        match entry {
            Entry::Dir => {
                ops::create_dir_all(at)?;
                return Ok(());
            }
            Entry::Link { target } => ops::symlink(target, &staged)?,
            Entry::File { digest, size, executable } => {
                if !store.write_to(digest, *size, &staged, *executable)? {
                    return Err(MaterializeError::Vanished(path.clone()));
                }
            }
        }
        if ops::symlink_metadata(at).is_ok_and(|meta| meta.is_dir()) {
            ops::remove_all(at)?;
        }
        Ok(ops::rename(&staged, at)?)
    })();
    if placed.is_err() {
        drop(ops::remove_file(&staged));
    }
    placed
}
