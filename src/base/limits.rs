//! Every limit, as a named constant with its unit. A limit that is reached is an error that names it.

/// Longest task, template or pool name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Largest manifest read, in bytes. A generated manifest of ten thousand tasks has about 2 MiB.
pub const MANIFEST_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Deepest directory nesting in a tree, so that a hostile tree cannot exhaust the stack.
pub const TREE_DEPTH_MAX: usize = 256;

/// Most tasks one matrix may expand to.
pub const MATRIX_TASKS_MAX: usize = 1024;

/// Output kept from one stream of one action, in bytes; the middle of anything longer is left out with a line that says so.
pub const LOG_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest blob kept inside the database, in bytes. Larger ones are files.
pub const INLINE_BLOB_BYTES_MAX: usize = 64 * 1024;

/// Most bytes that are compressed together inside the database: to read one of them all are unpacked.
pub const PACK_BYTES_MAX: usize = 512 * 1024;

/// Files of this size or more are digested on all cores, in bytes.
pub const PARALLEL_DIGEST_BYTES_MIN: u64 = 1024 * 1024;

/// Default cap of the store, in bytes; a tenth of the disk if that is less.
pub const STORE_BYTES_DEFAULT: u64 = 20 * 1024 * 1024 * 1024;

/// Largest file a `fetch` task accepts, and most bytes of all blobs of an image that is pulled, in bytes.
pub const FETCH_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// Processes and threads one command may have at once, unless `resources.processes` says otherwise.
pub const PROCESSES_DEFAULT: u32 = 4096;

/// Fewest processes a task may be limited to: a shell with a pipe needs a handful.
pub const PROCESSES_MIN: u32 = 8;

/// Most processes a task may ask for: Linux numbers no more.
pub const PROCESSES_MAX: u32 = 4_000_000;

/// Earlier fingerprints kept per task for explanations.
pub const FINGERPRINTS_PER_TASK: usize = 16;

/// Observations kept per static key of a traced task: one for each state of its inputs that was seen lately.
pub const PATH_SETS_PER_TASK: usize = 32;

/// Longest pattern in a manifest, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// Deepest nesting of braces in a pattern.
pub const PATTERN_NESTING_MAX: usize = 16;

/// Most syntax errors reported for one manifest: later ones are mostly echoes of the first.
pub const SYNTAX_ERRORS_MAX: usize = 10;

/// Longest chain of templates that extend each other.
pub const EXTENDS_DEPTH_MAX: usize = 32;

/// Most files, links and directories one flat listing may have: nested trees that share parts can name more than any disk holds.
pub const LISTING_ENTRIES_MAX: usize = 4_000_000;

/// Outputs remembered per action in the ledger of recordings.
pub const LEDGER_ROWS_PER_ACTION: usize = 64;

/// Days after which unused history, ledger rows and fingerprints without a result are forgotten.
pub const MEMORY_DAYS: u32 = 90;

/// Days for which a damaged database that was set aside is kept.
pub const DAMAGED_DAYS: u32 = 7;

/// Most files, links and directories in one installation root of a tool: the largest kits have about a tenth of it, a home or a
/// data disk has more.
pub const TOOL_ROOT_ENTRIES_MAX: usize = 500_000;

/// Longest command for a shell that items of a split task may make, in bytes: Linux takes arguments of less than 128 KiB.
pub const SHELL_COMMAND_BYTES_MAX: usize = 128 * 1024 - 1;

/// Longest command as an array that items of a split task may make, in bytes: Linux takes 2 MiB, the environment included.
pub const ARGUMENTS_BYTES_MAX: usize = 1024 * 1024;

/// Most parts one split task may have.
pub const SPLIT_PARTS_MAX: usize = 10_000;

/// Largest input copied into the memory of each sandbox that shows it, in bytes; of a larger one a copy is kept in the store.
pub const VIEW_FILE_BYTES_MAX: u64 = 128 * 1024;

/// Most bytes of inputs copied into the memory of one sandbox; the rest is shown from copies kept in the store.
pub const VIEW_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Free memory, in bytes, below which no private copy of a task's inputs is made in memory: the command may leave much more there.
pub const STAGE_MEMORY_FREE_MIN: u64 = 1024 * 1024 * 1024;

/// Most files shown one by one; of more, whole directories are kept in the store.
pub const VIEW_FILES_MAX: usize = 2000;

/// Fewest files in a directory worth keeping as a whole.
pub const KEPT_FILES_MIN: usize = 64;

/// Most source files in a directory kept as a whole: one edit makes all of it anew.
pub const KEPT_SOURCES_MAX: usize = 1024;

/// Most files, links and directories that one command may add to or change in a root file system.
pub const ROOT_CHANGES_MAX: usize = 1_000_000;

/// Longest path among them, in bytes: with the directory that it lies in while it is taken, less than what the kernel takes.
pub const ROOT_PATH_BYTES_MAX: usize = 3 * 1024;
