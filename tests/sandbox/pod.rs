//! Commands that share a pod: they meet on its network, and nowhere else.

use std::os::fd::AsFd;
use std::sync::mpsc::channel;

use drystone::process::cancel::Cancel;
use drystone::sandbox::checks::{Answer, Asked, Checks};
use drystone::sandbox::open::Company;
use drystone::sandbox::pod::Pod;
use drystone::sandbox::spec::{Exit, Level, Network, SandboxSpec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::world::{World, levels, namespaces, sh};

/// Listens on a port of the loopback interface until it is stopped; its scratch directory holds a file.
const SERVER: &str = "echo mine > /tmp/mine; exec python3 -uc '
import socket
server = socket.create_server((\"127.0.0.1\", 4242))
print(\"up\")
while True:
    server.accept()[0].sendall(b\"served\")'";

const CLIENT: &str = "python3 -c 'import socket
print(socket.create_connection((\"127.0.0.1\", 4242)).recv(99).decode())'";

fn in_pod(spec: SandboxSpec, pod: Option<&Pod>) -> SandboxSpec {
    let network = if pod.is_some() { Network::Pod } else { Network::Host };
    SandboxSpec { network, timeout: None, ..spec }
}

/// Ends the server even if the body panics.
struct Ends<'a>(&'a Cancel);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Has a server up in a pod while `body` runs, which gets what asks it things; then stops it.
fn beside_a_server(world: &World, script: &str, pod: Option<&Pod>, body: impl FnOnce(&Checks)) {
    let cancel = Cancel::new().expect("an event");
    let (checks, checked) = Checks::new().expect("a pair of sockets");
    let stage = world.stage();
    let mut spec = in_pod(sh(script), pod);
    spec.stage = stage.path().to_owned();
    let company = Company { pod: pod.cloned(), checked: Some(checked), ..Company::default() };
    let (up, is_up) = channel();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| world.sandbox.run_in(&spec, company, &cancel, &mut |_, _| _ = up.send(())));
        let ends = Ends(&cancel);
        is_up.recv().expect("the server says that it is up");
        body(&checks);
        drop(ends);
        let finished = server.join().expect("no panic").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(finished.exit, Exit::Cancelled);
    });
}

fn client(world: &World, script: &str, pod: Option<&Pod>) -> (Exit, String) {
    let never = Cancel::new().expect("an event");
    let stage = world.stage();
    let mut spec = in_pod(sh(script), pod);
    spec.stage = stage.path().to_owned();
    let mut said = Vec::new();
    let company = Company { pod: pod.cloned(), ..Company::default() };
    let finished = world.sandbox.run_in(&spec, company, &never, &mut |_, bytes| said.extend_from_slice(bytes));
    (finished.unwrap_or_else(|error| panic!("{error}")).exit, String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn those_in_one_pod_meet_on_its_network_and_nobody_else_does() {
    let Some(world) = namespaces() else { return };
    let pod = || world.sandbox.pod().expect("a pod can be made").expect("this level has pods");
    let (one, other) = (pod(), pod());
    beside_a_server(&world, SERVER, Some(&one), |_| {
        assert_eq!(client(&world, CLIENT, Some(&one)), (Exit::Code(0), "served\n".into()));
        let (exit, said) = client(&world, CLIENT, Some(&other));
        assert!(exit == Exit::Code(1) && said.contains("ConnectionRefused"), "another pod: {exit:?} {said}");
        let (exit, said) = client(&world, CLIENT, None);
        assert!(exit == Exit::Code(1) && said.contains("ConnectionRefused"), "the host: {exit:?} {said}");
        let alone = world.run(sh(CLIENT));
        assert!(alone.stderr.contains("ConnectionRefused"), "{}", alone.stderr);
    });
}

#[test]
fn those_in_one_pod_share_neither_files_nor_processes_and_have_no_power_over_it() {
    let Some(world) = namespaces() else { return };
    let pod = world.sandbox.pod().expect("a pod can be made").expect("this level has pods");
    beside_a_server(&world, SERVER, Some(&pod), |_| {
        let check = |script: &str, expect: &str| {
            assert_eq!(client(&world, script, Some(&pod)), (Exit::Code(0), expect.into()), "{script}");
        };
        check("test ! -e /tmp/mine; ! grep -l 'acc[e]pt' /proc/[0-9]*/cmdline", "");
        check("ls -d /proc/[0-9]* | wc -l | xargs test 6 -gt", "");
        check("grep CapEff /proc/self/status; id -u", "CapEff:\t0000000000000000\n1000\n");
        let set_down = "python3 -c 'import socket, struct, fcntl
fcntl.ioctl(socket.socket(), 0x8914, struct.pack(\"16sh14x\", b\"lo\", 0))' 2>&1 | grep -o PermissionError";
        check(set_down, "PermissionError\n");
        // Made mighty in a user namespace of its own, it still has no say over that of the pod.
        let mighty = format!(
            "if unshare --user true 2>/dev/null; then unshare --user --map-root-user {set_down}; else echo PermissionError; fi"
        );
        check(&mighty, "PermissionError\n");
        check(
            "ls /sys/class/net 2>/dev/null | grep -v lo || true; cut -d: -f1 /proc/net/dev | tail -n +3 | xargs",
            "lo\n",
        );
    });
}

fn answer(asked: Asked) -> Answer {
    asked.answer().expect("the init answers")
}

#[test]
fn sockets_of_its_network_and_commands_beside_it_are_had_for_the_asking() {
    for level in levels() {
        let world = World::new(level);
        let pod = world.sandbox.pod().expect("a pod can be made");
        assert_eq!(pod.is_some(), level == Level::Namespaces);
        // At `none` the port is the machine's, so the kernel chooses it.
        let server = "d=${PWD}; echo mine > $d/mine; exec python3 -uc '
import socket
server = socket.create_server((\"127.0.0.1\", 0))
open(\"port\", \"w\").write(str(server.getsockname()[1]))
print(\"up\")
while True: server.accept()'";
        beside_a_server(&world, server, pod.as_ref(), |checks| {
            let run = |script: &str| {
                let asked = checks.command(&["/bin/sh".into(), "-euc".into(), script.into()]).expect("it can be asked");
                let output = asked.output().expect("a command has output").try_clone_to_owned().expect("a descriptor");
                let Answer::Exited(code) = answer(asked) else { panic!("{script} did not run") };
                let mut said = [0; 64];
                let length = rustix::io::read(&output, &mut said).expect("all is written by now");
                (code, String::from_utf8_lossy(&said[..length]).into_owned())
            };
            assert_eq!(run("cat mine; exit 3"), (3, "mine\n".into()), "{level:?}");
            assert_eq!(run("kill -9 $$"), (137, String::new()), "{level:?}");
            let port = run("cat port").1.parse().expect("a port");
            let absent = answer(checks.command(&["no-such-program".into()]).expect("it can be asked"));
            assert!(matches!(&absent, Answer::Refused(cause) if cause.contains("PATH")), "{absent:?}");
            let Answer::Sockets(sockets) = answer(checks.sockets().expect("they can be asked for")) else {
                panic!("no sockets")
            };
            let (socket, address) = &sockets[0];
            match rustix::net::connect(socket, &address(port)) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(error) => panic!("{level:?}: {error}"),
            }
            poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)], None).expect("poll works");
            let outcome = rustix::net::sockopt::socket_error(socket).expect("an outcome");
            assert_eq!(outcome, Ok(()), "{level:?}");
        });
    }
}

#[test]
fn nobody_answers_for_a_command_that_has_ended() {
    for level in levels() {
        let world = World::new(level);
        let (checks, checked) = Checks::new().expect("a pair of sockets");
        let never = Cancel::new().expect("an event");
        let stage = world.stage();
        let spec = SandboxSpec { stage: stage.path().to_owned(), ..sh("exit 0") };
        let company = Company { checked: Some(checked), ..Company::default() };
        world.sandbox.run_in(&spec, company, &never, &mut |_, _| {}).expect("it runs");
        match checks.sockets() {
            Err(_) => {}
            Ok(asked) => assert!(asked.answer().is_err(), "{level:?}"),
        }
    }
}
