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
use crate::engine::plan::{self, PlanError};
use crate::engine::preview::{self, Forecast, PreviewError};
use crate::engine::scheduler::OnFailure;
use crate::engine::session::{Ambient, Committed, Options, Reuse, Session};
use crate::fs::ops;
use crate::graph::build::{self, TaskGraph};
use crate::graph::select;
use crate::process::cancel::Cancel;
use crate::report::render::render_all;
use crate::store::{ActionResult, OpenOptions, Store};
use crate::workspace::discover;
use crate::workspace::load;
use crate::workspace::model::Workspace;

/// A loaded workspace with its graph.
pub struct Opened {
    /// The workspace.
    pub workspace: Workspace,
    /// Its tasks and what they need.
    pub graph: TaskGraph,
    /// Where the person stands, relative to the root.
    pub here: RelPath,
}

/// Loads the workspace around the current directory; warnings are told at once.
pub fn open(context: &Context) -> Result<Opened, CliError> {
    let dir = ops::canonical(&context.dir)?;
    let Some(root) = discover::find_root(&dir) else {
        let message = format!("no `drystone.toml` with `[workspace]` in {} or above it", dir.display());
        return Err(CliError::usage(message).help("`drystone init` writes one; `-C DIR` works in another directory"));
    };
    let workspace =
        load(&root).map_err(|error| CliError::Manifest { sources: error.sources, diagnostics: error.diagnostics })?;
    let graph = build::build(&workspace)
        .map_err(|diagnostics| CliError::Manifest { sources: workspace.sources.clone(), diagnostics })?;
    tell(context, &workspace.sources, &workspace.diagnostics);
    let below = dir.strip_prefix(&root).unwrap_or(std::path::Path::new(""));
    let here = RelPath::parse_bytes(below.as_os_str().as_encoded_bytes()).unwrap_or_default();
    Ok(Opened { workspace, graph, here })
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
    let store = Store::open(OpenOptions { dir, bytes_max, now_ms })?;
    tell(context, &Sources::default(), &store.notices());
    Ok(Arc::new(store))
}

impl Opened {
    /// The tasks that the words on the command line name; with none, those of this directory and below.
    pub fn select(&self, words: &[String]) -> Result<Vec<TaskId>, CliError> {
        if words.is_empty() {
            // A directory without tasks is no mistake of the person who stands in it.
            let here = |task: &TaskId| self.workspace.tasks[*task].label.package.starts_with(&self.here);
            return Ok(self.workspace.tasks.ids().filter(here).collect());
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

    /// A session for looking and running.
    pub fn session<'w>(
        &'w self,
        context: &Context,
        store: Arc<Store>,
        options: Options,
        cancel: Cancel,
    ) -> Result<Session<'w>, CliError> {
        let ambient = Ambient {
            variables: context.environment.variables().clone(),
            program: PathBuf::from("/proc/self/exe"),
            ci: context.environment.is_ci(),
        };
        Session::open(&self.workspace, &self.graph, store, options, ambient, cancel)
            .map_err(|error| CliError::infrastructure(error.to_string()))
    }
}

/// What is known of a task as the tree is now.
pub struct Known {
    /// The store.
    pub store: Arc<Store>,
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

/// Looks a task up, without running anything.
pub fn known_of(opened: &Opened, context: &Context, word: &str) -> Result<Known, CliError> {
    let task = opened.select_one(word)?;
    let declared = &opened.workspace.tasks[task];
    if declared.kind.is_service() {
        let label = &declared.label;
        return Err(CliError::usage(format!("`{label}` is a service: nothing of it is kept"))
            .help(format!("`drystone run {label}` starts it and shows what it prints")));
    }
    let store = open_store(context, opened.workspace.config.store_bytes_max)?;
    let session = opened.session(context, Arc::clone(&store), looking(), never_cancelled()?)?;
    let plan = plan::plan(&session, &[task]).map_err(|error| opened.plan_error(error))?;
    let last = preview::preview_last(&session, &plan).map_err(|error| opened.preview_error(error))?;
    let result = match last {
        Some((Forecast::Hit { action }, _)) => store.lookup(&action)?,
        _ => None,
    };
    let label = session.label(task);
    let failed = session.failures().find(&label);
    drop(session);
    Ok(Known { store, label, result, failed })
}

/// Options that look and never run.
pub fn looking() -> Options {
    Options {
        jobs: 1,
        on_failure: OnFailure::Stop,
        reuse: Reuse::Results,
        isolation: None,
        committed: Committed::Check,
    }
}

/// A cancellation that nothing triggers.
pub fn never_cancelled() -> Result<Cancel, CliError> {
    Cancel::new().map_err(|error| CliError::infrastructure(format!("cannot make an event: {error}")))
}
