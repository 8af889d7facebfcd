//! Rust files as text: what is code and what is not, which modules, paths, functions and names it has. Judges nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories that are not committed.
const UNCOMMITTED_DIRS: [&str; 4] = [".git", "target", "node_modules", "__pycache__"];

/// A Rust file below `src/` or `tests/`.
pub struct Source {
    /// Relative to the repository.
    pub path: String,
    /// The text.
    pub raw: String,
    /// The text with comments and the contents of literals as blanks. Lines are where they were.
    pub code: String,
    /// The same without test modules.
    pub live: String,
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a directory, in byte order of the paths relative to the repository.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("a readable directory").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        if is_link || UNCOMMITTED_DIRS.contains(&name.as_str()) || name.starts_with("target-") {
            continue;
        }
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub fn relative(path: &Path) -> String {
    let below = path.strip_prefix(repository()).expect("files are listed below the repository");
    below.to_str().unwrap_or_else(|| panic!("{} is not UTF-8", path.display())).to_owned()
}

pub fn sources() -> Vec<Source> {
    let roots = ["src", "tests"].map(|dir| files_below(&repository().join(dir)));
    let mut sources: Vec<Source> = roots
        .into_iter()
        .flatten()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let raw = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let code = blank(&raw);
            let live = without_tests(&code);
            Source { path: relative(&path), raw, code, live }
        })
        .collect();
    // A module that is declared only for tests, and everything beneath it, has no live part.
    for index in 0..sources.len() {
        let mut path = sources[index].path.clone();
        while let Some((name, parents)) = declaration(&path) {
            let parent = sources.iter().find(|source| parents.contains(&source.path));
            let Some(parent) = parent else { break };
            if !declares(&parent.live, &name) && declares(&parent.code, &name) {
                sources[index].live = String::new();
                break;
            }
            path.clone_from(&parent.path);
        }
        if sources[index].path.starts_with("tests/") {
            sources[index].live = String::new();
        }
    }
    assert!(
        sources.len() > 20,
        "too few files below {}: are they looked for in the right place?",
        repository().display()
    );
    sources
}

/// A module's name and the files one of which must declare it; `None` for the root of a crate.
pub fn declaration(path: &str) -> Option<(String, Vec<String>)> {
    let (dir, file) = path.rsplit_once('/')?;
    let is_root = match dir {
        "src" => file == "lib.rs" || file == "main.rs",
        "tests" => true,
        _ => dir.starts_with("tests/") && dir.matches('/').count() == 1 && file == "main.rs",
    };
    if is_root {
        return None;
    }
    let (dir, name) = match file.strip_suffix(".rs")? {
        "mod" => dir.rsplit_once('/')?,
        name => (dir, name),
    };
    let roots = ["lib.rs", "main.rs", "mod.rs"].map(|root| format!("{dir}/{root}"));
    let parents = roots.into_iter().chain([format!("{dir}.rs")]).collect();
    Some((name.to_owned(), parents))
}

pub fn declares(code: &str, module: &str) -> bool {
    let declared = format!("mod {module}");
    code.match_indices(&declared).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + declared.len()..].trim_start().chars().next();
        !before.is_some_and(is_word) && matches!(after, Some(';' | '{'))
    })
}

pub fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Replaces comments and the contents of string and character literals with blanks, and keeps every line where it was.
pub fn blank(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let end = match letters[at] {
            '/' if letters.get(at + 1) == Some(&'/') => find(&letters, at, |rest| rest[0] == '\n'),
            '/' if letters.get(at + 1) == Some(&'*') => block_comment_end(&letters, at),
            '"' => string_end(&letters, at),
            'r' if at == 0 || !is_word(letters[at - 1]) || letters[at - 1] == 'b' || letters[at - 1] == 'c' => {
                raw_string_end(&letters, at).unwrap_or(at)
            }
            '\'' => character_end(&letters, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(letters[at]);
            at += 1;
            continue;
        }
        let is_literal = letters[at] != '/';
        let inner: String = letters[at..end].iter().map(|letter| if *letter == '\n' { '\n' } else { ' ' }).collect();
        out.push_str(if is_literal { "\"" } else { "" });
        out.push_str(&inner);
        out.push_str(if is_literal { "\"" } else { "" });
        at = end;
    }
    out
}

fn find(letters: &[char], from: usize, is_end: impl Fn(&[char]) -> bool) -> usize {
    (from..letters.len()).find(|at| is_end(&letters[*at..])).unwrap_or(letters.len())
}

fn block_comment_end(letters: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut at = from;
    while at + 1 < letters.len() {
        match (letters[at], letters[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    letters.len()
}

fn string_end(letters: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while at < letters.len() {
        match letters[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    letters.len()
}

fn raw_string_end(letters: &[char], from: usize) -> Option<usize> {
    let hashes = letters[from + 1..].iter().take_while(|letter| **letter == '#').count();
    if letters.get(from + 1 + hashes) != Some(&'"') {
        return None;
    }
    let start = from + 2 + hashes;
    let is_end =
        |rest: &[char]| rest[0] == '"' && rest[1..].iter().take(hashes).filter(|l| **l == '#').count() == hashes;
    Some((find(letters, start, is_end) + 1 + hashes).min(letters.len()))
}

/// The end of a character literal; `None` for a lifetime.
fn character_end(letters: &[char], from: usize) -> Option<usize> {
    match (letters.get(from + 1)?, letters.get(from + 2)?) {
        ('\\', _) => Some(find(letters, from + 3, |rest| rest[0] == '\'') + 1),
        (_, '\'') => Some(from + 3),
        _ => None,
    }
}

/// Blanks every item under `#[cfg(test)]`; all of a file under `#![cfg(test)]`.
pub fn without_tests(code: &str) -> String {
    if code.contains("#![cfg(test)]") {
        return String::new();
    }
    let mut live = code.to_owned();
    while let Some(start) = ["#[cfg(test)]", "#[cfg(all(test"].iter().filter_map(|mark| live.find(mark)).min() {
        let end = item_end(&live, start);
        let blanks: String = live[start..end].chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }).collect();
        live.replace_range(start..end, &blanks);
    }
    live
}

/// The end of the item that begins at `start`: behind its closing brace, or its semicolon.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0;
    for (offset, letter) in code[start..].char_indices() {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return start + offset + 1,
            '{' if depth == 0 => return closing_brace(code, start + offset),
            _ => {}
        }
    }
    code.len()
}

fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (offset, letter) in code[open..].char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

/// Every path below `root` (`crate`, `std`) that the code names, with the byte it starts at; `use` trees are taken apart.
pub fn paths_of(code: &str, root: &str) -> Vec<(usize, String)> {
    let start = format!("{root}::");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(&start) {
        if !code[..at].chars().next_back().is_some_and(is_word) {
            take_path(code, at + start.len(), String::new(), at, &mut found);
        }
    }
    found
}

/// Reads one branch of a path or `use` tree; returns where it ends.
fn take_path(code: &str, mut at: usize, mut path: String, start: usize, found: &mut Vec<(usize, String)>) -> usize {
    at += code[at..].len() - code[at..].trim_start().len();
    if code[at..].starts_with('{') {
        at += 1;
        loop {
            at += code[at..].len()
                - code[at..].trim_start_matches(|letter: char| letter.is_whitespace() || letter == ',').len();
            if at >= code.len() || code[at..].starts_with('}') {
                return (at + 1).min(code.len());
            }
            let end = take_path(code, at, path.clone(), start, found);
            // Past anything this does not read (`as name`), up to the next branch.
            at = end + code[end..].find([',', '}']).unwrap_or(code[end..].len());
        }
    }
    let word: String = code[at..].chars().take_while(|letter| is_word(*letter)).collect();
    at += word.len();
    if !word.is_empty() && word != "self" {
        path = if path.is_empty() { word } else { format!("{path}::{word}") };
        let next = code[at..].strip_prefix("::").and_then(|rest| rest.trim_start().chars().next());
        if next.is_some_and(|next| is_word(next) || next == '{' || next == '*') {
            return take_path(code, at + 2, path, start, found);
        }
    }
    found.push((start, path));
    at
}

pub fn is_within(path: &str, whole: &str) -> bool {
    path == whole || path.strip_prefix(whole).is_some_and(|rest| rest.starts_with("::"))
}

/// Start, name and length in lines of every function with a body.
pub fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name: String = code[at + 3..].chars().take_while(|letter| is_word(*letter)).collect();
        if name.is_empty() || code[..at].ends_with(is_word) {
            continue;
        }
        let end = item_end(code, at);
        if code[..end].ends_with('}') {
            found.push((at, name, line_of(code, end) - line_of(code, at) + 1));
        }
    }
    found
}

pub fn identifiers(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut rest = 0;
    for word in code.split(|letter: char| !is_word(letter)) {
        let at = rest;
        rest += word.len() + code[rest + word.len()..].chars().next().map_or(0, char::len_utf8);
        if !word.is_empty() {
            found.push((at, word.to_owned()));
        }
    }
    found
}

/// `StoreManager`, `store_manager` and `store/manager.rs` have the parts `store` and `manager`.
pub fn parts_of(identifier: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut was_lower = false;
    for letter in identifier.chars() {
        if !letter.is_alphanumeric() || (letter.is_uppercase() && was_lower) {
            parts.push(String::new());
        }
        was_lower = letter.is_lowercase();
        parts
            .last_mut()
            .expect("it starts with one part")
            .extend(letter.to_lowercase().filter(|l| l.is_alphanumeric()));
    }
    parts
}

#[test]
fn text_in_comments_and_literals_is_not_code() {
    let check = |text: &str, expect: &str| {
        let squeezed: Vec<String> = blank(text).split_whitespace().map(str::to_owned).collect();
        assert_eq!(squeezed.join(" "), expect, "{text}");
        assert_eq!(blank(text).matches('\n').count(), text.matches('\n').count(), "{text}");
    };
    check("a // b\nc", "a c");
    check("a /* b /* c */ d */ e", "a e");
    check("f(\"b \\\" // c\") // d", "f(\" \")");
    check("f(r#\"b \" c\"#, br\"d\", 'e', '\\'', b'\\n')", "f(\" \", b\" \", \" \", \" \", b\" \")");
    check("fn f<'a>(x: &'a str) -> r#type", "fn f<'a>(x: &'a str) -> r#type");
    check("for x in y {}", "for x in y {}");
}

#[test]
fn test_modules_are_not_live() {
    let check = |code: &str, expect: &str| {
        assert_eq!(without_tests(code).split_whitespace().collect::<Vec<_>>().join(" "), expect, "{code}");
    };
    check("fn a() {}\n#[cfg(test)]\nmod tests { fn b() { {} } }\nfn c() {}", "fn a() {} fn c() {}");
    check("#[cfg(test)]\npub(crate) mod tests;\nmod live;", "mod live;");
    check("#[cfg(test)]\n#[derive(Debug)]\nstruct S([u8; 2]);\nstruct T;", "struct T;");
    check("#[cfg(all(test, unix))] use a::{b, c}; use d;", "; use d;");
}

#[test]
fn use_trees_are_taken_apart() {
    let check = |code: &str, expect: &[&str]| {
        let paths: Vec<String> = paths_of(code, "crate").into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths, expect, "{code}");
    };
    check("use crate::fs::ops;", &["fs::ops"]);
    check(
        "use crate::{base::{digest::Digest, path as p}, fs::{self, ops::*}};",
        &["base::digest::Digest", "base::path", "fs", "fs::ops"],
    );
    check("let x = crate::engine::plan::<u8>(mycrate::store, $crate::cli);", &["engine::plan", "cli"]);
    check("pub(in crate::store) fn f()", &["store"]);
}

#[test]
fn names_are_taken_apart() {
    let check = |identifier: &str, expect: &[&str]| assert_eq!(parts_of(identifier), expect, "{identifier}");
    check("StoreManager", &["store", "manager"]);
    check("store_manager", &["store", "manager"]);
    check("store/manager.rs", &["store", "manager", "rs"]);
    check("STORE", &["store"]);
    check("commonest", &["commonest"]);
}
