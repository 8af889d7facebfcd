//! An audit as SARIF 2.1.0 (OASIS), for code hosts that show findings. Writes no file.
//!
//! One rule for each cause, one result for each difference. There is no line of a source to point at: a result lies in an output, whose
//! address is the label of the task and the path.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::audit::causes::Cause;
use crate::audit::model::{Audit, Certainty, Difference, TaskAudit, Verdict};
use crate::report::audit::told::{date, fingerprint, folded, shown, site, summary};

/// The document, with a newline at its end. The same audit gives the same bytes.
pub fn sarif(audit: &Audit) -> String {
    let mut rules: BTreeMap<&str, &'static Cause> = BTreeMap::new();
    for difference in audit.tasks.iter().flat_map(|task| &task.differences) {
        rules.insert(difference.cause.id, difference.cause);
    }
    let position = |cause: &Cause| rules.keys().position(|id| *id == cause.id);
    let mut results = Vec::new();
    for task in &audit.tasks {
        for (difference, consequences) in folded(task) {
            results.push(result(task, difference, Weight::of(task, difference), position(difference.cause)));
            for one in consequences {
                results.push(result(task, one, Weight::Consequence, position(one.cause)));
            }
        }
    }
    let ended = audit.started_ms.saturating_add_unsigned(audit.duration_ms);
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "drystone",
                "version": shown(&audit.version),
                "informationUri": "https://drystone.dev/audit",
                "rules": rules.values().map(|cause| rule(cause)).collect::<Vec<_>>(),
            }},
            "automationDetails": { "id": "drystone/audit/" },
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": true,
                "startTimeUtc": date(audit.started_ms),
                "endTimeUtc": date(ended),
            }],
            "results": results,
            "properties": { "auditId": shown(&audit.id), "verdict": audit.verdict().word(), "summary": summary(audit) },
        }],
    });
    let mut text = serde_json::to_string_pretty(&document).expect("texts, numbers and lists become JSON");
    text.push('\n');
    text
}

fn rule(cause: &Cause) -> Value {
    json!({
        "id": shown(cause.id),
        "shortDescription": { "text": shown(cause.title) },
        "help": { "text": shown(cause.remedy) },
        "defaultConfiguration": { "level": "error" },
    })
}

/// How much a difference counts.
enum Weight {
    Proven,
    Suspected,
    Equivalent,
    Consequence,
}

impl Weight {
    fn of(task: &TaskAudit, difference: &Difference) -> Self {
        match (task.verdict, difference.certainty) {
            (_, _) if difference.consequence_of.is_some() => Self::Consequence,
            (Verdict::Different, Certainty::Proven) => Self::Proven,
            (Verdict::Different | Verdict::Inconclusive, _) => Self::Suspected,
            (Verdict::Identical | Verdict::IdenticalUncompressed | Verdict::Equivalent, _) => Self::Equivalent,
        }
    }

    const fn level(&self) -> &'static str {
        match self {
            Self::Proven => "error",
            Self::Suspected => "warning",
            Self::Equivalent | Self::Consequence => "note",
        }
    }
}

fn result(task: &TaskAudit, difference: &Difference, weight: Weight, rule: Option<usize>) -> Value {
    let cause = difference.cause;
    let mut message = format!("{}: {}. {}", site(&difference.site), shown(&difference.what), shown(cause.title));
    message.push_str(&format!(" ({}).", difference.certainty.word()));
    if let Some(of) = &difference.consequence_of {
        message.push_str(&format!(" Follows from {}.", site(of)));
    }
    let label = shown(&task.label);
    json!({
        "ruleId": shown(cause.id),
        "ruleIndex": rule,
        "level": weight.level(),
        "message": { "text": message },
        "locations": [{
            "physicalLocation": { "artifactLocation": { "uri": uri(&task.label, &difference.site.file) } },
            "logicalLocations": [{
                "name": label,
                "fullyQualifiedName": format!("{label} › {}", site(&difference.site)),
                "kind": "module",
            }],
        }],
        "partialFingerprints": { "drystoneFinding/v1": fingerprint(task, difference) },
        "properties": {
            "task": label,
            "certainty": difference.certainty.word(),
            "dimension": difference.dimension.map(|one| one.word()),
            "verdict": task.verdict.word(),
        },
    })
}

/// `//libs/ui:build` and `out/a b` as a relative reference: `libs/ui/build:out/…` would have a scheme in front of its colon where a
/// package is the root, so everything but letters, digits, `-`, `.`, `_`, `~` and `/` is written as `%XX` (RFC 3986, section 2.1).
fn uri(label: &str, file: &str) -> String {
    let mut uri = String::new();
    for byte in format!("{}/{file}", label.trim_start_matches('/')).bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}
