//! zip archives (APPNOTE.TXT 6.3.10): the directory, the local headers, and what stands between. Without zip64 and encryption.

use std::ops::Range;

use crate::audit::causes::{self, Cause};
use crate::audit::compare::archive::{Archive, Content, Field, LOCAL, Member, NAME, Rule, Show};
use crate::audit::compare::verdict::Cost;
use crate::audit::compare::walk::{Side, Trouble, Walk, text};

const END: usize = 22;
const COMMENT_MAX: usize = 0xffff;
const CENTRAL: usize = 46;
const LOCAL_HEADER: usize = 30;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const HAS_DESCRIPTOR: u16 = 8;
const IS_ENCRYPTED: u16 = 1;

const TIME: Rule = Rule::Cost(Cost::Normal("zip-time"));
const EXTRA: Rule = Rule::Cost(Cost::Normal("zip-extra"));
const CREATOR: Rule = Rule::Cost(Cost::Normal("zip-creator"));
const REAL: Rule = Rule::Cost(Cost::Real);

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Trouble> {
    let field = bytes.get(at..at.saturating_add(2)).ok_or(Trouble::Broken)?;
    Ok(u16::from_le_bytes([field[0], field[1]]))
}

fn size_at(bytes: &[u8], at: usize) -> Result<usize, Trouble> {
    let field = bytes.get(at..at.saturating_add(4)).ok_or(Trouble::Broken)?;
    Ok(u32::from_le_bytes([field[0], field[1], field[2], field[3]]) as usize)
}

fn hex(field: &[u8]) -> String {
    field.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}

/// Time and date as DOS has them.
fn moment(field: &[u8]) -> String {
    let (Ok(time), Ok(date)) = (u16_at(field, 0), u16_at(field, 2)) else { return text(field) };
    let (year, month, day) = (1980 + (date >> 9), (date >> 5) & 15, date & 31);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", time >> 11, (time >> 5) & 63, (time & 31) * 2)
}

fn mode(field: &[u8]) -> String {
    u16_at(field, 0).map_or_else(|_| text(field), |mode| format!("{mode:o}"))
}

/// Reads an archive as a whole.
pub(super) fn read(walk: &mut Walk<'_>, side: Side, bytes: &[u8]) -> Result<Archive, Trouble> {
    let end = end_of_directory(bytes)?;
    let (count, size, from) = (u16_at(bytes, end + 10)?, size_at(bytes, end + 12)?, size_at(bytes, end + 16)?);
    let is_one_disk = u16_at(bytes, end + 4)? == 0 && u16_at(bytes, end + 6)? == 0 && u16_at(bytes, end + 8)? == count;
    if !is_one_disk || count == u16::MAX || from.checked_add(size) != Some(end) {
        return Err(Trouble::Broken);
    }
    let mut members = Vec::new();
    let mut spans: Vec<(Range<usize>, String)> = Vec::new();
    let mut at = from;
    for _ in 0..count {
        walk.count(side)?;
        let entry = Entry::read(walk, side, bytes, at, from)?;
        at = entry.next;
        spans.push((entry.span.clone(), entry.name.clone()));
        members.push(Member { name: entry.name, fields: entry.fields, content: entry.content });
    }
    if at != end {
        return Err(Trouble::Broken);
    }
    let mut fields = vec![Field::at("comment", end + END..bytes.len(), text, &causes::ZIP_EXTRA, REAL)];
    let sequence = |spans: &[(Range<usize>, String)]| spans.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>();
    let listed = sequence(&spans);
    spans.sort_by_key(|(span, _)| span.start);
    if sequence(&spans) != listed {
        let order = sequence(&spans).join(", ");
        let field =
            Field::manner("order of the members, which is not that of the directory", order, Cost::Normal("zip-order"));
        fields.push(Field { cause: &causes::FILE_ORDER, ..field });
    }
    let mut covered = 0;
    for (span, _) in spans.iter().chain([&(from..from, String::new())]) {
        if span.start < covered {
            return Err(Trouble::Broken);
        }
        if span.start > covered {
            fields.push(Field::at("bytes between members", covered..span.start, text, &causes::UNKNOWN, REAL));
        }
        covered = span.end;
    }
    Ok(Archive { sorts: "zip-order", members, fields })
}

fn end_of_directory(bytes: &[u8]) -> Result<usize, Trouble> {
    let last = bytes.len().checked_sub(END).ok_or(Trouble::Broken)?;
    let first = last.saturating_sub(COMMENT_MAX);
    let is_end = |at: &usize| {
        bytes[*at..].starts_with(b"PK\x05\x06")
            && u16_at(bytes, at + 20).is_ok_and(|length| at + END + usize::from(length) == bytes.len())
    };
    (first..=last).rev().find(is_end).ok_or(Trouble::Broken)
}

struct Entry {
    name: String,
    fields: Vec<Field>,
    content: Content,
    /// From its local header to the end of what belongs to it.
    span: Range<usize>,
    /// Where the next header of the directory is.
    next: usize,
}

impl Entry {
    fn read(walk: &mut Walk<'_>, side: Side, bytes: &[u8], at: usize, directory: usize) -> Result<Self, Trouble> {
        if bytes.get(at..at + 4) != Some(b"PK\x01\x02") || bytes.len() < at + CENTRAL {
            return Err(Trouble::Broken);
        }
        let length = |offset: usize| u16_at(bytes, at + offset).map(usize::from);
        let (name, extra, comment) = (length(28)?, length(30)?, length(32)?);
        let name_at = at + CENTRAL..at + CENTRAL + name;
        let extra_at = name_at.end..name_at.end + extra;
        let comment_at = extra_at.end..extra_at.end + comment;
        bytes.get(at..comment_at.end).ok_or(Trouble::Broken)?;
        let (flags, method) = (u16_at(bytes, at + 8)?, u16_at(bytes, at + 10)?);
        let (packed, size, local) = (size_at(bytes, at + 20)?, size_at(bytes, at + 24)?, size_at(bytes, at + 42)?);
        let mut fields = header_fields(at, "");
        fields.extend(extras(walk, side, bytes, extra_at, "")?);
        fields.push(Field::at("comment", comment_at.clone(), text, &causes::ZIP_EXTRA, REAL));
        fields.push(Field::at(NAME, name_at.clone(), text, &causes::UNKNOWN, REAL));
        fields.push(Field::at("checksum", at + 16..at + 20, hex, &causes::UNKNOWN, Rule::Derived));
        let head = bytes.get(local..local.saturating_add(LOCAL_HEADER)).ok_or(Trouble::Broken)?;
        let (own_name, own_extra) = (usize::from(u16_at(head, 26)?), usize::from(u16_at(head, 28)?));
        let extra_from = local + LOCAL_HEADER + own_name;
        let from = extra_from + own_extra;
        let to = from.checked_add(packed).filter(|to| *to <= directory).ok_or(Trouble::Broken)?;
        let is_same_name = bytes[local + LOCAL_HEADER..extra_from] == bytes[name_at.clone()];
        if !head.starts_with(b"PK\x03\x04") || !is_same_name {
            return Err(Trouble::Broken);
        }
        fields.extend(local_fields(bytes, at, local)?);
        fields.extend(extras(walk, side, bytes, extra_from..from, LOCAL)?);
        let sums = &bytes[at + 16..at + 28];
        let end = if flags & HAS_DESCRIPTOR == 0 {
            // The checksum and sizes are repeated, so they say nothing of their own.
            if &head[14..26] != sums {
                return Err(Trouble::Broken);
            }
            to
        } else {
            fields.push(Field::at(
                "local checksum and sizes",
                local + 14..local + 26,
                hex,
                &causes::ZIP_HOST,
                Rule::Derived,
            ));
            descriptor(bytes, to, directory, sums, &mut fields)
        };
        let content = match method {
            DEFLATED if flags & IS_ENCRYPTED == 0 => Content::Deflated(from..to, size),
            STORED if packed != size => return Err(Trouble::Broken),
            _ => Content::At(from..to),
        };
        Ok(Self { name: text(&bytes[name_at]), fields, content, span: local..end, next: comment_at.end })
    }
}

/// Where a data descriptor ends that says what the directory says; where there is none, those bytes belong to nothing.
fn descriptor(bytes: &[u8], at: usize, directory: usize, sums: &[u8], fields: &mut Vec<Field>) -> usize {
    let signed = [b"PK\x07\x08", sums].concat();
    let rest = &bytes[at..directory];
    let (manner, length) = match rest {
        _ if rest.starts_with(&signed) => ("with a signature", signed.len()),
        _ if rest.starts_with(sums) => ("without a signature", sums.len()),
        _ => ("none", 0),
    };
    fields.push(Field::manner("data descriptor", manner, Cost::Normal("zip-descriptor")));
    at + length
}

/// What it is, its place, how it is shown, and what it means that it differs.
type Row<P> = (&'static str, P, Show, &'static Cause, Rule);

fn header_fields(at: usize, prefix: &str) -> Vec<Field> {
    let rows: [Row<Range<usize>>; 10] = [
        ("version of the creator", 4..5, hex, &causes::ZIP_HOST, CREATOR),
        ("system of the creator", 5..6, hex, &causes::ZIP_HOST, CREATOR),
        ("version that is needed", 6..8, hex, &causes::ZIP_HOST, CREATOR),
        ("flags", 8..10, hex, &causes::ZIP_HOST, Rule::Cost(Cost::Normal("zip-flags"))),
        ("compression method", 10..12, hex, &causes::COMPRESSOR, Rule::Cost(Cost::Compression)),
        ("modification time", 12..16, moment, &causes::ZIP_TIME, TIME),
        ("disk", 34..36, hex, &causes::UNKNOWN, REAL),
        ("internal attributes", 36..38, hex, &causes::ZIP_HOST, CREATOR),
        ("attributes of DOS", 38..40, hex, &causes::ZIP_HOST, CREATOR),
        ("mode", 40..42, mode, &causes::MODE, Rule::Mode("zip-mode")),
    ];
    let field = |(what, range, show, cause, rule): (&str, Range<usize>, _, _, _)| {
        Field::at(format!("{prefix}{what}"), at + range.start..at + range.end, show, cause, rule)
    };
    rows.into_iter().map(field).collect()
}

/// The fields of a local header, each of which is told only where it does not repeat that of the directory.
fn local_fields(bytes: &[u8], central: usize, local: usize) -> Result<Vec<Field>, Trouble> {
    let rows: [Row<[usize; 3]>; 4] = [
        ("version that is needed", [4, 6, 2], hex, &causes::ZIP_HOST, CREATOR),
        ("flags", [6, 8, 2], hex, &causes::ZIP_HOST, Rule::Cost(Cost::Normal("zip-flags"))),
        ("compression method", [8, 10, 2], hex, &causes::COMPRESSOR, REAL),
        ("modification time", [10, 12, 4], moment, &causes::ZIP_TIME, TIME),
    ];
    let mut fields = Vec::new();
    for (what, [own, listed, length], show, cause, rule) in rows {
        let (own, listed) = (local + own..local + own + length, central + listed..central + listed + length);
        let what = format!("{LOCAL}{what}");
        let is_repeated = bytes.get(own.clone()).ok_or(Trouble::Broken)? == &bytes[listed];
        fields.push(if is_repeated {
            Field { cause, rule, ..Field::manner(what, "as in the directory", Cost::Real) }
        } else {
            Field::at(what, own, show, cause, rule)
        });
    }
    Ok(fields)
}

/// Extra fields by their numbers.
fn extras(
    walk: &mut Walk<'_>,
    side: Side,
    bytes: &[u8],
    range: Range<usize>,
    prefix: &str,
) -> Result<Vec<Field>, Trouble> {
    let mut fields = Vec::new();
    let mut numbers = String::new();
    let mut at = range.start;
    while at + 4 <= range.end {
        walk.count(side)?;
        let (number, length) = (u16_at(bytes, at)?, usize::from(u16_at(bytes, at + 2)?));
        let end = at + 4 + length;
        if end > range.end {
            return Err(Trouble::Broken);
        }
        let (word, cause, rule): (_, &'static Cause, Rule) = match number {
            0x5455 | 0x000a => ("times", &causes::ZIP_TIME, TIME),
            0x7875 | 0x5855 | 0x7855 => ("owner", &causes::OWNER, EXTRA),
            // Sizes of zip64; a content has the one that the directory says.
            0x0001 => return Err(Trouble::Broken),
            // Padding (Android), Java's mark of jars, NTFS descriptors, and what else says nothing of the content.
            0xd935 | 0xcafe | 0x4453 => ("extra field", &causes::ZIP_EXTRA, EXTRA),
            _ => ("extra field", &causes::ZIP_EXTRA, REAL),
        };
        numbers.push_str(&format!("{number:04x}:{length} "));
        fields.push(Field::at(format!("{prefix}{word} ({number:04x})"), at + 4..end, hex, cause, rule));
        at = end;
    }
    if at < range.end {
        fields.push(Field::at(
            format!("{prefix}end of the extra fields"),
            at..range.end,
            hex,
            &causes::ZIP_EXTRA,
            EXTRA,
        ));
    }
    let kinds = Field::manner(format!("{prefix}extra fields"), numbers, Cost::Normal("zip-extra"));
    fields.push(Field { cause: &causes::ZIP_EXTRA, ..kinds });
    Ok(fields)
}
