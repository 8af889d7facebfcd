//! Dependencies that `pyproject.toml` files tell: PEP 621 and PEP 735 names of packages of the workspace, and uv's sources.
//!
//! Names are compared as PEP 503 says. Markers, extras and versions are not looked at.

use toml::{Table, Value};

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::PackageId;
use crate::base::path::RelPath;
use crate::workspace::package_graph::edges::{Dependency, For, Members, Names};

const FILE: &str = "pyproject.toml";

/// The dependencies between Python projects of the workspace.
pub fn dependencies(members: &Members<'_>, warnings: &mut Vec<Diagnostic>) -> Vec<Dependency> {
    let mut projects: Vec<(PackageId, &RelPath, Table)> = Vec::new();
    let mut names = Names::default();
    for (id, dir) in members.dirs() {
        let Some(manifest) = members.toml(dir, FILE, warnings) else { continue };
        if let Some(name) = manifest.get("project").and_then(|project| project.get("name")).and_then(Value::as_str) {
            names.insert(members, &normalized(name), id, warnings);
        }
        projects.push((id, dir, manifest));
    }
    let mut edges = Vec::new();
    for (from, dir, manifest) in &projects {
        for (requirement, reach) in requirements(manifest) {
            let Some(name) = required_name(requirement) else { continue };
            edges.extend(resolve(members, &names, dir, manifest, &name).map(|to| Dependency {
                from: *from,
                to,
                reach,
            }));
        }
    }
    edges
}

/// Every requirement of a project, with what it is for.
fn requirements(manifest: &Table) -> Vec<(&str, For)> {
    let at = |path: &[&str]| {
        let (first, rest) = path.split_first().expect("a path has a component");
        rest.iter().try_fold(manifest.get(*first)?, |value, key| value.get(key))
    };
    let groups = |path: &[&str]| -> Vec<_> {
        let tables = at(path).and_then(Value::as_table).into_iter().flat_map(Table::values);
        tables.flat_map(|list| strings(Some(list))).collect()
    };
    let used = strings(at(&["project", "dependencies"]))
        .into_iter()
        .chain(groups(&["project", "optional-dependencies"]))
        .chain(strings(at(&["build-system", "requires"])));
    let developed = groups(&["dependency-groups"]).into_iter().chain(strings(at(&["tool", "uv", "dev-dependencies"])));
    used.map(|text| (text, For::Use)).chain(developed.map(|text| (text, For::Development))).collect()
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The package a name leads to: where `[tool.uv.sources]` sends it, else the one of that name.
fn resolve(members: &Members<'_>, names: &Names, dir: &RelPath, manifest: &Table, name: &str) -> Option<PackageId> {
    let sources = manifest.get("tool").and_then(|tool| tool.get("uv")).and_then(|uv| uv.get("sources"));
    let source = sources
        .and_then(Value::as_table)
        .and_then(|sources| sources.iter().find(|(key, _)| normalized(key) == name))
        .map(|(_, source)| source);
    // One source, or a list of them by marker: the first that is local will do.
    let choices: Vec<&Value> = match source {
        Some(Value::Array(choices)) => choices.iter().collect(),
        Some(single) => vec![single],
        None => return names.get(name),
    };
    choices.into_iter().find_map(|choice| match choice.get("path").and_then(Value::as_str) {
        Some(path) => members.at(dir, path),
        None if choice.get("workspace").and_then(Value::as_bool) == Some(true) => names.get(name),
        None => None,
    })
}

/// The normalized name at the start of a PEP 508 requirement.
fn required_name(requirement: &str) -> Option<String> {
    let text = requirement.trim_start();
    let end = text.find(|letter: char| !(letter.is_ascii_alphanumeric() || "-_.".contains(letter)));
    let name = &text[..end.unwrap_or(text.len())];
    (!name.is_empty()).then(|| normalized(name))
}

/// A name as PEP 503 compares it: lower case, runs of `-`, `_` and `.` as one `-`.
fn normalized(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            letter => out.push(letter.to_ascii_lowercase()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::package_graph::edges::tests::edges_of;

    #[test]
    fn names_groups_and_sources_are_followed() {
        let (edges, warnings) = edges_of(&[
            ("core/pyproject.toml", "[project]\nname = \"Shop_Core\""),
            (
                "db/pyproject.toml",
                "[project]\nname = \"db\"\ndependencies = [\"shop.core[fast]>=1; python_version>'3'\"]",
            ),
            ("testing/pyproject.toml", "[project]\nname = \"testing\""),
            (
                "api/pyproject.toml",
                "[project]\nname = \"api\"\ndependencies = [\"shop-core\", \"requests\", \"db\"]\n\
                 [project.optional-dependencies]\nx = [\"store>1\"]\n\
                 [dependency-groups]\ntest = [\"testing\", { include-group = \"lint\" }]\nlint = [\"shop-core\"]\n\
                 [tool.uv]\ndev-dependencies = [\"fixtures\"]\n\
                 [tool.uv.sources]\nshop-core = { workspace = true }\nstore = { path = \"../storage\" }\ndb = { git = \"https://x\" }",
            ),
            ("storage/pyproject.toml", "[project]\nname = \"other\""),
            ("fixtures/pyproject.toml", "[project]\nname = \"fixtures\""),
        ]);
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(edges, ["api -> core", "api -> storage", "api ~> fixtures", "api ~> testing", "db -> core"]);
    }

    #[test]
    fn names_are_compared_as_pep_503_says() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(required_name(text).as_deref(), expect, "{text}");
        check("Friendly-._.Bard", Some("friendly-bard"));
        check(" a [x] @ file:///a", Some("a"));
        check("== 1", None);
    }
}
