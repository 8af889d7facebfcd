//! `drystone doctor`: what this machine can do, and the way to what it cannot.

use clap::Args;
use serde::Serialize;

use crate::base::time::human_bytes;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::doctor_reproducible;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::table::json;
use crate::fingerprint::system;
use crate::fs::digest::digest_file;
use crate::fs::ops;
use crate::report::ink::{Color, Ink, paint};
use crate::sandbox::limits;
use crate::sandbox::probe::{Probe, Refusal, probe};
use crate::sandbox::spec::Level;

/// Free space under which a build is likely to fill the disk, in bytes.
const FREE_BYTES_MIN: u64 = 1024 * 1024 * 1024;

/// Options of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// How the findings are written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
    /// Tells what in this workspace and of this machine keeps builds from reproducing elsewhere. Builds nothing.
    #[arg(long)]
    pub reproducible: bool,
}

/// What came of one check.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is well.
    Good,
    /// It works, but less well than it could.
    Limited,
    /// It does not work.
    Bad,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Verdict::Good => "good",
            Verdict::Limited => "limited",
            Verdict::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// What came of it.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// The way out, where there is something to do.
    pub remedy: Option<String>,
}

impl Check {
    fn new(name: &str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { name: name.into(), verdict, found: found.into(), remedy: None }
    }

    fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = Some(text.into());
        self
    }
}

/// The findings, in the order given.
pub fn doctor_text(checks: &[Check], format: Format, color: Color) -> String {
    if format == Format::Json {
        return json(&checks);
    }
    let mut text = String::new();
    for check in checks {
        let ink = match check.verdict {
            Verdict::Good => Ink::Good,
            Verdict::Limited => Ink::Care,
            Verdict::Bad => Ink::Bad,
        };
        let word = paint(color, ink, &format!("{:>7}", check.verdict.word()));
        text.push_str(&format!("{word}  {}: {}\n", check.name, check.found));
        if let Some(remedy) = &check.remedy {
            text.push_str(&format!("         {}: {remedy}\n", paint(color, Ink::Calm, "help")));
        }
    }
    text
}

/// What was looked at decides the exit: bad is infrastructure trouble, limited is not.
pub fn doctor_exit(checks: &[Check]) -> ExitKind {
    let is_bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
    if is_bad { ExitKind::Infrastructure } else { ExitKind::Done }
}

/// The store: whether it can be made and written, where it lies, and how much room is left.
fn store_checks(context: &Context) -> Vec<Check> {
    let dir = match context.environment.store_dir() {
        Ok(dir) => dir,
        Err(error) => {
            let words = error.text(crate::report::out::Appearance::plain());
            return vec![Check::new("store", Verdict::Bad, words.trim_end().trim_start_matches("error: "))];
        }
    };
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    let written = ops::create_dir_all(&dir)
        .and_then(|()| ops::write(&probe, b"drystone"))
        .and_then(|()| ops::remove_file(&probe));
    if let Err(error) = written {
        let check = Check::new("store", Verdict::Bad, error.to_string());
        return vec![check.remedy("make the directory writable, or set DRYSTONE_STORE to one that is")];
    }
    let place = dir.display();
    let mut checks = vec![if ops::is_network_fs(&dir) {
        Check::new("store", Verdict::Limited, format!("{place} lies on a network or user-space file system"))
            .remedy("set DRYSTONE_STORE to a directory on a local disk: it is faster there")
    } else {
        Check::new("store", Verdict::Good, place.to_string())
    }];
    if let Ok((free, total)) = ops::disk_space(&dir) {
        let found = format!("{} free of {}", human_bytes(free), human_bytes(total));
        checks.push(if free < FREE_BYTES_MIN {
            Check::new("disk", Verdict::Limited, found).remedy("`drystone store gc --max-size SIZE` makes room")
        } else {
            Check::new("disk", Verdict::Good, found)
        });
    }
    checks
}

/// Each level of isolation, tried for real.
fn sandbox_checks(probe: &Probe) -> Vec<Check> {
    let check = |(level, verdict): &(Level, Result<(), Refusal>)| {
        let name = format!("isolation {}", level.word());
        match verdict {
            Ok(()) => Check::new(&name, Verdict::Good, "works"),
            Err(refusal) => {
                let needed = *level == Level::Namespaces;
                let verdict = if needed { Verdict::Bad } else { Verdict::Limited };
                Check::new(&name, verdict, refusal.reason.clone()).remedy(refusal.remedy.clone())
            }
        }
    };
    probe.verdicts().iter().map(check).collect()
}

/// What holds commands to their limits at a level.
fn limit_checks(level: Level) -> Vec<Check> {
    let held = limits::held(level);
    let check = |(name, held): (&str, Result<String, Refusal>)| match held {
        Ok(by) => Check::new(name, Verdict::Good, format!("held {by}")),
        Err(refusal) => {
            Check::new(name, Verdict::Limited, format!("not held: {}", refusal.reason)).remedy(refusal.remedy)
        }
    };
    [("limit of memory", held.memory), ("limit of processes", held.processes)].map(check).into()
}

/// Git, which tells what has changed: found on PATH or not.
fn git_check(context: &Context) -> Check {
    let path = context.environment.get("PATH").unwrap_or("");
    let found = std::env::split_paths(path).map(|dir| dir.join("git")).find(|file| ops::metadata(file).is_ok());
    match found {
        Some(file) => Check::new("git", Verdict::Good, file.display().to_string()),
        None => Check::new("git", Verdict::Limited, "not on PATH")
            .remedy("`--affected` and `affected` need git: install it"),
    }
}

/// What of the system enters keys: without a package database it is this machine's own.
fn system_check() -> Check {
    let digest = |path: &std::path::PathBuf| digest_file(path).ok().map(|(digest, _)| digest);
    let identity = system::identify(std::path::Path::new("/"), &|paths| paths.iter().map(digest).collect());
    if identity.exact {
        let kind = identity.text.split(' ').next().unwrap_or_default();
        return Check::new("system", Verdict::Good, format!("known by its {kind} packages"));
    }
    Check::new("system", Verdict::Limited, "no package database: sizes and times of its files stand in")
        .remedy("results are not shared with other machines; `system = \"tools\"` leaves the system out of the keys")
}

/// Checks this machine.
pub fn run(args: DoctorArgs, context: &Context) -> Result<ExitKind, CliError> {
    if args.reproducible {
        return doctor_reproducible::run(args.format, context);
    }
    let probe = probe();
    let mut checks = sandbox_checks(&probe);
    checks.extend(limit_checks(probe.best().unwrap_or(Level::None)));
    checks.extend(store_checks(context));
    checks.push(git_check(context));
    checks.push(system_check());
    context.out.write(doctor_text(&checks, args.format, context.stdout.color).as_bytes());
    Ok(doctor_exit(&checks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::context::tests::{context, environment};

    #[test]
    fn findings_come_with_the_way_out() {
        let checks = [
            Check::new("git", Verdict::Good, "/usr/bin/git"),
            Check::new("namespaces", Verdict::Bad, "refused by the kernel").remedy("sysctl x=1"),
        ];
        assert_eq!(
            doctor_text(&checks, Format::Human, Color::Plain),
            "   good  git: /usr/bin/git\n    bad  namespaces: refused by the kernel\n         help: sysctl x=1\n"
        );
        assert_eq!(doctor_exit(&checks), ExitKind::Infrastructure);
        assert_eq!(doctor_exit(&checks[..1]), ExitKind::Done);
    }

    #[test]
    fn a_store_that_cannot_be_written_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let (mut context, _, _) = context(dir.path());
        let good = dir.path().join("good");
        context.environment = environment(&[("DRYSTONE_STORE", good.to_str().unwrap())]);
        assert_ne!(store_checks(&context)[0].verdict, Verdict::Bad);
        assert!(ops::read_dir(&good).unwrap().is_empty(), "nothing is left behind");
        let file = dir.path().join("file");
        ops::write(&file, b"").unwrap();
        context.environment = environment(&[("DRYSTONE_STORE", file.join("x").to_str().unwrap())]);
        let check = &store_checks(&context)[0];
        assert!(check.verdict == Verdict::Bad && check.remedy.is_some(), "{check:?}");
        context.environment = environment(&[]);
        assert_eq!(store_checks(&context)[0].verdict, Verdict::Bad);
    }
}
