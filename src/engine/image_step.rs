//! A command that runs with the layers of an image so far as its root, and what it changed of them: the parts of a new layer. Looks up and
//! records nothing.
//!
//! The command has no network, and no privilege on the host; it sees the tree, small files of ours ([`crate::sandbox::writable`]), and
//! what it is shown in its workspace. Where the kernel refuses an overlay, it runs in a copy of the tree: slower, with the same result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rustix::process::Signal;

use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::contents::Contents;
use crate::engine::event::Log;
use crate::engine::log::LogCapture;
use crate::engine::materialize::MaterializeError;
use crate::engine::rebuild::Arrangement;
use crate::engine::restore::RestoreError;
use crate::engine::root_changes::{self, Before, Bounds, Changes, ChangesError, Left};
use crate::engine::secrets::Secrets;
use crate::engine::session::Session;
use crate::engine::shape;
use crate::engine::showing::Showing;
use crate::engine::toolchain::ROOT_PATH;
use crate::engine::waiting;
use crate::fs::dir::Dir;
use crate::fs::link;
use crate::fs::ops::{self, FsError};
use crate::process::cancel::Cancel;
use crate::sandbox::canary::Sight;
use crate::sandbox::open::Sandbox;
use crate::sandbox::spec::{
    Exit, HOME_DIR, Layers, Level, Limits, MTIME_NS, Network, Owned, Owners, SCRATCH_DIR, SandboxError, SandboxSpec,
    Stream, System, Usage, View, WritableRoot, input_mode,
};
use crate::sandbox::surroundings::Dimension;
use crate::sandbox::writable::OVERLAY_STEP;
use crate::store::{Keep, Stage, Store, StoreError, Wanted};

/// A command and what it finds.
#[derive(Clone, Debug)]
pub struct Step {
    /// Program (an absolute path in the root, or a name looked up in `PATH`) and arguments. Not empty.
    pub argv: Vec<String>,
    /// Variables besides those of every step ([`environment`]), or in place of them.
    pub env: BTreeMap<String, String>,
    /// Absolute directory in the root that it starts in. It must be there.
    pub directory: PathBuf,
    /// What is around it.
    pub arrangement: Arrangement,
    /// The tree that all layers so far make; its contents are in the store.
    pub root: Arc<Listing>,
    /// Permission bits of what has others in it than 0755 (directories and executable files) and 0644. The command sees them.
    pub modes: Arc<BTreeMap<RelPath, u32>>,
    /// Owners of what has others than 0:0. The command sees them.
    pub owners: Arc<Owners>,
    /// What it finds in `/workspace`, read-only; contents are in the store.
    pub inputs: Arc<Listing>,
    /// After this it is ended.
    pub timeout: Option<Duration>,
    /// What it may use.
    pub limits: Limits,
    /// What takes its changes down.
    pub way: Way,
    /// How much it may change.
    pub bounds: Bounds,
}

/// What takes the changes of a command down. Both come to the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    /// An overlay, or a copy of the tree where the machine refuses that.
    #[default]
    Best,
    /// A copy of the tree.
    Copy,
}

/// What a step needs of a run.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// Has the contents, gives the room, and takes what comes of it.
    pub store: &'a Arc<Store>,
    /// Of the `namespaces` level.
    pub sandbox: &'a dyn Sandbox,
    /// Ends the command.
    pub cancel: &'a Cancel,
}

/// What came of a step.
#[derive(Debug)]
pub struct StepOutcome {
    /// What it changed; empty unless it succeeded. Contents are in the store.
    pub changes: Changes,
    /// What it printed.
    pub log: Log,
    /// How it ended.
    pub exit: Exit,
    /// Wall time of the command.
    pub duration: Duration,
    /// What it used.
    pub usage: Usage,
    /// What took its changes down.
    pub way: Way,
}

impl StepOutcome {
    fn cancelled() -> Self {
        Self {
            changes: Changes::new(),
            log: Log::new(),
            exit: Exit::Cancelled,
            duration: Duration::ZERO,
            usage: Usage::default(),
            way: Way::Best,
        }
    }
}

/// Why a step could not be run, or its changes not be taken. A command that ran and failed is not an error.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Only namespaces can show a root.
    #[error("a step of an image runs at the `namespaces` level only, and this is `{}`", .0.word())]
    Level(Level),
    /// The command left what no layer has.
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// It cannot be told whose the files are that it left.
    #[error("it cannot be told whose its files are: {0}")]
    Owners(String),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// What it is to see could not be laid out.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl From<MaterializeError> for StepError {
    fn from(error: MaterializeError) -> Self {
        Self::Restore(error.into())
    }
}

impl StepError {
    /// Whether the command is at fault, rather than the machine.
    pub fn is_of_the_command(&self) -> bool {
        match self {
            Self::Changes(error) => error.is_of_the_command(),
            Self::Sandbox(error) => matches!(error, SandboxError::CannotStart { .. }),
            Self::Owners(_) => true,
            Self::Level(_) | Self::Restore(_) | Self::Store(_) | Self::Fs(_) => false,
        }
    }
}

/// The variables of every step: those of a task, with the programs of a root file system and the name that user 0 has.
pub fn environment() -> BTreeMap<String, String> {
    let path: Vec<String> = ROOT_PATH.iter().map(|dir| format!("/{dir}")).collect();
    let all: [(&str, &str); 8] = [
        ("HOME", HOME_DIR),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", "root"),
        ("PATH", &path.join(":")),
        ("SOURCE_DATE_EPOCH", "315532800"),
        ("TMPDIR", SCRATCH_DIR),
        ("TZ", "UTC"),
        ("USER", "root"),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The arguments by which a text is run in a shell of the root.
pub fn shell(text: &str) -> Vec<String> {
    ["/bin/sh", "-euc", text].map(str::to_owned).into()
}

/// Runs a step in this run.
pub fn run(session: &Session<'_>, step: &Step) -> Result<StepOutcome, StepError> {
    let sandbox = session.sandbox(Level::Namespaces)?;
    run_on(Ground { store: &session.store, sandbox: &*sandbox, cancel: &session.cancel }, step)
}

/// What a canary finds in place of a step whose arrangement has one; or why it cannot look.
///
/// Where the loader of this program is not in the root, it looks from the machine's system with the same around it. What it finds there of
/// locales is the machine's, so it is not told.
pub fn look(session: &Session<'_>, step: &Step) -> Result<Sight, String> {
    let sandbox = session.sandbox(Level::Namespaces).map_err(|error| error.to_string())?;
    let ground = Ground { store: &session.store, sandbox: &*sandbox, cancel: &session.cancel };
    let printed = |log: &Log| {
        let standard = log.iter().filter(|(stream, _)| *stream == Stream::Stdout);
        standard.flat_map(|(_, bytes)| bytes.iter().copied()).collect::<Vec<u8>>()
    };
    match run_on(ground, step) {
        Ok(outcome) if outcome.exit == Exit::Code(0) => return Ok(Sight::read(&printed(&outcome.log))),
        Ok(_) | Err(StepError::Sandbox(SandboxError::CannotStart { .. })) => {}
        Err(error) => return Err(error.to_string()),
    }
    let stage = session.store.mount_point().map_err(|error| error.to_string())?;
    let spec = spec(step, System::Host, BTreeMap::new(), stage);
    let mut found = Vec::new();
    match sandbox.run(&spec, &session.cancel, &mut |_, bytes| found.extend_from_slice(bytes)) {
        Ok(finished) if finished.exit == Exit::Code(0) => Ok(Sight::read(&found).without(Dimension::Locale)),
        Ok(_) => Err("the canary did not come back".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The sandbox of a step with that system.
fn spec(step: &Step, system: System, view: BTreeMap<RelPath, View>, stage: PathBuf) -> SandboxSpec {
    let mut env = environment();
    env.extend(step.env.clone());
    step.arrangement.arrange_env(&mut env);
    SandboxSpec {
        argv: step.argv.clone(),
        env,
        cwd: RelPath::root(),
        view,
        mtimes: BTreeMap::new(),
        system,
        mounts: Vec::new(),
        network: Network::Loopback,
        timeout: step.timeout,
        stop_signal: Signal::TERM,
        stage,
        observe: false,
        limits: step.limits,
        surroundings: step.arrangement.surroundings.clone().map(Box::new),
    }
}

/// Runs a step.
///
/// Cost besides the command: the first time that a root is used, a copy of every file; two milliseconds of a sandbox; what
/// [`root_changes::take`] costs; without overlays another copy of the root.
pub fn run_on(ground: Ground<'_>, step: &Step) -> Result<StepOutcome, StepError> {
    if ground.sandbox.level() != Level::Namespaces {
        return Err(StepError::Level(ground.sandbox.level()));
    }
    let (store, root) = (Arc::clone(ground.store), Arc::clone(&step.root));
    let Some(lower) = unless_cancelled(ground, move || lay_out(&store, &root))? else {
        return Ok(StepOutcome::cancelled());
    };
    let view = view(ground.store, &step.inputs)?;
    if step.way == Way::Best {
        match attempt(ground, step, &lower, &view, Way::Best) {
            Err(StepError::Sandbox(SandboxError::Setup { step, cause, .. })) if step == OVERLAY_STEP => {
                tracing::debug!(cause, "no overlay; a copy of the root is made");
            }
            done => return done,
        }
    }
    attempt(ground, step, &lower, &view, Way::Copy)
}

fn unless_cancelled<T: Send + 'static>(
    ground: Ground<'_>,
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<Option<T>, StepError> {
    waiting::unless_cancelled(ground.cancel, work).transpose()
}

fn attempt(
    ground: Ground<'_>,
    step: &Step,
    lower: &Path,
    view: &BTreeMap<RelPath, View>,
    way: Way,
) -> Result<StepOutcome, StepError> {
    let stage = ground.store.stage()?;
    // What the command leaves may be set-user-id of whoever runs this.
    ops::set_mode(stage.path(), 0o700)?;
    let (layers, left) = match way {
        Way::Best => overlay(&stage, lower)?,
        Way::Copy => {
            let (from, to, root) = (lower.to_owned(), stage.path().join("root"), Arc::clone(&step.root));
            let left = Left::Whole(to.clone());
            let layers = Layers::Copy { root: to.clone() };
            let Some(()) = unless_cancelled(ground, move || copy(&root, &from, &to))? else {
                return Ok(StepOutcome::cancelled());
            };
            (layers, left)
        }
    };
    let (modes, owners) = ((*step.modes).clone(), (*step.owners).clone());
    let root = WritableRoot { layers, modes, owners, directory: step.directory.clone() };
    let spec = spec(step, System::Writable(root), view.clone(), ground.store.mount_point()?);
    let mut capture = LogCapture::new(Secrets::default());
    let started = Instant::now();
    let finished = ground.sandbox.run(&spec, ground.cancel, &mut |stream, bytes| capture.take(stream, bytes))?;
    let (duration, log) = (started.elapsed(), capture.finish());
    let (mut exit, usage) = (finished.exit, finished.usage);
    let mut changes = Changes::new();
    if exit == Exit::Code(0) {
        let owned = finished.owned.unwrap_or_else(|| Owned::unknown("nothing was told of them"));
        if let Some(reason) = owned.trouble {
            return Err(StepError::Owners(reason));
        }
        match taken(ground, step, left, owned.owners, stage)? {
            Some(taken) => changes = taken,
            None => exit = Exit::Cancelled,
        }
    }
    Ok(StepOutcome { changes, log, exit, duration, usage, way })
}

/// What is left, taken on a thread of its own: then an interrupt ends the run. The stage goes with it.
fn taken(
    ground: Ground<'_>,
    step: &Step,
    left: Left,
    owners: Owners,
    stage: Stage,
) -> Result<Option<Changes>, StepError> {
    let (store, bounds) = (Arc::clone(ground.store), step.bounds);
    let (listing, modes, were) = (Arc::clone(&step.root), Arc::clone(&step.modes), Arc::clone(&step.owners));
    unless_cancelled(ground, move || {
        let before = Before { listing: &listing, modes: &modes, owners: &were };
        let changes = root_changes::take(&left, before, &owners, bounds, &store)?;
        drop(stage);
        Ok(changes)
    })
}

fn overlay(stage: &Stage, lower: &Path) -> Result<(Layers, Left), FsError> {
    let [upper, work] = ["upper", "work"].map(|name| stage.path().join(name));
    for dir in [&upper, &work] {
        ops::create_dir(dir)?;
        // The root of the tree shows with this mode, whatever the umask is.
        ops::set_mode(dir, 0o755)?;
    }
    let left = Left::Upper(upper.clone());
    Ok((Layers::Overlay { lower: lower.to_owned(), upper, work }, left))
}

/// The directory of the store that holds exactly this tree; made if it is not there.
fn lay_out(store: &Store, root: &Listing) -> Result<PathBuf, StepError> {
    let keep = Keep { listing: root, modes: [input_mode(false), input_mode(true)], mtime_ns: &|_| MTIME_NS };
    let place = |file: &Wanted<'_>| -> Result<(), MaterializeError> {
        let (dir, name) = Dir::above(&file.to)?;
        match store.write_to(&file.digest, file.size, (&dir, name), false)? {
            true => Ok(()),
            false => Err(MaterializeError::Vanished(file.path.clone())),
        }
    };
    let mut fill = |wanted: &[Wanted<'_>]| wanted.par_iter().try_for_each(place).map(|()| true);
    let made = store.keep(&keep, &mut fill)?;
    Ok(made.ok_or_else(|| MaterializeError::Vanished(RelPath::root()))?)
}

/// Copies a tree that was laid out to a path where nothing is, so that it looks the same.
fn copy(listing: &Listing, from: &Path, to: &Path) -> Result<(), StepError> {
    let mut dirs = std::collections::BTreeSet::from([RelPath::root()]);
    for (path, entry) in listing {
        let mut next = if *entry == Entry::Dir { Some(path.clone()) } else { path.parent() };
        while let Some(dir) = next.filter(|dir| !dirs.contains(dir)) {
            next = dir.parent();
            dirs.insert(dir);
        }
    }
    let at = |dir: &Path, path: &RelPath| if path.is_root() { dir.to_owned() } else { dir.join(path.as_str()) };
    // Parents first, and no link is there yet that one could go through.
    for dir in &dirs {
        ops::create_dir(&at(to, dir))?;
        ops::set_mode(&at(to, dir), 0o755)?;
    }
    for (path, entry) in listing {
        if let Entry::File { executable, .. } = entry {
            link::copy_file_as_old(&at(from, path), &at(to, path), input_mode(*executable))?;
        }
    }
    for (path, entry) in listing {
        if let Entry::Link { target } = entry {
            ops::symlink(target, &at(to, path))?;
            ops::set_times(&at(to, path), MTIME_NS)?;
        }
    }
    dirs.iter().try_for_each(|dir| Ok(ops::set_times(&at(to, dir), MTIME_NS)?))
}

/// What is shown in the workspace: contents come from the store alone.
fn view(store: &Store, inputs: &Listing) -> Result<BTreeMap<RelPath, View>, StepError> {
    let made = inputs.keys().cloned().collect();
    // Nothing is there: a workspace on the disk may have changed since.
    let nowhere = store.mount_point()?;
    let contents = Contents { root: &nowhere, store, made: &made };
    let mut showing = Showing::new(contents, None, &|_| false);
    let tops: Vec<RelPath> =
        inputs.keys().filter_map(|path| Some(RelPath::root().child(path.components().next()?))).collect();
    let mut units: Vec<RelPath> = tops
        .into_iter()
        .filter(|top| !matches!(inputs.get(top), Some(Entry::File { .. } | Entry::Link { .. })))
        .collect();
    units.dedup();
    showing.add_all(inputs, &shape::whole(inputs, &units, &[], &RelPath::root()))?;
    let (view, _loose, changed) = showing.finish();
    match changed.into_iter().next() {
        Some(path) => Err(MaterializeError::Vanished(path).into()),
        None => Ok(view),
    }
}
