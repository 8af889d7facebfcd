//! An image into a repository: blobs, then manifests, children before parents, then tags. A name never points at what is not whole.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::image::wire::{Descriptor, INDEX_ENTRIES_MAX, Index};
use crate::image::{BlobDigest, Blobs, ImageError};
use crate::registry::client::Client;
use crate::registry::documents::{Content, Document, is_same_kind, push_scope};
use crate::registry::error::{RegistryError, quoted};
use crate::registry::reference::{Repository, is_tag};
use crate::registry::referrers;
use crate::registry::source::Source;
use crate::registry::upload::{Arrived, Transfer};
use crate::registry::workers;

/// Blobs that are sent at a time.
pub(super) const TRANSFERS: usize = 4;
/// Deepest nesting of indexes.
const INDEX_DEPTH_MAX: usize = 4;

/// What may be said about a push.
#[derive(Clone, Default, Debug)]
pub struct PushOptions {
    /// Repositories of the same host that may have some of the blobs, as that of the base. Others are not asked.
    pub mount_from: Vec<Repository>,
}

/// What happens during a push.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PushEvent {
    /// A blob was there.
    Present {
        /// Its digest.
        digest: String,
        /// Its length in bytes.
        size: u64,
    },
    /// A blob is about to be sent. Comes again when it is sent again.
    Sending {
        /// Its digest.
        digest: String,
        /// Its length in bytes.
        size: u64,
    },
    /// A blob was sent.
    Sent {
        /// Its digest.
        digest: String,
        /// Its length in bytes.
        size: u64,
    },
    /// A blob came from another repository of the host.
    Mounted {
        /// Its digest.
        digest: String,
        /// Its length in bytes.
        size: u64,
        /// Name of the other repository.
        from: String,
    },
    /// A manifest or an index was put, or was there.
    Manifest {
        /// Its digest.
        digest: String,
        /// Whether it was there.
        was_there: bool,
    },
    /// A tag points at the image.
    Tagged {
        /// The tag.
        tag: String,
        /// Whether it did before.
        was_there: bool,
    },
}

/// Blobs, by how they came to be in the repository. Those of manifests that were there are not looked at, and not counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Sent.
    pub sent: usize,
    /// From another repository of the host.
    pub mounted: usize,
    /// There already.
    pub present: usize,
}

/// What a push came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pushed {
    /// What the tags point at.
    pub digest: BlobDigest,
    /// How the blobs got there.
    pub blobs: Tally,
    /// Bytes of blobs that were sent, with those of attempts that failed.
    pub bytes_sent: u64,
}

/// Pushes the image of a layout, whose `index.json` names one manifest or index, and points tags at it.
///
/// What is there is not sent again, so that after any failure the same call goes on where it ended. An error leaves no tag that was
/// not there and no manifest that is not whole. Events come on this thread.
pub fn push(
    client: &Client,
    blobs: &Blobs,
    repository: &Repository,
    tags: &[String],
    options: &PushOptions,
    tell: &mut dyn FnMut(PushEvent),
) -> Result<Pushed, RegistryError> {
    let source = Source::Layout(blobs);
    let root = only_document(blobs, &source)?;
    let delivery = Delivery { client, source: &source, target: repository, mount_from: &options.mount_from };
    delivery.deliver(&root, tags, tell)
}

/// The one document that a layout is about.
pub(super) fn only_document(blobs: &Blobs, source: &Source<'_>) -> Result<Document, RegistryError> {
    let bytes = blobs.index().map_err(RegistryError::Source)?;
    let index = Index::read(&bytes, "index.json").map_err(RegistryError::Source)?;
    match &index.manifests[..] {
        [only] => source.document(only),
        several => {
            let cause = format!("it names {} images, and one is pushed at a time", several.len());
            Err(RegistryError::Source(ImageError::Malformed { what: "index", name: "index.json".into(), cause }))
        }
    }
}

/// From where to where.
pub(super) struct Delivery<'a> {
    pub client: &'a Client,
    pub source: &'a Source<'a>,
    pub target: &'a Repository,
    pub mount_from: &'a [Repository],
}

impl Delivery<'_> {
    /// Sees that a document with all it names is in the repository, and that tags point at it.
    pub fn deliver(
        &self,
        root: &Document,
        tags: &[String],
        tell: &mut dyn FnMut(PushEvent),
    ) -> Result<Pushed, RegistryError> {
        if let Some(wrong) = tags.iter().find(|tag| !is_tag(tag)) {
            let cause = "a tag has up to 128 letters, digits, `.`, `_` and `-`".into();
            return Err(RegistryError::Reference { text: quoted(wrong), cause });
        }
        let digest = root.digest().map_err(RegistryError::Source)?;
        let mut pushed = Pushed { digest, blobs: Tally::default(), bytes_sent: 0 };
        let mut left = tags;
        if self.is_there(root)? {
            tell(PushEvent::Manifest { digest: root.descriptor.digest.clone(), was_there: true });
            self.keep_track(root, None)?;
        } else {
            // Put under a tag it is there under its digest, too. What has a subject is listed before a tag leads to it.
            let first = tags.first().filter(|_| root.subject().is_none());
            let name = first.unwrap_or(&root.descriptor.digest);
            self.deliver_whole(root, name, &mut pushed, tell)?;
            self.client.confirm(self.target, name, root)?;
            if let Some(tag) = first {
                left = &tags[1..];
                tell(PushEvent::Tagged { tag: tag.clone(), was_there: false });
            }
        }
        for tag in left {
            let seen = self.client.look(self.target, tag, push_scope(self.target))?;
            let was_there = seen.and_then(|seen| seen.digest).as_ref() == Some(&pushed.digest);
            if !was_there {
                self.client.put(self.target, tag, root)?;
                self.client.confirm(self.target, tag, root)?;
            }
            tell(PushEvent::Tagged { tag: tag.clone(), was_there });
        }
        Ok(pushed)
    }

    fn is_there(&self, document: &Document) -> Result<bool, RegistryError> {
        let digest = &document.descriptor.digest;
        let Some(seen) = self.client.look(self.target, digest, push_scope(self.target))? else { return Ok(false) };
        match seen.digest.filter(|told| is_same_kind(told, digest) && told.to_string() != *digest) {
            None => Ok(true),
            Some(told) => Err(RegistryError::Wrong {
                host: self.target.host.clone(),
                asked: format!("the manifest {digest} of {}", self.target.name),
                cause: format!("it has {told} under that digest"),
            }),
        }
    }

    /// Sends all of a document that is not there, and puts it under `name`.
    fn deliver_whole(
        &self,
        root: &Document,
        name: &str,
        pushed: &mut Pushed,
        tell: &mut dyn FnMut(PushEvent),
    ) -> Result<(), RegistryError> {
        let mut documents = Vec::new();
        self.collect(root, 0, &mut BTreeSet::new(), &mut documents, tell)?;
        let blobs = self.blobs(&documents)?;
        let (handed, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let transfer = Transfer {
            client: self.client,
            source: self.source,
            target: self.target,
            mount_from: self.mount_from,
            handed: &handed,
            stop: &stop,
        };
        let tally = &mut pushed.blobs;
        let mut count = |event: PushEvent| {
            match event {
                PushEvent::Present { .. } => tally.present += 1,
                PushEvent::Mounted { .. } => tally.mounted += 1,
                PushEvent::Sent { .. } => tally.sent += 1,
                _ => {}
            }
            tell(event);
        };
        let work = |blob: &Descriptor, tell: &dyn Fn(PushEvent)| {
            let (digest, size) = (blob.digest.clone(), blob.size);
            let sending = || tell(PushEvent::Sending { digest: digest.clone(), size });
            let arrived = transfer.deliver(blob, &sending)?;
            tell(match arrived {
                Arrived::Present => PushEvent::Present { digest, size },
                Arrived::Mounted(from) => PushEvent::Mounted { digest, size, from },
                Arrived::Sent => PushEvent::Sent { digest, size },
            });
            Ok(())
        };
        let delivered = workers::each(&blobs, TRANSFERS, &stop, &mut count, work);
        pushed.bytes_sent += handed.load(Ordering::SeqCst);
        delivered?;
        for document in &documents {
            let digest = &document.descriptor.digest;
            let name = if *digest == root.descriptor.digest { name } else { digest };
            let is_tracked = self.client.put(self.target, name, document)?;
            self.keep_track(document, Some(is_tracked))?;
            tell(PushEvent::Manifest { digest: digest.clone(), was_there: false });
        }
        Ok(())
    }

    /// All documents below one that are not there yet, children first, each once.
    fn collect(
        &self,
        document: &Document,
        depth: usize,
        seen: &mut BTreeSet<String>,
        documents: &mut Vec<Document>,
        tell: &mut dyn FnMut(PushEvent),
    ) -> Result<(), RegistryError> {
        if depth > INDEX_DEPTH_MAX || seen.len() > INDEX_ENTRIES_MAX {
            let cause = format!("it nests more than {INDEX_DEPTH_MAX} deep, or names more than {INDEX_ENTRIES_MAX}");
            let name = document.descriptor.digest.clone();
            return Err(RegistryError::Source(ImageError::Malformed { what: "index", name, cause }));
        }
        for child in document.children() {
            if !seen.insert(child.digest.clone()) {
                continue;
            }
            let child = self.source.document(child)?;
            if self.is_there(&child)? {
                tell(PushEvent::Manifest { digest: child.descriptor.digest, was_there: true });
            } else {
                self.collect(&child, depth + 1, seen, documents, tell)?;
            }
        }
        documents.push(document.clone());
        Ok(())
    }

    /// The blobs of documents, each once. Fails before anything is sent if one is not to be had.
    fn blobs(&self, documents: &[Document]) -> Result<Vec<Descriptor>, RegistryError> {
        let mut seen = BTreeSet::new();
        let mut blobs = Vec::new();
        for blob in documents.iter().flat_map(Document::blobs) {
            if !seen.insert(&blob.digest) {
                continue;
            }
            self.source.digest(blob)?;
            let must_be_asked = matches!(self.source, Source::Layout(_)) || may_be_absent(blob);
            if !must_be_asked || self.client.patiently(|| self.source.has(blob))? {
                blobs.push(blob.clone());
            } else if !may_be_absent(blob) {
                return Err(RegistryError::Source(ImageError::Missing(quoted(&blob.digest))));
            }
        }
        Ok(blobs)
    }

    /// Sees that what has a subject is found from it, where the registry does not see to it.
    fn keep_track(&self, document: &Document, is_tracked: Option<bool>) -> Result<(), RegistryError> {
        let (Some(subject), Content::Manifest(manifest)) = (document.subject(), &document.content) else {
            return Ok(());
        };
        let is_tracked = match is_tracked {
            Some(is_tracked) => is_tracked,
            None => referrers::is_served(self.client, self.target, &subject.digest)?,
        };
        if is_tracked {
            return Ok(());
        }
        referrers::keep(self.client, self.target, subject, &referrers::entry(document, manifest))
    }
}

/// Layers that may not be handed on lie elsewhere, and need not be in a registry.
fn may_be_absent(blob: &Descriptor) -> bool {
    blob.media_type.contains(".nondistributable.") || blob.media_type.contains(".foreign.")
}
