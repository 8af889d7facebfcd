//! Whose files are whose: nothing is removed or replaced but what the task itself made.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::support::{Ran, Running, TestWorkspace, set};

fn all(ran: &Ran) -> String {
    format!("{}{}", ran.stdout, ran.stderr)
}

fn commit_all(workspace: &TestWorkspace) {
    workspace.git(&["init", "-q"]);
    workspace.git(&["add", "-A"]);
    workspace.git(&["commit", "-qm", "first"]);
}

/// Rewrites the manifest of a workspace made by `TestWorkspace::new`.
fn remake(workspace: &TestWorkspace, manifest: &str) {
    workspace.write("drystone.toml", &format!("[workspace]\nname = \"test\"\n\n{manifest}"));
}

// --- After a failure -----------------------------------------------------------------------------------------------------

#[test]
fn what_a_failed_task_leaves_is_added_and_nothing_is_removed() {
    let workspace = TestWorkspace::new(
        "[task.test]\nrun = \"echo new > tests/snap/b.new; echo no > tests/snap/c.tmp; exit 1\"\ninputs = [\"tests/**\"]\non-failure = [\"tests/snap/**\", \"!**/*.tmp\"]\n",
    );
    workspace.write("tests/snap/a.snap", "precious");
    workspace.write("tests/snap/deep/untracked", "precious");
    let mut before = workspace.snapshot();
    workspace.events_with(&["test"], 1);
    assert_eq!(workspace.read("tests/snap/b.new"), "new\n");
    let mut after = workspace.snapshot();
    assert!(after.remove("tests/snap/b.new").is_some());
    before.retain(|path, _| after.contains_key(path));
    assert_eq!(after, before);
}

#[test]
fn what_a_failed_task_leaves_replaces_no_input_and_nothing_of_someone_else() {
    let workspace = TestWorkspace::new(
        "[task.test]\nrun = \"mkdir -p logs; for name in tracked mine own; do echo new > logs/$name; done; echo changed > in.txt || true; exit 1\"\ninputs = [\"in.txt\"]\non-failure = [\"logs/**\", \"in.txt\"]\n",
    );
    workspace.write("in.txt", "precious");
    workspace.write("logs/tracked", "precious");
    commit_all(&workspace);
    workspace.write("logs/mine", "precious");
    for isolation in ["namespaces", "none"] {
        let ran = workspace.run(&["run", "--isolation", isolation, "test"]).expect(1);
        for path in ["in.txt", "logs/tracked", "logs/mine"] {
            assert_eq!(workspace.read(path), "precious", "{path} at {isolation}");
        }
        let told = all(&ran);
        assert!(told.contains("tracked by git") && told.contains("`logs/mine`"), "{told}");
    }
    workspace.write("logs/own", "an older log");
    workspace.events_with(&["test"], 1);
    assert_eq!(workspace.read("logs/own"), "new\n");
}

#[test]
fn a_pipe_that_a_failed_task_leaves_does_not_hide_its_failure() {
    let workspace = TestWorkspace::new(
        "[task.test]\nrun = \"mkdir logs; mkfifo logs/pipe; exit 3\"\ninputs = []\non-failure = [\"logs/**\"]\n",
    );
    let ran = workspace.run(&["run", "test"]).expect(1);
    assert!(all(&ran).contains("exit code 3") && all(&ran).contains("logs/pipe"), "{}", all(&ran));
}

// --- Wildcards -----------------------------------------------------------------------------------------------------------

#[test]
fn a_wildcard_output_leaves_alone_what_its_task_did_not_make() {
    let workspace = TestWorkspace::new(
        "[task.make]\nrun = \"mkdir -p src; for name in $(cat names.txt); do echo made > src/$name; done\"\ninputs = [\"names.txt\"]\noutputs = [\"src/*.js\"]\n",
    );
    workspace.write("names.txt", "a.js b.js");
    workspace.write("src/hand.js", "by hand");
    workspace.events(&["make"]);
    assert_eq!(workspace.read("src/a.js"), "made\n");
    workspace.write("names.txt", "b.js");
    workspace.events(&["make"]);
    assert!(!workspace.has("src/a.js") && workspace.has("src/b.js"));
    assert_eq!(workspace.read("src/hand.js"), "by hand");
    let inode = |path: &str| fs::metadata(workspace.root().join(path)).expect("a file").ino();
    let before = inode("src/b.js");
    assert_eq!(workspace.events(&["make"]).with("hit"), set(&["//:make"]));
    assert_eq!(inode("src/b.js"), before, "what is right is not written again");
}

#[test]
fn a_made_file_that_a_person_changed_since_is_theirs_and_told_once() {
    let workspace = TestWorkspace::new(
        "[task.make]\nrun = \"mkdir -p src; for name in $(cat names.txt); do echo made > src/$name; done\"\ninputs = [\"names.txt\"]\noutputs = [\"src/*.js\"]\n",
    );
    workspace.write("names.txt", "a.js b.js");
    workspace.write("src/keep", "");
    workspace.events(&["make"]);
    workspace.write("names.txt", "b.js");
    workspace.write("src/a.js", "mine now");
    let told = all(&workspace.run(&["run", "make"]).expect(0));
    assert!(told.contains("`src/a.js`"), "{told}");
    assert_eq!(workspace.read("src/a.js"), "mine now");
    let told = all(&workspace.run(&["run", "make"]).expect(0));
    assert!(!told.contains("src/a.js"), "{told}");
    assert_eq!(workspace.read("src/a.js"), "mine now");
}

#[test]
fn a_wildcard_output_reaches_into_no_nested_package_and_no_repository() {
    let workspace = TestWorkspace::new(
        "[task.make]\nrun = \"mkdir -p inner .git; echo made > own.o; echo stray > inner/stray.o; echo stray > .git/stray.o\"\ninputs = []\noutputs = [\"**/*.o\"]\n",
    );
    workspace.write("inner/drystone.toml", "[task.x]\nrun = \"true\"\n");
    for path in ["inner/a.o", "node_modules/lib/a.o", "sub/a.o", ".git/a.o"] {
        workspace.write(path, "precious");
    }
    let before = workspace.snapshot();
    workspace.events(&["//:make"]);
    let mut after = workspace.snapshot();
    assert!(after.remove("own.o").is_some());
    assert_eq!(after, before);
    let again = workspace.events(&["//:make"]);
    assert_eq!(again.with("hit"), set(&["//:make"]));
}

#[test]
fn two_wildcards_that_overlap_leave_each_other_alone_and_one_path_has_one_maker() {
    let manifest = |made: &str| {
        format!(
            "[task.one]\nrun = \"mkdir -p out; echo 1 > out/{made}\"\ninputs = []\noutputs = [\"out/a*\"]\n[task.two]\nrun = \"mkdir -p out; echo 2 > out/b1\"\ninputs = []\noutputs = [\"out/*1\"]\n"
        )
    };
    let workspace = TestWorkspace::new(&manifest("a2"));
    for _ in 0..2 {
        workspace.events(&["one", "two"]);
        assert!(workspace.has("out/a2") && workspace.has("out/b1"));
    }
    remake(&workspace, &manifest("a1"));
    let told = all(&workspace.run(&["run", "one", "two"]).expect(1));
    assert!(told.contains("//:one") && told.contains("//:two") && told.contains("out/a1"), "{told}");
    assert!(!workspace.has("out/a1") && workspace.has("out/b1"));
}

#[test]
fn reports_of_two_tasks_share_a_directory() {
    let task = |name: &str, pattern: &str| {
        format!(
            "[task.{name}]\nrun = \"mkdir -p reports; echo {name} > reports/{name}.xml\"\ninputs = []\nreports = {{ junit = [\"{pattern}\"] }}\n"
        )
    };
    for pattern in ["reports/*.xml", "reports/**"] {
        let workspace = TestWorkspace::new(&format!("{}{}", task("one", pattern), task("two", pattern)));
        workspace.write("reports/hand.xml", "by hand");
        for _ in 0..2 {
            workspace.events(&["one", "two"]);
            let there = ["reports/one.xml", "reports/two.xml", "reports/hand.xml"].map(|path| workspace.has(path));
            assert_eq!(there, [true; 3], "{pattern}");
        }
    }
}

#[test]
fn a_damaged_record_removes_nothing() {
    let workspace = TestWorkspace::new(
        "[task.make]\nrun = \"mkdir -p src; for name in $(cat names.txt); do echo made > src/$name; done\"\ninputs = [\"names.txt\"]\noutputs = [\"src/*.js\"]\n",
    );
    workspace.write("names.txt", "a.js b.js");
    workspace.events(&["make"]);
    let mut damaged = 0;
    for state in fs::read_dir(workspace.store().join("workspaces")).expect("a directory") {
        let records = state.expect("an entry").path().join("written");
        for record in fs::read_dir(records).expect("a directory") {
            let record = record.expect("an entry").path();
            let bytes = fs::read(&record).expect("a file");
            fs::write(record, &bytes[..bytes.len() / 2]).expect("a file");
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    workspace.write("names.txt", "b.js");
    workspace.events(&["make"]);
    assert!(workspace.has("src/a.js") && workspace.has("src/b.js"));
}

// --- Whole directories ---------------------------------------------------------------------------------------------------

const DIST: &str = "[task.make]\nrun = \"mkdir -p dist; cp in.txt dist/$(cat in.txt)\"\ninputs = [\"in.txt\"]\noutputs = [\"dist/**\"]\n";

#[test]
fn a_directory_with_files_of_someone_else_is_not_taken_over() {
    let workspace = TestWorkspace::new(DIST);
    workspace.write("in.txt", "one");
    workspace.write("dist/by/hand", "precious");
    let before = workspace.snapshot();
    let told = all(&workspace.run(&["run", "make"]).expect(2));
    assert!(told.contains("`dist/by/hand`") && told.contains("move them away"), "{told}");
    assert_eq!(workspace.snapshot(), before);
    fs::remove_dir_all(workspace.root().join("dist")).expect("a directory");
    assert_eq!(workspace.events(&["make"]).with("hit"), set(&["//:make"]));
    workspace.write("dist/extra", "x");
    workspace.events(&["make"]);
    assert!(!workspace.has("dist/extra"), "from then on the directory is exact");
}

#[test]
fn a_file_of_someone_else_in_place_of_a_directory_is_not_taken_over() {
    let workspace = TestWorkspace::new(DIST);
    workspace.write("in.txt", "one");
    workspace.write("dist", "precious");
    workspace.run(&["run", "make"]).expect(2);
    assert_eq!(workspace.read("dist"), "precious");
}

#[test]
fn a_directory_that_git_ignores_is_taken_over_and_a_repository_in_it_is_not() {
    let workspace = TestWorkspace::new(DIST);
    workspace.write("in.txt", "one");
    workspace.write(".gitignore", "/dist/\n");
    commit_all(&workspace);
    workspace.write("dist/old", "from a build by hand");
    workspace.write("dist/.git/HEAD", "precious");
    let told = all(&workspace.run(&["run", "make"]).expect(2));
    assert!(told.contains("dist/.git/HEAD"), "{told}");
    assert_eq!(workspace.read("dist/.git/HEAD"), "precious");
    fs::remove_dir_all(workspace.root().join("dist/.git")).expect("a directory");
    workspace.events(&["make"]);
    assert!(workspace.has("dist/one") && !workspace.has("dist/old"));
}

#[test]
fn a_directory_is_known_again_when_its_record_or_the_whole_store_is_lost() {
    let workspace = TestWorkspace::new(DIST);
    workspace.write("in.txt", "one");
    workspace.events(&["make"]);
    fs::remove_dir_all(workspace.store()).expect("a directory");
    workspace.events(&["make"]);
    workspace.write("in.txt", "two");
    workspace.events(&["make"]);
    assert!(workspace.has("dist/two") && !workspace.has("dist/one"));
    for state in fs::read_dir(workspace.store().join("workspaces")).expect("a directory") {
        fs::remove_dir_all(state.expect("an entry").path().join("written")).expect("a directory");
    }
    workspace.write("in.txt", "three");
    workspace.events(&["make"]);
    assert!(workspace.has("dist/three") && !workspace.has("dist/two"));
}

#[test]
fn a_renamed_task_keeps_its_directory() {
    let workspace = TestWorkspace::new(DIST);
    workspace.write("in.txt", "one");
    workspace.events(&["make"]);
    remake(&workspace, &DIST.replace("task.make", "task.build"));
    workspace.write("in.txt", "two");
    workspace.events(&["build"]);
    assert!(workspace.has("dist/two") && !workspace.has("dist/one"));
}

#[test]
fn a_file_output_does_not_replace_a_directory_of_someone_else() {
    let workspace = TestWorkspace::new(
        "[task.one]\nrun = \"echo x > out\"\ninputs = []\noutputs = [\"out\"]\n[task.two]\nrun = \"echo x > a.bin\"\ninputs = []\noutputs = [\"*.bin\"]\n",
    );
    for (task, path) in [("one", "out/hand"), ("two", "a.bin/hand")] {
        workspace.write(path, "precious");
        workspace.run(&["run", task]).expect(2);
        assert_eq!(workspace.read(path), "precious");
    }
}

// --- Links, committed files, leftovers -----------------------------------------------------------------------------------

#[test]
fn nothing_is_removed_behind_a_link_above_an_output() {
    for pattern in ["build/obj/*.o", "build/obj/**", "build/*.o", "build/obj/a.o"] {
        let workspace = TestWorkspace::new(&format!(
            "[task.make]\nrun = \"mkdir -p build/obj; echo x > build/obj/a.o; echo x > build/b.o\"\ninputs = []\noutputs = [\"{pattern}\"]\nscratch = [\"**\"]\n"
        ));
        let elsewhere = workspace.beside("elsewhere");
        fs::create_dir_all(elsewhere.join("obj")).expect("a directory");
        for name in ["obj/z.o", "obj/a.o", "z.o"] {
            fs::write(elsewhere.join(name), "precious").expect("a file");
        }
        symlink(&elsewhere, workspace.root().join("build")).expect("a link");
        for _ in 0..2 {
            let told = all(&workspace.run(&["run", "make"]).expect(2));
            assert!(told.contains("symbolic link") && !told.contains("store verify"), "{told}");
        }
        for name in ["obj/z.o", "obj/a.o", "z.o"] {
            assert_eq!(fs::read_to_string(elsewhere.join(name)).expect("a file"), "precious", "{pattern} {name}");
        }
        assert!(!elsewhere.join("b.o").exists());
    }
}

#[test]
fn a_committed_file_in_an_output_directory_is_written_by_fix_alone() {
    let workspace = TestWorkspace::new(
        "[task.gen]\nrun = \"mkdir -p gen/sub; cp in.txt gen/api.ts; cp in.txt gen/sub/$(cat in.txt)\"\ninputs = [\"in.txt\"]\noutputs = [\"gen/**\"]\ncommitted = [\"gen/api.ts\"]\n",
    );
    workspace.write("in.txt", "one");
    workspace.write("gen/api.ts", "one");
    workspace.events(&["gen"]);
    assert!(workspace.has("gen/sub/one"));
    workspace.write("in.txt", "two");
    workspace.write("gen/extra/x", "x");
    let told = all(&workspace.run(&["run", "gen"]).expect(1));
    assert!(told.contains("gen/api.ts") && told.contains("--fix"), "{told}");
    assert_eq!(workspace.read("gen/api.ts"), "one");
    assert!(workspace.has("gen/sub/two") && !workspace.has("gen/sub/one") && !workspace.has("gen/extra"));
    workspace.run(&["run", "--fix", "gen"]).expect(0);
    assert_eq!(workspace.read("gen/api.ts"), "two");
    assert_eq!(workspace.events(&["gen"]).with("hit"), set(&["//:gen"]));
}

#[test]
fn fix_removes_what_git_has_and_nothing_else() {
    let workspace = TestWorkspace::new(
        "[task.gen]\nrun = \"mkdir -p gen; echo made > gen/a.ts\"\ninputs = []\ncommitted = [\"gen/*.ts\"]\n",
    );
    workspace.write("gen/old.ts", "in git");
    workspace.write("gen/edited.ts", "in git");
    commit_all(&workspace);
    workspace.write("gen/edited.ts", "precious");
    workspace.write("gen/new.ts", "precious");
    let told = all(&workspace.run(&["run", "--fix", "gen"]).expect(1));
    assert!(told.contains("gen/new.ts") && told.contains("remove it by hand"), "{told}");
    assert!(!workspace.has("gen/old.ts") && workspace.read("gen/a.ts") == "made\n");
    assert_eq!((workspace.read("gen/edited.ts"), workspace.read("gen/new.ts")), ("precious".into(), "precious".into()));
}

/// No process has this id: it is above the most that Linux gives.
const DEAD: &str = "4194999";

#[test]
fn temporaries_of_a_killed_run_are_no_inputs_and_go() {
    let workspace = TestWorkspace::new(
        "[task.make]\nrun = \"ls -A src; mkdir -p src; cp in.txt src/a.js\"\ninputs = [\"in.txt\", \"src/**\"]\noutputs = [\"src/*.js\"]\n",
    );
    workspace.write("in.txt", "one");
    workspace.write("src/b.txt", "x");
    workspace.events(&["make"]);
    let stale = format!("src/.a.js.drystone-{DEAD}-0");
    let living = format!("src/.a.js.drystone-{}-0", std::process::id());
    workspace.write(&stale, "half");
    workspace.write(&living, "half");
    assert_eq!(workspace.events(&["make"]).with("hit"), set(&["//:make"]));
    workspace.write("in.txt", "two");
    let told = all(&workspace.run(&["run", "make"]).expect(0));
    assert!(!told.contains("drystone-4194"), "{told}");
    assert!(!workspace.has(&stale) && workspace.has(&living));
}

#[test]
fn processes_that_put_the_same_outputs_in_place_do_not_disturb_each_other() {
    let mut manifest = String::from(
        "[task.make]\nrun = \"mkdir -p dist src; for n in $(seq 400); do echo $n > dist/$n; echo $n > src/$n.js; done\"\ninputs = []\noutputs = [\"dist/**\", \"src/*.js\"]\n",
    );
    for name in ["a", "b", "c", "d"] {
        manifest.push_str(&format!(
            "[task.{name}]\nrun = \"cat dist/1 src/60.js\"\ninputs = []\nneeds = [\":make\"]\ncache = false\n"
        ));
    }
    let workspace = TestWorkspace::new(&manifest);
    workspace.events(&["make"]);
    let before = workspace.snapshot();
    for round in 0..3 {
        fs::remove_dir_all(workspace.root().join("dist")).expect("a directory");
        fs::remove_file(workspace.root().join(format!("src/{}.js", round + 1))).expect("a file");
        let running: Vec<_> = (0..4)
            .map(|_| {
                let mut command = workspace.command(&["run", "a", "b", "c", "d"]);
                command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
                Running::start(&mut command)
            })
            .collect();
        for process in running {
            let output = process.output();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stdout));
        }
        assert_eq!(workspace.snapshot(), before);
    }
}

#[test]
fn what_no_output_can_be_is_a_failure_of_the_task() {
    let scripts = ["mkfifo dist/pipe", "ln -s $(printf 'a\\\\377') dist/link", "touch dist/$(printf 'a\\\\377')"];
    for script in scripts {
        let workspace = TestWorkspace::new(&format!(
            "[task.make]\nrun = \"mkdir dist; {script}\"\ninputs = []\noutputs = [\"dist/**\"]\n"
        ));
        let told = all(&workspace.run(&["run", "make"]).expect(1));
        assert!(!told.contains("store verify") && told.contains("dist"), "{told}");
        assert!(!workspace.has("dist"));
    }
}
