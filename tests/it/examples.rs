//! The examples do what their READMEs say, and the polyglot monorepo reruns exactly what a change can affect.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::serving::{containerd, namespace, registry};
use crate::support::{TestWorkspace, are_there, loudly, set};

/// What an example can count on where its README is followed.
#[derive(Default)]
struct Offered {
    /// Words that blocks ask for after `console`. A block that asks for another is left out.
    words: Vec<&'static str>,
    /// Texts that stand for others here, in blocks and in manifests.
    replaced: Vec<(&'static str, String)>,
    /// Variables of the environment.
    variables: Vec<(&'static str, String)>,
}

/// Runs every ```console block of an example's README: lines with `$ ` are typed, the rest must come back.
///
/// `…` in an expected line stands for anything within the line, a line of just `…` for any number of lines.
fn follow_readme(example: &str) {
    follow(example, &Offered::default());
}

fn follow(example: &str, offered: &Offered) {
    let replace = |text: &str| offered.replaced.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example).join("README.md");
    let text = replace(&fs::read_to_string(&readme).expect("every example has a README"));
    let mut workspace = TestWorkspace::copy_of(&format!("examples/{example}"));
    if !offered.replaced.is_empty() {
        let manifests = workspace.snapshot().into_keys().filter(|path| path.ends_with("drystone.toml"));
        for path in manifests {
            workspace.write(&path, &replace(&workspace.read(&path)));
        }
    }
    let bin = Path::new(env!("CARGO_BIN_EXE_drystone")).parent().expect("a directory").display().to_string();
    workspace.set("PATH", &format!("{bin}:{}", std::env::var("PATH").expect("a PATH")));
    offered.variables.iter().for_each(|(name, value)| workspace.set(name, value));
    let fences = text.split("\n```console").skip(1).filter_map(|rest| rest.split("\n```").next());
    let blocks: Vec<(&str, &str)> = fences.filter_map(|fence| fence.split_once('\n')).collect();
    assert!(!blocks.is_empty(), "{example} has no console block");
    for (asked, block) in blocks {
        if !asked.split_whitespace().all(|word| offered.words.contains(&word)) {
            continue;
        }
        for step in format!("\n{block}").split("\n$ ").skip(1) {
            let (typed, expected) = step.split_once('\n').unwrap_or((step, ""));
            let output = workspace.shell(&format!("({typed}) 2>&1")).output().expect("sh starts");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                matches(expected.trim_end(), said.trim_end()),
                "{example}: $ {typed}\nexpected:\n{expected}\nsaid:\n{said}"
            );
        }
    }
}

fn matches(expected: &str, said: &str) -> bool {
    fn lines(expected: &[&str], said: &[&str]) -> bool {
        match (expected.first(), said.first()) {
            (None, None) => true,
            (Some(&"…"), _) => (0..=said.len()).any(|skip| lines(&expected[1..], &said[skip..])),
            (Some(pattern), Some(line)) => within(pattern, line) && lines(&expected[1..], &said[1..]),
            _ => false,
        }
    }
    fn within(pattern: &str, line: &str) -> bool {
        let mut rest = line.trim_end();
        let parts: Vec<&str> = pattern.trim_end().split('…').collect();
        for (position, part) in parts.iter().enumerate() {
            let last = position + 1 == parts.len();
            let found = match (position, last) {
                (0, true) => return rest == *part,
                (0, false) => rest.starts_with(part).then_some(0),
                (_, true) => return rest.ends_with(part),
                _ => rest.find(part),
            };
            let Some(at) = found else { return false };
            rest = &rest[at + part.len()..];
        }
        true
    }
    lines(&expected.lines().collect::<Vec<_>>(), &said.lines().collect::<Vec<_>>())
}

#[test]
fn hello_does_what_its_readme_says() {
    follow_readme("hello");
}

#[test]
fn c_library_does_what_its_readme_says() {
    follow_readme("c-library");
}

#[test]
fn polyglot_does_what_its_readme_says() {
    follow_readme("polyglot");
}

#[test]
fn images_do_what_their_readme_says() {
    if !are_there(&["busybox"], "the example `images` (busybox-static)") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut offered = Offered::default();
    let mut servers = Vec::new();
    if are_there(&["docker-registry"], "the registry of the example `images`") {
        let (serving, host) = registry(&dir.path().join("registry"));
        servers.push(serving);
        offered.replaced.push(("127.0.0.1:5000", host));
        offered.words.push("registry");
    }
    let is_root = rustix::process::geteuid().is_root();
    if is_root && are_there(&["containerd", "ctr", "runc"], "the containers of the example `images`") {
        match containerd(dir.path()) {
            Some(serving) => {
                servers.push(serving);
                offered.variables.push(("CONTAINERD_ADDRESS", dir.path().join("socket").display().to_string()));
                offered.variables.push(("CONTAINERD_NAMESPACE", namespace()));
                offered.words.push("containerd");
            }
            None => loudly("NOT TESTED: the containers of the example `images`: containerd does not start here"),
        }
    }
    follow("images", &offered);
}

#[test]
fn an_audit_does_what_its_readme_says() {
    follow_readme("audit");
}

#[test]
fn a_comment_rebuilds_one_object_and_nothing_after_it() {
    let workspace = TestWorkspace::copy_of("examples/c-library");
    workspace.events(&["test"]);
    let source = workspace.read("src/names.c");
    workspace.write("src/names.c", &source.replace("What people call it", "Its name"));
    let events = workspace.events(&["test"]);
    assert_eq!(events.with("ran"), set(&["//:object[unit=names]"]));
    assert_eq!(events.with("hit").len(), 4);
}

/// One row of the table: what is edited, and exactly what may run.
struct Row {
    change: &'static str,
    file: &'static str,
    edit: fn(&str) -> String,
    runs: &'static [&'static str],
}

const BACK_END: &[&str] = &[
    "//backend:lint",
    "//backend:test-owners",
    "//backend:test-store",
    "//backend:test[suite=orders]",
    "//backend:test[suite=users]",
];

const ROWS: &[Row] = &[
    Row {
        change: "a front-end module: front-end tasks and what is built from them, no back-end suite",
        file: "frontend/src/price.js",
        edit: |text| text.replace("€", "EUR").replace("Cents", "Cents,"),
        runs: &["//:format", "//frontend:lint", "//frontend:test", "//frontend:build", "//acceptance:test"],
    },
    Row {
        change: "a comment in a front-end module: the bundle comes out the same, so acceptance does not run",
        file: "frontend/src/client.js",
        edit: |text| format!("// A remark.\n{text}"),
        runs: &["//:format", "//frontend:lint", "//frontend:test", "//frontend:build"],
    },
    Row {
        change: "a back-end module: every back-end suite, nothing of the front end",
        file: "backend/src/shop/users.py",
        edit: |text| text.replace("a user has a name", "users have names"),
        runs: BACK_END,
    },
    Row {
        change: "one back-end suite: itself and the linter",
        file: "backend/tests/users/test_users.py",
        edit: |text| text.replace(" Ann ", "  Ann"),
        runs: &["//backend:lint", "//backend:test[suite=users]"],
    },
    Row {
        change: "the acceptance suite: itself",
        file: "acceptance/acceptance.mjs",
        edit: |text| text.replace("the bundle works", "it works"),
        runs: &["//:format", "//acceptance:test"],
    },
    Row {
        change: "the owners: their check and the one suite that reads them",
        file: ".github/CODEOWNERS",
        edit: |text| text.replace("@shop/quality", "@shop/testers"),
        runs: &["//:codeowners", "//backend:test-owners"],
    },
    Row {
        change: "a remark in the routes: the generated module stays the same, so the front end does not run",
        file: "backend/src/shop/urls.py",
        edit: |text| format!("{text}\n# A remark.\n"),
        runs: &[
            "//backend:lint",
            "//backend:test-owners",
            "//backend:test-store",
            "//backend:test[suite=orders]",
            "//backend:test[suite=users]",
            "//frontend:api-urls",
        ],
    },
    Row {
        change: "a text for people: the format check",
        file: "README.md",
        edit: |text| format!("{text}\nOne more line.\n"),
        runs: &["//:format"],
    },
    Row {
        change: "a migration: the template of the database and the suite that uses it",
        file: "backend/migrations/0002_notes.sql",
        edit: |_| "CREATE TABLE notes (text TEXT);\n".into(),
        runs: &["//backend:schema", "//backend:test-store"],
    },
    Row {
        change: "the pinned requirements: everything of the back end; the database comes out the same",
        file: "backend/requirements.lock",
        edit: |text| format!("{text}# bumped\n"),
        runs: &[
            "//backend:lint",
            "//backend:schema",
            "//backend:test-owners",
            "//backend:test-store",
            "//backend:test[suite=orders]",
            "//backend:test[suite=users]",
        ],
    },
];

#[test]
fn each_change_reruns_exactly_what_it_can_affect_and_reverting_runs_nothing() {
    let workspace = TestWorkspace::copy_of("examples/polyglot");
    let all = workspace.events(&["//..."]);
    assert_eq!(all.summary()["failed"], 0);
    let tasks = all.with("ran").len();
    for row in ROWS {
        let path = workspace.root().join(row.file);
        let before = fs::read_to_string(&path).ok();
        workspace.write(row.file, &(row.edit)(before.as_deref().unwrap_or_default()));
        let events = workspace.events_with(&["-k", "//..."], i32::from(row.file.ends_with("price.js")));
        let ran: BTreeSet<String> = events.with("ran").union(&events.with("failed")).cloned().collect();
        assert_eq!(ran, set(row.runs), "{}", row.change);
        match before {
            Some(text) => workspace.write(row.file, &text),
            None => fs::remove_file(&path).expect("a file"),
        }
        let events = workspace.events(&["//..."]);
        assert_eq!(events.with("hit").len(), tasks, "after reverting: {}", row.change);
    }
}

#[test]
fn a_route_that_changes_must_be_generated_again_and_then_reruns_the_front_end() {
    let workspace = TestWorkspace::copy_of("examples/polyglot");
    workspace.events(&["//..."]);
    let urls = workspace.read("backend/src/shop/urls.py");
    workspace.write("backend/src/shop/urls.py", &urls.replace("\"/api/users/\"", "\"/api/people/\""));
    let events = workspace.events_with(&["-k", "//..."], 1);
    assert_eq!(events.with("failed"), set(&["//frontend:api-urls"]));
    assert!(events.with("skipped").contains("//frontend:test"));
    workspace.run(&["run", "--fix", "//frontend:api-urls"]).expect(0);
    assert!(workspace.read("frontend/src/api-urls.generated.js").contains("/api/people/"));
    let events = workspace.events(&["//..."]);
    let expected = ["//:format", "//frontend:lint", "//frontend:test", "//frontend:build", "//acceptance:test"];
    assert_eq!(events.with("ran"), set(&expected));
}
