//! How services end, and what they must neither leave behind nor give away.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
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

/// A service that prints the first line it is sent, and ends with the second. It listens all the time, so that no line is lost.
const PARROT: &str = r#"
[service.parrot]
run = "mkfifo /services/in /services/life; exec 3<>/services/life 4<>/services/in; echo up; read word <&4; echo heard $word; read word <&4; exit 5"
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

#[test]
fn a_service_that_dies_while_another_is_starting_is_the_one_that_is_blamed() {
    let workspace = TestWorkspace::new(
        r#"
[service.base]
run = "mkfifo /services/end; echo up; read word < /services/end; echo out of paper; exit 7"
ready = { log = "up" }
inputs = []

[service.front]
run = "echo go > /services/end; exec tail -f /dev/null"
ready = { port = 1 }
timeout = "10m"
services = [":base"]
inputs = []

[task.test]
run = "true"
services = [":front"]
inputs = []
"#,
    );
    let told = workspace.run(&["run"]).expect(1).stderr;
    assert!(told.contains("service `//:base` ended while `//:front` was starting: exit code 7"), "{told}");
    assert!(told.contains("service //:base printed:\nup\nout of paper\n"), "{told}");
}

#[test]
fn on_the_network_of_the_machine_nobody_is_taken_for_a_service() {
    let other = TcpListener::bind(("127.0.0.1", 0)).expect("a port of the machine");
    let port = other.local_addr().expect("an address").port();
    let check = |ready: &str| {
        let workspace = TestWorkspace::new(&format!(
            r#"
[service.late]
run = "exec tail -f /dev/null"
ready = {ready}
network = true
inputs = []

[task.test]
run = "true"
network = true
services = [":late"]
inputs = []
"#
        ));
        for level in ["auto", "none"] {
            let told = workspace.run(&["run", "--isolation", level]).expect(1).stderr;
            assert!(told.contains(&format!("service `//:late`: port {port} of this machine is held")), "{told}");
            assert!(told.contains(&format!("`ss -ltnp 'sport = :{port}'`")), "{told}");
        }
    };
    check(&format!("{{ port = {port} }}"));
    check(&format!("{{ http = \"http://127.0.0.1:{port}/\" }}"));
}

#[test]
fn a_service_that_is_still_ending_for_some_tasks_does_not_keep_its_port_from_itself() {
    let port = TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address").port();
    let workspace = TestWorkspace::new(&format!(
        r#"
[service.deaf]
run = ["python3", "-c", """
import signal, socket
signal.signal(signal.SIGTERM, signal.SIG_IGN)
s = socket.create_server(('127.0.0.1', {port}))
while True: s.accept()
"""]
ready = {{ port = {port} }}
network = true
inputs = []

[service.other]
run = "echo up; exec tail -f /dev/null"
ready = {{ log = "up" }}
network = true
inputs = []

[task.first]
run = "true"
network = true
services = [":deaf"]
inputs = []

[task.second]
run = "true"
network = true
needs = [":first"]
services = [":deaf", ":other"]
inputs = []
"#
    ));
    assert_eq!(workspace.events(&[]).with("ran"), set(&["//:first", "//:second"]));
}

/// A service that prints what it is sent, and answers once it has.
const ECHO: &str = r#"
[service.echo]
run = "mkfifo /services/in /services/out; echo up; while read word < /services/in; do echo heard $word; echo ok > /services/out; done"
ready = { log = "up" }
inputs = []
"#;

#[test]
fn what_a_service_printed_before_a_task_failed_is_shown_with_it() {
    const TASKS: usize = 20;
    let tasks = (0..TASKS).map(|number| {
        format!(
            "[task.t{number}]\nrun = \"echo word-{number}- > /services/in; read answer < /services/out; false\"\n\
             services = [\":echo\"]\ninputs = []\n"
        )
    });
    let workspace = TestWorkspace::new(&format!("{ECHO}{}", tasks.collect::<String>()));
    let told = workspace.run(&["run", "-k", "-j", "1"]).expect(1).stderr;
    let tails: Vec<&str> = told.split("service //:echo printed:\n").skip(1).collect();
    let heard = |tail: &&str| tail.lines().take_while(|line| *line == "up" || line.starts_with("heard ")).count() - 1;
    let mut counts: Vec<usize> = tails.iter().map(heard).collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=TASKS).collect::<Vec<_>>(), "{told}");
}

#[test]
fn a_secret_that_a_later_round_brings_is_kept_by_a_service_that_stays_up() {
    let run = "run = \"true\"";
    let asks = r#"
run = "echo $TOKEN > /services/in; read answer < /services/out; false"
secret-env = ["TOKEN"]"#;
    let mut workspace =
        TestWorkspace::new(&format!("{ECHO}\n[task.asks]\n{run}\nservices = [\":echo\"]\ninputs = []\n"));
    let after = workspace.read("drystone.toml").replace(run, asks);
    workspace.set("TOKEN", "very-secret-word");
    let mut child = workspace.command(&["run", "--watch"]).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map(|line| line.expect("text"));
    let watching = |line: &String| line.starts_with("watching for changes");
    lines.by_ref().find(watching).expect("a first round");
    // In one step: half a file would be a round of its own.
    std::fs::write(workspace.beside("new"), after).expect("a file");
    std::fs::rename(workspace.beside("new"), workspace.root().join("drystone.toml")).expect("it is renamed");
    let told: Vec<String> = lines.by_ref().take_while(|line| !watching(line)).collect();
    let told = told.join("\n");
    let ended = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill starts");
    assert!(ended.success(), "{told}");
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{told}");
    assert!(told.contains("service //:echo printed:\nup\nheard [secret]\n"), "{told}");
    assert!(!told.contains("very-secret-word"), "{told}");
}
