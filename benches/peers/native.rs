//! What the comparison with peers needs in native code: the task that all of them run, a stopwatch, and the least that any engine
//! could do. Python starts too slowly for the first, is too large for the second, and too slow for the third.
//!
//! It knows nothing of Drystone. `run.py` builds it, and copies it as `chore`: under that name it is the task.
//!
//! - `chore [-C DIR] [--made ROOT] [--keep] build PARTS DEPENDENCY…`, `chore … lint`, `chore … test`: the task. In the directory of a
//!   package it reads `src/`, and the `dist/index` of the dependencies or of itself. Lines that begin with `//` do not matter to
//!   `build`. What is made lies beneath `ROOT`, for engines that keep it apart from the sources.
//!   `--keep` leaves an output alone that is right already, for engines that go by its time. Each run appends a line to `ran.log`,
//!   two directories above the program, where a sandbox does not hide it: it is how the number of runs is known.
//! - `stopwatch SECONDS COMMAND…`: runs it, and prints wall seconds, CPU seconds, peak KiB and exit code as the last line of its
//!   standard error stream. The peak is that of the largest process; a child inherits that of its parent, so the parent is small.
//! - `stat DIR`, `read DIR`: in parallel looks at, or reads and digests with BLAKE3, every file beneath `DIR` outside of `.git`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match (Path::new(&program).file_name().and_then(|name| name.to_str()), &words[..]) {
        (Some("chore"), words) => chore(words),
        (_, ["stopwatch", seconds, command @ ..]) => return stopwatch(seconds, command),
        (_, ["stat", dir]) => sweep(Path::new(dir), |_, _| Ok(())),
        (_, ["read", dir]) => sweep(Path::new(dir), |path, length| {
            let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
            io::Read::read_to_end(&mut File::open(path)?, &mut content)?;
            std::hint::black_box(blake3::hash(&content));
            Ok(())
        }),
        _ => Err(io::Error::other("usage: see the head of benches/peers/native.rs")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The task: about a millisecond with fifty sources.
fn chore(mut words: &[&str]) -> io::Result<()> {
    let mut dir = PathBuf::from(".");
    let mut made = PathBuf::from(".");
    let mut keep = false;
    loop {
        match words {
            ["-C", into, rest @ ..] => (dir, words) = (PathBuf::from(into), rest),
            ["--made", root, rest @ ..] => (made, words) = (PathBuf::from(root), rest),
            ["--keep", rest @ ..] => (keep, words) = (true, rest),
            _ => break,
        }
    }
    note(&dir, words);
    let made = made.join(&dir);
    let mut sources = Vec::new();
    files(&dir.join("src"), &mut sources)?;
    sources.sort();
    let mut digest = blake3::Hasher::new();
    match words {
        ["build", parts, dependencies @ ..] => {
            let parts: usize = parts.parse().map_err(io::Error::other)?;
            let mut texts = vec![Vec::new(); parts.max(1)];
            for (number, source) in sources.iter().enumerate() {
                let text = &mut texts[number % parts.max(1)];
                let before = text.len();
                for line in
                    fs::read(source)?.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"//"))
                {
                    text.extend_from_slice(line);
                }
                digest.update(&text[before..]);
            }
            for dependency in dependencies {
                // `xargs` may be a moment early; a declared graph is not, and outputs are compared there.
                digest.update(&fs::read(made.join(dependency).join("dist/index")).unwrap_or_default());
            }
            fs::create_dir_all(made.join("dist"))?;
            for (number, text) in texts.iter().enumerate() {
                leave(&made.join(format!("dist/part-{number}")), text, keep)?;
            }
            leave(&made.join("dist/index"), digest.finalize().to_hex().as_bytes(), keep)
        }
        [kind @ ("lint" | "test")] => {
            for source in &sources {
                digest.update(&fs::read(source)?);
            }
            if *kind == "test" {
                digest.update(&fs::read(made.join("dist/index")).unwrap_or_default());
            }
            fs::create_dir_all(made.join("checked"))?;
            leave(&made.join("checked").join(kind), digest.finalize().to_hex().as_bytes(), keep)
        }
        _ => Err(io::Error::other("build PARTS DEPENDENCY…, lint or test")),
    }
}

fn note(dir: &Path, words: &[&str]) {
    let log = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.parent()?.parent()?.join("ran.log")));
    // Not there inside of a sandbox, and nothing depends on it there.
    if let Some(mut log) = log.and_then(|log| OpenOptions::new().append(true).open(log).ok()) {
        let _ = log.write_all(format!("{} {}\n", words[0], dir.display()).as_bytes());
    }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn leave(path: &Path, content: &[u8], keep: bool) -> io::Result<()> {
    if keep && fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    fs::write(path, content)
}

fn stopwatch(seconds: &str, command: &[&str]) -> ExitCode {
    let Some((program, words)) = command.split_first() else { return ExitCode::FAILURE };
    let limit = Duration::from_secs(seconds.parse().unwrap_or(600));
    let began = Instant::now();
    let child = match Command::new(program).args(words).stdin(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = writeln!(io::stderr(), "cannot start `{program}`: {error}");
            return ExitCode::FAILURE;
        }
    };
    let leader = rustix::process::Pid::from_child(&child);
    let (finished, wait) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if wait.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = rustix::process::kill_process(leader, rustix::process::Signal::KILL);
        }
    });
    let (code, usage) = reap(leader);
    let wall = began.elapsed().as_secs_f64();
    drop(finished);
    let _ = guard.join();
    let time = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu = time(usage.ru_utime) + time(usage.ru_stime);
    let _ = writeln!(io::stderr(), "\n{wall:.6} {cpu:.6} {} {code}", usage.ru_maxrss);
    ExitCode::SUCCESS
}

#[expect(unsafe_code, reason = "only wait4 tells what a child and all it waited for have used")]
fn reap(leader: rustix::process::Pid) -> (i32, libc::rusage) {
    let mut status = 0;
    // SAFETY: a plain record of numbers, for which all zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to locals that outlive the call.
        let ended = unsafe { libc::wait4(leader.as_raw_nonzero().get(), &raw mut status, 0, &raw mut usage) };
        if ended >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break;
        }
    }
    (if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }, usage)
}

/// Hands every file beneath a directory, with its length, to `each`, on all cores; prints how many there were.
fn sweep(dir: &Path, each: impl Fn(&Path, u64) -> io::Result<()> + Sync) -> io::Result<()> {
    let (count, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = std::sync::Mutex::new(None);
    let tally = |length| {
        count.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(length, Ordering::Relaxed);
    };
    let look = |path: &Path, length| each(path, length).map(|()| tally(length));
    rayon::scope(|scope| descend(scope, dir.to_owned(), &look, &failed));
    match failed.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => writeln!(io::stdout(), "{} files, {} bytes", count.into_inner(), bytes.into_inner()),
    }
}

type Failure = std::sync::Mutex<Option<io::Error>>;

fn descend<'s>(
    scope: &rayon::Scope<'s>,
    dir: PathBuf,
    look: &'s (impl Fn(&Path, u64) -> io::Result<()> + Sync),
    failed: &'s Failure,
) {
    let all = || -> io::Result<()> {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                if entry.file_name() != ".git" {
                    let below = entry.path();
                    scope.spawn(move |scope| descend(scope, below, look, failed));
                }
            } else {
                look(&entry.path(), entry.metadata()?.len())?;
            }
        }
        Ok(())
    };
    if let (Err(error), Ok(mut first)) = (all(), failed.lock()) {
        first.get_or_insert(error);
    }
}
