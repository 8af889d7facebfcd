//! What a command finds around it that no key holds, and an audit changes: names of the machine, its user, its places and clocks. Plain data.

use std::time::Duration;

use crate::base::encode::{DecodeError, Decoder, Encoder};
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
    /// name it already; mounts and links of the spec do not. Where the root may be changed it stays where it is.
    pub workspace_dir: String,
    /// Host name.
    pub host_name: String,
    /// NIS domain name; `None` leaves it.
    pub domain_name: Option<String>,
    /// Whose it is; `None` as ever. Where the root may be changed it stays user 0.
    pub identity: Option<Identity>,
    /// The umask.
    pub umask: u32,
    /// Whether the environment comes in the opposite order of names.
    pub environment_order: DirOrder,
    /// Processors it may run on, at most as many as there are; `None` all.
    pub cpus: Option<u32>,
    /// In which order directories of the view are made, and so listed on memory. Those that are shown whole (`View::Dir`, mounts, the
    /// system) list as the host has them, and a disk lists as it likes.
    pub dir_order: DirOrder,
    /// How far its clock is ahead; zero leaves it alone.
    ///
    /// This is what system calls tell of the time of day, to programs with and without a C library. Times of files are the kernel's, as are
    /// `/proc` and monotonic clocks; a wait until a time of day takes as long as it would, but for timers (`timerfd_settime`,
    /// `timer_settime`) set to one. Programs of another architecture (32-bit ones) see the machine's clock. Each look at the clock costs about
    /// 10 µs. Where the root may be changed, the clock is left alone; and a command is not observed then.
    pub clock_ahead: Duration,
    /// Whether its clock stands still, at the full hour before the time that it would begin with: what is begun a little later finds the same.
    pub clock_stands: bool,
    /// Whether addresses in memory are the same each time.
    pub fixed_addresses: bool,
    /// Whether the kernel tells the release 2.6 (`UNAME26` of `personality(2)`). `/proc/version` tells the true one.
    pub old_kernel: bool,
    /// What workspace and `/tmp` lie on. On disk they are directories of the stage, which its owner removes.
    pub ground: Ground,
    /// What runs. A canary needs the loader and the C library of this program, as [`crate::sandbox::spec::System::Host`] shows them.
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

impl Surroundings {
    /// Whether its clock is not the machine's.
    pub fn varies_clock(&self) -> bool {
        self.clock_stands || self.clock_ahead != Duration::ZERO
    }

    /// Appends them to a job.
    pub(super) fn encode(&self, encoder: &mut Encoder) {
        fn flag(encoder: &mut Encoder, value: bool) {
            encoder.u8(u8::from(value));
        }
        encoder.bytes(self.workspace_dir.as_bytes()).bytes(self.host_name.as_bytes());
        flag(encoder, self.domain_name.is_some());
        encoder.bytes(self.domain_name.as_deref().unwrap_or_default().as_bytes());
        flag(encoder, self.identity.is_some());
        if let Some(Identity { user, group, uid, gid }) = &self.identity {
            encoder.bytes(user.as_bytes()).bytes(group.as_bytes()).u64((*uid).into()).u64((*gid).into());
        }
        encoder.u64(self.umask.into());
        flag(encoder, self.environment_order == DirOrder::Reversed);
        flag(encoder, self.cpus.is_some());
        encoder.u64(self.cpus.unwrap_or(0).into());
        flag(encoder, self.dir_order == DirOrder::Reversed);
        encoder.u64(self.clock_ahead.as_secs()).u64(self.clock_ahead.subsec_nanos().into());
        flag(encoder, self.clock_stands);
        flag(encoder, self.fixed_addresses);
        flag(encoder, self.old_kernel);
        flag(encoder, self.ground == Ground::Disk);
        flag(encoder, self.occupant == Occupant::Canary);
    }

    /// Reads them back.
    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        fn flag(decoder: &mut Decoder<'_>) -> Result<bool, DecodeError> {
            match decoder.u8()? {
                0 => Ok(false),
                1 => Ok(true),
                _ => Err(DecodeError::Invalid { what: "surroundings" }),
            }
        }
        fn number(decoder: &mut Decoder<'_>) -> Result<u32, DecodeError> {
            u32::try_from(decoder.u64()?).map_err(|_| DecodeError::Invalid { what: "surroundings" })
        }
        fn order(is_reversed: bool) -> DirOrder {
            if is_reversed { DirOrder::Reversed } else { DirOrder::Usual }
        }
        let (workspace_dir, host_name) = (decoder.text("path")?.to_owned(), decoder.text("name")?.to_owned());
        let (has_domain, domain) = (flag(decoder)?, decoder.text("name")?.to_owned());
        let identity = if flag(decoder)? {
            let (user, group) = (decoder.text("name")?.to_owned(), decoder.text("name")?.to_owned());
            Some(Identity { user, group, uid: number(decoder)?, gid: number(decoder)? })
        } else {
            None
        };
        let umask = number(decoder)?;
        let environment_order = order(flag(decoder)?);
        let (has_cpus, cpus) = (flag(decoder)?, number(decoder)?);
        let dir_order = order(flag(decoder)?);
        let (seconds, nanoseconds) = (decoder.u64()?, number(decoder)?);
        if nanoseconds >= 1_000_000_000 {
            return Err(DecodeError::Invalid { what: "surroundings" });
        }
        Ok(Self {
            workspace_dir,
            host_name,
            domain_name: has_domain.then_some(domain),
            identity,
            umask,
            environment_order,
            cpus: has_cpus.then_some(cpus),
            dir_order,
            clock_ahead: Duration::new(seconds, nanoseconds),
            clock_stands: flag(decoder)?,
            fixed_addresses: flag(decoder)?,
            old_kernel: flag(decoder)?,
            ground: if flag(decoder)? { Ground::Disk } else { Ground::Memory },
            occupant: if flag(decoder)? { Occupant::Canary } else { Occupant::Command },
        })
    }
}
