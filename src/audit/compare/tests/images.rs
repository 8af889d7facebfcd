//! Image layouts, as directories and in archives.

use crate::audit::compare::Comparison;
use crate::audit::compare::tests::make::*;
use crate::audit::compare::tests::whole::listed;
use crate::audit::compare::tests::{causes, compared};
use crate::audit::model::Verdict;

/// What is varied of an image.
#[derive(Clone)]
struct Image {
    created: &'static str,
    layers: Vec<Vec<u8>>,
    level: u32,
    attested: bool,
    base: &'static str,
    label: &'static str,
}

fn image() -> Image {
    let layers = vec![tar(&[file("etc/x", "1")]), tar(&[file("app", "2")])];
    Image { created: "1980-01-01T00:00:00Z", layers, level: 6, attested: false, base: "", label: "a" }
}

fn layout(image: &Image) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut blob = |bytes: Vec<u8>| {
        let text = format!(r#""digest":"sha256:{}","size":{}"#, sha256(&bytes), bytes.len());
        files.push((format!("blobs/sha256/{}", sha256(&bytes)), bytes));
        text
    };
    let layers: Vec<String> = image.layers.iter().map(|layer| blob(gzip(layer, |b| b, image.level))).collect();
    let ids: Vec<String> = image.layers.iter().map(|layer| format!(r#""sha256:{}""#, sha256(layer))).collect();
    let config = format!(
        r#"{{"created":"{}","config":{{"Labels":{{"l":"{}"}}}},"rootfs":{{"diff_ids":[{}]}}}}"#,
        image.created,
        image.label,
        ids.join(",")
    );
    let config = blob(config.into_bytes());
    let layers: Vec<String> = layers.iter().map(|layer| format!("{{{layer}}}")).collect();
    let base = if image.base.is_empty() {
        String::new()
    } else {
        format!(r#","annotations":{{"org.opencontainers.image.base.digest":"{}"}}"#, image.base)
    };
    let manifest = blob(format!(r#"{{"config":{{{config}}},"layers":[{}]{base}}}"#, layers.join(",")).into_bytes());
    let platform = r#""platform":{"os":"linux","architecture":"amd64"}"#;
    let mut parts = vec![format!("{{{manifest},{platform}}}")];
    if image.attested {
        let attestation = blob(br#"{"layers":[]}"#.to_vec());
        parts.push(format!(r#"{{{attestation},"platform":{{"os":"unknown","architecture":"unknown"}}}}"#));
    }
    files.push(("index.json".into(), format!(r#"{{"manifests":[{}]}}"#, parts.join(",")).into_bytes()));
    files
}

fn directories(a: &Image, b: &Image) -> Comparison {
    let (a, b) = (layout(a), layout(b));
    let named = |files: &[(String, Vec<u8>)]| -> Vec<(String, Vec<u8>)> {
        files.iter().map(|(name, bytes)| (format!("dist/{name}"), bytes.clone())).collect()
    };
    let (a, b) = (named(&a), named(&b));
    let a: Vec<(&str, &[u8])> = a.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let b: Vec<(&str, &[u8])> = b.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    listed(&a, &b)
}

fn archived(image: &Image) -> Vec<u8> {
    let members: Vec<Tar> =
        layout(image).into_iter().map(|(name, bytes)| file(Box::leak(name.into_boxed_str()), bytes)).collect();
    tar(&members)
}

#[track_caller]
fn check(case: &str, a: &Image, b: &Image, expect: &[&str], verdict: Verdict) {
    for found in [directories(a, b), directories(b, a), compared(&archived(a), &archived(b))] {
        let own = Comparison {
            differences: found.differences.iter().filter(|one| one.consequence_of.is_none()).cloned().collect(),
            ..found.clone()
        };
        assert_eq!((causes(&own), found.verdict), (expect.to_vec(), verdict), "{case}: {found:#?}");
        assert!(found.differences.iter().all(|one| !one.site.file.contains("blobs/")), "{case}: {found:#?}");
    }
}

#[test]
fn parts_of_images_are_paired_by_what_they_are_for() {
    let plain = image();
    let with = |edit: &dyn Fn(&mut Image)| {
        let mut image = plain.clone();
        edit(&mut image);
        image
    };
    check("same", &plain, &plain, &[], Verdict::Identical);
    let created = with(&|image| image.created = "2026-01-01T00:00:00Z");
    check("created", &plain, &created, &["image-config"], Verdict::Equivalent);
    check("label", &plain, &with(&|image| image.label = "b"), &["image-config"], Verdict::Different);
    let time = with(&|image| image.layers[1] = tar(&[Tar { mtime: 7, ..file("app", "2") }]));
    check("layer", &plain, &time, &["timestamp.file-mtime"], Verdict::Equivalent);
    let attested = with(&|image| image.attested = true);
    check("attestation", &plain, &attested, &["attestation-in-index"], Verdict::Different);
    let based = |base, text: &str| Image {
        base,
        layers: vec![tar(&[file("etc/x", text)]), plain.layers[1].clone()],
        ..image()
    };
    check("level", &plain, &with(&|image| image.level = 1), &["compressor.version"; 4], Verdict::IdenticalUncompressed);
    check("base", &based("sha256:1", "1"), &based("sha256:2", "9"), &["base-image"; 2], Verdict::Different);
}
