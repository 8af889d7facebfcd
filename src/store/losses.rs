//! The mark of a store: it changes before anything is taken out of it, for whoever remembers elsewhere that a result is there. Knows
//! not what was taken out.
//!
//! A file with a text that was never there before, and the identity of the database beside it, which goes when that is set aside or
//! replaced. Without the file nothing may be remembered.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::fs::atomic::{self, Durability};
use crate::fs::ops::{self, FsError};
use crate::store::layout::Layout;
use crate::store::open::Store;

/// Context of marks; they never leave the machine.
const MARK_CONTEXT: &str = "drystone 2026-11 store mark v1";

/// Changes the mark. Called before rows or files go: whoever reads it later finds that something may be gone.
pub(super) fn note(layout: &Layout) -> Result<(), FsError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let text = format!("{:x}.{:x}.{count:x}\n", std::process::id(), since.as_nanos());
    let path = layout.losses();
    // On a full disk there may be room for less, but none is needed to take the mark away.
    atomic::write(&path, text.as_bytes(), Durability::Relaxed).or_else(|_| ops::remove_file(&path))
}

impl Store {
    /// The mark as it is now: as long as it stays, no result and nothing that a result names was taken out. `None` if that cannot be
    /// told. Opens no database.
    pub fn mark(&self) -> Option<Digest> {
        self.writable()?;
        mark_in(&self.layout)
    }
}

/// The mark of the store in a directory, open or not. Opens nothing.
pub fn mark_of(dir: &Path) -> Option<Digest> {
    mark_in(&Layout::new(dir.to_owned()))
}

fn mark_in(layout: &Layout) -> Option<Digest> {
    let text = ops::read(&layout.losses()).ok()?;
    let database = ops::symlink_metadata(&layout.database()).ok()?;
    let mut encoder = Encoder::new();
    encoder.bytes(&text).u64(database.dev()).u64(database.ino());
    Some(Digest::derived(MARK_CONTEXT, encoder.as_slice()))
}
