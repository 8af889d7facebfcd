//! Turns a task whose dependencies are done into an action with its key. Runs nothing and writes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::base::span::Place;
use crate::base::tree::{Entry, Listing, TreeSet, fold};
use crate::engine::image_key;
use crate::engine::session::Session;
use crate::engine::sources::{Inputs, Signatures, Sources};
use crate::engine::toolchain::{OutputTree, ROOT_PATH, Toolchain};
use crate::fingerprint::action::{Action, Tracing, Work};
use crate::fingerprint::system;
use crate::fingerprint::tools::Tool;
use crate::fs::unpack;
use crate::graph::build::Purpose;
use crate::manifest::glob::{Pattern, PatternList};
use crate::manifest::image::lock_path;
use crate::manifest::model::{self, Command, FetchTask, RunTask, SystemPolicy, Task, TaskKind, Undeclared, Unpack};
use crate::manifest::recipe::{ImageRecipe, LayerSource};
use crate::sandbox::spec::{HOME_DIR, Level, Network, SCRATCH_DIR};

/// The outputs of a finished task, as its dependants see them.
#[derive(Clone, Debug)]
pub struct Produced {
    /// By path relative to its package.
    pub listing: Arc<Listing>,
    /// Tree digest of all of them.
    pub digest: Digest,
    /// The action, where the task is known to come to different outputs: then it is in the keys of those that need it, and what another
    /// action of it happened to come to cuts none of them off.
    pub unstable: Option<Digest>,
}

/// A dependency with what it produced. All parts of a split task are one dependency.
pub struct Dependency {
    /// The task; the first part of a split one.
    pub task: TaskId,
    /// What it is needed for.
    pub purpose: Purpose,
    /// Only its `interface` outputs are seen.
    pub interface_only: bool,
    /// What it produced.
    pub produced: Arc<Produced>,
}

/// Whose system a task sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sees {
    /// The machine's, keyed as a whole.
    Machine,
    /// The files of its tools and nothing else (`system = "tools"`).
    Tools,
    /// The output tree of a task (`root`).
    Root,
}

impl Sees {
    fn of(session: &Session<'_>, run: &RunTask, level: Level) -> Self {
        match session.workspace.config.system {
            _ if run.root.is_some() => Sees::Root,
            // Where nothing is enforced all of the machine is visible, so all of it counts.
            SystemPolicy::Tools if level == Level::Namespaces => Sees::Tools,
            SystemPolicy::Tools | SystemPolicy::Packages => Sees::Machine,
        }
    }
}

/// Where links to the declared programs lie inside, with `system = "tools"`. No task has such a name.
pub const PROGRAMS_DIR: &str = "/tools/.bin";

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
    /// Everything it sees in the workspace.
    pub inputs: Inputs,
    /// Stat signatures of its source files.
    pub signatures: Signatures,
    /// Resolved tools.
    pub tools: Vec<Arc<Tool>>,
    /// Output trees that are tools or the root.
    pub toolchain: Toolchain,
    /// Whose system it sees.
    pub sees: Sees,
    /// Values of secret variables.
    pub secrets: BTreeMap<String, String>,
    /// Things worth saying.
    pub notes: Vec<Diagnostic>,
}

/// A task of which everything is resolved but the tree of what it sees in the workspace.
pub struct Draft {
    /// The action; of its input tree there is nothing yet.
    action: Action,
    takes: Takes,
    tools: Vec<Arc<Tool>>,
    toolchain: Toolchain,
    sees: Sees,
    secrets: BTreeMap<String, String>,
}

/// What of its inputs is in the key of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Takes {
    /// Everything it sees.
    Tree,
    /// What it was seen to touch; the tree is empty.
    Touched,
    /// The same. The lock file is part of it only if a layer holds it: the action has what else it needs of it.
    Image {
        /// Whether one does.
        holds_lock: bool,
    },
    /// It has none.
    Nothing,
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
    Ok(draft(session, task, dependencies)?.finish(session, sources, dependencies))
}

/// Resolves everything but the input tree. Errors as of [`prepare`].
pub fn draft(session: &Session<'_>, task: TaskId, dependencies: &[Dependency]) -> Result<Draft, Diagnostic> {
    match &session.workspace.tasks[task].kind {
        TaskKind::Run(run) => draft_run(session, task, run, dependencies),
        TaskKind::Service(service) => draft_run(session, task, &service.run, dependencies),
        TaskKind::Fetch(fetch) => Ok(draft_fetch(session, task, fetch)),
    }
}

impl Draft {
    /// The action, with this digest where that of the input tree belongs.
    pub fn action_with(&mut self, inputs: Digest) -> &Action {
        self.action.inputs = inputs;
        &self.action
    }

    /// Puts the inputs together and names the whole. Cost: that of folding them.
    pub fn finish(self, session: &Session<'_>, sources: &Sources, dependencies: &[Dependency]) -> Prepared {
        let Self { mut action, takes, tools, toolchain, sees, secrets } = self;
        if let Work::Image { parts } = &mut action.work {
            // Which of the inputs are source files: patterns of layers select among those alone.
            let mut listing = Listing::clone(&sources.listing);
            if takes == (Takes::Image { holds_lock: false }) {
                listing.remove(&lock_path());
            }
            parts.push(format!("sources={}", fold(&listing).root));
        }
        let inputs = match takes {
            Takes::Tree | Takes::Touched | Takes::Image { holds_lock: true } => {
                Inputs::of(session, sources, dependencies)
            }
            Takes::Image { holds_lock: false } => Inputs::of(session, sources, dependencies).without(&lock_path()),
            Takes::Nothing => Inputs::default(),
        };
        // What a traced task sees of its dependencies is in the key as far as it was touched.
        let trees =
            if matches!(takes, Takes::Tree | Takes::Image { .. }) { inputs.fold() } else { fold(&Listing::new()) };
        action.inputs = trees.root;
        let (key, stream) = action.key();
        let (notes, signatures) = match takes {
            Takes::Tree | Takes::Touched | Takes::Image { .. } => (sources.all_warnings(), sources.signatures()),
            Takes::Nothing => (Vec::new(), Signatures::default()),
        };
        Prepared { action, key, stream, trees, inputs, signatures, tools, toolchain, sees, secrets, notes }
    }
}

/// What a service is to those that use it: nothing on disk, and its key for theirs.
pub fn as_produced(service: &Prepared) -> Produced {
    Produced { listing: Arc::default(), digest: service.key, unstable: None }
}

/// The keys of the services among what a task needs, by label.
fn service_keys(session: &Session<'_>, dependencies: &[Dependency]) -> BTreeMap<String, Digest> {
    let services = dependencies.iter().filter(|needed| needed.purpose == Purpose::Service);
    services.map(|service| (session.label(service.task), service.produced.digest)).collect()
}

/// The actions of the unstable tasks among what a task needs, by label.
fn unstable_actions(session: &Session<'_>, dependencies: &[Dependency]) -> BTreeMap<String, Digest> {
    let unstable = dependencies.iter().filter_map(|needed| Some((needed.task, needed.produced.unstable?)));
    unstable.map(|(task, action)| (session.workspace.whole_label(task), action)).collect()
}

fn draft_run(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    dependencies: &[Dependency],
) -> Result<Draft, Diagnostic> {
    if let Some(recipe) = run.command.image() {
        return draft_image(session, task, run, recipe, dependencies);
    }
    let declared = &session.workspace.tasks[task];
    let toolchain = Toolchain::of(session, run, dependencies)?;
    let level = session.level(run).map_err(|error| error.at(&declared.place, "asked for here"))?;
    let sees = Sees::of(session, run, level);
    let (tools, argv) = command_line(session, task, run, &toolchain, sees)?;
    let (env, secrets) = environment(session, run, &search_path(&tools, &toolchain, sees));
    let trees_as_tools = toolchain.trees.iter().map(|tree| (tree.label.clone(), tree.digest));
    let is_traced = matches!(run.inputs, model::Inputs::Traced);
    let action = Action {
        work: Work::Run { argv },
        env,
        secret_env: secrets.keys().cloned().collect(),
        directory: declared.label.package.clone(),
        inputs: Digest::of(b""),
        tools: tools.iter().map(|tool| (tool.name.clone(), tool.identity)).chain(trees_as_tools).collect(),
        system: (sees == Sees::Machine).then(|| session.system().text.clone()),
        root: toolchain.root.as_ref().map(|root| root.digest),
        platform: system::platform(),
        isolation: level,
        network: if run.network { Network::Host } else { Network::Loopback },
        outputs: written_outputs(run),
        caches: run.caches.iter().map(|cache| cache.as_str().to_owned()).collect(),
        workspace_salt: session.workspace.config.salt.clone(),
        task_salt: run.salt.clone(),
        services: service_keys(session, dependencies),
        unstable: unstable_actions(session, dependencies),
        undeclared: run.undeclared,
        processes: run.resources.processes,
        tracing: if is_traced { Tracing::Unknown } else { Tracing::No },
    };
    let takes = if is_traced { Takes::Touched } else { Takes::Tree };
    Ok(Draft { action, takes, tools, toolchain, sees, secrets })
}

fn draft_image(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    recipe: &ImageRecipe,
    dependencies: &[Dependency],
) -> Result<Draft, Diagnostic> {
    let declared = &session.workspace.tasks[task];
    let at_image = |problem: Diagnostic| problem.at(&declared.place, "declared here");
    let parts = image_key::parts(session, task, recipe, dependencies).map_err(at_image)?;
    let isolation = image_key::level(session, run, recipe).map_err(at_image)?;
    let steps = image_key::has_steps(recipe);
    let mut action = fetch_action(Work::Image { parts }, declared.label.package.clone(), &RelPath::root());
    action.outputs = written_outputs(run);
    action.workspace_salt = session.workspace.config.salt.clone();
    action.task_salt = run.salt.clone();
    action.network = Network::Loopback;
    action.isolation = isolation;
    action.unstable = unstable_actions(session, dependencies);
    if steps {
        action.platform = system::platform();
    }
    let (tools, toolchain, secrets) = (Vec::new(), Toolchain::default(), BTreeMap::new());
    let takes = Takes::Image { holds_lock: holds_lock(recipe) };
    Ok(Draft { action, takes, tools, toolchain, sees: Sees::Root, secrets })
}

/// Whether the lock file is among the files of a layer.
fn holds_lock(recipe: &ImageRecipe) -> bool {
    let mut layers = recipe.platforms.iter().flat_map(|one| &one.layers);
    layers.any(|layer| matches!(&layer.source, LayerSource::Files(files) if files.matches(&lock_path())))
}

/// The dependencies whose outputs appear in the workspace.
pub fn in_workspace(dependencies: &[Dependency]) -> impl Iterator<Item = &Dependency> {
    dependencies.iter().filter(|dependency| dependency.purpose == Purpose::Outputs)
}

/// The part of a dependency's outputs that a dependant sees.
pub fn seen<'a>(
    session: &'a Session<'_>,
    dependency: &'a Dependency,
) -> impl Iterator<Item = (&'a RelPath, &'a Entry)> + 'a {
    let interface = |task: &TaskId| match &session.workspace.tasks[*task].kind {
        TaskKind::Run(run) => Some(&run.interface),
        TaskKind::Fetch(_) | TaskKind::Service(_) => None,
    };
    let mut interfaces: Option<Vec<&PatternList>> = None;
    if dependency.interface_only {
        let parts = session.workspace.parts_beside(&dependency.task);
        let mut all: Vec<&PatternList> = parts.iter().filter_map(interface).collect();
        // Parts of one task most often have the same.
        all.dedup_by(|one, other| {
            one.items.iter().map(|item| &item.pattern.text).eq(other.items.iter().map(|item| &item.pattern.text))
        });
        interfaces = Some(all);
    }
    let is_seen = move |path: &RelPath| interfaces.as_ref().is_none_or(|all| all.iter().any(|one| one.matches(path)));
    dependency.produced.listing.iter().filter(move |(path, _)| is_seen(path))
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
    toolchain: &Toolchain,
    sees: Sees,
) -> Result<(Vec<Arc<Tool>>, Vec<String>), Diagnostic> {
    let declared = &session.workspace.tasks[task];
    let package = &declared.label.package;
    if let Some(root) = &toolchain.root {
        let argv = command_line_in_root(declared, run, toolchain, root)?;
        return Ok((Vec::new(), argv));
    }
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
        Command::Image(_) => unreachable!("BUG: an image has no command line"),
        Command::Shell(script) => vec!["/bin/sh".into(), "-euc".into(), script.to_string()],
        Command::Exec(words) => {
            let mut argv = words.to_vec();
            let visible = words[0].contains('/') && !words[0].starts_with('/');
            if let Some(tool) = tools.iter().find(|tool| tool.name == words[0]) {
                argv[0] = tool.program.display().to_string();
            } else if let Some(program) = toolchain.program(&words[0]) {
                argv[0] = program;
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
    if sees == Sees::Tools {
        tools.extend(session.implicit_tools(run).map_err(|error| {
            Diagnostic::error(format!("{error}, and with `system = \"tools\"` every task has it"))
                .at(&session.workspace.config.place, "declared here")
                .help("leave `system` out, or give the task a `root`")
        })?);
    }
    Ok((tools, argv))
}

/// The command line where programs come from a root file system and from output trees alone.
fn command_line_in_root(
    declared: &Task,
    run: &RunTask,
    toolchain: &Toolchain,
    root: &OutputTree,
) -> Result<Vec<String>, Diagnostic> {
    let missing = |name: &str, place: &Place| {
        Diagnostic::error(format!("tool `{name}` is not in the root file system `{}`", root.label))
            .at(place, format!("`{}` needs it", declared.label))
            .help("make it part of the root, or name the task that makes it under `tools`, such as `\"//:node\"`")
    };
    if let Some(name) = run.tools.iter().find(|name| root.program_in_root(&name.value).is_none()) {
        return Err(missing(&name.value, &name.place));
    }
    match &run.command {
        Command::Image(_) => unreachable!("BUG: an image has no command line"),
        Command::Shell(_) if root.program_in_root("/bin/sh").is_none() => Err(missing("/bin/sh", &declared.place)
            .help("or write the command as an array, which needs no shell: `run = [\"PROGRAM\", …]`")),
        Command::Shell(script) => Ok(vec!["/bin/sh".into(), "-euc".into(), script.to_string()]),
        Command::Exec(words) => {
            let mut argv = words.to_vec();
            if !words[0].contains('/') || words[0].starts_with('/') {
                let program = toolchain.program(&words[0]).or_else(|| root.program_in_root(&words[0]));
                argv[0] = program.ok_or_else(|| missing(&words[0], &declared.place))?;
            }
            Ok(argv)
        }
    }
}

/// `PATH`: the trees first, so that a system directory in which another tool lies does not hide what is in them.
fn search_path(tools: &[Arc<Tool>], toolchain: &Toolchain, sees: Sees) -> String {
    let of_tools = tools.iter().filter_map(|tool| tool.program.parent()).map(|dir| dir.display().to_string());
    let rest: Vec<String> = match sees {
        Sees::Machine => of_tools.chain(["/usr/bin".into(), "/bin".into()]).collect(),
        Sees::Tools => vec![PROGRAMS_DIR.into()],
        Sees::Root => ROOT_PATH.iter().map(|dir| format!("/{dir}")).collect(),
    };
    let mut path: Vec<String> = Vec::new();
    for dir in toolchain.path().chain(rest) {
        if !path.contains(&dir) {
            path.push(dir);
        }
    }
    path.join(":")
}

/// The exact environment, and the secrets apart from it.
fn environment(
    session: &Session<'_>,
    run: &RunTask,
    path: &str,
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let mut env: BTreeMap<String, String> = BTreeMap::from([
        ("PATH".into(), path.to_owned()),
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

fn draft_fetch(session: &Session<'_>, task: TaskId, fetch: &FetchTask) -> Draft {
    let placing = match fetch.unpack {
        Unpack::ByName => format!("unpack {} {}", fetch.strip, archive_name(fetch)),
        Unpack::Image => image_placing(fetch.strip, &image_platform(fetch)),
        Unpack::No if fetch.executable => "executable".into(),
        Unpack::No => "file".into(),
    };
    let work = Work::Fetch { urls: fetch.urls.clone(), expect: fetch.expect, placing };
    Draft {
        action: fetch_action(work, session.package(task).clone(), &fetch.output),
        takes: Takes::Nothing,
        tools: Vec::new(),
        toolchain: Toolchain::default(),
        sees: Sees::Machine,
        secrets: BTreeMap::new(),
    }
}

/// The action of fetching something into a package.
pub fn fetch_action(work: Work, directory: RelPath, output: &RelPath) -> Action {
    Action {
        work,
        env: BTreeMap::new(),
        secret_env: Vec::new(),
        directory,
        inputs: fold(&Listing::new()).root,
        tools: BTreeMap::new(),
        system: None,
        root: None,
        // What is fetched is the same everywhere.
        platform: "any".into(),
        isolation: Level::Namespaces,
        network: Network::Host,
        outputs: vec![output.as_str().to_owned()],
        caches: Vec::new(),
        workspace_salt: None,
        task_salt: None,
        services: BTreeMap::new(),
        unstable: BTreeMap::new(),
        undeclared: Undeclared::Warn,
        processes: None,
        tracing: Tracing::No,
    }
}

/// How an image is placed, as keys have it.
pub fn image_placing(strip: usize, platform: &Platform) -> String {
    format!("oci {strip} {platform}")
}

/// The platform of an image that a fetch means.
pub fn image_platform(fetch: &FetchTask) -> Platform {
    fetch.platform.clone().unwrap_or_else(Platform::host)
}

/// The file name that tells how to unpack: that of the first url that has one.
pub fn archive_name(fetch: &FetchTask) -> &str {
    let mut names = fetch.urls.iter().map(|url| {
        let path = url.split(['?', '#']).next().unwrap_or(url);
        path.rsplit('/').next().unwrap_or(path)
    });
    let first = names.clone().next().unwrap_or_default();
    names.find(|name| unpack::is_archive(name)).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::model::Expected;

    #[test]
    fn the_first_address_with_a_known_ending_tells_how_to_unpack() {
        let check = |urls: &[&str], expect: &str| {
            let fetch = FetchTask {
                urls: urls.iter().map(|url| (*url).to_owned()).collect(),
                expect: Expected::Sha256([0; 32]),
                unpack: Unpack::ByName,
                platform: None,
                strip: 0,
                output: RelPath::root(),
                executable: false,
            };
            assert_eq!(archive_name(&fetch), expect);
        };
        check(&["https://x/a.tar.gz?b=c/d.zip#e", "https://x/b.zip"], "a.tar.gz");
        check(&["https://x/download", "file:///y/b.deb"], "b.deb");
        check(&["https://x/download?a", "https://x/"], "download");
    }
}
