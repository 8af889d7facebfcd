//! Unpacks archives nobody here made: every name is checked, no link is followed, nothing lands outside. Fetches nothing.

use std::collections::BTreeSet;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use crate::base::limits::FETCH_BYTES_MAX;
use crate::base::path::RelPath;
use crate::fs::archive::{ArchiveError, MEMBERS_MAX, Member, decompressed, read_tar};
use crate::fs::atomic;
use crate::fs::link::file_mode;
use crate::fs::ops;

const COPY_BUFFER_BYTES: usize = 128 * 1024;
/// Most bytes of a link's target, as the kernel has it.
const LINK_BYTES_MAX: u64 = libc::PATH_MAX as u64 - 1;

/// Unpacks `archive`, whose format `name` tells, into the empty directory `to`, dropping `strip` leading components.
pub fn unpack(archive: &Path, name: &str, strip: usize, to: &Path) -> Result<(), ArchiveError> {
    unpack_within(archive, name, strip, to, FETCH_BYTES_MAX)
}

/// The same for at most `bytes_max` bytes of files in all.
pub fn unpack_within(archive: &Path, name: &str, strip: usize, to: &Path, bytes_max: u64) -> Result<(), ArchiveError> {
    let file = ops::open(archive)?;
    let lower = name.to_ascii_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| lower.ends_with(ending));
    let mut placing = Placing::new(to, strip, bytes_max);
    if ends(&[".tar.gz", ".tgz", ".crate"]) {
        placing.tar(flate2::read::MultiGzDecoder::new(file))
    } else if ends(&[".tar.xz", ".txz"]) {
        placing.tar(xz2::read::XzDecoder::new_multi_decoder(file))
    } else if ends(&[".tar.zst", ".tzst"]) {
        placing.tar(zstd::Decoder::new(file).map_err(|error| ArchiveError::Broken(error.to_string()))?)
    } else if ends(&[".tar"]) {
        placing.tar(file)
    } else if ends(&[".zip", ".whl", ".jar"]) {
        placing.zip(file)
    } else {
        Err(ArchiveError::UnknownFormat(name.to_owned()))
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
        if let Some(parent) = disk.parent() {
            ops::create_dir_all(parent)?;
        }
        Ok(Some((path, disk)))
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
        self.links.remove(&path);
        ops::remove_all(&disk)?;
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
        Ok(ops::create_dir_all(&disk)?)
    }

    fn link(&mut self, name: &str, target: &str) -> Result<(), ArchiveError> {
        let Some((path, disk)) = self.place(name)? else { return Ok(()) };
        ops::remove_all(&disk)?;
        ops::symlink(target, &disk)?;
        self.links.insert(path);
        Ok(())
    }

    fn tar(&mut self, from: impl Read) -> Result<(), ArchiveError> {
        // Headers and padding take less than the files may.
        let stream_bytes_max = self.bytes_max.saturating_mul(2);
        read_tar(from, stream_bytes_max, &mut |name, member| match member {
            Member::File { mode, claimed, content } => self.file(name, mode & 0o100 != 0, claimed, content),
            Member::Dir => self.directory(name),
            Member::Link { target } => self.link(name, &target),
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

    fn zip(&mut self, from: impl Read + Seek) -> Result<(), ArchiveError> {
        let broken = |error: zip::result::ZipError| ArchiveError::Broken(error.to_string());
        let mut archive = zip::ZipArchive::new(from).map_err(broken)?;
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).map_err(broken)?;
            let name = entry.name().to_owned();
            let mode = entry.unix_mode().unwrap_or(0o644);
            if entry.is_dir() {
                self.directory(&name)?;
            } else if mode & libc::S_IFMT == libc::S_IFLNK {
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
mod tests {
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

    #[test]
    fn hostile_entries_are_refused_and_nothing_lands_outside() {
        use tar::EntryType::{Block, Fifo, Regular, Symlink};
        for entries in [
            vec![("../evil", Regular, "", "x")],
            vec![("/evil", Regular, "", "x")],
            vec![("a/../../evil", Regular, "", "x")],
            vec![("out", Symlink, "..", ""), ("out/evil", Regular, "", "x")],
            vec![("pipe", Fifo, "", "")],
            vec![("disk", Block, "", "")],
        ] {
            let (dir, result) = unpacked(&archive(&entries), 0);
            assert!(result.is_err(), "{entries:?}");
            assert!(!ops::exists(&dir.path().join("evil")), "{entries:?}");
        }
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
}
