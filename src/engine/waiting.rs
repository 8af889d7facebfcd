//! Waiting for what cannot be interrupted, so that an interrupt still ends the run. Starts no process.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::channel;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

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
}
