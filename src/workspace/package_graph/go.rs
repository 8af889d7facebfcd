//! Dependencies that `go.mod` files tell: required modules of the workspace, and replacements by directory.
//!
//! `// indirect` is not looked at: `go get` writes it before `go mod tidy` knows better.

use std::collections::BTreeSet;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::PackageId;
use crate::base::path::RelPath;
use crate::workspace::package_graph::edges::{Dependency, For, Members, Names, left_out};

const FILE: &str = "go.mod";

/// The dependencies between Go modules of the workspace.
pub fn dependencies(members: &Members<'_>, warnings: &mut Vec<Diagnostic>) -> Vec<Dependency> {
    let mut modules: Vec<(PackageId, &RelPath, Module)> = Vec::new();
    let mut names = Names::default();
    for (id, dir) in members.dirs() {
        let Some(text) = members.text(dir, FILE, warnings) else { continue };
        let module = parse(&text);
        match &module.name {
            Some(name) => names.insert(members, name, id, warnings),
            None => warnings.push(left_out(dir, FILE, "it has no `module` line")),
        }
        modules.push((id, dir, module));
    }
    let mut edges = Vec::new();
    for (from, dir, module) in modules {
        let required =
            module.requires.iter().filter(|name| !module.replaced.contains(*name)).filter_map(|name| names.get(name));
        let beside = module.directories.iter().filter_map(|path| members.at(dir, path));
        edges.extend(required.chain(beside).map(|to| Dependency { from, to, reach: For::Use }));
    }
    edges
}

/// What of a `go.mod` matters here.
#[derive(Default, PartialEq, Eq, Debug)]
struct Module {
    name: Option<String>,
    requires: Vec<String>,
    /// Modules that something else stands in for.
    replaced: BTreeSet<String>,
    /// Directories that stand in for a module.
    directories: Vec<String>,
}

fn parse(text: &str) -> Module {
    let mut module = Module::default();
    let mut block: Option<String> = None;
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or("");
        let mut words: Vec<String> =
            line.split_whitespace().map(|word| word.trim_matches(['"', '`']).to_owned()).collect();
        match (block.as_deref(), words.first().map(String::as_str)) {
            (_, None) => {}
            (Some(_), Some(")")) => block = None,
            (Some(verb), Some(_)) => module.directive(verb, &words),
            (None, Some(_)) => {
                let verb = words.remove(0);
                if words.first().is_some_and(|word| word == "(") {
                    block = Some(verb);
                } else {
                    module.directive(&verb, &words);
                }
            }
        }
    }
    module
}

impl Module {
    fn directive(&mut self, verb: &str, words: &[String]) {
        let Some(first) = words.first() else { return };
        match verb {
            "module" => self.name = Some(first.clone()),
            "require" => self.requires.push(first.clone()),
            "replace" => {
                let Some(arrow) = words.iter().position(|word| word == "=>") else { return };
                self.replaced.insert(first.clone());
                if let Some(by) = words.get(arrow + 1).filter(|by| by.starts_with("./") || by.starts_with("../")) {
                    self.directories.push(by.clone());
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::workspace::package_graph::edges::tests::edges_of;

    #[test]
    fn required_modules_and_replacements_are_followed() {
        let (edges, warnings) = edges_of(&[
            ("log/go.mod", "module example.com/log\n\ngo 1.24\n"),
            ("db/go.mod", "module \"example.com/db\" // the database\nrequire example.com/log v1.0.0 // indirect\n"),
            (
                "api/go.mod",
                "module example.com/api\nrequire (\n\texample.com/db v1.2.3\n\texample.com/log v1\n\texample.com/gen v0\n)\n\
                 replace (\n\texample.com/gen v0 => ../generated\n\texample.com/log => example.org/fork v2\n)\n",
            ),
            ("generated/go.mod", "module other\n"),
        ]);
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(edges, ["api -> db", "api -> generated", "db -> log"]);
    }
}
