//! `drystone audit export` and `unpack`: what another machine, or another person, needs to rebuild tasks without this store.
//!
//! A bundle is a tar archive, the same bytes for the same tree and results: `rebuild.json` (the results here), with `--with-fetches`
//! `fetches` (an archive as `store export` writes it), then `source/PATH` in byte order of the paths. Files are 0644 or 0755, of nobody,
//! from 1970. It holds no output of any task and no secret.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::audit::results::{RESULTS_BYTES_MAX, Results};
use crate::base::digest::Digest;
use crate::base::limits::FETCH_BYTES_MAX;
use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::cli::audit::results::{Gathered, gather};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening;
use crate::fs::archive::{Member, read_tar};
use crate::fs::ops;
use crate::fs::out::OutFile;
use crate::fs::unpack::unpack_tar;

/// Options of `audit export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// Which tasks, as for `run`; what they need is among them. With none, every task here.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Where to.
    #[arg(long, short = 'o', value_name = "FILE")]
    pub output: PathBuf,
    /// Holds what is fetched, too, for a machine that cannot fetch it.
    #[arg(long)]
    pub with_fetches: bool,
}

/// Options of `audit unpack`.
#[derive(Args, Clone, Debug)]
pub struct UnpackArgs {
    /// The bundle.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where to: a directory that is empty or not there.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// The results in a bundle.
pub const REBUILD_FILE: &str = "rebuild.json";
const FETCHES_FILE: &str = "fetches";
const SOURCE_DIR: &str = "source";

/// What package managers keep beside the files of a package: dependencies between packages are read of it.
const OF_PACKAGES: [&str; 12] = [
    "Cargo.toml",
    "Cargo.lock",
    "package.json",
    "package-lock.json",
    "pnpm-workspace.yaml",
    "pnpm-lock.yaml",
    "yarn.lock",
    "go.mod",
    "go.sum",
    "go.work",
    "pyproject.toml",
    "uv.lock",
];

/// Writes a bundle.
pub fn run(args: &ExportArgs, context: &Context) -> Result<ExitKind, CliError> {
    let opened = opening::open(context)?;
    let gathered = gather(&opened, &args.targets, context)?;
    let sources = sources(&gathered)?;
    let to = context.path(&args.output);
    let mut tar = tar::Builder::new(OutFile::create(&to, 0o644)?);
    let written = write(&mut tar, &gathered, &sources, args.with_fetches);
    let out = written.and_then(|()| tar.into_inner().map_err(|error| untold(&to, &error)))?;
    out.place()?;
    let (tasks, files) = (gathered.results.tasks.len(), sources.len());
    context.out.line(&format!("{tasks} tasks and {files} source files in {}", args.output.display()));
    Ok(ExitKind::Done)
}

fn untold(path: &Path, error: &std::io::Error) -> CliError {
    CliError::infrastructure(format!("cannot write {}: {error}", path.display()))
}

/// Everything that the tasks see of the tree, and what the workspace is read of; by path relative to the root.
fn sources(gathered: &Gathered<'_>) -> Result<BTreeMap<RelPath, Entry>, CliError> {
    let Gathered { session, plan, .. } = gathered;
    let workspace = session.workspace;
    let mut found = BTreeMap::new();
    for ix in 0..plan.tasks.len() {
        found.extend(plan.sources(ix).listing.iter().map(|(path, entry)| (path.clone(), entry.clone())));
    }
    let mut dirs: BTreeSet<RelPath> = workspace.packages.values().map(|package| package.dir.clone()).collect();
    dirs.insert(RelPath::root());
    let named = ["drystone.toml", "drystone.lock"].into_iter().chain(OF_PACKAGES);
    let read = workspace.sources.iter().filter_map(|(_, source)| {
        let path = source.path.strip_prefix(&workspace.root).unwrap_or(&source.path);
        RelPath::parse(path.to_str()?).ok()
    });
    let beside = dirs.iter().flat_map(|dir| named.clone().map(|name| dir.child(name)));
    let more: BTreeSet<RelPath> = read.chain(beside).filter(|path| !found.contains_key(path)).collect();
    for path in more {
        let disk = workspace.root.join(path.as_str());
        if ops::symlink_metadata(&disk).is_ok_and(|meta| meta.is_file()) {
            let bytes = ops::read(&disk)?;
            let entry = Entry::File { digest: Digest::of(&bytes), size: bytes.len() as u64, executable: false };
            found.insert(path, entry);
        }
    }
    Ok(found)
}

fn write<W: Write>(
    tar: &mut tar::Builder<W>,
    gathered: &Gathered<'_>,
    sources: &BTreeMap<RelPath, Entry>,
    with_fetches: bool,
) -> Result<(), CliError> {
    add(tar, REBUILD_FILE, false, &gathered.results.write())?;
    if with_fetches && !gathered.fetches.is_empty() {
        let stage = gathered.store.stage()?;
        let archive = stage.path().join(FETCHES_FILE);
        gathered.store.export(&gathered.fetches, &archive)?;
        let file = ops::open_no_follow(&archive)?;
        let size = ops::metadata(&archive)?.len();
        append(tar, &mut header(tar::EntryType::Regular, size, 0o644), FETCHES_FILE, file)?;
    }
    for (path, entry) in sources {
        let name = format!("{SOURCE_DIR}/{path}");
        match entry {
            Entry::Dir => {
                append(tar, &mut header(tar::EntryType::Directory, 0, 0o755), &format!("{name}/"), std::io::empty())?
            }
            Entry::Link { target } => {
                let mut header = header(tar::EntryType::Symlink, 0, 0o777);
                tar.append_link(&mut header, &name, target).map_err(|error| untold(Path::new(&name), &error))?;
            }
            Entry::File { digest, executable, .. } => {
                let disk = gathered.session.workspace.root.join(path.as_str());
                let mut bytes = Vec::new();
                let file = ops::open_no_follow(&disk)?;
                { file }
                    .read_to_end(&mut bytes)
                    .map_err(|error| CliError::infrastructure(format!("cannot read {path}: {error}")))?;
                if Digest::of(&bytes) != *digest {
                    return Err(CliError::infrastructure(format!("{path} was changed meanwhile"))
                        .help("run it again when the files are at rest"));
                }
                add(tar, &name, *executable, &bytes)?;
            }
        }
    }
    Ok(())
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn add<W: Write>(tar: &mut tar::Builder<W>, name: &str, executable: bool, bytes: &[u8]) -> Result<(), CliError> {
    let mode = if executable { 0o755 } else { 0o644 };
    append(tar, &mut header(tar::EntryType::Regular, bytes.len() as u64, mode), name, bytes)
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    header: &mut tar::Header,
    name: &str,
    from: impl Read,
) -> Result<(), CliError> {
    tar.append_data(header, name, from).map_err(|error| untold(Path::new(name), &error))
}

/// The results in a bundle; `None` if the file is none. Nothing of it is written anywhere.
pub fn results_of(bundle: &Path) -> Result<Option<Results>, CliError> {
    let wrong = |why: String| CliError::usage(format!("{}: {why}", bundle.display()));
    let mut found = None;
    let read = read_tar(ops::open(bundle)?, 2 * FETCH_BYTES_MAX, &mut |name, member| {
        if let (REBUILD_FILE, None, Member::File { content, .. }) = (name, &found, member) {
            let mut bytes = Vec::new();
            let read = content.take(RESULTS_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
            found = Some(read.map(|_| bytes));
        }
        Ok(())
    });
    match (found, read) {
        (Some(Ok(bytes)), Ok(())) => Results::read(&bytes).map(Some).map_err(|error| wrong(error.to_string())),
        (None, Ok(())) => Ok(None),
        (Some(Err(error)), _) => Err(wrong(error.to_string())),
        (_, Err(error)) => Err(wrong(error.to_string())),
    }
}

/// Unpacks a bundle.
pub fn unpack(args: &UnpackArgs, context: &Context) -> Result<ExitKind, CliError> {
    let (bundle, dir) = (context.path(&args.file), context.path(&args.dir));
    let Some(results) = results_of(&bundle)? else {
        return Err(CliError::usage(format!("{} is no bundle: it has no `{REBUILD_FILE}`", bundle.display())));
    };
    if ops::if_there(ops::read_dir(&dir))?.is_some_and(|there| !there.is_empty()) {
        return Err(
            CliError::usage(format!("{} is not empty", dir.display())).help("name a directory that is not there")
        );
    }
    ops::create_dir_all(&dir)?;
    // One component is taken off: what lies beside `source` is not for the tree.
    unpack_tar(&bundle, 1, &dir, FETCH_BYTES_MAX)
        .map_err(|error| CliError::usage(format!("{}: {error}", bundle.display())))?;
    let targets: Vec<String> = results.targets.iter().map(|target| target.escape_debug().to_string()).collect();
    let (dir, file, targets) = (args.dir.display(), args.file.display(), targets.join(" "));
    context.out.write(
        format!(
            "unpacked into {dir}. Rebuild with a store of its own, then compare:\n  \
             export DRYSTONE_STORE=$(mktemp -d)\n  drystone -C {dir} run {targets}\n  \
             drystone -C {dir} audit results {targets} -o $PWD/rebuilt.json\n  drystone audit compare {file} rebuilt.json\n"
        )
        .as_bytes(),
    );
    if has_fetches(&bundle)? {
        context.out.line(&format!("what is fetched is in it: `tar -xf {file} {FETCHES_FILE}`, then `drystone store import {FETCHES_FILE}` first"));
    }
    Ok(ExitKind::Done)
}

fn has_fetches(bundle: &Path) -> Result<bool, CliError> {
    let mut found = false;
    let read = read_tar(ops::open(bundle)?, 2 * FETCH_BYTES_MAX, &mut |name, _| {
        found |= name == FETCHES_FILE;
        Ok(())
    });
    read.map_err(|error| CliError::usage(format!("{}: {error}", bundle.display())))?;
    Ok(found)
}
