//! Why services are not up, as it is told: the cause, the place, the way out. Starts and stops nothing.

use crate::base::diagnostic::Diagnostic;
use crate::base::span::Place;
use crate::base::time::human_duration;
use crate::engine::event::{Failure, Log};
use crate::engine::instance::{End, Instance};
use crate::engine::pod::Unready;
use crate::manifest::model::{ServiceTask, Task};

/// The machine did not let it be started.
pub fn broken(declared: &Task, cause: &str) -> Unready {
    Unready::Broken(
        Diagnostic::error(format!("service `{}` could not be started: {cause}", declared.label))
            .at(&declared.place, "declared here")
            .help("`drystone doctor` tells what this machine allows"),
    )
}

/// Somebody takes connections on its port before it was started; perhaps itself, for tasks with other services.
pub fn port_held(declared: &Task, ready: &Place, port: u16, twice: bool) -> Unready {
    let cause = format!("service `{}`: port {port} of this machine is held by another process", declared.label);
    let help = match twice {
        true => "the service runs already, for tasks with other services: on the network of the machine all that use it must name the \
                 same services, or need each other"
            .to_owned(),
        false => format!("`ss -ltnp 'sport = :{port}'` tells which; end it, or let the service use another port"),
    };
    failed(cause, ready, help, Log::new())
}

/// Its time is up; `met` is what the last attempt met.
pub fn timed_out(service: &ServiceTask, instance: &Instance, met: &str) -> Unready {
    let cause = format!("service `{}` was not ready within {}", instance.label, human_duration(service.ready_within));
    let help = format!("at last: {met}; see whether `ready` is what it does, or give it more time: `timeout`");
    failed(cause, &service.ready.place, help, instance.tail())
}

/// It has ended: before it was ready, or after, while this other one was waited for.
pub fn ended(declared: &Task, instance: &Instance, awaited: Option<&str>) -> Unready {
    let (label, end) = (&instance.label, instance.end());
    let (cause, help) = match (end, awaited) {
        (Some(End::Broken(cause)), _) => return broken(declared, &cause),
        (Some(End::NotStarted(cause)), _) => {
            (format!("service `{label}`: {cause}"), "list the program under `tools`, or check its path")
        }
        (end, awaited) => {
            let end = end.map_or_else(|| "its thread is gone".into(), |end| end.sentence());
            let when = match awaited {
                Some(other) => format!("while `{other}` was starting"),
                None => "before it was ready".into(),
            };
            let help =
                "its command must stay in the foreground; `drystone run` of the service alone shows all it prints";
            (format!("service `{label}` ended {when}: {end}"), help)
        }
    };
    failed(cause, &declared.place, help.into(), instance.tail())
}

/// It may not be started.
pub fn refused(problem: Diagnostic) -> Unready {
    let failure = Failure { cause: problem.message.clone(), exit: None, diagnostics: vec![problem] };
    Unready::Failed { log: Log::new(), failure }
}

fn failed(cause: String, place: &Place, help: String, log: Log) -> Unready {
    let problem = Diagnostic::error(cause.clone()).at(place, "").help(help);
    Unready::Failed { log, failure: Failure { cause, exit: None, diagnostics: vec![problem] } }
}
