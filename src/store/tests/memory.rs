//! History, fingerprints and what makes a task flaky.

use crate::base::limits::FINGERPRINTS_PER_TASK;
use crate::store::tests::trial::{Trial, action, advance_clock, now_ms, put, record};
use crate::store::{History, Store, TaskRun};

fn run(label: &str, workspace: &str, name: &str, outcome: &'static str, duration_ms: u64) -> TaskRun {
    advance_clock(10);
    TaskRun {
        label: label.to_owned(),
        workspace: workspace.to_owned(),
        action: Some(action(name)),
        outcome,
        duration_ms,
        failed: outcome == "failed",
        max_rss_kib: duration_ms * 2,
        at_ms: now_ms(),
    }
}

fn history(store: &Store, label: &str) -> Option<History> {
    store.history("/a", &[label]).expect("readable").remove(label)
}

#[test]
fn durations_are_a_weighted_mean_of_executed_runs() {
    let trial = Trial::new();
    let store = trial.open();
    assert_eq!(history(&store, "//:t"), None);
    store.note_run(run("//:t", "/a", "1", "hit", 1));
    assert_eq!(history(&store, "//:t").map(|known| known.duration_ms), Some(None));
    for (outcome, duration_ms, expect) in [
        ("ran", 100, 100),
        ("hit", 1, 100),
        ("ran", 200, 130),
        ("cancelled", 5, 130),
        ("skipped", 0, 130),
        ("failed", 30, 100),
    ] {
        store.note_run(run("//:t", "/a", outcome, outcome, duration_ms));
        assert_eq!(history(&store, "//:t").and_then(|known| known.duration_ms), Some(expect), "{outcome}");
    }
    let known = history(&store, "//:t").expect("it ran");
    assert!(known.last_failed && !known.flaky && known.max_rss_kib == 400, "{known:?}");
    store.note_run(run("//:t", "/a", "hit", "hit", 1));
    assert!(!history(&store, "//:t").expect("it ran").last_failed);
}

#[test]
fn passing_and_failing_under_one_action_is_flaky() {
    let trial = Trial::new();
    let store = trial.open();
    store.note_run(run("//:t", "/a", "1", "failed", 1));
    store.note_run(run("//:t", "/a", "2", "ran", 1));
    assert!(!history(&store, "//:t").expect("it ran").flaky, "it failed, was changed, and passed");
    store.note_run(run("//:t", "/b", "2", "failed", 1));
    assert!(history(&store, "//:t").expect("it ran").flaky, "in another worktree under the same action");
    for number in 0..FINGERPRINTS_PER_TASK {
        store.note_run(run("//:t", "/a", &format!("later {number}"), "ran", 1));
        store.note_run(run("//:t", "/b", &format!("later {number}"), "ran", 1));
    }
    assert!(!history(&store, "//:t").expect("it ran").flaky, "long ago");
}

#[test]
fn a_workspace_knows_its_own_history_first() {
    let trial = Trial::new();
    let store = trial.open();
    store.note_run(run("//:t", "/a", "1", "ran", 100));
    store.note_run(run("//:t", "/b", "2", "failed", 900));
    let of = |workspace| store.history(workspace, &["//:t"]).expect("readable")["//:t"];
    assert_eq!((of("/a").duration_ms, of("/a").last_failed), (Some(100), false));
    assert_eq!((of("/b").duration_ms, of("/b").last_failed), (Some(900), true));
    assert_eq!((of("/c").duration_ms, of("/c").last_failed), (Some(900), false), "an estimate, no verdict");
}

#[test]
fn recent_fingerprints_are_own_first_newest_first_and_bounded() {
    let trial = Trial::new();
    let store = trial.open();
    let mut recorded = Vec::new();
    for number in 0..FINGERPRINTS_PER_TASK + 4 {
        let mut result = put(&store, &number.to_string(), &[]);
        result.label = "//:t".to_owned();
        result.workspace = if number == 2 { "/other" } else { "/own" }.to_owned();
        advance_clock(10);
        recorded.push(result.action);
        store.record(result, format!("fields {number}").as_bytes()).expect("recorded");
    }
    let recent = store.recent_fingerprints("//:t", "/own").expect("readable");
    let numbers: Vec<String> = recent.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect();
    assert_eq!(recent.len(), FINGERPRINTS_PER_TASK);
    assert_eq!(numbers[0], "fields 19");
    assert_eq!(numbers[14], "fields 5");
    assert_eq!(numbers[15], "fields 2", "another workspace's last one outlives older ones of this workspace");
    let other = store.recent_fingerprints("//:t", "/other").expect("readable");
    assert_eq!(other[0].1, b"fields 2");
    assert_eq!(store.fingerprint(&recorded[0]).expect("readable"), None);
    assert_eq!(store.recent_fingerprints("//:unknown", "/own").expect("readable"), []);
}

#[test]
fn a_hit_makes_an_old_fingerprint_the_newest() {
    let trial = Trial::new();
    let store = trial.open();
    let old = record(&store, "old", &[]);
    advance_clock(10);
    let mut new = put(&store, "new", &[]);
    new.label.clone_from(&old.label);
    store.record(new.clone(), b"new").expect("recorded");
    store.note_run(run(&old.label, "/work/a", "old", "hit", 1));
    let recent = store.recent_fingerprints(&old.label, "/work/a").expect("readable");
    assert_eq!(recent.iter().map(|(action, _)| *action).collect::<Vec<_>>(), [old.action, new.action]);
}

#[test]
fn another_repository_in_the_same_store_explains_and_estimates_nothing() {
    let trial = Trial::new();
    let store = trial.open();
    let made = |name: &str, workspace: &str| {
        let mut result = put(&store, name, &[]);
        result.label = "//:t".to_owned();
        result.workspace = workspace.to_owned();
        advance_clock(10);
        store.record(result, name.as_bytes()).expect("recorded");
    };
    made("own", "shop/one");
    store.note_run(run("//:t", "shop/one", "own", "ran", 100));
    let recent = |workspace: &str| -> Vec<Vec<u8>> {
        let recent = store.recent_fingerprints("//:t", workspace).expect("readable");
        recent.into_iter().map(|(_, bytes)| bytes).collect()
    };
    let known = |workspace: &str| store.history(workspace, &["//:t"]).expect("readable").remove("//:t");
    assert_eq!(recent("shop/two"), [b"own"]);
    assert_eq!(known("shop/two").and_then(|known| known.duration_ms), Some(100));
    for other in ["bank/one", "sho/p", "shop2/one", "/shop/one", ""] {
        assert_eq!((recent(other), known(other)), (Vec::new(), None), "{other:?}");
    }
    for number in 0..2 * FINGERPRINTS_PER_TASK {
        made(&format!("bank {number}"), "bank/one");
    }
    assert_eq!(recent("shop/one"), [b"own"], "a busy repository does not push out another's");
    assert_eq!(recent("bank/one").len(), FINGERPRINTS_PER_TASK);
}

#[test]
fn asked_of_very_many_tasks_it_is_what_is_known_of_each() {
    let trial = Trial::new();
    let store = trial.open();
    // A name that a pattern would take for another, and one of another repository.
    for (label, workspace) in [("//:t", "/a"), ("//:t_1", "/a"), ("//:b", "/b"), ("//:other", "other/x")] {
        store.note_run(run(label, workspace, label, "ran", 100));
    }
    let mut labels: Vec<String> = (0..3000).map(|number| format!("//:n{number}")).collect();
    labels.extend(["//:t", "//:t_1", "//:b", "//:other"].map(str::to_owned));
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let many = store.history("/a", &labels).expect("readable");
    let one_by_one: std::collections::BTreeMap<String, History> =
        labels.iter().filter_map(|label| Some(((*label).to_owned(), history(&store, label)?))).collect();
    assert_eq!(many, one_by_one);
    assert!(many.contains_key("//:t") && !many.contains_key("//:other"));
}
