//! An audit as JSON: the types, their schema, and how it is written and read back. Reads and writes no file.
//!
//! What is written here is read by other programs and other machines: fields are added, never renamed and never removed. What is read
//! may come from anybody: everything is counted, and what is not known is refused. `schema/audit.schema.json` is generated from these types.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::audit::causes::{self, Cause, UNKNOWN};
use crate::audit::model::{
    Audit, Build, Certainty, Difference, EVIDENCE_BYTES_MAX, Effect, Ending, Evidence, Machine, Outcome, Site,
    TaskAudit, Varied, Verdict,
};
use crate::base::digest::Digest;
use crate::sandbox::surroundings::Dimension;

/// Version of the document.
pub const FORMAT: u32 = 1;

/// Largest document read, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Most entries of any one list that is read.
const ENTRIES_MAX: usize = 1_000_000;

/// Longest name of a normalizer, and how many there may be: they are kept until the program ends.
const NORMALIZER_BYTES_MAX: usize = 64;
const NORMALIZERS_MAX: usize = 64;

/// Why a document is no audit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the report of an audit cannot be read: {cause}")]
pub struct WireError {
    /// What is wrong with it.
    pub cause: String,
}

/// An audit.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Drystone audit")]
struct AuditValue {
    /// Version of this document: 1.
    format: u32,
    /// Number of the audit, 16 hexadecimal digits.
    id: String,
    /// Version of the program.
    version: String,
    /// When it began, in milliseconds since 1970.
    started_ms: i64,
    /// How long it took, in milliseconds.
    duration_ms: u64,
    /// The worst verdict of all tasks.
    verdict: VerdictWord,
    /// Where.
    machine: MachineValue,
    /// Dimensions that were to be varied.
    asked: Vec<String>,
    /// The tasks, in the order of their labels.
    tasks: Vec<TaskValue>,
    /// Tasks that were selected and not audited.
    left_out: Vec<LeftOutValue>,
}

/// How alike the builds of a task are.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
enum VerdictWord {
    /// All builds have the same bytes.
    Identical,
    /// What is in compressed files is the same, the compressed bytes are not.
    IdenticalUncompressed,
    /// The same once the normalizers that are named were applied.
    Equivalent,
    /// It could not be found out.
    Inconclusive,
    /// Anything else.
    Different,
}

/// How sure a cause is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug)]
#[serde(rename_all = "kebab-case")]
enum CertaintyWord {
    /// What a file looks like speaks for it.
    Suspected,
    /// It was shown.
    Proven,
}

/// The machine of an audit.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
struct MachineValue {
    /// Release of the kernel.
    kernel: String,
    /// Architecture, as `x86_64`.
    architecture: String,
    /// Model of the processor.
    processor: String,
    /// How many processors there are.
    cpus: u32,
    /// Name of the distribution with its version.
    system: String,
    /// Kind of the file system of the store.
    file_system: String,
    /// What stands for the machine without naming it.
    id: String,
}

/// A task that was selected and not audited.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
struct LeftOutValue {
    /// Its label.
    label: String,
    /// Why not.
    why: String,
}

/// What was found of one task.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
struct TaskValue {
    /// Its label.
    label: String,
    /// Key of its action, 64 hexadecimal digits.
    action: String,
    /// Tree digest of the recorded outputs, 64 hexadecimal digits; null where there are none.
    outputs: Option<String>,
    /// The level it was built at: `namespaces`, `landlock` or `none`.
    isolation: String,
    /// How alike its builds are.
    verdict: VerdictWord,
    /// Whether plain builds differ among themselves already.
    unstable: bool,
    /// All builds, the recorded result first.
    builds: Vec<BuildValue>,
    /// Every dimension.
    varied: Vec<VariedValue>,
    /// What differs.
    differences: Vec<DifferenceValue>,
    /// How many more differences there are that are not told.
    untold: u64,
    /// Normalizers after which the builds are the same.
    normalizers: Vec<String>,
    /// Things worth saying, a sentence each.
    notes: Vec<String>,
}

/// One build.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
struct BuildValue {
    /// Dimensions that were varied; none for a plain build.
    varied: Vec<String>,
    /// Dimensions that were held fast.
    pinned: Vec<String>,
    /// How it ended.
    ending: EndingValue,
    /// When it began, in milliseconds since 1970.
    started_ms: i64,
    /// How long it took, in milliseconds.
    duration_ms: u64,
}

/// How a build ended.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum EndingValue {
    /// With outputs.
    Built {
        /// Tree digest of them, 64 hexadecimal digits.
        outputs: String,
    },
    /// The command failed.
    Failed {
        /// How.
        how: String,
    },
}

/// One dimension of one task.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
struct VariedValue {
    /// Which.
    dimension: String,
    /// Whether it took hold.
    effect: EffectValue,
    /// What came of it.
    outcome: OutcomeValue,
}

/// Whether a variation took hold.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum EffectValue {
    /// Both values were seen in the sandbox.
    Effective {
        /// In a plain build.
        first: String,
        /// In the varied one.
        second: String,
    },
    /// It had no effect.
    None {
        /// Why.
        why: String,
    },
}

/// What came of varying a dimension.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum OutcomeValue {
    /// It had no effect, so nothing follows.
    NotTested {},
    /// Nothing differed with it.
    Same {},
    /// With it alone, the outputs differ.
    Differs {},
    /// With it alone, the command fails.
    Fails {
        /// How.
        how: String,
    },
    /// It was not found out.
    Unknown {
        /// Why.
        why: String,
    },
}

/// One difference between two builds.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
struct DifferenceValue {
    /// Where.
    site: SiteValue,
    /// What differs, in one line.
    what: String,
    /// Why.
    cause: CauseValue,
    /// How sure that is.
    certainty: CertaintyWord,
    /// The dimension that makes it appear; null where none is proven.
    dimension: Option<String>,
    /// The bytes; null where none are told.
    evidence: Option<EvidenceValue>,
    /// The place of the difference that it follows from; null where it stands for itself.
    consequence_of: Option<SiteValue>,
    /// Positions of the two builds in `builds`.
    between: [usize; 2],
}

/// Where a difference lies.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
struct SiteValue {
    /// Path relative to the package, or in an image.
    file: String,
    /// Members from the outside in.
    members: Vec<String>,
}

/// A cause.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
struct CauseValue {
    /// Its name, the same for ever.
    id: String,
    /// What it is.
    title: String,
    /// The way out.
    remedy: String,
}

/// Bytes of both sides.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
struct EvidenceValue {
    /// Where they begin in the innermost member.
    offset: u64,
    /// Of the first side.
    a: BytesValue,
    /// Of the second side.
    b: BytesValue,
}

/// Some bytes.
#[derive(Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
struct BytesValue {
    /// In hexadecimal digits.
    hex: String,
    /// As text; null where they are none that can be printed.
    text: Option<String>,
}

/// An audit as JSON on several lines, with a newline at the end. The same audit gives the same bytes.
pub fn to_json(audit: &Audit) -> String {
    let mut text = serde_json::to_string_pretty(&AuditValue::of(audit)).expect("texts, numbers and lists become JSON");
    text.push('\n');
    text
}

/// The JSON Schema of what [`to_json`] writes, as checked in at `schema/audit.schema.json`.
pub fn audit_schema() -> serde_json::Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<AuditValue>().into()
}

/// Reads what [`to_json`] wrote, perhaps elsewhere and by a newer version: causes that are not known here become [`UNKNOWN`].
pub fn from_json(bytes: &[u8]) -> Result<Audit, WireError> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(wrong(format!("it has {} bytes; {DOCUMENT_BYTES_MAX} at most are read", bytes.len())));
    }
    let value: AuditValue = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    value.read()
}

fn wrong(cause: impl Into<String>) -> WireError {
    WireError { cause: cause.into() }
}

fn cause_of(id: &str) -> &'static Cause {
    // Of a later version there may be one that this one has no row for.
    causes::by_id(id).unwrap_or(&UNKNOWN)
}

fn digest(text: &str) -> Result<Digest, WireError> {
    Digest::parse(text).ok_or_else(|| wrong(format!("`{}` is no digest", text.escape_debug())))
}

fn dimension(word: &str) -> Result<Dimension, WireError> {
    Dimension::parse(word).ok_or_else(|| wrong(format!("no dimension is called `{}`", word.escape_debug())))
}

fn dimensions(words: &[String]) -> Result<Vec<Dimension>, WireError> {
    words.iter().map(|word| dimension(word)).collect()
}

fn words(dimensions: &[Dimension]) -> Vec<String> {
    dimensions.iter().map(|one| one.word().to_owned()).collect()
}

/// A list, each of its entries read, unless there are too many.
fn list<V, T>(values: Vec<V>, read: impl Fn(V) -> Result<T, WireError>) -> Result<Vec<T>, WireError> {
    if values.len() > ENTRIES_MAX {
        return Err(wrong(format!("a list has {} entries; {ENTRIES_MAX} at most are read", values.len())));
    }
    values.into_iter().map(read).collect()
}

/// A name of a normalizer as the model has it. Those of this program are few, so what is kept of others is bounded.
fn normalizer(name: &str) -> Result<&'static str, WireError> {
    static KNOWN: LazyLock<Mutex<BTreeSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.get(name) {
        return Ok(known);
    }
    if name.len() > NORMALIZER_BYTES_MAX || known.len() >= NORMALIZERS_MAX {
        return Err(wrong("it names too many normalizers, or one with too long a name"));
    }
    let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
    known.insert(kept);
    Ok(kept)
}

impl AuditValue {
    fn of(audit: &Audit) -> Self {
        let left_out = |(label, why): &(String, String)| LeftOutValue { label: label.clone(), why: why.clone() };
        Self {
            format: FORMAT,
            id: audit.id.clone(),
            version: audit.version.clone(),
            started_ms: audit.started_ms,
            duration_ms: audit.duration_ms,
            verdict: VerdictWord::of(audit.verdict()),
            machine: MachineValue::of(&audit.machine),
            asked: words(&audit.asked),
            tasks: audit.tasks.iter().map(TaskValue::of).collect(),
            left_out: audit.left_out.iter().map(left_out).collect(),
        }
    }

    fn read(self) -> Result<Audit, WireError> {
        if self.format != FORMAT {
            return Err(wrong(format!("its format is {}; {FORMAT} is known", self.format)));
        }
        let is_id = self.id.len() == 16 && self.id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_id {
            return Err(wrong(format!("`{}` is no number of an audit", self.id.escape_debug())));
        }
        let audit = Audit {
            id: self.id,
            version: self.version,
            started_ms: self.started_ms,
            duration_ms: self.duration_ms,
            machine: self.machine.read(),
            asked: dimensions(&self.asked)?,
            tasks: list(self.tasks, TaskValue::read)?,
            left_out: list(self.left_out, |one| Ok((one.label, one.why)))?,
        };
        if !audit.tasks.is_sorted_by(|one, next| one.label < next.label) {
            return Err(wrong("its tasks are not in the order of their labels, each once"));
        }
        if VerdictWord::of(audit.verdict()) != self.verdict {
            return Err(wrong("its verdict is not the worst of its tasks"));
        }
        Ok(audit)
    }
}

impl VerdictWord {
    const fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Identical => Self::Identical,
            Verdict::IdenticalUncompressed => Self::IdenticalUncompressed,
            Verdict::Equivalent => Self::Equivalent,
            Verdict::Inconclusive => Self::Inconclusive,
            Verdict::Different => Self::Different,
        }
    }

    const fn read(self) -> Verdict {
        match self {
            Self::Identical => Verdict::Identical,
            Self::IdenticalUncompressed => Verdict::IdenticalUncompressed,
            Self::Equivalent => Verdict::Equivalent,
            Self::Inconclusive => Verdict::Inconclusive,
            Self::Different => Verdict::Different,
        }
    }
}

impl MachineValue {
    fn of(machine: &Machine) -> Self {
        let Machine { kernel, architecture, processor, cpus, system, file_system, id } = machine.clone();
        Self { kernel, architecture, processor, cpus, system, file_system, id }
    }

    fn read(self) -> Machine {
        let Self { kernel, architecture, processor, cpus, system, file_system, id } = self;
        Machine { kernel, architecture, processor, cpus, system, file_system, id }
    }
}

impl TaskValue {
    fn of(task: &TaskAudit) -> Self {
        Self {
            label: task.label.clone(),
            action: task.action.to_hex(),
            outputs: task.outputs.map(|digest| digest.to_hex()),
            isolation: task.isolation.clone(),
            verdict: VerdictWord::of(task.verdict),
            unstable: task.is_unstable,
            builds: task.builds.iter().map(BuildValue::of).collect(),
            varied: task.varied.iter().map(VariedValue::of).collect(),
            differences: task.differences.iter().map(DifferenceValue::of).collect(),
            untold: task.untold,
            normalizers: task.normalizers.iter().map(|name| (*name).to_owned()).collect(),
            notes: task.notes.clone(),
        }
    }

    fn read(self) -> Result<TaskAudit, WireError> {
        let builds = list(self.builds, BuildValue::read)?;
        let differences = list(self.differences, |one| one.read(builds.len()))?;
        Ok(TaskAudit {
            label: self.label,
            action: digest(&self.action)?,
            outputs: self.outputs.as_deref().map(digest).transpose()?,
            isolation: self.isolation,
            verdict: self.verdict.read(),
            is_unstable: self.unstable,
            builds,
            varied: list(self.varied, VariedValue::read)?,
            differences,
            untold: self.untold,
            normalizers: list(self.normalizers, |name| normalizer(&name))?,
            notes: list(self.notes, Ok)?,
        })
    }
}

impl BuildValue {
    fn of(build: &Build) -> Self {
        Self {
            varied: words(&build.varied),
            pinned: words(&build.pinned),
            ending: match &build.ending {
                Ending::Built { outputs } => EndingValue::Built { outputs: outputs.to_hex() },
                Ending::Failed { how } => EndingValue::Failed { how: how.clone() },
            },
            started_ms: build.started_ms,
            duration_ms: build.duration_ms,
        }
    }

    fn read(self) -> Result<Build, WireError> {
        Ok(Build {
            varied: dimensions(&self.varied)?,
            pinned: dimensions(&self.pinned)?,
            ending: match self.ending {
                EndingValue::Built { outputs } => Ending::Built { outputs: digest(&outputs)? },
                EndingValue::Failed { how } => Ending::Failed { how },
            },
            started_ms: self.started_ms,
            duration_ms: self.duration_ms,
        })
    }
}

impl VariedValue {
    fn of(varied: &Varied) -> Self {
        Self {
            dimension: varied.dimension.word().to_owned(),
            effect: match varied.effect.clone() {
                Effect::Effective { first, second } => EffectValue::Effective { first, second },
                Effect::None { why } => EffectValue::None { why },
            },
            outcome: match varied.outcome.clone() {
                Outcome::NotTested => OutcomeValue::NotTested {},
                Outcome::Same => OutcomeValue::Same {},
                Outcome::Differs => OutcomeValue::Differs {},
                Outcome::Fails { how } => OutcomeValue::Fails { how },
                Outcome::Unknown { why } => OutcomeValue::Unknown { why },
            },
        }
    }

    fn read(self) -> Result<Varied, WireError> {
        Ok(Varied {
            dimension: dimension(&self.dimension)?,
            effect: match self.effect {
                EffectValue::Effective { first, second } => Effect::Effective { first, second },
                EffectValue::None { why } => Effect::None { why },
            },
            outcome: match self.outcome {
                OutcomeValue::NotTested {} => Outcome::NotTested,
                OutcomeValue::Same {} => Outcome::Same,
                OutcomeValue::Differs {} => Outcome::Differs,
                OutcomeValue::Fails { how } => Outcome::Fails { how },
                OutcomeValue::Unknown { why } => Outcome::Unknown { why },
            },
        })
    }
}

impl DifferenceValue {
    fn of(difference: &Difference) -> Self {
        let Cause { id, title, remedy } = difference.cause;
        Self {
            site: SiteValue::of(&difference.site),
            what: difference.what.clone(),
            cause: CauseValue { id: (*id).to_owned(), title: (*title).to_owned(), remedy: (*remedy).to_owned() },
            certainty: match difference.certainty {
                Certainty::Suspected => CertaintyWord::Suspected,
                Certainty::Proven => CertaintyWord::Proven,
            },
            dimension: difference.dimension.map(|one| one.word().to_owned()),
            evidence: difference.evidence.as_ref().map(EvidenceValue::of),
            consequence_of: difference.consequence_of.as_ref().map(SiteValue::of),
            between: difference.between.into(),
        }
    }

    fn read(self, builds: usize) -> Result<Difference, WireError> {
        let (a, b) = self.between.into();
        if a >= builds || b >= builds {
            return Err(wrong(format!("a difference is between builds {a} and {b}; there are {builds}")));
        }
        Ok(Difference {
            site: self.site.read(),
            what: self.what,
            cause: cause_of(&self.cause.id),
            certainty: match self.certainty {
                CertaintyWord::Suspected => Certainty::Suspected,
                CertaintyWord::Proven => Certainty::Proven,
            },
            dimension: self.dimension.as_deref().map(dimension).transpose()?,
            evidence: self.evidence.map(EvidenceValue::read).transpose()?,
            consequence_of: self.consequence_of.map(SiteValue::read),
            between: (a, b),
        })
    }
}

impl SiteValue {
    fn of(site: &Site) -> Self {
        Self { file: site.file.clone(), members: site.members.clone() }
    }

    fn read(self) -> Site {
        Site { file: self.file, members: self.members }
    }
}

impl EvidenceValue {
    fn of(evidence: &Evidence) -> Self {
        Self { offset: evidence.offset, a: BytesValue::of(&evidence.a), b: BytesValue::of(&evidence.b) }
    }

    fn read(self) -> Result<Evidence, WireError> {
        Ok(Evidence { offset: self.offset, a: self.a.read()?, b: self.b.read()? })
    }
}

impl BytesValue {
    fn of(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control));
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { hex, text: text.map(str::to_owned) }
    }

    /// The bytes of the digits; what the text says is not asked.
    fn read(self) -> Result<Vec<u8>, WireError> {
        let digits = self.hex.as_bytes();
        let is_hex = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex || !digits.len().is_multiple_of(2) || digits.len() > 2 * EVIDENCE_BYTES_MAX {
            return Err(wrong(format!("evidence is no hexadecimal digits of {EVIDENCE_BYTES_MAX} bytes at most")));
        }
        let value = |digit: u8| if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 };
        Ok(digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::sample::{HOSTILE, audit};

    /// The sample with the causes that survive being read back.
    fn known() -> Audit {
        let mut audit = audit();
        for difference in audit.tasks.iter_mut().flat_map(|task| &mut task.differences) {
            difference.cause = &UNKNOWN;
        }
        audit
    }

    #[test]
    fn what_is_written_is_as_the_schema_says() {
        let schema = audit_schema();
        assert!(jsonschema::draft202012::meta::is_valid(&schema));
        let value: serde_json::Value = serde_json::from_str(&to_json(&audit())).expect("JSON");
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new());
        let mut less = value;
        less.as_object_mut().expect("an object").remove("machine");
        assert!(!validator.is_valid(&less));
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let audit = known();
        assert_eq!(from_json(to_json(&audit).as_bytes()), Ok(audit));
    }

    #[test]
    fn a_cause_that_is_not_known_here_is_an_unknown_one() {
        assert!(to_json(&audit()).contains("sample.<script>"), "{}", HOSTILE.id);
        assert_eq!(from_json(to_json(&audit()).as_bytes()), Ok(known()));
    }

    #[test]
    fn bytes_are_told_as_text_where_they_are_some() {
        let value: serde_json::Value = serde_json::from_str(&to_json(&audit())).expect("JSON");
        let evidence = |at: usize| value["tasks"][0]["differences"][at]["evidence"].clone();
        assert_eq!(evidence(0)["a"]["text"], "/workspace/src/main.c");
        assert_eq!(evidence(1)["a"], serde_json::json!({ "hex": "ff00611b", "text": null }));
        assert_eq!(evidence(2), serde_json::Value::Null);
    }

    #[test]
    fn what_is_no_report_of_an_audit_is_refused() {
        let good = to_json(&audit());
        let check = |from: &str, to: &str, expect: &str| {
            assert!(good.contains(from), "{from}");
            let told = from_json(good.replacen(from, to, 1).as_bytes()).expect_err(expect).to_string();
            assert!(told.contains(expect), "{expect}: {told}");
        };
        check("{", "[", "expected");
        check("\"format\": 1", "\"format\": 2", "its format is 2");
        check("\"format\": 1", "\"format\": 1, \"more\": 1", "unknown field");
        check("0123456789abcdef", "0123456789abcdeF", "no number of an audit");
        check("\"verdict\": \"different\"", "\"verdict\": \"identical\"", "not the worst");
        check("\"build-path\"", "\"build-place\"", "no dimension");
        check("\"action\": \"", "\"action\": \"0", "no digest");
        check("//libs/a:zip", "//libs/a:a", "in the order of their labels");
        check("ff00611b", "ff00611", "evidence");
        check("ff00611b", "FF00611b", "evidence");
        check("ff00611b", &"00".repeat(EVIDENCE_BYTES_MAX + 1), "evidence");
        check("\"between\": [\n            0,", "\"between\": [\n            99,", "between builds 99 and 2");
        check("zip-times", &"z".repeat(NORMALIZER_BYTES_MAX + 1), "normalizers");
        let deep = "[".repeat(100_000);
        assert!(from_json(deep.as_bytes()).is_err());
    }
}
