//! Carrying results from store to store in one file: a tar archive under zstd, the same bytes for the same results.
//!
//! Entries in order: `drystone-archive` (the version), `trees/<64 hex>` and `blobs/<64 hex>` sorted by digest, `results`
//! (the encoding below) last. `results`: `u64` count, then per result in order of the actions: length-prefixed result,
//! length-prefixed fingerprint, and the length-prefixed lines that the ledger has of the action: `u64` count, then each. Archives of
//! version 1 have no lines. Nothing else is accepted: no other names, kinds or order, and no entry after `results`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::base::digest::{Digest, Digester};
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::limits::{FETCH_BYTES_MAX, INLINE_BLOB_BYTES_MAX, LEDGER_ROWS_PER_ACTION};
use crate::base::tree::Tree;
use crate::fs::atomic::temporary_beside;
use crate::fs::ops::{self, AtPath};
use crate::store::blobs::{OnDamage, write_new};
use crate::store::content::{Key, Kind};
use crate::store::durations;
use crate::store::error::StoreError;
use crate::store::ledger::LedgerEntry;
use crate::store::open::Store;
use crate::store::results::{ActionResult, Recorded};

const VERSION_NAME: &str = "drystone-archive";
const VERSION_TEXT: &[u8] = b"drystone archive 2\n";
/// What archives without the ledger begin with.
const VERSION_1_TEXT: &[u8] = b"drystone archive 1\n";
const RESULTS_NAME: &str = "results";
const ZSTD_LEVEL: i32 = 3;
/// Largest encoded tree accepted, in bytes.
const TREE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Largest `results` entry accepted, in bytes.
const RESULTS_BYTES_MAX: u64 = 1024 * 1024 * 1024;
const COPY_BUFFER_BYTES: usize = 256 * 1024;
/// Most bytes accepted behind the last entry: archives are padded.
const PADDING_BYTES_MAX: u64 = 64 * 1024;
/// Most bytes of contents held in memory while an archive is read; further ones wait in files.
const STAGED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What was exported.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExportReport {
    /// Results in the archive.
    pub results: u64,
    /// Blobs in the archive.
    pub blobs: u64,
    /// Trees in the archive.
    pub trees: u64,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Actions without a whole result here.
    pub missing: Vec<Digest>,
}

/// What was imported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ImportReport {
    /// Results that are new here.
    pub results: u64,
    /// Results that were here already with the same outputs.
    pub known: u64,
    /// Results that were here with other outputs, which stay.
    pub differing: u64,
    /// Results that name something neither the archive nor the store has.
    pub incomplete: u64,
    /// Blobs in the archive.
    pub blobs: u64,
    /// Trees in the archive.
    pub trees: u64,
}

impl Store {
    /// Writes the results of these actions and everything they name to one file, swapped in whole.
    ///
    /// Actions without a whole result are reported, not an error. The same results make the same bytes.
    pub fn export(&self, actions: &[Digest], to: &Path) -> Result<ExportReport, StoreError> {
        let mut report = ExportReport::default();
        let mut results = BTreeMap::new();
        let mut trees = BTreeSet::new();
        let mut blobs = BTreeMap::new();
        for action in actions.iter().collect::<BTreeSet<_>>() {
            let whole = match self.lookup(action)? {
                Some(result) => self.closure(&result.outputs, OnDamage::Drop)?.map(|closure| (result, closure)),
                None => None,
            };
            let Some((result, closure)) = whole else {
                report.missing.push(*action);
                continue;
            };
            let log = Key::blob(result.stdout_stderr);
            let log_size = self.present(&log)?.map_or(0, |found| found.size);
            blobs.insert(log.digest, log_size);
            blobs.extend(closure.blobs);
            trees.extend(closure.trees);
            results.insert(*action, result);
        }
        let temporary = temporary_beside(to);
        let written = self.write_archive(&temporary, &results, &trees, &blobs);
        let placed = written.and_then(|()| Ok(ops::rename(&temporary, to)?));
        if let Err(error) = placed {
            drop(ops::remove_file(&temporary));
            return Err(error);
        }
        report.results = results.len() as u64;
        report.trees = trees.len() as u64;
        report.blobs = blobs.len() as u64;
        report.bytes = ops::metadata(to)?.len();
        Ok(report)
    }

    fn write_archive(
        &self,
        path: &Path,
        results: &BTreeMap<Digest, ActionResult>,
        trees: &BTreeSet<Digest>,
        blobs: &BTreeMap<Digest, u64>,
    ) -> Result<(), StoreError> {
        let file = BufWriter::new(ops::NewFile::create(path, 0o644)?);
        let mut encoder = zstd::stream::Encoder::new(file, ZSTD_LEVEL).at("write", path)?;
        encoder.include_checksum(true).at("write", path)?;
        let mut writer = ArchiveWriter { tar: tar::Builder::new(encoder), path };
        writer.add(VERSION_NAME, VERSION_TEXT.len() as u64, VERSION_TEXT)?;
        let gone = |key: &Key| StoreError::Archive {
            path: path.to_owned(),
            problem: format!("`{}` was found damaged while it was read", key.digest),
        };
        for digest in trees {
            let key = Key::tree(*digest);
            let bytes = self.load(&key)?.ok_or_else(|| gone(&key))?;
            writer.add(&entry_name(&key), bytes.len() as u64, bytes.as_slice())?;
        }
        for (digest, size) in blobs {
            let key = Key::blob(*digest);
            if self.present(&key)?.is_some_and(|found| found.is_file) {
                let source = ops::open_no_follow(&self.layout.content(&key))?;
                let mut source = Digesting { source: source.take(*size), digester: Digester::default() };
                writer.add(&entry_name(&key), *size, &mut source)?;
                if source.digester.finish() != *digest {
                    self.drop_damaged(&key)?;
                    return Err(gone(&key));
                }
            } else {
                let bytes = self.load(&key)?.ok_or_else(|| gone(&key))?;
                writer.add(&entry_name(&key), bytes.len() as u64, bytes.as_slice())?;
            }
        }
        let encoded = self.encode_results(results)?;
        writer.add(RESULTS_NAME, encoded.len() as u64, encoded.as_slice())?;
        Ok(writer.finish()?.sync()?)
    }

    fn encode_results(&self, results: &BTreeMap<Digest, ActionResult>) -> Result<Vec<u8>, StoreError> {
        let mut encoder = Encoder::new();
        encoder.u64(results.len() as u64);
        for (action, result) in results {
            encoder.bytes(&result.encode()).bytes(&self.fingerprint(action)?.unwrap_or_default());
            let lines = self.ledger(action)?;
            let mut told = Encoder::new();
            told.u64(lines.len() as u64);
            lines.iter().for_each(|line| line.encode(&mut told));
            encoder.bytes(told.as_slice());
        }
        Ok(encoder.into_vec())
    }

    /// Reads an archive that [`Store::export`] wrote. Every digest is checked before anything is stored.
    ///
    /// A result comes in whole or not at all; what the store has already stays. The durations in it are kept apart, in place of those of
    /// earlier archives.
    ///
    /// # Errors
    /// [`StoreError::Archive`] for anything unexpected in the archive, and then nothing is imported.
    pub fn import(&self, from: &Path) -> Result<ImportReport, StoreError> {
        let session = self.session()?;
        let stage = self.stage()?;
        let mut unpacking = Unpacking {
            stage: stage.path(),
            bytes_left: self.bytes_max,
            memory_left: STAGED_BYTES_MAX,
            contents: BTreeMap::new(),
        };
        let results = unpacking.read(from).map_err(|problem| match problem {
            Problem::Archive(problem) => StoreError::Archive { path: from.to_owned(), problem },
            Problem::Store(error) => error,
        })?;
        let mut report = ImportReport::default();
        let pass = session.gate.enter()?;
        for (key, staged) in unpacking.contents {
            match key.kind {
                Kind::Blob => report.blobs += 1,
                Kind::Tree => report.trees += 1,
            }
            match staged {
                Staged::Bytes(bytes) => self.put(session, key, &bytes, &pass)?,
                Staged::File { path, size } if size <= INLINE_BLOB_BYTES_MAX as u64 => {
                    self.put(session, key, &ops::read(&path)?, &pass)?;
                }
                Staged::File { path, size } => self.adopt(session, key, size, &path, &pass)?,
            }
        }
        drop(pass);
        durations::keep(self.dir(), results.iter().map(|carried| &carried.result))?;
        for Carried { result, fingerprint, lines } in results {
            if !self.is_whole(&result)? {
                report.incomplete += 1;
                continue;
            }
            let known = self.find_result(&result.action)?.is_some_and(|row| row.result.outputs == result.outputs);
            match self.record_carried(result, &fingerprint, lines)? {
                _ if known => report.known += 1,
                Recorded::Stored => report.results += 1,
                Recorded::Agrees => report.known += 1,
                Recorded::Differs { .. } => report.differing += 1,
            }
        }
        self.flush()?;
        Ok(report)
    }
}

fn entry_name(key: &Key) -> String {
    format!("{}/{}", key.kind.dir(), key.digest)
}

struct ArchiveWriter<'p, W: Write> {
    tar: tar::Builder<zstd::stream::Encoder<'static, BufWriter<W>>>,
    path: &'p Path,
}

impl<W: Write> ArchiveWriter<'_, W> {
    fn add(&mut self, name: &str, size: u64, bytes: impl Read) -> Result<(), StoreError> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o444);
        header.set_size(size);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        Ok(self.tar.append_data(&mut header, name, bytes).at("write", self.path)?)
    }

    fn finish(self) -> Result<W, StoreError> {
        let buffered = self.tar.into_inner().and_then(|encoder| encoder.finish()).at("write", self.path)?;
        Ok(buffered.into_inner().map_err(io::IntoInnerError::into_error).at("write", self.path)?)
    }
}

struct Digesting<R> {
    source: R,
    digester: Digester,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.digester.update(&buffer[..count]);
        Ok(count)
    }
}

enum Staged {
    Bytes(Vec<u8>),
    File { path: PathBuf, size: u64 },
}

enum Problem {
    Archive(String),
    Store(StoreError),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Problem::Archive(format!("it cannot be read to the end: {error}"))
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        Problem::Archive(error.to_string())
    }
}

fn refuse<T>(problem: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::Archive(problem.into()))
}

/// An archive being read into a stage, believed only as far as it was checked.
struct Unpacking<'s> {
    stage: &'s Path,
    bytes_left: u64,
    memory_left: u64,
    contents: BTreeMap<Key, Staged>,
}

impl Unpacking<'_> {
    fn read(&mut self, from: &Path) -> Result<Vec<Carried>, Problem> {
        let file = ops::open(from).map_err(|error| Problem::Store(error.into()))?;
        let mut decoder = zstd::stream::Decoder::new(file)?;
        let (mut results, mut version) = (None, Version::Ledger);
        let mut archive = tar::Archive::new(&mut decoder);
        // Raw: no extension header may give an entry another name or size than its own.
        for (position, entry) in archive.entries()?.raw(true).enumerate() {
            let mut entry = entry?;
            let name = match std::str::from_utf8(&entry.path_bytes()) {
                Ok(name) => name.to_owned(),
                Err(_) => return refuse("a name in it is not UTF-8"),
            };
            let size = entry.size();
            if entry.header().entry_type() != tar::EntryType::Regular {
                return refuse(format!("`{name}` is no regular file"));
            }
            match self.bytes_left.checked_sub(size) {
                Some(left) => self.bytes_left = left,
                None => return refuse("it holds more than the store may (its cap)"),
            }
            match (position, results.is_some()) {
                (_, true) => return refuse(format!("`{name}` follows the results")),
                (0, _) if name != VERSION_NAME => return refuse("it is no drystone archive"),
                (0, _) => version = version_of(&read_whole(&mut entry, size, 64)?)?,
                _ if name == RESULTS_NAME => {
                    results = Some(decode_results(&read_whole(&mut entry, size, RESULTS_BYTES_MAX)?, version)?);
                }
                _ => self.stage_content(&name, &mut entry, size)?,
            }
        }
        // To the very end: the checksum stands there. What unpacks to more than padding is no end.
        let rest = io::copy(&mut decoder.by_ref().take(PADDING_BYTES_MAX + 1), &mut io::sink())?;
        if rest > PADDING_BYTES_MAX {
            return refuse("it goes on after its end");
        }
        match results {
            Some(results) => Ok(results),
            None => refuse("it ends before its results"),
        }
    }

    fn stage_content(&mut self, name: &str, entry: &mut impl Read, size: u64) -> Result<(), Problem> {
        let Some(key) = parse_name(name) else { return refuse(format!("it holds an unexpected `{name}`")) };
        let limit = match key.kind {
            Kind::Blob => FETCH_BYTES_MAX,
            Kind::Tree => TREE_BYTES_MAX,
        };
        if size > limit {
            return refuse(format!("`{name}` has {size} bytes, more than {limit}"));
        }
        let path = self.stage.join(self.contents.len().to_string());
        let staged = if key.kind == Kind::Tree || size <= INLINE_BLOB_BYTES_MAX as u64 {
            let bytes = read_whole(entry, size, limit)?;
            if key.kind.digest(&bytes) != key.digest {
                return refuse(format!("`{name}` has another digest"));
            }
            if key.kind == Kind::Tree {
                Tree::decode(&bytes)?;
            }
            match self.memory_left.checked_sub(size) {
                Some(left) => {
                    self.memory_left = left;
                    Staged::Bytes(bytes)
                }
                None => {
                    write_new(&path, &bytes, 0o444).map_err(|error| Problem::Store(error.into()))?;
                    Staged::File { path, size }
                }
            }
        } else {
            if stage_file(&path, entry)? != (key.digest, size) {
                return refuse(format!("`{name}` has another digest"));
            }
            Staged::File { path, size }
        };
        match self.contents.insert(key, staged) {
            None => Ok(()),
            Some(_) => refuse(format!("it holds `{name}` twice")),
        }
    }
}

fn stage_file(path: &Path, entry: &mut impl Read) -> Result<(Digest, u64), Problem> {
    let file = ops::create_new(path, 0o444).map_err(|error| Problem::Store(error.into()))?;
    let mut digester = Digester::default();
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    let mut total = 0;
    loop {
        let count = ops::read_some(&mut *entry, &mut buffer)?;
        if count == 0 {
            return Ok((digester.finish(), total));
        }
        digester.update(&buffer[..count]);
        ops::write_all(&file, path, &buffer[..count]).map_err(|error| Problem::Store(error.into()))?;
        total += count as u64;
    }
}

fn read_whole(entry: &mut impl Read, size: u64, limit: u64) -> Result<Vec<u8>, Problem> {
    if size > limit {
        return refuse(format!("an entry has {size} bytes, more than {limit}"));
    }
    // Grows with what really comes: the size in a header is a claim.
    let mut bytes = Vec::new();
    entry.take(size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size { refuse("it ends early") } else { Ok(bytes) }
}

fn version_of(text: &[u8]) -> Result<Version, Problem> {
    match text {
        VERSION_TEXT => Ok(Version::Ledger),
        VERSION_1_TEXT => Ok(Version::Bare),
        _ => refuse(format!("its format is `{}`", String::from_utf8_lossy(text).trim_end())),
    }
}

/// Only exactly `blobs/` or `trees/` and 64 hexadecimal digits: no name can leave the stage, since none becomes a path.
fn parse_name(name: &str) -> Option<Key> {
    let (dir, hex) = name.split_once('/')?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.dir() == dir)?;
    Some(Key { kind, digest: Digest::parse(hex)? })
}

/// A result on its way between stores.
struct Carried {
    result: ActionResult,
    fingerprint: Vec<u8>,
    /// What the ledger there has of its action.
    lines: Vec<LedgerEntry>,
}

/// What an archive holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    /// Results alone.
    Bare,
    /// Results with their lines of the ledger.
    Ledger,
}

fn decode_results(bytes: &[u8], version: Version) -> Result<Vec<Carried>, Problem> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.u64()?;
    let mut results = Vec::new();
    for _ in 0..count {
        let result = ActionResult::decode(decoder.bytes()?)?;
        let fingerprint = decoder.bytes()?.to_owned();
        let lines = match version {
            Version::Bare => vec![line_of(&result)],
            Version::Ledger => decode_lines(decoder.bytes()?)?,
        };
        results.push(Carried { result, fingerprint, lines });
    }
    decoder.finish()?;
    Ok(results)
}

fn decode_lines(bytes: &[u8]) -> Result<Vec<LedgerEntry>, Problem> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.u64()?;
    if count > LEDGER_ROWS_PER_ACTION as u64 {
        return refuse(format!(
            "it has {count} lines of the ledger for one action, more than {LEDGER_ROWS_PER_ACTION}"
        ));
    }
    let lines = (0..count).map(|_| LedgerEntry::decode(&mut decoder)).collect::<Result<_, _>>()?;
    decoder.finish()?;
    Ok(lines)
}

/// What a result without lines tells of where it was made.
fn line_of(result: &ActionResult) -> LedgerEntry {
    LedgerEntry {
        outputs: result.outputs,
        workspace: result.workspace.clone(),
        machine: None,
        builder: None,
        label: result.label.clone(),
        at_ms: result.created_ms,
        times: 1,
    }
}
