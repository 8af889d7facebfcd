//! Finds the file that a thread's call means, as the kernel finds it for the thread: from its root, its directory and its descriptors.
//! What is found is held by a descriptor and never looked for again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::sandbox::trace::asking::process_of;
use crate::sandbox::trace::resolve::{LINKS_MAX, push_parts};

/// Type of the file system whose links lead where their text does not say, and the number of its root.
const PROC_MAGIC: u64 = 0x9fa0;
const PROC_ROOT: u64 = 1;

/// What a call says of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// What a descriptor is open on.
    Descriptor(i32),
    /// What lies at a path.
    Path {
        /// The directory that it begins in, unless it is absolute; `AT_FDCWD` is the current one.
        dir: i32,
        /// The path, not empty.
        path: Vec<u8>,
        /// Whether a last link is followed.
        follow: bool,
    },
}

/// Opens the file, without reading or writing it (`O_PATH`).
pub fn open(thread: i32, target: &Target) -> io::Result<OwnedFd> {
    match target {
        Target::Descriptor(descriptor) => opened_at(thread, *descriptor),
        Target::Path { dir, path, follow } => {
            let root = open_at(CWD, format!("/proc/{thread}/root").as_bytes(), OFlags::empty())?;
            let base = if path.starts_with(b"/") { root.try_clone()? } else { opened_at(thread, *dir)? };
            walk(thread, root, base, path, *follow)
        }
    }
}

/// Opens the directory that a path leads to, and gives the last name there, which may be of nothing. `None` of paths that end in no name.
pub fn open_above(thread: i32, dir: i32, path: &[u8]) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let start = path[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (above, name) = (&path[..start], &path[start..end]);
    if matches!(name, b"" | b"." | b"..") {
        return Ok(None);
    }
    // Where there is nothing above the name, that is the directory itself.
    let above = Target::Path { dir, path: [above, b"."].concat(), follow: true };
    Ok(Some((open(thread, &above)?, name.to_vec())))
}

/// Opens what has a name in a directory; a link stands for itself.
pub fn open_in(dir: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    open_at(dir, name, OFlags::NOFOLLOW)
}

fn opened_at(thread: i32, descriptor: i32) -> io::Result<OwnedFd> {
    let link = match descriptor {
        libc::AT_FDCWD => format!("/proc/{thread}/cwd"),
        descriptor => format!("/proc/{thread}/fd/{descriptor}"),
    };
    open_at(CWD, link.as_bytes(), OFlags::empty())
}

fn open_at(dir: impl AsFd, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty())?)
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Follows a path name by name: only so does `..` stop at the thread's root, and does `self` in `/proc` mean the thread.
fn walk(thread: i32, root: OwnedFd, base: OwnedFd, path: &[u8], follow: bool) -> io::Result<OwnedFd> {
    let mut here = base;
    let mut parts = Vec::new();
    push_parts(&mut parts, path);
    let is_dir = path.ends_with(b"/") || path.ends_with(b"/.");
    let mut followed = 0;
    while let Some(part) = parts.pop() {
        if part == b".." {
            if !is_same(&here, &root)? {
                here = open_at(&here, b"..", OFlags::empty())?;
            }
            continue;
        }
        let next = open_at(&here, &part, OFlags::NOFOLLOW)?;
        let is_link = FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) == FileType::Symlink;
        if !is_link || (parts.is_empty() && !follow && !is_dir) {
            here = next;
            continue;
        }
        followed += 1;
        if followed > LINKS_MAX {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        if rustix::fs::fstatfs(&next)?.f_type as u64 == PROC_MAGIC {
            match part.as_slice() {
                _ if rustix::fs::fstat(&here)?.st_ino != PROC_ROOT => {
                    if is_of_this_process(&here)? {
                        return Err(io::Error::from_raw_os_error(libc::EACCES));
                    }
                    here = open_at(&here, &part, OFlags::empty())?;
                    continue;
                }
                b"self" => {
                    push_parts(&mut parts, process_of(thread).to_string().as_bytes());
                    continue;
                }
                b"thread-self" => {
                    push_parts(&mut parts, format!("{}/task/{thread}", process_of(thread)).as_bytes());
                    continue;
                }
                _ => {}
            }
        }
        let target = rustix::fs::readlinkat(&next, c"", Vec::new())?.into_bytes();
        if target.starts_with(b"/") {
            here = root.try_clone()?;
        }
        push_parts(&mut parts, &target);
    }
    Ok(here)
}

/// Whether a directory of `/proc` is this process's, the first of its namespace: what that has open is shut to the thread, not to us.
fn is_of_this_process(dir: &OwnedFd) -> io::Result<bool> {
    let place = rustix::fs::readlink(format!("/proc/self/fd/{}", dir.as_raw_fd()), Vec::new())?;
    Ok(std::process::id() == 1 && place.to_bytes().split(|byte| *byte == b'/').any(|part| part == b"1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ops;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_path_leads_where_it_leads_from_the_root_that_it_is_seen_from() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let top = dir.path().join("top");
        ops::create_dir_all(&top.join("a/b")).expect("made");
        ops::write(&top.join("a/b/file"), b"").expect("written");
        ops::write(&top.join("file"), b"").expect("written");
        ops::write(&dir.path().join("file"), b"").expect("written");
        for (target, at) in
            [("/a/b/file", "abs"), ("../../../../file", "a/up"), ("abs", "more"), ("loop", "loop"), ("no", "gone")]
        {
            ops::symlink(target, &top.join(at)).expect("linked");
        }
        let open = |path: &std::path::Path| open_at(CWD, path.as_os_str().as_bytes(), OFlags::empty()).expect("there");
        let thread = i32::try_from(std::process::id()).expect("a pid");
        let check = |from: &str, path: &str, follow: bool, expect: Option<&str>| {
            let found = walk(thread, open(&top), open(&top.join(from)), path.as_bytes(), follow);
            let number = |file: &OwnedFd| rustix::fs::fstat(file).expect("open").st_ino;
            let expect = expect.map(|at| rustix::fs::lstat(top.join(at)).expect("there").st_ino);
            assert_eq!(found.ok().as_ref().map(number), expect, "{path} from {from}");
        };
        check("a", "b/file", true, Some("a/b/file"));
        check("a/b", "../../file", true, Some("file"));
        check("a/b", "../../../../file", true, Some("file"));
        check("", "abs", true, Some("a/b/file"));
        check("", "abs", false, Some("abs"));
        check("", "more", true, Some("a/b/file"));
        check("", "./a//up", true, Some("file"));
        check("", "loop", true, None);
        check("", "loop", false, Some("loop"));
        check("", "gone", true, None);
        check("", "gone", false, Some("gone"));
        check("", "file/x", true, None);
    }

    #[test]
    fn what_proc_has_of_a_thread_is_of_that_thread() {
        let file = tempfile::tempfile().expect("a file");
        let thread = i32::try_from(std::process::id()).expect("a pid");
        let number = rustix::fs::fstat(&file).expect("open").st_ino;
        let by_path = |path: String| {
            let found = open(thread, &Target::Path { dir: libc::AT_FDCWD, path: path.into_bytes(), follow: true });
            rustix::fs::fstat(found.expect("there")).expect("open").st_ino
        };
        assert_eq!(by_path(format!("/proc/self/fd/{}", file.as_raw_fd())), number);
        assert_eq!(by_path(format!("/proc/{thread}/fd/{}", file.as_raw_fd())), number);
        let found = open(thread, &Target::Descriptor(file.as_raw_fd())).expect("there");
        assert_eq!(rustix::fs::fstat(&found).expect("open").st_ino, number);
    }
}
