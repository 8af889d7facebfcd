//! Builds an action once more, from clean, beside its result: nothing is looked up, recorded or put in place. Compares nothing.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::{Listing, fold};
use crate::engine::collect::{self, CollectError, Declared};
use crate::engine::event::Log;
use crate::engine::execute::{self, Executed, exit_sentence, now_ms, with_always_scratch};
use crate::engine::image_task;
use crate::engine::log::LogCapture;
use crate::engine::owned::Ground;
use crate::engine::prepare::{Dependency, Prepared};
use crate::engine::restore::RestoreError;
use crate::engine::service::Held;
use crate::engine::session::{Reuse, Session};
use crate::engine::view::{self, Purpose};
use crate::engine::workplace::Place;
use crate::fs::ops::{self, FsError};
use crate::manifest::glob::Pattern;
use crate::manifest::model::{RunTask, TaskKind};
use crate::manifest::recipe::ImageRecipe;
use crate::sandbox::canary::Sight;
use crate::sandbox::spec::{Access, Exit, Mount, SandboxError, SandboxSpec, System, WORKSPACE_DIR};
use crate::sandbox::surroundings::{Occupant, Surroundings};
use crate::store::{Stage, StoreError};

/// What is around a rebuild.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Arrangement {
    /// What is not as ever; `None` for a plain rebuild.
    pub surroundings: Option<Surroundings>,
    /// Variables with other values, or that are not there otherwise.
    pub env: BTreeMap<String, String>,
    /// A directory at the end of `PATH`.
    pub path_suffix: Option<String>,
}

/// On which occasion something is made.
#[derive(Clone, Copy)]
pub enum Occasion<'a> {
    /// For its result.
    Result(Reuse),
    /// Once more, beside it.
    Rebuild(&'a Arrangement),
    /// Not to be made: a canary looks around in place of the command of its first step, and there it ends.
    Look(&'a Arrangement, &'a OnceLock<Result<Sight, String>>),
}

/// What came of a rebuild.
pub enum Rebuilt {
    /// It was built.
    Built(Built),
    /// The command failed: how, in a sentence, and what it printed.
    Failed {
        /// How.
        how: String,
        /// What it printed.
        log: Log,
    },
    /// The run was cancelled.
    Cancelled,
    /// Something other than the command is broken.
    Broken(Diagnostic),
}

/// Outputs of a rebuild. Their contents are in the store; nothing keeps them from being collected once the invocation ends.
pub struct Built {
    /// By path relative to the package.
    pub listing: Listing,
    /// Tree digest.
    pub outputs: Digest,
    /// When it began, in milliseconds since 1970.
    pub started_ms: i64,
    /// Wall time.
    pub duration: Duration,
}

impl Arrangement {
    /// Changes what a command was to find.
    fn arrange(&self, spec: &mut SandboxSpec) {
        self.arrange_env(&mut spec.env);
        let Some(surroundings) = &self.surroundings else { return };
        let moved = |text: &String| moved(text, &surroundings.workspace_dir);
        spec.argv = spec.argv.iter().map(moved).collect();
        spec.env = spec.env.iter().map(|(name, value)| (name.clone(), moved(value))).collect();
        spec.surroundings = Some(Box::new(surroundings.clone()));
    }

    /// Changes an environment.
    pub fn arrange_env(&self, env: &mut BTreeMap<String, String>) {
        env.extend(self.env.clone());
        if let Some(suffix) = &self.path_suffix {
            let path = env.entry("PATH".into()).or_default();
            *path = if path.is_empty() { suffix.clone() } else { format!("{path}:{suffix}") };
        }
    }
}

/// A text in which the workspace lies elsewhere.
fn moved(text: &str, to: &str) -> String {
    if to == WORKSPACE_DIR || !text.contains(WORKSPACE_DIR) {
        return text.to_owned();
    }
    let mut all = String::with_capacity(text.len() + to.len());
    let mut rest = text;
    while let Some(at) = rest.find(WORKSPACE_DIR) {
        let (before, after) = (&rest[..at], &rest[at + WORKSPACE_DIR.len()..]);
        let is_part = |one: char| one.is_ascii_alphanumeric() || matches!(one, '_' | '-' | '.' | '/');
        let word = before.rsplit(|one| !is_part(one)).next().unwrap_or(before);
        // Neither the end of another path nor the beginning of another name; what is before it may be an option, as in `-I/workspace`.
        let begins = word.is_empty() || (word.starts_with('-') && !word.contains('/'));
        let is_whole = begins && !after.starts_with(|one: char| one != '/' && is_part(one));
        all.push_str(before);
        all.push_str(if is_whole { to } else { WORKSPACE_DIR });
        rest = after;
    }
    all.push_str(rest);
    all
}

/// What can break besides the command.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Collect(#[from] CollectError),
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// Builds a task once more, as prepared, with empty caches.
pub fn rebuild(
    session: &Session<'_>,
    task: TaskId,
    (prepared, dependencies): (&Prepared, &[Dependency]),
    services: &Held,
    arrangement: &Arrangement,
) -> Rebuilt {
    let TaskKind::Run(run) = &session.workspace.tasks[task].kind else {
        return Rebuilt::Broken(Diagnostic::error(format!("`{}` runs no command", session.label(task))));
    };
    let started_ms = now_ms();
    if let Some(recipe) = run.command.image() {
        let occasion = Occasion::Rebuild(arrangement);
        return of_image(image_task::execute(session, task, recipe, prepared, dependencies, occasion), started_ms);
    }
    let mut attempts = 0;
    loop {
        attempts += 1;
        match attempt(session, task, run, (prepared, dependencies), services, arrangement) {
            Ok(Rebuilt::Failed { .. }) if attempts <= run.retries && !session.cancel.is_cancelled() => {}
            Ok(rebuilt) => return rebuilt,
            Err(Broken::Sandbox(SandboxError::CannotStart { program, cause })) => {
                return Rebuilt::Failed { how: format!("cannot start `{program}`: {cause}"), log: Log::new() };
            }
            Err(Broken::Collect(error)) if error.is_of_the_command() => {
                return Rebuilt::Failed { how: error.to_string(), log: Log::new() };
            }
            Err(broken) => {
                let told = format!("`{}` could not be rebuilt: {broken}", session.label(task));
                let problem = Diagnostic::error(told).at(&session.workspace.tasks[task].place, "declared here");
                return Rebuilt::Broken(problem.help("`drystone doctor` tells what this machine allows"));
            }
        }
    }
}

fn of_image(executed: Executed, started_ms: i64) -> Rebuilt {
    match executed {
        Executed::Passed(passed) => Rebuilt::Built(Built {
            listing: passed.listing,
            outputs: passed.outputs,
            started_ms,
            duration: passed.duration,
        }),
        Executed::Failed { log, failure, .. } => Rebuilt::Failed { how: failure.cause, log },
        Executed::Cancelled { .. } => Rebuilt::Cancelled,
        Executed::Broken { problem, .. } => Rebuilt::Broken(problem),
    }
}

/// A sandbox laid out as for the task, and what it stands on.
struct Laid {
    shown: view::Shown,
    _place: Place,
    _caches: Vec<Stage>,
}

fn lay_out(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    (prepared, dependencies): (&Prepared, &[Dependency]),
    arrangement: &Arrangement,
) -> Result<Laid, Broken> {
    let mut shown = view::show(session, task, run, prepared, dependencies, Purpose::Rebuild)?;
    let mut caches = Vec::new();
    for cache in &run.caches {
        let stage = session.store.stage()?;
        let inside = std::path::Path::new(WORKSPACE_DIR).join(session.package(task).join(cache).as_str());
        shown.spec.mounts.push(Mount { host: stage.path().to_owned(), inside, access: Access::ReadWrite });
        caches.push(stage);
    }
    shown.spec.mounts.sort();
    arrangement.arrange(&mut shown.spec);
    // What is laid on the disk needs a place of its own there.
    let place = match &arrangement.surroundings {
        Some(_) => Place::on_disk(session)?,
        None => Place::of(session, prepared.action.isolation, &shown.spec)?,
    };
    shown.spec.stage = place.path().to_owned();
    Ok(Laid { shown, _place: place, _caches: caches })
}

fn attempt(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: (&Prepared, &[Dependency]),
    services: &Held,
    arrangement: &Arrangement,
) -> Result<Rebuilt, Broken> {
    let sandbox = session.sandbox(prepared.0.action.isolation)?;
    let mut laid = lay_out(session, task, run, prepared, arrangement)?;
    let company = services.join(&mut laid.shown.spec);
    let spec = &laid.shown.spec;
    let secrets = session.secrets_reaching(task);
    let mut capture = LogCapture::new(secrets.clone());
    let (started, started_ms) = (Instant::now(), now_ms());
    let finished = sandbox.run_in(spec, company, &session.cancel, &mut |stream, bytes| capture.take(stream, bytes))?;
    let duration = started.elapsed();
    if finished.exit == Exit::Cancelled {
        return Ok(Rebuilt::Cancelled);
    }
    let log = capture.finish();
    if finished.exit != Exit::Code(0) {
        return Ok(Rebuilt::Failed { how: exit_sentence(finished.exit, run), log });
    }
    let outputs: Vec<&Pattern> = run.outputs.iter().map(|output| &output.value).collect();
    let scratch = with_always_scratch(session, task, &run.scratch);
    let declared = Declared {
        package: session.package(task),
        outputs: &outputs,
        reports: &run.reports,
        ground: Ground::of(session, task),
        scratch: &scratch,
        caches: &run.caches,
        view: &spec.view,
        secrets: &secrets,
    };
    let collected = collect::collect(finished.workspace.path(), &declared, &session.store)?;
    session.discard_later(&collected);
    if let Some(failure) = execute::missing_outputs(session, task, run, &collected) {
        return Ok(Rebuilt::Failed { how: failure.cause, log });
    }
    let trees = fold(&collected.listing);
    session.store.put_trees(&trees)?;
    Ok(Rebuilt::Built(Built { outputs: trees.root, listing: collected.listing, started_ms, duration }))
}

/// What a canary finds in the sandbox of a task; or why it cannot look.
///
/// Where the loader of this program is not in there, it looks in one with the machine's system instead: what is varied is around
/// both in the same way. Cost: that of a sandbox.
pub fn sight(
    session: &Session<'_>,
    task: TaskId,
    prepared: (&Prepared, &[Dependency]),
    arrangement: &Arrangement,
) -> Result<Sight, String> {
    let TaskKind::Run(run) = &session.workspace.tasks[task].kind else { return Err("it runs no command".into()) };
    let mut arrangement = arrangement.clone();
    arrangement.surroundings.get_or_insert_default().occupant = Occupant::Canary;
    if let Some(recipe) = run.command.image() {
        return sight_of_step(session, task, recipe, prepared, &arrangement);
    }
    let mut laid = lay_out(session, task, run, prepared, &arrangement).map_err(|broken| broken.to_string())?;
    let sandbox = session.sandbox(prepared.0.action.isolation).map_err(|error| error.to_string())?;
    loop {
        let mut printed = Vec::new();
        match sandbox.run(&laid.shown.spec, &session.cancel, &mut |_, bytes| printed.extend_from_slice(bytes)) {
            Ok(finished) if finished.exit == Exit::Code(0) => return Ok(Sight::read(&printed)),
            Ok(finished) => return Err(format!("the canary did not come back: {}", exit_sentence(finished.exit, run))),
            Err(SandboxError::CannotStart { .. }) if laid.shown.spec.system != System::Host => {
                laid.shown.spec.system = System::Host;
                laid.shown.spec.mounts.retain(|mount| mount.inside.starts_with(WORKSPACE_DIR));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// What a canary finds where the first step of an image runs.
fn sight_of_step(
    session: &Session<'_>,
    task: TaskId,
    recipe: &ImageRecipe,
    (prepared, dependencies): (&Prepared, &[Dependency]),
    arrangement: &Arrangement,
) -> Result<Sight, String> {
    if !recipe.has_steps() {
        return Err("no command runs: Drystone assembles it".into());
    }
    let seen = OnceLock::new();
    let occasion = Occasion::Look(arrangement, &seen);
    let executed = image_task::execute(session, task, recipe, prepared, dependencies, occasion);
    match (seen.into_inner(), executed) {
        (Some(seen), _) => seen,
        (None, Executed::Failed { failure, .. }) => Err(format!("its first step is not reached: {}", failure.cause)),
        (None, Executed::Broken { problem, .. }) => Err(format!("its first step is not reached: {}", problem.message)),
        (None, Executed::Passed(_) | Executed::Cancelled { .. }) => Err("its first step is not reached".into()),
    }
}

/// Bytes of a file of a listing that the store has.
pub fn contents(session: &Session<'_>, digest: &Digest) -> Result<Vec<u8>, String> {
    match session.store.read(digest) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(format!("content {digest} is not in the store")),
        Err(error) => Err(error.to_string()),
    }
}

/// Lays a listing out at a path where nothing is, for a person to look at. Links are written down as files.
pub fn keep(session: &Session<'_>, listing: &Listing, dir: &std::path::Path) -> Result<(), String> {
    use crate::base::tree::Entry;
    ops::create_dir_all(dir).map_err(|error| error.to_string())?;
    for (path, entry) in listing {
        let place = dir.join(path.as_str());
        if let Some(parent) = place.parent() {
            ops::create_dir_all(parent).map_err(|error| error.to_string())?;
        }
        match entry {
            Entry::File { digest, .. } => {
                ops::write(&place, &contents(session, digest)?).map_err(|error| error.to_string())?;
            }
            // A link could lead anywhere: it is told, not made.
            Entry::Link { target } => {
                ops::write(&place, target.as_bytes()).map_err(|error| error.to_string())?;
            }
            Entry::Dir => ops::create_dir_all(&place).map_err(|error| error.to_string())?,
        }
    }
    Ok(())
}

/// Where a path of the outputs lies in the workspace.
pub fn placed(session: &Session<'_>, task: TaskId, path: &RelPath) -> RelPath {
    session.package(task).join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_moved_where_it_is_meant() {
        let check = |text: &str, expect: &str| assert_eq!(moved(text, "/b/x"), expect, "{text}");
        check("/workspace", "/b/x");
        check("-I/workspace/include", "-I/b/x/include");
        check("--prefix=/workspace/out", "--prefix=/b/x/out");
        check("/usr/bin:/workspace/bin:/workspace", "/usr/bin:/b/x/bin:/b/x");
        check("/workspaces /my/workspace /workspace-2", "/workspaces /my/workspace /workspace-2");
    }
}
