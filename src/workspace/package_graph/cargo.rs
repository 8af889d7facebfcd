//! Dependencies that `Cargo.toml` files tell: by path, inherited from a Cargo workspace, or by crate name.
//!
//! Knows of features, versions and lock files nothing: an optional dependency counts like any other.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::PackageId;
use crate::base::path::RelPath;
use crate::workspace::package_graph::edges::{Dependency, For, Members, Names};

const FILE: &str = "Cargo.toml";

/// Sections by what they are for, old spellings included.
const SECTIONS: [(&str, For); 5] = [
    ("dependencies", For::Use),
    ("build-dependencies", For::Use),
    ("build_dependencies", For::Use),
    ("dev-dependencies", For::Development),
    ("dev_dependencies", For::Development),
];

/// The dependencies between crates of the workspace.
pub fn dependencies(members: &Members<'_>, warnings: &mut Vec<Diagnostic>) -> Vec<Dependency> {
    let mut crates: Vec<(PackageId, &RelPath, Table)> = Vec::new();
    let mut names = Names::default();
    for (id, dir) in members.dirs() {
        let Some(manifest) = members.toml(dir, FILE, warnings) else { continue };
        if let Some(name) = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str) {
            names.insert(members, name, id, warnings);
        }
        crates.push((id, dir, manifest));
    }
    let mut inherited = Inherited::default();
    let mut edges = Vec::new();
    for (from, dir, manifest) in &crates {
        for (section, reach) in sections(manifest) {
            for (key, spec) in section {
                let resolve = Resolve { members, names: &names };
                let to = if spec.get("workspace").and_then(Value::as_bool) == Some(true) {
                    inherited
                        .get(members, dir, manifest)
                        .and_then(|(base, table)| resolve.local(base, key, table.get(key)?))
                } else {
                    resolve.local(dir, key, spec)
                };
                edges.extend(to.map(|to| Dependency { from: *from, to, reach }));
            }
        }
    }
    edges
}

fn sections(manifest: &Table) -> Vec<(&Table, For)> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let tables = std::iter::once(manifest).chain(targets.filter_map(Value::as_table));
    tables
        .flat_map(|table| SECTIONS.iter().filter_map(|(name, reach)| Some((table.get(*name)?.as_table()?, *reach))))
        .collect()
}

struct Resolve<'a> {
    members: &'a Members<'a>,
    names: &'a Names,
}

impl Resolve<'_> {
    /// The package a dependency leads to: by path, else by crate name unless it comes from elsewhere.
    fn local(&self, base: &RelPath, key: &str, spec: &Value) -> Option<PackageId> {
        let text = |field: &str| spec.get(field).and_then(Value::as_str);
        if let Some(path) = text("path") {
            return self.members.at(base, path);
        }
        let elsewhere = ["git", "registry", "registry-index"].iter().any(|field| spec.get(*field).is_some());
        if elsewhere { None } else { self.names.get(text("package").unwrap_or(key)) }
    }
}

/// `[workspace.dependencies]` tables by the directory they were looked for from.
#[derive(Default)]
struct Inherited {
    by_dir: BTreeMap<RelPath, Option<Table>>,
}

impl Inherited {
    /// The table a crate inherits from, and the directory its paths are relative to.
    fn get(&mut self, members: &Members<'_>, dir: &RelPath, manifest: &Table) -> Option<(&RelPath, &Table)> {
        let named = manifest.get("package").and_then(|package| package.get("workspace")).and_then(Value::as_str);
        let mut here = match named {
            Some(relative) => RelPath::parse(&format!("{dir}/{relative}")).ok(),
            None => Some(dir.clone()),
        };
        while let Some(base) = here {
            // A broken manifest further up is told about when it is read as a package's own.
            let table = self.by_dir.entry(base.clone()).or_insert_with(|| {
                let manifest = members.toml(&base, FILE, &mut Vec::new())?;
                let workspace = manifest.get("workspace")?;
                Some(workspace.get("dependencies").and_then(Value::as_table).cloned().unwrap_or_default())
            });
            if table.is_some() {
                return self.by_dir.get_key_value(&base).and_then(|(dir, table)| Some((dir, table.as_ref()?)));
            }
            here = base.parent();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::workspace::package_graph::edges::tests::edges_of;

    #[test]
    fn paths_names_and_inheritance_are_followed() {
        let (edges, warnings) = edges_of(&[
            ("Cargo.toml", "[workspace]\n[workspace.dependencies]\nshared = { path = \"rust/shared\" }\nserde = \"1\""),
            ("rust/shared/Cargo.toml", "[package]\nname = \"shared\""),
            (
                "rust/core/Cargo.toml",
                "[package]\nname = \"core-lib\"\n[dependencies]\nshared.workspace = true\nserde.workspace = true",
            ),
            (
                "rust/app/Cargo.toml",
                "[package]\nname = \"app\"\n[dependencies]\nalias = { path = \"../core\", package = \"core-lib\", optional = true }\n\
                 [dev-dependencies]\nshared = \"1\"\n[target.'cfg(unix)'.build-dependencies]\ntools = { version = \"1\" }",
            ),
            (
                "rust/tools/Cargo.toml",
                "[package]\nname = \"tools\"\n[dev-dependencies]\napp = { path = \"../app\" }\ncore-lib = { git = \"x\" }",
            ),
        ]);
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(
            edges,
            [
                "rust/app -> rust/core",
                "rust/app -> rust/tools",
                "rust/app ~> rust/shared",
                "rust/core -> rust/shared",
                "rust/tools ~> rust/app",
            ]
        );
    }

    #[test]
    fn two_crates_of_one_name_are_warned_about() {
        let (_, warnings) =
            edges_of(&[("a/Cargo.toml", "[package]\nname = \"x\""), ("b/Cargo.toml", "[package]\nname = \"x\"")]);
        assert_eq!(warnings, ["`a` and `b` are both named `x`"]);
    }
}
