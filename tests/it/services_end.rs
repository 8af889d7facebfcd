//! How services end, and what they must neither leave behind nor give away.

use std::time::{Duration, Instant};

use crate::support::{TestWorkspace, set};

#[test]
fn the_last_words_of_a_service_are_shown_even_without_a_line_end() {
    let workspace = TestWorkspace::new(
        "[service.brief]\nrun = \"echo up; printf 'cannot open the door'; exit 4\"\nready = { log = \"up\" }\ninputs = []\n",
    );
    let told = workspace.run(&["run", ":brief"]).expect(1).stderr;
    assert!(told.contains("//:brief | cannot open the door\n"), "{told}");
}

/// A service that prints the first line it is sent, and ends with the second.
const PARROT: &str = r#"
[service.parrot]
run = "mkfifo /services/in /services/life; exec 3<>/services/life; echo up; read word < /services/in; echo heard $word; read word < /services/in; exit 5"
ready = { log = "up" }
inputs = []
"#;

#[test]
fn what_a_service_was_told_by_one_task_is_no_secret_given_away_by_another() {
    let mut workspace = TestWorkspace::new(&format!(
        r#"{PARROT}
[task.tells]
run = "echo $TOKEN > /services/in"
secret-env = ["TOKEN"]
services = [":parrot"]
inputs = []

[task.fails]
run = "exec 4</services/life; echo enough > /services/in; cat <&4; false"
needs = [":order"]
services = [":parrot"]
inputs = []

[task.order]
run = "true"
needs = [":tells"]
inputs = []
"#
    ));
    workspace.set("TOKEN", "very-secret-word");
    let told = workspace.run(&["run"]).expect(1).stderr;
    assert!(told.contains("service //:parrot printed:\nup\nheard [secret]\n"), "{told}");
    assert!(!told.contains("very-secret-word"), "{told}");
    let kept = workspace.shell(&format!("grep -rl very-secret-word {}", workspace.store().display())).output();
    assert_eq!(
        String::from_utf8_lossy(&kept.expect("grep starts").stdout),
        "",
        "files of the store that hold the secret"
    );
}

#[test]
fn services_that_have_ended_hold_nothing_until_the_run_is_over() {
    const SETS: usize = 40;
    let pairs: String = (0..SETS)
        .map(|number| {
            format!(
                "[service.s{number}]\nrun = \"echo up; exec tail -f /dev/null\"\nready = {{ log = \"up\" }}\ninputs = []\n\
                 [task.t{number}]\nrun = \"true\"\nservices = [\":s{number}\"]\ninputs = []\n"
            )
        })
        .collect();
    let workspace = TestWorkspace::new(&pairs);
    // Each of them takes about eight descriptors; the run itself fewer than sixty.
    let script = format!("ulimit -n 128; exec {} run -j 1", env!("CARGO_BIN_EXE_drystone"));
    let output = workspace.shell(&script).output().expect("a shell");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains(&format!("{SETS} ran")), "{told}");
}

#[test]
fn services_that_do_not_come_up_together_are_stopped_together() {
    const DEAF: usize = 5;
    let deaf: String = (0..DEAF)
        .map(|number| {
            format!(
                "[service.deaf{number}]\nrun = \"trap '' TERM; echo up; exec tail -f /dev/null\"\n\
                 ready = {{ log = \"up\" }}\ninputs = []\n"
            )
        })
        .collect();
    let uses: Vec<String> = (0..DEAF).map(|number| format!("\":deaf{number}\"")).collect();
    let workspace = TestWorkspace::new(&format!(
        "{deaf}[service.bad]\nrun = \"exit 3\"\nready = {{ log = \"up\" }}\ninputs = []\nservices = [{uses}]\n\
         [task.test]\nrun = \"true\"\nservices = [\":bad\"]\ninputs = []\n",
        uses = uses.join(", ")
    ));
    let started = Instant::now();
    let run = workspace.events_with(&["//:test"], 1);
    let took = started.elapsed();
    assert_eq!((run.with("failed"), run.services("ready").len()), (set(&["//:test"]), DEAF));
    assert!(took < Duration::from_secs(8), "two seconds of grace for each of {DEAF}, one after the other: {took:?}");
}

#[test]
fn a_service_is_asked_to_end_by_the_signal_it_names() {
    let check = |line: &str, expect: bool| {
        let workspace = TestWorkspace::new(&format!(
            r#"
[service.deaf]
run = "trap '' TERM; trap 'echo in a hurry; exit 0' INT; echo up; tail -f /dev/null & wait"
ready = {{ log = "up" }}
inputs = []
{line}
[service.brief]
run = "echo up"
ready = {{ log = "up" }}
services = [":deaf"]
inputs = []
"#
        ));
        // Once one has ended, the other is asked to.
        let told = workspace.run(&["run", "kind:service"]).expect(1).stderr;
        assert_eq!(told.contains("//:deaf | in a hurry\n"), expect, "{line}: {told}");
    };
    check("stop-signal = \"SIGINT\"", true);
    check("stop-signal = \"SIGKILL\"", false);
    check("", false);
    let bad = "[service.a]\nrun = \"x\"\nready = { port = 1 }\nstop-signal = \"TERM\"\n";
    let told = TestWorkspace::new(bad).run(&["run"]).expect(2).stderr;
    assert!(told.contains("SIGTERM") && told.contains("`TERM`"), "{told}");
}
