//! Which system calls name a path, and what each does with it. Numbers are the architecture's; reads no memory.

use crate::sandbox::observation::Touch;

/// Whether a link in the last place is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// It is.
    Always,
    /// It is not.
    Never,
    /// Not if this argument has one of these bits.
    Unless(usize, u64),
    /// Only if this argument has this bit.
    If(usize, u64),
}

/// A path among the arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operand {
    /// Argument with the descriptor of the directory it is relative to; `None` for the current directory.
    pub dir: Option<usize>,
    /// Argument with the address of the text.
    pub path: usize,
    /// What of a link in the last place.
    pub follow: Follow,
}

/// What a call does with its paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Opens it as the flags in this argument say.
    Open(usize),
    /// Opens it as the structure at the address in this argument says (`openat2`).
    OpenHow(usize),
    /// Does always the same.
    Does(Touch),
    /// Does this with the path in a socket's address, whose length is in the argument after it.
    Socket(Touch),
    /// Executes it.
    Execute,
    /// Lists the directory behind the descriptor in the first argument.
    List,
    /// Leads where no path can be followed: what comes after it is not seen in full.
    Escapes(&'static str),
}

/// One system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its number here.
    pub number: i64,
    /// What it does.
    pub deed: Deed,
    /// With which paths.
    pub operands: &'static [Operand],
}

/// Calls that let a program touch files past the filter: they do not exist for an observed command, and programs do without.
pub const DENIED: [i64; 4] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_userfaultfd];

/// `AT_SYMLINK_NOFOLLOW` and `AT_SYMLINK_FOLLOW` of the `*at` calls.
const NOFOLLOW: u64 = libc::AT_SYMLINK_NOFOLLOW as u64;
const FOLLOW: u64 = libc::AT_SYMLINK_FOLLOW as u64;

const fn here(path: usize, follow: Follow) -> Operand {
    Operand { dir: None, path, follow }
}

const fn at(dir: usize, path: usize, follow: Follow) -> Operand {
    Operand { dir: Some(dir), path, follow }
}

const fn call(number: i64, deed: Deed, operands: &'static [Operand]) -> Call {
    Call { number, deed, operands }
}

const LOOKS: Deed = Deed::Does(Touch::LOOKED);
const READS_LINK: Deed = Deed::Does(Touch::LINK.and(Touch::LOOKED));
const WRITES: Deed = Deed::Does(Touch::WRITTEN.and(Touch::LOOKED));
/// Of a directory, whether it works tells whether that is empty.
const REMOVES: Deed = Deed::Does(Touch::WRITTEN.and(Touch::LOOKED).and(Touch::LISTED));
const MOVES: Deed = Deed::Does(Touch::WRITTEN.and(Touch::LOOKED).and(Touch::LISTED).and(Touch::MOVED));

/// Newer than the tables of every libc; numbers past 423 are the same on all architectures.
const SYS_FACCESSAT2: i64 = 439;
const SYS_MOUNT_SETATTR: i64 = 442;
const SYS_FCHMODAT2: i64 = 452;
const SYS_SETXATTRAT: i64 = 463;
const SYS_GETXATTRAT: i64 = 464;
const SYS_LISTXATTRAT: i64 = 465;
const SYS_REMOVEXATTRAT: i64 = 466;
const SYS_OPEN_TREE_ATTR: i64 = 467;
const SYS_FILE_GETATTR: i64 = 468;
const SYS_FILE_SETATTR: i64 = 469;

const OWN_ROOT: Deed = Deed::Escapes("it changed what its paths mean (chroot, mounts or namespaces)");

/// Every call that is observed, of all architectures.
const SHARED: &[Call] = &[
    call(libc::SYS_openat, Deed::Open(2), &[at(0, 1, Follow::Unless(2, libc::O_NOFOLLOW as u64))]),
    call(libc::SYS_openat2, Deed::OpenHow(2), &[at(0, 1, Follow::Always)]),
    call(libc::SYS_statx, LOOKS, &[at(0, 1, Follow::Unless(2, NOFOLLOW))]),
    call(libc::SYS_newfstatat, LOOKS, &[at(0, 1, Follow::Unless(3, NOFOLLOW))]),
    call(libc::SYS_faccessat, LOOKS, &[at(0, 1, Follow::Always)]),
    call(SYS_FACCESSAT2, LOOKS, &[at(0, 1, Follow::Unless(3, NOFOLLOW))]),
    call(libc::SYS_readlinkat, READS_LINK, &[at(0, 1, Follow::Never)]),
    call(libc::SYS_chdir, LOOKS, &[here(0, Follow::Always)]),
    call(libc::SYS_statfs, LOOKS, &[here(0, Follow::Always)]),
    call(libc::SYS_getxattr, LOOKS, &[here(0, Follow::Always)]),
    call(libc::SYS_lgetxattr, LOOKS, &[here(0, Follow::Never)]),
    call(libc::SYS_listxattr, LOOKS, &[here(0, Follow::Always)]),
    call(libc::SYS_llistxattr, LOOKS, &[here(0, Follow::Never)]),
    call(SYS_GETXATTRAT, LOOKS, &[at(0, 1, Follow::Unless(2, NOFOLLOW))]),
    call(SYS_LISTXATTRAT, LOOKS, &[at(0, 1, Follow::Unless(2, NOFOLLOW))]),
    call(SYS_FILE_GETATTR, LOOKS, &[at(0, 1, Follow::Unless(4, NOFOLLOW))]),
    // What it does to the path is refused; whether something is there it tells before.
    call(libc::SYS_quotactl, LOOKS, &[here(1, Follow::Always)]),
    call(libc::SYS_connect, Deed::Socket(Touch::LOOKED), &[here(1, Follow::Always)]),
    call(libc::SYS_bind, Deed::Socket(Touch::WRITTEN.and(Touch::LOOKED)), &[here(1, Follow::Never)]),
    call(libc::SYS_inotify_add_watch, LOOKS, &[here(1, Follow::Always)]),
    call(libc::SYS_fanotify_mark, LOOKS, &[at(3, 4, Follow::Always)]),
    call(libc::SYS_name_to_handle_at, LOOKS, &[at(0, 1, Follow::If(4, FOLLOW))]),
    call(libc::SYS_getdents64, Deed::List, &[]),
    call(libc::SYS_execve, Deed::Execute, &[here(0, Follow::Always)]),
    call(libc::SYS_execveat, Deed::Execute, &[at(0, 1, Follow::Unless(4, NOFOLLOW))]),
    call(libc::SYS_mkdirat, WRITES, &[at(0, 1, Follow::Never)]),
    call(libc::SYS_mknodat, WRITES, &[at(0, 1, Follow::Never)]),
    call(libc::SYS_unlinkat, REMOVES, &[at(0, 1, Follow::Never)]),
    call(libc::SYS_symlinkat, WRITES, &[at(1, 2, Follow::Never)]),
    call(libc::SYS_linkat, WRITES, &[at(0, 1, Follow::If(4, FOLLOW)), at(2, 3, Follow::Never)]),
    call(libc::SYS_renameat2, MOVES, &[at(0, 1, Follow::Never), at(2, 3, Follow::Never)]),
    call(libc::SYS_truncate, WRITES, &[here(0, Follow::Always)]),
    call(libc::SYS_fchmodat, WRITES, &[at(0, 1, Follow::Always)]),
    call(SYS_FCHMODAT2, WRITES, &[at(0, 1, Follow::Unless(3, NOFOLLOW))]),
    call(libc::SYS_fchownat, WRITES, &[at(0, 1, Follow::Unless(4, NOFOLLOW))]),
    call(libc::SYS_utimensat, WRITES, &[at(0, 1, Follow::Unless(3, NOFOLLOW))]),
    call(libc::SYS_setxattr, WRITES, &[here(0, Follow::Always)]),
    call(libc::SYS_lsetxattr, WRITES, &[here(0, Follow::Never)]),
    call(libc::SYS_removexattr, WRITES, &[here(0, Follow::Always)]),
    call(libc::SYS_lremovexattr, WRITES, &[here(0, Follow::Never)]),
    call(SYS_SETXATTRAT, WRITES, &[at(0, 1, Follow::Unless(2, NOFOLLOW))]),
    call(SYS_REMOVEXATTRAT, WRITES, &[at(0, 1, Follow::Unless(2, NOFOLLOW))]),
    call(SYS_FILE_SETATTR, WRITES, &[at(0, 1, Follow::Unless(4, NOFOLLOW))]),
    call(libc::SYS_chroot, OWN_ROOT, &[]),
    call(libc::SYS_pivot_root, OWN_ROOT, &[]),
    call(libc::SYS_mount, OWN_ROOT, &[]),
    call(libc::SYS_umount2, OWN_ROOT, &[]),
    call(libc::SYS_move_mount, OWN_ROOT, &[]),
    call(libc::SYS_open_tree, OWN_ROOT, &[]),
    call(libc::SYS_fsmount, OWN_ROOT, &[]),
    call(libc::SYS_fsopen, OWN_ROOT, &[]),
    call(libc::SYS_fspick, OWN_ROOT, &[]),
    call(SYS_MOUNT_SETATTR, OWN_ROOT, &[]),
    call(SYS_OPEN_TREE_ATTR, OWN_ROOT, &[]),
    call(libc::SYS_setns, OWN_ROOT, &[]),
    call(libc::SYS_bpf, Deed::Escapes("it asked for a program of the kernel's (bpf)"), &[]),
    call(libc::SYS_open_by_handle_at, Deed::Escapes("it opened a file by its handle"), &[]),
    call(libc::SYS_seccomp, Deed::Escapes("it asked to observe its own processes"), &[]),
];

/// Calls that only the older architecture has.
#[cfg(target_arch = "x86_64")]
const OWN: &[Call] = &[
    call(libc::SYS_open, Deed::Open(1), &[here(0, Follow::Unless(1, libc::O_NOFOLLOW as u64))]),
    call(libc::SYS_creat, WRITES, &[here(0, Follow::Always)]),
    call(libc::SYS_stat, LOOKS, &[here(0, Follow::Always)]),
    call(libc::SYS_lstat, LOOKS, &[here(0, Follow::Never)]),
    call(libc::SYS_access, LOOKS, &[here(0, Follow::Always)]),
    call(libc::SYS_readlink, READS_LINK, &[here(0, Follow::Never)]),
    call(libc::SYS_getdents, Deed::List, &[]),
    call(libc::SYS_mkdir, WRITES, &[here(0, Follow::Never)]),
    call(libc::SYS_rmdir, REMOVES, &[here(0, Follow::Never)]),
    call(libc::SYS_mknod, WRITES, &[here(0, Follow::Never)]),
    call(libc::SYS_unlink, WRITES, &[here(0, Follow::Never)]),
    call(libc::SYS_symlink, WRITES, &[here(1, Follow::Never)]),
    call(libc::SYS_link, WRITES, &[here(0, Follow::Never), here(1, Follow::Never)]),
    call(libc::SYS_rename, MOVES, &[here(0, Follow::Never), here(1, Follow::Never)]),
    call(libc::SYS_renameat, MOVES, &[at(0, 1, Follow::Never), at(2, 3, Follow::Never)]),
    call(libc::SYS_chmod, WRITES, &[here(0, Follow::Always)]),
    call(libc::SYS_chown, WRITES, &[here(0, Follow::Always)]),
    call(libc::SYS_lchown, WRITES, &[here(0, Follow::Never)]),
    call(libc::SYS_utime, WRITES, &[here(0, Follow::Always)]),
    call(libc::SYS_utimes, WRITES, &[here(0, Follow::Always)]),
    call(libc::SYS_futimesat, WRITES, &[at(0, 1, Follow::Always)]),
    call(libc::SYS_uselib, Deed::Execute, &[here(0, Follow::Always)]),
];

#[cfg(target_arch = "aarch64")]
const OWN: &[Call] = &[call(libc::SYS_renameat, MOVES, &[at(0, 1, Follow::Never), at(2, 3, Follow::Never)])];

/// An architecture whose numbers nobody checked observes nothing, and says so.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OWN: &[Call] = &[];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Call> {
    OWN.iter().chain(SHARED)
}

/// The call of a number.
pub fn of(number: i64) -> Option<&'static Call> {
    all().find(|call| call.number == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_stands_for_one_call_and_every_argument_exists() {
        let mut seen = std::collections::BTreeSet::new();
        for call in all() {
            assert!(seen.insert(call.number), "{call:?} stands twice");
            assert!(!DENIED.contains(&call.number), "{call:?} is denied as well");
            for operand in call.operands {
                assert!(operand.path < 6 && operand.dir.is_none_or(|dir| dir < 6), "{call:?}");
            }
        }
    }
}
