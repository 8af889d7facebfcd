//! What changes a key and what does not, as a person would notice it: does the task run again?

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use crate::support::TestWorkspace;

const LISTING: &str = r#"
[task.list]
run = "find src | sort > list.txt; find src -type f | sort | xargs cat >> list.txt; ls -lR src >> /dev/null"
inputs = ["src"]
outputs = ["list.txt"]
"#;

/// Runs, changes something, and tells whether it ran again.
#[track_caller]
fn reruns(workspace: &TestWorkspace, change: impl FnOnce()) -> bool {
    workspace.events(&["list"]);
    assert_eq!(workspace.events(&["list"]).with("hit").len(), 1, "a second run must hit before the change");
    change();
    workspace.events(&["list"]).with("ran").len() == 1
}

fn sample() -> TestWorkspace {
    let workspace = TestWorkspace::new(LISTING);
    workspace.write("src/a", "one");
    workspace.write("src/b", "two");
    symlink("a", workspace.root().join("src/link")).expect("a link");
    workspace
}

#[test]
fn the_exec_bit_of_an_input_is_in_the_key() {
    let workspace = sample();
    let path = workspace.root().join("src/a");
    assert!(reruns(&workspace, || fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode")));
}

#[test]
fn the_target_of_a_link_is_in_the_key() {
    let workspace = sample();
    assert!(reruns(&workspace, || {
        fs::remove_file(workspace.root().join("src/link")).expect("a link");
        symlink("b", workspace.root().join("src/link")).expect("a link");
    }));
}

#[test]
fn an_empty_directory_is_in_the_key() {
    let workspace = sample();
    assert!(reruns(&workspace, || fs::create_dir(workspace.root().join("src/empty")).expect("a directory")));
}

#[test]
fn swapping_the_contents_of_two_files_is_a_change() {
    let workspace = sample();
    assert!(reruns(&workspace, || {
        workspace.write("src/a", "two");
        workspace.write("src/b", "one");
    }));
}

#[test]
fn renaming_a_file_is_a_change() {
    let workspace = sample();
    let root = workspace.root();
    assert!(reruns(&workspace, || fs::rename(root.join("src/b"), root.join("src/c")).expect("a rename")));
}

#[test]
fn an_input_touched_but_equal_is_no_change() {
    let workspace = sample();
    assert!(!reruns(&workspace, || workspace.write("src/a", "one")));
}

#[test]
fn content_changed_with_size_and_mtime_kept_is_a_change() {
    let workspace = sample();
    let path = workspace.root().join("src/a");
    assert!(reruns(&workspace, || {
        let before = fs::metadata(&path).expect("a file");
        workspace.write("src/a", "eno");
        let seconds = u64::try_from(before.mtime()).expect("after 1970");
        let time =
            SystemTime::UNIX_EPOCH + Duration::new(seconds, u32::try_from(before.mtime_nsec()).expect("nanoseconds"));
        let file = fs::File::options().write(true).open(&path).expect("a file");
        file.set_modified(time).expect("a time");
        let after = fs::metadata(&path).expect("a file");
        assert_eq!((before.len(), before.mtime_nsec()), (after.len(), after.mtime_nsec()));
    }));
}

#[test]
fn changes_in_quick_succession_are_all_seen() {
    // Content of one size, changed many times within the clock's granularity: the racy case of every stat cache.
    let workspace = sample();
    for round in 0..12 {
        workspace.write("src/a", &format!("{round:03}"));
        workspace.events(&["list"]);
        assert!(workspace.read("list.txt").contains(&format!("{round:03}")), "round {round}");
    }
}

#[test]
fn going_back_to_an_earlier_content_hits() {
    let workspace = sample();
    assert!(reruns(&workspace, || workspace.write("src/a", "new")));
    workspace.write("src/a", "one");
    assert_eq!(workspace.events(&["list"]).with("hit").len(), 1);
    assert!(workspace.read("list.txt").contains("one"));
}

#[test]
fn argument_order_is_in_the_key() {
    let manifest =
        |words: &str| format!("[workspace]\nname = \"test\"\n[task.say]\nrun = [\"echo\", {words}]\ninputs = []\n");
    let workspace = TestWorkspace::empty();
    workspace.write("drystone.toml", &manifest("\"HELLO\", \"WORLD\""));
    workspace.events(&["say"]);
    workspace.write("drystone.toml", &manifest("\"WORLD\", \"HELLO\""));
    assert_eq!(workspace.events(&["say"]).with("ran").len(), 1);
}

#[test]
fn an_unset_variable_is_not_an_empty_one() {
    let mut workspace = TestWorkspace::new(
        "[task.env]\nrun = \"echo ${MODE-unset} > mode.txt\"\ninputs = []\noutputs = [\"mode.txt\"]\npass-env = [\"MODE\"]\n"
            .replace("${MODE", "$${MODE")
            .as_str(),
    );
    workspace.events(&["env"]);
    assert_eq!(workspace.read("mode.txt"), "unset\n");
    workspace.set("MODE", "");
    assert_eq!(workspace.events(&["env"]).with("ran").len(), 1);
    assert_eq!(workspace.read("mode.txt"), "\n");
    workspace.set("MODE", "fast");
    let events = workspace.events(&["env"]);
    assert_eq!(workspace.read("mode.txt"), "fast\n");
    assert_eq!(events.why("//:env"), ["env MODE \"\" → \"fast\""]);
}

#[test]
fn variables_that_are_not_declared_are_neither_seen_nor_keyed() {
    let mut workspace =
        TestWorkspace::new("[task.env]\nrun = \"env | sort > env.txt\"\ninputs = []\noutputs = [\"env.txt\"]\n");
    workspace.events(&["env"]);
    workspace.set("STRAY", "1");
    workspace.set("USER", "somebody");
    assert_eq!(workspace.events(&["env"]).with("hit").len(), 1);
    assert!(!workspace.read("env.txt").contains("STRAY"));
}

#[test]
fn the_place_of_the_checkout_is_not_in_the_key() {
    let one = sample();
    let mut other = sample();
    one.events(&["list"]);
    other.set("DRYSTONE_STORE", &one.store().display().to_string());
    assert_eq!(other.events(&["list"]).with("hit").len(), 1);
    assert_eq!(other.read("list.txt"), one.read("list.txt"));
}
