//! A hermetic temporary workspace and the built program in it. Nothing of the machine's environment leaks in.

pub mod image;
pub mod layout;
pub mod proxy;
pub mod random;
#[expect(dead_code, reason = "the library's own tests use all of it; those of the program begin with it")]
pub mod registry;
pub mod server;
pub mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A workspace with a store of its own, removed when dropped.
pub struct TestWorkspace {
    dir: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

/// How the program ended and what it said.
pub struct Ran {
    /// Exit code; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Fails the test unless the exit code is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// A program that was started and does not outlive its test: it is killed when this is dropped, and its children with it.
pub struct Running(Option<Child>);

impl Running {
    /// Starts it.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self(Some(command.spawn().expect("the program starts")))
    }

    /// Asks it to end, as Ctrl-C does.
    #[track_caller]
    pub fn interrupt(&self) {
        let killed = Command::new("kill").args(["-INT", &self.id().to_string()]).status();
        assert!(killed.expect("kill starts").success());
    }

    /// Waits for its end and all it says.
    pub fn output(mut self) -> Output {
        self.0.take().expect("it was not waited for").wait_with_output().expect("it ends")
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().expect("it was not waited for")
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().expect("it was not waited for")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Both fail only if it has ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The events of one run.
pub struct Events(Vec<Value>);

impl Events {
    fn finished(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(|event| event["event"] == "task.finished")
    }

    /// Labels of the tasks that ended this way.
    pub fn with(&self, outcome: &str) -> BTreeSet<String> {
        let these = self.finished().filter(|event| event["outcome"] == outcome);
        these.map(|event| event["task"].as_str().expect("a label").to_owned()).collect()
    }

    /// The event of a task.
    #[track_caller]
    pub fn of(&self, label: &str) -> &Value {
        self.finished()
            .find(|event| event["task"] == label)
            .unwrap_or_else(|| panic!("no event of {label}: {:#?}", self.0))
    }

    /// The reasons of a task, one text each.
    #[track_caller]
    pub fn why(&self, label: &str) -> Vec<String> {
        let reasons = self.of(label)["why"].as_array().expect("a list").clone();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        reasons.iter().map(|r| format!("{} {} {}", text(&r["field"]), text(&r["name"]), text(&r["change"]))).collect()
    }

    /// Labels of the services of which this was told (`started`, `ready`, `stopped`), in order.
    pub fn services(&self, what: &str) -> Vec<String> {
        let event = format!("service.{what}");
        let these = self.0.iter().filter(|told| told["event"] == event.as_str());
        these.map(|told| told["service"].as_str().expect("a label").to_owned()).collect()
    }

    /// The last event.
    pub fn summary(&self) -> &Value {
        self.0.last().expect("a run has events")
    }
}

impl TestWorkspace {
    /// An empty directory: no manifest yet.
    pub fn empty() -> Self {
        let dir = tempfile::Builder::new().prefix("drystone-test-").tempdir().expect("a temporary directory");
        for name in ["ws", "home", "store"] {
            fs::create_dir(dir.path().join(name)).expect("a temporary directory");
        }
        let at = |name: &str| dir.path().join(name).display().to_string();
        let variables = BTreeMap::from([
            ("PATH".into(), std::env::var("PATH").expect("tests have a PATH")),
            ("HOME".into(), at("home")),
            ("DRYSTONE_STORE".into(), at("store")),
            ("TERM".into(), "dumb".into()),
            ("LANG".into(), "C.UTF-8".into()),
        ]);
        let mut workspace = Self { dir, variables };
        // So that all of it can be tried without what is kept of runs as well.
        if let Ok(value) = std::env::var("DRYSTONE_ANEW") {
            workspace.set("DRYSTONE_ANEW", &value);
        }
        workspace
    }

    /// A workspace whose root manifest has `[workspace] name = "test"` and then this text.
    pub fn new(manifest: &str) -> Self {
        let workspace = Self::empty();
        workspace.write("drystone.toml", &format!("[workspace]\nname = \"test\"\n\n{manifest}"));
        workspace
    }

    /// A copy of a directory of the repository.
    pub fn copy_of(example: &str) -> Self {
        let workspace = Self::empty();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(example);
        let copied = Command::new("cp").arg("-r").arg(from.join(".")).arg(workspace.root()).status();
        assert!(copied.expect("cp starts").success());
        workspace
    }

    /// Root of the workspace.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("ws")
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A path beside the workspace.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sets a variable of the environment the program is started in.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.into(), value.into());
    }

    /// Writes a file, making its directories.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("a file in a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    /// Reads a file.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Whether a path is there.
    pub fn has(&self, path: &str) -> bool {
        self.root().join(path).symlink_metadata().is_ok()
    }

    /// The program, ready to start in the workspace.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drystone"));
        command.args(args).current_dir(self.root()).env_clear().envs(&self.variables).stdin(Stdio::null());
        command
    }

    /// The program, started in the workspace; its standard output is piped.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args).stdout(Stdio::piped()))
    }

    /// A shell in the workspace with the environment of the program.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(self.root()).env_clear().envs(&self.variables).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().expect("the program starts");
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `drystone run --format json` with more arguments; the exit code must be this one.
    #[track_caller]
    pub fn events_with(&self, args: &[&str], code: i32) -> Events {
        let mut all = vec!["run", "--format", "json"];
        all.extend(args);
        let ran = self.run(&all).expect(code);
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        Events(ran.stdout.lines().map(parse).collect())
    }

    /// The same, and it must succeed.
    #[track_caller]
    pub fn events(&self, args: &[&str]) -> Events {
        self.events_with(args, 0)
    }

    /// Everything below the workspace: path to kind, mode and content, for "nothing changed" checks.
    pub fn snapshot(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        snapshot_below(&self.root(), "", &mut found);
        found
    }

    /// Runs git in the workspace.
    #[track_caller]
    pub fn git(&self, args: &[&str]) {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "init.defaultBranch=main"])
            .args(args)
            .current_dir(self.root())
            .output()
            .expect("git starts");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn snapshot_below(dir: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let entry = entry.expect("a readable directory");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let meta = entry.path().symlink_metadata().expect("an entry that is there");
        if meta.is_symlink() {
            let target = fs::read_link(entry.path()).expect("a link");
            found.insert(name, format!("link {}", target.display()));
        } else if meta.is_dir() {
            found.insert(format!("{name}/"), "dir".into());
            snapshot_below(&entry.path(), &format!("{name}/"), found);
        } else {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            found.insert(name, format!("file {:o} {bytes:?}", meta.permissions().mode() & 0o777));
        }
    }
}

/// Says something whatever becomes of the test: what the harness keeps of a test that holds is seen by nobody.
pub fn loudly(text: &str) {
    use std::io::Write as _;
    // Nobody to tell is no reason to fail.
    let _ = writeln!(std::io::stderr(), "\n*** {text} ***");
}

/// A workspace with a manifest and, in its root, the static `busybox` of this machine; `None`, which is told, where there is none.
pub fn with_busybox(manifest: &str, tested: &str) -> Option<TestWorkspace> {
    if !are_there(&["busybox"], &format!("{tested} with a static program (busybox-static)")) {
        return None;
    }
    let workspace = TestWorkspace::empty();
    workspace.write("drystone.toml", manifest);
    let copied = workspace.shell("cp -L \"$(command -v busybox)\" busybox; cat ./busybox > /dev/null").status();
    assert!(copied.expect("sh starts").success());
    Some(workspace)
}

/// Whether all of these programs are installed. It is told what is not tested where one is missing.
pub fn are_there(programs: &[&str], tested: &str) -> bool {
    let path = std::env::var("PATH").expect("tests have a PATH");
    let is_there = |program: &str| path.split(':').any(|dir| Path::new(dir).join(program).is_file());
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !is_there(program)).collect();
    if !missing.is_empty() {
        loudly(&format!("NOT TESTED: {tested}: {} is not installed here", missing.join(", ")));
    }
    missing.is_empty()
}

/// A set of labels.
pub fn set(labels: &[&str]) -> BTreeSet<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}
