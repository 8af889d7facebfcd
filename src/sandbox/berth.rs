//! Launchers that live in a control group of their own, each for one command at a time. Knows no view and carries no output.
//!
//! To move a process into a group the kernel waits for word of every processor, which takes some milliseconds, and to make a group and
//! remove it takes almost one. Whoever is forked in a group is in it from the start. So a launcher is moved once, and its group serves
//! one command after another: what it counts is compared with what it had counted before, and it is not given to the next command
//! before everybody of the last one is gone from it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::sandbox::group::{Group, Groups};
use crate::sandbox::open::Connection;
use crate::sandbox::spec::{Limits, Network};

/// The launcher, which is always in the group.
const LAUNCHER: u32 = 1;
/// The launcher and the init, neither of which is the command's.
const ATTENDANTS: u32 = LAUNCHER + 1;

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
    idle: Mutex<Vec<Berth>>,
    /// One could not be made, so no other is tried.
    is_refused: AtomicBool,
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
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|berth| berth.connection.is_running());
            // Last come, last served: whoever ran in the first one has had most time to go.
            let ready = idle
                .iter_mut()
                .position(|berth| berth.network == network && berth.group.renew(LAUNCHER, processes).unwrap_or(false));
            if let Some(position) = ready {
                return Some(idle.remove(position));
            }
        }
        if self.is_refused.load(Ordering::Relaxed) {
            return None;
        }
        let made = make(limits, processes, network, program);
        self.is_refused.fetch_or(made.is_none(), Ordering::Relaxed);
        made
    }

    /// Takes one back; the command, or what is left of it, may still be in it.
    pub fn give_back(&self, berth: Berth) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(berth);
    }
}

fn make(limits: &Limits, processes: u32, network: Network, program: &Path) -> Option<Berth> {
    let mut group = Groups::ours().make_to_stay(limits)?;
    let connection = Arc::new(Connection::start(program).ok()?);
    group.take_in(connection.launcher()).ok()?;
    let is_ready = group.renew(LAUNCHER, processes).unwrap_or(false);
    is_ready.then_some(Berth { connection, group, network })
}
