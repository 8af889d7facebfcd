//! The memory of earlier runs: durations, outcomes, and the fingerprints behind explanations. Decides nothing.
//!
//! A workspace is named `REPOSITORY/WORKTREE`. One store serves many repositories whose tasks have the same labels: nothing
//! here looks beyond the worktrees of one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;

use rusqlite::{Connection, OptionalExtension, params};
use zstd::bulk::Compressor;

use crate::base::digest::Digest;
use crate::base::limits::FINGERPRINTS_PER_TASK;
use crate::store::content::{digest_column, int, uint};
use crate::store::error::StoreError;
use crate::store::open::Store;
use crate::store::pending::QueuedResult;
use crate::store::writer::Job;

/// How one task of one run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskRun {
    /// Label of the task.
    pub label: String,
    /// The workspace it ran in, as `REPOSITORY/WORKTREE`.
    pub workspace: String,
    /// Its action; `None` if it never came to one.
    pub action: Option<Digest>,
    /// `hit`, `ran`, `failed`, `skipped` or `cancelled`. The last two change nothing here.
    pub outcome: &'static str,
    /// Wall time in milliseconds; counts where the task was executed (`ran`, `failed`).
    pub duration_ms: u64,
    /// Whether it failed.
    pub failed: bool,
    /// Largest resident set in KiB; 0 if not known.
    pub max_rss_kib: u64,
    /// When it ended, in milliseconds since 1970.
    pub at_ms: i64,
}

impl TaskRun {
    fn was_executed(&self) -> bool {
        matches!(self.outcome, "ran" | "failed")
    }
}

/// What is known of a task from earlier runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// Weighted mean of the wall time of executed runs, in milliseconds; `None` if it never ran.
    pub duration_ms: Option<u64>,
    /// Whether it failed the last time.
    pub last_failed: bool,
    /// Whether one of its recent actions both passed and failed.
    pub flaky: bool,
    /// Largest resident set ever seen, in KiB.
    pub max_rss_kib: u64,
}

/// Weight of the newest run in the mean.
const DURATION_ALPHA: f64 = 0.3;
/// Level at which fingerprints are packed.
const ZSTD_LEVEL: i32 = 3;
/// Largest fingerprint unpacked, in bytes.
const FINGERPRINT_BYTES_MAX: u64 = 256 * 1024 * 1024;

impl Store {
    /// Notes how a task ended. Nothing depends on it but estimates, flags and explanations.
    pub fn note_run(&self, run: TaskRun) {
        if let Some(session) = self.writable()
            && let Err(error) = session.queue.push(Job::Run(Box::new(run)), None)
        {
            tracing::debug!(%error, "a run was not noted");
        }
    }

    /// What is known of tasks in a workspace; what it does not know itself it takes from the worktree of its repository that
    /// ran last. Tasks never seen are not in the map.
    pub fn history(&self, workspace: &str, labels: &[&str]) -> Result<BTreeMap<String, History>, StoreError> {
        self.settle()?;
        self.database.read("read the history", |connection| {
            let mut known = BTreeMap::new();
            let there = if labels.len() < LABELS_MANY { None } else { Some(labels_of(connection, workspace)?) };
            for label in labels.iter().filter(|label| there.as_ref().is_none_or(|there| there.contains(**label))) {
                if let Some(history) = history_of(connection, workspace, label)? {
                    known.insert((*label).to_owned(), history);
                }
            }
            Ok(known)
        })
    }

    /// The fingerprint recorded for an action, if it is among those kept.
    pub fn fingerprint(&self, action: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let queued = self.writable().and_then(|session| session.queue.pending.result(action));
        let packed = match queued {
            Some(QueuedResult::Record(recording)) => Some(recording.fingerprint.clone()),
            _ => self.database.read("read a fingerprint", |connection| packed_fingerprint(connection, action))?,
        };
        Ok(packed.and_then(|packed| unpack(&packed)))
    }

    /// The fingerprints a task had lately, at most [`FINGERPRINTS_PER_TASK`]: those of this workspace first, then those of other
    /// worktrees of its repository, each newest first.
    pub fn recent_fingerprints(&self, label: &str, workspace: &str) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        // Asked for each task that misses: what is queued about others would make it wait for a commit each time.
        if self.writable().is_some_and(|session| session.queue.pending.has_label(label)) {
            self.settle()?;
        }
        let packed = self.database.read("read fingerprints", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT recent.action, fingerprint.bytes FROM recent JOIN fingerprint USING (action) \
                 WHERE recent.label = ?1 AND substr(recent.workspace, 1, length(?3)) = ?3 \
                 ORDER BY recent.workspace = ?2 DESC, recent.at_ms DESC, recent.action",
            )?;
            let rows = statement.query_map([label, workspace, &repository_of(workspace)], |row| {
                Ok((digest_column(row, 0)?, row.get::<_, Vec<u8>>(1)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let mut seen = BTreeSet::new();
        let fresh = packed.into_iter().filter(|(action, _)| seen.insert(*action));
        Ok(fresh
            .filter_map(|(action, packed)| unpack(&packed).map(|bytes| (action, bytes)))
            .take(FINGERPRINTS_PER_TASK)
            .collect())
    }
}

/// Packs a fingerprint, with a checksum.
pub(super) fn pack(bytes: &[u8]) -> Vec<u8> {
    thread_local! {
        /// Made once by each thread: a new one costs more than packing a fingerprint.
        static PACKER: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    }
    let packed = PACKER.with_borrow_mut(|packer| {
        let packer = match packer {
            Some(packer) => packer,
            none => {
                let mut packer = Compressor::new(ZSTD_LEVEL)?;
                packer.include_checksum(true)?;
                none.insert(packer)
            }
        };
        packer.compress(bytes)
    });
    packed.expect("compressing memory into memory fails only without memory")
}

/// Unpacks one; `None` if it is damaged.
pub(super) fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let decoder = zstd::stream::Decoder::new(packed).ok()?;
    decoder.take(FINGERPRINT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn packed_fingerprint(connection: &Connection, action: &Digest) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT bytes FROM fingerprint WHERE action = ?1")?
        .query_row([action.as_bytes()], |row| row.get(0))
        .optional()
}

/// The part of a workspace's name that all worktrees of its repository share, with the `/` that ends it.
fn repository_of(workspace: &str) -> String {
    format!("{}/", workspace.split('/').next().unwrap_or_default())
}

/// Labels from which on it is first asked which of them were ever seen.
const LABELS_MANY: usize = 1000;

/// Every label that has a history in the repository of a workspace.
fn labels_of(connection: &Connection, workspace: &str) -> rusqlite::Result<HashSet<String>> {
    let mut statement =
        connection.prepare_cached("SELECT DISTINCT label FROM history WHERE substr(workspace, 1, length(?1)) = ?1")?;
    let labels = statement.query_map([repository_of(workspace)], |row| row.get(0))?;
    labels.collect()
}

fn history_of(connection: &Connection, workspace: &str, label: &str) -> rusqlite::Result<Option<History>> {
    let mut statement = connection.prepare_cached(
        "SELECT workspace, runs, duration_ms, last_failed, max_rss_kib FROM history \
         WHERE label = ?1 AND substr(workspace, 1, length(?3)) = ?3 ORDER BY workspace = ?2 DESC, at_ms DESC, workspace",
    )?;
    let rows = statement
        .query_map([label, workspace, &repository_of(workspace)], |row| {
            let duration: f64 = row.get(2)?;
            let known = row.get::<_, i64>(1)? > 0;
            // Durations are whole milliseconds from here on; the fraction only serves the mean.
            let duration_ms = known.then_some(duration.max(0.0).round() as u64);
            Ok((row.get::<_, String>(0)?, duration_ms, row.get::<_, bool>(3)?, uint(row.get(4)?)))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let Some((newest, _, last_failed, _)) = rows.first() else { return Ok(None) };
    let is_own = workspace == newest;
    Ok(Some(History {
        duration_ms: rows.iter().find_map(|(_, duration_ms, _, _)| *duration_ms),
        // That another workspace's task of the same name failed says nothing about this one.
        last_failed: is_own && *last_failed,
        flaky: is_flaky(connection, workspace, label)?,
        max_rss_kib: rows.iter().map(|(_, _, _, max_rss_kib)| *max_rss_kib).max().unwrap_or(0),
    }))
}

fn is_flaky(connection: &Connection, workspace: &str, label: &str) -> rusqlite::Result<bool> {
    // Passed here and failed in another worktree under one action digest is flaky too.
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM recent AS own JOIN recent AS any USING (action) \
             WHERE own.label = ?1 AND own.workspace = ?2 \
             GROUP BY action HAVING sum(any.passed) > 0 AND sum(any.failed) > 0)",
        )?
        .query_row(params![label, workspace], |row| row.get(0))
}

/// Notes that a task had an action.
pub(super) fn use_action(
    connection: &Connection,
    label: &str,
    workspace: &str,
    action: &Digest,
    at_ms: i64,
) -> rusqlite::Result<()> {
    note_action(connection, (label, workspace, action), at_ms, (0, 0))
}

fn note_action(
    connection: &Connection,
    (label, workspace, action): (&str, &str, &Digest),
    at_ms: i64,
    (passed, failed): (i64, i64),
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO recent (label, workspace, action, at_ms, passed, failed) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT DO UPDATE SET at_ms = max(at_ms, excluded.at_ms), \
             passed = passed + excluded.passed, failed = failed + excluded.failed",
        )?
        .execute(params![label, workspace, action.as_bytes(), at_ms, passed, failed])?;
    Ok(())
}

/// Adds a fingerprint unless it is there. Returns by how many bytes the store grew.
pub(super) fn insert_fingerprint(connection: &Connection, action: &Digest, packed: &[u8]) -> rusqlite::Result<i64> {
    let added = connection
        .prepare_cached("INSERT OR IGNORE INTO fingerprint (action, bytes) VALUES (?1, ?2)")?
        .execute(params![action.as_bytes(), packed])?;
    Ok(if added == 1 { int(packed.len() as u64) } else { 0 })
}

/// Removes a fingerprint. Returns by how many bytes the store grew: zero or less.
pub(super) fn remove_fingerprint(connection: &Connection, action: &Digest) -> rusqlite::Result<i64> {
    let freed: Option<i64> = connection
        .prepare_cached("DELETE FROM fingerprint WHERE action = ?1 RETURNING length(bytes)")?
        .query_row([action.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(-freed.unwrap_or(0))
}

/// Bytes of all fingerprints, packed.
pub(super) fn fingerprint_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT coalesce(sum(length(bytes)), 0) FROM fingerprint", [], |row| row.get(0)).map(uint)
}

/// Notes a run.
pub(super) fn note(connection: &Connection, run: &TaskRun) -> rusqlite::Result<()> {
    let executed = run.was_executed();
    if !executed && run.outcome != "hit" {
        return Ok(());
    }
    if let Some(action) = &run.action {
        let counts = (i64::from(executed && !run.failed), i64::from(executed && run.failed));
        note_action(connection, (&run.label, &run.workspace, action), run.at_ms, counts)?;
    }
    let duration_ms = if executed { run.duration_ms as f64 } else { 0.0 };
    connection
        .prepare_cached(
            "INSERT INTO history (label, workspace, runs, duration_ms, last_failed, last_outcome, max_rss_kib, at_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET \
             duration_ms = CASE WHEN excluded.runs = 0 THEN duration_ms WHEN runs = 0 THEN excluded.duration_ms \
             ELSE (1 - ?9) * duration_ms + ?9 * excluded.duration_ms END, \
             runs = runs + excluded.runs, last_failed = excluded.last_failed, last_outcome = excluded.last_outcome, \
             max_rss_kib = max(max_rss_kib, excluded.max_rss_kib), at_ms = max(at_ms, excluded.at_ms)",
        )?
        .execute(params![
            run.label,
            run.workspace,
            i64::from(executed),
            duration_ms,
            run.failed,
            run.outcome,
            int(run.max_rss_kib),
            run.at_ms,
            DURATION_ALPHA,
        ])?;
    Ok(())
}

/// Keeps [`FINGERPRINTS_PER_TASK`] actions of a task of a repository, and no fingerprint that no task had lately.
///
/// Worktrees take turns, so that one that runs often does not push out another's last one. Returns by how many bytes the
/// store grew: zero or less.
pub(super) fn prune(connection: &Connection, label: &str, workspace: &str) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached(
        "SELECT workspace, action FROM (SELECT workspace, action, at_ms, row_number() OVER \
         (PARTITION BY workspace ORDER BY at_ms DESC, action) AS turn FROM recent \
         WHERE label = ?1 AND substr(workspace, 1, length(?3)) = ?3) \
         ORDER BY turn, at_ms DESC, action, workspace LIMIT -1 OFFSET ?2",
    )?;
    let surplus = statement
        .query_map(params![label, int(FINGERPRINTS_PER_TASK as u64), repository_of(workspace)], |row| {
            Ok((row.get::<_, String>(0)?, digest_column(row, 1)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut grown = 0;
    for (workspace, action) in surplus {
        connection
            .prepare_cached("DELETE FROM recent WHERE label = ?1 AND workspace = ?2 AND action = ?3")?
            .execute(params![label, workspace, action.as_bytes()])?;
        let is_used: bool = connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM recent WHERE action = ?1)")?
            .query_row([action.as_bytes()], |row| row.get(0))?;
        if !is_used {
            grown += remove_fingerprint(connection, &action)?;
        }
    }
    Ok(grown)
}
