//! Reading ahead gives what was put and nothing else, in whatever order it is asked for.

use crate::base::digest::Digest;
use crate::store::Ahead;
use crate::store::content::Key;
use crate::store::open::Store;
use crate::store::tests::trial::Trial;

fn text(number: usize) -> Vec<u8> {
    format!("content {number} ").repeat(number % 7 + 1).into_bytes()
}

fn put(store: &Store, count: usize) -> Vec<(Digest, u64)> {
    let all = (0..count).map(text).map(|bytes| (store.put_bytes(&bytes).expect("it can be put"), bytes.len() as u64));
    let all = all.collect();
    store.flush().expect("it can be written");
    all
}

#[test]
fn contents_are_given_in_any_order_and_more_than_once() {
    let trial = Trial::new();
    let store = trial.open();
    let mut wanted = put(&store, 1200);
    wanted.extend_from_within(..10);
    let mut ahead = Ahead::new(&store, wanted.clone());
    for (at, (digest, _)) in wanted.iter().enumerate().filter(|(at, _)| at % 3 != 1) {
        assert_eq!(ahead.get(digest).expect("readable"), Some(text(at % 1200).as_slice()), "{at}");
    }
    assert_eq!(ahead.get(&Digest::of(b"never asked for")).expect("no error"), None);
}

#[test]
fn what_is_missing_damaged_or_of_another_size_is_not_given() {
    let trial = Trial::new();
    let store = trial.open();
    let mut wanted = put(&store, 4);
    let gone = Digest::of(b"gone");
    wanted.push((gone, 4));
    wanted[3].1 += 1;
    let damage = |connection: &rusqlite::Connection| {
        connection.execute(
            "UPDATE content_bytes SET bytes = x'00' WHERE id = (SELECT body FROM content WHERE kind = 0 AND digest = ?1)",
            [wanted[1].0.as_bytes()],
        )
    };
    assert_eq!(store.database.write("damage", &mut None, damage).expect("written"), 1);
    let mut ahead = Ahead::new(&store, wanted.clone());
    let found: Vec<bool> = wanted.iter().map(|(digest, _)| ahead.get(digest).expect("no error").is_some()).collect();
    assert_eq!(found, [true, false, true, false, false]);
    assert_eq!(store.load(&Key::blob(wanted[1].0)).expect("no error"), None);
}
