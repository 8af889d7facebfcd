//! Which digests were given which tags from here, and when: lines of JSON, appended. Asks no registry.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::fs::ops::{self, FsError};

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A tag that was given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tagged {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Host and repository.
    pub place: String,
    /// The tag.
    pub tag: String,
    /// What it points at.
    pub digest: String,
    /// Where the image came from: a label, a path, or the place that it was promoted from.
    pub from: String,
}

/// Adds what was given. Lines of other processes may come between them, never into them.
pub fn note(file: &Path, given: &[Tagged]) -> Result<(), FsError> {
    let mut lines = Vec::new();
    for one in given {
        serde_json::to_writer(&mut lines, one).expect("texts and numbers always become JSON");
        lines.push(b'\n');
    }
    if lines.is_empty() {
        return Ok(());
    }
    ops::write_all(&ops::open_append(file)?, file, &lines)
}

/// What was given, latest first; only that of one place if it is told. Lines that are damaged are left out.
pub fn given(file: &Path, place: Option<&str>) -> Result<Vec<Tagged>, FsError> {
    if ops::if_there(ops::symlink_metadata(file))?.is_none_or(|meta| meta.len() > FILE_BYTES_MAX) {
        return Ok(Vec::new());
    }
    let bytes = ops::read(file)?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let known = lines.filter_map(|line| serde_json::from_slice::<Tagged>(line).ok());
    let mut all: Vec<Tagged> = known.filter(|one| place.is_none_or(|place| one.place == place)).collect();
    all.reverse();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(at_ms: i64, place: &str) -> Tagged {
        let text = |text: &str| text.to_owned();
        Tagged { at_ms, place: text(place), tag: text("1"), digest: text("sha256:0"), from: text("//:web") }
    }

    #[test]
    fn what_was_noted_is_told_latest_first() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("tags");
        assert_eq!(given(&file, None).expect("nothing is there"), []);
        note(&file, &[tagged(1, "a.example/x"), tagged(2, "a.example/y")]).expect("it is written");
        note(&file, &[tagged(3, "a.example/x")]).expect("it is written");
        ops::write_all(&ops::open_append(&file).expect("ours"), &file, b"{\"half").expect("it is written");
        let times = |place| given(&file, place).expect("it is read").iter().map(|one| one.at_ms).collect::<Vec<_>>();
        assert_eq!(times(None), [3, 2, 1]);
        assert_eq!(times(Some("a.example/x")), [3, 1]);
    }
}
