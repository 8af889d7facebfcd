//! Observations of traced tasks: newest first, bounded, forgotten in time.

use crate::base::digest::Digest;
use crate::base::limits::PATH_SETS_PER_TASK;
use crate::store::PathSet;
use crate::store::tests::trial::{Trial, advance_clock};

fn set(number: usize) -> PathSet {
    let bytes = number.to_string().into_bytes();
    PathSet { observed: Digest::of(&bytes), paths: Digest::of(b"paths"), bytes }
}

#[test]
fn they_come_newest_first_and_the_oldest_go() {
    let trial = Trial::new();
    let store = trial.open();
    let (key, other) = (Digest::of(b"key"), Digest::of(b"other"));
    store.note_path_set(&other, &set(0));
    for number in 0..PATH_SETS_PER_TASK + 3 {
        advance_clock(1);
        store.note_path_set(&key, &set(number));
    }
    // Used again: the newest from now on.
    advance_clock(1);
    store.note_path_set(&key, &set(7));
    store.flush().expect("it is written");
    let found = store.path_sets(&key).expect("readable");
    assert_eq!((found.len(), &found[0], &found[1]), (PATH_SETS_PER_TASK, &set(7), &set(PATH_SETS_PER_TASK + 2)));
    assert_eq!(store.path_sets(&other).expect("readable"), [set(0)]);
    assert_eq!(store.observed(&set(7).observed).expect("readable"), Some(set(7).bytes));
    assert_eq!(store.observed(&set(1).observed).expect("readable"), None);
}
