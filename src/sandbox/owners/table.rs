//! Which file belongs to whom, where that is not to be seen on the disk. Knows files by descriptors, and no path but to tell at the end.
//!
//! A file is known by its device and number. Both stay what they are as long as the file is held open, and no other file gets them: so
//! each that is kept here is held. Thus it does not matter how it is renamed, copied up by an overlay, or removed and made anew. One
//! file may have several numbers: an overlay gives one that was copied up another for each further name.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::FileType;

use crate::base::limits::ROOT_PATH_BYTES_MAX;
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
    /// By each of its numbers. There is one at least.
    held: Vec<(File, OwnedFd)>,
    /// Whether it had a name when it got its owner: one that has none then can get one later.
    was_linked: bool,
}

/// The owners that are not 0:0, and files with several numbers.
#[derive(Debug)]
pub struct Table {
    known: HashMap<usize, Known>,
    /// Which of them has a number.
    by_file: HashMap<File, usize>,
    next: usize,
    sweep_at: usize,
    /// Whether a directory was given to a group: one that is set-group-id gives it on to what is made in it.
    has_group_dirs: bool,
}

impl Default for Table {
    fn default() -> Self {
        let (known, by_file) = (HashMap::new(), HashMap::new());
        Self { known, by_file, next: 0, sweep_at: SWEEP_MIN, has_group_dirs: false }
    }
}

impl Table {
    /// Whether everything belongs to 0:0.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whose a file is, if not 0:0.
    pub fn owner(&self, file: File) -> Option<Owner> {
        let known = self.known.get(self.by_file.get(&file)?)?;
        (known.owner != Owner::default()).then_some(known.owner)
    }

    /// Whether some directory may give its group to what is made in it.
    pub fn has_group_dirs(&self) -> bool {
        self.has_group_dirs
    }

    /// The group that what is made in a directory gets, if not 0.
    pub fn bequest(&self, dir: &OwnedFd) -> Option<u32> {
        let meta = rustix::fs::fstat(dir).ok()?;
        let group = self.owner((meta.st_dev, meta.st_ino))?.group;
        (meta.st_mode & libc::S_ISGID != 0 && group != 0).then_some(group)
    }

    /// Gives an open file a user, a group, or both.
    pub fn give(&mut self, held: OwnedFd, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
        let meta = rustix::fs::fstat(&held)?;
        let file = (meta.st_dev, meta.st_ino);
        let before = self.owner(file).unwrap_or_default();
        let owner = Owner { user: user.unwrap_or(before.user), group: group.unwrap_or(before.group) };
        self.has_group_dirs |= owner.group != 0 && FileType::from_raw_mode(meta.st_mode) == FileType::Directory;
        let was_linked = meta.st_nlink > 0;
        match self.by_file.get(&file).and_then(|id| self.known.get_mut(id).map(|known| (*id, known))) {
            Some((id, known)) if owner == Owner::default() && known.held.len() == 1 => self.forget(id),
            Some((_, known)) => (known.owner, known.was_linked) = (owner, was_linked),
            None if owner == Owner::default() => {}
            None => {
                self.keep(Known { owner, held: vec![(file, held)], was_linked });
            }
        }
        Ok(())
    }

    /// Takes two open files for one: the second is a new name of the first.
    pub fn join(&mut self, one: OwnedFd, other: OwnedFd) -> io::Result<()> {
        let number = |file: &OwnedFd| rustix::fs::fstat(file).map(|meta| (meta.st_dev, meta.st_ino));
        let (first, second) = (number(&one)?, number(&other)?);
        if first == second || self.by_file.get(&first).is_some_and(|id| self.by_file.get(&second) == Some(id)) {
            return Ok(());
        }
        // What had this number was another file, which is gone.
        if let Some(id) = self.by_file.get(&second) {
            self.forget(*id);
        }
        let id = match self.by_file.get(&first) {
            Some(id) => *id,
            None => self.keep(Known { owner: Owner::default(), held: vec![(first, one)], was_linked: true }),
        };
        if let Some(known) = self.known.get_mut(&id) {
            known.held.push((second, other));
            self.by_file.insert(second, id);
        }
        Ok(())
    }

    fn keep(&mut self, known: Known) -> usize {
        if self.known.len() >= self.sweep_at {
            self.sweep();
        }
        let id = self.next;
        self.next += 1;
        for (file, _) in &known.held {
            self.by_file.insert(*file, id);
        }
        self.known.insert(id, known);
        id
    }

    fn forget(&mut self, id: usize) {
        for (file, _) in self.known.remove(&id).into_iter().flat_map(|known| known.held) {
            self.by_file.remove(&file);
        }
    }

    /// Lets go of files that have no name any more, and cannot get one: nobody asks for them.
    pub fn sweep(&mut self) {
        let has_name = |(_, held): &(File, OwnedFd)| rustix::fs::fstat(held).is_ok_and(|meta| meta.st_nlink > 0);
        let is_dead = |known: &Known| known.was_linked && !known.held.iter().any(has_name);
        let dead: Vec<usize> = self.known.iter().filter(|(_, known)| is_dead(known)).map(|(id, _)| *id).collect();
        dead.into_iter().for_each(|id| self.forget(id));
        self.sweep_at = SWEEP_MIN.max(self.known.len().saturating_mul(2));
    }

    /// Whose everything below `root` is, by path; that nobody changes any more. Of names that are no text nothing is told.
    ///
    /// Cost: two calls for each owner; if files have several names, a walk over everything below the root.
    pub fn owners(&self, root: &Path) -> io::Result<BTreeMap<RelPath, Owner>> {
        let mut all = BTreeMap::new();
        let mut has_more_names = false;
        let owned = self.known.values().filter(|known| known.owner != Owner::default());
        for (owner, (file, held)) in owned.flat_map(|known| known.held.iter().map(|held| (known.owner, held))) {
            let meta = rustix::fs::fstat(held)?;
            let is_dir = FileType::from_raw_mode(meta.st_mode) == FileType::Directory;
            let place = ops::read_link(Path::new(&format!("/proc/self/fd/{}", held.as_raw_fd())));
            let place = place
                .ok()
                .filter(|place| ops::symlink_metadata(place).is_ok_and(|meta| (meta.dev(), meta.ino()) == *file));
            has_more_names |= !is_dir && (meta.st_nlink > 1 || (meta.st_nlink > 0 && place.is_none()));
            if let Some(path) = place.as_deref().and_then(|place| below(root, place)) {
                all.insert(path, owner);
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
            // What lies deeper no layer has, which is told when it is taken.
            if meta.is_dir() && meta.dev() == device && path.as_str().len() <= ROOT_PATH_BYTES_MAX {
                self.walk(root, &path, device, all)?;
            }
        }
        Ok(())
    }
}

fn below(root: &Path, place: &Path) -> Option<RelPath> {
    RelPath::parse_bytes(place.strip_prefix(root).ok()?.as_os_str().as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, OFlags};

    use super::*;

    struct Scene {
        dir: tempfile::TempDir,
        table: Table,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            Self { dir, table: Table::default() }
        }

        fn at(&self, path: &str) -> std::path::PathBuf {
            ops::canonical(self.dir.path()).expect("there").join(path)
        }

        fn write(&self, path: &str) {
            ops::write(&self.at(path), b"x").expect("written");
        }

        fn give(&mut self, path: &str, user: Option<u32>, group: Option<u32>) {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(CWD, self.at(path), flags, Mode::empty()).expect("there");
            self.table.give(file, user, group).expect("held");
        }

        /// Everything that belongs to somebody, as `path user:group`.
        fn told(&self) -> Vec<String> {
            let owners = self.table.owners(&self.at("")).expect("read");
            owners.iter().map(|(path, owner)| format!("{path} {}:{}", owner.user, owner.group)).collect()
        }

        fn owner(&self, path: &str) -> Option<(u32, u32)> {
            let meta = ops::symlink_metadata(&self.at(path)).expect("there");
            self.table.owner((meta.dev(), meta.ino())).map(|owner| (owner.user, owner.group))
        }
    }

    #[test]
    fn what_is_not_given_stays_and_root_is_told_of_nothing() {
        let mut scene = Scene::new();
        scene.write("f");
        for (user, group, expect) in [
            (Some(1), None, Some((1, 0))),
            (None, Some(2), Some((1, 2))),
            (None, None, Some((1, 2))),
            (Some(0), None, Some((0, 2))),
            (None, Some(0), None),
            (None, None, None),
            (Some(u32::MAX - 1), Some(7), Some((u32::MAX - 1, 7))),
            (Some(0), Some(0), None),
        ] {
            scene.give("f", user, group);
            assert_eq!(scene.owner("f"), expect, "{user:?} {group:?}");
            assert_eq!(scene.table.is_empty(), expect.is_none());
        }
    }

    #[test]
    fn an_owner_is_of_the_file_and_not_of_its_name() {
        let mut scene = Scene::new();
        for file in ["f", "g", "h"] {
            scene.write(file);
        }
        ops::symlink("f", &scene.at("l")).expect("linked");
        ops::create_dir(&scene.at("d")).expect("made");
        for (number, path) in (1..).zip(["f", "g", "l", "d"]) {
            scene.give(path, Some(number), None);
        }
        assert_eq!(scene.told(), ["d 4:0", "f 1:0", "g 2:0", "l 3:0"]);
        ops::rename(&scene.at("f"), &scene.at("d/f")).expect("renamed");
        ops::rename(&scene.at("h"), &scene.at("g")).expect("renamed");
        ops::rename(&scene.at("d"), &scene.at("e")).expect("renamed");
        assert_eq!(scene.told(), ["e 4:0", "e/f 1:0", "l 3:0"]);
        rustix::fs::link(scene.at("e/f"), scene.at("again")).expect("linked");
        assert_eq!(scene.told(), ["again 1:0", "e 4:0", "e/f 1:0", "l 3:0"]);
        ops::remove_file(&scene.at("e/f")).expect("removed");
        assert_eq!(scene.told(), ["again 1:0", "e 4:0", "l 3:0"]);
    }

    #[test]
    fn the_number_of_a_file_that_is_gone_is_not_another_files_until_it_is_let_go() {
        let mut scene = Scene::new();
        for round in 0..50 {
            scene.write("f");
            scene.give("f", Some(9), Some(9));
            ops::remove_file(&scene.at("f")).expect("removed");
            scene.write("f");
            assert_eq!(scene.owner("f"), None, "{round}");
        }
        assert_eq!(scene.told(), Vec::<String>::new());
        assert_eq!(scene.table.known.len(), 50);
        scene.give("f", Some(8), None);
        scene.table.sweep();
        assert_eq!((scene.table.known.len(), scene.told()), (1, vec!["f 8:0".to_owned()]));
    }

    #[test]
    fn a_file_with_several_numbers_has_one_owner() {
        let mut scene = Scene::new();
        for file in ["one", "two", "three", "gone"] {
            scene.write(file);
        }
        let open = |scene: &Scene, path: &str| {
            rustix::fs::openat(CWD, scene.at(path), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("there")
        };
        let (one, two, again) = (open(&scene, "one"), open(&scene, "two"), open(&scene, "one"));
        scene.table.join(one, again).expect("held");
        assert!(scene.table.is_empty(), "it is one anyway");
        let one = open(&scene, "one");
        scene.table.join(one, two).expect("held");
        assert_eq!(scene.told(), Vec::<String>::new());
        scene.give("two", Some(5), None);
        scene.give("three", Some(9), None);
        let (two, three) = (open(&scene, "two"), open(&scene, "three"));
        scene.table.join(two, three).expect("held");
        assert_eq!(scene.told(), ["one 5:0", "three 5:0", "two 5:0"]);
        scene.give("three", Some(0), None);
        assert_eq!((scene.told(), scene.owner("one")), (vec![], None));
        scene.give("one", None, Some(6));
        ops::remove_file(&scene.at("one")).expect("removed");
        scene.table.sweep();
        assert_eq!(scene.told(), ["three 0:6", "two 0:6"]);
        for file in ["two", "three"] {
            ops::remove_file(&scene.at(file)).expect("removed");
        }
        scene.table.sweep();
        assert!(scene.table.is_empty() && scene.table.by_file.is_empty());
    }

    #[test]
    fn a_file_without_a_name_keeps_its_owner_for_the_name_that_it_gets() {
        let mut scene = Scene::new();
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(CWD, scene.at(""), flags, Mode::from_raw_mode(0o600)) else { return };
        scene.table.give(file.try_clone().expect("open"), Some(5), None).expect("held");
        scene.table.sweep();
        assert_eq!(scene.told(), Vec::<String>::new());
        let place = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, place, CWD, scene.at("named"), rustix::fs::AtFlags::SYMLINK_FOLLOW).expect("linked");
        assert_eq!(scene.told(), ["named 5:0"]);
    }

    #[test]
    fn a_set_group_id_directory_of_a_group_gives_that_on_and_no_other_does() {
        let mut scene = Scene::new();
        for (dir, mode, group, expect) in [("a", 0o2755, 7, Some(7)), ("b", 0o755, 7, None), ("c", 0o2755, 0, None)] {
            ops::create_dir(&scene.at(dir)).expect("made");
            scene.give(dir, Some(1), Some(group));
            // Its own group may have no member who could set that.
            ops::set_mode(&scene.at(dir), mode).expect("ours");
            let held = rustix::fs::openat(CWD, scene.at(dir), OFlags::PATH, Mode::empty()).expect("there");
            assert_eq!(scene.table.bequest(&held), expect, "{dir}");
        }
        assert!(scene.table.has_group_dirs());
    }
}
