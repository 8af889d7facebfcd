//! Diagnostics as text: path, line, column, the source with what is meant underlined, and the way out. Finds nothing wrong itself.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use crate::base::diagnostic::{Diagnostic, Severity, merge_alike};
use crate::base::span::{SourceId, Sources};
use crate::report::ink::{Color, Ink, paint};

/// Narrowest width lines are fitted to, in columns: below it nothing would be left of them.
const WIDTH_MIN: usize = 40;

/// Renders one diagnostic, every line ended by a line feed.
///
/// Places are shown as they are in `sources`; a range that does not fit its text is moved to the nearest one that does,
/// and a mark in an unknown source is left out. `width` is in columns.
pub fn render(diagnostic: &Diagnostic, sources: &Sources, color: Color, width: usize) -> String {
    let snippets = snippets(diagnostic, sources);
    let mut text = if snippets.is_empty() {
        title(diagnostic, color)
    } else {
        let level = level(diagnostic.severity);
        let renderer = match color {
            Color::Plain => Renderer::plain(),
            Color::Colored => Renderer::styled(),
        };
        let message = printable(&diagnostic.message);
        let group = Group::with_title(level.primary_title(message)).elements(snippets);
        let mut text = renderer.term_width(width.max(WIDTH_MIN)).render(&[group]);
        text.push('\n');
        text
    };
    for help in &diagnostic.help {
        text.push_str(&indented(&paint(color, Ink::Calm, "help"), &printable(help)));
    }
    text
}

/// Renders several, an empty line between them, alike ones once.
pub fn render_all(diagnostics: &[Diagnostic], sources: &Sources, color: Color, width: usize) -> String {
    merge_alike(diagnostics.to_vec())
        .iter()
        .map(|one| render(one, sources, color, width))
        .collect::<Vec<_>>()
        .join("\n")
}

fn level(severity: Severity) -> Level<'static> {
    match severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    }
}

/// The word of a severity, the same in text and JSON.
pub const fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn title(diagnostic: &Diagnostic, color: Color) -> String {
    let ink = match diagnostic.severity {
        Severity::Error => Ink::Bad,
        Severity::Warning => Ink::Care,
        Severity::Note => Ink::Strong,
    };
    let word = paint(color, ink, severity_word(diagnostic.severity));
    format!("{word}: {}\n", printable(&diagnostic.message).replace('\n', "\n  "))
}

/// `  help: text`, further lines below the first.
fn indented(word: &str, text: &str) -> String {
    format!("  {word}: {}\n", text.replace('\n', "\n        "))
}

/// The text without what would steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\n' | '\t' => letter,
            letter if letter.is_control() => char::REPLACEMENT_CHARACTER,
            letter => letter,
        })
        .collect()
}

/// One snippet per source, in the order in which the marks first name them; the very first mark is the main one.
fn snippets<'s>(diagnostic: &'s Diagnostic, sources: &'s Sources) -> Vec<Snippet<'s, Annotation<'s>>> {
    let mut order: Vec<SourceId> = Vec::new();
    for mark in &diagnostic.marks {
        if sources.find(mark.place.source).is_some() && !order.contains(&mark.place.source) {
            order.push(mark.place.source);
        }
    }
    order.into_iter().filter_map(|id| snippet(diagnostic, sources, id)).collect()
}

fn snippet<'s>(diagnostic: &'s Diagnostic, sources: &'s Sources, id: SourceId) -> Option<Snippet<'s, Annotation<'s>>> {
    let source = sources.find(id)?;
    let text = sources.text(id);
    let marks: Vec<(usize, Range<usize>)> = diagnostic
        .marks
        .iter()
        .enumerate()
        .filter(|(_, mark)| mark.place.source == id)
        .map(|(index, mark)| (index, fit(text, &mark.place.range)))
        .collect();
    let window = window(text, &marks);
    let first_line = text[..window.start].matches('\n').count() + 1;
    let annotations = marks.into_iter().map(|(index, range)| {
        let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let annotation = kind.span(range.start - window.start..range.end - window.start);
        match diagnostic.marks[index].text.as_str() {
            "" => annotation,
            label => annotation.label(printable(label)),
        }
    });
    let shown = Snippet::source(&text[window.clone()])
        .path(printable(&source.path.to_string_lossy()))
        .line_start(first_line)
        .annotations(annotations);
    Some(shown)
}

/// The nearest range that lies in `text` and ends at character boundaries.
fn fit(text: &str, range: &Range<usize>) -> Range<usize> {
    let mut start = range.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = range.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// The whole lines from the first mark to the last. The renderer walks all it is given, and a manifest may be long.
fn window(text: &str, marks: &[(usize, Range<usize>)]) -> Range<usize> {
    let start = marks.iter().map(|(_, range)| range.start).min().unwrap_or(0);
    let end = marks.iter().map(|(_, range)| range.end).max().unwrap_or(0);
    line_start(text, start)..line_end(text, end)
}

fn line_start(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |feed| feed + 1)
}

fn line_end(text: &str, at: usize) -> usize {
    text.as_bytes()[at..].iter().position(|&byte| byte == b'\n').map_or(text.len(), |feed| at + feed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::span::Place;
    use crate::report::junit::without_escapes;

    fn plain(text: &str, marks: &[(Range<usize>, &str)], help: &[&str]) -> String {
        let mut sources = Sources::default();
        let id = sources.add("apps/web/drystone.toml", text);
        let mut diagnostic = Diagnostic::error("unknown key `input`");
        for (range, words) in marks {
            diagnostic = diagnostic.at(&Place::new(id, range.clone()), *words);
        }
        for words in help {
            diagnostic = diagnostic.help(*words);
        }
        render(&diagnostic, &sources, Color::Plain, 80)
    }

    #[test]
    fn a_place_is_shown_with_path_line_column_and_underline() {
        let text = "[task.build]\nrun = \"make\"\ninput = [\"src/**\"]\n";
        insta::assert_snapshot!(plain(text, &[(26..31, "not a key of a task")], &["did you mean `inputs`?"]), @r#"
        error: unknown key `input`
         --> apps/web/drystone.toml:3:1
          |
        3 | input = ["src/**"]
          | ^^^^^ not a key of a task
          help: did you mean `inputs`?
        "#);
    }

    #[test]
    fn without_a_place_message_and_help_stand_alone() {
        insta::assert_snapshot!(plain("", &[], &["one way", "another"]), @r#"
        error: unknown key `input`
          help: one way
          help: another
        "#);
    }

    #[test]
    fn several_files_each_have_their_own_snippet() {
        let mut sources = Sources::default();
        let one = sources.add("a/drystone.toml", "[task.x]\nneeds = [\"//b:y\"]\n");
        let other = sources.add("b/drystone.toml", "[task.y]\nneeds = [\"//a:x\"]\n");
        let diagnostic = Diagnostic::error("the tasks need each other in a circle")
            .at(&Place::new(one, 18..25), "`//a:x` needs `//b:y`")
            .at(&Place::new(other, 18..25), "`//b:y` needs `//a:x`");
        insta::assert_snapshot!(render(&diagnostic, &sources, Color::Plain, 80), @r#"
        error: the tasks need each other in a circle
         --> a/drystone.toml:2:10
          |
        2 | needs = ["//b:y"]
          |          ^^^^^^^ `//a:x` needs `//b:y`
          |
         ::: b/drystone.toml:2:10
          |
        2 | needs = ["//a:x"]
          |          ------- `//b:y` needs `//a:x`
        "#);
    }

    #[test]
    fn colour_never_carries_meaning_alone() {
        let mut sources = Sources::default();
        let id = sources.add("drystone.toml", "run = 1\n");
        let diagnostic = Diagnostic::warning("`run` is a number").at(&Place::new(id, 6..7), "here").help("quote it");
        let colored = render(&diagnostic, &sources, Color::Colored, 80);
        assert!(colored.contains('\x1b'));
        let plain = render(&diagnostic, &sources, Color::Plain, 80);
        assert!(!plain.contains('\x1b'));
        assert_eq!(without_escapes(&colored), plain);
    }

    #[test]
    fn odd_spans_are_moved_to_where_they_fit() {
        let check = |text: &str, range: Range<usize>, expect: &str| {
            let shown = plain(text, &[(range.clone(), "here")], &[]);
            assert!(shown.contains(expect), "{text:?} {range:?}:\n{shown}");
        };
        check("", 0..0, "drystone.toml:1:1");
        check("", 5..9, "drystone.toml:1:1");
        check("a = 1", 5..5, "drystone.toml:1:6");
        check("a = 1\n", 6..6, "here");
        check("a = 1\n", 900..1000, "here");
        #[expect(clippy::reversed_empty_ranges, reason = "a reversed range is one of the odd ones")]
        check("a = 1\n", 4..2, "drystone.toml:1:5");
        check("ä = 1", 1..2, "drystone.toml:1:1");
        check("a = \"\u{1f9f1}\"", 6..7, "drystone.toml:1:6");
        check("\ta\t= 1", 1..2, "drystone.toml:1:2");
        check("a = 1\r\nb = 2\r\n", 7..8, "drystone.toml:2:1");
        check("a = 1\r\nb = 2\r\n", 5..7, "here");
        check("\r\n", 1..1, "here");
        check("\u{feff}a = 1", 3..4, "here");
    }

    #[test]
    fn a_very_long_line_is_cut_to_the_width() {
        let text = format!("{}needle{}\n", "a".repeat(100_000), "b".repeat(100_000));
        let shown = plain(&text, &[(100_000..100_006, "here")], &[]);
        assert!(shown.contains("needle"));
        assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    }

    #[test]
    fn a_mark_in_an_unknown_source_is_left_out() {
        let diagnostic = Diagnostic::error("lost").at(&Place::new(SourceId(7), 0..1), "here");
        assert_eq!(render(&diagnostic, &Sources::default(), Color::Plain, 80), "error: lost\n");
    }

    #[test]
    fn nothing_in_a_message_steers_the_terminal() {
        let diagnostic = Diagnostic::error("file `\x1b[2Jx\r`").help("rm `\x07`");
        let shown = render(&diagnostic, &Sources::default(), Color::Plain, 80);
        assert!(!shown.contains(['\x1b', '\r', '\x07']), "{shown:?}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_and_no_span_makes_it_panic(
            text in "[a-z\t\r\n\u{0}\u{1b}ä\u{1f9f1}\u{200d} \"=]{0,60}",
            spans in proptest::collection::vec((0usize..80, 0usize..80), 0..5),
            width in 0usize..200,
        ) {
            let mut sources = Sources::default();
            let id = sources.add("x.toml", text.as_str());
            let mut diagnostic = Diagnostic::error("m");
            for (start, end) in spans {
                diagnostic = diagnostic.at(&Place::new(id, start..end), "t");
            }
            for color in [Color::Plain, Color::Colored] {
                render(&diagnostic, &sources, color, width);
            }
        }
    }
}
