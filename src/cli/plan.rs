//! `drystone plan`: what would run and why, as text and as JSON.

use clap::Args;
use serde::Serialize;

use crate::base::ids::TaskId;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening;
use crate::cli::reach::Share;
use crate::cli::shard;
use crate::cli::table::json;
use crate::engine::event::MissReason;
use crate::engine::plan as engine_plan;
use crate::engine::preview;
use crate::engine::session::{Options, Session};
use crate::report::ink::{Color, Ink, paint};
use crate::report::lines::{WhyShown, why_sentence};
use crate::report::story::{FEW_TASKS, Verbosity};

/// Options of `plan`.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// Which tasks, as for `run`. With none, every task here.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Only tasks that the changes since REV can reach; without REV, since the branch left the default branch.
    #[arg(long, value_name = "REV", num_args = 0..=1, require_equals = true)]
    pub affected: Option<Option<String>>,
    /// Tells every reason, not only the first.
    #[arg(long)]
    pub explain: bool,
    /// How the plan is written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// What would become of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Forecast {
    /// Its result is known.
    Hit,
    /// It would run.
    Run,
    /// It depends on what those it needs make: it runs if that differs.
    Perhaps,
    /// It is a service: it runs while tasks need it.
    Service,
}

impl Forecast {
    const fn word(self) -> &'static str {
        match self {
            Forecast::Hit => "hit",
            Forecast::Run => "run",
            Forecast::Perhaps => "perhaps",
            Forecast::Service => "service",
        }
    }

    const fn ink(self) -> Ink {
        match self {
            Forecast::Hit | Forecast::Service => Ink::Calm,
            Forecast::Run => Ink::Good,
            Forecast::Perhaps => Ink::Care,
        }
    }
}

/// One task of the plan.
#[derive(Clone, Debug)]
pub struct PlanRow {
    /// Its label.
    pub task: String,
    /// For a part of a split task, the label of the whole.
    pub part_of: Option<String>,
    /// What would become of it.
    pub forecast: Forecast,
    /// Why; empty for hits.
    pub why: Vec<MissReason>,
}

/// The plan for people: hits are only counted unless `hits` asks for them.
pub fn plan_text(rows: &[PlanRow], why: WhyShown, hits: HitsShown, color: Color) -> String {
    let mut text = String::new();
    let alike = |row: &PlanRow| rows.iter().filter(|other| is_alike(row, other)).count();
    let mut told: Vec<&PlanRow> = Vec::new();
    for row in rows.iter().filter(|row| row.forecast != Forecast::Hit || hits == HitsShown::Each) {
        let mut task = row.task.clone();
        if let (Some(whole), HitsShown::Count) = (&row.part_of, hits) {
            if told.iter().any(|earlier| is_alike(earlier, row)) {
                continue;
            }
            told.push(row);
            match alike(row) {
                1 => {}
                count => task = format!("{whole}  {count} parts"),
            }
        }
        let word = format!("{:>7}", row.forecast.word());
        let mut line = format!("{}  {task}", paint(color, row.forecast.ink(), &word));
        match why {
            WhyShown::First => {
                let sentence = why_sentence(&row.why).map(|why| format!("  {}", paint(color, Ink::Faint, &why)));
                line.push_str(&sentence.unwrap_or_default());
            }
            WhyShown::All => {
                line.extend(row.why.iter().map(|reason| format!("\n         - {}", reason.sentence())));
            }
        }
        text.push_str(&line);
        text.push('\n');
    }
    let count = |forecast: Forecast| rows.iter().filter(|row| row.forecast == forecast).count();
    let counts = [Forecast::Hit, Forecast::Run, Forecast::Perhaps]
        .map(|forecast| (count(forecast), forecast.word()))
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect::<Vec<_>>();
    text.push_str(&if counts.is_empty() { "no tasks".to_owned() } else { counts.join(", ") });
    text.push('\n');
    text
}

/// Whether two tasks are parts of one and would become the same: then one line is enough where there are many.
fn is_alike(one: &PlanRow, other: &PlanRow) -> bool {
    one.part_of.is_some() && one.part_of == other.part_of && one.forecast == other.forecast
}

/// Whether hits have a line each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HitsShown {
    /// Only their number.
    Count,
    /// A line each.
    Each,
}

/// The plan for programs: a list of `{task, forecast, why}`.
pub fn plan_json(rows: &[PlanRow]) -> String {
    json(
        &rows
            .iter()
            .map(|row| Wire { task: &row.task, forecast: row.forecast, why: whys(&row.why) })
            .collect::<Vec<_>>(),
    )
}

#[derive(Serialize)]
struct Wire<'r> {
    task: &'r str,
    forecast: Forecast,
    why: Vec<WireWhy<'r>>,
}

/// A reason as `task.finished` has it.
#[derive(Serialize)]
pub(crate) struct WireWhy<'r> {
    field: &'r str,
    name: &'r str,
    change: &'r str,
}

pub(crate) fn whys(why: &[MissReason]) -> Vec<WireWhy<'_>> {
    why.iter().map(|reason| WireWhy { field: reason.field, name: &reason.name, change: &reason.change }).collect()
}

/// Shows the plan.
pub fn run(args: PlanArgs, context: &Context) -> Result<ExitKind, CliError> {
    let why = if args.explain { WhyShown::All } else { WhyShown::First };
    let share = Share { affected: args.affected.as_ref(), shard: None };
    let wanted = Wanted { targets: &args.targets, share, why, format: args.format };
    show(&wanted, opening::looking(), context)
}

/// Which plan, and how it is written.
pub struct Wanted<'a> {
    /// Words of the command line.
    pub targets: &'a [String],
    /// What of them.
    pub share: Share<'a>,
    /// How much of the reasons.
    pub why: WhyShown,
    /// How it is written.
    pub format: Format,
}

/// Writes what a run with these options would do.
pub fn show(wanted: &Wanted<'_>, options: Options, context: &Context) -> Result<ExitKind, CliError> {
    let opened = opening::open_with(context, shard::choices(wanted.share.shard))?;
    let store = opening::open_store(context, opened.workspace.config.store_bytes_max)?;
    let session = opened.session(context, store, options, opening::never_cancelled()?)?;
    let mut selected = opened.select(wanted.targets)?;
    if wanted.share.shard.is_some() {
        // Services are nobody's share: they run where tasks need them.
        selected.retain(|task| !opened.workspace.tasks[*task].kind.is_service());
    }
    if let Some(share) = wanted.share.keep(&mut selected, &opened, &session)? {
        opening::tell(context, &opened.workspace.sources, &[share]);
    }
    let plan = engine_plan::plan(&session, &selected).map_err(|error| opened.plan_error(error))?;
    let forecasts = preview::preview(&session, &plan).map_err(|error| opened.preview_error(error))?;
    session.save_indexes();
    let forecasts = plan.tasks.iter().zip(forecasts);
    let tasks = forecasts.filter(|(_, forecast)| !matches!(forecast, preview::Forecast::Service { .. }));
    let rows: Vec<PlanRow> = tasks.map(|(task, forecast)| row(&session, *task, forecast)).collect();
    let text = match wanted.format {
        Format::Json => plan_json(&rows),
        Format::Human => {
            let few = rows.len() <= FEW_TASKS || context.verbosity == Verbosity::Verbose;
            let hits = if few { HitsShown::Each } else { HitsShown::Count };
            plan_text(&rows, wanted.why, hits, context.stdout.color)
        }
    };
    context.out.write(text.as_bytes());
    Ok(ExitKind::Done)
}

pub(super) fn row(session: &Session<'_>, task: TaskId, forecast: preview::Forecast) -> PlanRow {
    let part_of = session.workspace.split_of(task).map(|split| split.label.to_string());
    let task = session.label(task);
    let (forecast, why) = match forecast {
        preview::Forecast::Hit { .. } => (Forecast::Hit, Vec::new()),
        preview::Forecast::Run { why, .. } => (Forecast::Run, why),
        preview::Forecast::Service { .. } => (Forecast::Service, Vec::new()),
        preview::Forecast::Depends { on } => {
            let why = on.into_iter().map(|name| MissReason { field: "needs", name, change: "may change".into() });
            (Forecast::Perhaps, why.collect())
        }
    };
    PlanRow { task, part_of, forecast, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<PlanRow> {
        let reason = |name: &str| MissReason { field: "input", name: name.into(), change: "changed".into() };
        vec![
            PlanRow { task: "//a:x".into(), part_of: None, forecast: Forecast::Hit, why: Vec::new() },
            PlanRow {
                task: "//b:x".into(),
                part_of: None,
                forecast: Forecast::Run,
                why: vec![reason("m.c"), reason("n.c")],
            },
            PlanRow { task: "//c:x".into(), part_of: None, forecast: Forecast::Perhaps, why: Vec::new() },
        ]
    }

    #[test]
    fn a_plan_names_what_would_run_and_counts_the_rest() {
        let check = |why: WhyShown, hits: HitsShown, expect: &str| {
            assert_eq!(plan_text(&rows(), why, hits, Color::Plain), expect);
        };
        check(
            WhyShown::First,
            HitsShown::Count,
            "    run  //b:x  m.c changed, +1 more\nperhaps  //c:x\n1 hit, 1 run, 1 perhaps\n",
        );
        check(
            WhyShown::All,
            HitsShown::Each,
            "    hit  //a:x\n    run  //b:x\n         - m.c changed\n         - n.c changed\nperhaps  //c:x\n\
             1 hit, 1 run, 1 perhaps\n",
        );
        assert_eq!(plan_text(&[], WhyShown::First, HitsShown::Count, Color::Plain), "no tasks\n");
    }

    #[test]
    fn a_plan_is_a_json_list() {
        let value: serde_json::Value = serde_json::from_str(&plan_json(&rows())).unwrap();
        assert_eq!(value[1]["forecast"], "run");
        assert_eq!(value[1]["why"][0], serde_json::json!({"field": "input", "name": "m.c", "change": "changed"}));
    }
}
