//! Listings of two builds: what is on one side only, kinds, permissions, links, renames. Contents go further down.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::causes;
use crate::audit::compare::archive::{only, renamed};
use crate::audit::compare::oci::{self, Files};
use crate::audit::compare::pairing::{self, Single};
use crate::audit::compare::verdict::Cost;
use crate::audit::compare::walk::{Told, Walk, planted};
use crate::audit::kinds;
use crate::audit::model::{Certainty, Site};
use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};

type Contents<'f> = dyn Fn(&Digest) -> Result<Vec<u8>, String> + 'f;

/// Compares two listings.
pub(super) fn compare(walk: &mut Walk<'_>, a: &Listing, b: &Listing, contents: &Contents<'_>) {
    let told = images(walk, a, b, contents);
    let keep = |path: &RelPath| !told.contains(path.as_str());
    let shared = a.iter().filter_map(|(path, entry)| Some((path, entry, b.get(path)?)));
    for (path, first, second) in shared.filter(|(path, first, second)| first != second && keep(path)) {
        entry(walk, path.as_str(), first, second, contents);
    }
    let alone = |side: &Listing, other: &Listing| -> Vec<(RelPath, Entry)> {
        let alone = side.iter().filter(|(path, _)| !other.contains_key(*path) && keep(path));
        alone.map(|(path, entry)| (path.clone(), entry.clone())).collect()
    };
    let sides = [alone(a, b), alone(b, a)];
    let [first, second] = [&sides[0], &sides[1]].map(|side| side.iter().map(single).collect::<Vec<_>>());
    let mut pairs = pairing::renamed(&first, &second);
    pairs.retain(|(x, y)| std::mem::discriminant(&sides[0][*x].1) == std::mem::discriminant(&sides[1][*y].1));
    for (x, y) in &pairs {
        let ((from, old), (to, new)) = (&sides[0][*x], &sides[1][*y]);
        renamed(walk, &place(from.as_str()), from.as_str(), to.as_str());
        entry(walk, from.as_str(), old, new, contents);
    }
    let paired = [0, 1].map(|side| pairs.iter().map(|pair| [pair.0, pair.1][side]).collect::<BTreeSet<_>>());
    for side in [0, 1] {
        let rest = sides[side].iter().enumerate().filter(|(at, _)| !paired[side].contains(at));
        for (_, (path, _)) in rest {
            only(walk, &place(path.as_str()), path.as_str(), side);
        }
    }
}

fn place(path: &str) -> Site {
    Site { file: path.to_owned(), members: Vec::new() }
}

fn single((path, entry): &(RelPath, Entry)) -> Single {
    let content = match entry {
        Entry::File { digest, size, .. } if *size > 0 => Some(*digest),
        _ => None,
    };
    Single { name: path.as_str().to_owned(), content }
}

fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry::File { .. } => "a file",
        Entry::Link { .. } => "a link",
        Entry::Dir => "a directory",
    }
}

fn entry(walk: &mut Walk<'_>, path: &str, a: &Entry, b: &Entry, contents: &Contents<'_>) {
    let site = place(path);
    match (a, b) {
        (
            Entry::File { digest: first, executable: is_first, size: _ },
            Entry::File { digest: second, executable: is_second, size: _ },
        ) => {
            if is_first != is_second {
                let what = format!("only the {} side can be executed", if *is_first { "first" } else { "second" });
                walk.push(&site, Told::proven(what, &causes::FILE_MODE, Cost::Real));
            }
            if first == second {
                return;
            }
            match (contents(first), contents(second)) {
                (Ok(first), Ok(second)) => walk.descend(&site, path, &first, &second, 0),
                (Err(why), _) | (_, Err(why)) => walk.over(&site, &why),
            }
        }
        (Entry::Link { target: first }, Entry::Link { target: second }) if first == second => {}
        (Entry::Link { target: first }, Entry::Link { target: second }) => {
            let (cause, certainty) = kinds::name_cause(first, second, walk.context);
            let is_known = cause.id != causes::UNKNOWN.id && cause.id != causes::FILE_SET.id;
            let (cause, certainty) =
                if is_known { (cause, certainty) } else { (&causes::LINK_TARGET, Certainty::Proven) };
            let dimension = planted(walk.context, first, second);
            let what = format!("it leads to `{first}` on the first side, to `{second}` on the second");
            walk.push(&site, Told { cause, certainty, dimension, ..Told::unknown(what) });
        }
        _ if a == b => {}
        _ => {
            let what = format!("{} on the first side, {} on the second", kind(a), kind(b));
            walk.push(&site, Told::proven(what, &causes::FILE_MODE, Cost::Real));
        }
    }
}

/// Compares image layouts that are on both sides; gives the paths that are told by that.
fn images(walk: &mut Walk<'_>, a: &Listing, b: &Listing, contents: &Contents<'_>) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for path in a.keys().filter(|path| path.file_name() == oci::MARKER && b.contains_key(*path)) {
        let prefix = path.as_str().strip_suffix(oci::MARKER).unwrap_or_default();
        let sides = [a, b].map(|side| -> BTreeMap<String, Digest> {
            let files = side.iter().filter_map(|(path, entry)| {
                let Entry::File { digest, .. } = entry else { return None };
                Some((path.as_str().strip_prefix(prefix)?.to_owned(), *digest))
            });
            files.collect()
        });
        if sides.iter().any(|side| !side.contains_key(oci::INDEX)) || sides[0] == sides[1] {
            continue;
        }
        let read = |side: usize| {
            let files = &sides[side];
            move |name: &str| match files.get(name) {
                Some(digest) => contents(digest),
                None => Err(format!("there is no `{name}`")),
            }
        };
        let (first, second) = (read(0), read(1));
        let files = [Files { read: &first }, Files { read: &second }];
        let file = prefix.trim_end_matches('/');
        let site = place(if file.is_empty() { "." } else { file });
        let known = |side: usize, name: &str| sides[side].contains_key(name);
        let used = oci::compare(walk, &site, &files, 0);
        let parts = sides.iter().flat_map(|side| side.keys()).filter(|name| oci::is_part(name));
        for name in parts {
            // What no index names is compared like any other file, and so is a blob that is the same on both sides.
            let is_told = name == oci::INDEX || used.contains(name);
            if is_told && (known(0, name) || known(1, name)) {
                told.insert(format!("{prefix}{name}"));
            }
        }
    }
    told
}
