//! What is left of a run after the last one: the tasks whose source files or outputs changed, and those that need them. All others stand.
//! Looks at no disk but for what is asked of single tasks.
//!
//! A task stands as long as its source files, its outputs and the outputs of all it needs are those of the last run: its key is made
//! of these, and of what the census says did not change. So of the tasks that need a changed one, those whose dependencies come
//! out as they were stand, too, without a look at them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::again::{Compared, hit};
use crate::engine::event::{ResultSource, TaskFinished};
use crate::engine::execute::now_ms;
use crate::engine::job::Success;
use crate::engine::prepare::Produced;
use crate::engine::restore::Placed;
use crate::engine::scheduler::{Ix, Node, UNKNOWN_MS};
use crate::engine::session::{Session, held};
use crate::engine::settled::{Line, StoodLine};
use crate::engine::sources::Sources;
use crate::engine::standing::{KeptLog, Stood};
use crate::engine::tracked::CleanIndex;
use crate::fingerprint::system::SystemIdentity;
use crate::sandbox::spec::Level;
use crate::workspace::census::{Aspect, Role};
use crate::workspace::sweep::News;

/// What is left to do.
pub struct Rest {
    compared: Compared,
    /// Lines by position in the plan: those to be looked at, then those that they need.
    lines: Vec<usize>,
    /// How many are to be looked at.
    count: usize,
    /// Positions in the plan by line.
    positions: HashMap<usize, Ix>,
    /// By line: whether more of it changed than its outputs.
    altered: Vec<bool>,
    /// By line: whether its outputs are not as they were.
    misplaced: Vec<bool>,
    /// What putting outputs back did, by line.
    put_back: BTreeMap<usize, Placed>,
    /// Whether source files are among it: what came of them is not in the tree, and hardly in the store.
    is_edited: bool,
    /// News by claim.
    news: HashMap<usize, News>,
    /// By position, whether the task was looked at.
    looked_at: Vec<AtomicBool>,
    /// Source files by set.
    sets: Vec<OnceLock<Sources>>,
    /// What tasks that stand produced, by line.
    produced: Vec<OnceLock<Arc<Produced>>>,
}

impl Rest {
    /// What is left; `None` if more than source files and outputs changed. Cost: one pass over the claims, one over the tasks.
    pub fn of(compared: Compared) -> Option<Self> {
        if !compared.is_same_structure {
            return None;
        }
        let lines = compared.lines();
        let mut altered: Vec<bool> = lines.iter().map(|line| line.stood.is_none()).collect();
        compared.strayed.iter().for_each(|at| altered[*at] = true);
        let mut misplaced = vec![false; lines.len()];
        let sources = mark_outputs(&compared, &mut misplaced)?;
        let is_edited = !sources.is_empty();
        if is_edited {
            // By claim: the sets name every source file of the workspace, and more than once.
            let mut edited = vec![false; compared.census().len()];
            sources.iter().for_each(|at| edited[*at] = true);
            let is_edited = |file: &u32| edited.get(*file as usize).copied().unwrap_or(false);
            let is_changed: Vec<bool> = compared.sets().iter().map(|set| set.files.iter().any(is_edited)).collect();
            for (line, altered) in lines.iter().zip(&mut altered) {
                *altered |= is_changed[line.set];
            }
        }
        let news = compared.news().iter().map(|news| (news.claim, *news)).collect();
        let sets = compared.sets().iter().map(|_| OnceLock::new()).collect();
        let produced = lines.iter().map(|_| OnceLock::new()).collect();
        let (lines, looked_at) = (Vec::new(), Vec::new());
        let (positions, put_back) = (HashMap::new(), BTreeMap::new());
        let rest = Self {
            compared,
            lines,
            count: 0,
            positions,
            altered,
            misplaced,
            put_back,
            is_edited,
            news,
            looked_at,
            sets,
            produced,
        };
        Some(rest.arranged())
    }

    /// With the tasks to be looked at first, then those that they need.
    fn arranged(mut self) -> Self {
        let lines = self.compared.lines();
        let mut reached: Vec<bool> = (0..lines.len()).map(|at| self.altered[at] || self.misplaced[at]).collect();
        spread(lines, &mut reached);
        let mut order: Vec<usize> = (0..lines.len()).filter(|at| reached[*at]).collect();
        let count = order.len();
        let mut known = reached;
        for at in 0..count {
            for needed in &lines[order[at]].needs {
                if !std::mem::replace(&mut known[*needed], true) {
                    order.push(*needed);
                }
            }
        }
        self.positions = order.iter().enumerate().map(|(ix, line)| (*line, ix)).collect();
        self.looked_at = (0..count).map(|_| AtomicBool::new(false)).collect();
        Self { lines: order, count, ..self }
    }

    /// Lines of tasks of which nothing but the outputs changed, and neither of all they need: what they made is known.
    pub fn misplaced(&self) -> Vec<usize> {
        let mut altered = self.altered.clone();
        spread(self.compared.lines(), &mut altered);
        (0..altered.len()).filter(|at| self.misplaced[*at] && !altered[*at]).collect()
    }

    /// Takes over what was put back: those tasks are to be looked at no more, unless something else has become of what they need.
    pub fn with_put_back(mut self, put_back: BTreeMap<usize, Placed>) -> Self {
        put_back.keys().for_each(|at| self.misplaced[*at] = false);
        Self { put_back, ..self }.arranged()
    }

    /// Lines of the tasks whose outputs were put back.
    pub fn put_back(&self) -> impl Iterator<Item = usize> + '_ {
        self.put_back.keys().copied()
    }

    /// What it was compared with.
    pub fn compared(&self) -> &Compared {
        &self.compared
    }

    fn line(&self, ix: Ix) -> &Line {
        &self.compared.lines()[self.lines[ix]]
    }

    /// What the task of a line stood by.
    pub fn stood(&self, line: usize) -> Option<Stood> {
        let stood = self.compared.lines()[line].stood.as_ref()?;
        Some(as_stood(stood, &Arc::new(self.compared.listing(stood)?)))
    }

    /// The line of the task at a position.
    pub fn line_at(&self, ix: Ix) -> usize {
        self.lines[ix]
    }

    /// The tasks in the order of the plan.
    pub fn tasks(&self) -> Vec<TaskId> {
        (0..self.lines.len()).map(|ix| self.line(ix).task).collect()
    }

    /// How many are to be looked at; they come first.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Of those to be looked at, the ones that ask for limits.
    pub fn limited(&self) -> Vec<TaskId> {
        (0..self.count).map(|ix| self.line(ix)).filter(|line| line.limited).map(|line| line.task).collect()
    }

    /// Has what the first commands will be started with made in the background; as many at once as there are job slots. `begun` tells
    /// how many of them are being made already.
    pub fn expect_commands(&self, session: &Session<'_>, begun: &BTreeMap<Level, usize>) {
        let slots = usize::try_from(session.options.jobs).unwrap_or(usize::MAX);
        for (level, count) in by_level(self.likely_first(), slots) {
            let count = count.saturating_sub(begun.get(&level).copied().unwrap_or_default());
            // What goes wrong is told by who has a command for it.
            if let Ok(sandbox) = session.sandbox(level) {
                sandbox.expect_commands(count);
            }
        }
    }

    /// The levels of the commands that are likely to be the first to run, where they ask for no limits.
    fn likely_first(&self) -> Vec<Level> {
        let reached = (0..self.count).filter(|_| self.is_edited).map(|ix| (self.lines[ix], self.line(ix)));
        let is_held =
            |line: &Line| line.needs.iter().any(|needed| self.positions.get(needed).is_some_and(|ix| *ix < self.count));
        let first = reached.filter(|(at, line)| self.altered[*at] && !line.limited && !is_held(line));
        first.filter_map(|(_, line)| Level::parse(&line.stood.as_ref()?.isolation)).collect()
    }

    /// What was asked for, of those to be looked at.
    pub fn selected(&self) -> HashSet<TaskId> {
        (0..self.count).map(|ix| self.line(ix)).filter(|line| line.is_selected).map(|line| line.task).collect()
    }

    /// Those to be looked at, as the scheduler sees them.
    pub fn nodes(&self) -> Vec<Node> {
        let node = |ix: Ix| {
            let line = self.line(ix);
            let needed = line.needs.iter().filter_map(|needed| self.positions.get(needed).copied());
            Node {
                dependencies: needed.filter(|needed| *needed < self.count).collect(),
                duration_ms: line.stood.as_ref().map_or(UNKNOWN_MS, |stood| stood.duration_ms),
                // One that does not stand failed, most often.
                failed_last: line.stood.is_none(),
                weight: line.weight.clone(),
            }
        };
        (0..self.count).map(node).collect()
    }

    /// Identity of the system, which did not change.
    pub fn system(&self) -> SystemIdentity {
        SystemIdentity { text: self.compared.found().system.clone(), exact: true }
    }

    /// Git's index when no output was found in it.
    pub fn clean_index(&self) -> Option<&CleanIndex> {
        self.compared.found().index.as_ref()
    }

    /// The hits of the tasks that nothing reaches; each to be told.
    pub fn standing(&self) -> impl Iterator<Item = TaskFinished> + '_ {
        let is_reached = |at: &usize| self.positions.get(at).is_some_and(|ix| *ix < self.count);
        let lines = self.compared.lines().iter().enumerate().filter(move |(at, _)| !is_reached(at));
        lines.filter_map(|(at, line)| {
            let hit = hit(line)?;
            Some(match self.put_back.get(&at) {
                Some(Placed { written, notes }) => TaskFinished { materialized: *written, notes: notes.clone(), ..hit },
                None => hit,
            })
        })
    }

    /// The source files of a task: those of the last run, with what changed since. Cost: once for all tasks that select alike.
    pub fn sources(&self, ix: Ix) -> &Sources {
        let set = self.line(ix).set;
        self.sets[set].get_or_init(|| self.read_sources(set))
    }

    fn read_sources(&self, set: usize) -> Sources {
        let set = &self.compared.sets()[set];
        let census = self.compared.census();
        let mut listing: Vec<(RelPath, Entry)> = set.empty_dirs.iter().map(|dir| (dir.clone(), Entry::Dir)).collect();
        let mut stats = Vec::with_capacity(set.files.len());
        for file in &set.files {
            let at = *file as usize;
            let (Some(path), Some(claim)) = (census.path(at), census.claim(at)) else { continue };
            let (stat, digest) = self.news.get(&at).and_then(|news| news.now).unwrap_or((claim.stat, claim.digest));
            let entry = match claim.aspect {
                Aspect::FileLink => match self.compared.target(&path) {
                    Some(target) => Entry::Link { target },
                    None => continue,
                },
                _ => Entry::File { digest, size: stat.size, executable: stat.is_executable() },
            };
            stats.push((path.clone(), stat));
            listing.push((path, entry));
        }
        stats.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let listing = Arc::new(listing.into_iter().collect());
        Sources { listing, stats: Arc::new(stats), warnings: Vec::new(), shared: None }
    }

    /// The hit of a task to be looked at of which nothing changed, if all it needs came out as it was. `made` tells what the task at a
    /// position produced.
    pub fn stands<'a>(
        &self,
        session: &Session<'_>,
        ix: Ix,
        made: &dyn Fn(Ix) -> Option<&'a Arc<Produced>>,
    ) -> Option<Success> {
        let at = self.lines[ix];
        let stood = self.line(ix).stood.as_ref().filter(|_| !self.altered[at] && !self.misplaced[at])?;
        let is_same = |needed: &usize| {
            let Some(known) = &self.compared.lines()[*needed].stood else { return false };
            match self.positions.get(needed).filter(|ix| **ix < self.count) {
                // What is unstable came out as it was only if the same action did.
                Some(ix) => made(*ix).is_some_and(|made| {
                    made.digest == known.outputs && made.unstable.is_none_or(|action| action == known.key)
                }),
                None => true,
            }
        };
        if !self.line(ix).needs.iter().all(is_same) {
            return None;
        }
        Some(Success {
            produced: self.produced(session, ix)?,
            source: Some(ResultSource::Local),
            isolation: Level::parse(&stood.isolation),
            log: Vec::new(),
            duration: Duration::ZERO,
            saved: Duration::from_millis(stood.duration_ms),
            attempts: 0,
            notes: self.put_back.get(&at).map(|placed| placed.notes.clone()).unwrap_or_default(),
            materialized: self.put_back.get(&at).is_some_and(|placed| placed.written),
            action: stood.key,
        })
    }

    /// What a task that stands produced; the store is to be asked whether it has that before it is used.
    pub fn produced(&self, session: &Session<'_>, ix: Ix) -> Option<Arc<Produced>> {
        let at = self.lines[ix];
        let stood = self.line(ix).stood.as_ref()?;
        if self.produced[at].get().is_none() {
            let listing = Arc::new(self.compared.listing(stood)?);
            let stood = as_stood(stood, &listing);
            held(&session.recalled).insert(self.line(ix).task, Arc::new(stood));
            let StoodLine { outputs: digest, key, .. } = self.line(ix).stood.as_ref()?;
            let (digest, unstable) = (*digest, session.unstable_by(self.line(ix).task, key));
            // Another thread may have been quicker, with the same.
            drop(self.produced[at].set(Arc::new(Produced { listing, digest, unstable })));
        }
        self.produced[at].get().cloned()
    }

    /// Hands over what is known of the files of a task that is to be looked at, so that they are not read again.
    pub fn introduce(&self, session: &Session<'_>, ix: Ix) {
        self.looked_at[ix].store(true, Ordering::Relaxed);
        let census = self.compared.census();
        let of_set = self.compared.sets()[self.line(ix).set].files.iter().map(|file| *file as usize);
        let of_outputs = self.compared.outputs_of(self.lines[ix], session.package(self.line(ix).task));
        let known = |at: usize| {
            let claim = census.claim(at).filter(|claim| claim.aspect == Aspect::File)?;
            let (stat, digest) = match self.news.get(&at) {
                Some(News { now: Some(now), is_settled: true, .. }) => *now,
                Some(_) => return None,
                None if claim.is_settled => (claim.stat, claim.digest),
                None => return None,
            };
            Some((census.path(at)?, stat, digest))
        };
        session.add_known(of_set.chain(of_outputs).filter_map(known));
    }

    /// Whether more of a task was looked at than that it stands.
    pub fn was_looked_at(&self, ix: Ix) -> bool {
        self.looked_at[ix].load(Ordering::Relaxed)
    }
}

/// How many of each level are among the first `slots` commands.
pub fn by_level(levels: Vec<Level>, slots: usize) -> BTreeMap<Level, usize> {
    let mut counts = BTreeMap::new();
    levels.into_iter().take(slots).for_each(|level| *counts.entry(level).or_default() += 1);
    counts
}

/// Marks the tasks that need a marked one.
fn spread(lines: &[Line], marked: &mut [bool]) {
    for at in 0..lines.len() {
        marked[at] |= lines[at].needs.iter().any(|needed| marked[*needed]);
    }
}

/// Marks tasks whose outputs changed; gives the source files that did, by claim. `None` if one of them cannot be read.
fn mark_outputs(compared: &Compared, misplaced: &mut [bool]) -> Option<HashSet<usize>> {
    let census = compared.census();
    let mut sources = HashSet::new();
    for news in compared.news().iter().filter(|news| !news.holds) {
        match census.claim(news.claim).map(|claim| claim.role) {
            Some(Role::Output(owner)) => misplaced.get_mut(owner as usize).into_iter().for_each(|one| *one = true),
            Some(Role::Source) => {
                news.now?;
                sources.insert(news.claim);
            }
            Some(Role::Structure) | None => {}
        }
    }
    Some(sources)
}

fn as_stood(line: &StoodLine, listing: &Arc<Listing>) -> Stood {
    let StoodLine { memo, key, outputs, isolation, duration_ms, .. } = line;
    Stood {
        memo: *memo,
        key: *key,
        outputs: *outputs,
        listing: Arc::clone(listing),
        log: KeptLog::Here(Vec::new()),
        isolation: isolation.clone(),
        duration_ms: *duration_ms,
        history: None,
        used_ms: now_ms(),
    }
}
