//! What a command may use at once, and that one that takes more is killed whole, soon, and by name.
//!
//! The limits are low: what breaks here must not break the machine.

use std::time::{Duration, Instant};

use drystone::sandbox::limits::held;
use drystone::sandbox::probe::Refusal;
use drystone::sandbox::spec::{Exit, Level, Limit, Limits, SandboxSpec};

use crate::world::{World, argv, levels, loudly, sh};

const MEMORY_BYTES: u64 = 48 * 1024 * 1024;
const PROCESSES: u32 = 48;

/// Far less than the time limit of the commands, and enough for a loaded machine.
const SOON: Duration = Duration::from_secs(30);

fn limited(mut spec: SandboxSpec, limits: Limits) -> SandboxSpec {
    spec.limits = limits;
    spec
}

fn memory() -> Limits {
    Limits { memory_bytes: Some(MEMORY_BYTES), ..Limits::default() }
}

fn processes() -> Limits {
    Limits { processes: PROCESSES, ..Limits::default() }
}

/// The levels at which a limit is held; says loudly at which it is not.
fn levels_with(what: &str, held: impl Fn(Level) -> Result<String, Refusal>) -> Vec<Level> {
    let is_held = |level: &Level| match held(*level) {
        Ok(_) => true,
        Err(refusal) => {
            loudly(&format!("NOT TESTED: a limit of {what} at {}: {}", level.word(), refusal.reason));
            false
        }
    };
    levels().into_iter().filter(is_held).collect()
}

#[test]
fn whoever_takes_too_much_memory_is_killed_whole() {
    for level in levels_with("memory", |level| held(level).memory) {
        let world = World::new(level);
        // The second goes on when the greedy one is killed, and the third asks for it in a descendant that nobody waits for.
        for script in [
            "head -c 200M /dev/zero | tail -c 190M | wc -c",
            "(head -c 200M /dev/zero | tail -c 190M) | wc -c || true; echo survived; exec sleep 60",
            "setsid sh -c 'head -c 200M /dev/zero | tail -c 190M' & exec sleep 60",
        ] {
            let began = Instant::now();
            let ran = world.run(limited(sh(script), memory()));
            assert_eq!(ran.finished.exit, Exit::Over(Limit::Memory), "{level:?} {script}: {}", ran.stderr);
            assert!(began.elapsed() < SOON, "{level:?} {script} took {:?}", began.elapsed());
        }
        let little = world.run(limited(sh("head -c 8M /dev/zero | tail -c 7M | wc -c"), memory()));
        assert_eq!((little.finished.exit, little.stdout.trim()), (Exit::Code(0), "7340032"), "{level:?}");
        let peak_kib = little.finished.usage.max_rss_kib;
        assert!(peak_kib > 7 * 1024 && peak_kib <= MEMORY_BYTES / 1024, "{peak_kib}");
    }
}

#[test]
fn what_is_written_to_the_sandbox_is_memory_too() {
    if !levels_with("memory", |level| held(level).memory).contains(&Level::Namespaces) {
        return;
    }
    let world = World::new(Level::Namespaces);
    for place in ["/tmp/big", "/dev/shm/big", "/workspace/big"] {
        let ran = world.run(limited(sh(&format!("head -c 100M /dev/zero > {place}; echo written")), memory()));
        assert_eq!((ran.finished.exit, &*ran.stdout), (Exit::Over(Limit::Memory), ""), "{place}");
    }
}

/// One that ends by itself when it may not grow, one that never does, one that does not even wait, and one of threads.
const BOMBS: [(&str, &str); 4] = [
    ("of a shell", "bomb() { bomb & bomb & wait; }; bomb"),
    ("that never ends", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n"),
    ("that outlives its first", "bomb() { (bomb &) ; bomb; }; bomb & exec sleep 60"),
    ("of threads", "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()\n"),
];

#[test]
fn a_fork_bomb_ends_soon_and_is_called_by_its_name() {
    for level in levels_with("processes", |level| held(level).processes) {
        let world = World::new(level);
        for (name, bomb) in BOMBS {
            let spec = if bomb.starts_with("import") { argv(&["python3", "-c", bomb]) } else { sh(bomb) };
            let began = Instant::now();
            let ran = world.run(limited(spec, processes()));
            assert_eq!(ran.finished.exit, Exit::Over(Limit::Processes), "{level:?} {name}: {}", ran.stderr);
            assert!(began.elapsed() < SOON, "{level:?} {name} took {:?}", began.elapsed());
        }
        assert_eq!(world.run(sh("exit 7")).finished.exit, Exit::Code(7), "the sandbox is of use afterwards");
    }
}

#[test]
fn as_many_processes_as_allowed_are_allowed() {
    for level in levels_with("processes", |level| held(level).processes) {
        let world = World::new(level);
        // A few fewer: the shell itself, and what counts beside it.
        let script = "i=0; while test $i -lt 40; do sleep 60 & i=$((i+1)); done; echo all";
        let ran = world.run(limited(sh(script), processes()));
        assert_eq!((ran.finished.exit, &*ran.stdout), (Exit::Code(0), "all\n"), "{level:?}: {}", ran.stderr);
    }
}

#[test]
fn each_command_is_counted_by_itself() {
    for level in levels_with("processes", |level| held(level).processes) {
        let world = World::new(level);
        let others = |count: u32| format!("i=0; while test $i -lt {count}; do sleep 60 & i=$((i+1)); done; echo all");
        for round in 0..5 {
            // With the shell itself one too many.
            let ran = world.run(limited(sh(&format!("{}; wait", others(PROCESSES))), processes()));
            assert_eq!(ran.finished.exit, Exit::Over(Limit::Processes), "{level:?} {round}: {}", ran.stderr);
            let ran = world.run(limited(sh(&others(PROCESSES - 1)), processes()));
            assert_eq!(
                (ran.finished.exit, &*ran.stdout),
                (Exit::Code(0), "all\n"),
                "{level:?} {round}: {}",
                ran.stderr
            );
        }
        let ran = world.run(sh(&others(2 * PROCESSES)));
        assert_eq!(ran.finished.exit, Exit::Code(0), "{level:?}: nor by the limit of the one before: {}", ran.stderr);
    }
}

#[test]
fn commands_that_were_expected_run_like_others() {
    for level in levels() {
        for (expected, commands) in [(0, 3), (1, 3), (3, 1), (2, 0)] {
            let world = World::new(level);
            world.sandbox.expect_commands(expected);
            std::thread::scope(|scope| {
                for _ in 0..commands {
                    scope.spawn(|| {
                        let ran = world.run(limited(sh("echo ran"), processes()));
                        let told = (ran.finished.exit, &*ran.stdout);
                        assert_eq!(told, (Exit::Code(0), "ran\n"), "{level:?} {expected}: {}", ran.stderr);
                    });
                }
            });
        }
    }
    for level in levels_with("processes", |level| held(level).processes) {
        let world = World::new(level);
        world.sandbox.expect_commands(1);
        let script = format!("i=0; while test $i -lt {PROCESSES}; do sleep 60 & i=$((i+1)); done; wait");
        let ran = world.run(limited(sh(&script), processes()));
        assert_eq!(ran.finished.exit, Exit::Over(Limit::Processes), "{level:?}: {}", ran.stderr);
    }
}

#[test]
fn limits_show_only_as_far_as_the_key_knows() {
    if !levels().contains(&Level::Namespaces) {
        return;
    }
    let world = World::new(Level::Namespaces);
    let look = |limits: Limits| {
        let seen =
            world.run(limited(sh("cat /proc/self/cgroup; grep -v '^Max open' /proc/self/limits"), limits)).stdout;
        assert!(!seen.contains("drystone-"), "{seen}");
        seen
    };
    assert_eq!(look(Limits::default()), look(memory()));
    assert_ne!(look(Limits::default()), look(processes()));
}
