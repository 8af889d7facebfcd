//! What holds a command to its limits on this machine, and what to do where nothing does. Makes no groups, kills nobody.
//!
//! Memory is held by a control group or not at all. Limits of address space or data (`setrlimit(2)`) are no substitute: each process has
//! its own, so ten of them take ten times as much; Node, Go and Java set aside far more than they use; what is written to a tmpfs
//! does not count; and a program that is refused memory may carry on and make something else, instead of ending.
//!
//! Processes are held by a control group too, where one can be had. Without, at `namespaces`, the init counts and kills
//! (`crowd`), and behind it stand two walls, at about twice the limit: `RLIMIT_NPROC`, which since Linux 5.14 counts within the
//! user namespace but never holds whoever is root outside; and `kernel.pid_max`, which since Linux 6.14 every pid namespace has of its
//! own. A number of processes that the kernel refuses would do without counting, but whoever is refused may carry on as if nothing were.

use crate::sandbox::group::Groups;
use crate::sandbox::refusal::Refusal;
use crate::sandbox::spec::Level;

/// What holds commands to their limits, in words; or why nothing does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// `resources.memory`.
    pub memory: Result<String, Refusal>,
    /// `resources.processes`.
    pub processes: Result<String, Refusal>,
}

/// Since when `RLIMIT_NPROC` counts in each user namespace for itself.
const COUNTED_BY_NAMESPACE: (u32, u32) = (5, 14);

/// Since when each pid namespace has a `pid_max` of its own. Before, it is the machine's, and must not be touched.
const NUMBERED_BY_NAMESPACE: (u32, u32) = (6, 14);

/// What holds at a level.
pub fn held(level: Level) -> Held {
    let groups = Groups::ours();
    let group = |home: &crate::sandbox::group::Home| format!("by control groups below {}", home.dir.display());
    let processes = groups.processes.as_ref().map(group).map_err(Clone::clone);
    Held {
        memory: groups.memory.as_ref().map(group).map_err(Clone::clone),
        processes: processes.or_else(|refusal| match level {
            Level::Namespaces if is_held_by_namespace() => {
                Ok(format!("by the namespaces of each command ({})", refusal.reason))
            }
            Level::Namespaces => Err(Refusal {
                reason: format!("{}, and this kernel holds nobody to a number within namespaces", refusal.reason),
                remedy: format!("{}; or use Linux 6.14 or later", refusal.remedy),
            }),
            Level::Landlock | Level::None => Err(refusal),
        }),
    }
}

fn is_held_by_namespace() -> bool {
    pid_space_is_own() || (counts_by_namespace() && !rustix::process::geteuid().is_root())
}

/// Whether `RLIMIT_NPROC` counts the processes of one user namespace.
pub(super) fn counts_by_namespace() -> bool {
    kernel_is_at_least(COUNTED_BY_NAMESPACE)
}

/// Whether a write to `pid_max` concerns nobody outside the pid namespace.
pub(super) fn pid_space_is_own() -> bool {
    kernel_is_at_least(NUMBERED_BY_NAMESPACE)
}

fn kernel_is_at_least(wanted: (u32, u32)) -> bool {
    version(&rustix::system::uname().release().to_string_lossy()).is_some_and(|version| version >= wanted)
}

/// `6.18.44-generic` to 6 and 18.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|letter: char| !letter.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_their_numbers() {
        let check = |release: &str, expect: Option<(u32, u32)>| assert_eq!(version(release), expect, "{release}");
        check("6.18.44-fc-v669", Some((6, 18)));
        check("5.4.0-90-generic", Some((5, 4)));
        check("6.2-rc1", Some((6, 2)));
        check("", None);
        check("linux", None);
        assert!(version("6.9.0") < Some(NUMBERED_BY_NAMESPACE) && version("10.0") > Some(NUMBERED_BY_NAMESPACE));
    }
}
