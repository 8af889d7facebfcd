//! `drystone query`: labels that an expression selects, one a line.

use std::collections::BTreeSet;

use clap::Args;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::cli::again;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening::{self, Opened};
use crate::cli::table::json;
use crate::cli::{reach, wholes};
use crate::graph::query;
use crate::report::out::Appearance;

/// Options of `query`.
#[derive(Args, Clone, Debug)]
pub struct QueryArgs {
    /// Labels, patterns, `deps(x)`, `rdeps(x)`, `path(a, b)`, `kind(x)`, `tag(x)`, `affected(rev)`, joined with `&`, `|`, `-`
    /// and parentheses.
    #[arg(value_name = "EXPR")]
    pub expression: String,
    /// How the labels are written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// The labels, in the order given: one a line, or a JSON list.
pub fn labels_text(labels: &[String], format: Format) -> String {
    match format {
        Format::Human => labels.iter().map(|label| format!("{label}\n")).collect(),
        Format::Json => json(&labels),
    }
}

/// Evaluates an expression.
pub fn run(args: QueryArgs, context: &Context) -> Result<ExitKind, CliError> {
    let opened = again::open(context)?;
    let affected = |revision: &str| affected_in(&opened, context, revision);
    let found = query::query(&opened.workspace, &opened.graph, &args.expression, &opened.here, &affected)
        .map_err(CliError::Usage)?;
    let labels: Vec<String> = wholes::shown(&opened.workspace, found).into_iter().map(|shown| shown.label).collect();
    context.out.write(labels_text(&labels, args.format).as_bytes());
    Ok(ExitKind::Done)
}

/// Tasks a change reaches, for `affected(rev)`; the store is only opened if an expression asks.
fn affected_in(opened: &Opened, context: &Context, revision: &str) -> Result<BTreeSet<TaskId>, Diagnostic> {
    let as_diagnostic = |error: CliError| match error {
        CliError::Usage(problem) | CliError::Infrastructure(problem) => problem,
        other => Diagnostic::error(other.text(Appearance::plain()).trim_end().to_owned()),
    };
    let tasks = || -> Result<BTreeSet<TaskId>, CliError> {
        let store = opening::open_store(context, opened.workspace.config.store_bytes_max)?;
        let session = opened.session(context, store, opening::looking(), opening::never_cancelled()?)?;
        Ok(reach::affected_tasks(opened, &session, Some(revision), context)?.into_keys().collect())
    };
    tasks().map_err(as_diagnostic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_one_a_line_or_one_list() {
        let labels = ["//a:x".to_owned(), "//b:y".to_owned()];
        assert_eq!(labels_text(&labels, Format::Human), "//a:x\n//b:y\n");
        assert_eq!(labels_text(&labels, Format::Json), "[\n  \"//a:x\",\n  \"//b:y\"\n]\n");
        assert_eq!(labels_text(&[], Format::Human), "");
        assert_eq!(labels_text(&[], Format::Json), "[]\n");
    }
}
