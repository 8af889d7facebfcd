//! An audit as a JUnit XML file, for CI systems that read one: one suite, one case for each task. Writes no file.
//!
//! What differs is a failure. What was not found out is skipped, with why: it neither passed nor failed.

use std::fmt::Write as _;

use crate::audit::model::{Audit, TaskAudit, Verdict};
use crate::report::audit::text::{Detail, lines_of};
use crate::report::audit::told::{causes_of, folded, package, shown};
use crate::report::ink::Color;

/// The file.
pub fn xml(audit: &Audit) -> String {
    let count = |verdict: Verdict| audit.tasks.iter().filter(|task| task.verdict == verdict).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{}\"",
        audit.tasks.len() + audit.left_out.len(),
        count(Verdict::Different),
        count(Verdict::Inconclusive) + audit.left_out.len(),
        seconds(audit.duration_ms),
    );
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"drystone audit\" {counts}>\n  \
         <testsuite name=\"drystone audit\" {counts}>\n"
    );
    for task in &audit.tasks {
        let time = task.builds.iter().fold(0_u64, |sum, build| sum.saturating_add(build.duration_ms));
        case(&mut xml, &task.label, time, body(task).as_deref());
    }
    for (label, why) in &audit.left_out {
        case(&mut xml, label, 0, Some(&format!("<skipped message=\"{}\"/>", escaped(why))));
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

fn case(xml: &mut String, label: &str, time_ms: u64, body: Option<&str>) {
    let (class, name) = (escaped(package(label)), escaped(label));
    let start = format!("    <testcase classname=\"{class}\" name=\"{name}\" time=\"{}\"", seconds(time_ms));
    let written = match body {
        None => writeln!(xml, "{start}/>"),
        Some(body) => writeln!(xml, "{start}>\n      {body}\n    </testcase>"),
    };
    written.expect("writing to a string cannot fail");
}

fn body(task: &TaskAudit) -> Option<String> {
    match task.verdict {
        Verdict::Identical | Verdict::IdenticalUncompressed | Verdict::Equivalent => None,
        Verdict::Inconclusive => {
            let why = if task.notes.is_empty() { "inconclusive".to_owned() } else { task.notes.join("; ") };
            Some(format!("<skipped message=\"{}\"/>", escaped(&why)))
        }
        Verdict::Different => {
            let first = folded(task).first().map_or("unknown", |(difference, _)| difference.cause.id);
            let message = format!("different: {}", causes_of(task).join(", "));
            Some(format!(
                "<failure type=\"{}\" message=\"{}\">{}</failure>",
                escaped(first),
                escaped(&message),
                escaped_lines(&lines_of(task, Detail::Findings, Color::Plain)),
            ))
        }
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

/// A foreign text on one line as XML 1.0 character data or attribute value.
fn escaped(text: &str) -> String {
    escaped_lines(&shown(text))
}

/// Lines made of texts that were made safe. What XML has no way to write is U+FFFD.
fn escaped_lines(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => xml.push(char::REPLACEMENT_CHARACTER),
            letter => xml.push(letter),
        }
    }
    xml
}
