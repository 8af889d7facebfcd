//! Puts together what the parts of a split task leave, once all that run now are done, and puts it in place. Runs no task.
//!
//! Parts share their declared outputs and reports, so none of them writes to the tree by itself. What a part that is not in this
//! run left last is remembered and stands: running one part again changes its share and no other. One file per split task in the
//! state directory of the workspace: magic (8 bytes), label, digest of the shares, digest of their union, `u64` count, per part
//! its label and the tree of its share, then BLAKE3 over everything before. A damaged or lost file costs what other parts left.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing, fold};
use crate::engine::job::Fault;
use crate::engine::materialize::MaterializeError;
use crate::engine::owned::Owned;
use crate::engine::plan::Plan;
use crate::engine::prepare::Produced;
use crate::engine::restore::{self, RestoreError};
use crate::engine::session::Session;
use crate::engine::union::{self, Age, Keep, Piece, UnionError, unite};
use crate::engine::unstable;
use crate::fs::atomic::{self, Durability};
use crate::fs::lock::{self, Sharing};
use crate::fs::ops;
use crate::manifest::model::TaskKind;
use crate::manifest::split;
use crate::store::StoreError;
use crate::workspace::split::split_of;

const MAGIC: [u8; 8] = *b"dryst\0p1";

/// What a part left in this run.
pub enum Left {
    /// It passed.
    Passed(Arc<Produced>),
    /// It failed, and these are its reports and what `on-failure` lists.
    Failed(Listing),
}

/// The split tasks of a run that are not done.
pub struct Parts {
    /// Parts to come, by the first part of each task.
    waiting: BTreeMap<TaskId, usize>,
    left: BTreeMap<TaskId, Left>,
}

/// A split task of which nothing more comes in this run.
#[derive(Default)]
pub struct Settled {
    /// What its dependants see; only if all its parts passed.
    pub produced: Option<Arc<Produced>>,
    /// Whether the tree changed.
    pub written: bool,
    /// Things worth saying.
    pub notes: Vec<Diagnostic>,
    /// Why it failed as a whole, though its parts may have passed.
    pub problems: Vec<Diagnostic>,
    /// Whose fault that is.
    pub fault: Option<Fault>,
}

impl Parts {
    /// Those of a plan, none of them done.
    pub fn of(session: &Session<'_>, plan: &Plan) -> Self {
        let mut waiting = BTreeMap::new();
        for task in &plan.tasks {
            if session.workspace.split_of(*task).is_some() {
                *waiting.entry(session.workspace.whole(*task)).or_default() += 1;
            }
        }
        Self { waiting, left: BTreeMap::new() }
    }

    /// How many parts of a split task are not done, by its first part.
    pub fn to_come(&self, whole: TaskId) -> usize {
        self.waiting.get(&whole).copied().unwrap_or(0)
    }

    /// Takes what a task left, nothing if it did not run; settles its whole if it was the last part. Cost: that of [`settle`].
    pub fn done(&mut self, session: &Session<'_>, task: TaskId, left: Option<Left>) -> Option<Settled> {
        let whole = session.workspace.whole(task);
        let waiting = self.waiting.get_mut(&whole)?;
        *waiting -= 1;
        let is_last = *waiting == 0;
        self.left.extend(left.map(|left| (task, left)));
        is_last.then(|| settle(session, whole, &mut self.left))
    }
}

/// Puts a whole together and in place.
fn settle(session: &Session<'_>, whole: TaskId, left: &mut BTreeMap<TaskId, Left>) -> Settled {
    let settling = Settling { session, whole, owned: Owned::of(session, whole) };
    settling.settle(left).unwrap_or_else(|trouble| settling.failed(trouble))
}

/// Why a whole could not be put in place.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Union(#[from] UnionError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fs(#[from] ops::FsError),
}

struct Settling<'a, 'w> {
    session: &'a Session<'w>,
    /// The first part.
    whole: TaskId,
    owned: Owned<'a>,
}

/// What one part has a share in the tree with.
struct Share {
    piece: Piece,
    tree: Digest,
    /// As of [`Produced::unstable`].
    unstable: Option<Digest>,
}

fn pieces(shares: &[Share]) -> Vec<Piece> {
    shares.iter().map(|Share { piece, .. }| Piece { listing: Arc::clone(&piece.listing), ..*piece }).collect()
}

impl Settling<'_, '_> {
    fn settle(&self, left: &mut BTreeMap<TaskId, Left>) -> Result<Settled, Trouble> {
        let session = self.session;
        let parts = session.workspace.parts_beside(&self.whole);
        let all_passed = parts.iter().all(|part| matches!(left.get(part), Some(Left::Passed(_))));
        let memory = Memory::open(session, self.whole)?;
        let before = memory.load();
        let any_failed = parts.iter().any(|part| matches!(left.get(part), Some(Left::Failed(_))));
        let mut shares = Vec::new();
        let mut extras = Vec::new();
        for part in parts {
            shares.extend(match left.remove(part) {
                Some(Left::Passed(produced)) => {
                    let piece = Piece { part: *part, age: Age::Now, listing: Arc::clone(&produced.listing) };
                    Some(Share { piece, tree: produced.digest, unstable: produced.unstable })
                }
                Some(Left::Failed(listing)) => Some(self.share_of_failed(*part, listing, &before, &mut extras)?),
                None => self.earlier_share(*part, &before)?,
            });
        }
        let mut settled = match self.place(&shares, &before, &memory) {
            // The failure itself is the news: reports are put where they can be.
            Err(Trouble::Restore(error)) if any_failed && error.is_refusal() => self.reports_alone(&shares)?,
            settled => settled?,
        };
        settled.produced = settled.produced.filter(|_| all_passed);
        let extras = self.told_apart(extras);
        if !extras.is_empty() {
            settled.notes.extend(restore::add_after_failure(session, self.whole, &extras));
        }
        Ok(settled)
    }

    /// Its reports now, and the outputs that it left when it passed last: a failure takes nothing away.
    fn share_of_failed(
        &self,
        part: TaskId,
        left: Listing,
        before: &Remembered,
        extras: &mut Vec<(TaskId, RelPath, Entry)>,
    ) -> Result<Share, Trouble> {
        let is_report = |path: &RelPath| self.is_report(part, path);
        let earlier = self.earlier_share(part, before)?.map(|share| share.piece.listing);
        let mut listing: Listing = earlier
            .iter()
            .flat_map(|listing| listing.iter())
            .filter(|(path, _)| !is_report(path))
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect();
        for (path, entry) in left {
            if is_report(&path) {
                listing.insert(path, entry);
            } else {
                extras.push((part, path, entry));
            }
        }
        let trees = fold(&listing);
        self.session.store.put_trees(&trees)?;
        Ok(Share { piece: Piece { part, age: Age::Now, listing: Arc::new(listing) }, tree: trees.root, unstable: None })
    }

    fn is_report(&self, part: TaskId, path: &RelPath) -> bool {
        match &self.session.workspace.tasks[part].kind {
            TaskKind::Run(run) => run.reports.matches(path),
            TaskKind::Fetch(_) | TaskKind::Service(_) => false,
        }
    }

    /// What a part left in an earlier run, as far as all of it is still known.
    fn earlier_share(&self, part: TaskId, before: &Remembered) -> Result<Option<Share>, Trouble> {
        let Some(tree) = before.shares.get(&self.session.label(part)).copied() else { return Ok(None) };
        let Some(listing) = self.session.store.listing(&tree)? else { return Ok(None) };
        for entry in listing.values() {
            if let Entry::File { digest, .. } = entry
                && !self.session.store.contains(digest)?
            {
                return Ok(None);
            }
        }
        Ok(Some(Share { piece: Piece { part, age: Age::Earlier, listing: Arc::new(listing) }, tree, unstable: None }))
    }

    fn place(&self, shares: &[Share], before: &Remembered, memory: &Memory) -> Result<Settled, Trouble> {
        let session = self.session;
        let stamp = self.stamp(shares);
        let unstable = unstable::together(shares.iter().filter_map(|share| share.unstable));
        let known = if before.stamp == stamp { session.store.listing(&before.union)? } else { None };
        let mut settled = Settled::default();
        if let Some(listing) = known {
            let produced = Produced { listing: Arc::new(listing), digest: before.union, unstable };
            match restore::put_in_place(session, self.whole, &produced.listing) {
                Ok(placed) => {
                    settled.written = placed.written;
                    settled.notes = placed.notes;
                    settled.produced = Some(Arc::new(produced));
                    return Ok(settled);
                }
                // A merged report was collected: it is made again.
                Err(RestoreError::Materialize(MaterializeError::Vanished(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let union = unite(session, &pieces(shares), Keep::Store)?;
        let is_plain = union.notes.is_empty();
        settled.notes.clone_from(&union.notes);
        session.store.put_trees(&fold(&union.listing))?;
        let produced = Produced { unstable, ..union::produced(union) };
        let placed = restore::put_in_place(session, self.whole, &produced.listing)?;
        settled.written = placed.written;
        settled.notes.extend(placed.notes);
        let after = Remembered {
            // What is worth saying is said again next time.
            stamp: if is_plain { stamp } else { Digest::of(b"") },
            union: produced.digest,
            shares: shares.iter().map(|share| (session.label(share.piece.part), share.tree)).collect(),
        };
        if after != *before {
            memory.save(&after)?;
        }
        settled.produced = Some(Arc::new(produced));
        Ok(settled)
    }

    /// Adds what reports can be added, and nothing else.
    fn reports_alone(&self, shares: &[Share]) -> Result<Settled, Trouble> {
        let union = unite(self.session, &pieces(shares), Keep::Store)?;
        let reports = union.listing.into_iter().filter(|(path, _)| self.owned.is_report(path)).collect();
        let notes = [union.notes, restore::add_after_failure(self.session, self.whole, &reports)].concat();
        Ok(Settled { written: true, notes, ..Settled::default() })
    }

    /// Says which parts left what; what they are called and declare belongs to it.
    fn stamp(&self, shares: &[Share]) -> Digest {
        let mut encoder = Encoder::new();
        encoder.bytes(&MAGIC);
        for pattern in self.owned.loose() {
            encoder.bytes(pattern.text.as_bytes());
        }
        for Share { piece, tree, unstable: _ } in shares {
            encoder.bytes(self.session.label(piece.part).as_bytes()).u8(u8::from(piece.age == Age::Now)).digest(tree);
        }
        Digest::of(encoder.as_slice())
    }

    /// What failed parts left beside outputs and reports; what several left at one path is told apart by the part.
    fn told_apart(&self, extras: Vec<(TaskId, RelPath, Entry)>) -> Listing {
        let mut by_path: BTreeMap<RelPath, Vec<(TaskId, Entry)>> = BTreeMap::new();
        for (part, path, entry) in extras {
            by_path.entry(path).or_default().push((part, entry));
        }
        let mut listing = Listing::new();
        for (path, held) in by_path {
            let is_one = held.iter().all(|(_, entry)| *entry == held[0].1);
            for (part, entry) in held {
                let named = split_of(&self.session.workspace.tasks[part]).filter(|_| !is_one);
                let path = named.map_or_else(|| path.clone(), |split| split::apart(&path, &split.part));
                listing.insert(path, entry);
            }
        }
        listing
    }

    fn failed(&self, trouble: Trouble) -> Settled {
        let label = self.session.workspace.whole_label(self.whole);
        let place = &self.session.workspace.tasks[self.whole].place;
        let (problems, fault) = match trouble {
            Trouble::Union(UnionError::Conflict(problems)) => (problems, Fault::Command),
            Trouble::Restore(RestoreError::Refused(problems)) => (problems, Fault::Workspace),
            trouble => {
                let is_refusal = matches!(&trouble, Trouble::Restore(error) if error.is_refusal());
                let problem =
                    Diagnostic::error(format!("what the parts of `{label}` made could not be put in place: {trouble}"));
                let help = if is_refusal {
                    "move what is in the way, or change `outputs`"
                } else {
                    "run it again; `drystone store verify` tells what is wrong with the store"
                };
                let fault = if is_refusal { Fault::Workspace } else { Fault::Machine };
                (vec![problem.at(place, "declared here").help(help)], fault)
            }
        };
        Settled { problems, fault: Some(fault), ..Settled::default() }
    }
}

/// What the parts of one task left when they ran last.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Remembered {
    /// Which shares the union is of.
    stamp: Digest,
    /// Tree of the union.
    union: Digest,
    /// Trees by label of the part.
    shares: BTreeMap<String, Digest>,
}

impl Remembered {
    fn nothing() -> Self {
        Self { stamp: Digest::of(b""), union: Digest::of(b""), shares: BTreeMap::new() }
    }

    fn encode(&self, label: &str) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.bytes(&MAGIC).bytes(label.as_bytes()).digest(&self.stamp).digest(&self.union);
        encoder.u64(self.shares.len() as u64);
        for (part, tree) in &self.shares {
            encoder.bytes(part.as_bytes()).digest(tree);
        }
        encoder.into_sealed()
    }

    fn decode(bytes: &[u8], label: &str) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::sealed(bytes)?;
        if decoder.bytes()? != MAGIC || decoder.text("label")? != label {
            return Err(DecodeError::Invalid { what: "header" });
        }
        let (stamp, union) = (decoder.digest()?, decoder.digest()?);
        let mut shares = BTreeMap::new();
        for _ in 0..decoder.u64()? {
            let part = decoder.text("label")?.to_owned();
            shares.insert(part, decoder.digest()?);
        }
        decoder.finish()?;
        Ok(Self { stamp, union, shares })
    }
}

/// The file of one split task, held against other processes.
struct Memory {
    file: PathBuf,
    label: String,
    _lock: lock::Lock,
}

impl Memory {
    fn open(session: &Session<'_>, whole: TaskId) -> Result<Self, ops::FsError> {
        let label = session.workspace.whole_label(whole);
        let dir = session.state_dir.join("parts");
        ops::create_dir_all(&dir)?;
        // One lock for all: whoever holds it settles one task at a time anyhow.
        let lock = lock::wait(&dir.join("lock"), Sharing::Exclusive)?;
        Ok(Self { file: dir.join(Digest::of(label.as_bytes()).short()), label, _lock: lock })
    }

    fn load(&self) -> Remembered {
        let bytes = ops::read(&self.file).ok();
        bytes.and_then(|bytes| Remembered::decode(&bytes, &self.label).ok()).unwrap_or_else(Remembered::nothing)
    }

    fn save(&self, remembered: &Remembered) -> Result<(), ops::FsError> {
        atomic::write(&self.file, &remembered.encode(&self.label), Durability::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_back_and_damage_is_noticed() {
        let shares = BTreeMap::from([("//:t[part=1/2]".to_owned(), Digest::of(b"1"))]);
        let remembered = Remembered { stamp: Digest::of(b"s"), union: Digest::of(b"u"), shares };
        let whole = remembered.encode("//:t");
        assert_eq!(Remembered::decode(&whole, "//:t").expect("it is whole"), remembered);
        assert!(Remembered::decode(&whole, "//:u").is_err());
        for cut in 0..whole.len() {
            assert!(Remembered::decode(&whole[..cut], "//:t").is_err(), "{cut}");
            let mut flipped = whole.clone();
            flipped[cut] ^= 1;
            assert!(Remembered::decode(&flipped, "//:t").is_err(), "{cut}");
        }
    }
}
