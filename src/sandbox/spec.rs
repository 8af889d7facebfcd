//! What a sandboxed command sees and what comes back. Plain data; the levels interpret it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::base::limits::PROCESSES_DEFAULT;
use crate::base::path::RelPath;
use crate::sandbox::surroundings::Surroundings;

/// How far a result can be trusted: lower levels never serve a request for a higher one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// A private copy of the inputs, nothing enforced.
    None,
    /// File contents enforced, existence visible.
    Landlock,
    /// Own user, mount, pid, uts, ipc and net namespaces, fresh root.
    Namespaces,
}

impl Level {
    /// The word in manifests, results and reports.
    pub const fn word(self) -> &'static str {
        match self {
            Level::None => "none",
            Level::Landlock => "landlock",
            Level::Namespaces => "namespaces",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        [Level::None, Level::Landlock, Level::Namespaces].into_iter().find(|level| level.word() == word)
    }
}

/// Where the workspace appears inside.
pub const WORKSPACE_DIR: &str = "/workspace";
/// Where output trees of tasks appear as tools inside.
pub const TOOLS_DIR: &str = "/tools";
/// Home directory inside: does not exist, so that nothing is read from it or kept in it.
pub const HOME_DIR: &str = "/homeless";
/// Scratch directory inside.
pub const SCRATCH_DIR: &str = "/tmp";
/// Directory that services and their users share inside, for sockets.
pub const SERVICES_DIR: &str = "/services";
/// Host name inside.
pub const HOST_NAME: &str = "drystone";

/// When everything in the view was last changed, unless the spec says otherwise, in nanoseconds since 1970: the second day that a
/// zip archive can hold, so that no time zone makes it earlier than the first.
pub const MTIME_NS: i64 = 315_619_200 * 1_000_000_000;

/// Permission bits of what an input is mounted on: nothing that a command makes has them, so it is known again where it came to lie
/// when the command renamed the directory that it is in.
pub const STAND_IN_FILE_MODE: u32 = 0o1444;
/// The same of a directory.
pub const STAND_IN_DIR_MODE: u32 = 0o1555;

/// Mode of an input. Writable by its bits, for copies of it are; that it cannot be written is the mount's matter.
pub const fn input_mode(executable: bool) -> u32 {
    if executable { 0o755 } else { 0o644 }
}

/// What is in a file of the view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// These bytes: what the engine has read, or in an init where they lie in the job.
    Bytes(Cow<'static, [u8]>),
    /// What is in a regular file of the host, which nothing changes. It is bound where files can be bound: then the command sees
    /// its mode and times as well.
    Host(PathBuf),
}

/// One thing placed in the view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum View {
    /// A file that the command cannot change.
    File {
        /// What is in it.
        content: Content,
        /// Whether it must be executable (copies need to know; binds inherit it).
        executable: bool,
    },
    /// A file that the command may change; what it came from stays as it is.
    Copy {
        /// What is in it.
        content: Content,
        /// Whether it must be executable.
        executable: bool,
    },
    /// A directory of the host with everything beneath, read-only. Only where all of it belongs to the view, and has the modes and
    /// times that are to be seen.
    Dir {
        /// Path on the host.
        host: PathBuf,
    },
    /// A symbolic link with this target as text.
    Link {
        /// The target.
        target: String,
    },
    /// An empty, writable directory.
    Empty,
}

/// Whether a path lies in a directory that is shown whole, or is one.
pub fn is_in_whole_dir(view: &BTreeMap<RelPath, View>, path: &RelPath) -> bool {
    let mut here = Some(path.clone());
    while let Some(dir) = here {
        if matches!(view.get(&dir), Some(View::Dir { .. })) {
            return true;
        }
        here = dir.parent();
    }
    false
}

/// A directory of the host made visible elsewhere than the workspace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mount {
    /// Path on the host.
    pub host: PathBuf,
    /// Absolute path inside.
    pub inside: PathBuf,
    /// Whether the command may write to it.
    pub access: Access,
}

/// What may be done to a mount.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Access {
    /// Read and execute.
    ReadOnly,
    /// Write as well.
    ReadWrite,
}

/// What of a system is visible beside the workspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum System {
    /// `/usr`, `/bin`, `/sbin`, `/lib*` of the host, read-only.
    Host,
    /// Nothing but the mounts, and symbolic links by their absolute paths.
    Nothing {
        /// Path to target.
        links: BTreeMap<PathBuf, PathBuf>,
    },
    /// What lies in this directory of the host, in place of the host's own system, read-only. What is ours anyway is not taken
    /// from it: `/dev`, `/proc`, `/tmp`, `/workspace`, the mounts below [`TOOLS_DIR`], and the small files of `/etc`.
    Tree {
        /// Path on the host; absolute. Nobody else writes there.
        host: PathBuf,
    },
    /// A tree in place of the host's own system that the command may change, as user 0. Only at [`Level::Namespaces`], and with
    /// no mounts but in the workspace.
    Writable(WritableRoot),
}

/// A root that the command may change; what it changed stays on the disk of the host.
///
/// Ours are `/dev`, `/proc`, `/tmp` and `/workspace` ([`crate::sandbox::writable::is_covered`]); places for them that the tree lacks are
/// made in it, as are small files of `/etc` ([`crate::sandbox::writable::LAID`]).
///
/// The command is user 0 of a user namespace in which there is nobody else. It may give files to others all the same, and sees whose they
/// are ([`crate::sandbox::owners`]); to become somebody else fails. It may do with files what root may, and nothing else of that: not mount, trace, or make devices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WritableRoot {
    /// How what it writes is kept apart from what was there.
    pub layers: Layers,
    /// Permission bits of what is to be seen with others than those it was laid out with: files and directories, no links, by path.
    pub modes: BTreeMap<RelPath, u32>,
    /// Owners that are to be seen, where they are not 0:0: of files, directories and links, by path.
    pub owners: Owners,
    /// Absolute directory inside that the command starts in, in place of [`SandboxSpec::cwd`].
    pub directory: PathBuf,
}

/// How a root can be written; paths on the host, absolute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Layers {
    /// By an overlay (Linux 5.11). Where the kernel refuses it, building fails at [`crate::sandbox::writable::OVERLAY_STEP`].
    Overlay {
        /// The tree. Nobody writes there.
        lower: PathBuf,
        /// An empty directory, for what the command writes.
        upper: PathBuf,
        /// An empty directory on the same file system, for the kernel.
        work: PathBuf,
    },
    /// The tree is a copy that may be written itself.
    Copy {
        /// The copy.
        root: PathBuf,
    },
}

/// Whether the command may use the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// Loopback only.
    Loopback,
    /// The loopback of a pod, which it shares with the others in it; said to sandboxes only, no action has it.
    Pod,
    /// The host's.
    Host,
}

/// One command to run.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// Program (absolute path inside, or a name looked up in `PATH` of `env`) and arguments. Not empty.
    pub argv: Vec<String>,
    /// The exact environment.
    pub env: BTreeMap<String, String>,
    /// Directory it starts in, below the workspace. Created if the view does not have it.
    pub cwd: RelPath,
    /// What lies in the workspace, by path relative to its root, in byte order; parents are created, writable.
    pub view: BTreeMap<RelPath, View>,
    /// Modification times that are not [`MTIME_NS`], of files given as bytes, of links and of directories that are not bound.
    pub mtimes: BTreeMap<RelPath, i64>,
    /// The visible system.
    pub system: System,
    /// Tool roots (absolute) and caches (inside `/workspace/…`).
    pub mounts: Vec<Mount>,
    /// Network policy.
    pub network: Network,
    /// After this the whole tree of processes is ended.
    pub timeout: Option<Duration>,
    /// What asks all its processes to end when it is to stop; they are killed after a grace.
    pub stop_signal: Signal,
    /// A directory on disk the sandbox may use for this command alone; absolute, exists, empty; the caller removes it.
    pub stage: PathBuf,
    /// Whether what it touches in the workspace is observed. Costs about 10 µs for each call that names a path.
    pub observe: bool,
    /// What it may use at once, with all it starts.
    pub limits: Limits,
    /// What is around it, where that is not as ever: in rebuilds of an audit.
    pub surroundings: Option<Box<Surroundings>>,
}

/// What a command may use at once, with all it starts. One that takes more is killed whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of memory, what it writes to `/tmp` and the workspace included; `None` is no limit.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: None, processes: PROCESSES_DEFAULT }
    }
}

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Limit {
    /// [`Limits::memory_bytes`].
    Memory,
    /// [`Limits::processes`].
    Processes,
}

impl SandboxSpec {
    /// When what is at a path was last changed.
    pub fn mtime_ns(&self, path: &RelPath) -> i64 {
        self.mtimes.get(path).copied().unwrap_or(MTIME_NS)
    }

    /// Every directory that stands above something in the workspace, with the root and those that are there for themselves.
    pub fn directories(&self) -> BTreeSet<RelPath> {
        let own = self.view.iter().filter(|(_, view)| matches!(view, View::Empty)).map(|(path, _)| path.clone());
        let mounted = self.mounts.iter().filter_map(|mount| mount.inside.strip_prefix(WORKSPACE_DIR).ok()?.to_str());
        let mounted = mounted.filter_map(|inside| RelPath::parse(inside).ok()?.parent());
        let above = self.view.keys().filter_map(RelPath::parent);
        let mut all = BTreeSet::from([RelPath::root()]);
        for path in own.chain(above).chain(mounted).chain([self.cwd.clone()]) {
            let mut next = Some(path);
            while let Some(path) = next.filter(|path| !all.contains(path)) {
                next = path.parent();
                all.insert(path);
            }
        }
        all
    }
}

/// Which stream bytes came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Its time was up.
    TimedOut,
    /// It took more than a limit of its spec.
    Over(Limit),
    /// The run was cancelled.
    Cancelled,
}

pub use crate::process::usage::Usage;
pub use crate::sandbox::observation::{Observation, Touch};
pub use crate::sandbox::owned::{Owned, Owner, Owners};

/// What came of it.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// What it used.
    pub usage: Usage,
    /// The workspace as the command left it: its own writes, and something where inputs were.
    ///
    /// Read it by path, following no link; entries at the paths of the view are not its writes (but see `View::Empty`):
    /// at `namespaces` they are what the inputs were mounted over, at `none` the copies. Caches mounted inside are empty directories or links.
    /// All processes are gone, so nothing changes under the reader. Freed when dropped.
    pub workspace: Leftover,
    /// What it touched in the workspace; present where it was to be observed.
    pub observation: Option<Observation>,
    /// Whose the files of its root are; present where it succeeded in a root that it may change.
    pub owned: Option<Owned>,
}

/// A directory that outlives the command until dropped.
#[derive(Debug)]
pub struct Leftover {
    path: PathBuf,
    // Keeps the file system of a finished namespace alive; `path` then goes through `/proc/self/fd`.
    _keep: Option<std::os::fd::OwnedFd>,
}

impl Leftover {
    /// A directory on disk; whoever made it removes it.
    pub fn on_disk(path: PathBuf) -> Self {
        Self { path, _keep: None }
    }

    /// A directory that lives only as long as this descriptor.
    pub fn behind(descriptor: std::os::fd::OwnedFd) -> Self {
        use std::os::fd::AsRawFd;
        // The dot makes it the directory itself even for a call that follows no link.
        let path = PathBuf::from(format!("/proc/self/fd/{}/.", descriptor.as_raw_fd()));
        Self { path, _keep: Some(descriptor) }
    }

    /// Where to read it.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// Why a command could not be run at all. A command that ran and failed is not an error.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program is not visible inside.
    #[error("cannot start `{program}`: {cause}")]
    CannotStart {
        /// As written.
        program: String,
        /// What is wrong and where it was looked for.
        cause: String,
    },
    /// The sandbox could not be built.
    #[error("cannot build the {} sandbox: {step}: {cause}", level.word())]
    Setup {
        /// The level.
        level: Level,
        /// What was being done, with the path.
        step: String,
        /// What the system said.
        cause: String,
    },
    /// The process that starts commands is gone.
    #[error("the launcher process ended unexpectedly: {cause}")]
    LauncherGone {
        /// What is known.
        cause: String,
    },
    /// A file operation on the stage.
    #[error(transparent)]
    Fs(#[from] crate::fs::ops::FsError),
}
