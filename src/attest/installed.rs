//! The packages that an image itself says are installed: the databases of package managers out of its layers. Puts nothing on a disk.
//!
//! Where the databases lie: dpkg(1) `/var/lib/dpkg/status`, for images without dpkg one file for each package in
//! `/var/lib/dpkg/status.d`; apk(8) `/lib/apk/db/installed`. How an upper layer hides what is in a lower one: OCI image specification,
//! "Image Layer Filesystem Changeset".

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;

use crate::attest::model::Component;
use crate::attest::packages::{alpine_packages, debian_packages};
use crate::fs::archive::{ArchiveError, Member, decompressed, read_tar};
use crate::image::wire::Descriptor;
use crate::image::{BlobDigest, Blobs, ImageError};

/// Most bytes of a layer, unpacked.
const LAYER_BYTES_MAX: u64 = 128 * 1024 * 1024 * 1024;
/// Most bytes of one database; that of 3,000 packages has about 3 MiB.
const DATABASE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most bytes of all databases of one layer.
const ALL_BYTES_MAX: u64 = 256 * 1024 * 1024;

const DPKG: &str = "var/lib/dpkg/status";
const DPKG_DIR: &str = "var/lib/dpkg/status.d";
const APK: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
/// Which distribution it is (os-release(5)); the first that is a file.
const RELEASE: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];

/// Reads databases of layers, each layer once.
pub struct Installed<'a> {
    blobs: &'a Blobs,
    layers: BTreeMap<String, Arc<Layer>>,
}

/// What one layer says.
#[derive(Default)]
struct Layer {
    /// Databases by path.
    files: BTreeMap<String, Vec<u8>>,
    /// What it takes away, with all below.
    gone: BTreeSet<String>,
    /// Of which directories it takes away all that is below.
    emptied: BTreeSet<String>,
}

impl<'a> Installed<'a> {
    /// Nothing was read yet.
    pub fn new(blobs: &'a Blobs) -> Self {
        Self { blobs, layers: BTreeMap::new() }
    }

    /// The packages of an image with these layers, lowest first, in an order of their own.
    ///
    /// Cost: every layer that was not read before is unpacked once. Memory: its databases.
    pub fn packages(&mut self, layers: &[Descriptor]) -> Result<Vec<Component>, ImageError> {
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (position, descriptor) in layers.iter().enumerate() {
            let layer = self.layer(descriptor).map_err(|error| match error {
                ImageError::Archive(cause) => ImageError::Layer { number: position + 1, cause },
                other => other,
            })?;
            files.retain(|path, _| !layer.hides(path));
            files.extend(layer.files.iter().map(|(path, bytes)| (path.clone(), bytes.clone())));
        }
        let distribution = RELEASE.iter().find_map(|path| distribution(files.get(*path)?));
        let distribution = distribution.as_deref().unwrap_or("debian");
        let mut found = Vec::new();
        for (path, bytes) in &files {
            match path.as_str() {
                path if APK.contains(&path) => found.extend(alpine_packages(bytes)),
                path if RELEASE.contains(&path) => {}
                _ => found.extend(debian_packages(bytes, distribution)),
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn layer(&mut self, descriptor: &Descriptor) -> Result<Arc<Layer>, ImageError> {
        if let Some(known) = self.layers.get(&descriptor.digest) {
            return Ok(Arc::clone(known));
        }
        let mut layer = Layer::default();
        let mut left = ALL_BYTES_MAX;
        let packed = self.blobs.open(&BlobDigest::parse(&descriptor.digest)?)?;
        let broken = |error: io::Error| ArchiveError::broken(&error);
        let mut plain = decompressed(packed).map_err(broken)?;
        read_tar(&mut plain, LAYER_BYTES_MAX, &mut |name, member| layer.take(name, member, &mut left))?;
        // To its end, where the store tells whether it was what it should be.
        io::copy(&mut plain, &mut io::sink()).map_err(broken)?;
        let layer = Arc::new(layer);
        self.layers.insert(descriptor.digest.clone(), Arc::clone(&layer));
        Ok(layer)
    }
}

impl Layer {
    fn take(&mut self, name: &str, member: Member<'_>, left: &mut u64) -> Result<(), ArchiveError> {
        let Some(path) = plain(name) else { return Ok(()) };
        let (dir, last) = path.rsplit_once('/').unwrap_or(("", &path));
        if last == ".wh..wh..opq" {
            self.emptied.insert(dir.to_owned());
            return Ok(());
        }
        if let Some(hidden) = last.strip_prefix(".wh.") {
            let hidden = if dir.is_empty() { hidden.to_owned() } else { format!("{dir}/{hidden}") };
            if is_above_database(&hidden) || is_database(&hidden) {
                self.gone.insert(hidden);
            }
            return Ok(());
        }
        match member {
            Member::Dir { .. } => {}
            Member::File { content, .. } if is_database(&path) => {
                let mut bytes = Vec::new();
                let most = DATABASE_BYTES_MAX.min(*left);
                let read = content.take(most + 1).read_to_end(&mut bytes);
                read.map_err(|error| ArchiveError::broken(&error))?;
                if bytes.len() as u64 > most {
                    return Err(ArchiveError::refused(name, "a list of packages that is too large to be read"));
                }
                *left -= bytes.len() as u64;
                self.files.insert(path, bytes);
            }
            Member::HardLink { target } if is_database(&path) => {
                let linked = plain(&target).and_then(|target| self.files.get(&target).cloned());
                self.gone.insert(path.clone());
                self.files.extend(linked.map(|bytes| (path, bytes)));
            }
            Member::File { .. } | Member::Link { .. } | Member::HardLink { .. } | Member::Special => {
                if is_database(&path) || is_above_database(&path) {
                    self.gone.insert(path);
                }
            }
        }
        Ok(())
    }

    /// Whether a file of a lower layer is not seen through this one.
    fn hides(&self, path: &str) -> bool {
        let above =
            |dir: &String| dir.is_empty() || path.strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/'));
        self.gone.iter().any(|gone| gone == path || above(gone)) || self.emptied.iter().any(above)
    }
}

/// A name in an archive as a path from the root; `None` for one that leads elsewhere.
fn plain(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    (!parts.is_empty() && !parts.contains(&"..")).then(|| parts.join("/"))
}

fn is_database(path: &str) -> bool {
    let in_dir = path.strip_prefix(DPKG_DIR).and_then(|rest| rest.strip_prefix('/'));
    path == DPKG
        || APK.contains(&path)
        || RELEASE.contains(&path)
        || in_dir.is_some_and(|name| !name.contains('/') && !name.ends_with(".md5sums"))
}

/// Whether a database may lie below a path.
fn is_above_database(path: &str) -> bool {
    let is_below = |database: &&str| database.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    path == DPKG_DIR || [DPKG, DPKG_DIR].iter().chain(&APK).chain(&RELEASE).any(is_below)
}

/// `ID` of a file in the format of os-release(5).
fn distribution(release: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(release);
    let id = text.lines().find_map(|line| line.trim().strip_prefix("ID="))?.trim_matches(['"', '\'']);
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (!id.is_empty() && id.len() <= 64 && id.bytes().all(is_fine)).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n";

    /// A layer of files, `None` for a link to nowhere.
    fn layer(files: &mut BTreeMap<String, Vec<u8>>, members: &[(&str, Option<&str>)]) -> Descriptor {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, text) in members {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            match text {
                Some(text) => {
                    header.set_size(text.len() as u64);
                    archive.append_data(&mut header, name, text.as_bytes()).expect("a member");
                }
                None => {
                    header.set_size(0);
                    header.set_entry_type(tar::EntryType::Symlink);
                    archive.append_link(&mut header, name, "nowhere").expect("a member");
                }
            }
        }
        let bytes = archive.into_inner().expect("a vector takes it");
        let digest = BlobDigest::of(&bytes);
        let descriptor = Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar".into(),
            digest: digest.to_string(),
            size: bytes.len() as u64,
            platform: None,
            artifact_type: None,
            annotations: None,
        };
        files.insert(digest.path(), bytes);
        descriptor
    }

    fn told(layers: &[&[(&str, Option<&str>)]]) -> Vec<String> {
        let mut files = BTreeMap::new();
        let layers: Vec<_> = layers.iter().map(|members| layer(&mut files, members)).collect();
        let blobs = Blobs::Memory(Arc::new(files));
        let found = Installed::new(&blobs).packages(&layers).expect("layers that can be read");
        found.into_iter().map(|one| one.purl.expect("packages have one")).collect()
    }

    #[test]
    fn the_databases_of_an_image_are_found() {
        let debian = [("./var/lib/dpkg/status", Some(STATUS)), ("usr/lib/os-release", Some("NAME=x\nID=\"ubuntu\"\n"))];
        assert_eq!(told(&[&debian]), ["pkg:deb/ubuntu/a@1?arch=amd64"]);
        let distroless = [
            ("var/lib/dpkg/status.d/b", Some("Package: b\nVersion: 2\n")),
            ("var/lib/dpkg/status.d/b.md5sums", Some("Package: no\nVersion: 2\n")),
            ("etc/os-release", None),
        ];
        assert_eq!(told(&[&distroless]), ["pkg:deb/debian/b@2"]);
        assert_eq!(told(&[&[("lib/apk/db/installed", Some("P:musl\nV:1\n"))]]), ["pkg:apk/alpine/musl@1"]);
        assert_eq!(told(&[&[("srv/var/lib/dpkg/status", Some(STATUS))]]), [""; 0]);
    }

    #[test]
    fn the_uppermost_layer_decides() {
        let lower: &[(&str, Option<&str>)] = &[("var/lib/dpkg/status", Some(STATUS))];
        let check = |upper: (&str, Option<&str>), expect: &[&str]| {
            assert_eq!(told(&[lower, &[upper]]), expect, "{}", upper.0);
        };
        let kept = ["pkg:deb/debian/a@1?arch=amd64"];
        check(("srv/x", Some("")), &kept);
        check(("var/lib/dpkg/status", Some("Package: c\nVersion: 3\n")), &["pkg:deb/debian/c@3"]);
        for gone in ["var/lib/dpkg/.wh.status", "var/.wh.lib", ".wh.var", "var/lib/.wh..wh..opq", ".wh..wh..opq"] {
            check((gone, Some("")), &[]);
        }
        check(("var/lib", None), &[]);
        check(("var/lib/dpkg/.wh.statu", Some("")), &kept);
        check(("va", None), &kept);
    }
}
