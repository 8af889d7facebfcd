//! Opened directories, and changes of what lies beneath them. Nothing here follows a link, whoever puts one there meanwhile.
//!
//! A path is resolved once, by `openat2`, and what is done then is done in the very directory that was found. The names
//! it is done to are single ones: the system follows no link in the last part of a path that is made, renamed or removed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, OFlags, RawMode, RenameFlags, StatxFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::base::path::RelPath;
use crate::fs::atomic;
use crate::fs::beneath;
use crate::fs::nursery::Bequest;
use crate::fs::ops::{AtPath, DirEntry, FsError, Kind, change, if_there};
use crate::fs::stat::StatKey;

/// Levels that a removal goes down with a descriptor for each; what lies deeper is moved up first.
const DESCENT_MAX: usize = 64;

/// How often a removal begins anew after moving something up: enough for paths of a few million directories.
const PASSES_MAX: usize = 1 << 16;

/// A directory as it was found. It need not be readable: that is asked for when it is listed.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// Where it was found; for errors.
    path: PathBuf,
}

/// Whether a directory was emptied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Emptied {
    Wholly,
    /// What lay too deep lies in the topmost one now.
    MovedUp,
}

impl Dir {
    /// Opens a directory. Links on the way are followed: for what nobody else has a say in.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self { fd: fd.map_err(io::Error::from).at("open", path)?, path: path.to_owned() })
    }

    /// Opens the directory that a path lies in, as [`Dir::open`] does, and gives the name of the path there.
    pub fn above(path: &Path) -> Result<(Self, &OsStr), FsError> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if parent.as_os_str().is_empty() => Ok((Self::open(Path::new("."))?, name)),
            (Some(parent), Some(name)) => Ok((Self::open(parent)?, name)),
            _ => Err(FsError::new("open", path, io::ErrorKind::InvalidInput.into())),
        }
    }

    /// Opens a directory beneath. Cost: one call, however deep.
    ///
    /// # Errors
    /// [`FsError::is_through_link`] if it is a link or lies behind one.
    pub fn open_beneath(&self, path: &RelPath) -> Result<Self, FsError> {
        let fd = self.resolve(path, OFlags::PATH, "open")?;
        Ok(Self { fd, path: self.path_of(path) })
    }

    /// The same, making what is not there. Cost: four calls for the last directory, as long as those above it are there.
    pub fn make_beneath(&self, path: &RelPath) -> Result<Self, FsError> {
        let opened = self.open_beneath(path);
        let Some(parent) = path.parent().filter(|_| opened.as_ref().is_err_and(FsError::is_missing)) else {
            return opened;
        };
        let parent = self.make_beneath(&parent)?;
        match parent.create_dir(path.file_name()) {
            Err(error) if error.cause.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => parent.open_dir(path.file_name()),
        }
    }

    /// Opens a directory that lies directly in it.
    ///
    /// # Errors
    /// [`FsError::is_no_directory`] if it is anything else, a link too.
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Self, FsError> {
        let path = self.at(name.as_ref());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name.as_ref(), flags, Mode::empty());
        Ok(Self { fd: fd.map_err(io::Error::from).at("open", &path)?, path })
    }

    fn resolve(&self, path: &RelPath, flags: OFlags, verb: &'static str) -> Result<OwnedFd, FsError> {
        let text = if path.is_root() { "." } else { path.as_str() };
        let fd = text.into_with_c_str(|text| beneath::open_dir(&self.fd, text, flags));
        fd.map_err(|cause| FsError::new(verb, self.path_of(path), explained(cause)))
    }

    /// Where it was found, for people: it may lie elsewhere by now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn path_of(&self, path: &RelPath) -> PathBuf {
        if path.is_root() { self.path.clone() } else { self.path.join(path.as_str()) }
    }

    /// The path of a name in it, for people and their errors.
    pub fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let name = name.as_ref();
        let is_single = !matches!(name.as_bytes(), b"" | b"." | b"..") && !name.as_bytes().contains(&b'/');
        assert!(is_single, "BUG: {} is no name in {}", name.display(), self.path.display());
        self.path.join(name)
    }

    /// Lists a directory beneath in byte order of the names.
    pub fn list_beneath(&self, path: &RelPath) -> Result<Vec<DirEntry>, FsError> {
        entries(self.resolve(path, OFlags::RDONLY, "list")?, || self.path_of(path))
    }

    /// Lists it in byte order of the names.
    pub fn list(&self) -> Result<Vec<DirEntry>, FsError> {
        self.list_beneath(&RelPath::root())
    }

    /// The signature of what has the name.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> Result<StatKey, FsError> {
        let stat = rustix::fs::statx(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
        Ok(StatKey::of_statx(&stat.map_err(io::Error::from).at("look at", &self.at(name))?))
    }

    /// Whether something has the name. Trouble counts as no.
    pub fn has(&self, name: impl AsRef<OsStr>) -> bool {
        self.stat(name).is_ok()
    }

    /// Creates a file that must not exist, with these permission bits (before the umask).
    pub fn create_new(&self, name: impl AsRef<OsStr>, mode: RawMode) -> Result<File, FsError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let create = || rustix::fs::openat(&self.fd, name.as_ref(), flags, Mode::from_raw_mode(mode));
        change("create", &self.at(name.as_ref()), || Ok(create()?.into()))
    }

    /// Opens a regular file for reading, and nothing else: no link, and nothing that would keep the caller waiting. Its signature is taken
    /// before anything is read.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> Result<(File, StatKey), FsError> {
        let path = self.at(name.as_ref());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.fd, name.as_ref(), flags, Mode::empty());
        let file = File::from(opened.map_err(io::Error::from).at("open", &path)?);
        let stat = StatKey::of(&file.metadata().at("look at", &path)?);
        if stat.is_file() {
            return Ok((file, stat));
        }
        Err(FsError::new("open", path, io::Error::other("not a regular file")))
    }

    /// Creates a directory that must not exist.
    pub fn create_dir(&self, name: impl AsRef<OsStr>) -> Result<(), FsError> {
        let create = || rustix::fs::mkdirat(&self.fd, name.as_ref(), Mode::from_raw_mode(0o777));
        change("create", &self.at(name.as_ref()), || Ok(create()?))
    }

    /// Makes a symbolic link that must not exist.
    pub fn symlink(&self, target: &str, name: impl AsRef<OsStr>) -> Result<(), FsError> {
        let link = || rustix::fs::symlinkat(target, &self.fd, name.as_ref());
        change("link", &self.at(name.as_ref()), || Ok(link()?))
    }

    /// Gives a file a second name in another directory; a link is not followed.
    pub fn hard_link(&self, name: impl AsRef<OsStr>, to: &Dir, to_name: impl AsRef<OsStr>) -> Result<(), FsError> {
        let link = || rustix::fs::linkat(&self.fd, name.as_ref(), &to.fd, to_name.as_ref(), AtFlags::empty());
        change("link", &to.at(to_name.as_ref()), || Ok(link()?))
    }

    /// Renames within it, replacing a file that is there.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> Result<(), FsError> {
        self.rename_into(from.as_ref(), self, to.as_ref())
    }

    fn rename_into(&self, from: &OsStr, dir: &Dir, to: &OsStr) -> Result<(), FsError> {
        let rename = || rustix::fs::renameat(&self.fd, from, &dir.fd, to);
        change("rename to", &dir.at(to), || Ok(rename()?))
    }

    /// The same into another directory.
    pub fn rename_to(&self, from: impl AsRef<OsStr>, dir: &Dir, to: impl AsRef<OsStr>) -> Result<(), FsError> {
        self.rename_into(from.as_ref(), dir, to.as_ref())
    }

    /// The same if nothing has the name there (`renameat2` with `RENAME_NOREPLACE`).
    pub fn rename_to_new(&self, from: impl AsRef<OsStr>, dir: &Dir, to: impl AsRef<OsStr>) -> Result<(), FsError> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let rename = || rustix::fs::renameat_with(&self.fd, from, &dir.fd, to, RenameFlags::NOREPLACE);
        change("rename to", &dir.at(to), || Ok(rename()?))
    }

    /// Swaps two names in one step (`renameat2` with `RENAME_EXCHANGE`).
    pub fn exchange(&self, one: impl AsRef<OsStr>, other: impl AsRef<OsStr>) -> Result<(), FsError> {
        self.exchange_with(one, self, other)
    }

    /// The same with a name in another directory.
    pub fn exchange_with(&self, one: impl AsRef<OsStr>, dir: &Dir, other: impl AsRef<OsStr>) -> Result<(), FsError> {
        let (one, other) = (one.as_ref(), other.as_ref());
        let exchange = || rustix::fs::renameat_with(&self.fd, one, &dir.fd, other, RenameFlags::EXCHANGE);
        change("swap", &dir.at(other), || Ok(exchange()?))
    }

    /// Opens it once more, for what takes more than its name.
    pub(super) fn readable(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, ".", flags, Mode::empty())?)
    }

    /// What it gives to what is made in it; `None` where that cannot be told, or is nothing that a program can ask for.
    pub fn bequest(&self) -> Option<Bequest> {
        let fd = self.readable().ok()?;
        let flags = rustix::fs::ioctl_getflags(&fd).ok()?;
        let stat = rustix::fs::fstat(&fd).ok()?;
        let list = rustix::fs::fgetxattr(&fd, "system.posix_acl_default", &mut [0_u8; 1]);
        let has_list = !matches!(list, Err(Errno::NODATA | Errno::OPNOTSUPP));
        let group = (stat.st_mode & libc::S_ISGID != 0).then_some(stat.st_gid);
        Some(Bequest { flags, group, has_list })
    }

    /// Tells the file system that what lies below is not related, and may be spread over the disk (`chattr +T`). Whether it understood.
    pub fn mark_as_top(&self, own: &Bequest) -> bool {
        let mark = || Ok(rustix::fs::ioctl_setflags(self.readable()?, own.flags | IFlags::TOPDIR)?);
        change("mark", &self.path, mark).is_ok()
    }

    /// Sets the permission bits of a file or a directory.
    ///
    /// # Errors
    /// [`FsError::is_through_link`] if it is a link.
    pub fn set_mode(&self, name: impl AsRef<OsStr>, mode: RawMode) -> Result<(), FsError> {
        let path = self.at(name.as_ref());
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.fd, name.as_ref(), flags, Mode::empty());
        let opened = opened.map_err(io::Error::from).at("open", &path)?;
        let stat = rustix::fs::fstat(&opened).map_err(io::Error::from).at("look at", &path)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(FsError::new("change the mode of", path, Errno::LOOP.into()));
        }
        let itself = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let set = || rustix::fs::chmodat(CWD, &itself, Mode::from_raw_mode(mode), AtFlags::empty());
        change("change the mode of", &path, || Ok(set()?))
    }

    /// Removes a file or a link; fine if it is not there.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> Result<(), FsError> {
        let remove = || rustix::fs::unlinkat(&self.fd, name.as_ref(), AtFlags::empty());
        if_there(change("remove", &self.at(name.as_ref()), || Ok(remove()?))).map(drop)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: impl AsRef<OsStr>) -> Result<(), FsError> {
        let remove = || rustix::fs::unlinkat(&self.fd, name.as_ref(), AtFlags::REMOVEDIR);
        change("remove", &self.at(name.as_ref()), || Ok(remove()?))
    }

    /// Removes whatever has the name, a directory with everything beneath, however deep; fine if nothing does.
    ///
    /// Directories that forbid it are made writable first: outputs of some tools forbid their own removal.
    pub fn remove_all(&self, name: impl AsRef<OsStr>) -> Result<(), FsError> {
        for _ in 0..PASSES_MAX {
            let Some(dir) = self.open_to_empty(name.as_ref())? else { return self.remove_file(name) };
            if dir.empty(&dir, 0)? == Emptied::Wholly {
                break;
            }
        }
        if_there(self.remove_dir(name)).map(drop)
    }

    fn empty(&self, top: &Dir, depth: usize) -> Result<Emptied, FsError> {
        let mut emptied = Emptied::Wholly;
        for entry in self.list()? {
            let below = if entry.kind == Kind::Dir { self.open_to_empty(&entry.name)? } else { None };
            match below {
                None => self.remove_file(&entry.name)?,
                Some(_) if depth == DESCENT_MAX => {
                    self.rename_into(&entry.name, top, OsStr::new(&atomic::temporary_name("deep")))?;
                    emptied = Emptied::MovedUp;
                }
                Some(below) => {
                    if below.empty(top, depth + 1)? == Emptied::MovedUp {
                        emptied = Emptied::MovedUp;
                    }
                    if_there(self.remove_dir(&entry.name))?;
                }
            }
        }
        Ok(emptied)
    }

    /// Opens a directory and sees to it that what lies in it can be removed; `None` if it is no directory, or not there.
    fn open_to_empty(&self, name: &OsStr) -> Result<Option<Dir>, FsError> {
        let dir = match self.open_dir(name) {
            Err(error) if error.is_missing() || error.is_no_directory() => return Ok(None),
            opened => opened?,
        };
        let own = RawMode::from(
            rustix::fs::statx(&dir.fd, "", AtFlags::EMPTY_PATH, StatxFlags::MODE).map_or(0, |stat| stat.stx_mode),
        );
        if own & 0o700 != 0o700 {
            // Through the descriptor: by its name it could be something else by now.
            let itself = format!("/proc/self/fd/{}", dir.fd.as_raw_fd());
            let set = || rustix::fs::chmodat(CWD, &itself, Mode::from_raw_mode(0o755), AtFlags::empty());
            change("change the mode of", &dir.path, || Ok(set()?))?;
        }
        Ok(Some(dir))
    }
}

/// Directories beneath one, of which the last stays open: paths in order need each directory once.
#[derive(Debug)]
pub struct Beneath<'a> {
    top: &'a Dir,
    last: Option<(RelPath, Dir)>,
}

impl<'a> Beneath<'a> {
    /// None yet.
    pub fn new(top: &'a Dir) -> Self {
        Self { top, last: None }
    }

    /// Opens one, as [`Dir::open_beneath`] does.
    pub fn open(&mut self, path: &RelPath) -> Result<&Dir, FsError> {
        self.reach(path, Dir::open_beneath)
    }

    /// Opens one, made if it is not there, as [`Dir::make_beneath`] does.
    pub fn make(&mut self, path: &RelPath) -> Result<&Dir, FsError> {
        self.reach(path, Dir::make_beneath)
    }

    fn reach(
        &mut self,
        path: &RelPath,
        reach: impl FnOnce(&Dir, &RelPath) -> Result<Dir, FsError>,
    ) -> Result<&Dir, FsError> {
        let known = self.last.take().filter(|(known, _)| known == path);
        let reached = match known {
            Some(known) => known,
            None => (path.clone(), reach(self.top, path)?),
        };
        Ok(&self.last.insert(reached).1)
    }
}

/// Says what is missing where the call itself is refused, which says nothing of the path.
fn explained(cause: Errno) -> io::Error {
    match cause {
        Errno::PERM => io::Error::other(
            "`openat2` is refused here: in a container, that takes a seccomp profile that knows the call",
        ),
        cause => cause.into(),
    }
}

/// What an open directory lists, in byte order of the names.
pub(super) fn entries(fd: OwnedFd, path: impl Fn() -> PathBuf) -> Result<Vec<DirEntry>, FsError> {
    let list = || {
        let mut found = Vec::new();
        let mut dir = rustix::fs::Dir::new(fd)?;
        while let Some(entry) = dir.read() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let told = match entry.file_type() {
                // Some file systems do not tell.
                FileType::Unknown => {
                    let stat = rustix::fs::statat(dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                told => told,
            };
            let kind = match told {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Dir,
                FileType::Symlink => Kind::Link,
                _ => Kind::Special,
            };
            found.push(DirEntry { name: name.to_owned(), kind });
        }
        // Sorted by bytes, not locale: nothing downstream may depend on directory order.
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    };
    list().map_err(|cause: io::Error| FsError::new("list", path(), cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ops;

    fn rel(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    /// `in` is the directory, `out` lies beside it, and `in/link` leads there.
    fn scene() -> (tempfile::TempDir, Dir) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for path in ["in/a/b", "out/b"] {
            ops::create_dir_all(&dir.path().join(path)).expect("a directory");
        }
        ops::write(&dir.path().join("out/b/file"), b"precious").expect("a file");
        ops::symlink("../out", &dir.path().join("in/link")).expect("a link");
        let opened = Dir::open(&dir.path().join("in")).expect("a directory");
        (dir, opened)
    }

    #[test]
    fn no_link_is_followed_wherever_it_is_on_the_way() {
        let (_scene, dir) = scene();
        for path in ["link", "link/b", "link/new/er"] {
            assert!(dir.open_beneath(&rel(path)).expect_err(path).is_through_link(), "{path}");
            assert!(dir.make_beneath(&rel(path)).expect_err(path).is_through_link(), "{path}");
            assert!(dir.list_beneath(&rel(path)).expect_err(path).is_through_link(), "{path}");
        }
        assert!(dir.open_dir("link").expect_err("a link").is_no_directory());
        assert!(dir.create_new("link", 0o644).is_err());
        assert!(dir.stat("link").expect("it is there").is_link());
        assert!(dir.open_beneath(&rel("none/b")).expect_err("nothing").is_missing());
        assert!(dir.make_beneath(&rel("a/b/c/d")).expect("made").list().expect("readable").is_empty());
        let names: Vec<_> = dir.list().expect("readable").into_iter().map(|entry| (entry.name, entry.kind)).collect();
        assert_eq!(names, [("a".into(), Kind::Dir), ("link".into(), Kind::Link)]);
    }

    #[test]
    fn what_is_done_is_done_in_the_directory_that_was_opened() {
        let (scene, dir) = scene();
        let a = dir.open_beneath(&rel("a")).expect("a directory");
        dir.rename("a", "moved").expect("renamed");
        dir.rename("link", "a").expect("renamed");
        drop(a.create_new("file", 0o600).expect("created"));
        a.hard_link("file", &a, "other").expect("linked");
        a.remove_all("b").expect("removed");
        assert_eq!(a.stat("file").expect("there"), StatKey::at(&scene.path().join("in/moved/other")).expect("there"));
        let out = Dir::open(&scene.path().join("out")).expect("a directory");
        assert!(out.has("b") && !out.has("file") && !dir.open_beneath(&rel("moved")).expect("there").has("b"));
    }

    #[test]
    fn everything_beneath_is_removed_however_deep_and_nothing_behind_a_link() {
        let (scene, dir) = scene();
        let mut here = dir.open_beneath(&rel("a/b")).expect("a directory");
        // Deeper than there are descriptors, and longer than a path may be.
        for _ in 0..3000 {
            here.symlink("../../out", "link").expect("made");
            here.create_dir("deeper").expect("made");
            here = here.open_dir("deeper").expect("a directory");
        }
        ops::create_dir_all(&scene.path().join("in/a/locked/below")).expect("made");
        for (path, mode) in [("in/a/locked/below", 0o000), ("in/a/locked", 0o500)] {
            ops::set_mode(&scene.path().join(path), mode).expect("ours");
        }
        for name in ["a", "link", "nothing"] {
            dir.remove_all(name).expect("removed");
        }
        assert!(dir.list().expect("readable").is_empty());
        assert_eq!(ops::read(&scene.path().join("out/b/file")).expect("there"), b"precious");
    }

    #[test]
    fn modes_are_set_of_what_has_the_name_and_not_of_what_a_link_leads_to() {
        let (scene, dir) = scene();
        let mode = |path: &str| {
            use std::os::unix::fs::MetadataExt;
            ops::symlink_metadata(&scene.path().join(path)).expect("there").mode() & 0o7777
        };
        ops::write(&scene.path().join("in/program"), b"x").expect("written");
        ops::symlink("program", &scene.path().join("in/alias")).expect("linked");
        for bits in [0o4755, 0o000, 0o640] {
            dir.set_mode("program", bits).expect("ours");
            assert_eq!(mode("in/program"), bits);
        }
        dir.set_mode("a", 0o1777).expect("ours");
        assert_eq!(mode("in/a"), 0o1777);
        assert!(dir.set_mode("alias", 0o777).is_err_and(|error| error.is_through_link()));
        assert!(dir.set_mode("nothing", 0o777).is_err_and(|error| error.is_missing()));
        assert_eq!(mode("in/program"), 0o640);
    }

    #[test]
    #[should_panic(expected = "BUG: ../out is no name in")]
    fn a_path_is_no_name() {
        let (_scene, dir) = scene();
        drop(dir.remove_file("../out"));
    }
}
