//! How many items an action takes where the manifest says `per-action = "auto"`: about half a minute's worth. Runs nothing.
//!
//! A choice is a power of two. It is kept in the state directory of the workspace and stays, although each run measures something
//! else, until it is off by more than four times: another size makes every part another one. What no run chose yet follows from
//! the durations of the archive that was imported last, by the same rule, and else is the default.
//! The file: one line a task, the size, a space and its label. Lines that cannot be read choose nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::diagnostic::Diagnostic;
use crate::base::label::Label;
use crate::engine::plan::Plan;
use crate::engine::session::Session;
use crate::fs::atomic::{self, Durability};
use crate::fs::ops;
use crate::manifest::split::{Group, PART_AXES, PerAction};
use crate::store::{StoreError, imported_durations, workspace_state};
use crate::workspace::split::{AUTO_ITEMS_DEFAULT, split_of};

/// What an action is to take, in milliseconds.
const ACTION_MS: u64 = 30_000;

/// Most items of an action that is chosen.
const ITEMS_MAX: u32 = 1024;

/// How many times a choice may be off before another is made.
const PATIENCE: u32 = 4;

/// Which choices hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choices {
    /// Those of this worktree, and what is imported.
    Kept,
    /// Only what is imported: all who share the work must come to the same groups.
    Imported,
}

/// The sizes of groups, as far as they are known.
#[derive(Default)]
pub struct Sizes {
    kept: BTreeMap<String, u32>,
    imported: BTreeMap<String, u64>,
}

impl Sizes {
    /// Reads what the store in `store_dir` knows of the workspace at `root`. Opens no database.
    pub fn read(store_dir: &Path, root: &Path, choices: Choices) -> Self {
        let kept = match choices {
            Choices::Kept => read_kept(&file(&workspace_state(store_dir, root))),
            Choices::Imported => BTreeMap::new(),
        };
        Self { kept, imported: imported_durations(store_dir) }
    }

    /// Items per action for the task with this label and so many items.
    pub fn size(&self, label: &Label, items: usize) -> Option<u32> {
        self.kept.get(&label.to_string()).copied().or_else(|| imported_size(&self.imported, label, items))
    }
}

/// The power of two nearest to what takes [`ACTION_MS`].
fn ideal(total_ms: u64, items: usize) -> u32 {
    let each_ms = (total_ms as f64 / items.max(1) as f64).max(0.01);
    let exponent = (ACTION_MS as f64 / each_ms).log2().round().clamp(0.0, f64::from(ITEMS_MAX.ilog2()));
    1 << exponent as u32
}

/// The choice after one was found that is ideal now.
fn chosen(before: u32, ideal: u32) -> u32 {
    let is_near = ideal <= before.saturating_mul(PATIENCE) && before <= ideal.saturating_mul(PATIENCE);
    if is_near { before } else { ideal }
}

/// The size that the parts of an archive have, if their durations make it a good one.
fn imported_size(durations: &BTreeMap<String, u64>, label: &Label, items: usize) -> Option<u32> {
    let mut by_total: BTreeMap<usize, (usize, u64)> = BTreeMap::new();
    for (text, duration_ms) in durations {
        if let Some(buckets) = buckets_of_part(text, label) {
            let found = by_total.entry(buckets).or_default();
            *found = (found.0 + 1, found.1.saturating_add(*duration_ms));
        }
    }
    // An archive may hold parts of earlier groupings: most of them are of the latest.
    let (buckets, (_, total_ms)) = by_total.into_iter().max_by_key(|(buckets, (count, _))| (*count, *buckets))?;
    let before = if buckets == 0 { 1 } else { u32::try_from(items.div_ceil(buckets)).unwrap_or(ITEMS_MAX) };
    Some(chosen(before.max(1), ideal(total_ms, items)))
}

/// How many buckets the part with this label is one of, 0 for one item by itself; `None` for other tasks.
fn buckets_of_part(text: &str, whole: &Label) -> Option<usize> {
    let (name, axes) = text.strip_suffix(']')?.split_once('[')?;
    if name != Label::new(whole.package.clone(), &*whole.name).to_string() {
        return None;
    }
    let mut buckets = None;
    let mut matrix = BTreeMap::new();
    for (axis, value) in axes.split(',').filter_map(|pair| pair.split_once('=')) {
        match axis {
            axis if axis == PART_AXES[0] => buckets = Some(0),
            axis if axis == PART_AXES[1] => buckets = value.split_once('/').and_then(|(_, total)| total.parse().ok()),
            _ => drop(matrix.insert(axis.to_owned(), value.to_owned())),
        }
    }
    buckets.filter(|_| matrix == *whole.matrix)
}

/// Chooses sizes anew from what the parts of the plan took, and keeps them for the next run; says what changed.
///
/// # Errors
/// If the history cannot be read. That a choice cannot be kept is no error: the earlier one stays.
pub fn learn(session: &Session<'_>, plan: &Plan, sizes: &Sizes) -> Result<Vec<Diagnostic>, StoreError> {
    let mut kept = sizes.kept.clone();
    let mut notes = Vec::new();
    for split in session.workspace.splits.all() {
        let Some(first) = split_of(&session.workspace.tasks[split.parts[0]]) else { continue };
        let is_planned = split.parts.iter().any(|part| plan.positions.contains_key(part));
        if first.per_action != PerAction::Auto || first.part.group == Group::Nothing || !is_planned {
            continue;
        }
        let labels: Vec<String> = split.parts.iter().map(|part| session.label(*part)).collect();
        let texts: Vec<&str> = labels.iter().map(String::as_str).collect();
        let history = session.store.history(&session.worktree(), &texts)?;
        let (mut items, mut total_ms) = (0, 0);
        for (part, label) in split.parts.iter().zip(&labels) {
            if let Some(duration_ms) = history.get(label).and_then(|history| history.duration_ms) {
                total_ms += duration_ms;
                items += split_of(&session.workspace.tasks[*part]).map_or(0, |split| split.part.items().len());
            }
        }
        if items * 2 < split.item_count() {
            continue; // Too little was measured to judge the whole by it.
        }
        let before = sizes.size(&split.label, split.item_count()).unwrap_or(AUTO_ITEMS_DEFAULT);
        let after = chosen(before, ideal(total_ms, items));
        kept.insert(split.label.to_string(), after);
        if after != before {
            let message =
                format!("`{}` takes about {after} items an action from the next run on, not {before}", split.label);
            notes.push(
                Diagnostic::note(message)
                    .help("its actions then take about half a minute each; all of them are new ones"),
            );
        }
    }
    if kept != sizes.kept
        && let Err(error) = keep(&session.state_dir, &kept)
    {
        tracing::debug!(%error, "the sizes of groups were not kept");
        return Ok(Vec::new());
    }
    Ok(notes)
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("group-sizes")
}

fn keep(state_dir: &Path, sizes: &BTreeMap<String, u32>) -> Result<(), ops::FsError> {
    let text: String = sizes.iter().map(|(label, size)| format!("{size} {label}\n")).collect();
    atomic::write(&file(state_dir), text.as_bytes(), Durability::Relaxed)
}

fn read_kept(file: &Path) -> BTreeMap<String, u32> {
    let text = ops::read_text(file).unwrap_or_default();
    let line = |line: &str| {
        let (size, label) = line.split_once(' ')?;
        let size = size.parse().ok().filter(|size| (1..=ITEMS_MAX).contains(size))?;
        Some((label.to_owned(), size))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::path::RelPath;

    fn label(matrix: &[(&str, &str)]) -> Label {
        let matrix = matrix.iter().map(|(axis, value)| ((*axis).to_owned(), (*value).to_owned()));
        Label { matrix: Arc::new(matrix.collect()), ..Label::new(RelPath::parse("api").expect("a path"), "test") }
    }

    #[test]
    fn a_size_is_a_power_of_two_near_half_a_minute_and_stays_while_it_is_not_far_off() {
        let check =
            |total_ms: u64, items: usize, expect: u32| assert_eq!(ideal(total_ms, items), expect, "{total_ms} {items}");
        check(0, 10, ITEMS_MAX);
        check(10 * 30_000, 10, 1);
        check(10 * 1_000, 10, 32);
        check(10 * 3_000, 10, 8);
        check(u64::MAX, 1, 1);
        assert_eq!([chosen(16, 64), chosen(16, 4), chosen(16, 128), chosen(16, 2)], [16, 16, 128, 2]);
    }

    #[test]
    fn the_parts_of_an_archive_say_how_it_was_grouped() {
        let check = |text: &str, whole: &Label, expect: Option<usize>| {
            assert_eq!(buckets_of_part(text, whole), expect, "{text}");
        };
        let (plain, node) = (label(&[]), label(&[("node", "20")]));
        check("//api:test[part=3/16]", &plain, Some(16));
        check("//api:test[items=tests/a.py]", &plain, Some(0));
        check("//api:test[node=20,part=3/16]", &node, Some(16));
        check("//api:test[node=22,part=3/16]", &node, None);
        check("//api:test[part=3/16]", &node, None);
        check("//api:test", &plain, None);
        check("//api:tests[part=3/16]", &plain, None);
        let durations = |buckets: usize, each: u64| -> BTreeMap<String, u64> {
            (1..=buckets).map(|number| (format!("//api:test[part={number}/{buckets}]"), each)).collect()
        };
        // 128 items in 16 groups of 20 s: stays 8 each; of 1 s: 8 is far too few.
        assert_eq!(imported_size(&durations(16, 20_000), &plain, 128), Some(8));
        assert_eq!(imported_size(&durations(16, 1_000), &plain, 128), Some(256));
        assert_eq!(imported_size(&durations(16, 1_000), &node, 128), None);
        assert_eq!(imported_size(&durations(16, u64::MAX), &plain, 128), Some(1));
    }

    #[test]
    fn what_cannot_be_read_chooses_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        keep(dir.path(), &BTreeMap::from([("//api:test".to_owned(), 64)])).expect("written");
        assert_eq!(read_kept(&file(dir.path())), BTreeMap::from([("//api:test".to_owned(), 64)]));
        ops::write(&file(dir.path()), b"x //a:b\n0 //a:c\n9999 //a:d\n\n8").expect("written");
        assert_eq!(read_kept(&file(dir.path())), BTreeMap::new());
    }
}
