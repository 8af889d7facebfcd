//! Scratch directories: whose they are, and that they go.

use crate::fs::ops;
use crate::store::tests::trial::Trial;

#[test]
fn a_mount_point_is_one_for_all_and_made_again_if_it_vanishes() {
    let trial = Trial::new();
    let store = trial.open();
    let first = store.mount_point().expect("there is room");
    assert_eq!(store.mount_point().expect("it is there"), first);
    assert_eq!(ops::read_dir(&first).expect("a directory").len(), 0);
    ops::remove_dir(&first).expect("it is empty");
    let second = store.mount_point().expect("there is room");
    assert!(ops::exists(&second));
    drop(store);
    assert!(!ops::exists(&second), "it goes with the session");
}

#[test]
fn what_is_staged_in_memory_is_apart_and_goes() {
    let trial = Trial::new();
    let store = trial.open();
    // Not every machine has a safe place for it.
    let Some(one) = store.stage_in_memory() else { return };
    let other = store.stage_in_memory().expect("there was room just now");
    assert_ne!(one.path(), other.path());
    assert!(!one.path().starts_with(store.dir()));
    let (gone, above) = (one.path().to_owned(), other.path().parent().expect("it has one").to_owned());
    ops::write(&gone.join("file"), b"x").expect("it is ours");
    drop(one);
    assert!(!ops::exists(&gone) && ops::exists(other.path()));
    assert!(!store.ran_out_of_memory());
    drop((other, store));
    assert!(!ops::exists(&above), "all of it goes with the session");
}
