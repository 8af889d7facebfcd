//! PEM (RFC 7468) and the few DER frames around keys (RFC 5208, RFC 8410, RFC 5480). Secrets are wiped when they are dropped.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::attest::error::AttestError;

/// Largest file of keys read, in bytes.
pub const KEY_FILE_BYTES_MAX: usize = 64 * 1024;

const LINE_LETTERS: usize = 64;

/// Bytes that nobody may see. They are overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Lets something fill the bytes from a place on.
    pub(super) fn fill_from<T>(&mut self, start: usize, fill: impl FnOnce(&mut [u8]) -> T) -> T {
        fill(&mut self.0[start..])
    }

    /// The bytes, to be written where only their owner can read them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Otherwise nothing reads the zeros, and the compiler may leave them out.
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One block of a PEM file.
#[derive(Debug)]
pub(super) struct Block {
    pub label: String,
    pub der: Secret,
    /// Whether it has headers that say that it is encrypted.
    pub encrypted: bool,
}

pub(super) fn refused<T>(cause: impl Into<String>) -> Result<T, AttestError> {
    Err(AttestError::Key { cause: cause.into() })
}

/// The blocks of a PEM file; text around them is read over.
pub(super) fn blocks(file: &[u8]) -> Result<Vec<Block>, AttestError> {
    if file.len() > KEY_FILE_BYTES_MAX {
        return refused(format!("the file is larger than {KEY_FILE_BYTES_MAX} bytes"));
    }
    let Ok(text) = std::str::from_utf8(file) else {
        return refused(
            "the file is not text; it must be PEM: `openssl pkey -inform DER -in KEY -out KEY.pem` makes it so",
        );
    };
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut letters = Secret::new(Vec::with_capacity(file.len()));
        let mut encrypted = false;
        loop {
            match lines.next() {
                None => return refused(format!("its file ends before `{}`", end.escape_debug())),
                Some(line) if line == end => break,
                // Headers of RFC 1421, which only old formats have.
                Some(line) if line.contains(':') => encrypted |= line.contains("ENCRYPTED"),
                Some(line) => letters.0.extend_from_slice(line.as_bytes()),
            }
        }
        let der = match STANDARD.decode(&letters.0) {
            Ok(der) => Secret::new(der),
            // What is encrypted in a way of its own is told as such.
            Err(_) if encrypted => Secret::new(Vec::new()),
            // The cause would tell a letter of the key.
            Err(_) => return refused(format!("its `{}` is no base64", label.escape_debug())),
        };
        found.push(Block { label: label.to_owned(), der, encrypted });
    }
    Ok(found)
}

/// One PEM block.
pub(super) fn write(label: &str, der: &[u8]) -> Secret {
    // With its full size from the start: what a vector leaves behind when it grows is not wiped.
    let mut letters = Secret::new(vec![0; der.len().div_ceil(3) * 4]);
    let length = STANDARD.encode_slice(der, &mut letters.0).expect("it has room for all letters");
    let mut text = Vec::with_capacity(letters.0.len() * 2 + label.len() * 2 + 64);
    text.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in letters.0[..length].chunks(LINE_LETTERS) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    Secret::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_and_text_around_them_is_read_over() {
        let der: Vec<u8> = (0..200).collect();
        let text = [&b"hello\n"[..], write("ONE", &der).expose(), b"between\n", write("TWO", b"").expose()].concat();
        let found = blocks(&text).expect("it is PEM");
        assert_eq!(found.iter().map(|block| block.label.as_str()).collect::<Vec<_>>(), ["ONE", "TWO"]);
        assert_eq!((found[0].der.expose(), found[1].der.expose()), (der.as_slice(), &b""[..]));
        assert!(text.split(|byte| *byte == b'\n').all(|line| line.len() <= 64));
    }

    #[test]
    fn broken_files_are_told_without_what_is_in_them() {
        let check = |file: &[u8], expect: &str| {
            let told = blocks(file).expect_err(expect).to_string();
            assert!(told.contains(expect) && !told.contains("s3cret"), "{expect}: {told}");
        };
        check(b"-----BEGIN X-----\ns3cret\n", "ends before `-----END X-----`");
        check(b"-----BEGIN X-----\ns3cret*\n-----END X-----", "no base64");
        check(&[0x30, 0xff], "not text");
        check(&vec![b'a'; KEY_FILE_BYTES_MAX + 1], "larger than");
        assert!(blocks(b"").expect("nothing is no error").is_empty());
        assert_eq!(format!("{:?}", Secret::new(b"s3cret".to_vec())), "Secret(…)");
    }
}
