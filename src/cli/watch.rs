//! `drystone run --watch`: runs, waits for a change of the tree, runs again. Decides nothing about what is stale.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening;
use crate::cli::run::{RunArgs, once};
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
    loop {
        let result = once(args, context, cancel);
        if cancel.is_cancelled() {
            return Ok(ExitKind::Interrupted);
        }
        if let Err(error) = result {
            // A manifest that is being edited is often wrong for a moment: say so and wait for the next change.
            context.err.write(error.text(context.stderr).as_bytes());
        }
        drain(&receiver);
        context.say("watching for changes; Ctrl-C ends\n");
        match wait(&receiver, &root) {
            Some(path) => context.say(&format!("{} changed\n", path.display())),
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

/// What our own writing of outputs caused is not a change of the person's.
fn drain(receiver: &Receiver<Wake>) {
    while let Ok(Wake::Changed(_)) = receiver.recv_timeout(SETTLE) {}
}

/// The first changed path, relative to the root, once the tree is at rest; `None` if interrupted.
fn wait(receiver: &Receiver<Wake>, root: &Path) -> Option<PathBuf> {
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
            Some(Wake::Changed(path)) => {
                let below = path.strip_prefix(root).unwrap_or(&path).to_owned();
                if first.is_none() && !below.starts_with(".git") {
                    first = Some(below);
                }
            }
            Some(Wake::Interrupted) | None => return None,
        }
    }
}

/// Checks early that there is a workspace to watch.
pub fn check(context: &Context) -> Result<(), CliError> {
    opening::open(context).map(drop)
}
