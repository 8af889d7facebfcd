//! The drive loop: one thread owns the scheduler, performs its effects and tells every transition. Decides nothing itself.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::tree::Listing;
use crate::engine::event::{
    Counts, Event, EventSink, Failure, Log, MissReason, Outcome, PartOf, ServiceEvent, TaskFinished,
};
use crate::engine::job::{self, Ended, Fault, Looked, Mishap, Missed, Success};
use crate::engine::parts::{Left, Parts, Settled};
use crate::engine::placing;
use crate::engine::plan::Plan;
use crate::engine::pod::{Registry, Unready};
use crate::engine::prepare::{Dependency, Produced, as_produced};
use crate::engine::scheduler::{Capacity, Effect, Input, Ix, Scheduler};
use crate::engine::service::{AfterUse, Held, Services};
use crate::engine::session::{Reuse, Session};
use crate::engine::tracked;
use crate::graph::build::Purpose;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Whether everything selected is green.
    pub ok: bool,
    /// How many ended how.
    pub counts: Counts,
    /// Whether the run was interrupted.
    pub interrupted: bool,
    /// Whether something other than a command was broken.
    pub infrastructure: bool,
    /// Whether the workspace itself was found wrong on the way: tracked files among the outputs.
    pub refused: bool,
    /// Keys of the tasks that have a result now, by position in the plan.
    pub keys: Vec<Option<Digest>>,
}

/// How often a display may move.
const TICK: Duration = Duration::from_millis(100);

enum Message {
    Looked(Ix, Looked),
    Service(ServiceEvent),
    Served(Result<Held, Unready>),
    Ended(Ix, Ended),
    Panicked(Box<dyn std::any::Any + Send>),
}

/// Runs a plan to its end.
///
/// Lookups go to the CPU pool, commands to a pool with one thread per job slot: no CPU thread ever waits for a child. Where
/// services themselves were asked for, they run until they end or the run is interrupted.
pub fn drive(
    session: &Session<'_>,
    plan: &Plan,
    registry: &Registry,
    after: AfterUse,
    sink: &mut dyn EventSink,
) -> Summary {
    placing::sweep(&session.state_dir, &session.root);
    let jobs = session.options.jobs.max(1);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs as usize)
        .thread_name(|index| format!("job-{index}"))
        .build()
        .expect("a pool of a few threads can be made where the CPU pool could");
    let capacity = Capacity { jobs, memory: memory_bytes(), pools: session.workspace.config.pools.clone() };
    let scheduler = Scheduler::new(plan.nodes.clone(), capacity, session.options.on_failure);
    let produced: Vec<OnceLock<Arc<Produced>>> = plan.tasks.iter().map(|_| OnceLock::new()).collect();
    let wholes: Wholes = plan.tasks.iter().map(|_| OnceLock::new()).collect();
    let (sender, receiver) = channel();
    let tasks = match &plan.rest {
        Some(rest) => rest.compared().lines().len(),
        None => (0..plan.tasks.len()).filter(|ix| !plan.is_service(session, *ix)).count(),
    };
    sink.event(&Event::RunStarted { run: run_id(), tasks, jobs: jobs as usize });
    let (mut counts, mut saved) = (Counts::default(), Duration::ZERO);
    for hit in plan.rest.iter().flat_map(|rest| rest.standing()) {
        counts.hit += 1;
        saved += hit.saved;
        sink.event(&Event::TaskFinished(Box::new(hit)));
    }
    let tell = sender.clone();
    let listener = Box::new(move |event| drop(tell.send(Message::Service(event))));
    let services = &Services::new(session, plan, registry, after, listener);
    let summary = pool.in_place_scope(|job_scope| {
        session.cpu.in_place_scope(|cpu_scope| {
            let spawn_look = |ix: Ix| {
                let sender = sender.clone();
                let known = Known { produced: &produced, wholes: &wholes };
                cpu_scope.spawn(move |_| guarded(&sender, || Message::Looked(ix, look(session, plan, ix, &known))));
            };
            let spawn_run = |ix: Ix, missed: Arc<Missed>| {
                let sender = sender.clone();
                job_scope.spawn(move |_| {
                    let join = || services.join(ix);
                    guarded(&sender, || {
                        Message::Ended(ix, job::run(session, plan.tasks[ix], plan.sources(ix), &missed, &join))
                    });
                });
            };
            let spawn_serve = |wanted: BTreeSet<Ix>| {
                let sender = sender.clone();
                job_scope.spawn(move |_| guarded(&sender, || Message::Served(services.serve(&wanted))));
            };
            Loop {
                session,
                plan,
                sink,
                scheduler,
                services,
                produced: &produced,
                wholes: &wholes,
                parts: Parts::of(session, plan),
                missed: vec![None; plan.tasks.len()],
                durations: vec![None; plan.tasks.len()],
                keys: vec![None; plan.tasks.len()],
                counts,
                infrastructure: false,
                refused: false,
                checked: false,
                interrupted: false,
                started: session.opened,
                saved,
            }
            .run(&receiver, &spawn_look, &spawn_run, &spawn_serve)
        })
    });
    session.save_indexes();
    summary
}

/// A panic in a worker reaches the drive thread as a message: a lost message would hang the run.
fn guarded(sender: &Sender<Message>, work: impl FnOnce() -> Message) {
    let message = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(Message::Panicked);
    // The receiver is gone only when the run is already over.
    drop(sender.send(message));
}

/// By the position of the first part: what all parts of a split task produced together.
type Wholes = Vec<OnceLock<Arc<Produced>>>;

/// What is produced already, by position.
struct Known<'a> {
    produced: &'a [OnceLock<Arc<Produced>>],
    wholes: &'a [OnceLock<Arc<Produced>>],
}

fn look(session: &Session<'_>, plan: &Plan, ix: Ix, known: &Known<'_>) -> Looked {
    let task = plan.tasks[ix];
    plan.rest.iter().for_each(|rest| rest.introduce(session, ix));
    let (dependencies, reuse) = (dependencies(session, plan, ix, known), plan.reuse(session, ix));
    job::look(session, task, plan.sources(ix), dependencies, reuse, plan.history[ix])
}

/// What a task needs; the parts of a split task are one of them.
fn dependencies(session: &Session<'_>, plan: &Plan, ix: Ix, known: &Known<'_>) -> Vec<Dependency> {
    let mut all: Vec<Dependency> = Vec::new();
    let mut seen: BTreeSet<(TaskId, Purpose)> = BTreeSet::new();
    for (needed, edge) in session.graph.dependencies(plan.tasks[ix]) {
        let task = session.workspace.whole(needed);
        if !seen.insert((task, edge.purpose)) {
            continue;
        }
        let place = plan.positions[&task];
        let produced = match (session.workspace.split_of(task), &plan.rest) {
            (Some(_), _) => known.wholes[place].get().cloned(),
            (None, Some(rest)) if place >= rest.count() => rest.produced(session, place),
            (None, _) => known.produced[place].get().cloned(),
        };
        let produced = produced.expect("the scheduler looks only when all it needs is done");
        all.push(Dependency { task, purpose: edge.purpose, interface_only: edge.interface_only, produced });
    }
    all
}

struct Loop<'a, 'w> {
    session: &'a Session<'w>,
    plan: &'a Plan,
    sink: &'a mut dyn EventSink,
    scheduler: Scheduler,
    services: &'a Services<'a, 'w>,
    produced: &'a [OnceLock<Arc<Produced>>],
    wholes: &'a [OnceLock<Arc<Produced>>],
    parts: Parts,
    missed: Vec<Option<Arc<Missed>>>,
    durations: Vec<Option<Duration>>,
    keys: Vec<Option<Digest>>,
    counts: Counts,
    infrastructure: bool,
    refused: bool,
    checked: bool,
    interrupted: bool,
    started: Instant,
    saved: Duration,
}

impl Loop<'_, '_> {
    fn run(
        mut self,
        receiver: &Receiver<Message>,
        spawn_look: &dyn Fn(Ix),
        spawn_run: &dyn Fn(Ix, Arc<Missed>),
        spawn_serve: &dyn Fn(BTreeSet<Ix>),
    ) -> Summary {
        let mut inputs = VecDeque::from([Input::Begin]);
        let mut effects = Vec::new();
        loop {
            let input = match inputs.pop_front() {
                Some(input) => input,
                None => match self.next_message(receiver) {
                    Message::Looked(ix, looked) => self.looked(ix, looked),
                    Message::Ended(ix, ended) => self.ended(ix, ended),
                    Message::Service(event) => {
                        self.sink.event(&self.services.hear(event));
                        continue;
                    }
                    Message::Served(_) => unreachable!("BUG: services are served when all tasks are over"),
                    Message::Panicked(panic) => std::panic::resume_unwind(panic),
                },
            };
            self.step(input, &mut effects);
            if self.session.cancel.is_cancelled() && !self.interrupted {
                self.interrupted = true;
                self.services.stop();
                self.step(Input::Interrupt, &mut effects);
            }
            let mut over = false;
            for effect in effects.drain(..) {
                match effect {
                    Effect::Look(ix) => match self.stands(ix) {
                        Some(hit) => inputs.push_back(self.success(ix, hit)),
                        None => spawn_look(ix),
                    },
                    Effect::Start { task, .. } if self.is_refused() => {
                        self.tell_drop(task, Outcome::Cancelled, None);
                        inputs.push_back(Input::Done(task, Outcome::Cancelled));
                    }
                    Effect::Start { task, slot } => {
                        let missed = self.missed[task].clone().expect("only misses are started");
                        self.tell_start(task, slot, &missed.why);
                        spawn_run(task, missed);
                    }
                    Effect::Drop { task, outcome, because_of } => self.tell_drop(task, outcome, because_of),
                    Effect::End => over = true,
                }
            }
            if over {
                self.serve(receiver, spawn_serve);
                self.services.finish();
                while let Ok(message) = receiver.try_recv() {
                    if let Message::Service(event) = message {
                        self.sink.event(&self.services.hear(event));
                    }
                }
                return self.end();
            }
        }
    }

    /// Steps the scheduler; services learn which tasks are over.
    fn step(&mut self, input: Input, effects: &mut Vec<Effect>) {
        let from = effects.len();
        self.scheduler.step(input, effects);
        if let Input::Done(ix, _) = input {
            self.services.over(ix);
        }
        for effect in &effects[from..] {
            if let Effect::Drop { task, .. } = effect {
                self.services.over(*task);
            }
        }
    }

    /// Has the services up that were asked for themselves, if all they need is there, until they end or the run is interrupted.
    fn serve(&mut self, receiver: &Receiver<Message>, spawn_serve: &dyn Fn(BTreeSet<Ix>)) {
        let asked_for =
            |ix: &Ix| self.plan.selected.contains(&self.plan.tasks[*ix]) && self.plan.is_service(self.session, *ix);
        let wanted: BTreeSet<Ix> = (0..self.plan.tasks.len()).filter(asked_for).collect();
        let Some(first) = wanted.first().copied() else { return };
        if self.counts.failed + self.counts.skipped + self.counts.cancelled > 0 {
            return;
        }
        spawn_serve(wanted);
        let mut up = None;
        loop {
            if self.session.cancel.is_cancelled() && !self.interrupted {
                self.interrupted = true;
                self.services.stop();
            }
            if self.interrupted && up.is_some() {
                return;
            }
            match receiver.recv_timeout(TICK) {
                Ok(Message::Service(event)) => self.sink.event(&self.services.hear(event)),
                Ok(Message::Served(Ok(held))) => up = Some(held),
                Ok(Message::Served(Err(unready))) => return self.not_served(first, unready),
                Ok(Message::Panicked(panic)) => std::panic::resume_unwind(panic),
                Ok(Message::Looked(..) | Message::Ended(..)) => unreachable!("BUG: a task is under way after the last"),
                Err(RecvTimeoutError::Timeout) => self.sink.tick(),
                Err(RecvTimeoutError::Disconnected) => panic!("BUG: this thread holds a sender, yet there is none"),
            }
            if let Some((label, end)) = up.as_ref().filter(|_| !self.interrupted).and_then(Held::first_end) {
                let of_label = |ix: &Ix| self.session.label(self.plan.tasks[*ix]) == label;
                let ix = (0..self.plan.tasks.len()).find(of_label).unwrap_or(first);
                let failure = Failure { cause: end.sentence(), exit: None, diagnostics: Vec::new() };
                return self.not_served(ix, Unready::Failed { log: Log::new(), failure });
            }
        }
    }

    fn not_served(&mut self, ix: Ix, unready: Unready) {
        let (log, failure) = match unready {
            Unready::Cancelled => return,
            Unready::Failed { log, failure } => (log, failure),
            Unready::Broken(problem) => {
                self.infrastructure = true;
                (Log::new(), Failure { cause: problem.message.clone(), exit: None, diagnostics: vec![problem] })
            }
        };
        self.counts.failed += 1;
        let finished = TaskFinished { log, failure: Some(failure), ..self.blank(ix, Outcome::Failed) };
        self.sink.event(&Event::TaskFinished(Box::new(finished)));
    }

    /// Before the first command starts: whether any task of the plan would overwrite files tracked by git.
    fn is_refused(&mut self) -> bool {
        if !self.checked {
            self.checked = true;
            if let Err(problems) = tracked::check(self.session, &self.plan.tasks) {
                self.refused = true;
                for problem in problems {
                    self.sink.event(&Event::Notice(problem));
                }
            }
        }
        self.refused
    }

    /// Waits for a worker. The display is told a few times a second that time passes; nothing else depends on it.
    fn next_message(&mut self, receiver: &Receiver<Message>) -> Message {
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(message) => return message,
                Err(RecvTimeoutError::Timeout) => self.sink.tick(),
                Err(RecvTimeoutError::Disconnected) => panic!("BUG: this thread holds a sender, yet there is none"),
            }
        }
    }

    /// The hit of a task that an earlier run left, if all it needs came out as it was.
    fn stands(&self, ix: Ix) -> Option<Success> {
        let rest = self.plan.rest.as_ref().filter(|_| self.plan.reuse(self.session, ix) == Reuse::Results)?;
        rest.stands(self.session, ix, &|ix| self.produced[ix].get())
    }

    fn looked(&mut self, ix: Ix, looked: Looked) -> Input {
        match looked {
            Looked::Hit(hit) => self.success(ix, *hit),
            Looked::Miss(missed) => {
                self.missed[ix] = Some(Arc::from(missed));
                Input::Miss(ix)
            }
            Looked::Service(service) => {
                let (prepared, dependencies) = *service;
                let earlier = self.produced[ix].set(Arc::new(as_produced(&prepared)));
                assert!(earlier.is_ok(), "BUG: service {ix} looked at twice");
                self.services.prepared(ix, prepared, dependencies);
                Input::Done(ix, Outcome::Hit)
            }
            Looked::Failed(mishap) => self.failure(ix, *mishap),
            Looked::Cancelled => self.cancelled(ix, Log::new()),
        }
    }

    fn ended(&mut self, ix: Ix, ended: Ended) -> Input {
        match ended {
            Ended::Passed(success) => self.success(ix, *success),
            Ended::Failed(mishap) => self.failure(ix, *mishap),
            Ended::Cancelled(log) => self.cancelled(ix, log),
        }
    }

    fn cancelled(&mut self, ix: Ix, log: Log) -> Input {
        self.counts.cancelled += 1;
        let notes = self.settle_without(ix);
        let finished = TaskFinished { log, notes, ..self.blank(ix, Outcome::Cancelled) };
        self.sink.event(&Event::TaskFinished(Box::new(finished)));
        Input::Done(ix, Outcome::Cancelled)
    }

    fn blank(&self, ix: Ix, outcome: Outcome) -> TaskFinished {
        let task = self.plan.tasks[ix];
        let part_of = self.session.workspace.split_of(task);
        let part_of =
            part_of.map(|split| PartOf { label: split.label.to_string(), to_come: self.parts.to_come(split.parts[0]) });
        TaskFinished { part_of, ..TaskFinished::blank(task, self.session.label(task), outcome) }
    }

    /// Takes what a part of a split task left, and settles the whole once it was the last one.
    fn settle(&mut self, ix: Ix, left: Option<Left>) -> Settled {
        let task = self.plan.tasks[ix];
        let Some(mut settled) = self.parts.done(self.session, task, left) else { return Settled::default() };
        if let Some(produced) = settled.produced.take() {
            let place = self.plan.positions[&self.session.workspace.whole(task)];
            let earlier = self.wholes[place].set(produced);
            assert!(earlier.is_ok(), "BUG: the parts of task {place} were put together twice");
        }
        settled
    }

    /// The same for a part that did not run. Gives what there is to say.
    fn settle_without(&mut self, ix: Ix) -> Vec<Diagnostic> {
        let Settled { problems, notes, fault, .. } = self.settle(ix, None);
        self.blame(fault);
        [problems, notes].concat()
    }

    fn blame(&mut self, fault: Option<Fault>) {
        self.infrastructure |= fault == Some(Fault::Machine);
        self.refused |= fault == Some(Fault::Workspace);
    }

    fn success(&mut self, ix: Ix, mut success: Success) -> Input {
        let settled = self.settle(ix, Some(Left::Passed(Arc::clone(&success.produced))));
        success.notes.extend(settled.notes);
        success.materialized |= settled.written;
        if let (Some(first), Some(fault)) = (settled.problems.first(), settled.fault) {
            let failure = Failure { cause: first.message.clone(), exit: None, diagnostics: settled.problems };
            let Success { log, duration, attempts, action, .. } = success;
            let left = Listing::new();
            let mishap = Mishap { failure, log, duration, attempts, action: Some(action), fault, left };
            return self.failed(ix, mishap, success.notes);
        }
        let outcome = if success.source.is_some() { Outcome::Hit } else { Outcome::Ran };
        let why = if outcome == Outcome::Ran { self.why(ix) } else { Vec::new() };
        if outcome == Outcome::Ran {
            self.counts.ran += 1;
            self.durations[ix] = Some(success.duration);
        } else {
            self.counts.hit += 1;
        }
        self.saved += success.saved;
        let finished = TaskFinished {
            source: success.source,
            action: Some(success.action),
            outputs: Some(success.produced.digest),
            isolation: success.isolation,
            duration: success.duration,
            saved: success.saved,
            why,
            log: success.log,
            attempts: success.attempts,
            flaky: success.attempts > 1,
            notes: success.notes,
            materialized: success.materialized,
            ..self.blank(ix, outcome)
        };
        let earlier = self.produced[ix].set(success.produced);
        assert!(earlier.is_ok(), "BUG: task {ix} produced twice");
        self.missed[ix] = None;
        self.keys[ix] = Some(success.action);
        self.sink.event(&Event::TaskFinished(Box::new(finished)));
        Input::Done(ix, outcome)
    }

    fn failure(&mut self, ix: Ix, mut mishap: Mishap) -> Input {
        let settled = self.settle(ix, Some(Left::Failed(std::mem::take(&mut mishap.left))));
        mishap.failure.diagnostics.extend(settled.problems);
        self.blame(settled.fault);
        self.failed(ix, mishap, settled.notes)
    }

    fn failed(&mut self, ix: Ix, mishap: Mishap, notes: Vec<Diagnostic>) -> Input {
        self.counts.failed += 1;
        self.blame(Some(mishap.fault));
        self.durations[ix] = Some(mishap.duration);
        let finished = TaskFinished {
            action: mishap.action,
            duration: mishap.duration,
            why: self.why(ix),
            log: mishap.log,
            failure: Some(mishap.failure),
            attempts: mishap.attempts,
            notes,
            ..self.blank(ix, Outcome::Failed)
        };
        self.sink.event(&Event::TaskFinished(Box::new(finished)));
        Input::Done(ix, Outcome::Failed)
    }

    fn why(&self, ix: Ix) -> Vec<MissReason> {
        self.missed[ix].as_ref().map(|missed| missed.why.clone()).unwrap_or_default()
    }

    fn tell_start(&mut self, ix: Ix, slot: usize, why: &[MissReason]) {
        let task = self.plan.tasks[ix];
        self.sink.event(&Event::TaskStarted {
            task,
            label: self.session.label(task),
            why: why.to_vec(),
            expected: self.plan.expected_ms[ix].map(Duration::from_millis),
            slot,
        });
    }

    fn tell_drop(&mut self, ix: Ix, outcome: Outcome, because_of: Option<Ix>) {
        if self.plan.is_service(self.session, ix) {
            // No task, so nothing became of it; those that use it are dropped as well.
            return;
        }
        match outcome {
            Outcome::Skipped => self.counts.skipped += 1,
            _ => self.counts.cancelled += 1,
        }
        let because_of = because_of.map(|failed| self.session.label(self.plan.tasks[failed]));
        let notes = self.settle_without(ix);
        let finished = TaskFinished { because_of, notes, ..self.blank(ix, outcome) };
        self.sink.event(&Event::TaskFinished(Box::new(finished)));
    }

    fn end(self) -> Summary {
        let counts = self.counts;
        let ok = counts.failed + counts.skipped + counts.cancelled == 0;
        let critical_path = self.critical_path();
        self.sink.event(&Event::RunFinished {
            ok,
            counts,
            duration: self.started.elapsed(),
            saved: self.saved,
            critical_path,
            interrupted: self.interrupted,
        });
        Summary {
            ok,
            counts,
            interrupted: self.interrupted,
            infrastructure: self.infrastructure,
            refused: self.refused,
            keys: self.keys,
        }
    }

    /// The longest chain of executed tasks by time, first to last.
    fn critical_path(&self) -> Vec<(String, Duration)> {
        let mut longest: Vec<(Duration, Option<Ix>)> = vec![(Duration::ZERO, None); self.plan.nodes.len()];
        for ix in 0..self.plan.nodes.len() {
            let before = self.plan.nodes[ix].dependencies.iter().copied().max_by_key(|&needed| longest[needed].0);
            let reached = before.map_or(Duration::ZERO, |needed| longest[needed].0);
            longest[ix] = (reached + self.durations[ix].unwrap_or_default(), before);
        }
        let mut at = (0..longest.len()).max_by_key(|&ix| longest[ix].0);
        let mut path = Vec::new();
        while let Some(ix) = at {
            if let Some(duration) = self.durations[ix] {
                path.push((self.session.label(self.plan.tasks[ix]), duration));
            }
            at = longest[ix].1;
        }
        path.reverse();
        path
    }
}

/// Memory of the machine, in bytes; 0 if unknown.
fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}

/// Unique on this machine: time and process.
pub fn run_id() -> String {
    format!("{:x}-{:x}", crate::engine::execute::now_ms(), std::process::id())
}
