//! Unpacks archives nobody here made: every name is checked, no link is followed, nothing lands outside. Fetches nothing.

use std::collections::BTreeSet;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use crate::base::limits::{FETCH_BYTES_MAX, TREE_DEPTH_MAX};
use crate::base::path::RelPath;
use crate::fs::archive::{ArchiveError, MEMBERS_MAX, Member, decompressed, read_tar, xz};
use crate::fs::link::file_mode;
use crate::fs::ops;
use crate::fs::{ar, atomic};

const COPY_BUFFER_BYTES: usize = 128 * 1024;
/// Most bytes of a link's target, as the kernel has it.
const LINK_BYTES_MAX: u64 = libc::PATH_MAX as u64 - 1;

/// Unpacks `archive`, whose format `name` tells, into the empty directory `to`, dropping `strip` leading components.
pub fn unpack(archive: &Path, name: &str, strip: usize, to: &Path) -> Result<(), ArchiveError> {
    unpack_within(archive, name, strip, to, FETCH_BYTES_MAX)
}

/// The same for at most `bytes_max` bytes of files in all.
pub fn unpack_within(archive: &Path, name: &str, strip: usize, to: &Path, bytes_max: u64) -> Result<(), ArchiveError> {
    let format = Format::of(name).ok_or_else(|| ArchiveError::UnknownFormat(name.to_owned()))?;
    let file = ops::open(archive)?;
    let mut placing = Placing::new(to, strip, bytes_max);
    match format {
        Format::Tar(packing) => placing.tar(packing.unpacked(file)?),
        Format::Zip => placing.zip(file),
        Format::Deb => placing.deb(file),
    }
}

/// Whether a file name tells how to unpack the file.
pub fn is_archive(name: &str) -> bool {
    Format::of(name).is_some()
}

#[derive(Clone, Copy)]
enum Format {
    Tar(Packing),
    Zip,
    /// A Debian package.
    Deb,
}

/// What a tar archive is compressed with.
#[derive(Clone, Copy)]
enum Packing {
    Plain,
    Gzip,
    Xz,
    Zstd,
}

impl Format {
    /// By the ending of a file name.
    fn of(name: &str) -> Option<Self> {
        const ENDINGS: [(&str, Format); 12] = [
            (".tar.gz", Format::Tar(Packing::Gzip)),
            (".tgz", Format::Tar(Packing::Gzip)),
            (".crate", Format::Tar(Packing::Gzip)),
            (".tar.xz", Format::Tar(Packing::Xz)),
            (".txz", Format::Tar(Packing::Xz)),
            (".tar.zst", Format::Tar(Packing::Zstd)),
            (".tzst", Format::Tar(Packing::Zstd)),
            (".tar", Format::Tar(Packing::Plain)),
            (".zip", Format::Zip),
            (".whl", Format::Zip),
            (".jar", Format::Zip),
            (".deb", Format::Deb),
        ];
        let name = name.to_ascii_lowercase();
        ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, format)| *format)
    }
}

impl Packing {
    fn unpacked<'a>(self, from: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ArchiveError> {
        let broken = |error: std::io::Error| ArchiveError::broken(&error);
        Ok(match self {
            Packing::Plain => Box::new(from),
            Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(from)),
            Packing::Xz => Box::new(xz(from).map_err(broken)?),
            Packing::Zstd => Box::new(zstd::Decoder::new(from).map_err(broken)?),
        })
    }
}

/// Unpacks a tar archive, whatever it is called and compressed with, into the empty directory `to`.
pub fn unpack_tar(archive: &Path, strip: usize, to: &Path, bytes_max: u64) -> Result<(), ArchiveError> {
    let whole = decompressed(ops::open(archive)?).map_err(|error| ArchiveError::broken(&error))?;
    Placing::new(to, strip, bytes_max).tar(whole)
}

struct Placing<'a> {
    to: &'a Path,
    strip: usize,
    links: BTreeSet<RelPath>,
    bytes: u64,
    bytes_max: u64,
    entries: usize,
}

impl<'a> Placing<'a> {
    fn new(to: &'a Path, strip: usize, bytes_max: u64) -> Self {
        Self { to, strip, links: BTreeSet::new(), bytes: 0, bytes_max, entries: 0 }
    }

    /// Where an entry goes; `None` if stripping leaves nothing of it.
    fn place(&mut self, name: &str) -> Result<Option<(RelPath, PathBuf)>, ArchiveError> {
        self.entries += 1;
        let refuse = |why| Err(ArchiveError::refused(name, why));
        if self.entries > MEMBERS_MAX {
            return refuse("which is one entry too many");
        }
        if name.split('/').any(|part| part == "..") {
            return refuse("which leaves its directory");
        }
        if name.split('/').any(atomic::is_temporary) {
            // No walk lists such a name, so it would be lost without a word.
            return refuse("which has a name that drystone keeps for itself");
        }
        let Ok(path) = RelPath::parse(name) else { return refuse("which is no relative path") };
        let kept: Vec<&str> = path.components().skip(self.strip).collect();
        let Ok(path) = RelPath::parse(&kept.join("/")) else { return refuse("which is no relative path") };
        if path.is_root() {
            return Ok(None);
        }
        let mut above = path.parent();
        while let Some(dir) = above {
            if self.links.contains(&dir) {
                return refuse("which lies behind a link of the same archive");
            }
            above = dir.parent();
        }
        let disk = self.to.join(path.as_str());
        if path.components().count() > TREE_DEPTH_MAX {
            return refuse("which lies too deep");
        }
        if let Some(parent) = path.parent() {
            self.make_dirs(&parent, name)?;
        }
        Ok(Some((path, disk)))
    }

    /// Makes the directories that the entry `name` needs.
    fn make_dirs(&mut self, dir: &RelPath, name: &str) -> Result<(), ArchiveError> {
        let refuse = |why| Err(ArchiveError::refused(name, why));
        let mut missing = Vec::new();
        let mut next = Some(dir.clone()).filter(|dir| !dir.is_root());
        while let Some(dir) = next {
            let disk = self.to.join(dir.as_str());
            match ops::if_there(ops::symlink_metadata(&disk)) {
                Ok(Some(meta)) if meta.is_dir() => break,
                Ok(None) => missing.push(disk),
                Ok(Some(_)) => return refuse("which needs a directory where it has a file"),
                // Below a file there is nothing, and that is an error of its own.
                Err(error) if error.is_no_directory() => missing.push(disk),
                Err(error) => return Err(error.into()),
            }
            next = dir.parent().filter(|dir| !dir.is_root());
        }
        // Each takes room on the disk, and a single name makes hundreds of them.
        self.entries += missing.len();
        if self.entries > MEMBERS_MAX {
            return refuse("which makes one directory too many");
        }
        missing.iter().rev().try_for_each(|disk| ops::create_dir(disk))?;
        Ok(())
    }

    /// Takes away what an earlier entry put where another one goes now. What it holds would be lost without a word.
    fn clear(&mut self, name: &str, path: &RelPath, disk: &Path) -> Result<(), ArchiveError> {
        let Some(meta) = ops::if_there(ops::symlink_metadata(disk))? else { return Ok(()) };
        if meta.is_dir() && !ops::read_dir(disk)?.is_empty() {
            return Err(ArchiveError::refused(name, "which takes the place of a directory that is not empty"));
        }
        self.links.remove(path);
        Ok(ops::remove_all(disk)?)
    }

    fn is_in_dev(&self, name: &str) -> bool {
        RelPath::parse(name).is_ok_and(|path| path.components().nth(self.strip) == Some("dev"))
    }

    /// Places a file; `claimed` is its size as the archive has it, which may be a lie.
    fn file(&mut self, name: &str, executable: bool, claimed: u64, from: &mut dyn Read) -> Result<(), ArchiveError> {
        let Some((path, disk)) = self.place(name)? else { return Ok(()) };
        let too_large = || ArchiveError::refused(name, "which makes it too large unpacked");
        if self.bytes.saturating_add(claimed) > self.bytes_max {
            // Before a file of nothing but holes fills the disk with zeros.
            return Err(too_large());
        }
        self.clear(name, &path, &disk)?;
        let file = ops::create_new(&disk, file_mode(executable))?;
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ArchiveError::Broken(error.to_string())),
            };
            self.bytes += count as u64;
            if self.bytes > self.bytes_max {
                return Err(too_large());
            }
            ops::write_all(&file, &disk, &buffer[..count])?;
        }
    }

    fn directory(&mut self, name: &str) -> Result<(), ArchiveError> {
        let Some((path, disk)) = self.place(name)? else { return Ok(()) };
        if self.links.remove(&path) {
            // Or it would depend on this machine whether what the link leads to is a directory.
            ops::remove_file(&disk)?;
        }
        self.make_dirs(&path, name)
    }

    fn link(&mut self, name: &str, target: &str) -> Result<(), ArchiveError> {
        let Some((path, disk)) = self.place(name)? else { return Ok(()) };
        self.clear(name, &path, &disk)?;
        if target.is_empty() || target.contains('\0') || target.len() as u64 > LINK_BYTES_MAX {
            return Err(ArchiveError::refused(name, "a link with a target no disk would take"));
        }
        ops::symlink(target, &disk)?;
        self.links.insert(path);
        Ok(())
    }

    fn tar(&mut self, from: impl Read) -> Result<(), ArchiveError> {
        // Headers and padding take less than the files may.
        let stream_bytes_max = self.bytes_max.saturating_mul(2);
        read_tar(from, stream_bytes_max, &mut |name, member| match member {
            Member::File { mode, claimed, content, .. } => self.file(name, mode & 0o100 != 0, claimed, content),
            Member::Dir { .. } => self.directory(name),
            Member::Link { target, .. } => self.link(name, &target),
            Member::HardLink { target } => self.hard_link(name, &target),
            // Of a root file system: no tree can hold a device, and every sandbox has a `/dev` of its own.
            Member::Special if self.is_in_dev(name) => Ok(()),
            Member::Special => {
                Err(ArchiveError::refused(name, "which is a device, a pipe or something else that is no file"))
            }
        })
    }

    /// A hard link becomes a copy: files of a tree are never one.
    fn hard_link(&mut self, name: &str, target: &str) -> Result<(), ArchiveError> {
        let refuse = |why| Err(ArchiveError::refused(name, why));
        let Some((path, source)) = self.place(target)? else {
            return refuse("a link to what `strip` leaves out");
        };
        let Some(meta) = ops::if_there(ops::symlink_metadata(&source))? else {
            return refuse("a link to what it does not hold");
        };
        if meta.is_symlink() && self.links.contains(&path) {
            let target = ops::read_link(&source)?;
            let Some(target) = target.to_str() else { return refuse("a link whose target is not UTF-8") };
            return self.link(name, target);
        }
        if !meta.is_file() {
            return refuse("a hard link to a directory");
        }
        let executable = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o100 != 0;
        let mut from = ops::open_no_follow(&source)?;
        self.file(name, executable, meta.len(), &mut from)
    }

    /// Places the files of a Debian package, and nothing of what tells of it.
    fn deb(&mut self, from: impl Read + Seek) -> Result<(), ArchiveError> {
        let (name, data) = ar::data_of_package(from)?;
        let Some(Format::Tar(packing)) = Format::of(&name) else {
            let why =
                "which is compressed in a way that is not read here; known are .tar, .tar.gz, .tar.xz and .tar.zst";
            return Err(ArchiveError::refused(&name, why));
        };
        self.tar(packing.unpacked(data)?)
    }

    fn zip(&mut self, from: impl Read + Seek) -> Result<(), ArchiveError> {
        let broken = |error: zip::result::ZipError| ArchiveError::Broken(error.to_string());
        let mut archive = zip::ZipArchive::new(from).map_err(broken)?;
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).map_err(broken)?;
            let name = entry.name().to_owned();
            if name.contains('\u{fffd}') && std::str::from_utf8(entry.name_raw()).is_err() {
                return Err(ArchiveError::refused(&name, "whose name is not UTF-8"));
            }
            if name.contains('\\') {
                // A separator to some, and part of the name to others: whoever reads it must not choose.
                return Err(ArchiveError::refused(&name, "which has a backslash in its name"));
            }
            let mode = entry.unix_mode().unwrap_or(0o644);
            let kind = mode & libc::S_IFMT;
            if entry.is_dir() {
                self.directory(&name)?;
            } else if !matches!(kind, 0 | libc::S_IFREG | libc::S_IFLNK) {
                let why = "which is a device, a pipe or something else that is no file";
                return Err(ArchiveError::refused(&name, why));
            } else if kind == libc::S_IFLNK {
                let refused = |why| ArchiveError::refused(&name, why);
                let mut target = Vec::new();
                let read = (&mut entry).take(LINK_BYTES_MAX + 1).read_to_end(&mut target);
                read.map_err(|error| ArchiveError::Broken(error.to_string()))?;
                if target.len() as u64 > LINK_BYTES_MAX {
                    return Err(refused("a link with a target no disk would take"));
                }
                let target = String::from_utf8(target).map_err(|_| refused("a link whose target is not UTF-8"))?;
                self.link(&name, &target)?;
            } else {
                let claimed = entry.size();
                self.file(&name, mode & 0o100 != 0, claimed, &mut entry)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
