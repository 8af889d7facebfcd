//! `inputs = "traced"`: what a task touches is its key, and nothing else is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::{Events, TestWorkspace, set};

pub fn traced(script: &str) -> TestWorkspace {
    let manifest = format!("[task.t]\nrun = '''{script}'''\ninputs = \"traced\"\noutputs = [\"out.txt\"]\n");
    let workspace = TestWorkspace::empty();
    workspace.write("drystone.toml", "[workspace]\nname = \"test\"\n");
    workspace.write("app/drystone.toml", &manifest);
    workspace.write("app/src/a.txt", "alpha\n");
    workspace.write("app/src/b.txt", "beta\n");
    workspace.write("lib/deep/c.txt", "gamma\n");
    workspace.write("lib/other.txt", "other\n");
    workspace.write(".gitignore", "ignored*\n");
    workspace
}

#[track_caller]
pub fn runs(workspace: &TestWorkspace, why: &[&str]) -> Events {
    let events = workspace.events(&["//app:t"]);
    assert_eq!(events.with("ran"), set(&["//app:t"]), "{:#?}", events.of("//app:t"));
    assert_eq!(events.why("//app:t"), why);
    events
}

#[track_caller]
pub fn hits(workspace: &TestWorkspace) {
    let events = workspace.events(&["//app:t"]);
    assert_eq!(events.with("hit"), set(&["//app:t"]), "{:?}", events.why("//app:t"));
}

#[test]
fn what_was_read_reruns_and_what_was_not_hits() {
    let workspace = traced("cat src/a.txt ../lib/deep/c.txt > out.txt");
    runs(&workspace, &["first-run  "]);
    assert_eq!(workspace.read("app/out.txt"), "alpha\ngamma\n");
    hits(&workspace);
    workspace.write("app/src/b.txt", "changed\n");
    workspace.write("lib/other.txt", "changed\n");
    workspace.write("new/file.txt", "new\n");
    workspace.write("app/src/new.txt", "new\n");
    hits(&workspace);
    workspace.write("app/src/a.txt", "changed\n");
    runs(&workspace, &["input app/src/a.txt changed"]);
    assert_eq!(workspace.read("app/out.txt"), "changed\ngamma\n");
    hits(&workspace);
    workspace.write("app/src/a.txt", "alpha\n");
    hits(&workspace);
    assert_eq!(workspace.read("app/out.txt"), "alpha\ngamma\n");
    fs::remove_file(workspace.root().join("lib/deep/c.txt")).expect("it is there");
    let events = workspace.events_with(&["//app:t"], 1);
    assert_eq!(events.why("//app:t"), ["input lib/deep/c.txt removed"]);
}

#[test]
fn a_file_that_was_looked_for_and_missed_reruns_once_it_is_there() {
    let workspace = traced("if test -e src/config; then cat src/config; else echo none; fi > out.txt");
    runs(&workspace, &["first-run  "]);
    workspace.write("app/src/config2", "");
    hits(&workspace);
    workspace.write("app/src/config", "here\n");
    runs(&workspace, &["input app/src/config added"]);
    assert_eq!(workspace.read("app/out.txt"), "here\n");
    fs::remove_file(workspace.root().join("app/src/config")).expect("it is there");
    hits(&workspace);
    assert_eq!(workspace.read("app/out.txt"), "none\n");
    // What git ignores is not there for it either.
    workspace.write(".gitignore", "ignored*\nconfig\n");
    workspace.write("app/src/config", "ignored\n");
    hits(&workspace);
}

#[test]
fn a_directory_that_was_listed_reruns_with_every_name_that_comes_or_goes() {
    for dir in ["src", "../lib"] {
        let workspace = traced(&format!("ls {dir} > out.txt"));
        runs(&workspace, &["first-run  "]);
        workspace.write("app/src/a.txt", "changed\n");
        workspace.write("lib/deep/new.txt", "not in it itself\n");
        hits(&workspace);
        let inside = if dir == "src" { "app/src" } else { "lib" };
        workspace.write(&format!("{inside}/zeta.txt"), "");
        runs(&workspace, &[&format!("input {inside} `zeta.txt` is new in it")]);
        assert!(workspace.read("app/out.txt").contains("zeta.txt"));
        fs::remove_file(workspace.root().join(inside).join("zeta.txt")).expect("it is there");
        hits(&workspace);
        assert!(!workspace.read("app/out.txt").contains("zeta.txt"));
    }
}

#[test]
fn what_is_read_on_a_condition_counts_where_it_was_read() {
    let workspace = traced("if grep -q alpha src/a.txt; then cat src/b.txt; else cat ../lib/other.txt; fi > out.txt");
    runs(&workspace, &["first-run  "]);
    workspace.write("lib/other.txt", "second\n");
    hits(&workspace);
    workspace.write("app/src/a.txt", "else\n");
    runs(&workspace, &["input app/src/a.txt changed"]);
    workspace.write("app/src/b.txt", "changed\n");
    hits(&workspace);
    workspace.write("lib/other.txt", "third\n");
    runs(&workspace, &["input lib/other.txt changed"]);
    workspace.write("app/src/a.txt", "alpha\n");
    // Of two states that are as near, the newest tells.
    runs(&workspace, &["input app/src/a.txt changed"]);
    workspace.write("app/src/b.txt", "beta\n");
    hits(&workspace);
    assert_eq!(workspace.read("app/out.txt"), "beta\n");
}

#[test]
fn kinds_modes_sizes_renames_and_targets_are_seen() {
    let workspace = traced(
        "test -x src/run && ./src/run > out.txt; readlink src/link >> out.txt; cat src/link >> out.txt; test -s src/size",
    );
    let link = |target: &str| {
        drop(fs::remove_file(workspace.root().join("app/src/link")));
        std::os::unix::fs::symlink(target, workspace.root().join("app/src/link")).expect("a link");
    };
    let mode = |mode: u32| {
        let path = workspace.root().join("app/src/run");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    workspace.write("app/src/run", "#!/bin/sh\necho ran\n");
    mode(0o755);
    workspace.write("app/src/size", "12345");
    link("a.txt");
    runs(&workspace, &["first-run  "]);
    assert_eq!(workspace.read("app/out.txt"), "ran\na.txt\nalpha\n");
    workspace.write("app/src/size", "54321");
    hits(&workspace);
    workspace.write("app/src/size", "longer");
    runs(&workspace, &["input app/src/size changed"]);
    link("b.txt");
    runs(&workspace, &["input app/src/link links to \"b.txt\", before to \"a.txt\""]);
    assert_eq!(workspace.read("app/out.txt"), "ran\nb.txt\nbeta\n");
    link("a.txt");
    hits(&workspace);
    mode(0o644);
    runs(&workspace, &["input app/src/run is no longer executable"]);
    mode(0o755);
    hits(&workspace);
    fs::rename(workspace.root().join("app/src/a.txt"), workspace.root().join("app/src/z.txt")).expect("it moves");
    let events = workspace.events_with(&["//app:t"], 1);
    assert_eq!(events.why("//app:t"), ["input app/src/a.txt removed"]);
    fs::rename(workspace.root().join("app/src/z.txt"), workspace.root().join("app/src/a.txt")).expect("it moves");
    hits(&workspace);
}

#[test]
fn outputs_of_what_it_needs_count_as_far_as_they_are_read() {
    let workspace = TestWorkspace::new(
        "[task.gen]\nrun = \"mkdir gen; cp seed gen/used; cp seed2 gen/unused\"\ninputs = [\"seed*\"]\noutputs = [\"gen/**\"]\n\
         [task.hidden]\nrun = \"echo hidden > made.txt\"\ninputs = []\noutputs = [\"made.txt\"]\n\
         [task.t]\nrun = \"cat gen/used > out.txt; ls >> out.txt\"\ninputs = \"traced\"\noutputs = [\"out.txt\"]\nneeds = [\":gen\"]\n",
    );
    workspace.write("seed", "one\n");
    workspace.write("seed2", "one\n");
    workspace.events(&["hidden"]);
    workspace.events(&["t"]);
    assert_eq!(workspace.read("out.txt"), "one\ndrystone.toml\ngen\nout.txt\nseed\nseed2\n");
    workspace.write("seed2", "two\n");
    let events = workspace.events(&["t"]);
    assert_eq!((events.with("ran"), events.with("hit")), (set(&["//:gen"]), set(&["//:t"])));
    workspace.write("seed", "two\n");
    let events = workspace.events(&["t"]);
    assert_eq!(events.with("ran"), set(&["//:gen", "//:t"]));
    assert_eq!(events.why("//:t"), ["input gen/used changed"]);
}

#[test]
fn a_changed_source_reruns_only_the_parts_that_read_it() {
    let workspace = TestWorkspace::new(
        "[task.t]\nrun = \"cat $(cat ${items}); ls tests\"\ninputs = \"traced\"\nsplit = { items = \"tests/*\", per-action = 1 }\n",
    );
    for name in ["a", "b"] {
        workspace.write(&format!("tests/{name}"), &format!("src/{name}\n"));
        workspace.write(&format!("src/{name}"), name);
    }
    let (a, b) = ("//:t[items=tests/a]", "//:t[items=tests/b]");
    assert_eq!(workspace.events(&["t"]).with("ran"), set(&[a, b]));
    workspace.write("src/a", "changed");
    let events = workspace.events(&["t"]);
    assert_eq!((events.with("ran"), events.with("hit")), (set(&[a]), set(&[b])));
    workspace.write("tests/b", "src/a\n");
    let events = workspace.events(&["t"]);
    assert_eq!((events.with("ran"), events.with("hit")), (set(&[b]), set(&[a])));
    workspace.write("tests/c", "src/b\n");
    let events = workspace.events(&["t"]);
    assert_eq!((events.with("ran"), events.with("hit")), (set(&["//:t[items=tests/c]"]), set(&[a, b])));
}

#[test]
fn own_outputs_caches_and_scratch_are_no_inputs() {
    let workspace = TestWorkspace::new(
        "[task.t]\nrun = \"test -e out.txt || :; cat keep/x 2>/dev/null || :; echo x > keep/x; mkdir tmp; echo $$ > tmp/y; cat tmp/y; test ! -e other/log/old; echo x > other/log/new; cat src > out.txt\"\n\
         inputs = \"traced\"\noutputs = [\"out.txt\"]\ncaches = [\"keep\"]\nscratch = [\"tmp/**\", \"//other/log/**\"]\n",
    );
    workspace.write("other/log/old", "never shown");
    workspace.write("other/file", "");
    workspace.write("src", "1\n");
    assert_eq!(workspace.events(&["t"]).with("ran"), set(&["//:t"]));
    assert_eq!(workspace.events(&["t"]).with("hit"), set(&["//:t"]));
    let explained = workspace.run(&["explain", "//:t", "--format", "json"]).expect(0).stdout;
    assert!(explained.contains("\"traced\""), "{explained}");
}

#[test]
fn the_workspace_cannot_be_changed() {
    let workspace = traced("echo x > ../lib/other.txt || echo x > ../lib/new.txt || echo kept > out.txt");
    let before = workspace.snapshot();
    runs(&workspace, &["first-run  "]);
    assert_eq!(workspace.read("app/out.txt"), "kept\n");
    fs::remove_file(workspace.root().join("app/out.txt")).expect("it is there");
    assert_eq!(workspace.snapshot(), before);
}

#[test]
fn what_was_not_seen_in_full_is_shown_and_not_kept() {
    let workspace = traced("cat src/a.txt > out.txt; cat \"$(printf 'x\\377')\" || :");
    for _ in 0..2 {
        let events = runs(&workspace, &["first-run  "]);
        let note = events.of("//app:t")["notes"][0]["message"].as_str().expect("a note").to_owned();
        assert!(note.contains("not all that it touched was seen") && note.contains("is not kept"), "{note}");
        assert_eq!(workspace.read("app/out.txt"), "alpha\n");
    }
}

/// Finds a file by its name.
fn found(dir: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(dir).ok()?.flatten().find_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => found(&entry.path(), name),
        _ => (entry.file_name() == name).then(|| entry.path()),
    })
}

#[test]
fn what_changes_while_it_runs_is_shown_and_not_kept() {
    let change_by = |script: &str, change: &dyn Fn(&TestWorkspace)| {
        let workspace =
            traced(&format!("{script} > out.txt; echo > keep/begun; while ! test -e keep/go; do :; done; rm keep/*"));
        workspace.write("app/drystone.toml", &(workspace.read("app/drystone.toml") + "caches = [\"keep\"]\n"));
        let mut started = workspace.command(&["run", "//app:t"]).stderr(Stdio::piped()).spawn().expect("it starts");
        let begun = loop {
            // The cache lies in the store: there the command says that it has read, and waits.
            if let Some(begun) = found(&workspace.store(), "begun") {
                break begun;
            }
            assert_eq!(started.try_wait().expect("it can be asked"), None, "it ended by itself");
            std::thread::yield_now();
        };
        change(&workspace);
        fs::write(begun.with_file_name("go"), "").expect("a file");
        let output = started.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    let change =
        |path: &str, script: &str| change_by(script, &|workspace| workspace.write(path, "changed meanwhile\n"));
    assert!(change("app/src/a.txt", "cat src/a.txt").contains("`app/src/a.txt` changed while it ran"));
    assert!(change("lib/deep/c.txt", "cat ../lib/deep/c.txt").contains("`lib/deep/c.txt` changed while it ran"));
    assert!(change("lib/deep/new.txt", "ls ../lib/deep").contains("`lib/deep` changed while it ran"));
    assert!(
        change("lib/deep/new.txt", "test -e ../lib/deep/new.txt || :")
            .contains("`lib/deep/new.txt` changed while it ran")
    );
    assert!(!change("lib/other.txt", "cat ../lib/deep/c.txt").contains("changed while it ran"));
    // What came and went again is not there to be compared.
    let passing = |workspace: &TestWorkspace| {
        workspace.write("lib/deep/new.txt", "");
        fs::remove_file(workspace.root().join("lib/deep/new.txt")).expect("it is there");
    };
    assert!(change_by("ls ../lib/deep", &passing).contains("`lib/deep` changed while it ran"));
    let script =
        "echo > keep/begun; while ! test -e ../lib/deep/new.txt; do :; done; cat ../lib/deep/new.txt; echo > keep/read";
    let passing = |workspace: &TestWorkspace| {
        workspace.write("lib/deep/new.txt", "");
        while found(&workspace.store(), "read").is_none() {
            std::thread::yield_now();
        }
        fs::remove_file(workspace.root().join("lib/deep/new.txt")).expect("it is there");
    };
    assert!(change_by(script, &passing).contains("`lib/deep/new.txt` changed while it ran"));
}

#[test]
fn affected_goes_by_what_was_touched() {
    let workspace = traced("cat src/a.txt > out.txt; test -e src/none || :; ls ../lib >/dev/null");
    workspace.git(&["init", "-q"]);
    workspace.git(&["add", "."]);
    workspace.git(&["commit", "-qm", "one"]);
    let affected = || workspace.run(&["affected", "HEAD"]).expect(0).stdout;
    workspace.write("app/src/b.txt", "changed\n");
    assert!(affected().contains("//app:t"), "nothing is known of it");
    workspace.write("app/src/b.txt", "beta\n");
    workspace.events(&["//app:t"]);
    let check = |path: &str, text: &str, expect: bool| {
        let before = workspace.has(path).then(|| workspace.read(path));
        workspace.write(path, text);
        assert_eq!(affected().contains("//app:t"), expect, "{path}");
        match before {
            Some(before) => workspace.write(path, &before),
            None => fs::remove_file(workspace.root().join(path)).expect("it was made"),
        }
    };
    check("app/src/a.txt", "changed\n", true);
    check("app/src/b.txt", "changed\n", false);
    check("app/src/none", "", true);
    check("app/src/new", "", false);
    check("lib/new", "", true);
    check("lib/other.txt", "changed\n", false);
    check("lib/deep/new", "", false);
    check("elsewhere", "", false);
}

#[test]
fn at_a_level_that_cannot_observe_it_is_refused() {
    let workspace = traced("true");
    let ran = workspace.run(&["run", "--isolation", "none", "//app:t"]).expect(2);
    assert!(ran.stderr.contains("cannot be traced at the `none` level"), "{}", ran.stderr);
}

#[test]
fn a_static_program_is_traced() {
    let workspace = traced("./read > out.txt");
    let source = workspace.beside("read.c");
    let text = "#include <fcntl.h>\n#include <unistd.h>\nint main(void) { char b[64]; int f = open(\"src/a.txt\", O_RDONLY);\n\
                return write(1, b, read(f, b, sizeof b)) < 0; }\n";
    fs::write(&source, text).expect("a file");
    let program = workspace.root().join("app/read");
    let built = std::process::Command::new("cc").args(["-static", "-o"]).arg(&program).arg(&source).status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("NOT TESTED: `cc -static` does not work here");
        return;
    }
    runs(&workspace, &["first-run  "]);
    workspace.write("app/src/b.txt", "changed\n");
    hits(&workspace);
    workspace.write("app/src/a.txt", "changed\n");
    runs(&workspace, &["input app/src/a.txt changed"]);
    assert_eq!(workspace.read("app/out.txt"), "changed\n");
}
