//! Which blobs the index of a layout leads to, each once, with what it must be. Reads documents, no layer.

use std::collections::BTreeMap;

use crate::base::platform::Platform;
use crate::image::blob::BlobDigest;
use crate::image::blobs::Blobs;
use crate::image::error::ImageError;
use crate::image::layout::{INDEX_FILE, check_size};
use crate::image::wire::{
    Config, DOCKER_MANIFEST_TYPE, Descriptor, INDEX_ENTRIES_MAX, Index, MANIFEST_TYPE, Manifest, PlatformObject,
};

/// Deepest nesting of indexes.
const INDEX_DEPTH_MAX: usize = 4;

/// What an index leads to.
#[derive(Clone, Debug)]
pub struct Reached {
    /// `index.json`.
    pub index: Index,
    /// Every blob with its length in bytes.
    pub blobs: BTreeMap<BlobDigest, u64>,
    /// Every image, in the order in which indexes name them.
    pub images: Vec<ReachedImage>,
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct ReachedImage {
    /// Its platform.
    pub platform: Platform,
    /// What names its manifest.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: Manifest,
}

/// Follows the index of a layout. Errors if a blob is missing or has another length than what names it says, and if a document is
/// not what its digest says. What is no document is not read.
pub fn reach(blobs: &Blobs) -> Result<Reached, ImageError> {
    let index = Index::read(&blobs.index()?, INDEX_FILE)?;
    let reached = Reached { index: index.clone(), blobs: BTreeMap::new(), images: Vec::new() };
    let mut walk = Walk { from: blobs, reached, documents: 0 };
    walk.index(&index, 0)?;
    Ok(walk.reached)
}

struct Walk<'a> {
    from: &'a Blobs,
    reached: Reached,
    documents: usize,
}

impl Walk<'_> {
    fn index(&mut self, index: &Index, depth: usize) -> Result<(), ImageError> {
        for descriptor in &index.manifests {
            let Some(digest) = self.blob(descriptor)? else { continue };
            let is_manifest = [MANIFEST_TYPE, DOCKER_MANIFEST_TYPE].contains(&descriptor.media_type.as_str());
            if !is_manifest && !descriptor.is_index() {
                continue;
            }
            self.documents += 1;
            let refuse = |cause| ImageError::Malformed { what: "index", name: digest.to_string(), cause };
            if self.documents > INDEX_ENTRIES_MAX {
                return Err(refuse(format!("there are more than {INDEX_ENTRIES_MAX} manifests")));
            }
            let bytes = self.from.document(&digest)?;
            if is_manifest {
                self.manifest(descriptor, Manifest::read(&bytes, &descriptor.digest)?)?;
            } else if depth < INDEX_DEPTH_MAX {
                self.index(&Index::read(&bytes, &descriptor.digest)?, depth + 1)?;
            } else {
                return Err(refuse(format!("indexes nest more than {INDEX_DEPTH_MAX} deep")));
            }
        }
        Ok(())
    }

    fn manifest(&mut self, descriptor: &Descriptor, manifest: Manifest) -> Result<(), ImageError> {
        self.blob(&manifest.config)?;
        for layer in &manifest.layers {
            self.blob(layer)?;
        }
        if descriptor.is_image() && manifest.config.is_config() {
            let platform = match &descriptor.platform {
                Some(object) => PlatformObject::platform(object),
                None => {
                    let bytes = self.from.document(&BlobDigest::parse(&manifest.config.digest)?)?;
                    Some(Config::read(&bytes, &manifest.config.digest)?.platform())
                }
            };
            let descriptor = descriptor.clone();
            self.reached.images.extend(platform.map(|platform| ReachedImage { platform, descriptor, manifest }));
        }
        Ok(())
    }

    /// Notes a blob; `None` if it was noted before.
    fn blob(&mut self, descriptor: &Descriptor) -> Result<Option<BlobDigest>, ImageError> {
        let digest = BlobDigest::parse(&descriptor.digest)?;
        let name = digest.path();
        let size = match self.reached.blobs.get(&digest) {
            Some(size) => *size,
            None => self.from.size(&digest)?.ok_or_else(|| ImageError::Missing(name.clone()))?,
        };
        check_size(descriptor.size, size, &name)?;
        Ok(self.reached.blobs.insert(digest.clone(), size).is_none().then_some(digest))
    }
}
