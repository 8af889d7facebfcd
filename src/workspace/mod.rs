//! Layer 2: the workspace as it lies on disk: packages, their dependencies, source files and what is known of them.
//! Knows nothing of the store, of actions or of running anything.

pub mod affected;
pub mod census;
pub mod census_file;
pub mod changes;
pub mod claims;
pub mod compiled;
pub mod discover;
pub mod files;
#[cfg(test)]
pub(crate) mod fixture;
pub mod git;
pub mod git_index;
pub mod inputs;
pub mod load;
pub mod model;
pub mod nearby;
pub mod outputs;
pub mod package_graph;
pub mod repository;
pub mod split;
pub mod stat_index;
pub mod sweep;
pub mod tasks;
pub mod untracked;
mod upstream;

pub use discover::find_root;
pub use load::{LoadError, load, load_grouped};
pub use model::{Package, Workspace};
