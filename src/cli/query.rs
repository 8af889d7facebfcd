//! `drystone query`: labels that an expression selects, one a line.

use clap::Args;

use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::table::json;

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
pub fn run(_args: QueryArgs, _context: &Context) -> Result<ExitKind, CliError> {
    Err(CliError::bug("`query` is not wired"))
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
