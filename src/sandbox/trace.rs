//! Observes what a command and everything it starts does in the workspace, by asking the kernel to ask us before each call that
//! names a path (seccomp user notification). Complete for static programs and raw system calls too; needs no privilege.
//!
//! It is discovery, not enforcement: a program that changes a path in its memory while it is being looked at hides it. What can be
//! seen at all is up to the namespaces. Whatever else could be missed leaves a gap, which is told with the observation.
//!
//! One difference a command can see: until a call is taken up, a signal whose handler was set without `SA_RESTART` (as the shell sets
//! that of `SIGCHLD`) ends it with `EINTR`, which calls that name a path otherwise never give. The kernel counts what it asks: a question
//! that was withdrawn before we took it remains in the count, and is found there at the end. To be able to count while every other
//! process is gone, a *witness* under the same filter waits until then.

pub(in crate::sandbox) mod asking;
pub(in crate::sandbox) mod calls;
pub(in crate::sandbox) mod filter;
pub(in crate::sandbox) mod resolve;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::base::path::RelPath;
use crate::fs::ops;
use crate::sandbox::kernel::{self, Asked, Next, Side};
use crate::sandbox::observation::{Observation, Touch};
use crate::sandbox::start;
use crate::sandbox::trace::asking::{is_mapped, opened_at, path_in_address};
use crate::sandbox::trace::calls::{Call, Deed, Follow, Operand};
use crate::sandbox::trace::resolve::{End, Last, resolve};

/// Most paths kept of one command, and the most bytes of them: a program that makes up names must not fill the memory.
const PATHS_MAX: usize = 100_000;
const PATH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest path the kernel takes, with its end.
const PATH_MAX: usize = 4096;

/// A path is read in steps that do not cross into a page that may be missing.
const PAGE_BYTES: u64 = 4096;

const WITHDRAWN: &str = "a signal ended one of its calls, or its process, before the call was looked at";

/// Interpreters of interpreters that the kernel follows (`exec.c`), and the loader of the last one.
const INTERPRETERS_MAX: usize = 6;

/// How long the last count may wait for a question that does not come, and how long for questions that do not end.
const COUNT_PATIENCE: Duration = Duration::from_millis(1);
const COUNT_MAX: Duration = Duration::from_secs(1);

/// Most directories of the system that are remembered.
const SYSTEM_DIRS_MAX: usize = 4096;

/// Puts this process, which is about to become the command, under observation.
pub fn submit() -> io::Result<OwnedFd> {
    if !filter::is_supported() {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    kernel::install_filter(&filter::program())
}

/// Leaves the witness behind: a process under this one's filter that is nobody's but the init's, and does nothing.
pub fn leave_witness() -> io::Result<()> {
    match kernel::fork()? {
        Side::Parent(between) => kernel::wait_for(between),
        Side::Child => {
            let closed = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
            let is_witness =
                closed.is_ok() && rustix::process::setsid().is_ok() && matches!(kernel::fork(), Ok(Side::Child));
            if is_witness {
                kernel::idle()
            }
            kernel::exit_now(0)
        }
    }
    Ok(())
}

/// What was seen so far, and where more comes from.
pub struct Observer {
    listener: OwnedFd,
    seen: HashMap<RelPath, Touch>,
    bytes: usize,
    /// Directories of the system, as they were named, that no link leads out of: nothing changes there while the command runs.
    system_dirs: HashSet<Vec<u8>>,
    gap: Option<String>,
}

impl Observer {
    /// Observes the process that submitted itself.
    pub fn new(listener: OwnedFd) -> Self {
        kernel::answer_on_one_processor(&listener);
        Self { listener, seen: HashMap::new(), bytes: 0, system_dirs: HashSet::new(), gap: None }
    }

    /// Readable when a call waits for leave.
    pub fn events(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers one call. Only when there is one.
    pub fn answer(&mut self) {
        match kernel::next_asked(&self.listener) {
            Ok(Next::Asked(asked)) => {
                self.look(&asked);
                kernel::let_go_on(&self.listener, &asked);
            }
            Ok(Next::Withdrawn) => self.gap(WITHDRAWN),
            Ok(Next::Interrupted) => {}
            Err(error) => self.gap(&format!("its calls could not be read: {error}")),
        }
    }

    /// Finds out whether a question was withdrawn unseen. Once the command has ended, before the witness is.
    ///
    /// Who still runs beside it gets no answer any more: the result was complete when the command ended, and what is read from then
    /// on must not come into it.
    pub fn count(&mut self) {
        let until = Instant::now() + COUNT_MAX;
        if let Err(error) = kernel::interrupt_every(COUNT_PATIENCE) {
            return self.gap(&format!("its calls could not be counted: {error}"));
        }
        loop {
            if Instant::now() >= until {
                break self.gap("it left behind what would not stop starting processes");
            }
            match kernel::next_asked(&self.listener) {
                Ok(Next::Asked(_)) => {}
                Ok(Next::Interrupted) => break,
                Ok(Next::Withdrawn) => break self.gap(WITHDRAWN),
                Err(error) => break self.gap(&format!("its calls could not be counted: {error}")),
            }
        }
        kernel::stop_interrupting();
    }

    /// What was seen.
    pub fn finish(self) -> Observation {
        Observation { paths: self.seen.into_iter().collect(), gap: self.gap }
    }

    fn gap(&mut self, reason: &str) {
        self.gap.get_or_insert_with(|| reason.to_owned());
    }

    fn look(&mut self, asked: &Asked) {
        let Some(call) = calls::of(asked.number) else { return };
        match call.deed {
            Deed::Escapes(how) => self.gap(how),
            _ if asked.thread <= 0 => self.gap("a process outside its namespace used its filter"),
            Deed::List => {
                if let Some(base) = self.directory(asked, Some(0))
                    && kernel::still_asks(&self.listener, asked)
                {
                    self.note(&base, Touch::LISTED.and(Touch::FOUND));
                }
            }
            _ => call.operands.iter().for_each(|operand| self.look_at(asked, call, operand)),
        }
    }

    fn look_at(&mut self, asked: &Asked, call: &Call, operand: &Operand) {
        // What cannot be read the kernel cannot read either: the call fails without looking at anything.
        let address = asked.arguments[operand.path];
        let path = match call.deed {
            Deed::Socket(_) => self.socket(asked, address, asked.arguments[operand.path + 1]),
            _ => self.text(asked, address),
        };
        let Some(path) = path else { return };
        if self.stays_in_system(&path) {
            if call.deed == Deed::Execute {
                self.execute(asked, &End { place: path, there: true, opened: None });
            }
            return;
        }
        let Some((deed, last)) = self.intent(asked, call, operand) else { return };
        if path.is_empty() {
            // The descriptor itself (`AT_EMPTY_PATH`): it was seen when it was opened, but a program may be started from it.
            if call.deed == Deed::Execute
                && let Some(place) = self.directory(asked, operand.dir)
                && kernel::still_asks(&self.listener, asked)
            {
                let opened = Some(opened_at(asked, operand.dir).into_bytes());
                self.execute(asked, &End { place, there: true, opened });
            }
            return;
        }
        let base = if path.starts_with(b"/") {
            b"/".to_vec()
        } else {
            let Some(base) = self.directory(asked, operand.dir) else { return };
            base
        };
        // Only now is it certain that both were of the thread that asks, and not of one that got its number since.
        if !kernel::still_asks(&self.listener, asked) {
            return;
        }
        let end = self.walk(&base, &path, last, asked.thread, deed);
        if call.deed == Deed::Execute
            && let Some(end) = end
        {
            self.execute(asked, &end);
        }
    }

    /// Whether a path means a file of the system: read-only, and keyed by itself. Links may lead out of it.
    fn stays_in_system(&mut self, path: &[u8]) -> bool {
        if !resolve::is_of_system(path) {
            return false;
        }
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
        let dir = &path[..end];
        if !self.system_dirs.contains(dir) {
            let resolved = resolve(b"/", dir, Last::Follow, 1);
            let place = resolved.end.map(|end| [&end.place[..], b"/"].concat());
            let stays = resolved.links.is_empty() && resolved.left.is_empty();
            if !(stays && place.is_some_and(|place| resolve::is_of_system(&place))) {
                return false;
            }
            if self.system_dirs.len() < SYSTEM_DIRS_MAX {
                self.system_dirs.insert(dir.to_owned());
            }
        }
        ops::read_link(Path::new(std::ffi::OsStr::from_bytes(path))).is_err()
    }

    /// Follows a path and notes what it leads through; gives where it ends, if something is there.
    fn walk(&mut self, base: &[u8], path: &[u8], last: Last, thread: i32, deed: Touch) -> Option<End> {
        let resolved = resolve(base, path, last, thread);
        for dir in &resolved.left {
            self.note(dir, Touch::LOOKED.and(Touch::FOUND));
        }
        for link in &resolved.links {
            self.note(link, Touch::LINK.and(Touch::FOUND));
        }
        let end = resolved.end?;
        self.note(&end.place, deed.and(if end.there { Touch::FOUND } else { Touch::ABSENT }));
        end.there.then_some(end)
    }

    /// What the call does with its paths, and whether it follows a last link. `None` if that cannot be read.
    fn intent(&mut self, asked: &Asked, call: &Call, operand: &Operand) -> Option<(Touch, Last)> {
        let mut follow = match operand.follow {
            Follow::Always => true,
            Follow::Never => false,
            Follow::Unless(argument, bits) => asked.arguments[argument] & bits == 0,
            Follow::If(argument, bit) => asked.arguments[argument] & bit != 0,
        };
        let flags = match call.deed {
            Deed::Does(touch) | Deed::Socket(touch) => return Some((touch, last(follow))),
            Deed::Execute => return Some((Touch::EXECUTED.and(Touch::READ), last(follow))),
            Deed::Open(argument) => asked.arguments[argument],
            Deed::OpenHow(argument) => {
                // Flags, mode, and how paths are resolved, 64 bits each.
                let mut how = [0; 24];
                let address = asked.arguments[argument];
                let Ok(count) = kernel::read_memory(asked.thread, address, &mut how) else {
                    self.unreadable(asked, address);
                    return None;
                };
                let number = |at: usize| how[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
                const RESOLVE_IN_ROOT: u64 = 0x10;
                if count < how.len() || number(16) & RESOLVE_IN_ROOT != 0 {
                    self.gap("it opened a file below a root of its own (openat2)");
                }
                follow &= number(0) & libc::O_NOFOLLOW as u64 == 0;
                number(0)
            }
            Deed::List | Deed::Escapes(_) => return None,
        };
        let set = |flag: libc::c_int| flags & flag as u64 != 0;
        let access = flags & libc::O_ACCMODE as u64;
        let mut touch = Touch::LOOKED;
        if access != libc::O_WRONLY as u64 && !set(libc::O_PATH) {
            touch = touch.and(Touch::READ);
        }
        if access != libc::O_RDONLY as u64 || set(libc::O_CREAT) || set(libc::O_TRUNC) {
            touch = touch.and(Touch::WRITTEN);
        }
        // A file that is made anew is not made through a link.
        follow &= !(set(libc::O_CREAT) && set(libc::O_EXCL));
        Some((touch, last(follow)))
    }

    /// What the kernel reads by itself to execute a file: its interpreter or loader, and theirs.
    fn execute(&mut self, asked: &Asked, program: &End) {
        let mut program = program.clone();
        for _ in 0..INTERPRETERS_MAX {
            self.note(&program.place, Touch::EXECUTED.and(Touch::READ).and(Touch::FOUND));
            let file = program.opened.as_ref().unwrap_or(&program.place);
            let Some(interpreter) = start::interpreter_of(Path::new(std::ffi::OsStr::from_bytes(file))) else {
                return;
            };
            let Some(base) = self.directory(asked, None) else { return };
            let deed = Touch::EXECUTED.and(Touch::READ);
            match self.walk(&base, interpreter.as_bytes(), Last::Follow, asked.thread, deed) {
                Some(next) => program = next,
                None => return,
            }
        }
    }

    /// The directory a relative path starts in: that of a descriptor, or the current one. `None` if it has no path any more.
    fn directory(&mut self, asked: &Asked, argument: Option<usize>) -> Option<Vec<u8>> {
        let link = opened_at(asked, argument);
        let place = match ops::read_link(Path::new(&link)) {
            Ok(place) => place.into_os_string().into_encoded_bytes(),
            // No such descriptor, or the thread has ended: nothing will be looked at.
            Err(error) if matches!(error.cause.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return None,
            Err(error) => {
                self.gap(&format!("the directory of one of its processes could not be read: {}", error.cause));
                return None;
            }
        };
        if place.starts_with(b"(unreachable)") {
            self.gap("it kept a directory from outside its root");
        }
        // Below a pipe or a socket is nothing.
        resolve::place_behind(link.as_bytes(), &place)
    }

    /// The text at an address of the thread. `None` if there is none that the kernel would take.
    fn text(&mut self, asked: &Asked, address: u64) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let mut buffer = [0; PAGE_BYTES as usize];
        let mut address = address;
        // Most paths are short, and what lies behind them need not be read.
        let mut wanted = 256;
        while text.len() < PATH_MAX {
            let in_page = usize::try_from(PAGE_BYTES - address % PAGE_BYTES).unwrap_or(1);
            let length = in_page.min(wanted).min(PATH_MAX - text.len());
            match kernel::read_memory(asked.thread, address, &mut buffer[..length]) {
                Ok(count) => {
                    let read = &buffer[..count];
                    if let Some(end) = read.iter().position(|byte| *byte == 0) {
                        text.extend(&read[..end]);
                        return Some(text);
                    }
                    if count < length {
                        return None;
                    }
                    text.extend(read);
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::EFAULT | libc::ESRCH | libc::EIO)) => {
                    self.unreadable(asked, address);
                    return None;
                }
                Err(error) => {
                    self.gap(&format!("the memory of one of its processes could not be read: {error}"));
                    return None;
                }
            }
            address = address.wrapping_add(length as u64);
            wanted = PATH_MAX;
        }
        None
    }

    /// The path in a socket's address. `None` if it has none.
    fn socket(&mut self, asked: &Asked, address: u64, length: u64) -> Option<Vec<u8>> {
        let mut name = [0; size_of::<libc::sockaddr_un>()];
        let length = name.len().min(usize::try_from(length as i32).ok()?);
        let Ok(count) = kernel::read_memory(asked.thread, address, &mut name[..length]) else {
            self.unreadable(asked, address);
            return None;
        };
        path_in_address(&name[..count]).map(<[u8]>::to_vec)
    }

    /// What a call names could not be read: where the kernel can, that is a gap.
    fn unreadable(&mut self, asked: &Asked, address: u64) {
        if is_mapped(asked.thread, address) {
            self.gap("a path of its lies in memory that nobody else can read");
        }
    }

    fn note(&mut self, place: &[u8], touch: Touch) {
        let Some(path) = resolve::relative(place) else { return };
        let Ok(path) = path else {
            // No input can have such a name, but one could be there next time.
            return self.gap("it used a name in the workspace that is not UTF-8");
        };
        if let Some(known) = self.seen.get_mut(&path) {
            *known = known.and(touch);
        } else if self.seen.len() >= PATHS_MAX || self.bytes + path.as_str().len() > PATH_BYTES_MAX {
            self.gap("it touched more paths than are kept");
        } else {
            self.bytes += path.as_str().len();
            self.seen.insert(path, touch);
        }
    }
}

fn last(follow: bool) -> Last {
    if follow { Last::Follow } else { Last::Keep }
}
