//! Layer 0: plain data and pure functions. Knows nothing of files, threads, clocks or terminals.

pub mod compact;
pub mod diagnostic;
pub mod digest;
pub mod encode;
pub mod ids;
pub mod label;
pub mod limits;
pub mod path;
pub mod platform;
pub mod span;
pub mod time;
pub mod tree;
