//! Compiled workspaces against those they were made of.

use super::*;
use crate::base::ids::TaskId;
use crate::workspace::load;

const ROOT: &str = r#"
[workspace]
name = "shop"
package-graph = ["npm"]
pools = { db = 2 }
salt = "s"

[store]
max-size = "2GiB"

[template.base]
run = ["tool", "${package.name}", "${matrix.os}"]
env = { A = "1", B = "${matrix.os}" }
pass-env = ["HOME"]
secret-env = ["TOKEN"]
tools = ["sh", "//:node"]
root = "//:image"
inputs = ["src/**", "!src/x", "^lib/**", "//shared/*.txt"]
outputs = ["out-${matrix.os}-${matrix.node}/**"]
interface = ["out-${matrix.os}-${matrix.node}/*.h"]
on-failure = ["log"]
reports = { junit = ["junit-${matrix.os}-${matrix.node}.xml"], coverage = ["cov-${matrix.os}.xml"] }
matrix = { os = ["linux", "mac"], node = ["20", "22"] }
needs = ["^build", ":gen"]
services = [":db"]
tags = ["slow"]
timeout = "90s"
retries = 2
resources = { cpu = 2, memory = "1GiB", pool = "db", exclusive = true, processes = 100 }
isolation = "namespaces"
caches = [".cache"]
scratch = ["tmp/**"]
salt = "t"
undeclared = "error"

[[apply]]
to = ["a", "b"]
tasks = { base = "base" }

[fetch.node]
url = "https://example.org/node.tar.gz"
sha256 = "0000000000000000000000000000000000000000000000000000000000000001"
unpack = true
strip = 1
output = "node"

[fetch.image]
url = "https://example.org/image.tar"
blake3 = "0000000000000000000000000000000000000000000000000000000000000002"
unpack = "oci"
platform = "linux/arm64"
output = "image"

[fetch.file]
url = "https://example.org/x"
sha256 = "0000000000000000000000000000000000000000000000000000000000000003"
executable = true
output = "x"
"#;

const PACKAGE: &str = r#"
[package]
name = "ay"
depends = ["//b"]

[task.build]
run = "true"
inputs = "package"

[task.gen]
run = "gen >gen.txt"
outputs = ["gen.txt"]
committed = ["gen.txt"]
fix = "gen"
network = true
cache = true

[task.seen]
run = "look"
inputs = "traced"

[task.test]
run = "test ${items} ${shard.total}"
split = { items = "tests/*.t", per-action = 2 }
reports = { junit = ["junit.xml"] }

[task.each]
run = ["test", "${items}"]
split = { items = "tests/*.t", per-action = 1 }

[service.db]
run = "db"
ready = { port = 5432 }
stop-signal = "SIGINT"

[service.web]
run = "web"
ready = { http = "http://localhost:80/health" }

[service.word]
run = "word"
ready = { log = "ready" }

[service.asked]
run = "asked"
ready = { run = ["ask"] }
"#;

/// A workspace with every kind of task, and where it lies.
fn sample() -> (tempfile::TempDir, Workspace) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        ops::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        ops::write(&path, text.as_bytes()).expect("a file");
    };
    file("drystone.toml", ROOT);
    file("a/drystone.toml", PACKAGE);
    file(
        "b/drystone.toml",
        "[task.build]\nrun = 'b'\n[task.gen]\nrun = 'g'\n[service.db]\nrun = 'd'\nready = { port = 1 }\n",
    );
    file("b/package.json", "{ \"broken\": ");
    for name in ["one", "two", "three", "four", "five"] {
        file(&format!("a/tests/{name}.t"), "");
    }
    let workspace = load(dir.path())
        .unwrap_or_else(|error| panic!("{:?}", error.diagnostics.iter().map(|one| &one.message).collect::<Vec<_>>()));
    (dir, workspace)
}

fn made_of() -> Digest {
    Digest::of(b"this")
}

/// All that can be seen of a workspace. Read from the last task to the first, so that nothing depends on the order.
fn shown(workspace: &Workspace) -> String {
    let mut tasks: Vec<String> = Vec::new();
    for id in workspace.tasks.ids().collect::<Vec<_>>().into_iter().rev() {
        let task = &workspace.tasks[id];
        assert_eq!(workspace.tasks.name(id), &*task.label.name);
        tasks.push(format!("{:?} {task:#?}", workspace.split_of(id).map(|split| &split.parts)));
    }
    let Workspace { root, config, packages, splits, diagnostics, .. } = workspace;
    let texts: Vec<&str> = workspace.sources.iter().map(|(id, _)| workspace.sources.text(id)).collect();
    let facts = workspace.tasks.facts();
    format!("{root:?} {config:#?} {packages:#?} {:#?} {diagnostics:#?} {texts:?} {facts:?} {tasks:#?}", splits.all())
}

#[test]
fn every_kind_of_task_is_read_as_it_was_lowered() {
    let (dir, workspace) = sample();
    assert!(!workspace.diagnostics.is_empty(), "a warning is to be kept");
    let facts = workspace.tasks.facts();
    assert_eq!((facts.fetches.len(), facts.services.len(), facts.traced.len(), facts.secret.len()), (3, 5, 1, 8));
    let bytes = encode(&made_of(), &workspace, b"graph");
    let (read, graph) = decode(bytes, dir.path(), &made_of()).expect("a workspace");
    assert_eq!((shown(&read), &*graph), (shown(&workspace), &b"graph"[..]));
}

#[test]
fn a_task_read_alone_is_the_one_read_with_all_others() {
    let (dir, workspace) = sample();
    let bytes = encode(&made_of(), &workspace, b"");
    for id in workspace.tasks.ids() {
        let (read, _) = decode(bytes.clone(), dir.path(), &made_of()).expect("a workspace");
        assert_eq!(format!("{:#?}", read.tasks[id]), format!("{:#?}", workspace.tasks[id]));
        assert_eq!(read.task(&workspace.tasks[id].label), Some(id));
        assert_eq!(read.package_of(id), workspace.package_of(id));
    }
}

#[test]
fn compiling_what_was_compiled_gives_the_same_file() {
    let (dir, workspace) = sample();
    let bytes = encode(&made_of(), &workspace, b"graph");
    let (read, graph) = decode(bytes.clone(), dir.path(), &made_of()).expect("a workspace");
    assert!(encode(&made_of(), &read, &graph) == bytes);
}

#[test]
fn what_is_changed_in_a_read_workspace_is_changed() {
    let (dir, workspace) = sample();
    let (mut read, _) = decode(encode(&made_of(), &workspace, b""), dir.path(), &made_of()).expect("a workspace");
    let last = TaskId(u32::try_from(read.tasks.len() - 1).expect("few"));
    read.tasks[last].tags = ["new".to_owned()].into();
    assert_eq!((&*read.tasks[last].tags, read.tasks.len()), (&["new".to_owned()][..], workspace.tasks.len()));
}

#[test]
fn any_damage_is_noticed() {
    let (dir, workspace) = sample();
    let bytes = encode(&made_of(), &workspace, b"graph");
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(decode(changed, dir.path(), &made_of()).is_none(), "byte {at}");
        assert!(decode(bytes[..at].to_vec(), dir.path(), &made_of()).is_none(), "cut at {at}");
    }
    assert!(decode([&bytes[..], b"x"].concat(), dir.path(), &made_of()).is_none());
    assert!(decode(bytes, dir.path(), &Digest::of(b"that")).is_none());
}

#[test]
fn a_file_that_is_not_there_is_none_and_one_that_was_written_is_opened() {
    let (dir, workspace) = sample();
    let file = dir.path().join("compiled");
    assert!(open(&file, dir.path(), &made_of()).is_none());
    write(&file, &made_of(), &workspace, b"graph").expect("a file");
    assert!(open(&file, dir.path(), &made_of()).is_some_and(|(_, graph)| *graph == *b"graph"));
}

#[test]
fn a_manifest_that_changed_since_has_no_text_to_point_into() {
    let (dir, workspace) = sample();
    let bytes = encode(&made_of(), &workspace, b"");
    ops::write(&dir.path().join("a/drystone.toml"), b"other").expect("a file");
    let (read, _) = decode(bytes, dir.path(), &made_of()).expect("a workspace");
    let texts: Vec<bool> = read.sources.iter().map(|(id, _)| read.sources.text(id).is_empty()).collect();
    assert_eq!(texts, [false, true, false]);
}
