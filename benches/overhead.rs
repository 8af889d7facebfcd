//! What a sandbox costs: `/bin/true` started bare, at each level, with limits, and with inputs of 1 KiB in each form, milliseconds of wall
//! time.
//!
//! `cargo bench --bench overhead`. All rows take turns within one run, as root also those of an ordinary user, so that whatever else
//! the machine does falls on all of them; figures of different runs do not compare.

#![expect(clippy::print_stdout, reason = "its figures are all it says")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use drystone::base::path::RelPath;
use drystone::process::cancel::Cancel;
use drystone::sandbox::launcher;
use drystone::sandbox::limits::held;
use drystone::sandbox::open::{Sandbox, open};
use drystone::sandbox::probe::probe;
use drystone::sandbox::spec::{Content, Level, Limits, Network, SandboxSpec, System, View};

/// Rounds of the cheapest rows; dearer ones take part in some of them.
const ROUNDS: usize = 101;
const FILES_PER_DIR: usize = 100;
const NOBODY: u32 = 65_534;

/// The argument that has this program measure single rows, as told on its standard input.
const ASIDE: &str = "__rows";

/// How inputs are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// Copied into the memory of the sandbox: what the engine does with small files.
    Memory,
    /// Bound one by one.
    Files,
    /// Directories bound whole: what the engine does with more than 2,000 files, from copies it keeps.
    Dirs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Row {
    /// `posix_spawn` and waiting, no sandbox.
    Bare,
    /// No inputs.
    Level(Level),
    /// The same, held to an amount of memory.
    Limited,
    Inputs(usize, Form),
}

const ROWS: [Row; 14] = [
    Row::Bare,
    Row::Level(Level::None),
    Row::Level(Level::Landlock),
    Row::Level(Level::Namespaces),
    Row::Limited,
    Row::Inputs(10, Form::Memory),
    Row::Inputs(10, Form::Files),
    Row::Inputs(10, Form::Dirs),
    Row::Inputs(1000, Form::Memory),
    Row::Inputs(1000, Form::Files),
    Row::Inputs(1000, Form::Dirs),
    Row::Inputs(20_000, Form::Memory),
    Row::Inputs(20_000, Form::Files),
    Row::Inputs(20_000, Form::Dirs),
];

impl Row {
    /// Every how many rounds it takes part.
    fn every(self) -> usize {
        match self {
            Row::Inputs(10_001.., _) => 10,
            _ => 1,
        }
    }

    fn name(self) -> String {
        match self {
            Row::Bare => "bare".into(),
            Row::Level(level) => level.word().into(),
            Row::Limited => "namespaces, memory limited".into(),
            Row::Inputs(count, form) => {
                let form = match form {
                    Form::Memory => "copies in memory",
                    Form::Files => "files of the host",
                    Form::Dirs => "directories",
                };
                format!("namespaces, {count} as {form}")
            }
        }
    }
}

fn main() {
    launcher::main_if_asked();
    let mut bench = Bench::new();
    if std::env::args().nth(1).is_some_and(|argument| argument == ASIDE) {
        return bench.serve();
    }
    let mut aside = if rustix::process::geteuid().is_root() { Aside::start() } else { None };
    let rows: Vec<Row> = ROWS.into_iter().filter(|row| bench.can(*row)).collect();
    let mut times: Vec<[Vec<Duration>; 2]> = rows.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    for round in 0..ROUNDS {
        for (row, [ours, theirs]) in rows.iter().zip(&mut times).filter(|(row, _)| round % row.every() == 0) {
            ours.push(bench.time(*row));
            theirs.extend(aside.as_mut().and_then(|aside| aside.time(*row)));
        }
    }
    let who = if aside.is_some() { ["root", "ordinary user"] } else { ["this user", ""] };
    println!("{:40} {:^35} {:^35}", "", who[0], who[1]);
    let heads = format!("{:>8} {:>8} {:>8} {:>8}", "rounds", "p10", "median", "p90");
    println!("{:40} {heads} {}", "/bin/true", if aside.is_some() { &heads } else { "" });
    for (row, times) in rows.iter().zip(times) {
        let figures = times.map(|mut times| {
            times.sort();
            let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
            if times.is_empty() {
                return String::new();
            }
            format!("{:>8} {:>8.2} {:>8.2} {:>8.2}", times.len(), at(10), at(50), at(90))
        });
        println!("{:40} {} {}", row.name(), figures[0], figures[1]);
    }
}

/// Files to show, and the sandboxes.
struct Bench {
    host: tempfile::TempDir,
    sandboxes: Vec<Box<dyn Sandbox>>,
}

impl Bench {
    fn new() -> Self {
        let host = tempfile::tempdir().expect("a temporary directory");
        let most = ROWS.iter().map(|row| if let Row::Inputs(count, _) = row { *count } else { 0 }).max().unwrap_or(0);
        for path in paths(most) {
            let at = host.path().join(path);
            fs::create_dir_all(at.parent().expect("in a directory")).expect("a directory");
            fs::write(at, vec![b'x'; 1024]).expect("a file");
        }
        let probe = probe();
        let given = probe.verdicts().iter().filter(|(_, verdict)| verdict.is_ok());
        Self { host, sandboxes: given.map(|(level, _)| open(*level).expect("the level exists")).collect() }
    }

    fn sandbox(&self, level: Level) -> Option<&dyn Sandbox> {
        self.sandboxes.iter().find(|sandbox| sandbox.level() == level).map(AsRef::as_ref)
    }

    fn can(&self, row: Row) -> bool {
        match row {
            Row::Bare => true,
            Row::Level(level) => self.sandbox(level).is_some(),
            Row::Limited => self.can(Row::Level(Level::Namespaces)) && held(Level::Namespaces).memory.is_ok(),
            Row::Inputs(..) => self.can(Row::Level(Level::Namespaces)),
        }
    }

    /// Reading the inputs counts: a view of bytes cannot be had without.
    fn time(&mut self, row: Row) -> Duration {
        let limits = match row {
            Row::Limited => Limits { memory_bytes: Some(1 << 30), ..Limits::default() },
            _ => Limits::default(),
        };
        match row {
            Row::Bare => {
                let began = Instant::now();
                let status = Command::new("/bin/true").env_clear().stdin(Stdio::null()).status();
                assert!(status.expect("it starts").success());
                began.elapsed()
            }
            Row::Level(level) => self.run(level, limits, BTreeMap::new),
            Row::Limited => self.run(Level::Namespaces, limits, BTreeMap::new),
            Row::Inputs(count, form) => self.run(Level::Namespaces, limits, || view(self.host.path(), count, form)),
        }
    }

    fn run(&self, level: Level, limits: Limits, view: impl Fn() -> BTreeMap<RelPath, View>) -> Duration {
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
            stage: stage.path().to_owned(),
            observe: false,
            limits,
            surroundings: None,
        };
        let sandbox = self.sandbox(level).expect("it was asked for before");
        let finished = sandbox.run(&spec, &Cancel::new().expect("an event"), &mut |_, _| {});
        drop(finished.expect("it runs"));
        began.elapsed()
    }

    /// Answers numbers of rows with nanoseconds; with nothing, where it cannot.
    fn serve(&mut self) {
        for line in std::io::stdin().lines() {
            let row = ROWS[line.expect("a line").parse::<usize>().expect("a number")];
            let time = if self.can(row) { self.time(row).as_nanos().to_string() } else { String::new() };
            println!("{time}");
        }
    }
}

fn paths(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("src/d{}/f{n}", n / FILES_PER_DIR))
}

fn view(host: &Path, count: usize, form: Form) -> BTreeMap<RelPath, View> {
    let rel = |path: &str| RelPath::parse(path).expect("a good path");
    let file = |path: String, content: Content| (rel(&path), View::File { content, executable: false });
    match form {
        Form::Memory => {
            let bytes = |path: &str| Content::Bytes(fs::read(host.join(path)).expect("a file").into());
            paths(count).map(|path| file(path.clone(), bytes(&path))).collect()
        }
        Form::Files => paths(count).map(|path| file(path.clone(), Content::Host(host.join(path)))).collect(),
        Form::Dirs => {
            let dirs = (0..count.div_ceil(FILES_PER_DIR)).map(|n| format!("src/d{n}"));
            dirs.map(|dir| (rel(&dir), View::Dir { host: host.join(dir) })).collect()
        }
    }
}

/// This program once more, as an ordinary user.
struct Aside {
    child: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    _place: tempfile::TempDir,
}

impl Aside {
    /// `None` where this process may not become somebody else.
    fn start() -> Option<Self> {
        let place = tempfile::tempdir().expect("a temporary directory");
        let open_to_all = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("a mode");
        open_to_all(place.path());
        let program = place.path().join("overhead");
        fs::copy("/proc/self/exe", &program).expect("it copies");
        open_to_all(&program);
        let mut command = Command::new(program);
        command.arg(ASIDE).uid(NOBODY).gid(NOBODY).current_dir("/").env("TMPDIR", place.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let ask = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Some(Self { child, ask, answers, _place: place })
    }

    fn time(&mut self, row: Row) -> Option<Duration> {
        let number = ROWS.iter().position(|listed| *listed == row).expect("it is listed");
        let mut answer = String::new();
        writeln!(self.ask.as_ref().expect("it is open until the end"), "{number}").expect("it listens");
        self.answers.read_line(&mut answer).expect("it answers");
        answer.trim().parse().ok().map(Duration::from_nanos)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        drop(self.ask.take());
        drop(self.child.wait());
    }
}
