//! `--shard I/N`: which part of the selected work this job does. Runs nothing.
//!
//! All jobs must come to the same assignment without talking to each other, so it follows from what they share: the selected labels, and
//! the durations of the archive that each imported (see `store::imported_durations`). With durations, the longest task goes to
//! the shard with the least to do, and so on; tasks that the archive does not know count as the mean of those it knows. Without,
//! each task goes to the first shard in an order of its own, by digest, that is not full: a task more moves few others.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::ids::TaskId;
use crate::engine::groups::Choices;
use crate::engine::session::Session;
use crate::store::imported_durations;

/// Most shards.
const SHARDS_MAX: usize = 10_000;

/// One share of the work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    /// Which, from 1.
    pub index: usize,
    /// Of how many.
    pub total: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.parse::<usize>().ok().filter(|number| (1..=SHARDS_MAX).contains(number));
        let parts = text.split_once('/').and_then(|(index, total)| Some((number(index)?, number(total)?)));
        match parts {
            Some((index, total)) if index <= total => Ok(Self { index, total }),
            _ => Err("write `I/N`, with I from 1 to N: `--shard 2/4` is the second of four".to_owned()),
        }
    }
}

/// Which groupings hold: shards must come to the same parts.
pub fn choices(shard: Option<Shard>) -> Choices {
    if shard.is_some() { Choices::Imported } else { Choices::Kept }
}

impl Shard {
    /// Keeps its own of the selected tasks. Says how many, and a mark that all shards of one run must show alike.
    pub fn take_from(self, selected: &mut Vec<TaskId>, session: &Session<'_>) -> Diagnostic {
        let labels: Vec<String> = selected.iter().map(|task| session.label(*task)).collect();
        let Assignment { shards, mark } = assign(&labels, &imported_durations(session.store.dir()), self.total);
        let all = selected.len();
        let mut shards = shards.into_iter();
        selected.retain(|_| shards.next() == Some(self.index));
        let Shard { index, total } = self;
        Diagnostic::note(format!("shard {index}/{total} has {} of {all} tasks, assignment {mark}", selected.len()))
    }
}

/// Which task goes to which shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// By position of the label: the shard, from 1.
    pub shards: Vec<usize>,
    /// The same for all who came to the same assignment.
    pub mark: String,
}

/// Distributes tasks, given by label in any order, over `total` shards: each to exactly one.
pub fn assign(labels: &[String], durations: &BTreeMap<String, u64>, total: usize) -> Assignment {
    let known: Vec<u64> = labels.iter().filter_map(|label| durations.get(label).copied()).collect();
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by(|one, other| labels[*one].cmp(&labels[*other]));
    let mut shards = vec![0; labels.len()];
    // An archive may say anything of durations.
    match known.iter().fold(0u64, |sum, one| sum.saturating_add(*one)).checked_div(known.len() as u64) {
        Some(mean) => {
            let duration = |at: usize| durations.get(&labels[at]).copied().unwrap_or(mean);
            order.sort_by_key(|at| std::cmp::Reverse(duration(*at)));
            let mut loads = vec![(0u64, 0usize); total];
            for at in order {
                let least = (0..total).min_by_key(|shard| loads[*shard]).unwrap_or(0);
                // Tasks that take no time at all are spread as well.
                loads[least] = (loads[least].0.saturating_add(duration(at)), loads[least].1 + 1);
                shards[at] = least + 1;
            }
        }
        None => {
            let most = labels.len().div_ceil(total);
            let mut counts = vec![0usize; total];
            order.sort_by_key(|at| Digest::of(labels[*at].as_bytes()));
            for at in order {
                let preference = |shard: &usize| Digest::of(format!("{shard}\0{}", labels[at]).as_bytes());
                let free = (0..total).filter(|shard| counts[*shard] < most).min_by_key(preference).unwrap_or(0);
                counts[free] += 1;
                shards[at] = free + 1;
            }
        }
    }
    let mark = mark(labels, &shards, total);
    Assignment { shards, mark }
}

fn mark(labels: &[String], shards: &[usize], total: usize) -> String {
    let by_label: BTreeMap<&String, &usize> = labels.iter().zip(shards).collect();
    let mut encoder = Encoder::new();
    encoder.u64(total as u64);
    for (label, shard) in by_label {
        encoder.bytes(label.as_bytes()).u64(*shard as u64);
    }
    Digest::of(encoder.as_slice()).to_hex()[..8].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_shard_is_one_of_several() {
        let check = |text: &str, expect: Option<(usize, usize)>| {
            let parsed = text.parse::<Shard>().ok().map(|shard| (shard.index, shard.total));
            assert_eq!(parsed, expect, "{text}");
        };
        check("1/1", Some((1, 1)));
        check("2/4", Some((2, 4)));
        for bad in ["", "1", "0/2", "3/2", "a/b", "1/0", "-1/2", "1/2/3", "1/99999999999999999999", "1 / 2"] {
            check(bad, None);
        }
    }

    fn labels(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("//:t[part={at}/{count}]")).collect()
    }

    #[test]
    fn the_longest_goes_where_the_least_is_to_do() {
        let labels = labels(5);
        let durations = labels.iter().cloned().zip([10, 9, 6, 5, 4]).collect();
        assert_eq!(assign(&labels, &durations, 2).shards, [1, 2, 2, 1, 1]);
        let without_last = labels.iter().cloned().zip([10, 9, 6, 5]).collect();
        assert_eq!(assign(&labels, &without_last, 2).shards.len(), 5);
        let endless = labels.iter().cloned().map(|label| (label, u64::MAX)).collect();
        assert_eq!(assign(&labels, &endless, 2).shards.len(), 5);
    }

    proptest! {
        #[test]
        fn every_task_is_in_exactly_one_shard_whatever_is_known(
            count in 0usize..60,
            total in 1usize..9,
            known in proptest::collection::btree_map(0usize..60, 0u64..1000, 0..60),
            turn in 0usize..60,
        ) {
            let mut labels = labels(count);
            let durations: BTreeMap<String, u64> =
                known.iter().filter_map(|(at, ms)| Some((labels.get(*at)?.clone(), *ms))).collect();
            let assigned = assign(&labels, &durations, total);
            prop_assert!(assigned.shards.iter().all(|shard| (1..=total).contains(shard)));
            let load = |shard: usize| assigned.shards.iter().filter(|own| **own == shard).count();
            prop_assert_eq!((1..=total).map(load).sum::<usize>(), count);
            if durations.is_empty() {
                prop_assert!((1..=total).all(|shard| load(shard) <= count.div_ceil(total)));
            }
            // The order in which tasks are named says nothing.
            let by_label: BTreeMap<String, usize> = labels.iter().cloned().zip(assigned.shards).collect();
            if count > 0 {
                labels.rotate_left(turn % count);
            }
            let again = assign(&labels, &durations, total);
            prop_assert_eq!(&again.mark, &assigned.mark);
            prop_assert_eq!(by_label, labels.into_iter().zip(again.shards).collect::<BTreeMap<_, _>>());
        }
    }
}
