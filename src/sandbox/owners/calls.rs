//! Which system calls give a file an owner, and which tell of one: with where their arguments are. And the filter that stops at them.

use libc::sock_filter;

use crate::sandbox::trace::calls::DENIED;
use crate::sandbox::trace::filter;

/// What a call does with owners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// It gives a file the user and the group that stand at this argument and the next.
    Gives(usize),
    /// It writes what it tells of a file, in this form, to the address at this argument.
    Tells(Form, usize),
}

/// What a call writes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// `struct stat`.
    Stat,
    /// `struct statx`.
    Statx,
}

/// How a call says which file it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Means {
    /// By a path from the current directory; a last link is followed.
    Path,
    /// By such a path; a last link stands for itself.
    Link,
    /// By a descriptor.
    Descriptor,
    /// By a path at argument 1 from the directory at argument 0, with flags at this argument.
    At(usize),
}

/// A call with its first argument's meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its number.
    pub number: i64,
    /// What it does.
    pub deed: Deed,
    /// With which file.
    pub means: Means,
}

const fn call(number: i64, means: Means, deed: Deed) -> Call {
    Call { number, deed, means }
}

/// Those of every architecture.
const CALLS: [Call; 5] = [
    call(libc::SYS_fchown, Means::Descriptor, Deed::Gives(1)),
    call(libc::SYS_fchownat, Means::At(4), Deed::Gives(2)),
    call(libc::SYS_fstat, Means::Descriptor, Deed::Tells(Form::Stat, 1)),
    call(libc::SYS_newfstatat, Means::At(3), Deed::Tells(Form::Stat, 2)),
    call(libc::SYS_statx, Means::At(2), Deed::Tells(Form::Statx, 4)),
];

/// Those that newer architectures leave out.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: [Call; 4] = [
    call(libc::SYS_chown, Means::Path, Deed::Gives(1)),
    call(libc::SYS_lchown, Means::Link, Deed::Gives(1)),
    call(libc::SYS_stat, Means::Path, Deed::Tells(Form::Stat, 1)),
    call(libc::SYS_lstat, Means::Link, Deed::Tells(Form::Stat, 1)),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: [Call; 0] = [];

fn all() -> impl Iterator<Item = &'static Call> {
    CALLS.iter().chain(&OLD_CALLS)
}

/// The call of a number, if it has to do with owners.
pub fn of(number: i64) -> Option<&'static Call> {
    all().find(|call| call.number == number)
}

/// The program for the kernel: whoever is under it stops at these calls. What would go past does not exist: rings, which tell of files
/// by themselves, memory that keeps the kernel waiting, and the calls of other architectures.
pub fn program() -> Vec<sock_filter> {
    filter::program_of(&DENIED, all().flat_map(|call| filter::if_equal(call.number, libc::SECCOMP_RET_TRACE)))
}

/// Where the two forms have device and number of a file, and its user, which the group follows.
#[cfg(target_arch = "x86_64")]
const OWNER_IN_STAT: usize = 28;
#[cfg(not(target_arch = "x86_64"))]
const OWNER_IN_STAT: usize = 24;
const OWNER_IN_STATX: usize = 20;

impl Form {
    /// Bytes from the beginning in which all that matters here lies.
    pub const BYTES: usize = 144;

    /// Where the user stands, 32 bits, and behind it the group.
    pub const fn owner_at(self) -> usize {
        match self {
            Form::Stat => OWNER_IN_STAT,
            Form::Statx => OWNER_IN_STATX,
        }
    }

    /// How much of it has to be read.
    pub const fn length(self) -> usize {
        match self {
            Form::Stat => 16,
            Form::Statx => Self::BYTES,
        }
    }

    /// Device and number of the file that is told of.
    pub fn file(self, told: &[u8; Self::BYTES]) -> (u64, u64) {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|offset| told[at + offset]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|offset| told[at + offset]));
        match self {
            Form::Stat => (word(0), word(8)),
            Form::Statx => (rustix::fs::makedev(half(136), half(140)), word(32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_stands_twice_and_every_argument_is_one() {
        let mut seen = std::collections::BTreeSet::new();
        for call in all() {
            assert!(seen.insert(call.number) && !DENIED.contains(&call.number), "{call:?}");
            let at = match call.deed {
                Deed::Gives(at) => at + 1,
                Deed::Tells(_, at) => at,
            };
            assert!(at < 6 && !matches!(call.means, Means::At(flags) if flags > 5), "{call:?}");
        }
        assert!(program().len() < 4096);
    }

    #[test]
    fn what_is_told_of_a_file_is_found_where_the_kernel_puts_it() {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata("/proc/self/exe").expect("it runs");
        let mut stat = [0; Form::BYTES];
        let told = rustix::fs::stat("/proc/self/exe").expect("it runs");
        stat[..8].copy_from_slice(&told.st_dev.to_le_bytes());
        stat[8..16].copy_from_slice(&told.st_ino.to_le_bytes());
        assert_eq!(Form::Stat.file(&stat), (meta.dev(), meta.ino()));
        assert_eq!(std::mem::offset_of!(libc::stat, st_uid), Form::Stat.owner_at());
        assert_eq!(std::mem::offset_of!(libc::stat, st_gid), Form::Stat.owner_at() + 4);
        assert_eq!((std::mem::offset_of!(libc::stat, st_dev), std::mem::offset_of!(libc::stat, st_ino)), (0, 8));
        let offset = |field: usize| field;
        assert_eq!(offset(std::mem::offset_of!(libc::statx, stx_uid)), Form::Statx.owner_at());
        assert_eq!(offset(std::mem::offset_of!(libc::statx, stx_gid)), Form::Statx.owner_at() + 4);
        assert_eq!(offset(std::mem::offset_of!(libc::statx, stx_ino)), 32);
        assert_eq!(offset(std::mem::offset_of!(libc::statx, stx_dev_major)), 136);
        assert_eq!(offset(std::mem::offset_of!(libc::statx, stx_dev_minor)), 140);
    }
}
