//! `drystone plan`: what would run and why, as text and as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::base::ids::TaskId;
use crate::cli::again;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening::{self, Opened};
use crate::cli::reach::Share;
use crate::cli::shard;
use crate::cli::table::json;
use crate::engine::event::MissReason;
use crate::engine::plan::{self as engine_plan, Plan};
use crate::engine::preview;
use crate::engine::rest::Rest;
use crate::engine::session::{Committed, Options, Reuse, Session};
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
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
    fn of(forecast: &preview::Forecast) -> Self {
        match forecast {
            preview::Forecast::Hit { .. } => Forecast::Hit,
            preview::Forecast::Run { .. } => Forecast::Run,
            preview::Forecast::Service { .. } => Forecast::Service,
            preview::Forecast::Depends { .. } => Forecast::Perhaps,
        }
    }

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

/// The plan for people, line by line: hits are only counted unless `hits` asks for them.
struct PlanLines {
    why: WhyShown,
    hits: HitsShown,
    color: Color,
    /// How many parts of a whole come to the same.
    alike: BTreeMap<(String, Forecast), usize>,
    /// Of which of them there is a line.
    told: BTreeSet<(String, Forecast)>,
    counts: BTreeMap<Forecast, usize>,
}

impl PlanLines {
    /// Lines of a plan in which each part of a split task comes to one of these: its whole, and what would become of it.
    fn new(why: WhyShown, hits: HitsShown, color: Color, parts: impl Iterator<Item = (String, Forecast)>) -> Self {
        let mut alike: BTreeMap<(String, Forecast), usize> = BTreeMap::new();
        parts.for_each(|part| *alike.entry(part).or_default() += 1);
        Self { why, hits, color, alike, told: BTreeSet::new(), counts: BTreeMap::new() }
    }

    /// Appends the line of a task, if it has one.
    fn add(&mut self, row: &PlanRow, text: &mut String) {
        *self.counts.entry(row.forecast).or_default() += 1;
        if row.forecast == Forecast::Hit && self.hits == HitsShown::Count {
            return;
        }
        // Parts that come to the same are one line where there are many.
        let mut parts = None;
        if let (Some(whole), HitsShown::Count) = (&row.part_of, self.hits) {
            let key = (whole.clone(), row.forecast);
            let count = self.alike.get(&key).copied().unwrap_or(1);
            if !self.told.insert(key) {
                return;
            }
            parts = Some(format!("{whole}  {count} parts")).filter(|_| count > 1);
        }
        let word = format!("{:>7}", row.forecast.word());
        text.push_str(&paint(self.color, row.forecast.ink(), &word));
        text.push_str("  ");
        text.push_str(parts.as_ref().unwrap_or(&row.task));
        match self.why {
            WhyShown::First => {
                if let Some(why) = why_sentence(&row.why) {
                    text.push_str("  ");
                    text.push_str(&paint(self.color, Ink::Faint, &why));
                }
            }
            WhyShown::All => text.extend(row.why.iter().map(|reason| format!("\n         - {}", reason.sentence()))),
        }
        text.push('\n');
    }

    /// The last line.
    fn sum(&self) -> String {
        let count = |forecast: Forecast| self.counts.get(&forecast).copied().unwrap_or(0);
        let counts = [Forecast::Hit, Forecast::Run, Forecast::Perhaps]
            .map(|forecast| (count(forecast), forecast.word()))
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect::<Vec<_>>();
        (if counts.is_empty() { "no tasks".to_owned() } else { counts.join(", ") }) + "\n"
    }
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
    let is_plain = wanted.share.affected.is_none()
        && wanted.share.shard.is_none()
        && options.reuse == Reuse::Results
        && options.committed == Committed::Check;
    let asked = again::plan_of(wanted.targets, options.isolation, context).filter(|_| is_plain);
    if let Some(asked) = asked
        && let Some((opened, rest)) = again::rest_of(&asked, context)?
    {
        return show_rest(wanted, options, context, (opened, rest));
    }
    let opened = opening::open_with(context, shard::choices(wanted.share.shard))?;
    let store = opening::open_store(context, opened.workspace.config.store_bytes_max)?;
    let session = opened.session(context, store, options, opening::never_cancelled()?)?;
    let mut selected = opened.select(wanted.targets)?;
    if wanted.share.shard.is_some() {
        // Services are nobody's share: they run where tasks need them.
        selected.retain(|task| !opened.workspace.tasks[*task].kind.is_service());
    }
    if let Some(share) = wanted.share.keep(&mut selected, &opened, &session, context)? {
        opening::tell(context, &opened.workspace.sources, &[share]);
    }
    let plan = engine_plan::plan(&session, &selected).map_err(|error| opened.plan_error(error))?;
    let forecasts = preview::preview(&session, &plan).map_err(|error| opened.preview_error(error))?;
    session.save_indexes();
    let is_service = |forecast: &preview::Forecast| matches!(forecast, preview::Forecast::Service { .. });
    let count = forecasts.iter().filter(|forecast| !is_service(forecast)).count();
    let parts = plan.tasks.iter().zip(&forecasts).filter_map(|(task, forecast)| {
        let split = session.workspace.split_of(*task)?;
        Some((split.label.to_string(), Forecast::of(forecast)))
    });
    let few = count <= FEW_TASKS || context.verbosity == Verbosity::Verbose;
    let hits = if few { HitsShown::Each } else { HitsShown::Count };
    let mut lines = PlanLines::new(wanted.why, hits, context.stdout.color, parts);
    let tasks = plan.tasks.iter().zip(forecasts).filter(|(_, forecast)| !is_service(forecast));
    let rows = tasks.map(|(task, forecast)| row(&session, *task, forecast));
    match wanted.format {
        Format::Json => context.out.write(plan_json(&rows.collect::<Vec<_>>()).as_bytes()),
        Format::Human => {
            let mut text = String::new();
            for row in rows {
                lines.add(&row, &mut text);
                if text.len() >= TEXT_BYTES_AT_ONCE {
                    context.out.write(text.as_bytes());
                    text.clear();
                }
            }
            context.out.write((text + &lines.sum()).as_bytes());
        }
    }
    // The program ends, and what names every task is left to the system.
    session.leave();
    std::mem::forget((plan, opened));
    Ok(ExitKind::Done)
}

/// Bytes of a plan that are written at once.
const TEXT_BYTES_AT_ONCE: usize = 256 * 1024;

/// The same where an earlier run left little to look at.
fn show_rest(
    wanted: &Wanted<'_>,
    options: Options,
    context: &Context,
    (opened, rest): (Opened, Rest),
) -> Result<ExitKind, CliError> {
    let labels: Vec<String> = rest.compared().lines().iter().map(|line| line.label.clone()).collect();
    let mut rows: Vec<PlanRow> = labels
        .into_iter()
        .map(|task| PlanRow { task, part_of: None, forecast: Forecast::Hit, why: Vec::new() })
        .collect();
    if rest.count() > 0 {
        let lines: Vec<usize> = (0..rest.count()).map(|ix| rest.line_at(ix)).collect();
        let store = opening::open_store(context, opened.workspace.config.store_bytes_max)?;
        let session = opened.session_for(context, store, options, opening::never_cancelled()?, Some(&rest))?;
        let plan = Plan::of_rest(rest);
        let forecasts = preview::preview(&session, &plan).map_err(|error| opened.preview_error(error))?;
        for ((task, line), forecast) in plan.tasks.iter().zip(lines).zip(forecasts) {
            rows[line] = row(&session, *task, forecast);
        }
    }
    let text = match wanted.format {
        Format::Json => plan_json(&rows),
        Format::Human => {
            let few = rows.len() <= FEW_TASKS || context.verbosity == Verbosity::Verbose;
            let hits = if few { HitsShown::Each } else { HitsShown::Count };
            let mut lines = PlanLines::new(wanted.why, hits, context.stdout.color, std::iter::empty());
            let mut text = String::new();
            rows.iter().for_each(|row| lines.add(row, &mut text));
            text + &lines.sum()
        }
    };
    context.out.write(text.as_bytes());
    Ok(ExitKind::Done)
}

pub(super) fn row(session: &Session<'_>, task: TaskId, of: preview::Forecast) -> PlanRow {
    let part_of = session.workspace.split_of(task).map(|split| split.label.to_string());
    let task = session.label(task);
    let (forecast, of) = (Forecast::of(&of), of);
    let why = match of {
        preview::Forecast::Hit { .. } | preview::Forecast::Service { .. } => Vec::new(),
        preview::Forecast::Run { why, .. } => why,
        preview::Forecast::Depends { on } => {
            let why =
                |name: &Arc<str>| MissReason { field: "needs", name: name.to_string(), change: "may change".into() };
            on.iter().map(why).collect()
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

    fn plan_text(rows: &[PlanRow], why: WhyShown, hits: HitsShown, color: Color) -> String {
        let parts = rows.iter().filter_map(|row| Some((row.part_of.clone()?, row.forecast)));
        let mut lines = PlanLines::new(why, hits, color, parts);
        let mut text = String::new();
        rows.iter().for_each(|row| lines.add(row, &mut text));
        text + &lines.sum()
    }

    #[test]
    fn parts_that_come_to_the_same_are_one_line_where_there_are_many() {
        let part = |number: u32, forecast: Forecast| PlanRow {
            task: format!("//a:t[part={number}/4]"),
            part_of: Some("//a:t".into()),
            forecast,
            why: Vec::new(),
        };
        let rows = [part(1, Forecast::Run), part(2, Forecast::Hit), part(3, Forecast::Run), part(4, Forecast::Perhaps)];
        let text = plan_text(&rows, WhyShown::First, HitsShown::Count, Color::Plain);
        assert_eq!(text, "    run  //a:t  2 parts\nperhaps  //a:t[part=4/4]\n1 hit, 2 run, 1 perhaps\n");
        assert_eq!(plan_text(&rows, WhyShown::First, HitsShown::Each, Color::Plain).lines().count(), 5);
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
