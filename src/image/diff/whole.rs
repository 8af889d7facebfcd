//! Whether all blobs of the images of a layout are there and are what names them. Compares nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use crate::fs::archive::decompressed;
use crate::image::blob::{BlobDigest, Digesting};
use crate::image::blobs::Blobs;
use crate::image::diff::contents::{Contents, LayerRef, Source};
use crate::image::diff::entries::broken;
use crate::image::error::ImageError;
use crate::image::layout::check_size;
use crate::image::reach::reach;

/// Which images of a layout are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::image) enum Which {
    /// All that its index leads to, attestations and anything else included.
    All,
    /// Those that were left of it, for one platform.
    Left,
}

/// How blobs are looked at.
#[derive(Clone, Copy, Debug)]
pub(in crate::image) enum How<'a> {
    /// They are there and have the length that is told.
    Present,
    /// They are read to the end, but for those in the store, which checks what it keeps. So many bytes may still be unpacked.
    Read(&'a Cell<u64>),
}

/// Looks at the blobs of the images of a layout.
///
/// Errors: a blob that is missing, or has another length, or, where it is read, another digest than the image says. Layers that
/// `docker save` packed are unpacked for that, as only what is in them has a digest.
pub(in crate::image) fn check(blobs: &Blobs, all: &Contents, which: Which, how: How<'_>) -> Result<(), ImageError> {
    let is_read = !matches!((how, blobs), (How::Present, _) | (_, Blobs::Stored { .. }));
    for (digest, size) in named(blobs, all, which)? {
        if is_read {
            blobs.check(&digest, size)?;
        } else {
            let found = blobs.size(&digest)?.ok_or_else(|| ImageError::Missing(digest.path()))?;
            check_size(size, found, &digest.path())?;
            // A tree of the store may name content that was cleared away.
            drop(blobs.open(&digest)?);
        }
    }
    for image in all.images.iter().filter(|image| matches!(image.source, Source::Saved(_))) {
        for layer in &image.open(blobs)?.layers {
            match how {
                How::Read(left) => saved_layer(blobs, layer, left)?,
                How::Present => drop(blobs.open_at(&layer.name)?),
            }
        }
    }
    Ok(())
}

/// The blobs of a layout, each with its length.
fn named(blobs: &Blobs, all: &Contents, which: Which) -> Result<BTreeMap<BlobDigest, u64>, ImageError> {
    if which == Which::All && all.index.is_some() {
        return Ok(reach(blobs)?.blobs);
    }
    let mut named = BTreeMap::new();
    for image in &all.images {
        let Some(descriptor) = image.descriptor() else { continue };
        let open = image.open(blobs)?;
        let config = open.manifest.iter().map(|(_, manifest)| &manifest.config);
        for one in config.chain([descriptor]) {
            named.insert(BlobDigest::parse(&one.digest)?, one.size);
        }
        named.extend(open.layers.into_iter().filter_map(|layer| layer.packed).map(|(size, digest)| (digest, size)));
    }
    Ok(named)
}

/// Unpacks a layer that has no digest but that of what is in it.
fn saved_layer(blobs: &Blobs, layer: &LayerRef, left: &Cell<u64>) -> Result<(), ImageError> {
    let hasher = RefCell::new(layer.diff_id.hasher());
    let failed = |cause| ImageError::Layer { number: layer.number, cause };
    let plain = decompressed(blobs.open_at(&layer.name)?).map_err(broken).map_err(failed)?;
    let mut plain = Digesting { from: plain, hasher: &hasher, left };
    std::io::copy(&mut plain, &mut std::io::sink()).map_err(broken).map_err(failed)?;
    drop(plain);
    layer.diff_id.check(&hasher.into_inner().finish(), &layer.name)
}
