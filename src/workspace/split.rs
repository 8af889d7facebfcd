//! Split tasks: which items they have, which part each belongs to, which tasks are parts of one. Runs nothing.
//!
//! With `per-action = 1` each item is a part. Otherwise items fall into buckets: their number is the smallest power of two for
//! which a bucket has at most `per-action` items on average, and the bucket of an item is the digest of its path modulo that
//! number. So an item that comes or goes concerns one bucket, as long as the number of buckets stays. Where it changes, every
//! part is another one; nothing is remembered to put that off, since the parts would then differ between machines, and going
//! back finds the earlier results. Buckets without items make no part.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::base::compact::{Compact, Reader, Writer};
use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::label::Label;
use crate::base::limits::SPLIT_PARTS_MAX;
use crate::base::path::RelPath;
use crate::fs::ops::Kind;
use crate::fs::walk::Trouble;
use crate::manifest::glob::PatternItem;
use crate::manifest::model::{Inputs, RunTask, Task, TaskKind};
use crate::manifest::split::{Group, PART_AXES, Part, PerAction, Split};
use crate::workspace::changes::{Change, ChangeKind};
use crate::workspace::discover::MANIFEST;
use crate::workspace::files::SourceFiles;
use crate::workspace::inputs::{InputError, InputFiles, input_files};
use crate::workspace::model::Workspace;
use crate::workspace::outputs::OutputIndex;
use crate::workspace::tasks::Tasks;

/// Items per action for `"auto"` where nothing is known.
pub const AUTO_ITEMS_DEFAULT: u32 = 16;

/// Items per action of a task with `per-action = "auto"`, by its label and the number of its items; `None` where nothing is known.
pub type GroupSizes<'a> = dyn Fn(&Label, usize) -> Option<u32> + 'a;

/// A task that was split.
#[derive(Clone, Debug)]
pub struct SplitTask {
    /// Its label: that of its parts without the part.
    pub label: Label,
    /// Its parts, in the order of their items or buckets; at least one.
    pub parts: Vec<TaskId>,
    /// Its items relative to the workspace, in byte order, each with its part.
    items: Vec<(RelPath, TaskId)>,
}

impl SplitTask {
    /// The part an item belongs to; `None` for what is no item.
    pub fn part_of(&self, path: &RelPath) -> Option<TaskId> {
        self.items.binary_search_by(|(item, _)| item.cmp(path)).ok().map(|at| self.items[at].1)
    }

    /// Whether a change of an item, there or not, can change the source files or the command of a part; `None` for what is none.
    ///
    /// What is no longer there belonged to the part of its bucket; an item with a part of its own went with it.
    pub(crate) fn covers_item(&self, workspace: &Workspace, part: TaskId, path: &RelPath) -> Option<bool> {
        if let Some(owner) = self.part_of(path) {
            return Some(owner == part);
        }
        let split = split_of(&workspace.tasks[part])?;
        let item = path.strip_prefix(&self.label.package)?;
        let in_package = workspace.owner(path) == Some(workspace.package_of(part));
        if !in_package || !split.items.matches(&item) {
            return None;
        }
        match split.part.group {
            Group::Bucket { number, .. } => Some(bucket_of(&item, split.part.total) + 1 == number),
            Group::Item(_) => Some(false),
            // It was the last one: now there is nothing to run, which is a failure.
            Group::Nothing => Some(true),
            Group::Pending => None,
        }
    }

    /// The first item that a change took away; `None` if none went. Who needs the whole no longer sees what it made.
    pub(crate) fn item_gone<'c>(
        &self,
        workspace: &Workspace,
        outputs: &OutputIndex<'_>,
        changed: &[&'c Change],
    ) -> Option<&'c RelPath> {
        let split = split_of(&workspace.tasks[self.parts[0]])?;
        changed.iter().find(|change| self.is_gone(workspace, outputs, split, change)).map(|change| &change.path)
    }

    fn is_gone(&self, workspace: &Workspace, outputs: &OutputIndex<'_>, split: &Split, change: &Change) -> bool {
        let item = change.path.strip_prefix(&self.label.package);
        change.kind == ChangeKind::Went
            && item.is_some_and(|item| split.items.matches(&item) && item.as_str() != MANIFEST)
            && workspace.owner(&change.path) == Some(workspace.package_of(self.parts[0]))
            && !outputs.hides(&change.path, self.parts[0])
    }

    /// An item that came or went where that made every part another one: its group or the number of groups is another, or a
    /// command names how many parts there are.
    pub(crate) fn regrouped_by<'c>(
        &self,
        workspace: &Workspace,
        outputs: &OutputIndex<'_>,
        changed: &[&'c Change],
        sizes: &GroupSizes<'_>,
    ) -> Option<&'c RelPath> {
        let split = split_of(&workspace.tasks[self.parts[0]])?;
        let came = |change: &&&Change| change.kind == ChangeKind::Came && self.part_of(&change.path).is_some();
        let gone = |change: &&&Change| self.is_gone(workspace, outputs, split, change);
        let first = changed.iter().find(|change| came(change) || gone(change))?;
        let now = self.items.len();
        let before = (now + changed.iter().filter(gone).count()).saturating_sub(changed.iter().filter(came).count());
        let total = |count: usize| match per_action(split, &self.label, count, sizes) {
            0 | 1 => None,
            several => Some(bucket_count(count, several)),
        };
        let is_another = total(before) != total(now) || (split.counts_parts && before != now);
        is_another.then_some(&first.path)
    }

    /// How many items there are.
    pub fn item_count(&self) -> usize {
        self.items.len()
    }
}

/// All split tasks of a workspace.
#[derive(Clone, Debug, Default)]
pub struct Splits {
    all: Vec<SplitTask>,
    by_part: HashMap<TaskId, usize>,
}

crate::base::compact::compact_struct!(SplitTask { label, parts, items });

impl Compact for Splits {
    fn put(&self, writer: &mut Writer) {
        self.all.put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        let all: Vec<SplitTask> = Vec::take(reader)?;
        // Whoever has a split task has a part of it.
        let parts = |(at, split): (usize, &SplitTask)| split.parts.iter().map(move |id| (*id, at)).collect::<Vec<_>>();
        let by_part = all.iter().enumerate().flat_map(parts).collect();
        all.iter().all(|split| !split.parts.is_empty()).then_some(Self { all, by_part })
    }
}

impl Splits {
    /// Those among the tasks of a workspace.
    pub fn of(tasks: &Tasks) -> Self {
        let mut by_label: BTreeMap<Label, Vec<(usize, TaskId)>> = BTreeMap::new();
        for (id, task) in tasks.iter() {
            let Some(split) = split_of(task) else { continue };
            let position = match split.part.group {
                Group::Bucket { number, .. } => number,
                Group::Pending | Group::Nothing | Group::Item(_) => 0,
            };
            by_label.entry(whole_label(&task.label)).or_default().push((position, id));
        }
        let mut splits = Self::default();
        for (label, mut parts) in by_label {
            // Ids are in the order of labels, which for numbers is not that of the numbers.
            parts.sort_unstable();
            let mut items = Vec::new();
            for (_, id) in &parts {
                splits.by_part.insert(*id, splits.all.len());
                let own = split_of(&tasks[*id]).map(|split| split.part.items()).unwrap_or_default();
                items.extend(own.iter().map(|item| (label.package.join(item), *id)));
            }
            items.sort_unstable();
            splits.all.push(SplitTask { label, parts: parts.into_iter().map(|(_, id)| id).collect(), items });
        }
        splits
    }

    /// Every split task, in the order of the labels.
    pub fn all(&self) -> &[SplitTask] {
        &self.all
    }
}

/// `split` of a task that has one.
pub fn split_of(task: &Task) -> Option<&Split> {
    match &task.kind {
        TaskKind::Run(run) => run.split.as_deref(),
        TaskKind::Fetch(_) | TaskKind::Service(_) => None,
    }
}

/// The label of a part without the part.
fn whole_label(label: &Label) -> Label {
    let mut whole = label.clone();
    Arc::make_mut(&mut whole.matrix).retain(|axis, _| !PART_AXES.contains(&axis.as_str()));
    whole
}

impl Workspace {
    /// The split task that a task is a part of.
    pub fn split_of(&self, task: TaskId) -> Option<&SplitTask> {
        self.splits.by_part.get(&task).map(|at| &self.splits.all[*at])
    }

    /// One id for all parts of a split task: that of the first part; every other task stands for itself.
    pub fn whole(&self, task: TaskId) -> TaskId {
        self.split_of(task).map_or(task, |split| split.parts[0])
    }

    /// All parts of the split task that a task is a part of; every other task alone.
    pub fn parts_beside<'a>(&'a self, task: &'a TaskId) -> &'a [TaskId] {
        self.split_of(*task).map_or(std::slice::from_ref(task), |split| &split.parts)
    }

    /// The label of a task, for a part without the part.
    pub fn whole_label(&self, task: TaskId) -> String {
        self.split_of(task).map_or_else(|| self.tasks[task].label.to_string(), |split| split.label.to_string())
    }
}

/// How many items an action of a task takes that has `count` of them.
fn per_action(split: &Split, label: &Label, count: usize, sizes: &GroupSizes<'_>) -> u32 {
    match split.per_action {
        PerAction::Items(items) => items,
        PerAction::Auto => sizes(label, count).unwrap_or(AUTO_ITEMS_DEFAULT),
    }
}

/// How many buckets `count` items make with `per_action` of them on average at most: a power of two.
pub fn bucket_count(count: usize, per_action: u32) -> usize {
    count.div_ceil(per_action.max(1) as usize).max(1).next_power_of_two()
}

/// The bucket of an item, from 0, by its path relative to the package.
pub fn bucket_of(item: &RelPath, buckets: usize) -> usize {
    let digest = Digest::of(item.as_str().as_bytes());
    let (first, _) = digest.as_bytes().split_first_chunk::<8>().expect("a digest has 32 bytes");
    (u64::from_le_bytes(*first) % buckets as u64) as usize
}

/// The parts that items make, each item in one of them.
///
/// # Panics
/// If the parts do not hold exactly the items: a bug, and tests would silently not run.
pub fn group(items: &[RelPath], per_action: u32) -> Vec<Part> {
    let parts: Vec<Part> = if items.is_empty() {
        vec![Part { group: Group::Nothing, total: 1 }]
    } else if per_action <= 1 {
        items.iter().map(|item| Part { group: Group::Item(item.clone()), total: items.len() }).collect()
    } else {
        let total = bucket_count(items.len(), per_action);
        let mut buckets: BTreeMap<usize, Vec<RelPath>> = BTreeMap::new();
        for item in items {
            buckets.entry(bucket_of(item, total)).or_default().push(item.clone());
        }
        let part = |(bucket, items)| Part { group: Group::Bucket { number: bucket + 1, items }, total };
        buckets.into_iter().map(part).collect()
    };
    let mut held: Vec<&RelPath> = parts.iter().flat_map(Part::items).collect();
    held.sort_unstable();
    assert!(
        held.iter().copied().eq(items),
        "BUG: {} items are in parts, and {} are listed, or not the same ones",
        held.len(),
        items.len()
    );
    parts
}

/// Lists the items of every task with `split`, and says which parts they make, by label without the part.
///
/// Cost: one walk of each package with such a task.
pub(crate) fn parts(
    workspace: &Workspace,
    sizes: &GroupSizes<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<Label, Vec<Part>> {
    let mut all = BTreeMap::new();
    if workspace.tasks.values().all(|task| split_of(task).is_none()) {
        return all;
    }
    let sources = SourceFiles::from_load(workspace);
    let outputs = OutputIndex::new(workspace);
    for (id, task) in workspace.tasks.iter() {
        let Some(split) = split_of(task) else { continue };
        match items(workspace, &sources, &outputs, id, split) {
            Ok(items) => {
                let per_action = per_action(split, &task.label, items.len(), sizes);
                if items.is_empty() {
                    diagnostics.push(no_items(task, split));
                }
                let parts = group(&items, per_action);
                if parts.len() > SPLIT_PARTS_MAX {
                    diagnostics.push(too_many(task, split, parts.len()));
                } else {
                    all.insert(task.label.clone(), parts);
                }
            }
            Err(problem) => diagnostics.push(problem),
        }
    }
    all
}

/// The files of the package that are items, relative to it, in byte order.
fn items(
    workspace: &Workspace,
    sources: &SourceFiles<'_>,
    outputs: &OutputIndex<'_>,
    task: TaskId,
    split: &Split,
) -> Result<Vec<RelPath>, Diagnostic> {
    let package = workspace.package_of(task);
    let dir = &workspace.packages[package].dir;
    let region = sources.look_package(package);
    let nested: Vec<&RelPath> = workspace.nested(package).collect();
    for trouble in region.troubles(&workspace.root) {
        let shown = trouble.path().strip_prefix(&workspace.root).unwrap_or(trouble.path());
        let below = RelPath::parse(&shown.to_string_lossy()).ok().and_then(|path| path.strip_prefix(dir));
        let hides_items = match trouble {
            Trouble::Unreadable { .. } => below.is_none_or(|below| {
                let within = |prefix: &RelPath| prefix.starts_with(&below) || below.starts_with(prefix);
                split.items.items.iter().any(|item| !item.exclude && within(&item.pattern.prefix))
            }),
            Trouble::NotUtf8 { .. } => below.is_some_and(|below| split.items.matches(&below)),
        };
        if hides_items && !nested.iter().any(|nested| trouble.path().starts_with(workspace.root.join(nested.as_str())))
        {
            let cause = crate::fs::walk::WalkError::from(trouble.clone());
            let error = format!("cannot tell the items of `{}`: {cause}", workspace.tasks[task].label);
            return Err(Diagnostic::error(error).at(&split.place, "these are looked for"));
        }
    }
    let files = region.without(&nested).filter(|found| matches!(found.kind, Kind::File | Kind::Link));
    let items = files.filter(|found| !outputs.hides(&found.path, task)).filter_map(|found| {
        let item = found.path.strip_prefix(dir)?;
        (item.as_str() != MANIFEST && split.items.matches(&item)).then_some(item)
    });
    let mut items: Vec<RelPath> = items.collect();
    items.sort_unstable();
    Ok(items)
}

fn no_items(task: &Task, split: &Split) -> Diagnostic {
    let patterns: Vec<String> = split.items.items.iter().map(|item| sign(item.exclude) + &item.pattern.text).collect();
    Diagnostic::warning(format!("`{}` has no items: no file matches `{}`", task.label, patterns.join("`, `")))
        .at(&split.place, "it fails when it is run")
        .help("correct the pattern, which is relative to the package, or take the task out; files that git ignores are no items")
}

fn sign(exclude: bool) -> String {
    if exclude { "!".to_owned() } else { String::new() }
}

fn too_many(task: &Task, split: &Split, count: usize) -> Diagnostic {
    Diagnostic::error(format!("`{}` would have {count} parts, more than {SPLIT_PARTS_MAX}", task.label))
        .at(&split.place, "these are the items")
        .help("make `per-action` larger")
}

/// Lists the source files of tasks; what the parts of one task share is listed once.
pub struct Lister<'a> {
    workspace: &'a Workspace,
    sources: &'a SourceFiles<'a>,
    outputs: &'a OutputIndex<'a>,
    /// The source files that parts of one task share, without items.
    pub shared: Vec<InputFiles>,
    /// Positions in `shared` by the first part and the patterns.
    known: HashMap<(TaskId, Vec<String>), usize>,
}

/// The source files of one task.
#[derive(Default)]
pub struct Listed {
    /// Those of its own; for a part, its items. Tasks that select alike have them in common.
    pub own: Arc<InputFiles>,
    /// The position of those it shares.
    pub shared: Option<usize>,
}

impl<'a> Lister<'a> {
    /// Nothing listed yet.
    pub fn new(workspace: &'a Workspace, sources: &'a SourceFiles<'a>, outputs: &'a OutputIndex<'a>) -> Self {
        Self { workspace, sources, outputs, shared: Vec::new(), known: HashMap::new() }
    }

    /// The source files of a task; for a part, without the items of the other parts.
    ///
    /// # Errors
    /// See [`InputError`].
    pub fn list(&mut self, task: TaskId) -> Result<Listed, InputError> {
        let input_files = || input_files(self.workspace, self.sources, task, self.outputs);
        let (Some(split), TaskKind::Run(run)) = (self.workspace.split_of(task), &self.workspace.tasks[task].kind)
        else {
            return Ok(Listed { own: Arc::new(input_files()?), shared: None });
        };
        let key = (split.parts[0], texts(run));
        let shared = match self.known.get(&key) {
            Some(position) => *position,
            None => {
                let mut files = input_files()?;
                files.files.retain(|path| split.part_of(path).is_none());
                self.shared.push(files);
                self.known.insert(key, self.shared.len() - 1);
                self.shared.len() - 1
            }
        };
        let dir = &self.workspace.tasks[task].label.package;
        let items = run.split.iter().flat_map(|split| split.part.items()).map(|item| dir.join(item));
        let own = InputFiles { files: items.collect(), ..InputFiles::default() };
        Ok(Listed { own: Arc::new(own), shared: Some(shared) })
    }
}

/// The patterns of the inputs as text: equal texts match the same files.
fn texts(run: &RunTask) -> Vec<String> {
    match &run.inputs {
        Inputs::Package | Inputs::Traced => Vec::new(),
        Inputs::Patterns(list) => list.items.iter().map(PatternItem::written).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(names: impl IntoIterator<Item = u32>) -> Vec<RelPath> {
        let mut all: Vec<RelPath> =
            names.into_iter().map(|name| RelPath::parse(&format!("tests/test_{name}.py")).expect("a path")).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn buckets_are_the_smallest_power_of_two_that_keeps_groups_small() {
        let check = |count: usize, per_action: u32, expect: usize| {
            assert_eq!(bucket_count(count, per_action), expect, "{count} items by {per_action}");
        };
        check(0, 16, 1);
        check(1, 16, 1);
        check(16, 16, 1);
        check(17, 16, 2);
        check(32, 16, 2);
        check(33, 16, 4);
        check(2245, 16, 256);
        check(5, 2, 4);
    }

    #[test]
    fn the_bucket_of_an_item_never_changes() {
        // Golden: another formula would regroup every suite there is.
        let buckets: Vec<usize> = paths(0..6).iter().map(|path| bucket_of(path, 16)).collect();
        assert_eq!(buckets, [11, 15, 1, 4, 11, 10]);
    }

    proptest! {
        #[test]
        fn an_item_more_changes_one_part_unless_the_number_of_buckets_changes(
            names in proptest::collection::btree_set(0u32..5000, 1..200),
            new in 5000u32..6000,
            per_action in 1u32..40,
        ) {
            let before = paths(names.iter().copied());
            let after = paths(names.iter().copied().chain([new]));
            let (one, two) = (group(&before, per_action), group(&after, per_action));
            prop_assume!(per_action == 1 || bucket_count(before.len(), per_action) == bucket_count(after.len(), per_action));
            let named = |parts: &[Part]| -> BTreeMap<String, Vec<RelPath>> {
                parts.iter().map(|part| (part.index(), part.items().to_vec())).collect()
            };
            let (one, two) = (named(&one), named(&two));
            let changed = two.iter().filter(|(index, items)| one.get(*index) != Some(items)).count();
            prop_assert_eq!(changed, 1);
            prop_assert!(one.keys().all(|index| two.contains_key(index)));
        }

        #[test]
        fn parts_hold_every_item_once_and_none_is_empty(
            names in proptest::collection::btree_set(0u32..5000, 0..300),
            per_action in 1u32..40,
        ) {
            let items = paths(names);
            let parts = group(&items, per_action);
            prop_assert!(items.is_empty() || parts.iter().all(|part| !part.items().is_empty()));
            prop_assert!(parts.len() <= items.len().max(1));
            let axes: std::collections::BTreeSet<_> = parts.iter().map(Part::axis).collect();
            prop_assert_eq!(axes.len(), parts.len());
        }
    }
}
