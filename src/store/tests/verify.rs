//! Verification tells everything that is wrong, changes nothing unless asked, and leaves a sound store when asked.

use crate::base::digest::Digest;
use crate::fs::ops;
use crate::store::tests::trial::{Trial, action, content_file, noise, record};
use crate::store::{VerifyMode, VerifyOptions};

const REPORT: VerifyOptions = VerifyOptions { mode: VerifyMode::Report };
const REPAIR: VerifyOptions = VerifyOptions { mode: VerifyMode::Repair };

#[test]
fn a_sound_store_is_sound() {
    let trial = Trial::new();
    let store = trial.open();
    assert!(store.verify(REPORT).expect("readable").is_sound());
    record(&store, "a", &[("big", &noise("big", 160_000)), ("small", b"s")]);
    let report = store.verify(REPAIR).expect("readable");
    assert!(report.is_sound() && report.orphans.is_empty());
    assert_eq!((report.contents, report.results), (4, 1));
    assert!(store.lookup(&action("a")).expect("no error").is_some());
}

#[test]
fn what_is_bad_is_told_and_dropped_only_when_asked() {
    let trial = Trial::new();
    let big = noise("big", 160_000);
    let store = trial.open();
    record(&store, "good", &[("x", b"x")]);
    record(&store, "file", &[("big", &big)]);
    record(&store, "inline", &[("y", b"y")]);
    record(&store, "row", &[("z", b"z")]);
    store.flush().expect("written");
    let mut bad = big.clone();
    bad[7] ^= 1;
    let file = content_file(&store, "blobs", &Digest::of(&big));
    ops::set_mode(&file, 0o644).expect("ours");
    ops::write(&file, &bad).expect("writable");
    let orphan = content_file(&store, "blobs", &Digest::of(b"orphan"));
    ops::create_dir_all(orphan.parent().expect("a shard")).expect("writable");
    ops::write(&orphan, b"orphan").expect("writable");
    let database = rusqlite::Connection::open(trial.store_dir().join("store.db")).expect("readable");
    let spoil = "UPDATE content_bytes SET bytes = x'00' WHERE id = (SELECT body FROM content WHERE digest = ?1)";
    database.execute(spoil, [Digest::of(b"y").as_bytes()]).expect("writable");
    database.execute("UPDATE result SET exit = 3 WHERE action = ?1", [action("row").as_bytes()]).expect("writable");

    let first = store.verify(REPORT).expect("readable");
    let mut blobs = [Digest::of(&big), Digest::of(b"y")];
    blobs.sort();
    let mut dangling = [action("file"), action("inline"), action("row")];
    dangling.sort();
    assert_eq!(first.damaged_blobs, blobs);
    assert_eq!(first.dangling, dangling);
    assert_eq!(first.orphans, [Digest::of(b"orphan")]);
    assert!(!first.is_sound() && !first.repaired && ops::exists(&file) && ops::exists(&orphan));
    assert_eq!(store.verify(REPORT).expect("readable"), first, "looking changes nothing");

    let repaired = store.verify(REPAIR).expect("writable");
    assert_eq!((repaired.dangling, repaired.damaged_blobs), (first.dangling, first.damaged_blobs));
    let after = store.verify(REPORT).expect("readable");
    assert!(after.is_sound() && after.orphans.is_empty(), "{after:?}");
    assert!(store.lookup(&action("good")).expect("no error").is_some());
}

#[test]
fn a_database_that_contradicts_itself_is_rebuilt_when_asked() {
    let trial = Trial::new();
    let big = noise("big", 160_000);
    let store = trial.open();
    record(&store, "a", &[("big", &big)]);
    store.flush().expect("written");
    let database = rusqlite::Connection::open(trial.store_dir().join("store.db")).expect("readable");
    database
        .execute_batch("PRAGMA ignore_check_constraints = ON; UPDATE content SET stored = -5 WHERE form = 0")
        .expect("writable");
    drop(database);
    drop(store);
    let store = trial.open();
    assert!(!store.verify(REPORT).expect("readable").database.is_empty());
    assert!(store.verify(REPAIR).expect("writable").repaired);
    assert!(store.verify(REPORT).expect("readable").is_sound());
    assert_eq!(store.read(&Digest::of(&big)).expect("no error"), Some(big));
    assert_eq!(store.notices().len(), 1);
}
