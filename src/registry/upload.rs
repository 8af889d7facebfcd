//! One blob into one repository: looked for, mounted, or sent. Does not know to which image it belongs.
//!
//! It is sent with one `PUT`, which every registry takes. Some refuse what is very large so; only there it goes in pieces
//! (`PATCH`), which others do not know at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ureq::http::Method;

use crate::image::BlobDigest;
use crate::image::wire::Descriptor;
use crate::registry::client::{Answer, Client, Question, Sent};
use crate::registry::documents::{DIGEST_HEADER, pull_scope, push_scope};
use crate::registry::error::RegistryError;
use crate::registry::reference::Repository;
use crate::registry::source::{Source, Watched};
use crate::registry::url::{Url, encoded};

/// Bytes of one piece. One registry takes no more, and says so with 416.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;
/// A registry that wants larger pieces than this is not served: a piece is held in memory.
const PIECE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// From how many repositories a mount is tried.
const MOUNTS_MAX: usize = 3;

/// Where blobs are known to be, and which hosts want large ones in pieces.
#[derive(Default)]
pub(super) struct Known {
    places: Mutex<BTreeMap<(String, String), BTreeSet<String>>>,
    pieces_from: Mutex<BTreeMap<String, u64>>,
}

impl Known {
    /// Notes that a repository has a blob.
    pub fn note(&self, repository: &Repository, digest: &str) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry((repository.server().to_owned(), digest.to_owned())).or_default().insert(repository.name.clone());
    }

    /// The other repositories of the host that have a blob.
    fn elsewhere(&self, repository: &Repository, digest: &str) -> Vec<String> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let found = places.get(&(repository.server().to_owned(), digest.to_owned()));
        found.into_iter().flatten().filter(|name| **name != repository.name).cloned().collect()
    }

    fn wants_pieces(&self, repository: &Repository, size: u64) -> bool {
        let from = self.pieces_from.lock().unwrap_or_else(PoisonError::into_inner);
        from.get(repository.server()).is_some_and(|from| size >= *from)
    }

    fn note_pieces(&self, repository: &Repository, size: u64) {
        let mut from = self.pieces_from.lock().unwrap_or_else(PoisonError::into_inner);
        let known = from.entry(repository.server().to_owned()).or_insert(size);
        *known = size.min(*known);
    }
}

/// How a blob came to be where it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Arrived {
    /// It was there.
    Present,
    /// From another repository of the same host.
    Mounted(String),
    /// Over the wire.
    Sent,
}

/// What all blobs of one push share.
pub(super) struct Transfer<'a> {
    pub client: &'a Client,
    pub source: &'a Source<'a>,
    pub target: &'a Repository,
    /// Repositories of the same host that may have blobs.
    pub mount_from: &'a [Repository],
    /// Bytes of blobs that were handed to the wire.
    pub handed: &'a AtomicU64,
    /// Set when another transfer failed.
    pub stop: &'a AtomicBool,
}

impl Transfer<'_> {
    /// Sees that a blob is in the repository. After trouble that may pass it is looked for again, so that nothing is sent twice.
    pub fn deliver(&self, blob: &Descriptor, sending: &dyn Fn()) -> Result<Arrived, RegistryError> {
        let arrived = self.client.patiently(|| self.attempt(blob, sending))?;
        self.client.known.note(self.target, &blob.digest);
        Ok(arrived)
    }

    fn attempt(&self, blob: &Descriptor, sending: &dyn Fn()) -> Result<Arrived, RegistryError> {
        if self.stop.load(Ordering::SeqCst) {
            return Err(RegistryError::Cancelled);
        }
        if self.client.has_blob(self.target, blob, push_scope(self.target))? {
            return Ok(Arrived::Present);
        }
        let begun = match self.mount(blob)? {
            Mount::Done(from) => return Ok(Arrived::Mounted(from)),
            Mount::Begun(answer) => Some(*answer),
            Mount::No => None,
        };
        sending();
        let watched = Watched::new(self.source, blob, self.handed, self.stop)?;
        let begun = match begun {
            Some(begun) => begun,
            None => self.begin()?,
        };
        let sent = if self.client.known.wants_pieces(self.target, blob.size) {
            self.send_pieces(begun, blob, &watched)
        } else {
            self.send_whole(begun, blob, &watched)
        };
        // What is wrong with the bytes says more than how the wire took it.
        sent.map_err(|error| if error.is_passing() { watched.trouble().unwrap_or(error) } else { error })?;
        Ok(Arrived::Sent)
    }

    fn question(&self, method: Method, url: Url, asked: String) -> Question<'_> {
        let scopes = vec![push_scope(self.target)];
        Question { method, url, repository: self.target, asked, scopes, headers: Vec::new(), body: Sent::Nothing }
    }

    fn asked(&self, blob: &Descriptor) -> String {
        format!("to take the blob {} into {}", blob.digest, self.target.name)
    }

    /// Tries to have a blob from another repository of the host.
    fn mount(&self, blob: &Descriptor) -> Result<Mount, RegistryError> {
        let mut from = self.client.known.elsewhere(self.target, &blob.digest);
        let hoped = self.mount_from.iter().filter(|other| other.server() == self.target.server());
        for name in hoped.map(|other| &other.name) {
            if *name != self.target.name && !from.contains(name) {
                from.push(name.clone());
            }
        }
        from.truncate(MOUNTS_MAX);
        let mut begun: Option<Answer> = None;
        for name in from {
            if let Some(unused) = begun.take() {
                self.abandon(&unused);
            }
            let path = format!("blobs/uploads/?mount={}&from={}", encoded(&blob.digest), encoded(&name));
            let mut question = self.question(Method::POST, self.client.url(self.target, &path), self.asked(blob));
            let other = Repository { host: self.target.host.clone(), name: name.clone() };
            question.scopes.push(pull_scope(&other));
            question.scopes.sort();
            question.body = Sent::Bytes(&[]);
            match self.client.ask_once(&question) {
                Ok(answer) if answer.status == 201 => return Ok(Mount::Done(name)),
                Ok(answer) if answer.status == 202 => begun = Some(answer),
                // Whoever may not look there, or does not know of mounts, says so in many ways; sending it is always right.
                Ok(_) => {}
                Err(error) if error.status().is_some_and(|status| (400..500).contains(&status) && status != 429) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(begun.map_or(Mount::No, |begun| Mount::Begun(Box::new(begun))))
    }

    /// Begins to send.
    fn begin(&self) -> Result<Answer, RegistryError> {
        let asked = format!("to take a blob into {}", self.target.name);
        let mut question = self.question(Method::POST, self.client.url(self.target, "blobs/uploads/"), asked);
        question.body = Sent::Bytes(&[]);
        let answer = self.client.ask_once(&question)?;
        if answer.status == 202 { Ok(answer) } else { Err(answer.refusal()) }
    }

    fn send_whole(&self, begun: Answer, blob: &Descriptor, watched: &Watched<'_>) -> Result<(), RegistryError> {
        let url = begun.location()?.with_query("digest", &blob.digest);
        let open = || watched.open();
        let mut question = self.question(Method::PUT, url, self.asked(blob));
        question.headers = vec![("Content-Type", "application/octet-stream".into())];
        question.body = Sent::Stream { open: &open, length: blob.size };
        match self.client.ask_once(&question) {
            Ok(answer) if matches!(answer.status, 201 | 204) => check_taken(&answer, blob),
            Ok(answer) => {
                let refusal = answer.refusal();
                self.abandon(&begun);
                if !is_about_size(&refusal) || blob.size <= PIECE_BYTES {
                    return Err(refusal);
                }
                self.client.known.note_pieces(self.target, blob.size);
                self.send_pieces(self.begin()?, blob, watched)
            }
            Err(error) => {
                // Whoever gave no answer gets no further question.
                if watched.is_troubled() || error.status().is_some() {
                    self.abandon(&begun);
                }
                Err(error)
            }
        }
    }

    /// Sends a blob in pieces, each to where the answer to the one before led. What a registry says it has must be what it was
    /// sent: one takes pieces at any place without a word.
    fn send_pieces(&self, begun: Answer, blob: &Descriptor, watched: &Watched<'_>) -> Result<(), RegistryError> {
        let least = begun.header("OCI-Chunk-Min-Length").and_then(|text| text.trim().parse::<u64>().ok());
        let piece_bytes = PIECE_BYTES.max(least.unwrap_or(0));
        if piece_bytes > PIECE_BYTES_MAX {
            return Err(
                begun.wrong(format!("it wants pieces of {piece_bytes} bytes, {PIECE_BYTES_MAX} at most are sent"))
            );
        }
        let mut last = begun;
        let mut reader = watched.open()?;
        let mut done = 0;
        while done < blob.size {
            let mut piece = Vec::new();
            let read = reader.by_ref().take(piece_bytes).read_to_end(&mut piece);
            if let Err(error) = read {
                self.abandon(&last);
                let cause = error.to_string();
                let broken = RegistryError::Blob { digest: blob.digest.clone(), cause };
                return Err(watched.trouble().unwrap_or(broken));
            }
            let end = done + piece.len() as u64;
            let mut question = self.question(Method::PATCH, last.location()?, self.asked(blob));
            question.headers = vec![
                ("Content-Type", "application/octet-stream".into()),
                ("Content-Range", format!("{done}-{}", end - 1)),
            ];
            question.body = Sent::Bytes(&piece);
            let answer = self.client.ask_once(&question)?;
            if answer.status != 202 {
                let refusal = answer.refusal();
                self.abandon(&last);
                return Err(refusal);
            }
            let range = answer.header("Range").unwrap_or_default();
            let has = range.trim_start_matches("bytes=").strip_prefix("0-").and_then(|text| text.parse::<u64>().ok());
            if has.is_some_and(|has| has.checked_add(1) != Some(end)) || (has.is_none() && !range.is_empty()) {
                let cause = format!("it was sent {end} bytes, and says it has `{}`", range.escape_debug());
                return Err(answer.wrong(cause));
            }
            (last, done) = (answer, end);
        }
        let url = last.location()?.with_query("digest", &blob.digest);
        let mut question = self.question(Method::PUT, url, self.asked(blob));
        question.body = Sent::Bytes(&[]);
        let answer = self.client.ask_once(&question)?;
        if matches!(answer.status, 201 | 204) { check_taken(&answer, blob) } else { Err(answer.refusal()) }
    }

    /// Tells the registry that nothing more comes. It would find out by itself, so that what it says does not matter.
    fn abandon(&self, begun: &Answer) {
        if let Ok(url) = begun.location() {
            let asked = format!("to forget a blob of {}", self.target.name);
            drop(self.client.ask_once(&self.question(Method::DELETE, url, asked)));
        }
    }
}

enum Mount {
    Done(String),
    Begun(Box<Answer>),
    No,
}

/// Whether a registry means that it was too much at once.
fn is_about_size(refusal: &RegistryError) -> bool {
    let RegistryError::Refused { status, told, .. } = refusal else { return false };
    let told = told.to_ascii_lowercase();
    let says_so = ["too large", "exceed", "size_invalid", "too big"].iter().any(|words| told.contains(words));
    *status == 413 || ((400..500).contains(status) && ![401, 403, 404, 429].contains(status) && says_so)
}

fn check_taken(answer: &Answer, blob: &Descriptor) -> Result<(), RegistryError> {
    let told = answer.header(DIGEST_HEADER).and_then(|text| BlobDigest::parse(text).ok());
    match told.map(|told| told.to_string()) {
        Some(told) if told != blob.digest && told.split(':').next() == blob.digest.split(':').next() => {
            Err(answer.wrong(format!("it took {} for {told}", blob.digest)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_refused_for_its_size_goes_in_pieces() {
        let check = |status: u16, told: &str, expect: bool| {
            let refusal = RegistryError::Refused {
                host: "h".into(),
                asked: "a".into(),
                status,
                told: told.into(),
                retry_after: None,
            };
            assert_eq!(is_about_size(&refusal), expect, "{status} {told}");
        };
        check(413, "", true);
        check(400, "SIZE_INVALID: no", true);
        check(416, "exceeds the maximum permissible limit", true);
        check(400, "DIGEST_INVALID: no", false);
        check(403, "quota exceeded", false);
        check(429, "rate exceeded", false);
        check(500, "too large", false);
    }
}
