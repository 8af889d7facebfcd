//! `^…` inputs: one pattern for each package that the task's own depends on. Needs the package graph, looks at no disk.

use std::sync::Arc;

use crate::base::ids::PackageId;
use crate::manifest::glob::{PatternItem, PatternList};
use crate::manifest::model::{Inputs, Reach, TaskKind};
use crate::workspace::model::Workspace;

/// Puts the patterns of every package in reach in place of each `^…` input, in the order of the packages.
///
/// Cost: per such input, the packages in reach.
pub(crate) fn expand(workspace: &mut Workspace) {
    // Tasks of one matrix follow each other and share their list; then they share what comes of it.
    let mut last: Option<(PackageId, PatternList, PatternList)> = None;
    for id in workspace.tasks.ids() {
        let Some(run) = workspace.tasks[id].kind.command() else { continue };
        let Inputs::Patterns(list) = &run.inputs else { continue };
        if list.items.iter().all(|item| item.reach.is_none()) {
            continue;
        }
        let (list, package) = (list.clone(), workspace.package_of(id));
        let known = last.as_ref().filter(|(of, written, _)| *of == package && Arc::ptr_eq(&written.items, &list.items));
        let items = match known {
            Some((_, _, items)) => items.clone(),
            None => list.items.iter().flat_map(|item| expanded(workspace, package, item)).collect(),
        };
        last = Some((package, list, items.clone()));
        match &mut workspace.tasks[id].kind {
            TaskKind::Run(run) => run.inputs = Inputs::Patterns(items),
            TaskKind::Service(service) => service.run.inputs = Inputs::Patterns(items),
            TaskKind::Fetch(_) => {}
        }
    }
}

fn expanded(workspace: &Workspace, package: PackageId, item: &PatternItem) -> Vec<PatternItem> {
    let reached = match item.reach {
        None => return vec![item.clone()],
        Some(Reach::Direct) => workspace.packages[package].depends.clone(),
        Some(Reach::Development) => workspace.packages[package].dev_depends.clone(),
        Some(Reach::Transitive) => workspace.all_depends(package),
    };
    let below = |id: PackageId| {
        let pattern = item.pattern.below(&workspace.packages[id].dir);
        PatternItem { pattern, exclude: item.exclude, reach: item.reach, place: item.place.clone() }
    };
    reached.into_iter().map(below).collect()
}
