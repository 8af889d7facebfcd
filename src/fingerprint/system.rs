//! Identity of the system a task sees (`/usr`, `/bin`, `/lib*`), taken from the package database. Runs no package manager.

use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::fs::ops;

/// Package databases that are one file: name and place.
const DATABASES: [(&str, &str); 4] = [
    ("dpkg", "var/lib/dpkg/status"),
    ("apk", "lib/apk/db/installed"),
    ("rpm", "var/lib/rpm/rpmdb.sqlite"),
    ("rpm", "usr/lib/sysimage/rpm/rpmdb.sqlite"),
];

/// What is known of the system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemIdentity {
    /// Text that enters keys: the kind of database and a digest.
    pub text: String,
    /// Whether a package database was found. Without one, changes below `/usr` are not seen.
    pub exact: bool,
}

/// Reads the identity of the system below `root` (`/`, but for tests). `digest` digests one file, perhaps from memory.
///
/// Cost: one `stat` per known database, and one read of it when it changed.
pub fn identify(root: &Path, digest: &dyn Fn(&Path) -> Option<Digest>) -> SystemIdentity {
    for (name, place) in DATABASES {
        if let Some(digest) = digest(&root.join(place)) {
            return SystemIdentity { text: format!("{name} {digest}"), exact: true };
        }
    }
    // Pacman keeps one directory per installed package, named with its version.
    if let Ok(entries) = ops::read_dir(&root.join("var/lib/pacman/local")) {
        let mut encoder = Encoder::new();
        for entry in &entries {
            encoder.bytes(entry.name.as_encoded_bytes());
        }
        return SystemIdentity { text: format!("pacman {}", Digest::of(encoder.as_slice())), exact: true };
    }
    if let Ok(current) = ops::read_link(&root.join("run/current-system")) {
        return SystemIdentity { text: format!("nixos {}", current.display()), exact: true };
    }
    let release: PathBuf = root.join("etc/os-release");
    let text = ops::read(&release).map(|bytes| Digest::of(&bytes).to_hex()).unwrap_or_else(|_| "unknown".into());
    SystemIdentity { text: format!("os-release {text}"), exact: false }
}

/// `linux/x86_64` and the like.
pub fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)
}
