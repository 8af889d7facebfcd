//! What says something about an image: signatures, SBOMs, provenance. Listed, attached, and kept in the fallback tag where a
//! registry keeps no track of subjects (distribution specification, "Listing Referrers", "Referrers Tag Schema").

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use ureq::http::Method;

use crate::image::wire::{DOCUMENT_BYTES_MAX, Descriptor, INDEX_ENTRIES_MAX, INDEX_TYPE, Index, Manifest, write};
use crate::image::{BlobDigest, Blobs, ImageError};
use crate::registry::client::{Answer, Client, Question, Sent};
use crate::registry::documents::{Content, Document, pull_scope};
use crate::registry::error::RegistryError;
use crate::registry::push::{Delivery, PushEvent, PushOptions, Pushed, only_document};
use crate::registry::reference::Repository;
use crate::registry::source::Source;

/// Most pages of one list.
const PAGES_MAX: usize = 64;
/// How often the fallback tag is written when others write it too.
const WRITES_MAX: usize = 4;

/// What says something about a manifest, of one kind or of all kinds; sorted by digest, each once.
pub fn referrers(
    client: &Client,
    repository: &Repository,
    subject: &BlobDigest,
    artifact_type: Option<&str>,
) -> Result<Vec<Descriptor>, RegistryError> {
    let subject = subject.to_string();
    let listed = match first_page(client, repository, &subject)? {
        Some(answer) => all_pages(client, repository, answer)?,
        None => match fallback(client, repository, &subject)? {
            Some(document) => document.children().to_vec(),
            None => Vec::new(),
        },
    };
    let is_meant = |entry: &Descriptor| artifact_type.is_none() || entry.artifact_type.as_deref() == artifact_type;
    let found: BTreeMap<String, Descriptor> =
        listed.into_iter().filter(is_meant).map(|entry| (entry.digest.clone(), entry)).collect();
    Ok(found.into_values().collect())
}

/// Pushes a manifest that has a subject, so that it is found from it.
///
/// The layout's `index.json` names that manifest only. The subject need not be there yet. Pushing it again changes nothing.
pub fn attach(
    client: &Client,
    blobs: &Blobs,
    repository: &Repository,
    options: &PushOptions,
    tell: &mut dyn FnMut(PushEvent),
) -> Result<Pushed, RegistryError> {
    let source = Source::Layout(blobs);
    let root = only_document(blobs, &source)?;
    if root.subject().is_none() {
        let (name, cause) = (root.descriptor.digest.clone(), "it has no subject to be attached to".into());
        return Err(RegistryError::Source(ImageError::Malformed { what: "manifest", name, cause }));
    }
    let delivery = Delivery { client, source: &source, target: repository, mount_from: &options.mount_from };
    delivery.deliver(&root, &[], tell)
}

/// Whether a registry lists what has a subject.
pub(super) fn is_served(client: &Client, repository: &Repository, subject: &str) -> Result<bool, RegistryError> {
    Ok(first_page(client, repository, subject)?.is_some())
}

/// What a list says about a manifest with a subject.
pub(super) fn entry(document: &Document, manifest: &Manifest) -> Descriptor {
    let artifact_type = manifest.artifact_type.clone().unwrap_or_else(|| manifest.config.media_type.clone());
    Descriptor {
        artifact_type: Some(artifact_type),
        annotations: manifest.annotations.clone(),
        ..document.descriptor.clone()
    }
}

fn question<'a>(repository: &'a Repository, url: crate::registry::url::Url) -> Question<'a> {
    Question {
        method: Method::GET,
        url,
        repository,
        asked: format!("what refers to an image of {}", repository.name),
        scopes: vec![pull_scope(repository)],
        headers: vec![("Accept", INDEX_TYPE.to_owned())],
        body: Sent::Nothing,
    }
}

/// The first page of the list; `None` where the registry has no such lists.
fn first_page(client: &Client, repository: &Repository, subject: &str) -> Result<Option<Answer>, RegistryError> {
    let answer = client.ask(&question(repository, client.url(repository, &format!("referrers/{subject}"))))?;
    match answer.status {
        200 => {
            // Some answer every address with a page for people.
            let kind = answer.header("Content-Type").unwrap_or_default();
            Ok(kind.to_ascii_lowercase().contains("json").then_some(answer))
        }
        400 | 404 | 405 | 501 => Ok(None),
        _ => Err(answer.refusal()),
    }
}

fn all_pages(client: &Client, repository: &Repository, first: Answer) -> Result<Vec<Descriptor>, RegistryError> {
    let mut found = Vec::new();
    let mut answer = first;
    for _ in 0..PAGES_MAX {
        let next = answer.header("Link").and_then(next_page).map(str::to_owned);
        let next = match next {
            None => None,
            Some(next) => {
                let next = answer.url.join(&next).map_err(|cause| answer.wrong(cause.into()))?;
                if !next.is_same_server(&answer.url) {
                    return Err(answer.wrong("its list goes on at another host".into()));
                }
                Some(next)
            }
        };
        let malformed = answer.wrong(String::new());
        let bytes = answer.document(DOCUMENT_BYTES_MAX)?;
        let page = Index::read(&bytes, "referrers").map_err(|error| with_cause(malformed, error.to_string()))?;
        found.extend(page.manifests);
        let Some(next) = next else { return Ok(found) };
        answer = client.ask(&question(repository, next))?;
        if answer.status != 200 {
            return Err(answer.refusal());
        }
    }
    Err(answer.wrong(format!("its list has more than {PAGES_MAX} pages")))
}

fn with_cause(error: RegistryError, words: String) -> RegistryError {
    match error {
        RegistryError::Wrong { host, asked, .. } => RegistryError::Wrong { host, asked, cause: words },
        other => other,
    }
}

/// The address of `Link: <…>; rel="next"` (RFC 8288).
fn next_page(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|one| {
            let one = one.trim().to_ascii_lowercase();
            one == "rel=next" || one == "rel=\"next\""
        });
        is_next.then_some(address)
    })
}

/// The tag that stands in for the list.
fn fallback_tag(subject: &str) -> String {
    let tag: String = subject.replace(':', "-").chars().take(128).collect();
    tag
}

/// What the fallback tag names; `None` if there is none.
fn fallback(client: &Client, repository: &Repository, subject: &str) -> Result<Option<Document>, RegistryError> {
    match client.document(repository, &fallback_tag(subject)) {
        Ok(document) if matches!(document.content, Content::Index(_)) => Ok(Some(document)),
        Ok(document) => Err(RegistryError::Wrong {
            host: repository.host.clone(),
            asked: format!("the manifest {} of {}", fallback_tag(subject), repository.name),
            cause: format!("it should be an index and is `{}`", document.descriptor.media_type),
        }),
        Err(RegistryError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Adds an entry to the fallback tag of its subject. Others' entries stay as they are. Whether ours is there is looked at
/// afterwards: somebody else may have written the tag at the same moment.
pub(super) fn keep(
    client: &Client,
    repository: &Repository,
    subject: &Descriptor,
    entry: &Descriptor,
) -> Result<(), RegistryError> {
    let tag = fallback_tag(&subject.digest);
    for _ in 0..WRITES_MAX {
        let before = fallback(client, repository, &subject.digest)?;
        let is_there = before.iter().flat_map(Document::children).any(|other| other.digest == entry.digest);
        if is_there {
            return Ok(());
        }
        let bytes = with_entry(before.as_ref().map(|document| &document.bytes[..]), entry);
        let bytes = bytes.map_err(|cause| RegistryError::Wrong {
            host: repository.host.clone(),
            asked: format!("the manifest {tag} of {}", repository.name),
            cause,
        })?;
        let digest = BlobDigest::of(&bytes);
        let after = Document::read(bytes, &digest, Some(INDEX_TYPE)).map_err(RegistryError::Source)?;
        client.put(repository, &tag, &after)?;
    }
    let seen = fallback(client, repository, &subject.digest)?;
    if seen.iter().flat_map(Document::children).any(|other| other.digest == entry.digest) {
        return Ok(());
    }
    Err(RegistryError::Wrong {
        host: repository.host.clone(),
        asked: format!("to list {} in the tag {tag} of {}", entry.digest, repository.name),
        cause: format!("it was written {WRITES_MAX} times, and is not in it; others may be writing it: try again"),
    })
}

/// An index with one more entry, sorted by digest. Entries that were there keep every field, known or not.
fn with_entry(before: Option<&[u8]>, entry: &Descriptor) -> Result<Vec<u8>, String> {
    let ours = serde_json::to_value(entry).map_err(|error| error.to_string())?;
    let mut document = match before {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|error| error.to_string())?,
        None => {
            let empty = Index {
                schema_version: 2,
                media_type: Some(INDEX_TYPE.into()),
                manifests: Vec::new(),
                annotations: None,
            };
            serde_json::from_slice::<Value>(&write(&empty)).map_err(|error| error.to_string())?
        }
    };
    let list = document.get_mut("manifests").and_then(Value::as_array_mut).ok_or("it lists nothing")?;
    if list.len() >= INDEX_ENTRIES_MAX {
        return Err(format!("it names {INDEX_ENTRIES_MAX} manifests already"));
    }
    list.push(ours);
    let digest = |value: &Value| value.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned();
    list.sort_by_key(digest);
    let mut seen = BTreeSet::new();
    list.retain(|value| seen.insert(digest(value)));
    serde_json::to_vec(&document).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        let check = |header: &str, expect: Option<&str>| assert_eq!(next_page(header), expect, "{header}");
        check(r#"</v2/a/referrers/d?n=2>; rel="next""#, Some("/v2/a/referrers/d?n=2"));
        check("</a>; rel=prev, </b>; title=x; rel=next", Some("/b"));
        check("</a>; rel=prev", None);
        check("nonsense", None);
    }

    #[test]
    fn entries_of_others_stay_as_they_are_and_the_order_does_not_depend_on_who_came_first() {
        let entry = |digit: &str| Descriptor {
            media_type: "m".into(),
            digest: format!("sha256:{}", digit.repeat(64)),
            size: 1,
            platform: None,
            artifact_type: Some("kind".into()),
            annotations: None,
        };
        let one = with_entry(Some(&with_entry(None, &entry("b")).expect("b")), &entry("a")).expect("a");
        let other = with_entry(Some(&with_entry(None, &entry("a")).expect("a")), &entry("b")).expect("b");
        assert_eq!(String::from_utf8(one), String::from_utf8(other));
        let foreign = r#"{"schemaVersion":2,"manifests":[{"urls":["u"],"mediaType":"m","digest":"sha256:c","size":3,"x":{"b":1,"a":2}}],"annotations":{"k":"v"}}"#;
        let with = String::from_utf8(with_entry(Some(foreign.as_bytes()), &entry("d")).expect("d")).expect("text");
        assert!(
            with.contains(r#"{"urls":["u"],"mediaType":"m","digest":"sha256:c","size":3,"x":{"b":1,"a":2}}"#),
            "{with}"
        );
        assert!(with.ends_with(r#""annotations":{"k":"v"}}"#), "{with}");
        assert!(with_entry(Some(b"{}"), &entry("a")).is_err());
    }

    #[test]
    fn the_fallback_tag_is_a_tag_for_every_digest() {
        let check = |subject: String, length: usize| {
            let tag = fallback_tag(&subject);
            assert!(crate::registry::reference::is_tag(&tag) && tag.len() == length, "{tag}");
        };
        check(format!("sha256:{}", "a".repeat(64)), 71);
        check(format!("sha512:{}", "a".repeat(128)), 128);
    }
}
