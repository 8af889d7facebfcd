//! Indexes, manifests and configurations compared field by field. What follows from another difference (digests and sizes of what
//! differs below) is not told again.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::image::blobs::Blobs;
use crate::image::diff::class::Class;
use crate::image::diff::contents::{Contents, ImageRef, NAME_KEYS, OpenImage, described, value};
use crate::image::diff::told::{Event, Ledger, Place, Told, shown};
use crate::image::error::ImageError;
use crate::image::wire::Descriptor;

/// What begins the remarks about a base image.
const BASE_KEYS: &str = "org.opencontainers.image.base.";

/// Whether the manifest of an image says that it has a base.
pub(super) fn has_base(image: &OpenImage) -> bool {
    let remarks = image.manifest.iter().filter_map(|(_, manifest)| manifest.annotations.as_ref());
    remarks.flat_map(|remarks| remarks.keys()).any(|key| key.starts_with(BASE_KEYS))
}

/// Most bytes of the name of a field: what lies deeper is called like what it lies in.
const FIELD_BYTES_MAX: usize = 1000;

/// Takes a field that differs: its name and both values.
type Field<'a> = &'a mut dyn FnMut(&str, Option<&Value>, Option<&Value>);

/// Gives fields that differ in the order of their names; those that `skip` names are left out.
fn walk(path: &str, a: Option<&Value>, b: Option<&Value>, skip: &dyn Fn(&str) -> bool, found: Field<'_>) {
    if a == b || skip(path) {
        return;
    }
    let below = |with: String| if path.len() > FIELD_BYTES_MAX { path.to_owned() } else { format!("{path}{with}") };
    match (a, b) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let dot = if path.is_empty() { "" } else { "." };
                walk(&below(format!("{dot}{}", shown(key))), one.get(key), other.get(key), skip, found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) if one.len() == other.len() => {
            for (at, (one, other)) in one.iter().zip(other).enumerate() {
                walk(&below(format!("[{at}]")), Some(one), Some(other), skip, found);
            }
        }
        _ => found(path, a, b),
    }
}

fn told_value(value: Option<&Value>) -> Option<String> {
    value.map(|value| shown(&value.to_string()))
}

/// Compares two documents field by field; `class` gives why a field differs and the sentence.
fn compare(
    ledger: &mut Ledger<'_>,
    (event, place): (Event, &Place),
    (a, b): (&Value, &Value),
    skip: &dyn Fn(&str) -> bool,
    class: &dyn Fn(&str) -> (Class, &'static str),
) {
    walk("", Some(a), Some(b), skip, &mut |path, one, other| {
        let (class, sentence) = class(path);
        ledger.add(class, || {
            let place = Place { field: Some(shown(path)), ..place.clone() };
            Told::new(event, class, place, sentence).sides(told_value(one), told_value(other))
        });
    });
}

fn of_platform(platform: Option<&str>) -> Place {
    Place { platform: platform.map(str::to_owned), ..Place::default() }
}

fn of_descriptor(path: &str) -> (Class, &'static str) {
    let key = path.rsplit_once("annotations.").map(|(_, key)| key);
    if key.is_some_and(|key| NAME_KEYS.contains(&key)) {
        (Class::Names, "the image has another name in the index")
    } else if key.is_some() || path.ends_with("annotations") {
        (Class::Annotations, "a remark differs")
    } else if path.ends_with("mediaType") {
        (Class::MediaTypes, "the type differs: Docker and OCI call the same document otherwise")
    } else {
        (Class::Index, "the entry of the index differs")
    }
}

/// Compares what indexes say of themselves and of what is no image.
pub(super) fn indexes(
    ledger: &mut Ledger<'_>,
    (blobs_a, a): (&Blobs, &Contents),
    (blobs_b, b): (&Blobs, &Contents),
) -> Result<(), ImageError> {
    if let (Some(one), Some(other)) = (&a.index, &b.index) {
        index(ledger, &value(one, "index.json")?, &value(other, "index.json")?);
    }
    for (below_a, below_b) in a.indexes.iter().zip(&b.indexes) {
        if below_a.digest != below_b.digest {
            let before = ledger.count();
            let one = value(&described(blobs_a, below_a)?, &below_a.digest)?;
            let other = value(&described(blobs_b, below_b)?, &below_b.digest)?;
            index(ledger, &one, &other);
            if ledger.count() == before && one == other {
                json_order(ledger, Event::IndexBlobMismatch, None, "an image index");
            }
        }
        descriptor(ledger, None, below_a, below_b);
    }
    if a.indexes.len() != b.indexes.len() {
        let count = |side: &Contents| Some(format!("{} indexes below the outermost", side.indexes.len()));
        ledger.add(Class::Index, || {
            let sentence = "one index is kept in another on one side only";
            Told::new(Event::IndexBlobMismatch, Class::Index, Place::default(), sentence).sides(count(a), count(b))
        });
    }
    let beside =
        "an attestation lies in the index beside the images, so the digest of the index changes with each build";
    only_on_one(ledger, Class::AttestationInIndex, beside, &a.attestations, &b.attestations);
    only_on_one(ledger, Class::Index, "the index names something that is no image", &a.artifacts, &b.artifacts);
    Ok(())
}

fn index(ledger: &mut Ledger<'_>, a: &Value, b: &Value) {
    let at = (Event::IndexBlobMismatch, &Place::default());
    compare(ledger, at, (a, b), &|path| path == "manifests", &of_descriptor);
}

fn only_on_one(ledger: &mut Ledger<'_>, class: Class, sentence: &str, a: &[Descriptor], b: &[Descriptor]) {
    let lacking = |these: &[Descriptor], those: &[Descriptor]| -> Vec<String> {
        let those: BTreeSet<&String> = those.iter().map(|one| &one.digest).collect();
        these.iter().map(|one| &one.digest).filter(|digest| !those.contains(digest)).map(|one| shown(one)).collect()
    };
    let (mut only_a, mut only_b) = (lacking(a, b).into_iter(), lacking(b, a).into_iter());
    loop {
        let (one, other) = (only_a.next(), only_b.next());
        if one.is_none() && other.is_none() {
            return;
        }
        ledger.add(class, || Told::new(Event::DescriptorMismatch, class, Place::default(), sentence).sides(one, other));
    }
}

/// Compares the entries of two indexes that name two images.
pub(super) fn entry(ledger: &mut Ledger<'_>, platform: &str, a: &ImageRef, b: &ImageRef) {
    if a.names != b.names {
        let names = |image: &ImageRef| {
            let names: Vec<&str> = image.names.iter().map(String::as_str).collect();
            (!names.is_empty()).then(|| shown(&names.join(", ")))
        };
        ledger.add(Class::Names, || {
            let place = of_platform(Some(platform));
            let sentence = "the image has other names in the index";
            Told::new(Event::DescriptorMismatch, Class::Names, place, sentence).sides(names(a), names(b))
        });
    }
    if let (Some(one), Some(other)) = (a.descriptor(), b.descriptor()) {
        descriptor(ledger, Some(platform), one, other);
    }
}

/// Compares two descriptors, but for what follows from what they describe and for names, which are the image's.
fn descriptor(ledger: &mut Ledger<'_>, platform: Option<&str>, a: &Descriptor, b: &Descriptor) {
    let follows = a.digest != b.digest;
    let value = |one: &Descriptor| serde_json::to_value(one).expect("texts and numbers always become JSON");
    let is_name = |path: &str| path.strip_prefix("annotations.").is_some_and(|key| NAME_KEYS.contains(&key));
    let without = |mut value: Value| {
        // Remarks that are nothing but names are none.
        if let Some(remarks) = value.get_mut("annotations").and_then(Value::as_object_mut) {
            remarks.retain(|key, _| !NAME_KEYS.contains(&key.as_str()));
            if remarks.is_empty() {
                value.as_object_mut().map(|all| all.remove("annotations"));
            }
        }
        value
    };
    let skip = |path: &str| (follows && matches!(path, "digest" | "size")) || is_name(path);
    let at = (Event::DescriptorMismatch, &of_platform(platform));
    compare(ledger, at, (&without(value(a)), &without(value(b))), &skip, &of_descriptor);
}

pub(super) fn json_order(ledger: &mut Ledger<'_>, event: Event, platform: Option<&str>, what: &str) {
    ledger.add(Class::JsonOrder, || {
        let place = of_platform(platform);
        let sentence = format!("{what} says the same in other bytes: the order of its members, or blanks");
        Told::new(event, Class::JsonOrder, place, sentence)
    });
}

/// Compares two manifests but for their layers.
pub(super) fn manifests(
    ledger: &mut Ledger<'_>,
    platform: &str,
    a: &OpenImage,
    b: &OpenImage,
) -> Result<(), ImageError> {
    let (Some((bytes_a, one)), Some((bytes_b, other))) = (&a.manifest, &b.manifest) else {
        if a.manifest.is_some() != b.manifest.is_some() {
            ledger.add(Class::LayoutForm, || {
                let told =
                    |has: bool| Some(if has { "an OCI layout" } else { "an archive of `docker save`" }.to_owned());
                let place = of_platform(Some(platform));
                let sentence = "one side keeps no manifest, so only configurations and layers can be compared";
                Told::new(Event::ManifestBlobMismatch, Class::LayoutForm, place, sentence)
                    .sides(told(a.manifest.is_some()), told(b.manifest.is_some()))
            });
        }
        return Ok(());
    };
    if bytes_a == bytes_b {
        return Ok(());
    }
    let (value_a, value_b) = (value(bytes_a, "manifest")?, value(bytes_b, "manifest")?);
    if value_a == value_b {
        json_order(ledger, Event::ManifestBlobMismatch, Some(platform), "the manifest");
        return Ok(());
    }
    let follows = one.config.digest != other.config.digest;
    let skip = |path: &str| path == "layers" || (follows && matches!(path, "config.digest" | "config.size"));
    let class = |path: &str| {
        if path.starts_with("annotations.") && path["annotations.".len()..].starts_with(BASE_KEYS) {
            (Class::BaseImageDrift, "the image stands on another base")
        } else if path == "mediaType" || path == "config.mediaType" {
            (Class::MediaTypes, "the type differs: Docker and OCI call the same document otherwise")
        } else if path.contains("annotations") {
            (Class::Annotations, "a remark of the manifest differs")
        } else {
            (Class::Manifest, "a field of the manifest differs")
        }
    };
    let at = (Event::ManifestBlobMismatch, &of_platform(Some(platform)));
    compare(ledger, at, (&value_a, &value_b), &skip, &class);
    Ok(())
}

/// Compares two configurations but for the digests of layers.
pub(super) fn configs(ledger: &mut Ledger<'_>, platform: &str, a: &OpenImage, b: &OpenImage) -> Result<(), ImageError> {
    if a.config_bytes == b.config_bytes {
        return Ok(());
    }
    let (value_a, value_b) = (value(&a.config_bytes, "configuration")?, value(&b.config_bytes, "configuration")?);
    if value_a == value_b {
        json_order(ledger, Event::ConfigBlobMismatch, Some(platform), "the configuration");
        return Ok(());
    }
    let class = |path: &str| {
        let sentence = if path == "created" || path.ends_with("].created") {
            "the configuration keeps the time of the build"
        } else if path.starts_with("history") {
            "the steps that are told to have made the image differ"
        } else if ["config.Hostname", "container", "container_config", "docker_version"]
            .iter()
            .any(|known| path.starts_with(known))
        {
            "the configuration keeps something of the machine that built it"
        } else {
            "the configuration says otherwise how the image is run"
        };
        (Class::ImageConfig, sentence)
    };
    let at = (Event::ConfigBlobMismatch, &of_platform(Some(platform)));
    compare(ledger, at, (&value_a, &value_b), &|path| path == "rootfs.diff_ids", &class);
    Ok(())
}

/// Compares what two manifests say of the same layer, but for what follows from its bytes.
pub(super) fn layer_descriptors(ledger: &mut Ledger<'_>, place: &Place, a: &Descriptor, b: &Descriptor) {
    let is_docker = |one: &Descriptor| one.media_type.starts_with("application/vnd.docker.");
    let follows = a.digest != b.digest;
    let skip = |path: &str| match path {
        "digest" | "size" => follows,
        // How it is compressed is told of its bytes.
        "mediaType" => follows && is_docker(a) == is_docker(b),
        _ => false,
    };
    let value = |one: &Descriptor| serde_json::to_value(one).expect("texts and numbers always become JSON");
    let class = |path: &str| match path {
        "mediaType" => (Class::MediaTypes, "the type of the layer differs, its bytes do not depend on it"),
        _ if path.starts_with("annotations") => (Class::Annotations, "a remark on the layer differs"),
        _ => (Class::Manifest, "the manifest says something else of the layer"),
    };
    compare(ledger, (Event::ManifestBlobMismatch, place), (&value(a), &value(b)), &skip, &class);
}
