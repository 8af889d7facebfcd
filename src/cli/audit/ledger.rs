//! `drystone audit ledger`: actions that came to different outputs. The store found them; here they are told.

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use crate::attest::rfc3339;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening;
use crate::cli::table::{aligned, json};
use crate::store::Disagreement;

/// Options of `audit ledger`.
#[derive(Args, Clone, Debug)]
pub struct LedgerArgs {
    /// Of which tasks, as for `run`. With none, everything that the store knows, of any workspace.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// How it is written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// An action that came to different outputs.
#[derive(Clone, Debug, Serialize)]
pub struct DisagreementRow {
    /// Label of the task.
    pub label: String,
    /// The action.
    pub action: String,
    /// Who got what, oldest first.
    pub outputs: Vec<OutputsRow>,
}

/// Somebody's outputs.
#[derive(Clone, Debug, Serialize)]
pub struct OutputsRow {
    /// Their tree.
    pub outputs: String,
    /// Digest that stands for the machine; none if it is not known.
    pub machine: Option<String>,
    /// Who built it; none if that is not known.
    pub builder: Option<String>,
    /// The workspace, as `REPOSITORY/WORKTREE`.
    pub workspace: String,
    /// When last, in milliseconds since 1970.
    pub at_ms: i64,
    /// How often.
    pub times: u64,
}

impl DisagreementRow {
    fn of(found: &Disagreement) -> Self {
        let outputs = found.lines.iter().map(|line| OutputsRow {
            outputs: line.outputs.to_hex(),
            machine: line.machine.map(|machine| machine.to_hex()),
            builder: line.builder.clone(),
            workspace: line.workspace.clone(),
            at_ms: line.at_ms,
            times: line.times,
        });
        Self { label: found.label.clone(), action: found.action.to_hex(), outputs: outputs.collect() }
    }
}

/// Digits of a digest that are shown.
const SHORT: usize = 12;

/// The disagreements, one paragraph each.
pub fn ledger_text(rows: &[DisagreementRow], format: Format) -> String {
    if format == Format::Json {
        return json(&serde_json::json!({ "format": 1, "disagreements": rows }));
    }
    let mut text = String::new();
    let short = |digest: &str| digest.chars().take(SHORT).collect::<String>();
    for row in rows {
        text.push_str(&format!("{}  action {}\n", row.label.escape_debug(), short(&row.action)));
        let lines: Vec<[String; 6]> = row
            .outputs
            .iter()
            .map(|line| {
                let known = |word: &Option<String>| {
                    word.as_deref().map_or("unknown".to_owned(), |word| word.escape_debug().to_string())
                };
                [
                    format!("  {}", short(&line.outputs)),
                    format!("machine {}", line.machine.as_deref().map_or("unknown".to_owned(), short)),
                    format!("by {}", known(&line.builder)),
                    rfc3339(line.at_ms.max(0) as u64 / 1000),
                    format!("{}×", line.times),
                    line.workspace.escape_debug().to_string(),
                ]
            })
            .collect();
        text.push_str(&aligned(&lines));
    }
    let tasks: BTreeSet<&str> = rows.iter().map(|row| row.label.as_str()).filter(|label| !label.is_empty()).collect();
    text.push_str(&match rows.len() {
        0 => "no action came to different outputs\n".to_owned(),
        count => format!("{count} actions of {} tasks came to different outputs\n", tasks.len()),
    });
    if let Some(first) = tasks.first() {
        text.push_str(&format!("  help: `drystone audit {}` finds out why\n", first.escape_debug()));
    }
    text
}

/// Lists disagreements.
pub fn run(args: &LedgerArgs, context: &Context) -> Result<ExitKind, CliError> {
    let wanted = match args.targets.as_slice() {
        [] => None,
        words => {
            let opened = opening::open(context)?;
            let tasks = opened.select(words)?;
            let labels = tasks.iter().map(|task| opened.workspace.tasks[*task].label.to_string());
            Some(labels.collect::<BTreeSet<String>>())
        }
    };
    let store = opening::open_store(context, None)?;
    let found = store.disagreements(usize::MAX)?;
    let is_wanted = |one: &&Disagreement| {
        wanted.as_ref().is_none_or(|wanted| one.lines.iter().any(|line| wanted.contains(&line.label)))
    };
    let rows: Vec<DisagreementRow> = found.iter().filter(is_wanted).map(DisagreementRow::of).collect();
    context.out.write(ledger_text(&rows, args.format).as_bytes());
    Ok(if rows.is_empty() { ExitKind::Done } else { ExitKind::Failed })
}
