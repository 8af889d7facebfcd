//! What a task may use at once, whether that is held here, and what is said when it was too much. Holds nobody itself.

use std::collections::BTreeMap;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::time::human_bytes;
use crate::engine::session::Session;
use crate::manifest::model::RunTask;
use crate::sandbox::limits;
use crate::sandbox::spec::{Level, Limit, Limits};

/// The limits of a task.
pub fn of(run: &RunTask) -> Limits {
    let usual = Limits::default();
    Limits { memory_bytes: run.resources.memory_bytes, processes: run.resources.processes.unwrap_or(usual.processes) }
}

/// `it was killed: it used more than 64.0 MiB of memory; …`
pub fn sentence(limit: Limit, run: &RunTask) -> String {
    let limits = of(run);
    match limit {
        Limit::Memory => format!(
            "killed for using more than {} of memory; raise `resources.memory` if it needs more",
            human_bytes(limits.memory_bytes.unwrap_or(0))
        ),
        Limit::Processes => format!(
            "killed for having more than {} processes at once; raise `resources.processes` if it needs more",
            limits.processes
        ),
    }
}

/// The same of a service, whose limits are the usual ones.
pub fn service_sentence(limit: Limit) -> String {
    match limit {
        Limit::Memory => "killed for using too much memory".into(),
        Limit::Processes => format!("killed for having more than {} processes at once", Limits::default().processes),
    }
}

/// What to say where limits that tasks ask for are not held, once for all of them.
pub fn unheld(session: &Session<'_>, tasks: &[TaskId]) -> Vec<Diagnostic> {
    let mut asked: BTreeMap<Limit, BTreeMap<Level, Vec<TaskId>>> = BTreeMap::new();
    for task in tasks {
        let Some(run) = session.workspace.tasks[*task].kind.command() else { continue };
        // One that is refused is told elsewhere.
        let Ok(level) = session.level(run) else { continue };
        for (limit, is_asked) in [
            (Limit::Memory, run.resources.memory_bytes.is_some()),
            (Limit::Processes, run.resources.processes.is_some()),
        ] {
            if is_asked {
                asked.entry(limit).or_default().entry(level).or_default().push(*task);
            }
        }
    }
    let mut told = Vec::new();
    for (limit, levels) in asked {
        let mut tasks = Vec::new();
        let mut refusal = None;
        for (level, asking) in levels {
            let held = limits::held(level);
            let held = match limit {
                Limit::Memory => held.memory,
                Limit::Processes => held.processes,
            };
            if let Err(refused) = held {
                tasks.extend(asking);
                refusal = Some(refused);
            }
        }
        let (Some(first), Some(refusal)) = (tasks.first(), refusal) else { continue };
        let others = match tasks.len() - 1 {
            0 => String::new(),
            1 => " and of another task".into(),
            others => format!(" and of {others} other tasks"),
        };
        let key = match limit {
            Limit::Memory => "resources.memory",
            Limit::Processes => "resources.processes",
        };
        let label = session.label(*first);
        let message = format!("`{key}` of `{label}`{others} is not enforced here: {}", refusal.reason);
        told.push(Diagnostic::warning(message).help(refusal.remedy));
    }
    told
}
