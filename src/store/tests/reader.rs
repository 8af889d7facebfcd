//! Blobs read piece by piece.

use std::io::Read;

use crate::base::digest::Digest;
use crate::base::limits::INLINE_BLOB_BYTES_MAX;
use crate::fs::ops;
use crate::store::tests::trial::{Trial, content_file, noise};

#[test]
fn what_is_read_piece_by_piece_is_what_was_put() {
    let trial = Trial::new();
    let store = trial.open();
    for bytes in [Vec::new(), b"small".to_vec(), noise("one", INLINE_BLOB_BYTES_MAX + 1)] {
        let digest = store.put_bytes(&bytes).expect("it is put");
        let mut reader = store.reader(&digest).expect("it is opened").expect("it is there");
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("it is read");
        assert_eq!((read.len() as u64, &read), (reader.size, &bytes));
    }
    assert!(store.reader(&Digest::of(b"nothing")).expect("it is looked for").is_none());
}

#[test]
fn a_damaged_blob_ends_with_an_error() {
    let trial = Trial::new();
    let store = trial.open();
    let mut bytes = noise("two", INLINE_BLOB_BYTES_MAX + 1);
    let digest = store.put_bytes(&bytes).expect("it is put");
    store.flush().expect("it is written");
    let file = content_file(&store, "blobs", &digest);
    bytes[7] ^= 1;
    ops::set_mode(&file, 0o644).expect("ours");
    ops::write(&file, &bytes).expect("writable");
    let mut reader = store.reader(&digest).expect("it is opened").expect("it is there");
    let error = reader.read_to_end(&mut Vec::new()).expect_err("it is damaged");
    assert!(error.to_string().contains("verify --repair"), "{error}");
}

#[test]
fn a_file_that_is_taken_is_gone_and_there() {
    let trial = Trial::new();
    let store = trial.open();
    let stage = store.stage().expect("a stage");
    for bytes in [b"small".to_vec(), noise("three", INLINE_BLOB_BYTES_MAX + 1)] {
        // The second time the store has it.
        for _ in 0..2 {
            let file = stage.path().join("file");
            ops::write(&file, &bytes).expect("writable");
            let (digest, size) = store.take_file(&file).expect("it is taken");
            assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));
            assert!(!ops::exists(&file));
            assert_eq!(store.read(&digest).expect("it is read"), Some(bytes.clone()));
        }
    }
}
