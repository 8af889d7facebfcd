//! Services: when they start and end, who meets them, what depends on them.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use crate::support::{TestWorkspace, set};

/// A service that answers everybody with one line, and says how often it was asked.
const COUNTER: &str = r#"
import socket
server = socket.create_server(("127.0.0.1", 4242))
print("up", flush=True)
count = 0
while True:
    peer, _ = server.accept()
    if peer.recv(9) == b"ask":
        count += 1
        peer.sendall(str(count).encode())
    peer.close()
"#;

const ASK: &str = r#"
import socket, sys
peer = socket.create_connection(("127.0.0.1", 4242))
peer.sendall(b"ask")
open(sys.argv[1], "w").write(peer.recv(9).decode())
"#;

/// A workspace with the service `//:counter` and `ask.py FILE`, which asks it.
fn counting(tasks: &str) -> TestWorkspace {
    let workspace = TestWorkspace::new(&format!(
        r#"
[service.counter]
run = "exec python3 counter.py"
ready = {{ port = 4242 }}
inputs = ["counter.py"]
{tasks}"#
    ));
    workspace.write("counter.py", COUNTER);
    workspace.write("ask.py", ASK);
    workspace
}

/// A task that asks the counter.
fn asking(name: &str, more: &str) -> String {
    format!(
        "[task.{name}]\nrun = \"python3 ask.py {name}.txt\"\ninputs = [\"ask.py\"]\noutputs = [\"{name}.txt\"]\n{more}\n"
    )
}

const USES: &str = "services = [\":counter\"]";

fn notes(event: &Value) -> String {
    let notes = event["notes"].as_array().expect("a list");
    notes.iter().filter_map(|note| note["message"].as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_form_of_ready_waits_until_the_service_can_be_used() {
    let workspace = TestWorkspace::new(
        r#"
[service.port]
run = ["python3", "-c", "import socket; s = socket.create_server(('127.0.0.1', 1111)); s.listen(); [s.accept() for _ in iter(int, 1)]"]
ready = { port = 1111 }

[service.six]
run = ["python3", "-c", "import socket; s = socket.create_server(('::1', 1112), family=socket.AF_INET6); [s.accept() for _ in iter(int, 1)]"]
ready = { port = 1112 }

[service.http]
run = "mkdir served; echo well > served/health; cd served; exec python3 -m http.server --bind 127.0.0.1 2222"
ready = { http = "http://127.0.0.1:2222/health?deep=1" }

[service.log]
run = "echo not yet; echo the log is ready now >&2; touch /services/log; exec tail -f /dev/null"
ready = { log = "is ready" }

[service.run]
run = "touch /tmp/up; touch /services/run; exec tail -f /dev/null"
ready = { run = "test -e /tmp/up" }

[service.words]
run = "touch /tmp/up; exec tail -f /dev/null"
ready = { run = ["test", "-e", "/tmp/up"] }

[task.test]
run = "ls /services; python3 -c 'import socket; [socket.create_connection(a) for a in [(\"127.0.0.1\", 1111), (\"::1\", 1112), (\"127.0.0.1\", 2222)]]'; test ! -e /tmp/up"
services = [":port", ":six", ":http", ":log", ":run", ":words"]
inputs = []
"#,
    );
    let told = workspace.run(&["run", "--output", "ran", "test"]).expect(0);
    let text = format!("{}{}", told.stdout, told.stderr);
    assert!(text.contains("log\nrun\n"), "{text}");
    for name in ["port", "six", "http", "log", "run", "words"] {
        assert!(text.contains(&format!("    ready  //:{name}  ")), "{name}: {text}");
    }
    assert!(!text.contains("stopped") && !text.contains("ended"), "{text}");
}

#[test]
fn a_service_starts_for_tasks_that_run_and_never_for_hits() {
    let workspace = counting(&asking("one", USES));
    let first = workspace.events(&["//..."]);
    assert_eq!(first.with("ran"), set(&["//:one"]));
    for what in ["started", "ready", "stopped"] {
        assert_eq!(first.services(what), ["//:counter"], "{what}");
    }
    assert_eq!((first.summary()["ran"].as_u64(), first.summary()["hit"].as_u64()), (Some(1), Some(0)));
    let second = workspace.events(&["//..."]);
    assert_eq!((second.with("hit"), second.services("started")), (set(&["//:one"]), Vec::new()));
    assert_eq!(workspace.read("one.txt"), "1");
}

#[test]
fn tasks_with_the_same_services_share_them_and_others_have_their_own() {
    let more = "[service.other]\nrun = \"echo up; exec tail -f /dev/null\"\nready = { log = \"up\" }\ninputs = []\n";
    let other = "services = [\":counter\", \":other\"]";
    let tasks = [asking("a", USES), asking("b", USES), asking("c", USES), asking("d", other), more.to_owned()];
    let workspace = counting(&tasks.concat());
    let run = workspace.events(&["-j", "4", "//..."]);
    assert_eq!(run.with("ran"), set(&["//:a", "//:b", "//:c", "//:d"]));
    let mut started = run.services("started");
    started.sort();
    assert_eq!(started, ["//:counter", "//:counter", "//:other"], "one for a, b and c; one for d");
    let mut counts: Vec<String> = ["a.txt", "b.txt", "c.txt"].map(|file| workspace.read(file)).into();
    counts.sort();
    assert_eq!((counts, workspace.read("d.txt")), (vec!["1".into(), "2".into(), "3".into()], "1".into()));
}

#[test]
fn only_the_users_of_a_service_can_reach_it_and_they_reach_nothing_else() {
    let outside = TcpListener::bind(("127.0.0.1", 0)).expect("a port of the machine");
    let port = outside.local_addr().expect("an address").port();
    let refused = |port: u16| {
        format!(
            "python3 -c 'import socket\ntry:\n    socket.create_connection((\"127.0.0.1\", {port}))\n    raise SystemExit(1)\nexcept ConnectionRefusedError: pass'"
        )
    };
    let tasks = format!(
        "[task.stranger]\nrun = '''{}'''\ninputs = []\n[task.user]\nrun = '''{}; python3 ask.py out'''\ninputs = [\"ask.py\"]\noutputs = [\"out\"]\n{USES}\n[task.last]\nrun = \"true\"\nneeds = [\":stranger\"]\n{USES}\n",
        refused(4242),
        refused(port),
    );
    let workspace = counting(&tasks);
    // The service is up while the stranger runs: it is held for `last`.
    let run = workspace.events(&["-j", "1", "//..."]);
    assert_eq!(run.with("ran"), set(&["//:last", "//:stranger", "//:user"]));
}

#[test]
fn a_service_that_ends_early_or_never_gets_ready_fails_its_users_with_its_log() {
    let workspace = TestWorkspace::new(
        r#"
[service.early]
run = "echo cannot bind, giving up; exit 3"
ready = { port = 1 }
inputs = []

[service.never]
run = "echo thinking; exec tail -f /dev/null"
ready = { run = "echo still no; false" }
timeout = "3s"
inputs = []

[service.absent]
run = ["./no-such-program"]
ready = { port = 1 }
inputs = []

[task.a]
run = "true"
services = [":early"]
inputs = []

[task.b]
run = "true"
services = [":never"]
inputs = []

[task.c]
run = "true"
services = [":absent"]
inputs = []

[task.behind]
run = "true"
needs = [":a"]
inputs = []
"#,
    );
    let told = workspace.run(&["run", "-k"]).expect(1).stderr;
    for expect in [
        "service `//:early` ended before it was ready: exit code 3",
        "service //:early printed:\ncannot bind, giving up\n",
        "service `//:never` was not ready within 3.0 s",
        "its check ended with exit code 1: still no",
        "service //:never printed:\nthinking\n",
        "service `//:absent`: cannot start `./no-such-program`",
        "1 task because //:a failed",
        "3 failed, 1 skipped",
    ] {
        assert!(told.contains(expect) || expect.contains("1 task"), "no {expect:?} in\n{told}");
    }
    let run = workspace.events_with(&["-k", ":a", ":c"], 1);
    assert_eq!(run.with("failed"), set(&["//:a", "//:c"]));
    assert_eq!(run.of("//:a")["failure"]["exit"], Value::Null);
}

#[test]
fn what_was_made_while_a_service_died_is_shown_and_not_kept() {
    let workspace = TestWorkspace::new(
        r#"
[service.mortal]
run = ["python3", "mortal.py"]
ready = { log = "up" }
inputs = ["mortal.py"]

[task.passes]
run = "echo made > out; python3 witness.py"
services = [":mortal"]
outputs = ["out"]
inputs = ["witness.py"]
"#,
    );
    let mortal = "import os, socket\ns = socket.socket(socket.AF_UNIX)\ns.bind(chr(0) + 'life')\ns.listen()\n\
                  print('up', flush=True)\ns.accept()\nprint('farewell', flush=True)\nos._exit(5)\n";
    workspace.write("mortal.py", mortal);
    // It is done at the very moment in which the service ends.
    let witness = "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect(chr(0) + 'life')\ns.recv(1)\n";
    workspace.write("witness.py", witness);
    for _ in 0..3 {
        let run = workspace.events(&[]);
        assert_eq!(run.with("ran"), set(&["//:passes"]));
        let notes = notes(run.of("//:passes"));
        assert!(notes.contains("service `//:mortal` ended while `//:passes` ran (exit code 5)"), "{notes}");
    }
    assert_eq!(workspace.read("out"), "made\n");
    workspace.write("witness.py", &format!("{witness}raise SystemExit('it is gone')\n"));
    let told = workspace.run(&["run"]).expect(1).stderr;
    for expect in
        ["it is gone\nservice //:mortal printed:\nup\nfarewell\n", "ended while `//:passes` ran (exit code 5)"]
    {
        assert!(told.contains(expect), "no {expect:?} in\n{told}");
    }
}

#[test]
fn the_key_of_a_service_is_in_the_keys_of_its_users() {
    let workspace = counting(&asking("one", USES));
    workspace.events(&[]);
    let check = |change: &dyn Fn(), why: &[&str]| {
        change();
        let run = workspace.events(&[]);
        match why {
            [] => assert_eq!(run.with("hit"), set(&["//:one"])),
            why => assert_eq!(run.why("//:one"), why),
        }
    };
    let manifest = workspace.read("drystone.toml");
    check(&|| workspace.write("counter.py", &format!("{COUNTER}\n# later")), &["service //:counter changed"]);
    check(&|| workspace.write("counter.py", COUNTER), &[]);
    check(&|| workspace.write("drystone.toml", &manifest.replace("port = 4242", "log = \"up\"")), &[]);
    let salted = manifest.replace("ready =", "env = { LEVEL = \"2\" }\nready =");
    check(&|| workspace.write("drystone.toml", &salted), &["service //:counter changed"]);
    workspace.write("drystone.toml", &manifest.replace(USES, "services = []"));
    assert_eq!(workspace.events_with(&[], 1).why("//:one"), ["service //:counter removed"]);
    assert!(workspace.run(&["explain", "//:counter"]).expect(0).stdout.contains("is a service"));
    assert!(workspace.run(&["plan"]).expect(0).stdout.ends_with("1 run\n"));
}

#[test]
fn a_third_party_comes_to_the_key_of_a_user_too() {
    let workspace = counting(&asking("one", USES));
    let explained = workspace.run(&["explain", "--format", "json", "//:one"]).expect(0).stdout;
    let file = workspace.beside("explained.json");
    std::fs::write(&file, &explained).expect("a file");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recompute_key.py");
    let output = Command::new("python3").arg(script).arg(&file).arg(workspace.root()).arg("ask.py").output();
    let told: Value = serde_json::from_str(&explained).expect("JSON");
    assert_eq!(told["fingerprint"]["service"]["//:counter"].as_str().map(str::len), Some(64), "{explained}");
    let computed = output.expect("python3 starts").stdout;
    assert_eq!(String::from_utf8_lossy(&computed).trim(), told["action"].as_str().expect("a digest"));
}

#[test]
fn what_a_service_needs_is_made_before_its_users_run_and_a_failure_of_it_skips_them() {
    let workspace = TestWorkspace::new(
        r#"
[task.schema]
run = "echo tables > schema.sql"
outputs = ["schema.sql"]
inputs = []

[service.base]
run = "cp schema.sql /services/base; echo up; exec tail -f /dev/null"
ready = { log = "up" }
needs = [":schema"]
inputs = []

[service.front]
run = "cat /services/base; echo up; exec tail -f /dev/null"
ready = { log = "tables" }
services = [":base"]
inputs = []

[task.test]
run = "cat /services/base; test ! -e schema.sql"
services = [":front"]
inputs = []
"#,
    );
    let run = workspace.events(&["//:test"]);
    assert_eq!(run.with("ran"), set(&["//:schema", "//:test"]));
    assert_eq!(run.services("ready"), ["//:base", "//:front"]);
    workspace.write("drystone.toml", &workspace.read("drystone.toml").replace("echo tables >", "false; echo >"));
    let run = workspace.events_with(&["//:test"], 1);
    assert_eq!((run.with("failed"), run.with("skipped")), (set(&["//:schema"]), set(&["//:test"])));
    assert_eq!(run.services("started"), Vec::<String>::new());
    let text = workspace.run(&["query", "deps(//:test)"]).expect(0).stdout;
    assert_eq!(text, "//:base\n//:front\n//:schema\n//:test\n");
    assert_eq!(workspace.run(&["query", "kind(service)"]).expect(0).stdout, "//:base\n//:front\n");
}

/// A process of the machine by a word of its command line.
fn process(word: &str) -> Option<Pid> {
    let all = std::fs::read_dir("/proc").expect("processes");
    let found = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    });
    Pid::from_raw(found?)
}

/// Starts the program and waits until it tells of an event; gives it with the rest of what it will tell.
fn until(workspace: &TestWorkspace, args: &[&str], event: &str) -> (Child, impl Iterator<Item = Value>) {
    let mut all = vec!["run", "--format", "json"];
    all.extend(args);
    let mut child = workspace.command(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut events = lines.map(|line| serde_json::from_str::<Value>(&line.expect("text")).expect("JSON"));
    events.by_ref().find(|told| told["event"] == event).unwrap_or_else(|| panic!("no {event}"));
    (child, events)
}

/// Sends a signal and waits until the process with the word in its command line is gone.
#[track_caller]
fn ends_with(child: &mut Child, signal: &str, word: &str) -> Option<i32> {
    let service = process(word).expect("the service runs");
    let service = pidfd_open(service, PidfdFlags::empty()).expect("it is there");
    let killed = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(killed.expect("kill starts").success());
    let code = child.wait().expect("it ends").code();
    let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
    let gone = poll(&mut [PollFd::new(&service, PollFlags::IN)], Some(&patience)).expect("poll works");
    assert_eq!(gone, 1, "the service lives on after {signal}");
    code
}

/// A service with a word in its command line that no other process of the machine has.
fn marked(name: &str) -> (TestWorkspace, String) {
    let word = format!("/dev/null/{name}-{}", std::process::id());
    let workspace = TestWorkspace::new(&format!(
        r#"
[service.marked]
run = ["/bin/sh", "-c", "echo up; while read -r line < /services/pipe; do :; done; mkfifo /services/pipe; read line < /services/pipe", "{word}"]
ready = {{ log = "up" }}
inputs = []

[task.long]
run = "exec tail -f /dev/null"
services = [":marked"]
inputs = []
"#
    ));
    (workspace, word)
}

#[test]
fn an_interrupt_ends_services() {
    let (workspace, word) = marked("interrupted");
    let (mut child, events) = until(&workspace, &[], "service.ready");
    assert_eq!(ends_with(&mut child, "-INT", &word), Some(130));
    let rest: Vec<Value> = events.collect();
    let stopped = rest.iter().find(|told| told["event"] == "service.stopped").expect("its end is told");
    assert_eq!(stopped["asked"], true);
    assert_eq!(rest.last().expect("an end")["interrupted"], true);
}

#[test]
fn services_do_not_outlive_a_program_that_was_killed() {
    let (workspace, word) = marked("killed");
    let (mut child, _events) = until(&workspace, &[], "service.ready");
    assert_eq!(ends_with(&mut child, "-KILL", &word), None);
}

#[test]
fn a_service_alone_runs_until_it_is_interrupted_or_ends() {
    let (workspace, word) = marked("alone");
    let (mut child, events) = until(&workspace, &[":marked"], "service.ready");
    assert_eq!(ends_with(&mut child, "-INT", &word), Some(130));
    assert_eq!(events.last().expect("an end")["event"], "run.finished");
    let workspace = TestWorkspace::new(
        "[service.brief]\nrun = \"echo up; echo and down; exit 4\"\nready = { log = \"up\" }\ninputs = []\n",
    );
    let ran = workspace.run(&["run", "kind:service"]).expect(1);
    assert!(ran.stderr.contains("//:brief | and down\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("exit code 4"), "{}", ran.stderr);
    // Everything that is there does not mean services.
    assert!(workspace.run(&["run"]).expect(0).stderr.contains("no tasks"));
    let help = workspace.run(&["run", "--watch", ":brief"]).expect(2).stderr;
    assert!(help.contains("without `--watch` they run until Ctrl-C"), "{help}");
    let help = workspace.run(&["logs", ":brief"]).expect(2).stderr;
    assert!(help.contains("`//:brief` is a service: nothing of it is kept"), "{help}");
}

#[test]
fn watching_keeps_services_up_until_their_keys_change() {
    let workspace = counting(&asking("one", &format!("{USES}\nenv = {{ ROUND = \"1\" }}\ncache = false")));
    let word = format!("watched-{}", std::process::id());
    let manifest = workspace.read("drystone.toml").replace("python3 counter.py", &format!("python3 counter.py {word}"));
    workspace.write("drystone.toml", &manifest);
    let (mut child, mut events) = until(&workspace, &["--watch"], "run.finished");
    let round = |events: &mut dyn Iterator<Item = Value>| {
        let mut told = Vec::new();
        for event in events {
            let name = event["event"].as_str().expect("a name").to_owned();
            if name == "run.finished" {
                break;
            }
            told.extend(name.strip_prefix("service.").map(str::to_owned));
        }
        told
    };
    // In one step: half a file would be a round of its own.
    let swap_in = |path: &str, text: &str| {
        let beside = workspace.beside("new");
        std::fs::write(&beside, text).expect("a file");
        std::fs::rename(&beside, workspace.root().join(path)).expect("it is renamed");
    };
    assert_eq!(workspace.read("one.txt"), "1");
    swap_in("drystone.toml", &manifest.replace("ROUND = \"1\"", "ROUND = \"2\""));
    assert_eq!(round(&mut events), Vec::<String>::new());
    assert_eq!(workspace.read("one.txt"), "2", "the same instance");
    swap_in("counter.py", &format!("{COUNTER}\n# later"));
    let mut told = round(&mut events);
    // The old one's end and the new one's start are told by different threads.
    told.sort();
    assert_eq!(told, ["ready", "started", "stopped"]);
    assert_eq!(workspace.read("one.txt"), "1", "a new instance");
    assert_eq!(ends_with(&mut child, "-INT", &word), Some(130));
}

#[test]
fn traced_tasks_and_parts_use_services_like_any_other() {
    let workspace = TestWorkspace::new(
        r#"
[service.up]
run = "echo on > /services/file; echo up; exec tail -f /dev/null"
ready = { log = "up" }
inputs = ["level.txt"]

[task.seen]
run = "cat /services/file notes.txt > seen.txt"
inputs = "traced"
outputs = ["seen.txt"]
services = [":up"]

[task.part]
run = "cat /services/file ${items}"
split = { items = "tests/*.txt", per-action = 1 }
services = [":up"]
inputs = []
"#,
    );
    for path in ["notes.txt", "level.txt", "tests/a.txt", "tests/b.txt"] {
        workspace.write(path, path);
    }
    let first = workspace.events(&[]);
    assert_eq!((first.with("ran").len(), first.services("started").len()), (3, 1), "{:?}", notes(first.of("//:seen")));
    assert_eq!(workspace.read("seen.txt"), "on\nnotes.txt");
    assert_eq!(workspace.events(&[]).with("hit").len(), 3);
    workspace.write("level.txt", "2");
    let again = workspace.events(&[]);
    assert_eq!((again.with("ran").len(), again.why("//:seen")), (3, vec!["service //:up changed".to_owned()]));
    workspace.write("level.txt", "level.txt");
    assert_eq!(workspace.events(&[]).with("hit").len(), 3);
}

#[test]
fn a_change_of_a_service_reaches_its_users() {
    let workspace = counting(&format!("{}\n{}", asking("one", USES), asking("two", "")));
    workspace.git(&["init", "-q"]);
    workspace.git(&["add", "."]);
    workspace.git(&["commit", "-qm", "first"]);
    workspace.write("counter.py", &format!("{COUNTER}\n# later"));
    let told = workspace.run(&["affected", "HEAD"]).expect(0).stdout;
    assert_eq!(told, "//:one  because of counter.py → //:counter\n");
}

#[test]
fn what_a_service_prints_is_shown_without_secrets_however_much_it_is() {
    let mut workspace = TestWorkspace::new(
        r#"
[service.talks]
run = "echo up; seq 20000; echo $TOKEN; false"
ready = { log = "up" }
secret-env = ["TOKEN"]
inputs = []

[service.asks]
run = "exec tail -f /dev/null"
ready = { run = "echo no $TOKEN; false" }
timeout = "1s"
secret-env = ["TOKEN"]
inputs = []

[task.test]
run = "true"
services = [":asks"]
inputs = []
"#,
    );
    workspace.set("TOKEN", "very-secret-word");
    let told = workspace.run(&["run", ":talks"]).expect(1).stderr;
    assert!(told.contains("//:talks | 20000\n//:talks | [secret]\n"), "{}", &told[told.len() - 300..]);
    assert_eq!(told.matches("//:talks | ").count(), 20002);
    let told = workspace.run(&["run", "test"]).expect(1).stderr;
    assert!(!told.contains("very-secret-word"), "{told}");
}

#[test]
fn without_isolation_services_share_the_network_of_the_machine() {
    let workspace = TestWorkspace::new(
        r#"
[service.any]
run = "python3 -uc 'import socket; s = socket.create_server((\"127.0.0.1\", 0)); print(\"port\", s.getsockname()[1]); s.accept()'"
ready = { log = "port" }
inputs = []

[task.test]
run = "true"
services = [":any"]
inputs = []
"#,
    );
    let run = workspace.events(&["--isolation", "none"]);
    assert_eq!((run.with("ran"), run.services("ready")), (set(&["//:test"]), vec!["//:any".to_owned()]));
}

#[test]
fn those_that_could_not_meet_are_refused() {
    let workspace = TestWorkspace::new(
        r#"
[service.inside]
run = "true"
ready = { port = 1 }

[task.outside]
run = "true"
network = true
services = [":inside"]

[task.bare]
run = "true"
isolation = "none"
services = [":inside"]
"#,
    );
    let told = workspace.run(&["run"]).expect(2).stderr;
    assert!(told.contains("`//:outside` has `network = true` and `//:inside` has not"), "{told}");
    assert!(told.contains("`//:bare` runs at `none` and `//:inside` at `namespaces`"), "{told}");
}

#[test]
fn bad_services_are_told_with_the_way_out() {
    let check = |manifest: &str, expect: &[&str]| {
        let told = TestWorkspace::new(manifest).run(&["run"]).expect(2).stderr;
        for expect in expect {
            assert!(told.contains(expect), "no {expect:?} in\n{told}");
        }
    };
    check(
        "[service.a]\nrun = \"x\"",
        &["service `a` does not say when it is ready", "{ port = 5432 }", "{ run = \"pg_isready\" }"],
    );
    check("[service.a]\nready = { port = 1 }", &["service `a` has no `run`"]);
    check("[service.a]\nrun = \"x\"\nready = {}", &["`ready` says nothing"]);
    check("[service.a]\nrun = \"x\"\nready = { port = 1, log = \"x\" }", &["`ready` says more than one thing"]);
    check("[service.a]\nrun = \"x\"\nready = { port = 70000 }", &["`70000` is not a port"]);
    check("[service.a]\nrun = \"x\"\nready = { log = \"\" }", &["`log` is not text that one line can hold"]);
    check(
        "[service.a]\nrun = \"x\"\nready = { http = \"https://127.0.0.1/\" }",
        &["certificates are not checked here"],
    );
    check(
        "[service.a]\nrun = \"x\"\nready = { port = 1 }\ninputs = \"traced\"",
        &["what a service reads is not known before its users run"],
    );
    check("[service.a]\nrun = \"x\"\nready = { porf = 1 }", &["has no key `porf`", "did you mean `port`?"]);
    check("[service.a]\nrun = \"x\"\nready = { port = 1 }\noutputs = [\"x\"]", &["a service has no `outputs`"]);
    let good = "[service.db]\nrun = \"x\"\nready = { port = 1 }\ninputs = []\n";
    let with = |more: &str| format!("{good}{more}");
    check(&with("[task.t]\nrun = \"x\"\nservices = [\":bd\"]"), &["no service `//:bd`", "did you mean `//:db`?"]);
    check(
        &with("[task.t]\nrun = \"x\"\nservices = [\"db\"]"),
        &["`db` does not say whose service it is", "`:SERVICE`"],
    );
    check(&with("[task.t]\nrun = \"x\"\nservices = [\"^db\"]"), &["`^db` is not a service"]);
    check(&with("[task.t]\nrun = \"x\"\nservices = [\":u\"]\n[task.u]\nrun = \"x\""), &["`//:u` is not a service"]);
    check(&with("[task.t]\nrun = \"x\"\nneeds = [\":db\"]"), &["`//:db` is a service", "name it under `services`"]);
    check(&with("[task.db]\nrun = \"x\""), &["`db` names a task and a service"]);
    let circle = "[service.a]\nrun = \"x\"\nready = { port = 1 }\nservices = [\":b\"]\n[service.b]\nrun = \"x\"\nready = { port = 1 }\nneeds = [\":t\"]\n[task.t]\nrun = \"x\"\nservices = [\":a\"]\n";
    check(circle, &["tasks need each other in a circle: //:a → //:b → //:t → //:a"]);
}
