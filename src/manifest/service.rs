//! One `[service.NAME]` as a [`ServiceTask`]: what it shares with a task is lowered as a task is. Starts nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::base::diagnostic::Diagnostic;
use crate::base::span::{Place, Placed};
use crate::manifest::interpolate::Names;
use crate::manifest::layers::{Layers, Templates};
use crate::manifest::model::{Inputs, Need, Ready, ServiceTask, ServiceUse, StopSignal};
use crate::manifest::origin::Origin;
use crate::manifest::problems::Problems;
use crate::manifest::raw::{ReadyTable, ServiceTable, SignalWord, TaskTable};
use crate::manifest::read::Declared;
use crate::manifest::task::Lowering;
use crate::manifest::value::At;

/// How long a service may take to become ready, unless it says otherwise.
const READY_WITHIN_DEFAULT: Duration = Duration::from_secs(60);

/// The forms of `ready`, as a person would write them.
const FORMS: &str = "`{ port = 5432 }`, `{ http = \"http://127.0.0.1:8080/health\" }`, `{ log = \"text of a line it prints\" }` or \
                     `{ run = \"pg_isready\" }`";

/// A service with what it declares beside its command.
pub(crate) struct Lowered {
    /// `needs`.
    pub(crate) needs: Arc<[Need]>,
    /// `services`.
    pub(crate) services: Arc<[ServiceUse]>,
    /// `tags`.
    pub(crate) tags: Arc<[String]>,
    /// The rest.
    pub(crate) service: ServiceTask,
}

/// The service; `None` after reporting why it cannot be.
pub(crate) fn lower(
    declared: &Declared<ServiceTable>,
    origin: &Origin,
    templates: &Templates,
    names: Names<'_>,
    problems: &mut Problems<'_>,
) -> Option<Lowered> {
    let place = origin.of(&declared.name);
    let table = as_task(&declared.table);
    let layers = Layers::new(&table, declared.damaged, origin, templates, problems)?;
    let mut lowering = Lowering { layers: &layers, names, problems, kept: None };
    let (needs, services, tags) = (lowering.needs(), lowering.services(), lowering.tags());
    let name = declared.name.value.as_str();
    let ready = ready(declared, name, &place, origin, &mut lowering);
    if table.run.is_none() {
        if !declared.damaged {
            let problem = Diagnostic::error(format!("service `{name}` has no `run`")).at(&place, "");
            lowering.problems.push(problem.help("add `run = \"…\"`, a command that stays in the foreground"));
        }
        return None;
    }
    let mut run = lowering.run_task(name, &place)?;
    if let (Inputs::Traced, Some(inputs)) = (&run.inputs, &declared.table.inputs) {
        let problem = Diagnostic::error("what a service reads is not known before its users run");
        lowering.problems.push(
            problem.at(&origin.of(inputs), "so it cannot be traced").help("list patterns, or leave `inputs` out"),
        );
        return None;
    }
    let stop_signal = match declared.table.stop_signal.as_ref().map(|signal| signal.value) {
        None | Some(SignalWord::SigTerm) => StopSignal::Term,
        Some(SignalWord::SigInt) => StopSignal::Int,
        Some(SignalWord::SigQuit) => StopSignal::Quit,
        Some(SignalWord::SigHup) => StopSignal::Hup,
        Some(SignalWord::SigUsr1) => StopSignal::Usr1,
        Some(SignalWord::SigUsr2) => StopSignal::Usr2,
        Some(SignalWord::SigWinch) => StopSignal::Winch,
        Some(SignalWord::SigKill) => StopSignal::Kill,
    };
    let ready_within = run.timeout.take().unwrap_or(READY_WITHIN_DEFAULT);
    Some(Lowered { needs, services, tags, service: ServiceTask { run, ready: ready?, ready_within, stop_signal } })
}

/// The part of a service that a task has too.
fn as_task(table: &ServiceTable) -> TaskTable {
    let ServiceTable {
        run,
        ready: _,
        timeout,
        stop_signal: _,
        inputs,
        needs,
        services,
        env,
        pass_env,
        secret_env,
        tools,
        root,
        network,
        isolation,
        tags,
        salt,
    } = table.clone();
    TaskTable {
        run,
        timeout,
        inputs,
        needs,
        services,
        env,
        pass_env,
        secret_env,
        tools,
        root,
        network,
        isolation,
        tags,
        salt,
        ..TaskTable::default()
    }
}

fn ready(
    declared: &Declared<ServiceTable>,
    name: &str,
    place: &Place,
    origin: &Origin,
    lowering: &mut Lowering<'_, '_>,
) -> Option<Placed<Ready>> {
    let Some(table) = &declared.table.ready else {
        if !declared.damaged {
            let problem = Diagnostic::error(format!("service `{name}` does not say when it is ready")).at(place, "");
            lowering.problems.push(problem.help(format!("add `ready = …`: {FORMS}")));
        }
        return None;
    };
    let here = origin.of(table);
    let ready = match &table.value {
        ReadyTable { port: Some(port), http: None, log: None, run: None } => self::port(port, origin),
        ReadyTable { port: None, http: Some(http), log: None, run: None } => {
            let text = lowering.plain(http, origin)?;
            address(&text).map_err(|help| {
                Diagnostic::error(format!("`{}` is no address a service can be asked at", text.escape_debug()))
                    .at(&origin.of(http), "")
                    .help(help)
            })
        }
        ReadyTable { port: None, http: None, log: Some(log), run: None } => {
            let text = lowering.plain(log, origin)?;
            match text.is_empty() || text.contains(['\n', '\r']) {
                false => Ok(Ready::Log(text)),
                true => Err(Diagnostic::error("`log` is not text that one line can hold")
                    .at(&origin.of(log), "")
                    .help("write a part of the line that tells it is ready: `log = \"ready to accept connections\"`")),
            }
        }
        ReadyTable { port: None, http: None, log: None, run: Some(run) } => {
            Ok(Ready::Run(lowering.command(run, origin, "run")?))
        }
        ReadyTable { port: None, http: None, log: None, run: None } => {
            Err(Diagnostic::error("`ready` says nothing").at(&here, "").help(format!("write {FORMS}")))
        }
        _ => Err(Diagnostic::error("`ready` says more than one thing")
            .at(&here, "")
            .help(format!("keep one of its keys; `run` can ask several things at once: {FORMS}"))),
    };
    ready.map(|ready| Placed::new(ready, here)).map_err(|problem| lowering.problems.push(problem)).ok()
}

fn port(port: &At<u32>, origin: &Origin) -> Result<Ready, Diagnostic> {
    match u16::try_from(port.value) {
        Ok(number) if number > 0 => Ok(Ready::Port(number)),
        _ => Err(Diagnostic::error(format!("`{}` is not a port", port.value))
            .at(&origin.of(port), "")
            .help("write a number from 1 to 65535")),
    }
}

/// Takes an address apart, or says what is wrong with it.
fn address(text: &str) -> Result<Ready, &'static str> {
    let form = "write `http://127.0.0.1:PORT/PATH`";
    if text.contains(|letter: char| letter.is_whitespace() || letter.is_control() || !letter.is_ascii()) {
        return Err("an address has no spaces; other letters than ASCII are written with `%`");
    }
    let rest = text.strip_prefix("http://").ok_or(if text.starts_with("https://") {
        "certificates are not checked here: use `http://`, or `run` with a program that knows them"
    } else {
        form
    })?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (name, port) = match host.rsplit_once(':').filter(|_| !host.ends_with(']')) {
        Some((name, port)) => {
            (name, port.parse().ok().filter(|port| *port > 0).ok_or("a port is a number from 1 to 65535")?)
        }
        None => (host, 80),
    };
    if !["127.0.0.1", "localhost", "[::1]"].contains(&name) {
        return Err("a service is asked on its loopback interface: `127.0.0.1`, `localhost` or `[::1]`");
    }
    let path = path.split('#').next().unwrap_or("/").to_owned();
    Ok(Ready::Http { host: host.to_owned(), port, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let check = |text: &str, expect: Option<(&str, u16, &str)>| {
            let found = address(text).ok().map(|ready| match ready {
                Ready::Http { host, port, path } => (host, port, path),
                other => panic!("{other:?}"),
            });
            let expect = expect.map(|(host, port, path)| (host.to_owned(), port, path.to_owned()));
            assert_eq!(found, expect, "{text}");
        };
        check("http://127.0.0.1:8080/health?x=1#y", Some(("127.0.0.1:8080", 8080, "/health?x=1")));
        check("http://localhost", Some(("localhost", 80, "/")));
        check("http://[::1]:9/", Some(("[::1]:9", 9, "/")));
        check("http://[::1]", Some(("[::1]", 80, "/")));
        for bad in [
            "",
            "127.0.0.1:80",
            "https://127.0.0.1",
            "http://example.org/",
            "http://127.0.0.1:0",
            "http://127.0.0.1:/",
            "http://127.0.0.1/a b",
        ] {
            check(bad, None);
        }
    }
}
