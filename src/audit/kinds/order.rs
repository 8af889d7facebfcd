//! Why lines come in another order: what they are and how each side is sorted tells it.

use super::align::{Pair, Word};
use super::lines::Line;
use super::planted::is_varied;
use crate::audit::causes::{self, Cause};
use crate::audit::context::Context;
use crate::sandbox::surroundings::Dimension;

/// Fewer words in another order are a change of words.
const WORDS_MIN: usize = 2;

fn is_sorted_by<K: Ord>(lines: &[Line<'_>], key: impl Fn(&[u8]) -> K) -> bool {
    lines.windows(2).all(|two| key(two[0].bytes) <= key(two[1].bytes))
}

/// As languages sort: letters before their case, and other signs for nothing.
fn by_letters(line: &[u8]) -> Vec<u8> {
    line.iter().filter(|byte| byte.is_ascii_alphanumeric() || **byte >= 0x80).map(u8::to_ascii_lowercase).collect()
}

/// Whether most lines are names of files.
fn are_files(lines: &[Line<'_>]) -> bool {
    let is_file = |line: &&Line<'_>| {
        let text = line.bytes.trim_ascii();
        let has_no_space = !text.iter().any(|byte| byte.is_ascii_whitespace());
        let name = text.rsplit(|byte| *byte == b'/').next().unwrap_or(text);
        let extension = name.iter().rposition(|byte| *byte == b'.').map_or(0, |dot| name.len() - dot - 1);
        has_no_space && !text.is_empty() && ((1..=5).contains(&extension) || text.contains(&b'/'))
    };
    lines.iter().filter(is_file).count() * 5 >= lines.len() * 4
}

/// Whether most lines are variables of an environment.
fn are_variables(lines: &[Line<'_>]) -> bool {
    let is_variable = |line: &&Line<'_>| {
        let name =
            line.bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || **byte == b'_');
        let length = name.count();
        length > 0 && line.bytes.get(length) == Some(&b'=')
    };
    lines.iter().filter(is_variable).count() * 5 >= lines.len() * 4
}

/// Why two files have the same lines in another order, as far as the lines tell. Always a suspicion.
pub(super) fn cause_of(a: &[Line<'_>], b: &[Line<'_>], moved: &[Line<'_>], context: &Context) -> &'static Cause {
    // Two file systems list one directory in two orders.
    if context.alone == Some(Dimension::FileSystem) {
        return &causes::FILE_ORDER;
    }
    let (bytes_a, bytes_b) = (is_sorted_by(a, <[u8]>::to_vec), is_sorted_by(b, <[u8]>::to_vec));
    let (letters_a, letters_b) = (is_sorted_by(a, by_letters), is_sorted_by(b, by_letters));
    let is_plain = context.planted.is_empty() && context.alone.is_none();
    // One side as bytes sort; the other as a language does, or in an order that is nobody's where languages were varied.
    let by_language = (bytes_a && !bytes_b && letters_b) || (bytes_b && !bytes_a && letters_a);
    let perhaps = is_varied(context, Dimension::Locale) && bytes_a != bytes_b && !are_files(moved);
    if a.len() > 2 && (by_language || perhaps) {
        return &causes::LOCALE;
    }
    if are_variables(moved) {
        return &causes::ENVIRONMENT;
    }
    if are_files(moved) {
        return &causes::FILE_ORDER;
    }
    if is_plain {
        return &causes::RACE;
    }
    &causes::LINE_ORDER
}

/// Whether two lines have the same words in another order, as what is printed of a set.
pub(super) fn is_of_words(a: &[Word<'_>], b: &[Word<'_>], pairs: &[Pair]) -> bool {
    let says = |word: &&Word<'_>| word.bytes.iter().any(u8::is_ascii_alphanumeric);
    let sorted = |words: &[Word<'_>], of: fn(&Pair) -> std::ops::Range<usize>| {
        let all = pairs.iter().flat_map(|pair| &words[of(pair)]).filter(says);
        let mut all: Vec<Vec<u8>> = all.map(|word| word.bytes.to_vec()).collect();
        all.sort();
        all
    };
    let (a, b) = (sorted(a, |pair| pair.a.clone()), sorted(b, |pair| pair.b.clone()));
    // One word that moved past another is told as gone here and new there.
    !a.is_empty() && a == b && pairs.len() >= WORDS_MIN
}
