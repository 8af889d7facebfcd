//! Control groups, one per command: where this process may make them, making them, reading what they counted, removing them.
//! Knows no commands and starts nothing.
//!
//! All lie beneath the group this process is in, so whatever limits that holds them as well. Version 1 and 2 of
//! `cgroups(7)` differ in names and in one rule: in version 2 a group whose processes are to be divided among others has none of its
//! own, so this process steps aside into a group beneath, if it is alone where it is.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::fs::ops;
use crate::sandbox::mounted::{self, Controller, Found, Version};
use crate::sandbox::refusal::Refusal;
use crate::sandbox::spec::{Limit, Limits};

/// Begins the name of every group made here.
const PREFIX: &str = "drystone-";

/// How often to look at what tells nobody.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Where this process may make groups, by what they can limit.
pub struct Groups {
    /// For memory.
    pub memory: Result<Home, Refusal>,
    /// For processes.
    pub processes: Result<Home, Refusal>,
    /// Names this process among all that ever ran since the machine was started.
    owner: String,
    made: AtomicU64,
    /// Groups that could not be removed yet, for somebody still lived in them.
    remaining: Mutex<Vec<PathBuf>>,
}

/// A directory in which groups may be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Home {
    /// The group this process was started in.
    pub dir: PathBuf,
    /// Which files it has.
    pub version: Version,
}

impl Groups {
    /// Those of this process; the first to ask looks for them and removes what processes that were killed have left.
    ///
    /// Cost: some reads of `/proc`, and a listing of the group; once.
    pub fn ours() -> &'static Self {
        static OURS: OnceLock<Groups> = OnceLock::new();
        OURS.get_or_init(Self::find)
    }

    fn find() -> Self {
        let owner = owner_prefix(std::process::id()).unwrap_or_default();
        // Both before either: entering one may move this process.
        let found =
            [Controller::Memory, Controller::Processes].map(|controller| (controller, mounted::find(controller)));
        let [memory, processes] = found.map(|(controller, found)| match &*owner {
            // Without /proc nobody could tell later whose they were.
            "" => Err(refusal("/proc tells nothing of this process", "mount /proc")),
            owner => enter(controller, found?, owner),
        });
        let found = Self { memory, processes, owner, made: AtomicU64::new(0), remaining: Mutex::default() };
        let dirs: BTreeSet<&Path> =
            [&found.memory, &found.processes].into_iter().flatten().map(|home| &*home.dir).collect();
        for dir in dirs {
            sweep(dir, &|name| is_abandoned(name, &|pid| owner_prefix(pid)));
        }
        found
    }

    /// A new group that holds whoever joins it to the memory, if that is limited, and to the number of processes, where that is possible.
    pub fn make(&self, limits: &Limits) -> io::Result<Group> {
        self.remove_remaining();
        let name = format!("{}{}", self.owner, self.made.fetch_add(1, Ordering::Relaxed));
        let mut group = Group {
            dirs: Vec::new(),
            join: Vec::new(),
            memory: None,
            processes: None,
            refused_before: 0,
            tells_nobody: false,
        };
        if let (Some(bytes), Ok(home)) = (limits.memory_bytes, &self.memory) {
            let dir = group.enter(home, &name)?;
            group.memory = Some(MemoryWatch::set(&dir, home.version, bytes)?);
        }
        if let Ok(home) = &self.processes
            && let Err(error) = group.count_processes(home, &name, limits.processes)
        {
            // Every command has this limit: that it is not held in the best way keeps none from running.
            tracing::debug!(%error, "no control group counts the processes of a command");
        }
        Ok(group)
    }

    /// A new group that counts processes, for many commands one after another; `None` where none can be made, or memory is limited.
    pub fn make_to_stay(&self, limits: &Limits) -> Option<Group> {
        let is_enough = limits.memory_bytes.is_none() && self.processes.is_ok();
        let group = is_enough.then(|| self.make(limits).ok()).flatten()?;
        group.counts_processes().then_some(group)
    }

    /// Tries once more what could not be removed.
    pub fn remove_remaining(&self) {
        let mut remaining = self.remaining.lock().unwrap_or_else(PoisonError::into_inner);
        remaining.retain(|dir| remove(dir) == Err(Errno::BUSY));
    }
}

/// A group for one command. Removed when dropped: by then all who were in it should have ended.
pub struct Group {
    dirs: Vec<PathBuf>,
    join: Vec<OwnedFd>,
    memory: Option<MemoryWatch>,
    /// Counts how often a new process was refused.
    processes: Option<OwnedFd>,
    /// How often that was before the command.
    refused_before: u64,
    /// Whether that must be looked at from time to time: of version 1, kernels since 6.11 tell nobody who polls.
    tells_nobody: bool,
}

impl Group {
    /// Makes its directory in a home, unless it has it.
    fn enter(&mut self, home: &Home, name: &str) -> io::Result<PathBuf> {
        let dir = home.dir.join(name);
        if !self.dirs.contains(&dir) {
            rustix::fs::mkdirat(CWD, &dir, Mode::from_raw_mode(0o755))?;
            self.dirs.push(dir.clone());
            self.join.push(open(&dir.join("cgroup.procs"), OFlags::WRONLY)?);
        }
        Ok(dir)
    }

    fn count_processes(&mut self, home: &Home, name: &str, limit: u32) -> io::Result<()> {
        let dir = self.enter(home, name)?;
        write(&dir.join("pids.max"), &limit.to_string())?;
        let events = open(&dir.join("pids.events"), OFlags::RDONLY)?;
        // Only from the first read on does polling tell of what is new.
        read(&events)?;
        self.processes = Some(events);
        self.tells_nobody = home.version == Version::One;
        Ok(())
    }

    /// Whoever writes `0` to all of these joins.
    pub fn entrances(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.join.iter().map(AsFd::as_fd)
    }

    /// Whether it counts processes.
    pub fn counts_processes(&self) -> bool {
        self.processes.is_some()
    }

    /// What to poll for news of [`Group::over`].
    pub fn events(&self) -> Vec<PollFd<'_>> {
        let memory = self.memory.as_ref().and_then(|memory| memory.event.as_ref());
        let memory = memory.map(|event| PollFd::new(event, PollFlags::IN));
        memory.into_iter().chain(self.processes.iter().map(|events| PollFd::new(events, PollFlags::PRI))).collect()
    }

    /// How long to poll at most before [`Group::over`] is asked all the same.
    pub fn patience(&self) -> Option<Duration> {
        self.tells_nobody.then_some(LOOK_INTERVAL)
    }

    /// Which limit was hit, if one was.
    pub fn over(&self) -> Option<Limit> {
        // A bomb of processes may take all memory as well; which came first is not known, and the memory is what others miss.
        if self.memory.as_ref().is_some_and(MemoryWatch::is_over) {
            return Some(Limit::Memory);
        }
        let refused = self.processes.as_ref().map_or(0, |events| count(events, "max"));
        (refused > self.refused_before).then_some(Limit::Processes)
    }

    /// Moves another process of this user in. The kernel takes some milliseconds for it, on every processor's word.
    pub fn take_in(&self, pid: u32) -> io::Result<()> {
        for entrance in &self.join {
            rustix::io::retry_on_intr(|| rustix::io::write(entrance, pid.to_string().as_bytes()))?;
        }
        Ok(())
    }

    /// Makes it ready for the next command: `attendants` that are always in it, and nobody else, may be joined by as many as `limit`.
    /// `false` if somebody else is in it.
    pub fn renew(&mut self, attendants: u32, limit: u32) -> io::Result<bool> {
        let (Some(dir), Some(events)) = (self.dirs.first(), &self.processes) else { return Ok(false) };
        let inside = ops::read_text(&dir.join("pids.current")).map_err(|error| error.cause)?;
        if inside.trim().parse() != Ok(attendants) {
            return Ok(false);
        }
        write(&dir.join("pids.max"), &limit.to_string())?;
        self.refused_before = count(events, "max");
        Ok(true)
    }

    /// Most memory that was in use at once, in KiB, page cache included; `None` where it is not counted.
    pub fn peak_kib(&self) -> Option<u64> {
        let peak = ops::read_text(&self.memory.as_ref()?.peak).ok()?;
        peak.trim().parse::<u64>().ok().map(|bytes| bytes / 1024)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for dir in &self.dirs {
            // Whoever is still in it could not be killed in time, or is not quite gone; it is tried again with the next group, and
            // when the launcher has ended.
            if remove(dir) == Err(Errno::BUSY) {
                Groups::ours().remaining.lock().unwrap_or_else(PoisonError::into_inner).push(dir.clone());
            }
        }
    }
}

struct MemoryWatch {
    /// Says how many were killed for want of memory.
    counts: OwnedFd,
    /// Version 1 kills one process only, and tells by this that it is about to. Version 2 kills the group by itself.
    event: Option<OwnedFd>,
    peak: PathBuf,
}

impl MemoryWatch {
    fn set(dir: &Path, version: Version, bytes: u64) -> io::Result<Self> {
        let optional = |file: &str, text: &str| match write(&dir.join(file), text) {
            // A kernel that does not account for swap, or is older than the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        match version {
            Version::One => {
                write(&dir.join("memory.limit_in_bytes"), &bytes.to_string())?;
                optional("memory.memsw.limit_in_bytes", &bytes.to_string())?;
                let counts = open(&dir.join("memory.oom_control"), OFlags::RDONLY)?;
                let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                let wanted = format!("{} {}", event.as_raw_fd(), counts.as_raw_fd());
                write(&dir.join("cgroup.event_control"), &wanted)?;
                Ok(Self { counts, event: Some(event), peak: dir.join("memory.max_usage_in_bytes") })
            }
            Version::Two => {
                write(&dir.join("memory.max"), &bytes.to_string())?;
                optional("memory.swap.max", "0")?;
                optional("memory.oom.group", "1")?;
                let counts = open(&dir.join("memory.events"), OFlags::RDONLY)?;
                Ok(Self { counts, event: None, peak: dir.join("memory.peak") })
            }
        }
    }

    fn is_over(&self) -> bool {
        let told = self.event.as_ref().is_some_and(|event| {
            let mut fds = [PollFd::new(event, PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
        });
        told || count(&self.counts, "oom_kill") > 0
    }
}

/// Makes a group that was found a home, if this process may.
fn enter(controller: Controller, found: Found, owner: &str) -> Result<Home, Refusal> {
    let Found { dir, version } = found;
    if let Err(error) = rustix::fs::accessat(CWD, &dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        return Err(not_writable(&dir, version, error));
    }
    if version == Version::Two {
        delegate(&dir, controller, owner)?;
    }
    Ok(Home { dir, version })
}

/// Has groups beneath `dir` limit what the controller counts.
fn delegate(dir: &Path, controller: Controller, owner: &str) -> Result<(), Refusal> {
    let word = controller.word();
    let says = |file: &str| {
        ops::read_text(&dir.join(file)).is_ok_and(|text| text.split_whitespace().any(|given| given == word))
    };
    if says("cgroup.subtree_control") {
        return Ok(());
    }
    if !says("cgroup.controllers") {
        let reason = format!("the `{word}` controller is not given to {}", dir.display());
        return Err(refusal(reason, DELEGATE));
    }
    let control = dir.join("cgroup.subtree_control");
    let wanted = format!("+{word}");
    let mut tried = write(&control, &wanted);
    if tried.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy) && is_alone(dir) {
        tried = step_aside(dir, owner).and_then(|()| write(&control, &wanted));
    }
    tried.map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => {
            refusal(format!("other processes share its control group {}", dir.display()), DELEGATE)
        }
        _ => refusal(format!("{}: {error}", control.display()), DELEGATE),
    })
}

const DELEGATE: &str = "`systemd-run --user --scope -p Delegate=yes drystone run …` (as root without `--user`)";

/// Whether no other process is in the group.
fn is_alone(dir: &Path) -> bool {
    let own = std::process::id().to_string();
    ops::read_text(&dir.join("cgroup.procs")).is_ok_and(|text| text.split_whitespace().all(|pid| pid == own))
}

/// Moves this process into a group of its own beneath.
fn step_aside(dir: &Path, owner: &str) -> io::Result<()> {
    let own = dir.join(format!("{owner}engine"));
    rustix::fs::mkdirat(CWD, &own, Mode::from_raw_mode(0o755))?;
    write(&own.join("cgroup.procs"), "0")
}

fn not_writable(dir: &Path, version: Version, error: Errno) -> Refusal {
    let place = dir.display();
    match (error, version) {
        (Errno::ROFS, _) => refusal(
            format!("control groups are mounted read-only here, as in a container: {place}"),
            "limit the container itself (`docker run --memory … --pids-limit …`), or run it with `--privileged`",
        ),
        (_, Version::Two) => refusal(format!("this user may make no control groups in {place}"), DELEGATE),
        (_, Version::One) => refusal(
            format!("this user may make no control groups in {place}"),
            "`sudo cgcreate -a $USER -t $USER -g memory,pids:drystone`, then \
             `cgexec -g memory,pids:drystone drystone run …` (cgroup-tools); or run as root",
        ),
    }
}

fn refusal(reason: impl Into<String>, remedy: &str) -> Refusal {
    Refusal { reason: reason.into(), remedy: remedy.into() }
}

/// Names a living process among all that ever ran: its pid namespace, pid and start. `None` if there is none of this pid.
fn owner_prefix(pid: u32) -> Option<String> {
    // That of this process: the pid is one of it.
    let space = ops::read_link(Path::new("/proc/self/ns/pid")).ok()?;
    let space: String = space.to_str()?.chars().filter(char::is_ascii_digit).collect();
    let stat = ops::read_text(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
    // The command name in parentheses may hold anything, so count from its end: the start time is the 22nd field.
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
    Some(format!("{PREFIX}{space}-{pid}-{start}-"))
}

/// Whether a group of this name was made by a process of this pid namespace that lives no more.
fn is_abandoned(name: &str, living: &dyn Fn(u32) -> Option<String>) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let parts: Vec<&str> = rest.split('-').collect();
    let [space, pid, _, _] = parts[..] else { return false };
    let (Ok(pid), Some(ours)) = (pid.parse(), living(std::process::id())) else { return false };
    ours.starts_with(&format!("{PREFIX}{space}-")) && living(pid).is_none_or(|owner| !name.starts_with(&owner))
}

/// Removes groups beneath `dir`; one in which somebody lives stays.
fn sweep(dir: &Path, is_doomed: &dyn Fn(&str) -> bool) {
    for entry in ops::read_dir(dir).unwrap_or_default() {
        if entry.name.to_str().is_some_and(is_doomed) {
            // Whose processes are about to end is left to the next sweep.
            let _ = remove(&dir.join(&entry.name));
        }
    }
}

fn remove(dir: &Path) -> Result<(), Errno> {
    assert!(
        dir.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(PREFIX)),
        "BUG: removing {}, which was not made here",
        dir.display()
    );
    rustix::fs::unlinkat(CWD, dir, AtFlags::REMOVEDIR)
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Sets a file of a group: in one call, as the kernel wants it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let file = open(path, OFlags::WRONLY)?;
    rustix::io::retry_on_intr(|| rustix::io::write(&file, text.as_bytes()))?;
    Ok(())
}

fn read(file: &OwnedFd) -> io::Result<String> {
    let mut bytes = [0; 4096];
    let length = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut bytes, 0))?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// A figure in a file of lines with a word and a figure each; 0 if it is not there.
fn count(file: &OwnedFd, word: &str) -> u64 {
    let text = read(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    line.and_then(|figure| figure.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_of_dead_processes_of_this_namespace_are_abandoned() {
        let living = |pid: u32| match pid {
            7 => Some("drystone-40-7-100-".to_owned()),
            pid if pid == std::process::id() => Some(format!("drystone-40-{pid}-5-")),
            _ => None,
        };
        let check = |name: &str, expect: bool| assert_eq!(is_abandoned(name, &living), expect, "{name}");
        check("drystone-40-7-100-3", false);
        // The pid is another's by now.
        check("drystone-40-7-99-3", true);
        check("drystone-40-8-100-engine", true);
        check("drystone-41-8-100-0", false);
        for foreign in ["docker-1", "drystone-", "drystone-40-x-1-1", "drystone-40-8-1", "drystone-40-8-1-1-1"] {
            check(foreign, false);
        }
    }

    #[test]
    fn a_process_has_one_name_as_long_as_it_lives() {
        let own = owner_prefix(std::process::id()).expect("/proc is there");
        assert_eq!(owner_prefix(std::process::id()), Some(own));
        assert_eq!(owner_prefix(u32::MAX), None);
    }

    #[test]
    fn version_two_is_set_up_by_its_own_files() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (file, text) in [
            ("memory.max", "max"),
            ("memory.oom.group", "0"),
            ("memory.events", "low 0\noom 1\noom_kill 2\n"),
            ("memory.peak", "2048\n"),
        ] {
            ops::write(&dir.path().join(file), text.as_bytes()).expect("a file");
        }
        // No `memory.swap.max`: a kernel without swap accounting.
        let watch = MemoryWatch::set(dir.path(), Version::Two, 4096).expect("all that is needed is there");
        assert!(watch.is_over());
        assert_eq!(ops::read_text(&dir.path().join("memory.max")).expect("it is there"), "4096");
        assert_eq!(ops::read_text(&dir.path().join("memory.oom.group")).expect("it is there"), "1");
        let group = Group {
            dirs: Vec::new(),
            join: Vec::new(),
            memory: Some(watch),
            processes: None,
            refused_before: 0,
            tells_nobody: false,
        };
        assert_eq!((group.peak_kib(), group.over()), (Some(2), Some(Limit::Memory)));
    }

    #[test]
    fn who_shares_a_group_of_version_two_is_told_so() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str, text: &str| ops::write(&dir.path().join(name), text.as_bytes()).expect("a file");
        file("cgroup.subtree_control", "cpu pids\n");
        file("cgroup.controllers", "cpu pids\n");
        assert_eq!(delegate(dir.path(), Controller::Processes, "drystone-1-1-1-"), Ok(()));
        let refused = delegate(dir.path(), Controller::Memory, "drystone-1-1-1-").expect_err("it is not there");
        assert!(refused.reason.contains("`memory` controller is not given"), "{refused:?}");
        assert!(refused.remedy.contains("Delegate=yes"), "{refused:?}");
        file("cgroup.procs", &format!("{}\n", std::process::id()));
        assert!(is_alone(dir.path()));
        file("cgroup.procs", &format!("1\n{}\n", std::process::id()));
        assert!(!is_alone(dir.path()));
    }
}
