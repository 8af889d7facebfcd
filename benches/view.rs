//! What a view costs: `/bin/true` at `namespaces` with 10, 1,000 and 20,000 inputs of 1 KiB in each form, milliseconds.
//!
//! `cargo bench --bench view`; the first decile and the median of a few dozen runs, to be compared within one run only.

#![expect(clippy::print_stdout, reason = "its figures are all it says")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use drystone::base::path::RelPath;
use drystone::process::cancel::Cancel;
use drystone::sandbox::launcher;
use drystone::sandbox::open::{Sandbox, open};
use drystone::sandbox::spec::{Content, Level, Network, SandboxSpec, System, View};

const FILES_PER_DIR: usize = 100;

fn main() {
    launcher::main_if_asked();
    let host = tempfile::tempdir().expect("a temporary directory");
    let sandbox = open(Level::Namespaces).expect("the level exists");
    println!("{:>8} {:>22} {:>10} {:>10}", "inputs", "shown as", "decile", "median");
    for (count, rounds) in [(0, 60), (10, 60), (1000, 30), (20_000, 10)] {
        let paths: Vec<String> = (0..count).map(|n| format!("src/d{}/f{n}", n / FILES_PER_DIR)).collect();
        for path in &paths {
            let at = host.path().join(path);
            fs::create_dir_all(at.parent().expect("in a directory")).expect("a directory");
            fs::write(at, vec![b'x'; 1024]).expect("a file");
        }
        let bound = |path: &str| Content::Host(host.path().join(path));
        let bytes = |path: &str| Content::Bytes(fs::read(host.path().join(path)).expect("a file"));
        let dirs: Vec<String> = (0..count.div_ceil(FILES_PER_DIR)).map(|n| format!("src/d{n}")).collect();
        let dir = |path: &String| (rel(path), View::Dir { host: host.path().join(path) });
        let file = |path: &String, content| (rel(path), View::File { content, executable: false });
        type Form<'a> = (&'a str, Box<dyn Fn() -> BTreeMap<RelPath, View> + 'a>);
        let forms: [Form<'_>; 3] = [
            ("files of the host", Box::new(|| paths.iter().map(|path| file(path, bound(path))).collect())),
            ("copies in memory", Box::new(|| paths.iter().map(|path| file(path, bytes(path))).collect())),
            ("directories", Box::new(|| dirs.iter().map(dir).collect())),
        ];
        let mut times = forms.each_ref().map(|_| Vec::new());
        // In turns, so that whatever else the machine does falls on all of them.
        for _ in 0..rounds {
            for ((_, view), times) in forms.iter().zip(&mut times) {
                times.push(run(sandbox.as_ref(), &view));
            }
        }
        for ((name, _), times) in forms.iter().zip(&mut times) {
            times.sort();
            let ms = |time: Duration| time.as_secs_f64() * 1000.0;
            println!("{count:>8} {name:>22} {:>10.2} {:>10.2}", ms(times[rounds / 10]), ms(times[rounds / 2]));
        }
    }
}

fn rel(text: &str) -> RelPath {
    RelPath::parse(text).expect("a good path")
}

/// Reading the inputs counts: a view of bytes cannot be had without.
fn run(sandbox: &dyn Sandbox, view: &dyn Fn() -> BTreeMap<RelPath, View>) -> Duration {
    let stage = tempfile::tempdir().expect("a stage");
    let began = Instant::now();
    let spec = SandboxSpec {
        argv: vec!["/bin/true".into()],
        env: BTreeMap::new(),
        cwd: RelPath::root(),
        view: view(),
        mtimes: BTreeMap::new(),
        system: System::Host,
        mounts: Vec::new(),
        network: Network::Loopback,
        timeout: None,
        stop_signal: rustix::process::Signal::TERM,
        observe: false,
        stage: Path::new(stage.path()).to_owned(),
    };
    let finished = sandbox.run(&spec, &Cancel::new().expect("an event"), &mut |_, _| {});
    drop(finished.expect("it runs"));
    began.elapsed()
}
