//! What differs among plain builds already: where it differs again, nothing follows from that. Compares nothing.

use std::collections::BTreeSet;

use crate::audit::model::{Certainty, Difference, Site};

/// A place with the cause of what differs there.
pub type Trait = (Site, &'static str);

/// Causes that are times of files.
const TIMES: [&str; 4] = ["timestamp.file-mtime", "zip.time", "ar.header", "cpio.header"];

/// What is hidden.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hidden {
    /// What differed, for which cause.
    pub known: BTreeSet<Trait>,
    /// Places within which other things differ each time.
    pub places: BTreeSet<Site>,
}

impl Hidden {
    /// Whether a difference is. Where something differed, only what is proven counts: what else a place looks like changes with its bytes.
    pub fn has(&self, difference: &Difference) -> bool {
        let Difference { site, cause, certainty, .. } = difference;
        let is_suspected = *certainty == Certainty::Suspected && self.known.iter().any(|(known, _)| known == site);
        // Which of the files in an archive a second ends between differs each time.
        let is_of_times = TIMES.contains(&cause.id)
            && self.known.iter().any(|(known, id)| *id == cause.id && known.file == site.file);
        is_suspected
            || is_of_times
            || self.known.contains(&(site.clone(), cause.id))
            || self.places.iter().any(|place| is_within(site, place))
    }

    /// Whether nothing is.
    pub fn is_nothing(&self) -> bool {
        self.known.is_empty()
    }
}

/// What lies around a site: the container or the directory that it is in.
pub fn around(site: &Site) -> Site {
    let mut place = site.clone();
    let name = place.members.pop();
    match name {
        Some(name) => place.members.extend(name.rsplit_once('/').map(|(dir, _)| dir.to_owned())),
        None => place.file = place.file.rsplit_once('/').map(|(dir, _)| dir.to_owned()).unwrap_or_default(),
    }
    place
}

fn is_within(site: &Site, place: &Site) -> bool {
    let is_below = |path: &str, dir: &str| {
        dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let Some((last, above)) = place.members.split_last() else {
        return is_below(&site.file, &place.file);
    };
    let is_same = site.file == place.file && site.members.len() >= place.members.len();
    is_same && site.members[..above.len()] == *above && is_below(&site.members[above.len()], last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::causes::{OWNER, RANDOMNESS};

    fn site(file: &str, members: &[&str]) -> Site {
        Site { file: file.into(), members: members.iter().map(|&member| member.to_owned()).collect() }
    }

    #[test]
    fn what_differed_hides_itself_and_what_comes_and_goes_its_neighbours() {
        let known = site("a.tar", &["bin/tool"]);
        let places = BTreeSet::from([around(&site("b.tar", &["tmp/x1"])), around(&site("out/log-1", &[]))]);
        let hidden = Hidden { known: BTreeSet::from([(known.clone(), RANDOMNESS.id)]), places };
        let check = |site: Site, cause, certainty, expect: bool| {
            let difference = Difference {
                site: site.clone(),
                what: String::new(),
                cause,
                certainty,
                dimension: None,
                evidence: None,
                consequence_of: None,
                between: (0, 0),
            };
            assert_eq!(hidden.has(&difference), expect, "{site:?}");
        };
        let sure = Certainty::Proven;
        check(known.clone(), &RANDOMNESS, sure, true);
        check(known.clone(), &OWNER, Certainty::Suspected, true);
        check(known, &OWNER, sure, false);
        check(site("a.tar", &["bin/tool", "(gzip)"]), &RANDOMNESS, sure, false);
        check(site("b.tar", &["tmp/x2"]), &OWNER, sure, true);
        check(site("b.tar", &["tmpfile"]), &OWNER, sure, false);
        check(site("out/log-2", &[]), &OWNER, sure, true);
        check(site("outer", &[]), &OWNER, sure, false);
    }
}
