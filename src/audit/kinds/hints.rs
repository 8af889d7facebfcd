//! What stands before a value, and what it therefore is: `hostname=…`, `built by …`. Suspicion only.

use std::ops::Range;

use super::gather::{Reason, Stretch, quoted};
use super::planted::is_varied;
use crate::audit::causes::{self, Cause};
use crate::audit::context::Context;
use crate::sandbox::surroundings::Dimension;

/// So much before a value is looked at.
const BEFORE_BYTES: usize = 96;

/// Words of names of fields, and what their values tell.
const KEYS: [(&[&str], &Cause); 16] = [
    (&["buildid", "go.buildid", "vcs"], &causes::GO_BUILD),
    (&["host", "hostname", "nodename", "machine", "fqdn", "domainname"], &causes::HOST_NAME),
    (&["user", "username", "uid", "gid", "group", "owner", "logname", "whoami", "builtby"], &causes::OWNER),
    (&["home"], &causes::HOME),
    (&["nproc", "cpus", "cpu", "cores", "jobs", "threads", "ncpu", "parallel"], &causes::CPU_COUNT),
    (&["kernel", "uname", "osrelease"], &causes::KERNEL),
    (
        &["seed", "nonce", "salt", "secret", "token", "uuid", "guid", "password", "machine-id", "random"],
        &causes::RANDOMNESS,
    ),
    (&["inode", "ino", "inodes"], &causes::INODE),
    (&["pid", "ppid"], &causes::PID),
    (&["umask"], &causes::MODE),
    (&["lang", "locale", "language", "lc"], &causes::LOCALE),
    (&["tz", "timezone"], &causes::TIME_ZONE),
    (&["pwd", "cwd", "builddir", "srcdir", "rootdir"], &causes::BUILD_PATH),
    (&["creationid", "trailerid"], &causes::PDF_ID),
    (&["addr", "pointer", "ptr"], &causes::ADDRESS),
    (&["signature"], &causes::SIGNATURE),
];

/// Ends of what people write before a value.
const PHRASES: [(&str, &Cause); 7] = [
    ("built on ", &causes::HOST_NAME),
    ("compiled on ", &causes::HOST_NAME),
    ("build host: ", &causes::HOST_NAME),
    ("built by ", &causes::OWNER),
    ("compiled by ", &causes::OWNER),
    ("built in ", &causes::BUILD_PATH),
    ("go build id: ", &causes::GO_BUILD),
];

/// What stands before a value on its line, in small letters.
fn before(text: &[u8], at: usize) -> String {
    let from = at.saturating_sub(BEFORE_BYTES);
    let line = text[from..at].iter().rev().take_while(|byte| !matches!(**byte, b'\n' | 0)).count();
    String::from_utf8_lossy(&text[at - line..at]).to_ascii_lowercase()
}

/// The name of the field that a value belongs to: what stands before `=`, `:` or a space.
fn key_of(before: &str) -> &str {
    let trimmed = before.trim_end_matches(|letter: char| " \t\"':=><([".contains(letter));
    if trimmed.len() == before.len() {
        return "";
    }
    let is_of_key = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    let start = trimmed
        .rfind(|letter| !is_of_key(letter))
        .map_or(0, |at| at + trimmed[at..].chars().next().map_or(1, char::len_utf8));
    &trimmed[start..]
}

/// What a field's name says of its value.
pub(super) fn cause_of_key(key: &str) -> Option<&'static Cause> {
    let whole = |key: &str| KEYS.iter().find(|(names, _)| names.contains(&key)).map(|(_, cause)| *cause);
    let key = key.to_ascii_lowercase();
    let joined: String = key.chars().filter(|letter| !"_.-".contains(*letter)).collect();
    whole(&key).or_else(|| whole(&joined)).or_else(|| key.rsplit(['_', '.', '-']).find_map(whole))
}

/// What the words before a value say it is.
pub(super) fn by_key(
    stretch: &Stretch<'_>,
    covers: &(Range<usize>, Range<usize>),
    context: &Context,
) -> Option<Reason> {
    let (before_a, before_b) = (before(stretch.a, covers.0.start), before(stretch.b, covers.1.start));
    let (value_a, value_b) = (&stretch.a[covers.0.clone()], &stretch.b[covers.1.clone()]);
    let told = |cause: &'static Cause, of: &str| {
        let what = format!("{of}: `{}` against `{}`", quoted(value_a), quoted(value_b));
        Some(Reason::suspected(cause, what, covers.clone()))
    };
    if let Some((phrase, cause)) =
        PHRASES.iter().find(|(phrase, _)| before_a.ends_with(phrase) && before_b.ends_with(phrase))
    {
        return told(cause, phrase.trim());
    }
    if before_a.ends_with("/id [<")
        || before_a.ends_with("/id[<")
        || (before_a.contains("/id") && before_a.ends_with("<"))
    {
        return told(&causes::PDF_ID, "/ID");
    }
    let (key_a, key_b) = (key_of(&before_a), key_of(&before_b));
    let is_search_path = |value: &[u8]| value.windows(2).any(|part| part == b":/");
    if key_a == "path" && key_b == "path" && is_search_path(value_a) && is_search_path(value_b) {
        return told(&causes::EXEC_PATH, key_a);
    }
    if !key_a.is_empty()
        && key_a == key_b
        && let Some(cause) = cause_of_key(key_a)
    {
        return told(cause, key_a);
    }
    // Markers that are too short to be known again anywhere: the whole word is one.
    let whole = context
        .planted
        .iter()
        .find(|planted| planted.a != planted.b && planted.a.as_bytes() == value_a && planted.b.as_bytes() == value_b);
    if let Some(planted) = whole {
        return told(causes::of_dimension(planted.dimension), "the value of each build");
    }
    let is_old = |value: &[u8]| {
        value.starts_with(b"2.6.") && value.len() >= 5 && value[4..].iter().take(2).all(u8::is_ascii_digit)
    };
    let is_kernel =
        is_varied(context, Dimension::Kernel) && is_old(value_b) && !is_old(value_a) && value_a.contains(&b'.');
    if is_kernel { told(&causes::KERNEL, "releases") } else { None }
}
