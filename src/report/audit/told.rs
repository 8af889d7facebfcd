//! What all reports of an audit have in common: texts made safe, bytes made readable, and counts. Writes no report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::audit::causes::Cause;
use crate::audit::model::{Audit, Build, Certainty, Difference, Effect, Outcome, Site, TaskAudit, Varied, Verdict};
use crate::base::digest::Digest;
use crate::base::time::{human_duration, rfc3339};
use crate::sandbox::surroundings::Dimension;

/// All verdicts, best first, as they are counted.
pub(super) const VERDICTS: [Verdict; 5] = [
    Verdict::Identical,
    Verdict::IdenticalUncompressed,
    Verdict::Equivalent,
    Verdict::Different,
    Verdict::Inconclusive,
];

/// Whether a character changes how others are shown, or shows nothing itself.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A foreign text on one line: what is hidden, or turns the direction of writing, is shown as an escape.
pub(super) fn shown(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_hidden(letter) { told.extend(letter.escape_default()) } else { told.push(letter) }
    }
    told
}

/// A site on one line: `file › member › member`.
pub(super) fn site(site: &Site) -> String {
    let parts: Vec<_> = std::iter::once(&site.file).chain(&site.members).map(|part| shown(part)).collect();
    parts.join(" › ")
}

/// Bytes as text on one line, if they are text that a person can read; ends of lines and tabs are shown as escapes. A letter that is cut
/// off at the end is left out.
pub(super) fn text_of(bytes: &[u8]) -> Option<String> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let is_readable = |letter| !is_hidden(letter) || matches!(letter, '\n' | '\r' | '\t');
    text.chars().all(is_readable).then(|| shown(text))
}

/// Bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(" ")
}

/// A duration for people.
pub(super) fn duration(milliseconds: u64) -> String {
    human_duration(Duration::from_millis(milliseconds))
}

/// A date for people and machines; what lies before 1970 is the beginning of that year.
pub(super) fn date(milliseconds: i64) -> String {
    rfc3339(u64::try_from(milliseconds / 1000).unwrap_or(0))
}

/// `1 task`, `2 tasks`.
pub(super) fn counted(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// How many tasks have each verdict.
pub(super) fn counts(audit: &Audit) -> BTreeMap<Verdict, usize> {
    let mut counts = BTreeMap::new();
    for task in &audit.tasks {
        *counts.entry(task.verdict).or_default() += 1;
    }
    counts
}

/// What came of a dimension. Where it took no hold, that nothing differed says nothing.
pub(super) fn tested(varied: &Varied) -> &Outcome {
    match (&varied.effect, &varied.outcome) {
        (Effect::None { why: _ }, Outcome::Same | Outcome::Unknown { why: _ }) => &Outcome::NotTested,
        (_, outcome) => outcome,
    }
}

/// In how many tasks each dimension was not tested, for it took no hold or nothing is told of it; those in none are not there.
pub(super) fn not_tested(audit: &Audit) -> BTreeMap<Dimension, usize> {
    let mut counts = BTreeMap::new();
    for task in &audit.tasks {
        let untested = task.varied.iter().filter(|one| *tested(one) == Outcome::NotTested).map(|one| one.dimension);
        let is_told = |dimension: &Dimension| task.varied.iter().any(|one| one.dimension == *dimension);
        let untold = audit.asked.iter().copied().filter(|dimension| !is_told(dimension));
        for dimension in untested.chain(untold).collect::<BTreeSet<_>>() {
            *counts.entry(dimension).or_default() += 1;
        }
    }
    counts
}

/// The audit in one line: `12 tasks audited: 9 identical, …; not tested: kernel (2 tasks)`.
pub(super) fn summary(audit: &Audit) -> String {
    let counts = counts(audit);
    let told = |verdict: &Verdict| {
        let count = counts.get(verdict).copied().unwrap_or(0);
        // The one that is rare is told where it is there.
        (count > 0 || *verdict != Verdict::IdenticalUncompressed).then(|| format!("{count} {}", verdict.word()))
    };
    let verdicts: Vec<_> = VERDICTS.iter().filter_map(told).collect();
    let mut line = format!("{} audited: {}", counted(audit.tasks.len(), "task"), verdicts.join(", "));
    // Neighbours in as many tasks stand together.
    let mut groups: Vec<(Vec<&str>, usize)> = Vec::new();
    for (dimension, count) in not_tested(audit) {
        match groups.last_mut().filter(|(_, known)| *known == count) {
            Some((words, _)) => words.push(dimension.word()),
            None => groups.push((vec![dimension.word()], count)),
        }
    }
    let told = |(words, count): &(Vec<&str>, usize)| format!("{} ({})", words.join(", "), counted(*count, "task"));
    let untested: Vec<_> = groups.iter().map(told).collect();
    if !untested.is_empty() {
        line.push_str(&format!("; not tested: {}", untested.join(", ")));
    }
    if !audit.left_out.is_empty() {
        line.push_str(&format!("; left out: {}", counted(audit.left_out.len(), "task")));
    }
    line
}

/// The differences that count, each with those that follow from it. What follows from something that is not told counts itself.
pub(super) fn folded(task: &TaskAudit) -> Vec<(&Difference, Vec<&Difference>)> {
    let is_root = |one: &&Difference| one.consequence_of.is_none();
    let sites: BTreeSet<&Site> = task.differences.iter().filter(is_root).map(|one| &one.site).collect();
    let follows = |one: &Difference| one.consequence_of.as_ref().is_some_and(|of| sites.contains(of));
    let mut beneath: BTreeMap<&Site, Vec<&Difference>> = BTreeMap::new();
    for one in task.differences.iter().filter(|one| follows(one)) {
        let of = one.consequence_of.as_ref().expect("only what follows from another was taken");
        beneath.entry(of).or_default().push(one);
    }
    let roots = task.differences.iter().filter(|one| !follows(one));
    // Where one place differs in two ways, what follows is told once.
    roots.map(|root| (root, beneath.remove(&root.site).unwrap_or_default())).collect()
}

/// A cause, with what it did.
pub(super) struct Hit<'a> {
    pub cause: &'static Cause,
    pub tasks: BTreeSet<&'a str>,
    pub differences: usize,
    pub certainty: Certainty,
}

/// The causes that were found, by their names. Consequences count for nothing.
pub(super) fn causes(audit: &Audit) -> Vec<Hit<'_>> {
    let mut hits: BTreeMap<&str, Hit<'_>> = BTreeMap::new();
    for task in &audit.tasks {
        for (difference, _) in folded(task) {
            let (cause, certainty) = (difference.cause, difference.certainty);
            let none = || Hit { cause, tasks: BTreeSet::new(), differences: 0, certainty };
            let hit = hits.entry(cause.id).or_insert_with(none);
            hit.tasks.insert(&task.label);
            hit.differences += 1;
            hit.certainty = hit.certainty.max(certainty);
        }
    }
    hits.into_values().collect()
}

/// What came of a dimension, in a few words, and why where there is more to say.
pub(super) fn outcome(outcome: &Outcome) -> (&'static str, Option<&str>) {
    match outcome {
        Outcome::NotTested => ("not tested", None),
        Outcome::Same => ("same", None),
        Outcome::Differs => ("differs", None),
        Outcome::Fails { how } => ("fails", Some(how)),
        Outcome::Unknown { why } => ("unknown", Some(why)),
    }
}

/// A number that stays the same over audits for the same finding: of the task, the place and the cause, not of the bytes.
pub(super) fn fingerprint(task: &TaskAudit, difference: &Difference) -> String {
    let site = &difference.site;
    let mut bytes = Vec::new();
    let members = site.members.iter().map(String::as_str);
    for part in [task.label.as_str(), difference.cause.id, &site.file].into_iter().chain(members) {
        // With lengths, so that no two findings run together.
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    Digest::derived("drystone audit finding v1", &bytes).to_hex()
}

/// The package of a label.
pub(super) fn package(label: &str) -> &str {
    label.split_once(':').map_or(label, |(package, _)| package)
}

/// How a build was made, in words.
pub(super) fn manner(position: usize, build: &Build) -> String {
    let words = |dimensions: &[Dimension]| {
        let words: Vec<_> = dimensions.iter().map(|one| one.word()).collect();
        words.join(", ")
    };
    let mut told = match (position, build.varied.as_slice()) {
        (0, []) => "the recorded result".to_owned(),
        (_, []) => "plain".to_owned(),
        (_, varied) => format!("varied {}", words(varied)),
    };
    if !build.pinned.is_empty() {
        told.push_str(&format!("; held fast {}", words(&build.pinned)));
    }
    told
}

/// The names of the causes in one task, each once. Consequences count for nothing.
pub(super) fn causes_of(task: &TaskAudit) -> Vec<&'static str> {
    let ids: BTreeSet<_> = folded(task).iter().map(|(difference, _)| difference.cause.id).collect();
    ids.into_iter().collect()
}
