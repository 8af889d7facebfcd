//! gzip files (RFC 1952): members with their headers, and what they hold. Compares nothing.

use std::io::Read;

use crate::audit::causes;
use crate::audit::compare::archive::{Field, Rule};
use crate::audit::compare::compressed::Unpacked;
use crate::audit::compare::verdict::Cost;
use crate::audit::compare::walk::{Side, Trouble, Walk, text};

const HCRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;

const NORMAL: Rule = Rule::Cost(Cost::Normal("gzip-header"));
/// Headers of that many members are compared; a file with more has the same in all of them, or is another.
const MEMBERS_MAX: usize = 1 << 16;

fn seconds(field: &[u8]) -> String {
    field.try_into().map_or_else(|_| text(field), |bytes| u32::from_le_bytes(bytes).to_string())
}

fn byte(field: &[u8]) -> String {
    field.first().map_or_else(String::new, u8::to_string)
}

fn name(field: &[u8]) -> String {
    format!("`{}`", text(field))
}

/// Reads all members of a file.
pub(super) fn read(walk: &mut Walk<'_>, side: Side, bytes: &[u8]) -> Result<Unpacked, Trouble> {
    let mut whole = Unpacked::default();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at..].starts_with(b"\x1f\x8b\x08") {
            if bytes[at..].iter().any(|byte| *byte != 0) {
                return Err(Trouble::Broken);
            }
            let zeros = (bytes.len() - at).to_string();
            whole.fields.push(Field::manner("zeros at the end", zeros, Cost::Normal("gzip-header")));
            break;
        }
        if whole.blocks.len() >= MEMBERS_MAX {
            return Err(Trouble::Over(format!("a gzip file has more than {MEMBERS_MAX} members")));
        }
        let body = header(bytes, at, &mut whole.fields)?;
        let mut decoder = flate2::bufread::DeflateDecoder::new(&bytes[body..]);
        let (before, room) = (whole.content.len(), walk.room(side));
        let left = room.saturating_sub(before);
        (&mut decoder).take(left as u64 + 1).read_to_end(&mut whole.content).map_err(|_| Trouble::Broken)?;
        let content = &whole.content[before..];
        if content.len() > left {
            return Err(Trouble::Over(format!("more than {room} bytes are unpacked")));
        }
        let end = body + usize::try_from(decoder.total_in()).map_err(|_| Trouble::Broken)?;
        let trailer = bytes.get(end..end + 8).ok_or(Trouble::Broken)?;
        let mut crc = flate2::Crc::new();
        crc.update(content);
        if [crc.sum().to_le_bytes(), (content.len() as u32).to_le_bytes()].concat() != trailer {
            return Err(Trouble::Broken);
        }
        whole.blocks.push(content.len());
        whole.bodies.push(body..end);
        at = end + 8;
    }
    walk.spend(side, whole.content.len())?;
    Ok(whole)
}

/// Takes the fields of a header; gives where the body begins.
fn header(bytes: &[u8], at: usize, fields: &mut Vec<Field>) -> Result<usize, Trouble> {
    let head = bytes.get(at..at + 10).ok_or(Trouble::Broken)?;
    let flags = head[3];
    let level = Rule::Cost(Cost::Compression);
    fields.push(Field::at("modification time", at + 4..at + 8, seconds, &causes::TIMESTAMP_GZIP_HEADER, NORMAL));
    fields.push(Field::at("extra flags, which tell the level", at + 8..at + 9, byte, &causes::COMPRESSOR, level));
    fields.push(Field::at("operating system", at + 9..at + 10, byte, &causes::GZIP_OS, NORMAL));
    let other = (flags & !(EXTRA | NAME | COMMENT)).to_string();
    fields.push(Field::manner("flags", other, Cost::Normal("gzip-header")));
    let mut next = at + 10;
    if flags & EXTRA != 0 {
        let length = bytes.get(next..next + 2).ok_or(Trouble::Broken)?;
        let end = next + 2 + usize::from(u16::from_le_bytes([length[0], length[1]]));
        bytes.get(next..end).ok_or(Trouble::Broken)?;
        fields.push(Field::at("extra field", next + 2..end, text, &causes::GZIP_NAME, NORMAL));
        next = end;
    }
    for (flag, what) in [(NAME, "file name"), (COMMENT, "comment")] {
        if flags & flag != 0 {
            let length = bytes[next.min(bytes.len())..].iter().position(|byte| *byte == 0).ok_or(Trouble::Broken)?;
            fields.push(Field::at(what, next..next + length, name, &causes::GZIP_NAME, NORMAL));
            next += length + 1;
        }
    }
    if flags & HCRC != 0 {
        let found = bytes.get(next..next + 2).ok_or(Trouble::Broken)?;
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[at..next]);
        if found != &crc.sum().to_le_bytes()[..2] {
            return Err(Trouble::Broken);
        }
        next += 2;
    }
    if next > bytes.len() { Err(Trouble::Broken) } else { Ok(next) }
}
