//! Configuration, manifest and index of an image: a function of what it is told, of [`FORMAT_VERSION`] and of nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::platform::Platform;
use crate::image::blob::BlobDigest;
use crate::image::error::ImageError;
use crate::image::inherit;
use crate::image::pack::PackedLayer;
use crate::image::tar_writer::check_epoch;
use crate::image::wire::{
    CONFIG_TYPE, Config, Descriptor, Execution, INDEX_TYPE, Index, LayoutMark, MANIFEST_TYPE, Manifest, PlatformObject,
    RootFs, Step, write,
};

/// Version of everything that decides about the bytes of an image: archives, compressors, documents. Part of keys. A new one leaves
/// what images of an old one are as it is.
pub const FORMAT_VERSION: u32 = 1;

/// Most layers that runtimes take.
pub const RUNNABLE_LAYERS_MAX: usize = 127;

/// The annotation of an entry of a layout with its name.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// The image that another begins with.
#[derive(Clone, Debug)]
pub struct Base {
    /// What it is called, as `registry.example/base:1`, if it has a name.
    pub name: Option<String>,
    /// Digest of its manifest.
    pub digest: BlobDigest,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: Config,
}

/// A layer on top of the base.
#[derive(Clone, Debug)]
pub struct OwnLayer {
    /// What names it in the manifest.
    pub descriptor: Descriptor,
    /// Digest of its archive.
    pub diff_id: BlobDigest,
    /// What the history says of it; the same wherever it is built.
    pub created_by: String,
}

impl OwnLayer {
    /// A layer that was packed here.
    pub fn packed(layer: &PackedLayer, created_by: &str) -> Self {
        let created_by = created_by.to_owned();
        Self { descriptor: layer.descriptor(), diff_id: layer.diff_id.clone(), created_by }
    }
}

/// What an image for one platform is made from.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// What it begins with; `None` for nothing.
    pub base: Option<Base>,
    /// Its own layers, lowest first.
    pub layers: Vec<OwnLayer>,
    /// Its platform.
    pub platform: Platform,
    /// How it is started, and its labels; what is `None` is as in the base.
    pub execution: Execution,
    /// Annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// When it was made, in seconds since 1970.
    pub epoch: u64,
}

/// The documents of an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assembled {
    /// Bytes of its configuration.
    pub config: Vec<u8>,
    /// Bytes of its manifest.
    pub manifest: Vec<u8>,
    /// What names its configuration.
    pub config_descriptor: Descriptor,
    /// What names its manifest, with the platform.
    pub descriptor: Descriptor,
    /// What names its layers, lowest first, those of the base among them.
    pub layers: Vec<Descriptor>,
}

/// An index with what names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AssembledIndex {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What names it.
    pub descriptor: Descriptor,
}

/// Puts the documents of an image together.
///
/// Errors if the base is for another platform, contradicts itself, or has too many layers together with those on top.
pub fn assemble_image(spec: &ImageSpec) -> Result<Assembled, ImageError> {
    check_epoch(spec.epoch)?;
    let created = rfc3339(spec.epoch);
    let (mut layers, mut diff_ids, mut history) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(base) = &spec.base {
        let found = base.config.platform();
        if found != spec.platform {
            return Err(ImageError::Platform { wanted: spec.platform.to_string(), found: vec![found.to_string()] });
        }
        layers = inherit::layers(&base.manifest)?;
        diff_ids = inherit::diff_ids(&base.config, layers.len())?;
        history = inherit::history(&base.config);
    }
    for layer in &spec.layers {
        layers.push(layer.descriptor.clone());
        diff_ids.push(layer.diff_id.to_string());
        let created_by = Some(layer.created_by.clone());
        history.push(Step { created: Some(created.clone()), created_by, ..Step::default() });
    }
    if layers.len() > RUNNABLE_LAYERS_MAX {
        let count = layers.len();
        let why =
            format!("it would have {count} layers, and runtimes take {RUNNABLE_LAYERS_MAX}; put some of them together");
        return Err(ImageError::Assembly(why));
    }
    let base_execution = spec.base.as_ref().and_then(|base| base.config.config.as_ref());
    let Platform { os, architecture, variant } = spec.platform.clone();
    let config = write(&Config {
        created: Some(created),
        architecture,
        os,
        variant,
        config: Some(inherit::execution(base_execution, &spec.execution)),
        rootfs: RootFs { kind: "layers".into(), diff_ids },
        history: Some(history).filter(|history| !history.is_empty()),
    });
    let config_descriptor = Descriptor::of(CONFIG_TYPE, &config);
    let manifest = write(&Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST_TYPE.into()),
        artifact_type: None,
        config: config_descriptor.clone(),
        layers: layers.clone(),
        subject: None,
        annotations: filled(annotations(spec)),
    });
    let mut descriptor = Descriptor::of(MANIFEST_TYPE, &manifest);
    descriptor.platform = Some(platform_object(&spec.platform));
    Ok(Assembled { config, manifest, config_descriptor, descriptor, layers })
}

/// Annotations of a manifest, with those about the base unless they are told.
fn annotations(spec: &ImageSpec) -> BTreeMap<String, String> {
    let mut all = spec.annotations.clone();
    if let Some(base) = &spec.base {
        if let Some(name) = &base.name {
            all.entry(BASE_NAME.into()).or_insert_with(|| name.clone());
        }
        all.entry(BASE_DIGEST.into()).or_insert_with(|| base.digest.to_string());
    }
    all
}

fn filled(annotations: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(annotations).filter(|annotations| !annotations.is_empty())
}

/// A platform as descriptors have it.
pub fn platform_object(platform: &Platform) -> PlatformObject {
    let Platform { os, architecture, variant } = platform.clone();
    PlatformObject { architecture, os, os_version: None, variant }
}

/// Puts images for several platforms together. In order of operating system, architecture and variant; each of them once.
pub fn assemble_index(
    mut images: Vec<Descriptor>,
    annotations: BTreeMap<String, String>,
) -> Result<AssembledIndex, ImageError> {
    let mut seen = BTreeSet::new();
    for image in &images {
        let platform = image.platform.as_ref().and_then(PlatformObject::platform);
        let Some(platform) = platform.filter(|_| image.is_image()) else {
            let digest = &image.digest;
            return Err(ImageError::Assembly(format!(
                "`{digest}` is no image for a platform, and an index has only those"
            )));
        };
        if !seen.insert(platform.clone()) {
            return Err(ImageError::Assembly(format!("there is more than one image for {platform}")));
        }
    }
    if images.is_empty() {
        return Err(ImageError::Assembly("there is no image for any platform".into()));
    }
    images.sort_by_cached_key(|image| image.platform.as_ref().and_then(PlatformObject::platform));
    let bytes = index(images, filled(annotations));
    let descriptor = Descriptor::of(INDEX_TYPE, &bytes);
    Ok(AssembledIndex { bytes, descriptor })
}

/// `index.json` of a layout with one image or index, called `name`.
pub fn layout_index(entry: &Descriptor, name: Option<&str>) -> Vec<u8> {
    let mut entry = entry.clone();
    if let Some(name) = name {
        entry.annotations.get_or_insert_default().insert(REF_NAME.into(), name.to_owned());
    }
    index(vec![entry], None)
}

/// The bytes of an index.
pub(super) fn index(manifests: Vec<Descriptor>, annotations: Option<BTreeMap<String, String>>) -> Vec<u8> {
    write(&Index { schema_version: 2, media_type: Some(INDEX_TYPE.into()), manifests, annotations })
}

/// `oci-layout` of a layout.
pub fn layout_mark() -> Vec<u8> {
    write(&LayoutMark { version: "1.0.0".into() })
}

/// Seconds since 1970 as images have times (RFC 3339, UTC). Years have four digits up to 253402300799.
pub fn rfc3339(epoch: u64) -> String {
    const DAY_SECONDS: u64 = 86_400;
    const CYCLE_DAYS: u64 = 146_097; // 400 years.
    let (days, seconds) = (epoch / DAY_SECONDS, epoch % DAY_SECONDS);
    // Years begin in March, so that the odd day ends one; 719468 days lie between the first of year 0 and 1970.
    let shifted = days + 719_468;
    let (cycle, day) = (shifted / CYCLE_DAYS, shifted % CYCLE_DAYS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // Months from March have 31, 30, 31, 30, 31 days, over and over: 153 in five.
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = cycle * 400 + year + later;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let check = |epoch: u64, expect: &str| assert_eq!(rfc3339(epoch), expect);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(951_868_800, "2000-03-01T00:00:00Z");
        check(1_234_567_890, "2009-02-13T23:31:30Z");
        check(1_709_164_800, "2024-02-29T00:00:00Z");
        check(1_735_689_599, "2024-12-31T23:59:59Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        check(8_589_934_591, "2242-03-16T12:56:31Z");
    }

    fn own(word: &str) -> OwnLayer {
        OwnLayer {
            descriptor: Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip", word.as_bytes()),
            diff_id: BlobDigest::of(format!("plain {word}").as_bytes()),
            created_by: format!("layer {word}"),
        }
    }

    fn spec(base: Option<Base>, layers: Vec<OwnLayer>) -> ImageSpec {
        let platform = Platform::parse("linux/amd64").expect("a platform");
        ImageSpec { base, layers, platform, execution: Execution::default(), annotations: BTreeMap::new(), epoch: 0 }
    }

    fn base(media_types: &[&str]) -> Base {
        let layer = |media_type: &&str| Descriptor::of(media_type, media_type.as_bytes());
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some("application/vnd.docker.distribution.manifest.v2+json".into()),
            artifact_type: None,
            config: Descriptor::of("application/vnd.docker.container.image.v1+json", b"{}"),
            layers: media_types.iter().map(layer).collect(),
            subject: None,
            annotations: None,
        };
        let diff_ids: Vec<String> =
            media_types.iter().map(|word| BlobDigest::of(format!("plain {word}").as_bytes()).to_string()).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "docker_version": "20",
            "config": { "Env": ["A=1"], "Cmd": ["sh"], "Image": "x" },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = Config::read(config.to_string().as_bytes(), "c").expect("a configuration");
        let digest = BlobDigest::of(&write(&manifest));
        Base { name: Some("registry.example/base:1".into()), digest, manifest, config }
    }

    #[test]
    fn a_base_of_docker_becomes_one_of_oci_and_keeps_its_blobs() {
        let base = base(&[
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ]);
        let made = assemble_image(&spec(Some(base.clone()), vec![own("a")])).expect("an image");
        let manifest = Manifest::read(&made.manifest, "m").expect("a manifest");
        let types: Vec<&str> =
            manifest.layers.iter().map(|layer| layer.media_type.rsplit('.').next().unwrap_or("")).collect();
        assert_eq!(types, ["tar+gzip", "tar", "tar+zstd", "tar+gzip"]);
        for (own, theirs) in manifest.layers.iter().zip(&base.manifest.layers) {
            assert_eq!((&own.digest, own.size), (&theirs.digest, theirs.size));
            assert!(own.media_type.starts_with("application/vnd.oci."));
        }
        assert_eq!(manifest.config.media_type, CONFIG_TYPE);
        let annotations = manifest.annotations.expect("annotations");
        assert_eq!(annotations[BASE_NAME], "registry.example/base:1");
        assert_eq!(annotations[BASE_DIGEST], base.digest.to_string());
        let config = Config::read(&made.config, "c").expect("a configuration");
        assert_eq!(config.rootfs.diff_ids.len(), 4);
        assert_eq!(config.rootfs.diff_ids[3], own("a").diff_id.to_string());
        let history = config.history.expect("a history");
        assert_eq!(history.len(), 4);
        assert_eq!(history[3].created_by.as_deref(), Some("layer a"));
        assert_eq!(config.config.expect("how it is started").cmd, Some(vec!["sh".to_owned()]));
        assert_eq!(made.layers, manifest.layers);
    }

    #[test]
    fn every_byte_of_the_documents_is_that_of_format_1() {
        let mut spec = spec(Some(base(&["application/vnd.docker.image.rootfs.diff.tar.gzip"])), vec![own("a")]);
        spec.epoch = 1_700_000_000;
        spec.platform = Platform::parse("linux/arm/v7").expect("a platform");
        let config = &mut spec.base.as_mut().expect("a base").config;
        (config.architecture, config.variant) = ("arm".into(), Some("v7".into()));
        spec.annotations.insert("a\"b".into(), "ü".into());
        let made = assemble_image(&spec).expect("an image");
        let base = spec.base.expect("a base");
        let (lower, upper) = (&base.config.rootfs.diff_ids[0], own("a").diff_id);
        let config = format!(
            concat!(
                r#"{{"created":"2023-11-14T22:13:20Z","architecture":"arm","os":"linux","variant":"v7","#,
                r#""config":{{"Env":["A=1"],"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":["{lower}","{upper}"]}},"#,
                r#""history":[{{"created_by":"layer of the base image"}},{{"created":"2023-11-14T22:13:20Z","created_by":"layer a"}}]}}"#
            ),
            lower = lower,
            upper = upper
        );
        assert_eq!(String::from_utf8_lossy(&made.config), config);
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        let manifest = format!(
            concat!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"#,
                r#""layers":[{{"mediaType":"{gzip}","digest":"{}","size":49}},{{"mediaType":"{gzip}","digest":"{}","size":1}}],"#,
                r#""annotations":{{"a\"b":"ü","org.opencontainers.image.base.digest":"{}","#,
                r#""org.opencontainers.image.base.name":"registry.example/base:1"}}}}"#
            ),
            BlobDigest::of(config.as_bytes()),
            config.len(),
            base.manifest.layers[0].digest,
            own("a").descriptor.digest,
            base.digest,
            gzip = gzip
        );
        assert_eq!(String::from_utf8_lossy(&made.manifest), manifest);
        let platform = made.descriptor.platform.expect("a platform");
        assert_eq!((platform.architecture.as_str(), platform.variant.as_deref()), ("arm", Some("v7")));
        assert_eq!(made.descriptor.digest, BlobDigest::of(manifest.as_bytes()).to_string());
    }

    #[test]
    fn what_cannot_be_put_together_is_refused() {
        let check = |spec: &ImageSpec, expect: &str| {
            let told = assemble_image(spec).expect_err(expect).to_string();
            assert!(told.contains(expect), "{expect}: {told}");
        };
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        let mut other = spec(Some(base(&[gzip])), vec![]);
        other.platform = Platform::parse("linux/arm64").expect("a platform");
        check(&other, "not for linux/arm64; it has linux/amd64");
        let mut other = base(&[gzip]);
        other.config.rootfs.diff_ids.clear();
        check(&spec(Some(other), vec![]), "has 1 layers, and its configuration tells of 0");
        let mut other = base(&[gzip]);
        other.config.rootfs.diff_ids[0] = "sha256:x".into();
        check(&spec(Some(other), vec![]), "is no digest");
        check(&spec(Some(base(&["text/plain"])), vec![]), "has type `text/plain`");
        assert!(assemble_image(&spec(None, vec![own("a"); RUNNABLE_LAYERS_MAX])).is_ok());
        check(&spec(None, vec![own("a"); RUNNABLE_LAYERS_MAX + 1]), "128 layers");
        check(&ImageSpec { epoch: 1 << 40, ..spec(None, vec![]) }, "later than the year 2242");
    }

    #[test]
    fn an_index_does_not_depend_on_the_order_of_its_images() {
        let image = |platform: &str| {
            let platform = Platform::parse(platform).expect("a platform");
            let mut image = Descriptor::of(MANIFEST_TYPE, platform.to_string().as_bytes());
            image.platform = Some(platform_object(&platform));
            image
        };
        let words = ["linux/arm/v7", "linux/amd64", "linux/arm/v6", "linux/arm64", "freebsd/amd64"];
        let mut images: Vec<Descriptor> = words.iter().map(|word| image(word)).collect();
        let made = assemble_index(images.clone(), BTreeMap::new()).expect("an index");
        images.reverse();
        assert_eq!(assemble_index(images.clone(), BTreeMap::new()).expect("an index"), made);
        let index = Index::read(&made.bytes, "i").expect("an index");
        let told: Vec<String> = index
            .manifests
            .iter()
            .filter_map(|image| image.platform.as_ref()?.platform().map(|platform| platform.to_string()))
            .collect();
        assert_eq!(
            told.iter().map(String::as_str).collect::<Vec<_>>(),
            ["freebsd/amd64", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64"]
        );
        let check = |images: Vec<Descriptor>, expect: &str| {
            let told = assemble_index(images, BTreeMap::new()).expect_err(expect).to_string();
            assert!(told.contains(expect), "{expect}: {told}");
        };
        check(vec![image("linux/amd64"), image("linux/x86_64")], "more than one image for linux/amd64");
        check(vec![Descriptor { platform: None, ..image("linux/amd64") }], "is no image for a platform");
        check(
            vec![Descriptor { artifact_type: Some("x".into()), ..image("linux/amd64") }],
            "is no image for a platform",
        );
        check(vec![], "no image for any platform");
    }

    #[test]
    fn a_layout_names_its_image() {
        let entry = Descriptor::of(MANIFEST_TYPE, b"");
        let index = Index::read(&layout_index(&entry, Some("v1")), "index.json").expect("an index");
        assert_eq!(index.manifests[0].annotation(REF_NAME), Some("v1"));
        let index = Index::read(&layout_index(&entry, None), "index.json").expect("an index");
        assert_eq!(index.manifests, [entry]);
        assert_eq!(layout_mark(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    }
}
