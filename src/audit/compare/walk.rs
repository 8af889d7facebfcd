//! Two contents on their way down: what was found, what waits for the end, and the limits. Knows no format.

use std::collections::BTreeSet;

use crate::audit::causes::{self, Cause};
use crate::audit::compare::consequence::{self, Known};
use crate::audit::compare::sniff::{self, Kind};
use crate::audit::compare::verdict::{Cost, Costs};
use crate::audit::compare::{Comparison, Limits, ar, archive, compressed, cpio, tar, zip};
use crate::audit::context::Context;
use crate::audit::kinds::{self, Finding};
use crate::audit::model::{Certainty, Difference, Evidence, Site};
use crate::sandbox::surroundings::Dimension;

/// Why a container was not taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// It is none after all, or not all of its bytes are accounted for.
    Broken,
    /// A limit was met; which one.
    Over(String),
}

/// The first or the second side.
pub(super) type Side = usize;

/// Something that differs, without its place.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) what: String,
    pub(super) cause: &'static Cause,
    pub(super) certainty: Certainty,
    pub(super) dimension: Option<Dimension>,
    pub(super) evidence: Option<Evidence>,
    pub(super) cost: Cost,
}

impl Told {
    /// Something of which nothing is known.
    pub(super) fn unknown(what: String) -> Self {
        Self {
            what,
            cause: &causes::UNKNOWN,
            certainty: Certainty::Suspected,
            dimension: None,
            evidence: None,
            cost: Cost::Real,
        }
    }

    /// Something that a header or a listing says.
    pub(super) fn proven(what: String, cause: &'static Cause, cost: Cost) -> Self {
        Self { certainty: Certainty::Proven, cause, cost, ..Self::unknown(what) }
    }
}

/// A difference, with the pairs of contents that it follows from: positions in [`Known`].
#[derive(Debug)]
pub(super) struct Found {
    pub(super) difference: Difference,
    pub(super) follows: Vec<usize>,
}

/// Two leaves that may hold digests of others, which are not all known yet.
struct Waiting {
    site: Site,
    name: String,
    a: Vec<u8>,
    b: Vec<u8>,
}

/// Most bytes of a leaf that may hold digests of others, and of all of them of one side.
const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A comparison that is under way.
pub(super) struct Walk<'c> {
    pub(super) context: &'c Context,
    pub(super) limits: &'c Limits,
    pub(super) known: Known,
    /// Attestations of images: what differs in them by chance is told as theirs.
    pub(super) attestations: Vec<Site>,
    found: Vec<Found>,
    untold: u64,
    costs: Costs,
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    notes: BTreeSet<String>,
    unpacked: [u64; 2],
    entries: [usize; 2],
    /// Grows with whatever was found or waits.
    events: u64,
}

impl<'c> Walk<'c> {
    pub(super) fn new(context: &'c Context, limits: &'c Limits) -> Self {
        Self {
            context,
            limits,
            known: Known::default(),
            attestations: Vec::new(),
            found: Vec::new(),
            untold: 0,
            costs: Costs::default(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            notes: BTreeSet::new(),
            unpacked: [0; 2],
            entries: [0; 2],
            events: 0,
        }
    }

    /// How many things were found so far; to see whether anything was.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// Takes down something that differs.
    pub(super) fn push(&mut self, site: &Site, told: Told) {
        self.costs.add(told.cost);
        self.keep(site, told, Vec::new());
    }

    /// Takes down something that follows from pairs of contents that differ, and costs nothing of its own but what is told.
    pub(super) fn follow(&mut self, site: &Site, what: String, cost: Option<Cost>, follows: Vec<usize>) {
        if let Some(cost) = cost {
            self.costs.add(cost);
        }
        self.keep(site, Told { certainty: Certainty::Proven, ..Told::unknown(what) }, follows);
    }

    fn keep(&mut self, site: &Site, mut told: Told, follows: Vec<usize>) {
        self.events += 1;
        let is_weak = told.cause == &causes::UNKNOWN || told.cause == &causes::RANDOMNESS;
        let is_within = |outer: &Site| outer.file == site.file && site.members.starts_with(&outer.members);
        if is_weak && follows.is_empty() && told.dimension.is_none() && self.attestations.iter().any(is_within) {
            told.cause = &causes::ATTESTATION_IN_INDEX;
        }
        if self.found.len() >= self.limits.told {
            self.untold += 1;
            return;
        }
        let alone = self.context.alone.filter(|_| told.dimension.is_none() && follows.is_empty());
        let difference = Difference {
            site: site.clone(),
            what: told.what,
            cause: told.cause,
            certainty: told.certainty,
            dimension: told.dimension.or(alone),
            evidence: told.evidence,
            consequence_of: None,
            between: (0, 0),
        };
        self.found.push(Found { difference, follows });
    }

    /// Adds a sentence about what could not be looked into.
    pub(super) fn note(&mut self, note: String) {
        self.notes.insert(note);
    }

    /// Tells that a limit was met, or that bytes cannot be had: never the same, whatever it is.
    pub(super) fn over(&mut self, site: &Site, why: &str) {
        self.note(format!("`{}` was not compared as a whole: {why}", place(site)));
        self.push(site, Told::unknown(format!("it differs, and was not looked into: {why}")));
    }

    /// Counts bytes that are unpacked.
    pub(super) fn spend(&mut self, side: Side, bytes: usize) -> Result<(), Trouble> {
        self.unpacked[side] = self.unpacked[side].saturating_add(bytes as u64);
        if self.unpacked[side] > self.limits.unpacked_bytes {
            return Err(Trouble::Over(format!("more than {} bytes are unpacked", self.limits.unpacked_bytes)));
        }
        Ok(())
    }

    /// How many bytes one content may have now.
    pub(super) fn room(&self, side: Side) -> usize {
        let left = self.limits.unpacked_bytes.saturating_sub(self.unpacked[side]);
        self.limits.content_bytes.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Counts a member of an archive.
    pub(super) fn count(&mut self, side: Side) -> Result<(), Trouble> {
        self.entries[side] += 1;
        if self.entries[side] > self.limits.entries {
            return Err(Trouble::Over(format!("archives have more than {} members", self.limits.entries)));
        }
        Ok(())
    }

    /// Compares two contents, down to leaves. `depth` containers are around them.
    pub(super) fn descend(&mut self, site: &Site, name: &str, a: &[u8], b: &[u8], depth: usize) {
        if a == b {
            return;
        }
        self.known.add(site, a, b);
        if depth >= self.limits.depth {
            self.over(site, &format!("more than {} containers are within one another", self.limits.depth));
            return;
        }
        let events = self.events;
        let (kind, other) = (sniff::kind(a), sniff::kind(b));
        let went = match kind {
            _ if kind.is_compressed() && other.is_compressed() => compressed::compare(self, site, name, a, b, depth),
            _ if kind != other => Err(Trouble::Broken),
            Kind::Tar => archive::compare(self, site, a, b, depth, tar::read),
            Kind::Cpio => archive::compare(self, site, a, b, depth, cpio::read),
            Kind::Ar => archive::compare(self, site, a, b, depth, ar::read),
            Kind::Zip => archive::compare(self, site, a, b, depth, zip::read),
            _ => Err(Trouble::Broken),
        };
        match went {
            Ok(()) if self.events == events => {
                let what = format!("bytes of the {} file differ that no field of it shows", kind.word());
                self.push(site, Told::unknown(what));
            }
            Ok(()) => {}
            Err(Trouble::Over(why)) => self.over(site, &why),
            Err(Trouble::Broken) => {
                if kind == other && kind == Kind::Bzip2 {
                    self.note(format!("`{}` was compared byte by byte: bzip2 is not looked into", place(site)));
                } else if kind == other && kind != Kind::Leaf {
                    self.note(format!(
                        "`{}` was compared byte by byte: no {} file that can be read",
                        place(site),
                        kind.word()
                    ));
                }
                self.leaf(site, name, a, b);
            }
        }
    }

    /// Two contents that are not taken apart: what may hold digests of others waits until all of these are known.
    fn leaf(&mut self, site: &Site, name: &str, a: &[u8], b: &[u8]) {
        let bytes = a.len().max(b.len());
        let may_list = bytes <= LIST_BYTES_MAX && consequence::may_list(a) && consequence::may_list(b);
        if may_list && self.waiting_bytes + bytes <= WAITING_BYTES_MAX {
            self.events += 1;
            self.waiting_bytes += bytes;
            self.waiting.push(Waiting { site: site.clone(), name: name.to_owned(), a: a.to_vec(), b: b.to_vec() });
        } else {
            self.look(site, name, a, b);
        }
    }

    /// Has two leaves looked at.
    fn look(&mut self, site: &Site, name: &str, a: &[u8], b: &[u8]) {
        let most = self.limits.leaf_bytes;
        let cut = |bytes: &'_ [u8]| bytes.len().min(most);
        let (first, second) = (&a[..cut(a)], &b[..cut(b)]);
        let findings = if first == second { Vec::new() } else { kinds::look(name, first, second, self.context) };
        if a[first.len()..] != b[second.len()..] {
            self.over(site, &format!("only its first {most} bytes were looked at"));
        } else if findings.is_empty() {
            self.push(site, Told::unknown("the bytes differ".into()));
        }
        for finding in findings {
            let Finding { members, what, cause, certainty, dimension, evidence } = finding;
            let inner = Site { file: site.file.clone(), members: [site.members.clone(), members].concat() };
            self.push(&inner, Told { what, cause, certainty, dimension, evidence, cost: Cost::Real });
        }
    }

    /// Looks at what waits, and settles what follows from what.
    pub(super) fn finish(mut self) -> Comparison {
        for leaf in std::mem::take(&mut self.waiting) {
            match consequence::explain(&self.known, &leaf.a, &leaf.b) {
                Some(pairs) => {
                    let what = "digests of files that differ".to_owned();
                    self.follow(&leaf.site, what, Some(Cost::Normal("digests")), pairs);
                }
                None => {
                    let b = consequence::with_digests_of_a(&self.known, &leaf.a, &leaf.b);
                    self.look(&leaf.site, &leaf.name, &leaf.a, &b);
                }
            }
        }
        let mut found = self.found;
        found.sort_by(|a, b| (&a.difference.site, &a.difference.what).cmp(&(&b.difference.site, &b.difference.what)));
        consequence::settle(&self.known, &mut found);
        let (verdict, normalizers) = self.costs.settle(!found.is_empty() || self.untold > 0);
        Comparison {
            verdict,
            differences: found.into_iter().map(|found| found.difference).collect(),
            untold: self.untold,
            normalizers,
            notes: self.notes.into_iter().collect(),
        }
    }
}

/// A site in one line.
pub(super) fn place(site: &Site) -> String {
    std::iter::once(&site.file).chain(&site.members).map(String::as_str).collect::<Vec<_>>().join(" › ")
}

/// A place within a site.
pub(super) fn within(site: &Site, member: &str) -> Site {
    let mut inner = site.clone();
    inner.members.push(member.to_owned());
    inner
}

/// Bytes as text; where they are none, escaped.
pub(super) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Texts shorter than this are markers only as a whole.
const MARKER_BYTES_MIN: usize = 4;

/// By which variation the value of a header differs: a marker was planted on a side and is in the value of that side alone.
pub(super) fn planted(context: &Context, a: &str, b: &str) -> Option<Dimension> {
    let has = |value: &str, marker: &str| match marker {
        "" => false,
        _ if marker.len() < MARKER_BYTES_MIN || marker.bytes().all(|byte| byte.is_ascii_digit()) => value == marker,
        _ => value.contains(marker),
    };
    let fits = |own: &str, value: &str, other: &str| has(value, own) && !has(other, own);
    let hit = context.planted.iter().find(|planted| {
        let first = planted.a.is_empty() || fits(&planted.a, a, b);
        let second = planted.b.is_empty() || fits(&planted.b, b, a);
        first && second && !(planted.a.is_empty() && planted.b.is_empty())
    });
    hit.map(|planted| planted.dimension)
}
