//! What came to different outputs is found without looking for it, told, and cuts nobody off.

use serde_json::Value;

use crate::support::{TestWorkspace, set};

/// One whose outputs depend on what is in no key, and one that needs it.
const COIN: &str = "[task.toss]\nrun = 'if [ \"$COIN\" = heads ]; then echo 1; else echo 2; fi > face'\n\
                    inputs = [\"in.txt\"]\nsecret-env = [\"COIN\"]\noutputs = [\"face\"]\n\n\
                    [task.use]\nrun = \"cat face > copy\"\ninputs = []\noutputs = [\"copy\"]\nneeds = [\":toss\"]\n";

fn tossing() -> TestWorkspace {
    let mut workspace = TestWorkspace::new(COIN);
    workspace.write("in.txt", "one\n");
    workspace.set("COIN", "heads");
    workspace
}

fn ledger(workspace: &TestWorkspace, code: i32) -> Vec<Value> {
    let text = workspace.run(&["audit", "ledger", "--format", "json"]).expect(code).stdout;
    let value: Value = serde_json::from_str(&text).expect("JSON");
    value["disagreements"].as_array().expect("a list").clone()
}

#[test]
fn a_task_with_a_random_output_is_told_when_it_ran_twice() {
    let mut workspace = TestWorkspace::new(
        "[task.dice]\nrun = \"od -An -N8 -tx1 /dev/urandom > face\"\noutputs = [\"face\"]\n\n\
         [task.sure]\nrun = \"echo 1 > sure\"\noutputs = [\"sure\"]\n",
    );
    workspace.set("DRYSTONE_MACHINE", "near");
    workspace.set("DRYSTONE_BUILDER", "me@near");
    workspace.events(&[]);
    assert!(ledger(&workspace, 0).is_empty());
    let kept = workspace.read("face");
    let forced = workspace.events(&["--force"]);
    let notes = forced.of("//:dice")["notes"].to_string();
    assert!(notes.contains("not reproducible") && notes.contains("drystone audit //:dice"), "{notes}");
    assert!(!forced.of("//:sure")["notes"].to_string().contains("not reproducible"));
    let found = ledger(&workspace, 1);
    assert_eq!((found.len(), &found[0]["label"]), (1, &Value::from("//:dice")));
    let lines = found[0]["outputs"].as_array().expect("a list");
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert_eq!((&line["builder"], &line["times"]), (&Value::from("me@near"), &Value::from(1)));
        assert_eq!(line["machine"], lines[0]["machine"]);
        assert!(!line["machine"].to_string().contains("near"));
    }
    let text = workspace.run(&["audit", "ledger"]).expect(1).stdout;
    assert!(text.contains("//:dice  action ") && text.contains("by me@near") && text.contains("1×"), "{text}");
    workspace.run(&["audit", "ledger", ":sure"]).expect(0);
    workspace.run(&["audit", "ledger", ":dice"]).expect(1);
    // The first result stays.
    workspace.events(&[]);
    assert_eq!(workspace.read("face"), kept);
}

/// Equal bytes of two actions stop the wave, until one of the actions came to different ones.
fn refuses(anew: &str) {
    let mut workspace = tossing();
    workspace.set("DRYSTONE_ANEW", anew);
    workspace.events(&[]);
    workspace.write("in.txt", "two\n");
    let stable = workspace.events(&[]);
    assert_eq!((stable.with("ran"), stable.with("hit")), (set(&["//:toss"]), set(&["//:use"])), "both are stable");
    workspace.set("COIN", "tails");
    let forced = workspace.events(&["--force", ":toss"]);
    assert!(forced.of("//:toss")["notes"].to_string().contains("not reproducible"), "{:#}", forced.of("//:toss"));
    workspace.set("COIN", "heads");
    // Once, since by now its key tells of what it is built of; then all stands.
    workspace.events(&[]);
    let still = workspace.events(&[]);
    assert_eq!((still.with("ran"), still.with("hit")), (set(&[]), set(&["//:toss", "//:use"])));
    assert_eq!(workspace.read("copy"), "1\n");
    workspace.write("in.txt", "three\n");
    let unstable = workspace.events(&[]);
    assert_eq!(unstable.with("ran"), set(&["//:toss", "//:use"]), "{:#}", unstable.of("//:use"));
    let why = unstable.why("//:use").join(" ");
    assert!(anew.is_empty() || why.contains("unstable"), "{why}");
    let still = workspace.events(&[]);
    assert_eq!(still.with("ran"), set(&[]));
    // Sources of before: the results of before. Where the last run is kept, what stood then was not keyed anew, so it runs once.
    workspace.write("in.txt", "two\n");
    let before = workspace.events(&[]).with("ran");
    assert_eq!(before, if anew.is_empty() { set(&["//:use"]) } else { set(&[]) });
}

#[test]
fn a_task_that_is_known_to_be_unstable_cuts_nobody_off() {
    refuses("1");
}

#[test]
fn nor_does_it_where_the_last_run_is_kept() {
    refuses("");
}

#[test]
fn what_is_not_kept_as_a_result_is_in_the_ledger_too() {
    let workspace = TestWorkspace::new(
        "[task.dice]\nrun = \"od -An -N8 -tx1 /dev/urandom > face\"\noutputs = [\"face\"]\ncache = false\n",
    );
    workspace.events(&[]);
    assert!(ledger(&workspace, 0).is_empty());
    workspace.events(&[]);
    assert_eq!(ledger(&workspace, 1)[0]["label"], "//:dice");
}

#[test]
fn machines_find_that_they_disagree_when_one_takes_in_what_the_other_made() {
    let (mut near, mut far) = (tossing(), tossing());
    for (workspace, name, coin) in [(&mut near, "near", "heads"), (&mut far, "far", "tails")] {
        workspace.set("DRYSTONE_MACHINE", name);
        workspace.set("DRYSTONE_BUILDER", name);
        workspace.set("COIN", coin);
        workspace.events(&[":toss"]);
    }
    let archive = far.beside("archive");
    let archive = archive.to_str().expect("a path");
    far.run(&["store", "export", ":toss", "--to", archive]).expect(0);
    let told = near.run(&["store", "import", archive]).expect(0).stdout;
    assert!(told.contains("1 differ from those here, which stay"), "{told}");
    let found = ledger(&near, 1);
    let lines = found[0]["outputs"].as_array().expect("a list");
    let mut builders: Vec<_> = lines.iter().map(|line| line["builder"].as_str().expect("a text")).collect();
    builders.sort_unstable();
    assert_eq!(builders, ["far", "near"]);
    assert_ne!(lines[0]["machine"], lines[1]["machine"]);
    assert!(ledger(&far, 0).is_empty());
    near.events(&[]);
    assert_eq!(near.read("face"), "1\n", "the first result stays");
}
