//! What one invocation knows while it plans and runs: workspace, store, stat indexes, tools, sandboxes. Decides nothing.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::engine::collect::Collected;
use crate::engine::failures::Failures;
use crate::engine::image_key;
use crate::engine::image_root::{FlatRoot, FlatRoots};
use crate::engine::inspect::Inspecting;
use crate::engine::levels::Levels;
use crate::engine::placed::Placed;
use crate::engine::placing::Placing;
use crate::engine::rest::Rest;
use crate::engine::secrets::Secrets;
use crate::engine::standing::{Standing, Stood};
use crate::engine::tracked::Reread;
use crate::engine::unstable::Unstable;
use crate::engine::written::Records;
use crate::fingerprint::packages::Packages;
use crate::fingerprint::roots::{self, Crowds, RootError};
use crate::fingerprint::system::{self, SystemIdentity};
use crate::fingerprint::tools::{self, FileDigest, Tool, ToolContext, ToolError};
use crate::fs::digest::digest_file;
use crate::fs::dir::Dir;
use crate::fs::nursery::Nursery;
use crate::fs::ops::{self, FsError};
use crate::fs::stat::StatKey;
use crate::graph::build::TaskGraph;
use crate::manifest::glob::Pattern;
use crate::manifest::lock::Lock;
use crate::manifest::model::{Command, IsolationRequest, RunTask, SystemPolicy};
use crate::process::cancel::Cancel;
use crate::sandbox::open::{Sandbox, open_with};
use crate::sandbox::spec::{Level, SandboxError};
use crate::store::Store;
use crate::workspace::files::SourceFiles;
use crate::workspace::model::Workspace;
use crate::workspace::outputs::{OutputIndex, claims_of};
use crate::workspace::repository;
use crate::workspace::stat_index::{Leaf, LeafError, Looks, StatIndex};

/// The environment of the person or job that started the program; only `cli` reads it.
#[derive(Clone, Debug, Default)]
pub struct Ambient {
    /// All variables that are UTF-8.
    pub variables: BTreeMap<String, String>,
    /// The program to start as launcher.
    pub program: PathBuf,
    /// Whether this is a CI job.
    pub ci: bool,
}

/// How results are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reuse {
    /// Earlier results are taken.
    Results,
    /// Everything selected runs again (`--force`).
    Nothing,
}

/// What a run does with committed outputs that differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Committed {
    /// The task fails and says what differs.
    Check,
    /// The tree is brought up to date (`--fix`).
    Fix,
}

/// When commands are observed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observe {
    /// Once more after a failure, where that is cheap.
    AfterFailure,
    /// Whenever they run (`--observe`).
    Always,
}

/// Whether anything may be asked for over the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// What tasks declare.
    Declared,
    /// Nothing: what would need it fails (`--offline`). What is in the store serves all the same, so no key holds this.
    Offline,
}

/// Choices of one invocation.
#[derive(Clone, Debug)]
pub struct Options {
    /// Job slots, at least 1.
    pub jobs: u32,
    /// What a failure stops.
    pub on_failure: crate::engine::scheduler::OnFailure,
    /// Whether results are reused.
    pub reuse: Reuse,
    /// Level asked for on the command line; wins over the tasks'.
    pub isolation: Option<IsolationRequest>,
    /// What happens to committed outputs.
    pub committed: Committed,
    /// When commands are observed.
    pub observe: Observe,
    /// Whether the network is used.
    pub reach: Reach,
    /// Who looks at results by building them again.
    pub inspecting: Inspecting,
}

/// What is read of earlier invocations when a session begins.
#[derive(Clone, Copy)]
pub enum Memory<'a> {
    /// What is known of every file of the workspace, and which tasks stood.
    Whole,
    /// Nothing that is known to what is left of a run.
    Rest(&'a Rest),
    /// Nothing of the workspace.
    None,
}

/// Everything one invocation shares between its threads.
pub struct Session<'w> {
    /// The loaded workspace.
    pub workspace: &'w Workspace,
    /// Its root, opened once: what is written to the tree is written beneath it, whatever has its name meanwhile.
    pub root: Dir,
    /// Its task graph.
    pub graph: &'w TaskGraph,
    /// The store.
    pub store: Arc<Store>,
    /// Choices.
    pub options: Options,
    /// The environment outside.
    pub ambient: Ambient,
    /// Ends everything.
    pub cancel: Cancel,
    /// When the invocation began to look at the tree: what a person waits for counts from here.
    pub opened: std::time::Instant,
    /// Threads for digesting and comparing, one per core; never waits for a child.
    pub cpu: rayon::ThreadPool,
    /// Source files as git sees them.
    pub files: SourceFiles<'w>,
    /// Which paths are outputs of tasks.
    pub outputs: OutputIndex<'w>,
    /// Where fetch tasks land, relative to their packages.
    pub(super) fetched: HashMap<TaskId, Pattern>,
    /// Which tasks stood when the last run of this worktree ended.
    pub(super) standing: Standing,
    /// Held by each prepared action that waits to be run, so that it tells how many there are.
    pub(super) ready: Arc<()>,
    /// Those of them that were hits in this run, as long as nobody saw whether the store keeps what they made.
    pub(super) recalled: Mutex<HashMap<TaskId, Arc<Stood>>>,
    /// Whether git's index still names no output of any task, where it was found to name none before.
    pub(super) clean_index: Option<Arc<Reread>>,
    /// Whether the index has more than this run needed, and is to be saved.
    keeps_index: bool,
    index: Arc<StatIndex>,
    machine: Arc<StatIndex>,
    system: OnceLock<SystemIdentity>,
    tools: Mutex<ResolvedTools>,
    tool_roots: Mutex<BTreeMap<PathBuf, Digest>>,
    crowds: OnceLock<Arc<Crowds>>,
    packages: OnceLock<Arc<Packages>>,
    tree_dirs: Mutex<BTreeMap<Digest, PathBuf>>,
    flat_roots: Mutex<FlatRoots>,
    repository: OnceLock<String>,
    lock: OnceLock<Result<Lock, Diagnostic>>,
    leaked: Mutex<BTreeSet<Digest>>,
    sandboxes: Mutex<BTreeMap<Level, Arc<dyn Sandbox>>>,
    pub(super) traced_sources: OnceLock<Arc<crate::engine::visible::Sources>>,
    pub(super) tracked: OnceLock<crate::engine::tracked::Tracked>,
    /// What isolation this machine gives.
    pub levels: Levels,
    /// What is kept for this worktree between invocations.
    pub(super) state_dir: PathBuf,
    /// Where outputs are made before they are put in place. Before what announces it: fields drop in order.
    pub(super) nursery: Nursery,
    /// Where outputs are being put in place.
    pub(super) placing: Placing,
    /// What was put in place in this worktree, in this run and before.
    pub(super) records: Records,
    /// What was put in place so far.
    pub(super) placed: Placed,
    /// Which tasks are known to come to different outputs.
    pub(super) unstable: Unstable,
}

/// Tools by name, and by the directory of the package where that matters.
type ResolvedTools = BTreeMap<(String, Option<PathBuf>), Result<Arc<Tool>, ToolError>>;

/// Stack of a CPU thread, in bytes; only what is used takes memory.
const CPU_STACK_BYTES: usize = 64 * 1024 * 1024;

/// A poisoned lock means a panic elsewhere, which ends the run by itself; the data is a cache either way.
pub(super) fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why an invocation cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The root of the workspace cannot be opened.
    #[error(transparent)]
    Root(#[from] FsError),
    /// No thread could be started.
    #[error("cannot start worker threads: {0}")]
    Threads(String),
}

impl<'w> Session<'w> {
    /// Opens what a run needs. Cost: reads the two stat indexes; without the whole memory, only that of the machine.
    pub fn open(
        (workspace, graph): (&'w Workspace, &'w TaskGraph),
        store: Arc<Store>,
        options: Options,
        ambient: Ambient,
        cancel: Cancel,
        memory: Memory<'_>,
    ) -> Result<Self, SessionError> {
        let rest = match memory {
            Memory::Rest(rest) => Some(rest),
            Memory::Whole | Memory::None => None,
        };
        let is_whole = matches!(memory, Memory::Whole);
        let state_dir = store.workspace_dir(&workspace.root)?;
        let levels = Levels::new(store.dir(), &ambient.program);
        let cpu = rayon::ThreadPoolBuilder::new()
            .thread_name(|index| format!("cpu-{index}"))
            // A lookup that waits for its batch takes up another lookup on its stack, and so on.
            .stack_size(CPU_STACK_BYTES)
            .build()
            .map_err(|error| SessionError::Threads(error.to_string()))?;
        Ok(Self {
            index: Arc::new(if is_whole {
                StatIndex::load(&state_dir.join("stat-index"), Looks::Unheard)
            } else {
                StatIndex::of_known([])
            }),
            machine: Arc::new(StatIndex::load(&store.dir().join("machine-index"), Looks::Heard)),
            files: SourceFiles::new(workspace),
            outputs: OutputIndex::new(workspace),
            fetched: fetch_patterns(workspace),
            standing: if is_whole { Standing::load(&state_dir, store.mark()) } else { Standing::unsaved(store.mark()) },
            ready: Arc::default(),
            recalled: Mutex::default(),
            system: rest.map_or_else(OnceLock::new, |rest| OnceLock::from(rest.system())),
            clean_index: rest.and_then(|rest| Reread::begin(rest.clean_index()?, &ambient.variables)),
            keeps_index: is_whole,
            tools: Mutex::default(),
            tool_roots: Mutex::default(),
            crowds: OnceLock::new(),
            packages: OnceLock::new(),
            tree_dirs: Mutex::default(),
            flat_roots: Mutex::default(),
            repository: OnceLock::new(),
            lock: OnceLock::new(),
            leaked: Mutex::default(),
            sandboxes: Mutex::default(),
            traced_sources: OnceLock::new(),
            tracked: OnceLock::new(),
            root: Dir::open(&workspace.root)?,
            workspace,
            graph,
            store,
            options,
            ambient,
            cancel,
            opened: std::time::Instant::now(),
            cpu,
            levels,
            nursery: Nursery::default(),
            placing: Placing::new(&state_dir),
            records: Records::new(&state_dir),
            placed: Placed::default(),
            unstable: Unstable::default(),
            state_dir,
        })
    }

    /// Ends it where the program ends too: what names every file of the workspace is left to the system.
    pub fn leave(self) {
        let Self { files, outputs, index, .. } = self;
        std::mem::forget((files, outputs, index));
    }

    /// What failed commands of this worktree printed last.
    pub fn failures(&self) -> Failures {
        Failures::new(&self.state_dir)
    }

    /// Marks the contents that hold secrets: they are in the store to be put in place, and go when the invocation ends.
    pub fn discard_later(&self, collected: &Collected) {
        let entries = collected.leaking.iter().filter_map(|path| collected.listing.get(path));
        held(&self.leaked).extend(entries.filter_map(|entry| match entry {
            Entry::File { digest, .. } => Some(*digest),
            Entry::Link { .. } | Entry::Dir => None,
        }));
    }

    /// The same for content that was made of such.
    pub fn discard_content(&self, digest: Digest) {
        held(&self.leaked).insert(digest);
    }

    /// Whether a content holds a secret, so that no copy of it may stay in the store.
    pub fn is_leaking(&self, digest: &Digest) -> bool {
        held(&self.leaked).contains(digest)
    }

    /// Keeps what was learned about files for the next invocation, and removes from the store what must not stay there.
    /// Failing to is no reason to fail.
    pub fn save_indexes(&self) {
        for digest in std::mem::take(&mut *held(&self.leaked)) {
            if let Err(error) = self.store.discard(&digest) {
                tracing::warn!(%error, "content that holds a secret stays until the store is collected");
            }
        }
        self.placed.tell(&self.index);
        let index = if self.keeps_index { self.index.save(&self.state_dir.join("stat-index")) } else { Ok(()) };
        let saved = index.and_then(|()| self.machine.save(&self.store.dir().join("machine-index")));
        if let Err(error) = saved {
            tracing::debug!(%error, "the stat index was not saved");
        }
        if let Err(error) = self.store.touch_results(self.standing.take_used()) {
            tracing::debug!(%error, "results count as used at an earlier time");
        }
    }

    /// Keeps which tasks stand for the next invocation. Only once the store has written all it was given: a task stands by its result.
    /// Failing to is no reason to fail.
    pub fn save_standing(&self) {
        let saved =
            self.standing.save(|| self.workspace.tasks.iter().map(|(_, task)| task.label.to_string()).collect());
        if let Err(error) = saved {
            tracing::debug!(%error, "what stands was not saved");
        }
    }

    /// What lies at workspace paths now, digested only where the stat signature is new.
    pub fn leaves(&self, paths: &[RelPath]) -> Vec<Result<Leaf, LeafError>> {
        self.digest_on_cpu(&self.index, &self.workspace.root, paths)
    }

    /// Adds workspace files as they are known to be, and to stay as long as they have their signatures.
    pub fn add_known(&self, known: impl IntoIterator<Item = (RelPath, StatKey, Digest)>) {
        self.index.add_known(known);
    }

    /// Whether the digest of a workspace file with this signature is known, and stays what it is as long as the signature does.
    pub fn is_settled(&self, path: &RelPath, stat: &StatKey) -> bool {
        self.index.is_settled(path, stat)
    }

    /// Digests on the CPU pool and waits without taking up other work.
    ///
    /// `ThreadPool::install` from a thread of another rayon pool runs further jobs of that pool while it waits; a job that
    /// holds the lock of its action must never begin a second one on its stack. So job threads wait on a channel.
    fn digest_on_cpu(&self, index: &Arc<StatIndex>, root: &Path, paths: &[RelPath]) -> Vec<Result<Leaf, LeafError>> {
        if self.cpu.current_thread_index().is_some() || rayon::current_thread_index().is_none() {
            return self.cpu.install(|| index.digest(root, paths));
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        let (index, root, paths) = (Arc::clone(index), root.to_owned(), paths.to_vec());
        self.cpu.spawn(move || drop(sender.send(index.digest(&root, &paths))));
        receiver.recv().expect("a batch that panics ends the program")
    }

    /// The same, with anything that is no file or link, or cannot be read, as absent.
    pub fn observe(&self, paths: &[RelPath]) -> Vec<Option<Entry>> {
        self.leaves(paths).into_iter().map(|leaf| leaf.ok().map(|leaf| leaf.entry)).collect()
    }

    /// Digests files of the machine by absolute path. One whose name is not UTF-8 is not remembered, and read every time.
    fn machine_digests(&self, paths: &[PathBuf]) -> Vec<Result<FileDigest, FsError>> {
        let named =
            |path: &Path| RelPath::parse_bytes(path.strip_prefix("/").ok()?.as_os_str().as_encoded_bytes()).ok();
        let below: Vec<Option<RelPath>> = paths.iter().map(|path| named(path)).collect();
        let known: Vec<RelPath> = below.iter().flatten().cloned().collect();
        let mut leaves = self.digest_on_cpu(&self.machine, Path::new("/"), &known).into_iter();
        let found = below.iter().zip(paths).map(|(below, path)| {
            if below.is_none() {
                return digest_unnamed(path);
            }
            match leaves.next().expect("one per path") {
                Ok(Leaf { entry: Entry::File { digest, executable, .. }, .. }) => Ok((digest, executable)),
                Err(LeafError::Fs(error)) => Err(error),
                _ => Err(not_regular(path)),
            }
        });
        found.collect()
    }

    /// Identity of the system, once per invocation.
    pub fn system(&self) -> &SystemIdentity {
        self.system.get_or_init(|| {
            system::identify(Path::new("/"), &|paths| {
                self.machine_digests(paths).into_iter().map(|found| found.ok().map(|(digest, _)| digest)).collect()
            })
        })
    }

    /// Digests an installation root, once per invocation: tools of several packages share them.
    fn root_digest(&self, root: &Path) -> Result<Digest, RootError> {
        if let Some(known) = held(&self.tool_roots).get(root) {
            return Ok(*known);
        }
        let digest = roots::root_digest(root, &|paths| self.machine_digests(paths))?;
        held(&self.tool_roots).insert(root.to_owned(), digest);
        Ok(digest)
    }

    fn tool_context(&self, directory: PathBuf) -> ToolContext {
        let variable = |name: &str| self.ambient.variables.get(name).cloned();
        let overrides = ["PYENV_VERSION", "RUSTUP_TOOLCHAIN", "RUSTUP_HOME"];
        let home = variable("HOME").map(PathBuf::from);
        let crowds = self.crowds.get_or_init(|| Arc::new(Crowds::read(Path::new("/"), home.as_deref())));
        ToolContext {
            path: variable("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default(),
            crowds: Arc::clone(crowds),
            alone: self.packages(),
            home,
            directory,
            directory_asked: Cell::default(),
            root: self.workspace.root.clone(),
            overrides: overrides.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?))).collect(),
        }
    }

    /// Packages of the machine, where only tools are visible.
    fn packages(&self) -> Option<Arc<Packages>> {
        let read = || Arc::new(Packages::read(Path::new("/")));
        (self.workspace.config.system == SystemPolicy::Tools).then(|| Arc::clone(self.packages.get_or_init(read)))
    }

    /// What every task has where only tools are visible: a shell, and with output trees among its tools the libraries of the system.
    pub fn implicit_tools(&self, run: &RunTask) -> Result<Vec<Arc<Tool>>, ToolError> {
        let mut all = vec![self.tool("/bin/sh", &RelPath::root())?];
        if !run.tool_trees.is_empty() {
            let key = (tools::SYSTEM_LIBRARIES.to_owned(), None);
            let known = held(&self.tools).get(&key).cloned();
            let resolved = known.unwrap_or_else(|| {
                let context = self.tool_context(self.workspace.root.clone());
                let digests = |paths: &[PathBuf]| self.machine_digests(paths);
                tools::system_libraries(&context, &digests, &|root| self.root_digest(root)).map(Arc::new)
            });
            held(&self.tools).insert(key, resolved.clone());
            all.push(resolved?);
        }
        Ok(all)
    }

    /// Resolves a tool for a package, once per invocation, or per directory where that matters.
    pub fn tool(&self, name: &str, package: &RelPath) -> Result<Arc<Tool>, ToolError> {
        let directory = self.workspace.root.join(package.as_str());
        for place in [None, Some(directory.clone())] {
            if let Some(known) = held(&self.tools).get(&(name.to_owned(), place)) {
                return known.clone();
            }
        }
        let context = self.tool_context(directory);
        let resolved =
            tools::resolve(name, &context, &|paths| self.machine_digests(paths), &|root| self.root_digest(root));
        let resolved = resolved.map(Arc::new);
        let place = context.directory_asked.get().then_some(context.directory);
        held(&self.tools).insert((name.to_owned(), place), resolved.clone());
        resolved
    }

    /// The tree that an image became, if this invocation knows it already; by the digest of the layout.
    pub(super) fn flat_root(&self, layout: &Digest) -> Option<FlatRoot> {
        held(&self.flat_roots).get(layout).cloned()
    }

    /// Remembers it.
    pub(super) fn keep_flat_root(&self, layout: Digest, root: FlatRoot) {
        held(&self.flat_roots).insert(layout, root);
    }

    /// The directory of a tree, if this invocation has it already.
    pub(super) fn known_tree_dir(&self, tree: &Digest) -> Option<PathBuf> {
        held(&self.tree_dirs).get(tree).cloned()
    }

    /// Remembers the directory of a tree; the store holds it as long as its own session lasts.
    pub(super) fn note_tree_dir(&self, tree: Digest, dir: PathBuf) {
        held(&self.tree_dirs).insert(tree, dir);
    }

    /// Tells which files and directories of the workspace belong to the tools of a task, as far as they are there.
    ///
    /// Cost: one search of the `PATH` per name; tools that lie in the workspace are resolved.
    pub fn workspace_tools(&self) -> impl Fn(TaskId) -> Vec<RelPath> + '_ {
        let roots = [Some(self.workspace.root.clone()), ops::canonical(&self.workspace.root).ok()];
        let below = move |path: &Path| {
            let below = roots.iter().flatten().find_map(|root| path.strip_prefix(root).ok())?;
            RelPath::parse(below.to_str()?).ok()
        };
        let located: Mutex<BTreeMap<(String, RelPath), bool>> = Mutex::default();
        move |task| {
            let package = self.package(task);
            let Some(run) = self.workspace.tasks[task].kind.command() else { return Vec::new() };
            let program = match &run.command {
                Command::Exec(words) => words.first(),
                Command::Shell(_) | Command::Image(_) => None,
            };
            let mut parts = Vec::new();
            for name in run.tools.iter().map(|tool| &tool.value).chain(program) {
                // A name means the same in every package; a path does not.
                let place = if name.contains('/') { package.clone() } else { RelPath::root() };
                let is_here = *held(&located).entry((name.clone(), place)).or_insert_with(|| {
                    let found = tools::locate(name, &self.tool_context(self.workspace.root.join(package.as_str())));
                    found.is_some_and(|path| {
                        below(&path).is_some() || ops::canonical(&path).is_ok_and(|real| below(&real).is_some())
                    })
                });
                if is_here && let Ok(tool) = self.tool(name, package) {
                    parts.extend(tool.paths.iter().filter_map(|path| below(path)));
                }
            }
            parts
        }
    }

    /// Values of the secret variables of a task and of everything it needs: outputs carry them on.
    pub fn secrets_reaching(&self, task: TaskId) -> Secrets {
        self.secrets_reaching_any(&[task])
    }

    /// The same for several tasks that talk to each other.
    pub fn secrets_reaching_any(&self, tasks: &[TaskId]) -> Secrets {
        let of = |task: TaskId| {
            let run = self.workspace.tasks[task].kind.command();
            run.map_or(&[][..], |run| run.secret_env.as_slice())
        };
        if self.workspace.tasks.facts().secret.is_empty() {
            return Secrets::default();
        }
        let names: BTreeSet<&String> = self.graph.closure(tasks).into_iter().flat_map(of).collect();
        Secrets::new(names.into_iter().filter_map(|name| self.ambient.variables.get(name).cloned()))
    }

    /// The level a task runs at, or why there is none.
    pub fn level(&self, run: &RunTask) -> Result<Level, Diagnostic> {
        let level = self.levels.of(self.options.isolation.unwrap_or(run.isolation))?;
        if run.root.is_some() && level != Level::Namespaces {
            return Err(Diagnostic::error(format!(
                "a task with a `root` runs at the `namespaces` level only, and this is `{}`",
                level.word()
            ))
            .help(
                "nothing else can show it another root file system; `drystone doctor` tells what this machine allows",
            ));
        }
        Ok(level)
    }

    /// The sandbox of a level, opened once.
    pub fn sandbox(&self, level: Level) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let mut sandboxes = held(&self.sandboxes);
        if let Some(sandbox) = sandboxes.get(&level) {
            return Ok(Arc::clone(sandbox));
        }
        let sandbox: Arc<dyn Sandbox> = Arc::from(open_with(level, &self.ambient.program)?);
        sandboxes.insert(level, Arc::clone(&sandbox));
        Ok(sandbox)
    }

    /// Takes over the sandbox of a level that was opened before, unless there is one.
    pub fn adopt(&self, level: Level, sandbox: Arc<dyn Sandbox>) {
        held(&self.sandboxes).entry(level).or_insert(sandbox);
    }

    /// What commands were started with; dropped it ends, which takes as long as the last of it needs to go. No command runs any more.
    pub fn take_sandboxes(&self) -> Vec<Arc<dyn Sandbox>> {
        std::mem::take(&mut *held(&self.sandboxes)).into_values().collect()
    }

    /// Label of a task as text.
    pub fn label(&self, task: TaskId) -> String {
        self.workspace.tasks[task].label.to_string()
    }

    /// Directory of a task's package.
    pub fn package(&self, task: TaskId) -> &RelPath {
        &self.workspace.tasks[task].label.package
    }

    /// What comes from outside and is pinned; read once.
    pub fn lock(&self) -> Result<&Lock, Diagnostic> {
        self.lock.get_or_init(|| image_key::read_lock(&self.workspace.root)).as_ref().map_err(Clone::clone)
    }

    /// Name of the repository this workspace is of: the same in all its worktrees and clones.
    pub fn repository(&self) -> &str {
        self.repository.get_or_init(|| repository::name(&self.workspace.root))
    }

    /// Name of this worktree in histories: its repository, then the digest of its root path.
    pub fn worktree(&self) -> String {
        format!("{}/{}", self.repository(), self.place())
    }

    /// The digest of the root path.
    pub fn place(&self) -> String {
        Digest::of(self.workspace.root.as_os_str().as_encoded_bytes()).short()
    }
}

/// Digests a file that the stat index has no name for.
fn digest_unnamed(path: &Path) -> Result<FileDigest, FsError> {
    let stat = StatKey::at(path)?;
    if !stat.is_file() {
        return Err(not_regular(path));
    }
    Ok((digest_file(path)?.0, stat.is_executable()))
}

fn not_regular(path: &Path) -> FsError {
    FsError::new("digest", path, std::io::Error::other("not a regular file"))
}

fn fetch_patterns(workspace: &Workspace) -> HashMap<TaskId, Pattern> {
    let fetches = workspace.tasks.facts().fetches.iter();
    fetches
        .flat_map(|id| claims_of(*id, &workspace.tasks[*id]))
        .filter_map(|claim| {
            let mut pattern = claim.pattern;
            pattern.prefix = pattern.prefix.strip_prefix(&workspace.tasks[claim.task].label.package)?;
            Some((claim.task, pattern))
        })
        .collect()
}
