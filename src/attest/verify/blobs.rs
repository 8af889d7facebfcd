//! The digests of an image from its index down: everything reachable is what its digest says. Knows no signature.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use crate::attest::verify::report::Report;
use crate::base::platform::Platform;
use crate::fs::archive::decompressed;
use crate::image::wire::{Config, DOCKER_MANIFEST_TYPE, Descriptor, INDEX_ENTRIES_MAX, Index, MANIFEST_TYPE, Manifest};
use crate::image::{BlobDigest, Blobs};

/// Deepest nesting of indexes.
const DEPTH_MAX: usize = 4;

/// Most bytes of all layers uncompressed: a few bytes can stand for any number of them.
pub const LAYERS_BYTES_MAX: u64 = 128 * 1024 * 1024 * 1024;

/// Most checks of one image: as many layers as an index with everything that images have.
const CHECKS_MAX: usize = 100_000;

const BUFFER_BYTES: usize = 128 * 1024;

const MANIFEST_TYPES: [&str; 2] = [MANIFEST_TYPE, DOCKER_MANIFEST_TYPE];

const BYTES: &str = "its bytes are what its digest says";
const CONTENT: &str = "its content is what the configuration says";
const READABLE: &str = "it can be read";
const AGREES: &str = "it agrees with what names it";

/// What of an image attestations speak of.
pub(super) struct FoundImage {
    /// Digest of its manifest.
    pub manifest: BlobDigest,
    /// Its platform, if its configuration could be read.
    pub platform: Option<Platform>,
    /// `org.opencontainers.image.base.digest`.
    pub base: Option<String>,
    /// Digests of its layers as blobs, lowest first.
    pub layers: Vec<String>,
    /// Digests of its layers uncompressed, lowest first.
    pub diff_ids: Vec<String>,
}

/// A walk over an image.
pub(super) struct Walk<'a> {
    blobs: &'a Blobs,
    report: &'a mut Report,
    /// Digests that were visited, with the type under which.
    seen: BTreeSet<(BlobDigest, String)>,
    /// Whether blobs that were read are what their digest says: by digest and size as named.
    whole: BTreeMap<(BlobDigest, u64), bool>,
    /// Layers that were read uncompressed: by digest and digest uncompressed.
    layers: BTreeSet<(BlobDigest, BlobDigest)>,
    /// Bytes of layers that may still be uncompressed.
    left: u64,
    /// The images that were found.
    pub images: Vec<FoundImage>,
}

impl<'a> Walk<'a> {
    /// A walk that has not begun.
    pub fn new(blobs: &'a Blobs, report: &'a mut Report) -> Self {
        Self {
            blobs,
            report,
            seen: BTreeSet::new(),
            whole: BTreeMap::new(),
            layers: BTreeSet::new(),
            left: LAYERS_BYTES_MAX,
            images: Vec::new(),
        }
    }

    /// Finds what is meant in `index.json`: what has the digest, or the only image or index. `None` if that failed.
    pub fn root(&mut self, wanted: Option<&BlobDigest>) -> Option<(Descriptor, BlobDigest)> {
        let subject = "index.json";
        let read = self.blobs.index().and_then(|bytes| Index::read(&bytes, subject));
        let index = match read {
            Ok(index) => index,
            Err(error) => {
                self.report.failed(subject, READABLE, error.to_string());
                return None;
            }
        };
        let wanted_text = wanted.map(ToString::to_string);
        let is_meant = |one: &&Descriptor| match &wanted_text {
            Some(digest) => one.digest == *digest,
            None => one.is_image() || one.is_index(),
        };
        let mut meant: Vec<_> = index.manifests.into_iter().filter(|one| is_meant(&one)).collect();
        // Several names of one image are one.
        let unnamed = |one: &Descriptor| Descriptor { annotations: None, ..one.clone() };
        meant.dedup_by(|one, other| unnamed(one) == unnamed(other));
        let law = "it names the image";
        let (count, first) = (meant.len(), meant.pop());
        let outcome = match (first, wanted_text) {
            (Some(one), _) if count == 1 => {
                BlobDigest::parse(&one.digest).map(|digest| (one, digest)).map_err(|error| error.to_string())
            }
            (None, Some(digest)) => Err(format!("it does not name `{digest}`")),
            (None, None) => Err("it names no image".to_owned()),
            (Some(_), _) => Err(format!("it names {count} images; say by its digest which is meant")),
        };
        match outcome {
            Ok(found) => {
                self.report.held(subject, law);
                Some(found)
            }
            Err(cause) => {
                self.report.failed(subject, law, cause);
                None
            }
        }
    }

    /// Visits what a descriptor names and all that is below it.
    pub fn visit(&mut self, descriptor: &Descriptor, depth: usize) {
        let name = descriptor.digest.escape_debug().to_string();
        let digest = match BlobDigest::parse(&descriptor.digest) {
            Ok(digest) => digest,
            Err(error) => return self.report.failed(name, BYTES, error.to_string()),
        };
        if !descriptor.is_index() && !MANIFEST_TYPES.contains(&descriptor.media_type.as_str()) {
            // An artifact of a kind of its own beside the image.
            self.blob(descriptor);
            return;
        }
        if !self.seen.insert((digest.clone(), descriptor.media_type.clone())) {
            return;
        }
        if depth > DEPTH_MAX || self.seen.len() > INDEX_ENTRIES_MAX || self.report.checks.len() > CHECKS_MAX {
            let cause = format!(
                "there are more than {INDEX_ENTRIES_MAX} manifests or {CHECKS_MAX} checks, or indexes nest more than {DEPTH_MAX} deep"
            );
            return self.report.failed(name, READABLE, cause);
        }
        let Some(bytes) = self.document(descriptor, &digest) else { return };
        if descriptor.is_index() {
            match Index::read(&bytes, &name) {
                Err(error) => self.report.failed(name, READABLE, error.to_string()),
                Ok(index) => {
                    self.agrees(&name, descriptor, index.media_type.as_deref());
                    index.manifests.iter().for_each(|below| self.visit(below, depth + 1));
                }
            }
            return;
        }
        match Manifest::read(&bytes, &name) {
            Err(error) => self.report.failed(name, READABLE, error.to_string()),
            Ok(manifest) => {
                self.agrees(&name, descriptor, manifest.media_type.as_deref());
                self.manifest(descriptor, digest, &manifest);
            }
        }
    }

    /// A document may be read as one thing alone: what it says it is must be what it was named as.
    fn agrees(&mut self, name: &str, descriptor: &Descriptor, media_type: Option<&str>) {
        if media_type.is_some_and(|media_type| media_type != descriptor.media_type) {
            let found = media_type.unwrap_or_default().escape_debug();
            let cause = format!("it is named as `{}` and says it is `{found}`", descriptor.media_type.escape_debug());
            self.report.failed(name, AGREES, cause);
        }
    }

    fn document(&mut self, descriptor: &Descriptor, digest: &BlobDigest) -> Option<Vec<u8>> {
        let outcome = self.blobs.document(digest).map_err(|error| error.to_string()).and_then(|bytes| {
            let (expected, found) = (descriptor.size, bytes.len() as u64);
            let fits = expected == found;
            fits.then_some(bytes).ok_or_else(|| format!("it should have {expected} bytes, and has {found}"))
        });
        match outcome {
            Ok(bytes) => {
                self.report.held(digest.to_string(), BYTES);
                Some(bytes)
            }
            Err(cause) => {
                self.report.failed(digest.to_string(), BYTES, cause);
                None
            }
        }
    }

    fn manifest(&mut self, descriptor: &Descriptor, digest: BlobDigest, manifest: &Manifest) {
        let name = digest.to_string();
        if !manifest.config.is_config() {
            // Something else beside the image: its parts are checked, but nothing is known of them.
            for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
                self.blob(part);
            }
            return;
        }
        let config = match BlobDigest::parse(&manifest.config.digest) {
            Err(error) => return self.report.failed(name, READABLE, error.to_string()),
            Ok(config) => config,
        };
        let Some(bytes) = self.document(&manifest.config, &config) else { return };
        let config = match Config::read(&bytes, &manifest.config.digest) {
            Err(error) => return self.report.failed(manifest.config.digest.clone(), READABLE, error.to_string()),
            Ok(config) => config,
        };
        let platform = config.platform();
        if let Some(told) = descriptor.platform.as_ref().and_then(|object| object.platform())
            && told != platform
        {
            let cause = format!("its index has it for {told}, and it is for {platform}");
            self.report.failed(name.clone(), AGREES, cause);
        }
        let (layers, diff_ids) = (&manifest.layers, &config.rootfs.diff_ids);
        if layers.len() != diff_ids.len() {
            let cause = format!("it has {} layers, and its configuration tells of {}", layers.len(), diff_ids.len());
            self.report.failed(name.clone(), AGREES, cause);
        }
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            self.layer(layer, diff_id);
        }
        let annotations = manifest.annotations.as_ref();
        self.images.push(FoundImage {
            manifest: digest,
            platform: Some(platform),
            base: annotations.and_then(|all| all.get("org.opencontainers.image.base.digest")).cloned(),
            layers: layers.iter().map(|layer| layer.digest.clone()).collect(),
            diff_ids: diff_ids.clone(),
        });
    }

    fn layer(&mut self, layer: &Descriptor, diff_id: &str) {
        let name = layer.digest.escape_debug().to_string();
        if !layer.is_layer() {
            let cause = format!("it has type `{}`, which is no layer's", layer.media_type.escape_debug());
            self.report.failed(name.clone(), READABLE, cause);
        }
        let Some(digest) = self.blob(layer) else { return };
        let diff_id = match BlobDigest::parse(diff_id) {
            Ok(diff_id) => diff_id,
            Err(error) => return self.report.failed(name, CONTENT, error.to_string()),
        };
        if self.layers.insert((digest.clone(), diff_id.clone())) {
            // Nothing is decompressed before its bytes were found to be the right ones.
            let outcome = self.unpacked(&digest, &diff_id);
            self.report.settle(format!("{digest} unpacked"), CONTENT, outcome);
        }
    }

    /// Checks size and digest of a blob; gives the digest if they hold.
    fn blob(&mut self, descriptor: &Descriptor) -> Option<BlobDigest> {
        let name = descriptor.digest.escape_debug().to_string();
        let digest = match BlobDigest::parse(&descriptor.digest) {
            Ok(digest) => digest,
            Err(error) => {
                self.report.failed(name, BYTES, error.to_string());
                return None;
            }
        };
        let key = (digest.clone(), descriptor.size);
        let held = match self.whole.get(&key) {
            Some(held) => *held,
            None => {
                let outcome = self.check_whole(&digest, descriptor.size);
                let held = outcome.is_ok();
                self.report.settle(name, BYTES, outcome);
                self.whole.insert(key, held);
                held
            }
        };
        held.then_some(digest)
    }

    fn check_whole(&self, digest: &BlobDigest, size: u64) -> Result<(), String> {
        match self.blobs.size(digest).map_err(|error| error.to_string())? {
            None => return Err("it is missing".into()),
            Some(found) if found != size => return Err(format!("it should have {size} bytes, and has {found}")),
            Some(_) => {}
        }
        let reader = self.blobs.open(digest).map_err(|error| error.to_string())?;
        digested(reader, digest, &mut { size })
    }

    fn unpacked(&mut self, digest: &BlobDigest, diff_id: &BlobDigest) -> Result<(), String> {
        let reader = self.blobs.open(digest).map_err(|error| error.to_string())?;
        let plain = decompressed(reader).map_err(|error| format!("it cannot be decompressed: {error}"))?;
        digested(plain, diff_id, &mut self.left)
    }
}

/// Reads everything, at most as many bytes as are left, and compares its digest. Memory: one buffer.
fn digested(mut from: impl Read, expected: &BlobDigest, left: &mut u64) -> Result<(), String> {
    let mut hasher = expected.hasher_like();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(format!("it cannot be read: {error}")),
        };
        *left = left.checked_sub(count as u64).ok_or("it has more bytes than are read")?;
        hasher.update(&buffer[..count]);
    }
    let found = hasher.finish();
    if found == *expected { Ok(()) } else { Err(format!("expected {expected}, found {found}")) }
}
