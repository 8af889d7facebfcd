//! File operations with the path and the verb in every error. No policy.
//!
//! Whatever changes the disk goes through [`change`] or [`write_all`]: there a test makes it fail (`fs::fault`).

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::fs::dir::{self, Dir};
use crate::fs::stat::StatKey;
use crate::fs::witness::{self, Names, Told};

/// What the kernel may fill with names in one call.
const DIRECTORY_BUFFER_BYTES: usize = 32 * 1024;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}: {}", path.display(), plain(cause))]
pub struct FsError {
    /// What was tried: `read`, `create`, …
    pub verb: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub cause: io::Error,
}

/// The system's words without the error number.
fn plain(cause: &io::Error) -> String {
    let text = cause.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

impl FsError {
    /// Wraps a system error.
    pub fn new(verb: &'static str, path: impl AsRef<Path>, cause: io::Error) -> Self {
        Self { verb, path: path.as_ref().to_owned(), cause }
    }

    /// What the system said, without the error number.
    pub fn plain_cause(&self) -> String {
        plain(&self.cause)
    }

    /// Whether this process or the machine lacks descriptors or memory just now, which says nothing about the path.
    pub fn is_shortage(&self) -> bool {
        matches!(
            self.cause.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN | libc::EINTR)
        ) || self.cause.kind() == io::ErrorKind::OutOfMemory
    }

    /// Whether the file system cannot do this at all.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.cause.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP))
    }

    /// Whether something lies on another file system, or in a lower layer of an overlay, whose directories cannot be renamed.
    pub fn is_across_file_systems(&self) -> bool {
        self.cause.raw_os_error() == Some(libc::EXDEV)
    }

    /// Whether a link is in the way of what follows none.
    pub fn is_through_link(&self) -> bool {
        self.cause.raw_os_error() == Some(libc::ELOOP)
    }

    /// Whether something on the way, or at its end, is not the directory that it should be: a file, or a link where none is followed.
    pub fn is_no_directory(&self) -> bool {
        self.is_through_link() || self.cause.kind() == io::ErrorKind::NotADirectory
    }

    /// Whether nothing is there.
    pub fn is_missing(&self) -> bool {
        self.cause.kind() == io::ErrorKind::NotFound
    }
}

/// Adds verb and path to a system error.
pub trait AtPath<T> {
    /// Does so.
    fn at(self, verb: &'static str, path: &Path) -> Result<T, FsError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, verb: &'static str, path: &Path) -> Result<T, FsError> {
        self.map_err(|cause| FsError::new(verb, path, cause))
    }
}

/// One change of the disk.
pub(super) fn change<T>(verb: &'static str, path: &Path, change: impl FnOnce() -> io::Result<T>) -> Result<T, FsError> {
    #[cfg(debug_assertions)]
    let result = crate::fs::fault::around(verb, path, change);
    #[cfg(not(debug_assertions))]
    let result = change();
    result.at(verb, path)
}

/// Writes bytes where the file stands; `path` is for the error. After an error a part of them may be there.
pub fn write_all(file: &File, path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let write = |bytes: &[u8]| {
        let mut file = file;
        file.write_all(bytes)
    };
    #[cfg(debug_assertions)]
    let result = crate::fs::fault::around_write(path, bytes, write);
    #[cfg(not(debug_assertions))]
    let result = write(bytes);
    result.at("write", path)
}

/// Waits until the bytes of an open file are on the disk; `path` is for the error.
pub fn sync_open(file: &File, path: &Path) -> Result<(), FsError> {
    change("sync", path, || file.sync_data())
}

/// A new file as a stream, for writers that know only [`Write`].
#[derive(Debug)]
pub struct NewFile {
    file: File,
    path: PathBuf,
}

impl NewFile {
    /// Creates a file that must not exist, as [`create_new`] does.
    pub fn create(path: &Path, mode: u32) -> Result<Self, FsError> {
        Ok(Self { file: create_new(path, mode)?, path: path.to_owned() })
    }

    /// Waits until its bytes are on the disk.
    pub fn sync(&self) -> Result<(), FsError> {
        sync_open(&self.file, &self.path)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_all(&self.file, &self.path, bytes).map_err(|error| error.cause)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that grows at its end.
#[derive(Debug)]
pub struct GrowingFile {
    file: File,
    path: PathBuf,
    length: u64,
}

impl GrowingFile {
    /// Opens it, creating it if needed.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        let file = open_append(path)?;
        let length = file.metadata().at("look at", path)?.len();
        Ok(Self { file, path: path.to_owned(), length })
    }

    /// Its bytes, as far as this opener knows.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Adds bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        write_all(&self.file, &self.path, bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Turns "it is not there" into `None`.
pub fn if_there<T>(result: Result<T, FsError>) -> Result<Option<T>, FsError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, FsError> {
    if !witness::is_listening() {
        return fs::read(path).at("read", path);
    }
    let seen_ns = witness::moment();
    let read = || -> io::Result<(StatKey, Vec<u8>)> {
        let mut file = File::open(path)?;
        let stat = StatKey::of(&file.metadata()?);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok((stat, bytes))
    };
    let found = read();
    let told = found.as_ref().ok().map(|(stat, bytes)| (*stat, Digest::of(bytes)));
    witness::note(path, seen_ns, || Told::Content(told));
    found.map(|(_, bytes)| bytes).at("read", path)
}

/// Reads a whole UTF-8 file.
pub fn read_text(path: &Path) -> Result<String, FsError> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8");
    String::from_utf8(read(path)?).map_err(not_text).at("read", path)
}

/// Reads what there is now into the buffer, however often a signal comes between; 0 at the end, and for an empty buffer.
pub fn read_some(mut from: impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Reads up to `length` bytes at an offset; fewer only at the end of the file.
pub fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Opens for reading.
pub fn open(path: &Path) -> Result<File, FsError> {
    let seen_ns = witness::moment();
    let opened = File::open(path);
    witness::note(path, seen_ns, || {
        Told::Target(opened.as_ref().ok().and_then(|file| file.metadata().ok()).map(|meta| StatKey::of(&meta)))
    });
    opened.at("open", path)
}

/// Opens a regular file for reading, refusing anything else: a link in the last component, and what would keep the caller waiting.
pub fn open_no_follow(path: &Path) -> Result<File, FsError> {
    // Without waiting, or a pipe that was put there a moment ago would hold the caller until someone writes to it.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).at("open", path)?;
    if file.metadata().at("look at", path)?.is_file() {
        return Ok(file);
    }
    Err(FsError::new("open", path, io::Error::other("not a regular file")))
}

/// Creates a file that must not exist, with these permission bits (before the umask).
pub fn create_new(path: &Path, mode: u32) -> Result<File, FsError> {
    change("create", path, || OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path))
}

/// Creates or truncates a file. Not atomic: for scratch files and reports; see [`crate::fs::atomic`] for the rest.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let file = change("create", path, || File::create(path))?;
    write_all(&file, path, bytes)
}

/// Opens for appending, creating it if needed.
pub fn open_append(path: &Path) -> Result<File, FsError> {
    change("open", path, || OpenOptions::new().append(true).create(true).open(path))
}

/// Opens for reading and writing, creating it if needed, keeping what is there.
pub fn open_read_write(path: &Path) -> Result<File, FsError> {
    change("open", path, || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path))
}

/// Creates a directory and its parents; fine if they exist.
pub fn create_dir_all(path: &Path) -> Result<(), FsError> {
    change("create", path, || fs::create_dir_all(path))
}

/// Creates one directory that must not exist.
pub fn create_dir(path: &Path) -> Result<(), FsError> {
    change("create", path, || fs::create_dir(path))
}

/// Removes a file or a link; fine if it is not there.
pub fn remove_file(path: &Path) -> Result<(), FsError> {
    if_there(change("remove", path, || fs::remove_file(path))).map(drop)
}

/// Removes an empty directory.
pub fn remove_dir(path: &Path) -> Result<(), FsError> {
    change("remove", path, || fs::remove_dir(path))
}

/// Removes whatever lies at `path`, as [`Dir::remove_all`] does.
pub fn remove_all(path: &Path) -> Result<(), FsError> {
    let Some((dir, name)) = if_there(Dir::above(path))? else { return Ok(()) };
    dir.remove_all(name)
}

/// Renames within one file system, replacing a file that is there.
pub fn rename(from: &Path, to: &Path) -> Result<(), FsError> {
    change("rename to", to, || fs::rename(from, to))
}

/// Makes a symbolic link that must not exist.
pub fn symlink(target: &str, at: &Path) -> Result<(), FsError> {
    change("link", at, || std::os::unix::fs::symlink(target, at))
}

/// Reads a symbolic link.
pub fn read_link(path: &Path) -> Result<PathBuf, FsError> {
    let seen_ns = witness::moment();
    let target = fs::read_link(path);
    witness::note(path, seen_ns, || Told::Link(target.as_ref().ok().cloned()));
    target.at("read the link", path)
}

/// Metadata, following links.
pub fn metadata(path: &Path) -> Result<Metadata, FsError> {
    let seen_ns = witness::moment();
    let meta = fs::metadata(path);
    witness::note(path, seen_ns, || Told::Target(meta.as_ref().ok().map(StatKey::of)));
    meta.at("look at", path)
}

/// Metadata of the path itself.
pub fn symlink_metadata(path: &Path) -> Result<Metadata, FsError> {
    let seen_ns = witness::moment();
    let meta = fs::symlink_metadata(path);
    witness::note(path, seen_ns, || Told::Itself(meta.as_ref().ok().map(StatKey::of)));
    meta.at("look at", path)
}

/// What lies there, links not followed; for who needs nothing else of it.
pub fn kind(path: &Path) -> Result<Kind, FsError> {
    let seen_ns = witness::moment();
    let kind = fs::symlink_metadata(path).map(|meta| Kind::of_mode(std::os::unix::fs::MetadataExt::mode(&meta)));
    witness::note(path, seen_ns, || Told::Kind(kind.as_ref().ok().copied()));
    kind.at("look at", path)
}

/// The path with every link resolved.
pub fn canonical(path: &Path) -> Result<PathBuf, FsError> {
    let seen_ns = witness::moment();
    let real = fs::canonicalize(path);
    witness::note(path, seen_ns, || Told::Real(real.as_ref().ok().cloned()));
    real.at("resolve", path)
}

/// Whether something lies there, links not followed. Trouble counts as no.
pub fn exists(path: &Path) -> bool {
    let seen_ns = witness::moment();
    let is_there = fs::symlink_metadata(path).is_ok();
    witness::note(path, seen_ns, || Told::Presence(is_there));
    is_there
}

/// Sets permission bits.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), FsError> {
    change("change the mode of", path, || fs::set_permissions(path, fs::Permissions::from_mode(mode)))
}

/// The same for an open file; `path` is for the error.
pub fn set_mode_of(file: &File, mode: u32, path: &Path) -> Result<(), FsError> {
    change("change the mode of", path, || file.set_permissions(fs::Permissions::from_mode(mode)))
}

/// Sets modification and access time of the path itself, in nanoseconds since 1970.
pub fn set_times(path: &Path, mtime_ns: i64) -> Result<(), FsError> {
    let (here, flags) = (rustix::fs::CWD, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    let set = || rustix::fs::utimensat(here, path, &both_times(mtime_ns), flags);
    change("set the times of", path, || Ok(set()?))
}

/// The same for an open file; `path` is for the error.
pub fn set_times_of(file: &File, mtime_ns: i64, path: &Path) -> Result<(), FsError> {
    change("set the times of", path, || Ok(rustix::fs::futimens(file, &both_times(mtime_ns))?))
}

fn both_times(ns: i64) -> rustix::fs::Timestamps {
    const SECOND: i64 = 1_000_000_000;
    let time = rustix::fs::Timespec { tv_sec: ns.div_euclid(SECOND), tv_nsec: ns.rem_euclid(SECOND) };
    rustix::fs::Timestamps { last_access: time, last_modification: time }
}

/// What a directory entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A device, socket or pipe.
    Special,
}

impl Kind {
    /// That of type bits.
    pub fn of_mode(mode: u32) -> Self {
        match FileType::from_raw_mode(mode) {
            FileType::Symlink => Kind::Link,
            FileType::Directory => Kind::Dir,
            FileType::RegularFile => Kind::File,
            _ => Kind::Special,
        }
    }
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// File name as the disk has it; may not be UTF-8.
    pub name: std::ffi::OsString,
    /// What it is; links are not followed.
    pub kind: Kind,
}

/// Lists a directory in byte order of the names.
pub fn read_dir(path: &Path) -> Result<Vec<DirEntry>, FsError> {
    let seen_ns = witness::moment();
    let list = || -> Result<(Option<StatKey>, Vec<DirEntry>), FsError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from).at("list", path)?;
        let stat = witness::is_listening().then(|| StatKey::of_opened(&fd)).flatten();
        Ok((stat, dir::entries(fd, || path.to_owned())?))
    };
    let found = list();
    witness::note(path, seen_ns, || {
        let found = found.as_ref().ok();
        Told::Names(Names::All, found.and_then(|(stat, entries)| Some(((*stat)?, digest_of_names(entries)))))
    });
    found.map(|(_, entries)| entries)
}

/// Tells two lists of names apart, which are in byte order.
pub fn digest_of_names(entries: &[DirEntry]) -> Digest {
    let mut encoder = Encoder::new();
    for entry in entries {
        encoder.bytes(entry.name.as_encoded_bytes()).u8(entry.kind as u8);
    }
    Digest::of(encoder.as_slice())
}

/// Tells every name in a directory, in no order, with what it is; links are not followed. For many directories: nothing is allocated
/// for a name. Gives the signature that the directory had before, where somebody listens ([`witness`]), who is told by the caller.
pub fn each_name(path: &Path, mut each: impl FnMut(&[u8], Kind)) -> Result<Option<StatKey>, FsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let system = |error: rustix::io::Errno| FsError::new("list", path, error.into());
    let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(system)?;
    let stat = witness::is_listening().then(|| StatKey::of_opened(&dir)).flatten();
    let mut buffer = Vec::with_capacity(DIRECTORY_BUFFER_BYTES);
    let mut entries = rustix::fs::RawDir::new(&dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(system)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let file_type = match entry.file_type() {
            // Some file systems leave it to the caller to look.
            FileType::Unknown => {
                match rustix::fs::statat(&dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    // It went meanwhile.
                    Err(rustix::io::Errno::NOENT) => continue,
                    Err(error) => return Err(system(error)),
                }
            }
            known => known,
        };
        let kind = match file_type {
            FileType::Symlink => Kind::Link,
            FileType::Directory => Kind::Dir,
            FileType::RegularFile => Kind::File,
            _ => Kind::Special,
        };
        each(name.to_bytes(), kind);
    }
    Ok(stat)
}

/// Waits until the bytes of a file are on the disk.
pub fn sync_file(path: &Path) -> Result<(), FsError> {
    sync_open(&open_no_follow(path)?, path)
}

/// Waits until the names in a directory are on the disk.
pub fn sync_dir(path: &Path) -> Result<(), FsError> {
    let dir = open(path)?;
    change("sync", path, || dir.sync_all())
}

/// Waits until everything on the file system that holds `path` is on the disk: cheaper than syncing many files one by one.
pub fn sync_fs(path: &Path) -> Result<(), FsError> {
    let dir = open(path)?;
    change("sync", path, || Ok(rustix::fs::syncfs(&dir)?))
}

/// Creates a file of `bytes` that takes its place on the disk without being written.
pub fn create_reserved(path: &Path, bytes: u64) -> Result<(), FsError> {
    let file = open_read_write(path)?;
    let reserve = || rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes);
    change("reserve space at", path, || Ok(reserve()?))
}

/// Free and total bytes of the file system that holds `path`.
pub fn disk_space(path: &Path) -> Result<(u64, u64), FsError> {
    let stat = rustix::fs::statvfs(path).map_err(io::Error::from).at("look at", path)?;
    Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}

/// Tells one boot of the machine from the next: what was not synced in an earlier one may be gone; `None` where nothing tells.
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// Whether `path` lies on a network or user-space file system, where SQLite's WAL is not safe.
pub fn is_network_fs(path: &Path) -> bool {
    const NETWORK: [i64; 8] =
        [0x6969, 0xff53_4d42, 0x517b, 0xfe53_4d42, 0x0102_1997, 0x6573_5546, 0x6a65_6a63, 0x0bd0_0bd0];
    rustix::fs::statfs(path).is_ok_and(|stat| NETWORK.contains(&stat.f_type))
}
