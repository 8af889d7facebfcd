//! Turns a task whose dependencies are done into an action with its key. Runs nothing and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing, TreeSet, fold};
use crate::engine::session::Session;
use crate::fingerprint::action::{Action, Work};
use crate::fingerprint::system;
use crate::fingerprint::tools::Tool;
use crate::fs::stat::StatKey;
use crate::manifest::glob::{Pattern, PatternList};
use crate::manifest::model::{Command, FetchTask, RunTask, SystemPolicy, TaskKind, Unpack};
use crate::sandbox::spec::{HOME_DIR, Level, Network, SCRATCH_DIR};

/// The outputs of a finished task, as its dependants see them.
#[derive(Clone, Debug)]
pub struct Produced {
    /// By path relative to its package.
    pub listing: Arc<Listing>,
    /// Tree digest of all of them.
    pub digest: Digest,
    /// Whether the same inputs gave other bytes before: then dependants are not cut off early by it.
    pub unstable: bool,
}

/// A dependency with what it produced.
pub struct Dependency {
    /// The task.
    pub task: TaskId,
    /// Only its `interface` outputs are seen.
    pub interface_only: bool,
    /// What it produced.
    pub produced: Arc<Produced>,
}

/// The source files of a task as they are on disk.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Entries by path relative to the workspace.
    pub listing: Listing,
    /// Stat signatures at the time they were digested.
    pub stats: Vec<(RelPath, StatKey)>,
    /// Patterns that matched nothing.
    pub warnings: Vec<Diagnostic>,
}

/// A task ready to be looked up or run.
pub struct Prepared {
    /// The action.
    pub action: Action,
    /// Its digest.
    pub key: Digest,
    /// Its canonical stream.
    pub stream: Vec<u8>,
    /// Trees of the input listing.
    pub trees: TreeSet,
    /// Everything it sees in the workspace, by path relative to it.
    pub listing: Listing,
    /// Stat signatures of its source files.
    pub stats: Vec<(RelPath, StatKey)>,
    /// Resolved tools.
    pub tools: Vec<Arc<Tool>>,
    /// Values of secret variables.
    pub secrets: BTreeMap<String, String>,
    /// Things worth saying.
    pub notes: Vec<Diagnostic>,
}

/// Builds the action of a task.
///
/// Errors are the person's to mend: a tool that is not there, a level that cannot be had.
pub fn prepare(
    session: &Session<'_>,
    task: TaskId,
    sources: &Sources,
    dependencies: &[Dependency],
) -> Result<Prepared, Diagnostic> {
    let declared = &session.workspace.tasks[task];
    match &declared.kind {
        TaskKind::Run(run) => prepare_run(session, task, run, sources, dependencies),
        TaskKind::Service(service) => prepare_run(session, task, &service.run, sources, dependencies),
        TaskKind::Fetch(fetch) => Ok(prepare_fetch(session, task, fetch)),
    }
}

/// What a service is to those that use it: nothing on disk, and its key for theirs.
pub fn as_produced(service: &Prepared) -> Produced {
    Produced { listing: Arc::default(), digest: service.key, unstable: false }
}

/// The keys of the services among what a task needs, by label.
fn service_keys(session: &Session<'_>, dependencies: &[Dependency]) -> BTreeMap<String, Digest> {
    let services = dependencies.iter().filter(|needed| session.workspace.tasks[needed.task].kind.is_service());
    services.map(|service| (session.label(service.task), service.produced.digest)).collect()
}

fn prepare_run(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    sources: &Sources,
    dependencies: &[Dependency],
) -> Result<Prepared, Diagnostic> {
    let declared = &session.workspace.tasks[task];
    let mut listing = sources.listing.clone();
    for dependency in dependencies {
        let package = session.package(dependency.task);
        for (path, entry) in seen(session, dependency) {
            listing.insert(package.join(path), entry.clone());
        }
    }
    drop_shadowed_directories(&mut listing);
    let (tools, argv) = command_line(session, task, run)?;
    let level = session.level(run).map_err(|error| error.at(&declared.place, "asked for here"))?;
    let (env, secrets) = environment(session, run, &tools);
    let trees = fold(&listing);
    let action = Action {
        work: Work::Run { argv },
        env,
        secret_env: secrets.keys().cloned().collect(),
        directory: declared.label.package.clone(),
        inputs: trees.root,
        tools: tools.iter().map(|tool| (tool.name.clone(), tool.identity)).collect(),
        system: match session.workspace.config.system {
            SystemPolicy::Packages => Some(session.system().text.clone()),
            SystemPolicy::Tools => None,
        },
        platform: system::platform(),
        isolation: level,
        network: if run.network { Network::Host } else { Network::Loopback },
        outputs: written_outputs(run),
        caches: run.caches.iter().map(|cache| cache.as_str().to_owned()).collect(),
        workspace_salt: session.workspace.config.salt.clone(),
        task_salt: run.salt.clone(),
        services: service_keys(session, dependencies),
    };
    let (key, stream) = action.key();
    let notes = sources.warnings.clone();
    Ok(Prepared { action, key, stream, trees, listing, stats: sources.stats.clone(), tools, secrets, notes })
}

/// The part of a dependency's outputs that a dependant sees.
pub fn seen<'a>(
    session: &'a Session<'_>,
    dependency: &'a Dependency,
) -> impl Iterator<Item = (&'a RelPath, &'a Entry)> + 'a {
    let interface: Option<&PatternList> = match &session.workspace.tasks[dependency.task].kind {
        TaskKind::Run(run) if dependency.interface_only => Some(&run.interface),
        _ => None,
    };
    dependency.produced.listing.iter().filter(move |(path, _)| interface.is_none_or(|patterns| patterns.matches(path)))
}

/// A directory listed for itself is implied once something lies beneath it.
fn drop_shadowed_directories(listing: &mut Listing) {
    let parents: BTreeSet<RelPath> = listing.keys().filter_map(RelPath::parent).collect();
    listing.retain(|path, entry| *entry != Entry::Dir || !parents.contains(path));
}

/// Patterns of everything a successful run leaves: outputs and reports.
pub fn all_outputs(run: &RunTask) -> Vec<&Pattern> {
    let reports = run.reports.items.iter().filter(|item| !item.exclude).map(|item| &item.pattern);
    run.outputs.iter().map(|output| &output.value).chain(reports).collect()
}

/// The same as the manifest has them, in order, with what reports take away.
fn written_outputs(run: &RunTask) -> Vec<String> {
    let outputs = run.outputs.iter().map(|output| output.value.text.clone());
    let reports = run.reports.items.iter().map(|item| {
        let taken = if item.exclude { "!" } else { "" };
        format!("{taken}{}", item.pattern.text)
    });
    outputs.chain(reports).collect()
}

/// The tools and the command line of a task: declared tools, and the program of an array command, which is always one.
pub fn command_line(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
) -> Result<(Vec<Arc<Tool>>, Vec<String>), Diagnostic> {
    let declared = &session.workspace.tasks[task];
    let package = &declared.label.package;
    let mut tools = Vec::new();
    for name in &run.tools {
        let tool = session.tool(&name.value, package).map_err(|error| {
            Diagnostic::error(format!("{error}, and `{}` needs it", declared.label))
                .at(&name.place, "declared here")
                .help("install it, put its directory on the PATH, or take it out of `tools`")
        })?;
        tools.push(tool);
    }
    let argv = match &run.command {
        Command::Shell(script) => vec!["/bin/sh".into(), "-euc".into(), script.clone()],
        Command::Exec(words) => {
            let mut argv = words.clone();
            let visible = words[0].contains('/') && !words[0].starts_with('/');
            if let Some(tool) = tools.iter().find(|tool| tool.name == words[0]) {
                argv[0] = tool.program.display().to_string();
            } else if !visible {
                let tool = session.tool(&words[0], package).map_err(|error| {
                    Diagnostic::error(format!("{error}, and `{}` runs it", declared.label))
                        .at(&declared.place, "declared here")
                        .help("install it, or write a path such as \"./script.sh\" for a file of the workspace")
                })?;
                argv[0] = tool.program.display().to_string();
                tools.push(tool);
            }
            argv
        }
    };
    Ok((tools, argv))
}

/// The exact environment, and the secrets apart from it.
fn environment(
    session: &Session<'_>,
    run: &RunTask,
    tools: &[Arc<Tool>],
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let mut path: Vec<String> = Vec::new();
    let dirs = tools.iter().filter_map(|tool| tool.program.parent()).map(|dir| dir.display().to_string());
    for dir in dirs.chain(["/usr/bin".into(), "/bin".into()]) {
        if !path.contains(&dir) {
            path.push(dir);
        }
    }
    let mut env: BTreeMap<String, String> = BTreeMap::from([
        ("PATH".into(), path.join(":")),
        ("HOME".into(), HOME_DIR.into()),
        ("TMPDIR".into(), SCRATCH_DIR.into()),
        ("LANG".into(), "C.UTF-8".into()),
        ("TZ".into(), "UTC".into()),
        ("USER".into(), "drystone".into()),
        ("LOGNAME".into(), "drystone".into()),
        // The first moment a zip archive can hold, so that every archiver accepts it.
        ("SOURCE_DATE_EPOCH".into(), "315532800".into()),
    ]);
    let outside = |name: &String| session.ambient.variables.get(name).cloned();
    env.extend(run.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env.extend(run.pass_env.iter().filter_map(|name| Some((name.clone(), outside(name)?))));
    let secrets = run.secret_env.iter().filter_map(|name| Some((name.clone(), outside(name)?))).collect();
    (env, secrets)
}

fn prepare_fetch(session: &Session<'_>, task: TaskId, fetch: &FetchTask) -> Prepared {
    let trees = fold(&Listing::new());
    let placing = match fetch.unpack {
        Unpack::ByName => format!("unpack {} {}", fetch.strip, archive_name(fetch)),
        Unpack::No if fetch.executable => "executable".into(),
        Unpack::No => "file".into(),
    };
    let action = Action {
        work: Work::Fetch { urls: fetch.urls.clone(), expect: fetch.expect, placing },
        env: BTreeMap::new(),
        secret_env: Vec::new(),
        directory: session.package(task).clone(),
        inputs: trees.root,
        tools: BTreeMap::new(),
        system: None,
        // What is fetched is the same everywhere.
        platform: "any".into(),
        isolation: Level::Namespaces,
        network: Network::Host,
        outputs: vec![fetch.output.as_str().to_owned()],
        caches: Vec::new(),
        workspace_salt: None,
        task_salt: None,
        services: BTreeMap::new(),
    };
    let (key, stream) = action.key();
    Prepared {
        action,
        key,
        stream,
        trees,
        listing: Listing::new(),
        stats: Vec::new(),
        tools: Vec::new(),
        secrets: BTreeMap::new(),
        notes: Vec::new(),
    }
}

/// The file name in the first url: it tells how to unpack.
pub fn archive_name(fetch: &FetchTask) -> &str {
    let url = fetch.urls.first().map_or("", String::as_str);
    let path = url.split(['?', '#']).next().unwrap_or(url);
    path.rsplit('/').next().unwrap_or(path)
}
