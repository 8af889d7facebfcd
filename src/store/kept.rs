//! Files and directories kept to be shown to commands as they are: copies with fixed modes and times, named by all that can be
//! seen of them. Knows no views.
//!
//! `kept/<32 hex>/it` is the file or directory, `kept/<32 hex>/boot` the boot of the machine in which it was found whole,
//! `locks/kept/<32 hex>` its lock file, with the same mark as that of a cache. Nothing is synced: after a reboot it is
//! read and compared once. No file in it has a second name, so that nobody sees how many others show it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::fs::atomic::{self, Durability};
use crate::fs::digest::digest_file;
use crate::fs::lock::{self, Lock, Sharing};
use crate::fs::ops::{self, FsError};
use crate::fs::stat::StatKey;
use crate::fs::walk;
use crate::store::caches::Mark;
use crate::store::error::StoreError;
use crate::store::open::Store;

/// First part of what names are digests of.
const NAME: &[u8] = b"drystone kept 1";

/// Mode of kept directories: the store must be able to remove what is in them.
const DIR_MODE: u32 = 0o755;

/// What is to be kept, as it is to be seen.
pub struct Keep<'a> {
    /// Files, links and empty directories; a single file at the root stands for itself.
    pub listing: &'a Listing,
    /// Modes of files: plain and executable ones.
    pub modes: [u32; 2],
    /// Modification time of a path, directories included, in nanoseconds since 1970.
    pub mtime_ns: &'a dyn Fn(&RelPath) -> i64,
}

/// Writes the content of a file to a path where nothing is; `false` if that content is not to be had.
pub type Fill<'a, E> = dyn FnMut(&RelPath, &Digest, u64, &Path) -> Result<bool, E> + 'a;

impl Keep<'_> {
    /// Directories above something, with the root, unless the whole is a single file.
    fn directories(&self) -> BTreeSet<RelPath> {
        let own = self.listing.iter().filter(|(_, entry)| **entry == Entry::Dir).map(|(path, _)| path.clone());
        let mut all = BTreeSet::new();
        for path in own.chain(self.listing.keys().filter_map(RelPath::parent)) {
            let mut next = Some(path);
            while let Some(path) = next.filter(|path| !all.contains(path)) {
                next = path.parent();
                all.insert(path);
            }
        }
        all
    }

    fn mode(&self, executable: bool) -> u32 {
        self.modes[usize::from(executable)]
    }

    fn name(&self) -> String {
        let mut encoder = Encoder::new();
        encoder.bytes(NAME).u64(self.modes[0].into()).u64(self.modes[1].into());
        for (path, entry) in self.listing {
            encoder.bytes(path.as_str().as_bytes()).u64((self.mtime_ns)(path).cast_unsigned());
            match entry {
                Entry::File { digest, executable, .. } => encoder.u8(u8::from(*executable)).digest(digest),
                Entry::Link { target } => encoder.u8(2).bytes(target.as_bytes()),
                Entry::Dir => encoder.u8(3),
            };
        }
        for dir in self.directories() {
            encoder.bytes(dir.as_str().as_bytes()).u64((self.mtime_ns)(&dir).cast_unsigned());
        }
        Digest::of(encoder.as_slice()).to_hex()[..32].to_owned()
    }

    /// Makes it at a path where nothing is.
    fn make<E: From<FsError>>(&self, it: &Path, fill: &mut Fill<'_, E>) -> Result<bool, E> {
        let dirs = self.directories();
        for dir in &dirs {
            let place = at(it, dir);
            ops::create_dir(&place)?;
            ops::set_mode(&place, DIR_MODE)?;
        }
        for (path, entry) in self.listing {
            let place = at(it, path);
            match entry {
                Entry::File { digest, size, executable } => {
                    if !fill(path, digest, *size, &place)? {
                        return Ok(false);
                    }
                    ops::set_mode(&place, self.mode(*executable))?;
                    ops::set_times(&place, (self.mtime_ns)(path))?;
                }
                Entry::Link { target } => {
                    ops::symlink(target, &place)?;
                    ops::set_times(&place, (self.mtime_ns)(path))?;
                }
                Entry::Dir => {}
            }
        }
        for dir in &dirs {
            ops::set_times(&at(it, dir), (self.mtime_ns)(dir))?;
        }
        Ok(true)
    }

    /// Whether this and nothing else lies there. Cost: one read of every file.
    fn is_at(&self, it: &Path) -> Result<bool, FsError> {
        let dirs = self.directories();
        if let Some(root) = dirs.first() {
            assert!(root.is_root(), "BUG: {root} stands above all others, and is not the root");
            let names = dirs.iter().chain(self.listing.keys()).filter(|path| !path.is_root());
            let expected: BTreeSet<&RelPath> = names.collect();
            let Ok(found) = walk::walk_all(it) else { return Ok(false) };
            if found.len() != expected.len() || !found.iter().all(|found| expected.contains(&found.path)) {
                return Ok(false);
            }
        }
        let as_kept = |path: &RelPath| -> Result<Option<StatKey>, FsError> {
            let stat = ops::if_there(StatKey::at(&at(it, path)))?;
            Ok(stat.filter(|stat| stat.mtime_ns == (self.mtime_ns)(path)))
        };
        for dir in &dirs {
            if as_kept(dir)?.is_none_or(|stat| !stat.is_dir() || stat.mode & 0o7777 != DIR_MODE) {
                return Ok(false);
            }
        }
        for (path, entry) in self.listing {
            let Some(stat) = as_kept(path)? else { return Ok(false) };
            let is_right = match entry {
                Entry::File { digest, size, executable } => {
                    stat.is_file()
                        && stat.size == *size
                        && stat.mode & 0o7777 == self.mode(*executable)
                        && digest_file(&at(it, path))?.0 == *digest
                }
                Entry::Link { target } => {
                    stat.is_link() && ops::read_link(&at(it, path))?.as_os_str() == target.as_str()
                }
                Entry::Dir => true,
            };
            if !is_right {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Joining an empty path would add a slash, and make a file a directory.
fn at(it: &Path, path: &RelPath) -> PathBuf {
    if path.is_root() { it.to_owned() } else { it.join(path.as_str()) }
}

impl Store {
    /// Where what is wanted is kept; makes it if it is not. `None` if `fill` could not give one of the contents.
    ///
    /// Nobody may change it. It stays as long as this session, or one that asks for it later, lives.
    /// Cost: a few small reads and one write where it is there already; else one file for each.
    pub fn keep<E: From<StoreError> + From<FsError>>(
        &self,
        keep: &Keep<'_>,
        fill: &mut Fill<'_, E>,
    ) -> Result<Option<PathBuf>, E> {
        let session = self.session()?;
        let name = keep.name();
        let lock_path = self.layout.kept_lock(&name);
        let place = self.layout.kept(&name);
        let it = place.join("it");
        let boot = ops::boot_id();
        let is_of_this_boot = || -> Result<bool, FsError> {
            Ok(boot.is_some() && ops::if_there(ops::read_text(&place.join("boot")))? == boot)
        };
        {
            let lock = lock::wait_named(&lock_path, Sharing::Shared)?;
            if is_of_this_boot()? {
                self.note_kept(session.lease.started_ms(), &lock, &lock_path, None)?;
                return Ok(Some(it));
            }
        }
        let lock = lock::wait_named(&lock_path, Sharing::Exclusive)?;
        if !is_of_this_boot()? {
            if ops::exists(&place) && keep.is_at(&it)? {
                let boot = boot.as_deref().unwrap_or_default();
                atomic::write(&place.join("boot"), boot.as_bytes(), Durability::Relaxed)?;
            } else {
                let made = self.layout.scratch("stage").join(session.lease.scratch_name());
                ops::create_dir(&made)?;
                // What is in it may be nobody else's business, and everybody may read the files.
                ops::set_mode(&made, 0o700)?;
                let whole = keep.make(&made.join("it"), fill);
                if !matches!(whole, Ok(true)) {
                    drop(ops::remove_all(&made));
                    return whole.map(|_| None);
                }
                ops::write(&made.join("boot"), boot.as_deref().unwrap_or_default().as_bytes())?;
                // Half of what is on its way out must not be found under its name.
                let trash = self.layout.scratch("trash").join(session.lease.scratch_name());
                ops::if_there(ops::rename(&place, &trash))?;
                ops::rename(&made, &place)?;
                ops::remove_all(&trash)?;
            }
        }
        let bytes = keep.listing.values().map(|entry| match entry {
            Entry::File { size, .. } => *size,
            Entry::Link { .. } | Entry::Dir => 0,
        });
        self.note_kept(session.lease.started_ms(), &lock, &lock_path, Some(bytes.sum()))?;
        Ok(Some(it))
    }

    fn note_kept(&self, started_ms: i64, lock: &Lock, path: &Path, bytes: Option<u64>) -> Result<(), FsError> {
        let mut mark = Mark::read(path)?;
        // Never the same twice: collection takes what was not used since it looked.
        mark.used_ms = self.now_ms().max(started_ms).max(mark.used_ms + 1);
        if let Some(bytes) = bytes {
            mark.bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            mark.measured_ms = self.now_ms().max(1);
        }
        mark.write(lock, path)
    }
}
