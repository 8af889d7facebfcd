//! How alike two sides are: what each difference costs, and the worst of it. Finds no differences.

use std::collections::BTreeSet;

use crate::audit::model::Verdict;

/// What a difference costs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Cost {
    /// Only compressed bytes differ, and what is in them is the same.
    Compression,
    /// The sides are the same without it: the normalizer that takes it away.
    Normal(&'static str),
    /// Anything else.
    Real,
}

/// All costs so far.
#[derive(Default, Debug)]
pub(super) struct Costs {
    compression: bool,
    normalizers: BTreeSet<&'static str>,
    real: bool,
}

impl Costs {
    /// Adds one.
    pub(super) fn add(&mut self, cost: Cost) {
        match cost {
            Cost::Compression => self.compression = true,
            Cost::Normal(name) => {
                self.normalizers.insert(name);
            }
            Cost::Real => self.real = true,
        }
    }

    /// The verdict, with the normalizers it needs.
    pub(super) fn settle(self, has_found: bool) -> (Verdict, Vec<&'static str>) {
        // Where something was told that costs nothing, what it follows from costs something; else it is unknown.
        let is_free = !self.compression && self.normalizers.is_empty();
        if self.real || (has_found && is_free) {
            (Verdict::Different, Vec::new())
        } else if !self.normalizers.is_empty() {
            (Verdict::Equivalent, self.normalizers.into_iter().collect())
        } else if self.compression {
            (Verdict::IdenticalUncompressed, Vec::new())
        } else {
            (Verdict::Identical, Vec::new())
        }
    }
}
