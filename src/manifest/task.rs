//! One `[task.NAME]` over its templates, for one combination of its matrix, as a [`RunTask`]: defaults, interpolation and every
//! check that needs nothing but the task.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::base::diagnostic::Diagnostic;
use crate::base::label::is_name;
use crate::base::limits::{PROCESSES_DEFAULT, PROCESSES_MAX, PROCESSES_MIN};
use crate::base::path::RelPath;
use crate::base::span::{Place, Placed};
use crate::base::time::{parse_bytes, parse_duration};
use crate::manifest::glob::{Pattern, PatternList};
use crate::manifest::interpolate::{Names, Use, interpolate};
use crate::manifest::kept::{Kept, Values};
use crate::manifest::layers::Layers;
use crate::manifest::model::{
    Command, Inputs, IsolationRequest, Need, Resources, RunTask, RunTerms, ServiceUse, Undeclared, Which,
};
use crate::manifest::needs;
use crate::manifest::origin::{Origin, Written};
use crate::manifest::patterns;
use crate::manifest::problems::Problems;
use crate::manifest::raw::{IsolationWord, TaskTable, UndeclaredWord};
use crate::manifest::value::{At, CommandText, InputsText};

/// Which list of a table.
type List = fn(&TaskTable) -> Option<&Vec<At<String>>>;

/// A task being lowered.
pub(crate) struct Lowering<'a, 'p> {
    /// Its table over its templates.
    pub(crate) layers: &'a Layers<'a>,
    /// What `${…}` stands for.
    pub(crate) names: Names<'a>,
    /// Where errors go.
    pub(crate) problems: &'a mut Problems<'p>,
    /// What other tasks of the table have.
    pub(crate) kept: Option<Kept<'a>>,
}

impl Lowering<'_, '_> {
    /// A value as it was lowered for another task, where nothing it depends on is different for this one.
    fn kept<T: Clone>(&mut self, slot: fn(&Values) -> &OnceLock<T>, lower: impl FnOnce(&mut Self) -> T) -> T {
        let Some(kept) = self.kept else { return lower(self) };
        if let Some(value) = kept.get(slot) {
            return value;
        }
        let told = self.problems.told();
        self.names.asked.take();
        let value = lower(self);
        // What is said is said of each task.
        if self.problems.told() == told { kept.keep(slot, self.names.asked.get(), value) } else { value }
    }

    /// The task; `None` after reporting why it cannot run. `place` is where it is declared.
    pub(crate) fn run_task(&mut self, name: &str, place: &Place) -> Option<RunTask> {
        let command = self.kept(|values| &values.command, |lowering| lowering.required_command(name, place));
        let terms = self.kept(|values| &values.terms, |lowering| Arc::new(lowering.terms(command.as_ref())));
        let inputs = self.kept(|values| &values.inputs, Self::inputs);
        let scratch = self.kept(|values| &values.scratch, Self::scratch);
        Some(RunTask { command: command?, inputs, scratch, terms })
    }

    /// What it declares beside its command and what it reads.
    pub(crate) fn terms(&mut self, command: Option<&Command>) -> RunTerms {
        let mut outputs = self.own(|table| table.outputs.as_ref(), "output");
        let committed = self.own(|table| table.committed.as_ref(), "committed output");
        for pattern in &committed {
            if !outputs.iter().any(|output| output.value.text == pattern.value.text) {
                outputs.push(pattern.clone());
            }
        }
        let reports = self.reports();
        let on_failure = self.own_items(|table| table.on_failure.as_ref(), "`on-failure` pattern");
        let on_failure = on_failure.items.iter().chain(&*reports.items).cloned().collect();
        let (env, pass_env, secret_env) = self.variables();
        let split = self.split(&reports, command).map(Box::new);
        let (tools, tool_trees) = self.tools();
        RunTerms {
            outputs,
            env,
            pass_env,
            secret_env,
            tools,
            tool_trees,
            root: self.root(),
            network: self.layers.first(|table| table.network.as_ref()).is_some_and(|(network, _)| network.value),
            isolation: self.isolation(),
            timeout: self.timeout(),
            retries: self.layers.first(|table| table.retries.as_ref()).map_or(0, |(retries, _)| retries.value),
            resources: self.resources(),
            caches: self.caches(),
            cache: match self.layers.first(|table| table.cache.as_ref()) {
                Some((cache, _)) => cache.value,
                None => !self.layers.first(|table| table.network.as_ref()).is_some_and(|(network, _)| network.value),
            },
            interface: self.own_items(|table| table.interface.as_ref(), "interface"),
            committed,
            on_failure,
            reports,
            fix: self
                .layers
                .first(|table| table.fix.as_ref())
                .and_then(|(fix, origin)| self.command(fix, origin, "fix")),
            salt: self.layers.first(|table| table.salt.as_ref()).and_then(|(salt, origin)| self.plain(salt, origin)),
            undeclared: match self.layers.first(|table| table.undeclared.as_ref()).map(|(word, _)| word.value) {
                None | Some(UndeclaredWord::Warn) => Undeclared::Warn,
                Some(UndeclaredWord::Error) => Undeclared::Error,
            },
            split,
        }
    }

    /// `needs`.
    pub(crate) fn needs(&mut self) -> Arc<[Need]> {
        self.kept(|values| &values.needs, |lowering| lowering.lower_needs().into())
    }

    fn lower_needs(&mut self) -> Vec<Need> {
        let mut all = Vec::new();
        for (text, written) in self.strings(|table| table.needs.as_ref()) {
            match needs::parse(&text, &self.names) {
                Ok((which, interface_only)) => all.push(Need { place: written.place(), which, interface_only }),
                Err(error) => {
                    self.problems.push(Diagnostic::error(error.message).at(&written.place(), "").help(error.help));
                }
            }
        }
        all
    }

    /// `services`.
    pub(crate) fn services(&mut self) -> Arc<[ServiceUse]> {
        self.kept(|values| &values.services, |lowering| lowering.lower_services().into())
    }

    fn lower_services(&mut self) -> Vec<ServiceUse> {
        let mut all: Vec<ServiceUse> = Vec::new();
        for (text, written) in self.strings(|table| table.services.as_ref()) {
            match needs::parse_service(&text, &self.names) {
                Ok((package, service)) if !all.iter().any(|one| one.package == package && one.service == service) => {
                    all.push(ServiceUse { place: written.place(), package, service });
                }
                Ok(_) => {}
                Err(error) => {
                    self.problems.push(Diagnostic::error(error.message).at(&written.place(), "").help(error.help));
                }
            }
        }
        all
    }

    /// `tags`.
    pub(crate) fn tags(&mut self) -> Arc<[String]> {
        self.kept(|values| &values.tags, Self::lower_tags)
    }

    fn lower_tags(&mut self) -> Arc<[String]> {
        let tags = self.strings(|table| table.tags.as_ref());
        tags.into_iter().filter(|(tag, written)| check_tag(tag, *written, self.problems)).map(|(tag, _)| tag).collect()
    }

    fn required_command(&mut self, name: &str, place: &Place) -> Option<Command> {
        match self.layers.first(|table| table.run.as_ref()) {
            Some((run, origin)) => self.command(run, origin, "run"),
            None if self.layers.damaged => None,
            None => {
                self.problems.push(
                    Diagnostic::error(format!("task `{name}` has no `run`"))
                        .at(place, "")
                        .help("add `run = \"…\"`, or `extends` a template that has it"),
                );
                None
            }
        }
    }

    pub(crate) fn command(&mut self, command: &At<CommandText>, origin: &Origin, key: &str) -> Option<Command> {
        let place = origin.of(command);
        let done = match &command.value {
            CommandText::Shell(text) => {
                let written = Written::at(text, &command.range, origin);
                Command::Shell(interpolate(written, &self.names, Use::Shell, self.problems)?.into())
            }
            CommandText::Words(words) => {
                let words: Vec<Option<Vec<String>>> =
                    words.iter().enumerate().map(|(at, word)| self.words(word, at == 0, origin)).collect();
                Command::Exec(words.into_iter().collect::<Option<Vec<_>>>()?.concat().into())
            }
        };
        let nothing = match &done {
            Command::Shell(text) => text.trim().is_empty(),
            Command::Exec(words) => words.first().is_none_or(String::is_empty),
            Command::Image(_) => false,
        };
        if nothing {
            self.problems.push(
                Diagnostic::error(format!("`{key}` is empty"))
                    .at(&place, "")
                    .help("write a command: a string for the shell, or an array whose first word is the program"),
            );
            return None;
        }
        Some(done)
    }

    /// What one word of an array stands for: `${items}` for one word per item, everything else for itself.
    fn words(&mut self, word: &At<String>, is_program: bool, origin: &Origin) -> Option<Vec<String>> {
        match self.names.part {
            Some(part) if word.value == "${items}" && !is_program => Some(part.words().collect()),
            Some(_) if word.value == "${items}" => {
                self.problems.push(
                    Diagnostic::error("`${items}` cannot be the program of a command")
                        .at(&origin.of(word), "")
                        .help("begin the array with the program that takes the items"),
                );
                None
            }
            _ => self.plain(word, origin).map(|word| vec![word]),
        }
    }

    fn inputs(&mut self) -> Inputs {
        match self.layers.first(|table| table.inputs.as_ref()) {
            Some((At { value: InputsText::List(list), .. }, origin)) => {
                let item = |entry| patterns::input(Written::new(entry, origin), &self.names, self.problems);
                Inputs::Patterns(list.iter().filter_map(item).collect())
            }
            Some((At { value: InputsText::Word(word), .. }, _)) if word == "traced" => Inputs::Traced,
            // Any other word was refused when the manifest was read.
            _ => Inputs::Package,
        }
    }

    fn scratch(&mut self) -> PatternList {
        let Some((list, origin)) = self.list(|table| table.scratch.as_ref()) else { return PatternList::default() };
        let item = |entry| patterns::scratch(Written::new(entry, origin), &self.names, self.problems);
        list.iter().filter_map(item).collect()
    }

    fn reports(&mut self) -> PatternList {
        let junit = self.junit();
        let coverage = self.own_items(|table| table.reports.as_ref()?.coverage.as_ref(), "report");
        junit.items.iter().chain(&*coverage.items).cloned().collect()
    }

    /// `reports.junit`.
    pub(crate) fn junit(&mut self) -> PatternList {
        self.own_items(|table| table.reports.as_ref()?.junit.as_ref(), "report")
    }

    fn caches(&mut self) -> Vec<RelPath> {
        let Some((list, origin)) = self.list(|table| table.caches.as_ref()) else { return Vec::new() };
        let path =
            |entry| patterns::own_path(Written::new(entry, origin), "cache directory", &self.names, self.problems);
        list.iter().filter_map(path).collect()
    }

    /// `env`, `pass-env` and `secret-env`: a variable comes from one of them.
    fn variables(&mut self) -> (BTreeMap<String, String>, Vec<String>, Vec<String>) {
        let mut known: BTreeMap<String, (&str, Place)> = BTreeMap::new();
        let mut env = BTreeMap::new();
        for (name, value, origin) in self.layers.merged(|table| table.env.as_ref()) {
            let place = origin.of(name);
            if self.variable(&name.value, "env", &place, &mut known)
                && let Some(value) = self.plain(value, origin)
            {
                env.insert(name.value.clone(), value);
            }
        }
        let mut outside = |key: &'static str, list: List| -> Vec<String> {
            let mut all = Vec::new();
            for (name, written) in self.strings(list) {
                if self.variable(&name, key, &written.place(), &mut known) {
                    all.push(name);
                }
            }
            all
        };
        let pass_env = outside("pass-env", |table| table.pass_env.as_ref());
        let secret_env = outside("secret-env", |table| table.secret_env.as_ref());
        (env, pass_env, secret_env)
    }

    /// Whether the name is one, and not known from another key.
    fn variable(
        &mut self,
        name: &str,
        key: &'static str,
        place: &Place,
        known: &mut BTreeMap<String, (&'static str, Place)>,
    ) -> bool {
        if name.is_empty() || name.contains(['=', '\0']) {
            let shown = name.escape_debug();
            let error = Diagnostic::error(format!("`{shown}` cannot name an environment variable")).at(place, "");
            self.problems.push(match name.split_once('=') {
                Some((name, value)) if !name.is_empty() && key != "env" => error.help(format!(
                    "`{key}` takes names, the value comes from outside; to set it write `env = {{ {name} = \"{value}\" }}`"
                )),
                _ => error.help("a name is not empty and holds no `=` and no NUL byte"),
            });
            return false;
        }
        match known.get(name) {
            None => drop(known.insert(name.to_owned(), (key, place.clone()))),
            Some((other, _)) if *other == key => return false,
            Some((other, first)) => {
                self.problems.push(
                    Diagnostic::error(format!("variable `{name}` is in `{other}` and in `{key}`"))
                        .at(place, "here again")
                        .at(first, "first here")
                        .help("a variable has one value: take it out of one of them"),
                );
                return false;
            }
        }
        true
    }

    /// `tools`: program names, and tasks.
    fn tools(&mut self) -> (Vec<Placed<String>>, Vec<Need>) {
        let (mut programs, mut trees) = (Vec::new(), Vec::new());
        for (text, written) in self.strings(|table| table.tools.as_ref()) {
            let place = written.place();
            if text.starts_with("//") || text.starts_with(':') {
                trees.extend(self.one_task(&text, &place, "tool"));
            } else if text.is_empty() || text.contains(['/', ':', ' ']) {
                self.problems.push(
                    Diagnostic::error(format!("`{}` is not a tool", text.escape_debug()))
                        .at(&place, "")
                        .help("name a program as it is on `PATH`, `node`, or a task that makes it, `//:node`"),
                );
            } else {
                programs.push(Placed::new(text, place));
            }
        }
        (programs, trees)
    }

    fn root(&mut self) -> Option<Need> {
        let (root, origin) = self.layers.first(|table| table.root.as_ref())?;
        let place = origin.of(root);
        let text = self.plain(root, origin)?;
        self.one_task(&text, &place, "root file system")
    }

    /// A task by its label; `None` after reporting that it is none.
    pub(crate) fn one_task(&mut self, text: &str, place: &Place, what: &str) -> Option<Need> {
        let (message, help) = match needs::parse(text, &self.names) {
            Ok((which @ Which::Task { .. }, false)) => {
                return Some(Need { place: place.clone(), which, interface_only: false });
            }
            Ok(_) => (
                format!("`{text}` is not a {what}"),
                "name one task, `//:node`, without `^` and without `#interface`".to_owned(),
            ),
            Err(error) => (error.message, error.help),
        };
        self.problems.push(Diagnostic::error(message).at(place, "").help(help));
        None
    }

    fn isolation(&self) -> IsolationRequest {
        match self.layers.first(|table| table.isolation.as_ref()).map(|(word, _)| word.value) {
            None | Some(IsolationWord::Auto) => IsolationRequest::Auto,
            Some(IsolationWord::Namespaces) => IsolationRequest::Namespaces,
            Some(IsolationWord::Landlock) => IsolationRequest::Landlock,
            Some(IsolationWord::None) => IsolationRequest::None,
        }
    }

    fn timeout(&mut self) -> Option<Duration> {
        let (timeout, origin) = self.layers.first(|table| table.timeout.as_ref())?;
        let parsed = parse_duration(&timeout.value).filter(|duration| !duration.is_zero());
        if parsed.is_none() {
            self.problems.push(
                Diagnostic::error(format!("`{}` is not a time a task could run", timeout.value))
                    .at(&origin.of(timeout), "")
                    .help("write a number with its unit, larger units first: `90s`, `10m`, `1h30m`"),
            );
        }
        parsed
    }

    fn resources(&mut self) -> Resources {
        let mut resources = Resources { cpu: 1, memory_bytes: None, processes: None, pool: None, exclusive: false };
        if let Some((cpu, origin)) = self.layers.first(|table| table.resources.as_ref()?.cpu.as_ref()) {
            resources.cpu = cpu.value;
            if cpu.value == 0 {
                self.problems.push(
                    Diagnostic::error("a task holds at least one job slot")
                        .at(&origin.of(cpu), "")
                        .help("write `cpu = 1` or more"),
                );
            }
        }
        if let Some((memory, origin)) = self.layers.first(|table| table.resources.as_ref()?.memory.as_ref()) {
            resources.memory_bytes = size(memory, origin, self.problems);
        }
        if let Some((processes, origin)) = self.layers.first(|table| table.resources.as_ref()?.processes.as_ref()) {
            if !(PROCESSES_MIN..=PROCESSES_MAX).contains(&processes.value) {
                self.problems.push(
                    Diagnostic::error(format!("a task may be limited to {PROCESSES_MIN} to {PROCESSES_MAX} processes"))
                        .at(&origin.of(processes), "")
                        .help(format!("leave it out for {PROCESSES_DEFAULT}")),
                );
            }
            // Said or not said, the default is the same limit and the same key.
            resources.processes = Some(processes.value).filter(|processes| *processes != PROCESSES_DEFAULT);
        }
        if let Some((pool, origin)) = self.layers.first(|table| table.resources.as_ref()?.pool.as_ref()) {
            let place = origin.of(pool);
            resources.pool = self.plain(pool, origin).map(|name| Placed::new(name, place));
        }
        let exclusive = self.layers.first(|table| table.resources.as_ref()?.exclusive.as_ref());
        resources.exclusive = exclusive.is_some_and(|(exclusive, _)| exclusive.value);
        resources
    }

    /// A text without patterns, interpolated.
    pub(crate) fn plain(&mut self, value: &At<String>, origin: &Origin) -> Option<String> {
        interpolate(Written::new(value, origin), &self.names, Use::Plain, self.problems)
    }
}

impl<'a> Lowering<'a, '_> {
    fn list(&self, list: List) -> Option<(&'a [At<String>], &'a Origin)> {
        self.layers.first(list).map(|(list, origin)| (list.as_slice(), origin))
    }

    /// A list of plain strings, interpolated.
    fn strings(&mut self, list: List) -> Vec<(String, Written<'a>)> {
        let Some((list, origin)) = self.list(list) else { return Vec::new() };
        let mut all = Vec::new();
        for entry in list {
            let written = Written::new(entry, origin);
            if let Some(text) = interpolate(written, &self.names, Use::Plain, self.problems) {
                all.push((text, written));
            }
        }
        all
    }

    fn own(&mut self, list: List, what: &str) -> Vec<Placed<Pattern>> {
        let Some((list, origin)) = self.list(list) else { return Vec::new() };
        let pattern = |entry| patterns::own(Written::new(entry, origin), what, &self.names, self.problems);
        list.iter().filter_map(pattern).collect()
    }

    fn own_items(&mut self, list: List, what: &str) -> PatternList {
        let Some((list, origin)) = self.list(list) else { return PatternList::default() };
        let item = |entry| patterns::own_item(Written::new(entry, origin), what, &self.names, self.problems);
        list.iter().filter_map(item).collect()
    }
}

/// A size in bytes, above zero.
pub(crate) fn size(text: &At<String>, origin: &Origin, problems: &mut Problems<'_>) -> Option<u64> {
    let parsed = parse_bytes(&text.value).filter(|bytes| *bytes > 0);
    if parsed.is_none() {
        problems.push(
            Diagnostic::error(format!("`{}` is not a size", text.value))
                .at(&origin.of(text), "")
                .help("write a number with its unit: `512MiB`, `2GiB`, `1.5GB`"),
        );
    }
    parsed
}

/// Whether the word can be selected with `tag:`.
pub(crate) fn check_tag(tag: &str, written: Written<'_>, problems: &mut Problems<'_>) -> bool {
    let good = is_name(tag);
    if !good {
        problems.push(
            Diagnostic::error(format!("`{}` cannot be a tag", tag.escape_debug()))
                .at(&written.place(), "")
                .help("a tag is letters, digits, `.`, `_` and `-`, and starts with a letter, a digit or `_`"),
        );
    }
    good
}
