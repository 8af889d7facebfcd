//! What is kept of a run answers the next one only as far as it holds: each change is made in two trees, one of whose runs load all
//! anew, and both must tell the same and come out alike.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use crate::support::{Events, TestWorkspace, set};

/// `gen` reads a glob, `lib` a directory whole, `app` what both make and a variable; `loner` nothing of it.
const MANIFEST: &str = "[task.gen]\nrun = \"mkdir -p dist; cat src/*.txt | sed 's/#.*//' > dist/all\"\n\
    inputs = [\"src/*.txt\"]\noutputs = [\"dist/**\"]\n\n\
    [task.lib]\nrun = \"find lib -type f | sort | xargs cat > lib.out; ls -l lib | cut -c1-10 >> lib.out\"\n\
    inputs = [\"lib/**\"]\noutputs = [\"lib.out\"]\n\n\
    [task.app]\nrun = \"cat dist/all lib.out > app.out; echo $${MODE-unset} >> app.out\"\ninputs = []\noutputs = [\"app.out\"]\n\
    pass-env = [\"MODE\"]\nneeds = [\":gen\", \":lib\"]\n\n\
    [task.loner]\nrun = \"cp own.txt loner.out\"\ninputs = [\"own.txt\"]\noutputs = [\"loner.out\"]\n";

/// Two workspaces alike.
struct Pair {
    kept: TestWorkspace,
    anew: TestWorkspace,
}

impl Pair {
    fn new(manifest: &str) -> Self {
        let make = || {
            let workspace = TestWorkspace::new(manifest);
            for (path, text) in [("src/a.txt", "a\n"), ("src/b.txt", "b\n"), ("own.txt", "own\n")] {
                workspace.write(path, text);
            }
            workspace.write("lib/one", "1\n");
            workspace.write("lib/deep/two", "2\n");
            workspace.write(".gitignore", "*.tmp\n");
            workspace
        };
        let mut pair = Self { kept: make(), anew: make() };
        pair.anew.set("DRYSTONE_ANEW", "1");
        pair
    }

    fn both(&self) -> [&TestWorkspace; 2] {
        [&self.kept, &self.anew]
    }

    fn change(&self, change: &dyn Fn(&TestWorkspace)) {
        self.both().into_iter().for_each(change);
    }

    fn set(&mut self, name: &str, value: &str) {
        self.kept.set(name, value);
        self.anew.set(name, value);
    }

    /// Runs both; what they tell of each task and what they leave must be alike.
    #[track_caller]
    fn run(&self, what: &str, args: &[&str], code: i32) -> Events {
        let (kept, anew) = (self.kept.events_with(args, code), self.anew.events_with(args, code));
        for outcome in ["hit", "ran", "failed", "skipped"] {
            assert_eq!(kept.with(outcome), anew.with(outcome), "{what}: {outcome}");
        }
        assert_eq!(self.kept.snapshot(), self.anew.snapshot(), "{what}");
        kept
    }

    /// Runs until all that can stand does, so that the next run is answered from what is kept.
    #[track_caller]
    fn settle(&self, what: &str) {
        for _ in 0..2 {
            let events = self.run(what, &["//..."], 0);
            assert!(events.with("ran").is_empty(), "{what}: {:?}", events.with("ran"));
        }
    }
}

/// The files in which it is kept what a workspace's runs did.
fn files(workspace: &TestWorkspace) -> Vec<PathBuf> {
    let dirs = fs::read_dir(workspace.store().join("workspaces")).expect("a store");
    let below = dirs.flat_map(|dir| fs::read_dir(dir.expect("readable").path()).expect("readable"));
    let mut found: Vec<PathBuf> = below.map(|entry| entry.expect("readable").path()).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("settled-")));
    found.sort();
    found
}

type Change = (&'static str, fn(&TestWorkspace), &'static [&'static str]);

/// One by itself.
type Harm = (&'static str, fn(&TestWorkspace));

/// Makes the changes one after the other, each after all stood; those tasks have to run, and no others.
fn each(pair: &Pair, changes: &[Change]) {
    pair.run("first", &["//..."], 0);
    pair.settle("first");
    for (what, change, ran) in changes {
        pair.change(&change);
        let events = pair.run(what, &["//..."], 0);
        assert_eq!(events.with("ran"), set(ran), "{what}");
        pair.settle(what);
    }
}

fn at(workspace: &TestWorkspace, path: &str) -> PathBuf {
    workspace.root().join(path)
}

#[test]
fn whatever_changes_among_the_sources_is_seen() {
    let pair = Pair::new(MANIFEST);
    each(
        &pair,
        &[
            ("a content", |w| w.write("src/a.txt", "aa\n"), &["//:gen", "//:app"]),
            ("a remark that comes to nothing", |w| w.write("src/a.txt", "aa#remark\n"), &["//:gen"]),
            ("a new file of a glob", |w| w.write("src/c.txt", "c\n"), &["//:gen", "//:app"]),
            ("a new file of no glob", |w| w.write("src/c.md", "c\n"), &[]),
            ("a file that is gone", |w| fs::remove_file(at(w, "src/b.txt")).expect("removed"), &["//:gen", "//:app"]),
            (
                "a name that is another",
                |w| fs::rename(at(w, "src/c.txt"), at(w, "src/0.txt")).expect("renamed"),
                &["//:gen", "//:app"],
            ),
            ("a new file in a directory below", |w| w.write("lib/deep/er/three", "3\n"), &["//:lib", "//:app"]),
            ("a file that is ignored", |w| w.write("lib/x.tmp", "x\n"), &[]),
            ("a file that is ignored no longer", |w| w.write(".gitignore", "*.temp\n"), &["//:lib", "//:app"]),
            ("a file that is ignored again", |w| w.write("lib/.gitignore", "*.tmp\n"), &["//:lib", "//:app"]),
            (
                "a mode",
                |w| fs::set_permissions(at(w, "lib/one"), fs::Permissions::from_mode(0o755)).expect("set"),
                &["//:lib", "//:app"],
            ),
            (
                "a mode that no task can see",
                |w| fs::set_permissions(at(w, "own.txt"), fs::Permissions::from_mode(0o600)).expect("set"),
                &[],
            ),
            (
                "a link in place of a file",
                |w| {
                    fs::remove_file(at(w, "lib/one")).expect("removed");
                    symlink("deep/two", at(w, "lib/one")).expect("linked");
                },
                &["//:lib", "//:app"],
            ),
            (
                "another target of the link",
                |w| {
                    fs::remove_file(at(w, "lib/one")).expect("removed");
                    symlink("deep/er/three", at(w, "lib/one")).expect("linked");
                },
                &["//:lib"],
            ),
            (
                "another content of the same size and time",
                |w| {
                    let time = fs::metadata(at(w, "own.txt")).and_then(|meta| meta.modified()).expect("a time");
                    w.write("own.txt", "won\n");
                    let file = fs::File::options().append(true).open(at(w, "own.txt"));
                    file.and_then(|file| file.set_modified(time)).expect("set");
                },
                &["//:loner"],
            ),
            (
                "another file of the same content",
                |w| {
                    w.write("own.new", "won\n");
                    fs::rename(at(w, "own.new"), at(w, "own.txt")).expect("renamed");
                },
                &[],
            ),
            (
                "a directory moved away and back",
                |w| {
                    fs::rename(at(w, "src"), at(w, "away")).expect("renamed");
                    fs::rename(at(w, "away"), at(w, "src")).expect("renamed");
                },
                &[],
            ),
        ],
    );
}

#[test]
fn whatever_changes_in_the_workspace_is_seen() {
    let pair = Pair::new(MANIFEST);
    each(
        &pair,
        &[
            (
                "a remark in the manifest",
                |w| w.write("drystone.toml", &format!("# remark\n{}", w.read("drystone.toml"))),
                &[],
            ),
            (
                "a command",
                |w| w.write("drystone.toml", &w.read("drystone.toml").replace("cp own.txt", "cat own.txt own.txt >")),
                &["//:loner"],
            ),
            (
                "a package more",
                |w| w.write("pkg/drystone.toml", "[task.t]\nrun = \"echo t > t.out\"\noutputs = [\"t.out\"]\n"),
                &["//pkg:t"],
            ),
            (
                "a package that takes files away from another",
                |w| w.write("lib/deep/drystone.toml", "[task.t]\nrun = \"cat two > t.out\"\noutputs = [\"t.out\"]\n"),
                &["//lib/deep:t", "//:lib", "//:app"],
            ),
            (
                "a package less",
                |w| {
                    fs::remove_file(at(w, "lib/deep/drystone.toml")).expect("removed");
                    fs::remove_file(at(w, "lib/deep/t.out")).expect("removed");
                },
                &[],
            ),
            (
                "a task that needs another no longer",
                |w| {
                    let text =
                        w.read("drystone.toml").replace("needs = [\":gen\", \":lib\"]", "needs = [\":lib\", \":gen\"]");
                    w.write("drystone.toml", &text);
                },
                &[],
            ),
        ],
    );
    for w in pair.both() {
        w.write("drystone.toml", "[workspace]\nname = \"test\"\n[task.gen]\nrun = 1\n");
    }
    let told =
        pair.both().map(|w| w.run(&["run", "//..."]).expect(2).stderr.replace(&w.root().display().to_string(), ""));
    assert_eq!(told[0], told[1]);
}

/// What an edit begins early (launchers, the store) is of no use then, and must not be in the way.
#[test]
fn what_changes_together_with_a_source_file_is_seen() {
    let pair = Pair::new(MANIFEST);
    each(
        &pair,
        &[
            (
                "a source and a remark in the manifest",
                |w| {
                    w.write("own.txt", "with a remark\n");
                    w.write("drystone.toml", &format!("# remark\n{}", w.read("drystone.toml")));
                },
                &["//:loner"],
            ),
            (
                "a source and a package more",
                |w| {
                    w.write("own.txt", "with a package\n");
                    w.write("pkg/drystone.toml", "[task.t]\nrun = \"echo t > t.out\"\noutputs = [\"t.out\"]\n");
                },
                &["//:loner", "//pkg:t"],
            ),
            (
                "a source and a command",
                |w| {
                    w.write("own.txt", "with a command\n");
                    w.write("drystone.toml", &w.read("drystone.toml").replace("cp own.txt", "cat own.txt own.txt >"));
                },
                &["//:loner"],
            ),
            (
                "a source that is gone and one that changed",
                |w| {
                    fs::remove_file(at(w, "src/b.txt")).expect("removed");
                    w.write("own.txt", "with one less\n");
                },
                &["//:gen", "//:app", "//:loner"],
            ),
        ],
    );
    if std::env::var_os("DRYSTONE_ANEW").is_none() {
        let leases = fs::read_dir(pair.kept.store().join("locks/leases")).expect("a directory").count();
        assert_eq!(leases, 0, "every store that was opened was left");
    }
}

#[test]
fn whatever_happens_to_outputs_is_put_right() {
    let pair = Pair::new(MANIFEST);
    pair.run("first", &["//..."], 0);
    pair.settle("first");
    let before = pair.kept.snapshot();
    let changes: [Harm; 9] = [
        ("edited", |w| w.write("dist/all", "x\n")),
        ("edited to the same size", |w| w.write("app.out", &"x".repeat(w.read("app.out").len()))),
        ("gone", |w| fs::remove_file(at(w, "lib.out")).expect("removed")),
        ("gone with its directory", |w| fs::remove_dir_all(at(w, "dist")).expect("removed")),
        ("one more in the directory", |w| w.write("dist/more", "x\n")),
        ("a directory more", |w| fs::create_dir(at(w, "dist/sub")).expect("made")),
        ("a link", |w| {
            fs::rename(at(w, "loner.out"), w.beside("aside")).expect("renamed");
            symlink("../aside", at(w, "loner.out")).expect("linked");
        }),
        ("executable", |w| {
            fs::set_permissions(at(w, "loner.out"), fs::Permissions::from_mode(0o755)).expect("set");
        }),
        ("made again with the same content", |w| {
            let text = w.read("loner.out");
            fs::remove_file(at(w, "loner.out")).expect("removed");
            w.write("loner.out", &text);
        }),
    ];
    for (what, change) in changes {
        pair.change(&change);
        let events = pair.run(what, &["//..."], 0);
        assert!(events.with("ran").is_empty(), "{what}: {:?}", events.with("ran"));
        assert_eq!(pair.kept.snapshot(), before, "{what}");
        pair.settle(what);
    }
    // An output and a source at once.
    for w in pair.both() {
        w.write("lib.out", "x\n");
        w.write("src/a.txt", "again\n");
    }
    assert_eq!(pair.run("both", &["//..."], 0).with("ran"), set(&["//:gen", "//:app"]));
}

#[test]
fn whatever_changes_around_the_workspace_is_seen() {
    let mut pair = Pair::new(
        &MANIFEST
            .replace("[task.loner]", "[task.loner]\ntools = [\"own-tool\"]")
            .replace("cp own.txt", "own-tool own.txt"),
    );
    for w in pair.both() {
        for (dir, text) in [("bin", "exec cp \"$@\""), ("other", "exec cat \"$1\" \"$1\" > \"$2\"")] {
            fs::create_dir(w.beside(dir)).expect("made");
            let tool = w.beside(dir).join("own-tool");
            fs::write(&tool, format!("#!/bin/sh\n{text}\n")).expect("written");
            fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("set");
        }
    }
    let path = std::env::var("PATH").expect("tests have a PATH");
    let with = |pair: &mut Pair, dirs: &[&str]| {
        for w in [&mut pair.kept, &mut pair.anew] {
            let dirs: Vec<String> = dirs.iter().map(|dir| w.beside(dir).display().to_string()).collect();
            let all = format!("{}:{path}", dirs.join(":"));
            w.set("PATH", &all);
        }
    };
    with(&mut pair, &["bin", "other"]);
    pair.run("first", &["//..."], 0);
    pair.settle("first");
    pair.set("MODE", "fast");
    assert_eq!(pair.run("a variable", &["//..."], 0).with("ran"), set(&["//:app"]));
    pair.settle("a variable");
    pair.set("UNASKED", "x");
    assert!(pair.run("a variable that no task takes", &["//..."], 0).with("ran").is_empty());
    with(&mut pair, &["other", "bin"]);
    assert_eq!(pair.run("another tool is first", &["//..."], 0).with("ran"), set(&["//:loner"]));
    assert_eq!(pair.kept.read("loner.out"), "own\nown\n");
    pair.settle("another tool is first");
    for w in pair.both() {
        let tool = w.beside("other/own-tool");
        fs::write(&tool, "#!/bin/sh\ncp \"$1\" \"$2\"; echo edited >> \"$2\"\n").expect("written");
    }
    assert_eq!(pair.run("the tool was edited", &["//..."], 0).with("ran"), set(&["//:loner"]));
    assert_eq!(pair.kept.read("loner.out"), "own\nedited\n");
    pair.settle("the tool was edited");
    pair.change(&|w| fs::remove_file(w.beside("other/own-tool")).expect("removed"));
    pair.run("the tool is gone", &["//..."], 0);
    assert_eq!(pair.kept.read("loner.out"), "own\n");
}

#[test]
fn what_failed_does_not_stand_and_what_needed_it_neither() {
    let pair = Pair::new(&MANIFEST.replace("mkdir -p dist;", "! grep -q fail src/a.txt || exit 3; mkdir -p dist;"));
    pair.run("first", &["//..."], 0);
    pair.settle("first");
    for args in [&["//..."][..], &["-k", "//..."]] {
        for w in pair.both() {
            w.write("src/a.txt", "fail\n");
            w.write("own.txt", "new\n");
        }
        // In which order tasks were started must not matter here: with `-k` all that can run does.
        for _ in 0..3 {
            for w in pair.both() {
                let events = w.events_with(args, 1);
                assert_eq!(events.with("failed"), set(&["//:gen"]), "{args:?}");
                assert!(!events.with("hit").contains("//:app"), "{args:?}: {:?}", events.with("hit"));
            }
        }
        pair.change(&|w| w.write("src/a.txt", "a\n"));
        let events = pair.kept.events(&["//..."]);
        assert!(events.with("hit").contains("//:gen"), "{args:?}: what it made before is known");
        pair.anew.events(&["//..."]);
        pair.settle("as before");
        pair.change(&|w| w.write("own.txt", "own\n"));
        pair.run("as before", &["//..."], 0);
        pair.settle("as before");
    }
}

#[test]
fn requests_do_not_take_each_others_word() {
    let pair = Pair::new(MANIFEST);
    for round in 0..3 {
        for request in [&[":gen"][..], &["//..."], &[":app", ":loner"], &["//...", "--isolation=none"]] {
            for w in pair.both() {
                w.write("src/a.txt", &format!("{round} {request:?}\n"));
            }
            assert!(pair.run("edited", request, 0).with("ran").contains("//:gen"));
            assert!(pair.run("again", request, 0).with("ran").is_empty());
        }
        // What the others keep is of files that have changed since.
        for request in [&[":gen"][..], &["//..."], &[":app", ":loner"]] {
            pair.run("one of the others", request, 0);
            assert!(pair.kept.read("dist/all").contains("isolation=none"));
        }
    }
}

#[test]
fn damage_to_what_is_kept_costs_a_look_up() {
    let pair = Pair::new(MANIFEST);
    pair.run("first", &["//..."], 0);
    pair.settle("first");
    // A run after an edit keeps what came of it beside the rest.
    pair.change(&|w| w.write("own.txt", "two\n"));
    pair.run("edited", &["//..."], 0);
    pair.settle("edited");
    let good: Vec<(PathBuf, Vec<u8>)> =
        files(&pair.kept).into_iter().map(|file| (file.clone(), fs::read(file).expect("readable"))).collect();
    assert!(good.iter().any(|(file, _)| file.extension().is_some()), "nothing was appended: {good:?}");
    for (file, bytes) in &good {
        for part in 0..8 {
            let place = bytes.len() * part / 8;
            let mut flipped = bytes.clone();
            flipped[place] ^= 0x10;
            for bad in [flipped, bytes[..place].to_vec()] {
                for (file, bytes) in &good {
                    fs::write(file, bytes).expect("writable");
                }
                fs::write(file, bad).expect("writable");
                let events = pair.kept.events(&["//..."]);
                assert_eq!(events.with("hit").len(), 4, "{} {place}", file.display());
                // And it hides no change.
                pair.kept.write("own.txt", &format!("{part}\n"));
                pair.kept.events(&["//..."]);
                assert_eq!(pair.kept.read("loner.out"), format!("{part}\n"));
                pair.kept.write("own.txt", "two\n");
                pair.kept.events(&["//..."]);
                assert_eq!(pair.kept.read("loner.out"), "two\n");
            }
        }
    }
}

#[test]
fn a_change_within_a_tick_of_the_run_is_seen() {
    let pair = Pair::new(MANIFEST);
    pair.run("first", &["//..."], 0);
    for round in 0..15 {
        for w in pair.both() {
            w.write("own.txt", &format!("{round:03}\n"));
        }
        pair.run("edited", &["//..."], 0);
        assert_eq!(pair.kept.read("loner.out"), format!("{round:03}\n"));
    }
}

/// What was said, but for how long ago something was.
fn timeless(said: &str) -> String {
    said.lines().filter(|line| !line.starts_with("last:")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn plan_and_explain_say_what_they_say_when_all_is_loaded() {
    let mut workspace = Pair::new(MANIFEST).kept;
    let changes: [Harm; 6] = [
        ("all stands", |_| ()),
        ("a source was edited", |w| w.write("src/a.txt", "aa\n")),
        ("a remark", |w| w.write("src/a.txt", "a#\n")),
        ("an output is gone", |w| fs::remove_file(at(w, "lib.out")).expect("removed")),
        ("a file more", |w| w.write("lib/more", "x\n")),
        ("another command", |w| {
            w.write("drystone.toml", &w.read("drystone.toml").replace("cp own", "cat own.txt > loner.out; : own"))
        }),
    ];
    for (what, change) in changes {
        workspace.events(&["//..."]);
        workspace.events(&["//..."]);
        change(&workspace);
        let questions: [&[&str]; 5] = [
            &["plan", "//..."],
            &["plan", "//...", "--format=json"],
            &["explain", ":app"],
            &["explain", ":loner"],
            &["explain", ":gen"],
        ];
        for args in questions {
            let kept = timeless(&workspace.run(args).expect(0).stdout);
            workspace.set("DRYSTONE_ANEW", "1");
            let anew = timeless(&workspace.run(args).expect(0).stdout);
            workspace.set("DRYSTONE_ANEW", "");
            assert_eq!(kept, anew, "{what}: {args:?}");
        }
    }
}
