//! Runs one prepared task: sandbox, collection, storing. Knows nothing of what runs beside it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::time::human_duration;
use crate::base::tree::{Listing, fold};
use crate::engine::collect::{self, Collected, Declared};
use crate::engine::event::{Failure, Log};
use crate::engine::limits;
use crate::engine::log::{self, LogCapture};
use crate::engine::owned::Ground;
use crate::engine::prepare::{Dependency, Prepared, all_outputs};
use crate::engine::restore::{self, RestoreError};
use crate::engine::secrets::Secrets;
use crate::engine::service::Held;
use crate::engine::session::{Observe, Session};
use crate::engine::takeover;
use crate::engine::traced::{self, Keyed};
use crate::engine::undeclared;
use crate::engine::view::{self, Purpose};
use crate::engine::workplace::Place;
use crate::fs::ops::FsError;
use crate::fs::stat::StatKey;
use crate::manifest::glob::{Pattern, PatternList};
use crate::manifest::model::{Inputs, RunTask, Undeclared};
use crate::sandbox::spec::{Exit, Finished, Level, Observation, SandboxError, Usage, View};
use crate::store::{ActionLock, ActionResult, Recorded, StoreError};

/// What came of running a task.
pub enum Executed {
    /// It succeeded.
    Passed(Passed),
    /// It ran and failed, or could not be run.
    Failed {
        /// What it printed.
        log: Log,
        /// How.
        failure: Failure,
        /// How long the last attempt took.
        duration: Duration,
        /// Attempts made.
        attempts: u32,
        /// Reports and `on-failure` files of a part of a split task: the whole puts them in place. Nothing of other tasks, which
        /// have done so themselves.
        left: Listing,
    },
    /// The run was cancelled.
    Cancelled {
        /// What it printed until then.
        log: Log,
    },
    /// Something other than the command is broken: the disk, the store, the launcher.
    Broken {
        /// What.
        problem: Diagnostic,
        /// Whether it is for a person to mend: files of someone else where outputs go, a link on the way.
        refused: bool,
    },
}

/// A command that succeeded, with its outputs in the store.
pub struct Passed {
    /// What it printed.
    pub log: Log,
    /// Its outputs, relative to the package.
    pub listing: Listing,
    /// Their tree digest.
    pub outputs: Digest,
    /// Wall time.
    pub duration: Duration,
    /// What it used.
    pub usage: Usage,
    /// Attempts made.
    pub attempts: u32,
    /// Things worth saying.
    pub notes: Vec<Diagnostic>,
    /// The action with what was touched in it, for a traced task.
    pub keyed: Option<Box<Keyed>>,
    /// Whether the result may be stored: not if an input changed meanwhile, nor if an output holds a secret.
    pub storable: bool,
}

/// Python checks each of these against its source; they come up in every Python task.
const ALWAYS_SCRATCH: &str = "**/__pycache__/**";

/// Undeclared files told per task.
const UNDECLARED_TOLD_MAX: usize = 5;

/// Runs the command, again as often as `retries` allows.
pub fn execute(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
    dependencies: &[Dependency],
    services: &Held,
) -> Executed {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let executed = attempt(session, task, run, prepared, dependencies, services, attempts);
        match executed {
            Ok(Executed::Failed { ref failure, .. })
                if attempts <= run.retries
                    && failure.exit.is_some()
                    && !session.cancel.is_cancelled()
                    && services.first_end().is_none() => {}
            Ok(mut executed) => {
                services.judge(session, &session.label(task), &mut executed);
                if let Executed::Failed { failure, duration, .. } = &mut executed
                    && let Some(exit) = failure.exit
                    // A second look would be a second request to services that others use as well.
                    && services.is_empty()
                {
                    let looked = (exit, *duration);
                    let missed = undeclared::look_again(session, task, run, prepared, dependencies, looked);
                    failure.diagnostics.extend(missed);
                }
                return executed;
            }
            Err(broken) => {
                let refused = matches!(&broken, Broken::Restore(error) if error.is_refusal());
                if matches!(broken, Broken::Sandbox(SandboxError::Setup { .. })) {
                    session.levels.forget();
                }
                return Executed::Broken { problem: broken.into_diagnostic(session, task), refused };
            }
        }
    }
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
    Collect(#[from] collect::CollectError),
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl Broken {
    fn into_diagnostic(self, session: &Session<'_>, task: TaskId) -> Diagnostic {
        let declared = &session.workspace.tasks[task];
        let problem = match self {
            Broken::Restore(RestoreError::Refused(problems)) => return join(problems),
            other => other,
        };
        let help = match &problem {
            Broken::Restore(error) if error.is_refusal() => "move what is in the way, or change `outputs`",
            Broken::Sandbox(SandboxError::Setup { .. }) => {
                "`drystone doctor` tells what this machine allows; `--isolation none` runs without a sandbox"
            }
            Broken::Sandbox(_) => "run it again; if it persists, `drystone doctor` tells more",
            _ => "see the path and its permissions; `drystone store verify` checks the store",
        };
        Diagnostic::error(format!("`{}` could not be run: {problem}", declared.label))
            .at(&declared.place, "declared here")
            .help(help)
    }
}

/// Several problems as one: the first one with the messages of the others.
fn join(problems: Vec<Diagnostic>) -> Diagnostic {
    let mut problems = problems.into_iter();
    let first = problems.next().unwrap_or_else(|| Diagnostic::error("the outputs hold files of someone else"));
    problems.fold(first, |all, one| all.help(one.message))
}

fn attempt(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
    dependencies: &[Dependency],
    services: &Held,
    attempts: u32,
) -> Result<Executed, Broken> {
    let sandbox = session.sandbox(prepared.action.isolation)?;
    let (mut shown, place, begun) = lay_out(session, task, run, prepared, dependencies, sandbox.level())?;
    shown.spec.observe = undeclared::is_observed(session, run);
    let company = services.join(&mut shown.spec);
    let spec = &shown.spec;
    let secrets = session.secrets_reaching(task);
    let mut capture = LogCapture::new(secrets.clone());
    let started = Instant::now();
    let mut take = |stream, bytes: &[u8]| capture.take(stream, bytes);
    let finished = match sandbox.run_in(spec, company, &session.cancel, &mut take) {
        Ok(finished) => finished,
        Err(SandboxError::CannotStart { program, cause }) => {
            let failure = not_started(&program, &cause);
            let (log, duration) = (capture.finish(), started.elapsed());
            return Ok(Executed::Failed { log, failure, duration, attempts, left: Listing::new() });
        }
        Err(other) => return Err(other.into()),
    };
    let duration = started.elapsed();
    let log = capture.finish();
    if finished.exit == Exit::Cancelled {
        return Ok(Executed::Cancelled { log });
    }
    if matches!(place, Place::Memory(_)) && finished.exit != Exit::Code(0) && session.store.ran_out_of_memory() {
        // It may have failed for want of room that a disk has.
        drop((finished, shown, place));
        return attempt(session, task, run, prepared, dependencies, services, attempts);
    }
    let seen = finished.observation.as_ref();
    let scratch = with_always_scratch(session, task, &run.scratch);
    let outputs: Vec<&Pattern> = run.outputs.iter().map(|output| &output.value).collect();
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
    if finished.exit != Exit::Code(0) {
        let (left, mut diagnostics) = collect_after_failure(session, task, run, declared, &finished);
        let missed = seen.and_then(|seen| observed_note(session, task, run, prepared, seen));
        diagnostics.extend(missed);
        let failure = Failure { cause: exit_sentence(finished.exit, run), exit: Some(finished.exit), diagnostics };
        return Ok(Executed::Failed { log, failure, duration, attempts, left });
    }
    let collected = match collect::collect(finished.workspace.path(), &declared, &session.store) {
        Ok(collected) => collected,
        Err(error) if error.is_of_the_command() => {
            let failure = unusable_output(session, task, &error);
            return Ok(Executed::Failed { log, failure, duration, attempts, left: Listing::new() });
        }
        Err(error) => return Err(error.into()),
    };
    session.discard_later(&collected);
    if let Some(failure) =
        missing_outputs(session, task, run, &collected).or_else(|| shared_output(session, task, &collected))
    {
        return Ok(Executed::Failed { log, failure, duration, attempts, left: Listing::new() });
    }
    if let Some(failure) = forbidden_access(session, task, run, prepared, seen, &collected) {
        return Ok(Executed::Failed { log, failure, duration, attempts, left: Listing::new() });
    }
    let changed = view::first_change(session, &shown);
    let mut notes = undeclared_note(session, task, &collected);
    notes.extend(changed.as_ref().map(|path| changed_note(session, task, path)));
    if session.options.observe == Observe::Always {
        notes.extend(seen.and_then(|seen| observed_note(session, task, run, prepared, seen)));
    }
    let unproven = unproven_note(session, task, run, seen);
    let proven = unproven.is_none();
    notes.extend(unproven);
    notes.extend(leak_note(session, task, &secrets, &collected));
    let keyed = key_of_traced(session, task, run, prepared, seen, (&spec.view, begun.as_ref()));
    let keyed = keyed.map_err(|note| notes.push(note));
    let trees = fold(&collected.listing);
    session.store.put_trees(&trees)?;
    Ok(Executed::Passed(Passed {
        log,
        outputs: trees.root,
        listing: collected.listing,
        duration,
        usage: finished.usage,
        attempts,
        notes,
        storable: changed.is_none() && collected.leaking.is_empty() && proven && keyed.is_ok(),
        keyed: keyed.unwrap_or_default(),
    }))
}

/// What a command sees, the place for it, and for a traced task a mark of the time before which all that it sees was looked at.
fn lay_out(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
    dependencies: &[Dependency],
    level: Level,
) -> Result<(view::Shown, Place, Option<StatKey>), Broken> {
    let is_traced = matches!(run.inputs, Inputs::Traced);
    // Made now, its change time tells when all began.
    let early = is_traced.then(|| Place::on_disk(session)).transpose()?;
    let begun = early.as_ref().map(|place| StatKey::at(place.path())).transpose()?;
    let mut shown = view::show(session, task, run, prepared, dependencies, Purpose::Run)?;
    let place = match early {
        Some(early) => early,
        None => Place::of(session, level, &shown.spec)?,
    };
    shown.spec.stage = place.path().to_owned();
    Ok((shown, place, begun))
}

fn not_started(program: &str, cause: &str) -> Failure {
    let cause = format!("cannot start `{program}`: {cause}");
    let help = "list the program under `tools`, or check its path";
    let diagnostics = vec![Diagnostic::error(cause.clone()).help(help)];
    Failure { cause, exit: None, diagnostics }
}

fn changed_note(session: &Session<'_>, task: TaskId, path: &RelPath) -> Diagnostic {
    let label = session.label(task);
    Diagnostic::warning(format!("`{path}` changed while `{label}` ran; its result is not kept"))
        .help("run it again when the file is at rest")
}

/// The action with what was touched in it, where that is asked for; or why there is none.
fn key_of_traced(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
    seen: Option<&Observation>,
    (view, begun): (&BTreeMap<RelPath, View>, Option<&StatKey>),
) -> Result<Option<Box<Keyed>>, Diagnostic> {
    let Some(begun) = begun.filter(|_| run.cache) else { return Ok(None) };
    traced::keyed(session, task, run, prepared, seen, view, begun).map(|keyed| Some(Box::new(keyed)))
}

/// Names the file, never the value.
fn leak_note(session: &Session<'_>, task: TaskId, secrets: &Secrets, collected: &Collected) -> Option<Diagnostic> {
    let path = secrets.redacted(collected.leaking.first()?.as_str());
    let declared = &session.workspace.tasks[task];
    Some(
        Diagnostic::warning(format!("output `{path}` of `{}` holds a secret; its result is not kept", declared.label))
            .at(&declared.place, "declared here")
            .help("write the secret to `scratch`, or keep it out of the outputs"),
    )
}

pub(super) fn with_always_scratch(session: &Session<'_>, task: TaskId, scratch: &PatternList) -> PatternList {
    let place = session.workspace.tasks[task].place.clone();
    let pattern = Pattern::parse(ALWAYS_SCRATCH).expect("a constant pattern");
    let always = crate::manifest::glob::PatternItem { pattern, exclude: false, reach: None, place };
    std::iter::once(always).chain(scratch.items.iter().cloned()).collect()
}

pub(super) fn exit_sentence(exit: Exit, run: &RunTask) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("ended by signal {signal}"),
        Exit::TimedOut => {
            format!("timed out after {}", run.timeout.map_or_else(|| "its limit".into(), human_duration))
        }
        Exit::Over(limit) => limits::sentence(limit, run),
        Exit::Cancelled => "cancelled".into(),
    }
}

/// Reports and `on-failure` files of a failed command go to the tree, so that a person can read them; nothing is cached.
///
/// Gives what a part leaves to its whole, and what could not be kept. It is never an error of its own: the failure of the command is
/// the news.
fn collect_after_failure(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    declared: Declared<'_>,
    finished: &Finished,
) -> (Listing, Vec<Diagnostic>) {
    if run.on_failure.is_empty() {
        return (Listing::new(), Vec::new());
    }
    let everything = PatternList::default();
    let declared = Declared { outputs: &[], reports: &run.on_failure, scratch: &everything, ..declared };
    match collect::collect(finished.workspace.path(), &declared, &session.store) {
        Ok(collected) => {
            session.discard_later(&collected);
            if run.split.is_some() {
                return (collected.listing, Vec::new());
            }
            (Listing::new(), restore::add_after_failure(session, task, &collected.listing))
        }
        Err(error) => {
            let problem = Diagnostic::warning(format!("what `{}` left was not kept: {error}", session.label(task)));
            (Listing::new(), vec![problem])
        }
    }
}

/// An output that is made of something no output can be.
fn unusable_output(session: &Session<'_>, task: TaskId, error: &collect::CollectError) -> Failure {
    let declared = &session.workspace.tasks[task];
    let problem = Diagnostic::error(format!("`{}` made what cannot be kept: {error}", declared.label))
        .at(&declared.place, "declared here")
        .help("outputs are files, directories and links with UTF-8 names; list the rest under `scratch`");
    Failure { cause: error.to_string(), exit: Some(Exit::Code(0)), diagnostics: vec![problem] }
}

/// An output that another task declares, too.
fn shared_output(session: &Session<'_>, task: TaskId, collected: &Collected) -> Option<Failure> {
    let problem = takeover::shared(session, task, &collected.listing)?;
    Some(Failure { cause: problem.message.clone(), exit: Some(Exit::Code(0)), diagnostics: vec![problem] })
}

pub(super) fn missing_outputs(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    collected: &Collected,
) -> Option<Failure> {
    if collected.missing.is_empty() {
        return None;
    }
    let label = session.label(task);
    let outputs = all_outputs(run);
    let diagnostics: Vec<Diagnostic> = collected
        .missing
        .iter()
        .map(|&position| {
            let text = &outputs[position].text;
            let place = run.outputs.get(position).map_or(&session.workspace.tasks[task].place, |output| &output.place);
            let near = collected.undeclared.first();
            let found = near.map(|path| format!("it wrote `{path}`, which is not declared"));
            Diagnostic::error(format!("task `{label}` declares output `{text}` but made nothing there"))
                .at(place, "declared here")
                .help(found.unwrap_or_else(|| "fix the command, or take the output out".into()))
        })
        .collect();
    let cause = format!("declared output `{}` was not made", outputs[collected.missing[0]].text);
    Some(Failure { cause, exit: Some(Exit::Code(0)), diagnostics })
}

fn undeclared_note(session: &Session<'_>, task: TaskId, collected: &Collected) -> Vec<Diagnostic> {
    if collected.undeclared.is_empty() {
        return Vec::new();
    }
    let declared = &session.workspace.tasks[task];
    let told: Vec<String> =
        collected.undeclared.iter().take(UNDECLARED_TOLD_MAX).map(|path| format!("`//{path}`")).collect();
    let rest = collected.undeclared.len() - told.len();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    vec![
        // Of a part the whole task is named: a hundred parts that leave one file say so once.
        Diagnostic::warning(format!(
            "`{}` wrote undeclared files: {}{more}",
            session.workspace.whole_label(task),
            told.join(", ")
        ))
            .at(&declared.place, "they were thrown away")
            .help("add them to `outputs` to keep them, or to `scratch` to have them thrown away without a word; both are relative to the package, `scratch` may begin with `//`"),
    ]
}

/// What an observed command looked for and does not see.
fn observed_note(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
    seen: &Observation,
) -> Option<Diagnostic> {
    let headline = Diagnostic::note(format!("looked at what `{}` touched", session.label(task)));
    undeclared::find(session, task, run, prepared, seen).told(headline)
}

/// The failure of a command that touched what it does not declare, where that is forbidden.
fn forbidden_access(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
    seen: Option<&Observation>,
    collected: &Collected,
) -> Option<Failure> {
    let findings = undeclared::find(session, task, run, prepared, seen?);
    let problem = undeclared::violation(session, task, findings, &collected.undeclared)?;
    let cause = "it touched what it does not declare".to_owned();
    Some(Failure { cause, exit: Some(Exit::Code(0)), diagnostics: vec![problem] })
}

/// Where nothing undeclared may be touched and not all was seen, nothing is proven.
fn unproven_note(session: &Session<'_>, task: TaskId, run: &RunTask, seen: Option<&Observation>) -> Option<Diagnostic> {
    let gap = seen?.gap.as_ref()?;
    let declared = &session.workspace.tasks[task];
    (run.undeclared == Undeclared::Error).then(|| {
        let message = format!("not all that `{}` touched was seen: {gap}; its result is not kept", declared.label);
        Diagnostic::warning(message).at(&declared.place, "declared here").help("leave `undeclared = \"error\"` out")
    })
}

/// Stores a result; the first one for an action wins.
///
/// The lock of the action goes with it: another process that waits finds the committed result.
pub fn record(
    session: &Session<'_>,
    task: TaskId,
    prepared: &Prepared,
    passed: &Passed,
    lock: ActionLock,
) -> Result<Recorded, StoreError> {
    let (key, stream) = match &passed.keyed {
        Some(keyed) => {
            // Queued before the result: it leads to it.
            session.store.note_path_set(&prepared.key, &keyed.set);
            (keyed.key, &keyed.stream)
        }
        None => (prepared.key, &prepared.stream),
    };
    session.store.put_trees(&prepared.trees)?;
    let log = session.store.put_bytes(&log::encode(&passed.log))?;
    let result = ActionResult {
        action: key,
        outputs: passed.outputs,
        stdout_stderr: log,
        exit: 0,
        isolation: prepared.action.isolation.word().to_owned(),
        duration_ms: passed.duration.as_millis() as u64,
        cpu_ms: passed.usage.cpu_ms,
        max_rss_kib: passed.usage.max_rss_kib,
        label: session.label(task),
        workspace: session.worktree(),
        created_ms: now_ms(),
    };
    session.store.record_held(result, stream, Some(lock))
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
