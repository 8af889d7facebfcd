//! What a change reaches: asks git what changed and the graph what that touches. Prints nothing.

use std::collections::{BTreeMap, VecDeque};

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::cli::error::CliError;
use crate::cli::opening::Opened;
use crate::cli::shard::Shard;
use crate::engine::session::Session;
use crate::engine::sight::Sight;
use crate::engine::tracked::run_git;
use crate::fs::ops;
use crate::workspace::changes::{Before, Change, ChangeKind, FileKind};
use crate::workspace::{affected, git};

/// A task that a change reaches: the changed file first, then the tasks in between, nearest to the file first.
pub type Proof = Vec<String>;

/// The tasks that the changes since a revision can reach, each with its proof.
///
/// Without a revision: since the branch left the default branch, on its remote if that is known. Cost: a few calls of git, a plan for
/// the traced tasks, and one pass over what depends on the touched tasks.
pub fn affected_tasks(
    opened: &Opened,
    session: &Session<'_>,
    revision: Option<&str>,
) -> Result<BTreeMap<TaskId, Proof>, CliError> {
    let changes = Changes::since(session, revision)?;
    let sight = changes.sight(session);
    Ok(changes.reach(opened, session, &sight))
}

/// What of a selection is to be done.
#[derive(Clone, Copy)]
pub struct Share<'a> {
    /// `--affected`, with its revision.
    pub affected: Option<&'a Option<String>>,
    /// `--shard`.
    pub shard: Option<Shard>,
}

impl Share<'_> {
    /// Keeps of the selected tasks what is affected, and of that one share. Gives what there is to say of the share.
    ///
    /// What traced tasks look at is known to one job and not to another, even as one ends and the other begins. So it says which tasks
    /// are affected, never which share a task is in.
    pub fn keep(
        self,
        selected: &mut Vec<TaskId>,
        opened: &Opened,
        session: &Session<'_>,
    ) -> Result<Option<Diagnostic>, CliError> {
        let changes = self.affected.map(|revision| Changes::since(session, revision.as_deref())).transpose()?;
        let mut note = None;
        if let Some(shard) = self.shard {
            if let Some(changes) = &changes {
                let reached = changes.reach(opened, session, &Sight::NOTHING);
                selected.retain(|task| reached.contains_key(task));
            }
            note = Some(shard.take_from(selected, session));
        }
        if let Some(changes) = &changes {
            let reached = changes.reach(opened, session, &changes.sight(session));
            selected.retain(|task| reached.contains_key(task));
        }
        Ok(note)
    }
}

/// What differs from a commit.
struct Changes {
    all: Vec<Change>,
    before: Before,
}

impl Changes {
    fn since(session: &Session<'_>, revision: Option<&str>) -> Result<Self, CliError> {
        let commit = commit(session, revision)?;
        let (paths, before) = changed_paths(session, &commit)?;
        let is_directory = |path: &&RelPath| file_kind(session, path) == Some(FileKind::Other);
        let change = |path: RelPath| {
            let now = file_kind(session, &path);
            before.change(path, now)
        };
        let mut all: Vec<Change> = paths.into_iter().map(change).collect();
        // Of another repository git tells that something in it differs: all of it may.
        let inner: Vec<RelPath> = all.iter().map(|change| &change.path).filter(is_directory).cloned().collect();
        for dir in inner {
            let region = session.files.look(&dir);
            let files = region.iter().filter(|found| found.kind != ops::Kind::Dir);
            all.extend(files.map(|found| Change { path: found.path.clone(), kind: ChangeKind::Turned }));
        }
        Ok(Self { all, before })
    }

    /// What traced tasks are known to look at, as far as that matters.
    fn sight(&self, session: &Session<'_>) -> Sight {
        if self.all.is_empty() { Sight::NOTHING } else { Sight::of(session) }
    }

    fn reach(&self, opened: &Opened, session: &Session<'_>, sight: &Sight) -> BTreeMap<TaskId, Proof> {
        let touched = affected::directly(
            session.workspace,
            &self.all,
            &affected::Known {
                outputs: &session.outputs,
                tools: &session.workspace_tools(),
                traced: &|task, change, scope| sight.reaches(task, change, scope, &self.before),
                sizes: &|label, items| opened.sizes.size(label, items),
            },
        );
        let mut reaching = Reaching { session, proofs: BTreeMap::new(), queue: VecDeque::new() };
        for (task, path) in touched.tasks {
            reaching.proofs.insert(task, vec![path.to_string()]);
            reaching.queue.push_back(task);
        }
        for (first, path) in touched.wholes {
            let proof = vec![path.to_string(), session.workspace.whole_label(first)];
            reaching.dependants(first, &proof);
        }
        while let Some(task) = reaching.queue.pop_front() {
            let mut proof = reaching.proofs[&task].clone();
            proof.push(session.label(task));
            reaching.dependants(task, &proof);
        }
        reaching.proofs
    }
}

struct Reaching<'a, 'w> {
    session: &'a Session<'w>,
    proofs: BTreeMap<TaskId, Proof>,
    queue: VecDeque<TaskId>,
}

impl Reaching<'_, '_> {
    /// Those of a task that were not reached before.
    fn dependants(&mut self, task: TaskId, proof: &Proof) {
        for dependant in self.session.graph.dependants(task) {
            self.proofs.entry(dependant).or_insert_with(|| {
                self.queue.push_back(dependant);
                proof.clone()
            });
        }
    }
}

/// What lies at a path now.
fn file_kind(session: &Session<'_>, path: &RelPath) -> Option<FileKind> {
    let found = ops::symlink_metadata(&session.workspace.root.join(path.as_str())).ok()?;
    Some(match found {
        found if found.is_symlink() => FileKind::Link,
        found if found.is_file() => FileKind::File,
        _ => FileKind::Other,
    })
}

/// The commit that the tree is compared with.
fn commit(session: &Session<'_>, revision: Option<&str>) -> Result<String, CliError> {
    let bad = |error: git::RevisionError| CliError::usage(error.to_string());
    let ask = |argv: Vec<String>| run_git(session, &argv);
    match revision {
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
            Ok(base.unwrap_or(commit))
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
            })
        }
    }
}

/// The files that differ from a commit, and those that git does not know; with what of the commit has to be known of them.
fn changed_paths(session: &Session<'_>, commit: &str) -> Result<(Vec<RelPath>, Before), CliError> {
    let bad = |error: git::RevisionError| CliError::usage(error.to_string());
    let (differences, files) = (git::differences(commit).map_err(bad)?, git::files_of(commit).map_err(bad)?);
    let ask = |argv: &[String], what: &str| {
        run_git(session, argv).ok_or_else(|| CliError::infrastructure(format!("git could not tell {what}")))
    };
    // Each looks at the whole tree.
    let (differences, untracked) = std::thread::scope(|scope| {
        let untracked = scope.spawn(|| ask(&git::untracked(), "what is new"));
        let differences = ask(&differences, "what changed");
        (differences, untracked.join().expect("BUG: asking git panicked"))
    });
    let (mut changed, mut before) = git::parse_differences(&differences?);
    changed.extend(git::parse_changed(&untracked?));
    changed.sort();
    changed.dedup();
    // Only of what traced tasks saw it matters in which directories there was something.
    if !changed.is_empty() && !session.workspace.tasks.facts().traced.is_empty() {
        before = git::parse_files(&ask(&files, "what was there")?);
    }
    Ok((changed, before))
}
