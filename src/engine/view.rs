//! From a prepared task to the view its sandbox shows. Reads inputs and keeps copies in the store; changes nothing in the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::engine::ages::{self, Ages};
use crate::engine::contents::Contents;
use crate::engine::limits;
use crate::engine::owned::whole_directories;
use crate::engine::prepare::{Dependency, PROGRAMS_DIR, Prepared, Sees, all_outputs, in_workspace, seen};
use crate::engine::restore;
use crate::engine::session::Session;
use crate::engine::shape::{self, Whole};
use crate::engine::showing::Showing;
use crate::engine::toolchain_dirs::tree_dir;
use crate::engine::visible::Visible;
use crate::engine::waiting;
use crate::fs::stat::StatKey;
use crate::manifest::model::{Inputs, RunTask};
use crate::sandbox::spec::{Access, Mount, SandboxSpec, System, View, WORKSPACE_DIR, is_in_whole_dir};
use crate::store::{CacheDir, Stage};

/// A view and the signatures of every source file that it shows.
pub struct Shown {
    /// What the sandbox gets; its stage is for whoever runs it to set.
    pub spec: SandboxSpec,
    /// Must be unchanged when the command has ended, or its result is not stored.
    pub stats: Vec<(RelPath, StatKey)>,
    /// Times of the inputs of a task with caches. Before the caches: fields drop in order, and nobody may use them before it ends.
    pub ages: Option<Ages>,
    /// The task's caches; nobody else has them until this is dropped.
    pub caches: Vec<CacheDir>,
    /// Copies of files that changed since they were digested.
    pub loose: Option<Stage>,
}

/// Most files of a rebuild that are shown one by one.
const LOOSE_FILES_MAX: usize = 20_000;

/// Whether the command may change what it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// It may not.
    Run,
    /// It gets copies that it may change.
    Fix,
    /// It may not, and finds nothing of earlier runs: no caches, and directories in which every entry was made for it.
    Rebuild,
}

/// The first source file that is no longer what was shown. Cost: one `stat` per source file.
pub fn first_change(session: &Session<'_>, shown: &Shown) -> Option<RelPath> {
    let root = &session.workspace.root;
    let changed =
        |(path, stat): &&(RelPath, StatKey)| StatKey::at(&root.join(path.as_str())).ok().as_ref() != Some(stat);
    shown.stats.iter().find(changed).map(|(path, _)| path.clone())
}

/// Builds the sandbox specification of a task.
///
/// Every byte that is shown has just been digested, or was when a copy of it was kept. Outputs of dependencies come from the store
/// where the tree no longer has them.
pub fn show(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
    dependencies: &[Dependency],
    purpose: Purpose,
) -> Result<Shown, restore::RestoreError> {
    let package = session.package(task);
    let dependencies: Vec<&Dependency> = in_workspace(dependencies).collect();
    // What a dependency makes comes from it, even where the tree had a committed file of that name before.
    let made: BTreeSet<RelPath> = dependencies
        .iter()
        .flat_map(|dependency| seen(session, dependency).map(|(path, _)| session.package(dependency.task).join(path)))
        .collect();
    let mut stats: Vec<(RelPath, StatKey)> =
        prepared.signatures.iter().filter(|(path, _)| !made.contains(path)).cloned().collect();
    let (cache_mounts, caches) = match purpose {
        Purpose::Run | Purpose::Fix => cache_mounts(session, task, run)?,
        Purpose::Rebuild => Default::default(),
    };
    let ages = match purpose {
        Purpose::Run | Purpose::Fix => ages_of(session, task, run, prepared, &caches)?,
        Purpose::Rebuild => None,
    };
    let contents = Contents { root: &session.workspace.root, store: &session.store, made: &made };
    let is_leaking = |digest: &Digest| session.is_leaking(digest);
    let mut showing = Showing::new(contents, ages.as_ref(), &is_leaking);
    let whole = match purpose {
        Purpose::Rebuild if prepared.inputs.all().len() <= LOOSE_FILES_MAX => Whole::default(),
        Purpose::Run | Purpose::Rebuild => {
            let complete = dependencies.iter().filter(|dependency| !dependency.interface_only);
            let of_dependencies = complete.flat_map(|dependency| {
                let from = session.package(dependency.task);
                whole_directories(session, dependency.task).into_iter().map(|dir| from.join(&dir)).collect::<Vec<_>>()
            });
            shape::whole(prepared.inputs.all(), &of_dependencies.collect::<Vec<_>>(), &written(run, package), package)
        }
        Purpose::Fix => Whole::default(),
    };
    showing.add_all(prepared.inputs.all(), &whole)?;
    let (mut view, loose, changed) = showing.finish();
    // Signatures that nothing has: the result will be shown and not kept.
    stats.extend(changed.into_iter().map(|path| (path, StatKey::default())));
    if matches!(run.inputs, Inputs::Traced) {
        for (path, shown) in Visible::new(session, task, run, prepared.inputs.all()).view(session)? {
            if !is_in_whole_dir(&view, &path) {
                view.entry(path).or_insert(shown);
            }
        }
    }
    for pattern in all_outputs(run) {
        if let Some(parent) = pattern.prefix.parent().filter(|parent| !parent.is_root()) {
            let parent = package.join(&parent);
            if whole.dir_of(&parent).is_none() {
                view.entry(parent).or_insert(View::Empty);
            }
        }
    }
    if purpose == Purpose::Fix {
        view = view.into_iter().map(|(path, view)| (path, changeable(view))).collect();
    }
    let mut mounts: Vec<Mount> = prepared.tools.iter().flat_map(|tool| tool.mounts.iter().cloned()).collect();
    let (trees, system) = toolchain_mounts(session, prepared)?;
    mounts.extend(trees);
    mounts.extend(cache_mounts);
    mounts.sort();
    mounts.dedup();
    if prepared.sees == Sees::Tools {
        drop_nested(&mut mounts);
    }
    let (crate::fingerprint::action::Work::Run { argv }, mut env) =
        (&prepared.action.work, prepared.action.env.clone())
    else {
        unreachable!("BUG: only run tasks are shown a view, {} is none", session.label(task));
    };
    env.extend(prepared.secrets.clone());
    let spec = SandboxSpec {
        argv: argv.clone(),
        env,
        cwd: package.clone(),
        view,
        mtimes: ages.as_ref().map(Ages::unusual).unwrap_or_default(),
        system,
        mounts,
        network: prepared.action.network,
        timeout: run.timeout,
        stop_signal: Signal::TERM,
        stage: PathBuf::new(),
        observe: false,
        limits: limits::of(run),
        surroundings: None,
    };
    Ok(Shown { spec, stats, ages, caches, loose })
}

fn changeable(view: View) -> View {
    match view {
        View::File { content, executable } => View::Copy { content, executable },
        other => other,
    }
}

/// Where a task may write by what it declares, relative to the workspace: directories above all that it names.
fn written(run: &RunTask, package: &RelPath) -> Vec<RelPath> {
    let scratch = run.scratch.items.iter().filter(|item| !item.exclude).map(|item| item.pattern.prefix.clone());
    let outputs = all_outputs(run).into_iter().map(|pattern| package.join(&pattern.prefix));
    outputs.chain(run.caches.iter().map(|cache| package.join(cache))).chain(scratch).collect()
}

/// The times of the inputs of a task with caches. A cancelled wait leaves them out: the command is not started then.
fn ages_of(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
    guards: &[CacheDir],
) -> Result<Option<Ages>, restore::RestoreError> {
    let names: BTreeSet<&RelPath> = run.caches.iter().collect();
    if names.is_empty() || guards.len() < names.len() {
        return Ok(None);
    }
    if matches!(run.inputs, Inputs::Traced) {
        // It sees the tree's own times, so whatever trusts them must find nothing that is older.
        guards.iter().try_for_each(CacheDir::clear)?;
        return Ok(None);
    }
    let label = session.label(task);
    let Some(lock) = waiting::ages(session, &label)? else { return Ok(None) };
    let clears: Vec<_> = guards.iter().map(|guard| || guard.clear()).collect();
    let caches = names.into_iter().zip(guards).zip(&clears);
    let caches: Vec<ages::Cache<'_>> =
        caches.map(|((name, guard), clear)| ages::Cache { name, dir: guard.path(), clear }).collect();
    Ok(Some(Ages::begin(&session.state_dir, label, (prepared.inputs.all(), trees_of(prepared)), &caches, lock)?))
}

/// What tells the output trees that are tools or the root from others, with the places where they are seen.
fn trees_of(prepared: &Prepared) -> Digest {
    let mut encoder = Encoder::new();
    for tree in &prepared.toolchain.trees {
        encoder.bytes(tree.inside.as_os_str().as_encoded_bytes()).digest(&tree.digest);
    }
    if let Some(root) = &prepared.toolchain.root {
        encoder.bytes(b"/").digest(&root.digest);
    }
    Digest::of(encoder.as_slice())
}

/// Drops what one tool brings as a file and another in a directory: it is there with the directory.
fn drop_nested(mounts: &mut Vec<Mount>) {
    let same = |mount: &Mount| mount.host == mount.inside && mount.access == Access::ReadOnly;
    let own: BTreeSet<PathBuf> = mounts.iter().filter(|mount| same(mount)).map(|mount| mount.inside.clone()).collect();
    mounts.retain(|mount| !same(mount) || !mount.inside.ancestors().skip(1).any(|dir| own.contains(dir)));
}

/// Where the output trees among the tools go, and the system.
///
/// A cancelled wait leaves one out: the command is not started then.
fn toolchain_mounts(session: &Session<'_>, prepared: &Prepared) -> Result<(Vec<Mount>, System), restore::RestoreError> {
    let mut mounts = Vec::new();
    let mut links: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for tool in prepared.tools.iter().filter(|_| prepared.sees == Sees::Tools) {
        links.extend(tool.links.clone());
        if let Some(name) = tool.program.file_name() {
            let name = if tool.name.contains('/') { Path::new(name) } else { Path::new(&tool.name) };
            links.entry(Path::new(PROGRAMS_DIR).join(name)).or_insert_with(|| tool.program.clone());
        }
    }
    // After all that was declared: what is declared goes before what a script asks for.
    for (name, program) in prepared.tools.iter().flat_map(|tool| &tool.named) {
        links.entry(Path::new(PROGRAMS_DIR).join(name)).or_insert_with(|| program.clone());
    }
    for tree in &prepared.toolchain.trees {
        let Some(dir) = tree_dir(session, tree)? else { continue };
        mounts.push(Mount { host: dir, inside: tree.inside.clone(), access: Access::ReadOnly });
    }
    let mut system = match prepared.sees {
        Sees::Machine => System::Host,
        Sees::Tools | Sees::Root => System::Nothing { links },
    };
    if let Some(root) = &prepared.toolchain.root
        && let Some(dir) = tree_dir(session, root)?
    {
        system = System::Tree { host: dir };
    }
    Ok((mounts, system))
}

/// Private directories of the task, in the store, by label and worktree; with the guards that keep them from everyone else.
///
/// A cancelled wait leaves one out: the command is not started then.
fn cache_mounts(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
) -> Result<(Vec<Mount>, Vec<CacheDir>), restore::RestoreError> {
    let mut mounts = Vec::new();
    let mut guards = Vec::new();
    // In one order everywhere: two processes that need the same ones must not wait for each other.
    let caches: BTreeSet<&RelPath> = run.caches.iter().collect();
    for cache in caches {
        let name = format!("{} {} {}", session.place(), session.label(task), cache.as_str());
        let Some(guard) = waiting::cache_dir(session, name)? else { continue };
        let inside = PathBuf::from(WORKSPACE_DIR).join(session.package(task).join(cache).as_str());
        mounts.push(Mount { host: guard.path().to_owned(), inside, access: Access::ReadWrite });
        guards.push(guard);
    }
    Ok((mounts, guards))
}
