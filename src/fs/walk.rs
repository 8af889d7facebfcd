//! Lists the files of a directory as git would see them: ignore files respected, links not followed. Knows no manifest.
//!
//! No walk lists the temporaries of `fs::atomic`: what a killed run left must not become an input or an output.

use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use crate::base::path::RelPath;
use crate::fs::atomic;
use crate::fs::dir::Dir;
use crate::fs::ops::{self, FsError, Kind};

/// Which files are listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ignore {
    /// Those that git does not ignore (`.gitignore` at every level, `.git/info/exclude`).
    Respect,
    /// All of them, but for `.git`.
    Disregard,
}

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
    /// In the order met.
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

/// Lists everything beneath `root.join(dir)`, in byte order of the paths; directories included.
///
/// Paths are relative to `root`. `.git` directories are left out. `skip` may prune a directory by its path.
/// Cost: one `readdir` per directory; no file is opened but the ignore files.
pub fn walk(
    root: &Path,
    dir: &RelPath,
    ignore: Ignore,
    skip: impl Fn(&RelPath) -> bool + Send + Sync + 'static,
) -> Result<Vec<Found>, WalkError> {
    survey(root, dir, ignore, skip).whole()
}

/// Like [`walk`], but goes on past what it cannot look at: the caller knows whether that matters.
pub fn survey(
    root: &Path,
    dir: &RelPath,
    ignore: Ignore,
    skip: impl Fn(&RelPath) -> bool + Send + Sync + 'static,
) -> Survey {
    let start = root.join(dir.as_str());
    let respect = ignore == Ignore::Respect;
    let owned_root = root.to_owned();
    let mut builder = WalkBuilder::new(&start);
    builder
        .standard_filters(false)
        .hidden(false)
        .parents(respect)
        .git_ignore(respect)
        .git_exclude(respect)
        .ignore(false)
        .require_git(false)
        .follow_links(false)
        .filter_entry(move |entry| {
            if entry.file_name() == ".git" || is_temporary(entry.file_name()) {
                return false;
            }
            if !entry.file_type().is_some_and(|kind| kind.is_dir()) {
                return true;
            }
            entry
                .path()
                .strip_prefix(&owned_root)
                .ok()
                .and_then(|path| RelPath::parse_bytes(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).ok())
                .is_none_or(|path| !skip(&path))
        });
    let mut survey = Survey::default();
    for entry in builder.build() {
        let entry = match entry {
            Ok(entry) if entry.depth() == 0 => continue,
            Ok(entry) => entry,
            Err(error) => {
                survey.troubles.push(unreadable(&start, &error));
                continue;
            }
        };
        let kind = match entry.file_type() {
            Some(kind) if kind.is_symlink() => Kind::Link,
            Some(kind) if kind.is_dir() => Kind::Dir,
            Some(kind) if kind.is_file() => Kind::File,
            _ => Kind::Special,
        };
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
        match RelPath::parse_bytes(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())) {
            Ok(path) => survey.found.push(Found { path, kind }),
            Err(_) => survey.troubles.push(Trouble::NotUtf8 { path: entry.path().to_owned() }),
        }
    }
    survey.found.sort_by(|one, other| one.path.cmp(&other.path));
    survey
}

fn unreadable(start: &Path, error: &ignore::Error) -> Trouble {
    fn parts(error: &ignore::Error, path: &mut PathBuf) -> String {
        match error {
            ignore::Error::WithPath { path: place, err } => {
                place.clone_into(path);
                parts(err, path)
            }
            ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => parts(err, path),
            ignore::Error::Io(cause) => {
                let text = cause.to_string();
                text.split(" (os error").next().unwrap_or(&text).to_lowercase()
            }
            other => other.to_string(),
        }
    }
    let mut path = start.to_owned();
    let cause = parts(error, &mut path);
    Trouble::Unreadable { path, cause }
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
