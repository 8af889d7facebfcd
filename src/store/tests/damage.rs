//! Damage of every kind: at worst something is absent, never wrong, and the store works afterwards.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::digest::Digest;
use crate::fs::dir::Dir;
use crate::fs::ops;
use crate::store::content::{self, Key};
use crate::store::tests::trial::{Trial, action, content_file, noise, put, record};
use crate::store::{Store, VerifyMode, VerifyOptions};

/// Writes over a file in place, as a bad disk would: the store's own functions never do.
fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    ops::open_read_write(path).expect("ours").write_all_at(bytes, at).expect("writable");
}

fn truncate(path: &Path, length: u64) {
    ops::open_read_write(path).expect("ours").set_len(length).expect("writable");
}

/// Replaces a read-only file in place.
fn replace(path: &Path, bytes: &[u8]) {
    ops::set_mode(path, 0o644).expect("ours");
    ops::write(path, bytes).expect("writable");
}

/// After any damage: what is found is right.
fn assert_right(store: &Store, files: &[(&str, &[u8])]) {
    if let Some(found) = store.lookup(&action("build")).expect("damage is no error") {
        let listing = store.listing(&found.outputs).expect("no error").expect("a result that was found is whole");
        assert_eq!(listing.len(), files.len());
        assert_eq!((found.exit, found.duration_ms, found.label.as_str()), (0, 12, "//:build"));
    }
    for (_, bytes) in files {
        if let Some(read) = store.read(&Digest::of(bytes)).expect("damage is no error") {
            assert_eq!(&read, bytes);
        }
    }
}

/// After any damage: what is found is right, and everything can be stored anew.
fn assert_works(store: &Store, files: &[(&str, &[u8])]) {
    assert_right(store, files);
    let result = put(store, "build", files);
    store.record(result.clone(), b"f").expect("it can be recorded");
    store.flush().expect("it can be written");
    let found = store.lookup(&action("build")).expect("no error").expect("it was recorded just now");
    assert_eq!(found.outputs, result.outputs);
    for (_, bytes) in files {
        assert_eq!(store.read(&Digest::of(bytes)).expect("readable").as_deref(), Some(*bytes));
    }
}

#[test]
fn every_flipped_byte_of_a_blob_file_makes_it_absent() {
    let trial = Trial::new();
    let bytes = noise("big", 8200);
    let store = trial.open();
    let to = trial.path().join("to");
    let (dir, name) = Dir::above(&to).expect("a directory");
    let from = trial.path().join("from");
    ops::write(&from, &bytes).expect("writable");
    let (digest, _) = store.put_file_apart(&from).expect("it can be put");
    let file = content_file(&store, "blobs", &digest);
    for position in 0..bytes.len() {
        store.put_file_apart(&from).expect("it can be put");
        let mut bad = bytes.clone();
        bad[position] ^= 1;
        replace(&file, &bad);
        if position % 2 == 0 {
            assert_eq!(store.read(&digest).expect("no error"), None, "{position}");
        } else {
            assert!(!store.write_to(&digest, bytes.len() as u64, (&dir, name), false).expect("no error"), "{position}");
            assert!(!ops::exists(&to), "{position}");
        }
        assert!(!ops::exists(&file), "{position}");
        assert!(!store.contains(&digest).expect("no error"), "{position}");
    }
    store.put_bytes(&bytes).expect("it can be put");
    assert_eq!(store.read(&digest).expect("no error"), Some(bytes));
}

#[test]
fn a_truncated_or_missing_file_makes_its_result_a_miss() {
    for length in [None, Some(0), Some(1), Some(8191), Some(19_999), Some(20_001)] {
        let trial = Trial::new();
        let big = noise("big", 160_000);
        let files: [(&str, &[u8]); 2] = [("a", b"a"), ("big", &big)];
        record(&trial.open(), "build", &files);
        let store = trial.open();
        let file = content_file(&store, "blobs", &Digest::of(&big));
        ops::set_mode(&file, 0o644).expect("ours");
        match length {
            Some(length) => truncate(&file, length),
            None => ops::remove_file(&file).expect("ours"),
        }
        assert_eq!(store.lookup(&action("build")).expect("no error"), None, "{length:?}");
        assert_eq!(store.read(&Digest::of(&big)).expect("no error"), None, "{length:?}");
        assert_works(&store, &files);
    }
}

#[test]
fn damaged_content_inside_the_database_is_absent() {
    let trial = Trial::new();
    let files: [(&str, &[u8]); 2] = [("a", b"plain"), ("b", &[b'b'; 5000])];
    record(&trial.open(), "build", &files);
    let database = rusqlite::Connection::open(trial.store_dir().join("store.db")).expect("readable");
    database.execute("UPDATE content_bytes SET bytes = CAST(x'00' || bytes AS BLOB)", []).expect("writable");
    drop(database);
    let store = trial.open();
    for (_, bytes) in files {
        assert_eq!(store.read(&Digest::of(bytes)).expect("no error"), None);
    }
    assert_eq!(store.lookup(&action("build")).expect("no error"), None, "its tree is damaged too");
    assert_works(&store, &files);
}

#[test]
fn a_changed_result_row_is_no_result() {
    for change in ["exit = 1", "isolation = 'namespaceS'", "duration_ms = 13", "label = '//:other'", "seal = x'00'"] {
        let trial = Trial::new();
        let files: [(&str, &[u8]); 1] = [("a", b"a")];
        record(&trial.open(), "build", &files);
        let database = rusqlite::Connection::open(trial.store_dir().join("store.db")).expect("readable");
        database.execute(&format!("UPDATE result SET {change}"), []).expect("writable");
        drop(database);
        let store = trial.open();
        assert_eq!(store.lookup(&action("build")).expect("no error"), None, "{change}");
        assert_works(&store, &files);
    }
}

#[test]
fn a_damaged_database_is_set_aside_and_the_files_are_found_again() {
    let big = noise("big", 160_000);
    let files: [(&str, &[u8]); 2] = [("a", b"a"), ("big", &big)];
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("garbage", |path| ops::write(path, &noise("garbage", 50_000)).expect("writable")),
        ("text", |path| ops::write(path, b"not a database").expect("writable")),
        ("garbled header", |path| overwrite(path, 0, b"SQLite formaX 3\0")),
        ("garbled schema", |path| overwrite(path, 100, &[0xff; 300])),
        ("another program's", |path| {
            ops::remove_file(path).expect("ours");
            let other = rusqlite::Connection::open(path).expect("writable");
            other.execute_batch("CREATE TABLE meta (x); PRAGMA application_id = 5").expect("writable");
        }),
        ("everything but the header", |path| {
            let length = ops::metadata(path).expect("it is there").len();
            overwrite(path, 4096, &vec![0xa5; usize::try_from(length).expect("small") - 4096]);
        }),
    ];
    for (what, damage) in damages {
        let trial = Trial::new();
        record(&trial.open(), "build", &files);
        damage(&trial.store_dir().join("store.db"));
        let store = trial.open();
        assert_eq!(store.lookup(&action("build")).expect("no error"), None, "{what}");
        assert_eq!(store.read(&Digest::of(&big)).expect("no error").as_ref(), Some(&big), "{what}");
        assert_eq!(store.notices().len(), 1, "{what}: {:?}", store.notices());
        assert_eq!(store.stat().expect("countable").damaged_files, 1, "{what}");
        assert_works(&store, &files);
    }
}

#[test]
fn a_missing_database_is_rebuilt_without_a_word() {
    let trial = Trial::new();
    let big = noise("big", 160_000);
    let files: [(&str, &[u8]); 2] = [("a", b"a"), ("big", &big)];
    record(&trial.open(), "build", &files);
    ops::remove_file(&trial.store_dir().join("store.db")).expect("ours");
    let store = trial.open();
    assert_eq!(store.read(&Digest::of(&big)).expect("no error"), Some(big.clone()));
    assert_eq!(store.notices(), []);
    assert_works(&store, &files);
}

#[test]
fn a_database_truncated_anywhere_costs_misses_and_nothing_else() {
    let trial = Trial::new();
    let files: [(&str, &[u8]); 2] = [("a", b"a"), ("b", b"b")];
    record(&trial.open(), "build", &files);
    let path = trial.store_dir().join("store.db");
    let whole = ops::read(&path).expect("readable");
    let lengths = [
        0,
        1,
        15,
        16,
        99,
        100,
        512,
        4095,
        4096,
        4097,
        8192,
        12_288,
        whole.len() / 2,
        whole.len() - 4096,
        whole.len() - 1,
    ];
    for length in lengths {
        ops::write(&path, &whole[..length]).expect("writable");
        let store = trial.open();
        assert_works(&store, &files);
        drop(store);
        assert_eq!(
            trial.open().lookup(&action("build")).expect("no error").map(|found| found.exit),
            Some(0),
            "{length}"
        );
    }
}

#[test]
fn flipped_bytes_of_the_database_never_make_a_wrong_answer_and_repair_mends_them() {
    let trial = Trial::new();
    let big = noise("big", 72_000);
    let files: [(&str, &[u8]); 3] = [("a", b"a"), ("b", &[b'b'; 3000]), ("big", &big)];
    record(&trial.open(), "build", &files);
    let path = trial.store_dir().join("store.db");
    let whole = ops::read(&path).expect("readable");
    // The header and the first page byte by byte in strides of a prime, the rest wider.
    let positions = (0..100).chain((100..4096).step_by(97)).chain((4096..whole.len()).step_by(1009));
    for position in positions {
        for suffix in ["-wal", "-shm"] {
            ops::remove_file(&trial.store_dir().join(format!("store.db{suffix}"))).expect("ours");
        }
        let mut bad = whole.clone();
        bad[position] ^= 0x55;
        ops::write(&path, &bad).expect("writable");
        let store = trial.open();
        assert_right(&store, &files);
        let result = put(&store, "build", &files);
        store.record(result, b"f").expect("it can be recorded");
        assert_right(&store, &files);
        // A key out of order in an index hides others, and no query can tell: that takes a look at everything.
        store.verify(VerifyOptions { mode: VerifyMode::Repair }).expect("damage is no error");
        assert_works(&store, &files);
    }
}

#[test]
fn a_lost_log_costs_misses_and_nothing_else() {
    for keep_log in [true, false] {
        let trial = Trial::new();
        let files: [(&str, &[u8]); 1] = [("a", b"a")];
        let store = trial.open();
        record(&store, "build", &files);
        store.flush().expect("it can be written");
        // As a crash leaves it: a database and a log that nobody has played back.
        let crashed = Trial::new();
        ops::create_dir_all(&crashed.store_dir()).expect("writable");
        let names: &[&str] = if keep_log { &["FORMAT", "store.db", "store.db-wal"] } else { &["FORMAT", "store.db"] };
        for name in names {
            let bytes = ops::read(&trial.store_dir().join(name)).expect("it is there");
            ops::write(&crashed.store_dir().join(name), &bytes).expect("writable");
        }
        let store = crashed.open();
        assert_eq!(store.lookup(&action("build")).expect("no error").is_some(), keep_log);
        assert_works(&store, &files);
    }
}

#[test]
fn damage_met_in_the_middle_of_a_session_is_survived_by_every_session() {
    let trial = Trial::new();
    let big = noise("big", 160_000);
    let files: [(&str, &[u8]); 2] = [("a", b"a"), ("big", &big)];
    record(&trial.open(), "build", &files);
    let (one, other) = (trial.open(), trial.open());
    let path = trial.store_dir().join("store.db");
    let length = usize::try_from(ops::metadata(&path).expect("it is there").len()).expect("small");
    overwrite(&path, 0, &vec![0x5a; length]);
    assert_works(&one, &files);
    assert_works(&other, &files);
    assert_works(&one, &files);
    drop(one);
    drop(other);
    let store = trial.open();
    assert!(store.lookup(&action("build")).expect("no error").is_some());
    assert!(store.verify(VerifyOptions { mode: VerifyMode::Report }).expect("readable").is_sound());
}

#[test]
fn a_store_whose_directories_vanish_is_made_again() {
    let trial = Trial::new();
    let files: [(&str, &[u8]); 2] = [("a", b"a"), ("big", &noise("big", 160_000))];
    record(&trial.open(), "build", &files);
    for dir in ["blobs", "trees", "tmp", "stage", "locks", "workspaces", "trash"] {
        ops::remove_all(&trial.store_dir().join(dir)).expect("ours");
    }
    let store = trial.open();
    assert_eq!(store.lookup(&action("build")).expect("no error"), None);
    assert_works(&store, &files);
}

#[test]
fn a_half_written_format_file_is_written_again() {
    let trial = Trial::new();
    record(&trial.open(), "build", &[("a", b"a")]);
    for text in [&b""[..], b"drys", b"\xff\xfe"] {
        ops::write(&trial.store_dir().join("FORMAT"), text).expect("writable");
        assert!(trial.open().lookup(&action("build")).expect("no error").is_some());
    }
}

#[test]
fn whoever_connects_while_the_database_is_set_aside_comes_to_the_new_one() {
    let trial = Trial::new();
    let store = trial.open();
    let other = trial.open();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let connecting: Vec<_> = [&store, &other, &store]
            .into_iter()
            .map(|store| {
                let is_done = &is_done;
                scope.spawn(move || {
                    while !is_done.load(Ordering::SeqCst) {
                        let writing = |connection: &rusqlite::Connection| content::add_usage(connection, 1);
                        store.database.write("count", &mut None, writing).expect("it can be written");
                        let reading =
                            |connection: &rusqlite::Connection| content::find(connection, &Key::blob(Digest::of(b"")));
                        store.database.read("look", reading).expect("it can be read");
                    }
                })
            })
            .collect();
        for _ in 0..40 {
            store.database.replace(store.database.generation(), "a test says so").expect("it can be set aside");
        }
        is_done.store(true, Ordering::SeqCst);
        connecting.into_iter().for_each(|thread| thread.join().expect("a thread that fails says why"));
    });
    assert_works(&store, &[("a", b"a")]);
}
