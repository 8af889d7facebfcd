//! What stretches look like: identifiers, keys, addresses, temporary names, paths, digests. All of it is suspicion, nothing proof.

use std::ops::Range;

use super::DIGEST_LEAD;
use super::gather::{Reason, Stretch, quoted};
use super::hints;
use crate::audit::causes::{self, Cause};
use crate::audit::context::Context;

/// A word is looked at so far on each side of a stretch.
const WORD_BYTES_MAX: usize = 512;
/// A key in text may be so long.
const KEY_BYTES_MAX: usize = 8192;
/// So many letters and digits look random, if they do.
const RANDOM_LETTERS_MIN: usize = 10;
/// The same for bytes.
const RANDOM_BYTES_MIN: usize = 12;

/// Whether a byte ends a word.
fn ends_word(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f || b"\"'`<>(),;=[]{}|".contains(&byte)
}

/// The word in which a stretch lies; the stretch itself at least.
pub(super) fn word_around(text: &[u8], stretch: &Range<usize>) -> Range<usize> {
    let from = stretch.start.saturating_sub(WORD_BYTES_MAX);
    let to = (stretch.end + WORD_BYTES_MAX).min(text.len());
    let before = text[from..stretch.start].iter().rev().take_while(|byte| !ends_word(**byte)).count();
    let after = text[stretch.end..to].iter().take_while(|byte| !ends_word(**byte)).count();
    stretch.start - before..stretch.end + after
}

fn is_hex(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_hexdigit)
}

/// The run of bytes of a kind around a stretch, which is of that kind itself.
fn run_around(text: &[u8], stretch: &Range<usize>, is_of_it: impl Fn(u8) -> bool) -> Option<Range<usize>> {
    if !text[stretch.clone()].iter().all(|byte| is_of_it(*byte)) {
        return None;
    }
    let from = stretch.start.saturating_sub(WORD_BYTES_MAX);
    let to = (stretch.end + WORD_BYTES_MAX).min(text.len());
    let before = text[from..stretch.start].iter().rev().take_while(|byte| is_of_it(**byte)).count();
    let after = text[stretch.end..to].iter().take_while(|byte| is_of_it(**byte)).count();
    Some(stretch.start - before..stretch.end + after)
}

/// The two sides of a stretch with the words they lie in.
struct Words<'t> {
    a: &'t [u8],
    b: &'t [u8],
    covers: (Range<usize>, Range<usize>),
}

impl Words<'_> {
    fn reason(&self, cause: &'static Cause, what: &str) -> Option<Reason> {
        let what = format!("{what}: `{}` against `{}`", quoted(self.a), quoted(self.b));
        Some(Reason::suspected(cause, what, self.covers.clone()))
    }
}

/// What a stretch of text, or of text in a binary file, looks like.
pub(super) fn text(stretch: &Stretch<'_>, context: &Context) -> Option<Reason> {
    let (at_a, at_b) = (word_around(stretch.a, &stretch.at_a), word_around(stretch.b, &stretch.at_b));
    let words = Words { a: &stretch.a[at_a.clone()], b: &stretch.b[at_b.clone()], covers: (at_a, at_b) };
    let is_printable =
        |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=0x7e | 0x80..));
    let is_string = is_printable(words.a) && is_printable(words.b) && words.a.len().max(words.b.len()) >= 4;
    if !stretch.is_text && !is_string {
        return None;
    }
    key_material(stretch)
        .or_else(|| identifier(stretch))
        .or_else(|| temporary(&words))
        .or_else(|| address(stretch, &words))
        .or_else(|| path(&words))
        .or_else(|| rust_hash(stretch))
        .or_else(|| hints::by_key(stretch, &words.covers, context))
        .or_else(|| digest(stretch))
        .or_else(|| zone_or_language(&words))
        .or_else(|| random_letters(stretch))
}

/// Keys and signatures between `-----BEGIN …-----` and `-----END`.
fn key_material(stretch: &Stretch<'_>) -> Option<Reason> {
    let opened = |text: &[u8], at: usize| -> Option<String> {
        let before = &text[at.saturating_sub(KEY_BYTES_MAX)..at];
        let begin = before.windows(11).rposition(|window| window == b"-----BEGIN ")?;
        let title = &before[begin + 11..];
        let end = title.windows(5).position(|window| window == b"-----")?;
        let is_closed = title[end..].windows(9).any(|window| window == b"-----END ");
        (!is_closed && end < 64).then(|| String::from_utf8_lossy(&title[..end]).into_owned())
    };
    let covers = (stretch.at_a.clone(), stretch.at_b.clone());
    if let (Some(title), Some(_)) = (opened(stretch.a, stretch.at_a.start), opened(stretch.b, stretch.at_b.start)) {
        let title = title.to_ascii_lowercase();
        if title.contains("signature") {
            return Some(Reason::suspected(&causes::SIGNATURE, format!("another {title}"), covers));
        }
        if title.contains("key") || title.contains("certificate") || title.contains("parameters") {
            return Some(Reason::suspected(&causes::RANDOMNESS, format!("another {title}"), covers));
        }
    }
    let is_public_key = |text: &[u8], at: usize| {
        let line = text[..at].iter().rev().take(1024).take_while(|byte| **byte != b'\n').count();
        let line = &text[at - line..at];
        line.starts_with(b"ssh-rsa ") || line.starts_with(b"ssh-ed25519 ") || line.starts_with(b"ecdsa-sha2-")
    };
    let both = is_public_key(stretch.a, stretch.at_a.start) && is_public_key(stretch.b, stretch.at_b.start);
    both.then(|| Reason::suspected(&causes::RANDOMNESS, "another public key of SSH", covers))
}

/// The version of a UUID, if it is one.
fn uuid_version(word: &[u8]) -> Option<u8> {
    let is_uuid = word.len() == 36
        && word.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    is_uuid.then(|| word[14])
}

fn identifier(stretch: &Stretch<'_>) -> Option<Reason> {
    let is_of_uuid = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    let at_a = run_around(stretch.a, &stretch.at_a, is_of_uuid)?;
    let at_b = run_around(stretch.b, &stretch.at_b, is_of_uuid)?;
    let words = Words { a: &stretch.a[at_a.clone()], b: &stretch.b[at_b.clone()], covers: (at_a, at_b) };
    match (uuid_version(words.a)?, uuid_version(words.b)?) {
        (b'4' | b'7', b'4' | b'7') => words.reason(&causes::RANDOMNESS, "random identifiers"),
        (b'1' | b'6', b'1' | b'6') => words.reason(&causes::RANDOMNESS, "identifiers made of the time and the machine"),
        (b'3' | b'5' | b'8', _) => {
            words.reason(&causes::UNKNOWN, &format!("{DIGEST_LEAD}(an identifier made of a name)"))
        }
        _ => words.reason(&causes::UNKNOWN, "identifiers"),
    }
}

/// Where a word has a part, and what of letters and digits follows it.
fn after<'t>(word: &'t [u8], lead: &[u8]) -> Option<&'t [u8]> {
    let at = word.windows(lead.len().max(1)).position(|window| window == lead)?;
    let rest = &word[at + lead.len()..];
    let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    Some(&rest[..length])
}

fn is_number(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.len() <= 10 && bytes.iter().all(u8::is_ascii_digit)
}

/// Names of temporary files, and numbers of processes in names.
fn temporary(words: &Words<'_>) -> Option<Reason> {
    for lead in [&b"PaxHeaders."[..], b"/proc/", b".tmp", b"pid-", b"pid."] {
        if let (Some(a), Some(b)) = (after(words.a, lead), after(words.b, lead))
            && a != b
            && is_number(a)
            && is_number(b)
        {
            return words.reason(&causes::PID, "the number of a process in a name");
        }
    }
    let of_compiler = |word: &[u8]| {
        let name = word.rsplit(|byte| *byte == b'/').next().unwrap_or(word);
        let dot = name.iter().position(|byte| *byte == b'.').unwrap_or(name.len());
        name.starts_with(b"cc") && dot == 8 && name[2..dot].iter().all(u8::is_ascii_alphanumeric) && name.len() > dot
    };
    if of_compiler(words.a) && of_compiler(words.b) {
        return words.reason(&causes::PID, "a temporary file of the compiler");
    }
    for lead in [&b"/tmp/"[..], b"/var/tmp/", b"/dev/shm/"] {
        let part = |word: &'_ [u8]| -> Option<Vec<u8>> {
            let at = word.windows(lead.len()).position(|window| window == lead)?;
            let rest = &word[at + lead.len()..];
            Some(rest[..rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len())].to_vec())
        };
        if let (Some(a), Some(b)) = (part(words.a), part(words.b))
            && a != b
            && a.len() == b.len()
            && a.len() >= 6
        {
            return words.reason(&causes::RANDOMNESS, "the name of a temporary file");
        }
    }
    None
}

/// Addresses in text.
fn address(stretch: &Stretch<'_>, words: &Words<'_>) -> Option<Reason> {
    let digits = |word: &[u8]| -> Option<Vec<u8>> {
        let at = word.windows(2).position(|window| window == b"0x")?;
        let rest = &word[at + 2..];
        Some(rest[..rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count()].to_vec())
    };
    let (a, b) = (digits(words.a)?, digits(words.b)?);
    let is_high =
        |digits: &[u8]| digits.len() == 12 && [b"7f", b"7e", b"55", b"56"].iter().any(|top| digits.starts_with(*top));
    let is_told = |text: &[u8], at: usize| text[..at].ends_with(b" at ");
    let told = is_told(stretch.a, words.covers.0.start) && is_told(stretch.b, words.covers.1.start);
    let is_one = a != b && ((is_high(&a) && is_high(&b)) || (told && a.len() >= 6 && b.len() >= 6));
    if is_one { words.reason(&causes::ADDRESS, "addresses in memory") } else { None }
}

/// Absolute paths that end alike.
fn path(words: &Words<'_>) -> Option<Reason> {
    let absolute = |word: &'_ [u8]| -> Option<Range<usize>> {
        let at = word.iter().position(|byte| *byte == b'/')?;
        let is_url = at > 0 && word[at - 1] == b':' && word.get(at + 1) == Some(&b'/');
        (!is_url).then_some(at..word.len())
    };
    let (a, b) = (&words.a[absolute(words.a)?], &words.b[absolute(words.b)?]);
    let holds = |path: &[u8], part: &[u8]| path.windows(part.len()).any(|window| window == part);
    if a == b || a.len() < 4 || b.len() < 4 {
        return None;
    }
    let either = |part: &[u8]| holds(a, part) && holds(b, part);
    if either(b"/registry/src/") || either(b"/rustc/") || either(b"/rustlib/") {
        return words.reason(&causes::RUST_PATH, "paths of a Rust toolchain or registry");
    }
    let is_home = |path: &[u8]| path.starts_with(HOMES[0]) || path.starts_with(HOMES[1]) || path.starts_with(HOMES[2]);
    if is_home(a) && is_home(b) {
        return words.reason(&causes::HOME, "paths below a home");
    }
    let last = |path: &'_ [u8]| path.rsplit(|byte| *byte == b'/').next().map(<[u8]>::to_vec);
    let first = |path: &'_ [u8]| path[1..].split(|byte| *byte == b'/').next().map(<[u8]>::to_vec);
    let ends_alike = last(a) == last(b) && last(a).is_some_and(|name| !name.is_empty());
    let begins_alike =
        first(a) == first(b) && first(a).is_some_and(|name| matches!(&name[..], b"build" | b"workspace" | b"src"));
    let is_deep = |path: &[u8]| path.iter().filter(|byte| **byte == b'/').count() >= 2;
    if (ends_alike || begins_alike) && is_deep(a) && is_deep(b) {
        return words.reason(&causes::BUILD_PATH, "absolute paths");
    }
    None
}

/// The hash in a symbol of Rust, `17h1bfe14acb39b5b97E`, or in the name of a unit of code, which goes by paths and flags.
fn rust_hash(stretch: &Stretch<'_>) -> Option<Reason> {
    let hash = |text: &[u8], at: &Range<usize>| -> Option<Range<usize>> {
        let run = run_around(text, at, |byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))?;
        let is_symbol = text[..run.start].ends_with(b"17h") && text.get(run.end) == Some(&b'E');
        let is_unit = text[run.end..].starts_with(b"-cgu.");
        (run.len() == 16 && (is_symbol || is_unit)).then_some(run)
    };
    // Whole symbols may stand against each other.
    let (a, b) = stretch.bytes();
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let end = a[same..].iter().rev().zip(b[same..].iter().rev()).take_while(|(a, b)| a == b).count();
    let inner = |at: &Range<usize>| at.start + same..at.end - end;
    let (at_a, at_b) = (hash(stretch.a, &inner(&stretch.at_a))?, hash(stretch.b, &inner(&stretch.at_b))?);
    let words = Words { a: &stretch.a[at_a.clone()], b: &stretch.b[at_b.clone()], covers: (at_a, at_b) };
    words.reason(&causes::RUST_PATH, "hashes in symbols of Rust, which go by paths and flags")
}

/// Places of homes. In pieces, so that none of them reads as a path of somebody's.
const HOMES: [&[u8]; 3] =
    [concat!("/ho", "me/").as_bytes(), concat!("/ro", "ot/").as_bytes(), concat!("/Us", "ers/").as_bytes()];

/// Digests in hexadecimal digits or base64.
fn digest(stretch: &Stretch<'_>) -> Option<Reason> {
    let both = |is_of_it: fn(u8) -> bool| {
        let at_a = run_around(stretch.a, &stretch.at_a, is_of_it)?;
        let at_b = run_around(stretch.b, &stretch.at_b, is_of_it)?;
        Some(Words { a: &stretch.a[at_a.clone()], b: &stretch.b[at_b.clone()], covers: (at_a, at_b) })
    };
    if let Some(words) = both(|byte: u8| byte.is_ascii_alphanumeric())
        && words.a.len() == words.b.len()
        && is_hex(words.a)
        && is_hex(words.b)
        && matches!(words.a.len(), 32 | 40 | 56 | 64 | 96 | 128)
    {
        return words.reason(&causes::UNKNOWN, &format!("{DIGEST_LEAD}of {} digits", words.a.len()));
    }
    let words = both(|byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte))?;
    let bare = |word: &'_ [u8]| word.strip_suffix(b"==").or(word.strip_suffix(b"=")).unwrap_or(word).len();
    let named = |text: &[u8], at: usize| {
        let before = &text[at.saturating_sub(12)..at];
        [&b"sha"[..], b"SHA", b"md5", b"MD5", b"C:Q1", b"Digest"]
            .iter()
            .any(|name| before.windows(name.len()).any(|w| w == *name))
    };
    // SHA-1, SHA-256, SHA-384 and SHA-512 in base64, behind their name or as a part of the word.
    let is_length = |bytes: usize| matches!(bytes, 27 | 43 | 64 | 86) || matches!(bytes, 50 | 71 | 93);
    let is_digest = words.a.len() == words.b.len()
        && is_length(bare(words.a))
        && (named(stretch.a, words.covers.0.start) || words.a.starts_with(b"sha"));
    if is_digest { words.reason(&causes::UNKNOWN, &format!("{DIGEST_LEAD}in base64")) } else { None }
}

/// Names of zones, decimal commas, names of months and days in two languages.
fn zone_or_language(words: &Words<'_>) -> Option<Reason> {
    const ZONES: [&[u8]; 14] = [
        b"UTC", b"GMT", b"CET", b"CEST", b"EET", b"EEST", b"EST", b"EDT", b"PST", b"PDT", b"MSK", b"IST", b"JST",
        b"WET",
    ];
    let is_zone = |word: &[u8]| {
        let is_offset = word.len() == 5 && b"+-".contains(&word[0]) && word[1..].iter().all(u8::is_ascii_digit);
        let is_short = word.len() == 3 && b"+-".contains(&word[0]) && word[1..].iter().all(u8::is_ascii_digit);
        ZONES.contains(&word) || is_offset || is_short
    };
    if is_zone(words.a) && is_zone(words.b) {
        return words.reason(&causes::TIME_ZONE, "zones");
    }
    const CALENDAR: [&[u8]; 38] = [
        b"Jan",
        b"Feb",
        b"Mar",
        b"Apr",
        b"May",
        b"Jun",
        b"Jul",
        b"Aug",
        b"Sep",
        b"Oct",
        b"Nov",
        b"Dec",
        b"January",
        b"February",
        b"March",
        b"April",
        b"June",
        b"July",
        b"August",
        b"September",
        b"October",
        b"November",
        b"December",
        b"Mon",
        b"Tue",
        b"Wed",
        b"Thu",
        b"Fri",
        b"Sat",
        b"Sun",
        b"Monday",
        b"Tuesday",
        b"Wednesday",
        b"Thursday",
        b"Friday",
        b"Saturday",
        b"Sunday",
        b"Sept",
    ];
    let is_english = |word: &[u8]| CALENDAR.contains(&word);
    let is_letters = |word: &[u8]| {
        (1..=14).contains(&word.len()) && word.iter().all(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80)
    };
    if is_english(words.a) != is_english(words.b) && is_letters(words.a) && is_letters(words.b) {
        return words.reason(&causes::LOCALE, "names of days or months in two languages");
    }
    None
}

/// Numbers that differ only in their decimal sign are told before words are cut at commas.
pub(super) fn decimal_comma(stretch: &Stretch<'_>) -> Option<Reason> {
    let (a, b) = stretch.bytes();
    let is_sign = matches!((a, b), (b".", b",") | (b",", b"."));
    let stands_in_number = |text: &[u8], at: &Range<usize>| {
        let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        digit(text[..at.start].last()) && digit(text.get(at.end))
    };
    let is_one = is_sign && stands_in_number(stretch.a, &stretch.at_a) && stands_in_number(stretch.b, &stretch.at_b);
    let covers = (stretch.at_a.clone(), stretch.at_b.clone());
    is_one.then(|| Reason::suspected(&causes::LOCALE, "a decimal comma against a point", covers))
}

/// How many kinds of letters there are, and how many different ones.
fn looks_random(word: &[u8]) -> bool {
    let mut seen = [false; 256];
    let different = word.iter().filter(|byte| !std::mem::replace(&mut seen[usize::from(**byte)], true)).count();
    let has = |is: fn(&u8) -> bool| word.iter().any(is);
    let kinds = [has(u8::is_ascii_digit), has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase)];
    let kinds = kinds.into_iter().filter(|is| *is).count();
    kinds >= 2
        && different * 2 >= word.len().min(24)
        && !word.windows(6).any(|part| part.iter().all(|byte| *byte == part[0]))
}

fn random_letters(stretch: &Stretch<'_>) -> Option<Reason> {
    let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    let at_a = run_around(stretch.a, &stretch.at_a, is_of_it)?;
    let at_b = run_around(stretch.b, &stretch.at_b, is_of_it)?;
    let words = Words { a: &stretch.a[at_a.clone()], b: &stretch.b[at_b.clone()], covers: (at_a, at_b) };
    let is_one = words.a.len() == words.b.len()
        && words.a.len() >= RANDOM_LETTERS_MIN
        && looks_random(words.a)
        && looks_random(words.b)
        && words.a.iter().zip(words.b).filter(|(a, b)| a == b).count() * 2 < words.a.len();
    if is_one { words.reason(&causes::RANDOMNESS, "letters that look random") } else { None }
}

/// What a stretch of a binary file looks like.
pub(super) fn binary(stretch: &Stretch<'_>) -> Option<Reason> {
    let (a, b) = stretch.bytes();
    pointer(stretch).or_else(|| {
        let differing = a.iter().zip(b).filter(|(a, b)| a != b).count();
        let is_one = a.len() == b.len() && a.len() >= RANDOM_BYTES_MIN && differing * 4 >= a.len() * 3;
        let is_varied = |bytes: &[u8]| {
            let mut seen = [false; 256];
            let different =
                bytes.iter().filter(|byte| !std::mem::replace(&mut seen[usize::from(**byte)], true)).count();
            different * 3 >= bytes.len().min(192) * 2
        };
        let covers = (stretch.at_a.clone(), stretch.at_b.clone());
        (is_one && is_varied(a) && is_varied(b)).then(|| {
            let what = format!("{} bytes that look random: a key, an identifier or a digest", a.len());
            Reason::suspected(&causes::RANDOMNESS, what, covers)
        })
    })
}

/// Addresses of memory in eight bytes: six that are set, the highest of them as user space has it.
fn pointer(stretch: &Stretch<'_>) -> Option<Reason> {
    let is_one = |file: &[u8], at: usize| -> bool {
        let Some(eight) = file.get(at..at + 8) else { return false };
        eight[6..] == [0, 0] && matches!(eight[5], 0x7f | 0x7e | 0x55 | 0x56) && eight[3] != eight[4]
    };
    if stretch.at_a.len() != stretch.at_b.len() || stretch.at_a.len() > 6 {
        return None;
    }
    let back = stretch.at_a.start.min(stretch.at_b.start).min(5);
    (0..=back).find_map(|shift| {
        let (at_a, at_b) = (stretch.at_a.start - shift, stretch.at_b.start - shift);
        let is_found = at_a + 6 >= stretch.at_a.end && is_one(stretch.a, at_a) && is_one(stretch.b, at_b);
        is_found.then(|| Reason::suspected(&causes::ADDRESS, "addresses in memory", (at_a..at_a + 8, at_b..at_b + 8)))
    })
}
