//! From a selection to a plan: the closed set of tasks in order, with their source files read. Runs nothing, writes nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::engine::meeting;
use crate::engine::rest::Rest;
use crate::engine::scheduler::{Ix, Node, UNKNOWN_MS, Weight};
use crate::engine::session::{Reuse, Session};
use crate::engine::sources::{SharedSources, Sources};
use crate::engine::traced;
use crate::manifest::model::{Command, Inputs, RunTask, TaskKind};
use crate::sandbox::spec::Level;
use crate::store::{History, StoreError};
use crate::workspace::inputs::{self, InputError, InputFiles, Selects, input_files};
use crate::workspace::split::{Listed, Lister};
use crate::workspace::stat_index::{Leaf, LeafError};

/// What a run will work through.
pub struct Plan {
    /// The tasks, each after everything it needs.
    pub tasks: Vec<TaskId>,
    /// Positions by task.
    pub positions: HashMap<TaskId, Ix>,
    /// Source files by position; of what is left of an earlier run, [`Rest`] has them.
    all_sources: Vec<Sources>,
    /// Expected time by position, where known, in milliseconds.
    pub expected_ms: Vec<Option<u64>>,
    /// What is known of earlier runs, by position.
    pub history: Vec<History>,
    /// Scheduler nodes by position; behind them come tasks that are done already.
    pub nodes: Vec<Node>,
    /// The tasks that were asked for, without what they need.
    pub selected: HashSet<TaskId>,
    /// What an earlier run left to do, if this is no more than that.
    pub rest: Option<Rest>,
}

impl Plan {
    /// What is left of an earlier run: the tasks that are to be looked at and after them those that they need, in that order.
    pub fn of_rest(rest: Rest) -> Self {
        let (tasks, nodes) = (rest.tasks(), rest.nodes());
        let positions = tasks.iter().enumerate().map(|(position, task)| (*task, position)).collect();
        let expected_ms: Vec<Option<u64>> = nodes.iter().map(|node| Some(node.duration_ms)).collect();
        let history = |duration_ms: &Option<u64>| History { duration_ms: *duration_ms, ..History::default() };
        Self {
            history: expected_ms.iter().map(history).collect(),
            selected: rest.selected(),
            all_sources: Vec::new(),
            rest: Some(rest),
            tasks,
            positions,
            expected_ms,
            nodes,
        }
    }

    /// Source files of the task at a position.
    pub fn sources(&self, ix: Ix) -> &Sources {
        match &self.rest {
            Some(rest) => rest.sources(ix),
            None => &self.all_sources[ix],
        }
    }

    /// Whether a service stands at a position.
    pub fn is_service(&self, session: &Session<'_>, ix: Ix) -> bool {
        session.workspace.tasks.facts().services.binary_search(&self.tasks[ix]).is_ok()
    }

    /// Whether the task at a position may take an earlier result: `--force` is meant for the tasks that were asked for.
    pub fn reuse(&self, session: &Session<'_>, ix: Ix) -> Reuse {
        if self.selected.contains(&self.tasks[ix]) { session.options.reuse } else { Reuse::Results }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The manifest or the tree is wrong: the person's to mend.
    #[error("{} problems in the workspace", .0.len())]
    Input(Vec<Diagnostic>),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Plans the selected tasks with everything they need.
///
/// Checks what can be checked without running: tools, levels, input files, all reported together. Cost: proportional to the
/// closure of the selection; one `stat` per source file.
pub fn plan(session: &Session<'_>, selected: &[TaskId]) -> Result<Plan, PlanError> {
    let tasks = session.graph.closure(selected);
    let positions: HashMap<TaskId, Ix> = tasks.iter().enumerate().map(|(position, task)| (*task, position)).collect();
    let mut problems = Vec::new();
    check_machine(session, &tasks, &mut problems);
    let sources = read_sources(session, &tasks, &mut problems);
    if problems.iter().any(Diagnostic::is_error) {
        return Err(PlanError::Input(problems));
    }
    let history = histories(session, &tasks)?;
    let declared = |task: &TaskId| &session.workspace.tasks[*task].kind;
    let mut nodes = Vec::with_capacity(tasks.len());
    let mut expected_ms = Vec::with_capacity(tasks.len());
    for (task, known) in tasks.iter().zip(&history) {
        let duration = known.duration_ms;
        expected_ms.push(duration);
        let mut dependencies: Vec<Ix> =
            session.graph.dependencies(*task).map(|(needed, _)| positions[&needed]).collect();
        dependencies.sort_unstable();
        dependencies.dedup();
        nodes.push(Node {
            dependencies,
            duration_ms: if declared(task).is_service() { 0 } else { duration.unwrap_or(UNKNOWN_MS) },
            failed_last: known.last_failed,
            weight: weight(session, *task, known.max_rss_kib),
        });
    }
    let selected = selected.iter().copied().collect();
    Ok(Plan { tasks, positions, all_sources: sources, expected_ms, history, nodes, selected, rest: None })
}

/// What is known of earlier runs. The store is asked only if some task did not stand when the last run ended: those that did have not
/// run since.
fn histories(session: &Session<'_>, tasks: &[TaskId]) -> Result<Vec<History>, StoreError> {
    let labels: Vec<String> = tasks.iter().map(|task| session.label(*task)).collect();
    let remembered = tasks.iter().zip(&labels).map(|(task, label)| {
        // Nothing is expected of services.
        let is_service = session.workspace.tasks[*task].kind.is_service();
        if is_service { Some(History::default()) } else { session.standing.history(label) }
    });
    if let Some(all) = remembered.collect::<Option<Vec<History>>>() {
        return Ok(all);
    }
    let texts: Vec<&str> = labels.iter().map(String::as_str).collect();
    let history = session.store.history(&session.worktree(), &texts)?;
    Ok(labels.iter().map(|label| history.get(label).copied().unwrap_or_default()).collect())
}

fn weight(session: &Session<'_>, task: TaskId, learned_rss_kib: u64) -> Weight {
    match &session.workspace.tasks[task].kind {
        // A service holds nothing: it runs in no job slot.
        TaskKind::Fetch(_) | TaskKind::Service(_) => Weight::light(),
        TaskKind::Run(run) => Weight {
            cpu: run.resources.cpu,
            memory: run.resources.memory_bytes.unwrap_or(learned_rss_kib * 1024),
            pool: run.resources.pool.as_ref().map(|pool| pool.value.clone()),
            exclusive: run.resources.exclusive,
        },
    }
}

/// Resolves every tool and level that the tasks ask for, so that nothing runs if one is missing.
fn check_machine(session: &Session<'_>, tasks: &[TaskId], problems: &mut Vec<Diagnostic>) {
    // First of all, and on this thread: everything below may ask for it from many.
    session.system();
    for task in tasks {
        let Some(run) = session.workspace.tasks[*task].kind.command() else { continue };
        check_tools(session, *task, run, problems);
        problems.extend(meeting::obstacles(session, *task, run));
        match session.level(run) {
            Ok(level) if matches!(run.inputs, Inputs::Traced) && level != Level::Namespaces => problems.push(
                Diagnostic::error(format!(
                    "`{}` cannot be traced at the `{}` level",
                    session.label(*task),
                    level.word()
                ))
                .at(&session.workspace.tasks[*task].place, "`inputs = \"traced\"` here")
                .help("run it at the `namespaces` level, or list its inputs"),
            ),
            Ok(_) => {}
            Err(problem) => problems.push(problem.at(&session.workspace.tasks[*task].place, "asked for here")),
        }
        if let Some(pool) = &run.resources.pool
            && !session.workspace.config.pools.contains_key(&pool.value)
        {
            let known = session.workspace.config.pools.keys().map(String::as_str);
            let near = crate::base::diagnostic::nearest(&pool.value, known);
            let help = near.map_or_else(
                || format!("add `pools = {{ {} = 1 }}` to `[workspace]`", pool.value),
                |near| format!("did you mean `{near}`?"),
            );
            problems.push(Diagnostic::error(format!("unknown pool `{}`", pool.value)).at(&pool.place, "").help(help));
        }
    }
}

fn check_tools(session: &Session<'_>, task: TaskId, run: &RunTask, problems: &mut Vec<Diagnostic>) {
    // What a root file system has is known once it is made.
    if run.root.is_some() {
        return;
    }
    let declared = &session.workspace.tasks[task];
    for name in &run.tools {
        if let Err(error) = session.tool(&name.value, &declared.label.package) {
            problems.push(
                Diagnostic::error(format!("{error}, and `{}` needs it", declared.label))
                    .at(&name.place, "declared here")
                    .help("install it, put its directory on the PATH, or take it out of `tools`"),
            );
        }
    }
    if let Command::Exec(words) = &run.command {
        let of_workspace = words[0].contains('/') && !words[0].starts_with('/');
        let declared_tool = run.tools.iter().any(|tool| tool.value == words[0]);
        // It may be in one of the trees, which need not have been made yet.
        if !of_workspace
            && !declared_tool
            && run.tool_trees.is_empty()
            && let Err(error) = session.tool(&words[0], &declared.label.package)
        {
            problems.push(
                Diagnostic::error(format!("{error}, and `{}` runs it", declared.label))
                    .at(&declared.place, "declared here")
                    .help("install it, or write a path such as \"./script.sh\" for a file of the workspace"),
            );
        }
    }
}

/// Lists the source files of every task and digests all of them in one parallel batch. What tasks select alike they have in common.
fn read_sources(session: &Session<'_>, tasks: &[TaskId], problems: &mut Vec<Diagnostic>) -> Vec<Sources> {
    if tasks.iter().any(|task| traced::of(session, *task).is_some()) {
        // On this thread, for the same reason as the system.
        session.sources();
    }
    let mut lister = Lister::new(session.workspace, &session.files, &session.outputs);
    let mut listed: Vec<Listed> = Vec::with_capacity(tasks.len());
    // The task that is named where something shared cannot be read.
    let mut sharing: Vec<TaskId> = Vec::new();
    for (task, early) in tasks.iter().zip(list_early(session, tasks)) {
        let files = early.map(|own| own.map(|own| Listed { own, shared: None })).unwrap_or_else(|| lister.list(*task));
        match files {
            Ok(files) => {
                sharing.resize(lister.shared.len(), *task);
                listed.push(files);
            }
            Err(error) => {
                let place = &session.workspace.tasks[*task].place;
                problems.push(Diagnostic::error(error.to_string()).at(place, "needed by this task"));
                listed.push(Listed::default());
            }
        }
    }
    let shared = std::mem::take(&mut lister.shared);
    let leaves = Leaves::of(session, listed.iter().map(|listed| &*listed.own).chain(&shared));
    let of_shared = |(files, task): (InputFiles, &TaskId)| {
        Arc::new(SharedSources::new(sources(session, *task, &files, &leaves, problems)))
    };
    let shared: Vec<Arc<SharedSources>> = shared.into_iter().zip(&sharing).map(of_shared).collect();
    let mut known: HashMap<*const InputFiles, Sources> = HashMap::new();
    let of_task = |(task, listed): (&TaskId, &Listed)| {
        let own = match known.get(&Arc::as_ptr(&listed.own)) {
            Some(own) => own.clone(),
            None => {
                let before = problems.len();
                let own = sources(session, *task, &listed.own, &leaves, problems);
                // A problem is told of every task that has it.
                if problems.len() == before {
                    known.insert(Arc::as_ptr(&listed.own), own.clone());
                }
                own
            }
        };
        Sources { shared: listed.shared.map(|position| Arc::clone(&shared[position])), ..own }
    };
    tasks.iter().zip(&listed).map(of_task).collect()
}

/// The source files of the tasks that are no parts, listed in parallel, and for tasks that select alike once.
fn list_early(session: &Session<'_>, tasks: &[TaskId]) -> Vec<Option<Result<Arc<InputFiles>, InputError>>> {
    let selects = |task: &TaskId| {
        let is_part = session.workspace.split_of(*task).is_some();
        Selects::of(session.workspace, *task).filter(|_| !is_part)
    };
    let mut positions: HashMap<Selects, usize> = HashMap::new();
    let mut different: Vec<TaskId> = Vec::new();
    let place = |task: &TaskId| {
        Some(*positions.entry(selects(task)?).or_insert_with(|| {
            different.push(*task);
            different.len() - 1
        }))
    };
    let places: Vec<Option<usize>> = tasks.iter().map(place).collect();
    let list = |task: &TaskId| input_files(session.workspace, &session.files, *task, &session.outputs).map(Arc::new);
    session.cpu.install(|| {
        inputs::list_early(session.workspace, &session.files, &different);
        let listed: Vec<_> = different.par_iter().map(list).collect();
        let of_task = |(task, place): (&TaskId, &Option<usize>)| match &listed[(*place)?] {
            Ok(files) if files.unmatched.is_empty() => Some(Ok(Arc::clone(files))),
            // What is to be said names the task.
            _ => Some(list(task)),
        };
        tasks.par_iter().zip(&places).map(of_task).collect()
    })
}

/// What lies at every source path.
struct Leaves {
    /// In byte order.
    paths: Vec<RelPath>,
    found: Vec<Result<Leaf, LeafError>>,
}

impl Leaves {
    /// Looks at every path once, in parallel.
    fn of<'f>(session: &Session<'_>, files: impl Iterator<Item = &'f InputFiles>) -> Self {
        let mut lists: Vec<&[RelPath]> = files.map(|files| files.files.as_slice()).collect();
        // Most lists are of one package: in this order what they make together is nearly sorted, and tasks that select alike come
        // one after the other.
        lists.sort_unstable_by_key(|list| (list.first(), list.as_ptr()));
        lists.dedup_by_key(|list| list.as_ptr());
        let mut paths: Vec<&RelPath> = lists.into_iter().flatten().collect();
        paths.sort();
        paths.dedup();
        let paths: Vec<RelPath> = paths.into_iter().cloned().collect();
        let found = session.leaves(&paths);
        Self { paths, found }
    }

    /// What lies at each of some paths, in their order. Cost: little for paths that are beside each other.
    fn at<'a>(&'a self, files: &'a [RelPath]) -> impl Iterator<Item = (&'a RelPath, &'a Result<Leaf, LeafError>)> {
        let mut next = 0;
        files.iter().map(move |path| {
            if self.paths.get(next) != Some(path) {
                next = self.paths.binary_search(path).expect("every path was looked at");
            }
            next += 1;
            (path, &self.found[next - 1])
        })
    }
}

fn sources(
    session: &Session<'_>,
    task: TaskId,
    files: &InputFiles,
    leaves: &Leaves,
    problems: &mut Vec<Diagnostic>,
) -> Sources {
    let mut entries: Vec<(RelPath, Entry)> = Vec::with_capacity(files.files.len() + files.empty_dirs.len());
    let mut stats = Vec::with_capacity(files.files.len());
    entries.extend(files.empty_dirs.iter().map(|dir| (dir.clone(), Entry::Dir)));
    for (path, leaf) in leaves.at(&files.files) {
        match leaf {
            Ok(leaf) => {
                entries.push((path.clone(), leaf.entry.clone()));
                stats.push((path.clone(), leaf.stat));
            }
            Err(error) => {
                let declared = &session.workspace.tasks[task];
                problems.push(
                    Diagnostic::error(format!("cannot read an input of `{}`: {error}", declared.label))
                        .at(&declared.place, "needed by this task")
                        .help("make it readable, or take it away from `inputs` with a `!` pattern"),
                );
            }
        }
    }
    Sources {
        listing: Arc::new(entries.into_iter().collect()),
        stats: Arc::new(stats),
        warnings: files.unmatched.clone(),
        shared: None,
    }
}
