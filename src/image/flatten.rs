//! From an image in a directory to one tree in the store. Decides nothing about what the tree is for.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use crate::base::diagnostic::Diagnostic;
use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::base::tree::{Entry, Listing};
use crate::fs::archive::{ArchiveError, decompressed};
use crate::fs::{ops, unpack};
use crate::image::access::Below;
use crate::image::blob::{BlobDigest, Digesting, open};
use crate::image::blobs::Blobs;
use crate::image::error::ImageError;
use crate::image::layer::{Node, Stack};
use crate::image::layout::{LayerFile, check_size, find_image};
use crate::store::Store;

/// Names told of each kind of thing that was left out.
const TOLD_MAX: usize = 3;

/// An image whose layers were checked and applied. Nothing of it is in the store.
pub struct Flattened {
    /// Its platform.
    pub platform: Platform,
    stack: Stack,
}

/// Applies the layers of the image for a platform that lies in `dir`. Bytes of its files, at most `bytes_max`, go into the new
/// directory `files`, where they stay until it is stored.
///
/// Cost: every layer is read once, every file written once.
pub fn flatten(dir: &Path, wanted: &Platform, files: &Path, bytes_max: u64) -> Result<Flattened, ImageError> {
    let image = find_image(dir, wanted)?;
    ops::create_dir(files)?;
    let mut stack = Stack::new(files.to_owned(), bytes_max);
    // Headers and padding take less than the files may.
    let left = Cell::new(bytes_max.saturating_mul(2));
    for (position, layer) in image.layers.iter().enumerate() {
        apply(&mut stack, layer, &left).map_err(|error| match error {
            ImageError::Archive(cause) => ImageError::Layer { number: position + 1, cause },
            other => other,
        })?;
    }
    Ok(Flattened { platform: image.platform, stack })
}

/// The same for an archive of such a directory, beneath `strip` directories; `scratch` is an empty directory.
pub fn flatten_archive(
    archive: &Path,
    strip: usize,
    wanted: &Platform,
    scratch: &Path,
    bytes_max: u64,
) -> Result<Flattened, ImageError> {
    let layout = scratch.join("layout");
    ops::create_dir(&layout)?;
    unpack::unpack_tar(archive, strip, &layout, bytes_max)?;
    let flattened = flatten(&layout, wanted, &scratch.join("files"), bytes_max)?;
    ops::remove_all(&layout)?;
    Ok(flattened)
}

fn apply(stack: &mut Stack, layer: &LayerFile, left: &Cell<u64>) -> Result<(), ImageError> {
    let Some(file) = open(&layer.path)? else { return Err(ImageError::Missing(layer.name.clone())) };
    if let Some((size, _)) = layer.packed {
        check_size(size, ops::symlink_metadata(&layer.path)?.len(), &layer.name)?;
    }
    let packed_like: &BlobDigest = layer.packed.as_ref().map_or(&layer.diff_id, |(_, digest)| digest);
    let (packed_hasher, hasher) = (RefCell::new(packed_like.hasher()), RefCell::new(layer.diff_id.hasher()));
    let unbounded = Cell::new(u64::MAX);
    let mut packed = Digesting { from: file, hasher: &packed_hasher, left: &unbounded };
    let applied = apply_packed(stack, &mut packed, &hasher, left);
    // Whatever went wrong, that the bytes are others than the image says is told first.
    io::copy(&mut packed, &mut io::sink()).map_err(|cause| ops::FsError::new("read", &layer.path, cause))?;
    if let Some((_, digest)) = &layer.packed {
        digest.check(&packed_hasher.into_inner().finish(), &layer.name)?;
    }
    applied?;
    layer.diff_id.check(&hasher.into_inner().finish(), &format!("{} unpacked", layer.name))
}

/// Applies a layer that lies in a layout: its length, its digest and that of what is in it are checked.
pub(super) fn apply_blob(
    stack: &mut Stack,
    blobs: &Blobs,
    digest: &BlobDigest,
    size: u64,
    diff_id: &BlobDigest,
    left: &Cell<u64>,
) -> Result<(), ImageError> {
    let name = digest.path();
    check_size(size, blobs.size(digest)?.ok_or_else(|| ImageError::Missing(name.clone()))?, &name)?;
    let (packed_hasher, hasher) = (RefCell::new(digest.hasher()), RefCell::new(diff_id.hasher()));
    let unbounded = Cell::new(u64::MAX);
    let mut packed = Digesting { from: blobs.open(digest)?, hasher: &packed_hasher, left: &unbounded };
    let applied = apply_packed(stack, &mut packed, &hasher, left);
    // Whatever went wrong, that the bytes are others than the image says is told first.
    io::copy(&mut packed, &mut io::sink()).map_err(|cause| ImageError::Content { path: name.clone(), cause })?;
    digest.check(&packed_hasher.into_inner().finish(), &name)?;
    applied?;
    diff_id.check(&hasher.into_inner().finish(), &format!("{name} unpacked"))
}

fn apply_packed(
    stack: &mut Stack,
    packed: &mut impl io::Read,
    hasher: &RefCell<crate::image::blob::Hasher>,
    left: &Cell<u64>,
) -> Result<(), ArchiveError> {
    let broken = |error: io::Error| ArchiveError::broken(&error);
    let mut plain = Digesting { from: decompressed(packed).map_err(broken)?, hasher, left };
    stack.apply(&mut plain)?;
    io::copy(&mut plain, &mut io::sink()).map(drop).map_err(broken)
}

impl Flattened {
    /// Kinds, permissions and owners of what it has.
    pub fn below(&self) -> Below {
        Below::of_stack(&self.stack)
    }

    /// How many files, links and directories it has.
    pub fn entries(&self) -> usize {
        self.stack.entries().count()
    }

    /// Puts all of it into the store, listed below `output`.
    pub fn store(&self, store: &Store, output: &RelPath) -> Result<Listing, ImageError> {
        let mut stored = BTreeMap::new();
        let mut listing = Listing::from([(output.clone(), Entry::Dir)]);
        for (path, node) in self.stack.entries() {
            let refused = |_| ArchiveError::refused(path, "which is no relative path");
            let path = output.join(&RelPath::parse(path).map_err(refused)?);
            let entry = match node {
                Node::Dir => Entry::Dir,
                Node::Link(target) => Entry::Link { target: target.clone() },
                Node::File(file) => {
                    let (digest, size) = match stored.get(&file.number) {
                        Some(known) => *known,
                        None => store.put_file(&self.stack.disk(file))?,
                    };
                    stored.insert(file.number, (digest, size));
                    Entry::File { digest, size, executable: file.executable }
                }
            };
            listing.insert(path, entry);
        }
        let parents: BTreeSet<RelPath> = listing.keys().filter_map(RelPath::parent).collect();
        listing.retain(|path, entry| *entry != Entry::Dir || !parents.contains(path));
        Ok(listing)
    }

    /// What of the image, called `name`, no tree can hold.
    pub fn left_out(&self, name: &str) -> Vec<Diagnostic> {
        let dropped = self.stack.dropped();
        let told = |names: &BTreeSet<String>| {
            let mut told: Vec<String> =
                names.iter().take(TOLD_MAX).map(|name| format!("`{}`", name.escape_debug())).collect();
            if names.len() > TOLD_MAX {
                told.push(format!("{} more", names.len() - TOLD_MAX));
            }
            told.join(", ")
        };
        let mut all = Vec::new();
        if !dropped.specials.is_empty() {
            let what = format!("devices and pipes of image `{name}` are left out: {}", told(&dropped.specials));
            all.push(Diagnostic::warning(what).help("every sandbox has a `/dev` of its own"));
        }
        if !dropped.set_id.is_empty() {
            let what =
                format!("set-user-id and set-group-id bits of image `{name}` are not kept: {}", told(&dropped.set_id));
            all.push(Diagnostic::note(what));
        }
        all
    }
}
