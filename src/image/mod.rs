//! Layer 3: images of the OCI as files: layouts read, checked and flattened. Knows no task, no manifest and no registry.
//!
//! | file | owns |
//! |---|---|
//! | `wire` | the JSON documents of the OCI image specification, and how strictly they are read |
//! | `blob` | digests of blobs, and blobs that are read through them |
//! | `blobs` | where blobs lie: in a directory or in the store |
//! | `find` | which image of a layout is meant |
//! | `layout` | an image in a directory: an OCI layout, or what `docker save` packs |
//! | `layer` | one layer after the other applied to what lies below: whiteouts, replaced kinds, links |
//! | `flatten` | from a layout to a tree in the store |
//!
//! Laws: nothing is used that was not digested; nothing an image says leads out of the directory it lies in; a whole layer is never
//! in memory; and nothing of an image enters the store before all of it was checked.

mod blob;
pub mod blobs;
mod error;
#[cfg(test)]
#[path = "../../tests/it/support/image.rs"]
mod fixture;
pub mod find;
pub mod flatten;
pub mod layer;
pub mod layout;
#[cfg(test)]
mod tests;
pub mod wire;

pub use blob::{BlobDigest, Hasher};
pub use blobs::Blobs;
pub use error::ImageError;
pub use flatten::{Flattened, flatten, flatten_archive};
