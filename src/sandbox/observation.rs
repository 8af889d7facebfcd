//! What a command was seen to do in the workspace. Plain data with its wire form; observes nothing itself.

use std::collections::BTreeMap;

use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::path::RelPath;

/// What was done with one path; several things may have been.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Touch(u16);

impl Touch {
    /// Its content was opened for reading.
    pub const READ: Self = Self(1);
    /// Something about it was asked: whether it is there, its kind, its size.
    pub const LOOKED: Self = Self(2);
    /// Its entries were listed.
    pub const LISTED: Self = Self(4);
    /// Its target was read or followed.
    pub const LINK: Self = Self(8);
    /// It was written, made, removed or renamed, or that was tried.
    pub const WRITTEN: Self = Self(16);
    /// It was executed.
    pub const EXECUTED: Self = Self(32);
    /// It was not there at least once when something was done with it.
    pub const ABSENT: Self = Self(64);
    /// It was renamed, or gave way to what was, or that was tried: what lies beneath it may have gone with it.
    pub const MOVED: Self = Self(128);
    /// It was there at least once when something was done with it.
    pub const FOUND: Self = Self(256);

    /// Whether all of `other` was done.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a command and everything it started touched below the workspace.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Observation {
    /// By path with every link resolved; links that were followed stand for themselves.
    pub paths: BTreeMap<RelPath, Touch>,
    /// Why there may have been more than this; `None` if all was seen.
    pub gap: Option<String>,
}

impl Observation {
    /// Nothing was seen, for this reason.
    pub fn nothing(reason: impl Into<String>) -> Self {
        Self { paths: BTreeMap::new(), gap: Some(reason.into()) }
    }

    /// Whether everything was seen.
    pub fn is_complete(&self) -> bool {
        self.gap.is_none()
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u8(u8::from(self.gap.is_some())).bytes(self.gap.as_deref().unwrap_or_default().as_bytes());
        encoder.u64(self.paths.len() as u64);
        for (path, touch) in &self.paths {
            encoder.bytes(path.as_str().as_bytes()).u64(touch.0.into());
        }
        encoder.into_vec()
    }

    /// Reads it back.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let has_gap = decoder.u8()? == 1;
        let gap = decoder.text("gap")?.to_owned();
        let mut paths = BTreeMap::new();
        for _ in 0..decoder.u64()? {
            let path = RelPath::parse(decoder.text("path")?).map_err(|_| DecodeError::Invalid { what: "path" })?;
            let touch = u16::try_from(decoder.u64()?).map_err(|_| DecodeError::Invalid { what: "touch" })?;
            paths.insert(path, Touch(touch));
        }
        decoder.finish()?;
        Ok(Self { paths, gap: has_gap.then_some(gap) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_arrives_as_it_was_sent() {
        let rel = |text| RelPath::parse(text).expect("a good path");
        let paths = BTreeMap::from([
            (RelPath::root(), Touch::LISTED),
            (rel("a/b"), Touch::READ.and(Touch::LOOKED)),
            (rel("ü"), Touch::LOOKED.and(Touch::ABSENT).and(Touch::FOUND)),
        ]);
        for gap in [None, Some("it is too much".to_owned())] {
            let seen = Observation { paths: paths.clone(), gap };
            let bytes = seen.encode();
            assert_eq!(Observation::decode(&bytes).as_ref(), Ok(&seen));
            for end in 0..bytes.len() {
                assert!(Observation::decode(&bytes[..end]).is_err(), "cut at {end}");
            }
        }
    }
}
