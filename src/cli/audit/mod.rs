//! `drystone audit`: whether what is built is what its sources make. What each command found is told here.
//!
//! | file | has |
//! |---|---|
//! | `examine` | rebuilding under variation |
//! | `ledger` | `ledger`: what disagreed without anybody looking for it |
//! | `results` | `results`: what this machine's builds came to, signed where a key is given |
//! | `export` | `export`, `unpack`: what another machine needs to rebuild |
//! | `compare` | `compare`: the results of two machines |

pub mod compare;
pub mod examine;
pub mod export;
pub mod ledger;
pub mod results;

use clap::{Args, Subcommand};

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;

/// Options of `audit`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    /// What to do instead of rebuilding.
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
    /// What to rebuild, and how.
    #[command(flatten)]
    pub examine: examine::ExamineArgs,
}

/// The commands of `audit`.
#[derive(Subcommand, Clone, Debug)]
pub enum AuditCommand {
    /// Lists actions that came to different outputs, here or on machines whose results were imported.
    Ledger(ledger::LedgerArgs),
    /// Writes what this machine's builds of tasks came to.
    Results(results::ResultsArgs),
    /// Writes a bundle from which another machine rebuilds tasks without this store.
    Export(export::ExportArgs),
    /// Unpacks a bundle into a directory, and says how to rebuild there.
    Unpack(export::UnpackArgs),
    /// Compares what two machines came to.
    Compare(compare::CompareArgs),
}

/// Does what was asked.
pub fn run(args: AuditArgs, context: &Context) -> Result<ExitKind, CliError> {
    match args.command {
        None => examine::run(&args.examine, context),
        Some(AuditCommand::Ledger(args)) => ledger::run(&args, context),
        Some(AuditCommand::Results(args)) => results::run(&args, context),
        Some(AuditCommand::Export(args)) => export::run(&args, context),
        Some(AuditCommand::Unpack(args)) => export::unpack(&args, context),
        Some(AuditCommand::Compare(args)) => compare::run(&args, context),
    }
}
