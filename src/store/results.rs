//! The action cache: looking results up and recording them, here and in the ledger. Knows no task and no graph.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::store::blobs::OnDamage;
use crate::store::content::{Key, digest_column, int, uint};
use crate::store::error::StoreError;
use crate::store::history;
use crate::store::ledger::{self, Entering, LedgerEntry};
use crate::store::locks::ActionLock;
use crate::store::open::Store;
use crate::store::pending::QueuedResult;
use crate::store::writer::Job;

/// What an action came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActionResult {
    /// The action.
    pub action: Digest,
    /// Tree of its outputs.
    pub outputs: Digest,
    /// Blob of its log: framed standard output and error.
    pub stdout_stderr: Digest,
    /// Exit code.
    pub exit: i32,
    /// The level it ran at, as a word.
    pub isolation: String,
    /// Wall time in milliseconds.
    pub duration_ms: u64,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Largest resident set in KiB.
    pub max_rss_kib: u64,
    /// Label of the task it was made for; other tasks may share it.
    pub label: String,
    /// The workspace it was made in, as `REPOSITORY/WORKTREE`.
    pub workspace: String,
    /// When, in milliseconds since 1970.
    pub created_ms: i64,
}

/// What recording a result came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// It is the result of the action now.
    Stored,
    /// An earlier result had the same outputs.
    Agrees,
    /// An earlier result has other outputs and stays: the task is not reproducible.
    Differs {
        /// The outputs that stay.
        kept: Digest,
    },
}

/// A result on its way to the database.
#[derive(Debug)]
pub(super) struct Recording {
    /// The result.
    pub result: ActionResult,
    /// Its fingerprint, packed.
    pub fingerprint: Vec<u8>,
    /// Whether it becomes the result, as far as this process knows; the database decides.
    pub is_new: bool,
    /// When.
    pub at_ms: i64,
    /// What enters the ledger with it.
    pub entering: Entering,
}

/// How long a result counts as just used, so that a busy one is not written again and again, in milliseconds.
const TOUCH_INTERVAL_MS: i64 = 60_000;
/// What a row costs besides what it names, in bytes: so that even results without outputs come to an end.
pub(super) const ROW_BYTES: u64 = 512;
/// Context of the digest over a row.
const SEAL_CONTEXT: &str = "drystone 2026-11 result row v1";
/// Levels of isolation as results name them, lowest first. The store compares the words; what they mean is `sandbox`'s.
const ISOLATION_ORDER: [&str; 3] = ["none", "landlock", "namespaces"];

fn isolation_rank(word: &str) -> usize {
    ISOLATION_ORDER.iter().position(|known| *known == word).map_or(0, |position| position + 1)
}

impl ActionResult {
    /// The bytes of every field, for seals and archives.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self {
            action,
            outputs,
            stdout_stderr,
            exit,
            isolation,
            duration_ms,
            cpu_ms,
            max_rss_kib,
            label,
            workspace,
            created_ms,
        } = self;
        let mut encoder = Encoder::new();
        encoder.digest(action).digest(outputs).digest(stdout_stderr).u64(i64::from(*exit).cast_unsigned());
        encoder.bytes(isolation.as_bytes()).u64(*duration_ms).u64(*cpu_ms).u64(*max_rss_kib);
        encoder.bytes(label.as_bytes()).bytes(workspace.as_bytes()).u64(created_ms.cast_unsigned());
        encoder.into_vec()
    }

    /// Reads back what [`ActionResult::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let result = Self {
            action: decoder.digest()?,
            outputs: decoder.digest()?,
            stdout_stderr: decoder.digest()?,
            exit: i32::try_from(decoder.u64()?.cast_signed())
                .map_err(|_| DecodeError::Invalid { what: "exit code" })?,
            isolation: decoder.text("isolation level")?.to_owned(),
            duration_ms: decoder.u64()?,
            cpu_ms: decoder.u64()?,
            max_rss_kib: decoder.u64()?,
            label: decoder.text("label")?.to_owned(),
            workspace: decoder.text("workspace")?.to_owned(),
            created_ms: decoder.u64()?.cast_signed(),
        };
        decoder.finish()?;
        Ok(result)
    }

    fn seal(&self) -> Digest {
        Digest::derived(SEAL_CONTEXT, &self.encode())
    }
}

/// A row of `result`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ResultRow {
    /// The result as it stands there.
    pub result: ActionResult,
    /// When it was last used.
    pub last_used_ms: i64,
    /// Whether the row is as it was written.
    pub is_sound: bool,
}

impl Store {
    /// Looks a result up; `None` unless everything it names is there. Counts as a use.
    ///
    /// Every tree is read and digested; of blobs the presence and size are checked, their bytes when they are read.
    /// A result that is not whole is removed. Cost: proportional to the number of outputs.
    pub fn lookup(&self, action: &Digest) -> Result<Option<ActionResult>, StoreError> {
        let session = self.writable();
        // Before looking: from here until the use is committed nothing can be collected.
        let pass = match session {
            Some(session) => Some(session.gate.enter()?),
            None => None,
        };
        let Some(found) = self.find_result(action)? else { return Ok(None) };
        if !found.is_sound || !self.is_whole(&found.result)? {
            if let Some(session) = session {
                session.queue.push(Job::Forget { action: *action, outputs: found.result.outputs }, pass)?;
            }
            return Ok(None);
        }
        if let Some(session) = session {
            let at_ms = self.use_time(session);
            let is_protected = found.last_used_ms > session.lease.started_ms();
            if !is_protected || at_ms - found.last_used_ms >= TOUCH_INTERVAL_MS {
                let pass = pass.expect("a store that may be written has a gate, and it was passed");
                session.queue.push_uses([*action], at_ms, pass)?;
            }
        }
        Ok(Some(found.result))
    }

    /// Marks results as used: one pass of the gate and one message for all of them. Those that are gone stay gone.
    pub fn touch_results(&self, actions: Vec<Digest>) -> Result<(), StoreError> {
        let Some(session) = self.writable().filter(|_| !actions.is_empty()) else { return Ok(()) };
        let pass = session.gate.enter()?;
        let at_ms = self.use_time(session);
        session.queue.push_uses(actions, at_ms, pass)
    }

    /// Records a result with its fingerprint. The first result of an action stays; every recording enters the ledger.
    ///
    /// Put the blobs and trees it names before. A result of a higher level of isolation replaces one of a lower level, and
    /// any result replaces one that is no longer whole. In a read-only store this is a notice.
    pub fn record(&self, result: ActionResult, fingerprint: &[u8]) -> Result<Recorded, StoreError> {
        self.record_held(result, fingerprint, None)
    }

    /// The same for an action that is locked: the lock goes when the row is committed, so that no process that waited for it
    /// can miss the result.
    pub fn record_held(
        &self,
        result: ActionResult,
        fingerprint: &[u8],
        lock: Option<ActionLock>,
    ) -> Result<Recorded, StoreError> {
        self.record_and_enter(result, fingerprint, lock, None)
    }

    /// The same for a result that was made elsewhere, with what the ledger there has of its action. It is no execution of this machine's.
    pub(super) fn record_carried(
        &self,
        result: ActionResult,
        fingerprint: &[u8],
        lines: Vec<LedgerEntry>,
    ) -> Result<Recorded, StoreError> {
        self.record_and_enter(result, fingerprint, None, Some(lines))
    }

    fn record_and_enter(
        &self,
        result: ActionResult,
        fingerprint: &[u8],
        lock: Option<ActionLock>,
        carried: Option<Vec<LedgerEntry>>,
    ) -> Result<Recorded, StoreError> {
        let Some(session) = self.writable() else {
            self.notices.add(
                Diagnostic::warning(format!("results are not stored: {} is read-only", self.dir().display()))
                    .help("set `DRYSTONE_STORE` to a directory that may be written"),
            );
            return Ok(Recorded::Stored);
        };
        let pass = session.gate.enter()?;
        let mut recorded = Recorded::Stored;
        if let Some(earlier) = self.find_result(&result.action)? {
            let kept = earlier.result.outputs;
            if !earlier.is_sound || (kept != result.outputs && !self.is_whole(&earlier.result)?) {
                let job = Job::Forget { action: result.action, outputs: kept };
                session.queue.push(job, Some(pass.clone()))?;
            } else if isolation_rank(&result.isolation) <= isolation_rank(&earlier.result.isolation) {
                recorded = if kept == result.outputs { Recorded::Agrees } else { Recorded::Differs { kept } };
            }
        }
        let at_ms = self.use_time(session);
        let is_execution = carried.is_none();
        let own = || vec![self.line(result.outputs, result.label.clone(), result.workspace.clone(), at_ms)];
        let lines = carried.unwrap_or_else(own);
        let entering = Entering { action: result.action, lines, is_execution };
        let fingerprint = history::pack(fingerprint);
        let recording = Recording { fingerprint, is_new: recorded == Recorded::Stored, at_ms, entering, result };
        session.queue.push_held(Job::Record(Arc::new(recording)), Some(pass), lock)?;
        Ok(recorded)
    }

    /// Every result, most recently used first. Cost: proportional to the store.
    pub fn all_results(&self) -> Result<Vec<ActionResult>, StoreError> {
        self.settle()?;
        let rows = self.database.read("read all results", all)?;
        Ok(rows.into_iter().filter(|row| row.is_sound).map(|row| row.result).collect())
    }

    /// Finds a result, queued or in its row.
    pub(super) fn find_result(&self, action: &Digest) -> Result<Option<ResultRow>, StoreError> {
        match self.writable().and_then(|session| session.queue.pending.result(action)) {
            Some(QueuedResult::Forget) => Ok(None),
            Some(QueuedResult::Record(recording)) => {
                Ok(Some(ResultRow { result: recording.result.clone(), last_used_ms: recording.at_ms, is_sound: true }))
            }
            None => self.database.read("look for a result", |connection| find(connection, action)),
        }
    }

    /// Whether everything a result names is there.
    pub(super) fn is_whole(&self, result: &ActionResult) -> Result<bool, StoreError> {
        if self.present(&Key::blob(result.stdout_stderr))?.is_none() {
            return Ok(false);
        }
        match self.closure(&result.outputs, OnDamage::Drop)? {
            Some(closure) => self.has_blobs(&closure),
            None => Ok(false),
        }
    }
}

const COLUMNS: &str = "action, outputs, stdout_stderr, exit, isolation, duration_ms, cpu_ms, max_rss_kib, label, \
                       workspace, created_ms, last_used_ms, seal";

fn result_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<ResultRow> {
    let result = ActionResult {
        action: digest_column(row, 0)?,
        outputs: digest_column(row, 1)?,
        stdout_stderr: digest_column(row, 2)?,
        exit: row.get(3)?,
        isolation: row.get(4)?,
        duration_ms: uint(row.get(5)?),
        cpu_ms: uint(row.get(6)?),
        max_rss_kib: uint(row.get(7)?),
        label: row.get(8)?,
        workspace: row.get(9)?,
        created_ms: row.get(10)?,
    };
    let is_sound = row.get::<_, Vec<u8>>(12)? == result.seal().as_bytes();
    Ok(ResultRow { result, last_used_ms: row.get(11)?, is_sound })
}

fn find(connection: &Connection, action: &Digest) -> rusqlite::Result<Option<ResultRow>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM result WHERE action = ?1"))?
        .query_row([action.as_bytes()], result_row)
        .optional()
}

/// Every result, most recently used first.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<ResultRow>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM result ORDER BY last_used_ms DESC, action"))?;
    let rows = statement.query_map([], result_row)?;
    rows.collect()
}

/// Writes a recording: ledger, fingerprint, and the result if it is the first. Returns by how many bytes the store grew, and whether the
/// action turned out to be unstable.
pub(super) fn insert(connection: &Connection, recording: &Recording) -> rusqlite::Result<(i64, bool)> {
    let Recording { result, fingerprint, at_ms, entering, .. } = recording;
    let earlier = find(connection, &result.action)?.filter(|row| row.is_sound);
    let replaces = earlier.is_none_or(|row| isolation_rank(&row.result.isolation) < isolation_rank(&result.isolation));
    let mut grown = 0;
    if replaces {
        grown += write_row(connection, result, *at_ms)?;
    } else {
        touch(connection, &result.action, *at_ms)?;
    }
    let is_unstable = ledger::enter(connection, entering)?;
    history::use_action(connection, &result.label, &result.workspace, &result.action, *at_ms)?;
    grown += history::insert_fingerprint(connection, &result.action, fingerprint)?;
    Ok((grown, is_unstable))
}

fn write_row(connection: &Connection, result: &ActionResult, at_ms: i64) -> rusqlite::Result<i64> {
    let removed =
        connection.prepare_cached("DELETE FROM result WHERE action = ?1")?.execute([result.action.as_bytes()])?;
    connection
        .prepare_cached(&format!(
            "INSERT INTO result ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
        ))?
        .execute(params![
            result.action.as_bytes(),
            result.outputs.as_bytes(),
            result.stdout_stderr.as_bytes(),
            result.exit,
            result.isolation,
            int(result.duration_ms),
            int(result.cpu_ms),
            int(result.max_rss_kib),
            result.label,
            result.workspace,
            result.created_ms,
            at_ms,
            result.seal().as_bytes(),
        ])?;
    Ok(if removed == 0 { int(ROW_BYTES) } else { 0 })
}

/// Marks a result as used, if it is there.
pub(super) fn touch(connection: &Connection, action: &Digest, at_ms: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE result SET last_used_ms = max(last_used_ms, ?2) WHERE action = ?1")?
        .execute(params![action.as_bytes(), at_ms])?;
    Ok(())
}

/// Removes a result, if it is there.
pub(super) fn remove(connection: &Connection, action: &Digest) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM result WHERE action = ?1")?.execute([action.as_bytes()])?;
    Ok(())
}

/// Removes a result if it still has these outputs. Returns by how many bytes the store grew: zero or less.
pub(super) fn forget(connection: &Connection, action: &Digest, outputs: &Digest) -> rusqlite::Result<i64> {
    let removed = connection
        .prepare_cached("DELETE FROM result WHERE action = ?1 AND outputs = ?2")?
        .execute([action.as_bytes(), outputs.as_bytes()])?;
    Ok(if removed == 1 { -int(ROW_BYTES) } else { 0 })
}
