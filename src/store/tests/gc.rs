//! Collection: what is used recently stays, what a live session uses stays, everything else goes.

use crate::base::digest::Digest;
use crate::fs::ops;
use crate::store::tests::trial::{Trial, action, advance_clock, content_file, noise, put, record};
use crate::store::{GcMode, GcOptions, Store};

const KEEP_ALL: u64 = 1 << 40;

fn collect(store: &Store, bytes_max: u64) -> crate::store::GcReport {
    store
        .gc(GcOptions { mode: GcMode::Delete, bytes_max: Some(bytes_max), keep_days: None })
        .expect("it can be collected")
}

/// Records `names` in sessions of their own, a second apart, each with 20,000 bytes of its own.
fn record_each(trial: &Trial, names: &[&str]) {
    for name in names {
        record(&trial.open(), name, &[("big", &noise(name, 160_000)), ("shared", b"shared")]);
        advance_clock(1000);
    }
}

fn found(store: &Store, names: &[&str]) -> Vec<bool> {
    names.iter().map(|name| store.lookup(&action(name)).expect("no error").is_some()).collect()
}

fn files(store: &Store) -> usize {
    let blobs = ops::read_dir(&store.dir().join("blobs")).expect("it is there");
    blobs
        .iter()
        .map(|shard| ops::read_dir(&store.dir().join("blobs").join(&shard.name)).expect("it is there").len())
        .sum()
}

#[test]
fn the_least_recently_used_goes_first_and_a_lookup_is_a_use() {
    let trial = Trial::new();
    let names = ["a", "b", "c", "d"];
    record_each(&trial, &names);
    assert_eq!(found(&trial.open(), &["a"]), [true]);
    advance_clock(100_000);
    let store = trial.open();
    let dry = store
        .gc(GcOptions { mode: GcMode::DryRun, bytes_max: Some(400_000), keep_days: None })
        .expect("it can be planned");
    assert_eq!(files(&store), 4);
    let report = collect(&store, 400_000);
    assert_eq!(report, dry, "a dry run tells what happens");
    assert_eq!((report.results_removed, report.results_kept), (2, 2));
    assert!(report.bytes_freed >= 320_000);
    assert_eq!(files(&store), 2);
    assert_eq!(found(&store, &names), [true, false, false, true]);
    assert_eq!(store.read(&Digest::of(b"shared")).expect("no error").as_deref(), Some(&b"shared"[..]));
    assert_eq!(ops::read_dir(&store.dir().join("trash")).expect("it is there"), []);
    let verified =
        store.verify(crate::store::VerifyOptions { mode: crate::store::VerifyMode::Report }).expect("readable");
    assert!(verified.is_sound() && verified.orphans.is_empty(), "{verified:?}");
}

#[test]
fn everything_goes_when_nothing_may_stay_and_nothing_when_there_is_room() {
    let trial = Trial::new();
    record_each(&trial, &["a", "b"]);
    let store = trial.open();
    assert_eq!(collect(&store, KEEP_ALL).results_removed, 0);
    assert_eq!(found(&store, &["a", "b"]), [true, true]);
    drop(store);
    advance_clock(1000);
    let store = trial.open();
    let report = collect(&store, 0);
    assert_eq!((report.results_removed, report.results_kept, report.bytes_kept), (2, 0, 0));
    let stat = store.stat().expect("countable");
    assert_eq!((stat.results, stat.blobs, stat.trees, files(&store)), (0, 0, 0, 0));
}

#[test]
fn results_unused_for_long_go_even_if_there_is_room() {
    let trial = Trial::new();
    record_each(&trial, &["old"]);
    advance_clock(10 * 24 * 3600 * 1000);
    record_each(&trial, &["new"]);
    let store = trial.open();
    let options = GcOptions { mode: GcMode::Delete, bytes_max: Some(KEEP_ALL), keep_days: Some(5) };
    assert_eq!(store.gc(options).expect("collected").results_removed, 1);
    assert_eq!(found(&store, &["old", "new"]), [false, true]);
}

#[test]
fn nothing_that_a_live_session_put_or_used_is_collected() {
    let trial = Trial::new();
    record_each(&trial, &["before", "used", "put-again"]);
    let live = trial.open();
    advance_clock(1000);
    let blob = live.put_bytes(&noise("loose", 240_000)).expect("it can be put");
    let again = live.put_bytes(&noise("put-again", 160_000)).expect("it can be put");
    let half = put(&live, "half", &[("half", &noise("half", 72_000))]);
    assert_eq!(found(&live, &["used"]), [true]);
    advance_clock(1000);
    let other = trial.open();
    advance_clock(1000);
    let report = collect(&other, 0);
    assert_eq!(report.results_removed, 2, "`before` and the result of `put-again`");
    assert!(report.protected > 0);
    for digest in [blob, again] {
        assert!(live.read(&digest).expect("no error").is_some());
    }
    assert_eq!(found(&live, &["before", "used", "put-again"]), [false, true, false]);
    live.record(half, b"f").expect("its parts are still there");
    assert_eq!(found(&other, &["used"]), [true]);
    live.flush().expect("written");
    assert_eq!(found(&other, &["half"]), [true]);

    advance_clock(1000);
    live.renew_lease().expect("it can be renewed");
    drop(other);
    advance_clock(1000);
    assert!(collect(&trial.open(), 0).results_removed >= 2, "a renewed lease protects no more than what came after");
}

#[test]
fn automatic_collection_waits_for_the_cap() {
    let trial = Trial::new();
    let store = trial.open_capped(800_000);
    for name in ["a", "b", "c", "d"] {
        record(&store, name, &[("big", &noise(name, 160_000))]);
        advance_clock(1000);
    }
    assert_eq!(store.maybe_gc().expect("no error"), None);
    record(&store, "e", &[("big", &noise("e", 160_000))]);
    advance_clock(1000);
    let report = store.maybe_gc().expect("no error").expect("it is over the cap now");
    assert_eq!((report.results_removed, report.results_kept), (1, 4));
    assert_eq!(found(&store, &["a", "e"]), [false, true]);
    assert_eq!(store.maybe_gc().expect("no error"), None);
}

#[test]
fn a_run_that_needs_more_than_the_store_holds_is_told() {
    let trial = Trial::new();
    let put = |store: &Store, name: &str| {
        record(store, name, &[("big", &noise(name, 160_000))]);
        advance_clock(1000);
    };
    let earlier = trial.open_capped(400_000);
    put(&earlier, "a");
    put(&earlier, "b");
    drop(earlier);
    // What goes is of the run before, then of this one.
    let store = trial.open_capped(400_000);
    put(&store, "c");
    let report = store.maybe_gc().expect("no error").expect("it is over the cap now");
    assert_eq!((report.results_removed, report.new_removed), (1, 0));
    assert_eq!(store.notices(), []);
    put(&store, "d");
    put(&store, "e");
    let report = store.maybe_gc().expect("no error").expect("it is over the cap now");
    assert_eq!((report.results_removed, report.new_removed), (2, 1));
    let told = store.notices().pop().expect("a notice").message;
    assert!(told.contains("390.6 KiB") && told.contains("1 of its results was removed"), "{told}");
}

#[test]
fn the_running_total_is_what_counting_gives() {
    let trial = Trial::new();
    let store = trial.open();
    for name in ["a", "b", "a"] {
        let result = put(&store, name, &[("x", &noise(name, 72_000)), ("y", b"y")]);
        store.record(result, b"fingerprint").expect("recorded");
    }
    let file = content_file(&store, "blobs", &Digest::of(&noise("a", 72_000)));
    ops::remove_file(&file).expect("ours");
    assert_eq!(store.lookup(&action("a")).expect("no error"), None);
    store.flush().expect("written");
    let total = || store.database.read("read the usage", super::super::gc::used_bytes).expect("readable");
    let running = total();
    store.database.write("recount", &mut None, super::super::gc::recount).expect("writable");
    assert_eq!(running, total());
}

#[test]
fn leftovers_of_crashes_go() {
    let trial = Trial::new();
    record_each(&trial, &["a"]);
    let store = trial.open();
    let orphan = content_file(&store, "blobs", &Digest::of(b"crashed before its row"));
    ops::create_dir_all(orphan.parent().expect("a shard")).expect("writable");
    ops::write(&orphan, b"crashed before its row").expect("writable");
    ops::write(&store.dir().join("locks/actions/00"), b"").expect("writable");
    let held = store.lock_action(&action("held")).expect("it can be locked");
    let gone = store.workspace_dir(&trial.path().join("gone")).expect("there is room");
    let here = store.workspace_dir(trial.path()).expect("there is room");
    ops::write(&store.dir().join("store.db.damaged-1"), b"").expect("writable");
    advance_clock(30 * 24 * 3600 * 1000);
    assert_eq!(collect(&store, KEEP_ALL).orphans_removed, 1);
    for path in [&orphan, &gone, &store.dir().join("locks/actions/00"), &store.dir().join("store.db.damaged-1")] {
        assert!(!ops::exists(path), "{}", path.display());
    }
    assert!(ops::exists(&here));
    assert!(store.try_lock_action(&action("held")).expect("no error").is_none(), "a held lock is left alone");
    drop(held);
    assert_eq!(found(&store, &["a"]), [true]);
}

#[test]
fn space_is_set_aside_for_the_day_when_the_disk_is_full() {
    let trial = Trial::new();
    let store = trial.open();
    let reserve = store.dir().join("reserve");
    assert_eq!(ops::metadata(&reserve).expect("it is there").len(), 2 << 20);
    assert!(store.layout.give_reserve_up());
    assert!(!store.layout.give_reserve_up() && !ops::exists(&reserve));
    collect(&store, KEEP_ALL);
    assert!(ops::exists(&reserve), "once there is room again");
}

#[test]
fn what_was_used_before_the_clock_was_set_back_is_neither_kept_for_ever_nor_lost_at_once() {
    const YEARS_MS: i64 = 10 * 365 * 24 * 60 * 60 * 1000;
    let trial = Trial::new();
    advance_clock(YEARS_MS);
    let ahead = trial.open();
    record(&ahead, "ahead", &[("big", &noise("ahead", 160_000))]);
    ahead.flush().expect("written");
    advance_clock(-YEARS_MS);
    let store = trial.open();
    record(&store, "now", &[("big", &noise("now", 160_000))]);
    collect(&store, 0);
    assert_eq!(found(&store, &["ahead", "now"]), [true, true], "live sessions use both");
    drop((ahead, store));
    advance_clock(1000);
    collect(&trial.open(), KEEP_ALL);
    advance_clock(1000);
    assert_eq!(found(&trial.open(), &["now"]), [true], "the use that is newest by the clock of today");
    advance_clock(1000);
    let store = trial.open();
    assert_eq!(collect(&store, 240_000).protected, 0);
    assert_eq!(found(&store, &["ahead", "now"]), [false, true]);
    drop(store);
    advance_clock(1000);
    let store = trial.open();
    collect(&store, 0);
    assert_eq!((found(&store, &["now"]), files(&store)), (vec![false], 0));
}

#[test]
fn temporaries_of_killed_sessions_go() {
    let trial = Trial::new();
    let store = trial.open();
    let root = trial.path().join("workspace");
    ops::create_dir(&root).expect("a directory");
    let own = store.workspace_dir(&root).expect("a directory");
    ops::create_dir(&own.join("written")).expect("a directory");
    // No kernel gives out ids as high as this.
    let name = ".index.drystone-2000000000-0";
    let left = [store.dir().join(name), own.join(name), own.join("written").join(name)];
    left.iter().for_each(|path| ops::write(path, b"half").expect("writable"));
    collect(&store, KEEP_ALL);
    assert_eq!(left.map(|path| ops::exists(&path)), [false; 3]);
    ops::write(&own.join(name), b"half").expect("writable");
    store.workspace_dir(&root).expect("a directory");
    assert!(!ops::exists(&own.join(name)), "a run clears up behind the one before it");
}
