//! `drystone schema`: the JSON Schemas of what is read and written.

use clap::{Args, ValueEnum};

use crate::audit::wire::audit_schema;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::table::json;
use crate::manifest::schema::json_schema;
use crate::report::wire::event_schema;

/// Options of `schema`.
#[derive(Args, Clone, Debug)]
pub struct SchemaArgs {
    /// Of what.
    #[arg(value_name = "WHAT", default_value = "manifest")]
    pub what: SchemaOf,
}

/// Values of WHAT.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum SchemaOf {
    /// `drystone.toml`.
    Manifest,
    /// The events of `run --format json`.
    Events,
    /// The report of `audit --format json`.
    Audit,
}

/// Prints a schema.
pub fn run(args: SchemaArgs, context: &Context) -> Result<ExitKind, CliError> {
    match args.what {
        SchemaOf::Manifest => {
            context.out.write(json(&json_schema()).as_bytes());
            Ok(ExitKind::Done)
        }
        SchemaOf::Events => {
            context.out.write(json(&event_schema()).as_bytes());
            Ok(ExitKind::Done)
        }
        SchemaOf::Audit => {
            context.out.write(json(&audit_schema()).as_bytes());
            Ok(ExitKind::Done)
        }
    }
}
