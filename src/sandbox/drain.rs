//! Asking whoever carries the output of a running command to take what waits in its pipes. Carries nothing itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::EventfdFlags;

/// A request that can be made any number of times; shared by clones.
#[derive(Clone, Debug)]
pub struct Drain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    event: OwnedFd,
    rounds: Mutex<Rounds>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    asked: u64,
    done: u64,
    over: bool,
}

impl Drain {
    /// Fails only when the process or the system is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { event, rounds: Mutex::default(), changed: Condvar::new() })))
    }

    /// Waits until everything that was written before is taken, or nobody takes anything any more, or the time is up.
    pub fn wait(&self, within: Duration) {
        let mut rounds = self.rounds();
        rounds.asked += 1;
        let wanted = rounds.asked;
        // A counter of requests that were not seen is far from full.
        let _ = rustix::io::write(&self.0.event, &1_u64.to_ne_bytes());
        let open = |rounds: &mut Rounds| !rounds.over && rounds.done < wanted;
        drop(self.0.changed.wait_timeout_while(rounds, within, open).unwrap_or_else(PoisonError::into_inner));
    }

    /// Nothing is taken any more.
    pub fn over(&self) {
        self.rounds().over = true;
        self.0.changed.notify_all();
    }

    /// Readable while somebody asks.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }

    /// Takes the requests made so far, by the last of them, if any is new; what is taken from the pipes from now on answers them.
    pub(super) fn asked(&self) -> Option<u64> {
        let rounds = self.rounds();
        if rounds.asked == rounds.done {
            return None;
        }
        let mut count = [0; 8];
        // The number of requests is known: reading only makes the event quiet.
        let _ = rustix::io::read(&self.0.event, &mut count);
        Some(rounds.asked)
    }

    /// Answers requests up to this one.
    pub(super) fn done(&self, asked: u64) {
        self.rounds().done = asked;
        self.0.changed.notify_all();
    }

    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        self.0.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
