//! Reads images that were made, as OCI layouts: each blob beside its name, each layer as lines. Shares no code with what makes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::image::sha256;

/// An OCI layout in a directory.
pub struct Layout {
    dir: PathBuf,
}

/// One image of a layout.
pub struct Image {
    /// Its manifest.
    pub manifest: Value,
    /// Its config.
    pub config: Value,
    /// Its layers as they are unpacked, lowest first.
    pub layers: Vec<Vec<u8>>,
}

impl Layout {
    /// The layout in a directory, every blob of which has the name it should.
    #[track_caller]
    pub fn at(dir: &Path) -> Self {
        let mark = fs::read(dir.join("oci-layout")).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let mark: Value = serde_json::from_slice(&mark).expect("JSON");
        assert_eq!(mark, serde_json::json!({ "imageLayoutVersion": "1.0.0" }));
        let layout = Self { dir: dir.to_owned() };
        for name in layout.blobs() {
            assert_eq!(sha256(&layout.blob(&format!("sha256:{name}"))), format!("sha256:{name}"));
        }
        layout
    }

    /// Names of the blobs.
    pub fn blobs(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.dir.join("blobs/sha256")).expect("a directory of blobs");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
    }

    /// A blob by its digest.
    #[track_caller]
    pub fn blob(&self, digest: &str) -> Vec<u8> {
        let at = self.dir.join(digest.replace("sha256:", "blobs/sha256/"));
        fs::read(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display()))
    }

    /// A document by its digest.
    #[track_caller]
    pub fn document(&self, digest: &Value) -> Value {
        serde_json::from_slice(&self.blob(digest.as_str().expect("a digest"))).expect("JSON")
    }

    /// The one thing that `index.json` names.
    #[track_caller]
    pub fn top(&self) -> Value {
        let index: Value =
            serde_json::from_slice(&fs::read(self.dir.join("index.json")).expect("an index")).expect("JSON");
        let manifests = index["manifests"].as_array().expect("a list");
        assert_eq!(manifests.len(), 1, "{index}");
        manifests[0].clone()
    }

    /// The digest of what `index.json` names.
    #[track_caller]
    pub fn digest(&self) -> String {
        self.top()["digest"].as_str().expect("a digest").to_owned()
    }

    /// The platforms, as `os/architecture/variant`, with the digests of their manifests.
    #[track_caller]
    pub fn platforms(&self) -> BTreeMap<String, String> {
        let index = self.document(&self.top()["digest"]);
        let manifests = index["manifests"].as_array().expect("an index of several images");
        let word = |object: &Value, key: &str| object[key].as_str().map(str::to_owned);
        let platform = |one: &Value| {
            let parts = ["os", "architecture", "variant"].map(|key| word(&one["platform"], key));
            parts.into_iter().flatten().collect::<Vec<_>>().join("/")
        };
        manifests.iter().map(|one| (platform(one), word(one, "digest").expect("a digest"))).collect()
    }

    /// The only image.
    #[track_caller]
    pub fn only(&self) -> Image {
        self.image(&self.digest())
    }

    /// The image whose manifest has this digest.
    #[track_caller]
    pub fn image(&self, digest: &str) -> Image {
        let manifest = self.document(&Value::from(digest));
        let config = self.document(&manifest["config"]["digest"]);
        let layers: Vec<Vec<u8>> = manifest["layers"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|layer| {
                let bytes = self.blob(layer["digest"].as_str().expect("a digest"));
                assert_eq!(layer["size"], bytes.len(), "{layer}");
                unpacked(&bytes, layer["mediaType"].as_str().expect("a type"))
            })
            .collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
        assert_eq!(config["rootfs"]["diff_ids"], Value::from(diff_ids), "{config}");
        Image { manifest, config, layers }
    }
}

fn unpacked(bytes: &[u8], media_type: &str) -> Vec<u8> {
    let mut all = Vec::new();
    match media_type.rsplit('+').next() {
        Some("gzip") => {
            flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut all).expect("gzip");
        }
        Some("zstd") => all = zstd::decode_all(bytes).expect("zstd"),
        _ => all.extend(bytes),
    }
    all
}

impl Image {
    /// Digests of its layers as they are packed.
    pub fn packed(&self) -> Vec<String> {
        let layers = self.manifest["layers"].as_array().expect("a list");
        layers.iter().map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect()
    }

    /// What is in a layer, in its order: `755 0:0 dir/`, `644 0:0 file = content`, `0:0 link -> target`.
    #[track_caller]
    pub fn layer(&self, number: usize) -> Vec<String> {
        let mut archive = tar::Archive::new(&self.layers[number][..]);
        let mut lines = Vec::new();
        for entry in archive.entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let header = entry.header().clone();
            let path = entry.path().expect("a path").display().to_string();
            // Those written by hand have none.
            let owner = format!("{}:{}", header.uid().unwrap_or(0), header.gid().unwrap_or(0));
            let mode = header.mode().expect("a number");
            let target = entry.link_name().expect("a path").map(|target| target.display().to_string());
            let mut content = String::new();
            lines.push(match header.entry_type() {
                tar::EntryType::Directory => format!("{mode:o} {owner} {}/", path.trim_end_matches('/')),
                tar::EntryType::Symlink => format!("{owner} {path} -> {}", target.unwrap_or_default()),
                tar::EntryType::Regular => {
                    entry.read_to_string(&mut content).expect("a text");
                    format!("{mode:o} {owner} {path} = {}", content.trim_end().replace('\n', "|"))
                }
                other => panic!("{path}: {other:?}"),
            });
        }
        lines
    }

    /// The times in its layers.
    pub fn times(&self) -> BTreeSet<u64> {
        let mut all = BTreeSet::new();
        for layer in &self.layers {
            let mut archive = tar::Archive::new(&layer[..]);
            let entries = archive.entries().expect("an archive");
            all.extend(entries.map(|entry| entry.expect("an entry").header().mtime().expect("a number")));
        }
        all
    }
}
