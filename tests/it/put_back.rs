//! Outputs that are gone are put back by what is kept of the last run: without a key, without a look into the table of results, and right
//! whatever else was done to them or to the store.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::support::{Events, TestWorkspace, set};

/// No two files have one content: of two that are linked at once each may get a kept file of its own.
/// `large` is more than lies in the database, `wild` writes beside sources, `last` needs both; `chance` comes out otherwise each time.
const MANIFEST: &str = "[task.large]\nrun = \"mkdir -p dist/deep; seq 40000 > dist/large; cat in.txt > dist/deep/small; ln -s small dist/deep/link\"\n\
    inputs = [\"in.txt\"]\noutputs = [\"dist/**\"]\n\n\
    [task.wild]\nrun = \"mkdir -p src; cat in.txt in.txt > src/a.gen; printf '#!/bin/sh\\\\n' > src/b.gen; chmod +x src/b.gen\"\n\
    inputs = [\"in.txt\"]\noutputs = [\"src/*.gen\"]\n\n\
    [task.last]\nrun = \"cksum < dist/large > last; cat dist/deep/link src/a.gen >> last\"\ninputs = []\noutputs = [\"last\"]\n\
    needs = [\":large\", \":wild\"]\n\n\
    [task.chance]\nrun = \"seq 40000 > chance; od -An -N8 -tx8 /dev/urandom >> chance\"\ninputs = []\noutputs = [\"chance\"]\n\n\
    [task.after]\nrun = \"tail -n1 chance > after\"\ninputs = []\noutputs = [\"after\"]\nneeds = [\":chance\"]\n";

const TASKS: [&str; 5] = ["//:after", "//:chance", "//:large", "//:last", "//:wild"];

/// Outputs may come and go where git ignores them; elsewhere a run that misses some is loaded anew.
fn write_sources(workspace: &TestWorkspace) {
    workspace.write(".gitignore", "/dist\n*.gen\n/last\n/chance\n/after\n");
    workspace.write("in.txt", "content\n");
    workspace.write("src/own.txt", "own\n");
}

fn made(manifest: &str) -> TestWorkspace {
    let workspace = TestWorkspace::new(manifest);
    write_sources(&workspace);
    workspace.events(&["//..."]);
    settle(&workspace);
    workspace
}

#[track_caller]
fn all_hit(workspace: &TestWorkspace, what: &str) -> Events {
    let events = workspace.events(&["//..."]);
    assert_eq!(events.with("hit"), set(&TASKS), "{what}");
    events
}

/// Runs until what a run is answered by is kept.
#[track_caller]
fn settle(workspace: &TestWorkspace) {
    (0..2).for_each(|_| drop(all_hit(workspace, "nothing changed")));
}

fn remove_outputs(workspace: &TestWorkspace) {
    workspace.shell("rm -rf dist src/*.gen last chance after").status().expect("rm starts");
}

/// Removes every result, as if nobody had noticed: who looks one up finds nothing.
fn forget_results(workspace: &TestWorkspace) {
    let database = rusqlite::Connection::open(workspace.store().join("store.db")).expect("a database");
    assert!(database.execute("DELETE FROM result", ()).expect("a table") > 0);
}

/// Files of contents that are too large for the database.
fn large_contents(workspace: &TestWorkspace) -> Vec<PathBuf> {
    let shards = fs::read_dir(workspace.store().join("blobs")).expect("a directory").flatten();
    let files = shards.flat_map(|shard| fs::read_dir(shard.path()).into_iter().flatten().flatten());
    files.map(|file| file.path()).collect()
}

#[test]
fn outputs_that_are_gone_come_back_and_no_result_is_looked_up() {
    let workspace = made(MANIFEST);
    let before = workspace.snapshot();
    forget_results(&workspace);
    for round in 0..3 {
        remove_outputs(&workspace);
        assert!(!workspace.has("dist") && !workspace.has("last"));
        all_hit(&workspace, "gone");
        assert_eq!(workspace.snapshot(), before, "{round}");
        let inode = || fs::symlink_metadata(workspace.root().join("dist/large")).expect("it is there").ino();
        let put = inode();
        all_hit(&workspace, "in place");
        assert_eq!(inode(), put, "{round}: left alone");
    }
}

#[test]
fn some_that_are_gone_some_that_were_edited_and_what_is_too_many_come_right_at_once() {
    let workspace = made(MANIFEST);
    let before = workspace.snapshot();
    forget_results(&workspace);
    fs::remove_file(workspace.root().join("dist/deep/small")).expect("an output");
    fs::remove_file(workspace.root().join("src/a.gen")).expect("an output");
    workspace.write("dist/more", "x\n");
    workspace.write("last", "edited\n");
    workspace.write("chance", &workspace.read("chance").replace('7', "8"));
    all_hit(&workspace, "mixed");
    assert_eq!(workspace.snapshot(), before);
    settle(&workspace);
    // What somebody wrote beside wildcards stays.
    workspace.write("src/mine.gen", "mine\n");
    fs::remove_file(workspace.root().join("src/b.gen")).expect("an output");
    all_hit(&workspace, "beside a wildcard");
    assert_eq!(workspace.read("src/mine.gen"), "mine\n");
    assert!(workspace.has("src/b.gen"));
}

#[test]
fn a_source_that_changed_as_well_is_not_missed() {
    let workspace = made(MANIFEST);
    remove_outputs(&workspace);
    workspace.write("in.txt", "another\n");
    let events = workspace.events(&["//..."]);
    assert_eq!(events.with("ran"), set(&["//:large", "//:wild", "//:last"]));
    assert_eq!(events.with("hit"), set(&["//:chance", "//:after"]));
    assert!(workspace.read("last").ends_with("another\nanother\n"));
    assert!(workspace.read("chance").ends_with(&workspace.read("after")));
    settle(&workspace);
}

#[test]
fn content_that_the_store_lost_is_made_again_and_what_needs_it_follows() {
    let workspace = made(MANIFEST);
    let before = workspace.snapshot();
    remove_outputs(&workspace);
    let lost = large_contents(&workspace);
    assert_eq!(lost.len(), 2, "{lost:?}");
    for file in &lost {
        fs::remove_file(file).expect("content");
    }
    let events = workspace.events(&["//..."]);
    // What comes out as before is no reason to run what needs it.
    assert_eq!(events.with("ran"), set(&["//:chance", "//:after", "//:large"]));
    assert!(workspace.read("chance").ends_with(&workspace.read("after")));
    let after = workspace.snapshot();
    let differing: Vec<&String> = after.keys().filter(|path| after.get(*path) != before.get(*path)).collect();
    assert_eq!(differing, ["after", "chance"]);
    settle(&workspace);
}

#[test]
fn damaged_content_is_never_put_in_place() {
    let workspace = made(MANIFEST);
    let before = workspace.snapshot();
    remove_outputs(&workspace);
    for file in large_contents(&workspace) {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("ours");
        let mut bytes = fs::read(&file).expect("content");
        bytes[7] ^= 1;
        fs::File::create(&file).and_then(|mut file| file.write_all(&bytes)).expect("ours");
    }
    let events = workspace.events(&["//..."]);
    assert_eq!(events.with("ran"), set(&["//:chance", "//:after", "//:large"]));
    assert_eq!(workspace.snapshot()["dist/large"], before["dist/large"]);
}

/// Writes into a file and leaves length, mode and modification time as they were.
fn edit_unseen(path: &Path) {
    let before = fs::metadata(path).expect("it is there");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("ours");
    let edited: Vec<u8> = fs::read(path).expect("readable").iter().map(|byte| byte ^ 1).collect();
    fs::write(path, edited).expect("ours");
    fs::set_permissions(path, before.permissions()).expect("ours");
    let file = fs::File::open(path).expect("readable");
    file.set_modified(before.modified().expect("a time")).expect("ours");
}

#[test]
fn a_linked_output_that_was_edited_in_place_is_never_taken_for_the_result() {
    let manifest = format!("[store]\nmaterialize = \"link\"\n{MANIFEST}");
    let workspace = made(&manifest);
    let mut other = TestWorkspace::new(&manifest);
    other.set("DRYSTONE_STORE", &workspace.store().display().to_string());
    write_sources(&other);
    other.events(&["//..."]);
    settle(&other);
    let (before, in_other) = (workspace.snapshot(), other.snapshot());
    let inode = |workspace: &TestWorkspace, path: &str| {
        fs::symlink_metadata(workspace.root().join(path)).expect("it is there").ino()
    };
    for path in ["dist/large", "dist/deep/small", "src/a.gen", "last"] {
        assert_eq!(inode(&workspace, path), inode(&other, path), "{path}");
        edit_unseen(&workspace.root().join(path));
        // The other one has lost its outputs, and the kept files are edited.
        remove_outputs(&other);
        all_hit(&other, path);
        assert_eq!(other.snapshot(), in_other, "{path}");
        // Here all else is gone as well.
        let aside = workspace.beside("aside");
        fs::rename(workspace.root().join(path), &aside).expect("an output");
        remove_outputs(&workspace);
        fs::create_dir_all(workspace.root().join(path).parent().expect("a directory")).expect("a directory");
        fs::rename(&aside, workspace.root().join(path)).expect("an output");
        all_hit(&workspace, path);
        assert_eq!(workspace.snapshot(), before, "{path}");
        assert!(workspace.run(&["store", "verify"]).expect(0).stdout.contains(" 0 damaged"), "{path}");
    }
}
