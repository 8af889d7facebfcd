//! Two PNG files, chunk by chunk. Format: ISO/IEC 15948.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

use super::gather::{Gathered, Reason, Stretch};
use super::lines::{compare_binary, compare_text};
use crate::audit::causes;

const MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";
/// More is not decompressed.
const PIXEL_BYTES_MAX: u64 = 64 << 20;
/// More chunks are not told apart.
const CHUNKS_MAX: usize = 4096;

/// Chunks by kind, numbered where a kind comes more than once, without their checksums; all data of pixels is one.
fn chunks(file: &[u8]) -> Option<BTreeMap<String, Vec<Range<usize>>>> {
    let mut at = MAGIC.len();
    let mut chunks: BTreeMap<String, Vec<Range<usize>>> = BTreeMap::new();
    for _ in 0..CHUNKS_MAX {
        let Some(header) = file.get(at..at.checked_add(8)?) else { break };
        let length = usize::try_from(u32::from_be_bytes([header[0], header[1], header[2], header[3]])).ok()?;
        let kind = header[4..].escape_ascii().to_string();
        let range = at + 8..(at + 8).checked_add(length)?;
        file.get(range.clone())?;
        at = range.end.checked_add(4)?;
        if kind == "IDAT" {
            chunks.entry(kind).or_default().push(range);
            continue;
        }
        let number = (1..).find(|number| !chunks.contains_key(&named(&kind, *number)))?;
        chunks.insert(named(&kind, number), vec![range]);
    }
    Some(chunks)
}

fn named(kind: &str, number: u32) -> String {
    if number == 1 { kind.to_owned() } else { format!("{kind}#{number}") }
}

fn inflated(data: &[u8]) -> Option<Vec<u8>> {
    let mut pixels = Vec::new();
    flate2::read::ZlibDecoder::new(data).take(PIXEL_BYTES_MAX).read_to_end(&mut pixels).ok()?;
    Some(pixels)
}

/// Looks into two images; `false` if one of them is none.
pub(super) fn look(all: &mut Gathered<'_>, a: &[u8], b: &[u8]) -> bool {
    if !a.starts_with(MAGIC) || !b.starts_with(MAGIC) {
        return false;
    }
    let (Some(chunks_a), Some(chunks_b)) = (chunks(a), chunks(b)) else { return false };
    let joined = |file: &[u8], ranges: &[Range<usize>]| {
        ranges.iter().flat_map(|range| &file[range.clone()]).copied().collect::<Vec<u8>>()
    };
    for (kind, ranges_a) in &chunks_a {
        let members = [kind.clone()];
        let Some(ranges_b) = chunks_b.get(kind) else {
            one_sided(all, &members, "first");
            continue;
        };
        let (data_a, data_b) = (joined(a, ranges_a), joined(b, ranges_b));
        let stretch = Stretch { a: &data_a, at_a: 0..data_a.len(), b: &data_b, at_b: 0..data_b.len(), is_text: false };
        let covers = (0..data_a.len(), 0..data_b.len());
        match kind.as_str() {
            "IDAT" => {
                let (pixels_a, pixels_b) = (inflated(&data_a), inflated(&data_b));
                let is_cut = ranges_a != ranges_b && data_a == data_b;
                if is_cut || (data_a != data_b && pixels_a.is_some() && pixels_a == pixels_b) {
                    let what = "the same pixels, compressed in another way";
                    all.add(&members, Reason::suspected(&causes::COMPRESSOR, what, covers).proven(), &stretch);
                } else if data_a != data_b {
                    compare_binary(all, &members, &pixels_a.unwrap_or(data_a), &pixels_b.unwrap_or(data_b));
                }
            }
            _ if data_a == data_b => {}
            "tIME" => {
                let what = "the time of the image";
                all.add(&members, Reason::suspected(&causes::TIMESTAMP_EMBEDDED, what, covers).proven(), &stretch);
            }
            _ if kind.contains("Xt") => compare_text(all, &members, &data_a, &data_b),
            _ => compare_binary(all, &members, &data_a, &data_b),
        }
    }
    for kind in chunks_b.keys().filter(|kind| !chunks_a.contains_key(*kind)) {
        one_sided(all, std::slice::from_ref(kind), "second");
    }
    true
}

fn one_sided(all: &mut Gathered<'_>, members: &[String], which: &str) {
    let reason = Reason::suspected(&causes::UNKNOWN, format!("only the {which} build has this chunk"), (0..0, 0..0));
    all.add_with(members, reason, None);
}
