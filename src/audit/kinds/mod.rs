//! What differs between two files that are no containers, and why; and what names tell.

use crate::audit::causes::{self, Cause};
use crate::audit::context::Context;
use crate::audit::model::{Certainty, EVIDENCE_BYTES_MAX, Evidence};
use crate::sandbox::surroundings::Dimension;

/// A difference within a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Where in it, from the outside in.
    pub members: Vec<String>,
    /// What differs.
    pub what: String,
    /// Why.
    pub cause: &'static Cause,
    /// How sure that is.
    pub certainty: Certainty,
    /// What was varied, where that is proven.
    pub dimension: Option<Dimension>,
    /// The bytes.
    pub evidence: Option<Evidence>,
}

/// What differs between two files of a name.
pub fn look(_name: &str, a: &[u8], b: &[u8], context: &Context) -> Vec<Finding> {
    let Some(offset) = a.iter().zip(b).position(|(a, b)| a != b).or((a.len() != b.len()).then(|| a.len().min(b.len())))
    else {
        return Vec::new();
    };
    let cut = |bytes: &[u8]| bytes[offset..].iter().take(EVIDENCE_BYTES_MAX).copied().collect();
    let evidence = Some(Evidence { offset: offset as u64, a: cut(a), b: cut(b) });
    vec![Finding {
        members: Vec::new(),
        what: "the bytes differ".into(),
        cause: &causes::UNKNOWN,
        certainty: Certainty::Suspected,
        dimension: context.alone,
        evidence,
    }]
}

/// Why two names of one file differ.
pub fn name_cause(_a: &str, _b: &str, _context: &Context) -> (&'static Cause, Certainty) {
    (&causes::UNKNOWN, Certainty::Suspected)
}

/// Why a file is there on one side only, where its path tells.
pub fn only_cause(_path: &str) -> Option<&'static Cause> {
    None
}
