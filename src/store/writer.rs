//! The one thread that writes rows: it blocks on its queue, takes whatever is there and comes shortly after, and commits it as one
//! group. A group costs the pages it changes, however many rows change them: so it is worth a short wait, unless somebody waits for it.
//!
//! New files and the directories that name them are synced before the transaction that refers to them, so that no row
//! ever names bytes that a power loss can take away. Knows nothing of what callers are waiting for.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::fs::ops::{self, FsError};
use crate::store::content::{self, Body, Key};
use crate::store::db::{Connected, Database, Notices};
use crate::store::error::StoreError;
use crate::store::history::{self, TaskRun};
use crate::store::layout::Layout;
use crate::store::ledger::{self, Entering};
use crate::store::locks::{ActionLock, Pass, hold};
use crate::store::losses;
use crate::store::packs::{self, Pack};
use crate::store::path_sets;
use crate::store::pending::{Pending, QueuedContent, QueuedResult};
use crate::store::recover;
use crate::store::results::{self, Recording};

/// Jobs that wait before callers do. With what is in their hands, memory holds this many bodies of the largest inline content.
const QUEUE_JOBS_MAX: usize = 256;
/// Jobs in one transaction.
const BATCH_JOBS_MAX: usize = 4096;
/// Bytes of inline content from which on a transaction takes no further jobs.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a group waits for further jobs from its first one on. What a crash can take grows by as much: results, which run again.
const BATCH_DELAY_MAX: Duration = Duration::from_millis(50);
/// New files above which the whole file system is synced at once instead of each of them.
const SYNC_FILES_MAX: usize = 64;

/// One change of rows.
#[derive(Debug)]
pub(super) enum Job {
    /// Adds content that is already in place.
    Put { key: Key, size: u64, body: Arc<Body>, at_ms: i64 },
    /// Adds contents that lie in one frame.
    PutPack { pack: Arc<Pack>, at_ms: i64 },
    /// Marks content as used.
    Touch { key: Key, at_ms: i64 },
    /// Removes damaged content.
    Drop { key: Key },
    /// Adds a result; the first one of an action stays.
    Record(Arc<Recording>),
    /// Marks results as used.
    TouchResults { actions: Vec<Digest>, at_ms: i64 },
    /// Removes a result whose outputs are not all there.
    Forget { action: Digest, outputs: Digest },
    /// Notes how a task ended.
    Run(Box<TaskRun>),
    /// Keeps what a traced task touched.
    PathSet(Box<path_sets::Noted>),
    /// Enters executions in the ledger.
    Enter(Box<Entering>),
}

#[derive(Debug)]
struct Queued {
    job: Job,
    number: u64,
    _passes: Vec<Pass>,
    _lock: Option<ActionLock>,
}

impl Queued {
    /// Bytes of content that it carries.
    fn inline_bytes(&self) -> usize {
        match &self.job {
            Job::Put { body, .. } => match &**body {
                Body::File => 0,
                Body::Plain(bytes) | Body::Zstd(bytes) => bytes.len(),
            },
            Job::PutPack { pack, .. } => pack.bytes.len(),
            _ => 0,
        }
    }
}

impl Job {
    /// Of which task it changes what is remembered.
    fn label(&self) -> Option<&str> {
        match self {
            Job::Record(recording) => Some(&recording.result.label),
            Job::Run(run) => Some(&run.label),
            _ => None,
        }
    }
}

#[derive(Debug)]
enum Message {
    Job(Queued),
    /// There are uses to be taken over.
    Uses,
    /// There will be jobs, and queries before them.
    Soon,
    Flush(SyncSender<()>),
}

/// Results that were used and are not queued yet, with the passes of those who used them.
#[derive(Debug, Default)]
struct Uses {
    actions: Vec<Digest>,
    at_ms: i64,
    passes: Vec<Pass>,
}

/// What could not be written so far.
#[derive(Clone, Debug)]
struct Failure {
    count: usize,
    cause: String,
    is_full: bool,
}

/// The queue's end in the hands of callers. Dropping it writes everything and waits for that.
#[derive(Debug)]
pub(super) struct Queue {
    sender: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<Failure>>>,
    order: Mutex<()>,
    uses: Arc<Mutex<Uses>>,
    dir: PathBuf,
    /// What is queued.
    pub pending: Arc<Pending>,
}

impl Queue {
    /// Starts the writer.
    pub fn start(layout: &Layout, database: &Arc<Database>, notices: &Arc<Notices>) -> Result<Self, StoreError> {
        let (sender, receiver) = sync_channel(QUEUE_JOBS_MAX);
        let pending = Arc::new(Pending::default());
        let failure = Arc::new(Mutex::new(None));
        let uses = Arc::new(Mutex::new(Uses::default()));
        let writer = Writer {
            layout: layout.clone(),
            database: Arc::clone(database),
            notices: Arc::clone(notices),
            pending: Arc::clone(&pending),
            failure: Arc::clone(&failure),
            uses: Arc::clone(&uses),
            connected: None,
            has_failed: false,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|cause| FsError::new("start the writer of", layout.dir(), cause))?;
        let dir = layout.dir().to_owned();
        Ok(Self { sender: Some(sender), thread: Some(thread), failure, order: Mutex::default(), uses, dir, pending })
    }

    /// Queues a job; waits while the queue is full. `pass` is kept until the job is committed.
    pub fn push(&self, job: Job, pass: Option<Pass>) -> Result<(), StoreError> {
        self.push_held(job, pass, None)
    }

    /// Marks results as used: many that come while the writer is busy are one job, and wake it once.
    pub fn push_uses(
        &self,
        actions: impl IntoIterator<Item = Digest>,
        at_ms: i64,
        pass: Pass,
    ) -> Result<(), StoreError> {
        let is_first = {
            let mut uses = hold(&self.uses);
            let is_first = uses.passes.is_empty();
            uses.actions.extend(actions);
            uses.at_ms = uses.at_ms.max(at_ms);
            uses.passes.push(pass);
            is_first
        };
        if is_first { self.send(Message::Uses) } else { Ok(()) }
    }

    /// As [`Queue::push`] with the lock of an action, which goes when the job is committed or given up: whoever waits for the action
    /// finds its result, or runs it.
    pub fn push_held(&self, job: Job, pass: Option<Pass>, lock: Option<ActionLock>) -> Result<(), StoreError> {
        if let Some(label) = job.label() {
            self.pending.note_label(label);
        }
        // Noted before it is sent: from here on this process sees it. Both as one: what another thread found noted and names
        // in a result must be in the queue before that result.
        let _order = hold(&self.order);
        let number = match &job {
            Job::Put { key, size, body, .. } => {
                self.pending.note_content(*key, QueuedContent::Put { size: *size, body: Arc::clone(body) })
            }
            Job::PutPack { pack, .. } => self.pending.note_pack(pack),
            Job::Drop { key } => self.pending.note_content(*key, QueuedContent::Drop),
            Job::Forget { action, .. } => self.pending.note_result(*action, QueuedResult::Forget),
            Job::Record(recording) if recording.is_new => {
                self.pending.note_result(recording.result.action, QueuedResult::Record(Arc::clone(recording)))
            }
            Job::Record(_) | Job::Touch { .. } | Job::TouchResults { .. } => 0,
            Job::Run(_) | Job::PathSet(_) | Job::Enter(_) => 0,
        };
        self.send(Message::Job(Queued { job, number, _passes: pass.into_iter().collect(), _lock: lock }))
    }

    /// Has the database opened by the writer, and what an earlier session left in its log written back, while others are busy.
    pub fn expect_jobs(&self) {
        // A writer that has stopped is found out by who has a job for it.
        drop(self.send(Message::Soon));
    }

    /// Waits until everything queued so far is committed or has failed.
    pub fn settle(&self) -> Result<(), StoreError> {
        let (done, wait) = sync_channel(1);
        self.send(Message::Flush(done))?;
        wait.recv().map_err(|_| self.stopped())
    }

    /// As [`Queue::settle`], and tells what failed since the last time it told.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.settle()?;
        match hold(&self.failure).take() {
            None => Ok(()),
            Some(failure) if failure.is_full => Err(StoreError::Full { path: self.dir.clone() }),
            Some(Failure { count, cause, .. }) => Err(StoreError::Unwritten { path: self.dir.clone(), count, cause }),
        }
    }

    fn send(&self, message: Message) -> Result<(), StoreError> {
        let sender = self.sender.as_ref().ok_or_else(|| self.stopped())?;
        sender.send(message).map_err(|_| self.stopped())
    }

    fn stopped(&self) -> StoreError {
        StoreError::Unwritten { path: self.dir.clone(), count: 1, cause: "its writer has stopped".to_owned() }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

struct Writer {
    layout: Layout,
    database: Arc<Database>,
    notices: Arc<Notices>,
    pending: Arc<Pending>,
    failure: Arc<Mutex<Option<Failure>>>,
    uses: Arc<Mutex<Uses>>,
    connected: Option<Connected>,
    has_failed: bool,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) {
        if let Err(error) = recover::sweep_scratch(&self.layout) {
            tracing::debug!(%error, "scratch of earlier sessions stays for now");
        }
        while let Ok(first) = receiver.recv() {
            let (jobs, waiting) = self.gather(first, receiver);
            self.commit(jobs);
            for done in waiting {
                // Whoever no longer waits needs no answer.
                done.send(()).ok();
            }
        }
        self.close();
    }

    /// Takes jobs until there are enough of them, the time is up, or somebody waits and no more are there.
    fn gather(&mut self, first: Message, receiver: &Receiver<Message>) -> (Vec<Queued>, Vec<SyncSender<()>>) {
        let until = Instant::now() + BATCH_DELAY_MAX;
        let (mut jobs, mut waiting, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Job(job) => {
                    bytes += job.inline_bytes();
                    jobs.push(job);
                }
                Message::Uses => {
                    let Uses { actions, at_ms, passes } = std::mem::take(&mut *hold(&self.uses));
                    let job = Job::TouchResults { actions, at_ms };
                    jobs.push(Queued { job, number: 0, _passes: passes, _lock: None });
                }
                Message::Flush(done) => waiting.push(done),
                Message::Soon => self.connect_early(),
            }
            if jobs.len() >= BATCH_JOBS_MAX || bytes >= BATCH_BYTES_MAX {
                break;
            }
            next = match receiver.try_recv() {
                Err(TryRecvError::Empty) if waiting.is_empty() => {
                    receiver.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
                }
                received => received.ok(),
            };
        }
        (jobs, waiting)
    }

    /// Connects while nobody waits for it. What goes wrong is told by who needs the database.
    fn connect_early(&mut self) {
        if self.connected.is_none()
            && let Ok(connected) = self.database.writer()
        {
            self.database.write_back_early(&connected.connection);
            self.connected = Some(connected);
        }
    }

    fn commit(&mut self, jobs: Vec<Queued>) {
        let jobs = self.without_torn_results(jobs);
        if jobs.is_empty() {
            return;
        }
        let takes_out = |queued: &Queued| matches!(queued.job, Job::Drop { .. } | Job::Forget { .. });
        let marked = if jobs.iter().any(takes_out) { losses::note(&self.layout) } else { Ok(()) };
        let synced = marked.map_err(StoreError::from).and_then(|()| sync_files(&self.layout, &jobs));
        let written = synced.and_then(|()| {
            self.database.write("write", &mut self.connected, |connection| {
                let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
                if apply(&transaction, &jobs)? {
                    ledger::flag(&self.layout);
                }
                transaction.commit()
            })
        });
        match written {
            Ok(()) => {
                for queued in &jobs {
                    self.settle(queued);
                }
            }
            // What is queued stays visible to this process: the run goes on, and the next one misses.
            Err(error) => self.fail(jobs.len(), &error),
        }
    }

    /// Once a group could not be written, no later result may be: it may name what was in that group.
    fn without_torn_results(&self, jobs: Vec<Queued>) -> Vec<Queued> {
        if !self.has_failed {
            return jobs;
        }
        let (torn, whole): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|queued| matches!(queued.job, Job::Record(_)));
        if !torn.is_empty() {
            self.count_failed(torn.len(), || ("what they name was not written either".to_owned(), false));
        }
        whole
    }

    fn settle(&self, queued: &Queued) {
        if let Some(label) = queued.job.label() {
            self.pending.settle_label(label);
        }
        match &queued.job {
            Job::Put { key, .. } | Job::Drop { key } => self.pending.settle_content(key, queued.number),
            Job::PutPack { pack, .. } => self.pending.settle_pack(pack, queued.number),
            Job::Forget { action, .. } => self.pending.settle_result(action, queued.number),
            Job::Record(recording) => self.pending.settle_result(&recording.result.action, queued.number),
            Job::Touch { .. } | Job::TouchResults { .. } | Job::Run(_) | Job::PathSet(_) | Job::Enter(_) => {}
        }
    }

    fn fail(&mut self, count: usize, error: &StoreError) {
        self.has_failed = true;
        self.notices.add(
            Diagnostic::warning(format!("results were not stored: {error}"))
                .help("the run goes on; what is missing runs again"),
        );
        self.count_failed(count, || (error.to_string(), error.is_full()));
    }

    fn count_failed(&self, count: usize, cause: impl Fn() -> (String, bool)) {
        let mut failure = hold(&self.failure);
        match failure.as_mut() {
            Some(earlier) => earlier.count += count,
            None => {
                let (cause, is_full) = cause();
                *failure = Some(Failure { count, cause, is_full });
            }
        }
    }

    fn close(self) {
        // Who wrote little changed nothing that statistics tell.
        if let Some(Connected { connection, .. }) = self.connected.filter(|_| !self.database.leaves_log()) {
            // Not needed for what was promised; the next opener does without.
            drop(connection.execute_batch("PRAGMA optimize"));
        }
    }
}

fn sync_files(layout: &Layout, jobs: &[Queued]) -> Result<(), StoreError> {
    let mut paths = Vec::new();
    let mut dirs = BTreeSet::new();
    for queued in jobs {
        if let Job::Put { key, body, .. } = &queued.job
            && **body == Body::File
        {
            let path = layout.content(key);
            dirs.insert(layout.contents(key.kind));
            dirs.extend(path.parent().map(PathBuf::from));
            paths.push(path);
        }
    }
    if paths.len() > SYNC_FILES_MAX {
        return Ok(ops::sync_fs(layout.dir())?);
    }
    // A file that is gone again was found damaged: its row will lead nowhere and readers look at the file first.
    paths.par_iter().try_for_each(|path| ops::if_there(ops::sync_file(path)).map(drop))?;
    for dir in &dirs {
        ops::if_there(ops::sync_dir(dir))?;
    }
    Ok(())
}

/// Tells whether an action turned out to be unstable.
fn apply(connection: &Connection, jobs: &[Queued]) -> rusqlite::Result<bool> {
    let (mut grown, mut is_unstable) = (0, false);
    let mut labels = BTreeSet::new();
    for queued in jobs {
        match &queued.job {
            Job::Put { key, size, body, at_ms } => grown += content::insert(connection, key, *size, body, *at_ms)?,
            Job::PutPack { pack, at_ms } => grown += packs::insert(connection, pack, *at_ms)?,
            Job::Touch { key, at_ms } => content::touch(connection, key, *at_ms)?,
            Job::Drop { key } => grown += content::remove(connection, key)?,
            Job::Record(recording) => {
                let (bytes, differs) = results::insert(connection, recording)?;
                (grown, is_unstable) = (grown + bytes, is_unstable | differs);
                labels.insert((recording.result.label.as_str(), recording.result.workspace.as_str()));
            }
            Job::TouchResults { actions, at_ms } => {
                actions.iter().try_for_each(|action| results::touch(connection, action, *at_ms))?;
            }
            Job::Forget { action, outputs } => grown += results::forget(connection, action, outputs)?,
            Job::Enter(entering) => is_unstable |= ledger::enter(connection, entering)?,
            Job::PathSet(noted) => grown += path_sets::insert(connection, noted)?,
            Job::Run(run) => {
                history::note(connection, run)?;
                labels.insert((run.label.as_str(), run.workspace.as_str()));
            }
        }
    }
    for (label, workspace) in labels {
        grown += history::prune(connection, label, workspace)?;
    }
    content::add_usage(connection, grown)?;
    Ok(is_unstable)
}
