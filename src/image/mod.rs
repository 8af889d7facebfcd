//! Layer 3: images of the OCI as files: layouts read, checked, flattened, compared and written. Knows no task, no manifest and no registry.
//!
//! | file | owns |
//! |---|---|
//! | `wire` | the JSON documents of the OCI image specification, and how strictly they are read |
//! | `blob` | digests of blobs, and blobs that are read through them |
//! | `blobs` | where blobs lie: in a directory or in the store |
//! | `find` | which image of a layout is meant |
//! | `layout` | an image in a directory: an OCI layout, or what `docker save` packs |
//! | `links` | where a path leads in a tree with links |
//! | `layer` | one layer after the other applied to what lies below: whiteouts, replaced kinds, links |
//! | `flatten` | from a layout to a tree in the store |
//! | `access` | permissions and owners that layers give |
//! | `diff` | two images compared: what differs and why |
//! | `inspect` | one image described |
//! | `tar_writer` | the bytes of a tar archive, the same for the same entries |
//! | `compress` | the bytes of a compressed layer, the same for the same archive |
//! | `recipe` | what a layer holds, checked; its digest |
//! | `pack` | from a recipe to the bytes of a layer and its digests |
//! | `inherit` | what an image takes over from its base |
//! | `assemble` | configuration, manifest and index of an image |
//! | `closure` | how a tree is split into layers |
//! | `reach` | which blobs an index leads to |
//! | `archive` | a layout as one archive that all runtimes load, or as a directory |
//!
//! An image of ours is a function of what it is made from and of [`FORMAT_VERSION`]: a change of any byte takes a new version.
//!
//! Laws: nothing is used that was not digested; nothing an image says leads out of the directory it lies in; a whole layer is never
//! in memory; and nothing of an image enters the store before all of it was checked.

pub mod access;
pub mod archive;
pub mod assemble;
#[cfg(test)]
mod assembled_tests;
mod blob;
pub mod blobs;
pub mod closure;
pub mod compress;
pub mod diff;
mod error;
pub mod find;
#[cfg(test)]
#[path = "../../tests/it/support/image.rs"]
mod fixture;
pub mod flatten;
mod inherit;
pub mod inspect;
pub mod layer;
pub mod layout;
pub mod links;
pub mod pack;
pub mod reach;
pub mod recipe;
pub mod tar_writer;
#[cfg(test)]
mod tests;
pub mod wire;

pub use assemble::FORMAT_VERSION;
pub use blob::{BlobDigest, Hasher};
pub use blobs::Blobs;
pub use error::ImageError;
pub use flatten::{Flattened, flatten, flatten_archive};
