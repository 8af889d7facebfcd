//! Reads from an ELF file what the dynamic loader would: interpreter, needed libraries, search paths. Opens nothing.
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

/// Reads the dynamic section; `None` if the bytes are no 64-bit little-endian ELF file or are broken.
pub fn dynamic(bytes: &[u8]) -> Option<Dynamic> {
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let headers_at = usize::try_from(u64_at(bytes, 32)?).ok()?;
    let size = usize::from(u16_at(bytes, 54)?);
    let count = usize::from(u16_at(bytes, 56)?);
    let mut found = Dynamic::default();
    let mut loads: Vec<(u64, u64, u64)> = Vec::new();
    let mut section = None;
    for index in 0..count {
        let at = headers_at.checked_add(index.checked_mul(size)?)?;
        let (offset, address, length) = (u64_at(bytes, at + 8)?, u64_at(bytes, at + 16)?, u64_at(bytes, at + 32)?);
        match u32_at(bytes, at)? {
            PT_LOAD => loads.push((address, offset, length)),
            PT_DYNAMIC => section = Some((offset, length)),
            PT_INTERP => found.interpreter = text_at(bytes, usize::try_from(offset).ok()?),
            _ => {}
        }
    }
    let Some((offset, length)) = section else { return Some(found) };
    let entries = dynamic_entries(bytes, offset, length)?;
    let strings = entries.iter().find(|(tag, _)| *tag == DT_STRTAB)?.1;
    let (address, offset, _) =
        loads.iter().find(|(address, _, length)| strings >= *address && strings - address < *length)?;
    let base = usize::try_from(strings - address + offset).ok()?;
    let text = |value: u64| text_at(bytes, base.checked_add(usize::try_from(value).ok()?)?);
    found.needed = entries.iter().filter(|(tag, _)| *tag == DT_NEEDED).filter_map(|(_, value)| text(*value)).collect();
    let path = |wanted: u64| entries.iter().find(|(tag, _)| *tag == wanted).and_then(|(_, value)| text(*value));
    if let Some(search) = path(DT_RUNPATH).or_else(|| path(DT_RPATH)) {
        found.search = search.split(':').filter(|dir| !dir.is_empty()).map(str::to_owned).collect();
    }
    Some(found)
}

fn dynamic_entries(bytes: &[u8], offset: u64, length: u64) -> Option<Vec<(u64, u64)>> {
    let start = usize::try_from(offset).ok()?;
    let mut entries = Vec::new();
    for index in 0..usize::try_from(length / 16).ok()? {
        let at = start.checked_add(index * 16)?;
        let tag = u64_at(bytes, at)?;
        if tag == 0 {
            break;
        }
        entries.push((tag, u64_at(bytes, at + 8)?));
    }
    Some(entries)
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

    #[test]
    fn a_real_program_names_its_loader_and_the_c_library() {
        let bytes = ops::read(std::path::Path::new("/bin/sh")).expect("every machine of this kind has a shell");
        let found = dynamic(&bytes).expect("a shell is an ELF file");
        assert!(found.interpreter.is_some_and(|path| path.contains("ld-")));
        assert!(found.needed.iter().any(|name| name.starts_with("libc.")));
    }

    #[test]
    fn broken_files_have_no_closure_and_never_panic() {
        let mut bytes = ops::read(std::path::Path::new("/bin/sh")).expect("every machine of this kind has a shell");
        bytes.truncate(4096);
        for at in 0..512 {
            let mut broken = bytes.clone();
            broken[at] ^= 0xff;
            let _ignored = dynamic(&broken);
            let _ignored = dynamic(&broken[..at]);
        }
        assert_eq!(dynamic(b"#!/bin/sh"), None);
    }
}
