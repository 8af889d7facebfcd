//! What git ignores: the rules of `.gitignore` files and of `.git/info/exclude`. Lists nothing.
//!
//! A directory without rules costs nothing; rules are read once and shared by everything beneath. What cannot be read or makes
//! no sense in them is passed over, as git does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::fs::{ops, witness};

/// Names in a directory that bring rules with them.
#[derive(Clone, Copy, Default)]
pub(super) struct Marks {
    /// `.gitignore`.
    pub ignore_file: bool,
    /// `.git`.
    pub git: bool,
}

impl Marks {
    /// Takes note of a name.
    pub fn see(&mut self, name: &[u8]) {
        self.ignore_file |= name == b".gitignore";
        self.git |= name == b".git";
    }
}

/// The rules that hold in a directory, those of the directories above it included.
#[derive(Clone, Default)]
pub(super) struct Rules(Option<Arc<Level>>);

/// The rules of one directory that has any.
struct Level {
    ignore: Gitignore,
    exclude: Gitignore,
    outer: Rules,
}

impl Rules {
    /// The rules of the directories above an absolute path without links in it.
    pub fn above(dir: &Path) -> Self {
        let above: Vec<&Path> = dir.ancestors().skip(1).collect();
        above.iter().rev().fold(Self::default(), |outer, dir| outer.looked_for(dir))
    }

    /// The rules in a directory of which nothing is known.
    pub fn looked_for(self, dir: &Path) -> Self {
        self.within(dir, Marks { ignore_file: true, git: true })
    }

    /// The rules in a directory with these names.
    pub fn within(self, dir: &Path, marks: Marks) -> Self {
        if !marks.ignore_file && !marks.git {
            return self;
        }
        let read = |file: Option<PathBuf>| {
            let mut builder = GitignoreBuilder::new(dir);
            if let Some(file) = file.filter(|file| ops::exists(file)) {
                // The builder reads it by itself, so that whoever listens is told here.
                if witness::is_listening() {
                    drop(ops::read(&file));
                }
                let _broken = builder.add(file);
            }
            builder.build().unwrap_or_else(|_| Gitignore::empty())
        };
        let ignore = read(marks.ignore_file.then(|| dir.join(".gitignore")));
        let exclude = read(if marks.git { git_dir(dir).map(|git| git.join("info/exclude")) } else { None });
        if ignore.is_empty() && exclude.is_empty() {
            return self;
        }
        Self(Some(Arc::new(Level { ignore, exclude, outer: self })))
    }

    /// Whether git ignores what lies at a path in the directory. The innermost rule decides, and any `.gitignore` before any exclude.
    pub fn ignore(&self, path: &Path, is_dir: bool) -> bool {
        let levels = || std::iter::successors(self.0.as_deref(), |level| level.outer.0.as_deref());
        let mut by_ignore = levels().map(|level| level.ignore.matched(path, is_dir));
        let mut by_exclude = levels().map(|level| level.exclude.matched(path, is_dir));
        let decides = by_ignore.find(|found| !found.is_none()).or_else(|| by_exclude.find(|found| !found.is_none()));
        decides.is_some_and(|found| found.is_ignore())
    }
}

/// Where git keeps what concerns a repository: `.git`, or for a worktree the directory of the repository it belongs to.
fn git_dir(dir: &Path) -> Option<PathBuf> {
    let git = dir.join(".git");
    let meta = ops::metadata(&git).ok()?;
    if !meta.is_file() {
        return Some(git);
    }
    let first_line = |path: &Path| ops::read_text(path).ok().and_then(|text| text.lines().next().map(str::to_owned));
    let line = first_line(&git)?;
    let own = PathBuf::from(line.strip_prefix("gitdir: ")?);
    let shared = first_line(&own.join("commondir"))?;
    Some(if shared.starts_with('.') { own.join(shared) } else { PathBuf::from(shared) })
}
