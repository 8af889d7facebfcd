//! Whole runs of the scheduler with known durations, simulated: how long they take beside a queue and beside what is possible.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn node(dependencies: &[Ix], duration_ms: u64) -> Node {
    Node { dependencies: dependencies.to_vec(), duration_ms, failed_last: false, weight: Weight::light() }
}

fn step(scheduler: &mut Scheduler, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    scheduler.step(input, &mut effects);
    effects
}

/// When the last task ends, if every task takes as long as expected and whoever starts one is told so at once.
fn makespan(nodes: &[Node], jobs: u32) -> u64 {
    let mut scheduler =
        Scheduler::new(nodes.to_vec(), Capacity { jobs, memory: 0, pools: BTreeMap::new() }, OnFailure::Stop);
    let mut running: BinaryHeap<Reverse<(u64, Ix)>> = BinaryHeap::new();
    let (mut now, mut todo) = (0, vec![Input::Begin]);
    loop {
        while let Some(input) = todo.pop() {
            for effect in step(&mut scheduler, input) {
                match effect {
                    Effect::Look(task) => todo.push(Input::Miss(task)),
                    Effect::Start { task, .. } => running.push(Reverse((now + nodes[task].duration_ms, task))),
                    Effect::Drop { .. } | Effect::End => {}
                }
            }
        }
        let Some(Reverse((ended, task))) = running.pop() else { return now };
        now = ended;
        todo.push(Input::Done(task, Outcome::Ran));
    }
}

/// The same with a queue: tasks start in the order in which they became ready.
fn makespan_of_a_queue(nodes: &[Node], jobs: u32) -> u64 {
    let mut left: Vec<usize> = nodes.iter().map(|node| node.dependencies.len()).collect();
    let mut dependants = vec![Vec::new(); nodes.len()];
    for (task, node) in nodes.iter().enumerate() {
        node.dependencies.iter().for_each(|needed| dependants[*needed].push(task));
    }
    let mut queue: VecDeque<Ix> = (0..nodes.len()).filter(|task| left[*task] == 0).collect();
    let mut running: BinaryHeap<Reverse<(u64, Ix)>> = BinaryHeap::new();
    let mut now = 0;
    loop {
        while running.len() < jobs as usize
            && let Some(task) = queue.pop_front()
        {
            running.push(Reverse((now + nodes[task].duration_ms, task)));
        }
        let Some(Reverse((ended, task))) = running.pop() else { return now };
        now = ended;
        for &dependant in &dependants[task] {
            left[dependant] -= 1;
            if left[dependant] == 0 {
                queue.push_back(dependant);
            }
        }
    }
}

/// No schedule is shorter: the longest path, and the work divided by the slots.
fn lower_bound(nodes: &[Node], jobs: u32) -> u64 {
    let mut ends: Vec<u64> = Vec::new();
    for node in nodes {
        let ready = node.dependencies.iter().map(|needed| ends[*needed]).max().unwrap_or(0);
        ends.push(ready + node.duration_ms);
    }
    let total: u64 = nodes.iter().map(|node| node.duration_ms).sum();
    ends.into_iter().max().unwrap_or(0).max(total.div_ceil(u64::from(jobs)))
}

/// At least 15 % shorter than with a queue, at most 5 % above what is possible.
fn is_short(nodes: &[Node], jobs: u32) -> Result<(), String> {
    let (ours, queue, bound) = (makespan(nodes, jobs), makespan_of_a_queue(nodes, jobs), lower_bound(nodes, jobs));
    let told = format!("{ours} ms with {jobs} slots, {queue} with a queue, at least {bound}");
    assert!(bound <= ours && bound <= queue, "BUG: the bound is none: {told}");
    if 100 * ours <= 85 * queue && 100 * ours <= 105 * bound { Ok(()) } else { Err(told) }
}

const SLOTS: [u32; 3] = [2, 4, 8];

#[test]
fn what_everything_waits_for_is_not_left_for_last() {
    let short = |jobs: u32| vec![node(&[], 100); 200 * jobs as usize];
    // As long as all the short ones on the other slots.
    let long_ms = |jobs: u32| 20_000 * u64::from(jobs) / u64::from(jobs - 1);
    let chain = |mut nodes: Vec<Node>, links: u64, whole_ms: u64| {
        for link in 0..links {
            let before: Vec<Ix> = if link == 0 { Vec::new() } else { vec![nodes.len() - 1] };
            nodes.push(node(&before, whole_ms / links));
        }
        nodes
    };
    for jobs in SLOTS {
        let one_long_task = chain(short(jobs), 1, long_ms(jobs));
        let one_long_chain = chain(short(jobs), 100, long_ms(jobs));
        // A short task that a long one waits for, among many that nothing waits for.
        let mut late_gate = short(jobs);
        let gate = late_gate.len();
        late_gate.push(node(&[], 100));
        late_gate.push(node(&[gate], long_ms(jobs)));
        let cases = [("a task", one_long_task), ("a chain", one_long_chain), ("a gate", late_gate)];
        for (says, nodes) in cases {
            is_short(&nodes, jobs).unwrap_or_else(|told| panic!("{says}: {told}"));
        }
    }
}

/// Very many tasks, few of them long (Pareto, from 0.1 to 4 s), each needs up to two near ones; last a chain of uneven
/// links that takes as long as all else on the other slots.
fn skewed(seed: u64, jobs: u32) -> Vec<Node> {
    let mut state = seed;
    let mut dice = |sides: u64| {
        // The constants of Knuth's MMIX.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    let mut nodes: Vec<Node> = Vec::new();
    for task in 0..100 * jobs as usize {
        let mut needs: Vec<Ix> = Vec::new();
        for _ in 0..dice(4).saturating_sub(1).min(task as u64) {
            let needed = task - 1 - usize::try_from(dice(task.min(400) as u64)).expect("a small number");
            if !needs.contains(&needed) {
                needs.push(needed);
            }
        }
        nodes.push(node(&needs, (100_000 / (1 + dice(1_000))).min(4_000)));
    }
    let mut left = nodes.iter().map(|node| node.duration_ms).sum::<u64>() / u64::from(jobs - 1);
    let most = left / 15 + 2;
    let mut before = Vec::new();
    while left > 0 {
        let duration_ms = (1 + dice(most)).min(left);
        nodes.push(node(&before, duration_ms));
        before = vec![nodes.len() - 1];
        left -= duration_ms;
    }
    nodes
}

proptest! {
    #[test]
    fn a_skewed_graph_takes_little_longer_than_it_must(seed: u64, jobs in proptest::sample::select(SLOTS.to_vec())) {
        if let Err(told) = is_short(&skewed(seed, jobs), jobs) {
            return Err(TestCaseError::fail(told));
        }
    }
}
