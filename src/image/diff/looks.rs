//! What the first difference of two files looks like: a time, a path of the build, something random. A guess by signs, told as such.

use crate::image::diff::class::Class;
use crate::image::diff::files::known_dirty;

/// Bytes before and behind the first difference that are looked at.
const BEFORE_BYTES: usize = 64;
const BEHIND_BYTES: usize = 96;

/// Outermost directories in which builds are made.
const BUILD_DIRS: [&str; 6] = ["tmp", "var/tmp", "build", "home", "root", "work"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Two pieces of files, from the same offset, with the first difference in them.
pub(super) struct Seen<'a> {
    pub path: &'a [u8],
    pub a: &'a [u8],
    pub b: &'a [u8],
    /// How many bytes of the pieces are the same.
    pub same: usize,
    /// Of the first difference in the files.
    pub offset: u64,
    /// Whether the pieces are all of the files.
    pub is_whole: bool,
    pub is_text: bool,
}

/// Whether bytes are text, but for letters cut at their ends.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && String::from_utf8_lossy(bytes).matches('\u{fffd}').count() <= 2
}

/// The class of a difference, and why.
pub(super) fn classify(seen: &Seen<'_>) -> (Class, &'static str) {
    if let Some(why) = known_dirty(seen.path) {
        return (Class::DirtyPath, why);
    }
    if seen.path.ends_with(b".pyc") {
        return (
            Class::PythonBytecode,
            "compiled Python differs: it keeps the time of its source, or the order in which it was compiled",
        );
    }
    let is_gzip = [seen.a, seen.b].iter().all(|bytes| bytes.starts_with(&[0x1f, 0x8b]));
    if is_gzip && (4..8).contains(&seen.offset) {
        return (Class::GzipTime, "the file is compressed by gzip, which kept a time in its header");
    }
    if seen.is_text && seen.is_whole && same_lines(seen.a, seen.b) {
        return (Class::HashSeed, "the same lines in another order, as a set or a listing in no order gives them");
    }
    let both =
        |sign: &dyn Fn(&[u8]) -> Option<usize>| [seen.a, seen.b].iter().all(|bytes| covers(bytes, seen.same, sign));
    if both(&uuid) {
        (Class::Randomness, "it looks like an identity drawn at random")
    } else if both(&time) {
        (Class::EmbeddedTime, "it looks like the time of the build")
    } else if both(&build_path) {
        (Class::BuildPath, "it looks like a path of the build")
    } else {
        (Class::Content, "the content differs")
    }
}

fn same_lines(a: &[u8], b: &[u8]) -> bool {
    let sorted = |bytes: &'_ [u8]| {
        let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    a.len() == b.len() && sorted(a) == sorted(b)
}

/// Whether a sign that `sign` gives the length of lies over the position `at`.
fn covers(bytes: &[u8], at: usize, sign: &dyn Fn(&[u8]) -> Option<usize>) -> bool {
    let first = at.saturating_sub(BEFORE_BYTES);
    let end = bytes.len().min(at + BEHIND_BYTES);
    (first..=at.min(end)).any(|start| {
        let of_a_word =
            start > 0 && bytes[start - 1].is_ascii_alphanumeric() && bytes.get(start).is_some_and(u8::is_ascii_digit);
        !of_a_word && sign(&bytes[start..end]).is_some_and(|length| start + length > at)
    })
}

/// Whether bytes begin with a pattern: `0` is a digit, `x` a hexadecimal one, anything else itself.
fn begins(bytes: &[u8], pattern: &str) -> bool {
    bytes.len() >= pattern.len()
        && pattern.bytes().zip(bytes).all(|(sign, byte)| match sign {
            b'0' => byte.is_ascii_digit(),
            b'x' => byte.is_ascii_hexdigit(),
            _ => sign == *byte,
        })
}

fn uuid(bytes: &[u8]) -> Option<usize> {
    let pattern = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    begins(bytes, pattern).then_some(pattern.len())
}

fn time(bytes: &[u8]) -> Option<usize> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // Seconds or milliseconds since 1970, of 2017 or later.
    if matches!(digits, 10 | 13) && matches!(bytes, [b'1', b'5'..=b'9', ..]) {
        return Some(digits);
    }
    for (pattern, length) in
        [("2000-00-00T00:00:00", 19), ("2000-00-00 00:00:00", 19), ("2000-00-00", 10), ("00:00:00", 8)]
    {
        // The first digits of a year are its own.
        let is_year = !pattern.starts_with("20") || bytes.starts_with(b"20");
        if is_year && begins(bytes, pattern) {
            return Some(length);
        }
    }
    let named = |names: &[&str], rest: &[u8]| names.iter().any(|name| rest.starts_with(name.as_bytes()));
    if named(&WEEKDAYS, bytes) && bytes.get(3).is_some_and(|byte| matches!(byte, b' ' | b',')) {
        let rest = bytes[4..].trim_ascii_start();
        // As `date` and as mail write it.
        if named(&MONTHS, rest) || rest.first().is_some_and(u8::is_ascii_digit) {
            return Some(29);
        }
    }
    let is_date = named(&MONTHS, bytes) && bytes.len() >= 11 && bytes[3] == b' ' && begins(&bytes[6..], " 2000");
    is_date.then_some(11)
}

fn build_path(bytes: &[u8]) -> Option<usize> {
    let within = |dir: &&&str| {
        let rest = bytes.strip_prefix(b"/").and_then(|path| path.strip_prefix(dir.as_bytes()));
        rest.is_some_and(|rest| rest.starts_with(b"/"))
    };
    BUILD_DIRS.iter().find(within)?;
    let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0 | b'"' | b'\'' | b':' | b';' | b',' | b')');
    let length = bytes.iter().position(ends).unwrap_or(bytes.len());
    // What stands behind it may be where one path ends and the other goes on.
    Some(length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_differences_are_classed_by_what_lies_over_them() {
        let check = |path: &str, a: &str, b: &str, expect: &str| {
            let same = a.bytes().zip(b.bytes()).take_while(|(one, other)| one == other).count();
            let (one, other) = (a.as_bytes(), b.as_bytes());
            let is_text = is_text(one) && is_text(other);
            let offset = same as u64;
            let seen = Seen { path: path.as_bytes(), a: one, b: other, same, offset, is_whole: true, is_text };
            assert_eq!(classify(&seen).0.id(), expect, "{a:?} {b:?}");
        };
        check("a", "built 2026-11-30T10:00:00Z", "built 2026-11-30T10:00:07Z", "timestamp.embedded");
        check("a", "t=1764500000;", "t=1764500012;", "timestamp.embedded");
        check("a", "Mon Nov 30 19:16:41 UTC 2026", "Mon Nov 30 19:16:43 UTC 2026", "timestamp.embedded");
        check("a", "made Nov 30 2026", "made Dec  1 2026", "timestamp.embedded");
        check("a", "v\x001764500000\0", "v\x001764500012\0", "timestamp.embedded");
        check("a", "1.2.3", "1.2.4", "content");
        check("a", "id 11764500000", "id 11764500012", "content");
        check("a", "in /tmp/abc/x.c:1", "in /tmp/abd/x.c:1", "build-path");
        check("a", "in /usr/abc/x.c:1", "in /usr/abd/x.c:1", "content");
        let uuids = ["0b9a3c9e-1111-4222-8333-444455556666", "0b9a3c9f-1111-4222-8333-444455556666"];
        check("a", uuids[0], uuids[1], "randomness");
        check("a", "a\nb\nc\n", "c\nb\na\n", "hash-seed");
        check("a", "x", "xy", "content");
        check("a", "", "y", "content");
        check("var/log/dpkg.log", "a", "b", "dirty-path");
        check("x/y.pyc", "a", "b", "python-bytecode");
        check("x.gz", "\u{1f}", "\u{1e}", "content");
    }
}
