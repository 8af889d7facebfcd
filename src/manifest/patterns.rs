//! Strings that name files, as patterns: inputs from anywhere in the workspace, everything else inside the package.

use crate::base::diagnostic::Diagnostic;
use crate::base::path::{PathError, RelPath};
use crate::base::span::Placed;
use crate::manifest::glob::{Pattern, PatternError, PatternItem};
use crate::manifest::interpolate::{Names, Use, interpolate};
use crate::manifest::model::Reach;
use crate::manifest::origin::Written;
use crate::manifest::problems::Problems;

/// A pattern of `inputs`, workspace-relative: relative to the package as written, `//` from the root, `!` takes away.
pub(crate) fn input(written: Written<'_>, names: &Names<'_>, problems: &mut Problems<'_>) -> Option<PatternItem> {
    let text = interpolate(written, names, Use::Pattern, problems)?;
    let (exclude, body) = excluded(&text);
    if let Some((reach, own)) = upstream(body) {
        let pattern = own_pattern(own, written, "upstream input", problems)?;
        return Some(PatternItem { pattern, exclude, reach: Some(reach), place: written.place() });
    }
    anywhere(&text, written, "input", names, problems)
}

/// A pattern of `scratch`, workspace-relative like one of `inputs`: a program may litter wherever it likes.
pub(crate) fn scratch(written: Written<'_>, names: &Names<'_>, problems: &mut Problems<'_>) -> Option<PatternItem> {
    let text = interpolate(written, names, Use::Pattern, problems)?;
    anywhere(&text, written, "scratch pattern", names, problems)
}

fn anywhere(
    text: &str,
    written: Written<'_>,
    what: &str,
    names: &Names<'_>,
    problems: &mut Problems<'_>,
) -> Option<PatternItem> {
    let (exclude, body) = excluded(text);
    let parsed = match body.strip_prefix("//") {
        Some(rest) => Pattern::parse(rest).map(|mut pattern| {
            pattern.text = body.to_owned();
            pattern
        }),
        None if body.is_empty() => Err(PatternError::Syntax("it is empty".into())),
        None => Pattern::parse(body).map(|pattern| pattern.below(names.package_dir())),
    };
    match parsed {
        Ok(pattern) => Some(PatternItem { pattern, exclude, reach: None, place: written.place() }),
        Err(PatternError::Path(PathError::Escapes | PathError::Absolute)) => {
            problems.push(leaving(body, written, what, names.package_dir()));
            None
        }
        Err(cause) => {
            problems.push(bad(text, written, &cause));
            None
        }
    }
}

/// A pattern inside the package, package-relative, that may take away with `!`. `what` names it in errors: `report`.
pub(crate) fn own_item(
    written: Written<'_>,
    what: &str,
    names: &Names<'_>,
    problems: &mut Problems<'_>,
) -> Option<PatternItem> {
    let text = interpolate(written, names, Use::Pattern, problems)?;
    let (exclude, body) = excluded(&text);
    let pattern = own_pattern(body, written, what, problems)?;
    Some(PatternItem { pattern, exclude, reach: None, place: written.place() })
}

/// A pattern inside the package, package-relative.
pub(crate) fn own(
    written: Written<'_>,
    what: &str,
    names: &Names<'_>,
    problems: &mut Problems<'_>,
) -> Option<Placed<Pattern>> {
    let text = interpolate(written, names, Use::Pattern, problems)?;
    if let Some(body) = text.strip_prefix('!') {
        problems.push(
            Diagnostic::error(format!("{what} `{text}` takes away, which is for inputs"))
                .at(&written.place(), "")
                .help(format!("name what is made, not what is not; write `[!]{body}` for a name that starts with `!`")),
        );
        return None;
    }
    let pattern = own_pattern(&text, written, what, problems)?;
    Some(Placed::new(pattern, written.place()))
}

/// A path inside the package, not a pattern, package-relative and not the package itself.
pub(crate) fn own_path(
    written: Written<'_>,
    what: &str,
    names: &Names<'_>,
    problems: &mut Problems<'_>,
) -> Option<RelPath> {
    let text = interpolate(written, names, Use::Plain, problems)?;
    match RelPath::parse(&text) {
        Ok(path) if path.is_root() => {
            problems.push(whole_package(&text, written, what));
            None
        }
        Ok(path) => Some(path),
        Err(PathError::Escapes | PathError::Absolute) => {
            problems.push(outside(&text, written, what));
            None
        }
        Err(cause) => {
            problems.push(bad(&text, written, &PatternError::Path(cause)));
            None
        }
    }
}

fn own_pattern(text: &str, written: Written<'_>, what: &str, problems: &mut Problems<'_>) -> Option<Pattern> {
    let problem = match Pattern::parse(text) {
        Ok(pattern) if pattern.literal && pattern.prefix.is_root() => whole_package(text, written, what),
        Ok(pattern) => return Some(pattern),
        Err(PatternError::Path(PathError::Escapes | PathError::Absolute)) => outside(text, written, what),
        Err(cause) => bad(text, written, &cause),
    };
    problems.push(problem);
    None
}

/// `^src/**`, `^^src/**`, `^dev:src/**`: files of the packages this one depends on, by the grammar of `needs`.
fn upstream(body: &str) -> Option<(Reach, &str)> {
    let rest = body.strip_prefix('^')?;
    Some(match (rest.strip_prefix('^'), rest.strip_prefix("dev:")) {
        (Some(rest), _) => (Reach::Transitive, rest),
        (_, Some(rest)) => (Reach::Development, rest),
        _ => (Reach::Direct, rest),
    })
}

fn excluded(text: &str) -> (bool, &str) {
    text.strip_prefix('!').map_or((false, text), |body| (true, body))
}

fn outside(text: &str, written: Written<'_>, what: &str) -> Diagnostic {
    let error = Diagnostic::error(format!("{what} `{text}` is outside its package")).at(&written.place(), "");
    if what == "item" {
        return error.help("items are files of the task's own package: write a path relative to it");
    }
    error.help("a task writes inside its own package: write a path relative to it, or move the task to the package it writes in")
}

fn whole_package(text: &str, written: Written<'_>, what: &str) -> Diagnostic {
    Diagnostic::error(format!("{what} `{text}` is the whole package, sources and all"))
        .at(&written.place(), "")
        .help("name a directory or a file in it")
}

fn leaving(body: &str, written: Written<'_>, what: &str, dir: &RelPath) -> Diagnostic {
    let error = Diagnostic::error(format!("{what} `{body}` leaves its package")).at(&written.place(), "");
    match from_root(body, dir) {
        Some(path) => error.help(format!("write it from the root of the workspace: `//{path}`")),
        None => error
            .help("nothing lies outside the workspace: `//…` is its root; a program is a `tool`, a download a `fetch`"),
    }
}

/// What a relative pattern with `..` means, seen from the root; `None` if it leaves the workspace.
fn from_root(body: &str, dir: &RelPath) -> Option<String> {
    if body.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = dir.components().collect();
    for part in body.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn bad(text: &str, written: Written<'_>, cause: &PatternError) -> Diagnostic {
    let error = Diagnostic::error(format!("`{}` is not a pattern: {cause}", text.escape_debug()));
    error
        .at(&written.place(), "")
        .help("`*` and `?` stay within a name, `**` crosses directories, `{a,b}` and `[ab]` choose")
}
