//! Layer 4: plans and runs. Knows nothing of argv and the terminal.

pub mod event;
pub mod scheduler;
