//! What differs between a commit and the files on disk, asked of git while something else is done. Knows nothing of tasks.

use std::path::{Path, PathBuf};
use std::thread::{Scope, ScopedJoinHandle};

use crate::base::diagnostic::Diagnostic;
use crate::base::path::RelPath;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::opening;
use crate::engine::again::Kept;
use crate::engine::session::Session;
use crate::engine::tracked::run_git_in;
use crate::engine::untracked::{self, Circumstances};
use crate::fs::ops;
use crate::store::workspace_state;
use crate::workspace::changes::Before;
use crate::workspace::git;

/// What differs from a commit.
pub struct Differing {
    /// The files, sorted, each once; those that git does not know among them.
    pub paths: Vec<RelPath>,
    /// What of the commit has to be known of them.
    pub before: Before,
}

/// What git was asked already. Whatever could not be asked yet is asked when all of it is wanted.
pub struct Asked<'s> {
    since: Option<ScopedJoinHandle<'s, Result<Since, CliError>>>,
    circumstances: Option<ScopedJoinHandle<'s, Option<Circumstances>>>,
    state_dir: PathBuf,
}

impl<'s> Asked<'s> {
    /// Begins to ask, on threads of the scope: what differs if there is a revision, and what the untracked files follow from if what is
    /// kept may be used.
    pub fn of<'e>(scope: &'s Scope<'s, 'e>, context: &'e Context, revision: Option<&'e str>) -> Self {
        // What is wrong is told by who opens the workspace.
        let located = opening::locate(context).ok();
        let store_dir = context.environment.store_dir().ok().and_then(|dir| ops::canonical(&dir).ok());
        let Some((root, store_dir)) = located.map(|located| located.root).zip(store_dir) else {
            return Self { since: None, circumstances: None, state_dir: PathBuf::new() };
        };
        let state_dir = workspace_state(&store_dir, &root);
        let since = revision.map(|revision| {
            let root = root.clone();
            scope.spawn(move || Since::revision(&root, revision))
        });
        let circumstances = (!context.environment.loads_anew()).then(|| {
            let state_dir = state_dir.clone();
            scope.spawn(move || Circumstances::of(&root, &state_dir, context.environment.variables()))
        });
        Self { since, circumstances, state_dir }
    }

    /// All that differs. `kept` is what is kept of the last run, where nothing of what it loaded has changed.
    pub fn differing(self, session: &Session<'_>, kept: Option<&Kept>) -> Result<Differing, CliError> {
        let Self { since, circumstances, state_dir } = self;
        let root = &session.workspace.root;
        let circumstances = circumstances.and_then(joined);
        let (since, untracked) = std::thread::scope(|scope| {
            let untracked = scope.spawn(|| untracked::files(root, &state_dir, kept, circumstances.as_ref()));
            let since =
                since.map_or_else(|| Since::branch_left(root, &session.workspace.config.default_branch), joined);
            (since, joined(untracked))
        });
        let Since { commit, mut paths, mut before } = since?;
        paths.extend(untracked.ok_or_else(|| untold("what is new"))?);
        paths.sort();
        paths.dedup();
        // Only of what traced tasks saw it matters in which directories there was something.
        if !paths.is_empty() && !session.workspace.tasks.facts().traced.is_empty() {
            let files = run_git_in(root, &git::files_of(&commit).map_err(bad)?);
            before = git::parse_files(&files.ok_or_else(|| untold("what was there"))?);
        }
        Ok(Differing { paths, before })
    }
}

fn joined<T>(asked: ScopedJoinHandle<'_, T>) -> T {
    asked.join().expect("BUG: asking git panicked")
}

fn bad(error: git::RevisionError) -> CliError {
    CliError::usage(error.to_string())
}

fn untold(what: &str) -> CliError {
    CliError::infrastructure(format!("git could not tell {what}"))
}

/// The tracked files that differ from a commit.
struct Since {
    commit: String,
    paths: Vec<RelPath>,
    before: Before,
}

impl Since {
    /// Since `HEAD` left the history of a revision.
    fn revision(root: &Path, revision: &str) -> Result<Self, CliError> {
        git::resolve(revision).map_err(bad)?;
        let ask = |argv: Vec<String>| run_git_in(root, &argv).and_then(|answer| git::parse_commit(&answer));
        let base = ask(git::merge_base(&format!("{revision}^{{commit}}")).map_err(bad)?);
        let unknown = || {
            CliError::Usage(
                Diagnostic::error(format!("git knows no commit `{revision}`"))
                    .help("in a shallow clone fetch more history: `git fetch --deepen 100`"),
            )
        };
        // A commit of another history is compared with as it is.
        let commit = match base {
            Some(base) => base,
            None => ask(git::resolve(revision).map_err(bad)?).ok_or_else(unknown)?,
        };
        Self::commit(root, commit)
    }

    /// Since this branch left the default branch, on its remote if that is known.
    fn branch_left(root: &Path, branch: &str) -> Result<Self, CliError> {
        let bases = [format!("origin/{branch}"), branch.to_owned()];
        let found = bases.iter().find_map(|base| {
            let argv = git::merge_base(base).ok()?;
            git::parse_commit(&run_git_in(root, &argv)?)
        });
        let commit = found.ok_or_else(|| {
            CliError::usage(format!("cannot tell where this branch left `{branch}`"))
                .help("name a revision (`--affected=REV`), set `default-branch`, or fetch more history")
        })?;
        Self::commit(root, commit)
    }

    fn commit(root: &Path, commit: String) -> Result<Self, CliError> {
        let answer = run_git_in(root, &git::differences(&commit).map_err(bad)?);
        let (paths, before) = git::parse_differences(&answer.ok_or_else(|| untold("what changed"))?);
        Ok(Self { commit, paths, before })
    }
}
