//! Keys that no table has: every one of them, each with the nearest key that exists. What exists is read off the JSON Schema,
//! so that the schema, the reference and this check cannot differ.

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use crate::base::diagnostic::{Diagnostic, nearest};
use crate::manifest::origin::Origin;
use crate::manifest::schema;

/// Sections of later versions: refused by name, so that nobody believes they do something.
const LATER_SECTIONS: [&str; 3] = ["gate", "input", "pipeline"];

/// A table listing all its keys in an error is of use up to this many.
const LISTED_KEYS_MAX: usize = 12;

/// Reports every unknown key below the root of a manifest.
pub(crate) fn check(root: &DeTable<'_>, origin: &Origin, diagnostics: &mut Vec<Diagnostic>) {
    Walk { origin, diagnostics }.table(root, schema::shared(), &mut Vec::new());
}

/// The error for what a later version will bring.
pub(crate) fn unsupported(what: &str) -> String {
    format!("{what} is not supported by this version of drystone")
}

struct Walk<'a> {
    origin: &'a Origin,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Walk<'_> {
    /// The depth of the recursion is that of the schema, not that of the text.
    fn table(&mut self, table: &DeTable<'_>, node: &'static Value, path: &mut Vec<String>) {
        let node = schema::resolve(node);
        let known = schema::properties(node);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let child = match known {
                Some(known) => known.get(name),
                None => node.get("additionalProperties").filter(|rest| rest.is_object()),
            };
            match (child, known) {
                (Some(child), _) => {
                    path.push(name.to_owned());
                    self.value(value.get_ref(), child, path);
                    path.pop();
                }
                (None, Some(known)) => {
                    let known: Vec<&str> = known.keys().map(String::as_str).collect();
                    let problem = self.unknown(name, value.get_ref(), &known, path);
                    self.diagnostics.push(problem.at(&self.origin.place(&key.span()), ""));
                }
                (None, None) => {}
            }
        }
    }

    fn value(&mut self, value: &DeValue<'_>, node: &'static Value, path: &mut Vec<String>) {
        match value {
            DeValue::Table(table) => self.table(table, node, path),
            DeValue::Array(items) => {
                let Some(element) = schema::resolve(node).get("items") else { return };
                items.iter().for_each(|item| self.value(item.get_ref(), element, path));
            }
            _ => {}
        }
    }

    fn unknown(&self, name: &str, value: &DeValue<'_>, known: &[&str], path: &[String]) -> Diagnostic {
        let in_task = path.len() == 2 && matches!(path[0].as_str(), "task" | "template");
        if path.is_empty() && LATER_SECTIONS.contains(&name) {
            return Diagnostic::error(unsupported(&format!("`[{name}]`"))).help("take it out");
        }
        if path.is_empty() {
            let message = match value {
                DeValue::Table(_) | DeValue::Array(_) => format!("a manifest has no section `[{name}]`"),
                _ => format!("`{name}` stands outside of any section"),
            };
            return Diagnostic::error(message).help(section_help(name, known));
        }
        let of_tasks = schema::shared().pointer("/$defs/Task/properties").and_then(|keys| keys.get(name)).is_some();
        if path.len() == 2 && path[0] == "service" && of_tasks {
            return Diagnostic::error(format!("a service has no `{name}`"))
                .help("take it out: a service leaves nothing behind, and runs for as long as tasks need it");
        }
        Diagnostic::error(format!("`{}` has no key `{name}`", header(path))).help(
            match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if in_task && value.is_table() => {
                    format!("if it is part of the name, quote it: `[{}.\"{}.{name}\"]`", path[0], path[1])
                }
                None => key_list(known),
            },
        )
    }
}

/// Whether one of the named tables of a section has a key that no table of that section has.
pub(crate) fn has_unknown(section: &str, table: &DeValue<'_>) -> bool {
    let known =
        schema::shared().pointer(&format!("/properties/{section}/additionalProperties")).and_then(schema::properties);
    match (table.as_table(), known) {
        (Some(table), Some(known)) => table.keys().any(|key| !known.contains_key(key.get_ref().as_ref())),
        _ => false,
    }
}

/// A table as its header writes it.
fn header(path: &[String]) -> String {
    if path[0] == "apply" { "[[apply]]".to_owned() } else { format!("[{}]", path.join(".")) }
}

fn key_list(known: &[&str]) -> String {
    if known.len() > LISTED_KEYS_MAX {
        return "`drystone schema` lists every key".to_owned();
    }
    let quoted: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
    format!("its keys are {}", quoted.join(", "))
}

fn section_help(name: &str, sections: &[&str]) -> String {
    if let Some(near) = nearest(name, sections.iter().copied()) {
        return format!("did you mean `{}`?", section(near));
    }
    let tasks = schema::shared().pointer("/properties/task/additionalProperties");
    if tasks.and_then(schema::properties).is_some_and(|keys| keys.contains_key(name)) {
        return format!("`{name}` belongs in a task: write it below a `[task.NAME]` line");
    }
    let all: Vec<String> = sections.iter().map(|name| format!("`{}`", section(name))).collect();
    format!("its sections are {}", all.join(", "))
}

/// A section as its header writes it.
pub(crate) fn section(name: &str) -> String {
    match name {
        "apply" => "[[apply]]".to_owned(),
        "task" | "template" | "fetch" | "service" | "image" => format!("[{name}.NAME]"),
        _ => format!("[{name}]"),
    }
}
