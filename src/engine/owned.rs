//! Which paths of the tree a task owns, by what it declares. Looks at no disk; see `written` for what it did write.
//!
//! A directory declared whole (`dist/**`, `dist`) is exact: what the task does not make does not belong there. Of a wildcard
//! (`src/*.js`, and every report) the task owns only what it made itself: other files that match are someone else's.
//! The parts of a split task own nothing by themselves: what they own is the whole task's. Paths are relative to the package.

use std::collections::BTreeSet;

use crate::base::ids::{PackageId, TaskId};
use crate::base::path::RelPath;
use crate::base::tree::Listing;
use crate::engine::session::Session;
use crate::manifest::glob::{Pattern, PatternList};
use crate::manifest::model::{RunTask, TaskKind};
use crate::workspace::model::Workspace;

/// What one task owns.
pub struct Owned<'a> {
    /// Directory of its package, relative to the workspace.
    pub package: &'a RelPath,
    /// Paths that are its own with everything beneath: outermost ones only, never the package itself.
    pub units: Vec<RelPath>,
    /// Patterns of which only what it wrote is its own.
    loose: Vec<&'a Pattern>,
    reports: Vec<&'a PatternList>,
    committed: Vec<&'a Pattern>,
    ground: Ground<'a>,
}

impl<'a> Owned<'a> {
    /// Outputs and reports, less committed ones; for a part of a split task, those of all its parts.
    pub fn of(session: &'a Session<'_>, task: TaskId) -> Self {
        let mut owned = Self::nothing(session, task);
        if let Some(split) = session.workspace.split_of(task) {
            owned.claim_parts(session, &split.parts);
            return owned;
        }
        match &session.workspace.tasks[task].kind {
            TaskKind::Run(run) => {
                owned.committed = run.committed.iter().map(|pattern| &pattern.value).collect();
                let is_committed = |text: &str| run.committed.iter().any(|pattern| pattern.value.text == text);
                let outputs = run.outputs.iter().map(|output| &output.value);
                owned.claim(outputs.filter(|pattern| !is_committed(&pattern.text)));
                owned.reports.extend(Some(&run.reports).filter(|reports| !reports.is_empty()));
            }
            TaskKind::Fetch(_) => owned.claim(session.fetched.get(&task).into_iter()),
            TaskKind::Service(_) => {}
        }
        owned
    }

    /// What parts claim, each pattern once: most often they all claim the same.
    fn claim_parts(&mut self, session: &'a Session<'_>, parts: &[TaskId]) {
        let mut known: BTreeSet<Vec<&str>> = BTreeSet::new();
        for part in parts {
            let TaskKind::Run(run) = &session.workspace.tasks[*part].kind else { continue };
            let outputs = run.outputs.iter().map(|output| output.value.text.as_str());
            let reports = run.reports.items.iter().map(|item| item.pattern.text.as_str());
            if !known.insert(outputs.chain([""]).chain(reports).collect()) {
                continue;
            }
            self.claim(run.outputs.iter().map(|output| &output.value));
            let apart = run.split.iter().map(|split| &split.apart);
            self.reports.extend([&run.reports].into_iter().chain(apart).filter(|reports| !reports.is_empty()));
        }
    }

    /// The committed outputs alone: they are sources too, so none of them is a directory of its own.
    pub fn committed(session: &'a Session<'_>, task: TaskId, run: &'a RunTask) -> Self {
        let loose = run.committed.iter().map(|pattern| &pattern.value).collect();
        Self { loose, ..Self::nothing(session, task) }
    }

    fn nothing(session: &'a Session<'_>, task: TaskId) -> Self {
        let package = session.package(task);
        Self {
            package,
            units: Vec::new(),
            loose: Vec::new(),
            reports: Vec::new(),
            committed: Vec::new(),
            ground: Ground::of(session, task),
        }
    }

    fn claim(&mut self, outputs: impl Iterator<Item = &'a Pattern>) {
        for pattern in outputs {
            let unit = if pattern.literal { Some(&pattern.prefix) } else { pattern.whole_dir() };
            match unit {
                Some(unit) if !unit.is_root() => {
                    let covered = self.committed.iter().any(|one| whole(one).is_some_and(|dir| unit.starts_with(dir)));
                    if !covered && !self.units.iter().any(|other| unit.starts_with(other)) {
                        self.units.retain(|other| !other.starts_with(unit));
                        self.units.push(unit.clone());
                    }
                }
                _ if self.loose.iter().any(|other| other.text == pattern.text) => {}
                _ => self.loose.push(pattern),
            }
        }
    }

    /// Whether there is nothing to own.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.loose.is_empty() && self.reports.is_empty()
    }

    /// Patterns of wildcards and reports, for whoever lists what matches them.
    pub fn loose(&self) -> impl Iterator<Item = &'a Pattern> + '_ {
        let reports = self.reports.iter().flat_map(|reports| reports.items.iter());
        self.loose.iter().copied().chain(reports.filter(|item| !item.exclude).map(|item| &item.pattern))
    }

    /// The unit that the path is or lies beneath.
    pub fn unit_of(&self, path: &RelPath) -> Option<&RelPath> {
        self.units.iter().find(|unit| path.starts_with(unit))
    }

    /// Whether the path is also in git, by declaration.
    pub fn is_committed(&self, path: &RelPath) -> bool {
        self.committed.iter().any(|pattern| pattern.matches(path) || whole(pattern) == Some(path))
    }

    /// Whether committed files may lie in the unit: then it cannot be swapped as a whole.
    pub fn holds_committed(&self, unit: &RelPath) -> bool {
        self.committed.iter().any(|pattern| pattern.prefix.starts_with(unit) || unit.starts_with(&pattern.prefix))
    }

    /// Whether what the task makes at the path is put there.
    pub fn claims(&self, path: &RelPath) -> bool {
        !self.is_committed(path) && (self.unit_of(path).is_some() || self.matches_loosely(path))
    }

    /// Whether it is a report.
    pub fn is_report(&self, path: &RelPath) -> bool {
        self.reports.iter().any(|reports| reports.matches(path))
    }

    /// Whether a wildcard or a report matches. Nothing in `.git` and in nested packages does.
    pub fn matches_loosely(&self, path: &RelPath) -> bool {
        !self.ground.is_foreign(path)
            && (self.loose.iter().any(|pattern| pattern.matches(path) || pattern.whole_dir() == Some(path))
                || self.is_report(path))
    }

    /// Whether a wildcard may reach into the directory.
    pub fn may_enter(&self, dir: &RelPath) -> bool {
        !self.ground.is_foreign(dir)
    }

    /// The part of a result that is put in place.
    pub fn part_of(&self, listing: &Listing) -> Listing {
        let own = listing.iter().filter(|(path, _)| self.claims(path));
        own.map(|(path, entry)| (path.clone(), entry.clone())).collect()
    }
}

/// Where the wildcards of a package reach: not into repositories' own directories and not into nested packages.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    workspace: &'a Workspace,
    package: PackageId,
}

impl<'a> Ground<'a> {
    /// That of a task's package.
    pub fn of(session: &'a Session<'_>, task: TaskId) -> Self {
        Self { workspace: session.workspace, package: session.workspace.package_of(task) }
    }

    /// Whether a path relative to the package is out of reach.
    pub fn is_foreign(&self, path: &RelPath) -> bool {
        let full = self.workspace.packages[self.package].dir.join(path);
        path.components().any(|part| part == ".git") || self.workspace.owner(&full) != Some(self.package)
    }
}

/// Directories that belong to a task, or to the whole of which it is a part, relative to its package.
pub fn whole_directories<'a>(session: &'a Session<'_>, task: TaskId) -> Vec<RelPath> {
    let outputs = |task: &TaskId| -> Vec<&'a Pattern> {
        match &session.workspace.tasks[*task].kind {
            TaskKind::Run(run) => run.outputs.iter().map(|output| &output.value).collect(),
            TaskKind::Fetch(_) => session.fetched.get(task).into_iter().collect(),
            TaskKind::Service(_) => Vec::new(),
        }
    };
    let own = Owned::of(session, task);
    let all: BTreeSet<&RelPath> =
        session.workspace.parts_beside(&task).iter().flat_map(outputs).filter_map(Pattern::whole_dir).collect();
    all.into_iter().filter(|dir| own.unit_of(dir).is_some()).cloned().collect()
}

fn whole(pattern: &Pattern) -> Option<&RelPath> {
    if pattern.literal { Some(&pattern.prefix) } else { pattern.whole_dir() }
}
