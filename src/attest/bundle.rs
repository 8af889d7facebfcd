//! Sigstore bundles v0.3 with a key and one signed envelope (sigstore `protobuf-specs`, `sigstore_bundle.proto`): one file that
//! holds what is said and who says it. Reads no certificate and no log.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::attest::dsse::Envelope;
use crate::attest::error::AttestError;
use crate::attest::keys::{PublicKey, SigningKey};
use crate::attest::statement::PAYLOAD_TYPE;

/// The type of a bundle, and of what holds one beside an image.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Types of bundles that have their parts at the same places.
const BUNDLE_TYPES: [&str; 4] = [
    BUNDLE_TYPE,
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
];

/// Largest bundle read, in bytes: a bill of materials of 50,000 components has about half of it.
pub const BUNDLE_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    media_type: &'static str,
    verification_material: WrittenMaterial,
    dsse_envelope: &'a Envelope,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMaterial {
    public_key: KeyHint,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyHint {
    #[serde(default)]
    hint: String,
}

/// Fields that the specification knows; any other is refused, since it might mean that something else must be verified.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Read {
    media_type: String,
    verification_material: ReadMaterial,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReadMaterial {
    public_key: Option<KeyHint>,
    certificate: Option<IgnoredAny>,
    x509_certificate_chain: Option<IgnoredAny>,
    #[expect(dead_code, reason = "logs are for certificates; it is known so that it is not refused")]
    tlog_entries: Option<IgnoredAny>,
    #[expect(dead_code, reason = "as are times that others signed")]
    timestamp_verification_data: Option<IgnoredAny>,
}

/// A bundle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bundle {
    /// What tells which key signed it; `None` if a certificate does.
    pub hint: Option<String>,
    /// What is said.
    pub envelope: Envelope,
}

impl Bundle {
    /// Signs a statement.
    pub fn sign(statement: &[u8], key: &SigningKey) -> Result<Self, AttestError> {
        let envelope = Envelope::sign(PAYLOAD_TYPE, statement, key)?;
        Ok(Self { hint: Some(key.public().id()), envelope })
    }

    /// Its bytes.
    pub fn write(&self) -> Vec<u8> {
        crate::image::wire::write(&Written {
            media_type: BUNDLE_TYPE,
            verification_material: WrittenMaterial {
                public_key: KeyHint { hint: self.hint.clone().unwrap_or_default() },
            },
            dsse_envelope: &self.envelope,
        })
    }

    /// Reads a bundle. What is in its envelope is neither verified nor read.
    pub fn read(bytes: &[u8]) -> Result<Self, AttestError> {
        let malformed = |cause: String| Err(AttestError::Malformed { what: "bundle", cause });
        if bytes.len() > BUNDLE_BYTES_MAX {
            return malformed(format!("it is larger than {BUNDLE_BYTES_MAX} bytes"));
        }
        let read: Read = match serde_json::from_slice(bytes) {
            Ok(read) => read,
            Err(error) => return malformed(error.to_string()),
        };
        if !BUNDLE_TYPES.contains(&read.media_type.as_str()) {
            return malformed(format!("its type is `{}`; known is {BUNDLE_TYPE}", read.media_type.escape_debug()));
        }
        let Some(envelope) = read.dsse_envelope else {
            let signs_bytes = read.message_signature.is_some();
            let cause =
                if signs_bytes { "it signs bytes that are elsewhere, not a statement" } else { "it holds no envelope" };
            return malformed(cause.into());
        };
        envelope.check()?;
        if envelope.signatures.len() != 1 {
            return malformed(format!("its envelope has {} signatures; a bundle has one", envelope.signatures.len()));
        }
        let material = read.verification_material;
        let has_certificate = material.certificate.is_some() || material.x509_certificate_chain.is_some();
        match (material.public_key, has_certificate) {
            (Some(key), false) => Ok(Self { hint: Some(key.hint), envelope }),
            (None, true) => Ok(Self { hint: None, envelope }),
            _ => malformed("it must name one key, or have one certificate".into()),
        }
    }
}

/// Whether the bytes of a bundle hold this statement, signed with this key. What is no bundle does not.
pub fn is_signed(bundle: &[u8], statement: &[u8], key: &PublicKey) -> bool {
    let Ok(bundle) = Bundle::read(bundle) else { return false };
    let names = bundle.hint.as_deref().is_some_and(|hint| names(hint, key));
    let keys = std::slice::from_ref(key);
    let verified = bundle.envelope.verified(keys);
    let holds = matches!(verified, Ok(Some(verified)) if verified.payload == statement);
    names && bundle.envelope.payload_type == PAYLOAD_TYPE && holds
}

/// Whether a hint names a key: as this program writes it, as cosign does, or not at all.
pub(super) fn names(hint: &str, key: &PublicKey) -> bool {
    hint.is_empty() || hint == key.id() || hint == STANDARD.encode(key.fingerprint())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::keys::Algorithm;

    #[test]
    fn a_bundle_comes_back_as_it_was() {
        let key = SigningKey::generate(Algorithm::P256).expect("a key");
        let bundle = Bundle::sign(b"{}", &key).expect("a bundle");
        let bytes = bundle.write();
        let read = Bundle::read(&bytes).expect("the same bundle");
        assert_eq!((read.write(), &read), (bytes, &bundle));
        assert!(names(&key.public().id(), key.public()) && names("", key.public()));
        assert!(names(&STANDARD.encode(key.public().fingerprint()), key.public()) && !names("x", key.public()));
    }

    #[test]
    fn a_bundle_that_is_there_serves_for_its_statement_and_key_alone() {
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let key = SigningKey::generate(algorithm).expect("a key");
            let other = SigningKey::generate(algorithm).expect("a key");
            let bytes = Bundle::sign(b"{}", &key).expect("a bundle").write();
            assert!(is_signed(&bytes, b"{}", key.public()));
            assert!(!is_signed(&bytes, b"{ }", key.public()) && !is_signed(&bytes, b"{}", other.public()));
            let text = String::from_utf8(bytes).expect("JSON");
            assert!(!is_signed(text.replace("in-toto", "in-tota").as_bytes(), b"{}", key.public()));
            assert!(!is_signed(b"", b"{}", key.public()));
        }
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        let key = SigningKey::generate(Algorithm::Ed25519).expect("a key");
        let text = String::from_utf8(Bundle::sign(b"{}", &key).expect("a bundle").write()).expect("JSON");
        let check = |from: &str, to: &str, expect: &str| {
            assert!(text.contains(from), "{from}");
            let told = Bundle::read(text.replacen(from, to, 1).as_bytes()).expect_err(expect).to_string();
            assert!(told.contains(expect), "{expect}: {told}");
        };
        check("bundle.v0.3", "bundle.v9", "its type is");
        check("verificationMaterial", "verificationMateriaL", "unknown field");
        check("\"hint\"", "\"hinT\"", "unknown field");
        check("\"publicKey\":{", "\"certificate\":{},\"publicKey\":{", "one key, or have one certificate");
        check("\"signatures\":[", "\"signatures\":[{\"sig\":\"\"},", "2 signatures");
        check("dsseEnvelope", "messageSignature", "it signs bytes");
        check("\"dsseEnvelope\"", "\"mediaType\"", "duplicate");
        assert!(Bundle::read("[".repeat(100_000).as_bytes()).is_err());
        let by_certificate = text.replacen("publicKey\":{", "tlogEntries\":[],\"certificate\":{", 1);
        assert_eq!(Bundle::read(by_certificate.as_bytes()).expect("it can be read").hint, None);
    }
}
