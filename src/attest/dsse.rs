//! Envelopes of DSSE v1 (Dead Simple Signing Envelope): bytes with a type and signatures over both. Does not look into the bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::attest::error::AttestError;
use crate::attest::keys::{PublicKey, SigningKey};

/// Most signatures looked at in one envelope.
pub const SIGNATURES_MAX: usize = 64;

/// Longest signature looked at, in bytes of base64.
const SIGNATURE_LETTERS_MAX: usize = 8 * 1024;

/// An envelope as it is written: everything in base64 (RFC 4648, section 4).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    /// The bytes.
    pub payload: String,
    /// What they are.
    pub payload_type: String,
    /// Who signed them.
    pub signatures: Vec<Signature>,
}

/// One signature.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// A hint of the key; nothing follows from it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub keyid: String,
    /// The signature.
    pub sig: String,
}

/// The bytes that are signed: `PAE` of the DSSE protocol.
pub fn signed_bytes(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl Envelope {
    /// Puts bytes into an envelope and signs it.
    pub fn sign(payload_type: &str, payload: &[u8], key: &SigningKey) -> Result<Self, AttestError> {
        let signature = key.sign(&signed_bytes(payload_type, payload))?;
        Ok(Self {
            payload: STANDARD.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![Signature { keyid: key.public().id(), sig: STANDARD.encode(signature) }],
        })
    }

    /// Its bytes as a document of its own.
    pub fn write(&self) -> Vec<u8> {
        crate::image::wire::write(self)
    }

    /// Reads an envelope. What is in it is neither verified nor read.
    pub fn read(bytes: &[u8]) -> Result<Self, AttestError> {
        let malformed = |cause: String| AttestError::Malformed { what: "envelope", cause };
        let envelope: Self = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        envelope.check()?;
        Ok(envelope)
    }

    /// Whether it has what an envelope must have.
    pub(super) fn check(&self) -> Result<(), AttestError> {
        let malformed = |cause: String| AttestError::Malformed { what: "envelope", cause };
        let count = self.signatures.len();
        if count == 0 || count > SIGNATURES_MAX {
            return Err(malformed(format!("it has {count} signatures; 1 to {SIGNATURES_MAX} are known")));
        }
        if self.signatures.iter().any(|one| one.sig.len() > SIGNATURE_LETTERS_MAX) {
            return Err(malformed(format!("a signature is longer than {SIGNATURE_LETTERS_MAX} letters")));
        }
        Ok(())
    }

    /// The bytes in it, if one of the keys signed them, and the signature and the key with which it holds. The only way to
    /// the bytes: nothing is read that was not verified.
    pub fn verified<'a>(&'a self, keys: &'a [PublicKey]) -> Result<Option<Verified<'a>>, AttestError> {
        let malformed = |what: &str| AttestError::Malformed { what: "envelope", cause: format!("{what} is no base64") };
        let payload = STANDARD.decode(&self.payload).map_err(|_| malformed("what is in it"))?;
        let signed = signed_bytes(&self.payload_type, &payload);
        for signature in &self.signatures {
            let raw = STANDARD.decode(&signature.sig).map_err(|_| malformed("a signature"))?;
            if let Some(key) = keys.iter().find(|key| key.verifies(&signed, &raw)) {
                return Ok(Some(Verified { payload, key, signature }));
            }
        }
        Ok(None)
    }
}

/// What was in an envelope, and by whom it was signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified<'a> {
    /// The bytes.
    pub payload: Vec<u8>,
    /// The key that signed them.
    pub key: &'a PublicKey,
    /// The signature.
    pub signature: &'a Signature,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::keys::Algorithm;

    #[test]
    fn what_is_signed_is_what_the_protocol_says() {
        // The example of the protocol.
        assert_eq!(
            signed_bytes("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(signed_bytes("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn an_envelope_opens_with_the_key_that_signed_it_alone() {
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let key = SigningKey::generate(algorithm).expect("a key");
            let other = SigningKey::generate(algorithm).expect("a key");
            let envelope = Envelope::sign("text/plain", b"stone", &key).expect("an envelope");
            let envelope = Envelope::read(&envelope.write()).expect("the same envelope");
            let keys = [other.public().clone(), key.public().clone()];
            let verified = envelope.verified(&keys).expect("it can be read").expect("it was signed");
            assert_eq!((verified.payload.as_slice(), verified.key), (&b"stone"[..], key.public()));
            assert_eq!(verified.signature.keyid, key.public().id());
            assert_eq!(envelope.verified(&keys[..1]), Ok(None));
            let retyped = Envelope { payload_type: "text/html".into(), ..envelope.clone() };
            assert_eq!(retyped.verified(&keys), Ok(None));
            let refilled = Envelope { payload: STANDARD.encode("stonf"), ..envelope };
            assert_eq!(refilled.verified(&keys), Ok(None));
        }
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let check = |text: &str, expect: &str| {
            let told = Envelope::read(text.as_bytes()).expect_err(expect).to_string();
            assert!(told.contains(expect), "{expect}: {told}");
        };
        check("{", "envelope");
        check(r#"{"payload":"","payloadType":"","signatures":[]}"#, "0 signatures");
        check(r#"{"payload":"","payloadType":"","signatures":[],"x":1}"#, "unknown field");
        let many = vec![r#"{"sig":""}"#; SIGNATURES_MAX + 1].join(",");
        check(&format!(r#"{{"payload":"","payloadType":"","signatures":[{many}]}}"#), "65 signatures");
        let long = "A".repeat(SIGNATURE_LETTERS_MAX + 1);
        check(&format!(r#"{{"payload":"","payloadType":"","signatures":[{{"sig":"{long}"}}]}}"#), "longer than");
        let broken =
            Envelope::read(br#"{"payload":"*","payloadType":"","signatures":[{"sig":""}]}"#).expect("read later");
        assert!(broken.verified(&[]).is_err());
    }
}
