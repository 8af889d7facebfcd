//! `drystone logs`: what a task printed, byte for byte, each stream where it belongs.

use clap::Args;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening;
use crate::engine::event::Log;
use crate::engine::log;
use crate::report::out::Out;
use crate::sandbox::spec::Stream;

/// Options of `logs`.
#[derive(Args, Clone, Debug)]
pub struct LogsArgs {
    /// Which task; of a split one, the parts follow each other. Shows the result for what is in the tree now; where there is none, what
    /// it printed when it failed last.
    #[arg(value_name = "TARGET")]
    pub target: String,
}

/// Replays a log in the order it came: `drystone logs //a:x > out 2> err` separates what the command had separated.
pub fn replay(log: &Log, out: &Out, err: &Out) {
    for (stream, bytes) in log {
        match stream {
            Stream::Stdout => out.write(bytes),
            Stream::Stderr => err.write(bytes),
        }
    }
}

/// Replays a log.
pub fn run(args: LogsArgs, context: &Context) -> Result<ExitKind, CliError> {
    let opened = opening::open(context)?;
    let (store, all) = opening::known_of(&opened, context, &args.target)?;
    for known in all {
        let log = match (&known.result, known.failed.as_ref()) {
            (Some(result), _) => {
                let log = store.read(&result.stdout_stderr)?.and_then(|bytes| log::decode(&bytes).ok());
                log.ok_or_else(|| CliError::infrastructure("the log is no longer in the store"))?
            }
            (None, Some(log)) => {
                context.say(&format!("note: `{}` failed when it ran last; this is what it printed", known.label));
                log.clone()
            }
            (None, None) => return Err(known.missing()),
        };
        replay(&log, &context.out, &context.err);
    }
    Ok(ExitKind::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::context::tests::context;

    #[test]
    fn each_stream_is_replayed_where_it_belongs() {
        let (context, out, err) = context(std::path::Path::new("/"));
        let log =
            vec![(Stream::Stdout, b"a".to_vec()), (Stream::Stderr, b"x\n".to_vec()), (Stream::Stdout, b"b".to_vec())];
        replay(&log, &context.out, &context.err);
        assert_eq!((out.text().as_str(), err.text().as_str()), ("ab", "x\n"));
    }
}
