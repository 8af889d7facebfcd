//! A layer that is what a command changes: the layers below it become its root, and its changes a recipe. Packs nothing.
//!
//! The changes are the result of an action of its own: the command, the digest of its root and that of what it sees. Two images that begin
//! alike and run the same run it once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::encode::{Decoder, Encoder};
use crate::base::ids::TaskId;
use crate::base::limits::FETCH_BYTES_MAX;
use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::base::tree::{Entry, Listing, fold};
use crate::engine::event::{Failure, Log};
use crate::engine::image_base::{BaseImage, leaking};
use crate::engine::image_key::found;
use crate::engine::image_memo::{Memo, bytes_of, file_of};
use crate::engine::image_step::{self, Step, StepError, Way};
use crate::engine::image_task::Trouble;
use crate::engine::prepare::{Dependency, fetch_action};
use crate::engine::rebuild::{Arrangement, Occasion};
use crate::engine::root_changes::{Bounds, Change, Changes};
use crate::engine::session::{Reuse, Session};
use crate::engine::{log, waiting};
use crate::fingerprint::action::Work;
use crate::fs::dir::Dir;
use crate::fs::ops;
use crate::image::access::{Below as Entries, Seen};
use crate::image::assemble::{Base, ImageSpec, OwnLayer, assemble_image, layout_index, layout_mark};
use crate::image::layout::{INDEX_FILE, LAYOUT_FILE};
use crate::image::recipe::{Content, LayerRecipe, Member};
use crate::image::tar_writer::Access;
use crate::image::wire::Execution;
use crate::image::{BlobDigest, FORMAT_VERSION, ImageError, flatten};
use crate::manifest::model::{Command, Expected};
use crate::manifest::recipe::{DeclaredLayer, LayerSource};
use crate::sandbox::owners::OWNERS_STEP;
use crate::sandbox::spec::{Exit, Limits, Owner, SandboxError, Usage};

/// What lies below a layer.
pub struct Below<'a> {
    /// For which platform.
    pub platform: &'a Platform,
    /// What the image is built on.
    pub base: Option<&'a BaseImage>,
    /// Its own layers so far.
    pub layers: &'a [OwnLayer],
    /// Where a blob of them lies in the store, with its length.
    pub blob: &'a dyn Fn(&BlobDigest) -> Option<(Digest, u64)>,
}

/// The root that layers make.
struct Root {
    listing: Arc<Listing>,
    below: Entries,
    /// Of both.
    digest: Digest,
}

/// Runs the command of a layer, unless what it changes is known; gives its recipe and what it printed.
pub fn run(
    session: &Session<'_>,
    task: TaskId,
    layer: &DeclaredLayer,
    below: &Below<'_>,
    dependencies: &[Dependency],
    (epoch, occasion): (u64, Occasion<'_>),
) -> Result<(LayerRecipe, Log), Trouble> {
    let LayerSource::Step { command, from } = &layer.source else {
        unreachable!("BUG: only a step is run");
    };
    if *below.platform != Platform::host() {
        let told = format!("this runs on {}, and the layer is for {}", Platform::host(), below.platform);
        let help = "make what differs between platforms in a task, and take it with `from`";
        return Err(Diagnostic::error(told).at(&layer.place, "this layer").help(help).into());
    }
    let root = root_of(session, below)?;
    let mut inputs = Listing::new();
    for need in from {
        let dependency = found(session, task, need, dependencies)?;
        let package = session.package(dependency.task);
        let listing = dependency.produced.listing.iter();
        inputs.extend(listing.map(|(path, entry)| (package.join(path), entry.clone())));
    }
    // What it makes of a secret cannot be told from anything else, so it is shown none.
    if let Some(path) = leaking(session, &inputs) {
        let told = format!("`{path}` holds a secret of the task that made it, and this command would see it");
        let help = "keep the secret out of the outputs of what `from` names";
        return Err(Diagnostic::error(told).at(&layer.place, "this layer").help(help).into());
    }
    let argv = match command {
        Command::Shell(text) => image_step::shell(text),
        Command::Exec(words) => words.to_vec(),
        Command::Image(_) => unreachable!("BUG: an image is no step of an image"),
    };
    let trees = fold(&inputs);
    let mut action = fetch_action(Work::Run { argv: argv.clone() }, RelPath::root(), &RelPath::root());
    action.env = image_step::environment();
    action.inputs = trees.root;
    action.root = Some(root.digest);
    action.platform = crate::fingerprint::system::platform();
    action.network = crate::sandbox::spec::Network::Loopback;
    action.workspace_salt = session.workspace.config.salt.clone();
    let own_salt = session.workspace.tasks[task].kind.command().and_then(|run| run.salt.clone()).unwrap_or_default();
    // How changes are taken, and what the command is told of owners, is part of the format.
    action.task_salt = Some(format!("image format {FORMAT_VERSION}, owners {own_salt}"));
    let memo = Memo::of_action(&action);
    let known = |memo: &Memo| match occasion {
        Occasion::Result(Reuse::Results) => known(session, memo),
        Occasion::Result(Reuse::Nothing) | Occasion::Rebuild(_) | Occasion::Look(..) => Ok(None),
    };
    if let Some((changes, log)) = known(&memo)? {
        return Ok((recipe_of(&changes, &root, epoch)?, log));
    }
    let arrangement = match occasion {
        Occasion::Result(_) => Arrangement::default(),
        Occasion::Rebuild(arrangement) | Occasion::Look(arrangement, _) => arrangement.clone(),
    };
    let lock = waiting::lock_action(session, &memo.key)?.ok_or(Trouble::Cancelled)?;
    // Another thread or process may have run it meanwhile.
    if let Some((changes, log)) = known(&memo)? {
        return Ok((recipe_of(&changes, &root, epoch)?, log));
    }
    let step = Step {
        argv,
        env: BTreeMap::new(),
        arrangement,
        directory: PathBuf::from("/"),
        root: Arc::clone(&root.listing),
        modes: Arc::new(root.below.entries().filter_map(unusual).collect()),
        owners: Arc::new(root.below.entries().filter_map(owned).collect()),
        inputs: Arc::new(inputs),
        timeout: None,
        limits: Limits::default(),
        way: Way::Best,
        bounds: Bounds::default(),
    };
    if let Occasion::Look(_, seen) = occasion {
        // The first that is reached is enough: what is varied is around all of them in the same way.
        let _ = seen.set(image_step::look(session, &step));
        return Err(Trouble::Cancelled);
    }
    let started = Instant::now();
    let outcome = image_step::run(session, &step).map_err(|error| broken(layer, error))?;
    match outcome.exit {
        Exit::Code(0) => {}
        Exit::Cancelled => return Err(Trouble::Cancelled),
        exit => return Err(Trouble::Step(Box::new((failure(layer, exit), outcome.log)))),
    }
    session.store.put_trees(&trees)?;
    if let Occasion::Rebuild(_) = occasion {
        return Ok((recipe_of(&outcome.changes, &root, epoch)?, outcome.log));
    }
    let listing = listing_of(session, &outcome.changes)?;
    let told = (format!("a step of {}", session.label(task)), started, &outcome.log, outcome.usage);
    memo.keep(session, &listing, told, Some(lock))?;
    Ok((recipe_of(&outcome.changes, &root, epoch)?, outcome.log))
}

/// A command as a person would write it.
pub fn written(command: &Command) -> String {
    match command {
        Command::Shell(text) => text.to_string(),
        Command::Exec(words) => words.join(" "),
        Command::Image(_) => String::new(),
    }
}

fn failure(layer: &DeclaredLayer, exit: Exit) -> Failure {
    let cause = match exit {
        Exit::Code(code) => format!("a step of the image ended with exit code {code}"),
        Exit::Signal(signal) => format!("a step of the image was ended by signal {signal}"),
        Exit::TimedOut | Exit::Over(_) | Exit::Cancelled => "a step of the image was ended".to_owned(),
    };
    let problem = Diagnostic::error(cause.clone()).at(&layer.place, "this layer");
    Failure { cause, exit: Some(exit), diagnostics: vec![problem] }
}

fn broken(layer: &DeclaredLayer, error: StepError) -> Trouble {
    if error.is_of_the_command() {
        let told = format!("a step of the image: {error}");
        return Diagnostic::error(told).at(&layer.place, "this layer").into();
    }
    match error {
        StepError::Sandbox(SandboxError::Setup { step, cause, .. }) if step == OWNERS_STEP => {
            let told = format!("a step of the image cannot be run here: {step}: {cause}");
            let help = "build where a process may trace its children and filter their calls: not with `kernel.yama.ptrace_scope = 3`, and not in a \
                        container that forbids `ptrace` or `seccomp`; or give files their owners in layers with `owner`";
            Diagnostic::error(told).at(&layer.place, "this layer").help(help).into()
        }
        StepError::Store(error) => Trouble::Store(error),
        error => Trouble::Machine(error.to_string()),
    }
}

/// The mode of a file or directory that is not the one that it is laid out with.
fn unusual((path, seen): (&RelPath, &Seen)) -> Option<(RelPath, u32)> {
    match seen {
        Seen::Dir(access) if access.mode != 0o755 => Some((path.clone(), access.mode)),
        // Laid out with 0755 if its owner may execute it, else with 0644.
        Seen::File(access) if !matches!(access.mode, 0o755 | 0o644) => Some((path.clone(), access.mode)),
        Seen::Dir(_) | Seen::File(_) | Seen::Link { .. } => None,
    }
}

/// The owner of what does not belong to root.
fn owned((path, seen): (&RelPath, &Seen)) -> Option<(RelPath, Owner)> {
    let (user, group) = match seen {
        Seen::Dir(access) | Seen::File(access) => (access.uid, access.gid),
        Seen::Link { owner, .. } => *owner,
    };
    ((user, group) != (0, 0)).then(|| (path.clone(), Owner { user, group }))
}

/// Names of the outputs of making a root: the tree, and what its layers say of permissions and owners.
const TREE: &str = "root";
const BELOW: &str = "below";

fn root_of(session: &Session<'_>, below: &Below<'_>) -> Result<Root, Trouble> {
    let spec = ImageSpec {
        base: below.base.map(|base| Base {
            name: None,
            digest: BlobDigest::parse(&base.found.descriptor.digest).unwrap_or_else(|_| BlobDigest::of(b"")),
            manifest: base.found.manifest.clone(),
            config: base.found.config.clone(),
        }),
        layers: below.layers.to_vec(),
        platform: below.platform.clone(),
        execution: Execution::default(),
        annotations: BTreeMap::new(),
        epoch: 0,
    };
    let made = assemble_image(&spec)?;
    let digest = BlobDigest::parse(&made.descriptor.digest)?;
    let sha256 = digest.bytes().ok_or_else(|| ImageError::Digest(digest.to_string()))?;
    let memo =
        Memo::of(Expected::Sha256(sha256), &format!("root of a step for {}, with the owners of links", below.platform));
    if let Some(root) = known_root(session, &memo)? {
        return Ok(root);
    }
    let started = Instant::now();
    let stage = session.store.stage()?;
    let dir = stage.path().join("layout");
    let disk = |error: ops::FsError| Trouble::Machine(error.to_string());
    ops::create_dir_all(&dir.join("blobs/sha256")).map_err(disk)?;
    for layer in &made.layers {
        let digest = BlobDigest::parse(&layer.digest)?;
        let (content, size) = (below.blob)(&digest).ok_or_else(|| ImageError::Missing(digest.path()))?;
        let to = dir.join(digest.path());
        let (above, name) = Dir::above(&to).map_err(disk)?;
        // A layer may occur twice.
        if !ops::exists(&to) && !session.store.write_to(&content, size, (&above, name), false)? {
            return Err(ImageError::Missing(digest.path()).into());
        }
    }
    let documents =
        [(made.config_descriptor.digest.as_str(), &made.config), (made.descriptor.digest.as_str(), &made.manifest)];
    for (digest, bytes) in documents {
        ops::write(&dir.join(BlobDigest::parse(digest)?.path()), bytes).map_err(disk)?;
    }
    ops::write(&dir.join(INDEX_FILE), &layout_index(&made.descriptor, None)).map_err(disk)?;
    ops::write(&dir.join(LAYOUT_FILE), &layout_mark()).map_err(disk)?;
    let (files, platform, store) = (stage.path().join("files"), below.platform.clone(), Arc::clone(&session.store));
    let unpack = move || {
        let flattened = flatten(&dir, &platform, &files, FETCH_BYTES_MAX)?;
        Ok::<_, ImageError>((flattened.store(&store, &RelPath::root())?, flattened.below()))
    };
    let (listing, entries) = waiting::unless_cancelled(&session.cancel, unpack).ok_or(Trouble::Cancelled)??;
    let tree = RelPath::root().child(TREE);
    let mut whole: Listing = listing.iter().map(|(path, entry)| (tree.join(path), entry.clone())).collect();
    whole.insert(RelPath::root().child(BELOW), file_of(session, &entries.encode())?);
    let told = ("the root of a step".to_owned(), started, &Log::new(), Usage::default());
    let digest = memo.keep(session, &whole, told, None)?;
    Ok(Root { listing: Arc::new(listing), below: entries, digest })
}

fn known_root(session: &Session<'_>, memo: &Memo) -> Result<Option<Root>, Trouble> {
    let Some((whole, result)) = memo.find(session)? else { return Ok(None) };
    let below = bytes_of(session, &whole, BELOW)?.and_then(|bytes| Entries::decode(&bytes));
    let Some(below) = below else { return Ok(None) };
    let tree = RelPath::root().child(TREE);
    let listing = whole.iter().filter_map(|(path, entry)| Some((path.strip_prefix(&tree)?, entry.clone())));
    Ok(Some(Root { listing: Arc::new(listing.collect()), below, digest: result.outputs }))
}

/// The changes as a listing of the store: contents as files under numbers, and one file that tells what is where.
fn listing_of(session: &Session<'_>, changes: &Changes) -> Result<Listing, Trouble> {
    let mut encoder = Encoder::new();
    let mut listing = Listing::new();
    encoder.u64(changes.len() as u64);
    for (number, (path, change)) in changes.iter().enumerate() {
        encoder.bytes(path.as_str().as_bytes());
        match change {
            Change::File { digest, size, mode, owner } => {
                encoder.u8(0).digest(digest).u64(*size).u64((*mode).into());
                put_owner(&mut encoder, *owner);
                let entry = Entry::File { digest: *digest, size: *size, executable: false };
                listing.insert(RelPath::root().child("contents").child(&number.to_string()), entry);
            }
            Change::Dir { mode, owner, opaque } => {
                encoder.u8(1).u64((*mode).into()).u8(u8::from(*opaque));
                put_owner(&mut encoder, *owner);
            }
            Change::Link { target, owner } => {
                encoder.u8(2).bytes(target.as_bytes());
                put_owner(&mut encoder, *owner);
            }
            Change::Removed => {
                encoder.u8(3);
            }
        }
    }
    listing.insert(RelPath::root().child(CHANGES), file_of(session, &encoder.into_vec())?);
    Ok(listing)
}

fn put_owner(encoder: &mut Encoder, owner: Owner) {
    encoder.u64(owner.user.into()).u64(owner.group.into());
}

fn take_owner(decoder: &mut Decoder<'_>) -> Option<Owner> {
    let mut number = || u32::try_from(decoder.u64().ok()?).ok();
    Some(Owner { user: number()?, group: number()? })
}

/// The file that tells what is where.
const CHANGES: &str = "changes";

fn known(session: &Session<'_>, memo: &Memo) -> Result<Option<(Changes, Log)>, Trouble> {
    let Some((listing, result)) = memo.find(session)? else { return Ok(None) };
    let Some(changes) = bytes_of(session, &listing, CHANGES)?.and_then(|bytes| decode_changes(&bytes)) else {
        return Ok(None);
    };
    let log = session.store.read(&result.stdout_stderr)?.and_then(|bytes| log::decode(&bytes).ok());
    Ok(log.map(|log| (changes, log)))
}

fn decode_changes(bytes: &[u8]) -> Option<Changes> {
    let mut decoder = Decoder::new(bytes);
    let mut changes = Changes::new();
    for _ in 0..decoder.u64().ok()? {
        let path = RelPath::parse(decoder.text("path").ok()?).ok()?;
        let change = match decoder.u8().ok()? {
            0 => Change::File {
                digest: decoder.digest().ok()?,
                size: decoder.u64().ok()?,
                mode: u32::try_from(decoder.u64().ok()?).ok()?,
                owner: take_owner(&mut decoder)?,
            },
            1 => {
                let (mode, opaque) = (u32::try_from(decoder.u64().ok()?).ok()?, decoder.u8().ok()? == 1);
                Change::Dir { mode, owner: take_owner(&mut decoder)?, opaque }
            }
            2 => {
                let target = decoder.text("target").ok()?.to_owned();
                Change::Link { target, owner: take_owner(&mut decoder)? }
            }
            3 => Change::Removed,
            _ => return None,
        };
        changes.insert(path, change);
    }
    Some(changes)
}

/// The layer that changes are.
fn recipe_of(changes: &Changes, root: &Root, epoch: u64) -> Result<LayerRecipe, Trouble> {
    let mut recipe = LayerRecipe::new(epoch)?;
    for (path, change) in changes {
        let access = |mode: u32, owner: &Owner| Access { mode, uid: owner.user, gid: owner.group };
        let member = match change {
            Change::File { digest, size, mode, owner } => {
                Member { content: Content::File { digest: *digest, size: *size }, access: access(*mode, owner) }
            }
            Change::Dir { mode, owner, opaque } => {
                let content = if *opaque { Content::Opaque } else { Content::Dir };
                Member { content, access: access(*mode, owner) }
            }
            Change::Link { target, owner } => {
                Member { content: Content::Link { target: target.clone() }, access: access(0o777, owner) }
            }
            Change::Removed => Member::whiteout(),
        };
        recipe.put(path.clone(), member)?;
    }
    // A directory on the way to a change is in the layer as well, with what it was.
    for path in changes.keys() {
        let mut above = path.parent();
        while let Some(dir) = above.filter(|dir| !dir.is_root()) {
            if recipe.members().contains_key(&dir) {
                break;
            }
            let access = root.below.dir(&dir).unwrap_or(Access::DIR);
            recipe.put(dir.clone(), Member { content: Content::Dir, access })?;
            above = dir.parent();
        }
    }
    Ok(recipe)
}
