//! Which paths are outputs of which tasks, by what tasks declare. Looks at no disk.
//!
//! A package's outputs stop at the packages nested in it: a wildcard of the outer one claims nothing there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::OnceLock;

use crate::base::ids::{IdMap, PackageId, TaskId};
use crate::base::path::RelPath;
use crate::base::span::Place;
use crate::manifest::glob::Pattern;
use crate::manifest::model::{Task, TaskKind};
use crate::workspace::model::Workspace;

/// Whether an output is also a source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Committed {
    /// It is also in git: a source file for every task but the one that makes it.
    Yes,
    /// It is an output only.
    No,
}

/// An output that a task declares.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The task.
    pub task: TaskId,
    /// Relative to the workspace.
    pub pattern: Pattern,
    /// Whether `committed` lists it.
    pub committed: Committed,
    /// Where it is declared.
    pub place: Place,
}

impl Claim {
    /// The path that is claimed with everything beneath: of a literal, or `dir/**`.
    pub fn whole(&self) -> Option<&RelPath> {
        if self.pattern.literal { Some(&self.pattern.prefix) } else { self.pattern.whole_dir() }
    }

    /// Whether the path is claimed.
    pub fn covers(&self, path: &RelPath) -> bool {
        match self.whole() {
            Some(whole) => path.starts_with(whole),
            None => self.pattern.matches(path),
        }
    }
}

/// Every output a task declares, in the order written; committed ones after the others.
pub fn claims_of(id: TaskId, task: &Task) -> Vec<Claim> {
    let dir = &task.label.package;
    let claim = |pattern: &Pattern, place: &Place, committed| Claim {
        task: id,
        pattern: pattern.below(dir),
        committed,
        place: place.clone(),
    };
    match &task.kind {
        TaskKind::Run(run) => {
            let plain = run.outputs.iter().map(|output| claim(&output.value, &output.place, Committed::No));
            let committed = run.committed.iter().map(|output| claim(&output.value, &output.place, Committed::Yes));
            plain.chain(committed).collect()
        }
        TaskKind::Fetch(fetch) => {
            let escaped = globset::escape(fetch.output.as_str());
            let mut pattern = Pattern::parse(&escaped).expect("an escaped path is a pattern");
            pattern.prefix = fetch.output.clone();
            pattern.literal = true;
            vec![claim(&pattern, &task.place, Committed::No)]
        }
        TaskKind::Service(_) => Vec::new(),
    }
}

/// The files a task reports into, as claims: they land beside the sources like outputs, and are none of them.
///
/// Two tasks may report into one file, so these are not held against each other.
fn reports_of(id: TaskId, task: &Task) -> Vec<Claim> {
    let TaskKind::Run(run) = &task.kind else { return Vec::new() };
    // What cannot be merged into one file lies beside it.
    let apart = run.split.iter().flat_map(|split| &*split.apart.items);
    let included = run.reports.items.iter().filter(|item| !item.exclude);
    included
        .chain(apart)
        .map(|item| Claim {
            task: id,
            pattern: item.pattern.below(&task.label.package),
            committed: Committed::No,
            place: item.place.clone(),
        })
        .collect()
}

/// What `claims` gives for some tasks, in the order of the ids. What several parts of one task claim alike comes once, as that
/// of the first of them.
fn of_tasks(
    workspace: &Workspace,
    tasks: impl Iterator<Item = TaskId>,
    claims: impl Fn(TaskId, &Task) -> Vec<Claim>,
) -> Vec<Claim> {
    let mut all = Vec::new();
    let mut known: HashSet<(TaskId, RelPath, String, Committed)> = HashSet::new();
    for id in tasks {
        let own = claims(id, &workspace.tasks[id]);
        if workspace.split_of(id).is_none() {
            all.extend(own);
            continue;
        }
        let whole = workspace.whole(id);
        all.extend(own.into_iter().filter(|claim| {
            let pattern = &claim.pattern;
            known.insert((whole, pattern.prefix.clone(), pattern.text.clone(), claim.committed))
        }));
    }
    all
}

/// The outputs that the tasks of a workspace declare; parts of one task claim alike once.
pub fn all_claims(workspace: &Workspace) -> Vec<Claim> {
    of_tasks(workspace, workspace.tasks.ids(), claims_of)
}

/// All declared outputs, reports included, found by path.
///
/// Those of a package are looked at when a path in it is asked about: an output of a task lies in the task's own package, and a
/// path lies in one.
pub struct OutputIndex<'w> {
    workspace: &'w Workspace,
    packages: IdMap<PackageId, OnceLock<PackageOutputs>>,
    /// Directories with a package directly in them.
    package_holders: HashSet<RelPath>,
}

/// The outputs that the tasks of one package declare.
#[derive(Clone, Default)]
struct PackageOutputs {
    /// By the prefix of the pattern: a path is only compared with claims along its own ancestors.
    by_prefix: HashMap<String, Vec<Claim>>,
    prefixes: BTreeSet<RelPath>,
    /// Directories with such a prefix directly in them.
    holders: HashSet<RelPath>,
}

impl PackageOutputs {
    fn of(workspace: &Workspace, package: PackageId) -> Self {
        let tasks = workspace.packages[package].tasks.iter().copied();
        let mut outputs = Self::default();
        for claim in of_tasks(workspace, tasks, |id, task| [claims_of(id, task), reports_of(id, task)].concat()) {
            outputs.prefixes.insert(claim.pattern.prefix.clone());
            outputs.by_prefix.entry(claim.pattern.prefix.as_str().to_owned()).or_default().push(claim);
        }
        outputs.holders = outputs.prefixes.iter().filter_map(RelPath::parent).collect();
        outputs
    }

    /// Whether a claim begins in the directory or deeper.
    fn any_beneath(&self, dir: &RelPath) -> bool {
        let run = self.prefixes.range(dir..).take_while(|prefix| prefix.as_str().starts_with(dir.as_str()));
        // `a-b` lies in the same run as `a` and `a/c`.
        run.into_iter().any(|prefix| prefix.starts_with(dir))
    }
}

impl<'w> OutputIndex<'w> {
    /// Indexes the outputs and reports of tasks when they are asked for.
    pub fn new(workspace: &'w Workspace) -> Self {
        let package_holders = workspace.packages.values().filter_map(|package| package.dir.parent()).collect();
        Self { workspace, packages: IdMap::filled(workspace.packages.len(), OnceLock::new()), package_holders }
    }

    fn package(&self, package: PackageId) -> &PackageOutputs {
        self.packages[package].get_or_init(|| PackageOutputs::of(self.workspace, package))
    }

    /// The outputs among which a path would be.
    fn around(&self, path: &RelPath) -> Option<&PackageOutputs> {
        self.workspace.owner(path).map(|owner| self.package(owner))
    }

    /// The tasks that declare the path as an output; two only where their patterns overlap beyond what loading can tell.
    ///
    /// A path that one task lists both as an output and as committed comes once, as committed.
    pub fn producers(&self, path: &RelPath) -> Vec<(TaskId, Committed)> {
        let Some(outputs) = self.around(path) else { return Vec::new() };
        let mut found: Vec<(TaskId, Committed)> = Vec::new();
        let text = path.as_str();
        let ends = text.match_indices('/').map(|(at, _)| at).chain([text.len()]);
        for prefix in std::iter::once("").chain(ends.map(|end| &text[..end])) {
            for claim in outputs.by_prefix.get(prefix).into_iter().flatten() {
                if claim.covers(path) {
                    found.push((claim.task, claim.committed));
                }
            }
        }
        found.sort_unstable();
        found.dedup_by_key(|(task, _)| *task);
        found
    }

    /// Whether a task sees the path only if it needs a producer of it: it is an output and not a source, or its own output.
    pub fn hides(&self, path: &RelPath, from: TaskId) -> bool {
        self.producers(path).iter().any(|(task, committed)| *committed == Committed::No || *task == from)
    }

    /// The same for many paths, most of them beside each other.
    pub fn hider(&self, from: TaskId) -> impl FnMut(&RelPath) -> bool {
        let mut last: Option<(RelPath, bool)> = None;
        move |path| {
            let parent = path.as_str().rsplit_once('/').map_or("", |(dir, _)| dir);
            let claimed = match &last {
                Some((dir, claimed)) if dir.as_str() == parent => *claimed,
                _ => {
                    let dir = path.parent().unwrap_or_default();
                    let claimed = self.claims_in(&dir);
                    last = Some((dir, claimed));
                    claimed
                }
            };
            claimed && self.hides(path, from)
        }
    }

    /// Whether something directly in a directory may be claimed: by the package that the directory lies in, or by one whose
    /// directory it is itself.
    fn claims_in(&self, dir: &RelPath) -> bool {
        if self.package_holders.contains(dir) {
            return true;
        }
        let Some(outputs) = self.around(dir) else { return false };
        let mut above = std::iter::successors(Some(dir.clone()), RelPath::parent);
        outputs.holders.contains(dir) || above.any(|dir| outputs.by_prefix.contains_key(dir.as_str()))
    }

    /// Whether outputs are declared in the directory or deeper.
    pub fn any_beneath(&self, dir: &RelPath) -> bool {
        // By the packages that it lies in, and by those that lie in it.
        let above = std::iter::successors(Some(dir.clone()), RelPath::parent);
        let mut owners = above.filter_map(|dir| self.workspace.package_at(&dir));
        let around = |package: PackageId| self.package(package).any_beneath(dir);
        owners.any(around) || self.workspace.beneath(dir).any(around)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::{Fixture, path};

    #[test]
    fn a_path_is_an_output_where_a_task_of_its_package_declares_it() {
        let workspace = Fixture::new()
            .package("a")
            .task("build")
            .outputs(&["dist/**", "**/*.gen"])
            .task("api")
            .outputs(&["src/api.ts", "src/client.ts"])
            .committed(&["src/api.ts"])
            .reports("junit.xml")
            .package("a/in")
            .build();
        let index = OutputIndex::new(&workspace);
        let check = |file: &str, expect: &[(&str, Committed)]| {
            let found = index.producers(&path(file));
            let found: Vec<_> =
                found.iter().map(|(task, committed)| (workspace.tasks.name(*task), *committed)).collect();
            assert_eq!(found, expect, "{file}");
            let mut hider = index.hider(TaskId(0));
            // Twice, and another between: what it keeps of a directory must not decide for the next.
            for file in [file, "a/dist/x", file, "q/x", file] {
                assert_eq!(hider(&path(file)), index.hides(&path(file), TaskId(0)), "{file}");
            }
        };
        check("a/dist/x", &[("build", Committed::No)]);
        check("a/dist", &[("build", Committed::No)]);
        check("a/distant", &[]);
        check("a/x/y.gen", &[("build", Committed::No)]);
        check("a/in/y.gen", &[]);
        check("a/src/api.ts", &[("api", Committed::Yes)]);
        check("a/src/client.ts", &[("api", Committed::No)]);
        check("a/junit.xml", &[("api", Committed::No)]);
        check("b.gen", &[]);
        let api = TaskId(0);
        assert!(index.hides(&path("a/src/api.ts"), api) && !index.hides(&path("a/src/api.ts"), TaskId(1)));
        assert!(
            index.any_beneath(&path("a/src")) && !index.any_beneath(&path("a/sr")) && !index.any_beneath(&path("b"))
        );
    }
}
