//! Manifest texts through the whole front end, from text to model.

mod arbitrary;
mod compact;
mod errors;
mod images;
mod kept;
mod task_errors;
mod tasks;

use crate::base::diagnostic::{Diagnostic, Severity};
use crate::base::path::RelPath;
use crate::base::span::{Placed, SourceId};
use crate::manifest::lower::{PackageContext, lower_package, lower_workspace, templates};
use crate::manifest::model::{Task, WorkspaceConfig};
use crate::manifest::read::{ManifestFile, read};

/// What came of a text.
struct Lowered {
    workspace: Option<WorkspaceConfig>,
    tasks: Vec<Task>,
    diagnostics: Vec<Diagnostic>,
}

/// Reads and lowers one text as root manifest and as package `//apps/web` at once, with every template it applies.
fn lower(text: &str) -> Lowered {
    let mut diagnostics = Vec::new();
    let file = read(SourceId(0), text, &mut diagnostics);
    let (workspace, tasks) = file.map_or((None, Vec::new()), |file| lower_file(&file, &mut diagnostics));
    Lowered { workspace, tasks, diagnostics }
}

fn lower_file(file: &ManifestFile, diagnostics: &mut Vec<Diagnostic>) -> (Option<WorkspaceConfig>, Vec<Task>) {
    let workspace = lower_workspace(file, diagnostics);
    let applied: Vec<(Placed<String>, Placed<String>)> =
        file.applies().iter().flat_map(|apply| apply.tasks.clone()).collect();
    let dir = RelPath::parse("apps/web").expect("a good path");
    let templates = templates(file);
    let context = PackageContext {
        dir: &dir,
        name: "web",
        workspace_name: "shop",
        templates: &templates,
        applied: &applied,
        parts: &std::collections::BTreeMap::new(),
    };
    let tasks = lower_package(Some(file), &context, diagnostics);
    (workspace, tasks)
}

/// A diagnostic in one line: `message @ text under each mark > help > help`; warnings start with `warning:`.
fn line(text: &str, diagnostic: &Diagnostic) -> String {
    let mut line = match diagnostic.severity {
        Severity::Error => String::new(),
        Severity::Warning => "warning: ".to_owned(),
        Severity::Note => "note: ".to_owned(),
    };
    line.push_str(&diagnostic.message);
    for mark in &diagnostic.marks {
        let under = text.get(mark.place.range.clone()).expect("a place is within the text, at whole characters");
        line.push_str(" @ ");
        line.push_str(under);
        if !mark.text.is_empty() {
            line.push_str(&format!(" ({})", mark.text));
        }
    }
    for help in &diagnostic.help {
        line.push_str(" > ");
        line.push_str(help);
    }
    line
}

/// Compares all that is said about a text, in order.
fn check_lines(text: &str, expect: &[&str]) {
    let found: Vec<String> = lower(text).diagnostics.iter().map(|diagnostic| line(text, diagnostic)).collect();
    assert_eq!(found, expect, "\n{text}");
}
