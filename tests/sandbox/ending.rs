//! How commands end, or are ended, and that nothing lives on afterwards.

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use drystone::process::cancel::Cancel;
use drystone::sandbox::spec::{Access, Exit, Level, Mount, SandboxSpec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::world::{World, levels, loudly, sh};

#[test]
fn the_exit_is_told_exactly() {
    for level in levels() {
        let world = World::new(level);
        let check = |script: &str, expect: Exit| {
            assert_eq!(world.run(sh(script)).finished.exit, expect, "{level:?} {script}");
        };
        check("exit 0", Exit::Code(0));
        check("exit 7", Exit::Code(7));
        check("exit 127", Exit::Code(127));
        check("kill -9 $$", Exit::Signal(9));
        check("kill -SEGV $$", Exit::Signal(11));
        check("(sleep 0.01; exit 3) & wait $!", Exit::Code(3));
    }
}

#[test]
fn what_was_used_is_told() {
    let world = World::new(Level::None);
    let used = world.run(sh("i=0; while test $i -lt 100000; do i=$((i+1)); done")).finished.usage;
    assert!(used.cpu_ms > 0 && used.max_rss_kib > 500, "{used:?}");
}

/// A daemon of the kind that escapes: forked twice, a session of its own, deaf to TERM. It holds the output and the marks' pipe.
const DAEMON: &str = "
    setsid sh -c 'trap \"\" TERM; (exec 9> marks/pipe; echo up > marks/up; while :; do sleep 0.05; done) & ' &
    until test -s marks/up; do sleep 0.01; done; echo ready; ";

/// A pipe that tells whether anything a command has started still lives.
struct Marks {
    dir: PathBuf,
    pipe: std::os::fd::OwnedFd,
}

impl Marks {
    fn new(world: &World) -> Self {
        let dir = world.file("marks/start", "").parent().expect("in a directory").to_owned();
        drop(fs::remove_file(dir.join("up")));
        drop(fs::remove_file(dir.join("pipe")));
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, dir.join("pipe"), FileType::Fifo, mode, 0).expect("a pipe");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = rustix::fs::openat(CWD, dir.join("pipe"), flags, Mode::empty()).expect("it opens");
        Self { dir, pipe }
    }

    fn mount(&self, mut spec: SandboxSpec) -> SandboxSpec {
        let (host, inside) = (self.dir.clone(), "/workspace/marks".into());
        spec.mounts = vec![Mount { host, inside, access: Access::ReadWrite }];
        spec
    }

    /// Whether somebody lived and nobody does, right now: the pipe is at its end only when no writer is left.
    fn all_gone(&self) -> bool {
        assert!(self.dir.join("up").exists(), "the daemon never was");
        matches!(rustix::io::read(&self.pipe, &mut [0; 8]), Ok(0))
    }

    /// Waits for that.
    fn wait(&self, patience: Duration) -> bool {
        let mut fds = [PollFd::new(&self.pipe, PollFlags::IN)];
        let patience = Timespec::try_from(patience).expect("a short time");
        poll(&mut fds, Some(&patience)).expect("poll works") == 1
    }
}

/// Runs a script that starts the daemon, perhaps cancelling it then; checks that nothing lives on. Gives the time it took.
fn nothing_lives_on(world: &World, script: &str, timeout: Option<Duration>, expect: Exit) -> Duration {
    let marks = Marks::new(world);
    let stage = world.stage();
    let cancel = Cancel::new().expect("an event");
    let mut spec = marks.mount(sh(&format!("{DAEMON} {script}")));
    spec.timeout = timeout;
    spec.stage = stage.path().to_owned();
    let started = Instant::now();
    let finished = world.sandbox.run(&spec, &cancel, &mut |_, _| {
        if expect == Exit::Cancelled {
            cancel.cancel();
        }
    });
    assert_eq!(finished.unwrap_or_else(|error| panic!("{error}")).exit, expect);
    assert!(marks.all_gone(), "something still runs");
    started.elapsed()
}

#[test]
fn daemons_end_with_the_command_that_started_them() {
    for level in levels() {
        let took = nothing_lives_on(&World::new(level), "exit 4", None, Exit::Code(4));
        assert!(took < Duration::from_secs(20), "{level:?}: waited {took:?} for a daemon");
    }
}

#[test]
fn a_timeout_ends_the_whole_tree() {
    for level in levels() {
        let deaf = "trap '' TERM; sleep 600 & while :; do wait; done";
        let took = nothing_lives_on(&World::new(level), deaf, Some(Duration::from_secs(2)), Exit::TimedOut);
        assert!(took < Duration::from_secs(20), "{level:?}: {took:?}");
    }
}

#[test]
fn a_cancelled_command_may_clean_up_and_is_gone() {
    for level in levels() {
        let world = World::new(level);
        let cancel = Cancel::new().expect("an event");
        let stage = world.stage();
        // Ready means that `sleep` is past the instant in which a forked shell loses signals.
        let mut spec = sh("trap 'echo cleaned up; exit 0' TERM; sleep 600 &
            until grep -q sleep /proc/$!/comm; do :; done; echo ready; wait");
        spec.stage = stage.path().to_owned();
        let mut output = Vec::new();
        let started = Instant::now();
        let finished = world.sandbox.run(&spec, &cancel, &mut |_, bytes| {
            output.extend_from_slice(bytes);
            cancel.cancel();
        });
        assert_eq!(finished.expect("it ran").exit, Exit::Cancelled, "{level:?}");
        assert_eq!(String::from_utf8_lossy(&output), "ready\ncleaned up\n", "{level:?}");
        assert!(started.elapsed() < Duration::from_millis(1900), "the grace is for those who need it");
        nothing_lives_on(&world, "sleep 600", None, Exit::Cancelled);
        // Cancelled before it began, it does not begin.
        spec.argv = vec!["no-such-program".into()];
        let finished = world.sandbox.run(&spec, &cancel, &mut |_, _| {}).expect("nothing to fail");
        assert_eq!(finished.exit, Exit::Cancelled);
        assert!(fs::metadata(finished.workspace.path()).expect("it is there").is_dir());
    }
}

#[test]
fn nothing_outlives_an_engine_that_was_killed() {
    const VARIABLE: &str = "DRYSTONE_TEST_ENGINE_MARKS";
    if let Some(text) = std::env::var_os(VARIABLE) {
        // This is the engine; it is killed while the command runs.
        let text = text.into_string().expect("UTF-8");
        let (level, dir) = text.split_once(' ').expect("a level and a directory");
        let world = World::new(Level::parse(level).expect("a level"));
        let mut spec = sh(&format!("{DAEMON} sleep 600"));
        let (host, inside) = (dir.into(), "/workspace/marks".into());
        spec.mounts = vec![Mount { host, inside, access: Access::ReadWrite }];
        spec.stage = Path::new(dir).join("stage");
        fs::create_dir(&spec.stage).expect("a stage");
        let never = Cancel::new().expect("an event");
        drop(world.sandbox.run(&spec, &never, &mut |_, bytes| loudly(&String::from_utf8_lossy(bytes))));
        return;
    }
    for level in levels() {
        let world = World::new(level);
        let marks = Marks::new(&world);
        let mut engine = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "ending::nothing_outlives_an_engine_that_was_killed"])
            .env(VARIABLE, format!("{} {}", level.word(), marks.dir.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = std::io::BufReader::new(engine.stderr.take().expect("it is piped"));
        let ready = said.lines().map_while(Result::ok).find(|line| line.contains("ready"));
        assert!(ready.is_some(), "{level:?}: the engine never got that far");
        engine.kill().expect("it is ours");
        engine.wait().expect("it ends");
        // The engine said "ready", so there is a writer; its end is what wakes us.
        assert!(marks.wait(Duration::from_secs(30)) && marks.all_gone(), "{level:?}: something still runs");
    }
}

/// The launcher processes that are children of this one.
fn launchers_of_this_process() -> Vec<String> {
    let own = std::process::id().to_string();
    let children = fs::read_dir("/proc").expect("it lists").filter_map(|entry| {
        let pid = entry.ok()?.file_name().into_string().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.to_owned();
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        (parent == own && command.contains("__launcher")).then_some(pid)
    });
    children.collect()
}

#[test]
fn a_killed_launcher_is_an_error_and_never_a_hang() {
    // Other tests of this process have launchers of their own, so it is done in a process of its own.
    if std::env::var_os("DRYSTONE_TEST_KILLS_LAUNCHERS").is_none() {
        let status = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "ending::a_killed_launcher_is_an_error_and_never_a_hang", "--nocapture"])
            .env("DRYSTONE_TEST_KILLS_LAUNCHERS", "1")
            .stdout(Stdio::null())
            .status()
            .expect("it starts");
        assert!(status.success());
        return;
    }
    // A launcher whose last command is not quite gone is left alone by the next one, so there may be two.
    let kill = || {
        let launchers = launchers_of_this_process();
        assert!(!launchers.is_empty());
        let killed = Command::new("/bin/sh").args(["-c", &format!("kill -9 {}", launchers.join(" "))]).status();
        assert!(killed.expect("a shell").success());
        // They are left for the sandbox to be found dead.
        for launcher in launchers {
            let launcher = Pid::from_raw(launcher.parse().expect("a number")).expect("a process");
            let dead = waitid(WaitId::Pid(launcher), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            dead.expect("a child");
        }
    };
    for level in levels() {
        let world = World::new(level);
        world.run(sh("true"));
        kill();
        // Nothing was asked of it: the next command gets a new launcher.
        assert_eq!(world.run(sh("exit 4")).finished.exit, Exit::Code(4), "{level:?}, between two commands");
        let stage = world.stage();
        let mut spec = sh("echo ready; sleep 600");
        spec.stage = stage.path().to_owned();
        let never = Cancel::new().expect("an event");
        let error = world.sandbox.run(&spec, &never, &mut |_, _| kill()).expect_err("its launcher was killed");
        assert_eq!(
            error.to_string(),
            "the launcher process ended unexpectedly: signal: 9 (SIGKILL)",
            "{level:?}, during a command"
        );
        assert_eq!(world.run(sh("exit 5")).finished.exit, Exit::Code(5));
    }
}
