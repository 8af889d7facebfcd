//! Images to and from registries that behave well, badly, or not at all; and real ones where they are installed.

mod access;
mod pulling;
mod pushing;
mod real;
mod referring;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::TlsConfig;

use crate::image::wire::{
    CONFIG_TYPE, Config, Descriptor, Empty, INDEX_TYPE, Index, LayoutMark, MANIFEST_TYPE, Manifest, PlatformObject,
    RootFs, write,
};
use crate::image::{BlobDigest, Blobs};
use crate::process::cancel::Cancel;
use crate::registry::fake::FakeRegistry;
use crate::registry::{
    Client, Patience, Proxies, PushEvent, PushOptions, Pushed, RegistryError, Repository, Settings, push,
};

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// Settings with no patience to speak of, so that no test waits.
pub fn settings(variables: &[(&str, String)]) -> Settings {
    Settings {
        tls: Arc::new(TlsConfig::default),
        own_tls: None,
        proxies: Proxies::default(),
        variables: variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        user_agent: "tests".into(),
        insecure: BTreeSet::new(),
        cancel: Cancel::new().expect("a descriptor"),
        patience: Patience {
            attempts: 5,
            first_wait: Duration::from_millis(1),
            wait_max: Duration::from_millis(20),
            silence_max: Duration::from_secs(20),
        },
        on_wait: None,
    }
}

pub fn client() -> Client {
    Client::new(settings(&[])).expect("a client")
}

pub fn repository(registry: &FakeRegistry, name: &str) -> Repository {
    Repository::parse(&format!("{}/{name}", registry.host())).expect("a repository")
}

/// Bytes that look like nothing, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A layout that is being made.
#[derive(Default)]
pub struct Making(pub BTreeMap<String, Vec<u8>>);

impl Making {
    pub fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let digest = BlobDigest::of(&bytes);
        let descriptor = Descriptor {
            media_type: media_type.into(),
            digest: digest.to_string(),
            size: bytes.len() as u64,
            platform: None,
            artifact_type: None,
            annotations: None,
        };
        self.0.insert(digest.path(), bytes);
        descriptor
    }

    pub fn image(&mut self, architecture: &str, layers: &[Vec<u8>]) -> Descriptor {
        let diff_ids = layers.iter().map(|layer| BlobDigest::of(layer).to_string()).collect();
        let config = Config {
            created: None,
            architecture: architecture.into(),
            os: "linux".into(),
            variant: None,
            config: None,
            rootfs: RootFs { kind: "layers".into(), diff_ids },
            history: None,
        };
        let config = self.blob(CONFIG_TYPE, write(&config));
        let layers = layers.iter().map(|layer| self.blob(LAYER_TYPE, layer.clone())).collect();
        self.manifest(config, layers, None, None)
    }

    pub fn manifest(
        &mut self,
        config: Descriptor,
        layers: Vec<Descriptor>,
        artifact_type: Option<&str>,
        subject: Option<Descriptor>,
    ) -> Descriptor {
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.into()),
            artifact_type: artifact_type.map(Into::into),
            config,
            layers,
            subject,
            annotations: artifact_type.map(|kind| BTreeMap::from([("kind".to_owned(), kind.to_owned())])),
        };
        self.blob(MANIFEST_TYPE, write(&manifest))
    }

    /// Something that says something about a manifest.
    pub fn referrer(&mut self, kind: &str, subject: &Descriptor, content: &[u8]) -> Descriptor {
        let config = self.blob("application/vnd.oci.empty.v1+json", write(&Empty {}));
        let layer = self.blob("application/json", content.to_vec());
        let subject = Descriptor { platform: None, ..subject.clone() };
        self.manifest(config, vec![layer], Some(kind), Some(subject))
    }

    pub fn index(&mut self, children: &[(&str, &Descriptor)]) -> Descriptor {
        let child = |(architecture, descriptor): &(&str, &Descriptor)| {
            let platform = PlatformObject {
                architecture: (*architecture).into(),
                os: "linux".into(),
                os_version: None,
                variant: None,
            };
            Descriptor { platform: Some(platform), ..(*descriptor).clone() }
        };
        self.blob(INDEX_TYPE, write(&index_of(children.iter().map(child).collect())))
    }

    /// The layout about one of its documents.
    pub fn about(&self, root: &Descriptor) -> Blobs {
        let mut files = self.0.clone();
        files.insert("oci-layout".into(), write(&LayoutMark { version: "1.0.0".into() }));
        files.insert("index.json".into(), write(&index_of(vec![root.clone()])));
        Blobs::Memory(Arc::new(files))
    }
}

fn index_of(manifests: Vec<Descriptor>) -> Index {
    Index { schema_version: 2, media_type: Some(INDEX_TYPE.into()), manifests, annotations: None }
}

/// An image for one platform with layers of these lengths.
pub fn simple(lengths: &[usize]) -> (Making, Descriptor) {
    let mut making = Making::default();
    let layers: Vec<Vec<u8>> =
        lengths.iter().enumerate().map(|(seed, length)| noise(seed as u64 + 1, *length)).collect();
    let image = making.image("amd64", &layers);
    (making, image)
}

/// Pushes with the tag `v1`.
pub fn pushed(client: &Client, blobs: &Blobs, to: &Repository) -> Result<Pushed, RegistryError> {
    push(client, blobs, to, &["v1".to_owned()], &PushOptions::default(), &mut |_: PushEvent| {})
}

#[track_caller]
pub fn told<T: std::fmt::Debug>(result: Result<T, RegistryError>, expect: &str) -> RegistryError {
    let error = result.expect_err(expect);
    let told = error.to_string();
    assert!(told.contains(expect), "`{expect}` is not in: {told}");
    error
}
