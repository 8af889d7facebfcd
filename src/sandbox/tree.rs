//! All processes beneath an init: signalling them and waiting until none is left. Knows no commands and no time limits.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};

use crate::fs::ops;
use crate::sandbox::clock::Clock;
use crate::sandbox::kernel;
use crate::sandbox::owners::Keeper;
use crate::sandbox::ptrace::{self, Became, Stop};
use crate::sandbox::spec::Level;
use crate::sandbox::wire::Status;

/// How long killed processes may take to be gone. Only one that sleeps in the kernel takes longer than an instant.
const BURIAL: Duration = Duration::from_secs(5);

/// Stops that are dealt with before anything else is heard again: who stops without end keeps nobody from being ended.
const STOPS_AT_ONCE: usize = 256;

/// The processes beneath this one; orphans among them become its children.
pub struct Tree {
    level: Level,
    events: OwnedFd,
    /// Children whose end somebody waits for, and how they ended once they have.
    noted: RefCell<Vec<(Pid, Option<Status>)>>,
    /// Who does what is to be done where a process stands.
    attendant: RefCell<Option<Attendant>>,
    /// Whether some may stand of whom no event will tell any more.
    more: Cell<bool>,
}

/// Who does what is to be done where a process stands.
#[derive(Debug)]
pub enum Attendant {
    /// Who keeps the owners of files.
    Keeper(Keeper),
    /// Who gives another time of day.
    Clock(Clock),
}

impl Attendant {
    /// Does what is to be done at a stop, and lets the thread go on.
    pub fn stopped(&mut self, thread: Pid, stop: Stop) {
        match self {
            Attendant::Keeper(keeper) => keeper.stopped(thread, stop),
            Attendant::Clock(clock) => clock.stopped(thread, stop),
        }
    }

    fn ended(&mut self, thread: Pid) {
        match self {
            Attendant::Keeper(keeper) => keeper.ended(thread),
            Attendant::Clock(clock) => clock.ended(thread),
        }
    }
}

/// What is left after burying the dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Some live.
    Some,
    /// None, and none can come any more.
    Nothing,
}

impl Tree {
    /// Makes this process the one that inherits orphans. Must come before anything is started.
    pub fn adopt(level: Level) -> io::Result<Self> {
        let events = kernel::child_events()?;
        if level != Level::Namespaces {
            // In a pid namespace the first process inherits orphans anyway.
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        }
        Ok(Self { level, events, noted: RefCell::default(), attendant: RefCell::default(), more: Cell::new(false) })
    }

    /// Readable when a child has ended and may be buried.
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Keeps how this child, which still lives or was not buried yet, will end.
    pub fn note(&self, pid: Pid) {
        self.noted.borrow_mut().push((pid, None));
    }

    /// The noted children that were buried since they were asked for last.
    pub fn take_noted(&self) -> Vec<(Pid, Status)> {
        let mut noted = self.noted.borrow_mut();
        let ended: Vec<(Pid, Status)> = noted.iter().filter_map(|(pid, status)| Some((*pid, (*status)?))).collect();
        noted.retain(|(_, status)| status.is_none());
        ended
    }

    /// Lets somebody do what is to be done wherever a process stands that it watches.
    pub fn attend(&self, attendant: Attendant) {
        self.attendant.replace(Some(attendant));
    }

    /// Whether there is more to do than was done at once: nothing is to be waited for.
    pub fn has_more(&self) -> bool {
        self.more.get()
    }

    /// The keeper, once nobody is left.
    pub fn take_keeper(&self) -> Option<Keeper> {
        match self.attendant.take() {
            Some(Attendant::Keeper(keeper)) => Some(keeper),
            Some(Attendant::Clock(_)) | None => None,
        }
    }

    /// Buries all who have ended; tells how `main` did, if it is among them. Who stands goes on.
    pub fn bury(&self, main: Pid, status: &mut Option<Status>) -> Left {
        // One signal may stand for several children, so its count says nothing; reading only makes it unready.
        let mut events = [0; 128];
        let _ = rustix::io::read(&self.events, &mut events);
        self.more.set(false);
        let mut stops = 0;
        loop {
            if stops == STOPS_AT_ONCE {
                self.more.set(true);
                return Left::Some;
            }
            let (pid, ended) = match ptrace::next_news() {
                Ok(Some((pid, Became::Stopped(stop)))) => {
                    stops += 1;
                    if let Some(attendant) = self.attendant.borrow_mut().as_mut() {
                        attendant.stopped(pid, stop);
                    }
                    continue;
                }
                Ok(Some((pid, Became::Exited(code)))) => (pid, Status::Code(code)),
                Ok(Some((pid, Became::Killed(signal)))) => (pid, Status::Signal(signal)),
                Ok(None) => return Left::Some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Left::Nothing,
            };
            if let Some(attendant) = self.attendant.borrow_mut().as_mut() {
                attendant.ended(pid);
            }
            if pid == main {
                *status = Some(ended);
            } else if let Some(noted) = self.noted.borrow_mut().iter_mut().find(|noted| noted.0 == pid) {
                noted.1 = Some(ended);
            }
        }
    }

    /// Sends a signal to every process.
    pub fn signal(&self, signal: Signal) {
        if self.level == Level::Namespaces {
            return kernel::signal_namespace(signal.as_raw());
        }
        let mut all = Vec::new();
        descendants(rustix::process::getpid(), &mut all);
        for pid in all {
            // It may have ended meanwhile.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Kills every process and waits until all are gone.
    pub fn end(&self, main: Pid, status: &mut Option<Status>) {
        let deadline = Instant::now() + BURIAL;
        // A process may fork while the list is read, so the list is read again after each burial.
        while self.bury(main, status) == Left::Some && Instant::now() < deadline {
            self.signal(Signal::KILL);
            if self.has_more() {
                continue;
            }
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
            let mut fds = [PollFd::from_borrowed_fd(self.events(), PollFlags::IN)];
            // Whoever was born unseen has an ancestor that was killed, so its turn comes with another event.
            let _ = rustix::event::poll(&mut fds, left.as_ref());
        }
    }
}

/// Lists all processes beneath `pid`, parents first.
fn descendants(pid: Pid, into: &mut Vec<Pid>) {
    let parents = if ops::exists(Path::new("/proc/thread-self/children")) { None } else { Some(parents()) };
    descend(pid, parents.as_deref(), into);
}

fn descend(pid: Pid, parents: Option<&[(Pid, Pid)]>, into: &mut Vec<Pid>) {
    let children = match parents {
        None => children(pid),
        Some(parents) => parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child).collect(),
    };
    for child in children {
        into.push(child);
        descend(child, parents, into);
    }
}

/// The children of all threads of a process. Whoever is gone has none: they are ours now and found on the next round.
fn children(pid: Pid) -> Vec<Pid> {
    let threads = ops::read_dir(Path::new(&format!("/proc/{pid}/task"))).unwrap_or_default();
    let lists = threads.into_iter().map(|thread| {
        let list = format!("/proc/{pid}/task/{}/children", thread.name.to_string_lossy());
        ops::read_text(Path::new(&list)).unwrap_or_default()
    });
    lists.flat_map(|list| list.split_whitespace().filter_map(parse_pid).collect::<Vec<_>>()).collect()
}

/// Every process with its parent, for kernels that do not list children.
fn parents() -> Vec<(Pid, Pid)> {
    let all = ops::read_dir(Path::new("/proc")).unwrap_or_default();
    let parent = |name: &str| {
        let stat = ops::read_text(Path::new(&format!("/proc/{name}/stat"))).ok()?;
        // The command name in parentheses may hold anything, so count from its end: state, parent.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
        Some((parse_pid(name)?, parse_pid(parent)?))
    };
    all.iter().filter_map(|entry| parent(entry.name.to_str()?)).collect()
}

fn parse_pid(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_by_either_way() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 60 & echo ready; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut ready = [0; 6];
        let out = child.stdout.as_mut().expect("it is piped");
        io::Read::read_exact(out, &mut ready).expect("the shell says it is ready");
        let pid = parse_pid(&child.id().to_string()).expect("a pid");
        let beneath = |parents: Option<&[(Pid, Pid)]>| {
            let mut into = Vec::new();
            descend(pid, parents, &mut into);
            into
        };
        let by_parents = beneath(Some(&parents()));
        assert_eq!(by_parents.len(), 1);
        if ops::exists(Path::new("/proc/thread-self/children")) {
            assert_eq!(beneath(None), by_parents);
        }
        for pid in by_parents {
            rustix::process::kill_process(pid, Signal::KILL).expect("it may be killed");
        }
        child.wait().expect("the shell ends");
    }
}
