//! Whether an image is what is said of it, offline: digests, signatures, and the chain from provenance to layers.
//!
//! | file | owns |
//! |---|---|
//! | `report` | what was checked and how it came out |
//! | `blobs` | digests from the index down |
//! | `attached` | attestations that lie in the same layout |
//! | `claims` | what a signed statement says, against the image |
//! | `check` | the order of all this |
//!
//! What was not verified is not read: no layer is decompressed before its digest held, no statement parsed before its signature did.

mod attached;
mod blobs;
mod check;
mod claims;
mod report;
mod reproduced;
#[cfg(test)]
mod tests;

pub use blobs::LAYERS_BYTES_MAX;
pub use check::{Attestation, Question, verify, verify_blob};
pub use report::{Check, Report, Verdict};
pub use reproduced::{Claim, Form, Outcome, Quorum, RESULTS_PREDICATE, Released, is_of_rebuilder, require_reproduced};
