//! What lies in a layout: its images, and what else its index names. Reads a document when it is needed and keeps none of them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::base::platform::Platform;
use crate::image::blob::BlobDigest;
use crate::image::blobs::Blobs;
use crate::image::error::ImageError;
use crate::image::find::INDEX_DEPTH_MAX;
use crate::image::layout::{INDEX_FILE, LAYOUT_FILE, SAVED_FILE, check_size, checked_diff_ids};
use crate::image::wire::{Config, Descriptor, INDEX_ENTRIES_MAX, Index, Manifest, SavedImage, read_saved};

/// Remarks that are names of an image.
pub(in crate::image) const NAME_KEYS: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// What lies in a layout.
#[derive(Default)]
pub(in crate::image) struct Contents {
    /// The bytes of `index.json`; `None` if it is what `docker save` packs.
    pub index: Option<Vec<u8>>,
    /// Its images in the order in which they are named, each once.
    pub images: Vec<ImageRef>,
    /// Attestations beside the images.
    pub attestations: Vec<Descriptor>,
    /// Anything else.
    pub artifacts: Vec<Descriptor>,
    /// Indexes below the index, the outer ones first.
    pub indexes: Vec<Descriptor>,
}

/// An image that was found and not yet read.
pub(in crate::image) struct ImageRef {
    pub platform: String,
    pub names: BTreeSet<String>,
    pub source: Source,
}

pub(in crate::image) enum Source {
    Manifest { digest: BlobDigest, descriptor: Box<Descriptor> },
    Saved(SavedImage),
}

/// An image with its documents.
pub(in crate::image) struct OpenImage {
    /// Its manifest, with the bytes; `docker save` packs none.
    pub manifest: Option<(Vec<u8>, Manifest)>,
    pub config_bytes: Vec<u8>,
    pub config: Config,
    pub layers: Vec<LayerRef>,
}

/// A layer that was not yet read.
pub(in crate::image) struct LayerRef {
    /// From 1.
    pub number: usize,
    /// Its file.
    pub name: String,
    /// Its length and digest, where the image tells them.
    pub packed: Option<(u64, BlobDigest)>,
    pub media_type: Option<String>,
    pub diff_id: BlobDigest,
    pub created_by: Option<String>,
}

impl Contents {
    /// Reads the index of a layout and those below it.
    pub fn read(blobs: &Blobs) -> Result<Self, ImageError> {
        let mut contents = Self::default();
        match blobs.index() {
            Ok(bytes) => {
                let index = Index::read(&bytes, INDEX_FILE)?;
                contents.collect(blobs, &index, &BTreeSet::new(), 0, &mut 0)?;
                contents.index = Some(bytes);
            }
            Err(absent @ ImageError::NoLayout(_)) => match blobs.document_at(SAVED_FILE) {
                Ok(bytes) => contents.collect_saved(blobs, read_saved(&bytes, SAVED_FILE)?)?,
                // Who has the mark of a layout lacks an index, not all there is of an image.
                Err(ImageError::Missing(_)) if blobs.document_at(LAYOUT_FILE).is_ok() => return Err(absent),
                Err(ImageError::Missing(_)) => return Err(ImageError::NotAnImage),
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        }
        Ok(contents)
    }

    fn collect(
        &mut self,
        blobs: &Blobs,
        index: &Index,
        above: &BTreeSet<String>,
        depth: usize,
        count: &mut usize,
    ) -> Result<(), ImageError> {
        let refuse = |descriptor: &Descriptor, cause: String| {
            Err(ImageError::Malformed { what: "index", name: descriptor.digest.clone(), cause })
        };
        for descriptor in &index.manifests {
            *count += 1;
            if *count > INDEX_ENTRIES_MAX {
                return refuse(descriptor, format!("there are more than {INDEX_ENTRIES_MAX} manifests"));
            }
            let mut names = above.clone();
            names.extend(NAME_KEYS.iter().filter_map(|key| descriptor.annotation(key)).map(str::to_owned));
            if descriptor.is_index() {
                if depth >= INDEX_DEPTH_MAX {
                    return refuse(descriptor, format!("indexes nest more than {INDEX_DEPTH_MAX} deep"));
                }
                self.indexes.push(descriptor.clone());
                let below = Index::read(&described(blobs, descriptor)?, &descriptor.digest)?;
                self.collect(blobs, &below, &names, depth + 1, count)?;
            } else if descriptor.is_image() {
                self.image(blobs, descriptor, names)?;
            } else if descriptor.annotation("vnd.docker.reference.type").is_some() {
                self.attestations.push(descriptor.clone());
            } else {
                self.artifacts.push(descriptor.clone());
            }
        }
        Ok(())
    }

    fn image(&mut self, blobs: &Blobs, descriptor: &Descriptor, names: BTreeSet<String>) -> Result<(), ImageError> {
        let digest = BlobDigest::parse(&descriptor.digest)?;
        let same = self
            .images
            .iter_mut()
            .find(|image| matches!(&image.source, Source::Manifest { digest: known, .. } if *known == digest));
        if let Some(same) = same {
            same.names.extend(names);
            return Ok(());
        }
        let platform = match &descriptor.platform {
            Some(object) => match object.platform() {
                Some(platform) => told_platform(&platform, object.os_version.as_deref()),
                None => {
                    self.attestations.push(descriptor.clone());
                    return Ok(());
                }
            },
            None => {
                let manifest = Manifest::read(&described(blobs, descriptor)?, &descriptor.digest)?;
                if !manifest.config.is_config() {
                    self.artifacts.push(descriptor.clone());
                    return Ok(());
                }
                let config = Config::read(&described(blobs, &manifest.config)?, &manifest.config.digest)?;
                told_platform(&config.platform(), None)
            }
        };
        let source = Source::Manifest { digest, descriptor: Box::new(descriptor.clone()) };
        self.images.push(ImageRef { platform, names, source });
        Ok(())
    }

    fn collect_saved(&mut self, blobs: &Blobs, all: Vec<SavedImage>) -> Result<(), ImageError> {
        for saved in all {
            let config = Config::read(&saved_config(blobs, &saved)?, &saved.config)?;
            let names = saved.repo_tags.iter().flatten().cloned().collect();
            let platform = told_platform(&config.platform(), None);
            self.images.push(ImageRef { platform, names, source: Source::Saved(saved) });
        }
        Ok(())
    }

    /// Leaves only the images of a platform.
    pub fn only(&mut self, platform: &Platform) -> Result<(), ImageError> {
        let wanted = platform.to_string();
        let of_it = |image: &ImageRef| {
            let rest = image.platform.strip_prefix(&wanted);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ' ']))
        };
        let mut found: Vec<String> = self.images.iter().map(|image| image.platform.clone()).collect();
        found.sort();
        found.dedup();
        self.images.retain(of_it);
        if self.images.is_empty() { Err(ImageError::Platform { wanted, found }) } else { Ok(()) }
    }
}

fn told_platform(platform: &Platform, version: Option<&str>) -> String {
    match version {
        Some(version) => format!("{platform} {}", version.escape_debug()),
        None => platform.to_string(),
    }
}

/// The document that a descriptor names.
pub(in crate::image) fn described(blobs: &Blobs, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let digest = BlobDigest::parse(&descriptor.digest)?;
    let bytes = blobs.document(&digest)?;
    check_size(descriptor.size, bytes.len() as u64, &digest.path())?;
    Ok(bytes)
}

fn saved_config(blobs: &Blobs, saved: &SavedImage) -> Result<Vec<u8>, ImageError> {
    let bytes = blobs.document_at(&saved.config)?;
    // Its file is called by its digest.
    let stem = saved.config.strip_suffix(".json").unwrap_or(&saved.config);
    let hex = stem.rsplit('/').next().unwrap_or(stem);
    if let Ok(digest) = BlobDigest::parse(&format!("sha256:{hex}")) {
        digest.check(&BlobDigest::of(&bytes), &saved.config)?;
    }
    Ok(bytes)
}

impl ImageRef {
    /// Digest of its manifest, or what stands for one.
    pub fn id(&self) -> String {
        match &self.source {
            Source::Manifest { digest, .. } => digest.to_string(),
            Source::Saved(saved) => saved.config.clone(),
        }
    }

    /// The entry of the index that names it.
    pub fn descriptor(&self) -> Option<&Descriptor> {
        match &self.source {
            Source::Manifest { descriptor, .. } => Some(descriptor),
            Source::Saved(_) => None,
        }
    }

    /// Reads its documents.
    pub fn open(&self, blobs: &Blobs) -> Result<OpenImage, ImageError> {
        match &self.source {
            Source::Manifest { descriptor, .. } => open_manifest(blobs, descriptor),
            Source::Saved(saved) => {
                let config_bytes = saved_config(blobs, saved)?;
                let config = Config::read(&config_bytes, &saved.config)?;
                let named = saved.layers.iter().map(|name| (name.clone(), None, None)).collect();
                let layers = layers_of(&config, &saved.config, named)?;
                Ok(OpenImage { manifest: None, config_bytes, config, layers })
            }
        }
    }
}

type Named = (String, Option<(u64, BlobDigest)>, Option<String>);

fn open_manifest(blobs: &Blobs, descriptor: &Descriptor) -> Result<OpenImage, ImageError> {
    let bytes = described(blobs, descriptor)?;
    let manifest = Manifest::read(&bytes, &descriptor.digest)?;
    let malformed = |what, name: &str, cause| Err(ImageError::Malformed { what, name: name.to_owned(), cause });
    if !manifest.config.is_config() {
        let cause = format!("its type is `{}`, which is no image's", shown_type(&manifest.config.media_type));
        return malformed("configuration", &manifest.config.digest, cause);
    }
    let config_bytes = described(blobs, &manifest.config)?;
    let config = Config::read(&config_bytes, &manifest.config.digest)?;
    let mut named = Vec::new();
    for layer in &manifest.layers {
        if !layer.is_layer() {
            let cause = format!("a layer has type `{}`", shown_type(&layer.media_type));
            return malformed("manifest", &descriptor.digest, cause);
        }
        let digest = BlobDigest::parse(&layer.digest)?;
        named.push((digest.path(), Some((layer.size, digest)), Some(layer.media_type.clone())));
    }
    let layers = layers_of(&config, &manifest.config.digest, named)?;
    Ok(OpenImage { manifest: Some((bytes, manifest)), config_bytes, config, layers })
}

fn shown_type(media_type: &str) -> String {
    crate::image::diff::told::shown(media_type)
}

fn layers_of(config: &Config, name: &str, named: Vec<Named>) -> Result<Vec<LayerRef>, ImageError> {
    let diff_ids = checked_diff_ids(config, named.len(), name)?;
    let steps = config.history.iter().flatten().filter(|step| step.empty_layer != Some(true));
    let mut created_by: Vec<Option<String>> = steps.map(|step| step.created_by.clone()).collect();
    if created_by.len() != named.len() {
        created_by = vec![None; named.len()];
    }
    let layers = named.into_iter().zip(diff_ids).zip(created_by).enumerate();
    let layer = |(at, (((name, packed, media_type), diff_id), created_by))| LayerRef {
        number: at + 1,
        name,
        packed,
        media_type,
        diff_id,
        created_by,
    };
    Ok(layers.map(layer).collect())
}

/// A document as JSON without a type.
pub(in crate::image) fn value(bytes: &[u8], name: &str) -> Result<Value, ImageError> {
    let read = serde_json::from_slice(bytes);
    read.map_err(|error| ImageError::Malformed { what: "document", name: name.to_owned(), cause: error.to_string() })
}
