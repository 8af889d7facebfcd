//! What good manifests mean.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Lowered, check_lines, lower};
use crate::base::path::RelPath;
use crate::base::span::{Placed, SourceId};
use crate::manifest::glob::{Pattern, PatternList};
use crate::manifest::lower::{PackageContext, lower_package, templates};
use crate::manifest::model::{
    Command, Ecosystem, Expected, FetchTask, Inputs, IsolationRequest, Reach, Resources, RunTask, SystemPolicy, Task,
    TaskKind, Undeclared, Unpack, Which,
};
use crate::manifest::read::read;

fn good(text: &str) -> Lowered {
    check_lines(text, &[]);
    lower(text)
}

fn labels(tasks: &[Task]) -> Vec<String> {
    tasks.iter().map(|task| task.label.to_string()).collect()
}

fn run_task(tasks: &[Task], label: &str) -> RunTask {
    let task = tasks.iter().find(|task| task.label.to_string() == label).expect("the task is there");
    let TaskKind::Run(run) = &task.kind else { panic!("{label} is not a run task") };
    run.clone()
}

fn only(text: &str) -> RunTask {
    let lowered = good(text);
    assert_eq!(lowered.tasks.len(), 1, "{text}");
    run_task(&lowered.tasks, &lowered.tasks[0].label.to_string())
}

fn fetch_task(text: &str) -> FetchTask {
    let lowered = good(text);
    let TaskKind::Fetch(fetch) = &lowered.tasks[0].kind else { panic!("not a fetch task") };
    FetchTask::clone(fetch)
}

fn texts(patterns: &[Placed<Pattern>]) -> Vec<&str> {
    patterns.iter().map(|pattern| pattern.value.text.as_str()).collect()
}

fn matches(list: &PatternList, path: &str) -> bool {
    list.matches(&RelPath::parse(path).expect("a good path"))
}

fn shell(text: &str) -> Command {
    Command::Shell(text.into())
}

#[test]
fn a_task_that_says_nothing_gets_the_defaults() {
    let task = only("[task.a]\nrun = 'make'\n");
    assert_eq!(task.command, shell("make"));
    assert!(matches!(task.inputs, Inputs::Package));
    assert!(task.outputs.is_empty() && task.env.is_empty() && task.caches.is_empty() && task.reports.is_empty());
    assert_eq!((task.network, task.cache, task.retries, task.timeout), (false, true, 0, None));
    assert_eq!(task.isolation, IsolationRequest::Auto);
    assert_eq!(task.resources, Resources { cpu: 1, memory_bytes: None, processes: None, pool: None, exclusive: false });
    assert!(matches!(only("[task.a]\nrun = 'make'\ninputs = 'package'\n").inputs, Inputs::Package));
    assert!(matches!(only("[task.a]\nrun = 'make'\ninputs = 'traced'\n").inputs, Inputs::Traced));
    assert_eq!(only("[task.a]\nrun = 'make'\n").undeclared, Undeclared::Warn);
    assert_eq!(only("[task.a]\nrun = 'make'\nundeclared = 'error'\n").undeclared, Undeclared::Error);
}

#[test]
fn every_key_reaches_the_model() {
    let task = only(
        "[task.a]\nrun = ['tsc', '-p', '${package.dir}']\noutputs = ['dist/**']\nenv = { A = '1' }\npass-env = ['B']\n\
         secret-env = ['C']\ntools = ['node', ':x', '//:y']\nroot = '//:debian'\nnetwork = true\nisolation = 'landlock'\ntimeout = '1h30m'\nretries = 2\n\
         resources = { cpu = 2, memory = '2GiB', processes = 64, pool = 'db', exclusive = true }\ncaches = ['.vite/']\nscratch = ['**/__pycache__/**']\n\
         cache = false\ninterface = ['dist/**/*.d.ts', '!dist/x/**']\nfix = 'fmt'\non-failure = ['logs/**']\nsalt = 's'\n\
         reports = { junit = ['junit.xml'], coverage = ['cov/*.lcov'] }\n",
    );
    assert_eq!(task.command, Command::Exec(["tsc".into(), "-p".into(), "apps/web".into()].into()));
    assert_eq!(texts(&task.outputs), ["dist/**"]);
    assert_eq!(task.env, BTreeMap::from([("A".to_owned(), "1".to_owned())]));
    assert_eq!((&*task.pass_env, &*task.secret_env), (&["B".to_owned()][..], &["C".to_owned()][..]));
    let tools: Vec<&str> = task.tools.iter().map(|tool| tool.value.as_str()).collect();
    assert_eq!(tools, ["node"]);
    let trees: Vec<String> = task.tool_trees.iter().chain(&task.root).map(|need| format!("{:?}", need.which)).collect();
    let label = |package: &str, task: &str| {
        let package = RelPath::parse(package).expect("a good path");
        format!("{:?}", Which::Task { package, task: task.into(), matrix: BTreeMap::new() })
    };
    assert_eq!(trees, [label("apps/web", "x"), label("", "y"), label("", "debian")]);
    assert_eq!((task.network, task.isolation, task.cache), (true, IsolationRequest::Landlock, false));
    assert_eq!((task.timeout, task.retries), (Some(Duration::from_secs(5400)), 2));
    assert_eq!((task.resources.cpu, task.resources.memory_bytes, task.resources.exclusive), (2, Some(2 << 30), true));
    assert_eq!(task.resources.processes, Some(64));
    assert_eq!(task.resources.pool.clone().map(|pool| pool.value), Some("db".to_owned()));
    assert_eq!(task.caches, [RelPath::parse(".vite").expect("a good path")]);
    assert!(matches(&task.scratch, "apps/web/a/__pycache__/b.pyc"));
    assert!(matches(&task.interface, "dist/a/b.d.ts") && !matches(&task.interface, "dist/x/b.d.ts"));
    assert_eq!((&task.fix, task.salt.as_deref()), (&Some(shell("fmt")), Some("s")));
    assert!(matches(&task.on_failure, "logs/a") && matches(&task.on_failure, "junit.xml"));
    assert!(matches(&task.reports, "junit.xml") && matches(&task.reports, "cov/a.lcov"));
    assert!(!matches(&task.reports, "logs/a"));
}

#[test]
fn inputs_are_relative_to_the_workspace_and_outputs_to_the_package() {
    let task = only(
        "[task.a]\nrun = 'x'\ninputs = ['src/**', '!src/**/*.md', 'src/keep.md', '//tsconfig.json']\noutputs = ['dist']\n",
    );
    let Inputs::Patterns(inputs) = &task.inputs else { panic!("inputs are a list") };
    let check = |path: &str, expect: bool| assert_eq!(matches(inputs, path), expect, "{path}");
    check("apps/web/src/a.ts", true);
    check("apps/web/src/a.md", false);
    check("apps/web/src/keep.md", true);
    check("tsconfig.json", true);
    check("apps/web/tsconfig.json", false);
    check("src/a.ts", false);
    assert_eq!(task.outputs[0].value.prefix.as_str(), "dist");
}

#[test]
fn committed_files_are_outputs_without_being_listed() {
    let task = only("[task.a]\nrun = 'x'\noutputs = ['a', 'b']\ncommitted = ['b', 'c']\n");
    assert_eq!(texts(&task.outputs), ["a", "b", "c"]);
    assert_eq!(texts(&task.committed), ["b", "c"]);
}

#[test]
fn own_keys_hold_before_the_templates_tables_merge_and_lists_are_replaced() {
    let lowered = good(
        "[workspace]\n[template.base]\nrun = 'base'\nenv = { A = 'base', B = 'base' }\noutputs = ['x', 'y']\ntimeout = '1m'\n\
         resources = { cpu = 2, exclusive = true }\nreports = { junit = ['j'] }\nmatrix = { os = ['l'] }\n\
         [template.mid]\nextends = 'base'\nenv = { A = 'mid' }\nreports = { coverage = ['c'] }\n\
         [task.a]\nextends = 'mid'\nrun = 'own ${matrix.os}${matrix.node}'\noutputs = ['z']\nresources = { cpu = 3 }\nmatrix = { node = ['20'] }\n",
    );
    let task = run_task(&lowered.tasks, "//apps/web:a[node=20,os=l]");
    assert_eq!(task.command, shell("own l20"));
    assert_eq!(task.env, BTreeMap::from([("A".into(), "mid".into()), ("B".into(), "base".into())]));
    assert_eq!(texts(&task.outputs), ["z"]);
    assert_eq!((task.resources.cpu, task.resources.exclusive), (3, true));
    assert_eq!(task.timeout, Some(Duration::from_mins(1)));
    assert!(matches(&task.reports, "j") && matches(&task.reports, "c"));
}

#[test]
fn a_matrix_makes_one_task_per_combination() {
    let lowered = good(
        "[task.a]\nrun = 'x ${matrix.node}'\nneeds = [':b[node=${matrix.node}]']\noutputs = ['dist-${matrix.node}/**']\n\
         matrix = { node = ['22', '20'], os = ['l', 'm'] }\n[task.b]\nrun = 'x'\n",
    );
    assert_eq!(
        labels(&lowered.tasks),
        [
            "//apps/web:a[node=22,os=l]",
            "//apps/web:a[node=22,os=m]",
            "//apps/web:a[node=20,os=l]",
            "//apps/web:a[node=20,os=m]",
            "//apps/web:b",
        ]
    );
    let task = run_task(&lowered.tasks, "//apps/web:a[node=20,os=m]");
    assert_eq!(task.command, shell("x 20"));
    assert_eq!(texts(&task.outputs), ["dist-20/**"]);
    let Which::Task { matrix, .. } = &lowered.tasks[2].needs[0].which else { panic!("a task is named") };
    assert_eq!(matrix, &BTreeMap::from([("node".into(), "20".into())]));
}

#[test]
fn needs_and_tags_are_in_the_order_written() {
    let lowered = good("[task.a]\nrun = 'x'\nneeds = ['^^build#interface', ':b']\ntags = ['slow', 'ui']\n");
    let [upstream, task] = lowered.tasks[0].needs.as_ref() else { panic!("two needs") };
    assert_eq!(upstream.which, Which::Upstream { task: "build".into(), reach: Reach::Transitive });
    assert!(upstream.interface_only && !task.interface_only);
    assert_eq!(*lowered.tasks[0].tags, ["slow", "ui"]);
}

#[test]
fn the_workspace_says_what_holds_for_all() {
    let lowered = good(
        "[workspace]\nname = 'shop'\npackages = ['apps/*', 'libs/*']\npackage-graph = ['npm', 'cargo', 'npm']\ndefault-branch = 'trunk'\n\
         system = 'tools'\nsalt = 's'\npools = { db = 2 }\n[store]\nmax-size = '20GiB'\n",
    );
    let config = lowered.workspace.expect("there is a [workspace]");
    assert_eq!((config.name.as_str(), config.default_branch.as_str()), ("shop", "trunk"));
    assert_eq!(config.packages.map(|packages| packages.len()), Some(2));
    assert_eq!(config.package_graph, [Ecosystem::Npm, Ecosystem::Cargo]);
    assert_eq!((config.system, config.salt), (SystemPolicy::Tools, Some("s".to_owned())));
    assert_eq!((config.pools, config.store_bytes_max), (BTreeMap::from([("db".to_owned(), 2)]), Some(20 << 30)));
    let config = good("[workspace]\n").workspace.expect("there is a [workspace]");
    assert_eq!((config.name.as_str(), config.default_branch.as_str()), ("workspace", "main"));
    assert_eq!((config.packages, config.system, config.store_bytes_max), (None, SystemPolicy::Packages, None));
    assert!(good("[task.a]\nrun = 'x'\n").workspace.is_none());
}

#[test]
fn a_fetch_lands_under_the_name_of_its_address_or_of_the_task_when_unpacked() {
    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let check = |keys: &str, output: &str, unpack: Unpack| {
        let fetch = fetch_task(&format!("[fetch.node]\nsha256 = '{DIGEST}'\n{keys}\n"));
        assert_eq!((fetch.output.as_str(), fetch.unpack), (output, unpack), "{keys}");
        assert!(matches!(fetch.expect, Expected::Sha256(bytes) if bytes[0] == 0xe3 && bytes[31] == 0x55));
    };
    check("url = 'https://x.org/a/node.tar.xz?b=c/d#e'", "node.tar.xz", Unpack::No);
    check("urls = ['https://x.org/a.tgz', 'http://y.org/b']\nunpack = 'auto'\nstrip = 1", "node", Unpack::ByName);
    check("url = 'file:///a/b.zip'\nunpack = true\noutput = 'tools/node'", "tools/node", Unpack::ByName);
    check("url = 'https://x.org/debian'\nunpack = 'oci'", "node", Unpack::Image);
    check("url = 'https://x.org/${package.name}'\nunpack = false\nexecutable = true", "web", Unpack::No);
    let image = |platform: &str| {
        let keys = format!("url = 'https://x.org/a'\nsha256 = '{DIGEST}'\nunpack = 'oci'\n{platform}");
        fetch_task(&format!("[fetch.a]\n{keys}\n")).platform.map(|platform| platform.to_string())
    };
    assert_eq!((image(""), image("platform = 'linux/aarch64'")), (None, Some("linux/arm64".to_owned())));
    let fetch = fetch_task(&format!("[fetch.a]\nurl = 'https://x.org/a'\nblake3 = '{DIGEST}'\n"));
    assert!(matches!(fetch.expect, Expected::Blake3(digest) if digest.to_hex() == DIGEST));
}

#[test]
fn applied_templates_make_tasks_unless_the_package_has_its_own() {
    let root_text = "[workspace]\n[template.ruff]\nrun = 'ruff ${package.dir}'\n[template.other]\nrun = 'other'\n\
                     [[apply]]\nto = ['libs/*']\ntasks = { lint = 'ruff', test = 'ruff', fmt = 'ruff' }\n\
                     [[apply]]\nto = ['libs/a']\ntasks = { fmt = 'other' }\n";
    let mut diagnostics = Vec::new();
    let root = read(SourceId(0), root_text, &mut diagnostics).expect("the root is TOML");
    let own = read(SourceId(1), "[task.test]\nrun = 'own'\n", &mut diagnostics).expect("the package is TOML");
    let applied: Vec<_> = root.applies().iter().flat_map(|apply| apply.tasks.clone()).collect();
    let dir = RelPath::parse("libs/a").expect("a good path");
    let templates = templates(&root);
    let context = PackageContext {
        dir: &dir,
        name: "a",
        workspace_name: "shop",
        templates: &templates,
        applied: &applied,
        parts: &BTreeMap::new(),
    };
    let tasks = lower_package(Some(&own), &context, &mut diagnostics);
    assert_eq!(diagnostics, []);
    assert_eq!(labels(&tasks), ["//libs/a:fmt", "//libs/a:lint", "//libs/a:test"]);
    assert_eq!(run_task(&tasks, "//libs/a:fmt").command, shell("other"));
    assert_eq!(run_task(&tasks, "//libs/a:lint").command, shell("ruff libs/a"));
    assert_eq!(run_task(&tasks, "//libs/a:test").command, shell("own"));
    assert_eq!((tasks[1].place.source, tasks[2].place.source), (SourceId(0), SourceId(1)));
    assert_eq!(&root_text[tasks[1].place.range.clone()], "'ruff'");
    assert_eq!(lower_package(None, &context, &mut diagnostics).len(), 3);
}

#[test]
fn a_mistake_in_a_template_is_said_once_however_many_packages_use_it() {
    let text = "[workspace]\n[template.t]\nrun = '${nope}'\n";
    let mut diagnostics = Vec::new();
    let root = read(SourceId(0), text, &mut diagnostics).expect("the root is TOML");
    let templates = templates(&root);
    let placed = |value: &str| Placed::new(value.to_owned(), root.origin.place(&(0..1)));
    let applied = [(placed("a"), placed("t")), (placed("b"), placed("t"))];
    for name in ["libs/a", "libs/b"] {
        let dir = RelPath::parse(name).expect("a good path");
        let context = PackageContext {
            dir: &dir,
            name,
            workspace_name: "shop",
            templates: &templates,
            applied: &applied,
            parts: &BTreeMap::new(),
        };
        lower_package(None, &context, &mut diagnostics);
    }
    assert_eq!(diagnostics.len(), 1);
}

#[test]
fn a_manifest_tells_what_others_need_of_it_before_it_is_lowered() {
    let mut diagnostics = Vec::new();
    let text = "[package]\nname = '@shop/web'\ndepends = ['//libs/ui', '//']\n";
    let file = read(SourceId(0), text, &mut diagnostics).expect("the text is TOML");
    assert_eq!(diagnostics, []);
    assert_eq!((file.is_root(), file.package_name()), (false, Some("@shop/web")));
    let depends: Vec<&str> = file.package_depends().iter().map(|depend| depend.value.as_str()).collect();
    assert_eq!(depends, ["//libs/ui", "//"]);
}
