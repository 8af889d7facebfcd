//! `drystone doctor --reproducible`: what is told before anything is built, with its place, its way out and the exit code.

use serde_json::Value;

use crate::support::TestWorkspace;

const HABITS: &str = r#"[task.stamp]
run = "echo built $(date) > out.txt"
inputs = []
outputs = ["out.txt"]

[task.words]
run = ["cc", "-march=native", "-o", "app", "app.c"]
inputs = ["app.c"]
outputs = ["app"]
tools = ["cc"]
network = true
isolation = "none"
pass-env = ["CFLAGS"]
env = { CPATH = "/usr/include:/home/ann/include", PLAIN = "x" }

[task.good]
run = "cat app.c > copy.txt"
inputs = ["app.c"]
outputs = ["copy.txt"]
"#;

/// Findings of a severity: label and what.
fn found(workspace: &TestWorkspace, code: i32, severity: &str) -> Vec<(String, String)> {
    let ran = workspace.run(&["doctor", "--reproducible", "--format", "json"]).expect(code);
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout).expect("findings");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meant = rows.iter().filter(|row| row["severity"] == severity);
    meant.map(|row| (text(&row["label"]), text(&row["what"]))).collect()
}

#[test]
fn habits_and_open_doors_are_told_with_their_place_and_the_way_out() {
    let workspace = TestWorkspace::new(HABITS);
    workspace.write("app.c", "int main(void) { return 0; }\n");
    let ran = workspace.run(&["doctor", "--reproducible"]).expect(0);
    for told in [
        "`//:stamp` may not reproduce elsewhere: its command has `date`",
        "drystone.toml:4:",
        "the time of the build is in what it prints",
        "`$SOURCE_DATE_EPOCH`",
        "`-march=x86-64-v2`",
        "it declares `network = true`",
        "it declares `isolation = \"none\"`",
        "`pass-env` names `CFLAGS`",
        "`CPATH` of `env` names `/home/ann/include`",
        "0 will not reproduce elsewhere, ",
    ] {
        assert!(ran.stderr.contains(told), "{told}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("//:good") && ran.stdout.is_empty(), "{} {}", ran.stderr, ran.stdout);
    let of = |label: &str| found(&workspace, 0, "may-not").into_iter().filter(|(one, _)| one == label).count();
    assert_eq!((of("//:stamp"), of("//:words"), of("//:good")), (1, 5, 0));
    assert!(!workspace.has("out.txt"), "nothing is built");
}

#[test]
fn a_base_that_nothing_pins_will_not_reproduce_until_it_is_pinned() {
    let base = |name: &str| {
        TestWorkspace::new(&format!("[image.app]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nbase = \"{name}\"\n"))
    };
    let workspace = base("registry.invalid/library/base:1");
    let what = "its base `registry.invalid/library/base:1` is not pinned in drystone.lock".to_owned();
    assert_eq!(found(&workspace, 1, "will-not"), [("//:app".to_owned(), what)]);
    let told = workspace.run(&["doctor", "--reproducible"]).expect(1).stderr;
    assert!(told.contains("drystone.toml:6:8") && told.contains("`drystone lock` writes its digest"), "{told}");
    let digest = "0".repeat(64);
    let workspace = base(&format!("registry.invalid/library/base@sha256:{digest}"));
    assert_eq!(found(&workspace, 0, "will-not"), []);
}

#[test]
fn settings_of_git_that_change_files_are_told() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"true\"\ninputs = []\n");
    workspace.git(&["init", "-q"]);
    workspace.git(&["config", "core.autocrlf", "false"]);
    let of_git = || found(&workspace, 0, "may-not").into_iter().filter(|(_, what)| what.contains("git")).count();
    assert_eq!(of_git(), 0);
    workspace.git(&["config", "core.autocrlf", "true"]);
    workspace.git(&["config", "core.fileMode", "false"]);
    assert_eq!(of_git(), 2);
}

#[test]
fn a_workspace_in_which_nothing_is_found_ends_well() {
    let workspace = TestWorkspace::new(
        "[task.a]\nrun = \"cat in.txt > out.txt\"\ninputs = [\"in.txt\"]\noutputs = [\"out.txt\"]\n",
    );
    workspace.write("in.txt", "x\n");
    let ran = workspace.run(&["doctor", "--reproducible"]).expect(0);
    assert!(ran.stderr.contains("0 will not reproduce elsewhere, ") && !ran.stderr.contains("//:a"), "{}", ran.stderr);
    TestWorkspace::empty().run(&["doctor", "--reproducible"]).expect(2);
}
