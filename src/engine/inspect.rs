//! The seam for whoever looks at results by building them again: audits, and checks of hits. Decides nothing about either.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::tree::Listing;
use crate::engine::job::Success;
use crate::engine::pod::Unready;
use crate::engine::prepare::{Dependency, Prepared};
use crate::engine::rebuild::{self, Arrangement, Rebuilt};
use crate::engine::service::Held;
use crate::engine::session::Session;
use crate::manifest::model::TaskKind;
use crate::sandbox::canary::Sight;
use crate::sandbox::spec::{Level, WORKSPACE_DIR};
use crate::sandbox::surroundings::Dimension;

/// Looks at results by building them again.
pub trait Inspector: Send + Sync + fmt::Debug {
    /// Whether the result of a task under a key is to be looked at, if it was a hit. Asked once for each hit; must be quick.
    fn wants_hit(&self, label: &str, key: &Digest) -> bool;

    /// Whether the same holds of a result that was made just now.
    fn wants_new(&self, label: &str, key: &Digest) -> bool;

    /// Looks at it, on the thread and in the slot of a job.
    fn inspect(&self, case: &Case<'_, '_>) -> Inspection;
}

/// What an inspection came to.
pub enum Inspection {
    /// The task goes on as it was, with these things to say.
    Done(Vec<Diagnostic>),
    /// The task is to fail, for this reason.
    Refused(Diagnostic),
    /// The run was cancelled meanwhile.
    Cancelled,
}

/// The inspector of an invocation, if it has one.
#[derive(Clone, Debug, Default)]
pub struct Inspecting(pub Option<Arc<dyn Inspector>>);

/// A task with its result.
pub struct Case<'c, 'w> {
    /// The invocation.
    pub session: &'c Session<'w>,
    /// Which task.
    pub task: TaskId,
    /// Its key.
    pub key: Digest,
    /// Its outputs.
    pub outputs: &'c Digest,
    /// The same by path relative to the package.
    pub listing: &'c Arc<Listing>,
    /// Whether the result was there before.
    pub is_hit: bool,
    /// How long making it took.
    pub took: Duration,
    prepared: &'c Prepared,
    dependencies: &'c [Dependency],
    join: &'c dyn Fn() -> Result<Held, Unready>,
}

impl<'c, 'w> Case<'c, 'w> {
    pub(super) fn new(
        (session, task): (&'c Session<'w>, TaskId),
        success: &'c Success,
        (prepared, dependencies): (&'c Prepared, &'c [Dependency]),
        join: &'c dyn Fn() -> Result<Held, Unready>,
    ) -> Self {
        let (outputs, listing) = (&success.produced.digest, &success.produced.listing);
        let is_hit = success.source.is_some();
        let took = if is_hit { success.saved } else { success.duration };
        Self { session, task, key: success.action, outputs, listing, is_hit, took, prepared, dependencies, join }
    }

    /// The label of the task.
    pub fn label(&self) -> String {
        self.session.label(self.task)
    }

    /// The level that it is built at.
    pub fn isolation(&self) -> Level {
        self.prepared.action.isolation
    }

    /// Why there is nothing to build again; `None` if there is.
    pub fn not_buildable(&self) -> Option<&'static str> {
        match &self.session.workspace.tasks[self.task].kind {
            TaskKind::Fetch(_) => Some("a fetch is checked against its digest, and runs nothing"),
            TaskKind::Service(_) => Some("a service has no result"),
            TaskKind::Run(run) if run.outputs.is_empty() && run.command.image().is_none() => {
                Some("it declares no outputs, so there is nothing to compare")
            }
            TaskKind::Run(_) => None,
        }
    }

    /// Whether it is an image.
    pub fn is_image(&self) -> bool {
        self.session.workspace.tasks[self.task].kind.command().is_some_and(|run| run.command.image().is_some())
    }

    /// Whether the manifest sets a variable for it.
    pub fn sets_variable(&self, name: &str) -> bool {
        let TaskKind::Run(run) = &self.session.workspace.tasks[self.task].kind else { return false };
        let named = |names: &[String]| names.iter().any(|one| one == name);
        run.env.iter().any(|(one, _)| one == name) || named(&run.pass_env) || named(&run.secret_env)
    }

    /// Whether command or manifest name the place of the workspace, so that elsewhere it would be another command.
    fn names_workspace(&self) -> bool {
        let crate::fingerprint::action::Work::Run { argv } = &self.prepared.action.work else { return false };
        let TaskKind::Run(run) = &self.session.workspace.tasks[self.task].kind else { return false };
        let mut texts = argv.iter().chain(run.env.values());
        texts.any(|text| text.contains(WORKSPACE_DIR))
    }

    /// Why a dimension cannot be varied in it.
    pub fn cannot_vary(&self, dimension: Dimension) -> Option<&'static str> {
        let recipe = self.session.workspace.tasks[self.task].kind.command().and_then(|run| run.command.image());
        if recipe.is_some_and(|recipe| !recipe.has_steps()) {
            return Some("no command runs: Drystone assembles it");
        }
        if dimension == Dimension::BuildPath && self.names_workspace() {
            return Some("the command names `/workspace` itself");
        }
        match (self.is_image(), dimension) {
            (
                true,
                Dimension::BuildPath | Dimension::User | Dimension::Clock | Dimension::FileSystem | Dimension::DirOrder,
            ) => Some("steps of images are user 0 of a root of their own"),
            _ => None,
        }
    }

    /// Builds it once more. Cost: that of the task, without its caches.
    pub fn rebuild(&self, arrangement: &Arrangement) -> Rebuilt {
        match (self.join)() {
            Ok(services) => {
                let prepared = (self.prepared, self.dependencies);
                rebuild::rebuild(self.session, self.task, prepared, &services, arrangement)
            }
            Err(Unready::Cancelled) => Rebuilt::Cancelled,
            Err(Unready::Failed { log, failure }) => Rebuilt::Failed { how: failure.cause, log },
            Err(Unready::Broken(problem)) => Rebuilt::Broken(problem),
        }
    }

    /// What a canary finds in its sandbox; or why none can look.
    pub fn sight(&self, arrangement: &Arrangement) -> Result<Sight, String> {
        rebuild::sight(self.session, self.task, (self.prepared, self.dependencies), arrangement)
    }
}
