//! `drystone man`: manual pages, made from the definitions of the command line.

use clap::Args;

use crate::base::diagnostic::{Diagnostic, nearest};
use crate::cli::args::command;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;

/// Options of `man`.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Of which command, as `run` or `store gc`; without it, of the program.
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Prints a manual page as roff: `drystone man run | man -l -`.
pub fn run(args: ManArgs, context: &Context) -> Result<ExitKind, CliError> {
    let found = find(&args.command)?;
    let name = found.get_display_name().unwrap_or("drystone").to_owned();
    let mut page = Vec::new();
    clap_mangen::Man::new(found).title(name).render(&mut page).expect("writing to memory cannot fail");
    context.out.write(&page);
    Ok(ExitKind::Done)
}

/// The command with these words; its display name is that of the page: `drystone-store-gc`.
fn find(words: &[String]) -> Result<clap::Command, CliError> {
    let mut all = command();
    // Gives subcommands the global options and their whole names.
    all.build();
    let mut found = all;
    for word in words {
        let Some(next) = found.find_subcommand(word) else {
            let known = found.get_subcommands().map(clap::Command::get_name);
            let unknown = Diagnostic::error(format!("there is no command `{word}`"));
            return Err(CliError::Usage(match nearest(word, known) {
                Some(near) => unknown.help(format!("did you mean `{near}`?")),
                None => unknown.help("`drystone --help` lists the commands"),
            }));
        };
        found = next.clone();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::context::tests::context;

    fn page(words: &[&str]) -> Result<String, CliError> {
        let (context, out, _) = context(std::path::Path::new("/"));
        run(ManArgs { command: words.iter().map(|word| (*word).to_owned()).collect() }, &context)?;
        Ok(out.text())
    }

    #[test]
    fn every_command_has_a_page() {
        assert!(page(&[]).unwrap().contains("Exit codes"));
        assert!(page(&["run"]).unwrap().contains(".TH drystone-run 1"), "{}", page(&["run"]).unwrap());
        assert!(page(&["store", "gc"]).unwrap().contains(".TH drystone-store-gc 1"));
    }

    #[test]
    fn an_unknown_command_is_answered_with_the_nearest() {
        let Err(CliError::Usage(diagnostic)) = page(&["stroe"]) else { panic!("`stroe` is not a command") };
        assert_eq!(diagnostic.help, ["did you mean `store`?"]);
    }
}
