//! A layout as one archive that podman, skopeo, containerd and docker load, or as a directory. Takes only blobs that its index leads
//! to, and checks each on the way. Knows no image that is not in a layout.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::fs::atomic;
use crate::fs::ops;
use crate::image::assemble::{REF_NAME, layout_mark};
use crate::image::blob::{BlobDigest, Hasher};
use crate::image::blobs::Blobs;
use crate::image::error::ImageError;
use crate::image::layout::{INDEX_FILE, LAYOUT_FILE, SAVED_FILE};
use crate::image::reach::{Reached, ReachedImage, reach};
use crate::image::tar_writer::{Access, Kind, TarWriter};
use crate::image::wire::{SavedImage, write};

/// The annotation by which containerd, and docker with it, know the whole name of an image.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

const COPY_BUFFER_BYTES: usize = 128 * 1024;

/// What an archive is called and what of it is for docker.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArchiveOptions<'a> {
    /// The name under which it is loaded, as `registry.example/app:1`; without a tag, `latest` is meant.
    pub name: Option<&'a str>,
    /// The platforms of which docker, where it does not know layouts, loads the image; none for all. The first has the name.
    pub platforms: &'a [Platform],
}

/// Writes a layout as one archive: `oci-layout` and `index.json` beside the blobs, and the `manifest.json` of `docker save`.
///
/// The same bytes for the same layout and options. After an error what was written is of no use.
pub fn write_archive(blobs: &Blobs, options: ArchiveOptions<'_>, out: &mut dyn Write) -> Result<(), ImageError> {
    let name = options.name.map(tagged).transpose()?;
    let mut reached = reach(blobs)?;
    let saved = saved_images(&reached, options.platforms, name.as_deref())?;
    if let (Some(name), [entry]) = (&name, reached.index.manifests.as_mut_slice()) {
        let tag = name.rsplit(':').next().unwrap_or_default();
        let annotations = entry.annotations.get_or_insert_default();
        annotations.insert(CONTAINERD_NAME.into(), name.clone());
        annotations.insert(REF_NAME.into(), tag.to_owned());
    }
    let mut archive = TarWriter::new(out, 0)?;
    let mut opened = BTreeSet::new();
    for (digest, size) in &reached.blobs {
        for dir in [RelPath::root().child("blobs"), above(digest)] {
            if opened.insert(dir.clone()) {
                archive.append(&dir, Access::DIR, Kind::Dir)?;
            }
        }
        let mut content = Checked::open(blobs, digest)?;
        archive.append(&path_of(digest), Access::FILE, Kind::File { size: *size, content: &mut content })?;
        content.check(digest)?;
    }
    let documents = [(INDEX_FILE, write(&reached.index)), (SAVED_FILE, write(&saved)), (LAYOUT_FILE, layout_mark())];
    for (name, bytes) in documents {
        let kind = Kind::File { size: bytes.len() as u64, content: &mut bytes.as_slice() };
        archive.append(&RelPath::root().child(name), Access::FILE, kind)?;
    }
    archive.finish()?.flush().map_err(ImageError::Output)
}

fn path_of(digest: &BlobDigest) -> RelPath {
    RelPath::parse(&digest.path()).expect("algorithms and hexadecimal digits are names")
}

fn above(digest: &BlobDigest) -> RelPath {
    path_of(digest).parent().unwrap_or_default()
}

/// A name with a tag.
fn tagged(name: &str) -> Result<String, ImageError> {
    let last = name.rsplit('/').next().unwrap_or_default();
    let fine = |letter: char| letter.is_ascii_alphanumeric() || ".-_/:".contains(letter);
    if last.is_empty() || last.starts_with(':') || last.ends_with(':') || !name.chars().all(fine) {
        return Err(ImageError::LoadName(name.escape_debug().to_string()));
    }
    Ok(if last.contains(':') { name.to_owned() } else { format!("{name}:latest") })
}

/// What docker loads.
fn saved_images(reached: &Reached, platforms: &[Platform], name: Option<&str>) -> Result<Vec<SavedImage>, ImageError> {
    let mut chosen: Vec<&ReachedImage> = Vec::new();
    for platform in platforms {
        let found = reached.images.iter().find(|image| image.platform == *platform);
        chosen.push(found.ok_or_else(|| {
            let found = reached.images.iter().map(|image| image.platform.to_string()).collect();
            ImageError::Platform { wanted: platform.to_string(), found }
        })?);
    }
    if platforms.is_empty() {
        chosen.extend(&reached.images);
    }
    let mut name = name.map(|name| vec![name.to_owned()]);
    let mut saved = |image: &ReachedImage| {
        let path = |digest: &str| BlobDigest::parse(digest).map(|digest| digest.path());
        let layers = image.manifest.layers.iter().map(|layer| path(&layer.digest)).collect::<Result<_, _>>()?;
        // Two images of one name would take it from each other.
        Ok(SavedImage { config: path(&image.manifest.config.digest)?, repo_tags: name.take(), layers })
    };
    chosen.into_iter().map(&mut saved).collect()
}

/// Writes a layout as a directory, which must be empty or not exist. It is there whole or not at all.
pub fn write_layout(blobs: &Blobs, dir: &Path) -> Result<(), ImageError> {
    if ops::if_there(ops::symlink_metadata(dir))?.is_some()
        && ops::read_dir(dir).map_or(true, |names| !names.is_empty())
    {
        return Err(ImageError::Occupied(dir.to_owned()));
    }
    let reached = reach(blobs)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        ops::create_dir_all(parent)?;
    }
    let beside = atomic::temporary_beside(dir);
    let written = fill_layout(blobs, &reached, &beside).and_then(|()| Ok(ops::rename(&beside, dir)?));
    if written.is_err() {
        // What went wrong is told; that something could not be cleared away after it would hide it.
        drop(ops::remove_all(&beside));
    }
    written
}

fn fill_layout(blobs: &Blobs, reached: &Reached, dir: &Path) -> Result<(), ImageError> {
    ops::create_dir(dir)?;
    for (digest, size) in &reached.blobs {
        let path = dir.join(digest.path());
        ops::create_dir_all(&dir.join(above(digest).as_str()))?;
        let mut file = ops::NewFile::create(&path, 0o644)?;
        let mut content = Checked::open(blobs, digest)?;
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        // One byte more than there may be, so that a blob that never ends is noticed.
        let mut bounded = (&mut content).take(size.saturating_add(1));
        loop {
            match bounded.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    file.write_all(&buffer[..count]).map_err(|cause| ops::FsError::new("write", &path, cause))?
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(ImageError::Content { path: digest.path(), cause }),
            }
        }
        content.check(digest)?;
        file.sync()?;
    }
    ops::write(&dir.join(INDEX_FILE), &blobs.index()?)?;
    ops::write(&dir.join(LAYOUT_FILE), &layout_mark())?;
    ops::sync_dir(dir)?;
    Ok(())
}

/// A blob whose digest is taken as it is read.
struct Checked {
    from: Box<dyn Read + Send>,
    hasher: Hasher,
}

impl Checked {
    fn open(blobs: &Blobs, digest: &BlobDigest) -> Result<Self, ImageError> {
        Ok(Self { from: blobs.open(digest)?, hasher: digest.hasher_like() })
    }

    fn check(self, digest: &BlobDigest) -> Result<(), ImageError> {
        digest.check(&self.hasher.finish(), &digest.path())
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
