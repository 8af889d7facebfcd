//! `drystone run`: what its options mean to the engine and the reports.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::audit::hits::{HitChecker, Share};
use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening::Opened;
use crate::cli::reach;
use crate::cli::reports::{ReportRequest, Reports};
use crate::cli::shard::{self, Shard};
use crate::cli::{again, opening, plan, watch};
use crate::engine::event::{Event, EventSink};
use crate::engine::inspect::{Inspecting, Inspector};
use crate::engine::limits;
use crate::engine::plan::Plan;
use crate::engine::pod::Registry;
use crate::engine::scheduler::OnFailure;
use crate::engine::service::AfterUse;
use crate::engine::session::{Committed, Observe, Options, Reach, Reuse, Session};
use crate::engine::settling::{self, Heard};
use crate::engine::{drive, fix, groups, plan as engine_plan};
use crate::fs::witness::{self, now_ns};
use crate::manifest::glob::Pattern;
use crate::manifest::model::IsolationRequest;
use crate::process::cancel::Cancel;
use crate::process::signals;
use crate::report::lines::WhyShown;
use crate::report::story::{OutputShown, Verbosity};
use crate::workspace::outputs::{self, all_claims};

/// Options of `run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// Which tasks: `//apps/web:build`, `//libs/...:test`, `build`, `//apps/web`, `tag:slow`, `kind:fetch`; `!` before any
    /// of them takes away. With none, every task here. Services run where tasks need them; if nothing but services is named,
    /// they run until Ctrl-C.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Only tasks that the changes since REV can reach; without REV, since the branch left the default branch.
    #[arg(long, value_name = "REV", num_args = 0..=1, require_equals = true)]
    pub affected: Option<Option<String>>,
    /// Only the I-th of N shares of the selected tasks, as `2/4`; what they need comes along. The same for all jobs that select the same
    /// and imported the same archive last.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// Job slots; without it, one per core.
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Goes on after a failure with all that does not need what failed.
    #[arg(short, long)]
    pub keep_going: bool,
    /// Runs the selected tasks even if their results are known.
    #[arg(long)]
    pub force: bool,
    /// Shows what would run and why, without running it.
    #[arg(long)]
    pub dry_run: bool,
    /// Runs the `fix` commands of the selected tasks, and brings committed outputs in the tree up to date instead of failing
    /// where they differ. Refused in CI.
    #[arg(long, conflicts_with = "dry_run")]
    pub fix: bool,
    /// Whether the fixes of this invocation are already in the tree.
    #[arg(skip)]
    pub fixed: bool,
    /// Runs again whenever an input changes.
    #[arg(long, conflicts_with = "dry_run")]
    pub watch: bool,
    /// How tasks are kept from what they did not declare, where they do not say themselves.
    #[arg(long, value_name = "LEVEL")]
    pub isolation: Option<IsolationLevel>,
    /// Uses no network: fetches that are not in the store fail at once, and so do tasks with `network = true` that would run.
    /// Addresses with `file://` are no network.
    #[arg(long)]
    pub offline: bool,
    /// Observes every command that runs, and tells which files of the workspace it looked for and does not see.
    #[arg(long)]
    pub observe: bool,
    /// Builds this share of the hits once more, as `1%`, and compares: a hit that its sources do not make fails.
    #[arg(long, value_name = "PERCENT", value_parser = parse_share, conflicts_with = "dry_run")]
    pub verify_hits: Option<Share>,
    /// Tells every reason why a task runs, not only the first.
    #[arg(long)]
    pub explain: bool,
    /// `json`: one event a line on the standard output, as `drystone schema events` describes them; only what went wrong is
    /// told on the standard error stream.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
    /// Writes a trace for Perfetto or `chrome://tracing`.
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Writes the tasks as a JUnit XML file.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Whose printed output is shown; `failed` without it, `ran` with `--verbose`.
    #[arg(long, value_name = "WHOSE")]
    pub output: Option<OutputOf>,
}

/// Values of `--isolation`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum IsolationLevel {
    /// The best this machine allows, but never none.
    Auto,
    /// Own namespaces and a fresh root: what is not declared does not exist.
    Namespaces,
    /// What is not declared cannot be read, though it can be seen to exist.
    Landlock,
    /// A private copy of the inputs, nothing enforced.
    None,
}

impl From<IsolationLevel> for IsolationRequest {
    fn from(level: IsolationLevel) -> Self {
        match level {
            IsolationLevel::Auto => IsolationRequest::Auto,
            IsolationLevel::Namespaces => IsolationRequest::Namespaces,
            IsolationLevel::Landlock => IsolationRequest::Landlock,
            IsolationLevel::None => IsolationRequest::None,
        }
    }
}

/// Values of `--output`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutputOf {
    /// Of all tasks; that of hits is replayed.
    All,
    /// Of tasks that ran, failed ones at the end.
    Ran,
    /// Of tasks that failed.
    Failed,
    /// Of none.
    None,
}

impl From<OutputOf> for OutputShown {
    fn from(whose: OutputOf) -> Self {
        match whose {
            OutputOf::All => OutputShown::All,
            OutputOf::Ran => OutputShown::Ran,
            OutputOf::Failed => OutputShown::Failed,
            OutputOf::None => OutputShown::None,
        }
    }
}

impl RunArgs {
    /// What of the selection is to be done.
    fn share(&self) -> reach::Share<'_> {
        reach::Share { affected: self.affected.as_ref(), shard: self.shard }
    }

    /// What the reports are to do.
    pub fn reports(&self) -> ReportRequest {
        ReportRequest {
            format: self.format,
            why: if self.explain { WhyShown::All } else { WhyShown::First },
            output: self.output.map(OutputShown::from),
            profile: self.profile.clone(),
            junit: self.junit.clone(),
        }
    }
}

/// Runs tasks.
pub fn run(args: RunArgs, context: &Context) -> Result<ExitKind, CliError> {
    if args.fix && context.environment.is_ci() {
        return Err(CliError::usage("`--fix` changes the tree and is refused in CI").help("run it on your machine"));
    }
    if args.dry_run {
        let why = if args.explain { WhyShown::All } else { WhyShown::First };
        let wanted = plan::Wanted { targets: &args.targets, share: args.share(), why, format: args.format };
        return plan::show(&wanted, options(&args), context);
    }
    let cancel = opening::never_cancelled()?;
    let for_signals = cancel.clone();
    let _watch = signals::watch(move |_| for_signals.cancel())
        .map_err(|error| CliError::infrastructure(format!("cannot watch for signals: {error}")))?;
    if args.watch {
        watch::run(&args, context, &cancel)
    } else {
        once(&args, context, &cancel, &Registry::default()).map(|finished| finished.exit)
    }
}

/// How one round of a run ended.
pub(super) struct Finished {
    /// The exit.
    pub exit: ExitKind,
    /// Patterns of what tasks write and git does not have, relative to the workspace.
    pub outputs: Vec<Pattern>,
}

/// Runs the selected tasks once. With `--watch`, their services stay up in the registry.
pub(super) fn once(
    args: &RunArgs,
    context: &Context,
    cancel: &Cancel,
    services: &Registry,
) -> Result<Finished, CliError> {
    let asked = again::request_of(args, context);
    if let Some(asked) = &asked
        && let Some(exit) = again::answer(asked, args, context, cancel)?
    {
        return Ok(Finished { exit, outputs: Vec::new() });
    }
    let since_ns = now_ns();
    if asked.is_some() {
        witness::listen();
    }
    let opened = opening::open_with(context, shard::choices(args.shard))?;
    let loading = witness::take();
    if asked.is_some() {
        witness::listen();
    }
    let store = opening::open_store_lazily(context, opened.workspace.config.store_bytes_max)?;
    let checker = args.verify_hits.map(|share| Arc::new(HitChecker::new(share, lot_salt())));
    let inspecting = Inspecting(checker.clone().map(|checker| checker as Arc<dyn Inspector>));
    let options = Options { inspecting, ..options(args) };
    let session = opened.session(context, Arc::clone(&store), options, cancel.clone())?;
    let mut selected = selected(args, &opened)?;
    let share = args.share().keep(&mut selected, &opened, &session, context)?;
    let plan = engine_plan::plan(&session, &selected);
    let heard = Heard { loading, planning: witness::take(), since_ns };
    // By now it was opened, most often, if it has to be at all.
    let told = opening::tell_store(context, &store, 0);
    let plan = plan.map_err(|error| opened.plan_error(error))?;
    opening::tell(context, &opened.workspace.sources, session.levels.lowered().as_slice());
    opening::tell(context, &opened.workspace.sources, &limits::unheld(&session, &plan.tasks));
    if args.fix
        && !args.fixed
        && apply_fixes(&session, &plan, &selected, context).map_err(|problem| opened.wrong(vec![problem]))?
    {
        // The tree changed: everything is read again, and the checks run on what is there now.
        session.save_indexes();
        drop((plan, session, store));
        return once(&RunArgs { fixed: true, ..args.clone() }, context, cancel, services);
    }
    let sources = Arc::new(opened.workspace.sources.clone());
    let mut reports = Reports::new(&args.reports(), context, sources);
    let after = if args.watch { AfterUse::Stay } else { AfterUse::End };
    let summary = {
        let mut fan = reports.fan();
        share.into_iter().for_each(|share| fan.event(&Event::Notice(share)));
        drive::drive(&session, &plan, services, after, &mut fan)
    };
    reports.write_files()?;
    if let Some(checker) = &checker {
        context.say(&format!("{} hits were built once more", checker.checked()));
    }
    if args.shard.is_none() {
        let notes = groups::learn(&session, &plan, &opened.sizes)?;
        if context.verbosity > Verbosity::Quiet && args.format == Format::Human {
            opening::tell(context, &opened.workspace.sources, &notes);
        }
    }
    store.flush()?;
    session.save_standing();
    if let Some(asked) = asked.filter(|_| !summary.interrupted && !summary.infrastructure && !summary.refused) {
        settling::keep(&session, &plan, &summary.keys, &asked.request, heard);
    }
    let told = opening::tell_store(context, &store, told);
    if let Err(error) = store.maybe_gc() {
        tracing::debug!(%error, "the store was not collected");
    }
    opening::tell_store(context, &store, told);
    let exit = exit_of(&summary);
    let claims = all_claims(&opened.workspace).into_iter();
    let outputs = claims.filter(|claim| claim.committed == outputs::Committed::No).map(|claim| claim.pattern).collect();
    if !args.watch {
        // The program ends here: to take apart what names every file of the workspace would only delay it.
        session.leave();
        std::mem::forget((plan, opened));
    }
    Ok(Finished { exit, outputs })
}

/// The tasks that are named: services by themselves only where nothing else is.
fn selected(args: &RunArgs, opened: &Opened) -> Result<Vec<TaskId>, CliError> {
    let (services, tasks): (Vec<TaskId>, Vec<TaskId>) =
        opened.select(&args.targets)?.into_iter().partition(|task| opened.workspace.tasks[*task].kind.is_service());
    if !tasks.is_empty() || args.targets.is_empty() || args.affected.is_some() {
        return Ok(tasks);
    }
    if args.watch && !services.is_empty() {
        return Err(CliError::usage("`--watch` runs tasks again, and only services are named")
            .help("without `--watch` they run until Ctrl-C; or name the tasks that use them"));
    }
    Ok(services)
}

/// Applies the `fix` commands and tells what they changed; whether they changed anything.
fn apply_fixes(session: &Session<'_>, plan: &Plan, selected: &[TaskId], context: &Context) -> Result<bool, Diagnostic> {
    let mut changed = false;
    for fixed in fix::fix(session, plan, selected)? {
        for path in &fixed.written {
            changed = true;
            context.say(&format!("fixed {path} ({})\n", fixed.label));
        }
    }
    Ok(changed)
}

/// Job slots.
pub(super) fn jobs(args: &RunArgs) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let jobs = args.jobs.map_or(cores, NonZeroUsize::get);
    u32::try_from(jobs).unwrap_or(u32::MAX).min(JOBS_MAX)
}

/// The exit that a run comes to.
pub(super) fn exit_of(summary: &drive::Summary) -> ExitKind {
    if summary.interrupted {
        ExitKind::Interrupted
    } else if summary.infrastructure {
        ExitKind::Infrastructure
    } else if summary.refused {
        ExitKind::Usage
    } else {
        ExitKind::of_run(summary.ok, summary.interrupted)
    }
}

/// What the options mean to the engine.
pub(super) fn options(args: &RunArgs) -> Options {
    Options {
        jobs: jobs(args),
        on_failure: if args.keep_going { OnFailure::KeepGoing } else { OnFailure::Stop },
        reuse: if args.force { Reuse::Nothing } else { Reuse::Results },
        isolation: args.isolation.map(IsolationRequest::from),
        committed: if args.fix { Committed::Fix } else { Committed::Check },
        observe: if args.observe { Observe::Always } else { Observe::AfterFailure },
        reach: if args.offline { Reach::Offline } else { Reach::Declared },
        inspecting: Inspecting::default(),
    }
}

/// Another one each time.
fn lot_salt() -> Digest {
    Digest::of(drive::run_id().as_bytes())
}

fn parse_share(text: &str) -> Result<Share, String> {
    Share::parse(text).ok_or_else(|| format!("`{text}` is no share; write `1%` or `100%`"))
}

/// Most job slots: each is a thread.
const JOBS_MAX: u32 = 1024;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parsed(line: &[&str]) -> RunArgs {
        match Cli::try_parse_from([&["drystone", "run"], line].concat()) {
            Ok(Cli { command: Some(Command::Run(args)), .. }) => args,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn affected_takes_its_revision_only_with_an_equals_sign() {
        assert_eq!(parsed(&["test"]).affected, None);
        let args = parsed(&["--affected", "test"]);
        assert_eq!((args.affected, args.targets), (Some(None), vec!["test".to_owned()]));
        assert_eq!(parsed(&["--affected=origin/main"]).affected, Some(Some("origin/main".into())));
    }

    #[test]
    fn options_mean_what_the_reference_says() {
        let args = parsed(&["-j", "4", "-k", "--force", "--isolation", "none", "--output=all", "!//a:b", "//c:d"]);
        assert_eq!(args.jobs, NonZeroUsize::new(4));
        assert!(args.keep_going && args.force && !args.dry_run && !args.watch);
        assert_eq!(options(&args).reach, Reach::Declared);
        assert_eq!(options(&parsed(&["--offline", "build"])).reach, Reach::Offline);
        assert_eq!(args.isolation.map(IsolationRequest::from), Some(IsolationRequest::None));
        assert_eq!(args.reports().output, Some(OutputShown::All));
        assert_eq!(args.targets, ["!//a:b", "//c:d"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for line in [&["-j", "0"][..], &["--watch", "--dry-run"], &["--isolation", "chroot"], &["--shard", "3/2"]] {
            assert!(Cli::try_parse_from([&["drystone", "run"], line].concat()).is_err(), "{line:?}");
        }
    }
}
