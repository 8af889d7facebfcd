//! A census as it lies in a file: two fifths of what it is in memory, and read as fast as the rest of it would be. Does no I/O.
//!
//! The number of directories, then each: its base, its path, the number of its claims, then each claim: name, aspect and what holds of
//! it, owner, signature, digest unless that is nothing. Names, owners and signatures are written as what tells them from the ones
//! before ([`crate::workspace::nearby`]). Whoever saves it seals it; whatever the bytes are, reading them does not panic.

use crate::base::compact::{Pool, Reader, Writer};
use crate::base::digest::DIGEST_LEN;
use crate::workspace::census::{
    Base, CLAIM_LEN, Census, DIR_LEN, Names32, assemble, encode_dir, encode_raw, raw_stat, without_nul,
};
use crate::workspace::nearby::{self, Names, Stats};

/// Set in what holds of a claim if its digest is nothing but zeros.
const NO_DIGEST: u8 = 1 << 7;
/// Bytes that a claim takes at least.
const CLAIM_LEN_MIN: usize = 7;

/// What tells what comes next from what came before.
#[derive(Default)]
struct Last {
    paths: Names,
    names: Names,
    stats: Stats,
    owner: u64,
}

/// The bytes for a file; `None` for what is no census.
pub fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    let census = Census::of(bytes)?;
    let mut writer = Writer::new();
    let mut last = Last::default();
    writer.length(census.dir_count());
    writer.length(census.len());
    for index in 0..census.dir_count() {
        let place = census.dir(index);
        writer.byte(u8::from(place.base == Base::Machine));
        last.paths.put(&mut writer, without_nul(place.path));
        let (first, behind) = place.claims;
        writer.length(behind - first);
        for at in first..behind {
            put_claim(&mut writer, &mut last, without_nul(census.name(at)), census.raw(at).first_chunk()?);
        }
    }
    Some(writer.drain())
}

fn put_claim(writer: &mut Writer, last: &mut Last, name: &[u8], raw: &[u8; CLAIM_LEN]) {
    let (owner, digest) = raw.split_at(8).1.split_at(4);
    let digest = &digest[CLAIM_LEN - DIGEST_LEN - 12..];
    let owner = u64::from(u32::from_le_bytes(owner.try_into().expect("four bytes")));
    let is_none = digest.iter().all(|byte| *byte == 0);
    last.names.put(writer, name);
    writer.byte(raw[6]);
    writer.byte(raw[7] | if is_none { NO_DIGEST } else { 0 });
    writer.number(nearby::difference(owner, last.owner));
    last.owner = owner;
    last.stats.put(writer, &raw_stat(raw));
    if !is_none {
        writer.raw(digest);
    }
}

/// The census that [`pack`] was given.
pub fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(packed, Pool::none());
    let (dir_count, claim_count) = (reader.length()?, reader.length()?);
    let mut dirs = Vec::with_capacity(dir_count * DIR_LEN);
    let mut claims = Vec::with_capacity(claim_count.min(packed.len() / CLAIM_LEN_MIN) * CLAIM_LEN);
    // About as much as the names take.
    let mut names = Names32(Vec::with_capacity(packed.len() / 4));
    let (mut last, mut count) = (Last::default(), 0_u32);
    for _ in 0..dir_count {
        let base = if reader.byte()? == 0 { Base::Workspace } else { Base::Machine };
        let path = last.paths.take(&mut reader)?.to_vec();
        let first = count;
        let mut known = None;
        for _ in 0..reader.length()? {
            let (name, is_same) = last.names.take_or_same(&mut reader)?;
            let place = match known {
                Some(place) if is_same => place,
                _ => names.add(name)?,
            };
            known = Some(place);
            take_claim(&mut reader, &mut last, &mut claims, place)?;
            count = count.checked_add(1)?;
        }
        encode_dir(&mut dirs, base, names.add(&path)?, first..count);
    }
    (reader.is_at_end() && count as usize == claim_count).then(|| assemble(&dirs, &claims, &names))?
}

fn take_claim(reader: &mut Reader<'_>, last: &mut Last, claims: &mut Vec<u8>, place: (u32, u16)) -> Option<()> {
    let (aspect, holds) = (reader.byte()?, reader.byte()?);
    last.owner = nearby::sum(last.owner, reader.number()?);
    let owner = u32::try_from(last.owner).ok()?;
    let stat = last.stats.take(reader)?;
    let digest = if holds & NO_DIGEST == 0 { reader.raw(DIGEST_LEN)?.first_chunk()? } else { &[0; DIGEST_LEN] };
    encode_raw(claims, place, [aspect, holds & !NO_DIGEST], owner, &stat, digest);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::digest::Digest;
    use crate::base::tree::Entry;
    use crate::fs::stat::StatKey;
    use crate::workspace::census::{Draft, Role};
    use crate::workspace::fixture::path;

    fn stat(number: u64) -> StatKey {
        let time = 1_700_000_000_000_000_000 + number.cast_signed() * 1_000;
        StatKey { size: number % 7, mtime_ns: time, ctime_ns: time + 1, inode: 90 + number, device: 5, mode: 0o100_644 }
    }

    fn census() -> Vec<u8> {
        let mut draft = Draft::new(Path::new("/work"));
        for number in 0..60_u64 {
            let at = path(&format!("packages/p{}/src/file{number:03}.ts", number / 9));
            let digest = Digest::of(&number.to_le_bytes());
            let role = if number % 3 == 0 { Role::Output(u32::try_from(number).expect("small")) } else { Role::Source };
            let entry = Entry::File { digest, size: number % 7, executable: false };
            draft.add_entry(&at, &entry, stat(number), role, number % 2 == 0);
            if number % 5 == 0 {
                // A second claim on the same name, and on names of a directory.
                draft.add_absence(&at, role);
                draft.add_names(&path("packages"), stat(number), digest, Role::Structure, true);
            }
        }
        draft.add_absence(&path("top"), Role::Structure);
        draft.finish().expect("it fits").0
    }

    #[test]
    fn what_was_packed_is_the_same_again_and_takes_less() {
        let census = census();
        let packed = pack(&census).expect("a census");
        assert_eq!(unpack(&packed).expect("whole"), census);
        assert!(packed.len() * 2 < census.len(), "{} of {}", packed.len(), census.len());
        let nothing = Draft::new(Path::new("/work")).finish().expect("it fits").0;
        assert_eq!(unpack(&pack(&nothing).expect("a census")), Some(nothing));
        assert_eq!(pack(b"no census"), None);
    }

    #[test]
    fn what_is_cut_or_goes_on_is_none() {
        let packed = pack(&census()).expect("a census");
        for length in 0..packed.len() {
            assert_eq!(unpack(&packed[..length]), None, "{length}");
        }
        assert_eq!(unpack(&[packed.as_slice(), &[0]].concat()), None);
        for at in 0..packed.len() {
            let mut bad = packed.clone();
            bad[at] ^= 0x41;
            // Whatever it is now, it can be looked at.
            if let Some(census) = unpack(&bad) {
                let census = Census::of(&census).expect("a census");
                assert!((0..census.dir_count()).all(|dir| census.dir(dir).claims.1 <= census.len()), "byte {at}");
            }
        }
    }
}
