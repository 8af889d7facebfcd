//! Why an image was refused. Knows no way out that lies with a task: whoever asked for the image does.

use std::io;
use std::path::PathBuf;

use crate::fs::archive::ArchiveError;
use crate::fs::ops::FsError;
use crate::store::StoreError;

/// Why an image was refused.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The directory holds no image.
    #[error("it holds no image: neither `oci-layout` with `index.json` nor the `manifest.json` of `docker save`")]
    NotAnImage,
    /// A layout without one of its files.
    #[error("it is no OCI layout: it has no `{0}`")]
    NoLayout(&'static str),
    /// One of two images that are compared.
    #[error("on the {side} side, {cause}")]
    Side {
        /// `first` or `second`.
        side: &'static str,
        /// What is wrong with it.
        cause: Box<ImageError>,
    },
    /// A document is not what it should be.
    #[error("the {what} `{name}` of the image cannot be read: {cause}")]
    Malformed {
        /// Which kind of document.
        what: &'static str,
        /// Its file or digest.
        name: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A blob is not there.
    #[error("the image lacks `{0}`, which it names")]
    Missing(String),
    /// A blob is not what its digest says.
    #[error("`{name}` of the image has other content: expected {expected}, found {found}")]
    Mismatch {
        /// The blob's file.
        name: String,
        /// What the image says.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A digest of a kind we cannot check.
    #[error("`{0}` is no digest; known are sha256 and sha512, in lower-case hexadecimal digits")]
    Digest(String),
    /// Not for the platform that is meant.
    #[error("the image is not for {wanted}; it has {}", several(.found))]
    Platform {
        /// What is meant.
        wanted: String,
        /// What is there.
        found: Vec<String>,
    },
    /// More than one image is for the platform.
    #[error("there are several images for {wanted}: {}", several(.found))]
    Several {
        /// What is meant.
        wanted: String,
        /// Their names.
        found: Vec<String>,
    },
    /// A layer has something that is not applied.
    #[error("layer {number} of the image: {cause}")]
    Layer {
        /// Its number, from 1.
        number: usize,
        /// What.
        cause: ArchiveError,
    },
    /// Something that no layer of ours holds.
    #[error("a layer cannot hold `{path}`: {why}")]
    Entry {
        /// Where it would lie.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file that is to be packed has another length than was said.
    #[error("`{path}` was to have {declared} bytes and has {found}")]
    Length {
        /// Where it lies in the layer.
        path: String,
        /// What was said.
        declared: u64,
        /// What came.
        found: String,
    },
    /// A file that is to be packed cannot be read.
    #[error("cannot read `{path}` to pack it: {cause}")]
    Content {
        /// Where it lies in the layer.
        path: String,
        /// What the system or the store said.
        cause: io::Error,
    },
    /// What is packed cannot be written.
    #[error("cannot write what is packed: {0}")]
    Output(io::Error),
    /// A compressor whose bytes are not those of the format.
    #[error(
        "no images can be built with this program: its {0} compressor gives other bytes than the image format has; take a build of drystone with the compressors it pins"
    )]
    Compressor(&'static str),
    /// An image that cannot be put together as asked for.
    #[error("the image cannot be put together: {0}")]
    Assembly(String),
    /// A layout that would be written over something else.
    #[error("`{}` is there and is no empty directory; take another place or remove it", .0.display())]
    Occupied(PathBuf),
    /// A name under which no image is loaded.
    #[error("`{0}` is no name with which an image is loaded; such are `app`, `app:1`, `registry.example/app:1`")]
    LoadName(String),
    /// The archive it lies in.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImageError {
    /// What is wrong with the one of two images that is called so.
    pub(super) fn on(self, side: &'static str) -> Self {
        Self::Side { side, cause: Box::new(self) }
    }

    /// Whether the disk or the store is at fault, rather than the image.
    pub fn is_of_the_machine(&self) -> bool {
        match self {
            Self::Fs(_) | Self::Store(_) | Self::Output(_) | Self::Compressor(_) => true,
            // Other bytes than there were is nobody's fault but of who changed them.
            Self::Content { cause, .. } => cause.kind() != io::ErrorKind::InvalidData,
            Self::Side { cause, .. } => cause.is_of_the_machine(),
            Self::Archive(error) | Self::Layer { cause: error, .. } => error.is_of_the_machine(),
            _ => false,
        }
    }
}

fn several(names: &[String]) -> String {
    const TOLD_MAX: usize = 12;
    if names.is_empty() {
        return "none for any platform".into();
    }
    let mut told: Vec<&str> = names.iter().take(TOLD_MAX).map(String::as_str).collect();
    if names.len() > TOLD_MAX {
        told.push("and others");
    }
    told.join(", ")
}
