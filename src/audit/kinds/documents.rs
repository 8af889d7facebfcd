//! PDF documents, databases of SQLite and images of file systems: fields at known places, and what follows from other differences.

use super::gather::{Gathered, Reason, Stretch};
use super::lines::compare_binary;
use crate::audit::causes;

/// Looks into two documents; `false` if they are of no kind that is known here.
pub(super) fn look(all: &mut Gathered<'_>, a: &[u8], b: &[u8]) -> bool {
    let both = |is: fn(&[u8]) -> bool| is(a) && is(b);
    if both(|file| file.starts_with(b"%PDF-")) {
        pdf(all, a, b);
    } else if both(|file| file.starts_with(b"SQLite format 3\0") && file.len() >= 100) {
        database(all, a, b);
    } else if both(is_file_system) {
        file_system(all, a, b);
    } else {
        return false;
    }
    true
}

/// Compares the bytes; where lengths move, tables of offsets follow and are told only if nothing else is.
fn pdf(all: &mut Gathered<'_>, a: &[u8], b: &[u8]) {
    let mut inner = Gathered::new(all.context, all.markers);
    compare_binary(&mut inner, &[], a, b);
    let findings = inner.finish();
    let is_known = findings.iter().any(|finding| finding.cause != &causes::UNKNOWN);
    // Most writers make the identifier of time, place and content; if none of that differs, it is a random one.
    let is_random = findings.iter().all(|finding| finding.cause == &causes::PDF_ID);
    for mut finding in findings {
        if is_random && all.context.alone.is_none() {
            finding.cause = &causes::RANDOMNESS;
        }
        if !(is_known && finding.cause == &causes::UNKNOWN && a.len() != b.len() && is_offset(&finding)) {
            all.take(finding);
        }
    }
}

/// Whether what differs is numbers only, as in a table of offsets.
fn is_offset(finding: &super::Finding) -> bool {
    finding.evidence.as_ref().is_some_and(|evidence| {
        let is_table = |bytes: &[u8]| {
            bytes.iter().all(|byte| byte.is_ascii_digit() || b" \r\nnfstarxeOF%/Length<>".contains(byte))
        };
        is_table(&evidence.a) && is_table(&evidence.b)
    })
}

fn database(all: &mut Gathered<'_>, a: &[u8], b: &[u8]) {
    let (mut rest_a, mut rest_b) = (a.to_vec(), b.to_vec());
    for (name, from, to, what) in [
        ("change counter", 24, 28, "how often the database was written"),
        ("version valid for", 92, 96, "how often the database was written"),
        ("SQLITE_VERSION_NUMBER", 96, 100, "written by another version of SQLite"),
    ] {
        if a[from..to] != b[from..to] {
            let stretch = Stretch { a, at_a: from..to, b, at_b: from..to, is_text: false };
            all.add(
                &[name.to_owned()],
                Reason::suspected(&causes::DATABASE, what, (from..to, from..to)).proven(),
                &stretch,
            );
            rest_a[from..to].fill(0);
            rest_b[from..to].fill(0);
        }
    }
    if rest_a != rest_b {
        unknown_is(all, &rest_a, &rest_b, &causes::DATABASE, "pages of the database");
    }
}

fn is_file_system(file: &[u8]) -> bool {
    let is_ext = file.get(0x438..0x43a) == Some(&[0x53, 0xef]);
    let is_erofs = file.get(0x400..0x404) == Some(&[0xe2, 0xe1, 0xf5, 0xe0]);
    file.starts_with(b"hsqs") || is_ext || is_erofs
}

fn file_system(all: &mut Gathered<'_>, a: &[u8], b: &[u8]) {
    unknown_is(all, a, b, &causes::FILE_SYSTEM_IMAGE, "an image of a file system");
}

/// Compares the bytes; what has no better explanation is a matter of the format.
fn unknown_is(all: &mut Gathered<'_>, a: &[u8], b: &[u8], cause: &'static causes::Cause, what: &str) {
    let mut inner = Gathered::new(all.context, all.markers);
    compare_binary(&mut inner, &[], a, b);
    for mut finding in inner.finish() {
        let is_weak = finding.cause == &causes::UNKNOWN || finding.cause == &causes::RANDOMNESS;
        let of_format = cause == &causes::FILE_SYSTEM_IMAGE && finding.cause == &causes::TIMESTAMP_EMBEDDED;
        if is_weak || of_format {
            finding.cause = cause;
            finding.what = format!("{what}: {}", finding.what);
        }
        all.take(finding);
    }
}
