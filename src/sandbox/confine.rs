//! The `landlock` level: what a process and all it starts may open, for machines that refuse namespaces. Builds no view.
//!
//! The command works in the private copy of the `none` level and can open nothing but that, the system's programs and its tools;
//! that other files exist, what they are called and how large they are is not hidden (`landlock(7)`). Without network it can make
//! no socket at all: Landlock knows ports and no addresses, so it cannot tell the loopback interface from any other.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};

use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::fs::ops::{self, Kind};
use crate::sandbox::kernel;
use crate::sandbox::namespaces::{DEVICES, NETWORK_ETC, SYSTEM_ETC};
use crate::sandbox::plain;
use crate::sandbox::spec::{Access, Network, SandboxSpec, System};
use crate::sandbox::wire::Failure;

/// The oldest Landlock that keeps a file from being cut short (Linux 6.2); what later ones forbid as well is taken where it is there.
const REQUIRED: ABI = ABI::V3;
const KNOWN: ABI = ABI::V7;

/// The step that fails where Landlock is missing.
pub const STEP: &str = "asking for Landlock";

/// Confines this process for good, and whatever it starts.
pub fn enter(spec: &SandboxSpec) -> Result<(), Failure> {
    let mut rules = ruleset()?;
    let read = AccessFs::from_read(KNOWN);
    let all = AccessFs::from_all(KNOWN);
    if spec.system == System::Host {
        for path in system() {
            rules = allow(rules, &path, read)?;
        }
    }
    let network = NETWORK_ETC.iter().filter(|_| spec.network == Network::Host);
    for path in network {
        rules = allow(rules, &Path::new("/").join(path), read)?;
    }
    rules = allow(rules, Path::new("/proc"), AccessFs::ReadFile | AccessFs::ReadDir)?;
    for device in DEVICES {
        let access = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
        rules = allow(rules, &Path::new("/").join(device), access)?;
    }
    for mount in &spec.mounts {
        let access = if mount.access == Access::ReadWrite { all } else { read };
        rules = allow(rules, &mount.host, access)?;
    }
    for place in plain::private_places(spec) {
        rules = allow(rules, &place, all)?;
    }
    give_up_capabilities().map_err(|error| Failure::new("giving up capabilities", error))?;
    rustix::thread::set_no_new_privs(true).map_err(|error| Failure::new("giving up privileges", error))?;
    rules.restrict_self().map_err(|error| Failure::said(STEP, error.to_string()))?;
    let denied = match spec.network {
        // There are no pods at this level.
        Network::Loopback | Network::Pod => kernel::Denied::SocketsAndRings,
        Network::Host => kernel::Denied::Rings,
    };
    kernel::deny(denied).map_err(|error| Failure::new("filtering its system calls", error))
}

/// Leaves root no more than any other user has: what capabilities allow, Landlock does not always forbid.
fn give_up_capabilities() -> rustix::io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        // An ordinary user may not, and needs not: it has none to lose.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

fn ruleset() -> Result<RulesetCreated, Failure> {
    let failed = |error: landlock::RulesetError| Failure::said(STEP, error.to_string());
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(REQUIRED))
        .map_err(failed)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(|rules| rules.scope(Scope::AbstractUnixSocket | Scope::Signal))
        .and_then(Ruleset::create)
        .map_err(failed)
}

/// Allows `access` at and beneath a path; nothing if it is not there.
fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, Failure> {
    let Ok(meta) = ops::metadata(path) else { return Ok(rules) };
    let failed = |cause: String| Failure::said(format!("allowing {}", path.display()), cause);
    let place = PathFd::new(path).map_err(|error| failed(error.to_string()))?;
    // What only makes sense beneath a directory is refused for anything else.
    let access = if meta.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
    rules.add_rule(PathBeneath::new(place, access)).map_err(|error| failed(error.to_string()))
}

/// The host's programs, less `/usr/local`: rules only add, so `/usr` is named by what it holds.
fn system() -> Vec<PathBuf> {
    let usr = Path::new("/usr");
    let entries = ops::read_dir(usr).unwrap_or_default();
    let beneath = entries.iter().filter(|entry| entry.kind == Kind::Dir && entry.name != "local");
    let mut all: Vec<PathBuf> = beneath.map(|entry| usr.join(&entry.name)).collect();
    // Where these are links they lead into `/usr`, which is allowed already; allowing it twice does no harm.
    all.extend(["/bin", "/sbin", "/lib", "/lib32", "/lib64"].map(PathBuf::from));
    all.extend(SYSTEM_ETC.map(|path| Path::new("/").join(path)));
    all
}
