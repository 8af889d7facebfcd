//! Which level of isolation a request comes to on this machine. Tries levels, runs nothing.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::base::diagnostic::Diagnostic;
use crate::fs::atomic::{self, Durability};
use crate::fs::ops;
use crate::fs::witness::unheard;
use crate::manifest::model::IsolationRequest;
use crate::sandbox::probe::{Probe, probe_with};
use crate::sandbox::spec::Level;

/// The levels of this machine, found out once.
///
/// That namespaces work is remembered beside the store until the machine is started again; anything less is tried anew by each
/// invocation, so that a setting that was put right counts at once.
pub struct Levels {
    memo: PathBuf,
    launcher: PathBuf,
    best: OnceLock<Option<Level>>,
    probe: OnceLock<Probe>,
}

impl Levels {
    /// Tries nothing yet. `launcher` is the program to try them with.
    pub fn new(store_dir: &Path, launcher: &Path) -> Self {
        let (memo, launcher) = (store_dir.join("level"), launcher.to_owned());
        Self { memo, launcher, best: OnceLock::new(), probe: OnceLock::new() }
    }

    /// The level of a request; `auto` is the best that enforces anything.
    ///
    /// Cost: once per invocation two small reads, or some milliseconds where namespaces are not known to work.
    pub fn of(&self, request: IsolationRequest) -> Result<Level, Diagnostic> {
        let wanted = match request {
            IsolationRequest::None => return Ok(Level::None),
            IsolationRequest::Auto => match self.best() {
                Some(level) => return Ok(level),
                None => Level::Namespaces,
            },
            IsolationRequest::Namespaces => Level::Namespaces,
            IsolationRequest::Landlock => Level::Landlock,
        };
        if wanted == Level::Namespaces && self.best() == Some(wanted) {
            return Ok(wanted);
        }
        self.probe().verdict(wanted).map(|()| wanted).map_err(|refusal| {
            Diagnostic::error(format!("this machine refuses the `{}` level: {}", wanted.word(), refusal.reason))
                .help(refusal.remedy.clone())
                .help("`--isolation none` runs without a sandbox; what it makes serves no one who asks for more")
        })
    }

    /// What to say where `auto` came to less than the best there is.
    pub fn lowered(&self) -> Option<Diagnostic> {
        let level = (*self.best.get()?).filter(|level| *level < Level::Namespaces)?;
        let refusal = self.probe().verdict(Level::Namespaces).err()?;
        let word = level.word();
        Some(
            Diagnostic::warning(format!(
                "tasks run at the `{word}` level, for namespaces are refused: {}",
                refusal.reason
            ))
            .help(refusal.remedy.clone())
            .help(format!("`isolation = \"{word}\"` in the manifest says that it is meant")),
        )
    }

    /// A sandbox could not be built after all: the next invocation tries again.
    pub fn forget(&self) {
        drop(ops::remove_file(&self.memo));
    }

    fn best(&self) -> Option<Level> {
        *self.best.get_or_init(|| {
            let known = known();
            let is_known = || known.is_some() && ops::read_text(&self.memo).ok() == known;
            // Whoever keeps account of what was looked at takes the memory for all that is tried once.
            if unheard(is_known) && is_known() {
                return Some(Level::Namespaces);
            }
            let best = unheard(|| self.probe().best());
            if let (Some(Level::Namespaces), Some(known)) = (best, &known) {
                // Only saves time.
                if let Err(error) = atomic::write(&self.memo, known.as_bytes(), Durability::Relaxed) {
                    tracing::debug!(%error, "that namespaces work was not noted");
                }
            }
            if !is_known() {
                // Anything less is tried anew each time: what changes with each process must not pass for what was seen.
                drop(ops::read_text(Path::new(OF_THIS_PROCESS)));
            }
            best
        })
    }

    fn probe(&self) -> &Probe {
        self.probe.get_or_init(|| probe_with(&self.launcher))
    }
}

/// What no two processes read alike.
const OF_THIS_PROCESS: &str = "/proc/self/stat";

/// What must be the same for the memory to hold: this start of the machine, the user, the container.
fn known() -> Option<String> {
    let boot = ops::read_text(Path::new("/proc/sys/kernel/random/boot_id")).ok()?;
    let container = ops::read_link(Path::new("/proc/self/ns/user")).ok()?;
    Some(format!("{} {} {}\n", boot.trim(), rustix::process::geteuid().as_raw(), container.display()))
}
