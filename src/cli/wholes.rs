//! Split tasks in lists: all parts of one are shown as the one task they are. Selects nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::ids::TaskId;
use crate::workspace::model::Workspace;

/// A task in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// The task; the first part of a split one that is shown as a whole.
    pub task: TaskId,
    /// Its label, which selects it.
    pub label: String,
    /// How many parts it has, where it is shown as a whole; 0 where it has no items.
    pub parts: Option<usize>,
}

/// Tasks in their order, those of which all parts are among them once, in place of the first part.
pub fn shown(workspace: &Workspace, tasks: impl IntoIterator<Item = TaskId>) -> Vec<Shown> {
    let tasks: Vec<TaskId> = tasks.into_iter().collect();
    let mut counts: BTreeMap<TaskId, usize> = BTreeMap::new();
    tasks.iter().for_each(|task| *counts.entry(workspace.whole(*task)).or_default() += 1);
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for task in tasks {
        let whole = workspace.whole(task);
        match workspace.split_of(task) {
            Some(split) if counts[&whole] == split.parts.len() => {
                if seen.insert(whole) {
                    let parts = if split.item_count() == 0 { 0 } else { split.parts.len() };
                    all.push(Shown { task: whole, label: split.label.to_string(), parts: Some(parts) });
                }
            }
            _ => all.push(Shown { task, label: workspace.tasks[task].label.to_string(), parts: None }),
        }
    }
    all
}
