//! The loaded workspace: packages and tasks by id, and lookups over them. Reads no files.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::{Id, IdMap, PackageId, TaskId};
use crate::base::label::Label;
use crate::base::path::RelPath;
use crate::base::span::{Place, Sources};
use crate::fs::walk::Survey;
use crate::manifest::model::WorkspaceConfig;
use crate::workspace::split::Splits;
use crate::workspace::tasks::Tasks;

/// Everything the manifests of one workspace say.
///
/// Packages are in byte order of their directories and tasks in the order of their labels, so comparing ids compares
/// labels and every walk over ids is deterministic.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Directory of the root manifest, as it was given.
    pub root: PathBuf,
    /// `[workspace]` and its companions.
    pub config: WorkspaceConfig,
    /// The packages; the root directory is always the first.
    pub packages: IdMap<PackageId, Package>,
    /// The tasks.
    pub tasks: Tasks,
    /// Which of them are parts of one.
    pub splits: Splits,
    /// Texts that places point into.
    pub sources: Sources,
    /// Warnings met while loading.
    pub diagnostics: Vec<Diagnostic>,
    /// The listing of the whole tree, where finding the packages took one.
    pub walked: Option<Arc<Survey>>,
}

/// A directory with tasks.
#[derive(Clone, Debug)]
pub struct Package {
    /// Where.
    pub dir: RelPath,
    /// `[package] name`, else the name of the directory; for the root the name of the workspace.
    pub name: String,
    /// Packages it depends on, in id order.
    pub depends: Vec<PackageId>,
    /// Packages it depends on for development only (tests, tools), in id order; none of them is in `depends`.
    pub dev_depends: Vec<PackageId>,
    /// Its tasks, in id order.
    pub tasks: Vec<TaskId>,
    /// Its manifest; `None` for a package that only `[[apply]]` makes.
    pub place: Option<Place>,
}

impl Workspace {
    /// The package whose directory is `dir`.
    pub fn package_at(&self, dir: &RelPath) -> Option<PackageId> {
        let at = partition(self.packages.len(), |index| self.packages[PackageId::from_index(index)].dir < *dir);
        let id = PackageId::from_index(at);
        (at < self.packages.len() && self.packages[id].dir == *dir).then_some(id)
    }

    /// The innermost package that `path` is or lies in.
    pub fn owner(&self, path: &RelPath) -> Option<PackageId> {
        let mut here = Some(path.clone());
        while let Some(dir) = here {
            if let Some(id) = self.package_at(&dir) {
                return Some(id);
            }
            here = dir.parent();
        }
        None
    }

    /// Directories of the packages strictly beneath a package, in byte order.
    pub fn nested(&self, package: PackageId) -> impl Iterator<Item = &RelPath> {
        self.beneath(&self.packages[package].dir).map(|id| &self.packages[id].dir)
    }

    /// The packages strictly beneath a directory, in order.
    pub fn beneath(&self, dir: &RelPath) -> impl Iterator<Item = PackageId> + use<'_> {
        let first = partition(self.packages.len(), |index| self.packages[PackageId::from_index(index)].dir <= *dir);
        let (dir, directory) = (dir.clone(), dir.clone());
        (first..self.packages.len())
            .map(PackageId::from_index)
            // `a-b` sorts between `a` and `a/c`: the beneath ones are one run, but it need not start at once.
            .take_while(move |id| dir.is_root() || self.packages[*id].dir.as_str().starts_with(dir.as_str()))
            .filter(move |id| self.packages[*id].dir.starts_with(&directory))
    }

    /// The task with exactly this label.
    pub fn task(&self, label: &Label) -> Option<TaskId> {
        let at = partition(self.tasks.len(), |index| self.tasks[TaskId::from_index(index)].label < *label);
        let id = TaskId::from_index(at);
        (at < self.tasks.len() && self.tasks[id].label == *label).then_some(id)
    }

    /// The tasks of a package that are called so: one, or all that a matrix made of it. Cost: no task is read for it.
    pub fn called(&self, package: PackageId, name: &str) -> &[TaskId] {
        let own = &self.packages[package].tasks;
        let start = own.partition_point(|id| self.tasks.name(*id) < name);
        let count = own[start..].partition_point(|id| self.tasks.name(*id) == name);
        &own[start..start + count]
    }

    /// The package a task belongs to. Cost: a search by name; a compiled task is not read for it.
    pub fn package_of(&self, task: TaskId) -> PackageId {
        let by_label = || self.package_at(&self.tasks[task].label.package);
        self.tasks.package(task).or_else(by_label).expect("every task was lowered from a package")
    }

    /// Everything a package depends on, not for development only, directly or not; without itself, in id order.
    pub fn all_depends(&self, package: PackageId) -> Vec<PackageId> {
        let mut seen = BTreeSet::from([package]);
        let mut next = vec![package];
        while let Some(here) = next.pop() {
            next.extend(self.packages[here].depends.iter().filter(|to| seen.insert(**to)));
        }
        seen.remove(&package);
        seen.into_iter().collect()
    }
}

/// The first of `count` indexes for which `before` no longer holds.
fn partition(count: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use crate::workspace::fixture::{Fixture, path};

    #[test]
    fn the_innermost_package_owns_a_path() {
        let workspace = Fixture::new().package("a").package("a-b").package("a/c").package("a/c/d").package("b").build();
        let check = |file: &str, owner: &str| {
            let id = workspace.owner(&path(file)).expect("the root owns everything");
            assert_eq!(workspace.packages[id].dir.as_str(), owner, "{file}");
        };
        check("x", "");
        check("a/x", "a");
        check("a/c/x", "a/c");
        check("a/c/d", "a/c/d");
        check("a-b/x", "a-b");
        let nested = |dir: &str| -> Vec<String> {
            let id = workspace.package_at(&path(dir)).expect("a package");
            workspace.nested(id).map(ToString::to_string).collect()
        };
        assert_eq!(nested("a"), ["a/c", "a/c/d"]);
        assert_eq!(nested(""), ["a", "a-b", "a/c", "a/c/d", "b"]);
        assert_eq!(nested("b"), Vec::<String>::new());
    }
}
