//! ar archives, with names as System V, GNU and BSD write them (ar(5)): static libraries and Debian packages.

use std::ops::Range;

use crate::audit::causes;
use crate::audit::compare::archive::{Archive, Content, Field, Member, Rule};
use crate::audit::compare::verdict::Cost;
use crate::audit::compare::walk::{Side, Trouble, Walk, text};

const MAGIC: usize = 8;
const HEADER: usize = 60;
/// Names of members that hold no file.
const SYMBOLS: &str = "/";
const SYMBOLS_64: &str = "/SYM64/";
const LONG_NAMES: &str = "//";

fn trimmed(field: &[u8]) -> String {
    text(field.trim_ascii_end())
}

fn decimal(field: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(field.trim_ascii_end()).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Reads an archive as a whole.
pub(super) fn read(walk: &mut Walk<'_>, side: Side, bytes: &[u8]) -> Result<Archive, Trouble> {
    let mut members = Vec::new();
    let mut long_names: Option<Range<usize>> = None;
    let mut offsets = Vec::new();
    let mut at = MAGIC;
    while at < bytes.len() {
        walk.count(side)?;
        let header = bytes.get(at..at + HEADER).ok_or(Trouble::Broken)?;
        let size = decimal(&header[48..58]).ok_or(Trouble::Broken)?;
        if &header[58..60] != b"`\n" || format!("{size:<10}").as_bytes() != &header[48..58] {
            return Err(Trouble::Broken);
        }
        let to = (at + HEADER).checked_add(size).filter(|to| *to <= bytes.len()).ok_or(Trouble::Broken)?;
        let raw = trimmed(&header[..16]);
        let (name, from) = name(bytes, &raw, at + HEADER..to, long_names.as_ref())?;
        if raw == LONG_NAMES {
            long_names = Some(from..to);
        }
        let mut fields = header_fields(at);
        let mut end = to;
        if to % 2 == 1 {
            match bytes.get(to) {
                Some(b'\n') => {}
                Some(_) => {
                    fields.push(Field::at("padding", to..to + 1, text, &causes::UNKNOWN, Rule::Cost(Cost::Real)))
                }
                None => fields.push(Field::manner("padding", "none", Cost::Normal("ar-header"))),
            }
            end = (to + 1).min(bytes.len());
        }
        offsets.push(at);
        members.push(Member { name, fields, content: Content::At(from..to) });
        at = end;
    }
    indexes(bytes, &mut members, &offsets);
    Ok(Archive { sorts: "ar-order", members, fields: Vec::new() })
}

/// The name of a member, and where its content begins.
fn name(
    bytes: &[u8],
    raw: &str,
    content: Range<usize>,
    long: Option<&Range<usize>>,
) -> Result<(String, usize), Trouble> {
    if matches!(raw, SYMBOLS | LONG_NAMES | SYMBOLS_64) {
        return Ok((raw.to_owned(), content.start));
    }
    if let Some(length) = raw.strip_prefix("#1/") {
        let length: usize = length.parse().map_err(|_| Trouble::Broken)?;
        let end = content.start.checked_add(length).filter(|end| *end <= content.end).ok_or(Trouble::Broken)?;
        let name = bytes[content.start..end].split(|byte| *byte == 0).next().unwrap_or_default();
        return Ok((text(name), end));
    }
    if let Some(offset) = raw.strip_prefix('/').filter(|rest| !rest.is_empty()) {
        let table = &bytes[long.cloned().ok_or(Trouble::Broken)?];
        let offset: usize = offset.parse().map_err(|_| Trouble::Broken)?;
        let name = table.get(offset..).ok_or(Trouble::Broken)?.split(|byte| *byte == b'\n').next().unwrap_or_default();
        return Ok((text(name.strip_suffix(b"/").unwrap_or(name)), content.start));
    }
    Ok((raw.strip_suffix('/').unwrap_or(raw).to_owned(), content.start))
}

fn header_fields(at: usize) -> Vec<Field> {
    let normal = Rule::Cost(Cost::Normal("ar-header"));
    vec![
        Field::at("modification time", at + 16..at + 28, trimmed, &causes::AR_HEADER, normal),
        Field::at("owner number", at + 28..at + 34, trimmed, &causes::AR_HEADER, normal),
        Field::at("group number", at + 34..at + 40, trimmed, &causes::AR_HEADER, normal),
        Field::at("mode", at + 40..at + 48, trimmed, &causes::AR_HEADER, Rule::Mode("ar-header")),
    ]
}

/// Replaces the positions in the index of symbols by names of members, and the table of long names by the names it gives, sorted: both
/// are derived from the members then, whatever the order of these. What cannot be read so stays as it is.
fn indexes(bytes: &[u8], members: &mut [Member], offsets: &[usize]) {
    let names: Vec<String> = members.iter().map(|member| member.name.clone()).collect();
    for member in members {
        let Content::At(at) = &member.content else { continue };
        let content = &bytes[at.clone()];
        let index = match member.name.as_str() {
            SYMBOLS => symbols(content, 4, &names, offsets),
            SYMBOLS_64 => symbols(content, 8, &names, offsets),
            LONG_NAMES => long_names(content, &names),
            _ => None,
        };
        if let Some(index) = index {
            member.content = Content::Index(index);
        }
    }
}

fn symbols(content: &[u8], width: usize, names: &[String], offsets: &[usize]) -> Option<Vec<u8>> {
    let number = |at: usize| {
        let field = content.get(at..at.checked_add(width)?)?;
        Some(field.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let count = usize::try_from(number(0)?).ok()?;
    let texts = content.get(count.checked_add(1)?.checked_mul(width)?..)?;
    let mut rest = texts;
    let mut lines = Vec::new();
    for position in 0..count {
        let offset = usize::try_from(number((position + 1) * width)?).ok()?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        let member = names.get(offsets.binary_search(&offset).ok()?)?;
        lines.push(format!("{} {member}\n", text(&rest[..end])));
        rest = &rest[end + 1..];
    }
    lines.sort_unstable();
    (rest.len() < width && rest.iter().all(|byte| *byte == 0)).then(|| lines.concat().into_bytes())
}

fn long_names(content: &[u8], names: &[String]) -> Option<Vec<u8>> {
    let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut lines: Vec<String> = lines.map(|line| text(line.strip_suffix(b"/").unwrap_or(line))).collect();
    lines.sort_unstable();
    let are_used = lines.iter().all(|line| names.contains(line));
    are_used.then(|| lines.join("\n").into_bytes())
}
