//! Keys that sign and keys that are trusted: Ed25519 (RFC 8032) and ECDSA over P-256 with SHA-256 (FIPS 186-5). Reads and writes PEM
//! as bytes; whoever writes a private one gives the file to its owner alone (mode 0600).

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};

use crate::attest::error::AttestError;
use crate::attest::pem::{self, Secret, refused};

/// PKCS#8 v1 of Ed25519 (RFC 8410, section 7) before the 32 bytes of the key: what every openssl reads.
const ED25519_PRIVATE: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// `SubjectPublicKeyInfo` of Ed25519 before the 32 bytes of the key.
const ED25519_PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
/// `SubjectPublicKeyInfo` of P-256 (RFC 5480) before the 65 bytes of the point.
const P256_PUBLIC: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3,
    0x42, 0,
];
/// First byte of a point that is not compressed.
const UNCOMPRESSED: u8 = 4;

const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// Most trusted keys read from one file.
const KEYS_MAX: usize = 256;

/// How a key signs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Algorithm {
    /// Ed25519: the same signature for the same bytes, always.
    Ed25519,
    /// ECDSA over P-256 with SHA-256, in DER: another signature every time.
    P256,
}

impl Algorithm {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "ecdsa-p256",
        }
    }

    /// The algorithm with a name.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Ed25519, Self::P256].into_iter().find(|one| one.word() == word)
    }
}

/// A key that verifies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey {
    algorithm: Algorithm,
    spki: Vec<u8>,
}

impl PublicKey {
    fn of(algorithm: Algorithm, raw: &[u8]) -> Self {
        let frame: &[u8] = match algorithm {
            Algorithm::Ed25519 => &ED25519_PUBLIC,
            Algorithm::P256 => &P256_PUBLIC,
        };
        Self { algorithm, spki: [frame, raw].concat() }
    }

    /// Reads the only public key of a PEM file.
    pub fn read_pem(file: &[u8]) -> Result<Self, AttestError> {
        let mut keys = Self::read_all_pem(file)?;
        match (keys.pop(), keys.len()) {
            (Some(key), 0) => Ok(key),
            _ => refused("its file holds several, and one is meant"),
        }
    }

    /// Reads all public keys of a PEM file; none at all is an error.
    pub fn read_all_pem(file: &[u8]) -> Result<Vec<Self>, AttestError> {
        let mut keys = Vec::new();
        for block in pem::blocks(file)? {
            match block.label.as_str() {
                PUBLIC_LABEL => keys.push(Self::read_der(block.der.expose())?),
                "CERTIFICATE" => {
                    return refused(
                        "it is a certificate; only keys are trusted here: `openssl x509 -pubkey -noout -in FILE` has its key",
                    );
                }
                "RSA PUBLIC KEY" => return refused("it is of RSA; known are ed25519 and ECDSA P-256"),
                label if label.ends_with(PRIVATE_LABEL) => {
                    return refused("it is private, and a public one is meant: `openssl pkey -in FILE -pubout` has it");
                }
                _ => {}
            }
        }
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return refused(format!(
                "its file holds {} public keys (`-----BEGIN PUBLIC KEY-----`); 1 to {KEYS_MAX} are known",
                keys.len()
            ));
        }
        Ok(keys)
    }

    /// Reads a `SubjectPublicKeyInfo` in DER.
    pub fn read_der(der: &[u8]) -> Result<Self, AttestError> {
        if let Some(raw) = der.strip_prefix(&ED25519_PUBLIC).filter(|raw| raw.len() == 32) {
            return Ok(Self::of(Algorithm::Ed25519, raw));
        }
        match der.strip_prefix(&P256_PUBLIC) {
            Some(raw) if raw.len() == 65 && raw[0] == UNCOMPRESSED => Ok(Self::of(Algorithm::P256, raw)),
            _ => refused("it is neither of ed25519 nor of ECDSA P-256 with an uncompressed point"),
        }
    }

    /// Its `SubjectPublicKeyInfo` in PEM.
    pub fn pem(&self) -> String {
        String::from_utf8_lossy(pem::write(PUBLIC_LABEL, &self.spki).expose()).into_owned()
    }

    /// Its `SubjectPublicKeyInfo` in DER.
    pub fn der(&self) -> &[u8] {
        &self.spki
    }

    /// What names it: the SHA-256 of its `SubjectPublicKeyInfo`, in hexadecimal digits.
    pub fn id(&self) -> String {
        self.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The SHA-256 of its `SubjectPublicKeyInfo`.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.spki).into()
    }

    /// How it verifies.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether a signature of the bytes was made with the private key of this one.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (algorithm, frame): (&dyn signature::VerificationAlgorithm, usize) = match self.algorithm {
            Algorithm::Ed25519 => (&signature::ED25519, ED25519_PUBLIC.len()),
            Algorithm::P256 => (&signature::ECDSA_P256_SHA256_ASN1, P256_PUBLIC.len()),
        };
        signature::UnparsedPublicKey::new(algorithm, &self.spki[frame..]).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.algorithm.word(), self.id())
    }
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(Box<EcdsaKeyPair>),
}

/// A key that signs.
pub struct SigningKey {
    pair: Pair,
    pkcs8: Secret,
    public: PublicKey,
}

impl SigningKey {
    /// A new key from the random numbers of this machine.
    pub fn generate(algorithm: Algorithm) -> Result<Self, AttestError> {
        let random = SystemRandom::new();
        match algorithm {
            Algorithm::Ed25519 => {
                let mut pkcs8 = Secret::new([&ED25519_PRIVATE[..], &[0; 32]].concat());
                pkcs8.fill_from(ED25519_PRIVATE.len(), |seed| random.fill(seed)).map_err(|_| AttestError::Random)?;
                Self::read_der(pkcs8)
            }
            Algorithm::P256 => {
                let made = EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &random);
                Self::read_der(Secret::new(made.map_err(|_| AttestError::Random)?.as_ref().to_vec()))
            }
        }
    }

    /// Reads the private key of a PEM file: PKCS#8, not encrypted.
    pub fn read_pem(file: &[u8]) -> Result<Self, AttestError> {
        let mut found = None;
        for block in pem::blocks(file)? {
            let label = block.label.as_str();
            if label.contains("ENCRYPTED") || block.encrypted {
                let way_out = "`openssl pkcs8 -in KEY -out PLAIN` decrypts one of openssl; keep the result from others";
                return refused(format!(
                    "it is encrypted (`{}`), which is not read here: {way_out}",
                    label.escape_debug()
                ));
            }
            match label {
                PRIVATE_LABEL if found.is_some() => return refused("its file holds several, and one is meant"),
                PRIVATE_LABEL => found = Some(Self::read_der(block.der)?),
                "EC PRIVATE KEY" | "RSA PRIVATE KEY" | "OPENSSH PRIVATE KEY" => {
                    let way_out = "`openssl pkcs8 -topk8 -nocrypt -in KEY -out KEY.pem` makes PKCS#8 of one of openssl";
                    return refused(format!("it is written as `{label}`, which is not read here: {way_out}"));
                }
                _ => {}
            }
        }
        found.map_or_else(|| refused("its file holds no private key (`-----BEGIN PRIVATE KEY-----`)"), Ok)
    }

    fn read_der(pkcs8: Secret) -> Result<Self, AttestError> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.expose()) {
            let public = PublicKey::of(Algorithm::Ed25519, pair.public_key().as_ref());
            return Ok(Self { pair: Pair::Ed25519(pair), pkcs8, public });
        }
        let algorithm = &signature::ECDSA_P256_SHA256_ASN1_SIGNING;
        match EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.expose(), &SystemRandom::new()) {
            Ok(pair) => {
                let public = PublicKey::of(Algorithm::P256, pair.public_key().as_ref());
                Ok(Self { pair: Pair::P256(Box::new(pair)), pkcs8, public })
            }
            Err(_) => refused("it is neither of ed25519 nor of ECDSA P-256, or broken"),
        }
    }

    /// It in PEM (PKCS#8), to be written where its owner alone can read it.
    pub fn pem(&self) -> Secret {
        pem::write(PRIVATE_LABEL, self.pkcs8.expose())
    }

    /// The key that verifies what it signs.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs bytes. With Ed25519 the same bytes have the same signature; with P-256 they do not.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AttestError> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::P256(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message).map_err(|_| AttestError::Random)?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl genpkey -algorithm ed25519`; test 1 of RFC 8032, section 7.1.
    const OF_RFC_8032: &[u8] = b"-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn signatures_are_those_of_the_standard() {
        let key = SigningKey::read_pem(OF_RFC_8032).expect("a key");
        assert_eq!(key.pem().expose(), OF_RFC_8032);
        assert_eq!(hex(&key.public().der()[12..]), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(
            hex(&key.sign(b"").expect("a signature")),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b\
             d25bf5f0595bbe24655141438e7a100b"
        );
    }

    #[test]
    fn keys_come_back_from_their_files_and_verify_what_they_signed() {
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let made = SigningKey::generate(algorithm).expect("a key");
            let key = SigningKey::read_pem(made.pem().expose()).expect("the same key");
            let public = PublicKey::read_pem(key.public().pem().as_bytes()).expect("its public key");
            assert_eq!((&public, public.algorithm()), (made.public(), algorithm));
            assert_eq!(public.id(), hex(&Sha256::digest(public.der())));
            let mut signature = key.sign(b"stone").expect("a signature");
            assert!(public.verifies(b"stone", &signature));
            assert!(!public.verifies(b"stonf", &signature) && !public.verifies(b"stone", b""));
            let other = SigningKey::generate(algorithm).expect("another key");
            assert!(!other.public().verifies(b"stone", &signature));
            for position in 0..signature.len() {
                signature[position] ^= 1;
                assert!(!public.verifies(b"stone", &signature), "{position}");
                signature[position] ^= 1;
            }
            let told = format!("{key:?}");
            assert!(told.contains(&public.id()) && !told.contains(&hex(&key.pkcs8.expose()[16..20])), "{told}");
        }
        assert_eq!(Algorithm::parse("ecdsa-p256"), Some(Algorithm::P256));
        assert_eq!(Algorithm::parse("rsa"), None);
    }

    #[test]
    fn keys_that_cannot_be_used_are_told_with_the_way_out() {
        let private = |file: &str, expect: &str| {
            let told = SigningKey::read_pem(file.as_bytes()).expect_err(expect).to_string();
            assert!(told.contains(expect), "{expect}: {told}");
        };
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        private(&block("ENCRYPTED PRIVATE KEY"), "openssl pkcs8 -in KEY");
        private(&block("ENCRYPTED SIGSTORE PRIVATE KEY"), "it is encrypted");
        let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
        private(old, "it is encrypted");
        private(&block("EC PRIVATE KEY"), "-topk8");
        private(&block("PRIVATE KEY"), "or broken");
        private(&block("PUBLIC KEY"), "no private key");
        private("", "no private key");
        let two = String::from_utf8_lossy(OF_RFC_8032).repeat(2);
        private(&two, "several");
        let public = |file: &str, expect: &str| {
            let told = PublicKey::read_pem(file.as_bytes()).expect_err(expect).to_string();
            assert!(told.contains(expect), "{expect}: {told}");
        };
        public(&block("PUBLIC KEY"), "neither of ed25519");
        public(&block("CERTIFICATE"), "it is a certificate");
        public(&String::from_utf8_lossy(OF_RFC_8032), "it is private");
        public("", "holds 0 public keys");
        let key = SigningKey::generate(Algorithm::P256).expect("a key").public().pem();
        public(&key.repeat(2), "several");
        assert_eq!(PublicKey::read_all_pem(key.repeat(2).as_bytes()).expect("both").len(), 2);
        public(&key.repeat(KEYS_MAX + 1), "holds 257");
    }
}
