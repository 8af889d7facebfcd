//! The validated manifest: what the rest of the program works with. No spans but those errors need, no serde.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use crate::base::digest::Digest;
use crate::base::label::Label;
use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::base::span::{Place, Placed};
use crate::manifest::glob::{Pattern, PatternList};
use crate::manifest::recipe::ImageRecipe;
use crate::manifest::split::Split;

/// `[workspace]`, `[store]`, `[remote]` and the pools of the root manifest.
#[derive(Clone, Debug)]
pub struct WorkspaceConfig {
    /// `name`.
    pub name: String,
    /// `packages`: globs of package directories; `None` means every directory with a `drystone.toml`.
    pub packages: Option<Vec<Placed<String>>>,
    /// `package-graph`: whose manifests are read for dependencies between packages.
    pub package_graph: Vec<Ecosystem>,
    /// `default-branch`.
    pub default_branch: String,
    /// `system`.
    pub system: SystemPolicy,
    /// `salt`: enters every key.
    pub salt: Option<String>,
    /// `pools`: named resources and how many units each has.
    pub pools: BTreeMap<String, u32>,
    /// `[store] materialize`.
    pub materialize: Materialize,
    /// `[store] max-size` in bytes.
    pub store_bytes_max: Option<u64>,
    /// Where `[workspace]` stands.
    pub place: Place,
}

/// How outputs are put in the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Materialize {
    /// As files of its own.
    Copy,
    /// As hard links to files of the store.
    Link,
}

/// Whose manifests tell which package depends on which.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ecosystem {
    /// `Cargo.toml`.
    Cargo,
    /// `package.json` (npm, pnpm and yarn workspaces).
    Npm,
    /// `pyproject.toml`.
    Uv,
    /// `go.mod`.
    Go,
}

/// What of the machine's system a task sees and is keyed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SystemPolicy {
    /// `/usr` and friends, keyed as a whole by the package database (`system = "packages"`, the default).
    Packages,
    /// Declared tools only (`system = "tools"`).
    Tools,
}

/// A task after templates, matrix and interpolation; one per label.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its label, matrix values included.
    pub label: Label,
    /// Where it is declared (the name in the table header, or the template reference that made it).
    pub place: Place,
    /// What it needs before it can run, in the order written.
    pub needs: Arc<[Need]>,
    /// `services`: what must be up while it runs, in the order written.
    pub services: Arc<[ServiceUse]>,
    /// `tags`.
    pub tags: Arc<[String]>,
    /// What it does.
    pub kind: TaskKind,
}

/// What a task does.
#[derive(Clone, Debug)]
pub enum TaskKind {
    /// Runs a command.
    Run(RunTask),
    /// Fetches a file whose digest is known.
    Fetch(Box<FetchTask>),
    /// Runs a command beside tasks that use it.
    Service(Box<ServiceTask>),
}

impl TaskKind {
    /// The word for `kind:` selections.
    pub fn word(&self) -> &'static str {
        match self {
            TaskKind::Run(run) if run.command.image().is_some() => "image",
            TaskKind::Run(_) => "run",
            TaskKind::Fetch(_) => "fetch",
            TaskKind::Service(_) => "service",
        }
    }

    /// What runs, for those that run a command: tasks and services.
    pub fn command(&self) -> Option<&RunTask> {
        match self {
            TaskKind::Run(run) => Some(run),
            TaskKind::Service(service) => Some(&service.run),
            TaskKind::Fetch(_) => None,
        }
    }

    /// Whether it is a service.
    pub fn is_service(&self) -> bool {
        matches!(self, TaskKind::Service(_))
    }
}

/// One entry of `services`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceUse {
    /// Where it is written.
    pub place: Place,
    /// The package.
    pub package: RelPath,
    /// The name.
    pub service: String,
}

/// One entry of `needs`, or a task that `tools` or `root` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Need {
    /// Where it is written.
    pub place: Place,
    /// Which tasks.
    pub which: Which,
    /// `#interface`: only the dependency's `interface` outputs are seen and keyed on.
    pub interface_only: bool,
}

/// Which tasks a need names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    /// `^name`, `^^name`, `^dev:name`: the task of that name in the packages this one depends on (those that have it).
    Upstream {
        /// The task name.
        task: String,
        /// How far.
        reach: Reach,
    },
    /// `:name`, `//pkg:name`, `//pkg:name[node=20]`: a task; without matrix values, every task the matrix made of it.
    Task {
        /// The package.
        package: RelPath,
        /// The task name.
        task: String,
        /// Matrix values that must match; may be fewer than the task has.
        matrix: BTreeMap<String, String>,
    },
}

/// Which package dependencies `^` follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// `^`: direct dependencies that are not for development only.
    Direct,
    /// `^^`: all of them, transitively.
    Transitive,
    /// `^dev:`: direct development-only dependencies.
    Development,
}

/// A task that runs a command.
#[derive(Clone, Debug)]
pub struct RunTask {
    /// `run`.
    pub command: Command,
    /// `inputs`.
    pub inputs: Inputs,
    /// `scratch`, workspace-relative: may be written, is thrown away without a word.
    pub scratch: PatternList,
    /// The rest, which has nothing of the package in it: tasks of one template share it over all packages.
    pub terms: Arc<RunTerms>,
}

impl Deref for RunTask {
    type Target = RunTerms;
    fn deref(&self) -> &RunTerms {
        &self.terms
    }
}

impl DerefMut for RunTask {
    fn deref_mut(&mut self) -> &mut RunTerms {
        Arc::make_mut(&mut self.terms)
    }
}

/// What a task that runs a command declares beside the command and what it reads.
#[derive(Clone, Debug)]
pub struct RunTerms {
    /// `outputs`, relative to the package, in the order written.
    pub outputs: Vec<Placed<Pattern>>,
    /// `env`.
    pub env: BTreeMap<String, String>,
    /// `pass-env`.
    pub pass_env: Vec<String>,
    /// `secret-env`.
    pub secret_env: Vec<String>,
    /// Programs of the machine among `tools`.
    pub tools: Vec<Placed<String>>,
    /// Tasks among `tools`, in the order written: their output trees are tools.
    pub tool_trees: Vec<Need>,
    /// `root`: the task whose output tree takes the place of the machine's system.
    pub root: Option<Need>,
    /// `network`.
    pub network: bool,
    /// `isolation`.
    pub isolation: IsolationRequest,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// `retries`.
    pub retries: u32,
    /// `resources`.
    pub resources: Resources,
    /// `caches`: directories relative to the package, private to the task and kept between its runs.
    pub caches: Vec<RelPath>,
    /// `cache`.
    pub cache: bool,
    /// `interface`: the part of the outputs that `#interface` dependants see.
    pub interface: PatternList,
    /// `committed`: outputs that are also in git.
    pub committed: Vec<Placed<Pattern>>,
    /// `on-failure` and all `reports`: collected even when the task fails.
    pub on_failure: PatternList,
    /// `reports`: JUnit and coverage files, relative to the package. Collected whether the task fails or not, and also part of
    /// `on_failure`.
    pub reports: PatternList,
    /// `fix`.
    pub fix: Option<Command>,
    /// `salt`.
    pub salt: Option<String>,
    /// `undeclared`.
    pub undeclared: Undeclared,
    /// `split`, and which part of it this is.
    pub split: Option<Box<Split>>,
}

/// A command that runs while tasks use it.
#[derive(Clone, Debug)]
pub struct ServiceTask {
    /// What runs and what it sees; without outputs and without a time limit.
    pub run: RunTask,
    /// `ready`.
    pub ready: Placed<Ready>,
    /// `timeout`: how long it may take to become ready.
    pub ready_within: Duration,
    /// `stop-signal`.
    pub stop_signal: StopSignal,
}

/// What asks a service to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopSignal {
    /// `SIGTERM`.
    Term,
    /// `SIGINT`.
    Int,
    /// `SIGQUIT`.
    Quit,
    /// `SIGHUP`.
    Hup,
    /// `SIGUSR1`.
    Usr1,
    /// `SIGUSR2`.
    Usr2,
    /// `SIGWINCH`.
    Winch,
    /// `SIGKILL`.
    Kill,
}

/// What tells that a service can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ready {
    /// This TCP port takes connections.
    Port(u16),
    /// This address on the loopback interface answers without an error.
    Http {
        /// Host and port as the manifest has them, for the request.
        host: String,
        /// The port.
        port: u16,
        /// Path and query, from the slash on.
        path: String,
    },
    /// A line it prints holds this text.
    Log(String),
    /// This command exits with 0.
    Run(Command),
}

/// `undeclared`: what follows when a task touches what it does not declare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undeclared {
    /// It is told, where it may be why the task failed.
    Warn,
    /// The task is always observed, and fails.
    Error,
}

/// What a task runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A string: run as `sh -euc`.
    Shell(Arc<str>),
    /// An array: executed as it is; the first word is a tool.
    Exec(Arc<[String]>),
    /// No program: an image is put together.
    Image(Arc<ImageRecipe>),
}

impl Command {
    /// The image that is put together, if that is what it is.
    pub fn image(&self) -> Option<&ImageRecipe> {
        match self {
            Self::Image(recipe) => Some(recipe),
            Self::Shell(_) | Self::Exec(_) => None,
        }
    }
}

/// Where a task's source files come from.
#[derive(Clone, Debug)]
pub enum Inputs {
    /// `"package"`: every file of the package that git does not ignore, less nested packages and outputs of tasks.
    Package,
    /// A list of patterns; order matters, `!` takes away.
    Patterns(PatternList),
    /// `"traced"`: what it is seen to touch of the whole workspace.
    Traced,
}

/// `isolation` of a task or of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IsolationRequest {
    /// The best the machine allows, but never none.
    Auto,
    /// `namespaces`.
    Namespaces,
    /// `landlock`.
    Landlock,
    /// `none`.
    None,
}

/// `resources`: what a running task holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resources {
    /// Job slots held; at least 1.
    pub cpu: u32,
    /// Bytes of memory it may use at once.
    pub memory_bytes: Option<u64>,
    /// Processes and threads it may have at once; `None` is the default.
    pub processes: Option<u32>,
    /// A named pool, one unit of which it holds.
    pub pool: Option<Placed<String>>,
    /// Whether it must run alone.
    pub exclusive: bool,
}

impl Resources {
    /// Whether it asks for limits that not every machine can hold.
    pub fn is_limited(&self) -> bool {
        self.memory_bytes.is_some() || self.processes.is_some()
    }
}

/// A task that fetches one file by digest.
#[derive(Clone, Debug)]
pub struct FetchTask {
    /// Where it may be had; tried in order.
    pub urls: Vec<String>,
    /// What its bytes must digest to.
    pub expect: Expected,
    /// How it is unpacked.
    pub unpack: Unpack,
    /// Which platform of an image is meant; `None` for the machine's.
    pub platform: Option<Platform>,
    /// Leading path components dropped when unpacking.
    pub strip: usize,
    /// Where it lands, relative to the package: a file, or a directory when unpacked.
    pub output: RelPath,
    /// Whether the file is made executable (when not unpacked).
    pub executable: bool,
}

/// The digest a fetched file must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// `blake3`.
    Blake3(Digest),
    /// `sha256`.
    Sha256([u8; 32]),
}

/// How a fetched file is unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unpack {
    /// It stays a file.
    No,
    /// By its name: `.tar`, `.tar.gz`, `.tgz`, `.tar.xz`, `.tar.zst`, `.zip`, `.deb`.
    ByName,
    /// As an image, whose layers are applied.
    Image,
}
