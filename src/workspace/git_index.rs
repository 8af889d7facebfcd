//! Which paths git's index names, read from its file (gitformat-index, versions 2 to 4). Looks at nothing those paths lead to.
//!
//! The file is one of a fixed header, entries in byte order of their paths, extensions, and a checksum that git itself does not
//! compare either. Integers are big-endian.

use crate::base::digest::{Digest, Digester};

/// Bytes of an object's name, by the format of the repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectNames {
    /// SHA-1.
    Short,
    /// SHA-256.
    Long,
}

impl ObjectNames {
    /// Those of a format as git's settings name it; `None` for one that is not known here.
    pub fn of_format(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("sha1") => Some(ObjectNames::Short),
            Some("sha256") => Some(ObjectNames::Long),
            Some(_) => None,
        }
    }

    fn len(self) -> usize {
        match self {
            ObjectNames::Short => 20,
            ObjectNames::Long => 32,
        }
    }
}

const HEADER_LEN: usize = 12;

/// Bytes of an entry before the name of its object: times, device, inode, mode, owner, size.
const STAT_LEN: usize = 40;

const MODE_AT: usize = 24;

/// In the flags of an entry: more flags follow.
const IS_EXTENDED: u16 = 0x4000;

/// In the flags of an entry: the length of its path, or this if it is longer.
const NAME_LEN: u16 = 0x0fff;

/// Tells apart two indexes that do not name the same paths, each for the same kind of thing. Times, content and stages do not count.
///
/// `None` for what is not whole, another version, and an index that leaves entries to other files or directories (split, sparse).
/// Cost: one pass.
pub fn names_digest(bytes: &[u8], objects: ObjectNames) -> Option<Digest> {
    let end = bytes.len().checked_sub(objects.len())?;
    let body = bytes.get(..end)?;
    if body.get(..4)? != b"DIRC" {
        return None;
    }
    let (version, count) = (word(body, 4)?, word(body, 8)?);
    if !(2..=4).contains(&version) {
        return None;
    }
    let mut names = Names { digester: Digester::default(), buffer: Vec::with_capacity(2 * BUFFER_LEN) };
    let mut previous: Vec<u8> = Vec::new();
    let mut at = HEADER_LEN;
    for _ in 0..count {
        let entry = body.get(at..)?;
        let kind = word(entry, MODE_AT)? >> 12;
        let flags_at = STAT_LEN + objects.len();
        let flags = half(entry, flags_at)?;
        let name_at = flags_at + if version > 2 && flags & IS_EXTENDED != 0 { 4 } else { 2 };
        if version == 4 {
            let (shorter, used) = varint(entry.get(name_at..)?)?;
            previous.truncate(previous.len().checked_sub(shorter)?);
            let more = until_nul(entry.get(name_at + used..)?)?;
            previous.extend_from_slice(more);
            names.add(kind, &previous);
            at += name_at + used + more.len() + 1;
        } else {
            let known = usize::from(flags & NAME_LEN);
            let name = if flags & NAME_LEN == NAME_LEN {
                until_nul(entry.get(name_at..)?)?
            } else {
                entry.get(name_at..name_at + known)?
            };
            names.add(kind, name);
            // One NUL at least, and as many as make the length a multiple of eight.
            at += (name_at + name.len()) / 8 * 8 + 8;
        }
    }
    while at < end {
        // What begins with a capital may be passed over by who does not know it.
        if !body.get(at)?.is_ascii_uppercase() {
            return None;
        }
        at = at.checked_add(8)?.checked_add(usize::try_from(word(body, at + 4)?).ok()?)?;
    }
    (at == end).then(|| names.finish())
}

/// Bytes that are digested at once.
const BUFFER_LEN: usize = 64 * 1024;

struct Names {
    digester: Digester,
    buffer: Vec<u8>,
}

impl Names {
    fn add(&mut self, kind: u32, name: &[u8]) {
        self.buffer.extend_from_slice(name);
        // No path has a NUL in it.
        self.buffer.extend_from_slice(&[0, kind.to_le_bytes()[0]]);
        if self.buffer.len() >= BUFFER_LEN {
            self.digester.update(&self.buffer);
            self.buffer.clear();
        }
    }

    fn finish(mut self) -> Digest {
        self.digester.update(&self.buffer);
        self.digester.finish()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn until_nul(bytes: &[u8]) -> Option<&[u8]> {
    Some(&bytes[..bytes.iter().position(|byte| *byte == 0)?])
}

/// A number in as many bytes as it needs, as in the deltas of a pack (gitformat-pack, "offset encoding"); and how many these are.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value: usize = 0;
    for (at, byte) in bytes.iter().enumerate() {
        value = value.checked_mul(128)?.checked_add(usize::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
        value = value.checked_add(1)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Entry<'a> {
        mode: u32,
        flags: u16,
        name: &'a str,
    }

    fn file(name: &str) -> Entry<'_> {
        Entry { mode: 0o100_644, flags: 0, name }
    }

    /// An index as git writes it, with stat data and object names that tell nothing.
    fn index(version: u32, objects: ObjectNames, entries: &[Entry<'_>], extensions: &[u8]) -> Vec<u8> {
        let mut bytes = b"DIRC".to_vec();
        bytes.extend_from_slice(&version.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(entries.len()).expect("few").to_be_bytes());
        let mut previous = "";
        for entry in entries {
            let start = bytes.len();
            bytes.extend_from_slice(&[7; STAT_LEN]);
            bytes[start + MODE_AT..start + MODE_AT + 4].copy_from_slice(&entry.mode.to_be_bytes());
            bytes.extend_from_slice(&vec![9; objects.len()]);
            let length = u16::try_from(entry.name.len()).expect("short").min(NAME_LEN);
            bytes.extend_from_slice(&(entry.flags | length).to_be_bytes());
            if entry.flags & IS_EXTENDED != 0 {
                bytes.extend_from_slice(&[0x40, 0]);
            }
            if version == 4 {
                let shared = previous.bytes().zip(entry.name.bytes()).take_while(|(one, other)| one == other).count();
                let shorter = previous.len() - shared;
                if shorter > 127 {
                    bytes.push(u8::try_from((shorter - 128) >> 7).expect("short") | 0x80);
                }
                bytes.push(u8::try_from(shorter & 0x7f).expect("masked"));
                bytes.extend_from_slice(&entry.name.as_bytes()[shared..]);
                bytes.push(0);
                previous = entry.name;
            } else {
                bytes.extend_from_slice(entry.name.as_bytes());
                let length = bytes.len() - start;
                bytes.resize(start + length / 8 * 8 + 8, 0);
            }
        }
        bytes.extend_from_slice(extensions);
        bytes.extend_from_slice(&vec![1; objects.len()]);
        bytes
    }

    const TREE: &[u8] = b"TREE\0\0\0\x03abc";

    #[test]
    fn all_versions_name_the_same_paths_alike() {
        let long = "x".repeat(5000);
        let near = format!("{}y", "x".repeat(4000));
        let names = ["a", "a/b", "a/bc", "long/1234567", "ab", &long, &near, "z"];
        let entries: Vec<Entry<'_>> = names.iter().map(|name| file(name)).collect();
        let expect = names_digest(&index(2, ObjectNames::Short, &entries, b""), ObjectNames::Short);
        assert!(expect.is_some());
        for version in 2..=4 {
            for objects in [ObjectNames::Short, ObjectNames::Long] {
                for extensions in [&b""[..], TREE] {
                    let found = names_digest(&index(version, objects, &entries, extensions), objects);
                    assert_eq!(found, expect, "version {version} {objects:?} {extensions:?}");
                }
            }
        }
    }

    #[test]
    fn a_path_more_or_less_or_of_another_kind_is_told_and_nothing_else() {
        let digest = |entries: &[Entry<'_>]| {
            names_digest(&index(3, ObjectNames::Short, entries, TREE), ObjectNames::Short).expect("whole")
        };
        let plain = digest(&[file("a"), file("b")]);
        assert_eq!(plain, digest(&[file("a"), Entry { flags: IS_EXTENDED | 0x8000, ..file("b") }]), "flags");
        assert_eq!(plain, digest(&[file("a"), Entry { mode: 0o100_755, ..file("b") }]), "executable");
        for other in [
            &[file("a")][..],
            &[file("a"), file("b"), file("c")],
            &[file("a"), file("bb")],
            &[file("a"), Entry { mode: 0o120_000, ..file("b") }],
            &[file("a"), Entry { mode: 0o160_000, ..file("b") }],
        ] {
            assert_ne!(plain, digest(other));
        }
    }

    #[test]
    fn what_leaves_entries_to_others_and_what_is_not_whole_is_not_read() {
        let good = index(2, ObjectNames::Short, &[file("a"), file("b/c")], TREE);
        let check = |bytes: &[u8]| names_digest(bytes, ObjectNames::Short);
        for extension in [&b"link\0\0\0\0"[..], b"sdir\0\0\0\0", b"TREE\0\0\0\x09abc", b"TRE"] {
            assert_eq!(check(&index(2, ObjectNames::Short, &[file("a")], extension)), None, "{extension:?}");
        }
        assert_eq!(check(&index(5, ObjectNames::Short, &[file("a")], b"")), None, "version");
        assert!(check(&good).is_some());
        for cut in 0..good.len() {
            // Without its extension it is whole, too, for nobody compares the checksum.
            let found = check(&good[..cut]);
            assert_eq!(found, check(&good).filter(|_| cut == good.len() - TREE.len()), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(version in 0u32..6, count: u32, rest: Vec<u8>) {
            let bytes = [b"DIRC".as_slice(), &version.to_be_bytes(), &count.to_be_bytes(), &rest].concat();
            names_digest(&bytes, ObjectNames::Short);
            names_digest(&bytes, ObjectNames::Long);
        }
    }
}
