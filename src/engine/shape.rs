//! Which directories of a view are shown as a whole, read-only, and which file by file. Knows no disk.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::limits::{KEPT_FILES_MIN, KEPT_SOURCES_MAX, VIEW_FILES_MAX};
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};

/// Directories that are shown as a whole; none lies in another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Whole {
    dirs: BTreeSet<RelPath>,
}

impl Whole {
    /// The one that the path is or lies in.
    pub fn dir_of(&self, path: &RelPath) -> Option<RelPath> {
        if self.dirs.is_empty() {
            return None;
        }
        let mut next = Some(path.clone());
        while let Some(dir) = next {
            if self.dirs.contains(&dir) {
                return Some(dir);
            }
            next = dir.parent();
        }
        None
    }
}

/// Chooses them: what a dependency makes as a whole and is large; and if there are still too many files, directories of sources in
/// which the task declares to write nothing.
///
/// `units` are whole outputs of dependencies, `written` what the task may write at or beneath, `cwd` the directory it starts in.
/// Never one that the command starts in, nor one above it: what a command writes without a thought lands there.
pub fn whole(listing: &Listing, units: &[RelPath], written: &[RelPath], cwd: &RelPath) -> Whole {
    let mut whole = Whole::default();
    let writes_below = |dir: &RelPath| cwd.starts_with(dir) || written.iter().any(|path| path.starts_with(dir));
    let counts = Counts::of(listing);
    for unit in units.iter().filter(|unit| counts.below(unit) >= KEPT_FILES_MIN && !writes_below(unit)) {
        if whole.dir_of(unit).is_none() {
            whole.dirs.retain(|dir| !dir.starts_with(unit));
            whole.dirs.insert(unit.clone());
        }
    }
    let in_whole: usize = whole.dirs.iter().map(|dir| counts.below(dir)).sum();
    if counts.all - in_whole <= VIEW_FILES_MAX {
        return whole;
    }
    let may_write = |dir: &RelPath| writes_below(dir) || written.iter().any(|path| dir.starts_with(path));
    // Parents come before what is in them.
    for (dir, count) in &counts.dirs {
        let is_flat = count.direct > KEPT_SOURCES_MAX / 2;
        let is_worth_it = count.below >= KEPT_FILES_MIN && (count.below <= KEPT_SOURCES_MAX || is_flat);
        let holds_another = || whole.dirs.iter().any(|other| other.starts_with(dir));
        if is_worth_it && !may_write(dir) && whole.dir_of(dir).is_none() && !holds_another() {
            whole.dirs.insert(dir.clone());
        }
    }
    whole
}

/// Files by directory.
#[derive(Default)]
struct Counts {
    all: usize,
    dirs: BTreeMap<RelPath, Count>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    direct: usize,
    below: usize,
}

impl Counts {
    fn of(listing: &Listing) -> Self {
        let mut counts = Self::default();
        for path in listing.iter().filter(|(_, entry)| **entry != Entry::Dir).map(|(path, _)| path) {
            counts.all += 1;
            let mut next = path.parent();
            let mut direct = 1;
            while let Some(dir) = next {
                next = dir.parent();
                let count = counts.dirs.entry(dir).or_default();
                count.below += 1;
                count.direct += std::mem::take(&mut direct);
            }
        }
        counts
    }

    fn below(&self, dir: &RelPath) -> usize {
        self.dirs.get(dir).map_or(0, |count| count.below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::Digest;

    fn rel(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    #[test]
    fn large_directories_in_which_nothing_is_written_are_whole() {
        let check = |files: &[(&str, usize)], units: &[&str], written: &[&str], expect: &[&str]| {
            let file = Entry::File { digest: Digest::of(b""), size: 0, executable: false };
            let paths = files.iter().flat_map(|(dir, count)| (0..*count).map(move |n| rel(&format!("{dir}/f{n}"))));
            let listing: Listing = paths.map(|path| (path, file.clone())).collect();
            let all = |texts: &[&str]| texts.iter().map(|text| rel(text)).collect::<Vec<_>>();
            let whole = whole(&listing, &all(units), &all(written), &rel("app"));
            assert_eq!(whole.dirs.into_iter().collect::<Vec<_>>(), all(expect), "{files:?} {units:?} {written:?}");
        };
        // Few files, one by one; so are small outputs.
        check(&[("app/src", 1000), ("lib/src", 1000)], &[], &[], &[]);
        check(&[("lib/dist", 63)], &["lib/dist"], &[], &[]);
        check(&[("lib/dist/a", 64), ("app", 3)], &["lib/dist"], &[], &["lib/dist"]);
        check(&[("lib/dist/a", 64)], &["lib/dist"], &["lib/dist/b"], &[]);
        // However large, what a dependency makes as a whole is one.
        check(&[("app/modules/a", 1500), ("app/modules/b", 1500)], &["app/modules"], &[], &["app/modules"]);
        check(&[("a/b", 70), ("a/c", 70)], &["a/b", "a"], &[], &["a"]);
        // Many sources: in pieces, so that an edit makes little anew.
        let many = [("app/src/a", 900), ("app/src/b", 900), ("app/src/c", 900), ("app/few", 10)];
        check(&many, &[], &[], &["app/src/a", "app/src/b", "app/src/c"]);
        check(&many, &[], &["app/src/b"], &["app/src/a", "app/src/c"]);
        check(&many, &[], &["app"], &[]);
        check(&[("app/flat", 20_000)], &[], &[], &["app/flat"]);
        check(&[("app", 20_000)], &[], &[], &[]);
    }
}
