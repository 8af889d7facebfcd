//! Gathers what is found in one pair of files: one finding for each cause and member, with the first place and a count.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Finding;
use super::planted::Markers;
use crate::audit::causes::{self, Cause};
use crate::audit::context::{Context, Planted};
use crate::audit::model::{Certainty, EVIDENCE_BYTES_MAX, Evidence};
use crate::sandbox::surroundings::Dimension;

/// Most places of one pair of files that are explained; the rest is counted with the last.
pub(super) const PLACES_MAX: usize = 1000;
/// Once there are so many findings, digests are counted too.
const DIGESTS_MAX: usize = 256;
/// Bytes told before a difference.
const LEAD_BYTES: usize = 16;
/// Most bytes of one side in a sentence.
const QUOTED_BYTES_MAX: usize = 48;

/// Where two files differ, with the files around it.
#[derive(Clone, Debug)]
pub(super) struct Stretch<'t> {
    pub a: &'t [u8],
    pub at_a: Range<usize>,
    pub b: &'t [u8],
    pub at_b: Range<usize>,
    pub is_text: bool,
}

impl Stretch<'_> {
    /// What stands in each.
    pub fn bytes(&self) -> (&[u8], &[u8]) {
        (&self.a[self.at_a.clone()], &self.b[self.at_b.clone()])
    }
}

/// Why a stretch differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reason {
    pub cause: &'static Cause,
    pub certainty: Certainty,
    pub dimension: Option<Dimension>,
    pub what: String,
    /// How far it reaches on the first side: what differs up to there is explained with it.
    pub covers: Range<usize>,
    /// The same on the second side.
    pub covers_b: Range<usize>,
}

impl Reason {
    /// A suspicion.
    pub fn suspected(cause: &'static Cause, what: impl Into<String>, covers: (Range<usize>, Range<usize>)) -> Self {
        let (covers, covers_b) = covers;
        Self { cause, certainty: Certainty::Suspected, dimension: None, what: what.into(), covers, covers_b }
    }

    /// The same, and a field or the clock says so.
    pub fn proven(self) -> Self {
        Self { certainty: Certainty::Proven, ..self }
    }

    /// What a marker says that was found.
    pub fn of_marker(planted: &Planted, covers: (Range<usize>, Range<usize>)) -> Self {
        let cause = causes::of_dimension(planted.dimension);
        let what = if planted.a.is_empty() {
            format!("`{}`, which only the second build was given", quoted(planted.b.as_bytes()))
        } else {
            format!("`{}` against `{}`", quoted(planted.a.as_bytes()), quoted(planted.b.as_bytes()))
        };
        let what = format!("{}: {what}", cause.title);
        Self { dimension: Some(planted.dimension), ..Self::suspected(cause, what, covers).proven() }
    }
}

/// Some bytes for a sentence, escaped and cut short.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(QUOTED_BYTES_MAX)];
    let mut text = match std::str::from_utf8(cut) {
        Ok(text) => text
            .chars()
            .flat_map(|letter| {
                let as_is = !letter.is_control() && letter != '\u{fffd}';
                let escaped: Vec<char> = if as_is { vec![letter] } else { letter.escape_default().collect() };
                escaped
            })
            .collect::<String>(),
        Err(_) => cut.escape_ascii().to_string(),
    };
    if cut.len() < bytes.len() {
        text.push('…');
    }
    text
}

/// Whether a cause says more than the dimension that brought it out, so that it stays.
fn is_precise(cause: &'static Cause, dimension: Dimension) -> bool {
    // A file system shows in the order in which it lists files.
    if dimension == Dimension::FileSystem && cause == &causes::FILE_ORDER {
        return true;
    }
    let precise = [
        &causes::BUILD_ID,
        &causes::PE_HEADER,
        &causes::MACH_O,
        &causes::GO_BUILD,
        &causes::RUST_PATH,
        &causes::NODE_MODULES,
        &causes::PYTHON_BYTECODE,
        &causes::PDF_ID,
        &causes::SBOM,
        &causes::SIGNATURE,
        &causes::DOCS_GENERATOR,
        &causes::DIRTY_PATH,
        &causes::FILE_SYSTEM_IMAGE,
    ];
    precise.contains(&cause)
}

struct Kept {
    finding: Finding,
    count: u64,
}

/// What one finding is told by: members, cause, certainty, dimension, and whether it is a digest.
type Key = (Vec<String>, &'static str, Certainty, Option<Dimension>, bool);

/// Findings of one pair of files.
pub(super) struct Gathered<'c> {
    pub context: &'c Context,
    pub markers: &'c Markers,
    kept: Vec<Kept>,
    by_key: BTreeMap<Key, usize>,
    places: usize,
}

impl<'c> Gathered<'c> {
    pub fn new(context: &'c Context, markers: &'c Markers) -> Self {
        Self { context, markers, kept: Vec::new(), by_key: BTreeMap::new(), places: 0 }
    }

    /// Whether no more places are to be explained.
    pub fn is_full(&self) -> bool {
        self.places >= PLACES_MAX
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Adds one place. Where one dimension alone was varied, it comes of that, whatever it looks like.
    ///
    /// Each digest is a finding of its own, with all of it as evidence: it may follow from a file that differs.
    pub fn add(&mut self, members: &[String], reason: Reason, stretch: &Stretch<'_>) {
        let is_digest = reason.what.starts_with(super::DIGEST_LEAD);
        let evidence = if is_digest { evidence_of(stretch, &reason) } else { evidence(stretch) };
        self.add_with(members, reason, Some(evidence));
    }

    /// The same, with other bytes to show or none.
    pub fn add_with(&mut self, members: &[String], mut reason: Reason, evidence: Option<Evidence>) {
        self.places += 1;
        if let Some(dimension) = self.context.alone {
            reason.certainty = Certainty::Proven;
            reason.dimension = Some(dimension);
            if !is_precise(reason.cause, dimension) {
                reason.cause = causes::of_dimension(dimension);
            }
        }
        let Reason { cause, certainty, dimension, what, .. } = reason;
        let is_digest = what.starts_with(super::DIGEST_LEAD);
        let key = (members.to_vec(), cause.id, certainty, dimension, is_digest);
        let is_one_of_many = is_digest && self.kept.len() < DIGESTS_MAX;
        if let Some(at) = self.by_key.get(&key)
            && !is_one_of_many
        {
            self.kept[*at].count += 1;
            return;
        }
        self.by_key.insert(key, self.kept.len());
        let finding = Finding { members: members.to_vec(), what, cause, certainty, dimension, evidence };
        self.kept.push(Kept { finding, count: 1 });
    }

    /// Adds a finding that was made elsewhere, as it is.
    pub fn take(&mut self, finding: Finding) {
        self.kept.push(Kept { finding, count: 1 });
    }

    /// The first cause that is more than unknown.
    pub fn first_known(&self) -> Option<&'static Cause> {
        self.kept.iter().map(|kept| kept.finding.cause).find(|cause| *cause != &causes::UNKNOWN)
    }

    /// Changes findings once all are there.
    pub fn revise(&mut self, change: impl Fn(&mut Finding)) {
        self.kept.iter_mut().for_each(|kept| change(&mut kept.finding));
    }

    /// The findings, in the order in which they were met; each tells how many places it stands for.
    pub fn finish(self) -> Vec<Finding> {
        let told = self.kept.into_iter().map(|Kept { mut finding, count }| {
            if count > 1 {
                finding.what.push_str(&format!(" ({count} places)"));
            }
            finding
        });
        told.collect()
    }
}

/// The bytes around a stretch, on both sides.
fn evidence(stretch: &Stretch<'_>) -> Evidence {
    let lead = LEAD_BYTES.min(stretch.at_a.start).min(stretch.at_b.start);
    let around = |file: &[u8], at: &Range<usize>| {
        let start = at.start - lead;
        file[start..file.len().min(start + EVIDENCE_BYTES_MAX)].to_vec()
    };
    let (a, b) = (around(stretch.a, &stretch.at_a), around(stretch.b, &stretch.at_b));
    Evidence { offset: (stretch.at_a.start - lead) as u64, a, b }
}

/// What a reason covers, as much as is told.
fn evidence_of(stretch: &Stretch<'_>, reason: &Reason) -> Evidence {
    let cut = |file: &[u8], at: &Range<usize>| {
        file.get(at.start..at.end.min(at.start + EVIDENCE_BYTES_MAX)).unwrap_or_default().to_vec()
    };
    let (a, b) = (cut(stretch.a, &reason.covers), cut(stretch.b, &reason.covers_b));
    Evidence { offset: reason.covers.start as u64, a, b }
}
