//! Lists the files of a directory as git would see them: ignore files respected, links not followed. Knows no manifest.
//!
//! No walk lists the temporaries of `fs::atomic`: what a killed run left must not become an input or an output.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::path::RelPath;
use crate::fs::atomic;
use crate::fs::dir::Dir;
use crate::fs::ignored::{Marks, Rules};
use crate::fs::ops::{self, FsError, Kind};
use crate::fs::witness::{self, Names, Told};

/// One listed file, link, directory or special file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Relative to the root that was given.
    pub path: RelPath,
    /// What it is.
    pub kind: Kind,
}

/// What can go wrong in a walk.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A name on disk is not UTF-8.
    #[error("the name of {} is not UTF-8", path.display())]
    NotUtf8 {
        /// The path, as far as it can be shown.
        path: PathBuf,
    },
    /// A directory cannot be read, or an ignore file is broken.
    #[error("cannot list {}: {cause}", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// Any other file operation.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// Something in a walk that could not be looked at. The walk goes on without it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// A name on disk is not UTF-8.
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// A directory cannot be read.
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// Why.
        cause: String,
    },
}

impl Trouble {
    /// Where, as the disk has it.
    pub fn path(&self) -> &Path {
        match self {
            Trouble::NotUtf8 { path } | Trouble::Unreadable { path, .. } => path,
        }
    }
}

impl From<FsError> for Trouble {
    fn from(error: FsError) -> Self {
        Trouble::Unreadable { cause: error.plain_cause(), path: error.path }
    }
}

impl From<Trouble> for WalkError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NotUtf8 { path } => WalkError::NotUtf8 { path },
            Trouble::Unreadable { path, cause } => WalkError::Unreadable { path, cause },
        }
    }
}

/// What a walk found, and what it had to leave out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Survey {
    /// In byte order of the paths; directories included.
    pub found: Vec<Found>,
    /// In byte order of the paths.
    pub troubles: Vec<Trouble>,
}

impl Survey {
    /// All of it, if nothing had to be left out.
    fn whole(self) -> Result<Vec<Found>, WalkError> {
        match self.troubles.into_iter().next() {
            Some(trouble) => Err(trouble.into()),
            None => Ok(self.found),
        }
    }
}

/// Lists everything beneath `root.join(start)` that git does not ignore; directories included. Goes on past what it cannot look
/// at: the caller knows whether that matters.
///
/// Paths are relative to `root`. `.git` directories are left out. `skip` may prune a directory by its path. Whether `start` itself
/// is ignored does not matter. Cost: one `readdir` per directory; no file is opened but the ignore files.
pub fn survey(root: &Path, start: &RelPath, skip: impl Fn(&RelPath) -> bool + Sync) -> Survey {
    let walk = Walk::new(root, |_, path| skip(path));
    let mut survey = Survey::default();
    let mut left = vec![walk.start(0, start, &mut HashMap::new())];
    while let Some(dir) = left.pop() {
        let listed = walk.list(&dir);
        left.extend(listed.below);
        survey.found.extend(listed.found);
        survey.troubles.extend(listed.troubles);
    }
    walk.finish(survey)
}

/// The same for several directories at once, on the current rayon pool; what is beneath two of them is listed for both.
///
/// `skip` also gets the position of the start. Not for threads that must not take up other work while they wait.
pub fn surveys(root: &Path, starts: &[RelPath], skip: impl Fn(usize, &RelPath) -> bool + Sync) -> Vec<Survey> {
    let walk = Walk::new(root, skip);
    let mut surveys: Vec<Survey> = starts.iter().map(|_| Survey::default()).collect();
    let mut known = HashMap::new();
    let mut left: Vec<Unlisted> =
        starts.iter().enumerate().map(|(at, start)| walk.start(at, start, &mut known)).collect();
    // All directories of one depth together: nothing waits for another but once per depth.
    while !left.is_empty() {
        let listed: Vec<Listed> = left.par_iter().map(|dir| walk.list(dir)).collect();
        let mut below = Vec::new();
        for (dir, listed) in left.iter().zip(listed) {
            below.extend(listed.below);
            surveys[dir.start].found.extend(listed.found);
            surveys[dir.start].troubles.extend(listed.troubles);
        }
        left = below;
    }
    surveys.into_par_iter().map(|survey| walk.finish(survey)).collect()
}

/// A directory that is to be listed.
struct Unlisted {
    /// Which of the starts it lies beneath.
    start: usize,
    on_disk: PathBuf,
    /// Relative to the root; `None` where a name on the way is not UTF-8.
    path: Option<RelPath>,
    /// Those of the directories above it.
    rules: Rules,
    depth: usize,
}

/// What lies in one directory.
#[derive(Default)]
struct Listed {
    found: Vec<Found>,
    below: Vec<Unlisted>,
    troubles: Vec<Trouble>,
}

struct Walk<'r, S> {
    /// As it was given.
    root: &'r Path,
    /// Without links in it: the rules of directories above it hold too.
    real: PathBuf,
    skip: S,
}

impl<'r, S: Fn(usize, &RelPath) -> bool + Sync> Walk<'r, S> {
    fn new(root: &'r Path, skip: S) -> Self {
        Self { root, real: ops::canonical(root).unwrap_or_else(|_| root.to_owned()), skip }
    }

    fn start(&self, start: usize, dir: &RelPath, known: &mut HashMap<RelPath, Rules>) -> Unlisted {
        let rules = self.rules_above(dir, known);
        Unlisted { start, on_disk: self.on_disk(dir), path: Some(dir.clone()), rules, depth: 0 }
    }

    fn on_disk(&self, dir: &RelPath) -> PathBuf {
        if dir.is_root() { self.real.clone() } else { self.real.join(dir.as_str()) }
    }

    /// The rules that hold for a directory itself; `known` has those that hold in the directories above.
    fn rules_above(&self, dir: &RelPath, known: &mut HashMap<RelPath, Rules>) -> Rules {
        let Some(parent) = dir.parent() else { return Rules::above(&self.real) };
        if let Some(rules) = known.get(&parent) {
            return rules.clone();
        }
        let rules = self.rules_above(&parent, known).looked_for(&self.on_disk(&parent));
        known.insert(parent, rules.clone());
        rules
    }

    fn list(&self, dir: &Unlisted) -> Listed {
        let mut text: Vec<u8> = Vec::new();
        let mut names: Vec<(usize, Kind)> = Vec::new();
        let mut marks = Marks::default();
        let seen_ns = witness::moment();
        let listed = ops::each_name(&dir.on_disk, |name, kind| {
            marks.see(name);
            if is_listed(name) {
                text.extend_from_slice(name);
                names.push((text.len(), kind));
            }
        });
        let stat = listed.as_ref().ok().copied().flatten();
        let mut heard = HeardNames::new(&text, witness::is_listening());
        let mut all = Listed::default();
        match listed {
            // Something else took its place.
            Err(error) if dir.depth == 0 && error.cause.raw_os_error() == Some(libc::ENOTDIR) => {}
            Err(error) => {
                all.troubles.push(Trouble::Unreadable { cause: error.plain_cause(), path: self.shown(&dir.on_disk) });
            }
            Ok(_) => {}
        }
        let rules = dir.rules.clone().within(&dir.on_disk, marks);
        let mut on_disk = dir.on_disk.clone();
        let mut begin = 0;
        for (end, kind) in names {
            let range = begin..end;
            let name = std::ffi::OsStr::from_bytes(&text[range.clone()]);
            begin = end;
            on_disk.push(name);
            if !rules.ignore(&on_disk, kind == Kind::Dir) {
                heard.add(range, kind);
                self.add(dir, name, kind, &on_disk, &rules, &mut all);
            }
            on_disk.pop();
        }
        witness::note(&dir.on_disk, seen_ns, || {
            Told::Names(Names::Unignored, stat.map(|stat| (stat, heard.digest(marks))))
        });
        all
    }

    /// Takes a name that is not ignored.
    fn add(&self, dir: &Unlisted, name: &std::ffi::OsStr, kind: Kind, on_disk: &Path, rules: &Rules, all: &mut Listed) {
        let path = dir.path.as_ref().zip(name.to_str()).map(|(dir, name)| dir.child(name));
        if kind == Kind::Dir && path.as_ref().is_some_and(|path| (self.skip)(dir.start, path)) {
            return;
        }
        if kind == Kind::Dir {
            let (start, path, rules, depth) = (dir.start, path.clone(), rules.clone(), dir.depth + 1);
            all.below.push(Unlisted { start, on_disk: on_disk.to_owned(), path, rules, depth });
        }
        match path {
            Some(path) => all.found.push(Found { path, kind }),
            None => all.troubles.push(Trouble::NotUtf8 { path: self.shown(on_disk) }),
        }
    }

    /// A path beneath the root as it was given.
    fn shown(&self, on_disk: &Path) -> PathBuf {
        match on_disk.strip_prefix(&self.real) {
            Ok(below) if below.as_os_str().is_empty() => self.root.to_owned(),
            Ok(below) => self.root.join(below),
            Err(_) => on_disk.to_owned(),
        }
    }

    fn finish(&self, mut survey: Survey) -> Survey {
        survey.found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        survey.found.shrink_to_fit();
        survey.troubles.sort_by(|one, other| one.path().cmp(other.path()));
        survey
    }
}

/// Whether walks list such a name at all.
fn is_listed(name: &[u8]) -> bool {
    name != b".git" && !std::str::from_utf8(name).is_ok_and(atomic::is_temporary)
}

/// The names of a directory that git does not ignore, for who listens.
struct HeardNames<'t> {
    text: &'t [u8],
    names: Option<Vec<(std::ops::Range<usize>, Kind)>>,
}

impl<'t> HeardNames<'t> {
    /// None yet; of names that lie in this text. Costs nothing where they are not wanted.
    fn new(text: &'t [u8], is_wanted: bool) -> Self {
        Self { text, names: is_wanted.then(Vec::new) }
    }

    fn add(&mut self, range: std::ops::Range<usize>, kind: Kind) {
        if let Some(names) = &mut self.names {
            names.push((range, kind));
        }
    }

    /// Tells two directories apart by these names, in whatever order they came, and by the rules they bring.
    fn digest(self, marks: Marks) -> Digest {
        let mut names = self.names.unwrap_or_default();
        names.sort_unstable_by_key(|(range, _)| &self.text[range.clone()]);
        let mut encoder = Encoder::new();
        encoder.u8(u8::from(marks.ignore_file)).u8(u8::from(marks.git));
        for (range, kind) in names {
            encoder.bytes(&self.text[range]).u8(kind as u8);
        }
        Digest::of(encoder.as_slice())
    }
}

/// The digest of the names in a directory that git does not ignore, as a walk tells it to who listens. `dir` is absolute and without
/// links. Cost: one listing, and the rules of all directories above.
pub fn unignored_names(dir: &Path) -> Result<Digest, FsError> {
    let mut text: Vec<u8> = Vec::new();
    let mut names: Vec<(std::ops::Range<usize>, Kind)> = Vec::new();
    let mut marks = Marks::default();
    ops::each_name(dir, |name, kind| {
        marks.see(name);
        if is_listed(name) {
            let begin = text.len();
            text.extend_from_slice(name);
            names.push((begin..text.len(), kind));
        }
    })?;
    let rules = Rules::above(dir).within(dir, marks);
    let mut heard = HeardNames::new(&text, true);
    for (range, kind) in names {
        let on_disk = dir.join(std::ffi::OsStr::from_bytes(&text[range.clone()]));
        if !rules.ignore(&on_disk, kind == Kind::Dir) {
            heard.add(range, kind);
        }
    }
    Ok(heard.digest(marks))
}

fn is_temporary(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(atomic::is_temporary)
}

/// Lists everything beneath `dir` with plain directory reads: for output trees, where nothing is ignored.
///
/// Paths are relative to `dir`; depth first, byte order within each directory. A missing `dir` gives an empty list.
pub fn walk_all(dir: &Path) -> Result<Vec<Found>, WalkError> {
    survey_all(dir, &|_| false)?.whole()
}

/// Like [`walk_all`], but goes on past what it cannot look at, and not into directories that `skip` names.
pub fn survey_all(dir: &Path, skip: &dyn Fn(&RelPath) -> bool) -> Result<Survey, WalkError> {
    match ops::if_there(Dir::open(dir)) {
        Ok(Some(dir)) => survey_beneath(&dir, skip),
        Ok(None) => Ok(Survey::default()),
        Err(error) => Ok(Survey { troubles: vec![error.into()], ..Survey::default() }),
    }
}

/// [`walk_all`] in an opened directory.
pub fn walk_beneath(dir: &Dir) -> Result<Vec<Found>, WalkError> {
    survey_beneath(dir, &|_| false)?.whole()
}

/// [`survey_all`] in an opened directory.
pub fn survey_beneath(dir: &Dir, skip: &dyn Fn(&RelPath) -> bool) -> Result<Survey, WalkError> {
    let mut survey = Survey::default();
    descend(dir, &RelPath::root(), skip, &mut survey)?;
    Ok(survey)
}

fn descend(top: &Dir, dir: &RelPath, skip: &dyn Fn(&RelPath) -> bool, survey: &mut Survey) -> Result<(), WalkError> {
    // From the top each time, so that the deepest tree takes one descriptor.
    let entries = match ops::if_there(top.list_beneath(dir)) {
        Ok(Some(entries)) => entries,
        Ok(None) => return Ok(()),
        Err(error) => {
            survey.troubles.push(error.into());
            return Ok(());
        }
    };
    if dir.components().count() > crate::base::limits::TREE_DEPTH_MAX {
        let cause = format!("deeper than {} directories", crate::base::limits::TREE_DEPTH_MAX);
        return Err(WalkError::Unreadable { path: top.path().join(dir.as_str()), cause });
    }
    for entry in entries.into_iter().filter(|entry| !is_temporary(&entry.name)) {
        let Some(name) = entry.name.to_str() else {
            survey.troubles.push(Trouble::NotUtf8 { path: top.path().join(dir.as_str()).join(&entry.name) });
            continue;
        };
        let path = dir.child(name);
        if entry.kind == Kind::Dir && skip(&path) {
            continue;
        }
        survey.found.push(Found { path: path.clone(), kind: entry.kind });
        if entry.kind == Kind::Dir {
            descend(top, &path, skip, survey)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
