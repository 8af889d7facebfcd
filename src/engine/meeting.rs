//! Whether a task and its services can reach each other: they need one network, behind one kind of wall. Starts nothing.

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::engine::session::Session;
use crate::manifest::model::{RunTask, Task, TaskKind};
use crate::sandbox::spec::Level;

/// What stands between a task, or a service, and the services it uses.
pub fn obstacles(session: &Session<'_>, task: TaskId, run: &RunTask) -> Vec<Diagnostic> {
    let declared = &session.workspace.tasks[task];
    let used = session.graph.dependencies(task).filter_map(|(needed, edge)| {
        let other = &session.workspace.tasks[needed];
        let TaskKind::Service(service) = &other.kind else { return None };
        obstacle(session, (declared, run), (other, &service.run)).map(|problem| {
            let (message, help) = problem;
            Diagnostic::error(message).at(&edge.place, "so they could not reach each other").help(help)
        })
    });
    used.collect()
}

fn obstacle(
    session: &Session<'_>,
    (task, run): (&Task, &RunTask),
    (service, its): (&Task, &RunTask),
) -> Option<(String, &'static str)> {
    if its.network != run.network {
        let (with, without) = if run.network { (task, service) } else { (service, task) };
        let message = format!("`{}` has `network = true` and `{}` has not", with.label, without.label);
        return Some((message, "give it to both, or to neither"));
    }
    // A level that cannot be had is told by itself.
    let (Ok(own), Ok(other)) = (session.level(run), session.level(its)) else { return None };
    if own != other {
        let (own, other) = (own.word(), other.word());
        let message = format!("`{}` runs at `{own}` and `{}` at `{other}`", task.label, service.label);
        return Some((message, "give both the same `isolation`"));
    }
    if own == Level::Landlock && !run.network {
        let message = format!(
            "at `landlock`, `{}` and `{}` can open no socket without `network = true`",
            task.label, service.label
        );
        return Some((message, "give it to both, or run where namespaces are allowed: `drystone doctor` tells"));
    }
    None
}
