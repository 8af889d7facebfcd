//! Layers packed, each once for a store. Knows no image.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Instant;

use crate::base::digest::{Digest, Digester};
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::event::Log;
use crate::engine::image_memo::{Memo, bytes_of, file_of};
use crate::engine::image_task::Trouble;
use crate::engine::prepare::Prepared;
use crate::engine::rebuild::Occasion;
use crate::engine::session::Session;
use crate::engine::waiting;
use crate::fs::dir::Dir;
use crate::fs::ops;
use crate::fs::out::OutFile;
use crate::image::compress::Compression;
use crate::image::pack::{PackedLayer, pack_layer};
use crate::image::recipe::{Content, LayerRecipe};
use crate::image::{BlobDigest, ImageError};
use crate::manifest::model::Expected;
use crate::process::cancel::Cancel;
use crate::sandbox::spec::Usage;
use crate::store::{Store, StoreError};

/// Longest list of a package that is read, in bytes.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// A layer that is in the store.
pub struct Packed {
    /// Its digests.
    pub layer: PackedLayer,
    /// Digest and length of its blob in the store.
    pub content: (Digest, u64),
}

/// Packs layers from the files of a workspace and from the store.
pub struct Packer<'a, 'w> {
    session: &'a Session<'w>,
    /// Where source files lie, by content.
    sources: HashMap<Digest, RelPath>,
    compression: Compression,
    /// Whether layers that the store has serve, and new ones are kept.
    is_memoized: bool,
}

impl<'a, 'w> Packer<'a, 'w> {
    /// One for an image.
    pub fn new(session: &'a Session<'w>, prepared: &Prepared, compression: Compression) -> Self {
        let all = prepared.inputs.all();
        let sources = prepared.signatures.iter().filter_map(|(path, _)| match all.get(path) {
            Some(Entry::File { digest, .. }) => Some((*digest, path.clone())),
            _ => None,
        });
        Self { session, sources: sources.collect(), compression, is_memoized: true }
    }

    /// The same, which packs everything itself where it is to be made once more.
    pub fn on(self, occasion: Occasion<'_>) -> Self {
        Self { is_memoized: !matches!(occasion, Occasion::Rebuild(_)), ..self }
    }

    /// The packed layer, made unless the store has it.
    pub fn pack(&self, recipe: &LayerRecipe) -> Result<Packed, Trouble> {
        if !self.is_memoized {
            return self.pack_new(recipe).map(|(packed, _)| packed);
        }
        let expect = Expected::Blake3(recipe.packed_digest(self.compression));
        let memo = Memo::of(expect, &format!("layer {}", self.compression.id()));
        if let Some(known) = self.known(&memo)? {
            return Ok(known);
        }
        let lock = waiting::lock_action(self.session, &memo.key)?.ok_or(Trouble::Cancelled)?;
        // Another thread or process may have packed it meanwhile.
        if let Some(known) = self.known(&memo)? {
            return Ok(known);
        }
        let started = Instant::now();
        let (packed, listing) = self.pack_new(recipe)?;
        let told = ("a layer".to_owned(), started, &Log::new(), Usage::default());
        memo.keep(self.session, &listing, told, Some(lock))?;
        Ok(packed)
    }

    fn pack_new(&self, recipe: &LayerRecipe) -> Result<(Packed, Listing), Trouble> {
        let store = &self.session.store;
        let stage = store.stage()?;
        let file = stage.path().join("layer");
        let layer = self.write(recipe, &file)?;
        let content = store.take_file(&file)?;
        let listing = listing_of(self.session, &layer, content)?;
        Ok((Packed { layer, content }, listing))
    }

    /// The text of a file of a layer.
    pub fn text(&self, recipe: &LayerRecipe, path: &RelPath) -> Result<String, Trouble> {
        let Some(Content::File { digest, .. }) = recipe.members().get(path).map(|member| &member.content) else {
            return Ok(String::new());
        };
        let mut bytes = Vec::new();
        let mut file = self.open(digest)?.take(TEXT_BYTES_MAX + 1);
        file.read_to_end(&mut bytes).map_err(|cause| ImageError::Content { path: path.to_string(), cause })?;
        if bytes.len() as u64 > TEXT_BYTES_MAX {
            let cause = io::Error::other("it is longer than any list of a package");
            return Err(ImageError::Content { path: path.to_string(), cause }.into());
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn known(&self, memo: &Memo) -> Result<Option<Packed>, StoreError> {
        let Some((listing, _)) = memo.find(self.session)? else { return Ok(None) };
        let Some(Entry::File { digest, size, .. }) = listing.get(&RelPath::root().child(LAYER)) else {
            return Ok(None);
        };
        let content = (*digest, *size);
        let text = bytes_of(self.session, &listing, DIGESTS)?.and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(text) = text else { return Ok(None) };
        let mut lines = text.lines().map(|line| BlobDigest::parse(line).ok());
        let (Some(Some(diff_id)), Some(Some(digest))) = (lines.next(), lines.next()) else { return Ok(None) };
        let layer = PackedLayer { diff_id, digest, size: content.1, media_type: self.compression.media_type() };
        Ok(Some(Packed { layer, content }))
    }

    fn write(&self, recipe: &LayerRecipe, path: &Path) -> Result<PackedLayer, Trouble> {
        let disk = |error: ops::FsError| Trouble::Machine(error.to_string());
        let out = OutFile::create(path, 0o600).map_err(disk)?;
        let root = &self.session.root;
        let open = |digest: &Digest| open(&self.session.store, root, &self.sources, digest);
        // On the pool for such work, which packs the blocks of a layer at the same time.
        let mut out = Cancellable { out, cancel: &self.session.cancel };
        let cpu = &self.session.cpu;
        let pack = || cpu.install(|| pack_layer(recipe, self.compression, &open, &mut out));
        let packed = waiting::apart(pack).map_err(|error| Trouble::Machine(error.to_string()))?;
        if self.session.cancel.is_cancelled() {
            return Err(Trouble::Cancelled);
        }
        let (packed, out) = (packed?, out.out);
        out.place().map_err(disk)?;
        Ok(packed)
    }

    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, ImageError> {
        open(&self.session.store, &self.session.root, &self.sources, digest)
    }
}

/// The names of the outputs of packing a layer: the blob, and a file with the digest of the archive and that of the blob, a line each.
const LAYER: &str = "layer";
const DIGESTS: &str = "digests";

fn listing_of(
    session: &Session<'_>,
    layer: &PackedLayer,
    (digest, size): (Digest, u64),
) -> Result<Listing, StoreError> {
    let digests = file_of(session, format!("{}\n{}\n", layer.diff_id, layer.digest).as_bytes())?;
    let blob = Entry::File { digest, size, executable: false };
    Ok([(LAYER, blob), (DIGESTS, digests)].map(|(name, entry)| (RelPath::root().child(name), entry)).into())
}

/// Opens content: a source file where it is one, else what the store has.
fn open(
    store: &Store,
    root: &Dir,
    sources: &HashMap<Digest, RelPath>,
    digest: &Digest,
) -> Result<Box<dyn Read + Send>, ImageError> {
    let Some(path) = sources.get(digest) else {
        let missing = || ImageError::Missing(format!("the content {digest}"));
        return Ok(Box::new(store.reader(digest)?.ok_or_else(missing)?));
    };
    let above = path.parent().unwrap_or_default();
    let (file, _) = root.open_beneath(&above)?.open_file(path.file_name())?;
    Ok(Box::new(Checked { file: Box::new(file), digester: Some(Digester::default()), digest: *digest }))
}

/// A source file is no longer what it was when the image was begun.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it has other content now")]
pub struct SourceChanged;

/// A source file, which must have the content it had when it was digested.
struct Checked {
    file: Box<dyn Read + Send>,
    digester: Option<Digester>,
    digest: Digest,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        match &mut self.digester {
            Some(digester) if count > 0 => digester.update(&buffer[..count]),
            Some(digester) if !buffer.is_empty() => {
                if digester.finish() != self.digest {
                    return Err(io::Error::other(SourceChanged));
                }
                self.digester = None;
            }
            Some(_) | None => {}
        }
        Ok(count)
    }
}

/// A file that takes nothing more once the run is stopped.
struct Cancellable<'a> {
    out: OutFile,
    cancel: &'a Cancel,
}

impl Write for Cancellable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
