//! Compared with the walker of the `ignore` crate, which is the one that ripgrep uses.

use std::ffi::OsStr;

use ignore::WalkBuilder;
use proptest::prelude::*;

use super::*;

/// What the `ignore` crate lists beneath a directory.
fn expected(root: &Path, start: &RelPath, skip: impl Fn(&RelPath) -> bool + Send + Sync + 'static) -> Survey {
    let start = root.join(start.as_str());
    let owned_root = root.to_owned();
    let relative = |root: &Path, path: &Path| {
        RelPath::parse_bytes(path.strip_prefix(root).expect("beneath the root").as_os_str().as_bytes())
    };
    let mut builder = WalkBuilder::new(&start);
    builder.standard_filters(false).parents(true).git_ignore(true).git_exclude(true).require_git(false).filter_entry(
        move |entry| {
            let pruned = || relative(&owned_root, entry.path()).is_ok_and(|path| skip(&path));
            let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
            entry.file_name() != ".git" && !is_temporary(entry.file_name()) && !(is_dir && pruned())
        },
    );
    let mut survey = Survey::default();
    for entry in builder.build() {
        let entry = match entry {
            Ok(entry) if entry.depth() == 0 => continue,
            Ok(entry) => entry,
            Err(error) => {
                survey.troubles.push(unreadable(&start, &error));
                continue;
            }
        };
        let kind = match entry.file_type() {
            Some(kind) if kind.is_symlink() => Kind::Link,
            Some(kind) if kind.is_dir() => Kind::Dir,
            Some(kind) if kind.is_file() => Kind::File,
            _ => Kind::Special,
        };
        match relative(root, entry.path()) {
            Ok(path) => survey.found.push(Found { path, kind }),
            Err(_) => survey.troubles.push(Trouble::NotUtf8 { path: entry.path().to_owned() }),
        }
    }
    survey.found.sort_by(|one, other| one.path.cmp(&other.path));
    survey.troubles.sort_by(|one, other| one.path().cmp(other.path()));
    survey
}

fn unreadable(start: &Path, error: &ignore::Error) -> Trouble {
    fn cause_of(error: &ignore::Error, path: &mut PathBuf) -> String {
        match error {
            ignore::Error::WithPath { path: place, err } => {
                place.clone_into(path);
                cause_of(err, path)
            }
            ignore::Error::WithDepth { err, .. } => cause_of(err, path),
            // `walkdir` says the path once more.
            other => {
                let text = other.to_string();
                let text = text.rsplit(": ").next().unwrap_or_default();
                text.split(" (os error").next().unwrap_or_default().to_lowercase()
            }
        }
    }
    let mut path = start.to_owned();
    let cause = cause_of(error, &mut path);
    Trouble::Unreadable { path, cause }
}

const DIRS: [&[u8]; 9] = [b"", b"a", b"a/b", b"a/b/c", b"a-b", b"gen", b"a/gen", b"\xff", b"a/\xfe/d"];
const NAMES: [&[u8]; 8] = [b"x", b"y.o", b"z.rs", b"gen", b".hidden", b"\xfd", b"[q]", b"b"];
const RULES: [&str; 16] = [
    "*.o",
    "!y.o",
    "gen/",
    "gen",
    "/b",
    "a/b",
    "**/c",
    "!/gen",
    "!gen/",
    "x",
    "/a/*",
    "# nothing",
    "[",
    "\\[q\\]",
    "b/**",
    "!x",
];

#[derive(Clone, Debug)]
enum Made {
    File(usize, usize),
    Link(usize, usize),
    Pipe(usize, usize),
    Empty(usize),
    Ignore(usize, Vec<usize>),
    Exclude(usize, Vec<usize>),
    Worktree(usize, Vec<usize>),
    Temporary(usize),
    Locked(usize),
}

fn made() -> impl Strategy<Value = Made> {
    let (dir, name) = (0..DIRS.len(), 0..NAMES.len());
    let rules = || proptest::collection::vec(0..RULES.len(), 0..4);
    prop_oneof![
        8 => (dir.clone(), name.clone()).prop_map(|(dir, name)| Made::File(dir, name)),
        1 => (dir.clone(), name.clone()).prop_map(|(dir, name)| Made::Link(dir, name)),
        1 => (dir.clone(), name).prop_map(|(dir, name)| Made::Pipe(dir, name)),
        1 => dir.clone().prop_map(Made::Empty),
        5 => (dir.clone(), rules()).prop_map(|(dir, rules)| Made::Ignore(dir, rules)),
        1 => (dir.clone(), rules()).prop_map(|(dir, rules)| Made::Exclude(dir, rules)),
        1 => (dir.clone(), rules()).prop_map(|(dir, rules)| Made::Worktree(dir, rules)),
        1 => dir.clone().prop_map(Made::Temporary),
        1 => dir.prop_map(Made::Locked),
    ]
}

fn make(top: &Path, all: &[Made]) {
    let at = |dir: usize| top.join("root").join(OsStr::from_bytes(DIRS[dir]));
    let text = |rules: &[usize]| rules.iter().map(|rule| RULES[*rule]).collect::<Vec<_>>().join("\n");
    let put = |path: &Path, text: &str| {
        let parent = path.parent().expect("below the root");
        // A file may be where a directory would be, and then it stays.
        let _taken = ops::create_dir_all(parent).and_then(|()| ops::write(path, text.as_bytes()));
    };
    for one in all {
        match one {
            Made::File(dir, name) => {
                let path = at(*dir).join(OsStr::from_bytes(NAMES[*name]));
                // To write into a pipe would wait for a reader.
                if !ops::exists(&path) {
                    put(&path, "");
                }
            }
            Made::Link(dir, name) => {
                let path = at(*dir).join(OsStr::from_bytes(NAMES[*name]));
                let _taken = ops::create_dir_all(&at(*dir)).and_then(|()| ops::symlink("..", &path));
            }
            Made::Pipe(dir, name) => {
                let path = at(*dir).join(OsStr::from_bytes(NAMES[*name]));
                let _taken = ops::create_dir_all(&at(*dir));
                let _made =
                    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0);
            }
            Made::Empty(dir) => drop(ops::create_dir_all(&at(*dir))),
            Made::Ignore(dir, rules) => put(&at(*dir).join(".gitignore"), &text(rules)),
            Made::Exclude(dir, rules) => put(&at(*dir).join(".git/info/exclude"), &text(rules)),
            Made::Worktree(dir, rules) => {
                let repository = top.join("repository");
                put(&at(*dir).join(".git"), &format!("gitdir: {}\n", repository.join("own").display()));
                put(&repository.join("own/commondir"), "..\n");
                put(&repository.join("info/exclude"), &text(rules));
            }
            Made::Temporary(dir) => drop(atomic::write(&at(*dir).join("t"), b"", atomic::Durability::Relaxed)),
            Made::Locked(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_tree_lists_as_the_walker_of_ripgrep_does(
        all in proptest::collection::vec(made(), 0..24),
        above in proptest::collection::vec(0..RULES.len(), 0..3),
        through_a_link: bool,
    ) {
        let top = tempfile::tempdir().expect("a directory");
        let real = top.path().canonicalize().expect("it is there");
        ops::create_dir_all(&real.join("root")).expect("a directory");
        let rules: Vec<&str> = above.iter().map(|rule| RULES[*rule]).collect();
        ops::write(&real.join(".gitignore"), rules.join("\n").as_bytes()).expect("a file");
        make(&real, &all);
        ops::symlink("root", &real.join("link")).expect("a link");
        let locked: Vec<PathBuf> = all
            .iter()
            .filter_map(|one| match one {
                Made::Locked(dir) if *dir > 0 => Some(real.join("root").join(OsStr::from_bytes(DIRS[*dir]))),
                _ => None,
            })
            .filter(|path| path.is_dir())
            .collect();
        locked.iter().for_each(|path| drop(ops::set_mode(path, 0)));
        let root = real.join(if through_a_link { "link" } else { "root" });
        let starts: Vec<RelPath> = ["", "a", "a/b", "gen", "a-b", "none"]
            .iter()
            .map(|path| RelPath::parse(path).expect("a good path"))
            .collect();
        let pruned = RelPath::parse("a/b").expect("a good path");
        let is_link = |path: &RelPath| real.join("root").join(path.as_str()).is_symlink();
        // A walk begins at a real directory: what lies behind a link in the tree is nobody's.
        let starts: Vec<RelPath> = starts
            .into_iter()
            .filter(|start| !std::iter::successors(Some(start.clone()), RelPath::parent).any(|path| is_link(&path)))
            .collect();
        let together = surveys(&root, &starts, |_, path| *path == pruned);
        for (start, survey_of_several) in starts.iter().zip(together) {
            let expect = expected(&root, start, { let pruned = pruned.clone(); move |path| *path == pruned });
            let alone = survey(&root, start, |path| *path == pruned);
            locked.iter().rev().for_each(|path| drop(ops::set_mode(path, 0o755)));
            prop_assert_eq!(&alone, &expect, "beneath `{}`", start);
            prop_assert_eq!(&survey_of_several, &expect, "beneath `{}`, with others", start);
            locked.iter().for_each(|path| drop(ops::set_mode(path, 0)));
        }
        locked.iter().rev().for_each(|path| drop(ops::set_mode(path, 0o755)));
    }
}
