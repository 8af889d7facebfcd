//! Dependencies that `package.json` files tell: by the name of a package of the workspace, at any version.
//!
//! The `workspaces` lists of npm, yarn and pnpm need not be read: packages are known already.

use serde_json::{Map, Value};

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::PackageId;
use crate::base::path::RelPath;
use crate::workspace::package_graph::edges::{Dependency, For, Members, Names, left_out};

const FILE: &str = "package.json";

const SECTIONS: [(&str, For); 4] = [
    ("dependencies", For::Use),
    ("peerDependencies", For::Use),
    ("optionalDependencies", For::Use),
    ("devDependencies", For::Development),
];

/// The dependencies between npm packages of the workspace.
pub fn dependencies(members: &Members<'_>, warnings: &mut Vec<Diagnostic>) -> Vec<Dependency> {
    let mut manifests: Vec<(PackageId, &RelPath, Map<String, Value>)> = Vec::new();
    let mut names = Names::default();
    for (id, dir) in members.dirs() {
        let Some(text) = members.text(dir, FILE, warnings) else { continue };
        match serde_json::from_str::<Map<String, Value>>(&text) {
            Ok(manifest) => {
                if let Some(name) = manifest.get("name").and_then(Value::as_str) {
                    names.insert(members, name, id, warnings);
                }
                manifests.push((id, dir, manifest));
            }
            Err(error) => warnings.push(left_out(dir, FILE, &error.to_string())),
        }
    }
    let mut edges = Vec::new();
    for (from, dir, manifest) in &manifests {
        for (section, reach) in SECTIONS {
            for (name, wanted) in manifest.get(section).and_then(Value::as_object).into_iter().flatten() {
                let to = resolve(members, &names, dir, name, wanted.as_str().unwrap_or("*"));
                edges.extend(to.map(|to| Dependency { from: *from, to, reach }));
            }
        }
    }
    edges
}

/// The package that `"name": "wanted"` leads to.
fn resolve(members: &Members<'_>, names: &Names, dir: &RelPath, name: &str, wanted: &str) -> Option<PackageId> {
    for scheme in ["file:", "link:", "portal:"] {
        if let Some(path) = wanted.strip_prefix(scheme) {
            return members.at(dir, path);
        }
    }
    if let Some(rest) = wanted.strip_prefix("workspace:") {
        if rest.starts_with("./") || rest.starts_with("../") {
            return members.at(dir, rest);
        }
        return names.get(alias(rest).unwrap_or(name));
    }
    if let Some(rest) = wanted.strip_prefix("npm:") {
        return names.get(alias(rest).unwrap_or(rest));
    }
    // `github:…`, `git+ssh://…`, `https://…`: not from here, whatever it is called.
    if wanted.contains(':') { None } else { names.get(name) }
}

/// The name in `name@version`; the `@` of a scope is not the one.
fn alias(text: &str) -> Option<&str> {
    text.char_indices().skip(1).find(|(_, letter)| *letter == '@').map(|(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use crate::workspace::package_graph::edges::tests::edges_of;

    #[test]
    fn names_and_local_paths_are_followed_at_any_version() {
        let (edges, warnings) = edges_of(&[
            ("pnpm-workspace.yaml", "packages: [\"*\"]"),
            ("ui/package.json", r#"{ "name": "@shop/ui", "peerDependencies": { "theme": "*", "react": "^19" } }"#),
            ("theme/package.json", r#"{ "name": "theme" }"#),
            ("icons/package.json", r#"{ "name": "icons", "optionalDependencies": { "theme": "file:../theme/" } }"#),
            (
                "web/package.json",
                r#"{ "name": "web",
                     "dependencies": { "@shop/ui": "workspace:*", "art": "workspace:icons@^1", "left-pad": "^1" },
                     "devDependencies": { "theme": "^2", "@shop/ui": "*", "e2e": "link:../e2e" } }"#,
            ),
            ("e2e/package.json", r#"{ "dependencies": { "web": "github:other/web", "x": "npm:@shop/ui@1" } }"#),
        ]);
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(
            edges,
            ["e2e -> ui", "icons -> theme", "ui -> theme", "web -> icons", "web -> ui", "web ~> e2e", "web ~> theme",]
        );
    }
}
