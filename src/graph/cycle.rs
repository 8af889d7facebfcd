//! Finds the shortest circle of needs and tells it edge by edge. Knows no way to resolve it.

use std::collections::{BTreeSet, HashMap, VecDeque};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, EdgeIndex, NodeIndex};
use petgraph::visit::EdgeRef;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::{Id, TaskId};
use crate::graph::build::Edge;
use crate::workspace::model::Workspace;

/// Tasks of one tangle from which a circle is looked for; in larger tangles the one told may not be the shortest.
const STARTS_MAX: usize = 1000;

/// One error for each tangle of tasks that need each other, with the shortest circle in it.
///
/// `edges` are those of every task, in the order of the ids.
pub fn circles(workspace: &Workspace, edges: Vec<Vec<(TaskId, Edge)>>) -> Vec<Diagnostic> {
    let graph = &graph_of(edges);
    let mut circles: Vec<Vec<EdgeIndex>> =
        kosaraju_scc(graph).iter().filter_map(|tangle| shortest(graph, tangle)).collect();
    circles.sort_by_key(|circle| circle.first().map(|edge| source(graph, *edge)));
    circles.iter().map(|circle| told(workspace, graph, circle)).collect()
}

fn graph_of(edges: Vec<Vec<(TaskId, Edge)>>) -> DiGraph<TaskId, Edge> {
    let mut graph = DiGraph::with_capacity(edges.len(), edges.iter().map(Vec::len).sum());
    for at in 0..edges.len() {
        graph.add_node(TaskId::from_index(at));
    }
    for (at, edges) in edges.into_iter().enumerate() {
        // petgraph lists the edge added last first.
        for (to, edge) in edges.into_iter().rev() {
            graph.add_edge(NodeIndex::new(at), NodeIndex::new(to.index()), edge);
        }
    }
    graph
}

fn source(graph: &DiGraph<TaskId, Edge>, edge: EdgeIndex) -> TaskId {
    let (from, _) = graph.edge_endpoints(edge).expect("an edge of this graph");
    graph[from]
}

/// The shortest circle within a strongly connected set of tasks, from its first label on; `None` if there is none.
fn shortest(graph: &DiGraph<TaskId, Edge>, tangle: &[NodeIndex]) -> Option<Vec<EdgeIndex>> {
    let inside: BTreeSet<NodeIndex> = tangle.iter().copied().collect();
    let mut best: Option<Vec<EdgeIndex>> = None;
    for start in inside.iter().take(STARTS_MAX) {
        let limit = best.as_ref().map_or(usize::MAX, Vec::len);
        if let Some(circle) = circle_through(graph, &inside, *start, limit) {
            best = Some(circle);
        }
    }
    best.map(|circle| {
        // The same circle is found from each of its tasks, but the first start is the first label in it.
        let first = circle.iter().enumerate().min_by_key(|(_, edge)| source(graph, **edge)).map_or(0, |(at, _)| at);
        circle.iter().cycle().skip(first).take(circle.len()).copied().collect()
    })
}

/// The shortest circle through `start` with fewer than `limit` edges (breadth first).
fn circle_through(
    graph: &DiGraph<TaskId, Edge>,
    inside: &BTreeSet<NodeIndex>,
    start: NodeIndex,
    limit: usize,
) -> Option<Vec<EdgeIndex>> {
    let mut came_by: HashMap<NodeIndex, EdgeIndex> = HashMap::new();
    let mut next = VecDeque::from([(start, 1)]);
    while let Some((node, length)) = next.pop_front() {
        if length >= limit {
            return None;
        }
        for edge in graph.edges(node) {
            let to = edge.target();
            if to == start {
                let mut circle = vec![edge.id()];
                let mut here = node;
                while here != start {
                    let by = came_by[&here];
                    circle.push(by);
                    here = graph.edge_endpoints(by).expect("an edge of this graph").0;
                }
                circle.reverse();
                return Some(circle);
            }
            if inside.contains(&to) && !came_by.contains_key(&to) {
                came_by.insert(to, edge.id());
                next.push_back((to, length + 1));
            }
        }
    }
    None
}

fn told(workspace: &Workspace, graph: &DiGraph<TaskId, Edge>, circle: &[EdgeIndex]) -> Diagnostic {
    let label = |node: NodeIndex| workspace.tasks[graph[node]].label.to_string();
    let ends: Vec<(NodeIndex, NodeIndex)> = circle.iter().filter_map(|edge| graph.edge_endpoints(*edge)).collect();
    let mut labels: Vec<String> = ends.iter().map(|(from, _)| label(*from)).collect();
    labels.extend(ends.first().map(|(from, _)| label(*from)));
    let problem = Diagnostic::error(format!("tasks need each other in a circle: {}", labels.join(" → ")));
    let marked = circle.iter().zip(&ends).fold(problem, |problem, (edge, (from, to))| {
        problem.at(&graph[*edge].place, format!("`{}` needs `{}`", label(*from), label(*to)))
    });
    marked.help("remove one of these needs, or split a task in two")
}

#[cfg(test)]
mod tests {
    use crate::graph::build::build;
    use crate::workspace::fixture::Fixture;

    fn check(fixture: Fixture, expect: &[&str]) {
        let problems = build(&fixture.build()).expect_err("a circle");
        let messages: Vec<&str> = problems.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(messages, expect);
        for one in &problems {
            assert_eq!(one.marks.len(), one.message.matches('→').count(), "one mark for each edge: {}", one.message);
        }
    }

    #[test]
    fn a_task_that_needs_itself_is_a_circle() {
        check(Fixture::new().task("x").needs(&[":x"]), &["tasks need each other in a circle: //:x → //:x"]);
    }

    #[test]
    fn the_shortest_circle_of_a_tangle_is_told_from_its_first_label() {
        let fixture = Fixture::new()
            .task("a")
            .needs(&[":b"])
            .task("b")
            .needs(&[":c"])
            .task("c")
            .needs(&[":a", ":d"])
            .task("d")
            .needs(&[":c"])
            .task("outside")
            .needs(&[":a"]);
        check(fixture, &["tasks need each other in a circle: //:c → //:d → //:c"]);
    }

    #[test]
    fn each_tangle_has_its_own_error() {
        let fixture = Fixture::new()
            .package("p")
            .depends(&["q"])
            .task("build")
            .needs(&["^build"])
            .package("q")
            .depends(&["p"])
            .task("build")
            .needs(&["^build"])
            .package("")
            .task("x")
            .needs(&[":y"])
            .task("y")
            .needs(&[":x"]);
        check(
            fixture,
            &[
                "tasks need each other in a circle: //:x → //:y → //:x",
                "tasks need each other in a circle: //p:build → //q:build → //p:build",
            ],
        );
    }

    #[test]
    fn a_long_circle_does_not_exhaust_the_stack() {
        let count = 3000;
        let mut fixture = Fixture::new();
        for number in 0..count {
            fixture = fixture.task(&format!("t{number:05}")).needs(&[&format!(":t{:05}", (number + 1) % count)]);
        }
        let problems = build(&fixture.build()).expect_err("a circle");
        assert_eq!((problems.len(), problems[0].marks.len()), (1, count));
    }
}
