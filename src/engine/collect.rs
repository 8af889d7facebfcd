//! Takes declared outputs out of what a command left behind. Knows nothing of how it ran or where the outputs go next.

use std::path::Path;

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::owned::Ground;
use crate::engine::secrets::Secrets;
use crate::fs::ops::{self, Kind};
use crate::fs::walk::{self, WalkError};
use crate::manifest::glob::{Pattern, PatternList};
use crate::sandbox::spec::{STAND_IN_DIR_MODE, STAND_IN_FILE_MODE, View, is_in_whole_dir};
use crate::store::{Store, StoreError};

/// What counts as what.
#[derive(Clone, Copy)]
pub struct Declared<'a> {
    /// Directory of the package, relative to the workspace.
    pub package: &'a RelPath,
    /// Patterns of outputs, relative to the package.
    pub outputs: &'a [&'a Pattern],
    /// The same with `!`: reports, and what is kept of a failed run.
    pub reports: &'a PatternList,
    /// Where wildcards reach.
    pub ground: Ground<'a>,
    /// May be written and is thrown away.
    pub scratch: &'a PatternList,
    /// Private directories, which are not the command's writes.
    pub caches: &'a [RelPath],
    /// What was placed there before the command ran.
    pub view: &'a std::collections::BTreeMap<RelPath, View>,
    /// What no output may hold.
    pub secrets: &'a Secrets,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Collected {
    /// Outputs by path relative to the package; their contents are in the store.
    pub listing: Listing,
    /// Files that were written and are neither outputs nor scratch, relative to the workspace.
    pub undeclared: Vec<RelPath>,
    /// Positions of patterns that matched nothing: outputs first, then reports.
    pub missing: Vec<usize>,
    /// Outputs that hold a secret in their content, name or target.
    pub leaking: Vec<RelPath>,
}

/// Why outputs could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// An output is a device, a socket or a pipe.
    #[error("output `{0}` is neither a file, a directory nor a link")]
    Special(RelPath),
    /// An input was mounted there: what it holds is not there any more.
    #[error(
        "output `{0}` is an input that was renamed with its directory, and its content stayed behind: copy it instead"
    )]
    StandIn(RelPath),
    /// A link whose target is not text.
    #[error("the target of the link `{0}` is not UTF-8")]
    LinkNotUtf8(RelPath),
    /// The leftover could not be listed.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] ops::FsError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CollectError {
    /// Whether the command made something that no output can be, rather than the machine being at fault.
    pub fn is_of_the_command(&self) -> bool {
        match self {
            Self::Special(_) | Self::StandIn(_) | Self::LinkNotUtf8(_) => true,
            Self::Walk(error) => !matches!(error, WalkError::Fs(_)),
            Self::Fs(_) | Self::Store(_) => false,
        }
    }
}

/// Lists what was written below `leftover`, stores the outputs, and tells the rest.
///
/// Cost: one walk of the leftover; one read per output file.
pub fn collect(leftover: &Path, declared: &Declared<'_>, store: &Store) -> Result<Collected, CollectError> {
    let mut collected = Collected::default();
    let reports = declared.reports.items.iter().filter(|item| !item.exclude).map(|item| &item.pattern);
    let expected: Vec<&Pattern> = declared.outputs.iter().copied().chain(reports).collect();
    let mut matched = vec![false; expected.len()];
    let mut batch = store.batch();
    for found in walk::walk_all(leftover)? {
        let own = found.path.strip_prefix(declared.package);
        if let Some(path) = &own {
            for (position, pattern) in expected.iter().enumerate() {
                matched[position] |= takes(pattern, path, declared.ground);
            }
        }
        if placed(declared.view, &found.path) {
            continue;
        }
        let output = own.filter(|path| is_output(declared, path));
        match output {
            Some(path) => {
                let disk = leftover.join(found.path.as_str());
                let leaks = leaks(declared.secrets, &disk, &path, found.kind)?;
                if leaks {
                    collected.leaking.push(path.clone());
                }
                // Apart from the database, where a value could still be read after its row is gone.
                let put = |file: &Path| if leaks { store.put_file_apart(file) } else { batch.put_file(file) };
                if let Some(entry) = entry(&disk, &path, found.kind, put)? {
                    collected.listing.insert(path, entry);
                }
            }
            None if found.kind == Kind::Dir || ignored(declared, &found.path) => {}
            None => collected.undeclared.push(found.path),
        }
    }
    batch.finish()?;
    // A directory that holds something is implied by what it holds.
    let parents: std::collections::BTreeSet<RelPath> = collected.listing.keys().filter_map(RelPath::parent).collect();
    collected.listing.retain(|path, entry| *entry != Entry::Dir || !parents.contains(path));
    collected.missing = (0..matched.len()).filter(|&position| !matched[position]).collect();
    Ok(collected)
}

fn is_output(declared: &Declared<'_>, path: &RelPath) -> bool {
    let reported = || declared.reports.matches(path) && !declared.ground.is_foreign(path);
    declared.outputs.iter().any(|pattern| takes(pattern, path, declared.ground)) || reported()
}

/// Whether a pattern takes the path; a wildcard takes nothing of nested packages and repositories.
fn takes(pattern: &Pattern, path: &RelPath, ground: Ground<'_>) -> bool {
    let is_unit = pattern.literal || pattern.whole_dir().is_some_and(|dir| !dir.is_root());
    (pattern.matches(path) || pattern.whole_dir() == Some(path)) && (is_unit || !ground.is_foreign(path))
}

/// Whether the path was placed in the view, by itself or beneath a whole directory.
fn placed(view: &std::collections::BTreeMap<RelPath, View>, path: &RelPath) -> bool {
    match view.get(path) {
        Some(View::Empty) => false,
        Some(_) => true,
        None => is_in_whole_dir(view, path),
    }
}

fn ignored(declared: &Declared<'_>, path: &RelPath) -> bool {
    let in_cache = |own: RelPath| declared.caches.iter().any(|cache| own.starts_with(cache));
    declared.scratch.matches(path) || path.strip_prefix(declared.package).is_some_and(in_cache)
}

/// Whether an output holds a secret. Cost: one read of the file where there are secrets.
fn leaks(secrets: &Secrets, disk: &Path, path: &RelPath, kind: Kind) -> Result<bool, ops::FsError> {
    let inside = match kind {
        Kind::File => secrets.are_in_file(disk)?,
        Kind::Link => secrets.are_in(ops::read_link(disk)?.as_os_str().as_encoded_bytes()),
        Kind::Dir | Kind::Special => false,
    };
    Ok(inside || secrets.are_in(path.as_str().as_bytes()))
}

/// What lies there; `put` stores a file and gives its digest and length.
fn entry(
    disk: &Path,
    path: &RelPath,
    kind: Kind,
    put: impl FnOnce(&Path) -> Result<(Digest, u64), StoreError>,
) -> Result<Option<Entry>, CollectError> {
    let meta = ops::symlink_metadata(disk)?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions());
    if [STAND_IN_FILE_MODE, STAND_IN_DIR_MODE].contains(&(mode & 0o7777)) {
        return Err(CollectError::StandIn(path.clone()));
    }
    Ok(match kind {
        Kind::Dir => Some(Entry::Dir),
        Kind::Special => return Err(CollectError::Special(path.clone())),
        Kind::Link => {
            let target = ops::read_link(disk)?;
            let target = target.to_str().ok_or_else(|| CollectError::LinkNotUtf8(path.clone()))?;
            Some(Entry::Link { target: target.to_owned() })
        }
        Kind::File => {
            let executable = mode & 0o100 != 0;
            let (digest, size) = put(disk)?;
            Some(Entry::File { digest, size, executable })
        }
    })
}
