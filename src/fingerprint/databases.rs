//! Package databases of a machine, as text that enters keys. Runs no package manager.
//!
//! A database tells names and versions; a package that was built again and installed over itself keeps both. So what a package manager
//! notes of the *contents* of packages counts as well: dpkg's checksums, pacman's `mtree`. apk and rpm have theirs in the database.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::fingerprint::system::DigestAll;
use crate::fs::ops;

/// Package databases that are one file: name and place.
const FILES: [(&str, &str); 11] = [
    ("dpkg", "var/lib/dpkg/status"),
    ("apk", "lib/apk/db/installed"),
    ("apk", "usr/lib/apk/db/installed"),
    ("rpm", "var/lib/rpm/rpmdb.sqlite"),
    // While any program has the database open, what was installed is only here.
    ("rpm", "var/lib/rpm/rpmdb.sqlite-wal"),
    ("rpm", "var/lib/rpm/Packages.db"),
    ("rpm", "var/lib/rpm/Packages"),
    ("rpm", "usr/lib/sysimage/rpm/rpmdb.sqlite"),
    ("rpm", "usr/lib/sysimage/rpm/rpmdb.sqlite-wal"),
    ("rpm", "usr/lib/sysimage/rpm/Packages.db"),
    ("rpm", "usr/lib/sysimage/rpm/Packages"),
];

/// Package databases that are a directory: name, place, and what of it tells the packages.
const DIRS: [(&str, &str, Telling); 3] = [
    ("dpkg", "var/lib/dpkg/status.d", Telling::Everything),
    ("dpkg-md5sums", "var/lib/dpkg/info", Telling::Md5sums),
    // One directory per installed package, named with its version.
    ("pacman", "var/lib/pacman/local", Telling::Mtrees),
];

/// What of a database directory tells the packages and what they brought.
#[derive(Clone, Copy)]
enum Telling {
    /// Every file.
    Everything,
    /// The files that end so: dpkg has one per package, and makes it where a package comes without (since 1.16.3).
    Md5sums,
    /// The names, and the file `mtree` beneath each: times, modes and checksums of what the package brought.
    Mtrees,
}

/// All package databases that are there, each as its kind and a digest: Fedora may have a dpkg, and Debian an rpm, that says nothing of
/// what the machine consists of.
pub fn databases(root: &Path, digest_all: &DigestAll<'_>) -> Vec<String> {
    let empty = Digest::of(b"");
    let mut found = Vec::new();
    let files: Vec<PathBuf> = FILES.iter().map(|(_, place)| root.join(place)).collect();
    for ((name, _), digest) in FILES.iter().zip(digest_all(&files)) {
        if let Some(digest) = digest.filter(|digest| *digest != empty) {
            found.push(format!("{name} {digest}"));
        }
    }
    for (name, place, telling) in DIRS {
        let dir = root.join(place);
        let mut entries = ops::read_dir(&dir).unwrap_or_default();
        if matches!(telling, Telling::Md5sums) {
            entries.retain(|entry| entry.name.as_encoded_bytes().ends_with(b".md5sums"));
        }
        if entries.is_empty() {
            continue;
        }
        let telling_files: Vec<PathBuf> = match telling {
            Telling::Everything | Telling::Md5sums => entries.iter().map(|entry| dir.join(&entry.name)).collect(),
            Telling::Mtrees => entries.iter().map(|entry| dir.join(&entry.name).join("mtree")).collect(),
        };
        let mut encoder = Encoder::new();
        for (entry, digest) in entries.iter().zip(digest_all(&telling_files)) {
            encoder.bytes(entry.name.as_encoded_bytes()).digest(&digest.unwrap_or(empty));
        }
        found.push(format!("{name} {}", Digest::of(encoder.as_slice())));
    }
    if let Ok(system) = ops::read_link(&root.join("run/current-system")) {
        found.push(format!("nixos {}", system.display()));
    }
    // One place may be a link to another.
    let mut seen = BTreeSet::new();
    found.retain(|database| seen.insert(database.clone()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::system::{SystemIdentity, identify};

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
        ops::symlink(target, &path).expect("a temporary link");
    }

    /// A machine with one package of dpkg.
    fn debian() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        put(dir.path(), "var/lib/dpkg/status", "Package: libc6\nVersion: 2.36\n");
        put(dir.path(), "var/lib/dpkg/info/libc6:amd64.md5sums", "0123  usr/lib/libc.so.6\n");
        put(dir.path(), "var/lib/dpkg/info/libc6:amd64.postinst", "true\n");
        dir
    }

    #[test]
    fn every_package_database_counts_and_each_change_of_it() {
        let check = |place: &str, kind: &str| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            put(dir.path(), place, "one");
            let before = identity(dir.path());
            assert!(before.exact && before.text.starts_with(&format!("{kind} ")), "{place}: {before:?}");
            put(dir.path(), place, "other");
            assert_ne!(identity(dir.path()), before, "{place}");
        };
        for (kind, place) in FILES {
            check(place, kind);
        }
        check("var/lib/dpkg/status.d/base", "dpkg");
        check("var/lib/dpkg/info/libc6.md5sums", "dpkg-md5sums");
        check("var/lib/pacman/local/zlib-1.3-1/mtree", "pacman");
        let dir = tempfile::tempdir().expect("a temporary directory");
        put(dir.path(), "var/lib/pacman/local/zlib-1.3-1/desc", "");
        assert!(identity(dir.path()).text.starts_with("pacman "));
        let dir = tempfile::tempdir().expect("a temporary directory");
        link(dir.path(), "run/current-system", "/nix/store/abc-system");
        assert!(identity(dir.path()).text.starts_with("nixos /nix/store/abc-system files "));
    }

    #[test]
    fn a_package_that_is_built_again_with_its_version_is_another() {
        let (dir, other) = (debian(), debian());
        let before = identity(dir.path());
        assert_eq!(identity(other.path()), before, "machines with equal packages agree");
        put(dir.path(), "var/lib/dpkg/info/libc6:amd64.postinst", "false\n");
        assert_eq!(identity(dir.path()), before, "what is run once is not what is visible");
        put(dir.path(), "var/lib/dpkg/info/libc6:amd64.md5sums", "4567  usr/lib/libc.so.6\n");
        assert_ne!(identity(dir.path()), before);
    }

    #[test]
    fn the_identity_of_packages_is_what_the_document_says() {
        let dir = debian();
        put(dir.path(), "var/lib/dpkg/info/zlib1g:amd64.md5sums", "89ab  usr/lib/libz.so.1\n");
        put(dir.path(), "var/lib/pacman/local/zlib-1.3-1/mtree", "#mtree\n");
        put(dir.path(), "var/lib/pacman/local/ALPM_DB_VERSION", "9\n");
        let text =
            databases(dir.path(), &|paths| paths.iter().map(|path| Some(Digest::of(&ops::read(path).ok()?))).collect());
        // Computed by another program that goes by the document.
        let expect = [
            "dpkg a48e073418ccf3067c7e00f97b8fccf4cf637c1f8190ef2b29b8fbb6c9197455",
            "dpkg-md5sums ac297af8382a02f5ed5b75f6244220dcf33fea3d482e67c96f31200e07df6bb2",
            "pacman 32db75f18391ad6f253141dc0700cd058abf341783acbdf3706e004bdedc468e",
        ];
        assert_eq!(text, expect);
    }

    #[test]
    fn a_database_counts_beside_another_and_one_that_says_nothing_does_not() {
        let dir = debian();
        let root = dir.path();
        put(root, "var/lib/rpm/rpmdb.sqlite", "one");
        let before = identity(root);
        assert!(before.text.contains(" rpm "), "{before:?}");
        put(root, "var/lib/rpm/rpmdb.sqlite-wal", "");
        assert_eq!(identity(root), before, "nothing is in it");
        put(root, "var/lib/pacman/local/zlib-1.3-1/desc", "");
        assert!(identity(root).text.contains(" pacman "));
        let before = identity(root);
        put(root, "var/lib/rpm/rpmdb.sqlite-wal", "installed, and some program reads the database");
        assert_ne!(identity(root), before);
        // As `dpkg` comes where another manager rules.
        put(root, "var/lib/dpkg/status", "");
        for place in ["var/lib/rpm", "var/lib/pacman", "var/lib/dpkg/info"] {
            ops::remove_all(&root.join(place)).expect("it can go");
        }
        assert!(!identity(root).exact);
        // Where one place leads to the other.
        put(root, "usr/lib/sysimage/rpm/Packages.db", "one");
        let before = identity(root).text;
        link(root, "var/lib/rpm", "../../usr/lib/sysimage/rpm");
        assert_eq!(identity(root).text, before);
    }
}
