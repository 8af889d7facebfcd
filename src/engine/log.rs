//! Captured output: interleaved pieces, secrets removed, the middle of too much left out. Prints nothing.

use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::limits::LOG_BYTES_MAX;
use crate::engine::event::Log;
use crate::sandbox::spec::Stream;

/// What stands where a secret was.
const REDACTED: &[u8] = b"[secret]";

/// Collects the output of one command.
pub struct LogCapture {
    secrets: Vec<Vec<u8>>,
    held: [Vec<u8>; 2],
    pieces: Log,
    bytes: usize,
    dropped: usize,
}

impl LogCapture {
    /// Starts with the values to be removed; empty ones are ignored. Values of several lines are also removed line by line.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for secret in secrets {
            let lines = secret.lines().filter(|line| line.len() >= 4).map(|line| line.as_bytes().to_vec());
            all.extend(lines);
            all.push(secret.into_bytes());
        }
        all.retain(|secret| !secret.is_empty());
        // Longest first: a secret that contains another is removed whole.
        all.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        all.dedup();
        Self { secrets: all, held: [Vec::new(), Vec::new()], pieces: Vec::new(), bytes: 0, dropped: 0 }
    }

    /// Takes bytes as they come.
    pub fn take(&mut self, stream: Stream, bytes: &[u8]) {
        if self.secrets.is_empty() {
            return self.push(stream, bytes);
        }
        let mut held = std::mem::take(&mut self.held[side(stream)]);
        held.extend_from_slice(bytes);
        // A secret may be cut by the end of this piece: what could be its beginning waits for the next one.
        let clean = redact(&held, &self.secrets);
        let keep = (1..=clean.len().min(self.secrets[0].len()))
            .rev()
            .find(|&count| {
                let tail = &clean[clean.len() - count..];
                self.secrets.iter().any(|secret| secret.len() > count && secret.starts_with(tail))
            })
            .unwrap_or(0);
        let split = clean.len() - keep;
        self.push(stream, &clean[..split]);
        self.held[side(stream)] = clean[split..].to_vec();
    }

    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let room = LOG_BYTES_MAX.saturating_sub(self.bytes);
        let kept = &bytes[..bytes.len().min(room)];
        self.dropped += bytes.len() - kept.len();
        self.bytes += kept.len();
        if kept.is_empty() {
            return;
        }
        match self.pieces.last_mut() {
            Some((last, piece)) if *last == stream => piece.extend_from_slice(kept),
            _ => self.pieces.push((stream, kept.to_vec())),
        }
    }

    /// Ends the capture.
    pub fn finish(mut self) -> Log {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let held = std::mem::take(&mut self.held[side(stream)]);
            self.push(stream, &held);
        }
        if self.dropped > 0 {
            let line = format!("\n[drystone: {} more bytes of output were left out]\n", self.dropped);
            self.pieces.push((Stream::Stderr, line.into_bytes()));
        }
        self.pieces
    }
}

fn side(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// Replaces every secret in the bytes; `secrets` are sorted longest first.
pub fn redact(bytes: &[u8], secrets: &[Vec<u8>]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match secrets.iter().find(|secret| bytes[at..].starts_with(secret)) {
            Some(secret) => {
                clean.extend_from_slice(REDACTED);
                at += secret.len();
            }
            None => {
                clean.push(bytes[at]);
                at += 1;
            }
        }
    }
    clean
}

/// Writes a log for the store.
pub fn encode(log: &Log) -> Vec<u8> {
    let mut encoder = Encoder::new();
    for (stream, bytes) in log {
        encoder.u8(side(*stream) as u8 + 1).bytes(bytes);
    }
    encoder.into_vec()
}

/// Reads a log from the store.
pub fn decode(bytes: &[u8]) -> Result<Log, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let mut log = Log::new();
    while decoder.remaining() > 0 {
        let stream = match decoder.u8()? {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return Err(DecodeError::Invalid { what: "log stream" }),
        };
        log.push((stream, decoder.bytes()?.to_vec()));
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(secrets: &[&str], pieces: &[&str]) -> String {
        let mut capture = LogCapture::new(secrets.iter().map(|secret| (*secret).to_owned()));
        for piece in pieces {
            capture.take(Stream::Stdout, piece.as_bytes());
        }
        capture.finish().into_iter().map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned()).collect()
    }

    #[test]
    fn secrets_are_removed_however_the_output_is_cut() {
        let text = "token=s3cr3t-value done s3cr3t";
        let expect = "token=[secret] done s3cr3t";
        for cut in 0..text.len() {
            assert_eq!(captured(&["s3cr3t-value"], &[&text[..cut], &text[cut..]]), expect, "cut at {cut}");
        }
        let letters: Vec<&str> = text.split("").collect();
        assert_eq!(captured(&["s3cr3t-value"], &letters), expect);
        assert_eq!(captured(&["", "abc", "abcdef"], &["xabcdefx"]), "x[secret]x");
        assert_eq!(captured(&["line one\nline two"], &["line two"]), "[secret]");
    }

    #[test]
    fn logs_round_trip_with_their_interleaving() {
        let log: Log = vec![(Stream::Stdout, b"a".to_vec()), (Stream::Stderr, vec![0xff]), (Stream::Stdout, vec![])];
        assert_eq!(decode(&encode(&log)), Ok(log));
        assert!(decode(&[9]).is_err());
    }

    #[test]
    fn too_much_output_ends_with_a_line_that_says_so() {
        let mut capture = LogCapture::new([]);
        let chunk = vec![b'x'; LOG_BYTES_MAX / 2 + 1];
        capture.take(Stream::Stdout, &chunk);
        capture.take(Stream::Stdout, &chunk);
        let log = capture.finish();
        assert_eq!(log[0].1.len(), LOG_BYTES_MAX);
        assert!(String::from_utf8_lossy(&log[1].1).contains("2 more bytes"));
    }
}
