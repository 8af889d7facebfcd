//! The ledger: who got what, what disagrees, and what of it travels.

use rusqlite::Connection;

use crate::base::digest::Digest;
use crate::store::tests::trial::{Trial, action, put, record};
use crate::store::{Execution, Recorded, Store};

fn execution(name: &str, outputs: &str) -> Execution {
    Execution {
        action: action(name),
        outputs: Digest::of(outputs.as_bytes()),
        label: format!("//:{name}"),
        workspace: "repository/here".to_owned(),
    }
}

fn disagreeing(store: &Store) -> Vec<String> {
    let all = store.disagreements(usize::MAX).expect("readable");
    all.into_iter().map(|one| one.label).collect()
}

#[test]
fn an_action_that_came_to_two_things_is_found_without_looking_for_it() {
    let trial = Trial::new();
    let store = trial.open();
    for (name, outputs) in [("b", "1"), ("same", "1"), ("b", "2"), ("a", "1"), ("same", "1"), ("a", "2"), ("a", "1")] {
        store.note_execution(execution(name, outputs)).expect("it can be entered");
    }
    assert_eq!(disagreeing(&store), ["//:a", "//:b"]);
    assert_eq!(store.disagreements(1).expect("readable").len(), 1);
    let is_unstable = |name: &str| store.is_unstable(&action(name)).expect("readable");
    assert_eq!((is_unstable("a"), is_unstable("same"), is_unstable("absent")), (true, false, false));
    let times: u64 = store.ledger(&action("a")).expect("readable").iter().map(|line| line.times).sum();
    assert_eq!(times, 3);
    // No result comes of an execution.
    assert_eq!(store.lookup(&action("a")).expect("no error"), None);
}

#[test]
fn a_store_in_which_nothing_disagrees_is_not_asked() {
    let trial = Trial::new();
    let store = trial.open();
    record(&store, "a", &[("x", b"1")]);
    store.flush().expect("written");
    assert!(!store.has_unstable() && store.unstable("repository/here").expect("nothing to read").is_empty());
    store.note_execution(execution("a", "other")).expect("it can be entered");
    store.flush().expect("written");
    assert!(store.has_unstable());
}

#[test]
fn a_task_is_unstable_in_its_repository_alone() {
    let trial = Trial::new();
    let store = trial.open();
    for (name, file) in [("build", b"1"), ("build", b"2")] {
        let result = crate::store::ActionResult { workspace: "one/here".into(), ..put(&store, name, &[("x", file)]) };
        store.record(result, b"f").expect("recorded");
    }
    store.flush().expect("written");
    let label = put(&store, "build", &[("x", b"1")]).label;
    let labels = |workspace: &str| store.unstable(workspace).expect("readable").labels;
    assert!(labels("one/here").contains(&label) && labels("one/elsewhere").contains(&label));
    assert!(labels("other/here").is_empty() && labels("on/here").is_empty());
    assert!(store.unstable("other/here").expect("readable").actions.contains(&action("build")));
}

#[test]
fn lines_travel_with_their_machine_and_an_import_counts_once() {
    let (from, to) = (Trial::new(), Trial::new());
    let archive = from.path().join("archive");
    let far = from.open_on("far");
    let made = record(&far, "a", &[("x", b"far")]);
    far.record(made, b"f").expect("recorded");
    far.export(&[action("a")], &archive).expect("written");
    let near = to.open_on("near");
    let own = record(&near, "a", &[("x", b"near")]);
    for _ in 0..2 {
        assert_eq!(near.import(&archive).expect("readable").differing, 1);
    }
    let told: Vec<_> = near.ledger(&action("a")).expect("readable");
    let mut told: Vec<_> = told.into_iter().map(|line| (line.builder, line.machine, line.times)).collect();
    told.sort();
    let of = |name: &str, times| (Some(name.to_owned()), Some(Digest::of(name.as_bytes())), times);
    assert_eq!(told, [of("far", 2), of("near", 1)]);
    assert_eq!(disagreeing(&near), std::slice::from_ref(&own.label));
    // The first result stays, whoever comes with another.
    assert_eq!(near.lookup(&action("a")).expect("no error"), Some(own));
    assert!(disagreeing(&far).is_empty());
}

#[test]
fn a_store_of_before_keeps_its_lines_and_finds_what_disagreed() {
    let trial = Trial::new();
    let first = record(&trial.open(), "a", &[("x", b"1")]);
    let database = trial.store_dir().join("store.db");
    let old = Connection::open(&database).expect("a database");
    old.execute_batch(
        "DROP TABLE unstable; DROP TABLE ledger;
         CREATE TABLE ledger (action BLOB NOT NULL CHECK (length(action) = 32), outputs BLOB NOT NULL CHECK (length(outputs) = 32),
             workspace TEXT NOT NULL, at_ms INTEGER NOT NULL, times INTEGER NOT NULL,
             PRIMARY KEY (action, outputs, workspace)) STRICT, WITHOUT ROWID;
         UPDATE meta SET value = '3' WHERE name = 'schema'; PRAGMA user_version = 3;",
    )
    .expect("our own SQL");
    for (outputs, times) in [(first.outputs, 5), (Digest::of(b"other"), 2)] {
        let row = rusqlite::params![first.action.as_bytes(), outputs.as_bytes(), first.workspace, 7, times];
        old.execute("INSERT INTO ledger VALUES (?1, ?2, ?3, ?4, ?5)", row).expect("a row");
    }
    drop(old);
    let store = trial.open();
    let lines = store.ledger(&first.action).expect("readable");
    assert_eq!(lines.iter().map(|line| line.times).sum::<u64>(), 7);
    for line in &lines {
        assert_eq!((line.machine, line.builder.as_deref(), line.label.as_str()), (None, None, first.label.as_str()));
    }
    assert_eq!(disagreeing(&store), std::slice::from_ref(&first.label));
    assert_eq!(store.record(first, b"f").expect("recorded"), Recorded::Agrees);
}
