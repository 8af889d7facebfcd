//! The command line as types: global options and the list of commands. Each command's own options stand in its file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::base::diagnostic::nearest;
use crate::cli::{
    affected, audit, completions, doctor, explain, graph, image, init, list, lock, logs, man, outputs, plan, query,
    run, schema, store, verify,
};
use crate::report::story::Verbosity;

/// A declarative, content-addressed build graph engine for monorepos.
///
/// Without a command, lists the tasks here.
#[derive(Parser, Debug)]
#[command(name = "drystone", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Options every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options every command takes.
#[derive(Args, Clone, Debug, Default)]
pub struct GlobalArgs {
    /// Acts as if started in this directory.
    #[arg(short = 'C', long = "directory", value_name = "DIR", global = true)]
    pub directory: Option<PathBuf>,
    /// Colours: where the stream takes them, always or never.
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    pub color: ColorWhen,
    /// Tells more: a line for every task, and what tasks that ran printed.
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Tells only what went wrong.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

impl GlobalArgs {
    /// How much is told.
    pub fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        }
    }
}

/// When colours are used.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ColorWhen {
    /// Where the stream is a terminal; `NO_COLOR` and `CLICOLOR_FORCE` are respected.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How data is written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// For programs.
    Json,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Runs tasks and what they need.
    Run(run::RunArgs),
    /// Shows what would run and why, without running it.
    Plan(plan::PlanArgs),
    /// Explains why a task ran last, or would run now.
    Explain(explain::ExplainArgs),
    /// Evaluates an expression over the task graph.
    Query(query::QueryArgs),
    /// Writes the task graph for other programs.
    Graph(graph::GraphArgs),
    /// Lists the tasks a change reaches, each with its path of proof.
    Affected(affected::AffectedArgs),
    /// Lists the tasks here.
    List(list::ListArgs),
    /// Replays what a task printed.
    Logs(logs::LogsArgs),
    /// Lists a task's outputs with their digests.
    Outputs(outputs::OutputsArgs),
    /// Makes container images, looks into them, moves them.
    Image(image::ImageArgs),
    /// Verifies an image: every digest, every signature, and that what was signed is about it.
    Verify(verify::VerifyArgs),
    /// Finds out whether what is built is what its sources make.
    Audit(audit::AuditArgs),
    /// Pins what comes from registries in `drystone.lock`, and tells what moved.
    Lock(lock::LockArgs),
    /// Looks after the store.
    Store(store::StoreArgs),
    /// Writes a first manifest.
    Init(init::InitArgs),
    /// Checks what this machine can do, and says how to get what it cannot.
    Doctor(doctor::DoctorArgs),
    /// Prints a JSON Schema.
    Schema(schema::SchemaArgs),
    /// Prints a completion script for a shell.
    Completions(completions::CompletionsArgs),
    /// Prints a manual page.
    Man(man::ManArgs),
}

/// The commands as clap knows them, with what the help texts add at the end.
pub fn command() -> clap::Command {
    use clap::CommandFactory;

    use crate::cli::exit::ExitKind;

    let codes: String =
        ExitKind::ALL.iter().map(|kind| format!("\n  {:>3}  {}", kind.code(), kind.meaning())).collect();
    Cli::command().after_help(format!("Exit codes:{codes}"))
}

/// Understands a command line, the program's name first.
///
/// # Errors
/// What clap answers: also help and version texts, which are no errors but end the program. An unknown command comes with
/// the nearest one, or with how to run a task of that name.
pub fn parse(argv: &[OsString]) -> Result<Cli, clap::Error> {
    let parsed = command().try_get_matches_from(argv).and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| suggest(error, argv))
}

/// clap measures likeness by common letters in place and has no answer to `rnu`; [`nearest`] has.
fn suggest(mut error: clap::Error, argv: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    if error.get(ContextKind::SuggestedSubcommand).is_some() {
        return error;
    }
    let word = word.clone();
    let all = command();
    let level = argv.iter().skip(1).fold(&all, |level, word| level.find_subcommand(word).unwrap_or(level));
    if let Some(near) = nearest(&word, level.get_subcommands().map(clap::Command::get_name)) {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![near.to_owned()]));
    } else if level.get_name() == all.get_name() {
        let tip = format!("if `{word}` is a task: `drystone run {word}`");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_agree_with_themselves() {
        command().debug_assert();
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_nearest() {
        let check = |line: &[&str], expect: &str| {
            let argv: Vec<OsString> = line.iter().map(OsString::from).collect();
            let error = parse(&argv).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}");
            assert!(error.to_string().contains(expect), "{error}");
        };
        check(&["drystone", "rnu"], "'run'");
        check(&["drystone", "build"], "`drystone run build`");
        check(&["drystone", "//web:build"], "`drystone run //web:build`");
        check(&["drystone", "affcted"], "'affected'");
        check(&["drystone", "run", "--isolatoin", "none"], "'--isolation'");
        check(&["drystone", "run", "--isolation", "landlok"], "'landlock'");
        check(&["drystone", "store", "verfy"], "'verify'");
        check(&["drystone", "-q", "-v"], "cannot be used with");
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in [["drystone", "-C", "x", "run"], ["drystone", "run", "-C", "x"]] {
            assert_eq!(Cli::parse_from(line).global.directory, Some(PathBuf::from("x")));
        }
    }
}
