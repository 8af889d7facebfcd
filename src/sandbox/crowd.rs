//! Counts the processes of a pid namespace from its init, for machines on which no control group does. Signals nobody.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};

use crate::fs::ops;
use crate::sandbox::limits;

/// When they are first counted, each further time after twice as long, and how long that gets.
pub const INTERVAL_MIN: Duration = Duration::from_millis(25);
pub const INTERVAL_MAX: Duration = Duration::from_millis(500);

/// The lowest numbers are given only once: the kernel keeps 300 for itself when it begins again.
const PIDS_GIVEN_ONCE: u32 = 300;

/// As many as there ever are (`PID_MAX_LIMIT` of 64-bit kernels).
const PIDS_MAX: u32 = 4 * 1024 * 1024;

/// Where the walls stand: so far above the limit that a crowd is counted before it is kept from growing. One that breaks up at a wall
/// between two counts would pass for a command that did what it should.
const fn wall(processes: u32) -> u32 {
    processes.saturating_mul(2).saturating_add(1024)
}

/// Who counts the processes of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counting {
    /// Its init.
    Here,
    /// A control group, or nobody.
    NotHere,
}

/// Whether there are more processes and threads than these, the init itself not counted.
///
/// Cost: a listing of `/proc` and a `stat` for each process, about a microsecond each.
pub fn is_over(limit: u32) -> bool {
    count() > u64::from(limit)
}

/// Processes and threads of this pid namespace, but for this one.
fn count() -> u64 {
    let all = ops::read_dir(Path::new("/proc")).unwrap_or_default();
    let pids =
        all.iter().filter_map(|entry| entry.name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())));
    // As many names as threads, and two; whoever has ended meanwhile counts as one.
    let threads = pids.map(|pid| match ops::metadata(&Path::new("/proc").join(pid).join("task")) {
        Ok(meta) => std::os::unix::fs::MetadataExt::nlink(&meta).saturating_sub(2).max(1),
        Err(_) => 1,
    });
    threads.sum::<u64>().saturating_sub(1)
}

/// The wall for whoever is no root outside. Set at `namespaces` whoever counts, for a command can see it.
pub fn set_rlimit(processes: u32) -> rustix::io::Result<()> {
    if !limits::counts_by_namespace() {
        // It would count whatever else the user runs.
        return Ok(());
    }
    let wall = u64::from(wall(processes));
    let maximum = rustix::process::getrlimit(Resource::Nproc).maximum.map_or(wall, |given| given.min(wall));
    rustix::process::setrlimit(Resource::Nproc, Rlimit { current: Some(maximum), maximum: Some(maximum) })
}

/// The wall for whoever is root outside, whom the other does not hold. `/proc` must be that of this pid namespace, and writable.
pub fn set_pid_max(processes: u32) {
    if !limits::pid_space_is_own() {
        return;
    }
    let most = wall(processes).saturating_add(PIDS_GIVEN_ONCE).min(PIDS_MAX);
    // A security module may forbid it; then counting must do.
    drop(ops::write(Path::new("proc/sys/kernel/pid_max"), most.to_string().as_bytes()));
}
