//! Loading whole workspaces from manifests on disk.

use super::*;

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (file, text) in files {
        let at = dir.path().join(file);
        ops::create_dir_all(at.parent().expect("below the root")).expect("a directory");
        ops::write(&at, text.as_bytes()).expect("a file");
    }
    dir
}

const ROOT: (&str, &str) = ("drystone.toml", "[workspace]\nname = \"shop\"\npackage-graph = [\"npm\"]\n");

fn labels(workspace: &Workspace) -> Vec<String> {
    workspace.tasks.values().map(|task| task.label.to_string()).collect()
}

/// Messages, each with the place of its main mark.
fn problems(dir: &tempfile::TempDir) -> Vec<String> {
    let LoadError { sources, diagnostics } = load(dir.path()).expect_err("problems");
    assert!(diagnostics.iter().any(Diagnostic::is_error));
    let at = |one: &Diagnostic| one.marks.first().map_or(String::new(), |mark| sources.locate(&mark.place));
    diagnostics.iter().map(|one| format!("{} {}", at(one), one.message)).collect()
}

#[test]
fn packages_tasks_and_dependencies_come_together() {
    let dir = tree(&[
        (
            "drystone.toml",
            "[workspace]\nname = \"shop\"\npackage-graph = [\"npm\"]\n[template.lint]\nrun = \"lint\"\n[[apply]]\nto = [\"libs/*\", \"none/*\"]\ntasks = { lint = \"lint\" }\n[task.all]\nrun = \"true\"\n",
        ),
        (
            "apps/web/drystone.toml",
            "[package]\nname = \"front\"\ndepends = [\"//tools\", \"//libs/ui\"]\n[task.build]\nrun = \"build\"\noutputs = [\"dist/**\"]\n",
        ),
        ("apps/web/package.json", r#"{ "name": "web", "devDependencies": { "base": "*" } }"#),
        ("libs/ui/package.json", r#"{ "name": "ui", "dependencies": { "base": "*" } }"#),
        ("libs/base/package.json", r#"{ "name": "base" }"#),
        ("tools/drystone.toml", "[task.b]\nrun = \"true\"\n[task.a]\nrun = \"true\"\n"),
    ]);
    let workspace = load(dir.path()).unwrap_or_else(|error| panic!("{:?}", error.diagnostics));
    assert_eq!(
        labels(&workspace),
        ["//:all", "//apps/web:build", "//libs/base:lint", "//libs/ui:lint", "//tools:a", "//tools:b"]
    );
    let names: Vec<&str> = workspace.packages.values().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["shop", "front", "base", "ui", "tools"]);
    let [web, base, ui, tools] = [1, 2, 3, 4].map(PackageId);
    assert_eq!(workspace.packages[web].depends, [ui, tools]);
    assert_eq!(workspace.packages[web].dev_depends, [base]);
    assert_eq!(workspace.packages[ui].depends, [base]);
    assert!(workspace.packages[ui].place.is_none() && workspace.packages[web].place.is_some());
    for (id, task) in workspace.tasks.iter() {
        assert_eq!(workspace.task(&task.label), Some(id));
        assert!(workspace.packages[workspace.package_of(id)].tasks.contains(&id));
    }
    let warnings: Vec<&str> = workspace.diagnostics.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(warnings, ["`none/*` in `[[apply]] to` matches no directory with a manifest"]);
}

#[test]
fn the_problems_of_all_manifests_are_told_together() {
    let dir = tree(&[
        ROOT,
        ("a/drystone.toml", "[task.x]\nrn = \"true\"\n"),
        ("b/drystone.toml", "[task.x\n"),
        ("c/drystone.toml", "[package]\ndepends = [\"//cc\"]\n[task.x]\nrun = \"true\"\n"),
    ]);
    let all = problems(&dir);
    for file in ["a/drystone.toml:", "b/drystone.toml:", "c/drystone.toml:"] {
        assert!(all.iter().any(|one| one.starts_with(file)), "{file} in {all:?}");
    }
}

#[test]
fn a_workspace_inside_a_workspace_is_refused_with_its_place() {
    let dir = tree(&[ROOT, ("x/drystone.toml", "\n[workspace]\nname = \"y\"\n")]);
    let all = problems(&dir);
    assert!(all.iter().any(|one| one == "x/drystone.toml:2:2 `x/drystone.toml` has a second `[workspace]`"), "{all:?}");
}

#[test]
fn one_output_of_two_tasks_is_refused_with_both_places() {
    let text = "[task.x]\nrun = \"true\"\noutputs = [\"dist/**\"]\n[task.y]\nrun = \"true\"\noutputs = [\"dist/a\"]\n";
    let dir = tree(&[ROOT, ("p/drystone.toml", text)]);
    assert_eq!(
        problems(&dir),
        ["p/drystone.toml:6:12 `//p:x` and `//p:y` declare one output: `dist/**` and `dist/a` overlap"]
    );
}

#[test]
fn manifests_that_cannot_be_read_are_named() {
    let check = |make: &dyn Fn(&Path), expect: &str| {
        let dir = tree(&[ROOT, ("p/x", "")]);
        make(&dir.path().join("p/drystone.toml"));
        let all = problems(&dir);
        assert!(all.len() == 1 && all[0].contains("p/drystone.toml") && all[0].contains(expect), "{all:?} {expect}");
    };
    check(&|path| ops::symlink("drystone.toml", path).expect("a link"), "symbolic links");
    check(&|path| ops::symlink("nowhere", path).expect("a link"), "no such file");
    check(&|path| ops::write(path, b"[task.x]\n# \xff").expect("a file"), "not UTF-8 in line 2");
    let large = |path: &Path| {
        let file = ops::create_new(path, 0o644).expect("a file");
        file.set_len(MANIFEST_BYTES_MAX + 1).expect("a sparse file");
    };
    check(&large, "too large");
    let socket = |path: &Path| {
        let other = path.with_file_name("socket");
        drop(std::os::unix::net::UnixListener::bind(&other).expect("a socket"));
        ops::symlink("socket", path).expect("a link");
    };
    check(&socket, "not a regular file");
}

#[test]
fn a_directory_without_a_workspace_is_an_error_and_not_a_panic() {
    let check = |files: &[(&str, &str)]| assert!(!problems(&tree(files)).is_empty(), "{files:?}");
    check(&[]);
    check(&[("drystone.toml", "")]);
    check(&[("drystone.toml", "[task.x]\nrun = \"true\"\n")]);
    check(&[("drystone.toml", "[workspace")]);
    check(&[("drystone.toml/x", "")]);
}
