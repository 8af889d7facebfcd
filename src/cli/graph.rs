//! `drystone graph`: the task graph for other programs. The texts are the graph's own exports.

use clap::{Args, ValueEnum};

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;

/// Options of `graph`.
#[derive(Args, Clone, Debug)]
pub struct GraphArgs {
    /// Which tasks, with all they need, as for `run`. With none, the whole graph.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// How the graph is written.
    #[arg(long, value_name = "FORMAT", default_value = "dot")]
    pub format: GraphFormat,
}

/// Values of `--format`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum GraphFormat {
    /// Graphviz.
    Dot,
    /// Mermaid, as Markdown renderers draw it.
    Mermaid,
    /// Nodes and edges as lists.
    Json,
}

/// Writes the graph.
pub fn run(_args: GraphArgs, _context: &Context) -> Result<ExitKind, CliError> {
    Err(CliError::bug("`graph` is not wired"))
}
