//! Puts the dependencies of all ecosystems together. Knows no format of its own.
//!
//! A manifest of another tool that cannot be read costs its edges and a warning, never the run. Packages may depend on
//! each other in a circle; only tasks may not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::{IdMap, PackageId};
use crate::base::limits::MANIFEST_BYTES_MAX;
use crate::base::path::RelPath;
use crate::fs::ops;
use crate::manifest::model::Ecosystem;
use crate::workspace::model::{Package, Workspace};
use crate::workspace::package_graph::{cargo, go, npm, uv};

/// What a package needs another one for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum For {
    /// To be built or to run.
    Use,
    /// Only to be developed: tests, tools.
    Development,
}

/// One package depends on another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Dependency {
    /// Which depends.
    pub from: PackageId,
    /// On which.
    pub to: PackageId,
    /// What for.
    pub reach: For,
}

/// Fills in the dependencies of every package: the `declared` ones and those of the ecosystems asked for.
pub fn connect(workspace: &mut Workspace, declared: Vec<Dependency>, warnings: &mut Vec<Diagnostic>) {
    let ecosystems: BTreeSet<Ecosystem> = workspace.config.package_graph.iter().copied().collect();
    let mut all = declared;
    let members = Members { root: &workspace.root, workspace };
    for ecosystem in ecosystems {
        all.extend(match ecosystem {
            Ecosystem::Cargo => cargo::dependencies(&members, warnings),
            Ecosystem::Npm => npm::dependencies(&members, warnings),
            Ecosystem::Uv => uv::dependencies(&members, warnings),
            Ecosystem::Go => go::dependencies(&members, warnings),
        });
    }
    attach(&mut workspace.packages, all);
}

fn attach(packages: &mut IdMap<PackageId, Package>, all: Vec<Dependency>) {
    let mut used: IdMap<PackageId, BTreeMap<PackageId, For>> = IdMap::filled(packages.len(), BTreeMap::new());
    for edge in all {
        // A crate may depend on itself to test itself; that orders nothing between packages.
        if edge.from != edge.to {
            let reach = used[edge.from].entry(edge.to).or_insert(edge.reach);
            *reach = edge.reach.min(*reach);
        }
    }
    for id in packages.ids() {
        let of = |wanted: For| used[id].iter().filter(move |(_, reach)| **reach == wanted).map(|(to, _)| *to).collect();
        packages[id].depends = of(For::Use);
        packages[id].dev_depends = of(For::Development);
    }
}

/// The packages as the readers of the ecosystems see them.
pub struct Members<'w> {
    /// Directory of the workspace.
    pub root: &'w Path,
    /// The packages.
    pub workspace: &'w Workspace,
}

impl<'w> Members<'w> {
    /// Ids and directories, in id order.
    pub fn dirs(&self) -> impl Iterator<Item = (PackageId, &'w RelPath)> + use<'w> {
        self.workspace.packages.iter().map(|(id, package)| (id, &package.dir))
    }

    /// The text of a file in a directory; `None` if it is not there, and with a warning if it cannot be read.
    pub fn text(&self, dir: &RelPath, name: &str, warnings: &mut Vec<Diagnostic>) -> Option<String> {
        let path = self.root.join(dir.as_str()).join(name);
        let meta = match ops::if_there(ops::metadata(&path)) {
            Ok(meta) => meta?,
            Err(error) => {
                warnings.push(left_out(dir, name, &error.to_string()));
                return None;
            }
        };
        if !meta.is_file() || meta.len() > MANIFEST_BYTES_MAX {
            warnings.push(left_out(dir, name, "it is too large or not a regular file"));
            return None;
        }
        match ops::read_text(&path) {
            Ok(text) => Some(text.trim_start_matches('\u{feff}').to_owned()),
            Err(error) => {
                warnings.push(left_out(dir, name, &error.to_string()));
                None
            }
        }
    }

    /// A TOML file of a directory.
    pub fn toml(&self, dir: &RelPath, name: &str, warnings: &mut Vec<Diagnostic>) -> Option<toml::Table> {
        let text = self.text(dir, name, warnings)?;
        text.parse::<toml::Table>()
            .map_err(|error| {
                let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
                warnings.push(left_out(dir, name, &format!("line {line}: {}", error.message())));
            })
            .ok()
    }

    /// The package that `relative`, written in `from`, leads to.
    pub fn at(&self, from: &RelPath, relative: &str) -> Option<PackageId> {
        let relative = relative.trim_end_matches('/');
        let text = if from.is_root() { relative.to_owned() } else { format!("{}/{relative}", from.as_str()) };
        (!relative.starts_with('/'))
            .then(|| RelPath::parse(&text).ok())
            .flatten()
            .and_then(|dir| self.workspace.package_at(&dir))
    }
}

/// The warning for a manifest whose edges are missing.
pub fn left_out(dir: &RelPath, name: &str, cause: &str) -> Diagnostic {
    Diagnostic::warning(format!("the dependencies of `{}` are not known: {cause}", dir.child(name)))
        .help("`^` in `needs` follows none of them until it can be read")
}

/// Package names of one ecosystem, and who has them.
#[derive(Default)]
pub struct Names {
    by_name: BTreeMap<String, PackageId>,
}

impl Names {
    /// Records a name; the second package of one name is warned about and not found by it.
    pub fn insert(&mut self, members: &Members<'_>, name: &str, id: PackageId, warnings: &mut Vec<Diagnostic>) {
        let first = *self.by_name.entry(name.to_owned()).or_insert(id);
        if first != id {
            let dir = |id: PackageId| &members.workspace.packages[id].dir;
            warnings.push(
                Diagnostic::warning(format!("`{}` and `{}` are both named `{name}`", dir(first), dir(id)))
                    .help("dependencies on that name are taken to mean the first"),
            );
        }
    }

    /// Who has the name.
    pub fn get(&self, name: &str) -> Option<PackageId> {
        self.by_name.get(name).copied()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::workspace::fixture::Fixture;

    /// Writes the files, takes every directory with one as a package, and shows `from -> to` and `from ~> to` (development).
    pub(crate) fn edges_of(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut fixture = Fixture::at(dir.path());
        for (file, text) in files {
            let file = Path::new(file);
            let parent = file.parent().expect("a file has a directory");
            ops::create_dir_all(&dir.path().join(parent)).expect("a directory");
            ops::write(&dir.path().join(file), text.as_bytes()).expect("a file");
            fixture = fixture.package(parent.to_str().expect("UTF-8"));
        }
        let mut workspace = fixture.build();
        let mut warnings = Vec::new();
        connect(&mut workspace, Vec::new(), &mut warnings);
        let mut edges = Vec::new();
        for package in workspace.packages.values() {
            let show = |arrow: &str, to: &PackageId| format!("{} {arrow} {}", package.dir, workspace.packages[*to].dir);
            edges.extend(package.depends.iter().map(|to| show("->", to)));
            edges.extend(package.dev_depends.iter().map(|to| show("~>", to)));
        }
        (edges, warnings.into_iter().map(|warning| warning.message).collect())
    }

    #[test]
    fn a_use_wins_over_development_and_nothing_depends_on_itself() {
        let mut workspace = Fixture::new().package("a").package("b").build();
        let [a, b] = [PackageId(1), PackageId(2)];
        let edge = |from, to, reach| Dependency { from, to, reach };
        attach(
            &mut workspace.packages,
            vec![
                edge(a, b, For::Development),
                edge(a, b, For::Use),
                edge(a, a, For::Use),
                edge(b, a, For::Development),
            ],
        );
        assert_eq!((&workspace.packages[a].depends, &workspace.packages[a].dev_depends), (&vec![b], &vec![]));
        assert_eq!((&workspace.packages[b].depends, &workspace.packages[b].dev_depends), (&vec![], &vec![a]));
    }

    #[test]
    fn a_broken_manifest_is_a_warning_that_names_it() {
        let (edges, warnings) = edges_of(&[
            ("a/Cargo.toml", "[package]\nname = "),
            ("a/package.json", "{"),
            ("a/pyproject.toml", "="),
            ("a/go.mod", "require x v1"),
            ("b/package.json", "[]"),
        ]);
        assert_eq!(edges, Vec::<String>::new());
        for (warning, file) in
            warnings.iter().zip(["a/Cargo.toml", "a/package.json", "b/package.json", "a/pyproject.toml", "a/go.mod"])
        {
            assert!(warning.contains(&format!("`{file}`")), "{warning} {file}");
        }
        assert_eq!(warnings.len(), 5, "{warnings:?}");
    }
}
