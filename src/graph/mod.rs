//! Layer 2: tasks and what they need. Reads the loaded workspace; knows nothing of the store, of actions or of running.

pub mod build;
pub mod compiled;
pub mod cycle;
pub mod export;
pub mod query;
pub mod select;
pub mod task_graph;

pub use build::{Edge, TaskGraph, build};
