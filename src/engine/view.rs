//! From a prepared task to the view its sandbox shows. Touches the disk only to make dependency outputs right.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::owned::whole_directories;
use crate::engine::prepare::{Dependency, PROGRAMS_DIR, Prepared, Sees, all_outputs, in_workspace, seen};
use crate::engine::restore;
use crate::engine::session::Session;
use crate::engine::toolchain_dirs::tree_dir;
use crate::engine::waiting;
use crate::fs::ops::{self, Kind};
use crate::fs::stat::StatKey;
use crate::fs::walk;
use crate::manifest::model::RunTask;
use crate::sandbox::spec::{Access, Mount, SandboxSpec, System, View, WORKSPACE_DIR};
use crate::store::CacheDir;

/// A view and the signatures of everything on disk that it shows.
pub struct Shown {
    /// What the sandbox gets.
    pub spec: SandboxSpec,
    /// Must be unchanged when the command has ended, or its result is not stored.
    pub stats: Vec<(RelPath, StatKey)>,
    /// Directories bound as a whole, with everything that may lie in them.
    pub whole: Vec<(RelPath, BTreeSet<RelPath>)>,
    /// The task's caches; nobody else has them until this is dropped.
    pub caches: Vec<CacheDir>,
}

/// The first path that is no longer what was shown: changed, gone, or new in a directory that was bound whole.
///
/// Cost: one `stat` per file shown and one listing per directory bound whole.
pub fn first_change(session: &Session<'_>, shown: &Shown) -> Option<RelPath> {
    let root = &session.workspace.root;
    let changed =
        |(path, stat): &&(RelPath, StatKey)| StatKey::at(&root.join(path.as_str())).ok().as_ref() != Some(stat);
    if let Some((path, _)) = shown.stats.iter().find(changed) {
        return Some(path.clone());
    }
    shown.whole.iter().find_map(|(dir, expected)| {
        let found = walk::walk_all(&root.join(dir.as_str())).ok()?;
        let stray =
            found.into_iter().find(|found| found.kind != Kind::Dir && !expected.contains(&dir.join(&found.path)));
        stray.map(|found| dir.join(&found.path))
    })
}

/// Builds the sandbox specification of a task.
///
/// Outputs of dependencies are shown from the tree, where they are made right first if someone touched them.
pub fn show(
    session: &Session<'_>,
    task: TaskId,
    run: &RunTask,
    prepared: &Prepared,
    dependencies: &[Dependency],
    stage: PathBuf,
) -> Result<Shown, restore::RestoreError> {
    let package = session.package(task);
    let dependencies: Vec<&Dependency> = in_workspace(dependencies).collect();
    // What a dependency makes comes from it, even where the tree had a committed file of that name before.
    let made: BTreeSet<RelPath> = dependencies
        .iter()
        .flat_map(|dependency| seen(session, dependency).map(|(path, _)| session.package(dependency.task).join(path)))
        .collect();
    let mut stats: Vec<(RelPath, StatKey)> =
        prepared.stats.iter().filter(|(path, _)| !made.contains(path)).cloned().collect();
    let mut view: BTreeMap<RelPath, View> = BTreeMap::new();
    let mut whole: Vec<RelPath> = Vec::new();
    for dependency in &dependencies {
        restore::put_in_place(session, dependency.task, &dependency.produced.listing)?;
        let shown: Listing = seen(session, dependency).map(|(path, entry)| (path.clone(), entry.clone())).collect();
        let from = session.package(dependency.task);
        let paths: Vec<RelPath> = shown.keys().map(|path| from.join(path)).collect();
        for ((path, leaf), entry) in paths.iter().zip(session.leaves(&paths)).zip(shown.values()) {
            match leaf {
                Ok(leaf) if leaf.entry == *entry && *entry == Entry::Dir => {}
                Ok(leaf) if leaf.entry == *entry => stats.push((path.clone(), leaf.stat)),
                // Someone is at it right now. A signature nothing has: the result will be shown and not kept.
                _ => stats.push((path.clone(), StatKey::default())),
            }
        }
        if !dependency.interface_only {
            whole.extend(whole_directories(session, dependency.task).iter().map(|dir| from.join(dir)));
        }
    }
    whole.retain(|dir| can_bind(session, dir, &prepared.listing, run, package));
    for dir in &whole {
        view.insert(dir.clone(), View::Dir { host: session.workspace.root.join(dir.as_str()) });
    }
    for (path, entry) in &prepared.listing {
        if whole.iter().any(|dir| path.starts_with(dir)) {
            continue;
        }
        let shown = match entry {
            Entry::File { executable, .. } => {
                View::File { host: session.workspace.root.join(path.as_str()), executable: *executable }
            }
            Entry::Link { target } => View::Link { target: target.clone() },
            Entry::Dir => View::Empty,
        };
        view.insert(path.clone(), shown);
    }
    for pattern in all_outputs(run) {
        if let Some(parent) = pattern.prefix.parent().filter(|parent| !parent.is_root()) {
            let parent = package.join(&parent);
            if !whole.iter().any(|dir| parent.starts_with(dir)) {
                view.entry(parent).or_insert(View::Empty);
            }
        }
    }
    let mut mounts: Vec<Mount> = prepared.tools.iter().flat_map(|tool| tool.mounts.iter().cloned()).collect();
    let (trees, system) = toolchain_mounts(session, prepared)?;
    mounts.extend(trees);
    let (cache_mounts, caches) = cache_mounts(session, task, run)?;
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
        system,
        mounts,
        network: prepared.action.network,
        timeout: run.timeout,
        stage,
    };
    let within = |dir: &RelPath| prepared.listing.keys().filter(|path| path.starts_with(dir)).cloned().collect();
    let whole = whole.into_iter().map(|dir| (dir.clone(), within(&dir))).collect();
    Ok(Shown { spec, stats, whole, caches })
}

/// A directory is bound whole if it is there and this task neither writes nor keeps anything beneath it.
fn can_bind(session: &Session<'_>, dir: &RelPath, listing: &Listing, run: &RunTask, package: &RelPath) -> bool {
    let there = ops::symlink_metadata(&session.workspace.root.join(dir.as_str())).is_ok_and(|meta| meta.is_dir());
    let written = run.caches.iter().any(|cache| package.join(cache).starts_with(dir))
        || all_outputs(run).iter().any(|pattern| package.join(&pattern.prefix).starts_with(dir));
    there && !written && listing.keys().any(|path| path.starts_with(dir))
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
        mounts.push(Mount { host: dir.path().to_owned(), inside: tree.inside.clone(), access: Access::ReadOnly });
    }
    let mut system = match prepared.sees {
        Sees::Machine => System::Host,
        Sees::Tools | Sees::Root => System::Nothing { links },
    };
    if let Some(root) = &prepared.toolchain.root
        && let Some(dir) = tree_dir(session, root)?
    {
        system = System::Tree { host: dir.path().to_owned() };
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
