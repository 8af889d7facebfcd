//! The scheduler: a pure state machine. No clock, no threads, no I/O; replayable from its inputs.
//!
//! A task is looked up as soon as everything it needs is done, in any number; only misses are admitted to job slots, longest
//! remaining critical path first. The path of a task is its own expected time plus the longest path among its dependants.
//!
//! What a task that ran leaves ready is looked up before it can be admitted. Meanwhile its slot is not given to a long task with a
//! shorter path: along a chain, that would happen at every link, and each would wait for a task that nothing waits for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound;

use crate::engine::event::Outcome;

/// Position of a task in the plan.
pub type Ix = usize;

/// Expected time of a task that never ran, in milliseconds.
pub const UNKNOWN_MS: u64 = 1_000;

/// A task that takes less is admitted whatever is being looked up: it keeps nobody waiting for much longer than a lookup does.
const LONG_MS: u64 = 20;

/// What a running task holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Weight {
    /// Job slots, at least 1; more than there are counts as all of them.
    pub cpu: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// One unit of this named pool.
    pub pool: Option<String>,
    /// Runs alone.
    pub exclusive: bool,
}

impl Weight {
    /// One slot and nothing else.
    pub fn light() -> Self {
        Self { cpu: 1, memory: 0, pool: None, exclusive: false }
    }
}

/// A task as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Positions of what it needs.
    pub dependencies: Vec<Ix>,
    /// Expected time, in milliseconds.
    pub duration_ms: u64,
    /// Whether it failed when it last ran: among equals such tasks go first.
    pub failed_last: bool,
    /// What it holds while it runs.
    pub weight: Weight,
}

/// What there is to hand out.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// Job slots, at least 1.
    pub jobs: u32,
    /// Bytes of memory; 0 is no limit.
    pub memory: u64,
    /// Units of each pool.
    pub pools: BTreeMap<String, u32>,
}

/// What a failure stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnFailure {
    /// Nothing new is started.
    Stop,
    /// Whatever does not need the failed task still runs.
    KeepGoing,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// The run begins.
    Begin,
    /// A looked-up task has to run.
    Miss(Ix),
    /// A task is done: as a hit, after running, or without having started.
    Done(Ix, Outcome),
    /// The person or the system wants the run to end.
    Interrupt,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Compute the key and look for a result.
    Look(Ix),
    /// Run it in this job slot.
    Start {
        /// The task.
        task: Ix,
        /// From 0; no two running tasks share one.
        slot: usize,
    },
    /// Tell that it will not run.
    Drop {
        /// The task.
        task: Ix,
        /// `Skipped` or `Cancelled`.
        outcome: Outcome,
        /// The failed task that it needs, for skipped ones.
        because_of: Option<Ix>,
    },
    /// Nothing is left to do or to wait for.
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Needs this many more tasks to be done.
    Waiting(usize),
    /// All it needs is done; its lookup is under way.
    Looking,
    /// It missed and waits for room.
    Queued,
    /// It runs in this slot.
    Running(usize),
    /// It is over.
    Over,
}

/// Path length first, then failed last time, then plan order: heaps pop the largest.
type Rank = (u64, bool, Reverse<Ix>);

/// The state of one run.
#[derive(Debug)]
pub struct Scheduler {
    nodes: Vec<Node>,
    dependants: Vec<Vec<Ix>>,
    paths: Vec<u64>,
    states: Vec<State>,
    queue: BinaryHeap<Rank>,
    /// Tasks that are being looked up since one that they need ran.
    awaited: BTreeSet<Rank>,
    capacity: Capacity,
    on_failure: OnFailure,
    free_slots: Vec<usize>,
    cpu_used: u32,
    memory_used: u64,
    pools_used: BTreeMap<String, u32>,
    exclusive: bool,
    running: usize,
    pending: usize,
    stopping: bool,
}

impl Scheduler {
    /// Takes nodes in topological order: each only needs earlier ones.
    ///
    /// # Panics
    /// If a node needs a later one, which the graph rules out.
    pub fn new(nodes: Vec<Node>, capacity: Capacity, on_failure: OnFailure) -> Self {
        let mut dependants = vec![Vec::new(); nodes.len()];
        for (task, node) in nodes.iter().enumerate() {
            for &dependency in &node.dependencies {
                assert!(dependency < task, "BUG: task {task} needs the later task {dependency}");
                dependants[dependency].push(task);
            }
        }
        let mut paths = vec![0; nodes.len()];
        for task in (0..nodes.len()).rev() {
            let behind = dependants[task].iter().map(|&dependant: &Ix| paths[dependant]).max().unwrap_or(0);
            paths[task] = nodes[task].duration_ms + behind;
        }
        let states = nodes.iter().map(|node| State::Waiting(node.dependencies.len())).collect();
        let free_slots = (0..capacity.jobs.max(1) as usize).rev().collect();
        Self {
            pending: nodes.len(),
            nodes,
            dependants,
            paths,
            states,
            queue: BinaryHeap::new(),
            awaited: BTreeSet::new(),
            capacity,
            on_failure,
            free_slots,
            cpu_used: 0,
            memory_used: 0,
            pools_used: BTreeMap::new(),
            exclusive: false,
            running: 0,
            stopping: false,
        }
    }

    /// Takes one input and appends what follows from it. Cost: proportional to what becomes ready, times log of the queue.
    pub fn step(&mut self, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Begin => {
                for task in 0..self.nodes.len() {
                    if self.states[task] == State::Waiting(0) {
                        self.look(task, effects);
                    }
                }
            }
            Input::Miss(task) => {
                assert_eq!(self.states[task], State::Looking, "BUG: task {task} missed without a lookup");
                if self.stopping {
                    self.over(task);
                    effects.push(Effect::Drop { task, outcome: Outcome::Cancelled, because_of: None });
                } else {
                    self.states[task] = State::Queued;
                    self.awaited.remove(&self.rank(task));
                    self.queue.push(self.rank(task));
                }
            }
            Input::Done(task, outcome) => self.done(task, outcome, effects),
            Input::Interrupt => self.stop(effects),
        }
        self.admit(effects);
        if self.pending == 0 && !effects.contains(&Effect::End) {
            effects.push(Effect::End);
        }
    }

    fn look(&mut self, task: Ix, effects: &mut Vec<Effect>) {
        self.states[task] = State::Looking;
        effects.push(Effect::Look(task));
    }

    fn over(&mut self, task: Ix) {
        assert_ne!(self.states[task], State::Over, "BUG: task {task} is over twice");
        self.states[task] = State::Over;
        self.awaited.remove(&self.rank(task));
        self.pending -= 1;
    }

    fn rank(&self, task: Ix) -> Rank {
        (self.paths[task], self.nodes[task].failed_last, Reverse(task))
    }

    fn done(&mut self, task: Ix, outcome: Outcome, effects: &mut Vec<Effect>) {
        if let State::Running(slot) = self.states[task] {
            self.release(task, slot);
        }
        self.over(task);
        match outcome {
            Outcome::Hit | Outcome::Ran => {
                let mut ready = Vec::new();
                for position in 0..self.dependants[task].len() {
                    let dependant = self.dependants[task][position];
                    let State::Waiting(left) = self.states[dependant] else { continue };
                    self.states[dependant] = State::Waiting(left - 1);
                    if left == 1 && !self.stopping {
                        ready.push(self.rank(dependant));
                    }
                }
                // A slot may wait for the best of them.
                ready.sort_unstable_by(|one, other| other.cmp(one));
                ready.iter().for_each(|rank| self.look(rank.2.0, effects));
                if outcome == Outcome::Ran {
                    self.awaited.extend(ready);
                }
            }
            Outcome::Failed => {
                self.skip_dependants(task, effects);
                if self.on_failure == OnFailure::Stop {
                    self.stop(effects);
                }
            }
            Outcome::Skipped | Outcome::Cancelled => self.stop(effects),
        }
    }

    fn skip_dependants(&mut self, failed: Ix, effects: &mut Vec<Effect>) {
        let mut stack = self.dependants[failed].clone();
        while let Some(task) = stack.pop() {
            if matches!(self.states[task], State::Waiting(_)) {
                self.over(task);
                effects.push(Effect::Drop { task, outcome: Outcome::Skipped, because_of: Some(failed) });
                stack.extend(&self.dependants[task]);
            }
        }
    }

    /// Drops everything that has not started. What runs or is looked up comes back as `Done` or `Miss`.
    fn stop(&mut self, effects: &mut Vec<Effect>) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.queue.clear();
        for task in 0..self.nodes.len() {
            if matches!(self.states[task], State::Waiting(_) | State::Queued) {
                self.over(task);
                effects.push(Effect::Drop { task, outcome: Outcome::Cancelled, because_of: None });
            }
        }
    }

    fn cpu(&self, task: Ix) -> u32 {
        self.nodes[task].weight.cpu.clamp(1, self.capacity.jobs.max(1))
    }

    fn fits(&self, task: Ix) -> bool {
        let weight = &self.nodes[task].weight;
        if self.running == 0 {
            // Alone, anything fits: a task that wants more than there is must not wait for ever.
            return true;
        }
        let memory_fits = self.capacity.memory == 0 || self.memory_used + weight.memory <= self.capacity.memory;
        let pool_fits = weight.pool.as_ref().is_none_or(|pool| {
            let all = self.capacity.pools.get(pool).copied().unwrap_or(1);
            self.pools_used.get(pool).copied().unwrap_or(0) < all
        });
        !self.exclusive
            && !weight.exclusive
            && !self.free_slots.is_empty()
            && self.cpu_used + self.cpu(task) <= self.capacity.jobs.max(1)
            && memory_fits
            && pool_fits
    }

    /// Whether better tasks than this long one are about to want all the free slots. A task whose time is unknown is not known to be long.
    fn is_promised(&self, rank: Rank) -> bool {
        let duration_ms = self.nodes[rank.2.0].duration_ms;
        let better = self.awaited.range((Bound::Excluded(rank), Bound::Unbounded));
        let wanted = || better.take(self.free_slots.len()).count();
        duration_ms >= LONG_MS && duration_ms != UNKNOWN_MS && wanted() == self.free_slots.len()
    }

    /// Starts what fits, best rank first; what does not fit is passed over and does not hold up the rest.
    fn admit(&mut self, effects: &mut Vec<Effect>) {
        let mut passed_over = Vec::new();
        while !self.free_slots.is_empty() && !self.exclusive {
            let Some(rank) = self.queue.peek().copied() else { break };
            if self.is_promised(rank) {
                break;
            }
            self.queue.pop();
            let task = rank.2.0;
            if !self.fits(task) {
                passed_over.push(rank);
                if self.nodes[task].weight.exclusive {
                    // Smaller tasks must not keep an exclusive one waiting for ever.
                    break;
                }
                continue;
            }
            let slot = self.free_slots.pop().expect("checked above");
            let weight = &self.nodes[task].weight;
            self.exclusive = weight.exclusive;
            self.memory_used += weight.memory;
            if let Some(pool) = weight.pool.clone() {
                *self.pools_used.entry(pool).or_default() += 1;
            }
            self.cpu_used += self.cpu(task);
            self.running += 1;
            self.states[task] = State::Running(slot);
            effects.push(Effect::Start { task, slot });
        }
        self.queue.extend(passed_over);
    }

    fn release(&mut self, task: Ix, slot: usize) {
        let cpu = self.cpu(task);
        let weight = &self.nodes[task].weight;
        self.memory_used -= weight.memory;
        if let Some(pool) = &weight.pool {
            *self.pools_used.get_mut(pool).expect("taken when it started") -= 1;
        }
        if weight.exclusive {
            self.exclusive = false;
        }
        self.cpu_used -= cpu;
        self.running -= 1;
        self.free_slots.push(slot);
    }
}

#[cfg(test)]
mod makespan;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(dependencies: &[Ix], duration_ms: u64) -> Node {
        Node { dependencies: dependencies.to_vec(), duration_ms, failed_last: false, weight: Weight::light() }
    }

    fn capacity(jobs: u32) -> Capacity {
        Capacity { jobs, memory: 0, pools: BTreeMap::from([("db".into(), 1)]) }
    }

    fn step(scheduler: &mut Scheduler, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        scheduler.step(input, &mut effects);
        effects
    }

    fn started(effects: &[Effect]) -> Vec<Ix> {
        effects.iter().filter_map(|e| if let Effect::Start { task, .. } = e { Some(*task) } else { None }).collect()
    }

    #[test]
    fn the_longest_remaining_path_goes_first() {
        // 0 is short but has a long task behind it; 1 is middling and alone.
        let mut scheduler =
            Scheduler::new(vec![node(&[], 1), node(&[], 50), node(&[0], 100)], capacity(1), OnFailure::Stop);
        assert_eq!(step(&mut scheduler, Input::Begin), [Effect::Look(0), Effect::Look(1)]);
        assert_eq!(started(&step(&mut scheduler, Input::Miss(1))), [1]);
        assert_eq!(started(&step(&mut scheduler, Input::Miss(0))), [0; 0]);
        assert_eq!(started(&step(&mut scheduler, Input::Done(1, Outcome::Ran))), [0]);
    }

    #[test]
    fn a_slot_waits_for_the_lookup_of_what_is_more_urgent_and_no_longer() {
        let check = |other_ms: u64, answer: Input, expect: [&[Ix]; 2]| {
            // A chain of two, and two tasks beside it.
            let nodes = vec![node(&[], 200), node(&[], other_ms), node(&[], other_ms), node(&[0], 2_000)];
            let mut scheduler = Scheduler::new(nodes, capacity(1), OnFailure::Stop);
            step(&mut scheduler, Input::Begin);
            for task in 0..3 {
                step(&mut scheduler, Input::Miss(task));
            }
            let ended = started(&step(&mut scheduler, Input::Done(0, Outcome::Ran)));
            assert_eq!([&ended[..], &started(&step(&mut scheduler, answer))[..]], expect, "{other_ms} {answer:?}");
        };
        check(1_500, Input::Miss(3), [&[], &[3]]);
        check(1_500, Input::Done(3, Outcome::Hit), [&[], &[1]]);
        check(LONG_MS - 1, Input::Miss(3), [&[1], &[]]);
        check(UNKNOWN_MS, Input::Miss(3), [&[1], &[]]);
    }

    #[test]
    fn a_failure_skips_what_needs_it_and_cancels_the_rest_unless_told_to_keep_going() {
        let nodes = || vec![node(&[], 9), node(&[], 1), node(&[0], 1), node(&[1], 1)];
        let run = |on_failure| {
            let mut scheduler = Scheduler::new(nodes(), capacity(1), on_failure);
            step(&mut scheduler, Input::Begin);
            step(&mut scheduler, Input::Miss(0));
            step(&mut scheduler, Input::Miss(1));
            step(&mut scheduler, Input::Done(0, Outcome::Failed))
        };
        let skipped = Effect::Drop { task: 2, outcome: Outcome::Skipped, because_of: Some(0) };
        let cancelled = |task| Effect::Drop { task, outcome: Outcome::Cancelled, because_of: None };
        assert_eq!(run(OnFailure::KeepGoing), [skipped, Effect::Start { task: 1, slot: 0 }]);
        assert_eq!(run(OnFailure::Stop), [skipped, cancelled(1), cancelled(3), Effect::End]);
    }

    #[test]
    fn pools_exclusive_tasks_and_weights_hold() {
        let mut nodes = vec![node(&[], 5), node(&[], 4), node(&[], 3)];
        nodes[0].weight.pool = Some("db".into());
        nodes[1].weight.pool = Some("db".into());
        let mut scheduler = Scheduler::new(nodes, capacity(4), OnFailure::Stop);
        step(&mut scheduler, Input::Begin);
        assert_eq!(started(&step(&mut scheduler, Input::Miss(0))), [0]);
        assert_eq!(started(&step(&mut scheduler, Input::Miss(1))), [0; 0]);
        assert_eq!(started(&step(&mut scheduler, Input::Miss(2))), [2]);
        assert_eq!(started(&step(&mut scheduler, Input::Done(0, Outcome::Ran))), [1]);

        let mut nodes = vec![node(&[], 5), node(&[], 4)];
        nodes[0].weight.exclusive = true;
        nodes[1].weight.cpu = 99;
        let mut scheduler = Scheduler::new(nodes, capacity(4), OnFailure::Stop);
        step(&mut scheduler, Input::Begin);
        assert_eq!(started(&step(&mut scheduler, Input::Miss(0))), [0]);
        assert_eq!(started(&step(&mut scheduler, Input::Miss(1))), [0; 0]);
        assert_eq!(started(&step(&mut scheduler, Input::Done(0, Outcome::Ran))), [1]);
    }

    proptest! {
        #[test]
        fn every_task_ends_once_and_never_before_what_it_needs(
            edges in proptest::collection::vec((0usize..30, 0usize..30), 0..80),
            outcomes in proptest::collection::vec(0u8..10, 30),
            jobs in 1u32..5,
            keep_going: bool,
        ) {
            let mut nodes: Vec<Node> = (0..30).map(|task| node(&[], task as u64 * 7 % 11 * LONG_MS / 4)).collect();
            for (one, other) in edges {
                let (low, high) = (one.min(other), one.max(other));
                if low != high && !nodes[high].dependencies.contains(&low) {
                    nodes[high].dependencies.push(low);
                }
            }
            let on_failure = if keep_going { OnFailure::KeepGoing } else { OnFailure::Stop };
            let mut scheduler = Scheduler::new(nodes.clone(), capacity(jobs), on_failure);
            let mut over: Vec<Option<Outcome>> = vec![None; 30];
            let mut running = 0u32;
            let mut todo = vec![Input::Begin];
            let mut ended = false;
            while let Some(input) = todo.pop() {
                if let Input::Done(task, outcome) = input {
                    prop_assert!(over[task].replace(outcome).is_none());
                    if outcome != Outcome::Hit { running -= 1; }
                }
                for effect in step(&mut scheduler, input) {
                    match effect {
                        Effect::Look(task) => {
                            for &needed in &nodes[task].dependencies {
                                prop_assert!(matches!(over[needed], Some(Outcome::Hit | Outcome::Ran)));
                            }
                            todo.insert(0, if outcomes[task] < 3 { Input::Done(task, Outcome::Hit) } else { Input::Miss(task) });
                        }
                        Effect::Start { task, slot } => {
                            running += 1;
                            prop_assert!(running <= jobs && slot < jobs as usize);
                            let outcome = if outcomes[task] == 9 { Outcome::Failed } else { Outcome::Ran };
                            todo.insert(0, Input::Done(task, outcome));
                        }
                        Effect::Drop { task, outcome, .. } => prop_assert!(over[task].replace(outcome).is_none()),
                        Effect::End => ended = true,
                    }
                }
            }
            prop_assert!(ended && over.iter().all(Option::is_some));
        }
    }
}
