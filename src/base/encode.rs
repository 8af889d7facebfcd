//! The injective byte encoding under every digest of a structure, and its bounds-checked reader. Does no I/O.
//!
//! Everything is little-endian and length-prefixed: `u8`, `u32`, `u64` as they are, byte strings as `u64` length
//! and bytes. `schema/KEY.md` is the specification for third parties.

use crate::base::digest::{DIGEST_LEN, Digest};

/// Appends to a buffer that can be used again.
#[derive(Default)]
pub struct Encoder {
    buffer: Vec<u8>,
}

impl Encoder {
    /// Starts an empty encoding.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.buffer.push(value);
        self
    }

    /// Appends a `u16`, little-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.buffer.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends a `u64`, little-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.buffer.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends a length and the bytes.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u64(value.len() as u64);
        self.buffer.extend_from_slice(value);
        self
    }

    /// Appends the 32 bytes of a digest, without a length.
    pub fn digest(&mut self, value: &Digest) -> &mut Self {
        self.buffer.extend_from_slice(value.as_bytes());
        self
    }

    /// Everything appended so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer
    }

    /// Gives the buffer away.
    pub fn into_vec(self) -> Vec<u8> {
        self.buffer
    }

    /// The stream, ended by its digest: for files of which a part may be missing or changed.
    pub fn into_sealed(mut self) -> Vec<u8> {
        let checksum = Digest::of(self.as_slice());
        self.digest(&checksum);
        self.into_vec()
    }
}

/// Why an encoding could not be read. The bytes come from disk or from a remote, so none of this is our bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the structure does.
    #[error("the encoding ends early, at byte {at}")]
    Truncated {
        /// Offset at which more was expected.
        at: usize,
    },
    /// The structure ends before the bytes do.
    #[error("{count} bytes follow the encoding")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A value that the format does not allow.
    #[error("the encoding holds an invalid {what}")]
    Invalid {
        /// Which value.
        what: &'static str,
    },
}

/// Reads what [`Encoder`] wrote; never panics and never allocates more than it was given.
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads what [`Encoder::into_sealed`] made.
    pub fn sealed(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let body_len = bytes.len().checked_sub(DIGEST_LEN).ok_or(DecodeError::Truncated { at: bytes.len() })?;
        let (body, checksum) = bytes.split_at(body_len);
        if Digest::of(body).as_bytes() != checksum {
            return Err(DecodeError::Invalid { what: "checksum" });
        }
        Ok(Self::new(body))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else { return Err(DecodeError::Truncated { at: self.at }) };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("take returned exactly N bytes"))
    }

    /// Reads one byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Reads a `u16`.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Reads a `u64`.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads a length-prefixed byte string.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let at = self.at;
        let length = usize::try_from(self.u64()?).map_err(|_| DecodeError::Truncated { at })?;
        self.take(length)
    }

    /// Reads a length-prefixed UTF-8 string; `what` names it in the error.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Invalid { what })
    }

    /// Reads a digest.
    pub fn digest(&mut self) -> Result<Digest, DecodeError> {
        Ok(Digest::from_bytes(self.array::<DIGEST_LEN>()?))
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Checks that nothing is left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            count => Err(DecodeError::Trailing { count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut encoder = Encoder::new();
        encoder.u8(7).u16(513).u64(u64::MAX).bytes(b"wall").digest(&Digest::of(b""));
        let mut decoder = Decoder::new(encoder.as_slice());
        assert_eq!(decoder.u8(), Ok(7));
        assert_eq!(decoder.u16(), Ok(513));
        assert_eq!(decoder.u64(), Ok(u64::MAX));
        assert_eq!(decoder.text("name"), Ok("wall"));
        assert_eq!(decoder.digest(), Ok(Digest::of(b"")));
        assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn of_a_sealed_stream_every_changed_and_every_missing_byte_is_noticed() {
        let mut encoder = Encoder::new();
        encoder.u8(7).bytes(b"text");
        let sealed = encoder.into_sealed();
        let mut decoder = Decoder::sealed(&sealed).expect("as it was made");
        assert_eq!((decoder.u8(), decoder.bytes()), (Ok(7), Ok(&b"text"[..])));
        assert_eq!(decoder.finish(), Ok(()));
        for at in 0..sealed.len() {
            assert!(Decoder::sealed(&sealed[..at]).is_err(), "cut at {at}");
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(Decoder::sealed(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_truncation_is_an_error_and_not_a_panic() {
        let mut encoder = Encoder::new();
        encoder.bytes(b"abc").u64(1);
        for end in 0..encoder.as_slice().len() {
            let mut decoder = Decoder::new(&encoder.as_slice()[..end]);
            assert!(decoder.bytes().and_then(|_| decoder.u64()).is_err(), "{end}");
        }
        let mut huge = Decoder::new(&[0xff; 8]);
        assert_eq!(huge.bytes(), Err(DecodeError::Truncated { at: 8 }));
    }
}
