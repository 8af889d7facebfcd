//! cpio archives of the new format, with and without checksums (cpio(5)): what initramfs and RPM packages hold.

use crate::audit::causes::{self, Cause};
use crate::audit::compare::archive::{Archive, Content, Field, Member, Rule, Show};
use crate::audit::compare::verdict::Cost;
use crate::audit::compare::walk::{Side, Trouble, Walk, text};

const HEADER: usize = 110;
const DIGITS: usize = 8;
const TRAILER: &[u8] = b"TRAILER!!!";

fn number(bytes: &[u8], from: usize) -> Option<usize> {
    let digits = bytes.get(from..from + DIGITS)?;
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    usize::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| is_hex)?, 16).ok()
}

fn decimal(field: &[u8]) -> String {
    number(field, 0).map_or_else(|| text(field), |number| number.to_string())
}

fn octal(field: &[u8]) -> String {
    number(field, 0).map_or_else(|| text(field), |number| format!("{number:o}"))
}

/// Reads an archive as a whole.
pub(super) fn read(walk: &mut Walk<'_>, side: Side, bytes: &[u8]) -> Result<Archive, Trouble> {
    let (mut members, mut fields) = (Vec::new(), Vec::new());
    let mut at = 0;
    loop {
        walk.count(side)?;
        let magic = bytes.get(at..at + 6).ok_or(Trouble::Broken)?;
        if !matches!(magic, b"070701" | b"070702") {
            return Err(Trouble::Broken);
        }
        let (size, length) = (number(bytes, at + 54), number(bytes, at + 94));
        let (size, length) = (size.ok_or(Trouble::Broken)?, length.filter(|n| *n > 0).ok_or(Trouble::Broken)?);
        let name_at = at + HEADER;
        let name = bytes.get(name_at..name_at.saturating_add(length)).ok_or(Trouble::Broken)?;
        let (last, name) = name.split_last().ok_or(Trouble::Broken)?;
        if *last != 0 {
            return Err(Trouble::Broken);
        }
        let from = (name_at + length).next_multiple_of(4);
        let to = from.checked_add(size).filter(|to| *to <= bytes.len()).ok_or(Trouble::Broken)?;
        let end = to.next_multiple_of(4).min(bytes.len());
        let own = header_fields(bytes, at);
        let gaps = [name_at + length..from, to..end].map(|gap| bytes.get(gap).unwrap_or_default());
        if gaps.iter().any(|gap| gap.iter().any(|byte| *byte != 0)) {
            return Err(Trouble::Broken);
        }
        at = end;
        if name == TRAILER {
            fields.extend(
                own.into_iter().map(|field| Field { what: format!("trailer: {}", field.what).into(), ..field }),
            );
            break;
        }
        let content = if size == 0 { Content::At(0..0) } else { Content::At(from..to) };
        members.push(Member { name: text(name), fields: own, content });
    }
    if bytes[at..].iter().any(|byte| *byte != 0) {
        fields.push(Field::at("end of the archive", at..bytes.len(), text, &causes::UNKNOWN, Rule::Cost(Cost::Real)));
    } else {
        let manner = if bytes.len().is_multiple_of(512) {
            "filled up to 512 bytes".into()
        } else {
            format!("{} bytes", bytes.len() - at)
        };
        fields.push(Field::manner("end of the archive", manner, Cost::Normal("cpio-padding")));
    }
    Ok(Archive { sorts: "cpio-order", members, fields })
}

/// What it is, its position, how it is shown, and what it means that it differs.
type Row = (&'static str, usize, Show, &'static Cause, Rule);

fn header_fields(bytes: &[u8], at: usize) -> Vec<Field> {
    let owners = Rule::Cost(Cost::Normal("cpio-owners"));
    let numbers = Rule::Cost(Cost::Normal("cpio-header"));
    let real = Rule::Cost(Cost::Real);
    let kind = number(bytes, at + 14).unwrap_or_default() >> 12;
    let device = if matches!(kind, 2 | 6) { real } else { numbers };
    let rows: [Row; 10] = [
        ("inode number", 0, decimal, &causes::CPIO_HEADER, numbers),
        ("mode", 1, octal, &causes::MODE, Rule::Mode("cpio-mode")),
        ("owner number", 2, decimal, &causes::OWNER, owners),
        ("group number", 3, decimal, &causes::OWNER, owners),
        ("number of links", 4, decimal, &causes::HARDLINK, real),
        ("modification time", 5, decimal, &causes::TIMESTAMP_FILE_MTIME, Rule::Cost(Cost::Normal("cpio-time"))),
        ("major number of its device", 7, decimal, &causes::CPIO_HEADER, numbers),
        ("minor number of its device", 8, decimal, &causes::CPIO_HEADER, numbers),
        ("major device number", 9, decimal, &causes::CPIO_HEADER, device),
        ("minor device number", 10, decimal, &causes::CPIO_HEADER, device),
    ];
    let field = |(what, position, show, cause, rule): (_, usize, _, _, _)| {
        let from = at + 6 + position * DIGITS;
        Field::at(what, from..from + DIGITS, show, cause, rule)
    };
    let mut fields: Vec<Field> = rows.into_iter().map(field).collect();
    fields.push(Field::at(
        "format",
        at..at + 6,
        text,
        &causes::ARCHIVE_FORMAT,
        Rule::Cost(Cost::Normal("cpio-format")),
    ));
    fields.push(Field::at("checksum", at + 102..at + 110, text, &causes::UNKNOWN, Rule::Derived));
    // Digits of lengths may be upper or lower case.
    let written = |from: usize| bytes[at + from..at + from + DIGITS].iter().any(u8::is_ascii_uppercase).to_string();
    for (what, from) in [("way of writing the size", 54), ("way of writing the length of the name", 94)] {
        fields.push(Field { rule: Rule::Derived, ..Field::manner(what, written(from), Cost::Real) });
    }
    fields
}
