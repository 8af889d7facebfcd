//! Refuses declared outputs that hold files tracked by git, before anything is written or run.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::engine::owned::Owned;
use crate::engine::session::Session;
use crate::engine::settled::{decode_stat, encode_stat};
use crate::fs::look::{self, Links};
use crate::fs::ops;
use crate::fs::stat::StatKey;
use crate::fs::witness::{now_ns, unheard};
use crate::process::spawn;
use crate::workspace::git;
use crate::workspace::git_index::{ObjectNames, names_digest};
use crate::workspace::outputs::Committed;
use crate::workspace::stat_index::is_settled;

/// Git answers in milliseconds; a file system that hangs must not hang the run for ever.
const GIT_LIMIT: Duration = Duration::from_secs(60);

/// Files told per task.
const FILES_TOLD_MAX: usize = 3;

/// Variables that lead git to another repository, index or tree than the one that lies around a directory.
const LEADING: [&str; 7] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
];

/// Whether git, started with these variables, may answer of something else than what lies around the directory it is started in.
pub(super) fn is_led_elsewhere(variables: &BTreeMap<String, String>) -> bool {
    LEADING.iter().any(|name| variables.contains_key(*name))
}

/// Git's index when no output of any task was found in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CleanIndex {
    /// Where it lies.
    pub file: PathBuf,
    /// The signature it had, from which any later one can be told.
    pub stat: StatKey,
    /// Digest of the paths it named, and how it names objects; `None` where it cannot be read but by git.
    pub names: Option<(ObjectNames, Digest)>,
}

impl CleanIndex {
    /// The index as it is now, if it names the same paths. Cost: one `stat`; if the signature is another one, one pass over the file.
    fn now(&self) -> Option<Self> {
        let seen_ns = now_ns();
        let stat = look::stat(&self.file, Links::Followed)?;
        if stat == self.stat {
            return Some(self.clone());
        }
        let (objects, names) = self.names?;
        let bytes = unheard(|| ops::read(&self.file)).ok()?;
        // One that may yet change without its signature telling is read once more the next time.
        let stat = if is_settled(&stat, seen_ns) { stat } else { self.stat };
        (names_digest(&bytes, objects)? == names).then(|| Self { stat, ..self.clone() })
    }

    /// Appends one to an encoding.
    pub(super) fn encode(index: Option<&Self>, encoder: &mut Encoder) {
        encoder.u8(u8::from(index.is_some()));
        let Some(Self { file, stat, names }) = index else { return };
        encoder.bytes(file.as_os_str().as_encoded_bytes());
        encode_stat(encoder, stat);
        let code = match names {
            None => 0,
            Some((ObjectNames::Short, _)) => 1,
            Some((ObjectNames::Long, _)) => 2,
        };
        encoder.u8(code);
        names.iter().for_each(|(_, names)| {
            encoder.digest(names);
        });
    }

    /// Reads one.
    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Option<Self>, DecodeError> {
        if decoder.u8()? == 0 {
            return Ok(None);
        }
        let file = PathBuf::from(OsStr::from_bytes(decoder.bytes()?));
        let stat = decode_stat(decoder)?;
        let objects = match decoder.u8()? {
            0 => None,
            1 => Some(ObjectNames::Short),
            2 => Some(ObjectNames::Long),
            _ => return Err(DecodeError::Invalid { what: "index" }),
        };
        let names = objects.map(|objects| Ok((objects, decoder.digest()?))).transpose()?;
        Ok(Some(Self { file, stat, names }))
    }
}

/// An index that named no outputs once, and is looked at again while other things are begun.
pub struct Reread {
    known: CleanIndex,
    now: OnceLock<Option<CleanIndex>>,
}

impl Reread {
    /// Begins to look. `None` if git would look elsewhere.
    pub(super) fn begin(known: &CleanIndex, variables: &BTreeMap<String, String>) -> Option<Arc<Self>> {
        if is_led_elsewhere(variables) {
            return None;
        }
        let reread = Arc::new(Self { known: known.clone(), now: OnceLock::new() });
        if look::stat(&known.file, Links::Followed) == Some(known.stat) {
            // Nobody else has it yet.
            drop(reread.now.set(Some(known.clone())));
        } else {
            let there = Arc::clone(&reread);
            // Where no thread is to be had, whoever asks looks by himself.
            drop(std::thread::Builder::new().name("git-index".into()).spawn(move || there.now().is_some()));
        }
        Some(reread)
    }

    /// The index as it is now, if it still names no outputs; waits for who looks at it.
    fn now(&self) -> Option<&CleanIndex> {
        self.now.get_or_init(|| self.known.now()).as_ref()
    }
}

/// What git tracks in the workspace.
#[derive(Debug, Default)]
pub struct Tracked {
    /// Sorted.
    paths: Vec<RelPath>,
    /// What is wrong with the outputs of a task.
    problems: BTreeMap<TaskId, Diagnostic>,
    /// Git's index, if nothing in it is an output and it can be told from any later one.
    clean: Option<CleanIndex>,
}

/// Checks the owned outputs of these tasks; git is asked once per invocation. A workspace without git passes.
pub fn check(session: &Session<'_>, tasks: &[TaskId]) -> Result<(), Vec<Diagnostic>> {
    if session.clean_index.as_ref().is_some_and(|reread| reread.now().is_some()) {
        return Ok(());
    }
    let all = session.tracked.get_or_init(|| examine(session));
    let whole: BTreeSet<TaskId> = tasks.iter().map(|task| session.workspace.whole(*task)).collect();
    let found: Vec<Diagnostic> = whole.iter().filter_map(|task| all.problems.get(task).cloned()).collect();
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Whether git tracks the path.
pub fn is_tracked(session: &Session<'_>, path: &RelPath) -> bool {
    session.tracked.get_or_init(|| examine(session)).paths.binary_search(path).is_ok()
}

fn examine(session: &Session<'_>) -> Tracked {
    let root = &session.workspace.root;
    let in_git = root.ancestors().any(|dir| ops::exists(&dir.join(".git")));
    if !in_git {
        return Tracked::default();
    }
    let seen_ns = now_ns();
    let index = git_index(root).and_then(|file| Some((look::stat(&file, Links::Followed)?, file)));
    let (answer, names) = std::thread::scope(|scope| {
        let names = scope.spawn(|| names_of(root, &index.as_ref()?.1));
        (run_git(session, &git::tracked(&[])), names.join().unwrap_or_default())
    });
    let Some(answer) = answer else { return Tracked::default() };
    let paths = git::parse_changed(&answer);
    let mut by_task: BTreeMap<TaskId, Vec<RelPath>> = BTreeMap::new();
    for path in &paths {
        for (task, committed) in session.outputs.producers(path) {
            let below = path.strip_prefix(session.package(task)).unwrap_or_default();
            if committed == Committed::No && Owned::of(session, task).claims(&below) {
                by_task.entry(session.workspace.whole(task)).or_default().push(path.clone());
            }
        }
    }
    let problems: BTreeMap<TaskId, Diagnostic> =
        by_task.into_iter().map(|(task, paths)| (task, problem(session, task, &paths))).collect();
    let is_clean = problems.is_empty() && !is_led_elsewhere(&session.ambient.variables);
    let clean = index.filter(|(stat, _)| is_clean && is_settled(stat, seen_ns));
    // What git was asked about, and what was read, is what has this signature.
    let clean = clean.filter(|(stat, file)| look::stat(file, Links::Followed) == Some(*stat));
    Tracked { paths, problems, clean: clean.map(|(stat, file)| CleanIndex { file, stat, names }) }
}

/// Which paths an index names, read without git. Cost: one call of git for its settings, and one pass over the file.
fn names_of(root: &Path, index: &Path) -> Option<(ObjectNames, Digest)> {
    let settings = git::parse_settings(&run_git_in(root, &git::settings())?);
    let objects = ObjectNames::of_format(settings.object_format.as_deref())?;
    Some((objects, names_digest(&unheard(|| ops::read(index)).ok()?, objects)?))
}

/// The index of the repository that a directory is in: what git tracks is what this says.
pub(super) fn git_index(root: &Path) -> Option<PathBuf> {
    let git = root.ancestors().map(|dir| dir.join(".git")).find(|git| ops::exists(git))?;
    if look::stat(&git, Links::Followed)?.is_dir() {
        return Some(git.join("index"));
    }
    let text = ops::read_text(&git).ok()?;
    Some(git.parent()?.join(text.strip_prefix("gitdir:")?.trim()).join("index"))
}

/// Git's index in which no output of any task was found, if that was found out in this invocation.
pub fn clean_index(session: &Session<'_>) -> Option<CleanIndex> {
    let reread = session.clean_index.as_ref().and_then(|reread| Some((&reread.known, reread.now.get()?.as_ref()?)));
    let renewed = reread.filter(|(known, now)| known != now).map(|(_, now)| now.clone());
    renewed.or_else(|| session.tracked.get()?.clean.clone())
}

fn problem(session: &Session<'_>, task: TaskId, paths: &[RelPath]) -> Diagnostic {
    let declared = &session.workspace.tasks[task];
    let told: Vec<String> = paths.iter().take(FILES_TOLD_MAX).map(|path| format!("`{path}`")).collect();
    let rest = paths.len() - told.len();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let label = session.workspace.whole_label(task);
    Diagnostic::error(format!("outputs of `{label}` hold files tracked by git: {}{more}", told.join(", ")))
        .at(&declared.place, "a run would overwrite them")
        .help("list them under `committed` if they are generated and kept in git, or `git rm --cached` them")
}

/// Output of git in the workspace root; `None` if it cannot be had (no git, not a repository).
pub fn run_git(session: &Session<'_>, argv: &[String]) -> Option<Vec<u8>> {
    run_git_in(&session.workspace.root, argv)
}

/// Output of git in a directory; `None` if it cannot be had.
pub fn run_git_in(dir: &Path, argv: &[String]) -> Option<Vec<u8>> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let captured = spawn::run_captured(&words, dir, &[], GIT_LIMIT).ok()?;
    (captured.exit == 0).then_some(captured.stdout)
}
