//! Raw tables as the validated model: the workspace's configuration, and the tasks of one package at a time. Every problem is
//! pushed with its place; what is good is returned beside it, so that one bad task does not hide another.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::label::{Label, Matrix, is_name};
use crate::base::path::RelPath;
use crate::base::span::{Place, Placed};
use crate::manifest::fetch;
use crate::manifest::glob::Pattern;
use crate::manifest::image;
use crate::manifest::interpolate::{Asked, Names};
use crate::manifest::kept::{Everywhere, Kept, Values};
use crate::manifest::layers::Layers;
pub use crate::manifest::layers::{Templates, templates};
use crate::manifest::matrix::combinations;
use crate::manifest::model::{Ecosystem, Materialize, SystemPolicy, Task, TaskKind, WorkspaceConfig};
use crate::manifest::problems::{self, Problems};
use crate::manifest::raw::{EcosystemWord, FetchTable, MaterializeWord, ServiceTable, SystemWord};
use crate::manifest::raw_image::ImageTable;
use crate::manifest::read::{Declared, ManifestFile};
use crate::manifest::service;
use crate::manifest::split::Part;
use crate::manifest::task::{self, size};
use crate::manifest::value::At;

/// Name of a workspace that gives itself none. Not the directory's: that differs between checkouts, and `${workspace.name}`
/// reaches keys.
const WORKSPACE_NAME_DEFAULT: &str = "workspace";

/// `[workspace]` and `[store]` of the root manifest, and checks of its templates and `[[apply]]`s as such.
///
/// `None` if the manifest has no `[workspace]`.
pub fn lower_workspace(file: &ManifestFile, diagnostics: &mut Vec<Diagnostic>) -> Option<WorkspaceConfig> {
    let before = diagnostics.len();
    let config = workspace_config(file, diagnostics);
    problems::sort(&mut diagnostics[before..]);
    config
}

fn workspace_config(file: &ManifestFile, diagnostics: &mut Vec<Diagnostic>) -> Option<WorkspaceConfig> {
    let workspace = file.workspace.as_ref()?;
    let origin = &file.origin;
    let mut problems = Problems::new(diagnostics);
    let table = &workspace.table;
    let placed = |list: &Vec<At<String>>| list.iter().map(|entry| origin.placed(entry)).collect::<Vec<_>>();
    let packages = table.packages.as_ref().map(placed);
    let dirs = packages.iter().flatten().chain(file.applies().iter().flat_map(|apply| &apply.to));
    dirs.for_each(|pattern| check_dir_pattern(pattern, &mut problems));
    let all_templates = templates(file);
    all_templates.check(&mut problems);
    for (_, template) in file.applies().iter().flat_map(|apply| &apply.tasks) {
        all_templates.find(&template.value, &template.place, &mut problems);
    }
    let store_size = file.store.as_ref().and_then(|store| store.max_size.as_ref());
    let text = |value: &Option<At<String>>| value.as_ref().map(|text| text.value.clone());
    Some(WorkspaceConfig {
        name: text(&table.name).unwrap_or_else(|| WORKSPACE_NAME_DEFAULT.to_owned()),
        packages,
        package_graph: ecosystems(table.package_graph.as_deref().unwrap_or_default()),
        default_branch: text(&table.default_branch).unwrap_or_else(|| "main".to_owned()),
        system: match table.system.as_ref().map(|word| word.value) {
            None | Some(SystemWord::Packages) => SystemPolicy::Packages,
            Some(SystemWord::Tools) => SystemPolicy::Tools,
        },
        salt: text(&table.salt),
        pools: pools(file, table.pools.as_ref(), &mut problems),
        materialize: match file.store.as_ref().and_then(|store| store.materialize.as_ref()).map(|word| word.value) {
            None | Some(MaterializeWord::Copy) => Materialize::Copy,
            Some(MaterializeWord::Link) => Materialize::Link,
        },
        store_bytes_max: store_size.and_then(|bytes| size(bytes, origin, &mut problems)),
        place: origin.of(&workspace.name),
    })
}

fn check_dir_pattern(pattern: &Placed<String>, problems: &mut Problems<'_>) {
    let text = pattern.value.as_str();
    let body = text.strip_prefix('!').unwrap_or(text);
    if let Err(cause) = Pattern::parse(body.strip_prefix("//").unwrap_or(body)) {
        problems.push(
            Diagnostic::error(format!("`{}` is not a pattern of directories: {cause}", text.escape_debug()))
                .at(&pattern.place, "")
                .help("write directories relative to the root: `libs/*`"),
        );
    }
}

/// Each once, in the order written.
fn ecosystems(words: &[At<EcosystemWord>]) -> Vec<Ecosystem> {
    let mut all = Vec::new();
    for word in words {
        let ecosystem = match word.value {
            EcosystemWord::Cargo => Ecosystem::Cargo,
            EcosystemWord::Npm => Ecosystem::Npm,
            EcosystemWord::Uv => Ecosystem::Uv,
            EcosystemWord::Go => Ecosystem::Go,
        };
        if !all.contains(&ecosystem) {
            all.push(ecosystem);
        }
    }
    all
}

fn pools(
    file: &ManifestFile,
    pools: Option<&BTreeMap<At<String>, At<u32>>>,
    problems: &mut Problems<'_>,
) -> BTreeMap<String, u32> {
    for (name, units) in pools.into_iter().flatten() {
        if !is_name(&name.value) {
            problems.push(
                Diagnostic::error(format!("`{}` cannot name a pool", name.value.escape_debug()))
                    .at(&file.origin.of(name), "")
                    .help("a name is letters, digits, `.`, `_` and `-`, and starts with a letter, a digit or `_`"),
            );
        }
        if units.value == 0 {
            problems.push(
                Diagnostic::error(format!("pool `{}` has no units, so its tasks could never run", name.value))
                    .at(&file.origin.of(units), "")
                    .help("write 1 or more"),
            );
        }
    }
    pools.into_iter().flatten().map(|(name, units)| (name.value.clone(), units.value)).collect()
}

/// What a package's tasks are lowered with.
#[derive(Clone, Copy, Debug)]
pub struct PackageContext<'a> {
    /// Its directory.
    pub dir: &'a RelPath,
    /// Its name, for `${package.name}`.
    pub name: &'a str,
    /// The workspace's name, for `${workspace.name}`.
    pub workspace_name: &'a str,
    /// The templates of the root manifest.
    pub templates: &'a Templates,
    /// Task name and template name of every `[[apply]]` that matches it, in order; the last of a name holds.
    pub applied: &'a [(Placed<String>, Placed<String>)],
    /// The parts of tasks with `split`, by the label without the part; nothing until their items are listed.
    pub parts: &'a BTreeMap<Label, Vec<Part>>,
}

/// Adds what was said of one package to what was said of those before it; what a template does wrong everywhere is said once.
pub fn tell(problems: Vec<Diagnostic>, all: &mut Vec<Diagnostic>) {
    let mut told = Problems::new(all);
    problems.into_iter().for_each(|problem| told.push(problem));
}

/// Tasks of one package, in byte order of their names: its own `[task.*]` and `[fetch.*]`, and what is applied to it under a name
/// it does not use itself. `None` for a package that is one through `[[apply]]` only.
pub fn lower_package(
    file: Option<&ManifestFile>,
    context: &PackageContext<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Task> {
    let before = diagnostics.len();
    let mut package = PackageLowering { context, problems: Problems::new(diagnostics), tasks: Vec::new() };
    package.all(file);
    let mut tasks = package.tasks;
    problems::sort(&mut diagnostics[before..]);
    // Stable: the tasks of one matrix stay in the order of its values.
    tasks.sort_by(|one, other| one.label.name.cmp(&other.label.name));
    tasks
}

struct PackageLowering<'a> {
    context: &'a PackageContext<'a>,
    problems: Problems<'a>,
    tasks: Vec<Task>,
}

impl PackageLowering<'_> {
    fn all(&mut self, file: Option<&ManifestFile>) {
        let context = self.context;
        let mut own: BTreeSet<&str> = BTreeSet::new();
        if let Some(file) = file {
            for task in &file.tasks {
                own.insert(&task.name.value);
                let place = file.origin.of(&task.name);
                let layers =
                    Layers::new(&task.table, task.damaged, &file.origin, context.templates, &mut self.problems);
                self.run_tasks(&task.name.value, place, layers, None);
            }
            for fetch in &file.fetches {
                own.insert(&fetch.name.value);
                self.fetch(fetch, file);
            }
            for image in &file.images {
                own.insert(&image.name.value);
                self.image(image, file);
            }
            for service in &file.services {
                own.insert(&service.name.value);
                self.service(service, file);
            }
        }
        let applied: BTreeMap<&str, &Placed<String>> =
            context.applied.iter().map(|(task, template)| (task.value.as_str(), template)).collect();
        for (task, reference) in applied.into_iter().filter(|(task, _)| !own.contains(task)) {
            self.applied(task, reference);
        }
    }

    /// One task per combination of the matrix and part.
    fn run_tasks(&mut self, name: &str, place: Place, layers: Option<Layers<'_>>, everywhere: Option<&Everywhere>) {
        let Some(layers) = layers else { return };
        let Some(combinations) = self.combinations(&layers, everywhere) else { return };
        let is_split = layers.first(|table| table.split.as_ref()).is_some();
        let name: Arc<str> = name.into();
        let values = Values::default();
        for (number, matrix) in combinations.into_iter().enumerate() {
            let whole = Label { package: self.context.dir.clone(), name: Arc::clone(&name), matrix };
            let kept = Kept { package: &values, everywhere: everywhere.map(|everywhere| (everywhere, number)) };
            let pending = if is_split { Some(&Part::PENDING) } else { None };
            let parts: Vec<Option<&Part>> = match self.context.parts.get(&whole) {
                Some(parts) if is_split => parts.iter().map(Some).collect(),
                _ => vec![pending],
            };
            for part in parts {
                self.run_task(&whole, part, &place, &layers, Some(kept).filter(|_| part.is_none()));
            }
        }
    }

    fn combinations(&mut self, layers: &Layers<'_>, everywhere: Option<&Everywhere>) -> Option<Vec<Arc<Matrix>>> {
        if let Some(known) = everywhere.and_then(Everywhere::combinations) {
            return Some(known.to_vec());
        }
        let told = self.problems.told();
        let all = combinations(layers, &mut self.problems)?;
        let Some(everywhere) = everywhere.filter(|_| self.problems.told() == told) else { return Some(all) };
        everywhere.keep_combinations(&all);
        everywhere.combinations().map(<[_]>::to_vec)
    }

    fn run_task(
        &mut self,
        whole: &Label,
        part: Option<&Part>,
        place: &Place,
        layers: &Layers<'_>,
        kept: Option<Kept<'_>>,
    ) {
        let counts_parts = Cell::new(false);
        let asked = Cell::default();
        let names = self.context.names(&whole.matrix, &asked).with_part(part, &counts_parts);
        let mut lowering = task::Lowering { layers, names, problems: &mut self.problems, kept };
        let needs = lowering.needs();
        let services = lowering.services();
        let tags = lowering.tags();
        let Some(mut run) = lowering.run_task(&whole.name, place) else { return };
        if run.split.is_some()
            && let Some(split) = &mut run.split
        {
            // What was read after `split` may name it as well.
            split.counts_parts = counts_parts.get();
        }
        let mut label = whole.clone();
        if let Some((axis, value)) = part.and_then(Part::axis) {
            Arc::make_mut(&mut label.matrix).insert(axis.to_owned(), value);
        }
        self.tasks.push(Task { label, place: place.clone(), needs, services, tags, kind: TaskKind::Run(run) });
    }

    fn applied(&mut self, task: &str, reference: &Placed<String>) {
        let templates = self.context.templates;
        let Some(template) = templates.find(&reference.value, &reference.place, &mut self.problems) else { return };
        let layers = Layers::new(&template.table, template.damaged, templates.origin(), templates, &mut self.problems);
        self.run_tasks(task, reference.place.clone(), layers, templates.kept(&reference.value));
    }

    fn fetch(&mut self, declared: &Declared<FetchTable>, file: &ManifestFile) {
        let matrix = Matrix::new();
        let asked = Cell::default();
        let names = self.context.names(&matrix, &asked);
        let mut lowering =
            fetch::Lowering { fetch: declared, origin: &file.origin, names, problems: &mut self.problems };
        let tags = lowering.tags();
        let Some(fetch) = lowering.fetch_task() else { return };
        self.tasks.push(Task {
            label: Label::new(self.context.dir.clone(), declared.name.value.as_str()),
            place: file.origin.of(&declared.name),
            needs: [].into(),
            services: [].into(),
            tags: tags.into(),
            kind: TaskKind::Fetch(Box::new(fetch)),
        });
    }

    fn image(&mut self, declared: &Declared<ImageTable>, file: &ManifestFile) {
        let asked = Cell::default();
        let names = self.context.names(const { &Matrix::new() }, &asked);
        let label = Label::new(self.context.dir.clone(), declared.name.value.as_str());
        let place = file.origin.of(&declared.name);
        let lowered = image::lower(declared, &file.origin, self.context.templates, names, &mut self.problems);
        self.tasks.extend(lowered.map(|image::Lowered { needs, tags, run }| Task {
            label,
            place,
            needs,
            services: [].into(),
            tags,
            kind: TaskKind::Run(run),
        }));
    }

    fn service(&mut self, declared: &Declared<ServiceTable>, file: &ManifestFile) {
        let asked = Cell::default();
        let names = self.context.names(const { &Matrix::new() }, &asked);
        let place = file.origin.of(&declared.name);
        let label = Label::new(self.context.dir.clone(), declared.name.value.as_str());
        let templates = self.context.templates;
        self.tasks.extend(service::lower(declared, &file.origin, templates, names, &mut self.problems).map(
            |lowered| {
                let service::Lowered { needs, services, tags, service } = lowered;
                Task { label, place, needs, services, tags, kind: TaskKind::Service(Box::new(service)) }
            },
        ));
    }
}

impl<'a> PackageContext<'a> {
    fn names(&self, matrix: &'a Matrix, asked: &'a Cell<Asked>) -> Names<'a> {
        Names::new((self.dir, self.name), self.workspace_name, matrix, asked)
    }
}
