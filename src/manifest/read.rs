//! The text of one manifest as its raw tables. Everything wrong with the text itself is found here, all of it in one go:
//! syntax, unknown keys, wrong types, names that are none, and sections that stand in the wrong manifest.
//! Knows nothing of templates, interpolation or what a task needs to be complete.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_spanned::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::base::diagnostic::Diagnostic;
use crate::base::label::is_name;
use crate::base::path::RelPath;
use crate::base::span::{Placed, SourceId};
use crate::manifest::keys;
use crate::manifest::origin::Origin;
use crate::manifest::piece::{self, Piece};
use crate::manifest::problems;
use crate::manifest::raw::{
    ApplyTable, FetchTable, PackageTable, RemoteTable, ServiceTable, StoreTable, TaskTable, WorkspaceTable,
};
use crate::manifest::raw_image::ImageTable;
use crate::manifest::syntax;
use crate::manifest::value::{At, InputsText};

/// Sections that only the root manifest has.
const ROOT_SECTIONS: [&str; 4] = ["store", "remote", "template", "apply"];

/// One manifest, read and not yet lowered.
#[derive(Clone, Debug)]
pub struct ManifestFile {
    pub(crate) origin: Origin,
    /// `[workspace]`, its name being the key in the header.
    pub(crate) workspace: Option<Declared<WorkspaceTable>>,
    pub(crate) store: Option<StoreTable>,
    pub(crate) templates: Arc<BTreeMap<String, Declared<TaskTable>>>,
    pub(crate) tasks: Vec<Declared<TaskTable>>,
    pub(crate) fetches: Vec<Declared<FetchTable>>,
    pub(crate) services: Vec<Declared<ServiceTable>>,
    pub(crate) images: Vec<Declared<ImageTable>>,
    package: PackageTable,
    depends: Vec<Placed<String>>,
    applies: Vec<Apply>,
}

/// A table and the name in its header.
#[derive(Clone, Debug)]
pub(crate) struct Declared<T> {
    pub(crate) name: At<String>,
    pub(crate) table: T,
    /// Whether values were left out: then nothing may be said to be missing.
    pub(crate) damaged: bool,
}

/// One `[[apply]]`.
#[derive(Clone, Debug)]
pub struct Apply {
    /// Patterns of package directories, relative to the root.
    pub to: Vec<Placed<String>>,
    /// Task name and template name, in byte order of the task names.
    pub tasks: Vec<(Placed<String>, Placed<String>)>,
}

/// Parses one `drystone.toml`. Pushes every problem found; each has a place in `text`.
///
/// `None` if the text is not TOML: then nothing can be said about its tables. Otherwise what could be read is returned even
/// when errors were pushed, so that lowering can add its own.
pub fn read(source: SourceId, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<ManifestFile> {
    let before = diagnostics.len();
    let file = read_tables(Origin::new(source, text), text, diagnostics);
    problems::sort(&mut diagnostics[before..]);
    file
}

fn read_tables(origin: Origin, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<ManifestFile> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        diagnostics.extend(syntax::explain(text, &origin, &errors));
        return None;
    }
    let root = root.get_ref();
    keys::check(root, &origin, diagnostics);
    let mut reader = Reader { origin: &origin, diagnostics };
    let workspace = reader.single::<WorkspaceTable>(root, "workspace");
    if !root.contains_key("workspace") {
        reader.refuse_root_sections(root);
    }
    let store = reader.single::<StoreTable>(root, "store").map(|store| store.table);
    if let Some(remote) = reader.single::<RemoteTable>(root, "remote") {
        let place = origin.of(&remote.name);
        reader.diagnostics.push(
            Diagnostic::warning("`[remote]` is not used by this version of drystone")
                .at(&place, "")
                .help("results are kept in the local store only"),
        );
    }
    let package = reader.single::<PackageTable>(root, "package").map(|package| package.table).unwrap_or_default();
    let workspace_table = workspace.as_ref().map(|workspace| &workspace.table);
    reader.check_title(workspace_table.and_then(|table| table.name.as_ref()));
    reader.check_title(workspace_table.and_then(|table| table.default_branch.as_ref()));
    reader.check_title(package.name.as_ref());
    let depends = reader.depends(&package);
    let applies = reader.applies(root);
    let templates = reader.many::<TaskTable>(root, "template");
    let tasks = reader.many::<TaskTable>(root, "task");
    let fetches = reader.many::<FetchTable>(root, "fetch");
    let services = reader.many::<ServiceTable>(root, "service");
    let images = reader.many::<ImageTable>(root, "image");
    let inputs = templates.iter().chain(&tasks).map(|task| &task.table.inputs);
    inputs.chain(services.iter().map(|service| &service.table.inputs)).for_each(|inputs| reader.check_inputs(inputs));
    reader.check_one_name_each(&tasks, &fetches, &services, &images);
    let templates = templates.into_iter().map(|template| (template.name.value.clone(), template)).collect();
    let templates = Arc::new(templates);
    Some(ManifestFile {
        origin,
        workspace,
        store,
        templates,
        tasks,
        fetches,
        services,
        images,
        package,
        depends,
        applies,
    })
}

impl ManifestFile {
    /// Whether it is the root manifest: it has `[workspace]`.
    pub fn is_root(&self) -> bool {
        self.workspace.is_some()
    }

    /// `[package] depends`, each as written: `//libs/ui`.
    pub fn package_depends(&self) -> &[Placed<String>] {
        &self.depends
    }

    /// `[package] name`.
    pub fn package_name(&self) -> Option<&str> {
        self.package.name.as_ref().map(|name| name.value.as_str())
    }

    /// Every `[[apply]]`, in the order written.
    pub fn applies(&self) -> &[Apply] {
        &self.applies
    }
}

struct Reader<'a> {
    origin: &'a Origin,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    /// A section that is one table.
    fn single<T: DeserializeOwned + Default>(&mut self, root: &DeTable<'_>, section: &str) -> Option<Declared<T>> {
        let (key, value) = root.get_key_value(section)?;
        let piece = piece::read::<T>(&format!("[{section}]"), value, self.origin, self.diagnostics);
        let piece = piece.unwrap_or(Piece { table: T::default(), damaged: true });
        Some(Declared { name: name(key), table: piece.table, damaged: piece.damaged })
    }

    /// A section of named tables, in byte order of the names.
    fn many<T: DeserializeOwned>(&mut self, root: &DeTable<'_>, section: &str) -> Vec<Declared<T>> {
        let Some(value) = root.get(section) else { return Vec::new() };
        let DeValue::Table(tables) = value.get_ref() else {
            self.not_named(section, value);
            return Vec::new();
        };
        let mut all = Vec::new();
        for (key, value) in tables {
            let header = format!("[{section}.{}]", key.get_ref());
            self.check_name(&name(key), if section == "template" { "template" } else { "task" });
            if let Some(Piece { table, damaged }) = piece::read::<T>(&header, value, self.origin, self.diagnostics) {
                // A key we do not know may be the one that seems to be missing.
                let damaged = damaged || keys::has_unknown(section, value.get_ref());
                all.push(Declared { name: name(key), table, damaged });
            }
        }
        all
    }

    fn not_named(&mut self, section: &str, value: &Spanned<DeValue<'_>>) {
        self.diagnostics.push(
            Diagnostic::error(format!("`{section}` must hold tables with a name"))
                .at(&self.origin.place(&value.span()), "")
                .help(format!("write `[{section}.NAME]`")),
        );
    }

    fn check_name(&mut self, name: &At<String>, what: &str) {
        if !is_name(&name.value) {
            self.diagnostics.push(
                Diagnostic::error(format!("`{}` cannot name a {what}", name.value))
                    .at(&self.origin.of(name), "")
                    .help("a name is letters, digits, `.`, `_` and `-`, at most 128 of them, and starts with a letter, a digit or `_`"),
            );
        }
    }

    /// A name that may be anything a person can read.
    fn check_title(&mut self, title: Option<&At<String>>) {
        let Some(title) = title else { return };
        if title.value.trim().is_empty() || title.value.contains(char::is_control) {
            self.diagnostics.push(
                Diagnostic::error(format!("`{}` is not a name", title.value.escape_debug()))
                    .at(&self.origin.of(title), "")
                    .help("write at least one visible character, all on one line"),
            );
        }
    }

    fn refuse_root_sections(&mut self, root: &DeTable<'_>) {
        for section in ROOT_SECTIONS {
            if let Some((key, _)) = root.get_key_value(section) {
                self.diagnostics.push(
                    Diagnostic::error(format!("`{}` belongs in the root manifest", keys::section(section)))
                        .at(&self.origin.place(&key.span()), "")
                        .help("move it into the `drystone.toml` that has `[workspace]`"),
                );
            }
        }
    }

    fn depends(&mut self, package: &PackageTable) -> Vec<Placed<String>> {
        let mut all = Vec::new();
        for entry in package.depends.iter().flatten() {
            let dir = entry.value.strip_prefix("//").and_then(|dir| RelPath::parse(dir).ok());
            if dir.is_some() && !entry.value.contains(':') {
                all.push(self.origin.placed(entry));
                continue;
            }
            let plain = entry.value.split(':').next().unwrap_or("").trim_matches('/');
            let plain = if RelPath::parse(plain).is_ok_and(|dir| !dir.is_root()) { plain } else { "libs/ui" };
            self.diagnostics.push(
                Diagnostic::error(format!("`{}` in `depends` is not a package", entry.value))
                    .at(&self.origin.of(entry), "")
                    .help(format!("name the package's directory from the root: `//{plain}`")),
            );
        }
        all
    }

    fn applies(&mut self, root: &DeTable<'_>) -> Vec<Apply> {
        let Some((key, value)) = root.get_key_value("apply") else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.diagnostics.push(
                Diagnostic::error("`apply` must be an array of tables")
                    .at(&self.origin.place(&key.span()), "")
                    .help("write `[[apply]]`"),
            );
            return Vec::new();
        };
        items.iter().filter_map(|item| self.apply(item)).collect()
    }

    fn apply(&mut self, item: &Spanned<DeValue<'_>>) -> Option<Apply> {
        let Piece { table, damaged } = piece::read::<ApplyTable>("[[apply]]", item, self.origin, self.diagnostics)?;
        for (missing, key, example) in [
            (table.to.as_ref().is_none_or(Vec::is_empty), "to", "to = [\"libs/*\"]"),
            (table.tasks.as_ref().is_none_or(BTreeMap::is_empty), "tasks", "tasks = { test = \"TEMPLATE\" }"),
        ] {
            if missing && !damaged {
                self.diagnostics.push(
                    Diagnostic::error(format!("`[[apply]]` without `{key}` does nothing"))
                        .at(&self.origin.place(&item.span()), "")
                        .help(format!("add `{example}`")),
                );
            }
        }
        let tasks = table.tasks.unwrap_or_default();
        tasks.keys().for_each(|task| self.check_name(task, "task"));
        let placed = |value: &At<String>| self.origin.placed(value);
        Some(Apply {
            to: table.to.iter().flatten().map(placed).collect(),
            tasks: tasks.iter().map(|(task, template)| (placed(task), placed(template))).collect(),
        })
    }

    fn check_inputs(&mut self, inputs: &Option<At<InputsText>>) {
        let Some(At { value: InputsText::Word(word), range }) = inputs else { return };
        let problem = match word.as_str() {
            "package" | "traced" => return,
            word => Diagnostic::error(format!("`inputs` cannot be the word `{word}`"))
                .help(format!(
                    "write a list, `[\"{word}\"]`, `\"package\"` for every file of the package, or `\"traced\"` for what it is seen to read"
                )),
        };
        self.diagnostics.push(problem.at(&self.origin.place(range), ""));
    }

    fn check_one_name_each(
        &mut self,
        tasks: &[Declared<TaskTable>],
        fetches: &[Declared<FetchTable>],
        services: &[Declared<ServiceTable>],
        images: &[Declared<ImageTable>],
    ) {
        let all = tasks.iter().map(|task| (&task.name, "task"));
        let all = all.chain(fetches.iter().map(|fetch| (&fetch.name, "fetch")));
        let all = all.chain(images.iter().map(|image| (&image.name, "image")));
        let mut seen: BTreeMap<&At<String>, &str> = BTreeMap::new();
        for (name, what) in all.chain(services.iter().map(|service| (&service.name, "service"))) {
            if let Some((earlier, other)) = seen.get_key_value(name) {
                self.diagnostics.push(
                    Diagnostic::error(format!("`{}` names a {other} and a {what}", name.value))
                        .at(&self.origin.of(name), what)
                        .at(&self.origin.of(earlier), *other)
                        .help("they share one namespace: rename one"),
                );
            }
            seen.entry(name).or_insert(what);
        }
    }
}

fn name(key: &Spanned<DeString<'_>>) -> At<String> {
    At { value: key.get_ref().clone().into_owned(), range: key.span() }
}
