//! Path patterns: workspace-relative once parsed, matched against [`RelPath`]s. Lists are ordered; `!` takes away.
//!
//! The grammar is globset's with `literal_separator`: `*` and `?` stay within a component, `**` crosses them, `{a,b}` and
//! `[ab]` as usual. A pattern that names a directory exactly also matches everything beneath it.

use globset::{GlobBuilder, GlobMatcher};

use crate::base::path::RelPath;

/// One parsed pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As written, for messages and keys (outputs are keyed package-relative).
    pub text: String,
    /// Directory that every match lies beneath (or the path itself for a literal), relative to the base it was parsed for.
    pub prefix: RelPath,
    /// Whether it has no wildcard.
    pub literal: bool,
    matcher: GlobMatcher,
}

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is absolute or leaves its directory.
    #[error("{0}")]
    Path(#[from] crate::base::path::PathError),
    /// Its syntax is wrong.
    #[error("{0}")]
    Syntax(String),
}

const WILDCARDS: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

impl Pattern {
    /// Parses a pattern relative to some base (a package for outputs, the workspace once joined for inputs).
    ///
    /// A trailing `/` is dropped: `dist/` and `dist` both mean the directory with everything beneath.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let wild = text.split('/').position(|part| part.contains(WILDCARDS));
        let parts: Vec<&str> = text.split('/').collect();
        let prefix = RelPath::parse(&parts[..wild.unwrap_or(parts.len())].join("/"))?;
        let rest = wild.map_or(String::new(), |at| parts[at..].join("/"));
        if rest.split('/').any(|part| part == "..") {
            return Err(PatternError::Path(crate::base::path::PathError::Escapes));
        }
        let mut full = globset::escape(prefix.as_str());
        if wild.is_some() {
            if !full.is_empty() {
                full.push('/');
            }
            full.push_str(rest.trim_end_matches('/'));
        }
        let glob = GlobBuilder::new(&full).literal_separator(true).backslash_escape(true).build();
        let matcher = glob.map_err(|error| PatternError::Syntax(error.kind().to_string()))?.compile_matcher();
        Ok(Self { text: text.to_owned(), prefix, literal: wild.is_none(), matcher })
    }

    /// The same pattern below a directory: `src/**` below `libs/ui` is `libs/ui/src/**`.
    pub fn below(&self, dir: &RelPath) -> Self {
        if dir.is_root() {
            return self.clone();
        }
        let text = format!("{}/{}", globset::escape(dir.as_str()), self.text.trim_start_matches("./"));
        let mut joined = Self::parse(&text).expect("a good pattern below a good directory");
        if self.literal {
            joined.prefix = dir.join(&self.prefix);
            joined.literal = true;
        } else if joined.prefix != dir.join(&self.prefix) {
            joined.prefix = dir.join(&self.prefix);
        }
        joined.text = self.text.clone();
        joined
    }

    /// Whether it matches the path, or names a directory above it.
    pub fn matches(&self, path: &RelPath) -> bool {
        if self.literal { path.starts_with(&self.prefix) } else { self.matcher.is_match(path.as_str()) }
    }

    /// Whether it takes a whole directory: a literal, or `dir/**`. Gives that directory.
    pub fn whole_dir(&self) -> Option<&RelPath> {
        let covers = self.text.strip_suffix("/**").is_some_and(|dir| !dir.contains(WILDCARDS)) || self.text == "**";
        covers.then_some(&self.prefix)
    }
}

/// An ordered list of patterns, some of which take away.
#[derive(Clone, Debug, Default)]
pub struct PatternList {
    /// In the order written.
    pub items: Vec<PatternItem>,
}

/// One pattern of a list.
#[derive(Clone, Debug)]
pub struct PatternItem {
    /// The pattern.
    pub pattern: Pattern,
    /// Whether it takes away (`!`).
    pub exclude: bool,
    /// Where it is written.
    pub place: crate::base::span::Place,
}

impl PatternList {
    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether the last pattern that matches the path includes it.
    pub fn matches(&self, path: &RelPath) -> bool {
        self.items.iter().rev().find(|item| item.pattern.matches(path)).is_some_and(|item| !item.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let path = RelPath::parse(path).expect("a good path");
        Pattern::parse(pattern).expect("a good pattern").matches(&path)
    }

    #[test]
    fn stars_stay_within_a_component_and_double_stars_cross() {
        let check =
            |pattern: &str, path: &str, expect: bool| assert_eq!(matches(pattern, path), expect, "{pattern} {path}");
        check("src/*.c", "src/a.c", true);
        check("src/*.c", "src/sub/a.c", false);
        check("src/**/*.c", "src/a.c", true);
        check("src/**/*.c", "src/x/y/a.c", true);
        check("dist", "dist/a/b", true);
        check("dist/", "dist/a/b", true);
        check("dist/**", "dist/a/b", true);
        check("dist/**", "distant", false);
        check("**/*.{ts,tsx}", "a/b.tsx", true);
        check("test_[ab].py", "test_a.py", true);
    }

    #[test]
    fn patterns_move_below_a_directory_whose_name_looks_like_a_pattern() {
        let dir = RelPath::parse("apps/[slug]").expect("a good path");
        let pattern = Pattern::parse("src/**/*.ts").expect("a good pattern").below(&dir);
        assert_eq!(pattern.prefix.as_str(), "apps/[slug]/src");
        assert!(pattern.matches(&RelPath::parse("apps/[slug]/src/a.ts").expect("a good path")));
        let literal = Pattern::parse("a.ts").expect("a good pattern").below(&dir);
        assert!(literal.matches(&RelPath::parse("apps/[slug]/a.ts").expect("a good path")));
    }

    #[test]
    fn patterns_cannot_leave() {
        for bad in ["../x", "/etc/*", "src/*/../../../x"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
