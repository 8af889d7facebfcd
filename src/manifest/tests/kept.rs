//! What tasks have in common is what each would have by itself.

use std::collections::BTreeMap;

use crate::base::diagnostic::Diagnostic;
use crate::base::path::RelPath;
use crate::base::span::{Placed, SourceId};
use crate::manifest::layers::Templates;
use crate::manifest::lower::{PackageContext, lower_package, templates};
use crate::manifest::read::{ManifestFile, read};

const PACKAGES: [(&str, &str); 3] = [("apps/web", "web"), ("libs/ui", "interface"), ("", "shop")];

/// The tasks of one package as text, and what was said.
fn lowered(file: &ManifestFile, templates: &Templates, (dir, name): (&str, &str)) -> (Vec<String>, Vec<Diagnostic>) {
    let dir = RelPath::parse(dir).expect("a good path");
    let applied: Vec<(Placed<String>, Placed<String>)> =
        file.applies().iter().flat_map(|apply| apply.tasks.clone()).collect();
    let parts = &BTreeMap::new();
    let context = PackageContext { dir: &dir, name, workspace_name: "shop", templates, applied: &applied, parts };
    let mut diagnostics = Vec::new();
    let tasks = lower_package(Some(file), &context, &mut diagnostics);
    (tasks.iter().map(|task| format!("{task:#?}")).collect(), diagnostics)
}

/// Lowers packages one after the other with what was kept of those before, and each with nothing.
pub(super) fn check(text: &str) {
    let Some(file) = read(SourceId(0), text, &mut Vec::new()) else { return };
    let shared = templates(&file);
    for package in PACKAGES.into_iter().chain(PACKAGES) {
        assert_eq!(lowered(&file, &shared, package), lowered(&file, &templates(&file), package), "{package:?}");
    }
}

/// Every key in which a name can stand, with names of the package here, of the matrix there, of both and of neither.
const TASK: &str = r#"
run = "x ${package.name} ${matrix.os}"
inputs = ["src/**", "//all/*.txt", "^lib-${matrix.os}/**", "${matrix.os}.c"]
outputs = ["a-${matrix.os}", "b"]
committed = ["c-${matrix.os}"]
interface = ["a-*"]
on-failure = ["log-${matrix.os}"]
reports = { junit = ["j-${matrix.os}.xml"], coverage = ["k.xml"] }
env = { A = "${package.dir}", B = "${matrix.os}", C = "1" }
pass-env = ["P"]
secret-env = ["S"]
tools = ["sh", "//:node"]
root = ":root-${matrix.os}"
needs = ["^build", ":gen", "//x:y[os=${matrix.os}]"]
services = [":db"]
tags = ["t-${matrix.os}"]
caches = ["cache-${matrix.os}"]
scratch = ["//${package.dir}/s/**", "t"]
fix = ["fix", "${package.name}"]
salt = "${matrix.os}"
resources = { pool = "p" }
"#;

#[test]
fn packages_and_combinations_get_what_they_would_get_alone() {
    // The matrix comes last, so that every other place stays where it is.
    let root = |header: &str, os: &str| {
        let apply = "[workspace]\n[[apply]]\nto = ['x']\ntasks = { a = 't', b = 't' }\n";
        let base = "[template.base]\nrun = 'y'\nenv = { D = '${package.name}' }\n";
        format!("{apply}{base}{header}\n{TASK}matrix = {{ os = [{os}] }}\n")
    };
    for header in ["[template.t]\nextends = 'base'", "[task.own]\nextends = 'base'"] {
        let header =
            if header.contains("own") { format!("[template.t]\nrun = 'z'\n{header}") } else { header.to_owned() };
        let all = root(&header, "'linux', 'mac', 'a'");
        check(&all);
        let file = read(SourceId(0), &all, &mut Vec::new()).expect("a manifest");
        let shared = templates(&file);
        for package in PACKAGES {
            let (mut together, told) = lowered(&file, &shared, package);
            assert_eq!(told, Vec::new());
            let mut alone = Vec::new();
            for os in ["'linux'", "'mac'", "'a'"] {
                let file = read(SourceId(0), &root(&header, os), &mut Vec::new()).expect("a manifest");
                alone.extend(lowered(&file, &templates(&file), package).0);
            }
            together.sort();
            alone.sort();
            alone.dedup();
            assert_eq!(together, alone, "{package:?}");
        }
    }
}

#[test]
fn what_is_wrong_is_said_of_every_package() {
    let text = "[workspace]\n[[apply]]\nto = ['x']\ntasks = { a = 't' }\n\
                [template.t]\nrun = 'x ${HOME}'\nneeds = ['nothing']\noutputs = ['../x']\nmatrix = { os = ['a', 'b'] }\n";
    check(text);
    let file = read(SourceId(0), text, &mut Vec::new()).expect("a manifest");
    let shared = templates(&file);
    let told = PACKAGES.map(|package| lowered(&file, &shared, package).1.len());
    assert_eq!(told, [3, 3, 3]);
}
