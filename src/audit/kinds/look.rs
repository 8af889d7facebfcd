//! The way into two files: which kind they are of decides who looks into them.

use super::gather::{Gathered, Reason, Stretch};
use super::planted::Markers;
use super::{documents, elf, json, lines, names, png, programs, python};
use crate::audit::causes::{self, Cause};
use crate::audit::context::Context;
use crate::audit::model::{Certainty, Evidence};
use crate::sandbox::surroundings::Dimension;

/// How [`Finding::what`] begins where a digest differs: it may follow from another file.
pub const DIGEST_LEAD: &str = "a digest ";
/// Fewer bytes than these tell whether it is text.
const SAMPLE_BYTES: usize = 64 << 10;

/// What was found in two files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Where in them, from the outside in: a section, a chunk, a field. Empty for the file itself.
    pub members: Vec<String>,
    /// What differs, in one line.
    pub what: String,
    /// Why.
    pub cause: &'static Cause,
    /// How sure that is.
    pub certainty: Certainty,
    /// By which variation, where that is proven.
    pub dimension: Option<Dimension>,
    /// The bytes of the first place.
    pub evidence: Option<Evidence>,
}

/// Compares two files that differ: one finding at least, one for each cause and member, in the order of the files.
///
/// `name` is the path of the file in its tree or archive; what kind it is its bytes tell. Costs time and memory linear in both.
/// A finding tells the first of its places and how many there are; after 1,000 places no more are looked into.
pub fn look(name: &str, a: &[u8], b: &[u8], context: &Context) -> Vec<Finding> {
    let markers = Markers::of(context);
    let mut all = Gathered::new(context, &markers);
    let is_looked_into = elf::look(&mut all, a, b)
        || programs::look(&mut all, a, b)
        || python::look(&mut all, name, a, b)
        || png::look(&mut all, a, b)
        || documents::look(&mut all, a, b)
        || json::look(&mut all, a, b);
    if !is_looked_into {
        if is_text(a) && is_text(b) {
            lines::compare_text(&mut all, &[], a, b);
        } else {
            lines::compare_binary(&mut all, &[], a, b);
        }
    }
    if all.is_empty() {
        let at = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let stretch = Stretch { a, at_a: at..a.len(), b, at_b: at..b.len(), is_text: false };
        let covers = (stretch.at_a.clone(), stretch.at_b.clone());
        all.add(&[], Reason::suspected(&causes::UNKNOWN, "bytes that nothing explains", covers), &stretch);
    }
    names::revise(&mut all, name, a, b);
    all.finish()
}

/// Whether bytes are text: no zero, and hardly a control character. Any encoding that extends ASCII will do.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(SAMPLE_BYTES)];
    let strange =
        sample.iter().filter(|byte| **byte < 0x20 && !matches!(**byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b | 0x08));
    !sample.contains(&0) && strange.count() * 100 <= sample.len() && {
        let high = sample.iter().filter(|byte| **byte >= 0x80).count();
        high * 3 <= sample.len() || std::str::from_utf8(sample).is_ok()
    }
}
