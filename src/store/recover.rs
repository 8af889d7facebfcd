//! What happens after damage and crashes: setting a database aside, rebuilding it, sweeping scratch. Decides nothing.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::fs::atomic;
use crate::fs::dir::Dir;
use crate::fs::ops::{self, FsError};
use crate::store::content::{self, Body, Kind};
use crate::store::layout::Layout;
use crate::store::locks::owner_is_gone;
use crate::store::migrate::Refusal;

/// Renames the database and its journals; returns the new name. The caller holds the `open` lock.
pub(super) fn set_aside(layout: &Layout, now_ms: i64) -> Result<PathBuf, FsError> {
    let path = layout.database();
    let mut at_ms = now_ms;
    let kept = loop {
        let kept = beside(&path, &format!(".damaged-{at_ms}"));
        if !ops::exists(&kept) {
            break kept;
        }
        at_ms += 1;
    };
    // The log first: a database without its log is merely old, a log without its database would be played into the new one.
    for suffix in ["-wal", "-shm", "-journal"] {
        let (from, to) = (beside(&path, suffix), beside(&kept, suffix));
        ops::if_there(ops::rename(&from, &to))?;
    }
    ops::if_there(ops::rename(&path, &kept))?;
    Ok(kept)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Fills an empty database with the files that are there. Their names are their digests; what is in them is checked
/// whenever it is read. Results are not recovered.
///
/// Cost: one `stat` and one row per file.
pub(super) fn rebuild(connection: &Connection, layout: &Layout, now_ms: i64) -> Result<(), Refusal> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let mut grown = 0;
    for kind in Kind::ALL {
        // A directory that cannot be listed has nothing in it that could be used.
        for (key, size) in layout.scan(kind).unwrap_or_default() {
            if size > 0 {
                grown += content::insert(&transaction, &key, size, &Body::File, now_ms)?;
            }
        }
    }
    content::add_usage(&transaction, grown)?;
    transaction.commit()?;
    Ok(())
}

/// Removes scratch of sessions that are gone. Cost: one directory listing each where there is none.
pub(super) fn sweep_scratch(layout: &Layout) -> Result<(), FsError> {
    for name in ["tmp", "stage", "trash"] {
        let dir = layout.scratch(name);
        for entry in ops::read_dir(&dir)? {
            if owner_is_gone(layout, &entry.name.to_string_lossy()) {
                ops::remove_all(&dir.join(&entry.name))?;
            }
        }
    }
    Ok(())
}

/// Removes what sessions that were killed left beside files they were about to replace. Cost: one listing per workspace.
pub(super) fn sweep_temporaries(layout: &Layout) -> Result<(), FsError> {
    let sweep = |dir: &Path| atomic::remove_abandoned(&Dir::open(dir)?);
    sweep(layout.dir())?;
    for workspace in ops::read_dir(&layout.workspaces())? {
        let dir = layout.workspaces().join(workspace.name);
        for below in ops::read_dir(&dir)?.into_iter().filter(|entry| entry.kind == ops::Kind::Dir) {
            sweep(&dir.join(below.name))?;
        }
        sweep(&dir)?;
    }
    Ok(())
}
