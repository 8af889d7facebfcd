//! What the scheduler costs a task: large graphs from the first step to the last, every task a miss that runs.

use std::collections::BTreeMap;

use criterion::{BatchSize, Criterion, Throughput};
use drystone::engine::event::Outcome;
use drystone::engine::scheduler::{Capacity, Effect, Input, Node, OnFailure, Scheduler, Weight};

const TASKS: usize = 100_000;
const JOBS: u32 = 8;

/// Each task needs up to three among the earlier ones.
fn nodes(needs: impl Fn(usize) -> Vec<usize>) -> Vec<Node> {
    let node = |task: usize| Node {
        dependencies: needs(task),
        duration_ms: task as u64 * 7 % 1009,
        failed_last: false,
        weight: Weight::light(),
    };
    (0..TASKS).map(node).collect()
}

fn run(mut scheduler: Scheduler) -> usize {
    let (mut effects, mut todo, mut steps) = (Vec::new(), vec![Input::Begin], 0);
    while let Some(input) = todo.pop() {
        scheduler.step(input, &mut effects);
        steps += 1;
        for effect in effects.drain(..) {
            match effect {
                Effect::Look(task) => todo.push(Input::Miss(task)),
                Effect::Start { task, .. } => todo.push(Input::Done(task, Outcome::Ran)),
                Effect::Drop { .. } | Effect::End => {}
            }
        }
    }
    steps
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("schedule");
    group.throughput(Throughput::Elements(TASKS as u64)).sample_size(20);
    let wide = nodes(|task| [task / 2, task / 3, task / 5].into_iter().filter(|needed| *needed < task).collect());
    let loose = nodes(|_| Vec::new());
    let capacity = || Capacity { jobs: JOBS, memory: 0, pools: BTreeMap::new() };
    for (says, nodes) in [("a graph, logarithmically deep", &wide), ("no edges at all", &loose)] {
        group.bench_function(says, |bencher| {
            let fresh = || Scheduler::new(nodes.clone(), capacity(), OnFailure::Stop);
            bencher.iter_batched(fresh, run, BatchSize::LargeInput);
        });
    }
    group.finish();
    criterion.final_summary();
}
