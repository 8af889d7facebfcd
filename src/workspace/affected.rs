//! Which tasks a set of changed files touches first-hand. Looks at no disk; what depends on them is the graph's matter.

use std::collections::BTreeMap;

use crate::base::ids::{IdMap, PackageId, TaskId};
use crate::base::path::RelPath;
use crate::manifest::model::{Inputs, TaskKind};
use crate::workspace::discover::MANIFEST;
use crate::workspace::inputs;
use crate::workspace::model::Workspace;
use crate::workspace::outputs::{Committed, OutputIndex};

/// The tasks that changed files can change, each with the first such file in byte order.
///
/// A changed manifest counts for every task of its package, and the root manifest (templates, `[workspace]`) for every
/// task: keys are exact, this is only a promise to leave nothing out. A committed output counts for the task that makes
/// it, since it is compared with what git has.
pub fn directly(workspace: &Workspace, changed: &[RelPath], outputs: &OutputIndex<'_>) -> BTreeMap<TaskId, RelPath> {
    let mut changed: Vec<&RelPath> = changed.iter().collect();
    changed.sort();
    let owners: Vec<Option<PackageId>> = changed.iter().map(|path| workspace.owner(path)).collect();
    let mut manifest_of: IdMap<PackageId, Option<&RelPath>> = IdMap::filled(workspace.packages.len(), None);
    for (path, owner) in changed.iter().zip(&owners) {
        if let Some(owner) = owner
            && **path == workspace.packages[*owner].dir.child(MANIFEST)
        {
            manifest_of[*owner] = Some(path);
        }
    }
    let root = manifest_of.values().next().copied().flatten();
    let mut touched: BTreeMap<TaskId, RelPath> = BTreeMap::new();
    let mut touch = |task: TaskId, path: &RelPath| {
        let first = touched.entry(task).or_insert_with(|| path.clone());
        if path < first {
            path.clone_into(first);
        }
    };
    for task in workspace.tasks.ids() {
        if let Some(path) = manifest_of[workspace.package_of(task)].or(root) {
            touch(task, path);
        }
        let near = candidates(workspace, task, &changed);
        if let Some(path) = near.into_iter().filter(|path| inputs::covers(workspace, task, path, outputs)).min() {
            touch(task, path);
        }
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

/// The changed files, of a sorted list, that lie where inputs of a task can lie: tasks are many and most look in one place.
fn candidates<'a>(workspace: &Workspace, task: TaskId, changed: &[&'a RelPath]) -> Vec<&'a RelPath> {
    let within = |dir: &RelPath| {
        let start = changed.partition_point(|path| *path < dir);
        let run = changed[start..].iter().take_while({
            let dir = dir.clone();
            move |path| path.as_str().starts_with(dir.as_str())
        });
        run.copied().collect::<Vec<&RelPath>>()
    };
    let task = &workspace.tasks[task];
    match &task.kind {
        TaskKind::Fetch(_) => Vec::new(),
        TaskKind::Run(run) => match &run.inputs {
            Inputs::Package => within(&task.label.package),
            Inputs::Patterns(list) => {
                let included = list.items.iter().filter(|item| !item.exclude);
                included.flat_map(|item| within(&item.pattern.prefix)).collect()
            }
        },
    }
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
            let touched = directly(&workspace, &changed, &index);
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
}
