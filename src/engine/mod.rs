//! Layer 4: plans and runs. Knows nothing of argv and the terminal.

pub mod collect;
pub mod drive;
pub mod event;
pub mod execute;
pub mod explain;
pub mod fetch;
pub mod fix;
pub mod job;
pub mod log;
pub mod materialize;
pub mod owned;
pub mod plan;
pub mod prepare;
pub mod present;
pub mod preview;
pub mod restore;
pub mod scheduler;
pub mod secrets;
pub mod session;
pub mod takeover;
pub mod tracked;
pub mod undeclared;
pub mod unpack;
pub mod view;
pub mod waiting;
pub mod written;
