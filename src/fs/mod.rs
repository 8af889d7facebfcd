//! Layer 1: the only module that touches `std::fs`. Knows nothing of manifests, tasks or the database.

mod ar;
pub mod archive;
pub mod atomic;
mod beneath;
pub mod digest;
pub mod dir;
#[cfg(debug_assertions)]
pub mod fault;
pub mod grain;
mod ignored;
pub mod link;
pub mod lock;
pub mod look;
pub mod machine;
pub mod memory;
pub mod nursery;
pub mod ops;
pub mod out;
pub mod overlay;
pub mod stat;
pub mod unpack;
pub mod walk;
pub mod witness;
