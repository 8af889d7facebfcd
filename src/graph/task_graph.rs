//! The graph itself: rows of edges in a few byte strings, read where they are asked for. Resolves nothing and knows no labels.
//!
//! A row is a count, then for each edge its task, a byte for purpose and width, and where the need is written. Tasks that need the
//! same share a row. So a graph is kept as it is in memory, and one that is read again costs nothing until somebody asks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::OnceLock;

use crate::base::compact::{Bytes, Compact, Pool, Reader, Writer, word};
use crate::base::ids::{Id, TaskId};
use crate::base::span::Place;

/// What a task needs another for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// Its outputs appear in the workspace (`needs`).
    Outputs,
    /// Its output tree is a tool (`tools`).
    Tool,
    /// Its output tree is the root file system (`root`).
    Root,
    /// It is up while the task runs (`services`).
    Service,
}

impl Purpose {
    /// The word in exports.
    pub const fn word(self) -> &'static str {
        match self {
            Purpose::Outputs => "outputs",
            Purpose::Tool => "tool",
            Purpose::Root => "root",
            Purpose::Service => "service",
        }
    }
}

crate::base::compact::compact_words!(Purpose { Outputs = 0, Tool = 1, Root = 2, Service = 3 });

/// One task needs another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edge {
    /// What for.
    pub purpose: Purpose,
    /// Whether only the dependency's `interface` outputs are seen.
    pub interface_only: bool,
    /// Where the need is written.
    pub place: Place,
}

crate::base::compact::compact_struct!(Edge { purpose, interface_only, place });

/// Rows one after the other, and the byte at which each begins.
#[derive(Clone, Debug, Default)]
struct Rows {
    starts: Bytes,
    bytes: Bytes,
}

impl Rows {
    fn reader(&self, id: TaskId) -> Option<Reader<'_>> {
        let start = self.starts.word(id.index())?;
        Some(Reader::new(self.bytes.get(start as usize..)?, Pool::none()))
    }
}

/// All tasks, with an edge from each to every task it needs, and no circle.
#[derive(Clone, Debug)]
pub struct TaskGraph {
    outgoing: Rows,
    incoming: Rows,
    /// The tasks in topological order, a word each.
    order: Bytes,
    topological: OnceLock<Vec<TaskId>>,
    rank: OnceLock<Vec<u32>>,
}

impl TaskGraph {
    /// What a task needs, each once for each purpose: `needs`, then `tools`, then `root`, in the order written.
    ///
    /// # Panics
    /// If the bytes are not those of a graph: a bug, since whoever keeps them knows that they are whole.
    pub fn dependencies(&self, id: TaskId) -> impl Iterator<Item = (TaskId, Edge)> + use<'_> {
        let mut reader = self.outgoing.reader(id).expect("BUG: a task without a row in the graph");
        let count = usize::take(&mut reader).expect("BUG: a row of the graph without its count");
        let edge = move |_| Some((TaskId::take(&mut reader)?, Edge::take(&mut reader)?));
        (0..count).map(edge).map(|edge| edge.expect("BUG: a row of the graph ends early"))
    }

    /// The tasks that need a task, each once, the last in the order of the labels first.
    pub fn dependants(&self, id: TaskId) -> impl Iterator<Item = TaskId> + use<'_> {
        let mut reader = self.incoming.reader(id).expect("BUG: a task without a row in the graph");
        let count = usize::take(&mut reader).expect("BUG: a row of the graph without its count");
        let mut above = self.len();
        (0..count).map(move |_| {
            above -= usize::take(&mut reader).expect("BUG: a row of the graph ends early");
            TaskId::from_index(above)
        })
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.order.len() / 4
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// All tasks, dependencies before dependants, otherwise in the order of their labels.
    pub fn topological(&self) -> &[TaskId] {
        self.topological.get_or_init(|| (0..self.len()).filter_map(|at| self.order.word(at)).map(TaskId).collect())
    }

    /// The tasks and everything they need, in topological order. Cost: a byte for each task of the graph, and the edges followed.
    pub fn closure(&self, tasks: &[TaskId]) -> Vec<TaskId> {
        self.reach(tasks, |id, each| self.dependencies(id).for_each(|(to, _)| each(to)))
    }

    /// The tasks and everything that needs them, in topological order.
    pub fn dependants_closure(&self, tasks: &[TaskId]) -> Vec<TaskId> {
        self.reach(tasks, |id, each| self.dependants(id).for_each(each))
    }

    fn reach(&self, tasks: &[TaskId], neighbours: impl Fn(TaskId, &mut dyn FnMut(TaskId))) -> Vec<TaskId> {
        let mut seen = vec![false; self.len()];
        let mut all: Vec<TaskId> = Vec::with_capacity(tasks.len());
        let mut add = |id: TaskId, all: &mut Vec<TaskId>| {
            if !std::mem::replace(&mut seen[id.index()], true) {
                all.push(id);
            }
        };
        tasks.iter().for_each(|id| add(*id, &mut all));
        let mut next = 0;
        while let Some(id) = all.get(next).copied() {
            neighbours(id, &mut |to| add(to, &mut all));
            next += 1;
        }
        if all.len() == self.len() {
            return self.topological().to_vec();
        }
        let rank = self.rank();
        all.sort_unstable_by_key(|id| rank[id.index()]);
        all
    }

    fn rank(&self) -> &[u32] {
        self.rank.get_or_init(|| {
            let mut rank = vec![0; self.len()];
            for (position, id) in (0..).zip(self.topological()) {
                rank[id.index()] = position;
            }
            rank
        })
    }

    /// The graph as bytes that [`TaskGraph::of_bytes`] reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { outgoing, incoming, order, topological: _, rank: _ } = self;
        let parts = [&outgoing.starts, &outgoing.bytes, &incoming.starts, &incoming.bytes, order];
        let mut all = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
        parts.iter().for_each(|part| all.extend_from_slice(&word(part.len())));
        parts.iter().for_each(|part| all.extend_from_slice(part));
        all
    }

    /// A graph of so many tasks from its bytes; `None` if they are none. Cost: nothing for each task.
    pub fn of_bytes(all: &Bytes, count: usize) -> Option<Self> {
        const PARTS: usize = 5;
        let mut at = PARTS * 4;
        let mut parts: Vec<Bytes> = Vec::with_capacity(PARTS);
        for part in 0..PARTS {
            let end = at.checked_add(all.word(part)? as usize)?;
            parts.push(all.part(at..end)?);
            at = end;
        }
        let [outgoing, out_bytes, incoming, in_bytes, order] = <[Bytes; PARTS]>::try_from(parts).ok()?;
        let words = [&outgoing, &incoming, &order];
        (at == all.len() && words.iter().all(|words| words.len() == count * 4)).then(|| Self {
            outgoing: Rows { starts: outgoing, bytes: out_bytes },
            incoming: Rows { starts: incoming, bytes: in_bytes },
            order,
            topological: OnceLock::new(),
            rank: OnceLock::new(),
        })
    }
}

/// Edges as they are found, task by task.
pub(super) struct Rising {
    count: usize,
    starts: Vec<u8>,
    writer: Writer,
    /// Each task with what it needs: needed first, needing second, once each.
    pairs: Vec<(TaskId, TaskId)>,
    /// Where the needed tasks of each row begin among the pairs.
    pair_starts: Vec<usize>,
}

impl Rising {
    /// Expects the edges of so many tasks, in the order of the ids.
    pub(super) fn new(count: usize) -> Self {
        let (starts, pair_starts) = (Vec::with_capacity(count * 4), Vec::with_capacity(count + 1));
        Self { count, starts, writer: Writer::new(), pairs: Vec::new(), pair_starts }
    }

    fn next(&self) -> TaskId {
        TaskId::from_index(self.pair_starts.len())
    }

    /// Adds the edges of the next task.
    pub(super) fn push(&mut self, edges: &[(TaskId, Edge)]) {
        let id = self.next();
        self.starts.extend_from_slice(&word(self.writer.len()));
        self.pair_starts.push(self.pairs.len());
        self.writer.length(edges.len());
        for (position, (to, edge)) in edges.iter().enumerate() {
            to.put(&mut self.writer);
            edge.put(&mut self.writer);
            // Needs come first and name each task once; tools may name them again.
            if edge.purpose == Purpose::Outputs || edges[..position].iter().all(|(earlier, _)| earlier != to) {
                self.pairs.push((*to, id));
            }
        }
    }

    /// Gives the next task the edges that an earlier one has.
    pub(super) fn push_like(&mut self, earlier: TaskId) {
        let (at, id) = (earlier.index(), self.next());
        self.starts.extend_from_within(at * 4..at * 4 + 4);
        let end = self.pair_starts.get(at + 1).copied().unwrap_or(self.pairs.len());
        let start = self.pair_starts[at];
        self.pair_starts.push(self.pairs.len());
        self.pairs.extend_from_within(start..end);
        let own = self.pairs.len() - (end - start);
        self.pairs[own..].iter_mut().for_each(|(_, from)| *from = id);
    }

    /// The graph, or the edges of every task if some of them go in a circle.
    pub(super) fn finish(self) -> Result<TaskGraph, Vec<Vec<(TaskId, Edge)>>> {
        let Self { count, starts, writer, pairs, pair_starts } = self;
        assert_eq!(pair_starts.len(), count, "BUG: a task without its edges");
        let mut writer = writer;
        let needing = Needing::of(count, &pairs);
        let order = needing.topological(&pair_starts, pairs.len());
        let complete = order.len() == count;
        let outgoing = Rows { starts: Bytes::new(starts), bytes: Bytes::new(writer.drain()) };
        let incoming = needing.rows();
        let order = Bytes::new(order.iter().flat_map(|id| id.0.to_le_bytes()).collect());
        let graph = TaskGraph { outgoing, incoming, order, topological: OnceLock::new(), rank: OnceLock::new() };
        if complete {
            return Ok(graph);
        }
        Err((0..count).map(|at| graph.dependencies(TaskId::from_index(at)).collect()).collect())
    }
}

/// Who needs each task, in the order of the ids.
struct Needing {
    starts: Vec<u32>,
    tasks: Vec<TaskId>,
}

impl Needing {
    /// Sorts pairs, whose second half rises, by their first (a counting sort).
    fn of(count: usize, pairs: &[(TaskId, TaskId)]) -> Self {
        let mut starts = vec![0u32; count + 1];
        for (to, _) in pairs {
            starts[to.index() + 1] += 1;
        }
        for at in 0..count {
            starts[at + 1] += starts[at];
        }
        let mut next = starts.clone();
        let mut tasks = vec![TaskId(0); pairs.len()];
        for (to, from) in pairs {
            let place = &mut next[to.index()];
            tasks[*place as usize] = *from;
            *place += 1;
        }
        Self { starts, tasks }
    }

    fn row(&self, id: TaskId) -> &[TaskId] {
        &self.tasks[self.starts[id.index()] as usize..self.starts[id.index() + 1] as usize]
    }

    /// Dependencies before dependants, among equals by id, which is by label (Kahn's algorithm). Tasks in or behind a circle
    /// are left out.
    fn topological(&self, pair_starts: &[usize], pairs: usize) -> Vec<TaskId> {
        let count = pair_starts.len();
        let ends = pair_starts.iter().skip(1).copied().chain([pairs]);
        let mut waiting: Vec<usize> = pair_starts.iter().zip(ends).map(|(start, end)| end - start).collect();
        let ids = (0..count).map(TaskId::from_index);
        let mut ready: BinaryHeap<Reverse<TaskId>> = ids.filter(|id| waiting[id.index()] == 0).map(Reverse).collect();
        let mut order = Vec::with_capacity(count);
        while let Some(Reverse(id)) = ready.pop() {
            order.push(id);
            for from in self.row(id) {
                let left = &mut waiting[from.index()];
                *left -= 1;
                if *left == 0 {
                    ready.push(Reverse(*from));
                }
            }
        }
        order
    }

    fn rows(&self) -> Rows {
        let count = self.starts.len() - 1;
        let mut starts = Vec::with_capacity(count * 4);
        let mut writer = Writer::new();
        for id in (0..count).map(TaskId::from_index) {
            starts.extend_from_slice(&word(writer.len()));
            let row = self.row(id);
            writer.length(row.len());
            let mut above = count;
            for from in row.iter().rev() {
                writer.length(above - from.index());
                above = from.index();
            }
        }
        Rows { starts: Bytes::new(starts), bytes: Bytes::new(writer.drain()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::build::build;
    use crate::workspace::fixture::Fixture;

    fn graph() -> TaskGraph {
        let fixture = Fixture::new()
            .task("a")
            .outputs(&["a"])
            .interface("a")
            .task("b")
            .needs(&[":a", ":c"])
            .tool_trees(&[":a"])
            .task("c")
            .needs(&[":a#interface"])
            .task("d");
        build(&fixture.build()).expect("a graph")
    }

    /// All that a graph tells.
    fn told(graph: &TaskGraph) -> String {
        let ids = || (0..graph.len()).map(TaskId::from_index);
        let edges: Vec<Vec<(TaskId, Edge)>> = ids().map(|id| graph.dependencies(id).collect()).collect();
        let above: Vec<Vec<TaskId>> = ids().map(|id| graph.dependants(id).collect()).collect();
        let reach: Vec<_> = ids().map(|id| (graph.closure(&[id]), graph.dependants_closure(&[id]))).collect();
        format!("{edges:?} {above:?} {reach:?} {:?}", graph.topological())
    }

    #[test]
    fn who_needs_a_task_for_two_purposes_is_told_once() {
        let graph = graph();
        assert_eq!(graph.dependants(TaskId(0)).collect::<Vec<_>>(), [TaskId(2), TaskId(1)]);
        assert_eq!(graph.dependencies(TaskId(1)).count(), 3);
        assert_eq!(graph.topological(), [TaskId(0), TaskId(2), TaskId(1), TaskId(3)]);
    }

    #[test]
    fn tasks_that_share_a_row_have_its_edges() {
        let place = |at: usize| Place::new(crate::base::span::SourceId(0), at..at + 1);
        let edge = |purpose, at| Edge { purpose, interface_only: at == 1, place: place(at) };
        let rows: [Vec<(TaskId, Edge)>; 5] = [
            vec![],
            vec![(TaskId(0), edge(Purpose::Outputs, 1)), (TaskId(4), edge(Purpose::Service, 2))],
            vec![(TaskId(0), edge(Purpose::Outputs, 1)), (TaskId(4), edge(Purpose::Service, 2))],
            vec![(TaskId(0), edge(Purpose::Outputs, 1)), (TaskId(4), edge(Purpose::Service, 2))],
            vec![],
        ];
        let (mut apart, mut shared) = (Rising::new(5), Rising::new(5));
        for (at, row) in rows.iter().enumerate() {
            apart.push(row);
            if at == 2 || at == 3 { shared.push_like(TaskId::from_index(at - 1)) } else { shared.push(row) }
        }
        let finish = |rising: Rising| rising.finish().unwrap_or_else(|_| panic!("no circle"));
        assert_eq!(told(&finish(shared)), told(&finish(apart)));
    }

    #[test]
    fn a_graph_is_read_as_it_was_built() {
        let graph = graph();
        let bytes = graph.to_bytes();
        let read = TaskGraph::of_bytes(&Bytes::new(bytes.clone()), 4).expect("a graph");
        assert_eq!(told(&read), told(&graph));
        assert!(TaskGraph::of_bytes(&Bytes::new(bytes.clone()), 5).is_none());
        assert!(TaskGraph::of_bytes(&Bytes::new(bytes[1..].to_vec()), 4).is_none());
    }
}
