//! Manifests and indexes in a registry: asked for, looked at, put. Their digest is taken of the bytes as they came, always.

use ureq::http::Method;

use crate::image::wire::{
    DOCKER_LIST_TYPE, DOCKER_MANIFEST_TYPE, DOCUMENT_BYTES_MAX, Descriptor, INDEX_TYPE, Index, MANIFEST_TYPE, Manifest,
};
use crate::image::{BlobDigest, ImageError};
use crate::registry::client::{Answer, Client, Question, Sent};
use crate::registry::error::{RegistryError, quoted};
use crate::registry::reference::Repository;

/// What is taken for a manifest. Schema 1 of Docker is not: its bytes are signed, not digested.
const ACCEPTED: [&str; 4] = [MANIFEST_TYPE, INDEX_TYPE, DOCKER_MANIFEST_TYPE, DOCKER_LIST_TYPE];
/// By what registries tell the digest of what they have.
pub(super) const DIGEST_HEADER: &str = "Docker-Content-Digest";

/// A manifest or an index, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// Type, digest and length.
    pub descriptor: Descriptor,
    /// As it came: its digest is of these.
    pub bytes: Vec<u8>,
    /// What it says.
    pub content: Content,
}

/// What a document says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Several images.
    Index(Index),
    /// One image, or something else that has a manifest.
    Manifest(Box<Manifest>),
}

impl Document {
    /// Reads the bytes that a digest names. `told` is their type where they do not say it themselves.
    pub fn read(bytes: Vec<u8>, digest: &BlobDigest, told: Option<&str>) -> Result<Self, ImageError> {
        #[derive(serde::Deserialize)]
        struct Typed {
            #[serde(rename = "mediaType", default)]
            media_type: Option<String>,
        }
        let name = digest.to_string();
        let malformed = |cause: String| ImageError::Malformed { what: "manifest", name: name.clone(), cause };
        let typed: Typed = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let media_type = typed.media_type.as_deref().or(told).unwrap_or(MANIFEST_TYPE).to_owned();
        let content = match media_type.as_str() {
            INDEX_TYPE | DOCKER_LIST_TYPE => Content::Index(Index::read(&bytes, &name)?),
            MANIFEST_TYPE | DOCKER_MANIFEST_TYPE => Content::Manifest(Box::new(Manifest::read(&bytes, &name)?)),
            other => return Err(malformed(format!("its type is `{}`", quoted(other)))),
        };
        let descriptor = Descriptor {
            media_type,
            digest: name,
            size: bytes.len() as u64,
            platform: None,
            artifact_type: None,
            annotations: None,
        };
        Ok(Self { descriptor, bytes, content })
    }

    /// The manifests it names; those must be in a registry before it.
    pub fn children(&self) -> &[Descriptor] {
        match &self.content {
            Content::Index(index) => &index.manifests,
            Content::Manifest(_) => &[],
        }
    }

    /// The blobs it names: configuration, then layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let manifest = match &self.content {
            Content::Index(_) => None,
            Content::Manifest(manifest) => Some(manifest),
        };
        manifest.into_iter().flat_map(|manifest| std::iter::once(&manifest.config).chain(&manifest.layers))
    }

    /// The manifest it says something about.
    pub fn subject(&self) -> Option<&Descriptor> {
        match &self.content {
            Content::Index(_) => None,
            Content::Manifest(manifest) => manifest.subject.as_ref(),
        }
    }

    pub(super) fn digest(&self) -> Result<BlobDigest, ImageError> {
        BlobDigest::parse(&self.descriptor.digest)
    }
}

/// What a token must allow to read.
pub(super) fn pull_scope(repository: &Repository) -> String {
    format!("repository:{}:pull", repository.name)
}

/// What a token must allow to write.
pub(super) fn push_scope(repository: &Repository) -> String {
    format!("repository:{}:pull,push", repository.name)
}

/// What is there under a name.
pub(super) struct Seen {
    /// Its digest, where the registry tells.
    pub digest: Option<BlobDigest>,
}

impl Client {
    fn document_question<'a>(
        &self,
        method: Method,
        repository: &'a Repository,
        name: &str,
        scope: String,
    ) -> Question<'a> {
        Question {
            method,
            url: self.url(repository, &format!("manifests/{name}")),
            repository,
            asked: format!("the manifest {name} of {}", repository.name),
            scopes: vec![scope],
            headers: vec![("Accept", ACCEPTED.join(", "))],
            body: Sent::Nothing,
        }
    }

    /// Asks for the document that a tag or a digest names, and checks it.
    pub(super) fn document(&self, repository: &Repository, name: &str) -> Result<Document, RegistryError> {
        let question = self.document_question(Method::GET, repository, name, pull_scope(repository));
        self.patiently(|| {
            let answer = self.ask_once(&question)?;
            match answer.status {
                200 => checked(answer, name),
                404 => Err(RegistryError::Missing { host: repository.host.clone(), asked: question.asked.clone() }),
                _ => Err(answer.refusal()),
            }
        })
    }

    /// A document that another names: as long as it says, and of the type that it says.
    ///
    /// What is no digest is refused before it is asked for: it would be a part of the address.
    pub(super) fn child(&self, repository: &Repository, descriptor: &Descriptor) -> Result<Document, RegistryError> {
        let wrong = |cause: String| RegistryError::Wrong {
            host: repository.host.clone(),
            asked: format!("the manifest {} of {}", quoted(&descriptor.digest), repository.name),
            cause,
        };
        BlobDigest::parse(&descriptor.digest).map_err(|error| wrong(error.to_string()))?;
        let document = self.document(repository, &descriptor.digest)?;
        let found = &document.descriptor;
        if found.size != descriptor.size || found.media_type != descriptor.media_type {
            return Err(wrong(format!(
                "it should be `{}` of {} bytes and is `{}` of {}",
                quoted(&descriptor.media_type),
                descriptor.size,
                quoted(&found.media_type),
                found.size
            )));
        }
        Ok(document)
    }

    /// Looks whether a tag or a digest names something.
    pub(super) fn look(
        &self,
        repository: &Repository,
        name: &str,
        scope: String,
    ) -> Result<Option<Seen>, RegistryError> {
        let answer = self.ask(&self.document_question(Method::HEAD, repository, name, scope))?;
        match answer.status {
            200 => Ok(Some(Seen { digest: told_digest(&answer) })),
            404 => Ok(None),
            _ => Err(answer.refusal()),
        }
    }

    /// Puts a document under a tag or its digest; whether the registry keeps track of its subject.
    pub(super) fn put(&self, repository: &Repository, name: &str, document: &Document) -> Result<bool, RegistryError> {
        let mut question = self.document_question(Method::PUT, repository, name, push_scope(repository));
        question.headers = vec![("Content-Type", document.descriptor.media_type.clone())];
        question.body = Sent::Bytes(&document.bytes);
        let answer = self.ask(&question)?;
        if !matches!(answer.status, 200..=202) {
            return Err(answer.refusal());
        }
        if let Some(told) = told_digest(&answer)
            && told.to_string() != document.descriptor.digest
            && is_same_kind(&told, &document.descriptor.digest)
        {
            return Err(answer.wrong(format!("it took {} for {told}", document.descriptor.digest)));
        }
        Ok(answer.header("OCI-Subject").is_some())
    }

    /// An error unless a name means this document. `put` was told so already; this asks again, as others would.
    pub(super) fn confirm(
        &self,
        repository: &Repository,
        name: &str,
        document: &Document,
    ) -> Result<(), RegistryError> {
        let wrong = |cause: String| RegistryError::Wrong {
            host: repository.host.clone(),
            asked: format!("the manifest {name} of {}", repository.name),
            cause,
        };
        let expected = &document.descriptor.digest;
        let seen = self.look(repository, name, push_scope(repository))?;
        let seen = seen.ok_or_else(|| wrong("it was taken, and now it is not there".into()))?;
        let found = match seen.digest {
            Some(digest) if is_same_kind(&digest, expected) => digest.to_string(),
            // Not every registry says so without being asked for the whole.
            _ => self.document(repository, name)?.descriptor.digest,
        };
        if found == *expected { Ok(()) } else { Err(wrong(format!("it was {expected}, and now it is {found}"))) }
    }
}

/// Whether two digests are of one algorithm, so that they can be compared.
pub(super) fn is_same_kind(one: &BlobDigest, other: &str) -> bool {
    let one = one.to_string();
    one.split(':').next() == other.split(':').next()
}

fn told_digest(answer: &Answer) -> Option<BlobDigest> {
    BlobDigest::parse(answer.header(DIGEST_HEADER)?).ok()
}

/// Reads a document that came under a name.
fn checked(answer: Answer, name: &str) -> Result<Document, RegistryError> {
    let (host, asked) = (answer.url.authority().to_owned(), format!("the manifest {name}"));
    let wrong = |cause: String| RegistryError::Wrong { host: host.clone(), asked: asked.clone(), cause };
    let told = told_digest(&answer);
    let content_type = answer.header("Content-Type").unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let bytes = answer.document(DOCUMENT_BYTES_MAX)?;
    let wanted = BlobDigest::parse(name).ok();
    for expected in [&wanted, &told].into_iter().flatten() {
        let mut hasher = expected.hasher_like();
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *expected {
            return Err(wrong(format!("its digest should be {expected} and is {found}")));
        }
    }
    let digest = wanted.unwrap_or_else(|| BlobDigest::of(&bytes));
    let told_type = ACCEPTED.contains(&content_type.as_str()).then_some(content_type.as_str());
    let document = Document::read(bytes, &digest, told_type).map_err(|error| wrong(error.to_string()))?;
    match told_type {
        Some(told) if told != document.descriptor.media_type => {
            Err(wrong(format!("its type is `{}`, and it came as `{told}`", document.descriptor.media_type)))
        }
        _ => Ok(document),
    }
}
