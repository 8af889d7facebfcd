//! Opening a directory beneath another one with no link on the way. Knows nothing of what is done there.
//!
//! `openat2` does it in one call. Where the system does not know that call (Linux before 5.6, some containers, valgrind), the way is
//! gone name by name, and that is the same: a name that is opened with `O_NOFOLLOW` and must be a directory is no link, and a
//! path without `..` that starts at a directory cannot leave it, but by way of a directory that somebody moves meanwhile, which
//! `openat2` follows just so.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx};
use rustix::io::Errno;

/// Opens the directory at a relative path, `.` for the same one. Cost: one call, without `openat2` one for each name.
///
/// # Errors
/// `ELOOP` if it is a link or lies behind one, `EXDEV` if the path leads out. No caller has `..` in one.
pub(super) fn open_dir(dir: impl AsFd, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    static IS_UNKNOWN: AtomicBool = AtomicBool::new(false);
    if !IS_UNKNOWN.load(Ordering::Relaxed) {
        match at_once(dir.as_fd(), path, flags) {
            Err(Errno::NOSYS) => IS_UNKNOWN.store(true, Ordering::Relaxed),
            opened => return opened,
        }
    }
    name_by_name(dir, path, flags)
}

fn at_once(dir: impl AsFd, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let bounds = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(dir, path, flags | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), bounds)
}

fn name_by_name(dir: impl AsFd, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = path.to_bytes();
    if path.starts_with(b"/") || path.split(|byte| *byte == b'/').any(|name| name == b"..") {
        return Err(Errno::XDEV);
    }
    let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").peekable();
    if names.peek().is_none() {
        return if path.is_empty() { Err(Errno::NOENT) } else { one(dir, c".", flags) };
    }
    let mut reached: Option<OwnedFd> = None;
    while let Some(name) = names.next() {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let flags = if names.peek().is_some() { OFlags::PATH } else { flags };
        let from = reached.as_ref().map_or_else(|| dir.as_fd(), |reached| reached.as_fd());
        reached = Some(one(from, &name, flags)?);
    }
    reached.ok_or(Errno::NOENT)
}

fn one(dir: impl AsFd, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir.as_fd(), name, flags, Mode::empty()).map_err(|error| match error {
        // What is no directory may be a link to one: `openat2` tells the two apart, and so do those who call.
        Errno::NOTDIR if is_link(dir, name) => Errno::LOOP,
        error => error,
    })
}

fn is_link(dir: impl AsFd, name: &CStr) -> bool {
    let stat = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Symlink)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ops;
    use crate::fs::stat::StatKey;

    #[test]
    fn one_call_and_many_come_to_the_same() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        ops::create_dir_all(&dir.path().join("a/b/c")).expect("a temporary directory");
        ops::write(&dir.path().join("a/file"), b"text").expect("a temporary file");
        let links = [("b", "a/link"), ("a", "link"), ("nowhere", "a/dangling"), ("/", "a/top"), ("..", "a/up")];
        for (target, link) in links {
            ops::symlink(target, &dir.path().join(link)).expect("a temporary link");
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let top = rustix::fs::open(dir.path(), flags, Mode::empty()).expect("it is there");
        let inode = |opened: Result<OwnedFd, Errno>| {
            opened.map(|fd| statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::INO).expect("it is open").stx_ino)
        };
        let check = |path: &CStr, expect: Result<&str, Errno>| {
            let expect = expect.map(|dir_of| StatKey::at(&dir.path().join(dir_of)).expect("it was made").inode);
            for flags in [OFlags::PATH, OFlags::RDONLY] {
                assert_eq!(inode(name_by_name(&top, path, flags)), expect, "{path:?} {flags:?}");
                assert_eq!(inode(open_dir(&top, path, flags)), expect, "{path:?} {flags:?}");
                let single = inode(at_once(&top, path, flags));
                assert!(single == expect || single == Err(Errno::NOSYS), "{path:?} {flags:?}: {single:?}");
            }
        };
        let there =
            [(c".", ""), (c"a", "a"), (c"a/b/c", "a/b/c"), (c"./a/./b", "a/b"), (c"a//b", "a/b"), (c"a/b/", "a/b")];
        there.into_iter().for_each(|(path, expect)| check(path, Ok(expect)));
        for path in [c"", c"none", c"a/none/x"] {
            check(path, Err(Errno::NOENT));
        }
        for path in [c"a/file", c"a/file/x"] {
            check(path, Err(Errno::NOTDIR));
        }
        for path in [c"a/link", c"a/link/c", c"link", c"link/b", c"a/dangling", c"a/dangling/x", c"a/top", c"a/up/a"] {
            check(path, Err(Errno::LOOP));
        }
        for path in [c"/", c"/usr", c"..", c"../x"] {
            check(path, Err(Errno::XDEV));
        }
    }
}
