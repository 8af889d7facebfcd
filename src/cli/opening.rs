//! What most commands begin with: the workspace, its graph, the store, a selection. Knows no single command.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::span::Sources;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::engine::event::Log;
use crate::engine::execute::now_ms;
use crate::engine::groups::{Choices, Sizes};
use crate::engine::inspect::Inspecting;
use crate::engine::plan::{self, PlanError};
use crate::engine::preview::{self, Forecast, PreviewError};
use crate::engine::rest::Rest;
use crate::engine::scheduler::OnFailure;
use crate::engine::session::{Ambient, Committed, Memory, Observe, Options, Reach, Reuse, Session};
use crate::engine::union::UnionError;
use crate::fs::ops;
use crate::graph::build::{self, TaskGraph};
use crate::graph::select;
use crate::process::cancel::Cancel;
use crate::report::render::render_all;
use crate::store::{ActionResult, OpenOptions, Store};
use crate::workspace::discover;
use crate::workspace::load_grouped;
use crate::workspace::model::Workspace;

/// A loaded workspace with its graph.
pub struct Opened {
    /// The workspace.
    pub workspace: Workspace,
    /// Its tasks and what they need.
    pub graph: TaskGraph,
    /// Where the person stands, relative to the root.
    pub here: RelPath,
    /// The sizes of groups it was loaded with.
    pub sizes: Sizes,
}

/// Where a person stands.
pub struct Located {
    /// The root of the workspace, without links.
    pub root: PathBuf,
    /// Relative to the root.
    pub here: RelPath,
}

/// Finds the workspace around the current directory.
pub fn locate(context: &Context) -> Result<Located, CliError> {
    let dir = ops::canonical(&context.dir)?;
    let Some(root) = discover::find_root(&dir) else {
        let message = format!("no `drystone.toml` with `[workspace]` in {} or above it", dir.display());
        return Err(CliError::usage(message).help("`drystone init` writes one; `-C DIR` works in another directory"));
    };
    let below = dir.strip_prefix(&root).unwrap_or(std::path::Path::new(""));
    let here = RelPath::parse_bytes(below.as_os_str().as_encoded_bytes()).unwrap_or_default();
    Ok(Located { root, here })
}

/// Loads the workspace around the current directory; warnings are told at once.
pub fn open(context: &Context) -> Result<Opened, CliError> {
    open_with(context, Choices::Kept)
}

/// The same with these choices for `per-action = "auto"`.
pub fn open_with(context: &Context, choices: Choices) -> Result<Opened, CliError> {
    let Located { root, here } = locate(context)?;
    let store_dir = context.environment.store_dir();
    let sizes = store_dir.map(|dir| Sizes::read(&dir, &root, choices)).unwrap_or_default();
    let workspace = load_grouped(&root, &|label, items| sizes.size(label, items))
        .map_err(|error| CliError::Manifest { sources: error.sources, diagnostics: error.diagnostics })?;
    let graph = build::build(&workspace)
        .map_err(|diagnostics| CliError::Manifest { sources: workspace.sources.clone(), diagnostics })?;
    tell(context, &workspace.sources, &workspace.diagnostics);
    Ok(Opened { workspace, graph, here, sizes })
}

/// Tells diagnostics on the standard error stream.
pub fn tell(context: &Context, sources: &Sources, diagnostics: &[Diagnostic]) {
    if !diagnostics.is_empty() {
        context.say(&render_all(diagnostics, sources, context.stderr.color, context.stderr.width));
    }
}

/// Opens the store; what happened to it is told.
pub fn open_store(context: &Context, bytes_max: Option<u64>) -> Result<Arc<Store>, CliError> {
    let dir = context.environment.store_dir()?;
    let origin = context.environment.origin()?;
    let store = Store::open(OpenOptions { dir, bytes_max, now_ms, origin })?;
    tell_store(context, &store, 0);
    Ok(Arc::new(store))
}

/// The same for a run, which may need no more of it than that it is kept from collection. What happens to its database is told by
/// [`tell_store`].
pub fn open_store_lazily(context: &Context, bytes_max: Option<u64>) -> Result<Arc<Store>, CliError> {
    let dir = context.environment.store_dir()?;
    let origin = context.environment.origin()?;
    Ok(Arc::new(Store::open_lazily(OpenOptions { dir, bytes_max, now_ms, origin })?))
}

/// Tells what happened to a store, but for what was told already; how much is told then.
pub fn tell_store(context: &Context, store: &Store, told: usize) -> usize {
    let notices = store.notices();
    tell(context, &Sources::default(), &notices[told..]);
    notices.len()
}

impl Opened {
    /// The tasks that the words on the command line name; with none, those of this directory and below.
    pub fn select(&self, words: &[String]) -> Result<Vec<TaskId>, CliError> {
        if words.is_empty() {
            // A directory without tasks is no mistake of the person who stands in it.
            let beneath = self.workspace.packages.values().filter(|package| package.dir.starts_with(&self.here));
            return Ok(beneath.flat_map(|package| package.tasks.iter().copied()).collect());
        }
        select::select(&self.workspace, words, &self.here).map_err(|problems| self.wrong(problems))
    }

    /// One task.
    pub fn select_one(&self, word: &str) -> Result<TaskId, CliError> {
        let found = self.select(&[word.to_owned()])?;
        match found.as_slice() {
            [task] => Ok(*task),
            several => {
                let labels: Vec<String> =
                    several.iter().take(5).map(|task| format!("`{}`", self.workspace.tasks[*task].label)).collect();
                let message = format!("`{word}` names {} tasks: {}", several.len(), labels.join(", "));
                Err(CliError::usage(message).help("name one of them in full"))
            }
        }
    }

    /// One task, or all parts of one split task in their order.
    pub fn select_whole(&self, word: &str) -> Result<Vec<TaskId>, CliError> {
        let found = self.select(&[word.to_owned()])?;
        let split = found.first().and_then(|task| self.workspace.split_of(*task));
        let is_whole = |task: &TaskId| split.is_some_and(|split| self.workspace.whole(*task) == split.parts[0]);
        match split.filter(|split| split.parts.len() == found.len() && found.iter().all(is_whole)) {
            Some(split) => Ok(split.parts.clone()),
            None => Ok(vec![self.select_one(word)?]),
        }
    }

    /// Problems of the workspace as the error of a command.
    pub fn wrong(&self, diagnostics: Vec<Diagnostic>) -> CliError {
        CliError::Manifest { sources: self.workspace.sources.clone(), diagnostics }
    }

    /// Why there is no plan, as the error of a command.
    pub fn plan_error(&self, error: PlanError) -> CliError {
        match error {
            PlanError::Input(diagnostics) => self.wrong(diagnostics),
            PlanError::Store(error) => error.into(),
        }
    }

    /// Why there is no forecast, as the error of a command.
    pub fn preview_error(&self, error: PreviewError) -> CliError {
        match error {
            PreviewError::Input(problem) => self.wrong(vec![*problem]),
            PreviewError::Store(error) => error.into(),
        }
    }

    /// Why there is no union, as the error of a command.
    pub fn union_error(&self, error: UnionError) -> CliError {
        match error {
            UnionError::Conflict(diagnostics) => self.wrong(diagnostics),
            UnionError::Store(error) => error.into(),
            UnionError::Fs(error) => error.into(),
            UnionError::Gone(_) => CliError::infrastructure(error.to_string()).help("run it again"),
        }
    }

    /// A session for looking and running.
    pub fn session<'w>(
        &'w self,
        context: &Context,
        store: Arc<Store>,
        options: Options,
        cancel: Cancel,
    ) -> Result<Session<'w>, CliError> {
        self.session_with(context, store, options, cancel, Memory::Whole)
    }

    /// A session for what asks nothing of the files of tasks, but of what traced tasks look at.
    pub fn session_to_look<'w>(&'w self, context: &Context, store: Arc<Store>) -> Result<Session<'w>, CliError> {
        let is_enough = self.workspace.tasks.facts().traced.is_empty();
        let memory = if is_enough { Memory::None } else { Memory::Whole };
        self.session_with(context, store, looking(), never_cancelled()?, memory)
    }

    /// The same for what is left of an earlier run.
    pub fn session_for<'w>(
        &'w self,
        context: &Context,
        store: Arc<Store>,
        options: Options,
        cancel: Cancel,
        rest: Option<&Rest>,
    ) -> Result<Session<'w>, CliError> {
        self.session_with(context, store, options, cancel, rest.map_or(Memory::Whole, Memory::Rest))
    }

    fn session_with<'w>(
        &'w self,
        context: &Context,
        store: Arc<Store>,
        options: Options,
        cancel: Cancel,
        memory: Memory<'_>,
    ) -> Result<Session<'w>, CliError> {
        let ambient = Ambient {
            variables: context.environment.variables().clone(),
            program: PathBuf::from(LAUNCHER),
            ci: context.environment.is_ci(),
        };
        Session::open((&self.workspace, &self.graph), store, options, ambient, cancel, memory)
            .map_err(|error| CliError::infrastructure(error.to_string()))
    }
}

/// What is known of a task as the tree is now.
pub struct Known {
    /// The task.
    pub task: TaskId,
    /// Its label.
    pub label: String,
    /// The stored result that it would hit.
    pub result: Option<ActionResult>,
    /// What it printed when it ran last, if it failed then.
    pub failed: Option<Log>,
}

impl Known {
    /// The way out where there is no result.
    pub fn missing(&self) -> CliError {
        let label = &self.label;
        CliError::usage(format!("`{label}` has no result for what is in the tree now"))
            .help(format!("`drystone run {label}` makes one"))
    }
}

/// Looks a task up, or all parts of a split one in their order, without running anything.
pub fn known_of(opened: &Opened, context: &Context, word: &str) -> Result<(Arc<Store>, Vec<Known>), CliError> {
    let tasks = opened.select_whole(word)?;
    if let [task] = tasks.as_slice()
        && opened.workspace.tasks[*task].kind.is_service()
    {
        let label = &opened.workspace.tasks[*task].label;
        return Err(CliError::usage(format!("`{label}` is a service: nothing of it is kept"))
            .help(format!("`drystone run {label}` starts it and shows what it prints")));
    }
    let store = open_store(context, opened.workspace.config.store_bytes_max)?;
    let session = opened.session(context, Arc::clone(&store), looking(), never_cancelled()?)?;
    let plan = plan::plan(&session, &tasks).map_err(|error| opened.plan_error(error))?;
    let forecasts = preview::preview(&session, &plan).map_err(|error| opened.preview_error(error))?;
    let mut all = Vec::new();
    for task in tasks {
        let result = match &forecasts[plan.positions[&task]] {
            Forecast::Hit { action } => store.lookup(action)?,
            Forecast::Run { .. } | Forecast::Depends { .. } | Forecast::Service { .. } => None,
        };
        let label = session.label(task);
        let failed = session.failures().find(&label);
        all.push(Known { task, label, result, failed });
    }
    drop(session);
    Ok((store, all))
}

/// What is started as launcher: this very program.
pub const LAUNCHER: &str = "/proc/self/exe";

/// Options that look and never run.
pub fn looking() -> Options {
    Options {
        jobs: 1,
        on_failure: OnFailure::Stop,
        reuse: Reuse::Results,
        isolation: None,
        committed: Committed::Check,
        observe: Observe::AfterFailure,
        reach: Reach::Offline,
        inspecting: Inspecting::default(),
    }
}

/// A cancellation that nothing triggers.
pub fn never_cancelled() -> Result<Cancel, CliError> {
    Cancel::new().map_err(|error| CliError::infrastructure(format!("cannot make an event: {error}")))
}
