//! What a command sees of files and directories that are shown as they are: the name of all of it, taken from what is wanted or
//! from what lies on the disk, and the seal that tells without reading whether it was touched. Knows not where it lies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::fs::digest::digest_file;
use crate::fs::ops::{self, FsError};
use crate::fs::stat::StatKey;
use crate::fs::walk;
use crate::store::blobs::readable;

/// First part of what names are digests of.
const NAME: &[u8] = b"drystone kept 2";
/// Context of seals; they never leave the machine.
const SEAL_CONTEXT: &str = "drystone 2026-11 kept seal v2";

/// Mode of directories: the store must be able to remove what is in them.
const DIR_MODE: u32 = 0o755;

/// What is to be kept, as it is to be seen.
pub struct Keep<'a> {
    /// Files, links and empty directories; a single file at the root stands for itself.
    pub listing: &'a Listing,
    /// Modes of files: plain and executable ones.
    pub modes: [u32; 2],
    /// Modification time of a path, directories included, in nanoseconds since 1970.
    pub mtime_ns: &'a dyn Fn(&RelPath) -> i64,
}

/// A file that is to be kept.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Its path in the listing.
    pub path: &'a RelPath,
    /// Digest of its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Where the content is to be written; nothing is there. Mode and time do not matter.
    pub to: PathBuf,
}

/// Writes the contents of files; `false` if one of them is not to be had.
pub type Fill<'a, E> = dyn FnMut(&[Wanted<'_>]) -> Result<bool, E> + 'a;

/// One path as a command sees it.
enum Seen<'a> {
    File { mode: u32, digest: Digest },
    Link { target: &'a str },
    Dir { mode: u32 },
}

/// Digests what is seen; paths come in byte order, the root first.
struct Naming(Encoder);

impl Naming {
    fn new() -> Self {
        let mut encoder = Encoder::new();
        encoder.bytes(NAME);
        Self(encoder)
    }

    fn add(&mut self, path: &RelPath, mtime_ns: i64, seen: &Seen<'_>) {
        let encoder = self.0.bytes(path.as_str().as_bytes()).u64(mtime_ns.cast_unsigned());
        match seen {
            Seen::File { mode, digest } => encoder.u8(0).u64(u64::from(*mode)).digest(digest),
            Seen::Link { target } => encoder.u8(1).bytes(target.as_bytes()),
            Seen::Dir { mode } => encoder.u8(2).u64(u64::from(*mode)),
        };
    }

    fn finish(self) -> String {
        Digest::of(self.0.as_slice()).to_hex()[..32].to_owned()
    }
}

impl Keep<'_> {
    /// The name of it: 32 hexadecimal digits.
    pub(super) fn name(&self) -> String {
        let mut naming = Naming::new();
        let dirs = self.directories();
        let dirs = dirs.iter().map(|path| (path, Seen::Dir { mode: DIR_MODE }));
        let others = self.listing.iter().filter_map(|(path, entry)| match entry {
            Entry::File { digest, executable, .. } => {
                Some((path, Seen::File { mode: self.mode(*executable), digest: *digest }))
            }
            Entry::Link { target } => Some((path, Seen::Link { target })),
            Entry::Dir => None,
        });
        let all: BTreeMap<&RelPath, Seen<'_>> = dirs.chain(others).collect();
        all.iter().for_each(|(path, seen)| naming.add(path, (self.mtime_ns)(path), seen));
        naming.finish()
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        let sizes = self.listing.values().map(|entry| match entry {
            Entry::File { size, .. } => *size,
            Entry::Link { .. } | Entry::Dir => 0,
        });
        sizes.sum()
    }

    /// Makes it at a path where nothing is; `false` if `fill` could not give one of the contents.
    pub(super) fn make<E: From<FsError>>(&self, it: &Path, fill: &mut Fill<'_, E>) -> Result<bool, E> {
        let dirs = self.directories();
        for dir in &dirs {
            let place = at(it, dir);
            ops::create_dir(&place)?;
            ops::set_mode(&place, DIR_MODE)?;
        }
        let wanted = self.listing.iter().filter_map(|(path, entry)| match entry {
            Entry::File { digest, size, .. } => Some(Wanted { path, digest: *digest, size: *size, to: at(it, path) }),
            Entry::Link { .. } | Entry::Dir => None,
        });
        if !fill(&wanted.collect::<Vec<_>>())? {
            return Ok(false);
        }
        for (path, entry) in self.listing {
            let place = at(it, path);
            match entry {
                Entry::File { executable, .. } => ops::set_mode(&place, self.mode(*executable))?,
                Entry::Link { target } => ops::symlink(target, &place)?,
                Entry::Dir => continue,
            }
            ops::set_times(&place, (self.mtime_ns)(path))?;
        }
        for dir in &dirs {
            ops::set_times(&at(it, dir), (self.mtime_ns)(dir))?;
        }
        Ok(true)
    }

    /// Directories above something, with the root, unless the whole is a single file.
    fn directories(&self) -> BTreeSet<RelPath> {
        let own = self.listing.iter().filter(|(_, entry)| **entry == Entry::Dir).map(|(path, _)| path.clone());
        let mut all = BTreeSet::new();
        if self.listing.get(&RelPath::root()).is_none_or(|entry| *entry == Entry::Dir) {
            all.insert(RelPath::root());
        }
        for path in own.chain(self.listing.keys().filter_map(RelPath::parent)) {
            let mut next = Some(path);
            while let Some(path) = next.filter(|path| !all.contains(path)) {
                next = path.parent();
                all.insert(path);
            }
        }
        all
    }

    fn mode(&self, executable: bool) -> u32 {
        self.modes[usize::from(executable)]
    }
}

/// The name of what lies at a path; `None` if that is nothing a command may be shown, or cannot be read.
///
/// Cost: one read of every file.
pub(super) fn name_at(it: &Path) -> Result<Option<String>, FsError> {
    let Some(found) = everything_at(it) else { return Ok(None) };
    let mut naming = Naming::new();
    for (path, stat) in &found {
        let (place, mode) = (at(it, path), stat.mode & 0o7777);
        let target;
        let seen = if stat.is_dir() {
            Seen::Dir { mode }
        } else if stat.is_link() {
            let Some(read) = readable(ops::read_link(&place))? else { return Ok(None) };
            target = read;
            let Some(target) = target.to_str() else { return Ok(None) };
            Seen::Link { target }
        } else {
            let Some((digest, _)) = readable(digest_file(&place))? else { return Ok(None) };
            Seen::File { mode, digest }
        };
        naming.add(path, stat.mtime_ns, &seen);
    }
    Ok(Some(naming.finish()))
}

/// Digests the signatures of everything at a path, for one boot of the machine: what was not on the disk when the power failed is
/// not sealed afterwards. `None` if it is nothing a command may be shown.
///
/// The change time is among them, which no program can set: whatever was written to since shows. Not that of directories: it changes
/// with their own names, and what lies in them is listed. Cost: one `lstat` of every file.
pub(super) fn seal(it: &Path, boot: &str) -> Option<Digest> {
    let mut encoder = Encoder::new();
    encoder.bytes(boot.as_bytes());
    for (path, stat) in everything_at(it)? {
        encoder.bytes(path.as_str().as_bytes()).u64(u64::from(stat.mode)).u64(stat.mtime_ns.cast_unsigned());
        if !stat.is_dir() {
            encoder.u64(stat.size).u64(stat.inode).u64(stat.ctime_ns.cast_unsigned());
        }
    }
    Some(Digest::derived(SEAL_CONTEXT, encoder.as_slice()))
}

/// Every path with its signature, in byte order, the root first.
fn everything_at(it: &Path) -> Option<Vec<(RelPath, StatKey)>> {
    let root = StatKey::at(it).ok()?;
    let mut all = vec![(RelPath::root(), root)];
    if root.is_dir() {
        for found in walk::walk_all(it).ok()? {
            let stat = StatKey::at(&at(it, &found.path)).ok()?;
            all.push((found.path, stat));
        }
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
    }
    let is_shown = |stat: &StatKey| stat.is_file() || stat.is_link() || stat.is_dir();
    all.iter().all(|(_, stat)| is_shown(stat)).then_some(all)
}

/// Joining an empty path would add a slash, and make a file a directory.
fn at(it: &Path, path: &RelPath) -> PathBuf {
    if path.is_root() { it.to_owned() } else { it.join(path.as_str()) }
}
