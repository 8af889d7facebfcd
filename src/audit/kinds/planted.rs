//! Markers that were planted in the two builds: finds them again in outputs, as they are and in the forms in which tools write them.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::audit::context::{Context, Planted};
use crate::sandbox::surroundings::Dimension;

/// Which of the two builds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    A,
    B,
}

/// Most markers that are looked for; more than one for each dimension, and a set of them is one word.
const ROWS_MAX: usize = 64;
/// A pair of which both are shorter says nothing.
const MARKER_BYTES_MIN: usize = 3;
/// A shorter one must stand alone, and is looked for only as it is.
const LONG_BYTES_MIN: usize = 6;
/// A longer one is not looked for.
const MARKER_BYTES_MAX: usize = 4096;
/// Most bytes of a stretch that are searched.
const SEARCH_BYTES_MAX: usize = 256 << 10;

/// A form of a marker.
struct Form {
    row: usize,
    bytes: Vec<u8>,
    /// Whether letters and digits beside it make it another word.
    is_word: bool,
    /// Whether what stands in its place on the other side has this form as well, so that one stands for the other.
    is_exact: bool,
}

/// All forms of all markers of one side, by their first byte.
struct Forms {
    by_first: Vec<Vec<Form>>,
    longest: usize,
}

/// What is planted on both sides, ready to be looked for.
pub(super) struct Markers {
    rows: Vec<Planted>,
    a: Forms,
    b: Forms,
}

/// Markers at a place: which rows, as bits, and how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hit {
    pub rows: u64,
    pub bytes: usize,
}

fn hex(bytes: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]).collect()
}

fn url_escaped(text: &str) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte);
        } else {
            escaped.push(b'%');
            escaped.extend(hex(&[byte], b"0123456789ABCDEF"));
        }
    }
    escaped
}

/// What base64 makes of a text wherever it begins: its middle, once for each of three alignments.
fn base64_middles(text: &str, engine: &impl Engine) -> Vec<Vec<u8>> {
    let middles = (0..3_usize).map(|shift| {
        let mut bytes = vec![0; shift];
        bytes.extend(text.bytes());
        let encoded = engine.encode(&bytes).into_bytes();
        let (from, to) = ((shift * 8).div_ceil(6), bytes.len() * 8 / 6);
        encoded[from..to].to_vec()
    });
    middles.collect()
}

fn forms_of(row: usize, text: &str, forms: &mut Vec<Form>) {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_long = text.len() >= LONG_BYTES_MIN && !is_number;
    let form = |bytes: Vec<u8>, is_exact| Form { row, bytes, is_word: !is_long, is_exact };
    forms.push(form(text.as_bytes().to_vec(), true));
    let url = url_escaped(text);
    if url != text.as_bytes() {
        forms.push(form(url, true));
    }
    if !is_long {
        return;
    }
    forms.push(form(text.encode_utf16().flat_map(u16::to_le_bytes).collect(), true));
    forms.push(form(text.encode_utf16().flat_map(u16::to_be_bytes).collect(), true));
    forms.push(form(hex(text.as_bytes(), b"0123456789abcdef"), true));
    forms.push(form(hex(text.as_bytes(), b"0123456789ABCDEF"), true));
    forms.push(form(text.bytes().rev().collect(), true));
    for bytes in base64_middles(text, &STANDARD_NO_PAD).into_iter().chain(base64_middles(text, &URL_SAFE_NO_PAD)) {
        forms.push(form(bytes, false));
    }
    let escaped = text.replace('/', "\\/");
    if escaped != text {
        forms.push(form(escaped.into_bytes(), true));
    }
}

impl Forms {
    fn of<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        let mut forms = Vec::new();
        for (row, text) in texts.enumerate() {
            if !text.is_empty() {
                forms_of(row, text, &mut forms);
            }
        }
        let mut by_first: Vec<Vec<Form>> = (0..256).map(|_| Vec::new()).collect();
        let longest = forms.iter().map(|form| form.bytes.len()).max().unwrap_or(0);
        for form in forms {
            by_first[usize::from(form.bytes[0])].push(form);
        }
        Self { by_first, longest }
    }

    fn at(&self, text: &[u8], at: usize, exact_only: bool) -> Option<Hit> {
        let first = *text.get(at)?;
        let mut best: Option<Hit> = None;
        for form in &self.by_first[usize::from(first)] {
            let end = at + form.bytes.len();
            if (exact_only && !form.is_exact) || !text[at..].starts_with(&form.bytes) {
                continue;
            }
            let is_beside = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
            if form.is_word && (is_beside(text[..at].last()) || is_beside(text.get(end))) {
                continue;
            }
            let bit = 1 << form.row;
            match &mut best {
                Some(hit) if hit.bytes > form.bytes.len() => {}
                Some(hit) if hit.bytes == form.bytes.len() => hit.rows |= bit,
                _ => best = Some(Hit { rows: bit, bytes: form.bytes.len() }),
            }
        }
        best
    }

    /// Rows of all markers that touch a stretch.
    fn touching(&self, text: &[u8], stretch: &Range<usize>) -> u64 {
        let from = stretch.start.saturating_sub(self.longest);
        let to = stretch.end.min(stretch.start + SEARCH_BYTES_MAX).min(text.len());
        let mut rows = 0;
        for at in from..(to + 1).min(text.len()) {
            if let Some(hit) = self.at(text, at, false) {
                let (start, end) = (at, at + hit.bytes);
                let touches = if stretch.is_empty() {
                    start <= stretch.start && end >= stretch.end
                } else {
                    start < stretch.end && end > stretch.start
                };
                if touches {
                    rows |= hit.rows;
                }
            }
        }
        rows
    }
}

impl Markers {
    /// Those of a context that can tell anything: different on both sides, and long enough to be known again.
    pub fn of(context: &Context) -> Self {
        let tells = |planted: &&Planted| {
            let (a, b) = (planted.a.len(), planted.b.len());
            planted.a != planted.b && a.max(b) >= MARKER_BYTES_MIN && a.max(b) <= MARKER_BYTES_MAX && b > 0
        };
        let rows: Vec<Planted> = context.planted.iter().filter(tells).take(ROWS_MAX).cloned().collect();
        let a = Forms::of(rows.iter().map(|row| row.a.as_str()));
        let b = Forms::of(rows.iter().map(|row| row.b.as_str()));
        Self { rows, a, b }
    }

    /// The longest marker that begins at a place, in a form in which one side stands for the other.
    pub fn at(&self, side: Side, text: &[u8], at: usize) -> Option<Hit> {
        if self.rows.is_empty() {
            return None;
        }
        match side {
            Side::A => self.a.at(text, at, true),
            Side::B => self.b.at(text, at, true),
        }
    }

    /// The dimension of the first of some rows, with what was planted.
    pub fn row(&self, rows: u64) -> Option<&Planted> {
        self.rows.get(rows.trailing_zeros() as usize)
    }

    /// What was planted and is found on both sides in a stretch, or only on the second where the first had nothing.
    pub fn proven(&self, a: &[u8], at_a: &Range<usize>, b: &[u8], at_b: &Range<usize>) -> Option<&Planted> {
        if self.rows.is_empty() {
            return None;
        }
        let (rows_a, rows_b) = (self.a.touching(a, at_a), self.b.touching(b, at_b));
        let both = rows_a & rows_b;
        if both != 0 {
            return self.row(both);
        }
        let mut alone = self.rows.iter().enumerate().filter(|(row, planted)| {
            planted.a.is_empty() && planted.b.len() >= LONG_BYTES_MIN && rows_b & (1 << row) != 0
        });
        alone.next().map(|(_, planted)| planted)
    }
}

/// Whether a dimension is among what was planted.
pub(super) fn is_varied(context: &Context, dimension: Dimension) -> bool {
    context.alone == Some(dimension) || context.planted.iter().any(|planted| planted.dimension == dimension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn markers() -> Markers {
        let planted = |dimension, a: &str, b: &str| Planted { dimension, a: a.into(), b: b.into() };
        Markers::of(&Context {
            planted: vec![
                planted(Dimension::BuildPath, "/workspace", "/somewhere/else"),
                planted(Dimension::Environment, "", "stray-variable-7"),
                planted(Dimension::User, "1000", "4321"),
                planted(Dimension::Cpus, "2", "1"),
            ],
            ..Context::default()
        })
    }

    #[track_caller]
    fn check(a: &[u8], b: &[u8], expect: Option<Dimension>) {
        let found = markers().proven(a, &(0..a.len()), b, &(0..b.len())).map(|planted| planted.dimension);
        assert_eq!(found, expect, "{:?} against {:?}", String::from_utf8_lossy(a), String::from_utf8_lossy(b));
    }

    #[test]
    fn a_marker_is_found_in_every_form() {
        let (a, b) = ("in /workspace/src", "in /somewhere/else/src");
        let path = Some(Dimension::BuildPath);
        check(a.as_bytes(), b.as_bytes(), path);
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        check(&wide(a), &wide(b), path);
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        check(&wide(a), &wide(b), path);
        check(&hex(a.as_bytes(), b"0123456789abcdef"), &hex(b.as_bytes(), b"0123456789abcdef"), path);
        check(&url_escaped(a), &url_escaped(b), path);
        for before in ["", "x", "xy"] {
            let encoded = |text: &str| STANDARD_NO_PAD.encode(format!("{before}{text}")).into_bytes();
            check(&encoded(a), &encoded(b), path);
        }
        let reversed = |text: &str| text.bytes().rev().collect::<Vec<_>>();
        check(&reversed(a), &reversed(b), path);
        check(b"", b"X=stray-variable-7", Some(Dimension::Environment));
        check(b"uid=1000,", b"uid=4321,", Some(Dimension::User));
    }

    #[test]
    fn a_marker_on_one_side_or_in_another_word_proves_nothing() {
        check(b"in /workspace/src", b"in /other", None);
        check(b"in /other", b"in /somewhere/else", None);
        check(b"10000", b"43210", None);
        check(b"2", b"1", None);
        check(b"", b"", None);
    }
}
