//! Why an image was refused. Knows no way out that lies with a task: whoever asked for the image does.

use crate::fs::archive::ArchiveError;
use crate::fs::ops::FsError;
use crate::store::StoreError;

/// Why an image was refused.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The directory holds no image.
    #[error("it holds no image: neither `oci-layout` with `index.json` nor the `manifest.json` of `docker save`")]
    NotAnImage,
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
    /// Whether the disk or the store is at fault, rather than the image.
    pub fn is_of_the_machine(&self) -> bool {
        match self {
            Self::Fs(_) | Self::Store(_) => true,
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
