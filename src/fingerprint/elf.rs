//! Reads from an ELF file what the dynamic loader would: interpreter, needed libraries, search paths. Opens nothing, and
//! never reads a file as a whole.
//!
//! Source: System V ABI, chapters 4 and 5 (program header, dynamic section). Little-endian, 64 bit; anything else has no
//! closure here and is keyed by its bytes alone.

/// What an executable or library asks of the loader.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dynamic {
    /// Path of the program interpreter.
    pub interpreter: Option<String>,
    /// Names of needed libraries in order.
    pub needed: Vec<String>,
    /// Search directories (`DT_RUNPATH`, else `DT_RPATH`), `$ORIGIN` not yet replaced.
    pub search: Vec<String>,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// Reads that many bytes at an offset of the file, or fewer at its end; `None` if it cannot be read.
pub type ReadAt<'a> = dyn Fn(u64, usize) -> Option<Vec<u8>> + 'a;

const DT_STRSZ: u64 = 10;
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;

/// Largest table read, in bytes: real ones have a few hundred KiB, a hostile file may claim anything.
const TABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Reads what the loader would; `None` if this is no 64-bit little-endian ELF file or it is broken.
///
/// Cost: four small reads, whatever the size of the file.
pub fn dynamic(read_at: &ReadAt<'_>) -> Option<Dynamic> {
    let header = read_at(0, HEADER_BYTES)?;
    if header.get(..6)? != b"\x7fELF\x02\x01" || u64::from(u16_at(&header, 54)?) < PROGRAM_HEADER_BYTES {
        return None;
    }
    let (size, count) = (u64::from(u16_at(&header, 54)?), u64::from(u16_at(&header, 56)?));
    let headers = table(read_at, u64_at(&header, 32)?, size * count)?;
    let mut found = Dynamic::default();
    let mut loads: Vec<(u64, u64, u64)> = Vec::new();
    let mut section = None;
    for at in (0..count).filter_map(|index| usize::try_from(index * size).ok()) {
        let (offset, address, length) =
            (u64_at(&headers, at + 8)?, u64_at(&headers, at + 16)?, u64_at(&headers, at + 32)?);
        match u32_at(&headers, at)? {
            PT_LOAD => loads.push((address, offset, length)),
            PT_DYNAMIC => section = Some((offset, length)),
            PT_INTERP => found.interpreter = text_at(&table(read_at, offset, length)?, 0),
            _ => {}
        }
    }
    let Some((offset, length)) = section else { return Some(found) };
    let entries = dynamic_entries(&table(read_at, offset, length)?);
    let value = |wanted: u64| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
    let strings = value(DT_STRTAB)?;
    let (address, offset, _) =
        loads.iter().find(|(address, _, length)| strings >= *address && strings - address < *length)?;
    let strings = table(read_at, strings - address + offset, value(DT_STRSZ)?)?;
    let text = |at: u64| text_at(&strings, usize::try_from(at).ok()?);
    found.needed = entries.iter().filter(|(tag, _)| *tag == DT_NEEDED).filter_map(|(_, value)| text(*value)).collect();
    if let Some(search) = value(DT_RUNPATH).or_else(|| value(DT_RPATH)).and_then(text) {
        found.search = search.split(':').filter(|dir| !dir.is_empty()).map(str::to_owned).collect();
    }
    Some(found)
}

fn table(read_at: &ReadAt<'_>, offset: u64, length: u64) -> Option<Vec<u8>> {
    if length > TABLE_BYTES_MAX {
        return None;
    }
    read_at(offset, usize::try_from(length).ok()?)
}

fn dynamic_entries(section: &[u8]) -> Vec<(u64, u64)> {
    let entry = |bytes: &[u8]| Some((u64_at(bytes, 0)?, u64_at(bytes, 8)?));
    section.chunks_exact(16).map_while(entry).take_while(|(tag, _)| *tag != 0).collect()
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

fn text_at(bytes: &[u8], at: usize) -> Option<String> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ops;

    fn at(bytes: &[u8]) -> impl Fn(u64, usize) -> Option<Vec<u8>> + '_ {
        |offset, length| {
            let start = usize::try_from(offset).ok()?.min(bytes.len());
            Some(bytes[start..start.saturating_add(length).min(bytes.len())].to_vec())
        }
    }

    #[test]
    fn a_real_program_names_its_loader_and_the_c_library() {
        let bytes = ops::read(std::path::Path::new("/bin/sh")).expect("every machine of this kind has a shell");
        let found = dynamic(&at(&bytes)).expect("a shell is an ELF file");
        assert!(found.interpreter.is_some_and(|path| path.contains("ld-")));
        assert!(found.needed.iter().any(|name| name.starts_with("libc.")));
    }

    #[test]
    fn broken_files_have_no_closure_and_never_panic() {
        let mut bytes = ops::read(std::path::Path::new("/bin/sh")).expect("every machine of this kind has a shell");
        bytes.truncate(4096);
        for position in 0..512 {
            let mut broken = bytes.clone();
            broken[position] ^= 0xff;
            let _ignored = dynamic(&at(&broken));
            let _ignored = dynamic(&at(&broken[..position]));
        }
        assert_eq!(dynamic(&at(b"#!/bin/sh")), None);
    }
}
