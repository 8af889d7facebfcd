//! Documents of images (JSON): which values differ, and whether anything else does. Knows no images.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::audit::causes::{self, Cause};
use crate::audit::compare::verdict::Cost;
use crate::audit::compare::walk::{Told, Walk, planted, within};
use crate::audit::model::{Certainty, Site};

/// How alike documents must be written, but for the values in them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// Piece by piece.
    Same,
    /// In the same pieces, in whatever order: parts of one of them stand in another order, which was told.
    Sorted,
    /// In any way: one of them has parts that the other has not, which was told.
    Any,
}

/// What is done with values by their paths.
pub(super) struct Rules<'r> {
    /// Whether what is there was compared in another way.
    pub(super) skip: &'r dyn Fn(&str) -> bool,
    /// Why a value differs, and what that costs.
    pub(super) cause: fn(&str) -> (&'static Cause, Cost),
    /// How alike they must be written.
    pub(super) written: Written,
}

/// Bytes of a document.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Compares two documents; `false` if one of them is none.
pub(super) fn compare(walk: &mut Walk<'_>, site: &Site, a: &[u8], b: &[u8], rules: &Rules<'_>) -> bool {
    if a.len().max(b.len()) > DOCUMENT_BYTES_MAX {
        return false;
    }
    let (Ok(first), Ok(second)) = (serde_json::from_slice::<Value>(a), serde_json::from_slice::<Value>(b)) else {
        return false;
    };
    let has_all = values(walk, site, "$", &first, &second, rules);
    let (mut tokens_a, mut tokens_b) = (tokens(a), tokens(b));
    match rules.written {
        Written::Same => {}
        Written::Any => return true,
        Written::Sorted => {
            for tokens in [&mut tokens_a, &mut tokens_b] {
                tokens.retain(|(is_scalar, _)| !is_scalar);
                tokens.sort_unstable();
            }
        }
    }
    let same = |(x, y): (&&[u8], &&[u8])| {
        let value = |token: &[u8]| serde_json::from_slice::<Value>(token).ok();
        x == y || value(x).is_some_and(|x| Some(x) != value(y))
    };
    let is_written_alike = tokens_a.len() == tokens_b.len()
        && tokens_a
            .iter()
            .zip(&tokens_b)
            .all(|((is_scalar, x), (other, y))| is_scalar == other && if *is_scalar { same((x, y)) } else { x == y });
    if has_all && !is_written_alike {
        let what = "written otherwise: the order of keys, white space, or how values are written".to_owned();
        walk.push(site, Told::proven(what, &causes::IMAGE_CONFIG, Cost::Real));
    }
    true
}

/// Compares two values; whether both have the same paths, as far as they were compared.
pub(super) fn values(walk: &mut Walk<'_>, site: &Site, path: &str, a: &Value, b: &Value, rules: &Rules<'_>) -> bool {
    let mut sides: BTreeMap<String, [Option<&Value>; 2]> = BTreeMap::new();
    for (side, value) in [a, b].into_iter().enumerate() {
        let mut room = PATHS_BYTES_MAX;
        flatten(value, path.to_owned(), &mut room, &mut |path, value| {
            sides.entry(path).or_default()[side] = Some(value);
        });
        if room == 0 {
            walk.over(site, "paths in it are too long");
            return false;
        }
    }
    let (mut follows, mut digests): (BTreeSet<usize>, BTreeMap<String, Vec<usize>>) = Default::default();
    let mut has_all = true;
    let differing = sides.into_iter().filter(|(path, [first, second])| first != second && !(rules.skip)(path));
    let mut rest = Vec::new();
    for (path, both) in differing {
        has_all &= both.iter().all(Option::is_some);
        if let [Some(Value::String(first)), Some(Value::String(second))] = both {
            let hex = |text: &str| text.rsplit(':').next().unwrap_or_default().to_owned();
            let is_alike = first.split(':').next() == second.split(':').next() || !first.contains(':');
            let pairs = walk.known.of_digests(&hex(first), &hex(second));
            if is_alike && !pairs.is_empty() {
                follows.extend(&pairs);
                digests.insert(parent(&path).to_owned(), pairs);
                continue;
            }
        }
        rest.push((path, both));
    }
    for (path, both) in rest {
        if let [Some(Value::Number(first)), Some(Value::Number(second))] = &both
            && path.ends_with(".size")
            && let (Some(first), Some(second)) = (first.as_u64(), second.as_u64())
            && digests.get(parent(&path)).is_some_and(|pairs| walk.known.are_sizes(pairs, first, second))
        {
            continue;
        }
        let (cause, cost) = (rules.cause)(&path);
        let shown = both.map(|value| match value {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => "none".into(),
        });
        let dimension = planted(walk.context, &shown[0], &shown[1]);
        let what = format!("`{}` on the first side, `{}` on the second", cut(&shown[0]), cut(&shown[1]));
        let told = Told { dimension, certainty: Certainty::Proven, ..Told::proven(what, cause, cost) };
        walk.push(&within(site, &path), told);
    }
    if !follows.is_empty() {
        walk.follow(site, "digests of parts that differ".into(), None, follows.into_iter().collect());
    }
    has_all
}

/// Bytes of all paths in a document.
const PATHS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most characters of a value that are told.
const SHOWN_CHARS_MAX: usize = 120;

fn cut(text: &str) -> &str {
    text.char_indices().nth(SHOWN_CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

fn parent(path: &str) -> &str {
    path.rfind(['.', '[']).map_or("", |end| &path[..end])
}

/// Gives every value that holds no others, with its path. Ends when there is no more room for paths.
fn flatten<'v>(value: &'v Value, path: String, room: &mut usize, give: &mut impl FnMut(String, &'v Value)) {
    *room = room.saturating_sub(path.len());
    if *room == 0 {
        return;
    }
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                flatten(value, format!("{path}.{key}"), room, give);
            }
        }
        Value::Array(values) if !values.is_empty() => {
            for (position, value) in values.iter().enumerate() {
                flatten(value, format!("{path}[{position}]"), room, give);
            }
        }
        _ => give(path, value),
    }
}

/// A document that was parsed, in pieces: values that hold no others (`true`), and all that stands between them, keys included.
fn tokens(bytes: &[u8]) -> Vec<(bool, &[u8])> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let from = at;
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(bytes.len());
                let after = bytes[at..].iter().find(|byte| !byte.is_ascii_whitespace());
                tokens.push((after != Some(&b':'), &bytes[from..at]));
            }
            b'-' | b'0'..=b'9' | b'a'..=b'z' => {
                let is_in = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
                at += bytes[at..].iter().take_while(|byte| is_in(byte)).count();
                tokens.push((true, &bytes[from..at]));
            }
            _ => {
                at += 1;
                tokens.push((false, &bytes[from..at]));
            }
        }
    }
    tokens
}
