//! What is told of an image: the facts from which every document beside it is written. Reads nothing, decides nothing.

use sha2::{Digest as _, Sha256};

use crate::base::digest::Digest;
use crate::base::platform::Platform;
use crate::image::BlobDigest;

/// Everything that is told of one image. The order of lists does not reach a document, but for layers, which have one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageFacts {
    /// Where it is published, or what it is called: `registry.example/acme/web`. No tag and no digest.
    pub name: String,
    /// Digest of what is pulled: of the index, or of the manifest if there is no index.
    pub digest: BlobDigest,
    /// Its images, one for each platform.
    pub platforms: Vec<PlatformFacts>,
    /// The time that everything in it has, in seconds since 1970.
    pub epoch: u64,
    /// Version of this program.
    pub engine_version: String,
    /// Version of the way images are assembled.
    pub image_format: u32,
    /// Key of the action that made it.
    pub action_key: Digest,
    /// What it is made of. Bases of [`ImageFacts::platforms`] and outputs of [`ImageFacts::tasks`] need not be told again.
    pub components: Vec<Component>,
    /// What holds between components, by [`Component::reference`].
    pub relations: Vec<Relation>,
    /// The tasks whose outputs are in it.
    pub tasks: Vec<TaskFacts>,
}

/// The image for one platform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlatformFacts {
    /// The platform.
    pub platform: Platform,
    /// Digest of its manifest.
    pub manifest: BlobDigest,
    /// What it was built upon; `None` for nothing.
    pub base: Option<BaseFacts>,
    /// Its layers, lowest first, those of the base included.
    pub layers: Vec<LayerFacts>,
}

/// The image that another was built upon.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BaseFacts {
    /// Its reference as the manifest has it; `org.opencontainers.image.base.name` of the image.
    pub name: String,
    /// Its digest as it is locked; `org.opencontainers.image.base.digest` of the image.
    pub digest: BlobDigest,
}

/// One layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayerFacts {
    /// Digest of it uncompressed.
    pub diff_id: BlobDigest,
    /// Digest of the blob.
    pub digest: BlobDigest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// What made it, in a line.
    pub created_by: String,
}

/// One task whose output is in the image.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TaskFacts {
    /// Its label.
    pub label: String,
    /// Key of its action.
    pub key: Digest,
    /// Digest of the tree that it made.
    pub output: Digest,
}

/// What a component is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ComponentKind {
    /// A file of the workspace.
    SourceFile,
    /// What a task made.
    TaskOutput,
    /// What was fetched by its digest.
    Fetched,
    /// An image that this one was built upon.
    BaseImage,
    /// A package of Debian, or of what descends from it.
    DebianPackage,
    /// A package of Alpine.
    AlpinePackage,
}

impl ComponentKind {
    /// Its word in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::SourceFile => "source",
            Self::TaskOutput => "task",
            Self::Fetched => "fetched",
            Self::BaseImage => "base",
            Self::DebianPackage => "deb",
            Self::AlpinePackage => "apk",
        }
    }
}

/// Something that an image is made of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Component {
    /// What it is.
    pub kind: ComponentKind,
    /// Its name: a path in the workspace, a label, a package.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// SHA-256 of its bytes; of an image, its digest.
    pub sha256: Option<BlobDigest>,
    /// BLAKE3 of its bytes.
    pub blake3: Option<Digest>,
    /// Digest of the tree that it is (`tree v1`), which is none of any bytes.
    pub tree: Option<Digest>,
    /// Where it came from. Names and passwords in it are left out of documents.
    pub url: Option<String>,
    /// Its licence, as an SPDX expression or in other words.
    pub licence: Option<String>,
    /// Where it lies in the image.
    pub path: Option<String>,
    /// Its package URL.
    pub purl: Option<String>,
}

impl Component {
    /// One of which nothing but its name is known.
    pub fn new(kind: ComponentKind, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            version: None,
            sha256: None,
            blake3: None,
            tree: None,
            url: None,
            licence: None,
            path: None,
            purl: None,
        }
    }

    /// What names it within a document: letters, digits, `-` and `.` only. The same for the same component in every image.
    pub fn reference(&self) -> String {
        let mut hasher = Sha256::new();
        let digests = [
            self.sha256.as_ref().map(BlobDigest::to_string),
            self.blake3.map(|digest| digest.to_hex()),
            self.tree.map(|digest| digest.to_hex()),
        ];
        let texts = [&self.version, &self.url, &self.licence, &self.path, &self.purl];
        let all = texts.into_iter().chain(&digests).map(|text| text.as_deref());
        for text in [Some(self.kind.word()), Some(self.name.as_str())].into_iter().chain(all) {
            // With lengths, so that no two components run together.
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            hasher.update(length.to_be_bytes());
            hasher.update(text.unwrap_or_default());
        }
        let hash: String = hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{hash}", self.kind.word(), slug(&self.name))
    }
}

/// What holds between two components.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RelationKind {
    /// The first was made from the second.
    GeneratedFrom,
    /// The first has the second in it.
    Contains,
    /// The first needs the second.
    DependsOn,
}

/// That something holds between two components.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Relation {
    /// The reference of the first.
    pub from: String,
    /// What holds.
    pub kind: RelationKind,
    /// The reference of the second.
    pub to: String,
}

impl ImageFacts {
    /// Its images in the order of their platforms.
    pub(super) fn sorted_platforms(&self) -> Vec<&PlatformFacts> {
        let mut platforms: Vec<_> = self.platforms.iter().collect();
        platforms.sort_by(|one, other| (&one.platform, &one.manifest).cmp(&(&other.platform, &other.manifest)));
        platforms
    }

    /// Its components, each once, with their references in the order of these.
    pub(super) fn sorted_components(&self) -> Vec<(String, &Component)> {
        let mut components: Vec<_> = self.components.iter().map(|one| (one.reference(), one)).collect();
        components.sort();
        components.dedup();
        components
    }

    /// Its relations, each once, those alone whose two sides are there.
    pub(super) fn sorted_relations(&self) -> Vec<&Relation> {
        let known: std::collections::BTreeSet<_> = self.components.iter().map(Component::reference).collect();
        let there = |relation: &&Relation| known.contains(&relation.from) && known.contains(&relation.to);
        let mut relations: Vec<_> = self.relations.iter().filter(there).collect();
        relations.sort();
        relations.dedup();
        relations
    }

    /// Its tasks, each once.
    pub(super) fn sorted_tasks(&self) -> Vec<&TaskFacts> {
        let mut tasks: Vec<_> = self.tasks.iter().collect();
        tasks.sort();
        tasks.dedup();
        tasks
    }
}

/// A text as a part of a reference, cut short.
pub(super) fn slug(text: &str) -> String {
    const LETTERS_MAX: usize = 40;
    let letter = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' };
    let slug: String = text.chars().map(letter).collect();
    // The end of a path says more than its beginning.
    slug[slug.len().saturating_sub(LETTERS_MAX)..].trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_differs_with_whatever_is_known_of_a_component() {
        let plain = Component::new(ComponentKind::SourceFile, "apps/wéb/main.rs");
        assert!(plain.reference().starts_with("source-apps-w-b-main.rs-"), "{}", plain.reference());
        assert_eq!(plain.reference(), plain.clone().reference());
        let text = || Some("x".to_owned());
        let others = [
            Component { kind: ComponentKind::Fetched, ..plain.clone() },
            Component { version: text(), ..plain.clone() },
            Component { url: text(), ..plain.clone() },
            Component { licence: text(), ..plain.clone() },
            Component { path: text(), ..plain.clone() },
            Component { purl: text(), ..plain.clone() },
            Component { sha256: Some(BlobDigest::of(b"")), ..plain.clone() },
            Component { blake3: Some(Digest::of(b"")), ..plain.clone() },
            Component { tree: Some(Digest::of(b"")), ..plain.clone() },
            Component::new(ComponentKind::SourceFile, "apps/web/main.rs"),
            plain,
        ];
        let references: std::collections::BTreeSet<_> = others.iter().map(Component::reference).collect();
        assert_eq!(references.len(), others.len());
    }
}
