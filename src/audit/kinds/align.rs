//! Which lines of two files belong together, and which words of two lines. Linear in the size of both but for small middles.

use std::collections::HashMap;
use std::ops::Range;

use super::planted::{Markers, Side};

/// Most cells of a table that compares each with each.
const CELLS_MAX: usize = 1 << 18;

/// Two stretches that stand in each other's place; at most one of them is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pair {
    pub a: Range<usize>,
    pub b: Range<usize>,
}

/// Where two sequences differ, in order.
///
/// What both begin and end with is passed over; what each has once and both have holds the rest together; small gaps are compared each
/// with each, large ones stand against each other whole.
pub(super) fn differing<T: Eq>(a: &[T], b: &[T], key: impl Fn(&T) -> u64) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let end = a[start..].iter().rev().zip(b[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (middle_a, middle_b) = (start..a.len() - end, start..b.len() - end);
    if middle_a.len().saturating_mul(middle_b.len()) <= CELLS_MAX {
        by_table(a, b, &middle_a, &middle_b, &mut pairs);
        return pairs;
    }
    let (mut at_a, mut at_b) = (start, start);
    for (next_a, next_b) in anchors(a, b, &middle_a, &middle_b, key).into_iter().chain([(middle_a.end, middle_b.end)]) {
        gap(a, b, &(at_a..next_a), &(at_b..next_b), &mut pairs);
        (at_a, at_b) = (next_a + 1, next_b + 1);
    }
    pairs
}

fn gap<T: Eq>(a: &[T], b: &[T], gap_a: &Range<usize>, gap_b: &Range<usize>, pairs: &mut Vec<Pair>) {
    if gap_a.len().saturating_mul(gap_b.len()) <= CELLS_MAX / 64 {
        by_table(a, b, gap_a, gap_b, pairs);
    } else if gap_a.len() == gap_b.len() {
        let mut from = None;
        for (at, (at_a, at_b)) in gap_a.clone().zip(gap_b.clone()).enumerate() {
            if a[at_a] == b[at_b] {
                close(&mut from, at, gap_a.start, gap_b.start, pairs);
            } else if from.is_none() {
                from = Some(at);
            }
        }
        close(&mut from, gap_a.len(), gap_a.start, gap_b.start, pairs);
    } else {
        pairs.push(Pair { a: gap_a.clone(), b: gap_b.clone() });
    }
}

fn close(from: &mut Option<usize>, to: usize, start_a: usize, start_b: usize, pairs: &mut Vec<Pair>) {
    if let Some(from) = from.take() {
        pairs.push(Pair { a: start_a + from..start_a + to, b: start_b + from..start_b + to });
    }
}

/// Elements that each side has once, as far as they come in the same order.
fn anchors<T: Eq>(
    a: &[T],
    b: &[T],
    middle_a: &Range<usize>,
    middle_b: &Range<usize>,
    key: impl Fn(&T) -> u64,
) -> Vec<(usize, usize)> {
    const TWICE: usize = usize::MAX;
    let once = |all: &[T], range: &Range<usize>| {
        let mut places: HashMap<u64, usize> = HashMap::with_capacity(range.len());
        for at in range.clone() {
            places.entry(key(&all[at])).and_modify(|place| *place = TWICE).or_insert(at);
        }
        places
    };
    let (once_a, once_b) = (once(a, middle_a), once(b, middle_b));
    let shared = middle_a.clone().filter_map(|at_a| {
        let key = key(&a[at_a]);
        (once_a.get(&key) == Some(&at_a)).then_some(())?;
        let at_b = *once_b.get(&key)?;
        (at_b != TWICE && a[at_a] == b[at_b]).then_some((at_a, at_b))
    });
    longest_rising(&shared.collect::<Vec<_>>())
}

/// The longest part of pairs, sorted by their first, whose seconds rise.
fn longest_rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut ends: Vec<usize> = Vec::new();
    let mut before = vec![usize::MAX; pairs.len()];
    for (at, pair) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].1 < pair.1);
        if length > 0 {
            before[at] = ends[length - 1];
        }
        if length == ends.len() {
            ends.push(at);
        } else {
            ends[length] = at;
        }
    }
    let mut rising = Vec::with_capacity(ends.len());
    let mut at = ends.last().copied();
    while let Some(here) = at {
        rising.push(pairs[here]);
        at = Some(before[here]).filter(|before| *before != usize::MAX);
    }
    rising.reverse();
    rising
}

/// The longest common subsequence of two small ranges; what is not in it differs.
fn by_table<T: Eq>(a: &[T], b: &[T], range_a: &Range<usize>, range_b: &Range<usize>, pairs: &mut Vec<Pair>) {
    let (rows, columns) = (range_a.len(), range_b.len());
    if rows == 0 && columns == 0 {
        return;
    }
    let width = columns + 1;
    let mut lengths = vec![0_u32; (rows + 1) * width];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            lengths[row * width + column] = if a[range_a.start + row] == b[range_b.start + column] {
                lengths[(row + 1) * width + column + 1] + 1
            } else {
                lengths[(row + 1) * width + column].max(lengths[row * width + column + 1])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    let (mut from_row, mut from_column) = (0, 0);
    let mut push = |rows: Range<usize>, columns: Range<usize>| {
        if !rows.is_empty() || !columns.is_empty() {
            let (a, b) = (range_a.start, range_b.start);
            pairs.push(Pair { a: a + rows.start..a + rows.end, b: b + columns.start..b + columns.end });
        }
    };
    while row < rows && column < columns {
        if a[range_a.start + row] == b[range_b.start + column] {
            push(from_row..row, from_column..column);
            (row, column) = (row + 1, column + 1);
            (from_row, from_column) = (row, column);
        } else if lengths[(row + 1) * width + column] >= lengths[row * width + column + 1] {
            row += 1;
        } else {
            column += 1;
        }
    }
    push(from_row..rows, from_column..columns);
}

/// A word of a line: letters and digits, one other byte, or a marker.
#[derive(Clone, Debug)]
pub(super) struct Word<'t> {
    pub bytes: &'t [u8],
    /// Where it begins in the file.
    pub at: usize,
    /// Rows of the markers it is.
    pub rows: u64,
}

impl PartialEq for Word<'_> {
    /// A marker is the same as what was planted in its place.
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes || self.rows & other.rows != 0
    }
}

impl Eq for Word<'_> {}

/// The words of a stretch of a file. In text, bytes beyond ASCII are letters.
pub(super) fn words<'t>(
    markers: &Markers,
    side: Side,
    file: &'t [u8],
    stretch: &Range<usize>,
    is_text: bool,
) -> Vec<Word<'t>> {
    let mut words = Vec::new();
    let mut at = stretch.start;
    while at < stretch.end {
        let hit = markers.at(side, &file[..stretch.end], at);
        let end = match hit {
            Some(hit) => at + hit.bytes,
            None => {
                let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (is_text && byte >= 0x80);
                let mut end = at + 1;
                if is_of_word(file[at]) {
                    while end < stretch.end
                        && is_of_word(file[end])
                        && markers.at(side, &file[..stretch.end], end).is_none()
                    {
                        end += 1;
                    }
                }
                end
            }
        };
        words.push(Word { bytes: &file[at..end], at, rows: hit.map_or(0, |hit| hit.rows) });
        at = end;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(a: &str, b: &str, expect: &[(&str, &str)]) {
        let (a, b) = (a.as_bytes(), b.as_bytes());
        let pairs = differing(a, b, |byte| u64::from(*byte));
        let told: Vec<_> = pairs.iter().map(|pair| (&a[pair.a.clone()], &b[pair.b.clone()])).collect();
        assert_eq!(told, expect.iter().map(|(a, b)| (a.as_bytes(), b.as_bytes())).collect::<Vec<_>>());
    }

    #[test]
    fn what_differs_stands_between_what_does_not() {
        check("same", "same", &[]);
        check("abXcd", "abYYcd", &[("X", "YY")]);
        check("XabcdefZ", "abcdef", &[("X", ""), ("Z", "")]);
        check("", "new", &[("", "new")]);
    }

    #[test]
    fn large_middles_are_held_together_by_what_is_there_once() {
        let a: Vec<u64> = (0..4000).collect();
        let mut b = a.clone();
        b.remove(10);
        b.insert(2000, 9_999_999);
        let last = b.len() - 1;
        b[0] = 7_777_777;
        b[last] = 8_888_888;
        let pairs = differing(&a, &b, |number| *number);
        assert_eq!(pairs.len(), 4, "{pairs:?}");
    }
}
