//! The query language: sets of tasks by function, pattern and operator. Knows no git: `affected` is handed in.
//!
//! ```text
//! query := term { ( "&" | "|" | "-" ) term }        one precedence, from left to right
//! term  := "(" query ")" | function "(" … ")" | pattern
//! ```
//! Functions: `deps(x)` and `rdeps(x)`, each with `x` itself; `path(a, b)`: every task on a way along needs from `a` to
//! `b`; `kind(word)`, `tag(word)`; `affected(rev)`, where no revision means the caller's usual one. A `-` that begins a
//! word is the operator, one within a word belongs to it. Double quotes hold a word together.

use std::collections::BTreeSet;

use crate::base::diagnostic::{Diagnostic, nearest};
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::graph::build::TaskGraph;
use crate::graph::select::select_one;
use crate::workspace::model::Workspace;

/// Deepest nesting of parentheses, so that no query exhausts the stack.
const DEPTH_MAX: usize = 64;

const FUNCTIONS: [&str; 6] = ["affected", "deps", "kind", "path", "rdeps", "tag"];

/// Finds the tasks that changes since a revision can reach; the text is as written, perhaps empty.
pub type Affected<'a> = &'a dyn Fn(&str) -> Result<BTreeSet<TaskId>, Diagnostic>;

/// The tasks that a query means, in the order of their labels; perhaps none.
///
/// # Errors
/// If it cannot be read, with the column; if a pattern in it selects nothing; whatever `affected` says.
pub fn query(
    workspace: &Workspace,
    graph: &TaskGraph,
    expr: &str,
    here: &RelPath,
    affected: Affected<'_>,
) -> Result<Vec<TaskId>, Diagnostic> {
    let chain = Parser::parse(expr)?;
    let context = Context { workspace, graph, here, affected, text: expr };
    Ok(context.chain(&chain)?.into_iter().collect())
}

/// A word of the query, or a sign.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    Sign(char),
}

impl Token {
    fn shown(&self) -> String {
        match self {
            Token::Word(word) => format!("`{word}`"),
            Token::Sign(sign) => format!("`{sign}`"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operator {
    And,
    Or,
    Less,
}

/// Terms with operators between them. A list, so that a long query is not a deep one.
#[derive(PartialEq, Eq, Debug)]
struct Chain {
    first: Term,
    rest: Vec<(Operator, Term)>,
}

#[derive(PartialEq, Eq, Debug)]
enum Term {
    Pattern { text: String, at: usize },
    Group(Box<Chain>),
    Deps(Box<Chain>),
    Rdeps(Box<Chain>),
    Path(Box<Chain>, Box<Chain>),
    Affected(String),
}

/// A syntax error at a byte offset of the query, shown beneath it.
fn wrong(text: &str, at: usize, what: &str) -> Diagnostic {
    let column = text.get(..at).map_or(0, |before| before.chars().count());
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    Diagnostic::error(format!("{what} in column {}\n  {line}\n  {}^", column + 1, " ".repeat(column)))
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    next: usize,
}

impl<'a> Parser<'a> {
    fn parse(text: &'a str) -> Result<Chain, Diagnostic> {
        let mut parser = Self { text, tokens: tokens(text)?, next: 0 };
        let chain = parser.chain(0)?;
        match parser.tokens.get(parser.next) {
            None => Ok(chain),
            Some((at, Token::Word(word))) => {
                Err(wrong(text, *at, &format!("expected `&`, `|` or `-` before `{word}`")))
            }
            Some((at, sign)) => Err(wrong(text, *at, &format!("unexpected {}", sign.shown()))),
        }
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.text.len(), |(at, _)| *at)
    }

    fn take(&mut self) -> Option<Token> {
        let (_, token) = self.tokens.get(self.next)?;
        self.next += 1;
        Some(token.clone())
    }

    fn takes(&mut self, sign: char) -> bool {
        let there = matches!(self.tokens.get(self.next), Some((_, Token::Sign(next))) if *next == sign);
        self.next += usize::from(there);
        there
    }

    fn expect(&mut self, sign: char) -> Result<(), Diagnostic> {
        let at = self.at();
        if self.takes(sign) {
            return Ok(());
        }
        let found = self.tokens.get(self.next).map_or_else(|| "the end".into(), |(_, token)| token.shown());
        Err(wrong(self.text, at, &format!("expected `{sign}` instead of {found}")))
    }

    fn chain(&mut self, depth: usize) -> Result<Chain, Diagnostic> {
        if depth > DEPTH_MAX {
            return Err(wrong(self.text, self.at(), &format!("more than {DEPTH_MAX} parentheses within each other")));
        }
        let first = self.term(depth)?;
        let mut rest = Vec::new();
        loop {
            let operator = if self.takes('&') {
                Operator::And
            } else if self.takes('|') {
                Operator::Or
            } else if self.takes('-') {
                Operator::Less
            } else {
                return Ok(Chain { first, rest });
            };
            rest.push((operator, self.term(depth)?));
        }
    }

    fn term(&mut self, depth: usize) -> Result<Term, Diagnostic> {
        let at = self.at();
        match self.take() {
            Some(Token::Word(word)) => {
                if self.takes('(') {
                    self.function(&word, at, depth)
                } else {
                    Ok(Term::Pattern { text: word, at })
                }
            }
            Some(Token::Sign('(')) => {
                let inner = self.chain(depth + 1)?;
                self.expect(')')?;
                Ok(Term::Group(Box::new(inner)))
            }
            Some(sign) => {
                Err(wrong(self.text, at, &format!("expected a pattern or a function instead of {}", sign.shown())))
            }
            None => Err(wrong(self.text, at, "expected a pattern or a function at the end")),
        }
    }

    /// The rest of `name(`.
    fn function(&mut self, name: &str, at: usize, depth: usize) -> Result<Term, Diagnostic> {
        let term = match name {
            "deps" => Term::Deps(Box::new(self.chain(depth + 1)?)),
            "rdeps" => Term::Rdeps(Box::new(self.chain(depth + 1)?)),
            "path" => {
                let from = self.chain(depth + 1)?;
                self.expect(',')?;
                Term::Path(Box::new(from), Box::new(self.chain(depth + 1)?))
            }
            "kind" | "tag" => Term::Pattern { text: format!("{name}:{}", self.word(name)?), at },
            "affected" => {
                let none = matches!(self.tokens.get(self.next), Some((_, Token::Sign(')'))));
                Term::Affected(if none { String::new() } else { self.word(name)? })
            }
            _ => {
                let problem = wrong(self.text, at, &format!("there is no function `{name}`"));
                return Err(match nearest(name, FUNCTIONS) {
                    Some(near) => problem.help(format!("did you mean `{near}(…)`?")),
                    None => problem.help(format!("functions are {}", FUNCTIONS.join(", "))),
                });
            }
        };
        self.expect(')')?;
        Ok(term)
    }

    fn word(&mut self, function: &str) -> Result<String, Diagnostic> {
        let at = self.at();
        match self.take() {
            Some(Token::Word(word)) => Ok(word),
            _ => Err(wrong(self.text, at, &format!("expected a word in `{function}(…)`"))),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Diagnostic> {
    let mut tokens = Vec::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            letter if letter.is_whitespace() => {}
            '(' | ')' | ',' | '&' | '|' | '-' => tokens.push((at, Token::Sign(letter))),
            '"' => {
                let end = text[at + 1..].find('"').map(|length| at + 1 + length);
                let end = end.ok_or_else(|| wrong(text, at, "the quote is not closed; it begins"))?;
                tokens.push((at, Token::Word(text[at + 1..end].to_owned())));
                while letters.next_if(|(next, _)| *next <= end).is_some() {}
            }
            letter => {
                let mut word = String::from(letter);
                // Within `[node=20,os=mac]` a comma belongs to the word.
                let mut bracket = letter == '[';
                while let Some((_, next)) = letters.next_if(|(_, next)| {
                    !next.is_whitespace() && !matches!(next, '(' | ')' | '&' | '|' | '"') && (bracket || *next != ',')
                }) {
                    bracket = (bracket || next == '[') && next != ']';
                    word.push(next);
                }
                tokens.push((at, Token::Word(word)));
            }
        }
    }
    Ok(tokens)
}

struct Context<'a> {
    workspace: &'a Workspace,
    graph: &'a TaskGraph,
    here: &'a RelPath,
    affected: Affected<'a>,
    text: &'a str,
}

impl Context<'_> {
    fn chain(&self, chain: &Chain) -> Result<BTreeSet<TaskId>, Diagnostic> {
        let mut tasks = self.term(&chain.first)?;
        for (operator, term) in &chain.rest {
            let other = self.term(term)?;
            match operator {
                Operator::And => tasks.retain(|id| other.contains(id)),
                Operator::Or => tasks.extend(other),
                Operator::Less => tasks.retain(|id| !other.contains(id)),
            }
        }
        Ok(tasks)
    }

    fn term(&self, term: &Term) -> Result<BTreeSet<TaskId>, Diagnostic> {
        let all = |chain: &Chain| Ok::<Vec<TaskId>, Diagnostic>(self.chain(chain)?.into_iter().collect());
        let set = |tasks: Vec<TaskId>| tasks.into_iter().collect::<BTreeSet<TaskId>>();
        match term {
            Term::Pattern { text, at } => self.pattern(text, *at),
            Term::Group(chain) => self.chain(chain),
            Term::Deps(chain) => Ok(set(self.graph.closure(&all(chain)?))),
            Term::Rdeps(chain) => Ok(set(self.graph.dependants_closure(&all(chain)?))),
            Term::Path(from, to) => {
                let beneath = set(self.graph.closure(&all(from)?));
                let above = set(self.graph.dependants_closure(&all(to)?));
                Ok(beneath.intersection(&above).copied().collect())
            }
            Term::Affected(revision) => (self.affected)(revision),
        }
    }

    fn pattern(&self, text: &str, at: usize) -> Result<BTreeSet<TaskId>, Diagnostic> {
        let (negative, bare) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let found = select_one(self.workspace, bare, self.here).map_err(|problem| {
            let shown = wrong(self.text, at, &problem.message);
            Diagnostic { message: shown.message, ..problem }
        })?;
        let everything = self.workspace.tasks.ids();
        Ok(if negative { everything.filter(|id| !found.contains(id)).collect() } else { found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::build::build;
    use crate::workspace::fixture::Fixture;
    use proptest::prelude::*;

    fn run(expr: &str) -> Result<String, String> {
        let workspace = Fixture::new()
            .package("a-b")
            .task("gen")
            .tags(&["slow"])
            .task("build")
            .needs(&[":gen"])
            .task("test")
            .needs(&[":build"])
            .package("c")
            .task("build")
            .needs(&["//a-b:build"])
            .task("lint")
            .task("m")
            .matrix("x", "1")
            .matrix("y", "2")
            .build();
        let graph = build(&workspace).expect("a graph");
        let affected = |revision: &str| match revision {
            "" | "main~1" => Ok(BTreeSet::from([TaskId(0)])),
            other => Err(Diagnostic::error(format!("no revision `{other}`"))),
        };
        query(&workspace, &graph, expr, &RelPath::root(), &affected)
            .map(|ids| ids.iter().map(|id| workspace.tasks[*id].label.to_string()).collect::<Vec<_>>().join(" "))
            .map_err(|one| one.help.iter().fold(one.message, |text, help| format!("{text} | {help}")))
    }

    #[test]
    fn queries_mean_what_they_say() {
        let check = |expr: &str, expect: &str| assert_eq!(run(expr).as_deref(), Ok(expect), "{expr}");
        check("//a-b:gen", "//a-b:gen");
        check("deps(//c:build)", "//a-b:build //a-b:gen //c:build");
        check("deps( c:build )-c:build", "//a-b:build //a-b:gen");
        check("rdeps(a-b:build)", "//a-b:build //a-b:test //c:build");
        check("path(c:build, a-b:gen)", "//a-b:build //a-b:gen //c:build");
        check("path(a-b:gen, c:build)", "");
        check("build & //c", "//c:build");
        check("//a-b:gen | lint", "//a-b:gen //c:lint");
        check("build | lint - //c", "//a-b:build");
        check("build | (lint - //c:build)", "//a-b:build //c:build //c:lint");
        check("tag(slow)", "//a-b:gen");
        check("tag:slow|kind(run) & lint", "//c:lint");
        check("affected(main~1)", "//a-b:build");
        check("affected()", "//a-b:build");
        check("\"//a-b:gen\"", "//a-b:gen");
        check("m[x=1,y=2]", "//c:m[x=1,y=2]");
        check("path(m[x=1,y=2],m)", "//c:m[x=1,y=2]");
        check("!//c & build", "//a-b:build");
    }

    #[test]
    fn what_cannot_be_read_is_shown_with_its_column() {
        let check =
            |expr: &str, expect: &str| assert_eq!(run(expr).as_ref().err().map(String::as_str), Some(expect), "{expr}");
        check("", "expected a pattern or a function at the end in column 1\n  \n  ^");
        check("deps(build", "expected `)` instead of the end in column 11\n  deps(build\n            ^");
        check("build lint", "expected `&`, `|` or `-` before `lint` in column 7\n  build lint\n        ^");
        check("é | )", "expected a pattern or a function instead of `)` in column 5\n  é | )\n      ^");
        check("build)", "unexpected `)` in column 6\n  build)\n       ^");
        check("path(build)", "expected `,` instead of `)` in column 11\n  path(build)\n            ^");
        check("dep(build)", "there is no function `dep` in column 1\n  dep(build)\n  ^ | did you mean `deps(…)`?");
        check("tag()", "expected a word in `tag(…)` in column 5\n  tag()\n      ^");
        check("a \"b", "the quote is not closed; it begins in column 3\n  a \"b\n    ^");
        check(
            "build - biuld",
            "no task and no package is called `biuld` in column 9\n  build - biuld\n          ^ | did you mean `build`?",
        );
        check("affected(x)", "no revision `x`");
        let deep = format!("{}build{}", "(".repeat(1000), ")".repeat(1000));
        assert!(run(&deep).is_err_and(|text| text.starts_with("more than 64 parentheses")));
        assert!(run(&vec!["build"; 10_000].join("|")).is_ok());
    }

    proptest! {
        #[test]
        fn no_query_makes_the_parser_panic(text in "\\PC*", soup in "([a-z:/.\\[\\]=,!]|deps|path|[()&|\" -]){0,40}") {
            drop(Parser::parse(&text));
            drop(Parser::parse(&soup));
            drop(run(&soup));
        }
    }
}
