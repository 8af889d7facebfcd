//! Where two files first differ, and what stands there. Keeps digests of blocks and one block of each file, nothing else of it.
//!
//! Two passes over a layer at most: the first keeps the beginning of each file and digests of its blocks, which tell the block with the
//! first difference; the second fetches that block, if it is not the first.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;

use crate::fs::archive::ArchiveError;
use crate::image::blobs::Blobs;
use crate::image::diff::class::Class;
use crate::image::diff::contents::LayerRef;
use crate::image::diff::entries::{Meta, broken, contents};
use crate::image::diff::files::Differing;
use crate::image::diff::layers::longest_shared;
use crate::image::diff::looks::{self, Seen};
use crate::image::diff::told::{Excerpt, shown_bytes};
use crate::image::error::ImageError;

/// Smallest block.
const BLOCK_BYTES_MIN: u64 = 64 * 1024;
/// Most blocks of one file.
const BLOCKS_MAX: u64 = 8192;
/// Lines of each side that are compared for an excerpt.
const LINES_COMPARED: usize = 24;
/// Lines before the first difference.
const LINES_BEFORE: usize = 1;
/// From which column on a line is shown from the middle.
const COLUMN_MAX: usize = 120;
/// Bytes of a line shown before the difference in its middle.
const COLUMN_BEFORE: usize = 40;
/// Bytes of each side in an excerpt of what is no text.
const HEX_BYTES: usize = 16;

/// One side of one file.
#[derive(Default)]
struct Side {
    /// The block that is looked at, at first the one at the beginning.
    window: Vec<u8>,
    blocks: Vec<[u8; 8]>,
}

struct File {
    which: Differing,
    block_bytes: u64,
    /// Number of the block that is looked at.
    block: usize,
    sides: [Side; 2],
}

/// What was found out of a file.
pub(super) struct Explained {
    pub which: Differing,
    pub class: Class,
    pub sentence: &'static str,
    pub excerpt: Excerpt,
}

/// A layer of one side with its entries.
pub(super) type Layer<'a> = (&'a Blobs, &'a LayerRef, &'a [Meta]);

/// Finds out why files differ. Memory: a block for each, of 64 KiB or a part of the size in 8192, and as much for digests.
pub(super) fn explain(
    layers: [Layer<'_>; 2],
    differing: &[Differing],
    lines_max: usize,
    left: &Cell<u64>,
) -> Result<Vec<Explained>, ImageError> {
    let file = |which: &Differing| {
        let size = layers[0].2[which.numbers()[0]].size.max(layers[1].2[which.numbers()[1]].size);
        let block_bytes = size.div_ceil(BLOCKS_MAX).max(BLOCK_BYTES_MIN);
        File { which: *which, block_bytes, block: 0, sides: Default::default() }
    };
    let mut files: Vec<File> = differing.iter().map(file).collect();
    for (side, layer) in layers.iter().enumerate() {
        pass(*layer, side, &mut files, left, &|_| true, &mut digest_blocks)?;
    }
    for file in &mut files {
        let [one, other] = &file.sides;
        let same = one.blocks.iter().zip(&other.blocks).take_while(|(one, other)| one == other).count();
        file.block = same;
    }
    for (side, layer) in layers.iter().enumerate() {
        pass(*layer, side, &mut files, left, &|file| file.block > 0, &mut fetch_block)?;
    }
    Ok(files.iter().map(|file| explained(file, &layers[0].2[file.which.a], lines_max)).collect())
}

type Take<'a> = &'a mut dyn FnMut(&mut File, usize, &mut dyn Read) -> io::Result<()>;

/// Gives the content of files of one side to `take`.
fn pass(
    (blobs, layer, _): Layer<'_>,
    side: usize,
    files: &mut [File],
    left: &Cell<u64>,
    is_wanted: &dyn Fn(&File) -> bool,
    take: Take<'_>,
) -> Result<(), ImageError> {
    let wanted = files.iter_mut().filter(|file| is_wanted(file)).map(|file| (file.which.numbers()[side], file));
    let mut wanted: BTreeMap<usize, &mut File> = wanted.collect();
    if wanted.is_empty() {
        return Ok(());
    }
    contents(blobs, layer, left, &mut |number, content| -> Result<_, ArchiveError> {
        if let Some(file) = wanted.remove(&number) {
            take(file, side, content).map_err(broken)?;
        }
        Ok(if wanted.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
}

fn digest_blocks(file: &mut File, side: usize, content: &mut dyn Read) -> io::Result<()> {
    let mut block = Vec::new();
    loop {
        block.clear();
        content.take(file.block_bytes).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(());
        }
        let side = &mut file.sides[side];
        if side.blocks.is_empty() {
            side.window.clone_from(&block);
        }
        let digest = blake3::hash(&block);
        side.blocks.push(*digest.as_bytes().first_chunk().expect("a digest has 32 bytes"));
    }
}

fn fetch_block(file: &mut File, side: usize, content: &mut dyn Read) -> io::Result<()> {
    let window = &mut file.sides[side].window;
    window.clear();
    io::copy(&mut content.take(file.block_bytes.saturating_mul(file.block as u64)), &mut io::sink())?;
    content.take(file.block_bytes).read_to_end(window).map(drop)
}

fn explained(file: &File, entry: &Meta, lines_max: usize) -> Explained {
    let [a, b] = [&file.sides[0].window[..], &file.sides[1].window[..]];
    let same = a.iter().zip(b).take_while(|(one, other)| one == other).count();
    let is_whole = file.sides.iter().all(|side| side.blocks.len() <= 1);
    let is_text = [a, b].iter().all(|bytes| looks::is_text(bytes));
    let offset = file.block_bytes * file.block as u64 + same as u64;
    let seen = Seen { path: &entry.path, a, b, same, offset, is_whole, is_text };
    let (class, sentence) = looks::classify(&seen);
    let excerpt = if is_text { text_excerpt(&seen, file.block == 0, lines_max) } else { hex_excerpt(&seen) };
    Explained { which: file.which, class, sentence, excerpt }
}

fn hex_excerpt(seen: &Seen<'_>) -> Excerpt {
    let hex = |bytes: &[u8]| {
        let bytes = bytes[seen.same..].iter().take(HEX_BYTES);
        bytes.map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    };
    Excerpt::Binary { offset: seen.offset, a: hex(seen.a), b: hex(seen.b) }
}

fn text_excerpt(seen: &Seen<'_>, is_beginning: bool, lines_max: usize) -> Excerpt {
    let before = &seen.a[..seen.same];
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = is_beginning.then(|| before.iter().filter(|byte| **byte == b'\n').count() + 1);
    if seen.same - start > COLUMN_MAX {
        let middle = |mark: char, bytes: &[u8]| {
            let rest = &bytes[seen.same - COLUMN_BEFORE..];
            let end = rest[COLUMN_BEFORE..].iter().position(|byte| *byte == b'\n');
            format!("{mark}…{}", shown_text(&rest[..end.map_or(rest.len(), |end| end + COLUMN_BEFORE)]))
        };
        return Excerpt::Text { line, lines: vec![middle('-', seen.a), middle('+', seen.b)] };
    }
    let mut from = start;
    for _ in 0..LINES_BEFORE {
        let above = from.checked_sub(1).map(|end| before[..end].iter().rposition(|byte| *byte == b'\n'));
        from = above.map_or(from, |at| at.map_or(0, |at| at + 1));
    }
    let lines = |bytes: &'_ [u8]| -> Vec<Option<Vec<u8>>> {
        let lines = bytes[from..].split_inclusive(|byte| *byte == b'\n');
        lines.take(LINES_COMPARED).map(|line| Some(line.to_vec())).collect()
    };
    Excerpt::Text { line, lines: unified([&lines(seen.a), &lines(seen.b)], lines_max, seen.is_whole) }
}

/// A line as it is shown: without its end, and with a note where a file that is seen as a whole has none.
fn shown_line(mark: char, line: &[u8], is_whole: bool) -> String {
    match line.split_last() {
        Some((b'\n', line)) => format!("{mark}{}", shown_text(line)),
        _ if is_whole => format!("{mark}{} (no newline at the end)", shown_text(line)),
        _ => format!("{mark}{}", shown_text(line)),
    }
}

fn shown_text(line: &[u8]) -> String {
    shown_bytes(String::from_utf8_lossy(line).as_bytes())
}

/// Lines of both, those that differ marked; at most `lines_max`, none behind the last that differs.
fn unified([a, b]: [&[Option<Vec<u8>>]; 2], lines_max: usize, is_whole: bool) -> Vec<String> {
    let (mut at_a, mut at_b, mut lines, mut end) = (0, 0, Vec::new(), 0);
    let line = |mark, line: &Option<Vec<u8>>| shown_line(mark, line.as_deref().unwrap_or_default(), is_whole);
    for (same_a, same_b) in longest_shared(a, b).into_iter().chain([(a.len(), b.len())]) {
        lines.extend(a[at_a..same_a].iter().map(|one| line('-', one)));
        lines.extend(b[at_b..same_b].iter().map(|one| line('+', one)));
        if (at_a, at_b) != (same_a, same_b) {
            end = lines.len();
        }
        lines.extend(a.get(same_a).map(|one| line(' ', one)));
        (at_a, at_b) = (same_a + 1, same_b + 1);
    }
    lines.truncate(end.min(lines_max));
    lines
}
