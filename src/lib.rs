//! Drystone: a declarative, content-addressed build graph engine for monorepos.
//!
//! Layers, lowest first; `tests/tidy.rs` holds them: [`base`], then [`fs`] and [`manifest`], then [`workspace`], [`graph`] and
//! [`store`], then [`fingerprint`], [`process`], [`sandbox`] and [`image`],
//! then [`registry`], [`attest`] and [`engine`], then [`audit`] and [`report`], then [`cli`].
//! ARCHITECTURE.md tells the life of a run.

pub mod attest;
pub mod audit;
pub mod base;
pub mod cli;
pub mod engine;
pub mod fingerprint;
pub mod fs;
pub mod graph;
pub mod image;
pub mod manifest;
pub mod process;
pub mod registry;
pub mod report;
pub mod sandbox;
pub mod store;
pub mod workspace;
