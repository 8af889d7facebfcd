//! What the `landlock` level keeps a command from, and what it cannot.

use std::fs;
use std::os::unix::net::UnixListener;

use drystone::sandbox::spec::{Access, Exit, Level, Mount, Network};

use crate::world::{Ran, World, file_view, levels, loudly, sh, with};

/// The level, unless the machine refuses it.
fn landlock() -> Option<World> {
    levels().contains(&Level::Landlock).then(|| World::new(Level::Landlock))
}

fn stdout(ran: &Ran) -> &str {
    assert_eq!((ran.stderr.as_str(), ran.finished.exit), ("", Exit::Code(0)), "{}", ran.stdout);
    &ran.stdout
}

#[test]
fn only_what_was_declared_can_be_opened() {
    let Some(world) = landlock() else { return };
    let undeclared = world.file("ws/undeclared.txt", "secret\n");
    let input = world.file("ws/a.txt", "alpha\n");
    let script = "
        for path in $HOST /etc/passwd /etc/hostname /usr/local/bin /root /home /var /sys/kernel /dev/shm /; do
            if cat $path >/dev/null 2>&1 || ls $path/ >/dev/null 2>&1; then echo leaks: $path; fi
        done
        for path in $HOST $HOST.new /var/tmp/new /usr/new /etc/new /dev/shm/new; do
            if (echo x > $path) 2>/dev/null; then echo writes: $path; fi
        done
        if ln $HOST hard 2>/dev/null; then echo linked; fi
        if mv $HOST moved 2>/dev/null; then echo moved; fi
        if rm -f $HOST 2>/dev/null; then echo removed; fi
        test -e $HOST && echo its existence shows
        cat a.txt; echo made > out; cat out; echo x > $TMPDIR/y; mv $TMPDIR/y y; cat y; echo x > /dev/null";
    // As text of the script, for a variable that names something below `/tmp` follows the private one.
    let script = script.replace("$HOST", &undeclared.to_string_lossy());
    let ran = world.run(with(sh(&script), &[("a.txt", file_view(input))]));
    assert_eq!(stdout(&ran), "its existence shows\nalpha\nmade\nx\n");
    assert_eq!(fs::read_to_string(undeclared).expect("it is there"), "secret\n");
}

#[test]
fn inputs_are_a_copy_and_tools_are_read_only() {
    let Some(world) = landlock() else { return };
    let input = world.file("ws/a.txt", "alpha\n");
    let tool = world.file("tool/data", "tool\n").parent().expect("in a directory").to_owned();
    let mut spec = with(
        sh("echo changed > a.txt; cat a.txt $TOOL/data; if (echo x > $TOOL/data) 2>/dev/null; then echo writable; fi"),
        &[("a.txt", file_view(input.clone()))],
    );
    spec.env.insert("TOOL".into(), tool.to_string_lossy().into_owned());
    spec.mounts = vec![Mount { host: tool.clone(), inside: tool, access: Access::ReadOnly }];
    assert_eq!(stdout(&world.run(spec)), "changed\ntool\n");
    assert_eq!(fs::read_to_string(input).expect("it is there"), "alpha\n");
}

/// Tries sockets of every kind, and a pair, which needs no address.
const SOCKETS: &str = "
import ctypes, socket, sys
for family, kind in [(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET6, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM)]:
    try:
        socket.socket(family, kind)
        print('socket', family)
    except PermissionError:
        pass
one, other = socket.socketpair()
one.send(b'pair')
print(other.recv(4).decode())
libc = ctypes.CDLL(None, use_errno=True)
print('ring', libc.syscall(425, 8, None), ctypes.get_errno())
";

#[test]
fn without_network_there_are_no_sockets_and_never_a_ring() {
    let Some(world) = landlock() else { return };
    if !std::path::Path::new("/usr/bin/python3").exists() {
        return loudly("NOT TESTED: sockets under landlock, for want of /usr/bin/python3");
    }
    let script = world.file("ws/sockets.py", SOCKETS);
    let mut spec = with(sh("/usr/bin/python3 sockets.py"), &[("sockets.py", file_view(script))]);
    assert_eq!(stdout(&world.run(spec.clone())), "pair\nring -1 38\n");
    spec.network = Network::Host;
    assert!(stdout(&world.run(spec)).starts_with("socket 2\n"));
}

#[test]
fn processes_outside_cannot_be_signalled_nor_reached() {
    let Some(world) = landlock() else { return };
    let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().expect("it starts");
    let socket = world.dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let mut spec = sh("
        if kill -0 $CHILD 2>/dev/null; then echo may signal; fi
        if cat /proc/$CHILD/environ >/dev/null 2>&1; then echo reads its environment; fi
        if cat /proc/$CHILD/exe >/dev/null 2>&1; then echo reads its program; fi
        sleep 600 & kill $! && echo its own it may");
    spec.env.insert("CHILD".into(), child.id().to_string());
    let ran = world.run(spec);
    child.kill().expect("it is ours");
    child.wait().expect("it ends");
    assert_eq!(stdout(&ran), "its own it may\n");
}
