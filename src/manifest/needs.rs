//! The grammar of `needs`: `^build`, `^^build`, `^dev:build`, `:build`, `//libs/ui:build`, `//libs/ui:build[node=20]`, each with an
//! optional `#interface`. Whether what is named exists is the graph's business.

use std::collections::BTreeMap;

use crate::base::label::is_name;
use crate::base::path::RelPath;
use crate::manifest::interpolate::Names;
use crate::manifest::model::{Reach, Which};

/// What is wrong with an entry and how it should be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NeedError {
    pub(crate) message: String,
    pub(crate) help: String,
}

fn error<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, NeedError> {
    Err(NeedError { message: message.into(), help: help.into() })
}

/// Parses one entry as it stands in the package `here`: which tasks, and whether only their interface.
pub(crate) fn parse(text: &str, names: &Names<'_>) -> Result<(Which, bool), NeedError> {
    let (body, interface_only) = match text.split_once('#') {
        None => (text, false),
        Some((body, "interface")) => (body, true),
        Some((body, part)) => {
            return error(
                format!("`#{part}` is no part of a task"),
                format!("the only part is the interface: `{body}#interface`"),
            );
        }
    };
    let upstream = |reach: Reach, task: &str| {
        let task = name(task, text)?;
        Ok((Which::Upstream { task, reach }, interface_only))
    };
    if let Some(task) = body.strip_prefix("^^") {
        return upstream(Reach::Transitive, task);
    }
    if let Some(task) = body.strip_prefix("^dev:") {
        return upstream(Reach::Development, task);
    }
    if let Some(task) = body.strip_prefix('^') {
        return upstream(Reach::Direct, task);
    }
    let (package, task) = if let Some(task) = body.strip_prefix(':') {
        (names.package_dir().clone(), task)
    } else if let Some(rest) = body.strip_prefix("//") {
        let Some((dir, task)) = rest.split_once(':') else {
            return error(
                format!("`{text}` names a package, not a task"),
                format!("name the task as well: `{body}:TASK`"),
            );
        };
        (package(dir, text)?, task)
    } else {
        return bare(body, text);
    };
    let (task, matrix) = match task.split_once('[') {
        None => (task, BTreeMap::new()),
        Some((task, values)) => (task, matrix_values(values, text)?),
    };
    Ok((Which::Task { package, task: name(task, text)?, matrix }, interface_only))
}

/// Parses one entry of `services`: the package and the name.
pub(crate) fn parse_service(text: &str, names: &Names<'_>) -> Result<(RelPath, String), NeedError> {
    let help = "write `:SERVICE` for this package's, `//PACKAGE:SERVICE` for another's";
    match parse(text, names) {
        Ok((Which::Task { package, task, matrix }, false)) if matrix.is_empty() => Ok((package, task)),
        Ok(_) => error(format!("`{text}` is not a service"), help),
        Err(_) if is_name(text) => error(format!("`{text}` does not say whose service it is"), help),
        Err(problem) => error(problem.message, help),
    }
}

fn bare<T>(body: &str, text: &str) -> Result<T, NeedError> {
    match body.split_once(':') {
        Some((dir, task)) if !dir.is_empty() => error(
            format!("`{text}` does not say where its package is"),
            format!("name packages from the root: `//{}:{task}`", dir.trim_start_matches('/')),
        ),
        _ if body.is_empty() => error("an entry of `needs` is empty", "write `:TASK`, `//PACKAGE:TASK` or `^TASK`"),
        _ if body.contains('/') => error(
            format!("`{text}` is not a task"),
            format!("name the task as well: `//{}:TASK`", body.trim_matches('/')),
        ),
        _ => error(
            format!("`{text}` does not say whose task it is"),
            format!("write `:{body}` for this package's, `^{body}` for that of the packages it depends on"),
        ),
    }
}

fn package(dir: &str, text: &str) -> Result<RelPath, NeedError> {
    RelPath::parse(dir).or_else(|cause| {
        error(format!("`{text}` names no package: {cause}"), "write the directory from the root: `//libs/ui:TASK`")
    })
}

fn name(task: &str, text: &str) -> Result<String, NeedError> {
    if is_name(task) {
        return Ok(task.to_owned());
    }
    if task.is_empty() {
        return error(format!("`{text}` names no task"), format!("write its name at the end: `{text}TASK`"));
    }
    error(
        format!("`{task}` cannot name a task"),
        "a name is letters, digits, `.`, `_` and `-`, and starts with a letter, a digit or `_`",
    )
}

fn matrix_values(values: &str, text: &str) -> Result<BTreeMap<String, String>, NeedError> {
    let help = "write `[axis=value]`, several with commas";
    let Some(values) = values.strip_suffix(']') else {
        return error(format!("`{text}` has no `]` at the end of its matrix values"), help);
    };
    let mut matrix = BTreeMap::new();
    for pair in values.split(',') {
        let Some((axis, value)) = pair.split_once('=') else {
            return error(format!("`{pair}` is no matrix value"), help);
        };
        let (axis, value) = (axis.trim(), value.trim());
        if !is_name(axis) || value.is_empty() {
            return error(format!("`{pair}` is no matrix value"), help);
        }
        if matrix.insert(axis.to_owned(), value.to_owned()).is_some() {
            return error(format!("axis `{axis}` is given twice"), "give each axis one value");
        }
    }
    Ok(matrix)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn parse(text: &str) -> Result<(Which, bool), NeedError> {
        let (dir, matrix, asked) = (RelPath::parse("apps/web").expect("a good path"), BTreeMap::new(), Cell::default());
        super::parse(text, &Names::new((&dir, "web"), "shop", &matrix, &asked))
    }

    #[test]
    fn every_form_of_the_grammar_is_read() {
        let check = |text: &str, which: Which, interface_only: bool| {
            assert_eq!(parse(text), Ok((which, interface_only)), "{text}");
        };
        let upstream = |reach| Which::Upstream { task: "build".into(), reach };
        let task = |package: &str, matrix: &[(&str, &str)]| Which::Task {
            package: RelPath::parse(package).expect("a good path"),
            task: "build".into(),
            matrix: matrix.iter().map(|(axis, value)| ((*axis).to_owned(), (*value).to_owned())).collect(),
        };
        check("^build", upstream(Reach::Direct), false);
        check("^^build", upstream(Reach::Transitive), false);
        check("^dev:build", upstream(Reach::Development), false);
        check("^build#interface", upstream(Reach::Direct), true);
        check(":build", task("apps/web", &[]), false);
        check("//libs/ui:build", task("libs/ui", &[]), false);
        check("//:build#interface", task("", &[]), true);
        check("//libs/ui:build[node=20, os=a]", task("libs/ui", &[("node", "20"), ("os", "a")]), false);
        check(":build[node=20]#interface", task("apps/web", &[("node", "20")]), true);
    }

    #[test]
    fn what_is_not_in_the_grammar_is_refused_with_the_way_to_write_it() {
        let check = |text: &str, message: &str, help: &str| {
            let error = parse(text).expect_err(text);
            assert_eq!((error.message.as_str(), error.help.as_str()), (message, help), "{text}");
        };
        let names = "a name is letters, digits, `.`, `_` and `-`, and starts with a letter, a digit or `_`";
        let values = "write `[axis=value]`, several with commas";
        check(
            "build",
            "`build` does not say whose task it is",
            "write `:build` for this package's, `^build` for that of the packages it depends on",
        );
        check(
            "libs/ui:build",
            "`libs/ui:build` does not say where its package is",
            "name packages from the root: `//libs/ui:build`",
        );
        check("libs/ui", "`libs/ui` is not a task", "name the task as well: `//libs/ui:TASK`");
        check("//libs/ui", "`//libs/ui` names a package, not a task", "name the task as well: `//libs/ui:TASK`");
        check("", "an entry of `needs` is empty", "write `:TASK`, `//PACKAGE:TASK` or `^TASK`");
        check("^", "`^` names no task", "write its name at the end: `^TASK`");
        check(":", "`:` names no task", "write its name at the end: `:TASK`");
        check(":a b", "`a b` cannot name a task", names);
        check("^:build", "`:build` cannot name a task", names);
        check(":build#api", "`#api` is no part of a task", "the only part is the interface: `:build#interface`");
        check(
            "//../x:build",
            "`//../x:build` names no package: the path leaves its directory through `..`",
            "write the directory from the root: `//libs/ui:TASK`",
        );
        check(":build[node]", "`node` is no matrix value", values);
        check(":build[node=20", "`:build[node=20` has no `]` at the end of its matrix values", values);
        check(":build[n=1,n=2]", "axis `n` is given twice", "give each axis one value");
    }
}
