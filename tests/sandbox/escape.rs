//! A hostile command at the `namespaces` level: each line tries a way out, and says so only if it worked.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use drystone::sandbox::spec::{Access, Exit, Mount, View};

use crate::world::{World, file_view, loudly, namespaces, sh, with};

/// What must be as it was on the host.
struct Bait {
    world: World,
    input: std::path::PathBuf,
    tree: std::path::PathBuf,
    cache: std::path::PathBuf,
}

impl Bait {
    fn new() -> Option<Self> {
        let world = namespaces()?;
        let input = world.file("ws/input", "input\n");
        let tree = world.file("ws/tree/file", "tree\n").parent().expect("in a directory").to_owned();
        let cache = world.file("cache/kept", "kept\n").parent().expect("in a directory").to_owned();
        world.file("secret", "secret\n");
        Some(Self { world, input, tree, cache })
    }

    /// Runs attempts; gives what they said.
    fn attempt(&self, script: &str) -> String {
        let shell = "try() { if (eval \"$1\") >/dev/null 2>&1; then echo \"possible: $1\"; fi; }\n";
        let mut spec = with(
            sh(&format!("{shell}{}", script.replace("$HOST", &self.world.dir.path().to_string_lossy()))),
            &[("input", file_view(self.input.clone())), ("tree", View::Dir { host: self.tree.clone() })],
        );
        spec.mounts =
            vec![Mount { host: self.cache.clone(), inside: "/workspace/cache".into(), access: Access::ReadWrite }];
        let ran = self.world.run(spec);
        assert_eq!(ran.finished.exit, Exit::Code(0), "{}{}", ran.stdout, ran.stderr);
        self.check_host();
        ran.stdout
    }

    fn check_host(&self) {
        let text = |path: &Path| fs::read_to_string(path).expect("it is there");
        assert_eq!(text(&self.input), "input\n");
        assert_eq!(text(&self.tree.join("file")), "tree\n");
        assert_eq!(text(&self.world.dir.path().join("secret")), "secret\n");
        assert_eq!(fs::read_dir(&self.tree).expect("it lists").count(), 1);
        let names = fs::read_dir(self.world.dir.path()).expect("it lists");
        assert_eq!(names.count(), 3, "something new lies beside the workspace");
    }
}

#[test]
fn there_is_no_way_to_the_host_through_proc() {
    let Some(bait) = Bait::new() else { return };
    let said = bait.attempt(
        "try 'ls /proc/1/root'; try 'cat /proc/1/environ'; try 'readlink /proc/1/fd/0'; try 'cat /proc/1/fd/3'; try 'cat /proc/1/mem'; try 'cat /proc/1/maps | grep .'
         try 'ls /proc/1/cwd/'; try 'test -r /proc/kcore'; try 'echo b > /proc/sysrq-trigger'
         try 'echo x > /proc/sys/kernel/hostname'; try 'echo core > /proc/sys/kernel/core_pattern'; try 'echo 1 > /proc/sys/vm/drop_caches'
         try 'echo 2 > /proc/irq/default_smp_affinity'; try 'cat /proc/sys/kernel/random/boot_id | grep .'; try 'cat /proc/keys | grep .'
         try 'umount /proc/sys'; try 'mount -o remount,rw /proc/sys'
         for pid in $(ls /proc | grep '^[0-9]*$'); do
            try \"test -e /proc/$pid/root$HOST/secret\"
         done",
    );
    assert_eq!(said, "");
}

#[test]
fn a_nested_user_namespace_gives_nothing_back() {
    let Some(bait) = Bait::new() else { return };
    if !Path::new("/usr/bin/unshare").exists() {
        return loudly("NOT TESTED: nested user namespaces, for want of /usr/bin/unshare");
    }
    let said = bait.attempt(
        "inner() { unshare -Urm sh -c \"$1\"; }
         try 'inner \"mount -o remount,rw,bind /usr && touch /usr/new\"'; try 'inner \"umount -l /usr/local\"'
         try 'inner \"mount -o remount,rw,bind /workspace/input && echo x > /workspace/input\"'
         try 'inner \"mount -o remount,rw,bind /workspace/tree && touch /workspace/tree/new\"'
         try 'inner \"umount /workspace/tree && test -e /workspace/tree/file\"'; try 'inner \"mount --move /usr /tmp\"'
         try 'inner \"mount -t ext4 /dev/vda /tmp\"'; try 'inner \"mount -t proc proc /proc && test -e /proc/1/root$HOST\"'
         try 'inner \"mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk\"'; try 'inner \"chroot /proc/1/root ls $HOST\"'
         try 'inner \"hostname changed\" && test $(hostname) = changed'; try 'unshare -Urn sh -c \"nsenter -t 1 -n true\"'
         try 'inner \"umount -l /proc/sys && echo core > /proc/sys/kernel/core_pattern\"'
         try 'unshare -Urmpf sh -c \"mount -t proc proc /tmp && echo core > /tmp/sys/kernel/core_pattern\"'
         try 'inner \"mkdir /tmp/usr; mount --rbind /usr /tmp/usr && mount -o remount,rw,bind /tmp/usr && touch /tmp/usr/new\"'
         try 'nsenter -t 1 -m ls $HOST'; try 'nsenter -t 1 -U true'",
    );
    assert_eq!(said, "");
}

#[test]
fn inputs_are_reached_by_no_link_and_no_rename() {
    let Some(bait) = Bait::new() else { return };
    let said = bait.attempt(
        "try 'ln input hard && echo x > hard'; try 'ln tree/file cache/hard && echo x > cache/hard'
         try 'mv tree elsewhere'; try 'mv input cache/'; try 'mv cache/kept tree/'; try 'rm -rf tree/file'
         try 'chmod 4777 tree/file'; try 'chown 1000 input'; try 'touch -d yesterday input'; try 'truncate -s 0 tree/file'
         ln -s $HOST/secret out; try 'cat out'; ln -s ../../../../..$HOST/secret up; try 'cat up'
         ln -s $HOST/new through; try 'echo x > through'",
    );
    assert_eq!(said, "");
    assert_eq!(fs::read_to_string(bait.cache.join("kept")).expect("it is there"), "kept\n");
}

#[test]
fn special_bits_and_devices_do_not_get_out() {
    let Some(bait) = Bait::new() else { return };
    let mut spec = sh("cp /bin/sh cache/shell; chmod 6755 cache/shell 2>/dev/null; mkfifo cache/pipe
         mknod cache/disk b 8 0 2>/dev/null && echo a device; mknod cache/null c 1 3 2>/dev/null && echo a device
         setcap cap_sys_admin+ep cache/shell 2>/dev/null && echo capabilities; true");
    spec.mounts =
        vec![Mount { host: bait.cache.clone(), inside: "/workspace/cache".into(), access: Access::ReadWrite }];
    let ran = bait.world.run(spec);
    assert_eq!(ran.stdout, "", "{}", ran.stderr);
    // What a cache holds is the user's own: such a bit there makes nobody more than the user is, and no one else comes near it.
    let shell = fs::metadata(bait.cache.join("shell")).expect("it was copied");
    assert_eq!(shell.uid(), rustix::process::geteuid().as_raw());
}

/// Talks to sockets of the host by every address a socket can have.
const SOCKETS: &str = "
import array, ctypes, os, socket, sys
host, port = sys.argv[1], int(sys.argv[2])
def reach(name, connect):
    try:
        connect()
        print('reached', name)
    except OSError:
        pass
unix = lambda: socket.socket(socket.AF_UNIX)
reach('a path', lambda: unix().connect(host + '/socket'))
reach('an abstract name', lambda: unix().connect('\\0' + sys.argv[3]))
reach('loopback', lambda: socket.create_connection(('127.0.0.1', port), 1))
reach('loopback, version 6', lambda: socket.create_connection(('::1', port), 1))
reach('the network', lambda: socket.create_connection(('1.1.1.1', 53), 1))
reach('packets', lambda: socket.socket(17, socket.SOCK_RAW))
libc = ctypes.CDLL(None, use_errno=True)
for fd in range(3, 64):
    try:
        print('inherited', fd, os.readlink('/proc/self/fd/%d' % fd))
    except OSError:
        pass
if libc.ptrace(16, 1, 0, 0) == 0: print('traces the first process')
if libc.syscall(246, 0, 0, 0, 0) == 0: print('loads a kernel')
if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0: print('mounts')
if libc.syscall(161, b'/tmp') == 0: print('changes its root')
if libc.setuid(0) == 0: print('becomes root')
";

#[test]
fn no_socket_and_no_call_reaches_the_host() {
    let Some(bait) = Bait::new() else { return };
    if !Path::new("/usr/bin/python3").exists() {
        return loudly("NOT TESTED: sockets of the host, for want of /usr/bin/python3");
    }
    let aside = tempfile::tempdir().expect("a directory");
    let _path = std::os::unix::net::UnixListener::bind(aside.path().join("socket")).expect("a socket");
    // All of the machine share these names: another run of this test may be at it.
    let name = format!("drystone-escape-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&address).expect("a socket");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = tcp.local_addr().expect("an address").port();
    let script = bait.world.file("ws/sockets.py", SOCKETS);
    let command = format!("/usr/bin/python3 sockets.py {} {port} {name}", aside.path().display());
    let ran = bait.world.run(with(sh(&command), &[("sockets.py", file_view(script))]));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
}

#[test]
fn a_crowd_of_processes_ends_with_the_time_allowed() {
    let Some(bait) = Bait::new() else { return };
    let mut spec = sh("bomb() { for _ in 1 2 3; do (sleep 600 & exec sleep 600) & done; }
         for _ in $(seq 50); do bomb; done; (trap '' TERM HUP INT; while :; do sleep 0.01; done) & wait");
    spec.timeout = Some(std::time::Duration::from_millis(500));
    let ran = bait.world.run(spec);
    assert_eq!(ran.finished.exit, Exit::TimedOut);
}
