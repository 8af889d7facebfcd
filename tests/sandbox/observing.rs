//! That everything a command does in the workspace is seen, however it is done, and that a gap is told.

use std::path::Path;
use std::process::Command;

use drystone::sandbox::spec::{Content, Exit, Level, Observation, SandboxSpec, Touch, View};

use crate::world::{World, argv, file_view, levels, loudly, namespaces, rel, sh, with};

const ABSENT: Touch = Touch::LOOKED.and(Touch::ABSENT);

/// Runs a command that succeeds under observation.
pub fn observe(world: &World, mut spec: SandboxSpec) -> Observation {
    spec.observe = true;
    let ran = world.run(spec);
    assert_eq!((ran.finished.exit, ran.stderr.as_str()), (Exit::Code(0), ""), "{}", ran.stdout);
    ran.finished.observation.expect("it was to be observed")
}

/// Asserts that all was seen, and each of these.
pub fn saw(seen: &Observation, expect: &[(&str, Touch)]) {
    assert_eq!(seen.gap, None);
    for (path, touch) in expect {
        let found = seen.paths.get(&rel(path)).copied().unwrap_or_default();
        assert!(found.has(*touch), "{path}: {touch:?} expected, {found:?} seen, of {:?}", seen.paths);
    }
}

pub fn untouched(seen: &Observation, paths: &[&str]) {
    for path in paths {
        assert_eq!(seen.paths.get(&rel(path)), None, "{path}");
    }
}

/// A workspace with something of everything.
pub fn furnished(world: &World, spec: SandboxSpec) -> SandboxSpec {
    let dir = world.file("ws/lib/deep/b.txt", "beta\n");
    world.file("ws/lib/c.txt", "gamma\n");
    let dir = dir.parent().and_then(Path::parent).expect("two levels").to_owned();
    with(
        spec,
        &[
            ("src/a.txt", file_view(world.file("ws/src/a.txt", "alpha\n"))),
            ("src/other.txt", file_view(world.file("ws/src/other.txt", "other\n"))),
            ("src/link", View::Link { target: "../lib/./deep".into() }),
            ("src/link2", View::Link { target: "/workspace/src/link/b.txt".into() }),
            ("lib", View::Dir { host: dir }),
        ],
    )
}

#[test]
fn what_a_shell_does_is_seen() {
    let Some(world) = namespaces() else { return };
    let script = "
        cat src/a.txt; test -e src/missing || true; test -e no/such/dir || true
        cat src/link2; ls lib >/dev/null; readlink src/link >/dev/null
        cd lib/deep; cat ../c.txt; cd /workspace
        echo x > out; mkdir made; mv out made/out; chmod 600 made/out; ln -s x made/link; rm made/link; rmdir nothing 2>/dev/null || true
        cp /bin/true made/true; made/true";
    let seen = observe(&world, furnished(&world, sh(script)));
    saw(
        &seen,
        &[
            ("src/a.txt", Touch::READ),
            ("src/missing", ABSENT),
            ("no/such/dir", ABSENT),
            ("src/link2", Touch::LINK),
            ("src/link", Touch::LINK),
            ("lib/deep/b.txt", Touch::READ),
            ("lib", Touch::LISTED),
            ("lib/c.txt", Touch::READ),
            ("out", Touch::WRITTEN.and(Touch::ABSENT)),
            ("made", Touch::WRITTEN),
            ("made/out", Touch::WRITTEN),
            ("made/link", Touch::WRITTEN),
            ("nothing", Touch::WRITTEN.and(Touch::ABSENT)),
            ("made/true", Touch::EXECUTED),
        ],
    );
    untouched(&seen, &["src/other.txt", "src/link/b.txt"]);
}

#[test]
fn nothing_is_observed_that_was_not_asked_for() {
    let Some(world) = namespaces() else { return };
    assert_eq!(world.run(sh("true")).finished.observation, None);
    let status = "grep -E '^(Seccomp|Seccomp_filters):' /proc/self/status | tr -d '\\t' | tr '\\n' ' '";
    assert_eq!(world.run(sh(status)).stdout, "Seccomp:0 Seccomp_filters:0 ");
}

#[test]
fn the_level_without_namespaces_says_that_it_sees_nothing() {
    let world = World::new(Level::None);
    let mut spec = sh("true");
    spec.observe = true;
    let seen = world.run(spec).finished.observation.expect("it was to be observed");
    assert!(!seen.is_complete() && seen.paths.is_empty(), "{seen:?}");
}

/// Compiles a program, or says loudly that there is no compiler.
pub fn compiled(world: &World, name: &str, flags: &[&str], text: &str) -> Option<View> {
    let source = world.file(&format!("{name}.c"), text);
    let program = world.dir.path().join(name);
    let built = Command::new("cc").args(flags).arg("-o").arg(&program).arg(&source).output();
    match built {
        Ok(output) if output.status.success() => Some(View::File { content: Content::Host(program), executable: true }),
        _ => {
            loudly(&format!("NOT TESTED: {name}: `cc {}` does not work here", flags.join(" ")));
            None
        }
    }
}

#[test]
fn static_programs_raw_calls_threads_and_children_are_seen() {
    let Some(world) = namespaces() else { return };
    let text = r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <pthread.h>
        #include <stdlib.h>
        #include <sys/stat.h>
        #include <sys/syscall.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static void *thread(void *unused) {
            syscall(SYS_openat, AT_FDCWD, "src/by-thread", O_RDONLY);
            return unused;
        }
        int main(void) {
            int dir = open("src", O_RDONLY | O_DIRECTORY);
            struct stat info;
            syscall(SYS_openat, dir, "a.txt", O_RDONLY);
            syscall(SYS_openat, dir, "../lib/raw", O_RDONLY);
            syscall(SYS_faccessat, dir, "by-access", R_OK);
            fstatat(dir, "by-stat", &info, 0);
            /* A path beside the flag that says there is none. */
            syscall(SYS_newfstatat, dir, "with-empty-path", &info, AT_EMPTY_PATH);
            fstatat(dir, "", &info, AT_EMPTY_PATH);
            /* Bits above a descriptor's mean nothing to the kernel. */
            syscall(SYS_openat, (long)dir | 0x700000000L, "high-bits", O_RDONLY);
            pthread_t other;
            pthread_create(&other, 0, thread, 0);
            pthread_join(other, 0);
            if (vfork() == 0) { syscall(SYS_chdir, "lib"); syscall(SYS_openat, AT_FDCWD, "by-child", O_RDONLY); _exit(0); }
            wait(0);
            syscall(SYS_openat, AT_FDCWD, "/proc/self/cwd/src/by-proc", O_RDONLY);
            syscall(SYS_openat, AT_FDCWD, "/dev/fd/3/by-fd", O_RDONLY);
            symlink("/workspace/src", "/tmp/in");
            syscall(SYS_openat, AT_FDCWD, "/tmp/in/by-link", O_RDONLY);
            return 0;
        }"#;
    let expect = [
        ("src/a.txt", Touch::READ),
        ("lib/raw", Touch::READ.and(Touch::ABSENT)),
        ("src/by-access", ABSENT),
        ("src/by-stat", ABSENT),
        ("src/with-empty-path", ABSENT),
        ("src/high-bits", Touch::READ.and(Touch::ABSENT)),
        ("src/by-thread", Touch::ABSENT),
        ("lib/by-child", Touch::ABSENT),
        ("src/by-proc", Touch::ABSENT),
        ("src/by-fd", Touch::ABSENT),
        ("src/by-link", Touch::ABSENT),
    ];
    for (name, flags) in [("dynamic", &["-pthread"][..]), ("static", &["-static", "-pthread"][..])] {
        let Some(program) = compiled(&world, name, flags, text) else { continue };
        let mut spec = furnished(&world, argv(&["/workspace/program"]));
        spec.view.insert(rel("program"), program);
        let seen = observe(&world, spec);
        saw(&seen, &expect);
        saw(&seen, &[("program", Touch::EXECUTED)]);
        untouched(&seen, &["src/other.txt"]);
    }
}

#[test]
fn an_interpreter_in_the_workspace_is_read_like_the_script() {
    let Some(world) = namespaces() else { return };
    let script = |text: &str| View::File { content: Content::Bytes(text.as_bytes().to_vec().into()), executable: true };
    let spec = with(
        sh("./script; cp script /tmp/copy; /tmp/copy"),
        &[
            ("script", script("#!/workspace/bin/link -x\n")),
            ("bin/link", View::Link { target: "real".into() }),
            ("bin/real", script("#!/bin/sh\n")),
        ],
    );
    let seen = observe(&world, spec);
    saw(&seen, &[("script", Touch::EXECUTED), ("bin/link", Touch::LINK), ("bin/real", Touch::EXECUTED)]);
}

/// Python is on most machines that build this; where it is not, that is said.
pub fn python(script: &str) -> Option<SandboxSpec> {
    if Path::new("/usr/bin/python3").exists() {
        return Some(argv(&["/usr/bin/python3", "-I", "-S", "-c", script]));
    }
    loudly("NOT TESTED: /usr/bin/python3 is not here");
    None
}

#[test]
fn bad_pointers_and_endless_paths_fail_as_ever_and_leave_no_gap() {
    let Some(world) = namespaces() else { return };
    let text = r#"
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <string.h>
        #include <sys/mman.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static int fails(const char *path, int expect) {
            return syscall(SYS_openat, AT_FDCWD, path, O_RDONLY) != -1 || errno != expect;
        }
        int main(void) {
            static char longest[8192];
            memset(longest, 'x', sizeof longest - 1);
            if (fails((char *)8, EFAULT) || fails((char *)-8, EFAULT) || fails(longest, ENAMETOOLONG)) return 1;
            /* 4095 bytes are a path, one more is not. */
            for (int at = 0; at < 4095; at++) longest[at] = at % 2 ? '/' : '.';
            memcpy(longest + 4090, "/last", 6);
            if (fails(longest, ENOENT)) return 2;
            memcpy(longest + 4090, "/last/", 7);
            if (fails(longest, ENAMETOOLONG)) return 3;
            /* At the very end of what is mapped, with its end and without. */
            char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            munmap(page + 4096, 4096);
            memcpy(page + 4096 - 5, "edge", 5);
            if (fails(page + 4096 - 5, ENOENT)) return 4;
            memcpy(page + 4096 - 5, "edgex", 5);
            if (fails(page + 4096 - 5, EFAULT)) return 5;
            if (syscall(SYS_openat, 4711, "nowhere", O_RDONLY) != -1 || errno != EBADF) return 6;
            if (syscall(SYS_io_uring_setup, 1, 0) != -1 || errno != ENOSYS) return 7;
            return 0;
        }"#;
    let Some(program) = compiled(&world, "pointers", &[], text) else { return };
    let mut spec = argv(&["/workspace/program"]);
    spec.view.insert(rel("program"), program);
    let seen = observe(&world, spec);
    saw(&seen, &[("last", Touch::ABSENT), ("edge", Touch::ABSENT)]);
    untouched(&seen, &["nowhere", "edgex"]);
}

#[test]
fn links_that_lead_in_circles_or_far_are_followed_as_far_as_the_kernel_does() {
    let Some(world) = namespaces() else { return };
    let script = "
        i=0; touch l0; while test $i -lt 45; do ln -s l$i l$((i+1)); i=$((i+1)); done
        cat l39; cat l45 2>/dev/null || true; ln -s loop loop; cat loop 2>/dev/null || true
        d=deep; i=0; while test $i -lt 60; do d=$d/d; i=$((i+1)); done; mkdir -p $d; cat $d/missing 2>/dev/null || true";
    let seen = observe(&world, sh(script));
    let deep = format!("deep{}/missing", "/d".repeat(60));
    saw(&seen, &[("l0", Touch::READ), ("l39", Touch::LINK), ("l45", Touch::LINK), (&deep, Touch::ABSENT)]);
}

#[test]
fn a_storm_of_short_processes_is_seen_to_its_end() {
    let Some(world) = namespaces() else { return };
    let script = "
        for i in 1 2 3 4 5 6 7 8; do (for j in 1 2 3 4 5 6 7 8 9 10; do (: < /dev/null; test -e f-$i-$j) & done; wait) & done
        wait";
    let seen = observe(&world, sh(script));
    let expect: Vec<String> = (1..=8).flat_map(|i| (1..=10).map(move |j| format!("f-{i}-{j}"))).collect();
    saw(&seen, &expect.iter().map(|path| (path.as_str(), ABSENT)).collect::<Vec<_>>());
}

#[test]
fn processes_killed_while_they_ask_hold_nothing_up() {
    let Some(world) = namespaces() else { return };
    let script = "
        storm() { while :; do test -e x || test -e y/z || :; done; }
        i=0; while test $i -lt 40; do storm & kill -9 $!; storm & kill -STOP $!; i=$((i+1)); done 2>/dev/null
        test -e last || true";
    // A shell that is told of a child's end in the midst of a call gives it up: that is a gap.
    let seen = observe(&world, sh(script));
    assert!(seen.gap.is_some() || seen.paths.contains_key(&rel("last")), "{seen:?}");
}

#[test]
fn a_call_that_a_signal_ended_unseen_is_a_gap() {
    let Some(world) = namespaces() else { return };
    let script = "
import os, signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
while True:
    try:
        os.stat('/workspace/missing')
    except FileNotFoundError:
        pass
    except InterruptedError:
        break
signal.setitimer(signal.ITIMER_REAL, 0)
os._exit(0)";
    let Some(spec) = python(script) else { return };
    let seen = observe(&world, spec);
    assert!(seen.gap.as_deref().is_some_and(|gap| gap.contains("a signal ended one of its calls")), "{:?}", seen.gap);
}

#[test]
fn handlers_that_restart_calls_interrupt_nothing_that_is_looked_at() {
    let Some(world) = namespaces() else { return };
    let script = "
import os, signal
count = 0
def tick(*_):
    global count
    count += 1
signal.signal(signal.SIGALRM, tick)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
while count < 200:
    try:
        os.stat('/workspace/missing')
    except FileNotFoundError:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)";
    let Some(spec) = python(script) else { return };
    // Whether a call that was given up was begun again cannot be told from outside: there may be a gap.
    assert!(observe(&world, spec).paths.contains_key(&rel("missing")));
}

#[test]
fn what_cannot_be_seen_is_a_gap() {
    let Some(world) = namespaces() else { return };
    let gap = |spec: SandboxSpec, expect: &str| {
        let seen = observe(&world, spec);
        assert!(seen.gap.as_deref().is_some_and(|gap| gap.contains(expect)), "{expect}: {:?}", seen.gap);
    };
    gap(sh("cat \"$(printf 'a\\377')\" 2>/dev/null || true"), "UTF-8");
    let call = |number: i64, arguments: &str| {
        python(&format!("import ctypes; print(ctypes.CDLL(None, use_errno=True).syscall({number}, {arguments}))"))
    };
    if let Some(spec) = call(libc::SYS_chroot, "b'/'") {
        gap(spec, "chroot");
    }
    // A filter that allows everything, with a listener: the kernel refuses a second one.
    let listener = format!(
        "
import ctypes, struct
allow = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 1, ctypes.addressof(allow)))
libc = ctypes.CDLL(None, use_errno=True)
result = libc.syscall({}, 1, 8, program)
assert result == -1 and ctypes.get_errno() == 16, (result, ctypes.get_errno())",
        libc::SYS_seccomp
    );
    if let Some(spec) = python(&listener) {
        gap(spec, "observe its own");
    }
    let script = "
import os
for number in range(100100):
    try:
        os.lstat('/workspace/%d' % number)
    except FileNotFoundError:
        pass";
    if let Some(spec) = python(script) {
        gap(spec, "more paths than are kept");
    }
}

#[test]
fn a_program_that_is_not_there_is_told_as_ever() {
    let Some(world) = namespaces() else { return };
    let mut spec = argv(&["no-such-program"]);
    spec.observe = true;
    assert!(world.error(spec).contains("not in the sandbox PATH"));
}

#[test]
fn every_level_ends_an_observed_command_in_time() {
    for level in levels() {
        let world = World::new(level);
        let mut spec = sh("while :; do test -e x || :; done");
        spec.observe = true;
        spec.timeout = Some(std::time::Duration::from_millis(300));
        assert_eq!(world.run(spec).finished.exit, Exit::TimedOut, "{level:?}");
    }
}
