//! Whether every change of a file that follows a look at it gives it a change time of its own. Knows no index and no digest.
//!
//! The kernel stamps files with a clock that ticks every few milliseconds: two changes within one tick may leave the same times. Since
//! Linux 6.13 most local file systems remember that somebody asked for the times of a file, and give its next change a later one
//! (`Documentation/filesystems/multigrain-ts.rst`). There a signature tells the content from every later one, however soon that comes,
//! as long as the kernel keeps the file in memory, which is longer than a tick. No version and no name of a file system is believed:
//! it is tried.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};

use crate::fs::ops::{self, AtPath, FsError};
use crate::fs::stat::StatKey;

/// Changes within one tick that must all leave different times: more than one clock on the other side of a network could tell apart.
const CHANGES: usize = 8;

/// How often a trial may meet the end of a tick before nothing is believed.
const TRIALS_MAX: usize = 4;

/// What was found out, by device.
#[derive(Debug, Default)]
pub struct Grain {
    fine: Mutex<HashMap<u64, bool>>,
}

impl Grain {
    /// Whether every change of a file there that follows its `stat` shows in the next; `None` for a device that was not tried.
    pub fn known(&self, device: u64) -> Option<bool> {
        self.fine.lock().unwrap_or_else(PoisonError::into_inner).get(&device).copied()
    }

    /// Tries it on a file of the caller's own, whose change time is another afterwards. Trouble counts as no.
    pub fn try_out(&self, file: &File, path: &Path, stat: &StatKey) -> bool {
        let is_fine = !ops::is_network_fs(path.parent().unwrap_or(path)) && tried(file, path).unwrap_or(false);
        self.fine.lock().unwrap_or_else(PoisonError::into_inner).insert(stat.device, is_fine);
        is_fine
    }
}

/// Changes the file again and again within one tick of the kernel's clock.
fn tried(file: &File, path: &Path) -> Result<bool, FsError> {
    for _ in 0..TRIALS_MAX {
        let tick = clock_gettime(ClockId::RealtimeCoarse);
        let mut times = Vec::with_capacity(CHANGES);
        for _ in 0..CHANGES {
            let stat = StatKey::of(&file.metadata().at("look at", path)?);
            times.push(stat.ctime_ns);
            // Its mode stays what it is, and its change time moves all the same. Not counted as a change of the disk: how often it takes
            // depends on the clock, and nothing but that time is another afterwards.
            let mode = rustix::fs::Mode::from_raw_mode(stat.mode & 0o7777);
            rustix::fs::fchmod(file, mode).map_err(std::io::Error::from).at("change the mode of", path)?;
        }
        if clock_gettime(ClockId::RealtimeCoarse) == tick {
            // The first was taken of a time that may be older than the tick.
            return Ok(times[1..].windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_grain_is_fine_a_change_right_after_a_look_shows() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        let file = ops::create_new(&path, 0o644).expect("created");
        let look = || StatKey::of(&file.metadata().expect("there"));
        let grain = Grain::default();
        assert_eq!(grain.known(look().device), None);
        let is_fine = grain.try_out(&file, &path, &look());
        assert_eq!(grain.known(look().device), Some(is_fine));
        for round in 0..1000 {
            let before = look();
            // In place, with the same length: only the times can tell.
            std::os::unix::fs::FileExt::write_at(&file, &[u8::try_from(round % 256).expect("small")], 0)
                .expect("written");
            assert!(!is_fine || round == 0 || look() != before, "round {round}");
        }
    }
}
