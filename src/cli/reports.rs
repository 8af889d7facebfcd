//! Which reports a run is given: puts the sinks together and writes their files at the end. Says nothing itself.

use std::path::PathBuf;
use std::sync::Arc;

use indicatif::ProgressDrawTarget;

use crate::base::span::Sources;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::fs::ops;
use crate::report::chrome::ChromeTrace;
use crate::report::clock::from_now;
use crate::report::console::Console;
use crate::report::fan::Fan;
use crate::report::jsonl::Jsonl;
use crate::report::junit::Junit;
use crate::report::lines::WhyShown;
use crate::report::out::Display;
use crate::report::plain::Plain;
use crate::report::story::{OutputShown, StoryOptions, Verbosity};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct ReportRequest {
    /// What goes to the standard output.
    pub format: Format,
    /// How much of the reasons is told.
    pub why: WhyShown,
    /// Whose output is shown; `None` follows the verbosity.
    pub output: Option<OutputShown>,
    /// Where the trace goes.
    pub profile: Option<PathBuf>,
    /// Where the JUnit file goes.
    pub junit: Option<PathBuf>,
}

/// The sinks of one run.
pub struct Reports {
    human: Human,
    json: Option<Jsonl>,
    trace: Option<(PathBuf, ChromeTrace)>,
    junit: Option<(PathBuf, Junit)>,
}

enum Human {
    Live(Box<Console>),
    Lines(Box<Plain>),
}

impl Reports {
    /// The sinks for a run whose diagnostics point into `sources`. Clocks start now.
    pub fn new(request: &ReportRequest, context: &Context, sources: Arc<Sources>) -> Self {
        let json = (request.format == Format::Json).then(|| Jsonl::new(context.out.clone(), Arc::clone(&sources)));
        let file = |path: &Option<PathBuf>| path.as_ref().map(|path| context.path(path));
        Self {
            human: human(request, context, sources),
            json,
            trace: file(&request.profile).map(|path| (path, ChromeTrace::new(from_now()))),
            junit: file(&request.junit).map(|path| (path, Junit::new())),
        }
    }

    /// All of them as one sink.
    pub fn fan(&mut self) -> Fan<'_> {
        let mut fan = Fan::new();
        match &mut self.human {
            Human::Live(console) => fan.add(console.as_mut()),
            Human::Lines(plain) => fan.add(plain.as_mut()),
        }
        if let Some(json) = &mut self.json {
            fan.add(json);
        }
        if let Some((_, trace)) = &mut self.trace {
            fan.add(trace);
        }
        if let Some((_, junit)) = &mut self.junit {
            fan.add(junit);
        }
        fan
    }

    /// Writes the files that were asked for. All are tried; the first that cannot be written is the error.
    pub fn write_files(self) -> Result<(), CliError> {
        let trace = self.trace.map(|(path, trace)| ops::write(&path, trace.into_json().as_bytes()));
        let junit = self.junit.map(|(path, junit)| ops::write(&path, junit.into_xml().as_bytes()));
        Ok(trace.into_iter().chain(junit).collect::<Result<(), _>>()?)
    }
}

/// With JSON on the standard output, people are told only what went wrong: the events say all the rest.
fn human(request: &ReportRequest, context: &Context, sources: Arc<Sources>) -> Human {
    let verbosity = match request.format {
        Format::Human => context.verbosity,
        Format::Json => Verbosity::Quiet,
    };
    let options = StoryOptions {
        color: context.stderr.color,
        width: context.stderr.width,
        verbosity,
        why: request.why,
        output: request.output.unwrap_or(match verbosity {
            Verbosity::Verbose => OutputShown::Ran,
            Verbosity::Normal | Verbosity::Quiet => OutputShown::Failed,
        }),
        sources,
    };
    match context.stderr.display {
        Display::Live if verbosity > Verbosity::Quiet => {
            let target = ProgressDrawTarget::stderr();
            Human::Live(Box::new(Console::new(context.err.clone(), target, options, from_now())))
        }
        Display::Live | Display::Lines => Human::Lines(Box::new(Plain::new(context.err.clone(), options))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::context::tests::context;
    use crate::engine::event::EventSink;
    use crate::report::sample;

    fn request(format: Format) -> ReportRequest {
        ReportRequest {
            format,
            why: WhyShown::First,
            output: None,
            profile: Some("trace.json".into()),
            junit: Some("junit.xml".into()),
        }
    }

    #[test]
    fn every_report_hears_the_whole_run() {
        let dir = tempfile::tempdir().unwrap();
        let (context, out, err) = context(dir.path());
        let (sources, events) = sample::whole_run();
        let mut reports = Reports::new(&request(Format::Human), &context, sources);
        {
            let mut fan = reports.fan();
            for event in &events {
                fan.event(event);
            }
        }
        reports.write_files().unwrap();
        assert_eq!(out.text(), "");
        assert!(err.text().ends_with("1 hit, 1 ran, 1 failed, 2 skipped in 3.2 s (saved 1.0 s)\n"), "{}", err.text());
        assert!(ops::read_text(&dir.path().join("trace.json")).unwrap().contains("traceEvents"));
        assert!(ops::read_text(&dir.path().join("junit.xml")).unwrap().contains("<testsuites"));
    }

    #[test]
    fn with_json_on_stdout_people_still_learn_what_failed() {
        let dir = tempfile::tempdir().unwrap();
        let (context, out, err) = context(dir.path());
        let (sources, events) = sample::whole_run();
        let mut reports = Reports::new(&request(Format::Json), &context, sources);
        for event in &events {
            reports.fan().event(event);
        }
        assert_eq!(out.text().lines().count(), events.len());
        assert!(err.text().contains("failed: //apps/web:test"), "{}", err.text());
        assert!(!err.text().contains("      ran"), "{}", err.text());
    }
}
