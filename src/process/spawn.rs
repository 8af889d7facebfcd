//! Starts a plain child outside any sandbox (git, a credential helper) and captures what it says. No caching, no retries.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use crate::base::time::human_duration;

/// What a finished child left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Captured {
    /// Exit code; a signal counts as 128 and its number, as shells have it.
    pub exit: i32,
    /// Standard output, whole.
    pub stdout: Vec<u8>,
    /// Standard error, whole.
    pub stderr: Vec<u8>,
}

/// Why there is nothing captured. A child that ran and failed is not an error.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No such program.
    #[error("cannot start `{program}`: not found on PATH")]
    NotFound {
        /// As given.
        program: String,
    },
    /// The system would not start it, or not let it be watched.
    #[error("cannot run `{program}`: {cause}")]
    System {
        /// As given.
        program: String,
        /// What the system said.
        cause: io::Error,
    },
    /// It was killed because its time was up.
    #[error("`{program}` did not finish within {}", human_duration(*limit))]
    TimedOut {
        /// As given.
        program: String,
        /// The time it had.
        limit: Duration,
    },
}

/// Runs `argv` in `cwd` to its end, with nothing on its standard input and `env` added to this process's environment.
///
/// Ends when the child does, even if something it started still holds the pipes. After `limit` it is killed.
pub fn run_captured(argv: &[&str], cwd: &Path, env: &[(&str, &str)], limit: Duration) -> Result<Captured, SpawnError> {
    run_captured_with(argv, cwd, env, limit, &[])
}

/// Most bytes that a child is given on its standard input: a pipe takes them whether anybody reads or not.
pub const INPUT_BYTES_MAX: usize = 4096;

/// The same with `input`, of [`INPUT_BYTES_MAX`] bytes at most, on its standard input.
pub fn run_captured_with(
    argv: &[&str],
    cwd: &Path,
    env: &[(&str, &str)],
    limit: Duration,
    input: &[u8],
) -> Result<Captured, SpawnError> {
    assert!(input.len() <= INPUT_BYTES_MAX, "BUG: {} bytes of input, {INPUT_BYTES_MAX} at most", input.len());
    let program = argv.first().copied().unwrap_or_default();
    let system = |cause: io::Error| SpawnError::System { program: program.to_owned(), cause };
    let mut child = Command::new(program)
        .args(argv.iter().skip(1))
        .current_dir(cwd)
        .envs(env.iter().copied())
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| match cause.kind() {
            // A missing `cwd` says the same; only the program's absence has a way out worth naming.
            io::ErrorKind::NotFound if cwd.is_dir() => SpawnError::NotFound { program: program.to_owned() },
            _ => system(cause),
        })?;
    if let Some(mut pipe) = child.stdin.take() {
        // A child that does not read has its reasons, which it tells.
        drop(pipe.write_all(input));
    }
    let mut capture = Capture::default();
    let ended = capture.follow(&mut child, Instant::now().checked_add(limit));
    if !matches!(ended, Ok(true)) {
        // It may have ended meanwhile; waiting below is what counts.
        drop(child.kill());
    }
    let status = child.wait().map_err(system)?;
    match ended {
        Ok(true) => Ok(Captured { exit: code(status), stdout: capture.stdout, stderr: capture.stderr }),
        Ok(false) => Err(SpawnError::TimedOut { program: program.to_owned(), limit }),
        Err(cause) => Err(system(cause)),
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[derive(Default)]
struct Capture {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Capture {
    /// Reads both pipes until the child has ended (true) or the deadline has passed (false).
    fn follow(&mut self, child: &mut Child, deadline: Option<Instant>) -> io::Result<bool> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child has a positive pid_t");
        let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let mut pipes = [
            child.stdout.take().map(OwnedFd::from).map(io::PipeReader::from),
            child.stderr.take().map(OwnedFd::from).map(io::PipeReader::from),
        ];
        for pipe in pipes.iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
            fds.extend(pipes.iter().flatten().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let over = !fds[0].revents().is_empty();
            for (pipe, kept) in pipes.iter_mut().zip([&mut self.stdout, &mut self.stderr]) {
                if let Some(file) = pipe
                    && read_available(file, kept)?
                {
                    *pipe = None;
                }
            }
            if over {
                return Ok(true);
            }
        }
    }
}

/// Reads what is there now; true at the end.
fn read_available(from: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    match from.read_to_end(into) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<Captured, SpawnError> {
        run_captured(&["/bin/sh", "-c", script], Path::new("/"), &[("WALL", "dry")], limit)
    }

    #[test]
    fn exit_and_both_streams_come_back() {
        let minute = Duration::from_secs(60);
        let done = sh("pwd; echo $WALL; echo no >&2; exit 3", minute).expect("it runs");
        assert_eq!(done, Captured { exit: 3, stdout: b"/\ndry\n".to_vec(), stderr: b"no\n".to_vec() });
        assert_eq!(sh("kill -9 $$", minute).expect("it runs").exit, 137);
        assert_eq!(sh("head -c 3000000 /dev/zero", minute).expect("it runs").stdout.len(), 3_000_000);
    }

    #[test]
    fn a_child_gets_its_input_and_may_leave_it() {
        let minute = Duration::from_secs(60);
        let give = |script: &str, input: &[u8]| {
            run_captured_with(&["/bin/sh", "-c", script], Path::new("/"), &[], minute, input)
        };
        assert_eq!(give("cat", b"line\n").expect("it runs").stdout, b"line\n");
        assert_eq!(give("cat", b"").expect("it runs").stdout, b"");
        assert_eq!(give("exit 4", &[b'x'; INPUT_BYTES_MAX]).expect("it runs").exit, 4);
    }

    #[test]
    fn a_grandchild_that_holds_the_pipes_does_not_keep_us() {
        let started = Instant::now();
        let done = sh("sleep 30 & echo out", Duration::from_secs(20)).expect("it runs");
        assert_eq!(done.stdout, b"out\n");
        assert!(started.elapsed() < Duration::from_secs(15), "waited for the grandchild");
    }

    #[test]
    fn a_child_that_takes_too_long_is_killed_and_named() {
        let error = sh("exec sleep 60", Duration::from_millis(50)).expect_err("its time is up");
        assert_eq!(error.to_string(), "`/bin/sh` did not finish within 50 ms");
        let error = run_captured(&["no-such-program"], Path::new("/"), &[], Duration::from_secs(1));
        assert_eq!(error.expect_err("nothing there").to_string(), "cannot start `no-such-program`: not found on PATH");
    }
}
