//! The documents of an image as JSON (OCI image specification 1.1; Docker's of schema 2 are the same but for their types).
//!
//! Own types, since digests are taken of what is written: fields in a fixed order, maps sorted by bytes. Unknown fields are
//! read over; everything known is checked.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::platform::Platform;
use crate::image::blob::BlobDigest;
use crate::image::error::ImageError;

/// Largest document read, in bytes: as large as registries take.
pub const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Most manifests one index may name.
pub const INDEX_ENTRIES_MAX: usize = 1024;

/// Most layers one image may have; runtimes take about a quarter.
pub const LAYERS_MAX: usize = 512;

/// Type of an index.
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// The same in the words of Docker.
pub const DOCKER_LIST_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Type of a manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The same in the words of Docker.
pub const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Type of the configuration of an image: that of anything else is another.
pub const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// The same in the words of Docker.
pub const DOCKER_CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";

/// Types of layers. How one is compressed is told by its first bytes.
const LAYER_TYPES: [&str; 10] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// `oci-layout`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LayoutMark {
    /// Version of the layout; only `1.0.0` exists.
    #[serde(rename = "imageLayoutVersion")]
    pub version: String,
}

/// What names a blob.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Descriptor {
    /// What it is.
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// Its digest as text.
    pub digest: String,
    /// Its length in bytes.
    pub size: u64,
    /// For which platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformObject>,
    /// What it is when it is no image.
    #[serde(rename = "artifactType", default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// What names these bytes as a document of a type.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: BlobDigest::of(bytes).to_string(),
            size: bytes.len() as u64,
            platform: None,
            artifact_type: None,
            annotations: None,
        }
    }

    /// Whether it names an index.
    pub fn is_index(&self) -> bool {
        [INDEX_TYPE, DOCKER_LIST_TYPE].contains(&self.media_type.as_str())
    }

    /// Whether it names a manifest of an image; as far as it says: attestations beside an image have its type.
    pub fn is_image(&self) -> bool {
        let is_manifest = [MANIFEST_TYPE, DOCKER_MANIFEST_TYPE].contains(&self.media_type.as_str());
        is_manifest && self.artifact_type.is_none() && self.annotation("vnd.docker.reference.type").is_none()
    }

    /// Whether it names the configuration of an image.
    pub fn is_config(&self) -> bool {
        [CONFIG_TYPE, DOCKER_CONFIG_TYPE].contains(&self.media_type.as_str())
    }

    /// Whether it names a layer.
    pub fn is_layer(&self) -> bool {
        LAYER_TYPES.contains(&self.media_type.as_str())
    }

    /// A remark.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

/// `platform` of a descriptor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlatformObject {
    /// Architecture in the words of Go.
    pub architecture: String,
    /// Operating system in the words of Go.
    pub os: String,
    /// Its version.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl PlatformObject {
    /// The platform; `None` for `unknown`, which attestations have.
    pub fn platform(&self) -> Option<Platform> {
        let known = self.os != "unknown" && self.architecture != "unknown";
        known.then(|| Platform::new(&self.os, &self.architecture, self.variant.as_deref()))
    }
}

/// An index, and `index.json` of a layout.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Index {
    /// Always 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    /// What it is.
    #[serde(rename = "mediaType", default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it names.
    pub manifests: Vec<Descriptor>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// The manifest of one image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Always 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    /// What it is.
    #[serde(rename = "mediaType", default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it is when it is no image.
    #[serde(rename = "artifactType", default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest that it says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// The configuration of one image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Config {
    /// When it was made, in the form of RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Architecture in the words of Go.
    pub architecture: String,
    /// Operating system in the words of Go.
    pub os: String,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How a runtime starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Execution>,
    /// Its layers.
    pub rootfs: RootFs,
    /// How its layers came to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<Step>>,
}

/// How a runtime starts an image.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// As whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Ports that it listens on, as `8080/tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Empty>>,
    /// Environment, as `NAME=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// The command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments to the command, or the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Directories that are no part of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Empty>>,
    /// Where it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The signal that stops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// `{}`: the value of a set that JSON has no list for.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Empty {}

/// `rootfs` of a configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<String>,
}

/// One line of `history`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Step {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_layer: Option<bool>,
}

/// One image of `manifest.json`, which `docker save` writes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SavedImage {
    /// Where its configuration lies in the archive.
    pub config: String,
    /// Its names.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// Where its layers lie, lowest first.
    pub layers: Vec<String>,
}

/// Reads a document; `what` and `name` are for the error.
fn document<T: DeserializeOwned>(bytes: &[u8], what: &'static str, name: &str) -> Result<T, ImageError> {
    let read = serde_json::from_slice(bytes);
    read.map_err(|error| ImageError::Malformed { what, name: name.to_owned(), cause: error.to_string() })
}

fn malformed<T>(what: &'static str, name: &str, cause: impl Into<String>) -> Result<T, ImageError> {
    Err(ImageError::Malformed { what, name: name.to_owned(), cause: cause.into() })
}

impl LayoutMark {
    /// Reads `oci-layout`.
    pub fn read(bytes: &[u8], name: &str) -> Result<Self, ImageError> {
        let mark: Self = document(bytes, "layout", name)?;
        match mark.version.as_str() {
            "1.0.0" => Ok(mark),
            other => malformed("layout", name, format!("it has version `{}`; known is 1.0.0", other.escape_debug())),
        }
    }
}

/// `mediaType` is not required; where it is, it must be one of these.
fn check_version(
    version: u32,
    media_type: Option<&str>,
    types: [&str; 2],
    what: &'static str,
    name: &str,
) -> Result<(), ImageError> {
    if version != 2 {
        return malformed(what, name, format!("it has schema version {version}; known is 2"));
    }
    match media_type {
        Some(other) if !types.contains(&other) => {
            malformed(what, name, format!("its type is `{}`", other.escape_debug()))
        }
        _ => Ok(()),
    }
}

impl Index {
    /// Reads an index.
    pub fn read(bytes: &[u8], name: &str) -> Result<Self, ImageError> {
        let index: Self = document(bytes, "index", name)?;
        let types = [INDEX_TYPE, DOCKER_LIST_TYPE];
        check_version(index.schema_version, index.media_type.as_deref(), types, "index", name)?;
        if index.manifests.len() > INDEX_ENTRIES_MAX {
            return malformed("index", name, format!("it names more than {INDEX_ENTRIES_MAX} manifests"));
        }
        Ok(index)
    }
}

impl Manifest {
    /// Reads a manifest.
    pub fn read(bytes: &[u8], name: &str) -> Result<Self, ImageError> {
        let manifest: Self = document(bytes, "manifest", name)?;
        let types = [MANIFEST_TYPE, DOCKER_MANIFEST_TYPE];
        check_version(manifest.schema_version, manifest.media_type.as_deref(), types, "manifest", name)?;
        if manifest.layers.len() > LAYERS_MAX {
            return malformed("manifest", name, format!("it has more than {LAYERS_MAX} layers"));
        }
        Ok(manifest)
    }
}

impl Config {
    /// Reads a configuration.
    pub fn read(bytes: &[u8], name: &str) -> Result<Self, ImageError> {
        let config: Self = document(bytes, "configuration", name)?;
        if config.rootfs.kind != "layers" {
            let cause = format!("its root file system has type `{}`", config.rootfs.kind.escape_debug());
            return malformed("configuration", name, cause);
        }
        if config.rootfs.diff_ids.len() > LAYERS_MAX {
            return malformed("configuration", name, format!("it has more than {LAYERS_MAX} layers"));
        }
        Ok(config)
    }

    /// Its platform.
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// Reads `manifest.json` of `docker save`.
pub fn read_saved(bytes: &[u8], name: &str) -> Result<Vec<SavedImage>, ImageError> {
    let images: Vec<SavedImage> = document(bytes, "list of images", name)?;
    if images.len() > INDEX_ENTRIES_MAX || images.iter().any(|image| image.layers.len() > LAYERS_MAX) {
        return malformed("list of images", name, "it names too many images or layers");
    }
    Ok(images)
}

/// The bytes of a document of ours: no blanks, fields in the order of the specification, maps by bytes.
pub fn write<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("maps of texts and lists always become JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_written_with_their_fields_in_order() {
        let text = concat!(
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#,
            r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:00","size":7,"#,
            r#""platform":{"architecture":"arm64","os":"linux","variant":"v8"},"annotations":{"a":"1","b":"2"}}]}"#
        );
        let index = Index::read(text.as_bytes(), "index.json").expect("a good index");
        assert_eq!(String::from_utf8(write(&index)).expect("JSON"), text);
        let text = concat!(
            r#"{"created":"1970-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"User":"1","ExposedPorts":{"80/tcp":{}},"#,
            r#""Env":["A=1"],"Entrypoint":["/x"],"WorkingDir":"/","Labels":{"a":"b"}},"rootfs":{"type":"layers","diff_ids":["sha256:00"]},"#,
            r#""history":[{"created_by":"x","empty_layer":true}]}"#
        );
        let config = Config::read(text.as_bytes(), "c").expect("a good configuration");
        assert_eq!(String::from_utf8(write(&config)).expect("JSON"), text);
    }

    #[test]
    fn unknown_fields_and_nulls_are_read_over() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Volumes":null,"Entrypoint":null,"ArgsEscaped":true,"Labels":null},
            "container":"x","docker_version":"1","rootfs":{"type":"layers","diff_ids":[]},"history":null}"#;
        let config = Config::read(text.as_bytes(), "c").expect("what docker writes");
        assert_eq!(config.platform().to_string(), "linux/amd64");
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let check = |told: Result<(), ImageError>, expect: &str| {
            let told = told.expect_err(expect).to_string();
            assert!(told.contains(expect), "{expect}: {told}");
        };
        let index = |text: &str| Index::read(text.as_bytes(), "index.json").map(drop);
        check(index("{"), "index `index.json`");
        check(index(r#"{"schemaVersion":1,"manifests":[]}"#), "schema version 1");
        check(index(r#"{"schemaVersion":2,"manifests":[],"mediaType":"text/plain"}"#), "`text/plain`");
        check(index(r#"{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"b","size":-1}]}"#), "invalid value");
        check(index(r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#), "duplicate");
        let one = r#"{"mediaType":"a","digest":"b","size":1}"#;
        let many = vec![one; INDEX_ENTRIES_MAX + 1].join(",");
        check(index(&format!(r#"{{"schemaVersion":2,"manifests":[{many}]}}"#)), "more than 1024");
        check(index(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))), "index `index.json`");
        let manifest = |text: &str| Manifest::read(text.as_bytes(), "m").map(drop);
        let many = vec![one; LAYERS_MAX + 1].join(",");
        check(manifest(&format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{many}]}}"#)), "more than 512 layers");
        let config = |kind: &str| {
            let text = format!(r#"{{"architecture":"a","os":"l","rootfs":{{"type":"{kind}","diff_ids":[]}}}}"#);
            Config::read(text.as_bytes(), "c").map(drop)
        };
        config("layers").expect("it is fine");
        check(config("zoo"), "type `zoo`");
        check(LayoutMark::read(br#"{"imageLayoutVersion":"2.0"}"#, "oci-layout").map(drop), "known is 1.0.0");
    }
}
