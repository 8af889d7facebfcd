//! The rules of the house that no compiler checks: layers, doors, sizes, words, files that nothing declares. Std only.
//!
//! A complaint names the file and line, the rule and the way out. Exceptions are listed here by name, each with its reason;
//! one that is no longer needed is a complaint itself, so the lists only shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

#[path = "tidy/source.rs"]
mod source;

use source::{
    declaration, declares, files_below, functions, identifiers, is_within, is_word, line_of, parts_of, paths_of,
    relative, repository, sources,
};

/// A top-level module: its layer, and what it may import, whole (`fs`) or in part (`sandbox::spec`).
struct Module {
    name: &'static str,
    layer: u8,
    may_import: &'static [&'static str],
}

/// Lowest first. A module imports only what stands above it here, so there can be no circle; what it imports of its own
/// layer is listed like everything else.
const LAYERS: [Module; 16] = [
    Module { name: "base", layer: 0, may_import: &[] },
    Module { name: "fs", layer: 1, may_import: &["base"] },
    Module { name: "manifest", layer: 1, may_import: &["base"] },
    Module { name: "workspace", layer: 2, may_import: &["base", "fs", "manifest"] },
    Module { name: "graph", layer: 2, may_import: &["base", "manifest", "workspace"] },
    Module { name: "store", layer: 2, may_import: &["base", "fs"] },
    Module { name: "process", layer: 3, may_import: &["base", "fs"] },
    Module { name: "sandbox", layer: 3, may_import: &["base", "fs", "process"] },
    Module { name: "fingerprint", layer: 3, may_import: &["base", "fs", "manifest::model", "sandbox::spec"] },
    Module { name: "image", layer: 3, may_import: &["base", "fs", "store"] },
    Module { name: "attest", layer: 4, may_import: &["base", "fs", "image"] },
    Module { name: "registry", layer: 4, may_import: &["base", "fs", "process", "image"] },
    Module {
        name: "engine",
        layer: 4,
        may_import: &[
            "base",
            "fs",
            "manifest",
            "workspace",
            "graph",
            "store",
            "process",
            "sandbox",
            "fingerprint",
            "image",
            "attest",
            "registry",
        ],
    },
    Module {
        name: "audit",
        layer: 5,
        may_import: &[
            "base",
            "fs",
            "manifest",
            "workspace",
            "graph",
            "store",
            "process",
            "sandbox",
            "image",
            "attest",
            "engine",
        ],
    },
    Module {
        name: "report",
        layer: 5,
        may_import: &[
            "base",
            "sandbox::spec",
            "sandbox::surroundings",
            "engine::event",
            "audit::causes",
            "audit::model",
        ],
    },
    Module {
        name: "cli",
        layer: 6,
        may_import: &[
            "base",
            "fs",
            "manifest",
            "workspace",
            "graph",
            "store",
            "process",
            "sandbox",
            "fingerprint",
            "image",
            "attest",
            "registry",
            "engine",
            "audit",
            "report",
        ],
    },
];

/// What `src/main.rs` may name of the library.
const MAIN_MAY_IMPORT: [&str; 2] = ["cli", "sandbox::launcher"];

/// Something that only a few modules, or files, may mention.
struct Door {
    what: &'static [&'static str],
    open_to: &'static [&'static str],
    way_out: &'static str,
}

/// Paths of the standard library. Test modules are not asked.
const DOORS: [Door; 4] = [
    Door { what: &["std::fs"], open_to: &["src/fs/"], way_out: "use `crate::fs::ops`, or add to it what is missing" },
    Door {
        what: &["std::process::Command"],
        open_to: &["src/process/", "src/sandbox/"],
        way_out: "use `crate::process::spawn`; tasks go through `crate::sandbox`",
    },
    Door {
        what: &[
            "std::env::args",
            "std::env::args_os",
            "std::env::var",
            "std::env::var_os",
            "std::env::vars",
            "std::env::vars_os",
            "std::env::current_dir",
            "std::env::temp_dir",
            "std::env::home_dir",
            "std::env::set_var",
            "std::env::set_current_dir",
        ],
        // The launcher must know whether it is one before anything else runs.
        open_to: &["src/cli/", "src/main.rs", "src/sandbox/launcher.rs"],
        way_out: "read it in `cli` and pass the value down",
    },
    Door {
        what: &["std::io::stdout", "std::io::stderr"],
        open_to: &["src/report/", "src/cli/"],
        way_out: "return data, or tell it as an event; `report` writes",
    },
];

/// Text that may stand nowhere in code, tests included, and the way out.
const BANNED_TEXT: [(&str, &str); 6] = [
    ("todo!(", "finish it, or return an error that says it is not supported"),
    ("unimplemented!(", "finish it, or return an error that says it is not supported"),
    ("dbg!(", "take it out; `tracing` is for developers"),
    ("#[ignore", "mend the test or delete it; say loudly in it what a machine cannot test"),
    ("sleep(", "wait for the event itself: a pipe, a lock, an exit"),
    ("#[allow(", "use `#[expect(…, reason = \"…\")]`, which complains once it is not needed"),
];

/// Text that may stand nowhere below `src/`: `report` writes through `report::out`, nothing else writes to the terminal.
const BANNED_IN_SRC: [(&str, &str); 4] = [
    ("print!(", "write through `report::out`"),
    ("println!(", "write through `report::out`"),
    ("eprint!(", "write through `report::out`"),
    ("eprintln!(", "write through `report::out`"),
];

/// Banned text that is needed all the same: file, text.
const TEXT_EXCEPTIONS: [(&str, &str); 0] = [];

/// Words that name nothing, alone or as a part of an identifier or file name.
const EMPTY_WORDS: [&str; 8] = ["util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"];

/// Empty words that are needed all the same: file, word.
const WORD_EXCEPTIONS: [(&str, &str); 1] = [
    // Version managers are called so.
    ("src/fingerprint/tools.rs", "manager"),
];

/// Lines of a file, without its test modules.
const FILE_LINES_MAX: usize = 700;

/// Files that are longer: path, lines at most.
const LONG_FILES: [(&str, usize); 0] = [];

/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 100;

/// Functions that are longer: path, name, lines at most.
const LONG_FUNCTIONS: [(&str, &str, usize); 0] = [];

/// Hosts of package and image registries. Cut in two so that this file does not name them.
const REGISTRY_HOSTS: [&str; 13] = [
    concat!("crates", ".io"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("yarnpkg", ".com"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("rubygems", ".org"),
    concat!("deb.debian", ".org"),
    concat!("docker", ".io"),
    concat!("ghcr", ".io"),
    concat!("quay", ".io"),
    concat!("gcr", ".io"),
];

/// Homes of people who exist on some machine.
const HOMES: [&str; 3] = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

/// People who exist only in tests.
const NOBODIES: [&str; 2] = [concat!("/ho", "me/", "ann"), concat!("/ho", "me/", "x")];

/// Places and hosts that are needed all the same: file, text.
const PLACE_EXCEPTIONS: [(&str, &str); 9] = [
    // Debian's package of Docker's engine has that name.
    ("tests/others.sh", REGISTRY_HOSTS[9]),
    // Tests that no home is taken for the installation of a tool.
    ("src/fingerprint/roots.rs", HOMES[1]),
    ("src/fingerprint/roots.rs", HOMES[2]),
    // Tests that root's home does not exist inside.
    ("tests/it/run.rs", HOMES[1]),
    // Planted for audits to find, and to leave alone.
    ("tests/audit/corpus/binaries/drystone.toml", REGISTRY_HOSTS[0]),
    ("tests/audit/corpus/sober/drystone.toml", HOMES[0]),
    // Tells of variables that name somebody's home.
    ("src/cli/doctor_reproducible.rs", HOMES[0]),
    ("src/cli/doctor_reproducible.rs", HOMES[1]),
    ("src/cli/doctor_reproducible.rs", HOMES[2]),
];

/// Written by cargo, which names where each package came from.
const GENERATED_FILES: [&str; 1] = ["Cargo.lock"];

// --- Complaints ----------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    fn add(&mut self, path: &str, line: usize, rule: &str, way_out: &str) {
        self.0.push(format!("{path}:{line}: {rule}\n    way out: {way_out}"));
    }

    /// Complains about exceptions that nothing needs any more.
    fn unneeded(&mut self, list: &str, unneeded: impl IntoIterator<Item = String>) {
        for exception in unneeded {
            self.add("tests/tidy.rs", 1, &format!("`{list}` lists {exception}, which is not needed"), "take it out");
        }
    }

    #[track_caller]
    fn settle(self) {
        assert!(self.0.is_empty(), "{} places:\n{}", self.0.len(), self.0.join("\n"));
    }
}

// --- The rules -----------------------------------------------------------------------------------------------------------

#[test]
fn the_layer_table_names_every_module_and_has_no_circle() {
    for (position, module) in LAYERS.iter().enumerate() {
        for import in module.may_import {
            let name = import.split("::").next().expect("split gives one part at least");
            let below = LAYERS[..position].iter().find(|other| other.name == name);
            let below =
                below.unwrap_or_else(|| panic!("`{}` may import `{import}`, which is not above it", module.name));
            assert!(below.layer <= module.layer, "`{}` may import `{import}` of a higher layer", module.name);
        }
    }
    let known: BTreeSet<String> = LAYERS.iter().map(|module| module.name.to_owned()).collect();
    let there: BTreeSet<String> = sources().iter().filter_map(|source| module_of(&source.path)).collect();
    assert_eq!(there, known, "the modules of src/ (left) and those of `LAYERS` in tests/tidy.rs (right) differ");
}

fn module_of(path: &str) -> Option<String> {
    let below = path.strip_prefix("src/")?;
    let first = below.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib" && name != "main").then(|| name.to_owned())
}

#[test]
fn modules_import_only_what_lies_below_them() {
    let mut complaints = Complaints::default();
    for source in &sources() {
        let (root, allowed, who): (&str, &[&str], String) = match module_of(&source.path) {
            Some(name) => {
                let Some(module) = LAYERS.iter().find(|module| module.name == name) else { continue };
                ("crate", module.may_import, name)
            }
            None if source.path == "src/main.rs" => ("drystone", &MAIN_MAY_IMPORT, "main".into()),
            None => continue,
        };
        for (at, path) in paths_of(&source.live, root) {
            if !is_within(&path, &who) && !allowed.iter().any(|allowed| is_within(&path, allowed)) {
                let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
                let rule = format!("layers: `{who}` may not import `{path}`; it may import {allowed}");
                let way_out = "move what both need further down, or pass it in; see ARCHITECTURE.md, \"Layers\"";
                complaints.add(&source.path, line_of(&source.live, at), &rule, way_out);
            }
        }
        for (at, _) in source.live.match_indices("super::super") {
            let rule = "layers: `super::super` does not tell which module is meant";
            complaints.add(&source.path, line_of(&source.live, at), rule, "write the path from `crate` on");
        }
    }
    complaints.settle();
}

#[test]
fn each_door_is_open_to_its_module_only() {
    let mut complaints = Complaints::default();
    for source in &sources() {
        let whole = paths_of(&source.live, "std").into_iter().map(|(at, path)| (at, format!("std::{path}")));
        // Behind `use std::process;` a path begins in its middle.
        let halves = ["process", "env", "io"].into_iter().flat_map(|module| {
            let paths = paths_of(&source.live, module).into_iter();
            let begun = paths.filter(|(at, _)| !source.live[..*at].ends_with("::"));
            begun.map(move |(at, path)| (at, format!("std::{module}::{path}")))
        });
        for (at, path) in whole.chain(halves) {
            for door in &DOORS {
                let closed = !door.open_to.iter().any(|place| source.path.starts_with(place));
                if closed && door.what.iter().any(|what| is_within(&path, what)) {
                    let rule = format!("doors: `{path}` belongs to {}", door.open_to.join(", "));
                    complaints.add(&source.path, line_of(&source.live, at), &rule, door.way_out);
                }
            }
        }
    }
    complaints.settle();
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let mut complaints = Complaints::default();
    for source in &sources() {
        if !source.raw.starts_with("//! ") {
            let way_out = "open it with one `//!` line: its responsibility, and what it does not know";
            complaints.add(&source.path, 1, "the file does not say what it is for", way_out);
        }
    }
    complaints.settle();
}

#[test]
fn nothing_is_left_half_done() {
    let mut complaints = Complaints::default();
    let mut needed = BTreeSet::new();
    for source in &sources() {
        let in_src = BANNED_IN_SRC.into_iter().filter(|_| source.path.starts_with("src/"));
        for (text, way_out) in BANNED_TEXT.into_iter().chain(in_src) {
            for (at, _) in source.code.match_indices(text) {
                let within_a_word = text.starts_with(is_word) && source.code[..at].ends_with(is_word);
                if within_a_word {
                    continue;
                }
                if TEXT_EXCEPTIONS.contains(&(source.path.as_str(), text)) {
                    needed.insert((source.path.clone(), text));
                } else {
                    complaints.add(&source.path, line_of(&source.code, at), &format!("`{text}` is banned"), way_out);
                }
            }
        }
    }
    let unneeded = TEXT_EXCEPTIONS.iter().filter(|(path, text)| !needed.contains(&((*path).to_owned(), *text)));
    complaints.unneeded("TEXT_EXCEPTIONS", unneeded.map(|exception| format!("{exception:?}")));
    complaints.settle();
}

#[test]
fn files_stay_short() {
    let mut complaints = Complaints::default();
    let mut lines_of = BTreeMap::new();
    for source in &sources() {
        let tests = if source.live.is_empty() { &source.code } else { &source.live };
        let lines = tests.trim_end().matches('\n').count() + 1;
        lines_of.insert(source.path.clone(), lines);
        let listed = LONG_FILES.iter().find(|(path, _)| *path == source.path);
        let most = listed.map_or(FILE_LINES_MAX, |(_, most)| *most);
        if lines > most {
            let rule = format!("{lines} lines without its tests, {most} at most");
            complaints.add(&source.path, most, &rule, "it has two responsibilities: give the second a file of its own");
        }
    }
    let unneeded =
        LONG_FILES.iter().filter(|(path, _)| lines_of.get(*path).is_none_or(|lines| *lines <= FILE_LINES_MAX));
    complaints.unneeded("LONG_FILES", unneeded.map(|(path, _)| (*path).to_owned()));
    complaints.settle();
}

#[test]
fn functions_stay_short() {
    let mut complaints = Complaints::default();
    let mut needed = BTreeSet::new();
    for source in &sources() {
        for (at, name, lines) in functions(&source.code) {
            if lines <= FUNCTION_LINES_MAX {
                continue;
            }
            let listed = LONG_FUNCTIONS.iter().find(|(path, known, _)| *path == source.path && *known == name);
            needed.extend(listed.map(|(path, known, _)| (*path, *known)));
            let most = listed.map_or(FUNCTION_LINES_MAX, |(_, _, most)| *most);
            if lines > most {
                let rule = format!("`{name}` has {lines} lines, {most} at most");
                complaints.add(
                    &source.path,
                    line_of(&source.code, at),
                    &rule,
                    "it hides a second function: take it out",
                );
            }
        }
    }
    let unneeded = LONG_FUNCTIONS.iter().filter(|(path, name, _)| !needed.contains(&(*path, *name)));
    complaints.unneeded("LONG_FUNCTIONS", unneeded.map(|(path, name, _)| format!("{path} {name}")));
    complaints.settle();
}

#[test]
fn names_say_something() {
    let mut complaints = Complaints::default();
    let mut needed = BTreeSet::new();
    for source in &sources() {
        let words = identifiers(&source.code).into_iter().chain([(0, source.path.clone())]);
        let mut seen = BTreeSet::new();
        for (at, identifier) in words {
            for word in parts_of(&identifier).into_iter().filter(|word| EMPTY_WORDS.contains(&word.as_str())) {
                if WORD_EXCEPTIONS.contains(&(source.path.as_str(), word.as_str())) {
                    needed.insert((source.path.clone(), word));
                } else if seen.insert(identifier.clone()) {
                    let rule = format!("`{word}` in `{identifier}` names nothing");
                    let way_out = "name what it does or holds; see the words of ARCHITECTURE.md";
                    complaints.add(&source.path, line_of(&source.code, at), &rule, way_out);
                }
            }
        }
    }
    let unneeded =
        WORD_EXCEPTIONS.iter().filter(|(path, word)| !needed.contains(&((*path).to_owned(), (*word).to_owned())));
    complaints.unneeded("WORD_EXCEPTIONS", unneeded.map(|exception| format!("{exception:?}")));
    complaints.settle();
}

#[test]
fn no_file_is_forgotten() {
    let mut complaints = Complaints::default();
    let sources = sources();
    let cargo = fs::read_to_string(repository().join("Cargo.toml")).expect("a package has a Cargo.toml");
    for source in &sources {
        let Some((name, parents)) = declaration(&source.path) else {
            if source.path.starts_with("tests/") && !cargo.contains(&format!("path = \"{}\"", source.path)) {
                let way_out = "add a `[[test]]` with this path to Cargo.toml: `autotests` is off";
                complaints.add(&source.path, 1, "no test target has this file, so its tests never run", way_out);
            }
            continue;
        };
        let declared = sources.iter().any(|parent| parents.contains(&parent.path) && declares(&parent.code, &name));
        if !declared {
            let rule = format!("no `mod {name};` declares this file, so it is not compiled");
            complaints.add(&source.path, 1, &rule, &format!("declare it in {}, or delete it", parents[2]));
        }
    }
    complaints.settle();
}

#[test]
fn nothing_names_a_machine_or_a_registry() {
    let mut complaints = Complaints::default();
    let mut needed = BTreeSet::new();
    let here = repository().to_str().expect("the repository has a UTF-8 path");
    // A place of one component, such as `/src`, is a word that stands everywhere.
    let here = (here.matches('/').count() > 1).then_some(here);
    for file in files_below(repository()) {
        let path = relative(&file);
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if GENERATED_FILES.contains(&path.as_str()) {
            continue;
        }
        for needle in REGISTRY_HOSTS.into_iter().chain(HOMES).chain(here) {
            for (at, _) in text.match_indices(needle) {
                let word: String = text[at..].chars().take_while(|letter| is_word(*letter) || *letter == '/').collect();
                if NOBODIES.iter().any(|nobody| word == *nobody || word.starts_with(&format!("{nobody}/"))) {
                    continue;
                }
                if PLACE_EXCEPTIONS.contains(&(path.as_str(), needle)) {
                    needed.insert((path.clone(), needle));
                } else {
                    let way_out = "use a temporary directory, a relative path or `.example`; a link that readers need \
                                   goes to `PLACE_EXCEPTIONS`";
                    complaints.add(
                        &path,
                        line_of(&text, at),
                        &format!("`{needle}` names a machine or a registry"),
                        way_out,
                    );
                }
            }
        }
    }
    let unneeded = PLACE_EXCEPTIONS.iter().filter(|(path, text)| !needed.contains(&((*path).to_owned(), *text)));
    complaints.unneeded("PLACE_EXCEPTIONS", unneeded.map(|exception| format!("{exception:?}")));
    complaints.settle();
}

#[test]
fn documents_name_what_is_there() {
    let mut complaints = Complaints::default();
    let tests: BTreeSet<String> =
        sources().iter().flat_map(|source| functions(&source.code)).map(|(_, name, _)| name).collect();
    for file in files_below(repository()).into_iter().filter(|file| file.extension().is_some_and(|end| end == "md")) {
        let path = relative(&file);
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        for (at, _) in text.match_indices("](") {
            let link = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            let there = file.parent().is_some_and(|dir| dir.join(link).exists());
            if !link.is_empty() && !link.contains("://") && !there {
                complaints.add(&path, line_of(&text, at), &format!("the link to `{link}` leads nowhere"), "correct it");
            }
        }
        for (at, name) in text.split('`').enumerate().skip(1).step_by(2) {
            let is_law = name.matches('_').count() >= 4 && name.chars().all(is_word) && !name.starts_with('_');
            if is_law && !tests.contains(name) {
                let before: usize = text.split('`').take(at).map(|part| part.len() + 1).sum();
                complaints.add(&path, line_of(&text, before), &format!("no test is called `{name}`"), "correct it");
            }
        }
    }
    complaints.settle();
}
