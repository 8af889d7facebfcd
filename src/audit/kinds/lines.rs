//! Compares two files line by line, or binary files string by string: pairs what belongs together, then explains each difference.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use super::align::{Pair, differing, words};
use super::gather::{Gathered, Reason, Stretch, quoted};
use super::order;
use super::planted::{Markers, Side};
use super::signatures::decimal_comma;
use super::span::explain;
use super::strings::{self, Leftovers};

/// Differing runs of bytes with fewer equal ones between them are one.
const RUN_GAP: usize = 6;
/// Lines that were moved; fewer are a change, not an order.
const MOVED_MIN: usize = 2;
/// A line of a binary file is no longer: what follows is the next.
const PIECE_BYTES_MAX: usize = 4096;

/// A line, or a string of a binary file, with its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'t> {
    pub bytes: &'t [u8],
    pub at: usize,
    /// Hash of it with its markers taken for those of the other side.
    pub key: u64,
}

impl PartialEq for Line<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key || self.bytes == other.bytes
    }
}

impl Eq for Line<'_> {}

fn line<'t>(markers: &Markers, side: Side, file: &'t [u8], at: Range<usize>) -> Line<'t> {
    let mut hasher = DefaultHasher::new();
    let (mut from, mut here) = (at.start, at.start);
    while here < at.end {
        if let Some(hit) = markers.at(side, &file[..at.end], here) {
            file[from..here].hash(&mut hasher);
            hit.rows.trailing_zeros().hash(&mut hasher);
            here += hit.bytes;
            from = here;
        } else {
            here += 1;
        }
    }
    file[from..at.end].hash(&mut hasher);
    Line { bytes: &file[at.clone()], at: at.start, key: hasher.finish() }
}

fn lines<'t>(markers: &Markers, side: Side, file: &'t [u8], is_text: bool) -> Vec<Line<'t>> {
    let mut lines = Vec::new();
    let mut from = 0;
    for (at, byte) in file.iter().enumerate() {
        if !is_text && *byte == 0 {
            // Zeros end strings and fill gaps; how many there are follows from what is between.
            if from < at {
                lines.push(line(markers, side, file, from..at));
            }
            from = at + 1;
        } else if *byte == b'\n' || (!is_text && at - from >= PIECE_BYTES_MAX) {
            lines.push(line(markers, side, file, from..at + 1));
            from = at + 1;
        }
    }
    if from < file.len() {
        lines.push(line(markers, side, file, from..file.len()));
    }
    lines
}

/// Compares two files of text.
pub(super) fn compare_text(all: &mut Gathered<'_>, members: &[String], a: &[u8], b: &[u8]) {
    compare(all, members, a, b, true);
}

/// Compares two files of anything else.
pub(super) fn compare_binary(all: &mut Gathered<'_>, members: &[String], a: &[u8], b: &[u8]) {
    if a.len() != b.len() {
        compare(all, members, a, b, false);
        return;
    }
    if let Some(stretch) = strings::reordered(all, a, b) {
        strings::add_order(all, members, &stretch);
        return;
    }
    for (at_a, at_b) in runs(a, b) {
        if all.is_full() {
            return;
        }
        let stretch = Stretch { a, at_a, b, at_b, is_text: false };
        let reason = explain(&stretch, all.context, all.markers);
        all.add(members, reason, &stretch);
    }
}

/// Runs of differing bytes of two files of one length.
fn runs<'t>(a: &'t [u8], b: &'t [u8]) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + use<'t> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += a[at..].iter().zip(&b[at..]).take_while(|(a, b)| a == b).count();
        let start = at;
        let mut end = at;
        while at < a.len() && at <= end + RUN_GAP {
            if a[at] != b[at] {
                end = at + 1;
            }
            at += 1;
        }
        at = at.max(end);
        if start < end { Some((start..end, start..end)) } else { None }
    })
}

fn compare(all: &mut Gathered<'_>, members: &[String], a: &[u8], b: &[u8], is_text: bool) {
    let lines_a = lines(all.markers, Side::A, a, is_text);
    let lines_b = lines(all.markers, Side::B, b, is_text);
    let pairs = differing(&lines_a, &lines_b, |line| line.key);
    let mut at = (0, 0);
    for pair in pairs.iter().chain([&Pair { a: lines_a.len()..lines_a.len(), b: lines_b.len()..lines_b.len() }]) {
        // What stands between two pairs is the same but for its markers.
        for (line_a, line_b) in lines_a[at.0..pair.a.start].iter().zip(&lines_b[at.1..pair.b.start]) {
            if line_a.bytes != line_b.bytes && !all.is_full() {
                within(all, members, (a, whole(line_a)), (b, whole(line_b)), is_text);
            }
        }
        at = (pair.a.end, pair.b.end);
    }
    if is_text {
        for pair in without_moved(all, members, (a, b), (&lines_a, &lines_b), pairs) {
            one_by_one(all, members, (a, &lines_a[pair.a]), (b, &lines_b[pair.b]), is_text);
        }
    } else {
        let mut left = Leftovers::default();
        pairs.into_iter().for_each(|pair| left.add(&lines_a[pair.a], &lines_b[pair.b]));
        left.settle(all, members, a, b);
    }
}

pub(super) fn whole(line: &Line<'_>) -> Range<usize> {
    line.at..line.at + line.bytes.len()
}

/// Takes lines out that both sides have in other places, and tells of their order instead.
fn without_moved(
    all: &mut Gathered<'_>,
    members: &[String],
    (a, b): (&[u8], &[u8]),
    (lines_a, lines_b): (&[Line<'_>], &[Line<'_>]),
    pairs: Vec<Pair>,
) -> Vec<Pair> {
    let says_something = |line: &Line<'_>| line.bytes.iter().any(u8::is_ascii_alphanumeric);
    let mut left: BTreeMap<u64, i64> = BTreeMap::new();
    for line in pairs.iter().flat_map(|pair| &lines_a[pair.a.clone()]).filter(|line| says_something(line)) {
        *left.entry(line.key).or_default() += 1;
    }
    let mut moved: BTreeMap<u64, i64> = BTreeMap::new();
    let mut in_order_b: Vec<Line<'_>> = Vec::new();
    for line in pairs.iter().flat_map(|pair| &lines_b[pair.b.clone()]) {
        if let Some(count) = left.get_mut(&line.key)
            && *count > 0
        {
            *count -= 1;
            *moved.entry(line.key).or_default() += 1;
            in_order_b.push(*line);
        }
    }
    // One line that moves past others is in no pair twice, but its neighbours are where they were.
    let moved_lines: i64 = moved.values().sum();
    let total: usize = pairs.iter().map(|pair| pair.a.len() + pair.b.len()).sum();
    if moved_lines == 0 || ((moved_lines as usize) < MOVED_MIN && total > 2) {
        return pairs;
    }
    let mut moved_b = moved.clone();
    let mut in_order_a: Vec<Line<'_>> = Vec::new();
    let mut rest = Vec::new();
    for pair in pairs {
        let (stays_a, gone_a) = without(lines_a, &pair.a, &mut moved);
        let (stays_b, _) = without(lines_b, &pair.b, &mut moved_b);
        in_order_a.extend(gone_a.into_iter().map(|at| lines_a[at]));
        split_pairs(&stays_a, &stays_b, &pair, &mut rest);
    }
    let (Some(first_a), Some(first_b)) = (in_order_a.first(), in_order_b.first()) else { return rest };
    let stretch = Stretch { a, at_a: whole(first_a), b, at_b: whole(first_b), is_text: true };
    // The whole files tell how they are sorted; what moved tells what it is.
    let cause = order::cause_of(lines_a, lines_b, &in_order_a, all.context);
    let what = match in_order_a.len() {
        1 => format!("a line in another place: `{}`", quoted(first_a.bytes.trim_ascii_end())),
        count => format!("{count} lines in another order, the first is `{}`", quoted(first_a.bytes.trim_ascii_end())),
    };
    let reason = Reason::suspected(cause, what, (stretch.at_a.clone(), stretch.at_b.clone()));
    all.add(members, reason, &stretch);
    rest
}

/// The lines of a range that stay, and those that were moved.
fn without(lines: &[Line<'_>], range: &Range<usize>, moved: &mut BTreeMap<u64, i64>) -> (Vec<usize>, Vec<usize>) {
    range.clone().partition(|at| match moved.get_mut(&lines[*at].key) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    })
}

/// What is left of a pair whose moved lines are gone, as pairs of lines that lie together on both sides.
fn split_pairs(stays_a: &[usize], stays_b: &[usize], pair: &Pair, rest: &mut Vec<Pair>) {
    for at in 0..stays_a.len().max(stays_b.len()) {
        let one =
            |stays: &[usize], range: &Range<usize>| stays.get(at).map_or(range.end..range.end, |line| *line..*line + 1);
        rest.push(Pair { a: one(stays_a, &pair.a), b: one(stays_b, &pair.b) });
    }
}

/// Compares lines that stand against each other: the first with the first, and what one side has more of with nothing.
pub(super) fn one_by_one(
    all: &mut Gathered<'_>,
    members: &[String],
    (a, lines_a): (&[u8], &[Line<'_>]),
    (b, lines_b): (&[u8], &[Line<'_>]),
    is_text: bool,
) {
    let end = |lines: &[Line<'_>], file: &[u8]| lines.last().map_or(file.len(), |line| line.at + line.bytes.len());
    for at in 0..lines_a.len().max(lines_b.len()) {
        if all.is_full() {
            return;
        }
        match (lines_a.get(at), lines_b.get(at)) {
            (Some(line_a), Some(line_b)) if line_a.bytes == line_b.bytes => {}
            (Some(line_a), Some(line_b)) => within(all, members, (a, whole(line_a)), (b, whole(line_b)), is_text),
            (line_a, line_b) => {
                let at_a = line_a.map_or_else(|| empty(end(lines_a, a)), whole);
                let at_b = line_b.map_or_else(|| empty(end(lines_b, b)), whole);
                let stretch = Stretch { a, at_a, b, at_b, is_text };
                let reason = explain(&stretch, all.context, all.markers);
                all.add(members, reason, &stretch);
            }
        }
    }
}

fn empty(at: usize) -> Range<usize> {
    at..at
}

/// Compares two lines word by word.
pub(super) fn within(
    all: &mut Gathered<'_>,
    members: &[String],
    (a, line_a): (&[u8], Range<usize>),
    (b, line_b): (&[u8], Range<usize>),
    is_text: bool,
) {
    let words_a = words(all.markers, Side::A, a, &line_a, is_text);
    let words_b = words(all.markers, Side::B, b, &line_b, is_text);
    let pairs = differing(&words_a, &words_b, |word| {
        let mut hasher = DefaultHasher::new();
        if word.rows == 0 {
            word.bytes.hash(&mut hasher)
        } else {
            word.rows.trailing_zeros().hash(&mut hasher)
        }
        hasher.finish()
    });
    if order::is_of_words(&words_a, &words_b, &pairs) {
        let stretch = Stretch { a, at_a: line_a, b, at_b: line_b, is_text };
        let what = format!(
            "the same words in another order: `{}` against `{}`",
            quoted(stretch.bytes().0),
            quoted(stretch.bytes().1)
        );
        let covers = (stretch.at_a.clone(), stretch.at_b.clone());
        all.add(members, Reason::suspected(&crate::audit::causes::HASH_SEED, what, covers), &stretch);
        return;
    }
    let mut at = (0, 0);
    let mut covered = (0, 0);
    for pair in pairs.iter().chain([&Pair { a: words_a.len()..words_a.len(), b: words_b.len()..words_b.len() }]) {
        for (word_a, word_b) in words_a[at.0..pair.a.start].iter().zip(&words_b[at.1..pair.b.start]) {
            if word_a.bytes != word_b.bytes
                && let Some(planted) = all.markers.row(word_a.rows & word_b.rows)
            {
                let at_a = word_a.at..word_a.at + word_a.bytes.len();
                let at_b = word_b.at..word_b.at + word_b.bytes.len();
                let reason = Reason::of_marker(planted, (at_a.clone(), at_b.clone()));
                all.add(members, reason, &Stretch { a, at_a, b, at_b, is_text });
            }
        }
        at = (pair.a.end, pair.b.end);
        if pair.a.is_empty() && pair.b.is_empty() {
            continue;
        }
        let place = |words: &[super::align::Word<'_>], range: &Range<usize>, end: usize| {
            let start = words.get(range.start).map_or(end, |word| word.at);
            let last = words[range.clone()].last();
            start..last.map_or(start, |word| word.at + word.bytes.len())
        };
        let at_a = place(&words_a, &pair.a, line_a.end);
        let at_b = place(&words_b, &pair.b, line_b.end);
        let is_covered = at_a.end <= covered.0 && at_b.end <= covered.1;
        if is_covered || all.is_full() {
            continue;
        }
        let stretch = Stretch { a, at_a, b, at_b, is_text };
        let reason = decimal_comma(&stretch).unwrap_or_else(|| explain(&stretch, all.context, all.markers));
        covered = (reason.covers.end, reason.covers_b.end);
        all.add(members, reason, &stretch);
    }
}
