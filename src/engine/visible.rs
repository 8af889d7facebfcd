//! What a traced task sees of the workspace: every source file but what matches its own `scratch`, and the outputs of what it needs.
//! Lays it out as a view.
//!
//! The names were listed once, before anything ran; only contents are read later. A directory is bound whole where everything on the disk
//! beneath it is visible and no task makes anything there, so that nothing can appear in it that is not seen by everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::session::Session;
use crate::fingerprint::traced::Named;
use crate::fs::ops::{self, FsError, Kind};
use crate::manifest::model::RunTask;
use crate::sandbox::spec::{Content, View};
use crate::workspace::split::SplitTask;

/// Files of its own package above which a task gets whole directories there as well, in which nothing can be written.
const OWN_FILES_MAX: usize = 2_000;

/// Source files and directories by path, with what they are; outputs of tasks apart.
#[derive(Debug, Default)]
pub struct Sources {
    plain: BTreeMap<RelPath, Named>,
    /// Files that some task makes: visible only where they are committed, and not to that task.
    made: Vec<(RelPath, Named)>,
}

impl Sources {
    /// Lists the workspace. Cost: one walk, unless one was made already; one look-up per file.
    pub fn list(session: &Session<'_>) -> Self {
        let region = session.files.look(&RelPath::root());
        let mut sources = Self::default();
        for found in region.iter() {
            let kind = match found.kind {
                Kind::File => Named::File,
                Kind::Link => Named::Link,
                Kind::Special => continue,
                Kind::Dir => {
                    let disk = session.workspace.root.join(found.path.as_str());
                    let is_empty = region.is_bare(&found.path)
                        && !session.outputs.any_beneath(&found.path)
                        && ops::read_dir(&disk).is_ok_and(|entries| entries.is_empty());
                    if is_empty {
                        add(&mut sources.plain, &found.path, Named::Dir);
                    }
                    continue;
                }
            };
            if session.outputs.producers(&found.path).is_empty() {
                add(&mut sources.plain, &found.path, kind);
            } else {
                sources.made.push((found.path.clone(), kind));
            }
        }
        sources
    }
}

impl Session<'_> {
    /// The source files of the workspace, listed once.
    pub fn sources(&self) -> Arc<Sources> {
        Arc::clone(self.traced_sources.get_or_init(|| Arc::new(Sources::list(self))))
    }
}

/// Adds a path with the directories it lies in.
fn add(paths: &mut BTreeMap<RelPath, Named>, path: &RelPath, kind: Named) {
    paths.insert(path.clone(), kind);
    let mut above = path.parent();
    while let Some(dir) = above {
        above = dir.parent();
        if paths.insert(dir, Named::Dir) == Some(Named::Dir) {
            break;
        }
    }
}

/// What one task sees.
pub struct Visible<'a> {
    sources: Arc<Sources>,
    /// What this task sees besides, or instead.
    own: BTreeMap<RelPath, Named>,
    /// Outputs of what it needs, and its own items, by path relative to the workspace.
    pub made: &'a Listing,
    package: &'a RelPath,
    run: &'a RunTask,
    split: Option<&'a SplitTask>,
}

impl<'a> Visible<'a> {
    /// Puts together the sources and the outputs of dependencies.
    pub fn new(session: &'a Session<'_>, task: TaskId, run: &'a RunTask, made: &'a Listing) -> Self {
        let sources = session.sources();
        let mut own = BTreeMap::new();
        for (path, kind) in &sources.made {
            if !session.outputs.hides(path, task) {
                add(&mut own, path, *kind);
            }
        }
        for (path, entry) in made {
            let kind = match entry {
                Entry::File { .. } => Named::File,
                Entry::Link { .. } => Named::Link,
                Entry::Dir => Named::Dir,
            };
            add(&mut own, path, kind);
        }
        Self { sources, own, made, package: session.package(task), run, split: session.workspace.split_of(task) }
    }

    /// What is at a path.
    pub fn kind(&self, path: &RelPath) -> Option<Named> {
        if path.is_root() {
            return Some(Named::Dir);
        }
        let made = self.own.get(path).copied();
        let found = made.or_else(|| self.sources.plain.get(path).copied())?;
        let is_shown = match found {
            Named::Dir => made.is_some() || !is_compiled(path),
            Named::File | Named::Link => !self.is_hidden(path),
        };
        is_shown.then_some(found)
    }

    /// What is in the way of a path at which there is nothing: a file or a link, where a directory would have to be.
    pub fn bar(&self, path: &RelPath) -> Option<Named> {
        let mut above = path.parent();
        while let Some(dir) = above {
            if let Some(kind) = self.kind(&dir) {
                return (kind != Named::Dir).then_some(kind);
            }
            above = dir.parent();
        }
        None
    }

    /// Whether a source file is not for this task: scratch, or an item of another part of what it is a part of.
    fn is_hidden(&self, path: &RelPath) -> bool {
        let is_item = || self.split.is_some_and(|split| split.part_of(path).is_some());
        self.is_scratch(path) || (!self.made.contains_key(path) && is_item())
    }

    /// Whether the task may write there and nothing of it is kept: so no file of it is shown either.
    fn is_scratch(&self, path: &RelPath) -> bool {
        !self.made.contains_key(path) && (self.run.scratch.matches(path) || is_compiled(path))
    }

    /// What lies in a directory, by name.
    pub fn names(&self, dir: &RelPath) -> BTreeMap<String, Named> {
        let mut names = BTreeMap::new();
        for paths in [&self.sources.plain, &self.own] {
            let shown = children(paths, dir).filter_map(|(path, _)| Some((path, self.kind(path)?)));
            names.extend(shown.map(|(path, kind)| (path.file_name().to_owned(), kind)));
        }
        names
    }

    /// Whether the path lies in a directory that is shown whole, or is one: there nothing can be written.
    ///
    /// Cost: the listing of that directory and all beneath it, unless that is told by where it lies.
    pub fn is_shut(&self, session: &Session<'_>, path: &RelPath) -> bool {
        let mut here = Some(path.clone());
        while let Some(dir) = here {
            match self.kind(&dir) {
                Some(Named::Dir) => {
                    let layout = self.layout(session);
                    return layout.may_be_whole(&dir) && matches!(layout.dir(&dir), Ok(Laid::Whole));
                }
                _ => here = dir.parent(),
            }
        }
        false
    }

    /// The view: whole directories where that shows nothing else, files and links one by one elsewhere. Only what is of the sources.
    ///
    /// Cost: one listing per directory that is not inside a hidden one.
    pub fn view(&self, session: &Session<'_>) -> Result<BTreeMap<RelPath, View>, FsError> {
        let mut view = BTreeMap::new();
        if let Laid::Parts(parts) = self.layout(session).dir(&RelPath::root())? {
            view.extend(parts);
        }
        Ok(view)
    }

    fn layout(&self, session: &'a Session<'a>) -> Layout<'_> {
        let (package, run) = (self.package, self.run);
        let mine = beneath(&self.sources.plain, package).take(OWN_FILES_MAX + 1).count();
        let mut closed: BTreeSet<RelPath> = run.caches.iter().map(|cache| package.join(cache)).collect();
        let scratch = run.scratch.items.iter().map(|item| &item.pattern.prefix);
        closed.extend(scratch.filter(|prefix| !prefix.is_root()).cloned());
        if mine <= OWN_FILES_MAX {
            // Tools write beside what they read: there it lands in the sandbox, as for any other task.
            closed.insert(package.clone());
        }
        Layout { visible: self, session, package, closed }
    }
}

/// Whether Python keeps it, beside what it was made from: for each task its own.
pub fn is_compiled(path: &RelPath) -> bool {
    path.components().any(|part| part == "__pycache__")
}

/// Everything strictly beneath a directory.
fn beneath<'a>(
    paths: &'a BTreeMap<RelPath, Named>,
    dir: &RelPath,
) -> impl Iterator<Item = (&'a RelPath, Named)> + use<'a> {
    let (dir, first) = (dir.clone(), dir.clone());
    let near = paths.range(first..).take_while({
        let text = dir.as_str().to_owned();
        move |(path, _)| path.as_str().starts_with(&text)
    });
    // `a-b` sorts between `a` and `a/c`.
    near.filter(move |(path, _)| **path != dir && path.starts_with(&dir)).map(|(path, kind)| (path, *kind))
}

/// What lies in a directory itself.
fn children<'a>(
    paths: &'a BTreeMap<RelPath, Named>,
    dir: &RelPath,
) -> impl Iterator<Item = (&'a RelPath, Named)> + use<'a> {
    let parent = Some(dir.clone());
    beneath(paths, dir).filter(move |(path, _)| path.parent() == parent)
}

/// How a directory is shown.
enum Laid {
    /// As it is on the disk.
    Whole,
    /// Part by part.
    Parts(Vec<(RelPath, View)>),
}

struct Layout<'a> {
    visible: &'a Visible<'a>,
    session: &'a Session<'a>,
    package: &'a RelPath,
    /// Directories that are shown part by part whatever they hold.
    closed: BTreeSet<RelPath>,
}

impl Layout<'_> {
    fn dir(&self, dir: &RelPath) -> Result<Laid, FsError> {
        let disk = self.session.workspace.root.join(dir.as_str());
        let mut whole = self.may_be_whole(dir);
        let mut parts = Vec::new();
        let mut shown = 0;
        let found = ops::read_dir(&disk)?;
        for entry in &found {
            let Some(path) = entry.name.to_str().map(|name| dir.child(name)) else { continue };
            // Shown from what the dependency made, whatever lies here.
            if self.visible.made.contains_key(&path) {
                continue;
            }
            let view = match (self.visible.kind(&path), entry.kind) {
                (Some(Named::File), Kind::File) => {
                    View::File { content: Content::Host(disk.join(&entry.name)), executable: false }
                }
                (Some(Named::Link), Kind::Link) => match ops::read_link(&disk.join(&entry.name))?.to_str() {
                    Some(target) => View::Link { target: target.to_owned() },
                    None => continue,
                },
                (Some(Named::Dir), Kind::Dir) => match self.dir(&path)? {
                    Laid::Whole => View::Dir { host: disk.join(&entry.name) },
                    Laid::Parts(beneath) => {
                        whole = false;
                        shown += 1;
                        parts.extend(beneath);
                        continue;
                    }
                },
                // Hidden, or not what it was when it was listed.
                _ => continue,
            };
            shown += 1;
            parts.push((path, view));
        }
        if whole && shown == found.len() {
            return Ok(Laid::Whole);
        }
        if parts.is_empty() && !dir.is_root() {
            parts.push((dir.clone(), View::Empty));
        }
        Ok(Laid::Parts(parts))
    }

    /// Whether nothing can be made in it, by any task.
    fn may_be_whole(&self, dir: &RelPath) -> bool {
        !dir.is_root()
            && !self.package.starts_with(dir)
            && !self.closed.iter().any(|closed| dir.starts_with(closed) || closed.starts_with(dir))
            && !self.session.outputs.any_beneath(dir)
            && !self.is_within_output(dir)
    }

    fn is_within_output(&self, dir: &RelPath) -> bool {
        !self.session.outputs.producers(&dir.child("x")).is_empty()
    }
}
