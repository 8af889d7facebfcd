//! What a process finds around it in a sandbox, one value for each dimension that an audit varies: the proof that a variation took hold.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::fs::ops;
use crate::sandbox::surroundings::Dimension;
use crate::sandbox::{kernel, native};

/// What a canary found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sight {
    values: BTreeMap<Dimension, String>,
}

impl Sight {
    /// Reads what a canary printed on its standard output: a line for each dimension, `WORD VALUE`. Lines of no known word are passed over.
    pub fn read(printed: &[u8]) -> Self {
        let text = String::from_utf8_lossy(printed);
        let values = text.lines().filter_map(|line| {
            let (word, value) = line.split_once(' ')?;
            Some((Dimension::parse(word)?, value.to_owned()))
        });
        Self { values: values.collect() }
    }

    /// The same, but for a dimension that it could not see as a command would.
    #[must_use]
    pub fn without(mut self, dimension: Dimension) -> Self {
        self.values.remove(&dimension);
        self
    }

    /// What it found of a dimension, in words; `None` if it could not look.
    pub fn of(&self, dimension: Dimension) -> Option<&str> {
        self.values.get(&dimension).map(String::as_str)
    }
}

/// The argument that makes this program a canary.
pub const ARGUMENT: &str = "__canary";

/// The name that it has where a command has its program.
pub(super) const PROGRAM: &str = "/proc/self/exe";

/// Looks around, prints what it finds, and ends the process.
pub(super) fn main() -> ! {
    let mut printed = String::new();
    for dimension in Dimension::ALL {
        if let Some(value) = look(dimension) {
            // A name may hold anything; a line is a line.
            printed += &format!("{} {}\n", dimension.word(), value.replace(['\n', '\r'], "?"));
        }
    }
    let mut rest = printed.as_bytes();
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(rustix::stdio::stdout(), rest)) {
            Ok(count) => rest = &rest[count..],
            Err(_) => kernel::exit_now(1),
        }
    }
    kernel::exit_now(0)
}

fn look(dimension: Dimension) -> Option<String> {
    let here =
        || rustix::process::getcwd(Vec::new()).ok().map(|path| PathBuf::from(OsString::from_vec(path.into_bytes())));
    Some(match dimension {
        Dimension::BuildPath => here()?.display().to_string(),
        Dimension::HostName => {
            let names = rustix::system::uname();
            format!("{} {}", names.nodename().to_string_lossy(), names.domainname().to_string_lossy())
        }
        Dimension::User => user(),
        Dimension::Home => variable("HOME"),
        Dimension::TimeZone => format!("{} {:+}", variable("TZ"), native::zone_offset()),
        Dimension::Locale => locale(),
        Dimension::Umask => {
            let none = rustix::fs::Mode::empty();
            format!("{:04o}", rustix::process::umask(none).as_raw_mode())
        }
        Dimension::Environment => environment().into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" "),
        Dimension::PathSuffix => variable("PATH"),
        Dimension::Cpus => rustix::thread::sched_getaffinity(None).ok()?.count().to_string(),
        Dimension::DirOrder => listing(&here()?),
        Dimension::Clock => clock()?,
        Dimension::Aslr => if native::has_fixed_addresses() { "fixed" } else { "random" }.into(),
        Dimension::HashSeed => format!("{} {}", variable("PYTHONHASHSEED"), variable("PERL_HASH_SEED")),
        Dimension::FileSystem => format!("{:x}", rustix::fs::statfs(here()?).ok()?.f_type),
        Dimension::Kernel => rustix::system::uname().release().to_string_lossy().into_owned(),
    })
}

/// Names and values as they lie in memory, in their order.
fn environment() -> Vec<(String, String)> {
    let bytes = ops::read(Path::new("/proc/self/environ")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.split_terminator('\0')
        .filter_map(|one| one.split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn variable(name: &str) -> String {
    environment().into_iter().find(|(other, _)| other == name).map_or_else(String::new, |(_, value)| value)
}

/// Numbers of user and group, and the names that the files of `/etc` have for them.
fn user() -> String {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let name = |file: &str, id: u32| {
        let text = ops::read_text(Path::new(file)).unwrap_or_default();
        let line = text.lines().find(|line| line.split(':').nth(2) == Some(&id.to_string()));
        line.and_then(|line| line.split(':').next()).unwrap_or_default().to_owned()
    };
    format!("{uid}:{gid} {}:{}", name("/etc/passwd", uid), name("/etc/group", gid))
}

/// What the C library makes of the locale: variables alone have no effect.
fn locale() -> String {
    match native::locale() {
        Some((codeset, month, sorts_by_letter)) => {
            let order = if sorts_by_letter { "letters" } else { "bytes" };
            format!("{codeset} {month} {order} {}", variable("LANGUAGE"))
        }
        None => "C".into(),
    }
}

/// The names in the topmost directory above this one, or in this one, that has two at least, as they are listed.
fn listing(here: &Path) -> String {
    let names = |dir: &Path| -> Vec<String> {
        let mut names = Vec::new();
        let listed = ops::each_name(dir, |name, _| {
            if names.len() < NAMES_MAX {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        });
        if listed.is_ok() { names } else { Vec::new() }
    };
    let on = |dir: &Path| rustix::fs::stat(dir).map(|meta| meta.st_dev).ok();
    // The workspace is a file system of its own: whatever is above belongs to others.
    let mut dirs: Vec<&Path> = here.ancestors().take_while(|dir| on(dir) == on(here)).collect();
    dirs.reverse();
    dirs.into_iter().map(names).find(|names| names.len() > 1).unwrap_or_default().join(" ")
}

/// Names of a directory that are told at most.
const NAMES_MAX: usize = 200;

/// How long a clock is watched: longer than it takes to see it move.
const WATCHED: Duration = Duration::from_millis(2);

/// How far the clock is ahead of the kernel's, which makes the times of files, in hours; and whether it moves.
fn clock() -> Option<String> {
    let file = rustix::fs::memfd_create("now", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
    let real = rustix::fs::fstat(&file).ok()?.st_ctime;
    let hours = (native::nanoseconds() / 1_000_000_000 - i128::from(real) + 1800).div_euclid(3600);
    let (first, began) = (native::nanoseconds(), Instant::now());
    while began.elapsed() < WATCHED {
        std::hint::spin_loop();
    }
    let moves = if native::nanoseconds() == first { "stands" } else { "goes" };
    Some(format!("{hours:+} {moves}"))
}
