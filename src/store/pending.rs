//! What is queued for the writer and not committed yet, so that this process sees it at once. Knows no SQL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::base::digest::Digest;
use crate::store::content::{Body, Key};
use crate::store::locks::hold;
use crate::store::packs::Pack;
use crate::store::results::Recording;

/// What is queued about one content.
#[derive(Clone, Debug)]
pub(super) enum QueuedContent {
    /// It is being added.
    Put {
        /// Bytes of the content.
        size: u64,
        /// The content itself.
        body: Arc<Body>,
    },
    /// It is being added with others.
    Packed {
        /// Bytes of the content.
        size: u64,
        /// Where it begins in the unpacked pack.
        start: u64,
        /// All of them.
        pack: Arc<Pack>,
    },
    /// It was found damaged and is being removed.
    Drop,
}

/// What is queued about one action.
#[derive(Clone, Debug)]
pub(super) enum QueuedResult {
    /// Its result is being added.
    Record(Arc<Recording>),
    /// Its result was found incomplete and is being removed.
    Forget,
}

/// Everything queued, by name. Each entry carries the number of the job that put it there.
#[derive(Debug, Default)]
pub(super) struct Pending {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    contents: HashMap<Key, (u64, QueuedContent)>,
    results: HashMap<Digest, (u64, QueuedResult)>,
    /// How many changes of what is remembered of a task are queued.
    labels: HashMap<String, usize>,
}

impl Pending {
    /// What is queued about a content.
    pub fn content(&self, key: &Key) -> Option<QueuedContent> {
        hold(&self.state).contents.get(key).map(|(_, queued)| queued.clone())
    }

    /// What is queued about an action.
    pub fn result(&self, action: &Digest) -> Option<QueuedResult> {
        hold(&self.state).results.get(action).map(|(_, queued)| queued.clone())
    }

    /// Notes a content; returns the number for [`Pending::settle_content`].
    pub fn note_content(&self, key: Key, queued: QueuedContent) -> u64 {
        let mut state = hold(&self.state);
        state.last += 1;
        let number = state.last;
        state.contents.insert(key, (number, queued));
        number
    }

    /// Notes the contents of a pack; returns the number for [`Pending::settle_pack`].
    pub fn note_pack(&self, pack: &Arc<Pack>) -> u64 {
        let mut state = hold(&self.state);
        state.last += 1;
        let number = state.last;
        for member in &pack.members {
            let queued = QueuedContent::Packed { size: member.size, start: member.start, pack: Arc::clone(pack) };
            state.contents.insert(member.key, (number, queued));
        }
        number
    }

    /// Forgets the committed contents of a pack unless something newer is queued about them.
    pub fn settle_pack(&self, pack: &Pack, number: u64) {
        pack.members.iter().for_each(|member| self.settle_content(&member.key, number));
    }

    /// Notes an action; returns the number for [`Pending::settle_result`].
    pub fn note_result(&self, action: Digest, queued: QueuedResult) -> u64 {
        let mut state = hold(&self.state);
        state.last += 1;
        let number = state.last;
        state.results.insert(action, (number, queued));
        number
    }

    /// Whether something is queued that changes what is remembered of the task of this label, in any workspace.
    pub fn has_label(&self, label: &str) -> bool {
        hold(&self.state).labels.contains_key(label)
    }

    /// Notes such a change.
    pub fn note_label(&self, label: &str) {
        let mut state = hold(&self.state);
        match state.labels.get_mut(label) {
            Some(count) => *count += 1,
            None => drop(state.labels.insert(label.to_owned(), 1)),
        }
    }

    /// Forgets one that was committed. Of one that could not be, it stays known: who asks then waits for nothing.
    pub fn settle_label(&self, label: &str) {
        let mut state = hold(&self.state);
        let Some(count) = state.labels.get_mut(label) else { return };
        *count -= 1;
        if *count == 0 {
            state.labels.remove(label);
        }
    }

    /// Forgets a committed content unless something newer is queued about it.
    pub fn settle_content(&self, key: &Key, number: u64) {
        let mut state = hold(&self.state);
        if state.contents.get(key).is_some_and(|(held, _)| *held == number) {
            state.contents.remove(key);
        }
    }

    /// Forgets a committed action unless something newer is queued about it.
    pub fn settle_result(&self, action: &Digest, number: u64) {
        let mut state = hold(&self.state);
        if state.results.get(action).is_some_and(|(held, _)| *held == number) {
            state.results.remove(action);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_known_until_all_that_was_queued_for_it_is_written() {
        let pending = Pending::default();
        pending.note_label("//:a");
        pending.note_label("//:a");
        pending.note_label("//:b");
        pending.settle_label("//:a");
        assert!(pending.has_label("//:a") && pending.has_label("//:b") && !pending.has_label("//:c"));
        pending.settle_label("//:a");
        pending.settle_label("//:c");
        assert!(!pending.has_label("//:a") && pending.has_label("//:b"));
    }
}
