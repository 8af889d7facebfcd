//! Where what is pushed comes from: a layout on this machine, or another repository. Whatever is read here is checked while it goes by.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ureq::http::Method;

use crate::image::wire::Descriptor;
use crate::image::{BlobDigest, Blobs, Hasher};
use crate::registry::client::{Client, Question, Sent};
use crate::registry::documents::{Document, pull_scope};
use crate::registry::error::{RegistryError, quoted};
use crate::registry::reference::Repository;

/// Where blobs and documents come from.
pub(super) enum Source<'a> {
    /// A layout.
    Layout(&'a Blobs),
    /// A repository.
    Remote { client: &'a Client, repository: &'a Repository },
}

impl Source<'_> {
    /// Reads a manifest or an index.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Document, RegistryError> {
        match self {
            Self::Layout(blobs) => {
                let digest = BlobDigest::parse(&descriptor.digest).map_err(RegistryError::Source)?;
                let bytes = blobs.document(&digest).map_err(RegistryError::Source)?;
                let document = Document::read(bytes, &digest, Some(&descriptor.media_type));
                document.map_err(RegistryError::Source)
            }
            Self::Remote { client, repository } => client.child(repository, descriptor),
        }
    }

    /// The digest of a blob; what is none would be a part of the address that is asked.
    pub fn digest(&self, descriptor: &Descriptor) -> Result<BlobDigest, RegistryError> {
        BlobDigest::parse(&descriptor.digest).map_err(|error| match self {
            Self::Layout(_) => RegistryError::Source(error),
            Self::Remote { repository, .. } => RegistryError::Wrong {
                host: repository.host.clone(),
                asked: format!("a blob of {}", repository.name),
                cause: error.to_string(),
            },
        })
    }

    /// Whether a blob is to be had. Layers that may not be handed on often are not.
    pub fn has(&self, descriptor: &Descriptor) -> Result<bool, RegistryError> {
        match self {
            Self::Layout(blobs) => {
                let digest = BlobDigest::parse(&descriptor.digest).map_err(RegistryError::Source)?;
                Ok(blobs.size(&digest).map_err(RegistryError::Source)?.is_some())
            }
            Self::Remote { client, repository } => client.has_blob(repository, descriptor, pull_scope(repository)),
        }
    }

    /// Opens a blob; what comes is not checked.
    pub fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, RegistryError> {
        match self {
            Self::Layout(blobs) => {
                let digest = BlobDigest::parse(&descriptor.digest).map_err(RegistryError::Source)?;
                blobs.open(&digest).map_err(RegistryError::Source)
            }
            Self::Remote { client, repository } => client.open_blob(repository, descriptor),
        }
    }

    /// A problem with bytes that came from here.
    fn problem(&self, descriptor: &Descriptor, trouble: Trouble) -> RegistryError {
        let asked = format!("the blob {}", descriptor.digest);
        match (self, trouble) {
            (Self::Layout(_), Trouble::Broken(cause) | Trouble::Other(cause)) => {
                RegistryError::Blob { digest: descriptor.digest.clone(), cause }
            }
            (Self::Remote { repository, .. }, Trouble::Broken(cause)) => {
                RegistryError::Unreachable { host: repository.host.clone(), asked, cause, may_pass: true }
            }
            (Self::Remote { repository, .. }, Trouble::Other(cause)) => {
                RegistryError::Wrong { host: repository.host.clone(), asked, cause }
            }
        }
    }
}

impl Client {
    /// The question for a blob.
    pub(super) fn blob_question<'a>(
        &self,
        method: Method,
        repository: &'a Repository,
        descriptor: &Descriptor,
        scope: String,
    ) -> Question<'a> {
        Question {
            method,
            url: self.url(repository, &format!("blobs/{}", descriptor.digest)),
            repository,
            asked: format!("the blob {} of {}", quoted(&descriptor.digest), repository.name),
            scopes: vec![scope],
            headers: Vec::new(),
            body: Sent::Nothing,
        }
    }

    /// Whether a repository has a blob.
    pub(super) fn has_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        scope: String,
    ) -> Result<bool, RegistryError> {
        let answer = self.ask_once(&self.blob_question(Method::HEAD, repository, descriptor, scope))?;
        match answer.status {
            200 => {
                let length = answer.header("Content-Length").and_then(|text| text.parse::<u64>().ok());
                match length.filter(|length| *length != descriptor.size && *length != 0) {
                    Some(length) => {
                        Err(answer.wrong(format!("it should have {} bytes and has {length}", descriptor.size)))
                    }
                    None => Ok(true),
                }
            }
            404 => Ok(false),
            _ => Err(answer.refusal()),
        }
    }

    fn open_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, RegistryError> {
        let question = self.blob_question(Method::GET, repository, descriptor, pull_scope(repository));
        // Whoever sends it somewhere begins anew after trouble that may pass.
        let answer = self.ask_once(&question)?;
        match answer.status {
            200 => Ok(Box::new(answer.stream())),
            404 => Err(RegistryError::Missing { host: repository.host.clone(), asked: question.asked }),
            _ => Err(answer.refusal()),
        }
    }
}

/// What is wrong with bytes that were read.
enum Trouble {
    /// They came no further.
    Broken(String),
    /// They are others.
    Other(String),
}

/// What the readers of one blob leave behind.
pub(super) struct Watched<'a> {
    source: &'a Source<'a>,
    descriptor: &'a Descriptor,
    digest: BlobDigest,
    trouble: Mutex<Option<Trouble>>,
    /// Bytes that were handed on, of all attempts.
    handed: &'a AtomicU64,
    /// Set when another transfer failed.
    stop: &'a AtomicBool,
}

impl<'a> Watched<'a> {
    /// Watches over one blob.
    pub fn new(
        source: &'a Source<'a>,
        descriptor: &'a Descriptor,
        handed: &'a AtomicU64,
        stop: &'a AtomicBool,
    ) -> Result<Self, RegistryError> {
        let digest = source.digest(descriptor)?;
        Ok(Self { source, descriptor, digest, trouble: Mutex::new(None), handed, stop })
    }

    /// Opens the blob from its beginning. Its last bytes do not come unless all are what the digest says, so that whoever
    /// is sent them never has the whole of a wrong blob.
    pub fn open(&self) -> Result<Box<dyn Read + Send + '_>, RegistryError> {
        let from = self.source.open(self.descriptor)?;
        let hasher = Some(self.digest.hasher_like());
        let mut checked = Checked { from, hasher, left: self.descriptor.size, watched: self };
        if checked.left == 0 && checked.end().is_err() {
            return Err(self.trouble().unwrap_or(RegistryError::Cancelled));
        }
        Ok(Box::new(checked))
    }

    /// What went wrong with the bytes, rather than with whom they were sent to.
    pub fn trouble(&self) -> Option<RegistryError> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        trouble.map(|trouble| self.source.problem(self.descriptor, trouble))
    }

    /// Whether something did.
    pub fn is_troubled(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn leave(&self, trouble: Trouble) -> io::Error {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
        io::Error::other("the blob is not what it should be")
    }
}

struct Checked<'a> {
    from: Box<dyn Read + Send>,
    hasher: Option<Hasher>,
    left: u64,
    watched: &'a Watched<'a>,
}

impl Checked<'_> {
    /// Checks that nothing more comes, and the digest.
    fn end(&mut self) -> io::Result<()> {
        let size = self.watched.descriptor.size;
        let more = io::copy(&mut self.from.by_ref().take(1), &mut io::sink());
        match more {
            Ok(0) => {}
            Ok(_) => return Err(self.watched.leave(Trouble::Other(format!("it is longer than {size} bytes")))),
            Err(error) => return Err(self.watched.leave(Trouble::Broken(quoted(&error.to_string())))),
        }
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found != self.watched.digest => {
                Err(self.watched.leave(Trouble::Other(format!("its bytes have the digest {found}"))))
            }
            _ => Ok(()),
        }
    }
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.watched.stop.load(Ordering::SeqCst) {
            return Err(io::Error::other("stopped"));
        }
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = match self.from.read(&mut buffer[..room]) {
            Ok(0) => {
                let missing = format!("it ends {} bytes too early", self.left);
                return Err(self.watched.leave(match self.watched.source {
                    Source::Layout(_) => Trouble::Other(missing),
                    Source::Remote { .. } => Trouble::Broken(missing),
                }));
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(self.watched.leave(Trouble::Broken(quoted(&error.to_string())))),
        };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        self.left -= count as u64;
        if self.left == 0 {
            self.end()?;
        }
        self.watched.handed.fetch_add(count as u64, Ordering::SeqCst);
        Ok(count)
    }
}
