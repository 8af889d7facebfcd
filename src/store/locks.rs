//! The three ways in which processes keep out of each other's way: leases, the gate, and action locks. Knows no rows.
//!
//! **Lease.** Every open store holds a file in `locks/leases` under `flock` that tells when its session began. Collection
//! keeps everything put or used since the oldest live lease began. A file lock and not a process id, since it survives
//! neither a crash nor a reboot and means the same in every container.
//!
//! **Gate.** A lease protects what the database knows to be used, and rows are written in the background. So whoever puts
//! or looks something up passes the gate (shared) *before* looking whether it is there, and stays until the writer has
//! committed the use. Collection takes the gate exclusively: while it holds it, no use is unwritten anywhere. A second
//! lock, the turn, is taken first by both sides, so that busy processes cannot keep collection out for ever.
//!
//! **Action lock.** One file per action, removed by its last holder; an opener that waited on a removed file starts over
//! ([`lock::wait_named`]), so no two holders can hold two files of one name. Not sharded: a process holding
//! several actions could wait for itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::fs::lock::{self, Lock, Sharing};
use crate::fs::ops::{self, AtPath, FsError};
use crate::store::layout::Layout;

/// Locks a mutex whose holders leave it consistent even when they panic.
pub(super) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held while an action runs: no other process and no other thread runs it meanwhile.
#[derive(Debug)]
pub struct ActionLock {
    path: PathBuf,
    _lock: Lock,
}

impl ActionLock {
    pub(super) fn wait(path: PathBuf) -> Result<Self, FsError> {
        let lock = lock::wait_named(&path, Sharing::Exclusive)?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn attempt(path: PathBuf) -> Result<Option<Self>, FsError> {
        Ok(lock::attempt_named(&path, Sharing::Exclusive)?.map(|lock| Self { path, _lock: lock }))
    }
}

impl Drop for ActionLock {
    fn drop(&mut self) {
        // Before the lock goes, so that the name is never held by nobody. A name that stays costs nothing but itself.
        drop(ops::remove_file(&self.path));
    }
}

/// Removes lock files that crashed holders left behind.
pub(super) fn sweep_action_locks(layout: &Layout) -> Result<(), FsError> {
    for entry in ops::read_dir(&layout.action_locks())? {
        drop(ActionLock::attempt(layout.action_locks().join(entry.name))?);
    }
    Ok(())
}

/// This session's mark among the live ones.
#[derive(Debug)]
pub(super) struct Lease {
    name: String,
    path: PathBuf,
    lock: Lock,
    started_ms: AtomicI64,
    scratch: AtomicU64,
}

impl Lease {
    /// Starts a session. The caller has passed the gate.
    pub fn begin(layout: &Layout, now_ms: i64) -> Result<Self, FsError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{:x}.{:x}.{count:x}", std::process::id(), now_ms);
            let path = layout.leases().join(&name);
            // A name already in use belongs to a process of another pid namespace.
            let Some(lock) = lock::attempt_named(&path, Sharing::Exclusive)? else { continue };
            let lease = Self { name, path, lock, started_ms: AtomicI64::new(now_ms), scratch: AtomicU64::new(0) };
            lease.write(now_ms)?;
            return Ok(lease);
        }
    }

    /// When the session began, or was renewed.
    pub fn started_ms(&self) -> i64 {
        self.started_ms.load(Ordering::Acquire)
    }

    /// Declares that nothing used before `now_ms` is needed any more. The caller has passed the gate.
    pub fn renew(&self, now_ms: i64) -> Result<(), FsError> {
        self.write(now_ms)?;
        self.started_ms.store(now_ms, Ordering::Release);
        Ok(())
    }

    fn write(&self, now_ms: i64) -> Result<(), FsError> {
        use std::io::Seek;
        let mut file = self.lock.file();
        file.rewind().at("write", &self.path)?;
        // One write of fixed length: never seen half done.
        ops::write_all(file, &self.path, format!("{now_ms:020}").as_bytes())
    }

    /// A name in a scratch directory that tells whose it is.
    pub fn scratch_name(&self) -> String {
        format!("{}-{}", self.name, self.scratch.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(ops::remove_file(&self.path));
    }
}

/// Whether the owner of a scratch name is gone. A lease that cannot be examined counts as live.
pub(super) fn owner_is_gone(layout: &Layout, scratch_name: &str) -> bool {
    let Some((lease, _)) = scratch_name.rsplit_once('-') else { return true };
    let path = layout.leases().join(lease);
    if !ops::exists(&path) {
        return true;
    }
    match lock::attempt_named(&path, Sharing::Exclusive) {
        Ok(Some(_dead)) => {
            drop(ops::remove_file(&path));
            true
        }
        Ok(None) | Err(_) => false,
    }
}

/// When the oldest and the newest live session began, in milliseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LiveLeases {
    /// The oldest; [`i64::MAX`] if there is none.
    pub oldest_ms: i64,
    /// The newest; [`i64::MIN`] if there is none.
    pub newest_ms: i64,
}

/// Looks at all leases; removes the marks of dead ones. The caller holds the gate exclusively.
///
/// A lease that cannot be read protects everything: it is as old and as new as can be.
pub(super) fn live_leases(layout: &Layout) -> Result<LiveLeases, FsError> {
    let mut live = LiveLeases { oldest_ms: i64::MAX, newest_ms: i64::MIN };
    for entry in ops::read_dir(&layout.leases())? {
        let path = layout.leases().join(&entry.name);
        if let Some(_dead) = lock::attempt_named(&path, Sharing::Exclusive)? {
            ops::remove_file(&path)?;
            continue;
        }
        let bytes = ops::if_there(ops::read(&path))?.unwrap_or_default();
        let started_ms: Option<i64> = String::from_utf8_lossy(&bytes).trim().parse().ok();
        live.oldest_ms = live.oldest_ms.min(started_ms.unwrap_or(i64::MIN));
        live.newest_ms = live.newest_ms.max(started_ms.unwrap_or(i64::MAX));
    }
    Ok(live)
}

/// The gate between uses and collection, one per open store.
#[derive(Debug)]
pub(super) struct Gate {
    gate: PathBuf,
    turn: PathBuf,
    state: Mutex<Inside>,
    empty: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    passes: usize,
    entered: u64,
    lock: Option<Lock>,
}

/// Held from before a use is decided on until it is committed. Cloned into every queued row.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    gate: Arc<Gate>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inside = hold(&self.gate.state);
        inside.passes -= 1;
        if inside.passes == 0 {
            inside.lock = None;
            self.gate.empty.notify_all();
        }
    }
}

/// The gate held exclusively: every use by every process is in the database, and no new one begins.
#[derive(Debug)]
pub(super) struct Closed {
    _gate: Lock,
    _turn: Lock,
}

/// How often a process that is never idle looks whether collection waits for its turn, in passes.
const TURN_INTERVAL: u64 = 64;

impl Gate {
    /// The gate of a store.
    pub fn new(layout: &Layout) -> Arc<Self> {
        Arc::new(Self {
            gate: layout.lock("gate"),
            turn: layout.lock("turn"),
            state: Mutex::default(),
            empty: Condvar::new(),
        })
    }

    /// Passes the gate; waits while collection holds it. A thread that holds a pass clones it and does not enter again.
    pub fn enter(self: &Arc<Self>) -> Result<Pass, FsError> {
        let mut inside = hold(&self.state);
        loop {
            if inside.passes == 0 {
                let turn = lock::wait(&self.turn, Sharing::Shared)?;
                inside.lock = Some(lock::wait(&self.gate, Sharing::Shared)?);
                drop(turn);
                break;
            }
            inside.entered += 1;
            if !inside.entered.is_multiple_of(TURN_INTERVAL) || self.is_open()? {
                break;
            }
            while inside.passes > 0 {
                inside = self.empty.wait(inside).unwrap_or_else(PoisonError::into_inner);
            }
        }
        inside.passes += 1;
        drop(inside);
        Ok(Pass { _held: Arc::new(Held { gate: Arc::clone(self) }) })
    }

    fn is_open(&self) -> Result<bool, FsError> {
        Ok(lock::attempt(&self.turn, Sharing::Shared)?.is_some())
    }

    /// Closes the gate: waits until every use in every process is committed. The caller holds no pass.
    pub fn close(&self) -> Result<Closed, FsError> {
        let turn = lock::wait(&self.turn, Sharing::Exclusive)?;
        let gate = lock::wait(&self.gate, Sharing::Exclusive)?;
        Ok(Closed { _gate: gate, _turn: turn })
    }
}

/// Waits for a lock file of the store.
pub(super) fn wait_exclusive(path: &Path) -> Result<Lock, FsError> {
    lock::wait(path, Sharing::Exclusive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout::new(dir.path().join("store"));
        layout.prepare().expect("an empty directory becomes a store");
        (dir, layout)
    }

    #[test]
    fn an_action_is_held_by_one_at_a_time_and_leaves_no_file() {
        let (_dir, layout) = layout();
        let path = layout.dir().join("locks/actions/x");
        let running = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = ActionLock::wait(path.clone()).expect("it can be locked");
                        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two holders at once");
                        running.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(!ops::exists(&path));
    }

    #[test]
    fn the_oldest_live_lease_counts_and_dead_ones_vanish() {
        let (_dir, layout) = layout();
        let first = Lease::begin(&layout, 100).expect("a lease");
        let second = Lease::begin(&layout, 200).expect("a lease");
        let live = || live_leases(&layout).map(|live| (live.oldest_ms, live.newest_ms)).expect("readable");
        ops::write(&layout.leases().join("dead"), b"00000000000000000001").expect("written");
        assert_eq!(live(), (100, 200));
        assert!(!ops::exists(&layout.leases().join("dead")));
        first.renew(300).expect("renewed");
        assert_eq!(live(), (200, 300));
        ops::write(&layout.leases().join(&first.name), b"\xff\xff").expect("written");
        assert_eq!(live(), (i64::MIN, i64::MAX), "what cannot be read protects everything");
        let scratch = second.scratch_name();
        assert!(!owner_is_gone(&layout, &scratch));
        drop(second);
        assert!(owner_is_gone(&layout, &scratch));
        drop(first);
        assert_eq!(live(), (i64::MAX, i64::MIN));
    }

    #[test]
    fn the_gate_closes_although_others_never_stop_entering() {
        let (_dir, layout) = layout();
        let gate = Gate::new(&layout);
        let closer = Gate::new(&layout);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = None;
                    while !done.load(Ordering::SeqCst) {
                        // Overlapping on purpose, but never entering while holding a pass.
                        drop(last.take());
                        last = Some(gate.enter().expect("it opens again"));
                    }
                });
            }
            for _ in 0..20 {
                drop(closer.close().expect("it closes"));
            }
            done.store(true, Ordering::SeqCst);
        });
    }
}
