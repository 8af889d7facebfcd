//! Layer 3: runs one command so that it sees what it declared. Knows nothing of tasks, caches or the terminal.
//!
//! Three kinds of process take part. The *engine* asks (`open`); it never forks. The *launcher*, a copy of this program with a small
//! heap (`launcher`), forks for each command an *init* (`init`), which builds the view (`namespaces` with `rootfs` or `writable`, or
//! `plain`, the latter fenced in by `confine`), starts the command (`start`), observes it where that is asked for (`trace`), keeps the owners of its files (`owners`), buries everything it started
//! (`tree`) and reports. What holds a command to its limits (`limits`) are control groups (`mounted`, `group`, `berth`), or the init, which
//! counts (`crowd`). `wire` is what they say to each other. A *pod* (`pod`) is a network that several commands share; `checks` is how the
//! engine sees whether one of them is ready for the others, `drain` how it has all that one has printed.

mod berth;
pub mod canary;
pub mod checks;
pub mod clock;
mod confine;
mod crowd;
pub mod drain;
mod group;
mod init;
mod kernel;
pub mod launcher;
pub mod limits;
mod mounted;
mod namespaces;
mod native;
mod observation;
pub mod open;
mod owned;
pub mod owners;
mod plain;
pub mod pod;
pub mod probe;
mod ptrace;
mod quiet;
mod refusal;
mod rootfs;
pub mod spec;
mod start;
pub mod surroundings;
mod trace;
mod tree;
mod wire;
pub mod writable;
