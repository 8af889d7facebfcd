//! What is around a command is another for the asking, a canary sees it, and the next command finds all as ever.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drystone::sandbox::canary::Sight;
use drystone::sandbox::spec::{Exit, Level, SandboxSpec, View};
use drystone::sandbox::surroundings::{Dimension, DirOrder, Ground, Identity, Occupant, Surroundings};

use crate::world::{World, bytes_view, loudly, namespaces, sh, with};

const YEAR: u64 = 365 * 24 * 3600;

fn around(mut spec: SandboxSpec, change: impl FnOnce(&mut Surroundings)) -> SandboxSpec {
    let mut around = Surroundings::default();
    change(&mut around);
    spec.surroundings = Some(Box::new(around));
    spec
}

fn scene(script: &str) -> SandboxSpec {
    with(
        sh(script),
        &[
            ("a", bytes_view("1")),
            ("b", bytes_view("2")),
            ("d/e", bytes_view("3")),
            ("l", View::Link { target: "a".into() }),
        ],
    )
}

fn sight(world: &World, mut spec: SandboxSpec) -> Sight {
    let mut around = spec.surroundings.take().unwrap_or_default();
    around.occupant = Occupant::Canary;
    spec.surroundings = Some(around);
    let ran = world.run(spec);
    assert_eq!(ran.finished.exit, Exit::Code(0), "{}", ran.stderr);
    Sight::read(ran.stdout.as_bytes())
}

/// The script shows one thing as ever and another as varied, the canary sees the difference, and then all is as ever.
#[track_caller]
fn check(dimension: Dimension, script: &str, expect: [&str; 2], change: impl Fn(&mut Surroundings)) {
    let Some(world) = namespaces() else { return };
    let printed = |spec| {
        let ran = world.run(spec);
        assert_eq!(ran.finished.exit, Exit::Code(0), "{script}: {}", ran.stderr);
        ran.stdout.trim_end().to_owned()
    };
    assert_eq!(printed(scene(script)), expect[0], "as ever");
    assert_eq!(printed(around(scene(script), &change)), expect[1], "varied");
    let (plain, varied) = (sight(&world, scene("")), sight(&world, around(scene(""), &change)));
    for other in Dimension::ALL {
        if other == dimension {
            assert_ne!(plain.of(other), varied.of(other), "{other:?}");
            assert!(plain.of(other).is_some(), "{other:?}");
        } else if !(dimension == Dimension::FileSystem && other == Dimension::DirOrder) {
            assert_eq!(plain.of(other), varied.of(other), "{other:?}");
        }
    }
    assert_eq!(printed(scene(script)), expect[0], "as ever afterwards");
}

#[test]
fn the_workspace_lies_elsewhere() {
    let script = "pwd; test -e /workspace && echo there; echo x > out; echo y > a || echo read-only";
    check(
        Dimension::BuildPath,
        &format!("({script}) 2>/dev/null"),
        ["/workspace\nthere\nread-only", "/b/deep\nread-only"],
        |around| {
            around.workspace_dir = "/b/deep".into();
        },
    );
    let Some(world) = namespaces() else { return };
    for place in ["/b/deep", "/tmp/w"] {
        for ground in [Ground::Memory, Ground::Disk] {
            let ran = world.run(around(scene("echo x > out; echo t > /tmp/t; cat /tmp/t"), |around| {
                around.workspace_dir = place.into();
                around.ground = ground;
            }));
            assert_eq!(ran.stdout, "t\n", "{}", ran.stderr);
            let out = ran.finished.workspace.path().join("out");
            assert_eq!(std::fs::read_to_string(out).expect("it is left behind"), "x\n", "{place} {ground:?}");
        }
    }
}

#[test]
fn the_host_has_another_name() {
    check(
        Dimension::HostName,
        "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname; grep -c other /etc/hosts || true",
        ["drystone\n(none)\n0", "other\nnis\n1"],
        |around| {
            around.host_name = "other".into();
            around.domain_name = Some("nis".into());
        },
    );
}

#[test]
fn the_user_is_another() {
    check(
        Dimension::User,
        "id -u; id -g; id -un; id -gn",
        ["1000\n1000\ndrystone\ndrystone", "77\n88\nann\nstaff"],
        |around| {
            around.identity = Some(Identity { user: "ann".into(), group: "staff".into(), uid: 77, gid: 88 });
        },
    );
}

#[test]
fn the_umask_is_another() {
    check(Dimension::Umask, "umask", ["0022", "0077"], |around| around.umask = 0o077);
}

#[test]
fn the_environment_comes_in_the_other_order() {
    check(
        Dimension::Environment,
        "tr '\\0' '\\n' < /proc/$$/environ | grep -v '^PWD\\|^OLDPWD\\|^SHLVL\\|^_=' | head -n 1 | cut -d= -f1",
        ["HOME", "TMPDIR"],
        |around| around.environment_order = DirOrder::Reversed,
    );
}

#[test]
fn there_are_fewer_processors() {
    let there = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    if there == "1" {
        return loudly("NOT TESTED: fewer processors, for there is one");
    }
    check(Dimension::Cpus, "nproc", [&there, "1"], |around| around.cpus = Some(1));
}

#[test]
fn directories_are_listed_the_other_way_round() {
    let Some(world) = namespaces() else { return };
    let list = |spec| {
        world.run(spec).stdout.lines().filter(|name| !name.starts_with('.')).map(str::to_owned).collect::<Vec<_>>()
    };
    let plain = list(scene("ls -f"));
    let mut other = list(around(scene("ls -f"), |around| around.dir_order = DirOrder::Reversed));
    assert_eq!(plain.len(), 4);
    assert_ne!(plain, other);
    other.reverse();
    assert_eq!(plain, other);
    let shown = |spec| sight(&world, spec).of(Dimension::DirOrder).map(str::to_owned);
    assert_ne!(shown(scene("")), shown(around(scene(""), |around| around.dir_order = DirOrder::Reversed)));
}

#[test]
fn memory_is_laid_out_the_same_each_time() {
    let Some(world) = namespaces() else { return };
    let stack = || around(sh("grep stack /proc/self/maps"), |around| around.fixed_addresses = true);
    assert_eq!(world.run(stack()).stdout, world.run(stack()).stdout);
    assert_eq!(sight(&world, stack()).of(Dimension::Aslr), Some("fixed"));
    assert_eq!(sight(&world, sh("")).of(Dimension::Aslr), Some("random"));
}

#[test]
fn the_kernel_is_an_old_one() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    check(Dimension::Kernel, "uname -r | cut -d. -f1", [release.split('.').next().expect("a number"), "2"], |around| {
        around.old_kernel = true;
    });
}

#[test]
fn the_workspace_lies_on_the_disk() {
    let Some(world) = namespaces() else { return };
    let stage = world.stage();
    let kind = rustix::fs::statfs(Path::new(stage.path())).expect("a stage").f_type;
    let seen = sight(&world, around(scene(""), |around| around.ground = Ground::Disk));
    assert_eq!(seen.of(Dimension::FileSystem), Some(format!("{kind:x}").as_str()));
    assert_eq!(sight(&world, scene("")).of(Dimension::FileSystem), Some("1021994"));
    let ran = world.run(around(scene("echo x > out; (echo y > a) 2>/dev/null || echo read-only"), |around| {
        around.ground = Ground::Disk
    }));
    assert_eq!(ran.stdout, "read-only\n");
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Each line of what the script prints is a time that is so far ahead.
#[track_caller]
fn check_ahead(world: &World, script: &str) {
    let before = now() + YEAR;
    let ran = world.run(around(sh(script), |around| around.clock_ahead = Duration::from_secs(YEAR)));
    assert_eq!(ran.finished.exit, Exit::Code(0), "{script}: {}", ran.stderr);
    assert!(!ran.stdout.is_empty());
    for line in ran.stdout.lines() {
        let told: u64 = line.parse().expect("seconds");
        assert!((before..=now() + YEAR).contains(&told), "{script}: {told} is not {before}");
    }
    let plain: u64 = world.run(sh("date +%s")).stdout.trim().parse().expect("seconds");
    assert!(plain <= now(), "the next command has the machine's clock");
}

#[test]
fn the_clock_is_ahead_for_all_that_it_starts() {
    let Some(world) = namespaces() else { return };
    check_ahead(&world, "date +%s; (date +%s); exec date +%s");
    if Path::new("/usr/bin/python3").exists() {
        check_ahead(
            &world,
            "/usr/bin/python3 -c 'import time, threading, subprocess, os
print(int(time.time()))
one = threading.Thread(target=lambda: print(int(time.time()))); one.start(); one.join()
print(subprocess.run([\"date\", \"+%s\"], capture_output=True, text=True).stdout.strip())
done = threading.Event(); began = time.monotonic(); done.wait(0.05); assert time.monotonic() - began < 5'",
        );
    } else {
        loudly("NOT TESTED: the clock of threads, for want of python3 in /usr/bin");
    }
    if Path::new("/usr/bin/busybox").exists() {
        check_ahead(&world, "/usr/bin/busybox date +%s; /usr/bin/busybox sh -c 'busybox date +%s'");
    } else {
        loudly("NOT TESTED: the clock of a static program, for want of busybox");
    }
    let seen = |change: &dyn Fn(&mut Surroundings)| {
        sight(&world, around(sh(""), change)).of(Dimension::Clock).map(str::to_owned)
    };
    assert_eq!(seen(&|_| {}).as_deref(), Some("+0 goes"));
    assert_eq!(seen(&|around| around.clock_ahead = Duration::from_secs(YEAR)).as_deref(), Some("+8760 goes"));
    assert!(seen(&|around| around.clock_stands = true).is_some_and(|told| told.ends_with(" stands")));
    // At a full hour, whenever it is begun.
    let stood = world.run(around(sh("date -u +%M%S; date -u +%M%S"), |around| around.clock_stands = true)).stdout;
    assert_eq!(stood, "0000\n0000\n");
}

#[test]
fn surroundings_as_ever_change_nothing() {
    let Some(world) = namespaces() else { return };
    let script = "id; pwd; umask; cat /etc/passwd /etc/group /etc/hosts; uname -rn; nproc; ls -f; ls -f /; env";
    let plain = world.run(scene(script)).stdout;
    let same = world.run(around(scene(script), |_| {})).stdout;
    assert_eq!(plain, same);
    assert!(plain.contains("drystone"), "it printed");
}

#[test]
fn only_namespaces_vary() {
    let world = World::new(Level::None);
    let error = world.error(around(sh("true"), |around| around.umask = 0));
    assert!(error.contains("`namespaces`"), "{error}");
    assert_eq!(world.run(around(sh("echo x"), |_| {})).stdout, "x\n");
}
