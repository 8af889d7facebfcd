//! From argv to an exit code. Knows which file has which command, and nothing about any.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::args::{Cli, Command};
use crate::cli::context::{Context, Environment, early_appearance};
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::{
    affected, args, audit, completions, doctor, explain, graph, image, init, list, lock, logs, man, outputs, panic,
    plan, query, run, schema, store, verify,
};
use crate::report::ink::Color;
use crate::report::out::Out;

/// Runs the program.
pub fn main() -> ExitCode {
    let environment = Environment::of_process();
    let early = early_appearance(&environment, &std::io::stderr());
    panic::install_hook(early.color);
    #[cfg(debug_assertions)]
    if let Some(plan) = environment.get("DRYSTONE_FAULT")
        && let Err(problem) = crate::fs::fault::arm(plan)
    {
        let error = CliError::usage(problem);
        Out::stderr().write(error.text(early).as_bytes());
        return error.exit().into();
    }
    let cli = match understand(&std::env::args_os().collect::<Vec<_>>(), &environment) {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    let exit = match Context::of_process(&cli.global, environment) {
        Ok(context) => finish(dispatch(cli.command, &context), &context),
        Err(error) => {
            Out::stderr().write(error.text(early).as_bytes());
            error.exit()
        }
    };
    exit.into()
}

/// Understands argv, or says why not (or what was asked for with `--help` and `--version`).
fn understand(argv: &[OsString], environment: &Environment) -> Result<Cli, ExitKind> {
    args::parse(argv).map_err(|answer| {
        let (appearance, stream, exit) = if answer.use_stderr() {
            (early_appearance(environment, &std::io::stderr()), Out::stderr(), ExitKind::Usage)
        } else {
            (early_appearance(environment, &std::io::stdout()), Out::stdout(), ExitKind::Done)
        };
        let text = answer.render();
        stream.line(&match appearance.color {
            Color::Colored => text.ansi().to_string().trim_end().to_owned(),
            Color::Plain => text.to_string().trim_end().to_owned(),
        });
        exit
    })
}

fn dispatch(command: Option<Command>, context: &Context) -> Result<ExitKind, CliError> {
    match command {
        None => list::run(list::ListArgs::default(), context),
        Some(Command::Run(args)) => run::run(args, context),
        Some(Command::Plan(args)) => plan::run(args, context),
        Some(Command::Explain(args)) => explain::run(args, context),
        Some(Command::Query(args)) => query::run(args, context),
        Some(Command::Graph(args)) => graph::run(args, context),
        Some(Command::Affected(args)) => affected::run(args, context),
        Some(Command::List(args)) => list::run(args, context),
        Some(Command::Logs(args)) => logs::run(args, context),
        Some(Command::Outputs(args)) => outputs::run(args, context),
        Some(Command::Image(args)) => image::run(args, context),
        Some(Command::Verify(args)) => verify::run(&args, context),
        Some(Command::Audit(args)) => audit::run(args, context),
        Some(Command::Lock(args)) => lock::run(&args, context),
        Some(Command::Store(args)) => store::run(args, context),
        Some(Command::Init(args)) => init::run(args, context),
        Some(Command::Doctor(args)) => doctor::run(args, context),
        Some(Command::Schema(args)) => schema::run(args, context),
        Some(Command::Completions(args)) => completions::run(args, context),
        Some(Command::Man(args)) => man::run(args, context),
    }
}

/// Tells the error, if there is one, and settles the exit: data that could not be written is never passed off as done.
fn finish(result: Result<ExitKind, CliError>, context: &Context) -> ExitKind {
    let exit = result.unwrap_or_else(|error| {
        context.err.write(error.text(context.stderr).as_bytes());
        error.exit()
    });
    match context.out.trouble() {
        Some(trouble) if exit == ExitKind::Done => {
            let error = CliError::infrastructure(format!("cannot write to the standard output: {trouble}"));
            context.err.write(error.text(context.stderr).as_bytes());
            error.exit()
        }
        _ => exit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::context::tests::context;

    #[test]
    fn an_error_is_told_on_stderr_and_decides_the_exit() {
        let (context, out, err) = context(std::path::Path::new("/"));
        assert_eq!(finish(Ok(ExitKind::Failed), &context), ExitKind::Failed);
        assert_eq!(err.text(), "");
        assert_eq!(finish(Err(CliError::usage("no such task")), &context), ExitKind::Usage);
        assert_eq!((out.text().as_str(), err.text().as_str()), ("", "error: no such task\n"));
    }

    #[test]
    fn data_that_could_not_be_written_is_not_done() {
        struct Full;
        impl std::io::Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (mut context, _, err) = context(std::path::Path::new("/"));
        context.out = Out::new(Full);
        context.out.line("data");
        assert_eq!(finish(Ok(ExitKind::Done), &context), ExitKind::Infrastructure);
        assert!(err.text().contains("cannot write to the standard output"), "{}", err.text());
    }
}
