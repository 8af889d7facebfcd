//! `--junit`: the tasks of a run as a JUnit XML file, for CI systems that read one. Writes no file.
//!
//! One test suite, one case per task, in the order they finished. Tests inside a task are not seen here.

use std::fmt::Write as _;
use std::time::Duration;

use crate::engine::event::{Event, EventSink, Log, Outcome, TaskFinished};
use crate::report::lines::why_sentence;

/// Collects a run as test cases.
#[derive(Default)]
pub struct Junit {
    cases: Vec<Case>,
    duration: Duration,
}

struct Case {
    class: String,
    name: String,
    duration: Duration,
    verdict: Verdict,
}

enum Verdict {
    Passed,
    Failed {
        cause: String,
        detail: String,
    },
    Skipped {
        cause: String,
    },
    /// Neither passed nor failed: what a gate must not take for green.
    Cancelled,
}

impl Junit {
    /// No cases yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The file.
    pub fn into_xml(self) -> String {
        let count = |want: fn(&Verdict) -> bool| self.cases.iter().filter(|case| want(&case.verdict)).count();
        let counts = format!(
            "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{}\"",
            self.cases.len(),
            count(|verdict| matches!(verdict, Verdict::Failed { .. })),
            count(|verdict| matches!(verdict, Verdict::Cancelled)),
            count(|verdict| matches!(verdict, Verdict::Skipped { .. })),
            seconds(self.duration),
        );
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"drystone\" {counts}>\n  \
             <testsuite name=\"drystone\" {counts}>\n"
        );
        for case in &self.cases {
            write_case(&mut xml, case);
        }
        xml.push_str("  </testsuite>\n</testsuites>\n");
        xml
    }
}

fn write_case(xml: &mut String, case: &Case) {
    let (class, name, time) = (escaped(&case.class), escaped(&case.name), seconds(case.duration));
    let body = match &case.verdict {
        Verdict::Passed => None,
        Verdict::Failed { cause, detail } => {
            Some(format!("<failure message=\"{}\">{}</failure>", escaped(cause), escaped(detail)))
        }
        Verdict::Skipped { cause } => Some(format!("<skipped message=\"{}\"/>", escaped(cause))),
        Verdict::Cancelled => Some("<error message=\"cancelled\"/>".to_owned()),
    };
    let start = format!("    <testcase classname=\"{class}\" name=\"{name}\" time=\"{time}\"");
    let written = match body {
        None => writeln!(xml, "{start}/>"),
        Some(body) => writeln!(xml, "{start}>\n      {body}\n    </testcase>"),
    };
    written.expect("writing to a string cannot fail");
}

fn case(finished: &TaskFinished) -> Case {
    let class = finished.label.split_once(':').map_or(finished.label.as_str(), |(package, _)| package);
    let verdict = match finished.outcome {
        Outcome::Hit | Outcome::Ran => Verdict::Passed,
        Outcome::Failed => {
            let cause = finished.failure.as_ref().map_or("failed", |failure| failure.cause.as_str());
            let why = why_sentence(&finished.why).map_or_else(String::new, |why| format!("why it ran: {why}\n"));
            Verdict::Failed { cause: cause.to_owned(), detail: format!("{why}{}", text(&finished.log)) }
        }
        Outcome::Skipped => Verdict::Skipped {
            cause: finished.because_of.as_ref().map_or_else(|| "skipped".into(), |cause| format!("{cause} failed")),
        },
        Outcome::Cancelled => Verdict::Cancelled,
    };
    Case { class: class.to_owned(), name: finished.label.clone(), duration: finished.duration, verdict }
}

impl EventSink for Junit {
    fn event(&mut self, event: &Event) {
        match event {
            Event::TaskFinished(finished) => self.cases.push(case(finished)),
            Event::RunFinished { duration, .. } => self.duration = *duration,
            Event::RunStarted { .. } | Event::TaskStarted { .. } | Event::Notice(_) | Event::Service(_) => {}
        }
    }
}

/// The log as text: both streams in the order they came, without escape sequences.
fn text(log: &Log) -> String {
    let bytes: Vec<u8> = log.iter().flat_map(|(_, piece)| piece.iter().copied()).collect();
    without_escapes(&String::from_utf8_lossy(&bytes))
}

fn seconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_secs(), duration.subsec_millis())
}

/// The text without ANSI control sequences (ECMA-48, section 5.4): XML cannot hold them and no reader wants them.
pub(crate) fn without_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '\x1b' {
            kept.push(letter);
        } else if letters.next_if_eq(&'[').is_some() {
            while letters.next_if(|letter| matches!(letter, '\x20'..='\x3f')).is_some() {}
            letters.next_if(|letter| matches!(letter, '\x40'..='\x7e'));
        }
    }
    kept
}

/// The text as XML 1.0 character data or attribute value; characters XML has no way to write become U+FFFD.
fn escaped(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\n' | '\t' => xml.push(letter),
            // As a reference, or parsers turn it into a line feed (XML 1.0, section 2.11).
            '\r' => xml.push_str("&#13;"),
            '\u{0}'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => xml.push(char::REPLACEMENT_CHARACTER),
            letter => xml.push(letter),
        }
    }
    xml
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_whole_run_is_one_suite() {
        let mut junit = Junit::new();
        for event in &sample::whole_run().1 {
            junit.event(event);
        }
        insta::assert_snapshot!(junit.into_xml(), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="drystone" tests="5" failures="1" errors="0" skipped="2" time="3.200">
          <testsuite name="drystone" tests="5" failures="1" errors="0" skipped="2" time="3.200">
            <testcase classname="//libs/core" name="//libs/core:build" time="0.003"/>
            <testcase classname="//libs/ui" name="//libs/ui:build" time="1.200"/>
            <testcase classname="//apps/web" name="//apps/web:test" time="0.400">
              <failure message="exit code 2">why it ran: src/button.ts changed, +1 more
        button.test.ts: assertion failed
          left: 1
         right: 2</failure>
            </testcase>
            <testcase classname="//apps/web" name="//apps/web:image" time="0.000">
              <skipped message="//apps/web:test failed"/>
            </testcase>
            <testcase classname="//apps/web" name="//apps/web:deploy" time="0.000">
              <skipped message="//apps/web:test failed"/>
            </testcase>
          </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn whatever_a_command_prints_is_written_as_xml_can_hold_it() {
        let check = |bytes: &[u8], expect: &str| {
            let log = vec![(crate::sandbox::spec::Stream::Stdout, bytes.to_vec())];
            assert_eq!(escaped(&text(&log)), expect, "{bytes:?}");
        };
        check(b"a < b && c > \"d\"", "a &lt; b &amp;&amp; c &gt; &quot;d&quot;");
        check(b"]]>", "]]&gt;");
        check(b"\x1b[1;31mred\x1b[0m", "red");
        check(b"\x1b", "");
        check(b"\x1b[", "");
        check(b"nul \0 bell \x07", "nul \u{fffd} bell \u{fffd}");
        check(b"\xff\xfe", "\u{fffd}\u{fffd}");
        check("\u{ffff}".as_bytes(), "\u{fffd}");
        check(b"a\r\nb", "a&#13;\nb");
    }
}
