//! From a recipe to the bytes of a layer and its digests, piece by piece. Knows no store.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::base::digest::Digest;
use crate::image::blob::BlobDigest;
use crate::image::compress::{self, Compression, Compressor};
use crate::image::error::ImageError;
use crate::image::recipe::{Content, LayerRecipe};
use crate::image::tar_writer::{Kind, TarWriter};
use crate::image::wire::Descriptor;

const COPY_BUFFER_BYTES: usize = 128 * 1024;

/// Opens the bytes of a file by digest. What it gives ends with an error if the bytes are not those of the digest.
pub type Open<'a> = &'a (dyn Fn(&Digest) -> Result<Box<dyn Read + Send>, ImageError> + Sync);

/// A layer that was packed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackedLayer {
    /// Of its archive.
    pub diff_id: BlobDigest,
    /// Of the archive compressed.
    pub digest: BlobDigest,
    /// Bytes of the archive compressed.
    pub size: u64,
    /// Media type of it compressed.
    pub media_type: &'static str,
}

impl PackedLayer {
    /// What names it in a manifest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.to_owned(),
            digest: self.digest.to_string(),
            size: self.size,
            platform: None,
            artifact_type: None,
            annotations: None,
        }
    }
}

/// Writes the layer of a recipe to `out`. After an error what was written is of no use.
///
/// Cost: every file is read once; memory is that of [`Compressor`]. Compresses on the threads of the rayon pool it is called in.
pub fn pack_layer(
    recipe: &LayerRecipe,
    compression: Compression,
    open: Open<'_>,
    out: &mut dyn Write,
) -> Result<PackedLayer, ImageError> {
    let lines = recipe.lines()?;
    let mut archive = TarWriter::new(Packing::new(compression, out)?, recipe.epoch())?;
    for line in lines.values() {
        let mut content;
        let kind = match line.content {
            Content::Opaque if line.is_mark => Kind::Opaque,
            Content::Dir | Content::Opaque => Kind::Dir,
            Content::File { digest, size } => {
                content = open(digest)?;
                Kind::File { size: *size, content: &mut *content }
            }
            Content::Link { target } => Kind::Link { target },
            Content::Hard { to } => Kind::Hard { to },
            Content::Whiteout => Kind::Whiteout,
        };
        archive.append(&line.path, line.access, kind)?;
    }
    archive.finish()?.finish(compression)
}

/// Compresses a layer that is an archive already, as [`pack_layer`] does: with the same archive, the same bytes.
pub fn pack_archive(
    archive: &mut dyn Read,
    compression: Compression,
    out: &mut dyn Write,
) -> Result<PackedLayer, ImageError> {
    let mut packing = Packing::new(compression, out)?;
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        match archive.read(&mut buffer) {
            Ok(0) => return packing.finish(compression),
            Ok(count) => packing.write_all(&buffer[..count]).map_err(ImageError::Output)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(ImageError::Content { path: "layer.tar".into(), cause }),
        }
    }
}

/// Takes an archive, and digests it before and after it is compressed.
struct Packing<'a> {
    /// `None` if it is not compressed: both digests are one.
    plain: Option<Sha256>,
    packed: Compressor<Digesting<'a>>,
}

struct Digesting<'a> {
    out: &'a mut dyn Write,
    hasher: Sha256,
    size: u64,
}

impl<'a> Packing<'a> {
    fn new(compression: Compression, out: &'a mut dyn Write) -> Result<Self, ImageError> {
        compress::self_test()?;
        let digesting = Digesting { out, hasher: Sha256::new(), size: 0 };
        let packed = Compressor::new(compression, digesting).map_err(ImageError::Output)?;
        Ok(Self { plain: (compression != Compression::None).then(Sha256::new), packed })
    }

    fn finish(self, compression: Compression) -> Result<PackedLayer, ImageError> {
        let Digesting { out, hasher, size } = self.packed.finish().map_err(ImageError::Output)?;
        out.flush().map_err(ImageError::Output)?;
        let digest = BlobDigest::from_sha256(hasher.finalize().into());
        let diff_id = self.plain.map(|hasher| BlobDigest::from_sha256(hasher.finalize().into()));
        let diff_id = diff_id.unwrap_or_else(|| digest.clone());
        Ok(PackedLayer { diff_id, digest, size, media_type: compression.media_type() })
    }
}

impl Write for Packing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(hasher) = &mut self.plain {
            hasher.update(bytes);
        }
        self.packed.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Digesting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
