//! Commands that may change their root: what they see, and what is told of what they changed. By an overlay and by a copy alike.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use drystone::base::path::RelPath;
use drystone::base::tree::{Entry, Listing};
use drystone::engine::image_step::{Ground, Step, StepError, StepOutcome, Way, run_on, shell};
use drystone::engine::rebuild::Arrangement;
use drystone::engine::root_changes::{Bounds, Change, Changes};
use drystone::process::cancel::Cancel;
use drystone::sandbox::open::{Company, Sandbox};
use drystone::sandbox::pod::Pod;
use drystone::sandbox::spec::{
    Access, Exit, Finished, Layers, Level, Limits, Mount, Owners, SandboxError, SandboxSpec, Stream, System,
    WritableRoot,
};
use drystone::store::{OpenOptions, Store};

use crate::world::{World, argv, loudly, namespaces, rel};

/// Programs of this machine that the roots have, where it has them.
const PROGRAMS: [&str; 24] = [
    "sh", "cat", "ls", "rm", "rmdir", "mkdir", "chmod", "chown", "ln", "mv", "cp", "id", "mknod", "mkfifo", "touch",
    "stat", "seq", "xargs", "truncate", "umount", "mount", "unshare", "chroot", "sleep",
];

/// Those, with all that they load, by path.
fn programs() -> &'static BTreeMap<String, Vec<u8>> {
    static PROGRAMS_FOUND: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    PROGRAMS_FOUND.get_or_init(|| PROGRAMS.iter().flat_map(|program| program_with_libraries(program)).collect())
}

/// A program of this machine with all that it loads, by path; nothing if it is not there.
pub fn program_with_libraries(program: &str) -> BTreeMap<String, Vec<u8>> {
    let places = ["/bin", "/usr/bin", "/usr/sbin", "/sbin"].map(|dir| Path::new(dir).join(program));
    let Some(place) = places.into_iter().find(|place| place.exists()) else { return BTreeMap::new() };
    let mut files = BTreeMap::from([(format!("bin/{program}"), fs::read(&place).expect("programs can be read"))]);
    let loaded = Command::new("ldd").arg(&place).output().map(|output| output.stdout).unwrap_or_default();
    for word in String::from_utf8_lossy(&loaded).split_whitespace().filter(|word| word.starts_with('/')) {
        // A program that loads nothing is told by its own name.
        if let Some(path) = word.strip_prefix('/').filter(|path| !path.ends_with(':')) {
            files.insert(path.to_owned(), fs::read(word).expect("libraries can be read"));
        }
    }
    files
}

fn now_ms() -> i64 {
    1_000_000
}

/// A store, a sandbox and a root.
pub struct Scene {
    pub world: World,
    store: Arc<Store>,
    pub root: Listing,
    pub modes: BTreeMap<RelPath, u32>,
    pub owners: Owners,
    inputs: Listing,
}

impl Scene {
    pub fn new() -> Option<Self> {
        let world = namespaces()?;
        let options =
            OpenOptions { dir: world.dir.path().join("store"), bytes_max: None, now_ms, origin: Default::default() };
        let store = Arc::new(Store::open(options).expect("a store"));
        let (root, inputs) = (Listing::new(), Listing::new());
        let mut scene = Self { world, store, root, modes: BTreeMap::new(), owners: Owners::new(), inputs };
        for (path, bytes) in programs() {
            scene.add(path, bytes, true);
        }
        for (path, text) in
            [("etc/passwd", "root:x:0:0::/:/bin/sh\n"), ("etc/motd", "hello\n"), ("etc/conf.d/a", "a\n")]
        {
            scene.add(path, text.as_bytes(), false);
        }
        Some(scene)
    }

    fn entry(&self, bytes: &[u8], executable: bool) -> Entry {
        let digest = self.store.put_bytes(bytes).expect("it is stored");
        Entry::File { digest, size: bytes.len() as u64, executable }
    }

    pub fn add(&mut self, path: &str, bytes: &[u8], executable: bool) {
        let entry = self.entry(bytes, executable);
        self.root.insert(rel(path), entry);
    }

    pub fn input(&mut self, path: &str, bytes: &[u8]) {
        let entry = self.entry(bytes, false);
        self.inputs.insert(rel(path), entry);
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.root.insert(rel(path), Entry::Link { target: target.into() });
    }

    pub fn step(&self, script: &str, way: Way) -> Step {
        Step {
            arrangement: Arrangement::default(),
            argv: shell(script),
            env: BTreeMap::new(),
            directory: "/".into(),
            root: Arc::new(self.root.clone()),
            modes: Arc::new(self.modes.clone()),
            owners: Arc::new(self.owners.clone()),
            inputs: Arc::new(self.inputs.clone()),
            timeout: Some(Duration::from_secs(120)),
            limits: Limits::default(),
            way,
            bounds: Bounds::default(),
        }
    }

    pub fn try_step(&self, step: &Step) -> Result<StepOutcome, StepError> {
        let never = Cancel::new().expect("an event");
        let outcome = run_on(Ground { store: &self.store, sandbox: &*self.world.sandbox, cancel: &never }, step);
        assert_eq!(self.left_on_disk(), Vec::<PathBuf>::new());
        if let Ok(outcome) = &outcome
            && outcome.way != step.way
        {
            loudly("NOT TESTED: the root as an overlay, which this machine refuses");
        }
        outcome
    }

    /// What lies in the scratch of the store besides the place to mount on.
    fn left_on_disk(&self) -> Vec<PathBuf> {
        let stages = fs::read_dir(self.store.dir().join("stage")).into_iter().flatten().flatten();
        let is_full = |path: &PathBuf| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        stages.map(|stage| stage.path()).filter(is_full).collect()
    }

    /// Runs a script that succeeds, twice in each way; gives what it printed and changed, which is the same.
    pub fn run(&self, script: &str) -> (String, Changes) {
        let runs = [Way::Best, Way::Copy, Way::Best].map(|way| {
            let outcome =
                self.try_step(&self.step(script, way)).unwrap_or_else(|error| panic!("{way:?}: {error}\n{script}"));
            assert_eq!(outcome.exit, Exit::Code(0), "{way:?}: {}\n{script}", printed(&outcome));
            (printed(&outcome), outcome.changes)
        });
        let [first, copy, again] = runs;
        assert_eq!(told(&first.1), told(&copy.1), "an overlay and a copy:\n{script}");
        assert_eq!(first, again, "{script}");
        assert_eq!(first, copy, "{script}");
        first
    }

    pub fn refusal(&self, script: &str) -> String {
        let refusals = [Way::Best, Way::Copy].map(|way| {
            let error = self.try_step(&self.step(script, way)).expect_err("it is refused");
            assert!(error.is_of_the_command(), "{error}");
            error.to_string()
        });
        assert_eq!(refusals[0], refusals[1]);
        refusals[0].clone()
    }

    fn content(&self, changes: &Changes, path: &str) -> String {
        let Some(Change::File { digest, .. }) = changes.get(&rel(path)) else { panic!("{path}: {:?}", told(changes)) };
        let bytes = self.store.read(digest).expect("the store is sound").expect("it is in the store");
        String::from_utf8(bytes).expect("it is text")
    }
}

pub fn printed(outcome: &StepOutcome) -> String {
    outcome.log.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes)).collect()
}

/// Changes a line each.
fn told(changes: &Changes) -> Vec<String> {
    let line = |(path, change): (&RelPath, &Change)| match change {
        Change::File { size, mode, .. } => format!("{path} file {mode:o} {size}"),
        Change::Dir { mode, opaque, .. } => format!("{path} dir {mode:o}{}", if *opaque { " opaque" } else { "" }),
        Change::Link { target, .. } => format!("{path} -> {target}"),
        Change::Removed => format!("{path} removed"),
    };
    changes.iter().map(line).collect()
}

#[test]
fn what_a_command_changes_is_told_and_nothing_else() {
    let Some(mut scene) = Scene::new() else { return };
    for path in [
        "srv/one/a",
        "srv/one/b",
        "srv/two/a",
        "srv/two/b",
        "srv/three/a",
        "srv/four/a",
        "srv/four/sub/b",
        "srv/same/a",
    ] {
        scene.add(path, path.as_bytes(), false);
    }
    scene.link("srv/link", "one");
    scene.root.insert(rel("srv/hollow"), Entry::Dir);
    let (_, changes) = scene.run(
        "echo more >> /etc/motd; echo app:x:100: >> /etc/passwd; cat /etc/conf.d/a > /new; chmod 600 /new; \
         rm /srv/one/a; rm -r /srv/two; rm /srv/three/a; echo c > /srv/three/c; rm -r /srv/four; mkdir /srv/four; echo c > /srv/four/c; \
         rm /srv/link; ln -s ../etc /srv/link; mkdir -p /var/lib/app; rmdir /srv/hollow; echo x > /srv/hollow; \
         touch /srv/same/a; chmod 700 /srv/same/a; chmod 644 /srv/same/a; rm /bin/sleep; mkdir /bin/sleep; \
         mkdir /gone; echo x > /gone/x; rm -r /gone; echo x > /tmp/x; echo x > /dev/shm/x; mkdir /run; echo x > /run/x; mkdir /sys /homeless",
    );
    let expect = [
        "bin/sleep dir 755",
        "etc/motd file 644 11",
        "etc/passwd file 644 33",
        "new file 600 2",
        "run dir 755",
        "run/x file 644 2",
        "srv/four dir 755 opaque",
        "srv/four/c file 644 2",
        "srv/hollow file 644 2",
        "srv/link -> ../etc",
        "srv/one/a removed",
        "srv/three/a removed",
        "srv/three/c file 644 2",
        "srv/two removed",
        "var dir 755",
        "var/lib dir 755",
        "var/lib/app dir 755",
    ];
    // What this machine has no `/etc/group` for and the like is made for the command and is no change.
    assert_eq!(told(&changes), expect);
    assert_eq!(scene.content(&changes, "etc/motd"), "hello\nmore\n");
    let (_, none) =
        scene.run("cat /etc/motd > /dev/null; cp /etc/motd /m; cat /m > /etc/motd; rm /m; ls -l / > /dev/null; umask");
    assert_eq!(told(&none), Vec::<String>::new());
}

#[test]
fn how_a_directory_was_emptied_makes_no_difference() {
    let Some(mut scene) = Scene::new() else { return };
    for path in ["lists/a", "lists/b", "lists/c/d"] {
        scene.add(path, b"x", false);
    }
    let expect = ["lists dir 755 opaque"];
    for script in ["rm -r /lists/*", "rm -r /lists; mkdir /lists", "mv /lists/a /lists/z; rm -r /lists/*"] {
        assert_eq!(told(&scene.run(script).1), expect, "{script}");
    }
    let script = "rm -r /lists; mkdir -p /lists/c; echo -n x > /lists/a; echo -n x > /lists/c/d";
    assert_eq!(told(&scene.run(&script.replace("echo -n", "printf")).1), ["lists/b removed"], "made again as it was");
}

#[test]
fn an_overlay_and_a_copy_tell_the_same_whatever_is_done() {
    let Some(mut scene) = Scene::new() else { return };
    for path in ["w/a/a", "w/a/b", "w/a/c/a", "w/a/c/b", "w/b/a", "w/b/c", "w/c"] {
        scene.add(path, path.as_bytes(), path.ends_with('b'));
    }
    scene.link("w/b/b", "../a");
    scene.modes.insert(rel("w/a/c"), 0o1777);
    for seed in 0..20_u64 {
        let mut state = seed;
        let mut below = |limit: u64| {
            // Constants of Knuth's MMIX.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % limit
        };
        let path = |below: &mut dyn FnMut(u64) -> u64| {
            (0..=below(3)).fold("/w".to_owned(), |path, _| format!("{path}/{}", ["a", "b", "c"][below(3) as usize]))
        };
        let mut script = String::from("umask 022\n");
        for _ in 0..12 {
            let (one, other) = (path(&mut below), path(&mut below));
            let action = match below(9) {
                0 => format!("rm -r {one}"),
                1 => format!("mkdir {one}"),
                2 => format!("echo {other} > {one}"),
                3 => format!("chmod {} {one}", ["600", "755", "4711", "2770"][below(4) as usize]),
                4 => format!("ln -s {other} {one}"),
                5 => format!("mv {one} {other}"),
                6 => format!("rm -r {one}; mkdir -p {one}"),
                7 => format!("cp -a {one} {other}"),
                _ => format!("touch {one}"),
            };
            script.push_str(&format!("({action}) 2> /dev/null || :\n"));
        }
        scene.run(&script);
    }
}

#[test]
fn modes_are_seen_as_they_are_and_told_to_the_last_bit() {
    let Some(mut scene) = Scene::new() else { return };
    scene.add("etc/shadow", b"root:*\n", false);
    scene.add("usr/bin/su", b"su", true);
    scene.root.insert(rel("var/tmp"), Entry::Dir);
    scene.root.insert(rel("closed"), Entry::Dir);
    let modes = [("etc/shadow", 0o640), ("usr/bin/su", 0o4755), ("var/tmp", 0o1777), ("closed", 0o700)];
    scene.modes = modes.iter().map(|(path, mode)| (rel(path), *mode)).collect();
    let (said, none) = scene.run("stat -c '%n %a %u %g' /etc/shadow /usr/bin/su /var/tmp /closed /etc/motd");
    assert_eq!(
        said,
        "/etc/shadow 640 0 0\n/usr/bin/su 4755 0 0\n/var/tmp 1777 0 0\n/closed 700 0 0\n/etc/motd 644 0 0\n"
    );
    assert_eq!(told(&none), Vec::<String>::new());
    let (_, changes) = scene.run(
        "echo app:! >> /etc/shadow; chmod 755 /usr/bin/su; chmod 2755 /bin/cat; chmod 3770 /var/tmp; chmod 000 /etc/motd; \
         mkdir -m 000 /locked; echo x > /locked/x; mkdir /locked/in; chmod 0 /locked/in /locked/x; chmod 755 /closed",
    );
    let cat = programs()["bin/cat"].len();
    let expect = [
        format!("bin/cat file 2755 {cat}"),
        "closed dir 755".into(),
        "etc/motd file 0 6".into(),
        "etc/shadow file 640 13".into(),
        "locked dir 0".into(),
        "locked/in dir 0".into(),
        "locked/x file 0 2".into(),
        "usr/bin/su file 755 2".into(),
        "var/tmp dir 3770".into(),
    ];
    assert_eq!(told(&changes), expect);
}

#[test]
fn the_command_is_root_over_files_and_over_nothing_else() {
    let Some(mut scene) = Scene::new() else { return };
    scene.world.file("secret", "secret\n");
    let entry = scene.entry(b"input\n", false);
    scene.inputs.insert(rel("dist/app"), entry);
    let host = scene.world.dir.path().to_string_lossy().into_owned();
    let script = r#"
        try() { if (eval "$1") >/dev/null 2>&1; then echo "possible: $1"; fi; }
        try 'cat $HOST/secret'; try 'ls $HOST'; try 'ls /proc/1/root'; try 'cat /proc/1/environ'; try 'cat /proc/1/mem'
        try 'umount /proc'; try 'umount /tmp'; try 'umount /workspace'; try 'mount -t tmpfs none /srv'; try 'mount -o remount,rw /dev'
        try 'mount -t proc none /srv'; try 'mknod /null c 1 3'; try 'mknod /dev/sda b 8 0'; try 'mknod /gone c 5 1'
        try 'chown 1 /workspace/dist/app'; try 'echo x > /workspace/dist/app'; try 'rm /workspace/dist/app'
        try 'echo x > /dev/new'; try 'rm /dev/null'; try 'rm -r /tmp'; try 'rm -r /workspace'; try 'mv /proc /p'
        try 'unshare -Urm umount /proc'; try 'unshare -Urm mount -o remount,rw /dev'; try 'unshare -Urm umount /workspace/dist/app'
        try 'chroot / ls $HOST'; try 'echo 1 > /proc/sys/kernel/hostname'; try 'ls /sys/*'; try 'test -e /services'
        chown 0:0 /etc/motd; id -u; id -g; umask; echo $HOME $USER $PATH; cat /proc/sys/kernel/hostname /workspace/dist/app
        while read line; do case $line in CapBnd*) echo $line;; *:*) echo "${line%%:*}";; esac; done < /proc/net/dev
        while read line; do case $line in CapBnd*|CapEff*|NoNewPrivs*) echo $line;; esac; done < /proc/self/status"#;
    let (said, changes) = scene.run(&script.replace("$HOST", &host));
    let expect = "0\n0\n0022\n/homeless root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\ndrystone\ninput\nlo\n\
                  CapEff: 00000000000401fb\nCapBnd: 00000000000401fb\nNoNewPrivs: 1\n";
    assert_eq!(said, expect);
    assert_eq!(told(&changes), Vec::<String>::new());
    let text = |path: &str| fs::read_to_string(scene.world.dir.path().join(path)).expect("it is there");
    assert_eq!(text("secret"), "secret\n");
}

#[test]
fn no_link_leads_out_whoever_made_it() {
    let Some(mut scene) = Scene::new() else { return };
    let bait = scene
        .world
        .file("bait/etc/passwd", "precious\n")
        .parent()
        .expect("a file")
        .parent()
        .expect("two levels")
        .to_owned();
    let target = bait.to_string_lossy().into_owned();
    for place in ["tmp", "dev", "proc", "workspace", "sys", "homeless", "run", "var"] {
        scene.link(place, &target);
    }
    let entry = scene.entry(b"input\n", false);
    scene.inputs.insert(rel("a"), entry);
    let (said, changes) = scene.run(
        "cat /workspace/a; echo x > /tmp/x; test -c /dev/null; test -d /proc/self; cp -r /etc /e; rm -r /etc; ln -s TARGET/etc /etc; \
         test ! -e /var/etc; ! echo x 2>/dev/null > /etc/passwd; ln -s /../../../.. /up; ls /up/bin/sh; rm /bin/ls; ln -s TARGET /bin/ls"
            .replace("TARGET", &target)
            .as_str(),
    );
    assert_eq!(said, "input\n/up/bin/sh\n");
    let told = told(&changes);
    for line in
        [format!("etc -> {target}/etc"), format!("bin/ls -> {target}"), "up -> /../../../..".into(), "e dir 755".into()]
    {
        assert!(told.contains(&line), "{line}: {told:?}");
    }
    assert!(!told.iter().any(|line| line.starts_with("etc/") || line.starts_with("tmp")), "{told:?}");
    let left: BTreeSet<_> =
        fs::read_dir(&bait).expect("there").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left, BTreeSet::from(["etc".into()]));
    assert_eq!(fs::read_to_string(bait.join("etc/passwd")).expect("there"), "precious\n");
    // The tree's own `/etc` may be one as well.
    scene.root.retain(|path, _| !path.starts_with(&rel("etc")));
    scene.link("etc", &format!("{target}/etc"));
    let (_, changes) = scene.run("test ! -e /etc/passwd");
    assert!(changes.is_empty(), "{changes:?}");
    assert_eq!(fs::read_dir(bait.join("etc")).expect("there").count(), 1);
}

#[test]
fn small_files_that_a_tree_lacks_are_there_and_told_only_once_changed() {
    let Some(mut scene) = Scene::new() else { return };
    scene.root.retain(|path, _| !path.starts_with(&rel("etc")));
    let (said, none) = scene.run("id -un; cat /etc/hosts; ls /etc");
    assert_eq!(said, "root\n127.0.0.1 localhost drystone\n::1 localhost\ngroup\nhosts\nnsswitch.conf\npasswd\n");
    assert!(none.is_empty(), "{none:?}");
    let (_, changes) = scene.run("echo app:x:0:0::/:/bin/sh >> /etc/passwd; rm /etc/group");
    assert_eq!(told(&changes), ["etc dir 755", "etc/passwd file 644 101"]);
    assert!(scene.content(&changes, "etc/passwd").starts_with("root:x:0:0:root:/root:/bin/sh\nnobody:"));
}

#[test]
fn a_command_that_fails_leaves_nothing() {
    let Some(scene) = Scene::new() else { return };
    for way in [Way::Best, Way::Copy] {
        let outcome = scene.try_step(&scene.step("echo x > /new; echo told; exit 3", way)).expect("it runs");
        assert_eq!((outcome.exit, printed(&outcome).as_str()), (Exit::Code(3), "told\n"));
        assert!(outcome.changes.is_empty());
        let mut late = scene.step("echo x > /new; sleep 100", way);
        late.timeout = Some(Duration::from_millis(300));
        let outcome = scene.try_step(&late).expect("it runs");
        assert_eq!((outcome.exit, outcome.changes.len()), (Exit::TimedOut, 0));
        let mut lost = scene.step("true", way);
        lost.directory = "/nowhere".into();
        let error = scene.try_step(&lost).expect_err("it cannot start").to_string();
        assert!(error.contains("cannot enter its directory /nowhere"), "{error}");
        let mut absent = scene.step("true", way);
        absent.argv = vec!["absent".into()];
        let error = scene.try_step(&absent).expect_err("it cannot start").to_string();
        assert!(error.contains("not in the sandbox PATH (/usr/local/sbin:"), "{error}");
        let cancelled = Cancel::new().expect("an event");
        cancelled.cancel();
        let ground = Ground { store: &scene.store, sandbox: &*scene.world.sandbox, cancel: &cancelled };
        let outcome = run_on(ground, &scene.step("echo x > /new", way)).expect("no error");
        assert_eq!((outcome.exit, outcome.changes.len()), (Exit::Cancelled, 0));
    }
}

#[test]
fn what_no_layer_has_is_refused_by_name() {
    let Some(scene) = Scene::new() else { return };
    let check = |script: &str, expect: &str| {
        let refusal = scene.refusal(script);
        assert!(refusal.contains(expect), "{script}: {refusal}");
    };
    check("mkdir -p /var/run; mkfifo /var/run/queue", "it left `/var/run/queue`, which is a pipe; remove it");
    check("touch \"/$(printf 'caf\\351')\"", "whose name is not UTF-8");
    check("ln -s \"$(printf 'caf\\351')\" /here", "it left /here, whose target is not UTF-8");
    check("truncate -s 20T /sparse || truncate -s 15T /sparse", "with `/sparse`");
    check("d=/d; for i in $(seq 300); do d=$d/d; done; mkdir -p $d", "which lies deeper than 256 directories");
}

#[test]
fn a_hundred_thousand_files_are_taken_and_one_more_than_may_be_is_not() {
    let Some(scene) = Scene::new() else { return };
    let script = "mkdir /many; cd /many; seq 100000 | xargs touch";
    let outcome = scene.try_step(&scene.step(script, Way::Best)).expect("it runs");
    assert_eq!((outcome.exit, outcome.changes.len()), (Exit::Code(0), 100_001));
    for way in [Way::Best, Way::Copy] {
        let mut step = scene.step("mkdir /many; cd /many; seq 1000 | xargs touch", way);
        step.bounds.changes = 1000;
        let error = scene.try_step(&step).expect_err("one too many");
        assert!(error.is_of_the_command());
        assert_eq!(error.to_string(), "it changed more than 1000 files, links and directories");
        step.bounds.changes = 1001;
        assert_eq!(scene.try_step(&step).expect("just as many").changes.len(), 1001);
    }
}

#[test]
fn other_levels_say_that_they_cannot() {
    let Some(mut scene) = Scene::new() else { return };
    for level in [Level::None, Level::Landlock] {
        scene.world.sandbox = World::new(level).sandbox;
        let error = scene.try_step(&scene.step("true", Way::Best)).expect_err("it cannot");
        let expect = format!("a step of an image runs at the `namespaces` level only, and this is `{}`", level.word());
        assert_eq!(error.to_string(), expect);
    }
}

/// A sandbox on a machine that refuses overlays.
struct Refusing(Box<dyn Sandbox>);

impl Sandbox for Refusing {
    fn level(&self) -> Level {
        self.0.level()
    }

    fn run_in(
        &self,
        spec: &SandboxSpec,
        company: Company,
        cancel: &Cancel,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Finished, SandboxError> {
        let mut spec = spec.clone();
        if let System::Writable(WritableRoot { layers: Layers::Overlay { work, upper, .. }, .. }) = &mut spec.system {
            // The kernel takes no directory for its own that is written by others.
            work.clone_from(upper);
        }
        self.0.run_in(&spec, company, cancel, sink)
    }

    fn pod(&self) -> Result<Option<Pod>, SandboxError> {
        self.0.pod()
    }
}

#[test]
fn where_the_machine_refuses_an_overlay_a_copy_is_made() {
    let Some(scene) = Scene::new() else { return };
    let script = "echo x >> /etc/motd; rm -r /etc/conf.d";
    let (_, changes) = scene.run(script);
    let refusing = Refusing(World::new(Level::Namespaces).sandbox);
    let never = Cancel::new().expect("an event");
    let ground = Ground { store: &scene.store, sandbox: &refusing, cancel: &never };
    let outcome = run_on(ground, &scene.step(script, Way::Best)).expect("it runs");
    assert_eq!((outcome.way, told(&outcome.changes)), (Way::Copy, told(&changes)));
    assert_eq!(scene.left_on_disk(), Vec::<PathBuf>::new());
}

#[test]
fn with_a_root_that_can_be_written_things_are_mounted_in_the_workspace_only() {
    let Some(world) = namespaces() else { return };
    let root = world.file("root/etc/motd", "x").parent().expect("a file").parent().expect("two levels").to_owned();
    let mut spec = argv(&["/bin/sh"]);
    spec.system = System::Writable(WritableRoot {
        layers: Layers::Copy { root: root.clone() },
        modes: BTreeMap::new(),
        owners: Owners::new(),
        directory: "/".into(),
    });
    spec.mounts = vec![Mount { host: root, inside: "/opt/kit".into(), access: Access::ReadOnly }];
    let error = world.error(spec);
    assert!(error.contains("at /opt/kit: with a root that can be written, only in the workspace"), "{error}");
}

#[test]
fn users_are_added_and_libraries_listed_as_installing_scripts_do_it() {
    let Some(mut scene) = Scene::new() else { return };
    for program in ["useradd", "ldconfig"] {
        let found = program_with_libraries(program);
        if found.is_empty() {
            return loudly(&format!(
                "NOT TESTED: installing scripts in a root that can be written, for want of `{program}`"
            ));
        }
        found.into_iter().for_each(|(path, bytes)| scene.add(&path, &bytes, true));
    }
    scene.add("etc/group", b"root:x:0:\n", false);
    scene.add("etc/shadow", b"root:*:10000:0:99999:7:::\n", false);
    scene.add("etc/gshadow", b"root:*::\n", false);
    scene.modes.extend([(rel("etc/shadow"), 0o640), (rel("etc/gshadow"), 0o640)]);
    let (_, changes) = scene.run(
        "useradd --system --user-group --no-create-home --uid 100 app; ldconfig -X; ldconfig -i; test -s /etc/ld.so.cache; \
         rm -rf /etc/*- /etc/.pwd.lock /var/cache /var/log",
    );
    let told = told(&changes);
    for line in [
        "etc/group file 644",
        "etc/gshadow file 640",
        "etc/ld.so.cache file 644",
        "etc/passwd file 644",
        "etc/shadow file 640",
    ] {
        assert!(told.iter().any(|told| told.starts_with(line)), "{line}: {told:?}");
    }
    assert!(scene.content(&changes, "etc/passwd").contains("\napp:x:100:"));
    assert!(scene.content(&changes, "etc/shadow").contains("\napp:!"));
}
