//! Small random builds whose every output is known beforehand, and what a tree may look like between two of them.
//!
//! A task counts what is wrong in a large input and concatenates its sources and the texts of what it needs. By its shape it writes one file (small or large), a whole
//! directory with a link, a script and a copy, or files that a wildcard matches and whose names come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::TestWorkspace;
use crate::support::random::Random;

/// Source files.
const SOURCES: usize = 4;
/// Lines that make a text too large for the database.
const LINES: usize = 3000;
/// Lines that make a source so large that commands are shown a copy that the store keeps.
const BULK_LINES: usize = 20_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Small,
    Large,
    Directory,
    Wildcard,
}

#[derive(Clone, Debug)]
struct Task {
    sources: BTreeSet<usize>,
    needs: BTreeSet<usize>,
    shape: Shape,
    salt: usize,
}

/// What lies at a path: bytes and whether they may be executed, or where a link leads.
#[derive(Clone, PartialEq, Eq)]
pub enum Found {
    /// A regular file.
    File(Vec<u8>, bool),
    /// A link.
    Link(String),
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Found::File(bytes, executable) => {
                let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
                write!(f, "{} bytes, executable: {executable}, {start:?}…", bytes.len())
            }
            Found::Link(target) => write!(f, "-> {target}"),
        }
    }
}

/// Outputs by path relative to the workspace.
pub type Outputs = BTreeMap<String, Found>;

/// The manifest and the sources.
#[derive(Clone, Debug)]
pub struct World {
    tasks: Vec<Task>,
    versions: [usize; SOURCES],
    changes: usize,
}

impl World {
    /// A world with every shape in it, in some order.
    pub fn new(random: &mut Random) -> Self {
        let mut shapes = vec![Shape::Directory, Shape::Large, Shape::Wildcard, Shape::Small];
        shapes.rotate_left(random.below(4));
        let tasks = shapes.into_iter().enumerate().map(|(number, shape)| Task {
            sources: (0..SOURCES).filter(|_| random.below(2) == 0).collect(),
            needs: (0..number).filter(|_| random.below(2) == 0).collect(),
            shape,
            salt: 0,
        });
        Self { tasks: tasks.collect(), versions: [0; SOURCES], changes: 0 }
    }

    /// Becomes another: all outputs change if `whole`, else those below one source or task.
    pub fn change(&mut self, random: &mut Random, whole: bool) {
        self.changes += 1;
        if whole {
            self.tasks.iter_mut().for_each(|task| task.salt = self.changes);
        } else if random.below(2) == 0 {
            self.versions[random.below(SOURCES)] = self.changes;
        } else {
            let task = random.below(self.tasks.len());
            self.tasks[task].salt = self.changes;
        }
    }

    /// Writes manifest and sources.
    pub fn write(&self, workspace: &TestWorkspace) {
        let mut manifest = String::from("[workspace]\nname = \"crash\"\n");
        for (number, task) in self.tasks.iter().enumerate() {
            let quoted =
                |texts: Vec<String>| texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
            let sources = task.sources.iter().map(|source| format!("src/f{source}"));
            let inputs = quoted(sources.chain(["src/bulk".to_owned()]).collect());
            let needs = quoted(task.needs.iter().map(|need| format!(":t{need}")).collect());
            let parts: Vec<String> = task
                .sources
                .iter()
                .map(|source| format!("src/f{source}"))
                .chain(task.needs.iter().map(|need| self.text_path(*need)))
                .collect();
            let salt = task.salt;
            let (start, rest, output) = match task.shape {
                Shape::Small => ("mkdir -p out".to_owned(), String::new(), format!("out/t{number}.txt")),
                Shape::Large => {
                    ("mkdir -p out".into(), format!("seq {LINES} >> out/t{number}.txt"), format!("out/t{number}.txt"))
                }
                Shape::Directory => (
                    format!("mkdir -p out/d{number}/sub"),
                    format!(
                        "cd out/d{number}; cp all sub/copy-{salt}; (cat all; seq {LINES}) > sub/large; ln -s all link; echo {salt} > run; chmod +x run"
                    ),
                    format!("out/d{number}/**"),
                ),
                Shape::Wildcard => (
                    "mkdir -p gen".into(),
                    format!("echo {salt} > gen/t{number}-{salt}.txt"),
                    format!("gen/t{number}-*.txt"),
                ),
            };
            manifest.push_str(&format!(
                "[task.t{number}]\nrun = \"\"\"\n{start}\n(echo salt {salt}; grep -cvx drystone src/bulk || :; for part in {}; do head -n 5 $part; done) > {}\n{rest}\n\"\"\"\ninputs = [{inputs}]\nneeds = [{needs}]\noutputs = [\"{output}\"]\n",
                parts.join(" "),
                self.text_path(number),
            ));
        }
        workspace.write("drystone.toml", &manifest);
        workspace.write("src/bulk", &"drystone\n".repeat(BULK_LINES));
        for (source, version) in self.versions.iter().enumerate() {
            workspace.write(&format!("src/f{source}"), &format!("source {source} version {version}\n"));
        }
    }

    fn text_path(&self, number: usize) -> String {
        match self.tasks[number].shape {
            Shape::Small | Shape::Large => format!("out/t{number}.txt"),
            Shape::Directory => format!("out/d{number}/all"),
            Shape::Wildcard => format!("gen/t{number}-all.txt"),
        }
    }

    /// What every run must make of it.
    pub fn outputs(&self) -> Outputs {
        let mut texts: Vec<String> = Vec::new();
        let mut outputs = Outputs::new();
        let lines: String = (1..=LINES).map(|line| format!("{line}\n")).collect();
        for (number, task) in self.tasks.iter().enumerate() {
            let salt = task.salt;
            let mut text = format!("salt {salt}\n0\n");
            for source in &task.sources {
                text.push_str(&format!("source {source} version {}\n", self.versions[*source]));
            }
            for need in &task.needs {
                text.extend(texts[*need].lines().take(5).flat_map(|line| [line, "\n"]));
            }
            let mut file = |path: &str, text: String, executable: bool| {
                outputs.insert(path.to_owned(), Found::File(text.into_bytes(), executable));
            };
            let place = self.text_path(number);
            match task.shape {
                Shape::Small => file(&place, text.clone(), false),
                Shape::Large => {
                    text.push_str(&lines);
                    file(&place, text.clone(), false);
                }
                Shape::Directory => {
                    let dir = format!("out/d{number}");
                    file(&place, text.clone(), false);
                    file(&format!("{dir}/sub/copy-{salt}"), text.clone(), false);
                    file(&format!("{dir}/sub/large"), format!("{text}{lines}"), false);
                    file(&format!("{dir}/run"), format!("{salt}\n"), true);
                    outputs.insert(format!("{dir}/link"), Found::Link("all".into()));
                }
                Shape::Wildcard => {
                    file(&place, text.clone(), false);
                    file(&format!("gen/t{number}-{salt}.txt"), format!("{salt}\n"), false);
                }
            }
            texts.push(text);
        }
        outputs
    }
}

/// The outputs in a tree, and the temporaries among them.
pub fn found(workspace: &TestWorkspace) -> (Outputs, Vec<String>) {
    let (mut outputs, mut temporaries) = (Outputs::new(), Vec::new());
    for top in ["out", "gen"] {
        find_below(&workspace.root(), top, &mut outputs, &mut temporaries);
    }
    (outputs, temporaries)
}

fn find_below(root: &Path, dir: &str, outputs: &mut Outputs, temporaries: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(root.join(dir)) else { return };
    for entry in entries {
        let entry = entry.expect("a readable directory");
        let path = format!("{dir}/{}", entry.file_name().to_str().expect("our names are text"));
        if entry.file_name().to_string_lossy().contains(".drystone-") {
            temporaries.push(path);
            continue;
        }
        let meta = entry.path().symlink_metadata().expect("nobody else is here");
        if meta.is_dir() {
            find_below(root, &path, outputs, temporaries);
        } else if meta.is_symlink() {
            let target = fs::read_link(entry.path()).expect("a link");
            outputs.insert(path, Found::Link(target.display().to_string()));
        } else {
            let executable = meta.permissions().mode() & 0o100 != 0;
            outputs.insert(path, Found::File(fs::read(entry.path()).expect("a file"), executable));
        }
    }
}

/// What is wrong with a tree that a run was going to bring from `old` to `new` when it was ended; each output is one of the
/// two, and each directory one of the two as a whole.
pub fn neither(found: &Outputs, old: &Outputs, new: &Outputs) -> Option<String> {
    let unit = |path: &str| {
        let rest = path.strip_prefix("out/d")?;
        Some(format!("out/d{}/", rest.split('/').next()?))
    };
    let paths: BTreeSet<&String> = found.keys().chain(old.keys()).chain(new.keys()).collect();
    let units: BTreeSet<String> = paths.iter().filter_map(|path| unit(path)).collect();
    for unit in units {
        let part = |all: &Outputs| -> Outputs {
            let below = all.iter().filter(|(path, _)| path.starts_with(&unit));
            below.map(|(path, found)| (path.clone(), found.clone())).collect()
        };
        let there = part(found);
        if there != part(old) && there != part(new) {
            return Some(format!("{unit} is half written: {there:#?}\nold {:#?}\nnew {:#?}", part(old), part(new)));
        }
    }
    let mut single = paths.into_iter().filter(|path| unit(path).is_none());
    let path = single.find(|path| found.get(*path) != old.get(*path) && found.get(*path) != new.get(*path))?;
    Some(format!("{path} is {:?}, was {:?}, was to be {:?}", found.get(path), old.get(path), new.get(path)))
}
