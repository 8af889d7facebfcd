//! `drystone list`, and bare `drystone`: the tasks here.

use clap::Args;
use serde::Serialize;

use crate::cli::again;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening::Opened;
use crate::cli::table::{aligned, json};
use crate::cli::wholes::{self, Shown};
use crate::manifest::model::{Command, TaskKind};

/// Columns of a command shown in a list before it is cut.
const ABOUT_COLUMNS_MAX: usize = 60;

/// Options of `list`.
#[derive(Args, Clone, Debug, Default)]
pub struct ListArgs {
    /// Which tasks, as for `run`. With none, those in this directory and below.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// How the tasks are written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// One task.
#[derive(Clone, Debug, Serialize)]
pub struct ListRow {
    /// Its label.
    pub task: String,
    /// Its kind as a word.
    pub kind: &'static str,
    /// What it does: its command, or where it fetches from.
    pub about: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// How many parts a split task has.
    pub parts: Option<usize>,
}

/// The tasks, in the order given.
pub fn list_text(rows: &[ListRow], format: Format) -> String {
    if format == Format::Json {
        return json(&rows);
    }
    let rows: Vec<[String; 4]> = rows
        .iter()
        .map(|row| {
            let tags = if row.tags.is_empty() { String::new() } else { format!("[{}]", row.tags.join(", ")) };
            let parts = match row.parts {
                None => String::new(),
                Some(0) => "  (no items)".to_owned(),
                Some(1) => "  (1 part)".to_owned(),
                Some(count) => format!("  ({count} parts)"),
            };
            [row.task.clone(), row.kind.to_owned(), first_line(&row.about) + &parts, tags]
        })
        .collect();
    aligned(&rows)
}

/// The first line that says something, cut where a list would burst.
fn first_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.next().unwrap_or("");
    let goes_on = lines.next().is_some();
    if line.chars().count() <= ABOUT_COLUMNS_MAX && !goes_on {
        return line.to_owned();
    }
    let mut cut: String = line.chars().take(ABOUT_COLUMNS_MAX).collect();
    cut.truncate(cut.trim_end().len());
    cut.push_str(" …");
    cut
}

/// Lists tasks.
pub fn run(args: ListArgs, context: &Context) -> Result<ExitKind, CliError> {
    let opened = again::open(context)?;
    let tasks = wholes::shown(&opened.workspace, opened.select(&args.targets)?);
    let mut rows: Vec<ListRow> = tasks.into_iter().map(|shown| row(&opened, shown)).collect();
    rows.sort_by(|one, other| one.task.cmp(&other.task));
    if rows.is_empty() && args.format == Format::Human {
        context.say("no tasks here; declare one as `[task.NAME]` in drystone.toml\n");
    }
    context.out.write(list_text(&rows, args.format).as_bytes());
    Ok(ExitKind::Done)
}

fn row(opened: &Opened, shown: Shown) -> ListRow {
    let task = &opened.workspace.tasks[shown.task];
    let command = |command: &Command| match command {
        Command::Shell(script) => script.to_string(),
        Command::Exec(words) => words.join(" "),
        Command::Image(recipe) => recipe.about(),
    };
    let about = match &task.kind {
        TaskKind::Run(run) => match &run.split {
            Some(split) if shown.parts.is_some() => split.written.clone(),
            _ => command(&run.command),
        },
        TaskKind::Service(service) => command(&service.run.command),
        TaskKind::Fetch(fetch) => fetch.urls.first().cloned().unwrap_or_default(),
    };
    ListRow { task: shown.label, kind: task.kind.word(), about, tags: task.tags.to_vec(), parts: shown.parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_listed_in_columns() {
        let row = |task: &str, kind: &'static str, about: &str, tags: &[&str]| ListRow {
            task: task.into(),
            kind,
            about: about.into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            parts: None,
        };
        let rows = [
            row("//apps/web:build", "run", "vite build", &["front-end", "slow"]),
            row("//:node", "fetch", "https://example.org/node.tar.xz", &[]),
            row("//a:x", "run", "\n  set -x\n  make\n", &[]),
            ListRow { parts: Some(16), ..row("//b:test", "run", "pytest ${items}", &[]) },
        ];
        assert_eq!(
            list_text(&rows, Format::Human),
            "//apps/web:build  run    vite build                       [front-end, slow]\n\
             //:node           fetch  https://example.org/node.tar.xz\n\
             //a:x             run    set -x …\n\
             //b:test          run    pytest ${items}  (16 parts)\n"
        );
        let value: serde_json::Value = serde_json::from_str(&list_text(&rows, Format::Json)).unwrap();
        assert_eq!(value[0]["tags"][1], "slow");
    }

    #[test]
    fn a_long_command_is_cut() {
        assert_eq!(first_line(&"x".repeat(200)), format!("{} …", "x".repeat(ABOUT_COLUMNS_MAX)));
    }
}
