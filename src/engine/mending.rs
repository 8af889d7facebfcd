//! Brings what is kept of a run up to date once the rest of it was done: as a patch where all is in its place, else as a whole.
//! Looks at what was put in place; runs nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::engine::again::Compared;
use crate::engine::journal::{Patch, StoodNow};
use crate::engine::owned::Owned;
use crate::engine::plan::Plan;
use crate::engine::putback;
use crate::engine::rest::Rest;
use crate::engine::session::Session;
use crate::engine::settled::{Ground, Line, Request, Saved, Set, StoodLine};
use crate::engine::settling::Place;
use crate::engine::standing::{Stood, encode_listing};
use crate::engine::tracked::{self, CleanIndex};
use crate::fs::look::{self, Links};
use crate::fs::ops::FsError;
use crate::fs::walk;
use crate::fs::witness::{now_ns, unheard};
use crate::workspace::census::{Base, Census, Claim, Draft, Role};
use crate::workspace::stat_index::is_settled;

/// Looks at what became of the tasks that were left; `None` if what is kept of all cannot be mended. The store may still be writing.
pub fn look(session: &Session<'_>, plan: &Plan, keys: &[Option<Digest>]) -> Option<Changes> {
    changes(session, plan, keys, plan.rest.as_ref()?)
}

/// Keeps what became of the tasks that were left, beside what is kept of all. Failing to is no reason to fail.
///
/// Call it when the store has written all it was given. Cost: one write, or that of all that is kept.
pub fn keep_rest(session: &Session<'_>, plan: &Plan, changes: Option<Changes>, request: &Request) {
    let Some(rest) = &plan.rest else { return };
    let kept = match changes {
        Some(changes) => match patch(session, rest.compared(), &changes) {
            Some(patch) if patch.is_empty() => Ok(()),
            Some(patch) if rest.compared().has_room() => rest.compared().append(request, &patch),
            _ => rebuild(session, rest.compared(), &changes, request),
        },
        None => rest.compared().forget(request),
    };
    if let Err(error) = kept {
        tracing::debug!(%error, "how the run ended was not kept");
    }
}

/// Forgets what is kept of a run of which a rest was not done in order.
pub fn forget(plan: &Plan, request: &Request) {
    if let Some(Err(error)) = plan.rest.as_ref().map(|rest| rest.compared().forget(request)) {
        tracing::debug!(%error, "what was kept stays");
    }
}

/// Files that are read again although they did not change, before that is noted.
const RENEWED_MIN: usize = 16;

/// Notes signatures that are settled by now, once there are some, so that what they stand for is not read again and again.
pub fn renew(compared: &Compared, request: &Request) {
    let renewed = compared.renewed();
    if renewed.len() >= RENEWED_MIN
        && compared.has_room()
        && let Err(error) = compared.append(request, &Patch { claims: renewed, ..Patch::default() })
    {
        tracing::debug!(%error, "signatures were not renewed");
    }
}

/// A result, and claims on its outputs.
type Renewed = (StoodNow, Vec<u8>);

/// What became of the tasks that were left.
pub struct Changes {
    /// By line; `None` for one that does not stand.
    lines: BTreeMap<usize, Option<Renewed>>,
    /// Claims on anything else, by position.
    claims: BTreeMap<u32, Claim>,
    /// Git's index, if no output was found in it.
    index: Option<CleanIndex>,
}

/// What became of them. `None` if git sees other names in the tree than before.
///
/// Whatever was to be looked at and has no result now does not stand: its files, or those of what it needs, are kept as they are now.
fn changes(session: &Session<'_>, plan: &Plan, keys: &[Option<Digest>], rest: &Rest) -> Option<Changes> {
    let compared = rest.compared();
    let mut lines = BTreeMap::new();
    let mut dirs: BTreeSet<RelPath> = BTreeSet::new();
    for (ix, key) in keys.iter().enumerate().take(rest.count()) {
        let (task, at) = (plan.tasks[ix], rest.line_at(ix));
        if key.is_none() {
            lines.insert(at, None);
            continue;
        }
        if !rest.was_looked_at(ix) {
            continue;
        }
        let stood = session.standing.get(&session.label(task)).filter(|stood| *key == Some(stood.key));
        lines.insert(at, stood.and_then(|stood| renewed_line(session, compared, (task, at), &stood)));
        dirs.extend(above_outputs(session, task));
    }
    let mut claims: BTreeMap<u32, Claim> = compared.renewed().into_iter().collect();
    add_put_back(session, rest, &mut lines, &mut claims)?;
    dirs.extend(rest.put_back().flat_map(|at| above_outputs(session, compared.lines()[at].task)));
    claims.extend(renewed_dirs(compared, &dirs)?);
    Some(Changes { lines, claims, index: tracked::clean_index(session) })
}

/// What a task stands by now, with claims on its outputs; `None` if they do not lie there as they should.
fn renewed_line(
    session: &Session<'_>,
    compared: &Compared,
    (task, at): (TaskId, usize),
    stood: &Stood,
) -> Option<Renewed> {
    let place = Place { session, task, root: compared.root(), role: Role::Output(u32::try_from(at).ok()?) };
    let mut draft = Draft::new(compared.root());
    place.add_outputs(&mut draft, stood)?;
    let mut encoder = Encoder::new();
    encode_listing(&mut encoder, &stood.listing);
    Some(((StoodLine::of(stood, place.record()), encoder.into_vec()), draft.finish()?.0))
}

/// The same of tasks whose outputs were put back and that were not looked at: they stand by what they stood by, with other claims.
fn add_put_back(
    session: &Session<'_>,
    rest: &Rest,
    lines: &mut BTreeMap<usize, Option<Renewed>>,
    claims: &mut BTreeMap<u32, Claim>,
) -> Option<()> {
    let compared = rest.compared();
    let has_record = |at: &usize| compared.lines()[*at].stood.as_ref().is_some_and(|stood| stood.record.is_some());
    let (recorded, others): (Vec<usize>, Vec<usize>) =
        rest.put_back().filter(|at| !lines.contains_key(at)).partition(has_record);
    for at in recorded {
        // What is recorded of it may be another.
        let renewed =
            rest.stood(at).and_then(|stood| renewed_line(session, compared, (compared.lines()[at].task, at), &stood));
        lines.insert(at, renewed);
    }
    for (at, renewed) in putback::claims_on(session, rest, &others)? {
        match renewed {
            Some(renewed) => claims.extend(renewed),
            None => drop(lines.insert(at, None)),
        }
    }
    Some(())
}

/// The changes as a patch; `None` if a task has other files than before, which have no place in what is kept.
fn patch(session: &Session<'_>, compared: &Compared, changes: &Changes) -> Option<Patch> {
    let mut patch = Patch { index: changes.index.clone(), ..Patch::default() };
    patch.claims.extend(changes.claims.iter().map(|(position, claim)| (*position, *claim)));
    for (at, line) in &changes.lines {
        if let Some((_, claims)) = line {
            patch.claims.extend(in_place_of(session, compared, *at, Census::of(claims)?)?);
        }
        patch.lines.push((*at, line.as_ref().map(|(stood, _)| stood.clone())));
    }
    Some(patch)
}

/// Keeps all anew, with the changes in their places. Cost: that of all that is kept.
fn rebuild(session: &Session<'_>, compared: &Compared, changes: &Changes, request: &Request) -> Result<(), FsError> {
    let Some(ground) = session.store.mark().and_then(Ground::of) else { return compared.forget(request) };
    let mut draft = Draft::new(compared.root());
    let old = compared.census();
    let mut numbers = vec![None; old.len()];
    for (at, number) in numbers.iter_mut().enumerate() {
        let Some(claim) = old.claim(at) else { return compared.forget(request) };
        if !matches!(claim.role, Role::Output(owner) if changes.lines.contains_key(&(owner as usize))) {
            let claim = u32::try_from(at).ok().and_then(|at| changes.claims.get(&at)).copied().unwrap_or(claim);
            *number = Some(draft.add_again(old, at, claim));
        }
    }
    for (_, claims) in changes.lines.values().flatten() {
        let new = Census::of(claims).expect("BUG: it was put together just now");
        (0..new.len()).for_each(|at| {
            new.claim(at).map(|claim| draft.add_again(new, at, claim));
        });
    }
    let Some((census, positions)) = draft.finish() else { return compared.forget(request) };
    let place = |file: &u32| positions[numbers[*file as usize].expect("BUG: a source file is no output")];
    let sets = compared
        .sets()
        .iter()
        .map(|set| Set { files: set.files.iter().map(place).collect(), empty_dirs: set.empty_dirs.clone() });
    let sets: Vec<Set> = sets.collect();
    let saved: Vec<Saved<'_>> =
        compared.lines().iter().enumerate().map(|(at, line)| saved(compared, changes, at, line)).collect();
    let mut found = compared.found().clone();
    found.index = changes.index.clone().or(found.index);
    compared.save(request, &ground, &session.ambient.variables, &found, &census, (&saved, &sets))
}

fn saved<'a>(compared: &'a Compared, changes: &'a Changes, at: usize, line: &Line) -> Saved<'a> {
    match changes.lines.get(&at) {
        Some(Some(((stood, listing), _))) => {
            Saved { line: Line { stood: Some(stood.clone()), ..line.clone() }, listing }
        }
        Some(None) => Saved { line: Line { stood: None, ..line.clone() }, listing: &[] },
        None => Saved { line: line.clone(), listing: line.stood.as_ref().map_or(&[], |stood| compared.encoded(stood)) },
    }
}

/// Claims on outputs as they are now, at the positions of those before; `None` if they are not on the same paths.
fn in_place_of(session: &Session<'_>, compared: &Compared, line: usize, new: Census<'_>) -> Option<Vec<(u32, Claim)>> {
    let old = compared.census();
    let name = |census: Census<'_>, at: usize| {
        let place = census.dir_of(at);
        let claim = census.claim(at)?;
        Some(((place.base == Base::Machine, place.path.to_vec(), census.name(at).to_vec(), claim.aspect), claim))
    };
    let outputs = compared.outputs_of(line, session.package(compared.lines()[line].task));
    let before: BTreeMap<_, usize> = outputs.into_iter().filter_map(|at| Some((name(old, at)?.0, at))).collect();
    if before.len() != new.len() {
        return None;
    }
    let positioned = (0..new.len()).map(|at| {
        let (name, claim) = name(new, at)?;
        Some((u32::try_from(*before.get(&name)?).ok()?, claim))
    });
    positioned.collect()
}

/// Directories that change when outputs of a task are put in place.
fn above_outputs(session: &Session<'_>, task: TaskId) -> Vec<RelPath> {
    let owned = Owned::of(session, task);
    let loose = owned.loose().map(|pattern| pattern.prefix.clone());
    let outputs = owned.units.iter().cloned().chain(loose);
    let above = outputs.filter_map(|path| owned.package.join(&path).parent());
    above.flat_map(|dir| std::iter::successors(Some(dir), RelPath::parent)).collect()
}

/// Claims on the names in directories that were changed by putting outputs in place, as they are now; `None` if git sees other names.
fn renewed_dirs(compared: &Compared, dirs: &BTreeSet<RelPath>) -> Option<Vec<(u32, Claim)>> {
    let census = compared.census();
    let mut renewed = Vec::new();
    for at in dirs.iter().filter_map(|dir| census.names_in(dir)) {
        let claim = census.claim(at)?;
        let path = compared.root().join(census.path(at)?.as_str());
        let seen_ns = now_ns();
        let now = look::stat(&path, Links::Refused)?;
        if now == claim.stat {
            continue;
        }
        if unheard(|| walk::unignored_names(&path)).ok()? != claim.digest {
            return None;
        }
        let is_settled = is_settled(&now, seen_ns);
        renewed.push((u32::try_from(at).ok()?, Claim { stat: now, is_settled, ..claim }));
    }
    Some(renewed)
}
