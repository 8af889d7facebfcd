//! `drystone graph`: the task graph for other programs. The texts are the graph's own exports.

use clap::{Args, ValueEnum};

use crate::cli::again;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::graph::export;

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
pub fn run(args: GraphArgs, context: &Context) -> Result<ExitKind, CliError> {
    let opened = again::open(context)?;
    let (workspace, graph) = (&opened.workspace, &opened.graph);
    let tasks = if args.targets.is_empty() {
        graph.topological().to_vec()
    } else {
        graph.closure(&opened.select(&args.targets)?)
    };
    let text = match args.format {
        GraphFormat::Dot => export::dot(workspace, graph, &tasks),
        GraphFormat::Mermaid => export::mermaid(workspace, graph, &tasks),
        GraphFormat::Json => export::json(workspace, graph, &tasks),
    };
    context.out.line(text.trim_end());
    Ok(ExitKind::Done)
}
