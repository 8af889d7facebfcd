//! The engine's side: asks the launcher for a command, carries its output, and stops it in time. Builds nothing itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::Shutdown;

use crate::process::cancel::Cancel;
use crate::sandbox::berth::Berths;
use crate::sandbox::checks::{Checked, socket_pair};
use crate::sandbox::drain::Drain;
use crate::sandbox::group::{Group, Groups};
use crate::sandbox::init::GRACE;
use crate::sandbox::launcher::ARGUMENT;
use crate::sandbox::observation::Observation;
use crate::sandbox::owned::Owned;
use crate::sandbox::plain;
use crate::sandbox::pod::Pod;
use crate::sandbox::refusal::{Facts, explain};
use crate::sandbox::spec::{Exit, Finished, Leftover, Level, Limit, Network, SandboxError, SandboxSpec, Stream, Usage};
use crate::sandbox::surroundings::Surroundings;
use crate::sandbox::wire::{self, Aside, Failure, Purpose, Report, Request, Status};

/// Runs one command so that it sees what its spec says.
pub trait Sandbox: Send + Sync {
    /// What it enforces.
    fn level(&self) -> Level;

    /// Runs the command to its end, its timeout, or the request to stop; `sink` gets its output as it comes.
    ///
    /// Bytes of one stream arrive in order; between the two there is no order. When this returns, every process the command has
    /// started is gone. Blocks the calling thread; any number of threads may run commands at once.
    fn run(
        &self,
        spec: &SandboxSpec,
        cancel: &Cancel,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Finished, SandboxError> {
        self.run_in(spec, Company::default(), cancel, sink)
    }

    /// The same, with others: in their pod, and checked while it runs.
    fn run_in(
        &self,
        spec: &SandboxSpec,
        company: Company,
        cancel: &Cancel,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Finished, SandboxError>;

    /// Says that so many commands without limits or a network of their own are likely to come at once: what they are started with is made meanwhile.
    fn expect_commands(&self, _count: usize) {}

    /// A new network for several commands to share; `None` where every command has the host's anyway.
    fn pod(&self) -> Result<Option<Pod>, SandboxError>;
}

/// Whom a command runs beside.
#[derive(Debug, Default)]
pub struct Company {
    /// The pod it joins; its spec must say [`Network::Pod`] then.
    pub pod: Option<Pod>,
    /// The end of [`crate::sandbox::checks::Checks`] that goes with it.
    pub checked: Option<Checked>,
    /// Asks for what it has printed so far.
    pub drain: Option<Drain>,
}

/// Opens a level, with this very program as its launcher. Cheap: the launcher starts with the first command.
///
/// A program that calls this must call [`crate::sandbox::launcher::main_if_asked`] first thing in its `main`.
pub fn open(level: Level) -> Result<Box<dyn Sandbox>, SandboxError> {
    open_with(level, Path::new("/proc/self/exe"))
}

/// Opens a level with another program as launcher: its absolute path; one whose `main` calls [`crate::sandbox::launcher::main_if_asked`].
pub fn open_with(level: Level, launcher: &Path) -> Result<Box<dyn Sandbox>, SandboxError> {
    Ok(Box::new(Launched::new(level, launcher)?))
}

/// A level whose commands are started by a launcher.
pub(super) struct Launched {
    level: Level,
    program: PathBuf,
    connection: Mutex<Option<Arc<Connection>>>,
    berths: Berths,
}

/// A launcher that runs.
pub(super) struct Connection {
    requests: OwnedFd,
    process: Mutex<Child>,
}

impl Connection {
    /// Starts it.
    pub(super) fn start(program: &Path) -> io::Result<Self> {
        // Before there is a launcher: to make groups this process may have to move, and the launcher must not stay behind.
        Groups::ours();
        let (ours, theirs) = socket_pair()?;
        // No `pre_exec` and no user change: std then uses `posix_spawn`, which does not copy the engine's page tables.
        let process = Command::new(program)
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { requests: ours, process: Mutex::new(process) })
    }

    /// Its process id.
    pub(super) fn launcher(&self) -> u32 {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// Whether it has not ended, as far as the kernel has told.
    pub(super) fn is_running(&self) -> bool {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(process.try_wait(), Ok(None))
    }

    /// How the launcher ended, if it has.
    ///
    /// It is asked: while it dies its descriptors close one after another and in no order, so that an init may already be silent
    /// when the launcher's own socket is still open. Takes no longer than a launcher that lives needs to answer, or another to die.
    fn ended(&self, level: Level) -> Option<String> {
        if self.lives(level) {
            return None;
        }
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.wait().ok().map(|status| format!("{status}"))
    }

    /// Whether it answers, or cannot be asked for want of something of our own.
    fn lives(&self, level: Level) -> bool {
        let Ok((control, answer)) = socket_pair() else { return true };
        let request = Request::bare(level, Purpose::Answer);
        if let Err(error) = wire::send(&self.requests, &request.encode(), &[answer.as_fd()]) {
            return !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        }
        drop(answer);
        let mut fds = [PollFd::new(&control, PollFlags::IN)];
        let patience = Timespec::try_from(REPORT_DELAY_MAX).ok();
        match rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, patience.as_ref())) {
            // Stopped by somebody, or the machine is: what it does is not known.
            Ok(0) | Err(_) => true,
            Ok(_) => matches!(wire::receive(&control), Ok(Some(_))),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Tells the launcher to end, which waits for its inits; nobody runs a command while nobody holds this.
        let _ = rustix::net::shutdown(&self.requests, Shutdown::Both);
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(process.wait());
        Groups::ours().remove_remaining();
    }
}

impl Launched {
    pub(super) fn new(level: Level, program: &Path) -> Result<Self, SandboxError> {
        Ok(Self { level, program: program.to_owned(), connection: Mutex::new(None), berths: Berths::default() })
    }

    /// Builds the view and runs nothing in it.
    pub(super) fn probe(&self, spec: &SandboxSpec) -> Result<Report, SandboxError> {
        let never = Cancel::new().map_err(|error| self.setup("preparing to wait", &error))?;
        let connection = self.connect()?;
        let running = self.request(spec, Purpose::Probe, Company::default(), (&connection, Membership::Nowhere))?;
        let (report, _, _) =
            running.follow(None, None, &never, &mut |_, _| {}).map_err(|end| self.gone(&connection, end))?;
        Ok(report)
    }

    fn setup(&self, step: &str, error: &io::Error) -> SandboxError {
        SandboxError::Setup { level: self.level, step: step.into(), cause: wire::plain(error) }
    }

    fn connect(&self) -> Result<Arc<Connection>, SandboxError> {
        let mut held = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was killed since the last command has nothing to tell of this one.
        if let Some(connection) = held.as_ref().filter(|connection| connection.is_running()) {
            return Ok(Arc::clone(connection));
        }
        let started = Connection::start(&self.program).map_err(|error| SandboxError::LauncherGone {
            cause: format!("it could not be started from {}: {}", self.program.display(), wire::plain(&error)),
        })?;
        Ok(Arc::clone(held.insert(Arc::new(started))))
    }

    /// The connection failed: says so once; the next command gets a new launcher.
    fn gone(&self, connection: &Arc<Connection>, end: Gone) -> SandboxError {
        let cause = match (end, connection.ended(self.level)) {
            (_, Some(status)) => {
                let mut held = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
                if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, connection)) {
                    *held = None;
                }
                status
            }
            (Gone::Silent, None) => {
                "the first process of the sandbox was killed before it could report (out of memory?)".into()
            }
            (Gone::Stuck, None) => "the command could not be stopped in time".into(),
            (Gone::System(error), None) => wire::plain(&error),
        };
        SandboxError::LauncherGone { cause }
    }

    fn request(
        &self,
        spec: &SandboxSpec,
        purpose: Purpose,
        company: Company,
        (connection, membership): (&Arc<Connection>, Membership<'_>),
    ) -> Result<Running, SandboxError> {
        assert_eq!(spec.network == Network::Pod, company.pod.is_some(), "BUG: a pod's network without the pod");
        let prepare = |error: io::Error| self.setup("preparing its descriptors", &error);
        let (stdout, stdout_theirs) = output_pipe().map_err(prepare)?;
        let (stderr, stderr_theirs) = output_pipe().map_err(prepare)?;
        let (control, control_theirs) = socket_pair().map_err(prepare)?;
        let job = wire::anonymous_file("job", &wire::encode_spec(spec)).map_err(prepare)?;
        let (group, joins) = match membership {
            Membership::Nowhere => (None, None),
            Membership::Joins(group) => (Some(group), Some(group)),
            Membership::Inside(group) => (Some(group), None),
        };
        let entrances: Vec<BorrowedFd<'_>> = joins.into_iter().flat_map(Group::entrances).collect();
        let along = wire::Company {
            checks: company.checked.is_some(),
            pod: company.pod.is_some(),
            groups: u8::try_from(entrances.len()).expect("there is one for each of two controllers at most"),
            crowd: self.level == Level::Namespaces && group.is_some_and(|group| !group.counts_processes()),
            berth: matches!(membership, Membership::Inside(_)),
        };
        let request = Request { level: self.level, network: spec.network, purpose, company: along };
        let mut theirs = vec![control_theirs.as_fd(), job.as_fd(), stdout_theirs.as_fd(), stderr_theirs.as_fd()];
        theirs.extend(company.checked.iter().map(|checked| checked.0.as_fd()));
        theirs.extend(company.pod.iter().flat_map(Pod::descriptors));
        theirs.extend(entrances);
        wire::send(&connection.requests, &request.encode(), &theirs)
            .map_err(|error| self.gone(connection, Gone::System(error)))?;
        Ok(Running { control, streams: [Some(stdout), Some(stderr)], drain: company.drain })
    }

    /// Runs a command and gives its report, with the descriptors that came with it and why it was stopped.
    fn ask(
        &self,
        spec: &SandboxSpec,
        company: Company,
        seat: (&Arc<Connection>, Membership<'_>),
        cancel: &Cancel,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<(Report, Vec<OwnedFd>, Option<Exit>), SandboxError> {
        let (Membership::Joins(group) | Membership::Inside(group)) = seat.1 else {
            unreachable!("BUG: a command without limits")
        };
        let running = self.request(spec, Purpose::Run, company, seat)?;
        let deadline = spec.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        running.follow(deadline, Some(group), cancel, sink).map_err(|end| self.gone(seat.0, end))
    }

    /// What came of a command, from what was reported of it.
    fn finished(
        &self,
        spec: &SandboxSpec,
        group: &Group,
        (report, mut descriptors, stopped): (Report, Vec<OwnedFd>, Option<Exit>),
    ) -> Result<Finished, SandboxError> {
        let (status, mut usage, aside, crowded) = match report {
            Report::Ended { status, usage, aside, crowded } => (status, usage, aside, crowded),
            Report::CannotStart { cause } => {
                let program = spec.argv.first().cloned().unwrap_or_default();
                return Err(SandboxError::CannotStart { program, cause });
            }
            Report::Failed(failure) => return Err(self.failed(&failure)),
        };
        let over = group.over().or_else(|| crowded.then_some(Limit::Processes));
        let exit = match (stopped, over, status) {
            (Some(Exit::Cancelled), ..) => Exit::Cancelled,
            (_, Some(limit), _) => Exit::Over(limit),
            (Some(stopped), None, _) => stopped,
            (None, None, Status::Code(code)) => Exit::Code(code),
            (None, None, Status::Signal(signal)) => Exit::Signal(signal),
        };
        usage.max_rss_kib = usage.max_rss_kib.max(group.peak_kib().unwrap_or(0));
        let last = if aside == Aside::Nothing { None } else { descriptors.pop() };
        let observation =
            (aside == Aside::Observation).then(|| last.as_ref().map_or_else(not_reported, read_observation));
        let owned = (aside == Aside::Owned).then(|| read_owned(last.as_ref()));
        let workspace = match descriptors.pop() {
            Some(descriptor) => Leftover::behind(descriptor),
            None => Leftover::on_disk(spec.stage.join(plain::COPY_DIR)),
        };
        Ok(Finished { exit, usage, workspace, observation, owned })
    }

    fn failed(&self, failure: &Failure) -> SandboxError {
        let known = explain(self.level, failure, &Facts::gather());
        let cause = match known {
            Some(refusal) => format!("{}: {}; {}", failure.cause, refusal.reason, refusal.remedy),
            None => failure.cause.clone(),
        };
        SandboxError::Setup { level: self.level, step: failure.step.clone(), cause }
    }
}

impl Sandbox for Launched {
    fn level(&self) -> Level {
        self.level
    }

    fn expect_commands(&self, count: usize) {
        self.berths.expect(count, &self.program);
    }

    fn pod(&self) -> Result<Option<Pod>, SandboxError> {
        if self.level != Level::Namespaces {
            return Ok(None);
        }
        let connection = self.connect()?;
        let (control, theirs) = socket_pair().map_err(|error| self.setup("preparing its descriptors", &error))?;
        let request = Request::bare(self.level, Purpose::Pod);
        wire::send(&connection.requests, &request.encode(), &[theirs.as_fd()])
            .map_err(|error| self.gone(&connection, Gone::System(error)))?;
        drop(theirs);
        let (bytes, descriptors) = wire::receive(&control)
            .map_err(Gone::System)
            .and_then(|received| received.ok_or(Gone::Silent))
            .map_err(|end| self.gone(&connection, end))?;
        match (Report::decode(&bytes), <[OwnedFd; 2]>::try_from(descriptors)) {
            (Ok(Report::Failed(failure)), _) => Err(self.failed(&failure)),
            (Ok(_), Ok([user, net])) => Ok(Some(Pod::new(user, net))),
            _ => Err(self.gone(&connection, Gone::Silent)),
        }
    }

    fn run_in(
        &self,
        spec: &SandboxSpec,
        company: Company,
        cancel: &Cancel,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Finished, SandboxError> {
        if cancel.is_cancelled() {
            let workspace = Leftover::on_disk(spec.stage.clone());
            let (exit, usage) = (Exit::Cancelled, Usage::default());
            return Ok(Finished { exit, usage, workspace, observation: None, owned: None });
        }
        let varied = spec.surroundings.as_deref().is_some_and(|around| *around != Surroundings::default());
        if varied && self.level != Level::Namespaces {
            return Err(SandboxError::Setup {
                level: self.level,
                step: "varying what is around the command".into(),
                cause: "only the `namespaces` level can, and audits need it".into(),
            });
        }
        // Services come to stay, and those in a pod are forked by another process.
        let is_alone = company.pod.is_none() && company.checked.is_none();
        if let Some(berth) = is_alone.then(|| self.berths.take(&spec.limits, spec.network, &self.program)).flatten() {
            let seat = (&berth.connection, Membership::Inside(&berth.group));
            let finished = self.ask(spec, company, seat, cancel, sink);
            let finished = finished.and_then(|reported| self.finished(spec, &berth.group, reported));
            self.berths.give_back(berth);
            return finished;
        }
        let group =
            Groups::ours().make(&spec.limits).map_err(|error| self.setup("making its control group", &error))?;
        let connection = self.connect()?;
        let reported = self.ask(spec, company, (&connection, Membership::Joins(&group)), cancel, sink)?;
        self.finished(spec, &group, reported)
    }
}

/// Which control group holds a command.
#[derive(Clone, Copy)]
enum Membership<'a> {
    /// None: nothing runs.
    Nowhere,
    /// One that it joins.
    Joins(&'a Group),
    /// One that its launcher is in.
    Inside(&'a Group),
}

fn read_observation(file: &OwnedFd) -> Observation {
    let bytes = wire::read_anonymous_file(file).unwrap_or_default();
    Observation::decode(&bytes).unwrap_or_else(|_| not_reported())
}

fn read_owned(file: Option<&OwnedFd>) -> Owned {
    let bytes = file.and_then(|file| wire::read_anonymous_file(file).ok());
    let owned = bytes.and_then(|bytes| Owned::decode(&bytes).ok());
    owned.unwrap_or_else(|| Owned::unknown("the owners of its files did not arrive"))
}

fn not_reported() -> Observation {
    Observation::nothing("what was observed did not arrive")
}

/// A pipe whose reading end does not block; the command's end does, as programs expect.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((reader, writer))
}

/// Why no report came.
enum Gone {
    /// The init closed its socket without one.
    Silent,
    /// It did not close it in time.
    Stuck,
    /// The socket itself failed.
    System(io::Error),
}

/// A command that was asked for.
struct Running {
    control: OwnedFd,
    streams: [Option<OwnedFd>; 2],
    drain: Option<Drain>,
}

/// Beyond the grace and the burial an init may take this long to be scheduled and to report.
const REPORT_DELAY_MAX: Duration = Duration::from_secs(30);

/// Bytes taken from a stream at once: a pipe's capacity.
const CHUNK_BYTES: usize = 64 * 1024;

impl Running {
    /// Carries output until the report comes. Gives the report, the descriptors that came with it, and why it was stopped.
    fn follow(
        mut self,
        deadline: Option<Instant>,
        group: Option<&Group>,
        cancel: &Cancel,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<(Report, Vec<OwnedFd>, Option<Exit>), Gone> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut stopped: Option<Exit> = None;
        let mut deadline = deadline;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let over = left == Some(Duration::ZERO);
            if over && stopped.is_some() {
                return Err(Gone::Stuck);
            }
            if stopped.is_none() && (over || cancel.is_cancelled()) {
                stopped = Some(if over { Exit::TimedOut } else { Exit::Cancelled });
                // The init sees this end of the socket close and stops the command; its report still comes.
                rustix::net::shutdown(&self.control, Shutdown::Write).map_err(|error| Gone::System(error.into()))?;
                deadline = Instant::now().checked_add(GRACE + REPORT_DELAY_MAX);
                continue;
            }
            if stopped.is_none()
                && let Some(limit) = group.and_then(Group::over)
            {
                stopped = Some(Exit::Over(limit));
                // An init that has just reported needs no word; its report is taken as ever.
                drop(wire::send(&self.control, wire::KILL, &[]));
                deadline = Instant::now().checked_add(REPORT_DELAY_MAX);
            }
            let mut fds = vec![PollFd::new(&self.control, PollFlags::IN)];
            fds.extend(self.streams.iter().flatten().map(|stream| PollFd::new(stream, PollFlags::IN)));
            fds.extend(self.drain.iter().map(|drain| PollFd::from_borrowed_fd(drain.event(), PollFlags::IN)));
            if stopped.is_none() {
                fds.push(PollFd::from_borrowed_fd(cancel.event(), PollFlags::IN));
                fds.extend(group.into_iter().flat_map(Group::events));
            }
            let patience = group.filter(|_| stopped.is_none()).and_then(Group::patience);
            let timeout = [left, patience].into_iter().flatten().min().and_then(|least| Timespec::try_from(least).ok());
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Gone::System(error.into())),
            }
            let reported = !fds[0].revents().is_empty();
            // Once the report is there everybody is gone, and what they have written waits in the pipes.
            let asked = self.drain.as_ref().and_then(Drain::asked);
            self.carry(&mut buffer, if reported || asked.is_some() { Pass::All } else { Pass::One }, sink);
            if let (Some(drain), Some(asked)) = (&self.drain, asked) {
                drain.done(asked);
            }
            if reported {
                let (bytes, descriptors) = wire::receive(&self.control).map_err(Gone::System)?.ok_or(Gone::Silent)?;
                let report = Report::decode(&bytes).map_err(|error| Gone::System(io::Error::other(error)))?;
                return Ok((report, descriptors, stopped));
            }
        }
    }

    /// Hands on what the streams hold.
    fn carry(&mut self, buffer: &mut [u8], pass: Pass, sink: &mut dyn FnMut(Stream, &[u8])) {
        for (slot, stream) in self.streams.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
            let passes = match pass {
                Pass::One => 1,
                Pass::All => DRAIN_PASSES_MAX,
            };
            for _ in 0..passes {
                let Some(descriptor) = slot.as_ref() else { break };
                match rustix::io::read(descriptor, &mut *buffer) {
                    Ok(0) => *slot = None,
                    Ok(length) => sink(stream, &buffer[..length]),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(_) => *slot = None,
                }
            }
        }
    }
}

/// How much of the streams to take.
#[derive(Clone, Copy)]
enum Pass {
    /// One chunk each, so that neither waits for the other.
    One,
    /// All there is.
    All,
}

/// A pipe holds at most this many chunks unless somebody still writes, which only an escaped process could.
const DRAIN_PASSES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_a_drain_is_taken_when_it_returns() {
        let (control, theirs) = socket_pair().expect("a pair of sockets");
        let (stdout, writer) = output_pipe().expect("a pipe");
        let (stderr, _quiet) = output_pipe().expect("a pipe");
        let drain = Drain::new().expect("an event");
        let never = Cancel::new().expect("an event");
        let running = Running { control, streams: [Some(stdout), Some(stderr)], drain: Some(drain.clone()) };
        let taken = Mutex::new(0_usize);
        std::thread::scope(|scope| {
            let carried = scope.spawn(|| {
                let end = running
                    .follow(None, None, &never, &mut |_, bytes| *taken.lock().expect("unpoisoned") += bytes.len());
                drain.over();
                assert!(matches!(end, Err(Gone::Silent)));
            });
            for round in 1..=500 {
                assert_eq!(rustix::io::write(&writer, &[b'x'; 1000]), Ok(1000));
                drain.wait(REPORT_DELAY_MAX);
                assert_eq!(*taken.lock().expect("unpoisoned"), round * 1000, "round {round}");
            }
            drop(theirs);
            carried.join().expect("no assertion failed");
            drain.wait(REPORT_DELAY_MAX);
        });
    }
}
