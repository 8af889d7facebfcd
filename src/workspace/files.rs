//! Source files as git sees them, listed once per run and only where asked for. Knows no tasks.
//!
//! What was listed stays as it was for the life of the value: one run sees one state of the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::ids::PackageId;
use crate::base::path::RelPath;
use crate::fs::ops::Kind;
use crate::fs::walk::{self, Found, Survey, Trouble, WalkError};
use crate::workspace::model::Workspace;

/// The source files of a workspace, listed lazily. Shared between threads.
pub struct SourceFiles<'w> {
    workspace: &'w Workspace,
    cells: Mutex<BTreeMap<Key, Arc<Cell>>>,
}

/// What one walk covers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// A directory with everything beneath.
    Dir(RelPath),
    /// A package without those nested in it.
    Package(PackageId),
}

/// Filled by the first who asks; others wait for that walk instead of making their own.
type Cell = Mutex<Option<Arc<Survey>>>;

/// A part of a listing: everything found beneath one directory, in byte order of the paths.
#[derive(Clone)]
pub struct Region {
    survey: Arc<Survey>,
    range: Range<usize>,
    dir: RelPath,
}

impl Deref for Region {
    type Target = [Found];
    fn deref(&self) -> &[Found] {
        &self.survey.found[self.range.clone()]
    }
}

impl Region {
    fn of(survey: Arc<Survey>, dir: &RelPath) -> Self {
        let range = beneath(&survey.found, dir);
        Self { survey, range, dir: dir.clone() }
    }

    /// What beneath the directory, or above it, could not be looked at.
    pub fn troubles(&self, root: &Path) -> impl Iterator<Item = &Trouble> {
        let dir = root.join(self.dir.as_str());
        self.survey.troubles.iter().filter(move |trouble| {
            let above = matches!(trouble, Trouble::Unreadable { .. }) && dir.starts_with(trouble.path());
            above || trouble.path().starts_with(&dir)
        })
    }

    /// What is found outside some directories, given in byte order; the directories themselves are left out too.
    pub fn without(&self, dirs: &[&RelPath]) -> impl Iterator<Item = &Found> {
        let hidden: Vec<Range<usize>> = dirs.iter().map(|dir| beneath(self, dir)).collect();
        let mut next = hidden.into_iter().filter(|range| !range.is_empty()).collect::<Vec<_>>();
        next.sort_by_key(|range| range.start);
        let mut next = next.into_iter().peekable();
        self.iter().enumerate().filter_map(move |(at, found)| {
            while next.next_if(|range| range.end <= at).is_some() {}
            let inside = next.peek().is_some_and(|range| range.contains(&at));
            let itself = found.kind == Kind::Dir && dirs.binary_search(&&found.path).is_ok();
            (!inside && !itself).then_some(found)
        })
    }

    /// Whether nothing that git sees lies in a listed directory.
    pub fn is_bare(&self, dir: &RelPath) -> bool {
        beneath(&self.survey.found, dir).is_empty()
    }
}

/// The run of entries strictly beneath `dir`.
fn beneath(found: &[Found], dir: &RelPath) -> Range<usize> {
    if dir.is_root() {
        return 0..found.len();
    }
    // `/` is followed by `0` in byte order, so the run ends where `dir0` would stand.
    let (first, after) = (format!("{}/", dir.as_str()), format!("{}0", dir.as_str()));
    let start = found.partition_point(|one| one.path.as_str() < first.as_str());
    let end = found.partition_point(|one| one.path.as_str() < after.as_str());
    start..end
}

/// Whether a directory is neither on the way to another nor in it. A walk begins at the package, so that a directory that is ignored,
/// or behind a link, lists as empty.
fn leads_aside(path: &RelPath, dir: &RelPath) -> bool {
    !path.starts_with(dir) && !dir.starts_with(path)
}

impl<'w> SourceFiles<'w> {
    /// Lists everything anew, when asked.
    pub fn new(workspace: &'w Workspace) -> Self {
        Self { workspace, cells: Mutex::default() }
    }

    /// Starts from the listing that loading the workspace made, if it made one. Only for a workspace loaded just now.
    pub fn from_load(workspace: &'w Workspace) -> Self {
        let files = Self::new(workspace);
        if let Some(walked) = &workspace.walked {
            let cell = files.cell(Key::Dir(RelPath::root()));
            *cell.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(walked));
        }
        files
    }

    /// Everything beneath a directory that git does not ignore, nested packages included; nothing if it is not there.
    ///
    /// # Errors
    /// If something there could not be looked at.
    pub fn list(&self, dir: &RelPath) -> Result<Region, WalkError> {
        let region = self.look(dir);
        let trouble = region.troubles(&self.workspace.root).next().cloned();
        trouble.map_or(Ok(region), |trouble| Err(trouble.into()))
    }

    /// Like [`SourceFiles::list`]; the caller judges the troubles.
    pub fn look(&self, dir: &RelPath) -> Region {
        let owner = self.workspace.owner(dir).unwrap_or(PackageId(0));
        if let Some(survey) = self.known_above(dir, owner) {
            return Region::of(survey, dir);
        }
        if self.is_alone(dir, owner)
            && let Some(survey) = self.known(&Key::Package(owner))
        {
            return Region::of(survey, dir);
        }
        let survey = self.fill(Key::Dir(dir.clone()), || {
            let start = &self.workspace.packages[owner].dir;
            walk::survey(&self.workspace.root, start, |path| leads_aside(path, dir))
        });
        Region::of(survey, dir)
    }

    /// Lists whole packages, and directories with everything beneath, in parallel on the current rayon pool: what is asked of
    /// them later is at hand. What is listed already is not listed again.
    pub fn list_early(&self, packages: &BTreeSet<PackageId>, dirs: &BTreeSet<RelPath>) {
        let beneath_another =
            |dir: &RelPath| std::iter::successors(dir.parent(), RelPath::parent).any(|above| dirs.contains(&above));
        let mut walks: Vec<(Key, PackageId)> = Vec::new();
        for package in packages {
            let dir = &self.workspace.packages[*package].dir;
            if !dirs.contains(dir) && !beneath_another(dir) && self.known_above(dir, *package).is_none() {
                walks.push((Key::Package(*package), *package));
            }
        }
        for dir in dirs.iter().filter(|dir| !beneath_another(dir)) {
            let owner = self.workspace.owner(dir).unwrap_or(PackageId(0));
            let with_package = packages.contains(&owner) && self.is_alone(dir, owner);
            if !with_package && self.known_above(dir, owner).is_none() {
                walks.push((Key::Dir(dir.clone()), owner));
            }
        }
        walks.retain(|(key, _)| self.known(key).is_none());
        let starts: Vec<RelPath> = walks.iter().map(|(_, owner)| self.workspace.packages[*owner].dir.clone()).collect();
        let surveys = walk::surveys(&self.workspace.root, &starts, |at, path| match &walks[at].0 {
            Key::Dir(dir) => leads_aside(path, dir),
            Key::Package(_) => self.workspace.package_at(path).is_some(),
        });
        for ((key, _), survey) in walks.into_iter().zip(surveys) {
            self.fill(key, || survey);
        }
    }

    /// A listing that has everything beneath a directory: one of the directory itself, or of one above it.
    fn known_above(&self, dir: &RelPath, owner: PackageId) -> Option<Arc<Survey>> {
        let package = &self.workspace.packages[owner].dir;
        std::iter::successors(Some(dir.clone()), RelPath::parent).find_map(|above| {
            // Git may ignore a directory that is a package all the same: a listing from above has nothing of it.
            let reaches = |survey: &Arc<Survey>| {
                above.starts_with(package) || survey.found.binary_search_by(|found| found.path.cmp(package)).is_ok()
            };
            self.known(&Key::Dir(above.clone())).filter(reaches)
        })
    }

    /// Whether no package lies in a directory of its owner.
    fn is_alone(&self, dir: &RelPath, owner: PackageId) -> bool {
        !self.workspace.nested(owner).any(|nested| nested.starts_with(dir))
    }

    /// Everything of a package that git does not ignore, less the packages nested in it; the caller judges the troubles.
    ///
    /// The region may still contain the nested packages' files when a larger listing was at hand:
    /// [`Region::without`] leaves them out.
    pub fn look_package(&self, package: PackageId) -> Region {
        let dir = &self.workspace.packages[package].dir;
        if let Some(survey) = self.known_above(dir, package) {
            return Region::of(survey, dir);
        }
        let survey = self.fill(Key::Package(package), || {
            walk::survey(&self.workspace.root, dir, |path| self.workspace.package_at(path).is_some())
        });
        Region::of(survey, dir)
    }

    fn cell(&self, key: Key) -> Arc<Cell> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry(key).or_default())
    }

    fn known(&self, key: &Key) -> Option<Arc<Survey>> {
        let cell = {
            let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(cells.get(key)?)
        };
        let survey = cell.lock().unwrap_or_else(PoisonError::into_inner);
        survey.clone()
    }

    fn fill(&self, key: Key, walk: impl FnOnce() -> Survey) -> Arc<Survey> {
        let cell = self.cell(key);
        let mut survey = cell.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(survey.get_or_insert_with(|| Arc::new(walk())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ops;
    use crate::workspace::fixture::{Fixture, path};

    #[test]
    fn a_directory_lists_the_same_whatever_was_listed_before() {
        let dir = tempfile::tempdir().expect("a directory");
        for file in ["a/x", "a/sub/y", "a/sub-z", "a/in/q", "b/out/x", "b/k"] {
            let file = dir.path().join(file);
            ops::create_dir_all(file.parent().expect("below the root")).expect("a directory");
            ops::write(&file, b"").expect("a file");
        }
        ops::write(&dir.path().join(".gitignore"), b"out/\n").expect("a file");
        let workspace = Fixture::at(dir.path()).package("a").package("a/in").package("b").build();
        let list = |files: &SourceFiles<'_>, below: &str| -> Vec<String> {
            files.list(&path(below)).expect("readable").iter().map(|found| found.path.to_string()).collect()
        };
        let orders: [&[&str]; 3] =
            [&["a/sub", "a", "b/out", ""], &["", "a", "a/sub", "b/out"], &["b/out", "a/sub", "a"]];
        for order in orders {
            let files = SourceFiles::new(&workspace);
            files.look_package(workspace.package_at(&path("a")).expect("a package"));
            for below in order {
                let expect: &[&str] = match *below {
                    "a" => &["a/in", "a/in/q", "a/sub", "a/sub-z", "a/sub/y", "a/x"],
                    "a/sub" => &["a/sub/y"],
                    "b/out" => &[],
                    _ => &[".gitignore", "a", "a/in", "a/in/q", "a/sub", "a/sub-z", "a/sub/y", "a/x", "b", "b/k"],
                };
                assert_eq!(list(&files, below), expect, "{below} in {order:?}");
            }
        }
    }

    #[test]
    fn a_package_that_git_ignores_lists_the_same_whatever_was_listed_before() {
        let dir = tempfile::tempdir().expect("a directory");
        for file in ["gen/x/a", "gen/x/sub/b", "c"] {
            let file = dir.path().join(file);
            ops::create_dir_all(file.parent().expect("below the root")).expect("a directory");
            ops::write(&file, b"").expect("a file");
        }
        ops::write(&dir.path().join(".gitignore"), b"gen/\n").expect("a file");
        let workspace = Fixture::at(dir.path()).package("gen/x").build();
        let package = workspace.package_at(&path("gen/x")).expect("a package");
        let list = |prepare: &dyn Fn(&SourceFiles<'_>)| -> [usize; 3] {
            let files = SourceFiles::new(&workspace);
            prepare(&files);
            let count = |dir: &str| files.list(&path(dir)).expect("readable").len();
            [files.look_package(package).len(), count("gen/x/sub"), count("")]
        };
        let dirs = |dirs: &[&str]| dirs.iter().map(|dir| path(dir)).collect::<BTreeSet<RelPath>>();
        assert_eq!(list(&|_| ()), [3, 1, 2]);
        assert_eq!(list(&|files| drop(files.look(&RelPath::root()))), [3, 1, 2]);
        assert_eq!(list(&|files| files.list_early(&BTreeSet::from([package]), &dirs(&["", "gen/x/sub"]))), [3, 1, 2]);
        assert_eq!(list(&|files| files.list_early(&BTreeSet::new(), &dirs(&["", "gen/x"]))), [3, 1, 2]);
    }

    #[test]
    fn an_unreadable_directory_is_an_error_only_where_it_lies() {
        let dir = tempfile::tempdir().expect("a directory");
        ops::create_dir_all(&dir.path().join("a/locked")).expect("a directory");
        ops::create_dir_all(&dir.path().join("b")).expect("a directory");
        ops::set_mode(&dir.path().join("a/locked"), 0).expect("our own directory");
        let readable = ops::read_dir(&dir.path().join("a/locked")).is_ok(); // For root nothing is unreadable.
        let workspace = Fixture::at(dir.path()).build();
        let files = SourceFiles::new(&workspace);
        assert!(files.list(&path("b")).is_ok());
        assert_eq!(files.list(&path("")).is_ok(), readable);
        assert!(files.list(&path("b")).is_ok());
        assert_eq!(files.list(&path("a/locked/x")).is_ok(), readable);
        ops::set_mode(&dir.path().join("a/locked"), 0o755).expect("our own directory");
    }
}
