//! The order in which an image and what is said of it are checked. Knows no predicate.

use crate::attest::bundle::{BUNDLE_TYPE, Bundle, names};
use crate::attest::cyclonedx::{CYCLONEDX_PREDICATE, CYCLONEDX_TYPE};
use crate::attest::keys::PublicKey;
use crate::attest::provenance::PROVENANCE_PREDICATE;
use crate::attest::spdx::{SPDX_PREDICATE, SPDX_TYPE};
use crate::attest::statement::{PAYLOAD_TYPE, Statement};
use crate::attest::verify::attached::attached;
use crate::attest::verify::blobs::Walk;
use crate::attest::verify::claims::{Claims, check_statement, is_of_tasks, pass_by};
use crate::attest::verify::report::Report;
use crate::image::wire::write;
use crate::image::{BlobDigest, Blobs};

/// Most attestations looked at.
const ATTESTATIONS_MAX: usize = 1024;

const SIGNED: &str = "a trusted key signed it";
const SIGNED_AT_ALL: &str = "one at least is signed by a trusted key";

/// A document beside an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attestation {
    /// Its name for the report: a file, or the digest of its manifest.
    pub name: String,
    /// Its type: [`BUNDLE_TYPE`], [`SPDX_TYPE`], [`CYCLONEDX_TYPE`], or another, which is not looked at.
    pub artifact_type: String,
    /// Its bytes.
    pub document: Vec<u8>,
}

/// What is to be verified.
pub struct Question<'a> {
    /// Where the image lies.
    pub blobs: &'a Blobs,
    /// Its digest if it is known; else `index.json` is believed, which nothing signs.
    pub digest: Option<&'a BlobDigest>,
    /// What is said of it, beside what lies in the same layout.
    pub attestations: &'a [Attestation],
    /// Whom to believe. With none, digests alone are checked.
    pub keys: &'a [PublicKey],
}

/// Checks every digest of an image from its index down, every signature, and that what was signed is about this image and agrees
/// with it. Anything that is not as it should be is in the report as failed; there is no other error.
///
/// Cost: every layer is read twice, once packed and once unpacked. Memory: one document at a time, and the attestations.
pub fn verify(question: &Question<'_>) -> Report {
    let mut report = Report::default();
    let mut walk = Walk::new(question.blobs, &mut report);
    let Some((root, digest)) = walk.root(question.digest) else { return report };
    walk.visit(&root, 0);
    let images = std::mem::take(&mut walk.images);
    report.digest = digest.to_string();
    let beside = attached(question.blobs, &digest, &mut report);
    let is_new = |one: &&Attestation| !question.attestations.iter().any(|known| known.document == one.document);
    let attestations: Vec<_> = question.attestations.iter().chain(beside.iter().filter(is_new)).collect();
    weigh(attestations, question.keys, &Claims { digest: &digest, images: &images }, &mut report);
    report
}

/// Checks what is said of a file, or of anything else that is one blob: signatures, and that they are about it. Its bytes are for
/// whoever took the digest.
pub fn verify_blob(digest: &BlobDigest, attestations: &[Attestation], keys: &[PublicKey]) -> Report {
    let mut report = Report { digest: digest.to_string(), ..Report::default() };
    weigh(attestations.iter().collect(), keys, &Claims { digest, images: &[] }, &mut report);
    report
}

fn weigh(attestations: Vec<&Attestation>, keys: &[PublicKey], claims: &Claims<'_>, report: &mut Report) {
    if attestations.len() > ATTESTATIONS_MAX {
        return report.failed("attestations", SIGNED_AT_ALL, format!("there are more than {ATTESTATIONS_MAX}"));
    }
    // What was signed, to compare what lies beside it unsigned.
    let mut signed = Vec::new();
    let (bundles, others): (Vec<_>, Vec<_>) = attestations.into_iter().partition(|one| is_bundle(&one.artifact_type));
    for one in &bundles {
        if let Some(statement) = opened(one, keys, report) {
            if is_of_tasks(&statement) {
                // It speaks neither for the image nor against it.
                pass_by(&one.name, report);
                continue;
            }
            check_statement(&one.name, &statement, claims, report);
            signed.push(statement);
        }
    }
    match (signed.is_empty(), keys.is_empty()) {
        (false, _) => report.held("attestations", SIGNED_AT_ALL),
        (true, true) => report.not_checked("attestations", SIGNED_AT_ALL, "no trusted key was given"),
        (true, false) => report.failed("attestations", SIGNED_AT_ALL, format!("none of {} is", bundles.len())),
    }
    if !signed.is_empty() && !signed.iter().any(|statement| statement.predicate_type == PROVENANCE_PREDICATE) {
        // Whoever takes it away takes the chain away with it.
        report.not_checked("attestations", "they tell how it was built", "no trusted key signed provenance");
    }
    for one in others {
        check_unsigned(one, &signed, report);
    }
}

fn is_bundle(artifact_type: &str) -> bool {
    artifact_type == BUNDLE_TYPE || artifact_type.starts_with("application/vnd.dev.sigstore.bundle")
}

/// The statement in a bundle, if a trusted key signed it.
fn opened(one: &Attestation, keys: &[PublicKey], report: &mut Report) -> Option<Statement<serde_json::Value>> {
    let name = one.name.escape_debug().to_string();
    let bundle = match Bundle::read(&one.document) {
        Ok(bundle) => bundle,
        Err(error) => {
            report.failed(name, SIGNED, error.to_string());
            return None;
        }
    };
    let Some(hint) = &bundle.hint else {
        report.not_checked(name, SIGNED, "it is signed with a certificate; only keys are trusted here");
        return None;
    };
    if keys.is_empty() {
        report.not_checked(name, SIGNED, "no trusted key was given");
        return None;
    }
    let verified = match bundle.envelope.verified(keys) {
        Ok(Some(verified)) => verified,
        Ok(None) => {
            let keyid = bundle.envelope.signatures.first().map_or("", |one| &one.keyid);
            let hints = [hint.as_str(), keyid];
            let unnamed = hints.iter().all(|hint| hint.is_empty());
            let is_ours = |key: &PublicKey| hints.iter().any(|hint| !hint.is_empty() && names(hint, key)) || unnamed;
            if keys.iter().any(is_ours) {
                report.failed(name, SIGNED, "its signature does not hold: it was changed, or signed with another key");
            } else {
                report.not_checked(name, SIGNED, format!("its key `{}` is not trusted", hint.escape_debug()));
            }
            return None;
        }
        Err(error) => {
            report.failed(name, SIGNED, error.to_string());
            return None;
        }
    };
    if bundle.envelope.payload_type != PAYLOAD_TYPE {
        let cause = format!("what is signed is `{}`, no statement", bundle.envelope.payload_type.escape_debug());
        report.failed(name, SIGNED, cause);
        return None;
    }
    if !names(hint, verified.key) || !names(&verified.signature.keyid, verified.key) {
        report.failed(name, SIGNED, "it names another key than the one that signed it");
        return None;
    }
    match Statement::read(&verified.payload) {
        Ok(statement) => {
            report.held(name, SIGNED);
            report.signed_by.insert(verified.key.id());
            Some(statement)
        }
        Err(error) => {
            report.failed(name, "it can be read", error.to_string());
            None
        }
    }
}

/// A bill of materials that is not signed: worth what a signed one says. It is not read; its bytes are compared.
fn check_unsigned(one: &Attestation, signed: &[Statement<serde_json::Value>], report: &mut Report) {
    let name = one.name.escape_debug().to_string();
    let law = "it is the document that was signed";
    let predicate = match one.artifact_type.as_str() {
        SPDX_TYPE => SPDX_PREDICATE,
        CYCLONEDX_TYPE => CYCLONEDX_PREDICATE,
        other => return report.not_checked(name, SIGNED, format!("type `{}` is not known", other.escape_debug())),
    };
    let mut alike = signed.iter().filter(|statement| statement.predicate_type == predicate).peekable();
    if alike.peek().is_none() {
        report.not_checked(name, law, "no trusted key signed one of its type");
    } else if alike.any(|statement| write(&statement.predicate) == one.document) {
        // The fields of what was read are in the order in which they stood.
        report.held(name, law);
    } else {
        report.failed(name, law, "it is another");
    }
}
