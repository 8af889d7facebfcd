//! Which paths are outputs of which tasks, by what tasks declare. Looks at no disk.
//!
//! A package's outputs stop at the packages nested in it: a wildcard of the outer one claims nothing there.

use std::collections::HashSet;
use std::sync::OnceLock;

use crate::base::ids::{IdMap, PackageId, TaskId};
use crate::base::path::RelPath;
use crate::base::span::Place;
use crate::manifest::glob::{Pattern, PatternItem};
use crate::manifest::model::{RunTask, Task, TaskKind};
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

/// The files a task reports into: they land beside the sources like outputs, and are none of them.
///
/// Two tasks may report into one file, so these are not held against each other.
fn reports(run: &RunTask) -> impl Iterator<Item = &PatternItem> {
    // What cannot be merged into one file lies beside it.
    let apart = run.split.iter().flat_map(|split| &*split.apart.items);
    run.reports.items.iter().filter(|item| !item.exclude).chain(apart)
}

/// Every pattern of a task that claims something: outputs, committed ones, reports.
fn declared(run: &RunTask) -> impl Iterator<Item = (&Pattern, Committed, Declared)> {
    let outputs = run.outputs.iter().enumerate();
    let outputs = outputs.map(|(at, output)| (&output.value, Committed::No, Declared::Output(at)));
    let committed = run.committed.iter().enumerate();
    let committed = committed.map(|(at, output)| (&output.value, Committed::Yes, Declared::Committed(at)));
    let reports = reports(run).enumerate().map(|(at, item)| (&item.pattern, Committed::No, Declared::Report(at)));
    outputs.chain(committed).chain(reports)
}

/// The outputs that the tasks of a workspace declare, in the order of the ids. What several parts of one task claim alike comes
/// once, as that of the first of them.
pub fn all_claims(workspace: &Workspace) -> Vec<Claim> {
    let mut all = Vec::new();
    let mut known: HashSet<(TaskId, RelPath, String, Committed)> = HashSet::new();
    for (id, task) in workspace.tasks.iter() {
        let own = claims_of(id, task);
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

/// An output as a task of the package declares it.
#[derive(Clone)]
struct Own {
    /// Relative to the package.
    prefix: RelPath,
    task: TaskId,
    committed: Committed,
    /// Which pattern of the task decides for paths beneath the prefix; `None` where all of them are claimed.
    decides: Option<Declared>,
}

/// A pattern of a task, by its position in the list.
#[derive(Clone, Copy)]
enum Declared {
    Output(usize),
    Committed(usize),
    Report(usize),
}

impl Own {
    fn covers(&self, workspace: &Workspace, path: &RelPath) -> bool {
        let TaskKind::Run(run) = &workspace.tasks[self.task].kind else { return true };
        let pattern = match self.decides {
            None => return true,
            Some(Declared::Output(at)) => Some(&run.outputs[at].value),
            Some(Declared::Committed(at)) => Some(&run.committed[at].value),
            Some(Declared::Report(at)) => reports(run).nth(at).map(|item| &item.pattern),
        };
        pattern.is_some_and(|pattern| pattern.matches(path))
    }
}

/// The outputs that the tasks of one package declare, in byte order of their prefixes: a path is only compared with claims along its
/// own ancestors.
#[derive(Clone, Default)]
struct PackageOutputs {
    claims: Vec<Own>,
}

impl PackageOutputs {
    fn of(workspace: &Workspace, package: PackageId) -> Self {
        let mut claims: Vec<Own> = Vec::new();
        // What several parts of one task claim alike comes once, as that of the first of them.
        let mut known: HashSet<(TaskId, &RelPath, &str, Committed)> = HashSet::new();
        for id in &workspace.packages[package].tasks {
            let task = *id;
            match &workspace.tasks[task].kind {
                TaskKind::Run(run) => {
                    let split = workspace.split_of(task).map(|_| workspace.whole(task));
                    for (pattern, committed, declared) in declared(run) {
                        let is_whole = pattern.literal || pattern.whole_dir().is_some();
                        let decides = Some(declared).filter(|_| !is_whole);
                        let is_new = |whole| known.insert((whole, &pattern.prefix, &pattern.text, committed));
                        if split.is_none_or(is_new) {
                            claims.push(Own { prefix: pattern.prefix.clone(), task, committed, decides });
                        }
                    }
                }
                TaskKind::Fetch(fetch) => {
                    let (prefix, committed) = (fetch.output.clone(), Committed::No);
                    claims.push(Own { prefix, task, committed, decides: None });
                }
                TaskKind::Service(_) => {}
            }
        }
        claims.sort_by(|one, other| one.prefix.cmp(&other.prefix));
        Self { claims }
    }

    /// Claims with exactly this prefix.
    fn at(&self, prefix: &str) -> &[Own] {
        let start = self.claims.partition_point(|claim| claim.prefix.as_str() < prefix);
        let count = self.claims[start..].partition_point(|claim| claim.prefix.as_str() == prefix);
        &self.claims[start..start + count]
    }

    /// Whether a claim begins in the directory or deeper.
    fn any_beneath(&self, dir: &RelPath) -> bool {
        let start = self.claims.partition_point(|claim| claim.prefix < *dir);
        let run = self.claims[start..].iter().map(|claim| &claim.prefix);
        // `a-b` lies in the same run as `a` and `a/c`.
        run.take_while(|prefix| prefix.as_str().starts_with(dir.as_str())).any(|prefix| prefix.starts_with(dir))
    }
}

/// The path and every directory above it, the outermost first, which is the empty text.
fn ancestors(path: &RelPath) -> impl Iterator<Item = &str> {
    let text = path.as_str();
    let ends = text.match_indices('/').map(|(at, _)| at).chain([text.len()]).filter(|end| *end > 0);
    std::iter::once("").chain(ends.map(|end| &text[..end]))
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

    /// The outputs among which a path would be, and the path relative to their package.
    fn around(&self, path: &RelPath) -> Option<(&PackageOutputs, RelPath)> {
        let owner = self.workspace.owner(path)?;
        Some((self.package(owner), path.strip_prefix(&self.workspace.packages[owner].dir)?))
    }

    /// The tasks that declare the path as an output; two only where their patterns overlap beyond what loading can tell.
    ///
    /// A path that one task lists both as an output and as committed comes once, as committed.
    pub fn producers(&self, path: &RelPath) -> Vec<(TaskId, Committed)> {
        let Some((outputs, path)) = self.around(path) else { return Vec::new() };
        let claims =
            ancestors(&path).flat_map(|prefix| outputs.at(prefix)).filter(|claim| claim.covers(self.workspace, &path));
        let mut found: Vec<(TaskId, Committed)> = claims.map(|claim| (claim.task, claim.committed)).collect();
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
        let Some((outputs, dir)) = self.around(dir) else { return false };
        outputs.any_beneath(&dir) || ancestors(&dir).any(|above| !outputs.at(above).is_empty())
    }

    /// Whether outputs are declared in the directory or deeper.
    pub fn any_beneath(&self, dir: &RelPath) -> bool {
        // By the packages that it lies in, and by those that lie in it.
        let above = std::iter::successors(Some(dir.clone()), RelPath::parent);
        let mut owners = above.filter_map(|dir| self.workspace.package_at(&dir));
        let around = |package: PackageId| {
            let below = dir.strip_prefix(&self.workspace.packages[package].dir);
            below.is_some_and(|below| self.package(package).any_beneath(&below))
        };
        owners.any(around) || self.workspace.beneath(dir).any(|package| !self.package(package).claims.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::{Fixture, path};

    proptest::proptest! {
        #[test]
        fn the_index_tells_what_all_claims_tell(
            outputs in proptest::collection::vec((0usize..5, 0usize..10, 0u8..4), 0..8),
        ) {
            const DIRS: [&str; 5] = ["", "a", "a/in", "a-b", "c/d"];
            const PATTERNS: [&str; 10] =
                ["dist", "dist/**", "**/*.gen", "*.gen", "in/x", "src/x.ts", "**", "in-*/x", "dist/*/y", "{dist,out}/x"];
            const PATHS: [&str; 22] = [
                "dist", "dist/x", "x.gen", "a", "a/dist/x", "a/dist/z/y", "a/in", "a/in/x", "a/in/dist/x", "a/in/y.gen", "a/in-1/x",
                "a-b/dist", "a-b/x/y.gen", "c", "c/x.gen", "c/d", "c/d/dist", "c/d/out/x", "src/x.ts", "a/src/x.ts", "zz/y", "a/src",
            ];
            let mut fixture = Fixture::new();
            for dir in DIRS {
                fixture = fixture.package(dir);
            }
            for (number, (dir, pattern, kind)) in outputs.iter().enumerate() {
                let pattern = PATTERNS[*pattern];
                fixture = fixture.package(DIRS[*dir]).task(&format!("t{number}"));
                fixture = match kind {
                    0 => fixture.outputs(&[pattern]).committed(&[pattern]),
                    1 => fixture.reports(pattern),
                    _ => fixture.outputs(&[pattern]),
                };
            }
            let workspace = fixture.build();
            let reported = |id: TaskId, task: &Task| -> Vec<Claim> {
                let TaskKind::Run(run) = &task.kind else { return Vec::new() };
                let dir = &task.label.package;
                let claim = |item: &PatternItem| Claim {
                    task: id,
                    pattern: item.pattern.below(dir),
                    committed: Committed::No,
                    place: item.place.clone(),
                };
                reports(run).map(claim).collect()
            };
            let all: Vec<Claim> =
                workspace.tasks.iter().flat_map(|(id, task)| [claims_of(id, task), reported(id, task)].concat()).collect();
            let index = OutputIndex::new(&workspace);
            let mut hider = index.hider(TaskId(0));
            for text in PATHS {
                let at = path(text);
                let owner = workspace.owner(&at);
                let own = all.iter().filter(|claim| owner == Some(workspace.package_of(claim.task)) && claim.covers(&at));
                let mut expect: Vec<(TaskId, Committed)> = own.map(|claim| (claim.task, claim.committed)).collect();
                expect.sort_unstable();
                expect.dedup_by_key(|(task, _)| *task);
                proptest::prop_assert_eq!(index.producers(&at), expect, "{}", text);
                proptest::prop_assert_eq!(hider(&at), index.hides(&at, TaskId(0)), "{}", text);
                let beneath = all.iter().any(|claim| claim.pattern.prefix.starts_with(&at));
                proptest::prop_assert_eq!(index.any_beneath(&at), beneath, "{}", text);
            }
        }
    }

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
