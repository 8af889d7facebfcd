//! Documents beside an image: the manifest that ties one to what it is about (OCI image specification 1.1, "Guidelines for
//! Artifact Usage"). Sends nothing.

use std::collections::BTreeMap;

use crate::attest::names::rfc3339;
use crate::image::BlobDigest;
use crate::image::wire::{Descriptor, MANIFEST_TYPE, Manifest, write};

/// The type of a configuration that says nothing.
pub const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

const EMPTY: &[u8] = b"{}";

/// By what a layer has the name of a file (OCI image specification, "Pre-Defined Annotation Keys").
const TITLE: &str = "org.opencontainers.image.title";

/// Ties a document to the manifest or index it is about.
///
/// `title` is the name of the file that `oras pull` makes of it; without one it makes none. Gives the blobs in the order in which they
/// are to be sent, the manifest last, and the descriptor of the manifest as a list of referrers has it. The same arguments give the
/// same bytes.
pub fn referrer(
    document: Vec<u8>,
    artifact_type: &str,
    title: Option<&str>,
    subject: &Descriptor,
    annotations: BTreeMap<String, String>,
) -> (Vec<(BlobDigest, Vec<u8>)>, Descriptor) {
    let annotations = (!annotations.is_empty()).then_some(annotations);
    let subject = Descriptor { platform: None, artifact_type: None, annotations: None, ..subject.clone() };
    let title = title.map(|title| BTreeMap::from([(TITLE.to_owned(), title.to_owned())]));
    let manifest = write(&Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST_TYPE.to_owned()),
        artifact_type: Some(artifact_type.to_owned()),
        config: Descriptor::of(EMPTY_TYPE, EMPTY),
        layers: vec![Descriptor { annotations: title, ..Descriptor::of(artifact_type, &document) }],
        subject: Some(subject),
        annotations: annotations.clone(),
    });
    let described = Descriptor {
        artifact_type: Some(artifact_type.to_owned()),
        annotations,
        ..Descriptor::of(MANIFEST_TYPE, &manifest)
    };
    let blobs = [EMPTY.to_vec(), document, manifest].map(|bytes| (BlobDigest::of(&bytes), bytes));
    (blobs.into(), described)
}

/// When a document was made, which is when its image says that it was.
pub fn plain_annotations(epoch: u64) -> BTreeMap<String, String> {
    BTreeMap::from([("org.opencontainers.image.created".to_owned(), rfc3339(epoch))])
}

/// What cosign writes on the manifest of a bundle, so that it can be found without being read.
pub fn bundle_annotations(predicate_type: &str, epoch: u64) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
        ("dev.sigstore.bundle.predicateType".to_owned(), predicate_type.to_owned()),
        ("org.opencontainers.image.created".to_owned(), rfc3339(epoch)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_tied_to_its_image() {
        let mut image = Descriptor::of(MANIFEST_TYPE, b"image");
        image.annotations = Some(BTreeMap::from([("org.opencontainers.image.ref.name".into(), "v1".into())]));
        let told = bundle_annotations("https://slsa.dev/provenance/v1", 0);
        let (blobs, described) = referrer(b"{\"a\":1}".to_vec(), "application/spdx+json", None, &image, told);
        let expect = concat!(
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/spdx+json","#,
            r#""config":{"mediaType":"application/vnd.oci.empty.v1+json","#,
            r#""digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"#,
            r#""layers":[{"mediaType":"application/spdx+json","#,
            r#""digest":"sha256:015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862","size":7}],"#,
            r#""subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
            r#""digest":"sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d","size":5},"#,
            r#""annotations":{"dev.sigstore.bundle.content":"dsse-envelope","#,
            r#""dev.sigstore.bundle.predicateType":"https://slsa.dev/provenance/v1","#,
            r#""org.opencontainers.image.created":"1970-01-01T00:00:00Z"}}"#
        );
        assert_eq!(String::from_utf8_lossy(&blobs[2].1), expect);
        assert_eq!(described.digest, BlobDigest::of(expect.as_bytes()).to_string());
        assert_eq!(
            (described.size, described.artifact_type.as_deref()),
            (expect.len() as u64, Some("application/spdx+json"))
        );
        for (digest, bytes) in &blobs {
            assert_eq!(*digest, BlobDigest::of(bytes));
        }
        // Under a name of its own.
        let (blobs, _) =
            referrer(b"{}".to_vec(), "application/spdx+json", Some("a.json"), &image, plain_annotations(86_400));
        let manifest = String::from_utf8_lossy(&blobs[2].1).into_owned();
        assert!(
            manifest.contains(r#""size":2,"annotations":{"org.opencontainers.image.title":"a.json"}}]"#),
            "{manifest}"
        );
        assert!(
            manifest.ends_with(r#""annotations":{"org.opencontainers.image.created":"1970-01-02T00:00:00Z"}}"#),
            "{manifest}"
        );
    }
}
