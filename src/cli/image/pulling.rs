//! `drystone image pull`: an image of a registry into a directory of its own. What arrived lies beside it until all of it did.

use std::path::{Path, PathBuf};

use crate::base::platform::Platform;
use crate::base::time::human_bytes;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::image::args::PullArgs;
use crate::cli::image::given::client;
use crate::cli::image::travel::{cancellable, ended};
use crate::fs::lock::{self, Lock};
use crate::fs::ops;
use crate::registry::{Reference, Wanted, discard, pull};

/// Takes an image from a registry.
pub fn run(args: &PullArgs, context: &Context) -> Result<ExitKind, CliError> {
    let mut platforms = Vec::new();
    for text in &args.platform {
        platforms.push(Platform::parse(text).ok_or_else(|| {
            CliError::usage(format!("`{text}` is no platform"))
                .help("write `os/architecture` or `os/architecture/variant`, such as `linux/arm64`")
        })?);
    }
    let reference = Reference::parse(&args.name).map_err(|error| CliError::usage(error.to_string()))?;
    let wanted = if platforms.is_empty() { Wanted::All } else { Wanted::Only(platforms) };
    let output = Output::claim(&args.output, context)?;
    let (cancel, _watch) = cancellable()?;
    let client = client(context, &cancel)?;
    let pulled = pull(&client, &reference, &wanted, &output.layout, &output.partial, &mut |_| {});
    if pulled.is_ok() {
        discard(&output.partial)?;
    }
    let pulled = pulled.map_err(|error| ended(&cancel, &error))?;
    let (blobs, bytes) = (pulled.blobs, human_bytes(pulled.bytes_received));
    context.out.line(&pulled.root.digest);
    context.say(&format!("{blobs} blobs, {bytes} received, in {}", output.layout.display()));
    Ok(ExitKind::Done)
}

/// A directory that nobody else fills meanwhile.
struct Output {
    /// Where the image goes; nothing is there.
    layout: PathBuf,
    /// Where lies what is not whole. Removed with this, unless something is in it.
    partial: PathBuf,
    _lock: Lock,
}

impl Output {
    /// Takes a new or empty directory. Asks no registry, so that what is in the way is told at once.
    fn claim(given: &Path, context: &Context) -> Result<Self, CliError> {
        let whole = context.path(given);
        let Some(name) = whole.file_name() else {
            let told = format!("`{}` is no new or empty directory", given.display());
            return Err(CliError::usage(told).help("`--output` names the directory that is made"));
        };
        let mut beside = name.to_owned();
        beside.push(".partial");
        // Made of the name, for `dir/` has nothing beside it.
        let (layout, partial) = (whole.with_file_name(name), whole.with_file_name(beside));
        refuse_filled(&layout, given)?;
        let lock = loop {
            ops::create_dir_all(&partial)?;
            // Whoever is done with it takes it away.
            let Some(taken) = ops::if_there(lock::attempt_dir(&partial))? else { continue };
            let Some(lock) = taken else {
                let told = format!("another `drystone image pull` writes to `{}`", given.display());
                return Err(CliError::infrastructure(told).help("wait until it ends, or name another directory"));
            };
            if lock.is_named(&partial) {
                break lock;
            }
        };
        let output = Self { layout, partial, _lock: lock };
        // It may have been filled while the lock was not held.
        refuse_filled(&output.layout, given)?;
        if ops::exists(&output.layout) {
            ops::remove_dir(&output.layout)?;
        }
        Ok(output)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // With something in it, it stays: the next pull goes on with that.
        ops::remove_dir(&self.partial).ok();
    }
}

/// An error if something is in the directory, or if it is none.
fn refuse_filled(layout: &Path, given: &Path) -> Result<(), CliError> {
    let Some(meta) = ops::if_there(ops::symlink_metadata(layout))? else { return Ok(()) };
    if meta.is_dir() && ops::read_dir(layout)?.is_empty() {
        return Ok(());
    }
    let told = format!("`{}` is there already and is no empty directory", given.display());
    Err(CliError::usage(told).help("name a new or an empty directory, or remove what is there"))
}
