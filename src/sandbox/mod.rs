//! Layer 3: runs one command so that it sees what it declared. Knows nothing of tasks, caches or the terminal.

pub mod spec;
