//! Strings of binary files: those that moved, those that belong together though they lie in other places, and their order.

use std::collections::BTreeMap;

use super::align::{differing, words};
use super::gather::{Gathered, Reason, Stretch, quoted};
use super::lines::{Line, one_by_one, whole, within};
use super::order;
use super::planted::Side;
use crate::audit::causes;

/// A larger stretch is not looked through for words in another order.
const REORDERED_BYTES_MAX: usize = 64 << 10;
/// Shorter words in another order say nothing.
const REORDERED_WORDS_BYTES_MIN: usize = 4;
/// A shorter end of a path belongs to many.
const TAIL_BYTES_MIN: usize = 3;

/// Where two binary files of one length have the same words in another order, if that is all.
pub(super) fn reordered<'t>(all: &Gathered<'_>, a: &'t [u8], b: &'t [u8]) -> Option<Stretch<'t>> {
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let same_end = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let start = start - a[..start].iter().rev().take_while(|byte| is_of_word(byte)).count();
    let end = a.len() - same_end;
    let end = end + a[end..].iter().take_while(|byte| is_of_word(byte)).count();
    if start >= end || end - start > REORDERED_BYTES_MAX {
        return None;
    }
    let at = start..end;
    let (words_a, words_b) = (words(all.markers, Side::A, a, &at, false), words(all.markers, Side::B, b, &at, false));
    let pairs = differing(&words_a, &words_b, |word| {
        word.bytes.iter().fold(0, |sum, byte| (sum * 31 + u64::from(*byte)) & 0xff_ffff)
    });
    let moved: usize = pairs
        .iter()
        .flat_map(|pair| &words_a[pair.a.clone()])
        .filter(|word| is_of_word(&word.bytes[0]))
        .map(|word| word.bytes.len())
        .sum();
    let is_one = moved >= REORDERED_WORDS_BYTES_MIN && order::is_of_words(&words_a, &words_b, &pairs);
    is_one.then(|| Stretch { a, at_a: at.clone(), b, at_b: at, is_text: false })
}

/// Tells of words or strings in another order.
pub(super) fn add_order(all: &mut Gathered<'_>, members: &[String], stretch: &Stretch<'_>) {
    let (a, b) = stretch.bytes();
    let what = format!("the same strings in another order: `{}` against `{}`", quoted(a), quoted(b));
    let covers = (stretch.at_a.clone(), stretch.at_b.clone());
    // Symbols and their strings come in the order in which files were linked.
    let is_linked = members.last().is_some_and(|name| name.ends_with("strtab") || name.starts_with(".debug"));
    let cause = if is_linked { &causes::FILE_ORDER } else { &causes::HASH_SEED };
    all.add(members, Reason::suspected(cause, what, covers), stretch);
}

/// Strings that stand in no place of the other side.
#[derive(Default)]
pub(super) struct Leftovers<'t> {
    a: Vec<Line<'t>>,
    b: Vec<Line<'t>>,
}

/// What follows the last slash, with a hash in place of what it is the end of.
fn tail(line: &Line<'_>) -> Option<Vec<u8>> {
    let slash = line.bytes.iter().rposition(|byte| *byte == b'/')?;
    let tail = &line.bytes[slash..];
    (tail.len() > TAIL_BYTES_MIN).then(|| tail.to_vec())
}

/// Takes those pairs out of both that have the same key, in their order.
fn matched<'t, K: Ord>(
    a: &mut Vec<Line<'t>>,
    b: &mut Vec<Line<'t>>,
    key: impl Fn(&Line<'t>) -> Option<K>,
) -> Vec<(Line<'t>, Line<'t>)> {
    let mut places: BTreeMap<K, std::collections::VecDeque<usize>> = BTreeMap::new();
    for (at, line) in b.iter().enumerate() {
        if let Some(key) = key(line) {
            places.entry(key).or_default().push_back(at);
        }
    }
    let mut pairs = Vec::new();
    let mut taken = vec![false; b.len()];
    a.retain(|line| {
        let place = key(line).and_then(|key| places.get_mut(&key)?.pop_front());
        if let Some(place) = place {
            taken[place] = true;
            pairs.push((*line, b[place]));
        }
        place.is_none()
    });
    let mut at = 0;
    b.retain(|_| {
        at += 1;
        !taken[at - 1]
    });
    pairs
}

impl<'t> Leftovers<'t> {
    pub fn add(&mut self, a: &[Line<'t>], b: &[Line<'t>]) {
        self.a.extend_from_slice(a);
        self.b.extend_from_slice(b);
    }

    /// Pairs what belongs together: the same string, then paths of one end, then the first with the first.
    pub fn settle(mut self, all: &mut Gathered<'_>, members: &[String], a: &'t [u8], b: &'t [u8]) {
        let same = matched(&mut self.a, &mut self.b, |line| Some(line.key));
        for (line_a, line_b) in same.iter().filter(|(line_a, line_b)| line_a.bytes != line_b.bytes) {
            within(all, members, (a, whole(line_a)), (b, whole(line_b)), false);
        }
        for (line_a, line_b) in matched(&mut self.a, &mut self.b, tail) {
            within(all, members, (a, whole(&line_a)), (b, whole(&line_b)), false);
        }
        let moved = same.iter().find(|(line_a, line_b)| line_a.bytes == line_b.bytes);
        if let Some((line_a, line_b)) = moved
            && self.a.is_empty()
            && self.b.is_empty()
            && all.is_empty()
        {
            add_order(all, members, &Stretch { a, at_a: whole(line_a), b, at_b: whole(line_b), is_text: false });
        }
        one_by_one(all, members, (a, &self.a), (b, &self.b), false);
    }
}
