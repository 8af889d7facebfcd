//! The ledger: which machine got which outputs from an action, every time it ran. Two outputs of one action are a task that is not
//! reproducible, found without looking for it. Nothing here is the result of anything.
//!
//! Which actions ever disagreed is a table of its own, and whether there is any is a file beside the database (`unstable`): in nearly
//! all stores there is none, and who asks opens no database. A store of an earlier version gets the file when its database is opened.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};

use crate::base::digest::Digest;
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::limits::LEDGER_ROWS_PER_ACTION;
use crate::fs::atomic::{self, Durability};
use crate::fs::ops;
use crate::store::content::{digest_column, int, uint};
use crate::store::error::StoreError;
use crate::store::layout::Layout;
use crate::store::open::Store;
use crate::store::writer::Job;

/// On which machine something is built, and by whom.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Origin {
    /// Stands for the machine without naming it; `None` if it is not known.
    pub machine: Option<Digest>,
    /// `local`, what a CI job is called, or the id of a key.
    pub builder: String,
}

impl Default for Origin {
    fn default() -> Self {
        Self { machine: None, builder: "local".to_owned() }
    }
}

/// One line of the ledger: who got which outputs from an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LedgerEntry {
    /// Tree of the outputs.
    pub outputs: Digest,
    /// In which workspace, as `REPOSITORY/WORKTREE`.
    pub workspace: String,
    /// On which machine; `None` if it is not known.
    pub machine: Option<Digest>,
    /// By whom; `None` if it is not known.
    pub builder: Option<String>,
    /// Label of the task that ran last; empty if it is not known.
    pub label: String,
    /// When last, in milliseconds since 1970.
    pub at_ms: i64,
    /// How often.
    pub times: u64,
}

/// An execution whose outputs are not recorded as a result: a rebuild of an audit, a task whose results are not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Execution {
    /// The action.
    pub action: Digest,
    /// Tree of its outputs; it need not be in the store.
    pub outputs: Digest,
    /// Label of the task.
    pub label: String,
    /// The workspace, as `REPOSITORY/WORKTREE`.
    pub workspace: String,
}

/// An action that came to different outputs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disagreement {
    /// The action.
    pub action: Digest,
    /// Label of the task that ran it last; empty if it is not known.
    pub label: String,
    /// Everybody who ran it, oldest first.
    pub lines: Vec<LedgerEntry>,
}

/// What is known to be unstable, as one workspace sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unstable {
    /// Actions that came to different outputs.
    pub actions: BTreeSet<Digest>,
    /// Tasks of the repository, by label, one of whose recent actions did.
    pub labels: BTreeSet<String>,
    /// Recent actions of these tasks that were executed [`STEADY_TIMES`] times and more and always came to the same: the task was mended.
    pub steady: BTreeSet<Digest>,
}

/// How often an action of an unstable task has to come to the same before it is no longer taken for unstable itself: as often as an
/// audit builds it plainly, the result among it.
pub const STEADY_TIMES: u64 = 3;

impl Unstable {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.labels.is_empty()
    }

    /// Whether an action of a task is to be taken for unstable.
    pub fn holds(&self, label: &str, action: &Digest) -> bool {
        self.actions.contains(action) || (self.labels.contains(label) && !self.steady.contains(action))
    }
}

/// What enters the ledger with a job of the writer.
#[derive(Clone, Debug)]
pub(super) struct Entering {
    /// The action.
    pub action: Digest,
    /// The lines.
    pub lines: Vec<LedgerEntry>,
    /// Whether each is one more execution; else they tell what another store knows, and telling it twice changes nothing.
    pub is_execution: bool,
}

impl LedgerEntry {
    /// The bytes of every field, for archives.
    pub(super) fn encode(&self, encoder: &mut Encoder) {
        let Self { outputs, workspace, machine, builder, label, at_ms, times } = self;
        encoder.digest(outputs).bytes(workspace.as_bytes()).bytes(machine_bytes(machine.as_ref()));
        encoder.bytes(builder.as_deref().unwrap_or_default().as_bytes()).bytes(label.as_bytes());
        encoder.u64(at_ms.cast_unsigned()).u64(*times);
    }

    /// Reads back what [`LedgerEntry::encode`] wrote.
    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let outputs = decoder.digest()?;
        let workspace = decoder.text("workspace")?.to_owned();
        let machine = match decoder.bytes()? {
            [] => None,
            bytes => {
                let bytes: [u8; 32] = bytes.try_into().map_err(|_| DecodeError::Invalid { what: "machine" })?;
                Some(Digest::from_bytes(bytes))
            }
        };
        let builder = Some(decoder.text("builder")?.to_owned()).filter(|word| !word.is_empty());
        let label = decoder.text("label")?.to_owned();
        let (at_ms, times) = (decoder.u64()?.cast_signed(), decoder.u64()?);
        // A count that no store comes to: added to, it must not overflow.
        let times = times.min(u64::from(u32::MAX));
        Ok(Self { outputs, workspace, machine, builder, label, at_ms, times })
    }
}

impl Store {
    /// Who got which outputs from an action, oldest first. More than one digest: the task is not reproducible.
    pub fn ledger(&self, action: &Digest) -> Result<Vec<LedgerEntry>, StoreError> {
        self.settle()?;
        self.database.read("read the ledger", |connection| lines_of(connection, action))
    }

    /// Enters an execution whose outputs become no result. A failed one is not entered: it has no outputs. In a read-only store nothing is.
    pub fn note_execution(&self, execution: Execution) -> Result<(), StoreError> {
        let Some(session) = self.writable() else { return Ok(()) };
        let Execution { action, outputs, label, workspace } = execution;
        let line = self.line(outputs, label, workspace, self.use_time(session));
        let entering = Entering { action, lines: vec![line], is_execution: true };
        session.queue.push(Job::Enter(Box::new(entering)), None)
    }

    /// Actions that came to different outputs, in the order of their labels, at most so many. Cost: nothing where there are none; else
    /// proportional to how many there are, not to the store.
    pub fn disagreements(&self, limit: usize) -> Result<Vec<Disagreement>, StoreError> {
        self.settle()?;
        if !self.has_unstable() {
            return Ok(Vec::new());
        }
        self.database.read("look for disagreements", |connection| {
            let mut found = Vec::new();
            for action in all_unstable(connection)? {
                let lines = lines_of(connection, &action)?;
                let label = lines.last().map(|line| line.label.clone()).unwrap_or_default();
                found.push(Disagreement { action, label, lines });
            }
            found.sort_by(|one, other| (&one.label, one.action).cmp(&(&other.label, other.action)));
            found.truncate(limit);
            Ok(found)
        })
    }

    /// Whether an action came to different outputs, anywhere the ledger knows of. Cost: one `stat` where nothing ever did.
    pub fn is_unstable(&self, action: &Digest) -> Result<bool, StoreError> {
        self.settle()?;
        if !self.has_unstable() {
            return Ok(false);
        }
        self.database.read("look for a disagreement", |connection| {
            connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM unstable WHERE action = ?1)")?
                .query_row([action.as_bytes()], |row| row.get(0))
        })
    }

    /// Whether an action came to other outputs than these before, as far as that is committed. Cost: one query by key.
    pub fn came_out_otherwise(&self, action: &Digest, outputs: &Digest) -> Result<bool, StoreError> {
        self.database.read("look into the ledger", |connection| {
            connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM ledger WHERE action = ?1 AND outputs <> ?2)")?
                .query_row(params![action.as_bytes(), outputs.as_bytes()], |row| row.get(0))
        })
    }

    /// All that is known to be unstable. A task is as long as one of the actions it had lately is, as those of its repository are
    /// remembered for explanations. Cost: one `stat` where nothing ever was; else proportional to what is.
    pub fn unstable(&self, workspace: &str) -> Result<Unstable, StoreError> {
        if !self.has_unstable() {
            return Ok(Unstable::default());
        }
        let repository = format!("{}/", workspace.split('/').next().unwrap_or_default());
        self.database.read("look for disagreements", |connection| {
            let actions = all_unstable(connection)?;
            let mut statement = connection.prepare_cached(
                "SELECT DISTINCT recent.label FROM unstable JOIN recent USING (action) \
                 WHERE substr(recent.workspace, 1, length(?1)) = ?1",
            )?;
            let labels = statement.query_map([&repository], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            Ok(Unstable { actions, steady: steady(connection, &repository, &labels)?, labels })
        })
    }

    /// Whether any action may have come to different outputs. Cost: one `stat`; opens no database.
    pub fn has_unstable(&self) -> bool {
        ops::exists(&self.layout.unstable())
    }

    /// A line of this machine.
    pub(super) fn line(&self, outputs: Digest, label: String, workspace: String, at_ms: i64) -> LedgerEntry {
        let Origin { machine, builder } = self.origin.clone();
        LedgerEntry { outputs, workspace, machine, builder: Some(builder), label, at_ms, times: 1 }
    }

    /// Where this store is open, and for whom.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

fn machine_bytes(machine: Option<&Digest>) -> &[u8] {
    machine.map_or(&[], |machine| machine.as_bytes())
}

fn all_unstable(connection: &Connection) -> rusqlite::Result<BTreeSet<Digest>> {
    let mut statement = connection.prepare_cached("SELECT action FROM unstable")?;
    let actions = statement.query_map([], |row| digest_column(row, 0))?;
    actions.collect()
}

/// Recent actions of these tasks that always came to the same, and often enough.
fn steady(connection: &Connection, repository: &str, labels: &BTreeSet<String>) -> rusqlite::Result<BTreeSet<Digest>> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT action FROM recent WHERE label = ?2 AND substr(workspace, 1, length(?1)) = ?1 AND \
         (SELECT count(DISTINCT outputs) = 1 AND sum(times) >= ?3 FROM ledger WHERE ledger.action = recent.action)",
    )?;
    let mut found = BTreeSet::new();
    for label in labels {
        let rows = statement.query_map(params![repository, label, STEADY_TIMES as i64], |row| digest_column(row, 0))?;
        found.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    Ok(found)
}

fn lines_of(connection: &Connection, action: &Digest) -> rusqlite::Result<Vec<LedgerEntry>> {
    let mut statement = connection.prepare_cached(
        "SELECT outputs, workspace, machine, builder, label, at_ms, times FROM ledger WHERE action = ?1 \
         ORDER BY at_ms, outputs, workspace, machine, builder",
    )?;
    let rows = statement.query_map([action.as_bytes()], |row| {
        let machine: Vec<u8> = row.get(2)?;
        Ok(LedgerEntry {
            outputs: digest_column(row, 0)?,
            workspace: row.get(1)?,
            machine: <[u8; 32]>::try_from(machine.as_slice()).ok().map(Digest::from_bytes),
            builder: Some(row.get::<_, String>(3)?).filter(|word| !word.is_empty()),
            label: row.get(4)?,
            at_ms: row.get(5)?,
            times: uint(row.get(6)?),
        })
    })?;
    rows.collect()
}

/// Enters lines. Tells whether the action turned out to be unstable just now.
pub(super) fn enter(connection: &Connection, entering: &Entering) -> rusqlite::Result<bool> {
    let Entering { action, lines, is_execution } = entering;
    let mut differs = false;
    for line in lines {
        let LedgerEntry { outputs, workspace, machine, builder, label, at_ms, times } = line;
        let times_then = if *is_execution { "times + excluded.times" } else { "max(times, excluded.times)" };
        connection
            .prepare_cached(&format!(
                "INSERT INTO ledger (action, outputs, workspace, machine, builder, label, at_ms, times) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET \
                 at_ms = max(at_ms, excluded.at_ms), times = {times_then}, label = excluded.label"
            ))?
            .execute(params![
                action.as_bytes(),
                outputs.as_bytes(),
                workspace,
                machine_bytes(machine.as_ref()),
                builder.as_deref().unwrap_or_default(),
                label,
                at_ms,
                int(*times),
            ])?;
        differs |= connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM ledger WHERE action = ?1 AND outputs <> ?2)")?
            .query_row(params![action.as_bytes(), outputs.as_bytes()], |row| row.get::<_, bool>(0))?;
    }
    // A task with a clock in its outputs adds a line with every forced run.
    connection
        .prepare_cached(
            "DELETE FROM ledger WHERE action = ?1 AND (outputs, workspace, machine, builder) IN \
             (SELECT outputs, workspace, machine, builder FROM ledger WHERE action = ?1 \
             ORDER BY at_ms DESC, outputs, workspace, machine, builder LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![action.as_bytes(), int(LEDGER_ROWS_PER_ACTION as u64)])?;
    if !differs {
        return Ok(false);
    }
    let added = connection
        .prepare_cached("INSERT OR IGNORE INTO unstable (action) VALUES (?1)")?
        .execute([action.as_bytes()])?;
    Ok(added == 1)
}

/// Drops lines that nobody needs any more, and with the last line of an action that it is unstable.
pub(super) fn forget(connection: &Connection, before_ms: i64) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM ledger WHERE at_ms < ?1 AND NOT EXISTS (SELECT 1 FROM result WHERE result.action = ledger.action)",
        [before_ms],
    )?;
    connection.execute(
        "DELETE FROM unstable WHERE NOT EXISTS (SELECT 1 FROM ledger WHERE ledger.action = unstable.action)",
        [],
    )?;
    Ok(())
}

/// Says beside the database that something in it is unstable. Said before it is committed: one time too often costs a query.
pub(super) fn flag(layout: &Layout) {
    let path = layout.unstable();
    if !ops::exists(&path)
        && let Err(error) = atomic::write(&path, b"an action came to different outputs\n", Durability::Relaxed)
    {
        tracing::warn!(%error, "that an action is unstable is known to the database alone");
    }
}

/// Says so of a database that was just opened, where it holds.
pub(super) fn flag_if_needed(connection: &Connection, layout: &Layout) -> rusqlite::Result<()> {
    let is_any: bool = connection.query_row("SELECT EXISTS (SELECT 1 FROM unstable)", [], |row| row.get(0))?;
    if is_any {
        flag(layout);
    }
    Ok(())
}
