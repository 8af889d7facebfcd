//! Which system calls give a file an owner, tell of one, make a file, or give it a name: with where their arguments are. And the filter that stops at them.

use libc::sock_filter;

use crate::sandbox::trace::calls::DENIED;
use crate::sandbox::trace::filter;

/// What a call does with owners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// It gives a file the user and the group that stand at this argument and the next.
    Gives(Means, usize),
    /// It writes what it tells of a file, in this form, to the address at this argument.
    Tells(Means, Form, usize),
    /// It makes a file, or may: one in a set-group-id directory has the group of that.
    Makes {
        /// The argument with the directory that the path begins in, unless that is the current one.
        dir: Option<usize>,
        /// The argument with the path.
        path: usize,
        /// Whether it opens the file, and with which flags.
        opens: Opens,
    },
    /// It gives a file one more name.
    Links(Linked),
}

/// Where a call that gives a file one more name has its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Linked {
    /// The old path and the new one, both from the current directory; a last link is not followed.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "newer architectures have no such call"))]
    Paths,
    /// A directory and a path of each, and flags.
    At,
}

/// How a call that makes a file says whether it opens it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opens {
    /// It does not.
    No,
    /// It does, and always makes one that is not there.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "newer architectures have no such call"))]
    Made,
    /// With the flags at this argument.
    Flags(usize),
    /// With the flags in the first word at the address at this argument.
    How(usize),
}

/// The flags of an open that may make a file: in a directory under a name, or under none.
pub const CREATES: u64 = libc::O_CREAT as u64;
/// See [`CREATES`].
pub const NAMELESS: u64 = (libc::O_TMPFILE & !libc::O_DIRECTORY) as u64;

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
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "newer architectures have no such call"))]
    Path,
    /// By such a path; a last link stands for itself.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "newer architectures have no such call"))]
    Link,
    /// By a descriptor.
    Descriptor,
    /// By a path at argument 1 from the directory at argument 0, with flags at this argument.
    At(usize),
}

/// A call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its number.
    pub number: i64,
    /// What it does.
    pub deed: Deed,
}

const fn call(number: i64, deed: Deed) -> Call {
    Call { number, deed }
}

const fn makes(number: i64, dir: Option<usize>, path: usize, opens: Opens) -> Call {
    Call { number, deed: Deed::Makes { dir, path, opens } }
}

/// Those of every architecture.
const CALLS: [Call; 11] = [
    call(libc::SYS_linkat, Deed::Links(Linked::At)),
    call(libc::SYS_fchown, Deed::Gives(Means::Descriptor, 1)),
    call(libc::SYS_fchownat, Deed::Gives(Means::At(4), 2)),
    call(libc::SYS_fstat, Deed::Tells(Means::Descriptor, Form::Stat, 1)),
    call(libc::SYS_newfstatat, Deed::Tells(Means::At(3), Form::Stat, 2)),
    call(libc::SYS_statx, Deed::Tells(Means::At(2), Form::Statx, 4)),
    makes(libc::SYS_openat, Some(0), 1, Opens::Flags(2)),
    makes(libc::SYS_openat2, Some(0), 1, Opens::How(2)),
    makes(libc::SYS_mkdirat, Some(0), 1, Opens::No),
    makes(libc::SYS_mknodat, Some(0), 1, Opens::No),
    makes(libc::SYS_symlinkat, Some(1), 2, Opens::No),
];

/// Those that newer architectures leave out.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: [Call; 10] = [
    call(libc::SYS_link, Deed::Links(Linked::Paths)),
    call(libc::SYS_chown, Deed::Gives(Means::Path, 1)),
    call(libc::SYS_lchown, Deed::Gives(Means::Link, 1)),
    call(libc::SYS_stat, Deed::Tells(Means::Path, Form::Stat, 1)),
    call(libc::SYS_lstat, Deed::Tells(Means::Link, Form::Stat, 1)),
    makes(libc::SYS_open, None, 0, Opens::Flags(1)),
    makes(libc::SYS_creat, None, 0, Opens::Made),
    makes(libc::SYS_mkdir, None, 0, Opens::No),
    makes(libc::SYS_mknod, None, 0, Opens::No),
    makes(libc::SYS_symlink, None, 1, Opens::No),
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

/// The program for the kernel: whoever is under it stops at these calls, of those that open only where they may make something. What
/// would go past does not exist: rings, which tell of files by themselves, memory that keeps the kernel waiting, and the calls of
/// other architectures.
pub fn program() -> Vec<sock_filter> {
    let stops = all().flat_map(|call| match call.deed {
        Deed::Makes { opens: Opens::Flags(at), .. } => {
            filter::if_set(call.number, at, (CREATES | NAMELESS) as u32, libc::SECCOMP_RET_TRACE).to_vec()
        }
        _ => filter::if_equal(call.number, libc::SECCOMP_RET_TRACE).to_vec(),
    });
    filter::program_of(&DENIED, stops)
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

    impl Means {
        fn last(self) -> usize {
            if let Means::At(flags) = self { flags } else { 0 }
        }
    }

    #[test]
    fn no_call_stands_twice_and_every_argument_is_one() {
        let mut seen = std::collections::BTreeSet::new();
        for call in all() {
            assert!(seen.insert(call.number) && !DENIED.contains(&call.number), "{call:?}");
            let arguments = match call.deed {
                Deed::Gives(means, at) => vec![means.last(), at + 1],
                Deed::Tells(means, _, at) => vec![means.last(), at],
                Deed::Makes { dir, path, opens: Opens::Flags(at) | Opens::How(at) } => vec![dir.unwrap_or(0), path, at],
                Deed::Links(_) => vec![4],
                Deed::Makes { dir, path, opens: Opens::No | Opens::Made } => vec![dir.unwrap_or(0), path],
            };
            assert!(arguments.iter().all(|at| *at < 6), "{call:?}");
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
