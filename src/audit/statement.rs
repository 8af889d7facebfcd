//! What an audit found, as in-toto statements: our own predicate, and SCAI v0.3 for what was reproduced. Signs nothing.
//!
//! Subjects are the output trees of the audited tasks, whose digest in-toto has no name for: they are called `drystoneTree`, as in
//! provenance. Images of the same tasks can be subjects beside them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::attest::provenance::LOCAL_BUILDER;
use crate::attest::statement::{STATEMENT_TYPE, SUBJECTS_MAX, Statement, Subject};
use crate::attest::verify::Claim;
use crate::attest::{AttestError, rfc3339};
use crate::audit::model::{Audit, Effect, Ending, Outcome, TaskAudit, Varied, Verdict};
use crate::base::digest::Digest;
use crate::sandbox::surroundings::Dimension;

/// The type of the predicate. Another meaning gets another number.
pub const REPRODUCTION_PREDICATE: &str = "https://drystone.dev/reproduction/v1";

/// The type of the predicate of [`scai`].
pub const SCAI_PREDICATE: &str = "https://in-toto.io/attestation/scai/v0.3";

/// How the digest of a tree of outputs is called in a set of digests.
pub const TREE_ALGORITHM: &str = "drystoneTree";

/// Largest statement read, in bytes.
pub const STATEMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What an audit found, as it is signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reproduction {
    /// Number of the audit.
    pub audit_id: String,
    /// Version of the program.
    pub version: String,
    /// Who rebuilt.
    pub builder: Builder,
    /// Where.
    pub machine: MachineFacts,
    /// When it began, as RFC 3339 has it.
    pub started_on: String,
    /// When it ended.
    pub finished_on: String,
    /// The tasks, in the order of their labels.
    pub tasks: Vec<Reproduced>,
}

/// Who rebuilt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// A URI; [`LOCAL_BUILDER`] for a machine of which nothing is claimed.
    pub id: String,
}

impl Default for Builder {
    fn default() -> Self {
        Self { id: LOCAL_BUILDER.to_owned() }
    }
}

/// The machine of an audit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineFacts {
    /// What stands for the machine without naming it.
    pub id: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Architecture.
    pub architecture: String,
    /// Model of the processor.
    pub processor: String,
    /// How many processors there are.
    pub cpus: u32,
    /// Name of the distribution with its version.
    pub system: String,
    /// Kind of the file system of the store.
    pub file_system: String,
}

/// What was found of one task.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reproduced {
    /// Its label.
    pub label: String,
    /// Key of its action, 64 hexadecimal digits.
    pub action: String,
    /// Tree digest of its recorded outputs; `None` where there are none.
    pub outputs: Option<String>,
    /// A word of [`Verdict`].
    pub verdict: String,
    /// How much it withstood; `None` if nothing can be said, or it is not the same bytes.
    pub grade: Option<Grade>,
    /// Every dimension.
    pub variations: Vec<Variation>,
    /// Names of the causes of what differs, each once, sorted. Consequences have none.
    pub causes: Vec<String>,
}

/// How much a task withstood with all bytes the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Rebuilt as it was built. Elsewhere called A.
    Plain,
    /// Also with other surroundings, at the same path: whatever could be varied besides the path was, and nothing differed (B).
    Varied,
    /// Also at another path (C).
    Path,
}

/// One dimension.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variation {
    /// Its word.
    pub dimension: String,
    /// `same`, `differs`, `fails`, `unknown` or `not-tested`.
    pub outcome: String,
    /// Whether it took hold in the sandbox. Without that nothing was tested.
    pub effective: bool,
}

/// The statement of what an audit found. Subjects are the recorded outputs of its tasks, then those that the caller gives: the digests of
/// images, by the tasks that make them. Refused if there is no subject at all, or more than [`SUBJECTS_MAX`].
pub fn reproduction(
    audit: &Audit,
    builder: &str,
    subjects: &[Subject],
) -> Result<Statement<Reproduction>, AttestError> {
    let machine = &audit.machine;
    let predicate = Reproduction {
        audit_id: audit.id.clone(),
        version: audit.version.clone(),
        builder: Builder { id: builder.to_owned() },
        machine: MachineFacts {
            id: machine.id.clone(),
            kernel: machine.kernel.clone(),
            architecture: machine.architecture.clone(),
            processor: machine.processor.clone(),
            cpus: machine.cpus,
            system: machine.system.clone(),
            file_system: machine.file_system.clone(),
        },
        started_on: date(audit.started_ms),
        finished_on: date(audit.started_ms.saturating_add_unsigned(audit.duration_ms)),
        tasks: audit.tasks.iter().map(reproduced).collect(),
    };
    statement(audit.tasks.iter(), subjects, REPRODUCTION_PREDICATE, predicate)
}

fn date(milliseconds: i64) -> String {
    rfc3339(u64::try_from(milliseconds / 1000).unwrap_or(0))
}

fn statement<'a, P: Serialize>(
    tasks: impl Iterator<Item = &'a TaskAudit>,
    more: &[Subject],
    predicate_type: &str,
    predicate: P,
) -> Result<Statement<P>, AttestError> {
    let mut subject: Vec<_> = tasks.filter_map(|task| Some(subject(&task.label, task.outputs?))).collect();
    let mut more = more.to_vec();
    more.sort();
    more.dedup();
    subject.extend(more);
    if subject.is_empty() || subject.len() > SUBJECTS_MAX {
        return Err(malformed(format!("it has {} subjects; 1 to {SUBJECTS_MAX} can be told", subject.len())));
    }
    Ok(Statement { kind: STATEMENT_TYPE.to_owned(), subject, predicate_type: predicate_type.to_owned(), predicate })
}

/// The recorded outputs of a task as a subject.
pub fn subject(label: &str, outputs: Digest) -> Subject {
    let digest = BTreeMap::from([(TREE_ALGORITHM.to_owned(), outputs.to_hex())]);
    Subject { name: label.to_owned(), digest }
}

fn reproduced(task: &TaskAudit) -> Reproduced {
    let causes = task.differences.iter().filter(|one| one.consequence_of.is_none());
    let causes: BTreeSet<_> = causes.map(|one| one.cause.id.to_owned()).collect();
    Reproduced {
        label: task.label.clone(),
        action: task.action.to_hex(),
        outputs: task.outputs.map(|digest| digest.to_hex()),
        verdict: task.verdict.word().to_owned(),
        grade: grade(task),
        variations: task.varied.iter().map(variation).collect(),
        causes: causes.into_iter().collect(),
    }
}

fn variation(varied: &Varied) -> Variation {
    let effective = matches!(varied.effect, Effect::Effective { .. });
    let outcome = match varied.outcome {
        // That nothing differed says nothing where it took no hold.
        Outcome::Same | Outcome::Unknown { .. } if !effective => "not-tested",
        Outcome::NotTested => "not-tested",
        Outcome::Same => "same",
        Outcome::Differs => "differs",
        Outcome::Fails { .. } => "fails",
        Outcome::Unknown { .. } => "unknown",
    };
    Variation { dimension: varied.dimension.word().to_owned(), outcome: outcome.to_owned(), effective }
}

/// Whether two builds of a task at least ended, none failed, and all have the recorded bytes.
fn is_rebuilt(task: &TaskAudit) -> bool {
    let same = |ending: &Ending| match ending {
        Ending::Built { outputs } => Some(*outputs) == task.outputs,
        Ending::Failed { how: _ } => false,
    };
    task.builds.len() > 1 && task.builds.iter().all(|build| same(&build.ending))
}

/// How much a task withstood. Nothing is taken from the verdict alone: builds must be there that show it.
fn grade(task: &TaskAudit) -> Option<Grade> {
    if task.verdict != Verdict::Identical || task.is_unstable || !is_rebuilt(task) {
        return None;
    }
    let is_held = |one: &Varied| matches!((&one.effect, &one.outcome), (Effect::Effective { .. }, Outcome::Same));
    let is_untested = |one: &Varied| variation(one).outcome == "not-tested";
    let (path, others): (Vec<_>, Vec<_>) = task.varied.iter().partition(|one| one.dimension == Dimension::BuildPath);
    // What cannot be varied here lowers no grade, and what can must have held.
    let varied = others.iter().any(|one| is_held(one)) && others.iter().all(|one| is_held(one) || is_untested(one));
    Some(match (varied, path.iter().any(|one| is_held(one))) {
        (true, true) => Grade::Path,
        (true, false) => Grade::Varied,
        (false, _) => Grade::Plain,
    })
}

/// SCAI v0.3 of the tasks that are identical under all variations that took hold. `evidence` are the bytes of the statement of
/// [`reproduction`], by whose SHA-256 it is pointed to. `None` if there is no such task.
pub fn scai(audit: &Audit, builder: &str, evidence: &[u8]) -> Option<Statement<Scai>> {
    let held = |task: &&TaskAudit| grade(task).is_some_and(|grade| grade != Grade::Plain);
    let tasks: Vec<_> = audit.tasks.iter().filter(held).collect();
    let digest = Subject::new("", &crate::image::BlobDigest::of(evidence)).digest;
    let predicate = Scai {
        attributes: tasks.iter().filter_map(|task| attribute(task, audit, &digest)).collect(),
        producer: Named { uri: builder.to_owned() },
    };
    statement(tasks.into_iter(), &[], SCAI_PREDICATE, predicate).ok()
}

fn attribute(task: &TaskAudit, audit: &Audit, evidence: &BTreeMap<String, String>) -> Option<Attribute> {
    let words = |want: &str| -> Vec<String> {
        let told = task.varied.iter().map(variation).filter(|one| one.outcome == want);
        told.map(|one| one.dimension).collect()
    };
    let (same, untested) = (words("same"), words("not-tested"));
    Some(Attribute {
        attribute: "REPRODUCIBLE",
        target: subject(&task.label, task.outputs?),
        conditions: BTreeMap::from([("varied", same), ("notTested", untested)]),
        evidence: EvidenceOf {
            name: format!("audit {}", audit.id),
            digest: evidence.clone(),
            media_type: crate::attest::statement::PAYLOAD_TYPE,
        },
    })
}

/// The predicate of SCAI v0.3 (in-toto attestation framework, `spec/predicates/scai.md`), as much of it as is said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Scai {
    attributes: Vec<Attribute>,
    producer: Named,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Attribute {
    attribute: &'static str,
    target: Subject,
    conditions: BTreeMap<&'static str, Vec<String>>,
    evidence: EvidenceOf,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EvidenceOf {
    name: String,
    digest: BTreeMap<String, String>,
    media_type: &'static str,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Named {
    uri: String,
}

fn malformed(cause: impl Into<String>) -> AttestError {
    AttestError::Malformed { what: "statement of a reproduction", cause: cause.into() }
}

/// Reads the statement of [`reproduction`], whose signature was verified: its subjects and what it says. Anything not known is
/// refused, and so is what contradicts itself: outputs of a task that are no subject, a grade for what is not identical.
pub fn read(bytes: &[u8]) -> Result<Statement<Reproduction>, AttestError> {
    if bytes.len() > STATEMENT_BYTES_MAX {
        return Err(malformed(format!("it has {} bytes; {STATEMENT_BYTES_MAX} at most are read", bytes.len())));
    }
    let Statement { kind, subject, predicate_type, predicate } = Statement::<serde_json::Value>::read(bytes)?;
    if predicate_type != REPRODUCTION_PREDICATE {
        return Err(malformed(format!("it says something of the type `{}`", predicate_type.escape_debug())));
    }
    let predicate: Reproduction = serde_json::from_value(predicate).map_err(|error| malformed(error.to_string()))?;
    if !predicate.tasks.is_sorted_by(|one, next| one.label < next.label) {
        return Err(malformed("its tasks are not in the order of their labels, each once"));
    }
    let subjects: BTreeSet<_> = subject.iter().map(|one| (one.name.as_str(), one.digest.get(TREE_ALGORITHM))).collect();
    for task in &predicate.tasks {
        check(task).map_err(|wrong| malformed(format!("`{}` {wrong}", task.label.escape_debug())))?;
        if task.outputs.is_some() && !subjects.contains(&(task.label.as_str(), task.outputs.as_ref())) {
            return Err(malformed(format!("the outputs of `{}` are no subject of it", task.label.escape_debug())));
        }
    }
    Ok(Statement { kind, subject, predicate_type, predicate })
}

/// What a statement that [`read`] reads says that tasks came to, as a release is decided by: a task that came to the same bytes each time
/// is for it, one that did not is against it, and one of which it could not be found out is neither. Images are the subjects that have the
/// label of a task and a digest of sha256. The cause if it is no such statement.
pub fn claims(bytes: &[u8]) -> Result<Vec<Claim>, String> {
    let Statement { subject, predicate, .. } = read(bytes).map_err(|error| error.to_string())?;
    let mut images: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in &subject {
        if let Some(hex) = one.digest.get("sha256") {
            images.entry(one.name.as_str()).or_default().push(format!("sha256:{hex}"));
        }
    }
    let is_known = |task: &&Reproduced| task.grade.is_some() || changes(&task.verdict);
    let claim = |task: &Reproduced| Claim {
        label: task.label.clone(),
        action: task.action.clone(),
        outputs: task.outputs.clone(),
        images: images.get(task.label.as_str()).cloned().unwrap_or_default(),
        is_unstable: task.grade.is_none(),
    };
    Ok(predicate.tasks.iter().filter(is_known).map(claim).collect())
}

/// Whether a verdict says that there were other bytes.
fn changes(verdict: &str) -> bool {
    [Verdict::IdenticalUncompressed, Verdict::Equivalent, Verdict::Different].iter().any(|one| one.word() == verdict)
}

fn check(task: &Reproduced) -> Result<(), &'static str> {
    let is_digest = |text: &String| Digest::parse(text).is_some();
    if !is_digest(&task.action) || !task.outputs.as_ref().is_none_or(is_digest) {
        return Err("has something that is no digest");
    }
    const VERDICTS: [Verdict; 5] = [
        Verdict::Identical,
        Verdict::IdenticalUncompressed,
        Verdict::Equivalent,
        Verdict::Inconclusive,
        Verdict::Different,
    ];
    let identical = task.verdict == Verdict::Identical.word();
    if !VERDICTS.iter().any(|verdict| verdict.word() == task.verdict) {
        return Err("has no verdict that is known");
    }
    if task.grade.is_some() && (!identical || task.outputs.is_none()) {
        return Err("has a grade and is not identical");
    }
    const OUTCOMES: [&str; 5] = ["same", "differs", "fails", "unknown", "not-tested"];
    let mut seen = BTreeSet::new();
    for one in &task.variations {
        if Dimension::parse(&one.dimension).is_none() || !OUTCOMES.contains(&one.outcome.as_str()) {
            return Err("has a variation that is not known");
        }
        if !seen.insert(&one.dimension) || one.outcome == "same" && !one.effective {
            return Err("has a variation twice, or one that contradicts itself");
        }
        let held = one.outcome == "same" || one.outcome == "not-tested";
        let of_path = one.dimension == Dimension::BuildPath.word();
        let claimed = match task.grade {
            Some(Grade::Path) => true,
            Some(Grade::Varied) => !of_path,
            Some(Grade::Plain) | None => false,
        };
        if claimed && !held {
            return Err("has a grade that its variations do not bear");
        }
    }
    let path_held = |one: &Variation| one.dimension == Dimension::BuildPath.word() && one.outcome == "same";
    if task.grade == Some(Grade::Path) && !task.variations.iter().any(path_held) {
        return Err("has a grade that its variations do not bear");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::dsse::Envelope;
    use crate::attest::keys::{Algorithm, SigningKey};
    use crate::attest::statement::PAYLOAD_TYPE;
    use crate::audit::sample::{audit, digest};
    use crate::image::BlobDigest;

    fn written() -> Vec<u8> {
        let image = Subject::new("registry.example/acme/web", &BlobDigest::of(b"image"));
        reproduction(&audit(), "https://builder.example/1", &[image.clone(), image]).expect("a statement").write()
    }

    #[test]
    fn what_is_signed_is_read_back_as_it_was() {
        let key = SigningKey::generate(Algorithm::Ed25519).expect("a key");
        let envelope = Envelope::sign(PAYLOAD_TYPE, &written(), &key).expect("an envelope");
        let keys = [key.public().clone()];
        let verified = envelope.verified(&keys).expect("it can be read").expect("it was signed");
        let statement = read(&verified.payload).expect("a statement");
        assert_eq!(statement.write(), written());
        assert_eq!(statement.predicate.builder.id, "https://builder.example/1");
        // Four tasks with outputs, and the image once.
        assert_eq!(statement.subject.len(), 5);
        assert_eq!(statement.subject[1], subject("//libs/a:build", digest("outputs of //libs/a:build")));
        assert_eq!(statement.predicate.started_on, "2026-05-28T20:26:40Z");
        assert_eq!(statement.predicate.finished_on, "2026-05-28T20:27:45Z");
        let told: Vec<_> = statement.predicate.tasks.iter().map(|task| (task.verdict.as_str(), task.grade)).collect();
        let expect = [
            ("different", None),
            ("identical", Some(Grade::Path)),
            ("identical-uncompressed", None),
            ("equivalent", None),
            ("inconclusive", None),
        ];
        assert_eq!(told, expect);
        assert_eq!(statement.predicate.tasks[0].causes, ["sample.<script>", "unknown"]);
    }

    #[test]
    fn a_grade_is_what_builds_and_variations_bear() {
        let check = |change: &dyn Fn(&mut TaskAudit), expect: Option<Grade>| {
            let mut task = audit().tasks.remove(1);
            change(&mut task);
            assert_eq!(grade(&task), expect);
        };
        let set = |task: &mut TaskAudit, dimension: Dimension, outcome: Outcome| {
            let varied =
                task.varied.iter_mut().find(|one| one.dimension == dimension).expect("every dimension is there");
            if outcome == Outcome::NotTested {
                varied.effect = Effect::None { why: "it is so".into() };
            }
            varied.outcome = outcome;
        };
        check(&|_| (), Some(Grade::Path));
        check(&|task| set(task, Dimension::BuildPath, Outcome::NotTested), Some(Grade::Varied));
        check(&|task| set(task, Dimension::User, Outcome::NotTested), Some(Grade::Path));
        check(&|task| set(task, Dimension::User, Outcome::Unknown { why: "no time".into() }), Some(Grade::Plain));
        let no_hold = |task: &mut TaskAudit| task.varied[0].effect = Effect::None { why: "it is so".into() };
        check(&no_hold, Some(Grade::Varied));
        check(&|task| task.varied.clear(), Some(Grade::Plain));
        check(
            &|task| Dimension::ALL.into_iter().for_each(|one| set(task, one, Outcome::NotTested)),
            Some(Grade::Plain),
        );
        check(&|task| task.is_unstable = true, None);
        check(&|task| task.verdict = Verdict::Equivalent, None);
        check(&|task| task.builds.truncate(1), None);
        check(&|task| task.builds[1].ending = Ending::Built { outputs: digest("other") }, None);
        check(&|task| task.builds[1].ending = Ending::Failed { how: "exit code 1".into() }, None);
    }

    #[test]
    fn what_is_no_statement_of_a_reproduction_is_refused() {
        let good = String::from_utf8(written()).expect("text");
        let check = |from: &str, to: &str, expect: &str| {
            assert!(good.contains(from), "{from}");
            let told = read(good.replacen(from, to, 1).as_bytes()).expect_err(expect).to_string();
            assert!(told.contains(expect), "{expect}: {told}");
        };
        let outputs = digest("outputs of //libs/a:build").to_hex();
        check("{", "", "statement");
        check("reproduction/v1", "reproduction/v2", "of the type");
        check("\"auditId\"", "\"more\":1,\"auditId\"", "unknown field");
        check(&outputs, &digest("x").to_hex(), "no subject");
        check(&format!("\"outputs\":\"{outputs}"), &format!("\"outputs\":\"{outputs}0"), "no digest");
        check("\"verdict\":\"different\",\"grade\":null", "\"verdict\":\"fine\",\"grade\":null", "verdict");
        check(
            "\"verdict\":\"different\",\"grade\":null",
            "\"verdict\":\"different\",\"grade\":\"path\"",
            "not identical",
        );
        check(
            "\"verdict\":\"different\",\"grade\":null",
            "\"verdict\":\"identical\",\"grade\":\"path\"",
            "do not bear",
        );
        check("\"dimension\":\"user\"", "\"dimension\":\"usher\"", "not known");
        check("\"dimension\":\"user\"", "\"dimension\":\"home\"", "twice");
        check("\"outcome\":\"same\",\"effective\":true", "\"outcome\":\"same\",\"effective\":false", "contradicts");
        check("//libs/a:zip\",\"action", "//libs/a:a\",\"action", "in the order of their labels");
    }

    #[test]
    fn what_a_release_is_decided_by_is_what_was_the_same_each_time_and_what_was_not() {
        let image = |name: &str| Subject::new(name, &BlobDigest::of(b"image"));
        let subjects = [image("//libs/a:build"), image("elsewhere")];
        let said = reproduction(&audit(), LOCAL_BUILDER, &subjects).expect("a statement").write();
        let claims = claims(&said).expect("they are read");
        // The inconclusive one says nothing.
        assert_eq!(claims.iter().map(|one| one.is_unstable).collect::<Vec<_>>(), [true, false, true, true]);
        assert_eq!((claims[1].label.as_str(), claims[1].images.len()), ("//libs/a:build", 1));
        assert_eq!(claims[1].images, [BlobDigest::of(b"image").to_string()]);
        assert_eq!(claims[1].outputs, Some(digest("outputs of //libs/a:build").to_hex()));
        assert!(claims.iter().all(|one| one.label == "//libs/a:build" || one.images.is_empty()));
        assert!(super::claims(b"{}").is_err());
    }

    #[test]
    fn an_audit_without_outputs_has_no_statement() {
        let mut audit = audit();
        audit.tasks.retain(|task| task.verdict == Verdict::Inconclusive);
        assert!(reproduction(&audit, LOCAL_BUILDER, &[]).is_err());
        assert_eq!(scai(&audit, LOCAL_BUILDER, b""), None);
    }

    #[test]
    fn reproducible_is_said_of_what_withstood_variation_alone() {
        let statement = scai(&audit(), LOCAL_BUILDER, &written()).expect("one task is");
        let value: serde_json::Value = serde_json::from_slice(&statement.write()).expect("JSON");
        assert_eq!(value["predicateType"], SCAI_PREDICATE);
        assert_eq!(value["subject"].as_array().map(Vec::len), Some(1));
        let attribute = &value["predicate"]["attributes"][0];
        assert_eq!(attribute["attribute"], "REPRODUCIBLE");
        assert_eq!(attribute["target"]["name"], "//libs/a:build");
        assert_eq!(attribute["conditions"]["notTested"], serde_json::json!(["kernel"]));
        assert_eq!(attribute["evidence"]["digest"]["sha256"], BlobDigest::of(&written()).hex());
    }
}
