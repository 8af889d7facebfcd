//! Listings, nesting, consequences, markers, and limits.

use std::collections::BTreeMap;

use crate::audit::compare::tests::make::*;
use crate::audit::compare::tests::{causes, check, compared};
use crate::audit::compare::{Comparison, Limits, files, trees};
use crate::audit::context::{Context, Planted};
use crate::audit::model::{Certainty, Verdict};
use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::sandbox::surroundings::Dimension;

/// Compares two trees of files.
pub(super) fn listed(a: &[(&str, &[u8])], b: &[(&str, &[u8])]) -> Comparison {
    let mut blobs = BTreeMap::new();
    let mut listing = |files: &[(&str, &[u8])]| -> Listing {
        let entry = |(name, bytes): &(&str, &[u8])| {
            let digest = Digest::of(bytes);
            blobs.insert(digest, bytes.to_vec());
            let entry = Entry::File { digest, size: bytes.len() as u64, executable: name.ends_with(".sh") };
            (RelPath::parse(name).expect("a path"), entry)
        };
        files.iter().map(entry).collect()
    };
    let (a, b) = (listing(a), listing(b));
    let contents = |digest: &Digest| blobs.get(digest).cloned().ok_or_else(|| "it is gone".to_owned());
    trees(&a, &b, &contents, &Context::default(), &Limits::default())
}

#[test]
fn a_time_two_archives_deep_is_found_and_normalized() {
    let deep = |mtime| {
        let inner = plain_gzip(&tar(&[Tar { mtime, ..file("etc/x", "1") }]));
        zip(&[zipped("a.tar.gz", plain_gzip(&tar(&[file("inner.tgz", inner)])))])
    };
    let found = check("deep", &deep(1), &deep(2), &["timestamp.file-mtime"], Verdict::Equivalent, &["tar-time"]);
    let members = ["a.tar.gz", "(gzip)", "inner.tgz", "(gzip)", "etc/x"];
    assert_eq!(found.differences[0].site.members, members);
}

#[test]
fn digests_of_what_differs_are_consequences_and_other_digests_are_not() {
    let archive = |mtime| tar(&[Tar { mtime, ..file("x", "1") }]);
    let (a, b) = (archive(1), archive(2));
    let sums = |bytes: &[u8]| format!("{}  out.tar\n", sha256(bytes)).into_bytes();
    let found = listed(&[("SUMS", &sums(&a)), ("out.tar", &a)], &[("SUMS", &sums(&b)), ("out.tar", &b)]);
    assert_eq!(causes(&found), ["timestamp.file-mtime"; 2], "{found:#?}");
    assert_eq!(found.differences[0].consequence_of.as_ref(), Some(&found.differences[1].site));
    assert_eq!((found.verdict, found.normalizers.as_slice()), (Verdict::Equivalent, &["digests", "tar-time"][..]));
    let lie = listed(&[("SUMS", &sums(b"x")), ("out.tar", &a)], &[("SUMS", &sums(b"y")), ("out.tar", &b)]);
    assert_eq!(lie.verdict, Verdict::Different);
    assert!(lie.differences.iter().all(|one| one.consequence_of.is_none()), "{lie:#?}");
}

#[test]
fn a_record_of_a_wheel_follows_from_the_file_it_names() {
    use base64::Engine;
    let wheel = |text: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let digest = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest);
        let record = format!("m.py,sha256={digest},{}\nx.dist-info/RECORD,,\n", text.len());
        zip(&[zipped("m.py", text), zipped("x.dist-info/RECORD", record)])
    };
    let found = compared(&wheel("date = 1"), &wheel("date = 1234"));
    let followed: Vec<bool> = found.differences.iter().map(|one| one.consequence_of.is_some()).collect();
    assert_eq!(followed, [false, true], "{found:#?}");
}

#[test]
fn listings_tell_sets_renames_and_missing_content() {
    let found = listed(&[("a", b"1"), ("tmp.1234/x", b"same")], &[("b", b"2"), ("tmp.99/x", b"same")]);
    assert_eq!(found.verdict, Verdict::Different);
    let whats: Vec<&str> = found.differences.iter().map(|one| one.what.as_str()).collect();
    let expect = [
        "only on the first side",
        "only on the second side",
        "renamed: `tmp.1234/x` on the first side, `tmp.99/x` on the second",
    ];
    assert_eq!(whats, expect);
    assert_eq!(listed(&[("a", b"1")], &[("a", b"1")]).verdict, Verdict::Identical);
    assert_eq!(causes(&listed(&[("x.sh", b"1")], &[("y", b"1")])).len(), 2, "renamed, and executable");
}

#[test]
fn a_marker_in_a_header_is_proven_with_what_was_varied() {
    let context = Context {
        planted: vec![Planted { dimension: Dimension::User, a: "user-one".into(), b: "user-two".into() }],
        ..Context::default()
    };
    let by = |uname| tar(&[Tar { uname, ..file("x", "1") }]);
    let found = files("x", &by("user-one"), &by("user-two"), &context, &Limits::default());
    let one = &found.differences[0];
    assert_eq!((one.certainty, one.dimension), (Certainty::Proven, Some(Dimension::User)));
    let other = files("x", &by("ann"), &by("bob"), &context, &Limits::default());
    assert_eq!(other.differences[0].dimension, None);
    let alone = Context { alone: Some(Dimension::Clock), ..Context::default() };
    let found = files("x", &by("ann"), &by("bob"), &alone, &Limits::default());
    assert_eq!(found.differences[0].dimension, Some(Dimension::Clock));
}

#[test]
fn what_is_over_a_limit_is_different_and_noted() {
    let archive = |mtime| plain_gzip(&tar(&[Tar { mtime, ..file("a", "1") }, Tar { mtime, ..file("b", "2") }]));
    for (case, limits) in [
        ("depth", Limits { depth: 1, ..Limits::default() }),
        ("bytes", Limits { unpacked_bytes: 1000, ..Limits::default() }),
        ("content", Limits { content_bytes: 1000, ..Limits::default() }),
        ("entries", Limits { entries: 1, ..Limits::default() }),
    ] {
        let found = files("x", &archive(1), &archive(2), &Context::default(), &limits);
        assert_eq!((found.verdict, causes(&found)), (Verdict::Different, vec!["unknown"]), "{case}");
        assert_eq!(found.notes.len(), 1, "{case}");
    }
    let found = files("x", &archive(1), &archive(2), &Context::default(), &Limits { told: 1, ..Limits::default() });
    assert_eq!((found.differences.len(), found.untold, found.verdict), (1, 1, Verdict::Equivalent));
    let short = Limits { leaf_bytes: 2, ..Limits::default() };
    assert_eq!(files("x", b"abcd", b"abce", &Context::default(), &short).verdict, Verdict::Different);
}
