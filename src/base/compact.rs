//! A small encoding for what a program of this version reads again, and for nobody else. Does no I/O and knows no format of a file.
//!
//! Numbers are LEB128, texts and lists have their length before them. What values share stands once, in a pool, and is shared again
//! by what is read: a value names it by its number. An entry of the pool names only earlier ones, so reading it ends.
//!
//! Whoever keeps such bytes must know that they are whole: reading damaged ones gives nothing, or something else. It never panics and
//! never allocates more than the bytes could hold.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::base::digest::{DIGEST_LEN, Digest};

/// A value that can be written and read again.
pub trait Compact: Sized {
    /// Appends it.
    fn put(&self, writer: &mut Writer);
    /// Reads it; `None` where the bytes are no such value.
    fn take(reader: &mut Reader<'_>) -> Option<Self>;
}

/// Bytes that several owners read parts of.
#[derive(Clone, Default)]
pub struct Bytes {
    all: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Bytes {
    /// All of these.
    pub fn new(all: Vec<u8>) -> Self {
        let range = 0..all.len();
        Self { all: Arc::new(all), range }
    }

    /// A part of them; `None` if it lies outside.
    pub fn part(&self, range: Range<usize>) -> Option<Self> {
        self.get(range.clone())?;
        let start = self.range.start;
        Some(Self { all: Arc::clone(&self.all), range: start + range.start..start + range.end })
    }

    /// The little-endian `u32` with this number, counted in words.
    pub fn word(&self, number: usize) -> Option<u32> {
        let start = number.checked_mul(4)?;
        let word = self.get(start..start.checked_add(4)?)?;
        Some(u32::from_le_bytes(word.try_into().ok()?))
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.all[self.range.clone()]
    }
}

/// The shared values that were written.
#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    ends: Vec<u8>,
    count: u32,
    by_address: HashMap<(TypeId, usize), u32, BuildHasherDefault<Mixer>>,
    by_bytes: HashMap<(TypeId, Box<[u8]>), u32>,
}

/// Addresses are spread well enough by one multiplication: the values that share one would be one anyway.
#[derive(Default)]
struct Mixer(u64);

impl std::hash::Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.chunks(8).for_each(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        });
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

/// Writes values one after the other, what they share apart.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
    shared: Written,
}

impl Writer {
    /// Starts with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one byte.
    pub fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Appends a number.
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// Appends a length.
    pub fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a text with its length.
    pub fn text(&mut self, text: &str) {
        self.length(text.len());
        self.raw(text.as_bytes());
    }

    /// How many bytes were appended.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes away what was appended so far; what is shared stays.
    pub fn drain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Appends the number of a shared value of type `V`, written by `put` where its like has not been. `address` is that of what is
    /// shared, which must stay as it is until everything is written.
    pub fn shared<V: 'static>(&mut self, address: usize, put: impl FnOnce(&mut Self)) {
        let key = (TypeId::of::<V>(), address);
        if let Some(number) = self.shared.by_address.get(&key) {
            return self.number(u64::from(*number));
        }
        let outside = std::mem::take(&mut self.bytes);
        put(self);
        let own = std::mem::replace(&mut self.bytes, outside).into_boxed_slice();
        let shared = &mut self.shared;
        let next = shared.count;
        let number = match shared.by_bytes.get(&(TypeId::of::<V>(), own.clone())) {
            Some(number) => *number,
            None => {
                shared.bytes.extend_from_slice(&own);
                shared.ends.extend_from_slice(&word(shared.bytes.len()));
                shared.count += 1;
                shared.by_bytes.insert((TypeId::of::<V>(), own), next);
                next
            }
        };
        shared.by_address.insert(key, number);
        self.number(u64::from(number));
    }

    /// What is shared: where each entry ends, and the entries.
    pub fn into_pool(self) -> (Vec<u8>, Vec<u8>) {
        (self.shared.ends, self.shared.bytes)
    }
}

/// A length as the word that [`Bytes::word`] reads.
///
/// # Panics
/// Beyond 4 GiB.
pub fn word(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("BUG: more than 4 GiB of one kind").to_le_bytes()
}

/// Shared values, each read when it is first named.
pub struct Pool {
    ends: Bytes,
    bytes: Bytes,
    cells: Vec<OnceLock<Option<Box<dyn Any + Send + Sync>>>>,
}

impl Pool {
    /// What [`Writer::into_pool`] gave.
    pub fn new(ends: Bytes, bytes: Bytes) -> Self {
        let cells = std::iter::repeat_with(OnceLock::new).take(ends.len() / 4).collect();
        Self { ends, bytes, cells }
    }

    /// One with nothing in it, for values that share nothing.
    pub fn none() -> &'static Self {
        static NONE: std::sync::LazyLock<Pool> =
            std::sync::LazyLock::new(|| Pool::new(Bytes::default(), Bytes::default()));
        &NONE
    }

    fn entry(&self, number: usize) -> Option<&[u8]> {
        let start = if number == 0 { 0 } else { self.ends.word(number - 1)? };
        self.bytes.get(start as usize..self.ends.word(number)? as usize)
    }
}

/// Reads what a [`Writer`] wrote.
pub struct Reader<'a> {
    bytes: &'a [u8],
    pool: &'a Pool,
    /// Entries of the pool that may be named.
    below: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8], pool: &'a Pool) -> Self {
        Self { bytes, pool, below: pool.cells.len() }
    }

    /// Reads one byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    /// Reads a number.
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// Reads the number of things that follow, each of at least a byte.
    pub fn length(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|length| *length <= self.bytes.len())
    }

    /// Reads so many bytes.
    pub fn raw(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    /// Reads a text.
    pub fn text(&mut self) -> Option<&'a str> {
        let length = self.length()?;
        std::str::from_utf8(self.raw(length)?).ok()
    }

    /// Whether everything was read.
    pub fn is_at_end(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads the number of a shared value, and that value where nobody has yet.
    pub fn shared<V: Clone + Send + Sync + 'static>(
        &mut self,
        take: impl FnOnce(&mut Reader<'_>) -> Option<V>,
    ) -> Option<V> {
        let number = usize::try_from(self.number()?).ok().filter(|number| *number < self.below)?;
        let pool = self.pool;
        let read = || {
            let mut reader = Reader { bytes: pool.entry(number)?, pool, below: number };
            let value = take(&mut reader).filter(|_| reader.is_at_end())?;
            Some(Box::new(value) as Box<dyn Any + Send + Sync>)
        };
        pool.cells[number].get_or_init(read).as_ref()?.downcast_ref::<V>().cloned()
    }
}

/// Writes and reads a struct field by field; one that is new does not compile until it is listed.
macro_rules! compact_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::base::compact::Compact for $name {
            fn put(&self, writer: &mut $crate::base::compact::Writer) {
                let Self { $($field),* } = self;
                $($crate::base::compact::Compact::put($field, writer);)*
            }
            fn take(reader: &mut $crate::base::compact::Reader<'_>) -> Option<Self> {
                Some(Self { $($field: $crate::base::compact::Compact::take(reader)?),* })
            }
        }
    };
}

/// Writes and reads an enum without data as one byte.
macro_rules! compact_words {
    ($name:ident { $($word:ident = $number:literal),* $(,)? }) => {
        impl $crate::base::compact::Compact for $name {
            fn put(&self, writer: &mut $crate::base::compact::Writer) {
                writer.byte(match self { $(Self::$word => $number),* });
            }
            fn take(reader: &mut $crate::base::compact::Reader<'_>) -> Option<Self> {
                match reader.byte()? {
                    $($number => Some(Self::$word),)*
                    _ => None,
                }
            }
        }
    };
}

pub(crate) use {compact_struct, compact_words};

macro_rules! compact_numbers {
    ($($number:ty),*) => {$(
        impl Compact for $number {
            fn put(&self, writer: &mut Writer) {
                writer.number(*self as u64);
            }
            fn take(reader: &mut Reader<'_>) -> Option<Self> {
                Self::try_from(reader.number()?).ok()
            }
        }
    )*};
}
compact_numbers!(u16, u32, u64, usize);

impl Compact for bool {
    fn put(&self, writer: &mut Writer) {
        writer.byte(u8::from(*self));
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        match reader.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Compact for String {
    fn put(&self, writer: &mut Writer) {
        writer.text(self);
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        reader.text().map(str::to_owned)
    }
}

impl<T: Compact> Compact for Option<T> {
    fn put(&self, writer: &mut Writer) {
        self.is_some().put(writer);
        self.iter().for_each(|value| value.put(writer));
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        if bool::take(reader)? { T::take(reader).map(Some) } else { Some(None) }
    }
}

impl<T: Compact> Compact for Vec<T> {
    fn put(&self, writer: &mut Writer) {
        writer.length(self.len());
        self.iter().for_each(|value| value.put(writer));
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        let count = reader.length()?;
        (0..count).map(|_| T::take(reader)).collect()
    }
}

impl<A: Compact, B: Compact> Compact for (A, B) {
    fn put(&self, writer: &mut Writer) {
        self.0.put(writer);
        self.1.put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some((A::take(reader)?, B::take(reader)?))
    }
}

impl<T: Compact> Compact for Box<T> {
    fn put(&self, writer: &mut Writer) {
        (**self).put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        T::take(reader).map(Box::new)
    }
}

impl<T: Compact + Send + Sync + 'static> Compact for Arc<T> {
    fn put(&self, writer: &mut Writer) {
        writer.shared::<Self>(Arc::as_ptr(self).addr(), |writer| (**self).put(writer));
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        reader.shared(|reader| T::take(reader).map(Arc::new))
    }
}

impl<T: Compact + Send + Sync + 'static> Compact for Arc<[T]> {
    fn put(&self, writer: &mut Writer) {
        writer.shared::<Self>(self.as_ptr().addr(), |writer| {
            writer.length(self.len());
            self.iter().for_each(|value| value.put(writer));
        });
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        reader.shared(|reader| Vec::take(reader).map(Self::from))
    }
}

impl Compact for Arc<str> {
    fn put(&self, writer: &mut Writer) {
        writer.shared::<Self>(self.as_ptr().addr(), |writer| writer.text(self));
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        reader.shared(|reader| reader.text().map(Self::from))
    }
}

impl<K: Compact + Ord, V: Compact> Compact for BTreeMap<K, V> {
    fn put(&self, writer: &mut Writer) {
        writer.length(self.len());
        for (key, value) in self {
            key.put(writer);
            value.put(writer);
        }
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        let count = reader.length()?;
        (0..count).map(|_| Some((K::take(reader)?, V::take(reader)?))).collect()
    }
}

impl Compact for Digest {
    fn put(&self, writer: &mut Writer) {
        writer.raw(self.as_bytes());
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Self::from_slice(reader.raw(DIGEST_LEN)?)
    }
}

impl Compact for Duration {
    fn put(&self, writer: &mut Writer) {
        self.as_secs().put(writer);
        self.subsec_nanos().put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        let seconds = u64::take(reader)?;
        let nanos = u32::take(reader).filter(|nanos| *nanos < 1_000_000_000)?;
        Some(Self::new(seconds, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sample = (Vec<Arc<str>>, BTreeMap<String, Option<u64>>, Arc<[Arc<str>]>);

    fn written(sample: &Sample) -> (Vec<u8>, Pool) {
        let mut writer = Writer::new();
        sample.0.put(&mut writer);
        sample.1.put(&mut writer);
        sample.2.put(&mut writer);
        let bytes = writer.drain();
        let (ends, pool) = writer.into_pool();
        (bytes, Pool::new(Bytes::new(ends), Bytes::new(pool)))
    }

    fn read(bytes: &[u8], pool: &Pool) -> Option<Sample> {
        let mut reader = Reader::new(bytes, pool);
        let sample = (Vec::take(&mut reader)?, BTreeMap::take(&mut reader)?, Arc::take(&mut reader)?);
        reader.is_at_end().then_some(sample)
    }

    fn sample() -> Sample {
        let text: Arc<str> = "one".into();
        let map =
            BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), Some(u64::MAX)), (String::new(), Some(127))]);
        (vec![Arc::clone(&text), "two".into(), "one".into()], map, [text, "".into()].into())
    }

    #[test]
    fn what_was_equal_is_shared_when_it_is_read() {
        let (bytes, pool) = written(&sample());
        let read = read(&bytes, &pool).expect("what was written");
        assert_eq!(read, sample());
        assert!(Arc::ptr_eq(&read.0[0], &read.0[2]) && Arc::ptr_eq(&read.0[0], &read.2[0]));
        assert_eq!(pool.cells.len(), 4, "two words, the empty one, the list");
    }

    #[test]
    fn damaged_bytes_are_survived() {
        let (bytes, pool) = written(&sample());
        for at in 0..bytes.len() {
            assert_eq!(read(&bytes[..at], &pool), None, "cut at {at}");
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                read(&changed, &pool);
            }
        }
        let (ends, entries) = (pool.ends.to_vec(), pool.bytes.to_vec());
        for at in 0..ends.len() + entries.len() {
            let (mut ends, mut entries) = (ends.clone(), entries.clone());
            if at < ends.len() {
                ends[at] ^= 1
            } else {
                entries[at - ends.len()] ^= 1
            }
            read(&bytes, &Pool::new(Bytes::new(ends), Bytes::new(entries)));
        }
    }

    #[test]
    fn an_entry_cannot_name_itself() {
        let pool = Pool::new(Bytes::new(word(2).to_vec()), Bytes::new(vec![1, 0]));
        assert_eq!(<Arc<[Arc<str>]>>::take(&mut Reader::new(&[0], &pool)), None);
    }
}
