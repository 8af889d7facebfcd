//! Files and directories kept to be shown to commands as they are, each under the name of all that can be seen of it. Knows no views.
//!
//! `kept/<32 hex>/it` is the file or directory, `kept/<32 hex>/seal` its seal, `locks/kept/<32 hex>` its lock file, with the same
//! mark as that of a cache. Nothing is synced: where the seal does not hold, after a reboot at the latest, all of it is read once, and
//! made anew if it is not what its name says. No file in it has a second name, so that nobody sees how many others show it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::fs::atomic::{self, Durability};
use crate::fs::lock::{self, Lock, Sharing};
use crate::fs::ops::{self, FsError, Kind};
use crate::store::caches::Mark;
use crate::store::error::StoreError;
use crate::store::open::{Session, Store};
use crate::store::seen::{self, Fill, Keep};

/// How far uses at the same moment may push the mark of the last one ahead, in milliseconds.
const MARK_AHEAD_MS_MAX: i64 = 60_000;

/// Names of what was found whole in one session: it stays so until the lease is renewed.
#[derive(Debug, Default)]
pub(super) struct Shown(Mutex<BTreeSet<String>>);

impl Shown {
    fn has(&self, name: &str) -> bool {
        self.names().contains(name)
    }

    fn add(&self, name: String) {
        self.names().insert(name);
    }

    /// What is asked for next is looked at again.
    pub fn forget(&self) {
        self.names().clear();
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Where what is wanted is kept; makes it if it is not. `None` if `fill` could not give one of the contents.
    ///
    /// Nobody may change it. It stays as long as this session, or one that asks for it later, lives.
    /// Cost: its name; the first time in a session one `lstat` of every file; if it is not there, one write of each.
    pub fn keep<E: From<StoreError> + From<FsError>>(
        &self,
        keep: &Keep<'_>,
        fill: &mut Fill<'_, E>,
    ) -> Result<Option<PathBuf>, E> {
        let session = self.session()?;
        let name = keep.name();
        let place = self.layout.kept(&name);
        let it = place.join("it");
        if session.shown.has(&name) {
            return Ok(Some(it));
        }
        let lock_path = self.layout.kept_lock(&name);
        {
            let lock = lock::wait_named(&lock_path, Sharing::Shared)?;
            if is_sealed(&place) {
                self.note_kept(session, &lock, &lock_path, None)?;
                session.shown.add(name);
                return Ok(Some(it));
            }
        }
        let lock = lock::wait_named(&lock_path, Sharing::Exclusive)?;
        if !is_sealed(&place) {
            if seen::name_at(&it)?.is_some_and(|found| found == name) {
                seal(&place)?;
            } else if !self.make_kept(session, keep, &place, fill)? {
                return Ok(None);
            }
        }
        self.note_kept(session, &lock, &lock_path, Some(keep.bytes()))?;
        session.shown.add(name);
        Ok(Some(it))
    }

    fn make_kept<E: From<StoreError> + From<FsError>>(
        &self,
        session: &Session,
        keep: &Keep<'_>,
        place: &Path,
        fill: &mut Fill<'_, E>,
    ) -> Result<bool, E> {
        let made = self.layout.scratch("stage").join(session.lease.scratch_name());
        ops::create_dir(&made)?;
        // What is in it may be nobody else's business, and everybody may read the files.
        ops::set_mode(&made, 0o700)?;
        let whole = keep.make(&made.join("it"), fill);
        if !matches!(whole, Ok(true)) {
            drop(ops::remove_all(&made));
            return whole;
        }
        seal(&made)?;
        self.throw_away(session, place)?;
        ops::rename(&made, place)?;
        Ok(true)
    }

    /// Half of what is on its way out must not be found under its name.
    fn throw_away(&self, session: &Session, place: &Path) -> Result<(), FsError> {
        let trash = self.layout.scratch("trash").join(session.lease.scratch_name());
        ops::if_there(ops::rename(place, &trash))?;
        ops::remove_all(&trash)
    }

    fn note_kept(&self, session: &Session, lock: &Lock, path: &Path, bytes: Option<u64>) -> Result<(), FsError> {
        let mut mark = Mark::read(path)?;
        let now_ms = self.now_ms().max(session.lease.started_ms());
        // Never the same twice: collection takes what was not used since it looked. But a mark that lies far ahead was made before
        // the clock was set back, or is damaged, and would keep this for ever.
        let is_near = mark.used_ms.saturating_sub(now_ms) < MARK_AHEAD_MS_MAX;
        mark.used_ms = if is_near { now_ms.max(mark.used_ms.saturating_add(1)) } else { now_ms };
        if let Some(bytes) = bytes {
            mark.bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            mark.measured_ms = self.now_ms().max(1);
        }
        mark.write(lock, path)
    }

    /// Names of what is kept and is not what its name says. Cost: one read of all of it, on the calling rayon pool.
    pub(super) fn damaged_kept(&self) -> Result<Vec<String>, FsError> {
        let entries = ops::if_there(ops::read_dir(&self.layout.all_kept()))?.unwrap_or_default();
        let names = entries.into_iter().filter(|entry| entry.kind == Kind::Dir);
        let mut names: Vec<String> = names.map(|entry| entry.name.to_string_lossy().into_owned()).collect();
        names.sort();
        let verdicts: Vec<bool> = names.par_iter().map(|name| self.is_damaged(name)).collect::<Result<_, _>>()?;
        Ok(names.into_iter().zip(verdicts).filter_map(|(name, is_damaged)| is_damaged.then_some(name)).collect())
    }

    /// Removes what is kept if it is still damaged: another process may have made it anew meanwhile.
    pub(super) fn drop_kept(&self, name: &str) -> Result<(), StoreError> {
        let session = self.session()?;
        let lock_path = self.layout.kept_lock(name);
        let _lock = lock::wait_named(&lock_path, Sharing::Exclusive)?;
        if self.is_damaged(name)? {
            self.throw_away(session, &self.layout.kept(name))?;
            ops::remove_file(&lock_path)?;
        }
        Ok(())
    }

    fn is_damaged(&self, name: &str) -> Result<bool, FsError> {
        let place = self.layout.kept(name);
        let found = seen::name_at(&place.join("it"))?;
        // Thrown away since it was listed.
        Ok(found.is_none_or(|found| found != name) && ops::exists(&place))
    }
}

/// Without a boot that can be told there is no seal: everything is read every time.
fn seal(place: &Path) -> Result<(), FsError> {
    let Some(boot) = ops::boot_id() else { return Ok(()) };
    let Some(seal) = seen::seal(&place.join("it"), &boot) else { return Ok(()) };
    atomic::write(&place.join("seal"), seal.to_hex().as_bytes(), Durability::Relaxed)
}

fn is_sealed(place: &Path) -> bool {
    let Ok(Some(written)) = ops::if_there(ops::read(&place.join("seal"))) else { return false };
    let seal = ops::boot_id().and_then(|boot| seen::seal(&place.join("it"), &boot));
    seal.is_some_and(|seal| seal.to_hex().as_bytes() == written)
}
