//! Puts together what is kept of a run that has ended: what it looked at, its source files, and of each task that stands its outputs
//! as they lie there. Reads what is new on the disk; runs nothing.
//!
//! Whatever is kept is compared with the disk before it is used. So it may be kept of runs that failed: a task without a result is
//! looked at again. It is not kept where more than declared files and results decides what a run says: traced and split tasks,
//! services, roots, tools from tasks, committed outputs, warnings.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::image_key::EPOCH_VARIABLE;
use crate::engine::owned::Owned;
use crate::engine::plan::Plan;
use crate::engine::scheduler::Node;
use crate::engine::session::Session;
use crate::engine::settled::{self, Found, Ground, Line, Request, Saved, Set, StoodLine, Variables};
use crate::engine::sources::Sources;
use crate::engine::standing::{Stood, encode_listing};
use crate::engine::tracked;
use crate::fs::look::{self, Links};
use crate::fs::ops::{self, DirEntry, FsError, Kind};
use crate::fs::stat::StatKey;
use crate::fs::walk;
use crate::fs::witness::{Names, Sighting, Told, now_ns, unheard};
use crate::graph;
use crate::manifest::model::{Inputs, RunTask, SystemPolicy, TaskKind};
use crate::workspace::census::{Draft, Role};
use crate::workspace::stat_index::is_settled;
use crate::workspace::sweep;

/// Name of the compiled workspace in the state directory.
pub const COMPILED: &str = "compiled";

/// What was heard while a run was loaded and planned.
pub struct Heard {
    /// Every look while it was loaded.
    pub loading: Vec<Sighting>,
    /// Every look while it was planned.
    pub planning: Vec<Sighting>,
    /// Before the first of them, in nanoseconds since 1970.
    pub since_ns: i64,
}

/// Keeps how a run ended, or forgets how an earlier one did. Failing to is no reason to fail: the next run loads and plans anew.
///
/// Call it when the store has written all it was given. Cost: one `stat` per output, and one read of each that is new.
///
/// `keys` are those of the tasks that have a result now: what is remembered of others is of an earlier state of the tree.
pub fn keep(session: &Session<'_>, plan: &Plan, keys: &[Option<Digest>], request: &Request, heard: Heard) {
    let kept = match draft(session, plan, keys, heard) {
        Some(kept) => save(session, request, &kept),
        None => settled::forget(&session.state_dir, request),
    };
    if let Err(error) = kept {
        tracing::debug!(%error, "how the run ended was not kept");
    }
}

fn save(session: &Session<'_>, request: &Request, kept: &Kept) -> Result<(), FsError> {
    let Kept { census, lines, made_of } = kept;
    let Some(ground) = session.store.mark().and_then(Ground::of) else {
        return settled::forget(&session.state_dir, request);
    };
    let saved: Vec<Saved<'_>> =
        lines.lines.iter().zip(&lines.listings).map(|(line, listing)| Saved { line: line.clone(), listing }).collect();
    let environment = (&lines.variables, &session.ambient.variables);
    let compiled = session.state_dir.join(COMPILED);
    if !graph::compiled::is_of(&compiled, made_of) {
        graph::compiled::write(&compiled, made_of, session.workspace, session.graph)?;
    }
    let found =
        Found { system: session.system().text.clone(), model: Some(*made_of), index: tracked::clean_index(session) };
    settled::save(&session.state_dir, request, &ground, environment, &found, census, (&saved, &lines.sets))
}

/// The tasks as they are kept.
struct Lines {
    lines: Vec<Line>,
    listings: Vec<Vec<u8>>,
    sets: Vec<Set>,
    variables: Variables,
}

/// All that is kept.
struct Kept {
    census: Vec<u8>,
    lines: Lines,
    /// What the loaded workspace follows from.
    made_of: Digest,
}

fn draft(session: &Session<'_>, plan: &Plan, keys: &[Option<Digest>], heard: Heard) -> Option<Kept> {
    if !is_simple(session, plan) {
        return None;
    }
    let root = ops::canonical(&session.workspace.root).ok()?;
    let mut draft = Draft::new(&root);
    add_structure(session, &mut draft, &heard.loading)?;
    let made_of = draft.meaning();
    add_structure(session, &mut draft, &heard.planning)?;
    let (sets, set_of) = add_sources(session, plan, &mut draft, heard.since_ns)?;
    let mut lines = Vec::with_capacity(plan.tasks.len());
    let mut listings = Vec::with_capacity(plan.tasks.len());
    for (ix, task) in plan.tasks.iter().enumerate() {
        let label = session.label(*task);
        let stood = session.standing.get(&label).filter(|stood| keys[ix] == Some(stood.key));
        let place = Place { session, task: *task, root: &root, role: Role::Output(u32::try_from(ix).ok()?) };
        let stood = stood.filter(|stood| place.add_outputs(&mut draft, stood).is_some());
        let mut encoder = Encoder::new();
        stood.iter().for_each(|stood| encode_listing(&mut encoder, &stood.listing));
        listings.push(encoder.into_vec());
        let stood = stood.map(|stood| StoodLine::of(&stood, place.record()));
        let Node { dependencies: needs, weight, .. } = plan.nodes[ix].clone();
        let limited = session.workspace.tasks[*task].kind.command().is_some_and(|run| run.resources.is_limited());
        let is_selected = plan.selected.contains(task);
        lines.push(Line { task: *task, label, is_selected, set: set_of[ix], needs, weight, limited, stood });
    }
    let (census, positions) = draft.finish()?;
    let numbered = sets.into_iter().map(|(numbers, empty_dirs)| Set {
        files: numbers.into_iter().map(|number| positions[number]).collect(),
        empty_dirs,
    });
    let lines = Lines { lines, listings, sets: numbered.collect(), variables: variables(session, plan) };
    Some(Kept { census, lines, made_of })
}

/// Whether all that decides what the run says is kept.
fn is_simple(session: &Session<'_>, plan: &Plan) -> bool {
    let is_declared = |run: &RunTask| {
        !matches!(run.inputs, Inputs::Traced)
            && run.split.is_none()
            && run.committed.is_empty()
            && run.root.is_none()
            && run.tool_trees.is_empty()
    };
    let is_simple = |task: &TaskId| {
        let task = &session.workspace.tasks[*task];
        task.services.is_empty()
            && match &task.kind {
                TaskKind::Run(run) => is_declared(run),
                TaskKind::Fetch(_) => true,
                TaskKind::Service(_) => false,
            }
    };
    let is_plain = |sources: &Sources| sources.warnings.is_empty() && sources.shared.is_none();
    let (root, store) = (&session.workspace.root, session.store.dir());
    // Of what lies in the store no account is kept.
    !root.starts_with(store)
        && !store.starts_with(root)
        && session.workspace.config.system == SystemPolicy::Packages
        // Their parts follow from what is learned of their durations, too.
        && session.workspace.splits.all().is_empty()
        && session.workspace.diagnostics.is_empty()
        && session.levels.lowered().is_none()
        && (0..plan.tasks.len()).map(|ix| plan.sources(ix)).all(is_plain)
        && plan.tasks.iter().all(is_simple)
}

fn variables(session: &Session<'_>, plan: &Plan) -> Variables {
    let commands = || plan.tasks.iter().filter_map(|task| session.workspace.tasks[*task].kind.command());
    // An image takes its time from outside where the manifest has none.
    let times = |run: &&RunTask| run.command.image().is_some_and(|recipe| recipe.epoch.is_none());
    let times = commands().find(times).map(|_| EPOCH_VARIABLE.to_owned());
    Variables::with(
        commands().flat_map(|run| run.pass_env.iter().cloned()).chain(times),
        commands().flat_map(|run| run.secret_env.iter().cloned()),
    )
}

/// Claims what was looked at while loading and planning. `None` if a directory was changed by the run in a way that loading would see.
///
/// What lies in the store is left out, but for what is remembered of levels: it is there to save work, and decides nothing.
fn add_structure(session: &Session<'_>, draft: &mut Draft, sightings: &[Sighting]) -> Option<()> {
    let level = session.store.dir().join("level");
    let decides = |path: &Path| !path.starts_with(session.store.dir()) || path == level;
    let read: BTreeSet<&Path> = sightings
        .iter()
        .filter(|sighting| matches!(sighting.told, Told::Content(Some(_))))
        .map(|sighting| sighting.path.as_path())
        .collect();
    for sighting in sightings.iter().filter(|sighting| decides(&sighting.path)) {
        match &sighting.told {
            // It was looked at to be read.
            Told::Target(Some(stat)) if stat.is_file() && read.contains(sighting.path.as_path()) => {}
            Told::Names(Names::Unignored, Some((stat, digest))) => {
                draft.add_sighting(&renewed(sighting, stat, digest)?);
            }
            _ => draft.add_sighting(sighting),
        }
    }
    Some(())
}

/// A directory as it is now, if the names in it that git does not ignore are what they were: outputs may have come and gone.
fn renewed(sighting: &Sighting, stat: &StatKey, digest: &Digest) -> Option<Sighting> {
    let seen_ns = now_ns();
    let now = look::stat(&sighting.path, Links::Refused);
    if now == Some(*stat) {
        return Some(sighting.clone());
    }
    let names = unheard(|| walk::unignored_names(&sighting.path)).ok()?;
    let told = Told::Names(Names::Unignored, Some((now?, names)));
    (names == *digest).then(|| Sighting { path: sighting.path.clone(), told, seen_ns })
}

/// Numbers of claims, and empty directories, of each set of source files.
type Numbered = Vec<(Vec<usize>, Vec<RelPath>)>;

/// Claims the source files; gives the sets, and which one each task has.
fn add_sources(session: &Session<'_>, plan: &Plan, draft: &mut Draft, since_ns: i64) -> Option<(Numbered, Vec<usize>)> {
    let mut sets: Numbered = Vec::new();
    let mut known: HashMap<*const Listing, usize> = HashMap::new();
    let mut of_task = Vec::with_capacity(plan.tasks.len());
    for sources in (0..plan.tasks.len()).map(|ix| plan.sources(ix)) {
        let at = match known.get(&Arc::as_ptr(&sources.listing)) {
            Some(at) => *at,
            None => {
                sets.push(add_set(session, draft, sources, since_ns)?);
                known.insert(Arc::as_ptr(&sources.listing), sets.len() - 1);
                sets.len() - 1
            }
        };
        of_task.push(at);
    }
    Some((sets, of_task))
}

fn add_set(
    session: &Session<'_>,
    draft: &mut Draft,
    sources: &Sources,
    since_ns: i64,
) -> Option<(Vec<usize>, Vec<RelPath>)> {
    let stats: BTreeMap<&RelPath, StatKey> = sources.stats.iter().map(|(path, stat)| (path, *stat)).collect();
    let (mut numbers, mut empty_dirs) = (Vec::with_capacity(stats.len()), Vec::new());
    for (path, entry) in sources.listing.iter() {
        let Some(stat) = stats.get(path) else {
            empty_dirs.push(path.clone());
            continue;
        };
        let is_settled = match entry {
            Entry::File { .. } => session.is_settled(path, stat),
            Entry::Link { .. } | Entry::Dir => is_settled(stat, since_ns),
        };
        // A directory that was picked for itself has a signature, too.
        match draft.add_entry(path, entry, *stat, Role::Source, is_settled) {
            Some(number) => numbers.push(number),
            None => empty_dirs.push(path.clone()),
        }
    }
    Some((numbers, empty_dirs))
}

/// Where the outputs of a task lie.
pub(super) struct Place<'a, 'w> {
    pub session: &'a Session<'w>,
    pub task: TaskId,
    /// Root of the workspace, without links.
    pub root: &'a Path,
    pub role: Role,
}

impl Place<'_, '_> {
    /// Claims the outputs of a task that stands. `None` if they do not lie there just as they should: then it is to be looked at.
    pub fn add_outputs(&self, draft: &mut Draft, stood: &Stood) -> Option<()> {
        let owned = Owned::of(self.session, self.task);
        let wanted = owned.part_of(&stood.listing);
        let full = |path: &RelPath| owned.package.join(path);
        let is_file = |entry: &Entry| *entry != Entry::Dir;
        let files: Vec<(RelPath, &Entry)> =
            wanted.iter().filter(|(_, entry)| is_file(entry)).map(|(path, entry)| (full(path), entry)).collect();
        let paths: Vec<RelPath> = files.iter().map(|(path, _)| path.clone()).collect();
        let seen_ns = now_ns();
        let leaves = self.session.leaves(&paths);
        for ((path, entry), leaf) in files.iter().zip(leaves) {
            let leaf = leaf.ok().filter(|leaf| leaf.entry == **entry)?;
            let settled = self.session.is_settled(path, &leaf.stat) || is_settled(&leaf.stat, seen_ns);
            draft.add_entry(path, entry, leaf.stat, self.role, settled)?;
        }
        for unit in &owned.units {
            self.add_unit(draft, (owned.package, unit), &wanted)?;
        }
        let is_loose = |path: &RelPath| owned.unit_of(path).is_none();
        if wanted.iter().any(|(path, entry)| !is_file(entry) && is_loose(path)) {
            return None;
        }
        Some(())
    }

    /// What is recorded of a task with wildcards: what else they match is its own if it wrote that once, which the record tells.
    pub fn record(&self) -> Option<Digest> {
        let has_wildcards = Owned::of(self.session, self.task).loose().next().is_some();
        has_wildcards.then(|| self.session.records.mark(&self.session.workspace.whole_label(self.task)))
    }

    /// Claims the names in a directory that is the task's own, with those beneath.
    fn add_unit(&self, draft: &mut Draft, (package, unit): (&RelPath, &RelPath), wanted: &Listing) -> Option<()> {
        let mut inside: BTreeMap<RelPath, BTreeMap<String, Kind>> = BTreeMap::new();
        for (path, entry) in wanted.iter().filter(|(path, _)| path.starts_with(unit)) {
            let kind = match entry {
                Entry::File { .. } => Kind::File,
                Entry::Link { .. } => Kind::Link,
                Entry::Dir => Kind::Dir,
            };
            if path == unit {
                if kind != Kind::Dir {
                    return Some(());
                }
                inside.entry(path.clone()).or_default();
                continue;
            }
            if kind == Kind::Dir {
                inside.entry(path.clone()).or_default();
            }
            let (mut here, mut kind) = (path.clone(), kind);
            while here != *unit {
                let parent = here.parent()?;
                inside.entry(parent.clone()).or_default().insert(here.file_name().to_owned(), kind);
                (here, kind) = (parent, Kind::Dir);
            }
        }
        if inside.is_empty() {
            let path = package.join(unit);
            let is_absent = look::stat(&self.root.join(path.as_str()), Links::Refused).is_none();
            return is_absent.then(|| draft.add_absence(&path, self.role));
        }
        for (dir, names) in inside {
            let full = package.join(&dir);
            let entries: Vec<DirEntry> =
                names.into_iter().map(|(name, kind)| DirEntry { name: name.into(), kind }).collect();
            let (stat, digest, settled) = sweep::look_at_names(&self.root.join(full.as_str()))?;
            if digest != ops::digest_of_names(&entries) {
                return None;
            }
            draft.add_names(&full, stat, digest, self.role, settled);
        }
        Some(())
    }
}
