//! Checks that files generated from the code are what the code generates. `UPDATE=1` writes them anew.

use std::path::Path;

use crate::audit::wire::audit_schema;
use crate::cli::reference::reference_markdown;
use crate::cli::table::json;
use crate::fs::ops;
use crate::report::wire::event_schema;

fn check(path: &str, expect: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        ops::create_dir_all(file.parent().unwrap()).unwrap();
        ops::write(&file, expect.as_bytes()).unwrap();
    }
    let found = ops::read_text(&file).unwrap_or_default();
    assert!(found == expect, "{path} is out of date: run the tests once with UPDATE=1");
}

#[test]
fn the_reference_of_the_command_line_is_current() {
    check("docs/cli.md", &reference_markdown());
}

#[test]
fn the_schema_of_the_events_is_current() {
    check("schema/event.schema.json", &json(&event_schema()));
}

#[test]
fn the_schema_of_the_report_of_an_audit_is_current() {
    check("schema/audit.schema.json", &json(&audit_schema()));
}
