//! The events as JSON objects, for machines: the types, their schema, and how they are made. Writes nowhere.
//!
//! What is written here is read by other programs: fields are added, never renamed and never removed.
//! `schema/event.schema.json` is generated from these types.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::base::diagnostic::Diagnostic;
use crate::base::span::Sources;
use crate::engine::event::{Counts, Event, Failure, MissReason, Outcome, ResultSource, ServiceEvent, TaskFinished};
use crate::report::render::severity_word;
use crate::sandbox::spec::{Exit, Limit};

/// One line of `drystone run --format json`.
#[derive(Serialize, JsonSchema, Debug)]
#[serde(tag = "event")]
#[schemars(title = "Drystone run event")]
pub enum EventLine {
    /// The plan is made, nothing has started. The first event but for notices.
    #[serde(rename = "run.started")]
    RunStarted(RunStartedLine),
    /// A task's command is about to start. Hits and skipped tasks have no such event.
    #[serde(rename = "task.started")]
    TaskStarted(TaskStartedLine),
    /// A task is done. Comes exactly once for each selected task.
    #[serde(rename = "task.finished")]
    TaskFinished(Box<TaskFinishedLine>),
    /// Something to say that belongs to no task.
    #[serde(rename = "notice")]
    Notice(DiagnosticValue),
    /// A service was started.
    #[serde(rename = "service.started")]
    ServiceStarted(ServiceStartedLine),
    /// A service can be used.
    #[serde(rename = "service.ready")]
    ServiceReady(ServiceReadyLine),
    /// A service has ended. Comes exactly once for each that was started, unless the program is killed.
    #[serde(rename = "service.stopped")]
    ServiceStopped(ServiceStoppedLine),
    /// A service printed a line. Only where services themselves were asked for.
    #[serde(rename = "service.output")]
    ServiceOutput(ServiceOutputLine),
    /// Everything is done. The last event.
    #[serde(rename = "run.finished")]
    RunFinished(RunFinishedLine),
}

/// Fields of `run.started`.
#[derive(Serialize, JsonSchema, Debug)]
pub struct RunStartedLine {
    /// Run id, unique on this machine.
    run: String,
    /// How many tasks are selected.
    tasks: usize,
    /// Job slots.
    jobs: usize,
}

/// Fields of `task.started`.
#[derive(Serialize, JsonSchema, Debug)]
pub struct TaskStartedLine {
    /// Its label.
    task: String,
    /// Why it runs; the first difference first.
    why: Vec<WhyValue>,
    /// How long it took before, in milliseconds; null where that is not known.
    expected_ms: Option<u64>,
    /// Job slot it runs in, from 0.
    slot: usize,
}

/// Fields of `task.finished`.
#[derive(Serialize, JsonSchema, Debug)]
pub struct TaskFinishedLine {
    /// Its label.
    task: String,
    /// For a part of a split task, the label of the whole, which selects all parts; null for every other task.
    part_of: Option<String>,
    /// What became of it.
    outcome: OutcomeWord,
    /// Where a hit came from; null for everything else.
    source: Option<SourceWord>,
    /// Action digest, 64 hexadecimal digits; null where it was never known.
    action: Option<String>,
    /// Tree digest of the outputs, 64 hexadecimal digits; null where there are none.
    outputs: Option<String>,
    /// Level it ran at, or that the stored result was made at: `namespaces`, `landlock` or `none`.
    isolation: Option<String>,
    /// Wall time in this run, in milliseconds; for hits the lookup and materialization.
    duration_ms: u64,
    /// Why it ran; the first difference first; empty for hits.
    why: Vec<WhyValue>,
    /// Attempts made; more than 1 after retries.
    attempts: u32,
    /// Whether it passed and failed under one action digest, now or earlier.
    flaky: bool,
    /// Present exactly when the outcome is `failed`.
    failure: Option<FailureValue>,
    /// For skipped tasks: the label whose failure is the cause.
    because_of: Option<String>,
    /// Things worth saying that did not fail it.
    notes: Vec<DiagnosticValue>,
}

/// Fields of `service.started`.
#[derive(Serialize, JsonSchema, Debug)]
pub struct ServiceStartedLine {
    /// Its label.
    service: String,
}

/// Fields of `service.ready`.
#[derive(Serialize, JsonSchema, Debug)]
pub struct ServiceReadyLine {
    /// Its label.
    service: String,
    /// How long it took, in milliseconds.
    duration_ms: u64,
}

/// Fields of `service.stopped`.
#[derive(Serialize, JsonSchema, Debug)]
pub struct ServiceStoppedLine {
    /// Its label.
    service: String,
    /// How long it ran, in milliseconds.
    duration_ms: u64,
    /// How, in words: `exit code 1`.
    how: String,
    /// Whether it was asked to end.
    asked: bool,
}

/// Fields of `service.output`.
#[derive(Serialize, JsonSchema, Debug)]
pub struct ServiceOutputLine {
    /// Its label.
    service: String,
    /// The line without its end.
    text: String,
}

/// Fields of `run.finished`.
#[derive(Serialize, JsonSchema, Debug)]
pub struct RunFinishedLine {
    /// Whether no task failed, was skipped or was cancelled.
    ok: bool,
    /// Whether it was interrupted.
    interrupted: bool,
    /// How many results were taken from a cache.
    hit: usize,
    /// How many tasks ran and succeeded.
    ran: usize,
    /// How many failed.
    failed: usize,
    /// How many did not run because something they need failed.
    skipped: usize,
    /// How many were stopped before they finished.
    cancelled: usize,
    /// Wall time of the run, in milliseconds.
    duration_ms: u64,
    /// What all hits together saved, in milliseconds of wall time.
    saved_ms: u64,
    /// The longest chain of executed tasks, first to last.
    critical_path: Vec<ChainLink>,
}

/// One task of the critical path.
#[derive(Serialize, JsonSchema, Debug)]
pub struct ChainLink {
    /// Its label.
    task: String,
    /// Its wall time, in milliseconds.
    duration_ms: u64,
}

/// What became of a task.
#[derive(Serialize, JsonSchema, Debug)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeWord {
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

/// Where a hit came from.
#[derive(Serialize, JsonSchema, Debug)]
#[serde(rename_all = "lowercase")]
pub enum SourceWord {
    /// This machine's store.
    Local,
    /// A remote.
    Remote,
}

/// One difference from the nearest earlier run.
#[derive(Serialize, JsonSchema, Debug)]
pub struct WhyValue {
    /// Which field: `first-run`, `command`, `env`, `input`, `tool`, `system`, `outputs`, `forced`, `never-cached`, …
    field: String,
    /// Which one of them: a path, a variable, a tool; empty where the field is single.
    name: String,
    /// `added`, `removed`, `changed`, or old and new values.
    change: String,
}

/// How a failed task failed.
#[derive(Serialize, JsonSchema, Debug)]
pub struct FailureValue {
    /// One sentence.
    cause: String,
    /// How its command ended; null where none was started.
    exit: Option<ExitValue>,
    /// More to say, with places and ways out.
    diagnostics: Vec<DiagnosticValue>,
}

/// How a command ended.
#[derive(Serialize, JsonSchema, Debug)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ExitValue {
    /// With a code.
    Code {
        /// The code.
        code: i32,
    },
    /// By a signal.
    Signal {
        /// Its number.
        signal: i32,
    },
    /// Its time was up.
    TimedOut,
    /// It took more memory than it may.
    OverMemory,
    /// It had more processes than it may.
    OverProcesses,
    /// The run was cancelled.
    Cancelled,
}

/// One message to a person.
#[derive(Serialize, JsonSchema, Debug)]
pub struct DiagnosticValue {
    /// How bad: `note`, `warning` or `error`.
    severity: String,
    /// What is wrong.
    message: String,
    /// Where, the main place first.
    places: Vec<PlaceValue>,
    /// Ways out.
    help: Vec<String>,
}

/// A place in a manifest.
#[derive(Serialize, JsonSchema, Debug)]
pub struct PlaceValue {
    /// Path relative to the workspace root, where it lies below it.
    path: String,
    /// Line, counted from 1.
    line: usize,
    /// Column in characters, counted from 1.
    column: usize,
    /// What is there; may be empty.
    text: String,
}

impl EventLine {
    /// The wire form of an event; places are looked up in `sources`, unknown ones left out.
    pub fn of(event: &Event, sources: &Sources) -> Self {
        match event {
            Event::RunStarted { run, tasks, jobs } => {
                EventLine::RunStarted(RunStartedLine { run: run.clone(), tasks: *tasks, jobs: *jobs })
            }
            Event::TaskStarted { task: _, label, why, expected, slot } => EventLine::TaskStarted(TaskStartedLine {
                task: label.clone(),
                why: whys(why),
                expected_ms: expected.map(milliseconds),
                slot: *slot,
            }),
            Event::TaskFinished(finished) => EventLine::TaskFinished(Box::new(finished_line(finished, sources))),
            Event::Notice(diagnostic) => EventLine::Notice(DiagnosticValue::of(diagnostic, sources)),
            Event::Service(event) => Self::of_service(event),
            Event::RunFinished { ok, counts, duration, saved, critical_path, interrupted } => {
                let Counts { hit, ran, failed, skipped, cancelled } = *counts;
                EventLine::RunFinished(RunFinishedLine {
                    ok: *ok,
                    interrupted: *interrupted,
                    hit,
                    ran,
                    failed,
                    skipped,
                    cancelled,
                    duration_ms: milliseconds(*duration),
                    saved_ms: milliseconds(*saved),
                    critical_path: critical_path
                        .iter()
                        .map(|(task, duration)| ChainLink { task: task.clone(), duration_ms: milliseconds(*duration) })
                        .collect(),
                })
            }
        }
    }
}

impl EventLine {
    fn of_service(event: &ServiceEvent) -> Self {
        match event.clone() {
            ServiceEvent::Started { label: service } => EventLine::ServiceStarted(ServiceStartedLine { service }),
            ServiceEvent::Ready { label: service, duration } => {
                EventLine::ServiceReady(ServiceReadyLine { service, duration_ms: milliseconds(duration) })
            }
            ServiceEvent::Stopped { label: service, duration, how, asked } => {
                let duration_ms = milliseconds(duration);
                EventLine::ServiceStopped(ServiceStoppedLine { service, duration_ms, how, asked })
            }
            ServiceEvent::Output { label: service, text } => {
                EventLine::ServiceOutput(ServiceOutputLine { service, text })
            }
        }
    }
}

fn finished_line(finished: &TaskFinished, sources: &Sources) -> TaskFinishedLine {
    TaskFinishedLine {
        task: finished.label.clone(),
        part_of: finished.part_of.as_ref().map(|whole| whole.label.clone()),
        outcome: match finished.outcome {
            Outcome::Hit => OutcomeWord::Hit,
            Outcome::Ran => OutcomeWord::Ran,
            Outcome::Failed => OutcomeWord::Failed,
            Outcome::Skipped => OutcomeWord::Skipped,
            Outcome::Cancelled => OutcomeWord::Cancelled,
        },
        source: finished.source.map(|source| match source {
            ResultSource::Local => SourceWord::Local,
            ResultSource::Remote => SourceWord::Remote,
        }),
        action: finished.action.map(|digest| digest.to_hex()),
        outputs: finished.outputs.map(|digest| digest.to_hex()),
        isolation: finished.isolation.map(|level| level.word().to_owned()),
        duration_ms: milliseconds(finished.duration),
        why: whys(&finished.why),
        attempts: finished.attempts,
        flaky: finished.flaky,
        failure: finished.failure.as_ref().map(|failure| FailureValue::of(failure, sources)),
        because_of: finished.because_of.clone(),
        notes: finished.notes.iter().map(|note| DiagnosticValue::of(note, sources)).collect(),
    }
}

impl FailureValue {
    fn of(failure: &Failure, sources: &Sources) -> Self {
        Self {
            cause: failure.cause.clone(),
            exit: failure.exit.map(|exit| match exit {
                Exit::Code(code) => ExitValue::Code { code },
                Exit::Signal(signal) => ExitValue::Signal { signal },
                Exit::TimedOut => ExitValue::TimedOut,
                Exit::Over(Limit::Memory) => ExitValue::OverMemory,
                Exit::Over(Limit::Processes) => ExitValue::OverProcesses,
                Exit::Cancelled => ExitValue::Cancelled,
            }),
            diagnostics: failure.diagnostics.iter().map(|one| DiagnosticValue::of(one, sources)).collect(),
        }
    }
}

impl DiagnosticValue {
    /// The wire form of a diagnostic; marks in sources that are not known are left out.
    pub fn of(diagnostic: &Diagnostic, sources: &Sources) -> Self {
        let places = diagnostic.marks.iter().filter_map(|mark| {
            let source = sources.find(mark.place.source)?;
            let (line, column) = line_and_column(sources.text(mark.place.source), mark.place.range.start);
            Some(PlaceValue { path: source.path.to_string_lossy().into_owned(), line, column, text: mark.text.clone() })
        });
        Self {
            severity: severity_word(diagnostic.severity).to_owned(),
            message: diagnostic.message.clone(),
            places: places.collect(),
            help: diagnostic.help.clone(),
        }
    }
}

/// Line and column in characters of a byte offset, both from 1; an offset outside the text is moved to the nearest inside.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

fn whys(why: &[MissReason]) -> Vec<WhyValue> {
    why.iter()
        .map(|reason| WhyValue {
            field: reason.field.to_owned(),
            name: reason.name.clone(),
            change: reason.change.clone(),
        })
        .collect()
}

/// Whole milliseconds, for fields named `…_ms`.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The JSON Schema of [`EventLine`], as checked in at `schema/event.schema.json`.
pub fn event_schema() -> serde_json::Value {
    // As written, not as read: what may be null is there all the same.
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<EventLine>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_wherever_its_offset_points() {
        let check = |text: &str, offset: usize, expect: (usize, usize)| {
            assert_eq!(line_and_column(text, offset), expect, "{text:?} {offset}");
        };
        check("", 9, (1, 1));
        check("ab\ncd", 4, (2, 2));
        check("ä=1", 1, (1, 1));
        check("ä=1", 2, (1, 2));
        check("a\n", 99, (2, 1));
    }
}
