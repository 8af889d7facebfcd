//! Someone else in the tree puts a link in place of a directory while outputs beneath it are written: nothing outside may come or go.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::has_faults;
use crate::support::{Running, TestWorkspace};

/// More changes than one run makes in the tree.
const POINTS_MAX: u64 = 200;

/// What lies beneath `a` is a directory made whole, one with a committed file in it, what a wildcard matches, and a single file.
const MANIFEST: &str = r#"
[task.make]
run = "sh make"
inputs = ["make"]
outputs = ["a/b/dist/**", "a/b/gen/**", "a/b/*.txt", "a/b/one"]
committed = ["a/b/gen/api"]
"#;

/// What the task makes, by turns: the first leaves something to remove, the second to replace, the third takes most away.
const TURNS: [&str; 3] = [
    "mkdir -p a/b/dist/sub a/b/gen/x; for n in dist/sub/kept dist/old gen/api gen/x/old old.txt both.txt one; do echo 1 > a/b/$n; done",
    "mkdir -p a/b/dist/sub a/b/gen/y; for n in dist/sub/new gen/y/new both.txt one; do echo 2 > a/b/$n; done; echo 1 > a/b/dist/sub/kept; echo 1 > a/b/gen/api",
    "mkdir -p a/b/dist a/b/gen; echo 1 > a/b/gen/api; for n in one last.txt; do echo 3 > a/b/$n; done",
];

/// Everything in a directory, with its content, kind and mode.
fn everything(dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        let meta = entry.symlink_metadata().expect("it is there");
        let text = if meta.is_file() { fs::read_to_string(&entry).expect("text") } else { String::new() };
        found.insert(entry.clone(), format!("{:o} {text}", meta.permissions().mode()));
        if meta.is_dir() {
            everything(&entry, found);
        }
    }
}

/// Someone's directory that looks like `a` does, with a way into it that waits to take the place of `a`.
struct Outside {
    dir: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Outside {
    fn new(workspace: &TestWorkspace) -> Self {
        let dir = workspace.beside("outside");
        for path in ["b/dist/sub/kept", "b/dist/old", "b/gen/api", "b/gen/x/old", "b/old.txt", "b/both.txt", "b/one"] {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, "1\n").expect("a file");
        }
        // What a killed run may have left, in the eyes of one that does not look where it is.
        fs::create_dir_all(dir.join("b/.dist.drystone-4194999-0/x")).expect("a directory");
        symlink(&dir, workspace.root().join("a.detour")).expect("a link");
        let mut before = BTreeMap::new();
        everything(&dir, &mut before);
        Self { dir, before }
    }

    #[track_caller]
    fn check(&self, when: &str) {
        let mut now = BTreeMap::new();
        everything(&self.dir, &mut now);
        let wrong: Vec<_> = now
            .iter()
            .filter(|(path, what)| self.before.get(*path) != Some(what))
            .chain(self.before.iter().filter(|(path, _)| !now.contains_key(*path)))
            .collect();
        assert!(wrong.is_empty(), "{when}: outside came, went or changed {wrong:#?}");
    }
}

/// What lies in the directory itself, by paths relative to it.
fn contents(workspace: &TestWorkspace) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    everything(&workspace.root().join("a"), &mut found);
    found
}

/// Puts the directory back that is aside.
fn restore(workspace: &TestWorkspace) {
    let (a, detour) = (workspace.root().join("a"), workspace.root().join("a.detour"));
    if a.is_symlink() {
        let aside = workspace.root().join("aside");
        for (from, to) in [(&a, &aside), (&detour, &a), (&aside, &detour)] {
            fs::rename(from, to).expect("they are there");
        }
    }
}

/// Where a directory is made before it comes to its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    /// Beside it: the one above gives its group to what is made in it.
    Beside,
    /// Elsewhere in the tree, where the file system has a better place.
    Elsewhere,
}

/// Runs with the detour at every change in turn; how many there are.
fn sweep(turn: usize, plan: &str, stays: &str, made: Made) -> u64 {
    let workspace = TestWorkspace::new(MANIFEST);
    // Results of all turns are known, so the runs that count only put them in place.
    workspace.write("a/b/gen/api", "1\n");
    if made == Made::Beside {
        let mode = fs::Permissions::from_mode(0o2755);
        fs::set_permissions(workspace.root().join("a/b"), mode).expect("ours");
    }
    for turn in [turn, turn + 1, turn + 2] {
        workspace.write("make", TURNS[turn % 3]);
        workspace.run(&["run", "make"]).expect(0);
    }
    let made = contents(&workspace);
    let outside = Outside::new(&workspace);
    for point in 1..POINTS_MAX {
        let struck = workspace.beside("struck");
        drop(fs::remove_file(&struck));
        workspace.write("make", TURNS[turn]);
        let mut command = workspace.command(&["run", "make"]);
        let dir = workspace.root().join("a");
        command.env(
            "DRYSTONE_FAULT",
            format!("{plan}beneath:{},detour:{point}{stays}:{}", dir.display(), struck.display()),
        );
        let output = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped())).output();
        let when = format!("turn {turn}, {plan} point {point}{stays}: {}", String::from_utf8_lossy(&output.stderr));
        outside.check(&when);
        assert!(output.status.signal().is_none() && matches!(output.status.code(), Some(0..=3)), "{when}");
        assert_eq!(dir.is_symlink(), struck.exists() && stays == "+", "{when}");
        restore(&workspace);
        workspace.write("make", TURNS[(turn + 2) % 3]);
        workspace.run(&["run", "make"]).expect(0);
        assert_eq!(contents(&workspace), made, "{when}");
        if !struck.exists() {
            return point - 1;
        }
    }
    panic!("there is no end");
}

#[test]
fn a_link_in_place_of_a_directory_at_any_change_leads_nowhere() {
    if !has_faults() {
        return;
    }
    std::thread::scope(|scope| {
        let turns = [(0, "", "+"), (1, "", ""), (2, "", "+"), (1, "no-exchange,", "")];
        let sweeps = turns.into_iter().flat_map(|turn| [(turn, Made::Beside), (turn, Made::Elsewhere)]);
        let sweeps: Vec<_> = sweeps
            .map(|((turn, plan, stays), made)| (made, scope.spawn(move || sweep(turn, plan, stays, made))))
            .collect();
        for (made, sweep) in sweeps {
            let points = sweep.join().expect("it holds");
            // What is made elsewhere is no change beneath the directory before it comes there.
            let points_min = if made == Made::Beside { 10 } else { 6 };
            assert!(points > points_min, "{points} points are too few");
        }
    });
}
