//! What a run needs if a source file changed, begun while the rest of what is kept is still being compared: launchers, the workspace as it
//! was loaded, the store. Says nothing by any of it: where it turns out that more changed, all of it is left unused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use crate::engine::again::{Expected, Model};
use crate::engine::execute::now_ms;
use crate::engine::rest::by_level;
use crate::engine::session::Session;
use crate::fs::witness::unheard;
use crate::graph::build::TaskGraph;
use crate::sandbox::open::{Sandbox, open_with};
use crate::sandbox::spec::Level;
use crate::store::{OpenOptions, Origin, Store};
use crate::workspace::model::Workspace;

/// The workspace, its graph, and the store; that it could not be opened is found and told by who needs it.
pub type Loaded = (Workspace, TaskGraph, Option<Arc<Store>>);

/// A sandbox, and for how many commands launchers are being made.
type Begun = (Arc<dyn Sandbox>, usize);

/// What was begun, if anything was.
pub struct Early {
    program: PathBuf,
    store_dir: PathBuf,
    origin: Origin,
    slots: usize,
    sandboxes: OnceLock<BTreeMap<Level, Begun>>,
    loading: Mutex<Option<JoinHandle<Option<Loaded>>>>,
}

impl Early {
    /// Nothing yet. `program` is started as launcher; `slots` is how many commands run at once.
    pub fn new(program: &Path, store_dir: &Path, origin: Origin, slots: usize) -> Self {
        let (program, store_dir) = (program.to_owned(), store_dir.to_owned());
        Self { program, store_dir, origin, slots, sandboxes: OnceLock::new(), loading: Mutex::new(None) }
    }

    /// Begins, on threads of its own.
    pub fn begin(&self, expected: Expected) {
        let Expected { levels, model } = expected;
        let opened = by_level(levels, self.slots).into_iter().filter_map(|(level, count)| {
            let sandbox: Arc<dyn Sandbox> = Arc::from(open_with(level, &self.program).ok()?);
            sandbox.expect_commands(count);
            Some((level, (sandbox, count)))
        });
        // It is told once.
        drop(self.sandboxes.set(opened.collect()));
        let Some(model) = model else { return };
        let (dir, origin) = (self.store_dir.clone(), self.origin.clone());
        let thread = std::thread::Builder::new().name("early".into());
        if let Ok(thread) = thread.spawn(move || unheard(|| load(&model, dir, origin))) {
            *self.loading.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
    }

    /// What was loaded; waits for it.
    pub fn take(&self) -> Option<Loaded> {
        let thread = self.loading.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        thread.join().ok().flatten()
    }

    /// Hands the launchers over; how many of each level there are, or will be.
    pub fn hand_over(&self, session: &Session<'_>) -> BTreeMap<Level, usize> {
        let hand = |(level, (sandbox, count)): (&Level, &Begun)| {
            session.adopt(*level, Arc::clone(sandbox));
            (*level, *count)
        };
        self.sandboxes.get().into_iter().flatten().map(hand).collect()
    }
}

impl Drop for Early {
    /// Nobody else opens the store while this does.
    fn drop(&mut self) {
        drop(self.take());
    }
}

fn load(model: &Model, dir: PathBuf, origin: Origin) -> Option<Loaded> {
    let (workspace, graph) = model.open()?;
    let bytes_max = workspace.config.store_bytes_max;
    let store = Store::open_lazily(OpenOptions { dir, bytes_max, now_ms, origin }).ok().map(Arc::new);
    store.iter().for_each(|store| store.expect_use());
    Some((workspace, graph, store))
}
