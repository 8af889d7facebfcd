//! Writes a graph as DOT, Mermaid or JSON. Chooses nothing: the caller says which tasks. A split task of which all parts are among
//! them is one node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::base::ids::TaskId;
use crate::graph::build::{Edge, TaskGraph};
use crate::workspace::model::Workspace;
use crate::workspace::split::SplitTask;

/// Tasks in the order given, each once, and the edges among them.
struct Part {
    tasks: Vec<TaskId>,
    edges: Vec<(TaskId, TaskId, Edge)>,
    /// Those of `tasks` that stand for all parts of a split task.
    wholes: BTreeSet<TaskId>,
}

impl Part {
    fn of(workspace: &Workspace, graph: &TaskGraph, tasks: &[TaskId]) -> Self {
        let inside: BTreeSet<TaskId> = tasks.iter().copied().collect();
        let is_whole = |split: &&SplitTask| split.parts.iter().all(|part| inside.contains(part));
        let mut nodes: BTreeMap<TaskId, TaskId> = inside.iter().map(|id| (*id, *id)).collect();
        let mut part = Self { tasks: Vec::new(), edges: Vec::new(), wholes: BTreeSet::new() };
        for split in workspace.splits.all().iter().filter(is_whole) {
            part.wholes.insert(split.parts[0]);
            nodes.extend(split.parts.iter().map(|id| (*id, split.parts[0])));
        }
        let (mut seen, mut joined) = (BTreeSet::new(), BTreeSet::new());
        for id in tasks {
            let from = nodes[id];
            if seen.insert(from) {
                part.tasks.push(from);
            }
            for (to, edge) in graph.dependencies(*id) {
                if let Some(to) = nodes.get(&to)
                    && joined.insert((from, *to))
                {
                    part.edges.push((from, *to, edge));
                }
            }
        }
        part
    }

    /// The label of a node.
    fn label(&self, workspace: &Workspace, id: TaskId) -> String {
        if self.wholes.contains(&id) { workspace.whole_label(id) } else { workspace.tasks[id].label.to_string() }
    }
}

/// Graphviz DOT; an arrow leads from a task to what it needs, dashed where only the interface is needed.
pub fn dot(workspace: &Workspace, graph: &TaskGraph, tasks: &[TaskId]) -> String {
    let part = Part::of(workspace, graph, tasks);
    let name = |id: TaskId| {
        let label = part.label(workspace, id);
        format!("\"{}\"", label.replace('\\', "\\\\").replace('"', "\\\""))
    };
    let mut text = String::from("digraph tasks {\n  rankdir=LR;\n  node [shape=box];\n");
    for id in &part.tasks {
        text.push_str(&format!("  {};\n", name(*id)));
    }
    for (from, to, edge) in &part.edges {
        let style = if edge.interface_only { " [style=dashed]" } else { "" };
        text.push_str(&format!("  {} -> {}{style};\n", name(*from), name(*to)));
    }
    text.push_str("}\n");
    text
}

/// Mermaid flowchart; an arrow leads from a task to what it needs, dotted where only the interface is needed.
pub fn mermaid(workspace: &Workspace, graph: &TaskGraph, tasks: &[TaskId]) -> String {
    let part = Part::of(workspace, graph, tasks);
    let number: BTreeMap<TaskId, usize> = part.tasks.iter().enumerate().map(|(number, id)| (*id, number)).collect();
    let mut text = String::from("flowchart LR\n");
    for id in &part.tasks {
        let label = part.label(workspace, *id);
        text.push_str(&format!("  t{}[\"{}\"]\n", number[id], label.replace('#', "#35;").replace('"', "#quot;")));
    }
    for (from, to, edge) in &part.edges {
        let arrow = if edge.interface_only { "-.->" } else { "-->" };
        text.push_str(&format!("  t{} {arrow} t{}\n", number[from], number[to]));
    }
    text
}

/// JSON: `nodes` with `label`, `kind`, `package` and `tags`; `edges` with `from`, `to`, `interface` and `for`: `outputs`, `tool`,
/// `root` or `service`.
pub fn json(workspace: &Workspace, graph: &TaskGraph, tasks: &[TaskId]) -> String {
    let part = Part::of(workspace, graph, tasks);
    let label = |id: TaskId| part.label(workspace, id);
    let nodes: Vec<Value> = part
        .tasks
        .iter()
        .map(|id| {
            let task = &workspace.tasks[*id];
            let package = format!("//{}", task.label.package.as_str());
            json!({ "label": label(*id), "kind": task.kind.word(), "package": package, "tags": &*task.tags })
        })
        .collect();
    let edges: Vec<Value> = part
        .edges
        .iter()
        .map(|(from, to, edge)| {
            let purpose = edge.purpose.word();
            json!({ "from": label(*from), "to": label(*to), "interface": edge.interface_only, "for": purpose })
        })
        .collect();
    let mut text = String::new();
    writeln!(text, "{:#}", json!({ "nodes": nodes, "edges": edges })).expect("a String takes everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::build::build;
    use crate::workspace::fixture::Fixture;

    fn exported(write: fn(&Workspace, &TaskGraph, &[TaskId]) -> String) -> String {
        let workspace = Fixture::new()
            .package("a")
            .task("x")
            .interface("*.h")
            .tags(&["slow"])
            .package("b \"q\"")
            .task("y")
            .needs(&["//a:x#interface", ":z"])
            .task("z")
            .task("left-out")
            .needs(&[":z"])
            .build();
        let graph = build(&workspace).expect("a graph");
        let tasks: Vec<TaskId> = workspace.tasks.ids().filter(|id| workspace.tasks.name(*id) != "left-out").collect();
        write(&workspace, &graph, &tasks)
    }

    #[test]
    fn dot_names_tasks_and_dashes_interfaces() {
        let expect = "digraph tasks {\n  rankdir=LR;\n  node [shape=box];\n  \"//a:x\";\n  \"//b \\\"q\\\":y\";\n  \"//b \\\"q\\\":z\";\n  \
                      \"//b \\\"q\\\":y\" -> \"//a:x\" [style=dashed];\n  \"//b \\\"q\\\":y\" -> \"//b \\\"q\\\":z\";\n}\n";
        assert_eq!(exported(dot), expect);
    }

    #[test]
    fn mermaid_numbers_tasks_and_dots_interfaces() {
        let expect = "flowchart LR\n  t0[\"//a:x\"]\n  t1[\"//b #quot;q#quot;:y\"]\n  t2[\"//b #quot;q#quot;:z\"]\n  t1 -.-> t0\n  t1 --> t2\n";
        assert_eq!(exported(mermaid), expect);
    }

    #[test]
    fn json_has_nodes_and_edges() {
        let value: Value = serde_json::from_str(&exported(json)).expect("JSON");
        assert_eq!(value["nodes"][0], json!({ "label": "//a:x", "kind": "run", "package": "//a", "tags": ["slow"] }));
        assert_eq!(
            value["edges"][0],
            json!({ "from": "//b \"q\":y", "to": "//a:x", "interface": true, "for": "outputs" })
        );
        assert_eq!(
            (value["nodes"].as_array().map(Vec::len), value["edges"].as_array().map(Vec::len)),
            (Some(3), Some(2))
        );
    }
}
