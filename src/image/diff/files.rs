//! The entries of two layers compared, one with the other by path, and what lies in another layer on the other side. Reads no content:
//! which differ is known by digest.

use std::collections::BTreeMap;

use crate::image::diff::class::Class;
use crate::image::diff::entries::{Form, Kind, Meta};
use crate::image::diff::told::{Event, Ledger, Place, Told, shown_bytes};

/// Two files with other content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Differing {
    /// Number among the entries of the first.
    pub a: usize,
    /// Number among the entries of the second.
    pub b: usize,
}

impl Differing {
    /// The numbers by side.
    pub fn numbers(self) -> [usize; 2] {
        [self.a, self.b]
    }
}

type ByPath<'a> = BTreeMap<&'a [u8], Vec<usize>>;

fn by_path(entries: &[Meta]) -> ByPath<'_> {
    let mut all: ByPath<'_> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        all.entry(&entry.path).or_default().push(at);
    }
    all
}

/// Most entries that are kept until it is known whether they lie in another layer; what is more is told as it comes.
const LONELY_MAX: usize = 200_000;
/// Most bytes of their names.
const LONELY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Entries that only one side of a pair of layers has.
#[derive(Default)]
pub(super) struct Lonely {
    all: Vec<(Place, Meta, Side)>,
    bytes: usize,
}

impl Lonely {
    pub fn count(&self) -> usize {
        self.all.len()
    }

    fn add(&mut self, ledger: &mut Ledger<'_>, place: &Place, entry: &Meta, side: Side) {
        let bytes = self.bytes.saturating_add(entry.names_bytes());
        if self.all.len() < LONELY_MAX && bytes <= LONELY_BYTES_MAX {
            self.bytes = bytes;
            self.all.push((place.clone(), entry.clone(), side));
        } else {
            only(ledger, place, entry, side);
        }
    }

    /// Tells of each once: as moved if another layer of the other side has the same, else as what only one side has.
    pub fn tell(self, ledger: &mut Ledger<'_>) {
        let mut seconds: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        for (at, (_, entry, side)) in self.all.iter().enumerate().rev() {
            if *side == Side::Second {
                seconds.entry(&entry.path).or_default().push(at);
            }
        }
        let mut is_moved = vec![false; self.all.len()];
        for (at, (place, entry, side)) in self.all.iter().enumerate() {
            let Some(candidates) = seconds.get_mut(entry.path.as_slice()).filter(|_| *side == Side::First) else {
                continue;
            };
            let Some(found) = candidates.iter().rposition(|other| entry.is_like(&self.all[*other].1)) else { continue };
            let other = candidates.remove(found);
            (is_moved[at], is_moved[other]) = (true, true);
            ledger.add(Class::FileMoved, || {
                let place = Place { layer_b: self.all[other].0.layer_b, ..place.clone() };
                let sentence = format!("the same {} lies in another layer", entry.kind.name());
                told(&place, entry, Class::FileMoved, None, &sentence)
            });
        }
        for ((place, entry, side), _) in self.all.iter().zip(is_moved).filter(|(_, is_moved)| !is_moved) {
            only(ledger, place, entry, *side);
        }
    }
}

/// Tells how entries differ, but for their content: gives the files whose content does. What only one side has is told by `lonely`.
pub(super) fn compare(
    ledger: &mut Ledger<'_>,
    lonely: &mut Lonely,
    place: &Place,
    (a, b): (&[Meta], &[Meta]),
) -> Vec<Differing> {
    let (paths_a, paths_b) = (by_path(a), by_path(b));
    let mut differing = Vec::new();
    let mut forms = Forms::default();
    for (path, at_a) in &paths_a {
        let Some(at_b) = paths_b.get(path) else {
            lonely.add(ledger, place, &a[at_a[0]], Side::First);
            continue;
        };
        if at_a.len() != at_b.len() {
            let times = |count: usize| Some(format!("{count} times"));
            ledger.add(Class::DuplicateEntry, || {
                let sentence = "the layer has the path another number of times; the last one counts";
                told(place, &a[at_a[0]], Class::DuplicateEntry, None, sentence)
                    .sides(times(at_a.len()), times(at_b.len()))
            });
        }
        for (one, other) in at_a.iter().zip(at_b) {
            if pair(ledger, place, &a[*one], &b[*other]) {
                differing.push(Differing { a: *one, b: *other });
            }
            forms.add(&a[*one], &b[*other]);
        }
    }
    for (path, at_b) in &paths_b {
        if !paths_a.contains_key(path) {
            lonely.add(ledger, place, &b[at_b[0]], Side::Second);
        }
    }
    order(ledger, place, (a, &paths_a), (b, &paths_b));
    forms.tell(ledger, place);
    differing
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    First,
    Second,
}

fn only(ledger: &mut Ledger<'_>, place: &Place, entry: &Meta, side: Side) {
    let class = known_dirty(&entry.path).map_or(Class::FileSet, |_| Class::DirtyPath);
    ledger.add(class, || {
        let (which, is_first) = match side {
            Side::First => ("first", true),
            Side::Second => ("second", false),
        };
        let is_whiteout = last(&entry.path).starts_with(b".wh.");
        let kind = if is_whiteout { "whiteout" } else { entry.kind.name() };
        let why = known_dirty(&entry.path).map(|why| format!("; {why}")).unwrap_or_default();
        let what =
            Some(if entry.kind == Kind::File { format!("{kind}, {} bytes", entry.size) } else { kind.to_owned() });
        let sides = if is_first { (what, None) } else { (None, what) };
        told(place, entry, class, None, &format!("the {kind} is only in the {which}{why}")).sides(sides.0, sides.1)
    });
}

fn told(place: &Place, entry: &Meta, class: Class, field: Option<&str>, sentence: &str) -> Told {
    Told::new(Event::TarEntryMismatch, class, place_of(place, entry, field), sentence)
}

/// Where an entry is.
pub(super) fn place_of(place: &Place, entry: &Meta, field: Option<&str>) -> Place {
    let path = if entry.path.is_empty() { "/".into() } else { shown_bytes(&entry.path) };
    Place { path: Some(path), field: field.map(str::to_owned), ..place.clone() }
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// Tells how two entries of one path differ; whether they are files with other content.
fn pair(ledger: &mut Ledger<'_>, place: &Place, a: &Meta, b: &Meta) -> bool {
    let mut tell = |class, field: &str, sentence: &str, one: String, other: String| {
        ledger.add(class, || told(place, a, class, Some(field), sentence).sides(Some(one), Some(other)));
    };
    if a.kind != b.kind {
        let is_hard = [a.kind, b.kind].contains(&Kind::HardLink) && [a.kind, b.kind].contains(&Kind::File);
        let (class, sentence) = if is_hard {
            (
                Class::Hardlink,
                "a file of its own on one side, another name of one on the other: the packer looked at links of its disk",
            )
        } else {
            (Class::FileKind, "another kind of entry")
        };
        tell(class, "kind", sentence, a.kind.name().into(), b.kind.name().into());
        return false;
    }
    if a.rights() != b.rights() {
        let differing = a.rights() ^ b.rights();
        let sentence = if differing & !0o077 == 0 {
            "rights of group and others differ, as another umask makes them"
        } else {
            "permission bits differ"
        };
        tell(Class::Mode, "mode", sentence, format!("{:04o}", a.rights()), format!("{:04o}", b.rights()));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        let sentence = "the owner differs: who built it, or what the packer was told";
        tell(Class::Owner, "owner", sentence, format!("{}:{}", a.uid, a.gid), format!("{}:{}", b.uid, b.gid));
    }
    if a.names != b.names {
        let names = |entry: &Meta| match &entry.names {
            Some(names) => format!("{}:{}", shown_bytes(&names.0), shown_bytes(&names.1)),
            None => "no names".into(),
        };
        tell(
            Class::Owner,
            "owner-name",
            "the names of owner and group differ; only numbers should be kept",
            names(a),
            names(b),
        );
    }
    if a.mtime != b.mtime {
        let (class, sentence) = time_class(a);
        tell(class, "mtime", sentence, shown_bytes(a.mtime.as_bytes()), shown_bytes(b.mtime.as_bytes()));
    }
    if a.target != b.target {
        let target = |entry: &Meta| shown_bytes(entry.target.as_deref().unwrap_or_default());
        tell(Class::LinkTarget, "target", "the link leads elsewhere", target(a), target(b));
    }
    if a.device != b.device {
        let device =
            |entry: &Meta| entry.device.map_or_else(|| "none".into(), |(major, minor)| format!("{major}:{minor}"));
        tell(Class::DeviceNumber, "device", "the device has another number", device(a), device(b));
    }
    if a.remarks != b.remarks {
        remarks(&mut tell, a, b);
    }
    a.kind == Kind::File && a.content != b.content
}

fn time_class(entry: &Meta) -> (Class, &'static str) {
    if last(&entry.path).starts_with(b".wh.") {
        (Class::WhiteoutTime, "the whiteout has the time at which it was made")
    } else if entry.kind == Kind::Dir {
        (Class::DirTime, "the directory has another time: when it was made, or last changed by what lies in it")
    } else {
        (Class::FileTime, "the time of the entry differs: the packer keeps it")
    }
}

/// What begins the keys of extended attributes, the longer ones first: those of star, which Docker and we write, and of libarchive.
const XATTR_KEYS: [&str; 3] = ["SCHILY.xattr.", "LIBARCHIVE.xattr.", "SCHILY."];

fn remarks(tell: &mut impl FnMut(Class, &str, &str, String, String), a: &Meta, b: &Meta) {
    let (one, other) = (&a.remarks, &b.remarks);
    let value = |value: Option<&Vec<u8>>| value.map_or_else(|| "none".into(), |bytes| shown_bytes(bytes));
    let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
    for key in keys.filter(|key| one.get(*key) != other.get(*key)) {
        let key_told = shown_bytes(key.as_bytes());
        let attribute = XATTR_KEYS.iter().find_map(|before| key_told.strip_prefix(before));
        let (class, sentence) = match (key.as_str(), attribute) {
            ("atime" | "ctime", _) => (Class::FileTime, "the archive keeps a time that no runtime restores".into()),
            (_, Some(name)) => (Class::Xattr, format!("the extended attribute `{name}` differs")),
            _ => (Class::TarFormat, format!("the extended header `{key_told}` differs")),
        };
        tell(class, &key_told, &sentence, value(one.get(key)), value(other.get(key)));
    }
}

/// Whether what both have comes in the same order.
fn order(
    ledger: &mut Ledger<'_>,
    place: &Place,
    (a, paths_a): (&[Meta], &ByPath<'_>),
    (b, paths_b): (&[Meta], &ByPath<'_>),
) {
    // A path that is there more than once counts where it is first.
    let shared = |mine: &ByPath<'_>, others: &ByPath<'_>, at: usize, path: &[u8]| {
        others.contains_key(path) && mine.get(path).is_some_and(|all| all[0] == at)
    };
    let in_a = a.iter().enumerate().filter(|(at, entry)| shared(paths_a, paths_b, *at, &entry.path));
    let in_b = b.iter().enumerate().filter(|(at, entry)| shared(paths_b, paths_a, *at, &entry.path));
    let first = in_a.zip(in_b).find(|((_, one), (_, other))| one.path != other.path);
    if let Some(((_, one), (_, other))) = first {
        ledger.add(Class::FileOrder, || {
            let sentence =
                "the same entries come in another order from here on: the packer took that of its disk or of its tasks";
            told(place, one, Class::FileOrder, None, sentence)
                .sides(Some(shown_bytes(&one.path)), Some(shown_bytes(&other.path)))
        });
    }
}

/// How headers are written: told once a layer.
#[derive(Default)]
struct Forms {
    count: u64,
    first: Option<(String, String, String)>,
    modes: u64,
    first_mode: Option<(String, String, String)>,
}

impl Forms {
    fn add(&mut self, a: &Meta, b: &Meta) {
        if a.kind == b.kind && a.kind_bits() != b.kind_bits() {
            self.modes += 1;
            let mode = |entry: &Meta| format!("{:04o}", entry.mode);
            self.first_mode.get_or_insert_with(|| (shown_bytes(&a.path), mode(a), mode(b)));
        }
        // An extended header that holds something else is told as what it holds.
        let follows = a.remarks != b.remarks || a.mtime != b.mtime || a.names != b.names;
        let like_b = if follows { Form { is_extended: b.form.is_extended, ..a.form } } else { a.form };
        if like_b == b.form || a.kind != b.kind {
            return;
        }
        self.count += 1;
        if self.first.is_none() {
            let form = |entry: &Meta| {
                let extended = if entry.form.is_extended { " with an extended header" } else { "" };
                let (header, kind, extra) = (entry.form.header, entry.form.kind_byte, entry.form.name_extra);
                format!("{header}{extended}, type {}, {extra} bytes around its path", shown_bytes(&[kind]))
            };
            self.first = Some((shown_bytes(&a.path), form(a), form(b)));
        }
    }

    fn tell(self, ledger: &mut Ledger<'_>, place: &Place) {
        let mut tell = |class, first: Option<(String, String, String)>, sentence: String| {
            let Some((path, a, b)) = first else { return };
            let place = Place { path: Some(path), ..place.clone() };
            let told = || Told::new(Event::LayerBlobMismatch, class, place, sentence).sides(Some(a), Some(b));
            ledger.add(class, told);
        };
        let written = format!("headers of {} entries are written otherwise, this one first", self.count);
        tell(Class::TarFormat, self.first, written);
        let kept = format!(
            "modes in headers of {} entries say otherwise of which kind these are, this one first; their rights are the same",
            self.modes
        );
        tell(Class::ModeForm, self.first_mode, kept);
    }
}

/// Why a path is known to differ between builds of a distribution.
pub(super) fn known_dirty(path: &[u8]) -> Option<&'static str> {
    let path = std::str::from_utf8(path).ok()?;
    let within = |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    if within("var/log") {
        Some("a log of the build")
    } else if path == "var/cache/ldconfig/aux-cache" {
        Some("a cache of the linker, which keeps inode numbers and times")
    } else if within("var/cache/apt") || within("var/lib/apt/lists") {
        Some("a cache of packages")
    } else if path == "etc/machine-id" || path == "var/lib/dbus/machine-id" {
        Some("an identity drawn at random")
    } else if ["etc/passwd-", "etc/shadow-", "etc/group-", "etc/gshadow-", "etc/.pwd.lock"].contains(&path) {
        Some("what changes of users leave behind")
    } else if path.starts_with("var/lib/dpkg/") && path.ends_with("-old") {
        Some("a copy that the package manager leaves behind")
    } else if path == "root/.wget-hsts" {
        Some("what a download leaves behind")
    } else {
        None
    }
}
