//! Export and import: round trips, determinism, and archives that are broken or hostile.

use std::io::Write;

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::tree::{Listing, Tree, fold};
use crate::fs::ops;
use crate::store::tests::trial::{Trial, action, noise, put, record};
use crate::store::{ActionResult, Store, StoreError};

fn filled(trial: &Trial) -> Store {
    let store = trial.open();
    record(&store, "a", &[("big", &noise("big", 160_000)), ("shared", b"shared")]);
    record(&store, "b", &[("dir/x", b"x"), ("shared", b"shared")]);
    store
}

fn assert_empty(store: &Store) {
    let stat = store.stat().expect("countable");
    assert_eq!((stat.results, stat.blobs, stat.trees, stat.fingerprints), (0, 0, 0, 0));
    assert_eq!(ops::read_dir(&store.dir().join("stage")).expect("it is there"), []);
}

#[test]
fn what_is_exported_is_imported_and_the_bytes_are_always_the_same() {
    let (from, to) = (Trial::new(), Trial::new());
    let store = filled(&from);
    let archive = from.path().join("archive");
    let report = store.export(&[action("b"), action("a"), action("absent"), action("a")], &archive).expect("written");
    assert_eq!((report.results, report.blobs, report.trees), (2, 5, 3));
    assert_eq!(report.missing, [action("absent")]);
    let other = from.path().join("other");
    store.export(&[action("a"), action("b")], &other).expect("written");
    assert_eq!(ops::read(&archive).expect("readable"), ops::read(&other).expect("readable"));

    let target = to.open();
    let imported = target.import(&archive).expect("readable");
    assert_eq!((imported.results, imported.known, imported.blobs, imported.trees), (2, 0, 5, 3));
    for name in ["a", "b"] {
        assert_eq!(target.lookup(&action(name)).expect("no error"), store.lookup(&action(name)).expect("no error"));
        assert_eq!(
            target.fingerprint(&action(name)).expect("no error"),
            store.fingerprint(&action(name)).expect("no error")
        );
    }
    assert_eq!(target.read(&Digest::of(&noise("big", 160_000))).expect("no error"), Some(noise("big", 160_000)));
    assert_eq!(target.import(&archive).expect("readable").known, 2);
}

#[test]
fn an_earlier_result_stays_when_another_is_imported() {
    let (from, to) = (Trial::new(), Trial::new());
    let archive = from.path().join("archive");
    filled(&from).export(&[action("a")], &archive).expect("written");
    let store = to.open();
    let own = record(&store, "a", &[("other", b"other")]);
    assert_eq!(store.import(&archive).expect("readable").differing, 1);
    assert_eq!(store.lookup(&action("a")).expect("no error"), Some(own));
    assert_eq!(store.ledger(&action("a")).expect("readable").len(), 2);
}

#[test]
fn a_broken_archive_imports_nothing() {
    let (from, to) = (Trial::new(), Trial::new());
    let archive = from.path().join("archive");
    filled(&from).export(&[action("a"), action("b")], &archive).expect("written");
    let whole = ops::read(&archive).expect("readable");
    let store = to.open();
    let try_import = |bytes: &[u8], what: String| {
        ops::write(&archive, bytes).expect("writable");
        match store.import(&archive) {
            Err(StoreError::Archive { .. }) => {}
            other => panic!("{what}: {other:?}"),
        }
    };
    for length in (0..whole.len()).step_by(211).chain([whole.len() - 1]) {
        try_import(&whole[..length], format!("cut at {length}"));
    }
    for position in (0..whole.len()).step_by(173) {
        let mut bad = whole.clone();
        bad[position] ^= 0x10;
        try_import(&bad, format!("flipped at {position}"));
    }
    try_import(&zstd::encode_all(&b"no archive"[..], 1).expect("memory"), "no tar".to_owned());
    assert_empty(&store);
    ops::write(&archive, &whole).expect("writable");
    assert_eq!(store.import(&archive).expect("whole again").results, 2);
}

/// Builds an archive by hand.
fn archive_of(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, bytes) in entries {
        let mut header = tar::Header::new_ustar();
        let field = &mut header.as_mut_bytes()[..name.len()];
        field.copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *bytes).expect("memory");
    }
    let tar = builder.into_inner().expect("memory");
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("memory");
    encoder.write_all(&tar).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn hostile_archives_are_refused_whole() {
    use tar::EntryType as E;
    let good = Digest::of(b"good").to_hex();
    let blob = format!("blobs/{good}");
    let version = ("drystone-archive", E::Regular, &b"drystone archive 2\n"[..]);
    let mut none = Encoder::new();
    none.u64(0);
    let results = ("results", E::Regular, none.as_slice());
    let evil = format!("blobs/../../{good}");
    let upper = format!("blobs/{}", good.to_uppercase());
    let not_a_tree = format!("trees/{}", crate::base::tree::tree_digest(b"no tree"));
    type Entries<'a> = Vec<(&'a str, E, &'a [u8])>;
    let cases: [(&str, Entries<'_>); 14] = [
        ("nothing", vec![]),
        ("no version", vec![results]),
        ("another version", vec![("drystone-archive", E::Regular, b"drystone archive 3\n"), results]),
        ("no results", vec![version, (&blob, E::Regular, b"good")]),
        ("a wrong digest", vec![version, (&blob, E::Regular, b"evil"), results]),
        ("a way out", vec![version, (&evil, E::Regular, b"good"), results]),
        ("an absolute path", vec![version, ("/etc/passwd", E::Regular, b"good"), results]),
        ("another spelling", vec![version, (&upper, E::Regular, b"good"), results]),
        ("a link", vec![version, (&blob, E::Symlink, b""), results]),
        ("a long name extension", vec![version, ("././@LongLink", E::GNULongName, b"blobs/x"), results]),
        ("twice the same", vec![version, (&blob, E::Regular, b"good"), (&blob, E::Regular, b"good"), results]),
        ("more after the results", vec![version, results, (&blob, E::Regular, b"good")]),
        ("a tree that is none", vec![version, (&not_a_tree, E::Regular, b"no tree"), results]),
        ("broken results", vec![version, (&blob, E::Regular, b"good"), ("results", E::Regular, &[9; 20])]),
    ];
    let trial = Trial::new();
    let archive = trial.path().join("archive");
    let store = trial.open();
    for (what, entries) in cases {
        ops::write(&archive, &archive_of(&entries)).expect("writable");
        assert!(matches!(store.import(&archive), Err(StoreError::Archive { .. })), "{what}");
        assert_empty(&store);
    }
    // A few bytes of archive that unpack to more than anyone waits for.
    let mut endless = archive_of(&[version, (&blob, E::Regular, b"good"), results]);
    let zeros = std::io::Read::take(std::io::repeat(0), 100_000_000);
    endless.extend(zstd::encode_all(zeros, 1).expect("memory"));
    ops::write(&archive, &endless).expect("writable");
    assert!(matches!(store.import(&archive), Err(StoreError::Archive { .. })));
    assert_empty(&store);
    ops::write(&archive, &archive_of(&[version, (&blob, E::Regular, b"good"), results])).expect("writable");
    assert_eq!(store.import(&archive).expect("it is well-formed").blobs, 1);
}

#[test]
fn an_archive_of_before_there_were_lines_is_read_and_its_machine_is_not_known() {
    let (from, to) = (Trial::new(), Trial::new());
    let result = record(&from.open(), "a", &[]);
    let (log, tree) = (Digest::of(b"log"), fold(&Listing::new()));
    let result = ActionResult { outputs: tree.root, stdout_stderr: log, ..result };
    let mut results = Encoder::new();
    results.u64(1).bytes(&result.encode()).bytes(b"fingerprint");
    let (tree_name, log_name) = (format!("trees/{}", tree.root), format!("blobs/{log}"));
    let of = |version: &'static [u8]| {
        archive_of(&[
            ("drystone-archive", tar::EntryType::Regular, version),
            (&tree_name, tar::EntryType::Regular, &Tree::default().encode()),
            (&log_name, tar::EntryType::Regular, b"log"),
            ("results", tar::EntryType::Regular, results.as_slice()),
        ])
    };
    let (archive, store) = (from.path().join("archive"), to.open());
    ops::write(&archive, &of(b"drystone archive 2\n")).expect("writable");
    assert!(matches!(store.import(&archive), Err(StoreError::Archive { .. })), "lines are missing");
    ops::write(&archive, &of(b"drystone archive 1\n")).expect("writable");
    assert_eq!(store.import(&archive).expect("readable").results, 1);
    let lines = store.ledger(&result.action).expect("readable");
    let told: Vec<_> = lines.iter().map(|line| (line.outputs, line.machine, line.builder.as_deref())).collect();
    assert_eq!(told, [(result.outputs, None, None)]);
}

#[test]
fn an_archive_larger_than_the_store_may_be_is_refused() {
    let (from, to) = (Trial::new(), Trial::new());
    let archive = from.path().join("archive");
    let store = from.open();
    record(&store, "zeros", &[("zeros", &vec![0; 1_000_000])]);
    let report = store.export(&[action("zeros")], &archive).expect("written");
    assert!(report.bytes < 10_000, "it is well compressed");
    let small = to.open_capped(500_000);
    assert!(matches!(small.import(&archive), Err(StoreError::Archive { .. })));
    assert_empty(&small);
}

#[test]
fn a_result_whose_parts_are_nowhere_is_left_out() {
    let trial = Trial::new();
    let donor = Trial::new();
    let other = donor.open();
    let result = put(&other, "partial", &[("x", b"x")]);
    let mut encoder = Encoder::new();
    encoder.u64(1).bytes(&result.encode()).bytes(b"f");
    let entries = [
        ("drystone-archive", tar::EntryType::Regular, &b"drystone archive 1\n"[..]),
        ("results", tar::EntryType::Regular, encoder.as_slice()),
    ];
    let archive = trial.path().join("archive");
    ops::write(&archive, &archive_of(&entries)).expect("writable");
    let store = trial.open();
    assert_eq!(store.import(&archive).expect("well-formed").incomplete, 1);
    assert_eq!(store.lookup(&result.action).expect("no error"), None);
    put(&store, "partial", &[("x", b"x")]);
    assert_eq!(store.import(&archive).expect("well-formed").results, 1, "the store has the parts now");
    assert_eq!(store.tree(&result.outputs).expect("no error").map(|tree| tree == Tree::default()), Some(false));
}
