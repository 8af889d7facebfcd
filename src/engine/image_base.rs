//! What an image is built on, as a layout in the store: a task's outputs, files of the workspace, or what a registry has. Puts nothing
//! together.
//!
//! The layout of an image of a registry is the result of an action of its own, a fetch of its manifest by digest for one platform. So
//! it is pulled once for a store, found without network afterwards, and collected like any result.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::limits::FETCH_BYTES_MAX;
use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::base::tree::{Entry, Listing};
use crate::engine::event::Log;
use crate::engine::image_key::{found, pinned};
use crate::engine::image_memo::Memo;
use crate::engine::prepare::{Dependency, Prepared};
use crate::engine::session::{Reach, Session};
use crate::engine::toolchain::OutputTree;
use crate::engine::{registries, waiting};
use crate::fs::dir::Dir;
use crate::fs::ops::FsError;
use crate::fs::{ops, unpack, walk};
use crate::image::find::{Found, find};
use crate::image::layout::{INDEX_FILE, LAYOUT_FILE};
use crate::image::{BlobDigest, Blobs, ImageError};
use crate::manifest::model::Expected;
use crate::manifest::recipe::{Base, PlatformRecipe};
use crate::registry::RegistryError;
use crate::sandbox::spec::Usage;
use crate::store::{Store, StoreError};

/// An image that another is built on.
pub struct BaseImage {
    /// Its documents.
    pub found: Found,
    /// Where its blobs lie.
    pub blobs: Blobs,
    /// Its name in a registry.
    pub name: Option<String>,
}

/// Why there is no base.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// It is for a person to mend.
    #[error("{0:?}")]
    Input(Box<Diagnostic>),
    /// The image is not as it should be.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A registry did not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The system has no room for a connection.
    #[error("no connection to a registry can be made: {0}")]
    Client(std::io::Error),
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// What was unpacked cannot be listed.
    #[error(transparent)]
    Walk(#[from] walk::WalkError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run was stopped.
    #[error("cancelled")]
    Cancelled,
}

impl From<Diagnostic> for BaseError {
    fn from(problem: Diagnostic) -> Self {
        Self::Input(Box::new(problem))
    }
}

/// The base for a platform; `None` for `scratch`.
///
/// # Errors
/// Whatever is wrong with it is told at the place that names it.
pub fn settle(
    session: &Session<'_>,
    task: TaskId,
    one: &PlatformRecipe,
    prepared: &Prepared,
    dependencies: &[Dependency],
) -> Result<Option<BaseImage>, BaseError> {
    settled(session, task, one, prepared, dependencies).map_err(|error| match error {
        BaseError::Input(problem) => {
            let placed = if problem.marks.is_empty() { problem.at(&one.base.place, "named here") } else { *problem };
            BaseError::Input(Box::new(placed))
        }
        BaseError::Image(error) if !error.is_of_the_machine() => {
            let problem =
                Diagnostic::error(format!("the base cannot be used: {error}")).at(&one.base.place, "named here");
            BaseError::Input(Box::new(problem.help(way_out(&error))))
        }
        error => error,
    })
}

fn way_out(error: &ImageError) -> &'static str {
    match error {
        ImageError::Platform { .. } => "name a platform that the base has in `platforms`, or use another base",
        ImageError::Several { .. } => "use a base with one image for each platform",
        ImageError::Mismatch { .. } => "make or fetch the base anew: it is damaged",
        _ => {
            "a base is an OCI layout, a directory or an archive with `oci-layout` and `index.json`; what `docker save` wrote before \
             version 25 becomes one with `skopeo copy docker-archive:FILE oci:DIR`"
        }
    }
}

fn settled(
    session: &Session<'_>,
    task: TaskId,
    one: &PlatformRecipe,
    prepared: &Prepared,
    dependencies: &[Dependency],
) -> Result<Option<BaseImage>, BaseError> {
    let (blobs, name) = match &one.base.value {
        Base::Scratch => return Ok(None),
        Base::Task(need) => (of_task(session, found(session, task, need, dependencies)?)?, None),
        Base::Files(path) => (of_files(session, path, prepared)?, None),
        Base::Registry(name) => (of_registry(session, name, &one.platform)?, Some(name.clone())),
    };
    let found = find(&blobs, &one.platform)?;
    // What was pulled was compared when it came. Of all others only the documents were until now.
    if name.is_none() {
        let (checked, layers) = (blobs.clone(), found.manifest.layers.clone());
        let check =
            move || layers.iter().try_for_each(|layer| checked.check(&BlobDigest::parse(&layer.digest)?, layer.size));
        waiting::unless_cancelled(&session.cancel, check).ok_or(BaseError::Cancelled)??;
    }
    Ok(Some(BaseImage { found, blobs, name }))
}

/// The layout that a task made.
pub fn of_task(session: &Session<'_>, dependency: &Dependency) -> Result<Blobs, BaseError> {
    let label = session.label(dependency.task);
    let made_none = || {
        Diagnostic::error(format!("`{label}` made no image"))
            .help("a base is an OCI layout: a directory with `oci-layout` and `index.json`")
    };
    let tree = OutputTree::of(session, dependency).filter(OutputTree::is_image).ok_or_else(made_none)?;
    let listing: Listing = tree.entries().map(|(path, entry)| (path, entry.clone())).collect();
    if let Some(path) = leaking(session, &listing) {
        let told = format!("`{path}` of the image that `{label}` made holds a secret");
        return Err(Diagnostic::error(told).help("keep the secret out of its outputs").into());
    }
    Ok(Blobs::stored(Arc::clone(&session.store), &listing, &RelPath::root()))
}

/// The first file of a listing that holds a secret of the task that made it.
pub fn leaking<'a>(session: &Session<'_>, listing: &'a Listing) -> Option<&'a RelPath> {
    listing.iter().find_map(|(path, entry)| match entry {
        Entry::File { digest, .. } if session.is_leaking(digest) => Some(path),
        _ => None,
    })
}

/// A layout that is a directory of the workspace, or an archive of one.
fn of_files(session: &Session<'_>, path: &RelPath, prepared: &Prepared) -> Result<Blobs, BaseError> {
    let all = prepared.inputs.all();
    let stored = |file: &RelPath| {
        let disk = session.workspace.root.join(file.as_str());
        Ok::<_, BaseError>(session.store.put_file(&disk)?)
    };
    let changed = |file: &RelPath| {
        let told = format!("`{file}` changed while the image was made");
        Diagnostic::error(told).help("run it again when the file is at rest")
    };
    if let Some(Entry::File { digest, size, .. }) = all.get(path) {
        if stored(path)?.0 != *digest {
            return Err(changed(path).into());
        }
        let stage = session.store.stage()?;
        let (archive, layout) = (stage.path().join("archive"), stage.path().join("layout"));
        let (above, name) = Dir::above(&archive)?;
        if !session.store.write_to(digest, *size, (&above, name), false)? {
            return Err(ImageError::Missing(path.to_string()).into());
        }
        ops::create_dir(&layout)?;
        let to = layout.clone();
        let unpack = move || unpack::unpack_tar(&archive, 0, &to, FETCH_BYTES_MAX);
        waiting::unless_cancelled(&session.cancel, unpack).ok_or(BaseError::Cancelled)?.map_err(ImageError::from)?;
        let listing = store_layout(&session.store, &layout)?;
        return Ok(Blobs::stored(Arc::clone(&session.store), &listing, &RelPath::root()));
    }
    let mut listing = Listing::new();
    for (file, entry) in all.iter().filter(|(file, _)| file.starts_with(path)) {
        let (Entry::File { digest, size, executable }, Some(below)) = (entry, file.strip_prefix(path)) else {
            continue;
        };
        let (put, _) = stored(file)?;
        if put != *digest {
            return Err(changed(file).into());
        }
        listing.insert(below, Entry::File { digest: *digest, size: *size, executable: *executable });
    }
    if listing.is_empty() {
        let told = format!("there is no image at `{path}`");
        return Err(Diagnostic::error(told).help("`base` names an OCI layout or an archive of one").into());
    }
    Ok(Blobs::stored(Arc::clone(&session.store), &listing, &RelPath::root()))
}

/// Moves the files of a layout that lies in a stage into the store.
pub fn store_layout(store: &Store, dir: &Path) -> Result<Listing, BaseError> {
    let mut listing = Listing::new();
    for found in walk::walk_all(dir)? {
        if found.kind == ops::Kind::File {
            let (digest, size) = store.take_file(&dir.join(found.path.as_str()))?;
            listing.insert(found.path, Entry::File { digest, size, executable: false });
        }
    }
    if !listing.keys().any(|path| path.as_str() == LAYOUT_FILE || path.as_str() == INDEX_FILE) {
        return Err(ImageError::NotAnImage.into());
    }
    Ok(listing)
}

/// The image of a registry for one platform: pulled, unless this store has it.
fn of_registry(session: &Session<'_>, name: &str, platform: &Platform) -> Result<Blobs, BaseError> {
    let digest = pinned(session, name)?;
    let parsed = BlobDigest::parse(&digest)?;
    let sha256 = parsed.bytes().ok_or(ImageError::Digest(digest))?;
    let stored = |listing: &Listing| Blobs::stored(Arc::clone(&session.store), listing, &RelPath::root());
    let memo = Memo::of(Expected::Sha256(sha256), &format!("base for {platform}"));
    if let Some((listing, _)) = memo.find(session)? {
        return Ok(stored(&listing));
    }
    let lock = waiting::lock_action(session, &memo.key)?.ok_or(BaseError::Cancelled)?;
    // Another thread or process may have pulled it meanwhile.
    if let Some((listing, _)) = memo.find(session)? {
        return Ok(stored(&listing));
    }
    if session.options.reach == Reach::Offline {
        let told = format!("the image `{name}` is not in the store, and `--offline` forbids to pull it");
        return Err(Diagnostic::error(told).help("run it once without `--offline`").into());
    }
    let started = Instant::now();
    let stage = session.store.stage()?;
    let layout = stage.path().join("layout");
    registries::pull(session, name, &parsed, platform, &layout)?;
    let listing = store_layout(&session.store, &layout)?;
    let told = (format!("{name} as base"), started, &Log::new(), Usage::default());
    memo.keep(session, &listing, told, Some(lock))?;
    Ok(stored(&listing))
}

/// The files of a layout in the store, by path.
pub fn files(blobs: &Blobs) -> BTreeMap<String, (Digest, u64)> {
    match blobs {
        Blobs::Stored { files, .. } => BTreeMap::clone(files),
        Blobs::Dir(_) | Blobs::Memory(_) => BTreeMap::new(),
    }
}
