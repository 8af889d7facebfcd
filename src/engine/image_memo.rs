//! What images share, each a result of the store under a key of its own: packed layers, bases, what lies below a layer, roots of steps. Knows
//! none of them.

use std::time::Instant;

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing, fold};
use crate::engine::event::Log;
use crate::engine::execute::now_ms;
use crate::engine::log;
use crate::engine::prepare::fetch_action;
use crate::engine::session::Session;
use crate::fingerprint::action::{Action, Work};
use crate::image::FORMAT_VERSION;
use crate::manifest::model::Expected;
use crate::sandbox::spec::{Level, Usage};
use crate::store::{ActionLock, ActionResult, StoreError};

/// One of them.
pub struct Memo {
    /// Its key.
    pub key: Digest,
    stream: Vec<u8>,
}

impl Memo {
    /// What follows from content of this digest by itself. `what` says what it is; no two things have the same one.
    ///
    /// The key is that of a fetch without addresses, which no task is.
    pub fn of(expect: Expected, what: &str) -> Self {
        let placing = format!("{what}, image format {FORMAT_VERSION}");
        let work = Work::Fetch { urls: Vec::new(), expect, placing };
        Self::of_action(&fetch_action(work, RelPath::root(), &RelPath::root()))
    }

    /// What an action makes.
    pub fn of_action(action: &Action) -> Self {
        let (key, stream) = action.key();
        Self { key, stream }
    }

    /// What is kept, if it is, with what was printed.
    pub fn find(&self, session: &Session<'_>) -> Result<Option<(Listing, ActionResult)>, StoreError> {
        let Some(result) = session.store.lookup(&self.key)? else { return Ok(None) };
        Ok(session.store.listing(&result.outputs)?.map(|listing| (listing, result)))
    }

    /// Keeps it; gives the digest of its tree. `label` names it to people and is that of no task, whose history it must not enter.
    pub fn keep(
        self,
        session: &Session<'_>,
        listing: &Listing,
        (label, started, printed, usage): (String, Instant, &Log, Usage),
        lock: Option<ActionLock>,
    ) -> Result<Digest, StoreError> {
        let store = &session.store;
        let trees = fold(listing);
        store.put_trees(&trees)?;
        let result = ActionResult {
            action: self.key,
            outputs: trees.root,
            stdout_stderr: store.put_bytes(&log::encode(printed))?,
            exit: 0,
            isolation: Level::Namespaces.word().to_owned(),
            duration_ms: started.elapsed().as_millis() as u64,
            cpu_ms: usage.cpu_ms,
            max_rss_kib: usage.max_rss_kib,
            label,
            workspace: session.worktree(),
            created_ms: now_ms(),
        };
        store.record_held(result, &self.stream, lock)?;
        Ok(trees.root)
    }
}

/// The bytes of a small file of a listing; `None` if it is not there.
pub fn bytes_of(session: &Session<'_>, listing: &Listing, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    match listing.get(&RelPath::root().child(name)) {
        Some(Entry::File { digest, .. }) => session.store.read(digest),
        _ => Ok(None),
    }
}

/// A file of a listing with these bytes.
pub fn file_of(session: &Session<'_>, bytes: &[u8]) -> Result<Entry, StoreError> {
    let digest = session.store.put_bytes(bytes)?;
    Ok(Entry::File { digest, size: bytes.len() as u64, executable: false })
}
