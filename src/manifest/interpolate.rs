//! `${…}` in the strings of a manifest: a closed list of names, and an error for everything else.
//!
//! Nothing is read from the environment here, ever: a name that is not on the list is most often a shell variable, and the
//! error says how to write that. What a name stands for is never scanned again.

use std::cell::Cell;

use crate::base::diagnostic::{Diagnostic, nearest};
use crate::base::label::Matrix;
use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::manifest::keys::unsupported;
use crate::manifest::origin::Written;
use crate::manifest::problems::Problems;
use crate::manifest::split::Part;

/// Names of later versions.
const LATER_NAMES: [&str; 1] = ["out"];

/// Names that only a task with `split` has.
const SPLIT_NAMES: [&str; 3] = ["items", "shard.index", "shard.total"];

/// Names that only an image has.
const PLATFORM_NAMES: [&str; 3] = ["platform.os", "platform.arch", "platform.variant"];

/// The names that stand for one value each; `matrix.AXIS` beside them.
const FIXED_NAMES: [&str; 3] = ["package.dir", "package.name", "workspace.name"];

/// What the names stand for in one task.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    package_dir: &'a RelPath,
    package_name: &'a str,
    workspace_name: &'a str,
    matrix: &'a Matrix,
    /// The part of a task with `split`.
    pub(crate) part: Option<&'a Part>,
    /// The platform that an image is being made for.
    platform: Option<&'a Platform>,
    /// Set once `${shard.total}` is named.
    pub(crate) counts_parts: Option<&'a Cell<bool>>,
    /// What was asked for. Nothing else of the package and the matrix can be had, so a value for which neither was asked is the
    /// same for all.
    pub(crate) asked: &'a Cell<Asked>,
}

/// What a value depends on.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    /// Directory or name of the package.
    pub(crate) package: bool,
    /// Values of the matrix.
    pub(crate) matrix: bool,
}

impl<'a> Names<'a> {
    /// The names of a task that is no part, in a workspace of this name.
    pub(crate) fn new(
        (package_dir, package_name): (&'a RelPath, &'a str),
        workspace_name: &'a str,
        matrix: &'a Matrix,
        asked: &'a Cell<Asked>,
    ) -> Self {
        Self {
            package_dir,
            package_name,
            workspace_name,
            matrix,
            part: None,
            platform: None,
            counts_parts: None,
            asked,
        }
    }

    /// The same for a part; `counts_parts` is set once `${shard.total}` is named.
    pub(crate) fn with_part(self, part: Option<&'a Part>, counts_parts: &'a Cell<bool>) -> Self {
        Self { part, counts_parts: Some(counts_parts), ..self }
    }

    /// The same for one platform of an image.
    pub(crate) fn with_platform(self, platform: &'a Platform) -> Self {
        Self { platform: Some(platform), ..self }
    }

    /// Directory of the package.
    pub(crate) fn package_dir(&self) -> &'a RelPath {
        self.asked.set(Asked { package: true, ..self.asked.get() });
        self.package_dir
    }

    fn package_name(&self) -> &'a str {
        self.asked.set(Asked { package: true, ..self.asked.get() });
        self.package_name
    }

    fn matrix(&self) -> &'a Matrix {
        self.asked.set(Asked { matrix: true, ..self.asked.get() });
        self.matrix
    }
}

/// What the string is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Text as it is.
    Plain,
    /// A command for the shell, which has a `${…}` of its own.
    Shell,
    /// A pattern: wildcards in a value stand for themselves.
    Pattern,
}

/// The string with every name replaced and `$${` turned into `${`; `None` after pushing what is wrong with it.
pub(crate) fn interpolate(
    written: Written<'_>,
    names: &Names<'_>,
    purpose: Use,
    problems: &mut Problems<'_>,
) -> Option<String> {
    if written.text.contains('\0') {
        problems.push(
            Diagnostic::error("the string holds a NUL byte")
                .at(&written.place(), "")
                .help("no argument, variable or path can hold one: take it out"),
        );
        return None;
    }
    let mut done = String::with_capacity(written.text.len());
    let mut rest = written.text;
    let mut good = true;
    while let Some(dollar) = rest.find('$') {
        done.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            done.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let Some(end) = after.find('}') else {
                problems.push(
                    Diagnostic::error("`${` without `}`")
                        .at(&written.within(rest), "")
                        .help("write `$${` for the characters themselves"),
                );
                return None;
            };
            match value(&after[..end], names, purpose) {
                Some(text) if purpose == Use::Pattern => done.push_str(&globset::escape(&text)),
                Some(text) => done.push_str(&text),
                None => {
                    problems.push(unknown(&after[..end], written, names, purpose));
                    good = false;
                }
            }
            rest = &after[end + 1..];
        } else {
            done.push('$');
            rest = &rest[1..];
        }
    }
    done.push_str(rest);
    good.then_some(done)
}

fn value(name: &str, names: &Names<'_>, purpose: Use) -> Option<String> {
    match name {
        "items" if purpose == Use::Shell => names.part.map(Part::quoted),
        "shard.index" => names.part.map(Part::index),
        "shard.total" => {
            names.counts_parts.into_iter().for_each(|counts| counts.set(true));
            names.part.map(|part| part.total.to_string())
        }
        // `.` for the root package, so that `//${package.dir}/x` is right in every package.
        "package.dir" => Some(names.package_dir().to_string()),
        "package.name" => Some(names.package_name().to_owned()),
        "workspace.name" => Some(names.workspace_name.to_owned()),
        "platform.os" => names.platform.map(|platform| platform.os.clone()),
        "platform.arch" => names.platform.map(|platform| platform.architecture.clone()),
        "platform.variant" => names.platform.map(|platform| platform.variant.clone().unwrap_or_default()),
        name => names.matrix().get(name.strip_prefix("matrix.")?).cloned(),
    }
}

fn unknown(name: &str, written: Written<'_>, names: &Names<'_>, purpose: Use) -> Diagnostic {
    let whole = format!("${{{name}}}");
    let place = written.within(&whole);
    if LATER_NAMES.contains(&name) {
        return Diagnostic::error(unsupported(&format!("`{whole}`"))).at(&place, "").help("take it out");
    }
    if SPLIT_NAMES.contains(&name) {
        let error = match names.part {
            None => Diagnostic::error(format!("`{whole}` stands for a part of a task, and this one has no `split`"))
                .help("add `split = { items = \"tests/**/test_*.py\" }`"),
            Some(_) => Diagnostic::error(format!("`{whole}` must be a word of its own in the array of a command"))
                .help("or write the command as a string for the shell; nothing but `run` and `fix` can name the items"),
        };
        return error.at(&place, "");
    }
    if PLATFORM_NAMES.contains(&name) {
        return Diagnostic::error(format!("`{whole}` stands for the platform of an image")).at(&place, "").help(
            "it can be used in `layers`, `base` and what a container runs with of an `[image.NAME]`, and nowhere else",
        );
    }
    if let Some(axis) = name.strip_prefix("matrix.") {
        let error = Diagnostic::error(format!("no axis `{axis}` in the `matrix` of this task")).at(&place, "");
        let axes: Vec<String> = names.matrix().keys().map(|axis| format!("`{axis}`")).collect();
        return match nearest(axis, names.matrix().keys().map(String::as_str)) {
            Some(near) => error.help(format!("did you mean `${{matrix.{near}}}`?")),
            None if axes.is_empty() => error.help(format!("add `matrix = {{ {axis} = [\"…\"] }}`")),
            None => error.help(format!("its axes are {}", axes.join(", "))),
        };
    }
    let error = Diagnostic::error(format!("nothing is called `{whole}`")).at(&place, "");
    let is_variable = !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    let of_images = PLATFORM_NAMES.into_iter().filter(|_| names.platform.is_some());
    let error = match nearest(name, FIXED_NAMES.into_iter().chain(of_images)) {
        Some(near) => error.help(format!("did you mean `${{{near}}}`?")),
        None if purpose == Use::Shell && is_variable => {
            error.help(format!("for the shell's variable write `${name}` or `$${{{name}}}`"))
        }
        None if purpose == Use::Shell => error.help(format!("for the shell's own expansion write `$${{{name}}}`")),
        None => error.help(format!("write `$${{{name}}}` for the characters themselves")),
    };
    let names_are = "the names are `${package.dir}`, `${package.name}`, `${workspace.name}` and `${matrix.AXIS}`";
    match names.part {
        None if names.platform.is_some() => error.help(format!(
            "{names_are}, here also `${{platform.os}}`, `${{platform.arch}}` and `${{platform.variant}}`"
        )),
        None => error.help(names_are),
        Some(_) => {
            error.help(format!("{names_are}, with `split` also `${{items}}`, `${{shard.index}}`, `${{shard.total}}`"))
        }
    }
}

/// Whether a string names something: `${items}`, but not `$${items}`.
pub(crate) fn mentions(text: &str, name: &str) -> bool {
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            if after.strip_prefix(name).is_some_and(|after| after.starts_with('}')) {
                return true;
            }
            rest = after;
        } else {
            rest = &rest[1..];
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::span::SourceId;
    use crate::manifest::origin::Origin;

    fn run(text: &str, purpose: Use) -> Result<String, String> {
        let origin = Origin::new(SourceId(0), text);
        let matrix = Matrix::from([("node".to_owned(), "${package.dir}*".to_owned())]);
        let dir = RelPath::parse("apps/web").expect("a good path");
        let asked = Cell::default();
        let names = Names::new((&dir, "web"), "shop", &matrix, &asked);
        let mut diagnostics = Vec::new();
        let range = 0..text.len();
        let done =
            interpolate(Written::at(text, &range, &origin), &names, purpose, &mut Problems::new(&mut diagnostics));
        done.ok_or_else(|| diagnostics.iter().map(|d| format!("{}|{}", d.message, d.help[0])).collect())
    }

    #[test]
    fn names_on_the_list_are_replaced_once_and_the_rest_is_left_alone() {
        let check = |text: &str, expect: &str| assert_eq!(run(text, Use::Shell).as_deref(), Ok(expect), "{text}");
        check("vite build", "vite build");
        check("${package.dir}:${package.name}:${workspace.name}", "apps/web:web:shop");
        check("${matrix.node}", "${package.dir}*");
        check("echo $HOME $(pwd) $$ $1 100$", "echo $HOME $(pwd) $$ $1 100$");
        check("$${HOME} $$${X}", "${HOME} $${X}");
        check("é${package.name}é", "éwebé");
        assert_eq!(run("${matrix.node}", Use::Pattern).as_deref(), Ok("$[{]package.dir[}][*]"));
    }

    #[test]
    fn what_is_escaped_is_not_mentioned() {
        let check = |text: &str, expect: bool| assert_eq!(mentions(text, "items"), expect, "{text}");
        check("pytest ${items}", true);
        check("$x ${a} ${items}", true);
        check("$$${items}", false);
        check("pytest $${items} ${itemss} $items ${", false);
    }

    #[test]
    fn a_name_off_the_list_is_an_error_with_the_way_out() {
        let check = |text: &str, purpose: Use, expect: &str| {
            assert_eq!(run(text, purpose), Err(expect.to_owned()), "{text}");
        };
        check(
            "echo ${HOME}",
            Use::Shell,
            "nothing is called `${HOME}`|for the shell's variable write `$HOME` or `$${HOME}`",
        );
        check("echo ${X:-y}", Use::Shell, "nothing is called `${X:-y}`|for the shell's own expansion write `$${X:-y}`");
        check("${HOME}", Use::Plain, "nothing is called `${HOME}`|write `$${HOME}` for the characters themselves");
        check("${package.nam}", Use::Plain, "nothing is called `${package.nam}`|did you mean `${package.name}`?");
        check("${matrix.nod}", Use::Plain, "no axis `nod` in the `matrix` of this task|did you mean `${matrix.node}`?");
        check("${package.dir", Use::Plain, "`${` without `}`|write `$${` for the characters themselves");
        check("a\0", Use::Plain, "the string holds a NUL byte|no argument, variable or path can hold one: take it out");
    }
}
