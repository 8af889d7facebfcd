//! The human report on a terminal: the story above, what runs right now below it. Decides nothing of either text.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::event::{Event, EventSink};
use crate::report::clock::Clock;
use crate::report::ink::Color;
use crate::report::live::Live;
use crate::report::out::Out;
use crate::report::story::{Story, StoryOptions};

/// Nothing is drawn before this: a run of hits is over by then, and a display that only flashes helps nobody.
const QUIET_START: Duration = Duration::from_millis(150);

/// Shortest time between two drawings.
const DRAW_INTERVAL: Duration = Duration::from_millis(50);

/// Writes the story to a terminal and keeps the running tasks drawn below it.
pub struct Console {
    out: Out,
    story: Story,
    live: Live,
    clock: Clock,
    started: Option<Duration>,
    drawn: Option<Duration>,
    bar: ProgressBar,
    color: Color,
    width: usize,
}

impl Console {
    /// Writes to `out`, the terminal that `target` draws on (`ProgressDrawTarget::stderr()` with [`Out::stderr`]).
    pub fn new(out: Out, target: ProgressDrawTarget, options: StoryOptions, clock: Clock) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::with_template("{msg}").expect("a template of one known key is well formed"));
        let (color, width) = (options.color, options.width);
        Self {
            out,
            story: Story::new(options),
            live: Live::default(),
            clock,
            started: None,
            drawn: None,
            bar,
            color,
            width,
        }
    }

    fn draw(&mut self, now: Duration) {
        let early = self.started.is_none_or(|started| now.saturating_sub(started) < QUIET_START);
        let recent = self.drawn.is_some_and(|drawn| now.saturating_sub(drawn) < DRAW_INTERVAL);
        if early || recent {
            return;
        }
        self.drawn = Some(now);
        // One column less: some terminals wrap a line that fills them.
        self.bar.set_message(self.live.text(now, self.width.saturating_sub(1), self.color));
    }
}

impl EventSink for Console {
    fn event(&mut self, event: &Event) {
        let now = (self.clock)();
        self.live.event(event, now);
        match event {
            Event::RunStarted { .. } => {
                (self.started, self.drawn) = (Some(now), None);
                self.bar.reset();
            }
            Event::RunFinished { .. } => {
                self.started = None;
                self.bar.finish_and_clear();
            }
            Event::TaskStarted { .. } | Event::TaskFinished(_) | Event::Notice(_) | Event::Service(_) => {}
        }
        let bytes = self.story.tell(event);
        if self.drawn.is_none() {
            self.out.write(&bytes);
        } else if !bytes.is_empty() {
            self.bar.suspend(|| self.out.write(&bytes));
        }
        self.draw(now);
    }

    fn tick(&mut self) {
        self.draw((self.clock)());
    }
}

impl Drop for Console {
    /// Leaves the terminal clean when a run ends without its last event.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;
    use crate::report::out::tests::Kept;
    use crate::report::sample;

    #[test]
    fn what_stays_on_the_terminal_is_what_the_plain_report_says() {
        let (_, events) = sample::whole_run();
        let kept = Kept::default();
        let clock = sample::clock_of_steps(Duration::from_millis(200));
        let mut console = Console::new(Out::new(kept.clone()), ProgressDrawTarget::hidden(), sample::options(), clock);
        let mut story = Story::new(sample::options());
        let mut expect = Vec::new();
        for event in &events {
            console.event(event);
            console.tick();
            expect.extend(story.tell(event));
        }
        assert_eq!(kept.text().into_bytes(), expect);
    }

    /// A terminal that keeps what is written to it and forgets where.
    #[derive(Clone, Default, Debug)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(&format!("{text}\n"))
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_runs_right_now_is_drawn_below() {
        let screen = Screen::default();
        let clock = sample::clock_of_steps(Duration::from_millis(200));
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen.clone()), 255);
        let mut console = Console::new(Out::new(Kept::default()), target, sample::options(), clock);
        for event in &sample::whole_run().1[..5] {
            console.event(event);
        }
        let drawn = screen.0.lock().unwrap().clone();
        assert!(drawn.contains("   200 ms  //libs/ui:build  (before: 1.1 s)"), "{drawn}");
        assert!(drawn.contains("     0 ms  //apps/web:test"), "{drawn}");
        assert!(drawn.contains("1/5 · 1 hit · 2 running"), "{drawn}");
    }

    #[test]
    fn nothing_is_drawn_for_a_run_that_is_over_at_once() {
        let clock = sample::clock_of_steps(Duration::from_micros(10));
        let mut console =
            Console::new(Out::new(Kept::default()), ProgressDrawTarget::hidden(), sample::options(), clock);
        for event in &sample::all_hits(60) {
            console.event(event);
            console.tick();
        }
        assert_eq!(console.drawn, None);
    }
}
