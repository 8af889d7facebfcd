//! Faults on demand, for tests: the N-th change of the disk by this process fails, or is the last thing it does. Knows no caller.
//!
//! Only builds with debug assertions have this module: a release counts nothing and cannot be asked to fail. What SQLite
//! writes does not pass here.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What happens at the chosen change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Strike {
    /// SIGKILL instead of the change; of a write, the first half is there.
    KillBefore,
    /// SIGKILL right after it.
    KillAfter,
    /// The change fails with this error number; of a write, the first half is there.
    Fail(i32),
    /// A directory above the change is another one while it is made: see [`detour`].
    Detour,
}

/// When what happens.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Plan {
    strike: Strike,
    /// Number of the first change that is struck, counted from 1.
    first: u64,
    /// Number of the last.
    last: u64,
    /// Takes a line about each change that was struck.
    note: Option<PathBuf>,
    /// Only what changes beneath it is counted: the order of that does not depend on other threads.
    beneath: Option<PathBuf>,
}

static PLAN: OnceLock<Plan> = OnceLock::new();
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Whether this process is on a file system that cannot exchange two names.
static NO_EXCHANGE: AtomicBool = AtomicBool::new(false);

/// Arms this process: `no-exchange` alone or with a comma before the rest, then `WHAT:NUMBER`, `WHAT:NUMBER+` for that change and all later ones, then perhaps `:FILE`, which takes a
/// line about each change that was struck. WHAT is `kill-before`, `kill-after`, `enospc`, `eio`, `eacces` or `erofs`; or `detour`. With `beneath:DIR,` before
/// WHAT only changes beneath a directory count; at one struck by `detour`, it and what lies at `DIR.detour` have swapped names (with `+`, from then on).
///
/// # Errors
/// In words, for a text that is no plan.
pub fn arm(text: &str) -> Result<(), String> {
    let (text, no_exchange) = text.strip_prefix("no-exchange").map_or((text, false), |rest| (rest, true));
    NO_EXCHANGE.store(no_exchange, Ordering::SeqCst);
    if no_exchange && text.is_empty() {
        return Ok(());
    }
    let text = text.strip_prefix(',').filter(|_| no_exchange).unwrap_or(text);
    let plan =
        Plan::parse(text).ok_or_else(|| format!("`{text}` is no plan of faults: write WHAT:NUMBER[+][:FILE]"))?;
    PLAN.set(plan).map_err(|_| "faults are planned once per process".to_owned())
}

impl Plan {
    fn parse(text: &str) -> Option<Self> {
        let (beneath, text) = match text.strip_prefix("beneath:") {
            Some(rest) => rest.split_once(',').map(|(dir, text)| (Some(PathBuf::from(dir)), text))?,
            None => (None, text),
        };
        let mut parts = text.splitn(3, ':');
        let strike = match parts.next()? {
            "kill-before" => Strike::KillBefore,
            "kill-after" => Strike::KillAfter,
            "enospc" => Strike::Fail(libc::ENOSPC),
            "eio" => Strike::Fail(libc::EIO),
            "eacces" => Strike::Fail(libc::EACCES),
            "erofs" => Strike::Fail(libc::EROFS),
            "detour" => Strike::Detour,
            _ => return None,
        };
        let number = parts.next()?;
        let (number, goes_on) = number.strip_suffix('+').map_or((number, false), |number| (number, true));
        let first = number.parse().ok()?;
        let last = if goes_on { u64::MAX } else { first };
        Some(Self { strike, first, last, note: parts.next().map(PathBuf::from), beneath })
    }

    fn note(&self, number: u64, verb: &str, path: &Path) {
        let Some(note) = &self.note else { return };
        let opened = OpenOptions::new().append(true).create(true).open(note);
        // A test that finds no note fails by itself.
        drop(opened.and_then(|mut file| writeln!(file, "{number} {verb} {}", path.display())));
    }
}

/// The strike that is due now, if one is.
fn due(verb: &str, path: &Path) -> Option<Strike> {
    let plan = PLAN.get()?;
    if plan.beneath.as_ref().is_some_and(|dir| path == dir || !path.starts_with(dir)) {
        return None;
    }
    let number = CHANGES.fetch_add(1, Ordering::SeqCst) + 1;
    if !(plan.first..=plan.last).contains(&number) {
        return None;
    }
    plan.note(number, verb, path);
    if plan.strike == Strike::Detour && number == plan.first {
        detour(plan);
    }
    Some(plan.strike)
}

/// Swaps the directory of a detour with what waits for that.
fn detour(plan: &Plan) {
    let Some(dir) = &plan.beneath else { return };
    let here = rustix::fs::CWD;
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    // A test whose detour cannot be made sees that its directory stayed where it is.
    rustix::fs::renameat_with(here, dir, here, dir.with_added_extension("detour"), flags).ok();
}

/// Ends a detour that was for one change.
fn back_from_detour() {
    if let Some(plan) = PLAN.get().filter(|plan| plan.last == plan.first) {
        detour(plan);
    }
}

/// One change of the disk.
pub(super) fn around<T>(verb: &str, path: &Path, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if verb == "swap" && NO_EXCHANGE.load(Ordering::SeqCst) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    match due(verb, path) {
        None => change(),
        Some(Strike::Fail(number)) => Err(io::Error::from_raw_os_error(number)),
        Some(Strike::Detour) => {
            let changed = change();
            back_from_detour();
            changed
        }
        Some(Strike::KillBefore) => die(),
        Some(Strike::KillAfter) => {
            drop(change());
            die()
        }
    }
}

/// One write: as disks have it, a part may be there when it fails.
pub(super) fn around_write(path: &Path, bytes: &[u8], write: impl Fn(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let half = &bytes[..bytes.len() / 2];
    match due("write", path) {
        None => write(bytes),
        Some(Strike::Detour) => {
            let written = write(bytes);
            back_from_detour();
            written
        }
        Some(Strike::Fail(number)) => {
            write(half)?;
            Err(io::Error::from_raw_os_error(number))
        }
        Some(Strike::KillBefore) => {
            drop(write(half));
            die()
        }
        Some(Strike::KillAfter) => {
            drop(write(bytes));
            die()
        }
    }
}

fn die() -> ! {
    // Cannot fail for the process itself, and does not return.
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read_as_they_are_documented() {
        let check = |text: &str, expect: Option<Plan>| assert_eq!(Plan::parse(text), expect, "{text}");
        let plan = |strike, first, last, note: Option<&str>| {
            Some(Plan { strike, first, last, note: note.map(PathBuf::from), beneath: None })
        };
        check("eio:3", plan(Strike::Fail(libc::EIO), 3, 3, None));
        check("enospc:3+", plan(Strike::Fail(libc::ENOSPC), 3, u64::MAX, None));
        let beneath = Some(PathBuf::from("/b"));
        check("beneath:/b,eio:2", plan(Strike::Fail(libc::EIO), 2, 2, None).map(|plan| Plan { beneath, ..plan }));
        check("kill-before:1:/a:b", plan(Strike::KillBefore, 1, 1, Some("/a:b")));
        for wrong in ["", "eio", "eio:", "eio:x", "eio:-1", "ebadf:1", "beneath:/b", "beneath:eio:1"] {
            check(wrong, None);
        }
    }
}
