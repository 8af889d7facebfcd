//! A run like the last one: whether what is kept of that still holds, and what it says then. Opens no database, loads no workspace.
//!
//! What a run says follows from its words, the environment, the program, the store and what it looks at on the disk. The first three
//! are compared when the file is read. That the results are in the store is as true as when they were noted while its mark stays
//! (`store::losses`). All that was looked at is in the census ([`crate::workspace::census`]), which is compared claim by claim. If
//! all of it holds, another run would look at the same, resolve the same tasks, and find each result in place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::Listing;
use crate::engine::event::{Counts, Event, EventSink, Outcome, ResultSource, TaskFinished};
use crate::engine::journal::{JOURNAL_BYTES_MAX, Patch};
use crate::engine::placing;
use crate::engine::settled::{self, Found, Ground, Line, Request, Saved, Set, Settled, StoodLine};
use crate::engine::settling::COMPILED;
use crate::engine::standing::USE_INTERVAL_MS;
use crate::engine::written::Records;
use crate::fs::dir::Dir;
use crate::fs::ops::{self, FsError};
use crate::fs::witness::now_ns;
use crate::graph;
use crate::graph::build::TaskGraph;
use crate::sandbox::spec::Level;
use crate::store::{mark_of, workspace_state};
use crate::workspace::Workspace;
use crate::workspace::census::{Census, Claim, Role};
use crate::workspace::sweep::{News, sweep_some, sweep_telling};

/// Claims beneath a package that are looked through for those of one task.
const NEAR_MAX: usize = 4096;

/// What is asked, and with what.
pub struct Question<'a> {
    /// The store.
    pub store_dir: &'a Path,
    /// The root of the workspace, absolute.
    pub root: &'a Path,
    /// What was asked for; of `None`, whatever was asked last is looked at.
    pub request: Option<&'a Request>,
    /// The environment.
    pub variables: &'a BTreeMap<String, String>,
}

/// What is kept of the last run, compared with the disk.
pub struct Compared {
    settled: Settled,
    state_dir: PathBuf,
    /// The root of the workspace, without links.
    root: PathBuf,
    /// What cannot be taken as true by its signature, in order.
    news: Vec<News>,
    /// Lines of tasks of which other files are recorded than when they stood, in order.
    pub strayed: Vec<usize>,
    /// Claims on outputs by line.
    outputs: OnceLock<Vec<Vec<usize>>>,
    /// Whether all that tasks are made of is as it was; their source files and outputs apart.
    pub is_same_structure: bool,
}

/// What is kept of the last run, not compared with anything yet.
pub struct Kept {
    settled: Settled,
    state_dir: PathBuf,
    root: PathBuf,
}

/// What a run is likely to need of which a source file changed.
pub struct Expected {
    /// Levels of the commands that read the file and need no other such command first; those that ask for limits apart.
    pub levels: Vec<Level>,
    /// Where the workspace is, as it was loaded.
    pub model: Option<Model>,
}

/// Where a workspace is kept as it was loaded.
pub struct Model {
    file: PathBuf,
    root: PathBuf,
    made_of: Digest,
}

impl Model {
    fn of(settled: &Settled, state_dir: &Path, root: &Path) -> Option<Self> {
        let made_of = settled.found.model?;
        Some(Self { file: state_dir.join(COMPILED), root: root.to_owned(), made_of })
    }

    /// The workspace, and its graph. Nothing may be said by it before the structure was compared.
    pub fn open(&self) -> Option<(Workspace, TaskGraph)> {
        graph::compiled::open(&self.file, &self.root, &self.made_of)
    }
}

impl Kept {
    /// Reads what is kept. `None` if there is nothing that could serve.
    pub fn of(question: &Question<'_>) -> Option<Self> {
        // As the engine names it: without links.
        let store_dir = ops::canonical(question.store_dir).ok()?;
        let state_dir = workspace_state(&store_dir, question.root);
        let ground = Ground::of(mark_of(&store_dir)?)?;
        let settled = match question.request {
            Some(request) => Settled::load(&state_dir, request, &ground, question.variables),
            None => Settled::latest(&state_dir, &ground, question.variables),
        }?;
        let root = ops::canonical(question.root).ok()?;
        // What a killed run left goes when the next one begins, however little that does.
        placing::sweep(&state_dir, &Dir::open(&root).ok()?);
        Some(Self { settled, state_dir, root })
    }

    /// The workspace as it was loaded, and its graph. Nothing may be said by it before the structure was compared.
    pub fn model(&self) -> Option<(Workspace, TaskGraph)> {
        Model::of(&self.settled, &self.state_dir, &self.root)?.open()
    }

    /// Whether what tasks are made of is as it was, whatever has become of their files. Cost: one `stat` per claim on that.
    pub fn is_same_structure(&self) -> bool {
        let census = self.settled.census();
        sweep_some(census, &self.root, &|at| census.is_structure(at))
            .is_ok_and(|news| news.iter().all(|news| news.holds))
    }

    /// The census.
    pub fn census(&self) -> Census<'_> {
        self.settled.census()
    }

    /// The root of the workspace, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Compares all of it. Cost: one `stat` per claim.
    ///
    /// Tells, once and on any thread, what is likely to be needed if a source file changed: as soon as one is found that did. Whether
    /// anything else holds is not known by then.
    pub fn compare(self, expect: &(dyn Fn(Expected) + Sync)) -> Option<Compared> {
        let census = self.settled.census();
        let is_told = AtomicBool::new(false);
        let tell = |news: &News| {
            let is_edit = !news.holds && news.now.is_some() && census.role(news.claim) == Some(Role::Source);
            if is_edit && !is_told.swap(true, Ordering::Relaxed) {
                let model = Model::of(&self.settled, &self.state_dir, &self.root);
                expect(Expected { levels: likely_first(&self.settled, news.claim), model });
            }
        };
        let news = sweep_telling(census, &self.root, &|_| true, &tell).ok()?;
        Some(self.compared(news))
    }

    /// Whether a task with all it needs stands, by what concerns these; its key then. `None` if not, or if it is not among those kept.
    pub fn stands(self, task: TaskId) -> Option<(Compared, Digest)> {
        let lines = &self.settled.lines;
        let at = lines.iter().position(|line| line.task == task)?;
        let (mut wanted, mut next) = (vec![false; lines.len()], vec![at]);
        while let Some(at) = next.pop() {
            if !std::mem::replace(&mut wanted[at], true) {
                next.extend(&lines[at].needs);
            }
        }
        let is_needed = |at: &usize| wanted[*at];
        let key = lines[at].stood.as_ref()?.key;
        if (0..lines.len()).filter(is_needed).any(|at| lines[at].stood.is_none()) {
            return None;
        }
        let census = self.settled.census();
        let mut sources = vec![false; census.len()];
        for at in (0..lines.len()).filter(is_needed) {
            let files = self.settled.sets[lines[at].set].files.iter();
            files.for_each(|file| sources.get_mut(*file as usize).into_iter().for_each(|one| *one = true));
        }
        let concerns = |at: usize| match census.claim(at).map(|claim| claim.role) {
            Some(Role::Source) => sources[at],
            Some(Role::Output(owner)) => wanted.get(owner as usize).copied().unwrap_or(true),
            Some(Role::Structure) | None => true,
        };
        let news = sweep_some(census, &self.root, &concerns).ok()?;
        let compared = self.compared(news);
        let holds = compared.news.iter().all(|news| news.holds) && !compared.strayed.iter().any(|at| wanted[*at]);
        holds.then_some((compared, key))
    }

    fn compared(self, news: Vec<News>) -> Compared {
        let Self { settled, state_dir, root } = self;
        let census = settled.census();
        let breaks =
            |news: &&News| !news.holds && census.claim(news.claim).is_none_or(|claim| claim.role == Role::Structure);
        let is_same_structure = !news.iter().any(|news| breaks(&news));
        let strayed = strayed(&settled, &Records::new(&state_dir));
        Compared { settled, state_dir, root, news, strayed, outputs: OnceLock::new(), is_same_structure }
    }
}

impl Compared {
    /// Reads what is kept and compares it. `None` if there is nothing that could serve. Cost: one `stat` per claim.
    pub fn of(question: &Question<'_>) -> Option<Self> {
        Kept::of(question)?.compare(&|_| {})
    }

    /// The tasks, each after everything it needs.
    pub fn lines(&self) -> &[Line] {
        &self.settled.lines
    }

    /// Sets of source files.
    pub fn sets(&self) -> &[Set] {
        &self.settled.sets
    }

    /// The census.
    pub fn census(&self) -> Census<'_> {
        self.settled.census()
    }

    /// What cannot be taken as true by its signature, in the order of the claims.
    pub fn news(&self) -> &[News] {
        &self.news
    }

    /// What was found out about the machine and the workspace.
    pub fn found(&self) -> &Found {
        &self.settled.found
    }

    /// The outputs of a task that stood, relative to its package.
    pub fn listing(&self, stood: &StoodLine) -> Option<Listing> {
        self.settled.listing(stood)
    }

    /// Claims on the outputs of the task of a line, in order; `package` is the one it is declared in, beneath which all of them lie.
    ///
    /// Cost: one pass over the claims beneath the package; where these are many, one over all claims, the first time.
    pub fn outputs_of(&self, line: usize, package: &RelPath) -> Vec<usize> {
        let census = self.settled.census();
        let near = census.claims_near(package);
        let found = if near.iter().map(ExactSizeIterator::len).sum::<usize>() <= NEAR_MAX {
            let is_ours = |at: &usize| census.role(*at).is_some_and(|role| is_output_of(role, line));
            near.into_iter().flatten().filter(is_ours).collect()
        } else {
            self.all_outputs_of(line).to_vec()
        };
        debug_assert_eq!(found, self.all_outputs_of(line), "BUG: outputs beside the package {package}");
        found
    }

    fn all_outputs_of(&self, line: usize) -> &[usize] {
        let by_line = self.outputs.get_or_init(|| {
            let mut by_line = vec![Vec::new(); self.settled.lines.len()];
            let census = self.settled.census();
            for at in 0..census.len() {
                if let Some(Role::Output(owner)) = census.role(at) {
                    by_line.get_mut(owner as usize).into_iter().for_each(|all| all.push(at));
                }
            }
            by_line
        });
        by_line.get(line).map_or(&[], Vec::as_slice)
    }

    /// Where a link of the workspace leads now.
    pub fn target(&self, path: &RelPath) -> Option<String> {
        let target = ops::read_link(&self.root.join(path.as_str())).ok()?;
        target.to_str().map(str::to_owned)
    }

    /// The workspace as it was loaded, and its graph. `None` if it is not at hand.
    pub fn model(&self) -> Option<(Workspace, TaskGraph)> {
        Model::of(&self.settled, &self.state_dir, &self.root).filter(|_| self.is_same_structure)?.open()
    }

    /// Claims that no longer say how things are, as they are now: source files that changed, and what was read again and is the same.
    pub fn renewed(&self) -> Vec<(u32, Claim)> {
        let census = self.settled.census();
        let renew = |news: &News| {
            let claim = census.claim(news.claim)?;
            let (stat, digest) = news.now?;
            let is_ours = news.holds || claim.role == Role::Source;
            // What is as it was and still not settled would be read again anyway.
            let is_new = news.is_settled || digest != claim.digest || stat != claim.stat;
            let claim = Claim { stat, digest, is_settled: news.is_settled, ..claim };
            (is_ours && is_new).then_some((u32::try_from(news.claim).ok()?, claim))
        };
        self.news.iter().filter_map(renew).collect()
    }

    /// The root of the workspace, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The listing of a task that stood, as it is encoded.
    pub fn encoded(&self, stood: &StoodLine) -> &[u8] {
        self.settled.encoded(stood)
    }

    /// Whether the journal has room for more.
    pub fn has_room(&self) -> bool {
        self.settled.journal_len <= JOURNAL_BYTES_MAX
    }

    /// Keeps all anew.
    pub fn save(
        &self,
        request: &Request,
        ground: &Ground,
        environment: &BTreeMap<String, String>,
        found: &Found,
        census: &[u8],
        tasks: (&[Saved<'_>], &[Set]),
    ) -> Result<(), FsError> {
        let variables = (self.settled.variables(), environment);
        settled::save(&self.state_dir, request, ground, variables, found, census, tasks)
    }

    /// Notes what became of tasks and files.
    pub fn append(&self, request: &Request, patch: &Patch) -> Result<(), FsError> {
        settled::append(&self.state_dir, request, &self.settled.id, patch)
    }

    /// Forgets the run: the next one is loaded and planned anew.
    pub fn forget(&self, request: &Request) -> Result<(), FsError> {
        settled::forget(&self.state_dir, request)
    }

    /// Whether every task stands: there is nothing to look at.
    pub fn is_all_standing(&self) -> bool {
        self.is_same_structure
            && self.strayed.is_empty()
            && self.news.iter().all(|news| news.holds)
            && self.settled.lines.iter().all(|line| line.stood.is_some())
    }

    /// Keys of all results, if it is time to mark them as used.
    pub fn due(&self) -> Option<Vec<Digest>> {
        let since_ms = now_ns().saturating_sub(self.settled.used_ns) / 1_000_000;
        let keys = || self.settled.lines.iter().filter_map(|line| Some(line.stood.as_ref()?.key)).collect();
        (!(0..USE_INTERVAL_MS).contains(&since_ms)).then(keys)
    }

    /// Notes that they were.
    pub fn note_use(&self, request: &Request) -> Result<(), FsError> {
        settled::note_use(&self.state_dir, request, now_ns())
    }

    /// Tells a run in which all is a hit. `None`, and nothing told, if something is not as it should be.
    pub fn tell(&self, started: Instant, jobs: usize, run: String, sink: &mut dyn EventSink) -> Option<Counts> {
        let hits: Vec<TaskFinished> = self.settled.lines.iter().map(hit).collect::<Option<_>>()?;
        sink.event(&Event::RunStarted { run, tasks: hits.len(), jobs });
        let counts = Counts { hit: hits.len(), ..Counts::default() };
        let saved = hits.iter().map(|hit| hit.saved).sum();
        for hit in hits {
            sink.event(&Event::TaskFinished(Box::new(hit)));
        }
        sink.event(&Event::RunFinished {
            ok: true,
            counts,
            duration: started.elapsed(),
            saved,
            critical_path: Vec::new(),
            interrupted: false,
        });
        Some(counts)
    }
}

/// Levels of the commands that a changed source file is likely to have run first.
fn likely_first(settled: &Settled, claim: usize) -> Vec<Level> {
    let Settled { lines, sets, .. } = settled;
    let is_edited: Vec<bool> = sets.iter().map(|set| set.files.iter().any(|file| *file as usize == claim)).collect();
    let reads = |line: &Line| is_edited[line.set];
    let first = lines
        .iter()
        .filter(|line| reads(line) && !line.limited && !line.needs.iter().any(|needed| reads(&lines[*needed])));
    first.filter_map(|line| Level::parse(&line.stood.as_ref()?.isolation)).collect()
}

fn is_output_of(role: Role, line: usize) -> bool {
    matches!(role, Role::Output(owner) if owner as usize == line)
}

fn strayed(settled: &Settled, records: &Records) -> Vec<usize> {
    let recorded =
        settled.lines.iter().enumerate().filter_map(|(at, line)| Some((at, line, line.stood.as_ref()?.record?)));
    recorded.filter(|(_, line, record)| records.mark(&line.label) != *record).map(|(at, _, _)| at).collect()
}

/// The hit of a task that stands, without its log; `None` for one that does not.
pub(super) fn hit(line: &Line) -> Option<TaskFinished> {
    let stood = line.stood.as_ref()?;
    Some(TaskFinished {
        source: Some(ResultSource::Local),
        action: Some(stood.key),
        outputs: Some(stood.outputs),
        isolation: Level::parse(&stood.isolation),
        saved: Duration::from_millis(stood.duration_ms),
        ..TaskFinished::blank(line.task, line.label.clone(), Outcome::Hit)
    })
}
