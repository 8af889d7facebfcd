//! Where the blobs of an image lie: in an OCI layout in a directory, or in one that is a tree of the store. Checks digests of what it
//! reads whole; what is read piece by piece is for the reader to check.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::fs::ops;
use crate::image::blob::{BlobDigest, digest_like, open, read_document};
use crate::image::error::ImageError;
use crate::image::layout::{INDEX_FILE, check_size};
use crate::image::wire::DOCUMENT_BYTES_MAX;
use crate::store::Store;

/// Bytes read at once where a blob is checked.
const CHECK_BUFFER_BYTES: usize = 128 * 1024;

/// Most links from one name of a blob to the next, as `docker save` once had them.
const LINKS_MAX: usize = 8;

/// An OCI layout from which blobs are read.
#[derive(Clone)]
pub enum Blobs {
    /// A directory.
    Dir(PathBuf),
    /// A tree of the store.
    Stored {
        /// The store.
        store: Arc<Store>,
        /// Its files by path within the layout.
        files: Arc<BTreeMap<String, (Digest, u64)>>,
    },
    /// In memory, for what is small.
    Memory(Arc<BTreeMap<String, Vec<u8>>>),
}

impl Blobs {
    /// A layout that lies beneath `at` in a tree of the store.
    pub fn stored(store: Arc<Store>, listing: &Listing, at: &RelPath) -> Self {
        let files = listing.iter().filter_map(|(path, entry)| match entry {
            Entry::File { digest, size, .. } => Some((path.strip_prefix(at)?.as_str().to_owned(), (*digest, *size))),
            _ => None,
        });
        Self::Stored { store, files: Arc::new(files.collect()) }
    }

    /// The bytes of `index.json`.
    pub fn index(&self) -> Result<Vec<u8>, ImageError> {
        self.document_at(INDEX_FILE).map_err(|error| match error {
            ImageError::Missing(_) => ImageError::NoLayout(INDEX_FILE),
            error => error,
        })
    }

    /// The whole of a document, which must be what its digest says.
    pub fn document(&self, digest: &BlobDigest) -> Result<Vec<u8>, ImageError> {
        let name = digest.path();
        let bytes = self.document_at(&name)?;
        digest.check(&digest_like(digest, &bytes), &name)?;
        Ok(bytes)
    }

    /// The length of a blob; `None` if it is not there.
    pub fn size(&self, digest: &BlobDigest) -> Result<Option<u64>, ImageError> {
        let name = digest.path();
        Ok(match self {
            Self::Dir(dir) => {
                let meta = match locate(dir, &name) {
                    Err(ImageError::Missing(_)) => None,
                    located => ops::if_there(ops::symlink_metadata(&located?))?,
                };
                meta.filter(|meta| meta.is_file()).map(|meta| meta.len())
            }
            Self::Stored { files, .. } => files.get(&name).map(|(_, size)| *size),
            Self::Memory(files) => files.get(&name).map(|bytes| bytes.len() as u64),
        })
    }

    /// Reads a blob to its end and compares it with its digest and this length.
    pub fn check(&self, digest: &BlobDigest, size: u64) -> Result<(), ImageError> {
        let name = digest.path();
        let found = self.size(digest)?.ok_or_else(|| ImageError::Missing(name.clone()))?;
        check_size(size, found, &name)?;
        let (mut from, mut hasher) = (self.open(digest)?, digest.hasher());
        let mut buffer = vec![0; CHECK_BUFFER_BYTES];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return digest.check(&hasher.finish(), &name),
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(ImageError::Content { path: name, cause }),
            }
        }
    }

    /// Opens a blob. What comes is not checked against its digest.
    pub fn open(&self, digest: &BlobDigest) -> Result<Box<dyn Read + Send>, ImageError> {
        self.open_at(&digest.path())
    }

    /// Opens a file by its path within the layout. Links of what `docker save` packs are followed as long as they stay inside.
    pub(super) fn open_at(&self, name: &str) -> Result<Box<dyn Read + Send>, ImageError> {
        let missing = || ImageError::Missing(name.to_owned());
        match self {
            Self::Dir(dir) => Ok(Box::new(open(&locate(dir, name)?)?.ok_or_else(missing)?)),
            Self::Stored { store, files } => {
                let (digest, _) = files.get(name).ok_or_else(missing)?;
                Ok(Box::new(store.reader(digest)?.ok_or_else(missing)?))
            }
            Self::Memory(files) => Ok(Box::new(Cursor::new(files.get(name).ok_or_else(missing)?.clone()))),
        }
    }

    /// The whole of a file by its path within the layout, checked against nothing.
    pub(super) fn document_at(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        if let Self::Dir(dir) = self {
            return read_document(&locate(dir, name)?, name);
        }
        let mut bytes = Vec::new();
        let malformed = |cause| ImageError::Malformed { what: "document", name: name.to_owned(), cause };
        let read = self.open_at(name)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| malformed(error.to_string()))?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(malformed(format!("it is larger than {DOCUMENT_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    }
}

/// Where a file of the image lies. Links are followed as long as they stay inside.
pub(super) fn locate(dir: &Path, name: &str) -> Result<PathBuf, ImageError> {
    use std::io::ErrorKind as E;
    let missing = || ImageError::Missing(name.escape_debug().to_string());
    let mut path = RelPath::parse(name).map_err(|_| missing())?;
    for _ in 0..LINKS_MAX {
        let mut disk = dir.to_owned();
        let mut link = None;
        for part in path.components() {
            if link.is_some() {
                return Err(missing()); // Behind a link.
            }
            disk.push(part);
            let meta = ops::symlink_metadata(&disk).map_err(|error| match error.cause.kind() {
                E::NotFound | E::NotADirectory | E::InvalidFilename => missing(),
                _ => error.into(),
            })?;
            link = meta.is_symlink().then(|| disk.clone());
        }
        let Some(link) = link else { return Ok(disk) };
        let target = ops::read_link(&link)?;
        let target = target.to_str().filter(|target| !target.starts_with('/')).ok_or_else(missing)?;
        let below = path.parent().unwrap_or_default();
        path = RelPath::parse(&format!("./{below}/{target}").replace(".//", "./")).map_err(|_| missing())?;
    }
    Err(missing())
}
