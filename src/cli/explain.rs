//! `drystone explain`: all that is known about why one task ran last, or would run now.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::base::time::human_duration;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::plan::{Forecast, WireWhy, whys};
use crate::cli::table::json;
use crate::engine::event::MissReason;
use crate::report::ink::{Color, Ink, paint};
use crate::report::wire::milliseconds;

/// Options of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Which task.
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// How the explanation is written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// What is known about one task.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Its label.
    pub task: String,
    /// What would become of it now.
    pub forecast: Forecast,
    /// Why it would run now; for a hit, why it ran when the result was made, where that is known.
    pub why: Vec<MissReason>,
    /// Action digest now, 64 hexadecimal digits; `None` while what it needs is not made.
    pub action: Option<String>,
    /// The last time it ran, where that is known.
    pub last: Option<LastRun>,
}

/// The last time a task ran.
#[derive(Clone, Debug)]
pub struct LastRun {
    /// How long ago.
    pub ago: Duration,
    /// How long it took.
    pub duration: Duration,
    /// Its outcome as a word.
    pub outcome: String,
}

/// The explanation for people.
pub fn explain_text(explanation: &Explanation, color: Color) -> String {
    let Explanation { task, forecast, why, action, last } = explanation;
    let (verdict, because) = match forecast {
        Forecast::Hit => ("would be a hit", "why it ran then"),
        Forecast::Run => ("would run", "why"),
        Forecast::Perhaps => ("runs if what it needs comes out differently", "why"),
    };
    let mut text = format!("{} {verdict}\n", paint(color, Ink::Strong, task));
    if !why.is_empty() {
        text.push_str(&format!("{because}:\n"));
        text.extend(why.iter().map(|reason| format!("  {}\n", reason.sentence())));
    }
    if let Some(LastRun { ago, duration, outcome }) = last {
        text.push_str(&format!("last: {outcome} {} ago, took {}\n", human_duration(*ago), human_duration(*duration)));
    }
    if let Some(action) = action {
        text.push_str(&format!("action: {action}\n"));
    }
    text
}

/// The explanation for programs.
pub fn explain_json(explanation: &Explanation) -> String {
    let last = explanation.last.as_ref().map(|last| WireLast {
        outcome: &last.outcome,
        ago_ms: milliseconds(last.ago),
        duration_ms: milliseconds(last.duration),
    });
    let Explanation { task, forecast, why, action, .. } = explanation;
    json(&Wire { task, forecast: *forecast, why: whys(why), action: action.as_deref(), last })
}

#[derive(Serialize)]
struct Wire<'e> {
    task: &'e str,
    forecast: Forecast,
    why: Vec<WireWhy<'e>>,
    action: Option<&'e str>,
    last: Option<WireLast<'e>>,
}

#[derive(Serialize)]
struct WireLast<'e> {
    outcome: &'e str,
    ago_ms: u64,
    duration_ms: u64,
}

/// Explains a task.
pub fn run(_args: ExplainArgs, _context: &Context) -> Result<ExitKind, CliError> {
    Err(CliError::bug("`explain` is not wired"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_names_every_difference_and_the_last_run() {
        let explanation = Explanation {
            task: "//a:x".into(),
            forecast: Forecast::Run,
            why: vec![
                MissReason { field: "input", name: "m.c".into(), change: "changed".into() },
                MissReason { field: "tool", name: "cc".into(), change: "changed".into() },
            ],
            action: Some("00ff".into()),
            last: Some(LastRun {
                ago: Duration::from_secs(120),
                duration: Duration::from_millis(1500),
                outcome: "ran".into(),
            }),
        };
        assert_eq!(
            explain_text(&explanation, Color::Plain),
            "//a:x would run\nwhy:\n  m.c changed\n  tool cc changed\nlast: ran 2 m 00 s ago, took 1.5 s\naction: 00ff\n"
        );
        let value: serde_json::Value = serde_json::from_str(&explain_json(&explanation)).unwrap();
        assert_eq!(value["last"], serde_json::json!({"outcome": "ran", "ago_ms": 120_000, "duration_ms": 1500}));
        assert_eq!(value["why"][1]["field"], "tool");
    }
}
