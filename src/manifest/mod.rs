//! Layer 1: manifests as text and as validated model. Knows nothing of other packages, SQLite, threads or the environment.

pub mod glob;
pub mod model;
