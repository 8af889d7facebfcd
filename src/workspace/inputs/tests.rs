//! Which source files a task sees, on small trees.

use std::os::unix::ffi::OsStrExt;

use super::*;
use crate::workspace::fixture::{Fixture, path};

/// A tree of empty files; a trailing `/` makes an empty directory.
fn tree(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for file in files {
        let at = dir.path().join(file);
        if file.ends_with('/') {
            ops::create_dir_all(&at).expect("a directory");
        } else {
            ops::create_dir_all(at.parent().expect("below the root")).expect("a directory");
            ops::write(&at, b"").expect("a file");
        }
    }
    dir
}

fn select(workspace: &Workspace, label: &str) -> Result<InputFiles, InputError> {
    let (id, _) = workspace.tasks.iter().find(|(_, task)| task.label.to_string() == label).expect("a task");
    let outputs = OutputIndex::new(workspace);
    let alone = input_files(workspace, &SourceFiles::new(workspace), id, &outputs);
    // What is at hand already must not matter.
    let listed = SourceFiles::new(workspace);
    listed.look(&RelPath::root());
    let again = input_files(workspace, &listed, id, &outputs);
    let text = |input: &Result<InputFiles, InputError>| input.as_ref().map(shown).map_err(ToString::to_string);
    assert_eq!(text(&alone), text(&again));
    alone
}

/// Files, then empty directories with a trailing `/`.
fn shown(input: &InputFiles) -> Vec<String> {
    let dirs = input.empty_dirs.iter().map(|dir| format!("{dir}/"));
    input.files.iter().map(ToString::to_string).chain(dirs).collect()
}

fn check(dir: &tempfile::TempDir, fixture: impl Fn(Fixture) -> Fixture, expect: &[&str]) {
    let workspace = fixture(Fixture::at(dir.path())).build();
    let input = select(&workspace, "//p:t").expect("selectable");
    assert_eq!(shown(&input), expect);
}

#[test]
fn a_package_is_what_git_sees_of_it_less_nested_packages_and_outputs() {
    let files = [
        "p/drystone.toml",
        "p/a.c",
        "p/.hidden",
        "p/dist/x",
        "p/other-out",
        "p/api.ts",
        "p/node_modules/m/index.js",
        "p/in/nested.c",
        "p/in-b/c",
        "p/hollow/deep/",
        "p/pyc/__pycache__/x",
        "p/gone/built/",
        "q/y",
    ];
    let dir = tree(&files);
    ops::write(&dir.path().join(".gitignore"), b"node_modules/\n__pycache__\n").expect("a file");
    let fixture = |fixture: Fixture| {
        fixture
            .package("p")
            .task("t")
            .outputs(&["dist/**"])
            .task("u")
            .outputs(&["other-out", "gone/built/x"])
            .committed(&["api.ts"])
            .package("p/in")
            .package("q")
    };
    check(&dir, fixture, &["p/.hidden", "p/a.c", "p/api.ts", "p/in-b/c", "p/hollow/deep/"]);
    let own =
        |fixture: Fixture| fixture.package("p").task("t").committed(&["api.ts"]).outputs(&["dist"]).package("p/in");
    check(&dir, own, &["p/.hidden", "p/a.c", "p/in-b/c", "p/other-out", "p/gone/built/", "p/hollow/deep/"]);
}

#[test]
fn patterns_match_in_order_and_the_last_decides() {
    let dir = tree(&["p/src/a.c", "p/src/a.md", "p/src/keep.md", "p/src/sub/b.c", "p/src/none/", "p/x", "top.json"]);
    let of =
        |patterns: &'static [&'static str]| move |fixture: Fixture| fixture.package("p").task("t").inputs(patterns);
    check(&dir, of(&["src/*.c"]), &["p/src/a.c"]);
    check(&dir, of(&["src/**", "!**/*.md"]), &["p/src/a.c", "p/src/sub/b.c", "p/src/none/"]);
    check(
        &dir,
        of(&["src/**", "!**/*.md", "src/keep.md"]),
        &["p/src/a.c", "p/src/keep.md", "p/src/sub/b.c", "p/src/none/"],
    );
    check(&dir, of(&["src"]), &["p/src/a.c", "p/src/a.md", "p/src/keep.md", "p/src/sub/b.c", "p/src/none/"]);
    check(&dir, of(&["src/none"]), &["p/src/none/"]);
    check(&dir, of(&["**/n*"]), &[]);
    check(&dir, of(&["//top.json", "x"]), &["p/x", "top.json"]);
    check(&dir, of(&["//**/*.c"]), &["p/src/a.c", "p/src/sub/b.c"]);
}

#[test]
fn an_ignored_file_is_taken_only_by_name() {
    let dir = tree(&["p/.env", "p/gen/a", "p/gen/b/c", "p/src/x.log", "p/src/y"]);
    ops::write(&dir.path().join(".gitignore"), b".env\n/p/gen/\n*.log\n").expect("a file");
    let of =
        |patterns: &'static [&'static str]| move |fixture: Fixture| fixture.package("p").task("t").inputs(patterns);
    check(&dir, of(&[".env"]), &["p/.env"]);
    check(&dir, of(&[".e*"]), &[]);
    check(&dir, of(&["gen/a"]), &["p/gen/a"]);
    check(&dir, of(&["gen"]), &[]);
    check(&dir, of(&["gen/**"]), &[]);
    check(&dir, of(&["gen/b/*"]), &[]);
    check(&dir, of(&["src"]), &["p/src/y"]);
}

#[test]
fn the_manifest_is_an_input_only_where_a_pattern_matches_it() {
    let dir = tree(&["p/drystone.toml", "p/a"]);
    check(&dir, |fixture| fixture.package("p").task("t"), &["p/a"]);
    check(&dir, |fixture| fixture.package("p").task("t").inputs(&["*.toml"]), &["p/drystone.toml"]);
}

#[test]
fn a_pattern_that_matches_nothing_is_named_with_its_place() {
    let dir = tree(&["p/a", "p/gen/x", "p/made/x"]);
    ops::write(&dir.path().join(".gitignore"), b"gen/\n").expect("a file");
    let messages = |patterns: &[&str], needs: &[&str]| -> Vec<String> {
        let fixture = Fixture::at(dir.path()).package("p").task("m").outputs(&["made/**"]);
        let workspace = fixture.task("t").inputs(patterns).needs(needs).build();
        let input = select(&workspace, "//p:t").expect("selectable");
        assert!(input.unmatched.iter().all(|one| !one.is_error() && one.marks.len() == 1));
        input.unmatched.iter().map(|one| format!("{} | {}", one.message, one.help[0])).collect()
    };
    assert_eq!(messages(&["a", "*", "!*.none"], &[]), Vec::<String>::new());
    let missing = messages(&["a", "src/**/*.c"], &[]);
    assert!(
        missing.len() == 1 && missing[0].starts_with("input `src/**/*.c` of `//p:t` matches nothing"),
        "{missing:?}"
    );
    let ignored = messages(&["gen/**"], &[]);
    assert!(ignored.len() == 1 && ignored[0].contains("git ignores"), "{ignored:?}");
    let output = messages(&["made/x"], &[]);
    assert!(output.len() == 1 && output[0].contains("an output of `//p:m`"), "{output:?}");
    assert_eq!(messages(&["made/x"], &[":m"]), Vec::<String>::new());
    let nothing = messages(&["!a"], &[]);
    assert!(nothing.len() == 1 && nothing[0].contains("only inputs that take away"), "{nothing:?}");
}

#[test]
fn what_cannot_be_an_input_is_named() {
    let dir = tree(&["p/a", "p/real/x"]);
    let link = |target: &str, at: &str| ops::symlink(target, &dir.path().join(at)).expect("a link");
    let error = |patterns: Option<&[&str]>| -> String {
        let fixture = Fixture::at(dir.path()).package("p").task("t");
        let workspace = patterns.into_iter().fold(fixture, |fixture, patterns| fixture.inputs(patterns)).build();
        select(&workspace, "//p:t").map_or_else(|error| error.to_string(), |input| shown(&input).join(" "))
    };
    link("dangling", "p/nowhere");
    link("real", "p/way");
    assert_eq!(error(None), "p/a p/nowhere p/real/x p/way");
    assert_eq!(error(Some(&["way/**"])), "");
    assert_eq!(error(Some(&["way"])), "p/way");
    let behind = error(Some(&["way/x"]));
    assert!(behind.contains("behind the symbolic link `p/way`"), "{behind}");

    link("loop-b", "p/loop-a");
    link("loop-a", "p/loop-b");
    let looping = error(None);
    assert!(looping.contains("`p/loop-a`") && looping.contains("leads back to itself"), "{looping}");
    assert_eq!(error(Some(&["a"])), "p/a");
    ops::remove_file(&dir.path().join("p/loop-a")).expect("removable");

    ops::write(&dir.path().join("p").join(std::ffi::OsStr::from_bytes(b"\xff.c")), b"").expect("a file");
    let name = error(None);
    assert!(name.contains("not UTF-8") && name.contains("`//p:t`"), "{name}");
    assert!(error(Some(&["*.c"])).contains("not UTF-8"));
    assert_eq!(error(Some(&["a*"])), "p/a");
    ops::remove_file(&dir.path().join("p").join(std::ffi::OsStr::from_bytes(b"\xff.c"))).expect("removable");

    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("p/sock")).expect("a socket");
    let special = error(None);
    assert!(special.contains("`p/sock`") && special.contains("neither a file"), "{special}");
    assert_eq!(error(Some(&["a*"])), "p/a");
}

#[test]
fn covering_agrees_with_selecting() {
    let files = ["p/a.c", "p/drystone.toml", "p/dist/x", "p/api.ts", "p/in/n.c", "q/y", "p/z.md"];
    let dir = tree(&files);
    for patterns in [None, Some(["**/*.c", "!z.md", "//q/**"]), Some(["api.ts", "dist/**", "in"])] {
        let fixture = Fixture::at(dir.path()).package("q").package("p/in").package("p");
        let fixture = fixture.task("u").outputs(&["dist/**"]).committed(&["api.ts"]).task("t");
        let workspace = patterns.iter().fold(fixture, |fixture, patterns| fixture.inputs(patterns)).build();
        let selected = select(&workspace, "//p:t").expect("selectable").files;
        let index = OutputIndex::new(&workspace);
        let task = workspace.tasks.ids().find(|id| workspace.tasks.name(*id) == "t").expect("a task");
        for file in files {
            assert_eq!(
                covers(&workspace, task, &path(file), &index),
                selected.contains(&path(file)),
                "{file} {patterns:?}"
            );
        }
    }
}

#[test]
fn tasks_select_alike_where_their_patterns_are_written_alike() {
    let lists: [&[&str]; 8] =
        [&["src/**"], &["!src/**"], &["//p/src/**"], &["src/*"], &["src/**", "x"], &["x", "src/**"], &[], &["src/**"]];
    let mut fixture = Fixture::new().package("p");
    for (number, list) in lists.iter().enumerate() {
        fixture = fixture.task(&format!("t{number}")).inputs(list);
    }
    let workspace = fixture.build();
    let written = |id: TaskId| -> Vec<String> {
        let run = workspace.tasks[id].kind.command().expect("a command");
        let Inputs::Patterns(list) = &run.inputs else { panic!("a list") };
        list.items.iter().map(PatternItem::written).collect()
    };
    let selects: Vec<Selects> = workspace.tasks.ids().filter_map(|id| Selects::of(&workspace, id)).collect();
    let different: std::collections::HashSet<&Selects> = selects.iter().collect();
    let texts: std::collections::HashSet<Vec<String>> = workspace.tasks.ids().map(written).collect();
    assert_eq!((selects.len(), different.len()), (lists.len(), texts.len()));
    for (one, first) in workspace.tasks.ids().zip(&selects) {
        for (other, second) in workspace.tasks.ids().zip(&selects) {
            assert_eq!(first == second, written(one) == written(other), "{one:?} {other:?}");
        }
    }
}
