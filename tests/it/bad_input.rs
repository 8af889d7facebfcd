//! Wrong input: exit code 2, a clear word, and nothing changed on disk.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::TestWorkspace;

/// The run must be refused with all of these words, leaving the tree as it was.
#[track_caller]
fn refused(workspace: &TestWorkspace, args: &[&str], words: &[&str]) {
    let before = workspace.snapshot();
    let ran = workspace.run(args).expect(2);
    let all = format!("{}{}", ran.stdout, ran.stderr);
    for word in words {
        assert!(all.contains(word), "{word:?} is missing in:\n{all}");
    }
    assert_eq!(workspace.snapshot(), before, "the tree changed");
}

const GOOD: &str = "[task.a]\nrun = \"touch made\"\ninputs = []\noutputs = [\"made\"]\n";

#[test]
fn broken_toml_is_underlined_with_its_line() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"true\n");
    refused(&workspace, &["run", "a"], &["error", "drystone.toml:5:"]);
}

#[test]
fn every_unknown_key_is_told_at_once_with_the_nearest_one() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"true\"\ninput = []\n[task.b]\nrnu = \"true\"\nneds = []\n");
    refused(
        &workspace,
        &["run", "a"],
        &["`input`", "`inputs`", "`rnu`", "`run`", "`neds`", "`needs`", "drystone.toml:6:1"],
    );
}

#[test]
fn an_unknown_task_names_the_nearest() {
    let workspace = TestWorkspace::new(GOOD.replace("task.a", "task.build").as_str());
    refused(&workspace, &["run", "biuld"], &["biuld", "build"]);
    refused(&workspace, &["run", "//no/such:build"], &["//no/such"]);
}

#[test]
fn an_unknown_need_names_the_nearest() {
    let workspace = TestWorkspace::new(&format!("{GOOD}[task.b]\nrun = \"true\"\nneeds = [\":aa\"]\n"));
    refused(&workspace, &["run", "b"], &[":aa", "//:a", "drystone.toml:10:"]);
}

#[test]
fn a_circle_is_told_edge_by_edge() {
    let workspace = TestWorkspace::new(
        "[task.a]\nrun = \"true\"\nneeds = [\":b\"]\n[task.b]\nrun = \"true\"\nneeds = [\":c\"]\n[task.c]\nrun = \"true\"\nneeds = [\":a\"]\n",
    );
    refused(&workspace, &["run", "a"], &["//:a", "//:b", "//:c", "drystone.toml:6:", "\n 9 |", "\n12 |"]);
}

#[test]
fn a_missing_tool_stops_everything_before_it_starts() {
    let workspace =
        TestWorkspace::new(&format!("{GOOD}[task.b]\nrun = \"x\"\ninputs = []\ntools = [\"no-such-tool\"]\n"));
    refused(&workspace, &["run", "a", "b"], &["no-such-tool", "PATH", "drystone.toml:11:"]);
}

#[test]
fn an_output_outside_its_package_is_refused() {
    for output in ["../x", "/etc/x", "//x", "a/../../x"] {
        let workspace = TestWorkspace::new(&format!("[task.a]\nrun = \"true\"\noutputs = [\"{output}\"]\n"));
        refused(&workspace, &["run", "a"], &[output, "drystone.toml:6:"]);
    }
}

#[test]
fn one_output_of_two_tasks_names_both() {
    let workspace = TestWorkspace::new(&format!("{GOOD}[task.b]\nrun = \"true\"\noutputs = [\"made\"]\n"));
    refused(&workspace, &["run", "a"], &["//:a", "//:b", "made"]);
}

#[test]
fn a_manifest_that_claims_an_output_of_another_package_is_refused() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"true\"\noutputs = [\"libs/ui/dist/**\"]\n");
    workspace.write("libs/ui/drystone.toml", "[task.build]\nrun = \"true\"\noutputs = [\"dist/**\"]\n");
    refused(&workspace, &["run", "a"], &["libs/ui"]);
}

#[test]
fn names_that_are_not_utf8_are_told() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"touch made\"\noutputs = [\"made\"]\n");
    let name = std::ffi::OsStr::from_bytes(b"bad-\xff-name");
    fs::write(workspace.root().join(name), "x").expect("a file");
    refused(&workspace, &["run", "a"], &["UTF-8", "bad-"]);
}

#[test]
fn a_huge_manifest_is_refused_without_being_read() {
    let workspace = TestWorkspace::new(&format!("# {}\n{GOOD}", "x".repeat(10 * 1024 * 1024)));
    refused(&workspace, &["run", "a"], &["drystone.toml", "MiB"]);
}

#[test]
fn a_circle_of_links_is_told() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"touch made\"\ninputs = [\"src\"]\noutputs = [\"made\"]\n");
    fs::create_dir(workspace.root().join("src")).expect("a directory");
    symlink("two", workspace.root().join("src/one")).expect("a link");
    symlink("one", workspace.root().join("src/two")).expect("a link");
    refused(&workspace, &["run", "a"], &["src/one"]);
    let workspace = TestWorkspace::new(GOOD);
    fs::create_dir(workspace.root().join("lib")).expect("a directory");
    symlink("drystone.toml", workspace.root().join("lib/drystone.toml")).expect("a link");
    refused(&workspace, &["run", "a"], &["lib/drystone.toml"]);
}

#[test]
fn an_unreadable_directory_is_told() {
    if rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED as root: permission bits do not stop root; the suite runs as an ordinary user as well");
        return;
    }
    let workspace = TestWorkspace::new("[task.a]\nrun = \"touch made\"\noutputs = [\"made\"]\n");
    let closed = workspace.root().join("closed");
    fs::create_dir(&closed).expect("a directory");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("a mode");
    let ran = workspace.run(&["run", "a"]);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).expect("a mode");
    assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("closed"));
}

#[test]
fn no_workspace_at_all_says_how_to_make_one() {
    let workspace = TestWorkspace::empty();
    refused(&workspace, &["run", "a"], &["drystone.toml", "drystone init"]);
}

#[test]
fn wrong_words_on_the_command_line_are_usage_errors() {
    let workspace = TestWorkspace::new(GOOD);
    for args in [&["rnu"][..], &["run", "--frobnicate"], &["run", "-j", "none", "a"], &["run", "-j", "0", "a"]] {
        refused(&workspace, args, &["error"]);
    }
}

#[test]
fn what_later_versions_will_know_is_refused_and_not_ignored() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"true\"\n[gate.web]\nrequire = [\"a\"]\n");
    refused(&workspace, &["run", "a"], &["gate", "not supported"]);
}

#[test]
fn an_interpolation_that_does_not_exist_names_those_that_do() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"echo ${package.nmae}\"\n");
    refused(&workspace, &["run", "a"], &["package.nmae", "package.name"]);
}

#[test]
fn a_pattern_that_matches_nothing_is_a_warning_that_names_it() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"true\"\ninputs = [\"sorce/**\"]\n");
    let ran = workspace.run(&["run", "a"]).expect(0);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("sorce/**"), "{}{}", ran.stdout, ran.stderr);
}
