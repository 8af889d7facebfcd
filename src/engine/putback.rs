//! Puts outputs back that are gone or were changed, of tasks that stand by what is kept of the last run in all else. Makes no key and
//! looks no result up.
//!
//! What such a task made is known without it: its source files are those of the last run, and so is what all it needs made. So the
//! outputs of all of them are put in place at once, whoever needs whom. Where that fails for one (the store lost its content, or somebody's
//! files are in the way), it is looked at as if nothing were known of it; what needs it stands if it comes out as before.

use std::collections::{BTreeMap, HashMap};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::engine::placed::PlacedFile;
use crate::engine::rest::Rest;
use crate::engine::restore::{self, Placed};
use crate::engine::session::Session;
use crate::fs::stat::StatKey;
use crate::workspace::census::{Aspect, Claim};
use crate::workspace::sweep::sweep_some;

/// Puts outputs in place on all processors. What could not be done, or was not because the run is interrupted, is left to be looked at.
pub fn put_back(session: &Session<'_>, rest: Rest) -> Rest {
    let lines = rest.misplaced();
    if lines.is_empty() {
        return rest;
    }
    let put = |at: &usize| Some((*at, put_one(session, &rest, *at)?));
    let put_back: BTreeMap<usize, Placed> = session.cpu.install(|| lines.par_iter().filter_map(put).collect());
    rest.with_put_back(put_back)
}

fn put_one(session: &Session<'_>, rest: &Rest, at: usize) -> Option<Placed> {
    let line = &rest.compared().lines()[at];
    if session.cancel.is_cancelled() {
        return None;
    }
    let listing = rest.compared().listing(line.stood.as_ref()?)?;
    let placed = restore::put_in_place(session, line.task, &listing);
    placed.inspect_err(|error| tracing::debug!(%error, task = line.label, "outputs were not put back")).ok()
}

/// Claims with their positions in the census.
pub type Renewed = Vec<(u32, Claim)>;

/// Claims on the outputs of some lines as they are now, by position; `None` for a line of which something is not as it should be.
///
/// Files that were placed are known; of the rest the claims are compared. Cost: of what is known, none.
pub fn claims_on(session: &Session<'_>, rest: &Rest, lines: &[usize]) -> Option<BTreeMap<usize, Option<Renewed>>> {
    if lines.is_empty() {
        return Some(BTreeMap::new());
    }
    let compared = rest.compared();
    let census = compared.census();
    let placed = session.placed.files();
    let known: HashMap<&RelPath, (StatKey, Digest)> =
        placed.iter().map(|PlacedFile { path, stat, digest }| (path, (*stat, *digest))).collect();
    let mut owners: HashMap<usize, usize> = HashMap::new();
    let mut all: BTreeMap<usize, Option<Renewed>> = BTreeMap::new();
    for line in lines {
        let mut claims = Vec::new();
        for at in compared.outputs_of(*line, session.package(compared.lines()[*line].task)) {
            let claim = census.claim(at)?;
            let placed = census.path(at).and_then(|path| known.get(&path).copied());
            match placed.filter(|(_, digest)| claim.aspect == Aspect::File && *digest == claim.digest) {
                Some((stat, digest)) => {
                    claims.push((u32::try_from(at).ok()?, Claim { stat, digest, is_settled: true, ..claim }))
                }
                None => drop(owners.insert(at, *line)),
            }
        }
        all.insert(*line, Some(claims));
    }
    if owners.is_empty() {
        return Some(all);
    }
    for news in sweep_some(census, compared.root(), &|at| owners.contains_key(&at)).ok()? {
        let claims = all.get_mut(owners.get(&news.claim)?)?;
        match (news.holds, news.now, claims.as_mut()) {
            (true, Some((stat, digest)), Some(claims)) => {
                let claim = census.claim(news.claim)?;
                claims.push((
                    u32::try_from(news.claim).ok()?,
                    Claim { stat, digest, is_settled: news.is_settled, ..claim },
                ));
            }
            (true, ..) => {}
            (false, ..) => *claims = None,
        }
    }
    Some(all)
}
