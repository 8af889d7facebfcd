//! `drystone run --watch`: runs, waits for a change of the tree, runs again. Decides nothing about what is stale.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};

use crate::base::path::RelPath;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::run::{RunArgs, once};
use crate::engine::pod::Registry;
use crate::fs::ops;
use crate::manifest::glob::Pattern;
use crate::process::cancel::Cancel;
use crate::process::signals;
use crate::workspace::discover;

/// Changes that come this close together are one.
const SETTLE: Duration = Duration::from_millis(60);

enum Wake {
    Changed(PathBuf),
    Interrupted,
}

/// Runs until interrupted. Changes are a hint only: each run looks at everything it needs again.
pub fn run(args: &RunArgs, context: &Context, cancel: &Cancel) -> Result<ExitKind, CliError> {
    let (sender, receiver) = channel();
    let interrupted = sender.clone();
    let _signals = signals::watch(move |_| drop(interrupted.send(Wake::Interrupted)))
        .map_err(|error| CliError::infrastructure(format!("cannot watch for signals: {error}")))?;
    let root = discover::find_root(&context.dir).unwrap_or_else(|| context.dir.clone());
    let _watcher = watcher(&root, sender)?;
    let mut outputs = Vec::new();
    let services = Registry::default();
    loop {
        let result = once(args, context, cancel, &services);
        if cancel.is_cancelled() {
            return Ok(ExitKind::Interrupted);
        }
        match result {
            Ok(finished) => outputs = finished.outputs,
            // No edit of the tree mends what was asked for.
            Err(error @ CliError::Usage(_)) => return Err(error),
            // A manifest that is being edited is often wrong for a moment: say so and wait for the next change.
            Err(error) => context.err.write(error.text(context.stderr).as_bytes()),
        }
        context.say("watching for changes; Ctrl-C ends\n");
        // Edits made while the tasks ran are still in the queue, and count.
        match wait(&receiver, &root, &outputs) {
            Some(path) => context.say(&format!("{path} changed\n")),
            None => return Ok(ExitKind::Interrupted),
        }
    }
}

fn watcher(root: &Path, sender: Sender<Wake>) -> Result<notify::RecommendedWatcher, CliError> {
    let failed = |error: notify::Error| {
        CliError::infrastructure(format!("cannot watch {}: {error}", root.display()))
            .help("on Linux, raise fs.inotify.max_user_watches")
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if let Ok(event) = event
            && !event.kind.is_access()
            && let Some(path) = event.paths.into_iter().next()
        {
            drop(sender.send(Wake::Changed(path)));
        }
    })
    .map_err(failed)?;
    watcher.watch(root, RecursiveMode::Recursive).map_err(failed)?;
    Ok(watcher)
}

/// The first path that a person changed, relative to the root, once the tree is at rest; `None` if interrupted.
fn wait(receiver: &Receiver<Wake>, root: &Path, outputs: &[Pattern]) -> Option<RelPath> {
    let mut first = None;
    loop {
        let wake = match &first {
            None => receiver.recv().ok(),
            Some(_) => match receiver.recv_timeout(SETTLE) {
                Ok(wake) => Some(wake),
                Err(RecvTimeoutError::Timeout) => return first,
                Err(RecvTimeoutError::Disconnected) => None,
            },
        };
        match wake {
            Some(Wake::Changed(path)) => first = first.or_else(|| of_a_person(&path, root, outputs)),
            Some(Wake::Interrupted) | None => return None,
        }
    }
}

/// The path below the root, unless it is git's, an output (those we write ourselves), or a directory: what changed in one
/// has an event of its own.
fn of_a_person(path: &Path, root: &Path, outputs: &[Pattern]) -> Option<RelPath> {
    let below = path.strip_prefix(root).ok()?;
    let below = RelPath::parse_bytes(below.as_os_str().as_encoded_bytes()).ok()?;
    let ours = below.is_root()
        || below.components().any(|part| part == ".git" || part.contains(".drystone-"))
        || outputs.iter().any(|pattern| pattern.matches(&below) || pattern.whole_dir() == Some(&below));
    let is_dir = ops::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    (!ours && !is_dir).then_some(below)
}
