//! Whose files are in a root that a command may change. Plain data with its wire form; watches nothing itself.

use std::collections::BTreeMap;

use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::path::RelPath;

/// User and group of a file, as numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Owner {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
}

/// Owners by path from the root, where they are not 0:0; of links that of the link itself.
pub type Owners = BTreeMap<RelPath, Owner>;

/// Whose files are when a command has ended.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Owned {
    /// Of everything in the root.
    pub owners: Owners,
    /// Why this is not all; then it is of no use.
    pub trouble: Option<String>,
}

/// Writes owners.
pub fn encode_owners(encoder: &mut Encoder, owners: &Owners) {
    encoder.u64(owners.len() as u64);
    for (path, owner) in owners {
        encoder.bytes(path.as_str().as_bytes()).u64(owner.user.into()).u64(owner.group.into());
    }
}

/// Reads them back.
pub fn decode_owners(decoder: &mut Decoder<'_>) -> Result<Owners, DecodeError> {
    let mut owners = Owners::new();
    for _ in 0..decoder.u64()? {
        let path = RelPath::parse(decoder.text("path")?).map_err(|_| DecodeError::Invalid { what: "path" })?;
        let mut number = || u32::try_from(decoder.u64()?).map_err(|_| DecodeError::Invalid { what: "owner" });
        owners.insert(path, Owner { user: number()?, group: number()? });
    }
    Ok(owners)
}

impl Owned {
    /// Nothing is known, for this reason.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { owners: Owners::new(), trouble: Some(reason.into()) }
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u8(u8::from(self.trouble.is_some())).bytes(self.trouble.as_deref().unwrap_or_default().as_bytes());
        encode_owners(&mut encoder, &self.owners);
        encoder.into_vec()
    }

    /// Reads it back.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let has_trouble = decoder.u8()? == 1;
        let trouble = decoder.text("trouble")?.to_owned();
        let owners = decode_owners(&mut decoder)?;
        decoder.finish()?;
        Ok(Self { owners, trouble: has_trouble.then_some(trouble) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_arrive_as_they_were_sent() {
        let rel = |text| RelPath::parse(text).expect("a good path");
        let owners = Owners::from([
            (RelPath::root(), Owner { user: 1, group: 0 }),
            (rel("a/ü"), Owner { user: 0, group: u32::MAX - 1 }),
        ]);
        for trouble in [None, Some("it is too much".to_owned())] {
            let owned = Owned { owners: owners.clone(), trouble };
            let bytes = owned.encode();
            assert_eq!(Owned::decode(&bytes).as_ref(), Ok(&owned));
            for end in 0..bytes.len() {
                assert!(Owned::decode(&bytes[..end]).is_err(), "cut at {end}");
            }
        }
    }
}
