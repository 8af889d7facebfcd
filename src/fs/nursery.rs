//! Directories in which new ones are made before they come to their places, where the file system then makes their files faster. Knows not
//! what is made.
//!
//! ext2, ext3 and ext4 put a file into the block group of its directory, and a directory into that of the one above: all outputs of a
//! workspace are made in one group, and each looks for a free inode from its beginning, past everything that lies there. Threads that
//! make files at the same time read and mark the same blocks, and without a journal every inode that was deleted in the last minutes is
//! examined and left out, for each file again: hundreds of microseconds, where outputs were just removed. What lies below a directory marked
//! as the top of a hierarchy (`chattr +T`, Orlov's allocator) is spread over the disk instead. So there is one such directory in the
//! tree while files are placed, and in it one for each thread, in a group of its own; what is made there keeps its group when it is
//! renamed to its place. Elsewhere, and where a place gives what is made in it something that the nursery does not, there is none.

use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, IFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::base::path::RelPath;
use crate::fs::atomic;
use crate::fs::dir::Dir;
use crate::fs::ops::FsError;

/// Name of the directory, before what makes it a temporary.
const NAME: &str = "nursery";

/// Things made in one directory before another group is taken, so that it does not fill up: fewer than the inodes of a group.
const MADE_MAX: usize = 2048;

/// Things made in one directory before the time they took says anything of its group.
const MADE_JUDGED: usize = 16;

/// Time of a processor for one thing made, on the average, above which another group is taken, in nanoseconds: several times what it takes
/// where no inode has to be left out.
const SLOW_NS: i64 = 150_000;

/// Flags of a directory that what is made in it has too (`EXT4_FL_INHERITED`), and encryption.
const INHERITED: u32 = 0x6201_CCCF;

/// What a directory gives to what is made in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bequest {
    /// Its flags.
    pub flags: IFlags,
    /// Its group, if that is the one of what is made in it.
    pub group: Option<u32>,
    /// Whether it has a default access control list.
    pub has_list: bool,
}

impl Bequest {
    /// Whether what is made in one directory may be moved to the other as if it had been made there.
    fn is_like(&self, other: &Self) -> bool {
        let inherited = |bequest: &Self| bequest.flags.bits() & INHERITED;
        !self.has_list && !other.has_list && self.group == other.group && inherited(self) == inherited(other)
    }
}

/// The nursery of a tree; removed when dropped.
#[derive(Debug, Default)]
pub struct Nursery(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Unopened,
    Open(Open),
    /// There is none here.
    Closed,
}

#[derive(Debug)]
struct Open {
    root: Dir,
    name: String,
    top: Dir,
    bequest: Bequest,
    /// Held as long as it is in use.
    _lock: OwnedFd,
    /// Those that nobody uses.
    idle: Vec<(Dir, Used)>,
}

/// What was done in a directory.
#[derive(Clone, Copy, Default, Debug)]
struct Used {
    /// Things made.
    made: usize,
    /// Time of a processor that it took, in nanoseconds.
    cpu_ns: i64,
}

impl Used {
    /// Whether something else is better made in another group.
    fn is_enough(self) -> bool {
        let made = i64::try_from(self.made).unwrap_or(i64::MAX);
        self.made >= MADE_MAX || (self.made >= MADE_JUDGED && self.cpu_ns / made > SLOW_NS)
    }
}

/// Time that the calling thread had a processor, in nanoseconds.
fn thread_cpu_ns() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// A directory in which one thread makes things; it stays with that thread.
#[derive(Debug)]
pub struct Cot<'a> {
    nursery: &'a Nursery,
    /// Taken when dropped.
    dir: Option<(Dir, Used)>,
    began_ns: i64,
    /// A clock of one thread tells another nothing.
    _stays: PhantomData<*const ()>,
}

impl Deref for Cot<'_> {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        let (dir, _) = self.dir.as_ref().expect("it is taken when dropped alone");
        dir
    }
}

impl Drop for Cot<'_> {
    fn drop(&mut self) {
        let Some((dir, mut used)) = self.dir.take() else { return };
        used.cpu_ns = used.cpu_ns.saturating_add(thread_cpu_ns().saturating_sub(self.began_ns));
        if let State::Open(open) = &mut *self.nursery.state()
            && !used.is_enough()
        {
            open.idle.push((dir, used));
        }
    }
}

impl Nursery {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory for making `count` files of a directory that comes to lie in `place`; `None` if they are made there instead.
    ///
    /// `announce` is called before anything is made at the root of the tree: a kill leaves a temporary there. Trouble counts as no nursery.
    pub fn take(
        &self,
        root: &Dir,
        place: &Dir,
        count: usize,
        announce: impl FnOnce() -> Result<(), FsError>,
    ) -> Option<Cot<'_>> {
        let mut state = self.state();
        if matches!(*state, State::Unopened) {
            *state = announce().ok().and_then(|()| Open::begin(root)).map_or(State::Closed, State::Open);
        }
        let State::Open(open) = &mut *state else { return None };
        if !place.bequest().is_some_and(|bequest| bequest.is_like(&open.bequest)) {
            return None;
        }
        let (dir, mut used) = match open.idle.pop() {
            Some(idle) => idle,
            None => (open.add()?, Used::default()),
        };
        used.made = used.made.saturating_add(count);
        Some(Cot { nursery: self, dir: Some((dir, used)), began_ns: thread_cpu_ns(), _stays: PhantomData })
    }

    /// What was made could not be moved to its place: from now on everything is made there.
    pub fn close(&self) {
        let state = std::mem::replace(&mut *self.state(), State::Closed);
        if let State::Open(open) = state {
            open.end();
        }
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        self.close();
    }
}

impl Open {
    fn begin(root: &Dir) -> Option<Self> {
        let name = atomic::temporary_name(NAME);
        root.create_dir(&name).ok()?;
        let opened = || {
            let (root, top) = (root.open_beneath(&RelPath::root()).ok()?, root.open_dir(&name).ok()?);
            let bequest = top.bequest().filter(|bequest| top.mark_as_top(bequest))?;
            Some(Self { root, name: name.clone(), _lock: hold(&top)?, top, bequest, idle: Vec::new() })
        };
        let open = opened();
        if open.is_none() {
            drop(root.remove_all(&name));
        }
        open
    }

    fn add(&mut self) -> Option<Dir> {
        let name = atomic::temporary_name("cot");
        self.top.create_dir(&name).ok()?;
        self.top.open_dir(&name).ok()
    }

    /// Nothing of it is needed any more; what stays is removed by the next run.
    fn end(self) {
        drop(self.root.remove_all(&self.name));
    }
}

fn hold(top: &Dir) -> Option<OwnedFd> {
    let fd = top.readable().ok()?;
    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).ok().map(|()| fd)
}

/// Whether a temporary is the nursery of a process that lives, which may be one whose id means another process here.
pub(super) fn is_in_use(dir: &Dir, name: &str) -> bool {
    let is_one =
        name.strip_prefix('.').and_then(|name| name.strip_prefix(NAME)).is_some_and(|rest| rest.starts_with('.'));
    is_one && dir.open_dir(name).is_ok_and(|top| hold(&top).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ops;

    #[test]
    fn what_is_made_there_comes_to_its_place_and_nothing_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        ops::create_dir_all(&dir.path().join("a/b")).expect("made");
        let root = Dir::open(dir.path()).expect("a directory");
        let place = root.open_beneath(&RelPath::parse("a/b").expect("a good path")).expect("a directory");
        let nursery = Nursery::default();
        let mut announced = 0;
        for round in 0..3 {
            let Some(cot) = nursery.take(&root, &place, 1, || {
                announced += 1;
                Ok(())
            }) else {
                // No such file system.
                return;
            };
            cot.create_dir("new").expect("made");
            cot.rename_to("new", &place, format!("{round}")).expect("renamed");
        }
        assert_eq!(announced, 1);
        let names = || root.list().expect("readable").into_iter().map(|entry| entry.name.into_string().expect("text"));
        assert!(names().any(|name| is_in_use(&root, &name)) && !is_in_use(&root, "a"));
        nursery.close();
        assert!(nursery.take(&root, &place, 1, || Ok(())).is_none());
        assert_eq!(root.list().expect("readable").len(), 1);
        assert_eq!(place.list().expect("readable").len(), 3);
    }

    #[test]
    fn nothing_is_made_elsewhere_for_a_place_that_gives_its_group() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        ops::create_dir_all(&dir.path().join("a")).expect("made");
        ops::set_mode(&dir.path().join("a"), 0o2755).expect("ours");
        let root = Dir::open(dir.path()).expect("a directory");
        let place = root.open_dir("a").expect("a directory");
        assert!(Nursery::default().take(&root, &place, 1, || Ok(())).is_none());
        assert_eq!(root.list().expect("readable").len(), 1);
    }

    #[test]
    fn a_group_is_left_that_is_full_or_slow() {
        let check = |made: usize, each_ns: i64, expect: bool| {
            let cpu_ns = each_ns * i64::try_from(made).expect("small");
            assert_eq!(Used { made, cpu_ns }.is_enough(), expect, "{made} {each_ns}");
        };
        check(0, 0, false);
        check(MADE_JUDGED - 1, 10 * SLOW_NS, false);
        check(MADE_JUDGED, SLOW_NS + 1, true);
        check(MADE_MAX - 1, SLOW_NS, false);
        check(MADE_MAX, 1, true);
    }

    #[test]
    fn what_is_not_announced_is_not_made() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Dir::open(dir.path()).expect("a directory");
        let refused = || Err(FsError::new("write", dir.path(), std::io::ErrorKind::StorageFull.into()));
        assert!(Nursery::default().take(&root, &root, 1, refused).is_none());
        assert!(root.list().expect("readable").is_empty());
    }
}
