//! The human report: which lines stay, and in which order. Knows neither whether it goes to a terminal nor what is drawn below it.
//!
//! While the run goes on, one line for each task that did work. Hits are only counted, unless the run is small (up to
//! [`FEW_TASKS`]) or all is asked for: what changed nothing is not worth a line of sixty. Skipped tasks are summed up by
//! what they were skipped for, and parts of a split task that ran, in one line once the last part is done. At the end come what deserves a look and did not fail, then each failure whole, its command
//! to repeat it last, then the counts: the person looks at the last screen, so what needs doing stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::base::diagnostic::{Diagnostic, merge_alike};
use crate::base::span::Sources;
use crate::base::time::human_duration;
use crate::engine::event::{Counts, Event, Log, MissReason, Outcome, ServiceEvent, TaskFinished};
use crate::report::ink::{Color, Ink, RESET, paint};
use crate::report::lines::{
    WhyShown, critical_path, finished_line, outcome_word, repeat_command, service_line, summary, why_sentence,
};
use crate::report::render::render;

/// Runs of at most this many tasks show a line for every one of them, hits and skipped ones included.
pub const FEW_TASKS: usize = 10;

/// How much is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verbosity {
    /// Only what went wrong.
    Quiet,
    /// What was done.
    Normal,
    /// Every task.
    Verbose,
}

/// Whose captured output is shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OutputShown {
    /// Nobody's.
    None,
    /// That of failed tasks, at the end.
    Failed,
    /// Also that of tasks that ran, below their lines.
    Ran,
    /// Also that of hits, replayed.
    All,
}

/// How the story is told.
#[derive(Clone, Debug)]
pub struct StoryOptions {
    /// Whether colours may be used.
    pub color: Color,
    /// Columns diagnostics are fitted to.
    pub width: usize,
    /// How much is told.
    pub verbosity: Verbosity,
    /// How much of the reasons.
    pub why: WhyShown,
    /// Whose output.
    pub output: OutputShown,
    /// The texts diagnostics point into.
    pub sources: Arc<Sources>,
}

/// Turns events into the bytes that stay on the screen.
pub struct Story {
    options: StoryOptions,
    tasks: usize,
    failures: Vec<TaskFinished>,
    skipped: BTreeMap<String, usize>,
    wholes: BTreeMap<String, Whole>,
    notes: Vec<Diagnostic>,
}

impl Story {
    /// A story without events yet.
    pub fn new(options: StoryOptions) -> Self {
        Self {
            options,
            tasks: 0,
            failures: Vec::new(),
            skipped: BTreeMap::new(),
            wholes: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// The bytes this event adds; whole lines, often none.
    pub fn tell(&mut self, event: &Event) -> Vec<u8> {
        match event {
            Event::RunStarted { tasks, .. } => {
                *self = Self { tasks: *tasks, ..Self::new(self.options.clone()) };
                Vec::new()
            }
            Event::TaskStarted { .. } => Vec::new(),
            Event::TaskFinished(finished) => self.finished(finished),
            Event::Notice(diagnostic) => self.rendered(diagnostic).into_bytes(),
            Event::Service(event) => self.service(event),
            Event::RunFinished { ok, counts, duration, saved, critical_path, interrupted } => {
                let end = End {
                    ok: *ok,
                    counts,
                    duration: *duration,
                    saved: *saved,
                    critical_path,
                    interrupted: *interrupted,
                };
                self.end(&end)
            }
        }
    }

    fn service(&self, event: &ServiceEvent) -> Vec<u8> {
        let told = match event {
            ServiceEvent::Output { .. } => true,
            ServiceEvent::Ready { .. } | ServiceEvent::Stopped { asked: false, .. } => {
                self.options.verbosity > Verbosity::Quiet
            }
            ServiceEvent::Started { .. } | ServiceEvent::Stopped { asked: true, .. } => {
                self.options.verbosity == Verbosity::Verbose
            }
        };
        if told { format!("{}\n", service_line(event, self.options.color)).into_bytes() } else { Vec::new() }
    }

    fn finished(&mut self, finished: &TaskFinished) -> Vec<u8> {
        self.notes.extend(finished.notes.iter().cloned());
        let mut bytes = Vec::new();
        if self.has_line(finished) {
            bytes.extend(finished_line(finished, self.options.why, self.options.color).into_bytes());
            bytes.push(b'\n');
        } else if finished.outcome == Outcome::Skipped {
            *self.skipped.entry(finished.because_of.clone().unwrap_or_default()).or_default() += 1;
        }
        let shows_log = match finished.outcome {
            Outcome::Hit => self.options.output >= OutputShown::All,
            Outcome::Ran => self.options.output >= OutputShown::Ran,
            Outcome::Failed | Outcome::Skipped | Outcome::Cancelled => false,
        };
        if shows_log && !finished.log.is_empty() {
            if !self.has_line(finished) {
                bytes.extend(finished_line(finished, WhyShown::First, self.options.color).into_bytes());
                bytes.push(b'\n');
            }
            bytes.extend(self.log(&finished.log));
        }
        if finished.outcome == Outcome::Failed {
            self.failures.push(finished.clone());
        }
        bytes.extend(self.part(finished).into_bytes());
        bytes
    }

    /// The line of a split task after its last part, if parts of it ran that had no line.
    fn part(&mut self, finished: &TaskFinished) -> String {
        let Some(part_of) = &finished.part_of else { return String::new() };
        let has_line = self.has_line(finished);
        let whole = self.wholes.entry(part_of.label.clone()).or_default();
        whole.parts += 1;
        if finished.outcome == Outcome::Ran && !has_line {
            whole.ran += 1;
            whole.duration += finished.duration;
            whole.why.get_or_insert_with(|| finished.why.clone());
        }
        if part_of.to_come > 0 || whole.ran == 0 || self.options.verbosity == Verbosity::Quiet {
            return String::new();
        }
        let color = self.options.color;
        let time = human_duration(whole.duration);
        let why =
            whole.why.as_deref().and_then(why_sentence).map(|why| format!("  {}", paint(color, Ink::Faint, &why)));
        let counts = format!("{} of {} parts", whole.ran, whole.parts);
        let word = outcome_word(Outcome::Ran, color);
        format!("{word}  {}  {counts}  {time} together{}\n", part_of.label, why.unwrap_or_default())
    }

    fn has_line(&self, finished: &TaskFinished) -> bool {
        match self.options.verbosity {
            Verbosity::Quiet => false,
            Verbosity::Verbose => true,
            Verbosity::Normal => {
                let is_part = finished.part_of.is_some();
                self.tasks <= FEW_TASKS
                    || finished.flaky
                    || finished.outcome == Outcome::Failed
                    || (finished.outcome == Outcome::Ran && !is_part)
            }
        }
    }

    fn end(&mut self, end: &End<'_>) -> Vec<u8> {
        let color = self.options.color;
        let quiet = self.options.verbosity == Verbosity::Quiet;
        let mut bytes = Vec::new();
        for (label, count) in std::mem::take(&mut self.skipped) {
            if !quiet {
                let tasks = if count == 1 { "task" } else { "tasks" };
                let word = paint(color, Ink::of(Outcome::Skipped), Outcome::Skipped.word());
                bytes.extend(format!("  {word}  {count} {tasks} because {label} failed\n").into_bytes());
            }
        }
        // One undeclared file may concern a hundred tasks in the same words.
        for note in merge_alike(std::mem::take(&mut self.notes)) {
            bytes.push(b'\n');
            bytes.extend(self.rendered(&note).into_bytes());
        }
        let failures = std::mem::take(&mut self.failures);
        for failure in &failures {
            bytes.push(b'\n');
            bytes.extend(self.failure(failure));
        }
        if quiet && end.ok {
            return bytes;
        }
        if !bytes.is_empty() {
            bytes.push(b'\n');
        }
        if end.counts.ran + end.counts.failed > 0 && !quiet {
            bytes.extend(
                critical_path(end.critical_path, color).map(|line| line + "\n").unwrap_or_default().into_bytes(),
            );
        }
        bytes.extend(summary(end.counts, end.duration, end.saved, end.interrupted, color).into_bytes());
        bytes.push(b'\n');
        if failures.len() > 1 {
            let command = repeat_command(repeated(&failures).iter().map(String::as_str));
            bytes.extend(format!("repeat what failed: {command}\n").into_bytes());
        }
        bytes
    }

    /// One failure whole: why it ran, all it printed, what is wrong, and the command that repeats it.
    fn failure(&self, finished: &TaskFinished) -> Vec<u8> {
        let color = self.options.color;
        let mut bytes = format!("{} {}\n", paint(color, Ink::Bad, "failed:"), finished.label).into_bytes();
        bytes.extend(self.why_lines(&finished.why).into_bytes());
        if self.options.output >= OutputShown::Failed {
            bytes.extend(self.log(&finished.log));
        }
        if let Some(failure) = &finished.failure {
            let attempts =
                if finished.attempts > 1 { format!(", attempt {}", finished.attempts) } else { String::new() };
            let time = human_duration(finished.duration);
            let cause = paint(color, Ink::Bad, &failure.cause);
            bytes.extend(format!("  cause: {cause} (after {time}{attempts})\n").into_bytes());
            for diagnostic in &failure.diagnostics {
                let text = self.rendered(diagnostic);
                // Of what only repeats the cause, the way out is news.
                let repeats = diagnostic.marks.is_empty() && diagnostic.message == failure.cause;
                let news = if repeats { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text };
                bytes.extend(news.as_bytes());
            }
        }
        let command = repeat_command([finished.label.as_str()]);
        bytes.extend(format!("  repeat: {}\n", paint(color, Ink::Strong, &command)).into_bytes());
        bytes
    }

    fn why_lines(&self, why: &[MissReason]) -> String {
        match self.options.why {
            WhyShown::First => why_sentence(why).map(|why| format!("  why it ran: {why}\n")).unwrap_or_default(),
            WhyShown::All => why.iter().map(|reason| format!("  why it ran: {}\n", reason.sentence())).collect(),
        }
    }

    /// The captured bytes as they came, ended so that what follows starts on a line and in a colour of its own.
    fn log(&self, log: &Log) -> Vec<u8> {
        let mut bytes: Vec<u8> = log.iter().flat_map(|(_, piece)| piece.iter().copied()).collect();
        if bytes.last().is_some_and(|last| *last != b'\n') {
            bytes.push(b'\n');
        }
        if self.options.color == Color::Colored && bytes.contains(&0x1b) {
            bytes.extend(RESET.as_bytes());
        }
        bytes
    }

    fn rendered(&self, diagnostic: &Diagnostic) -> String {
        render(diagnostic, &self.options.sources, self.options.color, self.options.width)
    }
}

/// What became of a split task so far.
#[derive(Default)]
struct Whole {
    parts: usize,
    ran: usize,
    duration: Duration,
    why: Option<Vec<MissReason>>,
}

/// Labels that select what failed; where more than [`FEW_TASKS`] parts of one task did, all of it.
fn repeated(failures: &[TaskFinished]) -> BTreeSet<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let whole = |failure: &'_ TaskFinished| failure.part_of.as_ref().map(|whole| whole.label.clone());
    for part_of in failures.iter().filter_map(|failure| failure.part_of.as_ref()) {
        *counts.entry(&part_of.label).or_default() += 1;
    }
    let is_many = |label: &String| counts.get(label.as_str()).is_some_and(|count| *count > FEW_TASKS);
    failures.iter().map(|failure| whole(failure).filter(is_many).unwrap_or_else(|| failure.label.clone())).collect()
}

/// How the run ended.
struct End<'e> {
    ok: bool,
    counts: &'e Counts,
    duration: Duration,
    saved: Duration,
    critical_path: &'e [(String, Duration)],
    interrupted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::PartOf;
    use crate::report::sample;

    fn told(events: &[Event], change: impl FnOnce(&mut StoryOptions)) -> String {
        let mut options = sample::options();
        change(&mut options);
        let mut story = Story::new(options);
        let bytes: Vec<u8> = events.iter().flat_map(|event| story.tell(event)).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_small_run_shows_every_task_and_ends_with_the_failure() {
        insta::assert_snapshot!(told(&sample::whole_run().1, |_| ()), @r#"
        warning: the store was damaged and has been set aside
              hit  //libs/core:build  3 ms
              ran  //libs/ui:build  1.2 s  src/button.ts changed, +1 more
           failed  //apps/web:test  400 ms  exit code 2
          skipped  //apps/web:image  because //apps/web:test failed
          skipped  //apps/web:deploy  because //apps/web:test failed

        warning: `//libs/ui:build` wrote `cache.tmp`, which is not an output
          help: declare it as `scratch`

        failed: //apps/web:test
          why it ran: src/button.ts changed, +1 more
        button.test.ts: assertion failed
          left: 1
         right: 2
          cause: exit code 2 (after 400 ms)
        warning: declared output `junit.xml` was not made
         --> apps/web/drystone.toml:3:12
          |
        3 | outputs = ["junit.xml"]
          |            ^^^^^^^^^^^ declared here
          help: write the report even when a test fails
          repeat: drystone run //apps/web:test

        critical path 1.6 s: //libs/ui:build 1.2 s, //apps/web:test 400 ms
        1 hit, 1 ran, 1 failed, 2 skipped in 3.2 s (saved 1.0 s)
        "#);
    }

    #[test]
    fn a_large_run_counts_hits_and_sums_up_what_was_skipped() {
        let mut events = sample::whole_run().1;
        let Event::RunStarted { tasks, .. } = &mut events[0] else { panic!("a run starts with its start") };
        *tasks = FEW_TASKS + 1;
        let text = told(&events, |_| ());
        assert!(!text.contains("hit  //libs/core:build"), "{text}");
        assert!(text.contains("  skipped  2 tasks because //apps/web:test failed\n"), "{text}");
        assert!(text.contains("      ran  //libs/ui:build"), "{text}");
    }

    #[test]
    fn quiet_tells_only_what_went_wrong() {
        let text = told(&sample::whole_run().1, |options| options.verbosity = Verbosity::Quiet);
        assert!(!text.contains("ran  //libs/ui:build"), "{text}");
        assert!(text.contains("failed: //apps/web:test"), "{text}");
        let fine = told(&sample::all_hits(3), |options| options.verbosity = Verbosity::Quiet);
        assert_eq!(fine, "");
    }

    #[test]
    fn output_is_shown_of_whom_it_is_asked_for() {
        let check = |output: OutputShown, expect: [bool; 3]| {
            let text = told(&sample::whole_run().1, |options| options.output = output);
            let shown = ["replayed\n", "bundled\n", "assertion failed\n"].map(|words| text.contains(words));
            assert_eq!(shown, expect, "{output:?}:\n{text}");
        };
        check(OutputShown::None, [false, false, false]);
        check(OutputShown::Failed, [false, false, true]);
        check(OutputShown::Ran, [false, true, true]);
        check(OutputShown::All, [true, true, true]);
    }

    #[test]
    fn a_note_is_shown_once_however_many_tasks_have_it() {
        let mut events = sample::all_hits(5);
        for event in &mut events {
            if let Event::TaskFinished(finished) = event {
                finished.notes.push(Diagnostic::warning("the tool `cc` is not declared"));
            }
        }
        assert_eq!(told(&events, |_| ()).matches("the tool `cc`").count(), 1);
    }

    #[test]
    fn a_run_of_hits_is_one_line() {
        assert_eq!(told(&sample::all_hits(60), |_| ()), "60 hit in 12 ms (saved 1 m 00 s)\n");
    }

    #[test]
    fn parts_that_ran_are_one_line_and_failed_ones_are_told_each() {
        let part = |at: usize, outcome: Outcome| {
            let part_of = PartOf { label: "//a:test".into(), to_come: 14 - at };
            let finished = sample::finished(&format!("//a:test[part={}/15]", at + 1), outcome);
            Event::TaskFinished(Box::new(TaskFinished { part_of: Some(part_of), ..finished }))
        };
        let mut events = sample::all_hits(15);
        for (at, event) in events[1..16].iter_mut().enumerate() {
            *event = part(at, if at < 4 { Outcome::Ran } else { Outcome::Hit });
        }
        let together = "      ran  //a:test  4 of 15 parts  4.8 s together  src/button.ts changed, +1 more\n";
        assert!(told(&events, |_| ()).starts_with(together), "{}", told(&events, |_| ()));
        for (at, event) in events[1..16].iter_mut().enumerate() {
            *event = part(at, if at < 12 { Outcome::Failed } else { Outcome::Hit });
        }
        let text = told(&events, |_| ());
        assert_eq!(text.matches("   failed  //a:test[part=").count(), 12, "{text}");
        assert!(text.ends_with("repeat what failed: drystone run //a:test\n"), "{text}");
    }

    #[test]
    fn an_interrupted_run_says_so() {
        let mut events = sample::all_hits(60);
        let Some(Event::RunFinished { interrupted, .. }) = events.last_mut() else { panic!("a run ends with its end") };
        *interrupted = true;
        assert!(told(&events, |_| ()).starts_with("interrupted: 60 hit"));
    }

    #[test]
    fn all_reasons_are_told_when_asked_for() {
        let text = told(&sample::whole_run().1, |options| options.why = WhyShown::All);
        assert!(text.contains("           - env NODE_ENV \"test\" → \"production\"\n"), "{text}");
    }

    #[test]
    fn foreign_colours_end_where_the_log_ends() {
        let mut options = sample::options();
        options.color = Color::Colored;
        let story = Story::new(options);
        let log = vec![(crate::sandbox::spec::Stream::Stdout, b"\x1b[31mred".to_vec())];
        assert_eq!(story.log(&log), b"\x1b[31mred\n\x1b[0m");
    }
}
