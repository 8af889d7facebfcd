//! Where the control group of this process lies in the file system, read from `/proc`. Changes nothing.

use std::path::{Path, PathBuf};

use crate::fs::ops;
use crate::sandbox::refusal::Refusal;

/// What is limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Controller {
    /// `memory`.
    Memory,
    /// `pids`.
    Processes,
}

impl Controller {
    /// What the kernel calls it.
    pub const fn word(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Processes => "pids",
        }
    }
}

/// Which interface of `cgroups(7)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// A hierarchy for each controller.
    One,
    /// One hierarchy for all.
    Two,
}

/// The group of this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its directory.
    pub dir: PathBuf,
    /// Which files are in it.
    pub version: Version,
}

/// Finds the group that a controller counts this process in.
pub fn find(controller: Controller) -> Result<Found, Refusal> {
    let text = |path: &str| ops::read_text(Path::new(path)).unwrap_or_default();
    locate(controller, &text("/proc/self/cgroup"), &text("/proc/self/mountinfo")).ok_or_else(|| Refusal {
        reason: format!("no control groups with `{}` are mounted here", controller.word()),
        remedy: "mount them at /sys/fs/cgroup; in a container, limit the container itself".into(),
    })
}

/// As `/proc/self/cgroup` and `/proc/self/mountinfo` tell it.
fn locate(controller: Controller, groups: &str, mounts: &str) -> Option<Found> {
    let word = controller.word();
    let mut second = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if controllers.split(',').any(|given| given == word) {
            return Some(Found { dir: directory(group, mounts, "cgroup", Some(word))?, version: Version::One });
        }
        if number == "0" && controllers.is_empty() {
            second = Some(group);
        }
    }
    Some(Found { dir: directory(second?, mounts, "cgroup2", None)?, version: Version::Two })
}

/// Where a group is to be seen: beneath the first mount of its hierarchy that shows it.
fn directory(group: &str, mounts: &str, kind: &str, option: Option<&str>) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, source) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (unescaped(place.next()?), unescaped(place.next()?));
        let mut source = source.split(' ');
        let is_kind = source.next()? == kind;
        let options = source.nth(1)?;
        if !is_kind || option.is_some_and(|option| options.split(',').all(|given| given != option)) {
            return None;
        }
        // A group outside what is shown here begins with `/..`.
        let below = Path::new(group).strip_prefix(&root).ok().filter(|_| !group.starts_with("/.."))?;
        Some(if below.as_os_str().is_empty() { PathBuf::from(point) } else { Path::new(&point).join(below) })
    })
}

/// As `proc(5)` has it: white space and backslashes are three octal digits.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
20 1 0:5 / /proc rw - proc proc rw
30 20 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:26 / /sys/fs/cgroup/cpu,memory rw - cgroup cgroup rw,cpu,memory
32 30 0:27 /docker/abc /sys/fs/cgroup/pids\\040here rw,relatime shared:1 - cgroup cgroup rw,pids
33 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn the_group_is_found_by_its_hierarchy() {
        let check = |controller: Controller, groups: &str, expect: Option<(&str, Version)>| {
            let expect = expect.map(|(dir, version)| Found { dir: dir.into(), version });
            assert_eq!(locate(controller, groups, MOUNTS), expect, "{groups}");
        };
        use Controller::{Memory, Processes};
        let (one, two) = (Version::One, Version::Two);
        check(Memory, "4:cpu,memory:/a/b\n0::/c\n", Some(("/sys/fs/cgroup/cpu,memory/a/b", one)));
        check(Memory, "4:memory:/\n", Some(("/sys/fs/cgroup/cpu,memory", one)));
        check(Processes, "8:pids:/docker/abc/d\n", Some(("/sys/fs/cgroup/pids here/d", one)));
        check(Processes, "8:pids:/docker/other\n", None);
        check(Processes, "8:cpu:/x\n0::/user.slice/a:b\n", Some(("/sys/fs/cgroup/unified/user.slice/a:b", two)));
        check(Processes, "0::/../x\n", None);
        check(Processes, "8:cpu:/x\n", None);
        check(Processes, "", None);
    }
}
