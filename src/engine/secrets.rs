//! Values that must not leave the machine's memory: finding them in streams of bytes. Knows no task and prints nothing.
//!
//! What is found are the values as they are, and the lines of values that have several. A value that a command encodes
//! (base64, compressed, reversed) is not found.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use crate::fs::ops::{self, AtPath, FsError};

/// Lines of a value shorter than this are not looked for on their own, in bytes.
const LINE_BYTES_MIN: usize = 4;
/// Lines that begin so are the frame of a key, the same in every key.
const FRAME: &str = "-----";
/// Bytes of a file read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A set of values to look for; none is empty.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Longest first: a secret that contains another is found whole.
    values: Vec<Vec<u8>>,
    /// Bytes that a value can begin with.
    first: BTreeSet<u8>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({} values)", self.values.len())
    }
}

impl Secrets {
    /// Takes the values; empty ones are ignored. Values of several lines are also looked for line by line.
    pub fn new(values: impl IntoIterator<Item = String>) -> Self {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for value in values {
            if value.lines().nth(1).is_some() {
                let lines = value.lines().filter(|line| line.len() >= LINE_BYTES_MIN && !line.starts_with(FRAME));
                all.extend(lines.map(|line| line.as_bytes().to_vec()));
            }
            // A command that reads the variable rarely writes the line end after it.
            all.push(value.trim_end_matches(['\r', '\n']).as_bytes().to_vec());
        }
        all.retain(|value| !value.is_empty());
        all.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        all.dedup();
        let first = all.iter().map(|value| value[0]).collect();
        Self { values: all, first }
    }

    /// These and others.
    pub fn and(&self, others: &Self) -> Self {
        let mut all: Vec<Vec<u8>> = self.values.iter().chain(&others.values).cloned().collect();
        all.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        all.dedup();
        Self { values: all, first: &self.first | &others.first }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Length of the longest value that the bytes begin with.
    fn at(&self, bytes: &[u8]) -> Option<usize> {
        if !self.first.contains(bytes.first()?) {
            return None;
        }
        self.values.iter().find(|value| bytes.starts_with(value)).map(Vec::len)
    }

    /// Whether all of the bytes are the beginning of a longer value.
    fn may_continue(&self, bytes: &[u8]) -> bool {
        self.values.iter().any(|value| value.len() > bytes.len() && value.starts_with(bytes))
    }

    /// Whether a value is somewhere in the bytes.
    pub fn are_in(&self, bytes: &[u8]) -> bool {
        (0..bytes.len()).any(|at| self.at(&bytes[at..]).is_some())
    }

    /// The text without the values.
    pub fn redacted(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.cleaned(text.as_bytes())).into_owned()
    }

    /// The bytes without the values.
    pub fn cleaned(&self, bytes: &[u8]) -> Vec<u8> {
        let mut redaction = Redaction::default();
        let mut clean = redaction.take(self, bytes);
        clean.extend(redaction.finish(self));
        clean
    }

    /// Whether a value is somewhere in a regular file. Cost: one read of it; links are refused.
    pub fn are_in_file(&self, path: &Path) -> Result<bool, FsError> {
        if self.is_empty() {
            return Ok(false);
        }
        let mut file = ops::open_no_follow(path)?;
        let overlap = self.values[0].len() - 1;
        let mut buffer = Vec::with_capacity(CHUNK_BYTES + overlap);
        loop {
            // What a value may have begun with stays in front of the next chunk.
            let kept = buffer.len().min(overlap);
            buffer.drain(..buffer.len() - kept);
            let read = file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut buffer).at("read", path)?;
            if self.are_in(&buffer) {
                return Ok(true);
            }
            if read == 0 {
                return Ok(false);
            }
        }
    }
}

/// What stands where a secret was.
const REDACTED: &[u8] = b"[secret]";

/// Takes secrets out of a stream that comes in pieces. Secrets that overlap are one.
#[derive(Debug, Default)]
pub struct Redaction {
    /// Bytes that may be the beginning of a secret, as they came.
    held: Vec<u8>,
    /// How many of them belong to a secret that was already replaced.
    covered: usize,
}

impl Redaction {
    /// Takes the next piece and gives what is sure to be clean.
    pub fn take(&mut self, secrets: &Secrets, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        self.advance(secrets, |rest| secrets.may_continue(rest))
    }

    /// Ends the stream: nothing can become a longer secret any more.
    pub fn finish(&mut self, secrets: &Secrets) -> Vec<u8> {
        self.advance(secrets, |_| false)
    }

    /// Goes on until the rest must wait.
    fn advance(&mut self, secrets: &Secrets, waits: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut clean = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            // Raw bytes wait, not replaced ones: a secret may be the beginning of a longer one.
            if secrets.first.contains(&rest[0]) && waits(rest) {
                break;
            }
            let found = secrets.at(rest);
            if let Some(length) = found {
                if self.covered == 0 {
                    clean.extend_from_slice(REDACTED);
                }
                self.covered = self.covered.max(length);
            }
            if self.covered > 0 {
                self.covered -= 1;
            } else {
                clean.push(rest[0]);
            }
            at += 1;
        }
        self.held.drain(..at);
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secrets(values: &[&str]) -> Secrets {
        Secrets::new(values.iter().map(|value| (*value).to_owned()))
    }

    fn redacted(values: &[&str], pieces: &[&str]) -> String {
        let secrets = secrets(values);
        let mut redaction = Redaction::default();
        let mut clean: Vec<u8> = pieces.iter().flat_map(|piece| redaction.take(&secrets, piece.as_bytes())).collect();
        clean.extend(redaction.finish(&secrets));
        String::from_utf8(clean).expect("the pieces are text")
    }

    #[test]
    fn a_secret_that_begins_with_another_leaves_no_end_however_it_is_cut() {
        assert_eq!(redacted(&["abc", "abcdef"], &["abc", "def"]), "[secret]");
        assert_eq!(redacted(&["abc", "abcdef"], &["abc", "dex"]), "[secret]dex");
        assert_eq!(redacted(&["abc", "abcdef"], &["abc"]), "[secret]");
        assert_eq!(redacted(&["abc", "abcdef"], &["ab"]), "ab");
        assert_eq!(redacted(&["abcd", "cdef"], &["xabc", "defx"]), "x[secret]x", "overlapping ones are one");
        assert_eq!(redacted(&["abc"], &["abcabc"]), "[secret][secret]");
        assert_eq!(redacted(&["token\n"], &["a token b"]), "a [secret] b");
        assert_eq!(
            redacted(&["-----BEGIN-----\nkeykey\n-----END-----\n"], &["-----BEGIN----- keykey"]),
            "-----BEGIN----- [secret]"
        );
    }

    proptest! {
        #[test]
        fn how_a_stream_is_cut_changes_nothing(
            text in "[abc]{0,40}",
            values in proptest::collection::vec("[abc]{1,5}", 0..4),
            cuts in proptest::collection::vec(0_usize..40, 0..5),
        ) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                pieces.push(&text[from..cut]);
                from = cut;
            }
            let whole = redacted(&values, &[&text]);
            prop_assert_eq!(&redacted(&values, &pieces), &whole);
            for value in &values {
                prop_assert!(!whole.replace("[secret]", "|").contains(value), "{} in {}", value, whole);
            }
        }
    }

    #[test]
    fn a_secret_is_found_in_a_file_wherever_the_chunks_end() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        let secrets = secrets(&["s3cr3t-value", "other"]);
        for before in [0, 1, CHUNK_BYTES - 12, CHUNK_BYTES - 5, CHUNK_BYTES, 2 * CHUNK_BYTES - 1] {
            let mut bytes = vec![b's'; before];
            ops::write(&path, &bytes).expect("a temporary file");
            assert!(!secrets.are_in_file(&path).expect("it can be read"), "{before}");
            bytes.extend_from_slice(b"s3cr3t-value.");
            ops::write(&path, &bytes).expect("a temporary file");
            assert!(secrets.are_in_file(&path).expect("it can be read"), "{before}");
        }
        assert!(!Secrets::default().are_in_file(&path).expect("nothing is read"));
    }
}
