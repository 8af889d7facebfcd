//! What stood when the last run ended is a hit without a look into the store, and only as long as all of it is as it was.

use std::fs;
use std::path::PathBuf;

use crate::support::{Events, TestWorkspace, set};

/// One makes a directory and a file beside it, the other reads them.
const TWO: &str = "[task.make]\nrun = \"mkdir -p dist; cat in.txt > dist/a; echo made > file; echo said; echo again >&2\"\n\
                   inputs = [\"in.txt\"]\noutputs = [\"dist/**\", \"file\"]\n\n\
                   [task.use]\nrun = \"cat dist/a file extra.txt > used\"\ninputs = [\"extra.txt\"]\noutputs = [\"used\"]\n\
                   needs = [\":make\"]\n";

/// After three runs: the first made everything, the second found it in place, the third needed nothing but that.
fn standing(manifest: &str) -> TestWorkspace {
    let workspace = TestWorkspace::new(manifest);
    workspace.write("in.txt", "one\n");
    workspace.write("extra.txt", "extra\n");
    workspace.events(&[]);
    workspace.events(&[]);
    workspace
}

/// The file in which it is kept what stood.
fn file(workspace: &TestWorkspace) -> PathBuf {
    let dirs = fs::read_dir(workspace.store().join("workspaces")).expect("a store");
    let mut found = dirs.map(|dir| dir.expect("readable").path().join("standing")).filter(|file| file.exists());
    found.next().expect("something stands")
}

/// Runs with a store that cannot be used: bytes of the database that mean nothing, in a file that is still the same one.
#[track_caller]
fn blindly(workspace: &TestWorkspace) -> Events {
    let database = workspace.store().join("store.db");
    let good = fs::read(&database).expect("a database");
    fs::write(&database, vec![0x5a; good.len()]).expect("writable");
    let events = workspace.events(&[]);
    assert_eq!(fs::read(&database).expect("it was left alone"), vec![0x5a; good.len()], "the database was opened");
    fs::write(&database, good).expect("writable");
    events
}

#[track_caller]
fn hits(events: &Events, labels: &[&str]) {
    assert_eq!((events.with("hit"), events.with("ran")), (set(labels), set(&[])), "{:#}", events.summary());
}

#[test]
fn a_run_in_which_all_stands_opens_no_database_and_tells_the_same() {
    let workspace = standing(TWO);
    let looked_up = workspace.events(&["--output=all"]);
    let recalled = blindly(&workspace);
    hits(&recalled, &["//:make", "//:use"]);
    for label in ["//:make", "//:use"] {
        for field in ["action", "outputs", "isolation", "source", "saved_ms", "materialized", "notes"] {
            assert_eq!(recalled.of(label)[field], looked_up.of(label)[field], "{label} {field}");
        }
    }
    let text = workspace.run(&["run", "--output=all"]).expect(0).stderr;
    assert!(text.contains("said") && text.contains("again"), "{text}");
}

#[test]
fn whatever_changed_in_the_inputs_is_seen() {
    let workspace = standing(TWO);
    workspace.write("in.txt", "two\n");
    assert_eq!(workspace.events(&[]).with("ran"), set(&["//:make", "//:use"]));
    assert_eq!(workspace.read("used"), "two\nmade\nextra\n");
    workspace.events(&[]);
    workspace.write("in.txt", "one\n");
    hits(&workspace.events(&[]), &["//:make", "//:use"]);
    assert_eq!(workspace.read("used"), "one\nmade\nextra\n");
    workspace.events(&[]);
    workspace.shell("chmod +x in.txt").status().expect("chmod starts");
    // What it makes stays the same.
    let events = workspace.events(&[]);
    assert_eq!((events.with("ran"), events.with("hit")), (set(&["//:make"]), set(&["//:use"])));
    workspace.events(&[]);
    workspace.write("drystone.toml", &format!("[workspace]\nname = \"test\"\n\n{}", TWO.replace("made", "wrote")));
    assert_eq!(workspace.events(&[]).with("ran"), set(&["//:make", "//:use"]));
}

#[test]
fn a_variable_or_a_level_that_differs_is_another_key() {
    let manifest = "[task.make]\nrun = \"echo $${MODE-} > file\"\noutputs = [\"file\"]\npass-env = [\"MODE\"]\n";
    let mut workspace = standing(manifest);
    workspace.set("MODE", "fast");
    assert_eq!(workspace.events(&[]).with("ran"), set(&["//:make"]));
    assert_eq!(workspace.read("file"), "fast\n");
    workspace.events(&[]);
    hits(&blindly(&workspace), &["//:make"]);
    assert_eq!(workspace.events(&["--isolation", "none"]).with("ran"), set(&["//:make"]));
    hits(&workspace.events(&[]), &["//:make"]);
}

#[test]
fn outputs_that_someone_touched_are_made_right_again() {
    let workspace = standing(TWO);
    let before = workspace.snapshot();
    let check = |what: &str, change: &dyn Fn()| {
        workspace.events(&[]);
        change();
        assert_ne!(workspace.snapshot(), before, "{what}");
        hits(&workspace.events(&[]), &["//:make", "//:use"]);
        assert_eq!(workspace.snapshot(), before, "{what}");
    };
    let at = |path: &str| workspace.root().join(path);
    check("content", &|| workspace.write("dist/a", "other\n"));
    check("same size and time", &|| {
        let time = fs::metadata(at("dist/a")).and_then(|meta| meta.modified()).expect("a time");
        workspace.write("dist/a", "eno\n");
        fs::File::options().append(true).open(at("dist/a")).and_then(|file| file.set_modified(time)).expect("set");
    });
    check("one file more", &|| workspace.write("dist/more", ""));
    check("an empty directory more", &|| fs::create_dir(at("dist/empty")).expect("made"));
    check("one file less", &|| fs::remove_file(at("dist/a")).expect("removed"));
    check("all of it", &|| fs::remove_dir_all(at("dist")).expect("removed"));
    check("the executable bit", &|| drop(workspace.shell("chmod +x file").status()));
    check("a link", &|| drop(workspace.shell("mv file ../file; ln -s ../file file").status()));
}

#[test]
fn of_a_wildcard_only_what_the_task_made_has_to_stand() {
    let workspace = standing("[task.gen]\nrun = \"echo g > g.out\"\noutputs = [\"*.out\"]\n");
    workspace.write("mine.out", "mine");
    hits(&blindly(&workspace), &["//:gen"]);
    workspace.write("g.out", "x\n");
    hits(&workspace.events(&[]), &["//:gen"]);
    assert_eq!((workspace.read("g.out"), workspace.read("mine.out")), ("g\n".into(), "mine".into()));
}

#[test]
fn tasks_that_use_a_service_or_traced_outputs_stand_and_see_what_changed_there() {
    let workspace = standing(
        "[service.s]\nrun = \"echo up; exec tail -f in.txt\"\ninputs = [\"in.txt\"]\nready = { log = \"up\" }\n\n\
         [task.traced]\nrun = \"cat extra.txt > seen\"\ninputs = \"traced\"\noutputs = [\"seen\"]\n\n\
         [task.use]\nrun = \"cat seen > used\"\ninputs = []\noutputs = [\"used\"]\nneeds = [\":traced\"]\nservices = [\":s\"]\n",
    );
    hits(&workspace.events(&["traced", "use"]), &["//:traced", "//:use"]);
    workspace.write("extra.txt", "new\n");
    assert_eq!(workspace.events(&["traced", "use"]).with("ran"), set(&["//:traced", "//:use"]));
    assert_eq!(workspace.read("used"), "new\n");
    workspace.events(&["traced", "use"]);
    workspace.write("in.txt", "another\n");
    assert_eq!(workspace.events(&["use"]).with("ran"), set(&["//:use"]));
}

#[test]
fn a_file_that_changed_within_a_tick_of_the_run_is_seen() {
    let workspace = standing(TWO);
    for round in 0..20 {
        workspace.write("in.txt", &format!("{round:03}\n"));
        workspace.events(&[]);
        workspace.write("dist/a", &format!("{:03}\n", round + 500));
        workspace.events(&[]);
        assert_eq!(workspace.read("dist/a"), format!("{round:03}\n"));
    }
}

#[test]
fn what_the_store_no_longer_has_does_not_stand() {
    let check = |what: &str, lose: &dyn Fn(&TestWorkspace)| {
        let workspace = standing(TWO);
        hits(&workspace.events(&[]), &["//:make", "//:use"]);
        lose(&workspace);
        let plan = workspace.run(&["plan"]).expect(0).stdout;
        assert!(plan.contains("run  //:make"), "{what}: {plan}");
        assert_eq!(workspace.events(&[]).with("ran"), set(&["//:make", "//:use"]), "{what}");
        workspace.run(&["logs", "//:make"]).expect(0);
    };
    check("collected", &|workspace| drop(workspace.run(&["store", "gc", "--max-size", "0"]).expect(0)));
    check("set aside", &|workspace| {
        fs::write(workspace.store().join("store.db"), b"no database at all").expect("writable");
        for name in ["store.db-wal", "store.db-shm"] {
            drop(fs::remove_file(workspace.store().join(name)));
        }
        workspace.run(&["store", "stat"]).expect(0);
    });
    check("removed", &|workspace| {
        for name in ["store.db", "store.db-wal", "store.db-shm"] {
            drop(fs::remove_file(workspace.store().join(name)));
        }
    });
}

#[test]
fn what_was_repaired_away_does_not_stand() {
    let manifest = "[task.make]\nrun = \"seq 1 20000 > file\"\noutputs = [\"file\"]\n";
    let workspace = standing(manifest);
    hits(&workspace.events(&[]), &["//:make"]);
    let blobs = workspace.shell("find \"$DRYSTONE_STORE/blobs\" -type f").output().expect("find starts").stdout;
    let blobs = String::from_utf8(blobs).expect("paths");
    assert!(!blobs.is_empty());
    for blob in blobs.lines() {
        fs::remove_file(blob).expect("a blob");
    }
    workspace.run(&["store", "verify", "--repair"]);
    assert_eq!(workspace.events(&[]).with("ran"), set(&["//:make"]));
}

#[test]
fn dependents_are_served_though_somebody_took_the_blobs_away() {
    let manifest = TWO.replace("cat in.txt > dist/a", "seq 1 20000 > dist/a");
    let workspace = standing(&manifest);
    hits(&workspace.events(&[]), &["//:make", "//:use"]);
    workspace.shell("find \"$DRYSTONE_STORE/blobs\" -type f -delete").status().expect("find starts");
    workspace.write("extra.txt", "new\n");
    let events = workspace.events(&[]);
    assert_eq!((events.with("ran"), events.with("hit")), (set(&["//:use"]), set(&["//:make"])));
    assert!(workspace.read("used").ends_with("20000\nmade\nnew\n"));
    // From the tree it was put back, and is served to a tree that has lost it.
    workspace.events(&[]);
    fs::remove_dir_all(workspace.root().join("dist")).expect("removed");
    workspace.events(&[]);
    assert!(workspace.read("dist/a").ends_with("20000\n"));
}

#[test]
fn a_result_that_is_recalled_counts_as_used_now_and_then() {
    let workspace = standing(TWO);
    let before = fs::read(file(&workspace)).expect("there");
    hits(&workspace.events(&[]), &["//:make", "//:use"]);
    assert_eq!(fs::read(file(&workspace)).expect("there"), before, "it is written only if something changed");
}

#[test]
fn a_damaged_or_foreign_record_costs_a_look_up() {
    // Nothing else that is kept answers instead.
    let mut workspace = standing(TWO);
    workspace.set("DRYSTONE_ANEW", "1");
    let file = file(&workspace);
    let good = fs::read(&file).expect("there");
    for damage in ["flip", "cut", "empty", "version"] {
        let mut bad = good.clone();
        match damage {
            "flip" => bad[good.len() / 2] ^= 1,
            "cut" => bad.truncate(good.len() / 2),
            "empty" => bad.clear(),
            _ => bad[20] ^= 1,
        }
        fs::write(&file, &bad).expect("writable");
        hits(&workspace.events(&[]), &["//:make", "//:use"]);
        assert_ne!(fs::read(&file).expect("there"), bad, "{damage}");
    }
    hits(&blindly(&workspace), &["//:make", "//:use"]);
}

#[test]
fn force_runs_what_stands_and_what_it_made_stands_afterwards() {
    let workspace = standing("[task.clock]\nrun = \"date +%s%N > file\"\noutputs = [\"file\"]\n");
    let first = workspace.read("file");
    hits(&workspace.events(&[]), &["//:clock"]);
    assert_eq!(workspace.events(&["--force"]).with("ran"), set(&["//:clock"]));
    assert_ne!(workspace.read("file"), first);
    // The first result of an action stays.
    hits(&workspace.events(&[]), &["//:clock"]);
    assert_eq!(workspace.read("file"), first);
}

#[test]
fn what_may_only_be_looked_up_is() {
    let workspace = TestWorkspace::new(
        "[task.uncached]\nrun = \"cat in.txt > never\"\ninputs = [\"in.txt\"]\noutputs = [\"never\"]\ncache = false\n\n\
         [task.committed]\nrun = \"cp in.txt kept.txt\"\ninputs = [\"in.txt\"]\noutputs = [\"kept.txt\"]\ncommitted = [\"kept.txt\"]\n",
    );
    workspace.write("in.txt", "one\n");
    workspace.write("kept.txt", "one\n");
    for _ in 0..3 {
        let events = workspace.events(&[]);
        assert!(events.with("ran").contains("//:uncached"));
    }
    workspace.write("kept.txt", "two\n");
    let events = workspace.events_with(&["committed"], 1);
    assert_eq!(events.with("failed"), set(&["//:committed"]));
}

#[test]
fn another_worktree_has_its_own() {
    let workspace = standing(TWO);
    hits(&workspace.events(&[]), &["//:make", "//:use"]);
    let other = workspace.beside("other");
    workspace.shell("cp -r . ../other && rm -r ../other/dist ../other/used ../other/file").status().expect("cp starts");
    let ran = workspace.command(&["run"]).current_dir(&other).output().expect("it starts");
    assert!(ran.status.success());
    assert_eq!(fs::read_to_string(other.join("used")).expect("made"), workspace.read("used"));
    hits(&blindly(&workspace), &["//:make", "//:use"]);
}

#[test]
fn plan_and_explain_agree_with_what_is_recalled() {
    let workspace = standing(TWO);
    let events = blindly(&workspace);
    let action = events.of("//:use")["action"].as_str().expect("a key").to_owned();
    let explained = workspace.run(&["explain", "//:use"]).expect(0).stdout;
    assert!(explained.contains("is up to date") && explained.contains(&action), "{explained}");
    assert!(workspace.run(&["plan"]).expect(0).stdout.contains("2 hit"));
}
