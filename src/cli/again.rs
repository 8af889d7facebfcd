//! A run that asks what the last one did: answered from what is kept of that, as far as it still holds, and only the rest is looked at.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::span::Sources;
use crate::cli::context::Context;
use crate::cli::early::Early;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening::{self, LAUNCHER, Located, Opened};
use crate::cli::reports::Reports;
use crate::cli::run::{OutputOf, RunArgs, exit_of, jobs, options};
use crate::engine::again::{Compared, Kept, Question};
use crate::engine::drive::{self, run_id};
use crate::engine::groups::Sizes;
use crate::engine::plan::Plan;
use crate::engine::pod::Registry;
use crate::engine::rest::Rest;
use crate::engine::service::AfterUse;
use crate::engine::settled::Request;
use crate::engine::{limits, mending, putback};
use crate::manifest::model::IsolationRequest;
use crate::process::cancel::Cancel;
use crate::store::Store;

/// What was asked for, with the workspace it is asked of.
pub struct Asked {
    /// The words.
    pub request: Request,
    located: Located,
    started: Instant,
}

/// What a run asks for, if it is of the kind that is kept: nothing but tasks, as the tree is, without what they printed.
pub fn request_of(args: &RunArgs, context: &Context) -> Option<Asked> {
    let started = Instant::now();
    let is_plain = args.affected.is_none()
        && args.shard.is_none()
        && args.output != Some(OutputOf::All)
        && !(args.force || args.dry_run || args.fix || args.watch || args.observe)
        && args.verify_hits.is_none()
        && !context.environment.loads_anew();
    // What is wrong is told by who loads the workspace.
    let located = opening::locate(context).ok().filter(|_| is_plain)?;
    let request = Request {
        words: args.targets.clone(),
        here: located.here.clone(),
        isolation: args.isolation.map(IsolationRequest::from),
    };
    Some(Asked { request, located, started })
}

/// The exit of a run that was answered; `None` if it is to be loaded and planned.
pub fn answer(asked: &Asked, args: &RunArgs, context: &Context, cancel: &Cancel) -> Result<Option<ExitKind>, CliError> {
    let store_dir = context.environment.store_dir()?;
    let origin = context.environment.origin()?;
    let early = Early::new(Path::new(LAUNCHER), &store_dir, origin, jobs(args) as usize);
    let kept = Kept::of(&question(asked, &store_dir, context));
    let Some(compared) = kept.and_then(|kept| kept.compare(&|expected| early.begin(expected))) else { return Ok(None) };
    if compared.is_all_standing() {
        return all_stands(asked, &compared, args, context);
    }
    if !compared.is_same_structure {
        return Ok(None);
    }
    let loaded = early.take().or_else(|| compared.model().map(|(workspace, graph)| (workspace, graph, None)));
    let Some((workspace, graph, store)) = loaded else { return Ok(None) };
    let Some(rest) = Rest::of(compared) else { return Ok(None) };
    let opened = Opened { workspace, graph, here: asked.located.here.clone(), sizes: Sizes::default() };
    do_rest(asked, opened, (rest, &early, store), args, context, cancel).map(Some)
}

fn question<'a>(asked: &'a Asked, store_dir: &'a Path, context: &'a Context) -> Question<'a> {
    let variables = context.environment.variables();
    Question { store_dir, root: &asked.located.root, request: Some(&asked.request), variables }
}

fn compared(asked: &Asked, context: &Context) -> Result<Option<Compared>, CliError> {
    let store_dir = context.environment.store_dir()?;
    Ok(Compared::of(&question(asked, &store_dir, context)))
}

/// What a plan asks for, if it is of the kind that is kept.
pub fn plan_of(targets: &[String], isolation: Option<IsolationRequest>, context: &Context) -> Option<Asked> {
    let started = Instant::now();
    let located = opening::locate(context).ok().filter(|_| !context.environment.loads_anew())?;
    let request = Request { words: targets.to_vec(), here: located.here.clone(), isolation };
    Some(Asked { request, located, started })
}

/// What is kept of the last run with these words, and the workspace as it was loaded then; `None` if that does not hold.
pub fn rest_of(asked: &Asked, context: &Context) -> Result<Option<(Opened, Rest)>, CliError> {
    let Some(compared) = compared(asked, context)? else { return Ok(None) };
    let Some((workspace, graph)) = compared.model() else { return Ok(None) };
    let opened = Opened { workspace, graph, here: asked.located.here.clone(), sizes: Sizes::default() };
    Ok(Rest::of(compared).map(|rest| (opened, rest)))
}

/// The workspace around the current directory as the last run loaded it, where nothing of it has changed; loaded otherwise.
pub fn open(context: &Context) -> Result<Opened, CliError> {
    open_with_kept(context).map(|(opened, _)| opened)
}

/// The same, with what is kept of that run.
pub fn open_with_kept(context: &Context) -> Result<(Opened, Option<Kept>), CliError> {
    let Some((kept, here)) = kept(context)? else { return Ok((opening::open(context)?, None)) };
    let opened = match kept.model() {
        Some((workspace, graph)) => Opened { workspace, graph, here, sizes: Sizes::default() },
        None => opening::open(context)?,
    };
    Ok((opened, Some(kept)))
}

/// What is kept of the last run, where nothing of what it loaded has changed; and where the person stands.
pub fn kept(context: &Context) -> Result<Option<(Kept, RelPath)>, CliError> {
    let last = last(context)?.filter(|(kept, _)| kept.is_same_structure());
    Ok(last.map(|(kept, located)| (kept, located.here)))
}

/// What is kept of the last run, whatever that was asked for, and where the workspace is. Of what is kept nothing was compared yet.
fn last(context: &Context) -> Result<Option<(Kept, Located)>, CliError> {
    let Some(asked) = plan_of(&[], None, context) else { return Ok(None) };
    let store_dir = context.environment.store_dir()?;
    let (root, variables) = (&asked.located.root, context.environment.variables());
    let kept = Kept::of(&Question { store_dir: &store_dir, root, request: None, variables });
    Ok(kept.map(|kept| (kept, asked.located)))
}

/// A task that stands with all it needs, by what is kept of the last run, whatever that was asked for.
pub struct Standing {
    /// The workspace.
    pub opened: Opened,
    /// The task.
    pub task: TaskId,
    /// Its key.
    pub key: Digest,
    /// Nothing is left to do.
    pub rest: Rest,
}

/// The task that a word names, if it stands.
pub fn standing(word: &str, context: &Context) -> Result<Option<Standing>, CliError> {
    let Some((kept, located)) = last(context)? else { return Ok(None) };
    let Some((workspace, graph)) = kept.model() else { return Ok(None) };
    let opened = Opened { workspace, graph, here: located.here, sizes: Sizes::default() };
    // What is wrong with the word is told by who loads the workspace.
    let Ok(task) = opened.select_one(word) else { return Ok(None) };
    let Some((compared, key)) = kept.stands(task) else { return Ok(None) };
    Ok(Rest::of(compared).map(|rest| Standing { opened, task, key, rest }))
}

/// Tells a run in which all is a hit, and marks the results as used where it is time to.
fn all_stands(
    asked: &Asked,
    compared: &Compared,
    args: &RunArgs,
    context: &Context,
) -> Result<Option<ExitKind>, CliError> {
    if let Some(keys) = compared.due() {
        let store = opening::open_store_lazily(context, None)?;
        store.touch_results(keys)?;
        store.flush()?;
        compared.note_use(&asked.request)?;
    }
    mending::renew(compared, &asked.request);
    let mut reports = Reports::new(&args.reports(), context, Arc::new(Sources::default()));
    let told = compared.tell(asked.started, jobs(args) as usize, run_id(), &mut reports.fan());
    if told.is_none() {
        return Ok(None);
    }
    reports.write_files()?;
    Ok(Some(ExitKind::of_run(true, false)))
}

/// Looks at what is left, runs what has to run, and keeps what came of it beside what was kept.
fn do_rest(
    asked: &Asked,
    opened: Opened,
    (rest, early, store): (Rest, &Early, Option<Arc<Store>>),
    args: &RunArgs,
    context: &Context,
    cancel: &Cancel,
) -> Result<ExitKind, CliError> {
    let store = match store {
        Some(store) => store,
        None => {
            let store = opening::open_store_lazily(context, opened.workspace.config.store_bytes_max)?;
            store.expect_use();
            store
        }
    };
    let mut session = opened.session_for(context, Arc::clone(&store), options(args), cancel.clone(), Some(&rest))?;
    let begun = early.hand_over(&session);
    rest.expect_commands(&session, &begun);
    session.opened = asked.started;
    let due = rest.compared().due();
    let is_due = due.is_some();
    due.into_iter().try_for_each(|keys| store.touch_results(keys))?;
    let rest = putback::put_back(&session, rest);
    let limited = rest.limited();
    let plan = Plan::of_rest(rest);
    let told = opening::tell_store(context, &store, 0);
    opening::tell(context, &opened.workspace.sources, &limits::unheld(&session, &limited));
    let mut reports = Reports::new(&args.reports(), context, Arc::new(opened.workspace.sources.clone()));
    let summary = drive::drive(&session, &plan, &Registry::default(), AfterUse::End, &mut reports.fan());
    // Launchers take their time to end, while what they ran is written.
    let sandboxes = session.take_sandboxes();
    let ending = std::thread::spawn(move || drop(sandboxes));
    reports.write_files()?;
    let is_whole = !(summary.interrupted || summary.infrastructure || summary.refused);
    let (flushed, changes) = std::thread::scope(|scope| {
        let flushed = std::thread::Builder::new().name("flush".into()).spawn_scoped(scope, || store.flush());
        let changes = is_whole.then(|| mending::look(&session, &plan, &summary.keys));
        (flushed.map(|flushed| flushed.join().expect("a panic ends the program")), changes)
    });
    // Without a thread, what was found waits.
    flushed.unwrap_or_else(|_| store.flush())?;
    match changes {
        Some(changes) => mending::keep_rest(&session, &plan, changes, &asked.request),
        None => mending::forget(&plan, &asked.request),
    }
    if let Some(rest) = plan.rest.as_ref().filter(|_| is_due)
        && let Err(error) = rest.compared().note_use(&asked.request)
    {
        // It was forgotten, most likely.
        tracing::debug!(%error, "that results were used was not noted");
    }
    let told = opening::tell_store(context, &store, told);
    if let Err(error) = store.maybe_gc() {
        tracing::debug!(%error, "the store was not collected");
    }
    opening::tell_store(context, &store, told);
    session.leave();
    std::mem::forget((plan, opened));
    if ending.join().is_err() {
        tracing::debug!("launchers were left to end by themselves");
    }
    Ok(exit_of(&summary))
}
