//! A run like the last one: whether what is kept of that still holds, and what it says then. Opens no database, loads no workspace.
//!
//! What a run says follows from its words, the environment, the program, the store and what it looks at on the disk. The first three
//! are compared when the file is read. That the results are in the store is as true as when they were noted while its mark stays
//! (`store::losses`). All that was looked at is in the census ([`crate::workspace::census`]), which is compared claim by claim. If
//! all of it holds, another run would look at the same, resolve the same tasks, and find each result in place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::base::digest::Digest;
use crate::engine::event::{Counts, Event, EventSink, Log, Outcome, ResultSource, TaskFinished};
use crate::engine::log;
use crate::engine::settled::{self, Ground, Line, Request, Settled, StoodLine};
use crate::engine::standing::{KeptLog, USE_INTERVAL_MS};
use crate::fs::ops::{self, FsError};
use crate::fs::witness::now_ns;
use crate::sandbox::spec::Level;
use crate::store::{mark_of, workspace_state};
use crate::workspace::census::Role;
use crate::workspace::sweep::{News, sweep};

/// What is asked, and with what.
pub struct Question<'a> {
    /// The store.
    pub store_dir: &'a Path,
    /// The root of the workspace, absolute.
    pub root: &'a Path,
    /// What was asked for.
    pub request: &'a Request,
    /// The environment.
    pub variables: &'a BTreeMap<String, String>,
}

/// What is kept of the last run, compared with the disk.
pub struct Compared {
    settled: Settled,
    state_dir: PathBuf,
    /// What cannot be taken as true by its signature, in order.
    news: Vec<News>,
    /// Whether all that tasks are made of is as it was; their source files and outputs apart.
    pub is_same_structure: bool,
}

impl Compared {
    /// Reads what is kept and compares it. `None` if there is nothing that could serve. Cost: one `stat` per claim.
    pub fn of(question: &Question<'_>) -> Option<Self> {
        // As the engine names it: without links.
        let store_dir = ops::canonical(question.store_dir).ok()?;
        let state_dir = workspace_state(&store_dir, question.root);
        let ground = Ground::of(mark_of(&store_dir)?)?;
        let settled = Settled::load(&state_dir, question.request, &ground, question.variables)?;
        let root = ops::canonical(question.root).ok()?;
        let news = sweep(settled.census(), &root).ok()?;
        let census = settled.census();
        let breaks =
            |news: &&News| !news.holds && census.claim(news.claim).is_none_or(|claim| claim.role == Role::Structure);
        let is_same_structure = !news.iter().any(|news| breaks(&news));
        Some(Self { settled, state_dir, news, is_same_structure })
    }

    /// The tasks, each after everything it needs.
    pub fn lines(&self) -> &[Line] {
        &self.settled.lines
    }

    /// Whether every task stands: there is nothing to look at.
    pub fn is_all_standing(&self) -> bool {
        self.is_same_structure
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

/// The hit of a task that stands; `None` for one that does not, or whose log lies elsewhere.
fn hit(line: &Line) -> Option<TaskFinished> {
    let stood = line.stood.as_ref()?;
    Some(TaskFinished {
        task: line.task,
        label: line.label.clone(),
        part_of: None,
        outcome: Outcome::Hit,
        source: Some(ResultSource::Local),
        action: Some(stood.key),
        outputs: Some(stood.outputs),
        isolation: Level::parse(&stood.isolation),
        duration: Duration::ZERO,
        saved: Duration::from_millis(stood.duration_ms),
        why: Vec::new(),
        log: log_of(stood)?,
        failure: None,
        because_of: None,
        attempts: 0,
        flaky: false,
        notes: Vec::new(),
        materialized: false,
    })
}

fn log_of(stood: &StoodLine) -> Option<Log> {
    match &stood.log {
        KeptLog::Here(bytes) => log::decode(bytes).ok(),
        KeptLog::Stored(_) => None,
    }
}
