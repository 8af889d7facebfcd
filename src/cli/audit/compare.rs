//! `drystone audit compare`: whether two machines came to the same. Builds nothing, and asks no store but one of its own for archives.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::audit::results::{Agreement, Compared, FORMAT, RESULTS_BYTES_MAX, Results, TaskResult, compare};
use crate::cli::args::Format;
use crate::cli::audit::export::results_of;
use crate::cli::audit::results::told_entry;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening;
use crate::cli::table::json;
use crate::engine::execute::now_ms;
use crate::fs::ops;
use crate::store::{OpenOptions, Origin, Store};

/// Options of `audit compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// What one machine came to: a bundle, a file of results, an audit's report in JSON, or an archive of `store export`.
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// What the other came to.
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// How it is written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// Most names told of one task.
const NAMES_TOLD: usize = 20;

/// The rows, what differs below each, and what they come to.
pub fn compare_text(rows: &[Compared], format: Format) -> String {
    let count = |agreement| rows.iter().filter(|row| row.agreement == agreement).count();
    let (same, differ, apart) =
        (count(Agreement::Reproduced), count(Agreement::Differs), count(Agreement::NotComparable));
    if format == Format::Json {
        let verdict = match (same, differ) {
            (_, 1..) => "different",
            (0, 0) => "inconclusive",
            _ => "reproduced",
        };
        return json(&serde_json::json!({ "format": 1, "verdict": verdict, "reproduced": same, "differing": differ,
            "not_comparable": apart, "tasks": rows }));
    }
    let mut text = String::new();
    for row in rows {
        text.push_str(&format!("{}: {}\n", row.agreement.word(), row.label.escape_debug()));
        for file in row.files.iter().take(NAMES_TOLD) {
            text.push_str(&format!("  differs: {}\n", file.escape_debug()));
        }
        if let Some(untold) = row.files.len().checked_sub(NAMES_TOLD).filter(|untold| *untold > 0) {
            text.push_str(&format!("  and {untold} more\n"));
        }
        if row.agreement == Agreement::NotComparable {
            let fields: Vec<String> = row.fields.iter().map(|field| field.escape_debug().to_string()).collect();
            text.push_str(&match (&row.action_a, &row.action_b) {
                (Some(_), Some(_)) if fields.is_empty() => "  the two were different actions\n".to_owned(),
                (Some(_), Some(_)) => format!("  the two were different actions: {}\n", fields.join(", ")),
                (Some(_), None) => "  it is on the first side alone\n".to_owned(),
                _ => "  it is on the second side alone\n".to_owned(),
            });
        }
    }
    text.push_str(&format!("{same} reproduced, {differ} differ, {apart} not comparable\n"));
    if same + differ == 0 {
        text.push_str("inconclusive: nothing was built on both sides\n");
    }
    text
}

/// Compares two machines.
pub fn run(args: &CompareArgs, context: &Context) -> Result<ExitKind, CliError> {
    let (a, b) = (side(&args.a, context)?, side(&args.b, context)?);
    let rows = compare(&a, &b);
    context.out.write(compare_text(&rows, args.format).as_bytes());
    let differs = rows.iter().any(|row| row.agreement == Agreement::Differs);
    let reproduced = rows.iter().any(|row| row.agreement == Agreement::Reproduced);
    Ok(if reproduced && !differs { ExitKind::Done } else { ExitKind::Failed })
}

/// What a file says a machine came to, told apart by how it begins.
fn side(file: &Path, context: &Context) -> Result<Results, CliError> {
    let path = context.path(file);
    let meta = ops::metadata(&path).map_err(|error| CliError::usage(error.to_string()))?;
    if !meta.is_file() {
        return Err(CliError::usage(format!("{} is no file", path.display())));
    }
    let mut start = Vec::new();
    let began = ops::open(&path)?.take(4).read_to_end(&mut start);
    began.map_err(|error| CliError::infrastructure(format!("cannot read {}: {error}", path.display())))?;
    match start.as_slice() {
        [0x28, 0xb5, 0x2f, 0xfd] => archived(&path, context),
        [b'{', ..] | [b' ' | b'\n', ..] if meta.len() <= RESULTS_BYTES_MAX as u64 => {
            Results::read(&ops::read(&path)?).map_err(|error| CliError::usage(format!("{}: {error}", path.display())))
        }
        _ => results_of(&path)?
            .ok_or_else(|| CliError::usage(format!("{} is neither a bundle nor a file of results", path.display()))),
    }
}

/// What an archive of a store holds: taken into a store of its own, which goes again.
fn archived(path: &Path, context: &Context) -> Result<Results, CliError> {
    let own = opening::open_store(context, None)?;
    let stage = own.stage()?;
    let options = OpenOptions {
        dir: stage.path().join("store"),
        bytes_max: Some(own.bytes_max()),
        now_ms,
        origin: Origin::default(),
    };
    let store = Store::open(options)?;
    store.import(path).map_err(|error| CliError::usage(error.to_string()))?;
    let mut tasks = Vec::new();
    for result in store.all_results()? {
        let listing = store.listing(&result.outputs)?.unwrap_or_default();
        tasks.push(TaskResult {
            label: result.label,
            action: result.action.to_hex(),
            outputs: Some(result.outputs.to_hex()),
            isolation: result.isolation,
            files: listing.iter().map(|(path, entry)| (path.to_string(), told_entry(entry))).collect(),
            ..TaskResult::default()
        });
    }
    Ok(Results { format: FORMAT, tasks, ..Results::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(agreement: Agreement, actions: (bool, bool), files: usize, fields: &[&str]) -> Compared {
        let action = |is_there: bool| is_there.then(|| "0f".to_owned());
        Compared {
            label: "//:a".into(),
            action_a: action(actions.0),
            action_b: action(actions.1),
            agreement,
            files: (0..files).map(|number| format!("f{number}")).collect(),
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
        }
    }

    #[test]
    fn what_two_machines_came_to_is_told_with_what_stands_in_the_way() {
        let check = |row: Compared, expect: &str| {
            let text = compare_text(&[row], Format::Human);
            assert!(text.contains(expect), "{text}");
        };
        check(row(Agreement::Reproduced, (true, true), 0, &[]), "1 reproduced, 0 differ, 0 not comparable\n");
        check(row(Agreement::Differs, (true, true), 22, &[]), "  differs: f0\n");
        check(row(Agreement::Differs, (true, true), 22, &[]), "  and 2 more\n");
        check(row(Agreement::NotComparable, (true, true), 0, &["tool"]), "different actions: tool\n");
        check(row(Agreement::NotComparable, (true, false), 0, &[]), "first side alone");
        check(row(Agreement::NotComparable, (false, true), 0, &[]), "inconclusive: nothing was built on both sides");
    }
}
