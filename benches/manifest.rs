//! What a manifest costs: the text of one package parsed, and its tasks lowered, with a template and without.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::Criterion;
use drystone::base::path::RelPath;
use drystone::base::span::{Placed, SourceId};
use drystone::manifest::lower::{PackageContext, lower_package, templates};
use drystone::manifest::read::{ManifestFile, read};

const ROOT: &str = r#"
[workspace]
name = "bench"
packages = ["libs/*"]

[template.lint]
run = "lint ${package.dir}"
inputs = ["src/**"]
outputs = ["checked/${package.name}"]

[[apply]]
to = ["libs/*"]
tasks = { lint = "lint", style = "lint" }
"#;

const PACKAGE: &str = r#"
[package]
name = "ui"
depends = ["//libs/base", "//libs/net"]

[task.build]
run = ["tool", "build", "--out", "dist"]
inputs = ["src/**", "!src/**/*.test.ts"]
outputs = ["dist/**"]
needs = ["^build"]
env = { MODE = "release" }

[task.test]
run = "tool test ${package.name}"
inputs = ["src/**"]
outputs = ["checked/test"]
needs = [":build"]
"#;

fn parsed(source: u32, text: &str) -> ManifestFile {
    let mut problems = Vec::new();
    let file = read(SourceId(source), text, &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    file.expect("it is TOML")
}

fn main() {
    let (root, package) = (parsed(0, ROOT), parsed(1, PACKAGE));
    let dir = RelPath::parse("libs/ui").expect("a good path");
    let applied: Vec<(Placed<String>, Placed<String>)> =
        root.applies().iter().flat_map(|apply| apply.tasks.clone()).collect();
    let (templates, parts) = (templates(&root), BTreeMap::new());
    let context = |applied| PackageContext {
        dir: &dir,
        name: "ui",
        workspace_name: "bench",
        templates: &templates,
        applied,
        parts: &parts,
    };
    let lower = |file: Option<&ManifestFile>, applied| {
        let mut problems = Vec::new();
        let tasks = lower_package(file, &context(applied), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        tasks
    };
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("manifest");
    group.bench_function("parse a package", |bencher| bencher.iter(|| parsed(1, black_box(PACKAGE))));
    group.bench_function("lower its own tasks", |bencher| bencher.iter(|| lower(Some(black_box(&package)), &[])));
    group.bench_function("lower those of templates", |bencher| bencher.iter(|| lower(None, black_box(&applied))));
    group.finish();
    criterion.final_summary();
}
