//! The model as the compact encoding: every field of every kind of task. Knows no file and no order of tasks.

use std::sync::Arc;

use crate::base::compact::{Compact, Reader, Writer, compact_struct, compact_words};
use crate::base::digest::Digest;
use crate::manifest::model::{
    Command, Ecosystem, Expected, FetchTask, Inputs, IsolationRequest, Materialize, Need, Reach, Ready, Resources,
    RunTask, RunTerms, ServiceTask, ServiceUse, StopSignal, SystemPolicy, Task, TaskKind, Undeclared, Unpack, Which,
    WorkspaceConfig,
};
use crate::manifest::recipe::ImageRecipe;

compact_struct!(WorkspaceConfig {
    name,
    packages,
    package_graph,
    default_branch,
    system,
    salt,
    pools,
    store_bytes_max,
    materialize,
    place,
});
compact_words!(Ecosystem { Cargo = 0, Npm = 1, Uv = 2, Go = 3 });
compact_words!(Materialize { Copy = 0, Link = 1 });
compact_words!(SystemPolicy { Packages = 0, Tools = 1 });
compact_struct!(Task { label, place, needs, services, tags, kind });
compact_struct!(ServiceUse { place, package, service });
compact_struct!(Need { place, which, interface_only });
compact_words!(Reach { Direct = 0, Transitive = 1, Development = 2 });
compact_struct!(RunTask { command, inputs, scratch, terms });
compact_struct!(RunTerms {
    outputs,
    env,
    pass_env,
    secret_env,
    tools,
    tool_trees,
    root,
    network,
    isolation,
    timeout,
    retries,
    resources,
    caches,
    cache,
    interface,
    committed,
    on_failure,
    reports,
    fix,
    salt,
    undeclared,
    split,
});
compact_struct!(ServiceTask { run, ready, ready_within, stop_signal });
compact_words!(StopSignal { Term = 0, Int = 1, Quit = 2, Hup = 3, Usr1 = 4, Usr2 = 5, Winch = 6, Kill = 7 });
compact_words!(Undeclared { Warn = 0, Error = 1 });
compact_words!(IsolationRequest { Auto = 0, Namespaces = 1, Landlock = 2, None = 3 });
compact_struct!(Resources { cpu, memory_bytes, processes, pool, exclusive });
compact_struct!(FetchTask { urls, expect, unpack, platform, strip, output, executable });
compact_words!(Unpack { No = 0, ByName = 1, Image = 2 });

impl Compact for TaskKind {
    fn put(&self, writer: &mut Writer) {
        match self {
            TaskKind::Run(run) => {
                writer.byte(0);
                run.put(writer);
            }
            TaskKind::Fetch(fetch) => {
                writer.byte(1);
                fetch.put(writer);
            }
            TaskKind::Service(service) => {
                writer.byte(2);
                service.put(writer);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.byte()? {
            0 => TaskKind::Run(Compact::take(reader)?),
            1 => TaskKind::Fetch(Compact::take(reader)?),
            2 => TaskKind::Service(Compact::take(reader)?),
            _ => return None,
        })
    }
}

impl Compact for Which {
    fn put(&self, writer: &mut Writer) {
        match self {
            Which::Upstream { task, reach } => {
                writer.byte(0);
                task.put(writer);
                reach.put(writer);
            }
            Which::Task { package, task, matrix } => {
                writer.byte(1);
                package.put(writer);
                task.put(writer);
                matrix.put(writer);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.byte()? {
            0 => Which::Upstream { task: Compact::take(reader)?, reach: Reach::take(reader)? },
            1 => Which::Task {
                package: Compact::take(reader)?,
                task: Compact::take(reader)?,
                matrix: Compact::take(reader)?,
            },
            _ => return None,
        })
    }
}

impl Compact for Command {
    fn put(&self, writer: &mut Writer) {
        match self {
            Command::Shell(text) => {
                writer.byte(0);
                text.put(writer);
            }
            Command::Exec(words) => {
                writer.byte(1);
                words.put(writer);
            }
            Command::Image(recipe) => {
                writer.byte(2);
                ImageRecipe::put(recipe, writer);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.byte()? {
            0 => Command::Shell(Compact::take(reader)?),
            1 => Command::Exec(Compact::take(reader)?),
            2 => Command::Image(Arc::new(ImageRecipe::take(reader)?)),
            _ => return None,
        })
    }
}

impl Compact for Inputs {
    fn put(&self, writer: &mut Writer) {
        match self {
            Inputs::Package => writer.byte(0),
            Inputs::Patterns(list) => {
                writer.byte(1);
                list.put(writer);
            }
            Inputs::Traced => writer.byte(2),
        }
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.byte()? {
            0 => Inputs::Package,
            1 => Inputs::Patterns(Compact::take(reader)?),
            2 => Inputs::Traced,
            _ => return None,
        })
    }
}

impl Compact for Ready {
    fn put(&self, writer: &mut Writer) {
        match self {
            Ready::Port(port) => {
                writer.byte(0);
                port.put(writer);
            }
            Ready::Http { host, port, path } => {
                writer.byte(1);
                host.put(writer);
                port.put(writer);
                path.put(writer);
            }
            Ready::Log(text) => {
                writer.byte(2);
                text.put(writer);
            }
            Ready::Run(command) => {
                writer.byte(3);
                command.put(writer);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.byte()? {
            0 => Ready::Port(u16::take(reader)?),
            1 => Ready::Http { host: String::take(reader)?, port: u16::take(reader)?, path: String::take(reader)? },
            2 => Ready::Log(String::take(reader)?),
            3 => Ready::Run(Command::take(reader)?),
            _ => return None,
        })
    }
}

impl Compact for Expected {
    fn put(&self, writer: &mut Writer) {
        match self {
            Expected::Blake3(digest) => {
                writer.byte(0);
                digest.put(writer);
            }
            Expected::Sha256(bytes) => {
                writer.byte(1);
                writer.raw(bytes);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.byte()? {
            0 => Expected::Blake3(Digest::take(reader)?),
            1 => Expected::Sha256(reader.raw(32)?.try_into().ok()?),
            _ => return None,
        })
    }
}
