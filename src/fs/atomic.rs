//! Writing a file whole: a temporary beside it, synced, renamed. Knows nothing of what is written.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fs::ops::{self, AtPath, FsError};

/// Whether the bytes must survive power loss before the name does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Sync the file before the rename.
    Synced,
    /// Let the kernel write when it likes; readers must check what they read.
    Relaxed,
}

/// A name beside `path` that no other call and no other process uses.
pub fn temporary_beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    path.with_file_name(format!(".{name}.drystone-{}-{count}", std::process::id()))
}

/// The process that made a temporary of this name with [`temporary_beside`]; `None` for every other name.
pub fn temporary_owner(name: &str) -> Option<u32> {
    let (_, numbers) = name.strip_prefix('.')?.rsplit_once(".drystone-")?;
    let (process, count) = numbers.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_digit());
    if is_number(process) && is_number(count) { process.parse().ok() } else { None }
}

/// Replaces the file at `path`: readers see the old bytes or the new ones, never a mixture.
pub fn write(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), FsError> {
    let temporary = temporary_beside(path);
    let written = (|| {
        let mut file = ops::create_new(&temporary, 0o644)?;
        file.write_all(bytes).at("write", &temporary)?;
        if durability == Durability::Synced {
            file.sync_data().at("sync", &temporary)?;
        }
        ops::rename(&temporary, path)
    })();
    if written.is_err() {
        // The first error is the one worth telling.
        drop(ops::remove_file(&temporary));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_temporaries_tell_an_owner() {
        let check = |name: &str, expect: Option<u32>| assert_eq!(temporary_owner(name), expect, "{name}");
        check(".a.js.drystone-17-0", Some(17));
        check("..drystone-1.drystone-17-3", Some(17));
        for other in ["a.drystone-17-0", ".a.drystone-17", ".a.drystone-x-1", ".a.drystone-17-", ".drystone-17-0", ""] {
            check(other, None);
        }
        let made = temporary_beside(Path::new("out/a.js"));
        let name = made.file_name().and_then(|name| name.to_str()).expect("a UTF-8 name");
        check(name, Some(std::process::id()));
    }
}
