//! A damaged, lost or moved store costs a rerun and never a wrong output.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{TestWorkspace, set};

const BIG: &str = "[task.big]\nrun = \"seq 1 20000 > big.txt; cat in.txt >> big.txt; echo small > small.txt\"\ninputs = [\"in.txt\"]\noutputs = [\"big.txt\", \"small.txt\"]\n";

fn made() -> (TestWorkspace, String) {
    let workspace = TestWorkspace::new(BIG);
    workspace.write("in.txt", "end");
    workspace.events(&["big"]);
    let text = workspace.read("big.txt");
    (workspace, text)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[track_caller]
fn still_right(workspace: &TestWorkspace, text: &str, what: &str) {
    fs::remove_file(workspace.root().join("big.txt")).expect("a file");
    let events = workspace.events(&["big"]);
    assert_eq!(events.summary()["ok"], true, "{what}");
    assert_eq!(workspace.read("big.txt"), text, "{what}");
    assert_eq!(workspace.read("small.txt"), "small\n", "{what}");
    assert_eq!(workspace.events(&["big"]).with("hit"), set(&["//:big"]), "{what}: the next run must hit");
}

#[test]
fn damaged_blobs_are_made_again() {
    let (workspace, text) = made();
    for damage in ["flip", "truncate", "empty", "remove"] {
        let blobs = files(&workspace.store().join("blobs"));
        assert!(!blobs.is_empty());
        for blob in blobs {
            let mut bytes = fs::read(&blob).expect("a blob");
            fs::remove_file(&blob).expect("a blob");
            match damage {
                "flip" => bytes[7] ^= 1,
                "truncate" => bytes.truncate(100),
                "empty" => bytes.clear(),
                _ => continue,
            }
            fs::write(&blob, bytes).expect("a blob");
        }
        still_right(&workspace, &text, damage);
    }
}

#[test]
fn a_damaged_database_is_set_aside_and_the_run_goes_on() {
    let (workspace, text) = made();
    let database = workspace.store().join("store.db");
    for damage in ["garbage", "truncated", "empty", "missing", "log missing"] {
        let bytes = fs::read(&database).unwrap_or_default();
        for suffix in ["-wal", "-shm"] {
            drop(fs::remove_file(workspace.store().join(format!("store.db{suffix}"))));
        }
        match damage {
            "garbage" => fs::write(&database, vec![0x5a; bytes.len()]).expect("a file"),
            "truncated" => fs::write(&database, &bytes[..bytes.len() / 2]).expect("a file"),
            "empty" => fs::write(&database, []).expect("a file"),
            "missing" => fs::remove_file(&database).expect("a file"),
            _ => {}
        }
        still_right(&workspace, &text, damage);
    }
}

#[test]
fn every_flipped_byte_of_the_database_costs_at_most_a_rerun() {
    let (workspace, text) = made();
    let database = workspace.store().join("store.db");
    workspace.run(&["store", "stat"]).expect(0);
    let bytes = fs::read(&database).expect("a file");
    let step = bytes.len() / 40 + 1;
    for at in (0..bytes.len()).step_by(step) {
        for suffix in ["-wal", "-shm"] {
            drop(fs::remove_file(workspace.store().join(format!("store.db{suffix}"))));
        }
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        fs::write(&database, damaged).expect("a file");
        fs::remove_file(workspace.root().join("big.txt")).expect("a file");
        workspace.events(&["big"]);
        assert_eq!(workspace.read("big.txt"), text, "byte {at}");
    }
}

#[test]
fn verify_finds_damage_and_repair_mends_it() {
    let (workspace, text) = made();
    workspace.run(&["store", "verify"]).expect(0);
    let blob = files(&workspace.store().join("blobs")).remove(0);
    fs::remove_file(&blob).expect("a blob");
    fs::write(&blob, "wrong").expect("a blob");
    workspace.run(&["store", "verify"]).expect(1);
    workspace.run(&["store", "verify", "--repair"]);
    workspace.run(&["store", "verify"]).expect(0);
    still_right(&workspace, &text, "repaired");
}

#[test]
fn collection_under_a_cap_keeps_the_store_usable() {
    let (workspace, text) = made();
    let before = workspace.run(&["store", "gc", "--dry-run", "--max-size", "0"]).expect(0);
    assert!(!before.stdout.is_empty() || !before.stderr.is_empty());
    assert_eq!(workspace.events(&["big"]).with("hit").len(), 1);
    workspace.run(&["store", "gc", "--max-size", "0"]).expect(0);
    still_right(&workspace, &text, "collected");
    workspace.run(&["store", "verify"]).expect(0);
}

#[test]
fn an_exported_closure_makes_another_store_warm() {
    let (workspace, text) = made();
    let archive = workspace.beside("closure.drystone").display().to_string();
    workspace.run(&["store", "export", "--to", &archive, "big"]).expect(0);
    let other = TestWorkspace::new(BIG);
    other.write("in.txt", "end");
    other.run(&["store", "import", &archive]).expect(0);
    assert_eq!(other.events(&["big"]).with("hit"), set(&["//:big"]));
    assert_eq!(other.read("big.txt"), text);
    let mut bytes = fs::read(&archive).expect("an archive");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&archive, bytes).expect("an archive");
    let third = TestWorkspace::new(BIG);
    third.write("in.txt", "end");
    assert_ne!(third.run(&["store", "import", &archive]).code, 0);
    assert_eq!(third.events(&["big"]).with("ran"), set(&["//:big"]));
    assert_eq!(third.read("big.txt"), text);
}

#[test]
fn caches_of_tasks_are_counted_and_collected() {
    let workspace = TestWorkspace::new(
        "[task.t]\nrun = \"cat kept/n 2>/dev/null || echo none; head -c 100000 /dev/zero > kept/n\"\ninputs = [\"in\"]\ncaches = [\"kept\"]\n",
    );
    workspace.write("in", "1");
    workspace.events(&["t"]);
    let stat = || -> serde_json::Value {
        let ran = workspace.run(&["store", "stat", "--format", "json"]).expect(0);
        serde_json::from_str(&ran.stdout).expect("JSON")
    };
    assert_eq!((stat()["caches"].as_u64(), stat()["cache_bytes"].as_u64()), (Some(1), Some(100_000)));
    let ran = workspace.run(&["store", "gc", "--max-size", "200KiB"]).expect(0);
    assert!(ran.stdout.contains("1 caches"), "{}", ran.stdout);
    assert_eq!(stat()["caches"].as_u64(), Some(0));
    workspace.write("in", "2");
    workspace.events(&["t"]);
    assert!(workspace.run(&["logs", "t"]).expect(0).stdout.contains("none"), "it starts empty again");
}

#[test]
fn a_run_that_needs_more_than_the_store_may_hold_is_told() {
    let manifest = "[store]\nmax-size = \"100KiB\"\n\
        [task.t]\nrun = \"head -c 200000 /dev/urandom > out\"\ninputs = []\noutputs = [\"out\"]\n";
    let workspace = TestWorkspace::new(manifest);
    let ran = workspace.run(&["run", "t"]).expect(0);
    assert!(ran.stderr.contains("the store is kept below 100.0 KiB"), "{}", ran.stderr);
    assert!(ran.stderr.contains("`max-size` in `[store]`"), "{}", ran.stderr);
    workspace.write("drystone.toml", &workspace.read("drystone.toml").replace("100KiB", "100MiB"));
    workspace.run(&["run", "t"]).expect(0);
    assert!(!workspace.run(&["run", "t"]).expect(0).stderr.contains("kept below"));
}
