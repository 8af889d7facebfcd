//! What became of single tasks and files since a run was kept: frames appended to a file beside it. Knows nothing of what they mean.
//!
//! A frame: `u64` length of its body, the body, BLAKE3 over the identity of the file it belongs to and the body. A body: claims with
//! their positions, then tasks with theirs, then perhaps git's index. A frame that is damaged or of another file
//! ends what is read: what it said is found out anew, since all that is kept is compared with the disk.

use std::path::{Path, PathBuf};

use crate::base::digest::{DIGEST_LEN, Digest};
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::engine::settled::{StoodLine, decode_stood, encode_stood};
use crate::engine::tracked::CleanIndex;
use crate::fs::ops::{self, FsError};
use crate::workspace::census::{Census, Claim};

/// Journals grow to this, in bytes, before all is kept anew.
pub const JOURNAL_BYTES_MAX: usize = 1 << 20;

const EXTENSION: &str = "journal";

/// What a task stands by, with its listing as it is encoded.
pub type StoodNow = (StoodLine, Vec<u8>);

/// What is new.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// Claims by position.
    pub claims: Vec<(u32, Claim)>,
    /// What tasks stand by now, by position; `None` for one that does not stand.
    pub lines: Vec<(usize, Option<StoodNow>)>,
    /// Git's index, if no output was found in it.
    pub index: Option<CleanIndex>,
}

impl Patch {
    /// Whether nothing is new.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.lines.is_empty() && self.index.is_none()
    }
}

/// The journal of a file.
pub fn file(base: &Path) -> PathBuf {
    base.with_extension(EXTENSION)
}

/// Whether a name is that of a file with this prefix, rather than of a journal.
pub fn is_base(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| !rest.contains('.'))
}

/// Appends a frame in one write.
pub fn append(file: &Path, id: &Digest, patch: &Patch) -> Result<(), FsError> {
    let body = encode(patch);
    let mut frame = Vec::with_capacity(body.len() + 8 + DIGEST_LEN);
    frame.extend_from_slice(&(body.len() as u64).to_le_bytes());
    frame.extend_from_slice(&body);
    frame.extend_from_slice(seal(id, &body).as_bytes());
    ops::write_all(&ops::open_append(file)?, file, &frame)
}

/// The frames that belong to a file, as far as they are whole.
pub fn read(bytes: &[u8], id: &Digest) -> Vec<Patch> {
    let mut patches = Vec::new();
    let mut left = bytes;
    while let Some((length, rest)) = left.split_first_chunk::<8>() {
        let Some((body, rest)) =
            usize::try_from(u64::from_le_bytes(*length)).ok().and_then(|length| rest.split_at_checked(length))
        else {
            break;
        };
        let Some((checksum, rest)) = rest.split_first_chunk::<DIGEST_LEN>() else { break };
        if seal(id, body).as_bytes() != checksum {
            break;
        }
        let Ok(patch) = decode(body) else { break };
        patches.push(patch);
        left = rest;
    }
    patches
}

fn seal(id: &Digest, body: &[u8]) -> Digest {
    let mut encoder = Encoder::new();
    encoder.digest(id).bytes(body);
    Digest::of(encoder.as_slice())
}

fn encode(patch: &Patch) -> Vec<u8> {
    let Patch { claims, lines, index } = patch;
    let mut encoder = Encoder::new();
    encoder.u64(claims.len() as u64);
    for (position, claim) in claims {
        encoder.u64(u64::from(*position)).bytes(&Census::encode(claim));
    }
    encoder.u64(lines.len() as u64);
    for (position, line) in lines {
        encoder.u64(*position as u64).u8(u8::from(line.is_some()));
        if let Some((stood, listing)) = line {
            encode_stood(&mut encoder, stood, &[]);
            encoder.bytes(listing);
        }
    }
    CleanIndex::encode(index.as_ref(), &mut encoder);
    encoder.into_vec()
}

fn decode(body: &[u8]) -> Result<Patch, DecodeError> {
    let wrong = |what| DecodeError::Invalid { what };
    let mut decoder = Decoder::new(body);
    let mut patch = Patch::default();
    for _ in 0..decoder.u64()? {
        let position = u32::try_from(decoder.u64()?).map_err(|_| wrong("claim"))?;
        patch.claims.push((position, Census::decode(decoder.bytes()?).ok_or(wrong("claim"))?));
    }
    for _ in 0..decoder.u64()? {
        let position = usize::try_from(decoder.u64()?).map_err(|_| wrong("task"))?;
        let line = match decoder.u8()? {
            0 => None,
            _ => Some((decode_stood(&mut decoder, body.len())?, decoder.bytes()?.to_vec())),
        };
        patch.lines.push((position, line));
    }
    patch.index = CleanIndex::decode(&mut decoder)?;
    decoder.finish()?;
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tree::Listing;
    use crate::engine::standing::{KeptLog, Stood};
    use crate::fs::stat::StatKey;
    use crate::workspace::census::{Aspect, Role};
    use crate::workspace::git_index::ObjectNames;

    fn patch(text: &str) -> Patch {
        let digest = Digest::of(text.as_bytes());
        let stat = StatKey { size: 1, mtime_ns: -2, ctime_ns: 3, inode: 4, device: 5, mode: 0o100_644 };
        let claim =
            Claim { aspect: Aspect::File, role: Role::Output(7), is_there: true, is_settled: false, stat, digest };
        let stood = StoodLine::of(
            &Stood {
                memo: digest,
                key: digest,
                outputs: digest,
                listing: std::sync::Arc::new(Listing::new()),
                log: KeptLog::Here(vec![1]),
                isolation: "none".into(),
                duration_ms: 9,
                history: None,
                used_ms: 0,
            },
            Some(digest),
        );
        let lines = vec![(0, None), (2, Some((stood, b"listing".to_vec())))];
        let names = Some((ObjectNames::Long, digest));
        Patch { claims: vec![(3, claim)], lines, index: Some(CleanIndex { file: "/x/.git/index".into(), stat, names }) }
    }

    #[test]
    fn frames_are_read_as_far_as_they_are_whole_and_of_this_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("settled-x.journal");
        let id = Digest::of(b"id");
        append(&file, &id, &patch("one")).expect("written");
        let first = ops::read(&file).expect("there").len();
        append(&file, &id, &patch("two")).expect("written");
        let bytes = ops::read(&file).expect("there");
        let texts = |bytes: &[u8], id: &Digest| -> Vec<Vec<u8>> { read(bytes, id).iter().map(encode).collect() };
        let (one, two) = (encode(&patch("one")), encode(&patch("two")));
        assert_eq!(texts(&bytes, &id), [one.clone(), two]);
        assert!(read(&bytes, &Digest::of(b"another")).is_empty());
        for end in 0..bytes.len() {
            assert_eq!(texts(&bytes[..end], &id).len(), usize::from(end >= first), "cut at {end}");
            let mut bad = bytes.clone();
            bad[end] ^= 1;
            assert_eq!(texts(&bad, &id).len(), usize::from(end >= first), "byte {end}");
        }
    }
}
