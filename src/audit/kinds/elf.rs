//! Two ELF files, section by section. Format: the System V ABI, chapter 4 (object files).

use std::collections::BTreeMap;
use std::ops::Range;

use super::gather::{Gathered, Reason, Stretch};
use super::lines::compare_binary;
use super::span::LENGTH_LEAD;
use super::{Finding, functions};
use crate::audit::causes::{self, Cause};
use crate::audit::model::Certainty;

/// So many sections are named in one sentence.
const NAMES_TOLD_MAX: usize = 8;
const SECTION_HAS_CODE: u64 = 4;
/// A section that takes no room in the file.
const KIND_NO_BITS: u32 = 8;

/// A part of a file.
#[derive(Clone, Debug)]
struct Section {
    range: Range<usize>,
    has_code: bool,
}

/// Reads numbers of the file's width and order.
pub(super) struct Reader<'t> {
    file: &'t [u8],
    pub is_wide: bool,
    is_big: bool,
}

impl<'t> Reader<'t> {
    /// Of an ELF file.
    pub fn of(file: &'t [u8]) -> Option<Self> {
        let (is_wide, is_big) = (file.get(4) == Some(&2), file.get(5) == Some(&2));
        file.starts_with(b"\x7fELF").then_some(Self { file, is_wide, is_big })
    }

    pub fn number(&self, at: usize, bytes: usize) -> Option<u64> {
        let part = self.file.get(at..at.checked_add(bytes)?)?;
        let fold = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if self.is_big { part.iter().fold(0, fold) } else { part.iter().rev().fold(0, fold) })
    }

    pub fn place(&self, at: usize, bytes: usize) -> Option<usize> {
        usize::try_from(self.number(at, bytes)?).ok()
    }

    /// Address-sized.
    pub fn word(&self, at: usize) -> Option<usize> {
        self.place(at, if self.is_wide { 8 } else { 4 })
    }

    /// Name offset, kind, flags, where in the file.
    fn header(&self, at: usize) -> Option<(usize, u32, u64, Range<usize>)> {
        let (flags, offset) = if self.is_wide { (8, 24) } else { (8, 16) };
        let width = if self.is_wide { 8 } else { 4 };
        let start = self.word(at + offset)?;
        let size = self.word(at + offset + width)?;
        let kind = u32::try_from(self.number(at + 4, 4)?).ok()?;
        Some((self.place(at, 4)?, kind, self.number(at + flags, width)?, start..start.checked_add(size)?))
    }
}

/// The sections of a file by name, numbered where a name comes more than once.
fn sections(file: &[u8]) -> Option<BTreeMap<String, Section>> {
    let reader = Reader::of(file)?;
    let (table_at, size_at) = if reader.is_wide { (0x28, 0x3a) } else { (0x20, 0x2e) };
    let table = reader.word(table_at)?;
    let size = reader.place(size_at, 2)?;
    let count = reader.place(size_at + 2, 2)?;
    let names = reader.place(size_at + 4, 2)?;
    let at = |section: usize| table.checked_add(section.checked_mul(size)?);
    let (_, _, _, names) = reader.header(at(names)?)?;
    let names = file.get(names)?;
    let mut sections = BTreeMap::new();
    for section in 0..count {
        let (name, kind, flags, range) = reader.header(at(section)?)?;
        let name = names.get(name..)?;
        let name = &name[..name.iter().position(|byte| *byte == 0)?];
        if kind == KIND_NO_BITS || range.is_empty() {
            continue;
        }
        file.get(range.clone())?;
        let name = String::from_utf8_lossy(name).into_owned();
        let mut own = name.clone();
        let mut number = 2;
        while sections.contains_key(&own) {
            own = format!("{name}#{number}");
            number += 1;
        }
        sections.insert(own, Section { range, has_code: flags & SECTION_HAS_CODE != 0 });
    }
    Some(sections)
}

/// Identifiers that are computed from the rest.
fn identifier(name: &str) -> Option<&'static Cause> {
    match name {
        ".note.gnu.build-id" | ".gnu_debuglink" | ".gnu_debugaltlink" => Some(&causes::BUILD_ID),
        ".note.go.buildid" | ".go.buildid" => Some(&causes::GO_BUILD),
        _ => None,
    }
}

/// Sections of addresses, offsets and sizes, which follow from what is in the others.
fn is_structure(name: &str) -> bool {
    const NAMES: [&str; 25] = [
        ".symtab",
        ".dynsym",
        ".eh_frame",
        ".eh_frame_hdr",
        ".dynamic",
        ".got",
        ".got.plt",
        ".hash",
        ".gnu.hash",
        ".gnu.version",
        ".gnu.version_r",
        ".shstrtab",
        ".debug_info",
        ".debug_abbrev",
        ".debug_aranges",
        ".debug_ranges",
        ".debug_rnglists",
        ".debug_loc",
        ".debug_loclists",
        ".debug_frame",
        ".debug_str_offsets",
        ".debug_addr",
        ".data.rel.ro",
        ".init_array",
        ".fini_array",
    ];
    NAMES.contains(&name) || name.starts_with(".rela") || name.starts_with(".rel.")
}

/// Looks into two files; `false` if one of them is none or its table of sections cannot be read.
pub(super) fn look(all: &mut Gathered<'_>, a: &[u8], b: &[u8]) -> bool {
    let (Some(sections_a), Some(sections_b)) = (sections(a), sections(b)) else { return false };
    let mut content: Vec<Differing> = Vec::new();
    let mut follows: Vec<Differing> = Vec::new();
    let mut identifiers = Vec::new();
    for (name, section_a) in &sections_a {
        let Some(section_b) = sections_b.get(name) else { continue };
        if a[section_a.range.clone()] == b[section_b.range.clone()] {
            continue;
        }
        let pair = (name.clone(), section_a.clone(), section_b.clone());
        match identifier(name) {
            Some(_) => identifiers.push(pair),
            None if section_a.has_code || is_structure(name) => follows.push(pair),
            None => content.push(pair),
        }
    }
    for differing in content {
        let (name, section_a, section_b) = &differing;
        if !contents(all, name, &a[section_a.range.clone()], &b[section_b.range.clone()]) {
            follows.push(differing);
        }
    }
    one_sided(all, &sections_a, &sections_b);
    code_and_structure(all, (a, b), &follows);
    let is_alone = all.is_empty();
    for (name, section_a, section_b) in identifiers {
        let (part_a, part_b) = (&a[section_a.range], &b[section_b.range]);
        let stretch = whole(part_a, part_b);
        let what = if is_alone {
            "only an identifier differs that is computed from the rest"
        } else {
            "an identifier that follows from what else differs"
        };
        let cause = identifier(&name).unwrap_or(&causes::BUILD_ID);
        all.add(&[name], Reason::suspected(cause, what, (0..part_a.len(), 0..part_b.len())).proven(), &stretch);
    }
    if all.is_empty() {
        compare_binary(all, &[], a, b);
    }
    true
}

/// All of two parts from the first byte that differs.
fn whole<'t>(a: &'t [u8], b: &'t [u8]) -> Stretch<'t> {
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    Stretch { a, at_a: start..a.len(), b, at_b: start..b.len(), is_text: false }
}

/// Compares sections of strings and data; `false` if all that differs there may follow from elsewhere.
fn contents(all: &mut Gathered<'_>, name: &str, a: &[u8], b: &[u8]) -> bool {
    let mut inner = Gathered::new(all.context, all.markers);
    compare_binary(&mut inner, &[name.to_owned()], a, b);
    let mut is_told = false;
    // In these, offsets and names of units stand between the paths.
    let is_mixed = matches!(name, ".debug_line" | ".strtab" | ".data" | ".gopclntab" | ".gosymtab");
    let has_moved = a.len() != b.len() && inner.first_known().is_some();
    for mut finding in inner.finish() {
        if has_moved && finding.what.starts_with(LENGTH_LEAD) {
            continue;
        }
        let is_unknown = finding.cause == &causes::UNKNOWN;
        if is_unknown && is_mixed {
            continue;
        }
        if is_unknown && name == ".comment" {
            finding.cause = &causes::NETWORK_DRIFT;
            finding.what = format!("another compiler: {}", finding.what);
        }
        if name.starts_with(".go.buildinfo") && finding.dimension.is_none() {
            finding.cause = &causes::GO_BUILD;
        }
        is_told = true;
        all.take(finding);
    }
    is_told
}

/// Sections that only one of the files has.
fn one_sided(all: &mut Gathered<'_>, a: &BTreeMap<String, Section>, b: &BTreeMap<String, Section>) {
    let only = |one: &BTreeMap<String, Section>, other: &BTreeMap<String, Section>| -> Vec<String> {
        one.keys().filter(|name| !other.contains_key(*name)).take(64).cloned().collect()
    };
    for (which, names) in [("first", only(a, b)), ("second", only(b, a))] {
        for name in names {
            let reason =
                Reason::suspected(&causes::UNKNOWN, format!("only the {which} build has this section"), (0..0, 0..0));
            all.add_with(&[name], reason, None);
        }
    }
}

type Differing = (String, Section, Section);

/// Code and tables: what is planted in them is told; the rest is one finding. It follows from what is known, or code is made for a processor.
fn code_and_structure(all: &mut Gathered<'_>, (a, b): (&[u8], &[u8]), follows: &[Differing]) {
    let known = all.first_known();
    let is_alone = all.is_empty();
    let mut rest: Vec<&Differing> = Vec::new();
    for differing in follows {
        let (name, section_a, section_b) = differing;
        let mut inner = Gathered::new(all.context, all.markers);
        let (part_a, part_b) = (&a[section_a.range.clone()], &b[section_b.range.clone()]);
        compare_binary(&mut inner, std::slice::from_ref(name), part_a, part_b);
        let is_sure = |finding: &Finding| finding.certainty == Certainty::Proven && all.context.alone.is_none();
        let (sure, unsure): (Vec<_>, Vec<_>) = inner.finish().into_iter().partition(is_sure);
        sure.into_iter().for_each(|finding| all.take(finding));
        if !unsure.is_empty() {
            rest.push(differing);
        }
    }
    let Some((name, section_a, section_b)) = rest.iter().find(|(_, section, _)| section.has_code).or(rest.first())
    else {
        return;
    };
    let (part_a, part_b) = (&a[section_a.range.clone()], &b[section_b.range.clone()]);
    let names: Vec<&str> = rest.iter().map(|(name, _, _)| name.as_str()).take(NAMES_TOLD_MAX).collect();
    let names = names.join(", ");
    let covers = (0..part_a.len(), 0..part_b.len());
    let reason = match known {
        Some(cause) => {
            Reason::suspected(cause, format!("code and addresses that follow from what else differs: {names}"), covers)
        }
        None if is_alone && functions::are_reordered(a, b) => {
            Reason::suspected(&causes::FILE_ORDER, format!("the same functions in another order: {names}"), covers)
        }
        None if is_alone && section_a.has_code => Reason::suspected(
            &causes::CPU_FEATURES,
            format!("only code differs, by processor, measured profile or the compiler's order of work: {names}"),
            covers,
        ),
        None => Reason::suspected(
            &causes::UNKNOWN,
            format!("code or addresses that nothing else explains: {names}"),
            covers,
        ),
    };
    all.add(std::slice::from_ref(name), reason, &whole(part_a, part_b));
}
