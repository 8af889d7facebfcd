//! Opening and closing a store: sessions, read-only stores, notices. Knows no table.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::limits::STORE_BYTES_DEFAULT;
use crate::fs::atomic::{self, Durability};
use crate::fs::dir::Dir;
use crate::fs::ops::{self, FsError};
use crate::store::db::{Access, Database, Notices};
use crate::store::error::StoreError;
use crate::store::kept::Shown;
use crate::store::layout::Layout;
use crate::store::ledger::Origin;
use crate::store::links::Linking;
use crate::store::locks::{ActionLock, Gate, Lease};
use crate::store::stage::Scratch;
use crate::store::writer::Queue;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The store directory; made if it is not there.
    pub dir: PathBuf,
    /// Cap in bytes; a tenth of the disk but at most [`STORE_BYTES_DEFAULT`] if not given.
    pub bytes_max: Option<u64>,
    /// Milliseconds since 1970.
    pub now_ms: fn() -> i64,
    /// Whose executions enter the ledger.
    pub origin: Origin,
}

/// The local content store: blobs, trees, results, and what explains them. Share it behind an `Arc`.
///
/// Everything put or recorded is seen by this process at once and written by one background thread; [`Store::flush`] or
/// dropping the store waits for that. Whatever is read is digested first: damaged content is absent content.
#[derive(Debug)]
pub struct Store {
    pub(super) layout: Layout,
    pub(super) database: Arc<Database>,
    pub(super) notices: Arc<Notices>,
    pub(super) bytes_max: u64,
    pub(super) clock: fn() -> i64,
    pub(super) opened_ms: i64,
    pub(super) origin: Origin,
    session: Option<Session>,
}

/// What a store that may be written has in addition. Fields drop in order: the queue is written before the lease ends.
#[derive(Debug)]
pub(super) struct Session {
    pub queue: Queue,
    pub gate: Arc<Gate>,
    pub shown: Shown,
    pub linking: Linking,
    pub scratch: Scratch,
    pub lease: Lease,
}

/// The directory that the store in `dir` keeps for the workspace at `root`, there or not. Needs no open store.
pub fn workspace_state(dir: &Path, root: &Path) -> PathBuf {
    Layout::new(dir.to_owned()).workspace(root)
}

impl Store {
    /// Opens a store, making or mending it where needed; [`Store::notices`] tells what was mended.
    ///
    /// A store that this process may not write is opened for looking: recording is then a notice, and putting an error.
    ///
    /// # Errors
    /// [`StoreError::Newer`] and [`StoreError::Foreign`] for directories that are better left alone.
    pub fn open(options: OpenOptions) -> Result<Store, StoreError> {
        Self::open_and(options, |store| store.database.open())
    }

    /// The same, but the database is opened when it is first needed; until then nobody knows whether it is sound.
    ///
    /// # Errors
    /// As of [`Store::open`]; those of the database come with what needs it.
    pub fn open_lazily(options: OpenOptions) -> Result<Store, StoreError> {
        Self::open_and(options, |store| {
            // Whether this process may write is not to be found out in the middle of a run.
            let database = store.layout.database();
            if rustix::fs::access(&database, rustix::fs::Access::WRITE_OK).is_ok() {
                Ok(())
            } else {
                store.database.open()
            }
        })
    }

    fn open_and(options: OpenOptions, begin: impl Fn(&Store) -> Result<(), StoreError>) -> Result<Store, StoreError> {
        let open_as = |access| {
            let store = Self::open_as(&options, access)?;
            begin(&store).map(|()| store)
        };
        match open_as(Access::ReadWrite) {
            // Opening takes a few pages, and whoever opens may be about to make room.
            Err(error) if error.is_full() && Layout::new(options.dir.clone()).give_reserve_up() => {
                open_as(Access::ReadWrite)
            }
            Err(error) if refuses_writing(&error) && ops::exists(&options.dir.join("FORMAT")) => {
                let store = open_as(Access::ReadOnly)?;
                store.notices.add(
                    Diagnostic::warning(format!("the store {} is read-only here", options.dir.display()))
                        .help("set `DRYSTONE_STORE` to a directory that may be written"),
                );
                Ok(store)
            }
            opened => opened,
        }
    }

    /// A store whose database nobody needed yet.
    pub(super) fn open_as(options: &OpenOptions, access: Access) -> Result<Store, StoreError> {
        let layout = Layout::new(options.dir.clone());
        match access {
            Access::ReadWrite => layout.prepare()?,
            Access::ReadOnly => drop(layout.format()?),
        }
        // Absolute and without links: what is handed out must not depend on the current directory.
        let layout = Layout::new(ops::canonical(&options.dir)?);
        let notices = Arc::new(Notices::default());
        let began = match access {
            Access::ReadOnly => None,
            Access::ReadWrite => {
                let gate = Gate::new(&layout);
                let pass = gate.enter()?;
                let lease = Lease::begin(&layout, (options.now_ms)())?;
                drop(pass);
                Some((gate, lease))
            }
        };
        let database = Arc::new(Database::new(layout.clone(), access, options.now_ms, Arc::clone(&notices)));
        let session = match began {
            None => None,
            Some((gate, lease)) => {
                let queue = Queue::start(&layout, &database, &notices)?;
                let (shown, linking, scratch) = (Shown::default(), Linking::default(), Scratch::default());
                Some(Session { queue, gate, shown, linking, scratch, lease })
            }
        };
        let bytes_max = match options.bytes_max {
            Some(bytes) => bytes,
            None => (ops::disk_space(layout.dir())?.1 / 10).min(STORE_BYTES_DEFAULT),
        };
        let opened_ms = (options.now_ms)();
        let (clock, origin) = (options.now_ms, options.origin.clone());
        Ok(Store { layout, database, notices, bytes_max, clock, opened_ms, origin, session })
    }

    /// What a person should know about this store, oldest first.
    pub fn notices(&self) -> Vec<Diagnostic> {
        self.notices.all()
    }

    /// The store directory, absolute.
    pub fn dir(&self) -> &Path {
        self.layout.dir()
    }

    /// The cap in bytes.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// A directory of its own for the workspace at `root`, kept until the workspace is gone; made if needed.
    pub fn workspace_dir(&self, root: &Path) -> Result<PathBuf, StoreError> {
        use std::os::unix::ffi::OsStrExt;
        self.session()?;
        let dir = self.layout.workspace(root);
        // At most one large index for each run that was killed while it was saving.
        ops::if_there(Dir::open(&dir))?.map_or(Ok(()), |dir| atomic::remove_abandoned(&dir))?;
        let mark = dir.join("root");
        let known = ops::if_there(ops::read(&mark))?.is_some_and(|named| named == root.as_os_str().as_bytes());
        if !known {
            ops::create_dir_all(&dir)?;
            // Names the workspace, so that collection can see when it is gone.
            atomic::write(&mark, root.as_os_str().as_bytes(), Durability::Relaxed)?;
        }
        Ok(dir)
    }

    /// Has the database opened in the background: something will be asked of it, and be recorded in it.
    pub fn expect_use(&self) {
        if let Some(session) = &self.session {
            session.queue.expect_jobs();
        }
    }

    /// Waits until everything put and recorded is on the disk.
    ///
    /// # Errors
    /// Tells, once, what could not be written since the last call.
    pub fn flush(&self) -> Result<(), StoreError> {
        match &self.session {
            Some(session) => session.queue.flush(),
            None => Ok(()),
        }
    }

    /// Waits until no other process and no other thread holds the action, then holds it.
    pub fn lock_action(&self, action: &Digest) -> Result<ActionLock, StoreError> {
        // If it is a thread of this process that holds it, it may only wait for a group to be full.
        self.session()?.queue.settle()?;
        Ok(ActionLock::wait(self.layout.action_lock(action))?)
    }

    /// Holds the action unless someone else does.
    pub fn try_lock_action(&self, action: &Digest) -> Result<Option<ActionLock>, StoreError> {
        self.session()?;
        Ok(ActionLock::attempt(self.layout.action_lock(action))?)
    }

    /// Declares that nothing put or looked up so far is needed any more: for programs that stay, between two runs.
    pub fn renew_lease(&self) -> Result<(), StoreError> {
        let session = self.session()?;
        let _pass = session.gate.enter()?;
        session.shown.forget();
        Ok(session.lease.renew(self.now_ms())?)
    }

    pub(super) fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// The session, or why there is none.
    pub(super) fn session(&self) -> Result<&Session, StoreError> {
        self.session.as_ref().ok_or_else(|| StoreError::ReadOnly { path: self.layout.dir().to_owned() })
    }

    /// The session if the store may be written.
    pub(super) fn writable(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Waits for the writer where there is one, so that queries see everything; failures are told by [`Store::flush`].
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        match &self.session {
            Some(session) => session.queue.settle(),
            None => Ok(()),
        }
    }
}

fn refuses_writing(error: &StoreError) -> bool {
    use std::io::ErrorKind;
    match error {
        StoreError::Fs(FsError { cause, .. }) => {
            matches!(cause.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
        }
        StoreError::ReadOnly { .. } => true,
        _ => false,
    }
}
