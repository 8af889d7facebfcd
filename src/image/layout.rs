//! Images in a directory: an OCI layout, or what `docker save` packs. Finds the one for a platform; reads no layer.

use std::path::{Path, PathBuf};

use crate::base::platform::Platform;
use crate::fs::ops;
use crate::image::blob::{BlobDigest, digest_like, read_document};
use crate::image::blobs::{Blobs, locate};
use crate::image::error::ImageError;
use crate::image::find::{Candidate, Found, choose, find};
use crate::image::wire::{Config, LayoutMark, read_saved};

/// The file that makes a directory an OCI layout.
pub const LAYOUT_FILE: &str = "oci-layout";
/// The file with its index.
pub const INDEX_FILE: &str = "index.json";
/// The file that makes a directory what `docker save` packs.
pub const SAVED_FILE: &str = "manifest.json";

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its platform.
    pub platform: Platform,
    /// Its configuration.
    pub config: Config,
    /// Its layers, lowest first.
    pub layers: Vec<LayerFile>,
}

/// Where a layer lies and what it must be.
#[derive(Clone, Debug)]
pub struct LayerFile {
    /// Its file.
    pub path: PathBuf,
    /// Its name, for errors.
    pub name: String,
    /// Length and digest of the file, where the image tells them.
    pub packed: Option<(u64, BlobDigest)>,
    /// Digest of what is in it.
    pub diff_id: BlobDigest,
}

/// Whether the outermost names of a directory are those of an OCI layout.
pub fn is_layout(has: impl Fn(&str) -> bool) -> bool {
    has(LAYOUT_FILE) && has(INDEX_FILE)
}

/// Finds the image for a platform in a directory.
pub fn find_image(dir: &Path, wanted: &Platform) -> Result<Image, ImageError> {
    let has = |name: &str| ops::exists(&dir.join(name));
    if is_layout(has) {
        let layout = Layout { dir };
        LayoutMark::read(&layout.named(LAYOUT_FILE)?, LAYOUT_FILE)?;
        layout.image(wanted)
    } else if has(SAVED_FILE) {
        Layout { dir }.saved_image(wanted)
    } else {
        Err(ImageError::NotAnImage)
    }
}

struct Layout<'a> {
    dir: &'a Path,
}

impl Layout<'_> {
    fn image(&self, wanted: &Platform) -> Result<Image, ImageError> {
        let Found { platform, descriptor, manifest, config } = find(&Blobs::Dir(self.dir.to_owned()), wanted)?;
        let name = &manifest.config.digest;
        let mut layers = Vec::new();
        for (layer, diff_id) in manifest.layers.iter().zip(checked_diff_ids(&config, manifest.layers.len(), name)?) {
            if !layer.is_layer() {
                let cause = format!("a layer has type `{}`", layer.media_type.escape_debug());
                return Err(ImageError::Malformed { what: "manifest", name: descriptor.digest, cause });
            }
            let digest = BlobDigest::parse(&layer.digest)?;
            let name = digest.path();
            layers.push(LayerFile {
                path: locate(self.dir, &name)?,
                name,
                packed: Some((layer.size, digest)),
                diff_id,
            });
        }
        Ok(Image { platform, config, layers })
    }

    fn named(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        read_document(&locate(self.dir, name)?, name)
    }

    fn saved_image(&self, wanted: &Platform) -> Result<Image, ImageError> {
        let mut candidates = Vec::new();
        for saved in read_saved(&self.named(SAVED_FILE)?, SAVED_FILE)? {
            let bytes = self.named(&saved.config)?;
            // Its file is called by its digest.
            let stem = saved.config.strip_suffix(".json").unwrap_or(&saved.config);
            let hex = stem.rsplit('/').next().unwrap_or(stem);
            if let Ok(digest) = BlobDigest::parse(&format!("sha256:{hex}")) {
                digest.check(&digest_like(&digest, &bytes), &saved.config)?;
            }
            let config = Config::read(&bytes, &saved.config)?;
            let names = saved.repo_tags.clone().unwrap_or_default().join(" ");
            let name = if names.is_empty() { &saved.config } else { &names };
            let name = name.escape_debug().to_string();
            candidates.push(Candidate { platform: config.platform(), name, what: (saved, config) });
        }
        let Candidate { platform, what: (saved, config), .. } = choose(candidates, wanted)?;
        let diff_ids = checked_diff_ids(&config, saved.layers.len(), &saved.config)?;
        let layer = |(name, diff_id): (String, BlobDigest)| {
            Ok(LayerFile { path: locate(self.dir, &name)?, name, packed: None, diff_id })
        };
        let layers = saved.layers.into_iter().zip(diff_ids).map(layer).collect::<Result<_, ImageError>>()?;
        Ok(Image { platform, config, layers })
    }
}

/// An error unless a file is as long as the image says.
pub(super) fn check_size(expected: u64, found: u64, name: &str) -> Result<(), ImageError> {
    if expected == found {
        return Ok(());
    }
    let (expected, found) = (format!("{expected} bytes"), format!("{found} bytes"));
    Err(ImageError::Mismatch { name: name.to_owned(), expected, found })
}

pub(super) fn checked_diff_ids(config: &Config, layers: usize, name: &str) -> Result<Vec<BlobDigest>, ImageError> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != layers {
        let cause = format!("it tells of {} layers, and there are {layers}", diff_ids.len());
        return Err(ImageError::Malformed { what: "configuration", name: name.to_owned(), cause });
    }
    diff_ids.iter().map(|text| BlobDigest::parse(text)).collect()
}
