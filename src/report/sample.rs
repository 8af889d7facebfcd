//! Runs for the tests of the reports: made by hand, the same each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::span::{Place, Sources};
use crate::engine::event::{Counts, Event, Failure, MissReason, Outcome, ResultSource, TaskFinished};
use crate::report::clock::Clock;
use crate::report::ink::Color;
use crate::report::lines::WhyShown;
use crate::report::story::{OutputShown, StoryOptions, Verbosity};
use crate::sandbox::spec::{Exit, Level, Stream};

/// Plain text at the defaults of the command line, pointing into the sources of [`whole_run`].
pub(crate) fn options() -> StoryOptions {
    StoryOptions {
        color: Color::Plain,
        width: 100,
        verbosity: Verbosity::Normal,
        why: WhyShown::First,
        output: OutputShown::Failed,
        sources: whole_run().0,
    }
}

/// A clock that goes one step further each time it is looked at.
pub(crate) fn clock_of_steps(step: Duration) -> Clock {
    let looks = AtomicU32::new(0);
    Box::new(move || step * looks.fetch_add(1, Ordering::Relaxed))
}

fn why() -> Vec<MissReason> {
    vec![
        MissReason { field: "input", name: "src/button.ts".into(), change: "changed".into() },
        MissReason { field: "env", name: "NODE_ENV".into(), change: "\"test\" → \"production\"".into() },
    ]
}

/// A finished task as each outcome has it.
pub(crate) fn finished(label: &str, outcome: Outcome) -> TaskFinished {
    let ms = match outcome {
        Outcome::Hit => 3,
        Outcome::Ran => 1200,
        Outcome::Failed => 400,
        Outcome::Skipped | Outcome::Cancelled => 0,
    };
    let passed = matches!(outcome, Outcome::Hit | Outcome::Ran);
    let executed = matches!(outcome, Outcome::Ran | Outcome::Failed);
    let log: &[u8] = match outcome {
        Outcome::Hit => b"replayed\n",
        Outcome::Ran => b"bundled\n",
        Outcome::Failed => b"button.test.ts: assertion failed\n  left: 1\n right: 2",
        Outcome::Skipped | Outcome::Cancelled => b"",
    };
    TaskFinished {
        task: TaskId(0),
        label: label.into(),
        part_of: None,
        outcome,
        source: (outcome == Outcome::Hit).then_some(ResultSource::Local),
        action: (passed || executed).then(|| Digest::of(label.as_bytes())),
        outputs: passed.then(|| Digest::of(b"outputs")),
        isolation: (passed || executed).then_some(Level::Namespaces),
        duration: Duration::from_millis(ms),
        saved: Duration::from_secs(if outcome == Outcome::Hit { 1 } else { 0 }),
        why: if executed { why() } else { Vec::new() },
        log: if log.is_empty() { Vec::new() } else { vec![(Stream::Stdout, log.to_vec())] },
        failure: (outcome == Outcome::Failed).then(|| Failure {
            cause: "exit code 2".into(),
            exit: Some(Exit::Code(2)),
            diagnostics: Vec::new(),
        }),
        because_of: (outcome == Outcome::Skipped).then(|| "//apps/web:test".into()),
        attempts: u32::from(executed),
        flaky: false,
        notes: Vec::new(),
        materialized: outcome == Outcome::Ran,
    }
}

/// Five tasks: a hit, one that ran, one that failed with a place to look at, two skipped for it; and a notice.
pub(crate) fn whole_run() -> (Arc<Sources>, Vec<Event>) {
    let mut sources = Sources::default();
    let id = sources.add("apps/web/drystone.toml", "[task.test]\nrun = \"vitest\"\noutputs = [\"junit.xml\"]\n");
    let end =
        |index: u32, label: &str, outcome: Outcome| TaskFinished { task: TaskId(index), ..finished(label, outcome) };
    let start = |index: u32, label: &str, slot: usize| Event::TaskStarted {
        task: TaskId(index),
        label: label.into(),
        why: why(),
        expected: (slot == 0).then_some(Duration::from_millis(1100)),
        slot,
    };
    let mut failed = end(2, "//apps/web:test", Outcome::Failed);
    if let Some(failure) = &mut failed.failure {
        let diagnostic = Diagnostic::warning("declared output `junit.xml` was not made")
            .at(&Place::new(id, 38..49), "declared here")
            .help("write the report even when a test fails");
        failure.diagnostics.push(diagnostic);
    }
    let mut ran = end(1, "//libs/ui:build", Outcome::Ran);
    ran.notes.push(
        Diagnostic::warning("`//libs/ui:build` wrote `cache.tmp`, which is not an output")
            .help("declare it as `scratch`"),
    );
    let finished = |it: TaskFinished| Event::TaskFinished(Box::new(it));
    let events = vec![
        Event::RunStarted { run: "run-1".into(), tasks: 5, jobs: 2 },
        Event::Notice(Diagnostic::warning("the store was damaged and has been set aside")),
        finished(end(0, "//libs/core:build", Outcome::Hit)),
        start(1, "//libs/ui:build", 0),
        start(2, "//apps/web:test", 1),
        finished(ran),
        finished(failed),
        finished(end(3, "//apps/web:image", Outcome::Skipped)),
        finished(end(4, "//apps/web:deploy", Outcome::Skipped)),
        Event::RunFinished {
            ok: false,
            counts: Counts { hit: 1, ran: 1, failed: 1, skipped: 2, cancelled: 0 },
            duration: Duration::from_millis(3200),
            saved: Duration::from_secs(1),
            critical_path: vec![
                ("//libs/ui:build".into(), Duration::from_millis(1200)),
                ("//apps/web:test".into(), Duration::from_millis(400)),
            ],
            interrupted: false,
        },
    ];
    (Arc::new(sources), events)
}

/// A run in which nothing had to be done.
pub(crate) fn all_hits(count: usize) -> Vec<Event> {
    let mut events = vec![Event::RunStarted { run: "run-2".into(), tasks: count, jobs: 2 }];
    events.extend((0..count).map(|index| {
        let index = u32::try_from(index).unwrap();
        let hit = TaskFinished { task: TaskId(index), ..finished(&format!("//p{index}:build"), Outcome::Hit) };
        Event::TaskFinished(Box::new(hit))
    }));
    events.push(Event::RunFinished {
        ok: true,
        counts: Counts { hit: count, ..Counts::default() },
        duration: Duration::from_millis(12),
        saved: Duration::from_secs(count as u64),
        critical_path: Vec::new(),
        interrupted: false,
    });
    events
}
