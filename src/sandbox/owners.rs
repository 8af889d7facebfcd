//! Owners of files for a command that is user 0 of a namespace in which there is nobody else: the kernel lets it give files to nobody. So
//! it is stopped before each call that gives a file an owner or tells of one (`calls`): what it gives is noted (`table`), and what it
//! is told is what was noted. Decides nothing about what becomes of the owners.
//!
//! A call that gives an owner goes to the kernel with no owner in it (-1, -1), which does everything else: finds the file, refuses what
//! cannot be changed, copies the file up, clears set-user-id bits. Only if that succeeds, the file is looked for once more (`locate`), and
//! held. A program whose other threads rename what is given away may hit another of its own files, as it may without us; never
//! one that it could not reach, and nothing but the note is made by us. A call that tells of a file names device and number of
//! it in the answer, so there nothing is looked for.
//!
//! Not by asking as `trace` does: a question can be withdrawn by a signal, and calls that never fail so would.

mod calls;
mod locate;
mod table;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::process::{Pid, Resource, Rlimit};

use crate::sandbox::kernel;
use crate::sandbox::owned::{Owned, Owners};
use crate::sandbox::owners::calls::{CREATES, Deed, Form, Linked, Means, NAMELESS, Opens};
use crate::sandbox::owners::locate::Target;
use crate::sandbox::owners::table::Table;
use crate::sandbox::ptrace::{self, Stop};
use crate::sandbox::trace::filter;
use crate::sandbox::wire::{Failure, plain};
use crate::sandbox::writable::is_covered;

/// The step that fails where the machine does not let the command be watched.
pub const OWNERS_STEP: &str = "watching over the owners of files (ptrace, seccomp)";

/// Longest path the kernel takes, with its end, and the pages that it is read in.
const PATH_MAX: usize = 4096;
const PAGE_BYTES: u64 = 4096;

/// An id of a call that leaves what was.
const UNCHANGED: u32 = u32::MAX;

/// Puts this process, which is about to become the command, under the filter. Somebody must be watching over it.
pub fn submit() -> io::Result<()> {
    if !filter::is_supported() {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    kernel::filter(&calls::program())
}

/// Owners so far, and where the threads of the command are.
#[derive(Debug)]
pub struct Keeper {
    table: Table,
    /// Calls that have begun, by thread.
    begun: HashMap<i32, Begun>,
    /// The user namespace of the command.
    home: Option<(u64, u64)>,
    trouble: Option<String>,
}

/// A call that a thread is in.
#[derive(Debug)]
enum Begun {
    /// It will tell of a file, to this address.
    Tells(Form, u64),
    /// It gives a file these owners, or would.
    Gives {
        /// What is given; `None` if the path could not be read.
        target: Option<Target>,
        /// At which argument the user stands, before the group.
        at: usize,
        /// Both.
        wanted: [u64; 2],
        /// Whether the call was left as it was.
        is_foreign: bool,
    },
    /// It makes something in a directory, which gives it this group.
    Makes { dir: OwnedFd, name: Option<Vec<u8>>, group: u32 },
    /// It gives a file this name in a directory.
    Links { file: OwnedFd, dir: OwnedFd, name: Vec<u8> },
}

impl Keeper {
    /// Watches over a child that was not yet executed, in whose root these are the owners.
    pub fn new(child: Pid, root: &Path, owners: &Owners) -> Result<Self, Failure> {
        ptrace::seize(child).map_err(|error| Failure::said(OWNERS_STEP, plain(&error)))?;
        let home = namespace_of(child.as_raw_pid());
        let mut keeper = Self { table: Table::default(), begun: HashMap::new(), home, trouble: None };
        // What is held open would be refused otherwise; where less may be, the command is told.
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        keeper.hold(root, owners)?;
        Ok(keeper)
    }

    fn hold(&mut self, root: &Path, owners: &Owners) -> Result<(), Failure> {
        let failed = |at: &str, error: io::Error| Failure::new(format!("looking up the owner of /{at}"), error);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.map_err(|error| failed("", error.into()))?;
        for (path, owner) in owners.iter().filter(|(path, _)| !is_covered(path)) {
            let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let held = rustix::fs::openat2(&root, path.as_str(), flags, Mode::empty(), beneath);
            let given = held.map_err(io::Error::from);
            given.and_then(|held| self.table.give(held, Some(owner.user), Some(owner.group))).map_err(|error| {
                if is_exhausted(&error) {
                    Failure::said(OWNERS_STEP, exhausted())
                } else {
                    failed(path.as_str(), error)
                }
            })?;
        }
        Ok(())
    }

    /// Does what is to be done at a stop, and lets the thread go on.
    pub fn stopped(&mut self, thread: Pid, stop: Stop) {
        match stop {
            Stop::AtCall => self.begins(thread),
            Stop::AfterCall => {
                self.ends(thread);
                ptrace::go_on(thread, 0);
            }
            Stop::AtSignal(signal) => ptrace::go_on(thread, signal),
            Stop::Held => ptrace::leave_stopped(thread),
            Stop::AtExec | Stop::Else => ptrace::go_on(thread, 0),
        }
    }

    /// Forgets a thread that is no more.
    pub fn ended(&mut self, thread: Pid) {
        self.begun.remove(&thread.as_raw_pid());
    }

    /// Whose everything below the root is. Once nobody is left who could change it.
    pub fn finish(self, root: &Path) -> Owned {
        match (self.trouble, self.table.owners(root)) {
            (None, Ok(owners)) => Owned { owners, trouble: None },
            (Some(trouble), _) => Owned::unknown(trouble),
            (None, Err(error)) => {
                Owned::unknown(format!("the owners of its files could not be read: {}", plain(&error)))
            }
        }
    }

    fn begins(&mut self, thread: Pid) {
        let call = self.seen(ptrace::call(thread));
        let begun = call.and_then(|(number, arguments)| {
            let call = calls::of(number)?;
            match call.deed {
                Deed::Tells(means, form, at) => {
                    self.tells(thread, means, &arguments).then_some(Begun::Tells(form, arguments[at]))
                }
                Deed::Gives(means, at) => self.gives(thread, means, at, &arguments),
                Deed::Links(linked) => self.links(thread.as_raw_pid(), linked, &arguments),
                Deed::Makes { dir, path, opens } => {
                    let dir = dir.map_or(libc::AT_FDCWD, |dir| arguments[dir] as i32);
                    self.makes(thread.as_raw_pid(), dir, arguments[path], flags_of(thread, opens, &arguments))
                }
            }
        });
        match begun {
            Some(begun) => {
                self.begun.insert(thread.as_raw_pid(), begun);
                ptrace::go_on_through_call(thread);
            }
            // Whoever was killed meanwhile does not go on either.
            None => ptrace::go_on(thread, 0),
        }
    }

    /// Whether a call may tell of a file that somebody owns.
    fn tells(&self, thread: Pid, means: Means, arguments: &[u64; 6]) -> bool {
        if self.table.is_empty() {
            return false;
        }
        // What a descriptor is open on is looked at at once, which is half as dear as a second stop.
        let Some(descriptor) = descriptor(thread, means, arguments) else { return true };
        let link = match descriptor {
            libc::AT_FDCWD => return true,
            descriptor => format!("/proc/{thread}/fd/{descriptor}", thread = thread.as_raw_pid()),
        };
        rustix::fs::stat(link).is_ok_and(|meta| self.table.owner((meta.st_dev, meta.st_ino)).is_some())
    }

    /// Has a call give nothing to anybody.
    fn gives(&mut self, thread: Pid, means: Means, at: usize, arguments: &[u64; 6]) -> Option<Begun> {
        let target = target(thread, means, arguments);
        let is_foreign = namespace_of(thread.as_raw_pid()) != self.home;
        let nobody = u64::from(UNCHANGED);
        if !is_foreign {
            let set = ptrace::set_arguments(thread, &[(at, nobody), (at + 1, nobody)]);
            self.seen(set)?;
        }
        Some(Begun::Gives { target, at, wanted: [arguments[at], arguments[at + 1]], is_foreign })
    }

    /// Whether a call makes something in a directory that gives its group on, with these flags if it opens it.
    fn makes(&mut self, thread: i32, dir: i32, path: u64, flags: Option<u64>) -> Option<Begun> {
        let may_make = flags.is_none_or(|flags| flags & (CREATES | NAMELESS) != 0);
        if !may_make || !self.table.has_group_dirs() {
            return None;
        }
        let path = text(thread, path)?;
        if flags.is_some_and(|flags| flags & NAMELESS != 0) {
            let dir = self.opened(locate::open(thread, &Target::Path { dir, path, follow: true }))?;
            let group = self.table.bequest(&dir)?;
            return Some(Begun::Makes { dir, name: None, group });
        }
        let (dir, name) = self.opened(locate::open_above(thread, dir, &path))??;
        let group = self.table.bequest(&dir)?;
        // What is there is not made.
        locate::open_in(&dir, &name).is_err().then_some(Begun::Makes { dir, name: Some(name), group })
    }

    /// A call that gives a file one more name.
    fn links(&mut self, thread: i32, linked: Linked, arguments: &[u64; 6]) -> Option<Begun> {
        let (old, new, flags) = match linked {
            Linked::Paths => ((libc::AT_FDCWD, arguments[0]), (libc::AT_FDCWD, arguments[1]), 0),
            Linked::At => ((arguments[0] as i32, arguments[1]), (arguments[2] as i32, arguments[3]), arguments[4]),
        };
        let target = match text(thread, old.1) {
            Some(path) if path.is_empty() => Target::Descriptor(old.0),
            path => Target::Path { dir: old.0, path: path?, follow: flags & libc::AT_SYMLINK_FOLLOW as u64 != 0 },
        };
        let above = locate::open_above(thread, new.0, &text(thread, new.1)?);
        let (dir, name) = self.opened(above)??;
        let file = self.opened(locate::open(thread, &target))?;
        Some(Begun::Links { file, dir, name })
    }

    /// What could be opened. What could not the call does not find either, unless no more can be held.
    fn opened<T>(&mut self, opened: io::Result<T>) -> Option<T> {
        if opened.as_ref().is_err_and(is_exhausted) {
            self.trouble(&exhausted());
        }
        opened.ok()
    }

    fn ends(&mut self, thread: Pid) {
        let Some(begun) = self.begun.remove(&thread.as_raw_pid()) else { return };
        // Who was killed in the middle of a call has nothing of it.
        let result = ptrace::result(thread);
        let Some(result) = self.seen(result) else { return };
        match begun {
            Begun::Tells(form, address) if result == 0 => self.tell(thread, form, address),
            Begun::Tells(..) => {}
            Begun::Makes { dir, name, group } if result >= 0 => {
                let made = match name {
                    Some(name) => locate::open_in(&dir, &name),
                    None => locate::open(thread.as_raw_pid(), &Target::Descriptor(result as i32)),
                };
                let given = made.and_then(|made| self.table.give(made, None, Some(group)));
                self.opened(given);
            }
            Begun::Makes { .. } => {}
            Begun::Links { file, dir, name } => {
                let linked = if result == 0 { self.opened(locate::open_in(&dir, &name)) } else { None };
                if let Some(linked) = linked {
                    let joined = self.table.join(file, linked);
                    self.opened(joined);
                }
            }
            Begun::Gives { target, at, wanted: [user, group], is_foreign } => {
                if !is_foreign {
                    // The registers of arguments are the program's own again behind the call.
                    drop(ptrace::set_arguments(thread, &[(at, user), (at + 1, group)]));
                }
                if result == 0 {
                    let id = |given: u64| match given as u32 {
                        UNCHANGED => None,
                        // Whoever is root of a namespace beneath knows nobody but its own root, who is ours.
                        _ if is_foreign => Some(0),
                        id => Some(id),
                    };
                    match target {
                        Some(target) => self.given(thread, &target, id(user), id(group)),
                        None => self.trouble("it gave away a file whose path lies in memory that nobody else can read"),
                    }
                }
            }
        }
    }

    /// Puts the owner that was noted in the place of the one that the kernel knows.
    fn tell(&self, thread: Pid, form: Form, address: u64) {
        let mut told = [0; Form::BYTES];
        let read = kernel::read_memory(thread.as_raw_pid(), address, &mut told[..form.length()]);
        if read.is_ok_and(|count| count == form.length())
            && let Some(owner) = self.table.owner(form.file(&told))
        {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&owner.user.to_ne_bytes());
            bytes[4..].copy_from_slice(&owner.group.to_ne_bytes());
            // It lies behind what the kernel has just written: if it is gone by now, nobody reads it.
            drop(ptrace::write_memory(thread, address.wrapping_add(form.owner_at() as u64), &bytes));
        }
    }

    fn given(&mut self, thread: Pid, target: &Target, user: Option<u32>, group: Option<u32>) {
        let thread = thread.as_raw_pid();
        let mut given = locate::open(thread, target).and_then(|file| self.table.give(file, user, group));
        if given.as_ref().is_err_and(is_exhausted) {
            self.table.sweep();
            given = locate::open(thread, target).and_then(|file| self.table.give(file, user, group));
        }
        // What has gone since, with or without its process, is as if that had been first.
        self.opened(given);
    }

    /// What could be seen of a thread, or changed. Of one that was killed nothing can, which is no trouble.
    fn seen<T>(&mut self, seen: io::Result<T>) -> Option<T> {
        if let Err(error) = &seen
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            self.trouble(&format!("its calls could not be looked at: {}", plain(error)));
        }
        seen.ok()
    }

    fn trouble(&mut self, reason: &str) {
        self.trouble.get_or_insert_with(|| reason.to_owned());
    }
}

/// The user namespace of a thread, by device and number.
fn namespace_of(thread: i32) -> Option<(u64, u64)> {
    rustix::fs::stat(format!("/proc/{thread}/ns/user")).ok().map(|meta| (meta.st_dev, meta.st_ino))
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

fn exhausted() -> String {
    let limit =
        rustix::process::getrlimit(Resource::Nofile).maximum.map_or_else(String::new, |limit| format!(" ({limit})"));
    format!(
        "more files belong to others than root than this machine lets a process hold open{limit}; raise the hard limit of open files \
         (`ulimit -Hn`), or give the files in a layer with `owner`, after the last command"
    )
}

/// The flags with which a call opens what it makes; `None` if it does not open it.
fn flags_of(thread: Pid, opens: Opens, arguments: &[u64; 6]) -> Option<u64> {
    match opens {
        Opens::No => None,
        Opens::Made => Some(CREATES),
        Opens::Flags(at) => Some(arguments[at]),
        Opens::How(at) => {
            let mut flags = [0; 8];
            // What cannot be read the kernel refuses.
            let read = kernel::read_memory(thread.as_raw_pid(), arguments[at], &mut flags);
            Some(if read.is_ok() { u64::from_le_bytes(flags) } else { 0 })
        }
    }
}

/// The descriptor that a call means a file by, if it means it so.
fn descriptor(thread: Pid, means: Means, arguments: &[u64; 6]) -> Option<i32> {
    match means {
        Means::Descriptor => Some(arguments[0] as i32),
        Means::At(flags) if arguments[flags] & libc::AT_EMPTY_PATH as u64 != 0 => {
            let mut first = [1];
            let is_empty = arguments[1] == 0
                || kernel::read_memory(thread.as_raw_pid(), arguments[1], &mut first).is_ok_and(|_| first == [0]);
            is_empty.then_some(arguments[0] as i32)
        }
        Means::At(_) | Means::Path | Means::Link => None,
    }
}

/// The file that a call means; `None` if its path cannot be read.
fn target(thread: Pid, means: Means, arguments: &[u64; 6]) -> Option<Target> {
    if let Some(descriptor) = descriptor(thread, means, arguments) {
        return Some(Target::Descriptor(descriptor));
    }
    let (dir, at, follow) = match means {
        Means::Path => (libc::AT_FDCWD, 0, true),
        Means::Link => (libc::AT_FDCWD, 0, false),
        Means::At(flags) => (arguments[0] as i32, 1, arguments[flags] & libc::AT_SYMLINK_NOFOLLOW as u64 == 0),
        Means::Descriptor => unreachable!("BUG: a descriptor was not taken as one"),
    };
    Some(Target::Path { dir, path: text(thread.as_raw_pid(), arguments[at])?, follow })
}

/// The text at an address of a thread, cut where the kernel takes no more.
fn text(thread: i32, address: u64) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut buffer = [0; PAGE_BYTES as usize];
    let mut address = address;
    while text.len() < PATH_MAX {
        // Not into a page that may be missing.
        let length = usize::try_from(PAGE_BYTES - address % PAGE_BYTES).unwrap_or(1).min(PATH_MAX - text.len());
        let count = kernel::read_memory(thread, address, &mut buffer[..length]).ok()?;
        let read = &buffer[..count];
        if let Some(end) = read.iter().position(|byte| *byte == 0) {
            text.extend(&read[..end]);
            return Some(text);
        }
        if count < length {
            return None;
        }
        text.extend(read);
        address = address.wrapping_add(length as u64);
    }
    Some(text)
}

/// What a child that is to be watched says once it can be, what it hears then, and what it says once it is under the filter.
pub const READY: &[u8] = b"ready";
/// See [`READY`].
pub const WATCHED: &[u8] = b"watched";
/// See [`READY`].
pub const UNDER_FILTER: &[u8] = b"+";
