//! Running: order, cutoff, failure, limits, interruption.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{TestWorkspace, set};

#[test]
fn what_a_task_did_not_declare_is_not_there() {
    let workspace = TestWorkspace::new(
        "[task.peek]\nrun = \"ls -A; test ! -e secret.txt && test ! -e drystone.toml\"\ninputs = [\"seen.txt\"]\n",
    );
    workspace.write("seen.txt", "x");
    workspace.write("secret.txt", "x");
    workspace.events(&["peek"]);
}

#[test]
fn outputs_of_dependencies_are_seen_and_a_result_that_stays_the_same_stops_the_wave() {
    let workspace = TestWorkspace::new(
        r#"
[task.strip]
run = "sed 's/#.*//' source.txt > stripped.txt"
inputs = ["source.txt"]
outputs = ["stripped.txt"]

[task.count]
run = "wc -c < stripped.txt > count.txt"
inputs = []
outputs = ["count.txt"]
needs = [":strip"]
"#,
    );
    workspace.write("source.txt", "word # one\n");
    assert_eq!(workspace.events(&["count"]).with("ran"), set(&["//:strip", "//:count"]));
    workspace.write("source.txt", "word # a comment\n");
    let events = workspace.events(&["count"]);
    assert_eq!(events.with("ran"), set(&["//:strip"]));
    assert_eq!(events.with("hit"), set(&["//:count"]));
    workspace.write("source.txt", "other # a comment\n");
    let events = workspace.events(&["count"]);
    assert_eq!(events.with("ran"), set(&["//:strip", "//:count"]));
    assert_eq!(events.why("//:count"), ["input stripped.txt changed"]);
}

#[test]
fn dependants_of_an_interface_rerun_only_when_that_changes() {
    let workspace = TestWorkspace::new(
        r#"
[task.lib]
run = "mkdir dist; cp lib.c dist/lib.o; cp lib.h dist/lib.h"
inputs = ["lib.c", "lib.h"]
outputs = ["dist/**"]
interface = ["dist/*.h"]

[task.app]
run = "test ! -e dist/lib.o; cp dist/lib.h app.txt"
inputs = []
outputs = ["app.txt"]
needs = [":lib#interface"]
"#,
    );
    workspace.write("lib.c", "1");
    workspace.write("lib.h", "1");
    workspace.events(&["app"]);
    workspace.write("lib.c", "2");
    assert_eq!(workspace.events(&["app"]).with("ran"), set(&["//:lib"]));
    workspace.write("lib.h", "2");
    assert_eq!(workspace.events(&["app"]).with("ran"), set(&["//:lib", "//:app"]));
}

#[test]
fn a_failure_is_whole_last_and_says_how_to_repeat_it() {
    let workspace = TestWorkspace::new(
        r#"
[task.bad]
run = "echo out; echo err >&2; exit 7"
inputs = []

[task.after]
run = "true"
inputs = []
needs = [":bad"]
"#,
    );
    let ran = workspace.run(&["run", "after"]).expect(1);
    let all = format!("{}{}", ran.stdout, ran.stderr);
    for part in ["out\n", "err\n", "exit code 7", "drystone run //:bad", "1 failed", "1 skipped"] {
        assert!(all.contains(part), "{part:?} is missing in:\n{all}");
    }
    let events = workspace.events_with(&["after"], 1);
    assert_eq!(events.with("failed"), set(&["//:bad"]));
    assert_eq!(events.with("skipped"), set(&["//:after"]));
    assert_eq!(events.summary()["ok"], false);
}

#[test]
fn keep_going_runs_whatever_does_not_need_the_failed_task() {
    let workspace = TestWorkspace::new(
        "[task.a]\nrun = \"false\"\ninputs = []\n[task.b]\nrun = \"true\"\ninputs = []\n[task.c]\nrun = \"true\"\ninputs = []\nneeds = [\":a\"]\n",
    );
    let events = workspace.events_with(&["-k", "-j1", "a", "b", "c"], 1);
    assert_eq!((events.with("failed"), events.with("ran")), (set(&["//:a"]), set(&["//:b"])));
    assert_eq!(events.with("skipped"), set(&["//:c"]));
}

#[test]
fn failures_are_never_cached() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"exit 1\"\ninputs = []\n");
    workspace.events_with(&["a"], 1);
    assert_eq!(workspace.events_with(&["a"], 1).with("failed"), set(&["//:a"]));
}

#[test]
fn logs_are_replayed_byte_for_byte_and_secrets_are_not_in_them() {
    let mut workspace = TestWorkspace::new(
        r#"
[task.talk]
run = "echo to-out; echo token=$TOKEN >&2; printf no-newline"
inputs = []
secret-env = ["TOKEN"]
"#,
    );
    workspace.set("TOKEN", "s3cr3t-value");
    let first = workspace.run(&["run", "--output", "all", "talk"]).expect(0);
    workspace.set("TOKEN", "another-value");
    let second = workspace.run(&["run", "--output", "all", "talk"]).expect(0);
    for ran in [&first, &second] {
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert!(all.contains("to-out") && all.contains("no-newline") && !all.contains("s3cr3t-value"), "{all}");
        assert!(all.contains("token=[secret]"), "{all}");
    }
    assert_eq!(workspace.events(&["talk"]).with("hit").len(), 1, "a secret's value is not in the key");
    let found = std::process::Command::new("grep").args(["-r", "s3cr3t-value"]).arg(workspace.store()).output();
    assert!(found.expect("grep starts").stdout.is_empty(), "the secret is in the store");
}

#[test]
fn a_task_that_takes_too_long_is_ended_with_everything_it_started() {
    let workspace =
        TestWorkspace::new("[task.slow]\nrun = \"sleep 1000 & sleep 1000\"\ninputs = []\ntimeout = \"200ms\"\n");
    let events = workspace.events_with(&["slow"], 1);
    assert_eq!(events.of("//:slow")["failure"]["cause"], "timed out after 200 ms");
}

#[test]
fn retries_pass_a_task_that_fails_first_and_mark_it_flaky() {
    let workspace = TestWorkspace::new(
        "[task.shaky]\nrun = \"test -e .state/seen || { touch .state/seen; exit 1; }\"\ninputs = []\nretries = 2\ncaches = [\".state\"]\n",
    );
    let events = workspace.events(&["shaky"]);
    assert_eq!(events.of("//:shaky")["attempts"], 2);
    assert_eq!(events.of("//:shaky")["flaky"], true);
}

#[test]
fn caches_are_kept_between_runs_of_one_task_and_scratch_is_thrown_away() {
    let workspace = TestWorkspace::new(
        r#"
[task.build]
run = "echo x >> .cache/runs; mkdir -p tmp; touch tmp/junk; wc -l < .cache/runs > runs.txt; cat in.txt >> runs.txt"
inputs = ["in.txt"]
outputs = ["runs.txt"]
caches = [".cache"]
scratch = ["tmp/**"]
"#,
    );
    workspace.write("in.txt", "a");
    assert!(workspace.events(&["build"]).of("//:build")["notes"].as_array().expect("a list").is_empty());
    workspace.write("in.txt", "b");
    workspace.events(&["build"]);
    assert_eq!(workspace.read("runs.txt"), "2\nb");
    assert!(!workspace.has("tmp") && !workspace.has(".cache"));
    let caches = fs::metadata(workspace.store().join("caches")).expect("the store has caches");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&caches.permissions()) & 0o077, 0);
}

#[test]
fn scratch_may_lie_anywhere_in_the_workspace() {
    let workspace = TestWorkspace::new("");
    workspace.write(
        "app/drystone.toml",
        "[task.messy]\nrun = \"touch ../.litter ../stray in.tmp; mkdir -p ../lib/__pycache__; touch ../lib/__pycache__/x.pyc\"\n\
         inputs = [\"//lib/x.py\"]\nscratch = [\"//.litter\", \"*.tmp\"]\n",
    );
    workspace.write("lib/x.py", "");
    let notes = workspace.events(&["messy"]).of("//app:messy")["notes"].to_string();
    assert!(notes.contains("`//stray`") && !notes.contains("//.litter") && !notes.contains("pycache"), "{notes}");
}

#[test]
fn undeclared_writes_are_told_and_thrown_away() {
    let workspace = TestWorkspace::new("[task.messy]\nrun = \"touch stray.txt\"\ninputs = []\n");
    let events = workspace.events(&["messy"]);
    let notes = events.of("//:messy")["notes"].to_string();
    assert!(notes.contains("stray.txt"), "{notes}");
    assert!(!workspace.has("stray.txt"));
}

#[test]
fn files_named_on_failure_and_reports_are_there_after_a_failure() {
    let workspace = TestWorkspace::new(
        "[task.t]\nrun = \"mkdir logs; echo why > logs/a.log; echo '<xml/>' > junit.xml; exit 1\"\ninputs = []\non-failure = [\"logs/**\"]\nreports = { junit = [\"junit.xml\"] }\n",
    );
    workspace.events_with(&["t"], 1);
    assert_eq!(workspace.read("logs/a.log"), "why\n");
    assert_eq!(workspace.read("junit.xml"), "<xml/>\n");
}

#[test]
fn force_runs_again_and_says_so_and_a_dry_run_runs_nothing() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"echo 1 > a.txt\"\ninputs = []\noutputs = [\"a.txt\"]\n");
    let before = workspace.snapshot();
    workspace.run(&["run", "--dry-run", "a"]).expect(0);
    assert_eq!(workspace.snapshot(), before);
    workspace.events(&["a"]);
    let events = workspace.events(&["--force", "a"]);
    assert_eq!(events.why("//:a"), ["forced  "]);
}

#[test]
fn a_task_that_is_never_cached_always_runs() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"true\"\ninputs = []\ncache = false\n");
    workspace.events(&["a"]);
    assert_eq!(workspace.events(&["a"]).with("ran"), set(&["//:a"]));
}

#[test]
fn an_input_that_changes_while_its_task_runs_keeps_the_result_out_of_the_store() {
    let workspace = TestWorkspace::new(
        "[task.slow]\nrun = \"cat in.txt; echo go > /dev/null; while ! test -e .signal/stop; do :; done\"\ninputs = [\"in.txt\"]\ncaches = [\".signal\"]\n",
    );
    workspace.write("in.txt", "a");
    let child = workspace.command(&["run", "--format", "json", "slow"]).stdout(std::process::Stdio::piped()).spawn();
    let mut child = child.expect("the program starts");
    let stdout = child.stdout.take().expect("piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    let started = lines.by_ref().map(|line| line.expect("a line")).find(|line| line.contains("task.started"));
    assert!(started.is_some());
    // The private directory of the task is the only place both sides see; it appears once the command is set up.
    let caches = workspace.store().join("caches");
    let signal = loop {
        if let Some(Ok(entry)) = fs::read_dir(&caches).ok().and_then(|mut entries| entries.next()) {
            break entry.path();
        }
        std::thread::yield_now();
    };
    workspace.write("in.txt", "b");
    fs::write(signal.join("stop"), "").expect("a file");
    let rest: Vec<String> = lines.map(|line| line.expect("a line")).collect();
    assert!(child.wait().expect("it ends").success());
    assert!(rest.iter().any(|line| line.contains("changed while")), "{rest:?}");
    fs::remove_file(signal.join("stop")).expect("a file");
    workspace.write("in.txt", "a");
    fs::write(signal.join("stop"), "").expect("a file");
    assert_eq!(workspace.events(&["slow"]).with("ran"), set(&["//:slow"]));
}

#[test]
fn an_interrupt_ends_every_child_and_leaves_the_tree_whole() {
    let workspace = TestWorkspace::new(
        "[task.slow]\nrun = \"echo half > out.txt; sleep 1000\"\ninputs = []\noutputs = [\"out.txt\"]\n",
    );
    workspace.write("out.txt", "old");
    let before = workspace.snapshot();
    let child = workspace.command(&["run", "--format", "json", "slow"]).stdout(std::process::Stdio::piped()).spawn();
    let mut child = child.expect("the program starts");
    let stdout = child.stdout.take().expect("piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    assert!(lines.by_ref().map(|line| line.expect("a line")).any(|line| line.contains("task.started")));
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill starts").success());
    let rest: Vec<String> = lines.map(|line| line.expect("a line")).collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("\"cancelled\"")), "{rest:?}");
    assert_eq!(workspace.snapshot(), before);
}

#[test]
fn pools_limit_what_runs_at_once() {
    let body = "run = \"mkdir .lock/held; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; rmdir .lock/held; echo ${matrix.n}\"";
    let workspace = TestWorkspace::empty();
    workspace.write(
        "drystone.toml",
        &format!(
            "[workspace]\nname = \"test\"\npools = {{ db = 1 }}\n[task.use]\n{body}\ninputs = []\ncache = false\ncaches = [\".lock\"]\nresources = {{ pool = \"db\" }}\nmatrix = {{ n = [\"1\", \"2\", \"3\", \"4\"] }}\n"
        ),
    );
    assert_eq!(workspace.events(&["-j4", "use"]).with("ran").len(), 4);
}

#[test]
fn two_processes_on_one_store_run_a_task_once() {
    let workspace = TestWorkspace::new(
        "[task.once]\nrun = \"echo x >> .count/runs; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done\"\ninputs = []\ncaches = [\".count\"]\n",
    );
    let start = || workspace.command(&["run", "--format", "json", "once"]).stdout(std::process::Stdio::piped()).spawn();
    let children: Vec<_> = (0..4).map(|_| start().expect("the program starts")).collect();
    let mut outcomes = BTreeSet::new();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        outcomes.insert(text.contains("\"outcome\":\"ran\""));
    }
    assert!(outcomes.contains(&true));
    let caches = fs::read_dir(workspace.store().join("caches")).expect("a directory").next().expect("one").expect("it");
    assert_eq!(fs::read_to_string(caches.path().join("runs")).expect("a file"), "x\n");
}

#[test]
fn tools_network_and_home_are_closed_by_default() {
    let workspace = TestWorkspace::new(
        "[task.probe]\nrun = \"test $HOME = /homeless; test ! -e $HOME; test $(hostname) = drystone; test $(id -u) != 0; test ! -e /root/.cargo; test ! -e /home; pwd > where.txt\"\ninputs = []\noutputs = [\"where.txt\"]\n",
    );
    workspace.events(&["probe"]);
    assert_eq!(workspace.read("where.txt"), "/workspace\n");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"true\"\ninputs = []\n");
    let program = env!("CARGO_BIN_EXE_drystone");
    let script =
        format!("{program} run --format json a | true; {program} | true; {program} graph --format json | true");
    let output = workspace.shell(&script).output().expect("sh starts");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn jobs_of_one_action_wait_for_each_other_and_never_for_themselves() {
    // Labels are not in the key, so these eight are one action; what they need is large enough to be digested in parallel.
    let workspace = TestWorkspace::new(
        r#"
[task.dep]
run = "mkdir d; i=0; while [ $i -lt 1500 ]; do i=$((i+1)); echo $i > d/$i; done"
inputs = []
outputs = ["d/**"]

[task.t]
run = "ls d | wc -l"
inputs = []
needs = [":dep"]
matrix = { n = ["1", "2", "3", "4", "5", "6", "7", "8"] }
"#,
    );
    let events = workspace.events(&["-j4", "t"]);
    assert_eq!((events.with("ran").len(), events.with("hit").len()), (2, 7));
    assert_eq!(workspace.events(&["-j4", "--force", "t"]).with("ran").len(), 8);
}

#[test]
fn force_is_meant_for_the_tasks_that_were_asked_for() {
    let workspace = TestWorkspace::new(
        "[task.a]\nrun = \"true\"\ninputs = []\n[task.b]\nrun = \"true\"\ninputs = []\nneeds = [\":a\"]\n",
    );
    workspace.events(&["b"]);
    let events = workspace.events(&["--force", "b"]);
    assert_eq!((events.with("ran"), events.with("hit")), (set(&["//:b"]), set(&["//:a"])));
}

#[test]
fn what_came_over_the_network_is_kept_only_on_request() {
    let workspace = TestWorkspace::new(
        "[task.a]\nrun = \"true\"\ninputs = []\nnetwork = true\n[task.b]\nrun = \"true\"\ninputs = []\nnetwork = true\ncache = true\n",
    );
    workspace.events(&["a", "b"]);
    let events = workspace.events(&["a", "b"]);
    assert_eq!((events.with("ran"), events.with("hit")), (set(&["//:a"]), set(&["//:b"])));
    assert_eq!(events.why("//:a"), ["never-cached  "]);
}

/// Starts `task`, which must wait for `.signal/stop` in its cache directory, and gives that directory once it runs.
#[expect(clippy::zombie_processes, reason = "the loop only ends by giving the child to the caller, who waits for it")]
fn start_and_find_signal(workspace: &TestWorkspace, args: &[&str]) -> (std::process::Child, std::path::PathBuf) {
    let child =
        workspace.command(args).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn();
    let child = child.expect("the program starts");
    let caches = workspace.store().join("caches");
    loop {
        let entries = fs::read_dir(&caches).into_iter().flatten().flatten();
        if let Some(dir) = entries.map(|entry| entry.path()).find(|path| path.join("started").exists()) {
            return (child, dir);
        }
        std::thread::yield_now();
    }
}

const WAITING: &str = "touch .signal/started; while ! test -e .signal/stop; do :; done";

#[test]
fn what_someone_does_to_outputs_of_a_dependency_meanwhile_is_not_seen() {
    let workspace = TestWorkspace::new(&format!(
        "[task.dep]\nrun = \"mkdir d; echo 1 > d/1\"\ninputs = []\noutputs = [\"d/**\"]\n[task.t]\nrun = \"{WAITING}; ls d > out.txt; cat d/1 >> out.txt\"\ninputs = []\noutputs = [\"out.txt\"]\nneeds = [\":dep\"]\ncaches = [\".signal\"]\n"
    ));
    let (child, signal) = start_and_find_signal(&workspace, &["run", "t"]);
    workspace.write("d/2", "2");
    workspace.write("d/1", "9");
    fs::write(signal.join("stop"), "").expect("a file");
    assert!(child.wait_with_output().expect("it ends").status.success());
    assert_eq!(workspace.read("out.txt"), "1\n1\n");
    assert_eq!(workspace.events(&["t"]).with("hit"), set(&["//:dep", "//:t"]));
    assert_eq!((workspace.read("d/1"), workspace.has("d/2")), ("1\n".into(), false));
}

#[test]
fn an_input_that_changed_before_it_could_be_shown_is_shown_and_the_result_not_kept() {
    let workspace = TestWorkspace::new(&format!(
        "[task.dep]\nrun = \"{WAITING}\"\ninputs = []\ncache = false\ncaches = [\".signal\"]\n[task.t]\nrun = \"cat in/* | tee out.txt | wc -c\"\ninputs = [\"in/*\"]\noutputs = [\"out.txt\"]\nneeds = [\":dep\"]\n"
    ));
    let large = |letter: &str| letter.repeat(200_000);
    for (name, was, is) in [("small", "1".to_owned(), "2".to_owned()), ("large", large("1"), large("2"))] {
        for other in ["small", "large"] {
            workspace.write(&format!("in/{other}"), "same");
        }
        workspace.write(&format!("in/{name}"), &was);
        let (child, signal) = start_and_find_signal(&workspace, &["run", "--force", "t"]);
        workspace.write(&format!("in/{name}"), &is);
        fs::write(signal.join("stop"), "").expect("a file");
        assert!(child.wait_with_output().expect("it ends").status.success());
        assert!(workspace.read("out.txt").contains(&is), "{name} is shown as it is");
        workspace.write(&format!("in/{name}"), &was);
        assert!(workspace.events(&["t"]).with("ran").contains("//:t"), "{name}: the tainted result was kept");
        assert!(workspace.read("out.txt").contains(&was));
        fs::remove_file(signal.join("started")).expect("it is there");
        fs::remove_file(signal.join("stop")).expect("it is there");
    }
}

#[test]
fn an_interrupt_ends_the_wait_for_another_process() {
    let workspace =
        TestWorkspace::new(&format!("[task.t]\nrun = \"{WAITING}\"\ninputs = []\ncaches = [\".signal\"]\n"));
    let (first, signal) = start_and_find_signal(&workspace, &["run", "t"]);
    let second = workspace.command(&["run", "--format", "json", "t"]).stdout(std::process::Stdio::piped()).spawn();
    let mut second = second.expect("the program starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(second.stdout.take().expect("piped")));
    assert!(lines.by_ref().map(|line| line.expect("a line")).any(|line| line.contains("task.started")));
    let killed = std::process::Command::new("kill").args(["-INT", &second.id().to_string()]).status();
    assert!(killed.expect("kill starts").success());
    assert_eq!(second.wait().expect("it ends").code(), Some(130));
    fs::write(signal.join("stop"), "").expect("a file");
    assert!(first.wait_with_output().expect("it ends").status.success());
}
