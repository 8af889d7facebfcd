//! The corpus of planted causes: all are found, rightly attributed, and nothing is told of tasks that only look like it.

use std::process::Command;

use serde_json::Value;

use crate::support::{TestWorkspace, loudly};

/// Dimensions that a machine may be without.
const MAY_LACK: [&str; 3] = ["locale", "cpus", "clock"];

#[test]
fn every_planted_cause_is_found_and_nothing_else() {
    let workspace = TestWorkspace::copy_of("tests/audit/corpus");
    workspace.git(&["init", "-q"]);
    workspace.git(&["add", "-A"]);
    let report = workspace.beside("report.json");
    let report = report.to_str().expect("a path of text");
    // Most of the time is spent waiting for a second to pass.
    workspace.run(&["audit", "//...", "-j", "8", "--report", report]).expect(1);
    let told: Value = serde_json::from_slice(&std::fs::read(report).expect("a report")).expect("JSON");
    let tasks = told["tasks"].as_array().expect("tasks");
    let lacks = |dimension: &&str| {
        let all = tasks.iter().flat_map(|task| task["varied"].as_array().expect("a list"));
        let mut of_it = all.filter(|one| one["dimension"] == **dimension);
        of_it.all(|one| one["effect"]["kind"] == "none")
    };
    let lacking: Vec<&str> = MAY_LACK.into_iter().filter(lacks).collect();
    if !lacking.is_empty() {
        loudly(&format!("NOT TESTED: planted causes in {}: this machine cannot vary it", lacking.join(", ")));
    }
    // A few of the tasks differ by chance, and with the second in which they are built; a false alarm fails in any case.
    let scored = Command::new("python3")
        .args([
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audit/score.py"),
            "--least",
            "97",
            "--may-lack",
            &lacking.join(","),
        ])
        .arg(workspace.root().join("key.json"))
        .arg(report)
        .output()
        .expect("python3 starts");
    let text = String::from_utf8_lossy(&scored.stdout);
    let score = text.lines().find(|line| line.starts_with("found ")).unwrap_or("no score");
    loudly(&format!("audit of the corpus: {score}"));
    assert!(scored.status.success(), "{text}{}", String::from_utf8_lossy(&scored.stderr));
}
