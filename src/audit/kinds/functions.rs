//! Functions of two 64-bit ELF files by their symbols: whether they are the same in another order, as linked.

use std::collections::BTreeMap;

use super::elf::Reader;

const KIND_SYMBOLS: u64 = 2;
const SECTION_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
/// More symbols are not compared.
const SYMBOLS_MAX: usize = 200_000;

/// A function: where it lies, and its code.
type Function<'t> = (u64, &'t [u8]);

/// Where in the file a section's header lies.
fn header(reader: &Reader<'_>, section: usize) -> Option<usize> {
    reader.word(0x28)?.checked_add(section.checked_mul(SECTION_BYTES)?)
}

/// Functions by name, and by how many of that name came before.
fn functions<'t>(file: &'t [u8]) -> Option<BTreeMap<(&'t [u8], usize), Function<'t>>> {
    let reader = Reader::of(file).filter(|reader| reader.is_wide)?;
    let count = reader.place(0x3c, 2)?;
    let table = (0..count).find_map(|section| {
        let at = header(&reader, section)?;
        (reader.number(at + 4, 4)? == KIND_SYMBOLS).then_some(at)
    })?;
    let (start, size) = (reader.word(table + 24)?, reader.word(table + 32)?);
    let names = header(&reader, reader.place(table + 40, 4)?)?;
    let names = file.get(reader.word(names + 24)?..)?;
    let (mut functions, mut seen) = (BTreeMap::new(), BTreeMap::new());
    for symbol in 0..(size / SYMBOL_BYTES).min(SYMBOLS_MAX) {
        let at = start.checked_add(symbol * SYMBOL_BYTES)?;
        let (name, kind, section) = (reader.place(at, 4)?, reader.number(at + 4, 1)? & 15, reader.place(at + 6, 2)?);
        let (value, bytes) = (reader.number(at + 8, 8)?, reader.word(at + 16)?);
        // Functions, in sections that are in the file.
        if kind != 2 || bytes == 0 || section == 0 || section >= count {
            continue;
        }
        let own = header(&reader, section)?;
        let within = usize::try_from(value.checked_sub(reader.number(own + 16, 8)?)?).ok()?;
        let from = reader.word(own + 24)?.checked_add(within)?;
        let code = file.get(from..from.checked_add(bytes)?)?;
        let name = names.get(name..)?;
        let name = &name[..name.iter().position(|byte| *byte == 0)?];
        let number = seen.entry(name).or_insert(0_usize);
        functions.insert((name, *number), (value, code));
        *number += 1;
    }
    Some(functions)
}

/// Whether two files have the same functions with the same code, and not all in the same place.
pub(super) fn are_reordered(a: &[u8], b: &[u8]) -> bool {
    let (Some(a), Some(b)) = (functions(a), functions(b)) else { return false };
    let is_same = a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && a.1.1 == b.1.1);
    let is_moved = a.values().zip(b.values()).any(|(a, b)| a.0 != b.0);
    a.len() > 1 && a.len() == b.len() && is_same && is_moved
}
