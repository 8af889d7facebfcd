//! Layer 1: manifests as text and as validated model. Knows nothing of other packages, SQLite, threads or the environment.
//!
//! [`read`] turns the text into the tables of [`raw`], [`lower`] turns those into the [`model`], [`schema`] and [`reference`] tell
//! people and editors what may be written.

mod compact;
mod fetch;
pub mod glob;
pub mod image;
mod image_layer;
mod interpolate;
mod kept;
mod keys;
mod layers;
pub mod lock;
pub mod lower;
mod matrix;
pub mod model;
mod needs;
mod origin;
mod patterns;
mod piece;
mod problems;
pub mod raw;
pub mod raw_image;
pub mod read;
pub mod recipe;
pub mod reference;
pub mod schema;
mod service;
pub mod split;
mod syntax;
mod task;
pub mod value;

#[cfg(test)]
mod tests;
