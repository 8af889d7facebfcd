//! What is kept to be shown: made once, whole or not at all, held by whoever asked for it, then evicted like a cache.

use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::fs::ops;
use crate::fs::stat::StatKey;
use crate::store::tests::trial::{Trial, advance_clock};
use crate::store::{GcMode, GcOptions, Keep, Store, StoreError};

const TEXT: &[u8] = b"text";

fn listing() -> Listing {
    let file = |executable| Entry::File { digest: Digest::of(TEXT), size: 4, executable };
    let rel = |text| RelPath::parse(text).expect("a good path");
    Listing::from([
        (rel("a/plain"), file(false)),
        (rel("a/program"), file(true)),
        (rel("empty"), Entry::Dir),
        (rel("link"), Entry::Link { target: "a".into() }),
    ])
}

fn keep(store: &Store, listing: &Listing, bytes: Option<&[u8]>) -> Option<PathBuf> {
    let mtime_ns = |path: &RelPath| 1_000_000_000 * (1 + path.as_str().len() as i64);
    let keep = Keep { listing, modes: [0o444, 0o555], mtime_ns: &mtime_ns };
    let mut fill = |_: &RelPath, _: &Digest, _: u64, to: &Path| -> Result<bool, StoreError> {
        let Some(bytes) = bytes else { return Ok(false) };
        ops::write(to, bytes)?;
        Ok(true)
    };
    store.keep(&keep, &mut fill).expect("it can be kept")
}

fn collect(store: &Store) -> u64 {
    advance_clock(1000);
    store.gc(GcOptions { mode: GcMode::Delete, bytes_max: Some(0), keep_days: None }).expect("it works").caches_removed
}

#[test]
fn it_looks_as_it_is_to_be_seen() {
    let trial = Trial::new();
    let store = trial.open();
    let it = keep(&store, &listing(), Some(TEXT)).expect("it can be had");
    let check = |path: &str, mode: u32| {
        let stat = StatKey::at(&it.join(path)).expect("it is there");
        assert_eq!((stat.mode & 0o7777, stat.mtime_ns / 1_000_000_000), (mode, 1 + path.len() as i64), "{path}");
    };
    check("a/plain", 0o444);
    check("a/program", 0o555);
    check("a", 0o755);
    check("empty", 0o755);
    check("link", 0o777);
    let alone = Listing::from([(RelPath::root(), listing()[&RelPath::parse("a/program").expect("good")].clone())]);
    let file = keep(&store, &alone, Some(TEXT)).expect("it can be had");
    assert_eq!(ops::read(&file).expect("a file"), TEXT);
    assert_eq!(StatKey::at(&file).expect("it is there").mode & 0o7777, 0o555);
    // There already, so nobody is asked for content.
    assert_eq!(keep(&store, &listing(), None), Some(it));
}

#[test]
fn of_what_is_not_whole_nothing_stays() {
    let trial = Trial::new();
    let store = trial.open();
    assert_eq!(keep(&store, &listing(), None), None);
    for dir in ["kept", "stage", "trash"] {
        assert_eq!(ops::read_dir(&store.dir().join(dir)).expect("a directory"), [], "{dir}");
    }
}

#[test]
fn what_another_boot_left_serves_only_if_it_is_whole() {
    let trial = Trial::new();
    let store = trial.open();
    let it = keep(&store, &listing(), Some(TEXT)).expect("it can be had");
    let spoil = |spoil: &dyn Fn()| {
        ops::write(&it.with_file_name("boot"), b"another").expect("writable");
        spoil();
        keep(&store, &listing(), None)
    };
    assert_eq!(spoil(&|| ()), Some(it.clone()));
    assert_eq!(spoil(&|| ops::set_mode(&it.join("a/plain"), 0o644).expect("it is ours")), None);
    let again = || assert!(keep(&store, &listing(), Some(TEXT)).is_some());
    again();
    assert_eq!(spoil(&|| ops::remove_file(&it.join("a/plain")).expect("it is ours")), None);
    again();
    assert_eq!(spoil(&|| ops::write(&it.join("new"), b"").expect("it is ours")), None);
    again();
    assert_eq!(spoil(&|| ops::set_times(&it.join("empty"), 7).expect("it is ours")), None);
    again();
    let other_bytes = || {
        ops::set_mode(&it.join("a/plain"), 0o644).expect("it is ours");
        let mtime_ns = StatKey::at(&it.join("a/plain")).expect("it is there").mtime_ns;
        ops::write(&it.join("a/plain"), b"tixt").expect("it is ours");
        ops::set_times(&it.join("a/plain"), mtime_ns).expect("it is ours");
        ops::set_mode(&it.join("a/plain"), 0o444).expect("it is ours");
    };
    assert_eq!(spoil(&other_bytes), None);
}

#[test]
fn nothing_a_live_session_asked_for_is_collected() {
    let trial = Trial::new();
    let store = trial.open();
    let it = keep(&store, &listing(), Some(TEXT)).expect("it can be had");
    let other = trial.open();
    advance_clock(1000);
    assert_eq!((collect(&store), collect(&other)), (0, 0));
    assert_eq!(keep(&other, &listing(), None), Some(it.clone()));
    drop(store);
    assert_eq!(collect(&other), 0);
    drop(other);
    advance_clock(1000);
    let last = trial.open();
    assert_eq!((collect(&last), ops::exists(&it)), (1, false));
    assert_eq!(ops::read_dir(&last.dir().join("locks/kept")).expect("a directory"), []);
}
