//! What the text of a command shows that makes builds differ: programs and options that are known for it. Runs nothing, and knows no files.
//!
//! A hint is no proof: what a command prints may be thrown away. So only what stands in the text itself is told, and a text in single quotes
//! or after `#` is no command.

/// What a command does that may not come out the same elsewhere.
#[derive(Debug)]
pub struct Habit {
    /// Its name, the same for ever.
    pub id: &'static str,
    /// What is in the command.
    pub what: &'static str,
    /// Why it may not reproduce.
    pub why: &'static str,
    /// The way out.
    pub remedy: &'static str,
    shows: fn(&[&str]) -> bool,
}

/// Longest text looked at, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// The table, in the order in which hints are told.
static HABITS: [Habit; 14] = [
    Habit {
        id: "native",
        what: "`-march=native` or `-mtune=native`",
        why: "the code is for the processor that compiles it",
        remedy: "name an architecture, such as `-march=x86-64-v2`",
        shows: |words| {
            let options =
                ["-march=native", "-mtune=native", "-mcpu=native", "target-cpu=native", "-Ctarget-cpu=native"];
            words.iter().any(|word| word.split_whitespace().any(|one| options.contains(&one) || assigns(one, &options)))
        },
    },
    Habit {
        id: "date",
        what: "`date`",
        why: "the time of the build is in what it prints",
        remedy: "print `$SOURCE_DATE_EPOCH`: `date -u -d \"@$SOURCE_DATE_EPOCH\"`",
        shows: |words| {
            is(words, "date")
                && !has(words, |word| {
                    word.starts_with("-d")
                        || word.starts_with("--date")
                        || word.starts_with("-r")
                        || word.starts_with("--reference")
                })
        },
    },
    Habit {
        id: "random",
        what: "`$RANDOM`, `uuidgen` or `mktemp -u`",
        why: "it is another one each time",
        remedy: "derive names from what goes in, such as a digest of it",
        shows: |words| {
            is(words, "uuidgen")
                || (is(words, "mktemp") && words.contains(&"-u"))
                || words.iter().any(|word| refers(word, "RANDOM") || refers(word, "SRANDOM"))
        },
    },
    Habit {
        id: "machine",
        what: "`hostname`, `uname -n` or `-r`, `whoami`, `nproc` or `getconf _NPROCESSORS_ONLN`",
        why: "it tells of the machine that builds",
        remedy: "leave it out of what is built; for the number of jobs it does no harm",
        shows: |words| {
            ["hostname", "whoami", "nproc", "logname"].iter().any(|name| is(words, name))
                || (is(words, "uname")
                    && has(words, |word| matches!(word, "-a" | "-n" | "-r" | "-v" | "--all" | "--nodename")))
                || (is(words, "getconf") && has(words, |word| word.starts_with("_NPROCESSORS")))
        },
    },
    Habit {
        id: "git",
        what: "`git describe`, `git rev-parse` or `git log`",
        why: "a copy without history, or with another one, has another answer",
        remedy: "pass the version in a file or a variable that the task declares",
        shows: |words| {
            is(words, "git") && has(words, |word| matches!(word, "describe" | "rev-parse" | "log" | "rev-list"))
        },
    },
    Habit {
        id: "npm-install",
        what: "`npm install`",
        why: "it may change the lock file, and takes what the registry has today",
        remedy: "`npm ci` installs what `package-lock.json` says",
        shows: |words| is(words, "npm") && matches!(words.get(1), Some(&("install" | "i" | "update"))),
    },
    Habit {
        id: "pip-install",
        what: "`pip install` without `--require-hashes`",
        why: "it takes what the index has today",
        remedy: "pin every package with its digest, and install with `--require-hashes`",
        shows: |words| {
            let named = ["pip", "pip3"].iter().any(|name| is(words, name));
            let module = words.windows(3).any(|three| three[0] == "-m" && three[1] == "pip" && three[2] == "install");
            let installs = module || (named && words.get(1) == Some(&"install"));
            installs && !has(words, |word| word == "--require-hashes" || word == "--no-index")
        },
    },
    Habit {
        id: "apt",
        what: "`apt-get update` or `install`",
        why: "the packages of the distribution are other ones tomorrow",
        remedy: "take them from a snapshot of the distribution by date, or from an image by digest",
        shows: |words| {
            ["apt", "apt-get"].iter().any(|name| is(words, name))
                && has(words, |word| matches!(word, "update" | "install" | "upgrade"))
        },
    },
    Habit {
        id: "gzip-name",
        what: "`gzip` of a file without `-n`",
        why: "the time and name of the file are in the header",
        remedy: "`gzip -n`",
        shows: |words| {
            // Where it reads from elsewhere there is no name and no time.
            let files = has(words, |word| !word.starts_with('-')) && !has(words, |word| word.starts_with(['<', '>']));
            let other = |word: &str| {
                letters(word).is_some_and(|all| all.contains(['n', 'd', 't', 'l']))
                    || matches!(word, "--no-name" | "--decompress" | "--test" | "--list")
            };
            is(words, "gzip") && files && !has(words, other)
        },
    },
    Habit {
        id: "tar",
        what: "`tar` that creates without `--sort`, `--mtime` or `--owner`",
        why: "order, times and owners of the files are in the archive",
        remedy: "`tar --sort=name --mtime=\"@$SOURCE_DATE_EPOCH\" --owner=0 --group=0 --numeric-owner`",
        shows: |words| {
            let creates = words.get(1).is_some_and(|first| {
                !first.starts_with('-')
                    && first.len() < 8
                    && first.contains('c')
                    && first.chars().all(|one| one.is_ascii_alphabetic())
            }) || has(words, |word| {
                word == "--create" || letters(word).is_some_and(|all| all.contains('c') && all.len() < 8)
            });
            let lacks = |option: &str| !has(words, |word| word.starts_with(option));
            is(words, "tar") && creates && (lacks("--sort") || lacks("--mtime") || lacks("--owner"))
        },
    },
    Habit {
        id: "zip",
        what: "`zip` without `-X`",
        why: "times and owners of the files are in the archive",
        remedy: "set the times of the files with `touch -d \"@$SOURCE_DATE_EPOCH\"`, and `zip -X` with a sorted list",
        shows: |words| {
            is(words, "zip")
                && !has(words, |word| word == "--no-extra" || letters(word).is_some_and(|all| all.contains('X')))
        },
    },
    Habit {
        id: "ar",
        what: "`ar` with `U`",
        why: "times and owners of the files are in the archive",
        remedy: "`ar` with `D`, or without both",
        shows: |words| {
            is(words, "ar")
                && words.get(1).is_some_and(|first| first.trim_start_matches('-').len() < 8 && first.contains('U'))
        },
    },
    Habit {
        id: "compileall",
        what: "`python -m compileall` that checks times",
        why: "times of the sources are in what it makes",
        remedy: "`--invalidation-mode unchecked-hash`",
        shows: |words| {
            words.windows(2).any(|two| two == ["-m", "compileall"])
                && !has(words, |word| word.starts_with("--invalidation-mode"))
        },
    },
    Habit {
        id: "latest",
        what: "something called `latest`",
        why: "it is another one when there is a newer one",
        remedy: "name a version",
        shows: |words| {
            let is_latest = |word: &str| (word.ends_with(":latest") || word.ends_with("@latest")) && word.len() > 7;
            has(words, is_latest)
        },
    },
];

/// What of the table the text of a command for a shell shows; each once, in the order of the table.
pub fn in_shell(text: &str) -> Vec<&'static Habit> {
    if text.len() > TEXT_BYTES_MAX {
        return Vec::new();
    }
    let commands = commands(text);
    HABITS.iter().filter(|habit| commands.iter().any(|words| shown(habit, words))).collect()
}

/// The same of a command that is run as it is.
pub fn in_words(words: &[String]) -> Vec<&'static Habit> {
    // A dollar is none without a shell.
    let words: Vec<String> = words.iter().map(|word| word.replace('$', "\0")).collect();
    HABITS.iter().filter(|habit| shown(habit, &words)).collect()
}

fn shown(habit: &Habit, words: &[String]) -> bool {
    let is_before = |word: &&String| {
        let assigns = word.split_once('=').is_some_and(|(name, _)| is_name(name));
        assigns
            || ["exec", "env", "command", "time", "nice", "if", "then", "else", "do", "while", "!", "{"]
                .contains(&word.as_str())
    };
    let all: Vec<&str> = words.iter().map(String::as_str).collect();
    let begin = words.iter().take_while(is_before).count();
    (habit.shows)(&all[begin..]) || (begin > 0 && ["native", "random"].contains(&habit.id) && (habit.shows)(&all))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn assigns(word: &str, options: &[&str]) -> bool {
    word.split_once('=').is_some_and(|(name, value)| is_name(name) && options.contains(&value))
}

fn is(words: &[&str], program: &str) -> bool {
    words.first().is_some_and(|first| first.rsplit('/').next() == Some(program))
}

fn has(words: &[&str], of: impl Fn(&str) -> bool) -> bool {
    words.iter().skip(1).any(|word| of(word))
}

/// The letters of short options in one word.
fn letters(word: &str) -> Option<&str> {
    word.strip_prefix('-').filter(|all| !all.is_empty() && all.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn refers(word: &str, name: &str) -> bool {
    word.match_indices('$').any(|(at, _)| {
        let rest = word[at + 1..].trim_start_matches('{');
        rest.strip_prefix(name)
            .is_some_and(|after| !after.starts_with(|one: char| one.is_ascii_alphanumeric() || one == '_'))
    })
}

/// One command while it is read.
#[derive(Default)]
struct Open {
    words: Vec<String>,
    word: Option<String>,
    is_quoted: bool,
    ends_with: Option<char>,
}

impl Open {
    fn push(&mut self, one: char) {
        self.word.get_or_insert_default().push(one);
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }
}

/// The simple commands of a text, with those in `$(…)`, backticks and parentheses on their own; heredocs end the reading.
fn commands(text: &str) -> Vec<Vec<String>> {
    let (mut found, mut stack) = (Vec::new(), vec![Open::default()]);
    let mut rest = text.chars().peekable();
    while let Some(one) = rest.next() {
        let depth = stack.len();
        let Some(open) = stack.last_mut() else { break };
        match one {
            '\\' => match rest.next() {
                Some('\n') | None => {}
                Some('$') => open.push('\0'),
                Some(next) => open.push(next),
            },
            '\'' if !open.is_quoted => {
                open.word.get_or_insert_default();
                for next in rest.by_ref().take_while(|next| *next != '\'') {
                    open.push(if next == '$' { '\0' } else { next });
                }
            }
            '"' => {
                open.is_quoted = !open.is_quoted;
                open.word.get_or_insert_default();
            }
            '$' if rest.peek() == Some(&'(') => {
                rest.next();
                open.push('\0');
                stack.push(Open { ends_with: Some(')'), ..Open::default() });
            }
            _ if open.ends_with == Some(one) && !open.is_quoted => {
                open.end_word();
                found.push(std::mem::take(&mut open.words));
                stack.pop();
            }
            '`' => {
                open.push('\0');
                stack.push(Open { ends_with: Some('`'), ..Open::default() });
            }
            _ if open.is_quoted => open.push(one),
            '#' if open.word.is_none() => {
                // The line feed ends the command.
                while rest.peek().is_some_and(|next| *next != '\n') {
                    rest.next();
                }
            }
            '<' if rest.peek() == Some(&'<') => break,
            ' ' | '\t' => open.end_word(),
            ';' | '|' | '&' | '\n' | '(' | ')' => {
                open.end_word();
                found.push(std::mem::take(&mut open.words));
            }
            _ => open.push(one),
        }
        // Nobody nests so deep; what does is not looked at.
        if depth > 64 {
            break;
        }
    }
    for mut open in stack {
        open.end_word();
        found.push(open.words);
    }
    found.retain(|words| !words.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_text_shows_is_told_and_what_it_only_names_is_not() {
        let check = |text: &str, expect: &[&str]| {
            let found: Vec<&str> = in_shell(text).iter().map(|habit| habit.id).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("gcc -O2 -march=native a.c", &["native"]);
        check("CFLAGS=-march=native make", &["native"]);
        check("CFLAGS=\"-O2 -march=native\" make", &["native"]);
        check("echo \"built $(date)\" > out", &["date"]);
        check("echo `date -u` > out", &["date"]);
        check("date -u -d \"@$SOURCE_DATE_EPOCH\" > out; echo date; ./date-tool", &[]);
        check("echo '$RANDOM $(date)' # date; uuidgen", &[]);
        check("echo $RANDOM $RANDOMLY", &["random"]);
        check("echo ${RANDOM} \\$RANDOM", &["random"]);
        check("echo \\$RANDOM $RANDOMLY", &[]);
        check("make -j$(nproc)", &["machine"]);
        check("uname -m", &[]);
        check("V=$(git describe --tags) && npm install && npm ci", &["git", "npm-install"]);
        check("python3 -m pip install x; pip install --require-hashes -r r.txt", &["pip-install"]);
        check("apt-get update -y", &["apt"]);
        check("gzip out.txt", &["gzip-name"]);
        check("gzip -9n out.txt; gzip -9 < a > b; gzip -dc a.gz; cat a | gzip", &[]);
        check("tar czf a.tgz dir", &["tar"]);
        check("tar --create --file a.tar --sort=name --mtime=@0 --owner=0 dir; tar xf c.tar; tar -xzf c.tgz", &[]);
        check("zip -r a.zip dir; ar rcU a.a b.o; ar rcs a.a b.o", &["zip", "ar"]);
        check("zip -rX a.zip dir", &[]);
        check("python3 -m compileall .", &["compileall"]);
        check("npx tool@latest", &["latest"]);
        check("if date; then x; fi", &["date"]);
        check("cat <<EOF > f\ndate\nEOF\n", &[]);
        check("\"unended $(date", &["date"]);
        check(&"$(".repeat(1000), &[]);
    }

    #[test]
    fn words_without_a_shell_are_one_command() {
        let check = |words: &[&str], expect: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(in_words(&words).iter().map(|habit| habit.id).collect::<Vec<_>>(), expect);
        };
        check(&["/usr/bin/date"], &["date"]);
        check(&["echo", "$RANDOM", ";", "date"], &[]);
        check(&["cc", "-march=native"], &["native"]);
    }
}
