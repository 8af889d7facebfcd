//! A share of hits is built once more and compared: whether what the cache serves is what its sources make.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::engine::inspect::{Case, Inspection, Inspector};
use crate::engine::rebuild::{Arrangement, Rebuilt};
use crate::store::Execution;

/// How large a share of hits is checked, in millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Share(u32);

/// All of them.
const WHOLE: u32 = 1_000_000;

impl Share {
    /// Reads `1%`, `0.25%`, `100%`; at most four digits after the point.
    pub fn parse(text: &str) -> Option<Self> {
        let percent: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
        let is_share = percent.is_finite() && (0.0..=100.0).contains(&percent);
        // At most WHOLE, so it fits.
        is_share.then(|| Self((percent * f64::from(WHOLE / 100)).round() as u32))
    }

    /// Whether a number drawn by lot, any of 64 bits, is in it.
    fn takes(self, lot: u64) -> bool {
        lot % u64::from(WHOLE) < u64::from(self.0)
    }
}

/// Checks a share of hits.
#[derive(Debug)]
pub struct HitChecker {
    share: Share,
    /// Another one each time, so that in time every hit has its turn.
    salt: Digest,
    checked: AtomicU64,
}

impl HitChecker {
    /// One that draws its lots with a salt.
    pub fn new(share: Share, salt: Digest) -> Self {
        Self { share, salt, checked: AtomicU64::new(0) }
    }

    /// How many hits were built once more.
    pub fn checked(&self) -> u64 {
        self.checked.load(Ordering::SeqCst)
    }
}

impl Inspector for HitChecker {
    fn wants_hit(&self, _: &str, key: &Digest) -> bool {
        let lot = Digest::of(&[self.salt.as_bytes().as_slice(), key.as_bytes().as_slice()].concat());
        let first: [u8; 8] = std::array::from_fn(|at| lot.as_bytes()[at]);
        self.share.takes(u64::from_le_bytes(first))
    }

    fn wants_new(&self, _: &str, _: &Digest) -> bool {
        false
    }

    fn inspect(&self, case: &Case<'_, '_>) -> Inspection {
        if case.not_buildable().is_some() {
            return Inspection::Done(Vec::new());
        }
        let label = case.label();
        self.checked.fetch_add(1, Ordering::SeqCst);
        let built = match case.rebuild(&Arrangement::default()) {
            Rebuilt::Built(built) => built,
            Rebuilt::Cancelled => return Inspection::Cancelled,
            Rebuilt::Broken(problem) => return Inspection::Refused(problem),
            Rebuilt::Failed { how, .. } => {
                let told = format!("the hit of `{label}` does not hold: built once more, its command fails: {how}");
                return Inspection::Refused(
                    Diagnostic::error(told).help(format!("`drystone run --force {label}` shows how")),
                );
            }
        };
        let (session, outputs) = (case.session, built.outputs);
        let execution = Execution { action: case.key, outputs, label: label.clone(), workspace: session.worktree() };
        if let Err(error) = session.store.note_execution(execution) {
            tracing::debug!(%error, "a check of a hit is not in the ledger");
        }
        if outputs == *case.outputs {
            return Inspection::Done(Vec::new());
        }
        let differing = case.listing.iter().find(|(path, entry)| built.listing.get(*path) != Some(entry));
        let added = || built.listing.keys().find(|path| !case.listing.contains_key(*path));
        let place = differing.map(|(path, _)| path).or_else(added).map(|path| format!(", first in `{path}`"));
        let told = format!(
            "the hit of `{label}` is not what its sources make now: the outputs differ{}",
            place.unwrap_or_default()
        );
        Inspection::Refused(Diagnostic::error(told).help(format!("`drystone audit {label}` finds out why")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        let check =
            |text: &str, expect: Option<u32>| assert_eq!(Share::parse(text).map(|share| share.0), expect, "{text}");
        check("1%", Some(10_000));
        check("0.25%", Some(2_500));
        check("100%", Some(WHOLE));
        check("0%", Some(0));
        for wrong in ["1", "101%", "-1%", "%", "NaN%", "one%", "inf%"] {
            check(wrong, None);
        }
    }

    #[test]
    fn lots_fall_to_each_share_as_often_as_it_is_large() {
        let drawn = |text: &str| {
            let checker = HitChecker::new(Share::parse(text).expect("a share"), Digest::of(b"salt"));
            (0..4_000_u32).filter(|number| checker.wants_hit("", &Digest::of(&number.to_le_bytes()))).count()
        };
        assert_eq!((drawn("0%"), drawn("100%")), (0, 4_000));
        assert!((100..320).contains(&drawn("5%")), "{}", drawn("5%"));
    }
}
