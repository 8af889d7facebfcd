//! Caches of tasks: one user at a time, counted, evicted least recently used first and never in use.

use std::path::PathBuf;

use crate::fs::ops;
use crate::store::tests::trial::{Trial, advance_clock, noise, record};
use crate::store::{GcMode, GcOptions, GcReport, Store};

/// Uses a cache, leaving this many bytes in it.
fn fill(store: &Store, name: &str, bytes: usize) -> PathBuf {
    advance_clock(1000);
    let cache = store.cache_dir(name).expect("nobody uses it");
    ops::create_dir_all(&cache.path().join("deep")).expect("writable");
    ops::write(&cache.path().join("deep/file"), &vec![0; bytes]).expect("writable");
    cache.path().to_owned()
}

fn collect(store: &Store, bytes_max: u64, mode: GcMode) -> GcReport {
    store.gc(GcOptions { mode, bytes_max: Some(bytes_max), keep_days: None }).expect("it can be collected")
}

fn there(paths: &[PathBuf]) -> Vec<bool> {
    paths.iter().map(|path| ops::exists(path)).collect()
}

#[test]
fn caches_are_counted() {
    let trial = Trial::new();
    let store = trial.open();
    assert_eq!(store.stat().expect("countable").caches, 0);
    fill(&store, "a", 1000);
    fill(&store, "b", 500);
    fill(&store, "a", 2000);
    let stat = store.stat().expect("countable");
    assert_eq!((stat.caches, stat.cache_bytes), (2, 2500));
    assert_eq!(trial.open_read_only().stat().expect("countable").cache_bytes, 2500);
}

#[test]
fn the_least_recently_used_caches_go_when_all_take_more_than_their_share() {
    let trial = Trial::new();
    let store = trial.open();
    let paths = ["a", "b", "c"].map(|name| fill(&store, name, 100_000));
    fill(&store, "a", 100_000);
    advance_clock(1000);
    let dry = collect(&store, 1_000_000, GcMode::DryRun);
    assert_eq!(there(&paths), [true; 3]);
    assert_eq!(collect(&store, 1_000_000, GcMode::Delete), dry, "a dry run tells what happens");
    assert_eq!((dry.caches_removed, dry.bytes_freed), (1, 100_000));
    assert_eq!(there(&paths), [true, false, true]);
    assert_eq!(ops::read_dir(&store.dir().join("locks/caches")).expect("it is there").len(), 2, "no lock stays alone");
    assert_eq!(ops::read_dir(&store.dir().join("trash")).expect("it is there"), []);
    assert_eq!(collect(&store, 1_000_000, GcMode::Delete).caches_removed, 0);
    assert_eq!(collect(&store, 0, GcMode::Delete).caches_removed, 2);
}

#[test]
fn caches_unused_for_long_go_even_if_there_is_room() {
    let trial = Trial::new();
    let store = trial.open();
    let old = fill(&store, "old", 1);
    advance_clock(3 * 24 * 60 * 60 * 1000);
    let new = fill(&store, "new", 1);
    let options = GcOptions { mode: GcMode::Delete, bytes_max: Some(1 << 40), keep_days: Some(2) };
    assert_eq!(store.gc(options).expect("it can be collected").caches_removed, 1);
    assert_eq!(there(&[old, new]), [false, true]);
}

#[test]
fn a_cache_in_use_is_never_collected_and_has_one_user() {
    let trial = Trial::new();
    let store = trial.open();
    let path = fill(&store, "a", 1000);
    let used = store.cache_dir("a").expect("nobody uses it");
    assert!(store.try_cache_dir("a").expect("no error").is_none());
    assert!(store.try_cache_dir("b").expect("no error").is_some());
    advance_clock(1000);
    assert_eq!(collect(&store, 0, GcMode::Delete).caches_removed, 1, "only the other one");
    assert_eq!(there(&[path.join("deep/file")]), [true]);
    drop(used);
    assert_eq!(collect(&store, 0, GcMode::Delete).caches_removed, 1);
    assert_eq!(there(&[path]), [false]);
}

#[test]
fn users_of_a_cache_take_turns_while_it_is_evicted_again_and_again() {
    let trial = Trial::new();
    let store = trial.open();
    let running = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let cache = store.cache_dir("a").expect("it can be had");
                    assert_eq!(running.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0, "two users at once");
                    ops::write(&cache.path().join("file"), b"mine").expect("it stays while it is used");
                    assert!(ops::exists(&cache.path().join("file")));
                    running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
        for _ in 0..10 {
            collect(&store, 0, GcMode::Delete);
        }
    });
}

#[test]
fn automatic_collection_sees_what_caches_grew_by() {
    let trial = Trial::new();
    let store = trial.open_capped(1_000_000);
    record(&store, "result", &[("big", &noise("x", 160_000))]);
    let small = fill(&store, "a", 100_000);
    assert_eq!(store.maybe_gc().expect("it can be collected"), None);
    let large = fill(&store, "b", 400_000);
    let report = store.maybe_gc().expect("it can be collected").expect("caches take more than their share");
    assert_eq!((report.caches_removed, report.results_removed), (2, 0), "results are not at fault");
    assert_eq!(there(&[small, large]), [false, false]);
    // Grown in use: seen once its size is old enough to be taken again.
    let grown = fill(&store, "c", 1000);
    assert_eq!(store.maybe_gc().expect("it can be collected"), None);
    advance_clock(60 * 60 * 1000);
    fill(&store, "c", 900_000);
    assert!(store.maybe_gc().expect("it can be collected").is_some());
    assert_eq!(there(&[grown]), [false]);
}

#[test]
fn a_damaged_mark_of_a_cache_is_no_error_and_counts_anew() {
    let marks: [&[u8]; 5] = [
        b"",
        b"\xff\xfe",
        b"0 0",
        b"9223372036854775807 9223372036854775807 9223372036854775807",
        b"-9223372036854775808 -9223372036854775808 -1",
    ];
    for mark in marks {
        let trial = Trial::new();
        let store = trial.open();
        let paths = ["a", "b", "c"].map(|name| fill(&store, name, 1000));
        for path in &paths {
            let name = path.file_name().expect("a name");
            ops::write(&store.dir().join("locks/caches").join(name), mark).expect("writable");
        }
        drop(store);
        advance_clock(1000);
        let store = trial.open();
        store.maybe_gc().expect("no error");
        assert_eq!(store.stat().expect("countable").cache_bytes, 3000, "{mark:?}");
        assert!(store.try_cache_dir("a").expect("no error").is_some());
        assert_eq!(collect(&store, 0, GcMode::Delete).caches_removed, 3, "{mark:?}");
    }
}
