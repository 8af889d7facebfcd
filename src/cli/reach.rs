//! What a change reaches: asks the graph what the files touch that differ. Prints nothing.

use std::collections::{BTreeMap, VecDeque};

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::cli::again;
use crate::cli::context::Context;
use crate::cli::differing::{Asked, Differing};
use crate::cli::error::CliError;
use crate::cli::opening::Opened;
use crate::cli::shard::Shard;
use crate::engine::session::Session;
use crate::engine::sight::Sight;
use crate::fs::ops;
use crate::workspace::affected;
use crate::workspace::changes::{Before, Change, ChangeKind, FileKind};

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
    context: &Context,
) -> Result<BTreeMap<TaskId, Proof>, CliError> {
    let changes = Changes::since(session, revision, context)?;
    Ok(changes.reach(opened, session, &changes.sight(session)))
}

/// The tasks that what differs can reach, each with its proof.
pub fn reached(opened: &Opened, session: &Session<'_>, differing: Differing) -> BTreeMap<TaskId, Proof> {
    let changes = Changes::of(session, differing);
    let sight = changes.sight(session);
    changes.reach(opened, session, &sight)
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
        context: &Context,
    ) -> Result<Option<Diagnostic>, CliError> {
        let changes =
            self.affected.map(|revision| Changes::since(session, revision.as_deref(), context)).transpose()?;
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
    fn since(session: &Session<'_>, revision: Option<&str>, context: &Context) -> Result<Self, CliError> {
        let differing = std::thread::scope(|scope| {
            let asked = Asked::of(scope, context, revision);
            let kept = again::kept(context)?.map(|(kept, _)| kept);
            asked.differing(session, kept.as_ref())
        });
        Ok(Self::of(session, differing?))
    }

    fn of(session: &Session<'_>, Differing { paths, before }: Differing) -> Self {
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
        Self { all, before }
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
