//! Which of the files that are on one side only are the same under another name. Tells no causes.

use std::collections::BTreeMap;

use crate::base::digest::Digest;

/// A file that is on one side only.
pub(super) struct Single {
    /// Its path.
    pub(super) name: String,
    /// Digest of its content; `None` if it has none to speak of.
    pub(super) content: Option<Digest>,
}

/// Pairs of positions: first those of the same content, then those whose paths are the same but for parts that have digits in them,
/// where there is one of these on each side.
pub(super) fn renamed(a: &[Single], b: &[Single]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let mut left = [vec![true; a.len()], vec![true; b.len()]];
    let contents = [a, b].map(|side| grouped(side, |single| single.content));
    for (content, first) in &contents[0] {
        for (x, y) in first.iter().zip(contents[1].get(content).into_iter().flatten()) {
            pairs.push((*x, *y));
            (left[0][*x], left[1][*y]) = (false, false);
        }
    }
    let shapes = [grouped(a, |single| Some(shape(&single.name))), grouped(b, |single| Some(shape(&single.name)))];
    for (shape, first) in &shapes[0] {
        let second = shapes[1].get(shape).map_or(&[][..], Vec::as_slice);
        let rest = |side: usize, all: &[usize]| all.iter().filter(|at| left[side][**at]).copied().collect::<Vec<_>>();
        if let ([x], [y]) = (rest(0, first).as_slice(), rest(1, second).as_slice()) {
            pairs.push((*x, *y));
        }
    }
    pairs.sort_unstable();
    pairs
}

fn grouped<K: Ord>(side: &[Single], key: impl Fn(&Single) -> Option<K>) -> BTreeMap<K, Vec<usize>> {
    let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (position, single) in side.iter().enumerate() {
        if let Some(key) = key(single) {
            groups.entry(key).or_default().push(position);
        }
    }
    groups
}

/// A path with each word that has a digit in it replaced.
fn shape(name: &str) -> String {
    let words = name.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let cut = |word: &str| {
        let end = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
        if word.bytes().any(|byte| byte.is_ascii_digit()) { format!("#{}", &word[end..]) } else { word.to_owned() }
    };
    words.map(cut).collect()
}
