//! Writing a file whole: a temporary beside it, synced, renamed. Knows nothing of what is written.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::process::Pid;

use crate::fs::dir::Dir;
use crate::fs::nursery;
use crate::fs::ops::{self, FsError};

/// Bytes of a name that its temporary keeps: with the rest it must not become longer than a name may be.
const NAME_KEPT_BYTES: usize = 180;

/// Number of the first temporary of this process. A killed process of the same id, as containers have them, began elsewhere.
static FIRST: LazyLock<u64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0)
});
/// How many temporaries this process has made.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Whether the bytes must survive power loss before the name does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Sync the file before the rename.
    Synced,
    /// Let the kernel write when it likes; readers must check what they read.
    Relaxed,
}

/// A name that no other call and no other process uses, after the one whose place it waits for.
pub fn temporary_name(name: &str) -> String {
    let number = FIRST.saturating_add(COUNT.fetch_add(1, Ordering::SeqCst));
    let kept = &name[..name.floor_char_boundary(NAME_KEPT_BYTES)];
    format!(".{kept}.drystone-{}-{number}", std::process::id())
}

/// The path of such a name beside `path`.
pub fn temporary_beside(path: &Path) -> PathBuf {
    path.with_file_name(temporary_name(&path.file_name().unwrap_or_default().to_string_lossy()))
}

/// Whether [`temporary_name`] gives such names.
pub fn is_temporary(name: &str) -> bool {
    maker(name).is_some()
}

/// Process id and number of a temporary.
fn maker(name: &str) -> Option<(u32, u64)> {
    let (_, numbers) = name.strip_prefix('.')?.rsplit_once(".drystone-")?;
    let (process, number) = numbers.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_digit());
    if is_number(process) && is_number(number) { Some((process.parse().ok()?, number.parse().ok()?)) } else { None }
}

/// Whether the process that made a temporary is gone.
fn is_abandoned((process, number): (u32, u64)) -> bool {
    if process == std::process::id() {
        let ours = *FIRST..FIRST.saturating_add(COUNT.load(Ordering::SeqCst));
        return !ours.contains(&number);
    }
    let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return true };
    // Not by looking into `/proc`, which may be hidden or absent.
    rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH)
}

/// The temporaries of one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Series {
    /// Its id.
    pub process: u32,
    /// Number of the first.
    pub first: u64,
}

/// Those of this process, made and to be made.
pub fn own_series() -> Series {
    Series { process: std::process::id(), first: *FIRST }
}

/// More than any process makes: where the numbers end that one of the same id could not have begun with in another container.
const SERIES_MAX: u64 = 1 << 30;

/// Removes the temporaries of a process that has ended from a directory, whoever has its id now. Cost: one listing.
pub fn remove_series(dir: &Dir, series: Series) -> Result<(), FsError> {
    let numbers = series.first..series.first.saturating_add(SERIES_MAX);
    for entry in dir.list()? {
        let made = entry.name.to_str().and_then(maker);
        if made.is_some_and(|(process, number)| process == series.process && numbers.contains(&number)) {
            dir.remove_all(&entry.name)?;
        }
    }
    Ok(())
}

/// Removes the temporaries of killed processes from a directory; those of living ones stay. Cost: one listing.
pub fn remove_abandoned(dir: &Dir) -> Result<(), FsError> {
    for entry in dir.list()? {
        let Some(name) = entry.name.to_str() else { continue };
        if maker(name).is_some_and(is_abandoned) && !nursery::is_in_use(dir, name) {
            dir.remove_all(name)?;
        }
    }
    Ok(())
}

/// Replaces the file at `path`: readers see the old bytes or the new ones, never a mixture.
pub fn write(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), FsError> {
    let (dir, name) = Dir::above(path)?;
    write_with((&dir, name), bytes, None, durability)
}

/// The same in an opened directory, with these permission bits whatever the umask: never seen with others.
pub fn write_with_mode(place: (&Dir, &OsStr), bytes: &[u8], mode: u32, durability: Durability) -> Result<(), FsError> {
    write_with(place, bytes, Some(mode), durability)
}

fn write_with(
    (dir, name): (&Dir, &OsStr),
    bytes: &[u8],
    mode: Option<u32>,
    durability: Durability,
) -> Result<(), FsError> {
    let temporary = temporary_name(&name.to_string_lossy());
    let written = (|| {
        let file = dir.create_new(&temporary, 0o644)?;
        let path = dir.at(&temporary);
        if let Some(mode) = mode {
            ops::set_mode_of(&file, mode, &path)?;
        }
        ops::write_all(&file, &path, bytes)?;
        if durability == Durability::Synced {
            ops::sync_open(&file, &path)?;
        }
        dir.rename(&temporary, name)
    })();
    if written.is_err() {
        // The first error is the one worth telling.
        drop(dir.remove_file(&temporary));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(path: &Path) -> &str {
        path.file_name().and_then(|name| name.to_str()).expect("a UTF-8 name")
    }

    #[test]
    fn only_names_of_temporaries_tell_a_maker() {
        let check = |name: &str, expect: Option<(u32, u64)>| assert_eq!(maker(name), expect, "{name}");
        check(".a.js.drystone-17-0", Some((17, 0)));
        check("..drystone-1.drystone-17-3", Some((17, 3)));
        for other in ["a.drystone-17-0", ".a.drystone-17", ".a.drystone-x-1", ".a.drystone-17-", ".drystone-17-0", ""] {
            check(other, None);
        }
        let made = temporary_beside(Path::new("out/a.js"));
        assert_eq!(maker(name_of(&made)).map(|(process, _)| process), Some(std::process::id()));
    }

    #[test]
    fn the_longest_names_have_temporaries() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["n".repeat(255), "\u{e9}".repeat(127)] {
            let path = dir.path().join(&name);
            write(&path, b"text", Durability::Relaxed).expect("written");
            assert_eq!(ops::read(&path).expect("there"), b"text");
        }
    }

    #[test]
    fn temporaries_of_dead_processes_go_and_those_of_a_dead_process_with_our_id_too() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ours = temporary_beside(&dir.path().join("a"));
        let alive = dir.path().join(".a.drystone-1-5");
        // No kernel gives out ids as high as these.
        let dead = dir.path().join(".a.drystone-2000000000-0");
        let dead_namesake = dir.path().join(format!(".a.drystone-{}-0", std::process::id()));
        for path in [&ours, &alive, &dead, &dead_namesake] {
            ops::write(path, b"").expect("written");
        }
        remove_abandoned(&Dir::open(dir.path()).expect("a directory")).expect("listed");
        assert_eq!([&ours, &alive, &dead, &dead_namesake].map(|path| ops::exists(path)), [true, true, false, false]);
    }
}
