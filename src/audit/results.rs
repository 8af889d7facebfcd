//! What one machine's builds came to, as a document that others compare theirs with. Builds nothing.
//!
//! Format 1 (`rebuild.json`): the tasks with their actions, outputs and files; of a fingerprint the digest of each field, which tells
//! what differs between two machines without telling what it is. Whatever else a document has is passed over, so that a report of an
//! audit, whose tasks have an action and outputs too, can stand in its place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attest::statement::{STATEMENT_TYPE, SUBJECTS_MAX, Statement, Subject};
use crate::attest::verify::RESULTS_PREDICATE;
use crate::image::BlobDigest;

/// The format that is written and read.
pub const FORMAT: u64 = 1;

/// Largest document read, in bytes.
pub const RESULTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most tasks of one document.
const TASKS_MAX: usize = 100_000;

/// The builds of one machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Always [`FORMAT`].
    pub format: u64,
    /// Version of the program.
    #[serde(default)]
    pub drystone: String,
    /// What was asked for, as on the command line.
    #[serde(default)]
    pub targets: Vec<String>,
    /// Who built it.
    #[serde(default)]
    pub builder: String,
    /// Where.
    #[serde(default)]
    pub machine: MachineFacts,
    /// The tasks, in the order of their labels.
    pub tasks: Vec<TaskResult>,
}

/// The machine, as far as it may matter.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MachineFacts {
    /// Digest that stands for the machine without naming it, in hexadecimal digits; empty if it is not known.
    #[serde(default)]
    pub id: String,
    /// As `x86_64`.
    #[serde(default)]
    pub architecture: String,
    /// Release of the kernel.
    #[serde(default)]
    pub kernel: String,
}

/// What one task came to. Digests are in hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TaskResult {
    /// Its label.
    pub label: String,
    /// Its action.
    pub action: String,
    /// Tree of its outputs; none if it was not built.
    #[serde(default)]
    pub outputs: Option<String>,
    /// The level it was built at, as a word.
    #[serde(default)]
    pub isolation: String,
    /// Its files by path relative to its package: digest, `link TARGET` or `dir`; with `x ` before an executable's digest.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Digests of the images among its outputs, as `sha256:…`.
    #[serde(default)]
    pub images: Vec<String>,
    /// Digest of each field of its fingerprint.
    #[serde(default)]
    pub fingerprint: BTreeMap<String, String>,
}

/// Why a document cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResultsError {
    /// It is no such document.
    #[error("it holds no results: {0}")]
    Malformed(String),
    /// Its format is another.
    #[error("its format is {0}; known is {FORMAT}")]
    Format(u64),
    /// It is larger than is read.
    #[error("it has more than {TASKS_MAX} tasks or {RESULTS_BYTES_MAX} bytes")]
    TooLarge,
}

impl Results {
    /// Reads a document.
    ///
    /// # Errors
    /// [`ResultsError`] for anything that is none.
    pub fn read(bytes: &[u8]) -> Result<Self, ResultsError> {
        if bytes.len() > RESULTS_BYTES_MAX {
            return Err(ResultsError::TooLarge);
        }
        let read: Self = serde_json::from_slice(bytes).map_err(|error| ResultsError::Malformed(error.to_string()))?;
        match read.format {
            FORMAT if read.tasks.len() <= TASKS_MAX => Ok(read),
            FORMAT => Err(ResultsError::TooLarge),
            other => Err(ResultsError::Format(other)),
        }
    }

    /// Its bytes: the same for the same results.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("BUG: texts and numbers are always JSON");
        bytes.push(b'\n');
        bytes
    }

    /// What a rebuilder signs: of images by their digests, of everything else by the trees of outputs.
    pub fn statement(&self) -> Statement<Value> {
        let mut subject = Vec::new();
        for task in &self.tasks {
            let images: Vec<BlobDigest> = task.images.iter().filter_map(|one| BlobDigest::parse(one).ok()).collect();
            subject.extend(images.iter().map(|digest| Subject::new(&task.label, digest)));
            if let Some(outputs) = task.outputs.as_ref().filter(|_| images.is_empty()) {
                let digest = BTreeMap::from([("drystoneTree".to_owned(), outputs.clone())]);
                subject.push(Subject { name: task.label.clone(), digest });
            }
        }
        subject.truncate(SUBJECTS_MAX);
        let predicate = serde_json::to_value(self).expect("BUG: texts and numbers are always JSON");
        let (kind, predicate_type) = (STATEMENT_TYPE.to_owned(), RESULTS_PREDICATE.to_owned());
        Statement { kind, subject, predicate_type, predicate }
    }
}

/// How the results of two machines stand to each other in one task.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Agreement {
    /// The same action came to the same outputs.
    Reproduced,
    /// The same action came to different outputs.
    Differs,
    /// There is no same action on the other side.
    NotComparable,
}

impl Agreement {
    /// The word in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Agreement::Reproduced => "reproduced",
            Agreement::Differs => "differs",
            Agreement::NotComparable => "not comparable",
        }
    }
}

/// One task, or two of the same label with different actions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Compared {
    /// Its label.
    pub label: String,
    /// The action on the first side; none if it has no such task.
    pub action_a: Option<String>,
    /// The action on the second side.
    pub action_b: Option<String>,
    /// How they stand.
    pub agreement: Agreement,
    /// Of different outputs: the files that differ.
    pub files: Vec<String>,
    /// Of different actions: the fields of the fingerprint that differ, where both sides tell.
    pub fields: Vec<String>,
}

/// Compares what two machines came to. Tasks are in the order of their labels; a task that is the same on both sides is one row.
pub fn compare(a: &Results, b: &Results) -> Vec<Compared> {
    let built = |results: &Results| -> BTreeMap<String, Vec<TaskResult>> {
        let mut by_action: BTreeMap<String, Vec<TaskResult>> = BTreeMap::new();
        for task in results.tasks.iter().filter(|task| task.outputs.is_some()) {
            by_action.entry(task.action.clone()).or_default().push(task.clone());
        }
        by_action
    };
    let (all_a, all_b) = (built(a), built(b));
    let mut rows = Vec::new();
    for (action, sides) in &all_a {
        let Some(others) = all_b.get(action) else { continue };
        // Tasks that share an action share its outputs, or one side disagrees with itself.
        let same = sides.iter().chain(others).all(|task| task.outputs == sides[0].outputs);
        let files = if same { Vec::new() } else { differing_files(&sides[0], &others[0]) };
        rows.push(Compared {
            label: sides[0].label.clone(),
            action_a: Some(action.clone()),
            action_b: Some(action.clone()),
            agreement: if same { Agreement::Reproduced } else { Agreement::Differs },
            files,
            fields: Vec::new(),
        });
    }
    let lonely = |mine: &BTreeMap<String, Vec<TaskResult>>, other: &BTreeMap<String, Vec<TaskResult>>| {
        let alone = mine.iter().filter(|(action, _)| !other.contains_key(*action));
        alone.flat_map(|(_, tasks)| tasks.clone()).map(|task| (task.label.clone(), task)).collect::<BTreeMap<_, _>>()
    };
    let (only_a, mut only_b) = (lonely(&all_a, &all_b), lonely(&all_b, &all_a));
    for (label, one) in only_a {
        let other = only_b.remove(&label);
        let fields = other.as_ref().map(|other| differing_fields(&one, other)).unwrap_or_default();
        rows.push(apart(label, Some(one.action), other.map(|other| other.action), fields));
    }
    rows.extend(only_b.into_iter().map(|(label, task)| apart(label, None, Some(task.action), Vec::new())));
    rows.sort_by(|one, other| (&one.label, &one.action_a).cmp(&(&other.label, &other.action_a)));
    rows
}

fn apart(label: String, action_a: Option<String>, action_b: Option<String>, fields: Vec<String>) -> Compared {
    Compared { label, action_a, action_b, agreement: Agreement::NotComparable, files: Vec::new(), fields }
}

fn differing_files(a: &TaskResult, b: &TaskResult) -> Vec<String> {
    differing_names(&a.files, &b.files)
}

fn differing_fields(a: &TaskResult, b: &TaskResult) -> Vec<String> {
    if a.fingerprint.is_empty() || b.fingerprint.is_empty() {
        return Vec::new();
    }
    differing_names(&a.fingerprint, &b.fingerprint)
}

fn differing_names(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    let gone = a.keys().filter(|name| !b.contains_key(*name));
    let mut names: Vec<String> =
        b.iter().filter(|(name, digest)| a.get(*name) != Some(digest)).map(|(name, _)| name.clone()).collect();
    names.extend(gone.cloned());
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(label: &str, action: &str, outputs: &str, files: &[(&str, &str)]) -> TaskResult {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        TaskResult {
            label: label.into(),
            action: action.into(),
            outputs: Some(outputs.into()),
            files: map(files),
            fingerprint: map(&[("command", "c"), ("tool", action)]),
            ..TaskResult::default()
        }
    }

    fn results(tasks: Vec<TaskResult>) -> Results {
        Results { format: FORMAT, tasks, ..Results::default() }
    }

    #[test]
    fn two_machines_agree_differ_or_cannot_be_compared() {
        let a = results(vec![
            task("//:same", "1", "x", &[]),
            task("//:other", "2", "x", &[("a", "1"), ("b", "1"), ("gone", "1")]),
            task("//:tools", "3", "x", &[]),
            task("//:mine", "5", "x", &[]),
        ]);
        let b = results(vec![
            task("//:tools", "4", "x", &[]),
            task("//:same", "1", "x", &[]),
            task("//:other", "2", "y", &[("a", "1"), ("b", "2"), ("new", "1")]),
        ]);
        let told: Vec<_> = compare(&a, &b)
            .into_iter()
            .map(|row| (row.label, row.agreement.word(), row.files.join(" "), row.fields.join(" ")))
            .collect();
        let row = |label: &str, word, files: &str, fields: &str| {
            (label.to_owned(), word, files.to_owned(), fields.to_owned())
        };
        assert_eq!(
            told,
            [
                row("//:mine", "not comparable", "", ""),
                row("//:other", "differs", "b gone new", ""),
                row("//:same", "reproduced", "", ""),
                row("//:tools", "not comparable", "", "tool"),
            ]
        );
        assert!(compare(&a, &a).iter().all(|row| row.agreement == Agreement::Reproduced));
    }

    #[test]
    fn a_side_that_disagrees_with_itself_reproduces_nothing() {
        let twice = results(vec![task("//:a", "1", "x", &[]), task("//:b", "1", "y", &[])]);
        let once = results(vec![task("//:a", "1", "x", &[])]);
        assert_eq!(compare(&twice, &once)[0].agreement, Agreement::Differs);
        assert_eq!(compare(&once, &twice)[0].agreement, Agreement::Differs);
    }

    #[test]
    fn what_was_not_built_reproduces_nothing() {
        let failed = TaskResult { outputs: None, ..task("//:a", "1", "x", &[]) };
        let (a, b) = (results(vec![failed.clone()]), results(vec![failed]));
        assert!(compare(&a, &b).is_empty());
    }

    #[test]
    fn a_document_comes_back_and_what_is_none_is_refused() {
        let whole = results(vec![task("//:a", "1", "x", &[("f", "1")])]);
        assert_eq!(Results::read(&whole.write()), Ok(whole));
        let check = |text: &str, expect: &str| {
            let told = Results::read(text.as_bytes()).expect_err(text).to_string();
            assert!(told.contains(expect), "{told}");
        };
        check("{", "holds no results");
        check("{\"format\": 1}", "tasks");
        check("{\"format\": 2, \"tasks\": []}", "format is 2");
        check(&"[".repeat(200_000), "holds no results");
        // A report of an audit has more, and other names for it.
        let report = "{\"format\":1,\"id\":\"0f\",\"machine\":{\"cpus\":4},\"tasks\":[{\"label\":\"//:a\",\"action\":\"1\",\
                      \"outputs\":\"x\",\"verdict\":\"identical\"}]}";
        assert_eq!(Results::read(report.as_bytes()).expect("a report").tasks[0].action, "1");
    }

    #[test]
    fn images_are_named_by_their_digests_and_all_else_by_trees() {
        let image = format!("sha256:{}", "0f".repeat(32));
        let of_image = TaskResult { images: vec![image], ..task("//:image", "1", "x", &[]) };
        let statement = results(vec![of_image, task("//:a", "2", "y", &[])]).statement();
        let told: Vec<_> =
            statement.subject.iter().map(|one| (one.name.as_str(), one.digest.keys().next().cloned())).collect();
        assert_eq!(told, [("//:image", Some("sha256".to_owned())), ("//:a", Some("drystoneTree".to_owned()))]);
    }
}
