//! Layer 2: the local content store. Blobs, trees, results, what explains them, and the memory of earlier runs.
//!
//! | file | owns |
//! |---|---|
//! | `layout` | where things lie on the disk |
//! | `locks` | leases, the gate between uses and collection, action locks |
//! | `db`, `migrate`, `recover` | connections, versions, damage |
//! | `losses` | the mark that tells whether anything was taken out since |
//! | `pending`, `writer` | the queue of rows and the one thread that commits them |
//! | `content`, `blobs`, `reader`, `ahead`, `trees` | bytes by digest |
//! | `packs`, `batch` | small contents of one action in one frame |
//! | `caches`, `kept`, `seen` | directories that tasks keep between their runs; what is shown to commands as it is |
//! | `links` | files that outputs may be hard links to |
//! | `results`, `history` | the action cache; durations, outcomes, fingerprints |
//! | `ledger` | who got which outputs from an action, on which machine; what is unstable |
//! | `durations` | what an imported archive says about durations, alike for all who imported it |
//! | `path_sets` | what traced tasks touched |
//! | `gc`, `mark`, `verify`, `stat`, `archive` | keeping it small and sound, carrying it elsewhere |
//!
//! Laws: bytes are digested whenever they are read, and what does not match is absent; a row is committed after the bytes it
//! names are on the disk; the first result of an action stays; nothing that a live session put or used is
//! collected; a damaged database is set aside and costs cache misses. Knows nothing of manifests, graphs or sandboxes.

mod ahead;
mod archive;
mod batch;
mod blobs;
mod caches;
mod content;
mod db;
mod durations;
mod error;
mod gc;
mod history;
mod kept;
mod layout;
mod ledger;
mod links;
mod locks;
mod losses;
mod mark;
mod migrate;
mod open;
mod packs;
mod path_sets;
mod pending;
mod reader;
mod recover;
mod results;
mod seen;
mod stage;
mod stat;
mod trees;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

pub use ahead::Ahead;
pub use archive::{ExportReport, ImportReport};
pub use batch::Batch;
pub use caches::CacheDir;
pub use durations::imported_durations;
pub use error::StoreError;
pub use gc::{GcMode, GcOptions, GcReport};
pub use history::{History, TaskRun};
pub use ledger::{Disagreement, Execution, LedgerEntry, Origin, Unstable};
pub use links::Linked;
pub use locks::ActionLock;
pub use losses::mark_of;
pub use open::{OpenOptions, Store, workspace_state};
pub use path_sets::PathSet;
pub use reader::BlobReader;
pub use results::{ActionResult, Recorded};
pub use seen::{Fill, Keep, Wanted};
pub use stage::Stage;
pub use stat::StoreStat;
pub use verify::{VerifyMode, VerifyOptions, VerifyReport};
