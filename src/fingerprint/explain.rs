//! What differs between two fingerprints, in words. Reads trees through a function it is given; knows no store.

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Node, Tree};
use crate::fingerprint::sink::{Content, Field, RecordSink};

/// One difference. The engine turns it into its event of the same shape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Which field.
    pub field: &'static str,
    /// Which one of them; empty where the field is single.
    pub name: String,
    /// `added`, `removed`, `changed`, or `"old" → "new"`.
    pub change: String,
}

impl Difference {
    fn new(field: Field, name: impl Into<String>, change: impl Into<String>) -> Self {
        Self { field: field.word(), name: name.into(), change: change.into() }
    }
}

/// Most input paths told apart; the rest is counted.
const INPUTS_TOLD_MAX: usize = 200;

/// Lists what differs, inputs before the rest so that a person reads the usual cause first.
///
/// `tree` loads a tree by digest; where one is gone the difference is told at its directory.
pub fn differences(old: &RecordSink, new: &RecordSink, tree: &dyn Fn(&Digest) -> Option<Tree>) -> Vec<Difference> {
    let mut found = Vec::new();
    if let (Content::One(was), Content::One(is)) = (old.get(Field::Inputs), new.get(Field::Inputs))
        && let (Some(was), Some(is)) = (Digest::from_slice(was), Digest::from_slice(is))
    {
        let mut inputs = InputDiff { tree, found: Vec::new(), untold: 0 };
        inputs.dirs(&RelPath::root(), &was, &is);
        let untold = inputs.untold;
        found.append(&mut inputs.found);
        if untold > 0 {
            found.push(Difference::new(Field::Inputs, format!("{untold} more"), "changed"));
        }
    }
    let mut fields: Vec<Field> = new.fields.iter().chain(&old.fields).map(|(field, _)| *field).collect();
    fields.sort_unstable();
    fields.dedup();
    for field in fields.into_iter().filter(|field| *field != Field::Inputs) {
        let (was, is) = (old.get(field), new.get(field));
        if was != is {
            field_difference(field, was, is, &mut found);
        }
    }
    found
}

fn field_difference(field: Field, was: &Content, is: &Content, found: &mut Vec<Difference>) {
    match (was, is) {
        (Content::Map(was), Content::Map(is)) => {
            for (name, value) in is {
                let old = was.iter().find(|(other, _)| other == name).map(|(_, value)| value);
                match old {
                    Some(old) if old == value => {}
                    Some(old) => found.push(Difference::new(field, text(name), arrow(field, old, value))),
                    None => found.push(Difference::new(field, text(name), added(field, value))),
                }
            }
            for (name, _) in was.iter().filter(|(name, _)| !is.iter().any(|(other, _)| other == name)) {
                found.push(Difference::new(field, text(name), "removed"));
            }
        }
        (Content::Absent, Content::Map(_)) => field_difference(field, &Content::Map(Vec::new()), is, found),
        (Content::Map(_), Content::Absent) => field_difference(field, was, &Content::Map(Vec::new()), found),
        (Content::List(was), Content::List(is)) if field == Field::Image => lines(was, is, found),
        (Content::List(was), Content::List(is)) if field != Field::Fetch => {
            found.push(Difference::new(field, "", format!("{} → {}", words(was), words(is))));
        }
        (Content::One(was), Content::One(is)) => found.push(Difference::new(field, "", arrow(field, was, is))),
        _ => found.push(Difference::new(field, "", "changed")),
    }
}

/// Texts that each say one thing, of which most are as before: what is between those that begin and those that end alike.
fn lines(was: &[Vec<u8>], is: &[Vec<u8>], found: &mut Vec<Difference>) {
    let before = was.iter().zip(is).take_while(|(was, is)| was == is).count();
    let (was, is) = (&was[before..], &is[before..]);
    let after = was.iter().rev().zip(is.iter().rev()).take_while(|(was, is)| was == is).count();
    let (was, is) = (&was[..was.len() - after], &is[..is.len() - after]);
    // Trees that are among the inputs, too, are told by their paths.
    let is_told = |line: &[u8]| {
        let trees: [&[u8]; 4] = [b"sources=", b"layer=task ", b"base=task ", b"sees="];
        !found.is_empty() && trees.iter().any(|tree| line.starts_with(tree))
    };
    let told: Vec<bool> = was.iter().zip(is).map(|(was, is)| is_told(was) && is_told(is)).collect();
    if was.len() == is.len() {
        for (was, is) in
            was.iter().zip(is).zip(told).filter_map(|(pair, told)| (!told && pair.0 != pair.1).then_some(pair))
        {
            found.push(Difference::new(Field::Image, "", format!("{:?} → {:?}", text(was), text(is))));
        }
        return;
    }
    found.extend(was.iter().map(|line| Difference::new(Field::Image, text(line), "removed")));
    found.extend(is.iter().map(|line| Difference::new(Field::Image, text(line), "added")));
}

/// Opaque values are only said to have changed; texts are shown.
fn arrow(field: Field, was: &[u8], is: &[u8]) -> String {
    match field {
        Field::Tools | Field::System | Field::Services | Field::Unstable | Field::Root | Field::Traced => {
            "changed".into()
        }
        _ => format!("{:?} → {:?}", text(was), text(is)),
    }
}

fn added(field: Field, value: &[u8]) -> String {
    match field {
        Field::Env | Field::Salt => format!("unset → {:?}", text(value)),
        _ => "added".into(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn words(values: &[Vec<u8>]) -> String {
    let words: Vec<String> = values.iter().map(|value| format!("{:?}", text(value))).collect();
    format!("[{}]", words.join(", "))
}

struct InputDiff<'a> {
    tree: &'a dyn Fn(&Digest) -> Option<Tree>,
    found: Vec<Difference>,
    untold: usize,
}

impl InputDiff<'_> {
    fn tell(&mut self, path: &RelPath, change: &str) {
        if self.found.len() < INPUTS_TOLD_MAX {
            self.found.push(Difference::new(Field::Inputs, path.to_string(), change));
        } else {
            self.untold += 1;
        }
    }

    /// Only directories whose digests differ are loaded: cost is proportional to the difference.
    fn dirs(&mut self, at: &RelPath, was: &Digest, is: &Digest) {
        if was == is {
            return;
        }
        let (Some(old), Some(new)) = ((self.tree)(was), (self.tree)(is)) else {
            return self.tell(at, "changed");
        };
        for (name, node) in &new.entries {
            let path = at.child(name);
            match (old.entries.get(name), node) {
                (None, _) => self.subtree(&path, node, "added"),
                (Some(Node::Dir(was)), Node::Dir(is)) => self.dirs(&path, was, is),
                (Some(before), _) if before == node => {}
                (Some(before), _) => self.leaf(&path, before, node),
            }
        }
        for (name, node) in old.entries.iter().filter(|(name, _)| !new.entries.contains_key(*name)) {
            self.subtree(&at.child(name), node, "removed");
        }
    }

    fn leaf(&mut self, path: &RelPath, was: &Node, is: &Node) {
        let change = match (was, is) {
            (Node::File { digest: was, executable: could, .. }, Node::File { digest: is, executable: can, .. })
                if was == is && could != can =>
            {
                if *can {
                    "became executable"
                } else {
                    "is no longer executable"
                }
            }
            (Node::Link { target: was }, Node::Link { target: is }) => {
                return self.tell(path, &format!("links to {is:?}, before to {was:?}"));
            }
            (Node::File { .. }, Node::File { .. }) => "changed",
            _ => "changed its kind",
        };
        self.tell(path, change);
    }

    fn subtree(&mut self, path: &RelPath, node: &Node, change: &str) {
        let Node::Dir(digest) = node else { return self.tell(path, change) };
        match (self.tree)(digest) {
            Some(tree) if !tree.entries.is_empty() => {
                for (name, node) in &tree.entries {
                    self.subtree(&path.child(name), node, change);
                }
            }
            _ => self.tell(path, change),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::tree::{Entry, Listing, fold};

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    fn file(text: &str, executable: bool) -> Entry {
        Entry::File { digest: Digest::of(text.as_bytes()), size: text.len() as u64, executable }
    }

    fn told(was: &Listing, is: &Listing) -> Vec<String> {
        let (was, is) = (fold(was), fold(is));
        let all: BTreeMap<Digest, Vec<u8>> = was.trees.into_iter().chain(is.trees).collect();
        let load = |digest: &Digest| all.get(digest).and_then(|bytes| Tree::decode(bytes).ok());
        let record =
            |root: Digest| RecordSink { fields: vec![(Field::Inputs, Content::One(root.as_bytes().to_vec()))] };
        differences(&record(was.root), &record(is.root), &load)
            .into_iter()
            .map(|difference| format!("{} {}", difference.name, difference.change))
            .collect()
    }

    #[test]
    fn of_an_image_only_what_differs_is_told() {
        let check = |was: &[&str], is: &[&str], expect: &[&str]| {
            let bytes = |lines: &[&str]| lines.iter().map(|line| line.as_bytes().to_vec()).collect();
            let record = |lines: &[&str]| RecordSink { fields: vec![(Field::Image, Content::List(bytes(lines)))] };
            let found = differences(&record(was), &record(is), &|_| None);
            let told = found.iter().map(|one| format!("{} {}", one.name, one.change).trim().to_owned());
            assert_eq!(told.collect::<Vec<_>>(), expect);
        };
        check(&["format=1", "epoch=0", "user=1"], &["format=1", "epoch=5", "user=1"], &["\"epoch=0\" → \"epoch=5\""]);
        check(&["a", "b"], &["a", "layer", "b"], &["layer added"]);
        check(&["a", "a", "b"], &["a", "b"], &["a removed"]);
    }

    #[test]
    fn every_kind_of_input_change_is_told_by_its_path() {
        let base = Listing::from([(path("src/a.c"), file("a", false)), (path("src/b.c"), file("b", false))]);
        let check = |change: &dyn Fn(&mut Listing), expect: &[&str]| {
            let mut listing = base.clone();
            change(&mut listing);
            assert_eq!(told(&base, &listing), expect);
        };
        check(&|l| drop(l.insert(path("src/a.c"), file("A", false))), &["src/a.c changed"]);
        check(&|l| drop(l.insert(path("src/a.c"), file("a", true))), &["src/a.c became executable"]);
        check(&|l| drop(l.insert(path("src/x/c.c"), file("c", false))), &["src/x/c.c added"]);
        check(&|l| drop(l.remove(&path("src/b.c"))), &["src/b.c removed"]);
        check(
            &|l| drop(l.insert(path("src/a.c"), Entry::Link { target: "b.c".into() })),
            &["src/a.c changed its kind"],
        );
        check(&|_| {}, &[]);
    }

    #[test]
    fn variables_show_old_and_new() {
        let env = |pairs: &[(&str, &str)]| RecordSink {
            fields: vec![(
                Field::Env,
                Content::Map(
                    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect(),
                ),
            )],
        };
        let told = differences(&env(&[("A", "1"), ("B", "")]), &env(&[("A", "2"), ("C", "3")]), &|_| None);
        let told: Vec<String> = told.into_iter().map(|d| format!("{} {} {}", d.field, d.name, d.change)).collect();
        assert_eq!(told, ["env A \"1\" → \"2\"", "env C unset → \"3\"", "env B removed"]);
    }
}
