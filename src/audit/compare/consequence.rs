//! What follows from what: files that hold digests of other files that differ. Believes a digest only where it is the file's.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::causes::UNKNOWN;
use crate::audit::compare::digests;
use crate::audit::compare::walk::{Found, Side};
use crate::audit::model::Site;

/// Most pairs whose digests are known; what holds digests of others is compared byte by byte.
const PAIRS_MAX: usize = 20_000;

/// Pairs of contents that differ, with the digests of each side.
#[derive(Default)]
pub(super) struct Known {
    pairs: Vec<Pair>,
    /// By how a digest is written: which kind it is, and which contents have it.
    spelled: [BTreeMap<String, (u8, Vec<usize>)>; 2],
}

struct Pair {
    site: Site,
    sizes: [usize; 2],
    crc: [u32; 2],
}

impl Known {
    /// Adds a pair. Cost: digests both contents four times.
    pub(super) fn add(&mut self, site: &Site, a: &[u8], b: &[u8]) {
        let position = self.pairs.len();
        if position >= PAIRS_MAX {
            return;
        }
        for (side, bytes) in [a, b].into_iter().enumerate() {
            for (algorithm, digest) in digests::of(bytes).iter().enumerate() {
                for (spelling, text) in digests::spellings(digest).into_iter().enumerate() {
                    // A text without `+` and `/` is the same in both alphabets of base64.
                    let kind = (algorithm * 2 + spelling.min(1)) as u8;
                    let (_, pairs) = self.spelled[side].entry(text).or_insert((kind, Vec::new()));
                    if pairs.last() != Some(&position) {
                        pairs.push(position);
                    }
                }
            }
        }
        let crc = [a, b].map(|bytes| {
            let mut crc = flate2::Crc::new();
            crc.update(bytes);
            crc.sum()
        });
        self.pairs.push(Pair { site: site.clone(), sizes: [a.len(), b.len()], crc });
    }

    /// The pairs whose digest a text is on each side; empty if it is not, or another kind of digest.
    pub(super) fn of_digests(&self, a: &str, b: &str) -> Vec<usize> {
        let (Some((kind, first)), Some((other, second))) =
            (self.spelled[0].get(&lower(a)), self.spelled[1].get(&lower(b)))
        else {
            return Vec::new();
        };
        let both = first.iter().filter(|position| kind == other && second.binary_search(position).is_ok());
        both.copied().collect()
    }

    /// Whether these are the lengths of the two contents of one of the pairs.
    pub(super) fn are_sizes(&self, pairs: &[usize], a: u64, b: u64) -> bool {
        pairs.iter().any(|at| self.pairs[*at].sizes.map(|size| size as u64) == [a, b])
    }

    /// The pair of a place.
    pub(super) fn at(&self, site: &Site) -> Option<usize> {
        self.pairs.iter().rposition(|pair| pair.site == *site)
    }
}

/// Hexadecimal digits in lower case; base64 as it is.
fn lower(text: &str) -> String {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { text.to_ascii_lowercase() } else { text.to_owned() }
}

/// Lengths of digests: in hexadecimal digits, and in base64 without what fills it up.
const HEX_LENGTHS: [usize; 4] = [32, 40, 64, 128];
const BASE64_LENGTHS: [usize; 4] = [22, 27, 43, 86];
/// How apk marks SHA-1 in base64.
const APK_MARK: &[u8] = b"Q1";

/// The runs of a text that may be digests, in order.
fn runs(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut runs = Vec::new();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'_' | b'-');
    let mut at = 0;
    while at < bytes.len() {
        if !is_word(bytes[at]) {
            at += 1;
            continue;
        }
        let end = bytes[at..].iter().position(|byte| !is_word(*byte)).map_or(bytes.len(), |length| at + length);
        if BASE64_LENGTHS.contains(&(end - at)) {
            runs.push((at, end));
        } else if bytes[at..].starts_with(APK_MARK) && end - at == APK_MARK.len() + BASE64_LENGTHS[1] {
            runs.push((at + APK_MARK.len(), end));
        } else {
            hex_runs(bytes, at, end, &mut runs);
        }
        at = end;
    }
    runs
}

fn hex_runs(bytes: &[u8], from: usize, to: usize, runs: &mut Vec<(usize, usize)>) {
    let mut at = from;
    for word in bytes[from..to].split(|byte| !byte.is_ascii_alphanumeric()) {
        let is_hex = word.iter().all(u8::is_ascii_hexdigit);
        if is_hex && HEX_LENGTHS.contains(&word.len()) {
            runs.push((at, at + word.len()));
        }
        at += word.len() + 1;
    }
}

/// Whether there is anything in it that may be a digest.
pub(super) fn may_list(bytes: &[u8]) -> bool {
    !runs(bytes).is_empty()
}

/// A run of bytes, from and to; and one of each side that are digests of these pairs.
type Run = (usize, usize);
type Match = (Run, Run, Vec<usize>);

/// The runs of both sides that are digests of pairs, if both have as many runs: ranges with the pairs.
fn matches(known: &Known, a: &[u8], b: &[u8]) -> Vec<Match> {
    let (first, second) = (runs(a), runs(b));
    if first.len() != second.len() {
        return Vec::new();
    }
    let word = |bytes: &[u8], (from, to): (usize, usize)| String::from_utf8_lossy(&bytes[from..to]).into_owned();
    let both = first.into_iter().zip(second);
    both.filter_map(|(first, second)| {
        let pairs = known.of_digests(&word(a, first), &word(b, second));
        (!pairs.is_empty()).then_some((first, second, pairs))
    })
    .collect()
}

/// The pairs that two contents follow from: without the digests of these, and their sizes in the same lines, both are the same.
pub(super) fn explain(known: &Known, a: &[u8], b: &[u8]) -> Option<Vec<usize>> {
    let matches = matches(known, a, b);
    let (mut at, mut pairs): ([usize; 2], BTreeSet<usize>) = ([0; 2], BTreeSet::new());
    let mut last: &[usize] = &[];
    for (first, second, found) in &matches {
        if !gap_is_same(known, last, &a[at[0]..first.0], &b[at[1]..second.0]) {
            return None;
        }
        at = [first.1, second.1];
        pairs.extend(found);
        last = found;
    }
    let is_same = !matches.is_empty() && gap_is_same(known, last, &a[at[0]..], &b[at[1]..]);
    is_same.then(|| pairs.into_iter().collect())
}

/// Whether what stands between two digests is the same, but for the size of the file whose digest stands before in the line.
fn gap_is_same(known: &Known, pairs: &[usize], a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let line = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (first, second) = (&a[..line(a)], &b[..line(b)]);
    if a[first.len()..] != b[second.len()..] {
        return false;
    }
    let words = |line: &[u8]| -> Vec<Vec<u8>> {
        line.chunk_by(|x, y| x.is_ascii_digit() == y.is_ascii_digit()).map(<[u8]>::to_vec).collect()
    };
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<u64>().ok();
    let (first, second) = (words(first), words(second));
    first.len() == second.len()
        && first.iter().zip(&second).all(|(x, y)| {
            x == y || matches!((number(x), number(y)), (Some(x), Some(y)) if known.are_sizes(pairs, x, y))
        })
}

/// The second content with the digests of the first in place of its own, where they are digests of the same pair: what else differs
/// is then what is left.
pub(super) fn with_digests_of_a(known: &Known, a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut with = b.to_vec();
    for (first, second, _) in matches(known, a, b) {
        if first.1 - first.0 == second.1 - second.0 {
            with[second.0..second.1].copy_from_slice(&a[first.0..first.1]);
        }
    }
    with
}

/// Sections of ELF files that are made of the rest of the file, or of another one.
const BUILD_ID: &str = ".note.gnu.build-id";
const DEBUG_LINK: &str = ".gnu_debuglink";

/// Sets, in what is sorted by site, what follows from what.
pub(super) fn settle(known: &Known, found: &mut [Found]) {
    for position in 0..found.len() {
        let (difference, last) = (&found[position].difference, found[position].difference.site.members.last());
        let pairs = match last.map(String::as_str) {
            Some(BUILD_ID) => {
                let elf = Site {
                    members: difference.site.members[..difference.site.members.len() - 1].to_vec(),
                    ..difference.site.clone()
                };
                let other = |other: &&Found| {
                    is_below(&elf, &other.difference.site)
                        && ![BUILD_ID, DEBUG_LINK]
                            .map(Some)
                            .contains(&other.difference.site.members.last().map(String::as_str))
                };
                if found.iter().any(|one| other(&one)) { known.at(&elf).into_iter().collect() } else { Vec::new() }
            }
            Some(DEBUG_LINK) => debug_file(known, found, position).into_iter().collect(),
            _ => continue,
        };
        found[position].follows = pairs;
    }
    let roots: Vec<Option<usize>> =
        (0..found.len()).map(|position| root(known, found, position, &mut BTreeSet::new())).collect();
    for (position, root) in roots.into_iter().enumerate() {
        if found[position].follows.is_empty() {
            continue;
        }
        let fallback = known.pairs[found[position].follows[0]].site.clone();
        let root = root.filter(|root| *root != position).map(|root| &found[root].difference);
        let (site, cause, certainty) = match root {
            Some(root) => (root.site.clone(), root.cause, root.certainty),
            None => (fallback, &UNKNOWN, found[position].difference.certainty),
        };
        let difference = &mut found[position].difference;
        difference.consequence_of = Some(site);
        difference.cause = cause;
        difference.certainty = certainty;
    }
}

/// The pair whose checksums a debug link holds on both sides.
fn debug_file(known: &Known, found: &[Found], position: usize) -> Option<usize> {
    let evidence = found[position].difference.evidence.as_ref()?;
    let holds = |bytes: &[u8], crc: u32| {
        [crc.to_le_bytes(), crc.to_be_bytes()].iter().any(|crc| bytes.windows(4).any(|four| four == crc))
    };
    let sides: [Side; 2] = [0, 1];
    known.pairs.iter().position(|pair| {
        let bytes = [&evidence.a, &evidence.b];
        sides.iter().all(|side| holds(bytes[*side], pair.crc[*side]))
    })
}

/// The first difference that a difference follows from and that follows from nothing itself.
fn root(known: &Known, found: &[Found], position: usize, seen: &mut BTreeSet<usize>) -> Option<usize> {
    if found[position].follows.is_empty() {
        return Some(position);
    }
    if !seen.insert(position) {
        return None;
    }
    let below = |pair: &usize| {
        let site = &known.pairs[*pair].site;
        let from = found.partition_point(|other| other.difference.site < *site);
        (from..found.len()).take_while(|at| is_below(site, &found[*at].difference.site)).collect::<Vec<_>>()
    };
    let candidates: Vec<usize> = found[position].follows.iter().flat_map(below).collect();
    let own = candidates.iter().find(|at| found[**at].follows.is_empty()).copied();
    own.or_else(|| candidates.iter().find_map(|at| root(known, found, *at, seen)))
}

/// Whether a place is within another one, or the same.
fn is_below(outer: &Site, inner: &Site) -> bool {
    outer.file == inner.file && inner.members.starts_with(&outer.members)
}
