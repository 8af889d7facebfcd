//! Archives that nobody should make, and what is made of each.

use super::*;

/// A tar archive of raw entries: name, type, link target, content.
fn archive(entries: &[(&str, tar::EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, target, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("a vector takes it");
    }
    builder.into_inner().expect("a vector takes it")
}

fn unpacked(bytes: &[u8], strip: usize) -> (tempfile::TempDir, Result<(), ArchiveError>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("a.tar");
    ops::write(&file, bytes).expect("a temporary file");
    let to = dir.path().join("to");
    ops::create_dir(&to).expect("a temporary directory");
    let result = unpack(&file, "a.tar", strip, &to);
    (dir, result)
}

/// What is said of an archive that is refused, of which nothing lands outside.
#[track_caller]
fn refused(name: &str, bytes: &[u8], bytes_max: u64) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join(name);
    ops::write(&file, bytes).expect("a temporary file");
    let to = dir.path().join("to");
    ops::create_dir(&to).expect("a temporary directory");
    let error = unpack_within(&file, name, 0, &to, bytes_max).expect_err("it is refused");
    assert!(!error.is_of_the_machine(), "{error}");
    let names: Vec<_> = ops::read_dir(dir.path()).expect("a directory").into_iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), 2, "something landed outside: {names:?}");
    error.to_string()
}

#[test]
fn hostile_entries_are_refused_and_nothing_lands_outside() {
    use tar::EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};
    let check = |entries: &[(&str, tar::EntryType, &str, &str)], expect: &str| {
        let told = refused("a.tar", &archive(entries), 1 << 20);
        assert!(told.contains(expect), "{entries:?}: {told}");
    };
    check(&[("../evil", Regular, "", "x")], "leaves its directory");
    check(&[("a/../../evil", Regular, "", "x")], "leaves its directory");
    check(&[("a/..", Directory, "", "")], "leaves its directory");
    check(&[("../evil", Symlink, "x", "")], "leaves its directory");
    check(&[("/evil", Regular, "", "x")], "no relative path");
    check(&[("//evil", Regular, "", "x")], "no relative path");
    check(&[("a//b", Regular, "", "x")], "no relative path");
    for target in ["..", "/", "/tmp", "."] {
        let out = ("out", Symlink, target, "");
        check(&[out, ("out/evil", Regular, "", "x")], "behind a link");
        check(&[out, ("out/evil", Directory, "", "")], "behind a link");
        check(&[out, ("out/evil", Symlink, "x", "")], "behind a link");
        check(&[out, ("x", Link, "out/evil", "")], "behind a link");
        check(&[("a", Link, "out", ""), ("a/evil", Regular, "", "")], "does not hold");
        check(&[out, ("a", Link, "out", ""), ("a/evil", Regular, "", "x")], "behind a link");
        check(&[("a/b", Symlink, target, ""), ("a/b/c/d", Regular, "", "x")], "behind a link");
    }
    for target in ["../evil", "/etc/passwd", "x/../../evil"] {
        assert!(refused("a.tar", &archive(&[("a", Link, target, "")]), 1 << 20).contains(target));
    }
    check(&[("d", Directory, "", ""), ("a", Link, "d", "")], "a hard link to a directory");
    check(&[("a", Link, "a", "")], "does not hold");
    for kind in [Fifo, Block, Char] {
        check(&[("x", kind, "", "")], "a device, a pipe");
    }
    check(&[("a", Symlink, "", "")], "without a target");
    check(&[("a", tar::EntryType::new(b'Q'), "", "")], "no file");
}

#[test]
fn what_takes_the_place_of_something_else_is_refused_or_replaces_it_whole() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let check = |entries: &[(&str, tar::EntryType, &str, &str)], expect: &str| {
        let told = refused("a.tar", &archive(entries), 1 << 20);
        assert!(told.contains(expect), "{entries:?}: {told}");
    };
    for kind in [Regular, Symlink] {
        check(&[("d/x", Regular, "", "1"), ("d", kind, "t", "")], "directory that is not empty");
    }
    check(&[("d/x", Regular, "", "1"), ("y", Regular, "", "2"), ("d", Link, "y", "")], "directory that is not empty");
    check(&[("d/e", Directory, "", ""), ("d", Regular, "", "")], "directory that is not empty");
    check(&[("f", Regular, "", "1"), ("f/x", Regular, "", "2")], "needs a directory where it has a file");
    check(&[("f", Regular, "", "1"), ("f/x/y/z", Regular, "", "2")], "needs a directory where it has a file");
    check(&[("f", Regular, "", "1"), ("f", Directory, "", "")], "needs a directory where it has a file");
    let good = [
        ("twice", Regular, "", "one"),
        ("twice", Regular, "", "two"),
        ("link", Symlink, "twice", ""),
        ("link", Regular, "", "own"),
        ("empty", Directory, "", ""),
        ("empty", Regular, "", "file"),
        ("other", Symlink, "/", ""),
        ("other", Symlink, "twice", ""),
        ("d", Directory, "", ""),
        ("d", Directory, "", ""),
    ];
    let (dir, result) = unpacked(&archive(&good), 0);
    result.expect("it unpacks");
    let read = |path: &str| ops::read_text(&dir.path().join("to").join(path)).expect("a file");
    assert_eq!([read("twice"), read("link"), read("empty"), read("other")], ["two", "own", "file", "two"]);
}

#[test]
fn what_goes_beyond_a_limit_is_refused_before_it_fills_the_disk() {
    let with_name = |name: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &b""[..]).expect("a vector takes it");
        builder.into_inner().expect("a vector takes it")
    };
    let deep = |count: usize| with_name(&format!("{}x", "d/".repeat(count)));
    assert!(unpacked(&deep(TREE_DEPTH_MAX - 1), 0).1.is_ok());
    assert!(refused("a.tar", &deep(TREE_DEPTH_MAX), 1 << 20).contains("too deep"));
    assert!(refused("a.tar", &deep(100_000), 1 << 20).contains("too deep"));
    assert!(refused("a.tar", &with_name(&"long".repeat(64)), 1 << 20).contains("long"));
    // Each name makes directories, and those count as well.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut placing = Placing::new(dir.path(), 0, 1 << 20);
    placing.entries = MEMBERS_MAX - 10;
    let told = placing.tar(deep(20).as_slice()).expect_err("too many").to_string();
    assert!(told.contains("one directory too many"), "{told}");
    assert!(!ops::exists(&dir.path().join("d")));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = archive(&[("x", tar::EntryType::Regular, "", &"\0".repeat(4 << 20))]);
    std::io::Write::write_all(&mut gzip, &zeros).expect("a vector takes it");
    let bomb = gzip.finish().expect("a vector takes it");
    assert!(bomb.len() < 20_000);
    assert!(refused("a.tar.gz", &bomb, 1 << 20).contains("too large"));
    let copies = [("x", tar::EntryType::Regular, "", "0123456789"), ("y", tar::EntryType::Link, "x", "")];
    assert!(refused("a.tar", &archive(&copies), 15).contains("too large"), "each hard link is a copy");
    // The head of an xz stream that wants a dictionary of 4 GiB.
    let stream = xz2::stream::LzmaOptions::new_preset(0).expect("a preset");
    let mut filters = xz2::stream::Filters::new();
    filters.lzma2(&stream);
    let encoder = xz2::stream::Stream::new_stream_encoder(&filters, xz2::stream::Check::Crc32).expect("an encoder");
    let mut xz = xz2::write::XzEncoder::new_stream(Vec::new(), encoder);
    std::io::Write::write_all(&mut xz, &zeros).expect("a vector takes it");
    let mut greedy = xz.finish().expect("a vector takes it");
    // Block header: size, flags, filter id 0x21, one byte of properties, which is the size of the dictionary; then padding and a sum.
    assert_eq!(greedy[14..16], [0x21, 1]);
    greedy[16] = 40;
    let mut sum = flate2::Crc::new();
    sum.update(&greedy[12..20]);
    greedy[20..24].copy_from_slice(&sum.sum().to_le_bytes());
    let told = refused("a.tar.xz", &greedy, 1 << 20);
    assert!(told.contains("memory"), "{told}");
}

/// A zip archive of raw entries: name, Unix mode, content; nothing is compressed.
fn zipped(entries: &[(&[u8], u32, &[u8])]) -> Vec<u8> {
    /// Names are UTF-8.
    const FLAGS: u16 = 1 << 11;
    let (mut bytes, mut central) = (Vec::new(), Vec::new());
    for (name, mode, content) in entries {
        let mut sum = flate2::Crc::new();
        sum.update(content);
        let (length, at) = (content.len() as u32, bytes.len() as u32);
        let mut fields = Vec::new();
        [20, FLAGS, 0, 0, 33].iter().for_each(|field: &u16| fields.extend(field.to_le_bytes()));
        [sum.sum(), length, length].iter().for_each(|field| fields.extend(field.to_le_bytes()));
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend(0_u16.to_le_bytes());
        bytes.extend(*b"PK\x03\x04");
        bytes.extend(&fields);
        bytes.extend(*name);
        bytes.extend(*content);
        // Made on Unix.
        central.extend(*b"PK\x01\x02\x14\x03");
        central.extend(&fields);
        central.extend([0; 6]);
        central.extend((mode << 16).to_le_bytes());
        central.extend(at.to_le_bytes());
        central.extend(*name);
    }
    let (count, at, length) = (entries.len() as u16, bytes.len() as u32, central.len() as u32);
    bytes.extend(central);
    bytes.extend(*b"PK\x05\x06\0\0\0\0");
    bytes.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    bytes.extend([length.to_le_bytes(), at.to_le_bytes()].concat());
    bytes.extend([0; 2]);
    bytes
}

#[test]
fn hostile_entries_of_zip_archives_are_refused_and_nothing_lands_outside() {
    let (file, link) = (libc::S_IFREG | 0o644, libc::S_IFLNK | 0o777);
    let check = |entries: &[(&[u8], u32, &[u8])], expect: &str| {
        let told = refused("a.zip", &zipped(entries), 1 << 20);
        assert!(told.contains(expect), "{told}");
    };
    check(&[(b"../evil", file, b"x")], "leaves its directory");
    check(&[(b"a/../../evil", file, b"x")], "leaves its directory");
    check(&[(b"/evil", file, b"x")], "no relative path");
    check(&[(b"a\\..\\..\\evil", file, b"x")], "backslash");
    check(&[(b"C:\\evil", file, b"x")], "backslash");
    check(&[(b"a\xff", file, b"x")], "not UTF-8");
    check(&[(b"a\0b", file, b"x")], "no relative path");
    check(&[(b"out", link, b".."), (b"out/evil", file, b"x")], "behind a link");
    check(&[(b"out", link, b"/tmp"), (b"out/", libc::S_IFDIR | 0o755, b""), (b"out/../../evil", file, b"x")], "leaves");
    check(&[(b"l", link, b"\xff")], "not UTF-8");
    check(&[(b"l", link, b"")], "target no disk would take");
    check(&[(b"l", link, b"a\0b")], "target no disk would take");
    check(&[(b"l", link, "long/".repeat(1000).as_bytes())], "target no disk would take");
    for kind in [libc::S_IFIFO, libc::S_IFBLK, libc::S_IFCHR, libc::S_IFSOCK] {
        check(&[(b"x", kind | 0o644, b"")], "a device, a pipe");
    }
    check(&[(b"d/x", file, b"1"), (b"d", file, b"2")], "directory that is not empty");
    check(&[(b"f", file, b"1"), (b"f/x", file, b"2")], "needs a directory");
    check(&[(b".a.drystone-1-2", file, b"")], "keeps for itself");
    check(&[(b"x", file, &vec![0; (1 << 20) + 1])], "too large");
    let mut lies = zipped(&[(b"x", file, b"content")]);
    let at = lies.windows(7).position(|window| window == b"content").expect("it is there");
    lies[at] = b'C';
    assert!(refused("a.zip", &lies, 1 << 20).contains("broken"), "its sum is wrong");
    let whole = zipped(&[(b"x", file, b"content")]);
    for end in 0..whole.len() {
        assert!(refused("a.zip", &whole[..end], 1 << 20).contains("broken"), "cut off after {end} bytes");
    }
}

#[test]
fn a_zip_archive_unpacks_with_its_links_and_modes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (file, to) = (dir.path().join("a.zip"), dir.path().join("to"));
    let entries: [(&[u8], u32, &[u8]); 6] = [
        (b"twice", libc::S_IFLNK | 0o777, b"/"),
        (b"twice", libc::S_IFREG | 0o644, b"last"),
        (b"bin/", libc::S_IFDIR | 0o755, b""),
        (b"bin/x", libc::S_IFREG | 0o6755, b"hi"),
        (b"y", libc::S_IFLNK | 0o777, b"bin/x"),
        ("ä".as_bytes(), 0, b"plain"),
    ];
    ops::write(&file, &zipped(&entries)).expect("a temporary file");
    ops::create_dir(&to).expect("a temporary directory");
    unpack(&file, "A.ZIP", 0, &to).expect("it unpacks");
    let mode = |path: &str| {
        std::os::unix::fs::PermissionsExt::mode(&ops::metadata(&to.join(path)).expect("it is there").permissions())
            & 0o7111
    };
    assert_eq!((mode("bin/x"), mode("ä")), (0o111, 0), "set-user-id is not kept");
    assert_eq!(ops::read_text(&to.join("y")).expect("a link to a file"), "hi");
    assert_eq!(ops::read_text(&to.join("twice")).expect("a file"), "last");
}

/// A Debian package with one archive of files.
fn package(data: &str, bytes: &[u8]) -> Vec<u8> {
    let mut package = b"!<arch>\n".to_vec();
    for (name, content) in [("debian-binary", &b"2.0\n"[..]), ("control.tar", &archive(&[])), (data, bytes)] {
        package.extend(format!("{name:<16}{:<32}{:<10}`\n", 0, content.len()).bytes());
        package.extend(content);
        package.resize(package.len().next_multiple_of(2), b'\n');
    }
    package
}

#[test]
fn the_data_of_a_debian_package_is_unpacked_however_it_is_packed() {
    use std::io::Write;

    use tar::EntryType::{Directory, Regular};
    let tar = archive(&[("./", Directory, "", ""), ("./usr/bin/x", Regular, "", "hi")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("a vector takes it");
    let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&tar).expect("a vector takes it");
    let zstd = zstd::encode_all(tar.as_slice(), 1).expect("a vector takes it");
    for (name, bytes) in [
        ("data.tar", tar.clone()),
        ("data.tar.gz", gzip.finish().expect("a vector takes it")),
        ("data.tar.xz", xz.finish().expect("a vector takes it")),
        ("data.tar.zst", zstd),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (file, to) = (dir.path().join("x_1_all.deb"), dir.path().join("to"));
        ops::write(&file, &package(name, &bytes)).expect("a temporary file");
        ops::create_dir(&to).expect("a temporary directory");
        unpack(&file, "x_1_all.deb", 1, &to).expect("it unpacks");
        assert_eq!(ops::read_text(&to.join("bin/x")).expect("a file"), "hi", "{name}");
    }
}

#[test]
fn hostile_debian_packages_are_refused() {
    let evil = archive(&[("../evil", tar::EntryType::Regular, "", "x")]);
    let check = |bytes: &[u8], expect: &str| {
        let told = refused("a.deb", bytes, 1 << 20);
        assert!(told.contains(expect), "{told}");
    };
    check(&package("data.tar", &evil), "leaves its directory");
    check(&package("data.tar.bz2", &evil), "`data.tar.bz2`, which is compressed in a way");
    check(&package("data.tar.gz", &evil), "broken");
    check(&package("data.zip", &zipped(&[])), "order");
    check(&package("data.tar.zip", &zipped(&[])), "compressed in a way");
    check(&evil, "no Debian package");
    let large = archive(&[("x", tar::EntryType::Regular, "", &"x".repeat(2 << 20))]);
    check(&package("data.tar", &large), "too large");
}

#[test]
fn what_would_be_lost_or_changed_without_a_word_is_refused() {
    use tar::EntryType::{Link, Regular, Symlink};
    let check = |entries: &[(&str, tar::EntryType, &str, &str)], strip: usize, expect: &str| {
        let (_dir, result) = unpacked(&archive(entries), strip);
        let told = result.expect_err(expect).to_string();
        assert!(told.contains(expect), "{told}");
    };
    let dropped = [("x", Regular, "", "hi"), ("top/z", Link, "x", "")];
    check(&dropped, 1, "`top/z`, a link to what `strip` leaves out");
    check(&[("a", Link, "b", "")], 0, "a link to what it does not hold");
    check(&[(".a.drystone-1-2/x", Regular, "", "hi")], 0, "keeps for itself");
    for kind in [Symlink, Link] {
        let mut bytes = archive(&[("a\u{fffd}", Regular, "", "other"), ("z", kind, "axyz", "")]);
        // The header of the second entry: after one header and one block of content.
        let header = &mut bytes[1024..1536];
        header[157 + 1..157 + 4].copy_from_slice(b"\xff\0\0");
        let mut fixed = tar::Header::new_gnu();
        fixed.as_mut_bytes().copy_from_slice(header);
        fixed.set_cksum();
        header.copy_from_slice(fixed.as_bytes());
        let (_dir, result) = unpacked(&bytes, 0);
        assert!(result.is_err_and(|error| error.to_string().contains("not UTF-8")), "{kind:?}");
    }
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("GNU.sparse.major", b"1".as_slice())]).expect("a vector takes it");
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    builder.append_data(&mut header, "GNUSparseFile.0/a", b"0\n".as_slice()).expect("a vector takes it");
    let (_dir, result) = unpacked(&builder.into_inner().expect("a vector takes it"), 0);
    assert!(result.is_err_and(|error| error.to_string().contains("sparse")));
}

#[test]
fn a_file_of_holes_is_refused_before_it_is_written() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path("holes").expect("a short name");
    header.set_mode(0o644);
    header.set_size(0);
    let gnu = header.as_gnu_mut().expect("a GNU header");
    gnu.set_real_size(1 << 40);
    gnu.sparse[0].set_offset(1 << 40);
    gnu.sparse[0].set_length(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(3 * 512, 0);
    let file = dir.path().join("a.tar");
    ops::write(&file, &bytes).expect("a temporary file");
    let to = dir.path().join("to");
    ops::create_dir(&to).expect("a temporary directory");
    let error = unpack_within(&file, "a.tar", 0, &to, 1 << 20).expect_err("too large");
    assert!(error.to_string().contains("too large"), "{error}");
    assert!(!ops::exists(&to.join("holes")));
}

#[test]
fn a_directory_takes_the_place_of_a_link_wherever_that_leads() {
    use tar::EntryType::{Directory, Regular, Symlink};
    for target in ["/", "/nowhere", "."] {
        let entries = [
            ("d", Symlink, target, ""),
            ("d/", Directory, "", ""),
            ("d/x", Regular, "", "hi"),
            ("e/", Regular, "", ""),
        ];
        let (dir, result) = unpacked(&archive(&entries), 0);
        result.expect("it unpacks");
        assert_eq!(ops::read(&dir.path().join("to/d/x")).expect("a file"), b"hi");
        assert!(ops::symlink_metadata(&dir.path().join("to/e")).expect("it is there").is_dir());
    }
}

#[test]
fn devices_of_a_root_file_system_are_left_out() {
    use tar::EntryType::{Block, Char, Fifo, Regular};
    let entries = [
        ("top/dev/sda", Block, "", ""),
        ("top/dev/null", Char, "", ""),
        ("top/dev/initctl", Fifo, "", ""),
        ("top/a", Regular, "", ""),
    ];
    let (dir, result) = unpacked(&archive(&entries), 1);
    result.expect("it unpacks");
    let names: Vec<_> =
        ops::read_dir(&dir.path().join("to")).expect("a directory").into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["a"]);
    assert!(unpacked(&archive(&entries), 0).1.is_err(), "only where a root file system has them");
}

#[test]
fn stripping_and_modes_and_links_hold() {
    use tar::EntryType::{Link, Regular, Symlink};
    let (dir, result) = unpacked(
        &archive(&[
            ("top/bin/x", Regular, "", "hi"),
            ("top/y", Symlink, "bin/x", ""),
            ("top/z", Link, "top/bin/x", ""),
        ]),
        1,
    );
    result.expect("it unpacks");
    let at = |path: &str| dir.path().join("to").join(path);
    assert_eq!(ops::read(&at("bin/x")).expect("a file"), b"hi");
    assert_eq!(ops::read_link(&at("y")).expect("a link"), Path::new("bin/x"));
    assert_eq!(ops::read(&at("z")).expect("a file"), b"hi");
}

#[test]
fn broken_archives_are_errors() {
    let whole = archive(&[("a", tar::EntryType::Regular, "", "content")]);
    for end in [1, 100, 511, 513] {
        let (_dir, result) = unpacked(&whole[..end], 0);
        assert!(result.is_err(), "{end}");
    }
    let (_dir, result) = unpacked(&[0xff; 2048], 0);
    assert!(result.is_err());
}
