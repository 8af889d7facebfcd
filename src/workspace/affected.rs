//! Which tasks a set of changed files touches first-hand. Looks at no disk; what depends on them is the graph's matter.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::ids::{IdMap, PackageId, TaskId};
use crate::base::path::RelPath;
use crate::manifest::model::{Command, Inputs, Reach, RunTask, Task, TaskKind, Which};
use crate::workspace::discover::MANIFEST;
use crate::workspace::inputs;
use crate::workspace::model::Workspace;
use crate::workspace::outputs::{Committed, OutputIndex};

/// Files that choose the version of a tool behind a shim, looked for from the package upwards.
const VERSION_FILES: [&str; 3] = [".python-version", "rust-toolchain", "rust-toolchain.toml"];

/// Files that tell dependencies between packages, and with them what `^` stands for.
const DEPENDENCY_FILES: [&str; 7] =
    [MANIFEST, "Cargo.toml", "package.json", "pnpm-workspace.yaml", "pyproject.toml", "go.mod", "go.work"];

/// Says what belongs to the source files.
const IGNORE_FILE: &str = ".gitignore";

/// Whether a traced task is known to look at a path, or nothing is known of what it looks at.
pub type TracedPaths<'a> = dyn Fn(TaskId, &RelPath) -> bool + 'a;

/// Where traced tasks look: anywhere.
static ROOT: RelPath = RelPath::root();

/// Files and directories of the workspace that belong to the tools of a task, as far as they are there.
pub type ToolPaths<'a> = dyn Fn(TaskId) -> Vec<RelPath> + 'a;

/// The tasks that changed files can change, each with the first such file in byte order.
///
/// A changed manifest counts for every task of its package, and the root manifest (templates, `[workspace]`) for every
/// task: keys are exact, this is only a promise to leave nothing out. A committed output counts for the task that makes
/// it, since it is compared with what git has. A tool of the workspace counts by the path it is declared with, there or
/// not, and by what `tools` knows it to consist of; a version file for the tasks with tools beneath it; a `.gitignore` for
/// every task that looks for inputs where it applies.
pub fn directly(
    workspace: &Workspace,
    changed: &[RelPath],
    outputs: &OutputIndex<'_>,
    tools: &ToolPaths<'_>,
    traced: &TracedPaths<'_>,
) -> BTreeMap<TaskId, RelPath> {
    let mut changed: Vec<&RelPath> = changed.iter().collect();
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
        let is_traced =
            matches!(&workspace.tasks[task].kind, TaskKind::Run(run) if matches!(run.inputs, Inputs::Traced));
        let seen =
            |path: &&RelPath| inputs::covers(workspace, task, path, outputs) && (!is_traced || traced(task, path));
        if let Some(path) = near.into_iter().filter(seen).min() {
            touch(task, path);
        }
        if changed.is_empty() {
            continue;
        }
        let parts = program_paths(workspace, task).into_iter().chain(tools(task));
        if let Some(path) = parts.flat_map(|part| within(&changed, &part)).min() {
            touch(task, path);
        }
    }
    for split in workspace.splits.all().iter().filter(|split| split.may_regroup(workspace, &changed)) {
        // One of the items changed, or it could not have regrouped; it is as good a reason as any.
        let item = changed.iter().find(|path| path.starts_with(&split.label.package));
        split.parts.iter().for_each(|part| item.into_iter().for_each(|path| touch(*part, path)));
    }
    for path in changed {
        for (task, committed) in outputs.producers(path) {
            if committed == Committed::Yes {
                touch(task, path);
            }
        }
    }
    touched
}

/// Changed files that count for more than the tasks that have them as inputs, in byte order.
struct Special<'a> {
    manifest_of: IdMap<PackageId, Option<&'a RelPath>>,
    versions: Vec<&'a RelPath>,
    dependencies: Vec<&'a RelPath>,
    ignores: Vec<&'a RelPath>,
}

impl<'a> Special<'a> {
    fn among(workspace: &Workspace, changed: &[&'a RelPath]) -> Self {
        let named = |names: &[&str]| -> Vec<&'a RelPath> {
            changed.iter().copied().filter(|path| names.contains(&path.file_name())).collect()
        };
        let mut manifest_of: IdMap<PackageId, Option<&RelPath>> = IdMap::filled(workspace.packages.len(), None);
        for path in named(&[MANIFEST]) {
            if let Some(package) = workspace.package_at(&directory(path)) {
                manifest_of[package] = Some(path);
            }
        }
        Self {
            manifest_of,
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
        let mut found: Vec<&RelPath> = self.manifest_of[workspace.package_of(task)].or(root).into_iter().collect();
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
        Command::Shell(_) => None,
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
fn within<'a>(changed: &[&'a RelPath], dir: &RelPath) -> Vec<&'a RelPath> {
    let start = changed.partition_point(|path| *path < dir);
    let run = changed[start..].iter().take_while(|path| path.as_str().starts_with(dir.as_str()));
    // `a-b` sorts between `a` and `a/c`: it is skipped, not the end.
    run.copied().filter(|path| path.starts_with(dir)).collect()
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
fn candidates<'a>(workspace: &Workspace, task: TaskId, changed: &[&'a RelPath]) -> Vec<&'a RelPath> {
    places(&workspace.tasks[task]).into_iter().flat_map(|place| within(changed, place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::{Fixture, path};

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
        let index = OutputIndex::new(&workspace);
        let check = |changed: &[&str], expect: &[&str]| {
            let changed: Vec<RelPath> = changed.iter().map(|file| path(file)).collect();
            let touched = directly(&workspace, &changed, &index, &|_| Vec::new(), &|_, _| true);
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
        let changed: Vec<RelPath> = changed.iter().map(|file| path(file)).collect();
        let touched = directly(workspace, &changed, &OutputIndex::new(workspace), &|_| Vec::new(), &|_, _| true);
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
        let index = OutputIndex::new(&workspace);
        let tools = |_| vec![path("tools/gen"), path("node_modules/kit")];
        let touched = |file: &str| directly(&workspace, &[path(file)], &index, &tools, &|_, _| true).len();
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
