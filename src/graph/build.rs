//! Resolves what tasks need into a graph without circles. Reads no files.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::base::diagnostic::{Diagnostic, nearest};
use crate::base::ids::{PackageId, TaskId};
use crate::base::path::RelPath;
use crate::base::span::Place;
use crate::graph::cycle;
use crate::graph::task_graph::Rising;
pub use crate::graph::task_graph::{Edge, Purpose, TaskGraph};
use crate::manifest::model::{Need, Reach, ServiceUse, Task, TaskKind, Which};
use crate::manifest::split::PART_AXES;
use crate::workspace::model::Workspace;

/// Unknown names for which a near one is looked up; beyond that the message has to do.
const SUGGESTIONS_MAX: usize = 100;

/// Resolves all needs of a workspace.
///
/// # Errors
/// Needs that name nothing, `#interface` of a task without one, and circles; all of them together.
pub fn build(workspace: &Workspace) -> Result<TaskGraph, Vec<Diagnostic>> {
    let mut resolver = Resolver::new(workspace);
    let mut rising = Rising::new(workspace.tasks.len());
    for (package, value) in workspace.packages.iter() {
        // Tasks of one matrix follow each other.
        let mut last: Option<TaskId> = None;
        for id in &value.tasks {
            match last.filter(|last| need_alike(&workspace.tasks[*last], &workspace.tasks[*id])) {
                Some(last) => rising.push_like(last),
                None => rising.push(&resolver.edges(package, *id)),
            }
            last = Some(*id);
        }
    }
    let mut problems = resolver.problems;
    match rising.finish() {
        Ok(graph) if problems.is_empty() => return Ok(graph),
        Ok(_) => {}
        Err(edges) => problems.extend(cycle::circles(workspace, edges)),
    }
    Err(problems)
}

/// Whether two tasks of one package need the same, as far as that can be seen at once: they share what they were lowered to, and
/// nothing but `needs` and `services` is needed. What is wrong with it is told of one of them either way.
fn need_alike(one: &Task, other: &Task) -> bool {
    let plain = |task: &Task| task.kind.command().is_none_or(|run| run.tool_trees.is_empty() && run.root.is_none());
    Arc::ptr_eq(&one.needs, &other.needs) && Arc::ptr_eq(&one.services, &other.services) && plain(one) && plain(other)
}

/// Tasks by package and name, and what was wrong so far.
struct Resolver<'w> {
    workspace: &'w Workspace,
    names: BTreeSet<&'w str>,
    /// All packages a package depends on, transitively; without itself.
    transitive: HashMap<PackageId, Vec<PackageId>>,
    problems: Vec<Diagnostic>,
    /// A template's or a matrix's mistake is told once, not once for each task made of it.
    told: HashSet<(String, Place)>,
}

impl<'w> Resolver<'w> {
    fn new(workspace: &'w Workspace) -> Self {
        let mut names = BTreeSet::new();
        let mut last = "";
        for id in workspace.tasks.ids() {
            let name = workspace.tasks.name(id);
            if name != last {
                names.insert(name);
                last = name;
            }
        }
        let (transitive, problems, told) = (HashMap::new(), Vec::new(), HashSet::new());
        Self { workspace, names, transitive, problems, told }
    }

    fn tell(&mut self, problem: Diagnostic) {
        let place = problem.marks.first().map(|mark| mark.place.clone());
        if place.is_none_or(|place| self.told.insert((problem.message.clone(), place))) {
            self.problems.push(problem);
        }
    }

    /// The edges of one task in the order written; two needs for one task are one edge, that of the wider need.
    fn edges(&mut self, package: PackageId, id: TaskId) -> Vec<(TaskId, Edge)> {
        let workspace = self.workspace;
        let mut edges: Vec<(TaskId, Edge)> = Vec::new();
        let mut position: HashMap<TaskId, usize> = HashMap::new();
        for need in &*workspace.tasks[id].needs {
            for to in self.resolve(package, need) {
                if need.interface_only && !workspace.tasks[to].kind.is_service() {
                    self.check_interface(need, to);
                }
                if workspace.tasks[to].kind.is_service() {
                    self.refuse_service(need, to);
                    continue;
                }
                let purpose = Purpose::Outputs;
                let edge = Edge { purpose, interface_only: need.interface_only, place: need.place.clone() };
                match position.get(&to) {
                    None => {
                        position.insert(to, edges.len());
                        edges.push((to, edge));
                    }
                    Some(at) if edges[*at].1.interface_only && !edge.interface_only => edges[*at].1 = edge,
                    Some(_) => {}
                }
            }
        }
        if let Some(run) = workspace.tasks[id].kind.command() {
            for need in &run.tool_trees {
                let known =
                    |to: TaskId| edges.iter().any(|(other, edge)| *other == to && edge.purpose == Purpose::Tool);
                if let Some(edge) = self.tree(package, need, Purpose::Tool).filter(|(to, _)| !known(*to)) {
                    edges.push(edge);
                }
            }
            edges.extend(run.root.iter().filter_map(|need| self.tree(package, need, Purpose::Root)));
        }
        for used in &*workspace.tasks[id].services {
            let edge = |to| (to, Edge { purpose: Purpose::Service, interface_only: false, place: used.place.clone() });
            edges.extend(self.service(used).map(edge));
        }
        edges
    }

    /// The service that an entry of `services` names.
    fn service(&mut self, used: &ServiceUse) -> Option<TaskId> {
        let workspace = self.workspace;
        let shown = format!("//{}:{}", used.package.as_str(), used.service);
        let package = workspace.package_at(&used.package);
        let found = package.and_then(|package| workspace.called(package, &used.service).first().copied());
        let Some(found) = found else {
            let services = workspace.tasks.values().filter(|task| task.kind.is_service());
            let labels: Vec<String> = services.map(|task| task.label.to_string()).collect();
            let near = self.suggest(&shown, labels.iter().map(String::as_str));
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("declare it: `[service.{}]`", used.service),
            };
            self.tell(Diagnostic::error(format!("no service `{shown}`")).at(&used.place, "used here").help(help));
            return None;
        };
        let task = &workspace.tasks[found];
        if task.kind.is_service() {
            return Some(found);
        }
        self.tell(
            Diagnostic::error(format!("`{shown}` is not a service"))
                .at(&used.place, "used here as one")
                .at(&task.place, "declared here")
                .help("name what must have run before under `needs`; a service is declared as `[service.NAME]`"),
        );
        None
    }

    fn refuse_service(&mut self, need: &Need, to: TaskId) {
        let task = &self.workspace.tasks[to];
        self.tell(
            Diagnostic::error(format!("`{}` is a service", task.label))
                .at(&need.place, "needed here as a task")
                .at(&task.place, "declared here")
                .help("a service has no outputs and does not end: name it under `services`"),
        );
    }

    /// The edge to the one task whose output tree is used as a whole.
    fn tree(&mut self, from: PackageId, need: &Need, purpose: Purpose) -> Option<(TaskId, Edge)> {
        let tasks = self.resolve(from, need);
        let workspace = self.workspace;
        let what = match purpose {
            Purpose::Root => "the root file system",
            Purpose::Outputs | Purpose::Tool | Purpose::Service => "a tool",
        };
        let (first, more) = tasks.split_first()?;
        let task = &workspace.tasks[*first];
        if !more.is_empty() {
            let known: Vec<String> =
                tasks.iter().take(8).map(|id| format!("`{}`", workspace.tasks[*id].label)).collect();
            let message =
                format!("`//{}:{}` stands for {} tasks", task.label.package.as_str(), task.label.name, tasks.len());
            self.tell(
                Diagnostic::error(message)
                    .at(&need.place, format!("{what} is one"))
                    .help(format!("name one of {}", known.join(", "))),
            );
            return None;
        }
        let has_outputs = match &task.kind {
            TaskKind::Run(run) => !run.outputs.is_empty(),
            TaskKind::Fetch(_) => true,
            TaskKind::Service(_) => false,
        };
        if !has_outputs {
            self.tell(
                Diagnostic::error(format!("`{}` has no outputs, so it cannot be {what}", task.label))
                    .at(&need.place, "needed here")
                    .at(&task.place, "declared here")
                    .help("give it `outputs`, or name the task that makes the files"),
            );
            return None;
        }
        Some((*first, Edge { purpose, interface_only: false, place: need.place.clone() }))
    }

    fn resolve(&mut self, from: PackageId, need: &Need) -> Vec<TaskId> {
        match &need.which {
            Which::Upstream { task, reach } => self.upstream(from, need, task, *reach),
            Which::Task { package, task, matrix } => self.named(need, package, task, matrix),
        }
    }

    fn upstream(&mut self, package: PackageId, need: &Need, task: &str, reach: Reach) -> Vec<TaskId> {
        if !self.names.contains(task) {
            let sign = match reach {
                Reach::Direct => "^",
                Reach::Transitive => "^^",
                Reach::Development => "^dev:",
            };
            let problem = Diagnostic::error(format!("no package has a task `{task}`, which `{sign}{task}` needs"))
                .at(&need.place, "");
            let near =
                self.suggest(task, self.names.iter().copied()).map(|near| format!("did you mean `{sign}{near}`?"));
            self.tell(near.into_iter().fold(problem, Diagnostic::help));
            return Vec::new();
        }
        let value = &self.workspace.packages[package];
        let packages: &[PackageId] = match reach {
            Reach::Direct => &value.depends,
            Reach::Development => &value.dev_depends,
            Reach::Transitive => self.transitive.entry(package).or_insert_with(|| self.workspace.all_depends(package)),
        };
        packages.iter().flat_map(|package| self.workspace.called(*package, task)).copied().collect()
    }

    fn named(&mut self, need: &Need, dir: &RelPath, task: &str, matrix: &BTreeMap<String, String>) -> Vec<TaskId> {
        let workspace = self.workspace;
        let Some(package) = workspace.package_at(dir) else {
            let shown = format!("//{}:{task}", dir.as_str());
            let labels: BTreeSet<String> = if self.problems.len() < SUGGESTIONS_MAX {
                workspace
                    .tasks
                    .values()
                    .map(|task| format!("//{}:{}", task.label.package.as_str(), task.label.name))
                    .collect()
            } else {
                BTreeSet::new()
            };
            let near = nearest(&shown, labels.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
            let problem = Diagnostic::error(format!("no package `//{}`", dir.as_str())).at(&need.place, "needed here");
            self.tell(near.into_iter().fold(problem, Diagnostic::help));
            return Vec::new();
        };
        let all = workspace.called(package, task);
        if all.is_empty() {
            let own = workspace.packages[package].tasks.iter().map(|id| workspace.tasks.name(*id));
            let near = self.suggest(task, own).map(|near| format!("did you mean `//{}:{near}`?", dir.as_str()));
            let problem =
                Diagnostic::error(format!("no task `//{}:{task}`", dir.as_str())).at(&need.place, "needed here");
            self.tell(near.into_iter().fold(problem, Diagnostic::help));
            return Vec::new();
        }
        if let Some(axis) = PART_AXES.iter().find(|axis| matrix.contains_key(**axis))
            && all.iter().any(|id| workspace.split_of(*id).is_some())
        {
            let whole = format!("//{}:{task}", dir.as_str());
            let problem =
                Diagnostic::error(format!("`{whole}[{axis}=…]` is a part of a split task, and parts come and go"))
                    .at(&need.place, "needed here");
            self.tell(problem.help(format!("need all of it: `{whole}`")));
            return Vec::new();
        }
        let fits = |id: &&TaskId| {
            let own = &workspace.tasks[**id].label.matrix;
            matrix.iter().all(|(axis, value)| own.get(axis) == Some(value))
        };
        let fitting: Vec<TaskId> = all.iter().filter(fits).copied().collect();
        if fitting.is_empty() {
            let known: Vec<String> = all.iter().take(8).map(|id| format!("`{}`", workspace.tasks[*id].label)).collect();
            let wanted: Vec<String> = matrix.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
            let message = format!("`//{}:{task}` is not made for [{}]", dir.as_str(), wanted.join(","));
            self.tell(
                Diagnostic::error(message)
                    .at(&need.place, "needed here")
                    .help(format!("there is {}", known.join(", "))),
            );
        }
        fitting
    }

    fn suggest<'a>(&self, word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        (self.problems.len() < SUGGESTIONS_MAX).then(|| nearest(word, known)).flatten()
    }

    fn check_interface(&mut self, need: &Need, to: TaskId) {
        let task = &self.workspace.tasks[to];
        let has = matches!(&task.kind, TaskKind::Run(run) if !run.interface.is_empty());
        if !has {
            self.tell(
                Diagnostic::error(format!("`{}` has no `interface`", task.label))
                    .at(&need.place, "only its interface is needed here")
                    .at(&task.place, "declared here")
                    .help("give it an `interface`, or need it without `#interface`"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::Fixture;

    fn shown(workspace: &Workspace, tasks: impl IntoIterator<Item = TaskId>) -> Vec<String> {
        tasks.into_iter().map(|id| workspace.tasks[id].label.to_string()).collect()
    }

    fn needs_of(workspace: &Workspace, label: &str) -> Vec<String> {
        let graph = build(workspace).expect("a graph");
        let id = workspace.tasks.ids().find(|id| workspace.tasks[*id].label.to_string() == label).expect("a task");
        graph
            .dependencies(id)
            .map(|(to, edge)| format!("{}{}", workspace.tasks[to].label, if edge.interface_only { "#" } else { "" }))
            .collect()
    }

    fn problems(fixture: Fixture) -> Vec<String> {
        let workspace = fixture.build();
        let problems = build(&workspace).expect_err("problems");
        assert!(problems.iter().all(|one| one.is_error() && !one.marks.is_empty()));
        problems.into_iter().map(|one| format!("{} | {}", one.message, one.help.join(" | "))).collect()
    }

    /// `app` uses `ui`, which uses `core`; `app` is developed with `e2e`.
    fn chain() -> Fixture {
        Fixture::new()
            .package("core")
            .task("build")
            .package("e2e")
            .task("build")
            .package("ui")
            .depends(&["core"])
            .task("build")
            .interface("types/**")
            .task("lint")
            .package("app")
            .depends(&["ui"])
            .dev_depends(&["e2e"])
    }

    #[test]
    fn carets_follow_the_package_graph() {
        let check = |need: &str, expect: &[&str]| {
            assert_eq!(needs_of(&chain().task("x").needs(&[need]).build(), "//app:x"), expect, "{need}");
        };
        check("^build", &["//ui:build"]);
        check("^build#interface", &["//ui:build#"]);
        check("^^build", &["//core:build", "//ui:build"]);
        check("^dev:build", &["//e2e:build"]);
        check("^dev:lint", &[]);
        check("//core:build", &["//core:build"]);
    }

    #[test]
    fn tools_and_roots_are_edges_of_their_own() {
        let workspace = Fixture::new()
            .task("node")
            .outputs(&["node"])
            .task("x")
            .needs(&["//:node"])
            .tool_trees(&["//:node", ":node"])
            .root("//:node")
            .build();
        let graph = build(&workspace).expect("a graph");
        let x = workspace.tasks.ids().find(|id| workspace.tasks.name(*id) == "x").expect("a task");
        let purposes: Vec<Purpose> = graph.dependencies(x).map(|(_, edge)| edge.purpose).collect();
        assert_eq!(purposes, [Purpose::Outputs, Purpose::Tool, Purpose::Root]);
        assert_eq!(graph.topological().len(), 2);
    }

    #[test]
    fn what_cannot_be_a_tool_or_a_root_is_told_with_its_place() {
        let told = |fixture: Fixture, expect: &[&str]| assert_eq!(problems(fixture), expect);
        let base = || Fixture::new().task("node").outputs(&["node"]).task("bare");
        told(
            base().task("x").tool_trees(&["//:nod"]).root("//nowhere:node"),
            &["no task `//:nod` | did you mean `//:node`?", "no package `//nowhere` | "],
        );
        told(
            base().task("x").tool_trees(&[":bare"]),
            &[
                "`//:bare` has no outputs, so it cannot be a tool | give it `outputs`, or name the task that makes the files",
            ],
        );
        let two = base().task("m").matrix("v", "1").outputs(&["m"]).task("m").matrix("v", "2").outputs(&["m"]);
        told(two.task("x").tool_trees(&[":m"]), &["`//:m` stands for 2 tasks | name one of `//:m[v=1]`, `//:m[v=2]`"]);
        told(
            base().task("x").outputs(&["x"]).tool_trees(&[":y"]).task("y").outputs(&["y"]).root(":x"),
            &[
                "tasks need each other in a circle: //:x → //:y → //:x | remove one of these needs, or split a task in two",
            ],
        );
    }

    #[test]
    fn a_need_without_matrix_values_takes_all_and_some_values_take_those_that_fit() {
        let matrix = |need: &str| {
            let mut fixture = Fixture::new().package("a");
            for node in ["20", "22"] {
                for os in ["linux", "mac"] {
                    fixture = fixture.task("t").matrix("node", node).matrix("os", os);
                }
            }
            fixture.task("x").needs(&[need]).build()
        };
        assert_eq!(needs_of(&matrix(":t"), "//a:x").len(), 4);
        assert_eq!(needs_of(&matrix("//a:t[node=20]"), "//a:x"), ["//a:t[node=20,os=linux]", "//a:t[node=20,os=mac]"]);
        assert_eq!(needs_of(&matrix("//a:t[node=22,os=mac]"), "//a:x"), ["//a:t[node=22,os=mac]"]);
        let problems = build(&matrix("//a:t[node=18]")).expect_err("no such value");
        assert_eq!(problems[0].message, "`//a:t` is not made for [node=18]");
    }

    #[test]
    fn needs_keep_their_order_and_the_wider_of_two_wins() {
        let workspace =
            chain().task("x").needs(&["//ui:lint", "^build#interface", "//core:build", ":y", "//ui:build"]).task("y");
        assert_eq!(needs_of(&workspace.build(), "//app:x"), ["//ui:lint", "//ui:build", "//core:build", "//app:y"]);
    }

    #[test]
    fn what_is_not_there_is_named_with_the_nearest_name() {
        let check =
            |need: &str, expect: &str| assert_eq!(problems(chain().task("x").needs(&[need])), [expect], "{need}");
        check("//ui:biuld", "no task `//ui:biuld` | did you mean `//ui:build`?");
        check("//uii:build", "no package `//uii` | did you mean `//ui:build`?");
        check("^biuld", "no package has a task `biuld`, which `^biuld` needs | did you mean `^build`?");
        check("^^zzz", "no package has a task `zzz`, which `^^zzz` needs | ");
        check(
            "//core:build#interface",
            "`//core:build` has no `interface` | give it an `interface`, or need it without `#interface`",
        );
    }

    #[test]
    fn tasks_that_share_their_needs_have_the_edges_of_tasks_that_do_not() {
        let fixture = chain().task("x").matrix("n", "1").needs(&["^build", ":y"]).task("x").matrix("n", "2");
        let apart = fixture.needs(&["^build", ":y"]).task("y").build();
        let mut shared = apart.clone();
        let ids: Vec<TaskId> = shared.tasks.ids().filter(|id| shared.tasks.name(*id) == "x").collect();
        let needs = Arc::clone(&shared.tasks[ids[0]].needs);
        let services = Arc::clone(&shared.tasks[ids[0]].services);
        for id in &ids {
            shared.tasks[*id].needs = Arc::clone(&needs);
            shared.tasks[*id].services = Arc::clone(&services);
        }
        let edges = |workspace: &Workspace| -> Vec<Vec<(TaskId, Purpose)>> {
            let graph = build(workspace).expect("a graph");
            let of = |id| graph.dependencies(id).map(|(to, edge)| (to, edge.purpose)).collect();
            workspace.tasks.ids().map(of).collect()
        };
        assert_eq!(edges(&shared), edges(&apart));
    }

    #[test]
    fn packages_may_depend_on_each_other_as_long_as_tasks_do_not() {
        // The tests of `a` use the built `b`, and building `b` uses the built `a`.
        let workspace = Fixture::new()
            .package("a")
            .dev_depends(&["b"])
            .task("build")
            .needs(&["^build"])
            .task("test")
            .needs(&[":build", "^dev:build"])
            .package("b")
            .depends(&["a"])
            .task("build")
            .needs(&["^build"])
            .build();
        let graph = build(&workspace).expect("no circle between tasks");
        assert_eq!(shown(&workspace, graph.topological().iter().copied()), ["//a:build", "//b:build", "//a:test"]);
    }

    #[test]
    fn packages_in_a_circle_are_not_upstream_of_themselves() {
        let workspace = Fixture::new()
            .package("a")
            .depends(&["b"])
            .task("lint")
            .needs(&["^^gen"])
            .task("gen")
            .package("b")
            .depends(&["a"])
            .task("gen")
            .build();
        assert_eq!(needs_of(&workspace, "//a:lint"), ["//b:gen"]);
    }

    #[test]
    fn order_is_dependencies_first_and_then_by_label() {
        let workspace = Fixture::new()
            .task("a")
            .needs(&[":z"])
            .task("b")
            .task("m")
            .needs(&[":a", ":b"])
            .task("z")
            .task("c")
            .build();
        let graph = build(&workspace).expect("a graph");
        assert_eq!(shown(&workspace, graph.topological().iter().copied()), ["//:b", "//:c", "//:z", "//:a", "//:m"]);
        assert_eq!(shown(&workspace, graph.closure(&[TaskId(0)])), ["//:z", "//:a"]);
        assert_eq!(shown(&workspace, graph.dependants_closure(&[TaskId(4)])), ["//:z", "//:a", "//:m"]);
        assert_eq!(shown(&workspace, graph.dependants(TaskId(4))), ["//:a"]);
        assert_eq!(graph.closure(&[]), Vec::<TaskId>::new());
    }
}
