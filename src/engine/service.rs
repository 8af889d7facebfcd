//! The services of one run: started by the first task that needs them, let go after the last. Runs no task.
//!
//! Services hold no job slot. Whoever runs a task joins the pod of its services; the first to come starts it while the others wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::base::diagnostic::Diagnostic;
use crate::base::tree::Listing;
use crate::engine::event::{Event, Log, ServiceEvent};
use crate::engine::execute::Executed;
use crate::engine::instance::{End, Instance, StartError};
use crate::engine::offline;
use crate::engine::plan::Plan;
use crate::engine::pod::{Ground, Labels, Listener, Pod, Registry, Unready};
use crate::engine::prepare::{Dependency, Prepared};
use crate::engine::ready::{self, NotReady};
use crate::engine::recall;
use crate::engine::scheduler::Ix;
use crate::engine::secrets::Secrets;
use crate::engine::session::{Session, held};
use crate::engine::unready;
use crate::manifest::model::{ServiceTask, Task, TaskKind};
use crate::sandbox::open::Company;
use crate::sandbox::spec::{Level, Network, SandboxError, SandboxSpec};

/// What becomes of services that no task of the run needs any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterUse {
    /// They end.
    End,
    /// They stay up for the next round of `--watch`.
    Stay,
}

/// Positions of services that are up together, those they use among them.
type Set = Arc<BTreeSet<Ix>>;

/// The services of one run.
pub struct Services<'a, 'w> {
    session: &'a Session<'w>,
    plan: &'a Plan,
    registry: &'a Registry,
    after: AfterUse,
    actions: Vec<OnceLock<(Prepared, Vec<Dependency>)>>,
    sets: Vec<Option<Set>>,
    /// How many tasks of the run still need a set.
    needed: Mutex<BTreeMap<Set, usize>>,
    /// Pods of an earlier round that were compared with the tree.
    compared: Mutex<BTreeSet<Labels>>,
}

/// A task's hold on its services.
pub struct Held {
    pod: Option<Arc<Pod>>,
}

impl<'a, 'w> Services<'a, 'w> {
    /// The services of a plan; what becomes of them is told to the listener until [`Services::finish`].
    pub fn new(
        session: &'a Session<'w>,
        plan: &'a Plan,
        registry: &'a Registry,
        after: AfterUse,
        listener: Listener,
    ) -> Self {
        registry.news.listen(Some(listener));
        // Behind the tasks that are to be looked at come others of an earlier run, none of which uses services.
        let set = |ix: Ix| if ix < plan.nodes.len() { set_of(session, plan, ix) } else { None };
        let sets: Vec<Option<Set>> = (0..plan.tasks.len()).map(set).collect();
        let mut needed: BTreeMap<Set, usize> = BTreeMap::new();
        for (ix, set) in sets.iter().enumerate() {
            if let Some(set) = set.as_ref().filter(|_| !plan.is_service(session, ix)) {
                *needed.entry(Arc::clone(set)).or_default() += 1;
            }
        }
        let actions = plan.tasks.iter().map(|_| OnceLock::new()).collect();
        let (needed, compared) = (Mutex::new(needed), Mutex::default());
        Self { session, plan, registry, after, actions, sets, needed, compared }
    }

    /// Takes a service whose key is known; nothing is started.
    pub fn prepared(&self, ix: Ix, prepared: Prepared, dependencies: Vec<Dependency>) {
        let earlier = self.actions[ix].set((prepared, dependencies));
        assert!(earlier.is_ok(), "BUG: service {ix} prepared twice");
    }

    /// Has the services of a task up, starting them or waiting for whoever does. Blocks; not for a thread of the CPU pool.
    pub fn join(&self, ix: Ix) -> Result<Held, Unready> {
        match &self.sets[ix] {
            Some(set) => self.up(set).map(|pod| Held { pod: Some(pod) }),
            None => Ok(Held { pod: None }),
        }
    }

    /// Has these services themselves up, with those they use.
    pub fn serve(&self, services: &BTreeSet<Ix>) -> Result<Held, Unready> {
        self.registry.news.stream();
        let mut set = services.clone();
        set.extend(services.iter().filter_map(|ix| self.sets[*ix].as_ref()).flat_map(|set| set.iter().copied()));
        self.up(&Arc::new(set)).map(|pod| Held { pod: Some(pod) })
    }

    /// Takes what became of a service, for the report.
    pub fn hear(&self, event: ServiceEvent) -> Event {
        if matches!(event, ServiceEvent::Output { .. }) {
            self.registry.news.heard();
        }
        Event::Service(event)
    }

    /// A task of the run is over, whatever became of it.
    pub fn over(&self, ix: Ix) {
        let Some(set) = self.sets[ix].as_ref().filter(|_| !self.plan.is_service(self.session, ix)) else { return };
        let mut needed = held(&self.needed);
        let left = needed.get_mut(set).expect("every set of a task was counted");
        *left -= 1;
        if *left == 0 && self.after == AfterUse::End {
            self.registry.retire(&self.labels(set));
        }
    }

    /// Asks all of them to end: the run was interrupted.
    pub fn stop(&self) {
        self.registry.retire_all_but(&|_| false);
    }

    /// The run is over: waits until those that are to end have ended.
    pub fn finish(&self) {
        let known: BTreeSet<Labels> = self.sets.iter().flatten().map(|set| self.labels(set)).collect();
        let cancelled = self.session.cancel.is_cancelled();
        self.registry.retire_all_but(&|labels| self.after == AfterUse::Stay && !cancelled && known.contains(labels));
        self.registry.settle();
        self.registry.news.listen(None);
    }

    fn labels(&self, set: &Set) -> Labels {
        set.iter().map(|ix| self.session.label(self.plan.tasks[*ix])).collect()
    }

    fn action(&self, ix: Ix) -> &(Prepared, Vec<Dependency>) {
        self.actions[ix].get().expect("the scheduler starts only what has all it needs")
    }

    fn service(&self, ix: Ix) -> &ServiceTask {
        match &self.session.workspace.tasks[self.plan.tasks[ix]].kind {
            TaskKind::Service(service) => service,
            _ => unreachable!("BUG: {} is in a set of services", self.session.label(self.plan.tasks[ix])),
        }
    }

    fn up(&self, set: &Set) -> Result<Arc<Pod>, Unready> {
        let labels = self.labels(set);
        loop {
            let (slot, starting) = self.registry.slot(&labels);
            if let Some(starting) = starting {
                // New to this round: there is nothing to compare.
                held(&self.compared).insert(labels.clone());
                let result = self.start(set).map(Arc::new);
                starting.settle(result.clone());
                return result;
            }
            let pod = slot.wait()?;
            if self.serves(&labels, set, &pod) {
                return Ok(pod);
            }
            self.registry.replace(&labels, &slot, &pod);
        }
    }

    /// Whether a pod is what this round would start: alive, and of the same keys and files.
    fn serves(&self, labels: &Labels, set: &Set, pod: &Pod) -> bool {
        let alive = pod.instances.iter().all(|instance| instance.end().is_none());
        // Held all the while: whoever comes meanwhile must not take the pod for compared before it is.
        let mut compared = held(&self.compared);
        if !alive || compared.contains(labels) {
            return alive;
        }
        let keys: BTreeMap<_, _> =
            set.iter().map(|ix| (self.session.label(self.plan.tasks[*ix]), self.action(*ix).0.key)).collect();
        // What they were shown is mounted from the tree: a file that was written anew is another one, even if it says the same.
        let same = keys == pod.keys && pod.instances.iter().all(|one| one.first_change(self.session).is_none());
        if same {
            // Tasks that are new to this round may tell it theirs.
            for instance in &pod.instances {
                let is_of = |ix: &&Ix| self.session.label(self.plan.tasks[**ix]) == instance.label;
                set.iter().filter(is_of).for_each(|ix| instance.keep_secret(&self.secrets_around(*ix)));
            }
            compared.insert(labels.clone());
        }
        same
    }

    /// Starts a set, each service once those it uses are ready.
    fn start(&self, set: &Set) -> Result<Pod, Unready> {
        let keys = set.iter().map(|ix| (self.session.label(self.plan.tasks[*ix]), self.action(*ix).0.key)).collect();
        let first = *set.first().expect("a set of services is not empty");
        let ground = self.ground(first)?;
        let mut pod = Pod { keys, instances: Vec::new(), ground };
        let mut waves: BTreeMap<usize, Vec<Ix>> = BTreeMap::new();
        let mut depths: BTreeMap<Ix, usize> = BTreeMap::new();
        // Positions are in topological order: what a service uses comes before it.
        for ix in set.iter().copied() {
            let used = self.sets[ix].iter().flat_map(|used| used.iter());
            let depth = used.map(|used| depths[used] + 1).max().unwrap_or(0);
            depths.insert(ix, depth);
            waves.entry(depth).or_default().push(ix);
        }
        let mut started = Vec::new();
        for wave in waves.values() {
            let from = pod.instances.len();
            for ix in wave {
                let instance = self.launch(*ix, &pod.ground)?;
                pod.instances.push(instance);
                started.push(*ix);
            }
            for at in from..pod.instances.len() {
                self.await_ready(&started, &pod.instances, at)?;
            }
        }
        Ok(pod)
    }

    fn ground(&self, first: Ix) -> Result<Ground, Unready> {
        let (action, store) = (&self.action(first).0.action, Arc::clone(&self.session.store));
        if action.isolation != Level::Namespaces {
            return Ok(Ground { network: None, directory: None, store });
        }
        let broken = |cause: String| self.broken(first, &cause);
        let directory = store.stage().map_err(|error| broken(error.to_string()))?;
        let network = match action.network {
            Network::Host => None,
            Network::Loopback | Network::Pod => {
                let sandbox = self.session.sandbox(action.isolation);
                sandbox.and_then(|sandbox| sandbox.pod()).map_err(|error: SandboxError| broken(error.to_string()))?
            }
        };
        Ok(Ground { network, directory: Some(directory), store })
    }

    fn broken(&self, ix: Ix, cause: &str) -> Unready {
        unready::broken(self.declared(ix), cause)
    }

    fn declared(&self, ix: Ix) -> &Task {
        &self.session.workspace.tasks[self.plan.tasks[ix]]
    }

    fn launch(&self, ix: Ix, ground: &Ground) -> Result<Instance, Unready> {
        let (task, action) = (self.plan.tasks[ix], self.action(ix));
        recall::secure(self.session, &action.1).map_err(Unready::Broken)?;
        if let Some(problem) = offline::refusal(self.session, task) {
            return Err(unready::refused(problem));
        }
        if ground.network.is_none() {
            self.free_port(ix)?;
        }
        let sandbox = self.session.sandbox(action.0.action.isolation);
        let sandbox = sandbox.map_err(|error| self.broken(ix, &error.to_string()))?;
        let join = |spec: &mut SandboxSpec| ground.join(spec);
        let told = (&self.registry.news, self.secrets_around(ix));
        Instance::start(self.session, task, self.service(ix), action, &join, sandbox, told)
            .map_err(|error: StartError| self.broken(ix, &error.to_string()))
    }

    /// On the network of the machine, whoever holds the port of a service already would be taken for it.
    fn free_port(&self, ix: Ix) -> Result<(), Unready> {
        let service = self.service(ix);
        let Some(port) = ready::port(&service.ready.value).filter(|port| ready::is_held(*port)) else { return Ok(()) };
        // Perhaps by the same service for tasks that are over.
        self.registry.see_off();
        if !ready::is_held(port) {
            return Ok(());
        }
        let twice = self.registry.is_up(&self.session.label(self.plan.tasks[ix]));
        Err(unready::port_held(self.declared(ix), &service.ready.place, port, twice))
    }

    /// What a service may come to know: its own secrets and those of everybody in the run who uses it.
    fn secrets_around(&self, service: Ix) -> Secrets {
        let uses = |ix: &Ix| self.sets[*ix].as_ref().is_some_and(|set| set.contains(&service));
        let around = (0..self.plan.tasks.len()).filter(|ix| *ix == service || uses(ix));
        self.session.secrets_reaching_any(&around.map(|ix| self.plan.tasks[ix]).collect::<Vec<_>>())
    }

    /// Waits for one of those that were started; the end of any of them ends the wait.
    fn await_ready(&self, started: &[Ix], instances: &[Instance], at: usize) -> Result<(), Unready> {
        let (ix, instance) = (started[at], &instances[at]);
        let service = self.service(ix);
        match ready::wait(instances, at, &service.ready.value, service.ready_within, &self.session.cancel) {
            Ok(()) => {
                let (label, duration) = (instance.label.clone(), instance.started().elapsed());
                self.registry.news.tell(ServiceEvent::Ready { label, duration });
                Ok(())
            }
            Err(NotReady::Cancelled) => Err(Unready::Cancelled),
            Err(NotReady::Ended) => {
                // The first in the order of use: others may have ended for want of it. Its last words are in the log by then.
                let dead = instances.iter().position(|one| !ready::is_alive(one)).unwrap_or(at);
                let was_ready = (dead < at).then_some(instance.label.as_str());
                Err(unready::ended(self.declared(started[dead]), &instances[dead], was_ready))
            }
            Err(NotReady::TimedOut(met)) => {
                instance.stop();
                instance.join();
                let met = self.session.secrets_reaching(self.plan.tasks[ix]).redacted(&met);
                Err(unready::timed_out(service, instance, &met))
            }
        }
    }
}

impl From<Unready> for Executed {
    fn from(unready: Unready) -> Self {
        match unready {
            Unready::Cancelled => Executed::Cancelled { log: Log::new() },
            Unready::Failed { log, failure } => {
                let (duration, left) = (Duration::ZERO, Listing::new());
                Executed::Failed { log, failure, duration, attempts: 0, left }
            }
            Unready::Broken(problem) => Executed::Broken { problem, refused: false },
        }
    }
}

/// The services a task uses and those they use.
fn set_of(session: &Session<'_>, plan: &Plan, ix: Ix) -> Option<Set> {
    let mut set = BTreeSet::new();
    let mut next = vec![ix];
    while let Some(ix) = next.pop() {
        for (needed, _) in session.graph.dependencies(plan.tasks[ix]) {
            let needed = plan.positions[&needed];
            if plan.is_service(session, needed) && set.insert(needed) {
                next.push(needed);
            }
        }
    }
    (!set.is_empty()).then(|| Arc::new(set))
}

impl Held {
    /// Puts a command beside the services.
    pub fn join(&self, spec: &mut SandboxSpec) -> Company {
        self.pod.as_ref().map_or_else(Company::default, |pod| pod.ground.join(spec))
    }

    /// Whether there are no services.
    pub fn is_empty(&self) -> bool {
        self.pod.is_none()
    }

    /// The label and the end of the first service that has ended.
    pub fn first_end(&self) -> Option<(&str, End)> {
        self.instances().find_map(|instance| Some((instance.label.as_str(), instance.end()?)))
    }

    fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.pod.iter().flat_map(|pod| &pod.instances)
    }

    /// Looks at the services once the command has ended: what came of it under other conditions is shown and not kept.
    pub fn judge(&self, session: &Session<'_>, label: &str, executed: &mut Executed) {
        let troubles: Vec<Diagnostic> = self.instances().filter_map(|one| trouble(one, session, label)).collect();
        match executed {
            Executed::Passed(passed) => {
                passed.storable &= troubles.is_empty();
                passed.notes.extend(troubles);
            }
            Executed::Failed { failure, log, .. } => {
                failure.diagnostics.extend(troubles);
                log.extend(self.instances().flat_map(|instance| instance.tail()).collect::<Log>());
            }
            Executed::Cancelled { .. } | Executed::Broken { .. } => {}
        }
    }
}

fn trouble(instance: &Instance, session: &Session<'_>, label: &str) -> Option<Diagnostic> {
    let service = &instance.label;
    if !ready::is_alive(instance) {
        let end = instance.end().map_or_else(|| "its thread is gone".into(), |end| end.sentence());
        let message = format!("service `{service}` ended while `{label}` ran ({end}); its result is not kept");
        return Some(Diagnostic::warning(message).help("a service runs until the last task that uses it is done"));
    }
    let path = instance.first_change(session)?;
    let message = format!("`{path}` changed while service `{service}` ran; the result of `{label}` is not kept");
    Some(Diagnostic::warning(message).help("run it again when the file is at rest"))
}
