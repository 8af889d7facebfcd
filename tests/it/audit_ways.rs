//! Ways through an audit: what it tells, with which exit, and what it leaves as it was.

use std::fs;

use serde_json::Value;

use crate::support::TestWorkspace;

/// One task of each kind that matters here.
const TASKS: &str = r#"
[task.host]
run = "uname -n > host"
outputs = ["host"]

[task.fine]
run = "mkdir -p cache && touch cache/used && echo 1 > fine"
outputs = ["fine"]
caches = ["cache"]

[task.picky]
run = "test \"$(umask)\" = 0022 && echo 1 > picky"
outputs = ["picky"]

[task.bare]
run = "true"

[task.broken]
run = "false"
outputs = ["never"]
"#;

fn audit(workspace: &TestWorkspace, args: &[&str], code: i32) -> Value {
    let text = workspace.run(&[&["audit", "--format", "json"], args].concat()).expect(code).stdout;
    serde_json::from_str(&text).expect("JSON alone")
}

fn task<'a>(audit: &'a Value, label: &str) -> &'a Value {
    let mut tasks = audit["tasks"].as_array().expect("tasks").iter();
    tasks.find(|task| task["label"] == label).unwrap_or_else(|| panic!("{label} in {audit}"))
}

fn outcome<'a>(task: &'a Value, dimension: &str) -> &'a Value {
    let mut varied = task["varied"].as_array().expect("a list").iter();
    &varied.find(|one| one["dimension"] == dimension).unwrap_or_else(|| panic!("{dimension} in {task}"))["outcome"]
}

#[test]
fn an_audit_tells_causes_and_leaves_tree_and_results_as_they_were() {
    let workspace = TestWorkspace::new(TASKS);
    workspace.events(&[":host", ":fine", ":picky"]);
    let before = workspace.snapshot();
    let page = workspace.beside("page.html");
    let sarif = workspace.beside("found.sarif");
    let junit = workspace.beside("found.xml");
    let files = [&page, &sarif, &junit].map(|file| file.to_str().expect("text").to_owned());
    let reports: Vec<&str> = files.iter().flat_map(|file| ["--report", file.as_str()]).collect();
    let told = audit(&workspace, &[&["-j", "4"], reports.as_slice()].concat(), 1);
    let host = task(&told, "//:host");
    let difference = &host["differences"][0];
    assert_eq!((&host["verdict"], &difference["site"]["file"]), (&"different".into(), &"host".into()), "{host}");
    assert_eq!((&difference["cause"]["id"], &difference["certainty"]), (&"host-name".into(), &"proven".into()));
    assert_eq!(outcome(host, "host-name")["kind"], "differs");
    assert_eq!(outcome(host, "umask")["kind"], "same");
    let fine = task(&told, "//:fine");
    assert_eq!((&fine["verdict"], fine["differences"].as_array().map(Vec::len)), (&"identical".into(), Some(0)));
    let picky = task(&told, "//:picky");
    assert_eq!((&picky["verdict"], outcome(picky, "umask")["kind"].as_str()), (&"inconclusive".into(), Some("fails")));
    assert_eq!(outcome(picky, "host-name")["kind"], "same");
    let left_out = told["left_out"].to_string();
    assert!(left_out.contains("//:bare") && left_out.contains("//:broken"), "{left_out}");
    for file in &files {
        let text = fs::read_to_string(file).expect("a report");
        assert!(text.contains("//:host") && text.contains("host-name"), "{file}");
    }
    // Nothing of it is in the tree, and nothing has to run again.
    assert_eq!(workspace.snapshot(), before);
    let events = workspace.events(&[":host", ":fine", ":picky"]);
    assert_eq!(events.summary()["hit"], 3);
    // Whoever varies the host name does not make the task an unstable one.
    workspace.run(&["audit", "ledger"]).expect(0);
}

#[test]
fn the_exit_is_what_was_asked_for_to_fail_on() {
    let workspace = TestWorkspace::new(TASKS);
    let check = |args: &[&str], code: i32| {
        drop(workspace.run(&[&["audit", "--vary", "host-name"], args].concat()).expect(code))
    };
    check(&[":host"], 1);
    check(&[":host", "--fail-on", "never"], 0);
    check(&[":host", "--fail-on", "suspected,inconclusive,untested"], 0);
    check(&[":host", "--fail-on", "proven"], 1);
    check(&[":fine"], 0);
    check(&["--rebuilds", "1", ":fine", "--fail-on", "inconclusive"], 1);
    check(&[":none"], 2);
    check(&[":fine", "--report", "page.pdf"], 2);
    let told = workspace.run(&["audit", "--vary", "hots-name", ":fine"]).expect(2);
    assert!(told.stderr.contains("no dimension is called `hots-name`"), "{}", told.stderr);
}

#[test]
fn what_cannot_be_varied_is_never_told_as_the_same() {
    let workspace = TestWorkspace::new(TASKS);
    let told = audit(&workspace, &["--isolation", "none", ":fine", "--vary", "clock,umask"], 0);
    for dimension in ["clock", "umask"] {
        assert_eq!(outcome(task(&told, "//:fine"), dimension)["kind"], "not-tested", "{told}");
    }
    let text = workspace.run(&["audit", "--isolation", "none", ":fine"]).expect(0).stdout;
    assert!(text.contains("not tested") && text.contains("namespaces"), "{text}");
}

#[test]
fn nothing_is_shown_of_the_outputs_of_a_task_with_secrets() {
    let mut workspace = TestWorkspace::new(
        "[task.leak]\nrun = \"mkdir out && (echo $TOKEN | rev; uname -n) > out/told\"\noutputs = [\"out/**\"]\nsecret-env = [\"TOKEN\"]\n",
    );
    workspace.set("TOKEN", "open-sesame-1234");
    let report = workspace.beside("page.html");
    let args = ["--vary", "host-name", "--report", report.to_str().expect("text")];
    let told = audit(&workspace, &args, 1);
    assert_eq!(task(&told, "//:leak")["differences"][0]["cause"]["id"], "host-name");
    let page = fs::read_to_string(report).expect("a page");
    for text in [told.to_string(), page] {
        assert!(!text.contains("open-sesame") && !text.contains("emases"), "{text}");
    }
}

#[test]
fn a_hit_that_its_sources_do_not_make_fails_the_run_that_checks_it() {
    let workspace = TestWorkspace::new(
        "[task.dice]\nrun = \"od -An -N8 -tx1 /dev/urandom > face\"\noutputs = [\"face\"]\n\n\
         [task.sure]\nrun = \"echo 1 > sure\"\noutputs = [\"sure\"]\n",
    );
    workspace.events(&[]);
    let kept = workspace.read("face");
    assert_eq!(workspace.events(&["--verify-hits", "0%"]).summary()["hit"], 2);
    assert_eq!(workspace.events(&["--verify-hits", "100%", ":sure"]).summary()["hit"], 1);
    let told = workspace.run(&["run", "--verify-hits", "100%"]).expect(1);
    assert!(told.stderr.contains("the hit of `//:dice` is not what its sources make now"), "{}", told.stderr);
    assert!(told.stderr.contains("drystone audit //:dice"), "{}", told.stderr);
    assert_eq!(workspace.read("face"), kept, "the result stays");
    // It was an execution like any other.
    workspace.run(&["audit", "ledger"]).expect(1);
    workspace.run(&["run", "--verify-hits", "1"]).expect(2);
}
