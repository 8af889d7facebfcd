//! What a command finds around it that no key holds, and an audit changes: names of the machine, its user, its places and clocks. Plain data.

use std::time::Duration;

use crate::sandbox::spec::{HOST_NAME, WORKSPACE_DIR};

/// One thing that an audit varies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dimension {
    /// Absolute path of the workspace.
    BuildPath,
    /// Host and domain name.
    HostName,
    /// Name and number of user and group.
    User,
    /// `HOME`.
    Home,
    /// `TZ`.
    TimeZone,
    /// `LC_ALL`, `LANG`, `LANGUAGE`.
    Locale,
    /// The umask.
    Umask,
    /// Order of the environment, and a variable that nobody asked for.
    Environment,
    /// A directory at the end of `PATH`.
    PathSuffix,
    /// How many processors it may use.
    Cpus,
    /// In which order directories are listed.
    DirOrder,
    /// What time it is.
    Clock,
    /// Where the kernel lays out memory.
    Aslr,
    /// Seeds of hash tables (`PYTHONHASHSEED`, `PERL_HASH_SEED`).
    HashSeed,
    /// The kind of file system of workspace and `/tmp`.
    FileSystem,
    /// The release of the kernel.
    Kernel,
}

impl Dimension {
    /// All of them, in the order in which they are told.
    pub const ALL: [Dimension; 16] = [
        Dimension::BuildPath,
        Dimension::HostName,
        Dimension::User,
        Dimension::Home,
        Dimension::TimeZone,
        Dimension::Locale,
        Dimension::Umask,
        Dimension::Environment,
        Dimension::PathSuffix,
        Dimension::Cpus,
        Dimension::DirOrder,
        Dimension::Clock,
        Dimension::Aslr,
        Dimension::HashSeed,
        Dimension::FileSystem,
        Dimension::Kernel,
    ];

    /// The word for it on the command line and in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Dimension::BuildPath => "build-path",
            Dimension::HostName => "host-name",
            Dimension::User => "user",
            Dimension::Home => "home",
            Dimension::TimeZone => "time-zone",
            Dimension::Locale => "locale",
            Dimension::Umask => "umask",
            Dimension::Environment => "environment",
            Dimension::PathSuffix => "path-suffix",
            Dimension::Cpus => "cpus",
            Dimension::DirOrder => "dir-order",
            Dimension::Clock => "clock",
            Dimension::Aslr => "aslr",
            Dimension::HashSeed => "hash-seed",
            Dimension::FileSystem => "file-system",
            Dimension::Kernel => "kernel",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.word() == word)
    }
}

/// What runs in the sandbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Occupant {
    /// The command of the spec.
    #[default]
    Command,
    /// A canary in its place: a process of this program that prints what it finds, as [`crate::sandbox::canary`] reads it.
    Canary,
}

/// In which order the directories of the view list what is in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DirOrder {
    /// As it comes.
    #[default]
    Usual,
    /// The other way round.
    Reversed,
}

/// What workspace and `/tmp` lie on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ground {
    /// Memory.
    #[default]
    Memory,
    /// The disk that the stage is on.
    Disk,
}

/// Whose the command is, inside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Name of the user, in `/etc/passwd`.
    pub user: String,
    /// Name of the group.
    pub group: String,
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
}

/// What is around a command, where it is not as ever. Only at [`crate::sandbox::spec::Level::Namespaces`].
///
/// Variables of the environment are no part of it: those are the spec's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Surroundings {
    /// Absolute path at which the workspace lies, in place of [`WORKSPACE_DIR`], which then is not there. Argv and environment of the spec
    /// name it already; mounts and links of the spec do not.
    pub workspace_dir: String,
    /// Host name.
    pub host_name: String,
    /// NIS domain name; `None` leaves it.
    pub domain_name: Option<String>,
    /// Whose it is; `None` as ever.
    pub identity: Option<Identity>,
    /// The umask.
    pub umask: u32,
    /// Whether the environment comes in the opposite order of names.
    pub environment_order: DirOrder,
    /// Processors it may run on; `None` all.
    pub cpus: Option<u32>,
    /// In which order directories of the view are listed.
    pub dir_order: DirOrder,
    /// How far its clock is ahead; zero leaves it alone.
    pub clock_ahead: Duration,
    /// Whether its clock stands still, at the time it began.
    pub clock_stands: bool,
    /// Whether addresses in memory are the same each time.
    pub fixed_addresses: bool,
    /// Whether the kernel tells the release 2.6 (`UNAME26` of `personality(2)`).
    pub old_kernel: bool,
    /// What workspace and `/tmp` lie on.
    pub ground: Ground,
    /// What runs.
    pub occupant: Occupant,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            workspace_dir: WORKSPACE_DIR.into(),
            host_name: HOST_NAME.into(),
            domain_name: None,
            identity: None,
            umask: 0o022,
            environment_order: DirOrder::Usual,
            cpus: None,
            dir_order: DirOrder::Usual,
            clock_ahead: Duration::ZERO,
            clock_stands: false,
            fixed_addresses: false,
            old_kernel: false,
            ground: Ground::Memory,
            occupant: Occupant::Command,
        }
    }
}
