//! One running service: its thread, its output, its end. Decides neither when it starts nor when it stops.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::base::ids::TaskId;
use crate::engine::event::{Log, ServiceEvent};
use crate::engine::limits;
use crate::engine::pod::News;
use crate::engine::prepare::{Dependency, Prepared};
use crate::engine::restore::RestoreError;
use crate::engine::secrets::{Redaction, Secrets};
use crate::engine::session::{Session, held};
use crate::engine::view::{self, Purpose, Shown};
use crate::manifest::model::{Ready, ServiceTask, StopSignal};
use crate::process::cancel::Cancel;
use crate::sandbox::checks::Checks;
use crate::sandbox::drain::Drain;
use crate::sandbox::open::{Company, Sandbox};
use crate::sandbox::spec::{Exit, SandboxError, SandboxSpec, Stream};
use crate::store::StoreError;

/// Output kept of a running service, in bytes: its end.
const TAIL_BYTES_MAX: usize = 64 * 1024;

/// Lines of it that are shown when something fails.
const TAIL_LINES_MAX: usize = 40;

/// Longest wait for output that is on its way.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Longest line that is looked at as one, in bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// How a service ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Its command did.
    Exited(Exit),
    /// Its command could not be started.
    NotStarted(String),
    /// Its sandbox could not be built, or is gone.
    Broken(String),
}

impl End {
    /// `exit code 1`.
    pub fn sentence(&self) -> String {
        match self {
            End::Exited(Exit::Code(code)) => format!("exit code {code}"),
            End::Exited(Exit::Signal(signal)) => format!("ended by signal {signal}"),
            End::Exited(Exit::Over(limit)) => limits::service_sentence(*limit),
            End::Exited(Exit::TimedOut | Exit::Cancelled) => "stopped".into(),
            End::NotStarted(cause) | End::Broken(cause) => cause.clone(),
        }
    }
}

/// What cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What it sees could not be made right.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The system gave no descriptor or no thread.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// A service that was started. Stopped and waited for when dropped.
pub struct Instance {
    /// Its label.
    pub label: String,
    /// For asking it things.
    pub checks: Checks,
    shown: Arc<Shown>,
    shared: Arc<Shared>,
    stop: Cancel,
    started: Instant,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What its thread and those who wait for it share.
struct Shared {
    output: Mutex<Output>,
    end: Mutex<Option<End>>,
    /// A latch that can be polled: set once it has ended.
    ended: Cancel,
    /// Likewise: set once it has printed what `ready = { log = … }` waits for.
    said: Cancel,
    drain: Drain,
}

impl Instance {
    /// Starts a service and returns at once; `join` puts it where its users are. What it prints is shown without the secrets.
    ///
    /// The thread keeps nothing of the session, so that a service can outlive a round of `--watch`.
    pub fn start(
        session: &Session<'_>,
        task: TaskId,
        service: &ServiceTask,
        (prepared, dependencies): &(Prepared, Vec<Dependency>),
        join: &dyn Fn(&mut SandboxSpec) -> Company,
        sandbox: Arc<dyn Sandbox>,
        (news, secrets): (&Arc<News>, Secrets),
    ) -> Result<Self, StartError> {
        let stage = session.store.stage()?;
        let mut shown = view::show(session, task, &service.run, prepared, dependencies, Purpose::Run)?;
        shown.spec.stage = stage.path().to_owned();
        shown.spec.stop_signal = signal(service.stop_signal);
        let (checks, checked) = Checks::new()?;
        let drain = Drain::new()?;
        let company = Company { checked: Some(checked), drain: Some(drain.clone()), ..join(&mut shown.spec) };
        let shown = Arc::new(shown);
        let wanted = match &service.ready.value {
            Ready::Log(text) => Some(text.clone().into_bytes()),
            Ready::Port(_) | Ready::Http { .. } | Ready::Run(_) => None,
        };
        let output = Output { secrets, wanted, ..Output::default() };
        let shared = Arc::new(Shared {
            output: output.into(),
            end: Mutex::default(),
            ended: Cancel::new()?,
            said: Cancel::new()?,
            drain,
        });
        let (stop, started, label) = (Cancel::new()?, Instant::now(), session.label(task));
        let thread = {
            let (shared, shown, stop) = (Arc::clone(&shared), Arc::clone(&shown), stop.clone());
            let (news, label) = (Arc::clone(news), label.clone());
            news.tell(ServiceEvent::Started { label: label.clone() });
            std::thread::Builder::new().name("service".into()).spawn(move || {
                let taken = |stream, bytes: &[u8]| shared.take(stream, bytes, &label, &news, &stop);
                let end = run(&*sandbox, &shown.spec, company, &stop, taken);
                drop(stage);
                shared.finish(&label, &news, &stop);
                shared.drain.over();
                *held(&shared.end) = Some(end.clone());
                shared.ended.cancel();
                let (duration, asked) = (started.elapsed(), stop.is_cancelled());
                news.tell(ServiceEvent::Stopped { label, duration, how: end.sentence(), asked });
            })?
        };
        Ok(Self { label, checks, shown, shared, stop, started, thread: Mutex::new(Some(thread)) })
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<End> {
        held(&self.shared.end).clone()
    }

    /// Set once it has ended.
    pub fn ended(&self) -> &Cancel {
        &self.shared.ended
    }

    /// Set once it has printed what makes it ready.
    pub fn said(&self) -> &Cancel {
        &self.shared.said
    }

    /// The first file that it was shown and that is another now.
    pub fn first_change(&self, session: &Session<'_>) -> Option<crate::base::path::RelPath> {
        view::first_change(session, &self.shown)
    }

    /// Takes further secrets out of what it prints, and of what is kept of that: from now on it may come to know them.
    pub fn keep_secret(&self, secrets: &Secrets) {
        held(&self.shared.output).keep_secret(secrets);
    }

    /// The end of what it printed until now, under a line that names it; empty if it printed nothing.
    pub fn tail(&self) -> Log {
        self.shared.drain.wait(DRAIN_MAX);
        let output = held(&self.shared.output);
        let text = output.last_lines();
        if text.is_empty() {
            return Log::new();
        }
        vec![(Stream::Stderr, [format!("service {} printed:\n", self.label).as_bytes(), text].concat())]
    }

    /// Asks it to end; does not wait.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until it has ended.
    pub fn join(&self) {
        // Held all the while: whoever else waits for it must wait as long.
        let mut thread = held(&self.thread);
        // A panic there was reported by the panic hook already.
        drop(thread.take().map(JoinHandle::join));
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop();
        self.join();
    }
}

fn signal(declared: StopSignal) -> Signal {
    match declared {
        StopSignal::Term => Signal::TERM,
        StopSignal::Int => Signal::INT,
        StopSignal::Quit => Signal::QUIT,
        StopSignal::Hup => Signal::HUP,
        StopSignal::Usr1 => Signal::USR1,
        StopSignal::Usr2 => Signal::USR2,
        StopSignal::Winch => Signal::WINCH,
        StopSignal::Kill => Signal::KILL,
    }
}

fn run(
    sandbox: &dyn Sandbox,
    spec: &SandboxSpec,
    company: Company,
    stop: &Cancel,
    mut taken: impl FnMut(Stream, &[u8]),
) -> End {
    match sandbox.run_in(spec, company, stop, &mut taken) {
        Ok(finished) => End::Exited(finished.exit),
        Err(SandboxError::CannotStart { program, cause }) => {
            End::NotStarted(format!("cannot start `{program}`: {cause}"))
        }
        Err(error) => End::Broken(error.to_string()),
    }
}

impl Shared {
    fn take(&self, stream: Stream, bytes: &[u8], label: &str, news: &News, stop: &Cancel) {
        let said = held(&self.output).take(stream, bytes, &mut |line| tell(line, label, news, stop));
        if said {
            self.said.cancel();
        }
    }

    fn finish(&self, label: &str, news: &News, stop: &Cancel) {
        held(&self.output).finish(&mut |line| tell(line, label, news, stop));
    }
}

fn tell(line: &[u8], label: &str, news: &News, stop: &Cancel) {
    if news.is_streaming() {
        news.tell_line(label, String::from_utf8_lossy(line).into_owned(), stop);
    }
}

/// What a service prints: its end, and whether a text was in a line of it.
#[derive(Default)]
struct Output {
    secrets: Secrets,
    redactions: [Redaction; 2],
    lines: [Vec<u8>; 2],
    tail: Vec<u8>,
    wanted: Option<Vec<u8>>,
}

impl Output {
    /// Takes bytes as they come, gives whole lines without their ends; whether the wanted text came for the first time.
    fn take(&mut self, stream: Stream, bytes: &[u8], whole: &mut dyn FnMut(&[u8])) -> bool {
        let side = match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        };
        let clean = match self.secrets.is_empty() {
            true => Cow::Borrowed(bytes),
            false => Cow::Owned(self.redactions[side].take(&self.secrets, bytes)),
        };
        self.take_clean(side, &clean, whole)
    }

    fn take_clean(&mut self, side: usize, clean: &[u8], whole: &mut dyn FnMut(&[u8])) -> bool {
        self.tail.extend_from_slice(clean);
        if self.tail.len() > 2 * TAIL_BYTES_MAX {
            self.tail.drain(..self.tail.len() - TAIL_BYTES_MAX);
        }
        let mut said = false;
        for piece in clean.split_inclusive(|byte| *byte == b'\n') {
            let line = &mut self.lines[side];
            let from = line.len();
            line.extend_from_slice(piece);
            said |= self.wanted.as_ref().is_some_and(|wanted| {
                let from = from.saturating_sub(wanted.len());
                line[from..].windows(wanted.len()).any(|window| window == wanted)
            });
            if piece.ends_with(b"\n") || line.len() > LINE_BYTES_MAX {
                whole(line.strip_suffix(b"\n").unwrap_or(line));
                line.clear();
            }
        }
        if said {
            self.wanted = None;
        }
        said
    }

    fn keep_secret(&mut self, secrets: &Secrets) {
        if secrets.is_empty() {
            return;
        }
        self.secrets = self.secrets.and(secrets);
        self.tail = self.secrets.cleaned(&self.tail);
    }

    /// Takes what was held back in case a secret went on, and gives the last lines, which may have no ends.
    fn finish(&mut self, whole: &mut dyn FnMut(&[u8])) {
        for side in 0..self.lines.len() {
            let rest = self.redactions[side].finish(&self.secrets);
            self.take_clean(side, &rest, whole);
            let last = std::mem::take(&mut self.lines[side]);
            if !last.is_empty() {
                whole(&last);
            }
        }
    }

    fn last_lines(&self) -> &[u8] {
        let ends = self.tail.iter().rev().skip(1).enumerate().filter(|(_, byte)| **byte == b'\n');
        let cut = ends.map(|(back, _)| self.tail.len() - 1 - back).nth(TAIL_LINES_MAX - 1);
        &self.tail[cut.unwrap_or(0)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_one_line_however_it_comes() {
        let said = |pieces: &[&str]| {
            let mut output = Output { wanted: Some(b"is ready".to_vec()), ..Output::default() };
            pieces.iter().map(|piece| output.take(Stream::Stdout, piece.as_bytes(), &mut |_| {})).collect::<Vec<_>>()
        };
        let text = "db is ready now\n";
        for cut in 0..text.len() {
            assert!(said(&[&text[..cut], &text[cut..]]).contains(&true), "cut at {cut}");
        }
        assert_eq!(said(&["it is\n", "ready\n"]), [false, false]);
        assert_eq!(said(&["is ready", "\nis ready\n"]), [true, false]);
    }

    #[test]
    fn secrets_that_are_told_later_are_taken_out_of_what_was_and_what_will_be_printed() {
        let mut output = Output { secrets: Secrets::new(["first".to_owned()]), ..Output::default() };
        output.take(Stream::Stdout, b"first and second, fi", &mut |_| {});
        output.keep_secret(&Secrets::new(["second".to_owned()]));
        output.take(Stream::Stdout, b"rst, seco", &mut |_| {});
        output.take(Stream::Stdout, b"nd\n", &mut |_| {});
        let told = String::from_utf8_lossy(output.last_lines()).into_owned();
        assert_eq!(told, "[secret] and [secret], [secret], [secret]\n");
    }

    #[test]
    fn whole_lines_are_given_and_the_last_ones_kept() {
        let mut output = Output::default();
        let mut lines = Vec::new();
        for piece in ["a\nb", "c\n\nd"] {
            output.take(Stream::Stderr, piece.as_bytes(), &mut |line| lines.push(line.to_vec()));
        }
        assert_eq!(lines, [b"a".to_vec(), b"bc".to_vec(), Vec::new()]);
        assert_eq!(output.last_lines(), b"a\nbc\n\nd");
        let mut ends = Vec::new();
        let mut ended = Output { secrets: Secrets::new(["denied".to_owned()]), ..Output::default() };
        ended.take(Stream::Stdout, b"access den", &mut |line| ends.push(line.to_vec()));
        ended.finish(&mut |line| ends.push(line.to_vec()));
        assert_eq!((ends, ended.last_lines()), (vec![b"access den".to_vec()], &b"access den"[..]));
        for number in 0..TAIL_LINES_MAX {
            output.take(Stream::Stdout, format!("{number}\n").as_bytes(), &mut |_| {});
        }
        assert!(output.last_lines().starts_with(b"d0\n1\n"), "{:?}", String::from_utf8_lossy(output.last_lines()));
    }
}
