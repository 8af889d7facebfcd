//! Puts the outputs of a result in place in the tree, by the rules of who owns what there. Runs no task.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::materialize::{Destination, MaterializeError};
use crate::engine::owned::Owned;
use crate::engine::present::{self, Names, Present};
use crate::engine::session::Session;
use crate::engine::takeover;
use crate::engine::tracked;
use crate::engine::waiting;
use crate::engine::written::{Record, Records};
use crate::fs::ops;
use crate::manifest::model::{Materialize, RunTask, TaskKind};
use crate::store::StoreError;

/// How often the tree may change between being read and being written before that is an error.
const ATTEMPTS_MAX: usize = 16;

/// Files told per note.
const FILES_TOLD_MAX: usize = 5;

/// Why outputs could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// What lies there belongs to someone else: git, a person, another task.
    #[error("{}", .0.first().map_or("the outputs hold files of someone else", |problem| problem.message.as_str()))]
    Refused(Vec<Diagnostic>),
    /// The run was interrupted while another one was writing.
    #[error("the run was interrupted while another one was writing there")]
    Cancelled,
    /// Writing went wrong.
    #[error(transparent)]
    Materialize(#[from] MaterializeError),
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] ops::FsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RestoreError {
    /// Whether a person has to change the tree or the manifest before it can go on.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Materialize(error) => error.is_refusal(),
            Self::Cancelled | Self::Fs(_) | Self::Store(_) => false,
        }
    }
}

/// What putting outputs in place did.
#[derive(Debug, Default)]
pub struct Placed {
    /// Whether the tree changed.
    pub written: bool,
    /// Things worth saying.
    pub notes: Vec<Diagnostic>,
}

/// Makes the owned outputs of a task in the tree equal to `listing`; committed ones are left alone.
///
/// Cost when nothing differs: one walk of the outputs and one `stat` per file.
pub fn put_in_place(session: &Session<'_>, task: TaskId, listing: &Listing) -> Result<Placed, RestoreError> {
    let owned = Owned::of(session, task);
    if owned.is_empty() {
        return Ok(Placed::default());
    }
    let wanted = owned.part_of(listing);
    put(session, task, &owned, &wanted, Class::Outputs)
}

/// Whether the owned outputs of a task in the tree are those of `listing`, and recorded as its own: then there is nothing to put in
/// place. Writes nothing.
///
/// Cost: as of [`put_in_place`] when nothing differs.
pub fn is_in_place(session: &Session<'_>, task: TaskId, listing: &Listing) -> bool {
    let owned = Owned::of(session, task);
    if owned.is_empty() {
        return true;
    }
    let (label, records) = (session.workspace.whole_label(task), &session.records);
    let wanted = owned.part_of(listing);
    let Ok(mut names) = Names::find(&session.root, &owned) else { return false };
    let record = if has_stray(&owned, &names, &wanted) { records.load(&label) } else { Record::default() };
    names.retain(&owned, &|path| wanted.contains_key(path) || record.paths.contains_key(&owned.package.join(path)));
    let present = Present::look(&owned, names, &|paths| session.leaves(paths).into_iter().map(Result::ok).collect());
    present.is(&wanted) && (records.has(&label) || exact_directories(&owned, &wanted).is_empty())
}

/// Whether something lies there that a wildcard matches and that is not wanted: whose it is, the record tells.
fn has_stray(owned: &Owned<'_>, names: &Names, wanted: &Listing) -> bool {
    let mut all = names.files.iter().chain(&names.dirs);
    all.any(|path| owned.unit_of(path).is_none() && !wanted.contains_key(path))
}

/// Writes the committed outputs: all that a `--fix` writes.
///
/// What the task no longer makes is removed if an earlier `--fix` wrote it or git has it just as it is.
pub fn put_committed(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    listing: &Listing,
) -> Result<Placed, RestoreError> {
    let owned = Owned::committed(session, task, run);
    let wanted = owned.part_of(listing);
    put(session, task, &owned, &wanted, Class::Committed)
}

/// Which of a task's files are put in place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Outputs,
    Committed,
}

fn put(
    session: &Session<'_>,
    task: TaskId,
    owned: &Owned<'_>,
    wanted: &Listing,
    class: Class,
) -> Result<Placed, RestoreError> {
    let root = &session.root;
    let label = session.workspace.whole_label(task);
    let records = &session.records;
    for _ in 0..ATTEMPTS_MAX {
        let mut names = Names::find(root, owned)?;
        let record = if has_stray(owned, &names, wanted) { records.load(&label) } else { Record::default() };
        let recoverable = match class {
            Class::Committed => extra_in_git(session, owned, &names, wanted),
            Class::Outputs => BTreeSet::new(),
        };
        let keep = |path: &RelPath| {
            wanted.contains_key(path)
                || record.paths.contains_key(&owned.package.join(path))
                || recoverable.contains(path)
        };
        names.retain(owned, &keep);
        let present = Present::look(owned, names, &|paths| session.leaves(paths).into_iter().map(Result::ok).collect());
        if present.is(wanted) {
            adopt(session, owned, wanted, (records, &label))?;
            return Ok(Placed::default());
        }
        let record = records.load(&label);
        if class == Class::Outputs {
            tracked::check(session, &[task]).map_err(RestoreError::Refused)?;
            let problem = takeover::check(session, task, owned, (&present, wanted), (records, &record))?;
            let problem = takeover::shared(session, task, wanted).or(problem);
            if let Some(problem) = problem {
                return Err(RestoreError::Refused(vec![problem]));
            }
        }
        // Nothing is digested from here on: who holds the lock must not wait for the CPU pool.
        let _lock = waiting::records(session, &label)?.ok_or(RestoreError::Cancelled)?;
        let mut now = Names::find(root, owned)?;
        now.retain(owned, &keep);
        if !present.is_still(root, owned, &now) || records.load(&label) != record {
            continue;
        }
        let materialize = match class {
            Class::Outputs => session.workspace.config.materialize,
            Class::Committed => Materialize::Copy,
        };
        let destination = destination(session, owned, materialize);
        let (doomed, changed) = no_longer_made(owned, &present, wanted, &record, &recoverable);
        place(&destination, &present, wanted, &doomed, (records, &label, record))?;
        session.placed.add(destination.placed.take());
        let notes = [left_alone(session, task, owned, &changed), told_of_links(session, task)].concat();
        return Ok(Placed { written: true, notes });
    }
    Err(MaterializeError::Restless(owned.package.clone()).into())
}

/// What is to be said about links, once: that there can be none here, and that somebody wrote into one.
fn told_of_links(session: &Session<'_>, task: TaskId) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    if session.store.take_apart_from_links() {
        let message =
            "outputs are copies here, not links: the store lies on another file system, or may not be linked to";
        let help = "set `DRYSTONE_STORE` to a directory on the file system of the workspace, or leave `materialize = \"link\"` out";
        notes.push(Diagnostic::note(message).help(help));
    }
    let changed = session.store.take_changed_links();
    if changed > 0 {
        let files =
            if changed == 1 { "a file that outputs are".into() } else { format!("{changed} files that outputs are") };
        let message = format!(
            "{files} links to had been changed in place, and was made anew for `{}`; what other worktrees have of it is put right by their next run",
            session.workspace.whole_label(task)
        );
        let help = "with `materialize = \"link\"` outputs are shared: replace such a file instead of writing into it";
        notes.push(Diagnostic::warning(message).help(help));
    }
    notes
}

fn destination<'a>(session: &'a Session<'_>, owned: &'a Owned<'a>, materialize: Materialize) -> Destination<'a> {
    Destination {
        root: &session.root,
        owned,
        store: &session.store,
        materialize,
        placing: &session.placing,
        nursery: &session.nursery,
        grain: &session.placed.grain,
        placed: RefCell::default(),
    }
}

/// Directories that are right although nothing is recorded of them: the record was lost, and they are ours all the same.
fn adopt(
    session: &Session<'_>,
    owned: &Owned<'_>,
    wanted: &Listing,
    (records, label): (&Records, &str),
) -> Result<(), RestoreError> {
    if owned.units.is_empty() || records.has(label) {
        return Ok(());
    }
    let mut record = Record::default();
    record.dirs.extend(exact_directories(owned, wanted));
    let _lock = waiting::records(session, label)?.ok_or(RestoreError::Cancelled)?;
    if !records.has(label) && !record.dirs.is_empty() {
        records.save(label, &record)?;
    }
    Ok(())
}

/// Units that are directories once `wanted` is in place, relative to the workspace.
fn exact_directories(owned: &Owned<'_>, wanted: &Listing) -> Vec<RelPath> {
    let is_dir = |unit: &&RelPath| !matches!(wanted.get(*unit), Some(Entry::File { .. } | Entry::Link { .. }));
    owned.units.iter().filter(is_dir).map(|unit| owned.package.join(unit)).collect()
}

/// What wildcards matched and the task no longer makes: what is as it was written goes, what someone changed since stays.
fn no_longer_made(
    owned: &Owned<'_>,
    present: &Present,
    wanted: &Listing,
    record: &Record,
    recoverable: &BTreeSet<RelPath>,
) -> (BTreeSet<RelPath>, BTreeSet<RelPath>) {
    let told = present.listing.keys().chain(&present.untold);
    let extra = told.filter(|path| owned.unit_of(path).is_none() && !wanted.contains_key(*path)).cloned();
    extra.partition(|path| {
        let entry = present.listing.get(path);
        let as_written = entry.is_some_and(|entry| record.is_as_written(&owned.package.join(path), entry));
        as_written || recoverable.contains(path)
    })
}

/// Writes the record so that a kill at any point leaves nothing unrecorded, then the files, then the record as it is.
fn place(
    destination: &Destination<'_>,
    present: &Present,
    wanted: &Listing,
    doomed: &BTreeSet<RelPath>,
    (records, label, before): (&Records, &str, Record),
) -> Result<(), RestoreError> {
    let owned = destination.owned;
    let mut record = before.clone();
    record.dirs.extend(exact_directories(owned, wanted));
    for (path, entry) in wanted.iter().filter(|(path, _)| owned.unit_of(path).is_none()) {
        // What already lay there was not written by us, and is not ours to remove later.
        if present.listing.get(path) != Some(entry) {
            record.note(owned.package.join(path), entry);
        }
    }
    if record != before {
        records.save(label, &record)?;
    }
    destination.put(present, wanted, doomed)?;
    let mut after = record.clone();
    after.paths.retain(|path, _| {
        let own = path.strip_prefix(owned.package).filter(|path| owned.claims(path));
        own.is_none_or(|path| owned.unit_of(&path).is_none() && wanted.contains_key(&path))
    });
    if after != record {
        records.save(label, &after)?;
    }
    Ok(())
}

fn left_alone(session: &Session<'_>, task: TaskId, owned: &Owned<'_>, changed: &BTreeSet<RelPath>) -> Vec<Diagnostic> {
    if changed.is_empty() {
        return Vec::new();
    }
    let declared = &session.workspace.tasks[task];
    vec![
        Diagnostic::warning(format!(
            "`{}` no longer makes {}, changed since it did",
            session.workspace.whole_label(task),
            told(owned.package, changed.iter())
        ))
        .at(&declared.place, "left alone from now on")
        .help("remove what nothing needs"),
    ]
}

/// The first few paths in backticks.
fn told<'p>(package: &RelPath, paths: impl ExactSizeIterator<Item = &'p RelPath>) -> String {
    let rest = paths.len().saturating_sub(FILES_TOLD_MAX);
    let first: Vec<String> = paths.take(FILES_TOLD_MAX).map(|path| format!("`{}`", package.join(path))).collect();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}

/// Files that match `committed` and are no longer made, as far as git has them just as they are.
fn extra_in_git(session: &Session<'_>, owned: &Owned<'_>, names: &Names, wanted: &Listing) -> BTreeSet<RelPath> {
    let extra: Vec<RelPath> =
        names.files.iter().filter(|path| !wanted.contains_key(*path)).map(|path| owned.package.join(path)).collect();
    if extra.is_empty() {
        return BTreeSet::new();
    }
    let safe = takeover::recoverable(session, extra).into_iter();
    safe.filter_map(|path| path.strip_prefix(owned.package)).collect()
}

/// Adds what a failed task left, file by file: nothing is removed, and what belongs to someone else is not replaced.
///
/// What was not put there is told, never an error: the failure itself is the news.
pub fn add_after_failure(session: &Session<'_>, task: TaskId, listing: &Listing) -> Vec<Diagnostic> {
    let owned = Owned::of(session, task);
    let label = session.workspace.whole_label(task);
    let records = &session.records;
    let known = records.load(&label);
    let inside: Vec<RelPath> = listing.keys().map(|path| owned.package.join(path)).collect();
    let there = session.observe(&inside);
    let mut wanted = Listing::new();
    let mut skipped = Vec::new();
    for (((path, entry), full), there) in listing.iter().zip(&inside).zip(there) {
        if there.as_ref() == Some(entry) {
            continue;
        }
        let exists = present::lies_at(&session.root, full);
        let reason = if tracked::is_tracked(session, full) {
            "tracked by git"
        } else if takeover::is_output_of_another(session, task, full) {
            "an output of another task"
        } else if exists && !takeover::may_replace(session, &known, full) {
            "there already, and not from this task"
        } else {
            wanted.insert(path.clone(), entry.clone());
            continue;
        };
        skipped.push(skip_note(session, task, full, reason));
    }
    let placed = place_after_failure(session, &owned, &wanted, (records, &label));
    skipped.extend(placed.unwrap_or_else(|error| vec![skip_note_of(session, task, &error)]));
    skipped
}

fn place_after_failure(
    session: &Session<'_>,
    owned: &Owned<'_>,
    wanted: &Listing,
    (records, label): (&Records, &str),
) -> Result<Vec<Diagnostic>, RestoreError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let _lock = waiting::records(session, label)?.ok_or(RestoreError::Cancelled)?;
    let mut record = records.load(label);
    // Logs may have a new name each time: what is gone is forgotten.
    record.paths.retain(|path, _| present::lies_at(&session.root, path));
    for (path, entry) in wanted.iter().filter(|(path, _)| owned.unit_of(path).is_none()) {
        record.note(owned.package.join(path), entry);
    }
    records.save(label, &record)?;
    let destination = destination(session, owned, Materialize::Copy);
    let mut notes = Vec::new();
    for one in wanted {
        if let Err(error) = destination.place_all(std::iter::once(one)) {
            notes.push(Diagnostic::warning(format!("`{}` was not kept: {error}", owned.package.join(one.0))));
        }
    }
    Ok(notes)
}

fn skip_note(session: &Session<'_>, task: TaskId, path: &RelPath, reason: &str) -> Diagnostic {
    Diagnostic::warning(format!("the `{path}` that `{}` left was not kept: it is {reason}", session.label(task)))
        .help("take it out of `on-failure` with `!`, or move what is there")
}

fn skip_note_of(session: &Session<'_>, task: TaskId, error: &RestoreError) -> Diagnostic {
    Diagnostic::warning(format!("what `{}` left was not kept: {error}", session.label(task)))
}

/// Committed outputs that differ from what the task makes: paths relative to the package, with what differs.
pub fn committed_differences(session: &Session<'_>, task: TaskId, listing: &Listing) -> Vec<(RelPath, String)> {
    let TaskKind::Run(run) = &session.workspace.tasks[task].kind else { return Vec::new() };
    if run.committed.is_empty() {
        return Vec::new();
    }
    let owned = Owned::committed(session, task, run);
    let names = Names::find(&session.root, &owned).unwrap_or_default();
    let observe = |paths: &[RelPath]| session.leaves(paths).into_iter().map(Result::ok).collect();
    let present = Present::look(&owned, names, &observe).listing;
    let mut differences = Vec::new();
    for (path, entry) in &owned.part_of(listing) {
        match present.get(path) {
            Some(there) if there == entry => {}
            Some(there) => {
                differences.push((path.clone(), first_difference(session, &owned.package.join(path), there, entry)))
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
    let disk = ops::read_text(&session.workspace.root.join(path.as_str())).ok();
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
