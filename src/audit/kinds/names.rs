//! Paths that are known to differ between builds, and names of what is otherwise the same.

use super::gather::Gathered;
use super::lines::within;
use super::planted::Markers;
use super::{Finding, signatures};
use crate::audit::causes::{self, Cause};
use crate::audit::context::Context;
use crate::audit::model::Certainty;

/// How a path is known.
enum Known {
    /// It is this one, from the root of the tree on or below any directory.
    Is(&'static str),
    /// It is below this directory.
    Below(&'static str),
    /// Its last name ends so.
    Ends(&'static str),
}

use Known::{Below, Ends, Is};

/// Paths of distributions and tools. The first that fits decides.
const KNOWN: [(Known, &Cause); 38] = [
    (Is("var/cache/ldconfig/aux-cache"), &causes::DIRTY_PATH),
    (Is("etc/machine-id"), &causes::DIRTY_PATH),
    (Is("var/lib/dbus/machine-id"), &causes::DIRTY_PATH),
    (Is("var/lib/systemd/random-seed"), &causes::RANDOMNESS),
    (Is("etc/ssh/ssh_host_rsa_key"), &causes::RANDOMNESS),
    (Is("etc/ssh/ssh_host_rsa_key.pub"), &causes::RANDOMNESS),
    (Is("etc/ssh/ssh_host_ecdsa_key"), &causes::RANDOMNESS),
    (Is("etc/ssh/ssh_host_ecdsa_key.pub"), &causes::RANDOMNESS),
    (Is("etc/ssh/ssh_host_ed25519_key"), &causes::RANDOMNESS),
    (Is("etc/ssh/ssh_host_ed25519_key.pub"), &causes::RANDOMNESS),
    (Below("etc/pacman.d/gnupg"), &causes::RANDOMNESS),
    (Is("var/lib/dpkg/status-old"), &causes::DIRTY_PATH),
    (Is("var/lib/dpkg/available-old"), &causes::DIRTY_PATH),
    (Is("var/lib/dpkg/diversions-old"), &causes::DIRTY_PATH),
    (Is("var/lib/dpkg/statoverride-old"), &causes::DIRTY_PATH),
    (Is("var/lib/dpkg/status"), &causes::NETWORK_DRIFT),
    (Is("lib/apk/db/installed"), &causes::NETWORK_DRIFT),
    (Below("var/log"), &causes::DIRTY_PATH),
    (Below("var/cache/apt"), &causes::DIRTY_PATH),
    (Below("var/cache/debconf"), &causes::DIRTY_PATH),
    (Below("var/cache/man"), &causes::DIRTY_PATH),
    (Below("var/cache/fontconfig"), &causes::DIRTY_PATH),
    (Below("var/lib/apt/lists"), &causes::DIRTY_PATH),
    (Is("etc/.pwd.lock"), &causes::DIRTY_PATH),
    (Is("etc/passwd-"), &causes::DIRTY_PATH),
    (Is("etc/shadow-"), &causes::DIRTY_PATH),
    (Is("etc/group-"), &causes::DIRTY_PATH),
    (Is("etc/gshadow-"), &causes::DIRTY_PATH),
    (Is(".wget-hsts"), &causes::DIRTY_PATH),
    (Is("node_modules/.package-lock.json"), &causes::NODE_MODULES),
    (Is("node_modules/.yarn-state.yml"), &causes::NODE_MODULES),
    (Is("node_modules/.modules.yaml"), &causes::NODE_MODULES),
    (Below("node_modules/.cache"), &causes::NODE_MODULES),
    (Is("searchindex.js"), &causes::DOCS_GENERATOR),
    (Below(".doctrees"), &causes::DOCS_GENERATOR),
    (Ends(".doctree"), &causes::DOCS_GENERATOR),
    (Below("__pycache__"), &causes::PYTHON_BYTECODE),
    (Ends(".pyc"), &causes::PYTHON_BYTECODE),
];

/// Names of signatures, below a directory of that name.
const SIGNATURE_ENDS: [&str; 7] = [".RSA", ".DSA", ".EC", ".SF", ".asc", ".sig", ".p7s"];

fn is_at(path: &str, place: &str) -> bool {
    path == place || path.strip_suffix(place).is_some_and(|before| before.ends_with('/'))
}

fn fits(path: &str, known: &Known) -> bool {
    match known {
        Is(place) => is_at(path, place),
        Below(place) => path.match_indices(place).any(|(at, _)| {
            let begins = at == 0 || path[..at].ends_with('/');
            begins && path[at + place.len()..].starts_with('/')
        }),
        Ends(end) => path.ends_with(end),
    }
}

fn known(path: &str) -> Option<&'static Cause> {
    let path = path.trim_start_matches("./").trim_start_matches('/');
    KNOWN.iter().find(|(known, _)| fits(path, known)).map(|(_, cause)| *cause)
}

/// The cause of a path that only one of the builds has, where it is one that distributions or tools are known to leave behind.
pub fn only_cause(path: &str) -> Option<&'static Cause> {
    known(path)
}

/// Why what is otherwise the same has two names. Nothing that is planted in a name is overlooked.
pub fn name_cause(a: &str, b: &str, context: &Context) -> (&'static Cause, Certainty) {
    if a != b && context.alone.is_none() && folded(a) == folded(b) {
        return (&causes::NAME_CASE, Certainty::Proven);
    }
    let markers = Markers::of(context);
    let mut all = Gathered::new(context, &markers);
    within(&mut all, &[], (a.as_bytes(), 0..a.len()), (b.as_bytes(), 0..b.len()), true);
    let findings = all.finish();
    let rank = |finding: &Finding| (finding.certainty, finding.cause != &causes::UNKNOWN);
    let best = findings.iter().rev().max_by_key(|finding| rank(finding));
    match best {
        Some(finding) if finding.cause != &causes::UNKNOWN => (finding.cause, finding.certainty),
        _ if is_random_part(a, b) => (&causes::RANDOMNESS, Certainty::Suspected),
        _ => (&causes::UNKNOWN, Certainty::Suspected),
    }
}

/// Names of one length that end and begin alike, with six letters and digits or more that differ between.
fn is_random_part(a: &str, b: &str) -> bool {
    let start = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let end = a.bytes().rev().zip(b.bytes().rev()).take_while(|(a, b)| a == b).count();
    if a.len() != b.len() || start + end + 4 > a.len() {
        return false;
    }
    let around = |name: &str| {
        let range = signatures::word_around(name.as_bytes(), &(start..name.len() - end));
        let middle = &name.as_bytes()[start..name.len() - end];
        let kinds = [u8::is_ascii_lowercase as fn(&u8) -> bool, u8::is_ascii_uppercase, u8::is_ascii_digit];
        let kinds = kinds.into_iter().filter(|is| middle.iter().any(is)).count();
        range.len() >= 6 && kinds >= 2 && middle.iter().all(u8::is_ascii_alphanumeric)
    };
    around(a) && around(b)
}

/// A name in small letters, with letters of Latin-1 taken apart and marks left out: the same for both Unicode forms of it.
fn folded(name: &str) -> String {
    const LATIN: &str = "aaaaaaæceeeeiiiiðnooooo×øuuuuýþßaaaaaaæceeeeiiiiðnooooo÷øuuuuýþy";
    let letters: Vec<char> = LATIN.chars().collect();
    let plain = name.chars().filter(|letter| !('\u{300}'..='\u{36f}').contains(letter)).flat_map(|letter| {
        let place = (letter as usize).checked_sub(0xc0);
        let letter = place.and_then(|place| letters.get(place)).copied().unwrap_or(letter);
        letter.to_lowercase()
    });
    plain.collect()
}

/// Puts what is known of the path of a file in the place of what its bytes look like. What is planted stays.
pub(super) fn revise(all: &mut Gathered<'_>, name: &str, a: &[u8], b: &[u8]) {
    let is_signature = SIGNATURE_ENDS.iter().any(|end| name.ends_with(end));
    let is_signed_module = |file: &[u8]| file.ends_with(b"~Module signature appended~\n");
    let cause = match known(name) {
        Some(cause) => cause,
        None if is_signature => &causes::SIGNATURE,
        None if name.ends_with(".ko") && is_signed_module(a) && is_signed_module(b) => &causes::SIGNATURE,
        None => return,
    };
    if cause == &causes::NETWORK_DRIFT && !has_versions(a, b) {
        return;
    }
    all.revise(|finding| {
        let is_weak = finding.certainty == Certainty::Suspected || finding.cause == &causes::TIMESTAMP_EMBEDDED;
        let is_planted = finding.dimension.is_some();
        let is_only_weak = is_signature || cause == &causes::NETWORK_DRIFT || cause == &causes::PYTHON_BYTECODE;
        if is_planted
            || !is_weak
            || (is_only_weak && finding.cause != &causes::UNKNOWN && finding.cause != &causes::RANDOMNESS)
        {
            return;
        }
        finding.what = format!("{}: {}", cause.title, finding.what);
        finding.cause = cause;
    });
}

/// Whether lines that tell versions of packages are not the same.
fn has_versions(a: &[u8], b: &[u8]) -> bool {
    let versions = |file: &[u8]| -> Vec<Vec<u8>> {
        let lines = file.split(|byte| *byte == b'\n');
        let mut versions: Vec<Vec<u8>> =
            lines.filter(|line| line.starts_with(b"Version:") || line.starts_with(b"V:")).map(<[u8]>::to_vec).collect();
        versions.sort();
        versions
    };
    versions(a) != versions(b)
}
