//! Where things lie in a store directory. Knows no database.
//!
//! ```text
//! FORMAT                    "drystone store 1"
//! CACHEDIR.TAG              tells backup programs to leave it out
//! store.db                  SQLite; store.db.damaged-<ms> are earlier ones that were set aside
//! blobs/aa/<62 hex>         blobs too large for the database, mode 0444
//! trees/aa/<62 hex>         encoded trees too large for the database
//! tmp/<lease>-<n>           files being written
//! stage/<lease>-<n>/        scratch directories of running actions
//! locks/                    gate, turn, gc, open, links; actions/<64 hex>; caches/<32 hex>; kept/<32 hex>; leases/<lease>
//! caches/<32 hex>/          directories that tasks keep between their runs
//! kept/<32 hex>/            files and directories to be shown to commands
//! links/aa/<62 hex>[.x]     files that outputs may be hard links to, mode 0444, executable ones 0555
//! workspaces/<32 hex>/      what is kept per workspace, by digest of its root path; `root` names the path
//! trash/<lease>-<n>/        on its way out
//! losses                    changes before anything is taken out
//! unstable                  there if an action of the ledger ever came to different outputs
//! reserve                   space given up when the disk is full, so that collection can still work
//! ```

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::fs::atomic::{self, Durability};
use crate::fs::ops::{self, FsError, Kind as FileKind};
use crate::store::content::{Key, Kind};
use crate::store::error::StoreError;

/// Version of the directory layout.
const FORMAT: i64 = 1;
const FORMAT_PREFIX: &str = "drystone store ";
const CACHEDIR_TAG: &str =
    "Signature: 8a477f597d28d172789f06886806bc55\n# Made by drystone: a cache, safe to delete.\n";
const DIRS: [&str; 14] = [
    "blobs",
    "trees",
    "tmp",
    "stage",
    "locks",
    "locks/actions",
    "locks/caches",
    "locks/kept",
    "locks/leases",
    "caches",
    "kept",
    "links",
    "workspaces",
    "trash",
];

/// Bytes of the `reserve` file: enough for opening the database and for one small transaction of collection (`gc::SMALL_STEP`).
const RESERVE_BYTES: u64 = 2 * 1024 * 1024;
/// Free space, in multiples of the reserve, below which none is set aside.
const RESERVE_SHARE: u64 = 4;

/// The paths of one store.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The layout below `dir`; touches nothing.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The store directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.dir.join("store.db")
    }

    /// The file that tells whether anything was taken out since.
    pub fn losses(&self) -> PathBuf {
        self.dir.join("losses")
    }

    /// The file that tells that the ledger has disagreements.
    pub fn unstable(&self) -> PathBuf {
        self.dir.join("unstable")
    }

    /// The directory of large content of one kind.
    pub fn contents(&self, kind: Kind) -> PathBuf {
        self.dir.join(kind.dir())
    }

    /// The file of one large content.
    pub fn content(&self, key: &Key) -> PathBuf {
        let hex = key.digest.to_hex();
        let mut path = self.contents(key.kind);
        path.push(&hex[..2]);
        path.push(&hex[2..]);
        path
    }

    /// A lock file that stays.
    pub fn lock(&self, name: &str) -> PathBuf {
        self.dir.join("locks").join(name)
    }

    /// The lock file of one action.
    pub fn action_lock(&self, action: &Digest) -> PathBuf {
        self.action_locks().join(action.to_hex())
    }

    /// The directory of action locks.
    pub fn action_locks(&self) -> PathBuf {
        self.dir.join("locks/actions")
    }

    /// The directory of leases.
    pub fn leases(&self) -> PathBuf {
        self.dir.join("locks/leases")
    }

    /// A directory of scratch: `tmp`, `stage` or `trash`. Names in it start with the lease of their owner.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The directory of caches.
    pub fn caches(&self) -> PathBuf {
        self.dir.join("caches")
    }

    /// One cache.
    pub fn cache(&self, name: &str) -> PathBuf {
        self.caches().join(name)
    }

    /// The lock file of a cache.
    pub fn cache_lock(&self, name: &str) -> PathBuf {
        self.dir.join("locks/caches").join(name)
    }

    /// The directory of what is kept to be shown.
    pub fn all_kept(&self) -> PathBuf {
        self.dir.join("kept")
    }

    /// One thing kept to be shown.
    pub fn kept(&self, name: &str) -> PathBuf {
        self.all_kept().join(name)
    }

    /// The lock file of one.
    pub fn kept_lock(&self, name: &str) -> PathBuf {
        self.dir.join("locks/kept").join(name)
    }

    /// The directory of files that outputs may be links to.
    pub fn links(&self) -> PathBuf {
        self.dir.join("links")
    }

    /// Where the one of a content lies, and its name there.
    pub fn kept_link(&self, digest: &Digest, executable: bool) -> (PathBuf, String) {
        let hex = digest.to_hex();
        let suffix = if executable { ".x" } else { "" };
        (self.links().join(&hex[..2]), format!("{}{suffix}", &hex[2..]))
    }

    /// The directory of what is kept per workspace.
    pub fn workspaces(&self) -> PathBuf {
        self.dir.join("workspaces")
    }

    /// The directory kept for the workspace at `root`.
    pub fn workspace(&self, root: &Path) -> PathBuf {
        let hex = Digest::of(root.as_os_str().as_bytes()).to_hex();
        self.workspaces().join(&hex[..32])
    }

    /// Makes the directory a store, or sees that it is one.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] if the directory holds other files, [`StoreError::Newer`] for a later layout.
    pub fn prepare(&self) -> Result<(), StoreError> {
        if self.format()? == Some(FORMAT) && DIRS.iter().all(|dir| ops::exists(&self.dir.join(dir))) {
            return Ok(());
        }
        ops::create_dir_all(&self.dir)?;
        if self.is_foreign()? {
            return Err(StoreError::Foreign { path: self.dir.clone() });
        }
        for dir in DIRS {
            ops::create_dir_all(&self.dir.join(dir))?;
        }
        // Tasks write there what they like, set-user-id programs too: no other user is to come near them.
        ops::set_mode(&self.caches(), 0o700)?;
        atomic::write(&self.dir.join("CACHEDIR.TAG"), CACHEDIR_TAG.as_bytes(), Durability::Relaxed)?;
        let format = format!("{FORMAT_PREFIX}{FORMAT}\n");
        atomic::write(&self.dir.join("FORMAT"), format.as_bytes(), Durability::Synced)?;
        self.keep_reserve();
        Ok(())
    }

    /// The version in the `FORMAT` file; `None` if there is none that can be read.
    pub fn format(&self) -> Result<Option<i64>, StoreError> {
        let Some(bytes) = ops::if_there(ops::read(&self.dir.join("FORMAT")))? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let found = text.strip_prefix(FORMAT_PREFIX).and_then(|rest| rest.trim_end().parse().ok());
        match found {
            Some(found) if found > FORMAT => Err(StoreError::Newer { path: self.dir.clone(), found, known: FORMAT }),
            found => Ok(found),
        }
    }

    /// Sets space aside for the day when the disk is full. Without it the store works as well, until that day.
    pub fn keep_reserve(&self) {
        let path = self.dir.join("reserve");
        let has_room = ops::disk_space(&self.dir).is_ok_and(|(free, _)| free / RESERVE_SHARE > RESERVE_BYTES);
        if !ops::exists(&path)
            && has_room
            && let Err(error) = ops::create_reserved(&path, RESERVE_BYTES)
        {
            tracing::debug!(%error, "no space was set aside");
            drop(ops::remove_file(&path));
        }
    }

    /// Gives the reserve up; whether there was one.
    pub fn give_reserve_up(&self) -> bool {
        let path = self.dir.join("reserve");
        ops::exists(&path) && ops::remove_file(&path).is_ok()
    }

    /// Whether the directory was made for something else, so that nothing in it may be touched.
    fn is_foreign(&self) -> Result<bool, FsError> {
        let ours = ["FORMAT", "store.db", "blobs"].iter().any(|name| ops::exists(&self.dir.join(name)));
        let strangers = ops::read_dir(&self.dir)?.into_iter().any(|entry| {
            let name = entry.name.as_bytes();
            let harmless = name.starts_with(b".") || name == b"lost+found" || name == b"CACHEDIR.TAG";
            !harmless && !DIRS.iter().any(|dir| dir.as_bytes() == name)
        });
        Ok(!ours && strangers)
    }

    /// Every file in `blobs/` or `trees/` whose name is a digest, with its size in bytes, in order of the digests.
    pub fn scan(&self, kind: Kind) -> Result<Vec<(Key, u64)>, FsError> {
        let mut found = Vec::new();
        let top = self.contents(kind);
        for shard in ops::if_there(ops::read_dir(&top))?.unwrap_or_default() {
            let Some(prefix) = shard.name.to_str().filter(|_| shard.kind == FileKind::Dir) else { continue };
            let dir = top.join(prefix);
            for file in ops::if_there(ops::read_dir(&dir))?.unwrap_or_default() {
                let Some(name) = file.name.to_str().filter(|_| file.kind == FileKind::File) else { continue };
                let Some(digest) = Digest::parse(&format!("{prefix}{name}")) else { continue };
                let Some(meta) = ops::if_there(ops::symlink_metadata(&dir.join(name)))? else { continue };
                found.push((Key { kind, digest }, meta.len()));
            }
        }
        Ok(found)
    }

    /// Databases that were set aside, with the time in their names, oldest first.
    pub fn damaged(&self) -> Result<Vec<(i64, PathBuf)>, FsError> {
        let mut found = Vec::new();
        for entry in ops::read_dir(&self.dir)? {
            let Some(rest) = entry.name.to_str().and_then(|name| name.strip_prefix("store.db.damaged-")) else {
                continue;
            };
            let digits = rest.split(['-', '.']).next().unwrap_or("");
            if let Ok(at_ms) = digits.parse() {
                found.push((at_ms, self.dir.join(&entry.name)));
            }
        }
        found.sort();
        Ok(found)
    }
}
