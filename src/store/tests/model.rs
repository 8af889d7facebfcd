//! Random sequences of operations against a map that says what must be found.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::base::digest::Digest;
use crate::fs::ops;
use crate::store::tests::trial::{Trial, action, advance_clock, content_file, noise, put};
use crate::store::{ActionResult, GcMode, GcOptions, Recorded, VerifyMode, VerifyOptions};

#[derive(Clone, Debug)]
enum Step {
    Record { name: u8, content: u8, beside: u8 },
    Lookup { name: u8 },
    Reopen,
    Flush,
    Collect,
    Shrink,
    Damage { content: u8 },
    Verify,
    Second { name: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..5_u8;
    let content = 0..6_u8;
    let step = prop_oneof![
        6 => (name.clone(), content.clone(), content.clone())
            .prop_map(|(name, content, beside)| Step::Record { name, content, beside }),
        6 => name.clone().prop_map(|name| Step::Lookup { name }),
        2 => Just(Step::Reopen),
        1 => Just(Step::Flush),
        1 => Just(Step::Collect),
        1 => Just(Step::Shrink),
        1 => content.prop_map(|content| Step::Damage { content }),
        1 => Just(Step::Verify),
        2 => name.prop_map(|name| Step::Second { name }),
    ];
    prop::collection::vec(step, 1..40)
}

/// Even ones lie in the database, odd ones are files.
fn bytes_of(content: u8) -> Vec<u8> {
    noise(&format!("content {content}"), if content.is_multiple_of(2) { 300 } else { 72_000 })
}

struct Model {
    /// What was recorded first under each action, and which contents it has.
    results: BTreeMap<u8, (ActionResult, [u8; 2])>,
}

impl Model {
    fn expect(&self, name: u8) -> Option<&ActionResult> {
        self.results.get(&name).map(|(result, _)| result)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_in_which_the_first_result_stays(steps in steps()) {
        let trial = Trial::new();
        let mut store = trial.open();
        let mut model = Model { results: BTreeMap::new() };
        for step in steps {
            advance_clock(1000);
            match step {
                Step::Record { name, content, beside } => {
                    let own = [name; 40];
                    let files: [(&str, &[u8]); 3] = [("x", &bytes_of(content)), ("y", &bytes_of(beside)), ("z", &own)];
                    let result = put(&store, &name.to_string(), &files);
                    let recorded = store.record(result.clone(), &[name]).expect("recorded");
                    let expect = match model.expect(name) {
                        None => Recorded::Stored,
                        Some(first) if first.outputs == result.outputs => Recorded::Agrees,
                        Some(first) => Recorded::Differs { kept: first.outputs },
                    };
                    prop_assert_eq!(recorded, expect);
                    model.results.entry(name).or_insert((result, [content, beside]));
                }
                Step::Lookup { name } => {
                    let found = store.lookup(&action(&name.to_string())).expect("no error");
                    prop_assert_eq!(found.as_ref(), model.expect(name));
                    if found.is_some() {
                        for bytes in model.results[&name].1.map(bytes_of).into_iter().chain([vec![name; 40]]) {
                            prop_assert_eq!(store.read(&Digest::of(&bytes)).expect("no error"), Some(bytes));
                        }
                    }
                }
                Step::Reopen => {
                    drop(store);
                    store = trial.open();
                }
                Step::Flush => store.flush().expect("written"),
                Step::Collect => {
                    store.renew_lease().expect("renewed");
                    let options = GcOptions { mode: GcMode::Delete, bytes_max: Some(u64::MAX), keep_days: None };
                    let report = store.gc(options).expect("collected");
                    prop_assert_eq!(report.results_kept, model.results.len() as u64);
                }
                Step::Shrink => {
                    store.renew_lease().expect("renewed");
                    let used = store.database.read("read the usage", super::super::gc::used_bytes).expect("readable");
                    let options = GcOptions { mode: GcMode::Delete, bytes_max: Some(used / 2), keep_days: None };
                    store.gc(options).expect("collected");
                    let found = |name: &u8| store.lookup(&action(&name.to_string())).expect("no error");
                    model.results.retain(|name, _| found(name).is_some());
                    for (name, (first, contents)) in &model.results {
                        let now = found(name);
                        prop_assert_eq!(now.as_ref(), Some(first));
                        for bytes in contents.map(bytes_of).into_iter().chain([vec![*name; 40]]) {
                            prop_assert_eq!(store.read(&Digest::of(&bytes)).expect("no error"), Some(bytes));
                        }
                    }
                    let report = store.verify(VerifyOptions { mode: VerifyMode::Report }).expect("verified");
                    prop_assert!(report.is_sound() && report.orphans.is_empty(), "{:?}", report);
                }
                Step::Damage { content } => {
                    let digest = Digest::of(&bytes_of(content));
                    store.flush().expect("written");
                    let file = content_file(&store, "blobs", &digest);
                    if ops::exists(&file) {
                        ops::set_mode(&file, 0o644).expect("ours");
                        ops::write(&file, b"damaged").expect("writable");
                        for (name, _) in model.results.iter().filter(|(_, (_, held))| held.contains(&content)) {
                            prop_assert_eq!(store.lookup(&action(&name.to_string())).expect("no error"), None);
                        }
                        model.results.retain(|_, (_, held)| !held.contains(&content));
                    }
                }
                Step::Verify => {
                    let report = store.verify(VerifyOptions { mode: VerifyMode::Repair }).expect("verified");
                    prop_assert!(report.dangling.is_empty() && report.database.is_empty(), "{:?}", report);
                }
                Step::Second { name } => {
                    store.flush().expect("written");
                    let other = trial.open();
                    let found = other.lookup(&action(&name.to_string())).expect("no error");
                    prop_assert_eq!(found.as_ref(), model.expect(name));
                }
            }
        }
    }
}
