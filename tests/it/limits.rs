//! Limits as a person meets them: the sentence, the exit code, nothing stored; where they cannot be held, one warning; what a killed
//! run leaves, the next one removes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::support::TestWorkspace;

const GREEDY: &str = "\
[task.greedy]\nrun = \"head -c 200M /dev/zero | tail -c 190M | wc -c > out || true\"\noutputs = [\"out\"]\n\
resources = { memory = \"48MiB\" }\n";

const BOMB: &str = "\
[task.bomb]\nrun = \"bomb() { bomb & bomb & wait; }; bomb\"\ntimeout = \"40s\"\nresources = { processes = 48 }\n";

fn loudly(what: &str) {
    eprintln!("\n*** NOT TESTED: {what} ***");
}

/// Whether `doctor` finds that a limit is held; says loudly if it is not.
fn is_held(workspace: &TestWorkspace, limit: &str) -> bool {
    let doctor = workspace.run(&["doctor"]).stdout;
    let line =
        doctor.lines().find(|line| line.contains(&format!("limit of {limit}: "))).expect("doctor tells").to_owned();
    let held = line.contains(": held by ");
    if !held {
        assert!(doctor.split_once(&line).expect("it is there").1.trim_start().starts_with("help: "), "{doctor}");
        loudly(&line);
    }
    held
}

#[test]
fn a_task_that_takes_too_much_memory_fails_in_one_line_and_leaves_nothing() {
    let workspace = TestWorkspace::new(GREEDY);
    if !is_held(&workspace, "memory") {
        return;
    }
    // Twice: what was killed is no result.
    for _ in 0..2 {
        let ran = workspace.run(&["run", "greedy"]).expect(1);
        let said = "killed for using more than 48.0 MiB of memory; raise `resources.memory` if it needs more";
        assert!(ran.stdout.contains(said) || ran.stderr.contains(said), "{}{}", ran.stdout, ran.stderr);
        assert!(!workspace.has("out"));
    }
    let events = workspace.events_with(&["greedy"], 1);
    assert_eq!(events.of("//:greedy")["failure"]["exit"]["kind"], "over-memory", "{:#}", events.of("//:greedy"));
    workspace.write("drystone.toml", &format!("[workspace]\nname = \"test\"\n\n{}", GREEDY.replace("48MiB", "512MiB")));
    workspace.run(&["run", "greedy"]).expect(0);
    assert_eq!(workspace.read("out").trim(), "199229440");
}

#[test]
fn a_fork_bomb_fails_in_one_line() {
    let workspace = TestWorkspace::new(BOMB);
    if is_held(&workspace, "processes") {
        let ran = workspace.run(&["run", "bomb"]).expect(1);
        let said = "killed for having more than 48 processes at once; raise `resources.processes` if it needs more";
        assert!(ran.stdout.contains(said) || ran.stderr.contains(said), "{}{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn the_default_said_is_the_default_and_another_number_is_another_key() {
    let manifest = |resources: &str| format!("[workspace]\nname = \"test\"\n\n[task.a]\nrun = \"true\"\n{resources}");
    let workspace = TestWorkspace::new("");
    let run = |resources: &str| {
        workspace.write("drystone.toml", &manifest(resources));
        workspace.events(&["a"]).of("//:a")["outcome"].as_str().expect("a word").to_owned()
    };
    assert_eq!(run(""), "ran");
    assert_eq!(run("resources = { processes = 4096 }"), "hit");
    assert_eq!(run("resources = { memory = \"1GiB\" }"), "hit");
    assert_eq!(run("resources = { processes = 4095 }"), "ran");
    assert_eq!(workspace.events(&["a"]).with("hit").len(), 1);
}

/// Runs `drystone` where nobody may make control groups; `None`, loudly, if that cannot be had.
fn without_groups(workspace: &TestWorkspace, arguments: &str) -> Option<Output> {
    if !rustix::process::geteuid().is_root() {
        // An ordinary user mostly may not anyway.
        let doctor = workspace.run(&["doctor"]).stdout;
        if doctor.contains("limit of memory: held") {
            loudly("a user who may make no control groups: this one may");
            return None;
        }
        let arguments: Vec<&str> = arguments.split(' ').collect();
        return Some(workspace.command(&arguments).output().expect("it starts"));
    }
    let seal = "for at in $(grep -E \"^cgroup\" /proc/mounts | cut -d \" \" -f 2); do mount -o remount,bind,ro $at || exit 9; done";
    let program = env!("CARGO_BIN_EXE_drystone");
    let output =
        workspace.shell(&format!("unshare -m sh -c '{seal}; exec {program} {arguments}'")).output().expect("a shell");
    if output.status.code() == Some(9) || String::from_utf8_lossy(&output.stderr).contains("unshare failed") {
        loudly("a machine whose control groups are read-only: they cannot be mounted so here");
        return None;
    }
    Some(output)
}

#[test]
fn where_nothing_holds_them_one_warning_says_so_with_the_way_out() {
    let ok = |name: &str| format!("[task.{name}]\nrun = \"true\"\nresources = {{ memory = \"1GiB\" }}\n");
    let workspace = TestWorkspace::new(&["a", "b", "c"].map(ok).concat());
    let Some(ran) = without_groups(&workspace, "run a b c") else { return };
    let said = String::from_utf8_lossy(&ran.stderr).into_owned() + &String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}");
    assert_eq!(said.matches("is not enforced here").count(), 1, "{said}");
    assert!(said.contains("`resources.memory` of `//:a` and of 2 other tasks") && said.contains("help: "), "{said}");
    let doctor = without_groups(&workspace, "doctor").expect("it worked before");
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("limited  limit of memory: not held: "), "{doctor}");
}

#[test]
fn a_fork_bomb_ends_without_control_groups_too() {
    let workspace = TestWorkspace::new(BOMB);
    let Some(doctor) = without_groups(&workspace, "doctor") else { return };
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("limit of processes: "), "{doctor}");
    if !doctor.contains("limit of processes: held by the namespaces of each command") {
        return loudly(&format!("processes held by namespaces: {doctor}"));
    }
    let ran = without_groups(&workspace, "run bomb").expect("it worked before");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned() + &String::from_utf8_lossy(&ran.stdout);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains("killed for having more than 48 processes at once"), "{said}");
}

/// Directories of control groups that a process made.
fn groups_of(workspace: &TestWorkspace, pid: u32) -> Vec<PathBuf> {
    let doctor = workspace.run(&["doctor"]).stdout;
    let homes = doctor.lines().filter_map(|line| line.split_once("held by control groups below "));
    let listed =
        homes.flat_map(|(_, home)| fs::read_dir(home).expect("a group").map(|entry| entry.expect("an entry").path()));
    listed.filter(|path| path.to_string_lossy().contains(&format!("-{pid}-"))).collect()
}

#[test]
fn groups_go_with_their_commands_and_those_of_a_killed_run_with_the_next() {
    let workspace = TestWorkspace::new(
        "[task.long]\nrun = \"mkfifo wait; exec 3<> wait; echo up; read line <&3\"\nresources = { memory = \"1GiB\" }\n\
         [task.short]\nrun = \"true\"\nresources = { memory = \"1GiB\" }\ncache = false\n",
    );
    if !is_held(&workspace, "memory") {
        return;
    }
    let mut running = workspace.start(&["run", "long", "--format", "json"]);
    let pid = running.id();
    let mut events = BufReader::new(running.stdout.take().expect("it is piped")).lines();
    events
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("task.started")))
        .expect("it starts")
        .expect("text");
    let until = |is_so: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < Duration::from_secs(30), "{:?}", groups_of(&workspace, pid));
            // Removes nothing of a run that goes on, and takes the time that the other needs.
            workspace.run(&["run", "short"]).expect(0);
        }
    };
    until(&|| !groups_of(&workspace, pid).is_empty());
    drop(running);
    // Its launcher ends the command first: a group with somebody in it stays.
    until(&|| groups_of(&workspace, pid).is_empty());
}
