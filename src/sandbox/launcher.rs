//! The process that forks an init for each command, and how a program becomes it. Builds no view, reads no job.
//!
//! It exists because a fork costs what the heap costs: the engine's may have gigabytes, this one has next to nothing. It is started
//! by `posix_spawn`, has one thread, and ends when the engine is gone and its last init has finished.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::WaitOptions;

use crate::fs::ops;
use crate::sandbox::canary;
use crate::sandbox::init::{self, Job};
use crate::sandbox::kernel::{self, Side};
use crate::sandbox::namespaces::Loopback;
use crate::sandbox::pod::{self, PodEnds};
use crate::sandbox::quiet::QuietNetwork;
use crate::sandbox::spec::{Level, Network};
use crate::sandbox::wire::{self, Failure, NAMESPACES_STEP, Owner, Purpose, Report, Request, Status};

/// The argument that makes a program the launcher.
pub const ARGUMENT: &str = "__launcher";

/// Becomes the launcher, or a canary, if this process was started as one, else returns. Must come before anything starts a thread.
pub fn main_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(first), None) if first == ARGUMENT => launcher_main(),
        (Some(first), None) if first == canary::ARGUMENT => canary::main(),
        _ => {}
    }
}

/// Serves requests that arrive on the socket at standard input until the engine is gone; never returns.
pub fn launcher_main() -> ! {
    let code = match Launcher::at_stdin().and_then(|launcher| launcher.serve()) {
        Ok(()) => 0,
        // Nobody reads what this process says; the engine sees that it is gone.
        Err(_) => 1,
    };
    kernel::exit_now(code)
}

struct Launcher {
    requests: OwnedFd,
    /// Inits hold the reading end: it hangs up when this process is gone, whatever ended it.
    alive: OwnedFd,
    lifeline: OwnedFd,
    owner: Owner,
    network: OwnNetwork,
}

/// The network of this process.
enum OwnNetwork {
    /// That of whoever started it.
    NotYet,
    /// It may have none of its own.
    Refused,
    /// One that commands find themselves in.
    Quiet(QuietNetwork),
}

impl Launcher {
    fn at_stdin() -> io::Result<Self> {
        let requests = io::stdin().as_fd().try_clone_to_owned()?;
        let nothing = ops::open("/dev/null".as_ref()).map_err(|error| error.cause)?;
        rustix::stdio::dup2_stdin(&nothing)?;
        // Away from the terminal: Ctrl-C reaches the engine alone, which then stops what runs in order.
        // Refused only to the leader of a group, which is away already.
        let _ = rustix::process::setsid();
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE] {
            kernel::ignore(signal);
        }
        // The kernel then buries the inits; what they have to say comes by their own sockets.
        kernel::ignore(libc::SIGCHLD);
        let (lifeline, alive) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let owner = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        Ok(Self { requests, alive, lifeline, owner, network: OwnNetwork::NotYet })
    }

    /// Sees to the network of a command. The only one of its launcher finds itself in the launcher's own, which then is as new.
    fn loopback(&mut self, request: Request) -> Result<Loopback, Failure> {
        if request.level != Level::Namespaces || request.network != Network::Loopback {
            return Ok(Loopback::Ready);
        }
        if !request.company.berth {
            return Ok(Loopback::New);
        }
        match &mut self.network {
            OwnNetwork::Quiet(network) => network.renew()?,
            OwnNetwork::Refused => return Ok(Loopback::New),
            OwnNetwork::NotYet => match QuietNetwork::enter(self.owner)? {
                Some(network) => self.network = OwnNetwork::Quiet(network),
                None => {
                    self.network = OwnNetwork::Refused;
                    return Ok(Loopback::New);
                }
            },
        }
        Ok(Loopback::Ready)
    }

    fn serve(mut self) -> io::Result<()> {
        while let Some((bytes, descriptors)) = wire::receive(&self.requests)? {
            let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed request");
            let request = Request::decode(&bytes).map_err(|_| malformed())?;
            let given = Given::of(request, descriptors).ok_or_else(malformed)?;
            let loopback = match self.loopback(request) {
                Ok(loopback) => loopback,
                Err(failure) => {
                    // As below.
                    drop(wire::send(&given.control, &Report::Failed(failure).encode(), &[]));
                    continue;
                }
            };
            let forked = match (request.purpose, given.job.as_ref(), &given.pod) {
                (Purpose::Answer, ..) => {
                    // As below: if the engine has gone meanwhile, the next receive says so.
                    drop(wire::send(&given.control, &Report::nothing_of(Status::Code(0)).encode(), &[]));
                    continue;
                }
                (Purpose::Pod, ..) => kernel::clone_into(pod::NAMESPACES),
                (_, Some(_), Some(ends)) => pod::clone_beneath(ends, namespaces(request, loopback)),
                (_, _, _) => kernel::clone_into(namespaces(request, loopback)),
            };
            match forked {
                Ok(Side::Parent(_)) => {}
                Ok(Side::Child) => {
                    let Self { requests, alive, lifeline, owner, network } = self;
                    drop((requests, alive, network));
                    match given.job {
                        None => pod::found(&given.control, owner),
                        Some([spec, stdout, stderr]) => {
                            let Given { control, checks, groups, .. } = given;
                            init::main(Job {
                                request,
                                loopback,
                                spec,
                                stdout,
                                stderr,
                                control,
                                checks,
                                groups,
                                lifeline,
                                owner,
                            })
                        }
                    }
                }
                Err(error) => {
                    let report = Report::Failed(Failure::new(NAMESPACES_STEP, error));
                    // If the engine has gone meanwhile, the next receive says so.
                    drop(wire::send(&given.control, &report.encode(), &[]));
                }
            }
        }
        // With SIGCHLD ignored this returns once the last init is gone: they see the engine's end themselves and stop
        // their commands in order, which our own end would cut short.
        while rustix::process::wait(WaitOptions::empty()).is_ok() {}
        Ok(())
    }
}

/// The descriptors of a request by what they are.
struct Given {
    control: OwnedFd,
    /// Job, standard output, standard error: whoever runs something has them.
    job: Option<[OwnedFd; 3]>,
    checks: Option<OwnedFd>,
    pod: Option<PodEnds>,
    groups: Vec<OwnedFd>,
}

impl Given {
    /// Control first, then what the request says; `None` if it says something else.
    fn of(request: Request, descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut rest = descriptors.into_iter();
        let control = rest.next()?;
        let job = match request.purpose {
            Purpose::Answer | Purpose::Pod => None,
            Purpose::Run | Purpose::Probe => Some([rest.next()?, rest.next()?, rest.next()?]),
        };
        let checks = if request.company.checks { Some(rest.next()?) } else { None };
        let pod = if request.company.pod { Some(PodEnds { user: rest.next()?, net: rest.next()? }) } else { None };
        let groups: Vec<OwnedFd> = rest.collect();
        (groups.len() == usize::from(request.company.groups)).then_some(Self { control, job, checks, pod, groups })
    }
}

fn namespaces(request: Request, loopback: Loopback) -> libc::c_int {
    if request.level != Level::Namespaces {
        return 0;
    }
    let network = match loopback {
        Loopback::New => libc::CLONE_NEWNET,
        Loopback::Ready => 0,
    };
    network
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWCGROUP
}
