//! The registry of exit codes: every way the program ends, its number and its meaning. Nothing else calls for a number.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitKind {
    /// Everything asked for was done.
    Done,
    /// A task failed.
    Failed,
    /// The command line or a manifest is wrong.
    Usage,
    /// The machine is in the way: disk, permissions, sandbox.
    Infrastructure,
    /// A bug in this program.
    Bug,
    /// Interrupted.
    Interrupted,
}

impl ExitKind {
    /// All of them, by number.
    pub const ALL: [ExitKind; 6] = [
        ExitKind::Done,
        ExitKind::Failed,
        ExitKind::Usage,
        ExitKind::Infrastructure,
        ExitKind::Bug,
        ExitKind::Interrupted,
    ];

    /// The number the shell sees. Scripts rely on these: they never change.
    pub const fn code(self) -> u8 {
        match self {
            ExitKind::Done => 0,
            ExitKind::Failed => 1,
            ExitKind::Usage => 2,
            ExitKind::Infrastructure => 3,
            // EX_SOFTWARE of sysexits.h.
            ExitKind::Bug => 70,
            // 128 + SIGINT, as shells count.
            ExitKind::Interrupted => 130,
        }
    }

    /// What it means, for the reference.
    pub const fn meaning(self) -> &'static str {
        match self {
            ExitKind::Done => "done",
            ExitKind::Failed => "a task failed, or an audit found a difference",
            ExitKind::Usage => "the command line or a manifest is wrong",
            ExitKind::Infrastructure => "the machine is in the way: disk, permissions, sandbox",
            ExitKind::Bug => "a bug in drystone",
            ExitKind::Interrupted => "interrupted",
        }
    }

    /// How a run ends: interrupted before failed before done.
    pub const fn of_run(ok: bool, interrupted: bool) -> Self {
        match (interrupted, ok) {
            (true, _) => ExitKind::Interrupted,
            (false, true) => ExitKind::Done,
            (false, false) => ExitKind::Failed,
        }
    }
}

impl From<ExitKind> for ExitCode {
    fn from(kind: ExitKind) -> Self {
        ExitCode::from(kind.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_what_scripts_rely_on() {
        assert_eq!(ExitKind::ALL.map(ExitKind::code), [0, 1, 2, 3, 70, 130]);
    }

    #[test]
    fn an_interrupted_run_is_never_merely_failed() {
        assert_eq!(ExitKind::of_run(true, false), ExitKind::Done);
        assert_eq!(ExitKind::of_run(false, false), ExitKind::Failed);
        assert_eq!(ExitKind::of_run(false, true), ExitKind::Interrupted);
    }
}
