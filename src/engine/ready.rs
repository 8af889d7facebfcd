//! Waiting until a service can be used: what it prints, its port, an address, a command beside it. Starts and stops nothing.
//!
//! All waiting is for events with a time limit: the service's end and the end of the run cut it short.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::base::time::human_duration;
use crate::engine::instance::Instance;
use crate::manifest::model::{Command, Ready};
use crate::process::cancel::Cancel;
use crate::sandbox::checks::{Answer, Asked};

/// Between the first two attempts; doubled after each.
const PAUSE_FIRST: Duration = Duration::from_millis(5);

/// Longest time between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Longest one attempt at a port or an address takes.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// Longest status line that is read, in bytes.
const STATUS_BYTES_MAX: usize = 1024;

/// Output of a check that is kept, in bytes: its end.
const SAID_BYTES_MAX: usize = 4096;

/// Why a service is not ready.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotReady {
    /// The run is over.
    Cancelled,
    /// It has ended, or one that is up with it.
    Ended,
    /// Its time is up; what the last attempt met.
    TimedOut(String),
}

/// The port that makes a service ready, if that is what does.
pub fn port(ready: &Ready) -> Option<u16> {
    match ready {
        Ready::Port(port) | Ready::Http { port, .. } => Some(*port),
        Ready::Log(_) | Ready::Run(_) => None,
    }
}

/// Whether somebody takes connections on a port of the loopback interface of this machine.
pub fn is_held(port: u16) -> bool {
    let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    addresses.iter().any(|address| {
        let met = TcpStream::connect_timeout(address, ATTEMPT_MAX);
        // Of the ports for outgoing connections the kernel may choose this one, and connect it to itself.
        met.is_ok_and(|peer| peer.local_addr().is_ok_and(|own| own != *address))
    })
}

/// Waits until the service at this place is ready, at most for this long. [`NotReady::Ended`] if any of them has ended.
pub fn wait(
    instances: &[Instance],
    at: usize,
    ready: &Ready,
    within: Duration,
    cancel: &Cancel,
) -> Result<(), NotReady> {
    let deadline = Instant::now().checked_add(within);
    let instance = &instances[at];
    let waiting = Waiting { instance, company: instances, cancel, deadline };
    if let Ready::Log(text) = ready {
        return match waiting.until(&[(instance.said().event(), PollFlags::IN)], None)? {
            Woken::Event => Ok(()),
            Woken::Time => Err(NotReady::TimedOut(format!("no line that it printed holds `{text}`"))),
        };
    }
    let mut pause = PAUSE_FIRST;
    let mut last = None;
    loop {
        let met = match waiting.attempt(ready)? {
            // On the network of the machine somebody else may have taken its port.
            Ok(()) if waiting.has_end() => return Err(NotReady::Ended),
            Ok(()) => return Ok(()),
            Err(met) => met,
        };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            // What cut this attempt short was the time itself.
            return Err(NotReady::TimedOut(last.unwrap_or(met)));
        }
        last = Some(met);
        waiting.until(&[], Instant::now().checked_add(pause))?;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether the command of a service had not ended when this was called. Cost: one question to its sandbox.
///
/// What was seen of its end so far does not tell: the news may be on its way. Once it is no, its end is known, or will never be.
pub fn is_alive(instance: &Instance) -> bool {
    if let Ok(asked) = instance.checks.sockets() {
        let patience = Timespec::try_from(ATTEMPT_MAX).ok();
        let mut fds = [PollFd::from_borrowed_fd(asked.event(), PollFlags::IN)];
        match rustix::io::retry_on_intr(|| poll(&mut fds, patience.as_ref())) {
            Ok(1..) if asked.answer().is_ok() => return true,
            Ok(1..) => {}
            // Stopped by somebody, perhaps: no use to anyone.
            Ok(0) | Err(_) => instance.stop(),
        }
    }
    instance.join();
    false
}

/// What ended a wait.
#[derive(PartialEq, Eq, Debug)]
enum Woken {
    /// What was waited for.
    Event,
    /// The time.
    Time,
}

struct Waiting<'a> {
    instance: &'a Instance,
    /// Those that are up with it, and itself.
    company: &'a [Instance],
    cancel: &'a Cancel,
    deadline: Option<Instant>,
}

impl Waiting<'_> {
    /// Whether one of them has ended.
    fn has_end(&self) -> bool {
        self.company.iter().any(|one| one.ended().is_cancelled())
    }

    /// Waits for one of these events, for a moment, or for all the time there is, whichever comes first.
    fn until(&self, events: &[(BorrowedFd<'_>, PollFlags)], moment: Option<Instant>) -> Result<Woken, NotReady> {
        let end = [self.deadline, moment].into_iter().flatten().min();
        loop {
            let mut fds = vec![PollFd::from_borrowed_fd(self.cancel.event(), PollFlags::IN)];
            let ends = self.company.iter().map(|one| PollFd::from_borrowed_fd(one.ended().event(), PollFlags::IN));
            fds.extend(ends);
            let wanted = fds.len();
            fds.extend(events.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)));
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            // Nothing was set if it was interrupted or failed: the time tells whether to go on.
            let _ = poll(&mut fds, timeout.as_ref());
            if self.cancel.is_cancelled() {
                return Err(NotReady::Cancelled);
            }
            if fds[wanted..].iter().any(|fd| !fd.revents().is_empty()) {
                return Ok(Woken::Event);
            }
            if self.has_end() {
                return Err(NotReady::Ended);
            }
            if left == Some(Duration::ZERO) {
                return Ok(Woken::Time);
            }
        }
    }

    /// Whether it is ready now; if not, what stood in the way.
    fn attempt(&self, ready: &Ready) -> Result<Result<(), String>, NotReady> {
        let moment = Instant::now().checked_add(ATTEMPT_MAX);
        match ready {
            Ready::Port(port) => Ok(self.connect(*port, moment)?.map(drop)),
            Ready::Http { host, port, path } => match self.connect(*port, moment)? {
                Ok(socket) => self.request(&socket, host, path, moment),
                Err(met) => Ok(Err(met)),
            },
            Ready::Run(Command::Shell(script)) => self.command(&["/bin/sh".into(), "-euc".into(), script.to_string()]),
            Ready::Run(Command::Exec(words)) => self.command(words),
            Ready::Run(Command::Image(_)) => unreachable!("BUG: an image tells nothing of a service"),
            Ready::Log(_) => unreachable!("BUG: what it prints is waited for, not asked about"),
        }
    }

    fn answer(&self, asked: Asked, moment: Option<Instant>) -> Result<Result<Answer, String>, NotReady> {
        match self.until(&[(asked.event(), PollFlags::IN)], moment)? {
            Woken::Event => Ok(asked.answer().map_err(|error| error.to_string())),
            Woken::Time => Ok(Err("its sandbox did not answer in time".into())),
        }
    }

    /// A connection to a port of its loopback interface.
    fn connect(&self, port: u16, moment: Option<Instant>) -> Result<Result<OwnedFd, String>, NotReady> {
        let asked = match self.instance.checks.sockets() {
            Ok(asked) => asked,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let sockets = match self.answer(asked, moment)? {
            Ok(Answer::Sockets(sockets)) => sockets,
            Ok(Answer::Refused(cause)) => return Ok(Err(cause)),
            Ok(Answer::Exited(_)) => return Ok(Err("its sandbox answered another question".into())),
            Err(met) => return Ok(Err(met)),
        };
        let mut first = None;
        for (socket, address) in sockets {
            match self.connect_to(&socket, address(port), moment)? {
                Ok(()) => return Ok(Ok(socket)),
                Err(met) => first = first.or(Some(met)),
            }
        }
        Ok(Err(first.unwrap_or_else(|| "its sandbox has no network".into())))
    }

    fn connect_to(
        &self,
        socket: &OwnedFd,
        address: SocketAddr,
        moment: Option<Instant>,
    ) -> Result<Result<(), String>, NotReady> {
        let met = |error: Errno| {
            let said = io::Error::from(error).to_string();
            let said = said.split(" (os error").next().unwrap_or(&said).to_lowercase();
            format!("connecting to port {}: {said}", address.port())
        };
        match rustix::net::connect(socket, &address) {
            Ok(()) => return Ok(Ok(())),
            Err(Errno::INPROGRESS) => {}
            Err(error) => return Ok(Err(met(error))),
        }
        if self.until(&[(socket.as_fd(), PollFlags::OUT)], moment)? == Woken::Time {
            return Ok(Err(met(Errno::TIMEDOUT)));
        }
        Ok(rustix::net::sockopt::socket_error(socket).and_then(|outcome| outcome).map_err(met))
    }

    /// Asks an address for its status.
    fn request(
        &self,
        socket: &OwnedFd,
        host: &str,
        path: &str,
        moment: Option<Instant>,
    ) -> Result<Result<(), String>, NotReady> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: drystone\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        let mut left = request.as_bytes();
        while !left.is_empty() {
            match rustix::net::send(socket, left, SendFlags::NOSIGNAL) {
                Ok(sent) => left = &left[sent..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if self.until(&[(socket.as_fd(), PollFlags::OUT)], moment)? == Woken::Time {
                        return Ok(Err(format!("{path} took no request within {}", human_duration(ATTEMPT_MAX))));
                    }
                }
                Err(error) => return Ok(Err(format!("asking for {path}: {}", io::Error::from(error)))),
            }
        }
        let mut answer = Vec::new();
        let mut buffer = [0; STATUS_BYTES_MAX];
        while !answer.contains(&b'\n') && answer.len() < STATUS_BYTES_MAX {
            match rustix::net::recv(socket, &mut buffer, RecvFlags::empty()) {
                Ok((0, _)) => break,
                Ok((count, _)) => answer.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if self.until(&[(socket.as_fd(), PollFlags::IN)], moment)? == Woken::Time {
                        return Ok(Err(format!("{path} did not answer within {}", human_duration(ATTEMPT_MAX))));
                    }
                }
                Err(error) => return Ok(Err(format!("asking for {path}: {}", io::Error::from(error)))),
            }
        }
        Ok(match status(&answer) {
            Some(200..=399) => Ok(()),
            Some(status) => Err(format!("{path} answered with status {status}")),
            None => Err(format!("{path} did not answer as a web server does")),
        })
    }

    /// Runs a command beside it; what it printed last tells why it failed.
    fn command(&self, argv: &[String]) -> Result<Result<(), String>, NotReady> {
        let asked = match self.instance.checks.command(argv) {
            Ok(asked) => asked,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mut said = Vec::new();
        let mut open = true;
        loop {
            let mut events = vec![(asked.event(), PollFlags::IN)];
            events.extend(asked.output().filter(|_| open).map(|output| (output, PollFlags::IN)));
            let woken = self.until(&events, None)?;
            open = open && asked.output().is_some_and(|output| drain(output, &mut said));
            if woken == Woken::Time {
                return Ok(Err(told("its check did not end", &said)));
            }
            if is_readable(asked.event()) {
                break;
            }
        }
        Ok(match asked.answer() {
            Ok(Answer::Exited(0)) => Ok(()),
            Ok(Answer::Exited(code)) => Err(told(&format!("its check ended with exit code {code}"), &said)),
            Ok(Answer::Refused(cause)) => Err(format!("its check could not be run: {cause}")),
            Ok(Answer::Sockets(_)) => Err("its sandbox answered another question".into()),
            Err(error) => Err(error.to_string()),
        })
    }
}

/// Reads what is there, keeping its end; whether more may come.
fn drain(output: BorrowedFd<'_>, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; SAID_BYTES_MAX];
    loop {
        match rustix::io::read(output, &mut buffer) {
            Ok(0) => return false,
            Ok(count) => {
                said.extend_from_slice(&buffer[..count]);
                said.drain(..said.len().saturating_sub(SAID_BYTES_MAX));
            }
            Err(Errno::INTR) => {}
            Err(error) => return error == Errno::AGAIN,
        }
    }
}

fn is_readable(event: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(event, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// A cause with the last line that was printed.
fn told(cause: &str, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    match said.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("{cause}: {}", line.trim()),
        None => cause.to_owned(),
    }
}

/// The status of an answer in HTTP/1.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok().filter(|status| (100..=999).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_off_the_first_line() {
        let check = |answer: &str, expect: Option<u16>| assert_eq!(status(answer.as_bytes()), expect, "{answer:?}");
        check("HTTP/1.0 200 OK\r\nServer: x", Some(200));
        check("HTTP/1.1 503\n", Some(503));
        check("SSH-2.0-x 200", None);
        check("HTTP/1.1 x", None);
        check("", None);
    }
}
