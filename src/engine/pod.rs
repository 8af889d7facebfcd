//! The pods of a program: which services are up together, and who waits for them. Knows no tasks and no plan.
//!
//! One pod holds the services of one set, so that tasks with unlike sets cannot see each other's. Pods outlive a run with `--watch`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::engine::event::{Failure, Log, ServiceEvent};
use crate::engine::instance::Instance;
use crate::engine::session::held;
use crate::process::cancel::Cancel;
use crate::sandbox::open::Company;
use crate::sandbox::pod;
use crate::sandbox::spec::{Access, Mount, Network, SERVICES_DIR, SandboxSpec};
use crate::store::{Stage, Store};

/// Why services are not up.
#[derive(Clone, Debug)]
pub enum Unready {
    /// The run is over.
    Cancelled,
    /// One of them failed.
    Failed {
        /// What it printed.
        log: Log,
        /// How.
        failure: Failure,
    },
    /// The machine failed.
    Broken(Diagnostic),
}

/// What the services of a pod and those who use them share: a network and a directory.
pub struct Ground {
    /// Their network, where it is not the host's.
    pub network: Option<pod::Pod>,
    /// Their directory, where one can be shown.
    pub directory: Option<Stage>,
    /// Where that and the scratch of the services lie. Last: what a store that was let go left there is swept away.
    pub store: Arc<Store>,
}

impl Ground {
    /// Puts a command on it.
    pub fn join(&self, spec: &mut SandboxSpec) -> Company {
        if let Some(directory) = &self.directory {
            let (host, inside) = (directory.path().to_owned(), SERVICES_DIR.into());
            spec.mounts.push(Mount { host, inside, access: Access::ReadWrite });
        }
        if self.network.is_some() {
            spec.network = Network::Pod;
        }
        Company { pod: self.network.clone(), ..Company::default() }
    }
}

/// Services that are up together.
pub struct Pod {
    /// Their keys by label.
    pub keys: BTreeMap<String, Digest>,
    /// What is running, in the order it was started. Before the ground: that goes after the last of them.
    pub instances: Vec<Instance>,
    /// What they share.
    pub ground: Ground,
}

impl Pod {
    /// Asks all of them to end; does not wait.
    pub fn stop(&self) {
        self.instances.iter().for_each(Instance::stop);
    }

    /// Whether all have ended.
    fn is_over(&self) -> bool {
        self.instances.iter().all(|instance| instance.ended().is_cancelled())
    }

    /// Waits until all have ended.
    pub fn join(&self) {
        self.instances.iter().for_each(Instance::join);
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // All of them before the first is waited for: each may take its whole grace.
        self.stop();
    }
}

/// The place of one pod: being started, up, or failed.
pub struct Slot {
    state: Mutex<Start>,
    changed: Condvar,
}

#[derive(Clone)]
enum Start {
    UnderWay,
    Over(Result<Arc<Pod>, Unready>),
}

impl Slot {
    /// Waits until the start is over: whoever makes it ends it in any case, when the run ends too.
    pub fn wait(&self) -> Result<Arc<Pod>, Unready> {
        let mut state = held(&self.state);
        loop {
            match &*state {
                Start::Over(result) => return result.clone(),
                Start::UnderWay => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn settle(&self, result: Result<Arc<Pod>, Unready>) {
        *held(&self.state) = Start::Over(result);
        self.changed.notify_all();
    }

    fn is_failed(&self) -> bool {
        matches!(&*held(&self.state), Start::Over(Err(_)))
    }

    fn pod(&self) -> Option<Arc<Pod>> {
        match &*held(&self.state) {
            Start::Over(Ok(pod)) => Some(Arc::clone(pod)),
            _ => None,
        }
    }
}

/// The duty to end a start. Dropped without a result, as by a panic, it tells those who wait that there is none.
pub struct Starting {
    slot: Arc<Slot>,
    settled: bool,
}

impl Starting {
    /// Tells everybody.
    pub fn settle(mut self, result: Result<Arc<Pod>, Unready>) {
        self.settled = true;
        self.slot.settle(result);
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if !self.settled {
            self.slot.settle(Err(Unready::Cancelled));
        }
    }
}

/// Whoever listens to what becomes of services, if anybody does.
#[derive(Default)]
pub struct News {
    listener: Mutex<Option<Listener>>,
    streaming: AtomicBool,
    /// Lines that were told and not yet heard.
    backlog: Mutex<usize>,
    room: Condvar,
}

/// Lines that wait to be heard, at most; beyond that services wait, as they would for a terminal.
const BACKLOG_MAX: usize = 256;

/// Lines that are taken beyond those from services that are asked to stop: nobody makes them wait, and nobody hears them meanwhile.
const FAREWELL_MAX: usize = 4096;

/// How often a line that waits looks whether its service is to end.
const PATIENCE: Duration = Duration::from_millis(100);

/// Takes what becomes of services, on any thread.
pub type Listener = Box<dyn Fn(ServiceEvent) + Send>;

impl News {
    /// Tells the listener.
    pub fn tell(&self, event: ServiceEvent) {
        if let Some(listener) = &*held(&self.listener) {
            listener(event);
        }
    }

    /// From now on this one listens, or nobody.
    pub fn listen(&self, listener: Option<Listener>) {
        *held(&self.listener) = listener;
    }

    /// From now on what services print is told as well.
    pub fn stream(&self) {
        self.streaming.store(true, Ordering::SeqCst);
    }

    /// Tells a line once there is room. Of a service that is asked to stop at once, or not at all if too much waits already.
    pub fn tell_line(&self, label: &str, text: String, stop: &Cancel) {
        let mut backlog = held(&self.backlog);
        while *backlog >= BACKLOG_MAX && !stop.is_cancelled() {
            let waited = self.room.wait_timeout(backlog, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            backlog = waited.0;
        }
        if *backlog >= BACKLOG_MAX + FAREWELL_MAX {
            return;
        }
        *backlog += 1;
        drop(backlog);
        self.tell(ServiceEvent::Output { label: label.to_owned(), text });
    }

    /// A line was heard: there is room for one more.
    pub fn heard(&self) {
        let mut backlog = held(&self.backlog);
        *backlog = backlog.saturating_sub(1);
        self.room.notify_one();
    }

    /// Whether what services print is told.
    pub fn is_streaming(&self) -> bool {
        self.streaming.load(Ordering::SeqCst)
    }
}

/// The labels of the services of one pod.
pub type Labels = BTreeSet<String>;

/// All pods of a program. Ends them when dropped.
#[derive(Default)]
pub struct Registry {
    slots: Mutex<BTreeMap<Labels, Arc<Slot>>>,
    leaving: Mutex<Vec<Arc<Pod>>>,
    /// Who hears of them.
    pub news: Arc<News>,
}

impl Registry {
    /// The place of a pod; who gets the duty with it must start the pod.
    pub fn slot(&self, labels: &Labels) -> (Arc<Slot>, Option<Starting>) {
        let mut slots = held(&self.slots);
        if let Some(slot) = slots.get(labels) {
            return (Arc::clone(slot), None);
        }
        let slot = Arc::new(Slot { state: Mutex::new(Start::UnderWay), changed: Condvar::new() });
        slots.insert(labels.clone(), Arc::clone(&slot));
        let starting = Starting { slot: Arc::clone(&slot), settled: false };
        (slot, Some(starting))
    }

    /// Ends a pod that no longer serves, waits for its end, and makes its place free.
    pub fn replace(&self, labels: &Labels, slot: &Arc<Slot>, pod: &Pod) {
        pod.stop();
        pod.join();
        let mut slots = held(&self.slots);
        if slots.get(labels).is_some_and(|there| Arc::ptr_eq(there, slot)) {
            slots.remove(labels);
        }
    }

    /// Asks a pod to end if it is there; does not wait.
    pub fn retire(&self, labels: &Labels) {
        if let Some(slot) = held(&self.slots).remove(labels) {
            self.leave(&slot);
        }
    }

    /// The same for all but those that are wanted further; failed starts are forgotten in any case.
    pub fn retire_all_but(&self, wanted: &dyn Fn(&Labels) -> bool) {
        held(&self.slots).retain(|labels, slot| {
            let stays = wanted(labels) && !slot.is_failed();
            if !stays {
                self.leave(slot);
            }
            stays
        });
    }

    fn leave(&self, slot: &Slot) {
        if let Some(pod) = slot.pod() {
            pod.stop();
            let mut leaving = held(&self.leaving);
            // A pod holds descriptors, and a run may have more of them than a process may have of those.
            leaving.retain(|pod| !pod.is_over());
            leaving.push(pod);
        }
    }

    /// Waits until everything that is leaving by now has left; others may do so at once.
    pub fn see_off(&self) {
        let leaving = held(&self.leaving).clone();
        leaving.iter().for_each(|pod| pod.join());
    }

    /// Whether a service is up, in any pod.
    pub fn is_up(&self, label: &str) -> bool {
        held(&self.slots).values().any(|slot| slot.pod().is_some_and(|pod| pod.keys.contains_key(label)))
    }

    /// Waits until everything that was asked to end has ended.
    pub fn settle(&self) {
        let leaving = std::mem::take(&mut *held(&self.leaving));
        leaving.iter().for_each(|pod| pod.join());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.retire_all_but(&|_| false);
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_service_that_shouts_while_it_is_stopped_fills_no_memory() {
        let (news, told) = (News::default(), Arc::new(AtomicUsize::new(0)));
        let counting = Arc::clone(&told);
        news.listen(Some(Box::new(move |_| _ = counting.fetch_add(1, Ordering::SeqCst))));
        let stop = Cancel::new().expect("an event");
        stop.cancel();
        for _ in 0..100_000 {
            news.tell_line("//:loud", "a line".into(), &stop);
        }
        assert_eq!(told.load(Ordering::SeqCst), BACKLOG_MAX + FAREWELL_MAX);
        // Room for its last words even if many lines waited when it was stopped.
        for _ in 0..BACKLOG_MAX + FAREWELL_MAX {
            news.heard();
        }
        news.tell_line("//:loud", "one more".into(), &stop);
        assert_eq!(told.load(Ordering::SeqCst), BACKLOG_MAX + FAREWELL_MAX + 1);
    }
}
