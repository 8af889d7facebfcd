//! Tar archives nobody here made, member by member, plain or compressed: what they cost is bounded. Puts nothing anywhere.

use std::cell::Cell;
use std::io::{self, BufReader, Cursor, Read};
use std::rc::Rc;

use crate::fs::ops::{self, FsError};

/// Most members an archive may have.
pub const MEMBERS_MAX: usize = 1_000_000;

/// Most bytes of headers before one member. The reader keeps long names in memory, however long they are.
const HEADERS_BYTES_MAX: u64 = 1024 * 1024;

/// Most bytes of memory that unpacking an xz stream may take: its head says how much. `xz -9` needs 65 MiB.
const XZ_MEMORY_BYTES_MAX: u64 = 512 * 1024 * 1024;

const BUFFER_BYTES: usize = 64 * 1024;

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Its name tells no format we read.
    #[error("cannot tell how to unpack `{0}`; known are .tar, .tar.gz, .tgz, .tar.xz, .tar.zst, .zip, .deb")]
    UnknownFormat(String),
    /// It is broken.
    #[error("the archive is broken: {0}")]
    Broken(String),
    /// It holds something that must not be unpacked.
    #[error("the archive holds `{name}`, {why}")]
    Refused {
        /// The entry.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl ArchiveError {
    /// A member that is refused.
    pub fn refused(name: &str, why: &'static str) -> Self {
        Self::Refused { name: name.escape_debug().to_string(), why }
    }

    /// An archive that cannot be read on.
    pub fn broken(cause: &io::Error) -> Self {
        Self::Broken(cause.to_string())
    }

    /// Whether the disk is at fault, rather than the archive.
    pub fn is_of_the_machine(&self) -> bool {
        use io::ErrorKind as E;
        // What no disk would take: a file that is a directory as well, a name that is too long, an empty target.
        let of_the_names =
            [E::NotFound, E::AlreadyExists, E::NotADirectory, E::IsADirectory, E::InvalidFilename, E::InvalidInput];
        matches!(self, Self::Fs(error) if !of_the_names.contains(&error.cause.kind()))
    }
}

/// What a name in an archive stands for.
pub enum Member<'a> {
    /// A regular file.
    File {
        /// Its permission bits.
        mode: u32,
        /// User and group; those that the archive does not tell are 0.
        owner: (u32, u32),
        /// Its size as the archive has it, which may be a lie.
        claimed: u64,
        /// Its bytes.
        content: &'a mut dyn Read,
    },
    /// A directory.
    Dir {
        /// Its permission bits.
        mode: u32,
        /// User and group, as of a file.
        owner: (u32, u32),
    },
    /// A symbolic link.
    Link {
        /// Its target as written.
        target: String,
        /// User and group of the link itself, as of a file.
        owner: (u32, u32),
    },
    /// Another name of an earlier member.
    HardLink {
        /// That member's name.
        target: String,
    },
    /// A device or a pipe.
    Special,
}

/// Gives each member of a tar archive with its name, which is UTF-8 and nothing else is known of, to `place`.
///
/// Reads at most `bytes_max` bytes, and nothing behind the end of the archive. Extended attributes and owners are left out.
/// Memory: 1 MiB, whatever the archive says.
pub fn read_tar(
    from: impl Read,
    bytes_max: u64,
    place: &mut dyn FnMut(&str, Member<'_>) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let broken = |error: io::Error| ArchiveError::broken(&error);
    let meter = Rc::new(Meter { whole: Cell::new(bytes_max), headers: Cell::new(None) });
    let mut archive = tar::Archive::new(Metered { from, meter: Rc::clone(&meter) });
    let mut members = archive.entries().map_err(broken)?;
    for count in 0.. {
        meter.headers.set(Some(HEADERS_BYTES_MAX));
        let Some(member) = members.next() else { break };
        meter.headers.set(None);
        let mut member = member.map_err(broken)?;
        read_member(&mut member, count, place)?;
        // What is left is read here, so that nothing but headers lies before the next one.
        if !member.header().entry_type().is_gnu_sparse() {
            io::copy(&mut member, &mut io::sink()).map_err(broken)?;
        } else if ops::read_some(&mut member, &mut [0]).map_err(broken)? > 0 {
            // Holes take no bytes of the archive: reading over them would be bounded by nothing.
            return Err(ArchiveError::refused(&member_name(&member), "a sparse file where none is unpacked"));
        }
    }
    Ok(())
}

/// User and group as numbers.
fn owner_of(header: &tar::Header) -> (u32, u32) {
    let number = |told: io::Result<u64>| told.ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
    (number(header.uid()), number(header.gid()))
}

/// A name as it can be told.
fn member_name<R: Read>(member: &tar::Entry<'_, R>) -> String {
    String::from_utf8_lossy(&member.path_bytes()).into_owned()
}

fn read_member<R: Read>(
    member: &mut tar::Entry<'_, R>,
    count: usize,
    place: &mut dyn FnMut(&str, Member<'_>) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    use tar::EntryType as T;
    let kind = member.header().entry_type();
    if matches!(kind, T::XGlobalHeader | T::XHeader) {
        return Ok(());
    }
    let name = String::from_utf8(member.path_bytes().into_owned())
        .map_err(|_| ArchiveError::refused(&member_name(member), "whose name is not UTF-8"))?;
    if count >= MEMBERS_MAX {
        return Err(ArchiveError::refused(&name, "which is one entry too many"));
    }
    if is_sparse_by_extension(member).map_err(|error| ArchiveError::broken(&error))? {
        return Err(ArchiveError::refused(&name, "which is stored as a sparse file in a way that is not read here"));
    }
    let target = |member: &tar::Entry<'_, R>| {
        let target = member.link_name_bytes().filter(|target| !target.is_empty());
        let target = target.ok_or_else(|| ArchiveError::refused(&name, "a link without a target"))?;
        let target = std::str::from_utf8(&target).map(str::to_owned);
        target.map_err(|_| ArchiveError::refused(&name, "a link whose target is not UTF-8"))
    };
    match kind {
        T::Regular | T::Continuous | T::GNUSparse => {
            let mode = member.header().mode().map_err(|error| ArchiveError::broken(&error))?;
            // Before POSIX, a directory was a file whose name ends with a slash.
            let owner = owner_of(member.header());
            if name.ends_with('/') {
                place(&name, Member::Dir { mode, owner })
            } else {
                place(&name, Member::File { mode, owner, claimed: member.size(), content: member })
            }
        }
        T::Directory => {
            let mode = member.header().mode().unwrap_or(0o755);
            place(&name, Member::Dir { mode, owner: owner_of(member.header()) })
        }
        T::Symlink => {
            let owner = owner_of(member.header());
            place(&name, Member::Link { target: target(member)?, owner })
        }
        T::Link => place(&name, Member::HardLink { target: target(member)? }),
        T::Block | T::Char | T::Fifo => place(&name, Member::Special),
        _ => Err(ArchiveError::refused(&name, "which is a device, a pipe or something else that is no file")),
    }
}

/// Whether extension headers say that the content is a map and pieces (`GNU.sparse.*`, as GNU tar and bsdtar write them): what
/// stands in the archive is then not what is in the file.
fn is_sparse_by_extension(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<bool> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(false) };
    for extension in extensions {
        if extension?.key_bytes().starts_with(b"GNU.sparse.") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How much may still be read.
struct Meter {
    whole: Cell<u64>,
    headers: Cell<Option<u64>>,
}

struct Metered<R> {
    from: R,
    meter: Rc<Meter>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        let left = self.meter.whole.get().checked_sub(count as u64);
        self.meter.whole.set(left.ok_or_else(|| io::Error::other("it is too large unpacked"))?);
        if let Some(left) = self.meter.headers.get() {
            let left = left.checked_sub(count as u64);
            self.meter.headers.set(Some(left.ok_or_else(|| io::Error::other("a name in it is too long"))?));
        }
        Ok(count)
    }
}

/// The bytes behind xz, all streams of it.
pub fn xz<'a>(from: impl Read + 'a) -> io::Result<impl Read + 'a> {
    let decoder = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, xz2::stream::CONCATENATED)?;
    Ok(xz2::bufread::XzDecoder::new_stream(BufReader::with_capacity(BUFFER_BYTES, from), decoder))
}

/// The bytes behind a compression that they tell themselves: gzip, zstd, xz, or none.
pub fn decompressed<'a>(mut from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::new();
    (&mut from).take(6).read_to_end(&mut magic)?;
    let whole = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(magic.clone()).chain(from));
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(whole)?),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(xz(whole)?),
        _ => Box::new(whole),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(size);
        header.set_path("x").expect("a short name");
        header.set_cksum();
        header
    }

    /// A header, and then as many bytes as it says without end.
    fn endless(kind: tar::EntryType) -> impl Read {
        Cursor::new(header(kind, 1 << 40).as_bytes().to_vec()).chain(io::repeat(b'a'))
    }

    fn read(from: impl Read, bytes_max: u64) -> Result<Vec<String>, ArchiveError> {
        let mut names = Vec::new();
        read_tar(from, bytes_max, &mut |name, _| {
            names.push(name.to_owned());
            Ok(())
        })?;
        Ok(names)
    }

    #[test]
    fn names_and_contents_without_end_are_refused() {
        use tar::EntryType::{Directory, GNULongLink, GNULongName, Regular, XGlobalHeader, XHeader};
        for kind in [GNULongName, GNULongLink, XHeader] {
            let error = read(endless(kind), u64::MAX).expect_err("it never ends").to_string();
            assert!(error.contains("a name in it is too long"), "{kind:?}: {error}");
        }
        for kind in [Regular, Directory, XGlobalHeader] {
            let error = read(endless(kind), 1 << 20).expect_err("it never ends").to_string();
            assert!(error.contains("too large"), "{kind:?}: {error}");
        }
        assert_eq!(read(io::repeat(0), 1 << 20).expect("an end"), [""; 0], "nothing is read behind the end");
    }

    #[test]
    fn holes_are_not_read_over() {
        let mut header = header(tar::EntryType::GNUSparse, 0);
        let gnu = header.as_gnu_mut().expect("a GNU header");
        gnu.set_real_size(1 << 50);
        gnu.sparse[0].set_offset(1 << 50);
        gnu.sparse[0].set_length(0);
        header.set_cksum();
        let bytes = [header.as_bytes().to_vec(), vec![0; 1024]].concat();
        let error = read(bytes.as_slice(), 1 << 20).expect_err("too much to read over").to_string();
        assert!(error.contains("`x`, a sparse file"), "{error}");
    }

    #[test]
    fn a_long_name_is_read() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = format!("{}/x", "long".repeat(60));
        let mut header = header(tar::EntryType::Regular, 1);
        builder.append_data(&mut header, &long, &b"1"[..]).expect("a vector takes it");
        let bytes = builder.into_inner().expect("a vector takes it");
        assert_eq!(read(bytes.as_slice(), 1 << 20).expect("a good archive"), [long]);
    }

    #[test]
    fn every_compression_tells_itself() {
        use std::io::Write;
        let plain = b"some bytes, again and again ".repeat(9);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).expect("a vector takes it");
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&plain).expect("a vector takes it");
        let gzip = gzip.finish().expect("a vector takes it");
        let zstd = zstd::encode_all(plain.as_slice(), 1).expect("a vector takes it");
        let members = [gzip.clone(), gzip.clone()].concat();
        for (packed, times) in [(plain.clone(), 1), (gzip, 1), (members, 2), (zstd, 1), (xz.finish().expect("fine"), 1)]
        {
            let mut read = Vec::new();
            decompressed(packed.as_slice()).and_then(|mut from| from.read_to_end(&mut read)).expect("it can be read");
            assert_eq!(read, plain.repeat(times));
        }
        let mut read = Vec::new();
        decompressed(&b""[..]).and_then(|mut from| from.read_to_end(&mut read)).expect("nothing is fine");
        assert_eq!(read, b"");
    }
}
