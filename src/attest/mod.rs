//! Layer 4: what goes with an image: bills of materials, provenance, signatures. Reaches no network.
//!
//! | file | owns |
//! |---|---|
//! | `model` | the facts that are told of an image |
//! | `packages` | what package managers say is installed |
//! | `installed` | the databases of package managers in the layers of an image |
//! | `names` | package URLs, UUIDs, times, licences, places |
//! | `bill` | the bill of materials before it has a format |
//! | `spdx`, `cyclonedx` | the two formats |
//! | `statement`, `provenance` | in-toto statements; how an image came to be |
//! | `pem`, `keys` | keys and their files |
//! | `dsse`, `bundle` | signed envelopes, and the file that holds one |
//! | `referrer` | what ties a document to an image |
//! | `verify` | whether all of it holds, offline |
//!
//! Laws: the same facts give the same bytes; nothing signed is read before its signature held; no secret is shown or logged, and what
//! this module holds of one is overwritten when it is dropped (`ring` has copies of its own).

mod bill;
pub mod bundle;
pub mod cyclonedx;
pub mod dsse;
mod error;
#[cfg(test)]
#[path = "../../tests/it/attest/attested.rs"]
mod fixture;
pub mod installed;
pub mod keys;
pub mod model;
mod names;
pub mod packages;
mod pem;
pub mod provenance;
pub mod referrer;
pub mod spdx;
pub mod statement;
#[cfg(test)]
mod tests;
pub mod verify;

#[cfg(test)]
use crate::{base, image};

pub use error::AttestError;
pub use names::rfc3339;
pub use pem::{KEY_FILE_BYTES_MAX, Secret};
