//! Waiting for what cannot be interrupted, so that an interrupt still ends the run. Starts no process.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::base::digest::Digest;
use crate::engine::ages;
use crate::engine::session::Session;
use crate::fs::lock::Lock;
use crate::fs::ops::FsError;
use crate::process::cancel::Cancel;
use crate::store::{ActionLock, CacheDir, StoreError};

/// Runs `work` on a thread of its own and waits for it or for the cancellation; `None` if that comes first.
///
/// The thread is then left behind: it ends with the program, or by itself.
pub fn unless_cancelled<T: Send + 'static>(cancel: &Cancel, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = channel();
    let Ok(done) = eventfd(0, EventfdFlags::CLOEXEC) else { return Some(work()) };
    let done = Arc::new(done);
    let tell = Arc::clone(&done);
    let thread = std::thread::Builder::new().name("wait".into()).spawn(move || {
        // The receiver is gone if the run was cancelled; nobody needs the value then.
        drop(sender.send(work()));
        let _ = rustix::io::write(&*tell, &1_u64.to_ne_bytes());
    });
    if thread.is_err() {
        return None;
    }
    wait_for_either(cancel, &done);
    if cancel.is_cancelled() { None } else { receiver.recv().ok() }
}

/// Works on a thread of its own, of no rayon pool, and waits for it without taking up other work.
///
/// A thread of a rayon pool that waits for others of it, or of another pool, runs further jobs meanwhile. A job that holds a lock and
/// begins a second one on its stack may wait for itself: two images with one layer in common do.
///
/// # Errors
/// If the system gives no thread.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("apart".into()).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Waits for so long; `false` as soon as the run is cancelled.
pub fn pause(cancel: &Cancel, time: Duration) -> bool {
    let until = Instant::now() + time;
    while !cancel.is_cancelled() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut event = [PollFd::from_borrowed_fd(cancel.event(), PollFlags::IN)];
        match poll(&mut event, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // It cannot be waited here.
            Err(_) => return true,
        }
    }
    false
}

fn wait_for_either(cancel: &Cancel, done: &OwnedFd) {
    loop {
        let mut either = [
            PollFd::from_borrowed_fd(cancel.event(), PollFlags::IN),
            PollFd::from_borrowed_fd(done.as_fd(), PollFlags::IN),
        ];
        match poll(&mut either, None) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// Locks an action, waiting while another process runs it; `None` if the run is cancelled meanwhile.
pub fn lock_action(session: &Session<'_>, action: &Digest) -> Result<Option<ActionLock>, StoreError> {
    if let Some(lock) = session.store.try_lock_action(action)? {
        return Ok(Some(lock));
    }
    let (store, action) = (Arc::clone(&session.store), *action);
    unless_cancelled(&session.cancel, move || store.lock_action(&action)).transpose()
}

/// Takes a cache, waiting while another task uses it; `None` if the run is cancelled meanwhile.
pub fn cache_dir(session: &Session<'_>, name: String) -> Result<Option<CacheDir>, StoreError> {
    if let Some(cache) = session.store.try_cache_dir(&name)? {
        return Ok(Some(cache));
    }
    let store = Arc::clone(&session.store);
    unless_cancelled(&session.cancel, move || store.cache_dir(&name)).transpose()
}

/// Locks what a task wrote in this worktree, waiting while somebody else writes; `None` if the run is cancelled meanwhile.
pub fn records(session: &Session<'_>, label: &str) -> Result<Option<Lock>, FsError> {
    let records = session.records.clone();
    if let Some(lock) = records.try_lock(label)? {
        return Ok(Some(lock));
    }
    let label = label.to_owned();
    unless_cancelled(&session.cancel, move || records.lock(&label)).transpose()
}

/// Locks the times of a task's inputs, waiting while another use goes on; `None` if the run is cancelled meanwhile.
pub fn ages(session: &Session<'_>, label: &str) -> Result<Option<Lock>, FsError> {
    if let Some(lock) = ages::attempt(&session.state_dir, label)? {
        return Ok(Some(lock));
    }
    let (state_dir, label) = (session.state_dir.clone(), label.to_owned());
    unless_cancelled(&session.cancel, move || ages::wait(&state_dir, &label)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_left_behind_when_the_run_is_cancelled() {
        let cancel = Cancel::new().expect("an event");
        assert_eq!(unless_cancelled(&cancel, || 7), Some(7));
        let (_keep, never) = channel::<()>();
        let canceller = cancel.clone();
        let thread = std::thread::spawn(move || canceller.cancel());
        assert_eq!(unless_cancelled(&cancel, move || never.recv().is_ok()), None);
        thread.join().expect("it ends");
    }
    #[test]
    fn a_pause_ends_when_its_time_is_up_or_the_run_is_cancelled() {
        let cancel = Cancel::new().expect("an event");
        let started = Instant::now();
        assert!(pause(&cancel, Duration::from_millis(20)));
        assert!(started.elapsed() >= Duration::from_millis(20));
        let canceller = cancel.clone();
        let thread = std::thread::spawn(move || canceller.cancel());
        assert!(!pause(&cancel, Duration::from_secs(3600)));
        thread.join().expect("it ends");
    }
}
