//! The machine of an audit, as far as a report says what it is. Names neither it nor its owner.

use std::path::Path;

use crate::audit::model::Machine;
use crate::fs::ops;
use crate::store::Store;

/// What this machine is, with the file system of its store. What cannot be read stays empty.
pub fn this(store: &Store) -> Machine {
    let names = rustix::system::uname();
    let text = |path: &str| ops::read(Path::new(path)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let processor = text("/proc/cpuinfo").unwrap_or_default();
    let of_processor = |name: &str| {
        let mut lines = processor.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    let release = text("/etc/os-release").unwrap_or_default();
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    Machine {
        kernel: names.release().to_string_lossy().into_owned(),
        architecture: names.machine().to_string_lossy().into_owned(),
        processor: of_processor("model name").unwrap_or_default(),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        system: system.unwrap_or_default().trim_matches('"').to_owned(),
        file_system: file_system(store.dir()),
        id: store.origin().machine.map(|machine| machine.to_string()).unwrap_or_default(),
    }
}

/// The kind of the file system at a path.
fn file_system(path: &Path) -> String {
    /// Magic numbers of `statfs(2)`.
    const KNOWN: [(i64, &str); 7] = [
        (0xEF53, "ext4"),
        (0x0102_1994, "tmpfs"),
        (0x5846_5342, "xfs"),
        (0x9123_683E, "btrfs"),
        (0x794C_7630, "overlayfs"),
        (0x6969, "nfs"),
        (0x2FC1_2FC1, "zfs"),
    ];
    let Ok(stat) = rustix::fs::statfs(path) else { return String::new() };
    let kind = stat.f_type;
    KNOWN.iter().find(|(magic, _)| *magic == kind).map_or_else(|| format!("0x{kind:x}"), |(_, name)| (*name).to_owned())
}
