//! The entries of a layer with all that a tar archive says of them, and content as a digest. Compares nothing.
//!
//! What is kept of an entry is bounded by its names and remarks, never by its content; all layers of one comparison share the
//! number of bytes that may be unpacked.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::rc::Rc;

use sha2::Digest as _;

use crate::fs::archive::{ArchiveError, MEMBERS_MAX, decompressed};
use crate::fs::ops::FsError;
use crate::image::blob::Digesting;
use crate::image::blobs::Blobs;
use crate::image::diff::contents::LayerRef;
use crate::image::error::ImageError;

/// Most bytes of headers before one entry: the reader keeps long names in memory.
const HEADERS_BYTES_MAX: u64 = 1024 * 1024;

/// Most bytes of names, targets and remarks kept of one layer.
const NAMES_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Longest remark that is kept as it is; of others the digest is kept.
const REMARK_BYTES_MAX: usize = 64;

const BUFFER_BYTES: usize = 64 * 1024;

/// Remarks that say again what other fields hold.
const KNOWN_REMARKS: [&str; 8] = ["path", "linkpath", "size", "uid", "gid", "mtime", "uname", "gname"];

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::image) enum Kind {
    File,
    Dir,
    Link,
    HardLink,
    Char,
    Block,
    Fifo,
    Other,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dir => "directory",
            Self::Link => "link",
            Self::HardLink => "hard link",
            Self::Char => "character device",
            Self::Block => "block device",
            Self::Fifo => "pipe",
            Self::Other => "entry of an unknown kind",
        }
    }
}

/// Permission bits of a mode.
const RIGHTS: u32 = 0o7777;

/// What a layer says of an entry.
#[derive(Clone)]
pub(in crate::image) struct Meta {
    /// Without `./`, `/` in front and `/` behind.
    pub path: Vec<u8>,
    /// How its name and header are written.
    pub form: Form,
    pub kind: Kind,
    /// As the header has it: permission bits, and those of the kind with some packers.
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Names of owner and group, where there are any.
    pub names: Option<Box<(Vec<u8>, Vec<u8>)>>,
    /// Seconds since 1970, with fractions where the archive has them.
    pub mtime: Box<str>,
    pub size: u64,
    pub target: Option<Box<[u8]>>,
    pub device: Option<(u32, u32)>,
    /// Extended attributes and other remarks.
    pub remarks: BTreeMap<String, Vec<u8>>,
    /// SHA-256 of its content, of a file.
    pub content: [u8; 32],
}

impl Meta {
    /// Permission bits, those of set-user-id and the like included.
    pub fn rights(&self) -> u32 {
        self.mode & RIGHTS
    }

    /// Bits of the mode that say again of which kind the entry is.
    pub fn kind_bits(&self) -> u32 {
        self.mode & !RIGHTS
    }

    /// Bytes of its names, target and remarks.
    pub fn names_bytes(&self) -> usize {
        self.path.len()
            + self.target.as_ref().map_or(0, |target| target.len())
            + self.names.as_ref().map_or(0, |names| names.0.len() + names.1.len())
            + self.remarks.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    }

    /// Whether all that is told of it is the same, but for how its header is written.
    pub fn is_like(&self, other: &Self) -> bool {
        let Self { path, form: _, kind, mode: _, uid, gid, names, mtime, size, target, device, remarks, content } =
            self;
        self.rights() == other.rights()
            && (path, kind, uid, gid, names) == (&other.path, &other.kind, &other.uid, &other.gid, &other.names)
            && (mtime, size, target) == (&other.mtime, &other.size, &other.target)
            && (device, remarks, content) == (&other.device, &other.remarks, &other.content)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::image) struct Form {
    /// `ustar`, `gnu` or `v7`.
    pub header: &'static str,
    pub is_extended: bool,
    /// How many bytes of the name are not of the path.
    pub name_extra: u16,
    pub kind_byte: u8,
}

/// Reads all entries of a layer, and checks its digests. `left` is how many bytes may still be unpacked.
pub(in crate::image) fn entries(blobs: &Blobs, layer: &LayerRef, left: &Cell<u64>) -> Result<Vec<Meta>, ImageError> {
    let mut all = Vec::new();
    let mut names_left = NAMES_BYTES_MAX;
    let packed_like = layer.packed.as_ref().map_or(&layer.diff_id, |(_, digest)| digest);
    let (packed_hasher, hasher) = (RefCell::new(packed_like.hasher()), RefCell::new(layer.diff_id.hasher()));
    let counted = Cell::new(u64::MAX);
    let mut packed = Digesting { from: blobs.open_at(&layer.name)?, hasher: &packed_hasher, left: &counted };
    let result = (|| {
        let mut plain = Digesting { from: decompressed(&mut packed).map_err(broken)?, hasher: &hasher, left };
        walk(&mut plain, left, &mut |member| {
            let meta = meta(member, left)?;
            let too_many = || refused(&meta.path, "which makes its names too many");
            names_left = names_left.checked_sub(meta.names_bytes() as u64).ok_or_else(too_many)?;
            all.push(meta);
            Ok(ControlFlow::Continue(()))
        })?;
        io::copy(&mut plain, &mut io::sink()).map(drop).map_err(broken)
    })();
    // Whatever went wrong, that the bytes are others than the image says is told first.
    drain(&mut packed, &layer.name)?;
    if let Some((size, digest)) = &layer.packed {
        crate::image::layout::check_size(*size, u64::MAX - counted.get(), &layer.name)?;
        digest.check(&packed_hasher.into_inner().finish(), &layer.name)?;
    }
    result.map_err(|cause| ImageError::Layer { number: layer.number, cause })?;
    layer.diff_id.check(&hasher.into_inner().finish(), &format!("{} unpacked", layer.name))?;
    Ok(all)
}

/// Takes the content of an entry with its number from 0; whether it wants more.
pub(in crate::image) type EachContent<'a> =
    &'a mut dyn FnMut(usize, &mut dyn Read) -> Result<ControlFlow<()>, ArchiveError>;

/// Reads content again: gives that of each file to `each` with its number among the entries, until it has enough.
pub(in crate::image) fn contents(
    blobs: &Blobs,
    layer: &LayerRef,
    left: &Cell<u64>,
    each: EachContent<'_>,
) -> Result<(), ImageError> {
    let failed = |cause| ImageError::Layer { number: layer.number, cause };
    let plain = decompressed(blobs.open_at(&layer.name)?).map_err(broken).map_err(failed)?;
    let mut number = 0;
    walk(plain, left, &mut |member| {
        number += 1;
        each(number - 1, member)
    })
    .map_err(failed)
}

/// Reads what is left of a file.
pub(in crate::image) fn drain(from: &mut dyn Read, name: &str) -> Result<(), ImageError> {
    let read = io::copy(from, &mut io::sink()).map(drop);
    read.map_err(|cause| FsError::new("read", std::path::Path::new(name), cause).into())
}

pub(in crate::image) fn broken(error: io::Error) -> ArchiveError {
    ArchiveError::broken(&error)
}

fn refused(path: &[u8], why: &'static str) -> ArchiveError {
    ArchiveError::refused(&String::from_utf8_lossy(path), why)
}

type Member<'a> = tar::Entry<'a, Metered<&'a mut dyn Read>>;

fn walk(
    mut from: impl Read,
    left: &Cell<u64>,
    each: &mut dyn FnMut(&mut Member<'_>) -> Result<ControlFlow<()>, ArchiveError>,
) -> Result<(), ArchiveError> {
    let headers = Rc::new(Cell::new(None));
    let from: &mut dyn Read = &mut from;
    let mut archive = tar::Archive::new(Metered { from, headers: Rc::clone(&headers) });
    let mut members = archive.entries().map_err(broken)?;
    for count in 0.. {
        headers.set(Some(HEADERS_BYTES_MAX));
        let Some(member) = members.next() else { break };
        headers.set(None);
        let mut member = member.map_err(broken)?;
        if member.header().entry_type() == tar::EntryType::XGlobalHeader {
            continue;
        }
        if count >= MEMBERS_MAX {
            return Err(refused(&member.path_bytes(), "which is one entry too many"));
        }
        if each(&mut member)?.is_break() {
            break;
        }
        // What is left is read here, so that nothing but headers lies before the next one. Holes take no bytes of the archive.
        copy_counted(&mut member, left, &mut |_| ())?;
    }
    Ok(())
}

/// Reads on to the end; holes of sparse files count as bytes unpacked.
fn copy_counted(member: &mut dyn Read, left: &Cell<u64>, each: &mut dyn FnMut(&[u8])) -> Result<(), ArchiveError> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let count = match member.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(error)),
        };
        let too_large = || ArchiveError::Broken("it is too large unpacked".into());
        left.set(left.get().checked_sub(count as u64).ok_or_else(too_large)?);
        each(&buffer[..count]);
    }
}

fn meta(member: &mut Member<'_>, left: &Cell<u64>) -> Result<Meta, ArchiveError> {
    use tar::EntryType as T;
    let name = member.path_bytes().into_owned();
    let path = plain_path(&name);
    let target = member.link_name_bytes().map(|target| target.into_owned().into_boxed_slice());
    let header = member.header().clone();
    let kind = match header.entry_type() {
        T::Regular | T::Continuous if name.ends_with(b"/") => Kind::Dir,
        T::Regular | T::Continuous | T::GNUSparse => Kind::File,
        T::Directory => Kind::Dir,
        T::Symlink => Kind::Link,
        T::Link => Kind::HardLink,
        T::Char => Kind::Char,
        T::Block => Kind::Block,
        T::Fifo => Kind::Fifo,
        _ => Kind::Other,
    };
    let mut remarks = BTreeMap::new();
    let mut is_extended = false;
    for remark in member.pax_extensions().map_err(broken)?.into_iter().flatten() {
        let remark = remark.map_err(broken)?;
        is_extended = true;
        let value = match remark.value_bytes() {
            value if value.len() <= REMARK_BYTES_MAX => value.to_vec(),
            value => [&b"sha256 "[..], &sha2::Sha256::digest(value)].concat(),
        };
        remarks.insert(String::from_utf8_lossy(remark.key_bytes()).into_owned(), value);
    }
    let text = |key: &str| remarks.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
    let number = |key: &str| text(key).and_then(|value| value.parse::<u64>().ok());
    let named = |key: &str, bytes: Option<&[u8]>| match remarks.get(key) {
        Some(value) => value.clone(),
        None => bytes.unwrap_or_default().to_vec(),
    };
    let names = (named("uname", header.username_bytes()), named("gname", header.groupname_bytes()));
    let is_named = !names.0.is_empty() || !names.1.is_empty();
    let or = |known: Option<u64>, from: io::Result<u64>| known.map_or_else(|| from.map_err(broken), Ok);
    let mtime = match text("mtime") {
        Some(mtime) => mtime,
        None => header.mtime().map_err(broken)?.to_string(),
    };
    // Of anything but a device, the fields may hold anything.
    let device = match kind {
        Kind::Char | Kind::Block => header.device_major().map_err(broken)?.zip(header.device_minor().map_err(broken)?),
        _ => None,
    };
    let header_kind = if header.as_gnu().is_some() {
        "gnu"
    } else if header.as_ustar().is_some() {
        "ustar"
    } else {
        "v7"
    };
    let form = Form {
        header: header_kind,
        is_extended,
        name_extra: u16::try_from(name.len() - path.len()).unwrap_or(u16::MAX),
        kind_byte: header.entry_type().as_byte(),
    };
    let (uid, gid) = (or(number("uid"), header.uid())?, or(number("gid"), header.gid())?);
    remarks.retain(|key, _| !KNOWN_REMARKS.contains(&key.as_str()));
    let mut meta = Meta {
        path,
        form,
        kind,
        mode: header.mode().map_err(broken)?,
        uid,
        gid,
        names: is_named.then(|| Box::new(names)),
        mtime: mtime.into(),
        size: if kind == Kind::File { member.size() } else { 0 },
        target: target.filter(|_| matches!(kind, Kind::Link | Kind::HardLink)),
        device,
        remarks,
        content: [0; 32],
    };
    let mut hasher = sha2::Sha256::new();
    copy_counted(member, left, &mut |bytes| hasher.update(bytes))?;
    meta.content = hasher.finalize().into();
    Ok(meta)
}

/// `./a/`, `/a` and `a` are `a`; the root is nothing.
fn plain_path(name: &[u8]) -> Vec<u8> {
    let mut rest = name;
    loop {
        match rest {
            [b'/', tail @ ..] | [b'.', b'/', tail @ ..] => rest = tail,
            [b'.'] => rest = &[],
            [head @ .., b'/'] => rest = head,
            _ => return rest.to_vec(),
        }
    }
}

/// Bounds the bytes read before an entry.
struct Metered<R> {
    from: R,
    headers: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        if let Some(left) = self.headers.get() {
            let left = left.checked_sub(count as u64);
            self.headers.set(Some(left.ok_or_else(|| io::Error::other("a name in it is too long"))?));
        }
        Ok(count)
    }
}
