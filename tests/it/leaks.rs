//! What must stay where it is: secrets out of logs, outputs and the store; workspaces out of each other's explanations.

use std::fs;
use std::path::Path;

use crate::support::{TestWorkspace, set};

/// Files below a directory that hold the bytes.
fn files_with(dir: &Path, value: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            found.extend(files_with(&path, value));
        } else if fs::read(&path).expect("a file").windows(value.len()).any(|window| window == value) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_secret_in_an_output_is_shown_and_never_stored() {
    for materialize in ["copy", "link"] {
        let mut workspace = TestWorkspace::new(&format!(
            "[store]\nmaterialize = \"{materialize}\"\n[task.t]\nrun = \"echo key=$TOKEN > out.txt; echo fine > other.txt\"\ninputs = []\noutputs = [\"*.txt\"]\nsecret-env = [\"TOKEN\"]\n",
        ));
        workspace.set("TOKEN", "s3cr3t-value");
        for _ in 0..2 {
            let events = workspace.events(&["t"]);
            assert_eq!(events.with("ran"), set(&["//:t"]), "never served from the store");
        }
        let ran = workspace.run(&["run", "t"]).expect(0);
        let text = format!("{}{}", ran.stdout, ran.stderr);
        assert!(text.contains("`out.txt` of `//:t` holds a secret") && !text.contains("s3cr3t-value"), "{text}");
        assert_eq!(workspace.read("out.txt"), "key=s3cr3t-value\n");
        assert_eq!(files_with(&workspace.store(), b"s3cr3t-value"), Vec::<String>::new());
        workspace.set("TOKEN", "another");
        assert_eq!(workspace.events(&["t"]).with("ran"), set(&["//:t"]));
        assert_eq!(workspace.read("out.txt"), "key=another\n");
    }
}

#[test]
fn a_task_that_copies_a_secret_from_a_dependency_is_not_stored_either() {
    let mut workspace = TestWorkspace::new(
        r#"
[task.make]
run = "echo $TOKEN > made.txt"
inputs = []
outputs = ["made.txt"]
secret-env = ["TOKEN"]

[task.copy]
run = "cat made.txt; cp made.txt copy.txt"
inputs = []
outputs = ["copy.txt"]
needs = [":make"]

[task.clean]
run = "wc -l < made.txt > lines.txt"
inputs = []
outputs = ["lines.txt"]
needs = [":make"]
"#,
    );
    workspace.set("TOKEN", "s3cr3t-value");
    workspace.events(&["copy", "clean"]);
    let ran = workspace.run(&["run", "copy"]).expect(0);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("s3cr3t-value"));
    let events = workspace.events(&["copy", "clean"]);
    assert_eq!((events.with("ran"), events.with("hit")), (set(&["//:make", "//:copy"]), set(&["//:clean"])));
    assert_eq!(workspace.read("copy.txt"), "s3cr3t-value\n");
    assert_eq!(files_with(&workspace.store(), b"s3cr3t-value"), Vec::<String>::new());
}

#[test]
fn a_failed_task_leaves_no_secret_in_the_store() {
    let mut workspace = TestWorkspace::new(
        "[task.t]\nrun = \"echo $TOKEN | tee report.txt; exit 1\"\ninputs = []\non-failure = [\"report.txt\"]\nsecret-env = [\"TOKEN\"]\n",
    );
    workspace.set("TOKEN", "s3cr3t-value");
    workspace.events_with(&["t"], 1);
    assert_eq!(workspace.read("report.txt"), "s3cr3t-value\n");
    assert_eq!(files_with(&workspace.store(), b"s3cr3t-value"), Vec::<String>::new());
}

#[test]
fn a_secret_that_begins_with_another_leaves_no_end_in_the_log() {
    let mut workspace = TestWorkspace::new(
        "[task.t]\nrun = \"printf abc-; cat /dev/null; printf def.\"\ninputs = []\nsecret-env = [\"SHORT\", \"LONG\"]\n",
    );
    workspace.set("SHORT", "abc-");
    workspace.set("LONG", "abc-def");
    workspace.events(&["t"]);
    let logs = workspace.run(&["logs", "t"]).expect(0);
    assert!(logs.stdout.contains("[secret].") && !logs.stdout.contains("def"), "{}", logs.stdout);
}

#[test]
fn copies_that_dependants_are_shown_of_outputs_with_secrets_do_not_stay() {
    let mut workspace = TestWorkspace::new(
        r#"
[task.make]
run = "mkdir d; for i in $(seq 100); do echo $i > d/$i; done; echo $TOKEN > d/100; head -c 300000 /dev/zero > big; echo $TOKEN >> big"
inputs = []
outputs = ["d/**", "big"]
secret-env = ["TOKEN"]

[task.use]
run = "cat d/* big | wc -c > size"
inputs = []
outputs = ["size"]
needs = [":make"]
"#,
    );
    workspace.set("TOKEN", "s3cr3t-value");
    for (first, second) in [("ran", set(&["//:make", "//:use"])), ("hit", set(&["//:use"]))] {
        let events = workspace.events(&["use"]);
        assert_eq!(events.with(first), second);
        assert_eq!(files_with(&workspace.store(), b"s3cr3t-value"), Vec::<String>::new());
    }
}
