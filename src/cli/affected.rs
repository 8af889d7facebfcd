//! `drystone affected`: the tasks a change reaches, each with the way from a changed file to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::base::ids::TaskId;
use crate::cli::context::Context;
use crate::cli::differing::Asked;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening::Opened;
use crate::cli::reach::Proof;
use crate::cli::table::json;
use crate::cli::{again, opening, reach, wholes};
use crate::report::ink::{Color, Ink, paint};

/// Options of `affected`.
#[derive(Args, Clone, Debug)]
pub struct AffectedArgs {
    /// What to compare with; without it, where the branch left the default branch.
    #[arg(value_name = "REV")]
    pub revision: Option<String>,
    /// How the tasks are written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: AffectedFormat,
}

/// Values of `--format`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum AffectedFormat {
    /// For people.
    Human,
    /// A list of `{task, proof}`.
    Json,
    /// One line `{"include":[{"task":…},…]}` for the matrix of a GitHub Actions job.
    GithubMatrix,
}

/// One task that the change reaches.
#[derive(Clone, Debug, Serialize)]
pub struct AffectedRow {
    /// Its label.
    pub task: String,
    /// How the change reaches it: the changed file first, then the tasks in between, nearest to the file first.
    pub proof: Vec<String>,
}

/// The tasks as text in this format.
pub fn affected_text(rows: &[AffectedRow], format: AffectedFormat, color: Color) -> String {
    match format {
        AffectedFormat::Human => rows
            .iter()
            .map(|row| {
                let proof = format!("because of {}", row.proof.join(" → "));
                format!("{}  {}\n", row.task, paint(color, Ink::Faint, &proof))
            })
            .collect(),
        AffectedFormat::Json => json(&rows),
        AffectedFormat::GithubMatrix => {
            let include: Vec<_> = rows.iter().map(|row| serde_json::json!({ "task": row.task })).collect();
            format!("{}\n", serde_json::json!({ "include": include }))
        }
    }
}

/// Lists what a change reaches.
pub fn run(args: AffectedArgs, context: &Context) -> Result<ExitKind, CliError> {
    std::thread::scope(|scope| {
        // Git looks at the whole tree while the workspace is opened.
        let asked = Asked::of(scope, context, args.revision.as_deref());
        let (opened, kept) = again::open_with_kept(context)?;
        let store = opening::open_store_lazily(context, opened.workspace.config.store_bytes_max)?;
        let session = opened.session_to_look(context, Arc::clone(&store))?;
        let differing = asked.differing(&session, kept.as_ref())?;
        let found = reach::reached(&opened, &session, differing);
        opening::tell_store(context, &store, 0);
        show(&args, &opened, &found, context);
        // The program ends here: to take apart what names every file of the workspace would only delay it.
        session.leave();
        std::mem::forget((opened, kept));
        Ok(ExitKind::Done)
    })
}

fn show(args: &AffectedArgs, opened: &Opened, found: &BTreeMap<TaskId, Proof>, context: &Context) {
    // What runs because of a service are its users; a CI job that ran it alone would never end.
    let tasks = found.keys().copied().filter(|task| !opened.workspace.tasks[*task].kind.is_service());
    let shown = wholes::shown(&opened.workspace, tasks);
    let row = |shown: wholes::Shown| AffectedRow { task: shown.label, proof: found[&shown.task].clone() };
    let mut rows: Vec<AffectedRow> = shown.into_iter().map(row).collect();
    rows.sort_by(|one, other| one.task.cmp(&other.task));
    context.out.write(affected_text(&rows, args.format, context.stdout.color).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_comes_with_its_proof() {
        let rows = [
            AffectedRow { task: "//a:x".into(), proof: vec!["a/m.c".into()] },
            AffectedRow { task: "//b:y".into(), proof: vec!["a/m.c".into(), "//a:x".into()] },
        ];
        let check = |rows: &[AffectedRow], format: AffectedFormat, expect: &str| {
            assert_eq!(affected_text(rows, format, Color::Plain), expect);
        };
        check(&rows, AffectedFormat::Human, "//a:x  because of a/m.c\n//b:y  because of a/m.c → //a:x\n");
        check(&rows, AffectedFormat::GithubMatrix, "{\"include\":[{\"task\":\"//a:x\"},{\"task\":\"//b:y\"}]}\n");
        check(&[], AffectedFormat::GithubMatrix, "{\"include\":[]}\n");
        check(&[], AffectedFormat::Json, "[]\n");
    }
}
