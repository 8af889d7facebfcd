//! Digests of blobs, and blobs read through them. Decides nothing about what they hold.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use sha2::Digest as _;

use crate::fs::ops;
use crate::image::error::ImageError;
use crate::image::wire::DOCUMENT_BYTES_MAX;

/// A digest as images have them: `sha256:…` or `sha512:…`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BlobDigest {
    algorithm: Algorithm,
    hex: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl BlobDigest {
    /// Parses a digest.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let parsed = text.split_once(':').and_then(|(algorithm, hex)| {
            let (algorithm, length) = match algorithm {
                "sha256" => (Algorithm::Sha256, 64),
                "sha512" => (Algorithm::Sha512, 128),
                _ => return None,
            };
            let fine = hex.len() == length && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
            fine.then(|| Self { algorithm, hex: hex.to_owned() })
        });
        parsed.ok_or_else(|| ImageError::Digest(text.chars().take(200).flat_map(char::escape_debug).collect()))
    }

    /// The SHA-256 of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::Sha256(sha2::Sha256::new());
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest that these 32 bytes of SHA-256 are.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// The bytes of a SHA-256; `None` of another kind.
    pub fn bytes(&self) -> Option<[u8; 32]> {
        if self.algorithm != Algorithm::Sha256 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(self.hex.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(bytes)
    }

    /// Its hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Starts a digest of the same kind, to check bytes against it: compare what comes out.
    pub fn hasher_like(&self) -> Hasher {
        self.hasher()
    }

    /// Where a layout has the blob.
    pub fn path(&self) -> String {
        let algorithm = match self.algorithm {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        };
        format!("blobs/{algorithm}/{}", self.hex)
    }

    pub(super) fn hasher(&self) -> Hasher {
        match self.algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    /// Whether it is what was found; `name` is for the error.
    pub(super) fn check(&self, found: &Self, name: &str) -> Result<(), ImageError> {
        if self == found {
            return Ok(());
        }
        let (expected, found) = (self.to_string(), found.to_string());
        Err(ImageError::Mismatch { name: name.to_owned(), expected, found })
    }
}

impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = match self.algorithm {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        };
        write!(f, "{algorithm}:{}", self.hex)
    }
}

/// A digest being taken.
pub enum Hasher {
    /// Of SHA-256.
    Sha256(sha2::Sha256),
    /// Of SHA-512.
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Adds a piece.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Finishes.
    pub fn finish(self) -> BlobDigest {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hasher) => BlobDigest { algorithm: Algorithm::Sha256, hex: hex(&hasher.finalize()) },
            Self::Sha512(hasher) => BlobDigest { algorithm: Algorithm::Sha512, hex: hex(&hasher.finalize()) },
        }
    }
}

/// Digests whatever is read through it, as long as something is left to be read.
pub(super) struct Digesting<'a, R> {
    pub from: R,
    pub hasher: &'a RefCell<Hasher>,
    pub left: &'a Cell<u64>,
}

impl<R: Read> Read for Digesting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        let left = self.left.get().checked_sub(count as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("it is too large unpacked"))?);
        self.hasher.borrow_mut().update(&buffer[..count]);
        Ok(count)
    }
}

/// Reads a document of a layout, which must be a regular file; `name` is for errors.
pub(super) fn read_document(path: &Path, name: &str) -> Result<Vec<u8>, ImageError> {
    let Some(file) = open(path)? else { return Err(ImageError::Missing(name.to_owned())) };
    let mut bytes = Vec::new();
    let read = file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|cause| ops::FsError::new("read", path, cause))?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        let cause = format!("it is larger than {DOCUMENT_BYTES_MAX} bytes");
        return Err(ImageError::Malformed { what: "document", name: name.to_owned(), cause });
    }
    Ok(bytes)
}

/// The digest of bytes, of the kind of another.
pub(super) fn digest_like(like: &BlobDigest, bytes: &[u8]) -> BlobDigest {
    let mut hasher = like.hasher();
    hasher.update(bytes);
    hasher.finish()
}

/// Opens a regular file; `None` if there is none at the path.
pub(super) fn open(path: &Path) -> Result<Option<impl Read + use<>>, ImageError> {
    let meta = ops::if_there(ops::symlink_metadata(path))?;
    if !meta.is_some_and(|meta| meta.is_file()) {
        return Ok(None);
    }
    Ok(Some(ops::open_no_follow(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digests_that_can_be_checked_are_digests() {
        let sha256 = format!("sha256:{}", "a".repeat(64));
        let parsed = BlobDigest::parse(&sha256).expect("a digest");
        assert_eq!((parsed.to_string(), parsed.path()), (sha256, format!("blobs/sha256/{}", "a".repeat(64))));
        BlobDigest::parse(&format!("sha512:{}", "0".repeat(128))).expect("a digest");
        let wrong = ["", "sha256:", "sha256:aa", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:../../etc/passwd"];
        let upper = format!("sha256:{}", "A".repeat(64));
        for wrong in wrong.into_iter().chain([upper.as_str()]) {
            assert!(BlobDigest::parse(wrong).is_err(), "{wrong}");
        }
        let empty = digest_like(&parsed, b"");
        assert_eq!(empty.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
