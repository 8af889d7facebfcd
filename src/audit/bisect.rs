//! The search for the dimensions that make a build differ: sets are divided until single ones are left. Builds nothing itself.

use crate::audit::builds::Stop;
use crate::audit::variation::Dimensions;
use crate::sandbox::surroundings::Dimension;

/// How a build with some dimensions varied came out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// As without.
    Same,
    /// Otherwise.
    Differs,
    /// Not at all: how the command failed.
    Fails(String),
}

/// What the search found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// With this one alone the outputs differ.
    Differs(Dimension),
    /// With this one alone the command fails.
    Fails(Dimension, String),
    /// With all of these something is otherwise, with neither part of them.
    Together(Dimensions),
}

/// Finds every dimension of a set that matters by itself. What is found until it ends is in `found`.
///
/// `ask` builds with a set varied. Suspects are parted from the rest first. Cost: one build where nothing differs; with one suspect that is
/// the only cause, three; else about 2·k·log₂(n/k) builds for k causes among n dimensions.
pub fn search(
    all: &Dimensions,
    suspects: &Dimensions,
    ask: &mut dyn FnMut(&Dimensions) -> Result<Answer, Stop>,
    found: &mut Vec<Found>,
) -> Result<(), Stop> {
    if all.is_empty() {
        return Ok(());
    }
    match ask(all)? {
        Answer::Same => Ok(()),
        answer => divide(all, suspects, answer, ask, found),
    }
}

/// Divides a set with which a build is not as without it.
fn divide(
    set: &Dimensions,
    suspects: &Dimensions,
    answer: Answer,
    ask: &mut dyn FnMut(&Dimensions) -> Result<Answer, Stop>,
    found: &mut Vec<Found>,
) -> Result<(), Stop> {
    if let (1, Some(single)) = (set.len(), set.first()) {
        found.push(match answer {
            Answer::Fails(how) => Found::Fails(*single, how),
            Answer::Differs | Answer::Same => Found::Differs(*single),
        });
        return Ok(());
    }
    let mut matters = false;
    for part in parts(set, suspects) {
        match ask(&part)? {
            Answer::Same => {}
            answer => {
                matters = true;
                divide(&part, suspects, answer, ask, found)?;
            }
        }
    }
    if !matters {
        found.push(Found::Together(set.clone()));
    }
    Ok(())
}

/// Two parts of a set of two and more, neither empty.
fn parts(set: &Dimensions, suspects: &Dimensions) -> [Dimensions; 2] {
    let (likely, rest): (Dimensions, Dimensions) = set.iter().partition(|one| suspects.contains(one));
    if !likely.is_empty() && !rest.is_empty() {
        return [likely, rest];
    }
    let half = set.len() / 2;
    [set.iter().take(half).copied().collect(), set.iter().skip(half).copied().collect()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches among all dimensions where `guilty` matter, each by itself; gives what is found and how many builds it took.
    fn check(guilty: &[Dimension], suspects: &[Dimension]) -> (Vec<Found>, usize) {
        let all: Dimensions = Dimension::ALL.into_iter().collect();
        let (mut found, mut builds) = (Vec::new(), 0);
        let mut ask = |set: &Dimensions| {
            builds += 1;
            let fails = set.contains(&Dimension::Kernel) && guilty.contains(&Dimension::Kernel);
            Ok(match guilty.iter().any(|one| set.contains(one)) {
                true if fails => Answer::Fails("exit code 1".into()),
                true => Answer::Differs,
                false => Answer::Same,
            })
        };
        search(&all, &suspects.iter().copied().collect(), &mut ask, &mut found).expect("nothing stops it");
        (found, builds)
    }

    #[test]
    fn every_guilty_dimension_is_found_and_no_other() {
        assert_eq!(check(&[], &[]), (Vec::new(), 1));
        for one in Dimension::ALL {
            for other in Dimension::ALL {
                let (found, _) = check(&[one, other], &[]);
                let told: Dimensions = found
                    .iter()
                    .map(|found| match found {
                        Found::Differs(one) | Found::Fails(one, _) => *one,
                        Found::Together(set) => panic!("{set:?}"),
                    })
                    .collect();
                assert_eq!(told, Dimensions::from([one, other]));
                let failing = found.iter().filter(|found| matches!(found, Found::Fails(..))).count();
                assert_eq!(failing, usize::from(told.contains(&Dimension::Kernel)));
            }
        }
    }

    #[test]
    fn a_suspect_that_is_the_only_cause_takes_three_builds() {
        assert_eq!(check(&[Dimension::Home], &[Dimension::Home]), (vec![Found::Differs(Dimension::Home)], 3));
        assert!(check(&[Dimension::Home], &[]).1 <= 9, "otherwise it takes two for each halving");
    }

    #[test]
    fn what_takes_two_is_told_as_that() {
        let pair = Dimensions::from([Dimension::Home, Dimension::Kernel]);
        let mut found = Vec::new();
        let mut ask = |set: &Dimensions| Ok(if set.is_superset(&pair) { Answer::Differs } else { Answer::Same });
        search(&pair, &Dimensions::new(), &mut ask, &mut found).expect("nothing stops it");
        assert_eq!(found, [Found::Together(pair.clone())]);
    }

    #[test]
    fn what_was_found_before_the_budget_ended_is_kept() {
        let all: Dimensions = Dimension::ALL.into_iter().collect();
        let suspects = Dimensions::from([Dimension::BuildPath]);
        let (mut found, mut left) = (Vec::new(), 2);
        let mut ask = |_: &Dimensions| match left {
            0 => Err(Stop::Spent),
            _ => {
                left -= 1;
                Ok(Answer::Differs)
            }
        };
        assert!(matches!(search(&all, &suspects, &mut ask, &mut found), Err(Stop::Spent)));
        assert_eq!(found, [Found::Differs(Dimension::BuildPath)]);
    }
}
