//! Tests of all reports of an audit, on one sample that has everything.

use std::path::Path;

use serde_json::Value;

use crate::audit::model::{Audit, Certainty, Effect, Verdict};
use crate::audit::sample::{HOSTILE_NAME, audit};
use crate::fs::ops;
use crate::report::audit::text::{Detail, lines};
use crate::report::audit::{html, junit, sarif};
use crate::report::ink::Color;
use crate::sandbox::surroundings::Dimension;

/// Compares with a file beside the tests; with `UPDATE=1` in the environment writes it.
fn check(name: &str, expect: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/audit").join(name);
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        ops::create_dir_all(file.parent().unwrap()).unwrap();
        ops::write(&file, expect.as_bytes()).unwrap();
    }
    let found = ops::read_text(&file).unwrap_or_default();
    assert!(found == expect, "{name} is out of date: run the tests once with UPDATE=1 and look at what changed");
}

fn nothing_audited() -> Audit {
    Audit { tasks: vec![], left_out: vec![], ..audit() }
}

/// All reports, by name.
fn reports(audit: &Audit) -> [(&'static str, String); 5] {
    [
        ("findings.txt", lines(audit, Detail::Findings, Color::Plain)),
        ("everything.txt", lines(audit, Detail::Everything, Color::Plain)),
        ("page.html", html::page(audit)),
        ("junit.xml", junit::xml(audit)),
        ("audit.sarif", sarif::sarif(audit)),
    ]
}

#[test]
fn reports_are_as_they_are_checked_in() {
    for (name, report) in reports(&audit()) {
        check(name, &report);
    }
}

#[test]
fn the_same_audit_gives_the_same_bytes_and_all_lines_end() {
    for audit in [audit(), nothing_audited()] {
        for ((name, one), (_, other)) in reports(&audit).into_iter().zip(reports(&audit)) {
            assert_eq!(one, other, "{name}");
            assert!(one.ends_with('\n') && !one.ends_with("\n\n"), "{name}");
        }
    }
}

#[test]
fn nothing_foreign_reaches_a_report_as_it_is() {
    for (name, report) in reports(&audit()) {
        let hidden = |letter: char| {
            (letter.is_control() && letter != '\n')
                || ('\u{202a}'..='\u{202e}').contains(&letter)
                || letter == '\u{2066}'
        };
        assert_eq!(report.chars().find(|letter| hidden(*letter)), None, "{name}");
        assert!(!report.contains(HOSTILE_NAME), "{name}");
        if name.ends_with(".html") || name.ends_with(".xml") {
            for tag in ["<script", "<img", "<b>m", "<i>", "<x>", "<y>", "<Proc", "<br>", "]]>"] {
                // Line breaks between digits and letters are ours, with digits before.
                let ours = tag == "<br>";
                assert!(ours || !report.contains(tag), "{name}: {tag}");
            }
        }
    }
    assert!(!html::page(&audit()).contains("3 GiB <br>"));
}

#[test]
fn colours_are_there_if_they_are_taken() {
    let colored = lines(&audit(), Detail::Findings, Color::Colored);
    assert!(colored.contains("\u{1b}[1;31mdifferent\u{1b}[0m"), "{colored}");
    assert_eq!(without_colours(&colored), lines(&audit(), Detail::Findings, Color::Plain));
}

fn without_colours(text: &str) -> String {
    let mut pieces = text.split("\u{1b}[");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |kept, piece| kept + piece.split_once('m').map_or(piece, |(_, rest)| rest))
}

#[test]
fn the_summary_counts_tasks_and_tells_what_was_not_tested() {
    let check = |audit: &Audit, expect: &str| {
        let text = lines(audit, Detail::Findings, Color::Plain);
        assert_eq!(text.lines().last(), Some(expect));
    };
    let mut all = audit();
    all.tasks.retain(|task| !task.varied.is_empty());
    check(
        &all,
        "4 tasks audited: 1 identical, 1 identical-uncompressed, 1 equivalent, 1 different, 0 inconclusive; \
         not tested: file-system (1 task), kernel (4 tasks); left out: 2 tasks",
    );
    let mut one = audit();
    one.tasks.truncate(1);
    one.left_out.clear();
    one.asked = vec![Dimension::User, Dimension::Kernel];
    one.tasks[0].varied.retain(|varied| varied.dimension == Dimension::Home);
    // Of two nothing is told, and of the third that it took no hold, whatever came of it.
    one.tasks[0].varied[0].effect = Effect::None { why: "both saw `/x`".into() };
    check(
        &one,
        "1 task audited: 0 identical, 0 equivalent, 1 different, 0 inconclusive; \
         not tested: user, home, kernel (1 task)",
    );
    assert!(lines(&one, Detail::Findings, Color::Plain).contains("home not tested: both saw `/x`"));
    check(&nothing_audited(), "0 tasks audited: 0 identical, 0 equivalent, 0 different, 0 inconclusive");
}

#[test]
fn what_follows_from_a_difference_is_folded_beneath_it() {
    let brief = lines(&audit(), Detail::Findings, Color::Plain);
    assert!(brief.contains("and 3 that follow from it\n") && !brief.contains("SHA256SUMS"), "{brief}");
    assert!(
        brief.contains("out/z › $.a.b: a digest\n"),
        "what follows from nothing that is told stands alone: {brief}"
    );
    assert!(lines(&audit(), Detail::Everything, Color::Plain).contains("so also out/SHA256SUMS: a digest\n"));
    let mut many = audit();
    let one = many.tasks[0].differences[1].clone();
    many.tasks[0].differences = vec![one; 30];
    let text = lines(&many, Detail::Findings, Color::Plain);
    // Ten that are not shown, seven that are not told.
    assert!(text.contains("… and 17 more\n"), "{text}");
}

#[test]
fn a_page_is_well_formed_and_needs_nothing() {
    let page = html::page(&audit());
    for foreign in ["http://", "https://", "src=", "url(", "@import", "javascript:", "style=\"", "onload"] {
        // What an output is called may say so, as text.
        let ours = page.replace("&lt;img src=x&gt;", "");
        assert!(!ours.contains(foreign), "{foreign}");
    }
    assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
    assert_tags_match(&page, &["meta", "br", "!doctype"]);
    for id in page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
}

#[test]
fn a_page_is_for_the_verdict_it_has() {
    for (verdict, expect) in [
        (Verdict::Identical, "every build is the same<"),
        (Verdict::IdenticalUncompressed, "the same, uncompressed<"),
        (Verdict::Equivalent, "every build is equivalent<"),
        (Verdict::Inconclusive, "not everything could be found out<"),
        (Verdict::Different, "builds differ<"),
    ] {
        let mut audit = audit();
        audit.tasks.retain(|task| task.verdict == verdict);
        assert!(html::page(&audit).contains(&format!("{expect}/h1>")), "{verdict:?}");
    }
    assert!(html::page(&nothing_audited()).contains("nothing was audited"));
}

#[test]
fn a_junit_file_is_well_formed_and_counts_what_is_in_it() {
    let xml = junit::xml(&audit());
    assert_tags_match(&xml, &["?xml"]);
    assert_eq!(xml.matches("<testcase ").count(), 7);
    assert!(xml.contains("tests=\"7\" failures=\"1\" errors=\"0\" skipped=\"3\""), "{xml}");
    assert!(xml.contains("<failure type=\"sample.&lt;script&gt;\""), "{xml}");
    assert!(xml.contains("classname=\"//apps/web\" name=\"//apps/web:bundle[x=&lt;1&gt;]\""), "{xml}");
}

/// That each tag is closed by its own, but for those that have no end.
fn assert_tags_match(text: &str, single: &[&str]) {
    let mut open = Vec::new();
    for piece in text.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').expect("a tag has an end");
        let name = tag.split([' ', '\n']).next().unwrap_or_default();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{piece}");
        } else if !single.contains(&name) && !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn a_sarif_document_has_what_the_format_asks_for() {
    let document: Value = serde_json::from_str(&sarif::sarif(&audit())).expect("JSON");
    assert_eq!(document["version"], "2.1.0");
    let run = &document["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
    let results = run["results"].as_array().expect("results");
    assert_eq!((rules.len(), results.len()), (2, 7));
    for rule in rules {
        assert!(
            rule["id"].is_string() && rule["shortDescription"]["text"].is_string() && rule["help"]["text"].is_string()
        );
    }
    for result in results {
        let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().expect("a number")).expect("small")];
        assert_eq!(rule["id"], result["ruleId"]);
        assert!(result["message"]["text"].as_str().is_some_and(|text| !text.is_empty()));
        let uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].as_str().expect("a place");
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte);
        assert!(uri.bytes().all(fine) && !uri.starts_with('/'), "{uri}");
        let fingerprint = result["partialFingerprints"]["drystoneFinding/v1"].as_str().expect("a fingerprint");
        assert_eq!(fingerprint.len(), 64);
    }
    let levels: Vec<_> = results.iter().map(|result| result["level"].as_str().expect("a level")).collect();
    assert_eq!(levels, ["error", "note", "note", "note", "warning", "note", "note"]);
}

#[test]
fn a_finding_keeps_its_fingerprint_while_bytes_and_builds_change() {
    let fingerprints = |audit: &Audit| -> Vec<String> {
        let document: Value = serde_json::from_str(&sarif::sarif(audit)).expect("JSON");
        let results = document["runs"][0]["results"].as_array().expect("results").clone();
        results.iter().map(|result| result["partialFingerprints"].to_string()).collect()
    };
    let before = fingerprints(&audit());
    let mut later = audit();
    later.id = "fedcba9876543210".into();
    later.started_ms += 1_000_000;
    for difference in &mut later.tasks[0].differences {
        difference.evidence = None;
        difference.certainty = Certainty::Suspected;
        difference.between = (0, 1);
    }
    assert_eq!(fingerprints(&later), before);
    later.tasks[0].differences[0].site.members.pop();
    assert_ne!(fingerprints(&later), before);
}
