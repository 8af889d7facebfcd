//! The loaded workspace as a file beside the store, so that nothing is read and lowered twice. Knows no manifest, decides nothing:
//! whoever reads it says what it must have been made of.
//!
//! Layout: magic (8 bytes), version of the program and its stat signature, digest of what it was made of, the lengths of six sections,
//! the sections, then BLAKE3 over everything before. Sections: what is read at once; where each task begins; the tasks; where each
//! shared value ends; the shared values; the task graph, which is the graph's to read. A file that is damaged anywhere is as if it were
//! not there, since the checksum is compared before anything is believed; so are one of another program, even of the same version, and
//! one that was made of something else. Texts of manifests are not kept, but their digests: a diagnostic reads them again.

use std::path::Path;
use std::sync::Arc;

use crate::base::compact::{Bytes, Compact, Pool, Reader, Writer, word};
use crate::base::digest::{DIGEST_LEN, Digest};
use crate::base::ids::{IdMap, PackageId};
use crate::base::span::{SourceId, Sources};
use crate::fs::atomic::{self, Durability};
use crate::fs::ops;
pub use crate::fs::ops::FsError;
use crate::fs::stat::StatKey;
use crate::workspace::model::{Package, Workspace};
use crate::workspace::split::Splits;
use crate::workspace::tasks::Tasks;

const MAGIC: [u8; 8] = *b"dryst\0w1";

/// Sections of the file.
const SECTIONS: usize = 6;

/// Bytes of the digest of a manifest's text that are kept: enough to see that it is another one.
const TEXT_DIGEST_BYTES: usize = 8;

crate::base::compact::compact_struct!(Package { dir, name, depends, dev_depends, tasks, place });

/// What a file begins with that this program may use, if it was made of this.
///
/// The signature of the program's own file tells builds of one version apart.
fn head(made_of: &Digest) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    let program = ops::metadata(Path::new("/proc/self/exe")).map(|meta| StatKey::of(&meta)).unwrap_or_default();
    let text = format!("{} {program:?}", env!("CARGO_PKG_VERSION"));
    head.extend_from_slice(Digest::of(text.as_bytes()).as_bytes());
    head.extend_from_slice(made_of.as_bytes());
    head
}

/// Writes a workspace with the bytes of its graph. Nothing is synced: after a power cut the checksum tells.
///
/// # Errors
/// If the file cannot be written.
pub fn write(file: &Path, made_of: &Digest, workspace: &Workspace, graph: &[u8]) -> Result<(), FsError> {
    atomic::write(file, &encode(made_of, workspace, graph), Durability::Relaxed)
}

/// Whether a file begins as one of this program that was made of this.
pub fn is_of(file: &Path, made_of: &Digest) -> bool {
    let head = head(made_of);
    let found = ops::open(file).ok().and_then(|file| ops::read_at(&file, 0, head.len()).ok());
    found.is_some_and(|found| found == head)
}

fn encode(made_of: &Digest, workspace: &Workspace, graph: &[u8]) -> Vec<u8> {
    let Workspace { root: _, config, packages, tasks, splits, sources, diagnostics, walked: _ } = workspace;
    let mut writer = Writer::new();
    let tables = tasks.compile(packages, &mut writer);
    config.put(&mut writer);
    writer.length(packages.len());
    packages.values().for_each(|package| package.put(&mut writer));
    splits.put(&mut writer);
    diagnostics.put(&mut writer);
    put_sources(sources, &mut writer);
    let at_once = writer.drain();
    let (ends, pool) = writer.into_pool();
    let sections: [&[u8]; SECTIONS] = [&at_once, &tables.starts, &tables.bytes, &ends, &pool, graph];
    let mut all = head(made_of);
    sections.iter().for_each(|section| all.extend_from_slice(&word(section.len())));
    sections.iter().for_each(|section| all.extend_from_slice(section));
    let checksum = checksum(&all);
    all.extend_from_slice(checksum.as_bytes());
    all
}

fn checksum(bytes: &[u8]) -> Digest {
    Digest::of(bytes)
}

fn put_sources(sources: &Sources, writer: &mut Writer) {
    writer.length(sources.iter().count());
    for (id, source) in sources.iter() {
        writer.text(&source.path.to_string_lossy());
        writer.raw(&text_digest(sources.text(id)));
    }
}

fn text_digest(text: &str) -> [u8; TEXT_DIGEST_BYTES] {
    let digest = Digest::of(text.as_bytes());
    *digest.as_bytes().first_chunk().expect("a digest has 32 bytes")
}

/// Opens the compiled workspace of `root` with the bytes of its graph; `None` if there is none that is whole, of this program and made
/// of this. Cost: one read of the file and its checksum; tasks are read when they are asked for.
pub fn open(file: &Path, root: &Path, made_of: &Digest) -> Option<(Workspace, Bytes)> {
    decode(ops::read(file).ok()?, root, made_of)
}

fn decode(all: Vec<u8>, root: &Path, made_of: &Digest) -> Option<(Workspace, Bytes)> {
    let head = head(made_of);
    let body_len = all.len().checked_sub(DIGEST_LEN).filter(|_| all.starts_with(&head))?;
    let (body, expected) = all.split_at(body_len);
    if checksum(body).as_bytes() != expected {
        return None;
    }
    let all = Bytes::new(all);
    let lengths = all.part(head.len()..head.len() + SECTIONS * 4)?;
    let mut at = head.len() + SECTIONS * 4;
    let mut sections: Vec<Bytes> = Vec::with_capacity(SECTIONS);
    for section in 0..SECTIONS {
        let end = at.checked_add(lengths.word(section)? as usize)?;
        sections.push(all.part(at..end)?);
        at = end;
    }
    let [at_once, starts, tasks, ends, pool, graph] = <[Bytes; SECTIONS]>::try_from(sections).ok()?;
    let pool = Arc::new(Pool::new(ends, pool));
    let mut reader = Reader::new(&at_once, &pool);
    let tasks = Tasks::compiled(&mut reader, starts, tasks, Arc::clone(&pool))?;
    let config = Compact::take(&mut reader)?;
    let count = reader.length()?;
    let packages: IdMap<PackageId, Package> =
        (0..count).map(|_| Package::take(&mut reader)).collect::<Option<Vec<_>>>()?.into_iter().collect();
    let splits = Splits::take(&mut reader)?;
    let diagnostics = Vec::take(&mut reader)?;
    let sources = take_sources(&mut reader, root)?;
    let root = root.to_owned();
    let workspace = Workspace { root, config, packages, tasks, splits, sources, diagnostics, walked: None };
    (at == body_len && reader.is_at_end()).then_some((workspace, graph))
}

fn take_sources(reader: &mut Reader<'_>, root: &Path) -> Option<Sources> {
    let count = reader.length()?;
    let (mut paths, mut digests) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        paths.push(reader.text()?.into());
        digests.push(<[u8; TEXT_DIGEST_BYTES]>::try_from(reader.raw(TEXT_DIGEST_BYTES)?).ok()?);
    }
    let root = root.to_owned();
    let read_again = move |id: SourceId, path: &Path| {
        let text = ops::read_text(&root.join(path)).ok()?;
        (digests.get(id.0 as usize) == Some(&text_digest(&text))).then_some(text)
    };
    Some(Sources::unread(paths, Arc::new(read_again)))
}

#[cfg(test)]
mod tests;
