//! Hits that need no store: a task that stood when the last run ended, of which nothing changed since and whose outputs are as they were.
//!
//! The memo of a task is the digest of its action, walked by the visitor of all keys, with the digest of its flat inputs where the
//! digest of the input tree belongs: source files as they are listed, and of each dependency where its outputs lie, which of them
//! are seen and the digest of their tree. The encodings are injective, so equal memos have equal fields and equal inputs, which fold into
//! equal trees: equal memos have equal keys. That the result of the key is in the store is as true as when it was noted while the mark of the
//! store stays. Outputs are compared with the disk each time, as for any other hit.
//!
//! Not for traced tasks, parts of split ones, those with committed outputs and those whose results are not kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::ids::TaskId;
use crate::base::tree::{Entry, fold};
use crate::engine::event::ResultSource;
use crate::engine::execute::now_ms;
use crate::engine::job::{Found, Success, is_cached};
use crate::engine::log;
use crate::engine::prepare::{Dependency, Draft, Produced, in_workspace};
use crate::engine::restore;
use crate::engine::session::{Session, held};
use crate::engine::sources::Sources;
use crate::engine::standing::{KeptLog, Stood, encode_listing};
use crate::manifest::model::{Inputs, TaskKind};
use crate::sandbox::spec::Level;
use crate::store::{History, StoreError};

/// Context of digests of flat inputs; they never leave the machine.
const INPUTS_CONTEXT: &str = "drystone 2026-11 flat inputs v1";

/// The memo of a task; `None` if it can only be looked up. Cost: one digest over the names and digests of its inputs.
pub fn memo(
    session: &Session<'_>,
    task: TaskId,
    draft: &mut Draft,
    sources: &Sources,
    dependencies: &[Dependency],
) -> Option<Digest> {
    let is_simple = match &session.workspace.tasks[task].kind {
        TaskKind::Run(run) => !matches!(run.inputs, Inputs::Traced) && run.committed.is_empty(),
        TaskKind::Fetch(_) => true,
        TaskKind::Service(_) => false,
    };
    let is_part = session.workspace.split_of(task).is_some() || sources.shared.is_some();
    if !session.standing.is_open() || !is_simple || is_part || !is_cached(session, task) {
        return None;
    }
    let inputs = flat_inputs(session, sources, dependencies)?;
    Some(draft.action_with(inputs).key().0)
}

fn flat_inputs(session: &Session<'_>, sources: &Sources, dependencies: &[Dependency]) -> Option<Digest> {
    let mut encoder = Encoder::new();
    encode_listing(&mut encoder, &sources.listing);
    // In their order: of two that make the same path, the later one is seen.
    for dependency in in_workspace(dependencies) {
        encoder.bytes(session.package(dependency.task).as_str().as_bytes()).digest(&dependency.produced.digest);
        encoder.u8(u8::from(dependency.interface_only));
        if dependency.interface_only {
            if session.workspace.split_of(dependency.task).is_some() {
                return None;
            }
            let items = match &session.workspace.tasks[dependency.task].kind {
                TaskKind::Run(run) => &*run.interface.items,
                TaskKind::Fetch(_) | TaskKind::Service(_) => &[],
            };
            let is_run = matches!(session.workspace.tasks[dependency.task].kind, TaskKind::Run(_));
            encoder.u8(u8::from(is_run)).u64(items.len() as u64);
            for item in items {
                encoder.u8(u8::from(item.exclude)).bytes(item.pattern.text.as_bytes());
            }
        }
    }
    Some(Digest::derived(INPUTS_CONTEXT, encoder.as_slice()))
}

/// The hit of a task that stands. `None` if it may not, and has to be looked up.
pub fn recall(
    session: &Session<'_>,
    task: TaskId,
    memo: &Digest,
    sources: &Sources,
    history: History,
    started: Instant,
) -> Option<Success> {
    let label = session.label(task);
    let stood = session.standing.get(&label).filter(|stood| stood.memo == *memo)?;
    if !restore::is_in_place(session, task, &stood.listing) {
        return None;
    }
    let log = match &stood.log {
        KeptLog::Here(bytes) => log::decode(bytes).ok()?,
        KeptLog::Stored(blob) => log::decode(&session.store.read(blob).ok()??).ok()?,
    };
    session.standing.note_use(&label, &stood, now_ms());
    held(&session.recalled).insert(task, Arc::clone(&stood));
    if stood.history.is_none() {
        // It has not run since what is known of it was asked for.
        session.standing.note(label, Stood { history: Some(history), ..Stood::clone(&stood) });
    }
    let notes = match &session.workspace.tasks[task].kind {
        TaskKind::Run(_) | TaskKind::Service(_) => sources.all_warnings(),
        TaskKind::Fetch(_) => Vec::new(),
    };
    let notes = notes.into_iter().chain(session.unstable_note(task, &stood.key)).collect();
    let (listing, digest) = (Arc::clone(&stood.listing), stood.outputs);
    let unstable = session.unstable_by(task, &stood.key);
    Some(Success {
        produced: Arc::new(Produced { listing, digest, unstable }),
        source: Some(ResultSource::Local),
        isolation: Level::parse(&stood.isolation),
        log,
        duration: started.elapsed(),
        saved: Duration::from_millis(stood.duration_ms),
        attempts: 0,
        notes,
        materialized: false,
        action: stood.key,
    })
}

/// Keeps in mind that a task stands: its result was found in the store, and its outputs are in place.
pub fn note(session: &Session<'_>, task: TaskId, memo: Digest, found: &Found, hit: &Success, history: History) {
    let stood = Stood {
        memo,
        key: found.key,
        outputs: found.result.outputs,
        listing: Arc::clone(&hit.produced.listing),
        log: KeptLog::of(log::encode(&hit.log), found.result.stdout_stderr),
        isolation: found.result.isolation.clone(),
        duration_ms: found.result.duration_ms,
        history: Some(history),
        used_ms: now_ms(),
    };
    session.standing.note(session.label(task), stood);
}

/// The same of a task that ran: its result was recorded, and its outputs were put in place. Saved only once the store has written what was
/// recorded.
pub fn note_run(session: &Session<'_>, task: TaskId, memo: Digest, made: &Success) {
    let log = log::encode(&made.log);
    let blob = Digest::of(&log);
    let stood = Stood {
        memo,
        key: made.action,
        outputs: made.produced.digest,
        listing: Arc::clone(&made.produced.listing),
        log: KeptLog::of(log, blob),
        isolation: made.isolation.map_or_else(String::new, |level| level.word().to_owned()),
        duration_ms: made.duration.as_millis() as u64,
        history: None,
        used_ms: now_ms(),
    };
    session.standing.note(session.label(task), stood);
}

/// Before something runs that needs these: sees that the store has, and keeps, the outputs of those that were not looked up.
///
/// Another process may have collected a result that nobody seemed to use. Its outputs lie in the tree: from there they are put back.
pub fn secure(session: &Session<'_>, dependencies: &[Dependency]) -> Result<(), Diagnostic> {
    for dependency in dependencies {
        let Some(stood) = held(&session.recalled).get(&dependency.task).cloned() else { continue };
        let secured = secure_one(session, dependency.task, &stood);
        secured.map_err(|cause| {
            let label = session.label(dependency.task);
            Diagnostic::error(format!(
                "the store lost the outputs of `{label}`, and those in the tree are of no use: {cause}"
            ))
            .help("run it again")
        })?;
        held(&session.recalled).remove(&dependency.task);
    }
    Ok(())
}

fn secure_one(session: &Session<'_>, task: TaskId, stood: &Stood) -> Result<(), String> {
    let told = |error: StoreError| error.to_string();
    if session.store.lookup(&stood.key).map_err(told)?.is_some_and(|result| result.outputs == stood.outputs) {
        return Ok(());
    }
    let package = session.package(task);
    for (path, entry) in stood.listing.iter() {
        let Entry::File { digest, .. } = entry else { continue };
        let full = package.join(path);
        let (put, _) = session.store.put_file(&session.workspace.root.join(full.as_str())).map_err(told)?;
        if put != *digest {
            return Err(format!("`{full}` has changed"));
        }
    }
    session.store.put_trees(&fold(&stood.listing)).map_err(told)
}
