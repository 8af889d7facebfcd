//! Runs commands through the real launcher and asks them what they see. Each test names a law of the sandbox.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use drystone::base::path::RelPath;
use drystone::process::cancel::Cancel;
use drystone::sandbox::open::{Sandbox, open, open_with};
use drystone::sandbox::probe::probe_with;
use drystone::sandbox::spec::{Access, Exit, Finished, Level, Mount, Network, SandboxError, SandboxSpec, Stream, View};

/// Set when this binary runs again as an ordinary user: the launcher it can reach.
const LAUNCHER_VARIABLE: &str = "DRYSTONE_TEST_LAUNCHER";

fn launcher() -> PathBuf {
    std::env::var_os(LAUNCHER_VARIABLE).map_or_else(|| env!("CARGO_BIN_EXE_drystone").into(), PathBuf::from)
}

/// Says something that no test harness captures.
fn loudly(text: &str) {
    let mut stderr = std::io::stderr();
    drop(writeln!(stderr, "\n*** {text} ***"));
}

/// The levels this machine gives; says loudly which it does not.
fn levels() -> Vec<Level> {
    match probe_with(&launcher()).verdict(Level::Namespaces) {
        Ok(()) => vec![Level::Namespaces, Level::None],
        Err(refusal) => {
            loudly(&format!("NOT TESTED: namespaces are refused: {} (help: {})", refusal.reason, refusal.remedy));
            vec![Level::None]
        }
    }
}

/// The `namespaces` level, unless the machine refuses it.
fn namespaces() -> Option<World> {
    levels().contains(&Level::Namespaces).then(|| World::new(Level::Namespaces))
}

/// A host directory with files, and a sandbox.
struct World {
    dir: tempfile::TempDir,
    sandbox: Box<dyn Sandbox>,
}

struct Ran {
    finished: Finished,
    stdout: String,
    stderr: String,
    _stage: tempfile::TempDir,
}

impl World {
    fn new(level: Level) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sandbox = open_with(level, &launcher()).expect("the level exists");
        Self { dir, sandbox }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("it can be made");
        fs::write(&path, text).expect("it can be written");
        path
    }

    fn stage(&self) -> tempfile::TempDir {
        tempfile::Builder::new().prefix("stage-").tempdir().expect("a stage")
    }

    fn try_run(&self, spec: &SandboxSpec) -> Result<(Finished, String, String), SandboxError> {
        let never = Cancel::new().expect("an event");
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let finished = self.sandbox.run(spec, &never, &mut |stream, bytes| match stream {
            Stream::Stdout => stdout.extend_from_slice(bytes),
            Stream::Stderr => stderr.extend_from_slice(bytes),
        })?;
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8 output");
        Ok((finished, text(stdout), text(stderr)))
    }

    fn run(&self, mut spec: SandboxSpec) -> Ran {
        let stage = self.stage();
        spec.stage = stage.path().to_owned();
        let (finished, stdout, stderr) = self.try_run(&spec).unwrap_or_else(|error| panic!("{error}"));
        Ran { finished, stdout, stderr, _stage: stage }
    }

    fn error(&self, mut spec: SandboxSpec) -> String {
        let stage = self.stage();
        spec.stage = stage.path().to_owned();
        match self.try_run(&spec) {
            Ok((finished, stdout, stderr)) => panic!("it ran: {:?} {stdout} {stderr}", finished.exit),
            Err(error) => error.to_string(),
        }
    }
}

fn rel(text: &str) -> RelPath {
    RelPath::parse(text).expect("a good path")
}

fn argv(argv: &[&str]) -> SandboxSpec {
    let env = [("PATH", "/usr/bin:/bin"), ("HOME", "/homeless"), ("TMPDIR", "/tmp")];
    SandboxSpec {
        argv: argv.iter().map(|&argument| argument.into()).collect(),
        env: env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        cwd: RelPath::root(),
        view: BTreeMap::new(),
        system: true,
        mounts: Vec::new(),
        network: Network::Loopback,
        timeout: Some(Duration::from_secs(60)),
        stage: PathBuf::new(),
    }
}

fn sh(script: &str) -> SandboxSpec {
    argv(&["/bin/sh", "-euc", script])
}

fn with(mut spec: SandboxSpec, views: &[(&str, View)]) -> SandboxSpec {
    spec.view = views.iter().map(|(path, view)| (rel(path), view.clone())).collect();
    spec
}

fn file_view(host: PathBuf) -> View {
    View::File { host, executable: false }
}

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
    let script = "
        try() { if sh -c \"$1\" 2>/dev/null; then echo \"possible: $1\"; fi; }
        try 'echo x > a.txt'; try 'echo x >> a.txt'; try 'rm -f a.txt && test ! -e a.txt'; try 'mv a.txt c.txt'
        try 'chmod 777 a.txt'; try 'touch a.txt'; try 'ln a.txt hard'
        try 'echo x > lib/b.txt'; try 'echo x > lib/new'; try 'rm lib/b.txt'; try 'rmdir lib'
        try 'echo x > /etc/passwd'; try 'echo x > /usr/new'; try 'mkdir /new'; try 'echo x > /dev/new'
        try 'mount -o remount,rw /usr'; try 'umount a.txt'; try 'umount /usr/local'
        try 'chown 0 made'; echo ok > made; cat made";
    let spec = with(
        sh(script),
        &[
            ("a.txt", file_view(host.clone())),
            ("lib", View::Dir { host: dir.parent().expect("in a directory").to_owned() }),
        ],
    );
    let ran = world.run(spec);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("ok\n", ""));
    assert_eq!(fs::read_to_string(host).expect("it is there"), "alpha\n");
    assert_eq!(fs::read_to_string(dir).expect("it is there"), "beta\n");
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
            Level::Namespaces => "hello from the tool\nwarm\n",
            _ => "hello from the tool\nwarm\ntool is writable\n",
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
        nothing_lives_on(&world, "wait", None, Exit::Cancelled);
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
        let mut spec = sh(&format!("{DAEMON} wait"));
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
            .args(["--exact", "nothing_outlives_an_engine_that_was_killed"])
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
            .args(["--exact", "a_killed_launcher_is_an_error_and_never_a_hang", "--nocapture"])
            .env("DRYSTONE_TEST_KILLS_LAUNCHERS", "1")
            .stdout(Stdio::null())
            .status()
            .expect("it starts");
        assert!(status.success());
        return;
    }
    let kill = || {
        let launchers = launchers_of_this_process();
        assert_eq!(launchers.len(), 1);
        let killed = Command::new("/bin/sh").args(["-c", &format!("kill -9 {}", launchers[0])]).status();
        assert!(killed.expect("a shell").success());
    };
    for level in levels() {
        let world = World::new(level);
        world.run(sh("true"));
        kill();
        assert_eq!(
            world.error(sh("true")),
            "the launcher process ended unexpectedly: signal: 9 (SIGKILL)",
            "{level:?}, between two commands"
        );
        // The failure was told; the next command gets a new launcher.
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

#[test]
fn a_launcher_that_cannot_be_started_is_named() {
    let sandbox = open_with(Level::None, Path::new("/no/such/launcher")).expect("it starts lazily");
    let world = World { sandbox, ..World::new(Level::None) };
    assert_eq!(
        world.error(sh("true")),
        "the launcher process ended unexpectedly: it could not be started from /no/such/launcher: \
         no such file or directory"
    );
    assert!(open(Level::Landlock).err().expect("not built").to_string().contains("not built yet"));
}

#[test]
fn why_a_program_cannot_be_started_is_told_apart_from_its_exit() {
    for level in levels() {
        let world = World::new(level);
        let script = |name: &str, text: &str, mode: u32| {
            let path = world.file(name, text);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            View::File { host: path, executable: mode & 0o100 != 0 }
        };
        let views = [
            ("bin/broken", script("broken", "#!/no/such/interpreter -x\n", 0o755)),
            ("bin/dos", script("dos", "#!/bin/sh\r\n", 0o755)),
            ("bin/plain", script("plain", "#!/bin/sh\n", 0o644)),
            ("bin/text", script("text", "hello\n", 0o755)),
            ("bin/dangling", View::Link { target: "/no/where".into() }),
        ];
        let check = |program: &str, expect: &str| {
            let mut spec = with(argv(&[program]), &views);
            if program.starts_with("on-path-") {
                spec.argv = vec![program["on-path-".len()..].into()];
                spec.env.insert("PATH".into(), "/workspace/bin:/usr/bin".into());
            }
            let said = world.error(spec);
            // At `none` the workspace lies elsewhere.
            let said = match said.find("/stage-") {
                Some(stage) => {
                    let from = said[..stage].rfind(' ').map_or(0, |space| space + 1);
                    let to = stage + said[stage..].find("/workspace").expect("the copy");
                    format!("{}{}", &said[..from], &said[to..])
                }
                None => said,
            };
            assert_eq!(said, expect, "{level:?}");
        };
        check("no-such-program", "cannot start `no-such-program`: not in the sandbox PATH (/usr/bin:/bin)");
        check("/workspace/nothing", "cannot start `/workspace/nothing`: no such file in the sandbox");
        check(
            "bin/broken",
            "cannot start `bin/broken`: bin/broken begins with `#!/no/such/interpreter`, \
             and `/no/such/interpreter` is not in the sandbox",
        );
        check(
            "bin/dos",
            "cannot start `bin/dos`: bin/dos begins with `#!/bin/sh\\r`, \
             and `/bin/sh\\r` is not in the sandbox",
        );
        check("bin/plain", "cannot start `bin/plain`: bin/plain is not executable");
        check("on-path-plain", "cannot start `plain`: /workspace/bin/plain is not executable");
        check(
            "bin/text",
            "cannot start `bin/text`: bin/text is neither a program for this machine \
             nor a script that begins with `#!`",
        );
        check("bin/dangling", "cannot start `bin/dangling`: it is a link to /no/where, which is not in the sandbox");
        check("bin", "cannot start `bin`: not in the sandbox PATH (/usr/bin:/bin)");
        check("./bin", "cannot start `./bin`: ./bin is a directory");
        let mut spec = argv(&["true"]);
        spec.env.clear();
        let said = world.error(spec);
        assert_eq!(said, "cannot start `true`: it is looked up on PATH, and PATH is not set in the sandbox");
        assert_eq!(world.error(argv(&[])), "cannot start ``: the command is empty");
        assert_eq!(
            world.error(argv(&["true", "a\0b"])),
            "cannot start `true`: an argument or a variable holds a NUL byte"
        );
    }
    let Some(world) = namespaces() else { return };
    let mut spec = argv(&["/usr/bin/true"]);
    spec.system = false;
    assert_eq!(world.error(spec), "cannot start `/usr/bin/true`: no such file in the sandbox");
    let mut spec = with(
        argv(&["./program"]),
        &[("program", View::File { host: fs::canonicalize("/usr/bin/true").expect("true exists"), executable: true })],
    );
    spec.system = false;
    let said = world.error(spec);
    assert!(said.contains("./program needs the loader `/lib") && said.contains("not in the sandbox"), "{said}");
}

#[test]
fn an_input_that_vanished_is_named() {
    for level in levels() {
        let world = World::new(level);
        let gone = world.dir.path().join("gone");
        let said = world.error(with(sh("true"), &[("a/b", file_view(gone.clone()))]));
        assert!(said.contains(&gone.display().to_string()) && said.contains("no such file"), "{said}");
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

#[test]
fn a_refusal_has_a_reason_and_a_remedy() {
    let probe = probe_with(&launcher());
    for (level, verdict) in probe.verdicts() {
        if let Err(refusal) = verdict {
            assert!(!refusal.reason.is_empty() && !refusal.remedy.is_empty(), "{level:?}");
        }
    }
    assert_ne!(probe.best(), Some(Level::None), "`none` is never taken silently");
}

#[test]
fn an_ordinary_user_gets_the_same() {
    if std::env::var_os(LAUNCHER_VARIABLE).is_some() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        // Then every other test has shown it.
        return;
    }
    if Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_err() {
        return loudly("NOT TESTED: the sandbox as an ordinary user, for want of `setpriv` (util-linux)");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open_to_all = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("a mode");
    open_to_all(dir.path());
    let copy = |from: &Path, name: &str| {
        let to = dir.path().join(name);
        fs::copy(from, &to).expect("it copies");
        open_to_all(&to);
        to
    };
    let tests = copy(&std::env::current_exe().expect("this binary"), "tests");
    let launcher = copy(&launcher(), "launcher");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(tests)
        .current_dir("/")
        .env(LAUNCHER_VARIABLE, launcher)
        .env("TMPDIR", dir.path())
        .output()
        .expect("setpriv starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "as an ordinary user:\n{text}");
    if text.contains("NOT TESTED") {
        loudly("as an ordinary user:");
        loudly(&text);
    }
}
