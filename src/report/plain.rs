//! The human report where nothing can be drawn over: a pipe, a file, a CI log. What it says is [`crate::report::story`]'s.

use crate::engine::event::{Event, EventSink};
use crate::report::out::Out;
use crate::report::story::{Story, StoryOptions};

/// Writes the story line by line.
pub struct Plain {
    out: Out,
    story: Story,
}

impl Plain {
    /// Writes to `out`.
    pub fn new(out: Out, options: StoryOptions) -> Self {
        Self { out, story: Story::new(options) }
    }
}

impl EventSink for Plain {
    fn event(&mut self, event: &Event) {
        let bytes = self.story.tell(event);
        self.out.write(&bytes);
    }
}
