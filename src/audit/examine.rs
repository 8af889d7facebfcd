//! The audit of one task: plain rebuilds, one with everything varied, and where something differed, what it is that makes it differ.
//!
//! 1. Two plain rebuilds, a second apart: what differs among them and the result is unstable (clock, race, randomness).
//! 2. One rebuild with all dimensions varied that a canary found to take hold.
//! 3. What is unstable is built in pairs with clock, hash seeds, processors and addresses held fast, all and each: where a pair agrees,
//!    that is the cause, and the ground on which the rest is varied.
//! 4. What differs with all is divided: dimensions whose marks were found first, then halves. What is found alone is built once more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::audit::bisect::{self, Found};
use crate::audit::builds::{Budget, Builds, Stop};
use crate::audit::causes::{self, Cause};
use crate::audit::compare::Comparison;
use crate::audit::effects;
use crate::audit::hidden::{Hidden, around};
use crate::audit::model::{Certainty, Difference, Effect, Outcome, TaskAudit, Varied, Verdict};
use crate::audit::variation::{Dimensions, Marks, PINS};
use crate::base::path::RelPath;
use crate::engine::inspect::Case;
use crate::sandbox::surroundings::Dimension;

/// Differences told of one task.
const TOLD_MAX: usize = 200;

/// Of those, of one cause in one dimension.
const ALIKE_TOLD_MAX: usize = 25;

/// What is asked of an examination.
#[derive(Clone, Debug)]
pub struct Question {
    /// What is to be varied.
    pub vary: Dimensions,
    /// What may be spent.
    pub budget: Budget,
    /// An empty directory in which the outputs of builds that differ are left.
    pub keep: Option<PathBuf>,
}

/// Audits one task.
pub fn examine(case: &Case<'_, '_>, question: &Question, marks: Marks) -> Result<TaskAudit, Stop> {
    let mut examination = Examination {
        case,
        builds: Builds::new(case, question.budget),
        marks,
        effects: BTreeMap::new(),
        outcomes: BTreeMap::new(),
        verdict: Verdict::Identical,
        differences: Vec::new(),
        untold: 0,
        normalizers: BTreeSet::new(),
        notes: Vec::new(),
        unstable: BTreeSet::new(),
    };
    match examination.run(&question.vary) {
        Ok(()) => {}
        Err(Stop::Spent) => {
            let told = match examination.builds.is_over_count() {
                true => format!(
                    "its {} rebuilds were used up before all was known: `--rebuilds` gives more",
                    question.budget.rebuilds
                ),
                false => "the time of the budget was up before all was known: `--budget` gives more".to_owned(),
            };
            examination.note(told);
            examination.at_least(Verdict::Inconclusive);
        }
        Err(stop) => return Err(stop),
    }
    examination.withhold();
    if let Some(dir) = &question.keep {
        examination.keep(dir);
    }
    Ok(examination.finish(&question.vary))
}

struct Examination<'e, 'c, 'w> {
    case: &'e Case<'c, 'w>,
    builds: Builds<'e, 'c, 'w>,
    marks: Marks,
    effects: BTreeMap<Dimension, Effect>,
    outcomes: BTreeMap<Dimension, Outcome>,
    verdict: Verdict,
    differences: Vec<Difference>,
    untold: u64,
    normalizers: BTreeSet<&'static str>,
    notes: Vec<String>,
    /// Paths that differ among plain builds.
    unstable: BTreeSet<RelPath>,
}

/// The result is the first build.
const RESULT: usize = 0;

impl Examination<'_, '_, '_> {
    fn run(&mut self, asked: &Dimensions) -> Result<(), Stop> {
        let nothing = Dimensions::new();
        let first = self.builds.of(&self.marks, &nothing, &nothing)?;
        (self.effects, self.marks) = effects::of(self.case, &self.marks, asked);
        let effective: Dimensions = self
            .effects
            .iter()
            .filter(|(_, effect)| matches!(effect, Effect::Effective { .. }))
            .map(|(one, _)| *one)
            .collect();
        // The varied one comes between the plain ones, which are to be apart.
        let all = match effective.is_empty() || self.builds.failure(first).is_some() {
            true => None,
            false => Some(self.builds.of(&self.marks, &effective, &nothing)?),
        };
        self.builds.wait_apart()?;
        let second = self.builds.again(&self.marks, &nothing, &nothing)?;
        for plain in [first, second] {
            if let Some(how) = self.builds.failure(plain) {
                let how = how.to_owned();
                self.note(format!("a plain rebuild failed: {how}"));
                self.at_least(Verdict::Inconclusive);
                return Ok(());
            }
        }
        let pairs = [(RESULT, first), (RESULT, second), (first, second)];
        self.unstable = pairs.iter().flat_map(|(one, other)| self.builds.differing(*one, *other)).collect();
        let (pins, ground) = match self.unstable.is_empty() {
            true => (nothing, RESULT),
            false => self.explain_instability(&pairs)?,
        };
        match all {
            Some(all) => self.vary(effective, all, pins, ground),
            None => Ok(()),
        }
    }

    /// Finds what holds plain builds fast, and tells how they differ. Gives what was held fast, and a build that was made so.
    fn explain_instability(&mut self, pairs: &[(usize, usize)]) -> Result<(Dimensions, usize), Stop> {
        let plain: Vec<usize> = (0..self.builds.count()).filter(|build| self.builds.is_plain(*build)).collect();
        let agrees =
            |one: usize| plain.iter().any(|other| one < *other && self.builds.differing(one, *other).is_empty());
        // Where plain builds agree now and then, that some agree with something held fast proves nothing, but for times that are told.
        let wavers = plain.iter().any(|one| agrees(*one));
        let likely = self.likely_pins(pairs, if wavers { Certainty::Proven } else { Certainty::Suspected });
        let held = match self.hold_fast(&likely, wavers) {
            Err(Stop::Spent) => {
                self.tell_pairs(pairs, None);
                return Err(Stop::Spent);
            }
            held => held?,
        };
        let alone = held.as_ref().and_then(|(pins, _)| (pins.len() == 1).then(|| pins.first().copied()).flatten());
        self.tell_pairs(pairs, alone);
        Ok(match held {
            Some((pins, build)) => {
                self.outcomes.extend(pins.iter().map(|pin| match alone {
                    Some(_) => (*pin, Outcome::Differs),
                    None => {
                        (*pin, Outcome::Unknown { why: "held fast together with others, plain builds agree".into() })
                    }
                }));
                (pins, build)
            }
            None => (Dimensions::new(), RESULT),
        })
    }

    fn tell_pairs(&mut self, pairs: &[(usize, usize)], alone: Option<Dimension>) {
        for (one, other) in pairs {
            if !self.builds.differing(*one, *other).is_empty() {
                self.tell(*one, *other, alone, &Hidden::default());
            }
        }
        if alone.is_none() {
            self.blame_chance();
        }
        if let Some(pin) = alone {
            // Where it is the only thing that has to be held fast, it is what differs between plain builds.
            let cause = match pin {
                Dimension::Cpus => Some(&causes::RACE),
                Dimension::HashSeed => Some(&causes::HASH_SEED),
                _ => None,
            };
            for difference in &mut self.differences {
                difference.cause = cause.unwrap_or(difference.cause);
            }
        }
    }

    /// What comes out now one way and now another, with nothing to show for it, came in another order or by chance.
    fn blame_chance(&mut self) {
        let unknown = self.differences.iter_mut().filter(|difference| difference.cause.id == causes::UNKNOWN.id);
        unknown.for_each(|difference| difference.cause = &causes::RACE);
    }

    /// The pins that what differs among plain builds speaks for.
    fn likely_pins(&self, pairs: &[(usize, usize)], at_least: Certainty) -> Dimensions {
        let comparisons = pairs.iter().filter_map(|(one, other)| self.builds.compare(*one, *other, None));
        let differences = comparisons.flat_map(|comparison| comparison.differences);
        let sure = differences.filter(|difference| difference.certainty >= at_least);
        sure.filter_map(|difference| pin_of(difference.cause)).collect()
    }

    /// Builds in pairs what plain builds differ in: with the likely pins, then with all, then with each.
    fn hold_fast(&mut self, likely: &Dimensions, only_likely: bool) -> Result<Option<(Dimensions, usize)>, Stop> {
        let can = |one: &Dimension| matches!(self.effects.get(one), Some(Effect::Effective { .. }));
        let pins: Dimensions = PINS.into_iter().filter(can).collect();
        if pins.is_empty() || self.case.is_image() {
            return Ok(None);
        }
        for pin in PINS.into_iter().filter(|pin| pins.contains(pin) && likely.contains(pin)) {
            let pin = Dimensions::from([pin]);
            if let Some(build) = self.agreeing(&pin)? {
                return Ok(Some((pin, build)));
            }
        }
        if only_likely {
            return Ok(None);
        }
        let Some(whole) = self.agreeing(&pins)? else { return Ok(None) };
        if pins.len() == 1 {
            return Ok(Some((pins, whole)));
        }
        for pin in PINS.into_iter().filter(|pin| pins.contains(pin) && !likely.contains(pin)) {
            let pin = Dimensions::from([pin]);
            if let Some(build) = self.agreeing(&pin)? {
                return Ok(Some((pin, build)));
            }
        }
        Ok(Some((pins, whole)))
    }

    /// A build with these held fast, if a second one agrees with it. By chance two may agree, so what is found is asked for a third time.
    fn agreeing(&mut self, pins: &Dimensions) -> Result<Option<usize>, Stop> {
        let nothing = Dimensions::new();
        let one = self.builds.of(&self.marks, &nothing, pins)?;
        for _ in 0..2 {
            self.builds.wait_apart()?;
            let other = self.builds.again(&self.marks, &nothing, pins)?;
            let has_failed = [one, other].iter().any(|build| self.builds.failure(*build).is_some());
            if has_failed || !self.builds.differing(one, other).is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(one))
    }

    /// Finds the dimensions in which something differs that does not anyway.
    fn vary(&mut self, effective: Dimensions, all: usize, pins: Dimensions, ground: usize) -> Result<(), Stop> {
        let varied: Dimensions = effective.difference(&pins).copied().collect();
        let hidden = if pins.is_empty() { self.hidden() } else { Hidden::default() };
        self.judge(all);
        let hides_all = !hidden.is_nothing() && self.builds.all_in(RESULT, &self.unstable);
        let all_varied = all;
        let all = if pins.is_empty() { all } else { self.builds.of(&self.marks, &varied, &pins)? };
        let suspects = self.suspects(ground, all);
        let mut trial = Trial { builds: &mut self.builds, marks: &self.marks, pins: &pins, ground, hidden: &hidden };
        let mut found = Vec::new();
        let searched = bisect::search(&varied, &suspects, &mut |set| trial.ask(set), &mut found);
        if self.unstable.is_empty() && !found.is_empty() && !matches!(searched, Err(Stop::Spent)) {
            // Builds have gone on for a while: what differs by now without anything varied was never an effect of it.
            self.builds.wait_far()?;
            let control = self.builds.again(&self.marks, &Dimensions::new(), &Dimensions::new())?;
            self.unstable = self.builds.differing(RESULT, control);
            if !self.unstable.is_empty() {
                let (pins, ground) = self.explain_instability(&[(RESULT, control)])?;
                return self.vary(effective, all_varied, pins, ground);
            }
        }
        let is_spent = matches!(searched, Err(Stop::Spent));
        match searched {
            Ok(()) | Err(Stop::Spent) => {}
            Err(stop) => return Err(stop),
        }
        for one in found {
            self.take(one, &pins, ground, &hidden)?;
        }
        for dimension in varied {
            let rest = match (is_spent, hides_all) {
                (true, _) => Outcome::Unknown { why: "the budget was used up before its turn".into() },
                (false, true) => Outcome::Unknown { why: "every output differs anyway, which may hide it".into() },
                (false, false) => Outcome::Same,
            };
            self.outcomes.entry(dimension).or_insert(rest);
        }
        if is_spent { Err(Stop::Spent) } else { Ok(()) }
    }

    /// Counts what the build with everything varied comes to: the verdict is of all builds.
    fn judge(&mut self, all: usize) {
        if let Some(comparison) = self.builds.compare(RESULT, all, None) {
            self.at_least(comparison.verdict);
            self.normalizers.extend(comparison.normalizers);
        }
    }

    /// What was found of some dimensions, with what differs in them.
    fn take(&mut self, found: Found, pins: &Dimensions, ground: usize, hidden: &Hidden) -> Result<(), Stop> {
        match found {
            Found::Differs(dimension) => {
                let build = self.builds.of(&self.marks, &Dimensions::from([dimension]), pins)?;
                if !self.is_confirmed(dimension, build, pins, ground, hidden)? {
                    let why = "with it the outputs differed once and once not: it is not the cause".to_owned();
                    self.outcomes.insert(dimension, Outcome::Unknown { why });
                    self.tell(ground, build, None, hidden);
                    return Ok(());
                }
                self.outcomes.insert(dimension, Outcome::Differs);
                match hidden.is_nothing() {
                    true => self.tell(ground, build, Some(dimension), hidden),
                    false => self.tell_alone(ground, build, dimension, hidden),
                }
            }
            Found::Fails(dimension, how) => {
                self.note(format!("with {} varied, the command fails: {how}", dimension.word()));
                self.outcomes.insert(dimension, Outcome::Fails { how });
                self.at_least(Verdict::Inconclusive);
            }
            Found::Together(dimensions) => {
                let words: Vec<&str> = dimensions.iter().map(|dimension| dimension.word()).collect();
                let build = self.builds.of(&self.marks, &dimensions, pins)?;
                self.note(format!(
                    "the outputs differ with {} together, and with none of them alone",
                    words.join(", ")
                ));
                let why = "only together with others".to_owned();
                self.outcomes.extend(dimensions.iter().map(|one| (*one, Outcome::Unknown { why: why.clone() })));
                self.at_least(Verdict::Inconclusive);
                self.tell(ground, build, None, hidden);
                self.blame_chance();
            }
        }
        Ok(())
    }

    /// Whether a dimension makes the outputs differ a second time: what differs by chance seldom does so twice in the same way.
    fn is_confirmed(
        &mut self,
        dimension: Dimension,
        build: usize,
        pins: &Dimensions,
        ground: usize,
        hidden: &Hidden,
    ) -> Result<bool, Stop> {
        let again = self.builds.again(&self.marks, &Dimensions::from([dimension]), pins)?;
        if !hidden.is_nothing() {
            let (first, second) = (self.builds.news(ground, build, hidden), self.builds.news(ground, again, hidden));
            return Ok(first.intersection(&second).next().is_some());
        }
        let moves = matches!(
            dimension,
            Dimension::Clock | Dimension::FileSystem | Dimension::Cpus | Dimension::DirOrder | Dimension::Aslr
        );
        let differs_again = !self.builds.differing(ground, again).is_empty();
        Ok(differs_again && (moves || self.builds.differing(build, again).is_empty()))
    }

    /// Dimensions whose marks are in what differs.
    fn suspects(&self, ground: usize, all: usize) -> Dimensions {
        let comparison = self.builds.compare(ground, all, None);
        let differences = comparison.into_iter().flat_map(|comparison| comparison.differences);
        differences.filter_map(|difference| difference.dimension).collect()
    }

    /// What differs among plain builds, so that it tells nothing where it differs again.
    fn hidden(&self) -> Hidden {
        let mut hidden = Hidden::default();
        for plain in (1..self.builds.count()).filter(|build| self.builds.is_plain(*build)) {
            hidden.known.extend(self.builds.news(RESULT, plain, &Hidden::default()));
            // Names that come and go hide what lies beside them.
            hidden.places.extend(self.builds.lonely(RESULT, plain).iter().map(around));
        }
        hidden
    }

    /// Compares two builds that differ in one dimension, where something differs anyway: what is there already is told only by its marks.
    fn tell_alone(&mut self, one: usize, other: usize, dimension: Dimension, hidden: &Hidden) {
        let marked = self.builds.compare(one, other, None).map(|comparison| comparison.differences).unwrap_or_default();
        let known = |difference: &Difference| hidden.known.iter().any(|(site, _)| *site == difference.site);
        let marked = marked.into_iter().filter(|difference| known(difference) && !hidden.has(difference));
        let marked: Vec<Difference> =
            marked.map(|difference| Difference { dimension: Some(dimension), ..difference }).collect();
        marked.into_iter().for_each(|difference| self.add(difference));
        let Some(comparison) = self.builds.compare(one, other, Some(dimension)) else { return };
        self.at_least(comparison.verdict);
        self.normalizers.extend(comparison.normalizers);
        let apart =
            comparison.differences.into_iter().filter(|difference| !known(difference) && !hidden.has(difference));
        apart.for_each(|difference| self.add(difference));
    }

    /// Compares two builds, and takes what is to be told of it.
    fn tell(&mut self, one: usize, other: usize, alone: Option<Dimension>, hidden: &Hidden) {
        let Some(comparison) = self.builds.compare(one, other, alone) else { return };
        let Comparison { verdict, differences, untold, normalizers, notes } = comparison;
        self.at_least(verdict);
        self.untold += untold;
        self.normalizers.extend(normalizers);
        differences
            .into_iter()
            .filter(|difference| !hidden.has(difference))
            .for_each(|difference| self.add(difference));
        notes.into_iter().for_each(|note| self.note(note));
    }

    /// Takes a difference unless it is known, or a better one of the same place and cause is.
    fn add(&mut self, difference: Difference) {
        // What only follows from something is told once, whatever it follows from.
        let follows = |one: &Difference| one.consequence_of.is_some();
        let same = |known: &&mut Difference| {
            known.site == difference.site
                && (known.cause == difference.cause || (follows(known) && follows(&difference)))
        };
        if let Some(known) = self.differences.iter_mut().find(same) {
            if (difference.certainty, difference.dimension.is_some()) > (known.certainty, known.dimension.is_some()) {
                *known = difference;
            }
            return;
        }
        let is_alike = |known: &&Difference| (known.cause, known.dimension) == (difference.cause, difference.dimension);
        let alike = self.differences.iter().filter(is_alike).count();
        match alike < ALIKE_TOLD_MAX && self.differences.len() < TOLD_MAX {
            true => self.differences.push(difference),
            false => self.untold += 1,
        }
    }

    /// Takes the bytes out of what is told of a task that is given secrets: what is shown of an output may be one, in part or in another form.
    fn withhold(&mut self) {
        let secrets = self.case.session.secrets_reaching(self.case.task);
        if secrets.is_empty() {
            return;
        }
        for difference in &mut self.differences {
            difference.evidence = None;
            difference.what = "bytes differ that are not shown, for the task is given secrets".to_owned();
            for part in std::iter::once(&mut difference.site.file).chain(&mut difference.site.members) {
                *part = secrets.redacted(part);
            }
        }
    }

    /// Leaves the outputs of every build that a difference is told of, as `PACKAGE/TASK/build-N`.
    fn keep(&mut self, dir: &Path) {
        let place = self.case.session.workspace.tasks[self.case.task].label.clone();
        let dir = dir.join(place.package.as_str()).join(&*place.name);
        let told: BTreeSet<usize> = self.differences.iter().flat_map(|one| [one.between.0, one.between.1]).collect();
        for build in told {
            if let Err(cause) = self.builds.keep(build, &dir.join(format!("build-{build}"))) {
                self.note(format!("the outputs of build {build} could not be kept: {cause}"));
            }
        }
    }

    fn at_least(&mut self, verdict: Verdict) {
        self.verdict = self.verdict.max(verdict);
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn finish(self, asked: &Dimensions) -> TaskAudit {
        let Self {
            case,
            builds,
            effects,
            mut outcomes,
            verdict,
            mut differences,
            untold,
            normalizers,
            notes,
            unstable,
            ..
        } = self;
        differences.sort_by(|one, other| (&one.site, one.cause.id).cmp(&(&other.site, other.cause.id)));
        let never = || Effect::None { why: "the audit ended before a canary looked".into() };
        let varied = asked.iter().map(|dimension| {
            let effect = effects.get(dimension).cloned().unwrap_or_else(never);
            let outcome = match &effect {
                Effect::None { .. } => Outcome::NotTested,
                Effect::Effective { .. } => outcomes
                    .remove(dimension)
                    .unwrap_or_else(|| Outcome::Unknown { why: "the audit ended before its turn".into() }),
            };
            Varied { dimension: *dimension, effect, outcome }
        });
        TaskAudit {
            label: case.label(),
            action: case.key,
            outputs: Some(*case.outputs),
            isolation: case.isolation().word().to_owned(),
            verdict,
            is_unstable: !unstable.is_empty(),
            varied: varied.collect(),
            builds: builds.told(),
            differences,
            untold,
            normalizers: if verdict == Verdict::Equivalent { normalizers.into_iter().collect() } else { Vec::new() },
            notes,
        }
    }
}

/// What is held fast to see whether a cause is one.
fn pin_of(cause: &Cause) -> Option<Dimension> {
    let is = |other: &Cause| cause.id == other.id;
    if is(&causes::TIMESTAMP_EMBEDDED) {
        Some(Dimension::Clock)
    } else if is(&causes::HASH_SEED) || is(&causes::LINE_ORDER) || is(&causes::JSON_ORDER) {
        Some(Dimension::HashSeed)
    } else if is(&causes::RACE) {
        Some(Dimension::Cpus)
    } else if is(&causes::ADDRESS) {
        Some(Dimension::Aslr)
    } else {
        None
    }
}

/// Builds with dimensions varied, for the search.
struct Trial<'t, 'e, 'c, 'w> {
    builds: &'t mut Builds<'e, 'c, 'w>,
    marks: &'t Marks,
    pins: &'t Dimensions,
    ground: usize,
    hidden: &'t Hidden,
}

impl Trial<'_, '_, '_, '_> {
    fn ask(&mut self, set: &Dimensions) -> Result<bisect::Answer, Stop> {
        let build = self.builds.of(self.marks, set, self.pins)?;
        if let Some(how) = self.builds.failure(build) {
            return Ok(bisect::Answer::Fails(how.to_owned()));
        }
        let differs = match self.hidden.is_nothing() {
            true => !self.builds.differing(self.ground, build).is_empty(),
            false => !self.builds.news(self.ground, build, self.hidden).is_empty(),
        };
        Ok(if differs { bisect::Answer::Differs } else { bisect::Answer::Same })
    }
}
