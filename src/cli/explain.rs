//! `drystone explain`: all that is known about why one task ran last, or would run now.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::time::human_duration;
use crate::cli::again::{self, Standing};
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::explain_whole;
use crate::cli::opening::{self, Opened};
use crate::cli::plan::{self, Forecast, WireWhy, whys};
use crate::cli::table::json;
use crate::engine::event::MissReason;
use crate::engine::execute::now_ms;
use crate::engine::explain as why;
use crate::engine::plan::Plan;
use crate::engine::session::Session;
use crate::engine::{plan as engine_plan, preview};
use crate::fingerprint::sink::{Content, Field, RecordSink};
use crate::report::ink::{Color, Ink, paint};
use crate::report::wire::milliseconds;

/// Options of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Which task. Of a split one as a whole: how many parts would run, and why.
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
    /// Every field of its fingerprint now; only in JSON.
    pub fingerprint: Option<serde_json::Value>,
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
    let Explanation { task, forecast, why, action, last, fingerprint: _ } = explanation;
    let (verdict, because) = match forecast {
        Forecast::Hit => ("is up to date", "why it ran then"),
        Forecast::Run => ("would run", "why"),
        Forecast::Perhaps => ("runs if what it needs comes out differently", "why"),
        Forecast::Service => ("is a service: it runs while tasks need it", "why"),
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
    let Explanation { task, forecast, why, action, fingerprint, .. } = explanation;
    json(&Wire {
        task,
        forecast: *forecast,
        why: whys(why),
        action: action.as_deref(),
        last,
        fingerprint: fingerprint.as_ref(),
    })
}

#[derive(Serialize)]
struct Wire<'e> {
    task: &'e str,
    forecast: Forecast,
    why: Vec<WireWhy<'e>>,
    action: Option<&'e str>,
    last: Option<WireLast<'e>>,
    fingerprint: Option<&'e serde_json::Value>,
}

#[derive(Serialize)]
struct WireLast<'e> {
    outcome: &'e str,
    ago_ms: u64,
    duration_ms: u64,
}

/// Explains a task.
pub fn run(args: ExplainArgs, context: &Context) -> Result<ExitKind, CliError> {
    // Of its fingerprint no more is kept than the key.
    if args.format == Format::Human
        && let Some(standing) = again::standing(&args.target, context)?
    {
        return explain_standing(standing, context);
    }
    let opened = opening::open(context)?;
    let tasks = opened.select_whole(&args.target)?;
    let store = opening::open_store(context, opened.workspace.config.store_bytes_max)?;
    let session = opened.session(context, store, opening::looking(), opening::never_cancelled()?)?;
    let plan = engine_plan::plan(&session, &tasks).map_err(|error| opened.plan_error(error))?;
    let [task] = tasks[..] else {
        return explain_parts(&args, context, &opened, &session, &plan, &tasks);
    };
    let last = preview::preview_last(&session, &plan).map_err(|error| opened.preview_error(error))?;
    let (forecast, record) = last.ok_or_else(|| CliError::bug("a plan of one task is empty"))?;
    session.save_indexes();
    let action = match &forecast {
        preview::Forecast::Hit { action }
        | preview::Forecast::Run { action, .. }
        | preview::Forecast::Service { action } => Some(action.to_hex()),
        preview::Forecast::Depends { .. } => None,
    };
    let last = last_run(&session, &forecast)?;
    let mut row = plan::row(&session, task, forecast);
    if row.forecast == Forecast::Hit {
        row.why = why::last(&session, task);
    }
    let explanation = Explanation {
        task: row.task,
        forecast: row.forecast,
        why: row.why,
        action,
        last,
        fingerprint: record.map(|record| fingerprint_json(&record)),
    };
    match args.format {
        Format::Human => context.out.write(explain_text(&explanation, context.stdout.color).as_bytes()),
        Format::Json => context.out.write(explain_json(&explanation).as_bytes()),
    }
    Ok(ExitKind::Done)
}

/// Explains a task of which nothing changed since the last run.
fn explain_standing(standing: Standing, context: &Context) -> Result<ExitKind, CliError> {
    let Standing { opened, task, key, rest } = standing;
    let store = opening::open_store(context, opened.workspace.config.store_bytes_max)?;
    let session = opened.session_for(context, store, opening::looking(), opening::never_cancelled()?, Some(&rest))?;
    let explanation = Explanation {
        task: session.label(task),
        forecast: Forecast::Hit,
        why: why::last(&session, task),
        action: Some(key.to_hex()),
        last: last_run(&session, &preview::Forecast::Hit { action: key })?,
        fingerprint: None,
    };
    context.out.write(explain_text(&explanation, context.stdout.color).as_bytes());
    Ok(ExitKind::Done)
}

/// Explains all parts of a split task together.
fn explain_parts(
    args: &ExplainArgs,
    context: &Context,
    opened: &Opened,
    session: &Session<'_>,
    plan: &Plan,
    parts: &[TaskId],
) -> Result<ExitKind, CliError> {
    let forecasts = preview::preview(session, plan).map_err(|error| opened.preview_error(error))?;
    session.save_indexes();
    let row = |part: &TaskId| plan::row(session, *part, forecasts[plan.positions[part]].clone());
    let rows = parts.iter().map(row).collect();
    let explanation = explain_whole::whole(session.workspace, parts[0], rows);
    let text = match args.format {
        Format::Human => explain_whole::whole_text(&explanation, context.stdout.color),
        Format::Json => explain_whole::whole_json(&explanation),
    };
    context.out.write(text.as_bytes());
    Ok(ExitKind::Done)
}

/// When the result that serves now was made, in any worktree.
fn last_run(session: &Session<'_>, forecast: &preview::Forecast) -> Result<Option<LastRun>, CliError> {
    let preview::Forecast::Hit { action } = forecast else { return Ok(None) };
    Ok(session.store.lookup(action)?.map(|result| LastRun {
        ago: Duration::from_millis(now_ms().saturating_sub(result.created_ms).unsigned_abs()),
        duration: Duration::from_millis(result.duration_ms),
        outcome: "ran".to_owned(),
    }))
}

/// The fields of a fingerprint by name: texts as they are, digests in hexadecimal, absent ones as null.
fn fingerprint_json(record: &RecordSink) -> serde_json::Value {
    let text = |field: Field, bytes: &[u8]| match (field, Digest::from_slice(bytes)) {
        (
            Field::Inputs | Field::Tools | Field::Services | Field::Unstable | Field::Root | Field::Traced,
            Some(digest),
        ) => serde_json::Value::from(digest.to_hex()),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => serde_json::Value::from(text),
            // The expected digest of a fetch: bytes, not text.
            Err(_) => serde_json::Value::from(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        },
    };
    let field = |(field, content): &(Field, Content)| {
        let value = match content {
            Content::Absent => serde_json::Value::Null,
            Content::One(value) => text(*field, value),
            Content::List(values) => values.iter().map(|value| text(*field, value)).collect(),
            Content::Map(pairs) => pairs
                .iter()
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), text(*field, value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        };
        (field.word().to_owned(), value)
    };
    record.fields.iter().map(field).collect::<serde_json::Map<_, _>>().into()
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
            fingerprint: None,
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
