//! A private directory in memory, for what is small and need not outlive the process. Knows nothing of what is put there.
//!
//! It lies on a `tmpfs` of the machine: where a file costs a fraction of one on a disk, and nothing is ever written back. Nobody else
//! may enter it, and nobody else may leave anything above it, since many tools look for their settings in every directory above
//! their own: `/run/user/<uid>` is the user's alone, `/dev/shm` counts only where nobody else is on the machine, as in most containers.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::StatVfsMountFlags;

use crate::fs::lock::{self, Lock};
use crate::fs::ops;

/// Begins the name of every directory made here.
const PREFIX: &str = "drystone-";
/// Nobody else may enter.
const PRIVATE: u32 = 0o700;
/// `f_type` of a `tmpfs` (`statfs(2)`).
const TMPFS: i64 = 0x0102_1994;

/// The directory; removed with everything in it on drop, or after a crash by the next process that makes one.
#[derive(Debug)]
pub struct MemoryDir {
    path: PathBuf,
    // Tells others that the owner lives.
    _lock: Lock,
}

impl MemoryDir {
    /// Makes one where at least so many bytes are free; `None` where the machine has no such place.
    ///
    /// Cost: a listing of the place, and for `/dev/shm` a look at each process.
    pub fn make(bytes_free_min: u64) -> Option<Self> {
        let user = rustix::process::geteuid().as_raw();
        let own = PathBuf::from(format!("/run/user/{user}"));
        let is_ours = |place: &Path| {
            ops::symlink_metadata(place)
                .is_ok_and(|meta| meta.is_dir() && meta.uid() == user && meta.mode() & 0o077 == 0)
        };
        let shared = PathBuf::from("/dev/shm");
        let place = [own].into_iter().find(|own| is_ours(own) && is_suitable(own, bytes_free_min)).or_else(|| {
            let is_fit = is_suitable(&shared, bytes_free_min) && is_alone(user);
            is_fit.then_some(shared)
        })?;
        sweep(&place, user);
        Self::make_in(&place)
    }

    fn make_in(place: &Path) -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        for _ in 0..ATTEMPTS_MAX {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = place.join(format!("{PREFIX}{}-{number}", std::process::id()));
            // A name in use is of a process of another pid namespace, or of one that was killed.
            if ops::create_dir(&path).is_err() {
                continue;
            }
            ops::set_mode(&path, PRIVATE).ok()?;
            // A sweep may have taken it for abandoned in between.
            if let Ok(Some(lock)) = lock::attempt_dir(&path)
                && lock.is_named(&path)
            {
                return Some(Self { path, _lock: lock });
            }
        }
        None
    }

    /// The directory; absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that may still be written there.
    pub fn bytes_free(&self) -> u64 {
        ops::disk_space(&self.path).map_or(0, |(free, _)| free)
    }
}

impl Drop for MemoryDir {
    fn drop(&mut self) {
        if let Err(error) = ops::remove_all(&self.path) {
            tracing::debug!(%error, "a directory in memory stays for now");
        }
    }
}

/// Names that are tried before there is none.
const ATTEMPTS_MAX: usize = 16;

/// Whether commands can be run from files there, in memory, with room.
fn is_suitable(place: &Path, bytes_free_min: u64) -> bool {
    let refused = StatVfsMountFlags::NOEXEC | StatVfsMountFlags::RDONLY;
    rustix::fs::statfs(place).is_ok_and(|stat| stat.f_type == TMPFS)
        && rustix::fs::statvfs(place).is_ok_and(|stat| !stat.f_flag.intersects(refused))
        && ops::disk_space(place).is_ok_and(|(free, _)| free >= bytes_free_min)
}

/// Whether every process of the machine is root's or this user's, as far as is known: where processes are hidden, nothing is.
fn is_alone(user: u32) -> bool {
    let proc = Path::new("/proc");
    let Ok(entries) = ops::read_dir(proc) else { return false };
    let mut has_first = false;
    let all_known = entries.iter().filter_map(|entry| entry.name.to_str()?.parse::<u32>().ok()).all(|pid| {
        has_first |= pid == 1;
        // One that has ended meanwhile is nobody's.
        ops::symlink_metadata(&proc.join(pid.to_string())).map_or(true, |meta| [0, user].contains(&meta.uid()))
    });
    has_first && all_known
}

/// Removes what processes that were killed have left.
fn sweep(place: &Path, user: u32) {
    for entry in ops::read_dir(place).unwrap_or_default() {
        let is_named = entry.name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        let path = place.join(&entry.name);
        let is_private =
            |meta: &std::fs::Metadata| meta.is_dir() && meta.uid() == user && meta.mode() & 0o777 == PRIVATE;
        if is_named
            && ops::symlink_metadata(&path).is_ok_and(|meta| is_private(&meta))
            && let Ok(Some(_dead)) = lock::attempt_dir(&path)
            && let Err(error) = ops::remove_all(&path)
        {
            tracing::debug!(%error, "what a killed run left in memory stays for now");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_and_goes_with_its_owner() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let made = MemoryDir::make_in(place.path()).expect("nothing has the name");
        let path = made.path().to_owned();
        let meta = ops::symlink_metadata(&path).expect("it is there");
        assert_eq!(meta.mode() & 0o7777, PRIVATE);
        assert!(meta.is_dir());
        drop(made);
        assert!(!ops::exists(&path));
    }

    #[test]
    fn what_the_killed_left_is_swept_and_what_the_living_have_is_not() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let user = rustix::process::geteuid().as_raw();
        let living = MemoryDir::make_in(place.path()).expect("nothing has the name");
        let make = |name: &str, mode: u32| {
            let path = place.path().join(name);
            ops::create_dir(&path).expect("nothing has the name");
            ops::write(&path.join("file"), b"x").expect("it can be written");
            ops::set_mode(&path, mode).expect("it is ours");
            path
        };
        let dead = make("drystone-1-1", PRIVATE);
        let open = make("drystone-1-2", 0o755);
        let foreign = make("other", PRIVATE);
        sweep(place.path(), user);
        let left = [living.path(), &dead, &open, &foreign].map(ops::exists);
        assert_eq!(left, [true, false, true, true]);
        sweep(place.path(), user + 1);
        assert!(ops::exists(living.path()));
    }

    #[test]
    fn a_disk_is_no_memory() {
        assert!(!is_suitable(Path::new("/proc"), 0));
        assert!(!is_suitable(Path::new("/dev/shm"), u64::MAX));
    }
}
