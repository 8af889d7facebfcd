//! What is kept to be shown: made once, whole or not at all, held by whoever asked for it, then evicted like a cache.

use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::fs::ops;
use crate::fs::stat::StatKey;
use crate::store::tests::trial::{Trial, advance_clock};
use crate::store::{GcMode, GcOptions, Keep, Store, StoreError, VerifyMode, VerifyOptions, Wanted};

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
    let mut fill = |wanted: &[Wanted<'_>]| -> Result<bool, StoreError> {
        let Some(bytes) = bytes else { return Ok(false) };
        wanted.iter().try_for_each(|file| ops::write(&file.to, bytes))?;
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

/// One way to damage what is kept at a path.
type Spoil = fn(&Path);

/// Each changes something that a command would see, the last without a trace in size, mode or modification time.
const SPOILS: [(&str, Spoil); 8] = [
    ("a mode", |it| ops::set_mode(&it.join("a/plain"), 0o644).expect("ours")),
    ("a file less", |it| ops::remove_file(&it.join("a/plain")).expect("ours")),
    ("a file more", |it| ops::write(&it.join("new"), b"").expect("ours")),
    ("the time of a directory", |it| ops::set_times(&it.join("empty"), 7).expect("ours")),
    ("the mode of a directory", |it| ops::set_mode(it, 0o700).expect("ours")),
    ("the target of a link", |it| {
        let mtime_ns = StatKey::at(&it.join("link")).expect("there").mtime_ns;
        ops::remove_file(&it.join("link")).expect("ours");
        ops::symlink("b", &it.join("link")).expect("ours");
        ops::set_times(&it.join("link"), mtime_ns).expect("ours");
    }),
    ("everything", |it| ops::remove_all(it).expect("ours")),
    ("content alone", |it| {
        let path = it.join("a/plain");
        let mtime_ns = StatKey::at(&path).expect("there").mtime_ns;
        ops::set_mode(&path, 0o644).expect("ours");
        let mut file = ops::open_read_write(&path).expect("ours");
        std::io::Write::write_all(&mut file, b"tixt").expect("ours");
        drop(file);
        ops::set_times(&path, mtime_ns).expect("ours");
        ops::set_mode(&path, 0o444).expect("ours");
    }),
];

#[test]
fn what_was_touched_since_is_made_anew_by_the_next_session() {
    let trial = Trial::new();
    for (what, spoil) in SPOILS {
        let it = keep(&trial.open(), &listing(), Some(TEXT)).expect("it can be had");
        spoil(&it);
        let store = trial.open();
        assert_eq!(keep(&store, &listing(), None), None, "{what}");
        assert_eq!(keep(&store, &listing(), Some(TEXT)), Some(it.clone()), "{what}");
        assert_eq!(ops::read(&it.join("a/plain")).expect("it is there"), TEXT, "{what}");
        assert_eq!(ops::read_link(&it.join("link")).expect("it is there"), Path::new("a"), "{what}");
    }
}

#[test]
fn without_its_seal_it_serves_if_it_is_whole() {
    let trial = Trial::new();
    let it = keep(&trial.open(), &listing(), Some(TEXT)).expect("it can be had");
    let seal = it.with_file_name("seal");
    let sealed = ops::read(&seal).expect("it is there");
    for spoil in [b"".as_slice(), b"of another boot"] {
        ops::write(&seal, spoil).expect("ours");
        assert_eq!(keep(&trial.open(), &listing(), None), Some(it.clone()));
        assert_eq!(ops::read(&seal).expect("it is there"), sealed);
    }
    for (what, spoil) in SPOILS {
        ops::if_there(ops::remove_file(&seal)).expect("ours");
        spoil(&it);
        assert_eq!(keep(&trial.open(), &listing(), None), None, "{what}");
        assert!(keep(&trial.open(), &listing(), Some(TEXT)).is_some(), "{what}");
    }
}

#[test]
fn verification_reads_it_and_repair_drops_what_is_damaged() {
    let trial = Trial::new();
    let verify = |mode| trial.open().verify(VerifyOptions { mode }).expect("it can be verified").damaged_kept;
    for (what, spoil) in SPOILS {
        let it = keep(&trial.open(), &listing(), Some(TEXT)).expect("it can be had");
        let place = it.parent().expect("in a directory");
        let name = place.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(verify(VerifyMode::Repair).is_empty(), "{what}");
        spoil(&it);
        // Even a seal that holds proves nothing to who reads it all.
        assert_eq!(verify(VerifyMode::Report), std::slice::from_ref(&name), "{what}");
        assert!(ops::exists(place), "{what}");
        assert_eq!(verify(VerifyMode::Repair), [name], "{what}");
        assert!(!ops::exists(place), "{what}");
        assert!(verify(VerifyMode::Report).is_empty(), "{what}");
    }
}

#[test]
fn an_empty_tree_and_one_that_is_asked_for_by_many_at_once_are_made_once() {
    let trial = Trial::new();
    let store = trial.open();
    let empty = keep(&store, &Listing::new(), Some(TEXT)).expect("it can be had");
    assert_eq!(ops::read_dir(&empty).expect("a directory"), []);
    let made: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| keep(&trial.open(), &listing(), Some(TEXT)))).collect();
        asking.into_iter().map(|one| one.join().expect("no panic").expect("it can be had")).collect()
    });
    assert!(made.iter().all(|one| *one == made[0]));
    assert_eq!(ops::read_dir(&store.dir().join("kept")).expect("a directory").len(), 2);
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
