//! What a run would do, without running: keys and lookups as far as they can be known. Writes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::engine::event::MissReason;
use crate::engine::job::{Found, Success, find, is_cached};
use crate::engine::plan::Plan;
use crate::engine::prepare::{Dependency, Prepared, Produced, as_produced, prepare};
use crate::engine::scheduler::Ix;
use crate::engine::session::{Reuse, Session};
use crate::engine::union::{self, Age, Keep, Piece};
use crate::engine::{explain, image_root};
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
    visit(session, plan, &mut |_, _, _| {})
}

/// Forecasts the last task of the plan, with its fingerprint where that can be known.
pub fn preview_last(
    session: &Session<'_>,
    plan: &Plan,
) -> Result<Option<(Forecast, Option<RecordSink>)>, PreviewError> {
    let mut record = None;
    let mut forecasts = visit(session, plan, &mut |task, prepared, found| {
        if plan.tasks.last() == Some(&task) {
            record = Some(found.map_or(&prepared.action, |found| &found.action).record());
        }
    })?;
    Ok(forecasts.pop().map(|forecast| (forecast, record)))
}

/// Is told of each task whose key can be known, with the result that it would take.
pub type Visitor<'v> = dyn FnMut(TaskId, &Prepared, Option<&Found>) + 'v;

/// Forecasts every task of the plan, by position.
pub fn visit(session: &Session<'_>, plan: &Plan, visitor: &mut Visitor<'_>) -> Result<Vec<Forecast>, PreviewError> {
    let mut produced: Vec<Option<Arc<Produced>>> = vec![None; plan.tasks.len()];
    let mut forecasts = Vec::with_capacity(plan.tasks.len());
    let mut wholes: BTreeMap<TaskId, Option<Arc<Produced>>> = BTreeMap::new();
    let mut names = WholeLabels::default();
    for (ix, task) in plan.tasks.iter().enumerate().take(plan.nodes.len()) {
        if let Some(hit) = standing(session, plan, ix, &produced) {
            produced[ix] = Some(Arc::clone(&hit.produced));
            forecasts.push(Forecast::Hit { action: hit.action });
            continue;
        }
        let mut dependencies = Vec::new();
        let mut unknown = Vec::new();
        let mut seen = BTreeSet::new();
        for (needed, edge) in session.graph.dependencies(*task) {
            let whole = session.workspace.whole(needed);
            if !seen.insert((whole, edge.purpose)) {
                continue;
            }
            let place = plan.positions[&needed];
            let known = match (session.workspace.split_of(needed), &plan.rest) {
                (None, Some(rest)) if place >= rest.count() => rest.produced(session, place),
                (None, _) => produced[place].clone(),
                (Some(split), _) => {
                    wholes.entry(whole).or_insert_with(|| together(session, plan, &produced, split)).clone()
                }
            };
            match known {
                Some(produced) => {
                    let (purpose, interface_only) = (edge.purpose, edge.interface_only);
                    dependencies.push(Dependency { task: whole, purpose, interface_only, produced });
                }
                None => unknown.push(names.of(session, needed)),
            }
        }
        if !unknown.is_empty() {
            forecasts.push(Forecast::Depends { on: unknown });
            continue;
        }
        if let Some(root) = image_root::unknown(session, &dependencies)? {
            // What its layers make is known once it was unpacked.
            forecasts.push(Forecast::Depends { on: vec![root.into()] });
            continue;
        }
        let prepared = prepare(session, *task, plan.sources(ix), &dependencies)
            .map_err(|problem| PreviewError::Input(Box::new(problem)))?;
        if plan.is_service(session, ix) {
            visitor(*task, &prepared, None);
            produced[ix] = Some(Arc::new(as_produced(&prepared)));
            forecasts.push(Forecast::Service { action: prepared.key });
            continue;
        }
        let reusable = plan.reuse(session, ix) == Reuse::Results && is_cached(session, *task);
        let found = if reusable { find(session, *task, &prepared)? } else { None };
        let key = found.as_ref().map_or(prepared.key, |found| found.key);
        visitor(*task, &prepared, found.as_ref());
        let listing = match &found {
            Some(found) => session.store.listing(&found.result.outputs)?,
            None => None,
        };
        forecasts.push(match (found, listing) {
            (Some(found), Some(listing)) => {
                let digest = found.result.outputs;
                let known = Produced { listing: Arc::new(listing), digest, unstable: false };
                produced[ix] = Some(Arc::new(known));
                Forecast::Hit { action: key }
            }
            _ => Forecast::Run {
                action: prepared.key,
                why: explain::why(session, *task, &prepared, plan.reuse(session, ix)),
            },
        });
    }
    Ok(forecasts)
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

/// The hit of a task that an earlier run left, if all it needs comes out as it was.
fn standing(session: &Session<'_>, plan: &Plan, ix: Ix, produced: &[Option<Arc<Produced>>]) -> Option<Success> {
    let rest = plan.rest.as_ref()?;
    let hit = rest.stands(session, ix, &|ix| Some(produced[ix].as_ref()?.digest));
    if hit.is_none() {
        rest.introduce(session, ix);
    }
    hit
}

/// What the parts of a split task made together; `None` while that is not known.
fn together(
    session: &Session<'_>,
    plan: &Plan,
    produced: &[Option<Arc<Produced>>],
    split: &SplitTask,
) -> Option<Arc<Produced>> {
    let piece = |part: &TaskId| {
        let listing = Arc::clone(&produced[plan.positions[part]].as_ref()?.listing);
        Some(Piece { part: *part, age: Age::Now, listing })
    };
    let pieces = split.parts.iter().map(piece).collect::<Option<Vec<Piece>>>()?;
    // That they disagree is told when it is run.
    let union = union::unite(session, &pieces, Keep::Nothing).ok()?;
    Some(Arc::new(union::produced(union)))
}
