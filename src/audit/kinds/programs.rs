//! Headers of Windows and macOS programs. Formats: Microsoft's PE/COFF specification; `mach-o/loader.h`.

use std::ops::Range;

use super::gather::{Gathered, Reason, Stretch};
use super::lines::compare_binary;
use crate::audit::causes::{self, Cause};

/// More load commands are none.
const COMMANDS_MAX: usize = 4096;
const COMMAND_UUID: u32 = 0x1b;
const COMMAND_SIGNATURE: u32 = 0x1d;

/// A field of a header that differs between builds.
struct Field {
    name: &'static str,
    range: Range<usize>,
    what: &'static str,
    cause: &'static Cause,
}

/// Looks into two programs; `false` if they are of neither kind.
pub(super) fn look(all: &mut Gathered<'_>, a: &[u8], b: &[u8]) -> bool {
    let (Some(fields_a), Some(fields_b)) = (fields(a), fields(b)) else { return false };
    let (mut rest_a, mut rest_b) = (a.to_vec(), b.to_vec());
    for field_a in &fields_a {
        let Some(field_b) = fields_b.iter().find(|field| field.name == field_a.name) else { continue };
        let (Some(part_a), Some(part_b)) = (a.get(field_a.range.clone()), b.get(field_b.range.clone())) else {
            continue;
        };
        if part_a != part_b {
            let stretch = Stretch { a, at_a: field_a.range.clone(), b, at_b: field_b.range.clone(), is_text: false };
            let reason = Reason::suspected(field_a.cause, field_a.what, (field_a.range.clone(), field_b.range.clone()));
            all.add(&[field_a.name.to_owned()], reason.proven(), &stretch);
            rest_a[field_a.range.clone()].fill(0);
            rest_b[field_b.range.clone()].fill(0);
        }
    }
    if rest_a != rest_b {
        compare_binary(all, &[], &rest_a, &rest_b);
    }
    true
}

fn four(file: &[u8], at: usize) -> Option<u32> {
    let part = file.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes([part[0], part[1], part[2], part[3]]))
}

fn fields(file: &[u8]) -> Option<Vec<Field>> {
    if file.starts_with(b"MZ") { windows(file) } else { macos(file) }
}

fn windows(file: &[u8]) -> Option<Vec<Field>> {
    let header = usize::try_from(four(file, 0x3c)?).ok()?;
    if file.get(header..header.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let cause = &causes::PE_HEADER;
    let mut fields = vec![
        Field { name: "TimeDateStamp", range: header + 8..header + 12, what: "the time in the header", cause },
        Field { name: "CheckSum", range: header + 88..header + 92, what: "the checksum in the header", cause },
    ];
    // The debug record begins with `RSDS`; identifier and age follow.
    if let Some(at) = file.windows(4).position(|window| window == b"RSDS") {
        fields.push(Field { name: "debug GUID", range: at + 4..at + 24, what: "the identifier of debug data", cause });
    }
    fields.retain(|field| field.range.end <= file.len());
    Some(fields)
}

fn macos(file: &[u8]) -> Option<Vec<Field>> {
    let header = match four(file, 0)? {
        0xfeed_facf => 32,
        0xfeed_face => 28,
        _ => return None,
    };
    let count = usize::try_from(four(file, 16)?).ok()?.min(COMMANDS_MAX);
    let mut at = header;
    let mut fields = Vec::new();
    for _ in 0..count {
        let (command, size) = (four(file, at)?, usize::try_from(four(file, at + 4)?).ok()?);
        if command == COMMAND_UUID {
            let range = at + 8..at + 24;
            fields.push(Field {
                name: "LC_UUID",
                range,
                what: "the identifier of the program",
                cause: &causes::MACH_O,
            });
        }
        if command == COMMAND_SIGNATURE {
            let start = usize::try_from(four(file, at + 8)?).ok()?;
            let range = start..start.checked_add(usize::try_from(four(file, at + 12)?).ok()?)?;
            fields.push(Field {
                name: "LC_CODE_SIGNATURE",
                range,
                what: "the signature of the program",
                cause: &causes::SIGNATURE,
            });
        }
        at = at.checked_add(size.max(8))?;
    }
    fields.retain(|field| field.range.end <= file.len());
    Some(fields)
}
