//! Layer 5: rebuilds actions under variation, compares what came of it, and finds out why it differs. Never changes a result.
//!
//! | file | owns |
//! |---|---|
//! | `model` | what an audit found, as data; reports are made of it |
//! | `context` | what is known of two builds before they are compared |
//! | `causes` | what makes builds differ, and the way out of each |
//! | `wire` | an audit as JSON, written and read |
//! | `statement` | what an audit found, as statements that can be signed |

pub mod causes;
pub mod context;
pub mod model;
#[cfg(test)]
pub(crate) mod sample;
pub mod statement;
pub mod wire;
