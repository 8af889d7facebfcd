//! The first process of one sandbox: has the view built, the command started, everything buried, and reports. Keeps no policy.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;

use crate::process::usage;
use crate::sandbox::checks::Checking;
use crate::sandbox::kernel;
use crate::sandbox::spec::{Level, SandboxSpec};
use crate::sandbox::start::{self, Started};
use crate::sandbox::tree::{Left, Tree};
use crate::sandbox::wire::{self, Failure, Owner, Purpose, Report, Request, Status};
use crate::sandbox::{confine, namespaces, plain};

/// How long a command may take to end by itself once asked to, before it is killed.
pub const GRACE: Duration = Duration::from_secs(2);

/// Everything an init is given.
pub struct Job {
    /// Level, network, purpose.
    pub request: Request,
    /// The encoded spec, as an anonymous file.
    pub spec: OwnedFd,
    /// Where the command writes.
    pub stdout: OwnedFd,
    /// Where it complains.
    pub stderr: OwnedFd,
    /// What is asked about the command while it runs.
    pub checks: Option<OwnedFd>,
    /// The engine: takes one report; its end, or its gone writing side, means stop.
    pub control: OwnedFd,
    /// Hangs up when the launcher is gone, which means stop too.
    pub lifeline: OwnedFd,
    /// Whom the user inside stands for.
    pub owner: Owner,
}

/// Runs the job and ends the process. Never returns into the launcher's code.
pub fn main(job: Job) -> ! {
    let Job { request, spec, stdout, stderr, control, checks, lifeline, owner } = job;
    let run = || {
        let spec = read_spec(spec)?;
        let tree = Tree::adopt(request.level).map_err(|error| Failure::new("watching over the command", error))?;
        let built = match request.level {
            Level::Namespaces => namespaces::build(&spec, owner)?,
            Level::None => plain::build(&spec)?,
            // A probe asks for no view, and there is no place for one.
            Level::Landlock if request.purpose == Purpose::Probe => return probe_confinement(&spec),
            Level::Landlock => {
                let built = plain::build(&spec)?;
                confine::enter(&spec)?;
                built
            }
        };
        if request.purpose == Purpose::Probe {
            let status = Status::Code(0);
            return Ok((Report::Ended { status, usage: usage::Usage::default() }, built.workspace));
        }
        let mut checking = Checking::new(checks, &built.command);
        // What it starts runs as the same user: nothing of it shows below `/proc/1`, and nobody may trace it.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .map_err(|error| Failure::new("closing itself to the command", error))?;
        let report = match start::start(built.command, stdout, stderr)? {
            Started::Running(main) => {
                let status = watch(&tree, main, &mut checking, control.as_fd(), lifeline.as_fd());
                if hangs_up(lifeline.as_fd()) {
                    // The command was cut short by nobody's decision: silence makes it an error, not a result.
                    kernel::exit_now(1)
                }
                Report::Ended { status, usage: usage::of_children() }
            }
            Started::Not { cause } => Report::CannotStart { cause },
        };
        Ok((report, built.workspace))
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    let (report, workspace) = match outcome {
        Ok(Ok(done)) => done,
        Ok(Err(failure)) => (Report::Failed(failure), None),
        Err(panic) => (Report::Failed(Failure::said("running the init", panic_text(panic.as_ref()))), None),
    };
    let descriptors: Vec<BorrowedFd<'_>> = workspace.iter().map(AsFd::as_fd).collect();
    // If the engine is gone there is nobody left to tell.
    drop(wire::send(&control, &report.encode(), &descriptors));
    kernel::exit_now(0)
}

fn probe_confinement(spec: &SandboxSpec) -> Result<(Report, Option<OwnedFd>), Failure> {
    confine::enter(spec)?;
    Ok((Report::Ended { status: Status::Code(0), usage: usage::Usage::default() }, None))
}

fn hangs_up(descriptor: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "BUG: it panicked".into())
}

fn read_spec(descriptor: OwnedFd) -> Result<SandboxSpec, Failure> {
    let failed = |error: rustix::io::Errno| Failure::new("reading the job", error);
    let size = rustix::fs::fstat(&descriptor).map_err(failed)?.st_size;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let mut length = 0;
    while length < bytes.len() {
        match rustix::io::pread(&descriptor, &mut bytes[length..], length as u64).map_err(failed)? {
            0 => break,
            count => length += count,
        }
    }
    wire::decode_spec(&bytes).map_err(|error| Failure::said("reading the job", error.to_string()))
}

/// Waits until the command has ended, or until it is to stop and has been stopped; then ends all it has started.
fn watch(
    tree: &Tree,
    main: rustix::process::Pid,
    checking: &mut Checking,
    control: BorrowedFd<'_>,
    lifeline: BorrowedFd<'_>,
) -> Status {
    let mut status = None;
    let mut stop_by: Option<Instant> = None;
    let mut asked = false;
    loop {
        let left = tree.bury(main, &mut status);
        for (pid, status) in tree.take_noted() {
            checking.ended(pid, status);
        }
        match stop_by {
            // What the command leaves running ends with it: its result is complete when it says so.
            None if status.is_some() || left == Left::Nothing => break,
            // Asked to stop, everybody gets the whole grace.
            Some(deadline) if left == Left::Nothing || Instant::now() >= deadline => break,
            _ => {}
        }
        // Only now: an answer means that the command had not ended when it was asked about.
        if std::mem::take(&mut asked)
            && let Some(pid) = checking.take()
        {
            tree.note(pid);
        }
        let events = PollFd::from_borrowed_fd(tree.events(), PollFlags::IN);
        let mut fds = vec![events];
        if stop_by.is_none() {
            fds.push(PollFd::from_borrowed_fd(control, PollFlags::IN | PollFlags::RDHUP));
            fds.push(PollFd::from_borrowed_fd(lifeline, PollFlags::IN));
        }
        let ends = fds.len();
        if stop_by.is_none() {
            fds.extend(checking.event().map(|event| PollFd::from_borrowed_fd(event, PollFlags::IN)));
        }
        let timeout = stop_by
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
            .and_then(|left| Timespec::try_from(left).ok());
        if rustix::event::poll(&mut fds, timeout.as_ref()).is_err() {
            continue;
        }
        asked = fds[ends..].iter().any(|fd| !fd.revents().is_empty());
        if fds[1..ends].iter().any(|fd| !fd.revents().is_empty()) {
            tree.signal(Signal::TERM);
            stop_by = Some(Instant::now() + GRACE);
        }
    }
    tree.end(main, &mut status);
    status.unwrap_or(Status::Signal(libc::SIGKILL))
}
