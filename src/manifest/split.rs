//! `split`: one task for each group of its items. What is declared, and what the names of a part stand for. Lists no files: which
//! items there are is the workspace's to find out.

use crate::base::compact::{Compact, Reader, Writer};
use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::limits::{ARGUMENTS_BYTES_MAX, SHELL_COMMAND_BYTES_MAX};
use crate::base::path::RelPath;
use crate::base::span::Place;
use crate::manifest::glob::{Pattern, PatternItem, PatternList};
use crate::manifest::interpolate::mentions;
use crate::manifest::model::Command;
use crate::manifest::origin::Written;
use crate::manifest::patterns;
use crate::manifest::task::Lowering;
use crate::manifest::value::{At, CommandText, ItemsText, PerActionText};

/// The axes that name a part in a label; no axis of a matrix beside `split` may be called so.
pub const PART_AXES: [&str; 2] = ["items", "part"];

/// Digits of the digest that name the part of a single item.
const INDEX_DIGITS: usize = 12;

/// Letters of an item kept in the name of a file.
const FILE_NAME_LETTERS_MAX: usize = 80;

/// `split` of a task.
#[derive(Clone, Debug)]
pub struct Split {
    /// Which files of the package are items, relative to it.
    pub items: PatternList,
    /// How many of them one action takes.
    pub per_action: PerAction,
    /// Where `items` stands.
    pub place: Place,
    /// The command as written, for lists.
    pub written: String,
    /// Those of the task's reports that are JUnit files.
    pub junit: PatternList,
    /// Where reports go that cannot be merged: each with the name of its part before its ending.
    pub apart: PatternList,
    /// Whether anything of the task names `${shard.total}`: then every part is another one where that number changes.
    pub counts_parts: bool,
    /// Which part this is.
    pub part: Part,
}

/// `per-action`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PerAction {
    /// About so many; exactly one where it is 1.
    Items(u32),
    /// As many as take about half a minute.
    Auto,
}

/// One part of a split task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Which items.
    pub group: Group,
    /// How many parts there may be: the buckets, or the items where each has a part of its own.
    pub total: usize,
}

/// The items of one part. Paths are relative to the package.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Group {
    /// Not known yet: the items have not been listed.
    Pending,
    /// There are no items at all: the task cannot run.
    Nothing,
    /// One item by itself.
    Item(RelPath),
    /// All items that fall into one bucket.
    Bucket {
        /// Its number, from 1.
        number: usize,
        /// The items, in byte order.
        items: Vec<RelPath>,
    },
}

crate::base::compact::compact_struct!(Split { items, per_action, place, written, junit, apart, counts_parts, part });
crate::base::compact::compact_struct!(Part { group, total });

impl Compact for PerAction {
    fn put(&self, writer: &mut Writer) {
        match self {
            PerAction::Auto => writer.byte(0),
            PerAction::Items(items) => {
                writer.byte(1);
                items.put(writer);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        match reader.byte()? {
            0 => Some(PerAction::Auto),
            1 => u32::take(reader).map(PerAction::Items),
            _ => None,
        }
    }
}

impl Compact for Group {
    fn put(&self, writer: &mut Writer) {
        match self {
            Group::Pending => writer.byte(0),
            Group::Nothing => writer.byte(1),
            Group::Item(item) => {
                writer.byte(2);
                item.put(writer);
            }
            Group::Bucket { number, items } => {
                writer.byte(3);
                number.put(writer);
                items.put(writer);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.byte()? {
            0 => Group::Pending,
            1 => Group::Nothing,
            2 => Group::Item(RelPath::take(reader)?),
            3 => Group::Bucket { number: usize::take(reader)?, items: Vec::take(reader)? },
            _ => return None,
        })
    }
}

impl Part {
    /// The part of a task whose items are not listed yet.
    pub const PENDING: Part = Part { group: Group::Pending, total: 1 };

    /// Its items.
    pub fn items(&self) -> &[RelPath] {
        match &self.group {
            Group::Pending | Group::Nothing => &[],
            Group::Item(item) => std::slice::from_ref(item),
            Group::Bucket { items, .. } => items,
        }
    }

    /// The axis and value that tell it from other parts in a label; `None` where there is nothing to tell apart.
    pub fn axis(&self) -> Option<(&'static str, String)> {
        match &self.group {
            Group::Pending | Group::Nothing => None,
            Group::Item(item) => Some((PART_AXES[0], label_value(item.as_str()))),
            Group::Bucket { number, .. } => Some((PART_AXES[1], format!("{number}/{}", self.total))),
        }
    }

    /// `${shard.index}`: the number of the bucket, or the first digits of the digest of a single item, which no other item moves.
    pub fn index(&self) -> String {
        match &self.group {
            Group::Pending | Group::Nothing => "1".to_owned(),
            Group::Item(item) => Digest::of(item.as_str().as_bytes()).to_hex()[..INDEX_DIGITS].to_owned(),
            Group::Bucket { number, .. } => number.to_string(),
        }
    }

    /// A name for files of this part: letters, digits, `.`, `_` and `-`, and no other part's.
    pub fn file_name(&self) -> String {
        match &self.group {
            Group::Pending | Group::Nothing => "1".to_owned(),
            Group::Bucket { number, .. } => format!("{number}-of-{}", self.total),
            Group::Item(item) => {
                let plain =
                    |letter: char| if letter.is_ascii_alphanumeric() || ".-".contains(letter) { letter } else { '_' };
                let name: String = item.as_str().chars().map(plain).take(FILE_NAME_LETTERS_MAX).collect();
                format!("{name}-{}", self.index())
            }
        }
    }

    /// The items as words of a command.
    pub(crate) fn words(&self) -> impl Iterator<Item = String> + '_ {
        self.items().iter().map(|item| match item.as_str() {
            // Or a program would take it for an option.
            option if option.starts_with('-') => format!("./{option}"),
            path => path.to_owned(),
        })
    }

    /// The items as a POSIX shell reads them back, with spaces between.
    pub(crate) fn quoted(&self) -> String {
        self.words().map(|word| shell_word(&word)).collect::<Vec<_>>().join(" ")
    }
}

/// A path where it stands in a label: what has a meaning there is written as `%` and two hexadecimal digits.
pub fn label_value(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut value = String::with_capacity(text.len());
    for (at, letter) in text.chars().enumerate() {
        let outer = at == 0 || at == last;
        if "%[],=#".contains(letter) || letter.is_control() || (outer && letter.is_whitespace()) {
            let mut bytes = [0; 4];
            letter.encode_utf8(&mut bytes).bytes().for_each(|byte| value.push_str(&format!("%{byte:02X}")));
        } else {
            value.push(letter);
        }
    }
    value
}

fn shell_word(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/:._-+@,".contains(letter);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// A path with the name of a part before its ending: `coverage.xml` of part 3 is `coverage.3-of-16.xml`.
pub fn apart(path: &RelPath, part: &Part) -> RelPath {
    RelPath::parse(&with_word(path.as_str(), &part.file_name())).unwrap_or_else(|_| path.clone())
}

/// Puts a word before the last ending of a path's last name, or at its end where it has none.
fn with_word(path: &str, word: &str) -> String {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    match path[name..].rfind('.').filter(|dot| *dot > 0) {
        Some(dot) => format!("{}.{word}{}", &path[..name + dot], &path[name + dot..]),
        None => format!("{path}.{word}"),
    }
}

/// Patterns for what [`apart`] makes of the paths that patterns match.
fn apart_patterns(list: &PatternList) -> PatternList {
    let apart = |item: &PatternItem| {
        let text = with_word(item.pattern.text.trim_end_matches('/'), "*");
        Some(PatternItem { pattern: Pattern::parse(&text).ok()?, ..item.clone() })
    };
    PatternList { items: list.items.iter().filter(|item| !item.exclude).filter_map(apart).collect() }
}

impl Lowering<'_, '_> {
    /// `split`; `None` without one, and after reporting why it cannot be.
    pub(crate) fn split(&mut self, reports: &PatternList, command: Option<&Command>) -> Option<Split> {
        let split = self.layers.first(|table| table.split.as_ref());
        split?;
        let part = self.names.part?.clone();
        let Some((items, origin)) = self.layers.first(|table| table.split.as_ref()?.items.as_ref()) else {
            if !self.layers.damaged {
                let place = self.layers.first(|table| table.run.as_ref()).map(|(run, origin)| origin.of(run));
                let error = Diagnostic::error("`split` without `items`");
                let error = place.iter().fold(error, |error, place| error.at(place, "the command that is to be split"));
                self.problems.push(error.help("add `items = \"tests/**/test_*.py\"` to it"));
            }
            return None;
        };
        let place = origin.of(items);
        let one = |text: &String| vec![At { value: text.clone(), range: items.range.clone() }];
        let list = match &items.value {
            ItemsText::One(text) => one(text),
            ItemsText::List(list) => list.clone(),
        };
        let item = |entry| patterns::own_item(Written::new(entry, origin), "item", &self.names, self.problems);
        let patterns: PatternList = list.iter().filter_map(item).collect();
        if patterns.items.iter().all(|item| item.exclude) && patterns.items.len() == list.len() {
            self.problems.push(
                Diagnostic::error("`items` of `split` only takes away, so there would be none")
                    .at(&place, "")
                    .help("begin the list with what to take, such as `tests/**/test_*.py`"),
            );
        }
        self.check_split(&place);
        self.check_length(command, &place);
        let per_action = self.layers.first(|table| table.split.as_ref()?.per_action.as_ref());
        Some(Split {
            items: patterns,
            per_action: match per_action.map(|(per_action, _)| per_action.value) {
                None => PerAction::Items(1),
                Some(PerActionText::Items(items)) => PerAction::Items(items),
                Some(PerActionText::Auto) => PerAction::Auto,
            },
            place,
            written: self.written(),
            junit: self.junit(),
            apart: apart_patterns(reports),
            // Known once all of the task was read.
            counts_parts: false,
            part,
        })
    }

    /// What cannot be together with `split`, and what must.
    fn check_split(&mut self, place: &Place) {
        if let Some((run, origin)) = self.layers.first(|table| table.run.as_ref()) {
            let named = match &run.value {
                CommandText::Shell(text) => mentions(text, "items"),
                CommandText::Words(words) => words.iter().any(|word| mentions(&word.value, "items")),
            };
            if !named {
                self.problems.push(
                    Diagnostic::error("the task has `split`, and its `run` does not name `${items}`")
                        .at(&origin.of(run), "every part would run everything")
                        .at(place, "these are the items")
                        .help("write `${items}` where the command takes its files"),
                );
            }
        }
        if let Some((committed, origin)) = self.layers.first(|table| table.committed.as_ref())
            && let Some(first) = committed.first()
        {
            self.problems.push(
                Diagnostic::error("`committed` and `split` cannot be together")
                    .at(&origin.of(first), "each part would check all of it")
                    .help("make committed files in a task of their own"),
            );
        }
        for axis in self.layers.merged(|table| table.matrix.as_ref().map(|matrix| &matrix.value)) {
            if PART_AXES.contains(&axis.0.value.as_str()) {
                self.problems.push(
                    Diagnostic::error(format!("a matrix beside `split` cannot have the axis `{}`", axis.0.value))
                        .at(&axis.2.of(axis.0), "parts are told apart by it")
                        .help("call the axis something else"),
                );
            }
        }
    }

    /// The kernel takes commands up to a length, and says nothing helpful about longer ones.
    fn check_length(&mut self, command: Option<&Command>, place: &Place) {
        let (bytes, most, way_out) = match command {
            Some(Command::Shell(text)) => {
                (text.len(), SHELL_COMMAND_BYTES_MAX, "make `per-action` smaller, or write `run` as an array")
            }
            Some(Command::Exec(words)) => {
                (words.iter().map(|word| word.len() + 1).sum(), ARGUMENTS_BYTES_MAX, "make `per-action` smaller")
            }
            Some(Command::Image(_)) | None => return,
        };
        if bytes > most {
            self.problems.push(
                Diagnostic::error(format!("the items of one action make a command of more than {most} bytes"))
                    .at(place, "")
                    .help(way_out),
            );
        }
    }

    fn written(&self) -> String {
        match self.layers.first(|table| table.run.as_ref()).map(|(run, _)| &run.value) {
            Some(CommandText::Shell(text)) => text.clone(),
            Some(CommandText::Words(words)) => {
                words.iter().map(|word| word.value.as_str()).collect::<Vec<_>>().join(" ")
            }
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    fn item(text: &str) -> Part {
        Part { group: Group::Item(path(text)), total: 3 }
    }

    #[test]
    fn items_come_through_a_shell_as_they_are() {
        let check = |items: &[&str], expect: &str| {
            let items = items.iter().map(|item| path(item)).collect();
            assert_eq!(Part { group: Group::Bucket { number: 1, items }, total: 1 }.quoted(), expect);
        };
        check(&["tests/test_a.py", "b.py"], "tests/test_a.py b.py");
        check(&["a b", "it's", "$x", "é"], "'a b' 'it'\\''s' '$x' 'é'");
        check(&["-k", "d/-k"], "./-k d/-k");
        check(&["~", "a\nb", "*"], "'~' 'a\nb' '*'");
    }

    #[test]
    fn a_part_has_a_name_in_labels_and_files_whatever_its_item_is_called() {
        let check = |text: &str, axis: &str, file: &str| {
            let (name, value) = item(text).axis().expect("it has one");
            assert_eq!((name, value.as_str()), ("items", axis));
            assert!(item(text).file_name().starts_with(&format!("{file}-")), "{}", item(text).file_name());
        };
        check("tests/test_a.py", "tests/test_a.py", "tests_test_a.py");
        check("a,b=[c]#%", "a%2Cb%3D%5Bc%5D%23%25", "a_b__c___");
        check(" a b ", "%20a b%20", "_a_b_");
        check("é/-x", "é/-x", "__-x");
        assert_ne!(item("a b").file_name(), item("a_b").file_name());
        let bucket = Part { group: Group::Bucket { number: 3, items: Vec::new() }, total: 16 };
        assert_eq!(bucket.axis(), Some(("part", "3/16".into())));
        assert_eq!((bucket.index(), bucket.file_name()), ("3".into(), "3-of-16".into()));
    }

    #[test]
    fn what_is_kept_apart_still_ends_as_it_did_and_is_found_again() {
        let part = Part { group: Group::Bucket { number: 3, items: Vec::new() }, total: 16 };
        let check = |pattern: &str, file: &str, expect: &str| {
            let apart = apart(&path(file), &part);
            assert_eq!(apart.as_str(), expect);
            let text = with_word(pattern, "*");
            assert!(Pattern::parse(&text).expect("a pattern").matches(&apart), "{text} {apart}");
        };
        check("coverage.xml", "coverage.xml", "coverage.3-of-16.xml");
        check("out/*.xml", "out/a.b.xml", "out/a.b.3-of-16.xml");
        check(".coverage", ".coverage", ".coverage.3-of-16");
        check("out.d/data", "out.d/data", "out.d/data.3-of-16");
    }
}
