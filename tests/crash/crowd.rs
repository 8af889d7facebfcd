//! Many processes on one store, with collection and verification beside them: nothing is lost, nothing runs twice at once, and
//! nobody hears of locks.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::random::{Random, seed};
use crate::support::{Ran, Running, TestWorkspace};
use crate::world::{World, found};

/// Clones that work on one store.
const CLONES: usize = 12;
/// Builds in each of them.
const ROUNDS: usize = 8;

fn on_the_store_of(first: &TestWorkspace) -> TestWorkspace {
    let mut clone = TestWorkspace::empty();
    clone.set("DRYSTONE_STORE", &first.store().display().to_string());
    clone
}

#[track_caller]
fn heard_nothing_of_locks(ran: Ran) -> Ran {
    let told = format!("{}{}", ran.stdout, ran.stderr);
    for word in ["locked", "busy", "another process kept", "damaged"] {
        // `0 damaged` is what a check says of a sound store.
        assert!(!told.replace(" 0 damaged", "").contains(word), "{told}");
    }
    ran
}

#[test]
fn many_builds_beside_collection_and_checks_lose_nothing_and_never_meet_a_lock() {
    let first_seed = seed();
    eprintln!("seed {first_seed}");
    let first = TestWorkspace::empty();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let builders: Vec<_> = (0..CLONES)
            .map(|number| {
                let clone = on_the_store_of(&first);
                scope.spawn(move || {
                    // Three worlds for all, so that some meet in the same actions.
                    let mut random = Random(first_seed + (number % 3) as u64);
                    let mut world = World::new(&mut random);
                    for round in 0..ROUNDS {
                        world.write(&clone);
                        heard_nothing_of_locks(clone.run(&["run", "-j2", "//..."])).expect(0);
                        assert_eq!(
                            found(&clone).0,
                            world.outputs(),
                            "seed {first_seed}, clone {number}, round {round}"
                        );
                        world.change(&mut random, round % 2 == 0);
                    }
                })
            })
            .collect();
        let store = first.store();
        let beside = [&["store", "gc", "--max-size", "0"][..], &["store", "gc"], &["store", "verify"]];
        for args in beside {
            let (first, is_done) = (&first, &is_done);
            scope.spawn(move || {
                while !is_done.load(Ordering::SeqCst) {
                    heard_nothing_of_locks(first.run(args)).expect(0);
                }
            });
        }
        for builder in builders {
            let ended = builder.join();
            is_done.store(builder_failed(&ended), Ordering::SeqCst);
            ended.expect("a builder that fails says why");
        }
        is_done.store(true, Ordering::SeqCst);
        assert!(store.join("store.db").exists());
    });
    first.run(&["store", "verify"]).expect(0);
    first.run(&["store", "gc"]).expect(0);
    for name in ["locks/actions", "locks/leases", "tmp", "stage", "trash"] {
        let left = fs::read_dir(first.store().join(name)).expect("a directory").count();
        assert_eq!(left, 0, "{name}");
    }
}

fn builder_failed<T>(ended: &std::thread::Result<T>) -> bool {
    ended.is_err()
}

/// Tasks that note their beginning and end outside, which only the level without isolation lets them.
fn noting(log: &std::path::Path, tasks: usize) -> String {
    let mut manifest = String::new();
    for task in 0..tasks {
        let log = log.display();
        manifest.push_str(&format!(
            "[task.t{task}]\nrun = \"echo begin {task} >> {log}; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; cat in.txt > t{task}.txt; echo end {task} >> {log}\"\ninputs = [\"in.txt\"]\noutputs = [\"t{task}.txt\"]\n"
        ));
    }
    manifest
}

#[test]
fn no_action_runs_twice_at_once_however_many_processes_want_it() {
    let first = TestWorkspace::empty();
    let log = first.beside("log");
    let manifest = format!("[workspace]\nname = \"test\"\n{}", noting(&log, 6));
    let clones: Vec<TestWorkspace> = (0..8).map(|_| on_the_store_of(&first)).collect();
    for round in 0..3 {
        fs::write(&log, "").expect("a file");
        let running: Vec<Running> = clones
            .iter()
            .map(|clone| {
                clone.write("drystone.toml", &manifest);
                clone.write("in.txt", &format!("round {round}\n"));
                let mut command = clone.command(&["run", "--isolation", "none", "-j2", "//..."]);
                Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
            })
            .collect();
        for process in running {
            let output = process.output();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in fs::read_to_string(&log).expect("a file").lines() {
            let (word, task) = line.split_once(' ').expect("two words");
            lines.entry(task.to_owned()).or_default().push(word.to_owned());
        }
        assert_eq!(lines.len(), 6, "{lines:?}");
        // Nobody collects here, so what was stored is found: each ran once.
        assert!(lines.values().all(|words| words == &["begin", "end"]), "round {round}: {lines:?}");
        for clone in &clones {
            assert_eq!(clone.read("t5.txt"), format!("round {round}\n"));
        }
    }
}

/// Two worktrees on one store with one task, which says that it has begun and then waits to be let go.
struct Meeting {
    first: TestWorkspace,
    second: TestWorkspace,
    started: PathBuf,
    go: PathBuf,
}

impl Meeting {
    fn new() -> Self {
        let first = TestWorkspace::empty();
        let second = on_the_store_of(&first);
        let (started, go) = (first.beside("started"), first.beside("go"));
        let manifest = format!(
            "[workspace]\nname = \"test\"\n[task.t]\nrun = \"echo x >> {}; while ! test -e {}; do :; done; cat in.txt > out.txt\"\ninputs = [\"in.txt\"]\noutputs = [\"out.txt\"]\n",
            started.display(),
            go.display()
        );
        for workspace in [&first, &second] {
            workspace.write("drystone.toml", &manifest);
            workspace.write("in.txt", "text");
        }
        Self { first, second, started, go }
    }
}

#[test]
fn of_two_worktrees_on_one_store_one_executes_and_the_other_waits_and_takes_the_result() {
    let Meeting { first, second, started, go } = Meeting::new();
    let args = ["run", "--isolation", "none", "--format", "json", "t"];
    let one = first.start(&args);
    while !started.exists() {
        std::thread::yield_now();
    }
    let mut other = second.start(&args);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(other.stdout.take().expect("piped")));
    let begun = lines.by_ref().map(|line| line.expect("a line")).any(|line| line.contains("task.started"));
    assert!(begun, "the other got to the task and waits for it");
    fs::write(&go, "").expect("a file");
    let rest: Vec<String> = lines.map(|line| line.expect("a line")).collect();
    assert!(other.wait().expect("it ends").success());
    let output = one.output();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"outcome\":\"ran\""));
    assert!(rest.iter().any(|line| line.contains("\"outcome\":\"hit\"")), "{rest:?}");
    assert_eq!(fs::read_to_string(&started).expect("a file"), "x\n");
    assert_eq!((first.read("out.txt"), second.read("out.txt")), ("text".into(), "text".into()));
}

#[test]
fn when_the_one_that_executes_is_killed_the_one_that_waits_executes() {
    let Meeting { first, second, started, go } = Meeting::new();
    let args = ["run", "--isolation", "none", "--format", "json", "t"];
    let mut one = first.start(&args);
    while !started.exists() {
        std::thread::yield_now();
    }
    let mut other = second.start(&args);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(other.stdout.take().expect("piped")));
    assert!(lines.by_ref().map(|line| line.expect("a line")).any(|line| line.contains("task.started")));
    one.kill().expect("it runs");
    one.wait().expect("it ends");
    fs::write(&go, "").expect("a file");
    assert!(other.wait().expect("it ends").success());
    assert_eq!(fs::read_to_string(&started).expect("a file"), "x\nx\n");
    assert_eq!(second.read("out.txt"), "text");
    assert!(!first.has("out.txt"));
    first.run(&["store", "verify"]).expect(0);
}
