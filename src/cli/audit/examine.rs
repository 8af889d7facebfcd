//! `drystone audit [TARGET…]`: rebuilds tasks under variation. What its options mean, and where its reports go.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use ring::rand::{SecureRandom, SystemRandom};

use crate::attest::keys::SigningKey;
use crate::attest::statement::Subject;
use crate::audit::builds::Budget;
use crate::audit::examine::Question;
use crate::audit::inspector::{Auditor, Heard};
use crate::audit::model::{Audit, Certainty, TaskAudit, Verdict};
use crate::audit::variation::Dimensions;
use crate::audit::{machine, statement, wire};
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::time::parse_duration;
use crate::cli::args::Format;
use crate::cli::audit::results;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::image::attest::{signed, signing_key};
use crate::cli::opening::{self, Opened};
use crate::cli::reports::{ReportRequest, Reports};
use crate::cli::run::IsolationLevel;
use crate::engine::drive::{self, Summary};
use crate::engine::execute::now_ms;
use crate::engine::inspect::Inspecting;
use crate::engine::plan as engine_plan;
use crate::engine::pod::Registry;
use crate::engine::scheduler::OnFailure;
use crate::engine::service::AfterUse;
use crate::engine::session::{Committed, Observe, Options, Reach, Reuse};
use crate::fs::atomic::{self, Durability};
use crate::image::BlobDigest;
use crate::manifest::model::IsolationRequest;
use crate::process::signals;
use crate::report::audit::text::Detail;
use crate::report::audit::{html, junit, sarif, text};
use crate::report::lines::WhyShown;
use crate::report::story::Verbosity;
use crate::sandbox::surroundings::Dimension;
use crate::store::Store;

/// Rebuilds of one task, unless said otherwise.
const REBUILDS_DEFAULT: usize = 40;

/// Options of `audit` without a command of its own.
#[derive(Args, Clone, Debug)]
pub struct ExamineArgs {
    /// Which tasks, as for `run`; what they need is built once, if it has to be. With none, every task here.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// What is varied: dimensions with commas between them, each with `-` in front for all but it. Without it, all of them.
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, value_parser = parse_dimensions)]
    pub vary: Option<Varying>,
    /// No rebuild begins after this time, as `10m`; what is not known then is told as inconclusive.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub budget: Option<Duration>,
    /// Rebuilds of one task at most.
    #[arg(long, value_name = "N", default_value_t = REBUILDS_DEFAULT)]
    pub rebuilds: usize,
    /// What makes the exit 1, with commas between.
    #[arg(
        long,
        value_name = "WHAT",
        value_delimiter = ',',
        default_value = "different,equivalent,uncompressed,inconclusive"
    )]
    pub fail_on: Vec<FailOn>,
    /// Audits so many tasks at once; without it, one per core.
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// At which level tasks are built that do not say; variations take `namespaces`.
    #[arg(long, value_name = "LEVEL")]
    pub isolation: Option<IsolationLevel>,
    /// Uses no network.
    #[arg(long)]
    pub offline: bool,
    /// How the audit is written to the standard output.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
    /// Writes a report; what it is follows from its name: `.html`, `.json`, `.sarif`, `.xml` (JUnit), `.txt`. May be given more than once.
    #[arg(long, value_name = "FILE")]
    pub report: Vec<PathBuf>,
    /// Writes statements of what was reproduced into this directory, signed if there is a `--key`.
    #[arg(long, value_name = "DIR")]
    pub attest: Option<PathBuf>,
    /// A private key (PEM) that signs them.
    #[arg(long, value_name = "FILE", requires = "attest")]
    pub key: Option<PathBuf>,
    /// Who audits, in statements; without it, `DRYSTONE_BUILDER`, the CI job, or `local`.
    #[arg(long, value_name = "ID")]
    pub builder: Option<String>,
    /// Leaves the outputs of the builds of tasks that differ in this directory.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Values of `--fail-on`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailOn {
    /// Builds that differ.
    Different,
    /// Builds that are the same only once normalizers were applied.
    Equivalent,
    /// Builds that are the same only uncompressed.
    Uncompressed,
    /// Tasks of which it could not be found out.
    Inconclusive,
    /// A difference whose cause is proven.
    Proven,
    /// A difference whose cause is only suspected.
    Suspected,
    /// A dimension that was asked for and took no hold.
    Untested,
    /// Nothing.
    Never,
}

/// The dimensions of `--vary`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Varying(Dimensions);

fn parse_dimensions(text: &str) -> Result<Varying, String> {
    let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let takes_away = words.first().is_some_and(|word| word.starts_with('-'));
    let mut all: Dimensions = if takes_away { Dimension::ALL.into_iter().collect() } else { Dimensions::new() };
    for word in words {
        let (name, removes) = word.strip_prefix('-').map_or((word, false), |name| (name, true));
        let dimension = Dimension::parse(name).ok_or_else(|| {
            let known: Vec<&str> = Dimension::ALL.iter().map(|dimension| dimension.word()).collect();
            format!("no dimension is called `{name}`; there are {}", known.join(", "))
        })?;
        let _ = if removes { all.remove(&dimension) } else { all.insert(dimension) };
    }
    Ok(Varying(all))
}

fn parse_time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("`{text}` is no time; write `90s`, `10m` or `2h`"))
}

/// Audits tasks.
pub fn run(args: &ExamineArgs, context: &Context) -> Result<ExitKind, CliError> {
    let files = args.report.iter().map(|file| Ok((context.path(file), Kind::of(file)?)));
    let files: Vec<(PathBuf, Kind)> = files.collect::<Result<_, CliError>>()?;
    let key = args.key.as_ref().map(|key| signing_key(&context.path(key))).transpose()?;
    let cancel = opening::never_cancelled()?;
    let for_signals = cancel.clone();
    let _watch = signals::watch(move |_| for_signals.cancel())
        .map_err(|error| CliError::infrastructure(format!("cannot watch for signals: {error}")))?;
    let (started, started_ms) = (Instant::now(), now_ms());
    let opened = opening::open(context)?;
    let store = opening::open_store(context, opened.workspace.config.store_bytes_max)?;
    let id = audit_id(started_ms);
    let asked = args.vary.clone().map_or_else(|| Dimension::ALL.into_iter().collect(), |Varying(all)| all);
    let selected = selected(args, &opened)?;
    let labels = selected.iter().map(|task| opened.workspace.tasks[*task].label.to_string()).collect();
    let budget = Budget { until: args.budget.map(|time| started + time), rebuilds: args.rebuilds };
    let keep = args.keep.as_ref().map(|dir| empty_dir(&context.path(dir))).transpose()?;
    let question = Question { vary: asked.clone(), budget, keep };
    let auditor = Arc::new(Auditor::new(question, labels, id.clone(), heard(args, context)));
    let options = Options { inspecting: Inspecting(Some(auditor.clone())), ..options(args) };
    let session = opened.session(context, Arc::clone(&store), options, cancel.clone())?;
    let plan = engine_plan::plan(&session, &selected).map_err(|error| opened.plan_error(error))?;
    opening::tell(context, &opened.workspace.sources, session.levels.lowered().as_slice());
    let summary = drive_quietly(&session, &plan, &opened, context)?;
    store.flush()?;
    session.save_standing();
    let mut found = auditor.take();
    let audited: BTreeSet<&str> = found.tasks.iter().map(|task| task.label.as_str()).collect();
    let told: BTreeSet<&str> = found.left_out.iter().map(|(label, _)| label.as_str()).collect();
    let missing = selected.iter().map(|task| opened.workspace.tasks[*task].label.to_string());
    let missing: Vec<String> =
        missing.filter(|label| !audited.contains(label.as_str()) && !told.contains(label.as_str())).collect();
    found.left_out.extend(missing.into_iter().map(|label| (label, "it has no result to compare with".to_owned())));
    found.left_out.sort();
    let audit = Audit {
        id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms,
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        machine: machine::this(&store),
        asked: asked.into_iter().collect(),
        tasks: found.tasks,
        left_out: found.left_out,
    };
    if summary.interrupted {
        return Ok(ExitKind::Interrupted);
    }
    write(args, &audit, context);
    say_needs(&plan, &selected, &opened, args, context);
    for (file, kind) in &files {
        atomic::write(file, kind.bytes(&audit).as_bytes(), Durability::Relaxed)?;
    }
    if let Some(dir) = &args.attest {
        attest((&audit, &images(&audit, &store)?), &context.path(dir), key.as_ref(), args, context)?;
    }
    if summary.infrastructure {
        return Ok(ExitKind::Infrastructure);
    }
    if summary.refused {
        return Ok(ExitKind::Usage);
    }
    Ok(ExitKind::of_run(summary.ok && !fails(&args.fail_on, &audit), false))
}

/// Says that what the audited tasks need was taken as it is: a task can be the same each time, made of what is not.
fn say_needs(plan: &engine_plan::Plan, selected: &[TaskId], opened: &Opened, args: &ExamineArgs, context: &Context) {
    let is_needed = |task: &&TaskId| {
        let declared = &opened.workspace.tasks[**task].kind;
        !selected.contains(task) && declared.command().is_some_and(|run| !run.outputs.is_empty())
    };
    let needed = plan.tasks.iter().filter(is_needed).count();
    if needed > 0 && args.format == Format::Human {
        let (tasks, were) = if needed == 1 { ("task", "was") } else { ("tasks", "were") };
        context.say(&format!("{needed} {tasks} that they need {were} not audited: `drystone audit //...` audits all"));
    }
}

/// A directory with nothing in it, made if it is not there: what is kept is never mixed with what is somebody's.
fn empty_dir(dir: &Path) -> Result<PathBuf, CliError> {
    crate::fs::ops::create_dir_all(dir)?;
    match crate::fs::ops::read_dir(dir)?.is_empty() {
        true => Ok(dir.to_owned()),
        false => {
            Err(CliError::usage(format!("{} is not empty", dir.display())).help("name another directory with `--keep`"))
        }
    }
}

/// A number that no other audit has, as 16 hexadecimal digits.
fn audit_id(started_ms: i64) -> String {
    let mut bytes = [0; 16];
    // Without randomness, time and process have to do: marks must only be unlike anything that an output holds by itself.
    if SystemRandom::new().fill(&mut bytes).is_err() {
        bytes[..8].copy_from_slice(&started_ms.to_le_bytes());
        bytes[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    }
    Digest::of(&bytes).to_string()[..16].to_owned()
}

fn selected(args: &ExamineArgs, opened: &Opened) -> Result<Vec<TaskId>, CliError> {
    let all = opened.select(&args.targets)?;
    let is_service = |task: &TaskId| opened.workspace.tasks[*task].kind.is_service();
    Ok(all.into_iter().filter(|task| !is_service(task)).collect())
}

fn options(args: &ExamineArgs) -> Options {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let jobs = args.jobs.map_or(cores, NonZeroUsize::get);
    Options {
        jobs: u32::try_from(jobs).unwrap_or(u32::MAX).min(1024),
        on_failure: OnFailure::KeepGoing,
        reuse: Reuse::Results,
        isolation: args.isolation.map(IsolationRequest::from),
        committed: Committed::Check,
        observe: Observe::AfterFailure,
        reach: if args.offline { Reach::Offline } else { Reach::Declared },
        inspecting: Inspecting::default(),
    }
}

/// Tells how it goes on, a line for each task.
fn heard(args: &ExamineArgs, context: &Context) -> Heard {
    let (err, is_quiet) = (context.err.clone(), context.verbosity == Verbosity::Quiet || args.format == Format::Json);
    Box::new(move |task: &TaskAudit| {
        if !is_quiet {
            let builds = task.builds.len() - 1;
            err.line(&format!("audited {}: {} ({builds} rebuilds)", task.label, task.verdict.word()));
        }
    })
}

/// Runs the plan; only what goes wrong is told.
fn drive_quietly(
    session: &crate::engine::session::Session<'_>,
    plan: &engine_plan::Plan,
    opened: &Opened,
    context: &Context,
) -> Result<Summary, CliError> {
    let quiet = Context {
        environment: context.environment.clone(),
        dir: context.dir.clone(),
        verbosity: Verbosity::Quiet,
        stdout: context.stdout,
        stderr: context.stderr,
        out: context.out.clone(),
        err: context.err.clone(),
    };
    let request =
        ReportRequest { format: Format::Human, why: WhyShown::First, output: None, profile: None, junit: None };
    let mut reports = Reports::new(&request, &quiet, Arc::new(opened.workspace.sources.clone()));
    let summary = drive::drive(session, plan, &Registry::default(), AfterUse::End, &mut reports.fan());
    reports.write_files()?;
    Ok(summary)
}

fn write(args: &ExamineArgs, audit: &Audit, context: &Context) {
    match args.format {
        Format::Json => context.out.write(wire::to_json(audit).as_bytes()),
        Format::Human => {
            let detail = if context.verbosity > Verbosity::Normal { Detail::Everything } else { Detail::Findings };
            context.out.write(text::lines(audit, detail, context.stdout.color).as_bytes());
        }
    }
}

/// What a report is written as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Html,
    Json,
    Sarif,
    Junit,
    Text,
}

impl Kind {
    fn of(file: &Path) -> Result<Self, CliError> {
        match file.extension().and_then(|ending| ending.to_str()) {
            Some("html" | "htm") => Ok(Kind::Html),
            Some("json") => Ok(Kind::Json),
            Some("sarif") => Ok(Kind::Sarif),
            Some("xml") => Ok(Kind::Junit),
            Some("txt") => Ok(Kind::Text),
            _ => {
                let told = format!("what kind of report `{}` is to be cannot be told from its name", file.display());
                Err(CliError::usage(told).help("let it end with `.html`, `.json`, `.sarif`, `.xml` or `.txt`"))
            }
        }
    }

    fn bytes(self, audit: &Audit) -> String {
        match self {
            Kind::Html => html::page(audit),
            Kind::Json => wire::to_json(audit),
            Kind::Sarif => sarif::sarif(audit),
            Kind::Junit => junit::xml(audit),
            Kind::Text => text::lines(audit, Detail::Everything, crate::report::ink::Color::Plain),
        }
    }
}

/// The images among the recorded outputs, as subjects with the label of the task that made them.
fn images(audit: &Audit, store: &Store) -> Result<Vec<Subject>, CliError> {
    let mut subjects = Vec::new();
    for task in &audit.tasks {
        let Some(listing) = task.outputs.map(|outputs| store.listing(&outputs)).transpose()?.flatten() else {
            continue;
        };
        // A digest that none can be released by is no subject.
        let digests = results::images(store, &listing)?;
        let digests = digests.iter().filter_map(|digest| BlobDigest::parse(digest).ok());
        subjects.extend(digests.map(|digest| Subject::new(&task.label, &digest)));
    }
    Ok(subjects)
}

/// Writes what can be said of the audit, as statements or signed.
fn attest(
    (audit, images): (&Audit, &[Subject]),
    dir: &Path,
    key: Option<&SigningKey>,
    args: &ExamineArgs,
    context: &Context,
) -> Result<(), CliError> {
    let builder = match &args.builder {
        Some(builder) => builder.clone(),
        None => context.environment.origin()?.builder,
    };
    crate::fs::ops::create_dir_all(dir)?;
    let said = match statement::reproduction(audit, &builder, images) {
        Ok(statement) => statement.write(),
        Err(error) => return Err(CliError::usage(format!("nothing can be attested: {error}"))),
    };
    let scai = statement::scai(audit, &builder, &said).map(|statement| statement.write());
    let papers = [("reproduction", Some(said)), ("scai", scai)];
    for (name, bytes) in papers.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))) {
        let (file, bytes) = match key {
            Some(key) => (format!("{name}.sigstore.json"), signed(&bytes, key)?),
            None => (format!("{name}.json"), bytes),
        };
        atomic::write(&dir.join(file), &bytes, Durability::Relaxed)?;
    }
    if key.is_none() {
        context.say("nothing is signed: `--key FILE` signs, `drystone image keygen` makes a key");
    }
    Ok(())
}

/// Whether any of these is so.
fn fails(on: &[FailOn], audit: &Audit) -> bool {
    let any_verdict = |verdict: Verdict| audit.tasks.iter().any(|task| task.verdict == verdict);
    let any_cause = |certainty: Certainty| {
        let own = |task: &TaskAudit| {
            task.differences.iter().any(|one| one.consequence_of.is_none() && one.certainty == certainty)
        };
        audit.tasks.iter().any(own)
    };
    on.iter().any(|on| match on {
        FailOn::Different => any_verdict(Verdict::Different),
        FailOn::Equivalent => any_verdict(Verdict::Equivalent),
        FailOn::Uncompressed => any_verdict(Verdict::IdenticalUncompressed),
        FailOn::Inconclusive => any_verdict(Verdict::Inconclusive),
        FailOn::Proven => any_cause(Certainty::Proven),
        FailOn::Suspected => any_cause(Certainty::Suspected),
        FailOn::Untested => {
            use crate::audit::model::Effect;
            audit.tasks.iter().any(|task| task.varied.iter().any(|one| matches!(one.effect, Effect::None { .. })))
        }
        FailOn::Never => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_named_or_taken_away() {
        let check = |text: &str, expect: &[Dimension]| {
            assert_eq!(parse_dimensions(text), Ok(Varying(expect.iter().copied().collect())), "{text}");
        };
        check("clock", &[Dimension::Clock]);
        check("clock, host-name", &[Dimension::Clock, Dimension::HostName]);
        let all_but_two: Vec<Dimension> =
            Dimension::ALL.into_iter().filter(|one| ![Dimension::Clock, Dimension::Kernel].contains(one)).collect();
        check("-clock,-kernel", &all_but_two);
        check("", &[]);
        assert!(parse_dimensions("clok").is_err_and(|told| told.contains("build-path, host-name")));
    }
}
