//! Loads a workspace: root manifest, packages, all manifests, tasks, package graph, checks between tasks.
//!
//! Problems are collected, not stopped at: one run shows everything that is wrong in all manifests. Knows no task graph.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;

use crate::base::diagnostic::{Diagnostic, nearest};
use crate::base::ids::{Id, IdMap, PackageId, TaskId};
use crate::base::label::Label;
use crate::base::limits::MANIFEST_BYTES_MAX;
use crate::base::path::RelPath;
use crate::base::span::{Place, Placed, SourceId, Sources};
use crate::base::time::human_bytes;
use crate::fs::ops;
use crate::manifest::lower::{self, PackageContext, Templates};
use crate::manifest::model::{Task, WorkspaceConfig};
use crate::manifest::read::{self, ManifestFile};
use crate::manifest::split::Part;
use crate::workspace::claims;
use crate::workspace::discover::{self, Discovered, MANIFEST};
use crate::workspace::model::{Package, Workspace};
use crate::workspace::package_graph::edges;
use crate::workspace::split::{self, GroupSizes, Splits};
use crate::workspace::tasks::Tasks;
use crate::workspace::upstream;

/// Why a workspace could not be loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadError {
    /// Texts that places point into.
    pub sources: Sources,
    /// What is wrong; at least one of them is an error.
    pub diagnostics: Vec<Diagnostic>,
}

/// Loads the workspace whose root manifest lies in `root`.
///
/// # Errors
/// Everything that is wrong in any manifest, together. Warnings alone are left in [`Workspace::diagnostics`].
pub fn load(root: &Path) -> Result<Workspace, LoadError> {
    load_grouped(root, &|_, _| None)
}

/// The same, with what is known of the sizes of groups for `per-action = "auto"`.
///
/// # Errors
/// As [`load`].
pub fn load_grouped(root: &Path, sizes: &GroupSizes<'_>) -> Result<Workspace, LoadError> {
    let mut loader = Loader { root, sources: Sources::default(), diagnostics: Vec::new() };
    let workspace = loader.load(sizes);
    let Loader { sources, mut diagnostics, .. } = loader;
    let wrong = diagnostics.iter().any(Diagnostic::is_error);
    match workspace {
        Some(workspace) if !wrong => Ok(Workspace { sources, diagnostics, ..workspace }),
        _ => {
            if !wrong {
                let path = root.join(MANIFEST);
                diagnostics.push(Diagnostic::error(format!("{} does not make a workspace", path.display())));
            }
            Err(LoadError { sources, diagnostics })
        }
    }
}

struct Loader<'a> {
    root: &'a Path,
    sources: Sources,
    diagnostics: Vec<Diagnostic>,
}

/// The manifest of one package, as far as it could be read.
struct Read {
    source: SourceId,
    file: Option<ManifestFile>,
}

impl Loader<'_> {
    fn load(&mut self, sizes: &GroupSizes<'_>) -> Option<Workspace> {
        let root_dir = RelPath::root();
        let text = read_manifest(self.root, &root_dir).map_err(|problem| self.diagnostics.push(problem)).ok()?;
        let source = self.sources.add(MANIFEST, text.as_str());
        let root_file = read::read(source, &text, &mut self.diagnostics)?;
        let config = lower::lower_workspace(&root_file, &mut self.diagnostics)?;
        let found =
            discover::discover(self.root, config.packages.as_deref(), root_file.applies(), &mut self.diagnostics);
        let mut files = self.read_all(&found);
        self.refuse_nested_workspaces(&mut files);
        files.insert(root_dir, Read { source, file: Some(root_file) });
        Some(self.assemble(config, &found, &files, sizes))
    }

    /// Reads the manifests of all packages but the root.
    fn read_all(&mut self, found: &Discovered) -> BTreeMap<RelPath, Read> {
        let dirs: Vec<&RelPath> = found
            .packages
            .iter()
            .filter(|(dir, package)| package.manifest && !dir.is_root())
            .map(|(dir, _)| dir)
            .collect();
        let texts: Vec<Result<String, Diagnostic>> = dirs.par_iter().map(|dir| read_manifest(self.root, dir)).collect();
        let mut sources = Vec::new();
        for (dir, text) in dirs.into_iter().zip(texts) {
            match text {
                Ok(text) => sources.push((dir, self.sources.add(dir.child(MANIFEST).as_str(), text.as_str()), text)),
                Err(problem) => self.diagnostics.push(problem),
            }
        }
        let files: Vec<_> = sources
            .into_par_iter()
            .map(|(dir, source, text)| {
                let mut problems = Vec::new();
                let file = read::read(source, &text, &mut problems);
                (dir.clone(), Read { source, file }, problems)
            })
            .collect();
        let mut by_dir = BTreeMap::new();
        for (dir, read, problems) in files {
            self.diagnostics.extend(problems);
            by_dir.insert(dir, read);
        }
        by_dir
    }

    /// Their tasks are left out: they were written for another root, and would only add confusing problems.
    fn refuse_nested_workspaces(&mut self, files: &mut BTreeMap<RelPath, Read>) {
        for (dir, read) in files {
            let Some(file) = read.file.take_if(|file| file.is_root()) else { continue };
            // Only the place is wanted here; what else may be wrong in that table does not matter.
            let place = lower::lower_workspace(&file, &mut Vec::new())
                .map_or_else(|| Place::new(read.source, 0..0), |config| config.place);
            self.diagnostics.push(
                Diagnostic::error(format!("`{}` has a second `[workspace]`", dir.child(MANIFEST)))
                    .at(&place, "a workspace cannot lie inside another")
                    .help("remove `[workspace]` there to make it a package")
                    .help("or keep it out of this workspace: name the package directories in `[workspace] packages`"),
            );
        }
    }

    fn assemble(
        &mut self,
        config: WorkspaceConfig,
        found: &Discovered,
        files: &BTreeMap<RelPath, Read>,
        sizes: &GroupSizes<'_>,
    ) -> Workspace {
        let mut packages: IdMap<PackageId, Package> = IdMap::new();
        for dir in found.packages.keys() {
            let read = files.get(dir);
            let own = read.and_then(|read| read.file.as_ref()).and_then(ManifestFile::package_name);
            let name = own.unwrap_or(if dir.is_root() { &config.name } else { dir.file_name() }).to_owned();
            let place = read.map(|read| Place::new(read.source, 0..0));
            packages.push(Package {
                dir: dir.clone(),
                name,
                depends: Vec::new(),
                dev_depends: Vec::new(),
                tasks: Vec::new(),
                place,
            });
        }
        let root_file = files[&RelPath::root()].file.as_ref().expect("loading stops without a root manifest");
        let templates = &lower::templates(root_file);
        let mut lowering = Lowering { config: &config, found, files, templates, parts: &BTreeMap::new() };
        let tasks = self.lower_all(&packages, &lowering);
        let (root, sources) = (self.root.to_owned(), Sources::default());
        let mut workspace = Workspace {
            root,
            config: config.clone(),
            packages,
            tasks: Tasks::new(),
            splits: Splits::default(),
            sources,
            diagnostics: Vec::new(),
            walked: found.walked.clone(),
        };
        self.add_tasks(&mut workspace, tasks);
        if !self.diagnostics.iter().any(Diagnostic::is_error) {
            let parts = split::parts(&workspace, sizes, &mut self.diagnostics);
            lowering.parts = &parts;
            self.put_parts(&mut workspace, &lowering);
        }
        let declared = self.declared_depends(&workspace, files);
        edges::connect(&mut workspace, declared, &mut self.diagnostics);
        upstream::expand(&mut workspace);
        claims::check(&workspace, &mut self.diagnostics);
        workspace
    }

    /// Puts its parts in place of every task with `split`: their packages are lowered again, now that the items are known.
    fn put_parts(&mut self, workspace: &mut Workspace, lowering: &Lowering<'_>) {
        let split: BTreeSet<&RelPath> = lowering.parts.keys().map(|label| &label.package).collect();
        if split.is_empty() {
            return;
        }
        let others = workspace.tasks.values().filter(|task| !split.contains(&task.label.package));
        let mut tasks: Vec<Task> = others.cloned().collect();
        let mut problems = Vec::new();
        for package in workspace.packages.values().filter(|package| split.contains(&package.dir)) {
            tasks.extend(lowering.tasks(package, &mut problems));
        }
        // A stable sort, so that of two equal labels the one written first is kept.
        tasks.sort_by(|one, other| one.label.cmp(&other.label));
        // What else is to be said was said when they were lowered first.
        self.diagnostics.extend(problems.into_iter().filter(Diagnostic::is_error));
        workspace.tasks = Tasks::new();
        for id in workspace.packages.ids() {
            workspace.packages[id].tasks.clear();
        }
        self.add_tasks(workspace, tasks);
        workspace.splits = Splits::of(&workspace.tasks);
    }

    /// The tasks of all packages, in the order of their labels.
    fn lower_all(&mut self, packages: &IdMap<PackageId, Package>, lowering: &Lowering<'_>) -> Vec<Task> {
        let packages: Vec<&Package> = packages.values().collect();
        let lower = |package: &&Package| {
            let mut problems = Vec::new();
            (lowering.tasks(package, &mut problems), problems)
        };
        let mut all = Vec::new();
        // In portions: what lies in memory twice is little.
        for portion in packages.chunks(PACKAGES_AT_ONCE) {
            let lowered: Vec<(Vec<Task>, Vec<Diagnostic>)> = portion.par_iter().map(lower).collect();
            for (tasks, problems) in lowered {
                lower::tell(problems, &mut self.diagnostics);
                all.extend(tasks);
            }
        }
        all
    }

    /// Gives the tasks, which are in the order of their labels, their ids, and refuses labels that come twice.
    fn add_tasks(&mut self, workspace: &mut Workspace, mut tasks: Vec<Task>) {
        tasks.dedup_by(|task, first| {
            let is_twice = task.label == first.label;
            if is_twice {
                self.diagnostics.push(
                    Diagnostic::error(format!("two tasks are called `{}`", task.label))
                        .at(&task.place, "the second")
                        .at(&first.place, "the first")
                        .help("rename one of them"),
                );
            }
            is_twice
        });
        let mut last: Option<(&RelPath, PackageId)> = None;
        for (at, task) in tasks.iter().enumerate() {
            let dir = &task.label.package;
            let known = last.filter(|(last, _)| *last == dir).map(|(_, package)| package);
            let package = known.or_else(|| workspace.package_at(dir)).expect("tasks are lowered from packages");
            workspace.packages[package].tasks.push(TaskId::from_index(at));
            last = Some((dir, package));
        }
        workspace.tasks = tasks.into_iter().collect::<IdMap<TaskId, Task>>().into();
    }

    /// Edges from `[package] depends`.
    fn declared_depends(&mut self, workspace: &Workspace, files: &BTreeMap<RelPath, Read>) -> Vec<edges::Dependency> {
        let mut edges = Vec::new();
        for (from, package) in workspace.packages.iter() {
            let Some(file) = files.get(&package.dir).and_then(|read| read.file.as_ref()) else { continue };
            for written in file.package_depends() {
                match named_package(workspace, &written.value) {
                    Some(to) => edges.push(edges::Dependency { from, to, reach: edges::For::Use }),
                    None => self.diagnostics.push(unknown_package(workspace, written)),
                }
            }
        }
        edges
    }
}

/// Packages that are lowered before their tasks are put together.
const PACKAGES_AT_ONCE: usize = 1024;

/// What the tasks of packages are lowered with.
struct Lowering<'a> {
    config: &'a WorkspaceConfig,
    found: &'a Discovered,
    files: &'a BTreeMap<RelPath, Read>,
    templates: &'a Templates,
    parts: &'a BTreeMap<Label, Vec<Part>>,
}

impl Lowering<'_> {
    /// The tasks of a package, in the order of their labels; of two equal ones the one written first comes first.
    fn tasks(&self, package: &Package, diagnostics: &mut Vec<Diagnostic>) -> Vec<Task> {
        let root_file = self.files[&RelPath::root()].file.as_ref().expect("loading stops without a root manifest");
        let read = self.files.get(&package.dir);
        if read.is_some_and(|read| read.file.is_none()) {
            return Vec::new(); // Its problems are told already; applied tasks alone would only add confusing ones.
        }
        let applied: Vec<(Placed<String>, Placed<String>)> = self.found.packages[&package.dir]
            .applies
            .iter()
            .flat_map(|position| root_file.applies()[*position].tasks.iter().cloned())
            .collect();
        let context = PackageContext {
            dir: &package.dir,
            name: &package.name,
            workspace_name: &self.config.name,
            templates: self.templates,
            applied: &applied,
            parts: self.parts,
        };
        let mut tasks = lower::lower_package(read.and_then(|read| read.file.as_ref()), &context, diagnostics);
        tasks.sort_by(|one, other| one.label.cmp(&other.label));
        tasks
    }
}

/// The package that `//libs/ui` names.
fn named_package(workspace: &Workspace, text: &str) -> Option<PackageId> {
    let dir = RelPath::parse(text.strip_prefix("//")?).ok()?;
    workspace.package_at(&dir)
}

fn unknown_package(workspace: &Workspace, written: &Placed<String>) -> Diagnostic {
    let known: Vec<String> = workspace.packages.values().map(|package| format!("//{}", package.dir.as_str())).collect();
    let problem = Diagnostic::error(format!("no package `{}`", written.value)).at(&written.place, "");
    match nearest(&written.value, known.iter().map(String::as_str)) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("`drystone query //...` lists the tasks of all packages"),
    }
}

/// The text of a package's manifest.
fn read_manifest(root: &Path, dir: &RelPath) -> Result<String, Diagnostic> {
    let name = dir.child(MANIFEST);
    let path = root.join(name.as_str());
    let failed = |error: ops::FsError| Diagnostic::error(error.to_string());
    let meta = ops::metadata(&path).map_err(failed)?;
    if !meta.is_file() {
        return Err(Diagnostic::error(format!("`{name}` is not a regular file")).help("a manifest is a TOML file"));
    }
    if meta.len() > MANIFEST_BYTES_MAX {
        let (size, max) = (human_bytes(meta.len()), human_bytes(MANIFEST_BYTES_MAX));
        return Err(Diagnostic::error(format!("`{name}` is too large: {size}, at most {max} are read"))
            .help("split it into packages"));
    }
    let bytes = ops::read(&path).map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        Diagnostic::error(format!("`{name}` is not UTF-8 in line {line}")).help("TOML files are UTF-8")
    })
}

#[cfg(test)]
mod tests;
