//! Installation roots: which directory a program brings with it as a whole, and its digest. Knows nothing of names and links.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::limits::TOOL_ROOT_ENTRIES_MAX;
use crate::fingerprint::tools::DigestFiles;
use crate::fs::ops::{self, Kind};
use crate::fs::witness::{self, unheard};

/// Directories whose files the system identity covers.
const SYSTEM_DIRS: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];

/// Directories that belong to nobody, or whose children belong to someone each: how many levels beneath them are crowded.
const SHARED_DIRS: [(&str, usize); 9] = [
    ("/home", 1),
    ("/Users", 1),
    ("/Volumes", 1),
    ("/mnt", 1),
    ("/media", 2),
    ("/run/media", 2),
    ("/run/user", 1),
    ("/var/tmp", 0),
    ("/dev/shm", 0),
];

/// Directories of a home in which many programs lie beside each other.
const HOME_PREFIXES: [&str; 4] = [".local", ".cargo", "go", ".config"];

/// Whether the path lies in a system directory (and not in `/usr/local`, which is the administrator's).
pub fn is_system(path: &Path) -> bool {
    !path.starts_with("/usr/local") && SYSTEM_DIRS.iter().any(|dir| path.starts_with(dir))
}

/// Directories that hold more than one installation: a program in one of them stands for itself alone.
#[derive(Clone, Debug, Default)]
pub struct Crowds {
    homes: BTreeSet<PathBuf>,
    mounts: BTreeSet<PathBuf>,
}

impl Crowds {
    /// Reads the homes of all users and the mount points below `root` (`/`, but for tests). `home` is the caller's own.
    ///
    /// Cost: two small reads. What cannot be read adds nothing.
    pub fn read(root: &Path, home: Option<&Path>) -> Self {
        let passwd = ops::read_text(&root.join("etc/passwd")).unwrap_or_default();
        let homes = passwd.lines().filter_map(|line| line.split(':').nth(5)).map(PathBuf::from);
        let homes = homes.chain(home.map(Path::to_owned)).chain([PathBuf::from("/root")]);
        // Of all that is mounted only what is asked for matters: see `is_mounted`.
        let mounts = unheard(|| ops::read_text(&root.join("proc/self/mountinfo"))).unwrap_or_default();
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|place| unescaped(place).into());
        let real = |path: &PathBuf| path.is_absolute() && path != Path::new("/");
        Self { homes: homes.filter(real).collect(), mounts: mounts.filter(real).collect() }
    }

    /// Whether the directory is one of them: a top-level directory, a mount point, a home or above one, a shared directory.
    fn holds(&self, dir: &Path) -> bool {
        // Made for installations, whatever is mounted there and whoever calls a part of it home.
        if dir == Path::new("/usr/local") {
            return false;
        }
        let top = dir.parent().is_none_or(|parent| parent == Path::new("/"));
        let shared = SHARED_DIRS.iter().any(|(shared, levels)| {
            dir.strip_prefix(shared).is_ok_and(|below| below.components().count() <= *levels)
                || Path::new(shared).starts_with(dir)
        });
        let holds_home = self.homes.range(dir.to_owned()..).next().is_some_and(|home| home.starts_with(dir));
        top || shared || holds_home || self.is_mounted(dir) || self.in_home(dir)
    }

    fn is_mounted(&self, dir: &Path) -> bool {
        let is_mounted = self.mounts.contains(dir);
        witness::note_mount(dir, is_mounted);
        is_mounted
    }

    /// Whether the directory is where a home keeps programs of many origins.
    fn in_home(&self, dir: &Path) -> bool {
        HOME_PREFIXES.iter().any(|name| dir.ends_with(name) && dir.parent().is_some_and(|home| self.is_home(home)))
    }

    fn is_home(&self, dir: &Path) -> bool {
        let parent = dir.parent();
        self.homes.contains(dir) || ["/home", "/Users"].iter().any(|homes| parent == Some(Path::new(homes)))
    }
}

/// `\040` and the like, as the kernel writes blanks and backslashes of mount points.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The directory that a program's installation fills, or the file itself where that directory holds more than the program.
pub(super) fn installation_root(path: &Path, workspace: &Path, crowds: &Crowds) -> Option<PathBuf> {
    // A package of node_modules is one installation wherever it lies; package databases do not know it.
    let mut above = path.ancestors().skip(1);
    if let Some(package) = above.find(|dir| dir.parent().is_some_and(|parent| parent.ends_with("node_modules"))) {
        return Some(package.to_owned());
    }
    if is_system(path) {
        return None;
    }
    let dir = path.parent()?;
    let prefix = if dir.ends_with("bin") || dir.ends_with("sbin") || dir.ends_with("lib") || dir.ends_with("libexec") {
        dir.parent()?
    } else {
        dir
    };
    if ops::exists(&prefix.join("pyvenv.cfg")) {
        return Some(prefix.to_owned());
    }
    let holds = |prefix: &Path| workspace.starts_with(prefix) || crowds.holds(prefix);
    // A link to a home is as crowded as the home.
    let crowded = path.starts_with(workspace) || holds(prefix) || ops::canonical(prefix).is_ok_and(|real| holds(&real));
    Some(if crowded { path.to_owned() } else { prefix.to_owned() })
}

/// Why an installation root has no digest.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It holds more than any tool does.
    #[error("{} holds more than {limit} files", root.display())]
    TooLarge {
        /// The root.
        root: PathBuf,
        /// [`TOOL_ROOT_ENTRIES_MAX`].
        limit: usize,
    },
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] ops::FsError),
}

/// Digests everything in an installation root: paths in byte order, links by their targets, files by their content.
///
/// `__pycache__` is left out: Python checks each entry against its source, and writes new ones whenever it runs as their owner.
/// Cost: one listing per directory; one `stat` per file that is known to `digest`.
///
/// # Errors
/// [`RootError::TooLarge`] before anything is digested.
pub fn root_digest(root: &Path, digest: &DigestFiles<'_>) -> Result<Digest, RootError> {
    root_digest_within(root, digest, TOOL_ROOT_ENTRIES_MAX)
}

fn root_digest_within(root: &Path, digest: &DigestFiles<'_>, limit: usize) -> Result<Digest, RootError> {
    let mut listing = Listing { root, limit, entries: 0, paths: Vec::new(), encoder: Encoder::new() };
    if ops::metadata(root)?.is_dir() {
        listing.add(root)?;
    } else if ops::symlink_metadata(root)?.is_symlink() {
        // The file it leads to is part of the tool for itself.
        let target = ops::read_link(root)?;
        listing.encoder.bytes(b"").u8(LINK).bytes(target.as_os_str().as_encoded_bytes());
    } else {
        listing.paths.push(root.to_owned());
    }
    let Listing { paths, mut encoder, .. } = listing;
    for (path, digest) in paths.iter().zip(digest(&paths)) {
        let (digest, executable) = digest?;
        encoder.bytes(below(root, path)).u8(u8::from(executable)).digest(&digest);
    }
    Ok(Digest::derived("drystone 2026-11 tool root v1", encoder.as_slice()))
}

fn below<'a>(root: &Path, path: &'a Path) -> &'a [u8] {
    path.strip_prefix(root).unwrap_or(path).as_os_str().as_encoded_bytes()
}

/// What lies beneath a root: files to digest; links and directories are in the encoding already.
struct Listing<'a> {
    root: &'a Path,
    limit: usize,
    entries: usize,
    paths: Vec<PathBuf>,
    encoder: Encoder,
}

impl Listing<'_> {
    fn add(&mut self, dir: &Path) -> Result<(), RootError> {
        let entries = ops::read_dir(dir)?;
        self.entries += entries.len();
        if self.entries > self.limit {
            return Err(RootError::TooLarge { root: self.root.to_owned(), limit: self.limit });
        }
        for entry in entries {
            let path = dir.join(&entry.name);
            match entry.kind {
                Kind::Dir if entry.name == "__pycache__" => {}
                Kind::Dir => {
                    self.encoder.bytes(below(self.root, &path)).u8(DIRECTORY);
                    self.add(&path)?;
                }
                Kind::File => self.paths.push(path),
                Kind::Link => {
                    let link = ops::read_link(&path)?;
                    self.encoder.bytes(below(self.root, &path)).u8(LINK).bytes(link.as_os_str().as_encoded_bytes());
                }
                Kind::Special => {}
            }
        }
        Ok(())
    }
}

const LINK: u8 = 2;
const DIRECTORY: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose user `ann` is the caller, with another user and a data disk.
    fn crowds(home: Option<&str>) -> Crowds {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["etc", "proc/self"] {
            ops::create_dir_all(&dir.path().join(name)).expect("a temporary directory");
        }
        let passwd =
            "root:x:0:0::/root:/bin/sh\nbob:x:2:2::/srv/people/bob:/bin/sh\nnobody:x:9:9::/:/bin/false\nbad line\n";
        ops::write(&dir.path().join("etc/passwd"), passwd.as_bytes()).expect("a temporary file");
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /opt/big\\040disk rw - ext4 /dev/b rw\n3 1 0:5 / /proc rw - proc\n";
        ops::write(&dir.path().join("proc/self/mountinfo"), mounts.as_bytes()).expect("a temporary file");
        Crowds::read(dir.path(), home.map(Path::new))
    }

    #[test]
    fn homes_disks_and_shared_directories_are_never_mounted_as_a_whole() {
        let crowds = crowds(Some("/home/ann"));
        let check = |path: &str, expect: &str| {
            let root = installation_root(Path::new(path), Path::new("/work/shop"), &crowds);
            assert_eq!(root, Some(PathBuf::from(expect)), "{path}");
        };
        let alone = |path: &str| check(path, path);
        alone("/home/ann/bin/x");
        alone("/home/ann/.local/bin/x");
        alone("/home/ann/.cargo/bin/x");
        alone("/home/x/bin/x");
        alone("/home/x/x");
        alone("/home/x/go/bin/x");
        alone("/Users/bob/.local/bin/x");
        alone("/root/bin/x");
        alone("/root/.local/bin/x");
        alone("/srv/people/bob/bin/x");
        alone("/srv/people/x");
        alone("/srv/x");
        alone("/srv/bin/x");
        alone("/mnt/data/x");
        alone("/mnt/data/bin/x");
        alone("/media/ann/stick/x");
        alone("/opt/x");
        alone("/opt/big disk/bin/x");
        alone("/x");
        alone("/tmp/x");
        alone("/var/tmp/x");
        alone("/work/shop/tools/gen.sh");
        alone("/work/bin/x");
        check("/opt/go/bin/go", "/opt/go");
        check("/opt/big disk/kit/bin/x", "/opt/big disk/kit");
        check("/home/x/.rustup/toolchains/stable/bin/cargo", "/home/x/.rustup/toolchains/stable");
        check("/mnt/data/kit/bin/x", "/mnt/data/kit");
        check("/usr/local/bin/node", "/usr/local");
        check("/usr/lib/node_modules/npm/bin/npm-cli.js", "/usr/lib/node_modules/npm");
        check("/nix/store/abc-gcc/bin/gcc", "/nix/store/abc-gcc");
        assert_eq!(installation_root(Path::new("/usr/bin/cc"), Path::new("/work/shop"), &crowds), None);
    }

    #[test]
    fn homes_are_known_without_the_variable_that_names_the_callers() {
        let check = |crowds: &Crowds| {
            let root = installation_root(Path::new("/home/x/bin/x"), Path::new("/work/shop"), crowds);
            assert_eq!(root, Some(PathBuf::from("/home/x/bin/x")));
        };
        check(&crowds(None));
        check(&crowds(Some("/nonexistent")));
        check(&Crowds::default());
    }

    #[test]
    fn a_link_to_a_crowded_directory_is_crowded() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        ops::create_dir_all(&dir.path().join("people/bob/bin")).expect("a temporary directory");
        ops::symlink("people/bob", &dir.path().join("kit")).expect("a temporary link");
        let home = ops::canonical(&dir.path().join("people/bob")).expect("it is there");
        let crowds = Crowds { homes: [home].into(), ..Crowds::default() };
        let program = dir.path().join("kit/bin/x");
        assert_eq!(installation_root(&program, Path::new("/work/shop"), &crowds), Some(program.clone()));
        let kit = dir.path().join("kit");
        assert_eq!(installation_root(&program, Path::new("/work/shop"), &Crowds::default()), Some(kit));
    }

    #[test]
    fn a_root_of_too_many_files_is_refused_before_it_is_digested() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        ops::create_dir_all(&dir.path().join("lib")).expect("a temporary directory");
        for name in ["a", "b", "lib/c"] {
            ops::write(&dir.path().join(name), b"").expect("a temporary file");
        }
        let digest: &DigestFiles<'_> = &|paths| paths.iter().map(|_| Ok((Digest::of(b""), false))).collect();
        assert!(root_digest_within(dir.path(), digest, 4).is_ok());
        let never: &DigestFiles<'_> = &|_| unreachable!("nothing is digested");
        let error = root_digest_within(dir.path(), never, 3).expect_err("four entries");
        assert!(matches!(&error, RootError::TooLarge { root, limit: 3 } if root == dir.path()), "{error}");
    }
}
