//! Layers applied one after the other (OCI image specification, "Filesystem Layer"). Knows nothing of manifests; checks no digest.
//!
//! What is known of the file system so far is a map; only the bytes of files are on the disk, under numbers. So no name and no link
//! of a layer ever reaches the disk here. Links on the way to a name lead where they would lead with the image as root, as in
//! container runtimes; none leads out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::limits::TREE_DEPTH_MAX;
use crate::fs::archive::{ArchiveError, MEMBERS_MAX, Member, read_tar};
use crate::fs::{atomic, ops};
use crate::image::tar_writer::Access;

/// What hides a name of the layers below.
const WHITEOUT: &str = ".wh.";
/// What hides everything that the layers below have in a directory.
const OPAQUE: &str = ".wh..wh..opq";
/// Names with this are notes of a file system that is no more.
const WHITEOUT_NOTE: &str = ".wh..wh.";

/// Longest name, and longest path, in bytes.
const NAME_BYTES_MAX: usize = 255;
const PATH_BYTES_MAX: usize = 2048;
/// Longest target of a link, in bytes.
const TARGET_BYTES_MAX: usize = 4095;
/// Links followed on the way to a name, as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// Most bytes of paths and targets that are kept in memory or followed: ten times those of a full desktop system.
const NAMES_BYTES_MAX: u64 = 256 * 1024 * 1024;

const COPY_BUFFER_BYTES: usize = 128 * 1024;

/// A file whose bytes lie on the disk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StagedFile {
    /// Its name in the directory for files.
    pub number: usize,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// What lies at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// A directory.
    Dir,
    /// A link with its target as written.
    Link(String),
    /// A file; hard links share it.
    File(Arc<StagedFile>),
}

struct Placed {
    node: Node,
    /// Permissions and owner; of a directory that only paths tell of, the usual ones.
    access: Access,
    /// The layer it came with.
    layer: usize,
}

/// What becomes of the bytes of files.
#[derive(Clone, Debug)]
enum Bytes {
    /// They are written into this directory, under numbers.
    Kept(PathBuf),
    /// They are read and forgotten.
    Dropped,
}

/// What of the layers no tree can hold.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Dropped {
    /// Devices and pipes.
    pub specials: BTreeSet<String>,
    /// Files that run as their owner or group.
    pub set_id: BTreeSet<String>,
}

/// A file system as it is after some layers.
pub struct Stack {
    /// By path; every directory above one is there too.
    nodes: BTreeMap<String, Placed>,
    bytes: Bytes,
    count: usize,
    bytes_left: u64,
    names_left: u64,
    /// Number of the layer being applied, from 1.
    layer: usize,
    /// Directories in which that layer has hidden what was below.
    hidden: BTreeSet<String>,
    dropped: Dropped,
}

/// What happens to a directory that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Made,
    Told,
}

impl Stack {
    /// Nothing yet. Bytes of files, at most `bytes_max` in all, go into the empty directory `files`.
    pub fn new(files: PathBuf, bytes_max: u64) -> Self {
        Self::with(Bytes::Kept(files), bytes_max)
    }

    /// Nothing yet, of which nothing but names, links, permissions and owners will be known.
    pub fn without_bytes(bytes_max: u64) -> Self {
        Self::with(Bytes::Dropped, bytes_max)
    }

    fn with(bytes: Bytes, bytes_max: u64) -> Self {
        Self {
            nodes: BTreeMap::new(),
            bytes,
            count: 0,
            bytes_left: bytes_max,
            names_left: bytes_max.min(NAMES_BYTES_MAX),
            layer: 0,
            hidden: BTreeSet::new(),
            dropped: Dropped::default(),
        }
    }

    /// Applies the next layer, a tar archive. After an error nothing more can be done with it.
    pub fn apply(&mut self, layer: &mut dyn Read) -> Result<(), ArchiveError> {
        self.layer += 1;
        self.hidden.clear();
        // Whoever reads the layer for us bounds it.
        read_tar(layer, u64::MAX, &mut |name, member| self.member(name, member))
    }

    /// What lies where, in byte order of the paths.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, placed)| (path.as_str(), &placed.node))
    }

    /// The same with owners, and permissions, which mean nothing of a link.
    pub fn accesses(&self) -> impl Iterator<Item = (&str, &Node, Access)> {
        self.nodes.iter().map(|(path, placed)| (path.as_str(), &placed.node, placed.access))
    }

    /// Where the bytes of a file lie, where they are kept.
    pub fn disk(&self, file: &StagedFile) -> PathBuf {
        match &self.bytes {
            Bytes::Kept(files) => files.join(file.number.to_string()),
            Bytes::Dropped => PathBuf::new(),
        }
    }

    /// What was left out.
    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    fn member(&mut self, name: &str, member: Member<'_>) -> Result<(), ArchiveError> {
        let parts = parts_of(name)?;
        let Some((last, above)) = parts.split_last() else {
            let is_dir = matches!(member, Member::Dir { .. });
            return if is_dir {
                Ok(())
            } else {
                Err(ArchiveError::refused(name, "which is no directory, and the root"))
            };
        };
        if parts.iter().any(|part| part.starts_with(WHITEOUT_NOTE) && *part != OPAQUE) {
            return Ok(());
        }
        if above.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(ArchiveError::refused(name, "which lies in a whiteout"));
        }
        self.charge(name, name.len())?;
        if let Some(hidden) = last.strip_prefix(WHITEOUT) {
            return self.whiteout(name, above, hidden);
        }
        let at = self.place(name, above, last)?;
        let access;
        let node = match member {
            Member::Dir { mode, owner: (uid, gid) } => {
                access = Access { mode: mode & 0o7777, uid, gid };
                Node::Dir
            }
            Member::Link { target, owner: (uid, gid) } => {
                access = Access { mode: 0o777, uid, gid };
                self.charge(name, target.len())?;
                Node::Link(checked_target(name, target)?)
            }
            Member::HardLink { target } => {
                let (node, its) = self.hard_linked(name, &target)?;
                access = its;
                node
            }
            Member::File { mode, owner: (uid, gid), claimed, content } => {
                access = Access { mode: mode & 0o7777, uid, gid };
                if claimed > self.bytes_left {
                    // Before a file of nothing but holes fills the disk with zeros.
                    return Err(ArchiveError::refused(name, "which makes it too large unpacked"));
                }
                if mode & 0o6000 != 0 {
                    self.dropped.set_id.insert(at.clone());
                }
                let executable = mode & 0o100 != 0;
                Node::File(Arc::new(StagedFile { number: self.stage(name, content)?, executable }))
            }
            Member::Special => {
                self.dropped.specials.insert(at);
                return Ok(());
            }
        };
        self.put(name, at, node, access)
    }

    /// The path of a name, links on the way resolved; directories on the way are made.
    fn place(&mut self, name: &str, above: &[&str], last: &str) -> Result<String, ArchiveError> {
        let dir = self.dir(name, above, Missing::Made)?.expect("what is missing is made");
        Ok(below(&dir, last))
    }

    /// Counts what is kept of names; what is taken away later counts as well.
    fn charge(&mut self, name: &str, bytes: usize) -> Result<(), ArchiveError> {
        let too_many = || ArchiveError::refused(name, "which makes its names too many");
        self.names_left = self.names_left.checked_sub(bytes as u64).ok_or_else(too_many)?;
        Ok(())
    }

    fn put(&mut self, name: &str, at: String, node: Node, access: Access) -> Result<(), ArchiveError> {
        if at.len() > PATH_BYTES_MAX || at.matches('/').count() >= TREE_DEPTH_MAX {
            return Err(ArchiveError::refused(name, "whose path is too long"));
        }
        if node != Node::Dir && matches!(self.nodes.get(&at), Some(Placed { node: Node::Dir, .. })) {
            self.beneath(&at).into_iter().for_each(|path| drop(self.nodes.remove(&path)));
        }
        self.charge(name, at.len())?;
        self.nodes.insert(at, Placed { node, access, layer: self.layer });
        if self.nodes.len() > MEMBERS_MAX {
            return Err(ArchiveError::refused(name, "which is one entry too many"));
        }
        Ok(())
    }

    /// The directory at a path, with every link on the way followed inside the image. What is no directory makes way for one.
    fn dir(&mut self, name: &str, parts: &[&str], missing: Missing) -> Result<Option<String>, ArchiveError> {
        let mut left: Vec<String> = parts.iter().rev().map(|part| (*part).to_owned()).collect();
        let mut here = String::new();
        let mut links = 0;
        while let Some(part) = left.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    here.truncate(here.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let at = below(&here, &part);
            match self.nodes.get(&at).map(|placed| &placed.node) {
                Some(Node::Dir) => here = at,
                Some(Node::Link(target)) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(ArchiveError::refused(name, "which lies behind too many links"));
                    }
                    if target.starts_with('/') {
                        here.clear();
                    }
                    left.extend(target.split('/').rev().map(str::to_owned));
                    // A million names behind forty long links each would take days.
                    let bytes = target.len();
                    self.charge(name, bytes)?;
                }
                Some(Node::File(_)) | None if missing == Missing::Told => return Ok(None),
                Some(Node::File(_)) | None => {
                    self.put(name, at.clone(), Node::Dir, Access::DIR)?;
                    here = at;
                }
            }
        }
        Ok(Some(here))
    }

    fn whiteout(&mut self, name: &str, above: &[&str], hidden: &str) -> Result<(), ArchiveError> {
        let Some(dir) = self.dir(name, above, Missing::Told)? else { return Ok(()) };
        if format!("{WHITEOUT}{hidden}") == OPAQUE {
            self.hide_beneath(&dir);
            return Ok(());
        }
        if matches!(hidden, "" | "." | "..") {
            return Err(ArchiveError::refused(name, "a whiteout of no name"));
        }
        let at = below(&dir, hidden);
        self.charge(name, at.len())?;
        // What the same layer has put there stays, whichever comes first.
        if self.nodes.get(&at).is_some_and(|placed| placed.layer < self.layer) {
            self.nodes.remove(&at);
            // Once more, if only for what lies beneath to have a directory again.
            self.hidden.remove(&at);
        }
        self.hide_beneath(&at);
        Ok(())
    }

    /// Takes away what earlier layers have beneath a path.
    fn hide_beneath(&mut self, at: &str) {
        if !self.hidden.insert(at.to_owned()) {
            return;
        }
        let (own, earlier): (Vec<String>, Vec<String>) =
            self.beneath(at).into_iter().partition(|path| self.nodes[path].layer == self.layer);
        earlier.iter().for_each(|path| drop(self.nodes.remove(path)));
        for path in own {
            let mut dir = path.as_str();
            while let Some((above, _)) = dir.rsplit_once('/') {
                if self.nodes.contains_key(above) {
                    break;
                }
                self.nodes.insert(above.to_owned(), Placed { node: Node::Dir, access: Access::DIR, layer: self.layer });
                dir = above;
            }
        }
    }

    /// Every path beneath one, or every path.
    fn beneath(&self, at: &str) -> Vec<String> {
        if at.is_empty() {
            return self.nodes.keys().cloned().collect();
        }
        // The letter behind `/` in the alphabet is `0`.
        self.nodes.range(format!("{at}/")..format!("{at}0")).map(|(path, _)| path.clone()).collect()
    }

    fn hard_linked(&mut self, name: &str, target: &str) -> Result<(Node, Access), ArchiveError> {
        let parts = parts_of(target)?;
        let found = match parts.split_last() {
            Some((last, above)) => {
                let dir = self.dir(name, above, Missing::Told)?;
                let placed = dir.and_then(|dir| self.nodes.get(&below(&dir, last)));
                placed.map(|placed| (placed.node.clone(), placed.access))
            }
            None => Some((Node::Dir, Access::DIR)),
        };
        match found {
            Some((Node::Dir, _)) => Err(ArchiveError::refused(name, "a hard link to a directory")),
            Some(found) => Ok(found),
            None => Err(ArchiveError::refused(name, "a hard link to what is not there")),
        }
    }

    /// Writes the bytes of a file to the disk.
    fn stage(&mut self, name: &str, content: &mut dyn Read) -> Result<usize, ArchiveError> {
        let number = self.count;
        self.count += 1;
        let file = match &self.bytes {
            Bytes::Kept(files) => {
                let disk = files.join(number.to_string());
                Some((ops::create_new(&disk, 0o600)?, disk))
            }
            Bytes::Dropped => None,
        };
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => return Ok(number),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ArchiveError::broken(&error)),
            };
            let too_large = || ArchiveError::refused(name, "which makes it too large unpacked");
            self.bytes_left = self.bytes_left.checked_sub(count as u64).ok_or_else(too_large)?;
            if let Some((file, disk)) = &file {
                ops::write_all(file, disk, &buffer[..count])?;
            }
        }
    }
}

fn below(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// The parts of a name in a layer; `/a` and `./a` are `a`.
fn parts_of(name: &str) -> Result<Vec<&str>, ArchiveError> {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(ArchiveError::refused(name, "which leaves its directory"));
    }
    if name.contains('\0') || parts.iter().any(|part| part.len() > NAME_BYTES_MAX) {
        return Err(ArchiveError::refused(name, "which no file can be called"));
    }
    if parts.iter().any(|part| atomic::is_temporary(part)) {
        // No walk lists such a name, so it would be lost without a word.
        return Err(ArchiveError::refused(name, "which has a name that drystone keeps for itself"));
    }
    Ok(parts)
}

fn checked_target(name: &str, target: String) -> Result<String, ArchiveError> {
    if target.is_empty() || target.len() > TARGET_BYTES_MAX || target.contains('\0') {
        return Err(ArchiveError::refused(name, "a link to what nothing can be called"));
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::fixture::Make::{self, Dir, File, Hard, Link, Mode, Other};
    use crate::image::fixture::tar_of;

    type Members<'a> = &'a [(&'a str, Make<'a>)];

    fn applied(layers: &[Members<'_>]) -> (tempfile::TempDir, Stack, Result<(), ArchiveError>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut stack = Stack::new(dir.path().to_owned(), 1 << 20);
        let result = layers.iter().try_for_each(|members| stack.apply(&mut tar_of(members).as_slice()));
        (dir, stack, result)
    }

    /// Every path with what lies there: `a/`, `b -> target`, `c = content`, `d * content` if executable.
    fn told(stack: &Stack) -> Vec<String> {
        let told = |(path, node): (&str, &Node)| match node {
            Node::Dir => format!("{path}/"),
            Node::Link(target) => format!("{path} -> {target}"),
            Node::File(file) => {
                let content = ops::read_text(&stack.disk(file)).expect("a staged file");
                format!("{path} {} {content}", if file.executable { '*' } else { '=' })
            }
        };
        stack.entries().map(told).collect()
    }

    #[track_caller]
    fn check(layers: &[Members<'_>], expect: &[&str]) {
        let (_dir, stack, result) = applied(layers);
        result.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(told(&stack), expect);
    }

    #[test]
    fn later_layers_add_and_replace() {
        check(
            &[
                &[("./", Dir), ("./a/", Dir), ("a/x", File("1")), ("/b", File("1"))],
                &[("a/x", File("2")), ("c/d/e", File("3"))],
            ],
            &["a/", "a/x = 2", "b = 1", "c/", "c/d/", "c/d/e = 3"],
        );
        check(
            &[&[("a", File("1")), ("a", Mode("2", 0o755)), ("b", Link("x")), ("b", Link("y"))]],
            &["a * 2", "b -> y"],
        );
        let bits: Members<'_> = &[("a", Mode("", 0o4755)), ("b", Mode("", 0o2644))];
        let (_dir, stack, _) = applied(&[bits]);
        assert_eq!((told(&stack), stack.dropped().set_id.len()), (vec!["a * ".to_owned(), "b = ".to_owned()], 2));
    }

    #[test]
    fn whiteouts_hide_what_lies_below_and_nothing_of_their_own_layer() {
        let base: Members<'_> = &[("a/x", File("1")), ("a/y/z", File("1")), ("b", File("1")), ("c", Link("b"))];
        let all = ["a/", "a/x = 1", "a/y/", "a/y/z = 1", "b = 1", "c -> b"];
        check(&[base, &[]], &all);
        check(&[base, &[("a/.wh.x", File("")), (".wh.c", File(""))]], &["a/", "a/y/", "a/y/z = 1", "b = 1"]);
        check(
            &[base, &[(".wh.a", File("")), (".wh.nothing", File("")), ("no/where/.wh.x", File(""))]],
            &["b = 1", "c -> b"],
        );
        for members in [
            [("a/.wh..wh..opq", File("")), ("a/n/m", File("2"))],
            [("a/n/m", File("2")), ("a/.wh..wh..opq", File(""))],
            [(".wh.a", File("")), ("a/n/m", File("2"))],
            [("a/n/m", File("2")), (".wh.a", File(""))],
        ] {
            check(&[base, &members], &["a/", "a/n/", "a/n/m = 2", "b = 1", "c -> b"]);
        }
        check(
            &[base, &[(".wh.b", File("")), ("b", File("2")), ("a/.wh..wh..opq", File(""))]],
            &["a/", "b = 2", "c -> b"],
        );
        check(
            &[base, &[("a/y/n", File("2")), ("a/.wh..wh..opq", File(""))]],
            &["a/", "a/y/", "a/y/n = 2", "b = 1", "c -> b"],
        );
        let twice = [("a/.wh..wh..opq", File("")), ("a/n", File("2")), (".wh.a", File(""))];
        check(&[base, &twice], &["a/", "a/n = 2", "b = 1", "c -> b"]);
        check(&[base, &[(".wh..wh..opq", File("")), ("n", File("2"))]], &["n = 2"]);
        check(&[base, &[(".wh..wh.plnk/1.2", File("")), (".wh..wh.aufs", File(""))]], &all);
        check(
            &[base, &[("a/.wh.x", File(""))], &[("a/x", File("3"))]],
            &["a/", "a/x = 3", "a/y/", "a/y/z = 1", "b = 1", "c -> b"],
        );
        // `a-b` stands between `a` and `a/x` in byte order, `a0` right behind all of `a/`.
        check(
            &[&[("a/x", File("")), ("a-b", File("")), ("a0", File(""))], &[(".wh.a", File(""))]],
            &["a-b = ", "a0 = "],
        );
    }

    #[test]
    fn one_kind_replaces_another() {
        let base: Members<'_> = &[("d/x", File("1")), ("f", File("1")), ("l", Link("d"))];
        check(&[base, &[("d", File("2"))]], &["d = 2", "f = 1", "l -> d"]);
        check(&[base, &[("d", Link("f"))]], &["d -> f", "f = 1", "l -> d"]);
        check(&[base, &[("f/", Dir), ("f/x", File("2"))]], &["d/", "d/x = 1", "f/", "f/x = 2", "l -> d"]);
        check(&[base, &[("f/x", File("2"))]], &["d/", "d/x = 1", "f/", "f/x = 2", "l -> d"]);
        check(&[base, &[("l", Dir)]], &["d/", "d/x = 1", "f = 1", "l/"]);
        check(&[base, &[("l", File("2"))]], &["d/", "d/x = 1", "f = 1", "l = 2"]);
        check(&[base, &[("d/", Dir)]], &["d/", "d/x = 1", "f = 1", "l -> d"]);
    }

    #[test]
    fn links_on_the_way_lead_where_they_lead_inside_the_image() {
        let base: Members<'_> = &[
            ("usr/bin/sh", File("1")),
            ("bin", Link("usr/bin")),
            ("sbin", Link("/usr/bin")),
            ("up", Link("../../usr")),
        ];
        let after = |more: &[&str]| {
            let mut all =
                vec!["bin -> usr/bin", "sbin -> /usr/bin", "up -> ../../usr", "usr/", "usr/bin/", "usr/bin/sh = 1"];
            all.extend(more);
            all.sort_unstable();
            all.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        for name in ["bin/x", "sbin/x", "up/bin/x"] {
            let (_dir, stack, result) = applied(&[base, &[(name, File("2"))]]);
            result.expect("it is applied");
            assert_eq!(told(&stack), after(&["usr/bin/x = 2"]), "{name}");
        }
        check(
            &[base, &[("bin/.wh.sh", File("")), (".wh.up", File("")), ("sbin", Link("x"))]],
            &["bin -> usr/bin", "sbin -> x", "usr/", "usr/bin/"],
        );
        check(
            &[&[("l", Link("no/where")), ("l/x", File("1"))]],
            &["l -> no/where", "no/", "no/where/", "no/where/x = 1"],
        );
    }

    #[test]
    fn hard_links_are_other_names_of_what_is_there() {
        let base: Members<'_> = &[("a/x", Mode("1", 0o755)), ("l", Link("a")), ("l2", Hard("l"))];
        check(
            &[base, &[("y", Hard("a/x")), ("z", Hard("./l/x"))]],
            &["a/", "a/x * 1", "l -> a", "l2 -> a", "y * 1", "z * 1"],
        );
        check(&[base, &[("y", Hard("/a/x")), (".wh.a", File("")), (".wh.l2", File(""))]], &["l -> a", "y * 1"]);
        check(&[&[("x", File("1")), ("x", Hard("x"))]], &["x = 1"]);
    }

    #[test]
    fn devices_are_left_out_and_told() {
        use tar::EntryType::{Block, Char, Fifo};
        let members: Members<'_> =
            &[("dev/null", Other(Char)), ("x/disk", Other(Block)), ("x/pipe", Other(Fifo)), ("y", File(""))];
        let (_dir, stack, result) = applied(&[members]);
        result.expect("it is applied");
        assert_eq!(told(&stack), ["dev/", "x/", "y = "]);
        assert_eq!(stack.dropped().specials.len(), 3);
    }

    #[test]
    fn what_cannot_be_applied_is_refused() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let deep = "d/".repeat(TREE_DEPTH_MAX + 1);
        let round: Members<'_> = &[("a", Link("b")), ("b", Link("a")), ("a/x", File(""))];
        let check = |members: Members<'_>, expect: &str| {
            let (dir, _stack, result) = applied(&[&[("there/x", File("1"))], members]);
            let told = result.expect_err(expect).to_string();
            assert!(told.contains(expect), "{expect}: {told}");
            assert!(!ops::exists(&dir.path().with_file_name("evil")), "{expect}");
        };
        check(&[("../evil", File(""))], "leaves its directory");
        check(&[("a/../../evil", File(""))], "leaves its directory");
        check(&[("x", Hard("../evil"))], "leaves its directory");
        check(&[("x", Hard("nothing"))], "what is not there");
        check(&[("x", Hard("there"))], "hard link to a directory");
        check(&[(".wh.", File(""))], "whiteout of no name");
        check(&[(".wh...", File(""))], "whiteout of no name");
        check(&[(".wh.x/y", File(""))], "lies in a whiteout");
        check(&[(".", File(""))], "the root");
        check(&[("a/.x.drystone-1-2", File(""))], "keeps for itself");
        check(round, "too many links");
        check(&[(&long, File(""))], "no file can be called");
        check(&[(&deep, Dir)], "too long");
        check(&[("l", Link(""))], "a link without a target");
        check(&[("x", Other(tar::EntryType::new(b'V')))], "no file");
        let names: Vec<String> = (0..400).map(|number| format!("{number}/{}", "x/".repeat(200))).collect();
        let many: Vec<(&str, Make<'_>)> = names.iter().map(|name| (name.as_str(), Dir)).collect();
        check(&many, "names too many");
        let whiteouts: Vec<String> = (0..8000).map(|number| format!("there/.wh.{number}{}", "x".repeat(200))).collect();
        let many: Vec<(&str, Make<'_>)> = whiteouts.iter().map(|name| (name.as_str(), File(""))).collect();
        check(&many, "names too many");
        check(&[("big", File(&"x".repeat((1 << 20) + 1)))], "too large");
    }

    #[test]
    fn names_that_are_not_utf8_are_told() {
        let mut bytes = tar_of(&[("abc", File(""))]);
        bytes[1] = 0xff;
        let mut header = tar::Header::from_byte_slice(&bytes[..512]).clone();
        header.set_cksum();
        bytes[..512].copy_from_slice(header.as_bytes());
        let mut stack = Stack::new(PathBuf::new(), 1);
        let told = stack.apply(&mut bytes.as_slice()).expect_err("it is no name").to_string();
        assert!(told.contains("whose name is not UTF-8"), "{told}");
    }

    /// A file system after some layers by the words of the specification: first everything that a layer hides, then what it brings.
    #[derive(Default)]
    struct Model(BTreeMap<String, String>);

    impl Model {
        fn remove_beneath(&mut self, at: &str) {
            self.0.retain(|path, _| !(at.is_empty() || path.starts_with(&format!("{at}/"))));
        }

        fn apply(&mut self, members: &[(String, Option<String>)]) {
            for (name, _) in members {
                let (dir, last) = name.rsplit_once('/').unwrap_or(("", name));
                match last.strip_prefix(".wh.") {
                    Some(".wh..opq") => self.remove_beneath(dir),
                    Some(hidden) => {
                        self.0.remove(&below(dir, hidden));
                        self.remove_beneath(&below(dir, hidden));
                    }
                    None => {}
                }
            }
            for (name, content) in members.iter().filter(|(name, _)| !name.contains(".wh.")) {
                for (at, _) in name.match_indices('/') {
                    let above = self.0.entry(name[..at].to_owned()).or_default();
                    *above = "/".into();
                }
                match content {
                    Some(content) => {
                        self.remove_beneath(name);
                        self.0.insert(name.clone(), format!(" = {content}"));
                    }
                    None => drop(self.0.insert(name.clone(), "/".into())),
                }
            }
        }
    }

    fn some_members() -> impl proptest::strategy::Strategy<Value = Vec<(String, Option<String>)>> {
        use proptest::prelude::*;
        let name = proptest::collection::vec("[ab]", 1..4).prop_map(|parts| parts.join("/"));
        let member = (name, 0..5_u8, "[0-9]").prop_map(|(name, kind, content)| {
            let (dir, last) = name.rsplit_once('/').unwrap_or(("", &name));
            match kind {
                0 => (name, None),
                1 => (below(dir, &format!(".wh.{last}")), Some(String::new())),
                2 => (below(&name, ".wh..wh..opq"), Some(String::new())),
                _ => (name, Some(content)),
            }
        });
        proptest::collection::vec(member, 0..8)
    }

    proptest::proptest! {
        #[test]
        fn layers_do_what_the_specification_says_in_any_order(layers in proptest::collection::vec(some_members(), 1..5)) {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let mut stack = Stack::new(dir.path().to_owned(), 1 << 20);
            let mut model = Model::default();
            for layer in &layers {
                let members: Vec<(&str, Make<'_>)> = layer.iter()
                    .map(|(name, content)| (name.as_str(), content.as_deref().map_or(Dir, File)))
                    .collect();
                stack.apply(&mut tar_of(&members).as_slice()).expect("it is applied");
                model.apply(layer);
            }
            let expect: Vec<String> = model.0.iter().map(|(path, what)| format!("{path}{what}")).collect();
            proptest::prop_assert_eq!(told(&stack), expect);
        }
    }
}
