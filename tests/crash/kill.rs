//! `kill -9` at any moment: after each change of the disk in turn, and at random times. After each, the tree has old outputs or
//! new ones, the store is sound, and the next run makes what a cold build makes.
//!
//! `DRYSTONE_SEED=N` replays a seed, `DRYSTONE_KILLS=N` makes the part at random times longer.

use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::random::{number, seed};
use crate::trial::{Scene, Trial};
use crate::world::{found, neither};

/// Kills in one run of the test, at least.
const KILLS_MIN: u64 = 500;
/// Of these at random times.
const RANDOM_KILLS: u64 = 240;
/// The longest that a run is let go on before it is killed, in microseconds.
const LIFE_US_MAX: usize = 90_000;
/// Points in one sweep; more mean that a sweep does not come to its end.
const POINTS_MAX: u64 = 2000;

/// Kills at each change of the disk in turn, before it and after it by turns; gives the number of kills.
fn sweep(scene: Scene, seed: u64) -> u64 {
    let mut trial = Trial::new(seed);
    trial.world.write(&trial.workspace);
    if scene != Scene::Cold {
        trial.run("the first run");
    }
    let mut is_done = [false, false];
    for point in 1.. {
        assert!(point < POINTS_MAX, "{scene:?} has no end");
        let half = usize::from((point + seed).is_multiple_of(2));
        let what = ["kill-before", "kill-after"][half];
        let args = trial.set_up(scene);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (struck, output) = trial.strike(&args, &format!("{what}:{point}"));
        let what = trial.what(scene, &format!("{what}:{point}"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), struck.then_some(9), "{what}{told}");
        assert!(struck || output.status.success(), "{what}{told}");
        is_done[half] = !struck;
        trial.kills += u64::from(struck);
        if scene == Scene::Repair {
            // Half mended is not sound yet; asked again, it is.
            trial.workspace.run(&["store", "verify", "--repair"]);
        }
        trial.check(&what);
        // Threads make one run a little longer than the next.
        if is_done == [true, true] {
            trial.end(&what);
            return trial.kills;
        }
    }
    unreachable!("the loop ends by itself")
}

/// Kills at random times, several times before a run is let through.
fn at_random_times(seed: u64, kills: u64) -> u64 {
    let mut trial = Trial::new(seed);
    while trial.kills < kills {
        let whole = trial.random.below(2) == 0;
        trial.world.change(&mut trial.random, whole);
        trial.world.write(&trial.workspace);
        for _ in 0..1 + trial.random.below(3) {
            let life = Duration::from_micros(trial.random.below(LIFE_US_MAX) as u64);
            trial.kill_after(&["run", "//..."], life);
            let new = trial.world.outputs();
            if let Some(wrong) = neither(&found(&trial.workspace).0, &trial.old, &new) {
                panic!("seed {seed}, killed after {life:?}: {wrong}");
            }
        }
        let what = format!("seed {seed}, killed at random");
        trial.check(&what);
    }
    trial.end(&format!("seed {seed}, killed at random"));
    trial.kills
}

#[test]
fn whenever_it_is_killed_the_tree_is_whole_and_the_store_is_sound() {
    if !crate::has_faults() {
        return;
    }
    let first = seed();
    eprintln!("seed {first}");
    let random_kills = number("DRYSTONE_KILLS", RANDOM_KILLS);
    type Job = Box<dyn FnOnce() -> u64 + Send>;
    let mut jobs: Vec<Job> = Vec::new();
    for part in 0..4 {
        jobs.push(Box::new(move || at_random_times(first + part, random_kills / 4)));
    }
    for scene in [Scene::Import, Scene::Repair, Scene::Collect, Scene::Cold, Scene::Hit, Scene::Gone, Scene::Changed] {
        jobs.push(Box::new(move || sweep(scene, first)));
    }
    let jobs = Mutex::new(jobs);
    let kills = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let job = jobs.lock().expect("no job panics while it is taken").pop();
                    let Some(job) = job else { return };
                    kills.fetch_add(job(), Ordering::SeqCst);
                }
            });
        }
    });
    let kills = kills.into_inner();
    eprintln!("{kills} kills");
    assert!(kills >= KILLS_MIN, "{kills} kills");
}
