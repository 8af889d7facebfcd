//! Compressed files: what is in them, and how two of them differ in all else. Knows zstd and xz; gzip is next door.

use std::io::Read;
use std::ops::Range;

use crate::audit::causes;
use crate::audit::compare::archive::{self, Field, Rule};
use crate::audit::compare::gzip;
use crate::audit::compare::sniff::{self, Kind};
use crate::audit::compare::verdict::Cost;
use crate::audit::compare::walk::{Side, Told, Trouble, Walk, text, within};
use crate::audit::model::{Certainty, Site};
use crate::sandbox::surroundings::Dimension;

/// Memory of a decoder of xz, and the logarithm of that of one of zstd: what their strongest usual levels need.
const XZ_MEMORY_BYTES_MAX: u64 = 128 * 1024 * 1024;
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// What was in a compressed file.
#[derive(Default)]
pub(super) struct Unpacked {
    pub(super) content: Vec<u8>,
    /// Fields of its headers.
    pub(super) fields: Vec<Field>,
    /// Where its compressed bytes are, of gzip.
    pub(super) bodies: Vec<Range<usize>>,
    /// Sizes of the parts it was compressed in, as far as can be told.
    pub(super) blocks: Vec<usize>,
}

/// Compares two compressed files, each of any format.
pub(super) fn compare(
    walk: &mut Walk<'_>,
    site: &Site,
    name: &str,
    a: &[u8],
    b: &[u8],
    depth: usize,
) -> Result<(), Trouble> {
    let kinds = [sniff::kind(a), sniff::kind(b)];
    let (first, second) = (unpack(walk, 0, kinds[0], a)?, unpack(walk, 1, kinds[1], b)?);
    let events = walk.events();
    if kinds[0] == kinds[1] {
        archive::fields(walk, site, (a, &first.fields), (b, &second.fields), None);
    } else {
        let what =
            format!("compressed with {} on the first side, with {} on the second", kinds[0].word(), kinds[1].word());
        // Headers of formats that differ say different things, so none of them is compared.
        let holds_more = [&first, &second].into_iter().any(|side| side.fields.iter().any(is_real));
        let cost = if holds_more { Cost::Real } else { Cost::Compression };
        walk.push(site, Told::proven(what, &causes::COMPRESSOR, cost));
    }
    if first.content != second.content {
        let inner = within(site, &format!("({})", kinds[0].word()));
        walk.descend(&inner, inner_name(name), &first.content, &second.content, depth + 1);
        return Ok(());
    }
    let is_framed_otherwise = first.blocks != second.blocks;
    let has_other_bytes = walk.events() == events || is_framed_otherwise || bodies_differ(a, b, [&first, &second]);
    if kinds[0] == kinds[1] && has_other_bytes {
        walk.push(site, recompressed(walk, a, b, is_framed_otherwise));
    }
    Ok(())
}

fn is_real(field: &Field) -> bool {
    matches!(field.rule, Rule::Cost(Cost::Real))
}

/// Whether compressed bytes behind headers differ, of gzip; of other formats there are no headers to speak of.
fn bodies_differ(a: &[u8], b: &[u8], sides: [&Unpacked; 2]) -> bool {
    let bodies = sides[0].bodies.iter().zip(&sides[1].bodies);
    bodies.into_iter().any(|(x, y)| a[x.clone()] != b[y.clone()])
}

fn recompressed(walk: &Walk<'_>, a: &[u8], b: &[u8], is_framed_otherwise: bool) -> Told {
    let sizes = format!("{} bytes and {}", a.len(), b.len());
    let is_alone = walk.context.alone == Some(Dimension::Cpus);
    if is_framed_otherwise || is_alone {
        let what = format!("the same content, compressed in other blocks: {sizes}");
        let certainty = if is_alone { Certainty::Proven } else { Certainty::Suspected };
        return Told { certainty, ..Told::proven(what, &causes::COMPRESSOR_THREADS, Cost::Compression) };
    }
    Told::proven(format!("the same content, compressed otherwise: {sizes}"), &causes::COMPRESSOR, Cost::Compression)
}

/// The name of what is inside: without the ending of the compression.
fn inner_name(name: &str) -> &str {
    let ends = [".gz", ".xz", ".zst", ".zstd"].into_iter().find_map(|end| name.strip_suffix(end));
    ends.unwrap_or(name)
}

/// Unpacks one content, and counts it.
pub(super) fn unpack(walk: &mut Walk<'_>, side: Side, kind: Kind, bytes: &[u8]) -> Result<Unpacked, Trouble> {
    match kind {
        Kind::Gzip => gzip::read(walk, side, bytes),
        Kind::Zstd => zstd(walk, side, bytes),
        Kind::Xz => xz(walk, side, bytes),
        _ => Err(Trouble::Broken),
    }
}

/// Frames of zstd (RFC 8878), and those that decoders skip, which may hold anything.
fn zstd(walk: &mut Walk<'_>, side: Side, bytes: &[u8]) -> Result<Unpacked, Trouble> {
    let mut whole = Unpacked::default();
    let mut at = 0;
    while at < bytes.len() {
        walk.count(side)?;
        let rest = &bytes[at..];
        let length = zstd::zstd_safe::find_frame_compressed_size(rest).map_err(|_| Trouble::Broken)?;
        let end = at.checked_add(length).filter(|end| length > 0 && *end <= bytes.len()).ok_or(Trouble::Broken)?;
        if rest[0] & 0xf0 == 0x50 {
            let rule = Rule::Cost(Cost::Real);
            whole.fields.push(Field::at("frame that decoders skip", at..end, text, &causes::UNKNOWN, rule));
        } else {
            let before = whole.content.len();
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&bytes[at..end]).map_err(|_| Trouble::Broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| Trouble::Broken)?;
            take(walk, side, decoder, &mut whole.content)?;
            whole.blocks.push(whole.content.len() - before);
        }
        at = end;
    }
    walk.spend(side, whole.content.len())?;
    Ok(whole)
}

fn xz(walk: &mut Walk<'_>, side: Side, bytes: &[u8]) -> Result<Unpacked, Trouble> {
    let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, xz2::stream::CONCATENATED);
    let decoder = xz2::bufread::XzDecoder::new_stream(bytes, stream.map_err(|_| Trouble::Broken)?);
    let mut whole = Unpacked::default();
    take(walk, side, decoder, &mut whole.content)?;
    walk.spend(side, whole.content.len())?;
    whole.blocks = xz_blocks(bytes).into_iter().collect();
    Ok(whole)
}

/// How many blocks the last stream of an xz file has, from its index (section 4.3 of the format).
fn xz_blocks(bytes: &[u8]) -> Option<usize> {
    let footer = bytes.get(bytes.len().checked_sub(12)?..)?;
    let index = (u32::from_le_bytes(footer[4..8].try_into().ok()?) as usize).checked_add(1)?.checked_mul(4)?;
    let index = bytes.get(bytes.len().checked_sub(12)?.checked_sub(index)?..)?;
    let digits = index.get(1..)?.iter().take(9);
    let mut count = 0_u64;
    for (position, byte) in digits.enumerate() {
        count |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return usize::try_from(count).ok();
        }
    }
    None
}

/// Reads all of it, unless that is more than one content may have.
fn take(walk: &Walk<'_>, side: Side, from: impl Read, to: &mut Vec<u8>) -> Result<(), Trouble> {
    let room = walk.room(side);
    let left = room.saturating_sub(to.len());
    let read = from.take(left as u64 + 1).read_to_end(to).map_err(|_| Trouble::Broken)?;
    if read > left { Err(Trouble::Over(format!("more than {room} bytes are unpacked"))) } else { Ok(()) }
}
