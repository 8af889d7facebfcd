//! Which repository a workspace belongs to, so that its worktrees and clones know each other. Reads a few small files; runs no git.

use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::fs::ops;

/// A short name of the repository that `root` lies in, with the place of `root` in it.
///
/// Worktrees of one repository share it by their common directory. Clones share it if the first remote of each has the same
/// URL. Outside of a repository it is the directory's own.
pub fn name(root: &Path) -> String {
    let mut encoder = Encoder::new();
    match find(root) {
        Some((top, shared)) => {
            let remote = ops::read_text(&shared.join("config")).ok().and_then(|config| first_remote(&config));
            match remote {
                Some(url) => encoder.u8(REMOTE).bytes(url.as_bytes()),
                None => encoder.u8(SHARED).bytes(real(&shared).as_os_str().as_encoded_bytes()),
            };
            // Two workspaces in one repository have tasks of the same labels.
            encoder.bytes(root.strip_prefix(&top).unwrap_or(root).as_os_str().as_encoded_bytes());
        }
        None => {
            encoder.u8(DIRECTORY).bytes(real(root).as_os_str().as_encoded_bytes());
        }
    }
    Digest::of(encoder.as_slice()).short()
}

/// Where others get the repository that `root` lies in: the URL of its first remote, as `git+https://host/path` (SPDX 2.3, "Package
/// download location"), without names and passwords. `None` if it has none, or one on this machine.
pub fn public_remote(root: &Path) -> Option<String> {
    let (_, shared) = find(root)?;
    let config = ops::read_text(&shared.join("config")).ok()?;
    public(first_url(&config)?)
}

fn public(url: &str) -> Option<String> {
    if url.contains("::") {
        return None; // A command that gets it (gitremote-helpers(7)), with whatever stands in it.
    }
    let scheme = match url.split_once("://") {
        Some((scheme @ ("https" | "http" | "ssh" | "git"), _)) => scheme,
        Some(_) => return None,
        None if url.starts_with('/') => return None,
        None => "ssh",
    };
    let place = normal(url)?;
    let is_fine = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '?' | '#' | '@' | '\\' | '"');
    let (host, _) = place.split_once('/')?;
    (!host.is_empty() && place.chars().all(is_fine)).then(|| format!("git+{scheme}://{place}"))
}

const REMOTE: u8 = 1;
const SHARED: u8 = 2;
const DIRECTORY: u8 = 3;

fn real(path: &Path) -> PathBuf {
    ops::canonical(path).unwrap_or_else(|_| path.to_owned())
}

/// The top of the worktree that holds `start`, and the common directory of its repository.
fn find(start: &Path) -> Option<(PathBuf, PathBuf)> {
    start.ancestors().find_map(|top| Some((top.to_owned(), shared_dir(&top.join(".git"))?)))
}

/// The directory that all worktrees of a repository share, from a `.git` of one of them.
fn shared_dir(dot_git: &Path) -> Option<PathBuf> {
    let own = if ops::metadata(dot_git).ok()?.is_dir() {
        dot_git.to_owned()
    } else {
        let text = ops::read_text(dot_git).ok()?;
        dot_git.parent()?.join(text.strip_prefix("gitdir:")?.trim())
    };
    if let Ok(shared) = ops::read_text(&own.join("commondir")) {
        return Some(own.join(shared.trim_end_matches(['\r', '\n'])));
    }
    // An empty directory of that name is no repository, for git neither.
    ops::exists(&own.join("HEAD")).then_some(own)
}

/// The URL of the first remote in a git configuration, in a form that all its spellings share; `None` for one that is a
/// relative path, which means another place in every clone.
fn first_remote(config: &str) -> Option<String> {
    normal(first_url(config)?)
}

fn first_url(config: &str) -> Option<&str> {
    let mut in_remote = false;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            in_remote = line.starts_with("[remote \"");
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| in_remote) else { continue };
        if key.trim().eq_ignore_ascii_case("url") {
            return Some(value.trim().trim_matches('"'));
        }
    }
    None
}

/// `host/path` of a URL, without scheme, user and `.git`: CI checks out over HTTPS with a token what people clone over SSH.
fn normal(url: &str) -> Option<String> {
    let (rest, is_url) = url.split_once("://").map_or((url, false), |(_, rest)| (rest, true));
    let (authority, path) = if is_url {
        rest.split_once('/')?
    } else if rest.starts_with('/') {
        ("", rest.trim_start_matches('/'))
    } else {
        // `user@host:path`; without a colon it is a relative path.
        rest.split_once(':').filter(|(host, _)| !host.contains('/'))?
    };
    let host = authority.rsplit('@').next().unwrap_or(authority).to_ascii_lowercase();
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
    (!path.is_empty()).then(|| format!("{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(dir: &Path, path: &str, text: &str) {
        let path = dir.join(path);
        ops::create_dir_all(path.parent().expect("a file in a directory")).expect("a temporary directory");
        ops::write(&path, text.as_bytes()).expect("a temporary file");
    }

    fn repository(dir: &Path, config: &str) {
        put(dir, ".git/HEAD", "ref: refs/heads/main\n");
        put(dir, ".git/config", config);
    }

    #[test]
    fn spellings_of_one_remote_are_one() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(normal(text).as_deref(), expect, "{text}");
        let shop = Some("example.com/acme/shop");
        check("https://example.com/acme/shop", shop);
        check("https://token:x@Example.com/acme/shop.git/", shop);
        check("ssh://git@example.com/acme/shop.git", shop);
        check("git@example.com:acme/shop.git", shop);
        check("/srv/git/shop.git", Some("/srv/git/shop"));
        check("file:///srv/git/shop.git", Some("/srv/git/shop"));
        check("../shop.git", None);
        check("./a:b", None);
        check("", None);
        let config = "[core]\n\turl = no\n[remote \"up\"]\n\tfetch = +x\n\tURL = \"git@example.com:acme/shop\"\n[remote \"b\"]\nurl = /b\n";
        assert_eq!(first_remote(config).as_deref(), shop);
        assert_eq!(first_remote("[branch \"x\"]\nurl = /b\n[remote \"up\"]\n"), None);
    }

    #[test]
    fn nothing_secret_and_nothing_of_this_machine_is_in_what_others_are_told() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(public(text).as_deref(), expect, "{text}");
        check("https://ann:token@Example.com/acme/shop.git", Some("git+https://example.com/acme/shop"));
        check("git@example.com:acme/shop.git", Some("git+ssh://example.com/acme/shop"));
        check("ssh://git@example.com:22/acme/shop", Some("git+ssh://example.com:22/acme/shop"));
        for none in ["/srv/git/shop.git", "file:///srv/shop", "../shop", "https://example.com/a?token=x", "ext::x", ""]
        {
            check(none, None);
        }
    }

    #[test]
    fn worktrees_are_one_repository_and_unrelated_directories_are_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |path: &str| dir.path().join(path);
        repository(&at("main"), "[core]\n");
        put(dir.path(), "tree/.git", &format!("gitdir: {}\n", at("main/.git/worktrees/tree").display()));
        put(dir.path(), "main/.git/worktrees/tree/commondir", "../..\n");
        put(dir.path(), "relative/.git", "gitdir: ../main/.git/worktrees/tree\n");
        repository(&at("other"), "[core]\n");
        put(dir.path(), "plain/a/x", "");
        put(dir.path(), "plain/b/x", "");
        put(dir.path(), "empty/.git/x", "");
        assert_eq!(name(&at("main")), name(&at("tree")));
        assert_eq!(name(&at("main")), name(&at("relative")));
        assert_eq!(name(&at("main/sub")), name(&at("tree/sub")));
        let names = ["main", "main/sub", "other", "plain/a", "plain/b", "empty"].map(|path| name(&at(path)));
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
    }

    #[test]
    fn clones_of_one_remote_are_one_repository() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |path: &str| dir.path().join(path);
        repository(&at("one"), "[remote \"origin\"]\n\turl = git@example.com:acme/shop.git\n");
        repository(&at("ci"), "[remote \"origin\"]\n\turl = https://x:token@example.com/acme/shop\n");
        repository(&at("fork"), "[remote \"origin\"]\n\turl = git@example.com:bob/shop.git\n");
        assert_eq!(name(&at("one")), name(&at("ci")));
        assert_ne!(name(&at("one")), name(&at("fork")));
    }
}
