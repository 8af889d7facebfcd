//! Files that are kept so that outputs can be hard links to them: a name per content and executable bit. Knows no tree and no task.
//!
//! `links/<2 hex>/<62 hex>` and, executable, `links/<2 hex>/<62 hex>.x`; without permission to write. A link that may be edited is a
//! promise that others break, so nothing rests on it:
//!
//! - They are copies. Blobs lie elsewhere, and are what results are made of: whatever is done to a file here, no content is lost.
//! - Each is read and digested whenever it gets another name, under that name and before anyone is told of it. What is not as it should be
//!   goes, and is made anew from the blob. So no edit is handed on, whoever made it and whatever was done to times and modes, and no
//!   record of signatures has to hold for that.
//! - An edit shows under all names that the file has at that time. In each tree it is a file that is not as it was: its signature differs
//!   by the change time, which nobody can set. The next run there digests it and puts the right content in its place.
//!
//! Nothing is synced and nothing locked: what a power cut left is found out by its digest, and of two processes that make a file the
//! second replaces the name with the same content. The change time of a file is that of its last name that came or went, so it tells
//! which was used last; collection takes those out that were not used longest, and only names go where trees have some too.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::base::digest::Digest;
use crate::fs::digest::digest_open;
use crate::fs::dir::Dir;
use crate::fs::lock::{self, Sharing};
use crate::fs::ops::{self, FsError, Kind};
use crate::fs::stat::StatKey;
use crate::store::blobs::readable;
use crate::store::caches::Mark;
use crate::store::error::StoreError;
use crate::store::open::{Session, Store};

/// How often a file may be found bad, or be taken away, between being made and being linked before a copy is made instead.
const ATTEMPTS_MAX: usize = 4;

/// Permission bits: whoever may read copies may read links, by the umask, and nobody may write.
const WRITE_BITS: u32 = 0o222;

/// What became of a link.
#[derive(Debug)]
pub enum Linked {
    /// It is there, with the signature it had before it was digested.
    Done(StatKey),
    /// The blob is not in the store.
    Gone,
    /// There can be no links here: a copy serves.
    Apart,
}

/// What a session learned about links.
#[derive(Debug, Default)]
pub(super) struct Linking {
    /// There are none between the store and the tree.
    is_apart: AtomicBool,
    /// That was told.
    is_told: AtomicBool,
    /// Files made.
    made: AtomicU64,
    /// Files found changed.
    changed: AtomicU64,
}

/// What collection does with the files.
#[derive(Debug, Default)]
pub(super) struct LinkPlan {
    /// To be removed, least recently used first.
    pub doomed: Vec<PathBuf>,
    /// Bytes of those.
    pub bytes_freed: u64,
    /// Bytes of the others.
    pub bytes_kept: u64,
}

impl Store {
    /// Makes a hard link to a blob's file under a new name, digesting what lies there; makes the file first if it is not kept.
    ///
    /// Nothing lies at the name afterwards unless it is [`Linked::Done`]. Cost: one link and one read; where the file is not kept, one write.
    pub fn link_to(
        &self,
        (digest, size, executable): (&Digest, u64, bool),
        (dir, name): (&Dir, &OsStr),
    ) -> Result<Linked, StoreError> {
        let Some(session) = self.writable().filter(|session| !session.linking.is_apart.load(Ordering::Relaxed)) else {
            return Ok(Linked::Apart);
        };
        let (shard_path, kept) = self.layout.kept_link(digest, executable);
        for _ in 0..ATTEMPTS_MAX {
            let shard = ops::if_there(Dir::open(&shard_path))?;
            let linked = shard.as_ref().map(|shard| shard.hard_link(&kept, dir, name));
            match linked {
                Some(Ok(())) => {}
                Some(Err(error)) if error.is_across_file_systems() || has_no_links(&error) => {
                    session.linking.is_apart.store(true, Ordering::Relaxed);
                    return Ok(Linked::Apart);
                }
                // It has as many names as a file may have: those stay, and another file takes its place.
                Some(Err(error)) if !error.is_missing() && !has_all_names(&error) => return Err(error.into()),
                _ => {
                    if !self.make_link(session, (digest, size, executable))? {
                        return Ok(Linked::Gone);
                    }
                    continue;
                }
            }
            match sound(dir, name, (digest, size, executable)) {
                Ok(Some(stat)) => return Ok(Linked::Done(stat)),
                Ok(None) => session.linking.changed.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    drop(dir.remove_file(name));
                    return Err(error.into());
                }
            };
            dir.remove_file(name)?;
            if !self.make_link(session, (digest, size, executable))? {
                return Ok(Linked::Gone);
            }
        }
        Ok(Linked::Apart)
    }

    /// Makes the file, in place of one that may be there; `false` if the blob is not in the store.
    fn make_link(
        &self,
        session: &Session,
        (digest, size, executable): (&Digest, u64, bool),
    ) -> Result<bool, StoreError> {
        let temporary = self.temporary(session);
        let (tmp, name) = Dir::above(&temporary)?;
        if !self.write_with_mode(digest, size, (&tmp, name), if executable { 0o555 } else { 0o444 })? {
            return Ok(false);
        }
        let (shard, kept) = self.layout.kept_link(digest, executable);
        let place = shard.join(kept);
        let moved = match ops::rename(&temporary, &place) {
            Err(error) if error.is_missing() => {
                ops::create_dir_all(&shard).and_then(|()| ops::rename(&temporary, &place))
            }
            moved => moved,
        };
        if moved.is_err() {
            drop(ops::remove_file(&temporary));
        }
        session.linking.made.fetch_add(1, Ordering::Relaxed);
        Ok(moved.map(|()| true)?)
    }

    /// Whether it was found that there can be no links here; once.
    pub fn take_apart_from_links(&self) -> bool {
        self.writable().is_some_and(|session| {
            session.linking.is_apart.load(Ordering::Relaxed) && !session.linking.is_told.swap(true, Ordering::Relaxed)
        })
    }

    /// How many files that outputs are links to were found changed since this was asked last.
    pub fn take_changed_links(&self) -> u64 {
        self.writable().map_or(0, |session| session.linking.changed.swap(0, Ordering::Relaxed))
    }

    /// Removes the files of a blob; other names that they have stay.
    pub(super) fn drop_links(&self, digest: &Digest) -> Result<(), FsError> {
        [false, true].into_iter().try_for_each(|executable| {
            let (shard, kept) = self.layout.kept_link(digest, executable);
            ops::remove_file(&shard.join(kept))
        })
    }

    /// Every file, least recently used first, with its bytes and when that was. Cost: one `stat` each.
    fn links(&self) -> Result<Vec<(StatKey, PathBuf)>, FsError> {
        let mut links = Vec::new();
        for shard in ops::if_there(ops::read_dir(&self.layout.links()))?.unwrap_or_default() {
            let shard = self.layout.links().join(shard.name);
            let entries = ops::if_there(ops::read_dir(&shard));
            for entry in entries.ok().flatten().unwrap_or_default() {
                let path = shard.join(entry.name);
                if entry.kind == Kind::File
                    && let Some(stat) = ops::if_there(StatKey::at(&path))?
                {
                    links.push((stat, path));
                }
            }
        }
        links.sort_by(|(one, at), (other, place)| (one.ctime_ns, at).cmp(&(other.ctime_ns, place)));
        Ok(links)
    }

    /// Bytes of all files, as they were counted last; counted now if this session made some.
    pub(super) fn link_bytes(&self) -> Result<u64, FsError> {
        let Some(session) = self.writable() else { return Ok(0) };
        let path = self.layout.lock("links");
        let mark = Mark::read(&path)?;
        if session.linking.made.swap(0, Ordering::Relaxed) == 0 {
            return Ok(u64::try_from(mark.bytes).unwrap_or(0));
        }
        let bytes = self.links()?.iter().fold(0_u64, |bytes, (stat, _)| bytes.saturating_add(stat.size));
        self.note_link_bytes(bytes)?;
        Ok(bytes)
    }

    fn note_link_bytes(&self, bytes: u64) -> Result<(), FsError> {
        let path = self.layout.lock("links");
        // Whoever holds it counts right now.
        let Some(lock) = lock::attempt(&path, Sharing::Exclusive)? else { return Ok(()) };
        let now_ms = self.now_ms();
        Mark { used_ms: now_ms, measured_ms: now_ms, bytes: i64::try_from(bytes).unwrap_or(i64::MAX) }
            .write(&lock, &path)
    }

    /// Which files go so that the rest takes at most `bytes_max`, and none was used last before `used_ms_min`.
    pub(super) fn plan_links(&self, bytes_max: u64, used_ms_min: i64) -> Result<LinkPlan, FsError> {
        let links = self.links()?;
        let bytes_kept = links.iter().fold(0_u64, |bytes, (stat, _)| bytes.saturating_add(stat.size));
        let mut plan = LinkPlan { bytes_kept, ..LinkPlan::default() };
        for (stat, path) in links {
            if plan.bytes_kept > bytes_max || stat.ctime_ns / 1_000_000 < used_ms_min {
                plan.bytes_kept = plan.bytes_kept.saturating_sub(stat.size);
                plan.bytes_freed = plan.bytes_freed.saturating_add(stat.size);
                plan.doomed.push(path);
            }
        }
        Ok(plan)
    }

    /// Removes files; who is about to link to one makes it anew.
    pub(super) fn remove_links(&self, plan: &LinkPlan) -> Result<(), FsError> {
        plan.doomed.iter().try_for_each(|path| ops::remove_file(path))?;
        if plan.doomed.is_empty() { Ok(()) } else { self.note_link_bytes(plan.bytes_kept) }
    }

    /// Files that are not what their names say, by their paths in the store. Cost: one read of all, on the calling rayon pool.
    pub(super) fn damaged_links(&self) -> Result<Vec<String>, FsError> {
        let verdicts: Vec<Option<String>> = self
            .links()?
            .par_iter()
            .map(|(_, path)| {
                let name = path.strip_prefix(self.layout.dir()).unwrap_or(path).to_string_lossy().into_owned();
                Ok(is_damaged(path)?.then_some(name))
            })
            .collect::<Result<_, FsError>>()?;
        Ok(verdicts.into_iter().flatten().collect())
    }

    /// Removes one of them if it is still damaged.
    pub(super) fn drop_damaged_link(&self, name: &str) -> Result<(), FsError> {
        let path = self.layout.dir().join(name);
        if is_damaged(&path)? { ops::remove_file(&path) } else { Ok(()) }
    }
}

/// Whether a file is not what its name says; one that is gone is not.
fn is_damaged(path: &Path) -> Result<bool, FsError> {
    let Some((shard, name)) = ops::if_there(Dir::above(path))? else { return Ok(false) };
    let Some(stat) = ops::if_there(shard.stat(name))? else { return Ok(false) };
    let named = || {
        let prefix = path.parent()?.file_name()?.to_str()?;
        let name = name.to_str()?;
        let (hex, executable) = name.strip_suffix(".x").map_or((name, false), |hex| (hex, true));
        Some((Digest::parse(&format!("{prefix}{hex}"))?, executable))
    };
    let Some((digest, executable)) = named() else { return Ok(true) };
    Ok(readable(sound(&shard, name, (&digest, stat.size, executable)))?.flatten().is_none())
}

/// The file that has a name, if it is what it should be: by its mode, which keeps others from writing, and by its content. The signature
/// is taken first, so that it is that of what is read or of something older.
fn sound(
    dir: &Dir,
    name: &OsStr,
    (digest, size, executable): (&Digest, u64, bool),
) -> Result<Option<StatKey>, FsError> {
    let Ok((file, stat)) = dir.open_file(name) else { return Ok(None) };
    if stat.mode & WRITE_BITS != 0 || stat.is_executable() != executable || stat.size != size {
        return Ok(None);
    }
    let found = digest_open(&file, &dir.at(name))?;
    Ok((found == (*digest, size)).then_some(stat))
}

/// Whether the system makes no links there at all, or not to a file of this owner (`fs.protected_hardlinks`).
fn has_no_links(error: &FsError) -> bool {
    error.is_unsupported() || matches!(error.cause.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

/// Whether a file has as many names as it may have.
fn has_all_names(error: &FsError) -> bool {
    error.cause.raw_os_error() == Some(libc::EMLINK)
}
