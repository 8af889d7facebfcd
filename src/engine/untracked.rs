//! Which files git neither tracks nor ignores: asked of git, or as it told last while all that follows from is as it was.
//!
//! To find them git lists every directory. Where the names in all of them are as they were, the index names the same paths, and rules
//! and settings are the same, git would tell the same. Most names are claimed of a run ([`crate::engine::again`]), and compared with
//! the disk when the workspace is opened. Variables that lead git elsewhere (`GIT_DIR` and its like) have it asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::path::RelPath;
use crate::engine::again::Kept;
use crate::engine::tracked::{git_index, is_led_elsewhere, run_git_in};
use crate::fs::ops;
use crate::fs::witness::now_ns;
use crate::workspace::census::Census;
use crate::workspace::git::{self, Settings};
use crate::workspace::git_index::ObjectNames;
use crate::workspace::untracked::{Index, Untracked, claims, holds};

/// What decides git's answer beside names and rules, as it was when that was looked at.
pub struct Circumstances {
    /// What was kept of the last answer.
    last: Option<Untracked>,
    index_file: PathBuf,
    index: Index,
    /// Digest of settings and variables.
    settings: Digest,
}

impl Circumstances {
    /// Looks at them. `None` where they are not to be told. Cost: one call of git, and reading its index if it is another one.
    pub fn of(root: &Path, state_dir: &Path, variables: &BTreeMap<String, String>) -> Option<Self> {
        if is_led_elsewhere(variables) {
            return None;
        }
        let answer = run_git_in(root, &git::settings())?;
        let settings = git::parse_settings(&answer);
        let objects = ObjectNames::of_format(settings.object_format.as_deref())?;
        let excludes = excludes_file(&settings, variables)?;
        let last = Untracked::load(state_dir);
        let (seen_ns, index_file) = (now_ns(), git_index(root)?);
        let index = Index::read(&index_file, objects, seen_ns, last.as_ref().map(|last| &last.index))?;
        let mut encoder = Encoder::new();
        encoder.bytes(root.as_os_str().as_encoded_bytes()).bytes(&answer);
        let excluded = excludes.and_then(|file| ops::read(&file).ok());
        encoder.u8(u8::from(excluded.is_some())).bytes(&excluded.unwrap_or_default());
        for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("GIT_")) {
            encoder.bytes(name.as_bytes()).bytes(value.as_bytes());
        }
        Some(Self { last, index_file, index, settings: Digest::of(encoder.as_slice()) })
    }

    /// What git told last, if it follows from the same settings and the same paths in the index.
    fn last(&self) -> Option<&Untracked> {
        let last = self.last.as_ref()?;
        (last.settings == self.settings && last.index.names == self.index.names).then_some(last)
    }
}

/// The file with what is ignored everywhere, by default where git looks for it; `None` if where that is cannot be told.
fn excludes_file(settings: &Settings, variables: &BTreeMap<String, String>) -> Option<Option<PathBuf>> {
    let filled = |name: &str| variables.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let Some(written) = settings.excludes_file.as_deref() else {
        let config = filled("XDG_CONFIG_HOME").or_else(|| Some(filled("HOME")?.join(".config")));
        return Some(config.map(|config| config.join("git/ignore")));
    };
    if let Some(below) = written.strip_prefix("~/") {
        return Some(Some(filled("HOME")?.join(below)));
    }
    written.starts_with('/').then(|| Some(PathBuf::from(written)))
}

/// The files that git neither tracks nor ignores in a workspace. `None` if git does not tell.
///
/// `kept` is what is kept of the last run, of which the structure was found to be as it was.
pub fn files(
    root: &Path,
    state_dir: &Path,
    kept: Option<&Kept>,
    circumstances: Option<&Circumstances>,
) -> Option<Vec<RelPath>> {
    let known = circumstances.zip(kept);
    if let Some((now, kept)) = known
        && let Some(last) = now.last()
        && Census::of(&last.census).is_some_and(|census| holds(census, kept.census(), kept.root()))
    {
        if last.index != now.index {
            keep(state_dir, &Untracked { index: now.index, ..last.clone() });
        }
        return Some(last.files.clone());
    }
    let before_ns = now_ns();
    let answer = run_git_in(root, &git::untracked())?;
    let files = git::parse_changed(&answer);
    // A repository in this one ends with a slash; of a name that is not UTF-8 nothing can be said.
    let is_plain = |name: &[u8]| !name.ends_with(b"/") && std::str::from_utf8(name).is_ok();
    if let Some((now, kept)) = known
        && answer.split(|byte| *byte == 0).all(is_plain)
        && let Some(census) = claims(kept.census(), kept.root(), &files, before_ns)
        && now.index.is_at(&now.index_file)
    {
        let (settings, index) = (now.settings, now.index);
        keep(state_dir, &Untracked { settings, index, census, files: files.clone() });
    }
    Some(files)
}

fn keep(state_dir: &Path, untracked: &Untracked) {
    if let Err(error) = untracked.save(state_dir) {
        tracing::debug!(%error, "which files git does not track was not kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_everywhere_is_found_as_git_finds_it() {
        let check = |written: Option<&str>, variables: &[(&str, &str)], expect: Option<Option<&str>>| {
            let settings = Settings { excludes_file: written.map(str::to_owned), ..Settings::default() };
            let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(excludes_file(&settings, &variables), expect.map(|path| path.map(PathBuf::from)), "{written:?}");
        };
        let home = ("HOME", "/people/a");
        check(None, &[home], Some(Some("/people/a/.config/git/ignore")));
        check(None, &[home, ("XDG_CONFIG_HOME", "/config")], Some(Some("/config/git/ignore")));
        check(None, &[home, ("XDG_CONFIG_HOME", "")], Some(Some("/people/a/.config/git/ignore")));
        check(None, &[], Some(None));
        check(Some("/etc/ignore"), &[], Some(Some("/etc/ignore")));
        check(Some("~/ignore"), &[home], Some(Some("/people/a/ignore")));
        check(Some("~/ignore"), &[], None);
        check(Some("~other/ignore"), &[home], None);
        check(Some("ignore"), &[home], None);
        check(Some(""), &[home], None);
    }
}
