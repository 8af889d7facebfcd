//! The bytes of a compressed layer, the same for the same archive: however many threads work on it, and however it is written.
//!
//! Compressors promise nothing about their bytes from one version to the next, so each is pinned, fed in blocks of one size, and
//! tried before the first layer ([`self_test`]). Format 1:
//! - `gzip`: libdeflate, level 6; each MiB of the archive is a member of its own (RFC 1952) with the header
//!   `1f8b0800 00000000 00ff`. An empty archive is one empty member.
//! - `zstd`: level 3, one thread, one frame with a checksum and without the length of its content.

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;

use libdeflater::{CompressionLvl, Compressor as Deflater};
use rayon::prelude::*;

use crate::image::blob::BlobDigest;
use crate::image::error::ImageError;

/// Bytes of an archive that are one member of a gzip file.
const BLOCK_BYTES: usize = 1024 * 1024;
/// Blocks that wait for each thread, and in all at most.
const BLOCKS_PER_THREAD: usize = 4;
const BLOCKS_MAX: usize = 128;

const GZIP_LEVEL: i32 = 6;
const ZSTD_LEVEL: i32 = 3;
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// How a layer is compressed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Compression {
    /// With gzip, which every runtime reads.
    #[default]
    Gzip,
    /// With zstd, which needs a runtime of 2021 or later.
    Zstd,
    /// Not at all.
    None,
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Zstd, Self::None];

    /// Parses `gzip`, `zstd` or `none`.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::None => "none",
        }
    }

    /// Tells apart everything that gives other bytes. Part of keys.
    pub fn id(self) -> &'static str {
        match self {
            Self::Gzip => "gzip libdeflate-1.26.1 level 6 members of 1 MiB",
            Self::Zstd => "zstd-1.5.7 level 3 checksum",
            Self::None => "none",
        }
    }

    /// Media type of a layer compressed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::None => "application/vnd.oci.image.layer.v1.tar",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Compresses what is written to it. Only [`Compressor::finish`] makes it whole.
///
/// Memory: with gzip up to four blocks of 1 MiB a thread, and what becomes of them. Works on the threads of the rayon pool it is
/// used in.
pub struct Compressor<W: Write> {
    to: To<W>,
    /// Not compressed yet: at most `batch_bytes`.
    pending: Vec<u8>,
    block_bytes: usize,
    batch_bytes: usize,
}

enum To<W: Write> {
    Gzip {
        out: W,
        /// Whether a member was written.
        begun: bool,
    },
    Zstd(zstd::Encoder<'static, W>),
    Plain(W),
}

impl<W: Write> Compressor<W> {
    /// Starts. Errors only if no memory can be had.
    pub fn new(compression: Compression, out: W) -> io::Result<Self> {
        let blocks = (rayon::current_num_threads() * BLOCKS_PER_THREAD).clamp(1, BLOCKS_MAX);
        let blocks = if compression == Compression::Gzip { blocks } else { 1 };
        Self::with_blocks(compression, BLOCK_BYTES, blocks, out)
    }

    /// With so many blocks at once: with one, no other thread is waited for.
    fn with_blocks(compression: Compression, block_bytes: usize, blocks: usize, out: W) -> io::Result<Self> {
        let to = match compression {
            Compression::Gzip => To::Gzip { out, begun: false },
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                To::Zstd(encoder)
            }
            Compression::None => To::Plain(out),
        };
        Ok(Self { to, pending: Vec::new(), block_bytes, batch_bytes: blocks * block_bytes })
    }

    /// Compresses what is left and gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        let is_empty_gzip = matches!(self.to, To::Gzip { begun: false, .. });
        if !self.pending.is_empty() || is_empty_gzip {
            self.compress()?;
        }
        match self.to {
            To::Gzip { out, .. } | To::Plain(out) => Ok(out),
            To::Zstd(encoder) => encoder.finish(),
        }
    }

    /// Compresses what is pending: whole blocks, or the last one.
    fn compress(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Gzip { out, begun } if self.pending.len() <= self.block_bytes => {
                *begun = true;
                out.write_all(&member(&mut deflater(), &self.pending)?)?;
            }
            To::Gzip { out, begun } => {
                *begun = true;
                let blocks = self.pending.par_chunks(self.block_bytes);
                let members: Vec<io::Result<Vec<u8>>> = blocks.map_init(deflater, member).collect();
                for member in members {
                    out.write_all(&member?)?;
                }
            }
            To::Zstd(encoder) => encoder.write_all(&self.pending)?,
            To::Plain(out) => out.write_all(&self.pending)?,
        }
        self.pending.clear();
        Ok(())
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.batch_bytes - self.pending.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        if self.pending.len() == self.batch_bytes {
            self.compress()?;
        }
        Ok(taken)
    }

    /// Does nothing: where a block ends must not depend on who flushes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn deflater() -> Deflater {
    Deflater::new(CompressionLvl::new(GZIP_LEVEL).expect("libdeflate has level 6"))
}

/// One member of a gzip file.
fn member(deflater: &mut Deflater, block: &[u8]) -> io::Result<Vec<u8>> {
    let bound = deflater.deflate_compress_bound(block.len());
    let mut bytes = GZIP_HEADER.to_vec();
    bytes.resize(GZIP_HEADER.len() + bound, 0);
    let body = deflater.deflate_compress(block, &mut bytes[GZIP_HEADER.len()..]);
    let body = body.map_err(|error| io::Error::other(format!("libdeflate: {error}")))?;
    bytes.truncate(GZIP_HEADER.len() + body);
    bytes.extend_from_slice(&libdeflater::crc32(block).to_le_bytes());
    bytes.extend_from_slice(&(block.len() as u32).to_le_bytes());
    Ok(bytes)
}

/// Bytes that the compressors are tried with, and of one block of them: more than a window of deflate.
const PATTERN_BYTES: usize = 96 * 1024;
const PATTERN_BLOCK_BYTES: usize = 40 * 1024;

/// What each compressor makes of the pattern, as hexadecimal digits of SHA-256.
const PATTERN_DIGESTS: [(Compression, &str); 2] = [
    (Compression::Gzip, "3e329fb907b8345c89bc85b5f923a5086a4b42191a57fe6c3fe070407e86af48"),
    (Compression::Zstd, "c3f30ed4a49ea8e1309be39ed974d603b556093a3e82b1280411f4831f13d6a2"),
];

/// Words in an order that looks like none, with runs and bytes that nothing compresses between them.
fn pattern() -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let words: Vec<Vec<u8>> =
        (0..96).map(|_| (0..3 + next() % 9).map(|_| b'a' + (next() % 26) as u8).collect()).collect();
    let mut bytes = Vec::with_capacity(PATTERN_BYTES + 128);
    while bytes.len() < PATTERN_BYTES {
        match next() % 16 {
            0 => bytes.extend((0..next() % 32).map(|_| next() as u8)),
            1 => bytes.extend(std::iter::repeat_n(next() as u8, (next() % 128) as usize)),
            _ => bytes.extend_from_slice(&words[(next() % 96) as usize]),
        }
    }
    bytes.truncate(PATTERN_BYTES);
    bytes
}

/// What becomes of the pattern when it is written in pieces of one size.
///
/// On this thread alone: a thread of rayon that waits for others may meanwhile begin to pack a layer, and so wait for itself.
fn tried(compression: Compression, pattern: &[u8], piece_bytes: usize) -> io::Result<String> {
    let mut compressor = Compressor::with_blocks(compression, PATTERN_BLOCK_BYTES, 1, Vec::new())?;
    for piece in pattern.chunks(piece_bytes) {
        compressor.write_all(piece)?;
    }
    Ok(BlobDigest::of(&compressor.finish()?).hex().to_owned())
}

/// An error if a compressor gives other bytes than the format has. The first call takes about 10 ms.
pub fn self_test() -> Result<(), ImageError> {
    static TRIED: OnceLock<Option<&'static str>> = OnceLock::new();
    match TRIED.get_or_init(|| {
        let pattern = pattern();
        let differs = |(compression, expected): &(Compression, &str)| {
            let give = |piece| tried(*compression, &pattern, piece).is_ok_and(|found| found == *expected);
            ![PATTERN_BYTES, 4096, 1009].into_iter().all(give)
        };
        PATTERN_DIGESTS.iter().find(|one| differs(one)).map(|(compression, _)| compression.word())
    }) {
        Some(word) => Err(ImageError::Compressor(word)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn compressed(compression: Compression, bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
        written(Compressor::new(compression, Vec::new()).expect("memory"), bytes, pieces)
    }

    fn written(mut compressor: Compressor<Vec<u8>>, bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
        let (mut rest, mut sizes) = (bytes, pieces.iter().cycle());
        while !rest.is_empty() {
            let size = rest.len().min(*sizes.next().expect("a cycle has no end"));
            compressor.write_all(&rest[..size]).expect("a vector takes it");
            compressor.flush().expect("it does nothing");
            rest = &rest[size..];
        }
        compressor.finish().expect("a vector takes it")
    }

    fn plain(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match compression {
            Compression::Gzip => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).map(drop),
            Compression::Zstd => zstd::stream::copy_decode(bytes, &mut plain),
            Compression::None => bytes.to_vec().as_slice().read_to_end(&mut plain).map(drop),
        }
        .expect("what was compressed");
        plain
    }

    #[test]
    fn the_compressors_give_the_bytes_of_the_format() {
        let pattern = pattern();
        assert_eq!(BlobDigest::of(&pattern).hex(), "8eafed899601c308ef15f20da81df06f7028ef9482b0adaa30c64e91184ecd97");
        for (compression, expected) in PATTERN_DIGESTS {
            assert_eq!(tried(compression, &pattern, 777).expect("memory"), expected, "{compression}");
        }
        self_test().expect("the compressors of this program");
    }

    #[test]
    fn neither_pieces_nor_threads_change_a_byte() {
        // Forty small blocks, as a layer of forty MiB has large ones.
        const SMALL_BYTES: usize = 8 * 1024;
        let bytes: Vec<u8> = pattern().iter().copied().cycle().take(SMALL_BYTES * 79 / 2).collect();
        for compression in Compression::ALL {
            let compressed = |blocks: usize, pieces: &[usize]| {
                let compressor = Compressor::with_blocks(compression, SMALL_BYTES, blocks, Vec::new());
                written(compressor.expect("memory"), &bytes, pieces)
            };
            let expected = compressed(1, &[usize::MAX]);
            assert_eq!(plain(compression, &expected), bytes, "{compression}");
            for threads in [1, 2, 8] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                for pieces in [&[1000][..], &[1, SMALL_BYTES - 1, 3], &[SMALL_BYTES], &[SMALL_BYTES + 1, 5]] {
                    let found = pool.install(|| compressed(threads * BLOCKS_PER_THREAD, pieces));
                    assert_eq!(BlobDigest::of(&found), BlobDigest::of(&expected), "{compression} {threads} {pieces:?}");
                }
            }
        }
    }

    #[test]
    fn each_mib_is_a_member_and_nothing_is_one_too() {
        let members = |length: usize| {
            let bytes = compressed(Compression::Gzip, &vec![7; length], &[4096]);
            assert_eq!(plain(Compression::Gzip, &bytes), vec![7; length]);
            let mut rest = bytes.as_slice();
            let mut lengths = Vec::new();
            while !rest.is_empty() {
                assert_eq!(rest[..10], GZIP_HEADER);
                let mut one = flate2::bufread::GzDecoder::new(rest);
                lengths.push(io::copy(&mut one, &mut io::sink()).expect("a member") as usize);
                rest = one.into_inner();
            }
            lengths
        };
        assert_eq!(members(0), [0]);
        assert_eq!(members(1), [1]);
        assert_eq!(members(BLOCK_BYTES), [BLOCK_BYTES]);
        assert_eq!(members(BLOCK_BYTES + 1), [BLOCK_BYTES, 1]);
        // More than one batch of a single thread.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        assert_eq!(pool.install(|| members(8 * BLOCK_BYTES)), [BLOCK_BYTES; 8]);
        let empty = compressed(Compression::Gzip, &[], &[1]);
        assert_eq!(empty, [&GZIP_HEADER[..], &[1, 0, 0, 0xff, 0xff], &[0; 8]].concat());
    }

    #[test]
    fn frames_of_zstd_do_not_tell_their_length() {
        let frame = compressed(Compression::Zstd, &[7; 100], &[100]);
        assert_eq!(zstd::zstd_safe::get_frame_content_size(&frame).expect("a frame"), None);
        assert_eq!(frame[4] & 0b100, 0b100, "a checksum");
    }

    #[test]
    fn the_trial_waits_for_no_thread_that_waits_for_it() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
        pool.install(|| (0..64).into_par_iter().for_each(|_| self_test().expect("the compressors of this program")));
    }

    #[test]
    fn the_version_of_zstd_is_the_one_in_keys() {
        assert!(Compression::Zstd.id().starts_with(&format!("zstd-{} ", zstd::zstd_safe::version_string())));
    }

    #[test]
    fn words_are_read_back() {
        for compression in Compression::ALL {
            assert_eq!(Compression::parse(compression.word()), Some(compression));
        }
        assert_eq!(Compression::parse("xz"), None);
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for compression in Compression::ALL {
            let mut compressor = Compressor::new(compression, Full).expect("memory");
            let written = compressor.write_all(&pattern()).and_then(|()| compressor.finish().map(drop));
            assert_eq!(written.expect_err("it is full").kind(), io::ErrorKind::StorageFull, "{compression}");
        }
    }
}
