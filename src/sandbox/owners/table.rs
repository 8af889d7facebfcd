//! Which file belongs to whom, where that is not to be seen on the disk. Knows files by descriptors, and no path but to tell at the end.
//!
//! A file is known by its device and number. Both stay what they are as long as the file is held open, and no other file gets them: so
//! each that is kept here is held. Thus it does not matter how it is renamed, linked, copied up by an overlay, or removed and made anew.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::base::path::RelPath;
use crate::fs::ops;
use crate::sandbox::owned::Owner;

/// From how many files on those are let go of that have no name any more.
const SWEEP_MIN: usize = 4096;

/// A file, as calls tell it: device and number.
pub type File = (u64, u64);

#[derive(Debug)]
struct Known {
    owner: Owner,
    held: OwnedFd,
    /// Whether it had a name when it got its owner: one that has none then can get one later.
    was_linked: bool,
}

/// The owners that are not 0:0.
#[derive(Debug)]
pub struct Table {
    known: HashMap<File, Known>,
    sweep_at: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { known: HashMap::new(), sweep_at: SWEEP_MIN }
    }
}

impl Table {
    /// Whether everything belongs to 0:0.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whose a file is, if not 0:0.
    pub fn owner(&self, file: File) -> Option<Owner> {
        self.known.get(&file).map(|known| known.owner)
    }

    /// Gives an open file a user, a group, or both.
    pub fn give(&mut self, held: OwnedFd, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
        let meta = rustix::fs::fstat(&held)?;
        let file = (meta.st_dev, meta.st_ino);
        let before = self.owner(file).unwrap_or_default();
        let owner = Owner { user: user.unwrap_or(before.user), group: group.unwrap_or(before.group) };
        if owner == Owner::default() {
            self.known.remove(&file);
            return Ok(());
        }
        let was_linked = meta.st_nlink > 0;
        match self.known.get_mut(&file) {
            Some(known) => (known.owner, known.was_linked) = (owner, was_linked),
            None => drop(self.known.insert(file, Known { owner, held, was_linked })),
        }
        if self.known.len() >= self.sweep_at {
            self.sweep();
        }
        Ok(())
    }

    /// Lets go of files that have no name any more, and cannot get one: nobody asks for them.
    pub fn sweep(&mut self) {
        self.known
            .retain(|_, known| !known.was_linked || rustix::fs::fstat(&known.held).is_ok_and(|meta| meta.st_nlink > 0));
        self.sweep_at = SWEEP_MIN.max(self.known.len().saturating_mul(2));
    }

    /// Whose everything below `root` is, by path; that nobody changes any more. Of names that are no text nothing is told.
    ///
    /// Cost: two calls for each owner; if files have several names, a walk over everything below the root.
    pub fn owners(&self, root: &Path) -> io::Result<BTreeMap<RelPath, Owner>> {
        let mut all = BTreeMap::new();
        let mut has_more_names = false;
        for (file, known) in &self.known {
            let meta = rustix::fs::fstat(&known.held)?;
            let is_dir = rustix::fs::FileType::from_raw_mode(meta.st_mode) == rustix::fs::FileType::Directory;
            let place = ops::read_link(Path::new(&format!("/proc/self/fd/{}", known.held.as_raw_fd())));
            let place = place
                .ok()
                .filter(|place| ops::symlink_metadata(place).is_ok_and(|meta| (meta.dev(), meta.ino()) == *file));
            has_more_names |= !is_dir && (meta.st_nlink > 1 || (meta.st_nlink > 0 && place.is_none()));
            if let Some(path) = place.as_deref().and_then(|place| below(root, place)) {
                all.insert(path, known.owner);
            }
        }
        if has_more_names {
            self.walk(root, &RelPath::root(), rustix::fs::stat(root)?.st_dev, &mut all)?;
        }
        Ok(all)
    }

    /// Adds what lies below a directory, and is of the same file system.
    fn walk(&self, root: &Path, dir: &RelPath, device: u64, all: &mut BTreeMap<RelPath, Owner>) -> io::Result<()> {
        for entry in ops::read_dir(&root.join(dir.as_str())).map_err(|error| error.cause)? {
            let Some(name) = entry.name.to_str() else { continue };
            let path = dir.child(name);
            let meta = ops::symlink_metadata(&root.join(path.as_str())).map_err(|error| error.cause)?;
            if let Some(owner) = self.owner((meta.dev(), meta.ino())) {
                all.insert(path.clone(), owner);
            }
            if meta.is_dir() && meta.dev() == device {
                self.walk(root, &path, device, all)?;
            }
        }
        Ok(())
    }
}

fn below(root: &Path, place: &Path) -> Option<RelPath> {
    RelPath::parse_bytes(place.strip_prefix(root).ok()?.as_os_str().as_bytes()).ok()
}
