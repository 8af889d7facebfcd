//! What the live display shows while tasks run: the longest running ones and a line of progress. Pure; draws nothing.

use std::time::Duration;

use crate::base::ids::TaskId;
use crate::base::time::human_duration;
use crate::engine::event::{Event, Outcome};
use crate::report::ink::{Color, Ink, paint};

/// Running tasks shown; the rest are counted.
const RUNNING_SHOWN_MAX: usize = 8;

/// Columns of the time before a label.
const TIME_COLUMNS: usize = 9;

/// The state of a run as far as the display needs it.
#[derive(Default)]
pub struct Live {
    tasks: usize,
    done: usize,
    hit: usize,
    failed: usize,
    running: Vec<Running>,
}

struct Running {
    task: TaskId,
    label: String,
    since: Duration,
    expected: Option<Duration>,
}

impl Live {
    /// Takes an event that came at `now`.
    pub fn event(&mut self, event: &Event, now: Duration) {
        match event {
            Event::RunStarted { tasks, .. } => *self = Self { tasks: *tasks, ..Self::default() },
            Event::TaskStarted { task, label, expected, .. } => {
                self.running.push(Running { task: *task, label: label.clone(), since: now, expected: *expected });
            }
            Event::TaskFinished(finished) => {
                self.running.retain(|running| running.task != finished.task);
                self.done += 1;
                self.hit += usize::from(finished.outcome == Outcome::Hit);
                self.failed += usize::from(finished.outcome == Outcome::Failed);
            }
            Event::Notice(_) | Event::Service(_) | Event::RunFinished { .. } => {}
        }
    }

    /// The display at `now`, no line longer than `width` columns, no line feed at the end.
    pub fn text(&self, now: Duration, width: usize, color: Color) -> String {
        let mut lines: Vec<String> = Vec::new();
        // In the order they started: the one that holds everything up stands first.
        for running in self.running.iter().take(RUNNING_SHOWN_MAX) {
            let time = format!("{:>TIME_COLUMNS$}", human_duration(now.saturating_sub(running.since)));
            let before =
                running.expected.map_or_else(String::new, |time| format!("  (before: {})", human_duration(time)));
            let rest = cut(&format!("  {}{before}", running.label), width.saturating_sub(time.chars().count()));
            lines.push(format!("{}{rest}", paint(color, Ink::Calm, &time)));
        }
        if self.running.len() > RUNNING_SHOWN_MAX {
            let more = self.running.len() - RUNNING_SHOWN_MAX;
            lines.push(cut(&format!("{:>TIME_COLUMNS$}  and {more} more", "…"), width));
        }
        lines.push(self.progress(width, color));
        lines.join("\n")
    }

    /// `12/60 · 10 hit · 2 running`.
    fn progress(&self, width: usize, color: Color) -> String {
        let mut parts = vec![format!("{}/{}", self.done, self.tasks)];
        let counts = [(self.hit, "hit"), (self.failed, "failed"), (self.running.len(), "running")];
        parts.extend(counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")));
        let ink = if self.failed > 0 { Ink::Bad } else { Ink::Strong };
        paint(color, ink, &cut(&parts.join(" · "), width))
    }
}

/// The text in at most `width` columns, an ellipsis where something is left out.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn started(index: u32) -> Event {
        Event::TaskStarted {
            task: TaskId(index),
            label: format!("//apps/a{index}:build"),
            why: Vec::new(),
            expected: (index == 0).then_some(Duration::from_secs(14)),
            slot: 0,
        }
    }

    #[test]
    fn running_tasks_stand_above_the_progress() {
        let mut live = Live::default();
        live.event(&Event::RunStarted { run: "r".into(), tasks: 60, jobs: 2 }, Duration::ZERO);
        for outcome in [Outcome::Hit, Outcome::Hit, Outcome::Ran] {
            let mut finished = sample::finished("//x:y", outcome);
            finished.task = TaskId(99);
            live.event(&Event::TaskFinished(Box::new(finished)), Duration::ZERO);
        }
        live.event(&started(0), Duration::from_secs(1));
        live.event(&started(1), Duration::from_secs(2));
        assert_eq!(
            live.text(Duration::from_secs(5), 80, Color::Plain),
            "    4.0 s  //apps/a0:build  (before: 14.0 s)\n    3.0 s  //apps/a1:build\n3/60 · 2 hit · 2 running"
        );
        assert_eq!(live.text(Duration::from_secs(5), 20, Color::Plain).lines().next(), Some("    4.0 s  //apps/a…"));
    }

    #[test]
    fn more_than_eight_are_counted() {
        let mut live = Live::default();
        for index in 0..11 {
            live.event(&started(index), Duration::ZERO);
        }
        let text = live.text(Duration::from_secs(1), 80, Color::Plain);
        assert_eq!(text.lines().count(), 10);
        assert_eq!(text.lines().nth(8), Some("        …  and 3 more"));
    }
}
