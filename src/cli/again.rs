//! A run that asks what the last one did: answered from what is kept of that, where all of it still holds. Loads no workspace.

use std::sync::Arc;
use std::time::Instant;

use crate::base::span::Sources;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening::{self, Located};
use crate::cli::reports::Reports;
use crate::cli::run::{RunArgs, jobs};
use crate::engine::again::{Compared, Question};
use crate::engine::drive::run_id;
use crate::engine::settled::Request;
use crate::manifest::model::IsolationRequest;

/// What was asked for, with the workspace it is asked of.
pub struct Asked {
    /// The words.
    pub request: Request,
    located: Located,
    started: Instant,
}

/// What a run asks for, if it is of the kind that is kept: nothing but tasks, as the tree is.
pub fn request_of(args: &RunArgs, context: &Context) -> Option<Asked> {
    let started = Instant::now();
    let is_plain = args.affected.is_none()
        && args.shard.is_none()
        && !(args.force || args.dry_run || args.fix || args.watch || args.observe);
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
pub fn answer(asked: &Asked, args: &RunArgs, context: &Context) -> Result<Option<ExitKind>, CliError> {
    let store_dir = context.environment.store_dir()?;
    let question = Question {
        store_dir: &store_dir,
        root: &asked.located.root,
        request: &asked.request,
        variables: context.environment.variables(),
    };
    let Some(compared) = Compared::of(&question).filter(Compared::is_all_standing) else { return Ok(None) };
    if let Some(keys) = compared.due() {
        let store = opening::open_store_lazily(context, None)?;
        store.touch_results(keys)?;
        store.flush()?;
        compared.note_use(&asked.request)?;
    }
    let mut reports = Reports::new(&args.reports(), context, Arc::new(Sources::default()));
    let told = compared.tell(asked.started, jobs(args) as usize, run_id(), &mut reports.fan());
    if told.is_none() {
        return Ok(None);
    }
    reports.write_files()?;
    Ok(Some(ExitKind::of_run(true, false)))
}
