//! Stores in temporary directories, a clock that tests set, and results to put into them.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing, fold};
use crate::store::content::Key;
use crate::store::db::Access;
use crate::store::ledger::Origin;
use crate::store::{ActionResult, OpenOptions, Recorded, Store};

thread_local! {
    static NOW_MS: Cell<i64> = const { Cell::new(1_000_000) };
}

/// Moves the clock of the calling thread.
pub fn advance_clock(by_ms: i64) {
    NOW_MS.set(NOW_MS.get() + by_ms);
}

pub fn now_ms() -> i64 {
    NOW_MS.get()
}

/// A directory for a store, removed on drop.
pub struct Trial {
    dir: TempDir,
}

impl Trial {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn options(&self) -> OpenOptions {
        OpenOptions { dir: self.store_dir(), bytes_max: Some(1 << 30), now_ms, origin: Origin::default() }
    }

    pub fn open(&self) -> Store {
        Store::open(self.options()).expect("the store opens")
    }

    /// Opened on another machine.
    pub fn open_on(&self, machine: &str) -> Store {
        let origin = Origin { machine: Some(Digest::of(machine.as_bytes())), builder: machine.to_owned() };
        Store::open(OpenOptions { origin, ..self.options() }).expect("the store opens")
    }

    pub fn open_capped(&self, bytes_max: u64) -> Store {
        Store::open(OpenOptions { bytes_max: Some(bytes_max), ..self.options() }).expect("the store opens")
    }

    pub fn open_read_only(&self) -> Store {
        Store::open_as(&self.options(), Access::ReadOnly).expect("the store opens")
    }
}

pub fn action(name: &str) -> Digest {
    Digest::derived("a test's actions", name.as_bytes())
}

pub fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("a good path")
}

/// Bytes that compression cannot shrink and no other seed makes.
pub fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_derive_key("a test's noise").update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Puts a log, and files as outputs of one action are put, and gives the result that names them; records nothing.
pub fn put(store: &Store, name: &str, files: &[(&str, &[u8])]) -> ActionResult {
    let mut listing = Listing::new();
    let session = store.session().expect("it may be written");
    let pass = session.gate.enter().expect("it is open");
    let mut batch = store.batch();
    for (at, bytes) in files {
        let digest = Digest::of(bytes);
        batch.put(session, Key::blob(digest), bytes, &pass).expect("it can be put");
        listing.insert(path(at), Entry::File { digest, size: bytes.len() as u64, executable: false });
    }
    drop(pass);
    batch.finish().expect("they can be put");
    let set = fold(&listing);
    store.put_trees(&set).expect("they can be put");
    ActionResult {
        action: action(name),
        outputs: set.root,
        stdout_stderr: store.put_bytes(format!("log of {name}").as_bytes()).expect("it can be put"),
        exit: 0,
        isolation: "namespaces".to_owned(),
        duration_ms: 12,
        cpu_ms: 7,
        max_rss_kib: 2048,
        label: format!("//:{name}"),
        workspace: "/work/a".to_owned(),
        created_ms: now_ms(),
    }
}

/// Puts and records.
pub fn record(store: &Store, name: &str, files: &[(&str, &[u8])]) -> ActionResult {
    let result = put(store, name, files);
    let recorded =
        store.record(result.clone(), format!("fingerprint of {name}").as_bytes()).expect("it can be recorded");
    assert_eq!(recorded, Recorded::Stored);
    result
}

/// The one file of content that is a file.
pub fn content_file(store: &Store, dir: &str, digest: &Digest) -> PathBuf {
    let hex = digest.to_hex();
    store.dir().join(dir).join(&hex[..2]).join(&hex[2..])
}
