//! In-toto statements v1: which things something is said of, and what. Knows no signature.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attest::error::AttestError;
use crate::attest::model::ImageFacts;
use crate::attest::names::without_tag;
use crate::image::BlobDigest;

/// The type of a statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// The type of what an envelope holds when it holds a statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Most subjects one statement may have.
pub const SUBJECTS_MAX: usize = 4096;

/// A statement. What it says is written as `P` is, or kept as it was read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement<P> {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// Of what something is said.
    pub subject: Vec<Subject>,
    /// What kind of thing is said.
    pub predicate_type: String,
    /// What is said.
    pub predicate: P,
}

/// Something of which something is said.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its digests: hexadecimal digits by algorithm.
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// A subject with the digest of a blob.
    pub fn new(name: &str, digest: &BlobDigest) -> Self {
        Self { name: name.to_owned(), digest: digest_set(digest) }
    }

    /// Whether it is the blob with a digest.
    pub fn is(&self, digest: &BlobDigest) -> bool {
        digest_set(digest).iter().all(|(algorithm, hex)| self.digest.get(algorithm) == Some(hex))
    }
}

/// A digest as in-toto has it.
pub(super) fn digest_set(digest: &BlobDigest) -> BTreeMap<String, String> {
    let text = digest.to_string();
    let (algorithm, hex) = text.split_once(':').expect("a digest has its algorithm before a colon");
    BTreeMap::from([(algorithm.to_owned(), hex.to_owned())])
}

/// An image and those for each platform in it, as subjects: what is pulled first, the others in the order of their platforms.
pub fn subjects(facts: &ImageFacts) -> Vec<Subject> {
    let name = without_tag(&facts.name);
    let mut subjects = vec![Subject::new(name, &facts.digest)];
    for one in facts.sorted_platforms() {
        let subject = Subject::new(name, &one.manifest);
        if !subjects.contains(&subject) {
            subjects.push(subject);
        }
    }
    subjects
}

impl<P: Serialize> Statement<P> {
    /// A statement about an image.
    pub fn about(facts: &ImageFacts, predicate_type: &str, predicate: P) -> Self {
        let (kind, predicate_type) = (STATEMENT_TYPE.to_owned(), predicate_type.to_owned());
        Self { kind, subject: subjects(facts), predicate_type, predicate }
    }

    /// Its bytes.
    pub fn write(&self) -> Vec<u8> {
        crate::image::wire::write(self)
    }
}

impl Statement<serde_json::Value> {
    /// Reads a statement whose signature was verified.
    pub fn read(bytes: &[u8]) -> Result<Self, AttestError> {
        let malformed = |cause: String| AttestError::Malformed { what: "statement", cause };
        let statement: Self = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if statement.kind != STATEMENT_TYPE {
            return Err(malformed(format!("its type is `{}`", statement.kind.escape_debug())));
        }
        if statement.subject.is_empty() || statement.subject.len() > SUBJECTS_MAX {
            return Err(malformed(format!(
                "it has {} subjects; 1 to {SUBJECTS_MAX} are known",
                statement.subject.len()
            )));
        }
        if statement.subject.iter().any(|subject| subject.digest.is_empty()) {
            return Err(malformed("a subject of it has no digest".into()));
        }
        Ok(statement)
    }
}
