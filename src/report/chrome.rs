//! `--profile`: the run as Chrome trace events, for Perfetto, speedscope and `chrome://tracing`.
//!
//! Format: "Trace Event Format" (Google, 2016), JSON object form. One thread per job slot holds the commands as complete
//! events (`X`); one more thread holds hits as instants (`i`): they overlap, and no slot was theirs. Times are taken here,
//! as the events arrive, from the clock given in. Writes no file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::base::ids::TaskId;
use crate::engine::event::{Event, EventSink, MissReason, Outcome, TaskFinished};
use crate::report::clock::Clock;

/// All events are of one process.
const PROCESS: u32 = 1;

/// Thread id of the hits; slots are numbered from 1 upwards.
const HITS_THREAD: usize = 0;

/// Collects a run as trace events.
pub struct ChromeTrace {
    clock: Clock,
    running: BTreeMap<TaskId, Running>,
    slots: BTreeSet<usize>,
    events: Vec<Value>,
}

struct Running {
    since: Duration,
    slot: usize,
}

impl ChromeTrace {
    /// An empty trace; its zero is the clock's.
    pub fn new(clock: Clock) -> Self {
        Self { clock, running: BTreeMap::new(), slots: BTreeSet::new(), events: Vec::new() }
    }

    /// The trace as JSON. Commands that never finished are left out.
    pub fn into_json(self) -> String {
        let mut events =
            vec![named("process_name", HITS_THREAD, "drystone"), named("thread_name", HITS_THREAD, "hits")];
        events.extend(self.slots.iter().map(|slot| named("thread_name", thread(*slot), &format!("slot {slot}"))));
        events.extend(self.events);
        json!({ "displayTimeUnit": "ms", "traceEvents": events }).to_string()
    }

    fn finished(&mut self, finished: &TaskFinished) {
        let now = (self.clock)();
        let args = json!({
            "outcome": finished.outcome.word(),
            "why": sentences(&finished.why),
            "action": finished.action.map(|digest| digest.to_hex()),
            "attempts": finished.attempts,
        });
        if let Some(running) = self.running.remove(&finished.task) {
            self.events.push(json!({
                "ph": "X", "name": finished.label, "cat": "task", "pid": PROCESS, "tid": thread(running.slot),
                "ts": microseconds(running.since), "dur": microseconds(now.saturating_sub(running.since)), "args": args,
            }));
        } else if finished.outcome == Outcome::Hit {
            self.events.push(json!({
                "ph": "i", "s": "t", "name": finished.label, "cat": "hit", "pid": PROCESS, "tid": HITS_THREAD,
                "ts": microseconds(now), "args": args,
            }));
        }
    }
}

impl EventSink for ChromeTrace {
    fn event(&mut self, event: &Event) {
        match event {
            Event::TaskStarted { task, slot, .. } => {
                self.slots.insert(*slot);
                self.running.insert(*task, Running { since: (self.clock)(), slot: *slot });
            }
            Event::TaskFinished(finished) => self.finished(finished),
            Event::RunStarted { .. } | Event::Notice(_) | Event::Service(_) | Event::RunFinished { .. } => {}
        }
    }
}

fn named(what: &str, thread: usize, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": PROCESS, "tid": thread, "args": { "name": name } })
}

const fn thread(slot: usize) -> usize {
    slot + HITS_THREAD + 1
}

fn sentences(why: &[MissReason]) -> Vec<String> {
    why.iter().map(MissReason::sentence).collect()
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn commands_are_complete_events_in_the_thread_of_their_slot() {
        let mut trace = ChromeTrace::new(sample::clock_of_steps(Duration::from_millis(10)));
        for event in &sample::whole_run().1 {
            trace.event(event);
        }
        let trace: Value = serde_json::from_str(&trace.into_json()).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let with = |phase: &str| events.iter().filter(|event| event["ph"] == phase).collect::<Vec<_>>();
        let complete = with("X");
        assert_eq!(complete.len(), 2, "{trace:#}");
        assert_eq!(complete[0]["name"], "//libs/ui:build");
        assert_eq!(complete[0]["args"]["outcome"], "ran");
        assert_eq!(complete[0]["args"]["why"][0], "src/button.ts changed");
        assert_eq!(complete[1]["name"], "//apps/web:test");
        assert_eq!(complete[1]["args"]["outcome"], "failed");
        assert_ne!(complete[0]["tid"], complete[1]["tid"]);
        for event in complete {
            assert!(event["dur"].as_u64().unwrap() > 0 && event["ts"].is_u64(), "{event}");
        }
        assert_eq!(with("i").len(), 1, "the hit is an instant");
        assert_eq!(with("M").len(), 4, "the process, the hits and two slots have names");
    }
}
