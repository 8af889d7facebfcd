//! The source files a task may see. Reads directories, never contents; outputs of dependencies are not its matter.
//!
//! - `"package"`: every file and link of the package that git does not ignore, and its empty directories, less nested
//!   packages, less `drystone.toml` (the key has what it says; a change for another task must not rerun this one).
//! - patterns: what git does not ignore and the last matching pattern includes. A pattern without wildcard that names a
//!   file also finds it when git ignores it; one that names a directory takes what is not ignored beneath, and like
//!   `dir/**` its empty directories too.
//! - `"traced"`: none here; what it was seen to touch is the engine's matter.
//! - never: outputs of any task, unless `committed`, and then only for other tasks than the one that makes them.
//!   So the inputs are the same whether or not anything was built before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::{PackageId, TaskId};
use crate::base::path::RelPath;
use crate::fs::ops::{self, FsError, Kind};
use crate::fs::walk::{Trouble, WalkError};
use crate::manifest::glob::{Pattern, PatternItem};
use crate::manifest::model::{Inputs, Which};
use crate::workspace::discover::MANIFEST;
use crate::workspace::files::{Region, SourceFiles};
use crate::workspace::model::Workspace;
use crate::workspace::outputs::OutputIndex;

/// The source files of one task.
#[derive(Clone, Debug, Default)]
pub struct InputFiles {
    /// Files and links, in byte order.
    pub files: Vec<RelPath>,
    /// Directories with nothing in them, in byte order.
    pub empty_dirs: Vec<RelPath>,
    /// Warnings: patterns that match nothing.
    pub unmatched: Vec<Diagnostic>,
}

/// Why the source files of a task cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A directory cannot be listed, or a name is not UTF-8.
    #[error("cannot tell the inputs of `{task}`: {cause}")]
    Walk {
        /// Label of the task.
        task: String,
        /// What is in the way.
        cause: WalkError,
    },
    /// A file operation failed.
    #[error("cannot tell the inputs of `{task}`: {cause}")]
    Fs {
        /// Label of the task.
        task: String,
        /// What failed.
        cause: FsError,
    },
    /// A device, socket or pipe is among the inputs.
    #[error("`{path}`, an input of `{task}`, is neither a file nor a link nor a directory; exclude it with `!{path}`")]
    Special {
        /// Label of the task.
        task: String,
        /// What.
        path: RelPath,
    },
    /// A symbolic link that leads back to itself.
    #[error("`{path}`, an input of `{task}`, is a symbolic link that leads back to itself")]
    LinkLoop {
        /// Label of the task.
        task: String,
        /// The link.
        path: RelPath,
    },
    /// A pattern names something behind a symbolic link.
    #[error("`{path}`, an input of `{task}`, lies behind the symbolic link `{link}`; name the real path")]
    BehindLink {
        /// Label of the task.
        task: String,
        /// What is named.
        path: RelPath,
        /// The link on the way.
        link: RelPath,
    },
}

/// The source files of a task; none for a task that runs no command.
///
/// # Errors
/// See [`InputError`]; what no pattern of the task reaches is not an error.
/// Cost: the directories beneath each pattern's literal part, each listed once per [`SourceFiles`].
pub fn input_files(
    workspace: &Workspace,
    sources: &SourceFiles<'_>,
    task: TaskId,
    outputs: &OutputIndex<'_>,
) -> Result<InputFiles, InputError> {
    let Some(run) = workspace.tasks[task].kind.command() else { return Ok(InputFiles::default()) };
    let selection = Selection { workspace, sources, outputs, task };
    let (picked, unmatched) = match &run.inputs {
        Inputs::Package => (selection.package()?, Vec::new()),
        Inputs::Patterns(list) => selection.patterns(&list.items)?,
        // Nobody knows them before it has run.
        Inputs::Traced => (Picked::new(), Vec::new()),
    };
    selection.finish(picked, unmatched)
}

/// Lists in parallel, on the current rayon pool, what [`input_files`] will ask for of several tasks.
pub fn list_early(workspace: &Workspace, sources: &SourceFiles<'_>, tasks: &[TaskId]) {
    let (mut packages, mut dirs) = (BTreeSet::new(), BTreeSet::new());
    let is_dir = |dir: &RelPath| ops::kind(&workspace.root.join(dir.as_str())).is_ok_and(|kind| kind == Kind::Dir);
    for task in tasks {
        match workspace.tasks[*task].kind.command().map(|run| &run.inputs) {
            Some(Inputs::Package) => drop(packages.insert(workspace.package_of(*task))),
            Some(Inputs::Patterns(list)) => {
                for pattern in list.items.iter().filter(|item| !item.exclude).map(|item| &item.pattern) {
                    if !dirs.contains(&pattern.prefix) && (!pattern.literal || is_dir(&pattern.prefix)) {
                        dirs.insert(pattern.prefix.clone());
                    }
                }
            }
            Some(Inputs::Traced) | None => {}
        }
    }
    sources.list_early(&packages, &dirs);
}

/// What decides which source files a task has: tasks that are equal in it have the same, but for what is to be said about them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Selects {
    package: Option<PackageId>,
    patterns: Texts,
    /// A task with committed outputs does not see its own.
    alone: Option<TaskId>,
}

impl Selects {
    /// That of a task; `None` for one without source files.
    pub fn of(workspace: &Workspace, task: TaskId) -> Option<Self> {
        let declared = &workspace.tasks[task];
        let run = declared.kind.command()?;
        let (package, patterns) = match &run.inputs {
            Inputs::Package => (Some(workspace.package_of(task)), Texts::default()),
            Inputs::Patterns(list) => (None, Texts(Arc::clone(&list.items))),
            Inputs::Traced => return None,
        };
        let commits = !run.committed.is_empty();
        Some(Self { package, patterns, alone: commits.then_some(task) })
    }
}

/// Patterns as they are told apart by [`PatternItem::written`]; tasks that share them are equal at once.
#[derive(Clone, Debug, Default)]
struct Texts(Arc<[PatternItem]>);

impl Texts {
    fn each(&self) -> impl Iterator<Item = (bool, bool, &str, &str)> {
        self.0.iter().map(|item| {
            let Pattern { prefix, text, .. } = &item.pattern;
            (item.exclude, item.reach.is_some(), prefix.as_str(), text.as_str())
        })
    }
}

impl PartialEq for Texts {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.each().eq(other.each())
    }
}

impl Eq for Texts {}

impl std::hash::Hash for Texts {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.each().for_each(|item| item.hash(state));
    }
}

/// Whether a change of the file at `path`, there or not, can change the source files of a task. Looks at no disk.
///
/// What git ignores counts as a source here: that is known only of what is there.
pub fn covers(workspace: &Workspace, task: TaskId, path: &RelPath, outputs: &OutputIndex<'_>) -> bool {
    let Some(run) = workspace.tasks[task].kind.command() else { return false };
    let meant = match &run.inputs {
        Inputs::Package => workspace.owner(path) == Some(workspace.package_of(task)) && path.file_name() != MANIFEST,
        Inputs::Patterns(list) => list.matches(path),
        Inputs::Traced => true,
    };
    if let Some(split) = workspace.split_of(task)
        && let Some(covered) = split.covers_item(workspace, task, path)
    {
        return covered;
    }
    meant && !outputs.hides(path, task)
}

struct Selection<'a> {
    workspace: &'a Workspace,
    sources: &'a SourceFiles<'a>,
    outputs: &'a OutputIndex<'a>,
    task: TaskId,
}

/// What was picked so far.
type Picked = Vec<(RelPath, Kind)>;

impl Selection<'_> {
    fn label(&self) -> String {
        self.workspace.whole_label(self.task)
    }

    fn on_disk(&self, path: &RelPath) -> PathBuf {
        self.workspace.root.join(path.as_str())
    }

    fn package(&self) -> Result<Picked, InputError> {
        let package = self.workspace.package_of(self.task);
        let dir = &self.workspace.packages[package].dir;
        let region = self.sources.look_package(package);
        let nested: Vec<&RelPath> = self.workspace.nested(package).collect();
        for trouble in region.troubles(&self.workspace.root) {
            let inside = nested.iter().any(|dir| trouble.path().starts_with(self.on_disk(dir)));
            if !inside {
                return Err(self.walk_error(trouble));
            }
        }
        let manifest = dir.child(MANIFEST);
        let mut picked = Picked::new();
        let mut hides = self.outputs.hider(self.task);
        for found in region.without(&nested).filter(|found| found.path != manifest) {
            if (found.kind != Kind::Dir || self.is_empty_dir(&region, &found.path)?) && !hides(&found.path) {
                picked.push((found.path.clone(), found.kind));
            }
        }
        Ok(picked)
    }

    fn patterns(&self, items: &[PatternItem]) -> Result<(Picked, Vec<Diagnostic>), InputError> {
        let mut picked = Picked::new();
        let mut unmatched = Vec::new();
        let mut hides = self.outputs.hider(self.task);
        for (at, item) in items.iter().enumerate().filter(|(_, item)| !item.exclude) {
            let mut any = false;
            for (path, kind) in self.matches_of(item)? {
                // Outputs do not count as matches, or the warning would come and go with what was built before.
                if hides(&path) {
                    continue;
                }
                any = true;
                // The last that matches decides.
                let by = items[at + 1..].iter().rev().find(|item| item.pattern.matches(&path)).unwrap_or(item);
                // An empty directory is taken where a whole directory is, not where a wildcard happens to match its name.
                let whole = |item: &PatternItem| item.pattern.literal || item.pattern.whole_dir().is_some();
                if !by.exclude && (kind != Kind::Dir || whole(by)) {
                    picked.push((path, kind));
                }
            }
            // That a package further up has no such file is no mistake of this task.
            if !any && item.reach.is_none() {
                unmatched.extend(self.nothing_matches(item));
            }
        }
        if items.iter().all(|item| item.exclude)
            && let Some(first) = items.first()
        {
            unmatched.push(
                Diagnostic::warning(format!(
                    "`{}` has only inputs that take away: it sees no source file",
                    self.label()
                ))
                .at(&first.place, "")
                .help("begin the list with what to take, such as `**`"),
            );
        }
        Ok((picked, unmatched))
    }

    /// Everything one pattern matches by itself.
    fn matches_of(&self, item: &PatternItem) -> Result<Vec<(RelPath, Kind)>, InputError> {
        let pattern = &item.pattern;
        if pattern.literal {
            match self.literal(&pattern.prefix)? {
                None => return Ok(Vec::new()),
                Some(Kind::Dir) => {}
                Some(kind) => return Ok(vec![(pattern.prefix.clone(), kind)]),
            }
        }
        let region = self.sources.look(&pattern.prefix);
        for trouble in region.troubles(&self.workspace.root) {
            let shown = trouble.path().strip_prefix(&self.workspace.root).unwrap_or(trouble.path());
            // A name that no RelPath can hold matters only to the patterns that would match it.
            let reached = match trouble {
                Trouble::Unreadable { .. } => true,
                Trouble::NotUtf8 { .. } => {
                    RelPath::parse(&shown.to_string_lossy()).is_ok_and(|path| pattern.matches(&path))
                }
            };
            if reached {
                return Err(self.walk_error(trouble));
            }
        }
        let whole = pattern.literal || pattern.whole_dir().is_some();
        let mut matches = Vec::new();
        // Everything in the region lies beneath the directory that is taken as a whole.
        for found in region.iter().filter(|found| whole || pattern.matches(&found.path)) {
            if found.kind != Kind::Dir || (whole && self.is_empty_dir(&region, &found.path)?) {
                matches.push((found.path.clone(), found.kind));
            }
        }
        let itself = &pattern.prefix;
        if pattern.literal && !itself.is_root() && region.is_empty() && self.is_empty_dir(&region, itself)? {
            matches.push((itself.clone(), Kind::Dir));
        }
        Ok(matches)
    }

    /// What lies at a path that a pattern names; an error if a symbolic link is on the way to it.
    fn literal(&self, path: &RelPath) -> Result<Option<Kind>, InputError> {
        let mut here = RelPath::root();
        let mut kind = Kind::Dir;
        for part in path.components() {
            if kind == Kind::Link {
                return Err(InputError::BehindLink { task: self.label(), path: path.clone(), link: here });
            }
            here = here.child(part);
            kind = match ops::kind(&self.on_disk(&here)) {
                Ok(kind) => kind,
                Err(error) if error.is_missing() || is_not_a_directory(&error) => return Ok(None),
                Err(cause) => return Err(InputError::Fs { task: self.label(), cause }),
            };
        }
        Ok(Some(kind))
    }

    /// Whether a directory has nothing in it at all.
    ///
    /// One with only ignored files in it (`__pycache__`) is not empty: git would not have it, and neither has the task.
    fn is_empty_dir(&self, region: &Region, dir: &RelPath) -> Result<bool, InputError> {
        if !region.is_bare(dir) || self.outputs.any_beneath(dir) {
            return Ok(false);
        }
        let entries = ops::if_there(ops::read_dir(&self.on_disk(dir)))
            .map_err(|cause| InputError::Fs { task: self.label(), cause })?;
        Ok(entries.is_some_and(|entries| entries.is_empty()))
    }

    /// The warning for a pattern without matches; none if it names outputs of a task that is needed anyway.
    fn nothing_matches(&self, item: &PatternItem) -> Option<Diagnostic> {
        let text = &item.pattern.text;
        let task = &self.workspace.tasks[self.task];
        let warning =
            Diagnostic::warning(format!("input `{text}` of `{}` matches nothing", self.label())).at(&item.place, "");
        let Some((producer, _)) = self.outputs.producers(&item.pattern.prefix).into_iter().next() else {
            if text == "package" {
                return Some(
                    warning.help("the word stands alone: `inputs = \"package\"`; in a list, `**` is every file"),
                );
            }
            let ignored = item.pattern.prefix != RelPath::root() && ops::exists(&self.on_disk(&item.pattern.prefix));
            return Some(match ignored {
                true => warning
                    .help("files that git ignores are not taken, unless a pattern without wildcard names the file"),
                false => warning
                    .help("remove it, or correct the path: it is relative to the package, or to the root after `//`"),
            });
        };
        let label = &self.workspace.tasks[producer].label;
        let needed = producer == self.task
            || task.needs.iter().any(|need| match &need.which {
                Which::Upstream { task, .. } => **task == *label.name,
                Which::Task { package, task, .. } => *package == label.package && **task == *label.name,
            });
        (!needed)
            .then(|| warning.help(format!("it is an output of `{label}`: write `needs = [\"{label}\"]` to see it")))
    }

    /// Looks at what is picked.
    fn finish(&self, mut picked: Picked, unmatched: Vec<Diagnostic>) -> Result<InputFiles, InputError> {
        let mut input = InputFiles { unmatched, ..InputFiles::default() };
        // One pattern picks in this order, several may meet.
        if !picked.is_sorted_by(|one, other| one.0 < other.0) {
            picked.sort_by(|one, other| one.0.cmp(&other.0));
            picked.dedup_by(|one, other| one.0 == other.0);
        }
        for (path, kind) in picked {
            match kind {
                Kind::Special => return Err(InputError::Special { task: self.label(), path }),
                Kind::Link if leads_back(&self.on_disk(&path)) => {
                    return Err(InputError::LinkLoop { task: self.label(), path });
                }
                Kind::Dir => input.empty_dirs.push(path),
                Kind::Link | Kind::File => input.files.push(path),
            }
        }
        Ok(input)
    }

    fn walk_error(&self, trouble: &Trouble) -> InputError {
        InputError::Walk { task: self.label(), cause: trouble.clone().into() }
    }
}

fn is_not_a_directory(error: &FsError) -> bool {
    error.cause.raw_os_error() == Some(libc::ENOTDIR)
}

fn leads_back(link: &Path) -> bool {
    ops::metadata(link).is_err_and(|error| error.cause.raw_os_error() == Some(libc::ELOOP))
}

#[cfg(test)]
mod tests;
