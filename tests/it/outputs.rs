//! Outputs on disk: exact, repaired, swapped in whole, never beyond what is declared.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::{TestWorkspace, set};

const MAKE: &str = r#"
[task.make]
run = "mkdir -p dist/sub dist/empty; cp in.txt dist/sub/copy; echo x > dist/tool; chmod +x dist/tool; ln -s sub/copy dist/link"
inputs = ["in.txt"]
outputs = ["dist/**"]
"#;

fn made() -> TestWorkspace {
    let workspace = TestWorkspace::new(MAKE);
    workspace.write("in.txt", "one");
    workspace.events(&["make"]);
    workspace
}

#[test]
fn exec_bits_links_and_empty_directories_come_back() {
    let workspace = made();
    let before = workspace.snapshot();
    assert_eq!(before["dist/link"], "link sub/copy");
    assert!(before.contains_key("dist/empty/"));
    fs::remove_dir_all(workspace.root().join("dist")).expect("a directory");
    assert_eq!(workspace.events(&["make"]).with("hit"), set(&["//:make"]));
    assert_eq!(workspace.snapshot(), before);
}

#[test]
fn whatever_was_done_to_outputs_is_undone() {
    let workspace = made();
    let before = workspace.snapshot();
    let root = workspace.root();
    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let damages: [Damage<'_>; 7] = [
        ("an extra file", Box::new(|| workspace.write("dist/extra", "x"))),
        ("an extra directory", Box::new(|| fs::create_dir(root.join("dist/more")).expect("a directory"))),
        ("an edit", Box::new(|| workspace.write("dist/sub/copy", "two"))),
        ("an edit of the same size", Box::new(|| workspace.write("dist/sub/copy", "eno"))),
        ("a lost file", Box::new(|| fs::remove_file(root.join("dist/tool")).expect("a file"))),
        (
            "a lost exec bit",
            Box::new(|| {
                fs::set_permissions(root.join("dist/tool"), fs::Permissions::from_mode(0o644)).expect("a mode");
            }),
        ),
        (
            "a file in place of the directory",
            Box::new(|| {
                fs::remove_dir_all(root.join("dist")).expect("a directory");
                workspace.write("dist", "x");
            }),
        ),
    ];
    for (name, damage) in damages {
        damage();
        assert_ne!(workspace.snapshot(), before, "{name} must be visible");
        assert_eq!(workspace.events(&["make"]).with("hit"), set(&["//:make"]), "{name}");
        assert_eq!(workspace.snapshot(), before, "{name}");
    }
}

#[test]
fn switching_between_two_results_leaves_nothing_of_the_other() {
    let workspace = TestWorkspace::new(
        "[task.make]\nrun = \"mkdir dist; for name in $(cat names.txt); do echo $name > dist/$name; done\"\ninputs = [\"names.txt\"]\noutputs = [\"dist/*\"]\n",
    );
    workspace.write("names.txt", "a b");
    workspace.events(&["make"]);
    workspace.write("names.txt", "b c");
    workspace.events(&["make"]);
    assert!(!workspace.has("dist/a") && workspace.has("dist/c"));
    workspace.write("names.txt", "a b");
    assert_eq!(workspace.events(&["make"]).with("hit").len(), 1);
    assert!(workspace.has("dist/a") && !workspace.has("dist/c"));
}

#[test]
fn an_output_that_was_not_made_fails_the_task_and_keeps_the_old_one() {
    let workspace = made();
    let before = workspace.snapshot();
    workspace.write(
        "drystone.toml",
        &format!("[workspace]\nname = \"test\"\n{}", MAKE.replace("mkdir -p", "false && mkdir -p")),
    );
    workspace.events_with(&["make"], 1);
    workspace.write(
        "drystone.toml",
        "[workspace]\nname = \"test\"\n[task.make]\nrun = \"true\"\ninputs = [\"in.txt\"]\noutputs = [\"dist/**\"]\n",
    );
    let ran = workspace.run(&["run", "make"]).expect(1);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("dist/**"));
    let mut after = workspace.snapshot();
    after.insert("drystone.toml".into(), before["drystone.toml"].clone());
    assert_eq!(after, before);
}

#[test]
fn outputs_are_never_written_through_a_link() {
    let workspace =
        TestWorkspace::new("[task.make]\nrun = \"mkdir -p out; echo x > out/a\"\ninputs = []\noutputs = [\"out/a\"]\n");
    let elsewhere = workspace.beside("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    symlink(&elsewhere, workspace.root().join("out")).expect("a link");
    let ran = workspace.run(&["run", "make"]);
    assert_ne!(ran.code, 0);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("symbolic link"), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(fs::read_dir(&elsewhere).expect("a directory").count(), 0);
}

#[test]
fn a_directory_output_replaces_a_link_without_following_it() {
    let workspace = TestWorkspace::new(MAKE);
    workspace.write("in.txt", "one");
    let elsewhere = workspace.beside("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    fs::write(elsewhere.join("precious"), "x").expect("a file");
    symlink(&elsewhere, workspace.root().join("dist")).expect("a link");
    workspace.events(&["make"]);
    assert!(workspace.snapshot().contains_key("dist/tool"));
    assert!(elsewhere.join("precious").exists() && !elsewhere.join("tool").exists());
}

#[test]
fn outputs_that_git_tracks_are_refused_before_anything_runs() {
    let workspace = TestWorkspace::new(
        "[task.make]\nrun = \"mkdir dist; echo x > dist/kept\"\ninputs = []\noutputs = [\"dist/**\"]\n",
    );
    workspace.write("dist/kept", "by hand");
    workspace.git(&["init", "-q"]);
    workspace.git(&["add", "."]);
    workspace.git(&["commit", "-qm", "first"]);
    let ran = workspace.run(&["run", "make"]);
    let all = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, 2, "{all}");
    assert!(all.contains("tracked by git") && all.contains("committed"), "{all}");
    assert_eq!(workspace.read("dist/kept"), "by hand");
}

#[test]
fn a_committed_output_fails_when_it_differs_and_fix_writes_it() {
    let workspace = TestWorkspace::new(
        "[task.gen]\nrun = \"tr a-z A-Z < in.txt > gen.txt\"\ninputs = [\"in.txt\"]\ncommitted = [\"gen.txt\"]\n",
    );
    workspace.write("in.txt", "one\n");
    workspace.write("gen.txt", "ONE\n");
    workspace.events(&["gen"]);
    workspace.write("in.txt", "two\n");
    for _ in 0..2 {
        let ran = workspace.run(&["run", "gen"]).expect(1);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert!(all.contains("gen.txt") && all.contains("--fix") && all.contains("line 1"), "{all}");
        assert_eq!(workspace.read("gen.txt"), "ONE\n");
    }
    workspace.run(&["run", "--fix", "gen"]).expect(0);
    assert_eq!(workspace.read("gen.txt"), "TWO\n");
    assert_eq!(workspace.events(&["gen"]).with("hit").len(), 1);
}

#[test]
fn links_out_of_the_workspace_are_kept_as_text_and_never_followed() {
    let workspace = TestWorkspace::new(
        "[task.make]\nrun = \"mkdir dist; ln -s /etc/hostname dist/abs; ln -s ../../.. dist/up\"\ninputs = []\noutputs = [\"dist/**\"]\n",
    );
    workspace.events(&["make"]);
    let snapshot = workspace.snapshot();
    assert_eq!(snapshot["dist/abs"], "link /etc/hostname");
    assert_eq!(snapshot["dist/up"], "link ../../..");
}

#[test]
fn special_files_as_outputs_are_refused() {
    let workspace = TestWorkspace::new("[task.make]\nrun = \"mkfifo pipe\"\ninputs = []\noutputs = [\"pipe\"]\n");
    let ran = workspace.run(&["run", "make"]);
    assert_ne!(ran.code, 0);
    assert!(!workspace.has("pipe"));
}

#[test]
fn fix_runs_the_fixer_on_copies_and_writes_what_it_changed() {
    let workspace = TestWorkspace::new(
        "[task.format]\nrun = \"! grep -q tab src/*.txt\"\ninputs = [\"src/**\"]\nfix = \"sed -i s/tab/space/ src/*.txt; touch src/stray\"\n[task.broken]\nrun = \"true\"\ninputs = [\"src/**\"]\nfix = \"echo x > src/a.txt; exit 1\"\n",
    );
    workspace.write("src/a.txt", "tab\n");
    workspace.write("src/b.txt", "fine\n");
    workspace.events_with(&["format"], 1);
    let ran = workspace.run(&["run", "--fix", "format"]).expect(0);
    assert!(ran.stderr.contains("fixed src/a.txt (//:format)"), "{}", ran.stderr);
    assert_eq!((workspace.read("src/a.txt"), workspace.read("src/b.txt")), ("space\n".into(), "fine\n".into()));
    assert!(!workspace.has("src/stray"));
    let before = workspace.snapshot();
    workspace.run(&["run", "--fix", "broken"]).expect(2);
    assert_eq!(workspace.snapshot(), before);
}

#[test]
fn a_file_where_the_directory_of_an_output_goes_ends_no_plan() {
    let workspace = TestWorkspace::new(
        "[task.gen]\nrun = \"mkdir -p g; echo x > g/x\"\ninputs = []\noutputs = [\"g/x\"]\n[task.use]\nrun = \"cat g/x\"\nneeds = [\":gen\"]\n",
    );
    workspace.events(&["use"]);
    fs::remove_dir_all(workspace.root().join("g")).expect("a directory");
    workspace.write("g", "a file");
    workspace.run(&["plan", "use"]).expect(0);
    workspace.run(&["run", "use"]).expect(2);
}
