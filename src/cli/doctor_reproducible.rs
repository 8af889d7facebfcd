//! `drystone doctor --reproducible`: what will not reproduce elsewhere, as far as it can be told before anything is built.

use std::path::Path;

use serde::Serialize;

use crate::audit::habits::{self, Habit};
use crate::base::diagnostic::Diagnostic;
use crate::base::span::{Place, Sources};
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening;
use crate::cli::table::json;
use crate::engine::image_key::read_lock;
use crate::engine::tracked::run_git_in;
use crate::fs::ops;
use crate::manifest::image::LOCK_FILE;
use crate::manifest::lock::Lock;
use crate::manifest::model::{Command, IsolationRequest, RunTask, Task, TaskKind};
use crate::manifest::recipe::{ImageRecipe, LayerSource};
use crate::sandbox::probe::probe;
use crate::sandbox::spec::Level;
use crate::workspace::git;
use crate::workspace::model::Workspace;

/// Where the C library has its locales.
const LOCALES_DIR: &str = "/usr/lib/locale";
/// The locales that an audit tries.
const LOCALES: [&[u8]; 2] = [b"et_EE", b"de_DE"];
/// Most of the names in an archive of locales that is read, in bytes; all that there are take a tenth of it.
const LOCALE_NAMES_BYTES_MAX: usize = 1 << 20;

/// Who may trace whom, where the Yama module has a say; 3 is nobody.
const PTRACE_SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Directories that are the machine's or a person's own.
const OWN_DIRS: [&str; 4] = ["/home/", "/root/", "/tmp/", "/Users/"];

/// How sure it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Severity {
    /// Elsewhere there is another result, or none.
    WillNot,
    /// It depends on what the command makes of it.
    MayNot,
    /// Whether it matters cannot be found out on this machine.
    CannotBeTested,
}

/// One thing that was found.
#[derive(Clone, PartialEq, Debug)]
struct Finding {
    severity: Severity,
    /// The task; `None` for the machine.
    label: Option<String>,
    place: Option<Place>,
    what: String,
    why: String,
    remedy: String,
}

/// A finding in JSON.
#[derive(Serialize)]
struct Row<'a> {
    severity: Severity,
    label: Option<&'a str>,
    /// `path:line:column`, relative to the root.
    place: Option<String>,
    what: &'a str,
    why: &'a str,
    remedy: &'a str,
}

impl Finding {
    fn of(severity: Severity, task: &Task, what: impl Into<String>, why: &str, remedy: impl Into<String>) -> Self {
        let (label, place) = (Some(task.label.to_string()), Some(task.place.clone()));
        Self { severity, label, place, what: what.into(), why: why.into(), remedy: remedy.into() }
    }

    fn of_machine(severity: Severity, what: impl Into<String>, why: &str, remedy: impl Into<String>) -> Self {
        let (what, remedy) = (what.into(), remedy.into());
        Self { severity, label: None, place: None, what, why: why.into(), remedy }
    }

    fn at(mut self, place: &Place) -> Self {
        self.place = Some(place.clone());
        self
    }

    fn diagnostic(&self) -> Diagnostic {
        let Self { severity, label, place, what, why, remedy } = self;
        let subject = label.as_ref().map_or_else(|| "what is built here".to_owned(), |label| format!("`{label}`"));
        let told = match (severity, place) {
            (Severity::CannotBeTested, _) => return Diagnostic::note(format!("{what}: {why}")).help(remedy),
            (Severity::WillNot, _) => format!("{subject} will not reproduce elsewhere: {what}"),
            (Severity::MayNot, Some(_)) => format!("{subject} may not reproduce elsewhere: {what}"),
            (Severity::MayNot, None) => format!("{subject} may not reproduce elsewhere: {what}, and {why}"),
        };
        let told = Diagnostic::warning(told);
        let told = match place {
            Some(place) => told.at(place, why),
            None => told,
        };
        told.help(remedy)
    }

    fn row<'a>(&'a self, sources: &Sources) -> Row<'a> {
        let Self { severity, label, place, what, why, remedy } = self;
        let place = place.as_ref().map(|place| sources.locate(place));
        Row { severity: *severity, label: label.as_deref(), place, what, why, remedy }
    }
}

/// Tells what is found; fails if something will not reproduce.
pub fn run(format: Format, context: &Context) -> Result<ExitKind, CliError> {
    let opened = opening::open(context)?;
    let workspace = &opened.workspace;
    let lock = read_lock(&workspace.root).map_err(CliError::Usage)?;
    let mut findings: Vec<Finding> = Vec::new();
    for task in workspace.tasks.values() {
        for finding in of_task(task, &lock) {
            // An image for two platforms names its base twice.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    findings.extend(of_machine(workspace));
    if format == Format::Json {
        let rows: Vec<Row<'_>> = findings.iter().map(|one| one.row(&workspace.sources)).collect();
        context.out.write(json(&rows).as_bytes());
    } else {
        let told: Vec<Diagnostic> = findings.iter().map(Finding::diagnostic).collect();
        opening::tell(context, &workspace.sources, &told);
        context.say(&closing(&findings));
    }
    let fails = findings.iter().any(|one| one.severity == Severity::WillNot);
    Ok(if fails { ExitKind::Failed } else { ExitKind::Done })
}

/// How much there is of each.
fn closing(findings: &[Finding]) -> String {
    let count = |severity: Severity| findings.iter().filter(|one| one.severity == severity).count();
    let (will, may) = (count(Severity::WillNot), count(Severity::MayNot));
    let told = format!(
        "{will} will not reproduce elsewhere, {may} may not, {} cannot be tested here",
        count(Severity::CannotBeTested)
    );
    if will + may == 0 { format!("{told}; `drystone audit` builds twice and compares") } else { told }
}

/// What a task declares.
fn of_task(task: &Task, lock: &Lock) -> Vec<Finding> {
    let TaskKind::Run(run) = &task.kind else { return Vec::new() };
    let mut found: Vec<Finding> = shown(&run.command).into_iter().map(|habit| of_habit(task, habit)).collect();
    if let Some(recipe) = run.command.image() {
        found.extend(of_image(task, recipe, lock));
    }
    found.extend(of_isolation(task, run.isolation));
    found.extend(of_surroundings(task, run));
    found
}

/// The habits of a command.
fn shown(command: &Command) -> Vec<&'static Habit> {
    match command {
        Command::Shell(text) => habits::in_shell(text),
        Command::Exec(words) => habits::in_words(words),
        Command::Image(_) => Vec::new(),
    }
}

fn of_habit(task: &Task, habit: &Habit) -> Finding {
    Finding::of(Severity::MayNot, task, format!("its command has {}", habit.what), habit.why, habit.remedy)
}

/// Bases that nothing pins, and habits of steps.
fn of_image(task: &Task, recipe: &ImageRecipe, lock: &Lock) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, place) in recipe.bases().filter(|(name, _)| !name.contains('@') && !lock.images.contains_key(*name)) {
        let what = format!("its base `{name}` is not pinned in {LOCK_FILE}");
        let why = "a tag names another image when somebody moves it";
        let remedy = format!("`drystone lock` writes its digest; {LOCK_FILE} belongs in git");
        found.push(Finding::of(Severity::WillNot, task, what, why, remedy).at(place));
    }
    for layer in recipe.platforms.iter().flat_map(|platform| &platform.layers) {
        let LayerSource::Step { command, from: _ } = &layer.source else { continue };
        found.extend(shown(command).into_iter().map(|habit| of_habit(task, habit).at(&layer.place)));
    }
    found
}

fn of_isolation(task: &Task, isolation: IsolationRequest) -> Option<Finding> {
    let (word, why) = match isolation {
        IsolationRequest::Auto | IsolationRequest::Namespaces => return None,
        IsolationRequest::Landlock => ("landlock", "which files the machine has, and its processes, can be seen"),
        IsolationRequest::None => ("none", "nothing keeps it from reading what it does not declare"),
    };
    let remedy = "leave `isolation` out, or ask for `namespaces`";
    Some(Finding::of(Severity::MayNot, task, format!("it declares `isolation = \"{word}\"`"), why, remedy))
}

/// The network and the variables that a task is given.
fn of_surroundings(task: &Task, run: &RunTask) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut may_not = |what: String, why: &str, remedy: String| {
        found.push(Finding::of(Severity::MayNot, task, what, why, remedy));
    };
    if run.network {
        let remedy = "take what it downloads from a `fetch` with its digest, and leave `network` out";
        may_not("it declares `network = true`".into(), "what others serve is another thing tomorrow", remedy.into());
    }
    for name in &run.pass_env {
        let remedy = format!("give it a value in `env`, or `{name}` in `secret-env` if no result depends on it");
        may_not(format!("`pass-env` names `{name}`"), "the value that this machine has enters the key", remedy);
    }
    for (name, path) in run.env.iter().filter_map(|(name, value)| Some((name, own_path(value)?))) {
        let remedy = "name a path beneath the workspace, or one of a tool that the task declares";
        may_not(format!("`{name}` of `env` names `{path}`"), "other machines do not have it", remedy.into());
    }
    found
}

/// The first path in a value that is the machine's or a person's own.
fn own_path(value: &str) -> Option<&str> {
    let parts = value.split(|one: char| one.is_whitespace() || matches!(one, ':' | '=' | ',' | ';' | '"' | '\''));
    // `-I/home/…` is an option with one; `src/home/…` is beneath another directory.
    let is_option = |before: &str| before.is_empty() || (before.len() == 2 && before.starts_with('-'));
    let split = parts.filter_map(|part| part.find('/').map(|at| part.split_at(at)));
    let mut paths = split.filter(|(before, _)| is_option(before)).map(|(_, path)| path);
    // `file:///home/…` names one as well; `/usr/home/…` is none.
    let is_own = |path: &str| OWN_DIRS.iter().any(|dir| path.trim_start_matches("//").starts_with(dir));
    paths.find(|path| is_own(path))
}

/// What this machine does not let be tested, or makes different.
fn of_machine(workspace: &Workspace) -> Vec<Finding> {
    let mut found = Vec::new();
    let best = probe().best().unwrap_or(Level::None);
    if best != Level::Namespaces && workspace.tasks.values().any(is_auto) {
        let what = format!("this machine isolates at the `{}` level", best.word());
        let why = "commands see more of it than they declare";
        found.push(Finding::of_machine(Severity::MayNot, what, why, "`drystone doctor` tells the way to namespaces"));
    }
    let mut untested = |what: &str, why: &str, remedy: &str| {
        found.push(Finding::of_machine(Severity::CannotBeTested, what, why, remedy));
    };
    if !has_locale(Path::new(LOCALES_DIR)) {
        let remedy = "install one: `locales-all` on Debian has them";
        untested("the locale cannot be tested here", "neither et_EE nor de_DE is installed", remedy);
    }
    if std::thread::available_parallelism().is_ok_and(|count| count.get() == 1) {
        let remedy = "audit on a machine with two or more";
        untested("the number of processors cannot be tested here", "this machine has one", remedy);
    }
    if ops::read_text(Path::new(PTRACE_SCOPE)).is_ok_and(|scope| scope.trim() == "3") {
        let why = "the kernel lets no process be traced (kernel.yama.ptrace_scope = 3)";
        untested("the clock cannot be tested here", why, "audit on a machine where it is less");
    }
    found.extend(of_git(workspace));
    found
}

fn is_auto(task: &Task) -> bool {
    matches!(&task.kind, TaskKind::Run(run) if run.isolation == IsolationRequest::Auto && run.command.image().is_none())
}

/// Settings of git with which files are not what they are elsewhere. Without git there are none.
fn of_git(workspace: &Workspace) -> Vec<Finding> {
    let answer = run_git_in(&workspace.root, &git::settings()).unwrap_or_default();
    let settings = git::parse_settings(&answer);
    let is_one_of = |value: &Option<String>, words: &[&str]| {
        value.as_ref().is_some_and(|value| words.contains(&value.to_ascii_lowercase().as_str()))
    };
    let mut found = Vec::new();
    let mut may_not = |what: &str, why: &str, remedy: &str| {
        found.push(Finding::of_machine(Severity::MayNot, what, why, remedy));
    };
    if is_one_of(&settings.auto_crlf, &["true", "yes", "on", "1"]) {
        let remedy = "`git config core.autocrlf false`, or `* -text` in .gitattributes for everybody";
        may_not("git is set to `core.autocrlf`", "text files have other ends of lines than elsewhere", remedy);
    }
    if is_one_of(&settings.file_mode, &["false", "no", "off", "0"]) {
        let remedy = "`git config core.fileMode true`, where the file system keeps modes";
        may_not("git is set to `core.fileMode = false`", "which files can be executed is not what git has", remedy);
    }
    found
}

/// Whether one of the locales that an audit tries is installed, as a directory or in the archive.
///
/// The archive has its names in one place, which the sixth and seventh number of its head tell (`locarchive.h` of glibc).
fn has_locale(dir: &Path) -> bool {
    let is_tried = |name: &[u8]| LOCALES.iter().any(|one| name.starts_with(one));
    let entries = ops::read_dir(dir).unwrap_or_default();
    if entries.iter().any(|entry| is_tried(entry.name.as_encoded_bytes())) {
        return true;
    }
    let names = || {
        let file = ops::open(&dir.join("locale-archive")).ok()?;
        let head = ops::read_at(&file, 20, 8).ok()?;
        let number = |at: usize| Some(u32::from_ne_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let length = usize::try_from(number(4)?).ok()?.min(LOCALE_NAMES_BYTES_MAX);
        ops::read_at(&file, u64::from(number(0)?), length).ok()
    };
    names().unwrap_or_default().split(|byte| *byte == 0).any(is_tried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_one_machine_is_found_within_a_value() {
        let check = |value: &str, expect: Option<&str>| assert_eq!(own_path(value), expect, "{value}");
        check("/home/ann/lib", Some("/home/ann/lib"));
        check("/usr/bin:/home/ann/bin", Some("/home/ann/bin"));
        check("-I/tmp/x -O2", Some("/tmp/x"));
        check("--cache=/root/.cache", Some("/root/.cache"));
        check("file:///home/ann/x", Some("///home/ann/x"));
        for none in ["", "/usr/home/x", "/tmpfiles/x", "a/b", "src/home/x", "https://x.invalid/home/x", "/homes"] {
            check(none, None);
        }
    }

    #[test]
    fn a_locale_is_found_as_a_directory_and_in_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let archive = |names: &[u8]| {
            let mut bytes = vec![0_u8; 20];
            bytes.extend(28_u32.to_ne_bytes());
            bytes.extend(u32::try_from(names.len()).unwrap().to_ne_bytes());
            bytes.extend(names);
            ops::write(&dir.path().join("locale-archive"), &bytes).unwrap();
        };
        assert!(!has_locale(&dir.path().join("missing")) && !has_locale(dir.path()));
        archive(b"en_US.utf8\0fr_FR\0");
        assert!(!has_locale(dir.path()));
        archive(b"en_US.utf8\0de_DE.utf8\0");
        assert!(has_locale(dir.path()));
        ops::write(&dir.path().join("locale-archive"), b"short").unwrap();
        assert!(!has_locale(dir.path()));
        ops::create_dir(&dir.path().join("et_EE.utf8")).unwrap();
        assert!(has_locale(dir.path()));
    }
}
