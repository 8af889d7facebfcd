//! The sentences of the human report, shared by the live and the plain one. Pure: events in, text out; keeps nothing.

use std::time::Duration;

use crate::base::time::human_duration;
use crate::engine::event::{Counts, MissReason, Outcome, ServiceEvent, TaskFinished};
use crate::report::ink::{Color, Ink, paint};

/// Columns of the outcome word: the longest is `cancelled`.
const WORD_COLUMNS: usize = 9;

/// Links of the critical path shown before its middle is left out.
const CHAIN_LINKS_MAX: usize = 7;

/// How much of the reasons a line tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhyShown {
    /// The first, and how many more there are.
    First,
    /// All of them, one a line.
    All,
}

/// The first reason and how many more: `src/parse.c changed, +3 more`; `None` without any.
pub fn why_sentence(why: &[MissReason]) -> Option<String> {
    let (first, more) = why.split_first()?;
    let first = first.sentence();
    Some(if more.is_empty() { first } else { format!("{first}, +{} more", more.len()) })
}

/// An outcome word at the right of its column: `     ran`.
pub fn outcome_word(outcome: Outcome, color: Color) -> String {
    let word = outcome.word();
    format!("{}{}", " ".repeat(WORD_COLUMNS - word.len()), paint(color, Ink::of(outcome), word))
}

/// What became of a task, in one line without line feed (more with [`WhyShown::All`] and several reasons).
///
/// `     ran  //libs/ui:build  1.2 s  src/button.ts changed, +3 more`
pub fn finished_line(finished: &TaskFinished, why: WhyShown, color: Color) -> String {
    let mut parts = vec![finished.label.clone()];
    if !matches!(finished.outcome, Outcome::Skipped | Outcome::Cancelled) {
        parts.push(human_duration(finished.duration));
    }
    parts.extend(detail(finished, why).map(|detail| paint(color, Ink::Faint, &detail)));
    parts.extend(flaky_remark(finished).map(|remark| paint(color, Ink::Care, &remark)));
    let mut line = format!("{}  {}", outcome_word(finished.outcome, color), parts.join("  "));
    if why == WhyShown::All && finished.why.len() > 1 {
        for reason in &finished.why {
            line.push_str(&format!("\n{}  - {}", " ".repeat(WORD_COLUMNS), reason.sentence()));
        }
    }
    line
}

/// What became of a service, in one line without line feed: `   ready  //:postgres  1.2 s`; what it printed stands behind its label.
pub fn service_line(event: &ServiceEvent, color: Color) -> String {
    let line = |ink, word: &str, rest: &[&str]| {
        let word = format!("{}{}", " ".repeat(WORD_COLUMNS - word.len()), paint(color, ink, word));
        [&[word.as_str()], rest].concat().join("  ")
    };
    match event {
        ServiceEvent::Started { label } => line(Ink::Faint, "starting", &[label]),
        ServiceEvent::Ready { label, duration } => line(Ink::Calm, "ready", &[label, &human_duration(*duration)]),
        ServiceEvent::Stopped { label, asked: true, .. } => line(Ink::Faint, "stopped", &[label]),
        ServiceEvent::Stopped { label, how, asked: false, .. } => line(Ink::Bad, "ended", &[label, how]),
        ServiceEvent::Output { label, text } => format!("{} {text}", paint(color, Ink::Faint, &format!("{label} |"))),
    }
}

fn detail(finished: &TaskFinished, why: WhyShown) -> Option<String> {
    match finished.outcome {
        Outcome::Hit => None,
        Outcome::Ran if why == WhyShown::All && finished.why.len() > 1 => None,
        Outcome::Ran => why_sentence(&finished.why),
        Outcome::Failed => finished.failure.as_ref().map(|failure| failure.cause.clone()),
        Outcome::Skipped => finished.because_of.as_ref().map(|label| format!("because {label} failed")),
        Outcome::Cancelled => None,
    }
}

/// `flaky: passed on attempt 2`, `flaky`, `3 attempts`; `None` for what went as it should.
fn flaky_remark(finished: &TaskFinished) -> Option<String> {
    let passed = matches!(finished.outcome, Outcome::Hit | Outcome::Ran);
    match (finished.flaky, finished.attempts) {
        (true, 2..) if passed => Some(format!("flaky: passed on attempt {}", finished.attempts)),
        (true, _) => Some("flaky".into()),
        (false, 2..) => Some(format!("{} attempts", finished.attempts)),
        (false, _) => None,
    }
}

/// The command that runs a task again, its label quoted where a shell would read it otherwise.
pub fn repeat_command<'l>(labels: impl IntoIterator<Item = &'l str>) -> String {
    let mut command = String::from("drystone run");
    for label in labels {
        command.push(' ');
        command.push_str(&quoted(label));
    }
    command
}

/// A word as a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/:._-+@,=".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// `48 hit, 2 ran, 1 failed, 9 skipped in 3.2 s (saved 1 m 10 s)`, without what is zero.
pub fn summary(counts: &Counts, duration: Duration, saved: Duration, interrupted: bool, color: Color) -> String {
    let words = [
        (Outcome::Hit, counts.hit),
        (Outcome::Ran, counts.ran),
        (Outcome::Failed, counts.failed),
        (Outcome::Skipped, counts.skipped),
        (Outcome::Cancelled, counts.cancelled),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(outcome, count)| paint(color, Ink::of(outcome), &format!("{count} {}", outcome.word())))
    .collect::<Vec<_>>();
    let words = if words.is_empty() { "no tasks".to_owned() } else { words.join(", ") };
    let saved = if saved.is_zero() { String::new() } else { format!(" (saved {})", human_duration(saved)) };
    let start = if interrupted { paint(color, Ink::Bad, "interrupted: ") } else { String::new() };
    format!("{start}{words} in {}{saved}", human_duration(duration))
}

/// `critical path 4.2 s: //a:x 1.2 s, //b:y 3.0 s`; `None` where fewer than two tasks follow each other.
pub fn critical_path(chain: &[(String, Duration)], color: Color) -> Option<String> {
    if chain.len() < 2 {
        return None;
    }
    let link = |(label, duration): &(String, Duration)| format!("{label} {}", human_duration(*duration));
    let mut links: Vec<String> = chain.iter().map(link).collect();
    if links.len() > CHAIN_LINKS_MAX {
        let tail = CHAIN_LINKS_MAX / 2;
        let left_out = links.len() - 2 * tail;
        links.splice(tail..tail + left_out, [format!("… {left_out} more …")]);
    }
    let total: Duration = chain.iter().map(|(_, duration)| *duration).sum();
    Some(format!("{} {}: {}", paint(color, Ink::Faint, "critical path"), human_duration(total), links.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_finished_line_says_word_label_time_and_why() {
        let check = |outcome: Outcome, change: fn(&mut TaskFinished), expect: &str| {
            let mut finished = sample::finished("//libs/ui:build", outcome);
            change(&mut finished);
            assert_eq!(finished_line(&finished, WhyShown::First, Color::Plain), expect);
        };
        check(Outcome::Hit, |_| (), "      hit  //libs/ui:build  3 ms");
        check(Outcome::Ran, |_| (), "      ran  //libs/ui:build  1.2 s  src/button.ts changed, +1 more");
        check(Outcome::Ran, |it| it.why.truncate(1), "      ran  //libs/ui:build  1.2 s  src/button.ts changed");
        check(Outcome::Ran, |it| it.why.clear(), "      ran  //libs/ui:build  1.2 s");
        check(
            Outcome::Ran,
            |it| (it.flaky, it.attempts) = (true, 2),
            "      ran  //libs/ui:build  1.2 s  src/button.ts changed, +1 more  flaky: passed on attempt 2",
        );
        check(Outcome::Failed, |_| (), "   failed  //libs/ui:build  400 ms  exit code 2");
        check(Outcome::Failed, |it| it.attempts = 3, "   failed  //libs/ui:build  400 ms  exit code 2  3 attempts");
        check(Outcome::Skipped, |_| (), "  skipped  //libs/ui:build  because //apps/web:test failed");
        check(Outcome::Cancelled, |_| (), "cancelled  //libs/ui:build");
    }

    #[test]
    fn all_reasons_are_listed_below_the_line() {
        let finished = sample::finished("//libs/ui:build", Outcome::Ran);
        assert_eq!(
            finished_line(&finished, WhyShown::All, Color::Plain),
            "      ran  //libs/ui:build  1.2 s\n           - src/button.ts changed\n           - \
             env NODE_ENV \"test\" → \"production\""
        );
    }

    #[test]
    fn the_summary_counts_what_is_not_zero() {
        let check = |counts: Counts, saved_ms: u64, interrupted: bool, expect: &str| {
            let (duration, saved) = (Duration::from_millis(3200), Duration::from_millis(saved_ms));
            assert_eq!(summary(&counts, duration, saved, interrupted, Color::Plain), expect);
        };
        let all = Counts { hit: 48, ran: 2, failed: 1, skipped: 9, cancelled: 0 };
        check(all, 70_000, false, "48 hit, 2 ran, 1 failed, 9 skipped in 3.2 s (saved 1 m 10 s)");
        check(Counts { ran: 1, ..Counts::default() }, 0, false, "1 ran in 3.2 s");
        check(Counts::default(), 0, false, "no tasks in 3.2 s");
        check(
            Counts { hit: 1, cancelled: 2, ..Counts::default() },
            0,
            true,
            "interrupted: 1 hit, 2 cancelled in 3.2 s",
        );
    }

    #[test]
    fn a_service_line_says_what_became_of_it() {
        let (label, duration) = ("//:db".to_owned(), Duration::from_millis(1200));
        let stopped =
            |asked| ServiceEvent::Stopped { label: label.clone(), duration, how: "exit code 1".into(), asked };
        let check = |event: &ServiceEvent, expect: &str| assert_eq!(service_line(event, Color::Plain), expect);
        check(&ServiceEvent::Started { label: label.clone() }, " starting  //:db");
        check(&ServiceEvent::Ready { label: label.clone(), duration }, "    ready  //:db  1.2 s");
        check(&stopped(true), "  stopped  //:db");
        check(&stopped(false), "    ended  //:db  exit code 1");
        check(&ServiceEvent::Output { label: label.clone(), text: "listening".into() }, "//:db | listening");
    }

    #[test]
    fn the_critical_path_keeps_its_ends() {
        let chain = |count: usize| {
            (0..count).map(|index| (format!("//a:t{index}"), Duration::from_secs(1))).collect::<Vec<_>>()
        };
        let check = |count: usize, expect: Option<&str>| {
            assert_eq!(critical_path(&chain(count), Color::Plain).as_deref(), expect);
        };
        check(0, None);
        check(1, None);
        check(2, Some("critical path 2.0 s: //a:t0 1.0 s, //a:t1 1.0 s"));
        let long = "critical path 9.0 s: //a:t0 1.0 s, //a:t1 1.0 s, //a:t2 1.0 s, … 3 more …, //a:t6 1.0 s, \
                    //a:t7 1.0 s, //a:t8 1.0 s";
        check(9, Some(long));
    }

    #[test]
    fn a_label_is_quoted_where_a_shell_would_read_it_otherwise() {
        let check = |label: &str, expect: &str| assert_eq!(repeat_command([label]), expect);
        check("//apps/web:test", "drystone run //apps/web:test");
        check("//apps/web:test[node=20]", "drystone run '//apps/web:test[node=20]'");
        check("//it's:x", "drystone run '//it'\\''s:x'");
    }
}
