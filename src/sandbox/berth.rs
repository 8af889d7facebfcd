//! Launchers that live in a control group of their own, each for one command at a time. Knows no view and carries no output.
//!
//! To move a process into a group the kernel waits for word of every processor, which takes some milliseconds, and to make a group and
//! remove it takes almost one. Whoever is forked in a group is in it from the start. So a launcher is moved once, and its group serves
//! one command after another: what it counts is compared with what it had counted before, and it is not given to the next command
//! before everybody of the last one is gone from it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::fs::witness::unheard;
use crate::sandbox::group::{Group, Groups};
use crate::sandbox::open::Connection;
use crate::sandbox::spec::{Limits, Network};

/// The launcher, which is always in the group.
const LAUNCHER: u32 = 1;
/// The launcher and the init, neither of which is the command's.
const ATTENDANTS: u32 = LAUNCHER + 1;

/// The network of commands that are only likely to come.
const EXPECTED: Network = Network::Loopback;

/// A launcher in its group. Fields drop in order: a group is removed when nobody is left in it.
pub struct Berth {
    /// To the launcher.
    pub connection: Arc<Connection>,
    /// Where it is.
    pub group: Group,
    /// Which network its commands have. A launcher that has left the host's network does not come back.
    pub network: Network,
}

/// Those that no command is in.
#[derive(Default)]
pub struct Berths {
    quay: Arc<Quay>,
}

/// What is shared with the threads that make some.
#[derive(Default)]
struct Quay {
    moored: Mutex<Moored>,
    /// Tells that one has come, or will not.
    arrived: Condvar,
    /// One could not be made, so no other is tried.
    is_refused: AtomicBool,
}

#[derive(Default)]
struct Moored {
    idle: Vec<Berth>,
    /// How many are being made for whoever comes first.
    coming: usize,
    /// How many wait for one of those.
    waiting: usize,
}

impl Quay {
    fn moored(&self) -> MutexGuard<'_, Moored> {
        self.moored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that is being made; when dropped it has come, or it never will.
struct Coming {
    quay: Arc<Quay>,
    berth: Option<Berth>,
}

impl Drop for Coming {
    fn drop(&mut self) {
        let mut moored = self.quay.moored();
        moored.coming -= 1;
        moored.idle.extend(self.berth.take());
        self.quay.arrived.notify_all();
    }
}

impl Drop for Berths {
    /// A launcher that is just being started would outlive its group's name.
    fn drop(&mut self) {
        let mut moored = self.quay.moored();
        while moored.coming > 0 {
            moored = self.quay.arrived.wait(moored).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Berths {
    /// One that is ready for a command with these limits and this network; `None` where there can be none: the command must join groups itself then.
    ///
    /// Cost: three small reads and writes where one is idle, else the start of a launcher and some milliseconds.
    pub fn take(&self, limits: &Limits, network: Network, program: &Path) -> Option<Berth> {
        if limits.memory_bytes.is_some() {
            return None;
        }
        let processes = limits.processes.saturating_add(ATTENDANTS);
        let mut moored = self.quay.moored();
        loop {
            moored.idle.retain(|berth| berth.connection.is_running());
            // Last come, last served: whoever ran in the first one has had most time to go.
            let ready = moored
                .idle
                .iter_mut()
                .position(|berth| berth.network == network && berth.group.renew(LAUNCHER, processes).unwrap_or(false));
            if let Some(position) = ready {
                return Some(moored.idle.remove(position));
            }
            // One for each that waits, or it is quicker to make another.
            if network != EXPECTED || moored.waiting >= moored.coming {
                break;
            }
            moored.waiting += 1;
            moored = self.quay.arrived.wait(moored).unwrap_or_else(PoisonError::into_inner);
            moored.waiting -= 1;
        }
        drop(moored);
        if self.quay.is_refused.load(Ordering::Relaxed) {
            return None;
        }
        let made = make(limits, processes, network, program);
        self.quay.is_refused.fetch_or(made.is_none(), Ordering::Relaxed);
        made
    }

    /// Makes so many, each on a thread of its own, for commands that are likely to come. To move a launcher into its group is nothing but
    /// a wait, which passes while others work.
    pub fn expect(&self, count: usize, program: &Path) {
        for _ in 0..count {
            self.quay.moored().coming += 1;
            let mut coming = Coming { quay: Arc::clone(&self.quay), berth: None };
            let program = program.to_owned();
            let thread = std::thread::Builder::new().name("berth".into()).spawn(move || {
                let limits = Limits::default();
                // Somebody may listen by then, to what a workspace is loaded from.
                coming.berth =
                    unheard(|| make(&limits, limits.processes.saturating_add(ATTENDANTS), EXPECTED, &program));
                coming.quay.is_refused.fetch_or(coming.berth.is_none(), Ordering::Relaxed);
            });
            // Without the thread, what it was given is dropped: whoever comes makes their own.
            if thread.is_err() {
                return;
            }
        }
    }

    /// Takes one back; the command, or what is left of it, may still be in it.
    pub fn give_back(&self, berth: Berth) {
        self.quay.moored().idle.push(berth);
    }
}

fn make(limits: &Limits, processes: u32, network: Network, program: &Path) -> Option<Berth> {
    let mut group = Groups::ours().make_to_stay(limits)?;
    let connection = Arc::new(Connection::start(program).ok()?);
    group.take_in(connection.launcher()).ok()?;
    let is_ready = group.renew(LAUNCHER, processes).unwrap_or(false);
    is_ready.then_some(Berth { connection, group, network })
}
