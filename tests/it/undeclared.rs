//! What a task looks for and does not declare: told with the line to add, or forbidden.

use crate::support::{Events, TestWorkspace, set};

/// Every text of the diagnostics of a task's failure, or of its notes.
fn told(events: &Events, label: &str) -> Vec<String> {
    let event = events.of(label);
    let failure = event["failure"]["diagnostics"].as_array().into_iter().flatten();
    let diagnostics = failure.chain(event["notes"].as_array().expect("a list"));
    let texts = diagnostics.flat_map(|one| {
        let message = one["message"].as_str().expect("a text").to_owned();
        let help = one["help"].as_array().expect("a list").iter();
        [message].into_iter().chain(help.map(|line| line.as_str().expect("a text").to_owned())).collect::<Vec<_>>()
    });
    texts.collect()
}

fn api(task: &str) -> TestWorkspace {
    let workspace =
        TestWorkspace::new("[task.gen]\nrun = \"echo made > made.txt\"\ninputs = []\noutputs = [\"made.txt\"]\n");
    workspace.write("api/drystone.toml", task);
    workspace.write("api/tests/conftest.py", "");
    workspace.write("api/tests/test_a.py", "");
    workspace.write("shared/base.json", "{}");
    workspace.write("shared/[id].tsx", "");
    workspace.write(".gitignore", "ignored\n");
    workspace.write("api/ignored", "");
    workspace
}

#[test]
fn a_failed_task_is_told_the_line_to_add() {
    let workspace = api("[task.test]\nrun = \"cat tests/conftest.py\"\ninputs = [\"tests/test_*.py\"]\n");
    let ran = workspace.run(&["run", "//api:test"]).expect(1);
    let line = "`api/tests/conftest.py` was looked for and is not an input of `//api:test`; add \"tests/conftest.py\" to `inputs`";
    let said: String = ran.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("looked once more at `//api:test` to see what it missed"), "{}", ran.stderr);
    assert!(said.contains(line), "{}", ran.stderr);
    let events = workspace.events_with(&["//api:test"], 1);
    assert_eq!(events.of("//api:test")["attempts"], 1, "the second look is no attempt");
    assert_eq!(events.of("//api:test")["failure"]["cause"], "exit code 1");
}

#[test]
fn every_kind_of_miss_has_its_line_and_the_rest_is_counted() {
    let check = |script: &str, expect: &[&str]| {
        let workspace = api(&format!("[task.test]\nrun = '''set +e; {script}; exit 3'''\ninputs = []\n"));
        workspace.events(&["//:gen"]);
        let told = told(&workspace.events_with(&["//api:test"], 1), "//api:test");
        let expect: Vec<String> = match expect {
            [] => Vec::new(),
            lines => ["looked once more at `//api:test` to see what it missed"]
                .iter()
                .chain(lines)
                .map(|line| (*line).to_owned())
                .collect(),
        };
        assert_eq!(told, expect, "{script}");
    };
    check("test -e nothing/of/that/kind", &[]);
    check("test -e ignored", &[]);
    check("test -e drystone.toml; test -e ../.git/config", &[]);
    check(
        "test -e ../made.txt",
        &[
            "`made.txt` was looked for and is an output of `//:gen`, not seen by `//api:test`; add \"//:gen\" to `needs`",
        ],
    );
    check(
        "test -e ../shared/base.json; test -e '../shared/[id].tsx'",
        &[
            "`shared/[id].tsx` was looked for and is not an input of `//api:test`; add \"//shared/[[]id[]].tsx\" to `inputs`",
            "`shared/base.json` was looked for and is not an input of `//api:test`; add \"//shared/base.json\" to `inputs`",
        ],
    );
    check(
        "test -e tests; test -e ../shared; test -e ../shared/base.json",
        &[
            "`api/tests` was looked for and is not an input of `//api:test`; add \"tests/**\" to `inputs`",
            "`shared/base.json` was looked for and is not an input of `//api:test`; add \"//shared/base.json\" to `inputs`",
        ],
    );
}

#[test]
fn only_a_few_lines_are_told() {
    let workspace =
        api("[task.test]\nrun = \"for i in 1 2 3 4 5 6 7 8; do test -e f$i || :; done; exit 1\"\ninputs = []\n");
    for number in 1..=8 {
        workspace.write(&format!("api/f{number}"), "");
    }
    let told = told(&workspace.events_with(&["//api:test"], 1), "//api:test");
    assert_eq!((told.len(), told.last().map(String::as_str)), (7, Some("and 3 more")), "{told:?}");
}

#[test]
fn a_package_that_is_taken_whole_stays_so() {
    let workspace = api("[task.test]\nrun = \"cat ../shared/base.json\"\n");
    let told = told(&workspace.events_with(&["//api:test"], 1), "//api:test").join(" ");
    assert!(told.ends_with("write `inputs = [\"**\", \"//shared/base.json\"]`"), "{told}");
}

#[test]
fn a_listing_is_told_where_nothing_else_is_the_matter() {
    let workspace = api("[task.test]\nrun = \"ls tests; exit 1\"\ninputs = [\"tests/test_*.py\"]\n");
    let told = told(&workspace.events_with(&["//api:test"], 1), "//api:test").join(" ");
    assert!(told.contains("`api/tests` was listed without `conftest.py`, which are no inputs"), "{told}");
}

#[test]
fn a_command_that_passes_the_second_time_is_told_nothing() {
    // Its cache tells the first run from the second.
    let workspace = api(
        "[task.test]\nrun = \"test -e tests/conftest.py || :; test -e .seen/x || { touch .seen/x; exit 1; }\"\ninputs = []\ncaches = [\".seen\"]\n",
    );
    assert_eq!(told(&workspace.events_with(&["//api:test"], 1), "//api:test"), [""; 0]);
}

#[test]
fn a_task_with_network_is_not_run_again() {
    let workspace = api(
        "[task.test]\nrun = \"echo x >> .seen/x; wc -l < .seen/x; exit 1\"\ninputs = []\nnetwork = true\ncaches = [\".seen\"]\n",
    );
    for round in 1..=2 {
        let ran = workspace.run(&["run", "//api:test"]).expect(1);
        assert!(ran.stderr.contains("`drystone run --observe //api:test`"), "{}", ran.stderr);
        assert!(ran.stderr.lines().any(|line| line == round.to_string()), "round {round}: {}", ran.stderr);
    }
}

#[test]
fn observe_tells_of_a_task_that_passes_too() {
    let workspace = api("[task.test]\nrun = \"test -e tests/conftest.py || true\"\ninputs = []\n");
    let events = workspace.events(&["--observe", "//api:test"]);
    let told = told(&events, "//api:test").join(" ");
    assert!(told.contains("looked at what `//api:test` touched") && told.contains("conftest.py"), "{told}");
    // Looking changes no result.
    assert_eq!(workspace.events(&["//api:test"]).with("hit"), set(&["//api:test"]));
}

#[test]
fn error_forbids_what_warn_tells() {
    let script = "run = \"test -e tests/conftest.py || echo alone > out.txt\"\ninputs = []\noutputs = [\"out.txt\"]\n";
    let workspace = api(&format!("[task.test]\n{script}"));
    workspace.events(&["//api:test"]);
    // A pass that nobody looked at says nothing here.
    workspace.write("api/drystone.toml", &format!("[task.test]\n{script}undeclared = \"error\"\n"));
    let events = workspace.events_with(&["//api:test"], 1);
    assert_eq!(events.of("//api:test")["failure"]["cause"], "it touched what it does not declare");
    let told = told(&events, "//api:test").join(" ");
    assert!(told.contains("add \"tests/conftest.py\" to `inputs`"), "{told}");
    workspace.write(
        "api/drystone.toml",
        &format!(
            "[task.test]\n{}undeclared = \"error\"\n",
            script.replace("inputs = []", "inputs = [\"tests/conftest.py\"]").replace("alone", "x").replace("||", "&&")
        ),
    );
    assert_eq!(workspace.events(&["//api:test"]).with("ran"), set(&["//api:test"]));
    assert_eq!(workspace.events(&["//api:test"]).with("hit"), set(&["//api:test"]));
}

#[test]
fn error_forbids_undeclared_writes_and_tells_them_once() {
    let task = "[task.test]\nrun = \"echo x > stray.txt\"\ninputs = []\n";
    let workspace = api(&format!("{task}undeclared = \"error\"\n"));
    let events = workspace.events_with(&["//api:test"], 1);
    let told = told(&events, "//api:test");
    assert_eq!(told.iter().filter(|line| line.contains("stray.txt")).count(), 1, "{told:?}");
    workspace.write("api/drystone.toml", &format!("{task}undeclared = \"error\"\nscratch = [\"stray.txt\"]\n"));
    workspace.events(&["//api:test"]);
}

#[test]
fn where_not_all_was_seen_nothing_is_proven() {
    let workspace = api("[task.test]\nrun = \"true\"\ninputs = []\nisolation = \"none\"\nundeclared = \"error\"\n");
    for _ in 0..2 {
        let events = workspace.events(&["//api:test"]);
        assert_eq!(events.with("ran"), set(&["//api:test"]), "it is not kept");
        assert!(told(&events, "//api:test").join(" ").contains("not all that `//api:test` touched was seen"));
    }
}
