//! What the engine asks the init of a running command, to learn whether it is ready: sockets of its network, and commands beside it.
//!
//! Each question brings a socket for its one answer; the answer may take as long as the question. Decides nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;

use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::sandbox::start::{self, Bounds, Command, Started};
use crate::sandbox::surroundings::Surroundings;
use crate::sandbox::wire::{self, Report, Status};

/// A socket with message boundaries, both ends.
pub(super) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// The engine's end: asks about one command. Its other end goes with the command.
#[derive(Debug)]
pub struct Checks {
    socket: OwnedFd,
}

/// The end that goes with the command.
#[derive(Debug)]
pub struct Checked(pub(super) OwnedFd);

/// A port of the loopback interface as an address of one family.
pub type Loopback = fn(u16) -> SocketAddr;

/// A question that was asked.
#[derive(Debug)]
pub struct Asked {
    answer: OwnedFd,
    /// What a command beside it prints, both streams; it does not block. None for sockets.
    output: Option<OwnedFd>,
}

/// What came back.
#[derive(Debug)]
pub enum Answer {
    /// Sockets of its network, not yet connected and not blocking, each with the loopback address it can reach.
    Sockets(Vec<(OwnedFd, Loopback)>),
    /// A command beside it exited with this code; by a signal, with 128 and its number.
    Exited(i32),
    /// It could not be done.
    Refused(String),
}

impl Checks {
    /// A new pair of ends.
    pub fn new() -> io::Result<(Self, Checked)> {
        let (socket, theirs) = socket_pair()?;
        Ok((Self { socket }, Checked(theirs)))
    }

    /// Asks for a socket of each address family.
    pub fn sockets(&self) -> io::Result<Asked> {
        let (answer, theirs) = socket_pair()?;
        wire::send(&self.socket, &encode(None), &[theirs.as_fd()])?;
        Ok(Asked { answer, output: None })
    }

    /// Asks for a command to be run where the checked one runs, with its environment and in its directory.
    pub fn command(&self, argv: &[String]) -> io::Result<Asked> {
        let (answer, theirs) = socket_pair()?;
        let (output, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&output, true)?;
        wire::send(&self.socket, &encode(Some(argv)), &[theirs.as_fd(), writer.as_fd()])?;
        Ok(Asked { answer, output: Some(output) })
    }
}

impl Asked {
    /// Readable once the answer is there, or will never come.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.answer.as_fd()
    }

    /// What the command prints; reading it until it would block keeps the command from waiting.
    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    /// Takes the answer, waiting for it.
    pub fn answer(self) -> io::Result<Answer> {
        let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "nobody is there to answer");
        let (bytes, descriptors) = wire::receive(&self.answer)?.ok_or_else(gone)?;
        Ok(match Report::decode(&bytes).map_err(io::Error::other)? {
            Report::Failed(failure) => Answer::Refused(format!("{}: {}", failure.step, failure.cause)),
            Report::CannotStart { cause } => Answer::Refused(cause),
            Report::Ended { status, .. } if self.output.is_some() => Answer::Exited(match status {
                Status::Code(code) => code,
                Status::Signal(signal) => 128 + signal,
            }),
            Report::Ended { .. } => Answer::Sockets(descriptors.into_iter().zip(LOOPBACKS).collect()),
        })
    }
}

/// In the order in which their sockets are handed over.
const LOOPBACKS: [Loopback; 2] =
    [|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)), |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port))];

/// A question: sockets, or a command.
fn encode(argv: Option<&[String]>) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.u64(argv.map_or(0, |argv| argv.len() as u64));
    for argument in argv.into_iter().flatten() {
        encoder.bytes(argument.as_bytes());
    }
    encoder.into_vec()
}

fn decode(bytes: &[u8]) -> Result<Vec<String>, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let argv = (0..decoder.u64()?).map(|_| Ok(decoder.text("argument")?.to_owned())).collect::<Result<_, _>>()?;
    decoder.finish()?;
    Ok(argv)
}

/// The init's end: answers until nobody asks any more.
pub(super) struct Checking {
    questions: Option<OwnedFd>,
    env: BTreeMap<String, String>,
    cwd: PathBuf,
    bounds: Rc<Bounds>,
    running: Vec<(Pid, OwnedFd)>,
}

impl Checking {
    /// Answers what comes by a socket, if there is one, about this command.
    pub(super) fn new(questions: Option<OwnedFd>, command: &Command, bounds: &Rc<Bounds>) -> Self {
        let (env, cwd, bounds) = (command.env.clone(), command.cwd.clone(), Rc::clone(bounds));
        Self { questions, env, cwd, bounds, running: Vec::new() }
    }

    /// Readable when something was asked, or nobody will ask again.
    pub(super) fn event(&self) -> Option<BorrowedFd<'_>> {
        self.questions.as_ref().map(AsFd::as_fd)
    }

    /// Takes one question; the process it started, if any.
    pub(super) fn take(&mut self) -> Option<Pid> {
        let received = self.questions.as_ref().and_then(|questions| wire::receive(questions).ok().flatten());
        let Some((bytes, descriptors)) = received else {
            self.questions = None;
            return None;
        };
        let mut descriptors = descriptors.into_iter();
        let (Some(answer), Ok(argv)) = (descriptors.next(), decode(&bytes)) else { return None };
        match descriptors.next() {
            None => {
                hand_over_sockets(&answer);
                None
            }
            Some(output) => self.start(argv, answer, output),
        }
    }

    fn start(&mut self, argv: Vec<String>, answer: OwnedFd, output: OwnedFd) -> Option<Pid> {
        let started =
            output.try_clone().map_err(|error| wire::Failure::new("starting a check", error)).and_then(|both| {
                let command =
                    Command { argv, env: self.env.clone(), cwd: self.cwd.clone(), around: Surroundings::default() };
                start::start_beside(command, &self.bounds, (output, both)).map(|(started, _)| started)
            });
        let report = match started {
            Ok(Started::Running(pid)) => {
                self.running.push((pid, answer));
                return Some(pid);
            }
            Ok(Started::Not { cause }) => Report::CannotStart { cause },
            Err(failure) => Report::Failed(failure),
        };
        tell(&answer, &report, &[]);
        None
    }

    /// Answers for a process that has ended, if it was started by a question.
    pub(super) fn ended(&mut self, pid: Pid, status: Status) {
        if let Some(at) = self.running.iter().position(|(running, _)| *running == pid) {
            let (_, answer) = self.running.swap_remove(at);
            tell(&answer, &Report::nothing_of(status), &[]);
        }
    }
}

fn hand_over_sockets(answer: &OwnedFd) {
    let socket = |family| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(family, SocketType::STREAM, flags, None)
    };
    let sockets: Result<Vec<OwnedFd>, Errno> = match (socket(AddressFamily::INET), socket(AddressFamily::INET6)) {
        (Ok(four), Ok(six)) => Ok(vec![four, six]),
        // A machine may be without the newer one, never without the older.
        (Ok(four), Err(_)) => Ok(vec![four]),
        (Err(error), _) => Err(error),
    };
    match sockets {
        Ok(sockets) => {
            let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
            tell(answer, &Report::nothing_of(Status::Code(0)), &descriptors);
        }
        Err(error) => tell(answer, &Report::Failed(wire::Failure::new("opening a socket", error)), &[]),
    }
}

/// Whoever asked may be gone: then nobody needs to know.
fn tell(answer: &OwnedFd, report: &Report, descriptors: &[BorrowedFd<'_>]) {
    drop(wire::send(answer, &report.encode(), descriptors));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_arrive_as_they_were_asked() {
        let argv = vec!["pg_isready".to_owned(), String::new()];
        assert_eq!(decode(&encode(Some(&argv))), Ok(argv));
        assert_eq!(decode(&encode(None)), Ok(Vec::new()));
        assert!(decode(&[1]).is_err());
    }
}
