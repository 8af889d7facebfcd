//! What becomes of the log of the database when a store is closed and opened.

use crate::base::digest::Digest;
use crate::fs::ops;
use crate::store::Store;
use crate::store::tests::trial::{Trial, action, noise, record};

/// So much that the log of what one test records is a small part of it.
const FILES: usize = 150;

fn content(number: usize) -> Vec<u8> {
    noise(&number.to_string(), 60_000)
}

/// A store with a database of some megabytes.
fn filled() -> Trial {
    let trial = Trial::new();
    let store = trial.open();
    for number in 0..FILES {
        store.put_bytes(&content(number)).expect("it can be stored");
    }
    drop(store);
    trial
}

fn log_bytes(trial: &Trial) -> Option<u64> {
    ops::metadata(&trial.store_dir().join("store.db-wal")).ok().map(|meta| meta.len())
}

fn has(store: &Store, name: &str) -> bool {
    store.lookup(&action(name)).expect("no error").is_some()
}

#[test]
fn a_long_log_is_written_back_and_a_short_one_is_left_to_who_opens_next() {
    let trial = filled();
    assert_eq!(log_bytes(&trial), None, "all that was put lies in the log, which is longer than the database");
    for number in 0..3 {
        record(&trial.open(), &number.to_string(), &[("a", b"a")]);
        assert!(log_bytes(&trial).is_some_and(|bytes| bytes > 0), "{number}");
        let store = trial.open();
        assert!((0..=number).all(|number| has(&store, &number.to_string())), "{number}");
    }
    // Looking alone leaves it as it is.
    let before = log_bytes(&trial);
    assert!(trial.open().read(&Digest::of(&content(0))).expect("no error").is_some());
    assert_eq!(log_bytes(&trial), before);
    let store = trial.open();
    for number in FILES..FILES + 50 {
        store.put_bytes(&content(number)).expect("it can be stored");
    }
    drop(store);
    assert_eq!(log_bytes(&trial), None, "what was put is too much to be left");
    assert!((0..3).all(|number| has(&trial.open(), &number.to_string())));
}

#[test]
fn what_opens_and_looks_writes_nothing() {
    let trial = filled();
    let database = trial.store_dir().join("store.db");
    let times = || ops::metadata(&database).expect("it is there").modified().expect("it has one");
    let before = times();
    assert!(trial.open().read(&Digest::of(&content(0))).expect("no error").is_some());
    assert_eq!((times(), log_bytes(&trial)), (before, None));
}

#[test]
fn a_log_that_was_left_is_written_back_early_where_use_is_expected() {
    let trial = filled();
    let store = trial.open();
    for number in FILES..FILES + 12 {
        store.put_bytes(&content(number)).expect("it can be stored");
    }
    drop(store);
    let left = log_bytes(&trial).expect("it is short enough to be left");
    let store = trial.open();
    store.expect_use();
    store.flush().expect("the writer answers");
    assert_eq!(log_bytes(&trial), Some(0), "of {left} bytes");
    let digest = Digest::of(&content(FILES));
    assert!(store.read(&digest).expect("no error").is_some());
    drop(store);
    assert!(trial.open_read_only().read(&digest).expect("no error").is_some());
}

#[test]
fn a_read_only_store_has_what_is_in_a_log_that_was_left() {
    let trial = filled();
    record(&trial.open(), "build", &[("a", b"a")]);
    assert!(log_bytes(&trial).is_some_and(|bytes| bytes > 0));
    assert!(has(&trial.open_read_only(), "build"));
}
