//! What a command leaves for the next one of the same sandbox: nothing, though processes and namespaces may serve one after another.

use std::cell::RefCell;
use std::collections::BTreeSet;

use drystone::process::cancel::Cancel;
use drystone::sandbox::limits::held;
use drystone::sandbox::probe::Refusal;
use drystone::sandbox::spec::{Exit, Level, Network, SandboxSpec};

use crate::world::{World, loudly, namespaces, sh};

fn said(world: &World, spec: SandboxSpec) -> String {
    let ran = world.run(spec);
    assert_eq!(ran.finished.exit, Exit::Code(0), "{}{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// What a command can see of its network.
const NETWORK: &str = "cat /proc/net/dev /proc/net/snmp /proc/net/snmp6 /proc/net/netstat /proc/net/unix /proc/net/tcp \
    /proc/net/ip6_flowlabel /proc/net/if_inet6 /proc/net/fib_trie 2>/dev/null || true; head -n 1 /proc/net/sockstat; \
    cat /proc/sys/net/ipv4/ip_local_port_range";

/// Whatever can be left in a network, by those who have no power over it: as a Python program.
const TRACES: [(&str, &str); 6] = [
    ("nothing but a socket that was closed", "socket.socket().close()"),
    (
        "a connection that lingers where it was closed, and with it the port",
        "server = socket.create_server(('127.0.0.1', 4000))
client = socket.create_connection(('127.0.0.1', 4000))
one, _ = server.accept()
one.close(); client.close(); server.close()",
    ),
    ("a datagram to nobody", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 4001))"),
    ("a failed attempt to reach the world", "socket.socket().connect_ex(('192.0.2.1', 80))"),
    (
        "a name of no file, in a circle of sockets that hold each other",
        "one = socket.socket(socket.AF_UNIX); one.bind('\\0left'); one.listen()
a, b = socket.socketpair()
for _ in range(2): socket.send_fds(a, [b'x'], [one.fileno(), a.fileno(), b.fileno()])",
    ),
    (
        "a listener whose process is killed with it",
        "server = socket.create_server(('127.0.0.1', 4000)); os.kill(os.getpid(), 9)",
    ),
];

#[test]
fn no_command_finds_anything_in_its_network_of_the_one_before() {
    let Some(world) = namespaces() else { return };
    let look = || said(&world, sh(NETWORK));
    let first = look();
    assert!(first.contains("sockets: used 0") && first.contains("lo:"), "{first}");
    for (what, program) in TRACES {
        // The shell survives whatever becomes of the program.
        world.run(sh(&format!("python3 -c \"import os, socket\n{program}\" || true")));
        assert_eq!(look(), first, "after {what}");
        // The port and the name are free.
        let free = "python3 -c \"import socket
socket.socket().bind(('127.0.0.1', 4000))
socket.socket(socket.AF_UNIX).bind('\\0left')\" && echo free";
        assert_eq!(said(&world, sh(free)), "free\n", "after {what}");
    }
}

#[test]
fn commands_at_the_same_time_do_not_meet() {
    let Some(world) = namespaces() else { return };
    let (told, listens) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let told = RefCell::new(Some(told));
            let mut spec = sh("exec python3 -uc \"
import socket, sys
server = socket.create_server(('127.0.0.1', 4000))
name = socket.socket(socket.AF_UNIX); name.bind('\\0meet'); name.listen()
print('up')
server.settimeout(2)
try: server.accept(); print('met')
except TimeoutError: print('alone')\"");
            let stage = world.stage();
            spec.stage = stage.path().to_owned();
            let never = Cancel::new().expect("an event");
            let mut all = Vec::new();
            let finished = world.sandbox.run(&spec, &never, &mut |_, bytes| {
                all.extend_from_slice(bytes);
                if let Some(told) = told.borrow_mut().take() {
                    told.send(()).expect("somebody listens");
                }
            });
            assert_eq!(finished.expect("it runs").exit, Exit::Code(0));
            String::from_utf8(all).expect("UTF-8")
        });
        listens.recv().expect("it comes up");
        let client = "python3 -c \"import socket
print(socket.socket().connect_ex(('127.0.0.1', 4000)) != 0)
print(socket.socket(socket.AF_UNIX).connect_ex('\\0meet') != 0)\"";
        assert_eq!(said(&world, sh(client)), "True\nTrue\n");
        assert_eq!(server.join().expect("no assertion failed"), "up\nalone\n");
    });
}

/// Enough that a launcher that takes turns with others serves some of them.
const ROUNDS: usize = 20;

#[test]
fn a_network_serves_again_only_if_nothing_was_left_in_it() {
    let Some(world) = namespaces() else { return };
    match held(Level::Namespaces).processes {
        Ok(how) if how.starts_with("by control groups") => {}
        Ok(why) | Err(Refusal { reason: why, .. }) => {
            return loudly(&format!("NOT TESTED: every command has a network of its own here: {why}"));
        }
    }
    let network = |script: &str| said(&world, sh(&format!("{script}; readlink /proc/self/ns/net")));
    // There may be several launchers that take turns.
    let serves_again = || (0..ROUNDS).map(|_| network("true")).collect::<BTreeSet<_>>().len() < ROUNDS / 2;
    assert!(serves_again());
    let used = "python3 -c \"import socket; socket.socket().connect_ex(('127.0.0.1', 4000))\"";
    for _ in 0..5 {
        assert_ne!(network(used), network("true"));
    }
    assert!(serves_again(), "once it was made anew");
    // A launcher that has left the host's network serves none that is to have it.
    let host = SandboxSpec { network: Network::Host, ..sh("readlink /proc/self/ns/net") };
    let ours = std::fs::read_link("/proc/self/ns/net").expect("it is there");
    assert_eq!(said(&world, host).trim_end(), ours.to_string_lossy());
    assert_ne!(network("true").trim_end(), ours.to_string_lossy());
}

#[test]
fn nobody_has_power_over_the_network_it_is_in() {
    let Some(world) = namespaces() else { return };
    let set_down = "python3 -c 'import socket, fcntl, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack(\"16sh14x\", b\"lo\", 0))' 2>&1 | grep -o PermissionError";
    for _ in 0..3 {
        assert_eq!(said(&world, sh(set_down)), "PermissionError\n");
        // Made mighty in a user namespace of its own, it still has no say.
        let mighty = format!(
            "if unshare --user true 2>/dev/null; then unshare --user --map-root-user {set_down}; else echo PermissionError; fi"
        );
        assert_eq!(said(&world, sh(&mighty)), "PermissionError\n");
        let write = "(echo 1 2 > /proc/sys/net/ipv4/ip_local_port_range) 2>/dev/null && echo written || echo refused";
        assert_eq!(said(&world, sh(write)), "refused\n");
    }
}

#[test]
fn no_command_finds_memory_or_messages_of_the_one_before() {
    let Some(world) = namespaces() else { return };
    let look = "cat /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg | grep -v key || echo nothing; hostname; ls /dev/shm /tmp";
    let first = said(&world, sh(look));
    assert!(first.contains("nothing"), "{first}");
    for _ in 0..3 {
        said(
            &world,
            sh(
                "ipcmk -M 4096 >/dev/null; ipcmk -S 1 >/dev/null; ipcmk -Q >/dev/null; echo x > /dev/shm/x; echo x > /tmp/x",
            ),
        );
        assert_eq!(said(&world, sh(look)), first);
    }
}
