//! Selects tasks by pattern. Follows no needs.
//!
//! | pattern | selects |
//! |---|---|
//! | `//apps/web:build`, `apps/web:build` | that task, with all its matrix values |
//! | `//apps/web:build[node=20]` | those with these matrix values |
//! | `//api:test[items=tests/test_a.py]` | the part of a split task that has the item |
//! | `build`, `:build` | that task in every package |
//! | `//apps/web`, `apps/web`, `.` | all tasks of the package; `.` is the one the user is in |
//! | `//libs/...`, `//libs/...:test`, `...` | all tasks, or those called so, in every package there and beneath |
//! | `tag:slow`, `kind:run` | by tag, by kind |
//! | `!` before any | takes away what was selected so far; as the first pattern it takes away from everything |
//!
//! A path without `//` is relative to where the user is, else to the root. A bare word that names no task may name a
//! package. A pattern that selects nothing is an error: it is a mistake, or it will be one when somebody relies on it.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::diagnostic::{Diagnostic, nearest};
use crate::base::ids::{PackageId, TaskId};
use crate::base::label::is_name;
use crate::base::path::RelPath;
use crate::manifest::split::{PART_AXES, label_value};
use crate::workspace::model::Workspace;
use crate::workspace::split::split_of;

/// Kinds of tasks there are, or will be.
const KINDS: [&str; 5] = ["run", "image", "fetch", "service", "gate"];

/// The tasks that patterns select, in the order of their labels; `here` is where the user is.
///
/// No patterns select nothing.
///
/// # Errors
/// For every pattern that is wrong or selects nothing.
pub fn select(workspace: &Workspace, patterns: &[String], here: &RelPath) -> Result<Vec<TaskId>, Vec<Diagnostic>> {
    let mut selected: BTreeSet<TaskId> = BTreeSet::new();
    let mut problems = Vec::new();
    for (position, written) in patterns.iter().enumerate() {
        let negative = written.strip_prefix('!');
        if position == 0 && negative.is_some() {
            selected = workspace.tasks.ids().collect();
        }
        match select_one(workspace, negative.unwrap_or(written), here) {
            Ok(tasks) if negative.is_some() => selected.retain(|id| !tasks.contains(id)),
            Ok(tasks) => selected.extend(tasks),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(selected.into_iter().collect()) } else { Err(problems) }
}

/// The tasks one pattern without `!` selects; at least one.
///
/// # Errors
/// If it is wrong or selects nothing.
pub fn select_one(workspace: &Workspace, pattern: &str, here: &RelPath) -> Result<BTreeSet<TaskId>, Diagnostic> {
    if pattern.is_empty() {
        return Err(Diagnostic::error("an empty pattern selects nothing").help("`//...` selects every task"));
    }
    let selector = Selector { workspace, pattern, here };
    if let Some(tag) = pattern.strip_prefix("tag:") {
        return selector.by_tag(tag);
    }
    if let Some(kind) = pattern.strip_prefix("kind:") {
        return selector.by_kind(kind);
    }
    if pattern.starts_with('@') {
        return Err(Diagnostic::error(format!("`{pattern}` names a task of another workspace"))
            .help("only tasks of this workspace can be selected"));
    }
    selector.by_label()
}

struct Selector<'a> {
    workspace: &'a Workspace,
    pattern: &'a str,
    here: &'a RelPath,
}

/// Where tasks are looked for.
enum Scope {
    Everywhere,
    Package(PackageId),
    Beneath(RelPath),
}

/// A task name with matrix values.
struct Wanted<'a> {
    name: &'a str,
    matrix: BTreeMap<&'a str, &'a str>,
}

impl<'a> Selector<'a> {
    fn by_tag(&self, tag: &str) -> Result<BTreeSet<TaskId>, Diagnostic> {
        let tasks = || self.workspace.tasks.iter();
        let found: BTreeSet<TaskId> =
            tasks().filter(|(_, task)| task.tags.iter().any(|own| own == tag)).map(|(id, _)| id).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let tags: BTreeSet<&str> = tasks().flat_map(|(_, task)| task.tags.iter().map(String::as_str)).collect();
        Err(suggest(Diagnostic::error(format!("no task has the tag `{tag}`")), "tag:", tag, tags))
    }

    fn by_kind(&self, kind: &str) -> Result<BTreeSet<TaskId>, Diagnostic> {
        if !KINDS.contains(&kind) {
            let problem = Diagnostic::error(format!("there is no kind of task called `{kind}`"));
            return Err(suggest(problem, "kind:", kind, KINDS).help(format!("kinds are {}", KINDS.join(", "))));
        }
        let tasks = self.workspace.tasks.iter();
        let found: BTreeSet<TaskId> = tasks.filter(|(_, task)| task.kind.word() == kind).map(|(id, _)| id).collect();
        if found.is_empty() { Err(Diagnostic::error(format!("no task is of kind `{kind}`"))) } else { Ok(found) }
    }

    fn by_label(&self) -> Result<BTreeSet<TaskId>, Diagnostic> {
        let (scope, wanted) = self.parse()?;
        let tasks: Vec<TaskId> = match &scope {
            Scope::Everywhere => self.workspace.tasks.ids().collect(),
            Scope::Package(package) => self.workspace.packages[*package].tasks.clone(),
            Scope::Beneath(dir) => {
                let beneath = self.workspace.packages.values().filter(|package| package.dir.starts_with(dir));
                beneath.flat_map(|package| package.tasks.iter().copied()).collect()
            }
        };
        let Some(wanted) = wanted else {
            let found: BTreeSet<TaskId> = tasks.into_iter().collect();
            let nothing = || Diagnostic::error(format!("there are no tasks in `{}`", self.pattern));
            return if found.is_empty() { Err(nothing()) } else { Ok(found) };
        };
        let called: Vec<TaskId> =
            tasks.iter().copied().filter(|id| self.workspace.tasks.name(*id) == wanted.name).collect();
        let found: BTreeSet<TaskId> = called.iter().copied().filter(|id| self.fits(*id, &wanted)).collect();
        if found.is_empty() { Err(self.no_such_task(&wanted, &tasks, &called)) } else { Ok(found) }
    }

    fn fits(&self, id: TaskId, wanted: &Wanted<'_>) -> bool {
        let own = &self.workspace.tasks[id].label.matrix;
        wanted.matrix.iter().all(|(axis, value)| {
            own.get(*axis).is_some_and(|own| own == value) || (*axis == PART_AXES[0] && self.has_item(id, value))
        })
    }

    /// Whether a part has an item, written as in the manifest or as in a label.
    fn has_item(&self, id: TaskId, value: &str) -> bool {
        let split = split_of(&self.workspace.tasks[id]);
        split.is_some_and(|split| {
            split.part.items().iter().any(|item| item.as_str() == value || label_value(item.as_str()) == value)
        })
    }

    fn parse(&self) -> Result<(Scope, Option<Wanted<'a>>), Diagnostic> {
        let bare = self.pattern.split('[').next().unwrap_or("");
        let is_bare = is_name(bare) && (self.pattern == bare || self.pattern.ends_with(']'));
        if let Some((dir, task)) = self.pattern.split_once(':').filter(|_| !is_bare) {
            let scope = if dir.is_empty() { Scope::Everywhere } else { self.scope(dir)? };
            return Ok((scope, Some(self.wanted(task)?)));
        }
        if is_bare || (is_name(bare) && !self.pattern.contains('/')) {
            let known = self.workspace.tasks.ids().any(|id| self.workspace.tasks.name(id) == bare);
            if known {
                return Ok((Scope::Everywhere, Some(self.wanted(self.pattern)?)));
            }
            return self.scope(self.pattern).map(|scope| (scope, None)).map_err(|_| self.unknown_word(bare));
        }
        Ok((self.scope(self.pattern)?, None))
    }

    /// `name` or `name[axis=value,…]`.
    fn wanted(&self, text: &'a str) -> Result<Wanted<'a>, Diagnostic> {
        let wrong = |what: &str| {
            Diagnostic::error(format!("`{}` cannot select tasks: {what}", self.pattern))
                .help("patterns look like `//apps/web:build`, `build`, `//libs/...:test`, `tag:slow`")
        };
        let (name, axes) = match text.split_once('[') {
            None => (text, None),
            Some((name, rest)) => {
                let axes = rest.strip_suffix(']').ok_or_else(|| wrong("the `[` is not closed at the end"))?;
                (name, Some(axes))
            }
        };
        if !is_name(name) {
            return Err(wrong(&format!("`{name}` is not a task name")));
        }
        let pairs = axes.into_iter().flat_map(|axes| axes.split(','));
        let matrix: Option<BTreeMap<&str, &str>> = pairs.map(|pair| pair.trim().split_once('=')).collect();
        let matrix = matrix.ok_or_else(|| wrong("matrix values are written `[axis=value]`"))?;
        Ok(Wanted { name, matrix })
    }

    /// What a directory, or `dir/...`, stands for.
    fn scope(&self, text: &str) -> Result<Scope, Diagnostic> {
        // `.` anywhere inside a package means that package.
        if text == "."
            && let Some(package) = self.workspace.owner(self.here)
        {
            return Ok(Scope::Package(package));
        }
        let (absolute, path) = text.strip_prefix("//").map_or((false, text), |rest| (true, rest));
        let beneath = if path == "..." { Some("") } else { path.strip_suffix("/...") };
        let dir = RelPath::parse(beneath.unwrap_or(path));
        // `..` may lead up from where the user is.
        let from_here = match (absolute, self.here.is_root()) {
            (true, _) => None,
            (_, true) => dir.as_ref().ok().cloned(),
            _ => RelPath::parse(&format!("{}/{}", self.here.as_str(), beneath.unwrap_or(path))).ok(),
        };
        let candidates: Vec<RelPath> = from_here.into_iter().chain(dir.ok()).collect();
        if candidates.is_empty() {
            return Err(Diagnostic::error(format!("`{}` leads out of the workspace", self.pattern)));
        }
        if beneath.is_some() {
            let holds = |dir: &&RelPath| self.workspace.packages.values().any(|package| package.dir.starts_with(dir));
            return match candidates.iter().find(holds) {
                Some(dir) => Ok(Scope::Beneath(dir.clone())),
                None => Err(self.unknown_package(&candidates)),
            };
        }
        let package = candidates.iter().find_map(|dir| self.workspace.package_at(dir));
        package.map(Scope::Package).ok_or_else(|| self.unknown_package(&candidates))
    }

    fn unknown_package(&self, candidates: &[RelPath]) -> Diagnostic {
        let dir = candidates.last().cloned().unwrap_or_default();
        let problem = Diagnostic::error(format!("no package `//{}`", dir.as_str()));
        if self.workspace.packages.values().any(|package| package.dir.starts_with(&dir)) {
            return problem.help(format!("`//{}/...` means all packages beneath it", dir.as_str()));
        }
        let known = self.workspace.packages.values().map(|package| package.dir.as_str());
        suggest(problem, "//", dir.as_str(), known)
    }

    fn unknown_word(&self, word: &str) -> Diagnostic {
        let problem = Diagnostic::error(format!("no task and no package is called `{word}`"));
        let tasks = self.workspace.tasks.ids().map(|id| self.workspace.tasks.name(id));
        let packages = self.workspace.packages.values().map(|package| package.dir.as_str());
        let known: BTreeSet<&str> = tasks.chain(packages).collect();
        suggest(problem, "", word, known)
    }

    fn no_such_task(&self, wanted: &Wanted<'_>, tasks: &[TaskId], called: &[TaskId]) -> Diagnostic {
        if !called.is_empty() {
            let mut known: Vec<String> =
                called.iter().take(8).map(|id| format!("`{}`", self.workspace.tasks[*id].label)).collect();
            known.extend((called.len() > known.len()).then(|| format!("and {} more", called.len() - known.len())));
            return Diagnostic::error(format!("no task has the matrix values of `{}`", self.pattern))
                .help(format!("there is {}", known.join(", ")));
        }
        let names: BTreeSet<&str> = tasks.iter().map(|id| self.workspace.tasks.name(*id)).collect();
        let prefix = &self.pattern[..self.pattern.find(':').map_or(0, |colon| colon + 1)];
        suggest(Diagnostic::error(format!("no task matches `{}`", self.pattern)), prefix, wanted.name, names)
    }
}

fn suggest<'a>(problem: Diagnostic, prefix: &str, word: &str, known: impl IntoIterator<Item = &'a str>) -> Diagnostic {
    match nearest(word, known) {
        Some(near) => problem.help(format!("did you mean `{prefix}{near}`?")),
        None => problem.help("`drystone` without a command lists the tasks"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::{Fixture, path};

    fn workspace() -> Workspace {
        Fixture::new()
            .task("lint")
            .package("apps/web")
            .task("build")
            .tags(&["slow"])
            .task("test")
            .matrix("node", "20")
            .task("test")
            .matrix("node", "22")
            .package("apps/web/e2e")
            .task("test")
            .tags(&["slow"])
            .package("libs/ui")
            .task("build")
            .package("ui")
            .task("docs")
            .package("empty")
            .build()
    }

    fn run(patterns: &[&str], here: &str) -> Result<Vec<String>, Vec<String>> {
        let workspace = workspace();
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        let labels = |ids: Vec<TaskId>| ids.iter().map(|id| workspace.tasks[*id].label.to_string()).collect();
        let texts = |all: Vec<Diagnostic>| {
            all.iter().map(|one| format!("{} | {}", one.message, one.help.join(" | "))).collect()
        };
        select(&workspace, &patterns, &path(here)).map(labels).map_err(texts)
    }

    #[test]
    fn patterns_select_what_the_table_says() {
        let check = |patterns: &[&str], here: &str, expect: &[&str]| {
            assert_eq!(
                run(patterns, here),
                Ok(expect.iter().map(ToString::to_string).collect()),
                "{patterns:?} in {here:?}"
            );
        };
        let tests = ["//apps/web:test[node=20]", "//apps/web:test[node=22]"];
        check(&[], "", &[]);
        check(&["//apps/web:build"], "libs/ui", &["//apps/web:build"]);
        check(&["apps/web:build"], "", &["//apps/web:build"]);
        check(&["apps/web:build"], "libs", &["//apps/web:build"]);
        check(&["web:build"], "apps", &["//apps/web:build"]);
        check(&["ui:build"], "libs", &["//libs/ui:build"]);
        check(&["ui:docs"], "", &["//ui:docs"]);
        check(&["../../libs/ui:build"], "apps/web", &["//libs/ui:build"]);
        check(&["build"], "apps/web", &["//apps/web:build", "//libs/ui:build"]);
        check(&[":build"], "apps/web", &["//apps/web:build", "//libs/ui:build"]);
        check(&["//:lint"], "apps/web", &["//:lint"]);
        check(&["."], "apps/web", &["//apps/web:build", tests[0], tests[1]]);
        check(&["."], "apps/web/src/deep", &["//apps/web:build", tests[0], tests[1]]);
        check(&[".:build"], "apps/web", &["//apps/web:build"]);
        check(&["."], "", &["//:lint"]);
        check(&["//libs/ui"], "", &["//libs/ui:build"]);
        check(&["ui"], "", &["//ui:docs"]);
        check(&["ui"], "libs", &["//libs/ui:build"]);
        check(&["apps/web:test"], "", &tests);
        check(&["apps/web:test[node=20]"], "", &tests[..1]);
        check(&["test[node=22]"], "", &tests[1..]);
        check(&["//apps/...:test"], "", &[tests[0], tests[1], "//apps/web/e2e:test"]);
        check(&["...:test"], "apps/web/e2e", &["//apps/web/e2e:test"]);
        check(&["//libs/..."], "apps", &["//libs/ui:build"]);
        check(&["tag:slow"], "", &["//apps/web:build", "//apps/web/e2e:test"]);
        check(&["tag:slow", "!build"], "", &["//apps/web/e2e:test"]);
        check(&["!kind:run"], "", &[]);
        check(&["!//apps/...", "!docs"], "", &["//:lint", "//libs/ui:build"]);
        check(&["build", "!build", "docs"], "", &["//ui:docs"]);
        let everything = run(&["//..."], "libs").expect("everything");
        assert_eq!((everything.len(), Ok(everything)), (8 - 1, run(&["kind:run"], "")));
    }

    #[test]
    fn what_selects_nothing_is_told_with_the_nearest_name() {
        let check = |pattern: &str, expect: &str| {
            assert_eq!(run(&[pattern], ""), Err(vec![expect.to_owned()]), "{pattern}");
        };
        check("biuld", "no task and no package is called `biuld` | did you mean `build`?");
        check(":biuld", "no task matches `:biuld` | did you mean `:build`?");
        check("apps/web:biuld", "no task matches `apps/web:biuld` | did you mean `apps/web:build`?");
        check("//apps/wbe:build", "no package `//apps/wbe` | did you mean `//apps/web`?");
        check("//apps", "no package `//apps` | `//apps/...` means all packages beneath it");
        check("//empty", "there are no tasks in `//empty` | ");
        check("tag:slwo", "no task has the tag `slwo` | did you mean `tag:slow`?");
        check(
            "kind:rnu",
            "there is no kind of task called `rnu` | did you mean `kind:run`? | kinds are run, image, fetch, service, gate",
        );
        check("kind:image", "no task is of kind `image` | ");
        let known = "there is `//apps/web:test[node=20]`, `//apps/web:test[node=22]`";
        check(
            "apps/web:test[node=18]",
            &format!("no task has the matrix values of `apps/web:test[node=18]` | {known}"),
        );
        check("!biuld", "no task and no package is called `biuld` | did you mean `build`?");
        for bad in ["", ":", "a:", "//a:b:c", "test[", "test[x]", "../x", "//../x", "@other//:x", "//", "a//b", "!"] {
            if bad != "//" {
                assert!(run(&[bad], "").is_err(), "{bad:?}");
            }
        }
        assert_eq!(run(&["//"], ""), Ok(vec!["//:lint".into()]));
        assert_eq!(run(&["biuld", "//x:y", "build"], "").map_err(|all| all.len()), Err(2));
    }
}
