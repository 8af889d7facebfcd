//! Compares the outputs of two builds, down through containers: what differs, where, and why. Reads no disk, and knows no tasks.
//!
//! | file | owns |
//! |---|---|
//! | `walk` | two contents on their way down: limits, what was found, what waits for the end |
//! | `entries` | listings: paths on one side, kinds, modes, links, renames |
//! | `sniff` | what bytes are, by how they begin |
//! | `archive` | archives of any format as members with fields, and how two of them differ |
//! | `tar`, `cpio`, `ar`, `zip` | one format each: every byte is of a field or of a content |
//! | `compressed`, `gzip` | compressed files |
//! | `oci`, `document` | image layouts, and the documents in them |
//! | `consequence` | files that hold digests of others that differ |
//! | `pairing` | files that have another name on the other side |
//! | `digests` | the digests such files hold |
//! | `verdict` | how alike two sides are |
//!
//! Laws: a container is taken apart only if each of its bytes is accounted for, by a field, a content, or a rule that derives it from
//! these; otherwise it is a file like others. So what no field shows, and no content, is not different. Where the sides are exchanged,
//! the same is found with its sides exchanged. Whatever is over a limit is told and counts as different.

mod ar;
mod archive;
mod compressed;
mod consequence;
mod cpio;
mod digests;
mod document;
mod entries;
mod gzip;
mod oci;
mod pairing;
mod sniff;
mod tar;
#[cfg(test)]
mod tests;
mod verdict;
mod walk;
mod zip;

use crate::audit::context::Context;
use crate::audit::model::{Difference, Site, Verdict};
use crate::base::digest::Digest;
use crate::base::tree::Listing;

/// Bounds of a comparison.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Containers within one another.
    pub depth: usize,
    /// Bytes of each side that are unpacked from compressed files and archives.
    pub unpacked_bytes: u64,
    /// Bytes of one content when it is unpacked, which is in memory as a whole.
    pub content_bytes: usize,
    /// Members of archives, of each side.
    pub entries: usize,
    /// Differences that are told.
    pub told: usize,
    /// Bytes of a file that is no container that are looked at, of each side.
    pub leaf_bytes: usize,
}

/// Containers within one another.
const DEPTH_MAX: usize = 12;
/// Bytes that are unpacked of each side.
const UNPACKED_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Bytes of one content when it is unpacked.
const CONTENT_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Members of archives of each side.
const ENTRIES_MAX: usize = 400_000;
/// Differences that are told.
const TOLD_MAX: usize = 1_000;
/// Bytes of a leaf that are looked at.
const LEAF_BYTES_MAX: usize = 256 * 1024 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: DEPTH_MAX,
            unpacked_bytes: UNPACKED_BYTES_MAX,
            content_bytes: CONTENT_BYTES_MAX,
            entries: ENTRIES_MAX,
            told: TOLD_MAX,
            leaf_bytes: LEAF_BYTES_MAX,
        }
    }
}

/// What came of comparing two sides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// How alike they are; never inconclusive.
    pub verdict: Verdict,
    /// What differs, in the order of sites. [`Difference::between`] is `(0, 0)`.
    pub differences: Vec<Difference>,
    /// How many more differences there are that are not told.
    pub untold: u64,
    /// Normalizers after which both sides are the same, sorted; of [`Verdict::Equivalent`] alone.
    pub normalizers: Vec<&'static str>,
    /// What could not be looked into, a sentence each.
    pub notes: Vec<String>,
}

/// Compares the outputs of two builds. `contents` gives the bytes of a file of either side.
///
/// Cost: reads and unpacks files that differ, one pair after the other, and no others.
pub fn trees(
    a: &Listing,
    b: &Listing,
    contents: &dyn Fn(&Digest) -> Result<Vec<u8>, String>,
    context: &Context,
    limits: &Limits,
) -> Comparison {
    let mut walk = walk::Walk::new(context, limits);
    entries::compare(&mut walk, a, b, contents);
    walk.finish()
}

/// Whether a difference is one of names: a file is on one side only.
pub fn is_of_name(difference: &Difference) -> bool {
    archive::is_of_name(difference)
}

/// Compares two files that go by a name.
pub fn files(name: &str, a: &[u8], b: &[u8], context: &Context, limits: &Limits) -> Comparison {
    let mut walk = walk::Walk::new(context, limits);
    let site = Site { file: name.to_owned(), members: Vec::new() };
    walk.descend(&site, name, a, b, 0);
    walk.finish()
}
