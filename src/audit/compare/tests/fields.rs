//! Each header field of each format alone.

use crate::audit::compare::tests::make::*;
use crate::audit::compare::tests::{check, compared};
use crate::audit::model::Verdict::{self, Different, Equivalent, IdenticalUncompressed};

/// The case, the second side, and what is expected: causes, verdict, normalizers.
type Row = (&'static str, Vec<u8>, &'static [&'static str], Verdict, &'static [&'static str]);

#[test]
fn each_field_of_a_tar_header_has_its_cause() {
    let one = |edit: &dyn Fn(&mut Tar)| {
        let mut member = file("dir/a", "text");
        edit(&mut member);
        tar(&[member, file("b", "other")])
    };
    let plain = one(&|_| {});
    let rows: Vec<Row> = vec![
        ("mtime", one(&|m| m.mtime += 1), &["timestamp.file-mtime"], Equivalent, &["tar-time"]),
        ("uid", one(&|m| m.uid = 1000), &["owner"], Equivalent, &["tar-owners"]),
        ("gid", one(&|m| m.gid = 1000), &["owner"], Equivalent, &["tar-owners"]),
        ("uname", one(&|m| m.uname = "ann"), &["owner"], Equivalent, &["tar-owners"]),
        ("mode of others", one(&|m| m.mode = 0o664), &["umask"], Equivalent, &["tar-mode"]),
        ("mode of the owner", one(&|m| m.mode = 0o744), &["file-mode"], Different, &[]),
        ("set user", one(&|m| m.mode = 0o4644), &["file-mode"], Different, &[]),
        ("device", one(&|m| m.device = 8), &["archive.format"], Equivalent, &["tar-device"]),
        ("xattr", one(&|m| m.pax = vec![("SCHILY.xattr.user.a", "1")]), &["xattr"], Different, &[]),
        ("atime", one(&|m| m.pax = vec![("atime", "1.5")]), &["timestamp.file-mtime"], Equivalent, &["tar-time"]),
        ("hard link", one(&|m| (m.kind, m.link, m.bytes) = (b'1', "b", vec![])), &["hardlink"], Different, &[]),
        ("directory", one(&|m| (m.kind, m.bytes) = (b'5', vec![])), &["file-mode"], Different, &[]),
        ("content", one(&|m| m.bytes = b"more text".to_vec()), &["unknown"], Different, &[]),
    ];
    for (case, bytes, expect, verdict, normalizers) in rows {
        let found = check(case, &plain, &bytes, expect, verdict, normalizers);
        assert_eq!(found.differences[0].site.members, ["dir/a"], "{case}");
    }
}

#[test]
fn tar_archives_differ_as_a_whole() {
    let (a, b) = (file("a", "1"), file("b", "2"));
    let plain = tar(&[a.clone(), b.clone()]);
    check("order", &plain, &tar(&[b.clone(), a.clone()]), &["file-order"], Equivalent, &["tar-order"]);
    check("set", &plain, &tar(std::slice::from_ref(&a)), &["file-set"], Different, &[]);
    check("twice", &plain, &tar(&[a.clone(), b.clone(), b.clone()]), &["file-set"], Different, &[]);
    let longer = [plain.clone(), vec![0; 512]].concat();
    check("end", &plain, &longer, &["archive.format"], Equivalent, &["tar-padding"]);
    check("end", &plain, &[&plain[..], &[1; 512]].concat(), &["unknown"], Different, &[]);
    let pax = |name| Tar { pax: vec![("mtime", "1.5")], pax_name: name, ..file("a", "1") };
    let (x, y) = (tar(&[pax("PaxHeaders.17/a")]), tar(&[pax("PaxHeaders.18/a")]));
    check("pid", &x, &y, &["pid"], Equivalent, &["tar-format"]);
    let gone = |mtime| tar(&[Tar { mtime, ..file("etc/.wh.x", "") }]);
    check("whiteout", &gone(1), &gone(2), &["whiteout-time"], Equivalent, &["tar-time"]);
    let link = |link| tar(&[Tar { kind: b'2', link, ..file("l", "") }]);
    check("link", &link("a"), &link("b"), &["link-target"], Different, &[]);
    let renamed = tar(&[a, file("c", "2")]);
    let found = compared(&plain, &renamed);
    assert_eq!(found.differences.len(), 1, "one of a rename: {found:#?}");
    assert!(found.differences[0].what.starts_with("renamed"), "{found:#?}");
}

#[test]
fn each_field_of_a_gzip_header_has_its_cause() {
    let text = "some text that repeats, some text that repeats, and differs ".repeat(40).into_bytes();
    let plain = plain_gzip(&text);
    let normal: &[&str] = &["gzip-header"];
    check("mtime", &plain, &gzip(&text, |b| b.mtime(7), 6), &["timestamp.gzip-header"], Equivalent, normal);
    check("os", &plain, &gzip(&text, |b| b.operating_system(3), 6), &["gzip.os"], Equivalent, normal);
    check("name", &plain, &gzip(&text, |b| b.filename("x"), 6), &["gzip.name"], Equivalent, normal);
    check("comment", &plain, &gzip(&text, |b| b.comment("x"), 6), &["gzip.name"], Equivalent, normal);
    check("extra", &plain, &gzip(&text, |b| b.extra("x"), 6), &["gzip.name"], Equivalent, normal);
    check("level", &plain, &gzip(&text, |b| b, 1), &["compressor.version"; 2], IdenticalUncompressed, &[]);
    let halves = [plain_gzip(&text[..500]), plain_gzip(&text[500..])].concat();
    let found = compared(&plain, &halves);
    assert!(found.differences.iter().any(|one| one.cause.id == "compressor.threads"), "{found:#?}");
    check("content", &plain, &plain_gzip(b"other"), &["unknown"], Different, &[]);
    let other = gzip(b"other", |b| b.mtime(7), 6);
    check("both", &plain, &other, &["timestamp.gzip-header", "unknown"], Different, &[]);
}

#[test]
fn zstd_and_xz_are_looked_into() {
    let text = "some text that repeats, some text that repeats, and differs ".repeat(400).into_bytes();
    let zstd = |bytes: &[u8], level| zstd::stream::encode_all(bytes, level).expect("a vector takes it");
    let xz = |bytes: &[u8], level| {
        let mut out = Vec::new();
        std::io::Read::read_to_end(&mut xz2::read::XzEncoder::new(bytes, level), &mut out).expect("a vector takes it");
        out
    };
    let same = &["compressor.version"][..];
    check("zstd", &zstd(&text, 1), &zstd(&text, 19), same, IdenticalUncompressed, &[]);
    check("xz", &xz(&text, 0), &xz(&text, 9), same, IdenticalUncompressed, &[]);
    check("both", &xz(&text, 0), &zstd(&text, 9), same, IdenticalUncompressed, &[]);
    check("zstd", &zstd(&text, 1), &zstd(b"x", 1), &["unknown"], Different, &[]);
    let skipped = [zstd(&text, 1), b"\x50\x2a\x4d\x18\x01\0\0\0x".to_vec()].concat();
    check("skippable frame", &zstd(&text, 1), &skipped, &["unknown"], Different, &[]);
}

#[test]
fn each_field_of_an_ar_header_has_its_cause() {
    let one = |fields: &str| ar(&[("a.o/", fields, b"abc"), ("b.o/", &ar_fields(0, 0, 0, 0o644), b"de")]);
    let plain = one(&ar_fields(0, 0, 0, 0o644));
    for (case, fields) in [
        ("time", ar_fields(7, 0, 0, 0o644)),
        ("uid", ar_fields(0, 7, 0, 0o644)),
        ("gid", ar_fields(0, 0, 7, 0o644)),
        ("mode", ar_fields(0, 0, 0, 0o664)),
    ] {
        let found = check(case, &plain, &one(&fields), &["ar.header"], Equivalent, &["ar-header"]);
        assert_eq!(found.differences[0].site.members, ["a.o"], "{case}");
    }
    let fields = ar_fields(0, 0, 0, 0o644);
    let (x, y) = (("a.o/", fields.as_str(), &b"abc"[..]), ("b.o/", fields.as_str(), &b"de"[..]));
    check("order", &ar(&[x, y]), &ar(&[y, x]), &["file-order"], Equivalent, &["ar-order"]);
    // Positions in the index follow from the sizes of members.
    let library = |content: &[u8]| {
        let mut index = vec![0, 0, 0, 2, 0, 0, 0, 88];
        index.extend(88_u32.wrapping_add(60 + content.len().next_multiple_of(2) as u32).to_be_bytes());
        index.extend(b"foo\0bar\0");
        ar(&[("/", &fields, &index), ("a.o/", &fields, content), ("b.o/", &fields, b"de")])
    };
    let found = check("index", &library(b"abcd"), &library(b"abcdef"), &["unknown"], Different, &[]);
    assert_eq!(found.differences[0].site.members, ["a.o"]);
}

#[test]
fn each_field_of_a_cpio_header_has_its_cause() {
    let one = |fields| cpio(&[("a", fields, b"text"), ("bcd", [2, 0o100_644, 0, 0, 1, 5], b"x")]);
    let plain = one([1, 0o100_644, 0, 0, 1, 5]);
    let rows: [(&str, [u32; 6], &str, _, &[&str]); 6] = [
        ("inode", [9, 0o100_644, 0, 0, 1, 5], "cpio.header", Equivalent, &["cpio-header"]),
        ("mode", [1, 0o100_664, 0, 0, 1, 5], "umask", Equivalent, &["cpio-mode"]),
        ("uid", [1, 0o100_644, 9, 0, 1, 5], "owner", Equivalent, &["cpio-owners"]),
        ("gid", [1, 0o100_644, 0, 9, 1, 5], "owner", Equivalent, &["cpio-owners"]),
        ("links", [1, 0o100_644, 0, 0, 2, 5], "hardlink", Different, &[]),
        ("mtime", [1, 0o100_644, 0, 0, 1, 6], "timestamp.file-mtime", Equivalent, &["cpio-time"]),
    ];
    for (case, fields, cause, verdict, normalizers) in rows {
        check(case, &plain, &one(fields), &[cause], verdict, normalizers);
    }
}

#[test]
fn each_field_of_a_zip_archive_has_its_cause() {
    let text = "some text that repeats, some text that repeats, and differs ".repeat(40).into_bytes();
    let one = |edit: &dyn Fn(&mut Zip)| {
        let mut member = zipped("dir/a", &text);
        edit(&mut member);
        zip(&[member, zipped("b", "other")])
    };
    let plain = one(&|m| m.extra = b"UT\x05\0\x01\0\0\0\0".to_vec());
    let ut = |m: &mut Zip| m.extra = b"UT\x05\0\x01\0\0\0\0".to_vec();
    let rows: Vec<Row> = vec![
        ("time", one(&|m| (ut(m), m.moment += 1).0), &["zip.time"], Equivalent, &["zip-time"]),
        ("UT", one(&|m| m.extra = b"UT\x05\0\x01\x09\0\0\0".to_vec()), &["zip.time"], Equivalent, &["zip-time"]),
        ("no extra", one(&|_| {}), &["zip.extra"; 2], Equivalent, &["zip-extra", "zip-time"]),
        ("creator", one(&|m| (ut(m), m.creator = 0x0014).0), &["zip.creator"], Equivalent, &["zip-creator"]),
        ("mode", one(&|m| (ut(m), m.mode = 0o100_664).0), &["umask"], Equivalent, &["zip-mode"]),
        ("executable", one(&|m| (ut(m), m.mode = 0o100_755).0), &["file-mode"], Different, &[]),
        ("level", one(&|m| (ut(m), m.level = 1).0), &["compressor.version"], IdenticalUncompressed, &[]),
        ("stored", one(&|m| (ut(m), m.stored = true).0), &["compressor.version"], IdenticalUncompressed, &[]),
        ("comment", one(&|m| (ut(m), m.comment = "x").0), &["zip.extra"], Different, &[]),
        ("content", one(&|m| (ut(m), m.bytes.push(1)).0), &["unknown"], Different, &[]),
    ];
    for (case, bytes, expect, verdict, normalizers) in rows {
        let found = check(case, &plain, &bytes, expect, verdict, normalizers);
        assert_eq!(found.differences[0].site.members, ["dir/a"], "{case}");
    }
    let (a, b) = (zipped("a", "1"), zipped("b", "2"));
    check("order", &zip(&[a.clone(), b.clone()]), &zip(&[b, a]), &["file-order"], Equivalent, &["zip-order"]);
}
