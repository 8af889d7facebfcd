//! Finds the workspace and the directories that are packages. Does not know what manifests say beyond their globs.
//!
//! A directory is a package if it has a `drystone.toml`; with `[workspace] packages`, only directories that a glob there
//! matches and that have a manifest of ours or of an ecosystem (those without tasks still carry dependencies). Directories
//! that an `[[apply]]` names are packages too. What a `!` in `packages` takes away is none, and where there is nothing but `!`
//! all others are. A pattern without a wildcard needs no manifest. Git's ignore rules hold for whatever is searched; symbolic
//! links are not followed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::limits::MANIFEST_BYTES_MAX;
use crate::base::path::RelPath;
use crate::base::span::Placed;
use crate::fs::ops::{self, Kind};
use crate::fs::walk::{self, Survey, Trouble};
use crate::manifest::glob::Pattern;
use crate::manifest::read::Apply;

/// File name of a manifest.
pub const MANIFEST: &str = "drystone.toml";

/// Files that make a directory a package for globs: our manifest and those of the known ecosystems.
const MARKERS: [&str; 5] = [MANIFEST, "Cargo.toml", "package.json", "pyproject.toml", "go.mod"];

/// The nearest directory from `start`, an absolute path, upwards whose `drystone.toml` has a `[workspace]`.
///
/// A manifest that cannot be read counts as the root, so that loading it says what is wrong.
pub fn find_root(start: &Path) -> Option<PathBuf> {
    start.ancestors().find(|dir| is_root_manifest(&dir.join(MANIFEST))).map(Path::to_owned)
}

fn is_root_manifest(path: &Path) -> bool {
    if !ops::exists(path) {
        return false;
    }
    match ops::metadata(path) {
        Ok(meta) if !meta.is_file() => return false,
        Ok(meta) if meta.len() > MANIFEST_BYTES_MAX => return true,
        Ok(_) => {}
        Err(_) => return true,
    }
    let Ok(text) = ops::read_text(path) else { return true };
    match text.parse::<toml::Table>() {
        Ok(table) => table.contains_key("workspace"),
        // The line is enough to know which manifest is meant; what is wrong with the rest is said when it is read.
        Err(_) => text.lines().any(|line| line.trim_start().starts_with("[workspace")),
    }
}

/// What a package directory has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PackageDir {
    /// Whether a `drystone.toml` lies there.
    pub manifest: bool,
    /// Which `[[apply]]` tables name it, by position, in order.
    pub applies: Vec<usize>,
}

/// The packages found.
#[derive(Debug, Default)]
pub struct Discovered {
    /// By directory; the root is always there.
    pub packages: BTreeMap<RelPath, PackageDir>,
    /// The listing of the whole tree, where one was needed.
    pub walked: Option<Arc<Survey>>,
}

/// Finds the package directories below `root`.
///
/// Patterns that are wrong or match nothing, and directories that cannot be read, are told in `diagnostics`.
/// Cost: without `packages` globs one walk of the tree; with them, a walk as deep as the globs reach.
pub fn discover(
    root: &Path,
    packages: Option<&[Placed<String>]>,
    applies: &[Apply],
    diagnostics: &mut Vec<Diagnostic>,
) -> Discovered {
    let packages = packages.map(|written| DirPatterns::parse(written, diagnostics));
    let applies: Vec<DirPatterns> = applies.iter().map(|apply| DirPatterns::parse(&apply.to, diagnostics)).collect();
    let survey = look(root, packages.as_ref(), &applies);
    report_troubles(root, &survey, diagnostics);
    let markers = markers(&survey);
    let has = |dir: &RelPath, name: &str| markers.get(dir).is_some_and(|names| names.contains(name));

    let mut found: BTreeMap<RelPath, PackageDir> = BTreeMap::from([(RelPath::root(), PackageDir::default())]);
    let taken_away = |dir: &RelPath| packages.as_ref().is_some_and(|packages| packages.takes_away(dir));
    match &packages {
        Some(patterns) if patterns.takes_something() => {
            let dirs = patterns.select(root, markers.keys());
            patterns.report_unmatched(&dirs, "packages", diagnostics);
            found.extend(dirs.into_iter().map(|dir| (dir, PackageDir::default())));
        }
        _ => {
            let dirs = markers.iter().filter(|(_, names)| names.contains(MANIFEST)).map(|(dir, _)| dir);
            let dirs = dirs.filter(|dir| !taken_away(dir));
            found.extend(dirs.map(|dir| (dir.clone(), PackageDir::default())));
        }
    }
    for (position, patterns) in applies.iter().enumerate() {
        let mut dirs = patterns.select(root, markers.keys());
        patterns.report_unmatched(&dirs, "[[apply]] to", diagnostics);
        dirs.retain(|dir| !taken_away(dir));
        for dir in dirs {
            found.entry(dir).or_default().applies.push(position);
        }
    }
    for (dir, package) in &mut found {
        package.manifest = has(dir, MANIFEST) || ops::exists(&root.join(dir.as_str()).join(MANIFEST));
    }
    let whole = packages.is_none_or(|packages| !packages.takes_something());
    Discovered { packages: found, walked: whole.then(|| Arc::new(survey)) }
}

/// Walks as much of the tree as the patterns can match in.
fn look(root: &Path, packages: Option<&DirPatterns>, applies: &[DirPatterns]) -> Survey {
    let whole = |skip: &(dyn Fn(&RelPath) -> bool + Sync)| {
        let mut surveys = walk::surveys(root, &[RelPath::root()], |_, dir| skip(dir));
        surveys.pop().expect("one survey for one start")
    };
    let Some(packages) = packages.filter(|packages| packages.takes_something()) else {
        return whole(&|_| false);
    };
    let reaches: Vec<Reach> = std::iter::once(packages)
        .chain(applies)
        .flat_map(|patterns| patterns.items.iter().filter_map(Reach::of))
        .collect();
    if reaches.is_empty() {
        return Survey::default();
    }
    whole(&|dir| !reaches.iter().any(|reach| reach.goes_into(dir)))
}

/// How far down a wildcard pattern can match.
struct Reach {
    prefix: RelPath,
    /// Components of the longest match; `None` with `**`.
    depth_max: Option<usize>,
}

impl Reach {
    fn of(item: &DirPattern) -> Option<Self> {
        let text = item.pattern.text.as_str();
        let depth_max = (!text.contains("**")).then(|| text.split('/').count());
        (!item.exclude && !item.pattern.literal).then(|| Self { prefix: item.pattern.prefix.clone(), depth_max })
    }

    fn goes_into(&self, dir: &RelPath) -> bool {
        let towards = self.prefix.starts_with(dir);
        let beneath = dir.starts_with(&self.prefix);
        towards || (beneath && self.depth_max.is_none_or(|max| dir.components().count() <= max))
    }
}

/// Directories that hold a marker file, and which.
fn markers(survey: &Survey) -> BTreeMap<RelPath, BTreeSet<&'static str>> {
    let mut markers: BTreeMap<RelPath, BTreeSet<&'static str>> = BTreeMap::new();
    for found in &survey.found {
        let name = found.path.file_name();
        if let Some(marker) = MARKERS.iter().find(|marker| **marker == name)
            && matches!(found.kind, Kind::File | Kind::Link)
            && let Some(dir) = found.path.parent()
        {
            markers.entry(dir).or_default().insert(marker);
        }
    }
    markers
}

fn report_troubles(root: &Path, survey: &Survey, diagnostics: &mut Vec<Diagnostic>) {
    for trouble in &survey.troubles {
        let shown = trouble.path().strip_prefix(root).unwrap_or(trouble.path()).display().to_string();
        match trouble {
            Trouble::Unreadable { cause, .. } => diagnostics.push(
                Diagnostic::error(format!("cannot look for packages in `{shown}`: {cause}"))
                    .help("let it be read, or name it in `.gitignore`"),
            ),
            // Only a package must have a name that can be written; other files matter to the tasks that read them.
            Trouble::NotUtf8 { path } if path.file_name().is_some_and(|name| name == MANIFEST) => diagnostics.push(
                Diagnostic::error(format!("the package directory of `{shown}` has a name that is not UTF-8"))
                    .help("rename the directory"),
            ),
            Trouble::NotUtf8 { .. } => {}
        }
    }
}

/// A list of directory patterns; `!` takes away, the last that matches decides.
struct DirPatterns {
    items: Vec<DirPattern>,
}

struct DirPattern {
    pattern: Pattern,
    exclude: bool,
    written: Placed<String>,
}

impl DirPatterns {
    fn parse(written: &[Placed<String>], diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut items = Vec::new();
        for text in written {
            let (exclude, bare) =
                text.value.strip_prefix('!').map_or((false, text.value.as_str()), |rest| (true, rest));
            match Pattern::parse(bare.strip_prefix("//").unwrap_or(bare)) {
                Ok(pattern) => items.push(DirPattern { pattern, exclude, written: text.clone() }),
                Err(error) => diagnostics.push(
                    Diagnostic::error(format!("`{}` cannot name package directories: {error}", text.value))
                        .at(&text.place, "")
                        .help("patterns are relative to the workspace root, such as `libs/*`"),
                ),
            }
        }
        Self { items }
    }

    /// Directories taken: those of `candidates` that match, and those that patterns without wildcards name.
    fn select<'a>(&self, root: &Path, candidates: impl Iterator<Item = &'a RelPath>) -> BTreeSet<RelPath> {
        let literals =
            self.items.iter().filter(|item| item.pattern.literal && !item.exclude).map(|item| &item.pattern.prefix);
        let there = literals.filter(|dir| is_real_dir(root, dir));
        let matching = candidates.filter(|dir| self.takes(dir));
        matching.cloned().chain(there.filter(|dir| self.takes(dir)).cloned()).collect()
    }

    fn takes(&self, dir: &RelPath) -> bool {
        self.items.iter().rev().find(|item| item.matches(dir)).is_some_and(|item| !item.exclude)
    }

    /// Whether there is more than `!` in it.
    fn takes_something(&self) -> bool {
        self.items.iter().any(|item| !item.exclude)
    }

    /// Whether a `!` has the last word on a directory.
    fn takes_away(&self, dir: &RelPath) -> bool {
        self.items.iter().rev().find(|item| item.matches(dir)).is_some_and(|item| item.exclude)
    }

    fn report_unmatched(&self, taken: &BTreeSet<RelPath>, key: &str, diagnostics: &mut Vec<Diagnostic>) {
        for item in self.items.iter().filter(|item| !item.exclude) {
            if !taken.iter().any(|dir| item.matches(dir)) {
                let what = if item.pattern.literal { "directory" } else { "directory with a manifest" };
                diagnostics.push(
                    Diagnostic::warning(format!("`{}` in `{key}` matches no {what}", item.written.value))
                        .at(&item.written.place, ""),
                );
            }
        }
    }
}

impl DirPattern {
    /// Whether the directory itself is meant; those beneath a literal are not.
    fn matches(&self, dir: &RelPath) -> bool {
        match dir.is_root() {
            _ if self.pattern.literal => *dir == self.pattern.prefix,
            // The root has no name that a `*` could stand for.
            true => self.pattern.text.starts_with("**"),
            false => self.pattern.matches(dir),
        }
    }
}

/// Whether `dir` is a directory and no symbolic link leads to it.
fn is_real_dir(root: &Path, dir: &RelPath) -> bool {
    let mut here = root.to_owned();
    dir.components().all(|part| {
        here.push(part);
        ops::kind(&here).is_ok_and(|kind| kind == Kind::Dir)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::span::{Place, SourceId};
    use std::os::unix::ffi::OsStrExt;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        ops::create_dir_all(file.parent().expect("below the root")).expect("a directory");
        ops::write(&file, text.as_bytes()).expect("a file");
    }

    fn placed(texts: &[&str]) -> Vec<Placed<String>> {
        texts.iter().map(|text| Placed::new((*text).to_owned(), Place::new(SourceId(0), 0..1))).collect()
    }

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), MANIFEST, "[workspace]\n");
        for file in files {
            write(dir.path(), file, "");
        }
        dir
    }

    fn found(root: &Path, packages: Option<&[&str]>, applies: &[&[&str]]) -> (Vec<String>, Vec<String>) {
        let mut diagnostics = Vec::new();
        let packages = packages.map(placed);
        let applies: Vec<Apply> = applies.iter().map(|to| Apply { to: placed(to), tasks: Vec::new() }).collect();
        let discovered = discover(root, packages.as_deref(), &applies, &mut diagnostics);
        let show = |(dir, package): (&RelPath, &PackageDir)| {
            let applies: String = package.applies.iter().map(|position| format!("+{position}")).collect();
            format!("{dir}{}{applies}", if package.manifest { "" } else { "?" })
        };
        (discovered.packages.iter().map(show).collect(), diagnostics.into_iter().map(|one| one.message).collect())
    }

    #[test]
    fn by_default_every_unignored_directory_with_a_manifest_is_a_package() {
        let dir = tree(&["a/drystone.toml", "a/b/drystone.toml", "c/package.json", "gen/x/drystone.toml"]);
        write(dir.path(), ".gitignore", "gen/\n");
        ops::symlink("a", &dir.path().join("link")).expect("a link");
        assert_eq!(found(dir.path(), None, &[]), (vec![".".into(), "a".into(), "a/b".into()], vec![]));
    }

    #[test]
    fn what_packages_takes_away_nothing_else_gives() {
        let dir = tree(&["a/drystone.toml", "b/drystone.toml", "c/package.json", "d/package.json"]);
        let check = |packages: &[&str], applies: &[&[&str]], expect: &[&str]| {
            assert_eq!(found(dir.path(), Some(packages), applies).0, expect, "{packages:?} {applies:?}");
        };
        check(&["*", "!b"], &[&["b", "*"]], &[".", "a+0", "c?+0", "d?+0"]);
        check(&["!b"], &[], &[".", "a"]);
        check(&["!b", "!d"], &[&["*"]], &[".", "a+0", "c?+0"]);
        check(&["!*", "a"], &[&["c", "a"]], &[".", "a+0"]);
    }

    #[test]
    fn globs_take_directories_with_any_manifest_and_go_no_deeper_than_they_reach() {
        let dir = tree(&["libs/a/drystone.toml", "libs/b/Cargo.toml", "libs/c/x", "libs/a/deep/drystone.toml", "d/x"]);
        let check = |packages: &[&str], expect: &[&str]| {
            assert_eq!(found(dir.path(), Some(packages), &[]).0, expect, "{packages:?}");
        };
        check(&["libs/*"], &[".", "libs/a", "libs/b?"]);
        check(&["libs/**"], &[".", "libs/a", "libs/a/deep", "libs/b?"]);
        check(&["libs/*", "!libs/b"], &[".", "libs/a"]);
        check(&["//d", "libs/c/"], &[".", "d?", "libs/c?"]);
        check(&["."], &["."]);
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_named() {
        let dir = tree(&["libs/a/go.mod"]);
        let (dirs, messages) = found(dir.path(), Some(&["libs/*", "apps/*"]), &[&["libs/*"], &["tools/none", "li*"]]);
        assert_eq!(dirs, [".", "libs/a?+0"]);
        assert_eq!(
            messages,
            [
                "`apps/*` in `packages` matches no directory with a manifest",
                "`tools/none` in `[[apply]] to` matches no directory",
                "`li*` in `[[apply]] to` matches no directory with a manifest",
            ]
        );
        let (_, messages) = found(dir.path(), Some(&["../x"]), &[]);
        assert!(messages[0].contains("`../x` cannot name package directories"), "{messages:?}");
    }

    #[test]
    fn a_literal_does_not_lead_through_a_symbolic_link() {
        let dir = tree(&["real/x"]);
        ops::symlink("real", &dir.path().join("link")).expect("a link");
        assert_eq!(found(dir.path(), Some(&["link"]), &[&["real"]]).0, [".", "real?+0"]);
    }

    #[test]
    fn only_package_directories_need_names_in_utf8() {
        let dir = tree(&[]);
        let strange = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
        ops::create_dir(&strange).expect("a directory");
        assert_eq!(found(dir.path(), None, &[]).1, Vec::<String>::new());
        ops::write(&strange.join(MANIFEST), b"").expect("a file");
        let (_, messages) = found(dir.path(), None, &[]);
        assert!(messages.len() == 1 && messages[0].contains("not UTF-8"), "{messages:?}");
    }

    #[test]
    fn the_root_is_the_nearest_manifest_with_a_workspace() {
        let dir = tree(&["a/drystone.toml", "a/b/x"]);
        let root = Some(dir.path().to_owned());
        assert_eq!(find_root(&dir.path().join("a/b")), root);
        write(dir.path(), MANIFEST, "[workspace]\nname = \"broken");
        assert_eq!(find_root(&dir.path().join("a")), root);
        ops::symlink("drystone.toml", &dir.path().join("a/b/drystone.toml")).expect("a link");
        assert_eq!(find_root(&dir.path().join("a/b")), Some(dir.path().join("a/b")));
    }
}
