//! Layer 6: the command line. The only module that reads argv and the environment; one file per command.

pub mod affected;
pub mod again;
pub mod args;
pub mod audit;
pub mod completions;
pub mod context;
pub mod differing;
pub mod doctor;
mod doctor_reproducible;
pub mod early;
pub mod entry;
pub mod error;
pub mod exit;
pub mod explain;
pub mod explain_whole;
pub mod graph;
pub mod image;
pub mod init;
pub mod list;
pub mod lock;
pub mod logs;
pub mod man;
pub mod opening;
pub mod outputs;
pub mod panic;
pub mod plan;
pub mod query;
pub mod reach;
pub mod reference;
pub mod reports;
pub mod run;
pub mod schema;
pub mod shard;
pub mod store;
pub mod table;
pub mod verify;
pub mod watch;
pub mod wholes;

#[cfg(test)]
mod generated;

pub use entry::main;
