//! Several sinks at once, in the order given. Knows none of them.

use crate::engine::event::{Event, EventSink};

/// Hands every event to every sink.
#[derive(Default)]
pub struct Fan<'s> {
    sinks: Vec<&'s mut (dyn EventSink + Send)>,
}

impl<'s> Fan<'s> {
    /// Hands on to nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sink.
    pub fn add(&mut self, sink: &'s mut (dyn EventSink + Send)) {
        self.sinks.push(sink);
    }
}

impl EventSink for Fan<'_> {
    fn event(&mut self, event: &Event) {
        for sink in &mut self.sinks {
            sink.event(event);
        }
    }

    fn tick(&mut self) {
        for sink in &mut self.sinks {
            sink.tick();
        }
    }
}
