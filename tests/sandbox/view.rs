//! What a command sees, what it can change, and what is left of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use drystone::sandbox::spec::{Access, Content, Exit, Level, Mount, Network, View};

use crate::world::{World, argv, bytes_view, file_view, levels, loudly, namespaces, rel, sh, with};

#[test]
fn exactly_what_was_declared_is_in_the_workspace() {
    for level in levels() {
        let world = World::new(level);
        let host = world.file("ws/src/a.txt", "alpha\n");
        world.file("ws/src/undeclared.txt", "secret\n");
        let dir = world.file("ws/lib/deep/b.txt", "beta\n");
        let dir = dir.parent().and_then(Path::parent).expect("two levels").to_owned();
        let spec = with(
            sh("find . | sort; cat src/a.txt src/link lib/deep/b.txt; echo new > out/made; pwd"),
            &[
                ("src/a.txt", file_view(host)),
                ("src/link", View::Link { target: "a.txt".into() }),
                ("lib", View::Dir { host: dir }),
                ("out/empty", View::Empty),
            ],
        );
        let ran = world.run(spec);
        let pwd = match level {
            Level::Namespaces => "/workspace".into(),
            _ => ran.finished.workspace.path().to_string_lossy().into_owned(),
        };
        let tree = "./lib\n./lib/deep\n./lib/deep/b.txt\n./out\n./out/empty\n./src\n./src/a.txt\n./src/link\n";
        assert_eq!(ran.stdout, format!(".\n{tree}alpha\nalpha\nbeta\n{pwd}\n"), "{level:?}");
        assert_eq!((ran.stderr.as_str(), ran.finished.exit), ("", Exit::Code(0)), "{level:?}");
    }
}

#[test]
fn inputs_cannot_be_written_replaced_or_removed() {
    let Some(world) = namespaces() else { return };
    let host = world.file("ws/a.txt", "alpha\n");
    let dir = world.file("ws/lib/b.txt", "beta\n");
    let script = r#"
        try() { if sh -c "$1" 2>/dev/null; then echo "possible: $1"; fi; }
        try 'echo x > a.txt'; try 'echo x >> a.txt'; try 'rm -f a.txt && test ! -e a.txt'; try 'mv a.txt c.txt'
        try 'chmod 777 a.txt'; try 'touch a.txt'; try 'ln a.txt hard'
        try 'echo x > s/c'; try 'echo x >> s/c'; try 'rm -f s/c && test ! -e s/c'; try 'mv s/c c.txt'; try 'mv a.txt s/c'
        try 'chmod 777 s/c'; try 'touch s/c'; try 'ln s/c hard'; try 'umount s/c'; try 'mount -o remount,rw s/c'
        try 'unshare -Urm sh -c "umount s/c || mount -o remount,rw,bind s/c"'; try 'unshare -Urm umount /proc'
        try 'mkdir o && unshare -Urm mount --bind /workspace o'; echo x > s/beside
        try 'echo x > lib/b.txt'; try 'echo x > lib/new'; try 'rm lib/b.txt'; try 'rmdir lib'
        try 'echo x > /etc/passwd'; try 'echo x > /usr/new'; try 'mkdir /new'; try 'echo x > /dev/new'
        try 'mount -o remount,rw /usr'; try 'umount a.txt'; try 'umount /usr/local'
        try 'chown 0 made'; echo ok > made; cat made s/c s/beside"#;
    let spec = with(
        sh(script),
        &[
            ("a.txt", file_view(host.clone())),
            ("s/c", bytes_view("gamma\n")),
            ("lib", View::Dir { host: dir.parent().expect("in a directory").to_owned() }),
        ],
    );
    let ran = world.run(spec);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("ok\ngamma\nx\n", ""));
    assert_eq!(fs::read_to_string(host).expect("it is there"), "alpha\n");
    assert_eq!(fs::read_to_string(dir).expect("it is there"), "beta\n");
}

#[test]
fn of_inputs_nothing_shows_but_content_kind_and_executable_bit() {
    for level in levels() {
        let world = World::new(level);
        let program = View::File { content: Content::Bytes(b"#!/bin/sh\n".into()), executable: true };
        let mut spec = with(
            // Read before they are looked at: where they cannot be changed, reading leaves no time of its own either.
            sh(
                "cat lib/a lib/b > /dev/null; stat -c '%n %A %h %s %Y' lib/*; stat -c '%n %A %Y' . lib out; stat -c %X lib/a; lib/b",
            ),
            &[
                ("lib/a", bytes_view("alpha\n")),
                ("lib/b", program),
                ("lib/link", View::Link { target: "a".into() }),
                ("lib/old", bytes_view("old\n")),
                ("out", View::Empty),
            ],
        );
        spec.mtimes = BTreeMap::from([(rel("lib/old"), 7_000_000_000), (rel("out"), 8_000_000_000)]);
        let ran = world.run(spec);
        let expect = "lib/a -rw-r--r-- 1 6 315619200\nlib/b -rwxr-xr-x 1 10 315619200\n\
                      lib/link lrwxrwxrwx 1 1 315619200\nlib/old -rw-r--r-- 1 4 7\n\
                      . drwxr-xr-x 315619200\nlib drwxr-xr-x 315619200\nout drwxr-xr-x 8\n";
        let (listed, read) = ran.stdout.split_at(expect.len().min(ran.stdout.len()));
        assert_eq!((listed, ran.stderr.as_str()), (expect, ""), "{level:?}");
        assert!(level != Level::Namespaces || read == "315619200\n", "{read}");
    }
}

#[test]
fn the_host_shows_nowhere() {
    let Some(world) = namespaces() else { return };
    let script = "
        for path in /root /home /sys /var /opt /mnt /srv /run /boot /etc/hostname /etc/machine-id /etc/localtime \
            /etc/resolv.conf /etc/shadow /etc/ssl /etc/environment /homeless $STAGE $HOST; do
            if test -e $path; then echo leaks: $path; fi
        done
        ls -A /usr/local; ls -A /tmp; ls -A /dev/shm; ls /; cat /etc/passwd /etc/hosts; ls /etc
        cat /proc/sys/kernel/domainname; cut -d: -f3 /proc/self/cgroup | sort -u";
    let mut spec = sh(script);
    spec.env.insert("HOST".into(), world.dir.path().to_string_lossy().into_owned());
    spec.env.insert("STAGE".into(), "/tmp/stage".into());
    let ran = world.run(spec);
    let etc = ["alternatives", "group", "hosts", "ld.so.cache", "nsswitch.conf", "passwd"];
    let etc: Vec<_> = etc
        .into_iter()
        .filter(|name| !["alternatives", "ld.so.cache"].contains(name) || Path::new("/etc").join(name).exists())
        .collect();
    let root = ["bin", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "tmp", "usr", "workspace"];
    let own = ["dev", "etc", "proc", "tmp", "workspace"];
    let root: Vec<_> =
        root.into_iter().filter(|name| own.contains(name) || Path::new("/").join(name).exists()).collect();
    let expect = format!(
        "{}\ndrystone:x:1000:1000::/homeless:/bin/sh\nnobody:x:65534:65534::/homeless:/usr/sbin/nologin\n\
         127.0.0.1 localhost drystone\n::1 localhost\n{}\n(none)\n/\n",
        root.join("\n"),
        etc.join("\n")
    );
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (expect.as_str(), ""));
}

#[test]
fn identity_and_process_state_are_the_same_for_everybody() {
    let Some(world) = namespaces() else { return };
    let script = "
        hostname 2>/dev/null || cat /proc/sys/kernel/hostname
        id -u; id -g; id -un; umask; pwd; ulimit -c; ulimit -Hc
        readlink /proc/self/fd/0; ls /proc/self/fd | tr '\\n' ' '; echo
        grep -E '^(SigBlk|SigIgn|NoNewPrivs|CapEff|CapPrm):' /proc/self/status | tr -d '\\t'
        if (: < /dev/tty) 2>/dev/null; then echo has a terminal; fi
        ls /dev; echo x > /dev/null; head -c 2 /dev/zero | wc -c
        ls /proc | grep -c '^[0-9]' | xargs test 8 -gt && echo few processes
        env | grep -v '^PWD=' | sort";
    let mut spec = sh(script);
    spec.env.insert("LC_ALL".into(), "C".into());
    let ran = world.run(spec);
    let status = "SigBlk:0000000000000000\nSigIgn:0000000000000000\nCapPrm:0000000000000000\n\
                  CapEff:0000000000000000\nNoNewPrivs:1\n";
    let devices = "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\nurandom\nzero\n";
    let expect = format!(
        "drystone\n1000\n1000\ndrystone\n0022\n/workspace\n0\n0\n/dev/null\n0 1 2 3 \n{status}{devices}2\nfew processes\n\
         HOME=/homeless\nLC_ALL=C\nPATH=/usr/bin:/bin\nTMPDIR=/tmp\n"
    );
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (expect.as_str(), ""));
}

#[test]
fn the_environment_is_exact_and_follows_the_copy_at_none() {
    let world = World::new(Level::None);
    let mut spec = argv(&["/usr/bin/env"]);
    spec.env.insert("BIN".into(), "/workspace/bin".into());
    let ran = world.run(spec);
    let copy = ran.finished.workspace.path();
    let stage = copy.parent().expect("it lies in the stage").display();
    let expect = format!("BIN={}/bin\nHOME={stage}/homeless\nPATH=/usr/bin:/bin\nTMPDIR={stage}/tmp\n", copy.display());
    assert_eq!(ran.stdout, expect);
    let ran = world.run(sh("test -d $TMPDIR; test ! -e $HOME; readlink /proc/self/fd/0; umask; ulimit -c"));
    assert_eq!(ran.stdout, "/dev/null\n0022\n0\n");
}

#[test]
fn there_is_loopback_and_no_other_network() {
    let Some(world) = namespaces() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let script = "
        tail -n +3 /proc/net/dev | tr -d ' ' | cut -d: -f1; wc -l < /proc/net/route
        bash -c 'echo > /dev/tcp/127.0.0.1/'$PORT 2>/dev/null && echo reached the host";
    let mut spec = sh(&format!("{script} || true"));
    spec.env.insert("PORT".into(), port.to_string());
    let ran = world.run(spec.clone());
    let interfaces: Vec<_> = ran.stdout.lines().collect();
    assert_eq!((interfaces.first(), interfaces.len()), (Some(&"lo"), 2), "{}", ran.stdout);
    let up = world.run(sh("cat /sys/class/net/lo/flags 2>/dev/null || grep -c 127.0.0.1 /proc/net/fib_trie"));
    assert_ne!(up.stdout.trim(), "0", "loopback is down");
    spec.network = Network::Host;
    let ran = world.run(spec);
    assert!(ran.stdout.ends_with("reached the host\n") || !Path::new("/bin/bash").exists(), "{}", ran.stdout);
}

#[test]
fn mounts_appear_where_they_should_with_the_access_they_should() {
    for level in levels() {
        let world = World::new(level);
        let tool = world.file("tool/bin/hello", "#!/bin/sh\necho hello from the tool\n");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("it can be made executable");
        let cache = world.file("cache/old", "warm\n").parent().expect("in a directory").to_owned();
        let root = world.dir.path().join("tool");
        let mut spec = with(
            sh(
                "hello; cat .cache/old; echo kept > .cache/new; touch $TOOL/x 2>/dev/null && echo tool is writable || true",
            ),
            &[("pkg/a", file_view(world.file("ws/a", "a")))],
        );
        spec.cwd = rel("pkg");
        spec.env.insert("PATH".into(), format!("{}/bin:/usr/bin:/bin", root.display()));
        spec.env.insert("TOOL".into(), root.display().to_string());
        spec.mounts = vec![
            Mount { host: cache.clone(), inside: "/workspace/pkg/.cache".into(), access: Access::ReadWrite },
            Mount { host: root.clone(), inside: root.clone(), access: Access::ReadOnly },
            Mount { host: "/usr/bin".into(), inside: "/usr/bin".into(), access: Access::ReadOnly },
        ];
        let ran = world.run(spec);
        let expect = match level {
            Level::Namespaces | Level::Landlock => "hello from the tool\nwarm\n",
            Level::None => "hello from the tool\nwarm\ntool is writable\n",
        };
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (expect, ""), "{level:?}");
        assert_eq!(fs::read_to_string(cache.join("new")).expect("the cache keeps it"), "kept\n");
    }
}

#[test]
fn a_tool_in_usr_local_is_visible_alone() {
    let Some(world) = namespaces() else { return };
    let host = world.file("node/bin/node", "x").parent().and_then(Path::parent).expect("above").to_owned();
    let mut spec = sh("find /usr/local");
    spec.mounts = vec![Mount { host, inside: "/usr/local/node".into(), access: Access::ReadOnly }];
    let found = world.run(spec).stdout;
    assert_eq!(found, "/usr/local\n/usr/local/node\n/usr/local/node/bin\n/usr/local/node/bin/node\n");
}

#[test]
fn building_a_view_creates_nothing_on_the_host() {
    let Some(world) = namespaces() else { return };
    let outside = world.dir.path().join("outside");
    fs::create_dir(&outside).expect("it can be made");
    let tree = world.file("tree/file", "x").parent().expect("in a directory").to_owned();
    std::os::unix::fs::symlink(&outside, tree.join("door")).expect("a link");
    let cache = world.file("cache/x", "x").parent().expect("in a directory").to_owned();
    let mount = |inside: &str| Mount { host: cache.clone(), inside: inside.into(), access: Access::ReadWrite };
    let link = View::Link { target: outside.to_string_lossy().into_owned() };
    for (views, mounts) in [
        (vec![("lib", View::Dir { host: tree.clone() })], vec![mount("/workspace/lib/door/cache")]),
        (vec![("lib", View::Dir { host: tree.clone() })], vec![mount("/workspace/lib/cache")]),
        (vec![("door", link.clone())], vec![mount("/workspace/door/cache")]),
        (vec![("door", link.clone()), ("door/in", View::Empty)], vec![]),
        (vec![], vec![mount("/workspace/../outside")]),
    ] {
        let mut spec = with(sh("true"), &views);
        spec.mounts = mounts;
        // Either it is refused or it is laid out harmlessly; what counts is below.
        let stage = world.stage();
        spec.stage = stage.path().to_owned();
        drop(world.try_run(&spec));
    }
    assert_eq!(fs::read_dir(&outside).expect("it is there").count(), 0);
    assert_eq!(fs::read_dir(&tree).expect("it is there").count(), 2);
    assert!(!world.dir.path().join("cache/cache").exists());
}

#[test]
fn ten_megabytes_arrive_in_order_on_both_streams() {
    for level in levels() {
        let world = World::new(level);
        let ran = world.run(sh("seq 1 800000; seq 1 200000 >&2"));
        let numbers = |upto: usize| (1..=upto).map(|number| format!("{number}\n")).collect::<String>();
        assert!(ran.stdout == numbers(800_000), "{level:?}: {} bytes on stdout", ran.stdout.len());
        assert!(ran.stderr == numbers(200_000), "{level:?}: {} bytes on stderr", ran.stderr.len());
        let big = world.run(sh("head -c 10000000 /dev/zero | tr '\\0' x"));
        assert_eq!(big.stdout.len(), 10_000_000);
    }
}

#[test]
fn the_workspace_can_be_read_after_everything_is_gone() {
    for level in levels() {
        let world = World::new(level);
        let spec = with(
            sh(
                "mkdir -p dist/js; echo code > dist/js/app; ln -s app dist/js/link; chmod 755 dist/js/app; echo x > top",
            ),
            &[("src/in", file_view(world.file("in", "input\n")))],
        );
        let ran = world.run(spec);
        let left = ran.finished.workspace.path();
        assert!(fs::symlink_metadata(left).expect("it is there").is_dir());
        assert_eq!(fs::read_to_string(left.join("dist/js/app")).expect("it was written"), "code\n");
        assert_eq!(fs::read_link(left.join("dist/js/link")).expect("a link"), Path::new("app"));
        let mode = fs::metadata(left.join("dist/js/app")).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        let mut names: Vec<_> = fs::read_dir(left)
            .expect("it lists")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        assert_eq!(names, ["dist", "src", "top"]);
        let input = fs::read_to_string(left.join("src/in")).expect("a placeholder or a copy");
        assert_eq!(input, if level == Level::Namespaces { "" } else { "input\n" });
    }
}

#[test]
fn a_thousand_inputs_are_all_there() {
    for level in levels() {
        let world = World::new(level);
        let views: Vec<_> = (0..1000)
            .map(|number| {
                let name = format!("d{}/e{}/f{number}", number % 7, number % 13);
                (name.clone(), file_view(world.file(&name, &format!("{number}\n"))))
            })
            .collect();
        let views: Vec<_> = views.iter().map(|(name, view)| (name.as_str(), view.clone())).collect();
        let ran = world.run(with(sh("find . -type f | xargs cat | sort -n | cksum; seq 0 999 | cksum"), &views));
        let (found, expect) = ran.stdout.split_once('\n').expect("two lines");
        assert_eq!(found, expect.trim(), "{level:?}");
    }
}

#[test]
fn many_threads_may_run_commands_at_once() {
    for level in levels() {
        let world = World::new(level);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let world = &world;
                scope.spawn(move || {
                    for round in 0..5 {
                        let ran = world.run(sh(&format!("echo {thread}.{round}")));
                        assert_eq!(ran.stdout, format!("{thread}.{round}\n"));
                    }
                });
            }
        });
    }
}

#[test]
fn pseudo_terminals_and_shared_memory_work() {
    let Some(world) = namespaces() else { return };
    if !Path::new("/usr/bin/python3").exists() {
        return loudly("NOT TESTED: pseudo-terminals, for want of /usr/bin/python3");
    }
    let program = "
import os, pty
master, slave = pty.openpty(); os.write(slave, b'x'); print(os.read(master, 1))
open('/dev/shm/x', 'w').close(); import socket
s = socket.socket(); s.bind(('localhost', 0)); s.listen(); socket.create_connection(s.getsockname()).close()
import multiprocessing; multiprocessing.Lock()
print('good')";
    let ran = world.run(argv(&["/usr/bin/python3", "-c", program]));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("b'x'\ngood\n", ""));
}
