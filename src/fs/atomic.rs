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
