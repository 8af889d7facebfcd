//! What makes builds differ: one row for each cause, with its name, what it is and the way out. Finds none itself.
//!
//! | file | causes |
//! |---|---|
//! | `surroundings` | what is around a command: clock, names, places, processors, memory |
//! | `formats` | what a format of file brings with it |
//! | `images` | what is in images, in packages, and what comes from elsewhere |
//! | `table` | all of them as a page of the documentation |

use crate::sandbox::surroundings::Dimension;

mod formats;
mod images;
mod surroundings;
#[cfg(test)]
mod table;

pub use formats::*;
pub use images::*;
pub use surroundings::*;

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

/// Writes rows of the table: name of the static, id, title, remedy. The last argument names the list of them all.
macro_rules! causes {
    ($list:ident: $($name:ident = $id:literal, $title:literal, $remedy:literal;)*) => {
        $(
            #[doc = $title]
            pub static $name: Cause = Cause { id: $id, title: $title, remedy: $remedy };
        )*
        /// All of this file, in its order.
        pub(super) static $list: &[&Cause] = &[$(&$name),*];
    };
}
use causes;

/// Where nothing better is known.
pub static UNKNOWN: Cause = Cause {
    id: "unknown",
    title: "a difference of no known kind",
    remedy: "compare the two files by hand; `--keep DIR` leaves them there",
};

/// Most rows of the table.
const CAUSES_MAX: usize = 96;

/// All of them: surroundings, formats, images, and last [`UNKNOWN`].
pub fn all() -> &'static [&'static Cause] {
    static ROWS: std::sync::OnceLock<Vec<&'static Cause>> = std::sync::OnceLock::new();
    ROWS.get_or_init(|| {
        let mut rows = Vec::with_capacity(CAUSES_MAX);
        for list in [SURROUNDINGS, FORMATS, IMAGES] {
            rows.extend_from_slice(list);
        }
        rows.push(&UNKNOWN);
        rows
    })
}

/// The cause of that id.
pub fn by_id(id: &str) -> Option<&'static Cause> {
    all().iter().copied().find(|cause| cause.id == id)
}

/// What makes builds differ where that dimension alone was varied, if nothing more precise is known.
pub fn of_dimension(dimension: Dimension) -> &'static Cause {
    match dimension {
        Dimension::BuildPath => &BUILD_PATH,
        Dimension::HostName => &HOST_NAME,
        Dimension::User => &OWNER,
        Dimension::Home => &HOME,
        Dimension::TimeZone => &TIME_ZONE,
        Dimension::Locale => &LOCALE,
        Dimension::Umask => &MODE,
        Dimension::Environment => &ENVIRONMENT,
        Dimension::PathSuffix => &EXEC_PATH,
        Dimension::Cpus => &CPU_COUNT,
        Dimension::DirOrder => &FILE_ORDER,
        Dimension::Clock => &TIMESTAMP_EMBEDDED,
        Dimension::Aslr => &ADDRESS,
        Dimension::HashSeed => &HASH_SEED,
        Dimension::FileSystem => &FILE_SYSTEM,
        Dimension::Kernel => &KERNEL,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_cause_has_an_id_of_its_own_and_says_what_to_do() {
        let mut ids = BTreeSet::new();
        for cause in all() {
            assert!(ids.insert(cause.id), "{} twice", cause.id);
            assert!(cause.id.bytes().all(|byte| byte.is_ascii_lowercase() || b"-.".contains(&byte)), "{}", cause.id);
            assert!(!cause.title.is_empty() && cause.remedy.len() > 20, "{}", cause.id);
            assert!(!cause.remedy.ends_with('.') && !cause.title.ends_with('.'), "{}", cause.id);
            assert_eq!(by_id(cause.id), Some(*cause));
        }
        assert!(ids.len() > 50 && ids.len() <= CAUSES_MAX, "{}", ids.len());
        assert_eq!(by_id("no-such"), None);
    }

    #[test]
    fn every_dimension_has_a_cause_of_its_own() {
        let causes: BTreeSet<_> = Dimension::ALL.into_iter().map(|dimension| of_dimension(dimension).id).collect();
        assert_eq!(causes.len(), Dimension::ALL.len());
    }
}
