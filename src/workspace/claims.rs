//! Checks that no output is declared by two tasks and that none lies in another package. Looks at no disk.
//!
//! Literals and whole directories are compared exactly. Two wildcard patterns overlap here only if they are the same
//! text: whether two of them can match one path is not worth deciding, and what they then do match is seen when it is
//! collected.

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::{PackageId, TaskId};
use crate::base::path::RelPath;
use crate::base::span::Placed;
use crate::manifest::glob::Pattern;
use crate::manifest::model::TaskKind;
use crate::workspace::model::Workspace;
use crate::workspace::outputs::{Claim, all_claims};

/// Tells every overlap and every trespass.
pub fn check(workspace: &Workspace, diagnostics: &mut Vec<Diagnostic>) {
    let packages: Vec<PackageId> = workspace.packages.ids().collect();
    if !packages.par_iter().all(|package| is_peaceful(workspace, *package)) {
        tell(workspace, diagnostics);
    }
}

/// What a task claims, relative to its package.
struct Own<'a> {
    task: TaskId,
    prefix: &'a RelPath,
    whole: Option<&'a RelPath>,
    pattern: Option<&'a Pattern>,
}

/// Everything that the tasks of a package claim, reports left out as in [`all_claims`].
fn own_claims(workspace: &Workspace, package: PackageId) -> Vec<Own<'_>> {
    let mut all = Vec::new();
    for id in &workspace.packages[package].tasks {
        match &workspace.tasks[*id].kind {
            TaskKind::Run(run) => {
                for Placed { value: pattern, .. } in run.outputs.iter().chain(&run.committed) {
                    let whole = if pattern.literal { Some(&pattern.prefix) } else { pattern.whole_dir() };
                    all.push(Own { task: *id, prefix: &pattern.prefix, whole, pattern: Some(pattern) });
                }
            }
            TaskKind::Fetch(fetch) => {
                let path = &fetch.output;
                all.push(Own { task: *id, prefix: path, whole: Some(path), pattern: None });
            }
            TaskKind::Service(_) => {}
        }
    }
    all
}

/// Whether the claims of a package are certainly in nobody's way, by the same comparisons as [`tell`] makes.
///
/// Within the package they are compared as they are, which comes to the same as below its directory. A claim of another package can
/// only matter where a package nested in this one lies at or beneath the prefix of a claim, or around it: then nothing is certain.
fn is_peaceful(workspace: &Workspace, package: PackageId) -> bool {
    let mut claims = own_claims(workspace, package);
    let dir = &workspace.packages[package].dir;
    let is_far = |own: &Own<'_>| {
        let prefix = dir.join(own.prefix);
        let around = std::iter::successors(Some(prefix.clone()), RelPath::parent).take_while(|above| above != dir);
        let inside = around.into_iter().any(|above| workspace.package_at(&above).is_some());
        inside || workspace.beneath(&prefix).next().is_some()
    };
    let is_leaf = workspace.beneath(dir).next().is_none();
    if !is_leaf && claims.iter().any(is_far) {
        return false;
    }
    // By components, so that what lies beneath a directory follows it at once.
    claims.sort_by(|one, other| one.prefix.components().cmp(other.prefix.components()));
    let mut above: Vec<&Own<'_>> = Vec::new();
    for claim in &claims {
        while above.last().is_some_and(|last| !claim.prefix.starts_with(last.prefix)) {
            above.pop();
        }
        let overlaps = |other: &&Own<'_>| {
            workspace.whole(other.task) != workspace.whole(claim.task)
                && match (other.whole, claim.whole) {
                    (Some(_), _) => true,
                    (None, Some(whole)) => {
                        other.prefix.starts_with(whole) || other.pattern.is_none_or(|pattern| pattern.matches(whole))
                    }
                    (None, None) => {
                        let text =
                            |own: &Own<'_>| own.pattern.map(|pattern| pattern.text.trim_end_matches('/').to_owned());
                        other.prefix == claim.prefix && text(other) == text(claim)
                    }
                }
        };
        if above.iter().any(overlaps) {
            return false;
        }
        above.push(claim);
    }
    true
}

fn tell(workspace: &Workspace, diagnostics: &mut Vec<Diagnostic>) {
    let mut claims = all_claims(workspace);
    for claim in &claims {
        diagnostics.extend(trespass(workspace, claim));
    }
    claims.sort_by(|one, other| (&one.pattern.prefix, one.task).cmp(&(&other.pattern.prefix, other.task)));
    let mut told: BTreeSet<(TaskId, TaskId)> = BTreeSet::new();
    // Claims whose prefix is above, or is, the one at hand: only those can overlap with it.
    let mut above: Vec<&Claim> = Vec::new();
    let mut order: Vec<&Claim> = claims.iter().collect();
    // By components, so that what lies beneath a directory follows it at once.
    order.sort_by(|one, other| one.pattern.prefix.components().cmp(other.pattern.prefix.components()));
    for claim in order {
        while above.last().is_some_and(|last| !claim.pattern.prefix.starts_with(&last.pattern.prefix)) {
            above.pop();
        }
        for other in &above {
            let pair = (claim.task.min(other.task), claim.task.max(other.task));
            // Parts of one task share their outputs: whether they fight over a file is seen when they are put together.
            let same = workspace.whole(other.task) == workspace.whole(claim.task);
            if !same && overlap(other, claim) && told.insert(pair) {
                diagnostics.push(overlapping(workspace, other, claim));
            }
        }
        above.push(claim);
    }
}

/// Whether two claims can be for one path, as far as their texts tell. `upper`'s prefix is above, or is, `lower`'s.
fn overlap(upper: &Claim, lower: &Claim) -> bool {
    match (upper.whole(), lower.whole()) {
        (Some(_), _) => true,
        (None, Some(whole)) => upper.pattern.prefix.starts_with(whole) || upper.pattern.matches(whole),
        (None, None) => {
            let trimmed = |claim: &Claim| claim.pattern.text.trim_end_matches('/').to_owned();
            upper.pattern.prefix == lower.pattern.prefix && trimmed(upper) == trimmed(lower)
        }
    }
}

fn overlapping(workspace: &Workspace, one: &Claim, other: &Claim) -> Diagnostic {
    let (first, second) = if one.task < other.task { (one, other) } else { (other, one) };
    let label = |claim: &Claim| &workspace.tasks[claim.task].label;
    let shown = |claim: &Claim| format!("output of `{}`", label(claim));
    let problem = Diagnostic::error(format!(
        "`{}` and `{}` declare one output: `{}` and `{}` overlap",
        label(first),
        label(second),
        first.pattern.text,
        second.pattern.text
    ))
    .at(&second.place, shown(second))
    .at(&first.place, shown(first));
    if label(first).name == label(second).name && !label(first).matrix.is_empty() {
        let axis = label(first).matrix.keys().next().map_or("", String::as_str);
        problem.help(format!("tell them apart by their matrix values: `${{matrix.{axis}}}` in the path"))
    } else {
        problem.help("each path has one task that makes it: give one of them another directory")
    }
}

/// The error for an output inside a package nested in the task's own.
fn trespass(workspace: &Workspace, claim: &Claim) -> Option<Diagnostic> {
    let task = &workspace.tasks[claim.task];
    let nested = workspace.nested(workspace.package_of(claim.task)).find(|dir| claims_dir(claim, dir))?;
    Some(
        Diagnostic::error(format!("`{}` claims the directory of package `//{}`", task.label, nested.as_str()))
            .at(&claim.place, format!("`{}` reaches into `{nested}`", claim.pattern.text))
            .help("declare it in that package, or write the output elsewhere"),
    )
}

fn claims_dir(claim: &Claim, nested: &RelPath) -> bool {
    claim.pattern.prefix.starts_with(nested) || claim.whole().is_some_and(|whole| nested.starts_with(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::Fixture;

    fn messages(fixture: Fixture) -> Vec<String> {
        let mut diagnostics = Vec::new();
        check(&fixture.build(), &mut diagnostics);
        assert!(diagnostics.iter().all(|one| one.is_error() && !one.marks.is_empty()));
        diagnostics.into_iter().map(|one| one.message).collect()
    }

    #[test]
    fn one_path_has_one_task_that_makes_it() {
        let overlaps = |one: &str, other: &str| {
            let both = |first: &str, second: &str| {
                !messages(Fixture::new().package("p").task("a").outputs(&[first]).task("b").outputs(&[second]))
                    .is_empty()
            };
            let forwards = both(one, other);
            assert_eq!(forwards, both(other, one), "{one} {other}");
            forwards
        };
        for (one, other) in [
            ("dist/**", "dist/x"),
            ("dist/**", "dist"),
            ("dist", "dist/x/y"),
            ("dist/**", "dist/js/**"),
            ("dist/**", "dist/*.js"),
            ("**", "x"),
            ("*.log", "*.log"),
            ("*.log", "a.log"),
            ("dist/**/*.js", "dist/a/b.js"),
        ] {
            assert!(overlaps(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("dist/**", "distant"),
            ("dist/a", "dist/a-b"),
            ("dist/a", "dist/b/**"),
            ("*.log", "*.txt"),
            ("*.log", "sub/a.log"),
            ("out/*.js", "lib/*.js"),
        ] {
            assert!(!overlaps(one, other), "{one} {other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_taken_as_peaceful_is_nothing_to_tell(
            claims in proptest::collection::vec((0usize..5, 0usize..14, 0u8..3), 0..7),
        ) {
            const DIRS: [&str; 5] = ["", "a", "a/in", "a-b", "c"];
            const PATTERNS: [&str; 14] = [
                "dist", "dist/**", "dist/x", "**", "**/*.js", "*.js", "in/x", "in", "x.js", "a/in/x.js", "a/**", "in/*.js", "i*/x", "c/d",
            ];
            let mut fixture = Fixture::new();
            for dir in DIRS {
                fixture = fixture.package(dir);
            }
            for (number, (dir, pattern, kind)) in claims.iter().enumerate() {
                fixture = fixture.package(DIRS[*dir]).task(&format!("t{number}")).outputs(&[PATTERNS[*pattern]]);
                if *kind == 0 {
                    fixture = fixture.committed(&[PATTERNS[*pattern]]);
                }
            }
            let workspace = fixture.build();
            let (mut quick, mut full) = (Vec::new(), Vec::new());
            check(&workspace, &mut quick);
            tell(&workspace, &mut full);
            proptest::prop_assert_eq!(quick, full);
        }
    }

    #[test]
    fn the_message_names_both_tasks_and_the_way_out() {
        let fixture = Fixture::new()
            .package("p")
            .task("a")
            .matrix("node", "20")
            .outputs(&["dist"])
            .task("a")
            .matrix("node", "22")
            .outputs(&["dist/**"]);
        let mut diagnostics = Vec::new();
        check(&fixture.build(), &mut diagnostics);
        assert_eq!(diagnostics.len(), 1);
        let one = &diagnostics[0];
        assert_eq!(
            one.message,
            "`//p:a[node=20]` and `//p:a[node=22]` declare one output: `dist` and `dist/**` overlap"
        );
        assert_eq!((one.marks.len(), one.help[0].contains("${matrix.node}")), (2, true));
    }

    #[test]
    fn a_task_may_declare_its_own_outputs_twice() {
        let twice = Fixture::new().task("a").outputs(&["src/api.ts", "src/**"]).committed(&["src/api.ts"]);
        assert_eq!(messages(twice), Vec::<String>::new());
    }

    #[test]
    fn nothing_is_written_into_a_nested_package() {
        let check = |output: &str, expect: bool| {
            let found =
                messages(Fixture::new().package("a").task("x").outputs(&[output]).package("a/in").package("a-b"));
            let expected =
                if expect { vec!["`//a:x` claims the directory of package `//a/in`".to_owned()] } else { vec![] };
            assert_eq!(found, expected, "{output}");
        };
        for output in ["in/dist/**", "in", "**", "in/*.js"] {
            check(output, true);
        }
        for output in ["inner", "**/*.js", "dist/**"] {
            check(output, false);
        }
    }
}
