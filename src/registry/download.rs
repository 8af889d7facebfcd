//! One blob into a file: checked as it comes, resumed where it broke off. Does not know to which image it belongs.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ureq::http::Method;

use crate::fs::ops::{self, FsError};
use crate::image::wire::Descriptor;
use crate::image::{BlobDigest, Hasher};
use crate::registry::client::{Answer, Client};
use crate::registry::documents::pull_scope;
use crate::registry::error::{RegistryError, quoted};
use crate::registry::reference::Repository;

const BUFFER_BYTES: usize = 128 * 1024;
/// An attempt that brought this much counts as none: a large blob may break off many times.
const PROGRESS_BYTES: u64 = 1024 * 1024;
/// Attempts for one blob in any case.
const ATTEMPTS_MAX: u32 = 256;

/// How the names of what is not whole begin and end.
const PREFIX: &str = "blobs-";
const ENDING: &str = ".partial";

/// What one blob took.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Downloaded {
    /// Bytes that came over the wire.
    pub received: u64,
    /// Bytes that were there from an earlier attempt or run.
    pub resumed: u64,
}

/// Where one blob comes from and lies meanwhile.
pub(super) struct Download<'a> {
    pub client: &'a Client,
    pub repository: &'a Repository,
    pub descriptor: &'a Descriptor,
    /// A directory for what is not whole, on the file system of `to`. One process at a time uses it.
    pub partial: &'a Path,
    /// Set when another transfer failed.
    pub stop: &'a AtomicBool,
}

/// How one attempt ended that was no error.
enum Came {
    Whole,
    /// What was there before does not fit: once more, from the beginning.
    Again,
}

impl Download<'_> {
    /// Puts the blob at `to`, whole and checked. What broke off stays in the directory for the next time; what is wrong does not.
    pub fn fetch(&self, to: &Path) -> Result<Downloaded, RegistryError> {
        let digest = BlobDigest::parse(&self.descriptor.digest).map_err(|error| self.wrong(&error))?;
        let partial = place(self.partial, &digest);
        let mut done = Downloaded::default();
        let mut failures = 0;
        for _ in 0..ATTEMPTS_MAX {
            let before = done.received;
            match self.attempt(&digest, &partial, &mut done) {
                Ok(Came::Whole) => {
                    ops::sync_file(&partial)?;
                    ops::rename(&partial, to)?;
                    self.client.known.note(self.repository, &self.descriptor.digest);
                    return Ok(done);
                }
                Ok(Came::Again) => failures += 1,
                Err(error) if error.is_passing() && !self.stop.load(Ordering::SeqCst) => {
                    failures = if done.received - before >= PROGRESS_BYTES { 1 } else { failures + 1 };
                    if failures >= self.client.settings().patience.attempts {
                        return Err(error);
                    }
                    self.client.pause(failures, &error)?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(self.wrong(&"it broke off too often"))
    }

    fn wrong(&self, cause: &dyn std::fmt::Display) -> RegistryError {
        RegistryError::Wrong { host: self.repository.host.clone(), asked: self.asked(), cause: cause.to_string() }
    }

    fn asked(&self) -> String {
        format!("the blob {} of {}", quoted(&self.descriptor.digest), self.repository.name)
    }

    fn attempt(&self, digest: &BlobDigest, partial: &Path, done: &mut Downloaded) -> Result<Came, RegistryError> {
        let size = self.descriptor.size;
        let (mut have, mut hasher) = self.what_is_there(digest, partial)?;
        if have < size || size == 0 {
            let mut question =
                self.client.blob_question(Method::GET, self.repository, self.descriptor, pull_scope(self.repository));
            if have > 0 {
                question.headers.push(("Range", format!("bytes={have}-")));
            }
            let answer = self.client.ask_once(&question)?;
            match answer.status {
                206 if have > 0 && starts_at(&answer, have) => done.resumed = done.resumed.max(have),
                200 => {
                    ops::remove_file(partial)?;
                    (have, hasher) = (0, digest.hasher_like());
                }
                // It does not have what we have of it.
                206 | 416 if have > 0 => {
                    ops::remove_file(partial)?;
                    return Ok(Came::Again);
                }
                404 => {
                    return Err(RegistryError::Missing { host: self.repository.host.clone(), asked: self.asked() });
                }
                _ => return Err(answer.refusal()),
            }
            self.receive(answer, partial, size - have, &mut hasher, done)?;
        } else {
            done.resumed = have;
        }
        let found = hasher.finish();
        if found == *digest {
            return Ok(Came::Whole);
        }
        ops::remove_file(partial)?;
        if have > 0 {
            return Ok(Came::Again);
        }
        Err(self.wrong(&format_args!("its bytes have the digest {found}")))
    }

    /// How much of the blob there is already, and the digest so far.
    fn what_is_there(&self, digest: &BlobDigest, partial: &Path) -> Result<(u64, Hasher), RegistryError> {
        let mut hasher = digest.hasher_like();
        let Some(meta) = ops::if_there(ops::symlink_metadata(partial))? else { return Ok((0, hasher)) };
        if !meta.is_file() || meta.len() > self.descriptor.size {
            ops::remove_all(partial)?;
            return Ok((0, hasher));
        }
        let file = ops::open_no_follow(partial)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut have = 0;
        loop {
            let count = ops::read_some(&file, &mut buffer).map_err(|cause| FsError::new("read", partial, cause))?;
            if count == 0 {
                return Ok((have, hasher));
            }
            hasher.update(&buffer[..count]);
            have += count as u64;
        }
    }

    /// Appends what comes; it must be exactly as much as is missing.
    fn receive(
        &self,
        answer: Answer,
        partial: &Path,
        missing: u64,
        hasher: &mut Hasher,
        done: &mut Downloaded,
    ) -> Result<(), RegistryError> {
        let broken = |cause: String| RegistryError::Unreachable {
            host: self.repository.host.clone(),
            asked: self.asked(),
            cause,
            may_pass: true,
        };
        let file = ops::open_append(partial)?;
        let mut stream = answer.stream();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = missing;
        loop {
            self.client.go_on()?;
            if self.stop.load(Ordering::SeqCst) {
                return Err(RegistryError::Cancelled);
            }
            let count = match stream.read(&mut buffer) {
                Ok(0) if left == 0 => return Ok(()),
                Ok(0) => return Err(broken(format!("it broke off {left} bytes too early"))),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.client.go_on()?;
                    return Err(broken(quoted(&error.to_string())));
                }
            };
            if count as u64 > left {
                drop(file);
                ops::remove_file(partial)?;
                return Err(self.wrong(&format_args!("it is longer than {} bytes", self.descriptor.size)));
            }
            ops::write_all(&file, partial, &buffer[..count])?;
            hasher.update(&buffer[..count]);
            left -= count as u64;
            done.received += count as u64;
        }
    }
}

/// Where what there is of a blob lies until it is whole.
pub(super) fn place(partial: &Path, digest: &BlobDigest) -> PathBuf {
    partial.join(format!("{}{ENDING}", digest.path().replace('/', "-")))
}

/// Removes what is not whole from a directory, and nothing else.
pub fn discard(partial: &Path) -> Result<(), FsError> {
    for entry in ops::read_dir(partial)? {
        let is_ours = entry.name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(ENDING));
        if is_ours {
            ops::remove_file(&partial.join(&entry.name))?;
        }
    }
    Ok(())
}

/// Whether a part begins where it was asked for.
fn starts_at(answer: &Answer, have: u64) -> bool {
    let range = answer.header("Content-Range").and_then(|text| text.trim().strip_prefix("bytes "));
    let start = range.and_then(|range| range.split('-').next()).and_then(|text| text.trim().parse::<u64>().ok());
    start == Some(have)
}
