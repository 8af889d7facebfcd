//! Puts the outputs of a result in place in the tree, and checks the rules for writing there. Runs nothing.

use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::materialize::{self, Destination, MaterializeError};
use crate::engine::prepare::all_outputs;
use crate::engine::session::Session;
use crate::engine::tracked;
use crate::manifest::glob::Pattern;
use crate::manifest::model::TaskKind;
use crate::store::StoreError;

/// Why outputs could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The outputs hold files that are tracked by git.
    #[error("declared outputs hold files tracked by git")]
    Tracked(Vec<Diagnostic>),
    /// Writing went wrong.
    #[error(transparent)]
    Materialize(#[from] MaterializeError),
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] crate::fs::ops::FsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Patterns of what a task owns in the tree: outputs and reports, less committed ones.
pub fn owned_patterns<'a>(session: &'a Session<'_>, task: TaskId) -> Vec<&'a Pattern> {
    match &session.workspace.tasks[task].kind {
        TaskKind::Run(run) => {
            let committed = |text: &str| run.committed.iter().any(|pattern| pattern.value.text == text);
            all_outputs(run).into_iter().filter(|pattern| !committed(&pattern.text)).collect()
        }
        TaskKind::Fetch(_) => session.fetched.get(&task).into_iter().collect(),
    }
}

/// Makes the owned outputs of a task in the tree equal to `listing`; committed ones are left alone.
///
/// Returns whether anything was written. Cost when nothing differs: one walk of the outputs and one `stat` per file.
pub fn put_in_place(session: &Session<'_>, task: TaskId, listing: &Arc<Listing>) -> Result<bool, RestoreError> {
    let patterns = owned_patterns(session, task);
    put_patterns(session, task, &patterns, listing)
}

/// The same for chosen patterns: all that a `--fix` writes.
pub fn put_patterns(
    session: &Session<'_>,
    task: TaskId,
    patterns: &[&Pattern],
    listing: &Listing,
) -> Result<bool, RestoreError> {
    if patterns.is_empty() {
        return Ok(false);
    }
    let destination = Destination { root: &session.workspace.root, package: session.package(task), patterns };
    let present = materialize::present(&destination, &|paths| session.observe(paths))?;
    let wanted: Listing = listing
        .iter()
        .filter(|(path, _)| patterns.iter().any(|pattern| pattern.matches(path) || pattern.whole_dir() == Some(path)))
        .map(|(path, entry)| (path.clone(), entry.clone()))
        .collect();
    if present == wanted {
        return Ok(false);
    }
    tracked::check(session, &[task]).map_err(RestoreError::Tracked)?;
    materialize::materialize(&destination, &present, &wanted, &session.store)?;
    Ok(true)
}

/// Committed outputs that differ from what the task makes: paths relative to the package, with what differs.
pub fn committed_differences(session: &Session<'_>, task: TaskId, listing: &Listing) -> Vec<(RelPath, String)> {
    let TaskKind::Run(run) = &session.workspace.tasks[task].kind else { return Vec::new() };
    let package = session.package(task);
    let patterns: Vec<&Pattern> = run.committed.iter().map(|pattern| &pattern.value).collect();
    let destination = Destination { root: &session.workspace.root, package, patterns: &patterns };
    let present = materialize::present(&destination, &|paths| session.observe(paths)).unwrap_or_default();
    let matched = |path: &RelPath| patterns.iter().any(|pattern| pattern.matches(path));
    let mut differences = Vec::new();
    for (path, entry) in listing.iter().filter(|(path, _)| matched(path)) {
        match present.get(path) {
            Some(there) if there == entry => {}
            Some(there) => {
                differences.push((path.clone(), first_difference(session, &package.join(path), there, entry)))
            }
            None => differences.push((path.clone(), "is not there".into())),
        }
    }
    for path in present.keys().filter(|path| !listing.contains_key(*path)) {
        differences.push((path.clone(), "is there, but the task does not make it".into()));
    }
    differences
}

/// The first line that differs, for texts; else what kind of difference it is.
fn first_difference(session: &Session<'_>, path: &RelPath, there: &Entry, wanted: &Entry) -> String {
    let (Entry::File { .. }, Entry::File { digest, .. }) = (there, wanted) else { return "is of another kind".into() };
    let disk = crate::fs::ops::read_text(&session.workspace.root.join(path.as_str())).ok();
    let made = session.store.read(digest).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
    let (Some(disk), Some(made)) = (disk, made) else { return "has other bytes".into() };
    if disk == made {
        return "has another executable bit".into();
    }
    let mut lines = disk.lines().zip(made.lines()).enumerate();
    match lines.find(|(_, (one, other))| one != other) {
        Some((number, (one, other))) => format!("differs at line {}: {one:?} in the tree, {other:?} made", number + 1),
        None => format!("has {} lines in the tree, {} are made", disk.lines().count(), made.lines().count()),
    }
}
