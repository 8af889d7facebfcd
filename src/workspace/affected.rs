//! Which tasks a set of changed files touches first-hand. Looks at no disk; what depends on them is the graph's matter.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::ids::{IdMap, PackageId, TaskId};
use crate::base::path::RelPath;
use crate::manifest::model::{Command, Inputs, Reach, RunTask, Task, TaskKind, Which};
use crate::workspace::changes::Change;
use crate::workspace::discover::MANIFEST;
use crate::workspace::inputs;
use crate::workspace::model::Workspace;
use crate::workspace::outputs::{Committed, OutputIndex};
use crate::workspace::split::GroupSizes;

/// Files that choose the version of a tool behind a shim, looked for from the package upwards.
const VERSION_FILES: [&str; 3] = [".python-version", "rust-toolchain", "rust-toolchain.toml"];

/// Files that tell dependencies between packages, and with them what `^` stands for.
const DEPENDENCY_FILES: [&str; 7] =
    [MANIFEST, "Cargo.toml", "package.json", "pnpm-workspace.yaml", "pyproject.toml", "go.mod", "go.work"];

/// Says what belongs to the source files.
const IGNORE_FILE: &str = ".gitignore";

/// Whether a change can be seen by a traced task.
pub type TracedSight<'a> = dyn Fn(TaskId, &Change, Scope) -> bool + 'a;

/// What of a change a traced task can have seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The file, its name, and the directories above it.
    Itself,
    /// Only the directories above it: it is an item of another part.
    Above,
}

/// Where traced tasks look: anywhere.
static ROOT: RelPath = RelPath::root();

/// Files and directories of the workspace that belong to the tools of a task, as far as they are there.
pub type ToolPaths<'a> = dyn Fn(TaskId) -> Vec<RelPath> + 'a;

/// What is known beside the workspace itself.
pub struct Known<'a> {
    /// Declared outputs.
    pub outputs: &'a OutputIndex<'a>,
    /// What tools consist of.
    pub tools: &'a ToolPaths<'a>,
    /// What traced tasks look at.
    pub traced: &'a TracedSight<'a>,
    /// The sizes of groups, for any number of items.
    pub sizes: &'a GroupSizes<'a>,
}

/// What changed files touch.
#[derive(Debug, Default)]
pub struct Touched {
    /// The tasks, each with the first such file in byte order.
    pub tasks: BTreeMap<TaskId, RelPath>,
    /// Split tasks that lost an item, by their first part: who needs the whole is touched, though no part may be.
    pub wholes: BTreeMap<TaskId, RelPath>,
}

/// The tasks that changed files can change.
///
/// A changed manifest counts for every task of its package, and the root manifest (templates, `[workspace]`) for every
/// task: keys are exact, this is only a promise to leave nothing out. One that came or went counts for the package around its own
/// as well, whose files it takes or gives. A committed output counts for the task that makes
/// it, since it is compared with what git has. A tool of the workspace counts by the path it is declared with, there or
/// not, and by what `tools` knows it to consist of; a version file for the tasks with tools beneath it; a `.gitignore` for
/// every task that looks for inputs where it applies.
pub fn directly(workspace: &Workspace, changed: &[Change], known: &Known<'_>) -> Touched {
    let mut changed: Vec<&Change> = changed.iter().collect();
    changed.sort();
    let special = Special::among(workspace, &changed);
    let mut touched: BTreeMap<TaskId, RelPath> = BTreeMap::new();
    let mut touch = |task: TaskId, path: &RelPath| {
        let first = touched.entry(task).or_insert_with(|| path.clone());
        if path < first {
            path.clone_into(first);
        }
    };
    for task in workspace.tasks.ids() {
        if let Some(path) = special.touching(workspace, task) {
            touch(task, path);
        }
        let near = candidates(workspace, task, &changed);
        if let Some(change) = near.into_iter().filter(|change| is_seen(workspace, task, change, known)).min() {
            touch(task, &change.path);
        }
        if changed.is_empty() {
            continue;
        }
        let parts = program_paths(workspace, task).into_iter().chain((known.tools)(task));
        if let Some(change) = parts.flat_map(|part| within(&changed, &part)).min() {
            touch(task, &change.path);
        }
    }
    let mut wholes = BTreeMap::new();
    for split in workspace.splits.all() {
        if let Some(path) = split.regrouped_by(workspace, known.outputs, &changed, known.sizes) {
            split.parts.iter().for_each(|part| touch(*part, path));
        }
        let gone = split.item_gone(workspace, known.outputs, &changed);
        wholes.extend(gone.map(|path| (split.parts[0], path.clone())));
    }
    for change in changed {
        for (task, committed) in known.outputs.producers(&change.path) {
            if committed == Committed::Yes {
                touch(task, &change.path);
            }
        }
    }
    Touched { tasks: touched, wholes }
}

/// Whether a change can be seen by a task among its inputs.
fn is_seen(workspace: &Workspace, task: TaskId, change: &Change, known: &Known<'_>) -> bool {
    let path = &change.path;
    let is_traced = matches!(&workspace.tasks[task].kind, TaskKind::Run(run) if matches!(run.inputs, Inputs::Traced));
    if !is_traced {
        return inputs::covers(workspace, task, path, known.outputs);
    }
    let item = workspace.split_of(task).and_then(|split| split.covers_item(workspace, task, path));
    match item {
        // Its command names the items.
        Some(true) if change.is_in_names() => true,
        Some(true) => (known.traced)(task, change, Scope::Itself),
        Some(false) => (known.traced)(task, change, Scope::Above),
        None => !known.outputs.hides(path, task) && (known.traced)(task, change, Scope::Itself),
    }
}

/// Changed files that count for more than the tasks that have them as inputs, in byte order.
struct Special<'a> {
    manifest_of: IdMap<PackageId, Option<&'a RelPath>>,
    /// By package: a manifest in a directory of it that made that a package, or was what made it one.
    around: IdMap<PackageId, Option<&'a RelPath>>,
    versions: Vec<&'a RelPath>,
    dependencies: Vec<&'a RelPath>,
    ignores: Vec<&'a RelPath>,
}

impl<'a> Special<'a> {
    fn among(workspace: &Workspace, changed: &[&'a Change]) -> Self {
        let named = |names: &[&str]| -> Vec<&'a RelPath> {
            changed.iter().map(|change| &change.path).filter(|path| names.contains(&path.file_name())).collect()
        };
        let mut manifest_of: IdMap<PackageId, Option<&RelPath>> = IdMap::filled(workspace.packages.len(), None);
        for path in named(&[MANIFEST]) {
            if let Some(package) = workspace.package_at(&directory(path)) {
                manifest_of[package] = Some(path);
            }
        }
        let mut around: IdMap<PackageId, Option<&RelPath>> = IdMap::filled(workspace.packages.len(), None);
        for change in changed.iter().filter(|change| change.path.file_name() == MANIFEST && change.is_in_names()) {
            let outer = directory(&change.path).parent().and_then(|outer| workspace.owner(&outer));
            outer.into_iter().for_each(|outer| around[outer] = around[outer].or(Some(&change.path)));
        }
        Self {
            manifest_of,
            around,
            versions: named(&VERSION_FILES),
            dependencies: named(&DEPENDENCY_FILES),
            ignores: named(&[IGNORE_FILE]),
        }
    }

    /// The first of them that counts for a task.
    fn touching(&self, workspace: &Workspace, task: TaskId) -> Option<&'a RelPath> {
        let declared = &workspace.tasks[task];
        let package = &declared.label.package;
        let root = self.manifest_of.values().next().copied().flatten();
        let package_id = workspace.package_of(task);
        let mut found: Vec<&RelPath> = self.manifest_of[package_id].or(root).into_iter().collect();
        found.extend(self.around[package_id]);
        found.extend(self.dependencies.iter().find(|path| declares_needs(declared, &directory(path))));
        if let Some(run) = declared.kind.command() {
            if !run.tools.is_empty() || matches!(run.command, Command::Exec(_)) {
                found.extend(self.versions.iter().find(|path| package.starts_with(&directory(path))));
            }
            found.extend(self.ignores.iter().find(|path| {
                let dir = directory(path);
                let meets = |place: &RelPath| place.starts_with(&dir) || dir.starts_with(place);
                meets(package) || places(declared).iter().any(|place| meets(place))
            }));
        }
        found.into_iter().min()
    }
}

/// Whether the dependency files of a directory can change what the needs of a task stand for.
fn declares_needs(task: &Task, dir: &RelPath) -> bool {
    task.needs.iter().any(|need| match &need.which {
        Which::Task { .. } => false,
        // Its own say, or that of the root, from which packages inherit.
        Which::Upstream { reach: Reach::Direct | Reach::Development, .. } => {
            dir.is_root() || *dir == task.label.package
        }
        Which::Upstream { reach: Reach::Transitive, .. } => true,
    })
}

fn directory(path: &RelPath) -> RelPath {
    path.parent().unwrap_or_default()
}

/// Where a task declares its programs to be, if in the workspace; nothing says that they are there.
fn program_paths(workspace: &Workspace, task: TaskId) -> Vec<RelPath> {
    let declared = &workspace.tasks[task];
    let Some(run) = declared.kind.command() else { return Vec::new() };
    let program = match &run.command {
        Command::Exec(words) => words.first(),
        Command::Shell(_) | Command::Image(_) => None,
    };
    let words = run.tools.iter().map(|tool| &tool.value).chain(program);
    words.filter_map(|word| program_path(workspace, &declared.label.package, word)).collect()
}

/// The place a program is declared with; `None` for a name that is looked up, and for places outside.
fn program_path(workspace: &Workspace, package: &RelPath, word: &str) -> Option<RelPath> {
    if !word.contains('/') {
        return None;
    }
    let (base, below) = if let Some(below) = word.strip_prefix("//") {
        (RelPath::root(), below)
    } else if word.starts_with('/') {
        (RelPath::root(), Path::new(word).strip_prefix(&workspace.root).ok()?.to_str()?)
    } else {
        (package.clone(), word)
    };
    let mut path = base;
    for component in below.split('/') {
        path = match component {
            "" | "." => path,
            ".." => path.parent()?,
            name => path.join(&RelPath::parse(name).ok()?),
        };
    }
    (!path.is_root()).then_some(path)
}

/// The changed files, of a sorted list, that are or lie beneath a path.
fn within<'a>(changed: &[&'a Change], dir: &RelPath) -> Vec<&'a Change> {
    let start = changed.partition_point(|change| change.path < *dir);
    let run = changed[start..].iter().take_while(|change| change.path.as_str().starts_with(dir.as_str()));
    // `a-b` sorts between `a` and `a/c`: it is skipped, not the end.
    run.copied().filter(|change| change.path.starts_with(dir)).collect()
}

/// Directories and files where inputs of a task can lie.
fn places(task: &Task) -> Vec<&RelPath> {
    let Some(run) = task.kind.command() else { return Vec::new() };
    let mut all = input_places(task, run);
    if run.split.is_some() {
        // Items are inputs wherever in the package they lie.
        all.push(&task.label.package);
    }
    all
}

fn input_places<'t>(task: &'t Task, run: &'t RunTask) -> Vec<&'t RelPath> {
    match &run.inputs {
        Inputs::Traced => vec![&ROOT],
        Inputs::Package => vec![&task.label.package],
        Inputs::Patterns(list) => {
            list.items.iter().filter(|item| !item.exclude).map(|item| &item.pattern.prefix).collect()
        }
    }
}

/// The changed files, of a sorted list, that lie where inputs of a task can lie: tasks are many and most look in one place.
fn candidates<'a>(workspace: &Workspace, task: TaskId, changed: &[&'a Change]) -> Vec<&'a Change> {
    places(&workspace.tasks[task]).into_iter().flat_map(|place| within(changed, place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::changes::ChangeKind;
    use crate::workspace::fixture::{Fixture, path};

    /// What altered files touch, as labels with the file.
    fn touched(workspace: &Workspace, changed: &[&str], tools: &ToolPaths<'_>) -> BTreeMap<TaskId, RelPath> {
        let change = |file: &&str| Change { path: path(file), kind: ChangeKind::Altered };
        let changed: Vec<Change> = changed.iter().map(change).collect();
        let outputs = &OutputIndex::new(workspace);
        let known = Known { outputs, tools, traced: &|_, _, _| true, sizes: &|_, _| None };
        directly(workspace, &changed, &known).tasks
    }

    #[test]
    fn a_change_reaches_exactly_the_tasks_that_can_see_it() {
        let workspace = Fixture::new()
            .package("a")
            .task("lint")
            .inputs(&["src/**", "//rules.toml"])
            .task("test")
            .outputs(&["report.xml"])
            .package("b")
            .task("gen")
            .committed(&["api.ts"])
            .inputs(&["schema"])
            .build();
        let check = |changed: &[&str], expect: &[&str]| {
            let touched = touched(&workspace, changed, &|_| Vec::new());
            let shown: Vec<String> =
                touched.iter().map(|(task, by)| format!("{} by {by}", workspace.tasks[*task].label)).collect();
            assert_eq!(shown, expect, "{changed:?}");
        };
        check(&[], &[]);
        check(&["a/src/x", "a/y"], &["//a:lint by a/src/x", "//a:test by a/src/x"]);
        check(&["a/readme"], &["//a:test by a/readme"]);
        check(&["rules.toml"], &["//a:lint by rules.toml"]);
        check(&["a/report.xml"], &[]);
        check(&["b/api.ts"], &["//b:gen by b/api.ts"]);
        check(&["b/drystone.toml"], &["//b:gen by b/drystone.toml"]);
        check(
            &["drystone.toml"],
            &["//a:lint by drystone.toml", "//a:test by drystone.toml", "//b:gen by drystone.toml"],
        );
    }

    fn check(workspace: &Workspace, changed: &[&str], expect: &[&str]) {
        let touched = touched(workspace, changed, &|_| Vec::new());
        let shown: Vec<String> = touched.keys().map(|task| workspace.tasks[*task].label.to_string()).collect();
        assert_eq!(shown, expect, "{changed:?}");
    }

    #[test]
    fn a_changed_tool_of_the_workspace_touches_its_tasks_there_or_not() {
        let workspace = Fixture::at(Path::new("/work/shop"))
            .package("a")
            .task("absolute")
            .inputs(&["x"])
            .tools(&["/work/shop/tools/gen"])
            .task("array")
            .inputs(&["x"])
            .exec(&["//tools/gen", "--all"])
            .task("outside")
            .inputs(&["x"])
            .exec(&["/opt/tools/gen"])
            .task("own")
            .inputs(&["x"])
            .exec(&["./run.sh"])
            .task("shell")
            .inputs(&["x"])
            .tools(&["gen"])
            .task("up")
            .inputs(&["x"])
            .tools(&["../tools/gen", "../../escapes"])
            .build();
        check(&workspace, &["tools/gen"], &["//a:absolute", "//a:array", "//a:up"]);
        check(&workspace, &["a/run.sh"], &["//a:own"]);
        check(&workspace, &["tools/gen-other", "tools/gent", "opt/tools/gen"], &[]);
    }

    #[test]
    fn what_a_tool_was_found_to_consist_of_touches_its_tasks() {
        let workspace = Fixture::new().package("a").task("t").inputs(&["x"]).tools(&["gen"]).build();
        let tools = |_| vec![path("tools/gen"), path("node_modules/kit")];
        let touched = |file: &str| touched(&workspace, &[file], &tools).len();
        assert_eq!((touched("tools/gen"), touched("node_modules/kit/lib/a.js"), touched("tools/other")), (1, 1, 0));
    }

    #[test]
    fn a_version_file_touches_the_tasks_with_tools_beneath_it() {
        let workspace = Fixture::new()
            .package("a")
            .task("array")
            .inputs(&["x"])
            .exec(&["python3", "x"])
            .task("shell")
            .inputs(&["x"])
            .package("a/b")
            .task("tool")
            .inputs(&["x"])
            .tools(&["cargo"])
            .build();
        let both = ["//a:array", "//a/b:tool"];
        check(&workspace, &[".python-version"], &both);
        check(&workspace, &["rust-toolchain.toml"], &both);
        check(&workspace, &["a/rust-toolchain"], &both);
        check(&workspace, &["a/b/rust-toolchain"], &["//a/b:tool"]);
        check(&workspace, &["c/.python-version", "a/b/c/.python-version", "a-b/rust-toolchain"], &[]);
    }

    #[test]
    fn an_ignore_file_touches_every_task_that_looks_where_it_applies() {
        let workspace = Fixture::new()
            .package("a")
            .task("list")
            .inputs(&["src/*.c", "//shared/**"])
            .task("package")
            .package("b")
            .task("t")
            .inputs(&["x"])
            .build();
        check(&workspace, &[".gitignore"], &["//a:list", "//a:package", "//b:t"]);
        check(&workspace, &["a/.gitignore"], &["//a:list", "//a:package"]);
        check(&workspace, &["a/src/deep/.gitignore"], &["//a:list", "//a:package"]);
        check(&workspace, &["shared/x/.gitignore"], &["//a:list"]);
        check(&workspace, &["c/.gitignore"], &[]);
    }

    #[test]
    fn a_changed_dependency_file_touches_the_tasks_that_need_upstream_ones() {
        let workspace = Fixture::new()
            .package("a")
            .task("alone")
            .inputs(&["x"])
            .task("direct")
            .inputs(&["x"])
            .needs(&["^build"])
            .task("transitive")
            .inputs(&["x"])
            .needs(&["^^build"])
            .package("b")
            .build();
        check(&workspace, &["a/package.json"], &["//a:direct", "//a:transitive"]);
        check(&workspace, &["Cargo.toml"], &["//a:direct", "//a:transitive"]);
        check(&workspace, &["b/go.mod"], &["//a:transitive"]);
    }
}
