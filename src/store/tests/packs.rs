//! Contents that share a frame: each is found by itself, none is kept because of another, and damage takes all of them and no more.

use rusqlite::Connection;

use crate::base::digest::Digest;
use crate::fs::ops;
use crate::store::content::{self, Key, Place};
use crate::store::tests::trial::{Trial, action, advance_clock, noise, put, record};
use crate::store::{Ahead, GcMode, GcOptions, GcReport, Store, VerifyMode, VerifyOptions};

const A: &[u8] = b"a text that several outputs share, with a word of its own: first";
const B: &[u8] = b"a text that several outputs share, with a word of its own: second";
const C: &[u8] = b"a text that several outputs share, with a word of its own: third";

fn collect(store: &Store, bytes_max: u64) -> GcReport {
    store.gc(GcOptions { mode: GcMode::Delete, bytes_max: Some(bytes_max), keep_days: None }).expect("collected")
}

fn place(store: &Store, bytes: &[u8]) -> Option<Place> {
    let find = |connection: &Connection| content::find(connection, &Key::blob(Digest::of(bytes)));
    store.database.read("look", find).expect("readable").map(|row| row.place)
}

fn bodies(store: &Store) -> i64 {
    let count = |connection: &Connection| {
        connection.query_row("SELECT count(*) FROM content_bytes", [], |row| row.get::<_, i64>(0))
    };
    store.database.read("count", count).expect("readable")
}

fn read(store: &Store, bytes: &[u8]) -> bool {
    let found = store.read(&Digest::of(bytes)).expect("no error");
    assert!(found.is_none() || found.as_deref() == Some(bytes));
    found.is_some()
}

fn is_whole(store: &Store) -> bool {
    let total = || store.database.read("read the usage", super::super::gc::used_bytes).expect("readable");
    let running = total();
    store.database.write("recount", &mut None, super::super::gc::recount).expect("writable");
    let stored = |connection: &Connection| {
        connection.query_row(
            "SELECT (SELECT total(stored) FROM content WHERE form <> 0) = (SELECT total(length(bytes)) FROM content_bytes)",
            [],
            |row| row.get::<_, bool>(0),
        )
    };
    let is_exact = store.database.read("compare", stored).expect("readable");
    is_exact && running == total() && store.verify(VerifyOptions { mode: VerifyMode::Report }).expect("read").is_sound()
}

#[test]
fn the_small_outputs_of_one_action_share_a_frame() {
    let trial = Trial::new();
    let store = trial.open();
    let big = noise("big", 160_000);
    record(&store, "a", &[("a", A), ("b", B), ("big", &big), ("empty", b""), ("again", A)]);
    for bytes in [A, B, &big, b""] {
        assert!(read(&store, bytes), "while it is queued");
    }
    store.flush().expect("written");
    let Some(Place::Packed(body, 0)) = place(&store, A) else { panic!("{:?}", place(&store, A)) };
    assert_eq!(place(&store, B), Some(Place::Packed(body, A.len() as u64)));
    assert_eq!(place(&store, &big), Some(Place::File));
    for bytes in [A, B, &big, b""] {
        assert!(read(&store, bytes));
    }
    assert!(is_whole(&store));
    drop(store);
    let wanted = [A, b"", B].map(|bytes| (Digest::of(bytes), bytes.len() as u64));
    let store = trial.open();
    let mut ahead = Ahead::new(&store, wanted.to_vec());
    for bytes in [A, b"", B] {
        assert_eq!(ahead.get(&Digest::of(bytes)).expect("readable"), Some(bytes));
    }
}

#[test]
fn reading_ahead_finds_what_is_still_queued() {
    let trial = Trial::new();
    let store = trial.open();
    put(&store, "a", &[("a", A), ("b", B)]);
    let mut ahead = Ahead::new(&store, [B, A].map(|bytes| (Digest::of(bytes), bytes.len() as u64)).to_vec());
    assert_eq!(ahead.get(&Digest::of(B)).expect("readable"), Some(B));
    assert_eq!(ahead.get(&Digest::of(A)).expect("readable"), Some(A));
}

#[test]
fn more_than_fits_into_one_frame_lies_in_several() {
    let trial = Trial::new();
    let store = trial.open();
    let all: Vec<Vec<u8>> = (0..20).map(|at| noise(&at.to_string(), 60_000)).collect();
    let names: Vec<String> = (0..20).map(|at| at.to_string()).collect();
    let files: Vec<(&str, &[u8])> =
        names.iter().zip(&all).map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    record(&store, "a", &files);
    store.flush().expect("written");
    // Eight in a frame, the trees of the result, and its log.
    assert_eq!(bodies(&store), 3 + 1 + 1);
    assert!(all.iter().all(|bytes| read(&store, bytes)) && is_whole(&store));
}

#[test]
fn what_is_there_is_not_put_again_and_outlives_the_action_it_came_from() {
    let trial = Trial::new();
    record(&trial.open(), "old", &[("a", A), ("b", B)]);
    advance_clock(1000);
    record(&trial.open(), "new", &[("b", B), ("c", C)]);
    advance_clock(1000);
    let store = trial.open();
    assert!(matches!(place(&store, C), Some(Place::Alone(_))), "alone there is nothing to share");
    assert!(store.lookup(&action("new")).expect("no error").is_some());
    drop(store);
    advance_clock(1000);
    let store = trial.open();
    let used = store.database.read("read the usage", super::super::gc::used_bytes).expect("readable");
    let report = collect(&store, used - 1);
    assert_eq!((report.results_removed, report.results_kept), (1, 1));
    assert!(!read(&store, A) && read(&store, B) && read(&store, C));
    assert!(matches!(place(&store, B), Some(Place::Packed(_, 0))), "packed anew, without what went");
    assert!(is_whole(&store) && store.lookup(&action("new")).expect("no error").is_some());
    drop(store);
    advance_clock(1000);
    let store = trial.open();
    collect(&store, 0);
    assert_eq!((bodies(&store), read(&store, B)), (0, false));
    assert!(is_whole(&store));
}

#[test]
fn a_damaged_frame_is_the_absence_of_all_in_it_and_of_nothing_else() {
    // What of it is damaged: all, or the literals of the last one.
    for spoil in ["x'28B52FFD'", "substr(bytes, 1, length(bytes) - 4) || x'00000000'"] {
        let trial = Trial::new();
        record(&trial.open(), "a", &[("a", A), ("b", B)]);
        record(&trial.open(), "other", &[("c", C)]);
        let database = Connection::open(trial.store_dir().join("store.db")).expect("readable");
        let sql = format!(
            "UPDATE content_bytes SET bytes = CAST({spoil} AS BLOB) WHERE id = (SELECT body FROM content WHERE digest = ?1)"
        );
        assert_eq!(database.execute(&sql, [Digest::of(A).as_bytes()]).expect("writable"), 1);
        drop(database);
        let store = trial.open();
        let damaged = store.verify(VerifyOptions { mode: VerifyMode::Report }).expect("read").damaged_blobs;
        assert!(damaged.contains(&Digest::of(B)), "{spoil}");
        assert!(!read(&store, B) && read(&store, C), "{spoil}");
        assert_eq!(read(&store, A), !damaged.contains(&Digest::of(A)), "{spoil}");
        store.flush().expect("written");
        assert_eq!(place(&store, B), None, "{spoil}");
        assert_eq!(store.lookup(&action("a")).expect("no error"), None, "{spoil}");
        assert!(store.lookup(&action("other")).expect("no error").is_some(), "{spoil}");
        record(&store, "a", &[("a", A), ("b", B)]);
        store.flush().expect("written");
        assert!(read(&store, A) && read(&store, B) && is_whole(&store), "{spoil}");
    }
}

#[test]
fn a_content_that_is_discarded_is_no_longer_in_the_frame() {
    let trial = Trial::new();
    let store = trial.open();
    record(&store, "a", &[("a", A), ("b", B), ("c", C)]);
    store.flush().expect("written");
    store.discard(&Digest::of(B)).expect("it can be");
    store.flush().expect("written");
    assert!(read(&store, A) && !read(&store, B) && read(&store, C));
    assert_eq!(
        place(&store, C).map(|place| matches!(place, Place::Packed(_, start) if start == A.len() as u64)),
        Some(true)
    );
    assert!(store.lookup(&action("a")).expect("no error").is_none());
}

#[test]
fn two_sessions_that_put_the_same_share_it() {
    let trial = Trial::new();
    let (one, other) = (trial.open(), trial.open());
    record(&one, "a", &[("a", A), ("b", B)]);
    record(&other, "b", &[("b", B), ("c", C)]);
    one.flush().expect("written");
    other.flush().expect("written");
    assert!(read(&one, A) && read(&other, B) && read(&one, C));
    assert!(is_whole(&one), "what was there is not kept twice");
}

#[test]
fn packed_contents_are_carried_elsewhere() {
    let trial = Trial::new();
    let store = trial.open();
    record(&store, "a", &[("a", A), ("b", B)]);
    let file = trial.path().join("archive");
    assert_eq!(store.export(&[action("a")], &file).expect("written").blobs, 3);
    let elsewhere = Trial::new();
    let other = elsewhere.open();
    assert_eq!(other.import(&file).expect("readable").results, 1);
    assert!(read(&other, A) && read(&other, B) && is_whole(&other));
}

#[test]
fn a_store_of_the_version_before_is_read_as_it_was() {
    let trial = Trial::new();
    let file = noise("file", 160_000);
    let store = trial.open();
    record(&store, "a", &[("a", A), ("file", &file)]);
    drop(store);
    let database = Connection::open(trial.store_dir().join("store.db")).expect("readable");
    let first = include_str!("../../../schema/sql/0001_init.sql");
    let table = |name: &str| {
        let start = first.find(&format!("CREATE TABLE {name} (")).expect("it is there");
        &first[start..start + first[start..].find(';').expect("it ends") + 1]
    };
    database
        .execute_batch(&format!(
            "ALTER TABLE content RENAME TO newer; {} DROP TABLE unstable; DROP TABLE ledger; {} \
             INSERT INTO content SELECT coalesce(body, 1000 + row_number() OVER ()), kind, digest, size, stored, form, last_used_ms \
             FROM newer WHERE form <> 3; DROP TABLE newer; UPDATE meta SET value = '2' WHERE name = 'schema'; \
             PRAGMA user_version = 2;",
            table("content"),
            table("ledger"),
        ))
        .expect("writable");
    drop(database);
    let store = trial.open();
    assert!(store.notices().is_empty(), "{:?}", store.notices());
    assert!(read(&store, A) && read(&store, &file), "as it was");
    assert!(ops::exists(&super::trial::content_file(&store, "blobs", &Digest::of(&file))));
    record(&store, "b", &[("b", B), ("c", C)]);
    store.flush().expect("written");
    assert!(read(&store, B) && read(&store, C));
}
