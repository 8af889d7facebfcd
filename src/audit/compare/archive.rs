//! Archives of any format as members with fields, and how two of them differ. Reads no format itself.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Range;

use crate::audit::causes::{self, Cause};
use crate::audit::compare::oci;
use crate::audit::compare::pairing::{self, Single};
use crate::audit::compare::verdict::Cost;
use crate::audit::compare::walk::{Side, Told, Trouble, Walk, planted, text, within};
use crate::audit::kinds;
use crate::audit::model::{Certainty, Difference, EVIDENCE_BYTES_MAX, Evidence, Site};
use crate::base::digest::Digest;

/// What is stored in a field.
pub(super) enum Value {
    /// These bytes of the archive.
    At(Range<usize>),
    /// A word for how something is written that other parts of the archive decide.
    Manner(Cow<'static, str>),
}

/// What a field costs when it differs.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// The same way each time.
    Cost(Cost),
    /// This normalizer if only bits of group and others differ in what is shown, in octal digits; [`Cost::Real`] else.
    Mode(&'static str),
    /// As this tells of the two values.
    Kind(fn(&[u8], &[u8]) -> (&'static Cause, Cost)),
    /// Counts only where the contents are the same, which decide it otherwise.
    Derived,
}

/// Writes a value for people.
pub(super) type Show = fn(&[u8]) -> String;

/// A field of a header.
pub(super) struct Field {
    pub(super) what: Cow<'static, str>,
    pub(super) value: Value,
    pub(super) show: Show,
    pub(super) cause: &'static Cause,
    pub(super) rule: Rule,
}

impl Field {
    pub(super) fn at(
        what: impl Into<Cow<'static, str>>,
        at: Range<usize>,
        show: Show,
        cause: &'static Cause,
        rule: Rule,
    ) -> Self {
        Self { what: what.into(), value: Value::At(at), show, cause, rule }
    }

    pub(super) fn manner(what: impl Into<Cow<'static, str>>, manner: impl Into<Cow<'static, str>>, cost: Cost) -> Self {
        let cause = &causes::ARCHIVE_FORMAT;
        Self { what: what.into(), value: Value::Manner(manner.into()), show: text, cause, rule: Rule::Cost(cost) }
    }

    fn bytes<'x>(&'x self, archive: &'x [u8]) -> &'x [u8] {
        match &self.value {
            Value::At(at) => &archive[at.clone()],
            Value::Manner(manner) => manner.as_bytes(),
        }
    }
}

/// What a member holds.
pub(super) enum Content {
    /// Nothing that could be compared: directories, links.
    None,
    /// These bytes of the archive.
    At(Range<usize>),
    /// These bytes, by deflate (RFC 1951) of a content of so many bytes.
    Deflated(Range<usize>, usize),
    /// Bytes that were translated into others without positions; they follow from other members.
    Index(Vec<u8>),
}

/// A member of an archive.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) fields: Vec<Field>,
    pub(super) content: Content,
}

/// An archive that was read as a whole: each of its bytes is of a field or a content, or derived from these.
pub(super) struct Archive {
    /// The normalizer that sorts members.
    pub(super) sorts: &'static str,
    pub(super) members: Vec<Member>,
    pub(super) fields: Vec<Field>,
}

/// Reads one format.
pub(super) type Reader = fn(&mut Walk<'_>, Side, &[u8]) -> Result<Archive, Trouble>;

/// Compares two archives of one format.
pub(super) fn compare(
    walk: &mut Walk<'_>,
    site: &Site,
    a: &[u8],
    b: &[u8],
    depth: usize,
    read: Reader,
) -> Result<(), Trouble> {
    let (first, second) = (read(walk, 0, a)?, read(walk, 1, b)?);
    let is_image = oci::is_layout(&first) && oci::is_layout(&second);
    let image = is_image.then(|| oci::archives(walk, site, [(a, &first), (b, &second)], depth));
    let is_told = |name: &str| image.as_ref().is_some_and(|image| image.contains(oci::plain(name)));
    fields(walk, site, (a, &first.fields), (b, &second.fields), None);
    let sides = [Names::of(&first), Names::of(&second)];
    let shared: Vec<&Key> = sides[0].by_name.keys().filter(|key| sides[1].by_name.contains_key(*key)).collect();
    order(walk, site, &first, &sides);
    for key in shared {
        let members = [&first.members[sides[0].by_name[key]], &second.members[sides[1].by_name[key]]];
        let named = Named { is_same: true, is_told: is_told(&key.0) };
        member(walk, &within(site, &key.0), (a, members[0]), (b, members[1]), depth, named);
    }
    for (x, y) in image.iter().flat_map(|image| &image.pairs).filter(|(x, y)| x != y) {
        let find =
            |archive: &Archive, name: &str| archive.members.iter().rposition(|one| oci::plain(&one.name) == name);
        if let (Some(x), Some(y)) = (find(&first, x), find(&second, y)) {
            let members = [&first.members[x], &second.members[y]];
            let named = Named { is_same: false, is_told: true };
            member(walk, &within(site, &members[0].name), (a, members[0]), (b, members[1]), depth, named);
        }
    }
    let alone = |side: usize| -> Vec<usize> {
        let keys = sides[side].by_name.iter().filter(|(key, _)| !sides[1 - side].by_name.contains_key(*key));
        keys.filter(|(key, _)| !is_told(&key.0)).map(|(_, position)| *position).collect()
    };
    let (alone_a, alone_b) = (alone(0), alone(1));
    let singles = [singles(walk, 0, a, &first, &alone_a), singles(walk, 1, b, &second, &alone_b)];
    let pairs = pairing::renamed(&singles[0], &singles[1]);
    for (x, y) in &pairs {
        let members = [&first.members[alone_a[*x]], &second.members[alone_b[*y]]];
        let site = within(site, &members[0].name);
        renamed(walk, &site, &members[0].name, &members[1].name);
        member(walk, &site, (a, members[0]), (b, members[1]), depth, Named { is_same: false, is_told: false });
    }
    for side in [0, 1] {
        let paired: BTreeSet<usize> = pairs.iter().map(|pair| [pair.0, pair.1][side]).collect();
        for (_, single) in singles[side].iter().enumerate().filter(|(position, _)| !paired.contains(position)) {
            only(walk, &within(site, &single.name), &single.name, side);
        }
    }
    Ok(())
}

/// A name, and how often it came before.
type Key = (String, usize);

struct Names {
    by_name: BTreeMap<Key, usize>,
    sequence: Vec<Key>,
}

impl Names {
    fn of(archive: &Archive) -> Self {
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        let mut sequence = Vec::new();
        for member in &archive.members {
            let nth = count.entry(&member.name).or_default();
            sequence.push((member.name.clone(), *nth));
            *nth += 1;
        }
        Self { by_name: sequence.iter().cloned().zip(0..).collect(), sequence }
    }
}

/// Tells if what is on both sides stands in another order.
fn order(walk: &mut Walk<'_>, site: &Site, archive: &Archive, sides: &[Names; 2]) {
    let shared = |side: usize| {
        let other = &sides[1 - side].by_name;
        sides[side].sequence.iter().filter(move |key| other.contains_key(*key))
    };
    if let Some((x, y)) = shared(0).zip(shared(1)).find(|(x, y)| x != y) {
        let what = format!("members stand in another order: first `{}` for `{}`", x.0, y.0);
        walk.push(site, Told::proven(what, &causes::FILE_ORDER, Cost::Normal(archive.sorts)));
    }
}

fn singles(walk: &mut Walk<'_>, side: Side, bytes: &[u8], archive: &Archive, alone: &[usize]) -> Vec<Single> {
    let mut singles = Vec::new();
    for position in alone {
        let member = &archive.members[*position];
        let content = match open(walk, side, bytes, &member.content) {
            Ok(Some(content)) if !content.is_empty() => Some(Digest::of(&content)),
            _ => None,
        };
        singles.push(Single { name: member.name.clone(), content });
    }
    singles
}

/// How it begins what is told of a file that is on one side only.
const ONE_SIDED: &str = "only on the ";
/// The same of one that has another name.
const RENAMED: &str = "renamed: ";

/// Whether a name is on one side only, rather than something of a file that both have.
pub(super) fn is_of_name(difference: &Difference) -> bool {
    [ONE_SIDED, RENAMED].iter().any(|lead| difference.what.starts_with(lead))
}

/// Tells of a file that is on one side only.
pub(super) fn only(walk: &mut Walk<'_>, site: &Site, name: &str, side: Side) {
    let which = ["first", "second"][side];
    let what = format!("{ONE_SIDED}{which} side");
    let told = match kinds::only_cause(name) {
        Some(cause) => Told { cause, ..Told::unknown(what) },
        None => Told::proven(what, &causes::FILE_SET, Cost::Real),
    };
    walk.push(site, told);
}

/// Tells of a file that has another name on the second side.
pub(super) fn renamed(walk: &mut Walk<'_>, site: &Site, a: &str, b: &str) {
    let (cause, certainty) = kinds::name_cause(a, b, walk.context);
    let dimension = planted(walk.context, a, b);
    let certainty = if dimension.is_some() { Certainty::Proven } else { certainty };
    let what = format!("{RENAMED}`{a}` on the first side, `{b}` on the second");
    walk.push(site, Told { cause, certainty, dimension, ..Told::unknown(what) });
}

/// How two members came together.
#[derive(Clone, Copy)]
struct Named {
    /// Whether they go by one name.
    is_same: bool,
    /// Whether their contents were compared already.
    is_told: bool,
}

fn member(walk: &mut Walk<'_>, site: &Site, a: (&[u8], &Member), b: (&[u8], &Member), depth: usize, named: Named) {
    let name = &a.1.name;
    let events = walk.events();
    if let (Content::Deflated(x, first), Content::Deflated(y, second)) = (&a.1.content, &b.1.content)
        && first == second
        && a.0[x.clone()] == b.0[y.clone()]
    {
        fields(walk, site, (a.0, &a.1.fields), (b.0, &b.1.fields), Some((named.is_same, true)));
        return;
    }
    let contents = [open(walk, 0, a.0, &a.1.content), open(walk, 1, b.0, &b.1.content)];
    let is_same = match &contents {
        [Ok(first), Ok(second)] => first == second,
        _ => false,
    };
    fields(walk, site, (a.0, &a.1.fields), (b.0, &b.1.fields), Some((named.is_same, is_same)));
    if named.is_told {
        return;
    }
    match contents {
        [Ok(Some(first)), Ok(Some(second))] => {
            if matches!((&a.1.content, &b.1.content), (Content::Index(_), Content::Index(_))) {
                if first != second {
                    let pairs = walk
                        .known
                        .at(&Site { members: site.members[..site.members.len() - 1].to_vec(), ..site.clone() });
                    walk.follow(
                        site,
                        "the index of what the members hold".into(),
                        Some(Cost::Real),
                        pairs.into_iter().collect(),
                    );
                }
            } else if first == second {
                recompressed(walk, site, a, b);
            } else {
                walk.descend(site, name, &first, &second, depth + 1);
            }
        }
        [Ok(None), Ok(None)] => {}
        // Told by what the members are.
        [Ok(_), Ok(_)] if walk.events() > events => {}
        [Ok(_), Ok(_)] => walk.push(site, Told::unknown("it has a content on one side only".into())),
        [Err(Trouble::Over(why)), _] | [_, Err(Trouble::Over(why))] => walk.over(site, &why),
        _ => {
            // What cannot be unpacked is compared as it is stored.
            let stored = |side: &(&[u8], &Member)| match &side.1.content {
                Content::At(at) | Content::Deflated(at, _) => side.0[at.clone()].to_vec(),
                _ => Vec::new(),
            };
            let (first, second) = (stored(&a), stored(&b));
            if first != second {
                walk.over(site, "it cannot be unpacked");
            }
        }
    }
}

/// Tells if the same content is compressed to other bytes.
fn recompressed(walk: &mut Walk<'_>, site: &Site, a: (&[u8], &Member), b: (&[u8], &Member)) {
    if let (Content::Deflated(x, _), Content::Deflated(y, _)) = (&a.1.content, &b.1.content)
        && a.0[x.clone()] != b.0[y.clone()]
    {
        let what = format!("the same content, compressed to {} bytes and to {}", x.len(), y.len());
        walk.push(site, Told::proven(what, &causes::COMPRESSOR, Cost::Compression));
    }
}

/// The content of a member; `None` if it has none.
pub(super) fn open<'x>(
    walk: &mut Walk<'_>,
    side: Side,
    archive: &'x [u8],
    content: &'x Content,
) -> Result<Option<Cow<'x, [u8]>>, Trouble> {
    match content {
        Content::None => Ok(None),
        Content::At(at) => Ok(Some(Cow::Borrowed(&archive[at.clone()]))),
        Content::Index(bytes) => Ok(Some(Cow::Borrowed(bytes))),
        Content::Deflated(at, size) => {
            if *size > walk.room(side) {
                return Err(Trouble::Over("too many bytes would be unpacked".into()));
            }
            let mut decoder = flate2::bufread::DeflateDecoder::new(&archive[at.clone()]);
            let mut bytes = Vec::new();
            let read = (&mut decoder).take(*size as u64 + 1).read_to_end(&mut bytes);
            walk.spend(side, bytes.len())?;
            let is_whole = read.is_ok() && bytes.len() == *size && decoder.total_in() == at.len() as u64;
            if is_whole { Ok(Some(Cow::Owned(bytes))) } else { Err(Trouble::Broken) }
        }
    }
}

/// Tells which fields differ. `members` of a member: whether the names, and whether the contents are the same.
pub(super) fn fields(
    walk: &mut Walk<'_>,
    site: &Site,
    a: (&[u8], &[Field]),
    b: (&[u8], &[Field]),
    members: Option<(bool, bool)>,
) {
    let mut sides: BTreeMap<(&str, usize), [Option<&Field>; 2]> = BTreeMap::new();
    for (side, fields) in [a.1, b.1].into_iter().enumerate() {
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        for field in fields {
            let nth = count.entry(&field.what).or_default();
            sides.entry((&field.what, *nth)).or_default()[side] = Some(field);
            *nth += 1;
        }
    }
    let mut told: Vec<(&str, Told)> = Vec::new();
    let mut has_header_alone = false;
    for ((what, _), [first, second]) in sides {
        let Some(field) = first.or(second) else { continue };
        let bytes = [first.map(|field| field.bytes(a.0)), second.map(|field| field.bytes(b.0))];
        let is_derived = matches!(field.rule, Rule::Derived) && members.is_some_and(|(_, contents)| !contents);
        let is_name = what == NAME && members.is_some_and(|(names, _)| !names);
        let is_header_alone = what.starts_with(PAX_HEADER) && bytes.contains(&None);
        has_header_alone |= is_header_alone;
        if bytes[0] == bytes[1] || is_derived || is_name || is_header_alone || is_order_of_others(what, bytes) {
            continue;
        }
        told.push((what, differing(walk, what, [first, second], bytes)));
    }
    if has_header_alone && !told.iter().any(|(what, _)| what.starts_with(PAX) || *what == NAME) {
        let cost = Cost::Normal("tar-format");
        told.push((PAX_HEADER, Told::proven("a PAX header on one side only".into(), &causes::ARCHIVE_FORMAT, cost)));
    }
    // A name may be written in several fields, and a link has a target because it is one.
    told.dedup_by_key(|(what, _)| *what);
    if told.iter().any(|(what, _)| *what == KIND) {
        told.retain(|(what, _)| *what != TARGET);
    }
    // What a local header repeats is told once.
    let central: Vec<(&Cause, Cost)> =
        told.iter().filter(|(what, _)| !what.starts_with(LOCAL)).map(|(_, told)| (told.cause, told.cost)).collect();
    for (what, one) in told {
        if !(what.starts_with(LOCAL) && central.contains(&(one.cause, one.cost))) {
            walk.push(site, one);
        }
    }
}

/// The field of a name as it is written: of two members that were paired under other names it has been told.
pub(super) const NAME: &str = "name as written";
/// What a member is, and where it leads if it is a link.
pub(super) const KIND: &str = "type";
pub(super) const TARGET: &str = "link target";
/// How fields of PAX records begin, of the headers before them, and what tells their order.
pub(super) const PAX: &str = "PAX ";
pub(super) const PAX_HEADER: &str = "PAX header ";
pub(super) const RECORDS: &str = "order of records";
/// How fields of local headers begin, which repeat those of the directory of a zip archive.
pub(super) const LOCAL: &str = "local ";

/// Whether a field tells the order of records that are not the same on both sides, which is told by each of these.
fn is_order_of_others(what: &str, bytes: [Option<&[u8]>; 2]) -> bool {
    let words = |bytes: &[u8]| {
        let mut words: Vec<Vec<u8>> = bytes.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect();
        words.sort_unstable();
        words
    };
    what.ends_with(RECORDS) && bytes[0].map(words) != bytes[1].map(words)
}

fn differing(walk: &Walk<'_>, what: &str, fields: [Option<&Field>; 2], bytes: [Option<&[u8]>; 2]) -> Told {
    let shown = [0, 1].map(|side| fields[side].zip(bytes[side]).map(|(field, bytes)| (field.show)(bytes)));
    let words = [0, 1].map(|side| shown[side].clone().unwrap_or_else(|| "none".into()));
    let cost_of = |field: &Field| match field.rule {
        Rule::Cost(cost) => cost,
        Rule::Derived | Rule::Kind(_) => Cost::Real,
        Rule::Mode(normalizer) => {
            let mode = |side: usize| u32::from_str_radix(shown[side].as_deref()?, 8).ok();
            match (mode(0), mode(1)) {
                (Some(x), Some(y)) if (x ^ y) & !0o077 == 0 => Cost::Normal(normalizer),
                _ => Cost::Real,
            }
        }
    };
    let cost = fields.into_iter().flatten().map(cost_of).max().unwrap_or(Cost::Real);
    // Of two that are not the same field, the one that matters more.
    let field = fields.into_iter().flatten().rev().max_by_key(|field| cost_of(field));
    let (cause, is_mode) =
        field.map_or((&causes::UNKNOWN, false), |field| (field.cause, matches!(field.rule, Rule::Mode(_))));
    let cause = if is_mode && cost == Cost::Real { &causes::FILE_MODE } else { cause };
    let (cause, cost) = match (field.map(|field| field.rule), bytes) {
        (Some(Rule::Kind(kind)), [Some(first), Some(second)]) => kind(first, second),
        // Of a field that is not there on one side, that is the point.
        _ if cause == &causes::ZIP_TIME && fields.iter().any(Option::is_none) => (&causes::ZIP_EXTRA, cost),
        _ => (cause, cost),
    };
    let is_named = *cause != causes::UNKNOWN;
    let offset = fields.iter().flatten().find_map(|field| match &field.value {
        Value::At(at) => Some(at.start as u64),
        Value::Manner(_) => None,
    });
    let cut = |bytes: Option<&[u8]>| bytes.unwrap_or_default().iter().take(EVIDENCE_BYTES_MAX).copied().collect();
    let dimension = planted(walk.context, &words[0], &words[1]);
    Told {
        what: format!("{what}: {} on the first side, {} on the second", short(&words[0]), short(&words[1])),
        cause,
        certainty: if is_named || dimension.is_some() { Certainty::Proven } else { Certainty::Suspected },
        dimension,
        evidence: offset.map(|offset| Evidence { offset, a: cut(bytes[0]), b: cut(bytes[1]) }),
        cost,
    }
}

/// Most characters of a value that are told.
const SHOWN_CHARS_MAX: usize = 120;

fn short(words: &str) -> String {
    match words.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.to_owned(),
    }
}
