//! Why a machine refuses a sandbox, in words that name the setting and the way out. Tries nothing itself.

use std::path::Path;

use crate::fs::ops;
use crate::sandbox::confine;
use crate::sandbox::spec::Level;
use crate::sandbox::wire::{Failure, NAMESPACES_STEP};

/// A level this machine does not give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Which setting forbids it, or what the system said.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

/// What the machine says about itself, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Names of kinds of namespace whose number is limited to 0: `user`, `net`, …
    pub forbidden_kinds: Vec<&'static str>,
    /// Debian's and Arch's switch is off for ordinary users.
    pub clone_switched_off: bool,
    /// Ubuntu's AppArmor restriction is on.
    pub apparmor_restricts: bool,
    /// The kernel tells its security modules, and Landlock is not among them.
    pub landlock_left_out: bool,
    /// A system call filter is on this process already.
    pub filtered: bool,
    /// Which container engine this seems to run in.
    pub container: Option<&'static str>,
}

const KINDS: [&str; 7] = ["user", "mnt", "pid", "uts", "ipc", "net", "cgroup"];

impl Facts {
    /// Reads them.
    pub fn gather() -> Self {
        let says = |path: &str, value: &str| ops::read_text(Path::new(path)).is_ok_and(|text| text.trim() == value);
        let limit = |kind: &str| says(&format!("/proc/sys/user/max_{kind}_namespaces"), "0");
        let status = ops::read_text(Path::new("/proc/self/status")).unwrap_or_default();
        let root = rustix::process::geteuid().is_root();
        Self {
            forbidden_kinds: KINDS.into_iter().filter(|kind| limit(kind)).collect(),
            clone_switched_off: !root && says("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            apparmor_restricts: !root && says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
            landlock_left_out: ops::read_text(Path::new("/sys/kernel/security/lsm"))
                .is_ok_and(|modules| !modules.trim().split(',').any(|module| module == "landlock")),
            filtered: status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2")),
            container: [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")]
                .into_iter()
                .find(|(mark, _)| ops::exists(Path::new(mark)))
                .map(|(_, name)| name),
        }
    }
}

/// Explains why a level could not be built; `None` if the failure looks like no setting of the machine.
pub fn explain(level: Level, failure: &Failure, facts: &Facts) -> Option<Refusal> {
    match level {
        Level::Namespaces => no_namespaces(failure, facts),
        Level::Landlock if failure.step == confine::STEP => Some(no_landlock(facts)),
        Level::Landlock | Level::None => None,
    }
}

fn no_landlock(facts: &Facts) -> Refusal {
    let (reason, remedy) = if facts.landlock_left_out {
        (
            "this kernel was started without Landlock: it is not in /sys/kernel/security/lsm",
            "add `landlock` to the list in `lsm=` of the kernel's command line, and start it again",
        )
    } else if facts.filtered {
        (
            "the container's system call filter (seccomp) forbids it",
            "use a filter that allows landlock_create_ruleset, landlock_add_rule and landlock_restrict_self",
        )
    } else {
        ("this kernel has no Landlock that suffices", "use Linux 6.2 or later, built with CONFIG_SECURITY_LANDLOCK")
    };
    Refusal { reason: reason.into(), remedy: remedy.into() }
}

fn no_namespaces(failure: &Failure, facts: &Facts) -> Option<Refusal> {
    let denied = matches!(failure.errno, libc::EPERM | libc::EACCES);
    let creating = failure.step == NAMESPACES_STEP;
    let (reason, remedy) = if let Some(kind) = facts.forbidden_kinds.first().filter(|_| creating) {
        (
            format!("{kind} namespaces are switched off: /proc/sys/user/max_{kind}_namespaces is 0"),
            format!("`sudo sysctl user.max_{kind}_namespaces=10000`, and a line in /etc/sysctl.d to keep it"),
        )
    } else if creating && failure.errno == libc::ENOSPC {
        (
            "too many namespaces at once: a limit in /proc/sys/user/max_*_namespaces is reached".into(),
            "raise the limit with `sudo sysctl`, or run fewer jobs at once (`-j`)".into(),
        )
    } else if creating && failure.errno == libc::EINVAL {
        (
            "this kernel is built without one of the namespaces".into(),
            "use a kernel with CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS, CONFIG_IPC_NS and CONFIG_UTS_NS".into(),
        )
    } else if failure.errno == libc::ENOSYS {
        ("this kernel lacks a system call the sandbox needs".into(), "use Linux 5.12 or later, not emulated".into())
    } else if denied && facts.clone_switched_off {
        (
            "ordinary users may not create namespaces: kernel.unprivileged_userns_clone is 0".into(),
            "`sudo sysctl kernel.unprivileged_userns_clone=1`, and a line in /etc/sysctl.d to keep it".into(),
        )
    } else if denied && facts.apparmor_restricts {
        (
            "AppArmor takes privileges away inside namespaces: kernel.apparmor_restrict_unprivileged_userns is 1"
                .into(),
            "give this program an AppArmor profile with `userns,`, or \
             `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
                .into(),
        )
    } else if failure.errno == libc::EPERM && (facts.container.is_some() || facts.filtered) {
        in_container(failure, facts)
    } else {
        return None;
    };
    Some(Refusal { reason, remedy })
}

fn in_container(failure: &Failure, facts: &Facts) -> (String, String) {
    let engine = facts.container.unwrap_or("docker");
    if failure.step.starts_with("mounting proc") {
        let option = if engine == "podman" { "unmask=ALL" } else { "systempaths=unconfined" };
        let reason = "the container hides parts of /proc, so no fresh one may be mounted".into();
        return (reason, format!("`{engine} run --security-opt {option}`"));
    }
    let reason = if facts.filtered {
        "the container's system call filter (seccomp) or security module forbids it"
    } else {
        "the container's security module or a changed root (chroot) forbids it"
    };
    let options = "--security-opt seccomp=unconfined --security-opt apparmor=unconfined";
    (reason.into(), format!("`{engine} run {options}`, or a filter that allows clone and mount"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(step: &str, errno: i32) -> Failure {
        Failure::new(step, std::io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn every_refusal_names_the_setting_and_the_way_out() {
        let check = |failure: Failure, facts: Facts, reason: &str, remedy: &str| {
            let refusal = explain(Level::Namespaces, &failure, &facts).expect("a known setting");
            assert!(refusal.reason.contains(reason), "{refusal:?}");
            assert!(refusal.remedy.contains(remedy), "{refusal:?}");
        };
        let plain = Facts::default;
        check(
            failure(NAMESPACES_STEP, libc::ENOSPC),
            Facts { forbidden_kinds: vec!["user"], ..plain() },
            "/proc/sys/user/max_user_namespaces is 0",
            "sysctl user.max_user_namespaces",
        );
        check(failure(NAMESPACES_STEP, libc::ENOSPC), plain(), "limit", "-j");
        check(failure(NAMESPACES_STEP, libc::EINVAL), plain(), "built without", "CONFIG_USER_NS");
        check(failure("making /usr read-only", libc::ENOSYS), plain(), "lacks a system call", "5.12");
        check(
            failure(NAMESPACES_STEP, libc::EPERM),
            Facts { clone_switched_off: true, ..plain() },
            "kernel.unprivileged_userns_clone is 0",
            "kernel.unprivileged_userns_clone=1",
        );
        check(
            failure("mapping its user through /proc/self/uid_map", libc::EPERM),
            Facts { apparmor_restricts: true, ..plain() },
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "`userns,`",
        );
        check(
            failure("mounting proc on /proc", libc::EPERM),
            Facts { container: Some("docker"), ..plain() },
            "hides parts of /proc",
            "systempaths=unconfined",
        );
        check(
            failure(NAMESPACES_STEP, libc::EPERM),
            Facts { container: Some("podman"), filtered: true, ..plain() },
            "seccomp",
            "podman run --security-opt seccomp=unconfined",
        );
        let landlock = |facts: Facts| explain(Level::Landlock, &failure(confine::STEP, 0), &facts).expect("explained");
        assert!(landlock(Facts { landlock_left_out: true, ..plain() }).remedy.contains("`lsm=`"));
        assert!(landlock(Facts { filtered: true, ..plain() }).reason.contains("seccomp"));
        assert!(landlock(plain()).remedy.contains("6.2"));
        assert_eq!(
            explain(Level::Namespaces, &failure("mounting /gone at /workspace/a", libc::ENOENT), &plain()),
            None
        );
        assert_eq!(explain(Level::Namespaces, &failure("mounting tmpfs on /tmp", libc::EPERM), &plain()), None);
    }
}
