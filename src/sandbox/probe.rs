//! Finds out which levels this machine gives, by trying them. Remembers nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::path::RelPath;
use crate::fs::ops;
use crate::sandbox::open::Launched;
use crate::sandbox::refusal::{Facts, explain};
use crate::sandbox::spec::{Level, Limits, Network, SandboxError, SandboxSpec, System};
use crate::sandbox::wire::Report;

pub use crate::sandbox::refusal::Refusal;

/// What each level came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    verdicts: Vec<(Level, Result<(), Refusal>)>,
}

impl Probe {
    /// Every level, best first.
    pub fn verdicts(&self) -> &[(Level, Result<(), Refusal>)] {
        &self.verdicts
    }

    /// Whether a level works, or why not.
    pub fn verdict(&self, level: Level) -> Result<(), &Refusal> {
        let verdict = self.verdicts.iter().find(|(probed, _)| *probed == level);
        verdict.expect("every level is probed").1.as_ref().copied()
    }

    /// The best level that enforces anything: what `auto` takes. `none` must be asked for by name.
    pub fn best(&self) -> Option<Level> {
        self.verdicts.iter().find(|(level, verdict)| verdict.is_ok() && *level != Level::None).map(|(level, _)| *level)
    }
}

/// Tries every level once, with this program as launcher. Cost: a few milliseconds.
pub fn probe() -> Probe {
    probe_with(Path::new("/proc/self/exe"))
}

/// Tries every level once, with another program as launcher.
pub fn probe_with(launcher: &Path) -> Probe {
    let verdicts = vec![
        (Level::Namespaces, tried(Level::Namespaces, launcher)),
        (Level::Landlock, tried(Level::Landlock, launcher)),
        // Needs nothing that could be refused.
        (Level::None, Ok(())),
    ];
    Probe { verdicts }
}

fn tried(level: Level, launcher: &Path) -> Result<(), Refusal> {
    let unexpected = |error: SandboxError| Refusal {
        reason: error.to_string(),
        remedy: "see whether this program can be started again at all: /proc must be mounted".into(),
    };
    let spec = SandboxSpec {
        argv: Vec::new(),
        env: BTreeMap::new(),
        cwd: RelPath::root(),
        view: BTreeMap::new(),
        mtimes: BTreeMap::new(),
        system: System::Host,
        mounts: Vec::new(),
        network: Network::Loopback,
        stop_signal: rustix::process::Signal::TERM,
        timeout: None,
        stage: mount_point(),
        observe: false,
        limits: Limits::default(),
        surroundings: None,
    };
    let report = Launched::new(level, launcher).and_then(|sandbox| sandbox.probe(&spec));
    match report.map_err(unexpected)? {
        Report::Failed(failure) => {
            let said = format!("{}: {}", failure.step, failure.cause);
            Err(match explain(level, &failure, &Facts::gather()) {
                Some(refusal) => Refusal { reason: format!("{} ({said})", refusal.reason), ..refusal },
                None => Refusal { reason: said, remedy: format!("run where {} are allowed", level.word()) },
            })
        }
        Report::Ended { .. } | Report::CannotStart { .. } => Ok(()),
    }
}

/// A directory to mount the probe's root on; in a namespace of its own, so whatever is there is safe.
fn mount_point() -> PathBuf {
    let found = ["/tmp", "/var/tmp", "/run"].into_iter().map(Path::new).find(|dir| ops::exists(dir));
    found.unwrap_or(Path::new("/proc")).to_owned()
}
