//! Directories that tasks keep between their runs: one user at a time, counted, and evicted least recently used first.
//!
//! `caches/<name>` is the directory, `locks/caches/<name>` its lock file, which also tells when it was used last and how large
//! it was found. A cache is no result: nothing
//! in a key depends on what is in it, so it may go at any time it is not in use. What is kept to be shown (`store::kept`) shares their
//! room and their fate, but is held by the session and not by a lock.

use std::io::Seek;
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::fs::lock::{self, Lock, Sharing};
use crate::fs::ops::{self, AtPath, FsError, Kind};
use crate::store::error::StoreError;
use crate::store::layout::Layout;
use crate::store::locks::live_leases;
use crate::store::open::Store;

/// Share of the store's cap that caches may take, in percent. Results take what is left.
const SHARE_PERCENT: u64 = 25;
/// How long the size of a cache that is in use again and again is believed, in milliseconds.
const MEASURE_INTERVAL_MS: i64 = 10 * 60 * 1000;

/// A cache in the hands of one task; no other task and no collection touches it meanwhile.
#[derive(Debug)]
pub struct CacheDir {
    path: PathBuf,
    is_new: bool,
    lock_path: PathBuf,
    lock: Lock,
    clock: fn() -> i64,
}

impl CacheDir {
    /// The directory; absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes everything that was in it, so that it stays removed even if the power fails.
    pub fn clear(&self) -> Result<(), StoreError> {
        if self.is_new {
            return Ok(());
        }
        ops::remove_all(&self.path)?;
        ops::create_dir(&self.path)?;
        self.path.parent().map_or(Ok(()), |caches| Ok(ops::sync_dir(caches)?))
    }

    /// Removes it with everything that was in it: nobody needs it any more.
    pub fn remove(self) -> Result<(), StoreError> {
        ops::remove_all(&self.path)?;
        // Still held: whoever waits for it starts over with a file of its own.
        Ok(ops::remove_file(&self.lock_path)?)
    }

    fn begin(layout: &Layout, name: &str, lock: Lock, clock: fn() -> i64) -> Result<Self, FsError> {
        let path = layout.cache(name);
        let is_new = !ops::exists(&path);
        ops::create_dir_all(&path)?;
        let cache = Self { path, is_new, lock_path: layout.cache_lock(name), lock, clock };
        cache.note_use()?;
        Ok(cache)
    }

    fn note_use(&self) -> Result<(), FsError> {
        note_use(&self.lock, &self.lock_path, (self.clock)())
    }
}

impl Drop for CacheDir {
    fn drop(&mut self) {
        if let Err(error) = self.note_use() {
            tracing::debug!(%error, "when a cache was used last was not noted");
        }
    }
}

/// Writes down that a cache is in use.
pub(super) fn note_use(lock: &Lock, lock_path: &Path, now_ms: i64) -> Result<(), FsError> {
    let mark = Mark::read(lock_path)?;
    Mark { used_ms: now_ms, ..mark }.write(lock, lock_path)
}

/// What a lock file tells of its cache; zeros where nothing was written yet.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Mark {
    /// When it was used last.
    pub used_ms: i64,
    /// When its size was taken; 0 for never.
    pub measured_ms: i64,
    /// Its size then.
    pub bytes: i64,
}

impl Mark {
    /// Reads it from a lock file.
    pub fn read(lock_path: &Path) -> Result<Self, FsError> {
        let bytes = ops::if_there(ops::read(lock_path))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Ok(Self { used_ms: next(), measured_ms: next(), bytes: next() })
    }

    /// Writes it to a lock file, as its holder.
    pub fn write(self, lock: &Lock, lock_path: &Path) -> Result<(), FsError> {
        let Self { used_ms, measured_ms, bytes } = self;
        let mut file = lock.file();
        file.rewind().at("write", lock_path)?;
        // One write of fixed length: never seen half done.
        ops::write_all(file, lock_path, format!("{used_ms:020} {measured_ms:020} {bytes:020}\n").as_bytes())
    }

    /// Whether the size may have changed by more than matters since it was taken.
    fn is_stale(&self, now_ms: i64) -> bool {
        let age_ms = now_ms.saturating_sub(self.measured_ms);
        if age_ms < 0 {
            // Measured before the clock was set back.
            return true;
        }
        self.measured_ms == 0 || (self.measured_ms <= self.used_ms && age_ms >= MEASURE_INTERVAL_MS)
    }
}

/// A cache as collection sees it.
#[derive(Debug)]
pub(super) struct Cache {
    kind: Kept,
    name: String,
    used_ms: i64,
    bytes: u64,
}

/// For what something is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    /// For the next run of one task.
    Cache,
    /// To be shown to commands.
    Shown,
}

impl Cache {
    fn path(&self, layout: &Layout) -> PathBuf {
        match self.kind {
            Kept::Cache => layout.cache(&self.name),
            Kept::Shown => layout.kept(&self.name),
        }
    }

    fn lock_path(&self, layout: &Layout) -> PathBuf {
        match self.kind {
            Kept::Cache => layout.cache_lock(&self.name),
            Kept::Shown => layout.kept_lock(&self.name),
        }
    }
}

/// Whose sizes are taken anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Measure {
    /// All.
    Every,
    /// Those that were used since, but not too often.
    Stale,
}

/// What collection does with the caches.
#[derive(Debug, Default)]
pub(super) struct CachePlan {
    /// To be removed, least recently used first.
    pub doomed: Vec<Cache>,
    /// Bytes of those.
    pub bytes_freed: u64,
    /// Bytes of the others.
    pub bytes_kept: u64,
}

/// Bytes that caches may take under a cap.
pub(super) fn share(bytes_max: u64) -> u64 {
    bytes_max / 100 * SHARE_PERCENT
}

/// Bytes of all of them.
pub(super) fn total(caches: &[Cache]) -> u64 {
    caches.iter().fold(0, |bytes, cache| bytes.saturating_add(cache.bytes))
}

impl Store {
    /// The cache of this name, made if it is not there; waits while another task or process uses it.
    ///
    /// A task that needs several asks for them in one order everywhere, such as that of their names.
    pub fn cache_dir(&self, name: &str) -> Result<CacheDir, StoreError> {
        self.session()?;
        let name = directory_name(name);
        let lock = lock::wait_named(&self.layout.cache_lock(&name), Sharing::Exclusive)?;
        Ok(CacheDir::begin(&self.layout, &name, lock, self.clock)?)
    }

    /// The cache of this name unless someone else uses it.
    pub fn try_cache_dir(&self, name: &str) -> Result<Option<CacheDir>, StoreError> {
        self.session()?;
        let name = directory_name(name);
        let lock = lock::attempt_named(&self.layout.cache_lock(&name), Sharing::Exclusive)?;
        Ok(lock.map(|lock| CacheDir::begin(&self.layout, &name, lock, self.clock)).transpose()?)
    }

    /// Every cache and all that is kept to be shown, least recently used first. Cost: one small read each, and a walk of those that are measured.
    pub(super) fn caches(&self, measure: Measure) -> Result<Vec<Cache>, FsError> {
        let mut caches = Vec::new();
        for (kind, dir) in [(Kept::Cache, self.layout.caches()), (Kept::Shown, self.layout.all_kept())] {
            for entry in ops::if_there(ops::read_dir(&dir))?.unwrap_or_default() {
                let Some(name) = entry.name.to_str().filter(|_| entry.kind == Kind::Dir) else { continue };
                let mut cache = Cache { kind, name: name.to_owned(), used_ms: 0, bytes: 0 };
                let lock_path = cache.lock_path(&self.layout);
                let mut mark = Mark::read(&lock_path)?;
                // What is shown never changes.
                let grows = kind == Kept::Cache || mark.measured_ms == 0;
                if grows && (measure == Measure::Every || mark.is_stale(self.now_ms())) {
                    mark.bytes = i64::try_from(bytes_below(&cache.path(&self.layout))).unwrap_or(i64::MAX);
                    mark.measured_ms = self.now_ms();
                    // Whoever uses it right now writes the file; then it is measured once more next time.
                    if self.writable().is_some()
                        && let Some(lock) = lock::attempt_named(&lock_path, Sharing::Exclusive)?
                    {
                        mark.write(&lock, &lock_path)?;
                    }
                }
                cache.used_ms = mark.used_ms;
                cache.bytes = u64::try_from(mark.bytes).unwrap_or(0);
                caches.push(cache);
            }
        }
        caches.sort_by(|one, other| one.used_ms.cmp(&other.used_ms).then_with(|| one.name.cmp(&other.name)));
        Ok(caches)
    }

    /// Which of the caches go so that the rest takes at most `bytes_max`, and none was used last before `used_ms_min`.
    pub(super) fn plan_caches(
        &self,
        caches: Vec<Cache>,
        bytes_max: u64,
        used_ms_min: i64,
    ) -> Result<CachePlan, FsError> {
        let mut plan = CachePlan { bytes_kept: total(&caches), ..CachePlan::default() };
        let horizon_ms = live_leases(&self.layout)?.oldest_ms;
        for cache in caches {
            let goes = plan.bytes_kept > bytes_max || cache.used_ms < used_ms_min;
            let is_held = cache.kind == Kept::Shown && cache.used_ms >= horizon_ms;
            let free = || lock::attempt_named(&cache.lock_path(&self.layout), Sharing::Exclusive);
            if goes && !is_held && free()?.is_some() {
                plan.bytes_kept = plan.bytes_kept.saturating_sub(cache.bytes);
                plan.bytes_freed = plan.bytes_freed.saturating_add(cache.bytes);
                plan.doomed.push(cache);
            }
        }
        Ok(plan)
    }

    /// Removes caches; one that came into use meanwhile stays.
    pub(super) fn remove_caches(&self, doomed: &[Cache]) -> Result<(), StoreError> {
        let session = self.session()?;
        for cache in doomed {
            let lock_path = cache.lock_path(&self.layout);
            let Some(lock) = lock::attempt_named(&lock_path, Sharing::Exclusive)? else { continue };
            if cache.kind == Kept::Shown && Mark::read(&lock_path)?.used_ms != cache.used_ms {
                continue;
            }
            // Renamed first: half a cache must not be found under its name.
            let trash = self.layout.scratch("trash").join(session.lease.scratch_name());
            ops::if_there(ops::rename(&cache.path(&self.layout), &trash))?;
            ops::remove_file(&lock_path)?;
            drop(lock);
            ops::remove_all(&trash)?;
        }
        Ok(())
    }
}

pub(super) fn directory_name(name: &str) -> String {
    Digest::of(name.as_bytes()).to_hex()[..32].to_owned()
}

/// Bytes of all files below a directory. What vanishes or cannot be read meanwhile counts nothing.
fn bytes_below(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in ops::read_dir(dir).unwrap_or_default() {
        let path = dir.join(&entry.name);
        bytes += match entry.kind {
            Kind::Dir => bytes_below(&path),
            _ => ops::symlink_metadata(&path).map_or(0, |meta| meta.len()),
        };
    }
    bytes
}
