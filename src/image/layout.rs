//! Images in a directory: an OCI layout, or what `docker save` packs. Finds the one for a platform; reads no layer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::fs::ops;
use crate::image::blob::{BlobDigest, digest_like, read_document};
use crate::image::error::ImageError;
use crate::image::wire::{Config, Descriptor, INDEX_ENTRIES_MAX, Index, LayoutMark, Manifest, read_saved};

/// The file that makes a directory an OCI layout.
pub const LAYOUT_FILE: &str = "oci-layout";
/// The file with its index.
pub const INDEX_FILE: &str = "index.json";
/// The file that makes a directory what `docker save` packs.
pub const SAVED_FILE: &str = "manifest.json";

/// Deepest nesting of indexes.
const INDEX_DEPTH_MAX: usize = 4;

/// Most links from one name of a blob to the next, as `docker save` once had them.
const LINKS_MAX: usize = 8;

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

/// One of the images of a layout.
struct Candidate<T> {
    platform: Platform,
    name: String,
    what: T,
}

/// The only one for the platform. Of several variants the one that is meant, or the only one there is.
fn choose<T>(mut candidates: Vec<Candidate<T>>, wanted: &Platform) -> Result<Candidate<T>, ImageError> {
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

struct Layout<'a> {
    dir: &'a Path,
}

impl Layout<'_> {
    fn image(&self, wanted: &Platform) -> Result<Image, ImageError> {
        let index = Index::read(&self.named(INDEX_FILE)?, INDEX_FILE)?;
        let mut images = BTreeMap::new();
        self.collect(&index, 0, &mut BTreeSet::new(), &mut images)?;
        let Candidate { platform, what: descriptor, .. } = choose(images.into_values().collect(), wanted)?;
        let manifest = self.manifest(&descriptor)?;
        let config = self.config(&manifest)?;
        let name = &manifest.config.digest;
        let mut layers = Vec::new();
        for (layer, diff_id) in manifest.layers.iter().zip(checked_diff_ids(&config, manifest.layers.len(), name)?) {
            if !layer.is_layer() {
                let cause = format!("a layer has type `{}`", layer.media_type.escape_debug());
                return Err(ImageError::Malformed { what: "manifest", name: descriptor.digest, cause });
            }
            let digest = BlobDigest::parse(&layer.digest)?;
            let name = digest.path();
            layers.push(LayerFile { path: self.locate(&name)?, name, packed: Some((layer.size, digest)), diff_id });
        }
        Ok(Image { platform, config, layers })
    }

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
        let name = digest.path();
        let bytes = self.named(&name)?;
        check_size(descriptor.size, bytes.len() as u64, &name)?;
        digest.check(&digest_like(&digest, &bytes), &name)?;
        Ok(bytes)
    }

    fn named(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        read_document(&self.locate(name)?, name)
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
            Ok(LayerFile { path: self.locate(&name)?, name, packed: None, diff_id })
        };
        let layers = saved.layers.into_iter().zip(diff_ids).map(layer).collect::<Result<_, ImageError>>()?;
        Ok(Image { platform, config, layers })
    }

    /// Where a file of the image lies. Links are followed as long as they stay inside.
    fn locate(&self, name: &str) -> Result<PathBuf, ImageError> {
        use std::io::ErrorKind as E;
        let missing = || ImageError::Missing(name.escape_debug().to_string());
        let mut path = RelPath::parse(name).map_err(|_| missing())?;
        for _ in 0..LINKS_MAX {
            let mut disk = self.dir.to_owned();
            let mut link = None;
            for part in path.components() {
                if link.is_some() {
                    return Err(missing()); // Behind a link.
                }
                disk.push(part);
                let meta = ops::symlink_metadata(&disk).map_err(|error| match error.cause.kind() {
                    E::NotFound | E::NotADirectory | E::InvalidFilename => missing(),
                    _ => error.into(),
                })?;
                link = meta.is_symlink().then(|| disk.clone());
            }
            let Some(link) = link else { return Ok(disk) };
            let target = ops::read_link(&link)?;
            let target = target.to_str().filter(|target| !target.starts_with('/')).ok_or_else(missing)?;
            let below = path.parent().unwrap_or_default();
            path = RelPath::parse(&format!("./{below}/{target}").replace(".//", "./")).map_err(|_| missing())?;
        }
        Err(missing())
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

fn checked_diff_ids(config: &Config, layers: usize, name: &str) -> Result<Vec<BlobDigest>, ImageError> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != layers {
        let cause = format!("it tells of {} layers, and there are {layers}", diff_ids.len());
        return Err(ImageError::Malformed { what: "configuration", name: name.to_owned(), cause });
    }
    diff_ids.iter().map(|text| BlobDigest::parse(text)).collect()
}
