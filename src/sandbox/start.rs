//! Turns a fork of the init into the command, and says why when that cannot be done. Knows no namespaces and no view.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CString, NulError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Resource, Rlimit};

use crate::fs::ops;
use crate::sandbox::clock::{self, CLOCK_STEP, Clock};
use crate::sandbox::crowd;
use crate::sandbox::kernel::{self, Side};
use crate::sandbox::native;
use crate::sandbox::owned::Owners;
use crate::sandbox::owners::{self, Keeper, OWNERS_STEP};
use crate::sandbox::ptrace;
use crate::sandbox::surroundings::{DirOrder, Surroundings};
use crate::sandbox::trace::{self, Observer};
use crate::sandbox::tree::Attendant;
use crate::sandbox::wire::{self, Failure, plain};

/// A command as it must be said inside the view.
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The exact environment.
    pub env: BTreeMap<String, String>,
    /// Directory it starts in.
    pub cwd: PathBuf,
    /// What is around it: of that, what a process brings along.
    pub around: Surroundings,
}

/// What a command is held to from its first instruction on.
#[derive(Debug)]
pub struct Bounds {
    /// Control groups that it joins, to be written to.
    pub groups: Vec<OwnedFd>,
    /// Whether it is in its group from the start, and the group is to look like the only one.
    pub hides_group: bool,
    /// Where it has namespaces of its own, the processes it may start.
    pub processes: Option<u32>,
}

/// A view, ready to run in.
pub struct Built {
    /// What to run, as it must be said in this view.
    pub command: Command,
    /// The workspace as it will be left behind, where the engine cannot reach it by path.
    pub workspace: Option<OwnedFd>,
}

/// What came of starting it.
pub enum Started {
    /// It runs.
    Running(Pid),
    /// The program could not be executed.
    Not {
        /// Why.
        cause: String,
    },
}

/// Whether what it does is watched.
#[derive(Clone, Copy, Debug)]
pub enum Watch<'a> {
    /// It is observed; the observer, or why there is none, comes back.
    Closely,
    /// The owners of its files are kept, of which these are in its root now.
    Owners {
        /// By path.
        owners: &'a Owners,
        /// Readable when a child may stand.
        events: BorrowedFd<'a>,
    },
    /// Its clock is another.
    Clock {
        /// Which.
        around: &'a Surroundings,
        /// Readable when a child may stand.
        events: BorrowedFd<'a>,
    },
    /// It is not.
    No,
}

/// Who watches a command.
#[derive(Default)]
pub enum Watcher {
    /// Nobody.
    #[default]
    None,
    /// The observer, or why there is none although it was to be observed.
    Observer(Result<Observer, String>),
    /// Who does what is to be done where it stands.
    Attendant(Attendant),
}

/// How a process hands itself over to whoever watches it, at the other end.
type Submit = fn(&OwnedFd);

const STEP: &str = "starting a process for the command";

/// Starts the command in a session of its own, as the first that runs here. The descriptors are the command's alone afterwards.
pub fn start(
    command: Command,
    bounds: &Bounds,
    (stdout, stderr): (OwnedFd, OwnedFd),
    watch: Watch<'_>,
) -> Result<(Started, Watcher), Failure> {
    // An observed one is answered while it begins. And who joins a group that limits memory must not share this process's: where the
    // group has no room for the program, the kernel kills whoever has the memory of the one it chose.
    if matches!(watch, Watch::No) && bounds.groups.is_empty() {
        return Ok((start_on_this_memory(&command, bounds, [&stdout, &stderr])?, Watcher::None));
    }
    start_on_a_copy(command, bounds, (stdout, stderr), watch)
}

/// Starts one more command beside the one that runs, which could kill or stop whoever is on this process's memory.
pub fn start_beside(
    command: Command,
    bounds: &Bounds,
    streams: (OwnedFd, OwnedFd),
) -> Result<(Started, Watcher), Failure> {
    start_on_a_copy(command, bounds, streams, Watch::No)
}

/// Goes on once the program runs, or does not. Nothing else that the command could have started is there yet.
///
/// Should somebody outside kill the new process before it executes, what it allocated may be half done in here: then the command was
/// killed, which is no success whatever becomes of this process.
fn start_on_this_memory(command: &Command, bounds: &Bounds, streams: [&OwnedFd; 2]) -> Result<Started, Failure> {
    let cause = RefCell::new(None);
    let started = kernel::fork_to_execute(&|| {
        let said = become_command(command, bounds, streams, None);
        cause.replace(Some(said));
    });
    let pid = started.map_err(|error| Failure::new(STEP, error))?;
    Ok(match cause.into_inner() {
        None => Started::Running(pid),
        Some(cause) => Started::Not { cause },
    })
}

fn start_on_a_copy(
    command: Command,
    bounds: &Bounds,
    (stdout, stderr): (OwnedFd, OwnedFd),
    watch: Watch<'_>,
) -> Result<(Started, Watcher), Failure> {
    let step = STEP;
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| Failure::new(step, error))?;
    let (ours, theirs) = match watch {
        Watch::Closely | Watch::Owners { .. } | Watch::Clock { .. } => {
            let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
            let (ours, theirs) = pair.map_err(|error| Failure::new(step, error))?;
            (Some(ours), Some(theirs))
        }
        Watch::No => (None, None),
    };
    match kernel::fork().map_err(|error| Failure::new(step, error))? {
        Side::Child => {
            drop(ours);
            let submit: Submit = match watch {
                Watch::Closely | Watch::No => submit,
                Watch::Owners { .. } => |socket| submit_to_attendant(socket, owners::submit),
                Watch::Clock { .. } => |socket| submit_to_attendant(socket, clock::submit),
            };
            let cause = become_command(&command, bounds, [&stdout, &stderr], theirs.map(|socket| (socket, submit)));
            // Should the init be gone, nobody is left to tell.
            drop(io::PipeWriter::from(writer).write_all(cause.as_bytes()));
            kernel::exit_now(127)
        }
        Side::Parent(pid) => {
            drop((writer, stdout, stderr, theirs));
            let mut watcher = Watcher::default();
            if let Some(socket) = ours {
                watcher = match watch {
                    Watch::Owners { owners, .. } => attend(&socket, OWNERS_STEP, || {
                        Keeper::new(pid, Path::new("/"), owners).map(Attendant::Keeper)
                    })?,
                    Watch::Clock { around, .. } => attend(&socket, CLOCK_STEP, || {
                        Clock::new(pid, around.clock_ahead, around.clock_stands).map(Attendant::Clock)
                    })?,
                    Watch::Closely | Watch::No => Watcher::Observer(receive_observer(&socket)),
                };
            }
            match (&mut watcher, watch) {
                (Watcher::Observer(Ok(observer)), _) => answer_until_it_runs(&reader, observer),
                (Watcher::Attendant(attendant), Watch::Owners { events, .. } | Watch::Clock { events, .. }) => {
                    attend_until_it_runs(pid, &reader, attendant, events)
                }
                _ => {}
            }
            let mut cause = Vec::new();
            // A successful `execve` closes the pipe without a word.
            io::PipeReader::from(reader).read_to_end(&mut cause).map_err(|error| Failure::new(step, error))?;
            if cause.is_empty() {
                return Ok((Started::Running(pid), watcher));
            }
            Ok((Started::Not { cause: String::from_utf8_lossy(&cause).into_owned() }, watcher))
        }
    }
}

/// Takes the listener that the process made before it executes anything.
fn receive_observer(socket: &OwnedFd) -> Result<Observer, String> {
    match wire::receive(socket) {
        Ok(Some((reason, mut descriptors))) => match descriptors.pop() {
            Some(listener) => Ok(Observer::new(listener)),
            None => Err(String::from_utf8_lossy(&reason).into_owned()),
        },
        Ok(None) => Err("it ended before it could be observed".into()),
        Err(error) => Err(plain(&error)),
    }
}

/// Answers its calls, of which executing the program is one, until it is known whether it runs.
fn answer_until_it_runs(reader: &OwnedFd, observer: &mut Observer) {
    loop {
        let mut fds = [PollFd::new(reader, PollFlags::IN), PollFd::from_borrowed_fd(observer.events(), PollFlags::IN)];
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None)).is_err() || !fds[0].revents().is_empty() {
            return;
        }
        observer.answer();
    }
}

/// Watches over a child that waits for it, and has it put itself under the filter. Nobody does if it comes to nothing before.
fn attend(
    socket: &OwnedFd,
    step: &str,
    watch_over: impl FnOnce() -> Result<Attendant, Failure>,
) -> Result<Watcher, Failure> {
    let failed = |error: io::Error| Failure::said(step, plain(&error));
    let hear = || Ok(wire::receive(socket).map_err(failed)?.map(|(said, _)| said));
    match hear()? {
        None => return Ok(Watcher::None),
        Some(said) if said == owners::READY => {}
        Some(reason) => return Err(Failure::said(step, String::from_utf8_lossy(&reason))),
    }
    let attendant = watch_over()?;
    wire::send(socket, owners::WATCHED, &[]).map_err(failed)?;
    match hear()? {
        None => Ok(Watcher::None),
        Some(said) if said == owners::UNDER_FILTER => Ok(Watcher::Attendant(attendant)),
        Some(reason) => Err(Failure::said(step, String::from_utf8_lossy(&reason))),
    }
}

/// Lets it go on from where it stands, until it is known whether it runs.
fn attend_until_it_runs(child: Pid, reader: &OwnedFd, attendant: &mut Attendant, events: BorrowedFd<'_>) {
    loop {
        while let Some(stop) = ptrace::next_stop(child) {
            attendant.stopped(child, stop);
        }
        let mut fds = [PollFd::new(reader, PollFlags::IN), PollFd::from_borrowed_fd(events, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None)).is_err() || !fds[0].revents().is_empty() {
            return;
        }
        // One of these may stand for several stops, so only that there was one counts.
        let mut heard = [0; 128];
        let _ = rustix::io::read(events, &mut heard);
    }
}

/// Waits until somebody watches over this process, and puts it under the filter.
fn submit_to_attendant(socket: &OwnedFd, submit: fn() -> io::Result<()>) {
    let opened = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable);
    let submitted = (|| {
        opened?;
        wire::send(socket, owners::READY, &[])?;
        match wire::receive(socket)? {
            Some((heard, _)) if heard == owners::WATCHED => submit(),
            _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    })();
    let sent = match submitted {
        Ok(()) => wire::send(socket, owners::UNDER_FILTER, &[]),
        Err(error) => wire::send(socket, format!("this machine does not let it: {}", plain(&error)).as_bytes(), &[]),
    };
    // The init is gone, and this process with it before long.
    drop(sent);
}

/// Has everything that this process will do asked about, and hands over the end on which it is.
fn submit(socket: &OwnedFd) {
    // The init closed itself, and so this copy of it, even to the init: which is about to read what this process asks for.
    let opened = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable);
    let submitted = opened.map_err(io::Error::from).and_then(|()| trace::submit());
    let submitted = submitted.and_then(|listener| trace::leave_witness().map(|()| listener));
    let sent = match submitted {
        Ok(listener) => wire::send(socket, b"+", &[listener.as_fd()]),
        Err(error) => wire::send(socket, format!("this machine does not let it: {}", plain(&error)).as_bytes(), &[]),
    };
    // The init is gone, and this process with it before long.
    drop(sent);
}

/// Sets up this process and executes the program; returns only the reason why not.
fn become_command(
    command: &Command,
    bounds: &Bounds,
    [stdout, stderr]: [&OwnedFd; 2],
    watcher: Option<(OwnedFd, Submit)>,
) -> String {
    let prepared = (|| -> io::Result<()> {
        rustix::process::setsid()?;
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)?;
        kernel::close_on_exec_from(3)?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(command.around.umask & 0o777));
        set_cpus(command.around.cpus)?;
        native::set_personality(command.around.fixed_addresses, command.around.old_kernel)?;
        set_limits()?;
        bound(bounds)?;
        kernel::reset_signals();
        Ok(())
    })();
    if let Err(error) = prepared {
        return format!("cannot prepare its process: {}", plain(&error));
    }
    if let Err(error) = rustix::process::chdir(&command.cwd) {
        return format!("cannot enter its directory {}: {}", command.cwd.display(), plain(&error.into()));
    }
    match strings(command) {
        Ok((argv, env)) => {
            if let Some((socket, submit)) = watcher {
                submit(&socket);
            }
            execute(command, &argv, &env)
        }
        Err(_) => "an argument or a variable holds a NUL byte".into(),
    }
}

/// Usual limits whatever the engine was started with; where the machine's own are lower, those.
const LIMITS: [(Resource, Option<u64>); 8] = [
    (Resource::Nofile, Some(1024)),
    (Resource::Stack, Some(8 * 1024 * 1024)),
    (Resource::Cpu, None),
    (Resource::Fsize, None),
    (Resource::Data, None),
    (Resource::As, None),
    (Resource::Rss, None),
    (Resource::Nproc, None),
];

/// Sets what a process may change of its limits. A command may raise them as far as whoever started the engine could.
fn set_limits() -> rustix::io::Result<()> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    for (resource, usual) in LIMITS {
        let maximum = rustix::process::getrlimit(resource).maximum;
        let current = match (usual, maximum) {
            (Some(usual), Some(maximum)) => Some(usual.min(maximum)),
            (usual, maximum) => usual.or(maximum),
        };
        rustix::process::setrlimit(resource, Rlimit { current, maximum })?;
    }
    Ok(())
}

/// Leaves it so many of the processors that it may run on.
fn set_cpus(count: Option<u32>) -> rustix::io::Result<()> {
    let Some(count) = count else { return Ok(()) };
    let mut allowed = rustix::thread::sched_getaffinity(None)?;
    let there: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    // None at all would be refused.
    there.into_iter().skip(count.max(1) as usize).for_each(|cpu| allowed.unset(cpu));
    rustix::thread::sched_setaffinity(None, &allowed)
}

/// Joins its groups, and has them look like the only ones: their names differ each time, and say nothing of the command.
fn bound(bounds: &Bounds) -> io::Result<()> {
    for group in &bounds.groups {
        rustix::io::retry_on_intr(|| rustix::io::write(group, b"0"))?;
    }
    let is_hidden = bounds.groups.is_empty() && !bounds.hides_group;
    let hidden = if is_hidden { Ok(()) } else { kernel::own_cgroup_namespace() };
    match bounds.processes {
        Some(processes) => hidden.and_then(|()| Ok(crowd::set_rlimit(processes)?)),
        // Where the host shows anyway, an ordinary user cannot hide this.
        None => Ok(()),
    }
}

fn strings(command: &Command) -> Result<(Vec<CString>, Vec<CString>), NulError> {
    let argv = command.argv.iter().map(|argument| CString::new(argument.as_bytes())).collect::<Result<_, _>>()?;
    let mut env: Vec<CString> =
        command.env.iter().map(|(name, value)| CString::new(format!("{name}={value}"))).collect::<Result<_, _>>()?;
    if command.around.environment_order == DirOrder::Reversed {
        env.reverse();
    }
    Ok((argv, env))
}

/// Tries the program at each place it may be; the first that is there decides.
fn execute(command: &Command, argv: &[CString], env: &[CString]) -> String {
    let program = command.argv.first().map_or("", String::as_str);
    if program.is_empty() {
        return "the command is empty".into();
    }
    let path = command.env.get("PATH").map_or("", String::as_str);
    let searched = !program.contains('/');
    let places: Vec<PathBuf> = match searched {
        // An empty entry means the current directory to `execvp`; here it means a mistake, and nothing.
        true => path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(program)).collect(),
        false => vec![PathBuf::from(program)],
    };
    let mut refused = None;
    for place in &places {
        let Ok(name) = CString::new(place.as_os_str().as_bytes()) else { continue };
        let error = kernel::execute(&name, argv, env);
        let absent =
            matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) && ops::metadata(place).is_err();
        let denied = error.raw_os_error() == Some(libc::EACCES);
        if !absent && refused.is_none() {
            refused = Some(explain(place, &error));
        }
        // As `execvp` has it: a file that may not be executed does not hide one further down the PATH.
        if !absent && !denied {
            break;
        }
    }
    match (refused, searched) {
        (Some(cause), _) => cause,
        (None, true) if path.is_empty() => "it is looked up on PATH, and PATH is not set in the sandbox".into(),
        (None, true) => format!("not in the sandbox PATH ({path})"),
        (None, false) => dangling(Path::new(program)).unwrap_or_else(|| "no such file in the sandbox".into()),
    }
}

/// The interpreter that the kernel starts for a file, as the file names it.
pub fn interpreter_of(program: &Path) -> Option<String> {
    match interpreter(&head(program))? {
        Interpreter::Script(name) | Interpreter::Loader(name) => Some(name),
    }
}

fn dangling(program: &Path) -> Option<String> {
    let target = ops::read_link(program).ok()?;
    Some(format!("it is a link to {}, which is not in the sandbox", target.display()))
}

/// Why a file that is there cannot be executed.
fn explain(program: &Path, error: &io::Error) -> String {
    let at = program.display();
    match error.raw_os_error() {
        Some(libc::ENOENT) => match interpreter(&head(program)) {
            Some(Interpreter::Script(name)) => {
                format!("{at} begins with `#!{name}`, and `{name}` is not in the sandbox")
            }
            Some(Interpreter::Loader(name)) => {
                format!("{at} needs the loader `{name}`, which is not in the sandbox")
            }
            None => format!("{at} needs an interpreter that is not in the sandbox"),
        },
        Some(libc::EACCES) => match ops::metadata(program) {
            Ok(meta) if meta.is_dir() => format!("{at} is a directory"),
            Ok(meta) if std::os::unix::fs::MetadataExt::mode(&meta) & 0o111 == 0 => {
                format!("{at} is not executable")
            }
            _ => match interpreter(&head(program)) {
                Some(Interpreter::Script(name)) => {
                    format!("{at} begins with `#!{name}`, and `{name}` may not be executed")
                }
                _ => format!("{at}: {}", plain(error)),
            },
        },
        Some(libc::ENOEXEC) => {
            format!("{at} is neither a program for this machine nor a script that begins with `#!`")
        }
        Some(libc::E2BIG) => "its arguments and environment are longer than the system allows".into(),
        _ => format!("{at}: {}", plain(error)),
    }
}

/// Enough of a file to find its interpreter; empty if it cannot be read.
fn head(program: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    if let Ok(file) = ops::open(program) {
        // A short read only shortens the explanation.
        drop(file.take(4096).read_to_end(&mut head));
    }
    head
}

#[derive(PartialEq, Eq, Debug)]
enum Interpreter {
    Script(String),
    Loader(String),
}

/// Finds the interpreter named at the start of a script or in the `PT_INTERP` segment of a 64-bit little-endian ELF file.
fn interpreter(head: &[u8]) -> Option<Interpreter> {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        // A carriage return stays visible: it is the commonest reason why the interpreter is not found.
        let name = String::from_utf8_lossy(line).trim_start_matches([' ', '\t']).to_owned();
        let name = name.split([' ', '\t']).next()?.replace('\r', "\\r");
        return Some(Interpreter::Script(name));
    }
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = head.get(at..at.checked_add(length)?)?;
        let value =
            bytes.iter().rev().try_fold(0_u64, |value, byte| value.checked_mul(256)?.checked_add((*byte).into()));
        usize::try_from(value?).ok()
    };
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, entry, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        const PT_INTERP: usize = 3;
        let at = table.checked_add(entry.checked_mul(index)?)?;
        if number(at, 4)? == PT_INTERP {
            let (from, length) = (number(at.checked_add(8)?, 8)?, number(at.checked_add(32)?, 8)?);
            let name = head.get(from..from.checked_add(length)?)?.split(|byte| *byte == 0).next()?;
            return Some(Interpreter::Loader(String::from_utf8_lossy(name).into_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_is_found_in_scripts_and_programs() {
        let check = |head: &[u8], expect: Option<&str>| {
            let found = interpreter(head).map(|found| match found {
                Interpreter::Script(name) | Interpreter::Loader(name) => name,
            });
            assert_eq!(found.as_deref(), expect, "{:?}", String::from_utf8_lossy(head));
        };
        check(b"#!/bin/sh\necho", Some("/bin/sh"));
        check(b"#! /usr/bin/env -S node\n", Some("/usr/bin/env"));
        check(b"#!/bin/bash\r\n", Some("/bin/bash\\r"));
        check(b"echo", None);
        check(b"\x7fELF\x02\x01", None);
        let own = head(Path::new("/proc/self/exe"));
        match interpreter(&own) {
            Some(Interpreter::Loader(name)) => assert!(name.contains("ld"), "{name}"),
            other => assert_eq!(other, None, "a static test program has no loader"),
        }
    }
}
