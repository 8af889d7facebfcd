//! Tasks whose inputs are what they are seen to touch: the second step of their lookup, and the key of what they made.
//!
//! Two facts make it exact. What a command sees at a path is decided by the visible files, which do not change while it runs, and by
//! its static key; so what it touched, with what the visible files are there, decides what it does. And the names were listed before it
//! ran: what is not as listed when it has ended, or has changed since it started, is not kept.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::engine::event::MissReason;
use crate::engine::prepare::Prepared;
use crate::engine::session::Session;
use crate::engine::visible::{Visible, is_compiled};
use crate::fingerprint::action::{Action, Tracing};
use crate::fingerprint::traced::{Depth, Named, Observed, Paths, Seen};
use crate::fs::ops::{self, Kind};
use crate::fs::stat::StatKey;
use crate::manifest::model::{Inputs, RunTask, TaskKind};
use crate::sandbox::spec::{Observation, Touch, View, is_in_whole_dir};
use crate::store::{ActionResult, PathSet, StoreError};

/// A traced action with its inputs known.
pub struct Keyed {
    /// The action.
    pub action: Action,
    /// Its digest.
    pub key: Digest,
    /// Its canonical stream.
    pub stream: Vec<u8>,
    /// What was touched.
    pub set: PathSet,
}

impl Keyed {
    fn new(prepared: &Prepared, observed: &Observed) -> Self {
        let set = PathSet { observed: observed.digest(), paths: observed.paths_digest(), bytes: observed.encode() };
        let action = Action { tracing: Tracing::Observed(set.observed), ..prepared.action.clone() };
        let (key, stream) = action.key();
        Self { action, key, stream, set }
    }
}

/// The task, if its inputs are traced.
pub fn of<'a>(session: &'a Session<'_>, task: TaskId) -> Option<&'a RunTask> {
    match &session.workspace.tasks[task].kind {
        TaskKind::Run(run) if matches!(run.inputs, Inputs::Traced) => Some(run),
        TaskKind::Run(_) | TaskKind::Fetch(_) | TaskKind::Service(_) => None,
    }
}

/// Takes the first known observation under whose current state there is a result.
///
/// Cost: the paths of each known set are looked at, until one fits; contents are digested where the stat index does not know them.
pub fn lookup(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
) -> Result<Option<(ActionResult, Keyed)>, StoreError> {
    let visible = Visible::new(session, task, run, prepared.inputs.all());
    let mut tried = Vec::new();
    for (at, known) in session.store.path_sets(&prepared.key)?.into_iter().enumerate() {
        if tried.contains(&known.paths) {
            continue;
        }
        tried.push(known.paths);
        let Ok(was) = Observed::decode(&known.bytes) else { continue };
        let Some(now) = observe(session, &visible, &was.path_set()).map(|now| now.observed) else { continue };
        let keyed = Keyed::new(prepared, &now);
        if let Some(result) = session.store.lookup(&keyed.key)? {
            if at > 0 || keyed.set.observed != known.observed {
                session.store.note_path_set(&prepared.key, &keyed.set);
            }
            return Ok(Some((result, keyed)));
        }
    }
    Ok(None)
}

/// What differs from the newest known observation; empty if there is none, `None` if nothing does.
pub fn changes(session: &Session<'_>, task: TaskId, run: &RunTask, prepared: &Prepared) -> Option<Vec<MissReason>> {
    let known = session.store.path_sets(&prepared.key).unwrap_or_default();
    let visible = Visible::new(session, task, run, prepared.inputs.all());
    // Of each set the newest state: the one with the fewest differences tells.
    let told = known.iter().filter_map(|known| {
        let was = Observed::decode(&known.bytes).ok()?;
        let now = observe(session, &visible, &was.path_set())?.observed;
        Some(reasons(&was, &now))
    });
    match told.min_by_key(Vec::len) {
        None => Some(Vec::new()),
        Some(reasons) if reasons.is_empty() => None,
        Some(reasons) => Some(reasons),
    }
}

/// Differences between two observations as reasons.
pub fn reasons(was: &Observed, now: &Observed) -> Vec<MissReason> {
    let told = was.differences(now).into_iter();
    told.map(|(path, change)| MissReason { field: "input", name: shown(path), change }).collect()
}

/// The root has no name.
fn shown(path: &RelPath) -> String {
    if path.is_root() { "//".into() } else { path.to_string() }
}

/// The key of what a command has just made, or why it cannot have one.
pub fn keyed(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
    observation: Option<&Observation>,
    view: &BTreeMap<RelPath, View>,
    started: &StatKey,
) -> Result<Keyed, Diagnostic> {
    let label = session.label(task);
    let not_kept = |why: String| Diagnostic::warning(format!("{why}; the result of `{label}` is not kept"));
    let observation = observation.ok_or_else(|| not_kept("it was not observed".into()))?;
    if let Some(gap) = &observation.gap {
        return Err(not_kept(format!("not all that it touched was seen: {gap}"))
            .help("list its inputs instead of `inputs = \"traced\"`, or leave out what cannot be seen"));
    }
    let visible = Visible::new(session, task, run, prepared.inputs.all());
    // Files that are mounted one by one go with the directory they lie in, and are seen where they came to lie.
    let takes_inputs_along = |path: &RelPath, touch: Touch| {
        touch.has(Touch::MOVED) && visible.kind(path) == Some(Named::Dir) && !is_in_whole_dir(view, path)
    };
    if let Some((path, _)) = observation.paths.iter().find(|(path, touch)| takes_inputs_along(path, **touch)) {
        return Err(not_kept(format!("it renamed `{path}`, a directory of inputs")).help("copy the directory instead"));
    }
    let paths = paths(session, task, run, observation);
    let state = observe(session, &visible, &paths);
    let changed = match &state {
        Some(state) => state.first_change(session, &visible, observation, view, started),
        None => Some(RelPath::root()),
    };
    match (state, changed) {
        (Some(state), None) => Ok(Keyed::new(prepared, &state.observed)),
        (_, Some(path)) if !path.is_root() => {
            Err(not_kept(format!("`{path}` changed while it ran")).help("run it again when the file is at rest"))
        }
        _ => Err(not_kept("a file it touched changed while it ran, or cannot be read".into())),
    }
}

/// What a command touched, less what it makes itself.
fn paths(session: &Session<'_>, task: TaskId, run: &RunTask, observation: &Observation) -> Paths {
    let package = session.package(task);
    // None of these is ever visible, so there is never anything else to see there. That of `scratch` is not said: it is in no key.
    let is_own = |path: &RelPath| {
        let cached =
            path.strip_prefix(package).is_some_and(|own| run.caches.iter().any(|cache| own.starts_with(cache)));
        let producers = session.outputs.producers(path);
        cached || (is_compiled(path) && producers.is_empty()) || producers.iter().any(|(producer, _)| *producer == task)
    };
    let touched = observation.paths.iter().filter(|(path, _)| !is_own(path));
    touched.map(|(path, touch)| (path.clone(), Depth::of(*touch))).collect()
}

/// What is at paths now, with the signatures of what was read.
struct State {
    observed: Observed,
    stats: Vec<(RelPath, StatKey)>,
}

/// Looks at every path of a set. `None` if one cannot be read, or is not what it was listed as.
fn observe(session: &Session<'_>, visible: &Visible<'_>, paths: &Paths) -> Option<State> {
    let root = &session.workspace.root;
    let mut observed = Observed::default();
    let mut stats = Vec::new();
    let mut to_read: Vec<(RelPath, Depth)> = Vec::new();
    for (path, depth) in paths {
        let made = visible.made.get(path);
        let seen = match (visible.kind(path), made) {
            (None, _) => visible.bar(path).map_or(Seen::Absent, |by| Seen::Barred { by }),
            (Some(Named::Dir), _) if depth.names => Seen::Names(visible.names(path)),
            (Some(Named::Dir), _) => Seen::Dir,
            (_, Some(Entry::Link { target })) => Seen::Link { target: target.clone() },
            (_, Some(Entry::File { digest, executable, .. })) if depth.content => {
                Seen::Content { digest: *digest, executable: *executable }
            }
            (_, Some(Entry::File { size, executable, .. })) => Seen::File { size: *size, executable: *executable },
            (Some(Named::File), _) if !depth.content => {
                let stat = StatKey::at(&root.join(path.as_str())).ok().filter(StatKey::is_file)?;
                stats.push((path.clone(), stat));
                Seen::File { size: stat.size, executable: stat.is_executable() }
            }
            (Some(Named::File | Named::Link), _) => {
                to_read.push((path.clone(), *depth));
                continue;
            }
        };
        observed.paths.insert(path.clone(), (*depth, seen));
    }
    let to_digest: Vec<RelPath> = to_read.iter().map(|(path, _)| path.clone()).collect();
    for ((path, depth), leaf) in to_read.into_iter().zip(session.leaves(&to_digest)) {
        let leaf = leaf.ok()?;
        let seen = match (leaf.entry, visible.kind(&path)) {
            (Entry::File { digest, executable, .. }, Some(Named::File)) => Seen::Content { digest, executable },
            (Entry::Link { target }, Some(Named::Link)) => Seen::Link { target },
            _ => return None,
        };
        stats.push((path.clone(), leaf.stat));
        observed.paths.insert(path, (depth, seen));
    }
    for (path, (depth, seen)) in &mut observed.paths {
        if depth.writes && visible.is_shut(session, path) {
            *seen = Seen::Shut(Box::new(std::mem::replace(seen, Seen::Absent)));
        }
    }
    Some(State { observed, stats })
}

impl State {
    /// The first path that changed after the command was started, or is not as it was listed before.
    fn first_change(
        &self,
        session: &Session<'_>,
        visible: &Visible<'_>,
        observation: &Observation,
        view: &BTreeMap<RelPath, View>,
        started: &StatKey,
    ) -> Option<RelPath> {
        // Both times are of the same clock of the kernel.
        if let Some((path, _)) = self.stats.iter().find(|(_, stat)| stat.ctime_ns >= started.ctime_ns) {
            return Some(path.clone());
        }
        // What is mounted cannot be removed, so whoever missed it saw the tree before it came.
        let missed = |path: &RelPath| {
            let touch = observation.paths.get(path).copied().unwrap_or_default();
            touch.has(Touch::ABSENT) && !touch.has(Touch::WRITTEN)
        };
        let mut files = self
            .observed
            .paths
            .iter()
            .filter(|(_, (_, seen))| matches!(seen.there(), Seen::File { .. } | Seen::Content { .. }));
        if let Some((path, _)) = files.find(|(path, _)| missed(path)) {
            return Some(path.clone());
        }
        // In a directory that was shown whole, the command saw what came and went.
        let live = self
            .observed
            .paths
            .iter()
            .filter(|(path, _)| is_in_whole_dir(view, path) && !visible.made.contains_key(*path));
        let mut live = live.map(|(path, (_, seen))| (path, seen.there()));
        let changed = live.find(|(path, seen)| {
            let touch = observation.paths.get(*path).copied().unwrap_or_default();
            !is_as_found(touch, seen) || !is_as_listed(&session.workspace.root.join(path.as_str()), seen, started)
        });
        changed.map(|(path, _)| path.clone())
    }
}

/// Whether the command found what was listed, where it can change nothing itself: it may have come and gone while it ran.
fn is_as_found(touch: Touch, seen: &Seen) -> bool {
    let is_there = !matches!(seen, Seen::Absent | Seen::Barred { .. });
    !touch.has(if is_there { Touch::ABSENT } else { Touch::FOUND })
}

/// Whether the disk still has what was listed.
fn is_as_listed(disk: &Path, seen: &Seen, started: &StatKey) -> bool {
    match seen {
        Seen::Absent | Seen::Barred { by: Named::File } => ops::symlink_metadata(disk).is_err(),
        Seen::Barred { .. } | Seen::Shut(_) => false,
        Seen::File { .. } | Seen::Content { .. } | Seen::Link { .. } => true,
        Seen::Dir => ops::symlink_metadata(disk).is_ok_and(|meta| meta.is_dir()),
        // A name that came and went leaves the directory changed.
        Seen::Names(names) => {
            StatKey::at(disk).is_ok_and(|stat| stat.ctime_ns < started.ctime_ns)
                && ops::read_dir(disk).is_ok_and(|entries| {
                    entries.len() == names.len()
                        && entries.iter().all(|entry| {
                            let kind = entry.name.to_str().and_then(|name| names.get(name));
                            match entry.kind {
                                Kind::File => kind == Some(&Named::File),
                                Kind::Link => kind == Some(&Named::Link),
                                Kind::Dir => kind == Some(&Named::Dir),
                                Kind::Special => false,
                            }
                        })
                })
        }
    }
}
