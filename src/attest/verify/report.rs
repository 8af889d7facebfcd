//! What was checked of an image, and how it came out. Decides nothing.

use std::collections::BTreeSet;
use std::fmt;

/// How a check came out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It holds.
    Held,
    /// It does not, and why.
    Failed(String),
    /// It was not checked, and why.
    NotChecked(String),
}

/// One check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What it is about: a blob, a signature, a link of the chain.
    pub subject: String,
    /// What should hold of it.
    pub law: &'static str,
    /// Whether it does.
    pub verdict: Verdict,
}

/// All checks, in the order in which they were made: from the index down, then one attestation after the other.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// Digest of what was checked, as text; empty if it was not found.
    pub digest: String,
    /// The checks.
    pub checks: Vec<Check>,
    /// The trusted keys that signed something that was read, by their ids.
    pub signed_by: BTreeSet<String>,
    /// Who built it, as signed provenance says.
    pub built_by: BTreeSet<String>,
}

impl Report {
    /// Whether nothing failed. What was not checked is for the reader to weigh.
    pub fn holds(&self) -> bool {
        !self.checks.iter().any(|check| matches!(check.verdict, Verdict::Failed(_)))
    }

    pub(super) fn held(&mut self, subject: impl Into<String>, law: &'static str) {
        self.add(subject, law, Verdict::Held);
    }

    pub(super) fn failed(&mut self, subject: impl Into<String>, law: &'static str, cause: impl Into<String>) {
        self.add(subject, law, Verdict::Failed(cause.into()));
    }

    pub(super) fn not_checked(&mut self, subject: impl Into<String>, law: &'static str, why: impl Into<String>) {
        self.add(subject, law, Verdict::NotChecked(why.into()));
    }

    /// Held if there is no cause why not.
    pub(super) fn settle(&mut self, subject: impl Into<String>, law: &'static str, outcome: Result<(), String>) {
        self.add(subject, law, outcome.map_or_else(Verdict::Failed, |()| Verdict::Held));
    }

    fn add(&mut self, subject: impl Into<String>, law: &'static str, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Held => Verdict::Held,
            Verdict::Failed(cause) => Verdict::Failed(harmless(&cause)),
            Verdict::NotChecked(why) => Verdict::NotChecked(harmless(&why)),
        };
        self.checks.push(Check { subject: harmless(&subject.into()), law, verdict });
    }
}

/// A text that may hold anything, for a terminal: no control characters, and no more than a few lines.
fn harmless(text: &str) -> String {
    const LETTERS_MAX: usize = 500;
    let mut told = String::with_capacity(text.len().min(LETTERS_MAX));
    for letter in text.chars().take(LETTERS_MAX) {
        // Also what turns the direction of writing, which hides what stands there.
        if letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            told.extend(letter.escape_default());
        } else {
            told.push(letter);
        }
    }
    told
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, cause) = match &self.verdict {
            Verdict::Held => ("held", None),
            Verdict::Failed(cause) => ("FAILED", Some(cause)),
            Verdict::NotChecked(why) => ("not checked", Some(why)),
        };
        write!(f, "{word}: {}: {}", self.subject, self.law)?;
        cause.map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}
