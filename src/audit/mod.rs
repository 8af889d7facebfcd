//! Layer 5: rebuilds actions under variation, compares what came of it, and finds out why it differs. Never changes a result.
//!
//! | file | owns |
//! |---|---|
//! | `model` | what an audit found, as data; reports are made of it |
//! | `context` | what is known of two builds before they are compared |
//! | `causes` | what makes builds differ, and the way out of each |
//! | `variation` | what is varied, and with what |
//! | `inspector`, `examine`, `builds`, `effects`, `bisect`, `hidden` | the procedure: builds, which variations took hold, what makes them differ, what differs anyway |
//! | `habits` | what the text of a command shows that makes builds differ |
//! | `hits` | the check of a share of hits |
//! | `machine` | what machine this is |
//! | `compare` | two trees of outputs, down through archives, image layouts and compressed files |
//! | `kinds` | two files that are no containers |
//! | `wire` | the JSON report, written and read back |
//! | `statement` | what an audit says as in-toto statements |
//! | `results` | what one machine's builds came to, for others to compare theirs with |

mod bisect;
pub mod builds;
pub mod causes;
pub mod compare;
pub mod context;
mod effects;
pub mod examine;
pub mod habits;
mod hidden;
pub mod hits;
pub mod inspector;
pub mod kinds;
pub mod machine;
pub mod model;
pub mod results;
#[cfg(test)]
pub(crate) mod sample;
pub mod statement;
pub mod variation;
pub mod wire;
