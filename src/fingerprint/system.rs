//! Identity of the system a task sees (`/usr`, `/bin`, `/lib*`, two things of `/etc`), read from the disk. Runs no package manager.
//!
//! A package database ([`crate::fingerprint::databases`]) tells what its packages brought. What came without a package is told by the *surroundings*: the names
//! of what lies in the directories of programs and libraries, the alternatives, the loader's cache. A file below `/usr` that
//! is overwritten in place by hand is not seen: its name stays, and digesting all of `/usr` in every run costs too much.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::fingerprint::databases::databases;
use crate::fs::ops::{self, DirEntry, Kind};

/// Directories whose entries are programs, libraries and headers. Those that are links, as `/bin` mostly is, count as links.
const LISTED: [&str; 15] = [
    "bin",
    "sbin",
    "lib",
    "lib32",
    "lib64",
    "usr",
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "usr/lib32",
    "usr/lib64",
    "usr/lib/locale",
    "usr/libexec",
    "usr/include",
    "usr/share",
];

/// Files that decide what is found below `/usr`, and that no package brings: the loader's cache, what `locale-gen` makes, files and modes
/// that an administrator told dpkg to leave to them.
const DECIDING: [&str; 4] =
    ["etc/ld.so.cache", "usr/lib/locale/locale-archive", "var/lib/dpkg/diversions", "var/lib/dpkg/statoverride"];

/// Where directories called `python3*` hold packages of any origin.
const PYTHON_HOMES: [&str; 2] = ["usr/lib", "usr/lib64"];

/// Where `npm --global` puts packages when its prefix is `/usr`.
const NODE_MODULES: &str = "usr/lib/node_modules";

/// Never listed: Python writes it whenever it runs as the owner of the directory.
const PYTHON_CACHE: &str = "__pycache__";

/// What is known of the system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemIdentity {
    /// Text that enters keys: the kind of database and a digest, then those of the surroundings.
    pub text: String,
    /// Whether a package database was found. Without one, sizes and times of files stand in for it: results are not shared
    /// with other machines, and changes deep below `/usr` are not seen.
    pub exact: bool,
}

/// Digests files by absolute path, in order; from memory where their stat signature is known. `None` for what is no file or cannot be read.
pub type DigestAll<'a> = dyn Fn(&[PathBuf]) -> Vec<Option<Digest>> + 'a;

/// Reads the identity of the system below `root` (`/`, but for tests).
///
/// Cost: one `stat` per known database and per package, one read of those that changed, and one listing of each directory of programs and
/// libraries with one `readlink` per link: 2 to 4 ms for 2,500 entries, a third of them links. Without a database one `stat` per entry more.
pub fn identify(root: &Path, digest_all: &DigestAll<'_>) -> SystemIdentity {
    let databases = databases(root, digest_all);
    let digest = |path: &Path| digest_all(&[path.to_owned()]).pop().flatten();
    let digest: &dyn Fn(&Path) -> Option<Digest> = &digest;
    let surroundings = surroundings(root, digest);
    match databases.as_slice() {
        [_, ..] => SystemIdentity { text: format!("{} files {surroundings}", databases.join(" ")), exact: true },
        [] => {
            let release =
                digest(&root.join("etc/os-release")).map_or_else(|| "unknown".into(), |digest| digest.to_hex());
            let signatures = signatures(root);
            SystemIdentity {
                text: format!("os-release {release} files {surroundings} machine {signatures}"),
                exact: false,
            }
        }
    }
}

/// `linux/x86_64` and the like.
pub fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Digests what packages do not account for. No times and no sizes: machines with equal packages agree.
fn surroundings(root: &Path, digest: &dyn Fn(&Path) -> Option<Digest>) -> Digest {
    let mut encoder = Encoder::new();
    for place in listed(root) {
        listing(root, &place, &mut encoder);
    }
    listing(root, Path::new("etc/alternatives"), &mut encoder);
    for place in DECIDING {
        if let Some(digest) = digest(&root.join(place)) {
            encoder.bytes(place.as_bytes()).digest(&digest);
        }
    }
    for manifest in node_manifests(root) {
        if let Some(digest) = digest(&root.join(&manifest)) {
            encoder.bytes(manifest.as_os_str().as_encoded_bytes()).digest(&digest);
        }
    }
    Digest::derived("drystone 2026-11 system v1", encoder.as_slice())
}

/// The directories to list, relative to `root`, in byte order within each group.
fn listed(root: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = LISTED.iter().map(PathBuf::from).collect();
    // `x86_64-linux-gnu` and its like: where Debian keeps the libraries and headers of each architecture.
    for home in ["lib", "usr/lib", "usr/include"] {
        all.extend(directories(root, home, |name| name.contains("-linux-")));
    }
    for home in PYTHON_HOMES {
        for python in directories(root, home, |name| name.starts_with("python3")) {
            all.extend(["dist-packages", "site-packages"].map(|name| python.join(name)));
        }
    }
    all.push(NODE_MODULES.into());
    all
}

/// Real directories in a real directory whose names fit.
fn directories(root: &Path, home: &str, fits: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    if !is_directory(&root.join(home)) {
        return Vec::new();
    }
    let entries = ops::read_dir(&root.join(home)).unwrap_or_default();
    let fitting = entries.iter().filter(|entry| entry.kind == Kind::Dir && entry.name.to_str().is_some_and(&fits));
    fitting.map(|entry| Path::new(home).join(&entry.name)).collect()
}

fn is_directory(path: &Path) -> bool {
    ops::kind(path).is_ok_and(|kind| kind == Kind::Dir)
}

/// Encodes the direct entries of a directory: names, kinds, targets of links. Nothing if it is not there.
fn listing(root: &Path, place: &Path, encoder: &mut Encoder) {
    let dir = root.join(place);
    if let Ok(target) = ops::read_link(&dir) {
        encoder.bytes(place.as_os_str().as_encoded_bytes()).u8(LINK).bytes(target.as_os_str().as_encoded_bytes());
        return;
    }
    let Ok(entries) = ops::read_dir(&dir) else { return };
    let entries: Vec<&DirEntry> = entries.iter().filter(|entry| entry.name != PYTHON_CACHE).collect();
    encoder.bytes(place.as_os_str().as_encoded_bytes()).u8(DIRECTORY).u64(entries.len() as u64);
    for entry in entries {
        encoder.bytes(entry.name.as_encoded_bytes());
        match entry.kind {
            Kind::File => encoder.u8(FILE),
            Kind::Dir => encoder.u8(DIRECTORY),
            Kind::Special => encoder.u8(SPECIAL),
            Kind::Link => {
                let target = ops::read_link(&dir.join(&entry.name)).unwrap_or_default();
                encoder.u8(LINK).bytes(target.as_os_str().as_encoded_bytes())
            }
        };
    }
}

const FILE: u8 = 0;
const LINK: u8 = 2;
const DIRECTORY: u8 = 3;
const SPECIAL: u8 = 4;

/// The `package.json` of each global npm package: an update in place changes the version in it and no name.
fn node_manifests(root: &Path) -> Vec<PathBuf> {
    let mut packages = Vec::new();
    for dir in directories(root, NODE_MODULES, |_| true) {
        match dir.to_str() {
            Some(scope) if scope.contains("/@") => packages.extend(directories(root, scope, |_| true)),
            _ => packages.push(dir),
        }
    }
    packages.into_iter().map(|package| package.join("package.json")).collect()
}

/// Digests names, sizes and modification times of what the listed directories hold: a stand-in where no package database
/// tells of changes in place. Times are this machine's own, so no other machine agrees.
fn signatures(root: &Path) -> Digest {
    let mut encoder = Encoder::new();
    for place in listed(root) {
        let dir = root.join(&place);
        if !is_directory(&dir) {
            continue;
        }
        encoder.bytes(place.as_os_str().as_encoded_bytes());
        for entry in ops::read_dir(&dir).unwrap_or_default() {
            // A directory's own time changes with the caches that programs keep in it; what it holds is listed or not seen.
            let Ok(meta) = ops::symlink_metadata(&dir.join(&entry.name)) else { continue };
            if meta.is_dir() {
                continue;
            }
            encoder.bytes(entry.name.as_encoded_bytes()).u64(meta.len());
            encoder.u64(meta.mtime().cast_unsigned()).u64(meta.mtime_nsec().cast_unsigned());
        }
    }
    Digest::derived("drystone 2026-11 system files v1", encoder.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(root: &Path) -> SystemIdentity {
        identify(root, &|paths| paths.iter().map(|path| Some(Digest::of(&ops::read(path).ok()?))).collect())
    }

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        ops::create_dir_all(path.parent().expect("a file in a directory")).expect("a temporary directory");
        ops::write(&path, text.as_bytes()).expect("a temporary file");
    }

    fn link(root: &Path, path: &str, target: &str) {
        let path = root.join(path);
        ops::create_dir_all(path.parent().expect("a link in a directory")).expect("a temporary directory");
        ops::remove_file(&path).expect("it can go");
        ops::symlink(target, &path).expect("a temporary link");
    }

    /// A small Debian.
    fn debian() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path();
        put(root, "var/lib/dpkg/status", "Package: libc6\nVersion: 2.36\n");
        put(root, "usr/bin/gcc-12", "gcc 12");
        put(root, "usr/bin/gcc-13", "gcc 13");
        put(root, "usr/lib/x86_64-linux-gnu/libc.so.6", "libc");
        put(root, "usr/lib/python3/dist-packages/six.py", "six");
        put(root, "usr/lib/node_modules/npm/package.json", "{ \"version\": \"1\" }");
        put(root, "usr/lib/node_modules/@acme/kit/package.json", "{ \"version\": \"1\" }");
        put(root, "usr/share/doc/copyright", "free");
        put(root, "etc/ld.so.cache", "libc");
        put(root, "usr/lib/locale/locale-archive", "en_US");
        link(root, "etc/alternatives/cc", "/usr/bin/gcc-12");
        link(root, "usr/bin/cc", "/etc/alternatives/cc");
        link(root, "bin", "usr/bin");
        link(root, "lib", "usr/lib");
        dir
    }

    #[test]
    fn whatever_came_without_a_package_is_in_the_identity() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 16] = [
            ("a program", |root| put(root, "usr/bin/foo", "")),
            ("an alternative", |root| link(root, "etc/alternatives/cc", "/usr/bin/gcc-13")),
            ("a link among programs", |root| link(root, "usr/bin/cc", "gcc-13")),
            ("the loader's cache", |root| put(root, "etc/ld.so.cache", "libc libz")),
            ("a library", |root| put(root, "usr/lib/x86_64-linux-gnu/libz.so.1", "")),
            ("a Python package", |root| put(root, "usr/lib/python3/dist-packages/attrs/__init__.py", "")),
            ("a npm package", |root| put(root, "usr/lib/node_modules/tsc/package.json", "{}")),
            ("an update of a npm package", |root| put(root, "usr/lib/node_modules/npm/package.json", "{ 2 }")),
            ("an update in a npm scope", |root| put(root, "usr/lib/node_modules/@acme/kit/package.json", "{ 2 }")),
            ("a directory of its own", |root| put(root, "usr/kit/bin/x", "")),
            ("where /bin leads", |root| link(root, "bin", "usr/sbin")),
            ("a file that dpkg leaves alone", |root| put(root, "var/lib/dpkg/diversions", "/usr/lib/x\n")),
            ("a mode that dpkg leaves alone", |root| put(root, "var/lib/dpkg/statoverride", "root root 600 /usr/x\n")),
            ("a locale", |root| put(root, "usr/lib/locale/locale-archive", "de_DE en_US")),
            ("a locale of its own", |root| put(root, "usr/lib/locale/de_DE.utf8/LC_CTYPE", "")),
            ("a package of another system", |root| put(root, "var/lib/rpm/rpmdb.sqlite", "one")),
        ];
        for (what, change) in changes {
            let dir = debian();
            let before = identity(dir.path());
            assert!(before.exact && before.text.starts_with("dpkg "), "{before:?}");
            change(dir.path());
            assert_ne!(identity(dir.path()), before, "{what}");
        }
    }

    #[test]
    fn machines_with_equal_packages_agree_whatever_their_times_and_caches() {
        let (one, other) = (debian(), debian());
        put(other.path(), "usr/lib/python3/dist-packages/__pycache__/six.cpython-312.pyc", "compiled");
        put(other.path(), "usr/local/bin/foo", "not visible");
        put(other.path(), "var/log/messages", "other");
        // The directory itself is a name in `/usr`.
        ops::create_dir_all(&one.path().join("usr/local")).expect("a temporary directory");
        assert_eq!(identity(one.path()), identity(other.path()));
    }

    #[test]
    fn without_a_package_database_sizes_and_times_stand_in() {
        let dir = debian();
        ops::remove_file(&dir.path().join("var/lib/dpkg/status")).expect("it can go");
        put(dir.path(), "etc/os-release", "ID=own");
        let before = identity(dir.path());
        assert!(!before.exact && before.text.contains(" machine "), "{before:?}");
        assert_eq!(identity(dir.path()), before);
        put(dir.path(), "usr/bin/gcc-13", "gcc 13, mended by hand");
        assert_ne!(identity(dir.path()), before);
    }
}
