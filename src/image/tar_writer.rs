//! The bytes of a tar archive, the same for the same entries (POSIX.1-2024, `pax`). Decides nothing about what a layer holds.
//!
//! Format 1:
//! - Entries in byte order of their whole names without the slash behind a directory, so `a`, `a-b`, `a/x`; each name once; every
//!   directory above a name before it.
//! - `ustar` headers: numbers in octal, padded with zeros; owners by number, their names empty; one time for all entries.
//! - A name of up to 100 bytes stands as it is. A longer one is split at the last slash that leaves at most 155 bytes before it; if
//!   more than 100 are left behind it, or a byte is not ASCII, the name stands in a PAX header, and what of it fits, other bytes
//!   as `?`, in its field. So do targets of links. Owners above 2097151 and sizes from 8 GiB stand in a PAX header, their field is 0.
//! - A PAX header is called `PaxHeaders/` and the first 80 bytes of the last component, has time and owner 0, mode 0644, and its
//!   records in byte order of their keys. It is written only where it is needed.
//! - Two blocks of zeros end the archive; nothing else pads it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use crate::base::path::RelPath;
use crate::image::error::ImageError;

const BLOCK_BYTES: usize = 512;
const NAME_FIELD_BYTES: usize = 100;
const PREFIX_FIELD_BYTES: usize = 155;
const PAX_NAME_BYTES: usize = 80;
/// Largest owner that fits seven octal digits.
const OWNER_FIELD_MAX: u64 = 0o777_7777;
/// Largest size that fits eleven octal digits.
const SIZE_FIELD_MAX: u64 = 0o777_7777_7777;

/// Latest time an archive can have, in seconds since 1970: the year 2242.
pub const EPOCH_MAX: u64 = 0o777_7777_7777;

/// Longest name of one file, and longest path, in bytes: what file systems take.
const COMPONENT_BYTES_MAX: usize = 255;
const PATH_BYTES_MAX: usize = 4095;

/// What hides a name of the layers below (OCI image specification, "Whiteouts").
const WHITEOUT: &str = ".wh.";
/// What hides everything that the layers below have in a directory.
const OPAQUE: &str = ".wh..wh..opq";

const COPY_BUFFER_BYTES: usize = 128 * 1024;

/// Who may do what with an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Access {
    /// Permission bits with set-user-id, set-group-id and sticky; others are dropped.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
}

impl Access {
    /// A directory that nothing is said about.
    pub const DIR: Self = Self { mode: 0o755, uid: 0, gid: 0 };
    /// A file that nothing is said about.
    pub const FILE: Self = Self { mode: 0o644, uid: 0, gid: 0 };
    /// A program that nothing is said about.
    pub const PROGRAM: Self = Self { mode: 0o755, uid: 0, gid: 0 };
}

/// What an entry is.
pub enum Kind<'a> {
    /// A directory.
    Dir,
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// Exactly so many bytes.
        content: &'a mut dyn Read,
    },
    /// A symbolic link.
    Link {
        /// Its target as written.
        target: &'a str,
    },
    /// Another name of a file that comes earlier.
    Hard {
        /// That file.
        to: &'a RelPath,
    },
    /// Hides what the layers below have at the path.
    Whiteout,
    /// Hides everything that the layers below have beneath the path, which is a directory.
    Opaque,
}

/// Name of an entry in the archive, without a slash behind it. Archives are in byte order of these names.
pub fn archive_name(path: &RelPath, kind: &Kind<'_>) -> String {
    let below = |dir: &RelPath, name: &str| {
        if dir.is_root() { name.to_owned() } else { format!("{dir}/{name}") }
    };
    match kind {
        Kind::Whiteout => below(&path.parent().unwrap_or_default(), &format!("{WHITEOUT}{}", path.file_name())),
        Kind::Opaque => below(path, OPAQUE),
        _ => path.as_str().to_owned(),
    }
}

/// An error unless a layer can hold something at a path.
pub fn check_path(path: &RelPath) -> Result<(), ImageError> {
    let refuse = |why: String| Err(ImageError::Entry { path: path.as_str().escape_debug().to_string(), why });
    if path.as_str().len() > PATH_BYTES_MAX {
        return refuse(format!("its path is longer than {PATH_BYTES_MAX} bytes"));
    }
    for name in path.components() {
        if name.len() > COMPONENT_BYTES_MAX {
            return refuse(format!("a name in it is longer than {COMPONENT_BYTES_MAX} bytes"));
        }
        if name.starts_with(WHITEOUT) {
            return refuse(format!(
                "names that begin with `{WHITEOUT}` hide files of the layers below; rename it, or say what is to be hidden"
            ));
        }
    }
    Ok(())
}

/// Writes an archive entry by entry. After an error nothing more can be done with it.
pub struct TarWriter<W> {
    out: W,
    epoch: u64,
    /// Name of the last entry; empty before the first.
    last: String,
    /// Directories that something may still come beneath, outermost first.
    open: Vec<String>,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive whose entries all have the time `epoch`, in seconds since 1970, at most [`EPOCH_MAX`].
    pub fn new(out: W, epoch: u64) -> Result<Self, ImageError> {
        check_epoch(epoch)?;
        Ok(Self { out, epoch, last: String::new(), open: Vec::new(), buffer: vec![0; COPY_BUFFER_BYTES] })
    }

    /// Appends an entry. Errors if it is not behind the last one in byte order of [`archive_name`], if its directory is not there,
    /// if its name is none for a layer, and if a file has another length than it says.
    pub fn append(&mut self, path: &RelPath, access: Access, kind: Kind<'_>) -> Result<(), ImageError> {
        check_path(path)?;
        let name = archive_name(path, &kind);
        self.check_order(path, &name)?;
        match kind {
            Kind::Dir => {
                self.header(&format!("{name}/"), "", b'5', access, 0)?;
                self.open.push(name.clone());
            }
            Kind::File { size, content } => {
                self.header(&name, "", b'0', access, size)?;
                self.content(&name, size, content)?;
            }
            Kind::Link { target } => self.header(&name, target, b'2', Access { mode: 0o777, ..access }, 0)?,
            Kind::Hard { to } if to.as_str() >= name.as_str() => {
                return Err(refused(&name, &format!("it is another name of `{to}`, which comes after it")));
            }
            Kind::Hard { to } => self.header(&name, to.as_str(), b'1', access, 0)?,
            Kind::Whiteout | Kind::Opaque => self.header(&name, "", b'0', Access::FILE, 0)?,
        }
        self.last = name;
        Ok(())
    }

    /// Ends the archive and gives back what it was written to.
    pub fn finish(mut self) -> Result<W, ImageError> {
        self.out.write_all(&[0; 2 * BLOCK_BYTES]).map_err(ImageError::Output)?;
        Ok(self.out)
    }

    fn check_order(&mut self, path: &RelPath, name: &str) -> Result<(), ImageError> {
        if name.is_empty() || (path.is_root() && name != OPAQUE) {
            return Err(refused(name, "it is the root of the image"));
        }
        if name <= self.last.as_str() {
            return Err(refused(name, &format!("it comes behind `{}`, and entries are in byte order", self.last)));
        }
        // Beneath `a` is what lies before `a0` in byte order: `0` is the letter behind `/`.
        while self.open.last().is_some_and(|dir| name >= format!("{dir}0").as_str()) {
            self.open.pop();
        }
        match name.rsplit_once('/') {
            Some((above, _)) if !self.open.iter().any(|dir| dir == above) => {
                Err(refused(name, &format!("its directory `{above}` is not in the layer")))
            }
            _ => Ok(()),
        }
    }

    fn header(&mut self, name: &str, target: &str, flag: u8, access: Access, size: u64) -> Result<(), ImageError> {
        let mut records = BTreeMap::new();
        let (prefix, rest) = split_name(name).unwrap_or_else(|| {
            records.insert("path", name.to_owned());
            (String::new(), fitting(name, NAME_FIELD_BYTES))
        });
        if !target.is_ascii() || target.len() > NAME_FIELD_BYTES {
            records.insert("linkpath", target.to_owned());
        }
        let mut fitting_number = |key, value: u64, max| {
            if value <= max {
                return value;
            }
            records.insert(key, value.to_string());
            0
        };
        let fields = Fields {
            name: &rest,
            prefix: &prefix,
            target: &fitting(target, NAME_FIELD_BYTES),
            flag,
            mode: access.mode & 0o7777,
            uid: fitting_number("uid", access.uid.into(), OWNER_FIELD_MAX),
            gid: fitting_number("gid", access.gid.into(), OWNER_FIELD_MAX),
            size: fitting_number("size", size, SIZE_FIELD_MAX),
            mtime: self.epoch,
        };
        if !records.is_empty() {
            self.pax(name, &records)?;
        }
        self.out.write_all(&fields.block()).map_err(ImageError::Output)
    }

    fn pax(&mut self, name: &str, records: &BTreeMap<&str, String>) -> Result<(), ImageError> {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        let own = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let fields = Fields {
            name: &format!("PaxHeaders/{}", fitting(own, PAX_NAME_BYTES)),
            prefix: "",
            target: "",
            flag: b'x',
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: body.len() as u64,
            mtime: 0,
        };
        self.out.write_all(&fields.block()).map_err(ImageError::Output)?;
        self.out.write_all(&body).map_err(ImageError::Output)?;
        self.pad(body.len() as u64)
    }

    fn content(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), ImageError> {
        let wrong = |found: String| ImageError::Length { path: name.to_owned(), declared: size, found };
        let mut left = size;
        loop {
            // At the end one byte more is asked for: there must be none, and readers that check digests do it then.
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).clamp(1, COPY_BUFFER_BYTES);
            let count = match content.read(&mut self.buffer[..wanted]) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(ImageError::Content { path: name.to_owned(), cause }),
            };
            if count == 0 && left > 0 {
                return Err(wrong((size - left).to_string()));
            }
            if count == 0 {
                return self.pad(size);
            }
            left = left.checked_sub(count as u64).ok_or_else(|| wrong("more".into()))?;
            self.out.write_all(&self.buffer[..count]).map_err(ImageError::Output)?;
        }
    }

    fn pad(&mut self, written: u64) -> Result<(), ImageError> {
        let behind = (written % BLOCK_BYTES as u64) as usize;
        let missing = (BLOCK_BYTES - behind) % BLOCK_BYTES;
        self.out.write_all(&[0; BLOCK_BYTES][..missing]).map_err(ImageError::Output)
    }
}

/// An error unless an archive can have this time.
pub fn check_epoch(epoch: u64) -> Result<(), ImageError> {
    if epoch <= EPOCH_MAX {
        return Ok(());
    }
    Err(ImageError::Assembly(format!(
        "its time, {epoch} seconds since 1970, is later than the year 2242, which tar cannot say"
    )))
}

fn refused(name: &str, why: &str) -> ImageError {
    ImageError::Entry { path: name.escape_debug().to_string(), why: why.to_owned() }
}

/// Prefix and rest of a name that fits the header.
fn split_name(name: &str) -> Option<(String, String)> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= NAME_FIELD_BYTES {
        return Some((String::new(), name.to_owned()));
    }
    // The slash behind a directory leaves nothing behind it.
    let inner = &name[..name.len() - 1];
    let slash = inner[..inner.len().min(PREFIX_FIELD_BYTES + 1)].rfind('/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (rest.len() <= NAME_FIELD_BYTES).then(|| (prefix.to_owned(), rest.to_owned()))
}

/// As much of a name as fits, with `?` for each byte that is not ASCII.
fn fitting(name: &str, bytes: usize) -> String {
    let letters = name.bytes().take(bytes);
    letters.map(|letter| if letter.is_ascii() { char::from(letter) } else { '?' }).collect()
}

/// A record of a PAX header: its own length, key and value.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3; // A blank, `=` and the end of the line.
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n").into_bytes()
}

struct Fields<'a> {
    name: &'a str,
    prefix: &'a str,
    target: &'a str,
    flag: u8,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
}

impl Fields<'_> {
    fn block(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, self.name.as_bytes());
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, format!("{:07o}", self.uid).as_bytes());
        put(116, format!("{:07o}", self.gid).as_bytes());
        put(124, format!("{:011o}", self.size).as_bytes());
        put(136, format!("{:011o}", self.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[self.flag]);
        put(157, self.target.as_bytes());
        put(257, b"ustar\x0000");
        put(329, b"0000000");
        put(337, b"0000000");
        put(345, self.prefix.as_bytes());
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a path")
    }

    fn writer() -> TarWriter<Vec<u8>> {
        TarWriter::new(Vec::new(), 0).expect("a time")
    }

    /// An archive with one entry, whose directories are thought to be there.
    fn alone(at: &str, access: Access, kind: Kind<'_>) -> Vec<u8> {
        let mut writer = writer();
        let mut dir = path(at);
        while let Some(above) = dir.parent() {
            writer.open.push(above.as_str().to_owned());
            dir = above;
        }
        writer.append(&path(at), access, kind).expect("a good entry");
        writer.finish().expect("a vector takes it")
    }

    fn read_back(archive: &[u8]) -> (String, String, u64, u64) {
        let mut archive = tar::Archive::new(archive);
        let mut entry = archive.entries().expect("an archive").next().expect("an entry").expect("a good entry");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a text");
        let name = text(&entry.path_bytes());
        let target = entry.link_name_bytes().map(|target| text(&target)).unwrap_or_default();
        let of_pax = |key: &str, entry: &mut tar::Entry<'_, &[u8]>| {
            let extensions = entry.pax_extensions().expect("readable")?;
            let found = extensions.filter_map(Result::ok).find(|one| one.key() == Ok(key))?;
            found.value().ok()?.parse().ok()
        };
        let uid = of_pax("uid", &mut entry).unwrap_or_else(|| entry.header().uid().expect("a number"));
        let gid = of_pax("gid", &mut entry).unwrap_or_else(|| entry.header().gid().expect("a number"));
        (name, target, uid, gid)
    }

    #[test]
    fn a_header_has_every_byte_of_the_format() {
        let access = Access { mode: 0o104_755, uid: 1000, gid: 0o777_7777 };
        let mut writer = TarWriter::new(Vec::new(), 1_234_567_890).expect("a time");
        writer.append(&path("a"), access, Kind::File { size: 3, content: &mut &b"abc"[..] }).expect("a file");
        let bytes = writer.finish().expect("a vector takes it");
        let mut expected = vec![0; 4 * BLOCK_BYTES];
        let mut put = |at: usize, text: &str| expected[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, "a");
        put(100, "0004755\x000001750\x007777777\x0000000000003\x0011145401322\x00007476\x00 0");
        put(257, "ustar\x0000");
        put(329, "0000000\x000000000\x00");
        put(512, "abc");
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn names_that_fit_no_header_stand_in_front_of_it() {
        let letters = |count: usize| "x".repeat(count);
        let needs_pax = |at: &str, kind: Kind<'_>| {
            let is_dir = matches!(kind, Kind::Dir);
            let bytes = alone(at, Access::FILE, kind);
            let expected = if is_dir { format!("{at}/") } else { at.to_owned() };
            assert_eq!(read_back(&bytes).0, expected);
            if bytes[156] == b'x' {
                assert!(bytes.starts_with(b"PaxHeaders/"));
                assert!(bytes[100..].starts_with(b"0000644\x000000000\x000000000\x00"), "{at}");
            }
            bytes[156] == b'x'
        };
        let empty = || Kind::File { size: 0, content: Box::leak(Box::new(io::empty())) };
        let check = |at: &str, file: bool, dir: bool| {
            assert_eq!(needs_pax(at, empty()), file, "file {at}");
            assert_eq!(needs_pax(at, Kind::Dir), dir, "directory {at}");
        };
        check(&letters(99), false, false);
        check(&letters(100), false, true); // With the slash of a directory it is one too long.
        check(&letters(101), true, true);
        check(&format!("{}/{}", letters(155), letters(99)), false, false);
        check(&format!("{}/{}", letters(155), letters(100)), false, true);
        check(&format!("{}/{}", letters(155), letters(101)), true, true);
        check(&format!("{}/{}", letters(156), letters(99)), true, true);
        check(&format!("{}/{}", letters(156), letters(100)), true, true);
        // The last slash that leaves at most 155 bytes before it decides: here the one behind `b`.
        check(&format!("{}/b/{}", letters(153), letters(99)), false, false);
        check(&format!("{}/b/{}", letters(154), letters(99)), true, true);
        check(&format!("{}/{}/{}", letters(50), letters(100), letters(90)), false, false);
        check(&format!("a/{}", letters(200)), true, true);
        check("straße", true, true);
        check(&format!("{}/é", letters(100)), true, true);
    }

    #[test]
    fn a_name_is_split_at_the_last_slash_that_can_be() {
        let check = |name: &str, expect: Option<(usize, usize)>| {
            let split = split_name(name).map(|(prefix, rest)| (prefix.len(), rest.len()));
            assert_eq!(split, expect, "{name}");
        };
        let letters = |count: usize| "x".repeat(count);
        check(&format!("{}/", letters(99)), Some((0, 100)));
        check(&format!("a/b/{}", letters(98)), Some((3, 98)));
        check(&format!("a/{}/c", letters(100)), Some((102, 1)));
        check(&format!("{}/{}/", letters(60), letters(60)), Some((60, 61)));
        check(&format!("{}/{}", letters(155), letters(100)), Some((155, 100)));
        check(&format!("{}/", letters(100)), None);
        check("é", None);
    }

    #[test]
    fn targets_and_owners_that_fit_no_header_stand_in_front_of_it() {
        let big = Access { mode: 0o644, uid: u32::MAX, gid: 2_097_152 };
        for target in ["x".repeat(100), "x".repeat(101), "é".repeat(60)] {
            let bytes = alone("l", big, Kind::Link { target: &target });
            assert_eq!(read_back(&bytes), ("l".into(), target.clone(), u64::from(u32::MAX), 2_097_152));
            let bytes = alone("l", Access::FILE, Kind::Link { target: &target });
            assert_eq!(bytes[156] == b'x', target.len() > 100);
            assert_eq!(read_back(&bytes), ("l".into(), target, 0, 0));
        }
        let fits = Access { mode: 0o644, uid: 2_097_151, gid: 2_097_151 };
        let bytes = alone("l", fits, Kind::Link { target: "x" });
        assert_eq!((bytes[156], read_back(&bytes).2), (b'2', 2_097_151));
        let mut hard = writer();
        let long = path(&"a".repeat(120));
        hard.append(&long, Access::FILE, Kind::File { size: 0, content: &mut io::empty() }).expect("a file");
        hard.append(&path("b"), Access::FILE, Kind::Hard { to: &long }).expect("another name");
        let bytes = hard.finish().expect("a vector takes it");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let second = archive.entries().expect("an archive").nth(1).expect("an entry").expect("a good entry");
        assert_eq!(second.link_name_bytes().as_deref(), Some(long.as_str().as_bytes()));
        assert_eq!(second.header().entry_type(), tar::EntryType::Link);
    }

    #[test]
    fn records_stand_in_order_and_tell_their_length() {
        assert_eq!(record("path", &"x".repeat(89)), format!("98 path={}\n", "x".repeat(89)).into_bytes());
        assert_eq!(record("path", &"x".repeat(90)), format!("99 path={}\n", "x".repeat(90)).into_bytes());
        assert_eq!(record("path", &"x".repeat(91)), format!("101 path={}\n", "x".repeat(91)).into_bytes());
        let mut writer = writer();
        let access = Access { mode: 0o644, uid: 3_000_000, gid: 4_000_000 };
        writer.header("é", "ä", b'0', access, 1 << 33).expect("a vector takes it");
        let expected = "15 gid=4000000\n15 linkpath=ä\n11 path=é\n19 size=8589934592\n15 uid=3000000\n";
        let body = String::from_utf8_lossy(&writer.out[BLOCK_BYTES..2 * BLOCK_BYTES]).replace('\0', "");
        assert_eq!(body, expected);
        assert_eq!(writer.out[1024..1025], *b"?");
        assert_eq!(writer.out[1024 + 124..1024 + 135], *b"00000000000");
    }

    #[test]
    fn sizes_from_8_gib_stand_in_front_of_the_header() {
        for (size, needs_pax) in [((1 << 33) - 1, false), (1 << 33, true), (1 << 40, true)] {
            let mut writer = writer();
            writer.header("big", "", b'0', Access::FILE, size).expect("a vector takes it");
            assert_eq!(writer.out[156] == b'x', needs_pax);
            let mut archive = tar::Archive::new(writer.out.as_slice());
            let entry = archive.entries().expect("an archive").next().expect("an entry").expect("a good entry");
            assert_eq!(entry.size(), size);
        }
    }

    #[test]
    fn entries_out_of_order_and_without_their_directory_are_refused() {
        let check = |paths: &[&str], expect: &str| {
            let mut writer = writer();
            let told = paths.iter().try_for_each(|at| writer.append(&path(at), Access::DIR, Kind::Dir));
            match expect {
                "" => told.expect("a good order"),
                _ => {
                    let told = told.expect_err(expect).to_string();
                    assert!(told.contains(expect), "{expect}: {told}");
                }
            }
        };
        check(&["a", "a-b", "a-b/x", "a.b", "a/x", "a/x-y", "a/x/z", "a/y", "a0", "b"], "");
        check(&["b", "a"], "comes behind `b`");
        check(&["a", "a/x", "a-b"], "comes behind `a/x`");
        check(&["a", "a"], "comes behind `a`");
        check(&["a/b"], "its directory `a` is not in the layer");
        check(&["a", "a-b", "a-b/x", "a0", "a0/x", "b/x"], "its directory `b`");
        check(&["a", "a/b/c"], "its directory `a/b`");
        check(&[""], "the root");
        check(&["a", "a/.wh.x"], "begin with `.wh.`");
        let mut late = writer();
        late.append(&path("a"), Access::FILE, Kind::Whiteout).expect("a whiteout");
        late.append(&RelPath::root(), Access::FILE, Kind::Opaque).expect_err("`.wh..wh..opq` comes before `.wh.a`");
        let told =
            writer().append(&path("a"), Access::FILE, Kind::Hard { to: &path("b") }).expect_err("later").to_string();
        assert!(told.contains("which comes after it"), "{told}");
    }

    #[test]
    fn a_file_has_the_length_that_it_says() {
        let mut told = Vec::new();
        for size in 0..5 {
            let mut writer = writer();
            let kind = Kind::File { size, content: &mut &b"abc"[..] };
            told.push(writer.append(&path("a"), Access::FILE, kind).map_err(|error| error.to_string()));
        }
        assert_eq!(told[3], Ok(()));
        assert_eq!(told[4], Err("`a` was to have 4 bytes and has 3".into()));
        for told in &told[..3] {
            assert!(told.as_ref().is_err_and(|told| told.ends_with("and has more")), "{told:?}");
        }
    }
}
