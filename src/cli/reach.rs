//! What a change reaches: asks git what changed and the graph what that touches. Prints nothing.

use std::collections::{BTreeMap, VecDeque};

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::cli::error::CliError;
use crate::engine::session::Session;
use crate::engine::traced;
use crate::engine::tracked::run_git;
use crate::workspace::{affected, git};

/// A task that a change reaches: the changed file first, then the tasks in between, nearest to the file first.
pub type Proof = Vec<String>;

/// The tasks that the changes since a revision can reach, each with its proof.
///
/// Without a revision: since the branch left the default branch, on its remote if that is known. Cost: two calls of git and
/// one pass over what depends on the touched tasks.
pub fn affected_tasks(session: &Session<'_>, revision: Option<&str>) -> Result<BTreeMap<TaskId, Proof>, CliError> {
    let changed = changed_paths(session, revision)?;
    let (tools, traced) = (session.workspace_tools(), traced::known_paths(session));
    let touched = affected::directly(session.workspace, &changed, &session.outputs, &tools, &traced);
    let mut proofs: BTreeMap<TaskId, Proof> = BTreeMap::new();
    let mut queue: VecDeque<TaskId> = VecDeque::new();
    for (task, path) in touched {
        proofs.insert(task, vec![path.to_string()]);
        queue.push_back(task);
    }
    while let Some(task) = queue.pop_front() {
        let mut proof = proofs[&task].clone();
        proof.push(session.label(task));
        for (dependant, _) in session.graph.dependants(task) {
            proofs.entry(dependant).or_insert_with(|| {
                queue.push_back(dependant);
                proof.clone()
            });
        }
    }
    Ok(proofs)
}

fn changed_paths(session: &Session<'_>, revision: Option<&str>) -> Result<Vec<RelPath>, CliError> {
    let bad = |error: git::RevisionError| CliError::usage(error.to_string());
    let ask = |argv: Vec<String>| run_git(session, &argv);
    let commit = match revision {
        Some(revision) => {
            let unknown = || {
                CliError::Usage(
                    Diagnostic::error(format!("git knows no commit `{revision}`"))
                        .help("in a shallow clone fetch more history: `git fetch --deepen 100`"),
                )
            };
            let commit = ask(git::resolve(revision).map_err(bad)?).and_then(|answer| git::parse_commit(&answer));
            let commit = commit.ok_or_else(unknown)?;
            let base = ask(git::merge_base(&commit).map_err(bad)?).and_then(|answer| git::parse_commit(&answer));
            base.unwrap_or(commit)
        }
        None => {
            let branch = &session.workspace.config.default_branch;
            let bases = [format!("origin/{branch}"), branch.clone()];
            let found = bases.iter().find_map(|base| {
                let argv = git::merge_base(base).ok()?;
                git::parse_commit(&ask(argv)?)
            });
            found.ok_or_else(|| {
                CliError::usage(format!("cannot tell where this branch left `{branch}`"))
                    .help("name a revision (`--affected=REV`), set `default-branch`, or fetch more history")
            })?
        }
    };
    let diff = ask(git::changed_since(&commit).map_err(bad)?);
    let diff = diff.ok_or_else(|| CliError::infrastructure("git could not tell what changed"))?;
    let mut changed = git::parse_changed(&diff);
    changed.extend(git::parse_changed(&ask(git::untracked()).unwrap_or_default()));
    Ok(changed)
}
