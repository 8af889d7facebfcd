//! JUnit XML files as one: the suites of all of them, with summed counts. Knows XML 1.0 as far as it takes to see that a document is
//! well-formed; what is not, or needs a DTD, is not merged.
//!
//! There is no standard of JUnit files. A document is `<testsuites>` with `<testsuite>`s in it, or one `<testsuite>`; the suites are
//! taken over byte for byte. Counts are those that a suite states, else those of its cases.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Deepest element that is read.
const DEPTH_MAX: usize = 1_000;

/// Most attributes of an element: each is compared with those before it.
const ATTRIBUTES_MAX: usize = 1_000;

/// The merged file, or what is wrong with one of them: its position, and a sentence fragment.
pub(super) fn merged(files: &[Vec<u8>]) -> Result<Vec<u8>, (usize, String)> {
    let texts: Vec<Cow<'_, str>> = files
        .iter()
        .enumerate()
        .map(|(at, file)| std::str::from_utf8(file).map(readable).map_err(|_| (at, "it is not UTF-8".to_owned())))
        .collect::<Result<_, _>>()?;
    let mut counts = Counts::default();
    let mut spaces: BTreeMap<&str, &str> = BTreeMap::new();
    let mut suites = String::new();
    let mut default = None;
    for (at, text) in texts.iter().enumerate() {
        let document = Document::read(text).map_err(|problem| (at, problem))?;
        counts.add(&document.counts);
        let own = document.spaces.iter().find(|(name, _)| *name == "xmlns").map(|(_, value)| *value);
        // It would become that of suites which have none.
        if *default.get_or_insert(own) != own {
            return Err((at, "its `xmlns` is another one".into()));
        }
        for (name, value) in document.spaces {
            if *spaces.entry(name).or_insert(value) != value {
                return Err((at, format!("its `{name}` is another one")));
            }
        }
        let inner = document.suites.trim_matches(['\n', '\r']);
        if !inner.trim().is_empty() {
            suites.push_str(inner);
            suites.push('\n');
        }
    }
    let mut xml = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites{}", counts.attributes());
    spaces.iter().for_each(|(name, value)| xml.push_str(&format!(" {name}={value}")));
    xml.push_str(">\n");
    xml.push_str(&suites);
    xml.push_str("</testsuites>\n");
    Ok(xml.into_bytes())
}

/// Control characters that XML has no way to hold become U+FFFD: commands print them, and writers let them through.
fn readable(text: &str) -> Cow<'_, str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let bad =
        |letter: char| matches!(letter, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}');
    if text.contains(bad) { Cow::Owned(text.replace(bad, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// What suites add up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    tests: u64,
    failures: u64,
    errors: u64,
    skipped: u64,
    micros: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.tests = self.tests.saturating_add(other.tests);
        self.failures = self.failures.saturating_add(other.failures);
        self.errors = self.errors.saturating_add(other.errors);
        self.skipped = self.skipped.saturating_add(other.skipped);
        self.micros = self.micros.saturating_add(other.micros);
    }

    fn attributes(&self) -> String {
        let Counts { tests, failures, errors, skipped, micros } = self;
        let millis = micros.saturating_add(500) / 1000;
        format!(
            " tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{}.{:03}\"",
            millis / 1000,
            millis % 1000
        )
    }

    /// What a suite says of itself, where it does.
    fn stated(self, attributes: &[(&str, &str)]) -> Self {
        let text = |name: &str| {
            let found = attributes.iter().find(|(own, _)| *own == name)?;
            Some(found.1[1..found.1.len() - 1].trim())
        };
        let number =
            |names: &[&str], counted: u64| names.iter().find_map(|name| text(name)?.parse().ok()).unwrap_or(counted);
        let seconds = text("time").and_then(|time| time.replace(',', "").parse::<f64>().ok());
        Self {
            tests: number(&["tests"], self.tests),
            // What is there counts, whatever the suite says of itself.
            failures: number(&["failures"], 0).max(self.failures),
            errors: number(&["errors"], 0).max(self.errors),
            skipped: number(&["skipped", "skips"], self.skipped),
            // Casting saturates, and takes what is no number for nothing.
            micros: seconds.map_or(self.micros, |seconds| (seconds * 1e6).round() as u64),
        }
    }
}

/// One well-formed JUnit file.
struct Document<'t> {
    /// The suites as they stand there.
    suites: &'t str,
    /// `xmlns` and `xmlns:…` of a `<testsuites>`, which its suites may need; values with their quotes.
    spaces: Vec<(&'t str, &'t str)>,
    counts: Counts,
}

/// An element that is open.
struct Open<'t> {
    name: &'t str,
    attributes: Vec<(&'t str, &'t str)>,
    counts: Counts,
}

impl<'t> Document<'t> {
    fn read(text: &'t str) -> Result<Self, String> {
        let mut scan = Scan { text, at: 0 };
        let mut open: Vec<Open<'t>> = Vec::new();
        let mut root: Option<(usize, usize)> = None;
        let mut prefixes = Prefixes::default();
        let mut document = Document { suites: "", spaces: Vec::new(), counts: Counts::default() };
        while let Some(piece) = scan.next()? {
            match piece {
                Token::Text(text) if open.is_empty() && !text.trim().is_empty() => {
                    return Err("it has text outside of its root".into());
                }
                Token::Text(_) | Token::Comment => {}
                Token::Data if open.is_empty() => return Err("it has text outside of its root".into()),
                Token::Data => {}
                Token::Start { name, attributes, start, ends } => {
                    if open.is_empty() {
                        match (root, name) {
                            (Some(_), _) => return Err("it has two roots".into()),
                            (None, "testsuites" | "testsuite") => root = Some((start, scan.at)),
                            (None, _) => return Err(format!("its root is `<{name}>`, and not `<testsuites>`")),
                        }
                    }
                    prefixes.open(&attributes);
                    prefixes.check(name, &attributes)?;
                    if open.len() == DEPTH_MAX {
                        return Err(format!("its elements are nested more than {DEPTH_MAX} deep"));
                    }
                    count(&mut open, name);
                    open.push(Open { name, attributes, counts: Counts::default() });
                    if ends {
                        prefixes.close(&open);
                        close(&mut open, &mut document, text, root, scan.at, scan.at);
                    }
                }
                Token::End { name, start } => {
                    if open.last().is_none_or(|last| last.name != name) {
                        return Err(format!("`</{name}>` ends what it did not begin"));
                    }
                    prefixes.close(&open);
                    close(&mut open, &mut document, text, root, start, scan.at);
                }
            }
        }
        match (root, open.last()) {
            (None, _) => Err("it is empty".into()),
            (_, Some(last)) => Err(format!("`<{}>` has no end", last.name)),
            _ => Ok(document),
        }
    }
}

/// Prefixes of names that are declared where a document has been read to, each with how often.
#[derive(Default)]
struct Prefixes<'t>(BTreeMap<&'t str, usize>);

impl<'t> Prefixes<'t> {
    fn declared<'a>(attributes: &'a [(&'t str, &'t str)]) -> impl Iterator<Item = &'t str> + 'a {
        attributes.iter().filter_map(|(name, _)| name.strip_prefix("xmlns:"))
    }

    fn open(&mut self, attributes: &[(&'t str, &'t str)]) {
        Self::declared(attributes).for_each(|prefix| *self.0.entry(prefix).or_default() += 1);
    }

    /// Takes those of the innermost element back.
    fn close(&mut self, open: &[Open<'t>]) {
        for prefix in open.last().into_iter().flat_map(|last| Self::declared(&last.attributes)) {
            if let Some(times) = self.0.get_mut(prefix) {
                *times -= 1;
            }
        }
    }

    /// A reader of XML refuses a prefix that nothing declares.
    fn check(&self, name: &str, attributes: &[(&str, &str)]) -> Result<(), String> {
        let is_odd = |(name, value): &&(&str, &str)| match name.strip_prefix("xmlns:") {
            Some(prefix) => value.len() == 2 || matches!(prefix, "xml" | "xmlns"),
            None => false,
        };
        if let Some((name, _)) = attributes.iter().find(is_odd) {
            return Err(format!("its `{}` cannot be", name.chars().take(20).collect::<String>()));
        }
        for name in attributes.iter().map(|(name, _)| *name).chain([name]) {
            let Some((prefix, rest)) = name.split_once(':') else { continue };
            let is_known = matches!(prefix, "xml" | "xmlns") || self.0.get(prefix).is_some_and(|times| *times > 0);
            if !is_known || !is_xml_name(rest) || rest.contains(':') {
                return Err(format!("nothing declares the prefix of `{}`", name.chars().take(20).collect::<String>()));
            }
        }
        Ok(())
    }
}

/// Counts a case, or what became of one, for the innermost suite around it.
fn count(open: &mut [Open<'_>], name: &str) {
    let in_case = open.last().is_some_and(|last| last.name == "testcase");
    let add: fn(&mut Counts) = match name {
        "testcase" => |counts| counts.tests += 1,
        "failure" if in_case => |counts| counts.failures += 1,
        "error" if in_case => |counts| counts.errors += 1,
        "skipped" if in_case => |counts| counts.skipped += 1,
        _ => return,
    };
    if let Some(suite) = open.iter_mut().rfind(|one| one.name == "testsuite") {
        add(&mut suite.counts);
    }
}

/// Takes the innermost element off. `end` is where its end tag begins, `after` what follows it.
fn close<'t>(
    open: &mut Vec<Open<'t>>,
    document: &mut Document<'t>,
    text: &'t str,
    root: Option<(usize, usize)>,
    end: usize,
    after: usize,
) {
    let (Some(closed), Some((start, inside))) = (open.pop(), root) else { return };
    let is_suite = closed.name == "testsuite";
    if is_suite && let Some(around) = open.iter_mut().rfind(|one| one.name == "testsuite") {
        around.counts.add(&closed.counts);
    }
    // The suites directly in the root, or the root: those within a suite are part of its counts.
    if is_suite && (open.is_empty() || (open.len() == 1 && open[0].name == "testsuites")) {
        document.counts.add(&closed.counts.stated(&closed.attributes));
    }
    if open.is_empty() {
        document.suites = if is_suite { &text[start..after] } else { text.get(inside..end).unwrap_or("") };
        let is_space = |name: &str| name == "xmlns" || name.starts_with("xmlns:");
        document.spaces = closed.attributes.into_iter().filter(|(name, _)| !is_suite && is_space(name)).collect();
    }
}

enum Token<'t> {
    Text(&'t str),
    /// A comment or a processing instruction.
    Comment,
    /// `<![CDATA[…]]>`.
    Data,
    Start {
        name: &'t str,
        attributes: Vec<(&'t str, &'t str)>,
        start: usize,
        /// `<a/>`.
        ends: bool,
    },
    End {
        name: &'t str,
        start: usize,
    },
}

/// Where a document has been read to.
struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scan<'t> {
    fn next(&mut self) -> Result<Option<Token<'t>>, String> {
        let start = self.at;
        let rest = &self.text[start..];
        if rest.is_empty() {
            return Ok(None);
        }
        if !rest.starts_with('<') {
            let text = &rest[..rest.find('<').unwrap_or(rest.len())];
            check_text(text)?;
            if text.contains("]]>") {
                return Err("it has `]]>` in its text".into());
            }
            self.at += text.len();
            return Ok(Some(Token::Text(text)));
        }
        if let Some(comment) = rest.strip_prefix("<!--") {
            let inside = self.until(comment, "-->", 4)?;
            return if inside.contains("--") {
                Err("it has `--` in a comment".into())
            } else {
                Ok(Some(Token::Comment))
            };
        }
        if let Some(data) = rest.strip_prefix("<![CDATA[") {
            self.until(data, "]]>", 9)?;
            return Ok(Some(Token::Data));
        }
        if let Some(instruction) = rest.strip_prefix("<?") {
            let inside = self.until(instruction, "?>", 2)?;
            let target = inside.split(|letter: char| letter.is_ascii_whitespace()).next().unwrap_or("");
            if target == "xml" {
                check_declaration(inside, start)?;
            } else if target.eq_ignore_ascii_case("xml") || !is_xml_name(target) || target.contains(':') {
                return Err(format!("`<?{}` is no instruction", target.chars().take(20).collect::<String>()));
            }
            return Ok(Some(Token::Comment));
        }
        if rest.starts_with("<!") {
            return Err("it has a document type, which is not read".into());
        }
        if let Some(end) = rest.strip_prefix("</") {
            let inside = self.until(end, ">", 2)?;
            let name = inside.trim_end();
            return if is_xml_name(name) { Ok(Some(Token::End { name, start })) } else { Err(no_tag(inside)) };
        }
        self.start(start)
    }

    /// What stands before `close`, which is stepped over; `before` bytes of the text are behind already.
    fn until(&mut self, rest: &'t str, close: &str, before: usize) -> Result<&'t str, String> {
        let end = rest.find(close).ok_or_else(|| format!("it ends before a `{close}`"))?;
        self.at += before + end + close.len();
        Ok(&rest[..end])
    }

    fn start(&mut self, start: usize) -> Result<Option<Token<'t>>, String> {
        let rest = &self.text[start + 1..];
        let name = &rest
            [..rest.find(|letter: char| letter.is_ascii_whitespace() || "/>".contains(letter)).unwrap_or(rest.len())];
        if !is_xml_name(name) {
            return Err(no_tag(name));
        }
        self.at = start + 1 + name.len();
        let mut attributes: Vec<(&str, &str)> = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_ascii_start();
            let spaced = trimmed.len() < rest.len();
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("/>") {
                self.at += 2;
                return Ok(Some(Token::Start { name, attributes, start, ends: true }));
            }
            if trimmed.starts_with('>') {
                self.at += 1;
                return Ok(Some(Token::Start { name, attributes, start, ends: false }));
            }
            let wrong = || format!("the attributes of `<{name}>` cannot be read");
            if attributes.len() == ATTRIBUTES_MAX {
                return Err(format!("`<{name}>` has more than {ATTRIBUTES_MAX} attributes"));
            }
            let (own, value) = trimmed.split_once('=').ok_or_else(wrong)?;
            let (own, padded) = (own.trim_ascii_end(), value.trim_ascii_start());
            let quote = padded.chars().next().filter(|quote| "\"'".contains(*quote)).ok_or_else(wrong)?;
            let end = padded[1..].find(quote).ok_or_else(wrong)? + 2;
            let value = &padded[..end];
            check_text(value)?;
            if !spaced || !is_xml_name(own) || value.contains('<') || attributes.iter().any(|(known, _)| *known == own)
            {
                return Err(wrong());
            }
            // A suffix of the text: its length says where it begins.
            self.at = self.text.len() - padded.len() + end;
            attributes.push((own, value));
        }
    }
}

fn no_tag(inside: &str) -> String {
    format!("`<{}` is no tag", inside.chars().take(20).collect::<String>())
}

/// Names as XML has them (XML 1.0, 2.3).
fn is_xml_name(name: &str) -> bool {
    let mut letters = name.chars();
    let begins = |letter: char| {
        matches!(letter,
            'A'..='Z' | 'a'..='z' | '_' | ':' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
            | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}' | '\u{200d}' | '\u{2070}'..='\u{218f}'
            | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
            | '\u{10000}'..='\u{effff}')
    };
    let goes_on = |letter: char| matches!(letter, '0'..='9' | '-' | '.' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}' | '\u{2040}');
    letters.next().is_some_and(begins) && letters.all(|letter| begins(letter) || goes_on(letter))
}

/// Only references that need no document type.
fn check_text(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        rest = &rest[at + 1..];
        let name = rest.split_once(';').map_or("", |(name, _)| name);
        let number = name.strip_prefix('#').and_then(|digits| match digits.strip_prefix('x') {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => digits.parse().ok(),
        });
        // Numbers are read with a sign as well.
        let number = number.filter(|_| !name.contains('+'));
        let letter = number.and_then(char::from_u32);
        let is_letter = letter
            .is_some_and(|letter| !letter.is_control() || matches!(letter, '\t' | '\n' | '\r' | '\u{7f}'..='\u{9f}'));
        let is_letter = is_letter && !matches!(letter, Some('\u{fffe}' | '\u{ffff}'));
        if !is_letter && !["amp", "lt", "gt", "quot", "apos"].contains(&name) {
            return Err(format!("it has a `&{}` that XML does not know", name.chars().take(20).collect::<String>()));
        }
    }
    Ok(())
}

fn check_declaration(inside: &str, start: usize) -> Result<(), String> {
    let encoding = inside.split_once("encoding").map(|(_, rest)| rest.trim_start_matches(['=', ' ', '"', '\'']));
    let encoding = encoding.map(|rest| rest.split(['"', '\'']).next().unwrap_or("").to_ascii_lowercase());
    match encoding.as_deref() {
        _ if start > 0 => Err("its XML declaration does not stand at its beginning".into()),
        None | Some("utf-8" | "us-ascii" | "ascii") => Ok(()),
        Some(other) => Err(format!("its encoding is `{other}`, and not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merge(files: &[&str]) -> Result<String, (usize, String)> {
        let files: Vec<Vec<u8>> = files.iter().map(|file| file.as_bytes().to_vec()).collect();
        merged(&files).map(|bytes| String::from_utf8(bytes).expect("text"))
    }

    #[test]
    fn suites_of_all_files_stand_in_one_with_summed_counts() {
        let one = "<?xml version=\"1.0\" encoding=\"utf-8\"?><testsuites name=\"pytest tests\"><testsuite name=\"pytest\" errors=\"0\" \
                   failures=\"1\" skipped=\"0\" tests=\"2\" time=\"0.0409\"><testcase name=\"a\" /><testcase name=\"b\"><failure \
                   message=\"x &lt; y\">no</failure></testcase></testsuite></testsuites>";
        let two = "<!-- made by hand -->\n<testsuite name='c'>\n  <testcase name='d'><skipped/></testcase>\n  <testcase name=\"e\"><error><![CDATA[a < b]]></error></testcase>\n</testsuite>\n";
        insta::assert_snapshot!(merge(&[one, two]).expect("merged"), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites tests="4" failures="1" errors="1" skipped="1" time="0.041">
        <testsuite name="pytest" errors="0" failures="1" skipped="0" tests="2" time="0.0409"><testcase name="a" /><testcase name="b"><failure message="x &lt; y">no</failure></testcase></testsuite>
        <testsuite name='c'>
          <testcase name='d'><skipped/></testcase>
          <testcase name="e"><error><![CDATA[a < b]]></error></testcase>
        </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn what_suites_need_of_their_root_comes_along() {
        let root = "<testsuites xmlns:x=\"urn:x\"><testsuite x:a=\"1\" tests=\"1\"/></testsuites>";
        let both = merge(&[root, root, "<testsuites/>"]).expect("merged");
        assert!(both.contains("time=\"0.000\" xmlns:x=\"urn:x\">") && both.contains("tests=\"2\""), "{both}");
        let other = root.replace("urn:x", "urn:y");
        assert_eq!(merge(&[root, &other]), Err((1, "its `xmlns:x` is another one".into())));
    }

    #[test]
    fn nested_suites_count_once() {
        let nested =
            "<testsuites><testsuite><testsuite tests=\"9\"><testcase/></testsuite><testcase/></testsuite></testsuites>";
        assert!(merge(&[nested]).expect("merged").contains("testsuites tests=\"2\""));
    }

    #[test]
    fn letters_that_xml_cannot_hold_do_not_spoil_the_rest() {
        let merged = merge(&["<testsuite><system-out>\u{1b}[31m</system-out></testsuite>"]).expect("merged");
        assert!(merged.contains("<system-out>\u{fffd}[31m</system-out>"), "{merged}");
    }

    #[test]
    fn what_is_not_well_formed_is_not_merged() {
        let check = |text: &str, expect: &str| {
            assert_eq!(merge(&["<testsuite/>", text]), Err((1, expect.to_owned())), "{text}");
        };
        check("", "it is empty");
        check(" \n", "it is empty");
        check("<coverage/>", "its root is `<coverage>`, and not `<testsuites>`");
        check("<testsuite>", "`<testsuite>` has no end");
        check("<testsuite/><testsuite/>", "it has two roots");
        check("<testsuite></testsuites>", "`</testsuites>` ends what it did not begin");
        check("</a>", "`</a>` ends what it did not begin");
        check("<testsuite>&nbsp;</testsuite>", "it has a `&nbsp` that XML does not know");
        check("<testsuite>a & b</testsuite>", "it has a `&` that XML does not know");
        check("<testsuite>&#27;</testsuite>", "it has a `&#27` that XML does not know");
        check("<testsuite a=b/>", "the attributes of `<testsuite>` cannot be read");
        check("<testsuite a=\"1\" a=\"2\"/>", "the attributes of `<testsuite>` cannot be read");
        check("<testsuite a=\"1\"b=\"2\"/>", "the attributes of `<testsuite>` cannot be read");
        check("<testsuite a=\"<\"/>", "the attributes of `<testsuite>` cannot be read");
        check("<testsuite a=\"1", "the attributes of `<testsuite>` cannot be read");
        check("<testsuite/>x", "it has text outside of its root");
        check("<testsuite>< a/></testsuite>", "`<` is no tag");
        check("<testsuite><!-- ", "it ends before a `-->`");
        check("<!DOCTYPE x [<!ENTITY a \"b\">]><testsuite/>", "it has a document type, which is not read");
        check("<?xml version='1.0' encoding='latin-1'?><testsuite/>", "its encoding is `latin-1`, and not UTF-8");
        check("<testsuite>]]></testsuite>", "it has `]]>` in its text");
        check("<testsuite><?xml\tversion='1.0'?></testsuite>", "its XML declaration does not stand at its beginning");
        check("<?xml\nversion='1.0' encoding='utf-16'?><testsuite/>", "its encoding is `utf-16`, and not UTF-8");
        check("<testsuite><?XML x?></testsuite>", "`<?XML` is no instruction");
        check("<testsuite><? x?></testsuite>", "`<?` is no instruction");
        check("<testsuite>&#x+41;</testsuite>", "it has a `&#x+41` that XML does not know");
        check("<testsuite>&#+65;</testsuite>", "it has a `&#+65` that XML does not know");
        check("<testsuite><a×/></testsuite>", "`<a×` is no tag");
        check("<testsuite><x:a/></testsuite>", "nothing declares the prefix of `x:a`");
        check("<testsuite><b xmlns:x='u'/><a x:b='1'/></testsuite>", "nothing declares the prefix of `x:b`");
        check("<testsuite xmlns:x=''/>", "its `xmlns:x` cannot be");
        check("<testsuites xmlns='u'/>", "its `xmlns` is another one");
    }

    #[test]
    fn a_failure_counts_whatever_the_suite_says_of_itself() {
        let sly =
            "<testsuite tests=\"1\" failures=\"0\" errors=\"-1\"><testcase><failure/><error/></testcase></testsuite>";
        let merged = merge(&[sly, "<testsuite failures=\"3\"/>"]).expect("merged");
        assert!(merged.contains("<testsuites tests=\"1\" failures=\"4\" errors=\"1\""), "{merged}");
    }

    #[test]
    fn reports_that_would_take_for_ever_are_refused() {
        let deep = |name: &str, times: usize| format!("<testsuite>{}", format!("<{name}>").repeat(times));
        let told = format!("its elements are nested more than {DEPTH_MAX} deep");
        assert_eq!(merge(&[&deep("testcase", 200_000)]), Err((0, told.clone())));
        assert_eq!(merge(&[&deep("testsuite", 200_000)]), Err((0, told)));
        let attributes: String = (0..200_000).map(|at| format!(" a{at}=''")).collect();
        let told = format!("`<testsuite>` has more than {ATTRIBUTES_MAX} attributes");
        assert_eq!(merge(&[&format!("<testsuite{attributes}/>")]), Err((0, told)));
    }

    proptest! {
        #[test]
        fn whatever_merges_merges_again(text in "(<testsuite>|</testsuite>|<testsuites>|</testsuites>|<testcase/>|<a b='&lt;'/>|&amp;|x|\\]|>|<|\"|'|é| ){0,12}") {
            if let Ok(once) = merge(&[&text]) {
                let twice = merge(&[&once, &once]);
                prop_assert!(twice.is_ok(), "{once}: {twice:?}");
                prop_assert_eq!(merge(&[&once]), Ok(once));
            }
        }
    }
}
