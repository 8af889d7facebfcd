//! An image of two platforms with everything that is told of it: as facts that never change, and as a layout that can be verified.

use std::collections::BTreeMap;
use std::io::Write as _;

use super::base::digest::Digest;
use super::base::platform::Platform;
use super::image::BlobDigest;
use super::image::wire::{
    CONFIG_TYPE, Config, Descriptor, INDEX_TYPE, Index, MANIFEST_TYPE, Manifest, PlatformObject, RootFs, write,
};
use super::model::{
    BaseFacts, Component, ComponentKind, ImageFacts, LayerFacts, PlatformFacts, Relation, RelationKind, TaskFacts,
};
use super::packages::{alpine_packages, debian_packages};
use super::provenance::{LOCAL_BUILDER, Parameter, Resource, RunFacts};

const NAME: &str = "registry.example/acme/web";
const EPOCH: u64 = 1_700_000_000;

fn base() -> BaseFacts {
    BaseFacts { name: "registry.example/acme/base:1".into(), digest: BlobDigest::of(b"base") }
}

fn components() -> Vec<Component> {
    let source = Component {
        blake3: Some(Digest::of(b"fn main() {}")),
        sha256: Some(BlobDigest::of(b"fn main() {}")),
        licence: Some("MIT OR Apache-2.0".into()),
        ..Component::new(ComponentKind::SourceFile, "apps/web/src/main rs+\u{e9}.rs")
    };
    let fetched = Component {
        version: Some("1.2.3".into()),
        sha256: Some(BlobDigest::of(b"archive")),
        url: Some("https://ann:secret@files.example/tool-1.2.3.tar.gz?x=1".into()),
        licence: Some("GPL, more or less".into()),
        path: Some("/opt/tool".into()),
        ..Component::new(ComponentKind::Fetched, "tool")
    };
    let output = Component {
        tree: Some(Digest::of(b"output")),
        path: Some("/srv/www".into()),
        ..Component::new(ComponentKind::TaskOutput, "//apps/web:build")
    };
    let status = "Package: libstdc++6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 12.2.0-14+deb12u1\n\n\
                  Package: base-files\nStatus: install ok installed\nArchitecture: amd64\nVersion: 12.4\n";
    let mut all = vec![source, fetched, output];
    all.extend(debian_packages(status.as_bytes(), "debian"));
    all.extend(alpine_packages(b"P:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\n"));
    all
}

/// Facts of an image that nobody has: the digests are those of words.
pub fn facts() -> ImageFacts {
    let layer = |word: &str, created_by: &str| LayerFacts {
        diff_id: BlobDigest::of(word.as_bytes()),
        digest: BlobDigest::of(format!("{word}.gz").as_bytes()),
        size: word.len() as u64,
        created_by: created_by.into(),
    };
    let platform = |text: &str, upper: &str| PlatformFacts {
        platform: Platform::parse(text).expect("a platform"),
        manifest: BlobDigest::of(text.as_bytes()),
        base: Some(base()),
        layers: vec![layer("lower", "base"), layer(upper, "//apps/web:build")],
    };
    of_platforms(BlobDigest::of(b"index"), vec![platform("linux/amd64", "upper"), platform("linux/arm64/v9", "other")])
}

fn of_platforms(digest: BlobDigest, platforms: Vec<PlatformFacts>) -> ImageFacts {
    let components = components();
    let relation = |from: usize, kind, to: usize| Relation {
        from: components[from].reference(),
        kind,
        to: components[to].reference(),
    };
    let relations = vec![relation(2, RelationKind::GeneratedFrom, 0), relation(2, RelationKind::DependsOn, 1)];
    ImageFacts {
        name: NAME.into(),
        digest,
        platforms,
        epoch: EPOCH,
        engine_version: "0.1.0".into(),
        image_format: 1,
        action_key: Digest::of(b"action"),
        relations,
        components,
        tasks: vec![TaskFacts {
            label: "//apps/web:build".into(),
            key: Digest::of(b"key"),
            output: Digest::of(b"output"),
        }],
    }
}

/// What is told of the run that built it.
pub fn run() -> RunFacts {
    let text = |text: &str| Parameter::Text(text.into());
    let layers = Parameter::List(vec![Parameter::Map(BTreeMap::from([
        ("from".into(), text("//apps/web:build")),
        ("to".into(), text("/srv/www")),
    ]))]);
    RunFacts {
        external: BTreeMap::from([
            ("image".into(), text("//:web")),
            ("layers".into(), layers),
            ("squash".into(), Parameter::Flag(false)),
            ("budget".into(), Parameter::Number(10)),
        ]),
        isolation: "strict".into(),
        sources: vec![Resource {
            name: "source".into(),
            uri: Some("git+https://git.example/acme/web@refs/heads/main".into()),
            digest: BTreeMap::from([("gitCommit".into(), "0123456789abcdef0123456789abcdef01234567".into())]),
            download_location: None,
            annotations: BTreeMap::new(),
        }],
        builder: LOCAL_BUILDER.into(),
        invocation: "4d3c2b1a".into(),
        started: EPOCH + 10,
        finished: EPOCH + 12,
        byproducts: vec![],
    }
}

/// A layout in memory: its files by path. The facts are those of what is in it.
pub fn layout() -> (BTreeMap<String, Vec<u8>>, ImageFacts) {
    let mut files = BTreeMap::from([("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())]);
    let mut images = Vec::new();
    let mut platforms = Vec::new();
    for (architecture, content) in [("amd64", "upper"), ("arm64", "other")] {
        let object =
            PlatformObject { architecture: architecture.into(), os: "linux".into(), os_version: None, variant: None };
        let plain = [format!("lower {}", "layer ".repeat(20)), format!("{content} {}", "layer ".repeat(20))];
        let packed = [gzip(plain[0].as_bytes()), zstd::encode_all(plain[1].as_bytes(), 3).expect("a vector takes it")];
        let types = ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd"];
        let diff_ids: Vec<_> = plain.iter().map(|plain| BlobDigest::of(plain.as_bytes())).collect();
        let layers =
            packed.iter().zip(types).map(|(bytes, kind)| put(&mut files, kind, bytes.clone())).collect::<Vec<_>>();
        let told = layers.iter().zip(&diff_ids).map(|(layer, diff_id)| LayerFacts {
            diff_id: diff_id.clone(),
            digest: BlobDigest::parse(&layer.digest).expect("a digest"),
            size: layer.size,
            created_by: "test".into(),
        });
        let told = told.collect();
        let config = Config {
            created: None,
            architecture: architecture.into(),
            os: "linux".into(),
            variant: None,
            config: None,
            rootfs: RootFs { kind: "layers".into(), diff_ids: diff_ids.iter().map(ToString::to_string).collect() },
            history: None,
        };
        let config = put(&mut files, CONFIG_TYPE, write(&config));
        let annotations = BTreeMap::from([
            ("org.opencontainers.image.base.digest".to_owned(), base().digest.to_string()),
            ("org.opencontainers.image.base.name".to_owned(), base().name),
        ]);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.into()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: Some(annotations),
        };
        let manifest = put(&mut files, MANIFEST_TYPE, write(&manifest));
        platforms.push(PlatformFacts {
            platform: object.platform().expect("a platform"),
            manifest: BlobDigest::parse(&manifest.digest).expect("a digest"),
            base: Some(base()),
            layers: told,
        });
        images.push(Descriptor { platform: Some(object), ..manifest });
    }
    let index = put(&mut files, INDEX_TYPE, write(&index_of(images)));
    let digest = BlobDigest::parse(&index.digest).expect("a digest");
    files.insert("index.json".into(), write(&index_of(vec![index])));
    (files, of_platforms(digest, platforms))
}

/// An index of manifests.
pub fn index_of(manifests: Vec<Descriptor>) -> Index {
    Index { schema_version: 2, media_type: Some(INDEX_TYPE.into()), manifests, annotations: None }
}

/// Puts a blob into a layout.
pub fn put(files: &mut BTreeMap<String, Vec<u8>>, media_type: &str, bytes: Vec<u8>) -> Descriptor {
    let (digest, size) = (BlobDigest::of(&bytes), bytes.len() as u64);
    files.insert(digest.path(), bytes);
    Descriptor {
        media_type: media_type.into(),
        digest: digest.to_string(),
        size,
        platform: None,
        artifact_type: None,
        annotations: None,
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}
