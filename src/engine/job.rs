//! One task from key to result: look for an earlier one, else run it and keep what came of it. Knows no other task's state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::tree::{Entry, Listing};
use crate::engine::event::{Failure, Log, MissReason, ResultSource};
use crate::engine::execute::{self, Executed, now_ms};
use crate::engine::image_root::{self, Unsettled};
use crate::engine::inspect::{Case, Inspection};
use crate::engine::pod::Unready;
use crate::engine::prepare::{Dependency, Prepared, Produced, draft, prepare};
use crate::engine::rebuild::Occasion;
use crate::engine::restore::{self, Placed, RestoreError};
use crate::engine::service::Held;
use crate::engine::session::{Committed, Reuse, Session};
use crate::engine::sources::Sources;
use crate::engine::{explain, fetch, image_task, log, offline, recall, traced, waiting};
use crate::fingerprint::action::Action;
use crate::manifest::model::TaskKind;
use crate::manifest::split::Group;
use crate::sandbox::spec::Level;
use crate::store::{ActionLock, ActionResult, Execution, History, Recorded, StoreError, TaskRun};
use crate::workspace::split::split_of;

/// A result that serves.
pub struct Success {
    /// What it left.
    pub produced: Arc<Produced>,
    /// Where it came from; `None` if it ran now.
    pub source: Option<ResultSource>,
    /// Level it was made at.
    pub isolation: Option<Level>,
    /// What the command printed.
    pub log: Log,
    /// Time it took now.
    pub duration: Duration,
    /// Time it saved.
    pub saved: Duration,
    /// Attempts made now.
    pub attempts: u32,
    /// Things worth saying.
    pub notes: Vec<Diagnostic>,
    /// Whether the tree changed.
    pub materialized: bool,
    /// Its key.
    pub action: Digest,
}

/// A task that did not succeed.
pub struct Mishap {
    /// How.
    pub failure: Failure,
    /// What the command printed.
    pub log: Log,
    /// Time it took.
    pub duration: Duration,
    /// Attempts made.
    pub attempts: u32,
    /// Its key, once known.
    pub action: Option<Digest>,
    /// Who has to act.
    pub fault: Fault,
    /// Reports and `on-failure` files of a part of a split task, for its whole to put in place.
    pub left: Listing,
}

/// Whose fault a mishap is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The command's.
    Command,
    /// The manifest's or the tree's.
    Workspace,
    /// The machine's: disk, store, launcher.
    Machine,
}

/// What a lookup found.
pub enum Looked {
    /// An earlier result, now in place.
    Hit(Box<Success>),
    /// Nothing; it has to run.
    Miss(Box<Missed>),
    /// It is a service: its key is known, and nothing more is to be done until somebody needs it.
    Service(Box<(Prepared, Vec<Dependency>)>),
    /// It cannot run.
    Failed(Box<Mishap>),
    /// The run was interrupted before that was known.
    Cancelled,
}

/// A task that has to run, with everything that was found out about it.
pub struct Missed {
    /// The prepared action. Not of a part of a split task, nor while many others wait: those are prepared again when they run, for each
    /// would hold the listing of all it sees.
    pub prepared: Option<Ready>,
    /// What it needs.
    pub dependencies: Vec<Dependency>,
    /// Why it runs.
    pub why: Vec<MissReason>,
    /// Whether a result that appears meanwhile may serve.
    pub reuse: Reuse,
    /// What it stands by once it has a result; `None` if it can only be looked up.
    pub memo: Option<Digest>,
    /// What was known of its earlier runs.
    pub history: History,
}

/// A prepared action that waits to be run.
pub struct Ready {
    prepared: Prepared,
    /// As long as it waits, it is counted.
    _waits: Arc<()>,
}

/// Prepared actions that wait at most; about 30 KiB each with a hundred inputs.
const READY_MAX: usize = 128;

/// Keeps a prepared action until it is run, unless enough are kept. What it has to say is not said a second time, so then it is kept.
fn keep(session: &Session<'_>, prepared: Prepared) -> Option<Ready> {
    let waits = Arc::clone(&session.ready);
    // The session has one itself.
    let is_kept = Arc::strong_count(&waits) <= READY_MAX + 1 || !prepared.notes.is_empty();
    is_kept.then(|| Ready { prepared, _waits: waits })
}

/// How a run of one task ended.
pub enum Ended {
    /// With a result.
    Passed(Box<Success>),
    /// Without.
    Failed(Box<Mishap>),
    /// Because the run was stopped.
    Cancelled(Log),
}

/// Computes the key and takes an earlier result if there is one that is complete.
pub fn look(
    session: &Session<'_>,
    task: TaskId,
    sources: &Sources,
    dependencies: Vec<Dependency>,
    reuse: Reuse,
    history: History,
) -> Looked {
    let started = Instant::now();
    if let Some(problem) = nothing_to_run(session, task) {
        return Looked::Failed(Box::new(mishap(problem, started, None)));
    }
    let left_out = match image_root::settle(session, task, &dependencies) {
        Ok(left_out) => left_out,
        Err(Unsettled::Cancelled) => return Looked::Cancelled,
        Err(Unsettled::Image(problem)) => return Looked::Failed(Box::new(mishap(problem, started, None))),
        Err(Unsettled::Machine(problem)) => {
            return Looked::Failed(Box::new(Mishap { fault: Fault::Machine, ..mishap(problem, started, None) }));
        }
    };
    let mut draft = match draft(session, task, &dependencies) {
        Ok(draft) => draft,
        Err(problem) => return Looked::Failed(Box::new(mishap(problem, started, None))),
    };
    let memo = recall::memo(session, task, &mut draft, sources, &dependencies);
    if reuse == Reuse::Results
        && let Some(memo) = &memo
        && let Some(mut hit) = recall::recall(session, task, memo, sources, history, started)
        && !is_inspected(session, task, &hit.action, Standing::Hit)
    {
        hit.notes.extend(left_out);
        return Looked::Hit(Box::new(hit));
    }
    let mut prepared = draft.finish(session, sources, &dependencies);
    prepared.notes.extend(left_out);
    if session.workspace.tasks[task].kind.is_service() {
        return Looked::Service(Box::new((prepared, dependencies)));
    }
    let reusable = reuse == Reuse::Results && is_cached(session, task);
    let found = if reusable { find(session, task, &prepared) } else { Ok(None) };
    match found {
        Ok(Some(found)) => match take(session, task, &prepared, &found, started) {
            Ok(Some(hit)) => {
                if is_inspected(session, task, &hit.action, Standing::Hit) {
                    let why = vec![explain::reason("inspected")];
                    let prepared = keep(session, prepared);
                    return Looked::Miss(Box::new(Missed { prepared, dependencies, why, reuse, memo, history }));
                }
                if let Some(memo) = memo {
                    recall::note(session, task, memo, &found, &hit, history);
                }
                return Looked::Hit(Box::new(hit));
            }
            // The result lost a part since it was looked up: as if it had never been there.
            Ok(None) => {}
            Err(Untaken::Mishap(mishap)) => return Looked::Failed(mishap),
            Err(Untaken::Cancelled) => return Looked::Cancelled,
        },
        Ok(None) => {}
        Err(error) => return Looked::Failed(Box::new(store_mishap(session, task, &error, started))),
    }
    session.standing.forget(&session.label(task));
    let why = explain::why(session, task, &prepared, reuse);
    let waits_light = session.workspace.split_of(task).is_some();
    let prepared = if waits_light { None } else { keep(session, prepared) };
    Looked::Miss(Box::new(Missed { prepared, dependencies, why, reuse, memo, history }))
}

/// The error of a split task without items: that no test was found must not pass for tests that passed.
fn nothing_to_run(session: &Session<'_>, task: TaskId) -> Option<Diagnostic> {
    let declared = &session.workspace.tasks[task];
    let split = split_of(declared).filter(|split| split.part.group == Group::Nothing)?;
    Some(
        Diagnostic::error(format!("`{}` has no items, so there is nothing to run", declared.label))
            .at(&split.place, "no file matches")
            .help("correct the pattern, which is relative to the package, or take the task out"),
    )
}

/// Whether results of the task are kept at all.
pub fn is_cached(session: &Session<'_>, task: TaskId) -> bool {
    match &session.workspace.tasks[task].kind {
        TaskKind::Run(run) => run.cache,
        TaskKind::Fetch(_) => true,
        TaskKind::Service(_) => false,
    }
}

/// An earlier result with the action it is of.
pub struct Found {
    /// The result.
    pub result: ActionResult,
    /// Its action.
    pub action: Action,
    /// Its key.
    pub key: Digest,
}

/// Looks for an earlier result: under the key, or for a traced task under those that come of what it was seen to touch.
pub fn find(session: &Session<'_>, task: TaskId, prepared: &Prepared) -> Result<Option<Found>, StoreError> {
    if let Some(run) = traced::of(session, task) {
        let found = traced::lookup(session, task, run, prepared)?;
        return Ok(found.map(|(result, keyed)| Found { result, action: keyed.action, key: keyed.key }));
    }
    let found = session.store.lookup(&prepared.key)?;
    Ok(found.map(|result| Found { result, action: prepared.action.clone(), key: prepared.key }))
}

/// Why a stored result is not in place.
enum Untaken {
    Cancelled,
    Mishap(Box<Mishap>),
}

/// Puts a stored result in place. `None` if a part of it is gone.
fn take(
    session: &Session<'_>,
    task: TaskId,
    prepared: &Prepared,
    found: &Found,
    started: Instant,
) -> Result<Option<Success>, Untaken> {
    let Found { result, key, .. } = found;
    let broken = |error: &StoreError| Untaken::Mishap(Box::new(store_mishap(session, task, error, started)));
    let Some(listing) = session.store.listing(&result.outputs).map_err(|error| broken(&error))? else {
        return Ok(None);
    };
    let log = session.store.read(&result.stdout_stderr).map_err(|error| broken(&error))?;
    let Some(log) = log.and_then(|bytes| log::decode(&bytes).ok()) else { return Ok(None) };
    let listing = Arc::new(listing);
    let placed = match settle(session, task, &listing, started, &log) {
        Ok(placed) => placed,
        Err(Settled::Vanished) => return Ok(None),
        Err(Settled::Cancelled) => return Err(Untaken::Cancelled),
        Err(Settled::Mishap(mut mishap)) => {
            mishap.action = Some(*key);
            return Err(Untaken::Mishap(mishap));
        }
    };
    Ok(Some(Success {
        produced: Arc::new(Produced { listing, digest: result.outputs, unstable: session.unstable_by(task, key) }),
        source: Some(ResultSource::Local),
        isolation: Level::parse(&result.isolation),
        log,
        duration: started.elapsed(),
        saved: Duration::from_millis(result.duration_ms),
        attempts: 0,
        notes: [prepared.notes.clone(), placed.notes]
            .into_iter()
            .flatten()
            .chain(session.unstable_note(task, key))
            .collect(),
        materialized: placed.written,
        action: *key,
    }))
}

enum Settled {
    Vanished,
    Cancelled,
    Mishap(Box<Mishap>),
}

/// Brings the tree in line with a result: outputs are put in place, committed ones checked or, with `--fix`, written.
fn settle(
    session: &Session<'_>,
    task: TaskId,
    listing: &Arc<Listing>,
    started: Instant,
    log: &Log,
) -> Result<Placed, Settled> {
    if session.workspace.split_of(task).is_some() {
        return Ok(Placed::default()); // Once all parts are done, the whole is put in place.
    }
    let failed = |error: RestoreError| match error {
        RestoreError::Materialize(crate::engine::materialize::MaterializeError::Vanished(_)) => Settled::Vanished,
        RestoreError::Cancelled => Settled::Cancelled,
        error => Settled::Mishap(Box::new(restore_mishap(session, task, error, started))),
    };
    let mut placed = restore::put_in_place(session, task, listing).map_err(failed)?;
    let mut differences = restore::committed_differences(session, task, listing);
    if !differences.is_empty()
        && session.options.committed == Committed::Fix
        && let TaskKind::Run(run) = &session.workspace.tasks[task].kind
    {
        let fixed = restore::put_committed(session, task, run, listing).map_err(failed)?;
        placed = Placed { written: placed.written | fixed.written, notes: [placed.notes, fixed.notes].concat() };
        differences = restore::committed_differences(session, task, listing);
    }
    if differences.is_empty() {
        return Ok(placed);
    }
    let declared = &session.workspace.tasks[task];
    let diagnostics = differences
        .iter()
        .map(|(path, what)| {
            Diagnostic::error(format!("committed output `{}` {what}", declared.label.package.join(path)))
                .at(&declared.place, "made by this task")
                .help(way_out(session, &declared.label.to_string()))
        })
        .collect();
    let cause = format!("committed output `{}` is out of date", differences[0].0);
    let failure = Failure { cause, exit: None, diagnostics };
    Err(Settled::Mishap(Box::new(Mishap {
        failure,
        log: log.clone(),
        duration: started.elapsed(),
        attempts: 0,
        action: None,
        fault: Fault::Command,
        left: Listing::new(),
    })))
}

/// What a person does about a committed output that differs.
fn way_out(session: &Session<'_>, label: &str) -> String {
    match session.options.committed {
        Committed::Check => format!("`drystone run --fix {label}` writes it"),
        Committed::Fix => "it is not as git has it: remove it by hand, if nothing in it is needed".into(),
    }
}

/// Runs a task that missed. Only one process runs an action at a time; the others take its result.
///
/// `join` has its services up; it is called only if there is no result.
pub fn run(
    session: &Session<'_>,
    task: TaskId,
    sources: &Sources,
    missed: &Missed,
    join: &dyn Fn() -> Result<Held, Unready>,
) -> Ended {
    let started = Instant::now();
    let again;
    let prepared = match &missed.prepared {
        Some(ready) => &ready.prepared,
        None => match prepare(session, task, sources, &missed.dependencies) {
            Ok(prepared) => {
                again = prepared;
                &again
            }
            Err(problem) => return Ended::Failed(Box::new(mishap(problem, started, None))),
        },
    };
    let inspected = |ended| inspected(session, task, (prepared, &missed.dependencies), join, ended);
    let lost = match run_once(session, task, prepared, missed, join) {
        Ok(ended) => return inspected(ended),
        Err(lost) => lost,
    };
    // Content of the same digest was in the store already, and damaged. Without it, the next run puts its own.
    let files = lost.0.values().filter_map(|entry| match entry {
        Entry::File { digest, .. } => Some(*digest),
        Entry::Link { .. } | Entry::Dir => None,
    });
    let ended = match session.store.recheck(files) {
        Ok(()) => run_once(session, task, prepared, missed, join),
        Err(error) => return Ended::Failed(Box::new(store_mishap(session, task, &error, started))),
    };
    ended.map(inspected).unwrap_or_else(|_| {
        let problem = Diagnostic::error("the store lost what was just put into it")
            .help("check the disk; `drystone store verify` tells more");
        let mishap = mishap(problem, started, Some(prepared.key));
        Ended::Failed(Box::new(Mishap { fault: Fault::Machine, ..mishap }))
    })
}

/// Where a result comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It was there.
    Hit,
    /// It was made just now.
    New,
}

/// Whether somebody looks at this result.
fn is_inspected(session: &Session<'_>, task: TaskId, key: &Digest, standing: Standing) -> bool {
    let Some(inspector) = &session.options.inspecting.0 else { return false };
    let label = session.label(task);
    match standing {
        Standing::Hit => inspector.wants_hit(&label, key),
        Standing::New => inspector.wants_new(&label, key),
    }
}

/// Has a result looked at that is to be; what comes of that is said with it.
fn inspected(
    session: &Session<'_>,
    task: TaskId,
    prepared: (&Prepared, &[Dependency]),
    join: &dyn Fn() -> Result<Held, Unready>,
    ended: Ended,
) -> Ended {
    let Ended::Passed(mut success) = ended else { return ended };
    let standing = if success.source.is_some() { Standing::Hit } else { Standing::New };
    let inspector = session.options.inspecting.0.as_ref();
    let Some(inspector) = inspector.filter(|_| is_inspected(session, task, &success.action, standing)) else {
        return Ended::Passed(success);
    };
    match inspector.inspect(&Case::new((session, task), &success, prepared, join)) {
        Inspection::Done(notes) => {
            success.notes.extend(notes);
            Ended::Passed(success)
        }
        Inspection::Refused(problem) => {
            let (action, duration) = (Some(success.action), success.duration);
            Ended::Failed(Box::new(Mishap { duration, ..mishap(problem, Instant::now(), action) }))
        }
        Inspection::Cancelled => Ended::Cancelled(success.log),
    }
}

/// A result whose outputs cannot be put in place, because the store does not have what it was given.
struct Lost(Arc<Listing>);

fn run_once(
    session: &Session<'_>,
    task: TaskId,
    prepared: &Prepared,
    missed: &Missed,
    join: &dyn Fn() -> Result<Held, Unready>,
) -> Result<Ended, Lost> {
    let started = Instant::now();
    let cached = is_cached(session, task);
    let lock = match waiting::lock_action(session, &prepared.key) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(Ended::Cancelled(Vec::new())),
        Err(error) => return Ok(Ended::Failed(Box::new(store_mishap(session, task, &error, started)))),
    };
    if cached
        && missed.reuse == Reuse::Results
        && let Ok(Some(found)) = find(session, task, prepared)
        && let Ok(Some(hit)) = take(session, task, prepared, &found, started)
    {
        if let Some(memo) = missed.memo {
            recall::note(session, task, memo, &found, &hit, missed.history);
        }
        return Ok(Ended::Passed(Box::new(hit)));
    }
    if let Err(problem) = recall::secure(session, &missed.dependencies) {
        let mishap = Mishap { fault: Fault::Machine, ..mishap(problem, started, Some(prepared.key)) };
        return Ok(Ended::Failed(Box::new(mishap)));
    }
    if let Some(problem) = offline::refusal(session, task) {
        return Ok(Ended::Failed(Box::new(mishap(problem, started, Some(prepared.key)))));
    }
    let executed = match &session.workspace.tasks[task].kind {
        TaskKind::Run(run) => match (run.command.image(), join()) {
            (Some(recipe), _) => {
                let occasion = Occasion::Result(missed.reuse);
                image_task::execute(session, task, recipe, prepared, &missed.dependencies, occasion)
            }
            (None, Ok(services)) => execute::execute(session, task, run, prepared, &missed.dependencies, &services),
            (None, Err(unready)) => unready.into(),
        },
        TaskKind::Fetch(fetch) => fetch::execute(session, task, fetch),
        TaskKind::Service(_) => unreachable!("BUG: {} is a service, and no service misses", session.label(task)),
    };
    conclude(session, task, (prepared, missed.memo), executed, started, lock)
}

fn conclude(
    session: &Session<'_>,
    task: TaskId,
    (prepared, memo): (&Prepared, Option<Digest>),
    executed: Executed,
    started: Instant,
    lock: ActionLock,
) -> Result<Ended, Lost> {
    Ok(match executed {
        Executed::Cancelled { log } => Ended::Cancelled(log),
        Executed::Broken { problem, refused } => {
            let mut mishap = mishap(problem, started, Some(prepared.key));
            mishap.fault = if refused { Fault::Workspace } else { Fault::Machine };
            Ended::Failed(Box::new(mishap))
        }
        Executed::Failed { log, mut failure, duration, attempts, left } => {
            note(session, task, prepared.key, duration, true, 0);
            if let Err(error) = session.failures().keep(&session.label(task), &log) {
                tracing::debug!(%error, "what a failed command printed was not kept");
            }
            // An input that matches nothing may well be why.
            failure.diagnostics.extend(prepared.notes.iter().cloned());
            let action = Some(prepared.key);
            Ended::Failed(Box::new(Mishap { failure, log, duration, attempts, action, fault: Fault::Command, left }))
        }
        Executed::Passed(mut passed) => {
            let mut is_kept = false;
            let key = passed.keyed.as_ref().map_or(prepared.key, |keyed| keyed.key);
            if is_cached(session, task) && passed.storable {
                match execute::record(session, task, prepared, &passed, lock) {
                    // Where an earlier result has other outputs, that one stays.
                    Ok(recorded) => {
                        is_kept = !matches!(recorded, Recorded::Differs { .. });
                        // What an earlier run came to may be gone from the store, and still be known.
                        let differed = || session.store.came_out_otherwise(&key, &passed.outputs).unwrap_or(false);
                        if !is_kept || differed() {
                            session.note_unstable(task);
                        }
                    }
                    Err(error) => {
                        let label = session.label(task);
                        passed.notes.push(
                            Diagnostic::warning(format!("the result of `{label}` was not stored: {error}"))
                                .help("it runs again the next time"),
                        );
                    }
                }
            }
            if passed.storable && !is_cached(session, task) {
                enter(session, task, key, passed.outputs);
            }
            note(session, task, key, passed.duration, false, passed.usage.max_rss_kib);
            session.failures().forget(&session.label(task));
            let listing = Arc::new(passed.listing);
            let placed = match settle(session, task, &listing, started, &passed.log) {
                Ok(placed) => placed,
                Err(Settled::Mishap(mut mishap)) => {
                    mishap.action = Some(key);
                    mishap.attempts = passed.attempts;
                    return Ok(Ended::Failed(mishap));
                }
                Err(Settled::Vanished) => return Err(Lost(listing)),
                Err(Settled::Cancelled) => return Ok(Ended::Cancelled(passed.log)),
            };
            let made = Success {
                produced: Arc::new(Produced {
                    listing,
                    digest: passed.outputs,
                    unstable: session.unstable_by(task, &key),
                }),
                source: None,
                isolation: Some(prepared.action.isolation),
                log: passed.log,
                duration: passed.duration,
                saved: Duration::ZERO,
                attempts: passed.attempts,
                notes: [prepared.notes.clone(), passed.notes, placed.notes, session.unstable_note(task, &key)].concat(),
                materialized: placed.written,
                action: key,
            };
            if let Some(memo) = memo.filter(|_| is_kept) {
                recall::note_run(session, task, memo, &made);
            }
            Ended::Passed(Box::new(made))
        }
    })
}

/// Enters in the ledger what a task came to whose results are not kept.
fn enter(session: &Session<'_>, task: TaskId, action: Digest, outputs: Digest) {
    let (label, workspace) = (session.label(task), session.worktree());
    if let Err(error) = session.store.note_execution(Execution { action, outputs, label, workspace }) {
        tracing::debug!(%error, "an execution was not entered in the ledger");
    }
}

fn note(session: &Session<'_>, task: TaskId, action: Digest, duration: Duration, failed: bool, max_rss_kib: u64) {
    session.store.note_run(TaskRun {
        label: session.label(task),
        workspace: session.worktree(),
        action: Some(action),
        outcome: if failed { "failed" } else { "ran" },
        failed,
        duration_ms: duration.as_millis() as u64,
        max_rss_kib,
        at_ms: now_ms(),
    });
}

fn mishap(problem: Diagnostic, started: Instant, action: Option<Digest>) -> Mishap {
    let failure = Failure { cause: problem.message.clone(), exit: None, diagnostics: vec![problem] };
    Mishap {
        failure,
        log: Vec::new(),
        duration: started.elapsed(),
        attempts: 0,
        action,
        fault: Fault::Command,
        left: Listing::new(),
    }
}

fn store_mishap(session: &Session<'_>, task: TaskId, error: &StoreError, started: Instant) -> Mishap {
    let problem = Diagnostic::error(format!("the store failed `{}`: {error}", session.label(task)))
        .help("`drystone store verify` tells what is wrong with it");
    Mishap { fault: Fault::Machine, ..mishap(problem, started, None) }
}

fn restore_mishap(session: &Session<'_>, task: TaskId, error: RestoreError, started: Instant) -> Mishap {
    let declared = &session.workspace.tasks[task];
    let fault = if error.is_refusal() { Fault::Workspace } else { Fault::Machine };
    if let RestoreError::Refused(problems) = error {
        let cause = problems.first().map_or_else(String::new, |problem| problem.message.clone());
        let failure = Failure { cause, exit: None, diagnostics: problems };
        return Mishap { failure, fault, ..mishap(Diagnostic::error(""), started, None) };
    }
    let problem = Diagnostic::error(format!("outputs of `{}` could not be put in place: {error}", declared.label))
        .at(&declared.place, "declared here")
        .help(match fault {
            Fault::Workspace => "move what is in the way, or change `outputs`",
            Fault::Machine | Fault::Command => "see the path, its permissions and its disk, and run it again",
        });
    Mishap { fault, ..mishap(problem, started, None) }
}
