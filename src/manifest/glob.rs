//! Path patterns: workspace-relative once parsed, matched against [`RelPath`]s. Lists are ordered; `!` takes away.
//!
//! The grammar is globset's with `literal_separator`: `*` and `?` stay within a component, `**` crosses them, `{a,b}` and
//! `[ab]` as usual. A pattern that names a directory exactly also matches everything beneath it.

use std::sync::{Arc, OnceLock};

use globset::{Glob, GlobBuilder, GlobMatcher};

use crate::base::compact::{Compact, Reader, Writer};
use crate::base::limits::{PATTERN_BYTES_MAX, PATTERN_NESTING_MAX};
use crate::base::path::RelPath;
use crate::manifest::model::Reach;

/// One parsed pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As written, for messages and keys (outputs are keyed package-relative).
    pub text: String,
    /// Directory that every match lies beneath (or the path itself for a literal), relative to the base it was parsed for.
    pub prefix: RelPath,
    /// Whether it has no wildcard.
    pub literal: bool,
    /// The same for globset, which has parsed it once.
    glob: String,
    /// Made from `glob` at the first match: most runs never match most patterns, and this is a hundred times the cost of parsing.
    matcher: OnceLock<Box<GlobMatcher>>,
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
    /// It is longer than [`PATTERN_BYTES_MAX`] or nests braces deeper than [`PATTERN_NESTING_MAX`].
    #[error("the pattern is longer than {PATTERN_BYTES_MAX} bytes or nests braces deeper than {PATTERN_NESTING_MAX}")]
    TooLarge,
}

const WILDCARDS: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

impl Pattern {
    /// Parses a pattern relative to some base (a package for outputs, the workspace once joined for inputs).
    ///
    /// A trailing `/` is dropped: `dist/` and `dist` both mean the directory with everything beneath.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        // The bounds are what makes compiling infallible: the program made of a pattern is linear in its length.
        if text.len() > PATTERN_BYTES_MAX || brace_nesting(text) > PATTERN_NESTING_MAX {
            return Err(PatternError::TooLarge);
        }
        // What stands before the first wildcard of `/**` is nothing, which would pass for a path of its own.
        if text.starts_with('/') {
            return Err(PatternError::Path(crate::base::path::PathError::Absolute));
        }
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
        // What is escaped needs no check.
        if wild.is_some() {
            parse_glob(&full).map_err(|error| PatternError::Syntax(error.kind().to_string()))?;
        }
        Ok(Self { text: text.to_owned(), prefix, literal: wild.is_none(), glob: full, matcher: OnceLock::new() })
    }

    /// The same pattern below a directory: `src/**` below `libs/ui` is `libs/ui/src/**`.
    pub fn below(&self, dir: &RelPath) -> Self {
        if dir.is_root() {
            return self.clone();
        }
        let glob = format!("{}/{}", globset::escape(dir.as_str()), self.glob);
        Self {
            text: self.text.clone(),
            prefix: dir.join(&self.prefix),
            literal: self.literal,
            glob,
            matcher: OnceLock::new(),
        }
    }

    /// Whether it matches the path, or names a directory above it.
    pub fn matches(&self, path: &RelPath) -> bool {
        if self.literal { path.starts_with(&self.prefix) } else { self.matcher().is_match(path.as_str()) }
    }

    fn matcher(&self) -> &GlobMatcher {
        self.matcher.get_or_init(|| {
            let glob = parse_glob(&self.glob).expect("a good pattern, perhaps below an escaped directory");
            Box::new(glob.compile_matcher())
        })
    }

    /// Whether it takes a whole directory: a literal, or `dir/**`. Gives that directory.
    pub fn whole_dir(&self) -> Option<&RelPath> {
        let covers = self.text.strip_suffix("/**").is_some_and(|dir| !dir.contains(WILDCARDS)) || self.text == "**";
        covers.then_some(&self.prefix)
    }
}

impl Compact for Pattern {
    fn put(&self, writer: &mut Writer) {
        let Self { text, prefix, literal, glob, matcher: _ } = self;
        text.put(writer);
        prefix.put(writer);
        literal.put(writer);
        glob.put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        let (text, prefix) = (String::take(reader)?, RelPath::take(reader)?);
        let (literal, glob) = (bool::take(reader)?, String::take(reader)?);
        Some(Self { text, prefix, literal, glob, matcher: OnceLock::new() })
    }
}

crate::base::compact::compact_struct!(PatternItem { pattern, exclude, reach, place });
crate::base::compact::compact_struct!(PatternList { items });

fn parse_glob(full: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(full).literal_separator(true).backslash_escape(true).build()
}

/// Deepest nesting of `{`, counting escaped ones too: an upper bound is enough.
fn brace_nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    for letter in text.bytes() {
        match letter {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// An ordered list of patterns, some of which take away.
#[derive(Clone, Debug, Default)]
pub struct PatternList {
    /// In the order written.
    pub items: Arc<[PatternItem]>,
}

/// One pattern of a list.
#[derive(Clone, Debug)]
pub struct PatternItem {
    /// The pattern.
    pub pattern: Pattern,
    /// Whether it takes away (`!`).
    pub exclude: bool,
    /// For `^…` inputs: in which packages it is looked for. Package-relative until the workspace is put together, which then
    /// has one item for each of those packages.
    pub reach: Option<Reach>,
    /// Where it is written.
    pub place: crate::base::span::Place,
}

impl PatternItem {
    /// Its text with what it is relative to: items that are equal in it match the same paths.
    pub fn written(&self) -> String {
        let sign = if self.exclude { "!" } else { "" };
        let reach = if self.reach.is_some() { "^" } else { "" };
        format!("{sign}{reach}{}\0{}", self.pattern.prefix.as_str(), self.pattern.text)
    }
}

/// Lists that match the same paths by the same words.
impl PartialEq for PatternList {
    fn eq(&self, other: &Self) -> bool {
        self.items.iter().map(PatternItem::written).eq(other.items.iter().map(PatternItem::written))
    }
}

impl Eq for PatternList {}

impl FromIterator<PatternItem> for PatternList {
    fn from_iter<I: IntoIterator<Item = PatternItem>>(items: I) -> Self {
        Self { items: items.into_iter().collect() }
    }
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
        for bad in ["../x", "/etc/*", "/**/x", "src/*/../../../x"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dots_in_a_literal_are_resolved_below_any_directory() {
        let dir = RelPath::parse("apps/[slug]").expect("a good path");
        let pattern = Pattern::parse("a/../b.ts").expect("a good pattern").below(&dir);
        assert!(pattern.matches(&RelPath::parse("apps/[slug]/b.ts").expect("a good path")));
    }

    #[test]
    fn patterns_that_could_exhaust_the_matcher_are_refused() {
        let check = |text: String| assert_eq!(Pattern::parse(&text).err(), Some(PatternError::TooLarge));
        check("a".repeat(PATTERN_BYTES_MAX + 1));
        check("{".repeat(PATTERN_NESTING_MAX + 1) + &"}".repeat(PATTERN_NESTING_MAX + 1));
    }

    proptest::proptest! {
        #[test]
        fn whatever_parses_can_be_matched_anywhere(text in "([a-c*?!{},/.\\[\\]\\\\é-]|\\*\\*){0,40}", dir in "[a\\[\\]{*]{1,4}") {
            if let (Ok(pattern), Ok(dir)) = (Pattern::parse(&text), RelPath::parse(&dir)) {
                pattern.matches(&RelPath::parse("a/b.c").expect("a good path"));
                pattern.below(&dir).matches(&dir);
            }
        }
    }
}
