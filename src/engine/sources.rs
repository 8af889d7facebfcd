//! The source files of a task as they are on disk, and with the outputs of what it needs all that it sees in the workspace. Reads
//! nothing.
//!
//! Parts of a split task share most of what they see. It is put together and folded once; each part adds its own items.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex, OnceLock};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Folded, Listing, TreeSet, fold};
use crate::engine::prepare::{Dependency, in_workspace, seen};
use crate::engine::session::{Session, held};
use crate::fs::stat::StatKey;

/// The source files of a task as they are on disk.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Entries by path relative to the workspace.
    pub listing: Arc<Listing>,
    /// Stat signatures at the time they were digested.
    pub stats: Arc<Vec<(RelPath, StatKey)>>,
    /// Patterns that matched nothing.
    pub warnings: Vec<Diagnostic>,
    /// Those that it shares with other parts of its task.
    pub shared: Option<Arc<SharedSources>>,
}

/// Source files that the parts of a task share.
#[derive(Debug, Default)]
pub struct SharedSources {
    /// The files; they share nothing with anyone.
    pub sources: Sources,
    /// What the parts saw last with the outputs of what they need.
    seen: Mutex<Option<(Vec<Needed>, Arc<SharedInputs>)>>,
}

/// A dependency as far as it decides what is seen of it.
type Needed = (TaskId, bool, Digest);

impl SharedSources {
    /// Files of which nothing was put together yet.
    pub fn new(sources: Sources) -> Self {
        Self { sources, seen: Mutex::default() }
    }
}

impl Sources {
    /// All entries, shared ones included.
    pub fn all(&self) -> Listing {
        let mut all = Listing::clone(&self.listing);
        let shared = self.shared.iter().flat_map(|shared| shared.sources.listing.iter());
        all.extend(shared.map(|(path, entry)| (path.clone(), entry.clone())));
        all
    }

    /// All warnings, shared ones included.
    pub fn all_warnings(&self) -> Vec<Diagnostic> {
        let shared = self.shared.iter().flat_map(|shared| &shared.sources.warnings);
        self.warnings.iter().chain(shared).cloned().collect()
    }

    /// The signatures, to be kept while the task runs.
    pub fn signatures(&self) -> Signatures {
        Signatures { own: Arc::clone(&self.stats), shared: self.shared.clone() }
    }
}

/// Stat signatures of source files.
#[derive(Debug, Default)]
pub struct Signatures {
    own: Arc<Vec<(RelPath, StatKey)>>,
    shared: Option<Arc<SharedSources>>,
}

impl Signatures {
    /// Each with its path, shared ones last.
    pub fn iter(&self) -> impl Iterator<Item = &(RelPath, StatKey)> {
        self.own.iter().chain(self.shared.iter().flat_map(|shared| shared.sources.stats.iter()))
    }
}

/// What parts of a task see alike.
#[derive(Debug)]
struct SharedInputs {
    listing: Listing,
    folded: OnceLock<Folded>,
}

/// What a task sees in the workspace: source files, and outputs of what it needs.
#[derive(Debug, Default)]
pub struct Inputs {
    own: Listing,
    shared: Option<Arc<SharedInputs>>,
    all: OnceLock<Listing>,
}

impl Inputs {
    /// Those of a task. Cost: a copy of every entry, for parts of one task once.
    pub fn of(session: &Session<'_>, sources: &Sources, dependencies: &[Dependency]) -> Self {
        let Some(shared) = &sources.shared else {
            return Self {
                own: with_outputs(session, Listing::clone(&sources.listing), dependencies),
                ..Self::default()
            };
        };
        let needed = in_workspace(dependencies)
            .map(|dependency| (dependency.task, dependency.interface_only, dependency.produced.digest))
            .collect::<Vec<Needed>>();
        let mut seen = held(&shared.seen);
        let inputs = match seen.as_ref().filter(|(known, _)| *known == needed) {
            Some((_, inputs)) => Arc::clone(inputs),
            None => {
                let listing = with_outputs(session, Listing::clone(&shared.sources.listing), dependencies);
                let inputs = Arc::new(SharedInputs { listing, folded: OnceLock::new() });
                *seen = Some((needed, Arc::clone(&inputs)));
                inputs
            }
        };
        // What a dependency makes comes from it, even where the tree has a committed file of that name.
        let own = sources.listing.iter().filter(|(path, _)| has_room(&inputs.listing, path));
        let own = own.map(|(path, entry)| (path.clone(), entry.clone())).collect();
        Self { own, shared: Some(inputs), all: OnceLock::new() }
    }

    /// The same without one file; for a task that is no part.
    pub fn without(mut self, path: &RelPath) -> Self {
        self.own.remove(path);
        self
    }

    /// Every entry by path relative to the workspace. Cost: for a part of a split task a copy of every entry, once.
    pub fn all(&self) -> &Listing {
        let Some(shared) = &self.shared else { return &self.own };
        self.all.get_or_init(|| {
            let mut all = shared.listing.clone();
            all.extend(self.own.iter().map(|(path, entry)| (path.clone(), entry.clone())));
            drop_shadowed_directories(&mut all);
            all
        })
    }

    /// Their trees. Cost: one encoding per directory; where parts share most of them, of the directories above their own.
    pub fn fold(&self) -> TreeSet {
        match &self.shared {
            None => fold(&self.own),
            Some(shared) => shared.folded.get_or_init(|| Folded::of(&shared.listing)).with(&self.own),
        }
    }
}

fn with_outputs(session: &Session<'_>, mut listing: Listing, dependencies: &[Dependency]) -> Listing {
    for dependency in in_workspace(dependencies) {
        let package = session.package(dependency.task);
        for (path, entry) in seen(session, dependency) {
            let path = package.join(path);
            make_room(&mut listing, &path, entry);
            listing.insert(path, entry.clone());
        }
    }
    drop_shadowed_directories(&mut listing);
    listing
}

/// Takes away what cannot be beside an output: a file where its directory is, and what lies where it is itself.
fn make_room(listing: &mut Listing, path: &RelPath, entry: &Entry) {
    if let Some(file) = file_above(listing, path) {
        listing.remove(&file);
    }
    if *entry != Entry::Dir {
        let inside: Vec<RelPath> = beneath(listing, path).cloned().collect();
        inside.iter().for_each(|path| drop(listing.remove(path)));
    }
}

/// Whether a file can be added to a listing.
fn has_room(listing: &Listing, path: &RelPath) -> bool {
    !listing.contains_key(path) && file_above(listing, path).is_none() && beneath(listing, path).next().is_none()
}

/// The file or link that stands where a directory above the path would be.
fn file_above(listing: &Listing, path: &RelPath) -> Option<RelPath> {
    let above = std::iter::successors(path.parent(), RelPath::parent);
    above.into_iter().find(|dir| listing.get(dir).is_some_and(|entry| *entry != Entry::Dir))
}

/// The paths in a directory and deeper.
fn beneath<'a>(listing: &'a Listing, dir: &'a RelPath) -> impl Iterator<Item = &'a RelPath> {
    let after = listing.range((Bound::Excluded(dir), Bound::Unbounded)).map(|(path, _)| path);
    // `a-b` sorts between `a` and `a/c`.
    after.take_while(|path| path.as_str().starts_with(dir.as_str())).filter(|path| path.starts_with(dir))
}

/// A directory listed for itself is implied once something lies beneath it.
fn drop_shadowed_directories(listing: &mut Listing) {
    let parents: BTreeSet<RelPath> = listing.keys().filter_map(RelPath::parent).collect();
    listing.retain(|path, entry| *entry != Entry::Dir || !parents.contains(path));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_beside_an_output_makes_room_for_it() {
        let path = |text: &str| RelPath::parse(text).expect("a good path");
        let file = Entry::File { digest: Digest::of(b""), size: 0, executable: false };
        let check = |before: &[&str], output: &str, expect: &[&str]| {
            let mut listing: Listing = before.iter().map(|text| (path(text), file.clone())).collect();
            let fits = has_room(&listing, &path(output));
            make_room(&mut listing, &path(output), &file);
            listing.insert(path(output), file.clone());
            assert_eq!(listing.keys().map(RelPath::as_str).collect::<Vec<_>>(), expect, "{before:?} {output}");
            assert_eq!(fits, before.len() + 1 == expect.len(), "{before:?} {output}");
            fold(&listing);
        };
        check(&["g", "h"], "g/x/y", &["g/x/y", "h"]);
        check(&["g-a", "g/x", "g/y/z", "ga"], "g", &["g", "g-a", "ga"]);
        check(&["g/x"], "g/x", &["g/x"]);
        check(&["g/x"], "g/y", &["g/x", "g/y"]);
    }
}
