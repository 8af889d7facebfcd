//! `affected` leaves nothing out that a change can reach, and names no more than it must of split and traced tasks.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::{TestWorkspace, set};

/// Commits what is there, as what changes are compared with.
fn committed(manifest: &str, files: &[&str]) -> TestWorkspace {
    let workspace = TestWorkspace::new(manifest);
    files.iter().for_each(|file| workspace.write(file, file));
    workspace.git(&["init", "-q"]);
    commit(&workspace);
    workspace
}

fn commit(workspace: &TestWorkspace) {
    workspace.git(&["add", "-A"]);
    workspace.git(&["commit", "-qm", "one more"]);
}

#[track_caller]
fn affected(workspace: &TestWorkspace) -> BTreeSet<String> {
    let ran = workspace.run(&["affected", "HEAD", "--format", "json"]).expect(0);
    let rows: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    rows.as_array().expect("a list").iter().map(|row| row["task"].as_str().expect("a label").to_owned()).collect()
}

fn remove(workspace: &TestWorkspace, path: &str) {
    fs::remove_file(workspace.root().join(path)).expect("it is there");
}

const SPLIT: &str = "[task.test]\nrun = \"cat ${items} > out-${shard.index}\"\ninputs = [\"src/**\"]\nsplit = { items = \"tests/*\" }\noutputs = [\"out-${shard.index}\"]\n[task.sum]\nrun = \"cat out-*\"\ninputs = []\nneeds = [\":test\"]\n";

#[test]
fn an_item_that_goes_reaches_who_needs_the_whole() {
    let workspace = committed(SPLIT, &["tests/a", "tests/b"]);
    assert_eq!(affected(&workspace), set(&[]));
    remove(&workspace, "tests/b");
    assert_eq!(affected(&workspace), set(&["//:sum"]));
    // Without any item the task fails, and a run of what is affected must not pass.
    remove(&workspace, "tests/a");
    assert_eq!(affected(&workspace), set(&["//:sum", "//:test"]));
    workspace.run(&["run", "--affected=HEAD"]).expect(1);
}

#[test]
fn a_group_that_loses_its_last_item_reaches_who_needs_the_whole() {
    let names: Vec<String> = (0..10).map(|number| format!("tests/{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let manifest = SPLIT.replace("tests/*\"", "tests/*\", per-action = 2");
    for gone in &names {
        let workspace = committed(&manifest, &names);
        remove(&workspace, gone);
        assert!(affected(&workspace).contains("//:sum"), "{gone}");
    }
}

#[test]
fn groups_that_are_made_anew_are_all_reached_and_no_others() {
    let names: Vec<String> = (0..16).map(|number| format!("tests/{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for size in ["16", "\"auto\""] {
        let workspace = committed(&SPLIT.replace("tests/*\"", &format!("tests/*\", per-action = {size}")), &names);
        workspace.write("tests/new", "new");
        assert_eq!(affected(&workspace), set(&["//:sum", "//:test"]), "{size}");
        commit(&workspace);
        // A changed item is no new one: the number of groups was the same before.
        workspace.write("tests/new", "changed");
        let reached = affected(&workspace);
        assert!(reached.len() == 2 && !reached.contains("//:test"), "{size} {reached:?}");
    }
}

#[test]
fn a_command_that_counts_the_parts_is_reached_by_one_more() {
    let workspace = committed(&SPLIT.replace("cat ${items}", "echo ${shard.total} ${items}"), &["tests/a", "tests/b"]);
    workspace.write("tests/a", "changed");
    assert_eq!(affected(&workspace), set(&["//:sum", "//:test[items=tests/a]"]));
    workspace.write("tests/c", "new");
    assert_eq!(affected(&workspace), set(&["//:sum", "//:test"]));
}

#[test]
fn a_package_that_comes_or_goes_reaches_the_one_around_it() {
    let workspace = TestWorkspace::empty();
    workspace.write("drystone.toml", "[workspace]\nname = \"test\"\n");
    workspace.write("a/drystone.toml", "[task.t]\nrun = \"true\"\n");
    workspace.write("a/in/x", "x");
    workspace.git(&["init", "-q"]);
    commit(&workspace);
    workspace.write("a/in/drystone.toml", "[task.u]\nrun = \"true\"\ninputs = []\n");
    assert_eq!(affected(&workspace), set(&["//a/in:u", "//a:t"]));
    commit(&workspace);
    workspace.write("a/in/drystone.toml", "[task.u]\nrun = \"false\"\ninputs = []\n");
    assert_eq!(affected(&workspace), set(&["//a/in:u"]));
    remove(&workspace, "a/in/drystone.toml");
    assert_eq!(affected(&workspace), set(&["//a:t"]));
}

const TRACED: &str = "[task.t]\nrun = '''SCRIPT'''\ninputs = \"traced\"\n";

fn traced(script: &str, files: &[&str]) -> TestWorkspace {
    committed(&TRACED.replace("SCRIPT", script), files)
}

#[test]
fn a_name_that_a_traced_task_has_listed_since_is_still_news() {
    let workspace = traced("ls src > /dev/null", &["src/a", "src/deep/b", "other/c"]);
    workspace.write("src/new", "new");
    workspace.events(&["t"]);
    assert_eq!(affected(&workspace), set(&["//:t"]));
    remove(&workspace, "src/new");
    workspace.events(&["t"]);
    assert_eq!(affected(&workspace), set(&[]));
    workspace.write("src/fresh/x", "a directory comes");
    workspace.events(&["t"]);
    assert_eq!(affected(&workspace), set(&["//:t"]));
    fs::remove_dir_all(workspace.root().join("src/fresh")).expect("it is there");
    workspace.write("src/deep/x", "one more in a directory that was there");
    workspace.write("src/a", "its content does not matter");
    assert_eq!(affected(&workspace), set(&[]));
    fs::remove_dir_all(workspace.root().join("src/deep")).expect("it is there");
    workspace.events(&["t"]);
    assert_eq!(affected(&workspace), set(&["//:t"]), "a directory goes");
}

#[test]
fn what_a_traced_task_touched_in_another_state_says_nothing_of_this_one() {
    let workspace = traced("if test \"$(cat which)\" = b; then cat b; fi", &["which", "b"]);
    workspace.write("which", "a");
    workspace.events(&["t"]);
    workspace.write("which", "b");
    commit(&workspace);
    workspace.write("b", "changed");
    assert_eq!(affected(&workspace), set(&["//:t"]), "what it reads where `which` is `b` is not known");
    workspace.events(&["t"]);
    workspace.write("b", "b");
    workspace.events(&["t"]);
    assert_eq!(affected(&workspace), set(&[]));
    workspace.write("other", "new");
    assert_eq!(affected(&workspace), set(&[]));
}

#[test]
fn a_traced_task_with_needs_is_reached_by_what_it_touches_alone() {
    let manifest = "[task.gen]\nrun = \"cat src/gen > gen.txt\"\ninputs = [\"src/gen\"]\noutputs = [\"gen.txt\"]\n"
        .to_owned()
        + &TRACED.replace("SCRIPT", "cat gen.txt src/own").replace("inputs", "needs = [\":gen\"]\ninputs");
    let workspace = committed(&manifest, &["src/gen", "src/own", "src/other"]);
    workspace.events(&["t"]);
    assert_eq!(affected(&workspace), set(&[]));
    workspace.write("src/other", "changed");
    assert_eq!(affected(&workspace), set(&[]));
    workspace.write("src/own", "changed");
    assert_eq!(affected(&workspace), set(&["//:t"]));
    workspace.write("src/own", "src/own");
    workspace.write("src/gen", "changed");
    assert_eq!(affected(&workspace), set(&["//:gen", "//:t"]));
}

#[test]
fn a_group_that_lost_an_item_is_reached_though_it_is_known_without_it() {
    let manifest = "[task.test]\nrun = \"cat src; : ${items}\"\ninputs = \"traced\"\nsplit = { items = \"tests/*\", per-action = 8 }\n";
    let workspace = committed(manifest, &["src", "tests/a"]);
    workspace.events(&["test"]);
    workspace.write("tests/b", "b");
    commit(&workspace);
    remove(&workspace, "tests/b");
    assert_eq!(affected(&workspace), set(&["//:test"]));
}

#[test]
fn jobs_that_know_more_than_others_still_share_all_of_the_work() {
    let items: Vec<String> = (0..12).map(|number| format!("tests/{number}")).collect();
    let mut files: Vec<&str> = items.iter().map(String::as_str).collect();
    files.push("src");
    let manifest = "[task.test]\nrun = \"cat ${items}\"\ninputs = \"traced\"\nsplit = { items = \"tests/*\" }\n[task.all]\nrun = \"cat src\"\ninputs = [\"src\"]\n";
    let workspace = committed(manifest, &files);
    workspace.write("src", "changed");
    // The second job finds in the store what the first one has learned: those of its parts are not affected.
    let mut ran = BTreeSet::new();
    for share in ["1/3", "2/3", "3/3"] {
        ran.extend(workspace.events(&["--affected=HEAD", "--shard", share, "//..."]).with("ran"));
    }
    assert_eq!(ran.len(), 13, "{ran:?}");
}

#[test]
fn a_directory_that_comes_with_an_item_of_another_part_is_seen_by_who_lists_the_one_above() {
    let manifest = "[task.test]\nrun = \"ls tests > /dev/null; cat ${items}\"\ninputs = \"traced\"\nsplit = { items = \"tests/**\" }\n";
    let workspace = committed(manifest, &["tests/a", "tests/in/b"]);
    workspace.events(&["test"]);
    workspace.write("tests/in/c", "new");
    assert_eq!(affected(&workspace), set(&["//:test[items=tests/in/c]"]));
    workspace.write("tests/fresh/d", "new");
    assert_eq!(affected(&workspace), set(&["//:test"]));
}

#[test]
fn a_repository_in_this_one_reaches_who_reads_it() {
    let manifest =
        "[task.t]\nrun = \"true\"\ninputs = [\"sub/src/**\"]\n[task.u]\nrun = \"true\"\ninputs = [\"src/**\"]\n";
    let workspace = committed(manifest, &["src/a"]);
    workspace.write("sub/src/x", "x");
    workspace.git(&["init", "-q", "sub"]);
    workspace.git(&["-C", "sub", "add", "."]);
    workspace.git(&["-C", "sub", "commit", "-qm", "one"]);
    assert_eq!(affected(&workspace), set(&["//:t"]), "a repository that git does not track");
    commit(&workspace);
    assert_eq!(affected(&workspace), set(&[]));
    workspace.write("sub/src/x", "changed");
    assert_eq!(affected(&workspace), set(&["//:t"]));
}
