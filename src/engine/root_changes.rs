//! What a command changed of a root file system, from what it left on the disk: a pure function of the tree before and the tree after.
//! Knows not how the command ran.
//!
//! What was written and is as before (copied up by the kernel, or removed and made again) is no change. Where a directory held several
//! things and holds none of them any more, it is opaque rather than each of them removed; so it does not matter how a directory was
//! emptied, nor whether an overlay or a copy of the tree took the changes down. Times and extended attributes are no part of it: the command
//! could give no capabilities to a file. Owners are not those of the disk, where all is one user's, but are told beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::base::digest::Digest;
use crate::base::limits::{FETCH_BYTES_MAX, ROOT_CHANGES_MAX, ROOT_PATH_BYTES_MAX, TREE_DEPTH_MAX};
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::fs::digest::digest_file;
use crate::fs::ops::{self, FsError, Kind};
use crate::fs::overlay;
use crate::sandbox::spec::{Owner, Owners};
use crate::sandbox::writable::{LAID, LAID_IN, is_covered};
use crate::store::{Batch, Store, StoreError};

/// What became of a path. A path that is not told is as before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A file is new, or has other content, another mode or another owner than what was there, which is replaced. Its content is in the store.
    File {
        /// Digest of its bytes.
        digest: Digest,
        /// Length in bytes.
        size: u64,
        /// Permission bits, set-user-id and the like included (07777).
        mode: u32,
        /// User and group.
        owner: Owner,
    },
    /// A directory is new, has another mode or another owner, or was emptied. If something else was there, that is replaced.
    Dir {
        /// Permission bits (07777).
        mode: u32,
        /// User and group.
        owner: Owner,
        /// Nothing that was in it before is there any more: what is told of paths in it is all that it holds.
        opaque: bool,
    },
    /// A symbolic link is new, leads elsewhere than before, or has another owner.
    Link {
        /// Its target as written.
        target: String,
        /// User and group of the link itself.
        owner: Owner,
    },
    /// What was there is gone, with everything beneath.
    Removed,
}

/// Changes by path relative to the root. Of what is removed or replaced nothing beneath is told, and directories above a change are not.
pub type Changes = BTreeMap<RelPath, Change>;

/// The tree that the command found.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// What was in it.
    pub listing: &'a Listing,
    /// Permission bits of what had others than 0755 for directories and executable files, and 0644.
    pub modes: &'a BTreeMap<RelPath, u32>,
    /// Owners of what was not 0:0.
    pub owners: &'a Owners,
}

/// What the command left; nobody writes there any more. It is the caller's to throw away: files and directories that their owner may
/// not read are made readable on the way.
#[derive(Clone, Debug)]
pub enum Left {
    /// The upper directory of an overlay.
    Upper(PathBuf),
    /// All of it.
    Whole(PathBuf),
}

/// How much may be left.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Files, links and directories that are not as they were.
    pub changes: usize,
    /// Bytes of all files that have to be read.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { changes: ROOT_CHANGES_MAX, bytes: FETCH_BYTES_MAX }
    }
}

/// Why changes could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// It left something that no layer has.
    #[error("it left `/{path}`, which is {what}; remove it at the end of the command")]
    Special {
        /// Where.
        path: RelPath,
        /// `a socket`, …
        what: &'static str,
    },
    /// The name of something, or the target of a link, is no text.
    #[error("it left {}, whose {what} is not UTF-8", path.display())]
    NotUtf8 {
        /// Where, as far as it can be shown.
        path: PathBuf,
        /// `name` or `target`.
        what: &'static str,
    },
    /// No layer tells whose the root is.
    #[error("it gave `/` itself to {}:{}, which no layer tells; leave the root of the image to root", .0.user, .0.group)]
    RootOwner(Owner),
    /// Too deep, or too long a path.
    #[error(
        "it left `/{0}…`, which lies deeper than {TREE_DEPTH_MAX} directories or has more than {ROOT_PATH_BYTES_MAX} bytes"
    )]
    TooDeep(String),
    /// More than may be.
    #[error("it changed more than {0} files, links and directories")]
    TooMany(usize),
    /// More than may be.
    #[error("what it wrote has more than {bytes} bytes, with `/{path}`")]
    TooLarge {
        /// The limit.
        bytes: u64,
        /// The file with which it was passed.
        path: RelPath,
    },
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ChangesError {
    /// Whether the command made what cannot be taken, rather than the machine being at fault.
    pub fn is_of_the_command(&self) -> bool {
        !matches!(self, Self::Fs(_) | Self::Store(_))
    }
}

/// Finds the changes and puts the contents of files into the store. `owners` are those of what was left.
///
/// Cost: of an overlay, a walk of what was written with one or two reads of each file; else a walk of everything with a read of each.
pub fn take(
    left: &Left,
    before: Before<'_>,
    owners: &Owners,
    bounds: Bounds,
    store: &Store,
) -> Result<Changes, ChangesError> {
    if let Some(owner) = owners.get(&RelPath::root()) {
        return Err(ChangesError::RootOwner(*owner));
    }
    let mut nodes = Nodes::default();
    for (path, entry) in before.listing {
        nodes.insert(path, entry);
    }
    let (dir, is_whole) = match left {
        Left::Upper(dir) => (dir, false),
        Left::Whole(dir) => (dir, true),
    };
    let mut taking = Taking {
        is_whole,
        before,
        owners,
        bounds,
        bytes_left: bounds.bytes,
        // What is as it was, or is told to be gone, may be there besides, and what was made for the command.
        names_left: bounds.changes.saturating_add(nodes.count() + LAID.len() + 1),
        batch: store.batch(),
        changes: Changes::new(),
    };
    taking.dir(dir, &RelPath::root(), Some(&nodes), is_whole, 0)?;
    let Taking { batch, mut changes, .. } = taking;
    batch.finish()?;
    drop_laid(&mut changes, before.listing);
    Ok(changes)
}

/// The directory of files that were made for the command is no change of its own.
fn drop_laid(changes: &mut Changes, listing: &Listing) {
    let etc = RelPath::root().child(LAID_IN);
    let is_in = |path: &RelPath| *path != etc && path.starts_with(&etc);
    let is_plain = changes.get(&etc) == Some(&Change::Dir { mode: DIR_MODE, owner: Owner::default(), opaque: false });
    if is_plain && !listing.keys().chain(changes.keys()).any(is_in) && !listing.contains_key(&etc) {
        changes.remove(&etc);
    }
}

/// The tree before, by directory.
#[derive(Default)]
struct Nodes<'a> {
    leaves: BTreeMap<&'a str, &'a Entry>,
    dirs: BTreeMap<&'a str, Nodes<'a>>,
}

impl<'a> Nodes<'a> {
    fn insert(&mut self, path: &'a RelPath, entry: &'a Entry) {
        let mut here = self;
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() && *entry != Entry::Dir {
                here.leaves.insert(part, entry);
                return;
            }
            here = here.dirs.entry(part).or_default();
        }
    }

    fn count(&self) -> usize {
        self.leaves.len() + self.dirs.values().map(|dir| 1 + dir.count()).sum::<usize>()
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.leaves.keys().chain(self.dirs.keys()).copied()
    }
}

const DIR_MODE: u32 = 0o755;
const MODE_BITS: u32 = 0o7777;

struct Taking<'a> {
    is_whole: bool,
    before: Before<'a>,
    owners: &'a Owners,
    bounds: Bounds,
    bytes_left: u64,
    names_left: usize,
    batch: Batch<'a>,
    changes: Changes,
}

impl Taking<'_> {
    /// Takes what a directory holds. Where it `hides`, nothing is left of what was in it but what lies there.
    fn dir(
        &mut self,
        at: &Path,
        path: &RelPath,
        before: Option<&Nodes<'_>>,
        hides: bool,
        depth: usize,
    ) -> Result<(), ChangesError> {
        let (mut here, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for entry in ops::read_dir(at)? {
            let disk = at.join(&entry.name);
            let Some(name) = entry.name.to_str() else {
                return Err(ChangesError::NotUtf8 {
                    path: Path::new("/").join(path.as_str()).join(&entry.name),
                    what: "name",
                });
            };
            let below = path.child(name);
            if is_covered(&below) {
                continue;
            }
            if depth == TREE_DEPTH_MAX || below.as_str().len() > ROOT_PATH_BYTES_MAX {
                let shown = below.as_str();
                return Err(ChangesError::TooDeep(shown[..shown.floor_char_boundary(80)].to_owned()));
            }
            self.names_left = self.names_left.checked_sub(1).ok_or(ChangesError::TooMany(self.bounds.changes))?;
            let meta = ops::symlink_metadata(&disk)?;
            if !self.is_whole && overlay::is_whiteout(&meta) {
                gone.insert(name.to_owned());
                continue;
            }
            let mode = meta.mode() & MODE_BITS;
            match entry.kind {
                Kind::File => self.file(&disk, &below, was(before, name), (meta.len(), mode))?,
                Kind::Link => self.link(&disk, below, was(before, name))?,
                Kind::Dir => {
                    let before = before.and_then(|before| before.dirs.get(name));
                    self.subdirectory(&disk, &below, before, mode, depth)?;
                }
                Kind::Special => return Err(ChangesError::Special { path: below, what: what_it_is(meta.mode()) }),
            }
            here.insert(name.to_owned());
        }
        let Some(before) = before else { return Ok(()) };
        let is_gone =
            |name: &&str| !here.contains(*name) && (hides || gone.contains(*name)) && !is_covered(&path.child(name));
        let gone: Vec<&str> = before.names().filter(is_gone).collect();
        self.told_gone(path, &gone, before.names().count())
    }

    /// Notes what is gone of a directory that is still there, and held `held` things.
    fn told_gone(&mut self, path: &RelPath, gone: &[&str], held: usize) -> Result<(), ChangesError> {
        // One thing that is gone is told as such: that is what most readers of layers expect.
        if gone.len() == held && held > 1 && !path.is_root() {
            let mode = self.mode_before(path, DIR_MODE);
            let owner = self.owner(path);
            match self.changes.entry(path.clone()).or_insert(Change::Dir { mode, owner, opaque: true }) {
                Change::Dir { opaque, .. } => *opaque = true,
                other => unreachable!("BUG: {path} is a directory and {other:?}"),
            }
            return Ok(());
        }
        gone.iter().try_for_each(|name| self.note(path.child(name), Change::Removed))
    }

    fn note(&mut self, path: RelPath, change: Change) -> Result<(), ChangesError> {
        self.changes.insert(path, change);
        if self.changes.len() > self.bounds.changes { Err(ChangesError::TooMany(self.bounds.changes)) } else { Ok(()) }
    }

    fn file(
        &mut self,
        disk: &Path,
        path: &RelPath,
        before: Was<'_>,
        (size, mode): (u64, u32),
    ) -> Result<(), ChangesError> {
        let bytes = self.bounds.bytes;
        let too_large = || ChangesError::TooLarge { bytes, path: path.clone() };
        // Before a byte is read: a file may be long and hold nothing.
        self.bytes_left = self.bytes_left.checked_sub(size).ok_or_else(too_large)?;
        if mode & 0o400 == 0 {
            ops::set_mode(disk, mode | 0o400)?;
        }
        let known = match before {
            Was::There(Entry::File { digest, size, executable }) => {
                Some((*digest, *size, self.mode_before(path, if *executable { 0o755 } else { 0o644 })))
            }
            Was::There(_) => None,
            Was::Absent => laid(path).map(|text| (Digest::of(text.as_bytes()), text.len() as u64, 0o644)),
        };
        if let Some((digest, length, mode_before)) = known
            && (length, mode_before) == (size, mode)
            && self.keeps_owner(path)
            && digest_file(disk)? == (digest, size)
        {
            return Ok(());
        }
        let (digest, size) = self.batch.put_file(disk)?;
        let owner = self.owner(path);
        self.note(path.clone(), Change::File { digest, size, mode, owner })
    }

    fn link(&mut self, disk: &Path, path: RelPath, before: Was<'_>) -> Result<(), ChangesError> {
        let target = ops::read_link(disk)?;
        let Some(target) = target.to_str() else {
            return Err(ChangesError::NotUtf8 { path: Path::new("/").join(path.as_str()), what: "target" });
        };
        let target = target.to_owned();
        let is_as_it_was = matches!(before, Was::There(Entry::Link { target: before }) if *before == target);
        if !is_as_it_was || !self.keeps_owner(&path) {
            let owner = self.owner(&path);
            return self.note(path, Change::Link { target, owner });
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        disk: &Path,
        path: &RelPath,
        before: Option<&Nodes<'_>>,
        mode: u32,
        depth: usize,
    ) -> Result<(), ChangesError> {
        if mode & 0o500 != 0o500 {
            ops::set_mode(disk, mode | 0o500)?;
        }
        let hides = self.is_whole || overlay::is_opaque(disk)?;
        if before.is_none() || mode != self.mode_before(path, DIR_MODE) || !self.keeps_owner(path) {
            let owner = self.owner(path);
            self.note(path.clone(), Change::Dir { mode, owner, opaque: false })?;
        }
        self.dir(disk, path, before, hides, depth + 1)
    }

    /// The mode that something had, which is this one unless another was told.
    fn mode_before(&self, path: &RelPath, usual: u32) -> u32 {
        self.before.modes.get(path).map_or(usual, |mode| mode & MODE_BITS)
    }

    /// Whose something is.
    fn owner(&self, path: &RelPath) -> Owner {
        self.owners.get(path).copied().unwrap_or_default()
    }

    /// Whether that is who it was.
    fn keeps_owner(&self, path: &RelPath) -> bool {
        self.before.owners.get(path).copied().unwrap_or_default() == self.owner(path)
    }
}

/// What was at the path of something that is no directory now.
#[derive(Clone, Copy)]
enum Was<'a> {
    There(&'a Entry),
    Absent,
}

fn was<'a>(before: Option<&Nodes<'a>>, name: &str) -> Was<'a> {
    match before {
        Some(before) if before.dirs.contains_key(name) => Was::There(&Entry::Dir),
        Some(before) => before.leaves.get(name).map_or(Was::Absent, |entry| Was::There(entry)),
        None => Was::Absent,
    }
}

/// What was made at a path for the command, where the tree had nothing.
fn laid(path: &RelPath) -> Option<&'static str> {
    LAID.iter().find(|(laid, _)| *laid == path.as_str()).map(|(_, text)| *text)
}

fn what_it_is(mode: u32) -> &'static str {
    match FileType::from_raw_mode(mode) {
        FileType::Socket => "a socket",
        FileType::Fifo => "a pipe",
        _ => "a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OpenOptions;

    /// A tree: directories and links without content.
    type State = BTreeMap<RelPath, (Entry, u32, Owner)>;

    fn rel(path: &str) -> RelPath {
        RelPath::parse(path).expect("a good path")
    }

    fn store(dir: &Path) -> Store {
        Store::open(OpenOptions { dir: dir.join("store"), bytes_max: None, now_ms: || 1, origin: Default::default() })
            .expect("a store")
    }

    /// From what is wanted at paths, of which those beneath a file or a link are left out.
    fn state(wanted: &BTreeMap<String, (u8, u32, u32)>) -> State {
        let mut state = State::new();
        for (path, (kind, mode, user)) in wanted {
            let path = rel(path);
            let above = std::iter::successors(path.parent(), RelPath::parent).filter(|dir| !dir.is_root());
            let above: Vec<RelPath> = above.collect();
            if above.iter().any(|dir| state.get(dir).is_some_and(|(entry, ..)| *entry != Entry::Dir)) {
                continue;
            }
            for dir in above {
                state.entry(dir).or_insert((Entry::Dir, 0o755, Owner::default()));
            }
            let file = |text: &[u8]| Entry::File {
                digest: Digest::of(text),
                size: text.len() as u64,
                executable: mode & 0o100 != 0,
            };
            let (entry, mode) = match kind {
                0 => (Entry::Dir, *mode),
                1 => (file(b"one"), *mode),
                2 => (file(b"two"), *mode),
                _ => (Entry::Link { target: "a".into() }, 0o777),
            };
            state.insert(path, (entry, mode, Owner { user: *user, group: user / 2 }));
        }
        state
    }

    fn lay_out(state: &State, root: &Path) {
        ops::create_dir(root).expect("made");
        for (path, (entry, ..)) in state {
            let at = root.join(path.as_str());
            match entry {
                Entry::Dir => ops::create_dir(&at).expect("made"),
                Entry::Link { target } => ops::symlink(target, &at).expect("linked"),
                Entry::File { digest, .. } => {
                    let text = [&b"one"[..], b"two"].into_iter().find(|text| Digest::of(text) == *digest);
                    ops::write(&at, text.expect("one of two")).expect("written");
                }
            }
        }
        // Deepest first: nobody but root goes into a directory that may not be entered.
        for (path, (_, mode, _)) in state.iter().rev().filter(|(_, (entry, ..))| !matches!(entry, Entry::Link { .. })) {
            ops::set_mode(&root.join(path.as_str()), *mode).expect("ours");
        }
    }

    /// As whoever applies a layer does it.
    fn apply(mut state: State, changes: &Changes) -> State {
        for (path, change) in changes {
            let hides_below = !matches!(change, Change::Dir { opaque: false, .. });
            let was_dir = state.get(path).is_some_and(|(entry, ..)| *entry == Entry::Dir);
            state.retain(|other, _| other == path || !other.starts_with(path) || (!hides_below && was_dir));
            let executable = |mode: u32| mode & 0o100 != 0;
            let entry = match change {
                Change::Removed => None,
                Change::Dir { mode, owner, .. } => Some((Entry::Dir, *mode, *owner)),
                Change::Link { target, owner } => Some((Entry::Link { target: target.clone() }, 0o777, *owner)),
                Change::File { digest, size, mode, owner } => {
                    let entry = Entry::File { digest: *digest, size: *size, executable: executable(*mode) };
                    Some((entry, *mode, *owner))
                }
            };
            match entry {
                Some(entry) => drop(state.insert(path.clone(), entry)),
                None => drop(state.remove(path)),
            }
        }
        state
    }

    fn wanted() -> impl proptest::strategy::Strategy<Value = BTreeMap<String, (u8, u32, u32)>> {
        let mode = proptest::sample::select(vec![0o755_u32, 0o644, 0o600, 0o4755, 0o1777]);
        proptest::collection::btree_map("[abc](/[abc]){0,2}", (0_u8..4, mode, 0_u32..3), 0..14)
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(32))]
        #[test]
        fn the_tree_before_with_its_changes_is_the_tree_after(one in wanted(), other in wanted()) {
            let scene = tempfile::tempdir().expect("a temporary directory");
            let store = store(scene.path());
            let (before, after) = (state(&one), state(&other));
            let root = scene.path().join("root");
            lay_out(&after, &root);
            let listing: Listing = before.iter().map(|(path, (entry, ..))| (path.clone(), entry.clone())).collect();
            let modes = before.iter().map(|(path, (_, mode, _))| (path.clone(), *mode)).collect();
            let [were, are] = [&before, &after].map(|state| {
                let owners = state.iter().map(|(path, (.., owner))| (path.clone(), *owner));
                owners.filter(|(_, owner)| *owner != Owner::default()).collect::<Owners>()
            });
            let found = Before { listing: &listing, modes: &modes, owners: &were };
            let changes = take(&Left::Whole(root), found, &are, Bounds::default(), &store).expect("taken");
            proptest::prop_assert_eq!(&apply(before.clone(), &changes), &after, "{:?}", changes);
            // Nothing is told without need.
            for path in changes.keys() {
                let mut fewer = changes.clone();
                fewer.remove(path);
                proptest::prop_assert_ne!(&apply(before.clone(), &fewer), &after, "{}: {:?}", path, changes);
            }
            proptest::prop_assert_eq!(changes.is_empty(), before == after);
        }
    }

    #[test]
    fn limits_are_of_what_changed_and_of_what_is_read() {
        let scene = tempfile::tempdir().expect("a temporary directory");
        let store = store(scene.path());
        let root = scene.path().join("root");
        ops::create_dir(&root).expect("made");
        for name in ["a", "b", "c"] {
            ops::write(&root.join(name), b"text").expect("written");
        }
        let a = Entry::File { digest: Digest::of(b"text"), size: 4, executable: false };
        let (listing, modes) = (Listing::from([(rel("a"), a)]), BTreeMap::new());
        let take = |changes, bytes| {
            let bounds = Bounds { changes, bytes };
            let before = Before { listing: &listing, modes: &modes, owners: &Owners::new() };
            take(&Left::Whole(root.clone()), before, &Owners::new(), bounds, &store)
        };
        assert_eq!(take(2, 12).expect("as many as may be").len(), 2);
        assert!(matches!(take(1, 12), Err(ChangesError::TooMany(1))));
        assert!(matches!(take(2, 11), Err(ChangesError::TooLarge { bytes: 11, path }) if path == rel("c")));
    }
}
