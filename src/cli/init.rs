//! `drystone init`: a first manifest, written from what lies in the directory. Overwrites nothing.
//!
//! What is written is a start to be read and changed: each task says in a comment what it takes for granted.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;

use crate::base::label::is_name;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::fs::atomic::{self, Durability};
use crate::fs::ops::{self, FsError, if_there};

/// Name of a manifest.
const MANIFEST: &str = "drystone.toml";

/// Names of scripts and make targets that become tasks; any more would be noise in a first manifest.
const WELL_KNOWN: [&str; 8] = ["build", "test", "lint", "check", "typecheck", "format", "fmt", "docs"];

/// Options of `init`.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Name of the workspace; without it, that of the directory.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// What lies in the directory, as far as a first manifest cares.
#[derive(Clone, Default, Debug)]
pub struct Found {
    /// Names of scripts in `package.json`, and whose lock file lies beside it; `None` without one.
    pub npm: Option<Npm>,
    /// `Cargo.toml`.
    pub cargo: bool,
    /// `pyproject.toml`.
    pub python: bool,
    /// `go.mod`.
    pub go: bool,
    /// Targets of the `Makefile`; empty without one.
    pub make: Vec<String>,
}

/// A `package.json`.
#[derive(Clone, Debug)]
pub struct Npm {
    /// The program that reads it.
    pub client: NpmClient,
    /// Names of its scripts.
    pub scripts: Vec<String>,
}

/// A program that installs packages for Node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NpmClient {
    /// `npm`, with `package-lock.json`.
    Npm,
    /// `pnpm`, with `pnpm-lock.yaml`.
    Pnpm,
    /// `yarn`, with `yarn.lock`.
    Yarn,
}

impl NpmClient {
    const ALL: [NpmClient; 3] = [NpmClient::Npm, NpmClient::Pnpm, NpmClient::Yarn];

    const fn program(self) -> &'static str {
        match self {
            NpmClient::Npm => "npm",
            NpmClient::Pnpm => "pnpm",
            NpmClient::Yarn => "yarn",
        }
    }

    const fn lock_file(self) -> &'static str {
        match self {
            NpmClient::Npm => "package-lock.json",
            NpmClient::Pnpm => "pnpm-lock.yaml",
            NpmClient::Yarn => "yarn.lock",
        }
    }

    const fn install(self) -> &'static str {
        match self {
            NpmClient::Npm => "npm ci",
            NpmClient::Pnpm => "pnpm install --frozen-lockfile",
            NpmClient::Yarn => "yarn install --frozen-lockfile",
        }
    }
}

/// Looks into a directory.
///
/// # Errors
/// If a file that is there cannot be read. One that cannot be understood counts as one without scripts.
pub fn look(dir: &Path) -> Result<Found, FsError> {
    let text = |name: &str| if_there(ops::read_text(&dir.join(name)));
    let npm = text("package.json")?.map(|package| Npm {
        client: NpmClient::ALL
            .into_iter()
            .find(|client| ops::exists(&dir.join(client.lock_file())))
            .unwrap_or(NpmClient::Npm),
        scripts: scripts(&package),
    });
    Ok(Found {
        npm,
        cargo: ops::exists(&dir.join("Cargo.toml")),
        python: ops::exists(&dir.join("pyproject.toml")),
        go: ops::exists(&dir.join("go.mod")),
        make: text("Makefile")?.map(|makefile| make_targets(&makefile)).unwrap_or_default(),
    })
}

/// Names of the scripts of a `package.json`, well-known ones only.
fn scripts(package: &str) -> Vec<String> {
    let package: serde_json::Value = serde_json::from_str(package).unwrap_or_default();
    let names = package.get("scripts").and_then(serde_json::Value::as_object);
    names.map(|names| well_known(names.keys().map(String::as_str))).unwrap_or_default()
}

/// Names before a colon at the start of a line, well-known ones only.
fn make_targets(makefile: &str) -> Vec<String> {
    let names = makefile.lines().filter(|line| !line.starts_with(['\t', ' ', '#', '.']));
    let names = names.filter_map(|line| line.split_once(':')).filter(|(_, rest)| !rest.starts_with('='));
    well_known(names.flat_map(|(names, _)| names.split_whitespace()))
}

fn well_known<'n>(names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let there: BTreeSet<&str> = names.collect();
    WELL_KNOWN.into_iter().filter(|name| there.contains(name)).map(str::to_owned).collect()
}

/// A manifest for what was found: valid TOML, every task with the comment that says what to look at.
pub fn draft(name: &str, found: &Found) -> String {
    let mut text = head(name, found);
    let mut taken = BTreeSet::new();
    for section in sections(found) {
        for task in section.tasks {
            // Two tools may both have a `test`: the second is named after its tool.
            let name =
                if taken.insert(task.name.clone()) { task.name } else { format!("{}-{}", section.tool, task.name) };
            taken.insert(name.clone());
            text.push_str(&format!("\n[task.{name}]\n{}", task.body));
        }
    }
    if taken.is_empty() {
        text.push_str(EMPTY);
    }
    text
}

fn head(name: &str, found: &Found) -> String {
    let graphs = [("npm", found.npm.is_some()), ("cargo", found.cargo), ("uv", found.python), ("go", found.go)];
    let graphs: Vec<String> =
        graphs.into_iter().filter(|(_, there)| *there).map(|(graph, _)| format!("\"{graph}\"")).collect();
    let graphs = if graphs.is_empty() { "\"npm\", \"cargo\"".to_owned() } else { graphs.join(", ") };
    format!(
        "# The root of the workspace. A task sees the files it declares and nothing else of the tree, and runs again only\n\
         # when something it sees has changed. `drystone run` runs all tasks, `drystone plan` says what would run and why.\n\
         [workspace]\n\
         name = \"{name}\"\n\
         # Directories with tasks of their own have their own {MANIFEST}; `packages` narrows where to look.\n\
         # packages = [\"apps/*\", \"libs/*\"]\n\
         # Reads which package depends on which, so that `needs = [\"^build\"]` follows it.\n\
         # package-graph = [{graphs}]\n"
    )
}

/// What stands below the head when nothing was recognized.
const EMPTY: &str = "
# [task.build]
# run = \"make\"                 # a string runs in a shell, an array is run as it is
# inputs = [\"src/**\"]          # without it, every file here that git does not ignore
# outputs = [\"build/**\"]       # what it makes: kept, and put back without running when nothing has changed
# needs = [\":generate\"]        # what runs before it, and whose outputs it sees
# tools = [\"make\"]             # programs it uses that are not part of the system
";

struct Section {
    tool: &'static str,
    tasks: Vec<Draft>,
}

struct Draft {
    name: String,
    body: String,
}

impl Draft {
    fn new(name: &str, body: impl Into<String>) -> Self {
        Self { name: name.into(), body: body.into() }
    }
}

fn sections(found: &Found) -> Vec<Section> {
    let mut sections = Vec::new();
    if let Some(npm) = &found.npm {
        sections.push(Section { tool: npm.client.program(), tasks: npm_tasks(npm) });
    }
    if found.cargo {
        let tasks = ["build", "test"].map(|verb| Draft::new(verb, cargo_body(verb)));
        sections.push(Section { tool: "cargo", tasks: tasks.into() });
    }
    if found.python {
        sections.push(Section { tool: "python", tasks: vec![Draft::new("test", PYTHON_TEST)] });
    }
    if found.go {
        let tasks = ["build", "test"].map(|verb| Draft::new(verb, go_body(verb)));
        sections.push(Section { tool: "go", tasks: tasks.into() });
    }
    let tasks = found.make.iter().map(|target| Draft::new(target, make_body(target))).collect();
    sections.push(Section { tool: "make", tasks });
    sections
}

fn npm_tasks(npm: &Npm) -> Vec<Draft> {
    let (program, lock) = (npm.client.program(), npm.client.lock_file());
    let install = format!(
        "# The network is open to it because {lock} pins what it fetches. `cache = true` keeps\n\
         # its result all the same, so that it runs again only when one of its inputs changes.\n\
         run = \"{}\"\n\
         inputs = [\"package.json\", \"{lock}\"]\n\
         outputs = [\"node_modules/**\"]\n\
         tools = [\"node\", \"{program}\"]\n\
         env = {{ HOME = \"/tmp\" }}\n\
         network = true\n\
         cache = true\n",
        npm.client.install()
    );
    let script = |name: &String| {
        let outputs = if name == "build" {
            "# What it makes, so that it is kept and put back:\n# outputs = [\"dist/**\"]\n"
        } else {
            ""
        };
        let body = format!(
            "run = \"{program} run {name}\"\nneeds = [\":install\"]\ntools = [\"node\", \"{program}\"]\n\
             env = {{ HOME = \"/tmp\" }}\n{outputs}"
        );
        Draft::new(name, body)
    };
    std::iter::once(Draft::new("install", install)).chain(npm.scripts.iter().map(script)).collect()
}

fn cargo_body(verb: &str) -> String {
    format!(
        "# `caches` keeps what the compiler has made between runs. With the crates vendored (`cargo vendor`), leave out the network.\n\
         run = \"cargo {verb} --locked\"\n\
         tools = [\"cargo\", \"rustc\"]\n\
         env = {{ CARGO_HOME = \"/tmp/cargo\" }}\n\
         caches = [\"target\"]\n\
         network = true\n\
         # The lock file pins what comes over the network, so that results can be kept all the same.\n\
         cache = true\n"
    )
}

const PYTHON_TEST: &str =
    "# An environment with the dependencies is best made by a task of its own that this one needs.
run = \"python3 -m pytest -q\"
tools = [\"python3\"]
scratch = [\"**/__pycache__/**\", \".pytest_cache/**\"]
";

fn go_body(verb: &str) -> String {
    format!(
        "# With the modules vendored (`go mod vendor`), leave out the network.\n\
         run = \"go {verb} ./...\"\n\
         tools = [\"go\"]\n\
         env = {{ GOCACHE = \"/tmp/go-build\", GOPATH = \"/tmp/go\" }}\n\
         network = true\n\
         # `go.sum` pins what comes over the network, so that results can be kept all the same.\n\
         cache = true\n"
    )
}

fn make_body(target: &str) -> String {
    format!(
        "# Programs the Makefile calls that are not part of the system belong in `tools`, what it makes in `outputs`.\n\
         run = \"make {target}\"\n\
         tools = [\"make\"]\n"
    )
}

/// The name of the workspace: as given, or the directory's, with what a name cannot have replaced.
fn workspace_name(given: Option<&str>, dir: &Path) -> Result<String, CliError> {
    if let Some(given) = given {
        return match is_name(given) {
            true => Ok(given.to_owned()),
            false => Err(CliError::usage(format!("`{given}` cannot be the name of a workspace"))
                .help("a name is letters, digits, `.`, `_` and `-`, and starts with a letter or a digit")),
        };
    }
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '-' };
    let name: String = name.chars().map(plain).collect();
    let name = name.trim_start_matches(['-', '.', '_']).to_owned();
    Ok(if is_name(&name) { name } else { "workspace".to_owned() })
}

/// Writes a first manifest.
pub fn run(args: InitArgs, context: &Context) -> Result<ExitKind, CliError> {
    let path = context.path(Path::new(MANIFEST));
    if ops::exists(&path) {
        let message = format!("{} is already there, and is left as it is", path.display());
        return Err(CliError::usage(message).help("remove it first, or choose another directory with `-C`"));
    }
    let dir = ops::canonical(&context.dir)?;
    let name = workspace_name(args.name.as_deref(), &dir)?;
    let text = draft(&name, &look(&dir)?);
    atomic::write(&path, text.as_bytes(), Durability::Relaxed)?;
    context.say(&format!("wrote {}; read it, then try `drystone plan`", path.display()));
    Ok(ExitKind::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::context::tests::context;

    fn names(manifest: &str) -> Vec<String> {
        let table: toml::Table = manifest.parse().unwrap_or_else(|error| panic!("{error}\n{manifest}"));
        assert!(table["workspace"]["name"].is_str());
        let tasks = table.get("task").and_then(toml::Value::as_table);
        tasks.map(|tasks| tasks.keys().cloned().collect()).unwrap_or_default()
    }

    #[test]
    fn what_lies_there_becomes_tasks_and_the_text_is_toml() {
        let check = |files: &[(&str, &str)], expect: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                ops::write(&dir.path().join(name), text.as_bytes()).unwrap();
            }
            assert_eq!(names(&draft("shop", &look(dir.path()).unwrap())), expect, "{files:?}");
        };
        check(&[], &[]);
        check(&[("Cargo.toml", "")], &["build", "test"]);
        check(&[("go.mod", "")], &["build", "test"]);
        check(&[("pyproject.toml", "")], &["test"]);
        check(&[("package.json", "not json")], &["install"]);
        check(&[("package.json", r#"{"scripts": {"test": "x", "odd": "y"}}"#)], &["install", "test"]);
        let makefile = "CC := cc\n.PHONY: test\nbuild check: x\n\tcc y: z\nother:\n";
        check(&[("Makefile", makefile)], &["build", "check"]);
        check(&[("Cargo.toml", ""), ("Makefile", "test:\n")], &["build", "make-test", "test"]);
    }

    #[test]
    fn the_lock_file_tells_the_client() {
        let dir = tempfile::tempdir().unwrap();
        ops::write(&dir.path().join("package.json"), b"{}").unwrap();
        ops::write(&dir.path().join("pnpm-lock.yaml"), b"").unwrap();
        let text = draft("shop", &look(dir.path()).unwrap());
        assert!(text.contains("pnpm install --frozen-lockfile"), "{text}");
    }

    #[test]
    fn a_manifest_that_is_there_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (context, _, err) = context(dir.path());
        let args = InitArgs { name: Some("shop".into()) };
        assert_eq!(run(args.clone(), &context).unwrap(), ExitKind::Done);
        assert!(err.text().starts_with("wrote "), "{}", err.text());
        ops::write(&dir.path().join(MANIFEST), b"mine").unwrap();
        assert!(matches!(run(args, &context), Err(CliError::Usage(_))));
        assert_eq!(ops::read_text(&dir.path().join(MANIFEST)).unwrap(), "mine");
    }

    #[test]
    fn any_directory_gives_a_name() {
        let check = |dir: &str, expect: &str| {
            assert_eq!(workspace_name(None, Path::new(dir)).unwrap(), expect, "{dir:?}");
        };
        check("/home/x/shop", "shop");
        check("/home/x/My Shop", "My-Shop");
        check("/home/x/.config", "config");
        check("/home/x/\"quoted\"", "quoted-");
        check("/", "workspace");
        assert!(workspace_name(Some("a b"), Path::new("/")).is_err());
    }
}
