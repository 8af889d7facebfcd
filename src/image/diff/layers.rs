//! Layers paired: which are the same, moved, changed, or only on one side; and why the same layer is compressed to other bytes.

use std::cell::{Cell, RefCell};
use std::io::{BufReader, Read};

use crate::image::blob::Digesting;
use crate::image::blobs::Blobs;
use crate::image::diff::class::Class;
use crate::image::diff::contents::LayerRef;
use crate::image::diff::entries::drain;
use crate::image::diff::told::{Event, Ledger, Place, Told, shown, shown_bytes};
use crate::image::error::ImageError;

/// Most bytes of one optional field of a header of gzip.
const GZIP_FIELD_BYTES_MAX: usize = 64 * 1024;

const BUFFER_BYTES: usize = 64 * 1024;

/// Layers from the lowest that are replaced together where no image says that it has a base, for them to be one.
const BASE_LAYERS_MIN: usize = 2;

/// Which layer goes with which, by position from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Pair {
    /// The same content at the same place among those that are the same.
    Same(usize, usize),
    /// The same content elsewhere.
    Moved(usize, usize),
    /// At the same place, other content.
    Changed(usize, usize),
    /// Only on the first side.
    Removed(usize),
    /// Only on the second side.
    Inserted(usize),
}

/// Pairs layers: first those with the same content, in order; what is left between them by what made it, then by position.
pub(super) fn pair(a: &[LayerRef], b: &[LayerRef]) -> Vec<Pair> {
    let ids = |layers: &[LayerRef]| layers.iter().map(|layer| Some(layer.diff_id.to_string())).collect::<Vec<_>>();
    let (ids_a, ids_b) = (ids(a), ids(b));
    let same = longest_shared(&ids_a, &ids_b);
    let mut pairs: Vec<Pair> = same.iter().map(|(one, other)| Pair::Same(*one, *other)).collect();
    let (mut free_a, mut free_b) = (vec![true; a.len()], vec![true; b.len()]);
    for (one, other) in &same {
        (free_a[*one], free_b[*other]) = (false, false);
    }
    for one in 0..a.len() {
        if let Some(other) = (0..b.len()).find(|other| free_a[one] && free_b[*other] && ids_a[one] == ids_b[*other]) {
            pairs.push(Pair::Moved(one, other));
            (free_a[one], free_b[other]) = (false, false);
        }
    }
    let ends = same.iter().copied().chain([(a.len(), b.len())]);
    let (mut from_a, mut from_b) = (0, 0);
    for (end_a, end_b) in ends {
        let gap_a: Vec<usize> = (from_a..end_a).filter(|at| free_a[*at]).collect();
        let gap_b: Vec<usize> = (from_b..end_b).filter(|at| free_b[*at]).collect();
        pair_gap(a, b, &gap_a, &gap_b, &mut pairs);
        (from_a, from_b) = (end_a + 1, end_b + 1);
    }
    pairs.sort();
    pairs
}

fn pair_gap(a: &[LayerRef], b: &[LayerRef], gap_a: &[usize], gap_b: &[usize], pairs: &mut Vec<Pair>) {
    let made = |layers: &[LayerRef], gap: &[usize]| -> Vec<Option<String>> {
        gap.iter().map(|at| layers[*at].created_by.clone()).collect()
    };
    let anchors =
        if gap_a.len() == gap_b.len() { Vec::new() } else { longest_shared(&made(a, gap_a), &made(b, gap_b)) };
    let (mut from_a, mut from_b) = (0, 0);
    let mut between = |to_a: usize, to_b: usize, from_a: usize, from_b: usize| {
        let (one, other) = (&gap_a[from_a..to_a], &gap_b[from_b..to_b]);
        let both = one.len().min(other.len());
        pairs.extend(one.iter().zip(other).map(|(one, other)| Pair::Changed(*one, *other)));
        pairs.extend(one[both..].iter().map(|at| Pair::Removed(*at)));
        pairs.extend(other[both..].iter().map(|at| Pair::Inserted(*at)));
    };
    for (at_a, at_b) in anchors {
        between(at_a, at_b, from_a, from_b);
        between(at_a + 1, at_b + 1, at_a, at_b);
        (from_a, from_b) = (at_a + 1, at_b + 1);
    }
    between(gap_a.len(), gap_b.len(), from_a, from_b);
}

/// The longest common subsequence, as pairs of positions; `None` is like nothing. Cost: the product of the lengths.
pub(super) fn longest_shared<T: PartialEq>(a: &[Option<T>], b: &[Option<T>]) -> Vec<(usize, usize)> {
    let width = b.len() + 1;
    let alike = |one: &Option<T>, other: &Option<T>| one.is_some() && one == other;
    let mut longest = vec![0_u32; (a.len() + 1) * width];
    for one in (0..a.len()).rev() {
        for other in (0..b.len()).rev() {
            longest[one * width + other] = if alike(&a[one], &b[other]) {
                longest[(one + 1) * width + other + 1] + 1
            } else {
                longest[(one + 1) * width + other].max(longest[one * width + other + 1])
            };
        }
    }
    let (mut one, mut other, mut found) = (0, 0, Vec::new());
    while one < a.len() && other < b.len() {
        if alike(&a[one], &b[other]) {
            found.push((one, other));
            (one, other) = (one + 1, other + 1);
        } else if longest[(one + 1) * width + other] >= longest[one * width + other + 1] {
            one += 1;
        } else {
            other += 1;
        }
    }
    found
}

/// Whether the images stand on other bases, as far as layers tell: the lowest differ, others above them are the same. One layer
/// alone may be anything, unless an image says that it has a base.
pub(super) fn is_base_drift(pairs: &[Pair], has_base: bool) -> bool {
    let is_lowest = pairs.contains(&Pair::Changed(0, 0));
    let same = pairs.iter().filter_map(|pair| match pair {
        Pair::Same(one, other) => Some(*one.max(other)),
        _ => None,
    });
    is_lowest && same.min().is_some_and(|below| has_base || below >= BASE_LAYERS_MIN)
}

/// Header of gzip (RFC 1952, section 2.3).
#[derive(PartialEq, Eq, Debug)]
struct GzipHeader {
    time: u32,
    effort: u8,
    system: u8,
    extra: Vec<u8>,
    name: Vec<u8>,
    comment: Vec<u8>,
    is_checked: bool,
}

/// Reads the header of gzip; `None` if it is none or one that is too long.
fn gzip_header(from: &mut impl Read) -> Option<GzipHeader> {
    let mut fixed = [0; 10];
    from.read_exact(&mut fixed).ok()?;
    let [0x1f, 0x8b, 8, flags, t0, t1, t2, t3, effort, system] = fixed else { return None };
    let mut extra = Vec::new();
    if flags & 4 != 0 {
        let mut length = [0; 2];
        from.read_exact(&mut length).ok()?;
        extra.resize(usize::from(u16::from_le_bytes(length)), 0);
        from.read_exact(&mut extra).ok()?;
    }
    let mut text = |is_there: bool| -> Option<Vec<u8>> {
        let mut text = Vec::new();
        if !is_there {
            return Some(text);
        }
        loop {
            let mut byte = [0];
            from.read_exact(&mut byte).ok()?;
            match byte {
                [0] => return Some(text),
                _ if text.len() >= GZIP_FIELD_BYTES_MAX => return None,
                [byte] => text.push(byte),
            }
        }
    };
    let (name, comment) = (text(flags & 8 != 0)?, text(flags & 16 != 0)?);
    let is_checked = flags & 2 != 0;
    if is_checked {
        from.read_exact(&mut [0; 2]).ok()?;
    }
    let time = u32::from_le_bytes([t0, t1, t2, t3]);
    Some(GzipHeader { time, effort, system, extra, name, comment, is_checked })
}

/// Tells why one layer has two blobs.
pub(super) fn compressors(
    ledger: &mut Ledger<'_>,
    place: &Place,
    (blobs_a, a): (&Blobs, &LayerRef),
    (blobs_b, b): (&Blobs, &LayerRef),
) -> Result<(), ImageError> {
    let (Some((_, digest_a)), Some((_, digest_b))) = (&a.packed, &b.packed) else { return Ok(()) };
    if digest_a == digest_b {
        return Ok(());
    }
    let (hasher_a, hasher_b) = (RefCell::new(digest_a.hasher()), RefCell::new(digest_b.hasher()));
    let unbounded = Cell::new(u64::MAX);
    let open = |blobs: &Blobs, layer: &LayerRef| blobs.open_at(&layer.name);
    let one = Digesting { from: open(blobs_a, a)?, hasher: &hasher_a, left: &unbounded };
    let other = Digesting { from: open(blobs_b, b)?, hasher: &hasher_b, left: &unbounded };
    let mut one = BufReader::with_capacity(BUFFER_BYTES, one);
    let mut other = BufReader::with_capacity(BUFFER_BYTES, other);
    let (how_a, how_b) = (how(&mut one, &a.name)?, how(&mut other, &b.name)?);
    let headers = match (how_a, how_b) {
        ("gzip", "gzip") => gzip_header(&mut one).zip(gzip_header(&mut other)),
        _ => None,
    };
    let same_behind = headers.is_some() && same_to_the_end(&mut one, &mut other, &a.name)?;
    drain(&mut one, &a.name)?;
    drain(&mut other, &b.name)?;
    drop((one, other));
    digest_a.check(&hasher_a.into_inner().finish(), &a.name)?;
    digest_b.check(&hasher_b.into_inner().finish(), &b.name)?;
    if let (true, Some((one, other))) = (same_behind, &headers) {
        tell_headers(ledger, place, one, other);
        return Ok(());
    }
    let sentence = if how_a == how_b {
        "the layer is the same unpacked; another compressor, another version or another level of it made its bytes"
    } else {
        "the layer is the same unpacked and compressed in another way"
    };
    let told = |how: &str, layer: &LayerRef| {
        layer.packed.as_ref().map(|(size, digest)| format!("{how}, {size} bytes, {digest}"))
    };
    ledger.add(Class::Compressor, || {
        Told::new(Event::LayerBlobMismatch, Class::Compressor, place.clone(), sentence)
            .sides(told(how_a, a), told(how_b, b))
    });
    Ok(())
}

/// How a layer is compressed, by its first bytes, which stay to be read.
fn how(from: &mut BufReader<impl Read>, name: &str) -> Result<&'static str, ImageError> {
    use std::io::BufRead;
    let first = from.fill_buf();
    let first = first.map_err(|cause| crate::fs::ops::FsError::new("read", std::path::Path::new(name), cause))?;
    Ok(match first {
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        _ => "not compressed",
    })
}

fn same_to_the_end(a: &mut impl Read, b: &mut impl Read, name: &str) -> Result<bool, ImageError> {
    let failed = |cause| crate::fs::ops::FsError::new("read", std::path::Path::new(name), cause);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    loop {
        one.clear();
        other.clear();
        a.by_ref().take(BUFFER_BYTES as u64).read_to_end(&mut one).map_err(failed)?;
        b.by_ref().take(BUFFER_BYTES as u64).read_to_end(&mut other).map_err(failed)?;
        if one != other {
            return Ok(false);
        }
        if one.is_empty() {
            return Ok(true);
        }
    }
}

fn tell_headers(ledger: &mut Ledger<'_>, place: &Place, a: &GzipHeader, b: &GzipHeader) {
    let mut tell = |class, field: &str, sentence: &str, one: String, other: String| {
        if one != other {
            let place = Place { field: Some(field.to_owned()), ..place.clone() };
            ledger.add(class, || {
                Told::new(Event::LayerBlobMismatch, class, place, sentence).sides(Some(one), Some(other))
            });
        }
    };
    let time = "the header of gzip keeps a time; nothing else of the compressed layer differs";
    tell(Class::GzipTime, "gzip.mtime", time, a.time.to_string(), b.time.to_string());
    let system = "the header of gzip names another system; nothing else of the compressed layer differs";
    tell(Class::GzipOs, "gzip.os", system, a.system.to_string(), b.system.to_string());
    let effort = "the header of gzip tells another effort; the compressed bytes are the same";
    tell(Class::GzipOs, "gzip.xfl", effort, a.effort.to_string(), b.effort.to_string());
    let name = "the header of gzip keeps something that is no part of the layer";
    tell(Class::GzipName, "gzip.name", name, shown_bytes(&a.name), shown_bytes(&b.name));
    tell(Class::GzipName, "gzip.comment", name, shown_bytes(&a.comment), shown_bytes(&b.comment));
    tell(Class::GzipName, "gzip.extra", name, shown_bytes(&a.extra), shown_bytes(&b.extra));
    tell(Class::GzipName, "gzip.fhcrc", name, a.is_checked.to_string(), b.is_checked.to_string());
}

/// Tells of layers that are not where their like is.
pub(super) fn tell_pair(ledger: &mut Ledger<'_>, platform: &str, pair: Pair, a: &[LayerRef], b: &[LayerRef]) {
    let told = |layer: &LayerRef| {
        let made = layer.created_by.as_ref().map(|made| format!(", made by `{}`", shown(made))).unwrap_or_default();
        format!("{}{made}", layer.diff_id)
    };
    let (class, sentence, one, other) = match pair {
        Pair::Moved(one, other) => (Class::LayerOrder, "the layer lies elsewhere", Some(one), Some(other)),
        Pair::Removed(one) => (Class::LayerSet, "the layer is only in the first", Some(one), None),
        Pair::Inserted(other) => (Class::LayerSet, "the layer is only in the second", None, Some(other)),
        Pair::Same(..) | Pair::Changed(..) => return,
    };
    ledger.add(class, || {
        let number = |at: usize| at + 1;
        let place = Place {
            platform: Some(platform.to_owned()),
            layer_a: one.map(number),
            layer_b: other.map(number),
            ..Place::default()
        };
        Told::new(Event::LayerBlobMismatch, class, place, sentence)
            .sides(one.map(|at| told(&a[at])), other.map(|at| told(&b[at])))
    });
}
