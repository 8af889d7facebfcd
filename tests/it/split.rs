//! Split tasks: one part per group of items, one report of all of them, nothing that silently does not run.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{TestWorkspace, set};

/// Fails where an item holds `bad`; writes one JUnit file and one LCOV file about its items.
const TEST: &str = r#"
[task.test]
run = "./suite ${items}"
inputs = ["suite", "src/**"]
split = { items = "tests/**/test_*" }
reports = { junit = ["junit.xml"], coverage = ["coverage.lcov"] }
"#;

const SUITE: &str = r#"#!/bin/sh
fails=0
{
    echo '<testsuite name="suite">'
    for item; do
        name=$(printf %s "$item" | sed 's/&/\&amp;/g; s/"/\&quot;/g')
        if grep -q bad "./$item"; then
            fails=1
            echo "<testcase name=\"$name\"><failure/></testcase>"
        else
            echo "<testcase name=\"$name\"/>"
        fi
    done
    echo '</testsuite>'
} > junit.xml
for item; do printf 'SF:%s\nDA:1,1\nend_of_record\n' "$item"; done > coverage.lcov
exit $fails
"#;

fn suite(manifest: &str, items: &[&str]) -> TestWorkspace {
    let workspace = TestWorkspace::new(manifest);
    add_suite(&workspace);
    items.iter().for_each(|item| workspace.write(item, item));
    workspace
}

fn add_suite(workspace: &TestWorkspace) {
    use std::os::unix::fs::PermissionsExt;
    workspace.write("suite", SUITE);
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(workspace.root().join("suite"), mode).expect("our own file");
}

/// Names of the cases in the merged report, in its order.
fn cases(workspace: &TestWorkspace, report: &str) -> Vec<String> {
    let text = workspace.read(report);
    text.lines()
        .filter_map(|line| Some(line.split_once("<testcase name=\"")?.1.split_once('"')?.0.to_owned()))
        .collect()
}

fn part(item: &str) -> String {
    format!("//:test[items={item}]")
}

const THREE: [&str; 3] = ["tests/test_a", "tests/test_b", "tests/deep/test_c"];

#[test]
fn one_changed_item_reruns_its_part_alone() {
    let workspace = suite(TEST, &THREE);
    assert_eq!(workspace.events(&["test"]).with("ran").len(), 3);
    assert_eq!(cases(&workspace, "junit.xml"), ["tests/deep/test_c", "tests/test_a", "tests/test_b"]);
    let before = workspace.snapshot();
    assert_eq!(workspace.events(&["test"]).with("hit").len(), 3);
    assert_eq!(workspace.snapshot(), before);
    workspace.write("tests/test_b", "b changed");
    let events = workspace.events(&["test"]);
    assert_eq!(events.with("ran"), set(&["//:test[items=tests/test_b]"]));
    assert_eq!(events.why("//:test[items=tests/test_b]"), ["input tests/test_b changed"]);
    workspace.write("src/lib", "shared");
    assert_eq!(workspace.events(&["test"]).with("ran").len(), 3);
}

#[test]
fn with_the_whole_package_as_input_a_part_still_sees_its_own_items_only() {
    let workspace = suite(
        "[task.test]\nrun = \"find tests -type f | sort > seen-${shard.index}; test -f ${items}\"\nsplit = { items = \"tests/**/test_*\" }\noutputs = [\"seen-${shard.index}\"]\n",
        &THREE,
    );
    workspace.write("tests/shared", "x");
    workspace.events(&["test"]);
    let seen: BTreeSet<String> =
        workspace.snapshot().keys().filter(|path| path.starts_with("seen-")).map(|path| workspace.read(path)).collect();
    assert_eq!(
        seen,
        set(&["tests/shared\ntests/test_a\n", "tests/shared\ntests/test_b\n", "tests/deep/test_c\ntests/shared\n"])
    );
    workspace.write("tests/test_new", "x");
    assert_eq!(workspace.events(&["test"]).with("ran"), set(&[&part("tests/test_new")]));
}

#[test]
fn items_come_and_go_with_their_parts_and_cases() {
    let workspace = suite(TEST, &THREE);
    workspace.events(&["test"]);
    workspace.write("tests/test_b2", "new");
    let events = workspace.events(&["test"]);
    assert_eq!((events.with("ran"), events.with("hit").len()), (set(&[&part("tests/test_b2")]), 3));
    assert_eq!(cases(&workspace, "junit.xml").len(), 4);
    std::fs::remove_file(workspace.root().join("tests/test_a")).expect("a file");
    let events = workspace.events(&["test"]);
    assert_eq!((events.with("ran").len(), events.with("hit").len()), (0, 3));
    assert_eq!(cases(&workspace, "junit.xml"), ["tests/deep/test_c", "tests/test_b", "tests/test_b2"]);
    assert!(!workspace.read("coverage.lcov").contains("test_a"));
    assert!(workspace.read("junit.xml").contains("<testsuites tests=\"3\" failures=\"0\""));
}

#[test]
fn a_failing_part_is_in_the_report_and_the_others_run_all_the_same() {
    let workspace = suite(TEST, &THREE);
    workspace.write("tests/test_a", "bad");
    let events = workspace.events_with(&["-k", "test"], 1);
    assert_eq!((events.with("failed"), events.with("ran").len()), (set(&[&part("tests/test_a")]), 2));
    let failing = workspace.read("junit.xml");
    assert!(failing.contains("<testsuites tests=\"3\" failures=\"1\""), "{failing}");
    assert!(failing.contains("<testcase name=\"tests/test_a\"><failure/>"), "{failing}");
    assert_eq!(workspace.read("coverage.lcov").matches("end_of_record").count(), 3);
    // Hits and the failing part again: the same bytes.
    workspace.events_with(&["-k", "test"], 1);
    assert_eq!(workspace.read("junit.xml"), failing);
    workspace.write("tests/test_a", "good");
    workspace.events(&["test"]);
    assert!(workspace.read("junit.xml").contains("<testsuites tests=\"3\" failures=\"0\""));
}

#[test]
fn running_one_part_changes_its_share_of_the_report_alone() {
    let workspace = suite(TEST, &THREE);
    workspace.events(&["test"]);
    workspace.write("tests/test_a", "bad");
    workspace.events_with(&[&part("tests/test_a")], 1);
    assert!(workspace.read("junit.xml").contains("tests=\"3\" failures=\"1\""));
    assert_eq!(cases(&workspace, "junit.xml"), ["tests/deep/test_c", "tests/test_a", "tests/test_b"]);
    // In a tree that remembers nothing the report is about what ran.
    let fresh = suite(TEST, &THREE);
    fresh.events(&["test[items=tests/deep/test_c]"]);
    assert_eq!(cases(&fresh, "junit.xml"), ["tests/deep/test_c"]);
}

#[test]
fn cached_and_retried_parts_merge_to_the_same_bytes() {
    let manifest = "[task.test]\nrun = \"n=$(cat tries/n 2>/dev/null || true); echo x$n > tries/n; ./suite ${items}; test $${#n} -ge 2\"\ninputs = [\"suite\"]\nsplit = { items = \"tests/*\" }\nreports = { junit = [\"junit.xml\"] }\nretries = 5\ncaches = [\"tries\"]\n";
    let workspace = suite(manifest, &["tests/a", "tests/b"]);
    let events = workspace.events(&["test"]);
    assert!(events.of(&part("tests/a"))["attempts"].as_u64() > Some(1));
    let once = workspace.read("junit.xml");
    std::fs::remove_file(workspace.root().join("junit.xml")).expect("a file");
    assert_eq!(workspace.events(&["test"]).with("hit").len(), 2);
    assert_eq!(workspace.read("junit.xml"), once);
    workspace.write("junit.xml", "damaged by hand");
    workspace.events(&["test"]);
    assert_eq!(workspace.read("junit.xml"), once);
}

#[test]
fn any_name_that_a_file_can_have_is_an_item() {
    let names = [
        "tests/test_a b",
        "tests/test_it's",
        "tests/test_\"q\"",
        "tests/test_é",
        "tests/test_$x`y`",
        "tests/test_[a],b=c#%",
        "tests/test_*",
        "tests/-test_x/test_y",
        "-test_top",
    ];
    let manifest = TEST.replace("\"tests/**/test_*\"", "[\"tests/**/test_*\", \"-test_*\"]");
    let workspace = suite(&manifest, &names);
    let events = workspace.events(&["test"]);
    assert_eq!(events.with("ran").len(), names.len(), "{:?}", events.with("failed"));
    assert_eq!(cases(&workspace, "junit.xml").len(), names.len());
    for label in events.with("ran") {
        assert_eq!(workspace.events(&[&label]).with("hit"), set(&[&label]));
    }
    assert_eq!(workspace.events(&["//:test[items=tests/test_a b]"]).with("hit").len(), 1);
    // As an array nothing passes through a shell.
    let array = manifest.replace("\"./suite ${items}\"", "[\"./suite\", \"${items}\"]");
    workspace.write("drystone.toml", &format!("[workspace]\nname = \"test\"\n{array}"));
    assert_eq!(workspace.events(&["test"]).with("ran").len(), names.len());
    assert!(cases(&workspace, "junit.xml").contains(&"./-test_top".to_owned()));
}

#[test]
fn what_git_ignores_what_is_taken_away_and_what_tasks_make_are_no_items() {
    let manifest = TEST.replace("\"tests/**/test_*\"", "[\"tests/**/test_*\", \"!tests/slow/**\"]");
    let workspace = suite(
        &format!(
            "{manifest}\n[task.gen]\nrun = \"mkdir -p tests/gen; touch tests/gen/test_g\"\ninputs = []\noutputs = [\"tests/gen/**\"]\n"
        ),
        &["tests/test_a", "tests/slow/test_s", "tests/test_ignored"],
    );
    workspace.write(".gitignore", "test_ignored\n");
    workspace.git(&["init", "-q"]);
    workspace.events(&["gen"]);
    assert_eq!(workspace.events(&["test"]).with("ran"), set(&[&part("tests/test_a")]));
}

fn many(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("tests/test_{number}")).collect()
}

#[test]
fn groups_change_one_at_a_time() {
    let manifest = TEST.replace(" }\nreports", ", per-action = 4 }\nreports");
    let names = many(26);
    let workspace = suite(&manifest, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let events = workspace.events(&["test"]);
    let labels = events.with("ran");
    assert!(labels.iter().all(|label| label.starts_with("//:test[part=") && label.ends_with("/8]")), "{labels:?}");
    let all: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(cases(&workspace, "junit.xml").into_iter().collect::<BTreeSet<_>>(), all);
    workspace.write("tests/test_26", "new");
    let events = workspace.events(&["test"]);
    assert_eq!(events.with("ran").len(), 1, "{:?}", events.with("ran"));
    let ran = events.with("ran").pop_first().expect("one");
    assert_eq!(workspace.events(&["//:test[items=tests/test_26]"]).with("hit"), set(&[&ran]));
    workspace.write("tests/test_3", "changed");
    assert_eq!(workspace.events(&["test"]).with("ran").len(), 1);
    std::fs::remove_file(workspace.root().join("tests/test_26")).expect("a file");
    let events = workspace.events(&["test"]);
    assert_eq!((events.with("ran").len(), events.with("failed").len()), (0, 0), "the earlier group is still known");
}

#[test]
fn a_matrix_and_a_split_multiply() {
    let manifest = TEST
        .replace("[task.test]", "[task.test]\nmatrix = { node = [\"20\", \"22\"] }")
        .replace("junit.xml\"", "junit-${matrix.node}.xml\"")
        .replace("./suite ${items}", "./suite ${items}; mv junit.xml junit-${matrix.node}.xml")
        .replace(", coverage = [\"coverage.lcov\"]", "")
        .replace("reports", "scratch = [\"coverage.lcov\"]\nreports");
    let workspace = suite(&manifest, &THREE);
    assert_eq!(workspace.events(&["test"]).with("ran").len(), 6);
    assert_eq!(cases(&workspace, "junit-20.xml").len(), 3);
    assert_eq!(workspace.read("junit-20.xml"), workspace.read("junit-22.xml"));
    let one = "//:test[items=tests/test_a,node=22]";
    assert_eq!(workspace.events(&[one]).with("hit"), set(&[one]));
    assert_eq!(workspace.events(&["test[node=20]"]).with("hit").len(), 3);
}

#[test]
fn who_needs_a_split_task_sees_what_all_its_parts_made() {
    let manifest = format!(
        "{}\n[task.sum]\nrun = \"cat dist/* > all.txt; grep -c testcase junit.xml >> all.txt\"\ninputs = []\nneeds = [\":test\"]\noutputs = [\"all.txt\"]\n",
        TEST.replace(
            "./suite ${items}",
            "./suite ${items}; mkdir dist; for i in ${items}; do cp $i dist/$(basename $i); done"
        )
        .replace("reports", "outputs = [\"dist/**\"]\nreports")
    );
    let workspace = suite(&manifest, &THREE);
    assert_eq!(workspace.events(&["sum"]).with("ran").len(), 4);
    assert_eq!(workspace.read("all.txt"), "tests/test_atests/test_btests/deep/test_c3\n");
    assert!(workspace.has("dist/test_a") && workspace.has("dist/test_c"));
    let before = workspace.snapshot();
    std::fs::remove_dir_all(workspace.root().join("dist")).expect("a directory");
    assert_eq!(workspace.events(&["sum"]).with("hit").len(), 4);
    assert_eq!(workspace.snapshot(), before);
    workspace.write("tests/test_a", "changed");
    assert_eq!(workspace.events(&["sum"]).with("ran"), set(&[&part("tests/test_a"), "//:sum"]));
    assert!(workspace.read("all.txt").starts_with("changed"));
    // A part that fails takes nothing away, and stops what needs the whole.
    workspace.write("tests/test_b", "bad");
    let events = workspace.events_with(&["-k", "sum"], 1);
    assert_eq!(events.with("skipped"), set(&["//:sum"]));
    assert!(workspace.has("dist/test_b") && workspace.has("dist/test_a"));
    std::fs::remove_file(workspace.root().join("tests/test_b")).expect("a file");
    workspace.events(&["sum"]);
    assert!(!workspace.has("dist/test_b"));
}

#[test]
fn parts_that_make_one_file_differently_are_told_apart_or_refused() {
    let manifest = "[task.test]\nrun = \"mkdir dist; cp ${items} dist/out\"\ninputs = []\nsplit = { items = \"tests/*\" }\noutputs = [\"dist/**\"]\n[task.next]\nrun = \"cat dist/out\"\ninputs = []\nneeds = [\":test\"]\n";
    let workspace = suite(manifest, &["tests/a", "tests/b"]);
    for _ in 0..2 {
        let ran = workspace.run(&["run", "test", "next"]).expect(1);
        for words in ["//:test[items=tests/a]", "//:test[items=tests/b]", "dist/out", "${shard.index}"] {
            assert!(ran.stderr.contains(words), "{}", ran.stderr);
        }
        assert!(!workspace.has("dist"));
    }
    workspace.write("tests/b", "tests/a");
    workspace.events(&["test", "next"]);
    assert_eq!(workspace.read("dist/out"), "tests/a");
    let apart = manifest.replace(
        "mkdir dist; cp ${items} dist/out",
        "mkdir -p dist/${shard.index}; cp ${items} dist/${shard.index}/out",
    );
    let apart = apart
        .replace("outputs = [\"dist/**\"]", "outputs = [\"dist/${shard.index}/**\"]")
        .replace("cat dist/out", "cat dist/*/out");
    workspace.write("drystone.toml", &format!("[workspace]\nname = \"test\"\n{apart}"));
    std::fs::remove_dir_all(workspace.root().join("dist")).expect("a directory");
    workspace.events(&["test", "next"]);
    assert_eq!(std::fs::read_dir(workspace.root().join("dist")).expect("a directory").count(), 2);
}

#[test]
fn reports_that_cannot_be_merged_lie_beside_each_other() {
    let manifest = TEST
        .replace("coverage.lcov\"]", "cov.xml\"]")
        .replace("${items}", "${items}; mv coverage.lcov cov.xml; echo x >> cov.xml");
    let workspace = suite(&manifest, &["tests/test_a", "tests/test_b"]);
    let found = |workspace: &TestWorkspace| -> Vec<String> {
        workspace.snapshot().into_keys().filter(|path| path.starts_with("cov")).collect()
    };
    workspace.events(&["test"]);
    let both = found(&workspace);
    assert!(
        both.len() == 2 && both.iter().all(|path| path.starts_with("cov.tests_test_") && path.ends_with(".xml")),
        "{both:?}"
    );
    std::fs::remove_file(workspace.root().join("tests/test_b")).expect("a file");
    workspace.write("tests/test_c", "new");
    workspace.events(&["test"]);
    let after = found(&workspace);
    assert!(after.len() == 2 && after[0] == both[0] && after[1].contains("test_c"), "{after:?}");
    // What is no JUnit file is told, and kept.
    let broken = TEST.replace("${items}", "${items}; printf '<testsuite>' > junit.xml");
    let workspace = suite(&broken, &["tests/test_a", "tests/test_b"]);
    let ran = workspace.run(&["run", "test"]).expect(0);
    assert!(ran.stderr.contains("was not merged") && ran.stderr.contains("has no end"), "{}", ran.stderr);
    assert_eq!(workspace.snapshot().into_keys().filter(|path| path.starts_with("junit.tests_")).count(), 2);
}

#[test]
fn no_items_are_a_warning_and_running_none_is_a_failure() {
    let workspace = suite(TEST, &["tests/other"]);
    let listed = workspace.run(&["list"]).expect(0);
    assert!(listed.stderr.contains("tests/**/test_*"), "{}", listed.stderr);
    let ran = workspace.run(&["run", "test"]).expect(1);
    assert!(ran.stderr.contains("`//:test` has no items, so there is nothing to run"), "{}", ran.stderr);
    workspace.run(&["plan", "test"]).expect(0);
    workspace.write("tests/test_a", "now there is one");
    workspace.events(&["test"]);
}

#[test]
fn a_part_cannot_be_needed() {
    let workspace =
        suite(&format!("{TEST}\n[task.x]\nrun = \"true\"\nneeds = [\":test[items=tests/test_a]\"]\n"), &THREE);
    let ran = workspace.run(&["run", "x"]).expect(2);
    assert!(ran.stderr.contains("need all of it: `//:test`"), "{}", ran.stderr);
}

#[test]
fn affected_names_the_part_of_a_changed_item_and_the_whole_for_shared_ones() {
    let workspace = suite(TEST, &THREE);
    workspace.git(&["init", "-q"]);
    workspace.git(&["add", "."]);
    workspace.git(&["commit", "-qm", "first"]);
    let affected = || -> Vec<String> {
        let ran = workspace.run(&["affected", "HEAD", "--format", "json"]).expect(0);
        let rows: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        rows.as_array().expect("a list").iter().map(|row| row["task"].as_str().expect("a label").to_owned()).collect()
    };
    assert_eq!(affected(), Vec::<String>::new());
    workspace.write("tests/test_a", "changed");
    assert_eq!(affected(), [part("tests/test_a")]);
    workspace.write("tests/test_new", "new");
    assert_eq!(affected(), [part("tests/test_a"), part("tests/test_new")]);
    workspace.write("suite", "changed");
    assert_eq!(affected(), ["//:test"]);
}

#[test]
fn mistakes_are_told_with_the_way_out() {
    let check = |task: &str, expect: &str| {
        let workspace = suite(&format!("[task.test]\n{task}\n"), &THREE);
        let ran = workspace.run(&["list"]).expect(2);
        assert!(ran.stderr.contains(expect), "{task}:\n{}", ran.stderr);
    };
    check("run = \"x ${items}\"", "`${items}` stands for a part of a task, and this one has no `split`");
    check("run = \"x\"\nsplit = { items = \"tests/*\" }", "its `run` does not name `${items}`");
    check("run = \"x $${items}\"\nsplit = { items = \"tests/*\" }", "its `run` does not name `${items}`");
    check("run = [\"x\", \"--files=${items}\"]\nsplit = { items = \"tests/*\" }", "must be a word of its own");
    check("run = [\"${items}\"]\nsplit = { items = \"tests/*\" }", "`${items}` cannot be the program");
    check(
        "run = \"x ${items}\"\nenv = { A = \"${items}\" }\nsplit = { items = \"tests/*\" }",
        "must be a word of its own",
    );
    check("run = \"x ${items}\"\nsplit = { items = \"../x/*\" }", "item `../x/*` is outside its package");
    check("run = \"x ${items}\"\nsplit = { items = [\"!x\"] }", "`items` of `split` only takes away");
    check("run = \"x ${items}\"\nsplit = { per-action = 2 }", "`split` without `items`");
    check("run = \"x ${items}\"\nsplit = { items = \"t\", per-action = 0 }", "from 1 or");
    check("run = \"x ${items}\"\nsplit = { items = \"t\", per-action = \"many\" }", "from 1 or");
    check(
        "run = \"x ${items}\"\nsplit = { items = \"t\" }\ncommitted = [\"x\"]",
        "`committed` and `split` cannot be together",
    );
    check(
        "run = \"x ${items}\"\nsplit = { items = \"t\" }\nmatrix = { part = [\"1\"] }",
        "cannot have the axis `part`",
    );
    check("run = \"x ${items}\"\nsplit = { item = \"t\" }", "has no key `item`");
}

/// What every shard of `total` does, which must be all of it, each task once.
#[track_caller]
fn shards(workspace: &TestWorkspace, total: usize, outcome: &str) -> Vec<BTreeSet<String>> {
    let all: Vec<BTreeSet<String>> = (1..=total)
        .map(|index| workspace.events(&["test", "--shard", &format!("{index}/{total}")]).with(outcome))
        .collect();
    let union: BTreeSet<String> = all.iter().flatten().cloned().collect();
    assert_eq!(union.len(), all.iter().map(BTreeSet::len).sum::<usize>(), "{all:?}");
    all
}

#[test]
fn shards_do_all_of_the_work_and_none_of_it_twice() {
    let names = many(20);
    let workspace = suite(TEST, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let first = shards(&workspace, 3, "ran");
    let expect: BTreeSet<String> = names.iter().map(|name| part(name)).collect();
    assert_eq!(first.iter().flatten().cloned().collect::<BTreeSet<_>>(), expect);
    assert!(first.iter().all(|one| one.len() <= 7), "without durations they are of one size: {first:?}");
    assert_eq!(cases(&workspace, "junit.xml").len(), 20);
    // What was measured here is not what other jobs know: nothing moves.
    assert_eq!(shards(&workspace, 3, "hit"), first);
    let archive = workspace.beside("archive");
    let archive = archive.to_str().expect("a path as text");
    workspace.run(&["store", "export", "--to", archive]).expect(0);
    workspace.run(&["store", "import", archive]).expect(0);
    let by_time = shards(&workspace, 3, "hit");
    assert_eq!(by_time.iter().flatten().cloned().collect::<BTreeSet<_>>(), expect);
    let mark = |args: &[&str]| -> String {
        let ran = workspace.run(args).expect(0);
        let line = ran.stderr.lines().find(|line| line.contains("of 20 tasks")).expect("it is told").to_owned();
        line.rsplit(' ').next().expect("a mark").to_owned()
    };
    assert_eq!(mark(&["run", "test", "--shard", "1/3"]), mark(&["run", "test", "--shard", "3/3", "--dry-run"]));
    assert_eq!(workspace.events(&["test", "--shard", "30/40"]).summary()["ok"], true);
}

#[test]
fn what_a_shard_needs_comes_along() {
    let manifest = TEST.replace("inputs = [", "needs = [\":gen\"]\ninputs = [")
        + "\n[task.gen]\nrun = \"echo x > gen.txt\"\ninputs = []\noutputs = [\"gen.txt\"]\n";
    let workspace = suite(&manifest, &THREE);
    let ran: Vec<BTreeSet<String>> =
        (1..=2).map(|index| workspace.events(&["test", "--shard", &format!("{index}/2")]).with("ran")).collect();
    assert!(ran[0].contains("//:gen") && ran[0].len() + ran[1].len() == 4, "{ran:?}");
    for bad in ["0/2", "3/2", "x", "1"] {
        let ran = workspace.run(&["run", "--shard", bad]).expect(2);
        assert!(ran.stderr.contains("I from 1 to N"), "{}", ran.stderr);
    }
}

#[test]
fn automatic_groups_are_chosen_once_and_stay() {
    let manifest = TEST.replace(" }\nreports", ", per-action = \"auto\" }\nreports");
    let names = many(40);
    let workspace = suite(&manifest, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let first = workspace.run(&["run", "test"]).expect(0);
    assert!(first.stderr.contains("takes about"), "items of milliseconds belong together: {}", first.stderr);
    let grouped = workspace.events(&["test"]);
    assert_eq!(grouped.with("ran"), set(&["//:test[part=1/1]"]));
    assert_eq!(workspace.events(&["test"]).with("hit"), set(&["//:test[part=1/1]"]));
    assert_eq!(cases(&workspace, "junit.xml").len(), 40);
    // Jobs that share work must agree: what this tree chose is its own.
    let sharded = workspace.run(&["run", "test", "--shard", "1/1", "--dry-run"]).expect(0);
    assert!(sharded.stderr.contains("has 4 of 4 tasks"), "{}", sharded.stderr);
}

#[test]
fn a_split_task_is_one_line_wherever_all_of_it_is_meant() {
    let names = many(12);
    let workspace = suite(
        &format!("{TEST}\n[task.after]\nrun = \"cat junit.xml\"\ninputs = []\nneeds = [\":test\"]\n"),
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let listed = workspace.run(&["list"]).expect(0).stdout;
    assert_eq!(listed, "//:after  run  cat junit.xml\n//:test   run  ./suite ${items}  (12 parts)\n");
    assert_eq!(workspace.run(&["query", "//..."]).expect(0).stdout, "//:after\n//:test\n");
    let graph = workspace.run(&["graph"]).expect(0).stdout;
    assert_eq!(graph.matches("->").count(), 1, "{graph}");
    let plan = workspace.run(&["plan"]).expect(0).stdout;
    assert!(plan.starts_with("    run  //:test  12 parts  first run\nperhaps  //:after  "), "{plan}");
    let ran = workspace.run(&["run"]).expect(0);
    assert!(ran.stderr.contains("ran  //:test  12 of 12 parts"), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("      ran  //:test").count(), 1, "{}", ran.stderr);
    workspace.write("tests/test_3", "changed");
    let one = workspace.run(&["query", "//:test[items=tests/test_3]"]).expect(0).stdout;
    assert_eq!(one, "//:test[items=tests/test_3]\n");
    assert!(
        workspace.run(&["plan"]).expect(0).stdout.contains("run  //:test[items=tests/test_3]  tests/test_3 changed")
    );
    workspace.run(&["run"]).expect(0);
    assert!(workspace.run(&["outputs", "//:test"]).expect(0).stdout.contains("junit.xml"));
    assert_eq!(workspace.run(&["outputs", "//:test"]).expect(0).stdout.lines().count(), 2);
    workspace.run(&["logs", "//:test"]).expect(0);
    workspace.run(&["explain", "//:test[items=tests/test_3]"]).expect(0);
    assert_eq!(
        workspace.run(&["explain", "//:test"]).expect(0).stdout,
        "//:test has 12 parts: 12 up to date\none part: drystone explain '//:test[items=tests/test_0]'\n"
    );
    workspace.write("tests/test_1", "changed");
    workspace.write("tests/test_2", "changed");
    workspace.write("tests/test_new", "new");
    assert_eq!(
        workspace.run(&["explain", "//:test"]).expect(0).stdout,
        "//:test has 13 parts: 10 up to date, 3 would run\nwhy:\n  2 parts  its items changed  //:test[items=tests/test_1]\n  \
         1 part   first run  //:test[items=tests/test_new]\none part: drystone explain '//:test[items=tests/test_1]'\n"
    );
    workspace.write("src/lib", "new");
    let explained = workspace.run(&["explain", "//:test", "--format", "json"]).expect(0).stdout;
    let explained: Value = serde_json::from_str(&explained).expect("JSON");
    assert_eq!(
        (&explained["reasons"][0]["reason"], &explained["reasons"][0]["parts"]),
        (&"src/lib added".into(), &12.into())
    );
    assert_eq!(explained["parts"].as_array().map(Vec::len), Some(13));
    // Of several tasks none is meant.
    workspace.run(&["explain", "//..."]).expect(2);
}
