//! A sandbox with a host directory to take files from, and specs in few words. Tests nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use drystone::base::path::RelPath;
use drystone::process::cancel::Cancel;
use drystone::sandbox::open::{Sandbox, open_with};
use drystone::sandbox::probe::{Refusal, probe_with};
use drystone::sandbox::spec::{
    Content, Finished, Level, Limits, Network, SandboxError, SandboxSpec, Stream, System, View,
};

/// Set when this binary runs again as an ordinary user: the launcher it can reach.
pub const LAUNCHER_VARIABLE: &str = "DRYSTONE_TEST_LAUNCHER";

pub fn launcher() -> PathBuf {
    std::env::var_os(LAUNCHER_VARIABLE).map_or_else(|| env!("CARGO_BIN_EXE_drystone").into(), PathBuf::from)
}

/// Says something that no test harness captures.
pub fn loudly(text: &str) {
    let mut stderr = std::io::stderr();
    drop(writeln!(stderr, "\n*** {text} ***"));
}

/// The levels this machine gives; says loudly which it does not.
pub fn levels() -> Vec<Level> {
    let probe = probe_with(&launcher());
    let given = probe.verdicts().iter().filter_map(|(level, verdict)| match verdict {
        Ok(()) => Some(*level),
        Err(Refusal { reason, remedy }) => {
            loudly(&format!("NOT TESTED: {} is refused: {reason} (help: {remedy})", level.word()));
            None
        }
    });
    given.collect()
}

/// The `namespaces` level, unless the machine refuses it.
pub fn namespaces() -> Option<World> {
    levels().contains(&Level::Namespaces).then(|| World::new(Level::Namespaces))
}

/// A host directory with files, and a sandbox.
pub struct World {
    pub dir: tempfile::TempDir,
    pub sandbox: Box<dyn Sandbox>,
}

pub struct Ran {
    pub finished: Finished,
    pub stdout: String,
    pub stderr: String,
    _stage: tempfile::TempDir,
}

impl World {
    pub fn new(level: Level) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sandbox = open_with(level, &launcher()).expect("the level exists");
        Self { dir, sandbox }
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("it can be made");
        fs::write(&path, text).expect("it can be written");
        path
    }

    pub fn stage(&self) -> tempfile::TempDir {
        tempfile::Builder::new().prefix("stage-").tempdir().expect("a stage")
    }

    pub fn try_run(&self, spec: &SandboxSpec) -> Result<(Finished, String, String), SandboxError> {
        let never = Cancel::new().expect("an event");
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let finished = self.sandbox.run(spec, &never, &mut |stream, bytes| match stream {
            Stream::Stdout => stdout.extend_from_slice(bytes),
            Stream::Stderr => stderr.extend_from_slice(bytes),
        })?;
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8 output");
        Ok((finished, text(stdout), text(stderr)))
    }

    pub fn run(&self, mut spec: SandboxSpec) -> Ran {
        let stage = self.stage();
        spec.stage = stage.path().to_owned();
        let (finished, stdout, stderr) = self.try_run(&spec).unwrap_or_else(|error| panic!("{error}"));
        Ran { finished, stdout, stderr, _stage: stage }
    }

    pub fn error(&self, mut spec: SandboxSpec) -> String {
        let stage = self.stage();
        spec.stage = stage.path().to_owned();
        match self.try_run(&spec) {
            Ok((finished, stdout, stderr)) => panic!("it ran: {:?} {stdout} {stderr}", finished.exit),
            Err(error) => error.to_string(),
        }
    }
}

pub fn rel(text: &str) -> RelPath {
    RelPath::parse(text).expect("a good path")
}

pub fn argv(argv: &[&str]) -> SandboxSpec {
    let env = [("PATH", "/usr/bin:/bin"), ("HOME", "/homeless"), ("TMPDIR", "/tmp")];
    SandboxSpec {
        argv: argv.iter().map(|&argument| argument.into()).collect(),
        env: env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        cwd: RelPath::root(),
        view: BTreeMap::new(),
        mtimes: BTreeMap::new(),
        system: System::Host,
        mounts: Vec::new(),
        network: Network::Loopback,
        stop_signal: rustix::process::Signal::TERM,
        timeout: Some(Duration::from_secs(60)),
        stage: PathBuf::new(),
        observe: false,
        limits: Limits::default(),
        surroundings: None,
    }
}

pub fn sh(script: &str) -> SandboxSpec {
    argv(&["/bin/sh", "-euc", script])
}

pub fn with(mut spec: SandboxSpec, views: &[(&str, View)]) -> SandboxSpec {
    spec.view = views.iter().map(|(path, view)| (rel(path), view.clone())).collect();
    spec
}

/// Small inputs as the engine gives them.
pub fn bytes_view(text: &str) -> View {
    View::File { content: Content::Bytes(text.as_bytes().to_vec().into()), executable: false }
}

pub fn file_view(host: PathBuf) -> View {
    View::File { content: Content::Host(host), executable: false }
}
