//! Commands that give files to users who are nobody here: what they see of it, and what is told of it. By an overlay and by a copy alike.

use std::collections::BTreeMap;
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
        &["srv/app/ 755 10:20", "srv/app/d/ 755 10:21", "srv/app/d/f 644 11:20", "srv/app/d/l@ 10:20"]
            .map(|line| line)
            .iter()
            .copied()
            .fold(vec!["srv/ 755 0:0"], |mut all, line| {
                all.push(line);
                all
            }),
    );
    check(
        &scene,
        "install -d -o 33 -g 34 -m 2750 /d; echo x > /tmp/x; install -o 33 -m 4755 /tmp/x /d/x; chown 7 /etc/motd; chown 0 /etc/motd; chown 65534:4294967294 /etc/passwd",
        "",
        &["d/ 2750 33:34", "d/x 4755 33:0", "etc/passwd 644 65534:4294967294"],
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
        "mkdir /a; cd /a; i=0; while test $i -lt 200; do echo x > f; chown 9 f; rm f; echo y > f; test \"$(stat -c %u f)\" = 0 || echo kept
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
        "write 101:102\nreplace 0:0\nup 105:102\nup/deep 101:102\ngone 0:0\nlink3 103:104\n",
        &["srv/x/gone 644 0:0", "srv/x/link2 gone", "srv/x/link3@ 103:104", "srv/x/replace 644 0:0", "srv/x/up/new 644 0:0", "srv/x/write 640 101:102"],
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
fn what_cannot_be_given_is_refused_as_ever() {
    let Some(mut scene) = Scene::new() else { return };
    scene.add("etc/suid", b"x", true);
    scene.modes.extend([(rel("etc/suid"), 0o6755)]);
    check(
        &scene,
        "chown 1 /nothing 2>&1 | cut -d: -f3- || true; chown 1 /proc/version 2>/dev/null || echo no; chown 1:1 /etc/suid; stat -c '%a %u' /etc/suid",
        "no\n755 1\n",
        &["etc/suid 755 1:1"],
    );
    let error = scene.refusal("chown 5:6 /");
    assert!(error.contains("it gave `/` itself to 5:6"), "{error}");
}
