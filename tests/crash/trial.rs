//! A random world in a workspace, brought into a state in which a fault is worth something, and looked at afterwards.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::support::random::Random;
use crate::support::{Running, TestWorkspace};
use crate::world::{Outputs, World, found, neither};

/// What is struck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scene {
    /// A run that makes everything anew over old outputs.
    Changed,
    /// The first run of all, in an empty store.
    Cold,
    /// A run that finds everything and puts it in place over other outputs.
    Hit,
    /// A run that puts back what is gone, by what is kept of the last one.
    Gone,
    /// A collection of everything.
    Collect,
    /// Repairing a store in which something is broken.
    Repair,
    /// Taking in an archive.
    Import,
}

/// A world in a workspace with a store of its own.
pub struct Trial {
    /// Where.
    pub workspace: TestWorkspace,
    /// What.
    pub world: World,
    /// Decides.
    pub random: Random,
    /// What it began with.
    pub seed: u64,
    /// What lies in the tree.
    pub old: Outputs,
    /// How often the program was killed.
    pub kills: u64,
}

impl Trial {
    /// A new world; nothing is written yet.
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let world = World::new(&mut random);
        Self { workspace: TestWorkspace::empty(), world, random, seed, old: Outputs::new(), kills: 0 }
    }

    fn note(&self) -> PathBuf {
        self.workspace.beside("struck")
    }

    /// Runs the program with a fault planned; whether it struck, and how the program ended.
    #[track_caller]
    pub fn strike(&mut self, args: &[&str], plan: &str) -> (bool, Output) {
        let note = self.note();
        drop(std::fs::remove_file(&note));
        let mut command = self.workspace.command(args);
        command.env("DRYSTONE_FAULT", format!("{plan}:{}", note.display()));
        let output = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped())).output();
        (note.exists(), output)
    }

    /// Lets a run live for a while.
    pub fn kill_after(&mut self, args: &[&str], life: Duration) {
        let mut command = self.workspace.command(args);
        let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let (sender, ended) = channel::<()>();
        drop(match ended.recv_timeout(life) {
            Err(RecvTimeoutError::Timeout) => running.kill(),
            _ => unreachable!("the sender is kept"),
        });
        drop(sender);
        let status = running.wait().expect("it ends");
        self.kills += u64::from(status.signal() == Some(9));
    }

    /// What happened, for people.
    pub fn what(&self, scene: Scene, when: &str) -> String {
        let struck = std::fs::read_to_string(self.note()).unwrap_or_default();
        format!("seed {}, {scene:?}, {when}: {struck}", self.seed)
    }

    /// After a kill on the way from the old outputs to those of the world, and then after a run.
    #[track_caller]
    pub fn check(&mut self, what: &str) {
        let new = self.world.outputs();
        if let Some(wrong) = neither(&found(&self.workspace).0, &self.old, &new) {
            panic!("{what}: {wrong}");
        }
        self.verify(what);
        self.run(what);
    }

    /// The store is sound.
    #[track_caller]
    pub fn verify(&self, what: &str) {
        let verified = self.workspace.run(&["store", "verify"]);
        assert_eq!(verified.code, 0, "{what}: {}{}", verified.stdout, verified.stderr);
        assert!(!verified.stderr.contains("damaged"), "{what}: {}", verified.stderr);
    }

    /// A run makes what must be made.
    #[track_caller]
    pub fn run(&mut self, what: &str) {
        let ran = self.workspace.run(&["run", "//..."]);
        assert_eq!(ran.code, 0, "{what}: {}{}", ran.stdout, ran.stderr);
        assert!(!ran.stderr.contains("damaged"), "{what}: {}", ran.stderr);
        let (outputs, temporaries) = found(&self.workspace);
        self.old = self.world.outputs();
        assert_eq!(outputs, self.old, "{what}");
        assert!(temporaries.is_empty(), "{what}: {temporaries:?}");
    }

    /// The model agrees with a cold build in another place, and what was left behind goes with the next collection.
    #[track_caller]
    pub fn end(&mut self, what: &str) {
        let cold = TestWorkspace::empty();
        self.world.write(&cold);
        cold.run(&["run", "-j1", "//..."]).expect(0);
        assert_eq!(found(&cold).0, found(&self.workspace).0, "{what}");
        self.workspace.run(&["store", "gc"]).expect(0);
        let left: Vec<PathBuf> = leftovers(&self.workspace.store());
        assert!(left.is_empty(), "{what}: {left:?}");
        self.verify(what);
    }

    fn remove_outputs(&mut self) {
        for top in ["out", "gen"] {
            drop(std::fs::remove_dir_all(self.workspace.root().join(top)));
        }
        self.old.clear();
    }

    /// Prepares one kill; gives the command.
    pub fn set_up(&mut self, scene: Scene) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match scene {
            Scene::Changed => {
                self.world.change(&mut self.random, true);
                self.world.write(&self.workspace);
            }
            Scene::Cold => {
                drop(std::fs::remove_dir_all(self.workspace.store()));
                self.remove_outputs();
                self.world.write(&self.workspace);
            }
            Scene::Hit => {
                // Results of both worlds are there; the tree has those of the one that is left.
                let before = self.world.clone();
                self.world.change(&mut self.random, true);
                self.world.write(&self.workspace);
                self.run("setting up");
                self.world = before;
                self.world.write(&self.workspace);
                self.run("setting up");
                self.world.change(&mut Random(0), true);
                self.world.write(&self.workspace);
            }
            Scene::Gone => {
                // What the last run kept is settled only once the clock went on.
                (0..2).for_each(|_| self.run("setting up"));
                self.remove_outputs();
            }
            Scene::Collect => return words(&["store", "gc", "--max-size", "0"]),
            Scene::Repair => {
                let blobs = files(&self.workspace.store().join("blobs"));
                if let Some(blob) = blobs.get(self.random.below(blobs.len().max(1))) {
                    std::fs::remove_file(blob).expect("a blob");
                    std::fs::write(blob, "broken").expect("a blob");
                }
                return words(&["store", "verify", "--repair"]);
            }
            Scene::Import => {
                let archive = self.workspace.beside("archive").display().to_string();
                self.workspace.run(&["store", "export", "--to", &archive, "//..."]).expect(0);
                self.workspace.run(&["store", "gc", "--max-size", "0"]).expect(0);
                return words(&["store", "import", &archive]);
            }
        }
        words(&["run", "//..."])
    }
}

/// Every file below a directory.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

/// What no session that ended leaves in a store.
fn leftovers(store: &Path) -> Vec<PathBuf> {
    let mut left: Vec<PathBuf> = files(store)
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(".drystone-")))
        .collect();
    for name in ["tmp", "stage", "trash", "locks/actions", "locks/leases"] {
        let entries = std::fs::read_dir(store.join(name)).into_iter().flatten().flatten();
        left.extend(entries.map(|entry| entry.path()));
    }
    left
}
