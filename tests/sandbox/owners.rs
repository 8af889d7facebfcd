//! Commands that give files to users who are nobody here: what they see of it, and what is told of it. By an overlay and by a copy alike.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use drystone::base::path::RelPath;
use drystone::engine::image_step::{StepError, Way};
use drystone::engine::root_changes::{Change, Changes};
use drystone::sandbox::spec::{Exit, Limits, Owner};

use crate::steps::{Scene, printed, program_with_libraries};
use crate::world::{loudly, rel};

/// A scene with further programs; `None`, which is told, without one of them.
fn scene(programs: &[&str]) -> Option<Scene> {
    let mut scene = Scene::new()?;
    for program in programs {
        let found = program_with_libraries(program);
        if found.is_empty() {
            loudly(&format!("NOT TESTED: owners, for want of `{program}`"));
            return None;
        }
        found.into_iter().for_each(|(path, bytes)| scene.add(&path, &bytes, true));
    }
    Some(scene)
}

impl Scene {
    fn owned(&mut self, path: &str, user: u32, group: u32) {
        self.owners.insert(rel(path), Owner { user, group });
    }
}

/// Whose what changed is, a line each, without what the programs leave.
fn told(changes: &Changes) -> Vec<String> {
    let line = |(path, change): (&RelPath, &Change)| match change {
        Change::File { owner, mode, .. } => format!("{path} {mode:o} {}:{}", owner.user, owner.group),
        Change::Dir { owner, mode, .. } => format!("{path}/ {mode:o} {}:{}", owner.user, owner.group),
        Change::Link { owner, .. } => format!("{path}@ {}:{}", owner.user, owner.group),
        Change::Removed => format!("{path} gone"),
    };
    changes.iter().map(line).collect()
}

#[track_caller]
fn check(scene: &Scene, script: &str, said: &str, changed: &[&str]) {
    let (printed, changes) = scene.run(script);
    assert_eq!(printed, said, "{script}");
    assert_eq!(told(&changes), changed, "{script}");
}

#[test]
fn who_a_file_was_given_to_is_told_inside_and_to_the_layer() {
    let Some(scene) = scene(&["chgrp", "install", "test"]) else { return };
    check(
        &scene,
        "mkdir -p /srv/app/d; echo x > /srv/app/d/f; ln -s f /srv/app/d/l; cd /srv; chown -R 10:20 app; stat -c '%n %u:%g' app app/d/f app/d/l
         chgrp 21 app/d; chown 11 app/d/f; stat -c '%u:%g' app/d app/d/f; stat -Lc '%u:%g' app/d/l; ls -nd app/d/f | { read a b c d e; echo $c $d; }
         test -O app/d/f || echo 'of another'; test -O /etc/motd && echo own",
        "app 10:20\napp/d/f 10:20\napp/d/l 10:20\n10:21\n11:20\n11:20\n11 20\nof another\nown\n",
        &["srv/ 755 0:0", "srv/app/ 755 10:20", "srv/app/d/ 755 10:21", "srv/app/d/f 644 11:20", "srv/app/d/l@ 10:20"],
    );
    check(
        &scene,
        "install -d -o 33 -g 34 -m 2750 /d; echo x > /tmp/x; install -o 33 -m 4755 /tmp/x /d/x; chown 7 /etc/motd; chown 0 /etc/motd; chown 65534:4294967294 /etc/passwd",
        "",
        &["d/ 2750 33:34", "d/x 4755 33:34", "etc/passwd 644 65534:4294967294"],
    );
    // A link itself, by what follows none; a link's file, by what does.
    check(
        &scene,
        "ln -s motd /etc/l; chown -h 5:6 /etc/l; chown 7:8 /etc/l; stat -c '%u:%g' /etc/l /etc/motd",
        "5:6\n7:8\n",
        &["etc/l@ 5:6", "etc/motd 644 7:8"],
    );
}

#[test]
fn an_owner_goes_where_the_file_goes_and_nowhere_else() {
    let Some(scene) = scene(&["tar"]) else { return };
    check(
        &scene,
        "mkdir /a /b; cd /a; echo 1 > f; chown 1:2 f; ln f g; mv f ../b/h; stat -c '%n %u:%g' g ../b/h
         echo 2 > new; mv new ../b/h; stat -c '%u:%g' ../b/h; cp -p g copied; cp g plain; chmod 600 g; echo more >> g",
        "g 1:2\n../b/h 1:2\n0:0\n",
        &["a/ 755 0:0", "a/copied 644 1:2", "a/g 600 1:2", "a/plain 644 0:0", "b/ 755 0:0", "b/h 644 0:0"],
    );
    // Hard links are names of one file, whichever was given away.
    check(
        &scene,
        "mkdir /a; cd /a; echo 1 > f; ln f g; ln f h; chown 3 g; stat -c %u f g h",
        "3\n3\n3\n",
        &["a/ 755 0:0", "a/f 644 3:0", "a/g 644 3:0", "a/h 644 3:0"],
    );
    // Numbers of files are given again at once.
    check(
        &scene,
        "mkdir /a; cd /a; i=0; while test $i -lt 50; do rm -f f l; echo x > f; chown 9 f; rm f; echo y > f; test \"$(stat -c %u f)\" = 0 || echo kept
         mkdir d; chown 9 d; rmdir d; mkdir d; test \"$(stat -c %u d)\" = 0 || echo kept; rmdir d; ln -s x l; chown -h 9 l; rm l; ln -s x l; i=$((i + 1)); done",
        "",
        &["a/ 755 0:0", "a/f 644 0:0", "a/l@ 0:0"],
    );
    // In a directory that is no part of the layer as well; and the packed form of all of it.
    check(
        &scene,
        "mkdir -p /tmp/t/d; cd /tmp/t; echo x > d/f; ln -s f d/l; chown -R 40:41 d; chown -h 42 d/l; tar -cf ../t.tar d; mkdir /o; tar -xpf ../t.tar -C /o
         mv d /moved; stat -c '%u:%g' /o/d /o/d/f /o/d/l /moved/f",
        "40:41\n40:41\n42:41\n40:41\n",
        &[
            "moved/ 755 40:41", "moved/f 644 40:41", "moved/l@ 42:41", "o/ 755 0:0", "o/d/ 755 40:41", "o/d/f 644 40:41",
            "o/d/l@ 42:41",
        ],
    );
}

#[test]
fn owners_of_the_layers_below_are_seen_and_stay() {
    let Some(mut scene) = Scene::new() else { return };
    for (path, owner) in
        [("srv/x/keep", 101), ("srv/x/write", 101), ("srv/x/replace", 101), ("srv/x/up/deep", 101), ("srv/x/gone", 101)]
    {
        scene.add(path, b"text\n", false);
        scene.owned(path, owner, 102);
    }
    scene.link("srv/x/link", "keep");
    scene.link("srv/x/link2", "keep");
    scene.owned("srv/x/link", 103, 104);
    scene.owned("srv/x/link2", 103, 104);
    scene.owned("srv/x", 101, 102);
    scene.owned("srv/x/up", 105, 102);
    scene.modes.extend([(rel("srv/x"), 0o2750), (rel("srv/x/write"), 0o640)]);
    check(
        &scene,
        "stat -c '%n %u:%g' /srv /srv/x /srv/x/*",
        "/srv 0:0\n/srv/x 101:102\n/srv/x/gone 101:102\n/srv/x/keep 101:102\n/srv/x/link 103:104\n/srv/x/link2 103:104\n/srv/x/replace 101:102\n/srv/x/up 105:102\n/srv/x/write 101:102\n",
        &[],
    );
    check(
        &scene,
        "cd /srv/x; echo more >> write; echo new > new; mv new replace; touch up/new; rm gone; echo x > gone; mv link2 link3; chown 101:102 keep; chmod 644 keep
         stat -c '%n %u:%g' write replace up up/deep gone link3",
        "write 101:102\nreplace 0:102\nup 105:102\nup/deep 101:102\ngone 0:102\nlink3 103:104\n",
        &["srv/x/gone 644 0:102", "srv/x/link2 gone", "srv/x/link3@ 103:104", "srv/x/replace 644 0:102", "srv/x/up/new 644 0:0", "srv/x/write 640 101:102"],
    );
    // An overlay gives the names of a file that it copied up numbers of their own.
    scene.add("srv/plain", b"x", false);
    check(
        &scene,
        "cd /srv/x; echo more >> keep; ln keep more; stat -c %u keep more; chown 7 more; stat -c %u keep more; cd ..; ln plain other; chown 8 plain; stat -c %u other
         ln other third; ln x/link x/link4; rm plain x/keep; stat -c %u third x/link4",
        "101\n101\n7\n7\n8\n8\n103\n",
        &["srv/other 644 8:0", "srv/plain gone", "srv/third 644 8:0", "srv/x/keep gone", "srv/x/link4@ 103:104", "srv/x/more 644 7:102"],
    );
    // Given back to root, and to the one it had.
    check(
        &scene,
        "cd /srv/x; chown root:root keep; chown 9 write; chown 101 write; chown -h 0:0 link",
        "",
        &["srv/x/keep 644 0:0", "srv/x/link@ 0:0"],
    );
    // A directory that was copied up, and all of its content moved out and in again.
    check(
        &scene,
        "cd /srv/x; mkdir /o; mv up/deep /o; mv /o/deep up; rmdir /o; stat -c %u up up/deep",
        "105\n101\n",
        &[],
    );
}

#[test]
fn a_set_group_id_directory_gives_its_group_to_what_is_made_in_it() {
    let Some(mut scene) = scene(&["install", "chgrp"]) else { return };
    scene.add("srv/mail/old", b"x", false);
    scene.owned("srv/mail", 0, 8);
    scene.modes.extend([(rel("srv/mail"), 0o2775)]);
    check(
        &scene,
        "cd /srv/mail; echo x > new; echo y >> old; mkdir sub; echo x > sub/f; ln -s x l; echo x > /tmp/x; cp /tmp/x cp; mkfifo p; stat -c %g p; rm p; cd sub; mkdir -p deep/er
         echo x > ../plain; chgrp 0 ../plain; cd /; mkdir /g; chgrp 9 /g; echo x > /g/before; chmod g+s /g; echo x > /g/after; echo x > /outer; mv /outer /g/; stat -c '%n %g' /g/*",
        "8\n/g/after 9\n/g/before 0\n/g/outer 0\n",
        &[
            "g/ 2755 0:9", "g/after 644 0:9", "g/before 644 0:0", "g/outer 644 0:0", "srv/mail/cp 644 0:8", "srv/mail/l@ 0:8",
            "srv/mail/new 644 0:8", "srv/mail/old 644 0:0", "srv/mail/plain 644 0:0", "srv/mail/sub/ 2755 0:8", "srv/mail/sub/deep/ 2755 0:8",
            "srv/mail/sub/deep/er/ 2755 0:8", "srv/mail/sub/f 644 0:8",
        ],
    );
}

#[test]
fn users_that_are_added_own_their_homes_and_lists_keep_their_group() {
    let Some(mut scene) = scene(&["useradd", "chgrp"]) else { return };
    scene.add("etc/group", b"root:x:0:\nshadow:x:42:\n", false);
    scene.add("etc/shadow", b"root:*:10000:0:99999:7:::\n", false);
    scene.add("etc/gshadow", b"root:*::\n", false);
    scene.add("etc/skel/.profile", b"x\n", false);
    for list in ["etc/shadow", "etc/gshadow"] {
        scene.modes.insert(rel(list), 0o640);
        scene.owned(list, 0, 42);
    }
    let (said, changes) = scene.run(
        "useradd --system --user-group --create-home --home-dir /var/lib/app --uid 100 app; chown app /etc/motd; stat -c '%n %U' /etc/motd; rm -rf /etc/*- /etc/.pwd.lock",
    );
    assert_eq!(said, "/etc/motd app\n");
    let told = told(&changes);
    let passwd = told.iter().find(|line| line.starts_with("var/lib/app/.profile ")).expect("the skeleton was copied");
    let (_, group) = passwd.rsplit_once(':').expect("an owner");
    for line in [
        "etc/gshadow 640 0:42".to_owned(),
        "etc/passwd 644 0:0".to_owned(),
        "etc/shadow 640 0:42".to_owned(),
        format!("var/lib/app/.profile 644 100:{group}"),
    ] {
        assert!(told.contains(&line), "{line}: {told:?}");
    }
    assert!(
        told.iter().any(|line| line.starts_with("var/lib/app/ ") && line.ends_with(&format!(" 100:{group}"))),
        "{told:?}"
    );
}

#[test]
fn what_cannot_be_given_is_refused_as_ever() {
    let Some(mut scene) = Scene::new() else { return };
    scene.add("etc/suid", b"x", true);
    scene.input("in/put", b"x");
    scene.modes.extend([(rel("etc/suid"), 0o6755)]);
    check(
        &scene,
        "chown 1 /nothing 2>/dev/null || echo nothing; chown 1:1 /workspace/in/put 2>/dev/null || echo refused; chown 1:1 /etc/motd/x 2>/dev/null || echo none
         stat -c %u /workspace/in/put; chown 1:1 /etc/suid; stat -c '%a %u' /etc/suid; chown 9 /tmp /workspace; stat -c %u /tmp /workspace",
        "nothing\nrefused\nnone\n0\n755 1\n9\n9\n",
        &["etc/suid 755 1:1"],
    );
    let error = scene.refusal("chown 5:6 /");
    assert!(error.contains("it gave `/` itself to 5:6"), "{error}");
}

/// A program that gives away what two other threads rename and replace, with links to the host's files among it.
const RACE: &str = r#"
#include <pthread.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <sys/syscall.h>
static volatile int stop;
static char path[64] = "/r/a/f";
static void *renames(void *x) { while (!stop) { rename("/r/a", "/r/b"); rename("/r/b", "/r/a"); } return x; }
static void *links(void *x) {
    while (!stop) { unlink("/r/l"); symlink("/proc/1/" "root/etc/passwd", "/r/l"); unlink("/r/l"); symlink("../../../../../../etc/passwd", "/r/l");
                    unlink("/r/l"); symlink("/proc/1/cwd", "/r/l"); }
    return x;
}
static void *texts(void *x) {
    while (!stop) { path[3] = 'b'; path[3] = 'l'; path[4] = 0; path[4] = '/'; path[3] = 'a'; }
    return x;
}
int main(void) {
    pthread_t one, two, three;
    mkdir("/r", 0755); mkdir("/r/a", 0755); close(open("/r/a/f", O_CREAT | O_WRONLY, 0644));
    pthread_create(&one, 0, renames, 0); pthread_create(&two, 0, links, 0); pthread_create(&three, 0, texts, 0);
    for (int i = 0; i < 3000; i++) {
        struct stat told;
        chown("/r/a/f", i, i); chown("/r/l", 77, 77); lchown("/r/l", 5, 5); chown(path, 6, 6); stat("/r/l", &told); stat(path, &told);
        chown((char *)8, 1, 1); stat((char *)8, &told); stat("/r/a/f", (struct stat *)8); fchown(-1, 1, 1); fchown(i % 9, 1, 1);
        syscall(SYS_chown, path - 4096 * 1024, 1, 1);
    }
    stop = 1;
    pthread_join(one, 0); pthread_join(two, 0); pthread_join(three, 0);
    return 0;
}
"#;

/// Compiles a C program of this machine without anything that it would have to load; `None`, which is told, where that cannot be done.
fn compiled(scene: &Scene, text: &str) -> Option<Vec<u8>> {
    let source = scene.world.file("source.c", text);
    let program = source.with_file_name("program");
    let made = Command::new("cc").args(["-O1", "-static", "-pthread", "-o"]).arg(&program).arg(&source).output();
    if !made.is_ok_and(|made| made.status.success()) {
        loudly("NOT TESTED: owners of files that are fought over, for want of a C compiler that links statically");
        return None;
    }
    Some(fs::read(program).expect("it was just made"))
}

#[test]
fn who_fights_over_paths_gives_away_nothing_but_their_own() {
    let Some(mut scene) = Scene::new() else { return };
    let Some(program) = compiled(&scene, RACE) else { return };
    scene.add("bin/race", &program, true);
    let witness = scene.world.file("witness", "x");
    let before = fs::metadata(&witness).expect("there");
    for way in [Way::Best, Way::Copy] {
        let outcome = scene.try_step(&scene.step("race; chown 0:0 /etc/passwd", way)).expect("it runs");
        assert_eq!(outcome.exit, Exit::Code(0), "{}", printed(&outcome));
        let changed = told(&outcome.changes);
        assert!(changed.iter().all(|line| line.starts_with("r/") || line.starts_with("r/l@")), "{changed:?}");
        assert!(changed.iter().any(|line| line.starts_with("r/a/f 644 ")), "{changed:?}");
    }
    let after = fs::metadata(&witness).expect("there");
    use std::os::unix::fs::MetadataExt;
    assert_eq!((after.uid(), after.gid(), after.ctime()), (before.uid(), before.gid(), before.ctime()));
}

#[test]
fn who_is_killed_stopped_or_one_of_too_many_keeps_nobody_waiting() {
    let Some(scene) = scene(&["kill", "timeout"]) else { return };
    let started = Instant::now();
    // Killed in the middle of calls that are looked at, by themselves and by others, threads and all.
    check(
        &scene,
        "echo x > /f; i=0; while test $i -lt 5; do (while :; do chown 5 /f; stat /f >/dev/null; done) & p=$!; (while :; do stat /f >/dev/null; done) & q=$!
         stat /f >/dev/null; kill -9 $p; kill -STOP $q; stat /f >/dev/null; kill -CONT $q; kill -9 $q; wait || true; i=$((i + 1)); done; chown 6 /f",
        "",
        &["f 644 6:0"],
    );
    // What is left behind goes with the command, whatever it does.
    check(
        &scene,
        "echo x > /f; chown 3 /f; (while :; do stat /f /etc; done) >/dev/null 2>&1 & (trap '' TERM; while :; do chown 4 /g; done) >/dev/null 2>&1 & stat -c %u /f",
        "3\n",
        &["f 644 3:0"],
    );
    // A signal's handler, an ignored stop, a process that waits for what stands.
    check(
        &scene,
        "trap 'echo heard' USR1; kill -USR1 $$; sh -c 'kill -9 $$' 2>/dev/null || echo $?; sh -c 'kill -TERM $$' 2>/dev/null || echo $?; timeout 0.1 sleep 9 || echo $?",
        "heard\n137\n143\n124\n",
        &[],
    );
    let mut step = scene
        .step("echo x > /f; chown 5 /f; f() { while :; do stat /f >/dev/null; f & done; }; f & f & wait", Way::Best);
    step.limits = Limits { memory_bytes: None, processes: 200 };
    let outcome = scene.try_step(&step).expect("it runs");
    assert!(matches!(outcome.exit, Exit::Over(_)), "{:?}", outcome.exit);
    // Nobody hears anything for all that stops.
    step = scene.step(
        "echo x > /f; chown 5 /f; for i in 1 2 3 4 5 6 7 8; do (while :; do test -e /f; done) & done; wait",
        Way::Best,
    );
    step.timeout = Some(Duration::from_secs(2));
    let outcome = scene.try_step(&step).expect("it runs");
    assert_eq!(outcome.exit, Exit::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(100), "{:?}", started.elapsed());
}

#[test]
fn to_become_somebody_else_fails_and_says_so() {
    let Some(scene) = scene(&["setpriv"]) else { return };
    check(
        &scene,
        "setpriv --reuid 33 --clear-groups id 2>/dev/null || echo no; setpriv --regid 33 --keep-groups id 2>/dev/null || echo no",
        "no\nno\n",
        &[],
    );
}

#[test]
fn more_owners_than_may_be_held_are_told_before_the_layer() {
    let Some(scene) = Scene::new() else { return };
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if files > 30_000 {
        return loudly("NOT TESTED: more owners than files can be held open, for the limit is high");
    }
    let script = format!("mkdir /m; cd /m; seq 1 {} | xargs touch; chown -R 5 /m", files + 10);
    let error = scene.try_step(&scene.step(&script, Way::Best)).expect_err("too many");
    assert!(matches!(&error, StepError::Owners(_)) && error.is_of_the_command(), "{error}");
    assert!(error.to_string().contains("ulimit -Hn"), "{error}");
}

#[test]
fn five_thousand_files_are_given_away_and_as_many_dead_ones_let_go() {
    let Some(scene) = Scene::new() else { return };
    let (_, changes) = scene.run("mkdir /m; cd /m; seq 1 5000 | xargs touch; chown -R 5:6 /m; cd /; rm -r /m; mkdir /m; cd /m; seq 1 5000 | xargs touch; chown -R 7:8 /m");
    assert_eq!(changes.len(), 5001);
    let owner = |change: &Change| match change {
        Change::File { owner, .. } | Change::Dir { owner, .. } => *owner,
        other => panic!("{other:?}"),
    };
    assert!(changes.values().all(|change| owner(change) == Owner { user: 7, group: 8 }));
}
