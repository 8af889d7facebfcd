//! Why two files differ that are no containers: by what was planted, by when they were built, and by what they look like. Opens no files.
//!
//! | file | owns |
//! |---|---|
//! | `look` | the way in: which kind two files are of, and who looks into them |
//! | `lines` `align` `strings` `order` | text and strings: what belongs together, and what came in another order |
//! | `span` | one stretch that differs: planted, then times, then looks |
//! | `planted` `times` `signatures` `hints` | markers; times; shapes of identifiers, keys, addresses, paths; names of fields |
//! | `json` `elf` `functions` `programs` `python` `png` `documents` | what has parts, fields or headers of its own |
//! | `names` | paths that are known to differ, and names that differ |
//! | `gather` | findings of one pair of files, one for each cause |

mod align;
#[cfg(test)]
mod cases;
mod documents;
mod elf;
mod functions;
mod gather;
mod hints;
mod json;
mod lines;
mod look;
mod names;
mod order;
mod planted;
mod png;
mod programs;
mod python;
mod signatures;
mod span;
mod strings;
mod times;

pub use look::{DIGEST_LEAD, Finding, look};
pub use names::{name_cause, only_cause};
