//! What cannot be done with `--offline`, and what a person does about it. Starts nothing.

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::engine::fetch;
use crate::engine::session::{Reach, Session};
use crate::manifest::model::TaskKind;

/// Why a task that has no result may not be run; `None` if it may.
pub fn refusal(session: &Session<'_>, task: TaskId) -> Option<Diagnostic> {
    if session.options.reach == Reach::Declared {
        return None;
    }
    let declared = &session.workspace.tasks[task];
    let (cause, help) = match &declared.kind {
        TaskKind::Fetch(fetch) => {
            let (label, urls) = (&declared.label, fetch::out_of_reach(fetch)?);
            let cause = format!("`{label}` is not in the store, and `--offline` keeps it from {urls}");
            (cause, "run it once without `--offline`, or add a copy on this machine to `urls`: `file://…`")
        }
        kind if kind.command().is_some_and(|run| run.network) => {
            let cause = format!("`{}` has `network = true`, which `--offline` does not give", declared.label);
            (cause, "run it without `--offline`, or let a `[fetch.NAME]` get what it needs")
        }
        _ => return None,
    };
    Some(Diagnostic::error(cause).at(&declared.place, "declared here").help(help))
}
