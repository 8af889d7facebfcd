//! What bytes are, by how they begin. Names decide nothing, and nothing is unpacked.

use crate::audit::compare::tar;

/// What a content is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
    Tar,
    Cpio,
    Ar,
    Zip,
    /// Anything else, or nothing that can be taken apart.
    Leaf,
}

impl Kind {
    /// Whether it is one compressed content.
    pub(super) fn is_compressed(self) -> bool {
        matches!(self, Kind::Gzip | Kind::Zstd | Kind::Xz)
    }

    /// Its word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Gzip => "gzip",
            Kind::Zstd => "zstd",
            Kind::Xz => "xz",
            Kind::Bzip2 => "bzip2",
            Kind::Tar => "tar",
            Kind::Cpio => "cpio",
            Kind::Ar => "ar",
            Kind::Zip => "zip",
            Kind::Leaf => "file",
        }
    }
}

/// What a content is.
pub(super) fn kind(bytes: &[u8]) -> Kind {
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    let is_skippable = bytes.len() > 4 && bytes[0] & 0xf0 == 0x50 && bytes[1..4] == [0x2a, 0x4d, 0x18];
    if begins(b"\x1f\x8b\x08") {
        Kind::Gzip
    } else if begins(b"\x28\xb5\x2f\xfd") || is_skippable {
        Kind::Zstd
    } else if begins(b"\xfd7zXZ\0") {
        Kind::Xz
    } else if begins(b"BZh") && bytes.get(4..10) == Some(b"\x31\x41\x59\x26\x53\x59") {
        Kind::Bzip2
    } else if begins(b"!<arch>\n") {
        Kind::Ar
    } else if begins(b"070701") || begins(b"070702") {
        Kind::Cpio
    } else if begins(b"PK\x03\x04") || begins(b"PK\x05\x06") {
        Kind::Zip
    } else if tar::is_header(bytes) {
        Kind::Tar
    } else {
        Kind::Leaf
    }
}
