//! An image with what refers to it from one repository to another, by digest. Nothing is built and nothing is kept on the way.

use std::collections::BTreeSet;

use crate::image::BlobDigest;
use crate::registry::client::Client;
use crate::registry::documents::Document;
use crate::registry::error::RegistryError;
use crate::registry::pull::resolve;
use crate::registry::push::{Delivery, PushEvent, Pushed, Tally};
use crate::registry::reference::{Reference, Repository};
use crate::registry::referrers::referrers;
use crate::registry::source::Source;

/// How deep what refers to what refers to an image is followed.
const REFERRER_DEPTH_MAX: usize = 3;
/// Most referrers of one promotion.
const REFERRERS_MAX: usize = 1024;

/// What may be said about a promotion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PromoteOptions {
    /// What refers to the image comes along.
    pub with_referrers: bool,
}

impl Default for PromoteOptions {
    fn default() -> Self {
        Self { with_referrers: true }
    }
}

/// What a promotion came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promoted {
    /// The image, there as here.
    pub digest: BlobDigest,
    /// Its blobs, with those of referrers.
    pub blobs: Tally,
    /// Bytes of blobs that were sent.
    pub bytes_sent: u64,
    /// What refers to it, or to a part of it, and came along.
    pub referrers: Vec<String>,
}

/// Copies an image byte for byte, then what refers to it and to its parts, then points tags at it.
///
/// On the same host blobs are mounted; else each is streamed from one registry to the other and checked on the way. What is there
/// is not sent again. Tags come last: one that is there means that all of it is.
pub fn promote(
    client: &Client,
    from: &Reference,
    to: &Repository,
    tags: &[String],
    options: &PromoteOptions,
    tell: &mut dyn FnMut(PushEvent),
) -> Result<Promoted, RegistryError> {
    let root = resolve(client, from)?;
    let source = Source::Remote { client, repository: &from.repository };
    let mount_from = [from.repository.clone()];
    let delivery = Delivery { client, source: &source, target: to, mount_from: &mount_from };
    let first = delivery.deliver(&root, &[], tell)?;
    let mut promoted =
        Promoted { digest: first.digest.clone(), blobs: Tally::default(), bytes_sent: 0, referrers: Vec::new() };
    promoted.add(&first);
    if options.with_referrers {
        let mut seen = BTreeSet::new();
        let mut subjects = vec![root.clone()];
        for child in root.children() {
            subjects.push(source.document(child)?);
        }
        for subject in &subjects {
            copy_referrers(client, &delivery, &from.repository, subject, 0, &mut seen, &mut promoted, tell)?;
        }
    }
    delivery.deliver(&root, tags, tell)?;
    Ok(promoted)
}

impl Promoted {
    fn add(&mut self, pushed: &Pushed) {
        self.blobs.sent += pushed.blobs.sent;
        self.blobs.mounted += pushed.blobs.mounted;
        self.blobs.present += pushed.blobs.present;
        self.bytes_sent += pushed.bytes_sent;
    }
}

#[expect(clippy::too_many_arguments, reason = "a recursion over what each level shares")]
fn copy_referrers(
    client: &Client,
    delivery: &Delivery<'_>,
    from: &Repository,
    subject: &Document,
    depth: usize,
    seen: &mut BTreeSet<String>,
    promoted: &mut Promoted,
    tell: &mut dyn FnMut(PushEvent),
) -> Result<(), RegistryError> {
    if depth >= REFERRER_DEPTH_MAX {
        return Ok(());
    }
    let digest = subject.digest().map_err(RegistryError::Source)?;
    for entry in referrers(client, from, &digest, None)? {
        if !seen.insert(entry.digest.clone()) {
            continue;
        }
        if seen.len() > REFERRERS_MAX {
            return Err(RegistryError::Wrong {
                host: from.host.clone(),
                asked: format!("what refers to {digest}"),
                cause: format!("there are more than {REFERRERS_MAX}"),
            });
        }
        let document = delivery.source.document(&entry)?;
        if document.subject().is_none_or(|of| of.digest != subject.descriptor.digest) {
            // A list may say anything.
            continue;
        }
        let pushed = delivery.deliver(&document, &[], tell)?;
        promoted.add(&pushed);
        promoted.referrers.push(entry.digest.clone());
        copy_referrers(client, delivery, from, &document, depth + 1, seen, promoted, tell)?;
    }
    Ok(())
}
