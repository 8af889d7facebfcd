//! How long tasks took, as the archive that was imported last says: known alike to all who imported it. Decides nothing.
//!
//! Machines that share work must agree on what they know. Their histories differ as soon as each has run its own share, so
//! they are no basis; an archive is. One file in the store: magic (8 bytes), `u64` count, per task its label and `u64` milliseconds, in byte
//! order of the labels, then BLAKE3 over everything before. A damaged file is an empty one.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::fs::atomic::{self, Durability};
use crate::fs::ops::{self, FsError};
use crate::store::results::ActionResult;

const MAGIC: [u8; 8] = *b"dryst\0d1";

/// Milliseconds by label, as the archive that the store in `dir` imported last says. Needs no open store.
pub fn imported_durations(dir: &Path) -> BTreeMap<String, u64> {
    let bytes = ops::read(&file(dir)).ok();
    bytes.and_then(|bytes| decode(&bytes).ok()).unwrap_or_default()
}

/// Keeps what an archive says, in place of what earlier ones said. Of several results of a label the newest counts.
pub(super) fn keep<'r>(dir: &Path, results: impl Iterator<Item = &'r ActionResult>) -> Result<(), FsError> {
    let mut newest: BTreeMap<&str, &ActionResult> = BTreeMap::new();
    for result in results {
        let age = |result: &ActionResult| (result.created_ms, result.action);
        let known = newest.entry(&result.label).or_insert(result);
        if age(result) > age(known) {
            *known = result;
        }
    }
    let mut encoder = Encoder::new();
    encoder.bytes(&MAGIC).u64(newest.len() as u64);
    for (label, result) in newest {
        encoder.bytes(label.as_bytes()).u64(result.duration_ms);
    }
    atomic::write(&file(dir), &encoder.into_sealed(), Durability::Relaxed)
}

fn file(dir: &Path) -> std::path::PathBuf {
    dir.join("durations")
}

fn decode(bytes: &[u8]) -> Result<BTreeMap<String, u64>, DecodeError> {
    let mut decoder = Decoder::sealed(bytes)?;
    if decoder.bytes()? != MAGIC {
        return Err(DecodeError::Invalid { what: "header" });
    }
    let mut all = BTreeMap::new();
    for _ in 0..decoder.u64()? {
        let label = decoder.text("label")?.to_owned();
        all.insert(label, decoder.u64()?);
    }
    decoder.finish()?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::Digest;

    #[test]
    fn the_newest_result_of_a_label_counts_and_damage_is_noticed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let result = |label: &str, created_ms: i64, duration_ms: u64| ActionResult {
            action: Digest::of(format!("{label}{created_ms}").as_bytes()),
            outputs: Digest::of(b""),
            stdout_stderr: Digest::of(b""),
            exit: 0,
            isolation: "none".into(),
            duration_ms,
            cpu_ms: 0,
            max_rss_kib: 0,
            label: label.into(),
            workspace: "r/w".into(),
            created_ms,
        };
        let results = [result("//:a", 2, 20), result("//:a", 1, 10), result("//:b", 1, 5)];
        keep(dir.path(), results.iter()).expect("written");
        let expect = BTreeMap::from([("//:a".to_owned(), 20), ("//:b".to_owned(), 5)]);
        assert_eq!(imported_durations(dir.path()), expect);
        let whole = ops::read(&file(dir.path())).expect("it is there");
        for cut in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[cut] ^= 1;
            assert!(decode(&whole[..cut]).is_err() && decode(&flipped).is_err(), "{cut}");
        }
        keep(dir.path(), results[2..].iter()).expect("written");
        assert_eq!(imported_durations(dir.path()).len(), 1);
    }
}
