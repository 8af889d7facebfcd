//! Connections to the database: opening, the pool of readers, retries, and what happens on damage. Knows no table.
//!
//! A damaged database is set aside and rebuilt ([`crate::store::recover`]) wherever the damage is met; every query is a
//! closure that can run again on the new one. Other processes notice by the inode ([`Database::follow`]).
//!
//! Nothing here opens `store.db` by itself, not even to look at its header: closing any descriptor of a file drops
//! the POSIX locks that SQLite holds on it in the whole process (`sqlite.org/howtocorrupt.html`, section 2.2).

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, MAIN_DB, OpenFlags};

use crate::base::diagnostic::Diagnostic;
use crate::fs::lock::{self, Lock, Sharing};
use crate::fs::ops;
use crate::store::error::{BUSY_WAIT_S, StoreError, Trouble, trouble};
use crate::store::layout::Layout;
use crate::store::ledger;
use crate::store::locks::{hold, wait_exclusive};
use crate::store::losses;
use crate::store::migrate::{self, Before, Refusal};
use crate::store::recover;

/// What this process may do to the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// Everything.
    ReadWrite,
    /// Look.
    ReadOnly,
}

/// How often a statement that met another process's lock is tried, each time for [`BUSY_WAIT_S`].
const BUSY_ATTEMPTS: usize = 6;
/// How often a database is set aside within one operation before the disk itself is taken to be broken.
const DAMAGE_ATTEMPTS: usize = 2;
/// How often one operation starts over because the database was set aside under it.
const MOVED_ATTEMPTS: usize = 8;
/// The write-ahead log is written back to the database at this size, in pages: each time costs two syncs.
const CHECKPOINT_PAGES: i64 = 4096;
/// The write-ahead log is cut back to this size, in bytes.
const JOURNAL_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// A log of at most so many bytes is left to who opens the database next, who reads it in a millisecond: writing it back costs two syncs,
/// and a run that did little would wait longer for them than for all else that it asks of the store.
const LOG_LEFT_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// It may be this part of the database: a small database is whole without it.
const LOG_LEFT_SHARE: u64 = 4;
/// A log that was left is written back from this size on while nobody waits for it, in bytes.
const LOG_WRITTEN_EARLY_BYTES: u64 = 512 * 1024;
/// Idle readers kept.
const IDLE_MAX: usize = 16;

/// Messages for the person, each once.
#[derive(Debug, Default)]
pub(super) struct Notices {
    all: Mutex<Vec<Diagnostic>>,
}

impl Notices {
    /// Adds one unless it is there.
    pub fn add(&self, notice: Diagnostic) {
        let mut all = hold(&self.all);
        if !all.contains(&notice) {
            all.push(notice);
        }
    }

    /// All so far, oldest first.
    pub fn all(&self) -> Vec<Diagnostic> {
        hold(&self.all).clone()
    }
}

/// A connection and which incarnation of the database it is connected to.
#[derive(Debug)]
pub(super) struct Connected {
    /// The connection.
    pub connection: Connection,
    /// Rises with every rebuilt database.
    pub generation: u64,
}

/// The database of one open store.
#[derive(Debug)]
pub(super) struct Database {
    layout: Layout,
    path: PathBuf,
    access: Access,
    network: bool,
    now_ms: fn() -> i64,
    notices: Arc<Notices>,
    state: Mutex<State>,
    view: Mutex<View>,
}

#[derive(Debug, Default)]
struct State {
    is_open: bool,
    generation: u64,
    identity: Option<(u64, u64)>,
    idle: Vec<Connection>,
}

/// How a store that may not be written is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum View {
    /// As SQLite does it: needs the shared memory of a live writer, or a rollback journal.
    #[default]
    Plain,
    /// As a file that nobody writes to.
    Immutable,
    /// Not at all: an empty database in memory stands in.
    StandIn,
}

impl Database {
    /// Opens it when it is first needed, creating, migrating or rebuilding it then.
    pub fn new(layout: Layout, access: Access, now_ms: fn() -> i64, notices: Arc<Notices>) -> Self {
        let network = ops::is_network_fs(layout.dir());
        let path = layout.database();
        let (state, view) = (Mutex::default(), Mutex::default());
        Self { layout, path, access, network, now_ms, notices, state, view }
    }

    /// Opens it now, unless it is open.
    pub fn open(&self) -> Result<(), StoreError> {
        let mut state = hold(&self.state);
        if state.is_open {
            return Ok(());
        }
        match self.establish(&mut state, None) {
            // Opening takes a few pages, and whoever opens may be about to make room.
            Err(error) if error.is_full() && self.layout.give_reserve_up() => self.establish(&mut state, None),
            opened => opened,
        }
    }

    /// Whether anybody needed it so far.
    pub fn is_open(&self) -> bool {
        hold(&self.state).is_open
    }

    /// Runs a query on a pooled reader. `doing` completes "cannot … in store.db".
    ///
    /// The query may run more than once. Waits for other processes; sets a damaged database aside.
    pub fn read<T>(
        &self,
        doing: &'static str,
        query: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.attempt(doing, |connected| {
            let connection = match connected {
                Some(connection) => connection,
                None => self.connect(Purpose::Read)?,
            };
            let value = query(&connection)?;
            Ok((value, connection))
        })
    }

    fn attempt<T>(
        &self,
        doing: &'static str,
        run: impl Fn(Option<Connection>) -> rusqlite::Result<(T, Connection)>,
    ) -> Result<T, StoreError> {
        self.open()?;
        let (mut busy, mut damaged, mut moved) = (0, 0, 0);
        loop {
            let (pooled, generation) = {
                let mut state = hold(&self.state);
                (state.idle.pop(), state.generation)
            };
            let staying = if pooled.is_none() { self.keep_in_place()? } else { None };
            let result = run(pooled);
            drop(staying);
            let error = match result {
                Ok((value, connection)) => {
                    self.give_back(connection, generation);
                    return Ok(value);
                }
                Err(error) => error,
            };
            match trouble(&error) {
                Trouble::Busy if busy < BUSY_ATTEMPTS => busy += 1,
                Trouble::Damaged if damaged < DAMAGE_ATTEMPTS => {
                    damaged += 1;
                    self.replace(generation, &error.to_string())?;
                }
                _ if moved < MOVED_ATTEMPTS && self.has_moved(generation)? => {
                    moved += 1;
                    self.follow()?;
                }
                _ => return Err(StoreError::database(&self.path, doing, error)),
            }
        }
    }

    fn give_back(&self, connection: Connection, generation: u64) {
        let mut state = hold(&self.state);
        if state.generation == generation && state.idle.len() < IDLE_MAX {
            state.idle.push(connection);
        }
    }

    /// A connection for writing, for the writer thread and for collection.
    pub fn writer(&self) -> Result<Connected, StoreError> {
        self.open()?;
        let (mut damaged, mut moved) = (0, 0);
        loop {
            let generation = hold(&self.state).generation;
            let staying = self.keep_in_place()?;
            let connected = self.connect(Purpose::Write);
            drop(staying);
            match connected {
                Ok(connection) => return Ok(Connected { connection, generation }),
                Err(error) if trouble(&error) == Trouble::Damaged && damaged < DAMAGE_ATTEMPTS => {
                    damaged += 1;
                    self.replace(generation, &error.to_string())?;
                }
                Err(_) if moved < MOVED_ATTEMPTS && self.has_moved(generation)? => {
                    moved += 1;
                    self.follow()?;
                }
                Err(error) => return Err(StoreError::database(&self.path, "connect", error)),
            }
        }
    }

    /// Runs something on a writing connection, which it replaces as needed; the something may run more than once.
    pub fn write<T>(
        &self,
        doing: &'static str,
        connected: &mut Option<Connected>,
        run: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.open()?;
        let (mut busy, mut damaged, mut moved) = (0, 0, 0);
        loop {
            self.follow()?;
            if connected.as_ref().is_some_and(|held| held.generation != hold(&self.state).generation) {
                *connected = None;
            }
            let held = match connected.take() {
                Some(held) => held,
                None => self.writer()?,
            };
            let error = match run(&held.connection) {
                Ok(value) => {
                    *connected = Some(held);
                    return Ok(value);
                }
                Err(error) => error,
            };
            match trouble(&error) {
                Trouble::Busy if busy < BUSY_ATTEMPTS => {
                    busy += 1;
                    *connected = Some(held);
                }
                // The lock files beside it could be written, so a database that says it cannot be has a broken header.
                Trouble::Damaged | Trouble::ReadOnly if damaged < DAMAGE_ATTEMPTS => {
                    damaged += 1;
                    let generation = held.generation;
                    drop(held);
                    self.replace(generation, &error.to_string())?;
                }
                _ if moved < MOVED_ATTEMPTS && self.has_moved(held.generation)? => moved += 1,
                _ => return Err(StoreError::database(&self.path, doing, error)),
            }
        }
    }

    /// While this is held nobody sets the database aside. For connecting: SQLite opens the log and the shared memory by name
    /// after the database itself, and those of another one must not come to stand there in between.
    fn keep_in_place(&self) -> Result<Option<Lock>, StoreError> {
        match self.access {
            Access::ReadOnly => Ok(None),
            Access::ReadWrite => Ok(Some(lock::wait(&self.layout.lock("open"), Sharing::Shared)?)),
        }
    }

    /// Whether the database was set aside since `generation` was the current one, by this process or another. Whatever fails
    /// meanwhile (a log is renamed before its database is) says nothing about the new one. Waits until that is done.
    fn has_moved(&self, generation: u64) -> Result<bool, StoreError> {
        if self.access == Access::ReadOnly {
            return Ok(false);
        }
        let state = hold(&self.state);
        let _open = wait_exclusive(&self.layout.lock("open"))?;
        Ok(state.generation != generation || state.identity != self.identity())
    }

    /// Sees whether another process set the database aside, and turns to the new one.
    pub fn follow(&self) -> Result<(), StoreError> {
        let mut state = hold(&self.state);
        if self.access == Access::ReadWrite && state.identity != self.identity() {
            self.layout.prepare()?;
            state.generation += 1;
            state.idle.clear();
            self.establish(&mut state, None)?;
        }
        Ok(())
    }

    /// Sets the database aside because of `why`, unless someone else has done so since `generation`.
    pub fn replace(&self, generation: u64, why: &str) -> Result<(), StoreError> {
        let mut state = hold(&self.state);
        if state.generation != generation {
            return Ok(());
        }
        state.generation += 1;
        state.idle.clear();
        self.establish(&mut state, Some(why))
    }

    /// The current incarnation.
    pub fn generation(&self) -> u64 {
        hold(&self.state).generation
    }

    fn identity(&self) -> Option<(u64, u64)> {
        ops::symlink_metadata(&self.path).ok().map(|meta| (meta.dev(), meta.ino()))
    }

    /// Makes sure that `store.db` is there and sound, one process at a time.
    fn establish(&self, state: &mut State, damage: Option<&str>) -> Result<(), StoreError> {
        if self.access == Access::ReadOnly {
            self.establish_read_only(damage);
            state.is_open = true;
            return Ok(());
        }
        let _open = wait_exclusive(&self.layout.lock("open"))?;
        if let Some(why) = damage
            && state.identity == self.identity()
        {
            self.set_aside(why)?;
        }
        if ops::symlink_metadata(&self.path).map_or(true, |meta| meta.len() == 0) {
            // What a database before this one had is gone; the new one may even get its inode.
            losses::note(&self.layout)?;
        }
        let mut damaged = 0;
        loop {
            match self.try_establish() {
                Ok(connection) => {
                    // The first query would open the same once more.
                    state.idle.push(connection);
                    state.identity = self.identity();
                    state.is_open = true;
                    return Ok(());
                }
                Err(Refusal::Newer(found)) => {
                    let path = self.layout.dir().to_owned();
                    return Err(StoreError::Newer { path, found, known: migrate::VERSION });
                }
                Err(Refusal::Damaged(why)) if damaged < DAMAGE_ATTEMPTS => self.set_aside(&why)?,
                Err(Refusal::Sql(error))
                    if damaged < DAMAGE_ATTEMPTS && matches!(trouble(&error), Trouble::Damaged | Trouble::ReadOnly) =>
                {
                    self.set_aside(&error.to_string())?;
                }
                Err(Refusal::Sql(cause)) => return Err(StoreError::database(&self.path, "open the tables", cause)),
                Err(Refusal::Damaged(why)) => {
                    let cause = rusqlite::Error::InvalidParameterName(why);
                    return Err(StoreError::database(&self.path, "open the tables", cause));
                }
            }
            damaged += 1;
        }
    }

    /// Gives a reader.
    fn try_establish(&self) -> Result<Connection, Refusal> {
        let connection = self.connect_first(Purpose::Write)?;
        if migrate::migrate(&connection)? == Before::Nothing {
            recover::rebuild(&connection, &self.layout, (self.now_ms)())?;
        }
        ledger::flag_if_needed(&connection, &self.layout)?;
        if connection.is_readonly(MAIN_DB)? {
            // The directory can be written, or its lock were not held. Said now, before anything counts on it.
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
            return Err(rusqlite::Error::SqliteFailure(code, None).into());
        }
        connection.pragma_update(None, "query_only", true)?;
        leave_log(&connection)?;
        Ok(connection)
    }

    /// Writes the log back where that is worth a wait later on; for when nobody waits.
    pub fn write_back_early(&self, connection: &Connection) {
        if self.log_bytes() >= LOG_WRITTEN_EARLY_BYTES {
            write_back(connection);
        }
    }

    /// Whether the log may be left to who opens the database next: there is one, and it is short.
    pub fn leaves_log(&self) -> bool {
        let database = ops::symlink_metadata(&self.path).map_or(0, |meta| meta.len());
        (1..=LOG_LEFT_BYTES_MAX.min(database / LOG_LEFT_SHARE)).contains(&self.log_bytes())
    }

    fn log_bytes(&self) -> u64 {
        ops::symlink_metadata(&self.layout.dir().join("store.db-wal")).map_or(0, |meta| meta.len())
    }

    fn set_aside(&self, why: &str) -> Result<(), StoreError> {
        losses::note(&self.layout)?;
        let kept = recover::set_aside(&self.layout, (self.now_ms)())?;
        tracing::warn!(why, "the database was set aside");
        self.notices.add(
            Diagnostic::warning(format!(
                "the store's database was damaged ({why}); it was set aside as `{}` and rebuilt without its results",
                kept.display()
            ))
            .help("nothing to do: what is missing runs again"),
        );
        Ok(())
    }

    fn establish_read_only(&self, damage: Option<&str>) {
        for view in [View::Plain, View::Immutable] {
            *hold(&self.view) = view;
            // A log that was never played back holds what the file alone does not: half of the truth is none.
            let whole = view == View::Plain || self.log_bytes() == 0;
            if damage.is_none() && whole && self.connect_read_only().is_ok_and(|connection| is_current(&connection)) {
                return;
            }
        }
        *hold(&self.view) = View::StandIn;
        self.notices.add(Diagnostic::warning(format!(
            "the read-only store {} has no database that can be read: nothing is found there",
            self.layout.dir().display()
        )));
    }

    fn connect(&self, purpose: Purpose) -> rusqlite::Result<Connection> {
        let connection = self.connect_first(purpose)?;
        leave_log(&connection)?;
        Ok(connection)
    }

    /// The same where nothing is known of the database yet: of one that is damaged no log is to be left.
    fn connect_first(&self, purpose: Purpose) -> rusqlite::Result<Connection> {
        if self.access == Access::ReadOnly {
            return self.connect_read_only();
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(Duration::from_secs(BUSY_WAIT_S))?;
        if purpose == Purpose::Write && !is_vacuumed(&connection)? {
            // Before the first table, or it has no effect. Said again, it would be written again, with all syncs that this takes.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        // WAL needs memory shared between all users of the file, which no network file system gives.
        let (journal, synchronous) = if self.network { ("DELETE", "FULL") } else { ("WAL", "NORMAL") };
        connection.pragma_update_and_check(None, "journal_mode", journal, |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
        connection.pragma_update_and_check(None, "journal_size_limit", JOURNAL_BYTES_MAX, |_| Ok(()))?;
        // A damaged cell is then found as damage instead of being believed. No memory map: a truncated file would be a SIGBUS.
        connection.pragma_update(None, "cell_size_check", true)?;
        // The log is opened with the first look, if not before.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
        connection.set_prepared_statement_cache_capacity(64);
        if purpose == Purpose::Read {
            connection.pragma_update(None, "query_only", true)?;
        }
        Ok(connection)
    }

    fn connect_read_only(&self) -> rusqlite::Result<Connection> {
        let view = *hold(&self.view);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let connection = match view {
            View::StandIn => {
                let memory = Connection::open_in_memory()?;
                return match migrate::migrate(&memory) {
                    Ok(_) => Ok(memory),
                    Err(Refusal::Sql(error)) => Err(error),
                    Err(refusal) => unreachable!("BUG: an empty database is refused: {refusal:?}"),
                };
            }
            View::Plain => Connection::open_with_flags(&self.path, flags - OpenFlags::SQLITE_OPEN_URI)?,
            View::Immutable => Connection::open_with_flags(immutable_uri(&self.path), flags)?,
        };
        connection.busy_timeout(Duration::from_secs(BUSY_WAIT_S))?;
        Ok(connection)
    }
}

impl Drop for Database {
    /// Whoever closes it last writes the log back and removes it, unless it is left.
    fn drop(&mut self) {
        let last = std::mem::take(&mut hold(&self.state).idle).pop();
        if let Some(connection) = last.filter(|_| self.access == Access::ReadWrite && !self.leaves_log()) {
            // Not needed for what was promised; the next opener does without.
            drop(connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false));
        }
    }
}

/// Whoever closes it last would write the log back, however short it is. That is for [`Database::drop`] to say.
fn leave_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

/// Writes the log back, all of it where nobody reads it just now, and cuts it.
fn write_back(connection: &Connection) {
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::debug!(%error, "the log of the database stays");
    }
}

/// Whether the database gives pages back as it is told to; what there is to say about one that has no tables yet.
fn is_vacuumed(connection: &Connection) -> rusqlite::Result<bool> {
    const INCREMENTAL: i64 = 2;
    connection.pragma_query_value(None, "auto_vacuum", |row| row.get::<_, i64>(0)).map(|mode| mode == INCREMENTAL)
}

/// The path as a `file:` URI (sqlite.org/uri.html) that promises that nobody writes.
fn immutable_uri(path: &Path) -> std::ffi::OsString {
    let mut uri = b"file:".to_vec();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => uri.extend_from_slice(format!("%{byte:02x}").as_bytes()),
            byte => uri.push(byte),
        }
    }
    uri.extend_from_slice(b"?immutable=1");
    std::ffi::OsString::from_vec(uri)
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Read,
    Write,
}

fn is_current(connection: &Connection) -> bool {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    version.is_ok_and(|version| version == migrate::VERSION)
        && connection.query_row("SELECT count(*) FROM usage", [], |row| row.get::<_, i64>(0)).is_ok()
}
