//! The tasks of a workspace by id: lowered just now, or read one by one from a compiled workspace when they are asked for.
//! Knows no manifest and no file.

use std::sync::{Arc, OnceLock};

use crate::base::compact::{Bytes, Compact, Pool, Reader, Writer, word};
use crate::base::ids::{Id, IdMap, PackageId, TaskId};
use crate::manifest::model::{Task, TaskKind};
use crate::workspace::model::Package;

/// All tasks, in the order of their labels.
#[derive(Clone, Debug)]
pub struct Tasks {
    held: Held,
    facts: OnceLock<Facts>,
}

#[derive(Clone, Debug)]
enum Held {
    Whole(IdMap<TaskId, Task>),
    Compiled(Arc<Compiled>),
}

/// What is asked of all tasks at once, so that nobody reads them all for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Tasks that fetch.
    pub fetches: Vec<TaskId>,
    /// Services.
    pub services: Vec<TaskId>,
    /// Tasks whose inputs are traced.
    pub traced: Vec<TaskId>,
    /// Tasks and services with secret variables of their own.
    pub secret: Vec<TaskId>,
}

crate::base::compact::compact_struct!(Facts { fetches, services, traced, secret });

impl Facts {
    fn of(tasks: &IdMap<TaskId, Task>) -> Self {
        let mut facts = Self::default();
        for (id, task) in tasks.iter() {
            match &task.kind {
                TaskKind::Fetch(_) => facts.fetches.push(id),
                TaskKind::Service(_) => facts.services.push(id),
                TaskKind::Run(_) => {}
            }
            let Some(run) = task.kind.command() else { continue };
            if matches!(run.inputs, crate::manifest::model::Inputs::Traced) {
                facts.traced.push(id);
            }
            if !run.secret_env.is_empty() {
                facts.secret.push(id);
            }
        }
        facts
    }
}

/// Tasks as bytes, each read at most once.
struct Compiled {
    /// The byte at which each begins, and where the last ends.
    starts: Bytes,
    bytes: Bytes,
    pool: Arc<Pool>,
    /// In blocks, so that a table of very many costs little until it is used.
    blocks: Vec<OnceLock<Box<[OnceLock<Task>]>>>,
    names: Names,
    count: usize,
}

/// Tasks of one block.
const BLOCK_TASKS: usize = 64;

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} compiled tasks", self.count)
    }
}

impl Compiled {
    fn get(&self, id: TaskId) -> &Task {
        let (at, count) = (id.index(), self.count);
        assert!(at < count, "BUG: task {at} of {count}");
        let block = self.blocks[at / BLOCK_TASKS]
            .get_or_init(|| std::iter::repeat_with(OnceLock::new).take(BLOCK_TASKS).collect());
        block[at % BLOCK_TASKS].get_or_init(|| self.read(at).expect("BUG: a compiled task is none"))
    }

    fn read(&self, at: usize) -> Option<Task> {
        let range = self.starts.word(at)? as usize..self.starts.word(at + 1)? as usize;
        let mut reader = Reader::new(self.bytes.get(range)?, &self.pool);
        Task::take(&mut reader).filter(|_| reader.is_at_end())
    }
}

/// Names of tasks, without reading the tasks: those of one package that are called alike follow each other.
struct Names {
    all: Vec<String>,
    /// Where each run begins, rising; the position of its name, and the package.
    runs: Vec<(TaskId, (u32, PackageId))>,
}

impl Names {
    fn run(&self, id: TaskId) -> (&str, PackageId) {
        let run = self.runs.partition_point(|(first, _)| *first <= id).saturating_sub(1);
        let (_, (name, package)) = self.runs[run];
        (&self.all[name as usize], package)
    }

    /// Whether every task has a run and every run a name.
    fn are_complete(&self) -> bool {
        let named = |(_, (name, _)): &(TaskId, (u32, PackageId))| (*name as usize) < self.all.len();
        self.runs.iter().all(named) && self.runs.first().is_none_or(|(first, _)| first.index() == 0)
    }
}

impl Tasks {
    /// None at all.
    pub fn new() -> Self {
        Self::from(IdMap::new())
    }

    /// How many.
    pub fn len(&self) -> usize {
        match &self.held {
            Held::Whole(tasks) => tasks.len(),
            Held::Compiled(tasks) => tasks.count,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids in order.
    pub fn ids(&self) -> impl Iterator<Item = TaskId> + use<> {
        (0..self.len()).map(TaskId::from_index)
    }

    /// The tasks in id order. Cost: all of them are read.
    pub fn values(&self) -> impl Iterator<Item = &Task> {
        self.ids().map(|id| &self[id])
    }

    /// Ids and tasks in id order. Cost: all of them are read.
    pub fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.ids().map(|id| (id, &self[id]))
    }

    /// The name of a task, without reading it.
    pub fn name(&self, id: TaskId) -> &str {
        match &self.held {
            Held::Whole(tasks) => &tasks[id].label.name,
            Held::Compiled(tasks) => tasks.names.run(id).0,
        }
    }

    /// The package of a compiled task, without reading it; `None` where tasks are whole, whose labels tell.
    pub(super) fn package(&self, id: TaskId) -> Option<PackageId> {
        match &self.held {
            Held::Whole(_) => None,
            Held::Compiled(tasks) => Some(tasks.names.run(id).1),
        }
    }

    /// What is asked of all tasks at once.
    pub fn facts(&self) -> &Facts {
        self.facts.get_or_init(|| match &self.held {
            Held::Whole(tasks) => Facts::of(tasks),
            // They are set where compiled tasks are made.
            Held::Compiled(_) => Facts::default(),
        })
    }

    /// Appends one, which belongs behind all others.
    #[cfg(test)]
    pub(super) fn push(&mut self, task: Task) -> TaskId {
        self.facts.take();
        self.whole().push(task)
    }

    /// The table with every task in it, to be changed.
    fn whole(&mut self) -> &mut IdMap<TaskId, Task> {
        if let Held::Compiled(compiled) = &self.held {
            let ids = (0..compiled.count).map(TaskId::from_index);
            self.held = Held::Whole(ids.map(|id| compiled.get(id).clone()).collect());
        }
        match &mut self.held {
            Held::Whole(tasks) => tasks,
            Held::Compiled(_) => unreachable!("it was made whole above"),
        }
    }

    /// Appends the tables to a file of which `writer` keeps what is shared: starts, tasks, and with `put` what is read at once.
    pub(super) fn compile(&self, packages: &IdMap<PackageId, Package>, writer: &mut Writer) -> CompiledTables {
        let outside = writer.drain();
        let mut starts = Vec::with_capacity((self.len() + 1) * 4);
        let mut names: Vec<String> = Vec::new();
        let mut runs: Vec<(TaskId, (u32, PackageId))> = Vec::new();
        let mut known = std::collections::BTreeMap::new();
        let owned = packages.iter().flat_map(|(package, value)| value.tasks.iter().map(move |id| (package, *id)));
        for (package, id) in owned {
            assert_eq!(starts.len(), id.index() * 4, "BUG: tasks are not in the order of their packages");
            let task = &self[id];
            starts.extend_from_slice(&word(writer.len()));
            task.put(writer);
            let name: &str = &task.label.name;
            let next = names.len();
            let position = *known.entry(name).or_insert_with(|| {
                names.push(name.to_owned());
                next as u32
            });
            if runs.last().is_none_or(|(_, last)| *last != (position, package)) {
                runs.push((id, (position, package)));
            }
        }
        assert_eq!(starts.len(), self.len() * 4, "BUG: a task is in no package");
        starts.extend_from_slice(&word(writer.len()));
        let bytes = writer.drain();
        writer.raw(&outside);
        names.put(writer);
        runs.put(writer);
        self.facts().put(writer);
        CompiledTables { starts, bytes }
    }

    /// Tasks that are read when they are asked for. `head` is where [`Tasks::compile`] put what is read at once.
    pub(super) fn compiled(head: &mut Reader<'_>, starts: Bytes, bytes: Bytes, pool: Arc<Pool>) -> Option<Self> {
        let names = Names { all: Vec::take(head)?, runs: Vec::take(head)? };
        let facts = Facts::take(head)?;
        let count = (starts.len() / 4).checked_sub(1)?;
        if !names.are_complete() || (count > 0 && names.runs.is_empty()) {
            return None;
        }
        let blocks = std::iter::repeat_with(OnceLock::new).take(count.div_ceil(BLOCK_TASKS)).collect();
        let held = Held::Compiled(Arc::new(Compiled { starts, bytes, pool, blocks, names, count }));
        Some(Self { held, facts: OnceLock::from(facts) })
    }
}

/// The tables of all tasks.
pub(super) struct CompiledTables {
    /// For [`Tasks::compiled`].
    pub(super) starts: Vec<u8>,
    /// For [`Tasks::compiled`].
    pub(super) bytes: Vec<u8>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl From<IdMap<TaskId, Task>> for Tasks {
    fn from(tasks: IdMap<TaskId, Task>) -> Self {
        Self { held: Held::Whole(tasks), facts: OnceLock::new() }
    }
}

impl std::ops::Index<TaskId> for Tasks {
    type Output = Task;
    fn index(&self, id: TaskId) -> &Task {
        match &self.held {
            Held::Whole(tasks) => &tasks[id],
            Held::Compiled(tasks) => tasks.get(id),
        }
    }
}

impl std::ops::IndexMut<TaskId> for Tasks {
    fn index_mut(&mut self, id: TaskId) -> &mut Task {
        self.facts.take();
        &mut self.whole()[id]
    }
}
