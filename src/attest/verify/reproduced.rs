//! Whether enough independent builders came to the same: their signed results, held against what is to be released. Builds nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::attest::bundle::{BUNDLE_TYPE, Bundle, names};
use crate::attest::keys::PublicKey;
use crate::attest::statement::{PAYLOAD_TYPE, Statement};
use crate::attest::verify::check::Attestation;
use crate::attest::verify::report::Report;
use crate::image::BlobDigest;

/// What a rebuilder says: the results of its builds.
pub const RESULTS_PREDICATE: &str = "https://drystone.dev/audit/results/v1";

const ENOUGH: &str = "enough independent builders came to it";
const ALONE: &str = "no listed builder came to something else";
const SIGNED: &str = "a listed builder signed it";

/// Most tasks of one statement that are looked at.
const TASKS_MAX: usize = 100_000;

/// What is to be released.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Released {
    /// An image.
    Image(BlobDigest),
    /// Actions with their outputs, by label; all of them.
    Results(Vec<(String, Outcome)>),
}

/// An action and what it came to, in hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Outcome {
    /// The action.
    pub action: String,
    /// Tree of its outputs.
    pub outputs: String,
}

/// How many of whom.
#[derive(Clone, Copy, Debug)]
pub struct Quorum<'a> {
    /// How many distinct keys must have signed.
    pub count: usize,
    /// The keys of the builders.
    pub keys: &'a [PublicKey],
    /// Statements of other types in which builders say what they came to.
    pub forms: &'a [Form],
}

/// A type of statements besides [`RESULTS_PREDICATE`], and what reads what they claim.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Type of the predicate.
    pub predicate_type: &'static str,
    /// Reads a statement of that type; the cause if it is none.
    pub read: fn(&[u8]) -> Result<Vec<Claim>, String>,
}

/// What a builder says of one task.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Claim {
    /// Its label.
    pub label: String,
    /// The action, in hexadecimal digits.
    pub action: String,
    /// What it came to, in hexadecimal digits.
    #[serde(default)]
    pub outputs: Option<String>,
    /// Digests of the images in it.
    #[serde(default)]
    pub images: Vec<String>,
    /// Whether it came to something else as well: that is for nobody, and against everybody.
    #[serde(skip)]
    pub is_unstable: bool,
}

/// A statement as far as it is read.
#[derive(Deserialize)]
struct Told {
    format: u64,
    tasks: Vec<Claim>,
}

/// What a listed builder said.
struct Said {
    /// Name of the attestation.
    name: String,
    /// Id of the key that signed it.
    key: String,
    tasks: Vec<Claim>,
}

/// Whether an attestation is for [`require_reproduced`] to judge: a listed key signed results in it, or it is broken. For sorting alone.
pub fn is_of_rebuilder(one: &Attestation, keys: &[PublicKey], forms: &[Form]) -> bool {
    let is_known = |kind: &str| kind == RESULTS_PREDICATE || forms.iter().any(|form| form.predicate_type == kind);
    opened(one, keys).map_or(true, |found| found.is_some_and(|(said, _)| is_known(&said.statement.predicate_type)))
}

/// Requires that enough distinct keys signed that the same action came to the same outputs, and that no listed key signed another outcome
/// of that action. Two signatures of one key are one voice; what a key signed twice, and differently, is against it.
pub fn require_reproduced(released: &Released, attestations: &[Attestation], quorum: Quorum<'_>, report: &mut Report) {
    let mut said = Vec::new();
    for one in attestations {
        let name = one.name.escape_debug().to_string();
        match read(one, quorum) {
            Ok(Some((key, tasks))) => {
                report.held(name.clone(), SIGNED);
                said.push(Said { name, key, tasks });
            }
            Ok(None) => report.not_checked(name, SIGNED, "no listed key signed results in it"),
            Err(cause) => report.failed(name, SIGNED, cause),
        }
    }
    match released {
        Released::Image(digest) => image(&digest.to_string(), &said, quorum.count, report),
        Released::Results(all) if all.is_empty() => report.failed("results", ENOUGH, "there are none"),
        Released::Results(all) => {
            for (label, outcome) in all {
                decide(&label.escape_debug().to_string(), outcome, &said, quorum.count, report);
            }
        }
    }
}

/// An image is reproduced with the action that most builders made it by.
fn image(digest: &str, said: &[Said], count: usize, report: &mut Report) {
    let makes = |task: &&Claim| task.images.iter().any(|image| image == digest);
    let mut by_outcome: BTreeMap<Outcome, BTreeSet<&str>> = BTreeMap::new();
    for one in said {
        for task in one.tasks.iter().filter(makes) {
            if let Some(outputs) = task.outputs.as_ref().filter(|_| !task.is_unstable) {
                let outcome = Outcome { action: task.action.clone(), outputs: outputs.clone() };
                by_outcome.entry(outcome).or_default().insert(&one.key);
            }
        }
    }
    // Of several that have as many, the first: which it is decides nothing but what is told.
    let best = by_outcome.iter().max_by_key(|(outcome, keys)| (keys.len(), std::cmp::Reverse(*outcome)));
    match best {
        Some((outcome, _)) => decide(digest, outcome, said, count, report),
        None => report.failed(digest, ENOUGH, format!("none of {count} signed that it came to it")),
    }
    // Whoever made it by another action is no witness of this one, and whoever came to another image by one of these is against it.
    for outcome in by_outcome.keys().filter(|one| best.is_none_or(|(best, _)| best != *one)) {
        conflicts(digest, outcome, said, report);
    }
}

fn decide(subject: &str, outcome: &Outcome, said: &[Said], count: usize, report: &mut Report) {
    let agrees = |one: &&Said| one.tasks.iter().any(|task| task.is(outcome));
    let keys: BTreeSet<&str> = said.iter().filter(agrees).map(|one| one.key.as_str()).collect();
    let found = keys.len();
    let enough = if found >= count {
        report.signed_by.extend(keys.iter().map(|key| (*key).to_owned()));
        Ok(())
    } else {
        Err(format!("{count} distinct keys are required, and {found} signed it"))
    };
    report.settle(subject, ENOUGH, enough);
    conflicts(subject, outcome, said, report);
}

fn conflicts(subject: &str, outcome: &Outcome, said: &[Said], report: &mut Report) {
    let mut are_any = false;
    for one in said {
        let is_other = |outputs: &String| *outputs != outcome.outputs;
        let differs = |task: &&Claim| {
            task.action == outcome.action && (task.is_unstable || task.outputs.as_ref().is_some_and(is_other))
        };
        if let Some(task) = one.tasks.iter().find(differs) {
            are_any = true;
            let outputs = task.outputs.as_deref().unwrap_or_default();
            let what = if task.is_unstable { "more than one outcome" } else { outputs };
            let cause = format!("`{}`, signed by {}, has {what} of `{}`", one.name, one.key, task.label);
            report.failed(subject, ALONE, cause);
        }
    }
    if !are_any {
        report.held(subject, ALONE);
    }
}

impl Claim {
    fn is(&self, outcome: &Outcome) -> bool {
        !self.is_unstable && self.action == outcome.action && self.outputs.as_ref() == Some(&outcome.outputs)
    }
}

/// A statement, and its bytes.
struct Opened {
    statement: Statement<serde_json::Value>,
    bytes: Vec<u8>,
}

/// Opens an attestation that one of the keys signed; with the id of the key.
fn opened(one: &Attestation, keys: &[PublicKey]) -> Result<Option<(Opened, String)>, String> {
    if one.artifact_type != BUNDLE_TYPE {
        return Ok(None);
    }
    let bundle = Bundle::read(&one.document).map_err(|error| error.to_string())?;
    let Some(hint) = &bundle.hint else { return Ok(None) };
    let Some(verified) = bundle.envelope.verified(keys).map_err(|error| error.to_string())? else {
        let claims = keys.iter().any(|key| !hint.is_empty() && names(hint, key));
        return if claims { Err("it names a listed key, whose signature it is not".into()) } else { Ok(None) };
    };
    if bundle.envelope.payload_type != PAYLOAD_TYPE {
        return Err(format!("what is signed is `{}`, no statement", bundle.envelope.payload_type.escape_debug()));
    }
    if !names(hint, verified.key) || !names(&verified.signature.keyid, verified.key) {
        return Err("it names another key than the one that signed it".into());
    }
    let statement = Statement::read(&verified.payload).map_err(|error| error.to_string())?;
    let key = verified.key.id();
    Ok(Some((Opened { statement, bytes: verified.payload }, key)))
}

fn read(one: &Attestation, quorum: Quorum<'_>) -> Result<Option<(String, Vec<Claim>)>, String> {
    let Some((Opened { statement, bytes }, key)) = opened(one, quorum.keys)? else { return Ok(None) };
    if let Some(form) = quorum.forms.iter().find(|form| form.predicate_type == statement.predicate_type) {
        let claims = (form.read)(&bytes)?;
        if claims.len() > TASKS_MAX {
            return Err(format!("it has more than {TASKS_MAX} tasks"));
        }
        return Ok(Some((key, claims)));
    }
    if statement.predicate_type != RESULTS_PREDICATE {
        return Ok(None);
    }
    let told = Told::deserialize(&statement.predicate).map_err(|error| error.to_string())?;
    if told.format != 1 || told.tasks.len() > TASKS_MAX {
        return Err(format!("its format is {}, or it has more than {TASKS_MAX} tasks", told.format));
    }
    Ok(Some((key, told.tasks)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::attest::keys::{Algorithm, SigningKey};
    use crate::attest::statement::STATEMENT_TYPE;

    fn image_digest() -> BlobDigest {
        BlobDigest::of(b"image")
    }

    fn signed(name: &str, key: &SigningKey, action: &str, outputs: &str, image: &BlobDigest) -> Attestation {
        let statement = json!({
            "_type": STATEMENT_TYPE,
            "subject": [{"name": "//:image", "digest": {"sha256": image.to_string().split(':').nth(1)}}],
            "predicateType": RESULTS_PREDICATE,
            "predicate": {"format": 1, "tasks": [
                {"label": "//:image", "action": action, "outputs": outputs, "images": [image.to_string()]},
                {"label": "//:failed", "action": "f"},
            ]},
        });
        let bundle = Bundle::sign(&serde_json::to_vec(&statement).expect("JSON"), key).expect("a bundle");
        Attestation { name: name.into(), artifact_type: BUNDLE_TYPE.into(), document: bundle.write() }
    }

    fn key() -> SigningKey {
        SigningKey::generate(Algorithm::Ed25519).expect("a key")
    }

    /// Whether two of the keys reproduced the image, and all that failed.
    fn check(attestations: &[Attestation], keys: &[&SigningKey], expect: &[&str]) {
        let keys: Vec<PublicKey> = keys.iter().map(|key| key.public().clone()).collect();
        let outcome = Outcome { action: "a".into(), outputs: "o".into() };
        for released in [Released::Image(image_digest()), Released::Results(vec![("//:image".into(), outcome)])] {
            let mut report = Report::default();
            require_reproduced(&released, attestations, Quorum { count: 2, keys: &keys, forms: &[] }, &mut report);
            let told: Vec<String> = report.checks.iter().map(ToString::to_string).collect();
            assert_eq!(report.holds(), expect.is_empty(), "{told:#?}");
            for cause in expect {
                assert!(
                    told.iter().any(|line| line.starts_with("FAILED") && line.contains(cause)),
                    "{cause}: {told:#?}"
                );
            }
        }
    }

    #[test]
    fn voices_are_keys_and_not_signatures() {
        let (a, b, c) = (key(), key(), key());
        let image = image_digest();
        let of = |name: &str, key: &SigningKey| signed(name, key, "a", "o", &image);
        check(&[of("1", &a), of("2", &b)], &[&a, &b], &[]);
        check(&[of("1", &a), of("2", &b), of("3", &c)], &[&a, &b], &[]);
        check(&[of("1", &a), of("2", &a)], &[&a, &b], &["2 distinct keys are required, and 1 signed it"]);
        // The key of somebody who is not listed counts for nothing, and is against nothing.
        check(&[of("1", &a), of("2", &c)], &[&a, &b], &["1 signed it"]);
        check(&[of("1", &a), of("2", &b), signed("3", &c, "a", "other", &image)], &[&a, &b], &[]);
        check(&[], &[&a, &b], &["signed"]);
        // A key that is listed twice is one.
        check(&[of("1", &a)], &[&a, &a], &["1 signed it"]);
    }

    #[test]
    fn one_conflicting_voice_is_told_and_fails() {
        let (a, b, c) = (key(), key(), key());
        let (image, other) = (image_digest(), BlobDigest::of(b"other"));
        let of = |name: &str, key: &SigningKey| signed(name, key, "a", "o", &image);
        let against = signed("against", &c, "a", "other", &other);
        check(&[of("1", &a), of("2", &b), against], &[&a, &b, &c], &["`against`", "came to something else"]);
        // Of a key that says both, neither counts for more.
        let both = signed("both", &a, "a", "other", &other);
        check(&[of("1", &a), of("2", &b), both], &[&a, &b], &["`both`"]);
        // Another action is another question.
        let elsewhere = signed("elsewhere", &c, "b", "other", &other);
        check(&[of("1", &a), of("2", &b), elsewhere], &[&a, &b, &c], &[]);
    }

    #[test]
    fn what_was_tampered_with_is_no_voice() {
        let (a, b) = (key(), key());
        let image = image_digest();
        let good = signed("1", &a, "a", "o", &image);
        let text = String::from_utf8(signed("2", &b, "a", "o", &image).document).expect("JSON");
        let (from, to) = text.split_once("\"payload\":\"").expect("a payload");
        let changed = format!("{from}\"payload\":\"{}", to.replacen('e', "f", 1));
        let tampered = Attestation { document: changed.into_bytes(), ..good.clone() };
        check(&[good.clone(), tampered], &[&a, &b], &["1 signed it"]);
        let cut = Attestation { document: good.document[..50].to_vec(), ..good.clone() };
        check(&[good, cut], &[&a, &b], &["a listed builder signed it", "1 signed it"]);
    }
}
