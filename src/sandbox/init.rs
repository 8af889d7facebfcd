//! The first process of one sandbox: has the view built, the command started, everything buried, and reports. Keeps no policy.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;
use rustix::process::{Pid, Signal};

use crate::process::usage;
use crate::sandbox::checks::Checking;
use crate::sandbox::crowd::{self, Counting};
use crate::sandbox::kernel;
use crate::sandbox::namespaces::Loopback;
use crate::sandbox::observation::Observation;
use crate::sandbox::spec::{Level, SandboxSpec, System};
use crate::sandbox::start::{self, Bounds, Started, Watch, Watcher};
use crate::sandbox::trace::Observer;
use crate::sandbox::tree::{Left, Tree};
use crate::sandbox::wire::{self, Aside, Failure, KILL, Owner, Purpose, Report, Request, Status};
use crate::sandbox::{confine, namespaces, plain};

/// How long a command may take to end by itself once asked to, before it is killed.
pub const GRACE: Duration = Duration::from_secs(2);

/// Everything an init is given.
pub struct Job {
    /// Level, network, purpose.
    pub request: Request,
    /// How it finds its network.
    pub loopback: Loopback,
    /// The encoded spec, as an anonymous file.
    pub spec: OwnedFd,
    /// Where the command writes.
    pub stdout: OwnedFd,
    /// Where it complains.
    pub stderr: OwnedFd,
    /// What is asked about the command while it runs.
    pub checks: Option<OwnedFd>,
    /// The control groups that the command joins, to be written to.
    pub groups: Vec<OwnedFd>,
    /// The engine: takes one report; its end, or its gone writing side, means stop.
    pub control: OwnedFd,
    /// Hangs up when the launcher is gone, which means stop too.
    pub lifeline: OwnedFd,
    /// Whom the user inside stands for.
    pub owner: Owner,
}

/// Runs the job and ends the process. Never returns into the launcher's code.
pub fn main(job: Job) -> ! {
    let Job { request, loopback, spec, stdout, stderr, control, checks, groups, lifeline, owner } = job;
    let run = || {
        let spec = read_spec(spec)?;
        let counting = if request.company.crowd { Counting::Here } else { Counting::NotHere };
        let tree = Tree::adopt(request.level).map_err(|error| Failure::new("watching over the command", error))?;
        let built = match request.level {
            Level::Namespaces => namespaces::build(&spec, owner, counting, loopback)?,
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
            return Ok((Report::nothing_of(Status::Code(0)), built.workspace, None));
        }
        let own = request.level == Level::Namespaces;
        // With namespaces of its own it has had one for its groups from the start as well.
        let hides_group = request.company.berth && !own;
        let bounds = Rc::new(Bounds { groups, hides_group, processes: own.then_some(spec.limits.processes) });
        let mut checking = Checking::new(checks, &built.command, &bounds);
        // What it starts runs as the same user: nothing of it shows below `/proc/1`, and nobody may trace it.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .map_err(|error| Failure::new("closing itself to the command", error))?;
        let around = built.command.around.clone();
        let varies_clock = own && around.varies_clock();
        let wanted = match &spec.system {
            System::Writable(root) => Watch::Owners { owners: &root.owners, events: tree.events() },
            _ if varies_clock => Watch::Clock { around: &around, events: tree.events() },
            _ if spec.observe && own => Watch::Closely,
            _ => Watch::No,
        };
        let (started, watcher) = start::start(built.command, &bounds, (stdout, stderr), wanted)?;
        let (mut observer, none) = match watcher {
            Watcher::Observer(Ok(observer)) => (Some(observer), None),
            Watcher::Observer(Err(reason)) => (None, Some(reason)),
            Watcher::Attendant(attendant) => {
                tree.attend(attendant);
                let why = if varies_clock { "with another clock" } else { "in a root that it may change" };
                (None, spec.observe.then(|| format!("{why} it is not observed")))
            }
            Watcher::None => (None, spec.observe.then(|| "only the `namespaces` level can observe".to_owned())),
        };
        let mut owned = None;
        let report = match started {
            Started::Running(main) => {
                let stops = Stops { control: control.as_fd(), lifeline: lifeline.as_fd() };
                let limit = (counting == Counting::Here).then_some(spec.limits.processes);
                let (status, crowded) =
                    watch(&tree, (main, spec.stop_signal), &mut checking, stops, limit, observer.as_mut());
                if hangs_up(lifeline.as_fd()) {
                    // The command was cut short by nobody's decision: silence makes it an error, not a result.
                    kernel::exit_now(1)
                }
                owned = tree
                    .take_keeper()
                    .filter(|_| status == Status::Code(0))
                    .map(|keeper| keeper.finish(Path::new("/")));
                let aside = match owned {
                    Some(_) => Aside::Owned,
                    None if spec.observe => Aside::Observation,
                    None => Aside::Nothing,
                };
                Report::Ended { status, usage: usage::of_children(), aside, crowded }
            }
            Started::Not { cause } => Report::CannotStart { cause },
        };
        let observation = observer.map(Observer::finish).or_else(|| none.map(Observation::nothing));
        let aside = match owned {
            Some(owned) => Some(("owners", owned.encode())),
            None => observation.map(|seen| ("observation", seen.encode())),
        };
        let aside = aside.map(|(name, bytes)| wire::anonymous_file(name, &bytes)).transpose();
        let aside = aside.map_err(|error| Failure::new("keeping what was seen of the command", error))?;
        Ok((report, built.workspace, aside))
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    let (report, workspace, aside) = match outcome {
        Ok(Ok(done)) => done,
        Ok(Err(failure)) => (Report::Failed(failure), None, None),
        Err(panic) => (Report::Failed(Failure::said("running the init", panic_text(panic.as_ref()))), None, None),
    };
    // What was seen comes last: a report says whether there is anything.
    let descriptors: Vec<BorrowedFd<'_>> = workspace.iter().chain(&aside).map(AsFd::as_fd).collect();
    // If the engine is gone there is nobody left to tell.
    drop(wire::send(&control, &report.encode(), &descriptors));
    kernel::exit_now(0)
}

/// A report, the workspace as it is left behind, and what was observed, or whose the files are.
type Told = (Report, Option<OwnedFd>, Option<OwnedFd>);

fn probe_confinement(spec: &SandboxSpec) -> Result<Told, Failure> {
    confine::enter(spec)?;
    Ok((Report::nothing_of(Status::Code(0)), None, None))
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
    // Not read but mapped: what it holds of the inputs is copied once, to where the command finds it.
    let bytes = kernel::map_for_good(&descriptor).map_err(|error| Failure::new("reading the job", error))?;
    wire::decode_spec(bytes).map_err(|error| Failure::said("reading the job", error.to_string()))
}

/// Who may have the command stopped.
#[derive(Clone, Copy)]
struct Stops<'a> {
    control: BorrowedFd<'a>,
    lifeline: BorrowedFd<'a>,
}

impl Stops<'_> {
    /// Whether all is to be killed, rather than stopped in order.
    fn kill(self) -> bool {
        let mut word = [0; KILL.len()];
        let received = rustix::net::recv(self.control, &mut word[..], RecvFlags::DONTWAIT);
        received.is_ok_and(|(length, _)| word[..length] == *KILL)
    }
}

/// Waits until the command has ended, or until it is to stop and has been stopped; then ends all it has started.
///
/// With a limit, counts its processes now and then, and says whether there were too many: then all are killed.
fn watch(
    tree: &Tree,
    (main, stop_signal): (Pid, Signal),
    checking: &mut Checking,
    stops: Stops<'_>,
    limit: Option<u32>,
    mut observer: Option<&mut Observer>,
) -> (Status, bool) {
    let mut status = None;
    let mut stop_by: Option<Instant> = None;
    let mut asked = false;
    let mut interval = crowd::INTERVAL_MIN;
    let mut count_at = limit.map(|_| Instant::now() + interval);
    let mut crowded = false;
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
        if let (Some(limit), Some(at)) = (limit, count_at)
            && Instant::now() >= at
        {
            crowded = crowd::is_over(limit);
            if crowded {
                break;
            }
            interval = (interval * 2).min(crowd::INTERVAL_MAX);
            count_at = Some(Instant::now() + interval);
        }
        let heard = stop_by.is_none().then_some(stops);
        let checks = checking.event().filter(|_| stop_by.is_none());
        let at_once = tree.has_more().then(Instant::now);
        let until = [stop_by, count_at, at_once].into_iter().flatten().min();
        match wait(tree, heard, checks, until, observer.as_deref_mut()) {
            Woken::ToStop if stops.kill() => break,
            Woken::ToStop => {
                tree.signal(stop_signal);
                stop_by = Some(Instant::now() + GRACE);
            }
            Woken::Asked => asked = true,
            Woken::ToBury => {}
        }
    }
    if stop_by.is_none()
        && let Some(observer) = observer
    {
        observer.count();
    }
    // Of a crowd that breaks up because it may not grow, the first often goes before it was counted.
    if let Some(limit) = limit
        && status.is_some_and(|status| status != Status::Code(0))
    {
        crowded |= crowd::is_over(limit);
    }
    tree.end(main, &mut status);
    (status.unwrap_or(Status::Signal(libc::SIGKILL)), crowded)
}

/// Why a wait is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Woken {
    /// The command is to stop.
    ToStop,
    /// Something is asked about it.
    Asked,
    /// A child has ended, or the time is up, or nothing.
    ToBury,
}

/// Waits for what changes the course of things; calls that are asked about meanwhile do not, and are answered.
fn wait(
    tree: &Tree,
    stops: Option<Stops<'_>>,
    checks: Option<BorrowedFd<'_>>,
    until: Option<Instant>,
    mut observer: Option<&mut Observer>,
) -> Woken {
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(tree.events(), PollFlags::IN)];
        for stop in stops.into_iter().flat_map(|stops| [stops.control, stops.lifeline]) {
            fds.push(PollFd::from_borrowed_fd(stop, PollFlags::IN | PollFlags::RDHUP));
        }
        let checked = fds.len();
        fds.extend(checks.map(|checks| PollFd::from_borrowed_fd(checks, PollFlags::IN)));
        let others = fds.len();
        if let Some(observer) = observer.as_deref() {
            fds.push(PollFd::from_borrowed_fd(observer.events(), PollFlags::IN));
        }
        let timeout = until
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
            .and_then(|left| Timespec::try_from(left).ok());
        let ready = match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => ready,
            Err(_) => return Woken::ToBury,
        };
        let asked = fds.get(others).map_or(PollFlags::empty(), PollFd::revents);
        let any = |fds: &[PollFd<'_>]| fds.iter().any(|fd| !fd.revents().is_empty());
        let (ended, to_stop, to_check) = (any(&fds[..1]), any(&fds[1..checked]), any(&fds[checked..others]));
        drop(fds);
        if to_stop {
            return Woken::ToStop;
        }
        if to_check {
            return Woken::Asked;
        }
        // Who asks without end has no more time than anybody else.
        if ended || ready == 0 || until.is_some_and(|deadline| Instant::now() >= deadline) {
            return Woken::ToBury;
        }
        match observer.as_deref_mut() {
            Some(observer) if asked.contains(PollFlags::IN) => observer.answer(),
            // Nobody is left who could ask: their end is about to be told.
            _ => observer = None,
        }
    }
}
