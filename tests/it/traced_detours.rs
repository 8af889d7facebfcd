//! Detours by which a traced task comes to see a file, or to miss it: what lies on the way decides its result, and so its key.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::{TestWorkspace, set};
use crate::traced::{hits, runs, traced};

/// Runs the script, changes something, and expects it to run again for this reason; changed back, it hits.
#[track_caller]
fn reruns(script: &str, before: &dyn Fn(&Path), change: &dyn Fn(&Path), why: &str, undo: &dyn Fn(&Path)) {
    let workspace = traced(&format!("{{ {script}; }} > out.txt 2>/dev/null || echo none > out.txt"));
    before(&workspace.root());
    runs(&workspace, &["first-run  "]);
    let first = workspace.read("app/out.txt");
    hits(&workspace);
    change(&workspace.root());
    runs(&workspace, &[why]);
    assert_ne!(workspace.read("app/out.txt"), first, "the test changes nothing");
    undo(&workspace.root());
    hits(&workspace);
    assert_eq!(workspace.read("app/out.txt"), first);
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("it has a parent")).expect("it can be made");
    fs::write(path, text).expect("it can be written");
}

fn remove(root: &Path, path: &str) {
    let path = root.join(path);
    let is_dir = fs::symlink_metadata(&path).expect("it is there").is_dir();
    let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.expect("it can be removed");
}

fn link(root: &Path, target: &str, at: &str) {
    symlink(target, root.join(at)).expect("a link");
}

#[test]
fn a_link_that_comes_to_lie_above_what_was_missed_leads_to_it() {
    for dir in ["../way", "way"] {
        let at = if dir == "way" { "app/way" } else { "way" };
        reruns(
            &format!("cat {dir}/c.txt"),
            &|_| {},
            &|root| link(root, if dir == "way" { "../lib/deep" } else { "lib/deep" }, at),
            &format!("input {at}/c.txt lies behind a link"),
            &|root| remove(root, at),
        );
    }
    // The same where a directory gives way to the link.
    reruns(
        "cat ../way/c.txt",
        &|root| put(root, "way/other", ""),
        &|root| {
            remove(root, "way");
            link(root, "lib/deep", "way");
        },
        "input way/c.txt lies behind a link",
        &|root| {
            remove(root, "way");
            put(root, "way/other", "");
        },
    );
}

#[test]
fn a_file_above_what_was_missed_is_another_error() {
    reruns(
        "cat ../way/in/c.txt 2>&1 || :",
        &|_| {},
        &|root| put(root, "way", ""),
        "input way/in/c.txt lies beneath a file",
        &|root| remove(root, "way"),
    );
}

#[test]
fn what_dots_lead_out_of_again_must_be_a_directory() {
    reruns(
        "cat way/../src/a.txt",
        &|root| put(root, "app/way/file", ""),
        &|root| remove(root, "app/way"),
        "input app/way removed",
        &|root| put(root, "app/way/file", ""),
    );
    reruns(
        "cat way/../src/a.txt",
        &|root| put(root, "app/way", ""),
        &|root| {
            remove(root, "app/way");
            put(root, "app/way/file", "");
        },
        "input app/way changed its kind",
        &|root| {
            remove(root, "app/way");
            put(root, "app/way", "");
        },
    );
}

#[test]
fn a_directory_that_was_removed_still_leads_up() {
    reruns(
        "mkdir way; cd way; rmdir ../way; cat ../src/a.txt",
        &|_| {},
        &|root| put(root, "app/src/a.txt", "changed\n"),
        "input app/src/a.txt changed",
        &|root| put(root, "app/src/a.txt", "alpha\n"),
    );
}

#[test]
fn a_directory_that_is_called_as_if_it_were_removed_is_one_like_any_other() {
    reruns(
        "cd '../way (deleted)'; cat file /proc/self/cwd/other",
        &|root| {
            put(root, "way (deleted)/file", "1\n");
            put(root, "way (deleted)/other", "2\n");
        },
        &|root| put(root, "way (deleted)/file", "changed\n"),
        "input way (deleted)/file changed",
        &|root| put(root, "way (deleted)/file", "1\n"),
    );
}

#[test]
fn threads_lead_to_their_process() {
    reruns(
        "cat /proc/thread-self/../../cwd/src/a.txt",
        &|_| {},
        &|root| put(root, "app/src/a.txt", "changed\n"),
        "input app/src/a.txt changed",
        &|root| put(root, "app/src/a.txt", "alpha\n"),
    );
}

#[test]
fn whether_a_directory_can_be_removed_depends_on_what_is_in_it() {
    reruns(
        "rmdir way",
        &|root| fs::create_dir(root.join("app/way")).expect("it can be made"),
        &|root| put(root, "app/way/file", ""),
        "input app/way `file` is new in it",
        &|root| remove(root, "app/way/file"),
    );
}

#[test]
fn a_directory_of_inputs_that_is_renamed_takes_them_out_of_sight() {
    let workspace = traced("mv src away; cat away/a.txt > out.txt");
    for text in ["1\n", "2\n"] {
        workspace.write("app/src/a.txt", text);
        let events = runs(&workspace, &["first-run  "]);
        let notes = events.of("//app:t")["notes"].to_string();
        assert!(notes.contains("it renamed `app/src`, a directory of inputs; the result"), "{notes}");
        assert_eq!(workspace.read("app/out.txt"), text);
    }
    // Its own may be called as it likes.
    let workspace = traced("mkdir made; cat src/a.txt > made/x; mv made moved; mv moved/x out.txt");
    runs(&workspace, &["first-run  "]);
    hits(&workspace);
}

#[test]
fn what_python_keeps_beside_sources_is_never_shown() {
    let workspace = traced("ls src > out.txt; test ! -e src/__pycache__; test ! -e ../lib/__pycache__");
    runs(&workspace, &["first-run  "]);
    for dir in ["app/src", "lib"] {
        workspace.write(&format!("{dir}/__pycache__/a.pyc"), "");
    }
    hits(&workspace);
    assert_eq!(workspace.events(&["--force", "//app:t"]).with("ran"), set(&["//app:t"]));
    assert_eq!(workspace.read("app/out.txt"), "a.txt\nb.txt\n");
}

#[test]
fn what_scratch_no_longer_hides_is_seen() {
    let manifest = |scratch: &str| {
        format!(
            "[task.t]\nrun = \"ls log > out.txt 2>/dev/null || echo none > out.txt; cat log/x >> out.txt || :\"\ninputs = \"traced\"\n\
             outputs = [\"out.txt\"]\n{scratch}"
        )
    };
    let workspace = TestWorkspace::new(&manifest("scratch = [\"**/log\", \"log/x\"]\n"));
    assert_eq!(workspace.events(&["t"]).with("ran"), set(&["//:t"]));
    assert_eq!(workspace.read("out.txt"), "none\n");
    // A directory of that name is no scratch, but what the other pattern names in it is.
    workspace.write("log/kept/y", "");
    workspace.write("log/x", "here\n");
    assert_eq!(workspace.events(&["t"]).with("ran"), set(&["//:t"]));
    assert_eq!(workspace.read("out.txt"), "kept\n");
    let text = workspace.read("drystone.toml").replace("scratch = [\"**/log\", \"log/x\"]\n", "");
    workspace.write("drystone.toml", &text);
    assert_eq!(workspace.events(&["t"]).with("ran"), set(&["//:t"]));
    assert_eq!(workspace.read("out.txt"), "kept\nx\nhere\n");
}

#[test]
fn whether_a_file_could_be_made_depends_on_how_its_directory_is_shown() {
    reruns(
        "touch ../lib/deep/new",
        &|root| put(root, ".gitignore", "ignored*\n"),
        &|root| put(root, "lib/deep/ignored", ""),
        "input lib/deep/new can be written now",
        &|root| remove(root, "lib/deep/ignored"),
    );
}

#[test]
fn a_link_above_what_was_missed_affects_it() {
    let workspace = traced("cat ../way/in/c.txt > out.txt || echo none > out.txt");
    workspace.git(&["init", "-q"]);
    workspace.git(&["add", "."]);
    workspace.git(&["commit", "-qm", "one"]);
    runs(&workspace, &["first-run  "]);
    let affected = || workspace.run(&["affected", "HEAD"]).expect(0).stdout;
    workspace.write("way-not", "");
    assert!(!affected().contains("//app:t"));
    link(&workspace.root(), "lib/deep", "way");
    assert!(affected().contains("//app:t"));
}
