//! Refuses declared outputs that hold files tracked by git, before anything is written or run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::engine::owned::Owned;
use crate::engine::session::Session;
use crate::fs::look::{self, Links};
use crate::fs::ops;
use crate::fs::stat::StatKey;
use crate::fs::witness::now_ns;
use crate::process::spawn;
use crate::workspace::git;
use crate::workspace::outputs::Committed;
use crate::workspace::stat_index::is_settled;

/// Git answers in milliseconds; a file system that hangs must not hang the run for ever.
const GIT_LIMIT: Duration = Duration::from_secs(60);

/// Files told per task.
const FILES_TOLD_MAX: usize = 3;

/// What git tracks in the workspace.
#[derive(Debug, Default)]
pub struct Tracked {
    /// Sorted.
    paths: Vec<RelPath>,
    /// What is wrong with the outputs of a task.
    problems: BTreeMap<TaskId, Diagnostic>,
    /// Git's index, if nothing in it is an output and it can be told from any later one.
    clean: Option<(PathBuf, StatKey)>,
}

/// Checks the owned outputs of these tasks; git is asked once per invocation. A workspace without git passes.
pub fn check(session: &Session<'_>, tasks: &[TaskId]) -> Result<(), Vec<Diagnostic>> {
    if session.has_no_tracked_outputs {
        return Ok(());
    }
    let all = session.tracked.get_or_init(|| examine(session));
    let whole: BTreeSet<TaskId> = tasks.iter().map(|task| session.workspace.whole(*task)).collect();
    let found: Vec<Diagnostic> = whole.iter().filter_map(|task| all.problems.get(task).cloned()).collect();
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Whether git tracks the path.
pub fn is_tracked(session: &Session<'_>, path: &RelPath) -> bool {
    session.tracked.get_or_init(|| examine(session)).paths.binary_search(path).is_ok()
}

fn examine(session: &Session<'_>) -> Tracked {
    let root = &session.workspace.root;
    let in_git = root.ancestors().any(|dir| ops::exists(&dir.join(".git")));
    if !in_git {
        return Tracked::default();
    }
    let seen_ns = now_ns();
    let index = git_index(root).and_then(|file| Some((look::stat(&file, Links::Followed)?, file)));
    let Some(answer) = run_git(session, &git::tracked(&[])) else { return Tracked::default() };
    let paths = git::parse_changed(&answer);
    let mut by_task: BTreeMap<TaskId, Vec<RelPath>> = BTreeMap::new();
    for path in &paths {
        for (task, committed) in session.outputs.producers(path) {
            let below = path.strip_prefix(session.package(task)).unwrap_or_default();
            if committed == Committed::No && Owned::of(session, task).claims(&below) {
                by_task.entry(session.workspace.whole(task)).or_default().push(path.clone());
            }
        }
    }
    let problems: BTreeMap<TaskId, Diagnostic> =
        by_task.into_iter().map(|(task, paths)| (task, problem(session, task, &paths))).collect();
    let clean = index.filter(|(stat, _)| problems.is_empty() && is_settled(stat, seen_ns));
    Tracked { paths, problems, clean: clean.map(|(stat, file)| (file, stat)) }
}

/// The index of the repository that a directory is in: what git tracks is what this says.
pub(super) fn git_index(root: &Path) -> Option<PathBuf> {
    let git = root.ancestors().map(|dir| dir.join(".git")).find(|git| ops::exists(git))?;
    if look::stat(&git, Links::Followed)?.is_dir() {
        return Some(git.join("index"));
    }
    let text = ops::read_text(&git).ok()?;
    Some(git.parent()?.join(text.strip_prefix("gitdir:")?.trim()).join("index"))
}

/// Git's index with the signature it had when no output of any task was found in it, if that was asked in this invocation.
pub fn clean_index(session: &Session<'_>) -> Option<(PathBuf, StatKey)> {
    session.tracked.get()?.clean.clone()
}

fn problem(session: &Session<'_>, task: TaskId, paths: &[RelPath]) -> Diagnostic {
    let declared = &session.workspace.tasks[task];
    let told: Vec<String> = paths.iter().take(FILES_TOLD_MAX).map(|path| format!("`{path}`")).collect();
    let rest = paths.len() - told.len();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let label = session.workspace.whole_label(task);
    Diagnostic::error(format!("outputs of `{label}` hold files tracked by git: {}{more}", told.join(", ")))
        .at(&declared.place, "a run would overwrite them")
        .help("list them under `committed` if they are generated and kept in git, or `git rm --cached` them")
}

/// Output of git in the workspace root; `None` if it cannot be had (no git, not a repository).
pub fn run_git(session: &Session<'_>, argv: &[String]) -> Option<Vec<u8>> {
    run_git_in(&session.workspace.root, argv)
}

/// Output of git in a directory; `None` if it cannot be had.
pub fn run_git_in(dir: &Path, argv: &[String]) -> Option<Vec<u8>> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let captured = spawn::run_captured(&words, dir, &[], GIT_LIMIT).ok()?;
    (captured.exit == 0).then_some(captured.stdout)
}
