//! Why a task runs: its fingerprint against the nearest earlier one. Reads the store, runs nothing.

use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::tree::Tree;
use crate::engine::event::MissReason;
use crate::engine::job::is_cached;
use crate::engine::prepare::Prepared;
use crate::engine::session::{Reuse, Session};
use crate::engine::traced;
use crate::fingerprint::explain::{Difference, differences};
use crate::fingerprint::sink::{Content, Field, RecordSink};
use crate::fingerprint::traced::Observed;

pub(super) fn reason(field: &'static str) -> MissReason {
    MissReason { field, name: String::new(), change: String::new() }
}

impl From<Difference> for MissReason {
    fn from(difference: Difference) -> Self {
        MissReason { field: difference.field, name: difference.name, change: difference.change }
    }
}

/// The reasons, most telling first; never empty.
///
/// Earlier fingerprints of this worktree and of others are compared; the one with the fewest differences tells, the newest
/// among equals. Cost: per fingerprint, the directories whose digests differ.
pub fn why(session: &Session<'_>, task: TaskId, prepared: &Prepared, reuse: Reuse) -> Vec<MissReason> {
    if reuse == Reuse::Nothing {
        return vec![reason("forced")];
    }
    if !is_cached(session, task) {
        return vec![reason("never-cached")];
    }
    if let Some(run) = traced::of(session, task) {
        match traced::changes(session, task, run, prepared) {
            Some(reasons) if reasons.is_empty() => {}
            Some(reasons) => return reasons,
            None => return vec![reason("result-gone")],
        }
    }
    let label = session.label(task);
    let earlier = session.store.recent_fingerprints(&label, &session.worktree()).unwrap_or_default();
    if earlier.is_empty() {
        return vec![reason("first-run")];
    }
    if earlier.iter().any(|(action, _)| *action == prepared.key) {
        // Same key, so nothing differs: the result itself is gone from the store.
        return vec![reason("result-gone")];
    }
    nearest(session, prepared, &earlier)
}

fn nearest(session: &Session<'_>, prepared: &Prepared, earlier: &[(Digest, Vec<u8>)]) -> Vec<MissReason> {
    let now = prepared.action.record();
    let load = |digest: &Digest| match prepared.trees.get(digest) {
        Some(bytes) => Tree::decode(bytes).ok(),
        None => session.store.tree(digest).ok().flatten(),
    };
    let told = earlier
        .iter()
        .filter_map(|(_, stream)| RecordSink::decode(stream).ok())
        .map(|was| differences(&was, &now, &load))
        .map(without_tracing)
        .filter(|differences| !differences.is_empty())
        .min_by_key(Vec::len);
    match told {
        Some(differences) => differences.into_iter().map(MissReason::from).collect(),
        None => vec![reason("first-run")],
    }
}

/// That what a task touches is not known yet is no reason where there is another.
fn without_tracing(mut differences: Vec<Difference>) -> Vec<Difference> {
    if differences.iter().any(|one| one.field != Field::Traced.word()) {
        differences.retain(|one| one.field != Field::Traced.word());
    }
    differences
}

/// What differs in what a traced task touched, if both observations are still kept.
fn touched(session: &Session<'_>, was: &RecordSink, is: &RecordSink) -> Vec<MissReason> {
    let observed = |record: &RecordSink| {
        let Content::One(digest) = record.get(Field::Traced) else { return None };
        let bytes = session.store.observed(&Digest::from_slice(digest)?).ok()??;
        Observed::decode(&bytes).ok()
    };
    match (observed(was), observed(is)) {
        (Some(was), Some(is)) => traced::reasons(&was, &is),
        _ => Vec::new(),
    }
}

/// What made the last execution of a task necessary: its two newest fingerprints compared. Empty if there is none.
pub fn last(session: &Session<'_>, task: TaskId) -> Vec<MissReason> {
    let label = session.label(task);
    let earlier = session.store.recent_fingerprints(&label, &session.worktree()).unwrap_or_default();
    let mut records = earlier.iter().filter_map(|(_, stream)| RecordSink::decode(stream).ok());
    match (records.next(), records.next()) {
        (Some(newest), Some(before)) => {
            let load = |digest: &Digest| session.store.tree(digest).ok().flatten();
            let mut reasons = touched(session, &before, &newest);
            let rest = differences(&before, &newest, &load).into_iter().map(MissReason::from);
            let told = !reasons.is_empty();
            reasons.extend(rest.filter(|one| !told || one.field != Field::Traced.word()));
            reasons
        }
        (Some(_), None) => vec![reason("first-run")],
        _ => Vec::new(),
    }
}
