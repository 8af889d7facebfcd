//! Output trees of tasks as tools and as the root file system: where such a tree begins, what is found in it, where it appears.
//! Looks at listings only; `toolchain_dirs` lays them out on the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::label::Label;
use crate::base::path::RelPath;
use crate::base::span::Place;
use crate::base::tree::{Entry, Listing, Node, fold};
use crate::engine::prepare::Dependency;
use crate::engine::session::Session;
use crate::graph::build::Purpose;
use crate::image::layout::{SAVED_FILE, is_layout};
use crate::manifest::model::{Need, RunTask, TaskKind, Which};
use crate::sandbox::spec::TOOLS_DIR;

/// Directories by which a tree is known: the part of a path from the first of them on belongs to the tree.
const LANDMARKS: [&str; 2] = ["bin", "usr"];

/// Where a root file system has its programs, in the order of `PATH`.
pub const ROOT_PATH: [&str; 6] = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];

/// Links followed to find a program, as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// The output tree of a task, from the directory on that all its outputs lie in.
#[derive(Clone, Debug)]
pub struct OutputTree {
    /// The task's label: the name in keys and messages.
    pub label: String,
    /// The task.
    pub task: TaskId,
    /// Digest of the tree.
    pub digest: Digest,
    /// Where it appears inside; for a tool.
    pub inside: PathBuf,
    /// Where it begins, relative to the task's package.
    pub from: RelPath,
    listing: Arc<Listing>,
}

/// What of a task's dependencies is used as a whole.
#[derive(Clone, Debug, Default)]
pub struct Toolchain {
    /// Tools, in the order written.
    pub trees: Vec<OutputTree>,
    /// The root file system.
    pub root: Option<OutputTree>,
}

impl Toolchain {
    /// Finds the trees among the dependencies of a task.
    ///
    /// # Errors
    /// A tree that is no tool or no root file system, with the place that names it.
    pub fn of(session: &Session<'_>, run: &RunTask, dependencies: &[Dependency]) -> Result<Self, Diagnostic> {
        let mut toolchain = Self::default();
        for dependency in dependencies {
            if matches!(dependency.purpose, Purpose::Outputs | Purpose::Service) {
                continue;
            }
            let label = &session.workspace.tasks[dependency.task].label;
            let tree = OutputTree::of(session, dependency).ok_or_else(|| {
                Diagnostic::error(format!("`{label}` made nothing"))
                    .help("see what its command does, and its `outputs`")
            });
            let is_root = dependency.purpose == Purpose::Root;
            let checked = tree.and_then(|tree| {
                if is_root {
                    let tree = tree.flattened(session)?;
                    tree.check_root()?;
                    Ok(tree)
                } else {
                    tree.check_tool()?;
                    Ok(tree)
                }
            });
            let used = if is_root { "used as `root` here" } else { "used as a tool here" };
            let tree = checked.map_err(|problem| problem.at(&named(run, dependency.purpose, label), used))?;
            if is_root {
                toolchain.root = Some(tree);
            } else {
                toolchain.trees.push(tree);
            }
        }
        Ok(toolchain)
    }

    /// The absolute path inside of a program that one of the tools has.
    pub fn program(&self, name: &str) -> Option<String> {
        let name = RelPath::parse(name).ok().filter(|path| path.as_str() == name && path.components().count() == 1)?;
        self.trees.iter().find_map(|tree| {
            let path = tree.bin().join(&name);
            tree.may_be_program(&path).then(|| tree.inside.join(path.as_str()).display().to_string())
        })
    }

    /// The directories that the tools add to `PATH`.
    pub fn path(&self) -> impl Iterator<Item = String> + '_ {
        self.trees.iter().map(|tree| match tree.bin() {
            bin if bin.is_root() => tree.inside.display().to_string(),
            bin => tree.inside.join(bin.as_str()).display().to_string(),
        })
    }
}

/// Where the manifest names a tree.
pub fn named(run: &RunTask, purpose: Purpose, label: &Label) -> Place {
    let is_it = |need: &&Need| match &need.which {
        Which::Task { package, task, .. } => *package == label.package && **task == *label.name,
        Which::Upstream { .. } => false,
    };
    let need = match purpose {
        Purpose::Root => run.root.as_ref(),
        Purpose::Outputs | Purpose::Tool | Purpose::Service => run.tool_trees.iter().find(is_it),
    };
    need.expect("an edge of this purpose comes from such an entry").place.clone()
}

impl OutputTree {
    /// The tree of a dependency; `None` if it made nothing.
    pub fn of(session: &Session<'_>, dependency: &Dependency) -> Option<Self> {
        let label = &session.workspace.tasks[dependency.task].label;
        let listing = Arc::clone(&dependency.produced.listing);
        let from = beginning(session, dependency.task, &listing);
        let digest = subtree(session, &dependency.produced.digest, &from, &listing)?;
        let task = dependency.task;
        Some(Self { label: label.to_string(), task, digest, inside: place_inside(label), from, listing })
    }

    /// Whether it is an image: an OCI layout, or what `docker save` packs.
    pub fn is_image(&self) -> bool {
        let has = |name: &str| self.entry(&RelPath::root().child(name)).is_some();
        is_layout(has) || (has(SAVED_FILE) && !self.has_programs())
    }

    /// The tree that its layers make, if it is an image: `image_root` has made it.
    fn flattened(self, session: &Session<'_>) -> Result<Self, Diagnostic> {
        if !self.is_image() {
            return Ok(self);
        }
        let Some(flat) = session.flat_root(&self.digest) else {
            return Err(Diagnostic::error(format!("the image that `{}` made was not unpacked", self.label))
                .help("run a task that has it as `root`"));
        };
        Ok(Self { digest: flat.digest, from: RelPath::root(), listing: flat.listing, ..self })
    }

    /// What lies in it, by path relative to its beginning.
    pub fn entries(&self) -> impl Iterator<Item = (RelPath, &Entry)> {
        // Everything at or beneath a path stands together, but for siblings such as `a-b` between `a` and `a/b`.
        let below = self
            .listing
            .range(self.from.clone()..)
            .take_while(|(path, _)| path.as_str().starts_with(self.from.as_str()));
        below
            .filter_map(|(path, entry)| Some((path.strip_prefix(&self.from)?, entry)))
            .filter(|(path, _)| !path.is_root())
    }

    fn entry(&self, path: &RelPath) -> Option<&Entry> {
        self.listing.get(&self.from.join(path))
    }

    /// Whether something lies beneath the path, or it is listed as a directory.
    fn is_dir(&self, path: &RelPath) -> bool {
        let full = self.from.join(path);
        if full.is_root() || self.listing.get(&full) == Some(&Entry::Dir) {
            return true;
        }
        let mut beneath =
            self.listing.range(full.clone()..).take_while(|(other, _)| other.as_str().starts_with(full.as_str()));
        beneath.any(|(other, _)| *other != full && other.starts_with(&full))
    }

    /// The directory with its programs: `bin`, or the tree itself.
    fn bin(&self) -> RelPath {
        let bin = RelPath::root().child("bin");
        match self.entry(&bin) {
            Some(Entry::File { .. }) => RelPath::root(),
            Some(Entry::Link { .. } | Entry::Dir) => bin,
            None if self.is_dir(&bin) => bin,
            None => RelPath::root(),
        }
    }

    /// Whether a program can be executed at the path: a link is one if it leads to one, or out of the tree.
    fn may_be_program(&self, path: &RelPath) -> bool {
        match self.resolve(path, &self.inside) {
            Resolved::At(path) => matches!(self.entry(&path), Some(Entry::File { executable: true, .. })),
            Resolved::Outside => true,
            Resolved::Nowhere => false,
        }
    }

    /// The program that a root file system has under a name or an absolute path; a path inside.
    pub fn program_in_root(&self, word: &str) -> Option<String> {
        let root = PathBuf::from("/");
        let is_program = |path: &RelPath| match self.resolve(path, &root) {
            Resolved::At(path) => matches!(self.entry(&path), Some(Entry::File { executable: true, .. })),
            Resolved::Outside | Resolved::Nowhere => false,
        };
        if let Some(path) = word.strip_prefix('/') {
            return RelPath::parse(path).is_ok_and(|path| is_program(&path)).then(|| word.to_owned());
        }
        let mut places = ROOT_PATH.iter().map(|dir| format!("{dir}/{word}"));
        places.find(|path| RelPath::parse(path).is_ok_and(|path| is_program(&path))).map(|path| format!("/{path}"))
    }

    /// Follows every link on the way, as the kernel would with the tree mounted at `mounted`.
    fn resolve(&self, path: &RelPath, mounted: &Path) -> Resolved {
        let mut left: Vec<String> = path.as_str().split('/').rev().map(str::to_owned).collect();
        let mut here = RelPath::root();
        let mut links = 0;
        while let Some(part) = left.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    match here.parent() {
                        Some(above) => here = above,
                        // Above the root is the root itself.
                        None if mounted == Path::new("/") => {}
                        None => return Resolved::Outside,
                    }
                    continue;
                }
                part if part.contains('\0') => return Resolved::Nowhere,
                part => here = here.child(part),
            }
            match self.entry(&here) {
                Some(Entry::Link { target }) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Resolved::Nowhere;
                    }
                    let rest = match target.strip_prefix('/') {
                        None => {
                            here = here.parent().unwrap_or_default();
                            target.as_str()
                        }
                        Some(_) => {
                            let Ok(below) = Path::new(target).strip_prefix(mounted) else {
                                return Resolved::Outside;
                            };
                            here = RelPath::root();
                            below.to_str().unwrap_or_default()
                        }
                    };
                    left.extend(rest.split('/').rev().map(str::to_owned));
                }
                Some(Entry::File { .. } | Entry::Dir) => {}
                None if self.is_dir(&here) => {}
                None => return Resolved::Nowhere,
            }
        }
        Resolved::At(here)
    }

    fn check_tool(&self) -> Result<(), Diagnostic> {
        let has = |name: &str| self.entry(&RelPath::root().child(name)).is_some();
        if is_layout(has) && !self.has_programs() {
            return Err(Diagnostic::error(format!("`{}` is no tool: it is an image in the OCI layout", self.label))
                .help("use it as `root`, or fetch the archive of it with `unpack = \"oci\"`"));
        }
        let mut entries = self.entries();
        match (entries.next(), entries.next()) {
            (Some((path, Entry::File { executable: false, .. })), None) => {
                Err(Diagnostic::error(format!("`{}` is no tool: its only file `{path}` is not executable", self.label))
                    .help("set `executable = true` on a fetch, or `unpack = true` if it is an archive"))
            }
            (None, _) => Err(Diagnostic::error(format!("`{}` is no tool: its tree is empty", self.label))
                .help("see what the task makes: `drystone outputs`")),
            _ => Ok(()),
        }
    }

    fn check_root(&self) -> Result<(), Diagnostic> {
        if self.has_programs() {
            return Ok(());
        }
        let found: Vec<String> = self.top().into_iter().take(5).map(|name| format!("`{name}`")).collect();
        let found = if found.is_empty() { "it is empty".to_owned() } else { format!("it holds {}", found.join(", ")) };
        Err(Diagnostic::error(format!("`{}` is no root file system: it has neither `bin` nor `usr/bin`", self.label))
            .help(format!(
                "{found}; if the root lies deeper in an archive, drop leading directories with `strip`; the archive of an image is \
                 fetched with `unpack = \"oci\"`"
            )))
    }

    /// Whether it has a directory for programs, as a root file system has.
    fn has_programs(&self) -> bool {
        ["bin", "usr/bin"].iter().any(|dir| {
            let path = RelPath::parse(dir).unwrap_or_default();
            matches!(self.resolve(&path, Path::new("/")), Resolved::At(path) if self.is_dir(&path))
        })
    }

    /// Names of its outermost entries.
    fn top(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.entries().filter_map(|(path, _)| path.components().next().map(str::to_owned)).collect();
        names.dedup();
        names
    }
}

enum Resolved {
    At(RelPath),
    Outside,
    Nowhere,
}

/// The directory that everything a task declares lies in: the tree begins there, so that where it lands does not matter.
fn beginning(session: &Session<'_>, task: TaskId, listing: &Listing) -> RelPath {
    let prefixes: Vec<&RelPath> = match &session.workspace.tasks[task].kind {
        TaskKind::Fetch(fetch) => vec![&fetch.output],
        TaskKind::Run(run) => run.outputs.iter().map(|output| &output.value.prefix).collect(),
        TaskKind::Service(_) => Vec::new(),
    };
    let dirs = prefixes.into_iter().map(|prefix| match listing.get(prefix) {
        Some(Entry::File { .. } | Entry::Link { .. }) => prefix.parent().unwrap_or_default(),
        Some(Entry::Dir) | None => prefix.clone(),
    });
    let shared = dirs.reduce(|one, other| {
        let parts = one.components().zip(other.components()).take_while(|(one, other)| one == other);
        parts.fold(RelPath::root(), |path, (part, _)| path.child(part))
    });
    let shared = shared.unwrap_or_default();
    let parts = shared.components().take_while(|part| !LANDMARKS.contains(part));
    parts.fold(RelPath::root(), |path, part| path.child(part))
}

/// The digest of the directory at a path of a tree; `None` if there is no such directory.
fn subtree(session: &Session<'_>, root: &Digest, path: &RelPath, listing: &Listing) -> Option<Digest> {
    let mut digest = *root;
    for (depth, part) in path.components().enumerate() {
        // Trees of a result are in the store; should one be lost, it is made again from the listing.
        let Ok(Some(tree)) = session.store.tree(&digest) else {
            tracing::debug!(depth, "a tree of a tool is not in the store");
            return folded(path, listing);
        };
        match tree.entries.get(part) {
            Some(Node::Dir(below)) => digest = *below,
            _ => return None,
        }
    }
    Some(digest)
}

fn folded(path: &RelPath, listing: &Listing) -> Option<Digest> {
    let below: Listing = listing
        .iter()
        .filter_map(|(full, entry)| Some((full.strip_prefix(path)?, entry.clone())))
        .filter(|(path, _)| !path.is_root())
        .collect();
    let is_there = !below.is_empty() || listing.get(path) == Some(&Entry::Dir);
    is_there.then(|| fold(&below).root)
}

/// `/tools/node` for `//:node`, `/tools/third-party+node` for `//third-party:node`: the same on every machine, and no two alike.
fn place_inside(label: &Label) -> PathBuf {
    let mut name = String::new();
    for part in label.package.components() {
        name.extend(part.chars().map(plain));
        name.push('+');
    }
    name.push_str(&label.name);
    if !label.matrix.is_empty() {
        let values =
            label.matrix.iter().map(|(axis, value)| format!("{axis}={}", value.chars().map(plain).collect::<String>()));
        name.push_str(&format!("[{}]", values.collect::<Vec<_>>().join(",")));
    }
    PathBuf::from(TOOLS_DIR).join(name)
}

/// A letter that means nothing in `PATH` and is not one of ours, or its number.
fn plain(letter: char) -> String {
    if letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-' | '@') {
        letter.to_string()
    } else {
        format!("%{:02X}", u32::from(letter))
    }
}
