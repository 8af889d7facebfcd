//! A net namespace that serves the commands of one launcher, one after another, as long as none has left a trace in it. Knows no commands.
//!
//! To make a net namespace and to take it down costs more than anything else that a sandbox is made of. One in which nothing was ever
//! sent, and in which no socket is left, is as good as new. That is not believed of a command but seen: all that the kernel counts of the
//! namespace is compared with what it counted when that was new. So a command finds no packets, no connections that linger, no ports that
//! are still taken, and not even a failed attempt of another. What else can be changed in a namespace takes power over it, which no
//! command has: it belongs to a user namespace above theirs, which the launcher is in.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::fs::ops;
use crate::sandbox::kernel;
use crate::sandbox::pod;
use crate::sandbox::wire::{Failure, NAMESPACES_STEP, Owner};

/// The namespace of this process.
pub(super) struct QuietNetwork {
    traces: Option<Traces>,
}

impl QuietNetwork {
    /// Leaves the network that this process is in, for good, and makes it the owner of another: of an empty loopback interface that is up.
    ///
    /// `None` if it may not, as where one user namespace above those of commands is one too many; then all is as it was.
    pub fn enter(owner: Owner) -> Result<Option<Self>, Failure> {
        if kernel::own_user_and_network().is_err() {
            return Ok(None);
        }
        pod::keep_ids(owner)?;
        Self::ready().map(Some)
    }

    /// Sees to it that the network is as new. Whoever used it must be gone.
    ///
    /// Cost: six reads of `/proc`, about 60 µs; a new namespace if anything was left behind.
    pub fn renew(&mut self) -> Result<(), Failure> {
        if self.traces.as_ref().is_some_and(Traces::are_none) {
            return Ok(());
        }
        // The old one must not be held while the new one is made: nothing else keeps it.
        self.traces = None;
        kernel::own_network().map_err(|error| Failure::new(NAMESPACES_STEP, error))?;
        *self = Self::ready()?;
        Ok(())
    }

    fn ready() -> Result<Self, Failure> {
        kernel::loopback_up().map_err(|error| Failure::new("bringing up the loopback interface", error))?;
        Ok(Self { traces: Traces::at_first() })
    }
}

/// Files of `/proc/self/net` that tell of use: packets of each interface, what each protocol did and failed to do.
const COUNTERS: [&str; 3] = ["dev", "snmp", "netstat"];
/// The same where there is IPv6: what it did, and labels that outlive their sockets.
const COUNTERS_6: [&str; 2] = ["snmp6", "ip6_flowlabel"];
/// How many sockets there are, of all families; the rest of it speaks of the whole machine.
const SOCKETS: &str = "sockstat";
/// What its first line says of none.
const NO_SOCKETS: &[u8] = b"sockets: used 0\n";

/// What can be seen of the use of a net namespace.
struct Traces {
    sockets: OwnedFd,
    counters: Vec<(OwnedFd, Vec<u8>)>,
}

impl Traces {
    /// Of a new namespace; `None` where not all can be seen.
    fn at_first() -> Option<Self> {
        let counter = |name: &str| {
            let file = open(name)?;
            let text = read(&file)?;
            Some((file, text))
        };
        let mut counters = COUNTERS.into_iter().map(counter).collect::<Option<Vec<_>>>()?;
        if ops::exists(&path(COUNTERS_6[0])) {
            counters.extend(COUNTERS_6.into_iter().map(counter).collect::<Option<Vec<_>>>()?);
        }
        let traces = Self { sockets: open(SOCKETS)?, counters };
        traces.are_none().then_some(traces)
    }

    /// Whether all is as it was at first.
    fn are_none(&self) -> bool {
        read(&self.sockets).is_some_and(|text| text.starts_with(NO_SOCKETS))
            && self.counters.iter().all(|(file, first)| read(file).as_ref() == Some(first))
    }
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new("/proc/self/net").join(name)
}

fn open(name: &str) -> Option<OwnedFd> {
    ops::open(&path(name)).ok().map(OwnedFd::from)
}

/// All of a file that is made as it is read, from its start.
fn read(file: &OwnedFd) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(TEXT_BYTES);
    loop {
        let at = text.len() as u64;
        text.reserve(TEXT_BYTES / 4);
        match rustix::io::retry_on_intr(|| rustix::io::pread(file, rustix::buffer::spare_capacity(&mut text), at)) {
            Ok(0) => return Some(text),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// More than any of them has.
const TEXT_BYTES: usize = 16 * 1024;
