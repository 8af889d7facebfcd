//! How the tree and the tasks of a run were when it ended, saved so that the next run with the same words need not load and plan anew.
//! What of it still holds is `again`'s to find out; here is the file.
//!
//! One file per request in the state directory of the workspace: magic, version and signature of the program, mark of the store, digests of
//! the request and of the environment, the names of the variables in it, what else was found out (`Found`), the census, then the tasks
//! in the order of the plan and the sets of source files they have; last, BLAKE3 over everything before. Texts are length-prefixed,
//! integers little-endian. A damaged file, that of another program and one from before something was taken out of the store is none.
//! Its modification time is when the results it names were last marked as used.
//!
//! Beside it a journal (`journal`) has what became of single tasks and files since.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::base::digest::{DIGEST_LEN, Digest};
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::Listing;
use crate::engine::journal::{self, Patch};
use crate::engine::scheduler::Weight;
use crate::engine::standing::{Stood, decode_listing};
use crate::engine::tracked::CleanIndex;
use crate::fs::atomic::{self, Durability};
use crate::fs::look::{self, Links};
use crate::fs::ops::{self, FsError};
use crate::fs::stat::StatKey;
use crate::fs::witness::unheard;
use crate::manifest::model::IsolationRequest;
use crate::workspace::census::{self, Census};
use crate::workspace::census_file;

const MAGIC: [u8; 8] = *b"dryst\0e3";

/// The program that wrote a file: another one may resolve tasks otherwise.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Requests that are kept for one worktree; of more the oldest goes.
const REQUESTS_MAX: usize = 8;

/// What file names begin with.
const PREFIX: &str = "settled-";

/// Variables that decide which tools there are.
const TOOL_VARIABLES: [&str; 5] = ["PATH", "HOME", "PYENV_VERSION", "RUSTUP_TOOLCHAIN", "RUSTUP_HOME"];

/// What was asked for: the words, where the person stands, and what else decides which tasks there are and what they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Targets as they were written.
    pub words: Vec<String>,
    /// Directory relative to the workspace.
    pub here: RelPath,
    /// Level asked for.
    pub isolation: Option<IsolationRequest>,
}

impl Request {
    /// Tells it from all others, also from those of other users.
    pub fn digest(&self) -> Digest {
        let Self { words, here, isolation } = self;
        let mut encoder = Encoder::new();
        encoder.u64(words.len() as u64);
        words.iter().for_each(|word| {
            encoder.bytes(word.as_bytes());
        });
        encoder.bytes(here.as_str().as_bytes());
        encoder.u8(match isolation {
            None => 0,
            Some(IsolationRequest::Auto) => 1,
            Some(IsolationRequest::Namespaces) => 2,
            Some(IsolationRequest::Landlock) => 3,
            Some(IsolationRequest::None) => 4,
        });
        encoder.u64(u64::from(rustix::process::geteuid().as_raw()));
        Digest::of(encoder.as_slice())
    }

    fn file(&self, state_dir: &Path) -> PathBuf {
        state_dir.join(format!("{PREFIX}{}", self.digest().short()))
    }
}

/// The variables that a run depends on. Of secrets it only matters whether they are there.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Variables {
    /// Whose values count.
    pub values: BTreeSet<String>,
    /// Whose presence counts.
    pub presence: BTreeSet<String>,
}

impl Variables {
    /// What tools depend on, and these.
    pub fn with(values: impl IntoIterator<Item = String>, presence: impl IntoIterator<Item = String>) -> Self {
        let tools = TOOL_VARIABLES.iter().map(|name| (*name).to_owned());
        Self { values: tools.chain(values).collect(), presence: presence.into_iter().collect() }
    }

    /// Tells two environments apart as far as they matter.
    pub fn digest(&self, environment: &BTreeMap<String, String>) -> Digest {
        let mut encoder = Encoder::new();
        for name in &self.values {
            let value = environment.get(name);
            encoder.u8(u8::from(value.is_some())).bytes(value.map_or(&[][..], |value| value.as_bytes()));
        }
        for name in &self.presence {
            encoder.u8(u8::from(environment.contains_key(name)));
        }
        Digest::of(encoder.as_slice())
    }
}

/// A task as the run left it.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its id in the loaded workspace.
    pub task: TaskId,
    /// Its label.
    pub label: String,
    /// Whether it was asked for, rather than needed.
    pub is_selected: bool,
    /// Its source files, as a position in [`Settled::sets`].
    pub set: usize,
    /// What it needs, by position.
    pub needs: Vec<usize>,
    /// What it holds while it runs.
    pub weight: Weight,
    /// Whether it asks for limits that not every machine can hold.
    pub limited: bool,
    /// Its result; `None` for one that has to be looked at again whatever else is as it was.
    pub stood: Option<StoodLine>,
}

/// The result of a task that stood.
#[derive(Clone, Debug)]
pub struct StoodLine {
    /// Digest of all its key was made of.
    pub memo: Digest,
    /// Its key.
    pub key: Digest,
    /// Tree of its outputs.
    pub outputs: Digest,
    /// Level its result was made at, as a word.
    pub isolation: String,
    /// Time its result took, in milliseconds.
    pub duration_ms: u64,
    /// What was recorded of it as its own, if it has wildcards among its outputs.
    pub record: Option<Digest>,
    /// Where its listing is encoded.
    pub(super) listing: Range<usize>,
}

/// The source files of one or several tasks.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Set {
    /// Positions of their claims in the census.
    pub files: Vec<u32>,
    /// Empty directories among the sources.
    pub empty_dirs: Vec<RelPath>,
}

/// A task to be saved, with the listing of its outputs.
pub struct Saved<'a> {
    /// All but where the listing is.
    pub line: Line,
    /// The listing as it is encoded; empty for one that does not stand.
    pub listing: &'a [u8],
}

/// What was found out about the machine and the workspace, and is so as long as the census holds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Found {
    /// Text of the system's identity.
    pub system: String,
    /// What the compiled workspace was made of.
    pub model: Option<Digest>,
    /// Git's index when no output was found in it.
    pub index: Option<CleanIndex>,
}

impl Found {
    fn encode(&self, encoder: &mut Encoder) {
        let Self { system, model, index } = self;
        encoder.bytes(system.as_bytes()).u8(u8::from(model.is_some()));
        model.iter().for_each(|model| {
            encoder.digest(model);
        });
        CleanIndex::encode(index.as_ref(), encoder);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let system = decoder.text("system")?.to_owned();
        let model = if decoder.u8()? == 1 { Some(decoder.digest()?) } else { None };
        Ok(Self { system, model, index: CleanIndex::decode(decoder)? })
    }
}

/// What must be the same for a file to be of use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ground {
    /// Mark of the store.
    pub mark: Digest,
    /// Signature of the program.
    program: StatKey,
}

impl Ground {
    /// That of this process, with this mark; `None` if the program cannot be looked at.
    pub fn of(mark: Digest) -> Option<Self> {
        let program = look::stat(Path::new("/proc/self/exe"), Links::Followed)?;
        Some(Self { mark, program })
    }
}

/// A checked file.
#[derive(Debug)]
pub struct Settled {
    bytes: Vec<u8>,
    census: Vec<u8>,
    variables: Variables,
    /// What was found out.
    pub found: Found,
    /// Tells this file from all earlier and later ones.
    pub id: Digest,
    /// Bytes of the journal that were read.
    pub journal_len: usize,
    /// The tasks, each after everything it needs.
    pub lines: Vec<Line>,
    /// Sets of source files.
    pub sets: Vec<Set>,
    /// When results were last marked as used, in nanoseconds since 1970.
    pub used_ns: i64,
}

impl Settled {
    /// Reads what is kept of a request, if its ground and the environment are as they were. Cost: one read.
    pub fn load(
        state_dir: &Path,
        request: &Request,
        ground: &Ground,
        environment: &BTreeMap<String, String>,
    ) -> Option<Self> {
        let file = request.file(state_dir);
        let used_ns = look::stat(&file, Links::Refused)?.mtime_ns;
        let bytes = unheard(|| ops::read(&file)).ok()?;
        let settled = Self::decode(bytes, Some(request), ground, environment, used_ns).ok()?;
        Some(settled.with_journal(&file))
    }

    /// The same of whatever request was used last.
    pub fn latest(state_dir: &Path, ground: &Ground, environment: &BTreeMap<String, String>) -> Option<Self> {
        let entries = unheard(|| ops::read_dir(state_dir)).ok()?;
        let names = entries.iter().filter_map(|entry| entry.name.to_str());
        let files = names.filter(|name| journal::is_base(name, PREFIX)).map(|name| state_dir.join(name));
        let dated = files.filter_map(|file| Some((look::stat(&file, Links::Refused)?.mtime_ns, file)));
        let (used_ns, file) = dated.max()?;
        let bytes = unheard(|| ops::read(&file)).ok()?;
        let settled = Self::decode(bytes, None, ground, environment, used_ns).ok()?;
        Some(settled.with_journal(&file))
    }

    fn with_journal(mut self, file: &Path) -> Self {
        let journal = unheard(|| ops::read(&journal::file(file))).unwrap_or_default();
        self.journal_len = journal.len();
        for patch in journal::read(&journal, &self.id) {
            self.apply(&patch);
        }
        self
    }

    /// Takes over what became of tasks and files since.
    fn apply(&mut self, patch: &Patch) {
        for (position, claim) in &patch.claims {
            census::replace(&mut self.census, *position, claim);
        }
        for (position, line) in &patch.lines {
            let Some(known) = self.lines.get_mut(*position) else { continue };
            known.stood = line.as_ref().map(|(stood, listing)| {
                // Behind what was read, where nothing else is looked for.
                let start = self.bytes.len();
                self.bytes.extend_from_slice(listing);
                StoodLine { listing: start..self.bytes.len(), ..stood.clone() }
            });
        }
        if let Some(index) = &patch.index {
            self.found.index = Some(index.clone());
        }
    }

    fn decode(
        bytes: Vec<u8>,
        request: Option<&Request>,
        ground: &Ground,
        environment: &BTreeMap<String, String>,
        used_ns: i64,
    ) -> Result<Self, DecodeError> {
        let wrong = |what| DecodeError::Invalid { what };
        let mut decoder = Decoder::sealed(&bytes)?;
        if decoder.bytes()? != MAGIC || decoder.text("version")? != VERSION {
            return Err(wrong("header"));
        }
        let known = Ground { program: decode_stat(&mut decoder)?, mark: decoder.digest()? };
        let asked = decoder.digest()?;
        if known != *ground || request.is_some_and(|request| request.digest() != asked) {
            return Err(wrong("ground"));
        }
        let expected = decoder.digest()?;
        let names = |decoder: &mut Decoder<'_>| -> Result<BTreeSet<String>, DecodeError> {
            (0..decoder.u64()?).map(|_| Ok(decoder.text("name of a variable")?.to_owned())).collect()
        };
        let variables = Variables { values: names(&mut decoder)?, presence: names(&mut decoder)? };
        if variables.digest(environment) != expected {
            return Err(wrong("environment"));
        }
        let found = Found::decode(&mut decoder)?;
        let body_len = bytes.len() - DIGEST_LEN;
        let id = Digest::from_slice(&bytes[body_len..]).ok_or(wrong("checksum"))?;
        let census = census_file::unpack(decoder.bytes()?).ok_or(wrong("census"))?;
        let claims = Census::of(&census).ok_or(wrong("census"))?.len() as u64;
        let lines =
            (0..decoder.u64()?).map(|at| decode_line(&mut decoder, body_len, at)).collect::<Result<Vec<_>, _>>()?;
        let sets = (0..decoder.u64()?).map(|_| decode_set(&mut decoder, claims)).collect::<Result<Vec<_>, _>>()?;
        decoder.finish()?;
        if lines.iter().any(|line| line.set >= sets.len()) {
            return Err(wrong("set of sources"));
        }
        Ok(Self { bytes, census, variables, found, id, journal_len: 0, lines, sets, used_ns })
    }

    /// The census.
    pub fn census(&self) -> Census<'_> {
        Census::of(&self.census).expect("it was checked when it was read")
    }

    /// The variables that a run depends on.
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// The listing of a task that stood, as it is encoded.
    pub fn encoded(&self, stood: &StoodLine) -> &[u8] {
        &self.bytes[stood.listing.clone()]
    }

    /// The outputs of a task that stood, relative to its package; nothing if they were written wrong.
    pub fn listing(&self, stood: &StoodLine) -> Option<Listing> {
        decode_listing(&mut Decoder::new(&self.bytes[stood.listing.clone()])).ok()
    }
}

/// Keeps how a run ended. The oldest of too many requests goes.
pub fn save(
    state_dir: &Path,
    request: &Request,
    ground: &Ground,
    (variables, environment): (&Variables, &BTreeMap<String, String>),
    found: &Found,
    census: &[u8],
    (tasks, sets): (&[Saved<'_>], &[Set]),
) -> Result<(), FsError> {
    let mut encoder = Encoder::new();
    encoder.bytes(&MAGIC).bytes(VERSION.as_bytes());
    encode_stat(&mut encoder, &ground.program);
    encoder.digest(&ground.mark).digest(&request.digest()).digest(&variables.digest(environment));
    for names in [&variables.values, &variables.presence] {
        encoder.u64(names.len() as u64);
        names.iter().for_each(|name| {
            encoder.bytes(name.as_bytes());
        });
    }
    found.encode(&mut encoder);
    // One that cannot be read again is not there the next time.
    encoder.bytes(&census_file::pack(census).unwrap_or_default()).u64(tasks.len() as u64);
    tasks.iter().for_each(|task| encode_line(&mut encoder, task));
    encoder.u64(sets.len() as u64);
    for Set { files, empty_dirs } in sets {
        // Most follow one another.
        let runs: Vec<&[u32]> = files.chunk_by(|one, next| one.checked_add(1) == Some(*next)).collect();
        encoder.u64(runs.len() as u64);
        for run in runs {
            encoder.u64(u64::from(run[0])).u64(run.len() as u64);
        }
        encoder.u64(empty_dirs.len() as u64);
        empty_dirs.iter().for_each(|dir| {
            encoder.bytes(dir.as_str().as_bytes());
        });
    }
    let file = request.file(state_dir);
    if !ops::exists(&file) {
        make_room(state_dir)?;
    }
    // Not synced: after a power cut the checksum tells.
    atomic::write(&file, &encoder.into_sealed(), Durability::Relaxed)?;
    // What is left of it is of an earlier file, which it says.
    ops::remove_file(&journal::file(&file))
}

/// Notes what became of tasks and files since the file was written. Cost: one write.
pub fn append(state_dir: &Path, request: &Request, id: &Digest, patch: &Patch) -> Result<(), FsError> {
    journal::append(&journal::file(&request.file(state_dir)), id, patch)
}

/// Forgets a request.
pub fn forget(state_dir: &Path, request: &Request) -> Result<(), FsError> {
    let file = request.file(state_dir);
    ops::remove_file(&file).and_then(|()| ops::remove_file(&journal::file(&file)))
}

/// Notes that all results of a request were marked as used.
pub fn note_use(state_dir: &Path, request: &Request, now_ns: i64) -> Result<(), FsError> {
    ops::set_times(&request.file(state_dir), now_ns)
}

fn make_room(state_dir: &Path) -> Result<(), FsError> {
    let entries = ops::read_dir(state_dir)?;
    let kept = entries.iter().filter_map(|entry| entry.name.to_str()).filter(|name| journal::is_base(name, PREFIX));
    let mut kept: Vec<(i64, PathBuf)> = kept
        .map(|name| state_dir.join(name))
        .map(|path| (look::stat(&path, Links::Refused).map_or(0, |stat| stat.mtime_ns), path))
        .collect();
    kept.sort();
    let surplus = (kept.len() + 1).saturating_sub(REQUESTS_MAX);
    kept.iter()
        .take(surplus)
        .try_for_each(|(_, path)| ops::remove_file(path).and_then(|()| ops::remove_file(&journal::file(path))))
}

pub(super) fn encode_stat(encoder: &mut Encoder, stat: &StatKey) {
    let StatKey { size, mtime_ns, ctime_ns, inode, device, mode } = stat;
    encoder.u64(*size).u64(mtime_ns.cast_unsigned()).u64(ctime_ns.cast_unsigned());
    encoder.u64(*inode).u64(*device).u64(u64::from(*mode));
}

pub(super) fn decode_stat(decoder: &mut Decoder<'_>) -> Result<StatKey, DecodeError> {
    Ok(StatKey {
        size: decoder.u64()?,
        mtime_ns: decoder.u64()?.cast_signed(),
        ctime_ns: decoder.u64()?.cast_signed(),
        inode: decoder.u64()?,
        device: decoder.u64()?,
        mode: u32::try_from(decoder.u64()?).map_err(|_| DecodeError::Invalid { what: "mode" })?,
    })
}

fn encode_line(encoder: &mut Encoder, Saved { line, listing }: &Saved<'_>) {
    let Line { task, label, is_selected, set, needs, weight, limited, stood } = line;
    encoder.u64(u64::from(task.0)).bytes(label.as_bytes()).u8(u8::from(*is_selected)).u64(*set as u64);
    encoder.u64(needs.len() as u64);
    needs.iter().for_each(|at| {
        encoder.u64(*at as u64);
    });
    let Weight { cpu, memory, pool, exclusive } = weight;
    encoder.u64(u64::from(*cpu)).u64(*memory).u8(u8::from(*exclusive)).u8(u8::from(pool.is_some()));
    encoder.bytes(pool.as_ref().map_or(&[][..], |pool| pool.as_bytes()));
    encoder.u8(u8::from(*limited)).u8(u8::from(stood.is_some()));
    if let Some(stood) = stood {
        encode_stood(encoder, stood, listing);
    }
}

pub(super) fn encode_stood(encoder: &mut Encoder, stood: &StoodLine, encoded: &[u8]) {
    let StoodLine { memo, key, outputs, isolation, duration_ms, record, listing: _ } = stood;
    encoder.digest(memo).digest(key).digest(outputs).u8(u8::from(record.is_some()));
    record.iter().for_each(|record| {
        encoder.digest(record);
    });
    encoder.bytes(isolation.as_bytes()).u64(*duration_ms).bytes(encoded);
}

/// Reads one; `body_len` is where what is decoded ends.
pub(super) fn decode_stood(decoder: &mut Decoder<'_>, body_len: usize) -> Result<StoodLine, DecodeError> {
    let (memo, key, outputs) = (decoder.digest()?, decoder.digest()?, decoder.digest()?);
    let record = if decoder.u8()? == 1 { Some(decoder.digest()?) } else { None };
    let (isolation, duration_ms) = (decoder.text("isolation level")?.to_owned(), decoder.u64()?);
    let length = decoder.bytes()?.len();
    let end = body_len - decoder.remaining();
    Ok(StoodLine { memo, key, outputs, isolation, duration_ms, record, listing: end - length..end })
}

fn decode_line(decoder: &mut Decoder<'_>, body_len: usize, position: u64) -> Result<Line, DecodeError> {
    let wrong = |what| DecodeError::Invalid { what };
    let index = |number: u64| usize::try_from(number).map_err(|_| DecodeError::Invalid { what: "position" });
    let task = TaskId(u32::try_from(decoder.u64()?).map_err(|_| wrong("task"))?);
    let label = decoder.text("label")?.to_owned();
    let (is_selected, set) = (decoder.u8()? == 1, index(decoder.u64()?)?);
    let mut needs = Vec::new();
    for _ in 0..decoder.u64()? {
        let at = decoder.u64()?;
        if at >= position {
            return Err(wrong("order of tasks"));
        }
        needs.push(index(at)?);
    }
    let cpu = u32::try_from(decoder.u64()?).map_err(|_| wrong("weight"))?;
    let (memory, exclusive, has_pool) = (decoder.u64()?, decoder.u8()? == 1, decoder.u8()? == 1);
    let pool = Some(decoder.text("pool")?.to_owned()).filter(|_| has_pool);
    let weight = Weight { cpu, memory, pool, exclusive };
    let limited = decoder.u8()? == 1;
    let stood = if decoder.u8()? == 0 { None } else { Some(decode_stood(decoder, body_len)?) };
    Ok(Line { task, label, is_selected, set, needs, weight, limited, stood })
}

/// Reads one of files among so many claims.
fn decode_set(decoder: &mut Decoder<'_>, claims: u64) -> Result<Set, DecodeError> {
    let mut files = Vec::new();
    for _ in 0..decoder.u64()? {
        let (first, length) = (decoder.u64()?, decoder.u64()?);
        let run = first..first.saturating_add(length);
        if run.end > claims {
            return Err(DecodeError::Invalid { what: "claim" });
        }
        files.extend(run.filter_map(|file| u32::try_from(file).ok()));
    }
    let dir = |text: &str| RelPath::parse(text).map_err(|_| DecodeError::Invalid { what: "path" });
    let empty_dirs = (0..decoder.u64()?).map(|_| decoder.text("path").and_then(dir)).collect::<Result<Vec<_>, _>>()?;
    Ok(Set { files, empty_dirs })
}

impl StoodLine {
    /// One whose listing is not placed yet.
    pub fn of(stood: &Stood, record: Option<Digest>) -> Self {
        let Stood { memo, key, outputs, isolation, duration_ms, .. } = stood;
        let (memo, key, outputs) = (*memo, *key, *outputs);
        Self { memo, key, outputs, isolation: isolation.clone(), duration_ms: *duration_ms, record, listing: 0..0 }
    }
}
