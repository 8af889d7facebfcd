//! Roots that are images: an OCI layout that a task made becomes the tree its layers make, once in the store. Runs no task.
//!
//! The tree is the result of an action of its own, a fetch of the layout by the digest of its tree. So who uses it is keyed on what
//! is in the image, and not on how its layers are packed; and it is collected like any result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::limits::FETCH_BYTES_MAX;
use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::base::tree::{Listing, fold};
use crate::engine::execute::now_ms;
use crate::engine::log;
use crate::engine::materialize::MaterializeError;
use crate::engine::prepare::{Dependency, fetch_action, image_placing};
use crate::engine::recall;
use crate::engine::session::Session;
use crate::engine::toolchain::{OutputTree, named};
use crate::engine::toolchain_dirs::Laying;
use crate::engine::waiting;
use crate::fingerprint::action::Work;
use crate::fs::ops::{self, FsError};
use crate::graph::build::Purpose;
use crate::image::{ImageError, flatten};
use crate::manifest::model::{Expected, TaskKind};
use crate::sandbox::spec::Level;
use crate::store::{ActionLock, ActionResult, StoreError};

/// The tree that an image became.
#[derive(Clone, Debug)]
pub struct FlatRoot {
    /// Its digest.
    pub digest: Digest,
    /// What is in it.
    pub listing: Arc<Listing>,
}

/// Those of an invocation, by the digest of the tree that the layout is.
pub type FlatRoots = BTreeMap<Digest, FlatRoot>;

/// Why an image did not become a root.
pub enum Unsettled {
    /// It is not as it should be.
    Image(Diagnostic),
    /// The disk or the store failed.
    Machine(Diagnostic),
    /// The run was stopped.
    Cancelled,
}

/// Flattens the images among the roots that a task needs, as far as that was not done before; says what was left out of them.
///
/// Cost where they are known: one lookup. Else every layer is unpacked and every file stored.
pub fn settle(session: &Session<'_>, task: TaskId, dependencies: &[Dependency]) -> Result<Vec<Diagnostic>, Unsettled> {
    let mut notes = Vec::new();
    let images = images(session, dependencies);
    if !images.is_empty() {
        recall::secure(session, dependencies).map_err(Unsettled::Machine)?;
    }
    for tree in images {
        match settle_one(session, &tree) {
            Ok(left_out) => notes.extend(left_out),
            Err(RootError::Cancelled) => return Err(Unsettled::Cancelled),
            Err(error) => return Err(told(session, task, &tree, &error)),
        }
    }
    Ok(notes)
}

/// The label of a root that is an image and would first have to be flattened. Writes nothing.
pub fn unknown(session: &Session<'_>, dependencies: &[Dependency]) -> Result<Option<String>, StoreError> {
    for tree in images(session, dependencies) {
        if session.flat_root(&tree.digest).is_none() && !take_known(session, &tree, &key_of(&tree).0)? {
            return Ok(Some(tree.label));
        }
    }
    Ok(None)
}

/// The roots among what a task needs that are images.
fn images(session: &Session<'_>, dependencies: &[Dependency]) -> Vec<OutputTree> {
    let roots = dependencies.iter().filter(|dependency| dependency.purpose == Purpose::Root);
    roots.filter_map(|dependency| OutputTree::of(session, dependency)).filter(OutputTree::is_image).collect()
}

/// Key and canonical stream of the action that flattens a layout.
fn key_of(tree: &OutputTree) -> (Digest, Vec<u8>) {
    let placing = image_placing(0, &Platform::host());
    let work = Work::Fetch { urls: Vec::new(), expect: Expected::Blake3(tree.digest), placing };
    fetch_action(work, RelPath::root(), &RelPath::root()).key()
}

#[derive(Debug, thiserror::Error)]
enum RootError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Materialize(#[from] MaterializeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error("cancelled")]
    Cancelled,
}

fn told(session: &Session<'_>, task: TaskId, tree: &OutputTree, error: &RootError) -> Unsettled {
    let problem = Diagnostic::error(format!("the image that `{}` made is no root file system: {error}", tree.label));
    let run = match &session.workspace.tasks[task].kind {
        TaskKind::Run(run) => run,
        TaskKind::Service(service) => &service.run,
        TaskKind::Fetch(_) => unreachable!("BUG: a fetch has no root"),
    };
    let label = &session.workspace.tasks[tree.task].label;
    let problem = problem.at(&named(run, Purpose::Root, label), "used as `root` here");
    match error {
        RootError::Image(error) if !error.is_of_the_machine() => {
            let help = match error {
                ImageError::Platform { .. } => "make it for this machine; a fetch takes another one with `platform`",
                ImageError::Several { .. } => "make a layout with one of them",
                _ => "see what the task makes: `drystone outputs`",
            };
            Unsettled::Image(problem.help(help))
        }
        _ => Unsettled::Machine(problem.help("see the disk of the store; `drystone store verify` checks it")),
    }
}

/// Takes a tree that is in the store already.
fn take_known(session: &Session<'_>, tree: &OutputTree, key: &Digest) -> Result<bool, StoreError> {
    let Some(result) = session.store.lookup(key)? else { return Ok(false) };
    let Some(listing) = session.store.listing(&result.outputs)? else { return Ok(false) };
    session.keep_flat_root(tree.digest, FlatRoot { digest: result.outputs, listing: Arc::new(listing) });
    Ok(true)
}

fn settle_one(session: &Session<'_>, tree: &OutputTree) -> Result<Vec<Diagnostic>, RootError> {
    if session.flat_root(&tree.digest).is_some() {
        return Ok(Vec::new());
    }
    let (key, stream) = key_of(tree);
    if take_known(session, tree, &key)? {
        return Ok(Vec::new());
    }
    let lock = waiting::lock_action(session, &key)?.ok_or(RootError::Cancelled)?;
    // Another thread or process may have made it meanwhile.
    if session.flat_root(&tree.digest).is_some() || take_known(session, tree, &key)? {
        return Ok(Vec::new());
    }
    make(session, tree, key, &stream, lock)
}

fn make(
    session: &Session<'_>,
    tree: &OutputTree,
    key: Digest,
    stream: &[u8],
    lock: ActionLock,
) -> Result<Vec<Diagnostic>, RootError> {
    let started = Instant::now();
    let stage = session.store.stage()?;
    let (layout, files) = (stage.path().join("layout"), stage.path().join("files"));
    let (laying, store, label) = (Laying::new(session, tree), Arc::clone(&session.store), tree.label.clone());
    let work = move || {
        ops::create_dir(&layout)?;
        laying.fill(&layout)?;
        let image = flatten(&layout, &Platform::host(), &files, FETCH_BYTES_MAX)?;
        Ok::<_, RootError>((image.store(&store, &RelPath::root())?, image.left_out(&label)))
    };
    let (listing, left_out) = waiting::unless_cancelled(&session.cancel, work).ok_or(RootError::Cancelled)??;
    let trees = fold(&listing);
    session.store.put_trees(&trees)?;
    let result = ActionResult {
        action: key,
        outputs: trees.root,
        stdout_stderr: session.store.put_bytes(&log::encode(&Vec::new()))?,
        exit: 0,
        isolation: Level::Namespaces.word().to_owned(),
        duration_ms: started.elapsed().as_millis() as u64,
        cpu_ms: 0,
        max_rss_kib: 0,
        // No label of a task, whose history it must not enter.
        label: format!("{} as root", tree.label),
        workspace: session.worktree(),
        created_ms: now_ms(),
    };
    session.store.record_held(result, stream, Some(lock))?;
    session.keep_flat_root(tree.digest, FlatRoot { digest: trees.root, listing: Arc::new(listing) });
    Ok(left_out)
}
