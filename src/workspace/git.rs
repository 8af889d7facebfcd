//! What to ask git, and how to read its answers. Starts nothing: whoever may start processes runs these.
//!
//! Every command is to be run in the workspace root, which may lie below the root of the repository; paths come back
//! relative to it. The user's configuration cannot change what they print.

use std::collections::BTreeMap;

use crate::base::path::RelPath;
use crate::workspace::changes::{Before, FileKind};

/// A revision that cannot be passed to git.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{revision}` is not a revision: it is empty, starts with `-` or has a control character")]
pub struct RevisionError {
    /// As it was given.
    pub revision: String,
}

/// Leading words of every command: no lock files, so that a run never gets in the way of the user's own git.
const GIT: [&str; 2] = ["git", "--no-optional-locks"];

fn command(words: &[&str]) -> Vec<String> {
    GIT.iter().chain(words).map(|word| (*word).to_owned()).collect()
}

/// A text that may stand where git expects a revision: it cannot pass for an option.
fn revision(text: &str) -> Result<&str, RevisionError> {
    let bad = text.is_empty() || text.starts_with('-') || text.contains(|letter: char| letter.is_control());
    if bad { Err(RevisionError { revision: text.to_owned() }) } else { Ok(text) }
}

/// Prints the commit a revision names; fails if there is none.
pub fn resolve(rev: &str) -> Result<Vec<String>, RevisionError> {
    Ok(command(&["rev-parse", "--verify", "--quiet", &format!("{}^{{commit}}", revision(rev)?)]))
}

/// Prints the commit at which `HEAD` left the history of a revision.
pub fn merge_base(rev: &str) -> Result<Vec<String>, RevisionError> {
    Ok(command(&["merge-base", revision(rev)?, "HEAD"]))
}

/// Prints what differs between a commit and the files on disk, staged or not, for [`parse_changed`].
///
/// Without rename detection: a renamed file is one that went and one that came, and both names matter.
pub fn changed_since(commit: &str) -> Result<Vec<String>, RevisionError> {
    let commit = revision(commit)?;
    let words =
        ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-color", "--relative", commit, "--"];
    Ok(command(&words))
}

/// The same with what lay at each path in the commit, for [`parse_differences`].
pub fn differences(commit: &str) -> Result<Vec<String>, RevisionError> {
    let commit = revision(commit)?;
    let words = ["diff", "--raw", "-z", "--no-renames", "--no-ext-diff", "--no-color", "--relative", commit, "--"];
    Ok(command(&words))
}

/// Prints the files of a commit, for [`parse_files`].
pub fn files_of(commit: &str) -> Result<Vec<String>, RevisionError> {
    Ok(command(&["ls-tree", "-r", "-z", revision(commit)?]))
}

/// Prints the files git neither tracks nor ignores, for [`parse_changed`].
pub fn untracked() -> Vec<String> {
    command(&["ls-files", "-z", "--others", "--exclude-standard"])
}

/// Prints all settings, for [`parse_settings`].
pub fn settings() -> Vec<String> {
    command(&["config", "--list", "-z"])
}

/// Prints the files beneath the given paths that git neither tracks nor ignores, for [`parse_changed`]. No path is a pattern.
pub fn untracked_beneath(paths: &[RelPath]) -> Vec<String> {
    let mut words = command(&["--literal-pathspecs", "ls-files", "-z", "--others", "--exclude-standard", "--"]);
    words.extend(paths.iter().map(ToString::to_string));
    words
}

/// Prints which files beneath the given paths git tracks, for [`parse_changed`]. No path is a pattern.
pub fn tracked(paths: &[RelPath]) -> Vec<String> {
    let mut words = command(&["--literal-pathspecs", "ls-files", "-z", "--cached", "--"]);
    words.extend(paths.iter().map(ToString::to_string));
    words
}

/// Reads the answer of `git rev-parse` or `git merge-base`: one object name.
pub fn parse_commit(answer: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(answer).ok()?.lines().next()?;
    let hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hexadecimal && (text.len() == 40 || text.len() == 64)).then(|| text.to_owned())
}

/// Reads NUL-separated paths, as `-z` makes git print them; sorted, each once.
///
/// Names that are not UTF-8 are left out: no task can have them as inputs.
pub fn parse_changed(answer: &[u8]) -> Vec<RelPath> {
    // A repository in this one, of which git looks at nothing, ends with a slash.
    let names = answer.split(|byte| *byte == 0).map(|name| name.strip_suffix(b"/").unwrap_or(name));
    let names = names.filter(|name| !name.is_empty());
    let mut paths: Vec<RelPath> =
        names.filter_map(|name| RelPath::parse_bytes(name).ok()).filter(|path| !path.is_root()).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Reads the answer to [`differences`]: the paths, sorted, each once, and what lay there in the commit.
///
/// Entries are `:OLD-MODE NEW-MODE OLD-OBJECT NEW-OBJECT STATUS`, the path follows (git-diff, "Raw output format"). The old mode is 0
/// where nothing lay, and in the first of two entries on a path that is not merged. Names that are not UTF-8 are left out.
pub fn parse_differences(answer: &[u8]) -> (Vec<RelPath>, Before) {
    let mut fields = answer.split(|byte| *byte == 0);
    let (mut paths, mut files) = (Vec::new(), BTreeMap::new());
    while let (Some(entry), Some(name)) = (fields.next(), fields.next()) {
        let (Some(mode), Ok(path)) = (entry.get(1..7), RelPath::parse_bytes(name)) else { continue };
        if path.is_root() {
            continue;
        }
        if mode != b"000000" {
            files.insert(path.clone(), kind_of(mode));
        }
        paths.push(path);
    }
    paths.sort();
    paths.dedup();
    (paths, Before::new(files))
}

/// What a mode in a tree of git stands for.
fn kind_of(mode: &[u8]) -> FileKind {
    match mode {
        b"120000" => FileKind::Link,
        mode if mode.starts_with(b"100") => FileKind::File,
        _ => FileKind::Other,
    }
}

/// Reads the answer to [`files_of`]. Names that are not UTF-8 are left out.
pub fn parse_files(answer: &[u8]) -> Before {
    let file = |entry: &[u8]| {
        let tab = entry.iter().position(|byte| *byte == b'\t')?;
        Some((RelPath::parse_bytes(&entry[tab + 1..]).ok()?, kind_of(entry.get(..6)?)))
    };
    Before::new(answer.split(|byte| *byte == 0).filter_map(file).collect::<BTreeMap<_, _>>())
}

/// What of git's settings decides what it tells, and how it writes files out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// `core.excludesFile`, as it is written.
    pub excludes_file: Option<String>,
    /// `extensions.objectFormat`.
    pub object_format: Option<String>,
    /// `core.autocrlf`, as it is written.
    pub auto_crlf: Option<String>,
    /// `core.fileMode`, as it is written.
    pub file_mode: Option<String>,
}

/// Reads the answer to [`settings`]: entries of a name, a line feed and a value, the last of a name counts.
pub fn parse_settings(answer: &[u8]) -> Settings {
    let mut found = Settings::default();
    for entry in String::from_utf8_lossy(answer).split('\0') {
        let Some((name, value)) = entry.split_once('\n') else { continue };
        match name {
            "core.excludesfile" => found.excludes_file = Some(value.to_owned()),
            "extensions.objectformat" => found.object_format = Some(value.to_owned()),
            "core.autocrlf" => found.auto_crlf = Some(value.to_owned()),
            "core.filemode" => found.file_mode = Some(value.to_owned()),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_setting_of_a_name_counts() {
        let check = |answer: &[u8], excludes_file: Option<&str>, object_format: Option<&str>| {
            let (excludes_file, object_format) = (excludes_file.map(str::to_owned), object_format.map(str::to_owned));
            let expect = Settings { excludes_file, object_format, ..Settings::default() };
            assert_eq!(parse_settings(answer), expect, "{answer:?}");
        };
        check(b"", None, None);
        check(b"core.excludesfile\n~/one\0user.name\nX\0core.excludesfile\n/two\nlines\0", Some("/two\nlines"), None);
        check(b"core.excludesfile\0extensions.objectformat\nsha256\0", None, Some("sha256"));
        let written = parse_settings(b"core.autocrlf\ninput\0core.autocrlf\ntrue\0core.filemode\nfalse\0");
        assert_eq!((written.auto_crlf.as_deref(), written.file_mode.as_deref()), (Some("true"), Some("false")));
    }

    #[test]
    fn nul_separated_paths_are_read_whatever_they_contain() {
        let check = |answer: &[u8], expect: &[&str]| {
            let paths = parse_changed(answer);
            assert_eq!(paths.iter().map(RelPath::as_str).collect::<Vec<_>>(), expect, "{answer:?}");
        };
        check(b"", &[]);
        check(b"b\0a\0b\0", &["a", "b"]);
        check(b"a b\n\"c\0x/y", &["a b\n\"c", "x/y"]);
        check(b"\xff\0ok\0../out\0/abs\0", &["ok"]);
        check(b"sub/\0/\0", &["sub"]);
    }

    #[test]
    fn what_lay_at_a_path_is_read_with_the_difference() {
        let answer = b":100644 100644 aa bb M\0b\0:000000 100644 00 bb A\0a\0:120000 000000 aa 00 D\0l\0\
                       :000000 000000 00 00 U\0m\0:100755 100644 aa 00 M\0m\0:160000 160000 aa 00 M\0sub\0:100644 000000 aa 00 D\0\xff\0";
        let (paths, before) = parse_differences(answer);
        assert_eq!(paths.iter().map(RelPath::as_str).collect::<Vec<_>>(), ["a", "b", "l", "m", "sub"]);
        let was = [("b", FileKind::File), ("l", FileKind::Link), ("m", FileKind::File), ("sub", FileKind::Other)];
        let was = was.into_iter().map(|(name, kind)| (RelPath::parse(name).expect("a path"), kind));
        assert_eq!(before, Before::new(was.collect()));
        for cut in 0..answer.len() {
            parse_differences(&answer[..cut]);
        }
    }

    #[test]
    fn a_revision_cannot_pass_for_an_option() {
        for bad in ["", "-x", "--output=/etc/passwd", "a\nb", "a\0"] {
            assert!(changed_since(bad).is_err() && merge_base(bad).is_err() && resolve(bad).is_err(), "{bad:?}");
        }
        for good in ["main", "HEAD~1", "v1^", "@{u}", "origin/main"] {
            assert!(changed_since(good).is_ok(), "{good}");
        }
        let argv = changed_since("main").expect("a revision");
        assert_eq!(argv.last().map(String::as_str), Some("--"));
    }

    #[test]
    fn only_an_object_name_is_a_commit() {
        let name = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(parse_commit(format!("{name}\n").as_bytes()).as_deref(), Some(name));
        for bad in ["", "main\n", "fatal: bad revision\n", "\u{e9}"] {
            assert_eq!(parse_commit(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(answer: Vec<u8>) {
            parse_changed(&answer);
            parse_commit(&answer);
            parse_files(&answer);
            parse_differences(&answer);
            parse_settings(&answer);
        }
    }
}
