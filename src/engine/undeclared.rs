//! What a task touched and does not declare, in words that name the line to add; and the second look at a failed task that finds
//! it out. Changes no result and keeps none.

use std::time::{Duration, Instant};

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::engine::prepare::{Dependency, Prepared};
use crate::engine::session::{Observe, Session};
use crate::engine::view::{self, Purpose};
use crate::engine::workplace::Place;
use crate::fs::ops::{self, Kind};
use crate::manifest::model::{Inputs, RunTask, TaskKind, Undeclared};
use crate::sandbox::spec::{Exit, Level, Observation, Touch};
use crate::workspace::discover::MANIFEST;

/// Lines told per task.
const TOLD_MAX: usize = 5;

/// Names told of a directory that was listed.
const NAMES_TOLD_MAX: usize = 3;

/// A failure that took longer is not repeated unasked.
const SECOND_LOOK_MAX: Duration = Duration::from_secs(10);

/// What was touched and is not declared.
#[derive(Debug, Default)]
pub struct Findings {
    /// Files and directories that were looked for, are there, and are not seen: each as a line with the way out.
    pub missed: Vec<String>,
    /// Directories that were listed without some of their files.
    pub listed: Vec<String>,
}

impl Findings {
    /// At most a few lines; what was merely listed only where nothing else is the matter.
    fn lines(mut self) -> Vec<String> {
        let mut lines = if self.missed.is_empty() { std::mem::take(&mut self.listed) } else { self.missed };
        let rest = lines.len().saturating_sub(TOLD_MAX);
        if rest > 0 {
            lines.truncate(TOLD_MAX);
            lines.push(format!("and {rest} more"));
        }
        lines
    }

    /// As one diagnostic under this headline; `None` if there is nothing to tell.
    pub fn told(self, headline: Diagnostic) -> Option<Diagnostic> {
        let lines = self.lines();
        (!lines.is_empty()).then(|| lines.into_iter().fold(headline, Diagnostic::help))
    }
}

/// Whether the command is observed whenever it runs.
pub fn is_observed(session: &Session<'_>, run: &RunTask) -> bool {
    session.options.observe == Observe::Always
        || run.undeclared == Undeclared::Error
        || matches!(run.inputs, Inputs::Traced)
}

/// Runs a failed command once more to see what it missed; tells only what it found, or how to look where that takes too long.
///
/// It is no attempt: nothing of it is kept, counted or shown. It is given up at Ctrl-C and after a multiple of the failure's time.
pub fn look_again(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
    dependencies: &[Dependency],
    failed: (Exit, Duration),
) -> Option<Diagnostic> {
    let (exit, took) = failed;
    let Exit::Code(1..) = exit else { return None };
    if prepared.action.isolation != Level::Namespaces || is_observed(session, run) || session.cancel.is_cancelled() {
        return None;
    }
    let label = session.label(task);
    if run.network || took > SECOND_LOOK_MAX {
        let way = format!("`drystone run --observe {label}` tells whether it looked for files that are no inputs");
        return Some(Diagnostic::note("it was not run again to see what it missed").help(way));
    }
    let mut shown = view::show(session, task, run, prepared, dependencies, Purpose::Run).ok()?;
    let place = Place::of(session, prepared.action.isolation, &shown.spec).ok()?;
    shown.spec.stage = place.path().to_owned();
    shown.spec.observe = true;
    let patience = took * 4 + Duration::from_secs(5);
    shown.spec.timeout = Some(run.timeout.map_or(patience, |timeout| timeout.min(patience)));
    let sandbox = session.sandbox(prepared.action.isolation).ok()?;
    let started = Instant::now();
    let finished = sandbox.run(&shown.spec, &session.cancel, &mut |_, _| {}).ok()?;
    tracing::debug!(%label, took = ?started.elapsed(), exit = ?finished.exit, "a failed task was looked at again");
    // Whatever it did this time, it was not what it did before.
    if finished.exit != exit {
        return None;
    }
    let findings = find(session, task, run, prepared, &finished.observation?);
    findings.told(Diagnostic::note(format!("looked once more at `{label}` to see what it missed")))
}

/// Compares what was touched with what the workspace holds.
///
/// Cost: one `stat` per path that was looked for and not found; listings of the directories in question.
pub fn find(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
    observation: &Observation,
) -> Findings {
    let looker = Looker { session, task, run };
    let mut findings = Findings::default();
    let mut missed: Vec<(RelPath, String)> = Vec::new();
    for (path, touch) in &observation.paths {
        if touch.has(Touch::ABSENT) && (!touch.has(Touch::WRITTEN) || touch.has(Touch::READ)) && !looker.is_own(path) {
            missed.extend(looker.missed(path).map(|line| (path.clone(), line)));
        }
        if touch.has(Touch::LISTED) && looker.is_of_package(path) {
            findings.listed.extend(looker.listed(path, prepared));
        }
    }
    // Byte order puts what lies in a directory behind it; the file says more than the directory does.
    let deeper = |dir: &RelPath| missed.iter().any(|(path, _)| path != dir && path.starts_with(dir));
    findings.missed = missed.iter().filter(|(path, _)| !deeper(path)).map(|(_, line)| line.clone()).collect();
    findings
}

struct Looker<'a> {
    session: &'a Session<'a>,
    task: TaskId,
    run: &'a RunTask,
}

impl Looker<'_> {
    /// Strictly beneath the package: what lies around in the package itself is listed by many a tool without need.
    fn is_of_package(&self, dir: &RelPath) -> bool {
        dir.strip_prefix(self.session.package(self.task)).is_some_and(|own| !own.is_root())
    }

    /// Whether the task makes the path, or may write there.
    fn is_own(&self, path: &RelPath) -> bool {
        let own = path.strip_prefix(self.session.package(self.task));
        let cached = own.is_some_and(|own| self.run.caches.iter().any(|cache| own.starts_with(cache)));
        cached
            || self.run.scratch.matches(path)
            || self.session.outputs.producers(path).iter().any(|(task, _)| *task == self.task)
    }

    /// The line for a path that was looked for and not found, if the workspace has it.
    fn missed(&self, path: &RelPath) -> Option<String> {
        let label = self.session.label(self.task);
        let producer = self.session.outputs.producers(path).first().map(|(task, _)| *task);
        let disk = self.session.workspace.root.join(path.as_str());
        let kind = ops::symlink_metadata(&disk).ok()?.file_type();
        if let Some(producer) = producer.filter(|producer| self.session.outputs.hides(path, *producer)) {
            return self.may_need(producer).then(|| {
                let (of, need) = (self.session.label(producer), self.as_need(producer));
                format!("`{path}` was looked for and is an output of `{of}`, not seen by `{label}`; add \"{need}\" to `needs`")
            });
        }
        let pattern = if kind.is_dir() { self.directory(path)? } else { self.file(path)? };
        Some(format!("`{path}` was looked for and is not an input of `{label}`; {}", self.advice(path, &pattern)))
    }

    /// Whether the task could need another: not if it does already, nor if that one needs this.
    fn may_need(&self, producer: TaskId) -> bool {
        let graph = self.session.graph;
        graph.dependencies(self.task).all(|(needed, _)| needed != producer)
            && !graph.closure(&[producer]).contains(&self.task)
    }

    fn as_need(&self, producer: TaskId) -> String {
        let text = self.session.label(producer);
        let package = format!("//{}:", self.session.package(self.task));
        text.strip_prefix(&package).map_or_else(|| text.clone(), |name| format!(":{name}"))
    }

    /// The pattern for a source file; `None` if git ignores it or no task sees it.
    fn file(&self, path: &RelPath) -> Option<String> {
        let around = self.session.files.look(&path.parent()?);
        let is_source = around.binary_search_by(|found| found.path.cmp(path)).is_ok();
        (is_source && path.file_name() != MANIFEST).then(|| globset::escape(path.as_str()))
    }

    /// The pattern for a directory with source files; `None` if it has none.
    fn directory(&self, path: &RelPath) -> Option<String> {
        let beneath = self.session.files.look(path);
        let has_source =
            beneath.iter().any(|found| found.kind != Kind::Dir && !self.session.outputs.hides(&found.path, self.task));
        (has_source && !path.is_root()).then(|| format!("{}/**", globset::escape(path.as_str())))
    }

    /// The line to add. What the package has already stays an input.
    fn advice(&self, path: &RelPath, pattern: &str) -> String {
        let package = self.session.package(self.task);
        let own = path.strip_prefix(package).and_then(|_| pattern.strip_prefix(&globset::escape(package.as_str())));
        let written = match own {
            Some(own) => own.trim_start_matches('/').to_owned(),
            None => format!("//{pattern}"),
        };
        match &self.run.inputs {
            Inputs::Patterns(_) => format!("add \"{written}\" to `inputs`"),
            // Sees every source file as it is.
            Inputs::Traced => "it is there for no task that traces".into(),
            Inputs::Package => format!("write `inputs = [\"**\", \"{written}\"]`"),
        }
    }

    /// The line for a directory that was listed without some of its files.
    fn listed(&self, dir: &RelPath, prepared: &Prepared) -> Option<String> {
        let beneath = self.session.files.look(dir);
        let hidden: Vec<&str> = beneath
            .iter()
            .filter(|found| found.kind != Kind::Dir && found.path.parent().as_ref() == Some(dir))
            .filter(|found| !prepared.inputs.all().contains_key(&found.path) && found.path.file_name() != MANIFEST)
            .filter(|found| !self.session.outputs.hides(&found.path, self.task))
            .map(|found| found.path.file_name())
            .collect();
        let first = hidden.first()?;
        let names: Vec<String> = hidden.iter().take(NAMES_TOLD_MAX).map(|name| format!("`{name}`")).collect();
        let more = hidden.len() - names.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let path = dir.child(first);
        let advice = self.advice(&path, &globset::escape(path.as_str()));
        Some(format!(
            "`{dir}` was listed without {}{more}, which are no inputs; if it matters, {advice}",
            names.join(", ")
        ))
    }
}

/// The command did what it should, but touched what it does not declare: the failure where that is one.
pub fn violation(session: &Session<'_>, task: TaskId, findings: Findings, written: &[RelPath]) -> Option<Diagnostic> {
    let declared = &session.workspace.tasks[task];
    if !matches!(&declared.kind, TaskKind::Run(run) if run.undeclared == Undeclared::Error) {
        return None;
    }
    let wrote = written.iter().map(|path| {
        format!("`{path}` was written and is not declared; add it to `outputs`, or to `scratch` to have it thrown away")
    });
    let findings = Findings { missed: findings.missed.into_iter().chain(wrote).collect(), listed: Vec::new() };
    let headline =
        format!("`{}` touched what it does not declare, which `undeclared = \"error\"` forbids", declared.label);
    findings.told(Diagnostic::error(headline).at(&declared.place, "declared here"))
}
