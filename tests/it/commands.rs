//! The commands beside `run`: what they print and how they end.

use crate::support::{TestWorkspace, set};

fn monorepo() -> TestWorkspace {
    let workspace = TestWorkspace::empty();
    workspace.write(
        "drystone.toml",
        r#"
[workspace]
name = "shop"
package-graph = ["npm", "cargo", "uv", "go"]

[template.build]
run = "cat ../*/built.txt > built.txt 2> /dev/null || true; echo ${package.name} >> built.txt"
inputs = []
outputs = ["built.txt"]
needs = ["^build"]

[template.test]
run = "test -e built.txt"
inputs = []
needs = [":build", "^dev:build"]
tags = ["suite"]

[[apply]]
to = ["*/*"]
tasks = { build = "build", test = "test" }
"#,
    );
    workspace.write("js/ui/package.json", r#"{"name": "@shop/ui"}"#);
    workspace.write("js/web/package.json", r#"{"name": "@shop/web", "dependencies": {"@shop/ui": "workspace:*"}}"#);
    workspace.write(
        "rs/core/Cargo.toml",
        "[package]\nname = \"core-lib\"\nversion = \"1.0.0\"\n[dev-dependencies]\nkit = { path = \"../kit\" }\n",
    );
    workspace.write(
        "rs/kit/Cargo.toml",
        "[package]\nname = \"kit\"\nversion = \"1.0.0\"\n[dependencies]\ncore-lib = { path = \"../core\" }\n",
    );
    workspace.write("py/api/pyproject.toml", "[project]\nname = \"shop-api\"\ndependencies = [\"Shop_Models>=1\"]\n");
    workspace.write("py/models/pyproject.toml", "[project]\nname = \"shop-models\"\n");
    workspace.write("go/cmd/go.mod", "module example.com/shop/cmd\n\nrequire example.com/shop/lib v0.0.0\n");
    workspace.write("go/lib/go.mod", "module example.com/shop/lib\n");
    workspace
}

#[test]
fn dependencies_are_read_from_the_manifests_of_four_ecosystems() {
    let workspace = monorepo();
    let deps = |label: &str| workspace.run(&["query", &format!("deps({label})")]).expect(0).stdout;
    for (label, needed) in [
        ("//js/web:build", "//js/ui:build"),
        ("//rs/kit:build", "//rs/core:build"),
        ("//py/api:build", "//py/models:build"),
        ("//go/cmd:build", "//go/lib:build"),
    ] {
        assert!(deps(label).contains(needed), "{label}: {}", deps(label));
    }
}

#[test]
fn packages_that_need_each_other_for_development_only_are_fine() {
    // core is tested with kit, and kit is built on core: a circle of packages, none of tasks.
    let workspace = monorepo();
    let events = workspace.events(&["//rs/..."]);
    assert_eq!(events.with("ran"), set(&["//rs/core:build", "//rs/kit:build", "//rs/core:test", "//rs/kit:test"]));
}

#[test]
fn patterns_and_expressions_select_what_they_say() {
    let workspace = monorepo();
    let query = |expression: &str| workspace.run(&["query", expression]).expect(0).stdout;
    assert_eq!(query("//js/...:build"), "//js/ui:build\n//js/web:build\n");
    assert_eq!(query("tag:suite & //go/..."), "//go/cmd:test\n//go/lib:test\n");
    assert_eq!(query("rdeps(//py/models:build) - tag:suite"), "//py/api:build\n//py/models:build\n");
    assert_eq!(query("path(//js/web:test, //js/ui:build)").lines().count(), 3);
    workspace.run(&["query", "deps(//js/ui:build"]).expect(2);
    workspace.run(&["query", "nothing(//js/ui:build)"]).expect(2);
}

#[test]
fn the_graph_is_written_in_every_format() {
    let workspace = monorepo();
    let graph = |format: &str| workspace.run(&["graph", "--format", format, "//js/web:test"]).expect(0).stdout;
    assert!(graph("dot").starts_with("digraph") && graph("dot").contains("//js/ui:build"));
    assert!(graph("mermaid").starts_with("flowchart"));
    let json: serde_json::Value = serde_json::from_str(&graph("json")).expect("JSON");
    assert_eq!(json["nodes"].as_array().map(Vec::len), Some(3));
}

#[test]
fn the_bare_program_lists_the_tasks_here() {
    let workspace = monorepo();
    assert_eq!(workspace.run(&[]).expect(0).stdout.lines().count(), 16);
    let here = workspace.run(&["-C", "js/ui"]).expect(0).stdout;
    assert!(here.contains("//js/ui:build") && !here.contains("//js/web"), "{here}");
}

#[test]
fn a_change_reaches_what_git_says_and_names_the_proof() {
    let workspace = TestWorkspace::new(
        "[task.a]\nrun = \"true\"\ninputs = [\"a.txt\"]\n[task.b]\nrun = \"true\"\ninputs = []\nneeds = [\":a\"]\n[task.c]\nrun = \"true\"\ninputs = [\"c.txt\"]\n",
    );
    workspace.write("a.txt", "1");
    workspace.write("c.txt", "1");
    workspace.git(&["init", "-q"]);
    workspace.git(&["add", "."]);
    workspace.git(&["commit", "-qm", "first"]);
    workspace.write("a.txt", "2");
    let told = workspace.run(&["affected", "HEAD"]).expect(0).stdout;
    assert_eq!(told, "//:a  because of a.txt\n//:b  because of a.txt → //:a\n");
    let events = workspace.events(&["--affected=HEAD", "//..."]);
    assert_eq!(events.with("ran"), set(&["//:a", "//:b"]));
    let matrix = workspace.run(&["affected", "HEAD", "--format", "github-matrix"]).expect(0).stdout;
    let matrix: serde_json::Value = serde_json::from_str(&matrix).expect("JSON");
    assert_eq!(matrix["include"].as_array().map(Vec::len), Some(2));
    workspace.run(&["affected", "no-such-revision"]).expect(2);
}

#[test]
fn outputs_and_logs_of_a_result_can_be_read_again() {
    let workspace =
        TestWorkspace::new("[task.a]\nrun = \"echo said; echo made > a.txt\"\ninputs = []\noutputs = [\"a.txt\"]\n");
    workspace.run(&["logs", "//:a"]).expect(2);
    workspace.events(&["a"]);
    assert_eq!(workspace.run(&["logs", "//:a"]).expect(0).stdout, "said\n");
    let outputs = workspace.run(&["outputs", "--format", "json", "//:a"]).expect(0).stdout;
    let outputs: serde_json::Value = serde_json::from_str(&outputs).expect("JSON");
    assert_eq!((outputs[0]["path"].as_str(), outputs[0]["size"].as_u64()), (Some("a.txt"), Some(5)));
}

#[test]
fn what_a_failed_command_printed_can_be_read_until_it_succeeds() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"echo said; cat a.txt\"\ninputs = [\"a.*\"]\n");
    let told = workspace.run(&["run", "a"]).expect(1);
    assert!(told.stderr.contains("input `a.*` of `//:a` matches nothing"), "{}", told.stderr);
    let logs = workspace.run(&["logs", "//:a"]).expect(0);
    assert_eq!(logs.stdout, "said\n");
    assert!(logs.stderr.contains("failed when it ran last") && logs.stderr.contains("a.txt"), "{}", logs.stderr);
    workspace.run(&["outputs", "//:a"]).expect(2);
    workspace.write("a.txt", "content\n");
    workspace.events(&["a"]);
    assert_eq!(workspace.run(&["logs", "//:a"]).expect(0).stdout, "said\ncontent\n");
    workspace.write("a.txt", "other\n");
    workspace.run(&["logs", "//:a"]).expect(2);
}

#[test]
fn a_mistake_in_a_template_is_told_once_with_some_of_the_tasks() {
    let workspace = TestWorkspace::new(
        "[template.t]\nrun = \"true\"\nresources = { pool = \"db\" }\n\n[[apply]]\nto = [\"a\", \"b\", \"c\"]\ntasks = { test = \"t\" }\n",
    );
    for dir in ["a", "b", "c"] {
        workspace.write(&format!("{dir}/x"), "");
    }
    let told = workspace.run(&["run", "test"]).expect(2).stderr;
    assert_eq!(told.matches("unknown pool `db`").count(), 1, "{told}");
}

#[test]
fn a_first_manifest_is_written_and_works() {
    for (file, text) in [
        ("package.json", r#"{"name": "x", "scripts": {"build": "true", "test": "true"}}"#),
        ("Cargo.toml", "[package]\nname = \"x\"\nversion = \"1.0.0\"\n"),
        ("pyproject.toml", "[project]\nname = \"x\"\n"),
        ("go.mod", "module example.com/x\n"),
        ("Makefile", "all:\n\ttrue\n"),
        ("notes.txt", "nothing known"),
    ] {
        let workspace = TestWorkspace::empty();
        workspace.write(file, text);
        workspace.run(&["init"]).expect(0);
        let ran = workspace.run(&["list"]);
        assert_eq!(ran.code, 0, "{file}:\n{}\n{}", workspace.read("drystone.toml"), ran.stderr);
        assert_eq!(workspace.run(&["init"]).code, 2, "an existing manifest is never overwritten");
    }
}

#[test]
fn the_small_commands_answer() {
    let workspace = TestWorkspace::new("");
    for shell in ["bash", "zsh", "fish"] {
        assert!(workspace.run(&["completions", shell]).expect(0).stdout.contains("drystone"));
    }
    assert!(workspace.run(&["man"]).expect(0).stdout.contains(".TH"));
    let schema = workspace.run(&["schema"]).expect(0).stdout;
    assert_eq!(schema.trim(), include_str!("../../schema/drystone.schema.json").trim());
    let checks = workspace.run(&["doctor", "--format", "json"]).expect(0).stdout;
    let checks: serde_json::Value = serde_json::from_str(&checks).expect("JSON");
    assert!(checks.as_array().is_some_and(|checks| !checks.is_empty()));
    assert!(workspace.run(&["--version"]).expect(0).stdout.starts_with("drystone "));
    assert_eq!(workspace.run(&["store", "path"]).expect(0).stdout.trim(), workspace.store().display().to_string());
}

#[test]
fn reports_are_written_where_they_are_asked_for() {
    let workspace = TestWorkspace::new("[task.a]\nrun = \"echo '<&>'; exit 3\"\ninputs = []\n");
    workspace.run(&["run", "--profile", "trace.json", "--junit", "junit.xml", "a"]).expect(1);
    let trace: serde_json::Value = serde_json::from_str(&workspace.read("trace.json")).expect("JSON");
    assert!(trace["traceEvents"].as_array().is_some_and(|events| !events.is_empty()));
    assert!(workspace.read("junit.xml").contains("&lt;&amp;&gt;"));
}

#[test]
fn watching_runs_again_after_a_change_until_it_is_interrupted() {
    let workspace =
        TestWorkspace::new("[task.a]\nrun = \"cp in.txt out.txt\"\ninputs = [\"in.txt\"]\noutputs = [\"out.txt\"]\n");
    workspace.write("in.txt", "1");
    let child = workspace
        .command(&["run", "--watch", "--format", "json", "a"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut child = child.expect("the program starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let mut said = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("piped")));
    let mut until = |word: &str| loop {
        let line = lines.next().expect("the program goes on").expect("a line");
        if line.contains(word) {
            return line;
        }
    };
    until("run.finished");
    assert!(said.by_ref().any(|line| line.expect("a line").contains("watching")));
    workspace.write("in.txt", "2");
    assert!(until("task.finished").contains("\"ran\""));
    until("run.finished");
    assert_eq!(workspace.read("out.txt"), "2");
    assert!(said.by_ref().any(|line| line.expect("a line").contains("watching")));
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill starts").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}

#[test]
fn an_edit_made_while_the_tasks_run_is_not_lost_to_the_watch() {
    let workspace = TestWorkspace::new(
        "[task.a]\nrun = \"cp in.txt out.txt; touch .signal/started; while ! test -e .signal/stop; do :; done\"\ninputs = [\"in.txt\"]\noutputs = [\"out.txt\"]\ncaches = [\".signal\"]\n",
    );
    workspace.write("in.txt", "1");
    let child = workspace
        .command(&["run", "--watch", "--format", "json", "a"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut child = child.expect("the program starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let caches = workspace.store().join("caches");
    let signal = loop {
        let entries = std::fs::read_dir(&caches).into_iter().flatten().flatten();
        if let Some(dir) = entries.map(|entry| entry.path()).find(|path| path.join("started").exists()) {
            break dir;
        }
        std::thread::yield_now();
    };
    workspace.write("in.txt", "2");
    std::fs::write(signal.join("stop"), "").expect("a file");
    let mut finished = 0;
    while finished < 2 {
        let line = lines.next().expect("the program goes on").expect("a line");
        finished += usize::from(line.contains("run.finished"));
    }
    assert_eq!(workspace.read("out.txt"), "2");
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill starts").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}

#[test]
fn the_sources_of_packages_it_depends_on_can_be_inputs() {
    let workspace = TestWorkspace::empty();
    workspace.write(
        "drystone.toml",
        r#"
[workspace]
name = "test"

[template.all]
run = "cat ../*/src/*"
inputs = ["src/**", "^^src/**", "!^^src/*.md"]

[template.next]
run = "cat ../*/src/* > /dev/null"
inputs = ["src/**", "^src/**"]

[[apply]]
to = ["a", "b", "c"]
tasks = { all = "all", next = "next" }
"#,
    );
    for (package, depends) in [("a", ""), ("b", "\"//a\""), ("c", "\"//b\"")] {
        workspace.write(&format!("{package}/drystone.toml"), &format!("[package]\ndepends = [{depends}]\n"));
        workspace.write(&format!("{package}/src/code"), package);
    }
    assert_eq!(workspace.events(&["//..."]).with("ran").len(), 6);
    workspace.write("a/src/code", "changed");
    let events = workspace.events(&["//..."]);
    assert_eq!(events.with("ran"), set(&["//a:all", "//a:next", "//b:all", "//b:next", "//c:all"]));
    workspace.write("a/src/notes.md", "left out");
    assert_eq!(workspace.events(&["//..."]).with("ran"), set(&["//a:all", "//a:next", "//b:next"]));
}
