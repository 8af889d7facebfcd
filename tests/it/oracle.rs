//! Random builds against a model, and against clean sequential runs: the same bytes always, and nothing run needlessly.
//!
//! A task concatenates its sources and the outputs of what it needs, keeping only what stands before `#` in each line: edits
//! behind it must stop there. Beside it goes a twin whose runs load all anew: they must agree on what runs. Seeds are printed; `DRYSTONE_SEED=N` replays one, `DRYSTONE_ROUNDS=N` makes a run longer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::support::TestWorkspace;
use crate::support::random::{Random, number, seed};

#[derive(Clone)]
struct Task {
    sources: BTreeSet<usize>,
    needs: BTreeSet<usize>,
    salt: usize,
}

/// The whole world: what is on disk and in the manifest. The oracle works on this alone.
#[derive(Clone)]
struct World {
    files: BTreeMap<usize, String>,
    tasks: Vec<Task>,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let files = (0..6).map(|file| (file, format!("file {file}\n"))).collect();
        let tasks = (0..2 + random.below(7))
            .map(|task| Task {
                sources: (0..6).filter(|_| random.below(3) == 0).collect(),
                needs: (0..task).filter(|_| random.below(3) == 0).collect(),
                salt: 0,
            })
            .collect();
        Self { files, tasks }
    }

    fn write(&self, workspace: &TestWorkspace) {
        drop(fs::remove_dir_all(workspace.root().join("src")));
        for (file, text) in &self.files {
            workspace.write(&format!("src/f{file}"), text);
        }
        let mut manifest = String::from("[workspace]\nname = \"oracle\"\n");
        for (number, task) in self.tasks.iter().enumerate() {
            let quoted =
                |texts: Vec<String>| texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
            let inputs = quoted(task.sources.iter().map(|file| format!("src/f{file}")).collect());
            let needs = quoted(task.needs.iter().map(|need| format!(":t{need}")).collect());
            let parts: Vec<String> = task
                .sources
                .iter()
                .map(|file| format!("src/f{file}"))
                .chain(task.needs.iter().map(|need| format!("out/t{need}")))
                .collect();
            let parts = parts.join(" ");
            manifest.push_str(&format!(
                "[task.t{number}]\nrun = \"\"\"\nmkdir -p out\necho salt {} > out/t{number}\nfor part in {parts}; do if test -e $part; then sed 's/#.*//' $part >> out/t{number}; fi; done\n\"\"\"\ninputs = [{inputs}]\nneeds = [{needs}]\noutputs = [\"out/t{number}\"]\n",
                task.salt
            ));
        }
        workspace.write("drystone.toml", &manifest);
    }

    /// What a clean sequential run makes of it.
    fn outputs(&self) -> Vec<String> {
        let mut outputs: Vec<String> = Vec::new();
        for task in &self.tasks {
            let mut text = format!("salt {}\n", task.salt);
            let sources = task.sources.iter().filter_map(|file| self.files.get(file));
            let needs = task.needs.iter().map(|need| &outputs[*need]);
            for line in sources.chain(needs).flat_map(|part| part.lines()) {
                text.push_str(line.split('#').next().unwrap_or_default());
                text.push('\n');
            }
            outputs.push(text);
        }
        outputs
    }

    /// Everything a task can observe: equal observations must hit, once seen.
    fn observations(&self) -> Vec<String> {
        let outputs = self.outputs();
        self.tasks
            .iter()
            .map(|task| {
                let sources: Vec<_> = task.sources.iter().map(|file| (file, self.files.get(file))).collect();
                let needs: Vec<_> = task.needs.iter().map(|need| (need, &outputs[*need])).collect();
                format!("{} {sources:?} {needs:?} {:?}", task.salt, task.sources)
            })
            .collect()
    }

    fn change(&mut self, random: &mut Random) {
        let file = random.below(6);
        let task = random.below(self.tasks.len());
        match random.below(9) {
            0 | 1 => drop(self.files.insert(file, format!("text {}\n", random.below(4)))),
            2 | 3 => {
                if let Some(text) = self.files.get_mut(&file) {
                    let kept = text.split('#').next().unwrap_or_default().trim_end().to_owned();
                    *text = format!("{kept}# remark {}\n", random.below(3));
                }
            }
            4 => drop(self.files.remove(&file)),
            5 => {
                // A rename, or a swap where both are there.
                let other = random.below(6);
                let (one, two) = (self.files.remove(&file), self.files.remove(&other));
                self.files.extend(one.map(|text| (other, text)));
                if file != other {
                    self.files.extend(two.map(|text| (file, text)));
                }
            }
            6 => self.tasks[task].salt = random.below(3),
            7 => {
                if !self.tasks[task].sources.remove(&file) {
                    self.tasks[task].sources.insert(file);
                }
            }
            _ => {
                if task > 0 {
                    let need = random.below(task);
                    if !self.tasks[task].needs.remove(&need) {
                        self.tasks[task].needs.insert(need);
                    }
                }
            }
        }
    }
}

fn play(seed: u64) {
    let mut random = Random(seed);
    let mut world = World::new(&mut random);
    let workspace = TestWorkspace::empty();
    let mut twin = TestWorkspace::empty();
    twin.set("DRYSTONE_ANEW", "1");
    let mut earlier: Vec<World> = Vec::new();
    let mut seen: Vec<BTreeSet<String>> = vec![BTreeSet::new(); world.tasks.len()];
    for step in 0..14 {
        world.write(&workspace);
        world.write(&twin);
        let harm = random.below(8);
        for each in [&workspace, &twin] {
            match harm {
                0 | 1 => drop(fs::remove_dir_all(each.root().join("out"))),
                2 => drop(fs::write(each.root().join("out/t0"), "harm\n")),
                3 => drop(fs::remove_file(each.root().join("out/t1"))),
                _ => {}
            }
        }
        // Another request at times, which has to see what this one does.
        if random.below(3) == 0 {
            let word = format!(":t{}", random.below(world.tasks.len()));
            let (events, twins) = (workspace.events(&[&word]), twin.events(&[&word]));
            assert_eq!(events.with("ran"), twins.with("ran"), "seed {seed}, step {step}, {word}");
        }
        let observed = world.observations();
        let (events, twins) = (workspace.events(&["//..."]), twin.events(&["//..."]));
        assert_eq!(events.with("ran"), twins.with("ran"), "seed {seed}, step {step}");
        assert_eq!(events.with("hit"), twins.with("hit"), "seed {seed}, step {step}");
        for (number, text) in world.outputs().into_iter().enumerate() {
            assert_eq!(workspace.read(&format!("out/t{number}")), text, "seed {seed}, step {step}, task t{number}");
        }
        let ran = events.with("ran");
        for (number, observation) in observed.into_iter().enumerate() {
            let is_new = seen[number].insert(observation);
            let label = format!("//:t{number}");
            assert!(is_new || !ran.contains(&label), "seed {seed}, step {step}: {label} ran needlessly");
        }
        if step % 7 == 6 {
            // The model above is ours as well; a clean, sequential run with a store of its own must agree with both.
            let clean = TestWorkspace::empty();
            world.write(&clean);
            clean.events(&["-j1", "//..."]);
            for number in 0..world.tasks.len() {
                let output = format!("out/t{number}");
                assert_eq!(workspace.read(&output), clean.read(&output), "seed {seed}, step {step}, task t{number}");
            }
        }
        earlier.push(world.clone());
        if random.below(4) == 0 {
            world = earlier[random.below(earlier.len())].clone();
        } else {
            for _ in 0..1 + random.below(3) {
                world.change(&mut random);
            }
        }
    }
}

#[test]
fn random_builds_are_sound_and_minimal() {
    if let Ok(seed) = std::env::var("DRYSTONE_SEED") {
        return play(seed.parse().expect("DRYSTONE_SEED is a number"));
    }
    let rounds = number("DRYSTONE_ROUNDS", 25);
    let start = seed();
    for round in 0..rounds {
        // Half of the seeds are the same every time, half are new.
        let seed = if round % 2 == 0 { round } else { start + round };
        eprintln!("seed {seed}");
        play(seed);
    }
}
