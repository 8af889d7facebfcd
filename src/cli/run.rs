//! `drystone run`: what its options mean to the engine and the reports.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::reports::ReportRequest;
use crate::manifest::model::IsolationRequest;
use crate::report::lines::WhyShown;
use crate::report::story::OutputShown;

/// Options of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Which tasks: `//apps/web:build`, `//libs/...:test`, `build`, `//apps/web`, `tag:slow`, `kind:fetch`; `!` before any
    /// of them takes away. With none, every task here.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Only tasks that the changes since REV can reach; without REV, since the branch left the default branch.
    #[arg(long, value_name = "REV", num_args = 0..=1, require_equals = true)]
    pub affected: Option<Option<String>>,
    /// Job slots; without it, one per core.
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Goes on after a failure with all that does not need what failed.
    #[arg(short, long)]
    pub keep_going: bool,
    /// Runs the selected tasks even if their results are known.
    #[arg(long)]
    pub force: bool,
    /// Shows what would run and why, without running it.
    #[arg(long)]
    pub dry_run: bool,
    /// Runs again whenever an input changes.
    #[arg(long, conflicts_with = "dry_run")]
    pub watch: bool,
    /// How tasks are kept from what they did not declare, where they do not say themselves.
    #[arg(long, value_name = "LEVEL")]
    pub isolation: Option<IsolationLevel>,
    /// Tells every reason why a task runs, not only the first.
    #[arg(long)]
    pub explain: bool,
    /// `json`: one event a line on the standard output, as `drystone schema events` describes them; only what went wrong is
    /// told on the standard error stream.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
    /// Writes a trace for Perfetto or `chrome://tracing`.
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Writes the tasks as a JUnit XML file.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Whose printed output is shown; `failed` without it, `ran` with `--verbose`.
    #[arg(long, value_name = "WHOSE")]
    pub output: Option<OutputOf>,
}

/// Values of `--isolation`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum IsolationLevel {
    /// The best this machine allows, but never none.
    Auto,
    /// Own namespaces and a fresh root: what is not declared does not exist.
    Namespaces,
    /// What is not declared cannot be read, though it can be seen to exist.
    Landlock,
    /// A private copy of the inputs, nothing enforced.
    None,
}

impl From<IsolationLevel> for IsolationRequest {
    fn from(level: IsolationLevel) -> Self {
        match level {
            IsolationLevel::Auto => IsolationRequest::Auto,
            IsolationLevel::Namespaces => IsolationRequest::Namespaces,
            IsolationLevel::Landlock => IsolationRequest::Landlock,
            IsolationLevel::None => IsolationRequest::None,
        }
    }
}

/// Values of `--output`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutputOf {
    /// Of all tasks; that of hits is replayed.
    All,
    /// Of tasks that ran, failed ones at the end.
    Ran,
    /// Of tasks that failed.
    Failed,
    /// Of none.
    None,
}

impl From<OutputOf> for OutputShown {
    fn from(whose: OutputOf) -> Self {
        match whose {
            OutputOf::All => OutputShown::All,
            OutputOf::Ran => OutputShown::Ran,
            OutputOf::Failed => OutputShown::Failed,
            OutputOf::None => OutputShown::None,
        }
    }
}

impl RunArgs {
    /// What the reports are to do.
    pub fn reports(&self) -> ReportRequest {
        ReportRequest {
            format: self.format,
            why: if self.explain { WhyShown::All } else { WhyShown::First },
            output: self.output.map(OutputShown::from),
            profile: self.profile.clone(),
            junit: self.junit.clone(),
        }
    }
}

/// Runs tasks.
pub fn run(_args: RunArgs, _context: &Context) -> Result<ExitKind, CliError> {
    Err(CliError::bug("`run` is not wired"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parsed(line: &[&str]) -> RunArgs {
        match Cli::try_parse_from([&["drystone", "run"], line].concat()) {
            Ok(Cli { command: Some(Command::Run(args)), .. }) => args,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn affected_takes_its_revision_only_with_an_equals_sign() {
        assert_eq!(parsed(&["test"]).affected, None);
        let args = parsed(&["--affected", "test"]);
        assert_eq!((args.affected, args.targets), (Some(None), vec!["test".to_owned()]));
        assert_eq!(parsed(&["--affected=origin/main"]).affected, Some(Some("origin/main".into())));
    }

    #[test]
    fn options_mean_what_the_reference_says() {
        let args = parsed(&["-j", "4", "-k", "--force", "--isolation", "none", "--output=all", "!//a:b", "//c:d"]);
        assert_eq!(args.jobs, NonZeroUsize::new(4));
        assert!(args.keep_going && args.force && !args.dry_run && !args.watch);
        assert_eq!(args.isolation.map(IsolationRequest::from), Some(IsolationRequest::None));
        assert_eq!(args.reports().output, Some(OutputShown::All));
        assert_eq!(args.targets, ["!//a:b", "//c:d"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for line in [&["-j", "0"][..], &["--watch", "--dry-run"], &["--isolation", "chroot"], &["--shard", "1/2"]] {
            assert!(Cli::try_parse_from([&["drystone", "run"], line].concat()).is_err(), "{line:?}");
        }
    }
}
