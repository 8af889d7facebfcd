//! A disk that fails: each change of it in turn, in every way. Never a panic and never a wrong output; the error names a place,
//! and the next run is right.

use std::os::unix::process::ExitStatusExt;

use crate::support::random::seed;
use crate::trial::{Scene, Trial};
use crate::world::{found, neither};

/// Points in one sweep; more mean that a sweep does not come to its end.
const POINTS_MAX: u64 = 2000;
/// Ways to fail. With a `+` everything from there on fails: a disk that stays full, a permission that is lost for good.
const WAYS: [&str; 4] = ["enospc", "eio", "eacces", "erofs"];

/// Lets each change of the disk fail in turn, alone or with all later ones, the way by turns; gives how many did.
fn sweep(scene: Scene, seed: u64) -> u64 {
    let mut trial = Trial::new(seed);
    trial.world.write(&trial.workspace);
    if scene != Scene::Cold {
        trial.run("the first run");
    }
    let mut faults = 0;
    let mut quiet = 0;
    for point in 1.. {
        assert!(point < POINTS_MAX, "{scene:?} has no end");
        let way = WAYS[usize::try_from((point + seed) % WAYS.len() as u64).expect("small")];
        let goes_on = (point / WAYS.len() as u64 + seed).is_multiple_of(2);
        let plan = format!("{way}:{point}{}", if goes_on { "+" } else { "" });
        let args = trial.set_up(scene);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (struck, output) = trial.strike(&args, &plan);
        let what = trial.what(scene, &plan);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), None, "{what}{told}");
        let code = output.status.code().unwrap_or(-1);
        assert!(matches!(code, 0 | 1 | 3) && (struck || code == 0), "exit {code}, {what}{told}");
        assert!(!told.contains("bug in drystone") && !told.contains("panicked"), "{what}{told}");
        let (outputs, _) = found(&trial.workspace);
        let new = trial.world.outputs();
        if let Some(wrong) = neither(&outputs, &trial.old, &new) {
            panic!("{what}: {wrong}\n{told}");
        }
        if code == 0 {
            assert!(scene == Scene::Collect || outputs == new, "passed, and {outputs:#?}, {what}{told}");
        } else {
            let said = format!("{told}{}", String::from_utf8_lossy(&output.stdout));
            let places = [trial.workspace.store(), trial.workspace.root()].map(|place| place.display().to_string());
            assert!(places.iter().any(|place| said.contains(place)), "no place is named: {what}{said}");
        }
        trial.check(&what);
        faults += u64::from(struck);
        // Threads make one run a little longer than the next.
        quiet = if struck { 0 } else { quiet + 1 };
        if quiet == 2 {
            trial.end(&what);
            return faults;
        }
    }
    unreachable!("the loop ends by itself")
}

#[test]
fn a_change_of_the_disk_that_fails_is_an_error_with_its_place_and_nothing_is_damaged() {
    if !crate::has_faults() {
        return;
    }
    let seed = seed();
    eprintln!("seed {seed}");
    let faults: u64 = std::thread::scope(|scope| {
        let scenes = [Scene::Changed, Scene::Cold, Scene::Hit, Scene::Gone, Scene::Collect];
        let sweeps = scenes.map(|scene| scope.spawn(move || sweep(scene, seed)));
        sweeps.into_iter().map(|sweep| sweep.join().expect("a sweep that fails says why")).sum()
    });
    eprintln!("{faults} faults");
    assert!(faults > 100, "{faults} faults");
}
