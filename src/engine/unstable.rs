//! Which tasks are known to come to different outputs, and what follows for those that need them. Finds none out by itself: the ledger does.
//!
//! A task that needs another is keyed by the other's outputs: what comes out the same stops the wave. That holds where an action has one
//! outcome. Of a task whose action came to several, equal bytes of two actions are chance: the sources may well differ, and another
//! build of the same may come to something else. So its action is in the keys of those that need it, beside the outputs. A
//! task is unstable as long as one of the actions it had lately is, but for actions of it that came to the same often enough (`store::ledger`): a
//! task that was mended and audited has the keys that it has on every other machine.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::ids::TaskId;
use crate::engine::session::{Session, held};
use crate::store;

/// Context of what stands for the parts of a split task. It is in keys.
const PARTS_CONTEXT: &str = "drystone 2026-11 unstable parts v1";

/// What one run knows of unstable tasks.
#[derive(Default)]
pub struct Unstable {
    /// Read when it is first asked for.
    known: OnceLock<store::Unstable>,
    /// Tasks of which this run found it out.
    met: Mutex<BTreeSet<TaskId>>,
    /// Tasks of which it was told.
    told: Mutex<BTreeSet<TaskId>>,
}

impl Session<'_> {
    /// The key of a task if the task is known to be unstable. Cost: the first time one `stat`, and where anything ever was unstable one
    /// query; later a lookup in memory.
    pub fn unstable_by(&self, task: TaskId, key: &Digest) -> Option<Digest> {
        self.is_unstable(task, key).then_some(*key)
    }

    /// Keeps in mind that a task just came to other outputs than before.
    pub fn note_unstable(&self, task: TaskId) {
        held(&self.unstable.met).insert(task);
    }

    /// What there is to say of a task, once in a run.
    pub fn unstable_note(&self, task: TaskId, key: &Digest) -> Vec<Diagnostic> {
        if !self.came_to_several(task, key) || !held(&self.unstable.told).insert(self.workspace.whole(task)) {
            return Vec::new();
        }
        let label = self.workspace.whole_label(task);
        let told = format!("`{label}` is not reproducible: the same came to different outputs");
        vec![Diagnostic::warning(told).help(format!("`drystone audit {label}` finds out why"))]
    }

    fn is_unstable(&self, task: TaskId, key: &Digest) -> bool {
        let known = self.known_unstable();
        (!known.is_empty() && known.holds(&self.label(task), key)) || held(&self.unstable.met).contains(&task)
    }

    /// Whether this very action came to several outputs. One of a task that was mended did not, however unstable the task was before.
    fn came_to_several(&self, task: TaskId, key: &Digest) -> bool {
        self.known_unstable().actions.contains(key) || held(&self.unstable.met).contains(&task)
    }

    fn known_unstable(&self) -> &store::Unstable {
        self.unstable.known.get_or_init(|| {
            if !self.store.has_unstable() {
                return store::Unstable::default();
            }
            // Without the ledger nothing is known to be unstable, as before anything was.
            self.store.unstable(&self.worktree()).unwrap_or_else(|error| {
                tracing::debug!(%error, "the ledger cannot be read");
                store::Unstable::default()
            })
        })
    }
}

/// What stands for the unstable ones among the parts of a task, given in the order of the parts.
pub fn together(parts: impl Iterator<Item = Digest>) -> Option<Digest> {
    let mut encoder = Encoder::new();
    for part in parts {
        encoder.digest(&part);
    }
    let bytes = encoder.into_vec();
    (!bytes.is_empty()).then(|| Digest::derived(PARTS_CONTEXT, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_which_none_is_unstable_stand_for_nothing() {
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        assert_eq!(together([].into_iter()), None);
        let both = together([one, other].into_iter());
        assert_ne!(both, together([one].into_iter()));
        assert_ne!(both, together([other, one].into_iter()));
    }
}
