//! Several stores and threads on one directory at once, with collection among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::base::digest::Digest;
use crate::store::tests::trial::{Trial, action, noise, put};
use crate::store::{GcMode, GcOptions, VerifyMode, VerifyOptions};

const ACTIONS: usize = 40;

fn files_of(number: usize) -> Vec<(String, Vec<u8>)> {
    vec![
        ("own".to_owned(), noise(&format!("own {number}"), 100 + number * 400)),
        ("shared".to_owned(), noise(&format!("shared {}", number % 5), 72_000)),
    ]
}

#[test]
fn many_writers_on_one_directory_lose_nothing() {
    let trial = Trial::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let store = Arc::new(trial.open());
            for _ in 0..2 {
                let store = Arc::clone(&store);
                scope.spawn(move || {
                    for number in 0..ACTIONS {
                        let name = number.to_string();
                        let files = files_of(number);
                        let files: Vec<_> = files.iter().map(|(at, bytes)| (at.as_str(), &bytes[..])).collect();
                        let result = put(&store, &name, &files);
                        store.record(result.clone(), name.as_bytes()).expect("recorded");
                        let found = store.lookup(&action(&name)).expect("no error").expect("it was just recorded");
                        assert_eq!(found.outputs, result.outputs);
                    }
                    store.flush().expect("written");
                });
            }
        }
    });
    let store = trial.open();
    for number in 0..ACTIONS {
        let found = store.lookup(&action(&number.to_string())).expect("no error").expect("it was recorded");
        assert!(store.listing(&found.outputs).expect("no error").is_some());
        for (_, bytes) in files_of(number) {
            assert_eq!(store.read(&Digest::of(&bytes)).expect("no error"), Some(bytes));
        }
        let ledger = store.ledger(&found.action).expect("readable");
        assert_eq!(ledger.iter().map(|entry| entry.times).sum::<u64>(), 6);
    }
    let report = store.verify(VerifyOptions { mode: VerifyMode::Report }).expect("readable");
    assert!(report.is_sound() && report.orphans.is_empty(), "{report:?}");
}

#[test]
fn collection_beside_writers_takes_nothing_of_theirs() {
    let trial = Trial::new();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let store = trial.open();
                scope.spawn(move || {
                    for round in 0..3 {
                        for number in 0..ACTIONS {
                            let name = format!("{} of {}", number, worker % 2);
                            let files = files_of(number);
                            let files: Vec<_> = files.iter().map(|(at, bytes)| (at.as_str(), &bytes[..])).collect();
                            let result = put(&store, &name, &files);
                            // What was put by a live session is there, whoever collects meanwhile.
                            for (_, bytes) in &files {
                                let read = store.read(&Digest::of(bytes)).expect("no error");
                                assert_eq!(read.as_deref(), Some(*bytes), "{round}");
                            }
                            store.record(result, b"f").expect("recorded");
                            assert!(store.lookup(&action(&name)).expect("no error").is_some(), "{round}");
                        }
                    }
                })
            })
            .collect();
        let collector = trial.open();
        let done = &done;
        let collecting = scope.spawn(move || {
            let mut rounds = 0;
            while !done.load(Ordering::SeqCst) {
                let options = GcOptions { mode: GcMode::Delete, bytes_max: Some(0), keep_days: Some(0) };
                collector.gc(options).expect("collected");
                rounds += 1;
            }
            rounds
        });
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::SeqCst);
        assert!(collecting.join().expect("no panic") > 0);
        for result in results {
            result.expect("no panic");
        }
    });
    let report = trial.open().verify(VerifyOptions { mode: VerifyMode::Report }).expect("readable");
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn an_action_runs_once_however_many_want_it() {
    let trial = Trial::new();
    let ran = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let store = trial.open();
            let ran = &ran;
            scope.spawn(move || {
                for number in 0..10 {
                    let name = number.to_string();
                    let lock = store.lock_action(&action(&name)).expect("it can be locked");
                    if store.lookup(&action(&name)).expect("no error").is_none() {
                        ran.fetch_add(1, Ordering::SeqCst);
                        let result = put(&store, &name, &[("x", name.as_bytes())]);
                        store.record(result, b"f").expect("recorded");
                        store.flush().expect("written");
                    }
                    drop(lock);
                }
            });
        }
    });
    assert_eq!(ran.load(Ordering::SeqCst), 10);
}
