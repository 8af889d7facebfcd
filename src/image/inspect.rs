//! An image described: what its layout names and, by platform, how it runs and what it is made of. Compares nothing; checks the digests
//! of what it reads, and that all blobs are there with the lengths that are told.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::platform::Platform;
use crate::image::blob::BlobDigest;
use crate::image::blobs::Blobs;
use crate::image::diff::contents::{Contents, ImageRef, LayerRef, OpenImage, Source};
use crate::image::diff::entries::{Kind, Meta, entries};
use crate::image::diff::told::{pretty, shown, shown_bytes};
use crate::image::diff::whole::{self, How, Which};
use crate::image::error::ImageError;
use crate::image::layout::INDEX_FILE;
use crate::image::wire::{Descriptor, Index};

/// What begins the remarks about a base image.
const BASE_KEYS: &str = "org.opencontainers.image.base.";

/// What is described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InspectOptions {
    /// Only images for this platform.
    pub platform: Option<Platform>,
    /// Whether layers are read and what they hold is listed.
    pub files: Files,
    /// Most bytes unpacked over all layers.
    pub unpacked_bytes_max: u64,
}

/// Whether entries of layers are listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Files {
    /// They are.
    Listed,
    /// No layer is read.
    LeftOut,
}

impl Default for InspectOptions {
    fn default() -> Self {
        Self { platform: None, files: Files::LeftOut, unpacked_bytes_max: 256 * 1024 * 1024 * 1024 }
    }
}

/// The images of a layout, as JSON in the order of the fields. What an image does not say is left out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Inspection {
    /// Version of this document: 1.
    pub format: u32,
    /// Digest of what the layout names, by which registries know it; left out where it names several, as what `docker save` packs may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What has this digest: `image index` or `manifest`.
    #[serde(rename = "digestOf", skip_serializing_if = "Option::is_none")]
    pub digest_of: Option<&'static str>,
    /// Its images in the order of the index.
    pub images: Vec<InspectedImage>,
    /// Digests of attestations beside the images.
    pub attestations: Vec<String>,
    /// Digests of anything else that the index names.
    pub artifacts: Vec<String>,
}

/// One image for one platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct InspectedImage {
    /// Its platform, as `linux/amd64`.
    pub platform: String,
    /// Its names in the index.
    pub names: Vec<String>,
    /// Digest of its manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Digest of its configuration.
    pub config: String,
    /// Bytes of its manifest, configuration and layers as they lie there, where they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// When it was made, in the form of RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// As whom it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where it starts.
    #[serde(rename = "workingDir", skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The command.
    pub entrypoint: Vec<String>,
    /// Its arguments, or the command.
    pub cmd: Vec<String>,
    /// Environment, as `NAME=value`.
    pub env: Vec<String>,
    /// Ports that it listens on, as `8080/tcp`.
    pub ports: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Remarks of the manifest, but for those about the base.
    pub annotations: BTreeMap<String, String>,
    /// What the manifest says of the base: `digest` and `name`.
    pub base: BTreeMap<String, String>,
    /// Its layers, lowest first.
    pub layers: Vec<InspectedLayer>,
}

/// One layer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct InspectedLayer {
    /// From 1.
    pub number: usize,
    /// Digest of what is in it.
    #[serde(rename = "diffId")]
    pub diff_id: String,
    /// Digest of its blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Bytes of its blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its type.
    #[serde(rename = "mediaType", skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What is told to have made it.
    #[serde(rename = "createdBy", skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Its entries in the order of the archive, where they are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<InspectedEntry>>,
}

/// One entry of a layer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct InspectedEntry {
    /// Its path; bytes that are no text are escaped.
    pub path: String,
    /// `file`, `directory`, `link`, `hard link`, `character device`, `block device`, `pipe`, or something unknown.
    pub kind: &'static str,
    /// Permission bits in octal digits, as `0644`.
    pub mode: String,
    /// Number of its owner.
    pub uid: u64,
    /// Number of its group.
    pub gid: u64,
    /// Bytes of a file.
    pub size: u64,
    /// Target of a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Describes the images of a layout, which may be what `docker save` packs.
///
/// Errors: a document that is missing, malformed or other than its digest says; a blob of the images asked for that is missing or has
/// another length; what a layer holds, if entries are listed. Memory: with entries,
/// what their names take.
pub fn inspect(blobs: &Blobs, options: &InspectOptions) -> Result<Inspection, ImageError> {
    let mut contents = Contents::read(blobs)?;
    if let Some(platform) = &options.platform {
        contents.only(platform)?;
    }
    let which = if options.platform.is_some() { Which::Left } else { Which::All };
    whole::check(blobs, &contents, which, How::Present)?;
    let top = top(&contents)?;
    let left = Cell::new(options.unpacked_bytes_max);
    let mut images = Vec::new();
    for image in &contents.images {
        let open = image.open(blobs)?;
        let layers = open.layers.iter().map(|layer| inspect_layer(blobs, layer, options.files, &left));
        let layers = layers.collect::<Result<_, ImageError>>()?;
        images.push(inspect_image(image, open, layers));
    }
    let digests = |all: &[Descriptor]| all.iter().map(|one| shown(&one.digest)).collect();
    Ok(Inspection {
        format: 1,
        digest_of: top.as_ref().map(|top| if top.is_index() { "image index" } else { "manifest" }),
        digest: top.map(|top| top.digest),
        images,
        attestations: digests(&contents.attestations),
        artifacts: digests(&contents.artifacts),
    })
}

/// The only image or index of images that `index.json` names.
fn top(contents: &Contents) -> Result<Option<Descriptor>, ImageError> {
    let Some(bytes) = &contents.index else { return Ok(None) };
    let named = Index::read(bytes, INDEX_FILE)?.manifests;
    let images = named.into_iter().filter(|one| one.is_index() || one.is_image()).collect::<Vec<_>>();
    Ok(<[Descriptor; 1]>::try_from(images).ok().map(|[only]| only))
}

fn inspect_image(image: &ImageRef, open: OpenImage, layers: Vec<InspectedLayer>) -> InspectedImage {
    let run = open.config.config.unwrap_or_default();
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    let sizes = open.layers.iter().map(|layer| layer.packed.as_ref().map(|(size, _)| *size));
    let documents = open.config_bytes.len() as u64;
    let layer_bytes = sizes.sum::<Option<u64>>();
    let size =
        open.manifest.as_ref().zip(layer_bytes).map(|((bytes, _), layers)| bytes.len() as u64 + documents + layers);
    let remarks = open.manifest.and_then(|(_, manifest)| manifest.annotations).unwrap_or_default();
    let (base, annotations): (BTreeMap<_, _>, BTreeMap<_, _>) =
        remarks.into_iter().partition(|(key, _)| key.starts_with(BASE_KEYS));
    InspectedImage {
        platform: image.platform.clone(),
        names: image.names.iter().cloned().collect(),
        manifest: matches!(image.source, Source::Manifest { .. }).then(|| image.id()),
        config: BlobDigest::of(&open.config_bytes).to_string(),
        size,
        created: said(open.config.created),
        user: said(run.user),
        working_dir: said(run.working_dir),
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: run.env.unwrap_or_default(),
        ports: run.exposed_ports.unwrap_or_default().into_keys().collect(),
        labels: run.labels.unwrap_or_default(),
        annotations,
        base: base.into_iter().map(|(key, value)| (key[BASE_KEYS.len()..].to_owned(), value)).collect(),
        layers,
    }
}

fn inspect_layer(
    blobs: &Blobs,
    layer: &LayerRef,
    files: Files,
    left: &Cell<u64>,
) -> Result<InspectedLayer, ImageError> {
    let listed = match files {
        Files::Listed => Some(entries(blobs, layer, left)?.iter().map(inspect_entry).collect()),
        Files::LeftOut => None,
    };
    let packed = layer.packed.as_ref();
    Ok(InspectedLayer {
        number: layer.number,
        diff_id: layer.diff_id.to_string(),
        digest: packed.map(|(_, digest)| digest.to_string()),
        size: packed.map(|(size, _)| *size),
        media_type: layer.media_type.clone(),
        created_by: layer.created_by.clone(),
        entries: listed,
    })
}

fn inspect_entry(entry: &Meta) -> InspectedEntry {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    };
    InspectedEntry {
        path: if entry.path.is_empty() { "/".into() } else { text(&entry.path) },
        kind: entry.kind.name(),
        mode: format!("{:04o}", entry.rights()),
        uid: entry.uid,
        gid: entry.gid,
        size: if entry.kind == Kind::File { entry.size } else { 0 },
        target: entry.target.as_deref().map(text),
    }
}

impl Inspection {
    /// As JSON on several lines, with a newline at the end.
    pub fn json(&self) -> String {
        pretty(self)
    }

    /// As text, one fact a line.
    pub fn lines(&self) -> Vec<String> {
        let top = self.digest_of.iter().zip(&self.digest);
        let mut lines: Vec<String> = top.map(|(what, digest)| format!("{what} {digest}")).collect();
        for image in &self.images {
            lines.push(String::new());
            image.add_lines(&mut lines);
        }
        for (what, digests) in [("attestation", &self.attestations), ("artifact", &self.artifacts)] {
            lines.extend(digests.iter().map(|digest| format!("{what} {digest}")));
        }
        lines
    }
}

impl InspectedImage {
    fn add_lines(&self, lines: &mut Vec<String>) {
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                lines.push(format!("{name:<12}{}", shown(value)));
            }
        };
        let json = |words: &[String]| match words {
            [] => String::new(),
            words => serde_json::to_string(words).expect("texts always become JSON"),
        };
        line("platform", &self.platform);
        line("names", &self.names.join(", "));
        line("manifest", self.manifest.as_deref().unwrap_or_default());
        line("config", &self.config);
        line("size", &self.size.map(|size| format!("{size} bytes")).unwrap_or_default());
        line("created", self.created.as_deref().unwrap_or_default());
        line("user", self.user.as_deref().unwrap_or_default());
        line("workdir", self.working_dir.as_deref().unwrap_or_default());
        line("entrypoint", &json(&self.entrypoint));
        line("cmd", &json(&self.cmd));
        self.env.iter().for_each(|variable| line("env", variable));
        self.ports.iter().for_each(|port| line("port", port));
        for (name, all) in [("label", &self.labels), ("annotation", &self.annotations), ("base", &self.base)] {
            all.iter().for_each(|(key, value)| line(name, &format!("{key}={value}")));
        }
        for layer in &self.layers {
            layer.add_lines(lines);
        }
    }
}

impl InspectedLayer {
    fn add_lines(&self, lines: &mut Vec<String>) {
        lines.push(format!("layer {:<6}{}", self.number, self.diff_id));
        if let (Some(digest), Some(size)) = (&self.digest, self.size) {
            let media_type = self.media_type.as_deref().map(shown).unwrap_or_default();
            lines.push(format!("            {digest}, {size} bytes, {media_type}"));
        }
        lines.extend(self.created_by.iter().map(|made| format!("            made by {}", shown(made))));
        for entry in self.entries.iter().flatten() {
            let InspectedEntry { path, kind, mode, uid, gid, size, target } = entry;
            let target = target.as_ref().map(|target| format!(" -> {}", shown(target))).unwrap_or_default();
            let path = shown_bytes(path.as_bytes());
            lines.push(format!("            {mode} {uid}:{gid} {size:>10} {kind:<9} {path}{target}"));
        }
    }
}
