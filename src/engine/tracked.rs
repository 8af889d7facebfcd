//! Refuses declared outputs that hold files tracked by git, before anything is written or run.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::engine::restore::owned_patterns;
use crate::engine::session::Session;
use crate::fs::ops;
use crate::process::spawn;
use crate::workspace::git;
use crate::workspace::outputs::Committed;

/// Git answers in milliseconds; a file system that hangs must not hang the run for ever.
const GIT_LIMIT: Duration = Duration::from_secs(60);

/// Files told per task.
const FILES_TOLD_MAX: usize = 3;

/// Problems by task.
pub type Problems = BTreeMap<TaskId, Diagnostic>;

/// Checks the owned outputs of these tasks; git is asked once per invocation. A workspace without git passes.
pub fn check(session: &Session<'_>, tasks: &[TaskId]) -> Result<(), Vec<Diagnostic>> {
    let all = session.tracked.get_or_init(|| examine(session));
    let found: Vec<Diagnostic> = tasks.iter().filter_map(|task| all.get(task).cloned()).collect();
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn examine(session: &Session<'_>) -> Problems {
    let root = &session.workspace.root;
    let in_git = root.ancestors().any(|dir| ops::exists(&dir.join(".git")));
    let mut problems = Problems::new();
    if !in_git {
        return problems;
    }
    let Some(tracked) = run_git(session, &git::tracked(&[])) else { return problems };
    let mut by_task: BTreeMap<TaskId, Vec<RelPath>> = BTreeMap::new();
    for path in git::parse_changed(&tracked) {
        for (task, committed) in session.outputs.producers(&path) {
            if committed == Committed::Yes {
                continue;
            }
            let below = path.strip_prefix(session.package(task)).unwrap_or_default();
            if owned_patterns(session, task).iter().any(|pattern| pattern.matches(&below)) {
                by_task.entry(task).or_default().push(path.clone());
            }
        }
    }
    for (task, paths) in by_task {
        let declared = &session.workspace.tasks[task];
        let told: Vec<String> = paths.iter().take(FILES_TOLD_MAX).map(|path| format!("`{path}`")).collect();
        let more =
            if paths.len() > told.len() { format!(" and {} more", paths.len() - told.len()) } else { String::new() };
        problems.insert(
            task,
            Diagnostic::error(format!(
                "outputs of `{}` hold files tracked by git: {}{more}",
                declared.label,
                told.join(", ")
            ))
            .at(&declared.place, "a run would overwrite them")
            .help("list them under `committed` if they are generated and kept in git, or `git rm --cached` them"),
        );
    }
    problems
}

/// Output of git in the workspace root; `None` if it cannot be had (no git, not a repository).
pub fn run_git(session: &Session<'_>, argv: &[String]) -> Option<Vec<u8>> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let captured = spawn::run_captured(&words, &session.workspace.root, &[], GIT_LIMIT).ok()?;
    (captured.exit == 0).then_some(captured.stdout)
}
