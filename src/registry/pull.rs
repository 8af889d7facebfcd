//! An image out of a repository into a layout. What is there afterwards is whole and checked, or not there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use crate::base::limits::FETCH_BYTES_MAX;
use crate::base::platform::Platform;
use crate::fs::ops;
use crate::image::BlobDigest;
use crate::image::layout::{INDEX_FILE, LAYOUT_FILE};
use crate::image::wire::{
    Config, DOCUMENT_BYTES_MAX, Descriptor, INDEX_ENTRIES_MAX, INDEX_TYPE, Index, LayoutMark, write,
};
use crate::registry::client::Client;
use crate::registry::documents::{Content, Document};
use crate::registry::download::{Download, Downloaded, place};
use crate::registry::error::RegistryError;
use crate::registry::push::TRANSFERS;
use crate::registry::reference::Reference;
use crate::registry::workers;

/// Deepest nesting of indexes.
const INDEX_DEPTH_MAX: usize = 4;
/// Most bytes of all documents of an image: they are held in memory. An index for a dozen platforms and its manifests have 50 KiB.
const DOCUMENTS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// By what a layout names its images.
const NAME_KEY: &str = "org.opencontainers.image.ref.name";

/// Which images are pulled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// All: the layout names what the reference names.
    All,
    /// Those for some platforms: the layout names each of them, and not the index, which would name what is not there.
    Only(Vec<Platform>),
}

/// What happens during a pull.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PullEvent {
    /// A blob is about to come.
    Fetching {
        /// Its digest.
        digest: String,
        /// Its length in bytes.
        size: u64,
    },
    /// A blob is there.
    Fetched {
        /// Its digest.
        digest: String,
        /// Bytes that came over the wire for it.
        received: u64,
        /// Bytes that were there from an earlier attempt.
        resumed: u64,
    },
}

/// What a pull came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pulled {
    /// What the reference names.
    pub root: Descriptor,
    /// What the layout names, with their platforms where an index told them.
    pub images: Vec<Descriptor>,
    /// Blobs.
    pub blobs: usize,
    /// Bytes of blobs that came over the wire.
    pub bytes_received: u64,
    /// Bytes of blobs that were there from an earlier attempt.
    pub bytes_resumed: u64,
}

/// Asks what a reference names: its type, digest and length, and the document as it came, checked.
pub fn resolve(client: &Client, reference: &Reference) -> Result<Document, RegistryError> {
    client.document(&reference.repository, &reference.wanted())
}

/// Pulls an image into a new layout.
///
/// `layout` must not exist; it is removed again if anything fails. `partial` is a directory on the same file system that exists and
/// that no other process uses: what broke off is kept there, and the next call goes on with it. Events come on this thread.
/// An image whose blobs say that they have more than [`FETCH_BYTES_MAX`] together is refused before the first byte of them.
pub fn pull(
    client: &Client,
    reference: &Reference,
    wanted: &Wanted,
    layout: &Path,
    partial: &Path,
    tell: &mut dyn FnMut(PullEvent),
) -> Result<Pulled, RegistryError> {
    let pull = Pull { client, reference, read: Mutex::default() };
    let root = resolve(client, reference)?;
    let mut documents = BTreeMap::new();
    let mut images = match wanted {
        Wanted::All => {
            pull.collect(&root, 0, &mut documents)?;
            vec![root.descriptor.clone()]
        }
        Wanted::Only(platforms) => pull.choose(&root, platforms, &mut documents)?,
    };
    if let Some(tag) = &reference.tag {
        for image in &mut images {
            image.annotations = Some(BTreeMap::from([(NAME_KEY.to_owned(), tag.clone())]));
        }
    }
    ops::create_dir(layout)?;
    let filled = pull.fill(layout, partial, &documents, &images, tell);
    if filled.is_err() {
        // The first error is the one worth telling.
        drop(ops::remove_all(layout));
        if matches!(filled, Err(RegistryError::Wrong { .. })) {
            // What else came from there is not worth going on with.
            for blob in documents.values().flat_map(Document::blobs) {
                drop(BlobDigest::parse(&blob.digest).map(|digest| ops::remove_file(&place(partial, &digest))));
            }
        }
    }
    let (blobs, bytes) = filled?;
    Ok(Pulled { root: root.descriptor, images, blobs, bytes_received: bytes.received, bytes_resumed: bytes.resumed })
}

struct Pull<'a> {
    client: &'a Client,
    reference: &'a Reference,
    /// The first configuration that was read to learn a platform, by its digest: most often that of the image itself.
    read: Mutex<Option<(String, Vec<u8>)>>,
}

impl Pull<'_> {
    /// A blob that was read before, once.
    fn read_before(&self, blob: &Descriptor) -> Option<Vec<u8>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, bytes) = read.take_if(|(digest, bytes)| *digest == blob.digest && bytes.len() as u64 == blob.size)?;
        Some(bytes)
    }

    fn wrong(&self, cause: String) -> RegistryError {
        let repository = &self.reference.repository;
        RegistryError::Wrong { host: repository.host.clone(), asked: self.reference.to_string(), cause }
    }

    fn child(&self, descriptor: &Descriptor) -> Result<Document, RegistryError> {
        self.client.child(&self.reference.repository, descriptor)
    }

    /// A document and all below it.
    fn collect(
        &self,
        document: &Document,
        depth: usize,
        documents: &mut BTreeMap<String, Document>,
    ) -> Result<(), RegistryError> {
        self.check_depth(depth, documents.len())?;
        let bytes = documents.values().map(|known| known.descriptor.size).sum::<u64>() + document.descriptor.size;
        if bytes > DOCUMENTS_BYTES_MAX {
            return Err(self.wrong(format!("its manifests have more than {DOCUMENTS_BYTES_MAX} bytes in all")));
        }
        documents.insert(document.descriptor.digest.clone(), document.clone());
        for child in document.children() {
            if !documents.contains_key(&child.digest) {
                self.collect(&self.child(child)?, depth + 1, documents)?;
            }
        }
        Ok(())
    }

    /// Refuses what no disk should be filled with. Lengths are what the registry says; no blob is taken that is longer.
    fn check_size(&self, blobs: &[&Descriptor]) -> Result<(), RegistryError> {
        let bytes = blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
        if bytes > FETCH_BYTES_MAX {
            return Err(RegistryError::TooLarge {
                image: self.reference.to_string(),
                bytes,
                bytes_max: FETCH_BYTES_MAX,
            });
        }
        Ok(())
    }

    fn check_depth(&self, depth: usize, count: usize) -> Result<(), RegistryError> {
        if depth > INDEX_DEPTH_MAX || count > INDEX_ENTRIES_MAX {
            let cause = format!(
                "its indexes nest more than {INDEX_DEPTH_MAX} deep, or name more than {INDEX_ENTRIES_MAX} manifests"
            );
            return Err(self.wrong(cause));
        }
        Ok(())
    }

    /// The images for platforms, one for each.
    fn choose(
        &self,
        root: &Document,
        platforms: &[Platform],
        documents: &mut BTreeMap<String, Document>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let mut candidates = Vec::new();
        self.candidates(root, 0, &mut BTreeSet::new(), &mut candidates)?;
        let mut images = Vec::new();
        for wanted in platforms {
            let exact = candidates.iter().find(|(platform, _)| platform == wanted);
            let alike = candidates.iter().filter(|(platform, _)| {
                wanted.variant.is_none() && platform.os == wanted.os && platform.architecture == wanted.architecture
            });
            let alike: Vec<_> = alike.collect();
            let found = match (exact, &alike[..]) {
                (Some(exact), _) => exact,
                (None, [only]) => *only,
                _ => {
                    let found: BTreeSet<String> =
                        candidates.iter().take(INDEX_ENTRIES_MAX).map(|(platform, _)| platform.to_string()).collect();
                    let found =
                        if found.is_empty() { vec!["none".to_owned()] } else { found.into_iter().take(24).collect() };
                    return Err(RegistryError::Platform {
                        image: self.reference.to_string(),
                        wanted: wanted.to_string(),
                        found: found.join(", "),
                    });
                }
            };
            let image = &found.1;
            if !documents.contains_key(&image.digest) {
                let document = if image.digest == root.descriptor.digest { root.clone() } else { self.child(image)? };
                self.collect(&document, 0, documents)?;
                images.push(image.clone());
            }
        }
        Ok(images)
    }

    /// All images below a document, with their platforms.
    fn candidates(
        &self,
        document: &Document,
        depth: usize,
        seen: &mut BTreeSet<String>,
        found: &mut Vec<(Platform, Descriptor)>,
    ) -> Result<(), RegistryError> {
        self.check_depth(depth, seen.len())?;
        let index = match &document.content {
            Content::Index(index) => index,
            Content::Manifest(_) => {
                found.extend(self.told_platform(document)?.map(|platform| (platform, document.descriptor.clone())));
                return Ok(());
            }
        };
        for child in &index.manifests {
            if !seen.insert(child.digest.clone()) || !(child.is_image() || child.is_index()) {
                continue;
            }
            match &child.platform {
                Some(platform) if child.is_image() => {
                    found.extend(platform.platform().map(|platform| (platform, child.clone())));
                }
                _ => self.candidates(&self.child(child)?, depth + 1, seen, found)?,
            }
        }
        Ok(())
    }

    /// The platform that the configuration of an image tells; `None` if it is none of an image.
    fn told_platform(&self, document: &Document) -> Result<Option<Platform>, RegistryError> {
        let Content::Manifest(manifest) = &document.content else { return Ok(None) };
        let config = &manifest.config;
        if !config.is_config() {
            return Ok(None);
        }
        let bytes = self.client.small_blob(&self.reference.repository, config)?;
        let read = Config::read(&bytes, &config.digest).map_err(|error| self.wrong(error.to_string()))?;
        let platform = read.platform();
        self.read.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| (config.digest.clone(), bytes));
        Ok(Some(platform))
    }

    /// Fills a layout; its index comes last.
    fn fill(
        &self,
        layout: &Path,
        partial: &Path,
        documents: &BTreeMap<String, Document>,
        images: &[Descriptor],
        tell: &mut dyn FnMut(PullEvent),
    ) -> Result<(usize, Downloaded), RegistryError> {
        for dir in ["blobs/sha256", "blobs/sha512"] {
            ops::create_dir_all(&layout.join(dir))?;
        }
        let mut blobs: BTreeMap<&str, &Descriptor> = BTreeMap::new();
        for blob in documents.values().flat_map(Document::blobs) {
            BlobDigest::parse(&blob.digest).map_err(|error| self.wrong(error.to_string()))?;
            if let Some(other) = blobs.insert(&blob.digest, blob)
                && other.size != blob.size
            {
                let cause = format!("it gives {} two lengths, {} and {} bytes", blob.digest, other.size, blob.size);
                return Err(self.wrong(cause));
            }
        }
        let blobs: Vec<&Descriptor> = blobs.into_values().collect();
        self.check_size(&blobs)?;
        let stop = AtomicBool::new(false);
        let mut total = Downloaded::default();
        let mut count = |event: PullEvent| {
            if let PullEvent::Fetched { received, resumed, .. } = &event {
                total.received += received;
                total.resumed += resumed;
            }
            tell(event);
        };
        let work = |blob: &&Descriptor, tell: &dyn Fn(PullEvent)| {
            tell(PullEvent::Fetching { digest: blob.digest.clone(), size: blob.size });
            let digest = BlobDigest::parse(&blob.digest).map_err(|error| self.wrong(error.to_string()))?;
            let to = layout.join(digest.path());
            let Downloaded { received, resumed } = match self.read_before(blob) {
                Some(bytes) => {
                    ops::write(&to, &bytes)?;
                    Downloaded { received: blob.size, resumed: 0 }
                }
                None => {
                    let (client, repository) = (self.client, &self.reference.repository);
                    Download { client, repository, descriptor: blob, partial, stop: &stop }.fetch(&to)?
                }
            };
            tell(PullEvent::Fetched { digest: blob.digest.clone(), received, resumed });
            Ok(())
        };
        workers::each(&blobs, TRANSFERS, &stop, &mut count, work)?;
        for document in documents.values() {
            let digest = document.digest().map_err(|error| self.wrong(error.to_string()))?;
            ops::write(&layout.join(digest.path()), &document.bytes)?;
        }
        // An empty directory is no part of the specification's layout.
        if ops::read_dir(&layout.join("blobs/sha512"))?.is_empty() {
            ops::remove_dir(&layout.join("blobs/sha512"))?;
        }
        ops::write(&layout.join(LAYOUT_FILE), &write(&LayoutMark { version: "1.0.0".into() }))?;
        let index = Index {
            schema_version: 2,
            media_type: Some(INDEX_TYPE.into()),
            manifests: images.to_vec(),
            annotations: None,
        };
        ops::write(&layout.join(INDEX_FILE), &write(&index))?;
        Ok((blobs.len(), total))
    }
}

impl Client {
    /// The whole of a small blob, checked.
    fn small_blob(
        &self,
        repository: &crate::registry::reference::Repository,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        let scope = crate::registry::documents::pull_scope(repository);
        let question = self.blob_question(ureq::http::Method::GET, repository, descriptor, scope);
        let wrong = |cause: String| RegistryError::Wrong {
            host: repository.host.clone(),
            asked: question.asked.clone(),
            cause,
        };
        let digest = BlobDigest::parse(&descriptor.digest).map_err(|error| wrong(error.to_string()))?;
        self.patiently(|| {
            let answer = self.ask_once(&question)?;
            match answer.status {
                200 => {
                    let bytes = answer.document(DOCUMENT_BYTES_MAX)?;
                    let mut hasher = digest.hasher_like();
                    hasher.update(&bytes);
                    let found = hasher.finish();
                    if found == digest { Ok(bytes) } else { Err(wrong(format!("its bytes have the digest {found}"))) }
                }
                404 => Err(RegistryError::Missing { host: repository.host.clone(), asked: question.asked.clone() }),
                _ => Err(answer.refusal()),
            }
        })
    }
}
