//! What is told of two images that differ, as data, as text and as JSON. Compares nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::image::diff::DiffOptions;
use crate::image::diff::class::Class;

/// Most characters of a value that are told.
const VALUE_CHARS_MAX: usize = 200;

/// How alike two images are: the first that holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All bytes are the same.
    Identical,
    /// Every image has the same digest; what names them differs: names, remarks, order and attestations of the index.
    IdenticalButIndex,
    /// Configurations and unpacked layers have the same digests; manifests or compressed layers differ.
    SameUncompressed,
    /// Unpacked layers have the same digests; configurations differ.
    SameLayers,
    /// Anything else.
    Different,
}

/// Where a difference lies, in the words of `diffoci`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum Event {
    /// An entry of an index, or a descriptor.
    DescriptorMismatch,
    /// An index.
    IndexBlobMismatch,
    /// A manifest.
    ManifestBlobMismatch,
    /// A configuration.
    ConfigBlobMismatch,
    /// A layer as a whole.
    LayerBlobMismatch,
    /// An entry of a layer.
    TarEntryMismatch,
}

/// Where a difference lies. What is not there is left out of the JSON.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize)]
pub struct Place {
    /// The platform, as `linux/amd64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Number of the layer on the first side, from 1.
    #[serde(rename = "layerA", skip_serializing_if = "Option::is_none")]
    pub layer_a: Option<usize>,
    /// Number of the layer on the second side, from 1.
    #[serde(rename = "layerB", skip_serializing_if = "Option::is_none")]
    pub layer_b: Option<usize>,
    /// Path of the entry; bytes that are no text are escaped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The field of a document or an entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// A piece of two contents around their first difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Excerpt {
    /// Of text.
    Text {
        /// Number of the first line that differs, from 1, if it is near enough to the beginning to be known.
        #[serde(skip_serializing_if = "Option::is_none")]
        line: Option<usize>,
        /// Lines of both with ` `, of the first with `-`, of the second with `+` in front.
        lines: Vec<String>,
    },
    /// Of anything else.
    Binary {
        /// The first byte that differs, from 0.
        offset: u64,
        /// Bytes of the first from there, in hexadecimal digits.
        a: String,
        /// Bytes of the second from there.
        b: String,
    },
}

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Told {
    /// Which kind of thing differs.
    pub event: Event,
    /// Why.
    pub class: Class,
    /// Where.
    pub place: Place,
    /// What and why, in one line.
    pub sentence: String,
    /// What the first side has, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<String>,
    /// What the second side has, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<String>,
    /// Around the first difference of a content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<Excerpt>,
}

impl Told {
    pub(super) fn new(event: Event, class: Class, place: Place, sentence: impl Into<String>) -> Self {
        Self { event, class, place, sentence: sentence.into(), a: None, b: None, excerpt: None }
    }

    pub(super) fn sides(mut self, a: Option<String>, b: Option<String>) -> Self {
        (self.a, self.b) = (a, b);
        self
    }
}

/// How two images differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Version of this document: 1.
    pub format: u32,
    /// How alike they are.
    pub verdict: Verdict,
    /// How many differences there are of each class, told or not.
    pub counts: BTreeMap<&'static str, u64>,
    /// Those that are told, by place.
    pub told: Vec<Told>,
    /// How many are not told.
    pub untold: u64,
}

impl Difference {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// As JSON on several lines, with a newline at the end. Fields come in the order of the types.
    pub fn json(&self) -> String {
        pretty(self)
    }

    /// As text: the verdict, then each difference beneath its platform and layer, then how many there are of each class.
    pub fn lines(&self) -> Vec<String> {
        let verdict = match self.verdict {
            Verdict::Identical => "The images are identical.",
            Verdict::IdenticalButIndex => "The images are identical; the indexes that name them differ.",
            Verdict::SameUncompressed => {
                "The images are the same uncompressed: configurations and layers unpacked have the same digests."
            }
            Verdict::SameLayers => "The layers of the images are the same; their configurations differ.",
            Verdict::Different => "The images differ.",
        };
        let mut lines = vec![verdict.to_owned()];
        let mut above = None;
        for told in &self.told {
            let here = heading(&told.place);
            if above.as_ref() != Some(&here) {
                lines.extend([String::new(), here.clone()]);
                above = Some(here);
            }
            let at = told.place.path.as_ref().or(told.place.field.as_ref());
            let at = at.map(|at| format!("{at}: ")).unwrap_or_default();
            lines.push(format!("  {at}{} [{}]", told.sentence, told.class.id()));
            for (mark, side) in [('-', &told.a), ('+', &told.b)] {
                lines.extend(side.iter().filter(|_| told.excerpt.is_none()).map(|side| format!("    {mark} {side}")));
            }
            match &told.excerpt {
                Some(Excerpt::Text { line, lines: text }) => {
                    lines.extend(line.map(|line| format!("    line {line}:")));
                    lines.extend(text.iter().map(|line| format!("    {line}")));
                }
                Some(Excerpt::Binary { offset, a, b }) => {
                    lines.push(format!("    byte {offset}:"));
                    lines.extend([format!("    -{a}"), format!("    +{b}")]);
                }
                None => {}
            }
        }
        if !self.counts.is_empty() {
            let counts: Vec<String> = self.counts.iter().map(|(id, count)| format!("{count} {id}")).collect();
            let untold =
                if self.untold > 0 { format!("; {} of them are not told", self.untold) } else { String::new() };
            lines.extend([String::new(), format!("Differences: {}{untold}.", counts.join(", "))]);
        }
        lines
    }
}

fn heading(place: &Place) -> String {
    let layer = match (place.layer_a, place.layer_b) {
        (Some(a), Some(b)) if a == b => format!("layer {a}"),
        (Some(a), Some(b)) => format!("layer {a} of the first, {b} of the second"),
        (Some(a), None) => format!("layer {a} of the first"),
        (None, Some(b)) => format!("layer {b} of the second"),
        (None, None) => "documents".into(),
    };
    match &place.platform {
        Some(platform) => format!("{platform}, {layer}"),
        None => "index".into(),
    }
}

/// Differences as they are found.
pub(super) struct Ledger<'a> {
    options: &'a DiffOptions,
    counts: BTreeMap<Class, u64>,
    told: Vec<Told>,
}

impl<'a> Ledger<'a> {
    pub fn new(options: &'a DiffOptions) -> Self {
        Self { options, counts: BTreeMap::new(), told: Vec::new() }
    }

    /// Counts a difference; `tell` is called only if it is told as well.
    pub fn add(&mut self, class: Class, tell: impl FnOnce() -> Told) {
        let count = self.counts.entry(class).or_default();
        *count += 1;
        if *count <= self.options.told_of_class_max as u64 && self.told.len() < self.options.told_max {
            self.told.push(tell());
        }
    }

    /// How many there are so far.
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    pub fn finish(mut self, verdict: Verdict) -> Difference {
        let order = |told: &Told| {
            let at = told.place.layer_a.or(told.place.layer_b);
            (told.place.platform.clone(), at, told.place.layer_b, told.place.path.clone(), told.event)
        };
        self.told.sort_by_cached_key(order);
        let untold = self.count() - self.told.len() as u64;
        let counts = self.counts.iter().map(|(class, count)| (class.id(), *count)).collect();
        Difference { format: 1, verdict, counts, told: self.told, untold }
    }
}

/// A value as it can be told: on one line, without control characters, not too long.
pub(in crate::image) fn shown(text: &str) -> String {
    let mut told: String = text.chars().take(VALUE_CHARS_MAX).flat_map(shown_char).collect();
    if text.chars().nth(VALUE_CHARS_MAX).is_some() {
        told.push('…');
    }
    told
}

fn shown_char(letter: char) -> impl Iterator<Item = char> {
    let is_plain = !letter.is_control() && letter != '\u{2028}' && !('\u{202a}'..='\u{202e}').contains(&letter);
    let escaped = (!is_plain).then(|| letter.escape_default());
    is_plain.then_some(letter).into_iter().chain(escaped.into_iter().flatten())
}

/// Bytes that are mostly text.
pub(in crate::image) fn shown_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => shown(text),
        Err(_) => shown(&bytes.escape_ascii().to_string()),
    }
}

/// JSON on several lines.
pub(in crate::image) fn pretty(document: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(document).expect("texts, numbers and lists always become JSON");
    text.push('\n');
    text
}
