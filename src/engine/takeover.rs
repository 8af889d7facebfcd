//! What must hold before outputs are put where something else lies. Writes nothing.
//!
//! A directory that a task declares whole becomes exact, so files of someone else in it would be lost. The first time, it is
//! taken over only if that cannot be: there are none, git ignores them, or it is what an earlier result left.

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::owned::Owned;
use crate::engine::present::{self, Present};
use crate::engine::session::Session;
use crate::engine::tracked::run_git;
use crate::engine::written::{Record, Records};
use crate::store::StoreError;
use crate::workspace::git;
use crate::workspace::outputs::claims_of;

/// Files told per directory.
const FILES_TOLD_MAX: usize = 3;

/// The first unit that cannot be made exact without losing someone's files, as an error with the way out.
pub fn check(
    session: &Session<'_>,
    task: TaskId,
    owned: &Owned<'_>,
    (present, wanted): (&Present, &Listing),
    (records, record): (&Records, &Record),
) -> Result<Option<Diagnostic>, StoreError> {
    for unit in &owned.units {
        let foreign: Vec<RelPath> = present
            .files_below(unit)
            .filter(|path| !wanted.contains_key(*path))
            .filter(|path| {
                let full = owned.package.join(path);
                !present.listing.get(*path).is_some_and(|entry| record.is_as_written(&full, entry))
            })
            .cloned()
            .collect();
        let repository: Vec<RelPath> =
            foreign.iter().filter(|path| is_in_unwanted_repository(path, wanted)).cloned().collect();
        if !repository.is_empty() && !is_earlier_result(session, task, owned, unit, present)? {
            return Ok(Some(refusal(session, task, owned, unit, &repository)));
        }
        // A link is replaced, not followed: what it led to stays.
        let is_link = matches!(present.listing.get(unit), Some(Entry::Link { .. }));
        let full = owned.package.join(unit);
        let unrecorded = |path: &RelPath| !record.has_dir_of(path);
        let foreign: Vec<RelPath> = foreign.into_iter().filter(|path| unrecorded(&owned.package.join(path))).collect();
        if foreign.is_empty()
            || is_link
            || records.any_has_dir_of(&full)
            || is_ignored(session, &full, owned, &foreign)
            || is_earlier_result(session, task, owned, unit, present)?
        {
            continue;
        }
        return Ok(Some(refusal(session, task, owned, unit, &foreign)));
    }
    Ok(None)
}

/// Whether the path is part of a repository's own directory that the result does not have.
fn is_in_unwanted_repository(path: &RelPath, wanted: &Listing) -> bool {
    let Some(at) = path.components().position(|part| part == ".git") else { return false };
    let parts: Vec<&str> = path.components().take(at + 1).collect();
    let dir = RelPath::parse(&parts.join("/")).unwrap_or_default();
    !wanted.keys().any(|path| path.starts_with(&dir))
}

/// Whether git ignores all of these. Without git nothing is ignored.
fn is_ignored(session: &Session<'_>, unit: &RelPath, owned: &Owned<'_>, foreign: &[RelPath]) -> bool {
    let Some(answer) = run_git(session, &git::untracked_beneath(std::slice::from_ref(unit))) else { return false };
    let untracked = git::parse_changed(&answer);
    !foreign.iter().any(|path| untracked.iter().any(|one| owned.package.join(path).starts_with(one)))
}

/// Whether the unit is just as a result that the store remembers left it.
fn is_earlier_result(
    session: &Session<'_>,
    task: TaskId,
    owned: &Owned<'_>,
    unit: &RelPath,
    present: &Present,
) -> Result<bool, StoreError> {
    if present.untold.iter().any(|path| path.starts_with(unit)) {
        return Ok(false);
    }
    let have = present.below(unit);
    for (action, _) in session.store.recent_fingerprints(&session.label(task), &session.worktree())? {
        let Some(result) = session.store.lookup(&action)? else { continue };
        let Some(listing) = session.store.listing(&result.outputs)? else { continue };
        if present::below(&owned.part_of(&listing), unit) == have {
            return Ok(true);
        }
    }
    Ok(false)
}

fn refusal(session: &Session<'_>, task: TaskId, owned: &Owned<'_>, unit: &RelPath, foreign: &[RelPath]) -> Diagnostic {
    let declared = &session.workspace.tasks[task];
    let unit = owned.package.join(unit);
    let told: Vec<String> =
        foreign.iter().take(FILES_TOLD_MAX).map(|path| format!("`{}`", owned.package.join(path))).collect();
    let rest = foreign.len() - told.len();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    Diagnostic::error(format!(
        "`{unit}` is an output of `{}` and holds files it did not make: {}{more}",
        session.workspace.whole_label(task),
        told.join(", ")
    ))
    .at(&declared.place, "it would be replaced as a whole")
    .help(format!("move them away, or remove `{unit}` if nothing in it is needed"))
}

/// Another task that declares the path as its output. Reports are not outputs in this: of a place that several tasks report
/// into, each owns what it wrote.
fn output_of_another(session: &Session<'_>, task: TaskId, path: &RelPath) -> Option<TaskId> {
    let whole = |task: TaskId| session.workspace.whole(task);
    let others = session.outputs.producers(path).into_iter().map(|(other, _)| other);
    let mut others = others.filter(|other| whole(*other) != whole(task));
    let declares =
        |other: &TaskId| claims_of(*other, &session.workspace.tasks[*other]).iter().any(|claim| claim.covers(path));
    others.find(declares)
}

/// The error for an output that another task declares, too: whichever ran last would win.
pub fn shared(session: &Session<'_>, task: TaskId, listing: &Listing) -> Option<Diagnostic> {
    let package = session.package(task);
    let files = listing.iter().filter(|(_, entry)| **entry != Entry::Dir).map(|(path, _)| package.join(path));
    let (path, other) = files.into_iter().find_map(|path| {
        let other = output_of_another(session, task, &path)?;
        Some((path, other))
    })?;
    let (one, two) = (&session.workspace.tasks[task], &session.workspace.tasks[other]);
    Some(
        Diagnostic::error(format!("`{}` made `{path}`, which `{}` declares as its output, too", one.label, two.label))
            .at(&place_of(session, task, &path), format!("output of `{}`", one.label))
            .at(&place_of(session, other, &path), format!("output of `{}`", two.label))
            .help("each path has one task that makes it: narrow one of the two patterns"),
    )
}

fn place_of(session: &Session<'_>, task: TaskId, path: &RelPath) -> crate::base::span::Place {
    let declared = &session.workspace.tasks[task];
    let claim = claims_of(task, declared).into_iter().find(|claim| claim.covers(path));
    claim.map_or_else(|| declared.place.clone(), |claim| claim.place)
}

/// Whether another task declares the path as its output.
pub fn is_output_of_another(session: &Session<'_>, task: TaskId, path: &RelPath) -> bool {
    output_of_another(session, task, path).is_some()
}

/// Whether a file that a failed task left may replace what lies at a workspace path.
pub fn may_replace(session: &Session<'_>, record: &Record, path: &RelPath) -> bool {
    let is_ours = record.paths.contains_key(path) || record.has_dir_of(path);
    let is_ignored = || {
        let answer = run_git(session, &git::untracked_beneath(std::slice::from_ref(path)));
        answer.is_some_and(|answer| git::parse_changed(&answer).is_empty())
    };
    is_ours || is_ignored()
}

/// Committed outputs of a task among these, which git has just as they are: nothing is lost if they go.
pub fn recoverable(session: &Session<'_>, paths: Vec<RelPath>) -> Vec<RelPath> {
    let changed = git::changed_since("HEAD").ok().and_then(|argv| run_git(session, &argv));
    let Some(changed) = changed.map(|answer| git::parse_changed(&answer)) else { return Vec::new() };
    let is_safe =
        |path: &RelPath| crate::engine::tracked::is_tracked(session, path) && changed.binary_search(path).is_err();
    paths.into_iter().filter(is_safe).collect()
}
