//! What several parts of one task left, as one listing. Writes no file of the tree; merged reports go to the store.
//!
//! - JUnit reports of one path become one file with all suites, LCOV coverage one file with all records.
//! - Every other report of one path is kept apart: the name of its part stands before its ending.
//! - Outputs are united. Two parts that make one path differently are an error.
//!
//! The order is that of the parts, so the same parts make the same bytes.

mod junit;
mod lcov;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::time::human_bytes;
use crate::base::tree::{Entry, Listing, fold};
use crate::engine::prepare::Produced;
use crate::engine::secrets::Secrets;
use crate::engine::session::Session;
use crate::fs::ops::{self, FsError};
use crate::manifest::model::{RunTask, TaskKind};
use crate::manifest::split;
use crate::store::{Store, StoreError};
use crate::workspace::split::split_of;

/// Paths told when parts disagree.
const CONFLICTS_TOLD_MAX: usize = 3;

/// Most bytes of reports that are put into one: all of them are in memory meanwhile.
const MERGED_BYTES_MAX: u64 = 512 << 20;

/// When a part left what it left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Age {
    /// In an earlier run: it gives way where parts disagree.
    Earlier,
    /// In this run.
    Now,
}

/// What one part left.
pub struct Piece {
    /// The part.
    pub part: TaskId,
    /// When.
    pub age: Age,
    /// By path relative to the package.
    pub listing: Arc<Listing>,
}

/// What all of them left.
#[derive(Debug, Default)]
pub struct Union {
    /// By path relative to the package.
    pub listing: Listing,
    /// Things worth saying.
    pub notes: Vec<Diagnostic>,
}

/// Whether merged reports are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// In the store, to be put in place.
    Store,
    /// Not at all: their digests are enough.
    Nothing,
}

/// Why there is no union.
#[derive(Debug, thiserror::Error)]
pub enum UnionError {
    /// Parts made one path differently.
    #[error("{}", .0.first().map_or("parts made one path differently", |problem| problem.message.as_str()))]
    Conflict(Vec<Diagnostic>),
    /// A report is no longer in the store.
    #[error("the content of `{0}` is no longer in the store")]
    Gone(RelPath),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// The union as what a task produced, as far as nothing of it is unstable; its trees are not stored.
pub fn produced(union: Union) -> Produced {
    let digest = fold(&union.listing).root;
    Produced { listing: Arc::new(union.listing), digest, unstable: None }
}

/// Puts together what parts of one task left, given in the order of the parts.
///
/// # Errors
/// See [`UnionError`]. Cost: one read of every report that several parts wrote.
pub fn unite(session: &Session<'_>, pieces: &[Piece], keep: Keep) -> Result<Union, UnionError> {
    let Some(first) = pieces.first() else { return Ok(Union::default()) };
    let mut by_path: BTreeMap<&RelPath, Vec<Held<'_>>> = BTreeMap::new();
    for piece in pieces {
        let TaskKind::Run(run) = &session.workspace.tasks[piece.part].kind else { continue };
        for (path, entry) in piece.listing.iter() {
            by_path.entry(path).or_default().push(Held { piece, run, entry });
        }
    }
    let secrets = session.secrets_reaching(first.part);
    let mut uniting = Uniting { session, keep, secrets, union: Union::default(), conflicts: Vec::new() };
    let mut makers: BTreeMap<RelPath, TaskId> = BTreeMap::new();
    for (path, held) in by_path {
        let is_report = held.iter().any(|held| held.run.reports.matches(path));
        let files = held.iter().all(|held| matches!(held.entry, Entry::File { .. }));
        if is_report && files {
            uniting.report(path, &held)?;
        } else {
            uniting.output(path, &held, &mut makers);
        }
    }
    uniting.refuse_files_above_files(&makers);
    let Uniting { mut union, conflicts, .. } = uniting;
    if !conflicts.is_empty() {
        return Err(UnionError::Conflict(conflicts));
    }
    let parents: std::collections::BTreeSet<RelPath> = union.listing.keys().filter_map(RelPath::parent).collect();
    union.listing.retain(|path, entry| *entry != Entry::Dir || !parents.contains(path));
    Ok(union)
}

/// The position of a report that stands against merging, and what is wrong with it.
type Unmerged = (usize, String);

/// What one part has at a path.
struct Held<'p> {
    piece: &'p Piece,
    run: &'p RunTask,
    entry: &'p Entry,
}

struct Uniting<'a, 'w> {
    session: &'a Session<'w>,
    keep: Keep,
    secrets: Secrets,
    union: Union,
    conflicts: Vec<Diagnostic>,
}

impl Uniting<'_, '_> {
    fn output(&mut self, path: &RelPath, held: &[Held<'_>], makers: &mut BTreeMap<RelPath, TaskId>) {
        let newest = held.iter().map(|held| held.piece.age).max();
        let mut standing = held.iter().filter(|held| Some(held.piece.age) == newest);
        let Some(first) = standing.next() else { return };
        if let Some(other) = standing.find(|other| other.entry != first.entry) {
            self.conflict(path, path, first.piece.part, other.piece.part);
        }
        makers.insert(path.clone(), first.piece.part);
        self.union.listing.insert(path.clone(), first.entry.clone());
    }

    /// A file of one part where another has a directory.
    fn refuse_files_above_files(&mut self, makers: &BTreeMap<RelPath, TaskId>) {
        for (path, part) in makers {
            let mut above = path.parent();
            while let Some(dir) = above.filter(|dir| !dir.is_root()) {
                if self.union.listing.get(&dir).is_some_and(|entry| *entry != Entry::Dir)
                    && let Some(other) = makers.get(&dir)
                {
                    self.conflict(&dir, path, *other, *part);
                }
                above = dir.parent();
            }
        }
    }

    fn conflict(&mut self, path: &RelPath, other_path: &RelPath, one: TaskId, other: TaskId) {
        if self.conflicts.len() == CONFLICTS_TOLD_MAX {
            return;
        }
        let task = &self.session.workspace.tasks[one];
        let (first, second) = (self.session.label(one), self.session.label(other));
        let package = &task.label.package;
        let message = if path == other_path {
            format!("`{first}` and `{second}` both make `{}`, and not the same", package.join(path))
        } else {
            let (path, beneath) = (package.join(path), package.join(other_path));
            format!("`{first}` makes the file `{path}`, and `{second}` makes `{beneath}` beneath it")
        };
        self.conflicts.push(
            Diagnostic::error(message)
                .at(&task.place, "its parts share what `outputs` declares")
                .help("write the part into the path, in `run` and in `outputs`: `out/${shard.index}/…`"),
        );
    }

    fn report(&mut self, path: &RelPath, held: &[Held<'_>]) -> Result<(), UnionError> {
        let is_junit = held.iter().any(|held| held.run.split.iter().any(|split| split.junit.matches(path)));
        let [first, ..] = held else { return Ok(()) };
        if held.len() == 1 && (is_junit || !self.may_be_of_others(path, first.piece.part)) {
            self.union.listing.insert(path.clone(), first.entry.clone());
            return Ok(());
        }
        match self.merged(path, held, is_junit)? {
            Ok(bytes) => {
                let entry = self.keep(&bytes)?;
                self.union.listing.insert(path.clone(), entry);
            }
            Err(problem) => {
                for held in held {
                    let part = &held.run.split.as_ref().expect("only parts are united").part;
                    self.union.listing.insert(split::apart(path, part), held.entry.clone());
                }
                self.union
                    .notes
                    .extend(problem.map(|(at, problem)| self.unmerged(path, held[at].piece.part, &problem)));
            }
        }
        Ok(())
    }

    /// The reports as one, or what is wrong with one of them where that is worth saying.
    fn merged(
        &self,
        path: &RelPath,
        held: &[Held<'_>],
        is_junit: bool,
    ) -> Result<Result<Vec<u8>, Option<Unmerged>>, UnionError> {
        let sizes = held.iter().map(|held| if let Entry::File { size, .. } = held.entry { *size } else { 0 });
        if sizes.fold(0, u64::saturating_add) > MERGED_BYTES_MAX {
            let problem = format!("together they are larger than {}", human_bytes(MERGED_BYTES_MAX));
            return Ok(Err(Some((0, problem))));
        }
        let files = held.iter().map(|held| self.content(path, held.entry));
        let files = files.collect::<Result<Vec<Vec<u8>>, UnionError>>()?;
        Ok(if is_junit { junit::merged(&files).map_err(Some) } else { lcov::concatenated(&files).ok_or(None) })
    }

    /// Whether another part may report into the same file: then it is kept apart even where only one part did so far.
    fn may_be_of_others(&self, path: &RelPath, part: TaskId) -> bool {
        let parts = self.session.workspace.parts_beside(&part);
        let other = parts.iter().find(|other| **other != part);
        other.is_some_and(|other| match &self.session.workspace.tasks[*other].kind {
            TaskKind::Run(run) => run.reports.matches(path),
            TaskKind::Fetch(_) | TaskKind::Service(_) => false,
        })
    }

    fn unmerged(&self, path: &RelPath, part: TaskId, problem: &str) -> Diagnostic {
        let task = &self.session.workspace.tasks[part];
        let place = split_of(task).map_or(&task.place, |split| &split.place);
        let path = task.label.package.join(path);
        Diagnostic::warning(format!("`{path}` of `{}` was not merged with those of other parts: {problem}", task.label))
            .at(place, "each part's is beside it")
            .help("write a well-formed JUnit XML file of moderate size, or list it under `reports.coverage`")
    }

    fn content(&self, path: &RelPath, entry: &Entry) -> Result<Vec<u8>, UnionError> {
        let Entry::File { digest, .. } = entry else { return Err(UnionError::Gone(path.clone())) };
        self.session.store.read(digest)?.ok_or_else(|| UnionError::Gone(path.clone()))
    }

    fn keep(&self, bytes: &[u8]) -> Result<Entry, UnionError> {
        let digest = match self.keep {
            Keep::Nothing => Digest::of(bytes),
            Keep::Store if self.secrets.are_in(bytes) => self.keep_for_now(bytes)?,
            Keep::Store => self.session.store.put_bytes(bytes)?,
        };
        Ok(Entry::File { digest, size: bytes.len() as u64, executable: false })
    }

    /// What holds a secret is put in place and leaves the store with this invocation, as what the parts left does.
    fn keep_for_now(&self, bytes: &[u8]) -> Result<Digest, UnionError> {
        let stage = self.session.store.stage()?;
        let file = stage.path().join("merged");
        ops::write(&file, bytes)?;
        let (digest, _) = Store::put_file_apart(&self.session.store, &file)?;
        self.session.discard_content(digest);
        Ok(digest)
    }
}
