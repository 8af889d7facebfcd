//! Attestations that lie in the layout of the image they are about. Looks into none.

use std::io::Read as _;

use crate::attest::bundle::BUNDLE_BYTES_MAX;
use crate::attest::verify::check::Attestation;
use crate::attest::verify::report::Report;
use crate::image::wire::{Index, MANIFEST_TYPE, Manifest};
use crate::image::{BlobDigest, Blobs};

const LAW: &str = "its bytes are what its digest says";

/// What `index.json` names that has the image as its subject. What cannot be read is told as failed.
pub(super) fn attached(blobs: &Blobs, subject: &BlobDigest, report: &mut Report) -> Vec<Attestation> {
    let index = blobs.index().and_then(|bytes| Index::read(&bytes, "index.json"));
    let Ok(index) = index else { return Vec::new() };
    let mut found = Vec::new();
    for descriptor in index.manifests.iter().filter(|one| one.media_type == MANIFEST_TYPE && !one.is_image()) {
        let name = descriptor.digest.escape_debug().to_string();
        match one(blobs, &descriptor.digest, descriptor.size, subject) {
            Ok(None) => {}
            Ok(Some(attestation)) => {
                report.held(name, LAW);
                found.push(attestation);
            }
            Err(cause) => report.failed(name, LAW, cause),
        }
    }
    found
}

fn one(blobs: &Blobs, digest: &str, size: u64, subject: &BlobDigest) -> Result<Option<Attestation>, String> {
    let told = |error: crate::image::ImageError| error.to_string();
    let bytes = blobs.document(&BlobDigest::parse(digest).map_err(told)?).map_err(told)?;
    if bytes.len() as u64 != size {
        return Err(format!("it should have {size} bytes, and has {}", bytes.len()));
    }
    let manifest = Manifest::read(&bytes, digest).map_err(told)?;
    if manifest.subject.is_none_or(|named| named.digest != subject.to_string()) {
        return Ok(None);
    }
    let ([layer], Some(artifact_type)) = (manifest.layers.as_slice(), manifest.artifact_type) else {
        return Err("it has not one layer and a type".into());
    };
    let layer_digest = BlobDigest::parse(&layer.digest).map_err(told)?;
    if layer.size > BUNDLE_BYTES_MAX as u64 {
        return Err(format!("its document is larger than {BUNDLE_BYTES_MAX} bytes"));
    }
    let mut document = Vec::new();
    let read = blobs.open(&layer_digest).map_err(told)?.take(layer.size + 1).read_to_end(&mut document);
    read.map_err(|error| format!("its document cannot be read: {error}"))?;
    let mut hasher = layer_digest.hasher_like();
    hasher.update(&document);
    let found = hasher.finish();
    if document.len() as u64 != layer.size || found != layer_digest {
        return Err(format!("its document should be {layer_digest} of {} bytes, and is another", layer.size));
    }
    Ok(Some(Attestation { name: digest.to_owned(), artifact_type, document }))
}
