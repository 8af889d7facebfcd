//! Turns the terminal's and the system's wish to stop into a call. Decides nothing about what stopping means.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::fs::ops;

/// A thread that waits for signals until dropped.
#[derive(Debug)]
pub struct Watch {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // A panic in the callback was reported by the panic hook already.
            drop(thread.join());
        }
    }
}

/// Calls `callback` on a thread of its own with each SIGINT, SIGTERM and SIGHUP (their numbers) that arrives.
///
/// A signal that was ignored when the program started (`nohup`) stays ignored.
pub fn watch(mut callback: impl FnMut(i32) + Send + 'static) -> io::Result<Watch> {
    let status = ops::read_text("/proc/self/status".as_ref()).unwrap_or_default();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(&status, signal));
    let mut signals = Signals::new(wanted)?;
    let handle = signals.handle();
    let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            callback(signal);
        }
    })?;
    Ok(Watch { handle, thread: Some(thread) })
}

/// Reads the `SigIgn` mask of `/proc/<pid>/status`.
fn is_ignored(status: &str, signal: i32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ignored_mask_is_read_bit_by_bit() {
        let status = "Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(is_ignored(status, SIGHUP));
        assert!(!is_ignored(status, SIGINT));
        assert!(!is_ignored("", SIGHUP));
    }
}
