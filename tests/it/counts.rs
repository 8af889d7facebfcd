//! What a run asks of the system, counted by `strace`: a run of which nothing changed looks once at each file and opens each directory
//! once, and nothing else grows with the workspace. Counts do not depend on the clock, nor on what else a machine does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::TestWorkspace;

/// Packages of the smaller and of the larger workspace.
const SIZES: [usize; 2] = [8, 32];
/// What lies in each package: sources, outputs and the manifest; its directory, `src`, `src/deep` and `dist`.
const FILES: usize = 2 * SOURCES + 3 + 1;
const DIRS: usize = 4;
const TASKS: usize = 2;
const SOURCES: usize = 6;
/// Calls that may come and go: memory, locks that threads wait for.
const SLACK: usize = 32;
/// What is read beside what is kept of a run, in bytes: heads of libraries, `/proc/self/maps`, the root manifest.
const ELSE_READ: usize = 64 << 10;

const MANIFEST: &str = "[task.build]\nrun = \"mkdir dist; cat src/*.txt src/deep/*.txt > dist/all; echo x > dist/more\"\n\
                        inputs = [\"src/**\"]\noutputs = [\"dist/**\"]\n\n\
                        [task.check]\nrun = \"cksum dist/all > checked\"\ninputs = []\noutputs = [\"checked\"]\nneeds = [\":build\"]\n";

const RUN: [&str; 2] = ["run", "--isolation=none"];

/// What was counted.
#[derive(Debug, Default)]
struct Counts {
    /// By name; of those that look at a path and of those that open one together.
    calls: BTreeMap<String, usize>,
    /// Opened directories.
    dirs: usize,
    /// Bytes read by `read`, and by `pread64`, as of a database.
    bytes: usize,
    at_bytes: usize,
    /// Paths that were opened and are no directories.
    opened: Vec<String>,
}

impl Counts {
    fn of(&self, name: &str) -> usize {
        self.calls.get(name).copied().unwrap_or(0)
    }

    fn total(&self) -> usize {
        self.calls.values().sum()
    }

    fn add(&mut self, line: &str) {
        let Some((name, rest)) = line.split_once('(') else { return };
        let name = match name {
            "stat" | "lstat" | "newfstatat" | "statx" => "stat",
            "open" | "openat" | "openat2" if rest.contains("O_DIRECTORY") => "open a directory",
            "open" | "openat" | "openat2" => "open",
            name if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => name,
            _ => return,
        };
        *self.calls.entry(name.to_owned()).or_default() += 1;
        let gave = || line.rsplit_once(" = ").and_then(|(_, gave)| gave.parse::<usize>().ok()).unwrap_or(0);
        match name {
            "open" => self.opened.push(rest.split('"').nth(1).unwrap_or_default().to_owned()),
            "open a directory" => self.dirs += 1,
            "read" => self.bytes += gave(),
            "pread64" => self.at_bytes += gave(),
            _ => {}
        }
    }
}

fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-ff", "-o", "/dev/null", "true"]).output();
    let can = traced.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("\n!!! NOT TESTED: counts of system calls, for `strace` is not here or may not trace");
    }
    can
}

/// A workspace in which all is as the last of some runs left it.
fn workspace_of(packages: usize) -> TestWorkspace {
    let workspace = TestWorkspace::new("");
    workspace.write("drystone.toml", "[workspace]\nname = \"test\"\npackages = [\"libs/*\"]\n");
    for package in 0..packages {
        let dir = format!("libs/p{package:03}");
        workspace.write(&format!("{dir}/drystone.toml"), MANIFEST);
        for file in 0..SOURCES {
            workspace.write(&format!("{dir}/src/{file}.txt"), &format!("{package} {file}\n"));
            workspace.write(&format!("{dir}/src/deep/{file}.txt"), &format!("{package} {file} deep\n"));
        }
    }
    settle(&workspace);
    workspace
}

/// What changed a moment ago is read again, and what a run found out is kept for the next one: three runs, and nothing is left to do.
fn settle(workspace: &TestWorkspace) {
    for _ in 0..3 {
        workspace.run(&RUN).expect(0);
    }
}

#[track_caller]
fn count(workspace: &TestWorkspace) -> Counts {
    let to = workspace.beside("calls");
    fs::create_dir(&to).expect("a temporary directory");
    let plain = workspace.command(&RUN);
    let mut traced = Command::new("strace");
    // A file for each thread: so no line of one comes into that of another.
    traced.args(["-ff", "-o"]).arg(to.join("thread")).arg(plain.get_program()).args(plain.get_args());
    let variables = plain.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let output = traced.env_clear().envs(variables).current_dir(workspace.root()).output().expect("strace starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut counts = Counts::default();
    for entry in fs::read_dir(&to).expect("it was made") {
        let bytes = fs::read(entry.expect("it is there").path()).expect("it was written");
        String::from_utf8_lossy(&bytes).lines().for_each(|line| counts.add(line));
    }
    fs::remove_dir_all(&to).expect("it was made");
    assert!(counts.of("stat") > 0 && counts.bytes > 0, "{counts:?}");
    counts
}

/// Bytes of all that is kept of the runs of the workspace.
fn kept(workspace: &TestWorkspace) -> usize {
    fn below(dir: &Path) -> u64 {
        let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable"));
        entries
            .map(|entry| {
                if entry.path().is_dir() { below(&entry.path()) } else { entry.metadata().map_or(0, |meta| meta.len()) }
            })
            .sum()
    }
    usize::try_from(below(&workspace.store().join("workspaces"))).expect("little")
}

#[test]
fn a_run_of_which_nothing_changed_looks_once_at_each_file_and_opens_no_database() {
    if !can_trace() {
        return;
    }
    let counted = SIZES.map(|packages| {
        let workspace = workspace_of(packages);
        let counts = count(&workspace);
        let opened = |what: &str| counts.opened.iter().any(|path| path.contains(what));
        assert!(!opened("store.db"), "{:#?}", counts.opened);
        assert!(!opened("/src/") && !opened("/dist/"), "{:#?}", counts.opened);
        assert!(counts.bytes <= kept(&workspace) + ELSE_READ, "{} bytes, {} are kept", counts.bytes, kept(&workspace));
        for never in ["execve", "fork", "vfork", "pwrite64", "rename", "renameat2", "unlinkat", "fsync", "fdatasync"] {
            let expected = usize::from(never == "execve");
            assert_eq!(counts.of(never), expected, "{never}: {counts:#?}");
        }
        (counts, kept(&workspace))
    });
    let [(small, small_kept), (large, large_kept)] = counted;
    let more = SIZES[1] - SIZES[0];
    let (files, dirs) = (more * FILES, more * DIRS);
    let grew = |name: &str| large.of(name).saturating_sub(small.of(name));
    // One look at each file and at each directory.
    assert!(grew("stat") <= files + dirs + SLACK, "{} for {files} files, {dirs} directories", grew("stat"));
    assert!(grew("open a directory") <= dirs + SLACK, "{} for {dirs} directories", grew("open a directory"));
    assert!(grew("open") <= SLACK, "{:#?}", large.opened);
    assert!(grew("read") + grew("pread64") <= SLACK, "{small:#?}\n{large:#?}");
    assert!(large.bytes - small.bytes <= large_kept - small_kept + SLACK, "{small:#?}\n{large:#?}");
    // A directory is closed as well, before which a build with debug assertions asks whether it is open. That is all there is.
    let rest = large.total().saturating_sub(small.total());
    let per_dir = if cfg!(debug_assertions) { 4 } else { 3 };
    assert!(
        rest <= files + per_dir * dirs + SLACK,
        "{rest} for {files} files, {dirs} directories: {small:#?}\n{large:#?}"
    );
}

#[test]
fn what_a_run_after_one_edit_opens_and_reads_does_not_grow_with_what_it_leaves_alone() {
    if !can_trace() {
        return;
    }
    let [(small, small_kept), (large, large_kept)] = SIZES.map(|packages| {
        let workspace = workspace_of(packages);
        workspace.write("libs/p001/src/1.txt", "another line\n");
        let events = workspace.events(&["--isolation=none"]);
        assert_eq!(events.with("ran").len(), TASKS, "{:#}", events.summary());
        settle(&workspace);
        workspace.write("libs/p001/src/1.txt", "another line\nand one more\n");
        let counts = count(&workspace);
        assert_eq!(workspace.read("libs/p001/dist/all").lines().count(), 2 * SOURCES + 1, "it ran");
        (counts, kept(&workspace))
    });
    let (tasks, dirs) = ((SIZES[1] - SIZES[0]) * TASKS, (SIZES[1] - SIZES[0]) * DIRS);
    let grew = |name: &str| large.of(name).saturating_sub(small.of(name));
    assert!(grew("open") <= SLACK, "{:#?}\n{:#?}", small.opened, large.opened);
    assert!(grew("open a directory") <= dirs + SLACK, "{small:#?}\n{large:#?}");
    assert!(grew("read") <= SLACK, "{small:#?}\n{large:#?}");
    // Pages of the database: a table that fills one page more is one page deeper, whoever looks into it.
    assert!(grew("pread64") <= tasks, "{} for {tasks} tasks: {small:#?}\n{large:#?}", grew("pread64"));
    // The file of the last run is read once, and what is loaded in place of the manifests.
    let bytes = large.bytes.saturating_sub(small.bytes);
    assert!(bytes <= large_kept - small_kept + ELSE_READ, "{bytes} bytes: {small:#?}\n{large:#?}");
    // Children that run the task are the same ones.
    assert!(grew("execve") <= SLACK, "{small:#?}\n{large:#?}");
}
