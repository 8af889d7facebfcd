//! What is wrong with text that is not TOML, in words for people. Knows no keys.
//!
//! The parser recovers and goes on, which finds several mistakes at once but also echoes: after an array that is never closed
//! every later line is an error. So only the first error of a line is kept, and nothing after an unclosed bracket.

use std::ops::Range;

use crate::base::diagnostic::Diagnostic;
use crate::base::limits::SYNTAX_ERRORS_MAX;
use crate::manifest::origin::Origin;

/// Turns the parser's errors into diagnostics, at most [`SYNTAX_ERRORS_MAX`].
pub(crate) fn explain(text: &str, origin: &Origin, errors: &[toml::de::Error]) -> Vec<Diagnostic> {
    let mut found: Vec<(Range<usize>, &str)> =
        errors.iter().map(|error| (inside(text, error.span().unwrap_or(0..0)), error.message())).collect();
    // The parser reports its lexer's findings first; people read from the top. Stable, so the cause stays before its echo.
    found.sort_by_key(|(range, _)| range.start);
    let mut line_end = None;
    found.retain(|(range, _)| {
        let another = line_end.is_none_or(|end| range.start > end);
        if another {
            line_end = Some(text[range.start..].find('\n').map_or(text.len(), |length| range.start + length));
        }
        another
    });
    let unclosed = errors.iter().any(|error| error.message().starts_with("unclosed array"));
    let mut all = Vec::new();
    let mut repeated_table = false;
    for (range, message) in found {
        let line = line_start(text, range.start);
        let is_header = text[line..].trim_start().starts_with('[');
        if message == "duplicate key" {
            if !is_header && repeated_table {
                continue;
            }
            all.push(duplicate(text, origin, line, range));
            repeated_table = is_header;
        } else if let (true, true, Some(open)) = (unclosed, in_array(message), open_bracket(text, range.start)) {
            all.push(unclosed_array(text, origin, open, range));
            break;
        } else {
            all.push(broken(text, origin, range, message));
        }
        if all.len() == SYNTAX_ERRORS_MAX {
            break;
        }
    }
    all
}

fn in_array(message: &str) -> bool {
    message.starts_with("unclosed array") || message.contains("in array") || message.contains("array elements")
}

fn broken(text: &str, origin: &Origin, range: Range<usize>, message: &str) -> Diagnostic {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let word = text[range.clone()].to_owned();
    if what == "string values must be quoted" {
        return Diagnostic::error(what).at(&origin.place(&range), "").help(format!("write `\"{word}\"`"));
    }
    if what.starts_with("invalid boolean") || what.starts_with("invalid float") {
        // The parser guesses from the first letter; to a person `tru` and `tsc` are both words without quotes.
        return Diagnostic::error(format!("`{word}` is not a TOML value"))
            .at(&origin.place(&range), "")
            .help(format!("quote it if it is a string: `\"{word}\"`; booleans are `true` and `false`"));
    }
    if expected.contains("visible characters") {
        return Diagnostic::error("a string holds a control character")
            .at(&origin.place(&widen(text, range)), "")
            .help("escape it in a string with double quotes: `\"\\t\"`, `\"\\u0007\"`");
    }
    let unclosed_string = what.ends_with("string") && matches!(expected, "`\"`" | "`'`");
    let what = if unclosed_string { "string is never closed" } else { what };
    let mark = if expected.is_empty() { String::new() } else { format!("expected {expected}") };
    let diagnostic = Diagnostic::error(what).at(&origin.place(&widen(text, range)), mark);
    if word == ":" { diagnostic.help("TOML writes `key = value`") } else { diagnostic }
}

fn unclosed_array(text: &str, origin: &Origin, open: usize, range: Range<usize>) -> Diagnostic {
    Diagnostic::error("array is never closed")
        .at(&origin.place(&(open..open + 1)), "opened here")
        .at(&origin.place(&widen(text, range)), "a `]` belongs before the next key or table")
}

fn duplicate(text: &str, origin: &Origin, line: usize, range: Range<usize>) -> Diagnostic {
    let name = &text[range.clone()];
    let whole = line_text(text, line);
    let is_header = whole.starts_with('[');
    let mut first = None;
    let mut start = 0;
    for each in text[..line].split_inclusive('\n') {
        let trimmed = each.trim();
        let indent = each.len() - each.trim_start().len();
        if is_header && trimmed == whole {
            first = first.or(Some(start + indent..start + indent + trimmed.len()));
        } else if !is_header && trimmed.starts_with('[') {
            first = None;
        } else if !is_header && trimmed.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('=')) {
            first = first.or(Some(start + indent..start + indent + name.len()));
        }
        start += each.len();
    }
    let what = if is_header { "table" } else { "key" };
    let diagnostic =
        Diagnostic::error(format!("{what} `{name}` is written twice")).at(&origin.place(&range), "again here");
    match first {
        Some(first) => diagnostic.at(&origin.place(&first), "first here").help("keep one, or merge them"),
        None => diagnostic.help("keep one, or merge them"),
    }
}

/// The `[` of the array that is still open at `end`. Brackets in strings can mislead it; then the error points at another one.
fn open_bracket(text: &str, end: usize) -> Option<usize> {
    let mut closed = 0usize;
    for (at, letter) in text[..end].char_indices().rev() {
        match letter {
            ']' => closed += 1,
            '[' if closed > 0 => closed -= 1,
            '[' if text[..at].trim_end().ends_with(['=', ',', '[']) => return Some(at),
            _ => {}
        }
    }
    None
}

/// A range with something in it to underline: an empty one takes what stands before it on its line, or the last written line,
/// or the first character of the text.
fn widen(text: &str, range: Range<usize>) -> Range<usize> {
    if !text[range.clone()].trim().is_empty() {
        return range;
    }
    let end = text[..range.start].trim_end().len();
    let start = line_start(text, end);
    let indent = text[start..end].len() - text[start..end].trim_start().len();
    if start + indent < end {
        return start + indent..end;
    }
    let first = text[range.start..].chars().next().map_or(0, char::len_utf8);
    range.start..range.start + first
}

/// The range cut to the text and to whole characters.
fn inside(text: &str, range: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(range.start);
    start..floor(range.end).max(start)
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

fn line_text(text: &str, start: usize) -> &str {
    text[start..].lines().next().unwrap_or("").trim()
}
