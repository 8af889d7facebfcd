//! What failed commands printed last, one file per task of the worktree, for `drystone logs`. No result: nothing is looked up by it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::base::digest::Digest;
use crate::engine::event::Log;
use crate::engine::log;
use crate::fs::atomic::{self, Durability};
use crate::fs::ops::{self, FsError};

/// Tasks remembered per worktree; beyond it the oldest are forgotten.
const KEPT_MAX: usize = 100;

/// The failures of a worktree.
pub struct Failures {
    dir: PathBuf,
}

impl Failures {
    /// Those in the state directory of a workspace.
    pub fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("failed") }
    }

    fn file(&self, label: &str) -> PathBuf {
        self.dir.join(Digest::of(label.as_bytes()).to_hex())
    }

    /// Remembers what a task printed when it failed.
    pub fn keep(&self, label: &str, log: &Log) -> Result<(), FsError> {
        ops::create_dir_all(&self.dir)?;
        atomic::write(&self.file(label), &log::encode(log), Durability::Relaxed)?;
        self.forget_oldest()
    }

    /// The task succeeded since. Cost: one `unlink` that mostly finds nothing.
    pub fn forget(&self, label: &str) {
        // Left behind it would only be shown where there is no result.
        drop(ops::remove_file(&self.file(label)));
    }

    /// What the task printed when it ran last, if it failed then.
    pub fn find(&self, label: &str) -> Option<Log> {
        log::decode(&ops::read(&self.file(label)).ok()?).ok()
    }

    fn forget_oldest(&self) -> Result<(), FsError> {
        let entries = ops::read_dir(&self.dir)?;
        if entries.len() <= KEPT_MAX {
            return Ok(());
        }
        let aged = |path: PathBuf| -> Option<(SystemTime, PathBuf)> {
            Some((ops::symlink_metadata(&path).ok()?.modified().ok()?, path))
        };
        let mut all: Vec<_> = entries.iter().filter_map(|entry| aged(self.dir.join(&entry.name))).collect();
        all.sort();
        let extra = all.len().saturating_sub(KEPT_MAX);
        all.iter().take(extra).try_for_each(|(_, path)| ops::remove_file(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::spec::Stream;

    #[test]
    fn the_last_failure_is_found_until_the_task_succeeds_and_they_do_not_pile_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let failures = Failures::new(dir.path());
        assert_eq!(failures.find("//:a"), None);
        let log: Log = vec![(Stream::Stderr, b"no\n".to_vec())];
        failures.keep("//:a", &Log::new()).expect("kept");
        failures.keep("//:a", &log).expect("kept");
        assert_eq!(failures.find("//:a"), Some(log.clone()));
        failures.forget("//:a");
        assert_eq!(failures.find("//:a"), None);
        for number in 0..=KEPT_MAX {
            failures.keep(&format!("//:{number}"), &log).expect("kept");
        }
        assert_eq!(ops::read_dir(&dir.path().join("failed")).expect("there").len(), KEPT_MAX);
        ops::write(&failures.file("//:bad"), &[9]).expect("written");
        assert_eq!(failures.find("//:bad"), None);
    }
}
