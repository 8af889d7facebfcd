//! All that an answer was made of, path by path, as it was on the disk: what loading and planning looked at ([`fs::witness`]), the
//! source files, the outputs. Tells nothing of what it means; [`crate::workspace::sweep`] compares it with the disk.
//!
//! One block of bytes, looked up where it lies: `u32` counts of directories, claims and bytes of names; the directories in byte
//! order of their paths, each a record of fixed size; the claims, in the order of their directories and of their names in them, each a
//! record of fixed size; the names, each ended by a NUL. Integers are little-endian. Whoever saves it seals it; whatever the bytes
//! are, reading them does not panic.
//!
//! [`fs::witness`]: crate::fs::witness

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::base::digest::{DIGEST_LEN, Digest};
use crate::base::encode::Encoder;
use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::fs::ops::Kind;
use crate::fs::stat::StatKey;
use crate::fs::witness::{Names, Sighting, Told};
use crate::workspace::stat_index;

pub(super) const HEADER_LEN: usize = 12;
pub(super) const DIR_LEN: usize = 16;
pub(super) const CLAIM_LEN: usize = 24 + 40 + DIGEST_LEN;

/// Owner of claims that are of no task's outputs.
const NOBODY: u32 = u32::MAX;

/// What is claimed of a path. Codes are kept in files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Aspect {
    /// Whether something lies there.
    Presence,
    /// What lies there.
    Kind,
    /// The signature of the path itself.
    Itself,
    /// The signature of what it leads to.
    Target,
    /// The bytes of what it leads to.
    Content,
    /// Where a link leads.
    Link,
    /// The path without links.
    Real,
    /// All names in a directory.
    AllNames,
    /// The names in a directory that git does not ignore.
    UnignoredNames,
    /// The bytes of a regular file that is a source or an output.
    File,
    /// The target of a link that is one.
    FileLink,
    /// Whether something is mounted right there.
    Mount,
}

const ASPECTS: [Aspect; 12] = [
    Aspect::Presence,
    Aspect::Kind,
    Aspect::Itself,
    Aspect::Target,
    Aspect::Content,
    Aspect::Link,
    Aspect::Real,
    Aspect::AllNames,
    Aspect::UnignoredNames,
    Aspect::File,
    Aspect::FileLink,
    Aspect::Mount,
];

/// What a claim is part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// What the workspace is and what the tasks are: where it fails, all is to be loaded anew.
    Structure,
    /// A source file.
    Source,
    /// The outputs of the task at this position.
    Output(u32),
}

/// One claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// What it is about.
    pub aspect: Aspect,
    /// What it is part of.
    pub role: Role,
    /// Whether there was an answer: something of the kind lay there.
    pub is_there: bool,
    /// Whether a change since cannot have left the signature as it was. Of [`Aspect::Link`]: whether it was read after the names in its
    /// directory were, so that it is as it was while the signature of those holds.
    pub is_settled: bool,
    /// The signature; of [`Aspect::Kind`] and [`Aspect::Presence`] nothing but the mode counts.
    pub stat: StatKey,
    /// The digest of bytes, names or the text of a link, by the aspect.
    pub digest: Digest,
}

impl Claim {
    /// Whether it is on the names in a directory.
    pub fn is_of_names(&self) -> bool {
        matches!(self.aspect, Aspect::AllNames | Aspect::UnignoredNames)
    }
}

/// What the claims of one directory are relative to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// The root of the workspace; no link is followed on the way.
    Workspace,
    /// The file system; links on the way are followed, as they were when it was looked at.
    Machine,
}

/// One directory with claims on what lies in it, or on itself.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What its path is relative to.
    pub base: Base,
    /// The path in bytes, NUL included; without the slash in front for [`Base::Machine`]. Empty for the base itself.
    pub path: &'a [u8],
    /// Positions of its claims: first, and behind the last.
    pub claims: (usize, usize),
}

/// Checked bytes of a census, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Census<'a> {
    bytes: &'a [u8],
    dirs: usize,
    claims: usize,
}

impl<'a> Census<'a> {
    /// Appends a claim to an encoding, apart from its place.
    pub fn encode(claim: &Claim) -> Vec<u8> {
        let mut raw = Vec::with_capacity(CLAIM_LEN);
        encode_claim(&mut raw, (0, 0), claim);
        raw
    }

    /// Reads what [`Census::encode`] wrote.
    pub fn decode(raw: &[u8]) -> Option<Claim> {
        decode_claim(<&[u8; CLAIM_LEN]>::try_from(raw).ok()?)
    }

    /// The bytes as a census, if their lengths are right.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let (dirs, claims, names_len) = (half(bytes, 0)?, half(bytes, 4)?, half(bytes, 8)?);
        let length = dirs.checked_mul(DIR_LEN)?.checked_add(claims.checked_mul(CLAIM_LEN)?)?;
        (length.checked_add(names_len)?.checked_add(HEADER_LEN)? == bytes.len()).then_some(Self { bytes, dirs, claims })
    }

    /// How many directories it has.
    pub fn dir_count(&self) -> usize {
        self.dirs
    }

    /// How many claims it has.
    pub fn len(&self) -> usize {
        self.claims
    }

    /// Whether it claims nothing.
    pub fn is_empty(&self) -> bool {
        self.claims == 0
    }

    fn names(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN + self.dirs * DIR_LEN + self.claims * CLAIM_LEN..]
    }

    /// A text with the NUL behind it; just the NUL if the bytes were written wrong.
    fn text(&self, start: usize, length: usize) -> &'a [u8] {
        let found = self.names().get(start..start.saturating_add(length).saturating_add(1));
        found.filter(|text| text.last() == Some(&0)).unwrap_or(b"\0")
    }

    /// The directory at a position.
    ///
    /// # Panics
    /// Beyond [`Census::dir_count`].
    pub fn dir(&self, index: usize) -> Place<'a> {
        let raw = &self.bytes[HEADER_LEN + index * DIR_LEN..][..DIR_LEN];
        let word = |at| half(raw, at).expect("a record is longer");
        let base = if raw[15] & 1 == 0 { Base::Workspace } else { Base::Machine };
        let length = usize::from(raw[12]) | usize::from(raw[13]) << 8;
        let first = word(4).min(self.claims);
        let behind = first.saturating_add(word(8)).min(self.claims);
        Place { base, path: self.text(word(0), length), claims: (first, behind) }
    }

    pub(super) fn raw(&self, index: usize) -> &'a [u8] {
        &self.bytes[HEADER_LEN + self.dirs * DIR_LEN + index * CLAIM_LEN..][..CLAIM_LEN]
    }

    /// The name that a claim is about, NUL included; empty for the directory itself.
    pub fn name(&self, index: usize) -> &'a [u8] {
        let raw = self.raw(index);
        let length = usize::from(raw[4]) | usize::from(raw[5]) << 8;
        self.text(half(raw, 0).expect("a record is longer"), length)
    }

    /// The claim at a position; `None` if it was written wrong.
    pub fn claim(&self, index: usize) -> Option<Claim> {
        decode_claim(self.raw(index).first_chunk()?)
    }

    /// Whether a claim is part of what the workspace is, as far as its record tells. Cost: a few of its bytes.
    pub fn is_structure(&self, index: usize) -> bool {
        !matches!(self.role(index), Some(Role::Source | Role::Output(_)))
    }

    /// What the claim at a position is part of; `None` if it was written wrong. Cost: a few of its bytes.
    pub fn role(&self, index: usize) -> Option<Role> {
        decode_role(self.raw(index).first_chunk()?)
    }

    /// The claim on the names in a directory of the workspace that git does not ignore. Cost: a binary search.
    pub fn names_in(&self, dir: &RelPath) -> Option<usize> {
        let place = self.place(Base::Workspace, dir.as_str().as_bytes())?;
        // Those on the directory itself come first.
        let itself = (place.claims.0..place.claims.1).take_while(|at| without_nul(self.name(*at)).is_empty());
        itself.into_iter().find(|at| self.claim(*at).is_some_and(|claim| claim.aspect == Aspect::UnignoredNames))
    }

    /// The claims of a directory, which is named without a NUL. Cost: a binary search.
    pub fn place(&self, base: Base, path: &[u8]) -> Option<Place<'a>> {
        let index = self.first_from(base, path);
        let place = (index < self.dirs).then(|| self.dir(index))?;
        (place.base == base && without_nul(place.path) == path).then_some(place)
    }

    /// Positions of claims in the workspace: those in the directory above one, then all in and beneath it, and perhaps more. Cost: two
    /// binary searches, and one step for each directory beneath.
    pub fn claims_near(&self, dir: &RelPath) -> [Range<usize>; 2] {
        let path = dir.as_str().as_bytes();
        let above = dir.parent().and_then(|above| self.place(Base::Workspace, above.as_str().as_bytes()));
        let first = self.first_from(Base::Workspace, path);
        let is_beneath = |place: &Place<'_>| place.base == Base::Workspace && without_nul(place.path).starts_with(path);
        let beneath = (first..self.dirs).map(|index| self.dir(index)).take_while(is_beneath);
        let claims = |place: Place<'_>| place.claims.0..place.claims.1;
        let beneath = beneath.map(claims).reduce(|all, next| all.start..next.end.max(all.end));
        [above.map_or(0..0, claims), beneath.unwrap_or(0..0)]
    }

    /// The first directory that is the named one or comes after it.
    fn first_from(&self, base: Base, path: &[u8]) -> usize {
        let wanted = (base == Base::Machine, path);
        let key = |index: usize| {
            let place = self.dir(index);
            (place.base == Base::Machine, without_nul(place.path))
        };
        let (mut low, mut high) = (0, self.dirs);
        while low < high {
            let middle = low + (high - low) / 2;
            if key(middle) < wanted { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The directory that a claim belongs to. Cost: a binary search.
    pub fn dir_of(&self, claim: usize) -> Place<'a> {
        let (mut low, mut high) = (0, self.dirs);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if self.dir(middle).claims.0 <= claim { low = middle } else { high = middle }
        }
        self.dir(low)
    }

    /// The path of a claim in the workspace; `None` for one elsewhere, or if it was written wrong.
    pub fn path(&self, claim: usize) -> Option<RelPath> {
        let place = self.dir_of(claim);
        let (dir, name) = (without_nul(place.path), without_nul(self.name(claim)));
        let text = match (dir, name) {
            _ if place.base == Base::Machine => return None,
            (dir, b"") => dir.to_vec(),
            (b"", name) => name.to_vec(),
            (dir, name) => [dir, b"/", name].concat(),
        };
        RelPath::parse_bytes(&text).ok()
    }
}

/// Puts a claim in the place of another one on the same path. Nothing happens to bytes that are no census, or beyond its claims.
pub fn replace(bytes: &mut [u8], position: u32, claim: &Claim) {
    let Some(Census { dirs, claims, .. }) = Census::of(bytes) else { return };
    let index = position as usize;
    if index >= claims {
        return;
    }
    let start = HEADER_LEN + dirs * DIR_LEN + index * CLAIM_LEN;
    let mut raw = Vec::with_capacity(CLAIM_LEN);
    encode_claim(&mut raw, (0, 0), claim);
    // Of the record before, the name stays.
    bytes[start + 6..start + CLAIM_LEN].copy_from_slice(&raw[6..]);
}

/// The bytes before the NUL.
pub fn without_nul(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\0").unwrap_or(text)
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

/// Puts a census together.
#[derive(Debug)]
pub struct Draft {
    /// The root of the workspace without links, with a slash behind it.
    root: Vec<u8>,
    groups: Vec<Group>,
    /// Positions in `groups`.
    known: HashMap<(bool, Vec<u8>), usize>,
    count: usize,
}

#[derive(Debug)]
struct Group {
    base: Base,
    path: Vec<u8>,
    /// Names, claims and the order in which they came.
    claims: Vec<(Vec<u8>, Claim, usize)>,
    /// When its names were looked at first, in nanoseconds since 1970.
    names_ns: Option<i64>,
    /// When links in it were looked at, by number of the claim.
    links_ns: Vec<(usize, i64)>,
}

impl Group {
    /// Notes when a claim was seen, before it is added as the one of a number.
    fn note(&mut self, claim: &Claim, number: usize, seen_ns: i64) {
        if claim.aspect == Aspect::Link {
            self.links_ns.push((number, seen_ns));
        } else if claim.is_of_names() && claim.is_there {
            self.names_ns = Some(self.names_ns.map_or(seen_ns, |known| known.min(seen_ns)));
        }
    }

    /// Settles the links that were seen after the names. Whatever else is claimed of the names then fails by itself.
    fn settle_links(&mut self) {
        let Some(names_ns) = self.names_ns else { return };
        let late = self.links_ns.iter().filter(|(_, seen_ns)| *seen_ns > names_ns);
        let late: HashSet<usize> = late.map(|(number, _)| *number).collect();
        self.claims.iter_mut().for_each(|(_, claim, number)| claim.is_settled |= late.contains(number));
    }
}

impl Draft {
    /// Nothing claimed yet. `root` is absolute and has no links.
    pub fn new(root: &Path) -> Self {
        let mut root = root.as_os_str().as_bytes().to_vec();
        if root.last() != Some(&b'/') {
            root.push(b'/');
        }
        Self { root, groups: Vec::new(), known: HashMap::new(), count: 0 }
    }

    /// Claims what a look told. A path that is relative, which nothing looked at has, is left out.
    pub fn add_sighting(&mut self, sighting: &Sighting) {
        let path = sighting.path.as_os_str().as_bytes();
        let Some(claim) = claim_of(sighting) else { return };
        let names_itself = claim.is_of_names();
        let seen_ns = Some(sighting.seen_ns);
        if let Some(below) = path.strip_prefix(self.root.as_slice()) {
            let below = below.to_vec();
            self.add(Base::Workspace, (&below, names_itself), claim, seen_ns);
        } else if path == &self.root[..self.root.len() - 1] {
            self.add(Base::Workspace, (b"", true), claim, seen_ns);
        } else if let Some(below) = path.strip_prefix(b"/") {
            self.add(Base::Machine, (below, names_itself), claim, seen_ns);
        }
    }

    /// Tells what the claims so far come to, whatever the signatures: two drafts of which all looks told the same agree.
    pub fn meaning(&self) -> Digest {
        let mut all: Vec<Vec<u8>> = Vec::with_capacity(self.count);
        for group in &self.groups {
            for (name, claim, _) in &group.claims {
                let mut encoder = Encoder::new();
                encoder.u8(u8::from(group.base == Base::Machine)).bytes(&group.path).bytes(name);
                encoder.u8(claim.aspect as u8).u8(u8::from(claim.is_there)).digest(&claim.digest);
                encoder.u64(u64::from(claim.stat.mode & libc::S_IFMT));
                all.push(encoder.into_vec());
            }
        }
        all.sort_unstable();
        all.dedup();
        let mut encoder = Encoder::new();
        all.iter().for_each(|claim| {
            encoder.bytes(claim);
        });
        Digest::of(encoder.as_slice())
    }

    /// Claims a source file or an output. Gives the number of the claim, for [`Draft::finish`]. `None` for a directory.
    pub fn add_entry(
        &mut self,
        path: &RelPath,
        entry: &Entry,
        stat: StatKey,
        role: Role,
        is_settled: bool,
    ) -> Option<usize> {
        let (aspect, digest) = match entry {
            Entry::File { digest, .. } => (Aspect::File, *digest),
            Entry::Link { target } => (Aspect::FileLink, Digest::of(target.as_bytes())),
            Entry::Dir => return None,
        };
        let claim = Claim { aspect, role, is_there: true, is_settled, stat, digest };
        Some(self.add(Base::Workspace, (path.as_str().as_bytes(), false), claim, None))
    }

    /// Claims the names in a directory of outputs.
    pub fn add_names(&mut self, dir: &RelPath, stat: StatKey, digest: Digest, role: Role, is_settled: bool) {
        let claim = Claim { aspect: Aspect::AllNames, role, is_there: true, is_settled, stat, digest };
        self.add(Base::Workspace, (dir.as_str().as_bytes(), true), claim, None);
    }

    /// Claims that nothing lies at a path of the workspace.
    pub fn add_absence(&mut self, path: &RelPath, role: Role) {
        let (stat, digest) = (StatKey::default(), Digest::from_bytes([0; DIGEST_LEN]));
        let claim = Claim { aspect: Aspect::Presence, role, is_there: false, is_settled: true, stat, digest };
        self.add(Base::Workspace, (path.as_str().as_bytes(), false), claim, None);
    }

    /// Adds a claim on what one of another census is about. Gives the number of the claim.
    pub fn add_again(&mut self, from: Census<'_>, at: usize, claim: Claim) -> usize {
        let place = from.dir_of(at);
        let (dir, name) = (without_nul(place.path), without_nul(from.name(at)));
        match (dir, name) {
            (dir, b"") => self.add(place.base, (dir, true), claim, None),
            (b"", name) => self.add(place.base, (name, false), claim, None),
            (dir, name) => self.add(place.base, (&[dir, b"/", name].concat(), false), claim, None),
        }
    }

    /// The path has no slash in front, and the claim may be on it as a directory. Gives the number of the claim.
    fn add(&mut self, base: Base, (path, is_itself): (&[u8], bool), claim: Claim, seen_ns: Option<i64>) -> usize {
        let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
            _ if is_itself || path.is_empty() => (path, &b""[..]),
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        let is_last = self.groups.last().is_some_and(|group| group.base == base && group.path == dir);
        let at = if is_last {
            self.groups.len() - 1
        } else {
            let next = self.groups.len();
            let at = *self.known.entry((base == Base::Machine, dir.to_vec())).or_insert(next);
            if at == next {
                let path = dir.to_vec();
                self.groups.push(Group { base, path, claims: Vec::new(), names_ns: None, links_ns: Vec::new() });
            }
            at
        };
        if let Some(seen_ns) = seen_ns {
            self.groups[at].note(&claim, self.count, seen_ns);
        }
        self.groups[at].claims.push((name.to_vec(), claim, self.count));
        self.count += 1;
        self.count - 1
    }

    /// The bytes, and the position of each claim by its number. Of equal claims one stays.
    ///
    /// `None` if there is more than the format holds.
    pub fn finish(mut self) -> Option<(Vec<u8>, Vec<u32>)> {
        self.groups.sort_unstable_by(|one, other| {
            (one.base == Base::Machine, &one.path).cmp(&(other.base == Base::Machine, &other.path))
        });
        let mut positions = vec![0; self.count];
        let (mut dirs, mut claims, mut names) = (Vec::new(), Vec::new(), Names32::default());
        let mut count: u32 = 0;
        for group in &mut self.groups {
            group.settle_links();
            group.claims.sort_by(|(one, one_claim, _), (other, other_claim, _)| {
                (one, one_claim.aspect).cmp(&(other, other_claim.aspect))
            });
            let first = count;
            let mut last: Option<(&[u8], &Claim)> = None;
            let mut name_at: (u32, u16) = (0, 0);
            for (name, claim, number) in &group.claims {
                if last.is_none_or(|(known, _)| known != name) {
                    name_at = names.add(name)?;
                }
                if last.is_none_or(|known| known != (name, claim)) {
                    encode_claim(&mut claims, name_at, claim);
                    count = count.checked_add(1)?;
                }
                positions[*number] = count - 1;
                last = Some((name, claim));
            }
            encode_dir(&mut dirs, group.base, names.add(&group.path)?, first..count);
        }
        Some((assemble(&dirs, &claims, &names)?, positions))
    }
}

/// Appends the record of a directory.
pub(super) fn encode_dir(dirs: &mut Vec<u8>, base: Base, (path_at, path_len): (u32, u16), claims: Range<u32>) {
    dirs.extend_from_slice(&path_at.to_le_bytes());
    dirs.extend_from_slice(&claims.start.to_le_bytes());
    dirs.extend_from_slice(&(claims.end - claims.start).to_le_bytes());
    dirs.extend_from_slice(&path_len.to_le_bytes());
    dirs.extend_from_slice(&[0, u8::from(base == Base::Machine)]);
}

/// The bytes of a census; `None` if there is more than the format holds.
pub(super) fn assemble(dirs: &[u8], claims: &[u8], names: &Names32) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + dirs.len() + claims.len() + names.0.len());
    for count in [dirs.len() / DIR_LEN, claims.len() / CLAIM_LEN, names.0.len()] {
        bytes.extend_from_slice(&u32::try_from(count).ok()?.to_le_bytes());
    }
    bytes.extend_from_slice(dirs);
    bytes.extend_from_slice(claims);
    bytes.extend_from_slice(&names.0);
    Some(bytes)
}

/// Texts one behind the other, each ended by a NUL.
#[derive(Default)]
pub(super) struct Names32(pub Vec<u8>);

impl Names32 {
    /// Appends a text; gives its place.
    pub fn add(&mut self, text: &[u8]) -> Option<(u32, u16)> {
        let place = (u32::try_from(self.0.len()).ok()?, u16::try_from(text.len()).ok()?);
        self.0.extend_from_slice(text);
        self.0.push(0);
        Some(place)
    }
}

fn encode_claim(bytes: &mut Vec<u8>, (name_at, name_len): (u32, u16), claim: &Claim) {
    let Claim { aspect, role, is_there, is_settled, stat, digest } = claim;
    let (role, owner) = match role {
        Role::Structure => (0, NOBODY),
        Role::Source => (1, NOBODY),
        Role::Output(owner) => (2, *owner),
    };
    let flags = [*aspect as u8, u8::from(*is_there) | u8::from(*is_settled) << 1 | role << 2];
    encode_raw(bytes, (name_at, name_len), flags, owner, stat, digest.as_bytes());
}

/// Appends the record of a claim, of which `flags` are its aspect and what holds of it.
pub(super) fn encode_raw(
    bytes: &mut Vec<u8>,
    (name_at, name_len): (u32, u16),
    flags: [u8; 2],
    owner: u32,
    stat: &StatKey,
    digest: &[u8; DIGEST_LEN],
) {
    let mut raw = [0; CLAIM_LEN];
    raw[..4].copy_from_slice(&name_at.to_le_bytes());
    raw[4..6].copy_from_slice(&name_len.to_le_bytes());
    raw[6..8].copy_from_slice(&flags);
    raw[8..12].copy_from_slice(&owner.to_le_bytes());
    raw[12..16].copy_from_slice(&stat.mode.to_le_bytes());
    raw[24..32].copy_from_slice(&stat.size.to_le_bytes());
    raw[32..40].copy_from_slice(&stat.mtime_ns.to_le_bytes());
    raw[40..48].copy_from_slice(&stat.ctime_ns.to_le_bytes());
    raw[48..56].copy_from_slice(&stat.inode.to_le_bytes());
    raw[56..64].copy_from_slice(&stat.device.to_le_bytes());
    raw[64..].copy_from_slice(digest);
    bytes.extend_from_slice(&raw);
}

/// The signature in the record of a claim.
pub(super) fn raw_stat(raw: &[u8; CLAIM_LEN]) -> StatKey {
    let number = |at: usize| u64::from_le_bytes(raw[at..at + 8].try_into().expect("eight bytes"));
    StatKey {
        size: number(24),
        mtime_ns: number(32).cast_signed(),
        ctime_ns: number(40).cast_signed(),
        inode: number(48),
        device: number(56),
        mode: u32::from_le_bytes(raw[12..16].try_into().expect("four bytes")),
    }
}

fn decode_claim(raw: &[u8; CLAIM_LEN]) -> Option<Claim> {
    let aspect = *ASPECTS.get(usize::from(raw[6]))?;
    let role = decode_role(raw)?;
    let stat = raw_stat(raw);
    let digest = Digest::from_slice(&raw[64..])?;
    Some(Claim { aspect, role, is_there: raw[7] & 1 != 0, is_settled: raw[7] & 2 != 0, stat, digest })
}

fn decode_role(raw: &[u8; CLAIM_LEN]) -> Option<Role> {
    match (raw[7] >> 2, u32::from_le_bytes(raw[8..12].try_into().ok()?)) {
        (0, NOBODY) => Some(Role::Structure),
        (1, NOBODY) => Some(Role::Source),
        (2, owner) => Some(Role::Output(owner)),
        _ => None,
    }
}

/// The claim that what was told still holds.
fn claim_of(sighting: &Sighting) -> Option<Claim> {
    let nothing = Digest::from_bytes([0; DIGEST_LEN]);
    let settled = |stat: &StatKey| stat_index::is_settled(stat, sighting.seen_ns);
    let (aspect, is_there, stat, digest, is_settled) = match &sighting.told {
        Told::Presence(is_there) => (Aspect::Presence, *is_there, StatKey::default(), nothing, true),
        Told::Mount(is_mounted) => (Aspect::Mount, *is_mounted, StatKey::default(), nothing, true),
        Told::Kind(kind) => {
            let stat = StatKey { mode: kind.map_or(0, mode_of), ..StatKey::default() };
            (Aspect::Kind, kind.is_some(), stat, nothing, true)
        }
        Told::Itself(stat) => {
            let found = stat.unwrap_or_default();
            (Aspect::Itself, stat.is_some(), found, nothing, found.is_dir() || stat.is_none() || settled(&found))
        }
        Told::Target(stat) => {
            let found = stat.unwrap_or_default();
            (Aspect::Target, stat.is_some(), found, nothing, found.is_dir() || stat.is_none() || settled(&found))
        }
        Told::Content(found) => {
            let (stat, digest) = found.unwrap_or((StatKey::default(), nothing));
            (Aspect::Content, found.is_some(), stat, digest, found.is_none() || settled(&stat))
        }
        Told::Link(target) => {
            (Aspect::Link, target.is_some(), StatKey::default(), text_digest(target.as_deref()), false)
        }
        Told::Real(path) => (Aspect::Real, path.is_some(), StatKey::default(), text_digest(path.as_deref()), true),
        Told::Names(which, found) => {
            let aspect = match which {
                Names::All => Aspect::AllNames,
                Names::Unignored => Aspect::UnignoredNames,
            };
            let (stat, digest) = found.unwrap_or((StatKey::default(), nothing));
            (aspect, found.is_some(), stat, digest, found.is_none() || settled(&stat))
        }
    };
    Some(Claim { aspect, role: Role::Structure, is_there, is_settled, stat, digest })
}

/// The digest of a path as text.
pub fn text_digest(path: Option<&Path>) -> Digest {
    path.map_or(Digest::from_bytes([0; DIGEST_LEN]), |path| Digest::of(path.as_os_str().as_bytes()))
}

/// Type bits that stand for a kind.
pub fn mode_of(kind: Kind) -> u32 {
    match kind {
        Kind::File => libc::S_IFREG,
        Kind::Dir => libc::S_IFDIR,
        Kind::Link => libc::S_IFLNK,
        Kind::Special => libc::S_IFIFO,
    }
}
