//! What makes builds differ: one row for each cause, with its name, what it is and the way out. Finds none itself.

/// A cause of differences.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cause {
    /// Its name, the same for ever: `timestamp.embedded`.
    pub id: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// The way out, in one sentence.
    pub remedy: &'static str,
}

/// Where nothing better is known.
pub static UNKNOWN: Cause = Cause {
    id: "unknown",
    title: "a difference of no known kind",
    remedy: "compare the two files by hand; `--keep DIR` leaves them there",
};
