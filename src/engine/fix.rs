//! `fix` commands: run on writable copies of a task's inputs; what they changed is written to the tree. Caches nothing.

use std::path::Path;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::engine::log::LogCapture;
use crate::engine::materialize::MaterializeError;
use crate::engine::plan::Plan;
use crate::engine::prepare::{command_line, prepare};
use crate::engine::present;
use crate::engine::session::Session;
use crate::engine::view::{self, Purpose};
use crate::fs::atomic::{self, Durability};
use crate::fs::link::file_mode;
use crate::fs::ops;
use crate::manifest::model::{Inputs, RunTask, TaskKind};
use crate::sandbox::spec::Exit;

/// What one `fix` command did.
#[derive(Debug)]
pub struct Fixed {
    /// The task.
    pub label: String,
    /// Files written, relative to the workspace.
    pub written: Vec<RelPath>,
}

/// Runs the `fix` command of every selected task that has one, in plan order.
///
/// Tasks with `fix` must not need others: their inputs are the tree itself. A command that fails changes nothing. Files are
/// only changed, never added or removed.
pub fn fix(session: &Session<'_>, plan: &Plan, selected: &[TaskId]) -> Result<Vec<Fixed>, Diagnostic> {
    let mut all = Vec::new();
    for (ix, task) in plan.tasks.iter().enumerate().filter(|(_, task)| selected.contains(task)) {
        let TaskKind::Run(run) = &session.workspace.tasks[*task].kind else { continue };
        let Some(command) = &run.fix else { continue };
        if run.split.as_ref().is_some_and(|split| split.part.items().is_empty()) {
            continue; // Without items a fixer would take everything.
        }
        let mut fixer = RunTask { command: command.clone(), ..run.clone() };
        fixer.outputs.clear();
        let declared = &session.workspace.tasks[*task];
        if session.graph.dependencies(*task).next().is_some() {
            return Err(Diagnostic::error(format!("`{}` has `fix` and needs other tasks", declared.label))
                .at(&declared.place, "declared here")
                .help("a fix works on the tree alone; split the task in two"));
        }
        if matches!(run.inputs, Inputs::Traced) {
            return Err(Diagnostic::error(format!("`{}` has `fix` and `inputs = \"traced\"`", declared.label))
                .at(&declared.place, "declared here")
                .help("list the files that the fix may change"));
        }
        let written = fix_one(session, *task, &fixer, plan.sources(ix)).map_err(|cause| {
            Diagnostic::error(format!("the fix of `{}` failed: {cause}", declared.label))
                .at(&declared.place, "declared here; nothing was changed")
                .help("run its command by hand to see more")
        })?;
        all.push(Fixed { label: session.label(*task), written });
    }
    Ok(all)
}

fn fix_one(
    session: &Session<'_>,
    task: TaskId,
    fixer: &RunTask,
    sources: &crate::engine::sources::Sources,
) -> Result<Vec<RelPath>, String> {
    let mut prepared = prepare(session, task, sources, &[]).map_err(|problem| problem.message)?;
    let (tools, argv) =
        command_line(session, task, fixer, &prepared.toolchain, prepared.sees).map_err(|problem| problem.message)?;
    prepared.tools = tools;
    prepared.action.work = crate::fingerprint::action::Work::Run { argv };
    let stage = session.store.stage().map_err(|error| error.to_string())?;
    let shown = view::show(session, task, fixer, &prepared, &[], Purpose::Fix);
    let mut shown = shown.map_err(|error| error.to_string())?;
    shown.spec.stage = stage.path().to_owned();
    let sandbox = session.sandbox(prepared.action.isolation).map_err(|error| error.to_string())?;
    let mut capture = LogCapture::new(session.secrets_reaching(task));
    let finished = sandbox
        .run(&shown.spec, &session.cancel, &mut |stream, bytes| capture.take(stream, bytes))
        .map_err(|error| error.to_string())?;
    if finished.exit != Exit::Code(0) {
        let said: Vec<u8> = capture.finish().into_iter().flat_map(|(_, bytes)| bytes).collect();
        return Err(format!("{:?}\n{}", finished.exit, String::from_utf8_lossy(&said).trim_end()));
    }
    let mut written = Vec::new();
    for (path, entry) in &sources.all() {
        let Entry::File { digest, executable, .. } = entry else { continue };
        let fixed = finished.workspace.path().join(path.as_str());
        let Some(bytes) = changed(&fixed, digest)? else { continue };
        write_back(session, path, &bytes, *executable).map_err(|error| error.to_string())?;
        written.push(path.clone());
    }
    Ok(written)
}

/// The new bytes of a file, if the command left a regular file with other bytes there.
fn changed(path: &Path, before: &crate::base::digest::Digest) -> Result<Option<Vec<u8>>, String> {
    match ops::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => {}
        _ => return Ok(None),
    }
    let bytes = ops::read(path).map_err(|error| error.to_string())?;
    Ok((crate::base::digest::Digest::of(&bytes) != *before).then_some(bytes))
}

fn write_back(session: &Session<'_>, path: &RelPath, bytes: &[u8], executable: bool) -> Result<(), MaterializeError> {
    let parent = path.parent().unwrap_or_default();
    let dir = session.root.open_beneath(&parent).map_err(|error| present::refusal(&session.root, &parent, error))?;
    // The bits of the file that is replaced, as far as they are still those that the command saw.
    let stat = dir.stat(path.file_name())?;
    let mode = if stat.is_executable() == executable { stat.mode & 0o777 } else { file_mode(executable) };
    Ok(atomic::write_with_mode((&dir, path.file_name().as_ref()), bytes, mode, Durability::Relaxed)?)
}
