//! `drystone image`: images that tasks make, and those elsewhere. What each command found is told here; `image` and `registry` do the
//! work.
//!
//! | file | has |
//! |---|---|
//! | `attest` | `attest`, `keygen`, and what `push --sign` attaches |
//! | `build` | `build`: makes images, writes layouts and archives |
//! | `given` | what a word on the command line means: a task, a layout, an archive, a name in a registry |
//! | `look` | `inspect`, `diff`, `plan` |
//! | `pulling` | `pull` |
//! | `travel` | `push`, `promote`, `load`, `tags` |

pub mod args;
pub mod attest;
pub mod build;
pub mod given;
pub mod look;
pub mod pulling;
pub mod travel;

pub use args::{ImageArgs, ImageCommand};

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;

/// Does what was asked.
pub fn run(args: ImageArgs, context: &Context) -> Result<ExitKind, CliError> {
    match args.command {
        ImageCommand::Build(args) => build::run(&args, context),
        ImageCommand::Inspect(args) => look::inspect(&args, context),
        ImageCommand::Diff(args) => look::diff(&args, context),
        ImageCommand::Plan(args) => look::plan(&args, context),
        ImageCommand::Push(args) => travel::push(&args, context),
        ImageCommand::Pull(args) => pulling::run(&args, context),
        ImageCommand::Load(args) => travel::load(&args, context),
        ImageCommand::Promote(args) => travel::promote(&args, context),
        ImageCommand::Tags(args) => travel::tags(&args, context),
        ImageCommand::Attest(args) => attest::run(&args, context),
        ImageCommand::Keygen(args) => attest::keygen(&args, context),
    }
}
