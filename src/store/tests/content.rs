//! Round trips of blobs, trees and results.

use std::ffi::OsStr;

use crate::base::digest::Digest;
use crate::base::tree::{Entry, Listing, Tree, TreeSet, fold};
use crate::fs::dir::Dir;
use crate::fs::ops;
use crate::store::tests::trial::{Trial, action, advance_clock, content_file, noise, path, put, record};
use crate::store::{Recorded, StoreError};

#[test]
fn blobs_of_every_size_come_back_before_and_after_they_are_written() {
    let trial = Trial::new();
    let sizes = [0, 1, 100, 8192, 65_535, 65_536, 65_537, 70_000, 3_000_000];
    let mut all = Vec::new();
    {
        let store = trial.open();
        for size in sizes {
            for bytes in [vec![b'a'; size], noise("blob", size)] {
                let digest = store.put_bytes(&bytes).expect("it can be put");
                assert_eq!(digest, Digest::of(&bytes));
                assert_eq!(store.read(&digest).expect("readable").as_deref(), Some(&bytes[..]), "at once, {size}");
                all.push((digest, bytes));
            }
        }
    }
    let store = trial.open();
    for (position, (digest, bytes)) in all.iter().enumerate() {
        assert_eq!(store.read(digest).expect("readable").as_ref(), Some(bytes));
        let to = trial.path().join(position.to_string());
        let (dir, name) = Dir::above(&to).expect("a directory");
        assert!(store.write_to(digest, bytes.len() as u64, (&dir, name), position % 2 == 0).expect("writable"));
        assert_eq!(&ops::read(&to).expect("it was written"), bytes);
        let mode = ops::metadata(&to).expect("it is there").permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o100 != 0, position % 2 == 0);
        assert!(store.write_to(digest, bytes.len() as u64, (&dir, name), false).is_err(), "nothing is overwritten");
        let other = OsStr::new("other");
        assert!(
            !store.write_to(digest, bytes.len() as u64 + 1, (&dir, other), false).expect("no error"),
            "another size"
        );
        assert!(!dir.has(other));
    }
    assert_eq!(store.read(&Digest::of(b"never put")).expect("no error"), None);
}

#[test]
fn files_are_ingested_whole_and_links_are_refused() {
    let trial = Trial::new();
    let store = trial.open();
    for size in [0, 10, 65_536, 65_537, 2_000_000] {
        let bytes = noise("file", size);
        let file = trial.path().join("file");
        ops::write(&file, &bytes).expect("writable");
        for _ in 0..2 {
            assert_eq!(store.put_file(&file).expect("it can be put"), (Digest::of(&bytes), size as u64));
        }
        assert!(store.contains(&Digest::of(&bytes)).expect("no error"));
        assert_eq!(store.read(&Digest::of(&bytes)).expect("readable"), Some(bytes));
    }
    let link = trial.path().join("link");
    ops::symlink("file", &link).expect("writable");
    assert!(store.put_file(&link).is_err());
    assert_eq!(ops::read_dir(&store.dir().join("tmp")).expect("it is there"), []);
}

#[test]
fn listings_come_back_as_they_were_folded() {
    let trial = Trial::new();
    let mut listing = Listing::new();
    let file = |executable| Entry::File { digest: Digest::of(b"x"), size: 1, executable };
    listing.insert(path("a/b/c"), file(true));
    listing.insert(path("a/b/d"), file(false));
    listing.insert(path("a/empty"), Entry::Dir);
    listing.insert(path("link"), Entry::Link { target: "a/../b".to_owned() });
    for number in 0..2000 {
        listing.insert(path(&format!("many/{number}")), file(false));
    }
    let set = fold(&listing);
    assert!(set.trees.values().any(|encoded| encoded.len() > 65_536), "one tree is a file");
    trial.open().put_trees(&set).expect("they can be put");
    let store = trial.open();
    assert_eq!(store.listing(&set.root).expect("readable"), Some(listing));
    assert_eq!(store.tree(&set.root).expect("readable").map(|tree| tree.digest()), Some(set.root));

    let empty = fold(&Listing::new());
    store.put_trees(&empty).expect("they can be put");
    assert_eq!(store.listing(&empty.root).expect("readable"), Some(Listing::new()));
    assert_eq!(store.listing(&Digest::of(b"no tree")).expect("no error"), None);

    let wrong = TreeSet { root: set.root, trees: [(set.root, Tree::default().encode())].into(), shared: None };
    assert!(matches!(store.put_trees(&wrong), Err(StoreError::WrongDigest { .. })));
}

#[test]
fn a_tree_that_names_more_than_any_disk_holds_is_not_flattened() {
    let trial = Trial::new();
    let store = trial.open();
    let mut listing = Listing::new();
    listing.insert(path("x"), Entry::Dir);
    let mut set = fold(&listing);
    for _ in 0..60 {
        let mut tree = Tree::default();
        for name in ["a", "b"] {
            tree.entries.insert(name.to_owned(), crate::base::tree::Node::Dir(set.root));
        }
        set.root = tree.digest();
        set.trees.insert(set.root, tree.encode());
    }
    store.put_trees(&set).expect("they can be put");
    let mut result = put(&store, "bomb", &[]);
    result.outputs = set.root;
    store.record(result, b"").expect("it can be recorded");
    assert!(store.lookup(&action("bomb")).expect("no error").is_some(), "the walk over different trees is short");

    let mut deep = Tree::default();
    for _ in 0..300 {
        let mut tree = Tree::default();
        tree.entries.insert("a".to_owned(), crate::base::tree::Node::Dir(deep.digest()));
        store
            .put_trees(&TreeSet { root: deep.digest(), trees: [(deep.digest(), deep.encode())].into(), shared: None })
            .expect("put");
        deep = tree;
    }
    store
        .put_trees(&TreeSet { root: deep.digest(), trees: [(deep.digest(), deep.encode())].into(), shared: None })
        .expect("put");
    assert_eq!(store.listing(&deep.digest()).expect("no error"), None);
}

#[test]
fn a_result_is_found_at_once_and_by_the_next_session() {
    let trial = Trial::new();
    let result = {
        let store = trial.open();
        assert_eq!(store.lookup(&action("build")).expect("no error"), None);
        let result = record(&store, "build", &[("dist/a.js", b"a"), ("dist/big", &noise("big", 160_000))]);
        assert_eq!(store.lookup(&action("build")).expect("no error").as_ref(), Some(&result));
        assert_eq!(
            store.fingerprint(&action("build")).expect("no error").as_deref(),
            Some(&b"fingerprint of build"[..])
        );
        store.flush().expect("it can be written");
        assert_eq!(store.lookup(&action("build")).expect("no error").as_ref(), Some(&result));
        result
    };
    let store = trial.open();
    assert_eq!(store.lookup(&action("build")).expect("no error"), Some(result));
    assert_eq!(store.fingerprint(&action("build")).expect("no error").as_deref(), Some(&b"fingerprint of build"[..]));
    assert_eq!(store.notices(), []);
    let stat = store.stat().expect("countable");
    assert_eq!((stat.results, stat.blobs, stat.trees, stat.fingerprints), (1, 3, 2, 1));
    assert!(stat.file_bytes == 160_000 && stat.inline_bytes > 0 && stat.database_bytes > 0);
}

#[test]
fn a_result_that_names_something_missing_is_no_result_and_can_be_recorded_again() {
    let trial = Trial::new();
    let store = trial.open();
    let mut result = put(&store, "build", &[("a", b"a")]);
    let whole = result.outputs;
    result.outputs = Digest::of(b"no such tree");
    store.record(result.clone(), b"f").expect("it can be recorded");
    assert_eq!(store.lookup(&result.action).expect("no error"), None);
    result.outputs = whole;
    assert_eq!(store.record(result.clone(), b"f").expect("it can be recorded"), Recorded::Stored);
    assert_eq!(store.lookup(&result.action).expect("no error").as_ref(), Some(&result));
    drop(store);
    assert_eq!(trial.open().lookup(&result.action).expect("no error"), Some(result));
}

#[test]
fn the_first_result_stays_and_the_ledger_knows_all() {
    let trial = Trial::new();
    let store = trial.open();
    let first = record(&store, "build", &[("a", b"1")]);
    for flushed in [false, true] {
        if flushed {
            store.flush().expect("it can be written");
        }
        assert_eq!(store.record(first.clone(), b"f").expect("recorded"), Recorded::Agrees);
        let mut second = put(&store, "build", &[("a", b"2")]);
        second.workspace = "/work/b".to_owned();
        advance_clock(1);
        assert_eq!(store.record(second, b"f").expect("recorded"), Recorded::Differs { kept: first.outputs });
        assert_eq!(store.lookup(&first.action).expect("no error").as_ref(), Some(&first));
    }
    let ledger = store.ledger(&first.action).expect("readable");
    let times: Vec<_> = ledger.iter().map(|entry| (entry.workspace.as_str(), entry.times)).collect();
    assert_eq!(times, [("/work/a", 3), ("/work/b", 2)]);
}

#[test]
fn a_result_of_higher_isolation_replaces_one_of_lower() {
    let trial = Trial::new();
    let store = trial.open();
    let mut low = put(&store, "build", &[("a", b"1")]);
    low.isolation = "none".to_owned();
    store.record(low.clone(), b"f").expect("recorded");
    let high = put(&store, "build", &[("a", b"2")]);
    assert_eq!(store.record(high.clone(), b"f").expect("recorded"), Recorded::Stored);
    assert_eq!(store.record(low, b"f").expect("recorded"), Recorded::Differs { kept: high.outputs });
    drop(store);
    assert_eq!(trial.open().lookup(&high.action).expect("no error"), Some(high));
}

#[test]
fn a_store_that_may_not_be_written_answers_and_refuses() {
    let trial = Trial::new();
    let big = noise("big", 160_000);
    let result = record(&trial.open(), "build", &[("a", b"1"), ("big", &big)]);
    let store = trial.open_read_only();
    assert_eq!(store.lookup(&result.action).expect("no error").as_ref(), Some(&result));
    assert_eq!(store.read(&Digest::of(&big)).expect("no error"), Some(big));
    assert!(matches!(store.put_bytes(b"new"), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(store.stage(), Err(StoreError::ReadOnly { .. })));
    assert_eq!(store.notices(), []);
    store.record(result, b"f").expect("a notice, not an error");
    assert_eq!(store.notices().len(), 1);
    store.flush().expect("nothing to do");
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let trial = Trial::new();
    ops::create_dir_all(&trial.store_dir().join("tmp")).expect("writable");
    ops::write(&trial.store_dir().join("thesis.tex"), b"years").expect("writable");
    let options =
        crate::store::OpenOptions { dir: trial.store_dir(), bytes_max: None, now_ms: || 1, origin: Default::default() };
    assert!(matches!(crate::store::Store::open(options.clone()), Err(StoreError::Foreign { .. })));
    ops::remove_file(&trial.store_dir().join("thesis.tex")).expect("writable");
    ops::write(&trial.store_dir().join("FORMAT"), b"drystone store 9\n").expect("writable");
    let error = crate::store::Store::open(options).expect_err("it is newer");
    assert!(matches!(error, StoreError::Newer { found: 9, known: 1, .. }), "{error}");
}

#[test]
fn stages_are_private_and_vanish_and_so_do_those_of_dead_sessions() {
    let trial = Trial::new();
    let store = trial.open();
    let stage = store.stage().expect("there is room");
    let other = store.stage().expect("there is room");
    assert_ne!(stage.path(), other.path());
    ops::write(&stage.path().join("x"), b"x").expect("writable");
    // Its writer sweeps when it starts, which must not meet what is only now being laid out.
    store.flush().expect("the writer has started");
    ops::create_dir_all(&store.dir().join("stage/dead.1-0/deep")).expect("writable");
    ops::write(&store.dir().join("tmp/dead.1-1"), b"half").expect("writable");
    let second = trial.open();
    drop(second);
    assert!(ops::exists(&stage.path().join("x")), "a live session's stage stays");
    assert!(!ops::exists(&store.dir().join("stage/dead.1-0")));
    assert!(!ops::exists(&store.dir().join("tmp/dead.1-1")));
    let gone = stage.path().to_owned();
    drop(stage);
    assert!(!ops::exists(&gone));
}

#[test]
fn an_orphaned_file_is_not_trusted_when_the_same_bytes_are_put() {
    let trial = Trial::new();
    let store = trial.open();
    let bytes = noise("big", 160_000);
    let place = content_file(&store, "blobs", &Digest::of(&bytes));
    ops::create_dir_all(place.parent().expect("a shard")).expect("writable");
    ops::write(&place, b"torn").expect("writable");
    let digest = store.put_bytes(&bytes).expect("it can be put");
    assert_eq!(store.read(&digest).expect("readable"), Some(bytes));
}

#[test]
fn a_workspace_has_one_directory_of_its_own() {
    let trial = Trial::new();
    let store = trial.open();
    let dir = store.workspace_dir(trial.path()).expect("there is room");
    assert_eq!(store.workspace_dir(trial.path()).expect("there is room"), dir);
    assert_ne!(store.workspace_dir(&trial.path().join("other")).expect("there is room"), dir);
    assert_eq!(dir.file_name().map(|name| name.len()), Some(32));
}
