//! tar archives: ustar, PAX (POSIX.1-2001), GNU (tar(5)). Every field of a header is one of ours; sizes and checksums are derived.

use std::ops::Range;

use crate::audit::causes::{self, Cause};
use crate::audit::compare::archive::{
    Archive, Content, Field, KIND, Member, NAME, PAX_HEADER, RECORDS, Rule, TARGET, Value,
};
use crate::audit::compare::verdict::Cost;
use crate::audit::compare::walk::{Side, Trouble, Walk, text};

const BLOCK: usize = 512;
/// Archives are filled up to a multiple of this by most programs.
const RECORD: usize = 20 * BLOCK;
/// Most bytes of one PAX header or long name.
const EXTENDED_BYTES_MAX: usize = 1024 * 1024;

const REAL: Rule = Rule::Cost(Cost::Real);
const TIME: Rule = Rule::Cost(Cost::Normal("tar-time"));
const FORMAT: Rule = Rule::Cost(Cost::Normal("tar-format"));
const OWNERS: Rule = Rule::Cost(Cost::Normal("tar-owners"));

/// Whether bytes begin with a header whose checksum is right.
pub(super) fn is_header(bytes: &[u8]) -> bool {
    bytes.len() >= BLOCK && bytes[0] != 0 && checksum(&bytes[..BLOCK]) == number(&bytes[148..156])
}

fn checksum(header: &[u8]) -> Option<u64> {
    let sum = |range: Range<usize>| header[range].iter().map(|byte| u64::from(*byte)).sum::<u64>();
    Some(sum(0..148) + 8 * 32 + sum(156..BLOCK))
}

/// A number in octal digits, or in base 256 (GNU).
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let bytes = field[1..].iter().skip_while(|byte| **byte == 0);
        if field[0] != 0x80 || bytes.clone().count() > 8 {
            return None;
        }
        return Some(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)));
    }
    let digits = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

fn decimal(field: &[u8]) -> String {
    number(field).map_or_else(|| text(field), |number| number.to_string())
}

fn octal(field: &[u8]) -> String {
    number(field).map_or_else(|| text(field), |number| format!("{number:o}"))
}

fn name(field: &[u8]) -> String {
    text(cut(field))
}

fn cut(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Reads an archive as a whole.
pub(super) fn read(walk: &mut Walk<'_>, side: Side, bytes: &[u8]) -> Result<Archive, Trouble> {
    let (mut members, mut fields) = (Vec::new(), Vec::new());
    let mut at = 0;
    let mut ahead = Ahead::default();
    while at < bytes.len() && bytes[at] != 0 {
        walk.count(side)?;
        let header = bytes.get(at..at + BLOCK).ok_or(Trouble::Broken)?;
        if !is_header(header) {
            return Err(Trouble::Broken);
        }
        let kind = header[156];
        let mut size = number(&header[124..136]).ok_or(Trouble::Broken)?;
        if let Some(own) = ahead.size.filter(|_| !matches!(kind, b'x' | b'g' | b'L' | b'K')) {
            size = own;
        }
        // Links and directories have none, whatever the field says.
        let holds = if matches!(kind, b'1'..=b'6') { 0 } else { usize::try_from(size).map_err(|_| Trouble::Broken)? };
        let from = at + BLOCK;
        let to = from.checked_add(holds).filter(|to| *to <= bytes.len()).ok_or(Trouble::Broken)?;
        let end = to.div_ceil(BLOCK).saturating_mul(BLOCK).min(bytes.len());
        let content = from..to;
        match kind {
            b'x' | b'L' | b'K' => ahead.take(walk, side, bytes, at, content.clone(), kind)?,
            b'g' => {
                fields.extend(header_fields(bytes, at, "global PAX header ", Some(holds)));
                let mut global = Ahead::default();
                global.records(walk, side, bytes, content.clone(), "global PAX ")?;
                if global.size.is_some() || global.name.is_some() {
                    return Err(Trouble::Broken);
                }
                fields.extend(global.fields);
            }
            _ => members.push(std::mem::take(&mut ahead).member(bytes, at, content.clone())?),
        }
        if bytes[to..end].iter().any(|byte| *byte != 0) {
            let padding = Field::at("padding", to..end, text, &causes::UNKNOWN, REAL);
            members.last_mut().map_or(&mut fields, |member| &mut member.fields).push(padding);
        }
        at = end;
    }
    if !ahead.fields.is_empty() || members.is_empty() {
        return Err(Trouble::Broken);
    }
    fields.push(tail(bytes, at));
    Ok(Archive { sorts: "tar-order", members, fields })
}

/// How an archive ends.
fn tail(bytes: &[u8], at: usize) -> Field {
    let zeros = bytes.len() - at;
    if bytes[at..].iter().any(|byte| *byte != 0) {
        return Field::at("end of the archive", at..bytes.len(), text, &causes::UNKNOWN, REAL);
    }
    let manner: std::borrow::Cow<'static, str> = match zeros {
        _ if bytes.len().is_multiple_of(RECORD) && (2 * BLOCK..RECORD + 2 * BLOCK).contains(&zeros) => {
            "filled up to 10240 bytes".into()
        }
        _ if zeros == 2 * BLOCK => "two blocks".into(),
        _ => format!("{zeros} bytes").into(),
    };
    Field::manner("end of the archive", manner, Cost::Normal("tar-padding"))
}

/// What extended headers say of the member that follows.
#[derive(Default)]
struct Ahead {
    fields: Vec<Field>,
    name: Option<Range<usize>>,
    size: Option<u64>,
}

impl Ahead {
    fn take(
        &mut self,
        walk: &mut Walk<'_>,
        side: Side,
        bytes: &[u8],
        at: usize,
        content: Range<usize>,
        kind: u8,
    ) -> Result<(), Trouble> {
        if content.len() > EXTENDED_BYTES_MAX {
            return Err(Trouble::Broken);
        }
        if kind == b'x' {
            self.fields.extend(header_fields(bytes, at, PAX_HEADER, None));
            return self.records(walk, side, bytes, content, "PAX ");
        }
        self.fields.extend(header_fields(bytes, at, if kind == b'L' { "long name " } else { "long link " }, None));
        if kind == b'L' {
            let length = cut(&bytes[content.clone()]).len();
            self.name = Some(content.start..content.start + length);
            self.fields.push(Field::at(NAME, content, name, &causes::ARCHIVE_FORMAT, FORMAT));
        } else {
            self.fields.push(Field::at(TARGET, content, name, &causes::LINK_TARGET, REAL));
        }
        Ok(())
    }

    /// Records `LENGTH KEY=VALUE\n` of PAX, each of which gives its own length.
    fn records(
        &mut self,
        walk: &mut Walk<'_>,
        side: Side,
        bytes: &[u8],
        content: Range<usize>,
        prefix: &str,
    ) -> Result<(), Trouble> {
        if content.len() > EXTENDED_BYTES_MAX {
            return Err(Trouble::Broken);
        }
        let mut at = content.start;
        let mut keys = String::new();
        while at < content.end {
            walk.count(side)?;
            let rest = &bytes[at..content.end];
            let space = rest.iter().take(8).position(|byte| *byte == b' ').ok_or(Trouble::Broken)?;
            let length = std::str::from_utf8(&rest[..space]).ok().and_then(|digits| digits.parse::<usize>().ok());
            let length = length.filter(|length| *length > space + 2 && *length <= rest.len()).ok_or(Trouble::Broken)?;
            let equals = rest[space..length].iter().position(|byte| *byte == b'=').ok_or(Trouble::Broken)? + space;
            if rest[length - 1] != b'\n' || rest[0] == b'0' {
                return Err(Trouble::Broken);
            }
            let key = text(&rest[space + 1..equals]);
            let value = at + equals + 1..at + length - 1;
            keys.push_str(&key);
            keys.push(' ');
            self.record(bytes, &key, value, prefix)?;
            at += length;
        }
        self.fields.push(Field::manner(format!("{prefix}{RECORDS}"), keys, Cost::Normal("tar-format")));
        Ok(())
    }

    fn record(&mut self, bytes: &[u8], key: &str, value: Range<usize>, prefix: &str) -> Result<(), Trouble> {
        let (cause, rule): (&'static Cause, Rule) = match key {
            "mtime" | "atime" | "ctime" | "LIBARCHIVE.creationtime" => (&causes::TIMESTAMP_FILE_MTIME, TIME),
            "uid" | "gid" | "uname" | "gname" => (&causes::OWNER, OWNERS),
            "linkpath" => (&causes::LINK_TARGET, REAL),
            "path" => {
                self.name = Some(value.clone());
                self.fields.push(Field::at(NAME, value, text, &causes::ARCHIVE_FORMAT, FORMAT));
                return Ok(());
            }
            "size" => {
                let digits = std::str::from_utf8(&bytes[value.clone()]).ok();
                let size: u64 = digits.and_then(|digits| digits.parse().ok()).ok_or(Trouble::Broken)?;
                self.size = Some(size);
                (&causes::UNKNOWN, Rule::Derived)
            }
            _ if key.starts_with("SCHILY.xattr.") || key.starts_with("LIBARCHIVE.xattr.") => (&causes::XATTR, REAL),
            _ if key.starts_with("SCHILY.acl.") || key == "RHT.security.selinux" => (&causes::XATTR, REAL),
            _ => (&causes::UNKNOWN, REAL),
        };
        self.fields.push(Field::at(format!("{prefix}{key}"), value, text, cause, rule));
        Ok(())
    }

    fn member(mut self, bytes: &[u8], at: usize, content: Range<usize>) -> Result<Member, Trouble> {
        let header = &bytes[at..at + BLOCK];
        let kind = header[156];
        if kind == b'S' {
            return Err(Trouble::Broken);
        }
        let own = match &self.name {
            Some(range) => text(&bytes[range.clone()]),
            None => {
                let (prefix, own) = (cut(&header[345..500]), cut(header.get(..100).unwrap_or_default()));
                let has_prefix = &header[257..263] == b"ustar\0" && !prefix.is_empty();
                if has_prefix { format!("{}/{}", text(prefix), text(own)) } else { text(own) }
            }
        };
        self.fields.extend(header_fields(bytes, at, "", Some(content.len())));
        let base = own.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if base.starts_with(".wh.") {
            for field in &mut self.fields {
                if field.cause == &causes::TIMESTAMP_FILE_MTIME {
                    field.cause = &causes::WHITEOUT;
                }
            }
        }
        let content = if matches!(kind, b'1'..=b'6') { Content::None } else { Content::At(content) };
        Ok(Member { name: own, fields: self.fields, content })
    }
}

/// What it means that two members are of two kinds.
fn kinds(a: &[u8], b: &[u8]) -> (&'static Cause, Cost) {
    let is_file = |kind: &[u8]| matches!(kind, b"0" | b"\0" | b"7");
    match (a, b) {
        _ if is_file(a) && is_file(b) => (&causes::ARCHIVE_FORMAT, Cost::Normal("tar-format")),
        (b"1", other) | (other, b"1") if is_file(other) => (&causes::HARDLINK, Cost::Real),
        _ => (&causes::FILE_MODE, Cost::Real),
    }
}

/// The fields of a header, all of its bytes. A size that is written as usual is derived.
fn header_fields(bytes: &[u8], at: usize, prefix: &'static str, size: Option<usize>) -> Vec<Field> {
    let header = &bytes[at..at + BLOCK];
    let mut fields = Vec::new();
    let mut add = |what: &'static str, range: Range<usize>, show: fn(&[u8]) -> String, cause: &'static Cause, rule| {
        let what = if prefix.is_empty() { what.into() } else { format!("{prefix}{what}").into() };
        fields.push(Field { what, value: Value::At(at + range.start..at + range.end), show, cause, rule });
    };
    let is_gnu = &header[257..265] == b"ustar  \0";
    let is_own = prefix.is_empty();
    if is_own {
        add(NAME, 0..100, name, &causes::ARCHIVE_FORMAT, FORMAT);
    } else {
        let has_pid = name(&header[..100]).contains("PaxHeaders.");
        let cause = if has_pid { &causes::PID } else { &causes::ARCHIVE_FORMAT };
        add("name", 0..100, name, cause, FORMAT);
    }
    add("mode", 100..108, octal, &causes::MODE, Rule::Mode("tar-mode"));
    add("owner number", 108..116, decimal, &causes::OWNER, OWNERS);
    add("group number", 116..124, decimal, &causes::OWNER, OWNERS);
    add("modification time", 136..148, decimal, &causes::TIMESTAMP_FILE_MTIME, TIME);
    add(KIND, 156..157, text, &causes::FILE_MODE, Rule::Kind(kinds));
    add(TARGET, 157..257, name, &causes::LINK_TARGET, REAL);
    add("format", 257..265, text, &causes::ARCHIVE_FORMAT, FORMAT);
    add("owner name", 265..297, name, &causes::OWNER, OWNERS);
    add("group name", 297..329, name, &causes::OWNER, OWNERS);
    let is_device = matches!(header[156], b'3' | b'4');
    let device = if is_device { REAL } else { Rule::Cost(Cost::Normal("tar-device")) };
    let device_cause = if is_device { &causes::FILE_MODE } else { &causes::ARCHIVE_FORMAT };
    add("major device number", 329..337, decimal, device_cause, device);
    add("minor device number", 337..345, decimal, device_cause, device);
    if is_gnu {
        add("access time", 345..357, decimal, &causes::TIMESTAMP_FILE_MTIME, TIME);
        add("change time", 357..369, decimal, &causes::TIMESTAMP_FILE_MTIME, TIME);
        add("rest of the header", 369..512, text, &causes::UNKNOWN, REAL);
    } else {
        let rule = FORMAT;
        add(if is_own { NAME } else { "name prefix" }, 345..500, name, &causes::ARCHIVE_FORMAT, rule);
        add("rest of the header", 500..512, text, &causes::UNKNOWN, REAL);
    }
    fields.push(written(header, 124..136, prefix, "size", size.and_then(|size| u64::try_from(size).ok())));
    fields.push(written(header, 148..156, prefix, "checksum", checksum(header)));
    fields
}

/// How a derived number is written: its digits are left out where it is what it must be.
fn written(header: &[u8], at: Range<usize>, prefix: &str, what: &str, value: Option<u64>) -> Field {
    let raw = &header[at.clone()];
    let length = at.len();
    let value = value.or(number(raw));
    let usual = value.and_then(|value| {
        let all = [(length - 1, "\0"), (length - 1, " "), (length - 2, "\0 "), (length - 2, " \0")];
        let fits = |(digits, end): &(usize, &str)| format!("{value:0digits$o}{end}").as_bytes() == raw;
        all.iter().position(fits)
    });
    let (manner, cost) = match usual {
        Some(way) => (format!("octal digits {way}"), Cost::Normal("tar-format")),
        None if raw[0] & 0x80 != 0 && number(raw) == value => ("base 256".into(), Cost::Normal("tar-format")),
        None => (text(raw), Cost::Real),
    };
    Field::manner(format!("{prefix}way of writing the {what}"), manner, cost)
}
