//! Why a command could not do what it was asked, by who has to act: the user, the machine's owner, or us.

use crate::base::diagnostic::Diagnostic;
use crate::base::span::Sources;
use crate::cli::exit::ExitKind;
use crate::fs::ops::FsError;
use crate::report::ink::{Color, Ink, paint};
use crate::report::out::Appearance;
use crate::report::render::{render, render_all};
use crate::store::StoreError;

/// A command that could not be done. A task that failed is not an error but an [`ExitKind`].
#[derive(Debug)]
pub enum CliError {
    /// The command line asks for what is not there.
    Usage(Diagnostic),
    /// Manifests are wrong; at least one of the diagnostics is an error.
    Manifest {
        /// The texts the diagnostics point into.
        sources: Sources,
        /// What is wrong, in the order found.
        diagnostics: Vec<Diagnostic>,
    },
    /// The machine is in the way.
    Infrastructure(Diagnostic),
    /// Somebody wanted it to end.
    Interrupted(Diagnostic),
    /// We are wrong.
    Bug(String),
}

impl CliError {
    /// A usage error.
    pub fn usage(message: impl Into<String>) -> Self {
        CliError::Usage(Diagnostic::error(message))
    }

    /// Trouble with the machine.
    pub fn infrastructure(message: impl Into<String>) -> Self {
        CliError::Infrastructure(Diagnostic::error(message))
    }

    /// It was interrupted; what that leaves.
    pub fn interrupted(message: impl Into<String>) -> Self {
        CliError::Interrupted(Diagnostic::error(message))
    }

    /// A bug of ours.
    pub fn bug(message: impl Into<String>) -> Self {
        CliError::Bug(message.into())
    }

    /// Adds a way out, where the error has room for one.
    pub fn help(self, text: impl Into<String>) -> Self {
        match self {
            CliError::Usage(diagnostic) => CliError::Usage(diagnostic.help(text)),
            CliError::Infrastructure(diagnostic) => CliError::Infrastructure(diagnostic.help(text)),
            other => other,
        }
    }

    /// How the program ends because of it.
    pub fn exit(&self) -> ExitKind {
        match self {
            CliError::Usage(_) | CliError::Manifest { .. } => ExitKind::Usage,
            CliError::Infrastructure(_) => ExitKind::Infrastructure,
            CliError::Interrupted(_) => ExitKind::Interrupted,
            CliError::Bug(_) => ExitKind::Bug,
        }
    }

    /// The words for the person at the terminal, every line ended by a line feed.
    pub fn text(&self, appearance: Appearance) -> String {
        let Appearance { color, width, .. } = appearance;
        match self {
            CliError::Usage(diagnostic) | CliError::Infrastructure(diagnostic) | CliError::Interrupted(diagnostic) => {
                render(diagnostic, &Sources::default(), color, width)
            }
            CliError::Manifest { sources, diagnostics } => render_all(diagnostics, sources, color, width),
            CliError::Bug(what) => bug_text(what, None, color),
        }
    }
}

impl From<FsError> for CliError {
    fn from(error: FsError) -> Self {
        CliError::infrastructure(error.to_string())
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        CliError::infrastructure(error.to_string()).help("`drystone doctor` and `drystone store verify` tell more")
    }
}

/// What is said about a bug of ours: never the user's fault, and what to send us.
pub fn bug_text(what: &str, place: Option<&str>, color: Color) -> String {
    let place = place.map(|place| format!("  at {place}\n")).unwrap_or_default();
    format!(
        "{}: this is a bug in drystone: {what}\n{place}  version {}\n  {}: report it with these lines; \
         RUST_BACKTRACE=1 adds where it came from\n",
        paint(color, Ink::Bad, "error"),
        env!("CARGO_PKG_VERSION"),
        paint(color, Ink::Calm, "help"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_exit_and_its_words() {
        let check = |error: CliError, exit: ExitKind, words: &str| {
            assert_eq!(error.exit(), exit);
            assert!(error.text(Appearance::plain()).contains(words), "{}", error.text(Appearance::plain()));
        };
        let usage = CliError::usage("no task is called `biuld`").help("did you mean `build`?");
        check(usage, ExitKind::Usage, "error: no task is called `biuld`\n  help: did you mean `build`?\n");
        check(CliError::infrastructure("the disk is full"), ExitKind::Infrastructure, "error: the disk is full\n");
        check(CliError::bug("x"), ExitKind::Bug, "error: this is a bug in drystone: x\n");
        let manifest = CliError::Manifest { sources: Sources::default(), diagnostics: vec![Diagnostic::error("bad")] };
        check(manifest, ExitKind::Usage, "error: bad\n");
    }
}
