//! Archives made in memory, each header field as it is said.

use std::io::Write;

use ring::digest::{SHA256, digest};

/// A member of a tar archive.
#[derive(Clone)]
pub(super) struct Tar {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u64,
    pub(super) kind: u8,
    pub(super) link: &'static str,
    pub(super) uname: &'static str,
    pub(super) device: u32,
    pub(super) pax: Vec<(&'static str, &'static str)>,
    pub(super) pax_name: &'static str,
}

pub(super) fn file(name: &'static str, bytes: impl AsRef<[u8]>) -> Tar {
    Tar {
        name,
        bytes: bytes.as_ref().to_vec(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 1_000_000_000,
        kind: b'0',
        link: "",
        uname: "",
        device: 0,
        pax: Vec::new(),
        pax_name: "PaxHeaders/x",
    }
}

fn block(one: &Tar, name: &str, kind: u8, size: usize) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{:07o}", one.mode));
    put(108, &format!("{:07o}", one.uid));
    put(116, &format!("{:07o}", one.gid));
    put(124, &format!("{size:011o}"));
    put(136, &format!("{:011o}", one.mtime));
    put(148, "        ");
    put(156, &char::from(kind).to_string());
    put(157, one.link);
    put(257, "ustar\x0000");
    put(265, one.uname);
    put(329, &format!("{:07o}", one.device));
    put(337, "0000000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub(super) fn tar(members: &[Tar]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for one in members {
        if !one.pax.is_empty() {
            let record = |(key, value): &(&str, &str)| {
                let rest = key.len() + value.len() + 3;
                let length = (rest + 1..).find(|length| length.to_string().len() + rest == *length).expect("a length");
                format!("{length} {key}={value}\n")
            };
            let records: String = one.pax.iter().map(record).collect();
            bytes.extend(block(&file("", ""), one.pax_name, b'x', records.len()));
            bytes.extend(padded(records.as_bytes()));
        }
        bytes.extend(block(one, one.name, one.kind, one.bytes.len()));
        bytes.extend(padded(&one.bytes));
    }
    bytes.extend([0; 1024]);
    bytes
}

pub(super) fn gzip(content: &[u8], edit: impl FnOnce(flate2::GzBuilder) -> flate2::GzBuilder, level: u32) -> Vec<u8> {
    let builder = edit(flate2::GzBuilder::new().mtime(0).operating_system(255));
    let mut encoder = builder.write(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(content).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}

pub(super) fn plain_gzip(content: &[u8]) -> Vec<u8> {
    gzip(content, |builder| builder, 6)
}

pub(super) fn ar(members: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, fields, content) in members {
        bytes.extend(format!("{name:<16}{fields:<32}{:<10}`\n", content.len()).as_bytes());
        bytes.extend(*content);
        bytes.extend((content.len() % 2 == 1).then_some(b'\n'));
    }
    bytes
}

/// Time, owner, group and mode as the header of ar has them.
pub(super) fn ar_fields(time: u32, uid: u32, gid: u32, mode: u32) -> String {
    format!("{time:<12}{uid:<6}{gid:<6}{mode:<8o}")
}

pub(super) fn cpio(members: &[(&str, [u32; 6], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, [ino, mode, uid, gid, links, mtime], content) in members.iter().chain([&("TRAILER!!!", [0; 6], &[][..])])
    {
        let sizes = [content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        bytes.extend(b"070701");
        for number in [*ino, *mode, *uid, *gid, *links, *mtime].into_iter().chain(sizes) {
            bytes.extend(format!("{number:08x}").as_bytes());
        }
        for part in [[name.as_bytes(), b"\0"].concat().as_slice(), content] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

/// A member of a zip archive.
#[derive(Clone)]
pub(super) struct Zip {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) level: u32,
    pub(super) stored: bool,
    pub(super) moment: u32,
    pub(super) creator: u16,
    pub(super) mode: u32,
    pub(super) extra: Vec<u8>,
    pub(super) comment: &'static str,
}

pub(super) fn zipped(name: &'static str, bytes: impl AsRef<[u8]>) -> Zip {
    Zip {
        name,
        bytes: bytes.as_ref().to_vec(),
        level: 6,
        stored: false,
        moment: 0x0021_0000,
        creator: 0x0314,
        mode: 0o100_644,
        extra: Vec::new(),
        comment: "",
    }
}

pub(super) fn zip(members: &[Zip]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for one in members {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(one.level));
        encoder.write_all(&one.bytes).expect("a vector takes it");
        let packed = if one.stored { one.bytes.clone() } else { encoder.finish().expect("a vector takes it") };
        let mut crc = flate2::Crc::new();
        crc.update(&one.bytes);
        let mut both = Vec::new();
        for number in [20_u16, 0, if one.stored { 0 } else { 8 }] {
            both.extend(number.to_le_bytes());
        }
        for number in [one.moment, crc.sum(), packed.len() as u32, one.bytes.len() as u32] {
            both.extend(number.to_le_bytes());
        }
        both.extend((one.name.len() as u16).to_le_bytes());
        both.extend((one.extra.len() as u16).to_le_bytes());
        directory.extend([b"PK\x01\x02".as_slice(), &one.creator.to_le_bytes(), &both].concat());
        directory.extend((one.comment.len() as u16).to_le_bytes());
        directory.extend([0; 4]);
        directory.extend((one.mode << 16).to_le_bytes());
        directory.extend((bytes.len() as u32).to_le_bytes());
        directory.extend([one.name.as_bytes(), &one.extra, one.comment.as_bytes()].concat());
        bytes.extend([b"PK\x03\x04".as_slice(), &both, one.name.as_bytes(), &one.extra, &packed].concat());
    }
    let (from, count) = (bytes.len() as u32, (members.len() as u16).to_le_bytes());
    let length = (directory.len() as u32).to_le_bytes();
    bytes.extend(directory);
    bytes.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count, &length, &from.to_le_bytes(), &[0, 0]].concat());
    bytes
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
