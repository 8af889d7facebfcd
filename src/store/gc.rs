//! Collection: least recently used results first, then everything that no result names; caches of tasks apart. Knows nothing of why.
//!
//! Order: the gate is closed ([`crate::store::locks`]), so that every use by every live process is in the database; the
//! results are walked from the most recently used; what fits under the cap, and everything that was put or used since
//! the oldest live lease began, stays; rows go, then files go to `trash/`; the gate opens; the trash is
//! unlinked. A crash in between leaves files without rows, which the next collection finds.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::limits::{DAMAGED_DAYS, MEMORY_DAYS};
use crate::base::time::human_bytes;
use crate::fs::lock::{self, Sharing};
use crate::fs::ops::{self, FsError};
use crate::store::caches::{self, CachePlan, Measure};
use crate::store::content::{self, Key, Kind, Row, int};
use crate::store::error::StoreError;
use crate::store::history;
use crate::store::ledger;
use crate::store::locks::{LiveLeases, live_leases, sweep_action_locks, wait_exclusive};
use crate::store::losses;
use crate::store::mark::{Marked, Marking};
use crate::store::open::{Session, Store};
use crate::store::packs;
use crate::store::path_sets;
use crate::store::recover;
use crate::store::results;

/// Whether collection only tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GcMode {
    /// Tell what would go.
    DryRun,
    /// Remove it.
    Delete,
}

/// What to collect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GcOptions {
    /// Whether to do it.
    pub mode: GcMode,
    /// Bytes that may stay; the store's own cap if not given.
    pub bytes_max: Option<u64>,
    /// Results and caches not used for so many days go even if there is room.
    pub keep_days: Option<u32>,
}

/// What was, or would be, collected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GcReport {
    /// Results removed.
    pub results_removed: u64,
    /// Of these, results that were recorded or used since the store was opened.
    pub new_removed: u64,
    /// Results that stay.
    pub results_kept: u64,
    /// Blobs removed, inside the database and as files.
    pub blobs_removed: u64,
    /// Trees removed.
    pub trees_removed: u64,
    /// Files without a row that were removed.
    pub orphans_removed: u64,
    /// Caches of tasks removed.
    pub caches_removed: u64,
    /// Bytes freed.
    pub bytes_freed: u64,
    /// Bytes that stay.
    pub bytes_kept: u64,
    /// Results and unnamed contents that would have gone, were they not put or used by a session that is still live.
    pub protected: u64,
}

/// Share of the cap down to which automatic collection goes, so that the next run does not collect again, in percent.
const LOW_WATER_PERCENT: u64 = 90;
/// How much is removed in one transaction.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Rows.
    rows: usize,
    /// Packs that lose contents, and may be written anew.
    packs: usize,
}

/// Where there is room.
const STEP: Step = Step { rows: 1000, packs: 64 };
/// On a full disk, within the reserve.
const SMALL_STEP: Step = Step { rows: 50, packs: 1 };
/// Files unlinked by one task of the CPU pool.
const UNLINK_CHUNK: usize = 256;
/// Free pages given back to the file system in one go.
const VACUUM_PAGES: u32 = 100_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl Store {
    /// Collects. Waits for other collections and for everyone who is just storing something.
    ///
    /// Cost: one read of every tree, and of one row per content and result; stores by other processes wait meanwhile.
    pub fn gc(&self, options: GcOptions) -> Result<GcReport, StoreError> {
        let session = self.session()?;
        let _alone = wait_exclusive(&self.layout.lock("gc"))?;
        self.settle()?;
        let bytes_max = options.bytes_max.unwrap_or(self.bytes_max);
        let used_ms_min = options.keep_days.map_or(i64::MIN, |days| self.days_ago_ms(days));
        // Walked before the gate is closed: caches can be large, and have locks of their own.
        let mut caches = self.plan_caches(self.caches(Measure::Every)?, caches::share(bytes_max), used_ms_min)?;
        let links = self.plan_links(caches::share(bytes_max).saturating_sub(caches.bytes_kept), used_ms_min)?;
        caches.bytes_kept = caches.bytes_kept.saturating_add(links.bytes_kept);
        caches.bytes_freed = caches.bytes_freed.saturating_add(links.bytes_freed);
        let closed = session.gate.close()?;
        let plan = self.plan(&options, &caches, live_leases(&self.layout)?)?;
        if options.mode == GcMode::DryRun {
            return Ok(plan.report);
        }
        if !plan.doomed.is_empty() {
            losses::note(&self.layout)?;
        }
        if let Err(error) = self.remove_rows(&plan, STEP) {
            // Removing rows takes space before it gives any back.
            if !(error.is_full() && self.layout.give_reserve_up()) {
                return Err(error);
            }
            self.remove_rows(&plan, SMALL_STEP)?;
        }
        let trash = self.layout.scratch("trash").join(session.lease.scratch_name());
        self.remove_files(&plan, &trash)?;
        drop(closed);
        self.remove_caches(&caches.doomed)?;
        self.remove_links(&links)?;
        self.tidy(session, &trash)?;
        Ok(plan.report)
    }

    /// Collects if the store is over its cap, down to nine tenths of it, and caches if they take more than their share. For the
    /// end of a run: what the run used is no longer protected by its lease. Cost where there is room: one row, and one small
    /// read per cache. That what the run used does not fit is a notice: the next run makes it again.
    pub fn maybe_gc(&self) -> Result<Option<GcReport>, StoreError> {
        // Who needed no database put nothing into it.
        if self.writable().is_none() || !self.database.is_open() {
            return Ok(None);
        }
        self.settle()?;
        let used = self.database.read("read the usage", used_bytes)?;
        let low_water = self.bytes_max / 100 * LOW_WATER_PERCENT;
        let mut caches = self.caches(Measure::Stale)?;
        let mut report = None;
        let mut link_bytes = self.link_bytes()?;
        if caches::total(&caches).saturating_add(link_bytes) > caches::share(self.bytes_max) {
            self.renew_lease()?;
            let mut plan = self.plan_caches(caches, caches::share(low_water), i64::MIN)?;
            self.remove_caches(&plan.doomed)?;
            let links = self.plan_links(caches::share(low_water).saturating_sub(plan.bytes_kept), i64::MIN)?;
            self.remove_links(&links)?;
            link_bytes = links.bytes_kept;
            plan.bytes_freed = plan.bytes_freed.saturating_add(links.bytes_freed);
            plan.bytes_kept = plan.bytes_kept.saturating_add(links.bytes_kept);
            report = Some(GcReport {
                caches_removed: plan.doomed.len() as u64,
                bytes_freed: plan.bytes_freed,
                bytes_kept: used + plan.bytes_kept,
                ..GcReport::default()
            });
            caches = self.caches(Measure::Stale)?;
        }
        let beside = caches::total(&caches).saturating_add(link_bytes);
        let used = used + beside.min(caches::share(self.bytes_max));
        // Whoever collects right now makes room for everyone.
        let is_alone = lock::attempt(&self.layout.lock("gc"), Sharing::Exclusive)?.is_some();
        if used <= self.bytes_max || !is_alone {
            return Ok(report);
        }
        self.renew_lease()?;
        let before = report.unwrap_or_default();
        let mut report = self.gc(GcOptions { mode: GcMode::Delete, bytes_max: Some(low_water), keep_days: None })?;
        if report.new_removed > 0 {
            self.notices.add(
                Diagnostic::warning(format!(
                    "the store is kept below {}, which is less than this run needs: {} of its results {} removed and will be made again",
                    human_bytes(self.bytes_max),
                    report.new_removed,
                    if report.new_removed == 1 { "was" } else { "were" },
                ))
                .help("give it more room: `max-size` in `[store]`, or a store on another disk (`DRYSTONE_STORE`)"),
            );
        }
        report.caches_removed += before.caches_removed;
        report.bytes_freed += before.bytes_freed;
        Ok(Some(report))
    }

    fn days_ago_ms(&self, days: u32) -> i64 {
        self.now_ms().saturating_sub(i64::from(days).saturating_mul(DAY_MS))
    }

    fn plan(&self, options: &GcOptions, caches: &CachePlan, live: LiveLeases) -> Result<Plan, StoreError> {
        let horizon_ms = live.oldest_ms;
        // Uses that are later than this were noted before the clock was set back. Left as they are, they would outlast
        // everything and be protected from every session to come.
        let latest_ms = self.now_ms().max(live.newest_ms);
        let bytes_max = options.bytes_max.unwrap_or(self.bytes_max);
        // A cache that is in use and larger than its share is not paid for by results.
        let room = bytes_max - caches.bytes_kept.min(caches::share(bytes_max));
        let mut rows = self.database.read("list results", results::all)?;
        let mut contents = self.database.read("list content", all_contents)?;
        rows.iter_mut().for_each(|row| row.last_used_ms = row.last_used_ms.min(latest_ms));
        contents.iter_mut().for_each(|(_, row)| row.last_used_ms = row.last_used_ms.min(latest_ms));
        let fingerprints = self.database.read("count fingerprints", history::fingerprint_bytes)?;
        let mut marking = Marking::new(self, &contents, fingerprints);
        let marked = marking.results(
            &rows,
            room,
            options.keep_days.map_or(i64::MIN, |days| self.days_ago_ms(days)),
            horizon_ms,
        )?;
        let Marked { doomed, protected } = marked;
        let new = rows.iter().filter(|row| row.last_used_ms >= self.opened_ms);
        let mut report = GcReport {
            results_removed: doomed.len() as u64,
            new_removed: new.filter(|row| doomed.binary_search(&row.result.action).is_ok()).count() as u64,
            results_kept: (rows.len() - doomed.len()) as u64,
            protected,
            caches_removed: caches.doomed.len() as u64,
            bytes_freed: caches.bytes_freed,
            bytes_kept: caches.bytes_kept,
            ..GcReport::default()
        };
        let mut unnamed = Vec::new();
        for (key, row) in &contents {
            let is_marked = marking.is_marked(key);
            if is_marked || row.last_used_ms >= horizon_ms {
                report.bytes_kept = report.bytes_kept.saturating_add(row.stored);
                report.protected += u64::from(!is_marked);
                continue;
            }
            report.bytes_freed = report.bytes_freed.saturating_add(row.stored);
            match key.kind {
                Kind::Blob => report.blobs_removed += 1,
                Kind::Tree => report.trees_removed += 1,
            }
            unnamed.push((*key, *row));
        }
        // What shares a pack goes together.
        unnamed.sort_by_key(|(_, row)| row.pack());
        let orphans = self.orphans(&contents)?;
        report.orphans_removed = orphans.len() as u64;
        report.bytes_freed += orphans.iter().map(|(_, size)| size).sum::<u64>();
        let orphans = orphans.into_iter().map(|(key, _)| key).collect();
        Ok(Plan { doomed, unnamed, orphans, forgotten_before_ms: self.days_ago_ms(MEMORY_DAYS), latest_ms, report })
    }

    /// Files whose row is missing. With the gate closed nobody is between writing a file and its row.
    pub(super) fn orphans(&self, contents: &[(Key, Row)]) -> Result<Vec<(Key, u64)>, FsError> {
        let known: BTreeSet<&Key> = contents.iter().filter(|(_, row)| row.is_file()).map(|(key, _)| key).collect();
        let mut orphans = Vec::new();
        for kind in Kind::ALL {
            orphans.extend(self.layout.scan(kind)?.into_iter().filter(|(key, _)| !known.contains(key)));
        }
        Ok(orphans)
    }

    fn remove_rows(&self, plan: &Plan, step: Step) -> Result<(), StoreError> {
        let mut connected = None;
        let mut write = |run: &dyn Fn(&Connection) -> rusqlite::Result<()>| {
            self.database.write("collect", &mut connected, |connection| {
                let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
                run(&transaction)?;
                transaction.commit()?;
                if step.rows == SMALL_STEP.rows {
                    // The log is played back into pages that are there, and begins anew. Who reads meanwhile is not waited for.
                    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").ok();
                }
                Ok(())
            })
        };
        // Results first: what no result names may go at any later time. In steps, so that the log stays short on a full disk.
        for actions in plan.doomed.chunks(step.rows) {
            write(&|connection| actions.iter().try_for_each(|action| results::remove(connection, action)))?;
        }
        for contents in steps(&plan.unnamed, step) {
            write(&|connection| remove_contents(connection, contents))?;
        }
        write(&|connection| {
            forget(connection, plan.forgotten_before_ms)?;
            set_back(connection, plan.latest_ms)?;
            recount(connection)
        })
    }

    fn remove_files(&self, plan: &Plan, trash: &std::path::Path) -> Result<(), FsError> {
        if let Err(error) = ops::create_dir(trash) {
            tracing::debug!(%error, "files are removed where they are");
        }
        let files = plan.unnamed.iter().filter(|(_, row)| row.is_file()).map(|(key, _)| key);
        for key in files.chain(&plan.orphans) {
            let (from, name) = (self.layout.content(key), format!("{}-{}", key.kind.dir(), key.digest));
            // A full disk may have no room for one more name; removing here and now only takes longer.
            ops::if_there(ops::rename(&from, &trash.join(name))).map(drop).or_else(|_| ops::remove_file(&from))?;
        }
        Ok(())
    }

    /// What can be done with the gate open again.
    fn tidy(&self, session: &Session, trash: &std::path::Path) -> Result<(), StoreError> {
        let names = ops::if_there(ops::read_dir(trash))?.unwrap_or_default();
        let names: Vec<PathBuf> = names.into_iter().map(|entry| trash.join(entry.name)).collect();
        let chunks: Vec<&[PathBuf]> = names.chunks(UNLINK_CHUNK).collect();
        chunks.into_par_iter().try_for_each(|chunk| chunk.iter().try_for_each(|path| ops::remove_file(path)))?;
        ops::remove_all(trash)?;
        recover::sweep_scratch(&self.layout)?;
        recover::sweep_temporaries(&self.layout)?;
        sweep_action_locks(&self.layout)?;
        self.sweep_workspaces(session)?;
        self.layout.keep_reserve();
        for (at_ms, path) in self.layout.damaged()? {
            if at_ms < self.now_ms().saturating_sub(i64::from(DAMAGED_DAYS) * DAY_MS) {
                ops::remove_file(&path)?;
            }
        }
        self.database.write("give pages back", &mut None, |connection| {
            let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        })
    }

    /// Removes what is kept for workspaces whose root is gone.
    fn sweep_workspaces(&self, session: &Session) -> Result<(), FsError> {
        use std::os::unix::ffi::OsStringExt;
        for entry in ops::read_dir(&self.layout.workspaces())? {
            let dir = self.layout.workspaces().join(entry.name);
            let Some(root) = ops::if_there(ops::read(&dir.join("root")))? else { continue };
            if !ops::exists(&PathBuf::from(std::ffi::OsString::from_vec(root))) {
                // Renamed first: half a directory must not be found under its name.
                let trash = self.layout.scratch("trash").join(session.lease.scratch_name());
                ops::rename(&dir, &trash)?;
                ops::remove_all(&trash)?;
            }
        }
        Ok(())
    }
}

struct Plan {
    doomed: Vec<Digest>,
    unnamed: Vec<(Key, Row)>,
    orphans: Vec<Key>,
    forgotten_before_ms: i64,
    latest_ms: i64,
    report: GcReport,
}

/// Contents by packs, in chunks that are no more than a step. Those of one pack may come to lie in two.
fn steps(contents: &[(Key, Row)], step: Step) -> impl Iterator<Item = &[(Key, Row)]> {
    let mut rest = contents;
    std::iter::from_fn(move || {
        let (mut packs, mut length) = (0, 0);
        let mut last = None;
        for (_, row) in rest.iter().take(step.rows) {
            if row.pack().is_some() && row.pack() != last {
                packs += 1;
                last = row.pack();
            }
            if packs > step.packs {
                break;
            }
            length += 1;
        }
        let (chunk, behind) = rest.split_at(length);
        rest = behind;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Removes rows with what only they name.
fn remove_contents(connection: &Connection, contents: &[(Key, Row)]) -> rusqlite::Result<()> {
    let mut packs = BTreeSet::new();
    for (key, _) in contents {
        // As it is now: what was damaged went meanwhile, and a pack it was in is another one since.
        let Some(row) = content::find(connection, key)? else { continue };
        content::remove_row(connection, key, &row)?;
        packs.extend(row.pack());
    }
    if packs.is_empty() {
        return Ok(());
    }
    let packs: Vec<i64> = packs.into_iter().collect();
    packs::release(connection, &packs).map(drop)
}

/// Every content row, blobs first, in order of the digests.
pub(super) fn all_contents(connection: &Connection) -> rusqlite::Result<Vec<(Key, Row)>> {
    let mut rows = content::all(connection, Kind::Blob)?;
    rows.extend(content::all(connection, Kind::Tree)?);
    Ok(rows)
}

/// The running total of bytes.
pub(super) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT bytes FROM usage WHERE id = 0", [], |row| row.get(0)).map(content::uint)
}

/// Drops memory that nothing refers to any more.
fn forget(connection: &Connection, before_ms: i64) -> rusqlite::Result<()> {
    path_sets::forget(connection, before_ms)?;
    connection.execute("DELETE FROM recent WHERE at_ms < ?1", [before_ms])?;
    connection.execute("DELETE FROM history WHERE at_ms < ?1", [before_ms])?;
    ledger::forget(connection, before_ms)?;
    let mut statement = connection.prepare(
        "SELECT action FROM fingerprint WHERE NOT EXISTS (SELECT 1 FROM recent WHERE recent.action = fingerprint.action) \
         AND NOT EXISTS (SELECT 1 FROM result WHERE result.action = fingerprint.action)",
    )?;
    let unused =
        statement.query_map([], |row| content::digest_column(row, 0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    for action in unused {
        history::remove_fingerprint(connection, &action)?;
    }
    Ok(())
}

/// Brings uses that seem to lie ahead back to `latest_ms`.
fn set_back(connection: &Connection, latest_ms: i64) -> rusqlite::Result<()> {
    connection.execute("UPDATE result SET last_used_ms = ?1 WHERE last_used_ms > ?1", [latest_ms])?;
    connection.execute("UPDATE content SET last_used_ms = ?1 WHERE last_used_ms > ?1", [latest_ms])?;
    Ok(())
}

/// Counts the running total anew.
pub(super) fn recount(connection: &Connection) -> rusqlite::Result<()> {
    let content: i64 = connection.query_row("SELECT coalesce(sum(stored), 0) FROM content", [], |row| row.get(0))?;
    let fingerprints = int(history::fingerprint_bytes(connection)? + path_sets::all_bytes(connection)?);
    let results: i64 = connection.query_row("SELECT count(*) FROM result", [], |row| row.get(0))?;
    let bytes = content + fingerprints + results * int(results::ROW_BYTES);
    connection.execute("UPDATE usage SET bytes = ?1 WHERE id = 0", [bytes])?;
    Ok(())
}
