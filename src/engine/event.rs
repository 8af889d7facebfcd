//! Events: the only road from the engine to anything a person or a machine reads.

use std::time::Duration;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::sandbox::spec::{Exit, Level};

/// What became of a task.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// An earlier result was taken.
    Hit,
    /// It ran and succeeded.
    Ran,
    /// It ran, or could not be run, and failed.
    Failed,
    /// Something it needs failed.
    Skipped,
    /// The run was stopped before it finished.
    Cancelled,
}

impl Outcome {
    /// The word in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::Hit => "hit",
            Outcome::Ran => "ran",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
            Outcome::Cancelled => "cancelled",
        }
    }
}

/// Where a hit came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResultSource {
    /// This machine's store.
    Local,
    /// A remote.
    Remote,
}

/// One difference between a fingerprint and the nearest earlier one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MissReason {
    /// Which field: `first-run`, `command`, `env`, `input`, `tool`, `system`, `outputs`, `forced`, `never-cached`, …
    pub field: &'static str,
    /// Which one of them: a path, a variable, a tool; empty where the field is single.
    pub name: String,
    /// `added`, `removed`, `changed`, or old and new values as `"old" → "new"`.
    pub change: String,
}

impl MissReason {
    /// One line for people: `src/parse.c changed`, `env NODE_ENV "test" → "production"`, `first run`.
    pub fn sentence(&self) -> String {
        match self.field {
            "first-run" => "first run".into(),
            "input" => format!("{} {}", self.name, self.change),
            field => {
                let field = field.replace('-', " ");
                [field.as_str(), &self.name, &self.change]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join(" ")
            }
        }
    }
}

/// How a failed task failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// One sentence: `exit code 2`, `timed out after 10 m 00 s`, ``declared output `dist/**` was not made``.
    pub cause: String,
    /// How its command ended, where it started.
    pub exit: Option<Exit>,
    /// More to say, with places and ways out.
    pub diagnostics: Vec<Diagnostic>,
}

/// Captured output in the order it came; each piece from one stream.
pub type Log = Vec<(crate::sandbox::spec::Stream, Vec<u8>)>;

/// The split task that a part belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartOf {
    /// Label of the whole.
    pub label: String,
    /// Parts of it that are still to come in this run.
    pub to_come: usize,
}

/// A finished task.
#[derive(Clone, Debug)]
pub struct TaskFinished {
    /// Which.
    pub task: TaskId,
    /// Its label as text.
    pub label: String,
    /// For a part of a split task, the whole.
    pub part_of: Option<PartOf>,
    /// What became of it.
    pub outcome: Outcome,
    /// Where a hit came from.
    pub source: Option<ResultSource>,
    /// Action digest, once known.
    pub action: Option<Digest>,
    /// Tree digest of the outputs, where it has any result.
    pub outputs: Option<Digest>,
    /// Level it ran at, or that the stored result was made at.
    pub isolation: Option<Level>,
    /// Wall time in this run; for hits the lookup and materialization.
    pub duration: Duration,
    /// Wall time a hit saved.
    pub saved: Duration,
    /// Why it ran; empty for hits.
    pub why: Vec<MissReason>,
    /// Log of the command, replayed on hits byte for byte.
    pub log: Log,
    /// Present exactly when `outcome` is `Failed`.
    pub failure: Option<Failure>,
    /// For skipped tasks: the label whose failure is the cause.
    pub because_of: Option<String>,
    /// Attempts made; more than 1 after retries.
    pub attempts: u32,
    /// Passed and failed under one action digest, now or earlier.
    pub flaky: bool,
    /// Things worth saying that did not fail it: undeclared writes, a result that was not stored and why.
    pub notes: Vec<Diagnostic>,
    /// Whether the outputs on disk changed.
    pub materialized: bool,
}

impl TaskFinished {
    /// One of which nothing but how it ended is known.
    pub fn blank(task: TaskId, label: String, outcome: Outcome) -> Self {
        Self {
            task,
            label,
            part_of: None,
            outcome,
            source: None,
            action: None,
            outputs: None,
            isolation: None,
            duration: Duration::ZERO,
            saved: Duration::ZERO,
            why: Vec::new(),
            log: Vec::new(),
            failure: None,
            because_of: None,
            attempts: 0,
            flaky: false,
            notes: Vec::new(),
            materialized: false,
        }
    }
}

/// How many tasks ended how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Hits.
    pub hit: usize,
    /// Ran and passed.
    pub ran: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
    /// Cancelled.
    pub cancelled: usize,
}

/// What becomes of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServiceEvent {
    /// It was started.
    Started {
        /// Its label.
        label: String,
    },
    /// It can be used.
    Ready {
        /// Its label.
        label: String,
        /// How long it took.
        duration: Duration,
    },
    /// It has ended.
    Stopped {
        /// Its label.
        label: String,
        /// How long it ran.
        duration: Duration,
        /// How: `exit code 1`.
        how: String,
        /// Whether it was asked to.
        asked: bool,
    },
    /// It printed a line; told only where services themselves were asked for.
    Output {
        /// Its label.
        label: String,
        /// The line without its end.
        text: String,
    },
}

/// Everything a run tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// The plan is made, nothing has started.
    RunStarted {
        /// Run id, unique on this machine.
        run: String,
        /// How many tasks are selected.
        tasks: usize,
        /// Job slots.
        jobs: usize,
    },
    /// A task's command is about to start.
    TaskStarted {
        /// Which.
        task: TaskId,
        /// Its label.
        label: String,
        /// Why it runs.
        why: Vec<MissReason>,
        /// How long it took before, where known.
        expected: Option<Duration>,
        /// Job slot it runs in, from 0.
        slot: usize,
    },
    /// A task is done.
    TaskFinished(Box<TaskFinished>),
    /// Something to say that belongs to no task.
    Notice(Diagnostic),
    /// Something became of a service.
    Service(ServiceEvent),
    /// Everything is done.
    RunFinished {
        /// Whether no task failed, was skipped or was cancelled.
        ok: bool,
        /// The counts.
        counts: Counts,
        /// Wall time of the run.
        duration: Duration,
        /// Sum of what hits saved.
        saved: Duration,
        /// Labels and times along the longest chain of executed tasks, first to last.
        critical_path: Vec<(String, Duration)>,
        /// Whether the run was interrupted.
        interrupted: bool,
    },
}

/// Consumes events, on the drive thread, in order. Must not block for long and never fails.
pub trait EventSink {
    /// Takes one event.
    fn event(&mut self, event: &Event);
    /// Called a few times a second while tasks run, for displays that show time passing.
    fn tick(&mut self) {}
}
