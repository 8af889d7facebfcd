//! `drystone completions`: completion scripts, made from the definitions of the command line.

use clap::Args;
use clap_complete::Shell;

use crate::cli::args::command;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;

/// Options of `completions`.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// For which shell.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Prints a completion script.
pub fn run(args: CompletionsArgs, context: &Context) -> Result<ExitKind, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "drystone", &mut script);
    context.out.write(&script);
    Ok(ExitKind::Done)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::cli::context::tests::context;

    #[test]
    fn every_shell_is_told_every_command() {
        for shell in Shell::value_variants() {
            let (context, out, _) = context(std::path::Path::new("/"));
            run(CompletionsArgs { shell: *shell }, &context).unwrap();
            for word in ["affected", "keep-going", "doctor"] {
                assert!(out.text().contains(word), "{shell}: {word}");
            }
        }
    }
}
