//! What a run would do, without running: keys and lookups as far as they can be known. Writes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::engine::event::MissReason;
use crate::engine::job::{Found, Success, find, is_cached};
use crate::engine::plan::Plan;
use crate::engine::prepare::{Dependency, Prepared, Produced, as_produced, prepare};
use crate::engine::scheduler::Ix;
use crate::engine::session::{Reuse, Session, held};
use crate::engine::union::{self, Age, Keep, Piece};
use crate::engine::{explain, image_root, unstable};
use crate::fingerprint::sink::RecordSink;
use crate::store::StoreError;
use crate::workspace::split::SplitTask;

/// What would become of a task.
#[derive(Clone, Debug)]
pub enum Forecast {
    /// Its result is there.
    Hit {
        /// Its key.
        action: Digest,
    },
    /// It would run.
    Run {
        /// Its key.
        action: Digest,
        /// Why.
        why: Vec<MissReason>,
    },
    /// It is a service: it runs while tasks need it.
    Service {
        /// Its key.
        action: Digest,
    },
    /// It would run unless what it needs comes out as it was.
    Depends {
        /// The tasks it waits for, as labels.
        on: Vec<Arc<str>>,
    },
}

/// Why there is no forecast.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The person's to mend.
    #[error("{}", .0.message)]
    Input(Box<Diagnostic>),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Forecasts every task of the plan, by position.
pub fn preview(session: &Session<'_>, plan: &Plan) -> Result<Vec<Forecast>, PreviewError> {
    visit(session, plan, &mut |_, _, _, _| {})
}

/// Forecasts the last task of the plan, with its fingerprint where that can be known.
pub fn preview_last(
    session: &Session<'_>,
    plan: &Plan,
) -> Result<Option<(Forecast, Option<RecordSink>)>, PreviewError> {
    let mut record = None;
    let mut forecasts = visit(session, plan, &mut |task, prepared, _, found| {
        if plan.tasks.last() == Some(&task) {
            record = Some(found.map_or(&prepared.action, |found| &found.action).record());
        }
    })?;
    Ok(forecasts.pop().map(|forecast| (forecast, record)))
}

/// Is told of each task whose key can be known, with what it needs and the result that it would take; one at a time, after all they need.
pub type Visitor<'v> = dyn FnMut(TaskId, &Prepared, &[Dependency], Option<&Found>) + Send + 'v;

/// Forecasts every task of the plan, by position. Cost: that of keys and lookups, on all processors.
pub fn visit(session: &Session<'_>, plan: &Plan, visitor: &mut Visitor<'_>) -> Result<Vec<Forecast>, PreviewError> {
    let count = plan.nodes.len();
    let produced = (0..plan.tasks.len()).map(|_| OnceLock::new()).collect();
    let (wholes, names) = (Mutex::default(), Mutex::default());
    let visit = Visit { session, plan, produced, wholes, names, visitor: Mutex::new(visitor) };
    let mut forecasts: Vec<Option<Forecast>> = vec![None; count];
    for wave in waves(session, plan) {
        let found: Vec<Result<Forecast, PreviewError>> =
            session.cpu.install(|| wave.par_iter().map(|ix| visit.forecast(*ix)).collect());
        for (ix, found) in wave.into_iter().zip(found) {
            forecasts[ix] = Some(found?);
        }
    }
    Ok(forecasts.into_iter().map(|forecast| forecast.expect("BUG: a task is in no wave")).collect())
}

/// The positions to be forecast: each after all it needs, those that need nothing of each other together.
fn waves(session: &Session<'_>, plan: &Plan) -> Vec<Vec<Ix>> {
    let mut depths: Vec<usize> = Vec::with_capacity(plan.nodes.len());
    let mut waves: Vec<Vec<Ix>> = Vec::new();
    for (ix, node) in plan.nodes.iter().enumerate() {
        let parts = node.dependencies.iter().filter_map(|needed| session.workspace.split_of(plan.tasks[*needed]));
        // What a split task makes is known when it is of all parts.
        let parts = parts.flat_map(|split| split.parts.iter().filter_map(|part| plan.positions.get(part).copied()));
        let needed = node.dependencies.iter().copied().chain(parts).filter(|needed| *needed < ix);
        let depth = needed.map(|needed| depths[needed] + 1).max().unwrap_or(0);
        depths.push(depth);
        if depth == waves.len() {
            waves.push(Vec::new());
        }
        waves[depth].push(ix);
    }
    waves
}

/// What is known while tasks are forecast.
struct Visit<'a, 'w, 'v> {
    session: &'a Session<'w>,
    plan: &'a Plan,
    /// By position.
    produced: Vec<OnceLock<Arc<Produced>>>,
    /// What the parts of a split task made together.
    wholes: Mutex<BTreeMap<TaskId, Option<Arc<Produced>>>>,
    names: Mutex<WholeLabels>,
    visitor: Mutex<&'a mut Visitor<'v>>,
}

impl Visit<'_, '_, '_> {
    /// Forecasts a task of which all it needs was forecast.
    fn forecast(&self, ix: Ix) -> Result<Forecast, PreviewError> {
        let (session, plan) = (self.session, self.plan);
        let task = plan.tasks[ix];
        if let Some(hit) = self.standing(ix) {
            self.note(ix, hit.produced);
            return Ok(Forecast::Hit { action: hit.action });
        }
        let (dependencies, unknown) = self.dependencies(task);
        if !unknown.is_empty() {
            return Ok(Forecast::Depends { on: unknown });
        }
        if let Some(root) = image_root::unknown(session, &dependencies)? {
            // What its layers make is known once it was unpacked.
            return Ok(Forecast::Depends { on: vec![root.into()] });
        }
        let prepared = prepare(session, task, plan.sources(ix), &dependencies)
            .map_err(|problem| PreviewError::Input(Box::new(problem)))?;
        if plan.is_service(session, ix) {
            held(&self.visitor)(task, &prepared, &dependencies, None);
            self.note(ix, Arc::new(as_produced(&prepared)));
            return Ok(Forecast::Service { action: prepared.key });
        }
        let reusable = plan.reuse(session, ix) == Reuse::Results && is_cached(session, task);
        let found = if reusable { find(session, task, &prepared)? } else { None };
        held(&self.visitor)(task, &prepared, &dependencies, found.as_ref());
        if let Some(Found { result, key, .. }) = &found
            && let Some(listing) = session.store.listing(&result.outputs)?
        {
            let unstable = session.unstable_by(task, key);
            let known = Produced { listing: Arc::new(listing), digest: result.outputs, unstable };
            self.note(ix, Arc::new(known));
            return Ok(Forecast::Hit { action: *key });
        }
        let why = explain::why(session, task, &prepared, plan.reuse(session, ix));
        Ok(Forecast::Run { action: prepared.key, why })
    }

    fn note(&self, ix: Ix, produced: Arc<Produced>) {
        let earlier = self.produced[ix].set(produced);
        assert!(earlier.is_ok(), "BUG: task {ix} was forecast twice");
    }

    /// What a task needs, and the labels of that of which is not known what it makes.
    fn dependencies(&self, task: TaskId) -> (Vec<Dependency>, Vec<Arc<str>>) {
        let (session, plan) = (self.session, self.plan);
        let (mut dependencies, mut unknown) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for (needed, edge) in session.graph.dependencies(task) {
            let whole = session.workspace.whole(needed);
            if !seen.insert((whole, edge.purpose)) {
                continue;
            }
            let place = plan.positions[&needed];
            let known = match (session.workspace.split_of(needed), &plan.rest) {
                (None, Some(rest)) if place >= rest.count() => rest.produced(session, place),
                (None, _) => self.produced[place].get().cloned(),
                (Some(split), _) => self.whole(whole, split),
            };
            match known {
                Some(produced) => {
                    let (purpose, interface_only) = (edge.purpose, edge.interface_only);
                    dependencies.push(Dependency { task: whole, purpose, interface_only, produced });
                }
                None => unknown.push(held(&self.names).of(session, needed)),
            }
        }
        (dependencies, unknown)
    }

    /// What the parts of a split task made together; `None` while that is not known.
    fn whole(&self, task: TaskId, split: &SplitTask) -> Option<Arc<Produced>> {
        if let Some(known) = held(&self.wholes).get(&task) {
            return known.clone();
        }
        // Without the lock: whoever waits on this pool may take up another task on its stack, and two come to the same.
        let together = self.together(split);
        held(&self.wholes).entry(task).or_insert(together).clone()
    }

    fn together(&self, split: &SplitTask) -> Option<Arc<Produced>> {
        let piece = |part: &TaskId| {
            let listing = Arc::clone(&self.produced[self.plan.positions[part]].get()?.listing);
            Some(Piece { part: *part, age: Age::Now, listing })
        };
        let pieces = split.parts.iter().map(piece).collect::<Option<Vec<Piece>>>()?;
        // That they disagree is told when it is run.
        let union = union::unite(self.session, &pieces, Keep::Nothing).ok()?;
        let parts = split.parts.iter().filter_map(|part| self.produced[self.plan.positions[part]].get()?.unstable);
        Some(Arc::new(Produced { unstable: unstable::together(parts), ..union::produced(union) }))
    }

    /// The hit of a task that an earlier run left, if all it needs comes out as it was.
    fn standing(&self, ix: Ix) -> Option<Success> {
        let rest = self.plan.rest.as_ref()?;
        let hit = rest.stands(self.session, ix, &|ix| self.produced[ix].get());
        if hit.is_none() {
            rest.introduce(self.session, ix);
        }
        hit
    }
}

/// Labels of tasks that others wait for, each written once.
#[derive(Default)]
struct WholeLabels {
    known: HashMap<TaskId, Arc<str>>,
}

impl WholeLabels {
    fn of(&mut self, session: &Session<'_>, task: TaskId) -> Arc<str> {
        let label = self.known.entry(task).or_insert_with(|| session.workspace.whole_label(task).into());
        Arc::clone(label)
    }
}
