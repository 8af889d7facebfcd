//! Which of the images of a layout is for a platform. Reads documents and no layer.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::platform::Platform;
use crate::image::blob::BlobDigest;
use crate::image::blobs::Blobs;
use crate::image::error::ImageError;
use crate::image::layout::{INDEX_FILE, check_size};
use crate::image::wire::{Config, Descriptor, INDEX_ENTRIES_MAX, Index, Manifest};

/// Deepest nesting of indexes.
pub(super) const INDEX_DEPTH_MAX: usize = 4;

/// The image of a layout for one platform.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its platform.
    pub platform: Platform,
    /// What names its manifest.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: Config,
}

/// Finds the image for a platform.
pub fn find(blobs: &Blobs, wanted: &Platform) -> Result<Found, ImageError> {
    let Candidate { platform, what: descriptor, .. } = choose(images(blobs)?, wanted)?;
    let finder = Finder { blobs };
    let manifest = finder.manifest(&descriptor)?;
    let config = finder.config(&manifest)?;
    Ok(Found { platform, descriptor, manifest, config })
}

/// All images of a layout, by platform and then by digest, with the name of each: that of the layout, or its digest.
pub fn all(blobs: &Blobs) -> Result<Vec<(Platform, String, Descriptor)>, ImageError> {
    let mut all: Vec<_> = images(blobs)?.into_iter().map(|one| (one.platform, one.name, one.what)).collect();
    all.sort_by(|one, other| (&one.0, &one.2.digest).cmp(&(&other.0, &other.2.digest)));
    Ok(all)
}

fn images(blobs: &Blobs) -> Result<Vec<Candidate<Descriptor>>, ImageError> {
    let index = Index::read(&blobs.index()?, INDEX_FILE)?;
    let mut images = BTreeMap::new();
    Finder { blobs }.collect(&index, 0, &mut BTreeSet::new(), &mut images)?;
    Ok(images.into_values().collect())
}

/// One of the images of a layout.
pub(super) struct Candidate<T> {
    /// Its platform.
    pub(super) platform: Platform,
    /// Its name, for errors.
    pub(super) name: String,
    /// The image.
    pub(super) what: T,
}

/// The only one for the platform. Of several variants the one that is meant, or the only one there is.
pub(super) fn choose<T>(mut candidates: Vec<Candidate<T>>, wanted: &Platform) -> Result<Candidate<T>, ImageError> {
    let alike = |one: &Platform| one.os == wanted.os && one.architecture == wanted.architecture;
    let mut found: BTreeSet<String> = candidates.iter().map(|one| one.platform.to_string()).collect();
    if candidates.iter().any(|one| one.platform == *wanted) {
        candidates.retain(|one| one.platform == *wanted);
    } else {
        candidates.retain(|one| wanted.variant.is_none() && alike(&one.platform));
    }
    if candidates.len() > 1 {
        found = candidates.iter().map(|one| format!("{} ({})", one.name, one.platform)).collect();
    }
    let (wanted, found) = (wanted.to_string(), found.into_iter().collect());
    match candidates.pop() {
        None => Err(ImageError::Platform { wanted, found }),
        Some(_) if !candidates.is_empty() => Err(ImageError::Several { wanted, found }),
        Some(only) => Ok(only),
    }
}

struct Finder<'a> {
    blobs: &'a Blobs,
}

impl Finder<'_> {
    /// All images below an index, by digest of the manifest: several names of one image are one.
    fn collect(
        &self,
        index: &Index,
        depth: usize,
        seen: &mut BTreeSet<BlobDigest>,
        images: &mut BTreeMap<BlobDigest, Candidate<Descriptor>>,
    ) -> Result<(), ImageError> {
        let refuse = |descriptor: &Descriptor, cause: String| {
            Err(ImageError::Malformed { what: "index", name: descriptor.digest.clone(), cause })
        };
        for descriptor in &index.manifests {
            let is_image = descriptor.is_image();
            if !is_image && !descriptor.is_index() {
                continue; // An artifact of a kind of its own beside the image.
            }
            let digest = BlobDigest::parse(&descriptor.digest)?;
            if !seen.insert(digest.clone()) {
                continue;
            }
            if seen.len() > INDEX_ENTRIES_MAX {
                return refuse(descriptor, format!("there are more than {INDEX_ENTRIES_MAX} manifests"));
            }
            if descriptor.is_index() {
                if depth >= INDEX_DEPTH_MAX {
                    return refuse(descriptor, format!("indexes nest more than {INDEX_DEPTH_MAX} deep"));
                }
                let below = Index::read(&self.blob(descriptor)?, &descriptor.digest)?;
                self.collect(&below, depth + 1, seen, images)?;
                continue;
            }
            // What says its platform is not read: that of other platforms need not be there.
            let platform = match &descriptor.platform {
                Some(platform) => platform.platform(),
                None => self.told_platform(descriptor)?,
            };
            if let Some(platform) = platform {
                let name = descriptor.annotation("org.opencontainers.image.ref.name").unwrap_or(&descriptor.digest);
                let name = name.escape_debug().to_string();
                images.insert(digest, Candidate { platform, name, what: descriptor.clone() });
            }
        }
        Ok(())
    }

    /// The platform that the configuration of an image tells; `None` if it is none of an image.
    fn told_platform(&self, descriptor: &Descriptor) -> Result<Option<Platform>, ImageError> {
        let manifest = self.manifest(descriptor)?;
        if !manifest.config.is_config() {
            return Ok(None);
        }
        self.config(&manifest).map(|config| Some(config.platform()))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest, ImageError> {
        Manifest::read(&self.blob(descriptor)?, &descriptor.digest)
    }

    fn config(&self, manifest: &Manifest) -> Result<Config, ImageError> {
        let descriptor = &manifest.config;
        if !descriptor.is_config() {
            let cause = format!("its type is `{}`, which is no image's", descriptor.media_type.escape_debug());
            return Err(ImageError::Malformed { what: "configuration", name: descriptor.digest.clone(), cause });
        }
        Config::read(&self.blob(descriptor)?, &descriptor.digest)
    }

    /// Reads a document by digest.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let digest = BlobDigest::parse(&descriptor.digest)?;
        let bytes = self.blobs.document(&digest)?;
        check_size(descriptor.size, bytes.len() as u64, &digest.path())?;
        Ok(bytes)
    }
}
