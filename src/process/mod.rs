//! Layer 3: plain child processes, stopping, and what processes used. Knows nothing of tasks or sandboxes.

pub mod cancel;
pub mod signals;
pub mod spawn;
pub mod usage;
