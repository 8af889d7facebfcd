//! `drystone explain` of a split task as a whole: how many parts would run, for which reasons, and how to ask for one. Runs nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::cli::plan::{Forecast, PlanRow, WireWhy, whys};
use crate::cli::table::json;
use crate::engine::event::MissReason;
use crate::report::ink::{Color, Ink, paint};
use crate::workspace::model::Workspace;

/// Reasons that have a line of their own.
const REASONS_TOLD_MAX: usize = 20;

/// What is known of the parts of a split task.
#[derive(Clone, Debug)]
pub struct WholeExplanation {
    /// The label of the whole.
    pub task: String,
    /// Its parts in their order.
    pub parts: Vec<PlanRow>,
    /// Why parts would run: those that most parts have first.
    pub reasons: Vec<Shared>,
}

/// A reason that several parts may have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Shared {
    /// One line for people.
    pub reason: String,
    /// How many parts have it.
    pub parts: usize,
    /// The first of them.
    pub example: String,
}

/// Puts together what the parts would run for. What happened to the items of a part is one reason, whatever they are called.
pub fn whole(workspace: &Workspace, first: TaskId, parts: Vec<PlanRow>) -> WholeExplanation {
    let is_item = |name: &str| {
        let path = RelPath::parse(name).ok();
        path.is_some_and(|path| workspace.split_of(first).is_some_and(|split| split.part_of(&path).is_some()))
    };
    let sentence = |reason: &MissReason| match reason.field {
        "input" if is_item(&reason.name) => format!("its items {}", reason.change),
        _ => reason.sentence(),
    };
    let mut by_sentence: BTreeMap<String, (usize, &PlanRow)> = BTreeMap::new();
    for part in parts.iter().filter(|part| part.forecast != Forecast::Hit) {
        let mut own: Vec<String> = part.why.iter().map(sentence).collect();
        own.sort_unstable();
        own.dedup();
        for reason in own {
            by_sentence.entry(reason).or_insert((0, part)).0 += 1;
        }
    }
    let shared =
        |(reason, (parts, first)): (String, (usize, &PlanRow))| Shared { reason, parts, example: first.task.clone() };
    let mut reasons: Vec<Shared> = by_sentence.into_iter().map(shared).collect();
    reasons.sort_by_key(|shared| std::cmp::Reverse(shared.parts));
    WholeExplanation { task: workspace.whole_label(first), parts, reasons }
}

/// The explanation for people.
pub fn whole_text(explanation: &WholeExplanation, color: Color) -> String {
    let WholeExplanation { task, parts, reasons } = explanation;
    let count = |forecast: Forecast| parts.iter().filter(|part| part.forecast == forecast).count();
    let counts: Vec<String> = [
        (Forecast::Hit, "up to date"),
        (Forecast::Run, "would run"),
        (Forecast::Perhaps, "would run if what they need comes out differently"),
    ]
    .into_iter()
    .map(|(forecast, words)| (count(forecast), words))
    .filter(|(count, _)| *count > 0)
    .map(|(count, words)| format!("{count} {words}"))
    .collect();
    let mut text = format!("{} has {} parts: {}\n", paint(color, Ink::Strong, task), parts.len(), counts.join(", "));
    if !reasons.is_empty() {
        text.push_str("why:\n");
    }
    let columns = reasons.first().map_or(0, |most| most.parts.to_string().len());
    for Shared { reason, parts, example } in reasons.iter().take(REASONS_TOLD_MAX) {
        let word = if *parts == 1 { "part " } else { "parts" };
        let example = paint(color, Ink::Faint, example);
        text.push_str(&format!("  {parts:>columns$} {word}  {reason}  {example}\n"));
    }
    if reasons.len() > REASONS_TOLD_MAX {
        text.push_str(&format!("  and {} more reasons\n", reasons.len() - REASONS_TOLD_MAX));
    }
    let one = parts.iter().find(|part| part.forecast != Forecast::Hit).or(parts.first());
    if let Some(one) = one {
        text.push_str(&format!("one part: drystone explain {}\n", quoted(&one.task)));
    }
    text
}

/// A label as a shell takes it for one word.
fn quoted(label: &str) -> String {
    format!("'{}'", label.replace('\'', "'\\''"))
}

/// The explanation for programs.
pub fn whole_json(explanation: &WholeExplanation) -> String {
    let WholeExplanation { task, parts, reasons } = explanation;
    fn part(row: &PlanRow) -> WirePart<'_> {
        WirePart { task: &row.task, forecast: row.forecast, why: whys(&row.why) }
    }
    json(&Wire { task, reasons, parts: parts.iter().map(part).collect() })
}

#[derive(Serialize)]
struct Wire<'e> {
    task: &'e str,
    reasons: &'e [Shared],
    parts: Vec<WirePart<'e>>,
}

#[derive(Serialize)]
struct WirePart<'e> {
    task: &'e str,
    forecast: Forecast,
    why: Vec<WireWhy<'e>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_one_part_can_be_asked_for() {
        let part = |name: &str, forecast: Forecast| PlanRow {
            task: format!("//:t[items={name}]"),
            part_of: Some("//:t".into()),
            forecast,
            why: Vec::new(),
        };
        let reason = |reason: &str, parts: usize, example: &str| Shared {
            reason: reason.into(),
            parts,
            example: format!("//:t[items={example}]"),
        };
        let mut explanation = WholeExplanation {
            task: "//:t".into(),
            parts: vec![part("a", Forecast::Hit), part("it's", Forecast::Run), part("c", Forecast::Perhaps)],
            reasons: vec![reason("src/x changed", 12, "it's"), reason("first run", 1, "c")],
        };
        assert_eq!(
            whole_text(&explanation, Color::Plain),
            "//:t has 3 parts: 1 up to date, 1 would run, 1 would run if what they need comes out differently\nwhy:\n  \
             12 parts  src/x changed  //:t[items=it's]\n   1 part   first run  //:t[items=c]\n\
             one part: drystone explain '//:t[items=it'\\''s]'\n"
        );
        explanation.reasons = (0..25).map(|at| reason(&at.to_string(), 1, "c")).collect();
        assert!(whole_text(&explanation, Color::Plain).contains("\n  and 5 more reasons\n"));
        let value: serde_json::Value = serde_json::from_str(&whole_json(&explanation)).unwrap();
        assert_eq!(
            (value["parts"][0]["forecast"].as_str(), value["reasons"][0]["parts"].as_u64()),
            (Some("hit"), Some(1))
        );
    }
}
