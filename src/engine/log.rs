//! Captured output: interleaved pieces, secrets removed, the middle of too much left out. Prints nothing.

use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::limits::LOG_BYTES_MAX;
use crate::engine::event::Log;
use crate::engine::secrets::{Redaction, Secrets};
use crate::sandbox::spec::Stream;

/// Collects the output of one command.
pub struct LogCapture {
    secrets: Secrets,
    redactions: [Redaction; 2],
    pieces: Log,
    bytes: usize,
    dropped: usize,
}

impl LogCapture {
    /// Starts with the values to be removed.
    pub fn new(secrets: Secrets) -> Self {
        Self { secrets, redactions: Default::default(), pieces: Vec::new(), bytes: 0, dropped: 0 }
    }

    /// Takes bytes as they come.
    pub fn take(&mut self, stream: Stream, bytes: &[u8]) {
        if self.secrets.is_empty() {
            return self.push(stream, bytes);
        }
        let clean = self.redactions[side(stream)].take(&self.secrets, bytes);
        self.push(stream, &clean);
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
            let rest = self.redactions[side(stream)].finish(&self.secrets);
            self.push(stream, &rest);
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
        let mut capture = LogCapture::new(Secrets::new(secrets.iter().map(|secret| (*secret).to_owned())));
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
        let mut capture = LogCapture::new(Secrets::default());
        let chunk = vec![b'x'; LOG_BYTES_MAX / 2 + 1];
        capture.take(Stream::Stdout, &chunk);
        capture.take(Stream::Stdout, &chunk);
        let log = capture.finish();
        assert_eq!(log[0].1.len(), LOG_BYTES_MAX);
        assert!(String::from_utf8_lossy(&log[1].1).contains("2 more bytes"));
    }
}
