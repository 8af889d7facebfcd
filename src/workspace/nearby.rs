//! Names and signatures of files that lie beside each other, each written as what tells it from the one before: of most that is a few
//! bytes. Does no I/O and knows no format of a file.
//!
//! Whoever keeps such bytes must know that they are whole: reading damaged ones gives nothing, or something else. It never panics.

use crate::base::compact::{Reader, Writer};
use crate::fs::stat::StatKey;

/// Bits of the first byte of a signature: which of its numbers are those of the one before.
const SAME_SIZE: u8 = 1;
const SAME_MTIME: u8 = 1 << 1;
const SAME_CTIME: u8 = 1 << 2;
const SAME_DEVICE: u8 = 1 << 3;
const SAME_MODE: u8 = 1 << 4;
/// The change time is the modification time.
const ONE_TIME: u8 = 1 << 5;

/// The name that was written or read last.
#[derive(Default)]
pub struct Names {
    last: Vec<u8>,
}

impl Names {
    /// Appends a name.
    pub fn put(&mut self, writer: &mut Writer, name: &[u8]) {
        let shared = self.last.iter().zip(name).take_while(|(one, other)| one == other).count();
        writer.length(shared);
        writer.length(name.len() - shared);
        writer.raw(&name[shared..]);
        self.last.truncate(shared);
        self.last.extend_from_slice(&name[shared..]);
    }

    /// Reads a name.
    pub fn take(&mut self, reader: &mut Reader<'_>) -> Option<&[u8]> {
        self.take_or_same(reader).map(|(name, _)| name)
    }

    /// Reads a name, and tells whether it is the one before.
    pub fn take_or_same(&mut self, reader: &mut Reader<'_>) -> Option<(&[u8], bool)> {
        let shared = usize::try_from(reader.number()?).ok().filter(|shared| *shared <= self.last.len())?;
        let length = reader.length()?;
        let is_same = length == 0 && shared == self.last.len();
        self.last.truncate(shared);
        self.last.extend_from_slice(reader.raw(length)?);
        Some((&self.last, is_same))
    }
}

/// The signature that was written or read last.
#[derive(Default)]
pub struct Stats {
    last: StatKey,
}

impl Stats {
    /// Appends a signature.
    pub fn put(&mut self, writer: &mut Writer, stat: &StatKey) {
        let StatKey { size, mtime_ns, ctime_ns, inode, device, mode } = *stat;
        let last = std::mem::replace(&mut self.last, *stat);
        let is_one = ctime_ns == mtime_ns;
        let flags = [
            (size == last.size, SAME_SIZE),
            (mtime_ns == last.mtime_ns, SAME_MTIME),
            (ctime_ns == last.ctime_ns, SAME_CTIME),
            (device == last.device, SAME_DEVICE),
            (mode == last.mode, SAME_MODE),
            (is_one, ONE_TIME),
        ];
        let flags = flags.iter().filter(|(holds, _)| *holds).fold(0, |flags, (_, flag)| flags | flag);
        writer.byte(flags);
        writer.number(difference(inode, last.inode));
        if flags & SAME_SIZE == 0 {
            writer.number(size);
        }
        if flags & SAME_MTIME == 0 {
            writer.number(difference(mtime_ns.cast_unsigned(), last.mtime_ns.cast_unsigned()));
        }
        if flags & (SAME_CTIME | ONE_TIME) == 0 {
            writer.number(difference(ctime_ns.cast_unsigned(), last.ctime_ns.cast_unsigned()));
        }
        if flags & SAME_DEVICE == 0 {
            writer.number(device);
        }
        if flags & SAME_MODE == 0 {
            writer.number(u64::from(mode));
        }
    }

    /// Reads a signature.
    pub fn take(&mut self, reader: &mut Reader<'_>) -> Option<StatKey> {
        let flags = reader.byte()?;
        let stat = &mut self.last;
        stat.inode = sum(stat.inode, reader.number()?);
        if flags & SAME_SIZE == 0 {
            stat.size = reader.number()?;
        }
        if flags & SAME_MTIME == 0 {
            stat.mtime_ns = sum(stat.mtime_ns.cast_unsigned(), reader.number()?).cast_signed();
        }
        if flags & ONE_TIME != 0 {
            stat.ctime_ns = stat.mtime_ns;
        } else if flags & SAME_CTIME == 0 {
            stat.ctime_ns = sum(stat.ctime_ns.cast_unsigned(), reader.number()?).cast_signed();
        }
        if flags & SAME_DEVICE == 0 {
            stat.device = reader.number()?;
        }
        if flags & SAME_MODE == 0 {
            stat.mode = u32::try_from(reader.number()?).ok()?;
        }
        Some(*stat)
    }
}

/// What to add to `last`, small numbers for those near to it on either side.
pub fn difference(number: u64, last: u64) -> u64 {
    let apart = number.wrapping_sub(last).cast_signed();
    ((apart << 1) ^ (apart >> 63)).cast_unsigned()
}

/// Adds what [`difference`] gave.
pub fn sum(last: u64, apart: u64) -> u64 {
    last.wrapping_add((apart >> 1) ^ (apart & 1).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::compact::Pool;

    fn stats() -> impl Strategy<Value = StatKey> {
        let time = prop_oneof![Just(0_i64), 0..10_i64, any::<i64>()];
        let number = prop_oneof![Just(0_u64), 0..10_u64, any::<u64>()];
        let mode = prop_oneof![Just(0o100_644_u32), any::<u32>()];
        (number.clone(), time.clone(), time, number.clone(), number, mode).prop_map(
            |(size, mtime_ns, ctime_ns, inode, device, mode)| StatKey { size, mtime_ns, ctime_ns, inode, device, mode },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(all in prop::collection::vec((stats(), "[a-c/]{0,6}"), 0..20), cut in any::<prop::sample::Index>()) {
            let (mut writer, mut names, mut known) = (Writer::new(), Names::default(), Stats::default());
            for (stat, name) in &all {
                names.put(&mut writer, name.as_bytes());
                known.put(&mut writer, stat);
            }
            let bytes = writer.drain();
            let (mut names, mut known) = (Names::default(), Stats::default());
            let mut reader = Reader::new(&bytes, Pool::none());
            for (stat, name) in &all {
                prop_assert_eq!(names.take(&mut reader), Some(name.as_bytes()));
                prop_assert_eq!(known.take(&mut reader), Some(*stat));
            }
            prop_assert!(reader.is_at_end());
            let (mut names, mut known) = (Names::default(), Stats::default());
            let mut reader = Reader::new(&bytes[..cut.index(bytes.len() + 1)], Pool::none());
            for _ in &all {
                let _ = (names.take(&mut reader).is_some(), known.take(&mut reader));
            }
        }

        #[test]
        fn a_difference_is_undone(number in any::<u64>(), last in any::<u64>()) {
            prop_assert_eq!(sum(last, difference(number, last)), number);
        }
    }

    #[test]
    fn what_lies_nearby_takes_few_bytes() {
        let stat =
            StatKey { size: 9, mtime_ns: 1 << 60, ctime_ns: 1 << 60, inode: 1 << 40, device: 66_306, mode: 0o100_644 };
        let (mut writer, mut names, mut known) = (Writer::new(), Names::default(), Stats::default());
        names.put(&mut writer, b"packages/one/src/file000.ts");
        known.put(&mut writer, &stat);
        let before = writer.len();
        names.put(&mut writer, b"packages/one/src/file001.ts");
        known.put(&mut writer, &StatKey { inode: stat.inode + 1, mtime_ns: stat.mtime_ns + 100, ..stat });
        assert!(writer.len() - before <= 12, "{}", writer.len() - before);
    }
}
