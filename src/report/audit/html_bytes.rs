//! The bytes of two sides beside each other, as a table of a page: hexadecimal digits and text, what differs marked. Writes no page.

use crate::audit::model::Evidence;
use crate::report::audit::html::escaped;

/// Bytes on a line of one side.
const BYTES_OF_LINE: usize = 8;

/// A table of the bytes of both sides.
pub(super) fn bytes(evidence: &Evidence) -> String {
    let Evidence { offset, a, b } = evidence;
    let length = a.len().max(b.len());
    let mut rows = String::new();
    for start in (0..length).step_by(BYTES_OF_LINE) {
        rows.push_str(&format!(
            "<tr><th scope=\"row\">{}</th><td class=\"hex\">{}</td><td class=\"hex\">{}</td></tr>\n",
            offset.saturating_add(start as u64),
            side(a, b, start),
            side(b, a, start),
        ));
    }
    let text = whole(a).zip(whole(b)).map_or(String::new(), |(a, b)| {
        format!("<tr><th scope=\"row\">text</th><td><pre>{a}</pre></td><td><pre>{b}</pre></td></tr>\n")
    });
    format!(
        "<table class=\"bytes\">\n<caption>Bytes from {offset} on; those that differ are underlined.</caption>\n\
         <tr><th scope=\"col\">byte</th><th scope=\"col\">first build</th><th scope=\"col\">second build</th></tr>\n\
         {text}{rows}</table>\n"
    )
}

/// One line of one side: digits, then text.
fn side(mine: &[u8], other: &[u8], start: usize) -> String {
    let end = mine.len().min(start + BYTES_OF_LINE);
    let line = mine.get(start..end).unwrap_or_default();
    if line.is_empty() {
        return "<span class=\"faint\">no bytes</span>".to_owned();
    }
    let differs = |at: usize| other.get(at) != mine.get(at);
    let (mut digits, mut letters) = (String::new(), String::new());
    for (step, byte) in line.iter().enumerate() {
        let letter = if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '·' };
        let (hex, letter) = (format!("{byte:02x}"), escaped(&letter.to_string()));
        if step > 0 {
            digits.push(' ');
        }
        if differs(start + step) {
            digits.push_str(&format!("<mark>{hex}</mark>"));
            letters.push_str(&format!("<mark>{letter}</mark>"));
        } else {
            digits.push_str(&hex);
            letters.push_str(&letter);
        }
    }
    format!("{digits}<br><code>{letters}</code>")
}

/// A side as text, if it is some.
fn whole(bytes: &[u8]) -> Option<String> {
    crate::report::audit::told::text_of(bytes).map(|text| escaped(&text))
}
