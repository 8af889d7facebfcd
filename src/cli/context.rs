//! What a command is given: the environment, the directory, how its streams look. The only file that reads the environment.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::cli::args::{ColorWhen, GlobalArgs};
use crate::cli::error::CliError;
use crate::fs::machine::machine;
use crate::fs::ops;
use crate::report::ink::Color;
use crate::report::out::{Appearance, Display, Out, WIDTH_DEFAULT};
use crate::report::story::Verbosity;
use crate::store::Origin;

/// Longest word for who builds, in bytes.
const BUILDER_BYTES_MAX: usize = 256;

/// The environment variables of the process, read once. Those that are not UTF-8 are left out.
#[derive(Clone, Default, Debug)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Those of this process.
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os();
        pairs.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
    }

    /// A variable, empty ones too.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// All of them by name, for tasks that pass some on.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// A variable with something in it.
    fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Whether this runs in a CI job: `CI` is set to something other than `false` and `0`.
    pub fn is_ci(&self) -> bool {
        self.filled("CI").is_some_and(|value| value != "false" && value != "0")
    }

    /// Whether nothing that is kept of the last run is to be used: `DRYSTONE_ANEW` is not empty.
    pub fn loads_anew(&self) -> bool {
        self.filled("DRYSTONE_ANEW").is_some()
    }

    /// Whose executions enter the ledger. The machine: `$DRYSTONE_MACHINE`, else what this one is known by. Who builds: `$DRYSTONE_BUILDER`,
    /// else what the CI job is called, else `local`.
    pub fn origin(&self) -> Result<Origin, CliError> {
        let builder = match self.filled("DRYSTONE_BUILDER") {
            Some(word) if word.len() > BUILDER_BYTES_MAX || word.chars().any(char::is_control) => {
                let message = format!("DRYSTONE_BUILDER is no word of at most {BUILDER_BYTES_MAX} bytes");
                return Err(CliError::usage(message).help("write who builds, such as `release@example.org`"));
            }
            Some(word) => word.to_owned(),
            None => self.ci_job().unwrap_or_else(|| "local".to_owned()),
        };
        Ok(Origin { machine: machine(self.filled("DRYSTONE_MACHINE")), builder })
    }

    /// What the CI job is called; `None` outside of CI.
    fn ci_job(&self) -> Option<String> {
        let named = |kind: &str, names: &[&str]| {
            let parts: Vec<&str> = names.iter().filter_map(|name| self.filled(name)).collect();
            let told = format!("{kind}:{}", parts.join("/")).replace(char::is_control, "");
            (!parts.is_empty()).then(|| told.chars().take(BUILDER_BYTES_MAX / 4).collect())
        };
        let github = || named("github", &["GITHUB_REPOSITORY", "GITHUB_WORKFLOW", "GITHUB_JOB"]);
        let gitlab = || named("gitlab", &["CI_PROJECT_PATH", "CI_JOB_NAME"]);
        self.is_ci().then(|| github().or_else(gitlab).unwrap_or_else(|| "ci".to_owned()))
    }

    /// Where the store lies: `$DRYSTONE_STORE`, else `$XDG_CACHE_HOME/drystone`, else `~/.cache/drystone`.
    ///
    /// A relative `$DRYSTONE_STORE` is an error: it would name another store in each directory. A relative
    /// `$XDG_CACHE_HOME` is passed over, as its specification asks.
    pub fn store_dir(&self) -> Result<PathBuf, CliError> {
        if let Some(dir) = self.filled("DRYSTONE_STORE") {
            let dir = PathBuf::from(dir);
            if dir.is_relative() {
                let message = format!("DRYSTONE_STORE is `{}`, which is not an absolute path", dir.display());
                return Err(CliError::usage(message).help("write it from `/` on"));
            }
            return Ok(dir);
        }
        let absolute = |name: &str| self.filled(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .map(|cache| cache.join("drystone"))
            .ok_or_else(|| {
                CliError::infrastructure("there is no place for the store: neither HOME nor XDG_CACHE_HOME is set")
                    .help("set DRYSTONE_STORE to a directory")
            })
    }

    /// Whether a stream takes colours. `--color` decides, then `NO_COLOR`, then `CLICOLOR_FORCE`, then the stream.
    pub fn color(&self, when: ColorWhen, stream: StreamKind) -> Color {
        let colored = match when {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto if self.filled("NO_COLOR").is_some() => false,
            ColorWhen::Auto if self.filled("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
            ColorWhen::Auto => self.is_capable(stream),
        };
        if colored { Color::Colored } else { Color::Plain }
    }

    /// Whether running tasks can be drawn over. Never in CI: its logs keep every drawing.
    pub fn display(&self, stream: StreamKind) -> Display {
        if self.is_capable(stream) && !self.is_ci() { Display::Live } else { Display::Lines }
    }

    fn is_capable(&self, stream: StreamKind) -> bool {
        stream == StreamKind::Terminal && self.get("TERM") != Some("dumb")
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self { variables: pairs.into_iter().collect() }
    }
}

/// What a stream leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamKind {
    /// A terminal.
    Terminal,
    /// A pipe or a file.
    Other,
}

/// What every command is given.
pub struct Context {
    /// The environment.
    pub environment: Environment,
    /// The directory the command acts in: the current one, or that of `-C`. Absolute.
    pub dir: PathBuf,
    /// How much is told.
    pub verbosity: Verbosity,
    /// What the standard output takes.
    pub stdout: Appearance,
    /// What the standard error stream takes.
    pub stderr: Appearance,
    /// For data.
    pub out: Out,
    /// For talk.
    pub err: Out,
}

impl Context {
    /// The context of this process.
    pub fn of_process(global: &GlobalArgs, environment: Environment) -> Result<Self, CliError> {
        let dir = directory(global.directory.as_deref())?;
        let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
        Ok(Self {
            stdout: appearance(&environment, global.color, &stdout),
            stderr: appearance(&environment, global.color, &stderr),
            environment,
            dir,
            verbosity: global.verbosity(),
            out: Out::stdout(),
            err: Out::stderr(),
        })
    }

    /// A path given on the command line, from the directory the command acts in.
    pub fn path(&self, given: &Path) -> PathBuf {
        self.dir.join(given)
    }

    /// Says something on the standard error stream, unless asked to be quiet.
    pub fn say(&self, text: &str) {
        if self.verbosity > Verbosity::Quiet {
            self.err.line(text);
        }
    }
}

/// What a stream of this process takes, as far as that is known before the command line is understood.
pub fn early_appearance(environment: &Environment, stream: &(impl IsTerminal + AsFd)) -> Appearance {
    appearance(environment, ColorWhen::Auto, stream)
}

fn appearance(environment: &Environment, when: ColorWhen, stream: &(impl IsTerminal + AsFd)) -> Appearance {
    let kind = if stream.is_terminal() { StreamKind::Terminal } else { StreamKind::Other };
    Appearance {
        color: environment.color(when, kind),
        display: environment.display(kind),
        width: match kind {
            StreamKind::Terminal => terminal_width(stream).unwrap_or(WIDTH_DEFAULT),
            StreamKind::Other => WIDTH_DEFAULT,
        },
    }
}

fn terminal_width(stream: &impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

fn directory(given: Option<&Path>) -> Result<PathBuf, CliError> {
    let current = std::env::current_dir()
        .map_err(|error| CliError::infrastructure(format!("the current directory cannot be told: {error}")))?;
    let Some(given) = given else { return Ok(current) };
    let dir = current.join(given);
    match ops::metadata(&dir) {
        Ok(meta) if meta.is_dir() => Ok(dir),
        Ok(_) => Err(CliError::usage(format!("`-C {}` names a file, not a directory", given.display()))),
        Err(error) => Err(CliError::usage(error.to_string()).help("`-C` takes the directory to act in")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::out::tests::Kept;

    pub(crate) fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// A context in `dir` whose streams a test reads back: first what was written to stdout, then to stderr.
    pub(crate) fn context(dir: &Path) -> (Context, Kept, Kept) {
        let (out, err) = (Kept::default(), Kept::default());
        let context = Context {
            environment: environment(&[]),
            dir: dir.to_owned(),
            verbosity: Verbosity::Normal,
            stdout: Appearance::plain(),
            stderr: Appearance::plain(),
            out: Out::new(out.clone()),
            err: Out::new(err.clone()),
        };
        (context, out, err)
    }

    #[test]
    fn the_store_lies_where_the_environment_says() {
        let check = |pairs: &[(&str, &str)], expect: Option<&str>| {
            assert_eq!(environment(pairs).store_dir().ok(), expect.map(PathBuf::from), "{pairs:?}");
        };
        check(&[("DRYSTONE_STORE", "/s"), ("XDG_CACHE_HOME", "/c"), ("HOME", "/h")], Some("/s"));
        check(&[("DRYSTONE_STORE", ""), ("XDG_CACHE_HOME", "/c"), ("HOME", "/h")], Some("/c/drystone"));
        check(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")], Some("/h/.cache/drystone"));
        check(&[("HOME", "/h")], Some("/h/.cache/drystone"));
        check(&[("DRYSTONE_STORE", "relative"), ("HOME", "/h")], None);
        check(&[("HOME", "")], None);
        check(&[], None);
    }

    #[test]
    fn colour_follows_the_flag_then_the_environment_then_the_stream() {
        let check = |pairs: &[(&str, &str)], when: ColorWhen, kind: StreamKind, expect: Color| {
            assert_eq!(environment(pairs).color(when, kind), expect, "{pairs:?} {when:?} {kind:?}");
        };
        use Color::{Colored, Plain};
        check(&[], ColorWhen::Auto, StreamKind::Terminal, Colored);
        check(&[], ColorWhen::Auto, StreamKind::Other, Plain);
        check(&[("TERM", "dumb")], ColorWhen::Auto, StreamKind::Terminal, Plain);
        check(&[("NO_COLOR", "1")], ColorWhen::Auto, StreamKind::Terminal, Plain);
        check(&[("NO_COLOR", "")], ColorWhen::Auto, StreamKind::Terminal, Colored);
        check(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], ColorWhen::Auto, StreamKind::Other, Plain);
        check(&[("CLICOLOR_FORCE", "1")], ColorWhen::Auto, StreamKind::Other, Colored);
        check(&[("CLICOLOR_FORCE", "0")], ColorWhen::Auto, StreamKind::Other, Plain);
        check(&[("NO_COLOR", "1")], ColorWhen::Always, StreamKind::Other, Colored);
        check(&[], ColorWhen::Never, StreamKind::Terminal, Plain);
    }

    #[test]
    fn nothing_is_drawn_over_in_ci() {
        let check = |pairs: &[(&str, &str)], kind: StreamKind, expect: Display| {
            assert_eq!(environment(pairs).display(kind), expect, "{pairs:?} {kind:?}");
        };
        check(&[], StreamKind::Terminal, Display::Live);
        check(&[("CI", "true")], StreamKind::Terminal, Display::Lines);
        check(&[("CI", "false")], StreamKind::Terminal, Display::Live);
        check(&[("CI", "")], StreamKind::Terminal, Display::Live);
        check(&[], StreamKind::Other, Display::Lines);
    }
}
