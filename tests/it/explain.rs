//! Each task that runs says why; `plan` and `explain` say all of it.

use crate::support::{TestWorkspace, set};

fn sample() -> TestWorkspace {
    let workspace = TestWorkspace::empty();
    workspace.write("drystone.toml", &manifest("test"));
    workspace.write("src/parse.c", "1");
    workspace
}

fn manifest(mode: &str) -> String {
    format!(
        "[workspace]\nname = \"test\"\n[task.build]\nrun = \"cat src/* > out.txt\"\ninputs = [\"src/**\"]\noutputs = [\"out.txt\"]\nenv = {{ NODE_ENV = \"{mode}\" }}\n[task.after]\nrun = \"true\"\ninputs = []\nneeds = [\":build\"]\n"
    )
}

#[test]
fn every_reason_is_a_line() {
    let workspace = sample();
    assert_eq!(workspace.events(&["build"]).why("//:build"), ["first-run  "]);
    workspace.write("src/parse.c", "2");
    assert_eq!(workspace.events(&["build"]).why("//:build"), ["input src/parse.c changed"]);
    workspace.write("src/lex.c", "2");
    assert_eq!(workspace.events(&["build"]).why("//:build"), ["input src/lex.c added"]);
    workspace.write("drystone.toml", &manifest("production"));
    assert_eq!(workspace.events(&["build"]).why("//:build"), ["env NODE_ENV \"test\" → \"production\""]);
    std::fs::remove_file(workspace.root().join("src/lex.c")).expect("a file");
    let ran = workspace.run(&["run", "build"]).expect(0);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("src/lex.c removed"), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn the_nearest_earlier_result_explains_even_several_runs_later() {
    let workspace = sample();
    for text in ["1", "2", "3", "4"] {
        workspace.write("src/parse.c", text);
        workspace.events(&["build"]);
    }
    workspace.write("src/parse.c", "1");
    workspace.write("src/new.c", "x");
    assert_eq!(workspace.events(&["build"]).why("//:build"), ["input src/new.c added"]);
}

#[test]
fn a_result_of_another_worktree_explains_as_well() {
    let workspace = sample();
    workspace.git(&["init", "-q"]);
    workspace.git(&["add", "."]);
    workspace.git(&["commit", "-qm", "one"]);
    workspace.events(&["build"]);
    let other = workspace.beside("other").display().to_string();
    workspace.git(&["worktree", "add", "-q", &other]);
    std::fs::write(workspace.beside("other/src/parse.c"), "2").expect("a file");
    assert_eq!(workspace.events(&["-C", &other, "build"]).why("//:build"), ["input src/parse.c changed"]);
}

#[test]
fn clones_of_one_remote_explain_each_other() {
    let workspace = sample();
    workspace.git(&["init", "-q"]);
    workspace.git(&["remote", "add", "origin", "git@example.invalid:acme/shop.git"]);
    workspace.events(&["build"]);
    let mut clone = sample();
    clone.set("DRYSTONE_STORE", &workspace.store().display().to_string());
    clone.git(&["init", "-q"]);
    clone.git(&["remote", "add", "origin", "https://example.invalid/acme/shop"]);
    clone.write("src/parse.c", "2");
    assert_eq!(clone.events(&["build"]).why("//:build"), ["input src/parse.c changed"]);
}

#[test]
fn unrelated_workspaces_of_one_store_never_explain_each_other() {
    let one = sample();
    one.git(&["init", "-q"]);
    one.events(&["build"]);
    for is_repository in [true, false] {
        let mut other = sample();
        if is_repository {
            other.git(&["init", "-q"]);
        }
        other.set("DRYSTONE_STORE", &one.store().display().to_string());
        other.write("src/parse.c", if is_repository { "2" } else { "3" });
        assert_eq!(other.events(&["build"]).why("//:build"), ["first-run  "]);
        other.write("src/parse.c", if is_repository { "4" } else { "5" });
        assert_eq!(other.events(&["build"]).why("//:build"), ["input src/parse.c changed"]);
    }
}

#[test]
fn plan_tells_what_would_run_and_runs_nothing() {
    let workspace = sample();
    let text = |ran: &crate::support::Ran| format!("{}{}", ran.stdout, ran.stderr);
    let ran = workspace.run(&["plan", "after"]).expect(0);
    assert!(text(&ran).contains("//:build") && text(&ran).contains("first run"), "{}", text(&ran));
    assert!(!workspace.has("out.txt"));
    workspace.events(&["after"]);
    workspace.write("src/parse.c", "2");
    let ran = workspace.run(&["plan", "--format", "json", "after"]).expect(0);
    let tasks: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let tasks = tasks.as_array().expect("a list").clone();
    let of = |label: &str| tasks.iter().find(|task| task["task"] == label).expect("it is there").clone();
    assert_eq!(of("//:build")["forecast"], "run");
    assert_eq!(of("//:build")["why"][0]["name"], "src/parse.c");
    assert_eq!(of("//:after")["forecast"], "perhaps");
    assert_eq!(workspace.events(&["after"]).with("ran"), set(&["//:build", "//:after"]));
}

#[test]
fn explain_tells_why_a_task_ran_last_and_why_it_would_run_now() {
    let workspace = sample();
    workspace.events(&["build"]);
    workspace.write("src/parse.c", "2");
    let ran = workspace.run(&["explain", "//:build"]).expect(0);
    assert!(ran.stdout.contains("src/parse.c changed"), "{}", ran.stdout);
    workspace.events(&["build"]);
    let ran = workspace.run(&["explain", "//:build"]).expect(0);
    assert!(ran.stdout.contains("up to date") && ran.stdout.contains("src/parse.c changed"), "{}", ran.stdout);
    let ran = workspace.run(&["explain", "--format", "json", "//:build"]).expect(0);
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(told["forecast"], "hit");
    assert_eq!(told["action"].as_str().map(str::len), Some(64));
}
