//! Writes images by hand, good and bad ones: layers as tar archives, layouts, what `docker save` packs. Shares no code with what reads them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::Digest as _;

/// What a member of a layer is.
#[derive(Clone, Copy, Debug)]
pub enum Make<'a> {
    /// A file with mode 0644.
    File(&'a str),
    /// A file with a mode.
    Mode(&'a str, u32),
    /// A directory.
    Dir,
    /// A symbolic link.
    Link(&'a str),
    /// A hard link.
    Hard(&'a str),
    /// Something else.
    Other(tar::EntryType),
}

/// A layer as a tar archive. Names are written as they are.
pub fn tar_of(members: &[(&str, Make<'_>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, make) in members {
        use tar::EntryType as T;
        let (kind, mode, target, content) = match make {
            Make::File(content) => (T::Regular, 0o644, "", *content),
            Make::Mode(content, mode) => (T::Regular, *mode, "", *content),
            Make::Dir => (T::Directory, 0o755, "", ""),
            Make::Link(target) => (T::Symlink, 0o777, *target, ""),
            Make::Hard(target) => (T::Link, 0o644, *target, ""),
            Make::Other(kind) => (*kind, 0o644, "", ""),
        };
        if name.len() > 100 {
            append(&mut builder, T::GNULongName, "././@LongLink", 0o644, "", format!("{name}\0").as_bytes());
        }
        append(&mut builder, kind, &name[..name.len().min(100)], mode, target, content.as_bytes());
    }
    builder.into_inner().expect("a vector takes it")
}

fn append(
    builder: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    name: &str,
    mode: u32,
    target: &str,
    content: &[u8],
) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    builder.append(&header, content).expect("a vector takes it");
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// With gzip at a level.
    Gzip(u32),
    /// With zstd.
    Zstd,
}

impl Packing {
    /// The bytes and the type of a layer packed so.
    pub fn pack(self, tar: &[u8]) -> (Vec<u8>, &'static str) {
        match self {
            Packing::Plain => (tar.to_vec(), "application/vnd.oci.image.layer.v1.tar"),
            Packing::Gzip(level) => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
                encoder.write_all(tar).expect("a vector takes it");
                (encoder.finish().expect("a vector takes it"), "application/vnd.oci.image.layer.v1.tar+gzip")
            }
            Packing::Zstd => {
                (zstd::encode_all(tar, 3).expect("a vector takes it"), "application/vnd.oci.image.layer.v1.tar+zstd")
            }
        }
    }
}

/// `sha256:…` of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    format!("sha256:{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A layout being written.
pub struct LayoutWriter {
    dir: PathBuf,
}

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

impl LayoutWriter {
    /// An empty layout in a directory that is made.
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("a directory");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
        Self { dir: dir.to_owned() }
    }

    /// Writes a blob and gives its descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        fs::write(self.dir.join(digest.replace("sha256:", "blobs/sha256/")), bytes).expect("a file");
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// The file of a descriptor.
    pub fn file(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().expect("a digest");
        self.dir.join(digest.replace("sha256:", "blobs/sha256/"))
    }

    /// Writes an image for a platform such as `linux/amd64` and gives the descriptor of its manifest, without the platform.
    pub fn image(&self, platform: &str, layers: &[Vec<u8>], packing: Packing) -> Value {
        let packed = layers.iter().map(|layer| {
            let (bytes, media_type) = packing.pack(layer);
            self.blob(media_type, &bytes)
        });
        let packed: Vec<Value> = packed.collect();
        let (os, architecture) = platform.split_once('/').expect("a platform");
        let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
        let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
        let config = json!({ "architecture": architecture, "os": os, "config": {}, "rootfs": rootfs });
        let config = self.document(CONFIG, &config);
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": packed });
        self.document(MANIFEST, &manifest)
    }

    /// Writes a document and gives its descriptor.
    pub fn document(&self, media_type: &str, document: &Value) -> Value {
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// Writes `index.json`.
    pub fn index(&self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        fs::write(self.dir.join("index.json"), index.to_string()).expect("a file");
    }
}

/// A descriptor with the platform it is for.
pub fn for_platform(descriptor: &Value, platform: &str) -> Value {
    let mut parts = platform.split('/');
    let mut object = json!({ "os": parts.next(), "architecture": parts.next() });
    if let Some(variant) = parts.next() {
        object["variant"] = json!(variant);
    }
    let mut descriptor = descriptor.clone();
    descriptor["platform"] = object;
    descriptor
}

/// What `docker save` once packed: a directory a layer, and `manifest.json`.
pub fn save_as_docker_did(dir: &Path, platform: &str, layers: &[Vec<u8>]) {
    let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let mut names = Vec::new();
    for (layer, diff_id) in layers.iter().zip(&diff_ids) {
        let name = diff_id.replace("sha256:", "");
        fs::create_dir_all(dir.join(&name)).expect("a directory");
        if !names.iter().any(|known: &String| known.starts_with(&name)) {
            fs::write(dir.join(&name).join("layer.tar"), layer).expect("a file");
        }
        names.push(format!("{name}/layer.tar"));
    }
    let (os, architecture) = platform.split_once('/').expect("a platform");
    let config =
        json!({ "architecture": architecture, "os": os, "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config_name = format!("{}.json", sha256(config.to_string().as_bytes()).replace("sha256:", ""));
    fs::write(dir.join(&config_name), config.to_string()).expect("a file");
    let saved = json!([{ "Config": config_name, "RepoTags": ["base:1"], "Layers": names }]);
    fs::write(dir.join("manifest.json"), saved.to_string()).expect("a file");
}
