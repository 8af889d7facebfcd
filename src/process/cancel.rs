//! A flag that wakes everybody who polls for it. Knows not who sets it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};

/// A request to stop, shared by clones; once made it stays.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cancelled: AtomicBool,
    event: OwnedFd,
}

impl Cancel {
    /// Makes one that nobody has set. Fails only when the process or the system is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { cancelled: AtomicBool::new(false), event })))
    }

    /// Asks everything that holds a clone to stop, and wakes it. Asking again changes nothing.
    pub fn cancel(&self) {
        if !self.0.cancelled.swap(true, Ordering::SeqCst) {
            // An event counter that goes from 0 to 1 cannot be full.
            let _ = rustix::io::write(&self.0.event, &1_u64.to_ne_bytes());
        }
    }

    /// Whether it was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Waits for the request, at most so long; whether it has come.
    pub fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now().checked_add(limit);
        while !self.is_cancelled() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::from_borrowed_fd(self.event(), PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Nothing can be waited for: not waiting at all is better than never to end.
                Err(_) => break,
            }
        }
        self.is_cancelled()
    }

    /// Readable from the request on, for ever: poll it, never read it.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_wakes_every_clone_and_stays() {
        let cancel = Cancel::new().expect("an event descriptor");
        let clone = cancel.clone();
        let ready = |cancel: &Cancel| {
            let mut fds = [PollFd::from_borrowed_fd(cancel.event(), PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll works")
        };
        assert_eq!((ready(&clone), clone.is_cancelled()), (0, false));
        cancel.cancel();
        cancel.cancel();
        assert_eq!((ready(&clone), ready(&clone), clone.is_cancelled()), (1, 1, true));
    }

    #[test]
    fn a_wait_ends_with_its_limit_or_with_the_request() {
        let cancel = Cancel::new().expect("an event descriptor");
        assert!(!cancel.wait(Duration::from_millis(1)));
        let (clone, hour) = (cancel.clone(), Duration::from_secs(3600));
        let waiter = std::thread::spawn(move || clone.wait(hour));
        cancel.cancel();
        assert!(waiter.join().expect("it ends") && cancel.wait(hour));
    }
}
