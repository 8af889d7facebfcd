//! Why a task runs: its fingerprint against the nearest earlier one. Reads the store, runs nothing.

use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::tree::Tree;
use crate::engine::event::MissReason;
use crate::engine::job::is_cached;
use crate::engine::prepare::Prepared;
use crate::engine::session::{Reuse, Session};
use crate::fingerprint::explain::{Difference, differences};
use crate::fingerprint::sink::RecordSink;

fn reason(field: &'static str) -> MissReason {
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
    let load = |digest: &Digest| match prepared.trees.trees.get(digest) {
        Some(bytes) => Tree::decode(bytes).ok(),
        None => session.store.tree(digest).ok().flatten(),
    };
    let told = earlier
        .iter()
        .filter_map(|(_, stream)| RecordSink::decode(stream).ok())
        .map(|was| differences(&was, &now, &load))
        .filter(|differences| !differences.is_empty())
        .min_by_key(Vec::len);
    match told {
        Some(differences) => differences.into_iter().map(MissReason::from).collect(),
        None => vec![reason("first-run")],
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
            differences(&before, &newest, &load).into_iter().map(MissReason::from).collect()
        }
        (Some(_), None) => vec![reason("first-run")],
        _ => Vec::new(),
    }
}
