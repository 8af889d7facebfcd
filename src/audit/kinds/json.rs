//! Two JSON documents: the same with fields in another order, or which fields differ.

use serde_json::Value;

use super::gather::{Gathered, Reason, Stretch, quoted};
use super::{hints, lines};
use crate::audit::causes::{self, Cause};
use crate::audit::model::Certainty;

/// Larger documents are compared as text.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// A longer path of a field is cut.
const PATH_BYTES_MAX: usize = 200;

/// Looks into two documents; `false` if one of them is none.
pub(super) fn look(all: &mut Gathered<'_>, a: &[u8], b: &[u8]) -> bool {
    let is_one =
        |bytes: &[u8]| bytes.len() <= DOCUMENT_BYTES_MAX && matches!(bytes.trim_ascii().first(), Some(b'{' | b'['));
    if !is_one(a) || !is_one(b) {
        return false;
    }
    let (Ok(value_a), Ok(value_b)) = (serde_json::from_slice::<Value>(a), serde_json::from_slice::<Value>(b)) else {
        return false;
    };
    if value_a == value_b {
        let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let stretch = Stretch { a, at_a: start..a.len(), b, at_b: start..b.len(), is_text: true };
        let covers = (stretch.at_a.clone(), stretch.at_b.clone());
        let (text_a, text_b) = (value_a.to_string(), value_b.to_string());
        let reason = if text_a == text_b {
            Reason::suspected(&causes::UNKNOWN, "the same document, written in another way", covers)
        } else {
            Reason::suspected(&causes::JSON_ORDER, "the same document with its fields in another order", covers)
                .proven()
        };
        all.add(&[], reason, &stretch);
        return true;
    }
    let mut walk = Walk { all, is_sbom: is_sbom(&value_a) && is_sbom(&value_b) };
    walk.values("$", "", &value_a, &value_b);
    true
}

/// Whether a document is a bill of materials, of CycloneDX or SPDX.
fn is_sbom(document: &Value) -> bool {
    let has = |name: &str| document.get(name).is_some();
    has("bomFormat")
        || has("spdxVersion")
        || document.get("@context").is_some_and(|context| context.to_string().contains("spdx"))
}

struct Walk<'g, 'c> {
    all: &'g mut Gathered<'c>,
    is_sbom: bool,
}

impl Walk<'_, '_> {
    fn values(&mut self, path: &str, key: &str, a: &Value, b: &Value) {
        if a == b || self.all.is_full() {
            return;
        }
        match (a, b) {
            (Value::Object(fields_a), Value::Object(fields_b)) => self.fields(path, fields_a, fields_b),
            (Value::Array(items_a), Value::Array(items_b)) => self.items(path, key, items_a, items_b),
            _ => self.leaf(path, key, a, b),
        }
    }

    fn fields(&mut self, path: &str, a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>) {
        for (key, value) in a {
            if let Some(other) = b.get(key) {
                self.values(&child(path, key), key, value, other);
            }
        }
        let only = |one: &serde_json::Map<String, Value>, other: &serde_json::Map<String, Value>| {
            let mut keys: Vec<String> = one.keys().filter(|key| !other.contains_key(*key)).cloned().collect();
            keys.sort();
            keys
        };
        let (only_a, only_b) = (only(a, b), only(b, a));
        if only_a.len() == only_b.len() {
            for (key_a, key_b) in only_a.iter().zip(&only_b) {
                self.text(path, "", key_a, key_b);
                if let (Some(value_a), Some(value_b)) = (a.get(key_a), b.get(key_b)) {
                    self.values(&child(path, key_a), key_a, value_a, value_b);
                }
            }
            return;
        }
        let text = |key: &String, of: &serde_json::Map<String, Value>| {
            format!("{key}: {}", of.get(key).unwrap_or(&Value::Null))
        };
        for key in &only_a {
            self.text(&child(path, key), "", &text(key, a), "");
        }
        for key in &only_b {
            self.text(&child(path, key), "", "", &text(key, b));
        }
    }

    fn items(&mut self, path: &str, key: &str, a: &[Value], b: &[Value]) {
        let sorted = |items: &[Value]| {
            let mut texts: Vec<String> = items.iter().map(canonical).collect();
            texts.sort();
            texts
        };
        let (in_a, in_b) = (sorted(a), sorted(b));
        if in_a == in_b {
            let is_file = |item: &Value| item.as_str().is_some_and(|text| text.contains('/') || text.contains('.'));
            let is_plain = self.all.context.planted.is_empty() && self.all.context.alone.is_none();
            let cause: &'static Cause = if a.iter().all(is_file) {
                &causes::FILE_ORDER
            } else if is_plain {
                &causes::RACE
            } else {
                &causes::HASH_SEED
            };
            let what = format!("{} items in another order", a.len());
            self.add(path, Reason::suspected(cause, what, (0..0, 0..0)), &text_of(&a.into()), &text_of(&b.into()));
            return;
        }
        for (at, (item_a, item_b)) in a.iter().zip(b).enumerate() {
            self.values(&format!("{path}[{at}]"), key, item_a, item_b);
        }
        for (at, item) in a.iter().enumerate().skip(b.len()) {
            self.text(&format!("{path}[{at}]"), "", &text_of(item), "");
        }
        for (at, item) in b.iter().enumerate().skip(a.len()) {
            self.text(&format!("{path}[{at}]"), "", "", &text_of(item));
        }
    }

    fn leaf(&mut self, path: &str, key: &str, a: &Value, b: &Value) {
        let (text_a, text_b) = (text_of(a), text_of(b));
        let is_of_sbom = self.is_sbom
            && (matches!(
                path,
                "$.serialNumber" | "$.metadata.timestamp" | "$.documentNamespace" | "$.creationInfo.created"
            ) || matches!(key, "created" | "spdxId" | "SPDXID" | "bom-ref"));
        if is_of_sbom {
            let what = format!(
                "{key} of a bill of materials: `{}` against `{}`",
                quoted(text_a.as_bytes()),
                quoted(text_b.as_bytes())
            );
            self.add(path, Reason::suspected(&causes::SBOM, what, (0..0, 0..0)).proven(), &text_a, &text_b);
            return;
        }
        self.text(path, key, &text_a, &text_b);
    }

    /// Compares two texts, with the name of their field before them.
    fn text(&mut self, path: &str, key: &str, a: &str, b: &str) {
        let lead = if key.is_empty() { String::new() } else { format!("\"{key}\": ") };
        let (a, b) = (format!("{lead}{a}").into_bytes(), format!("{lead}{b}").into_bytes());
        let members = [cut(path)];
        if a.contains(&b'\n') && b.contains(&b'\n') {
            lines::compare_text(self.all, &members, &a, &b);
        } else {
            lines::within(self.all, &members, (&a, lead.len()..a.len()), (&b, lead.len()..b.len()), true);
        }
    }

    fn add(&mut self, path: &str, mut reason: Reason, a: &str, b: &str) {
        if reason.certainty == Certainty::Suspected && reason.cause == &causes::UNKNOWN {
            reason.cause = hints::cause_of_key(path.rsplit('.').next().unwrap_or(path)).unwrap_or(reason.cause);
        }
        let (a, b) = (a.as_bytes(), b.as_bytes());
        self.all.add(&[cut(path)], reason, &Stretch { a, at_a: 0..a.len(), b, at_b: 0..b.len(), is_text: true });
    }
}

/// The path of a field below another.
fn child(path: &str, key: &str) -> String {
    let is_word = !key.is_empty() && key.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-@".contains(letter));
    if is_word { format!("{path}.{key}") } else { format!("{path}[\"{}\"]", quoted(key.as_bytes())) }
}

fn cut(path: &str) -> String {
    if path.len() <= PATH_BYTES_MAX {
        return path.to_owned();
    }
    let mut end = PATH_BYTES_MAX;
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &path[..end])
}

/// A text as it is, anything else as it is written.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value with all its fields sorted.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut texts: Vec<String> =
                fields.iter().map(|(key, value)| format!("{key:?}:{}", canonical(value))).collect();
            texts.sort();
            format!("{{{}}}", texts.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        _ => value.to_string(),
    }
}
